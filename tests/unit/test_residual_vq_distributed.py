"""Two real processes move the codebooks as one process with both batches does."""

import subprocess
import sys

import pytest
import torch

WORKER = """
import sys
import torch
from torch import distributed
from espnet_taste.layers.residual_vq import ResidualVQ

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.manual_seed(0)
threshold = float(sys.argv[3])
rvq = ResidualVQ(
    6, 3, 4, 2, quantizer_dropout=True, dead_code_threshold=threshold
)
generator = torch.Generator().manual_seed(0)
rvq.initialise(torch.randn(30, 6), generator=generator, num_iterations=2)
rvq.train()
if rank >= 0:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
features = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(1))
mask = torch.arange(5) < torch.tensor([[5], [1], [4], [2]])
rows = slice(2 * rank, 2 * rank + 2) if rank >= 0 else slice(None)
torch.manual_seed(rank + 9)
for _ in range(4):
    rvq(features[rows], mask[rows])
torch.save(rvq.state_dict(), f"{folder}/{rank}.pt")
if rank >= 0:  # who ends first closes the connection, which the other may still read
    distributed.barrier()
    distributed.destroy_process_group()
"""


def run(folder, ranks, threshold):
    """Train on the given ranks; -1 is a process without group. Return the states."""
    command = [sys.executable, "-c", WORKER]
    jobs = [
        subprocess.Popen([*command, str(rank), str(folder), str(threshold)])
        for rank in ranks
    ]
    assert [job.wait(timeout=120) for job in jobs] == [0] * len(jobs)
    return [torch.load(folder / f"{rank}.pt") for rank in ranks]


@pytest.mark.slow
def test_two_ranks_equal_one(tmp_path):
    whole, first, second = run(tmp_path, (-1, 0, 1), threshold=0.0)
    for name, value in first.items():
        assert second[name].equal(value), name
        torch.testing.assert_close(value, whole[name], msg=name)


@pytest.mark.slow
def test_ranks_revive_the_same_codes(tmp_path):
    first, second = run(tmp_path, (0, 1), threshold=50.0)
    for name, value in first.items():
        assert second[name].equal(value), name
