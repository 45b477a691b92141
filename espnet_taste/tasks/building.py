"""How models are built from the arguments of their training, by tasks and at inference.

Apart from the tasks: ESPnet's own base of tasks imports half of ESPnet, some ten
seconds of a slow processor, which what only uses a model need not wait for.
"""

import argparse
import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from espnet_taste.data.settings import read_settings
from espnet_taste.tasks.checkpointing import TasteESPnetModel, load_weights

logger = logging.getLogger(__name__)


class ModelBuilder(ABC):
    """Builds the models of one task."""

    class_choices_list: list = []
    only_to_begin: tuple[str, ...] = ()  # files that a training starts with

    @classmethod
    @abstractmethod
    def build_model(cls, args: argparse.Namespace) -> TasteESPnetModel:
        """Build the model that training arguments describe."""

    @classmethod
    def start_from(
        cls, model: TasteESPnetModel, path: str | None, new_parts: tuple[str, ...]
    ) -> None:
        """Load the stage before, if there is one, and restart the step count."""
        if path is None:
            return
        load_weights(model, path, allow_new=new_parts)
        if hasattr(model, "num_steps"):
            model.num_steps.zero_()

    @classmethod
    def build_model_from_file(
        cls,
        config_file: Path | str | None = None,
        model_file: Path | str | None = None,
        device: str = "cpu",
    ) -> tuple[TasteESPnetModel, argparse.Namespace]:
        """Build a trained model for inference, in evaluation mode.

        Unlike ESPnet's own, it refuses a checkpoint that leaves a part random.

        Args:
            config_file: ``config.yaml`` of the training; None for the one beside
                the model file.
            model_file: Checkpoint; None for freshly initialised weights.
            device: Torch device.

        Returns:
            The model and its training arguments.

        Raises:
            FileNotFoundError: If a file is absent.
            ValueError: If config or checkpoint do not fit this version.
        """
        if config_file is None:
            if model_file is None:
                raise ValueError("give config_file, model_file or both")
            config_file = Path(model_file).parent / "config.yaml"
        args = read_config(config_file)
        args.init_from = None  # the checkpoint holds the result of the training
        if model_file is not None:
            # Paths of the training's machine and folder; the checkpoint has it all.
            for name in cls.only_to_begin:
                setattr(args, name, None)
        model = cls.build_model(args)
        if model_file is not None:
            load_weights(model, model_file)
        return model.to(device).eval(), args


def read_config(path: Path | str) -> argparse.Namespace:
    """Read a ``config.yaml`` that training wrote.

    Raises:
        FileNotFoundError: If it is absent.
        ValueError: If it is not YAML, not a mapping, or empty.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no training config at {path}; was the model trained?")
    values = read_settings(path)
    if not values:
        raise ValueError(f"{path} is not a training config: it is empty")
    return argparse.Namespace(**values)


def check_options(
    where: str, conf: Any, *targets: Callable, given: Collection[str] = ()
) -> None:
    """Refuse options that nothing takes, and the lack of one that is needed.

    Args:
        where: Name of the options in the YAML file, for messages.
        conf: The options.
        *targets: The class or function that takes them; several, if the first one
            passes the rest on.
        given: Parameters that are filled in by the program and are no options.

    Raises:
        ValueError: With all names that are unknown or missing.
    """
    if not isinstance(conf, Mapping):
        raise ValueError(f"{where}: expected names and values, got {conf!r}")
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    known = {
        name: parameter
        for target in targets
        for name, parameter in inspect.signature(target).parameters.items()
        if name not in given and parameter.kind not in several
    }
    unknown = sorted(map(str, set(conf) - set(known)))
    if unknown:
        raise ValueError(f"{where}: unknown option {unknown}; known: {sorted(known)}")
    needed = [name for name, p in known.items() if p.default is p.empty]
    if missing := [name for name in needed if name not in conf]:
        raise ValueError(f"{where}: no value for {missing}")


def check_speaker_dim(where: str, spembs: Tensor, wanted: int | None) -> None:
    """Refuse speaker embeddings of another encoder than the YAML file was written for.

    Args:
        where: Name of the options that have ``speaker_dim``.
        spembs: Of a batch, (U, width), float.
        wanted: ``speaker_dim``; None if any width will do.

    Raises:
        ValueError: If the widths differ.
    """
    width = spembs.size(-1)
    if wanted is not None and width != wanted:
        raise ValueError(
            f"{where}: speaker_dim is {wanted}, speaker embeddings are {width} wide; "
            f"set speaker_dim: {width} in the YAML files of units, vocoder, tokenizer"
        )


def record_frozen_weights(args: Any, names: list[str]) -> None:
    """Note the sha256 of frozen weights, or check it against the noted one.

    Args:
        args: Training arguments with ``frozen_weights``; new entries are added.
        names: Weight names, as the resolver knows them.

    Raises:
        ValueError: If the weights found today are not those of the training.
    """
    from espnet_taste.weights import fingerprint, other_source, resolve

    for name in names:
        folder = resolve(name)
        found = fingerprint(folder)
        noted = args.frozen_weights.setdefault(name, found)
        if noted != found:
            raise ValueError(
                f"the weights '{name}' found here have sha256 {found[:12]}..., this "
                f"model was trained on {noted[:12]}...; {other_source(name, folder)}"
            )
        logger.info(f"frozen weights {name}: sha256 {found}")
