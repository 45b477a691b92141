"""The command that scores a spoken LM: which model it opens."""

import torch
import yaml

from espnet_taste.bin.score_slm import get_parser, open_model
from espnet_taste.pipeline import slm as pipeline


def opened(monkeypatch, tmp_path, *options):
    calls = []

    def record(model_file, config_file=None, device="cpu"):
        calls.append((model_file, config_file, device, torch.rand(1)))

    monkeypatch.setattr(pipeline, "SpokenLMInference", record)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"seed": 5}))
    required = ["--data_dir", "d", "--output_dir", "o", "--codes_dir", "c"]
    required += ["--slm_file", str(tmp_path / "best.pth"), "--device", "meta"]
    open_model(get_parser().parse_args([*required, *options]))
    return calls[0]


def test_the_trained_model_is_the_default(monkeypatch, tmp_path):
    model_file, _, device, _ = opened(monkeypatch, tmp_path)

    assert model_file == tmp_path / "best.pth"
    assert device == "meta"


def test_the_untrained_one_has_no_checkpoint_and_the_seed_of_the_training(
    monkeypatch, tmp_path
):
    model_file, config, device, drawn = opened(
        monkeypatch, tmp_path, "--untrained", "true"
    )

    assert model_file is None and config == tmp_path / "config.yaml"
    assert device == "meta"
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
