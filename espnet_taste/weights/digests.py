"""Which weights are these: sha256 of files, model files of a folder, fingerprints.

Hashing several gigabytes in every process of a recipe would be slow, so a digest
is noted in the cache together with the size and modification time of the file it
was computed from, and computed anew when either has changed.
"""

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from pathlib import Path

from espnet_taste.weights.cache import cache_root, name_of

_BLOCK = 1 << 22  # bytes
_SINGLE_FILES = ("model.safetensors", "model.bin", "pytorch_model.bin")
TRAINED_PARTS = ("taste", "vocoder", "slm")  # of an experiment of the recipe
TRAINED_FILE = "valid.loss.best.pth"
CHOICE_FILE = "inference_model"  # beside a training: the name of another checkpoint
_INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def sha256_of(path: Path) -> str:
    """Compute the sha256 of a file, as hex digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def noted_sha256(path: Path, *, cache_dir: Path | None = None) -> str:
    """Return the sha256 of a file, computed once for each state of the file.

    Args:
        path: The file.
        cache_dir: Cache folder that keeps the notes; the default cache if None.

    Returns:
        Hex digest.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    real = Path(path).resolve()
    status = real.stat()
    key = hashlib.sha256(str(real).encode()).hexdigest()[:32]
    note = cache_root(cache_dir) / "digests" / f"{key}.json"
    state = {"path": str(real), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):  # absent, or another user's
        known = {}
    digest = known.pop("sha256", None)
    if known == state and isinstance(digest, str):
        return digest
    digest = sha256_of(real)
    _write_note(note, {**state, "sha256": digest})
    return digest


def _write_note(note: Path, values: dict[str, str | int]) -> None:
    """Keep a digest for all users of the cache.

    Where that fails, it is computed each time: a shared cache is often read-only.
    """
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=note.parent, suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(values, file)
            # A temporary file is its writer's alone.
            os.chmod(unfinished, stat.S_IMODE(note.parent.stat().st_mode) & 0o666)
            os.replace(unfinished, note)
        except OSError:
            os.unlink(unfinished)


def model_files(folder: Path) -> list[Path]:
    """List the files of a folder that hold the weights, safetensors before pickles.

    Args:
        folder: A folder in Hugging Face or CTranslate2 layout.

    Returns:
        One file, or all shards in order of name.

    Raises:
        FileNotFoundError: If there is none, or a shard named by the index is absent.
    """
    folder = Path(folder)
    for single, index in zip(_SINGLE_FILES, (_INDEX_FILES[0], None, _INDEX_FILES[1])):
        if (folder / single).is_file():
            return [folder / single]
        if index is not None and (folder / index).is_file():
            return _shards(folder, index)
    raise FileNotFoundError(
        f"{folder}: no weights; expected one of {', '.join(_SINGLE_FILES)}"
    )


def _shards(folder: Path, index: str) -> list[Path]:
    values = json.loads((folder / index).read_text(encoding="utf-8"))
    names = sorted(set(values["weight_map"].values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder}: {len(missing)} of {len(names)} shards in {index} are absent, "
            f"e.g. {missing[0]}"
        )
    return [folder / name for name in names]


def fingerprint(path: str | Path, *, cache_dir: Path | None = None) -> str:
    """Return one sha256 that identifies the weights of a folder.

    It is the sha256 of the model file itself. Sharded weights give the sha256 of
    the text that ``sha256sum`` prints for the shards in order of name.

    Args:
        path: Folder that ``resolve`` returned, or one file.
        cache_dir: Cache folder that keeps computed digests; default cache if None.

    Returns:
        Hex digest.

    Raises:
        FileNotFoundError: If the folder holds no weights.
    """
    path = Path(path)
    files = [path] if path.is_file() else model_files(path)
    digests = [noted_sha256(file, cache_dir=cache_dir) for file in files]
    if len(digests) == 1:
        return digests[0]
    lines = (f"{digest}  {file.name}\n" for digest, file in zip(digests, files))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def portable_name(name: str) -> str:
    """Name weights so that it means the same on every machine.

    Args:
        name: Name or path of weights.

    Returns:
        The sha256 of what lies at a path; a name as it is.

    Raises:
        FileNotFoundError: If there is a folder without weights.
    """
    path = Path(name)
    return fingerprint(path) if path.exists() else str(name)


def describe(path: str | Path, *, cache_dir: Path | None = None) -> dict[str, str]:
    """Say which weights a folder holds, for the config of a trained model.

    Args:
        path: Folder that ``resolve`` returned.
        cache_dir: Cache folder that keeps computed digests; default cache if None.

    Returns:
        ``{"name": ..., "sha256": ...}``; the name is the folder's path if the
        weights do not come from our cache or the Hugging Face cache.

    Raises:
        FileNotFoundError: If the folder holds no weights.
    """
    path = Path(path)
    return {"name": name_of(path), "sha256": fingerprint(path, cache_dir=cache_dir)}


def identify_model(source: str | Path, *, cache_dir: Path | None = None) -> str:
    """Name a model by its path and what is there now.

    Resumable commands note it: a folder that was begun with one training must not be
    finished, or taken for finished, with another at the same place.

    Args:
        source: Experiment folder, converted checkpoint, one file, or a tag.
        cache_dir: Cache folder that keeps computed digests; default cache if None.

    Returns:
        The path and 16 hex digits; a tag as it is.
    """
    path = Path(source)
    files = [path] if path.is_file() else _trained_files(path)
    if not files:
        return str(source)
    digests = [noted_sha256(file, cache_dir=cache_dir) for file in files]
    return f"{source} {hashlib.sha256(''.join(digests).encode()).hexdigest()[:16]}"


def trained_file(folder: Path) -> Path:
    """Return the checkpoint of a training that is used; it need not exist.

    Args:
        folder: Output folder of the training. The recipe notes in it, under
            ``inference_model``, which checkpoint its stages used; without such a note
            it is the one of the least validation loss.
    """
    note = Path(folder) / CHOICE_FILE
    name = note.read_text(encoding="utf-8").strip() if note.is_file() else ""
    return Path(folder) / (name or TRAINED_FILE)


def _trained_files(folder: Path) -> list[Path]:
    """Return the parts of an experiment that are used, else all weights there."""
    parts = (trained_file(folder / part) for part in TRAINED_PARTS)
    used = [path for path in parts if path.is_file()]
    every = (folder.rglob(f"*{suffix}") for suffix in (".safetensors", ".bin", ".pth"))
    return used or sorted(path for paths in every for path in paths)
