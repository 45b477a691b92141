"""Parts of HiFT: normalised convolutions, Snake blocks, transforms row by row.

Short-time transforms reflect the signal at its ends and weigh overlapping windows.
Here both know where each row ends, so that padding does not reach its last samples.

Symbols: B rows, C channels, T steps, N samples.

Source: HiFTNet (arXiv:2309.09493) as CosyVoice-300M uses it; Snake
(arXiv:2006.08195). Parameter names are those of the released ``hift.*``.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from espnet_taste.layers.masked_norm import masked

SNAKE_EPS = 1e-9


class _NormedConv(nn.Module):
    """Weight of a convolution as gain times direction, as released files hold it.

    Args:
        shape: Shape of the weight, its first axis normalised on its own.
        num_biases: Output channels.
    """

    def __init__(self, shape: tuple[int, int, int], num_biases: int):
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(shape[0], 1, 1))
        self.weight_v = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(num_biases))
        nn.init.kaiming_uniform_(self.weight_v, a=5**0.5)

    @property
    def weight(self) -> Tensor:
        """The weight; making it costs as much as reading it once."""
        norm = torch.linalg.vector_norm(self.weight_v, dim=(1, 2), keepdim=True)
        return self.weight_v * (self.weight_g / norm)


class NormedConv(_NormedConv):
    """Convolution that keeps the number of steps."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int, dilation: int = 1):
        super().__init__((outputs, inputs, kernel_size), outputs)
        self.dilation = dilation
        self.padding = (kernel_size - 1) * dilation // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, T) to (B, outputs, T)."""
        return functional.conv1d(
            x, self.weight, self.bias, padding=self.padding, dilation=self.dilation
        )


class NormedUpsampling(_NormedConv):
    """Transposed convolution that makes ``rate`` steps of one."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int, rate: int):
        super().__init__((inputs, outputs, kernel_size), outputs)
        self.rate = rate
        self.padding = (kernel_size - rate) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, T) to (B, outputs, rate * T)."""
        return functional.conv_transpose1d(
            x, self.weight, self.bias, stride=self.rate, padding=self.padding
        )


class Snake(nn.Module):
    """Activation x + sin^2(alpha x) / alpha with one alpha a channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape, (B, C, T); zeros stay zeros."""
        alpha = self.alpha[:, None]
        return x + (alpha * x).sin().square() / (alpha + SNAKE_EPS)


class SnakeBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each pair residual."""

    def __init__(self, channels: int, kernel_size: int, dilations: tuple[int, ...]):
        super().__init__()
        self.convs1 = nn.ModuleList(
            NormedConv(channels, channels, kernel_size, dilation)
            for dilation in dilations
        )
        self.convs2 = nn.ModuleList(
            NormedConv(channels, channels, kernel_size) for _ in dilations
        )
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Keep the shape, (B, C, T); ``mask`` is (B, 1, T) or None."""
        layers = (self.activations1, self.convs1, self.activations2, self.convs2)
        for snake1, dilated, snake2, plain in zip(*layers, strict=True):
            hidden = dilated(masked(snake1(x), mask))
            x = x + plain(masked(snake2(hidden), mask))
        return x


def stft(speech: Tensor, lengths: Tensor, fft_size: int, hop: int) -> Tensor:
    """Centred transform with every row reflected at its own end.

    Args:
        speech: (B, N), float; anything on padding.
        lengths: Valid samples, (B,), int64, more than fft_size / 2.
        fft_size: Size of transform and periodic Hann window.
        hop: Samples between frames, a divisor of N.

    Returns:
        Real parts, then imaginary parts, (B, fft_size + 2, N / hop + 1), float;
        meaningless behind frame lengths / hop.
    """
    half = fft_size // 2
    size = speech.size(1)
    places = torch.arange(-half, size + half, device=speech.device).abs()
    last = lengths[:, None] - 1
    places = torch.where(places > last, 2 * last - places, places)
    padded = speech.gather(1, places.clamp(0, size - 1))
    spectrum = torch.stft(
        padded,
        fft_size,
        hop,
        window=torch.hann_window(fft_size, device=speech.device, dtype=speech.dtype),
        center=False,
        return_complex=True,
    )
    return torch.cat([spectrum.real, spectrum.imag], dim=1)


def inverse_stft(
    magnitude: Tensor, phase: Tensor, mask: Tensor | None, hop: int
) -> Tensor:
    """Invert a centred transform with every row ending at its own end.

    Args:
        magnitude: (B, fft_size / 2 + 1, T), float.
        phase: The same, in radians.
        mask: 1 on valid frames, (B, 1, T), float; None if all are.
        hop: Samples between frames.

    Returns:
        (B, hop * (T - 1)), float; meaningless on padding.
    """
    fft_size = 2 * (magnitude.size(1) - 1)
    window = torch.hann_window(fft_size, device=phase.device, dtype=phase.dtype)
    spectrum = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
    frames = torch.fft.irfft(spectrum, fft_size, dim=1) * window[:, None]
    weights = window.square()[:, None].expand(1, fft_size, frames.size(2))
    speech = _overlap_add(masked(frames, mask), hop)
    # Zero where no frame reaches: past the end of a short row.
    envelope = _overlap_add(masked(weights, mask), hop)
    tiny = torch.finfo(envelope.dtype).tiny
    inner = slice(fft_size // 2, -(fft_size // 2))
    return speech[:, inner] / envelope[:, inner].clamp(min=tiny)


def _overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Add up frames, (B, fft_size, T) -> (B, hop * (T - 1) + fft_size)."""
    size = hop * (frames.size(2) - 1) + frames.size(1)
    return functional.fold(
        frames, (1, size), kernel_size=(1, frames.size(1)), stride=(1, hop)
    )[:, 0, 0]
