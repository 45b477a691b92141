"""Checkpoints: small, strict, and whole after a kill."""

import resource

import pytest
import torch
from espnet2.train.reporter import Reporter
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from espnet_taste.tasks.checkpointing import (
    TasteESPnetModel,
    atomic_torch_save,
    load_weights,
    repair_after_kill,
)


class Model(TasteESPnetModel):
    def __init__(self, with_new=False):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2))
        self.head = nn.Linear(2, 3)
        if with_new:
            self.new = nn.Linear(1, 1)
        self.protect_frozen_parts(["backbone"])

    def forward(self, **batch):
        raise AssertionError("not called")


def test_frozen_parts_are_not_saved_not_trained_and_stay_in_eval_mode():
    model = Model().train()

    assert sorted(model.state_dict()) == ["head.bias", "head.weight"]
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert not any(module.training for module in model.backbone.modules())
    assert model.head.training


def test_a_saved_model_loads_strictly():
    """ESPnet's resume is strict, which must not trip over what was left out."""
    source, target = Model(), Model()
    target.load_state_dict(source.state_dict())

    assert torch.equal(source.head.weight, target.head.weight)


def test_frozen_parts_keep_their_dtype(with_bfloat16):
    """Reference trap: the trainer's ``to(float32)`` doubles a bf16 backbone."""
    model = Model()
    model.backbone.to(torch.bfloat16)

    model.to(dtype=torch.float32)

    assert model.backbone[0].weight.dtype == torch.bfloat16
    assert model.head.weight.dtype == torch.float32


def test_frozen_parts_never_take_float32_on_their_way(with_bfloat16):
    """A GPU that holds a backbone in bfloat16 may have no room for it in float32."""
    model = Model()
    model.backbone.to(torch.bfloat16)
    before = {name: value.clone() for name, value in model.named_parameters()}
    size, made = model.backbone[0].weight.shape, []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.shape == size:
                made.append(result.dtype)
            return result

    with Watch():
        model.to(dtype=torch.float32)

    assert torch.float32 not in made
    for name, value in model.named_parameters():
        assert value.equal(before[name].to(value.dtype)), name


def test_frozen_parts_move_to_float32_where_bfloat16_is_slow(without_bfloat16):
    model = Model()
    model.backbone.to(torch.bfloat16)

    model.to("cpu")

    assert model.backbone[0].weight.dtype == torch.float32


def save(path, model, **change):
    state = {**model.state_dict(), **change}
    torch.save({k: v for k, v in state.items() if v is not None}, path)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head.bias": None}, "missing: head.bias"),
        ({"stray": torch.zeros(1)}, "unknown: stray"),
        ({"head.bias": torch.zeros(4)}, "of another shape: head.bias"),
        ({"head.bias": torch.full((3,), torch.nan)}, "not finite: head.bias"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, change, message):
    path = save(tmp_path / "m.pth", Model(), **change)

    with pytest.raises(ValueError, match=message):
        load_weights(Model(), path)


def test_only_declared_parts_may_be_new(tmp_path):
    path = save(tmp_path / "m.pth", Model())

    load_weights(Model(with_new=True), path, allow_new=("new",))
    with pytest.raises(ValueError, match="missing: new.weight, new.bias"):
        load_weights(Model(with_new=True), path)


def test_the_resume_file_can_be_loaded_too(tmp_path):
    """ESPnet's own loader takes nothing from it, without a word."""
    source, target = Model(), Model()
    torch.save({"model": source.state_dict()}, tmp_path / "checkpoint.pth")

    load_weights(target, tmp_path / "checkpoint.pth")

    assert torch.equal(source.head.weight, target.head.weight)


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04cut"])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "m.pth"
    path.write_bytes(content)

    with pytest.raises(ValueError, match="m.pth is not a readable checkpoint"):
        load_weights(Model(), path)


def test_a_failed_save_leaves_the_previous_file(tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save({"a": torch.ones(1)}, path)

    class Unpicklable:
        def __reduce__(self):
            raise OSError("no space left")

    with atomic_torch_save(), pytest.raises(OSError, match="no space left"):
        torch.save({"a": Unpicklable()}, path)

    assert torch.load(path)["a"] == 1


def test_a_full_disk_is_said_and_leaves_the_previous_file(tmp_path):
    """torch tells of it by a RuntimeError about its own container format."""
    path = tmp_path / "checkpoint.pth"
    torch.save({"a": torch.ones(1)}, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    with atomic_torch_save(), pytest.raises(OSError, match="pth cannot be written"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            torch.save({"a": torch.ones(1_000_000)}, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert torch.load(path)["a"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pth"]


def experiment(folder, epochs):
    """What the trainer leaves behind after some epochs of falling loss."""
    reporter = Reporter()
    for epoch in range(1, epochs + 1):
        reporter.set_epoch(epoch)
        with reporter.observe("valid") as sub:
            sub.register({"loss": 1.0 / epoch})
            sub.next()
        torch.save({"w": torch.tensor([float(epoch)])}, folder / f"{epoch}epoch.pth")
    states = {"model": {"w": torch.tensor([float(epochs)])}}
    torch.save(states | {"reporter": reporter.state_dict()}, folder / "checkpoint.pth")


def test_an_epoch_lost_between_two_saves_is_written_again(tmp_path):
    experiment(tmp_path, 3)
    (tmp_path / "3epoch.pth").unlink()
    (tmp_path / "valid.loss.best.pth").symlink_to("2epoch.pth")

    repair_after_kill(tmp_path, [("valid", "loss", "min")])

    best = torch.load(tmp_path / "valid.loss.best.pth")
    assert best["w"] == 3 and torch.load(tmp_path / "latest.pth")["w"] == 3


def test_a_folder_without_checkpoint_is_left_alone(tmp_path):
    repair_after_kill(tmp_path, [("valid", "loss", "min")])

    assert list(tmp_path.iterdir()) == []


def test_a_damaged_resume_file_tells_what_to_do(tmp_path):
    (tmp_path / "checkpoint.pth").write_bytes(b"cut")

    with pytest.raises(ValueError, match="not a readable .*; remove .* to train again"):
        repair_after_kill(tmp_path)
