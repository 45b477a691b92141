"""From waveforms to TASTE tokens.

Symbols: U utterances, W words, T encoder frames, Q codebooks, D TASTE width.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from espnet_taste.align.contracts import AlignmentError
from espnet_taste.align.spoken import attach_punctuation
from espnet_taste.data.collate import pad_arrays
from espnet_taste.layers.precision import autocast
from espnet_taste.layers.word_pooling import first_of_words
from espnet_taste.pipeline.listening import (
    StateListener,
    Transcriber,
    open_listener,
)
from espnet_taste.pipeline.long_audio import (
    crowded,
    hear_long,
    spread_words,
    without_loops,
)
from espnet_taste.pipeline.tokenizer import TokenizerInference
from espnet_taste.pipeline.tokens import TasteTokens
from espnet_taste.pipeline.windows import WINDOW_S, carry_times, plan_windows
from espnet_taste.tasks.tokenizer_model import TokenBatch
from espnet_taste.tokenizer.states import EncoderStates
from espnet_taste.types import SAMPLE_RATE_HZ
from espnet_taste.units.speakers import open_speaker_encoder
from espnet_taste.words import TokenizedWords, encode_words, space_signs, split_words

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Heard:
    """One utterance on its way to tokens."""

    name: str  # what it is called in messages
    wave: np.ndarray  # (N,) 16 kHz
    words: list[str]
    times: np.ndarray | None  # (W, 2) s


class TasteEncoder:
    """Whisper's encoder, aggregator, quantizer and speaker encoder at work.

    Args:
        inference: A trained speech tokenizer.
        speaker_model: Weight name, folder or file of the speaker encoder.
        models: What the tokens say of the models that made them.
        amp_dtype: Run under autocast in this type; None for float32.
        transcriber: Writes transcripts that are not given; None for the tokenizer's
            Whisper.
    """

    def __init__(
        self,
        inference: TokenizerInference,
        speaker_model: str,
        models: Mapping[str, str],
        amp_dtype: torch.dtype | None = None,
        transcriber: Transcriber | None = None,
    ):
        self.model, self.args = inference.model, inference.args
        self.device = inference.device
        self.joins_punctuation = inference.joins_punctuation
        self.encode_text = inference.preprocess.encode
        self.speaker_model = speaker_model
        self.models = models
        self.amp_dtype = amp_dtype
        self.transcriber = transcriber

    @torch.no_grad()
    def encode_short(
        self,
        waves: list[np.ndarray],
        texts: Sequence[str | None],
        word_times: bool,
        names: Sequence[str],
    ) -> list[TasteTokens]:
        """Encode recordings of at most 30 s, the encoder running once.

        What fills Whisper's window is heard in two parts first, see ``crowded``.

        Args:
            waves: Recordings, each (N,), float32, 16 kHz.
            texts: Their transcripts; None lets Whisper write one.
            word_times: Also find when every word was spoken.
            names: What they are called in messages.

        Raises:
            ValueError: If a transcript has no word or too many tokens.
        """
        texts = list(texts)
        for place in [] if self.transcriber else crowded(waves, texts):
            texts[place] = " ".join(hear_long(waves[place], self._hear)[0])
        states = self._states(waves)
        missing = [place for place, text in enumerate(texts) if text is None]
        if missing:
            heard_waves = [waves[place] for place in missing]
            written = self._transcribe(_rows(states, missing), heard_waves)
            for place, text in zip(missing, written, strict=True):
                texts[place] = text
        heard = []
        for place, (wave, text) in enumerate(zip(waves, texts, strict=True)):
            words = self._words_of(text, names[place])
            times = None
            if word_times:
                times = self._times(states, place, wave, words)
            heard.append(_Heard(names[place], wave, words, times))
        embeds, codes = self._quantize(states, [item.words for item in heard], names)
        return [
            self._tokens(item, embed, code)
            for item, embed, code in zip(heard, embeds, codes, strict=True)
        ]

    @torch.no_grad()
    def encode_long(
        self, wave: np.ndarray, text: str | None, batch_size: int, name: str
    ) -> TasteTokens:
        """Encode a recording that is longer than Whisper's window.

        Args:
            wave: The recording, (N,), float32, 16 kHz.
            text: Its transcript; None lets Whisper write it.
            batch_size: Windows at once.
            name: What it is called in messages.

        Raises:
            ValueError: If there is no word in text or recording, or one has more
                tokens than Whisper takes.
        """
        given = None if text is None else self._words_of(text, name)
        with _naming(name):
            words, times = hear_long(wave, self._hear)
        duration_s = len(wave) / SAMPLE_RATE_HZ
        was_heard = len(words) > 0
        if given is not None:
            times = carry_times(given, words, times, duration_s)
            words = given
        if not words:
            raise ValueError(f"{name}: no word was heard; give its text")
        if not was_heard:
            logger.warning(
                f"{name}: no word was heard; those of its text are taken to be spread "
                "evenly over it, and no times are told"
            )
        counts = np.bincount(encode_words(words, self.encode_text).words)
        limit = self.model.aggregator.max_tokens
        with _naming(name):
            windows = plan_windows(times, duration_s, tokens=counts, max_tokens=limit)
        embeds, codes = [], []
        for start in range(0, len(windows), batch_size):
            batch = windows[start : start + batch_size]
            spans = [np.multiply(w.span_s, SAMPLE_RATE_HZ).astype(int) for w in batch]
            states = self._states([wave[begin:end] for begin, end in spans])
            texts = [words[w.first : w.last] for w in batch]
            rows = self._quantize(states, texts, [name] * len(batch))
            for window, embed, code in zip(batch, *rows, strict=True):
                kept = slice(window.start - window.first, window.stop - window.first)
                embeds.append(embed[kept])
                codes.append(None if code is None else code[kept])
        joined = None if codes[0] is None else np.concatenate(codes)
        heard = _Heard(name, wave, words, times if was_heard else None)
        return self._tokens(heard, np.concatenate(embeds), joined)

    @torch.no_grad()
    def word_codes(
        self, waves: list[np.ndarray], words: list[list[str]]
    ) -> list[np.ndarray]:
        """Return the codes of the words of recordings of at most 30 s.

        Args:
            waves: Recordings, each (N,), float32, 16 kHz.
            words: Their words, at least one each.

        Returns:
            (W, Q) int64 a recording.

        Raises:
            ValueError: If this tokenizer has no quantizer, or too many words are said
                to be in a recording.
        """
        names = [f"'{row[0]} ...'" for row in words]
        _, codes = self._quantize(self._states(waves), words, names)
        if codes[0] is None:
            raise ValueError("this tokenizer has no quantizer, hence no codes")
        return codes

    @torch.no_grad()
    def hear_words(
        self, wave: np.ndarray, words: Sequence[str]
    ) -> tuple[np.ndarray, str]:
        """Return when words are spoken, and what is heard without knowing them.

        Args:
            wave: A recording of at most 30 s, (N,), float32, 16 kHz.
            words: Its words.

        Returns:
            Start and end of every word in s, (W, 2), float32; the transcript.

        Raises:
            AlignmentError: If there is no alignment to be had.
        """
        duration_s = len(wave) / SAMPLE_RATE_HZ
        if duration_s > WINDOW_S:
            raise AlignmentError("too_long", f"{duration_s:.2f} s, over {WINDOW_S:g} s")
        states = self._states([wave])
        keys = states.keys[0, : int(states.lengths[0])]
        times = self.listener.word_times(keys, wave, words)
        return times, self.listener.transcribe(states, [wave])[0]

    def _transcribe(
        self, states: EncoderStates, waves: Sequence[np.ndarray]
    ) -> list[str]:
        if self.transcriber is not None:
            return self.transcriber.transcribe(waves)
        return self.listener.transcribe(states, waves)

    def _words_of(self, text: str, name: str) -> list[str]:
        """Return the words of a transcript; there must be one."""
        words = self._split(text)
        if not words:
            raise ValueError(
                f"{name}: the transcript has no word, nothing with a letter or digit, "
                "and TASTE has one code a word; give a text or leave the recording out"
            )
        return words

    def _split(self, text: str) -> list[str]:
        """Return the words of a text as the tokenizer's training had them."""
        words = split_words(space_signs(text))
        return attach_punctuation(words)[0] if self.joins_punctuation else words

    def _hear(self, wave: np.ndarray) -> tuple[list[str], np.ndarray]:
        """Return words and times of at most 30 s."""
        states = self._states([wave])
        words = self._split(self._transcribe(states, [wave])[0])
        if limit := self.model.aggregator.max_tokens:
            words = without_loops(words, encode_words(words, self.encode_text), limit)
        if not words:
            return [], np.zeros((0, 2), np.float32)
        keys = states.keys[0, : int(states.lengths[0])]
        try:
            return words, self.listener.word_times(keys, wave, words)
        except AlignmentError as error:
            return spread_words(words, len(wave) / SAMPLE_RATE_HZ, error)

    def _times(
        self, states: EncoderStates, place: int, wave: np.ndarray, words: list[str]
    ) -> np.ndarray | None:
        """Return the times of the words; None, with a warning, if there are none."""
        keys = states.keys[place, : int(states.lengths[place])]
        try:
            return self.listener.word_times(keys, wave, words)
        except AlignmentError as error:
            logger.warning(f"no word times for '{' '.join(words)[:40]}': {error}")
            return None

    @cached_property
    def listener(self) -> StateListener:
        """Whisper's decoder, loaded when a transcript or times are first wanted."""
        return open_listener(
            self.args.whisper,
            self.model.encoder,
            language=self.args.language,
            task=getattr(self.args, "task", "transcribe"),
            device=str(self.device),
        )

    @cached_property
    def speaker_encoder(self) -> Any:
        """The speaker encoder, loaded at the first recording."""
        return open_speaker_encoder(self.speaker_model)

    def _states(self, waves: list[np.ndarray]) -> EncoderStates:
        """Run the encoder, once an utterance."""
        lengths = torch.tensor([len(wave) for wave in waves])
        speech = torch.zeros(len(waves), int(lengths.max()))
        for row, wave in zip(speech, waves, strict=True):
            row[: len(wave)] = torch.from_numpy(wave)
        with autocast(self.device, self.amp_dtype):
            states = self.model.encoder(speech.to(self.device), lengths.to(self.device))
        return EncoderStates(states.keys.float(), states.values.float(), states.lengths)

    def _quantize(
        self, states: EncoderStates, words: list[list[str]], names: Sequence[str]
    ) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
        """Return embeddings (W, D) and codes (W, Q) of every utterance."""
        tokens = [encode_words(row, self.encode_text) for row in words]
        self._refuse_long(tokens, words, names)
        batch = token_batch(tokens, [np.zeros(1, np.float32)] * len(words), self.device)
        sentence = (batch.tokens, batch.token_lengths, batch.words)
        with autocast(self.device, self.amp_dtype):
            features = self.model.aggregator(*sentence, states)
            output = self.model.quantizer(features, batch.mask)
        embeds = first_of_words(output.quantized, batch.words, batch.token_lengths)
        embeds = embeds.float().cpu().numpy()
        counts = [len(row) for row in words]
        cut = [row[:n] for row, n in zip(embeds, counts, strict=True)]
        if output.codes is None:
            return cut, [None] * len(words)
        codes = first_of_words(output.codes, batch.words, batch.token_lengths)
        codes = codes.cpu().numpy()
        return cut, [row[:n] for row, n in zip(codes, counts, strict=True)]

    def _refuse_long(
        self, tokens: list[TokenizedWords], words: list[list[str]], names: Sequence[str]
    ) -> None:
        limit = self.model.aggregator.max_tokens
        for row, texts, name in zip(tokens, words, names, strict=True):
            if limit is not None and len(row.tokens) > limit:
                raise ValueError(
                    f"{name}: the transcript '{' '.join(texts)[:40]}...' has "
                    f"{len(row.tokens)} tokens for at most 30 s of speech, this "
                    f"Whisper takes {limit}; is it the transcript of this recording?"
                )

    def _tokens(
        self, heard: _Heard, embeds: np.ndarray, codes: np.ndarray | None
    ) -> TasteTokens:
        encoded = encode_words(heard.words, self.encode_text)
        return TasteTokens(
            words=tuple(heard.words),
            embeds=embeds,
            speaker=self._embed_speaker(heard),
            asr_tokens=np.asarray(encoded.tokens, dtype=np.int64),
            asr_words=np.asarray(encoded.words, dtype=np.int64),
            codes=codes,
            times=heard.times,
            span_s=(0.0, len(heard.wave) / SAMPLE_RATE_HZ),
            models=self.models,
        )

    def _embed_speaker(self, heard: _Heard) -> np.ndarray:
        encoder = self.speaker_encoder
        with _naming(heard.name):
            embedding = encoder.embed(heard.wave)
        wanted = self.model.decoder.speaker_dim
        if wanted is not None and len(embedding) != wanted:
            raise ValueError(
                f"speaker_model '{self.speaker_model}' embeds speakers in "
                f"{len(embedding)} values, this tokenizer was trained with {wanted}; "
                "give the one of its training"
            )
        return embedding


def token_batch(
    texts: Sequence[TokenizedWords],
    speakers: Sequence[np.ndarray],
    device: torch.device,
) -> TokenBatch:
    """Pad the tokens of utterances; speakers are (speaker_dim,) float32 each."""
    items = [
        (
            "",
            {
                "asr_tokens": np.asarray(text.tokens, dtype=np.int64),
                "asr_words": np.asarray(text.words, dtype=np.int64),
                "spembs": speaker,
            },
        )
        for text, speaker in zip(texts, speakers, strict=True)
    ]
    padded = {n: v.to(device) for n, v in pad_arrays(items).items()}
    return TokenBatch.from_padded(padded)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Put the name of a recording in front of what is wrong with it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _rows(states: EncoderStates, places: list[int]) -> EncoderStates:
    index = torch.tensor(places, device=states.keys.device)
    parts = (states.keys, states.values, states.lengths)
    return EncoderStates(*(part[index] for part in parts))
