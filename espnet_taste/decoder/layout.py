"""Index tensors that say what stands where in a batch of the unit LM.

A row is what one sequence of the unit LM holds: [start, speaker, one position a
text token, task, units]. Rows lie either one a sequence, padded to the longest, or
packed: several behind one another in blocks of a few lengths, short rows in short
blocks, because attention costs the square of the block and not of the row. The
model reads only these indices and knows one way to run.

Symbols: U utterances, Ta tokens of the padded token grid, S units, (P, L) positions
of the unit LM, (Pt, Lt) positions of the text and TASTE encoders.

Source: TASTE (arXiv:2504.07053), speech decoder; packing is ours.
"""

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from espnet_taste.types import IGNORE

# Positions in front of the units that are not text: start, speaker, task.
NUM_SPECIAL = 3
# Shortest blocks of the unit LM and of the text encoders; longer ones double. Below
# this, copies and not attention scores take the time.
SHORTEST_BLOCK = 64
SHORTEST_TEXT_BLOCK = 32

Sizes = tuple[tuple[int, int], ...]


class Kind(IntEnum):
    """What a position of the unit LM reads."""

    PAD = 0
    SOS = 1
    SPEAKER = 2
    FUSED = 3
    TASK = 4
    UNIT = 5


@dataclass(frozen=True)
class Row:
    """One row to lay out: a stretch of an utterance's tokens and its units."""

    utterance: int  # index into the batch, 0..U-1
    token_start: int  # first token of the stretch
    token_stop: int  # one past its last token
    units: np.ndarray  # (S,) int, 0..num_units-1
    masked: np.ndarray | None = None  # (S,) bool, True: input hidden; None: none is
    ends: bool = False  # predict the end class behind the last unit
    token_words: np.ndarray | None = None  # (tokens,) int, word of every token
    unit_words: np.ndarray | None = None  # (S,) int, word spoken at every unit


@dataclass(frozen=True)
class UnitLMLayout:
    """Where every input and label of the unit LM comes from.

    Blocks are given as ``(number, length)`` of consecutive groups over the
    flattened positions; no row crosses a block.
    """

    text_index: Tensor  # (Pt, Lt) int64, index into the flat (U * Ta) tokens or IGNORE
    text_rows: Tensor  # (Pt, Lt) int64, row of the position or IGNORE
    text_blocks: Sizes
    lm_kind: Tensor  # (P, L) int64, a Kind
    lm_source: Tensor  # (P, L) int64; FUSED: flat (Pt * Lt); SPEAKER: utterance; UNIT:
    # unit, num_units for the mask vector; 0 otherwise
    lm_rows: Tensor  # (P, L) int64, row of the position or IGNORE
    lm_blocks: Sizes
    labels: Tensor  # (P, L) int64, unit, num_units for the end class, or IGNORE
    # Where the times of words are known; a number of its own for every word of a row.
    token_words: Tensor | None = (
        None  # (P, L) int64, word of a FUSED position or IGNORE
    )
    unit_words: Tensor | None = None  # (P, L) int64, word of the label or IGNORE

    def to(self, *args: object, **kwargs: object) -> "UnitLMLayout":
        """Move the tensors, as ``Tensor.to`` does."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> "UnitLMLayout":
        """Pin the tensors; PyTorch's data loader calls this."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "UnitLMLayout":
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {k: v for k, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **{name: change(t) for name, t in tensors.items()})


def pack_rows(
    rows: Sequence[Row],
    *,
    num_tokens: int,
    num_units: int,
    max_positions: int | None = None,
) -> UnitLMLayout:
    """Lay out rows, for the batch maker (numpy, on the CPU).

    Packed, all positions form one sequence of length L, cut into blocks of 64, 128,
    256, ... positions. Each row goes into the fullest block that still takes it,
    long rows first, and the order of the rows is not kept: ``lm_rows`` has it.

    Args:
        rows: Rows, at least one.
        num_tokens: Width Ta of the padded token grid.
        num_units: Number of units; this value itself means mask vector or end class.
        max_positions: Rows share a block up to this length, and a longer row has one
            to itself. None gives every row a sequence of its own, padded to the
            longest, (P, L) = (number of rows, 3 + most tokens + most units).

    Returns:
        The layout.

    Raises:
        ValueError: If there is no row, or tokens or units of a row are out of range.
    """
    if not rows:
        raise ValueError("there are no rows to lay out")
    for index, row in enumerate(rows):
        _check_row(index, row, num_tokens, num_units)
    tokens = np.array([row.token_stop - row.token_start for row in rows])
    units = np.array([len(row.units) for row in rows])
    if max_positions is None:
        most_tokens = int(tokens.max())
        padded = NUM_SPECIAL + most_tokens + int(units.max())
        text_grid = _one_row_a_block(len(rows), max(most_tokens, 1))
        grid = _one_row_a_block(len(rows), padded)
    else:
        text_grid = _share_blocks(tokens, SHORTEST_TEXT_BLOCK, max_positions)
        lengths = NUM_SPECIAL + tokens + units
        grid = _share_blocks(lengths, SHORTEST_BLOCK, max_positions)
    arrays = _fill_text(rows, tokens, text_grid, num_tokens)
    arrays |= _fill_unit_lm(rows, tokens, text_grid.starts, grid, num_units)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return UnitLMLayout(text_blocks=text_grid.blocks, lm_blocks=grid.blocks, **tensors)


def whole_rows(
    token_lengths: Tensor,
    units: Tensor,
    unit_lengths: Tensor,
    *,
    num_tokens: int,
    num_units: int,
    ends: bool = True,
) -> UnitLMLayout:
    """Lay out one whole row an utterance, padded: the released layout.

    Runs on the device of its arguments and never waits for it.

    Args:
        token_lengths: Tokens of every utterance, (U,), int.
        units: Units, (U, S), int64; any padding.
        unit_lengths: Units of every utterance, (U,), int.
        num_tokens: Width Ta of the padded token grid.
        num_units: Number of units.
        ends: Predict the end class behind the last unit.

    Returns:
        Layout with (P, L) = (U, 3 + Ta + S) and (Pt, Lt) = (U, Ta).
    """
    batch, most_units = units.shape
    device = units.device
    length = NUM_SPECIAL + num_tokens + most_units
    place = torch.arange(length, device=device)[None]
    row = torch.arange(batch, device=device)[:, None]
    task = 2 + token_lengths.long()[:, None]  # place of the TASK position
    last = task + unit_lengths.long()[:, None]

    kind = torch.full((batch, length), int(Kind.UNIT), device=device)
    kind = kind.masked_fill(place == task, Kind.TASK)
    kind = kind.masked_fill(place < task, Kind.FUSED)
    kind = kind.masked_fill(place == 1, Kind.SPEAKER)
    kind = kind.masked_fill(place == 0, Kind.SOS)
    kind = kind.masked_fill(place > last, Kind.PAD)

    # Padding of its own behind the units, so that every index below is in range.
    unit_grid = torch.cat([units, units.new_zeros(batch, 1)], dim=1)
    unit = unit_grid.gather(1, (place - task - 1).clamp(0, most_units))
    next_unit = unit_grid.gather(1, (place - task).clamp(0, most_units))
    source = torch.zeros_like(kind)
    source = torch.where(kind == Kind.SPEAKER, row, source)
    source = torch.where(kind == Kind.FUSED, row * num_tokens + place - 2, source)
    source = torch.where(kind == Kind.UNIT, unit, source)

    labels = next_unit.masked_fill((place < task) | (place >= last), IGNORE)
    labels = labels.masked_fill(place == last, num_units if ends else IGNORE)
    token_place = torch.arange(num_tokens, device=device)[None]
    is_token = token_place < token_lengths[:, None]
    return UnitLMLayout(
        text_index=(row * num_tokens + token_place).masked_fill(~is_token, IGNORE),
        text_rows=row.expand_as(is_token).masked_fill(~is_token, IGNORE),
        text_blocks=((batch, num_tokens),),
        lm_kind=kind,
        lm_source=source,
        lm_rows=row.expand_as(kind).masked_fill(kind == Kind.PAD, IGNORE),
        lm_blocks=((batch, length),),
        labels=labels,
    )


def _check_row(index: int, row: Row, num_tokens: int, num_units: int) -> None:
    where = f"row {index} (utterance {row.utterance} of the batch)"
    if not 0 <= row.token_start <= row.token_stop <= num_tokens:
        raise ValueError(
            f"{where}: tokens {row.token_start}..{row.token_stop} do not lie in the "
            f"grid of {num_tokens} tokens"
        )
    units = row.units
    if len(units) and not 0 <= units.min() <= units.max() < num_units:
        raise ValueError(
            f"{where}: units {units.min()}..{units.max()} are outside "
            f"0..{num_units - 1}"
        )
    if row.masked is not None and len(row.masked) != len(units):
        raise ValueError(f"{where}: {len(row.masked)} mask values, {len(units)} units")


@dataclass(frozen=True)
class _Grid:
    """Where rows begin in the flat sequence, and the shape it is given."""

    starts: np.ndarray  # (R,) first position of every row
    blocks: Sizes
    shape: tuple[int, int]


def _one_row_a_block(num_rows: int, length: int) -> _Grid:
    shape = (num_rows, length)
    return _Grid(np.arange(num_rows) * length, (shape,), shape)


def _share_blocks(lengths: np.ndarray, shortest: int, max_shared: int) -> _Grid:
    """Put rows into blocks of doubling lengths, best fit, long rows first.

    Args:
        lengths: Positions of every row.
        shortest: Shortest block.
        max_shared: Longest block that takes more than one row.

    Returns:
        The grid, long blocks first, as one sequence.
    """
    free: list[tuple[int, int]] = []  # (positions left, block), sorted
    block_lengths: list[int] = []
    block_of = np.zeros(len(lengths), dtype=np.int64)
    place = np.zeros(len(lengths), dtype=np.int64)
    for row in np.argsort(-lengths, kind="stable"):
        length = int(lengths[row])
        best = bisect.bisect_left(free, (length, 0))
        if best < len(free):
            left, block = free.pop(best)
        else:
            block, left = len(block_lengths), shortest
            while left < length:
                left *= 2
            block_lengths.append(left)
        block_of[row] = block
        place[row] = block_lengths[block] - left
        if block_lengths[block] <= max_shared:
            bisect.insort(free, (left - length, block))
    # Blocks were opened for ever shorter rows, so equal lengths are neighbours.
    values, counts = np.unique(block_lengths, return_counts=True)
    blocks = tuple(zip(counts[::-1].tolist(), values[::-1].tolist(), strict=True))
    starts = np.cumsum([0, *block_lengths[:-1]])[block_of] + place
    return _Grid(starts, blocks, (1, sum(block_lengths)))


def _spread(starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return row, place in the row and flat position of every position."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return row, place, starts[row] + place


def _fill_text(
    rows: Sequence[Row], tokens: np.ndarray, grid: _Grid, num_tokens: int
) -> dict[str, np.ndarray]:
    row, place, position = _spread(grid.starts, tokens)
    first = np.array([r.utterance * num_tokens + r.token_start for r in rows])
    text_index = np.full(grid.shape, IGNORE, dtype=np.int64)
    text_rows = np.full(grid.shape, IGNORE, dtype=np.int64)
    text_index.flat[position] = first[row] + place
    text_rows.flat[position] = row
    return {"text_index": text_index, "text_rows": text_rows}


def _fill_unit_lm(
    rows: Sequence[Row],
    tokens: np.ndarray,
    text_starts: np.ndarray,
    grid: _Grid,
    num_units: int,
) -> dict[str, np.ndarray]:
    units = np.array([len(r.units) for r in rows])
    row, place, position = _spread(grid.starts, NUM_SPECIAL + tokens + units)
    task = 2 + tokens[row]  # place of the TASK position of the row
    kind = np.select(
        [place == 0, place == 1, place < task, place == task],
        [Kind.SOS, Kind.SPEAKER, Kind.FUSED, Kind.TASK],
        Kind.UNIT,
    )
    source = np.zeros_like(place)
    source[place == 1] = [r.utterance for r in rows]
    is_fused = kind == Kind.FUSED
    source[is_fused] = (text_starts[row] + place - 2)[is_fused]
    source[kind == Kind.UNIT] = np.concatenate([_inputs(r, num_units) for r in rows])

    labels = np.full_like(place, IGNORE)
    labels[place == task + units[row]] = [num_units if r.ends else IGNORE for r in rows]
    predicts_unit = (place >= task) & (place < task + units[row])
    labels[predicts_unit] = np.concatenate([r.units for r in rows])

    arrays = {
        "lm_kind": (Kind.PAD, kind),
        "lm_source": (0, source),
        "lm_rows": (IGNORE, row),
        "labels": (IGNORE, labels),
    }
    if all(r.token_words is not None and r.unit_words is not None for r in rows):
        arrays |= _words(rows, row, is_fused, predicts_unit)
    filled = {}
    for name, (padding, values) in arrays.items():
        filled[name] = np.full(grid.shape, int(padding), dtype=np.int64)
        filled[name].flat[position] = values
    return filled


def _words(
    rows: Sequence[Row], row: np.ndarray, is_fused: np.ndarray, is_unit: np.ndarray
) -> dict[str, tuple[int, np.ndarray]]:
    """Return the words of text positions and of labels, numbered over all rows."""
    names = {"token_words": is_fused, "unit_words": is_unit}
    words = {n: np.concatenate([getattr(r, n) for r in rows]) for n in names}
    most = 1 + max(
        (int(values.max()) for values in words.values() if len(values)), default=0
    )
    arrays = {}
    for name, place in names.items():
        values = np.full_like(row, IGNORE)
        values[place] = row[place] * most + words[name]
        arrays[name] = (IGNORE, values)
    return arrays


def _inputs(row: Row, num_units: int) -> np.ndarray:
    """Return the unit inputs of a row, the hidden ones replaced by ``num_units``."""
    if row.masked is None:
        return row.units
    return np.where(row.masked, num_units, row.units)
