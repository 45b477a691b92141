"""ESPnet model of the speech tokenizer: reconstruction of units from text + TASTE.

The model maths live in ``tokenizer`` and ``decoder``; this file joins them,
weighs the losses and reports what tells whether the decoder uses its condition.

Symbols: U utterances, Ta Whisper tokens, S units, D TASTE width, (P, L) packed
rows of the unit LM.

Source: TASTE (arXiv:2504.07053), stage 1; reference configs ``stage1-1`` to
``stage1-3``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from espnet2.torch_utils.device_funcs import force_gatherable
from torch import Tensor

from espnet_taste.decoder.contracts import AbsUnitDecoder
from espnet_taste.decoder.layout import UnitLMLayout, whole_rows
from espnet_taste.layers.attention_guide import (
    AttentionGuide,
    GuidedSteps,
    SpeechGuide,
)
from espnet_taste.layers.exchange import exchange, word_by_word
from espnet_taste.layers.precision import amp_dtype_of, autocast, in_float64
from espnet_taste.tasks.attention_tap import AttentionTap
from espnet_taste.tasks.building import check_speaker_dim
from espnet_taste.tasks.checkpointing import TasteESPnetModel
from espnet_taste.tokenizer.contracts import AbsAggregator, AbsEncoder, AbsQuantizer
from espnet_taste.tokenizer.encoder import EncoderStates
from espnet_taste.tokenizer.quantizer import QuantizerOutput
from espnet_taste.types import IGNORE


@dataclass(frozen=True)
class TokenBatch:
    """Text and voice of a batch, padding made safe for embedding tables."""

    tokens: Tensor  # (U, Ta) int64, 0 on padding
    token_lengths: Tensor  # (U,) int64
    words: Tensor  # (U, Ta) int64
    speaker: Tensor  # (U, speaker_dim) float

    @classmethod
    def from_padded(cls, batch: Mapping[str, Tensor]) -> "TokenBatch":
        """Take the fields out of a collated batch."""
        return cls(
            batch["asr_tokens"].clamp(min=0),
            batch["asr_tokens_lengths"],
            batch["asr_words"],
            batch["spembs"],
        )

    @property
    def mask(self) -> Tensor:
        """True on valid tokens, (U, Ta)."""
        positions = torch.arange(self.tokens.size(1), device=self.tokens.device)
        return positions < self.token_lengths[:, None]

    def split(self, index: int) -> tuple["TokenBatch", "TokenBatch"]:
        """Cut into the first ``index`` utterances and the rest."""
        fields = vars(self).values()
        return TokenBatch(*(f[:index] for f in fields)), TokenBatch(
            *(f[index:] for f in fields)
        )


class TasteTokenizerModel(TasteESPnetModel):
    """Train aggregator, quantizer and unit decoder by reconstruction.

    Not the object for users (that is ``pipeline.taste.TasteTokenizer``): this one
    speaks ESPnet's training protocol.

    Args:
        encoder: Frozen speech encoder; None in text-only training.
        aggregator: Cross-attention aggregator; None in text-only training.
        quantizer: Residual quantizer or ``NoQuantizer``; None in text-only training.
        decoder: Unit LM.
        commitment_weight: Weight of the commitment loss (reference: 1).
        commitment_warmup_steps: Steps over which that weight grows from 0; like all
            steps here batches, of which ``accum_grad`` make an update.
        listening_weight: Weight with which the aggregator's heads are taught in
            training to listen to a token's own word (reference: 0).
        listening_every: Teach it at one of so many steps, which costs less on a CPU.
        listening_first: Steps at the start that all teach.
        alignment_weight: Weight with which heads of the decoder are taught in training
            to look at the word that is spoken, where its time is known (reference: 0).
        amp_dtype: "bfloat16" to run under autocast on any device that has
            instructions for it; None for the trainer's precision.
        extract_feats_in_collect_stats: Only there because ESPnet asks for it.

    Raises:
        ValueError: If only one of aggregator and quantizer is given, the decoder cannot
            be guided, ``amp_dtype`` is unknown or ``listening_every`` is below 1.
    """

    def __init__(
        self,
        encoder: AbsEncoder | None,
        aggregator: AbsAggregator | None,
        quantizer: AbsQuantizer | None,
        decoder: AbsUnitDecoder,
        *,
        commitment_weight: float = 1.0,
        commitment_warmup_steps: int = 0,
        alignment_weight: float = 0.0,
        listening_weight: float = 0.0,
        listening_every: int = 1,
        listening_first: int = 0,
        amp_dtype: str | None = None,
        extract_feats_in_collect_stats: bool = False,
    ):
        super().__init__()
        if (aggregator is None) != (quantizer is None):
            raise ValueError(
                "aggregator and quantizer belong together: give both (for no discrete "
                "bottleneck use quantizer: no_quantizer) or neither (text only)"
            )
        if alignment_weight and not hasattr(decoder, "guide"):
            raise ValueError(
                f"alignment_weight: {type(decoder).__name__} cannot be guided; set it "
                "to 0"
            )
        self.encoder = encoder
        self.aggregator = aggregator
        self.quantizer = quantizer
        self.decoder = decoder
        self.attention_tap = AttentionTap()
        self.commitment_weight = commitment_weight
        self.commitment_warmup_steps = commitment_warmup_steps
        self.alignment_weight = alignment_weight
        self.listening_weight = listening_weight
        self.listening_steps = GuidedSteps(listening_every, listening_first)
        self.amp_dtype = amp_dtype_of(amp_dtype)
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.long))
        frozen = [] if encoder is None else ["encoder"]
        if aggregator is not None:
            frozen += [f"aggregator.{name}" for name in aggregator.frozen_parts]
        frozen += [f"decoder.{name}" for name in decoder.frozen_parts]
        self.protect_frozen_parts(frozen)

    def forward(
        self,
        asr_tokens: Tensor,
        asr_tokens_lengths: Tensor,
        asr_words: Tensor,
        units: Tensor,
        units_lengths: Tensor,
        spembs: Tensor,
        layout: UnitLMLayout | None = None,
        token_times: Tensor | None = None,
        token_times_lengths: Tensor | None = None,
        **speech: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Compute the reconstruction loss of a batch.

        Args:
            asr_tokens: Whisper tokens, (U, Ta), int64; any padding.
            asr_tokens_lengths: (U,), int64.
            asr_words: Word index of every token, (U, Ta), int64; any padding.
            units: Speech units, (U, S), int64; any padding.
            units_lengths: (U,), int64.
            spembs: Speaker embeddings, (U, speaker_dim), float.
            layout: Rows of the unit LM; None for one whole row an utterance.
            token_times: Start and end of every token's word, (U, Ta, 2), float, s;
                zeros on padding.
            token_times_lengths: Not used: they are those of the tokens.
            **speech: ``encoder_states`` (U, T, 2D) with lengths, or ``speech``
                (U, N) 16 kHz with lengths; neither in text-only training.

        Returns:
            Loss, statistics and weight (number of units and ends predicted).

        Raises:
            ValueError: If the speaker embeddings are of another width.
        """
        check_speaker_dim("decoder_conf", spembs, self.decoder.speaker_dim)
        batch = TokenBatch(
            asr_tokens.clamp(min=0), asr_tokens_lengths, asr_words, spembs
        )
        with autocast(units.device, self.amp_dtype):
            taste, listening = self._listen(batch, token_times, **speech)
            if layout is None:
                layout = whole_rows(
                    asr_tokens_lengths,
                    units.clamp(min=0),
                    units_lengths,
                    num_tokens=asr_tokens.size(1),
                    num_units=self.decoder.num_units,
                )
            guide = self._guide(layout)
            logits = self._decode(batch, taste, layout, guide)
        stats = unit_statistics(logits, layout.labels)
        loss = stats["loss_units"]
        if guide is not None:
            stats["loss_alignment"] = guide.loss()
            loss = loss + self.alignment_weight * stats["loss_alignment"]
        if listening is not None:
            stats["loss_listening"] = listening.loss()
            loss = loss + self.listening_weight * stats["loss_listening"]
        if taste is not None:
            loss = loss + self._commitment(taste, stats)
        if self.training:
            self.num_steps += 1
            stats["padding_share"] = (layout.lm_rows == IGNORE).float().mean()
        else:
            self._add_reliance(batch, taste, layout, stats)
        stats["loss"] = loss
        weight = (layout.labels != IGNORE).sum()
        stats = {name: value.detach() for name, value in stats.items()}
        return force_gatherable((loss, stats, weight), loss.device)

    def tokenize(self, batch: TokenBatch, **speech: Tensor) -> QuantizerOutput | None:
        """Run encoder, aggregator and quantizer.

        Args:
            batch: TokenBatch.
            **speech: As in ``forward``.

        Returns:
            TASTE embeddings (U, Ta, D) with codes and commitment losses; None for a
            text-only model.
        """
        return self._listen(batch, None, **speech)[0]

    def aggregate(self, batch: TokenBatch, **speech: Tensor) -> Tensor:
        """Return the word-pooled features before the quantizer, (U, Ta, D)."""
        return self._aggregate(batch, self._encoder_states(**speech))

    def _listen(
        self, batch: TokenBatch, token_times: Tensor | None, **speech: Tensor
    ) -> tuple[QuantizerOutput | None, SpeechGuide | None]:
        """Return TASTE and, where the aggregator is to be taught, its guide."""
        if self.aggregator is None:
            return None, None
        states, guide = self._encoder_states(**speech), None
        teaches = self.training and self.listening_weight and token_times is not None
        if teaches and self.listening_steps.is_next(self.num_steps):
            guide = self.aggregator.guide(token_times, states)
        features = self._aggregate(batch, states, guide)
        return self.quantizer(features, batch.mask), guide

    def _aggregate(
        self,
        batch: TokenBatch,
        states: EncoderStates,
        guide: SpeechGuide | None = None,
    ) -> Tensor:
        if self.attention_tap.is_watched:
            self.attention_tap.show(self.aggregator, batch, states)
        sentence = (batch.tokens, batch.token_lengths, batch.words)
        watched = {} if guide is None else {"guide": guide}
        return self.aggregator(*sentence, states, **watched)

    def _encoder_states(self, **speech: Tensor) -> EncoderStates:
        if "encoder_states" in speech:
            return EncoderStates.unpack(
                speech["encoder_states"], speech["encoder_states_lengths"]
            )
        if "speech" in speech:
            return self.encoder(speech["speech"], speech["speech_lengths"])
        raise ValueError("the batch has neither 'encoder_states' nor 'speech'")

    def _guide(self, layout: UnitLMLayout) -> AttentionGuide | None:
        if not self.training or not self.alignment_weight:
            return None
        return self.decoder.guide(layout)

    def _decode(
        self,
        batch: TokenBatch,
        taste: QuantizerOutput | None,
        layout: UnitLMLayout,
        guide: AttentionGuide | None,
    ) -> Tensor:
        embeds = None if taste is None else taste.quantized
        options = {} if guide is None else {"guide": guide}
        return self.decoder(batch.tokens, embeds, batch.speaker, layout, **options)

    def _commitment(self, taste: QuantizerOutput, stats: dict) -> Tensor:
        """Add the quantizer's statistics; return its weighted loss."""
        commitment = taste.commitment.sum()
        stats["loss_commitment"] = commitment
        stats.update(self.quantizer.statistics(taste))
        weight = self.commitment_weight
        if self.commitment_warmup_steps:
            progress = self.num_steps / self.commitment_warmup_steps
            weight = weight * progress.clamp(max=1.0)
        return weight * commitment

    @torch.no_grad()
    def _add_reliance(
        self,
        batch: TokenBatch,
        taste: QuantizerOutput | None,
        layout: UnitLMLayout,
        stats: dict,
    ) -> None:
        """Report how much the loss rises with another utterance's condition.

        Near zero means that the decoder ignores the condition, and then no other
        number of this model means anything. A lone utterance has no other: NaN, which
        the reporter leaves out. (Ranks gather the statistics one by one, so all must
        have the same.)
        """
        names = ["reliance_text"] + ["reliance_codes"] * (taste is not None)
        if len(batch.tokens) == 1:
            stats.update(dict.fromkeys(names, stats["loss_units"].new_tensor(math.nan)))
            return
        embeds = None if taste is None else taste.quantized
        with autocast(batch.tokens.device, self.amp_dtype):
            other_text = exchange(batch.tokens, batch.token_lengths)
            logits = self.decoder(other_text, embeds, batch.speaker, layout)
            text_loss = unit_statistics(logits, layout.labels)["loss_units"]
            stats["reliance_text"] = text_loss - stats["loss_units"]
            if embeds is None:
                return
            other_taste = word_by_word(
                embeds.roll(-1, dims=0),
                batch.token_lengths.roll(-1, dims=0),
                batch.words.roll(-1, dims=0),
                batch.words,
            )
            logits = self.decoder(batch.tokens, other_taste, batch.speaker, layout)
            code_loss = unit_statistics(logits, layout.labels)["loss_units"]
            stats["reliance_codes"] = code_loss - stats["loss_units"]


def unit_statistics(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return the mean loss and the accuracies of predicted units.

    Args:
        logits: (P, L, C), float.
        labels: (P, L), int64, IGNORE where nothing is predicted.

    Returns:
        ``loss_units`` in nats, ``acc`` (top-1) and ``acc_top5``, all 0-dim; means
        over the labelled positions of the batch.
    """
    count = (labels != IGNORE).sum().clamp(min=1)
    flat = logits.float().flatten(0, 1)
    loss = F.cross_entropy(flat, labels.flatten(), ignore_index=IGNORE, reduction="sum")
    with torch.no_grad():
        best = flat.topk(min(5, flat.size(-1)), dim=-1).indices
        hits = best == labels.flatten()[:, None]  # IGNORE is never a class
        top1, top5 = hits[:, 0].sum(), hits.sum()
    return {"loss_units": loss / count, "acc": top1 / count, "acc_top5": top5 / count}


def unit_hits(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return sums per row, which can be pooled where means cannot.

    Args:
        logits: (P, L, C), float.
        labels: (P, L), int64, IGNORE where nothing is predicted.

    Returns:
        ``loss_sum`` in nats, ``top1``, ``top5`` and ``count``, each (P,).
    """
    loss = F.cross_entropy(
        logits.float().transpose(1, 2), labels, ignore_index=IGNORE, reduction="none"
    )
    best = logits.topk(min(5, logits.size(-1)), dim=-1).indices
    hits = best == labels[..., None]
    return {
        "loss_sum": in_float64(loss).sum(1),
        "top1": hits[..., 0].sum(1),
        "top5": hits.sum((1, 2)),
        "count": (labels != IGNORE).sum(1),
    }
