"""Pairs made from a corpus: what differs, what does not, and the folder they become."""

import json

import kaldiio
import numpy as np
import pytest
import soundfile

from espnet_taste.bin import make_pairs as command
from espnet_taste.bin.score_pairs import made_of
from espnet_taste.data.kaldi import read_table
from espnet_taste.data.pair_making import (
    FADE_S,
    LEVEL,
    MAKERS,
    Corpus,
    Spoken,
    as_long,
    go_over,
    join,
    make_pairs,
)
from espnet_taste.data.pair_sets import read_pairs
from espnet_taste.eval.pair_page import render_pairs

RATE = 16000
KEYS = [
    f"{speaker}{chapter}-{n:04d}"
    for speaker in "AB"
    for chapter in "12"
    for n in (7, 8)
]
KEYS += ["C1-0001", "C2-0001"]
SPEAKER = {key: key[0] for key in KEYS}


def speak(key):
    """Return a tone of the speaker's pitch, half a second a word; words name it."""
    pitch = {"A": 200, "B": 330, "C": 470}[key[0]]
    words = tuple(f"{key}-{n}" for n in range(6 + int(key[-1]) % 2))
    seconds = np.arange(len(words) * RATE // 2) / RATE
    ends = 0.5 * np.arange(1, len(words) + 1)
    times = np.stack([ends - 0.4, ends - 0.1], axis=1)
    return Spoken(0.3 * np.sin(2 * np.pi * pitch * seconds).astype("f4"), words, times)


@pytest.fixture
def corpus():
    return Corpus(KEYS, SPEAKER, {"A": "f", "B": "m", "C": "f"}, speak)


def all_pairs(corpus, kind, count=100):
    return list(make_pairs(corpus, kind, count, seed=3))


def test_cut_pieces_put_together_are_the_whole():
    whole = speak("A1-0007")
    left, right = whole.cut(3)

    assert left.words + right.words == whole.words
    assert left.duration_s == pytest.approx(1.5)
    again = join(left, right)
    assert again.words == whole.words
    np.testing.assert_allclose(again.times[:3], whole.times[:3])
    np.testing.assert_allclose(again.times[3:], whole.times[3:] - FADE_S)
    assert len(again.wave) == len(whole.wave) - round(FADE_S * RATE)
    at = len(left.wave) - round(FADE_S * RATE)
    np.testing.assert_array_equal(again.wave[:at], whole.wave[:at])


def owner(words):
    return {word.rsplit("-", 1)[0] for word in words}


@pytest.mark.parametrize("kind", ["speaker_switch", "gender_switch"])
def test_a_switch_of_voices(corpus, kind):
    pairs = all_pairs(corpus, kind)

    assert sorted(pair.anchor for pair in pairs) == sorted(KEYS)
    for pair in pairs:
        me, count = SPEAKER[pair.anchor], len(speak(pair.anchor).words) // 2
        for half in (pair.positive, pair.negative):
            assert owner(half.words[:count]) == {pair.anchor}
        (same,) = owner(pair.positive.words[count:])
        (other,) = owner(pair.negative.words[count:])
        assert SPEAKER[same] == me != SPEAKER[other] and same != pair.anchor
        # The other voice never tells the same story; nor does the own one here.
        assert same[:2] != pair.anchor[:2] and "chapter" not in pair.about
        if kind == "gender_switch":
            assert corpus.gender_of(other) != corpus.gender_of(pair.anchor)
        assert len(pair.positive.words) == len(pair.negative.words) >= count + 2
        at = round(pair.moment_s * RATE)
        assert np.array_equal(pair.positive.wave[:at], pair.negative.wave[:at])
        assert pair.positive.wave[at + 7] != pair.negative.wave[at + 7]
        assert pair.positive.times[count, 0] >= pair.moment_s
        after = pair.negative.wave[round(pair.moment_s * RATE) :]
        assert np.sqrt(np.mean(after**2)) == pytest.approx(LEVEL, rel=0.05)


def test_a_voice_of_one_chapter_goes_on_in_it():
    keys = [key for key in KEYS if key[:2] in ("A1", "B1")]

    pairs = all_pairs(Corpus(keys, SPEAKER, {}, speak), "speaker_switch")

    assert {pair.about for pair in pairs} == {"speaker, in one chapter"}
    assert len(pairs) == 4


def test_chapters_of_libritts_have_paragraphs():
    """A paragraph was taken for one, so that the next one was another story."""
    names = (
        "1_2_000003_000001",
        "1_2_000003_000002",
        "1_2_000004_000000",
        "1_3_000000_000001",
    )
    speaker = dict.fromkeys(names, "1")
    keys = dict(zip(names, ("A1-0007", "A1-0008", "A2-0007", "B1-0008")))
    corpus = Corpus(names, speaker, {}, lambda name: speak(keys[name]))

    for seed in range(8):
        (pair,) = make_pairs(corpus, "topic_switch", 9, seed)
        assert pair.anchor == names[0]
        assert owner(pair.negative.words[7:]) == {"B1-0008"}


def test_unknown_genders_make_no_pair(corpus):
    assert all_pairs(Corpus(KEYS, SPEAKER, {}, speak), "gender_switch") == []


def test_a_switch_of_topic(corpus):
    pairs = all_pairs(corpus, "topic_switch")

    # Only the utterances of A and B that another one follows in their chapter.
    assert {p.anchor for p in pairs} == {"A1-0007", "A2-0007", "B1-0007", "B2-0007"}
    for pair in pairs:
        count = len(speak(pair.anchor).words)
        assert owner(pair.positive.words[count:]) == {pair.anchor[:-1] + "8"}
        (other,) = owner(pair.negative.words[count:])
        assert other[0] == pair.anchor[0] and other[:2] != pair.anchor[:2]
        assert len(pair.positive.words) == len(pair.negative.words) >= count + 5


def test_the_longer_of_two_endings_is_cut_and_the_shorter_too():
    """Length must not tell the halves apart, nor an end that is not cut."""
    short, long = speak("A1-0006"), speak("A1-0007")
    one, other = as_long(short, long)

    assert one.words == short.words[:5] and other.words == long.words[:5]
    assert one.duration_s < short.duration_s
    assert as_long(long, short)[0].words == other.words


@pytest.mark.parametrize("kind", ["background_switch", "reverb_switch"])
def test_a_switch_of_what_surrounds_the_voice(corpus, kind):
    pairs = all_pairs(corpus, kind)

    assert len(pairs) == len(KEYS)
    for pair in pairs:
        assert pair.positive.words == pair.negative.words == speak(pair.anchor).words
        right, wrong = pair.positive.wave, pair.negative.wave
        at = round(pair.moment_s * RATE)
        # Levels are set over the whole, so the first parts may differ by a factor.
        scale = np.dot(right[:at], wrong[:at]) / np.dot(right[:at], right[:at])
        np.testing.assert_allclose(wrong[:at], scale * right[:at], atol=1e-5)
        assert not np.allclose(wrong[at:], scale * right[at:], atol=1e-4)
        clean = speak(pair.anchor).levelled().wave
        assert not np.allclose(right, clean, atol=1e-3)


def test_what_surrounds_the_voice_changes_without_a_click():
    """A jump that one half alone has would tell it, whatever surrounds the voice."""
    first, second = np.ones(RATE, "f4"), -np.ones(RATE, "f4")

    changed = go_over(first, second, RATE // 2)

    assert np.array_equal(changed[: RATE // 2], first[: RATE // 2])
    assert changed[RATE // 2 + 1] < 1 and changed[-1] == -1
    assert np.abs(np.diff(changed)).max() == pytest.approx(2 / 160, rel=1e-3)


def test_another_room_is_not_louder():
    """A longer decay has more energy: four times here, if nothing is done about it."""
    random = np.random.default_rng(0)
    words = tuple("abcdef")
    times = np.stack([np.arange(6), np.arange(6) + 0.9], 1) / 2
    wave = random.standard_normal(3 * RATE).astype("f4")
    corpus = Corpus(["a"], {"a": "A"}, {}, lambda key: Spoken(wave, words, times))

    (pair,) = all_pairs(corpus, "reverb_switch")

    at = round(pair.moment_s * RATE)
    levels = [np.sqrt(np.mean(w**2)) for w in np.split(pair.negative.wave, [at])]
    assert levels[1] == pytest.approx(levels[0], rel=0.15)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_pair_depends_on_seed_and_utterance_alone(corpus, kind):
    few, many = all_pairs(corpus, kind, 2), all_pairs(corpus, kind)

    assert len(few) == 2
    for one, other in zip(few, many):
        assert one.anchor == other.anchor and one.about == other.about
        assert np.array_equal(one.negative.wave, other.negative.wave)
    assert len({pair.anchor for pair in many}) == len(many)


@pytest.fixture
def data_dir(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    tables = {"wav.scp": {}, "text": {}, "utt2spk": SPEAKER}
    with kaldiio.WriteHelper(f"ark,scp:{folder}/t.ark,{folder}/word_times.scp") as out:
        for key in KEYS:
            spoken = speak(key)
            soundfile.write(folder / f"{key}.wav", spoken.wave, RATE)
            tables["wav.scp"][key] = f"{folder}/{key}.wav"
            tables["text"][key] = " ".join(spoken.words)
            out(key, spoken.times.astype("f4"))
    for name, rows in tables.items():
        lines = [f"{key} {value}\n" for key, value in sorted(rows.items())]
        (folder / name).write_text("".join(lines))
    return folder


def run(data_dir, *options):
    return command.main(
        ["--data_dir", str(data_dir), "--output_dir", str(data_dir.parent / "out")]
        + ["--num_pairs", "3", *options]
    )


def test_the_command_writes_a_data_folder(data_dir, capsys):
    assert run(data_dir) == 0

    out = data_dir.parent / "out"
    pairs = read_pairs(out / "pairs")
    assert "gender_switch: 0 pairs; the set has none" in capsys.readouterr().out
    assert {pair.part for pair in pairs} == set(MAKERS) - {"gender_switch"}
    wav, text, moments = (read_table(out / n) for n in ("wav.scp", "text", "moments"))
    assert len(pairs) == 15 and len(wav) == len(text) == len(moments) == 30
    for pair in pairs:
        for key in (pair.positive, pair.negative):
            info = soundfile.info(wav[key])
            assert info.samplerate == RATE
            assert 0 < float(moments[key]) < info.duration
            assert len(text[key].split()) >= 5


def test_kinds_of_which_there_are_too_few_stand_on_the_page(data_dir):
    run(data_dir)

    made = made_of([data_dir.parent / "out" / "pairs"])
    scores = {"mean": {"topic_switch": {"accuracy": 0.5}}}
    page = render_pairs(
        {"test": {"transcripts": "given", "conventions": scores, "made": made}}
    )

    assert made["gender_switch"] == {"made": 0, "wanted": 3}
    assert "* `gender_switch`: 0 of 3 pairs; the set has no more." in "\n".join(page)
    assert "`topic_switch`:" not in "\n".join(page)
    assert made_of([data_dir.parent / "elsewhere" / "pairs"]) == {}


def test_a_second_run_writes_nothing_again_and_another_seed_is_refused(
    data_dir, capsys
):
    run(data_dir)
    out = data_dir.parent / "out"
    before = {path: path.stat().st_mtime_ns for path in out.glob("audio/*")}
    victim = next(path for path in before if path.suffix == ".json")
    victim.unlink()

    assert run(data_dir) == 0

    audio = victim.with_suffix(".flac")
    for path, time in before.items():
        assert (path.stat().st_mtime_ns == time) == (path not in (victim, audio))
    assert run(data_dir, "--seed", "2") == 1
    assert "other settings (seed 1986 -> 2)" in capsys.readouterr().err
    assert json.loads(victim.read_text())["about"]


@pytest.mark.parametrize("table", ["text", "word_times.scp", "utt2spk"])
def test_a_folder_without_a_table_is_named(data_dir, table, capsys):
    (data_dir / table).unlink()
    assert run(data_dir) == 1
    assert "the stage align" in capsys.readouterr().err


def test_short_utterances_are_not_enough(data_dir, capsys):
    (data_dir / "text").write_text("".join(f"{key} one two\n" for key in KEYS))
    assert run(data_dir) == 1
    assert "no utterance of 6 words or more" in capsys.readouterr().err


def pitch_of(wave):
    """Return the strongest frequency in Hz."""
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 8 * len(wave)))
    return np.fft.rfftfreq(8 * len(wave), 1 / RATE)[spectrum.argmax()]


def test_a_switch_of_prosody(corpus):
    """Rate or pitch changes in the middle of the wrong half and nowhere else."""
    pairs = all_pairs(corpus, "prosody_switch")

    assert {pair.about.split()[0] for pair in pairs} == {"rate", "pitch"}
    for pair in pairs:
        what, before, _, after = pair.about.split()
        before, after = float(before), float(after)
        whole, at = speak(pair.anchor), round(pair.moment_s * RATE)
        own = pitch_of(whole.wave)
        assert pair.positive.words == pair.negative.words == whole.words
        seconds = [half.duration_s for half in (pair.positive, pair.negative)]
        if what == "rate":
            assert seconds[0] == pytest.approx(whole.duration_s / before, abs=0.05)
            assert (seconds[1] > seconds[0]) == (after < before)
            assert pitch_of(pair.negative.wave[at:]) == pytest.approx(own, rel=0.02)
            gaps = np.diff(pair.negative.times[-2:, 0])
            np.testing.assert_allclose(gaps, 0.5 / after, rtol=1e-6)
            continue
        assert seconds == pytest.approx([whole.duration_s - FADE_S] * 2, abs=0.01)
        for half, semitones in ((pair.positive, before), (pair.negative, after)):
            expected = own * 2 ** (semitones / 12)
            assert pitch_of(half.wave[at + 500 :]) == pytest.approx(expected, rel=0.03)
        start = own * 2 ** (before / 12)
        assert pitch_of(pair.negative.wave[: at - 500]) == pytest.approx(
            start, rel=0.03
        )
