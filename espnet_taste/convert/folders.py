"""Folders that are complete or absent, and the sha256 of their files."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from espnet_taste.convert.errors import WrongDigest
from espnet_taste.weights.cache import let_read
from espnet_taste.weights.digests import sha256_of

OFFICIAL = "official"  # folder of our layout that keeps the released configs
CONFIG = "config.json"
CONFIGS = (CONFIG, "generation_config.json")
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a folder to fill, which gets its name when the block has ended well.

    Args:
        target: Folder to make.

    Yields:
        An empty folder beside it; after an error it is removed. Whoever may read the
        folder may read its files in the end.

    Raises:
        FileExistsError: If the target exists and is not empty.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(
            f"{target} exists; name another target, or remove it first"
        )
    work = target.with_name(target.name + ".part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work
        let_read(work)
        os.replace(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def digests_of(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file of weights, by its path in the folder."""
    kinds = ("*.safetensors", "*.pth", "*.onnx")
    files = sorted(path for kind in kinds for path in folder.rglob(kind))
    return {str(path.relative_to(folder)): sha256_of(path) for path in files}


def check_digests(folder: Path, digests: Mapping[str, str]) -> None:
    """Compare files with their sha256.

    Args:
        folder: Where the files are.
        digests: Path in the folder to hex digits.

    Raises:
        FileNotFoundError: If a file is absent.
        WrongDigest: If one has another sha256.
    """
    for name, digest in digests.items():
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"{path} is absent, but its sha256 is given")
        found = sha256_of(path)
        if found != digest.lower():
            raise WrongDigest(
                f"{path} has sha256 {found}, expected {digest}; fetch or convert it "
                "again"
            )


def copy_file(source: Path, target: Path) -> None:
    """Copy a file into a folder that is made, if there is such a file."""
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy a tokenizer's files, if there is such a folder.

    A whole model may lie beside them: its weights, and what the target has already,
    such as the model's config, are left alone.
    """
    if not source.is_dir():
        return
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        is_weights = path.suffix in WEIGHT_SUFFIXES or path.name.endswith(".index.json")
        if path.is_file() and not is_weights and not (target / path.name).exists():
            shutil.copyfile(path, target / path.name)
