"""Ratings of continuations by a chat model behind an OpenAI-compatible endpoint.

The transcripts of prompt and continuation are shown, not the audio: what is rated is
what was said. Ratings depend on the model and its version, so they compare systems
that one model rated by one rubric, and do not carry over between papers.

Source: TASTE (arXiv:2504.07053), section 4.2, which has GPT-4o rate; the rubric is
ours.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError

from espnet_taste.eval.json_lines import ResumableLines

KEY_VARIABLE = "OPENAI_API_KEY"
TIMEOUT_S = 120
MAX_TOKENS = 300
RUBRIC_VERSION = "relevance-v1"
RUBRIC = """\
Below are the transcripts of the beginning of a recording and of what a system said \
next. Both come from speech recognition: overlook punctuation, casing and small \
misrecognitions. The second part may end in the middle of a sentence.

Beginning: {prompt}
Continuation: {continuation}

How plausible is the continuation as what the same speaker says next, judged by its \
relevance to the beginning, its grammar and its sense? 1: unrelated or not language; \
2: hardly related; 3: related, with breaks; 4: fits, with a slip; 5: as a person would \
go on. Give your reason in one sentence, then a line of the form
Score: <1 to 5>"""
_SCORE = re.compile(r"Score:\W*([1-5])\b(?!\.\d)", re.IGNORECASE)


@dataclass(frozen=True)
class Rating:
    """An answer and the score in it."""

    score: int | None  # 1..5; None where the answer has none
    answer: str


class ChatRater:
    """A chat model that rates.

    Args:
        url: Address of the endpoint, with its version, e.g. http://localhost:8000/v1.
        model: Model name there.
    """

    def __init__(self, url: str, model: str):
        self.url, self.model = url, model
        self.name = f"{model} {RUBRIC_VERSION}"
        key = os.environ.get(KEY_VARIABLE, "none")  # local servers want any
        self.client = InferenceClient(base_url=url, api_key=key, timeout=TIMEOUT_S)

    def rate(self, prompt: str, continuation: str) -> Rating:
        """Rate one continuation.

        Raises:
            ConnectionError: If the endpoint does not answer, or not as a chat model.
        """
        question = RUBRIC.format(
            prompt=prompt, continuation=continuation or "(nothing)"
        )
        messages = [{"role": "user", "content": question}]
        try:
            reply = self.client.chat_completion(
                messages, model=self.model, temperature=0.0, max_tokens=MAX_TOKENS
            )
            answer = reply.choices[0].message.content or ""
        except (HfHubHTTPError, InferenceTimeoutError, OSError) as error:
            raise ConnectionError(
                f"{self.url}: {type(error).__name__}: {error}; what was rated is kept, "
                f"run it again (the key comes from {KEY_VARIABLE})"
            ) from error
        return Rating(score_in(answer), answer)


def score_in(answer: str) -> int | None:
    """Return the last score of an answer; None if it has none."""
    found = _SCORE.findall(answer)
    return int(found[-1]) if found else None


def rate_texts(
    rater: ChatRater,
    prompts: Mapping[str, str],
    continuations: Mapping[str, str],
    cache: Path,
    keys: Iterable[str],
) -> dict[str, Rating]:
    """Rate many continuations with a cache on disk.

    Args:
        rater: Who rates.
        prompts: Utterance id to what was said before.
        continuations: Utterance id to what was said next.
        cache: JSON lines file of earlier ratings.
        keys: Which ones, in this order.

    Raises:
        ValueError: If a prompt is missing.
        ConnectionError: If the endpoint fails; earlier ratings are kept.
    """
    missing = sorted(set(continuations) - set(prompts))
    if missing:
        raise ValueError(
            f"no prompt text of '{missing[0]}' and {len(missing) - 1} more"
        )
    lines = ResumableLines(cache, ("key", "texts", "rater", "answer"))
    known = {_identity(row): row["answer"] for _, row in lines.load()}
    ratings: dict[str, Rating] = {}
    for key in keys:
        texts = f"{prompts[key]}\n{continuations[key]}"
        digest = hashlib.sha256(texts.encode()).hexdigest()[:16]
        row = {"key": key, "texts": digest, "rater": rater.name}
        answer = known.get(_identity(row))
        if answer is None:
            answer = rater.rate(prompts[key], continuations[key]).answer
            lines.append({**row, "answer": answer})
        ratings[key] = Rating(score_in(answer), answer)
    return ratings


def _identity(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["key"], row["texts"], row["rater"]
