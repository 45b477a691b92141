"""Which tokens start a word, end a sentence, or must not be drawn."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import ByteLevel, Metaspace
from transformers import PreTrainedTokenizerFast

from espnet_taste.slm.vocabulary import (
    build_vocabulary,
    read_vocabulary,
    token_texts,
)

TEXTS = [" cat", "s", ".", " end.", " ?", "!", "é", "ok\n", "\n", " ", " a b", "<eos>"]
EOS = 11


def chosen(mask):
    return [TEXTS[i] if i < len(TEXTS) else i for i in mask.nonzero().flatten()]


def test_words_start_with_a_blank_or_are_special():
    vocabulary = build_vocabulary(TEXTS, special_ids=[EOS])

    expected = [" cat", " end.", " ?", " ", " a b", "<eos>"]
    assert chosen(vocabulary.word_start) == expected


def test_the_released_ban_list():
    """Defect C11, kept under its name: no ?, !, quotes or other scripts."""
    vocabulary = build_vocabulary(
        TEXTS, special_ids=[EOS], banned_ids=[EOS], ban="released"
    )

    banned = [" ?", "!", "é", "ok\n", "\n", " ", "<eos>"]
    assert chosen(vocabulary.banned) == banned
    assert chosen(vocabulary.sentence_end) == [".", " end."]


def test_the_released_rule_judges_special_tokens_by_their_text():
    vocabulary = build_vocabulary(TEXTS, special_ids=[EOS], ban="released")

    assert "<eos>" not in chosen(vocabulary.banned)


def test_the_default_bans_only_what_cannot_be_spoken_as_a_word():
    vocabulary = build_vocabulary(TEXTS, special_ids=[EOS], sentence_end=".?!")

    assert chosen(vocabulary.banned) == ["ok\n", "\n", " a b", "<eos>"]
    assert chosen(vocabulary.blank) == [" "]
    assert chosen(vocabulary.sentence_end) == [".", " end.", " ?", "!"]


def test_signs_of_unspaced_scripts_are_words_and_none_is_hidden():
    texts = ["世", " 世", "世界", "a世", " ひー", "ー", "s", " "]
    vocabulary = build_vocabulary(texts)

    def named(mask):
        return [texts[i] for i in mask.nonzero().flatten()]

    assert named(vocabulary.sign) == ["世", "世界"]
    assert not build_vocabulary([*texts, "a1"], ban="released").sign.any()
    assert named(vocabulary.word_start) == [" 世", " ひー", " "]
    assert named(vocabulary.banned) == ["世界", "a世"]


def test_a_blank_that_nothing_could_follow_is_banned():
    vocabulary = build_vocabulary([" ", " cat"])

    assert vocabulary.banned.tolist() == [True, False]
    assert not vocabulary.blank.any()


def test_a_stop_token_is_not_banned():
    vocabulary = build_vocabulary(TEXTS, special_ids=[EOS], stop_ids=[EOS])

    assert chosen(vocabulary.stop) == ["<eos>"]
    assert "<eos>" not in chosen(vocabulary.banned)


def test_logits_beyond_the_vocabulary_are_banned():
    vocabulary = build_vocabulary(TEXTS, num_logits=len(TEXTS) + 2)

    assert {len(mask) for mask in vars(vocabulary).values()} == {len(TEXTS) + 2}
    assert vocabulary.banned[-2:].all() and not vocabulary.word_start[-2:].any()


def test_masks_move_together():
    """Reference cost P3: a list of the banned ids indexes the logits at every step."""
    moved = build_vocabulary(TEXTS).to("meta")

    assert {mask.device for mask in vars(moved).values()} == {torch.device("meta")}
    assert {mask.dtype for mask in vars(moved).values()} == {torch.bool}


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (TEXTS, {"ban": "all"}, "'released' or 'unspeakable', got 'all'"),
        (["\n", "!"], {"ban": "released"}, "bans all 2 tokens"),
        (["a"], {"stop_ids": [0]}, "nothing could be said"),
        (TEXTS, {"sentence_end": ""}, "at least one character"),
    ],
)
def test_what_cannot_work_is_refused(texts, options, message):
    with pytest.raises(ValueError, match=message):
        build_vocabulary(texts, **options)


def make_tokenizer(tokens, decoder, pre_tokenizer):
    vocab = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<eos>"))
    tokenizer.decoder = decoder
    tokenizer.pre_tokenizer = pre_tokenizer
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<eos>"
    )


@pytest.mark.parametrize(("blank", "decoder"), [("Ġ", ByteLevel()), ("▁", Metaspace())])
def test_texts_keep_their_blank_in_either_kind_of_tokenizer(blank, decoder):
    """Decoded alone, a sentence-piece token loses the blank it starts with."""
    tokens = ["<eos>", "a", f"{blank}cat", "s", f"{blank}."]
    tokenizer = make_tokenizer(tokens, decoder, pre_tokenizers.Whitespace())

    assert token_texts(tokenizer) == ("<eos>", "a", " cat", "s", " .")


def test_sentences_end_in_other_scripts_too():
    """Completions in these went on to three times the words that were asked for."""
    tokens = ["<eos>", "a", "。", "？", "؟", "।", "។", "，", ".", "၊"]
    tokenizer = make_tokenizer(tokens, Metaspace(), pre_tokenizers.Whitespace())

    ends = read_vocabulary(tokenizer).sentence_end

    assert [tokens[i] for i in ends.nonzero().flatten()] == list("。？؟।។.")


def test_a_tokenizer_is_read_once():
    """Reference cost P2: three decodings of the whole vocabulary a completion."""
    tokens = ["<eos>", "a", "Ġcat", "!"]
    tokenizer = make_tokenizer(tokens, ByteLevel(), pre_tokenizers.Whitespace())

    first = read_vocabulary(tokenizer, 6)

    assert read_vocabulary(tokenizer, 6) is first
    assert first.banned.tolist() == [True, False, False, False, True, True]
    assert first.word_start.tolist() == [True, False, True, False, False, False]
    assert first.sentence_end.tolist() == [False] * 3 + [True] + [False] * 2


@pytest.mark.parametrize("end_id", [0, 2])
def test_what_the_llm_learned_to_end_with_ends_a_completion(end_id):
    """Be it the tokenizer's own end symbol or another token."""
    tokens = ["<eos>", "a", "Ġcat", "!"]
    tokenizer = make_tokenizer(tokens, ByteLevel(), pre_tokenizers.Whitespace())

    vocabulary = read_vocabulary(tokenizer, 4, end_id=end_id)

    assert vocabulary.stop.nonzero().flatten().tolist() == [end_id]
    assert vocabulary.banned.tolist() == [end_id != 0, False, False, False]
