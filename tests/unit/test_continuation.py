"""Continuing in words: one code row a word, whatever the tokens decode to."""

import numpy as np
import pytest
import torch
from tiny_slm import NUM_CODEBOOKS, VOCAB_SIZE, make_slm

from espnet_taste.sampling import Sampler
from espnet_taste.slm.continuation import SpokenContinuer
from espnet_taste.slm.generation import CompletionSettings
from espnet_taste.slm.vocabulary import build_vocabulary

# Tokens that make decoded whitespace and counted word starts disagree.
PIECES = [" cat", "dog", " a b", "x y", " ", " mat.", "s"]
TEXTS = [PIECES[index % len(PIECES)] for index in range(VOCAB_SIZE)]


def encode(text):
    return [2 + ord(letter) % (VOCAB_SIZE - 2) for letter in text.strip()]


def decode(tokens):
    return "".join(TEXTS[token] for token in tokens)


@pytest.fixture
def continuer():
    return SpokenContinuer(
        make_slm(),
        encode,
        decode,
        vocabulary=build_vocabulary(TEXTS, ban="released"),
        settings=CompletionSettings(text=Sampler(), extra_words=4, max_tokens=30),
    )


@pytest.mark.parametrize("seed", range(5))
def test_every_word_has_codes_though_tokens_hold_blanks(continuer, seed):
    """Reference defect C13: it crashes where the decoded words are counted."""
    generator = torch.Generator().manual_seed(seed)
    codes = np.ones((2, NUM_CODEBOOKS), dtype=int)

    result = continuer.continue_prompt(["hello", "you"], codes, source=generator)

    assert len(result.words) == len(result.codes) > 0
    assert result.codes.shape[1] == NUM_CODEBOOKS
    assert result.text == decode(result.completion.tokens.tolist()).strip()
    assert "".join(result.text.split()) == "".join(result.words)
    assert result.words == " ".join(result.words).split()  # or tables would have more


def test_a_character_that_was_cut_in_its_bytes_is_not_said():
    """The limit may fall between two tokens of one character."""
    pieces = [b" a", "\u00e9".encode()[:1], b" ", "\u00e9".encode()[1:]]

    def read(tokens):
        text = b"".join(pieces[token % len(pieces)] for token in tokens)
        return text.decode(errors="replace")

    texts = [read([index]) for index in range(VOCAB_SIZE)]
    cut = 0
    for seed in range(8):
        continuer = SpokenContinuer(
            make_slm(),
            encode,
            read,
            vocabulary=build_vocabulary(texts),
            settings=CompletionSettings(
                text=Sampler(temperature=9.0), extra_words=9, max_tokens=6
            ),
        )
        source = torch.Generator().manual_seed(seed)
        result = continuer.continue_prompt(source=source)
        source.manual_seed(seed)
        heard = list(
            continuer.continue_words(continuer.make_prompt([], None), source=source)
        )

        assert [word for word, _ in heard] == result.words and all(result.words)
        assert np.array_equal([codes for _, codes in heard], result.codes)
        assert not any(word.endswith("\ufffd") for word in (*result.words, result.text))
        cut += len(result.completion.codes) - len(result.codes)
    assert cut


def test_a_prompt_is_cut_word_by_word(continuer):
    prompt = continuer.make_prompt(["ab", "c"], np.zeros((2, NUM_CODEBOOKS)))

    assert list(prompt.words) == [0, 0, 1]
    assert list(prompt.tokens) == encode("ab") + encode("c")


def test_nothing_and_text_alone_are_prompts_too(continuer):
    for prompt in (continuer.make_prompt([], None), continuer.make_prompt(["a"], None)):
        assert not prompt.has_codes
    assert continuer.continue_prompt().words
    assert continuer.continue_prompt(["hello"]).words


def test_prompts_are_continued_together(continuer):
    prompts = [continuer.make_prompt([word], None) for word in ("one", "two", "six")]

    assert len(continuer.continue_prompts(prompts)) == 3


def test_words_without_codes_are_refused(continuer):
    with pytest.raises(ValueError, match="prompt has 2 words but codes for 1"):
        continuer.continue_prompt(["a", "b"], np.ones((1, NUM_CODEBOOKS)))


def test_the_spoken_lm_is_put_into_eval_mode():
    slm = make_slm().train()

    SpokenContinuer(slm, encode, decode, vocabulary=build_vocabulary(TEXTS))

    assert not slm.training
