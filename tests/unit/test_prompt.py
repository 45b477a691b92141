"""What a completion goes on from, as the LLM reads it."""

import pytest
import torch
from tiny_completion import EVEN, SPEECH, run
from tiny_slm import SOS_ID, make_slm

from espnet_taste.slm.generation import complete
from espnet_taste.slm.prompt import Prompt, read_prompt
from espnet_taste.slm.state_machine import TasteAction


@pytest.fixture(scope="module")
def slm():
    return make_slm()


def test_an_instruction_is_read_around_the_speech():
    slm = make_slm(delay=2)
    prompt = Prompt(SPEECH.tokens, SPEECH.words, SPEECH.codes, [5, 6], [7])

    inputs, silence = read_prompt(slm, prompt)
    speech, _ = read_prompt(slm, SPEECH)

    text = slm.embed_tokens(torch.tensor([5, 6, 7]))
    assert torch.equal(inputs, torch.cat([text[:2], speech[1:], text[2:]]))
    assert torch.equal(silence, slm.pad_taste.expand(2, -1))
    assert prompt.said == [5, 6, *SPEECH.tokens, 7]


def test_behind_an_instruction_a_new_turn_begins(slm):
    """The prompt's last words are not carried over: the released way."""
    around = Prompt(SPEECH.tokens, SPEECH.words, SPEECH.codes, [5], [7])

    actions = run(slm, around).trace.taste_actions
    assert TasteAction.WAIT in actions and TasteAction.USE_PREFIX not in actions
    assert TasteAction.USE_PREFIX in run(slm, SPEECH).trace.taste_actions


def test_an_instruction_may_stand_alone_or_around_text(slm):
    alone = run(slm, Prompt(before=[5, 6]))
    text = run(slm, Prompt([5, 6], [0, 1]))
    around = run(slm, Prompt([6], [0], before=[5]))

    assert alone.tokens.tolist() == text.tokens.tolist() == around.tokens.tolist()


def test_a_plain_text_prompt_is_read_as_text_alone(slm):
    """Reference defect C14, kept under its name."""
    prompt = Prompt([4, 9, 8], [0, 0, 1])

    inputs, silence = read_prompt(slm, prompt)

    assert torch.equal(inputs, slm.embed_tokens(torch.tensor([4, 9, 8])))
    assert torch.equal(silence, slm.pad_taste[None])


def test_a_fused_text_prompt_is_read_as_in_training(slm):
    inputs, _ = read_prompt(slm, Prompt([4], [0]), "fused")

    text = slm.embed_tokens(torch.tensor([SOS_ID, 4]))
    assert torch.equal(inputs[0], text[0])
    assert torch.equal(inputs[1], slm.fuse(slm.pad_taste, text[1]))


def test_the_last_words_of_a_spoken_prompt_are_still_to_be_heard():
    slm = make_slm(delay=2)

    inputs, pending = read_prompt(slm, SPEECH)

    assert inputs.shape == (4, 16)
    codes = torch.from_numpy(SPEECH.codes)
    torch.testing.assert_close(pending, slm.codebooks.decode(codes))


def test_codes_for_another_number_of_words_are_refused(slm):
    wrong = Prompt(SPEECH.tokens, SPEECH.words, SPEECH.codes[:1])

    with pytest.raises(ValueError, match="has 2 words but codes for 1"):
        complete(slm, [wrong], EVEN)
