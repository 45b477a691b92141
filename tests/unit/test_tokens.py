"""The token value: parts that fit, cutting and joining, files."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from espnet_taste.pipeline.tokens import FORMAT, TasteTokens


def make(counts=(2, 1, 3), *, codes=True, times=True, span=(0.5, 2.5), **changes):
    """Return tokens of words with so many sub-words each."""
    draw = np.random.default_rng(len(counts))
    num = len(counts)
    edges = np.linspace(*span, 2 * num + 1)[:-1].reshape(num, 2)
    parts = dict(
        words=tuple(f"w{i}" for i in range(num)),
        embeds=draw.normal(size=(num, 5)).astype(np.float32),
        speaker=np.ones(3, np.float32),
        asr_tokens=draw.integers(0, 90, sum(counts)),
        asr_words=np.repeat(np.arange(num), counts),
        codes=draw.integers(0, 9, (num, 4)) if codes else None,
        times=edges.astype(np.float32) if times else None,
        span_s=span,
        models={"tokenizer": "abc"},
    )
    return TasteTokens(**parts | changes)


@pytest.mark.parametrize("codes", [True, False])
@pytest.mark.parametrize("times", [True, False])
@pytest.mark.parametrize("cuts", [(), (1,), (1, 2), (0, 3), (2, 2)])
def test_joined_slices_are_the_whole(codes, times, cuts):
    whole = make(codes=codes, times=times)
    edges = [0, *cuts, len(whole)]

    parts = [whole[a:b] for a, b in zip(edges, edges[1:])]

    assert TasteTokens.concatenate(parts) == whole
    assert [len(part) for part in parts] == [b - a for a, b in zip(edges, edges[1:])]


def test_a_word_is_cut_out_with_its_tokens_and_its_span():
    word = make()[-1]

    assert word.words == ("w2",) and list(word.asr_words) == [0, 0, 0]
    assert word.span_s == (pytest.approx(word.times[0, 0]), 2.5)
    assert np.array_equal(word.asr_tokens, make().asr_tokens[-3:])


def test_times_of_another_recording_move_behind_the_first():
    first, second = make((1, 1), span=(0.0, 1.0)), make((2,), span=(3.0, 4.0))

    both = first + second

    np.testing.assert_allclose(both.times[2], second.times[0] - 2.0)
    assert both.span_s == (0.0, 2.0) and both.text == "w0 w1 w0"
    assert list(both.asr_words) == [0, 1, 2, 2]


def test_codes_are_left_out_where_a_part_has_none():
    assert (make() + make(codes=False)).codes is None
    bare = replace(make(), embeds=None)
    assert (make() + bare).embeds is None and bare[1:].embeds is None
    with pytest.raises(ValueError, match="need codes or embeds"):
        make(codes=False) + bare


def test_unequal_values_are_unequal():
    assert make() == make()
    assert make() != make(codes=False) and make(codes=False) != make()
    assert make() != make(span=(0.5, 2.6)) and make() != "w0 w1 w2"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"embeds": np.zeros((2, 5), np.float32)}, "3 words, but 2 rows of embeds"),
        ({"embeds": None, "codes": None}, "need codes or embeds"),
        ({"codes": np.zeros((4, 4), int)}, "3 words, but 4 rows of codes"),
        ({"codes": np.full((3, 4), -1)}, "codes must be >= 0, found -1"),
        ({"asr_words": np.array([0, 0, 2, 2, 2, 2])}, "number all 3 words"),
        ({"asr_words": np.array([0, 1, 2])}, "6 asr_tokens, but 3"),
        ({"asr_words": np.array([0, 1, 0, 1, 2, 2])}, "asr_words must not fall"),
        ({"asr_tokens": np.full(6, -1)}, "asr_tokens must be >= 0, found -1"),
        ({"embeds": np.full((3, 2), np.nan)}, "embeds must be finite, found NaN"),
        ({"times": np.full((3, 2), np.inf)}, "times must be finite, found NaN"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        replace(make(), **change)


def test_parts_of_other_tokenizers_are_not_joined():
    with pytest.raises(ValueError, match="tokenizer xyz, expected abc"):
        make() + make(models={"tokenizer": "xyz"})
    with pytest.raises(ValueError, match="nothing to concatenate"):
        TasteTokens.concatenate([])


def test_no_step_and_no_word_beyond():
    with pytest.raises(ValueError, match="without step 2"):
        make()[::2]
    with pytest.raises(IndexError, match="word 3 of 3"):
        make()[3]


def test_a_word_is_a_number_or_a_range():
    assert make()[np.int64(1)] == make()[1]
    for index in ("w1", [0, 1], 1.0):
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            make()[index]


def test_only_tokens_are_joined():
    assert TasteTokens.concatenate(make()[word] for word in range(3)) == make()
    with pytest.raises(TypeError, match="unsupported operand"):
        make() + "w3"
    with pytest.raises(TypeError, match="list of them, got a NoneType"):
        TasteTokens.concatenate([make(), None])


def test_a_value_prints_as_its_words():
    assert repr(make()) == "TasteTokens('w0 w1 w2', 3 words, 0.50 to 2.50 s)"
    assert repr(make(span=(0.0, 0.0))) == "TasteTokens('w0 w1 w2', 3 words)"
    assert "www...', 1 words" in repr(make((1,), words=("w" * 90,)))


@pytest.mark.parametrize("codes", [True, False])
def test_a_file_gives_back_every_bit(tmp_path, codes):
    tokens = make(codes=codes, words=("déjà", "vu", "日"))

    tokens.save(tmp_path / "a.safetensors")

    assert TasteTokens.load(tmp_path / "a.safetensors") == tokens
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_files_that_are_none_are_named(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileNotFoundError, match="no TASTE tokens at"):
        TasteTokens.load(path)
    make().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="a.safetensors holds no TASTE tokens"):
        TasteTokens.load(path)
    save_file({"x": np.zeros(1)}, path)
    with pytest.raises(ValueError, match="it has no 'taste-tokens'"):
        TasteTokens.load(path)


def test_contradictions_and_later_versions_of_a_file_are_named(tmp_path):
    path = tmp_path / "a.safetensors"
    make().save(path)
    arrays = load_file(path)
    facts = {**make()._facts(), "words": ["one"]}
    save_file(arrays, path, metadata={FORMAT: json.dumps(facts)})
    with pytest.raises(ValueError, match=r"a\.safetensors: 1 words, but 3 rows"):
        TasteTokens.load(path)
    for broken, words in ({"version": 1}, "no 'words'"), ([], "a.safetensors: "):
        save_file(arrays, path, metadata={FORMAT: json.dumps(broken)})
        with pytest.raises(ValueError, match=words):
            TasteTokens.load(path)
    facts["version"] = 2
    save_file(arrays, path, metadata={FORMAT: json.dumps(facts)})
    with pytest.raises(ValueError, match="version 2, this program knows up to 1"):
        TasteTokens.load(path)
