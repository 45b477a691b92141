"""Layouts of the unit LM against the loops anyone would write."""

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from espnet_taste.decoder.layout import NUM_SPECIAL, Kind, Row, pack_rows, whole_rows
from espnet_taste.types import IGNORE

NUM_UNITS, NUM_TOKENS = 7, 12


@st.composite
def rows_of_spans(draw):
    rows = []
    for _ in range(draw(st.integers(1, 12))):
        start, stop = sorted(draw(st.tuples(*[st.integers(0, NUM_TOKENS)] * 2)))
        units = draw(st.lists(st.integers(0, NUM_UNITS - 1), max_size=90))
        masked = draw(st.none() | st.just([i % 3 == 0 for i in range(len(units))]))
        rows.append(
            Row(
                draw(st.integers(0, 4)),
                start,
                stop,
                np.array(units, dtype=np.int64),
                masked=None if masked is None else np.array(masked, dtype=bool),
                ends=draw(st.booleans()),
            )
        )
    return rows


def spell_out(row):
    """Write a row position by position: kind, source, label; text by token index."""
    tokens = range(row.token_start, row.token_stop)
    masked = [False] * len(row.units) if row.masked is None else row.masked
    units = [
        NUM_UNITS if hidden else int(unit)
        for unit, hidden in zip(row.units, masked, strict=True)
    ]
    read = [(Kind.SOS, 0), (Kind.SPEAKER, row.utterance)]
    read += [(Kind.FUSED, row.utterance * NUM_TOKENS + token) for token in tokens]
    read += [(Kind.TASK, 0), *((Kind.UNIT, unit) for unit in units)]
    labels = [IGNORE] * (2 + len(tokens)) + [int(unit) for unit in row.units]
    return read, [*labels, NUM_UNITS if row.ends else IGNORE]


@settings(max_examples=40, deadline=None)
@given(rows_of_spans(), st.sampled_from([None, 0, 64, 128, 500]))
def test_every_row_is_laid_out_whole_and_in_order(rows, max_positions):
    layout = pack_rows(
        rows,
        num_tokens=NUM_TOKENS,
        num_units=NUM_UNITS,
        max_positions=max_positions,
    )

    text_index = layout.text_index.flatten()
    for index, row in enumerate(rows):
        where = layout.lm_rows.flatten() == index
        kinds = layout.lm_kind.flatten()[where].tolist()
        sources = layout.lm_source.flatten()[where].tolist()
        read = [
            (kind, int(text_index[source]) if kind == Kind.FUSED else source)
            for kind, source in zip(kinds, sources, strict=True)
        ]
        labels = layout.labels.flatten()[where].tolist()
        assert (read, labels) == spell_out(row)

    is_padding = layout.lm_rows == IGNORE
    assert (layout.lm_kind[is_padding] == Kind.PAD).all()
    assert (layout.labels[is_padding] == IGNORE).all()
    assert (layout.text_index[layout.text_rows == IGNORE] == IGNORE).all()


@settings(max_examples=40, deadline=None)
@given(rows_of_spans(), st.sampled_from([None, 0, 64, 128, 500]))
def test_no_row_crosses_a_block_and_long_ones_share_none(rows, max_positions):
    layout = pack_rows(
        rows,
        num_tokens=NUM_TOKENS,
        num_units=NUM_UNITS,
        max_positions=max_positions,
    )

    for grid, blocks in (
        (layout.lm_rows, layout.lm_blocks),
        (layout.text_rows, layout.text_blocks),
    ):
        lengths = [length for count, length in blocks for _ in range(count)]
        assert sum(lengths) == grid.numel()
        block_of_row = {}
        for block, part in enumerate(grid.flatten().split(lengths)):
            present = set(part.tolist()) - {IGNORE}
            assert not present & block_of_row.keys()
            block_of_row.update(dict.fromkeys(present, block))
            longest_shared = max_positions or 0
            assert len(present) <= 1 or lengths[block] <= longest_shared
            for row in present:  # one stretch without gaps
                places = (part == row).nonzero().flatten()
                assert places.max() - places.min() + 1 == len(places)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, NUM_TOKENS), st.integers(0, 20)),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)
def test_whole_rows_equal_padded_rows(sizes, ends):
    token_lengths, unit_lengths = torch.tensor(sizes).unbind(1)
    num_tokens = int(token_lengths.max())
    assume(num_tokens > 0)
    units = torch.arange(len(sizes) * int(unit_lengths.max())) % NUM_UNITS
    units = units.view(len(sizes), -1)
    rows = [
        Row(i, 0, tokens, units[i, :count].numpy(), ends=ends)
        for i, (tokens, count) in enumerate(sizes)
    ]

    padded = pack_rows(rows, num_tokens=num_tokens, num_units=NUM_UNITS)
    whole = whole_rows(
        token_lengths,
        units,
        unit_lengths,
        num_tokens=num_tokens,
        num_units=NUM_UNITS,
        ends=ends,
    )

    assert whole.lm_rows.shape[1] == NUM_SPECIAL + num_tokens + units.size(1)
    for name, value in vars(padded).items():
        other = getattr(whole, name)
        is_tensor = isinstance(value, torch.Tensor)
        assert value.equal(other) if is_tensor else value == other, name
