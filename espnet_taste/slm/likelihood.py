"""Teacher-forced scores of single utterances: sums and counts, never means.

Sums can be pooled over utterances and jobs, and compared between conditions; a mean
of means cannot.

Symbols: B batch, N positions that predict a token, W words, Q codebooks, S streams
of codes that are predicted apart (Q, or 1 for the latent).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from espnet_taste.slm.delay import DelayBatch
from espnet_taste.slm.losses import text_losses
from espnet_taste.slm.model import SpokenLM
from espnet_taste.types import IGNORE


@dataclass(frozen=True)
class SpokenLMScores:
    """Sums over each utterance of a batch."""

    text_ce: Tensor  # (B,), nats
    text_llm_ce: Tensor  # (B,), nats of the same text by the LLM without adapters
    text_alone_ce: Tensor  # (B,), and with adapters; neither reads TASTE
    text_hits: Tensor  # (B,) int64, tokens that are the model's best one
    num_tokens: Tensor  # (B,) int64
    taste_terms: dict[str, Tensor]  # the head's terms: name to (B,) or (B, Q)
    code_hits: Tensor  # (B, Q) int64, codes that are the chosen one
    num_words: Tensor  # (B,) int64


@dataclass(frozen=True)
class LogLikelihoods:
    """How likely every token and every word's codes are, in nats."""

    text: Tensor  # (B, N) float32; 0 where no token is predicted
    num_tokens: Tensor  # (B,) int64; the first so many positions of a row predict one
    codes: Tensor  # (B, W, S) float32; 0 behind the last word
    num_words: Tensor  # (B,) int64
    latent_losses: Tensor | None = None  # (B, W) float32; 0 behind the last word


@torch.no_grad()
def log_likelihoods(slm: SpokenLM, batch: DelayBatch) -> LogLikelihoods:
    """Return the log-likelihoods of a batch, by one forward pass.

    Of the latent it is the density of the summed code; that is no probability, may be
    above 0, and is compared with nothing but itself.

    Args:
        slm: The spoken LM, in eval mode.
        batch: Layouts and codes.

    Raises:
        ValueError: If ``slm`` is in train mode.
    """
    _require_eval(slm)
    hidden = slm.read(slm.embed(batch))
    text_hidden, labels = slm.text_positions(hidden, batch)
    text = text_losses(text_hidden, labels, slm.output_layer)
    prediction = slm.predict_words(hidden, batch)
    codes = slm.head.log_likelihoods(prediction, batch.word_codes, slm.codebooks)
    is_word = batch.word_codes[..., 0] != IGNORE
    losses = slm.head.latent_losses(prediction, batch.word_codes, slm.codebooks)
    return LogLikelihoods(
        text=-text.ce,
        num_tokens=(labels != IGNORE).sum(1),
        codes=codes.masked_fill(~is_word[..., None], 0.0),
        num_words=is_word.sum(1),
        latent_losses=None if losses is None else losses.masked_fill(~is_word, 0.0),
    )


@torch.no_grad()
def score(
    slm: SpokenLM,
    batch: DelayBatch,
    codes_read: Tensor | None = None,
    text_llm: PreTrainedModel | None = None,
) -> SpokenLMScores:
    """Score every utterance of a batch.

    Args:
        slm: The spoken LM, in eval mode.
        batch: Layouts and codes.
        codes_read: What is read of each word instead of its own codes, which stay
            what is to be predicted; (B, W, Q), int64.
        text_llm: The LLM before it was trained itself; not needed where adapters were.

    Returns:
        The sums.

    Raises:
        ValueError: If ``slm`` is in train mode (its latent would be random), or its LLM
            was trained and ``text_llm`` is not given.
    """
    _require_eval(slm)
    if slm.trains_llm and text_llm is None:
        raise ValueError("this LLM itself was trained; give text_llm, it before that")
    read = batch if codes_read is None else replace(batch, word_codes=codes_read)
    hidden = slm.read(slm.embed(read))
    text_hidden, labels = slm.text_positions(hidden, batch)
    text = text_losses(text_hidden, labels, slm.output_layer)
    base, alone = (
        text_losses(hidden, labels, slm.output_layer)
        for hidden in (
            slm.read_text_only(batch, llm=text_llm),
            slm.read_text_only(batch, adapted=True),
        )
    )

    is_word = batch.word_codes[..., 0] != IGNORE
    prediction = slm.predict_words(hidden, read)
    terms = slm.head.losses(prediction, batch.word_codes, slm.codebooks).terms
    codes = slm.head.choose(prediction, slm.codebooks)
    hits = (codes == batch.word_codes) & is_word[..., None]
    return SpokenLMScores(
        text_ce=text.ce.sum(1),
        text_llm_ce=base.ce.sum(1),
        text_alone_ce=alone.ce.sum(1),
        text_hits=text.hits.sum(1),
        num_tokens=(labels != IGNORE).sum(1),
        taste_terms={name: _sum_words(term, is_word) for name, term in terms.items()},
        code_hits=hits.sum(1),
        num_words=is_word.sum(1),
    )


def _require_eval(slm: SpokenLM) -> None:
    if slm.training:
        raise ValueError("the spoken LM is in train mode; call eval() first")


def _sum_words(term: Tensor, is_word: Tensor) -> Tensor:
    mask = is_word.view(*is_word.shape, *[1] * (term.dim() - 2))
    return term.masked_fill(~mask, 0.0).sum(1)
