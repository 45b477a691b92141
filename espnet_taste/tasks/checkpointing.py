"""Small, strict, crash-safe checkpoints on top of ESPnet's trainer.

ESPnet saves every parameter, loads with ``strict=False`` without a word and
overwrites ``checkpoint.pth`` in place. Here frozen backbones stay out of the
files (they are named by weight name and sha256 in ``config.yaml``), every other
mismatch is an error, and a killed save leaves the previous file whole.
"""

import logging
import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from espnet2.train.abs_espnet_model import AbsESPnetModel
from espnet2.train.reporter import Reporter
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from espnet_taste.layers.precision import usable_dtype

logger = logging.getLogger(__name__)


class TasteESPnetModel(AbsESPnetModel):
    """Base of our ESPnet models: frozen parts are neither saved nor up-cast.

    Subclasses name them in ``frozen_parts`` (module paths) and call
    ``protect_frozen_parts`` at the end of their constructor.
    """

    # ESPnet then builds no model to collect statistics.
    extract_feats_in_collect_stats = False

    frozen_parts: tuple[str, ...] = ()
    trained_inside: tuple[str, ...] = ()

    def protect_frozen_parts(
        self, frozen_parts: Sequence[str], trained_inside: Sequence[str] = ()
    ) -> None:
        """Freeze modules and keep them out of checkpoints.

        Args:
            frozen_parts: Module paths, e.g. ``("encoder",)``. They must be rebuilt
                identically by the constructor, from weights named in the config.
            trained_inside: Pieces of names that are trained nevertheless, e.g.
                ``("lora_",)`` for adapters. Such a part freezes itself.
        """
        self.frozen_parts = tuple(frozen_parts)
        self.trained_inside = tuple(trained_inside)
        if not self.trained_inside:
            for part in self.frozen_parts:
                self.get_submodule(part).requires_grad_(False).eval()
        self.register_state_dict_post_hook(_drop_frozen)
        self.register_load_state_dict_post_hook(_forgive_frozen)

    def is_frozen(self, name: str) -> bool:
        """Tell whether a state-dict name belongs to a frozen part."""
        if any(piece in name for piece in self.trained_inside):
            return False
        return _inside(name, self.frozen_parts)

    def train(self, mode: bool = True) -> "TasteESPnetModel":
        """Switch the mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        if not self.trained_inside:
            for part in self.frozen_parts:
                self.get_submodule(part).eval()
        return self

    def to(self, *args, **kwargs) -> "TasteESPnetModel":
        """Move the model; frozen parts keep their dtype, where the device has it.

        ESPnet calls ``to(dtype=float32)``, which would double the memory of a
        frozen bfloat16 backbone. So that not even a moment needs so much, the frozen
        parts are left out of that call and moved one by one.
        """
        frozen = {n: p for n, p in self.named_parameters() if self.is_frozen(n)}
        kept = {name: parameter.data for name, parameter in frozen.items()}
        for parameter in frozen.values():
            parameter.data = parameter.data.new_empty(0)
        super().to(*args, **kwargs)
        for name, parameter in self.named_parameters():
            if name in kept:
                values, device = kept.pop(name), parameter.device
                parameter.data = values.to(device, usable_dtype(values.dtype, device))
        return self

    def collect_feats(self, **batch: Tensor) -> dict[str, Tensor]:
        """Return nothing: shapes are written when features are extracted."""
        return {}


def _drop_frozen(
    model: TasteESPnetModel, state: dict, prefix: str, metadata: dict
) -> None:
    for name in [n for n in state if model.is_frozen(n.removeprefix(prefix))]:
        del state[name]


def _forgive_frozen(model: TasteESPnetModel, incompatible) -> None:
    kept = [name for name in incompatible.missing_keys if not model.is_frozen(name)]
    incompatible.missing_keys[:] = kept


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint, weights only, onto the CPU.

    Args:
        path: A ``.pth`` file of ESPnet's trainer (also ``checkpoint.pth``), or a
            ``.safetensors`` file of a converted checkpoint.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}; run the stage before")
    state = _load_tensors(path)
    return state.get("model", state)


def read_part(path: str | Path, prefix: str) -> dict[str, Tensor]:
    """Read the tensors of one part of a model, by their names within it.

    Args:
        path: As of ``read_checkpoint``, whose errors it raises.
        prefix: What the names of the part begin with.
    """
    state = read_checkpoint(path)
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }


def _load_tensors(path: Path) -> dict:
    """Read a file that torch saved, refusing code; its long advice is left out."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise ValueError(
            f"{path} is not a readable checkpoint ({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["empty file"])[0][:80]


def load_weights(
    model: nn.Module, path: str | Path, allow_new: Sequence[str] = ()
) -> None:
    """Load a checkpoint and refuse to leave anything random by accident.

    Args:
        model: A ``TasteESPnetModel``.
        path: As of ``read_checkpoint``.
        allow_new: Module paths that the file need not hold, because this training
            stage is the first that has them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, or tensors are missing, unknown, of
            another shape, or not finite; the names are listed.
    """
    state = read_checkpoint(path)
    bad = [n for n, t in state.items() if t.is_floating_point() and _has_nan(t)]
    wanted = model.state_dict()
    missing = [n for n in wanted if n not in state and not _inside(n, allow_new)]
    unknown = [n for n in state if n not in wanted]
    shapes = [n for n in state if n in wanted and state[n].shape != wanted[n].shape]
    faults = {
        "missing": missing,
        "unknown": unknown,
        "of another shape": shapes,
        "not finite": bad,
    }
    lines = [f"{kind}: {_some(names)}" for kind, names in faults.items() if names]
    if lines:
        raise ValueError(f"{path} does not fit this model; " + "; ".join(lines))
    model.load_state_dict({**wanted, **state}, strict=False)
    logger.info(f"loaded {len(state)} tensors from {path}")


def _has_nan(tensor: Tensor) -> bool:
    return not bool(torch.isfinite(tensor).all())


def _inside(name: str, parts: Sequence[str]) -> bool:
    return any(name.startswith(part + ".") for part in parts)


def _some(names: list[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


@contextmanager
def atomic_torch_save() -> Iterator[None]:
    """Make ``torch.save`` to a path write beside it and rename.

    ESPnet's trainer overwrites ``checkpoint.pth`` in place; a kill in that moment
    would lose the whole run. Replaced for the duration of a training program only.

    Raises:
        OSError: From a save that failed, which leaves the previous file whole.
    """
    original = torch.save

    def save(obj, f, *args, **kwargs):
        if not isinstance(f, (str, os.PathLike)):
            return original(obj, f, *args, **kwargs)
        part = Path(f"{os.fspath(f)}.part")
        try:
            original(obj, part, *args, **kwargs)
        except RuntimeError as error:  # all that torch tells of a full disk
            part.unlink(missing_ok=True)
            raise OSError(
                f"{f} cannot be written ({_first_line(error)}); is the disk full? "
                "The run goes on from the save before"
            ) from error
        os.replace(part, f)

    torch.save = save
    try:
        yield
    finally:
        torch.save = original


def repair_after_kill(
    output_dir: str | Path, criteria: Sequence[Sequence[str]] = ()
) -> None:
    """Complete an experiment folder whose last save was cut short.

    The trainer writes ``checkpoint.pth``, then ``<n>epoch.pth``, then links. Killed
    in between, the resumed run would miss the second at its very end, when it
    averages the best epochs. Everything is made again from the first.

    Args:
        output_dir: Experiment folder; one without a checkpoint is left alone.
        criteria: ESPnet's ``best_model_criterion``: (phase, name, "min" or "max").

    Raises:
        ValueError: If the checkpoint cannot be read.
    """
    output_dir = Path(output_dir)
    checkpoint = output_dir / "checkpoint.pth"
    if not checkpoint.is_file():
        return
    try:
        states = _load_tensors(checkpoint)
    except ValueError as error:
        raise ValueError(f"{error}; remove {output_dir} to train again") from error
    reporter = Reporter()
    reporter.load_state_dict(states["reporter"])
    epoch = reporter.get_epoch()
    if epoch == 0:
        return
    epoch_file = output_dir / f"{epoch}epoch.pth"
    if not epoch_file.exists():
        logger.warning(f"{epoch_file} was lost in a kill; written again")
        with atomic_torch_save():
            torch.save(states["model"], epoch_file)
    _link(output_dir / "latest.pth", epoch_file.name)
    for phase, name, mode in criteria:
        if reporter.has(phase, name) and (
            reporter.get_best_epoch(phase, name, mode) == epoch
        ):
            _link(output_dir / f"{phase}.{name}.best.pth", epoch_file.name)


def _link(path: Path, target: str) -> None:
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    os.replace(part, path)
