"""Layouts of the unit LM: refusals, order of blocks, moving and pinning."""

import time

import numpy as np
import pytest
import torch

from espnet_taste.decoder.layout import Row, pack_rows, whole_rows
from espnet_taste.types import IGNORE

UNITS = np.array([3, 1, 2])


def lay_out(*rows, max_positions=None):
    return pack_rows(rows, num_tokens=5, num_units=4, max_positions=max_positions)


def test_labels_say_the_next_unit_and_the_end():
    layout = lay_out(Row(0, 0, 2, UNITS, ends=True), Row(0, 2, 3, UNITS[:1]))

    assert layout.labels.tolist() == [
        [IGNORE] * 4 + [3, 1, 2, 4],
        [IGNORE] * 3 + [3] + [IGNORE] * 4,
    ]


def test_hidden_units_are_read_as_the_mask_vector_but_predicted():
    hidden = lay_out(Row(0, 0, 1, UNITS, np.array([True, False, True])))
    shown = lay_out(Row(0, 0, 1, UNITS))

    assert hidden.lm_source[0, 4:].tolist() == [4, 1, 4]
    assert hidden.labels.equal(shown.labels)


def test_short_rows_fill_the_room_that_long_ones_leave():
    rows = [Row(0, 0, 1, np.zeros(count, int)) for count in (50, 90, 100, 5, 20)]

    layout = lay_out(*rows, max_positions=384)

    # 94 + 24 and 104 + 9 positions in blocks of 128, 54 in one of 64.
    assert layout.lm_blocks == ((2, 128), (1, 64))
    assert layout.text_blocks == ((1, 32),)
    assert layout.lm_rows[0, [0, 128, 256]].tolist() == [2, 1, 0]


def test_a_row_longer_than_the_limit_has_a_block_to_itself():
    rows = [Row(0, 0, 1, np.zeros(count, int)) for count in (70, 5)]

    assert lay_out(*rows, max_positions=64).lm_blocks == ((1, 128), (1, 64))
    assert lay_out(*rows, max_positions=128).lm_blocks == ((1, 128),)


def test_spans_of_a_long_batch_are_packed_in_a_few_milliseconds():
    """It runs once a training step, in the batch maker."""
    rng = np.random.default_rng(0)
    rows = [
        Row(i % 20, 0, 5, rng.integers(4, size=int(rng.integers(8, 200))))
        for i in range(64)
    ]
    seconds = []
    for _ in range(5):
        start = time.process_time()
        lay_out(*rows, max_positions=384)
        seconds.append(time.process_time() - start)

    assert min(seconds) < 0.01


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Row(2, 0, 6, UNITS), r"row 0 \(utterance 2 .*\): tokens 0..6 do not lie .* 5"),
        (Row(0, 3, 2, UNITS), "tokens 3..2 do not lie"),
        (Row(0, 0, 1, np.array([0, 4])), r"units 0..4 are outside 0..3"),
        (Row(0, 0, 1, np.array([-1, 2])), "units -1..2 are outside"),
        (Row(0, 0, 1, UNITS, np.array([True])), "1 mask values, 3 units"),
    ],
)
def test_refuses_rows_that_point_outside(row, message):
    with pytest.raises(ValueError, match=message):
        lay_out(row)


def test_refuses_an_empty_batch():
    with pytest.raises(ValueError, match="no rows"):
        lay_out()


def test_tensors_move_and_the_blocks_stay():
    layout = lay_out(Row(0, 0, 2, UNITS), max_positions=64)

    moved = layout.to("meta")

    tensors = [v for v in vars(moved).values() if isinstance(v, torch.Tensor)]
    assert len(tensors) == 6 and all(t.device.type == "meta" for t in tensors)
    assert moved.lm_blocks == layout.lm_blocks == ((1, 64),)


def test_whole_rows_without_units_are_prompts():
    layout = whole_rows(
        torch.tensor([2, 1], dtype=torch.int32),
        torch.zeros(2, 0, dtype=torch.long),
        torch.tensor([0, 0]),
        num_tokens=2,
        num_units=4,
        ends=False,
    )

    assert layout.lm_rows.tolist() == [[0] * 5, [1] * 4 + [IGNORE]]
    assert (layout.labels == IGNORE).all()
