"""TASTE's frozen Whisper encoder for stock ESPnet tasks (asr, st, s2t).

Choose it in a stock recipe's YAML, with no frontend and the plugin's runner
(``--python "python3 -m espnet_taste.run"``)::

    frontend: null
    normalize: null
    input_size: 1
    encoder: taste_whisper
    encoder_conf:
      model: openai/whisper-tiny.en
"""

import torch
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from torch import Tensor

from espnet_taste.tokenizer.encoder import WhisperEncoder


class TasteWhisperEncoder(AbsEncoder):
    """Final states of the frozen encoder, as an ESPnet encoder.

    Not ESPnet's ``whisper`` encoder, which fine-tunes and needs openai-whisper.

    Args:
        input_size: Ignored; ESPnet passes it to every encoder.
        model: Whisper weights by name or folder.
        window: "trimmed" computes the audio only, "full" Whisper's 30 s window.
    """

    def __init__(
        self,
        input_size: int = 1,
        model: str = "openai/whisper-tiny.en",
        window: str = "trimmed",
    ):
        super().__init__()
        self.encoder = WhisperEncoder(model=model, window=window)

    def output_size(self) -> int:
        """Return the width of the states."""
        return self.encoder.output_size()

    def forward(
        self,
        xs_pad: Tensor,
        ilens: Tensor,
        prev_states: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, None]:
        """Encode a batch.

        Args:
            xs_pad: Speech, (B, N) float at 16 kHz.
            ilens: Valid samples, (B,), int64.
            prev_states: Unused; there is no streaming.

        Returns:
            States (B, T, D), their lengths (B,), and None. T is the longest length,
            which ESPnet's models insist on.
        """
        states = self.encoder(xs_pad, ilens)
        frames = torch.clamp(states.lengths, max=states.keys.size(1))
        return states.keys[:, : int(frames.max())], frames, None
