"""Word pooling averages the spans the reference averages, and no padding."""

import torch

from espnet_taste.layers.word_pooling import pool_words


def pooled_spans(word_ids, padded_length):
    """Find the averaged spans from what pooling does to powers of two."""
    length = len(word_ids)
    padding = [0] * (padded_length - length)
    values = 2.0 ** torch.arange(padded_length, dtype=torch.float64)
    pooled = pool_words(
        values[None, :, None],
        torch.tensor([word_ids + padding]),
        torch.tensor([length]),
    )[0, :, 0]
    assert (pooled[length:] == 0).all()
    spans = []
    for start in range(length):
        same = (pooled[:length] == pooled[start]).nonzero().flatten().tolist()
        if start == same[0] and len(same) > 1:
            assert pooled[start] == values[same].mean()
            spans.append([same[0], same[-1] + 1])
    return spans


def test_spans(golden):
    cases = golden("logic_pooling").info["cases"]

    for case in cases:
        found = pooled_spans(case["word_ids"], case["padded_length"])
        assert found == case["spans"]
    assert cases


def test_one_word_rows(golden):
    """Reference defect C2."""
    cases = golden("logic_pooling").info["one_word"]

    for case in cases:
        found = pooled_spans(case["word_ids"], case["padded_length"])
        assert found == case["intended"]
    assert cases
