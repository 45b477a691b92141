"""Continue speech or text, in words: the spoken LM with its tokenizer.

``generation`` knows token ids only; this is the thin layer that speaks words. A word
here is what the state machine counted, never what whitespace in the decoded text
suggests, so there is one code row a word whatever the tokens decode to (the
reference compares the two counts and crashes, defect C13).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from espnet_taste.sampling import RandomSource
from espnet_taste.slm.generation import (
    Completion,
    CompletionSettings,
    complete,
    complete_words,
)
from espnet_taste.slm.model import SpokenLM
from espnet_taste.slm.prompt import Prompt
from espnet_taste.slm.vocabulary import Vocabulary
from espnet_taste.words import encode_words

# What the bytes of a character decode to of which the last are not there.
UNFINISHED = "\ufffd"


@dataclass(frozen=True)
class Continuation:
    """The generated part, without the prompt."""

    text: str  # as the tokens decode, but for a character that was cut at the end
    words: list[str]  # one string a word, without blanks around it; none is empty
    codes: np.ndarray  # (W, Q) int64, one row a word
    # The same in token ids, and how it came about; cut characters are there.
    completion: Completion


class SpokenContinuer:
    """Continue prompts given as words and codes.

    Args:
        slm: The spoken LM; put into eval mode.
        encode: Text to LLM token ids, without special tokens.
        decode: LLM token ids to text.
        vocabulary: Masks of the LLM's tokens, see ``read_vocabulary``.
        settings: How to complete.
    """

    def __init__(
        self,
        slm: SpokenLM,
        encode: Callable[[str], Sequence[int]],
        decode: Callable[[list[int]], str],
        *,
        vocabulary: Vocabulary,
        settings: CompletionSettings = CompletionSettings(),
    ):
        self.slm = slm.eval()
        self.encode = encode
        self.decode = decode
        self.vocabulary = vocabulary.to(slm.pad_text.device)
        self.settings = settings

    def make_prompt(self, words: Sequence[str], codes: np.ndarray | None) -> Prompt:
        """Tokenize a prompt.

        Args:
            words: Its words; none starts from nothing.
            codes: Their codes, (W, Q); None for a prompt of text alone.

        Returns:
            The prompt in token ids.

        Raises:
            ValueError: If a word gets no token, or words and codes disagree.
        """
        if codes is not None and len(codes) != len(words):
            raise ValueError(
                f"the prompt has {len(words)} words but codes for {len(codes)}"
            )
        encoded = encode_words(words, self.encode)
        return Prompt(encoded.tokens, encoded.words, codes)

    def continue_prompt(
        self,
        words: Sequence[str] = (),
        codes: np.ndarray | None = None,
        *,
        source: RandomSource = None,
    ) -> Continuation:
        """Continue one prompt; see ``make_prompt`` for its parts.

        Args:
            words: Words of the prompt.
            codes: Codes of the prompt, (W, Q), or None.
            source: Source of randomness, on the device of the spoken LM.

        Returns:
            What comes next.
        """
        prompt = self.make_prompt(words, codes)
        return self.continue_prompts([prompt], source=source)[0]

    def continue_prompts(
        self,
        prompts: Sequence[Prompt],
        *,
        source: RandomSource = None,
    ) -> list[Continuation]:
        """Continue a batch of prompts.

        Args:
            prompts: Prompts of ``make_prompt``.
            source: Source of randomness, on the device of the spoken LM.

        Returns:
            One continuation a prompt.
        """
        completions = complete(
            self.slm,
            prompts,
            self.vocabulary,
            settings=self.settings,
            source=source,
        )
        return [self._speak(completion) for completion in completions]

    def continue_words(
        self, prompt: Prompt, *, source: RandomSource = None
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Continue one prompt word by word; leave the loop to stop.

        Args:
            prompt: A prompt of ``make_prompt``.
            source: Source of randomness, on the device of the spoken LM.

        Yields:
            A word and its codes (Q,) int64, as soon as the latter are known.
        """
        words = complete_words(
            self.slm, prompt, self.vocabulary, settings=self.settings, source=source
        )
        for word in words:
            if text := self._spell_word(word.tokens):
                yield text, word.codes

    def _speak(self, completion: Completion) -> Continuation:
        words = [
            self._spell_word(completion.tokens[completion.words == word])
            for word in range(len(completion.codes))
        ]
        is_said = np.array([bool(word) for word in words], dtype=bool)
        return Continuation(
            self._spell(completion.tokens),
            [word for word in words if word],
            completion.codes[is_said],
            completion,
        )

    def _spell_word(self, tokens: np.ndarray) -> str:
        """Return a word, one whatever blanks its tokens hold by the released rules."""
        return "".join(self._spell(tokens).split())

    def _spell(self, tokens: np.ndarray) -> str:
        """Return a text without blanks around it, nor a character cut in its bytes."""
        return self.decode(tokens.tolist()).rstrip(UNFINISHED + " ").strip()
