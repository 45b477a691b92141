"""Our layout to the released one; see ``checkpoint.py``."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from espnet_taste.convert.architecture import Architecture
from espnet_taste.convert.errors import CopiesDiffer
from espnet_taste.convert.folders import (
    CONFIGS,
    OFFICIAL,
    check_digests,
    copy_file,
)
from espnet_taste.convert.names import (
    LLM,
    OURS_ALONE,
    SLM,
    SPEAKER,
    TASTE,
    WHISPER,
    WHY_UNUSED,
    Place,
)
from espnet_taste.convert.plan import (
    Pair,
    Plan,
    Target,
    check_tensors,
    copy_tensors,
    make_plan,
)
from espnet_taste.convert.report import Report
from espnet_taste.convert.tensors import (
    INDEX,
    SINGLE,
    Stored,
    list_folder,
    num_bytes,
    read_tensors,
)
from espnet_taste.convert.to_ours import LLM_TOKENIZER, SPEAKER_FILE, unused_of

WHY_COPY = "a copy of the tokenizer's quantizer"
# Of the LLM's folder, what belongs to its tokenizer.
TOKENIZER_FILES = "*token*.json"


def convert_checkpoint(
    source: Path, folder: Path, max_shard_bytes: int, report: Report
) -> None:
    """Convert all but the voice generator.

    Args:
        source: Folder in our layout.
        folder: Empty folder to fill.
        max_shard_bytes: Size above which a file is divided; a larger tensor has a
            file of its own.
        report: Is filled.

    Raises:
        FileNotFoundError: If files are absent.
        CheckpointError: If something is wrong with the checkpoint.
    """
    check_digests(source, Report.read(source).sha256)
    architecture = Architecture.read(source)
    plan = make_plan(architecture)
    stored = {
        Place(part, name): entry
        for part in (WHISPER, TASTE, LLM, SLM)
        for name, entry in list_folder(source / part).items()
    }
    by_label = {str(place): entry for place, entry in stored.items()}
    expected = {str(place): shape for place, shape in plan.places.items()}
    check_tensors(source, by_label, expected, {})
    _refuse_differing_copies(plan, stored)

    shards = list(_divide(plan.pairs, stored, max_shard_bytes))
    _write_shards(folder, shards, stored)
    for name in CONFIGS:
        if (source / OFFICIAL / name).is_file():
            shutil.copyfile(source / OFFICIAL / name, folder / name)
    _copy_tokenizer(source / LLM, folder / LLM_TOKENIZER)
    copy_file(source / SPEAKER / SPEAKER_FILE.name, folder / SPEAKER_FILE)
    _fill_report(report, plan)
    report.missing = dict.fromkeys(unused_of(architecture), WHY_UNUSED)


def _refuse_differing_copies(plan: Plan, stored: Mapping[Place, Stored]) -> None:
    for pair in plan.pairs:
        if len(pair.places) == 1:
            continue
        both = {place: stored[place] for place in pair.places}
        (_, first), *copies = read_tensors(both)
        for place, copy in copies:
            if first.dtype != copy.dtype or not torch.equal(first, copy):
                raise CopiesDiffer(
                    f"{place} differs from {pair.places[0]}: this spoken LM was "
                    "trained on another tokenizer; convert a pair that belongs together"
                )


def _divide(
    pairs: Sequence[Pair], stored: Mapping[Place, Stored], max_bytes: int
) -> Iterator[list[Pair]]:
    """Divide tensors into files, in order."""
    shard: list[Pair] = []
    size = 0
    for pair in pairs:
        own = num_bytes(stored[pair.places[0]].dtype, pair.shape)
        if shard and size + own > max_bytes:
            yield shard
            shard, size = [], 0
        shard.append(pair)
        size += own
    yield shard


def _write_shards(
    folder: Path, shards: list[list[Pair]], stored: Mapping[Place, Stored]
) -> None:
    files = [SINGLE]
    if len(shards) > 1:
        count = len(shards)
        files = [
            f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)
        ]
    shard_of: dict[str, str] = {}
    # One shard after the other, so that no more than one is held open.
    for file, shard in zip(files, shards, strict=True):
        entries = {pair.released: stored[pair.places[0]] for pair in shard}
        targets = {
            pair.released: [Target(folder / file, pair.released, pair.released_shape)]
            for pair in shard
        }
        copy_tensors(entries, targets, {})
        shard_of |= dict.fromkeys(entries, file)
    if len(shards) > 1:
        sizes = (
            num_bytes(stored[pair.places[0]].dtype, pair.shape)
            for shard in shards
            for pair in shard
        )
        index = {"metadata": {"total_size": sum(sizes)}, "weight_map": shard_of}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / INDEX).write_text(text, encoding="utf-8")


def _copy_tokenizer(source: Path, target: Path) -> None:
    files = sorted(source.glob(TOKENIZER_FILES))
    if files:
        target.mkdir()
    for path in files:
        shutil.copyfile(path, target / path.name)


def _fill_report(report: Report, plan: Plan) -> None:
    for pair in plan.pairs:
        first, *copies = map(str, pair.places)
        report.consumed[first] = pair.released
        report.dropped |= dict.fromkeys(copies, WHY_COPY)
    for place in plan.ours_alone:
        reason = OURS_ALONE.get((place.part, place.name), WHY_COPY)
        report.dropped[str(place)] = reason
