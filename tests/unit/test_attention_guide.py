"""Guided attention: the loss by hand, padding, packing, and what it teaches."""

import math

import numpy as np
import pytest
import torch

from espnet_taste.data.collate import SpanOptions, TokenizerCollate
from espnet_taste.decoder.layout import Row, pack_rows
from espnet_taste.decoder.unit_lm import UnitLM
from espnet_taste.layers.attention_guide import AttentionGuide, MissedAttention
from espnet_taste.types import IGNORE


def test_the_loss_is_minus_the_log_share_on_the_right_word():
    queries = torch.tensor([-1, -1, -1, 0, 1])  # positions 3 and 4 speak words 0 and 1
    keys = torch.tensor([0, 0, 1, -1, -1])
    scores = torch.randn(1, 1, 5, 5)
    scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), float("-inf"))
    guide = AttentionGuide(queries, keys, ((1, 5),), (0,))

    guide.read(0, torch.zeros(1, 1, 5, 2), torch.zeros(1, 1, 5, 2), scores)

    weights = scores[0, 0].softmax(-1)
    expected = -(weights[3, :2].sum().log() + weights[4, 2].log()) / 2
    torch.testing.assert_close(guide.loss(), expected)


def test_missed_attention_is_a_difference_of_log_sums():
    torch.manual_seed(0)
    scores = 40 * torch.randn(3, 4, 9, dtype=torch.float64)  # shares down to 1e-30
    scores[1, 2, 4:] = -math.inf
    scores[2, 3] = -math.inf  # nothing to look at at all
    target = torch.rand(3, 4, 9) < 0.3
    target[0, 1] = target[2, 3] = False
    target[1, 2, 0] = True
    ours, plain = (scores.clone().requires_grad_() for _ in range(2))

    missed = MissedAttention.apply(ours, target, ours.detach().softmax(-1))
    (missed * torch.arange(12).view(3, 4)).sum().backward()

    sums = plain.masked_fill(~target, -math.inf).logsumexp(-1)
    expected = torch.where(target.any(-1), plain.logsumexp(-1) - sums, 0.0)
    is_aimed = target.any(-1)
    (expected * torch.arange(12).view(3, 4))[is_aimed].sum().backward()
    torch.testing.assert_close(missed, expected)
    torch.testing.assert_close(ours.grad[is_aimed], plain.grad[is_aimed])
    assert not ours.grad[~is_aimed].any()


def test_positions_without_a_word_have_no_gradient():
    bias = torch.zeros(1, 1, 3, 3, requires_grad=True)
    guide = AttentionGuide(torch.tensor([-1, 5, 0]), torch.tensor([0, -1, -1]),
                           ((1, 3),), (0,))  # fmt: skip

    guide.read(0, torch.zeros(1, 1, 3, 2), torch.zeros(1, 1, 3, 2), bias)
    guide.loss().backward()

    assert torch.isfinite(guide.loss())
    assert bias.grad[0, 0, :2].abs().max() == 0  # no word, or one that has no tokens
    assert bias.grad[0, 0, 2].abs().min() > 0


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    return UnitLM(
        9, 20, 6, speaker_dim=4, text_dim=8, taste_input_dim=8, width=16, heads=2,
        feedforward=16, text_layers=1, taste_layers=1, lm_layers=3, dropout=0.0,
    ).eval()  # fmt: skip


def rows():
    rng = np.random.default_rng(0)
    return [
        Row(0, 0, 3, rng.integers(9, size=7), None, True,
            np.array([0, 0, 1]), np.array([0, 0, 0, 0, 1, 1, 1])),
        Row(1, 1, 2, rng.integers(9, size=4), None, True,
            np.array([0]), np.zeros(4, np.int64)),
    ]  # fmt: skip


def guided_loss(decoder, chosen, max_positions):
    layout = pack_rows(chosen, num_tokens=4, num_units=9, max_positions=max_positions)
    guide = decoder.guide(layout)
    tokens = torch.arange(8).view(2, 4)
    speaker = torch.ones(2, 4)
    logits = decoder(tokens, None, speaker, layout, guide)
    torch.testing.assert_close(logits, decoder(tokens, None, speaker, layout))
    return guide.loss(), guide.count


def test_packing_does_not_change_the_loss(decoder):
    packed, count = guided_loss(decoder, rows(), 64)
    padded, _ = guided_loss(decoder, rows(), None)
    alone = [guided_loss(decoder, [row], None) for row in rows()]

    assert count == 11  # units; the end belongs to no word
    torch.testing.assert_close(packed, padded)
    torch.testing.assert_close(packed, sum(x * n for x, n in alone) / count)


def test_rows_without_times_are_not_guided(decoder):
    row = Row(0, 0, 2, np.array([1, 2]))
    layout = pack_rows([row, *rows()], num_tokens=4, num_units=9)

    assert layout.token_words is None
    assert decoder.guide(layout) is None


@pytest.mark.parametrize("whole", [True, False])
def test_the_batch_maker_notes_the_word_of_every_unit(whole):
    data = {
        "asr_tokens": np.array([5, 6, 7, 8]),
        "asr_words": np.array([0, 0, 1, 2]),
        "units": np.arange(9) % 4,
        "word_bounds": np.array([0, 4, 4, 9]),  # the word in the middle has no unit
        "spembs": np.zeros(4, np.float32),
    }
    collate = TokenizerCollate(4, SpanOptions(whole=whole, sizes=(2, 1)))

    layout = collate([("a", data)])[1]["layout"]

    for row in range(layout.lm_rows.size(0)):
        spoken = layout.unit_words[row][layout.unit_words[row] != IGNORE]
        written = layout.token_words[row][layout.token_words[row] != IGNORE]
        labels = layout.labels[row]
        assert len(spoken) == ((labels != IGNORE) & (labels < 4)).sum()
        assert set(spoken.tolist()) <= set(written.tolist())
    if whole:
        assert spoken.tolist() == [0] * 4 + [2] * 5
        assert written.tolist() == [0, 0, 1, 2]


def test_guiding_teaches_to_look(decoder):
    """Chance is the share of two of five visible positions and more."""
    decoder.train()
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.01)
    first = guided_loss(decoder, rows(), None)[0].item()
    for _ in range(60):
        optimizer.zero_grad()
        loss, _ = guided_loss(decoder, rows(), None)
        loss.backward()
        optimizer.step()

    assert first > 1.0
    assert loss.item() < 0.3 * first
    assert math.isfinite(loss.item())
