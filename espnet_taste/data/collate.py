"""Make batches: pad, and in training cut into packed word spans.

ESPnet's own collate function has one pad value per kind and costs seconds of
imports; this one pads integers with ``IGNORE``, which is neither a token nor a
word nor a unit, so that no padding can be mistaken for data (the root of two
defects of the reference implementation, C1 and C2).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from espnet_taste.data.settings import build
from espnet_taste.data.spans import SPAN_SIZES, random_spans, random_unit_mask
from espnet_taste.decoder.layout import Row, UnitLMLayout, pack_rows
from espnet_taste.slm.delay import DelayBatch, DelayLevel
from espnet_taste.slm.delay import collate as collate_layouts
from espnet_taste.slm.delay import delay_words
from espnet_taste.types import IGNORE

Item = tuple[str, dict[str, np.ndarray]]
# Arrays that are one vector an utterance, not a sequence over time.
VECTORS = ("spembs",)


@dataclass(frozen=True)
class SpanOptions:
    """How training rows are made; ``whole`` alone is the released behaviour."""

    whole: bool = True  # one row an utterance instead of word spans
    sizes: tuple[int, ...] = SPAN_SIZES  # words a span, 0 = all that are left
    max_masked_units: float = 0.0  # largest share of hidden unit inputs, 0..1
    max_positions: int | None = None  # pack rows up to this length; None = pad

    def __post_init__(self) -> None:
        """Check the values that come from a YAML file."""
        if not 0.0 <= self.max_masked_units < 1.0:
            raise ValueError(
                f"max_masked_units must be in [0, 1), got {self.max_masked_units}"
            )
        if not self.sizes or min(self.sizes) < 0:
            raise ValueError(f"span sizes must be >= 0, got {self.sizes}")

    @classmethod
    def from_conf(cls, conf: dict) -> "SpanOptions":
        """Build from a YAML dictionary; errors as ``build``."""
        if "sizes" in conf:
            conf = {**conf, "sizes": tuple(conf["sizes"])}
        return build(cls, conf, "span_conf")


class TokenizerCollate:
    """Batch utterances for the speech tokenizer and its unit decoder.

    Args:
        num_units: Number of unit classes.
        spans: How rows are cut; None gives whole utterances and leaves the layout
            to the model, as validation does.
    """

    def __init__(self, num_units: int, spans: SpanOptions | None = None):
        self.num_units = num_units
        self.spans = spans

    def __call__(
        self, items: Sequence[Item]
    ) -> tuple[list[str], dict[str, Tensor | UnitLMLayout]]:
        """Pad a batch and lay out its rows.

        Args:
            items: Utterance id and arrays of ``TokenizerPreprocessor``.

        Returns:
            Ids and the batch: every array right-padded, (B, ...), with
            ``<name>_lengths`` (B,) for sequences, and ``layout`` in training.

        Raises:
            ValueError: If a unit is outside 0..num_units - 1.
        """
        for uid, data in items:
            _check_units(uid, data["units"], self.num_units)
        batch = pad_arrays(items, drop=("word_bounds",))
        if self.spans is not None:
            batch["layout"] = self._layout(items, batch["asr_tokens"].size(1))
        return [uid for uid, _ in items], batch

    def _layout(self, items: Sequence[Item], num_tokens: int) -> UnitLMLayout:
        # One draw from numpy's global state, which ESPnet seeds per epoch and
        # worker: a resumed run sees the same spans as an unbroken one.
        rng = np.random.default_rng(np.random.randint(2**31))
        rows = []
        for index, (uid, data) in enumerate(items):
            rows.extend(self._utterance_rows(index, uid, data, rng))
        return pack_rows(
            rows,
            num_tokens=num_tokens,
            num_units=self.num_units,
            max_positions=self.spans.max_positions,
        )

    def _utterance_rows(
        self, index: int, uid: str, data: dict, rng: np.random.Generator
    ) -> list[Row]:
        words, units = data["asr_words"], data["units"]
        num_words = int(words[-1]) + 1
        if self.spans.whole:
            unknown = np.array([0] * num_words + [len(units)])
            spans, bounds = [(0, num_words)], data.get("word_bounds", unknown)
        elif "word_bounds" not in data:
            raise ValueError(
                f"utterance '{uid}' has no word_times, which word spans need; give "
                "word_times as data or set span_conf: {whole: true}"
            )
        else:
            spans = random_spans(num_words, self.spans.sizes, rng)
            bounds = data["word_bounds"]
        rows = []
        for first, stop in spans:
            span_units = units[bounds[first] : bounds[stop]]
            if len(span_units) == 0:
                continue  # words squeezed between two units teach nothing
            token_start, token_stop = np.searchsorted(words, [first, stop])
            mask = random_unit_mask(len(span_units), self.spans.max_masked_units, rng)
            times = np.diff(bounds[first : stop + 1]) if "word_bounds" in data else None
            row = Row(index, int(token_start), int(token_stop), span_units, mask, True)
            rows.append(row if times is None else _with_words(row, words, first, times))
        return rows


def _with_words(row: Row, words: np.ndarray, first: int, counts: np.ndarray) -> Row:
    """Note which word every token and every unit of a span belongs to.

    Args:
        row: The span.
        words: Word of every token of the utterance, (Ta,).
        first: First word of the span.
        counts: Units of every word of the span.
    """
    return replace(
        row,
        token_words=words[row.token_start : row.token_stop] - first,
        unit_words=np.repeat(np.arange(len(counts)), counts),
    )


class SpokenLMCollate:
    """Batch utterances for the spoken LM.

    Args:
        delay: Delay D of the code stream, at least 1.
        level: What D counts, ``"word"`` (released) or ``"token"``.
    """

    def __init__(self, delay: int = 1, level: DelayLevel = "word"):
        self.delay = delay
        self.level = level

    def __call__(
        self, items: Sequence[Item]
    ) -> tuple[list[str], dict[str, DelayBatch]]:
        """Lay out tokens, delayed codes and labels.

        Args:
            items: Utterance id and arrays of ``SpokenLMPreprocessor``.

        Returns:
            Ids and the batch, ``layout`` alone.
        """
        layouts = [
            delay_words(data["llm_tokens"], data["llm_words"], self.delay, self.level)
            for _, data in items
        ]
        codes = [data["codes"] for _, data in items]
        return [uid for uid, _ in items], {"layout": collate_layouts(layouts, codes)}


def pad_arrays(items: Sequence[Item], drop: Sequence[str] = ()) -> dict[str, Tensor]:
    """Right-pad the arrays of a batch, integers with IGNORE and floats with 0.

    Args:
        items: Utterance id and arrays; all with the same names.
        drop: Names to leave out.

    Returns:
        Name to padded tensor (B, ...), and ``<name>_lengths`` (B,) int64 unless the
        name is in ``VECTORS``.

    Raises:
        ValueError: If the utterances do not have the same names.
    """
    names = items[0][1].keys()
    for uid, data in items:
        if data.keys() != names:
            raise ValueError(
                f"utterance '{uid}' has {sorted(data)}, others have {sorted(names)}"
            )
    batch = {}
    for name in names:
        if name in drop:
            continue
        arrays = [np.asarray(data[name]) for _, data in items]
        if name in VECTORS:
            batch[name] = torch.from_numpy(np.stack(arrays))
            continue
        batch[name] = _pad(arrays)
        batch[f"{name}_lengths"] = torch.tensor([len(array) for array in arrays])
    return batch


def _pad(arrays: list[np.ndarray]) -> Tensor:
    first = arrays[0]
    fill = IGNORE if first.dtype.kind == "i" else 0.0
    longest = max(len(array) for array in arrays)
    padded = np.full((len(arrays), longest, *first.shape[1:]), fill, first.dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(padded)


def _check_units(uid: str, units: np.ndarray, num_units: int) -> None:
    if len(units) == 0:
        raise ValueError(f"utterance '{uid}' has no units; extract the units again")
    if units.min() < 0 or units.max() >= num_units:
        raise ValueError(
            f"utterance '{uid}' has units {units.min()}..{units.max()}, but the "
            f"decoder has num_units {num_units}; is this the right units folder?"
        )
