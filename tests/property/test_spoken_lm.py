"""The spoken LM does not care what stands beside, behind or in a cache."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_slm import CODEBOOK_SIZE, NUM_CODEBOOKS, VOCAB_SIZE, make_batch, make_slm

from espnet_taste.slm.delay import DelayBatch, collate, delay_words, word_outputs
from espnet_taste.slm.likelihood import score
from espnet_taste.types import IGNORE

sizes = st.lists(st.integers(1, 3), min_size=1, max_size=5)
batches = st.lists(sizes, min_size=2, max_size=3)
FAMILIES = ["llama", "gpt2", "qwen2"]
CLOSE = {"atol": 2e-4, "rtol": 2e-4}
few = settings(max_examples=5, deadline=None)


@pytest.fixture(scope="module")
def models():
    return {
        (family, delay): make_slm(family, delay=delay)
        for family in FAMILIES
        for delay in (1, 2)
    }


def row_of(batch, row):
    """Cut one row out of a batch, without its padding."""
    length = int((batch.tokens[row] != IGNORE).sum())
    num_words = int((batch.word_codes[row, :, 0] != IGNORE).sum())
    return DelayBatch(
        batch.tokens[row : row + 1, :length],
        batch.taste_words[row : row + 1, :length],
        batch.label_words[row : row + 1, : length + 1],
        batch.word_codes[row : row + 1, :num_words],
    )


@few
@given(batches, st.sampled_from(FAMILIES), st.integers(1, 2), st.integers(0, 99))
def test_a_batch_is_its_rows(models, rows, family, delay, seed):
    slm = models[family, delay]
    batch = make_batch(rows, delay, seed=seed)

    together = score(slm, batch)

    for row in range(len(rows)):
        alone = score(slm, row_of(batch, row))
        for name, value in vars(together).items():
            found = vars(alone)[name]
            if name == "taste_terms":
                for term, sums in value.items():
                    torch.testing.assert_close(sums[row], found[term][0], **CLOSE)
            else:
                torch.testing.assert_close(value[row], found[0], **CLOSE)


@few
@given(batches, st.integers(0, 99), st.sampled_from([-1, 0, 3, 8]))
@torch.no_grad()
def test_what_stands_behind_the_end_is_irrelevant(models, rows, seed, pad_value):
    slm, batch = models["llama", 1], make_batch(rows, seed=seed)
    before = slm(batch)

    wider = [
        torch.nn.functional.pad(v, (0, 0) * (v.dim() - 2) + (0, 3), value=IGNORE)
        for v in vars(batch).values()
    ]
    after = slm(DelayBatch(*wider))
    for name in ("loss", "text_ce", "text_kl", "taste_loss", "num_tokens"):
        expected, found = getattr(before, name), getattr(after, name)
        torch.testing.assert_close(found, expected, **CLOSE)

    # What is read there (not what is labelled) may be anything.
    padding = batch.tokens == IGNORE
    taste_words = batch.taste_words.masked_fill(padding, min(pad_value, 0))
    other = DelayBatch(batch.tokens, taste_words, batch.label_words, batch.word_codes)
    torch.testing.assert_close(slm(other).loss, before.loss, **CLOSE)


@few
@given(sizes, st.sampled_from(FAMILIES), st.integers(1, 2), st.integers(0, 99))
@torch.no_grad()
def test_reading_on_equals_reading_all(models, row, family, delay, seed):
    slm = models[family, delay]
    inputs = slm.embed(make_batch([row], delay, seed=seed))
    expected = slm.read(inputs)[0]

    past = None
    for position in range(inputs.size(1)):
        hidden, past = slm.read_on(inputs[:, position : position + 1], past)
        torch.testing.assert_close(hidden[0], expected[position], **CLOSE)


@few
@given(sizes, sizes, st.sampled_from(FAMILIES), st.integers(0, 99))
@torch.no_grad()
def test_padding_on_the_left_is_irrelevant(models, first, second, family, seed):
    slm = models[family, 1]
    rows = [slm.embed(make_batch([row], seed=seed))[0] for row in (first, second)]
    longest = max(len(row) for row in rows) + 2
    mask = torch.stack([torch.arange(longest) >= longest - len(row) for row in rows])
    padded = torch.randn(2, longest, rows[0].size(-1))
    padded[mask] = torch.cat(rows)

    step, past = slm.read_on(padded[:, :-1], None, mask[:, :-1])
    last, _ = slm.read_on(padded[:, -1:], past, mask)

    for row, inputs in enumerate(rows):
        expected = slm.read(inputs[None])[0]
        torch.testing.assert_close(last[row], expected[-1], **CLOSE)
        if len(inputs) > 1:
            torch.testing.assert_close(step[row], expected[-2], **CLOSE)


@few
@given(sizes, st.integers(1, 2), st.integers(0, 99), st.data())
@torch.no_grad()
def test_a_word_is_read_behind_its_prediction_only(models, row, delay, seed, data):
    """Changing a word's codes leaves all outputs up to its own label alone."""
    slm = models["llama", delay]
    batch = make_batch([row], delay, seed=seed)
    word = data.draw(st.integers(0, len(row) - 1))
    codes = batch.word_codes.clone()
    codes[0, word] = (codes[0, word] + 1) % CODEBOOK_SIZE
    other = DelayBatch(batch.tokens, batch.taste_words, batch.label_words, codes)

    before, after = (slm.read(slm.embed(b))[0] for b in (batch, other))

    label = int(word_outputs(batch.label_words, len(row))[0, word])
    torch.testing.assert_close(after[: label + 1], before[: label + 1], **CLOSE)
    assert not torch.allclose(after[label + 1], before[label + 1], **CLOSE)


@few
@given(batches, st.sampled_from(FAMILIES), st.integers(0, 99))
@torch.no_grad()
def test_adapters_off_is_the_base_exactly(models, rows, family, seed):
    slm = models[family, 1]
    batch = make_batch(rows, seed=seed)
    plain = make_slm(family, lora=None)

    assert torch.equal(slm.read_text_only(batch), plain.read_text_only(batch))


@few
@given(sizes, st.integers(0, 99))
@torch.no_grad()
def test_the_level_of_the_delay_is_a_matter_of_the_layout(models, row, seed):
    """With one token a word, counting words or tokens is the same."""
    rng = np.random.default_rng(seed)
    words = list(range(len(row)))
    tokens = rng.integers(2, VOCAB_SIZE, len(row))
    codes = rng.integers(0, CODEBOOK_SIZE, (len(row), NUM_CODEBOOKS))
    losses = [
        models["llama", 2](
            collate([delay_words(tokens, words, 2, level)], [codes])
        ).loss
        for level in ("word", "token")
    ]

    assert torch.equal(*losses)
