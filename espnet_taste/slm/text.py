"""Loading the text LLM and its tokenizer by name."""

from functools import cached_property

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from espnet_taste.weights import resolve
from espnet_taste.weights.strict import naming_damage


class LlmText:
    """Tokenizer of an LLM; holds no network.

    Args:
        llm: Name such as ``HuggingFaceTB/SmolLM2-135M-Instruct``, or a folder.
    """

    def __init__(self, llm: str):
        self.tokenizer = AutoTokenizer.from_pretrained(resolve(llm))

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without special tokens.

        What looks like a special token in the text is spelled out: a transcript
        cannot inject one. A leading blank counts once, also with tokenizers that put
        one in front of every text (sentencepiece).
        """
        if self.adds_blank and text.startswith(" "):
            text = text[1:]
        return self._encode(text)

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(
            text, add_special_tokens=False, split_special_tokens=True
        )

    @cached_property
    def adds_blank(self) -> bool:
        """Whether the tokenizer itself puts a blank in front of a text."""
        anchor = self._encode("a")
        behind = self.decode([*anchor, *self._encode("a")])
        return behind[len(self.decode(anchor)) :].startswith(" ")

    def decode(self, tokens: list[int]) -> str:
        """Return the text of token ids."""
        return self.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)


def load_llm(llm: str, dtype: torch.dtype = torch.bfloat16) -> PreTrainedModel:
    """Load a causal LM, complete and in evaluation mode.

    Args:
        llm: Name or folder.
        dtype: Precision of its weights.

    Raises:
        FileNotFoundError: If the weights cannot be had.
        ValueError: If the folder lacks weights of the model. An output layer tied to
            the embedding does not count as missing.
    """
    folder = resolve(llm)
    with naming_damage(folder):
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, output_loading_info=True
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"{folder} is not a complete checkpoint: {len(missing)} tensors are "
            f"missing, e.g. {missing[0]}"
        )
    return model.eval()
