"""The word state machine in figures small enough to follow by hand."""

import pytest
import torch

from espnet_taste.slm.state_machine import Action, TasteAction, WordMachine


def run(machine, script):
    """Feed one row; a letter is s(tart), i(nside), e(nd inside) or x (stop)."""
    steps = []
    for letter in script:
        flags = [torch.tensor([letter == kind]) for kind in "sex"]
        step = machine.step(*flags)
        steps.append((int(step.action), int(step.taste_action), bool(step.take)))
    return steps


def make_machine(has_prefix=False, extra_words=2, **options):
    return WordMachine(torch.tensor([has_prefix]), extra_words, **options)


def test_text_runs_one_word_ahead_of_taste():
    actions, tastes, takes = zip(*run(make_machine(), "sises"))

    start, inside = Action.CONTINUE_AT_WORD_START, Action.CONTINUE_NOT_AT_WORD_START
    assert actions == (start, inside, start, inside, Action.TERMINATE)
    wait, sample = TasteAction.WAIT, TasteAction.SAMPLE
    assert tastes == (wait, wait, sample, sample, sample)
    assert takes == (False, False, True, False, True)


def test_the_prompt_is_heard_first():
    machine = make_machine(has_prefix=True, delay=2)

    _, tastes, takes = zip(*run(machine, "siss"))

    heard, again = TasteAction.USE_PREFIX, TasteAction.USE_PREFIX_IGNORE
    assert tastes == (heard, again, heard, TasteAction.SAMPLE)
    assert takes == (False, False, False, True)


def test_the_slot_counts_the_words_of_the_prompt():
    machine = make_machine(has_prefix=True, delay=2)
    no = torch.tensor([False])
    slots = [
        int(machine.step(torch.tensor([letter == "s"]), no, no).prefix_slot)
        for letter in "siissi"
    ]

    assert slots == [0, 0, 0, 1, 1, 1]


def test_three_times_the_words_end_without_a_full_stop():
    actions = [action for action, _, _ in run(make_machine(extra_words=2), "s" * 8)]

    assert actions.index(Action.TERMINATE) == 7


def test_end_finishes_every_row_in_delay_steps():
    machine = WordMachine(torch.zeros(2, dtype=torch.bool), 9, delay=2)
    no = torch.zeros(2, dtype=torch.bool)
    machine.step(no, no, no)
    machine.end()

    first, second = machine.step(no, no, no), machine.step(no, no, no)

    assert first.action.tolist() == [Action.WAIT_FOR_TASTE] * 2
    assert second.action.tolist() == [Action.TERMINATE] * 2
    assert second.take.tolist() == [True, True]


def test_a_stop_token_is_the_first_step_of_the_flush():
    actions = [a for a, _, _ in run(make_machine(delay=2, extra_words=9), "six")]

    assert actions[2] == Action.WAIT_FOR_TASTE
    assert [a for a, _, _ in run(make_machine(extra_words=9), "sx")] == [
        Action.CONTINUE_AT_WORD_START,
        Action.TERMINATE,
    ]


@pytest.mark.parametrize("values", [{"extra_words": -1}, {"delay": 0}])
def test_impossible_settings_are_refused(values):
    with pytest.raises(ValueError, match="extra_words must be at least 0 and delay"):
        make_machine(**values)
