"""Token lines: every bit comes back, whatever is wrong is named by line and id."""

import json
from dataclasses import replace

import numpy as np
import pytest

from espnet_taste.pipeline.interchange import (
    TokenFile,
    append_tokens,
    from_row,
    join_files,
    to_row,
    write_tokens,
)
from espnet_taste.pipeline.tokens import TasteTokens


def make(num=3, seed=0, *, codes=True, times=True, embeds=True):
    """Return tokens with awkward floats and two sub-words a word."""
    draw = np.random.default_rng(seed)
    vectors = draw.normal(size=(num, 5)).astype(np.float32) * np.float32(1e-7)
    return TasteTokens(
        words=tuple(f"w\u2028{i}é" for i in range(num)),
        embeds=vectors if embeds else None,
        speaker=np.float32([0.1, -0.0, 1 / 3, 1e-30, 3.4e38]),
        asr_tokens=draw.integers(0, 50000, 2 * num),
        asr_words=np.repeat(np.arange(num), 2),
        codes=draw.integers(0, 512, (num, 4)) if codes else None,
        times=draw.random((num, 2)).astype(np.float32) if times else None,
        span_s=(0.1, 1 / 3),
        models={"tokenizer": "abc", "whisper": "tiny"},
    )


@pytest.mark.parametrize("codes", [True, False])
@pytest.mark.parametrize("times", [True, False])
def test_a_line_gives_back_every_bit(tmp_path, codes, times):
    tokens = make(codes=codes, times=times, embeds=not codes)
    path = tmp_path / "a.jsonl"

    write_tokens(path, {"b": tokens, "a": make(seed=1)})

    file = TokenFile(path)
    assert list(file) == ["a", "b"] and file["b"] == tokens
    assert file["b"].speaker.dtype == np.float32 and file["b"].codes is None or codes
    assert np.signbit(file["b"].speaker[1])


def test_floats_are_short():
    row = to_row("a", make())

    assert row["speaker"][:2] == [0.1, -0.0] and row["span_s"] == [0.1, 1 / 3]


def test_embeddings_of_codes_are_left_out():
    assert "embeds" not in to_row("a", make())
    assert from_row(to_row("a", make()), "f:1")[1] == replace(make(), embeds=None)


def test_lines_are_appended_and_a_last_one_cut_short_is_dropped(tmp_path):
    path = tmp_path / "new" / "a.jsonl"
    append_tokens(path, {"a": make(1)})
    append_tokens(path, {"b": make(2), "c": make(3)})
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])

    with pytest.raises(ValueError, match="a.jsonl:3: the last line was cut short"):
        TokenFile(path)
    assert list(TokenFile(path, forgive_last=True)) == ["a", "b"]
    append_tokens(path, {"c": make(3)})

    assert path.read_bytes() == whole
    assert [place.num_words for place in TokenFile(path).places.values()] == [1, 2, 3]


def test_a_file_of_one_broken_line_becomes_empty(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"{" * 70000)

    assert len(TokenFile(tmp_path / "a.jsonl", forgive_last=True)) == 0
    assert (tmp_path / "a.jsonl").stat().st_size == 0


def test_nothing_of_a_bad_batch_is_written(tmp_path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(ValueError, match="'b' has no words"):
        append_tokens(path, {"a": make(), "b": make()[:0]})
    with pytest.raises(ValueError, match="without blanks, got 'a b'"):
        append_tokens(path, {"a b": make()})
    loud = replace(make(), speaker=np.float32([np.inf]))
    with pytest.raises(ValueError, match="'a': speaker holds numbers that are not"):
        append_tokens(path, {"a": loud})
    assert not path.exists()


def test_files_are_joined_in_the_order_asked_for(tmp_path):
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    append_tokens(first, {"c": make(1), "a": make(2)})
    append_tokens(second, {"b": make(3), "a": make(1)})

    written = join_files([first, second], ["a", "b", "x", "c"], first)

    assert written == ["a", "b", "c"] == list(TokenFile(first))
    assert len(TokenFile(first)["a"]) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "x"}, "f:7: no TASTE tokens: expected format 'taste-tokens'"),
        ({"version": 2}, "f:7: 'u' is of version 2, this program knows 1 to 1"),
        ({"version": None}, "f:7: 'u' is of version None"),
        ({"key": 3}, "f:7: the key must be a string, got 3"),
        ({"key": "a b"}, "f:7: an id must be non-empty and without blanks, got 'a b'"),
        ({"speaker": None}, r"f:7: 'u': no field \['speaker'\]"),
        ({"words": "abc"}, "f:7: 'u': words must be a list of words"),
        ({"words": ["a", "", "b"]}, "f:7: 'u': words must be a list of words"),
        ({"words": ["a", "b c", "d"]}, "f:7: 'u': words must be a list of words"),
        ({"models": []}, "f:7: 'u': models must name roles"),
        ({"codes": [[1, 2], [3]]}, "f:7: 'u': codes: its rows differ in length"),
        ({"codes": [[0.5]] * 3}, "f:7: 'u': codes: expected whole numbers with 2"),
        ({"codes": [[-1]] * 3}, "f:7: 'u': codes must be >= 0"),
        ({"codes": [[1]] * 2}, "f:7: 'u': 3 words, but 2 rows of codes"),
        ({"codes": None}, "f:7: 'u': tokens need codes or embeds"),
        ({"speaker": [float("nan")]}, "f:7: 'u': speaker: not all numbers are finite"),
        ({"speaker": [1e39]}, "f:7: 'u': speaker: not all numbers are finite"),
        ({"times": [[0.0]] * 3}, "f:7: 'u': times must have a start and an end"),
        ({"span_s": [1]}, "f:7: 'u': span_s must have a start and an end"),
    ],
)
def test_a_bad_field_is_named_with_line_and_id(change, words):
    row = json.loads(json.dumps(to_row("u", make()) | change))

    with pytest.raises(ValueError, match=words):
        from_row(row, "f:7")


def test_files_that_are_none_are_named(tmp_path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(FileNotFoundError, match="no TASTE tokens at"):
        TokenFile(path)
    path.write_bytes(b"\xff\n")
    with pytest.raises(ValueError, match="a.jsonl:1: not JSON"):
        TokenFile(path)
    path.write_text("[]\n")
    with pytest.raises(ValueError, match="a.jsonl:1: no TASTE tokens"):
        TokenFile(path)
    append_tokens(tmp_path / "b.jsonl", {"a": make()})
    append_tokens(tmp_path / "b.jsonl", {"a": make()})
    with pytest.raises(ValueError, match="b.jsonl:2: 'a' is repeated.*in line 1"):
        TokenFile(tmp_path / "b.jsonl")


def test_words_with_blanks_inside_are_not_written():
    """No reader would take the line."""
    tokens = replace(make(), words=("one\ttwo", "three", "four"))

    with pytest.raises(ValueError, match=r"'key' has words with blanks .*one\\ttwo"):
        to_row("key", tokens)
