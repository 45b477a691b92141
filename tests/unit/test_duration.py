"""Word durations: which words are compared, and what counts as equal."""

import pytest

from espnet_taste.eval.duration import (
    TimedWord,
    duration_fields,
    duration_items,
    match_words,
)


def timed(text, durations, start=0.0):
    """Give the words of a text their durations, one after the other."""
    words = []
    for word, duration in zip(text.split(), durations, strict=True):
        words.append(TimedWord(word, start, start + duration))
        start += duration
    return words


def test_by_hand():
    reference = timed("the cat sat on mats", [0.10, 0.30, 0.20, 0.10, 0.50])
    hypothesis = timed("the bat sat on on mats", [0.12, 0.30, 0.26, 0.1, 0.1, 0.2], 1.0)

    fields = duration_fields(reference, hypothesis)

    assert fields["reference_words"] == 5
    assert fields["matched_words"] == 4  # all but cat
    assert fields["within_25ms"] == 2  # the: 20 ms, on: 0 ms
    assert fields["within_50ms"] == 2
    assert fields["within_100ms"] == 3  # sat: 60 ms; mats: 300 ms
    assert fields["duration_diff_s"] == pytest.approx(0.02 + 0.06 + 0.0 + 0.3)
    assert fields["identical"] == fields["identical_words"] == 0


def test_identical_transcripts_match_word_by_word():
    reference = timed("a a b a", [0.1, 0.2, 0.3, 0.4])
    hypothesis = timed("A, a b a.", [0.1, 0.2, 0.3, 0.5])

    fields = duration_fields(reference, hypothesis)

    assert fields["matched_words"] == fields["identical_words"] == 4
    assert fields["within_25ms"] == fields["identical_within_25ms"] == 3
    assert fields["identical"] == 1


def test_the_window_is_strict():
    reference, hypothesis = timed("a", [0.25]), timed("a", [0.375])

    assert duration_fields(reference, hypothesis)["within_100ms"] == 0
    # 25 ms apart in numbers that floating point holds exactly enough to compare
    exact = duration_fields([TimedWord("a", 0.0, 0.025)], [TimedWord("a", 0.0, 0.0)])
    assert exact["within_25ms"] == 0
    assert exact["within_50ms"] == 1


def test_a_difference_of_the_window_is_outside_wherever_the_words_stand():
    """Subtracted as they are, 0.3 - 0.2 is less than 0.1, and 1.1 - 1.0 is more."""
    nothing = [TimedWord("a", 0.0, 0.0)]
    for start in range(300):
        word = [TimedWord("a", start / 100, (start + 10) / 100)]
        fields = duration_fields(word, nothing)
        assert fields["within_100ms"] == 0, start
        assert fields["duration_diff_s"] == 0.1


def test_a_hyphenated_word_keeps_its_one_pair_of_times():
    fields = duration_fields(timed("Twenty-one .", [1, 1]), timed("twenty-one", [1]))

    assert fields["reference_words"] == fields["matched_words"] == 1


@pytest.mark.parametrize(("reference", "hypothesis"), [("", "a"), ("a", ""), ("", "")])
def test_an_empty_side_matches_nothing(reference, hypothesis):
    fields = duration_fields(
        timed(reference, [1] * len(reference)), timed(hypothesis, [1] * len(hypothesis))
    )

    assert fields["reference_words"] == len(reference)
    assert fields["matched_words"] == fields["identical"] == 0


def test_matching_prefers_the_alignment_with_fewest_edits():
    assert match_words(list("abcd"), list("xbcd")) == [(1, 1), (2, 2), (3, 3)]
    assert match_words(list("ab"), list("aab"))[-1] == (1, 2)


def test_a_missing_hypothesis_is_named():
    with pytest.raises(ValueError, match=r"no judged words for 1 utterances: \['u'\]"):
        duration_items({"u": []}, {})
