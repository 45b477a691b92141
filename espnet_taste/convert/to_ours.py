"""Released layout to ours; see ``checkpoint.py``."""

import shutil
from collections.abc import Container, Iterable
from pathlib import Path

from espnet_taste.convert.architecture import (
    Architecture,
    Backbone,
    read_mapping,
    read_official,
)
from espnet_taste.convert.folders import (
    CONFIG,
    CONFIGS,
    OFFICIAL,
    copy_file,
    copy_tokenizer,
)
from espnet_taste.convert.names import (
    LLM,
    SLM,
    SPEAKER,
    TASTE,
    WHISPER,
    WHY_UNUSED,
    Place,
    unused_shapes,
)
from espnet_taste.convert.plan import (
    Plan,
    Target,
    check_tensors,
    copy_tensors,
    make_plan,
)
from espnet_taste.convert.report import Report
from espnet_taste.convert.tensors import SINGLE, Shape, list_folder

LLM_TOKENIZER = "llama_tokenizer"  # folder of the released layout
SPEAKER_FILE = Path("cosyvoice") / "speaker_embed.onnx"  # likewise, CAM++


def convert_checkpoint(
    source: Path, folder: Path, home: Path, backbone: Backbone, report: Report
) -> None:
    """Convert all but the voice generator.

    Args:
        source: Folder in the released layout.
        folder: Empty folder to fill.
        home: Where it will lie.
        backbone: What the released config does not say.
        report: Is filled.

    Raises:
        FileNotFoundError: If files are absent.
        CheckpointError: If something is wrong with the checkpoint.
    """
    architecture = read_official(read_mapping(source / CONFIG), backbone)
    plan, unused = make_plan(architecture), unused_of(architecture)
    stored = list_folder(source)
    expected = {pair.released: pair.released_shape for pair in plan.pairs}
    check_tensors(source, stored, expected, unused)

    for part in (WHISPER, TASTE, LLM, SLM, OFFICIAL):
        (folder / part).mkdir()
    targets = {
        pair.released: [_target(folder, place, pair.shape) for place in pair.places]
        for pair in plan.pairs
    }
    copy_tensors(stored, targets, _fresh(folder, plan))
    architecture.write(folder, home)
    for name in CONFIGS:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / OFFICIAL / name)
    copy_tokenizer(source / LLM_TOKENIZER, folder / LLM)
    copy_file(source / SPEAKER_FILE, folder / SPEAKER / SPEAKER_FILE.name)
    _fill_report(report, plan, unused, stored)


def unused_of(architecture: Architecture) -> dict[str, Shape]:
    """Return what the released quantizer has and never uses, by name."""
    sizes = architecture.tokenizer["quantizer_conf"]
    return unused_shapes(sizes["num_codebooks"], sizes["codebook_dim"])


def _target(folder: Path, place: Place, shape: Shape) -> Target:
    return Target(folder / place.part / SINGLE, place.name, shape)


def _fresh(folder: Path, plan: Plan) -> dict[Target, str]:
    return {
        _target(folder, place, shape): "I64" if place.is_counter else "F32"
        for place, shape in plan.ours_alone.items()
    }


def _fill_report(
    report: Report, plan: Plan, unused: Iterable[str], stored: Container[str]
) -> None:
    for pair in plan.pairs:
        report.consumed[pair.released] = ", ".join(map(str, pair.places))
    for name in unused:
        seen = report.dropped if name in stored else report.missing
        seen[name] = WHY_UNUSED
    reason = "only we have it; it starts at zero"
    report.added = {str(place): reason for place in plan.ours_alone}
