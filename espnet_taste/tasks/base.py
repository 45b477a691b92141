"""What our ESPnet tasks share: start weights, optimizer groups, strict loading."""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import parent_process
from pathlib import Path

import torch
from espnet2.schedulers.abs_scheduler import AbsBatchStepScheduler
from espnet2.tasks.abs_task import AbsTask, optim_classes, scheduler_classes
from espnet2.train.distributed_utils import get_rank
from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import str_or_none
from torch.optim.lr_scheduler import LambdaLR

from espnet_taste.tasks.building import ModelBuilder, check_options
from espnet_taste.tasks.checkpointing import atomic_torch_save, repair_after_kill


class WarmupCosineLR(LambdaLR, AbsBatchStepScheduler):
    """Linear warm-up, then half a cosine down to a floor, stepped per batch.

    Args:
        optimizer: Optimizer; every group keeps its own peak rate.
        total_steps: Step at which the floor is reached.
        warmup_steps: Steps of linear growth (reference: 100).
        floor: Final rate as a share of the peak (reference: 0).
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        total_steps: int,
        warmup_steps: int = 100,
        floor: float = 0.0,
    ):
        def share(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / warmup_steps
            span = max(total_steps - warmup_steps, 1)
            progress = min((step - warmup_steps) / span, 1.0)
            return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

        super().__init__(optimizer, share)


scheduler_classes.setdefault("warmupcosine", WarmupCosineLR)


class TasteTask(ModelBuilder, AbsTask):
    """Base of our tasks; ESPnet's stock trainer does the training."""

    num_optimizers = 1

    @classmethod
    def optional_data_names(
        cls, train: bool = True, inference: bool = False
    ) -> tuple[str, ...]:
        """Return the names of the data that may be given."""
        return ()

    @classmethod
    def add_shared_arguments(cls, group: argparse._ArgumentGroup) -> None:
        """Add the options that every TASTE task has."""
        group.add_argument(
            "--init_from",
            type=str_or_none,
            default=None,
            help="Checkpoint of the stage before. Loaded strictly: only the parts "
            "that this stage has for the first time may be missing in it",
        )
        group.add_argument(
            "--lr_scale",
            action=NestedDictAction,
            default={},
            help="Module path to a factor on the learning rate, e.g. aggregator=0.3",
        )
        group.add_argument(
            "--model_conf",
            action=NestedDictAction,
            default={"extract_feats_in_collect_stats": False},
            help="The keyword arguments for the model",
        )
        group.add_argument(
            "--frozen_weights",
            action=NestedDictAction,
            default={},
            help="Name to sha256 of the frozen weights; written by training, checked "
            "when a model is loaded",
        )

    @classmethod
    def build_optimizers(
        cls, args: argparse.Namespace, model: torch.nn.Module
    ) -> list[torch.optim.Optimizer]:
        """Give the optimizer only what is trained, grouped by learning rate.

        ESPnet would hand it all parameters, the frozen LLM's included.

        Raises:
            ValueError: If an option of optimizer or scheduler is unknown, a name of
                ``freeze_param`` matches no parameter or one of ``lr_scale`` none that
                is trained, nothing is trained, or parameters are to be grouped in
                another way.
        """
        for name in ("exclude_weight_decay", "sharded_ddp"):
            if getattr(args, name, False):
                raise ValueError(
                    f"--{name} would do nothing: the groups of the optimizer are "
                    "those of lr_scale; leave it out"
                )
        optim_class = optim_classes[args.optim]
        check_options("optim_conf", args.optim_conf, optim_class, given=("params",))
        if args.scheduler is not None:
            scheduler = scheduler_classes[args.scheduler]
            conf = args.scheduler_conf
            check_options("scheduler_conf", conf, scheduler, given=("optimizer",))
        _check_freeze_param(args.freeze_param, model)
        groups: dict[str, list[torch.nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parts = [p for p in args.lr_scale if name.startswith(p + ".")]
                groups.setdefault(max(parts, key=len, default=""), []).append(parameter)
        idle = sorted(set(args.lr_scale) - set(groups))
        if idle:
            raise ValueError(f"lr_scale: no trained parameter is under {idle}")
        if not groups:
            raise ValueError("no parameter is trained; look at freeze_param")
        param_groups = [{"params": params} for params in groups.values()]
        optimizer = optim_class(param_groups, **args.optim_conf)
        # Afterwards: without lr in optim_conf, only the optimizer knows its own.
        for group, part in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] *= float(args.lr_scale.get(part, 1.0))
        return [optimizer]

    @classmethod
    def main_worker(cls, args: argparse.Namespace) -> None:
        """Train, with saves that survive a kill at any moment.

        Raises:
            ValueError: If one process is to train on several GPUs.
        """
        if args.ngpu > 1:
            # DataParallel: codebooks and step counts would move in copies of the model.
            raise ValueError(
                f"--ngpu {args.ngpu} needs a process for every GPU; give "
                "--multiprocessing_distributed true"
            )
        with one_line_of_a_rank():
            if args.resume and _is_first_rank(args):
                repair_after_kill(args.output_dir, args.best_model_criterion)
            with atomic_torch_save():
                super().main_worker(args)


@contextmanager
def one_line_of_a_rank() -> Iterator[None]:
    """Let a process that ESPnet starts for a GPU end as the program does.

    Nobody waits for its error but the interpreter, which would print a traceback.

    Raises:
        SystemExit: In such a process, instead of what a user can cause.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        if parent_process() is None:
            raise
        sys.exit(f"{Path(sys.argv[0]).stem}: error: {error}")


def _check_freeze_param(names: Sequence[str], model: torch.nn.Module) -> None:
    """Refuse names that ESPnet passes over: what they mean would be trained."""
    known = [name for name, _ in model.named_parameters()]
    idle = [
        name
        for name in names
        if not any(k == name or k.startswith(name + ".") for k in known)
    ]
    if idle:
        raise ValueError(f"freeze_param: no parameter is under {idle}")


def _is_first_rank(args: argparse.Namespace) -> bool:
    """Tell whether this process writes the files of a training."""
    if not args.distributed:
        return True
    return get_rank(args.dist_rank, args.dist_launcher) == 0
