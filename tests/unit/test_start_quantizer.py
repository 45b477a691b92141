"""What the quantizer's start takes from the YAML file and the model before."""

import argparse
from pathlib import Path

import pytest
import torch
import yaml
from tiny_taste import WIDTH, no_quantizer, tiny_model

from espnet_taste.bin import start_quantizer as command
from espnet_taste.bin.start_quantizer import next_training
from espnet_taste.tasks.tokenizer import TasteTokenizerTask
from espnet_taste.tasks.tokenizer_builder import TokenizerBuilder
from espnet_taste.tokenizer.quantizer import RvqQuantizer

CONF = Path(__file__).parents[2] / "conf"
PARTS = ("encoder", "aggregator", "quantizer", "decoder")


def before(config: Path) -> argparse.Namespace:
    """Arguments as a training without quantizer leaves them."""
    parser = TasteTokenizerTask.get_parser()
    args = parser.parse_args(["--config", str(config), "--whisper", "openai/whisper-x"])
    args.decoder_conf["num_units"] = 77
    args.init_from = "text_only.pth"
    return args


@pytest.mark.parametrize("folder", ["", "debug", "released"])
def test_it_builds_what_the_task_would_build(folder):
    config = CONF / folder / "train_taste.yaml"
    earlier = before(CONF / folder / "train_without_vq.yaml")
    parsed = TasteTokenizerTask.get_parser().parse_args(["--config", str(config)])

    args = next_training(config, earlier)

    for part in PARTS:
        assert getattr(args, part) == getattr(parsed, part)
    for conf in ("encoder_conf", "aggregator_conf", "quantizer_conf", "model_conf"):
        assert getattr(args, conf) == getattr(parsed, conf)
    assert args.decoder_conf == parsed.decoder_conf | {"num_units": 77}
    assert args.whisper == "openai/whisper-x"
    assert args.init_from is None


@pytest.mark.parametrize(
    ("folder", "start"), [("", "pca"), ("debug", "pca"), ("released", "random")]
)
def test_only_released_trainings_leave_the_projections_random(folder, start):
    earlier = before(CONF / folder / "train_without_vq.yaml")
    args = next_training(CONF / folder / "train_taste.yaml", earlier)

    assert RvqQuantizer(**args.quantizer_conf).start_projections == start


def test_parts_that_the_file_does_not_choose_are_the_defaults(tmp_path):
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump({"quantizer": "rvq"}))
    earlier = before(CONF / "train_without_vq.yaml")
    parsed = TasteTokenizerTask.get_parser().parse_args(["--config", str(config)])

    args = next_training(config, earlier)

    for part in PARTS:
        assert getattr(args, part) == getattr(parsed, part)
    assert args.encoder_conf == {} != earlier.encoder_conf
    assert args.model_conf == {} != earlier.model_conf
    assert earlier.decoder_conf["num_units"] == 77 == args.decoder_conf["num_units"]


def test_projections_keep_what_varies_and_codebooks_lie_in_the_features(
    tmp_path, monkeypatch
):
    """What trained before is taken over, but for the count of its steps."""
    codes = {"codebook_dim": 4, "codebook_size": 8, "num_codebooks": 2}
    torch.manual_seed(0)
    features = torch.randn(90, 4) @ torch.randn(4, WIDTH) + 3.0
    before, model = (
        tiny_model(quantizer=quantizer)
        for quantizer in (no_quantizer(), RvqQuantizer(WIDTH, **codes))
    )
    with torch.no_grad():
        before.num_steps.fill_(7)
        before.decoder.output.bias.fill_(0.5)
    torch.save(before.state_dict(), tmp_path / "before.pth")
    monkeypatch.setattr(
        "espnet_taste.pipeline.tokenizer.TokenizerInference",
        lambda *_, **__: argparse.Namespace(args=None),
    )
    monkeypatch.setattr(command, "collect_features", lambda *_: features)
    monkeypatch.setattr(command, "next_training", lambda *_: None)
    monkeypatch.setattr(TokenizerBuilder, "build_model", lambda args: model)
    argv = ["--config", "c", "--data_dir", "d", "--features_dir", "f"]
    argv += ["--model_file", str(tmp_path / "before.pth")]
    args = command.get_parser().parse_args([*argv, "--output", str(tmp_path / "new")])

    command.start_quantizer(args)

    state = torch.load(tmp_path / "new", weights_only=True)
    assert int(state["num_steps"]) == 0
    assert torch.equal(state["decoder.output.bias"], before.decoder.output.bias)
    started = tiny_model(quantizer=RvqQuantizer(WIDTH, **codes))
    started.load_state_dict(state)
    rvq = started.quantizer.rvq
    latents = rvq.project_in(features).detach()
    torch.testing.assert_close(rvq.project_out(latents), features, atol=1e-3, rtol=0)
    nearest = torch.cdist(rvq.codebooks[0].embed, latents).min(1).values
    assert float(nearest.mean()) < float(latents.std())
    assert all(float(codebook.count.sum()) == 90 for codebook in rvq.codebooks)


class OnDevice(list):
    """Features as a GPU's: of use only after a copy."""

    def cpu(self):
        return torch.tensor(self)


def test_features_leave_the_device_they_are_made_on(tmp_path):
    """The model that they start is built on the CPU."""
    (tmp_path / "wav.scp").write_text("a a.wav\nb b.wav\n")
    fake = argparse.Namespace(
        open=lambda *folders: {"a": 1.0, "b": 2.0},
        word_features=lambda items: [OnDevice([[value]]) for _, value in items],
    )
    args = argparse.Namespace(
        data_dir=tmp_path, features_dir=tmp_path, seed=0, batch_size=1, max_words=9
    )

    features = command.collect_features(fake, args)

    assert sorted(features.flatten().tolist()) == [1.0, 2.0]


def test_features_are_of_a_random_part_of_the_training_set(tmp_path):
    """Corpora are sorted: their first utterances are one speaker's."""
    keys = [f"u{number:02d}" for number in range(30)]
    (tmp_path / "wav.scp").write_text("".join(f"{key} {key}.wav\n" for key in keys))
    fake = argparse.Namespace(
        open=lambda *folders: {key: float(key[1:]) for key in keys},
        word_features=lambda items: [torch.tensor([[value]]) for _, value in items],
    )

    def chosen(seed):
        args = argparse.Namespace(
            data_dir=tmp_path, features_dir=tmp_path, seed=seed, batch_size=2
        )
        args.max_words = 6
        return command.collect_features(fake, args).flatten().tolist()

    assert len(chosen(0)) == 6 == len(set(chosen(0)))
    assert chosen(0) == chosen(0) != chosen(1)
    assert max(chosen(0)) > 6
