"""Teaching the aggregator to listen to a token's own word."""

import math

import pytest
import torch
from tiny_whisper import tiny_config, tiny_decoder

from espnet_taste.layers.attention_guide import SpeechGuide, frames_of_times
from espnet_taste.tokenizer.aggregator import WhisperAggregator
from espnet_taste.tokenizer.states import EncoderStates


def test_frames_are_those_that_a_span_touches():
    times = torch.tensor([[[0.0, 0.05], [0.05, 0.051], [0.09, 0.5], [0.0, 0.0]]])

    frames = frames_of_times(times, torch.tensor([6]), 8, frame_rate_hz=50)

    expected = ["11100000", "00100000", "00001100", "00000000"]
    assert ["".join(str(int(f)) for f in row) for row in frames[0]] == expected


def test_the_loss_is_the_log_share_of_attention():
    target = torch.tensor([[[True, True, False, False], [False] * 4]])
    guide = SpeechGuide(target)

    scores = torch.tensor([[[[0.0, 0.0, 0.0, -math.inf]] * 2] * 3])
    guide.read(scores, scores.softmax(-1))

    assert guide.loss().item() == pytest.approx(math.log(3 / 2))


def test_a_guide_aims_at_the_frames_of_the_word_behind_the_prefix():
    """At 50 frames a second; the prefix listens to nothing in particular."""
    width = tiny_config().d_model
    aggregator = WhisperAggregator.from_module(tiny_decoder(), [1, 2])
    states = EncoderStates(
        torch.zeros(1, 40, width), torch.zeros(1, 40, width), torch.tensor([40])
    )

    guide = aggregator.guide(torch.tensor([[[0.0, 0.2], [0.3, 0.59]]]), states)

    frames = [row.nonzero().flatten().tolist() for row in guide.target[0, 0]]
    assert frames == [[], [], list(range(10)), list(range(15, 30))]


def test_a_guided_aggregator_learns_where_words_are():
    width = tiny_config().d_model
    aggregator = WhisperAggregator.from_module(tiny_decoder(), [1, 2])
    states = EncoderStates(
        torch.randn(2, 40, width), torch.randn(2, 40, width), torch.tensor([40, 30])
    )
    tokens, lengths = torch.tensor([[3, 4, 5], [6, 7, 0]]), torch.tensor([3, 2])
    words = torch.tensor([[0, 1, 1], [0, 1, 0]])
    times = torch.tensor(
        [
            [[0.0, 0.2], [0.2, 0.6], [0.2, 0.6]],
            [[0.1, 0.3], [0.3, 0.5], [0.0, 0.0]],
        ]
    )
    optim = torch.optim.Adam(aggregator.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        guide = aggregator.guide(times, states)
        aggregator(tokens, lengths, words, states, guide)
        losses.append(guide.loss())
        optim.zero_grad()
        losses[-1].backward()
        optim.step()

    assert losses[-1] < losses[0] / 2
    assert all(layer.encoder_attn.guide is None for layer in aggregator.decoder.layers)
    alone = aggregator(tokens, lengths, words, states)
    watched = aggregator(tokens, lengths, words, states, guide)
    torch.testing.assert_close(alone, watched)
