"""The causal encoder in training: where dropout stands."""

import math

import pytest
import torch
import torch.nn.functional as F

from espnet_taste.layers.byte_dropout import ByteDropout
from espnet_taste.layers.causal_encoder import CausalEncoder
from espnet_taste.layers.relative_attention import CausalBlocks, distance_table

WIDTH, NUM_LAYERS = 8, 2
ROWS, SIZES = torch.tensor([0, 0, 0, 1, 1, -1]), ((1, 6),)


def drop(x):
    """Stands for dropout: moves values as no other operation here does."""
    return 0.5 * x - 0.3


def encode_by_formula(encoder, x, activation, has_relu):
    """Encode with dropout at the places that the released training has."""
    linear, norm = encoder.input_layer[:2]
    x = drop(norm(linear(x)))
    x = drop((x.relu() if has_relu else x) * math.sqrt(WIDTH))
    table = drop(distance_table(6, WIDTH, x.device))
    blocks = CausalBlocks.build(ROWS, SIZES, x.dtype)
    for layer in encoder.layers:
        x = x + drop(layer.self_attn(layer.norm1(x), table, blocks))
        part = layer.feed_forward
        inner = drop(activation(part.w_1(layer.norm2(x))))
        x = x + drop(part.w_2(inner))
    return encoder.after_norm(x)


@pytest.mark.parametrize(("activation", "has_relu"), [("silu", False), ("relu", True)])
@torch.no_grad()
def test_dropout_stands_where_the_released_training_has_it(
    activation, has_relu, monkeypatch
):
    torch.manual_seed(0)
    encoder = CausalEncoder(
        5,
        WIDTH,
        heads=2,
        feedforward=12,
        num_layers=NUM_LAYERS,
        activation=activation,
        input_relu=has_relu,
        dropout=0.1,
    )
    parts = [m for m in encoder.modules() if isinstance(m, ByteDropout)]
    monkeypatch.setattr(ByteDropout, "forward", lambda self, x: drop(x))
    x = torch.randn(6, 5)

    found = encoder.train()(x, ROWS, SIZES)

    expected = encode_by_formula(encoder, x, getattr(F, activation), has_relu)
    torch.testing.assert_close(found, expected)
    assert {part.probability for part in parts} == {0.1}
    assert len(parts) == 2 + 2 * NUM_LAYERS  # the table shares that of the input
