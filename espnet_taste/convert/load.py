"""Build our modules from a converted folder, with every weight from its files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from espnet_taste.convert.architecture import Architecture
from espnet_taste.convert.folders import check_digests
from espnet_taste.convert.modules import (
    Modules,
    build_modules,
    build_spoken_lm,
    is_own_of_slm,
)
from espnet_taste.convert.names import CODEBOOKS, LLM, SLM, SPEAKER, TASTE, WHISPER
from espnet_taste.convert.plan import check_tensors
from espnet_taste.convert.report import Report
from espnet_taste.convert.tensors import list_folder, read_tensors
from espnet_taste.decoder.unit_lm import UnitLM
from espnet_taste.layers.precision import usable_dtype
from espnet_taste.slm.model import SpokenLM
from espnet_taste.tokenizer.encoder import WhisperEncoder
from espnet_taste.tokenizer.model import SpeechTokenizer


@dataclass(frozen=True)
class ReleasedModel:
    """A released model as our modules, in evaluation mode."""

    tokenizer: SpeechTokenizer
    unit_lm: UnitLM
    spoken_lm: SpokenLM  # shares the tokenizer's quantizer
    architecture: Architecture


@dataclass(frozen=True)
class ReleasedTokenizer:
    """The part of a released model that knows no LLM, in evaluation mode."""

    tokenizer: SpeechTokenizer
    unit_lm: UnitLM
    architecture: Architecture


def load_tokenizer(
    folder: str | Path,
    *,
    device: torch.device | str = "cpu",
    check_sha256: bool = True,
) -> ReleasedTokenizer:
    """Load Whisper's encoder, aggregator, quantizer and unit LM of a folder.

    The LLM is left alone, which is most of the released weights.

    Args:
        folder: Folder in our layout, as ``convert`` makes it.
        device: Torch device.
        check_sha256: Compare the files that are read, and the speaker encoder that
            goes with them, with the recorded sha256 first.

    Raises:
        FileNotFoundError: If a file is absent.
        CheckpointError: If a file is damaged or changed, or tensors do not fit.
    """
    folder = Path(folder)
    if check_sha256:
        _check_parts(folder, (WHISPER, TASTE, SPEAKER))
    architecture = Architecture.read(folder)
    modules = build_modules(architecture)
    _fill_tokenizer(modules, folder)
    return ReleasedTokenizer(
        _tokenizer_of(modules, architecture).to(device).eval(),
        modules.unit_lm.to(device).eval(),
        architecture,
    )


def load_spoken_lm(
    folder: str | Path,
    *,
    llm_dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    check_sha256: bool = True,
) -> SpokenLM:
    """Load LLM, adapters, fusion, head and quantizer of a folder.

    Whisper and the unit LM are left alone.

    Args:
        folder: Folder in our layout, as ``convert`` makes it.
        llm_dtype: Precision of the LLM; None for what it is stored in (bfloat16), or
            float32 where the device lacks that.
        device: Torch device.
        check_sha256: Compare the files that are read with the recorded sha256 first.

    Raises:
        FileNotFoundError: If a file is absent.
        CheckpointError: If a file is damaged or changed, or tensors do not fit.
    """
    folder = Path(folder)
    if check_sha256:
        _check_parts(folder, (LLM, SLM))
    architecture = Architecture.read(folder)
    modules = build_modules(architecture)
    _fill_llm(modules, folder, llm_dtype, device)
    spoken_lm = build_spoken_lm(architecture, modules)
    _fill_spoken_lm(spoken_lm, folder / SLM, with_codebooks=True)
    return spoken_lm.to(device).eval()


def load_released(
    folder: str | Path,
    *,
    llm_dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    check_sha256: bool = True,
) -> ReleasedModel:
    """Load a folder that ``convert`` made.

    Whisper is loaded in float32 whatever it is stored in, as everywhere here.

    Args:
        folder: Folder in our layout.
        llm_dtype: Precision of the LLM; None for what it is stored in (bfloat16), or
            float32 where the device lacks that.
        device: Torch device.
        check_sha256: Compare the files with the recorded sha256 first, which reads
            them once more.

    Raises:
        FileNotFoundError: If a file is absent.
        CheckpointError: If a file is damaged or changed, or tensors do not fit.
    """
    folder = Path(folder)
    if check_sha256:
        check_digests(folder, Report.read(folder).sha256)
    architecture = Architecture.read(folder)
    modules = _load_modules(folder, architecture, llm_dtype, device)
    spoken_lm = build_spoken_lm(architecture, modules)
    _fill_spoken_lm(spoken_lm, folder / SLM)
    return ReleasedModel(
        _tokenizer_of(modules, architecture).to(device).eval(),
        modules.unit_lm.to(device).eval(),
        spoken_lm.to(device).eval(),
        architecture,
    )


def _check_parts(folder: Path, parts: Sequence[str]) -> None:
    """Compare the files of some parts with the recorded sha256."""
    read = tuple(f"{part}/" for part in parts)
    digests = Report.read(folder).sha256.items()
    check_digests(folder, {n: d for n, d in digests if n.startswith(read)})


def _load_modules(
    folder: Path,
    architecture: Architecture,
    llm_dtype: torch.dtype | None,
    device: torch.device | str,
) -> Modules:
    modules = build_modules(architecture)
    _fill_tokenizer(modules, folder)
    _fill_llm(modules, folder, llm_dtype, device)
    return modules


def _fill_tokenizer(modules: Modules, folder: Path) -> None:
    _fill(modules.encoder, folder / WHISPER, "model.encoder.", dtype=torch.float32)
    _fill(modules.tokenizer_part, folder / TASTE, dtype=torch.float32)


def _tokenizer_of(modules: Modules, architecture: Architecture) -> SpeechTokenizer:
    conf = architecture.tokenizer["encoder_conf"]
    encoder = WhisperEncoder.from_module(modules.encoder, **conf)
    return SpeechTokenizer(encoder, modules.aggregator, modules.quantizer)


def _fill_llm(
    modules: Modules,
    folder: Path,
    dtype: torch.dtype | None,
    device: torch.device | str,
) -> None:
    _fill(modules.llm, folder / LLM, dtype=dtype)
    if dtype is None:
        modules.llm.to(usable_dtype(modules.llm.dtype, device))
    _restore_rotary_tables(modules)


def _fill(
    module: nn.Module, folder: Path, prefix: str = "", *, dtype: torch.dtype | None
) -> None:
    """Put the tensors of a folder into a module that has none yet."""
    state = _read(folder, _shapes(module, prefix), dtype)
    plain = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    module.load_state_dict(plain, assign=True)


def _fill_spoken_lm(
    spoken_lm: SpokenLM, folder: Path, with_codebooks: bool = False
) -> None:
    """Put the trained tensors into a spoken LM, whose LLM is there.

    The quantizer is the tokenizer's own, and there too; what lies here is a copy of it,
    taken only where there is no tokenizer.
    """
    names = {n: s for n, s in _shapes(spoken_lm).items() if is_own_of_slm(n)}
    state = _read(folder, {f"slm.{n}": shape for n, shape in names.items()})
    own = {
        name.removeprefix("slm."): tensor
        for name, tensor in state.items()
        if with_codebooks or not name.startswith(CODEBOOKS)
    }
    spoken_lm.load_state_dict(own, strict=False, assign=True)


def _shapes(module: nn.Module, prefix: str = "") -> dict[str, tuple[int, ...]]:
    state = module.state_dict()
    return {prefix + name: tuple(tensor.shape) for name, tensor in state.items()}


def _read(
    folder: Path,
    expected: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype | None = None,
) -> dict[str, Tensor]:
    stored = list_folder(folder)
    check_tensors(folder, stored, expected, {})
    return {
        name: tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
        for name, tensor in read_tensors(stored)
    }


def _restore_rotary_tables(modules: Modules) -> None:
    """Compute the LLM's table of rotations, which no file holds."""
    backbone = modules.llm.model
    backbone.rotary_emb = type(backbone.rotary_emb)(config=modules.llm.config)
