"""HiFi-GAN V1 generator: log-mel frames -> waveform, pretrained and frozen.

Our own module with the parameter names of the released checkpoints, so that they
load strictly. Weight normalisation, which only matters in training, is folded into
plain weights at loading.

Inside, sequences are images of height 1 with the channels innermost: on a CPU with
bfloat16 units that is five times faster than one-dimensional convolutions (23 ms
against 5 ms for 128 channels, kernel 7, 16,640 samples, one thread).

Every shape that is new to a CPU's convolutions costs two to three times the work itself
and 0.4 GB that stay (measured with oneDNN and bfloat16, 6 s of speech). So rows of all
lengths are laid behind one another and generated in windows of one size.

Symbols: B batch, M mel frames, C mel channels, N samples.

Source: HiFi-GAN (arXiv:2010.05646), generator V1.
"""

import json
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from espnet_taste.decoder.mel import MelConfig
from espnet_taste.weights.convert_torch import fold_weight_norm
from espnet_taste.weights.strict import read_weights, require_fit

SLOPE = 0.1
# The released generator leaves the default slope before its last convolution.
LAST_SLOPE = 0.01
# Frames a window, context on both sides included; less than one is rounded up to
# a multiple of the step.
WINDOW_FRAMES = 256
WINDOW_STEP = 64
# Windows at once where the shape costs nothing.
GPU_WINDOWS = 32


@dataclass(frozen=True)
class HifiGanConfig:
    """Generator hyper-parameters; the defaults are V1."""

    upsample_rates: tuple[int, ...] = (8, 8, 2, 2)
    upsample_kernel_sizes: tuple[int, ...] = (16, 16, 4, 4)
    upsample_initial_channel: int = 512
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5),) * 3
    mel: MelConfig = field(default_factory=MelConfig)


def _padding(kernel_size: int, dilation: int = 1) -> int:
    return (kernel_size - 1) * dilation // 2


def _convolve(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """Apply a one-dimensional convolution to (B, channels, 1, N)."""
    return functional.conv2d(
        x,
        conv.weight[:, :, None],
        conv.bias,
        padding=(0, conv.padding[0]),
        dilation=(1, conv.dilation[0]),
    )


def _convolve_exactly(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """Apply a convolution in float32 under autocast too.

    For the two that are hardly any work: the first reads log-mel frames, which bfloat16
    rounds by up to 0.03, and the last writes the waveform. With both in float32 what
    the others lose in bfloat16 is 37 dB below the speech, else 25 (real weights).
    """
    with torch.autocast(x.device.type, enabled=False):
        return _convolve(conv, x.to(conv.weight.dtype))


def _upsample(conv: nn.ConvTranspose1d, x: Tensor) -> Tensor:
    """Apply a one-dimensional transposed convolution to (B, channels, 1, N)."""
    return functional.conv_transpose2d(
        x,
        conv.weight[:, :, None],
        conv.bias,
        stride=(1, conv.stride[0]),
        padding=(0, conv.padding[0]),
    )


def _masked(x: Tensor, mask: Tensor) -> Tensor:
    return x * mask.to(x.dtype)


class ResBlock(nn.Module):
    """Three pairs of a dilated and a plain convolution, each pair residual."""

    def __init__(self, channels: int, kernel_size: int, dilations: tuple[int, ...]):
        super().__init__()
        self.convs1 = nn.ModuleList(
            nn.Conv1d(
                channels,
                channels,
                kernel_size,
                dilation=dilation,
                padding=_padding(kernel_size, dilation),
            )
            for dilation in dilations
        )
        self.convs2 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel_size, padding=_padding(kernel_size))
            for _ in dilations
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Keep the shape, (B, channels, 1, N); ``mask`` is (B, 1, 1, N)."""
        for dilated, plain in zip(self.convs1, self.convs2):
            hidden = _masked(functional.leaky_relu(x, SLOPE), mask)
            hidden = functional.leaky_relu(_convolve(dilated, hidden), SLOPE)
            hidden = _convolve(plain, _masked(hidden, mask))
            x = x + hidden
        return x


class HifiGanGenerator(nn.Module):
    """Pretrained vocoder; its weights never train and it stays in eval mode.

    Args:
        config: Hyper-parameters of the checkpoint.
    """

    def __init__(self, config: HifiGanConfig):
        super().__init__()
        self.config = config
        channels = config.upsample_initial_channel
        self.conv_pre = nn.Conv1d(config.mel.num_mels, channels, 7, padding=3)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        kernels = zip(config.upsample_rates, config.upsample_kernel_sizes)
        for rate, kernel_size in kernels:
            half = channels // 2
            padding = (kernel_size - rate) // 2
            self.ups.append(
                nn.ConvTranspose1d(channels, half, kernel_size, rate, padding)
            )
            channels = half
            self.resblocks.extend(
                ResBlock(channels, *shape)
                for shape in zip(
                    config.resblock_kernel_sizes, config.resblock_dilation_sizes
                )
            )
        self.conv_post = nn.Conv1d(channels, 1, 7, padding=3)
        self.requires_grad_(False)
        self.eval()

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the generated waveforms."""
        return self.config.mel.sample_rate_hz

    def train(self, mode: bool = True) -> "HifiGanGenerator":
        """Stay in eval mode whatever the model around asks for."""
        return super().train(False)

    def forward(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Generate waveforms.

        Args:
            mel: Log-mel frames as ``LogMel`` makes them, (B, M, C), float.
            lengths: Valid frames per row, (B,), int64; None if all are. Padding
                frames do not reach the valid samples: a row sounds as it would alone.

        Returns:
            Waveforms, (B, M * hop_size), -1..1; zeros past a row's length.
        """
        if lengths is None:
            lengths = mel.new_full((len(mel),), mel.size(1), dtype=torch.long)
        frames = torch.arange(mel.size(1), device=mel.device)
        valid = frames < lengths[:, None]
        # A row is as far from the next as a sample can see.
        context = reach_frames(self.config)
        starts = (lengths + context).cumsum(0) - lengths
        place = (starts[:, None] + frames)[valid]
        packed = mel.new_zeros(int(starts[-1] + lengths[-1]), mel.size(2) + 1)
        packed[place] = functional.pad(mel[valid], (0, 1), value=1.0)

        hop = math.prod(self.config.upsample_rates)
        speech = self._in_windows(packed, context).view(-1, hop)
        rows = speech.new_zeros(*valid.shape, hop)
        # The context in front of the first row is not generated.
        rows[valid] = speech[place - context]
        return rows.flatten(1)

    def _in_windows(self, packed: Tensor, context: int) -> Tensor:
        """Generate all but the context in front, window by window.

        Args:
            packed: Frames, the last channel 1 where there is one, (P, C + 1).
            context: Frames that a window needs on both sides.

        Returns:
            At least (P - context) * hop_size samples, (N,), float32.
        """
        whole = len(packed) + context
        size = min(WINDOW_FRAMES, math.ceil(whole / WINDOW_STEP) * WINDOW_STEP)
        inner = size - 2 * context
        missing = -(len(packed) - context) % inner + context
        windows = functional.pad(packed, (0, 0, 0, missing)).unfold(0, size, inner)
        mask, mel = windows[:, -1], windows[:, :-1].transpose(1, 2)
        at_once = 1 if packed.device.type == "cpu" else GPU_WINDOWS
        speech = [
            self._generate(part, part_mask)
            for part, part_mask in zip(mel.split(at_once), mask.split(at_once))
        ]
        hop = math.prod(self.config.upsample_rates)
        return torch.cat(speech)[:, context * hop : (context + inner) * hop].flatten()

    def _generate(self, mel: Tensor, mask: Tensor) -> Tensor:
        """Run the network, (B, M, C) and (B, M) -> (B, M * hop_size)."""
        mask = mask[:, None, None]
        # (B, M, C) in memory is (B, C, 1, M) with the channels innermost.
        x = mel.contiguous().transpose(1, 2)[:, :, None]
        x = _convolve_exactly(self.conv_pre, _masked(x, mask))
        num_kernels = len(self.config.resblock_kernel_sizes)
        for stage, up in enumerate(self.ups):
            x = _upsample(up, _masked(functional.leaky_relu(x, SLOPE), mask))
            mask = mask.repeat_interleave(self.config.upsample_rates[stage], dim=-1)
            blocks = self.resblocks[stage * num_kernels : (stage + 1) * num_kernels]
            x = sum(block(x, mask) for block in blocks) / num_kernels
        x = _masked(functional.leaky_relu(x, LAST_SLOPE), mask)
        x = torch.tanh(_convolve_exactly(self.conv_post, x))
        return _masked(x, mask)[:, 0, 0]


def reach_frames(config: HifiGanConfig) -> int:
    """Return how many frames away a frame can change a sample, rounded up."""
    frames = _padding(7)
    rate = 1
    for up_rate, up_kernel in zip(
        config.upsample_rates, config.upsample_kernel_sizes, strict=True
    ):
        frames += math.ceil(up_kernel / up_rate) / rate
        rate *= up_rate
        blocks = zip(
            config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True
        )
        frames += (
            max(
                sum(
                    _padding(kernel, dilation) + _padding(kernel)
                    for dilation in dilations
                )
                for kernel, dilations in blocks
            )
            / rate
        )
    return math.ceil(frames + _padding(7) / rate)


def read_config(values: dict[str, Any]) -> HifiGanConfig:
    """Read a released ``config.json``; keys it does not hold keep V1's values."""
    released = {
        "sampling_rate": "sample_rate_hz",
        "n_fft": "fft_size",
        "win_size": "window_size",
        "fmin": "fmin_hz",
        "fmax": "fmax_hz",
    }
    named = {released.get(key, key): value for key, value in values.items()}
    mel_names = {item.name for item in fields(MelConfig)}
    own_names = {item.name for item in fields(HifiGanConfig)} - {"mel"}
    nested = named.get("mel", {})
    mel = {key: value for key, value in {**named, **nested}.items() if key in mel_names}
    own = {key: _as_tuple(named[key]) for key in own_names & named.keys()}
    return HifiGanConfig(**own, mel=MelConfig(**mel))


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def load_hifigan(folder: Path) -> HifiGanGenerator:
    """Load a generator from ``config.json`` and ``model.safetensors``.

    Args:
        folder: What the weight resolver returns for ``hifigan/universal-v1``.

    Returns:
        The frozen generator.

    Raises:
        FileNotFoundError: If one of the two files is absent.
        ValueError: If the weights do not fit the configuration.
    """
    folder = Path(folder)
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    generator = HifiGanGenerator(read_config(values))
    state = fold_weight_norm(read_weights(folder / "model.safetensors"))
    require_fit(generator.state_dict(), state, folder, "HiFi-GAN generator")
    generator.load_state_dict(state)
    return generator
