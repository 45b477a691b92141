"""Relative attention against its formula, position by position."""

import math

import pytest
import torch
import torch.nn.functional as F

from espnet_taste.layers.causal_encoder import CausalEncoder
from espnet_taste.layers.relative_attention import (
    SMALLEST_TABLE,
    CausalBlocks,
    RelativeAttention,
    _sinusoids,
    distance_table,
)

CPU = torch.device("cpu")


@pytest.fixture
def attention():
    torch.manual_seed(0)
    return RelativeAttention(12, heads=3).double()


def attend_by_formula(attention, x, rows):
    """Follow the module docstring with loops."""
    heads, dim = attention.pos_bias_u.shape
    table = distance_table(len(x), x.size(1), CPU).double().flip(0)
    far = attention.linear_pos(table).view(-1, heads, dim)
    q, k, v = (
        layer(x).view(-1, heads, dim)
        for layer in (attention.linear_q, attention.linear_k, attention.linear_v)
    )
    mixed = torch.zeros_like(q)
    for i in range(len(x)):
        seen = [j for j in range(i + 1) if rows[j] == rows[i]]
        for h in range(heads):
            u, w = attention.pos_bias_u[h], attention.pos_bias_v[h]
            scores = torch.stack(
                [(q[i, h] + u) @ k[j, h] + (q[i, h] + w) @ far[i - j, h] for j in seen]
            )
            weights = (scores / math.sqrt(dim)).softmax(0)
            mixed[i, h] = weights @ v[seen, h]
    return attention.linear_out(mixed.flatten(1))


@pytest.fixture
def kernel_calls(monkeypatch):
    """A list that grows by one at every call of the fused kernel."""
    calls = []
    kernel = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F,
        "scaled_dot_product_attention",
        lambda *args, **options: calls.append(0) or kernel(*args, **options),
    )
    return calls


@pytest.mark.parametrize("with_gradient", [True, False])
def test_blocks_of_several_lengths_follow_the_formula(
    attention, with_gradient, kernel_calls
):
    """With a gradient the scores are spelled out, without one the fused kernel runs.

    Reference cost P8: they are always spelled out.
    """
    rows = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, 3, -1])
    sizes = ((1, 6), (2, 2))  # three positions of row 3 lie in two blocks
    x = torch.randn(10, 12, dtype=torch.float64, requires_grad=with_gradient)
    blocks = CausalBlocks.build(rows, sizes, torch.float64)

    with torch.set_grad_enabled(with_gradient):
        y = attention(x, distance_table(6, 12, CPU).double(), blocks)

    alone = [attend_by_formula(attention, x[:6], rows[:6])]
    alone += [
        attend_by_formula(attention, x[i : i + 2], rows[i : i + 2]) for i in (6, 8)
    ]
    torch.testing.assert_close(y, torch.cat(alone))
    assert bool(kernel_calls) != with_gradient


def test_both_ways_of_attending_have_the_same_gradient(
    attention, monkeypatch, kernel_calls
):
    x = torch.randn(8, 12, dtype=torch.float64, requires_grad=True)
    blocks = CausalBlocks.build(torch.arange(8) // 3, ((2, 4),), torch.float64)
    table = distance_table(4, 12, CPU).double()

    def gradients():
        y = attention(x, table, blocks).sin().sum()
        return torch.autograd.grad(y, [x, *attention.parameters()])

    spelled_out = gradients()
    assert not kernel_calls
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    fused = gradients()

    assert len(kernel_calls) == 1
    torch.testing.assert_close(spelled_out, fused)


def test_table_runs_from_far_to_near():
    table = distance_table(3, 4, CPU)

    angles = torch.tensor([3.0, 2.0, 1.0, 0.0])[:, None] * torch.tensor([1.0, 0.01])
    expected = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    torch.testing.assert_close(table, expected)


def test_tables_are_shared_and_grow_on_demand():
    short, long = distance_table(3, 6, CPU), distance_table(SMALLEST_TABLE, 6, CPU)

    assert distance_table(9, 6, CPU)[-4:].data_ptr() == short.data_ptr()
    assert len(long) == SMALLEST_TABLE + 1
    torch.testing.assert_close(long[-4:], short)


def test_a_table_made_in_inference_mode_serves_training(attention):
    _sinusoids.cache_clear()
    with torch.inference_mode():
        distance_table(4, 12, CPU)
    blocks = CausalBlocks.build(torch.zeros(4), ((1, 4),), torch.float32)

    y = attention.float()(torch.randn(4, 12), distance_table(4, 12, CPU), blocks)
    y.sum().backward()

    assert attention.linear_pos.weight.grad.abs().sum() > 0


def test_padding_sees_itself_so_that_nothing_becomes_nan(attention):
    blocks = CausalBlocks.build(torch.full((4,), -1), ((2, 2),), torch.float64)

    y = attention(
        torch.randn(4, 12).double(), distance_table(2, 12, CPU).double(), blocks
    )

    assert y.isfinite().all()


def test_blocks_must_cover_the_positions():
    with pytest.raises(ValueError, match=r"\(\(2, 4\),\) do not cover the 9 positions"):
        CausalBlocks.build(torch.zeros(9), ((2, 4),), torch.float32)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="width 10 is not a multiple of heads 4"):
        RelativeAttention(10, heads=4)


@pytest.mark.parametrize("autocast", [False, True])
def test_steps_make_the_weights_of_queries_once(autocast, monkeypatch):
    torch.manual_seed(0)
    encoder = CausalEncoder(8, 8, heads=2, feedforward=16, num_layers=2).eval()
    made = []
    make = RelativeAttention.query_weights
    monkeypatch.setattr(
        RelativeAttention, "query_weights", lambda self: made.append(1) or make(self)
    )

    def steps(anew):
        caches = encoder.new_caches(2, 3)
        found = []
        for place, x in enumerate(
            torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(1))
        ):
            if anew:
                for cache, layer in zip(caches, encoder.layers, strict=True):
                    cache.query = layer.self_attn.query_weights()
            positions = torch.full((2,), place)
            found.append(encoder.step(x, positions, place + 1, caches))
        return torch.stack(found)

    with (
        torch.inference_mode(),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        kept = steps(anew=False)
        assert len(made) == 2  # one a layer
        assert torch.equal(kept, steps(anew=True))
