"""Word pooling agrees with the loop anyone would write, on any layout."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from espnet_taste.layers.word_pooling import first_of_words, pool_words

layouts = st.lists(
    st.lists(st.integers(1, 4), min_size=1, max_size=5), min_size=1, max_size=4
)


def build(sizes_per_row, extra_padding, pad_value):
    """Return random features (B, T, 3), words and lengths."""
    rows = [
        [word for word, size in enumerate(sizes) for _ in range(size)]
        for sizes in sizes_per_row
    ]
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max()) + extra_padding
    words = torch.tensor([row + [pad_value] * (width - len(row)) for row in rows])
    return torch.randn(len(rows), width, 3, dtype=torch.float64), words, lengths


@given(layouts, st.integers(0, 3), st.integers(-1, 9))
def test_pooling_matches_the_loop(sizes_per_row, extra_padding, pad_value):
    features, words, lengths = build(sizes_per_row, extra_padding, pad_value)

    pooled = pool_words(features, words, lengths)

    expected = torch.zeros_like(features)
    for b, length in enumerate(lengths.tolist()):
        for t in range(length):
            same = words[b, :length] == words[b, t]
            expected[b, t] = features[b, :length][same].mean(0)
    torch.testing.assert_close(pooled, expected)


@given(layouts, st.integers(0, 3), st.integers(-1, 9))
def test_first_rows_match_the_loop(sizes_per_row, extra_padding, pad_value):
    features, words, lengths = build(sizes_per_row, extra_padding, pad_value)
    codes = (features * 100).long()

    rows = first_of_words(codes, words, lengths)

    assert rows.size(1) == max(len(sizes) for sizes in sizes_per_row)
    for b, sizes in enumerate(sizes_per_row):
        for word in range(rows.size(1)):
            if word < len(sizes):
                assert rows[b, word].equal(codes[b, sum(sizes[:word])])
            else:
                assert (rows[b, word] == -1).all()
