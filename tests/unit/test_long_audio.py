"""Recordings beyond one window: every word once, in order, with context."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_taste import noise, tiny_tokenizer

from espnet_taste.align.contracts import AlignmentError
from espnet_taste.pipeline import encoding
from espnet_taste.pipeline.long_audio import hear_long, without_loops
from espnet_taste.pipeline.windows import MAX_WORD_S, carry_times, plan_windows
from espnet_taste.words import TokenizedWords

RATE = 16000


def spread(durations):
    """Return times of words that follow one another, (W, 2)."""
    edges = np.concatenate([[0], np.cumsum(durations)])
    return np.stack([edges[:-1], edges[1:]], axis=1)


def recogniser(times, is_deaf=False):
    """Return a recogniser that hears word i as its number, cut-off words as noise.

    The recording's samples say where they are from. What is not heard behind the last
    word counts as its length, as with attention that is warped; half of a window's
    words may go unheard.
    """

    def hear(wave):
        begin_s, end_s = wave[0] / RATE, (wave[-1] + 1) / RATE
        words, found = [], []
        for number, (start, end) in enumerate(times):
            if end <= begin_s + 1e-3 or start >= end_s - 1e-3:
                continue
            whole = start >= begin_s - 1e-3 and end <= end_s + 1e-3
            words.append(str(number) if whole else "noise")
            found.append([max(start, begin_s) - begin_s, min(end, end_s) - begin_s])
        if is_deaf and len(words) > 4 and end_s < times[-1, 1] - 1e-3:
            words, found = words[: len(words) // 2], found[: len(words) // 2]
        if found:
            found[-1][1] = end_s - begin_s
        return words, np.array(found, np.float32).reshape(-1, 2)

    return hear


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from([0.25, 0.5, 2.0, 4.0]), min_size=5, max_size=60),
    st.booleans(),
)
def test_no_word_is_lost_or_doubled(durations, is_deaf):
    times = spread(durations)
    wave = np.arange(round(times[-1, 1] * RATE), dtype=np.float64)

    words, found = hear_long(wave, recogniser(times, is_deaf))

    assert words == [str(i) for i in range(len(times))]
    np.testing.assert_allclose(found, times, atol=2e-3)


def test_short_words_before_a_long_pause_are_not_lost():
    """A window began a second later at least, and the second word was in that."""
    times = np.array([[0.0, 0.3], [0.35, 0.45], [40.0, 41.0]])
    wave = np.arange(60 * RATE, dtype=np.float64)

    words, found = hear_long(wave, recogniser(times))

    assert words == ["0", "1", "2"]
    np.testing.assert_allclose(found[:, 0], times[:, 0], atol=2e-3)
    assert (found[:-1, 1] <= found[1:, 0] + 1e-3).all()


def test_a_word_that_does_not_end_ends_where_the_next_window_begins():
    def hear(wave):
        return ["oh"], np.array([[0.1, len(wave) / RATE]], np.float32)

    words, found = hear_long(np.zeros(60 * RATE), hear)

    assert words == ["oh"] * 3
    np.testing.assert_allclose(found.ravel(), [0.1, 24, 24.1, 48, 48.1, 60], atol=1e-3)


def test_music_is_passed_by():
    times = np.array([[70.0, 71.0]])
    wave = np.arange(75 * RATE, dtype=np.float64)

    assert hear_long(wave, recogniser(times))[0] == ["0"]
    words, found = hear_long(wave, recogniser(np.zeros((0, 2))))
    assert words == [] and found.shape == (0, 2)


def keep_every_word_once(windows, times, duration_s):
    kept = [word for w in windows for word in range(w.start, w.stop)]
    assert kept == list(range(len(times)))
    for window in windows:
        begin_s, end_s = window.span_s
        assert 0 <= begin_s < end_s <= duration_s and end_s - begin_s <= 30 + 1e-6
        assert window.first <= window.start < window.stop <= window.last
        assert begin_s <= times[window.first, 0] + 1e-6
        assert times[window.last - 1, 1] <= end_s + 1e-6


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.05, 5.0), min_size=1, max_size=80))
def test_windows_keep_every_word_once_with_context(durations):
    times = spread(durations)
    duration_s = times[-1, 1] + 0.3

    windows = plan_windows(times, duration_s)

    keep_every_word_once(windows, times, duration_s)
    for window in windows:
        if window.stop < len(times) and max(durations) < 3:
            assert window.last > window.stop  # what follows is heard too


def test_a_word_longer_than_a_window_is_named():
    with pytest.raises(ValueError, match="word 1 lasts from 1.0 to 41.0 s"):
        plan_windows(spread([1.0, 40.0, 1.0]), 42.0)


def test_a_transcript_takes_the_times_of_what_was_heard():
    heard = ["The", "cat", "zat", "on", "mats"]
    times = spread([1.0, 1.0, 1.0, 1.0, 1.0])
    words = ["the", "cat,", "really", "sat", "on", "a", "mat"]

    found = carry_times(words, heard, times, 6.0)

    np.testing.assert_allclose(found[[0, 1, 4]], times[[0, 1, 3]])
    np.testing.assert_allclose(found[2:4], [[2.0, 2.5], [2.5, 3.0]])
    np.testing.assert_allclose(found[5:], [[4.0, 4.5], [4.5, 5.0]])
    assert found.dtype == np.float32


def test_a_misheard_word_does_not_last_through_the_pause_beside_it():
    """Over a pause longer than a window, it ended the encoding."""
    times = np.array([[0.0, 1.0], [1.0, 1.5], [41.0, 41.5]])

    found = carry_times(["so", "Ellis", "sat"], ["so", "Alice", "sat"], times, 42.0)

    np.testing.assert_allclose(found, times)


def test_a_misheard_word_does_not_last_through_what_the_transcript_leaves_out():
    """A jingle or credits beside it are heard in its place; it ended the encoding."""
    edges = np.linspace(1.0, 41.0, 82)
    times = np.stack([edges[:-1], edges[1:]], 1)
    times = np.concatenate([[[0.0, 1.0]], times, [[41.0, 41.5]]])
    heard = ["so", "Alice", *["words"] * 80, "sat"]

    found = carry_times(["so", "Ellis", "sat"], heard, times, 42.0)

    np.testing.assert_allclose(found, [[0, 1], [1, 1 + MAX_WORD_S], [41, 41.5]])
    assert len(plan_windows(found, 42.0)) == 2


@pytest.mark.parametrize(
    ("words", "heard", "wanted"),
    [
        ("a x y b", "a b", [[0.0, 1 / 3], [1 / 3, 2 / 3], [2 / 3, 1], [1, 2]]),
        ("x a b", "a b", [[0, 0.5], [0.5, 1], [1, 2]]),
        ("a b x", "a b", [[0, 1], [1, 1.5], [1.5, 2]]),
    ],
)
def test_words_that_were_not_heard_where_there_is_no_time_take_some(
    words, heard, wanted
):
    """They lasted no time, which no later step can show."""
    times = spread([1.0, 1.0])

    found = carry_times(words.split(), heard.split(), times, 2.0)

    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_vowels_that_are_marks_tell_words_apart():
    heard, times = ["\u0915\u0940", "x"], spread([1.0, 1.0]) + 1

    found = carry_times(["a", "\u0915\u093e", "\u0915\u0940"], heard, times, 3.0)

    np.testing.assert_allclose(found[2], times[0])


def test_a_transcript_with_nothing_in_common_is_spread_over_what_was_heard():
    found = carry_times(["x", "y"], ["a"], spread([1.0]), 4.0)

    np.testing.assert_allclose(found, [[0, 0.5], [0.5, 1]])


def test_a_transcript_of_which_nothing_was_heard_is_spread_evenly():
    found = carry_times(["x", "y"], [], np.zeros((0, 2)), 4.0)

    np.testing.assert_allclose(found, [[0, 2], [2, 4]])


@pytest.mark.parametrize("seconds, kept", [(0.9, "a b c"), (0.05, "")])
def test_a_stretch_that_cannot_be_aligned_is_not_the_end(seconds, kept, caplog):
    def refuse(keys, wave, words):
        raise AlignmentError("not_aligned", "a word time is not finite")

    encoder = tiny_tokenizer().encoder
    encoder.listener = SimpleNamespace(
        transcribe=lambda states, waves: ["a b c"], word_times=refuse
    )

    words, times = encoder._hear(noise(round(16000 * seconds)))

    assert " ".join(words) == kept and times.shape == (len(words), 2)
    if kept:
        assert np.allclose(np.diff(times), seconds / 3)
    assert ("spread evenly: not_aligned" if kept else "left out") in caplog.text


def test_a_long_recording_in_which_nothing_is_heard(monkeypatch, caplog):
    tokenizer = tiny_tokenizer()
    tokenizer_states = tokenizer.encoder._states
    monkeypatch.setattr(
        tokenizer.encoder,
        "_states",
        lambda waves: tokenizer_states([wave[:16000] for wave in waves]),
    )
    monkeypatch.setattr(
        encoding, "hear_long", lambda wave, hear: ([], np.zeros((0, 2), np.float32))
    )
    waves = [noise(6000), noise(70 * 16000)]

    tokens = tokenizer.encode(waves, ["x", "a b c d e f g"], word_times=False)

    assert tokens[1].text == "a b c d e f g" and tokens[1].times is None
    assert len(tokens[1].codes) == 7
    assert "recording 1: no word was heard" in caplog.text
    with pytest.raises(ValueError, match="^recording 1: no word was heard; give its"):
        tokenizer.encode(waves, ["x", None], word_times=False)
    with pytest.raises(ValueError, match="^recording 1: word 0 lasts"):
        tokenizer.encode(waves, ["x", "one"], word_times=False)


def test_an_unheard_word_does_not_last_through_the_pause_beside_it():
    """Verbatim transcripts have fillers, which Whisper leaves out."""
    times = np.array([[0.0, 1.0], [41.0, 41.5]])

    found = carry_times(["so", "um", "sat"], ["so", "sat"], times, 42.0)
    first = carry_times(["um", "so", "sat"], ["so", "sat"], times + 40.0, 82.0)

    np.testing.assert_allclose(found, [[0, 1], [1, 3], [41, 41.5]])
    np.testing.assert_allclose(first, [[38, 40], [40, 41], [81, 81.5]])
    assert len(plan_windows(found, 42.0))


def test_only_words_that_fit_into_no_window_are_left_out_of_what_was_heard(caplog):
    """Half the words of Chinese, Hindi or Thai were taken for a loop and lost."""
    words = [f"w{number}" for number in range(5)]
    tokens = TokenizedWords([1] * 11, [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4])

    assert without_loops(words, tokens, 3) == words and not caplog.text
    assert without_loops(words, tokens, 2) == words[1:]
    assert "left out a word of 3 tokens" in caplog.text


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.05, 3.0), st.integers(1, 20)), min_size=1, max_size=80
    )
)
def test_windows_have_no_more_tokens_than_whisper_takes(words):
    times = spread([seconds for seconds, _ in words])
    tokens = np.array([count for _, count in words])
    duration_s = times[-1, 1] + 0.3

    windows = plan_windows(times, duration_s, tokens=tokens, max_tokens=40)

    keep_every_word_once(windows, times, duration_s)
    for window in windows:
        assert tokens[window.first : window.last].sum() <= 40
    if tokens.sum() <= 40:
        assert windows == plan_windows(times, duration_s)


@pytest.mark.parametrize("is_given", [True, False])
def test_a_long_recording_may_have_more_tokens_in_a_window_than_whisper_takes(
    monkeypatch, is_given
):
    """Thai has; it was refused, whole."""
    tokenizer = tiny_tokenizer()
    states = tokenizer.encoder._states
    monkeypatch.setattr(
        tokenizer.encoder, "_states", lambda waves: states([w[:16000] for w in waves])
    )
    words = [letter * 5 for letter in "abcdefghijklmnopqrst"]
    times = spread([2.0] * 20).astype(np.float32)
    monkeypatch.setattr(encoding, "hear_long", lambda wave, hear: (words, times))

    tokens = tokenizer.encode(
        noise(40 * 16000), " ".join(words) if is_given else None, word_times=False
    )

    assert tokens.words == tuple(words) and len(tokens.codes) == 20
    assert tokenizer.model.aggregator.max_tokens < 15 * 5
