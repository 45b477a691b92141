"""How likely a spoken LM finds what its tokenizer encoded, by name of the way."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_spoken_lm import tiny_spoken_lm
from tiny_taste import noise, tiny_tokenizer

from espnet_taste.pipeline.scoring import ScoredItem
from espnet_taste.pipeline.spoken_lm import TasteSpokenLM
from espnet_taste.slm.conventions import CONVENTIONS


@pytest.fixture(scope="module")
def lm():
    return tiny_spoken_lm()


@pytest.fixture(scope="module")
def speech(lm):
    return lm.tokenizer.encode(noise(12000), "one two three", word_times=False)


def test_a_spoken_lm_of_another_tokenizer_is_refused(lm):
    """One that was trained once more has codes of the same numbers and range."""
    other = tiny_tokenizer()
    with torch.no_grad():
        other.model.quantizer.rvq.codebooks[0].embed[3] += 0.5

    with pytest.raises(ValueError, match="trained on the codes of another tokenizer"):
        TasteSpokenLM(lm.inference, other)


def test_likelihoods_by_their_conventions(lm, speech):
    item = lm.likelihoods(speech)

    assert item.codes.shape == (3, 1) and len(item.tokens) == len("onetwothree")
    for name, convention in CONVENTIONS.items():
        assert lm.log_likelihood(speech, name) == convention(item)
    pair = lm.log_likelihood([speech, speech[:2]])
    assert pair[0] == pytest.approx(lm.log_likelihood(speech))
    assert pair[1] == pytest.approx(lm.log_likelihood(speech[:2]))
    with pytest.raises(ValueError, match="convention must be one of .*, got 'best'"):
        lm.log_likelihood(speech, "best")


def test_what_is_said_from_a_moment_on_is_scored_by_itself(lm, speech):
    starts = np.array([0.0, 0.3, 0.6], dtype=np.float32)
    timed = replace(speech, times=np.stack([starts, starts + 0.2], 1), span_s=(0, 0.8))
    part = lm.likelihoods(timed).words(1, 3)

    found = lm.log_likelihood([timed, timed], "localised", from_s=[0.2, 0.5])
    assert found[0] == pytest.approx(CONVENTIONS["taste"](part))
    last = lm.likelihoods(timed).words(2, 3)
    assert found[1] == pytest.approx(CONVENTIONS["taste"](last))
    short = lm.log_likelihood(timed, "localised", from_s=0.2, window_s=0.3)
    assert short == pytest.approx(CONVENTIONS["taste"](part.words(0, 1)))

    # It begins before the moment, by an estimate; more of it lies behind.
    gain = lm.log_likelihood(timed, "normalised", from_s=0.35)
    without = lm.log_likelihood(timed[1:])
    assert gain == pytest.approx(found[0] - without, abs=1e-5)
    assert abs(gain) > 1e-4
    # In one batch, an item that nothing stands before leaves the other alone.
    items = [ScoredItem(timed, from_s=moment) for moment in (0.0, 0.2)]
    first, second = lm.scores(items, normalise=True)
    assert "normalised" not in first and second["normalised"] == pytest.approx(gain)


@pytest.mark.parametrize(
    ("convention", "from_s", "message"),
    [
        ("localised", None, "no moment is given"),
        ("localised", 0.75, "no word is said within inf s after 0.75 s"),
        ("normalised", 0.0, "no word stands before the moment"),
    ],
)
def test_a_moment_that_cannot_be_scored_is_named(
    lm, speech, convention, from_s, message
):
    starts = np.array([0.0, 0.3, 0.6], dtype=np.float32)
    timed = replace(speech, times=np.stack([starts, starts + 0.2], 1))
    with pytest.raises(ValueError, match=f"'one two three' has no .*{message}"):
        lm.log_likelihood(timed, convention, from_s=from_s)
    with pytest.raises(ValueError, match="not known when its words were said"):
        lm.log_likelihood(speech, "localised", from_s=0.1)


def test_every_item_has_its_moment_and_only_parts_have_one(lm, speech):
    """A moment was passed over where everything is scored."""
    with pytest.raises(ValueError, match="from_s: 'taste' scores the whole; leave it"):
        lm.log_likelihood(speech, from_s=0.5)
    with pytest.raises(ValueError, match="from_s: 2 items, but 1 moments"):
        lm.log_likelihood([speech, speech], "localised", from_s=[0.1])


@pytest.mark.parametrize("texts", [{"after": ["x"]}, {"before": ["x"] * 3}])
def test_every_item_of_a_list_has_a_text_or_none_has(lm, speech, texts):
    with pytest.raises(ValueError, match=r"(after|before): 2 items, but \d texts"):
        lm.likelihoods([speech, speech], batch_size=1, **texts)


def test_codes_change_the_likelihood(lm, speech):
    other = replace(speech, codes=(speech.codes + 1) % 8)

    assert lm.log_likelihood(speech) != lm.log_likelihood(other)
