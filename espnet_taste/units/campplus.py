"""CAM++ speaker embeddings, as the released TASTE and its mel generator take them.

The network is an ONNX file that onnxruntime runs on the CPU; what it hears is Kaldi's
filter bank, its mean over the utterance removed. A recording above two minutes is heard
in equal parts, whose mean it gets; the released code takes an hour at once.

Symbols: N samples, M frames.

Source: TASTE (arXiv:2504.07053), front end; CAM++ (arXiv:2303.00332).
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from espnet_taste.types import SAMPLE_RATE_HZ

NUM_MELS = 80
WINDOW = 400  # samples, 25 ms
MAX_SAMPLES = 120 * SAMPLE_RATE_HZ  # at once; the network holds 10 kB a frame and layer
# Names under which the released folders hold the network.
FILE_NAMES = ("campplus.onnx", "speaker_embed.onnx")


class CamPlus:
    """Frozen speaker encoder.

    Args:
        path: The ONNX file.
        threads: Threads of a call; utterances are spread over processes instead.

    Raises:
        FileNotFoundError: If there is no such file; says where to get it.
        ValueError: If onnxruntime is not installed, or the file is no network with
            one input of filter banks.
    """

    def __init__(self, path: Path, threads: int = 1):
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"{path}: no CAM++ network. It is not on a package index: take "
                "campplus.onnx of CosyVoice-300M, or speaker_embed.onnx of "
                "MediaTek-Research/Llama-1B-TASTE-V0"
            )
        self._session = _open(Path(path), threads)
        inputs = self._session.get_inputs()
        shapes = [item.shape for item in inputs]
        width = shapes[0][-1] if shapes and shapes[0] else None
        # A dimension without a size is a name or None.
        if len(shapes) != 1 or isinstance(width, int) and width != NUM_MELS:
            raise ValueError(
                f"{path}: expected a network of one input (1, M, {NUM_MELS}), got "
                f"{shapes}; is it another network of the folder?"
            )
        self._input = inputs[0].name

    def embed(self, speech: np.ndarray) -> np.ndarray:
        """Embed one utterance.

        Args:
            speech: Waveform at 16 kHz, (N,), float32, -1..1.

        Returns:
            Embedding, (192,), float32, norm 1.

        Raises:
            ValueError: If the waveform is silent or shorter than a window.
        """
        if speech.ndim != 1 or len(speech) < WINDOW or not np.any(speech):
            raise ValueError(
                f"a speaker embedding needs {WINDOW} samples of one channel of speech "
                f"that is not silent, got shape {speech.shape}"
            )
        parts = np.array_split(speech, -(-len(speech) // MAX_SAMPLES))
        embedding = np.mean([self._embed(part) for part in parts if np.any(part)], 0)
        norm = np.linalg.norm(embedding)
        return (embedding / norm).astype(np.float32)

    def _embed(self, speech: np.ndarray) -> np.ndarray:
        features = speaker_features(torch.from_numpy(np.array(speech, np.float32)))
        inputs = {self._input: features[None].numpy()}
        return self._session.run(None, inputs)[0].reshape(-1)


def _open(path: Path, threads: int):
    """Open an ONNX session on the CPU."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError(
            "CAM++ needs the package onnxruntime: install espnet-taste[s3]"
        ) from error
    errors = onnxruntime.capi.onnxruntime_pybind11_state
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except (errors.InvalidProtobuf, errors.InvalidGraph, errors.Fail) as error:
        raise ValueError(f"{path}: not a readable ONNX network: {error}") from error


def kaldi_fbank(speech: Tensor) -> Tensor:
    """Compute Kaldi's log filter bank without dither.

    Args:
        speech: (N,), float32, 16 kHz, -1..1, not scaled to 16 bits.

    Returns:
        (M, 80), float32; frames of 25 ms every 10 ms, none past the end.
    """
    from torchaudio.compliance import kaldi

    return kaldi.fbank(
        speech[None],
        num_mel_bins=NUM_MELS,
        dither=0.0,
        sample_frequency=SAMPLE_RATE_HZ,
    )


def speaker_features(speech: Tensor) -> Tensor:
    """Return the filter bank without its mean over time, (N,) -> (M, 80)."""
    features = kaldi_fbank(speech)
    return features - features.mean(dim=0)


def find_campplus(model: str) -> Path | None:
    """Return the ONNX file that a name stands for, or None if it names another kind.

    Args:
        model: Path of an ONNX file, or of a folder with one of ``FILE_NAMES``.
    """
    path = Path(model).expanduser()
    if path.suffix == ".onnx":
        return path
    found = [path / name for name in FILE_NAMES if (path / name).is_file()]
    return found[0] if found else None
