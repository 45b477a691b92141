"""From utterances on disk to data folders, and the division into sets."""

import pytest

from espnet_taste.data.corpora import (
    Utterance,
    require_folder,
    split_by_hash,
    write_data_dir,
)
from espnet_taste.data.kaldi import read_table


def utterances(number):
    return [
        Utterance(f"u{n}", f"s{n % 50}", f"{n}.wav", f"word {n}") for n in range(number)
    ]


def keys(rows):
    return {row.key for row in rows}


def test_a_folder_has_what_the_utterances_have(tmp_path):
    rows = [
        Utterance("b", "s", "b.wav", " two \n lines "),
        Utterance("a", "s", "a.wav", None),
        Utterance("c", "t", None, "no audio"),
    ]

    assert write_data_dir(tmp_path, rows) == 3

    assert read_table(tmp_path / "wav.scp") == {"a": "a.wav", "b": "b.wav"}
    assert read_table(tmp_path / "text") == {"b": "two lines", "c": "no audio"}
    assert read_table(tmp_path / "utt2spk") == {"a": "s", "b": "s", "c": "t"}
    # ESPnet's tools want it.
    assert read_table(tmp_path / "spk2utt") == {"s": "a b", "t": "c"}
    assert not (tmp_path / "segments").exists()


def test_spans_become_segments_with_every_digit(tmp_path):
    row = Utterance("a", "s", "r.wav", "x", (1234567.125, -1.0), "r")

    write_data_dir(tmp_path, [row])

    assert read_table(tmp_path / "segments") == {"a": "r 1234567.125 -1.0"}
    assert read_table(tmp_path / "wav.scp") == {"r": "r.wav"}


def test_a_table_of_an_earlier_preparation_does_not_stay(tmp_path):
    write_data_dir(tmp_path, [Utterance("a", "s", "r.wav", "x", (0.0, 1.0), "r")])
    write_data_dir(tmp_path, [Utterance("a", None, "a.wav", None)])

    assert sorted(path.name for path in tmp_path.iterdir()) == ["wav.scp"]


@pytest.mark.parametrize("other", ["2.wav", None])
def test_two_recordings_of_one_name_are_refused(tmp_path, other):
    def part(key, audio):
        return Utterance(key, "s", audio, "x", (0.0, 1.0), "rec1")

    write_data_dir(tmp_path, [part("a", "1.wav"), part("b", "1.wav")])

    with pytest.raises(ValueError, match=f"'rec1' is 1.wav and {other}; give one of"):
        write_data_dir(tmp_path, [part("a", "1.wav"), part("b", other)])
    assert read_table(tmp_path / "wav.scp") == {"rec1": "1.wav"}


def test_an_unknown_speaker_is_no_speaker_of_its_own(tmp_path):
    rows = [Utterance("a", None, "a.wav", "x"), Utterance("b", "s", "b.wav", "y")]

    assert write_data_dir(tmp_path, rows) == 2

    assert read_table(tmp_path / "utt2spk") == {"b": "s"}
    with pytest.raises(ValueError, match="'a' is repeated"):
        write_data_dir(tmp_path, rows + rows[:1])


def test_where_speakers_are_unknown_utterances_are_divided():
    rows = [Utterance(f"u{n}", None, "a.wav", "x") for n in range(200)]

    sets = split_by_hash(rows, {"test": 0.3}, by="speaker")

    assert 30 < len(sets["test"]) < 90


@pytest.mark.parametrize("rows", [[], utterances(2) + utterances(1)])
def test_no_or_repeated_utterances_are_refused(tmp_path, rows):
    with pytest.raises(ValueError, match="no utterances|'u0' is repeated"):
        write_data_dir(tmp_path, rows)


def test_the_division_is_complete_near_its_shares_and_seeded():
    rows = utterances(2000)
    sets = split_by_hash(rows, {"valid": 0.05, "test": 0.1})

    assert [len(sets[n]) for n in ("valid", "test")] == pytest.approx(
        [100, 200], abs=40
    )
    assert sorted(keys(sets["train"]) | keys(sets["valid"]) | keys(sets["test"])) == (
        sorted(keys(rows))
    )
    assert sum(map(len, sets.values())) == 2000
    again = split_by_hash(rows, {"valid": 0.05, "test": 0.1}, seed=1)
    assert keys(again["test"]) != keys(sets["test"])


def test_adding_data_moves_nothing():
    shares = {"valid": 0.05, "test": 0.1}
    small = split_by_hash(utterances(500), shares)
    large = split_by_hash(utterances(2000), shares)

    for name in small:
        assert keys(small[name]) <= keys(large[name])


def test_the_hash_is_the_same_on_every_machine():
    sets = split_by_hash(utterances(40), {"test": 0.1})

    assert sorted(keys(sets["test"])) == ["u12", "u15", "u24", "u3"]


def test_speakers_can_be_kept_apart():
    sets = split_by_hash(utterances(2000), {"test": 0.2}, by="speaker")

    speakers = [{row.speaker for row in rows} for rows in sets.values()]
    assert not speakers[0] & speakers[1] and all(speakers)


@pytest.mark.parametrize("shares", [{"a": 0.5, "b": 0.5}, {"a": -0.1}])
def test_shares_that_leave_nothing_are_refused(shares):
    with pytest.raises(ValueError, match="sum below 1"):
        split_by_hash(utterances(3), shares)


def test_a_set_without_share_is_not_made():
    assert list(split_by_hash(utterances(3), {"valid": 0, "test": 0.5})) == [
        "train",
        "test",
    ]


def test_a_missing_corpus_is_named_with_its_source(tmp_path):
    for path in (None, tmp_path / "gone"):
        with pytest.raises(FileNotFoundError, match="--corpus_dir .*from openslr"):
            require_folder(path, "LibriSpeech", "openslr.org/12")
