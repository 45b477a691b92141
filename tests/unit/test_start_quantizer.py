"""What the quantizer's start takes from the YAML file and the model before."""

import argparse
from pathlib import Path

import pytest
import yaml

from espnet_taste.bin.start_quantizer import next_training
from espnet_taste.tasks.tokenizer import TasteTokenizerTask

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
