"""Turn what ESPnet reads for one utterance into the arrays a model needs.

Both callables are idempotent (ESPnet may apply a preprocessor twice) and use no
ESPnet base class. Names at this border are ESPnet's: ``text``, ``units``,
``spembs``, ``speech``; see ``collate`` for what a batch holds.
"""

from collections.abc import Callable

import numpy as np

from espnet_taste.data.spans import unit_boundaries
from espnet_taste.words import encode_words, split_words

Arrays = dict[str, np.ndarray]


class TokenizerPreprocessor:
    """Prepare an utterance for the speech tokenizer.

    Args:
        encode: Whisper's tokenizer, text to token ids without special tokens.
        unit_rate_hz: Units a second; needed to place the words on the units.
    """

    def __init__(self, encode: Callable[[str], list[int]], unit_rate_hz: float):
        self.encode = encode
        self.unit_rate_hz = unit_rate_hz

    def __call__(self, uid: str, data: dict) -> Arrays:
        """Tokenise the text and cast the units.

        Args:
            uid: Utterance id, for messages.
            data: ``text`` str; in training ``units`` (S,) float or int; optional
                ``word_times`` (W, 2) in seconds; everything else is passed on.

        Returns:
            ``asr_tokens`` (Ta,), ``asr_words`` (Ta,), ``units`` (S,), all int64,
            and if there were times, ``word_bounds`` (W + 1,) int64 in units and
            ``token_times`` (Ta, 2) float32, start and end of a token's word in s.

        Raises:
            ValueError: If words and times disagree; the utterance is named.
        """
        data = dict(data)
        num_words = _tokenise(data, self.encode, "asr")
        if "units" in data:
            data["units"] = np.asarray(data["units"]).astype(np.int64)
        times = data.pop("word_times", None)
        if times is not None:
            if num_words is not None and len(times) != num_words:
                raise ValueError(
                    f"utterance '{uid}' has {num_words} words in text but "
                    f"{len(times)} in word_times; run the alignment stage again"
                )
            times = np.asarray(times, dtype=np.float32)
            data["token_times"] = times[data["asr_words"]]
            data["word_bounds"] = unit_boundaries(
                times, len(data["units"]), self.unit_rate_hz
            )
        return data


class SpokenLMPreprocessor:
    """Prepare an utterance for the spoken LM.

    Args:
        encode: The LLM's tokenizer, text to token ids without special tokens.
    """

    def __init__(self, encode: Callable[[str], list[int]]):
        self.encode = encode

    def __call__(self, uid: str, data: dict) -> Arrays:
        """Tokenise the text and cast the codes.

        Args:
            uid: Utterance id, for messages.
            data: ``text`` str and ``codes`` (W, Q), float or int.

        Returns:
            ``llm_tokens`` (Tl,), ``llm_words`` (Tl,) and ``codes`` (W, Q), int64.

        Raises:
            ValueError: If words and codes disagree; the utterance is named.
        """
        data = dict(data)
        num_words = _tokenise(data, self.encode, "llm")
        data["codes"] = np.asarray(data["codes"]).astype(np.int64)
        if num_words is not None and len(data["codes"]) != num_words:
            raise ValueError(
                f"utterance '{uid}' has {num_words} words in text but "
                f"{len(data['codes'])} rows of codes; extract the codes again"
            )
        return data


def _tokenise(
    data: dict, encode: Callable[[str], list[int]], prefix: str
) -> int | None:
    """Replace ``text`` by tokens and word ids; return the number of words."""
    text = data.pop("text", None)
    if text is None:  # second application
        return None
    words = split_words(text)
    encoded = encode_words(words, encode)
    data[f"{prefix}_tokens"] = np.asarray(encoded.tokens, dtype=np.int64)
    data[f"{prefix}_words"] = np.asarray(encoded.words, dtype=np.int64)
    return len(words)
