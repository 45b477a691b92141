"""Another utterance's text or codes: what reliance exchanges in."""

import numpy as np
import torch
from tiny_taste import NUM_UNITS, SPEAKER_DIM, WIDTH, no_quantizer, tiny_tokenizer

from espnet_taste.data.collate import TokenizerCollate
from espnet_taste.layers.exchange import exchange, repeat_to_width, word_by_word


def test_exchange_repeats_the_next_row():
    values = torch.tensor([[1, 2, 3], [7, 8, 0]])
    lengths = torch.tensor([3, 2])

    assert exchange(values, lengths).tolist() == [[7, 8, 7], [1, 2, 3]]
    assert repeat_to_width(values, lengths).tolist() == [[1, 2, 3], [7, 8, 7]]


def test_all_tokens_of_a_word_get_one_word_of_the_other():
    values = torch.tensor([[5.0, 5.0, 6.0, 0.0], [7.0, 8.0, 8.0, 8.0]])[..., None]
    lengths = torch.tensor([3, 4])
    other_words = torch.tensor([[0, 0, 1, 9], [0, 1, 1, 1]])
    words = torch.tensor([[0, 1, 1, 2], [0, 0, 0, -100]])

    given = word_by_word(values, lengths, other_words, words)[..., 0]

    assert given[0].tolist() == [5, 6, 6, 5]  # repeated: there are two words
    assert given[1, :3].tolist() == [7, 7, 7]


def item(key, words, frames):
    rng = np.random.default_rng(len(words))
    return key, {
        "asr_tokens": np.arange(10, 10 + len(words)),
        "asr_words": np.array(words),
        "units": rng.integers(NUM_UNITS, size=6),
        "spembs": rng.normal(size=SPEAKER_DIM).astype(np.float32),
        "encoder_states": rng.normal(size=(frames, 2 * WIDTH)).astype(np.float32),
    }


def test_scores_exchange_codes_by_word_and_texts_with_their_own_codes():
    inference = tiny_tokenizer(quantizer=no_quantizer()).inference
    inference.collate = TokenizerCollate(NUM_UNITS)
    own, other = item("a", [0, 0, 0, 1], 20), item("b", [0, 1, 1], 30)
    read = []
    inference.model.decoder.register_forward_pre_hook(lambda _, x: read.append(x))

    counts = inference.unit_counts([own], [other])

    assert list(counts) == [
        "matched",
        "exchanged_text",
        "exchanged_codes",
        "exchanged_both",
    ]
    tokens, taste = zip(*((text[0], codes[0]) for text, codes, *_ in read))
    same = [bool((codes[0] == codes[1]).all()) for codes in taste]
    assert same == [True, True, True, False]
    assert torch.equal(taste[0], taste[1]) and torch.equal(tokens[0], tokens[2])
    first, second = taste[3][0], taste[3][1]  # the other's two words
    assert torch.equal(taste[2], torch.stack([first, first, first, second]))
    assert tokens[3].tolist() == tokens[1].tolist() == [10, 11, 12, 10]
    assert torch.equal(taste[3], torch.stack([first, second, second, first]))
