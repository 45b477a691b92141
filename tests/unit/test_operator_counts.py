"""Work per pass: no operator a word, no position twice.

A loop in Python over positions, words or tokens starts an operator a turn: on a GPU
that is what takes the time, whatever the sizes.
"""

import numpy as np
import pytest
import torch
from tiny_slm import VOCAB_SIZE, make_batch, make_slm
from tiny_whisper import tiny_aggregator
from torch.utils._python_dispatch import TorchDispatchMode

from espnet_taste.decoder.layout import whole_rows
from espnet_taste.decoder.unit_lm import UnitLM
from espnet_taste.layers.relative_attention import CausalBlocks
from espnet_taste.slm.generation import CompletionSettings, complete
from espnet_taste.slm.prompt import Prompt
from espnet_taste.slm.vocabulary import Vocabulary
from espnet_taste.tokenizer.encoder import EncoderStates


class Counter(TorchDispatchMode):
    """Counts the operators that run inside it."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def operators(function, *args):
    """Return how many operators a second call takes: tables are kept by then."""
    function(*args)
    with Counter() as counter:
        function(*args)
    assert counter.count > 0
    return counter.count


def test_a_mask_of_any_length():
    """Reference cost P7: a loop over positions makes a triangle."""

    def build(length):
        rows = torch.arange(length) // 3
        CausalBlocks.build(rows, ((1, length),), torch.float32)

    assert operators(build, 4) == operators(build, 400)


@pytest.mark.parametrize("training", [True, False])
def test_the_unit_lm_at_any_length(training):
    """Reference costs P6 and P7: lists of rows, a triangle a forward pass."""
    sizes = {"width": 8, "heads": 2, "feedforward": 8, "text_dim": 4}
    layers = {"text_layers": 1, "taste_layers": 1, "lm_layers": 2}
    model = UnitLM(9, 20, 5, speaker_dim=3, taste_input_dim=4, **sizes, **layers)
    model.train(training)

    def run(num_tokens, num_units):
        layout = whole_rows(
            torch.tensor([num_tokens] * 2),
            torch.zeros(2, num_units, dtype=torch.long),
            torch.tensor([num_units] * 2),
            num_tokens=num_tokens,
            num_units=9,
        )
        tokens = torch.ones(2, num_tokens, dtype=torch.long)
        taste = torch.randn(2, num_tokens, 5)
        logits = model(tokens, taste, torch.randn(2, 3), layout)
        if training:
            logits.sum().backward()

    assert operators(run, 3, 5) == operators(run, 30, 100)


def test_the_spoken_lm_for_any_number_of_words():
    """Reference cost P4: every word is looked for and copied by itself."""
    slm = make_slm().train()

    def run(sizes):
        slm(make_batch([sizes, sizes])).loss.backward()

    assert operators(run, [1, 2]) == operators(run, [1, 2] * 20)


def test_the_aggregator_for_any_number_of_words():
    """Reference cost P5: the span of every word is searched and averaged by itself."""
    aggregator = tiny_aggregator()
    states = torch.randn(1, 5, 16)
    states = EncoderStates(states, states, torch.tensor([5]))

    def run(num_words):
        words = torch.arange(num_words).repeat_interleave(2)[None]
        aggregator(words, torch.tensor([2 * num_words]), words, states)

    assert operators(run, 1) == operators(run, 10)


def test_every_position_is_read_once_and_only_the_last_one_is_asked():
    """Reference cost P1: every step reads and classifies all positions anew."""
    slm, read, asked = make_slm(), [], []
    layers = slm.causal_lm.base_model.layers
    hooks = [
        layers[0].register_forward_pre_hook(lambda _, args: read.append(args[0])),
        slm.output_layer.register_forward_pre_hook(
            lambda _, args: asked.append(args[0])
        ),
    ]

    prompt = Prompt([4, 9, 8], [0, 0, 1], np.array([[1, 2, 3], [4, 5, 6]]))
    is_start = torch.arange(VOCAB_SIZE) % 2 == 0
    no = torch.zeros_like(is_start)
    vocabulary = Vocabulary(is_start, *[no] * 5)

    (result,) = complete(
        slm, [prompt], vocabulary, settings=CompletionSettings(max_tokens=12)
    )
    for hook in hooks:
        hook.remove()

    steps = len(result.trace.tokens)
    before = 1 + len(prompt.tokens)  # with the start symbol
    assert steps > 2
    assert [hidden.size(1) for hidden in read] == [before] + [1] * (steps - 1)
    assert [hidden.shape[:-1].numel() for hidden in asked] == [1] * steps
