"""Weights from the Hugging Face cache and hub.

The hub is asked once with a short limit; if it does not answer, the process does
not ask again. Only the files of one format are fetched, safetensors if there are
any.
"""

import logging
import re
import threading
from dataclasses import dataclass
from pathlib import Path

from espnet_taste.weights.digests import model_files, noted_sha256

# Slow networks answer a one-line question in about a second.
LIMIT_S = 5.0
_TEXT_FILES = (".json", ".txt", ".model", ".jinja", ".tiktoken")
_TOKENIZERS = ("tokenizer.json", "vocab.json", "tokenizer.model", "vocab.txt")
# In order of preference: one file, else its shards.
_WEIGHT_FORMATS = (
    ("model.safetensors", r"model-\d+-of-\d+\.safetensors"),
    ("pytorch_model.bin", r"pytorch_model-\d+-of-\d+\.bin"),
    ("model.bin", r"(?!)"),
)
# The cache names large files by their sha256, which the hub publishes.
_LARGE_FILE = re.compile(r"[0-9a-f]{64}")

logger = logging.getLogger(__name__)
_unreachable: dict[str, str] = {}  # endpoint -> why


class HubMiss(Exception):
    """The cache or hub does not have the weights; the message says why."""


def cached_snapshot(name: str) -> Path:
    """Return the current snapshot in the Hugging Face cache.

    Raises:
        HubMiss: If there is none, or it lacks configuration, weights or tokenizer.
        ValueError: If a file is not the one its name in the cache says.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        # One pattern, because a cache that holds one weight format is complete.
        folder = snapshot_download(
            name, local_files_only=True, allow_patterns=["config.json"]
        )
    except LocalEntryNotFoundError as error:
        raise HubMiss(f"nothing in {constants.HF_HUB_CACHE}") from error
    return _checked(Path(folder))


def _checked(folder: Path) -> Path:
    try:
        files = model_files(folder)
    except FileNotFoundError as error:
        raise HubMiss(str(error)) from error
    names = {path.name for path in folder.iterdir()}
    if "config.json" not in names or not names & set(_TOKENIZERS):
        raise HubMiss(f"{folder}: incomplete, no config.json or no tokenizer")
    for file in files:
        _check_blob(file)
    return folder


def _check_blob(file: Path) -> None:
    blob = file.resolve()
    expected = blob.name
    if _LARGE_FILE.fullmatch(expected) is None:
        return  # a small file, or a cache without links: no digest to compare with
    if (found := noted_sha256(blob)) != expected:
        raise ValueError(
            f"{file}: damaged: sha256 {expected} expected, {found} found; "
            f"delete {blob} and fetch again"
        )


def download_snapshot(name: str) -> Path:
    """Download the files of a model into the Hugging Face cache.

    Raises:
        HubMiss: If the hub does not answer in time, or has no such model for us.
        ValueError: If a downloaded file is damaged.
    """
    from huggingface_hub import snapshot_download

    wanted = choose_files(_files_of(name))
    logger.info("downloading %s from the hub: %s", name, ", ".join(wanted))
    try:
        folder = snapshot_download(name, allow_patterns=wanted)
    except _network_errors() as error:
        raise HubMiss(f"download broke off: {first_line(error)}") from error
    return _checked(Path(folder))


def download_file(name: str, file: str) -> Path:
    """Return one small file of a model: of the cache, else downloaded into it.

    Raises:
        HubMiss: If the hub does not answer in time, or has no such file for us.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, file)
        if isinstance(cached, str):
            return Path(cached)
        if file not in _files_of(name):
            raise HubMiss(f"{name} has no {file}")
        return Path(hf_hub_download(name, file))
    except HFValidationError as error:
        raise HubMiss(first_line(error)) from error
    except _network_errors() as error:
        raise HubMiss(f"download broke off: {first_line(error)}") from error


def _files_of(name: str) -> list[str]:
    """Return the files of a model on the hub, which is not asked again in vain."""
    from huggingface_hub import constants

    endpoint = constants.ENDPOINT
    if endpoint in _unreachable:
        raise HubMiss(_unreachable[endpoint])
    answer = _ask(name)
    if isinstance(answer, _NoAnswer):
        _unreachable[endpoint] = f"{endpoint} cannot be reached ({answer.reason})"
        raise HubMiss(_unreachable[endpoint])
    if isinstance(answer, HubMiss):
        raise answer
    return answer


def choose_files(names: list[str]) -> list[str]:
    """Choose what to fetch of a repository: small text files and one weight format.

    Args:
        names: All files of the repository.

    Returns:
        The chosen ones. Sub-folders hold other formats and are left out; so is a
        second copy of the weights in other precision.
    """
    top = [name for name in names if "/" not in name]
    chosen = {name for name in top if name.endswith(_TEXT_FILES)}
    for whole, shard in _WEIGHT_FORMATS:
        found = {name for name in top if name == whole}
        found = found or {name for name in top if re.fullmatch(shard, name)}
        if found:
            return sorted(chosen | found)
    return sorted(chosen)


@dataclass(frozen=True)
class _NoAnswer:
    reason: str


def _ask(name: str) -> list[str] | HubMiss | _NoAnswer:
    """Ask the hub which files a model has, within the limit.

    A thread, because the look-up of a host name knows no limit; a daemon, because
    a look-up that hangs must not keep the process alive either.
    """
    answers: list[list[str] | HubMiss | _NoAnswer] = []
    thread = threading.Thread(
        target=lambda: answers.append(_list_files(name)), daemon=True
    )
    thread.start()
    thread.join(LIMIT_S)
    return answers[0] if answers else _NoAnswer(f"no answer within {LIMIT_S:g} s")


def _list_files(name: str) -> list[str] | HubMiss | _NoAnswer:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
    )

    try:
        siblings = HfApi().model_info(name, timeout=LIMIT_S).siblings or []
    except GatedRepoError:
        return HubMiss("gated: accept the licence on its page, then: hf auth login")
    except RepositoryNotFoundError:
        return HubMiss("no such model, or a private one: hf auth login")
    except HfHubHTTPError as error:
        return HubMiss(first_line(error))
    except _network_errors() as error:
        return _NoAnswer(first_line(error))
    return [sibling.rfilename for sibling in siblings]


def _network_errors() -> tuple[type[Exception], ...]:
    # The base of the HTTP library's errors; which library it is varies by version.
    from huggingface_hub.errors import HTTPError

    return (OSError, HTTPError)


def first_line(error: Exception) -> str:
    """Return the first line of an error, or its kind if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
