"""A completion in one line: a vocabulary by ids, a prompt, a greedy run."""

import numpy as np
import torch
from tiny_slm import VOCAB_SIZE

from espnet_taste.sampling import Sampler
from espnet_taste.slm.generation import CompletionSettings, complete
from espnet_taste.slm.prompt import Prompt
from espnet_taste.slm.vocabulary import Vocabulary

GREEDY = Sampler(top_p=0.0)
SPEECH = Prompt([4, 9, 8], [0, 0, 1], np.array([[1, 2, 3], [4, 5, 6]]))


def make_vocabulary(starts=(), ends=(), banned=(), stops=(), signs=(), blanks=()):
    """Return the masks of a vocabulary by the ids in each."""

    def mask(ids):
        flags = torch.zeros(VOCAB_SIZE, dtype=torch.bool)
        flags[list(ids)] = True
        return flags

    return Vocabulary(
        word_start=mask(starts),
        sign=mask(signs),
        blank=mask(blanks),
        sentence_end=mask(ends),
        banned=mask(banned),
        stop=mask(stops),
    )


EVEN = make_vocabulary(starts=range(0, VOCAB_SIZE, 2))


def only(*ids):
    """Ban everything else: the LLM can say nothing but this."""
    return [index for index in range(VOCAB_SIZE) if index not in ids]


def run(slm, prompt, vocabulary=EVEN, **settings):
    """Complete one prompt, by the best tokens."""
    settings = {"text": GREEDY, "max_tokens": 12, **settings}
    (result,) = complete(
        slm, [prompt], vocabulary, settings=CompletionSettings(**settings)
    )
    return result
