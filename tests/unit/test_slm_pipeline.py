"""The spoken LM behind its commands: what every condition reads, how turns end."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_spoken_lm import tiny_spoken_lm

from espnet_taste.pipeline import slm as slm_module
from espnet_taste.slm.generation import CompletionSettings
from espnet_taste.slm.vocabulary import RELEASED_END

TEXTS = {"a": "one two", "b": "on"}
CODES = {"a": [[0, 1], [2, 0]], "b": [[1, 1]]}


@pytest.fixture
def inference():
    return tiny_spoken_lm().inference


def draw_adapters(inference):
    """Adapters begin at zero, where all that tells them from the LLM is equal."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in inference.slm.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.5)


def scores(inference, codes, others=CODES):
    """Return the rows by condition and key, codes of the other one exchanged in."""

    def item(key, codes):
        data = {"text": TEXTS[key], "codes": np.array(codes[key])}
        return key, inference.preprocess(key, data)

    rows = inference.scores(
        [item(key, codes) for key in "ab"],
        [item(key, others) for key in "ba"],
        inference.mean_latent({key: np.array(rows) for key, rows in CODES.items()}),
    )
    return {(row["condition"], row["key"]): row for row in rows}


def text_losses(found, condition):
    return [found[condition, key]["text_loss_sum"] for key in "ab"]


def test_exchanged_codes_are_the_other_ones_codes_and_nothing_else(inference):
    draw_adapters(inference)
    # The one word of "b" stands for both of "a", the first word of "a" for that of "b".
    exchanged = {"a": [[1, 1], [1, 1]], "b": [[0, 1]]}

    found, by_hand = scores(inference, CODES), scores(inference, exchanged)

    assert text_losses(found, "exchanged_codes") == pytest.approx(
        text_losses(by_hand, "matched")
    )
    matched, other = (text_losses(found, c)[0] for c in ("matched", "exchanged_codes"))
    assert abs(matched - other) > 1e-4
    errors = [
        found[condition, "a"]["latent_error_sum"]
        for condition in ("matched", "exchanged_codes")
    ]
    assert abs(errors[0] - errors[1]) > 1e-6


def test_the_text_llm_is_without_adapters_and_text_alone_with_them(inference):
    before = scores(inference, CODES)
    draw_adapters(inference)
    after = scores(inference, CODES)
    silent = scores(inference, {"a": [[3, 2], [1, 3]], "b": [[0, 2]]})

    llm, alone = "text_llm", "text_alone"
    assert text_losses(after, llm) == pytest.approx(text_losses(before, llm))
    assert text_losses(before, llm) == pytest.approx(text_losses(before, alone))
    assert abs(text_losses(after, alone)[0] - text_losses(before, alone)[0]) > 1e-4
    for condition in (llm, alone):  # neither reads codes
        assert text_losses(silent, condition) == pytest.approx(
            text_losses(after, condition)
        )


def test_a_released_answer_ends_with_its_turn_unless_that_is_banned(
    inference, monkeypatch
):
    """Reference behaviour: the end of the turn stops, and 128001 is never drawn."""
    asked = []
    monkeypatch.setattr(
        slm_module, "read_vocabulary", lambda *_, **options: asked.append(options)
    )
    settings = CompletionSettings(compat=True)
    for end, is_turn in (("<|eot_id|>", True), ("<|eot_id|>", False),
                         (RELEASED_END, True), (None, True)):  # fmt: skip
        tokenizer = SimpleNamespace(eos_token=end, eos_token_id=9)
        inference.text = SimpleNamespace(tokenizer=tokenizer)
        inference.vocabulary_for(settings, is_turn)

    assert [options.get("end_id") for options in asked] == [9, None, None, None]
    assert all(options["ban"] == "released" for options in asked)
