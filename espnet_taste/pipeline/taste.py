"""The speech tokenizer as users want it: audio to TASTE tokens and back.

    tokenizer = TasteTokenizer.from_pretrained("exp/mini_an4")
    tokens = tokenizer.encode("speech.wav")
    print(tokens.text, tokens.codes)
    tokenizer.decode(tokens).save("again.wav")

Lists go in and come out as lists, worked on in padded batches; a row of a batch gets
what it would get alone.

Symbols: U utterances, W words, Ta tokens, Q codebooks, D TASTE width.

Source: TASTE (arXiv:2504.07053).
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet_taste.data.collate import pad_arrays
from espnet_taste.decoder.contracts import AbsVocoder, UnitSampling
from espnet_taste.layers.precision import AMP_DTYPES, autocast
from espnet_taste.pipeline.devices import find_device
from espnet_taste.pipeline.encoding import TasteEncoder, token_batch
from espnet_taste.pipeline.inputs import Audio, is_many, match_texts, read_named, slices
from espnet_taste.pipeline.listening import Transcriber
from espnet_taste.pipeline.packed import find_files
from espnet_taste.pipeline.released import (
    RELEASED_OPTIONS,
    ReleasedInference,
    find_released,
    find_speaker_model,
    open_released_vocoder,
    tokenizer_id,
)
from espnet_taste.pipeline.speech import DecodeOptions, Speech, UnitSynthesizer
from espnet_taste.pipeline.stretches import MOST_WORDS, join_stretches, stretches
from espnet_taste.pipeline.tokenizer import TokenizerInference
from espnet_taste.pipeline.tokens import TasteTokens, listed, require_same_tokenizer
from espnet_taste.pipeline.windows import WINDOW_S
from espnet_taste.types import SAMPLE_RATE_HZ
from espnet_taste.weights.digests import portable_name, sha256_of
from espnet_taste.words import TokenizedWords


class TasteTokenizer:
    """Encode speech to words with TASTE codes, and decode them to speech.

    Args:
        inference: A trained speech tokenizer with its unit decoder.
        vocoder: Units to audio; None for a tokenizer that only encodes.
        speaker_model: Weight name, folder or file of the speaker encoder: the one of
            the training.
        sampling: How ``decode`` draws units; None for the released way if the model is
            a released one, else for that of ``conf/decode.yaml``.
        dtype: "float32"; "bfloat16" to run under autocast where the device has it (on
            CPUs to encode so and decode in float32, which is faster there); or
            "float16" to encode so, as the released training did, and decode in float32.
        transcriber: What writes transcripts that are not given, e.g. an ``EspnetAsr``;
            None for the tokenizer's Whisper, which needs no second encoder pass.
        model_id: Name of the tokenizer in what it makes.

    Raises:
        ValueError: If the tokenizer reads text alone, or ``dtype`` is unknown.
    """

    def __init__(
        self,
        inference: TokenizerInference,
        vocoder: AbsVocoder | None = None,
        *,
        speaker_model: str = "resemblyzer/ge2e",
        sampling: UnitSampling | None = None,
        dtype: str = "float32",
        transcriber: Transcriber | None = None,
        model_id: str = "",
    ):
        if inference.is_text_only:
            raise ValueError("this tokenizer reads text alone; open one with TASTE")
        if dtype != "float32" and dtype not in AMP_DTYPES:
            raise ValueError(
                f"dtype must be float32 or one of {sorted(AMP_DTYPES)}, got '{dtype}'"
            )
        self.inference, self.device = inference, inference.device
        self.model, self.args = inference.model, inference.args
        self.amp_dtype = AMP_DTYPES.get(dtype)
        # On a CPU autocast makes bfloat16 of all weights for every unit: 94 ms a unit
        # at the released size (one busy core with AMX); float32 takes 15 on two.
        decodes_so = dtype == "bfloat16" and self.device.type != "cpu"
        self.decode_dtype = self.amp_dtype if decodes_so else None
        self.sampling = sampling or inference.sampling
        names = {"whisper": self.args.whisper, "speaker": speaker_model}
        self.models = {role: portable_name(name) for role, name in names.items()}
        if model_id:
            self.models["tokenizer"] = model_id
        self.encoder = TasteEncoder(
            inference, speaker_model, self.models, self.amp_dtype, transcriber
        )
        self.synthesize = None
        if vocoder is not None:
            self.synthesize = UnitSynthesizer(vocoder, str(self.device))

    @staticmethod
    def from_pretrained(
        source: str | Path, *, device: str = "cpu", **options: Any
    ) -> "TasteTokenizer":
        """Open a trained model.

        Args:
            source: An experiment folder of the recipe, a packed ``.zip`` file, a name
                of ESPnet's model zoo or the hub; a folder with a released checkpoint
                (converted, or as published and then converted once into the cache).
            device: Torch device.
            **options: Further arguments of the constructor; for a released checkpoint
                also those of ``ReleasedInference``. The speaker encoder is by default
                the one that lies with the model or that its training recorded.

        Raises:
            FileNotFoundError: If a part of the model is absent.
            ValueError: If a part does not fit, there is no such device, or an option
                is for released checkpoints and this is none.
        """
        find_device(device)
        if (folder := find_released(source)) is not None:
            return _open_released(source, folder, device, options)
        files = find_files(source, need_slm=False)
        if foreign := sorted(options.keys() & RELEASED_OPTIONS):
            raise ValueError(
                f"{', '.join(foreign)}: only for released checkpoints; {source} has "
                "its own from its training"
            )
        reconstructor = files.reconstructor(DecodeOptions(), device)
        vocoder = reconstructor.synthesize.vocoder
        defaults = {"model_id": sha256_of(files.model_file), "vocoder": vocoder}
        if (speaker := files.speaker_model()) is not None:
            defaults["speaker_model"] = speaker
        return TasteTokenizer(reconstructor.tokenizer, **{**defaults, **options})

    def encode(
        self,
        audio: Audio | Sequence[Audio],
        text: str | Sequence[str | None] | None = None,
        *,
        sample_rate_hz: float = SAMPLE_RATE_HZ,
        word_times: bool = True,
        batch_size: int = 8,
    ) -> TasteTokens | list[TasteTokens]:
        """Turn speech into words and TASTE codes.

        Args:
            audio: One recording or a list: path, open file, array, tensor, or an
                item of a Hugging Face dataset, see ``read_any``. Any length.
            text: Transcript, or a list of them; None lets the tokenizer's Whisper
                write it, from the states of the same encoder pass.
            sample_rate_hz: Rate of arrays and tensors, in Hz.
            word_times: Also find when every word was spoken (recordings over 30 s
                always need that).
            batch_size: Recordings at once.

        Returns:
            One value for one recording, a list for a list.

        Raises:
            AudioError: If audio cannot be used; it names the item.
            TypeError: If audio or text is nothing of the kind, or one is a list and
                the other is not.
            ValueError: If there are not as many texts as recordings, no word, or
                ``batch_size`` is below 1.
        """
        many = is_many(audio)
        audios = list(audio) if many else [audio]
        texts = match_texts(text, len(audios) if many else None)
        names = [
            f"recording {n}" if many else "the recording" for n in range(len(audios))
        ]
        waves = [
            read_named(item, sample_rate_hz, name)
            for item, name in zip(audios, names, strict=True)
        ]
        results: list[TasteTokens | None] = [None] * len(waves)
        is_long = [len(wave) > WINDOW_S * SAMPLE_RATE_HZ for wave in waves]
        short = [place for place, long in enumerate(is_long) if not long]
        for part in slices(len(short), batch_size):
            places = short[part]
            batch = self.encoder.encode_short(
                [waves[p] for p in places],
                [texts[p] for p in places],
                word_times,
                [names[p] for p in places],
            )
            for place, tokens in zip(places, batch, strict=True):
                results[place] = tokens
        for place in np.flatnonzero(is_long):
            results[place] = self.encoder.encode_long(
                waves[place], texts[place], batch_size, names[place]
            )
        return results if many else results[0]

    @torch.no_grad()
    def decode(
        self,
        tokens: TasteTokens | Sequence[TasteTokens],
        *,
        seed: int = 1986,
        sampling: UnitSampling | None = None,
        batch_size: int = 8,
        words_at_once: int | None = MOST_WORDS,
    ) -> Speech | list[Speech]:
        """Turn words and TASTE codes into speech.

        Args:
            tokens: One utterance or a list.
            seed: Seed of the drawing, the same for every utterance: what one gets
                does not depend on the others.
            sampling: How to draw units; None for ``self.sampling``.
            batch_size: Utterances at once.
            words_at_once: Longer utterances are spoken in ``stretches``; None for one
                row each, as released.

        Returns:
            One value for one utterance, a list for a list.

        Raises:
            TypeError: If ``tokens`` are none.
            ValueError: If there is no vocoder, an utterance has no words, or its codes
                or voice are of another tokenizer or outside what they may be.
        """
        if self.synthesize is None:
            raise ValueError("this tokenizer was opened without a vocoder")
        rows, many = listed(tokens)
        for row in rows:
            self._check(row)
        cut = [stretches(row, words_at_once) for row in rows]
        every, parts = [stretch for row in cut for stretch in row], []
        for part in slices(len(every), batch_size):
            parts += self._decode(every[part], seed, sampling or self.sampling)
        speech = join_stretches(parts, map(len, cut))
        return speech if many else speech[0]

    def _decode(
        self, rows: list[TasteTokens], seed: int, sampling: UnitSampling
    ) -> list[Speech]:
        texts = [TokenizedWords(row.asr_tokens, row.asr_words) for row in rows]
        batch = token_batch(texts, [row.speaker for row in rows], self.device)
        embeds = [r.embeds if r.codes is None else self.embed(r.codes) for r in rows]
        items = [
            ("", {"embeds": values[row.asr_words]})
            for row, values in zip(rows, embeds, strict=True)
        ]
        embeds = pad_arrays(items)["embeds"].to(self.device)
        with autocast(self.device, self.decode_dtype):
            results = self.inference.generate_from_embeds(
                batch, embeds, sampling, [seed] * len(rows)
            )
        return self.synthesize(
            [result.units for result in results],
            [row.speaker for row in rows],
            [{"stopped_by": result.stopped_by} for result in results],
        )

    def stream(
        self,
        tokens: TasteTokens | Iterable[TasteTokens],
        *,
        words_at_once: int = 8,
        **options: Any,
    ) -> Iterator[Speech]:
        """Decode piece by piece, so that audio is there before the last word.

        Args:
            tokens: An utterance, or pieces of one as they arrive.
            words_at_once: Words to wait for; more sound more fluent.
            **options: As in ``decode``.

        Yields:
            The audio of at least ``words_at_once`` words, of fewer at the end.

        Raises:
            TypeError, ValueError: As ``decode``; if ``words_at_once`` is below 1.
        """
        if words_at_once < 1:
            raise ValueError(f"words_at_once must be at least 1, got {words_at_once}")
        if isinstance(tokens, TasteTokens):
            tokens = [
                tokens[start : start + words_at_once]
                for start in range(0, len(tokens), words_at_once)
            ]
        waiting: list[TasteTokens] = []
        for piece in tokens:
            waiting.append(piece)
            if sum(map(len, waiting)) >= words_at_once:
                yield self.decode(TasteTokens.concatenate(waiting), **options)
                waiting = []
        if any(map(len, waiting)):  # the last pieces may have no words
            yield self.decode(TasteTokens.concatenate(waiting), **options)

    def reconstruct(
        self,
        audio: Audio | Sequence[Audio],
        text: str | Sequence[str | None] | None = None,
        **options: Any,
    ) -> Speech | list[Speech]:
        """Encode and decode.

        Args:
            audio: As for ``encode``.
            text: As for ``encode``.
            options: ``sample_rate_hz`` of ``encode``, ``seed`` and ``sampling`` of
                ``decode``, ``batch_size`` of both.

        Returns:
            One value for one recording, a list for a list.

        Raises:
            AudioError, TypeError, ValueError: As ``encode`` and ``decode``.
        """
        names = {"sample_rate_hz", "batch_size"} & options.keys()
        tokens = self.encode(
            audio, text, word_times=False, **{name: options[name] for name in names}
        )
        options.pop("sample_rate_hz", None)
        return self.decode(tokens, **options)

    def embed(self, codes: np.ndarray) -> np.ndarray:
        """Return the TASTE embeddings of codes, (W, Q) int64 -> (W, D) float32.

        Raises:
            ValueError: If there is no quantizer, or codes are outside the codebooks.
        """
        self.check_codes(codes, "the codes")
        with torch.no_grad():
            rows = torch.from_numpy(np.ascontiguousarray(codes)).to(self.device)
            return self.model.quantizer.decode(rows).float().cpu().numpy()

    def _check(self, tokens: TasteTokens) -> None:
        if len(tokens) == 0:
            raise ValueError("there are no words to decode")
        require_same_tokenizer(tokens, self.models, "decode")
        if not np.any(tokens.speaker):
            raise ValueError(
                f"'{tokens.text[:40]}' has no voice: its speaker embedding is zero; "
                "give one to what made it (speaker=), e.g. that of encoded speech"
            )
        self.check_speaker(tokens.speaker, f"'{tokens.text[:40]}'")
        if tokens.codes is not None:
            self.check_codes(tokens.codes, f"'{tokens.text[:40]}'")

    def check_speaker(self, speaker: np.ndarray, where: str) -> None:
        """Refuse what is no speaker embedding of this tokenizer, for ``where``.

        Raises:
            ValueError: If its shape is not (speaker_dim,) or a value is not finite.
        """
        wanted = self.model.decoder.speaker_dim or len(speaker)
        if speaker.shape != (wanted,) or not np.isfinite(speaker).all():
            raise ValueError(
                f"{where}: a speaker embedding of shape {speaker.shape}, expected "
                f"{wanted} finite numbers; take the speaker of encoded speech"
            )

    def check_codes(self, codes: np.ndarray, where: str) -> None:
        """Refuse what are no codes of this tokenizer.

        Args:
            codes: (W, Q), int64.
            where: Whose they are, for the message.

        Raises:
            ValueError: If the number of codebooks is another, or a code is outside.
        """
        quantizer = self.model.quantizer
        size, count = quantizer.codebook_size, quantizer.num_codebooks
        if codes.ndim != 2 or codes.shape[1] != count:
            raise ValueError(
                f"{where}: codes of shape {codes.shape}, expected (words, {count})"
            )
        if codes.size and not 0 <= codes.min() <= codes.max() < size:
            raise ValueError(
                f"{where}: codes {codes.min()}..{codes.max()}, expected 0..{size - 1}"
            )


def _open_released(
    source: str | Path, folder: Path, device: str, options: dict[str, Any]
) -> TasteTokenizer:
    """Open a converted folder; the source may hold the speaker encoder."""
    own = {name: options.pop(name) for name in RELEASED_OPTIONS & options.keys()}
    inference = ReleasedInference(folder, device=device, **own)
    options = {
        "model_id": tokenizer_id(folder),
        "speaker_model": find_speaker_model(source, folder),
        "vocoder": open_released_vocoder(folder, device),
        **options,
    }
    return TasteTokenizer(inference, options.pop("vocoder"), **options)
