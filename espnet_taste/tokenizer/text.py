"""Whisper's text side: vocabulary, special tokens and the decoder's prefix.

Source: Whisper (arXiv:2212.04356), section 2.3.
"""

from functools import lru_cache
from pathlib import Path

from transformers import PreTrainedTokenizerBase, WhisperTokenizer

from espnet_taste.tokenizer.whisper import is_multilingual, load_config
from espnet_taste.weights import resolve


@lru_cache
def _load_tokenizer(folder: Path) -> WhisperTokenizer:
    """Load once in a process: it takes a second, and several parts of a model ask."""
    return WhisperTokenizer.from_pretrained(folder)


class WhisperText:
    """Tokenizer of a Whisper checkpoint; holds no network.

    Args:
        model: Whisper weights, name or folder.
        language: Code of the spoken language, e.g. "en", for the decoder's prefix.
            English-only checkpoints have no language token and take "en" only.
        task: "transcribe", or "translate" (into English), likewise.

    Raises:
        ValueError: If the checkpoint does not know language or task.
    """

    def __init__(
        self,
        model: str = "openai/whisper-tiny.en",
        language: str = "en",
        task: str = "transcribe",
    ):
        tokenizer = _load_tokenizer(resolve(model))
        self._build(tokenizer, load_config(model).vocab_size, language, task)

    @classmethod
    def from_tokenizer(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        vocab_size: int,
        language: str = "en",
        task: str = "transcribe",
    ) -> "WhisperText":
        """Wrap a tokenizer instead of loading one by name.

        Args:
            tokenizer: A Whisper tokenizer with all its special tokens.
            vocab_size: Rows of the checkpoint's embedding table.
            language: As in the constructor.
            task: As in the constructor.
        """
        text = cls.__new__(cls)
        text._build(tokenizer, vocab_size, language, task)
        return text

    def _build(
        self,
        tokenizer: PreTrainedTokenizerBase,
        vocab_size: int,
        language: str,
        task: str,
    ) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = vocab_size
        self.language = language
        names = ["<|startoftranscript|>"]
        if is_multilingual(vocab_size):
            names += [f"<|{language}|>", f"<|{task}|>"]
        elif (language, task) != ("en", "transcribe"):
            wish = f"language '{language}'" if language != "en" else f"task '{task}'"
            raise ValueError(
                f"this Whisper is English-only, {wish} needs a multilingual one such "
                "as openai/whisper-base"
            )
        names.append("<|notimestamps|>")
        self.prefix_ids = [self._special_id(name) for name in names]
        self.eot_id = self._special_id("<|endoftext|>")

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without special tokens.

        What looks like a special token in the text is spelled out: a transcript
        cannot inject one.
        """
        return self.tokenizer.encode(
            text, add_special_tokens=False, split_special_tokens=True
        )

    def decode(self, tokens: list[int]) -> str:
        """Return the text of token ids, special tokens left out."""
        return self.tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def _special_id(self, name: str) -> int:
        index = self.tokenizer.convert_tokens_to_ids(name)
        # An unknown token comes back as the id of another one.
        if self.tokenizer.convert_ids_to_tokens(index) != name:
            raise ValueError(f"this Whisper tokenizer has no token {name}")
        return index
