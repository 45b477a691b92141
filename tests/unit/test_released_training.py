"""Training goes on from a released checkpoint, with its own quantizer."""

import numpy as np
import pytest
import torch
from tiny_released import BACKBONE, released_state, write_checkpoint

from espnet_taste.convert.checkpoint import Options, convert
from espnet_taste.convert.load import load_spoken_lm
from espnet_taste.slm.delay import collate, delay_words
from espnet_taste.tasks.building import read_config
from espnet_taste.tasks.slm_builder import SpokenLMBuilder

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("released")
    source = write_checkpoint(root / "official", released_state())
    convert(source, root / "ours", to="espnet_taste", options=Options(BACKBONE))
    return root / "ours"


def test_a_spoken_lm_begins_as_released_and_learns(folder):
    args = read_config(folder / "slm" / "config.yaml")
    args.init_from = str(folder / "slm" / WEIGHTS)
    args.frozen_weights = {}
    args.tokenizer_file = str(folder / "taste" / WEIGHTS)

    model = SpokenLMBuilder.build_model(args).train()

    released = load_spoken_lm(folder).state_dict()
    for name, tensor in model.slm.state_dict().items():
        assert torch.equal(tensor.float(), released[name].float()), name
    layout = delay_words(np.array([4, 5, 6]), np.array([0, 1, 1]), 1, "word")
    loss, _, _ = model(collate([layout], [np.array([[1, 4], [0, 2]])]))
    loss.backward()
    trained = {n for n, p in model.slm.named_parameters() if p.grad is not None}
    assert {name.split(".")[0] for name in trained} >= {"fusion", "head", "llm"}
    assert all("lora_" in name for name in trained if name.startswith("llm."))
    # What it learns to predict stays what the released tokenizer writes.
    assert not any(name.startswith("codebooks.") for name in trained)
