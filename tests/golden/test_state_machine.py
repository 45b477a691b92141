"""The word state machine takes the released decisions on every recorded trace."""

import torch

from espnet_taste.slm.state_machine import Action, TasteAction, WordMachine


def run(case, vocabulary):
    """Feed the scripted tokens and return the trace in the fixture's form."""
    machine = WordMachine(
        torch.tensor([case["has_prefix"]]),
        case["extra_words"],
        case["delay"],
        case["level"],
    )
    trace = []
    for token in case["text_ids"]:
        step = machine.step(
            torch.tensor([token in vocabulary["word_start"]]),
            torch.tensor([token in vocabulary["sentence_end"]]),
            torch.tensor([token == case["stop_id"]]),
        )
        action = Action(int(step.action)).name.lower()
        taste_action = TasteAction(int(step.taste_action)).name.lower()
        trace.append([int(step.take), action, taste_action])
    return trace


def test_every_recorded_trace(golden):
    logic = golden("logic_sampler").info
    assert logic["cases"]
    for case in logic["cases"]:
        assert run(case, logic["vocabulary"]) == case["trace"], case
