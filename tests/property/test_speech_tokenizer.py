"""A batch of n equals n batches of one, and padding has no value."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_whisper import (
    WINDOW_SAMPLES,
    random_speech,
    tiny_aggregator,
    tiny_encoder,
)

from espnet_taste.tokenizer.model import SpeechTokenizer
from espnet_taste.tokenizer.quantizer import RvqQuantizer

TOLERANCE = dict(atol=1e-5, rtol=0.0)


def build(window, trim_pad_s=0.0):
    torch.manual_seed(0)
    quantizer = RvqQuantizer(16, 4, 8, 2)
    encoder = tiny_encoder(window=window, trim_pad_s=trim_pad_s)
    model = SpeechTokenizer(encoder, tiny_aggregator(), quantizer).eval()
    features = torch.randn(50, 16, generator=torch.Generator().manual_seed(1))
    quantizer.initialise(features, generator=torch.Generator().manual_seed(0))
    return model


MODELS = {
    "full": build("full"),
    "trimmed": build("trimmed"),
    "trimmed, silence": build("trimmed", trim_pad_s=0.05),
}

utterances = st.lists(
    st.tuples(
        st.integers(3, WINDOW_SAMPLES),  # samples
        st.lists(st.integers(1, 3), min_size=1, max_size=4),  # tokens per word
    ),
    min_size=1,
    max_size=4,
)


def text(sizes, num_tokens=None, pad=0):
    """Return random tokens, length and words of one utterance."""
    words = [word for word, size in enumerate(sizes) for _ in range(size)]
    tokens = [10 + (7 * i) % 60 for i in range(len(words))]
    padding = (0, (num_tokens or len(words)) - len(words))
    return (
        F.pad(torch.tensor([tokens]), padding, value=pad),
        torch.tensor([len(words)]),
        F.pad(torch.tensor([words]), padding, value=pad),
    )


@pytest.mark.parametrize("window", MODELS)
@settings(max_examples=15, deadline=None)
@given(batch=utterances, pad=st.sampled_from([0, -1, 77]), extra=st.integers(0, 700))
def test_batch_equals_singles_whatever_the_padding(window, batch, pad, extra):
    """Reference defect C33: all rows of a batch get the length of the first."""
    model = MODELS[window]
    samples = [num_samples for num_samples, _ in batch]
    num_samples = min(max(samples) + extra, WINDOW_SAMPLES)
    speech, lengths = random_speech(*samples, num_samples=num_samples, pad=float(pad))
    num_tokens = max(sum(sizes) for _, sizes in batch) + extra % 3
    rows = [text(sizes, num_tokens, pad) for _, sizes in batch]
    tokens, token_lengths, words = (torch.cat(column) for column in zip(*rows))

    states = model.encode_speech(speech, lengths)
    together = model.encode(states, tokens, token_lengths, words)

    for row, (length, sizes) in enumerate(batch):
        alone_states = model.encode_speech(
            speech[row : row + 1, :length], lengths[row : row + 1]
        )
        alone = model.encode(alone_states, *text(sizes))
        num_frames = alone_states.keys.size(1)
        for name in ("keys", "values"):
            torch.testing.assert_close(
                getattr(states, name)[row, :num_frames],
                getattr(alone_states, name)[0],
                **TOLERANCE,
            )
        assert states.lengths[row] == alone_states.lengths[0]
        valid = slice(0, sum(sizes))
        torch.testing.assert_close(
            together.features[row, valid], alone.features[0], **TOLERANCE
        )
        assert together.codes[row, valid].equal(alone.codes[0])
        assert together.codes[row, sum(sizes) :].eq(-1).all()
        assert together.features[row, sum(sizes) :].count_nonzero() == 0
