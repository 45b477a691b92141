"""A released checkpoint in the place of a tokenizer that the recipe trained.

The checkpoint holds no text tokenizer and no whole Whisper: those come from the Whisper
that its encoder was cut from, and its speakers from CAM++.
"""

import argparse
import hashlib
import json
import logging
from pathlib import Path
from typing import Literal

import torch

from espnet_taste.convert.architecture import Backbone
from espnet_taste.convert.checkpoint import Options, convert
from espnet_taste.convert.load import load_tokenizer
from espnet_taste.convert.names import SPEAKER, TASTE, VOCODER, WHISPER
from espnet_taste.convert.report import REPORT, Report
from espnet_taste.convert.tensors import SINGLE
from espnet_taste.data.collate import TokenizerCollate
from espnet_taste.data.preprocessor import TokenizerPreprocessor
from espnet_taste.decoder.contracts import AbsVocoder, UnitSampling
from espnet_taste.decoder.cosyvoice import open_cosyvoice
from espnet_taste.pipeline.devices import find_device
from espnet_taste.pipeline.sources import is_name
from espnet_taste.pipeline.tokenizer import TokenizerInference
from espnet_taste.tasks.tokenizer_model import TasteTokenizerModel
from espnet_taste.tokenizer.text import WhisperText
from espnet_taste.units.campplus import FILE_NAMES
from espnet_taste.weights.cache import cache_root, locked
from espnet_taste.weights.hub import HubMiss, download_file, first_line

logger = logging.getLogger(__name__)

RELEASED = "MediaTek-Research/Llama-1B-TASTE-V0"
RELEASED_WHISPER = "distil-whisper/distil-large-v3"
UNIT_RATE_HZ = 50.0
# Key that only the released config has.
OFFICIAL_KEY = "audio_tower_config"
ONNX_FOLDER = "cosyvoice"  # of the official layout
# Arguments of ReleasedInference that from_pretrained takes.
RELEASED_OPTIONS = {"whisper", "language", "task", "window", "check_sha256"}
# Counts what a conversion holds: what the cache has of an earlier one is made again.
CONVERSION = "2: with speaker encoder"


class ReleasedInference(TokenizerInference):
    """A converted checkpoint as a tokenizer with its unit decoder.

    Args:
        folder: Folder that ``convert`` made.
        whisper: Whisper weights, name or folder, for text and for transcripts.
        language: Language of the transcripts; the released model was trained on
            English.
        task: Of the decoder's prefix: "transcribe", as in training, or "translate".
        window: "full" encodes Whisper's 30 s of every recording, as in training,
            "trimmed" the recording alone: faster, and some other codes. None for
            what the folder says, which is "full".
        device: Torch device.
        check_sha256: Compare the files with the recorded sha256 first.

    Raises:
        FileNotFoundError: If files or weights cannot be had.
        CheckpointError: If a file is damaged or changed, or tensors do not fit.
        ValueError: If the Whisper has fewer tokens than the checkpoint, or does not
            know language or task, or there is no such window or device.
    """

    joins_punctuation = False  # the released front end parts words at blanks alone
    sampling = UnitSampling()  # as released

    def __init__(
        self,
        folder: str | Path,
        *,
        whisper: str = RELEASED_WHISPER,
        language: str = "en",
        task: str = "transcribe",
        window: Literal["full", "trimmed"] | None = None,
        device: str = "cpu",
        check_sha256: bool = True,
    ):
        self.device = find_device(device)
        if window not in (None, "full", "trimmed"):
            raise ValueError(f"window must be 'full' or 'trimmed', got '{window}'")
        loaded = load_tokenizer(folder, device=device, check_sha256=check_sha256)
        parts, unit_lm = loaded.tokenizer, loaded.unit_lm
        parts.encoder.window = window or parts.encoder.window
        text = WhisperText(whisper, language, task)
        vocab_size = parts.aggregator.decoder.config.vocab_size
        if text.vocab_size != vocab_size:
            raise ValueError(
                f"whisper: '{whisper}' has {text.vocab_size} text tokens, {folder} "
                f"{vocab_size}; give the Whisper that the tokenizer was cut from"
            )
        table = parts.aggregator.decoder.embed_positions.weight
        if torch.equal(table, table.bfloat16().to(table.dtype)):  # was stored so
            parts.aggregator.embedding_dtype = torch.bfloat16
        if (language, task) != ("en", "transcribe"):
            prefix = torch.tensor(text.prefix_ids, device=self.device)
            parts.aggregator.prefix_ids = prefix
        self.model = TasteTokenizerModel(
            parts.encoder, parts.aggregator, parts.quantizer, unit_lm
        ).eval()
        self.args = argparse.Namespace(
            whisper=whisper, language=language, task=task, unit_rate_hz=UNIT_RATE_HZ
        )
        self.preprocess = TokenizerPreprocessor(text.encode, UNIT_RATE_HZ)
        self.collate = TokenizerCollate(unit_lm.num_units)


def find_released(
    source: str | Path,
    cache_dir: str | Path | None = None,
    backbone: Backbone | None = None,
) -> Path | None:
    """Return the converted folder of a released checkpoint.

    Args:
        source: A folder that ``convert`` made, a folder in the released layout, or
            the name of the released model, or of one like it, on the hub.
        cache_dir: Cache of weights, where a folder in the released layout is
            converted, once; None for the default.
        backbone: What a released config does not say; None for the released model's.

    Returns:
        The folder; None if the source is something else.

    Raises:
        FileNotFoundError: If the released model cannot be had from the hub.
        CheckpointError: If something is wrong with the checkpoint.
    """
    folder = _locate(source)
    if (folder / REPORT).is_file():
        return folder
    if not _is_official(folder):
        return None
    root = cache_root(cache_dir)
    name = f"released-{_state_of(folder)}"
    target = root / "converted" / name
    with locked(root, name):
        if not target.is_dir():
            logger.info(f"converting {folder} to {target}")
            options = Options(backbone or Backbone())
            convert(folder, target, to="espnet_taste", options=options)
    return target


def open_released_vocoder(folder: Path, device: str) -> AbsVocoder | None:
    """Open flow and HiFT of a converted folder; None if it has none.

    Raises:
        ValueError: If the files do not fit.
    """
    if not has_vocoder(folder):
        return None
    part = folder / VOCODER
    return open_cosyvoice(part, {"vocoder": "cosyvoice"}, SINGLE).to(device)


def has_vocoder(folder: Path) -> bool:
    """Tell whether flow and HiFT were converted along."""
    return (folder / VOCODER).is_dir()


def tokenizer_id(folder: Path) -> str:
    """Return a sha256 of a converted folder that is its tokenizer's alone.

    Vocoder, speaker encoder and LLM may have been converted along or not: codes of the
    same encoder, aggregator, quantizer and unit LM mean the same.

    Raises:
        FileNotFoundError: If the folder was not converted.
        CheckpointError: If its report is damaged.
    """
    parts = (f"{WHISPER}/", f"{TASTE}/")
    digests = sorted(Report.read(folder).sha256.items())
    lines = (
        f"{digest}  {name}\n" for name, digest in digests if name.startswith(parts)
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def find_speaker_model(source: str | Path, folder: Path) -> str:
    """Return where the speaker encoder of a released model lies, or should lie."""
    home = Path(source).expanduser()
    places = [home, home / ONNX_FOLDER]
    places += [folder / part for part in ("", SPEAKER, VOCODER)]
    files = [place / name for place in places for name in FILE_NAMES]
    return str(next((path for path in files if path.is_file()), files[0]))


def _locate(source: str | Path) -> Path:
    """Return the folder that a source is, or is downloaded to."""
    name = str(source)
    if not Path(source).exists() and is_name(source):
        if name == RELEASED or _is_official_on_hub(name):
            return _download(name)
    return Path(source).expanduser()


def _is_official_on_hub(name: str) -> bool:
    """Tell by its config; of what cannot be had, others will say so."""
    try:
        return _is_official(download_file(name, "config.json").parent)
    except HubMiss:
        return False


def _is_official(folder: Path) -> bool:
    path = folder / "config.json"
    if not path.is_file():
        return False
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(config, dict) and OFFICIAL_KEY in config


def _state_of(folder: Path) -> str:
    """Return a digest of what lies in a folder, without reading the weights."""
    start = f"{folder.resolve()} {CONVERSION}"
    digest = hashlib.sha256(start.encode())
    for path in sorted(folder.rglob("*")):
        stat = path.stat()
        line = f"{path.relative_to(folder)} {stat.st_size} {stat.st_mtime_ns}\n"
        digest.update(line.encode())
    return digest.hexdigest()[:16]


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError

    try:
        # Configs and tensors; nothing that could be code.
        patterns = ["*.json", "*.safetensors", "*.pth", "*.onnx"]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (OSError, HTTPError) as error:
        raise FileNotFoundError(
            f"{name} is not in the Hugging Face cache and the hub is out of reach "
            f"({first_line(error)}); download it and give its folder"
        ) from error
