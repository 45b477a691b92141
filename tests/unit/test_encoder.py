"""The frozen encoder: equal to Whisper's, and what its two windows promise."""

import pytest
import torch
import torch.nn.functional as F
from tiny_whisper import WINDOW_FRAMES, WINDOW_SAMPLES, random_speech, tiny_encoder

from espnet_taste.tokenizer.encoder import EncoderStates
from espnet_taste.tokenizer.log_mel import log_mel


@pytest.mark.parametrize("value_layer", [0, 1, 2])
def test_full_window_equals_transformers(value_layer):
    """Reference defect C34: it is speech that is padded, and with silence."""
    encoder = tiny_encoder(value_layer)
    speech, lengths = random_speech(9000, 12345)

    states = encoder(speech, lengths)

    padded = F.pad(speech, (0, WINDOW_SAMPLES - speech.size(1)))
    mel = log_mel(padded, encoder.mel_filters).transpose(1, 2)
    with torch.no_grad():
        expected = encoder.encoder(mel, output_hidden_states=True)
    torch.testing.assert_close(states.keys, expected.last_hidden_state)
    torch.testing.assert_close(states.values, expected.hidden_states[value_layer])
    assert states.lengths.tolist() == [WINDOW_FRAMES, WINDOW_FRAMES]
    assert encoder.output_size() == states.keys.size(-1)


def test_a_trimmed_window_keeps_the_speech_and_its_silence():
    encoder = tiny_encoder(window="trimmed", trim_pad_s=0.1)
    speech, lengths = random_speech(3200, 4801)

    states = encoder(speech, lengths)

    assert states.lengths.tolist() == [15, 21]  # 0.2 + 0.1 s; 0.30006 + 0.1 s
    assert states.keys.size(1) == 21
    assert states.mask.sum(1).tolist() == [15, 21]
    assert states.keys[0, 15:].count_nonzero() == 0
    assert states.values[0, 15:].count_nonzero() == 0
    assert states.keys[0, 14].count_nonzero() > 0


def test_a_trimmed_window_differs_in_attention_only():
    """Before the first layer both windows see the same frames, the last included."""
    speech, lengths = random_speech(3210, 4801)
    full = tiny_encoder(0)(speech, lengths)
    trimmed = tiny_encoder(0, window="trimmed", trim_pad_s=0.0)(speech, lengths)

    for row, length in enumerate(trimmed.lengths.tolist()):
        torch.testing.assert_close(
            trimmed.values[row, :length], full.values[row, :length]
        )
    assert not torch.allclose(trimmed.keys[0, :5], full.keys[0, :5])


@pytest.mark.parametrize("value_layer", [0, 1])
def test_values_without_positions_do_not_say_when_something_is_spoken(value_layer):
    speech, lengths = random_speech(3200, 4801)
    options = {"window": "trimmed", "trim_pad_s": 0.1}
    released = tiny_encoder(value_layer, **options)
    encoder = tiny_encoder(value_layer, value_positions=False, **options)

    states, plain = encoder(speech, lengths), released(speech, lengths)

    torch.testing.assert_close(states.keys, plain.keys)
    for row, length in enumerate(states.lengths.tolist()):
        both = states.values[row, :length] + encoder.value_offset[:length]
        torch.testing.assert_close(both, plain.values[row, :length])
    assert states.values[0, 15:].count_nonzero() == 0
    # Other noise than that which was listened to, early and late in the window.
    noise = 0.05 * torch.randn(1, WINDOW_SAMPLES)
    size = torch.tensor([WINDOW_SAMPLES])
    spread = [e(noise, size).values[0, 2:-2].var(0).sum() for e in (released, encoder)]
    assert spread[1] < 0.5 * spread[0]
    assert "value_offset" not in encoder.state_dict()


def test_speech_that_fills_the_window_is_the_same_in_both():
    speech, lengths = random_speech(WINDOW_SAMPLES)
    full = tiny_encoder()(speech, lengths)
    trimmed = tiny_encoder(window="trimmed")(speech, lengths)
    # The STFT mirrors the speech at the end of the full window; trimmed sees zeros.
    torch.testing.assert_close(
        trimmed.values[:, :-3], full.values[:, :-3], atol=0.05, rtol=0
    )
    assert trimmed.lengths.tolist() == [WINDOW_FRAMES]


@pytest.mark.parametrize("window", ["full", "trimmed"])
def test_speech_beyond_the_window_is_refused(window):
    speech, lengths = random_speech(8000, WINDOW_SAMPLES + 160)
    with pytest.raises(ValueError, match=r"1\.01 s is longer than .* 1\.00 s; cut it"):
        tiny_encoder(window=window)(speech, lengths)


@pytest.mark.parametrize("window", ["full", "trimmed"])
def test_padding_beyond_the_window_is_no_speech(window):
    """Whatever stands there: a batch may hold anything behind its rows."""
    encoder = tiny_encoder(window=window)
    speech, lengths = random_speech(8000, num_samples=WINDOW_SAMPLES + 999, pad=0.5)

    states = encoder(speech, lengths)

    expected = encoder(speech[:, :8000], lengths)
    num_frames = expected.keys.size(1)
    torch.testing.assert_close(states.keys[:, :num_frames], expected.keys)


def test_it_is_frozen_and_stays_in_evaluation_mode():
    encoder = tiny_encoder()
    encoder.encoder.layers[0].dropout = 0.5
    parent = torch.nn.ModuleList([encoder]).train()

    states = encoder(*random_speech(4000))

    assert parent.training and not encoder.training
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not states.keys.requires_grad
    assert states.keys.equal(encoder(*random_speech(4000)).keys)


def test_empty_speech_is_finite():
    states = tiny_encoder(window="trimmed", trim_pad_s=0.0)(
        torch.zeros(1, 0), torch.tensor([0])
    )
    assert states.lengths.tolist() == [1]
    assert torch.isfinite(states.keys).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value_layer": 3}, r"value_layer must be in 0\.\.2.*got 3"),
        ({"window": "half"}, "'full' or 'trimmed', got 'half'"),
        ({"trim_pad_s": -1.0}, "trim_pad_s must be >= 0"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny_encoder(**options)


def test_states_survive_packing():
    states = tiny_encoder(window="trimmed")(*random_speech(3000, 5000))

    packed = states.pack()
    back = EncoderStates.unpack(packed, states.lengths)

    assert packed.size(-1) == 2 * states.keys.size(-1)
    assert back.keys.equal(states.keys) and back.values.equal(states.values)
    with pytest.raises(ValueError, match="even width, got 3"):
        EncoderStates.unpack(torch.zeros(1, 2, 3), torch.tensor([2]))
