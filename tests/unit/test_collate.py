"""Batches: padding that cannot be mistaken for data, spans that follow their words."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from espnet_taste.data.collate import SpanOptions, TokenizerCollate, pad_arrays
from espnet_taste.decoder.layout import Kind
from espnet_taste.slm.delay import PAD
from espnet_taste.types import IGNORE

SPANS = SpanOptions(whole=False, sizes=(1, 2, 0), max_positions=128)


def utterance(uid, words, units_a_word=3):
    """An utterance whose unit values tell the word they belong to."""
    num_words = words[-1] + 1
    units = np.repeat(np.arange(num_words), units_a_word)
    return uid, {
        "asr_tokens": np.arange(len(words)) + 10,
        "asr_words": np.array(words),
        "units": units,
        "word_bounds": np.arange(num_words + 1) * units_a_word,
        "spembs": np.zeros(4, np.float32),
    }


ITEMS = [utterance("a", [0, 0, 1, 2]), utterance("b", [0]), utterance("c", [0, 1, 1])]


def test_integers_are_padded_with_ignore_and_vectors_are_stacked():
    batch = pad_arrays(ITEMS, drop=("word_bounds",))

    assert batch["asr_tokens"][1].tolist() == [10, IGNORE, IGNORE, IGNORE]
    assert batch["units_lengths"].tolist() == [9, 3, 6]
    assert batch["spembs"].shape == (3, 4) and "spembs_lengths" not in batch


def test_validation_leaves_the_layout_to_the_model():
    _, batch = TokenizerCollate(num_units=5)(ITEMS)

    assert "layout" not in batch and "word_bounds" not in batch


@pytest.mark.parametrize("seed", range(5))
def test_every_row_holds_the_units_of_its_own_words(seed):
    """The units of ``utterance`` are word indices, so a row betrays a wrong cut."""
    np.random.seed(seed)
    _, batch = TokenizerCollate(5, SPANS)(ITEMS)
    layout = batch["layout"]
    words = batch["asr_words"].flatten()

    for row in range(int(layout.lm_rows.max()) + 1):
        tokens = layout.text_index[layout.text_rows == row]
        labels = layout.labels[layout.lm_rows == row]
        units = labels[(labels != IGNORE) & (labels != 5)]
        assert units.unique().tolist() == words[tokens].unique().tolist()


def test_spans_of_a_batch_use_every_unit_once():
    _, batch = TokenizerCollate(5, SPANS)(ITEMS)

    is_unit = batch["layout"].lm_kind == Kind.UNIT
    assert int(is_unit.sum()) == sum(len(data["units"]) for _, data in ITEMS)


@pytest.mark.parametrize("spans", [SPANS, SpanOptions()])
def test_every_row_learns_where_it_ends(spans):
    _, batch = TokenizerCollate(5, spans)(ITEMS)
    layout = batch["layout"]

    for row in range(int(layout.lm_rows.max()) + 1):
        labels = layout.labels[layout.lm_rows == row]
        assert (labels == 5).nonzero().flatten().tolist() == [len(labels) - 1]


def test_the_same_seed_cuts_the_same_spans():
    def rows():
        np.random.seed(7)
        return TokenizerCollate(5, SPANS)(ITEMS)[1]["layout"].lm_source

    assert torch.equal(rows(), rows())


def test_masked_units_are_inputs_only():
    spans = SpanOptions(max_masked_units=0.99, max_positions=128)
    _, batch = TokenizerCollate(5, spans)(ITEMS)
    layout = batch["layout"]

    hidden = (layout.lm_kind == Kind.UNIT) & (layout.lm_source == 5)
    labels = layout.labels[layout.labels != IGNORE]
    assert hidden.any()
    assert sorted(labels[labels != 5]) == sorted(
        np.concatenate([data["units"] for _, data in ITEMS])
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": np.array([5])}, "'x' has units 5..5, but the decoder has num_units"),
        ({"units": np.array([], int)}, "'x' has no units"),
        ({"word_bounds": None}, "'x' has no word_times"),
    ],
)
def test_a_bad_utterance_is_named(change, message):
    uid, data = utterance("x", [0, 1])
    data.update(change)
    data = {name: value for name, value in data.items() if value is not None}

    with pytest.raises(ValueError, match=message):
        TokenizerCollate(5, SPANS)([(uid, data)])


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"wohle": True}, r"span_conf: unknown \['wohle'\] for SpanOptions"),
        ({"max_masked_units": 1.0}, r"must be in \[0, 1\)"),
        ({"sizes": []}, "sizes must be >= 0"),
    ],
)
def test_a_wrong_span_option_is_named(conf, message):
    with pytest.raises(ValueError, match=message):
        SpanOptions.from_conf(conf)


def test_the_spoken_lm_gets_the_layout_its_config_names():
    """A word of two tokens tells a delay of words from one of tokens."""
    from espnet_taste.tasks.slm import TasteSpokenLMTask

    data = {
        "llm_tokens": np.array([5, 6, 7]),
        "llm_words": np.array([0, 0, 1]),
        "codes": np.zeros((2, 4), np.int64),
    }

    def read(**slm_conf):
        args = SimpleNamespace(slm_conf=slm_conf)
        collate = TasteSpokenLMTask.build_collate_fn(args, train=True)
        _, batch = collate([("a", data)])
        return batch["layout"].taste_words[0].tolist()

    assert read() == [PAD, PAD, 0, 1]
    assert read(delay_level="token") == [PAD, 0, 0, 1]
    assert read(delay=2) == [PAD, PAD, PAD, 0, 1]
