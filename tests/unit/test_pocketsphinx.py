"""PocketSphinx alignment; real speech where the checkout has some beside it."""

from pathlib import Path

import numpy as np
import pytest

from espnet_taste.align.contracts import AlignmentError
from espnet_taste.align.spoken import attach_punctuation
from espnet_taste.data.data_dir import read_data_dir
from espnet_taste.packages import MissingPackageError

pytest.importorskip("pocketsphinx")

from espnet_taste.align import pocketsphinx as room  # noqa: E402

SPEECH = Path(__file__).parents[3] / "shared" / "data" / "librispeech_excerpts" / "test"


@pytest.fixture(scope="module")
def aligner():
    return room.PocketSphinxAligner()


@pytest.fixture(scope="module")
def speech():
    if not SPEECH.is_dir():
        pytest.skip(f"no speech in {SPEECH}")
    data = read_data_dir(SPEECH)
    keys = data.utterances[2:6]
    return [
        (data.read(key), attach_punctuation(data.text[key].split())[0]) for key in keys
    ]


def loudness(audio, start, end):
    part = audio[round(start * 16000) : round(end * 16000)]
    return float(np.sqrt((part**2).mean())) if len(part) else 0.0


def test_words_lie_where_there_is_speech(aligner, speech):
    for audio, words in speech:
        padded = np.pad(audio, 16000)

        times = aligner.align(padded, words).times

        assert times.shape == (len(words), 2)
        assert abs(times[0, 0] - 1) < 0.7 and times[-1, 1] < len(padded) / 16000 - 0.6
        inside = loudness(padded, times[0, 0], times[-1, 1])
        assert inside > 3 * loudness(padded, 0, times[0, 0] - 0.1)


def test_silence_before_speech_shifts_its_words(aligner, speech):
    audio, words = speech[0]
    times = aligner.align(audio, words).times

    later = aligner.align(np.pad(audio, (8000, 0)), words).times

    assert np.median(np.abs(later - 0.5 - times)) < 0.05


def test_the_order_of_the_utterances_does_not_matter(aligner, speech, monkeypatch):
    """Without the silence around them, which hides most of what is carried over."""
    monkeypatch.setattr(room, "PAD_S", 0.0)
    there = [aligner.align(audio, words).times for audio, words in speech]
    back = [aligner.align(audio, words).times for audio, words in speech[::-1]]
    fresh = room.PocketSphinxAligner().align(*speech[-1]).times

    for one, other in zip(there, back[::-1], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(there[-1], fresh)


def test_guesses_do_not_build_on_earlier_guesses():
    """Else the times of an utterance would depend on those before it."""
    one, other = room.PocketSphinxAligner(), room.PocketSphinxAligner()
    one._learn("quont")
    for aligner in (one, other):
        aligner._learn("quontdog")

    assert one.decoder.lookup_word("quontdog") == other.decoder.lookup_word("quontdog")


def test_unknown_words_are_aligned(aligner, speech):
    audio, words = speech[0]
    before = aligner.guessed

    times = aligner.align(audio, [*words[:-1], "Sillee!"]).times

    assert len(times) == len(words) and aligner.guessed == before + 1


def test_silence_is_put_around_and_taken_off_again(aligner, monkeypatch):
    """Without it PocketSphinx loses last words that were cut within a phone."""
    lengths = []

    def places(audio, pieces):
        lengths.append(len(audio))
        return np.array([[40, 60], [60, 170]], dtype=float)

    monkeypatch.setattr(aligner, "_decode", places)
    found = aligner.align(np.zeros(16000, dtype=np.float32), ["one", "two"])

    assert lengths == [32000]
    np.testing.assert_allclose(found.times, [[0, 0.1], [0.1, 1.0]], atol=1e-6)
    assert found.num_moved == 0


def test_words_that_cannot_be_placed_are_told(aligner, monkeypatch):
    monkeypatch.setattr(aligner, "_decode", lambda *_: np.zeros((1, 2)))

    with pytest.raises(AlignmentError, match="not_aligned: PocketSphinx placed 1 of 2"):
        aligner.align(np.zeros(16000, dtype=np.float32), ["one", "two"])


def test_a_word_in_another_script_is_named(aligner):
    with pytest.raises(AlignmentError, match="no_pronunciation: '\u4f60\u597d'"):
        aligner.align(np.zeros(16000, dtype=np.float32), ["one", "\u4f60\u597d"])


@pytest.mark.parametrize("samples", [1600, 16000])
def test_silence_ends_in_times_or_in_a_reason(aligner, samples):
    try:
        found = aligner.align(np.zeros(samples, dtype=np.float32), ["one", "two"])
        assert found.times[-1, 1] <= samples / 16000
    except AlignmentError as error:
        assert error.reason == "not_aligned"


def test_a_missing_package_comes_with_its_install_command(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pocketsphinx", None)

    with pytest.raises(MissingPackageError, match="pip install pocketsphinx"):
        room.PocketSphinxAligner()
