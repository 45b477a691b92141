"""How a training starts in its processes."""

from types import SimpleNamespace

import pytest
from espnet2.tasks.abs_task import AbsTask

from espnet_taste.tasks import base
from espnet_taste.tasks.tokenizer import TasteTokenizerTask


@pytest.fixture
def begun(monkeypatch):
    """What happens, in order, without a training."""
    events = []
    monkeypatch.setattr(base, "repair_after_kill", lambda *_: events.append("repair"))
    train = classmethod(lambda cls, args: events.append("train"))
    monkeypatch.setattr(AbsTask, "main_worker", train)
    return events


def start(ngpu=1, rank=None):
    base.TasteTask.main_worker(
        SimpleNamespace(
            ngpu=ngpu,
            resume=True,
            output_dir="exp",
            best_model_criterion=[],
            distributed=rank is not None,
            dist_rank=rank,
            dist_launcher=None,
        )
    )


@pytest.mark.parametrize("rank", [None, 0])
def test_a_resumed_training_is_repaired_first(begun, rank):
    start(rank=rank)
    assert begun == ["repair", "train"]


def test_other_ranks_leave_the_repair_to_the_first(begun):
    """Two that make the same links at once get in each other's way."""
    start(rank=1)
    assert begun == ["train"]


def test_several_gpus_in_one_process_are_refused(begun):
    """ESPnet would train copies, whose codebooks nobody keeps."""
    with pytest.raises(ValueError, match="--ngpu 2 .*--multiprocessing_distributed"):
        start(ngpu=2)
    assert begun == []


@pytest.mark.parametrize("is_child", [False, True])
def test_a_process_of_a_gpu_ends_in_one_line_too(begun, monkeypatch, is_child):
    """Its traceback would end in that of the program that waits for it."""
    monkeypatch.setattr(base, "parent_process", lambda: object() if is_child else None)
    monkeypatch.setattr("sys.argv", ["bin/tokenizer_train.py"])
    args = SimpleNamespace(unit_start="codebook", init_from=None, units_dir=None)

    with pytest.raises(SystemExit if is_child else ValueError) as stop:
        TasteTokenizerTask.main_worker(args)

    told = "unit_start: codebook needs --units_dir, the folder that has it"
    assert str(stop.value) == "tokenizer_train: error: " * is_child + told


def test_so_it_does_where_the_model_is_built(begun, monkeypatch):
    def fail(cls, args):
        raise FileNotFoundError("no weights")

    monkeypatch.setattr(AbsTask, "main_worker", classmethod(fail))
    monkeypatch.setattr(base, "parent_process", object)

    with pytest.raises(SystemExit, match="error: no weights"):
        start(rank=1)
