"""Spoken-LM scores: text and code losses per utterance, and a unigram baseline.

File format (JSON lines), one line per utterance and condition::

    {"key": "utt1", "condition": "matched", "text_loss_sum": 93.1, "text_count": 31,
     "latent_loss_sum": 12.5, "latent_error_sum": 16.7, "latent_spread_sum": 21.9,
     "code_loss_sums": [80.1, 90.3], "code_hits": [3, 1], "code_count": 24}

Losses are summed nats (``latent_loss_sum`` in the trained loss's own unit).
``latent_error_sum`` is the squared error of the predicted latent, a dimension,
``latent_spread_sum`` that of the training set's mean. ``text_count`` counts predicted
text tokens, ``code_count`` predicted words; ``code_loss_sums`` and ``code_hits`` have
one entry per codebook. A head that gives no distribution over codes leaves
``code_loss_sums`` out, a linear head leaves the latent's sums out.

Conditions: ``matched``; ``text_llm``, the same text under the text LLM with its
adapters off and no speech; ``text_alone``, no speech either, but with them on;
``exchanged_codes``, with another utterance's codes as input. All but the first need
only the text fields; codes to predict are always the utterance's own, also where
another's are read.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espnet_taste.eval.json_lines import finite, read_rows
from espnet_taste.eval.unit_scores import check_keys

MATCHED = "matched"
TEXT_LLM = "text_llm"
CONDITIONS = (MATCHED, TEXT_LLM, "text_alone", "exchanged_codes")
# Field prefix of every condition in the items.
_PREFIX = {
    MATCHED: "slm",
    TEXT_LLM: "text_llm",
    "text_alone": "slm_alone",
    "exchanged_codes": "slm_exchanged",
}


def read_slm_scores(path: Path, keys: Collection[str]) -> dict[str, dict[str, float]]:
    """Read a spoken-LM score file into fields per utterance.

    Args:
        path: The file.
        keys: Utterance ids that must be scored, under every condition of the file.

    Returns:
        Utterance id to fields: ``slm_text_loss_sum``, ``slm_text_count``,
        ``text_llm_text_loss_sum``, ... ; of the matched condition also
        ``slm_code_count``, ``slm_code_slots`` (words times codebooks),
        ``slm_code_loss_sum``, ``slm_code_hits``, ``slm_latent_loss_sum``,
        ``slm_latent_error_sum``, ``slm_latent_spread_sum`` where given.

    Raises:
        ValueError: If a line is broken, a number is not finite, or an utterance is
            repeated, missing or unknown.
    """
    seen: dict[str, set[str]] = {}
    items: dict[str, dict[str, float]] = {}
    required = ("key", "condition", "text_loss_sum", "text_count")
    for where, row in read_rows(path, required):
        key, condition = row["key"], row["condition"]
        if condition not in CONDITIONS:
            raise ValueError(
                f"{where}: condition must be one of {CONDITIONS}, got {condition!r}"
            )
        known = seen.setdefault(condition, set())
        if key in known:
            raise ValueError(f"{where}: '{key}' is scored twice as {condition}")
        known.add(key)
        fields = items.setdefault(key, {})
        fields.update(_text_fields(row, where, _PREFIX[condition]))
        if condition == MATCHED or "code_count" in row:
            fields.update(_code_fields(row, where, _PREFIX[condition]))
    if MATCHED not in seen:
        raise ValueError(f"{path}: no line with condition '{MATCHED}'")
    for condition, known in seen.items():
        check_keys(f"{path} ({condition})", known, keys)
    return items


def perplexity(nats_per_token: float) -> float:
    """Return the perplexity of a mean loss in nats."""
    return math.exp(nats_per_token)


@dataclass(frozen=True)
class UnigramModel:
    """Code frequencies of the training set, one distribution per codebook."""

    log_shares: np.ndarray  # (Q, K) float64, nats

    @classmethod
    def fit(cls, codes: Mapping[str, np.ndarray], num_entries: int) -> "UnigramModel":
        """Count codes with add-one smoothing.

        Args:
            codes: Utterance id to codes of the training set, (W, Q), 0..K-1.
            num_entries: Codebook size K.

        Raises:
            ValueError: If there is no code or one is out of range.
        """
        if not codes:
            raise ValueError("no training codes to count")
        stacked = np.concatenate([np.asarray(array) for array in codes.values()])
        stacked = _checked_codes("the training set", stacked, num_entries)
        counts = np.stack(
            [np.bincount(column, minlength=num_entries) + 1 for column in stacked.T]
        )
        return cls(np.log(counts / counts.sum(axis=1, keepdims=True)))

    def fields(self, key: str, codes: np.ndarray) -> dict[str, float]:
        """Score one utterance's codes, (W, Q).

        Returns:
            ``unigram_loss_sum`` (nats, all codebooks), ``unigram_hits``,
            ``unigram_words`` and ``unigram_slots``.

        Raises:
            ValueError: If a code is out of range.
        """
        num_codebooks, num_entries = self.log_shares.shape
        codes = _checked_codes(f"'{key}'", np.asarray(codes), num_entries)
        books = np.arange(num_codebooks)
        return {
            "unigram_loss_sum": float(-self.log_shares[books, codes].sum()),
            "unigram_hits": int((codes == self.log_shares.argmax(axis=1)).sum()),
            "unigram_words": len(codes),
            "unigram_slots": codes.size,
        }


def _checked_codes(name: str, codes: np.ndarray, num_entries: int) -> np.ndarray:
    """Return codes as (W, Q) int64, refusing other values."""
    whole = codes.astype(np.int64)
    inside = not whole.size or (whole.min() >= 0 and whole.max() < num_entries)
    if whole.ndim != 2 or not np.array_equal(whole, codes) or not inside:
        raise ValueError(
            f"codes of {name} must be (W, Q) whole numbers in 0..{num_entries - 1}"
        )
    return whole


def _text_fields(row: dict[str, Any], where: str, prefix: str) -> dict[str, float]:
    """Return the text fields of one row."""
    count = finite(row, "text_count", where)
    if count < 1 or not count.is_integer():
        raise ValueError(
            f"{where}: '{row['key']}': text_count must be a whole number >= 1, "
            f"got {row['text_count']}"
        )
    return {
        f"{prefix}_text_loss_sum": finite(row, "text_loss_sum", where),
        f"{prefix}_text_count": count,
    }


def _code_fields(row: dict[str, Any], where: str, prefix: str) -> dict[str, float]:
    """Return the code fields of one row."""
    for field in ("code_count", "code_hits"):
        if field not in row:
            raise ValueError(f"{where}: '{row['key']}' has no field ['{field}']")
    count = finite(row, "code_count", where)
    hits = _per_codebook(row, "code_hits", where)
    if not all(0 <= hit <= count for hit in hits):
        raise ValueError(
            f"{where}: '{row['key']}': code_hits must be in 0..{count:g}, got {hits}"
        )
    fields = {
        f"{prefix}_code_count": count,
        f"{prefix}_code_slots": count * len(hits),
        f"{prefix}_code_hits": sum(hits),
    }
    if "code_loss_sums" in row:
        fields[f"{prefix}_code_loss_sum"] = sum(
            _per_codebook(row, "code_loss_sums", where)
        )
    for name in ("latent_loss_sum", "latent_error_sum", "latent_spread_sum"):
        if name in row:
            fields[f"{prefix}_{name}"] = finite(row, name, where)
    return fields


def _per_codebook(row: dict[str, Any], field: str, where: str) -> list[float]:
    """Return a list field, each entry a finite number."""
    if not isinstance(row[field], list) or not row[field]:
        raise ValueError(f"{where}: '{row['key']}': {field} must be a list of numbers")
    return [
        finite(
            {"key": row["key"], f"{field}[{index}]": value}, f"{field}[{index}]", where
        )
        for index, value in enumerate(row[field])
    ]
