"""Word times from the cross-attention of a Whisper model, for any language it knows.

The model is run over audio and transcript with teacher forcing; the attention of its
decoder, seen as a (token, frame) picture, is warped into a monotone path. Time of a
word: from the frame where the path reaches its first token to the one where it reaches
the next word's.

Source: the word timestamps of OpenAI's Whisper (heads, median filter, warping).
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from espnet_taste.align.contracts import (
    AbsAligner,
    AlignmentError,
    WordTimes,
    fit_times,
)
from espnet_taste.align.dtw import start_frames, warp
from espnet_taste.types import SAMPLE_RATE_HZ
from espnet_taste.words import encode_words

FRAME_S = 0.02  # an encoder frame
MAX_S = 30.0
FILTER_FRAMES = 7  # width of the median filter over time


class WholeWhisper:
    """What uses a whole Whisper, encoder and decoder.

    Args:
        model: Name or folder, anything ``espnet_taste.weights.resolve`` knows.
        language: Language of the speech, for multilingual models.
        task: "transcribe" or "translate", likewise.
        device: Torch device.

    Raises:
        ValueError: If an English-only model is asked for another language or task.
    """

    def __init__(
        self,
        model: str = "openai/whisper-tiny.en",
        *,
        language: str = "en",
        task: str = "transcribe",
        device: str = "cpu",
    ):
        self._build(*load_whisper(model, device), language, task)

    @classmethod
    def from_loaded(
        cls,
        whisper: Any,
        tokenizer: Any,
        features: Any,
        language: str = "en",
        task: str = "transcribe",
    ) -> Self:
        """Wrap what ``load_whisper`` returned instead of loading it again."""
        user = cls.__new__(cls)
        user._build(whisper, tokenizer, features, language, task)
        return user

    def _build(
        self, whisper: Any, tokenizer: Any, features: Any, language: str, task: str
    ) -> None:
        self.whisper, self.tokenizer, self.features = whisper, tokenizer, features
        self.language, self.task = language, task
        self.multilingual = getattr(whisper.generation_config, "is_multilingual", False)
        if not self.multilingual and (language, task) != ("en", "transcribe"):
            raise ValueError(
                f"this Whisper is English-only, for language '{language}', task "
                f"'{task}' take a multilingual one such as openai/whisper-base"
            )


class WhisperAligner(WholeWhisper, AbsAligner):
    """Aligns by the attention of a Whisper model; options as ``WholeWhisper``."""

    def _build(self, *parts: Any) -> None:
        super()._build(*parts)
        self.prefix = prefix_ids(self.whisper, self.tokenizer, self.language, self.task)
        self.heads = alignment_heads(self.whisper)

    def align(
        self, audio: np.ndarray, words: Sequence[str], *, key: str = ""
    ) -> WordTimes:
        """Align one utterance; see ``AbsAligner.align``."""
        return self.align_states(None, audio, words)

    def align_states(
        self, states: Any, audio: np.ndarray, words: Sequence[str]
    ) -> WordTimes:
        """Align with last states of this model's own encoder, which then rests.

        Args:
            states: (1, T, D) tensor, at least the frames of the audio; None encodes.
            audio: As in ``align``; only its length is read if there are states.
            words: As in ``align``.

        Raises:
            AlignmentError: As in ``align``.
        """
        duration_s = len(audio) / SAMPLE_RATE_HZ
        if duration_s > MAX_S:
            raise AlignmentError("too_long", f"{duration_s:.2f} s; Whisper hears 30 s")
        text = encode_words(words, self._encode)
        limit = self.whisper.config.max_target_positions - len(self.prefix)
        if len(text.tokens) > limit:
            raise AlignmentError(
                "too_many_words",
                f"{len(text.tokens)} tokens, more than Whisper's {limit}",
            )
        attention = self._attention(audio, text.tokens, states)
        starts = start_frames(warp(-sharpen(attention)))
        # The last row belongs to the end of the text: it ends the last word.
        first_tokens = np.flatnonzero(np.diff([-1, *text.words, len(words)]) > 0)
        edges = starts[first_tokens] * FRAME_S
        times = np.stack([edges[:-1], edges[1:]], axis=1).clip(0, duration_s)
        return fit_times(times, duration_s)

    def _encode(self, text: str) -> list[int]:
        # What looks like a special token in a transcript is spelled out.
        return self.tokenizer.encode(
            text, add_special_tokens=False, split_special_tokens=True
        )

    def _attention(
        self, audio: np.ndarray, tokens: list[int], states: Any = None
    ) -> np.ndarray:
        """Return the heads' attention from tokens to frames, (H, N + 1, M).

        Row n is the place that predicts token n, the last row predicts the end.
        """
        import torch

        ids = torch.tensor([self.prefix + tokens], device=self.whisper.device)
        with torch.no_grad():
            # Apart from the decoder, or the encoder would return its attention too:
            # 1500 x 1500 numbers a head and layer, gigabytes for a large model.
            encoded = self.encode_speech(audio) if states is None else states
            output = self.whisper(
                encoder_outputs=(encoded,),
                decoder_input_ids=ids,
                output_attentions=True,
                use_cache=False,
            )
        num_frames = max(1, -(-len(audio) // round(FRAME_S * SAMPLE_RATE_HZ)))
        maps = [output.cross_attentions[layer][0, head] for layer, head in self.heads]
        picked = torch.stack(maps)[:, len(self.prefix) - 1 :, :num_frames]
        return picked.float().cpu().numpy()

    def encode_speech(self, audio: np.ndarray) -> Any:
        """Return the last states of audio in Whisper's window, (1, T, D)."""
        mel = self.features(audio, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        mel = mel.input_features.to(self.whisper.device, self.whisper.dtype)
        return self.whisper.get_encoder()(mel).last_hidden_state


def sharpen(attention: np.ndarray) -> np.ndarray:
    """Turn attention into one picture in which a word stands out in its frames.

    Args:
        attention: Attention of the heads, (H, N, M), >= 0.

    Returns:
        Mean over heads of the filtered scores, (N, M); higher is better.
    """
    from scipy.ndimage import median_filter

    scores = attention / attention.sum(axis=-1, keepdims=True).clip(1e-12)
    # Over tokens: a frame that every token looks at says nothing.
    deviation = scores.std(axis=-2, keepdims=True)
    scores = (scores - scores.mean(axis=-2, keepdims=True)) / deviation.clip(1e-12)
    return median_filter(scores, size=(1, 1, FILTER_FRAMES), mode="reflect").mean(0)


def load_whisper(model: str, device: str) -> tuple[Any, Any, Any]:
    """Load a Whisper model, its tokenizer and its feature extractor.

    Args:
        model: Name or folder.
        device: Torch device.

    Returns:
        The three transformers objects; the model in eval mode, with attentions that
        can be read.
    """
    from transformers import (
        AutoTokenizer,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
    )

    from espnet_taste.weights import resolve

    folder = resolve(model)
    whisper = WhisperForConditionalGeneration.from_pretrained(
        folder, attn_implementation="eager"
    )
    whisper.requires_grad_(False)
    features = WhisperFeatureExtractor.from_pretrained(folder)
    return whisper.eval().to(device), AutoTokenizer.from_pretrained(folder), features


def prefix_ids(
    whisper: Any, tokenizer: Any, language: str, task: str = "transcribe"
) -> list[int]:
    """Return the ids in front of a transcript without time stamps.

    Raises:
        ValueError: If a multilingual model does not know language or task.
    """
    start = whisper.config.decoder_start_token_id
    no_times = tokenizer.convert_tokens_to_ids("<|notimestamps|>")
    if not getattr(whisper.generation_config, "is_multilingual", False):
        return [start, no_times]
    ids = [start]
    for kind, name in (("language", language), ("task", task)):
        index = tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        if index in (None, tokenizer.unk_token_id, tokenizer.eos_token_id):
            raise ValueError(f"this Whisper model has no {kind} '{name}'")
        ids.append(index)
    return [*ids, no_times]


def alignment_heads(whisper: Any) -> list[tuple[int, int]]:
    """Return (layer, head) pairs whose attention follows time.

    The model's own list where its generation_config has one, else all heads of the
    upper half of the layers.
    """
    known = getattr(whisper.generation_config, "alignment_heads", None)
    if known:
        return [(layer, head) for layer, head in known]
    layers = whisper.config.decoder_layers
    heads = range(whisper.config.decoder_attention_heads)
    return [(layer, head) for layer in range(layers // 2, layers) for head in heads]
