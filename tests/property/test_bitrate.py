"""Rates: bounds that hold for any codes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_taste.eval.bitrate import code_rate

tables = st.lists(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1), min_size=1
)


@settings(max_examples=40)
@given(tables)
def test_used_bits_are_bounded(rows):
    codes = {str(n): np.array(table) for n, table in enumerate(rows)}
    durations = {key: 1.0 for key in codes}

    rate = code_rate(codes, durations, num_entries=7)

    assert 0.0 <= rate.used_bits <= rate.nominal_bits + 1e-9
    assert rate.used_bits <= 2 * np.log2(rate.num_steps) + 1e-9
    assert all(1 <= used <= 7 for used in rate.used_entries)


@settings(max_examples=40)
@given(tables, st.randoms())
def test_the_order_of_the_words_does_not_count(rows, random):
    everything = [code for table in rows for code in table]
    shuffled = random.sample(everything, len(everything))

    one, two = (
        code_rate({"a": np.array(codes)}, {"a": 2.0}, num_entries=7)
        for codes in (everything, shuffled)
    )

    assert one == two
