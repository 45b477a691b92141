"""Learned units: encoder, joint training with the decoder, export, extraction."""

import argparse

import kaldiio
import numpy as np
import pytest
import soundfile
import torch

from espnet_taste.bin import export_units, extract_units
from espnet_taste.data.mel_crops import MelCropCollate, StateMelPreprocessor
from espnet_taste.decoder.unit_to_mel import UnitToMel
from espnet_taste.decoder.vocoder import TRAINED_PART
from espnet_taste.tasks.unit_autoencoder import (
    UnitAutoencoderESPnetModel,
    UnitAutoencoderTask,
    perplexity,
)
from espnet_taste.types import IGNORE
from espnet_taste.units.build import learn_units, load_units, read_units_info
from espnet_taste.units.unit_encoder import UnitEncoder, centre_states, frames_per_unit
from espnet_taste.units.whisper_vq import WhisperVQ, WhisperVQConfig
from tests.unit.test_whisper_kmeans import noise, whisper  # noqa: F401  (fixture)

CONF = {"input_dim": 32, "num_units": 6, "width": 8, "blocks": 1, "code_dim": 4}


@pytest.fixture
def unit_encoder():
    torch.manual_seed(0)
    return UnitEncoder(**CONF, frames_per_unit=2).eval()


@pytest.fixture
def model():
    torch.manual_seed(0)
    sizes = {"num_mels": 6, "speaker_dim": 4, "width": 8}
    return UnitAutoencoderESPnetModel(
        UnitEncoder(**CONF, frames_per_unit=2),
        UnitToMel(6, 25.0, unit_centre=0.25, unit_blocks=1, frame_blocks=1, **sizes),
        16,
    )


@pytest.fixture
def batch():
    return {
        "encoder_states": torch.randn(2, 60, 32),
        "encoder_states_lengths": torch.tensor([60, 40]),
        "mel": torch.randn(2, 103, 6) - 5,
        "mel_lengths": torch.tensor([103, 68]),
        "spembs": torch.nn.functional.normalize(torch.randn(2, 4), dim=-1),
        "frame_offset": torch.zeros(2),
    }


def test_a_row_of_a_batch_is_coded_as_alone(unit_encoder):
    states = torch.randn(2, 20, 32)
    lengths = torch.tensor([20, 13])  # the last state makes no whole unit

    both = unit_encoder(states, lengths)
    alone = unit_encoder(states[1:, :13], lengths[1:])

    assert both.lengths.tolist() == [10, 6]
    assert both.units[1, :6].tolist() == alone.units[0].tolist()
    assert (both.units[1, 6:] == IGNORE).all()
    torch.testing.assert_close(both.embedded[1, :6], alone.embedded[0])


def test_the_embedding_table_is_what_the_decoder_was_trained_on(unit_encoder):
    encoding = unit_encoder(torch.randn(1, 20, 32), torch.tensor([20]))

    table = unit_encoder.unit_embedding()

    torch.testing.assert_close(table[encoding.units], encoding.embedded)


def test_all_classes_find_a_place(unit_encoder):
    unit_encoder.train()
    states = torch.randn(4, 60, 32)
    for _ in range(20):
        units = unit_encoder(states, torch.full((4,), 60)).units

    assert len(units.unique()) == 6


def test_centring_frees_states_of_level_and_mean():
    states = torch.randn(50, 8)
    moved = torch.cat([states[:, :4] * 30 + 5, states[:, 4:]], dim=1)

    centred = centre_states(moved)

    torch.testing.assert_close(centred, centre_states(states), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(centred.mean(0), torch.zeros(8), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("rate", "frames"), [(50, 1), (25.0, 2), (12.5, 4)])
def test_frames_per_unit(rate, frames):
    assert frames_per_unit(rate) == frames


def test_a_rate_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="divided by a whole number, got 30"):
        frames_per_unit(30)


def test_padding_does_not_reach_the_loss(model, batch):
    loss, stats, weight = model.eval()(**batch)

    batch["encoder_states"][1, 40:] = 9.0
    batch["mel"][1, 68:] = 9.0
    again, _, _ = model(**batch)

    torch.testing.assert_close(again, loss)
    assert weight == 103 + 68
    expected = stats["l1"] + stats["state_error"]
    torch.testing.assert_close(loss, expected)  # no commitment in evaluation


def test_every_trained_parameter_learns(model, batch):
    model.train()(**batch)[0].backward()

    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    assert not [name for name, p in trained if p.grad is None]


def test_perplexity_counts_what_is_used():
    units = torch.tensor([[0, 1, 2, IGNORE], [0, 1, 2, IGNORE]])

    assert perplexity(units, 9).item() == pytest.approx(3.0)


def test_crops_of_states_begin_on_whole_units():
    frames_per_mel = 50 * 256 / 22050
    states = np.arange(400, dtype=np.float32)[:, None] * np.ones((1, 2), np.float32)
    data = {
        "encoder_states": np.concatenate([states, np.zeros((25, 2), np.float32)]),
        "mel": np.random.default_rng(0).standard_normal((689, 3)),
        "spembs": np.zeros(4, np.float32),
    }
    item = StateMelPreprocessor(frames_per_mel, lambda x: x)("a", data)
    assert item["encoder_states"].shape == (400, 2)  # the silence behind is cut

    collate = MelCropCollate(frames_per_mel, 48, stream="encoder_states", multiple=2)
    _, crops = collate([("a", item)])

    starts = crops["encoder_states"][:, 0, 0]
    assert len(starts) == 8 and (starts % 2 == 0).all()


def test_states_of_other_audio_are_named():
    data = {"encoder_states": np.zeros((90, 4)), "mel": np.zeros((500, 3))}

    with pytest.raises(ValueError, match="utterance 'b' has 500 mel frames"):
        StateMelPreprocessor(0.58, centre_states)("b", data)


@pytest.fixture
def extractor(whisper):  # noqa: F811
    torch.manual_seed(0)
    encoder_conf = {"value_layer": 1, "window": "trimmed"}
    conf = {**CONF, "frames_per_unit": 2}
    config = WhisperVQConfig(str(whisper), encoder_conf, conf)
    return WhisperVQ.build(config, UnitEncoder(**conf).state_dict())


def test_extraction(extractor):
    long, short = extractor.extract([noise(7.01), noise(0.5)])

    assert long.dtype == np.int64 and long.shape == (175,)  # over two windows
    assert short.shape == (12,) and 0 <= short.min() <= short.max() < 6
    np.testing.assert_array_equal(short, extractor.extract([noise(0.5)])[0])
    with pytest.raises(ValueError, match="10 samples are too short"):
        extractor.extract([noise(1)[:10]])


def write_set(folder, audio):
    folder.mkdir()
    for key, signal in audio.items():
        soundfile.write(folder / f"{key}.wav", signal, 16000, subtype="FLOAT")
    lines = [f"{key} {folder / key}.wav\n" for key in audio]
    (folder / "wav.scp").write_text("".join(lines))
    lines = [f"{key} {len(signal)}\n" for key, signal in audio.items()]
    (folder / "utt2num_samples").write_text("".join(lines))


def units_by_command(tmp_path, name, *options):
    required = ["--data_dir", tmp_path / "data", "--units_dir", tmp_path / "units"]
    command = [*required, "--output_dir", tmp_path / name, *options]
    status = extract_units.main([str(word) for word in command])
    scp = tmp_path / name / "units.scp"
    return status, dict(kaldiio.load_scp(str(scp))) if scp.exists() else {}


def test_kept_states_make_the_units_of_the_audio(extractor, tmp_path, capsys):
    audio = {"a": noise(1.3), "b": noise(0.7)}
    write_set(tmp_path / "data", audio)
    extractor.save(tmp_path / "units")
    kept = str(tmp_path / "states.scp")
    with kaldiio.WriteHelper(f"ark,scp:{tmp_path / 'states.ark'},{kept}") as writer:
        for key, signal in audio.items():
            speech = torch.from_numpy(signal)[None]
            states = extractor.encoder(speech, torch.tensor([len(signal)])).pack()[0]
            assert len(states) > len(signal) / 320 + 1  # silence behind it is kept too
            writer(key, states.numpy())

    _, plain = units_by_command(tmp_path, "plain")
    status, found = units_by_command(tmp_path, "kept", "--states_scp", kept)

    assert status == 0 and set(found) == set(plain) == {"a", "b"}
    for key in plain:
        np.testing.assert_array_equal(found[key], plain[key])
    write_scp = (tmp_path / "states.scp").read_text().splitlines()[:1]
    (tmp_path / "states.scp").write_text(write_scp[0] + "\n")
    status, _ = units_by_command(tmp_path, "less", "--states_scp", kept)
    assert status == 1 and "'b': no states in" in capsys.readouterr().err


def test_states_that_are_not_the_units_own_are_refused(extractor):
    with pytest.raises(ValueError, match="31 wide, these units are made of 32"):
        extractor.units_of_states(torch.zeros(5, 31), 1600)
    with pytest.raises(ValueError, match="too short"):
        extractor.units_of_states(torch.zeros(5, 32), 320)


def test_save_and_load(extractor, tmp_path):
    extractor.save(tmp_path)

    loaded = load_units(tmp_path)

    info = read_units_info(tmp_path)
    assert (info.num_units, info.unit_rate_hz) == (6, 25.0)
    assert loaded.unit_vectors().shape == (6, 4)
    torch.testing.assert_close(loaded.unit_vectors(), extractor.unit_vectors())
    np.testing.assert_array_equal(
        loaded.extract([noise(1)])[0], extractor.extract([noise(1)])[0]
    )


def test_they_are_not_made_by_clustering():
    with pytest.raises(ValueError, match="see units_train"):
        learn_units({"units": "whisper_vq"}, [])


def test_export_parts_units_and_decoder(whisper, tmp_path):  # noqa: F811
    args = UnitAutoencoderTask.get_parser().parse_args(["--output_dir", str(tmp_path)])
    vars(args).update(
        whisper=str(whisper),
        unit_rate_hz=25.0,
        encoder_conf={"value_layer": 1, "window": "trimmed"},
        unit_encoder_conf={k: v for k, v in CONF.items() if k != "input_dim"},
        unit_to_mel_conf={"width": 8, "unit_blocks": 1, "frame_blocks": 1},
    )
    model = UnitAutoencoderTask.build_model(args)
    model.unit_encoder.quantizer.codebooks[0].embed.normal_()
    torch.save(model.state_dict(), tmp_path / "model.pth")
    (tmp_path / "config.yaml").write_text(yaml_of(args))
    start = tmp_path / "units/vocoder_start.pth"

    status = export_units.main(
        ["--model_file", str(tmp_path / "model.pth"), "--vocoder_start", str(start),
         "--output_dir", str(tmp_path / "units")]
    )  # fmt: skip

    assert status == 0
    state = torch.load(start, weights_only=True)
    assert all(name.startswith(TRAINED_PART) for name in state)
    torch.testing.assert_close(
        state[TRAINED_PART + "embed.weight"], model.unit_encoder.unit_embedding()
    )
    assert load_units(tmp_path / "units").extract([noise(1)])[0].shape == (25,)


def yaml_of(args: argparse.Namespace) -> str:
    import yaml

    return yaml.safe_dump(
        {k: v for k, v in vars(args).items() if isinstance(v, (str, int, float, dict))}
    )
