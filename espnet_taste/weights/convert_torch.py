"""PyTorch checkpoints and file parts -> plain folders.

Pickles are only ever read with ``weights_only=True``, which refuses code.
"""

import json
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

# What reading bytes that are no checkpoint ends in, by where the reader stumbles.
_UNREADABLE = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError),
    *(LookupError, AttributeError),
)


def load_pickle(path: Path) -> Any:
    """Load a PyTorch checkpoint that holds tensors and plain values only.

    Raises:
        ValueError: If it is not a checkpoint, or would run code when loaded.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "damaged"
        raise ValueError(
            f"{path}: refused, because it is damaged or holds more than tensors: "
            f"{reason}"
        ) from error


def convert_ge2e(files: Mapping[str, Path], target: Path) -> None:
    """Convert Resemblyzer's speaker encoder.

    Keeps the three LSTM layers and the linear layer under their own names; leaves
    out the optimiser, and the scale and offset of the training loss.

    Args:
        files: ``pretrained.pt``.
        target: Existing folder; gets ``model.safetensors`` and ``config.json``.

    Raises:
        ValueError: If the checkpoint is not such an encoder.
    """
    state = load_pickle(files["pretrained.pt"])["model_state"]
    kept = {
        name: value.contiguous()
        for name, value in state.items()
        if name.startswith(("lstm.", "linear."))
    }
    gates, num_mels = kept["lstm.weight_ih_l0"].shape
    config = {
        "model_type": "ge2e_speaker_encoder",
        "sample_rate_hz": 16000,
        "num_mels": num_mels,
        "hidden_dim": gates // 4,  # an LSTM stacks its four gates
        "num_layers": sum(name.startswith("lstm.weight_ih") for name in kept),
        "embedding_dim": kept["linear.weight"].shape[0],
        "window_size": 400,  # samples, 25 ms
        "hop_size": 160,  # samples, 10 ms
        "partial_frames": 160,  # 1.6 s, the length it was trained on
    }
    _write(kept, config, target)


def convert_hifigan(files: Mapping[str, Path], target: Path) -> None:
    """Convert a HiFi-GAN generator and fold its weight normalisation.

    The magnitude/direction pairs ``weight_g``, ``weight_v`` only matter in
    training; folded, the generator is plain convolutions and loads anywhere.

    Args:
        files: One ``generator_*.pth.tar`` and ``config.json``.
        target: Existing folder; gets ``model.safetensors`` and ``config.json``.

    Raises:
        ValueError: If there is not exactly one generator.
    """
    found = [path for name, path in files.items() if name.startswith("generator_")]
    if len(found) != 1:
        raise ValueError(f"expected one HiFi-GAN generator, found {sorted(files)}")
    state = load_pickle(found[0])["generator"]
    released = json.loads(files["config.json"].read_text(encoding="utf-8"))
    # Keys of the training set-up (rates, seed, workers, processes) are left out.
    kept = ("resblock", "upsample", "num_mels", "n_fft", "hop", "win", "samp", "fm")
    config = {
        name: value
        for name, value in released.items()
        if name.startswith(kept) and name != "fmax_for_loss"
    }
    _write(fold_weight_norm(state), {"model_type": "hifigan", **config}, target)


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace each pair ``weight_g``, ``weight_v`` by ``g * v / |v|``.

    The norm is taken over all axes but the first, PyTorch's default, in double
    precision, which costs nothing here and rounds once.
    """
    folded = {}
    for name, value in state.items():
        if name.endswith(".weight_v"):
            direction = value.double()
            axes = tuple(range(1, direction.ndim))
            norm = torch.linalg.vector_norm(direction, dim=axes, keepdim=True)
            gain = state[name.removesuffix("_v") + "_g"].double()
            folded[name.removesuffix("_v")] = (gain * direction / norm).to(value.dtype)
        elif not name.endswith(".weight_g"):
            folded[name] = value
    return folded


def join_parts(files: Mapping[str, Path], target: Path) -> None:
    """Join ``<file>.part1``, ``<file>.part2``, ... and copy all other files.

    Args:
        files: Files by name.
        target: Existing folder.
    """
    for name in sorted(files, key=_part_order):
        whole, number = _part_order(name)
        with (
            files[name].open("rb") as source,
            (target / whole).open("ab" if number > 1 else "wb") as sink,
        ):
            shutil.copyfileobj(source, sink, 1 << 22)


def _part_order(name: str) -> tuple[str, int]:
    whole, _, number = name.rpartition(".part")
    return (whole, int(number)) if whole and number.isdigit() else (name, 0)


def _save(state: Mapping[str, Tensor], target: Path) -> None:
    plain = {name: value.contiguous() for name, value in state.items()}
    save_file(plain, target / "model.safetensors", metadata={"format": "pt"})


def _write(state: dict[str, Tensor], config: dict[str, Any], target: Path) -> None:
    _save(state, target)
    text = json.dumps(config, indent=2) + "\n"
    (target / "config.json").write_text(text, encoding="utf-8")


def convert_pickled_folder(source: Path, target: Path) -> None:
    """Copy a Hugging Face folder, its ``pytorch_model*.bin`` as one safetensors file.

    Args:
        source: Folder with pickled weights, in one file or shards.
        target: Existing folder.

    Raises:
        ValueError: If a pickle holds more than tensors.
    """
    state: dict[str, Tensor] = {}
    for path in sorted(source.glob("pytorch_model*.bin")):
        # Tied weights share memory, which safetensors refuses: each gets its own.
        state.update({name: value.clone() for name, value in load_pickle(path).items()})
    for path in source.iterdir():
        if path.is_file() and not path.name.startswith("pytorch_model"):
            shutil.copyfile(path, target / path.name)
    _save(state, target)
