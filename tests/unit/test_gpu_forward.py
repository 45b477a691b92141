"""Training steps on a GPU mix in nothing from the CPU, nor types under autocast.

No GPU is needed: fake tensors know device and type and have no values.
"""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from espnet_taste.decoder.unit_lm import UnitLM
from espnet_taste.decoder.unit_to_mel import UnitToMel
from espnet_taste.layers import precision
from espnet_taste.layers.relative_attention import _sinusoids
from espnet_taste.tasks.perception import WhisperPerception
from espnet_taste.tasks.slm_model import TasteSpokenLMModel
from espnet_taste.tasks.tokenizer_model import TasteTokenizerModel
from espnet_taste.tasks.unit_to_mel import UnitToMelESPnetModel
from espnet_taste.tokenizer.quantizer import RvqQuantizer
from espnet_taste.units.s3 import S3Units, build_network
from espnet_taste.units.unit_encoder import UnitEncoder
from espnet_taste.units.whisper_features import WhisperFeatures
from espnet_taste.units.whisper_kmeans import WhisperKMeans, WhisperKMeansConfig
from espnet_taste.units.whisper_vq import WhisperVQ, WhisperVQConfig
from tests.tiny_slm import make_batch, make_llm, make_slm
from tests.tiny_whisper import tiny_aggregator, tiny_encoder
from tests.unit.test_s3 import SIZES
from tests.unit.test_whisper_kmeans import whisper  # noqa: F401  (fixture)

CUDA = torch.device("cuda", 0)
LENGTHS = torch.tensor([3, 2])
VOICES = torch.ones(2, 4)


@pytest.fixture
def gpu(monkeypatch):
    """Fake tensors, and a torch that takes the GPU for one with bfloat16."""
    common = torch.cuda.amp.common
    monkeypatch.setattr(common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    for cached in (precision.has_bfloat16, _sinusoids):
        cached.cache_clear()
    with FakeTensorMode():
        yield
    for cached in (precision.has_bfloat16, _sinusoids):
        cached.cache_clear()


def moved(value):
    """Return a tensor, or a batch of them, as fakes on the GPU."""
    if isinstance(value, torch.Tensor):
        layout = (value.shape, value.stride())
        return torch.empty_strided(*layout, dtype=value.dtype, device=CUDA)
    names = [f.name for f in fields(value)]
    return replace(value, **{name: moved(getattr(value, name)) for name in names})


def move(model):
    """Put a model's parameters and buffers on the fake GPU."""
    made = {}
    for module in model.modules():
        for name, value in module._parameters.items():
            if value is not None:
                fake = nn.Parameter(moved(value), requires_grad=value.requires_grad)
                module._parameters[name] = made.setdefault(id(value), fake)
        for name, value in module._buffers.items():
            module._buffers[name] = None if value is None else moved(value)
    return model.train()


def tokenizer():
    quantizer = RvqQuantizer(16, 4, 4, 2, dead_code_threshold=0.1)
    features = torch.randn(50, 16)
    quantizer.initialise(features, generator=torch.Generator(), num_iterations=1)
    sizes = {"text_dim": 8, "taste_input_dim": 8, "width": 16, "feedforward": 8}
    layers = {"text_layers": 1, "taste_layers": 1, "lm_layers": 2, "heads": 2}
    decoder = UnitLM(7, 100, 16, speaker_dim=4, **sizes, **layers)
    parts = (tiny_encoder(), tiny_aggregator(), quantizer, decoder)
    tokens = torch.ones(2, 3, dtype=torch.long)
    batch = {"asr_tokens": tokens, "asr_words": tokens}
    batch |= {"units": torch.ones(2, 6, dtype=torch.long), "spembs": VOICES}
    batch |= {"speech": torch.zeros(2, 9000), "token_times": torch.zeros(2, 3, 2)}
    options = {"listening_weight": 1.0, "amp_dtype": "bfloat16"}
    model = TasteTokenizerModel(*parts, **options)
    model.listening_steps.step = 0
    return model, batch


def vocoder():
    batch = {"units": torch.ones(2, 30, dtype=torch.long), "spembs": VOICES}
    batch |= {"mel": torch.zeros(2, 51, 80), "frame_offset": torch.zeros(2)}
    options = {"perceptual_weight": 1.0, "perceptual_share": 0.5}
    options |= {"perception": WhisperPerception(tiny_encoder(), with_values=True)}
    part = UnitToMel(10, 50.0, speaker_dim=4, width=8)
    return UnitToMelESPnetModel(part, amp_dtype="bfloat16", **options), batch


def spoken_lm():
    slm = make_slm(llm=make_llm().bfloat16(), head="both", head_skip=True)
    return TasteSpokenLMModel(slm, amp_dtype="bfloat16"), {
        "layout": make_batch([[1, 2, 1], [1, 1]])
    }


@pytest.fixture(params=[tokenizer, vocoder, spoken_lm])
def made(request):
    return request.param()


def test_a_step(made, gpu):
    model, batch = made
    lengths = {f"{n}_lengths": LENGTHS for n in batch if n not in ("layout", "spembs")}
    batch = {n: moved(value) for n, value in (batch | lengths).items()}

    loss, stats, weight = move(model)(**batch)

    assert loss.dtype == torch.float32
    assert {value.device for value in (loss, weight, *stats.values())} == {CUDA}


def test_what_is_mixed_in_is_found(gpu):
    model = move(nn.Linear(2, 2))

    with pytest.raises(Exception, match="device"):
        model(torch.zeros(1, 2))


def whisper_vq(_):
    sizes = {"input_dim": 32, "num_units": 6, "width": 8, "blocks": 1, "code_dim": 4}
    config = WhisperVQConfig("tiny", {}, sizes)
    return WhisperVQ(
        config, tiny_encoder(), UnitEncoder(**sizes, frames_per_unit=2), ""
    )


def whisper_kmeans(folder):
    config = WhisperKMeansConfig(num_units=5, unit_rate_hz=25.0)
    codebook = {"mean": torch.zeros(32), "components": torch.zeros(32, 3)}
    codebook |= {"means": torch.zeros(5, 3)}
    return WhisperKMeans(config, WhisperFeatures(folder, 1), codebook)


def s3(_):
    pytest.importorskip(
        "s3tokenizer", reason="no s3tokenizer: run make test-units or make test-all"
    )
    return S3Units(build_network(SIZES), SIZES, "")


@pytest.fixture(params=[whisper_vq, whisper_kmeans, s3])
def extractor(request, whisper):  # noqa: F811
    return request.param(whisper)


def parts_of(units):
    """Return the networks and the loose tensors of an extractor."""
    parts = [*vars(units).values()]
    parts += getattr(units, "codebook", {}).values()
    networks = [part for part in parts if isinstance(part, nn.Module)]
    return networks, [part for part in parts if isinstance(part, torch.Tensor)]


def test_all_of_an_extractor_moves(extractor):
    networks, tensors = parts_of(extractor.to("meta"))

    tensors += [p for network in networks for p in network.parameters()]
    assert networks and {tensor.device.type for tensor in tensors} == {"meta"}


def test_units_of_a_gpu_come_to_the_cpu(extractor, gpu, monkeypatch):
    if isinstance(extractor, S3Units):
        pytest.skip("the network of the package asks for values, which fakes lack")
    for network in parts_of(extractor)[0]:
        move(network).eval()
    if isinstance(extractor, WhisperKMeans):
        loose = extractor.codebook.items()
        extractor.codebook = {name: moved(part) for name, part in loose}
    monkeypatch.setattr(torch.Tensor, "numpy", lambda tensor: tensor)

    found = extractor.extract([np.zeros(16000, np.float32)])[0]

    assert found.device.type == "cpu" and found.dtype == torch.int64
    assert extractor.unit_vectors().device.type == "cpu"
