"""A spoken LM with its tokenizer, tiny, with a token a letter."""

import torch
from tiny_slm import VOCAB_SIZE, make_llm
from tiny_taste import WIDTH, tiny_tokenizer
from tokenizers import AddedToken

from espnet_taste.data.collate import SpokenLMCollate
from espnet_taste.data.preprocessor import SpokenLMPreprocessor
from espnet_taste.pipeline.slm import SpokenLMInference
from espnet_taste.pipeline.spoken_lm import TasteSpokenLM
from espnet_taste.slm.model import SpokenLM
from espnet_taste.slm.vocabulary import build_vocabulary
from espnet_taste.tasks.slm_model import TasteSpokenLMModel

PIECES = [" ka", "lo", " mi.", "s", " tu"]
TEXTS = [PIECES[index % len(PIECES)] for index in range(VOCAB_SIZE)]


class Letters:
    """A text tokenizer of the LLM: a token a letter, with a chat template."""

    class tokenizer:
        chat_template = "yes"
        all_special_tokens = ["<end>"]
        added_tokens_decoder = {
            0: AddedToken("<turn>", special=True),
            1: AddedToken("<b>", special=False),
        }

        @staticmethod
        def apply_chat_template(messages, tokenize, add_generation_prompt):
            turns = [f"{m['role']}:{m['content']};" for m in messages]
            return "".join(turns) + "you:"

        @staticmethod
        def encode(text, add_special_tokens):
            return [2 + ord(letter) % (VOCAB_SIZE - 2) for letter in text]

    @staticmethod
    def encode(text):
        return [2 + ord(letter) % (VOCAB_SIZE - 2) for letter in text.strip()]

    @staticmethod
    def decode(tokens):
        return "".join(TEXTS[token] for token in tokens)


def tiny_spoken_lm():
    """Build a spoken LM around a tiny tokenizer, random but for its fusion."""
    tokenizer = tiny_tokenizer()
    slm = SpokenLM(
        make_llm(),
        tokenizer.model.quantizer,
        WIDTH,
        lora={"r": 2, "alpha": 4, "dropout": 0.0},
    )
    torch.manual_seed(3)
    with torch.no_grad():
        slm.fusion.weights.zero_()
        torch.nn.init.normal_(slm.pad_taste)
    inference = SpokenLMInference.__new__(SpokenLMInference)
    inference.device = torch.device("cpu")
    inference.model = TasteSpokenLMModel(slm).eval()
    inference.slm = slm
    inference.preprocess = SpokenLMPreprocessor(Letters.encode)
    inference.collate = SpokenLMCollate(slm.delay, slm.delay_level)
    inference.text = Letters
    inference.vocabulary = build_vocabulary(TEXTS)
    return TasteSpokenLM(inference, tokenizer)
