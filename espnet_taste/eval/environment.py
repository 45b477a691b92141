"""Where and from what a result came: commit, configs, machine, versions."""

import datetime
import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# Versions that can move a number.
PACKAGES = (
    "espnet",
    "torch",
    "transformers",
    "peft",
    "faster-whisper",
    "ctranslate2",
    "jiwer",
    "numpy",
)


# What every score is noted with: the page may be written later, elsewhere.
MADE_BY = ("date", "commit", "hardware")


def describe_environment() -> dict[str, str]:
    """Return commit of this package, date, hardware and versions as printable text."""
    return {
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        # Not of the working folder, which may be in a checkout of ESPnet.
        "commit": describe_commit(Path(__file__).resolve().parent),
        "hardware": describe_hardware(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def describe_makers(notes: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return when, from what and where scores were made, each once.

    Args:
        notes: ``MADE_BY`` of every score; older ones have none.
    """
    notes = list(notes)
    found = {}
    for name in MADE_BY:
        values = sorted({note[name] for note in notes if name in note})
        if name == "date" and len(values) > 1:
            values = [f"{values[0]} to {values[-1]}"]
        if values:
            found[f"{name} of the scores"] = "; ".join(values)
    return found


def describe_commit(folder: Path) -> str:
    """Return the commit of a checkout, marked if tracked files differ from it.

    A folder without tracked files is none, as of packages that are installed in another
    project's checkout.
    """
    tracked = _output("git", "-C", str(folder), "ls-files")
    commit = _output("git", "-C", str(folder), "rev-parse", "HEAD")
    if not tracked or not commit:
        return "not a git checkout"
    changed = _output(
        "git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no"
    )
    return f"{commit} with uncommitted changes" if changed else commit


def describe_hardware() -> str:
    """Return processor, cores, memory and GPUs in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    parts = [_processor(), f"{cores or os.cpu_count()} cores"]
    names = os.sysconf_names if hasattr(os, "sysconf_names") else {}
    if "SC_PHYS_PAGES" in names:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        parts.append(f"{size / 2**30:.0f} GiB memory")
    gpus = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    parts.append(", ".join(gpus.splitlines()) if gpus else "no GPU")
    return ", ".join(parts)


def hash_files(paths: Iterable[Path]) -> dict[str, str]:
    """Return the first 12 hex digits of every file's sha256, by file name.

    Raises:
        FileNotFoundError: If one is absent.
    """
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()[:12] for path in paths
    }


def read_train_config(path: Path) -> dict[str, Any]:
    """Read the resolved configuration that a training run left.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is not a YAML mapping.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping of options")
    return content


def _processor() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    """Return an installed version, or say that there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _output(*command: str) -> str:
    """Return what a command prints, or nothing if it is absent or fails."""
    if shutil.which(command[0]) is None:
        return ""
    result = subprocess.run(command, capture_output=True, text=True)
    return result.stdout.strip() if result.returncode == 0 else ""
