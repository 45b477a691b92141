"""Lists of edits: what a line may say, what it is told, and the edit that it makes."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_taste import noise, tiny_tokenizer

from espnet_taste.data.exclusions import ExclusionError
from espnet_taste.pipeline import delivery, editing
from espnet_taste.pipeline.edit_list import (
    FORMS,
    EditLine,
    EditOrder,
    make_edit,
    parse_line,
    read_edit_list,
)

TEXT = "a b c d e f g h i j k l"
GOOD = {
    "swap": {"donor": "two", "words": [1, 2]},
    "transplant": {"word": 0, "donor": "two", "donor_word": 3},
    "retime": {"span": [0, 2], "factor": 1.5, "examples": ["one", "two"]},
    "replace": {"word": 2, "text": "new"},
    "repeat": {"word": 1, "times": 2},
    "interpolate": {"donor": "two", "share": 0.5, "words": [1]},
}


def line_of(edit, **fields):
    return EditLine("k", "list:3", {"edit": edit, "utterance": "one", **fields})


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def tokens(tokenizer):
    waves = [noise(16000, 1), noise(16000, 2)]
    rows = tokenizer.encode(waves, [TEXT] * 2, word_times=False)
    return dict(zip(("one", "two"), rows, strict=True))


def test_a_list_is_read_in_its_order_with_the_place_of_every_line(tmp_path):
    path = tmp_path / "list"
    path.write_text('{"key": "b", "edit": "swap"}\n\n{"key": "a", "times": 3}\n')

    lines = read_edit_list(path)

    assert list(lines) == ["b", "a"]
    assert lines["a"] == EditLine("a", f"{path}:3", {"times": 3})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no edits; write one a line"),
        ('{"key": "a"}\n{"key": "b"', "list:2: not JSON"),
        ("[1]", "list:1: expected an object with an id"),
        ('{"edit": "swap"}', "list:1: expected an object with an id"),
        ('{"key": "a b"}', "list:1: an id must be non-empty and without blanks"),
        ('{"key": "a"}\n{"key": "a"}', "list:2: the id 'a' is also that of .*list:1"),
    ],
)
def test_what_is_no_list_is_refused_by_its_line(tmp_path, text, message):
    (tmp_path / "list").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_edit_list(tmp_path / "list")


@pytest.mark.parametrize("edit", FORMS)
def test_every_edit_has_its_arguments_and_can_be_asked_for(edit, tokens):
    order = parse_line(line_of(edit, **GOOD[edit]), tokens, "f")

    assert order == EditOrder(edit, "one", GOOD[edit])
    assert order.asked == {"edit": edit, "utterance": "one", **GOOD[edit]}
    for name in FORMS[edit].optional:
        less = parse_line(line_of(edit, **{**GOOD[edit], name: None}), tokens, "f")
        assert name not in less.arguments
    for name in FORMS[edit].needed:
        fields = {key: value for key, value in GOOD[edit].items() if key != name}
        with pytest.raises(ExclusionError, match=f"list:3: {edit} needs '{name}', "):
            parse_line(line_of(edit, **fields), tokens, "f")


@pytest.mark.parametrize(
    ("fields", "reason", "message"),
    [
        ({"edit": "swop"}, "bad_edit", "no edit 'swop'; edit is one of swap, transpl"),
        ({"edit": None}, "bad_edit", "no edit None; edit is one of"),
        ({"edit": ["swap"]}, "bad_edit", r"no edit \['swap'\]; edit is one of"),
        ({"utterance": None}, "bad_edit", "swap needs 'utterance', the id of an"),
        ({"word": 1}, "bad_edit", "swap has no 'word'; it takes utterance, donor, w"),
        ({"words": 1}, "bad_edit", "words must be a list of numbers of words, got 1"),
        ({"words": []}, "bad_edit", "words must be a list of numbers of words"),
        ({"words": [1.0]}, "bad_edit", "words must be a list of numbers of words"),
        ({"words": [True]}, "bad_edit", "words must be a list of numbers of words"),
        ({"donor": 7}, "bad_edit", "donor must be the id of an utterance, got 7"),
        ({"donor": "no"}, "no_utterance", "no utterance 'no' in f; encode it first"),
        ({"utterance": "no"}, "no_utterance", "no utterance 'no' in f"),
    ],
)
def test_a_line_that_cannot_be_read_says_why(fields, reason, message, tokens):
    asked = {"edit": "swap", "utterance": "one", "donor": "two", "words": [1], **fields}
    with pytest.raises(ExclusionError, match=f"list:3: {message}") as caught:
        parse_line(EditLine("k", "list:3", asked), tokens, "f")
    assert caught.value.reason == reason


def test_the_documents_examples_are_edits(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "edits.md").read_text()
    (tmp_path / "list").write_text(re.search(r"```json\n(.*?)```", text, re.S)[1])
    lines = read_edit_list(tmp_path / "list").values()

    known = dict.fromkeys(("calm", "keen", "slow"))
    orders = [parse_line(line, known, "f") for line in lines]

    assert [order.edit for order in orders] == list(FORMS)


def test_unknown_examples_are_told_too(tokens):
    line = line_of("retime", span=[0, 1], factor=2, examples=["one", "no"])
    with pytest.raises(ExclusionError, match="no utterance 'no' in f"):
        parse_line(line, tokens, "f")


def test_edits_are_those_of_the_functions(tokens, tokenizer, monkeypatch):
    one, two = tokens["one"], tokens["two"]
    asked = []
    monkeypatch.setattr(delivery, "retime", lambda *a: asked.append(a) or "retimed")
    expected = {
        "swap": editing.swap_words(one, two, [1, 2])[0],
        "transplant": editing.transplant(one, 0, two, 3),
        "replace": editing.replace_text(one, 2, "new", tokenizer.encoder.encode_text),
        "repeat": editing.repeat_word(one, 1, 2),
        "interpolate": delivery.interpolate(one, two, 0.5, tokenizer, [1]),
    }
    for edit, wanted in expected.items():
        target, made = make_edit(EditOrder(edit, "one", GOOD[edit]), tokens, tokenizer)
        assert target is one and made.tokens == wanted.tokens
        assert made.changed == wanted.changed and made.caveats == wanted.caveats

    order = EditOrder("retime", "one", GOOD["retime"])
    assert make_edit(order, tokens, tokenizer) == (one, "retimed")
    assert asked == [(one, (0, 2), 1.5, tokenizer, [one, two])]
    make_edit(
        EditOrder("retime", "one", {"span": [3, 12], "factor": 2}), tokens, tokenizer
    )
    assert asked[1] == (one, (3, 12), 2, tokenizer, None)


@pytest.mark.parametrize("span", [[2, 1], [1, 1], [-1, 2], [0, 13], [0, 10**12]])
def test_a_span_that_is_not_there_is_told_at_once(span, tokens, tokenizer):
    order = EditOrder("retime", "one", {"span": span, "factor": 2.0})
    with pytest.raises(ValueError, match=r"within 0\.\.12"):
        make_edit(order, tokens, tokenizer)


def test_tokens_of_another_tokenizer_are_refused(tokens, tokenizer):
    foreign = {**tokens, "two": replace(tokens["two"], models={"tokenizer": "you"})}
    with pytest.raises(ValueError, match="cannot edit 'two',.* you, expected me; enc"):
        make_edit(EditOrder("swap", "one", GOOD["swap"]), foreign, tokenizer)


def test_a_made_edit_survives_json(tokens, tokenizer):
    order = EditOrder("swap", "one", json.loads(json.dumps(GOOD["swap"])))
    _, edit = make_edit(order, tokens, tokenizer)
    assert np.array_equal(edit.tokens.codes[1:3], tokens["two"].codes[1:3])
