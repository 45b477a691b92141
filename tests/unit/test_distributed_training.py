"""ESPnet's trainer on two ranks: the step of one process with both ranks' rows."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKER = """
import argparse
import dataclasses
import sys

import torch
from espnet2.train.distributed_utils import DistributedOption
from espnet2.train.reporter import Reporter
from espnet2.train.trainer import Trainer, TrainerOptions
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from tests.tiny_slm import make_batch, make_slm
from tests.unit import test_tokenizer_model, test_unit_to_mel_task, test_whisper_vq
from espnet_taste.decoder.unit_to_mel import UnitToMel
from espnet_taste.tasks.slm_model import TasteSpokenLMModel
from espnet_taste.tasks.unit_autoencoder import UnitAutoencoderESPnetModel
from espnet_taste.tasks.unit_to_mel import UnitToMelESPnetModel
from espnet_taste.units.unit_encoder import UnitEncoder

kind, rank, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
counts = [int(count) for count in sys.argv[4].split(",")]
start = sum(counts[:rank]) if rank > 0 else 0
rows = slice(start, start + counts[rank]) if rank >= 0 else slice(None)

torch.manual_seed(0)
draw = torch.randn
num_rows = sum(counts)
voices = draw(num_rows, 4)
sounds = {
    "mel": draw(num_rows, 51, 6) - 5,
    "mel_lengths": torch.full((num_rows,), 51),
    "spembs": voices,
    "frame_offset": torch.zeros(num_rows),
}
sizes = {"num_mels": 6, "speaker_dim": 4, "width": 8}
blocks = {"unit_blocks": 1, "frame_blocks": 1}
if kind == "tokenizer":
    model = test_tokenizer_model.build("taste")
    batch = {
        "asr_tokens": torch.randint(3, 9, (num_rows, 3)),
        "asr_tokens_lengths": torch.full((num_rows,), 3),
        "asr_words": torch.tensor([[0, 0, 1]] * num_rows),
        "units": torch.randint(7, (num_rows, 6)),
        "units_lengths": torch.arange(num_rows).clamp(max=2) + 4,
        "spembs": voices,
        "speech": draw(num_rows, 9),
        "speech_lengths": torch.full((num_rows,), 9),
    }
elif kind == "units":
    encoder = UnitEncoder(
        **test_whisper_vq.CONF, frames_per_unit=2, dead_unit_threshold=0.0
    )
    decoder = UnitToMel(6, 25.0, unit_centre=0.25, **blocks, **sizes)
    model = UnitAutoencoderESPnetModel(encoder, decoder, 16, speaker_noise=0.0)
    batch = {
        "encoder_states": draw(num_rows, 30, 32),
        "encoder_states_lengths": torch.full((num_rows,), 30),
        **sounds,
    }
elif kind == "vocoder":
    decoder = UnitToMel(10, 50.0, **blocks, **sizes)
    model = UnitToMelESPnetModel(decoder, speaker_noise=0.0)
    batch = {
        "units": torch.randint(10, (num_rows, 30)),
        "units_lengths": torch.full((num_rows,), 30),
        **sounds,
    }
else:
    model = TasteSpokenLMModel(make_slm(head="linear"))
    layout = make_batch([[1, 2, 1]] * num_rows)
    fields = {
        field.name: getattr(layout, field.name)
        for field in dataclasses.fields(layout)
    }
    batch = {
        "layout": dataclasses.replace(
            layout,
            **{n: v[rows] for n, v in fields.items() if isinstance(v, torch.Tensor)},
        )
    }
batch = {n: v if n == "layout" else v[rows] for n, v in batch.items()}

is_distributed = rank >= 0
option = DistributedOption(distributed=is_distributed)
wrapped = model
if is_distributed:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    wrapped = DistributedDataParallel(model, find_unused_parameters=True)
trained = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.SGD(trained, lr=1.0)
options = {field.name: None for field in dataclasses.fields(TrainerOptions)}
options |= {
    "ngpu": 0, "accum_grad": 1, "grad_clip": 1e9, "grad_clip_type": 2.0,
    "log_interval": 1, "no_forward_run": False, "grad_noise": False,
    "create_graph_in_tensorboard": False, "use_amp": False, "train_dtype": "float32",
}
options = TrainerOptions(**options)
with Reporter().observe("train", 1) as reporter:
    Trainer.train_one_epoch(
        wrapped, optimizers=[optimizer], schedulers=[None], scaler=None,
        iterator=[(["utt"], dict(batch))], reporter=reporter,
        summary_writer=None, options=options, distributed_option=option,
    )
shared = Reporter()
shared.set_epoch(1)
with shared.observe("valid") as reporter:
    Trainer.validate_one_epoch(
        wrapped, iterator=[(["utt"], dict(batch))], reporter=reporter,
        options=options, distributed_option=option,
    )
torch.save(
    {"loss": shared.get_value("valid", "loss", 1), "state": model.state_dict()},
    f"{folder}/{rank}.pt",
)
"""


def train(folder, kind, ranks, counts="1,1"):
    """Train one step and validate; rank -1 is a process without group."""
    root = Path(__file__).parents[2]
    paths = f"{root}:{root / 'tests'}:{root / 'tests' / 'unit'}"
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, kind, str(rank), str(folder), counts],
            env={"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
            cwd=folder,
        )
        for rank in ranks
    ]
    try:
        assert [job.wait(timeout=120) for job in jobs] == [0] * len(jobs)
    finally:
        for job in jobs:
            job.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in ranks]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tokenizer", "units", "vocoder", "slm"])
def test_two_ranks_step_as_one(tmp_path, kind):
    whole, first, second = train(tmp_path, kind, (-1, 0, 1))

    for name, value in first["state"].items():
        assert second["state"][name].equal(value), name
        torch.testing.assert_close(value, whole["state"][name], msg=name)
    assert first["loss"] == second["loss"]
    assert first["loss"] == pytest.approx(whole["loss"], rel=1e-5)


@pytest.mark.slow
def test_a_rank_may_validate_a_lone_utterance(tmp_path):
    """It has no other condition to exchange, yet must gather what the others do."""
    first, second = train(tmp_path, "tokenizer", (0, 1), "2,1")

    assert first["loss"] == second["loss"]
