"""Trained models at work on prepared utterances: codes, scores, units, audio.

Everything here takes lists and works in padded batches whose result does not
depend on what else is in them.

Symbols: U utterances, W words, Q codebooks, D TASTE width, S units.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from espnet_taste.data.collate import pad_arrays
from espnet_taste.data.utterances import Utterances
from espnet_taste.decoder.contracts import UnitSampling
from espnet_taste.decoder.layout import whole_rows
from espnet_taste.layers.exchange import repeat_to_width, word_by_word
from espnet_taste.layers.word_pooling import first_of_words
from espnet_taste.pipeline.devices import find_device
from espnet_taste.sampling import RowStreams
from espnet_taste.tasks.tokenizer_builder import TokenizerBuilder
from espnet_taste.tasks.tokenizer_model import TokenBatch, unit_hits
from espnet_taste.types import IGNORE

Item = tuple[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class GeneratedUnits:
    """Units that the decoder produced for one utterance."""

    units: np.ndarray  # (S,) int64
    stopped_by: str  # "end" or "max_len"


class TokenizerInference:
    """A trained speech tokenizer with its unit decoder.

    Args:
        model_file: Checkpoint of a tokenizer training.
        config_file: Its ``config.yaml``; None for the one beside the checkpoint.
        device: Torch device.

    Raises:
        FileNotFoundError: If a file is absent.
        ValueError: If config and checkpoint do not fit, or there is no such device.
    """

    # Punctuation between blanks has no code: alignment joins it to words in training.
    joins_punctuation = True
    # How units are drawn where nobody says it: as conf/decode.yaml does.
    sampling = UnitSampling(
        top_k=10, temperature=0.8, bounds="tokens", min_token_s=0.04
    )

    def __init__(
        self,
        model_file: str | Path,
        config_file: str | Path | None = None,
        device: str = "cpu",
    ):
        self.device = find_device(device)
        self.model, self.args = TokenizerBuilder.build_model_from_file(
            config_file, model_file, device
        )
        self.preprocess = TokenizerBuilder.build_preprocess_fn(self.args, train=False)
        self.collate = TokenizerBuilder.build_collate_fn(self.args, train=False)

    @property
    def is_text_only(self) -> bool:
        """True if the decoder reads text alone."""
        return self.model.aggregator is None

    def open(
        self,
        data_dir: str | Path,
        features_dir: str | Path,
        keys: Container[str] | None = None,
    ) -> Utterances:
        """Open a prepared set, or these keys, with the features the model needs."""
        names = ["units", "spembs"]
        if not self.is_text_only:
            names.append("encoder_states")
        return Utterances(data_dir, features_dir, names, self.preprocess, keys)

    @torch.no_grad()
    def word_features(self, items: Sequence[Item]) -> list[Tensor]:
        """Return the aggregator's feature of every word, (W, D) an utterance."""
        batch, inputs = self._batch(items)
        features = self.model.aggregate(batch, **inputs)
        return _rows(first_of_words(features, batch.words, batch.token_lengths), batch)

    @torch.no_grad()
    def word_codes(self, items: Sequence[Item]) -> list[np.ndarray]:
        """Return the codes of every word, (W, Q) int64 an utterance.

        Raises:
            ValueError: If this tokenizer has no quantizer.
        """
        batch, inputs = self._batch(items)
        taste = self.model.tokenize(batch, **inputs)
        if taste is None or taste.codes is None:
            raise ValueError("this tokenizer has no quantizer, hence no codes")
        codes = first_of_words(taste.codes, batch.words, batch.token_lengths)
        return [row.cpu().numpy() for row in _rows(codes, batch)]

    @torch.no_grad()
    def unit_counts(
        self, items: Sequence[Item], others: Sequence[Item]
    ) -> dict[str, list[dict[str, float]]]:
        """Score the true units under matched and exchanged conditions.

        Args:
            items: Utterances.
            others: As many utterances, whose text and codes are exchanged in.

        Returns:
            Condition to sums per utterance (``unit_hits``); a text-only decoder has
            no exchange of codes.
        """
        batch, inputs = self._batch([*items, *others])
        taste = self.model.tokenize(batch, **inputs)
        embeds = None if taste is None else taste.quantized
        own, other = batch.split(len(items))
        layout = whole_rows(
            own.token_lengths,
            inputs["units"][: len(items)].clamp(min=0),
            inputs["units_lengths"][: len(items)],
            num_tokens=own.tokens.size(1),
            num_units=self.model.decoder.num_units,
        )
        other_text = repeat_to_width(other.tokens, other.token_lengths)
        tokens = {"matched": own.tokens, "exchanged_text": other_text}
        taste_of: dict[str, Tensor | None] = {}
        if embeds is not None:
            own_taste, other_taste = embeds[: len(items)], embeds[len(items) :]
            lengths = other.token_lengths
            tokens |= {"exchanged_codes": own.tokens, "exchanged_both": other_text}
            taste_of = {
                "matched": own_taste,
                "exchanged_text": own_taste,
                # Own words get the codes of others, other words bring their own.
                "exchanged_codes": word_by_word(
                    other_taste, lengths, other.words, own.words
                ),
                "exchanged_both": repeat_to_width(other_taste, lengths),
            }
        counts = {}
        for condition, text in tokens.items():
            logits = self.model.decoder(
                text, taste_of.get(condition), own.speaker, layout
            )
            sums = unit_hits(logits, layout.labels)
            columns = zip(*(values.tolist() for values in sums.values()), strict=True)
            counts[condition] = [dict(zip(sums, row, strict=True)) for row in columns]
        return counts

    @torch.no_grad()
    def generate(
        self, items: Sequence[Item], sampling: UnitSampling, seeds: Sequence[int]
    ) -> list[GeneratedUnits]:
        """Produce units from text and the utterances' own codes."""
        batch, inputs = self._batch(items)
        taste = self.model.tokenize(batch, **inputs)
        embeds = None if taste is None else taste.quantized
        return self.generate_from_embeds(batch, embeds, sampling, seeds)

    @torch.no_grad()
    def generate_from_codes(
        self,
        texts: Sequence[str],
        codes: Sequence[np.ndarray],
        speakers: Sequence[np.ndarray],
        sampling: UnitSampling,
        seeds: Sequence[int],
    ) -> list[GeneratedUnits]:
        """Produce units from text and given codes, without any speech.

        Args:
            texts: One text an utterance.
            codes: Codes of its words, each (W, Q), int64.
            speakers: Speaker embeddings, each (speaker_dim,), float32.
            sampling: How to draw.
            seeds: Seed of the drawing, one an utterance.

        Raises:
            ValueError: If a text has another number of words than codes.
        """
        items = []
        for text, rows, speaker in zip(texts, codes, speakers, strict=True):
            data = self.preprocess(text, {"text": text, "spembs": speaker})
            words = data["asr_words"]
            if words[-1] + 1 != len(rows):
                raise ValueError(
                    f"'{text}' has {words[-1] + 1} words but {len(rows)} rows of codes"
                )
            items.append((text, data | {"codes": rows[words]}))
        padded = pad_arrays(items)
        padded = {name: value.to(self.device) for name, value in padded.items()}
        batch = TokenBatch.from_padded(padded)
        embeds = self.model.quantizer.decode(padded["codes"])
        return self.generate_from_embeds(batch, embeds, sampling, seeds)

    @torch.no_grad()
    def generate_from_embeds(
        self,
        batch: TokenBatch,
        embeds: Tensor | None,
        sampling: UnitSampling,
        seeds: Sequence[int],
    ) -> list[GeneratedUnits]:
        """Produce units from tokens and TASTE embeddings.

        Args:
            batch: Text and voices.
            embeds: TASTE embeddings of the tokens, (U, Ta, D); None for text alone.
            sampling: How to draw.
            seeds: Seed of the drawing, one an utterance.
        """
        out = self.model.decoder.generate(
            batch.tokens,
            batch.token_lengths,
            embeds,
            batch.speaker,
            sampling=replace(sampling, unit_rate_hz=self.args.unit_rate_hz),
            source=RowStreams(seeds, self.device),
        )
        rows = zip(out.units, out.lengths.tolist(), out.has_ended.tolist(), strict=True)
        return [
            GeneratedUnits(row[:length].cpu().numpy(), "end" if ended else "max_len")
            for row, length, ended in rows
        ]

    def _batch(self, items: Sequence[Item]) -> tuple[TokenBatch, dict[str, Tensor]]:
        _, padded = self.collate(list(items))
        padded = {name: value.to(self.device) for name, value in padded.items()}
        batch = TokenBatch.from_padded(padded)
        return batch, padded


def _rows(values: Tensor, batch: TokenBatch) -> list[Tensor]:
    """Cut rows of words, (U, W, ...), to each utterance's number of words."""
    last = batch.words.masked_fill(~batch.mask, IGNORE).amax(1)
    return [row[: count + 1] for row, count in zip(values, last.tolist(), strict=True)]
