"""Evaluation counts on any texts: brute-force twins and invariants."""

from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_taste.eval.duration import TimedWord, duration_fields, match_words
from espnet_taste.eval.error_rate import (
    count_char_errors,
    count_word_errors,
    error_items,
    pool,
)
from espnet_taste.eval.normalise import normalise

words = st.lists(st.sampled_from(["a", "b", "c", "da", "e"]), max_size=7)
texts = st.text(max_size=30)


def edit_distance(first, second):
    """Fill the table anyone would fill."""
    table = [[i + j for j in range(len(second) + 1)] for i in range(len(first) + 1)]
    for i, x in enumerate(first, start=1):
        for j, y in enumerate(second, start=1):
            table[i][j] = min(
                table[i - 1][j] + 1,
                table[i][j - 1] + 1,
                table[i - 1][j - 1] + (x != y),
            )
    return table[-1][-1]


@given(words, words)
def test_errors_are_the_edit_distance(reference, hypothesis):
    texts = " ".join(reference), " ".join(hypothesis)

    by_word, by_char = count_word_errors(*texts), count_char_errors(*texts)

    assert by_word.errors == edit_distance(reference, hypothesis)
    assert by_char.errors == edit_distance(*texts)
    assert by_word.reference_length == len(reference)
    assert by_char.reference_length == len(texts[0])
    assert by_word.capped_errors == min(by_word.errors, len(reference))


@given(words, words)
def test_matched_words_are_equal_in_order_and_belong_to_a_best_alignment(
    reference, hypothesis
):
    pairs = match_words(reference, hypothesis)

    assert all(reference[r] == hypothesis[h] for r, h in pairs)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in zip(pairs, pairs[1:]))
    # Between two matches only the longer side's words cost an edit each.
    bounds = [(-1, -1), *pairs, (len(reference), len(hypothesis))]
    cost = sum(max(b[0] - a[0], b[1] - a[1]) - 1 for a, b in zip(bounds, bounds[1:]))
    assert cost == edit_distance(reference, hypothesis)


hundredths = st.integers(1, 200)  # as the judge's times are


@given(st.lists(st.tuples(st.sampled_from("ab"), hundredths, hundredths), max_size=6))
def test_identical_texts_are_compared_word_by_word(rows):
    reference = [TimedWord(text, 1.0, 1.0 + first / 100) for text, first, _ in rows]
    hypothesis = [TimedWord(text, 2.3, 2.3 + second / 100) for text, _, second in rows]

    fields = duration_fields(reference, hypothesis)

    diffs = [abs(first - second) for _, first, second in rows]
    assert fields["matched_words"] == fields["identical_words"] == len(rows)
    assert fields["within_25ms"] == sum(diff <= 2 for diff in diffs)
    assert fields["within_100ms"] == sum(diff < 10 for diff in diffs)
    assert abs(fields["duration_diff_s"] - sum(diffs) / 100) < 1e-9


@given(st.lists(st.tuples(words, words), min_size=1, max_size=8), st.data())
def test_pooled_shards_equal_the_whole(pairs, data):
    cut = data.draw(st.integers(0, len(pairs)))
    counts = [count_word_errors(" ".join(r), " ".join(h)) for r, h in pairs]

    assert pool(counts[:cut]) + pool(counts[cut:]) == pool(counts)


@settings(max_examples=30)
@given(texts, texts)
def test_items_of_shards_equal_items_of_the_whole(first, second):
    references = {"a": first, "b": second}
    hypotheses = {"a": second, "b": first}

    whole = error_items(references, hypotheses)

    for key in references:
        shard = error_items({key: references[key]}, {key: hypotheses[key]})
        assert shard[key] == whole[key]


@settings(max_examples=300)
@given(texts)
def test_normalising_twice_changes_nothing(text):
    once = normalise(text)

    assert normalise(once) == once
    assert once == " ".join(once.split())


@given(texts)
def test_case_never_counts(text):
    assert normalise(text.upper().lower()) == normalise(text.lower().upper().lower())
