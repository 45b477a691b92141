"""What a completion goes on from: speech, text, nothing, or speech inside a text.

Symbols: P prompt positions, T tokens, W words, H LLM width, D TASTE width (and word
delay), Q codebooks.

Source: TASTE (arXiv:2504.07053); the four kinds of prompt of the reference.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from espnet_taste.slm.delay import collate, delay_words
from espnet_taste.slm.model import SpokenLM

TextPrompt = Literal["plain", "fused"]


@dataclass(frozen=True)
class Prompt:
    """What a completion goes on from.

    With ``before`` or ``after`` it is an instruction: text around speech (or around
    text), as a chat template makes it. The LLM reads those tokens without TASTE.
    """

    tokens: Sequence[int] = ()  # LLM token ids, (T,)
    words: Sequence[int] = ()  # word index of every token, (T,)
    codes: np.ndarray | None = None  # (W, Q) int; None = text without speech
    before: Sequence[int] = ()  # LLM token ids of an instruction in front
    after: Sequence[int] = ()  # and behind
    name: str = ""  # for messages; "" = its number in the batch

    @property
    def has_codes(self) -> bool:
        """Whether there is speech in this prompt."""
        return len(self.tokens) > 0 and self.codes is not None

    @property
    def is_instruction(self) -> bool:
        """Whether text stands around the prompt."""
        return len(self.before) > 0 or len(self.after) > 0

    @property
    def goes_on(self) -> bool:
        """Whether the completion goes on speaking where the prompt stopped."""
        return self.has_codes and not self.is_instruction

    @property
    def said(self) -> list[int]:
        """Token ids of the whole prompt, (P,)."""
        return [*self.before, *self.tokens, *self.after]


def read_prompt(
    slm: SpokenLM, prompt: Prompt, text_prompt: TextPrompt = "plain"
) -> tuple[Tensor, Tensor]:
    """Turn a prompt into what the LLM reads and what is still to be heard.

    Args:
        slm: The spoken LM.
        prompt: The prompt.
        text_prompt: How a prompt without codes is read: ``"plain"`` token embeddings
            alone (released), or ``"fused"`` as in training, with start symbol and the
            pad in the place of TASTE. An instruction is always read plainly.

    Returns:
        Inputs of the LLM, (P, H), and the TASTE of the last words of the prompt,
        which the delay keeps for the words that follow, (delay, D). Behind an
        instruction a new turn begins, and nothing is kept.

    Raises:
        ValueError: If words and codes of the prompt disagree.
    """
    device = slm.pad_text.device
    silence = slm.pad_taste.expand(slm.delay, -1)
    if prompt.is_instruction:
        around = [
            slm.embed_tokens(torch.tensor(part, dtype=torch.long, device=device))
            for part in (prompt.before, prompt.after)
        ]
        inside = _read_inside(slm, prompt)
        return torch.cat([around[0], inside.to(around[0].dtype), around[1]]), silence
    if not len(prompt.tokens):
        return slm.embed_start(1)[0], silence
    if prompt.has_codes:
        return _read_speech(slm, prompt)
    text = slm.embed_tokens(torch.tensor(prompt.tokens, device=device))
    if text_prompt == "plain":
        return text, silence
    fused = slm.fuse(slm.pad_taste.expand(len(text), -1), text)
    return torch.cat([slm.embed_start(1)[0], fused]), silence


def _read_inside(slm: SpokenLM, prompt: Prompt) -> Tensor:
    """Read what an instruction stands around, without start symbol, (T, H)."""
    if prompt.has_codes:
        return _read_speech(slm, prompt)[0][1:]
    tokens = torch.tensor(prompt.tokens, dtype=torch.long, device=slm.pad_text.device)
    return slm.embed_tokens(tokens)


def _read_speech(slm: SpokenLM, prompt: Prompt) -> tuple[Tensor, Tensor]:
    """Read words with codes: start symbol and fused positions, (T + 1, H)."""
    layout = delay_words(prompt.tokens, prompt.words, slm.delay, slm.delay_level)
    batch = collate([layout], [np.asarray(prompt.codes)]).to(slm.pad_text.device)
    end = len(prompt.tokens)
    return slm.embed(batch)[0, : end + 1], slm.lookup_taste(batch)[0, end:]


def rooms_of(
    slm: SpokenLM, prompts: Sequence[Prompt], inputs: Sequence[Tensor], max_tokens: int
) -> list[int]:
    """Return how many tokens may follow prompts, each on its own.

    Args:
        slm: The spoken LM.
        prompts: The prompts.
        inputs: What the LLM reads of them, each (P, H).
        max_tokens: The most that is wanted.

    Raises:
        ValueError: If a prompt leaves no room in the LLM's context.
    """
    limit = slm.max_positions
    if limit is None:
        return [max_tokens] * len(prompts)
    for number, (prompt, rows) in enumerate(zip(prompts, inputs, strict=True)):
        if len(rows) + slm.delay >= limit:
            raise ValueError(
                f"{prompt.name or f'prompt {number}'} takes {len(rows)} positions, of "
                f"which the LLM has {limit}; shorten it"
            )
    return [min(max_tokens, limit - len(rows) - slm.delay) for rows in inputs]


def pad_left(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Stack (P, H) rows of unequal length; the mask is None if they are equal."""
    longest = max(len(row) for row in rows)
    padded = [F.pad(row, (0, 0, longest - len(row), 0)) for row in rows]
    if all(len(row) == longest for row in rows):
        return torch.stack(padded), None
    lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
    positions = torch.arange(longest, device=lengths.device)
    return torch.stack(padded), positions >= longest - lengths[:, None]
