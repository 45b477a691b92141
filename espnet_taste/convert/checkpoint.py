"""Convert a checkpoint: released layout to ours, and back.

Our layout is a folder with one folder a part. ``whisper`` and ``llm`` are what
transformers reads (the frozen encoder, the LLM without adapters), ``taste`` and ``slm``
what the tasks train, under their names and with their options as ``config.yaml``,
``vocoder`` is flow and HiFT, ``speaker`` the speaker encoder's ONNX file, if it lies in
the source. ``official`` keeps the released configs for the way back.
The tasks find Whisper and LLM by the absolute paths in ``config.yaml``, to be edited
where a folder is moved; ``load_released`` does not need them.

Tensors pass one by one and keep their dtype and bits. A folder appears under its name
only when it is complete, with a report of every tensor in ``conversion.json``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from espnet_taste.convert import to_official, to_ours
from espnet_taste.convert.architecture import Backbone
from espnet_taste.convert.folders import check_digests, digests_of, new_folder
from espnet_taste.convert.names import VOCODER, Place
from espnet_taste.convert.report import Report
from espnet_taste.convert.tensors import SINGLE, Shape
from espnet_taste.convert.voice_generator import (
    RELEASED_FILE,
    read_voice_generator,
    write_voice_generator,
)

Layout = Literal["espnet_taste", "official"]


@dataclass(frozen=True)
class Options:
    """What a conversion may be told."""

    backbone: Backbone = field(default_factory=Backbone)  # to our layout only
    # Files of flow and HiFT; none for those in the source, if there are.
    voice_generator: Sequence[Path] = ()
    # Their names and shapes; None for those of CosyVoice-300M.
    voice_shapes: Mapping[str, Shape] | None = None
    digests: Mapping[str, str] = field(default_factory=dict)  # file to its sha256
    max_shard_bytes: int = 5 * 10**9  # to the released layout only


def convert(
    source: Path | None, target: Path, *, to: Layout, options: Options = Options()
) -> Report:
    """Convert a checkpoint.

    Args:
        source: Folder in the other layout; None converts the voice generator alone.
        target: Folder to make.
        to: Layout to write.
        options: Details.

    Returns:
        What became of every tensor; it also lies in the target.

    Raises:
        FileNotFoundError: If files are absent.
        FileExistsError: If the target exists.
        CheckpointError: If something is wrong with the checkpoint; the subclass tells
            what. No target is left behind then.
        ValueError: If there is nothing to convert, or the layout is unknown.
    """
    _check_arguments(source, to, options)
    report = Report(to)
    if source is not None:
        check_digests(source, options.digests)
    with new_folder(target) as folder:
        if source is not None and to == "espnet_taste":
            backbone = options.backbone
            to_ours.convert_checkpoint(source, folder, target, backbone, report)
        elif source is not None:
            limit = options.max_shard_bytes
            to_official.convert_checkpoint(source, folder, limit, report)
        _convert_voice_generator(source, folder, to, options, report)
        report.sha256 = digests_of(folder)
        report.write(folder)
    return report


def _convert_voice_generator(
    source: Path | None, folder: Path, to: Layout, options: Options, report: Report
) -> None:
    """Convert flow and HiFT, if they are given or lie in the source."""
    old, new = RELEASED_FILE, Path(VOCODER) / SINGLE
    if to == "official":
        old, new = new, old
    files = options.voice_generator
    if not files and source is not None and (source / old).is_file():
        files = [source / old]
    if not files:
        return
    state = read_voice_generator(files, options.voice_shapes)
    write_voice_generator(state, folder / new)
    for name in state:
        ours = str(Place(VOCODER, name))
        pair = (name, ours) if to == "espnet_taste" else (ours, name)
        report.consumed |= [pair]


def _check_arguments(source: Path | None, to: str, options: Options) -> None:
    if to not in ("espnet_taste", "official"):
        raise ValueError(f"to must be 'espnet_taste' or 'official', got {to!r}")
    if source is None and not options.voice_generator:
        raise ValueError("nothing to convert: give a source, or a voice generator")
    if source is None and options.digests:
        raise ValueError("sha256 are those of files in the source, but there is none")
