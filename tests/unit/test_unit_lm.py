"""The unit LM as a module: who is trained, what is saved, autocast, no stalls."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch._subclasses.fake_tensor import FakeTensorMode

from espnet_taste.decoder.layout import Row, pack_rows, whole_rows
from espnet_taste.decoder.text_embedding import TABLE, FrozenTextEmbedding
from espnet_taste.decoder.unit_lm import UnitLM
from espnet_taste.layers.relative_attention import _sinusoids
from espnet_taste.types import IGNORE

NUM_UNITS = 6
TOKENS = torch.tensor([[1, 2, 3], [4, 0, IGNORE]])


def build(**options):
    torch.manual_seed(0)
    sizes = {"width": 16, "heads": 2, "feedforward": 16, "text_dim": 4}
    layers = {"text_layers": 1, "taste_layers": 1, "lm_layers": 2}
    options = {"taste_input_dim": 4, **sizes, **layers, **options}
    return UnitLM(NUM_UNITS, 8, 5, speaker_dim=3, **options)


def condition():
    random = torch.Generator().manual_seed(0)
    return (
        TOKENS,
        torch.randn(2, 3, 5, generator=random),
        torch.randn(2, 3, generator=random),
    )


def rows(masked=None):
    units = np.array([0, 5, 2, 2])
    return pack_rows(
        [Row(0, 0, 3, units, masked, ends=True), Row(1, 0, 2, units[:2])],
        num_tokens=3,
        num_units=NUM_UNITS,
        max_positions=64,
    )


def loss_of(model, layout, taste=True):
    tokens, embeds, speaker = condition()
    logits = model(tokens, embeds if taste else None, speaker, layout)
    return F.cross_entropy(
        logits.float().flatten(0, 1), layout.labels.flatten(), ignore_index=IGNORE
    )


def untrained(model):
    return {name for name, p in model.named_parameters() if p.grad is None}


def still(model):
    """Names of parameters whose gradient is absent or zero."""
    return {
        name
        for name, p in model.named_parameters()
        if p.grad is None or not p.grad.abs().sum()
    }


def test_every_parameter_is_trained_when_units_are_hidden():
    model = build(dropout=0.0)

    loss_of(model, rows(np.array([False, True, False, False]))).backward()

    # A softmax does not see what all its scores share.
    assert {n for n in still(model) if not n.endswith("linear_k.bias")} == set()


def test_without_hidden_units_only_the_mask_vector_rests():
    model = build(dropout=0.0)

    loss_of(model, rows()).backward()

    assert {n for n in still(model) if not n.endswith("linear_k.bias")} == {
        "mask_embedding.weight"
    }


def test_text_only_leaves_taste_and_fusion_alone():
    model = build()

    loss_of(model, rows(), taste=False).backward()

    parts = {name.partition(".")[0] for name in untrained(model)}
    assert parts == {"taste_projection", "taste_encoder", "taste_affine", "fusion"}


def test_speakers_are_normalised():
    model = build().eval()
    tokens, taste, speaker = condition()

    quiet, loud = (model(tokens, taste, s, rows()) for s in (speaker, 7 * speaker))

    torch.testing.assert_close(quiet, loud)


def test_autocast_stays_near_float32_and_keeps_the_sum_in_float32():
    model = build(dropout=0.0)
    layout = rows()
    exact = loss_of(model, layout)
    seen = []
    model.unit_encoder.layers[1].register_forward_pre_hook(
        lambda _, args: seen.append(args[0].dtype)
    )

    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(model, layout)
    loss.backward()

    assert seen == [torch.float32]
    assert loss.item() == pytest.approx(exact.item(), rel=0.02)
    assert all(
        p.grad.isfinite().all() for p in model.parameters() if p.grad is not None
    )


def test_an_utterance_without_text_does_no_harm():
    model = build().eval()
    layout = whole_rows(
        torch.tensor([0, 2]),
        torch.zeros(2, 3, dtype=torch.long),
        torch.tensor([3, 2]),
        num_tokens=3,
        num_units=NUM_UNITS,
    )
    tokens, taste, speaker = condition()

    logits = model(tokens.masked_fill(tokens < 4, IGNORE), taste, speaker, layout)

    assert logits.isfinite().all()


def test_dropout_is_on_in_training_only():
    model, layout = build(dropout=0.5), rows()

    assert loss_of(model, layout) != loss_of(model, layout)
    model.eval()
    assert loss_of(model, layout) == loss_of(model, layout)


@pytest.mark.parametrize("part", ["text_encoder", "taste_encoder", "unit_encoder"])
def test_layer_norms_and_activations_are_the_released_ones(part):
    encoder = getattr(build(), part)
    norms = [m for m in encoder.modules() if isinstance(m, torch.nn.LayerNorm)]

    assert {norm.eps for norm in norms} == {1e-5}
    is_lm = part == "unit_encoder"
    activation = torch.nn.ReLU if is_lm else torch.nn.SiLU
    assert isinstance(encoder.layers[0].feed_forward.activation, activation)
    assert isinstance(encoder.input_layer[-1], torch.nn.ReLU) == is_lm


def test_a_copy_and_a_reloaded_state_agree():
    model, other = build().eval(), build(fusion_init="zero_audio").eval()
    other.load_state_dict(copy.deepcopy(model).state_dict())

    assert loss_of(model, rows()).equal(loss_of(other, rows()))


@pytest.mark.parametrize("training", [True, False])
def test_nothing_waits_for_the_device(training):
    """Fake tensors have no values; reading one on the host raises.

    Reference defect C16 and cost P8: a loss or a unit is asked for its value.
    """
    model = build(dropout=0.0).train(training)
    _sinusoids.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=True):
        layout = whole_rows(
            torch.tensor([3, 2]),
            torch.zeros(2, 4, dtype=torch.long),
            torch.tensor([4, 1]),
            num_tokens=3,
            num_units=NUM_UNITS,
        )
        tokens, taste, speaker = TOKENS, torch.zeros(2, 3, 5), torch.zeros(2, 3)
        model(tokens, taste, speaker, layout).sum().backward()
    _sinusoids.cache_clear()


def test_every_encoder_has_its_own_number_of_heads():
    model = build(heads=2, text_heads=4, taste_heads=8)

    heads = {
        name: model.get_parameter(f"{name}.layers.0.self_attn.pos_bias_u").shape
        for name in ("unit_encoder", "text_encoder", "taste_encoder")
    }
    assert heads == {
        "unit_encoder": (2, 8),
        "text_encoder": (4, 4),
        "taste_encoder": (8, 2),
    }
    assert build(heads=4).text_encoder.heads == 4
    assert build(heads=4).taste_encoder.heads == 4


@pytest.fixture
def whisper_folder(tmp_path):
    table = torch.randn(10, 7).to(torch.float16)
    save_file({TABLE: table, "other": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    return tmp_path, table


def test_pretrained_text_embedding_is_neither_trained_nor_saved(whisper_folder):
    folder, table = whisper_folder
    model = build(text_embedding=str(folder))

    loss_of(model, rows()).backward()

    assert not any("table" in name for name in model.state_dict())
    embedding = model.text_embedding
    assert embedding.projection.weight.grad.abs().sum() > 0
    assert not embedding.table.requires_grad
    expected = embedding.projection(table[[3, 0]].float())
    torch.testing.assert_close(embedding(torch.tensor([3, 0])), expected)


def test_pretrained_text_embedding_must_know_all_tokens(whisper_folder):
    with pytest.raises(ValueError, match="has 10 tokens, .* vocabulary of 11"):
        FrozenTextEmbedding(str(whisper_folder[0]), 11, 4)


def test_pretrained_text_embedding_needs_a_token_table(tmp_path):
    save_file({"other": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=f"has no tensor {TABLE}"):
        FrozenTextEmbedding(str(tmp_path), 8, 4)
