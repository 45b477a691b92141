"""Nothing in a training step waits for the device to learn a value.

Fake tensors have shapes but no values: reading one on the host, or selecting by a
mask, raises. That finds the stalls of a GPU on a machine without one.
"""

import pytest
import torch
from tiny_whisper import tiny_aggregator, tiny_encoder
from torch._subclasses.fake_tensor import FakeTensorMode

from espnet_taste.decoder.unit_to_mel import UnitToMel
from espnet_taste.layers.residual_vq import ResidualVQ
from espnet_taste.layers.word_pooling import first_of_words
from espnet_taste.tasks.tokenizer_model import unit_hits, unit_statistics
from espnet_taste.tasks.unit_autoencoder import UnitAutoencoderESPnetModel
from espnet_taste.tasks.unit_to_mel import UnitToMelESPnetModel
from espnet_taste.tokenizer.encoder import EncoderStates
from espnet_taste.units.unit_encoder import UnitEncoder

LENGTHS = torch.tensor([3, 2])


@pytest.fixture
def fake():
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode


def test_fake_tensors_find_what_this_file_is_about(fake):
    values = torch.zeros(3)
    with pytest.raises(Exception, match="data-dependent|aten._local_scalar_dense"):
        int(values.sum())


@pytest.mark.parametrize("training", [True, False])
def test_quantizer(fake, training):
    rvq = ResidualVQ(6, 3, 4, 2, quantizer_dropout=True, dead_code_threshold=0.5).train(
        training
    )
    rvq._num_initialised = 2
    mask = torch.zeros(2, 3, dtype=torch.bool)

    out = rvq(torch.zeros(2, 3, 6, requires_grad=True), mask)
    (out.quantized.sum() + out.commitment.sum()).backward()

    rvq.decode(out.codes)
    rvq.quantize_latent(torch.zeros(2, 3, 3))


@pytest.mark.parametrize("window", ["full", "trimmed"])
def test_encoder(window):
    encoder = tiny_encoder(window=window)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        encoder(mode.from_tensor(torch.zeros(2, 3200)), mode.from_tensor(LENGTHS))


def test_aggregator_and_words():
    """Reference cost P5: a loop over words, each of which waits."""
    aggregator = tiny_aggregator()
    states = torch.zeros(2, 5, 16)
    words = torch.zeros(2, 3, dtype=torch.long)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        states, words, lengths = map(mode.from_tensor, (states, words, LENGTHS))
        aggregator(words, lengths, words, EncoderStates(states, states, lengths))
        first_of_words(words[..., None], words, lengths, num_words=2)


def test_losses_of_units(fake):
    """Reference defect C16: a loss is asked whether it is above nothing."""
    logits = torch.zeros(2, 5, 8, requires_grad=True)
    labels = torch.zeros(2, 5, dtype=torch.long)

    unit_statistics(logits, labels)["loss_units"].backward()
    unit_hits(logits, labels)


@pytest.mark.parametrize("are_learned", [False, True])
def test_units_and_vocoder(are_learned):
    sizes = {"num_mels": 6, "speaker_dim": 4, "width": 8}
    model = UnitToMelESPnetModel(UnitToMel(10, 50.0, **sizes))
    batch = {"units": torch.zeros(2, 9, dtype=torch.long)}
    if are_learned:
        encoder = UnitEncoder(8, 10, width=8, code_dim=4)
        model = UnitAutoencoderESPnetModel(encoder, model.unit_to_mel, 4)
        batch = {"encoder_states": torch.zeros(2, 9, 8)}
    batch |= {"mel": torch.zeros(2, 15, 6), "spembs": torch.zeros(2, 4)}
    batch |= {f"{name}_lengths": LENGTHS for name in batch}
    batch["frame_offset"] = torch.zeros(2)

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        batch = {name: mode.from_tensor(value) for name, value in batch.items()}
        model.train()(**batch)
