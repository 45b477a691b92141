"""Words and tokens of LLMs: one blank in front of a word, whatever the tokenizer."""

import pytest
import sentencepiece
import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerFast

from espnet_taste.slm.text import LlmText
from espnet_taste.slm.vocabulary import read_vocabulary
from espnet_taste.words import encode_words

SENTENCES = [
    "Don't stop, it's 1999 -- or 2,000.5!",
    "naïve café (über) e-mail",
    "Привет мир 你 好 に ほ ん",
    "a b c",
]


def byte_level():
    """Return a byte-level BPE tokenizer, as GPT-2, SmolLM and Qwen have."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def pieces(tmp_path):
    """Return a sentencepiece tokenizer with bytes for what it does not know."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(SENTENCES * 20), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(tmp_path / "spm"),
        vocab_size=330,
        model_type="unigram",
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    model = sentencepiece.SentencePieceProcessor(str(tmp_path / "spm.model"))
    scores = [(model.id_to_piece(i), model.get_score(i)) for i in range(len(model))]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=0, byte_fallback=True))
    # As Llama's: the blank in front is part of the normalisation.
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


@pytest.fixture(scope="module", params=["byte_level", "pieces"])
def text(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    made = byte_level() if request.param == "byte_level" else pieces(folder)
    text = LlmText.__new__(LlmText)
    text.tokenizer = made
    text.name = request.param
    return text


def test_it_is_known_who_puts_the_blank(text):
    assert text.adds_blank == (text.name == "pieces")


@pytest.mark.parametrize("sentence", SENTENCES)
def test_words_come_back_as_they_were(text, sentence):
    words = sentence.split()
    encoded = encode_words(words, text.encode)

    assert text.decode(encoded.tokens).strip() == sentence
    anchor = text.encode(" x")
    before = len(text.decode(anchor))
    for index, word in enumerate(words):
        own = [t for t, w in zip(encoded.tokens, encoded.words) if w == index]
        assert text.decode([*anchor, *own])[before:] == f" {word}"


@pytest.mark.parametrize("sentence", SENTENCES)
def test_generation_counts_the_words_that_were_encoded(text, sentence):
    """The first token of every word, and no other, is known to start a word."""
    vocabulary = read_vocabulary(text.tokenizer)
    encoded = encode_words(sentence.split(), text.encode)

    check_that_it_can_be_said(vocabulary, encoded)


def check_that_it_can_be_said(vocabulary, encoded):
    """Every token may be drawn where it stands, and starts a word where one starts."""
    tokens = torch.tensor(encoded.tokens)
    behind = F.pad(vocabulary.blank[tokens], (1, -1))
    starts = (vocabulary.word_start | vocabulary.sign)[tokens] & ~behind
    firsts = [w != v for v, w in zip([-1, *encoded.words], encoded.words)]
    assert starts.tolist() == firsts
    assert not vocabulary.banned[tokens].any()
    assert not (vocabulary.word_start[tokens] & behind).any()


@pytest.mark.weights
@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_real_llm_can_say_numerals_and_signs(sentence):
    """SmolLM2 cuts " 1999" into a blank and four digits."""
    text = LlmText("HuggingFaceTB/SmolLM2-135M-Instruct")
    encoded = encode_words(sentence.split(), text.encode)

    check_that_it_can_be_said(read_vocabulary(text.tokenizer), encoded)


def test_what_looks_special_is_spelled_out():
    text = LlmText.__new__(LlmText)
    text.tokenizer = byte_level()

    assert text.tokenizer.eos_token_id is not None
    assert text.tokenizer.eos_token_id not in text.encode(" <end>")
    assert text.decode(text.encode(" <end>")) == " <end>"


def test_the_released_rule_bans_llamas_end_of_text_by_name():
    """Its text would be allowed, and an instruction-tuned LLM ends in another token."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level()._tokenizer,
        eos_token="<|eot_id|>",
        additional_special_tokens=["<|end_of_text|>"],
    )
    end, turn = tokenizer.convert_tokens_to_ids(["<|end_of_text|>", "<|eot_id|>"])

    released = read_vocabulary(tokenizer, ban="released", end_id=turn)
    plain = read_vocabulary(tokenizer, ban="released")

    assert released.banned[end] and not released.banned[turn] and released.stop[turn]
    assert plain.banned[end] and plain.banned[turn] and not plain.stop.any()
