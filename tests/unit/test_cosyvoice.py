"""CosyVoice vocoder: forms of the weights, noise of a row, refusals, installation."""

from fractions import Fraction

import pytest
import torch
import yaml
from safetensors.torch import save_file

from espnet_taste.bin.install_vocoder import main
from espnet_taste.decoder.cosyvoice import CosyVoiceVocoder, build_cosyvoice
from espnet_taste.decoder.vocoder import build_vocoder

CONFIG = {
    "vocoder": "cosyvoice",
    "flow_conf": {
        "num_units": 12,
        "speaker_dim": 4,
        "input_dim": 8,
        "width": 8,
        "heads": 2,
        "feedforward": 8,
        "layers": 1,
        "num_mels": 6,
        "channels": [8, 8],
        "mid_blocks": 1,
        "transformers": 1,
        "estimator_heads": 2,
        "head_dim": 4,
        "steps": 2,
    },
    "hift_conf": {"num_mels": 6, "channels": 8, "f0_channels": 8},
}


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return build_cosyvoice(CONFIG).state_dict()


def write(folder, form, state):
    """Write the weights in one of the forms that are accepted."""
    parts = {
        part: {
            name.removeprefix(f"{part}."): value
            for name, value in state.items()
            if name.startswith(f"{part}.")
        }
        for part in ("flow", "hift")
    }
    if form == "pt":
        for part, tensors in parts.items():
            torch.save(tensors, folder / f"{part}.pt")
    elif form == "safetensors":
        for part, tensors in parts.items():
            save_file(tensors, folder / f"{part}.safetensors")
    elif form == "model.safetensors":
        save_file(state, folder / form)
    else:
        torch.save(state, folder / form)


@pytest.fixture
def folder(tmp_path, state):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    write(tmp_path, "voice_generator.pth", state)
    return tmp_path


def change(folder, **values):
    (folder / "config.yaml").write_text(yaml.safe_dump({**CONFIG, **values}))


@pytest.mark.parametrize(
    "form",
    ["pt", "safetensors", "model.safetensors", "voice_generator.pth", "other.pth"],
)
def test_every_form_of_the_weights_gives_the_same_speech(tmp_path, state, form):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    write(tmp_path, form, state)
    expected = build_cosyvoice(CONFIG)
    expected.load_state_dict(state)
    inputs = torch.arange(9)[None], torch.tensor([9]), torch.ones(1, 4)

    vocoder = build_vocoder(tmp_path, model_file="other.pth")

    for name, tensor in expected.state_dict().items():
        assert torch.equal(vocoder.state_dict()[name], tensor), name
    # Not equal: where tensors begin in memory decides how a CPU adds up.
    torch.testing.assert_close(
        vocoder(*inputs)[0], expected(*inputs)[0], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("padding", [0, -1, 999])
def test_a_row_sounds_as_it_would_alone(folder, padding):
    vocoder = build_vocoder(folder)
    generator = torch.Generator().manual_seed(0)
    units = torch.randint(12, (4, 30), generator=generator)
    speaker = torch.randn(4, 4, generator=generator)
    lengths = torch.tensor([30, 11, 0, 1])
    alone = [
        vocoder(units[row : row + 1, :length], lengths[row : row + 1], speaker[[row]])
        for row, length in enumerate(lengths.tolist())
    ]

    for row, length in enumerate(lengths.tolist()):
        units[row, length:] = padding
    batch = vocoder(units, lengths, speaker)

    counts = [length * 22050 // (50 * 256) * 256 for length in lengths.tolist()]
    assert [len(row) for row in batch] == counts and counts[2] == 0
    for found, (expected,) in zip(batch, alone, strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert vocoder.sample_rate_hz == 22050


def test_units_of_another_extractor_are_refused(folder):
    units = torch.tensor([[3, 12]])

    with pytest.raises(ValueError, match="units 0..11, got 12; .* extractor"):
        build_vocoder(folder)(units, torch.tensor([2]), torch.ones(1, 4))


def test_noise_belongs_to_units_and_seed(folder):
    vocoder = build_vocoder(folder)
    first, second = torch.arange(6)[None], torch.arange(6).flip(0)[None]

    def draw(units, seed=0):
        vocoder.seed = seed
        (generator,) = vocoder._generators(units, torch.tensor([units.size(1)]))
        return torch.randn(4, generator=generator)

    assert torch.equal(draw(first), draw(first.int()))
    assert not torch.equal(draw(first), draw(second))
    assert not torch.equal(draw(first), draw(first, seed=-1))
    change(folder, seed=7)
    assert build_vocoder(folder).seed == 7


def test_it_stays_frozen_and_in_eval_mode(folder):
    vocoder = build_vocoder(folder)
    assert not vocoder.training
    torch.nn.ModuleList([vocoder]).train()

    assert not any(module.training for module in vocoder.modules())
    assert not any(p.requires_grad for p in vocoder.parameters())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"flow_cnf": {}}, r"unknown \['flow_cnf'\]; known are \['flow_conf'"),
        ({"hift_conf": {"rates": 1}}, r"hift_conf: unknown \['rates'\]"),
        ({"hift_conf": {}}, r"agree on num_mels.*\(6, 22050, 256\)"),
        (
            {"flow_conf": {**CONFIG["flow_conf"], "layers": 2}},
            "not the weights of this flow and HiFT",
        ),
        (
            {"flow_conf": {**CONFIG["flow_conf"], "num_units": 13}},
            "of another shape, e.g. .'flow.input_embedding.weight'",
        ),
    ],
)
def test_a_folder_that_does_not_fit_is_named(folder, values, message):
    change(folder, **values)

    with pytest.raises(ValueError, match=message):
        build_vocoder(folder)


def test_absent_weights_are_named_with_the_remedy(folder):
    (folder / "voice_generator.pth").unlink()

    with pytest.raises(FileNotFoundError, match="flow.pt and hift.pt of CosyVoice"):
        build_vocoder(folder)


def test_a_checkpoint_that_would_run_code_is_refused(folder):
    torch.save({"flow.x": Fraction(1, 2)}, folder / "voice_generator.pth")

    with pytest.raises(ValueError, match="holds more than tensors"):
        build_vocoder(folder)


def test_other_speaker_embeddings_are_refused(folder):
    with pytest.raises(ValueError, match="of 4 values, got 256.*CAM"):
        build_vocoder(folder)(
            torch.zeros(1, 3, dtype=torch.long), torch.tensor([3]), torch.ones(1, 256)
        )


def test_installing_makes_a_folder_of_its_own(folder, tmp_path, capsys):
    config = tmp_path / "vocoder.yaml"
    config.write_text(yaml.safe_dump({**CONFIG, "weights": str(folder)}))
    output = tmp_path / "exp" / "vocoder"

    assert main(["--config", str(config), "--output_dir", str(output)]) == 0
    (folder / "voice_generator.pth").unlink()

    vocoder = build_vocoder(output)
    assert isinstance(vocoder, CosyVoiceVocoder)
    assert vocoder(torch.tensor([[3, 4]]), torch.tensor([2]), torch.ones(1, 4))
    assert main(["--config", str(config), "--output_dir", str(output)]) == 1
    assert "no weights of CosyVoice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "message"),
    [({"vocoder": "unit_to_mel"}, "other vocoders are trained"), (CONFIG, "'weights'")],
)
def test_what_cannot_be_installed_is_said(tmp_path, values, message, capsys):
    config = tmp_path / "vocoder.yaml"
    config.write_text(yaml.safe_dump(values))

    assert main(["--config", str(config), "--output_dir", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
