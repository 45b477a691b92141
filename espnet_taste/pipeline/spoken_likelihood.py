"""How likely a spoken LM finds utterances.

Symbols: W words.
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from espnet_taste.pipeline.inputs import slices
from espnet_taste.pipeline.scoring import OF_A_PART, ScoredItem
from espnet_taste.pipeline.slm import SpokenLMInference
from espnet_taste.pipeline.taste import TasteTokenizer
from espnet_taste.pipeline.tokens import TasteTokens, listed, require_same_tokenizer
from espnet_taste.slm.conventions import CONVENTIONS, OF_A_LATENT, ItemLikelihood
from espnet_taste.tokenizer.contracts import AbsQuantizer


class SpokenLikelihood:
    """A spoken LM that judges what its speech tokenizer encoded.

    Args:
        inference: A trained spoken LM.
        tokenizer: The tokenizer of its codes.

    Raises:
        ValueError: If it was trained on the codes of another tokenizer.
    """

    def __init__(self, inference: SpokenLMInference, tokenizer: TasteTokenizer):
        require_same_codebooks(inference.slm.codebooks, tokenizer.model.quantizer)
        self.inference = inference
        self.tokenizer = tokenizer

    def likelihoods(
        self,
        tokens: TasteTokens | Sequence[TasteTokens],
        *,
        before: Sequence[str] | None = None,
        after: Sequence[str] | None = None,
        batch_size: int = 8,
    ) -> ItemLikelihood | list[ItemLikelihood]:
        """Return how likely every token and every word's codes are, in nats.

        Args:
            tokens: One utterance or a list.
            before: Text in front of each of a list, read and not scored.
            after: Text behind each of a list; then only this text is scored.
            batch_size: Utterances at once.

        Raises:
            TypeError: If ``tokens`` are none.
            ValueError: If an utterance is of another tokenizer, has no codes, or is
                too long for the LLM; if there is not one text for each.
        """
        rows, many = listed(tokens)
        for name, texts in (("before", before), ("after", after)):
            if texts is not None and len(texts) != len(rows):
                raise ValueError(f"{name}: {len(rows)} items, but {len(texts)} texts")
        for number, row in enumerate(rows):
            self.check(row, "score", may_be_empty=bool(after and after[number]))
        found = []
        for part in slices(len(rows), batch_size):
            batch = self.inference.log_likelihoods(
                rows[part], before and before[part], after and after[part]
            )
            found += [ItemLikelihood(**arrays) for arrays in batch]
        return found if many else found[0]

    def log_likelihood(
        self,
        tokens: TasteTokens | Sequence[TasteTokens],
        convention: str = "taste",
        *,
        from_s: float | Sequence[float] | None = None,
        window_s: float = float("inf"),
        batch_size: int = 8,
    ) -> float | list[float]:
        """Return one number an utterance: how likely it is, higher is likelier.

        Args:
            tokens: One utterance or a list.
            convention: How token and code likelihoods are added up, a name in
                ``slm.conventions.CONVENTIONS``, ``"released"`` of a latent head,
                ``"localised"`` or ``"normalised"``; scores of two cannot be compared.
            from_s: For the last two: score what is said from this moment on, in s on
                the clock of the recording; one for all, or a list.
            window_s: Seconds after it that count.
            batch_size: Utterances at once.

        Raises:
            TypeError: If ``tokens`` are none.
            ValueError: As ``likelihoods``; if the convention is unknown or takes no
                ``from_s``, no word is known to lie in a window, or nothing stands
                before it.
        """
        of_the_whole = CONVENTIONS.keys() | OF_A_LATENT
        if convention not in (known := sorted({*of_the_whole, *OF_A_PART})):
            raise ValueError(f"convention must be one of {known}, got '{convention}'")
        rows, many = listed(tokens)
        if from_s is not None and convention in of_the_whole:
            raise ValueError(
                f"from_s: '{convention}' scores the whole; leave it out, or take "
                "'localised' or 'normalised'"
            )
        moments = [from_s] * len(rows) if np.ndim(from_s) == 0 else list(from_s)
        if len(moments) != len(rows):
            raise ValueError(f"from_s: {len(rows)} items, but {len(moments)} moments")
        items = [
            ScoredItem(row, from_s=moment, window_s=window_s)
            for row, moment in zip(rows, moments, strict=True)
        ]
        found = self.scores(items, convention == "normalised", batch_size=batch_size)
        for item, scores in zip(items, found):
            if convention not in scores:
                why = item.why_not_localised() or "no word stands before the moment"
                if convention in OF_A_LATENT:
                    why = "its codes are not predicted as a latent"
                raise ValueError(
                    f"'{item.tokens.text[:40]}' has no '{convention}' score: {why}"
                )
        numbers = [scores[convention] for scores in found]
        return numbers if many else numbers[0]

    def scores(
        self,
        items: Sequence[ScoredItem],
        normalise: bool = False,
        *,
        batch_size: int = 8,
    ) -> list[dict[str, float]]:
        """Return the scores of items by all conventions that fit.

        Args:
            items: Utterances, and which part of each counts.
            normalise: Read what counts a second time, without what stands before it.
            batch_size: Utterances at once.

        Raises:
            ValueError: As ``likelihoods``.
        """
        found = self.item_likelihoods(items, normalise, batch_size=batch_size)
        return [item.scores(*pair) for item, pair in zip(items, found, strict=True)]

    def item_likelihoods(
        self,
        items: Sequence[ScoredItem],
        normalise: bool = False,
        *,
        batch_size: int = 8,
    ) -> list[tuple[ItemLikelihood, ItemLikelihood | None]]:
        """Return how likely items are, and what counts of them by itself; see above."""
        others = [item.alone() if normalise else None for item in items]
        every = [*items, *(other for other in others if other is not None)]
        found = self.likelihoods(
            [item.tokens for item in every],
            before=[item.before for item in every],
            after=[item.after for item in every],
            batch_size=batch_size,
        )
        alone = iter(found[len(items) :])
        return [
            (one, None if other is None else next(alone))
            for one, other in zip(found, others)
        ]

    def check(
        self, tokens: TasteTokens, purpose: str, may_be_empty: bool = False
    ) -> None:
        """Refuse what this spoken LM cannot read.

        Raises:
            ValueError: If it is of another tokenizer, or has no codes or no words.
        """
        require_same_tokenizer(tokens, self.tokenizer.models, purpose)
        if tokens.codes is None:
            raise ValueError(f"'{tokens.text[:40]}' has no codes, only embeddings")
        if len(tokens) == 0 and not may_be_empty:
            raise ValueError(f"cannot {purpose} speech without a word")
        self.tokenizer.check_codes(tokens.codes, f"'{tokens.text[:40]}'")


@torch.no_grad()
def require_same_codebooks(own: AbsQuantizer, others: AbsQuantizer) -> None:
    """Refuse a spoken LM and a tokenizer whose codes do not mean the same.

    A tokenizer that was trained once more in its folder has codes of the same numbers
    and range, so that nothing else would notice.

    Args:
        own: Quantizer of the spoken LM.
        others: Quantizer of the tokenizer.

    Raises:
        ValueError: If a code has another embedding.
    """
    sizes = [(each.num_codebooks, each.codebook_size) for each in (own, others)]
    if sizes[0] == sizes[1]:
        count, size = sizes[0]
        codes = torch.arange(size)[:, None].expand(-1, count)
        found = [_decoded(each, codes) for each in (own, others)]
        if torch.allclose(*found, rtol=1e-3, atol=1e-5):
            return
    raise ValueError(
        "the spoken LM was trained on the codes of another tokenizer, whose codebooks "
        "differ; open the one that it was trained with, or train it anew (in the "
        "recipe, from the stage extract_codes on)"
    )


def _decoded(quantizer: AbsQuantizer, codes: Tensor) -> Tensor:
    device = next(chain(quantizer.parameters(), quantizer.buffers()), codes).device
    return quantizer.decode(codes.to(device)).float().cpu()
