"""Completion: go on from a prompt, in text and TASTE together.

Every step reads one fused position with a key-value cache, takes the outputs of that
position alone, and asks the ``WordMachine`` what the drawn token means. A completion
always ends: after ``max_tokens`` tokens the codes still missing are collected and
that is that, whatever the LLM says.

Symbols: B batch, P prompt positions, W words, S steps, H LLM width, D TASTE width
(and word delay), Q codebooks, V vocabulary.

Source: TASTE (arXiv:2504.07053); completion of the reference, equal to it on the
recorded runs (greedy, prompts of speech, of text, and none).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from espnet_taste.sampling import RandomSource, Sampler, remove
from espnet_taste.slm.delay import collate, delay_words
from espnet_taste.slm.model import SpokenLM
from espnet_taste.slm.state_machine import Action, Step, TasteAction, WordMachine
from espnet_taste.slm.vocabulary import Vocabulary
from espnet_taste.types import IGNORE

# Asking a GPU whether all rows are done stops it, so it is asked now and then.
GPU_STEPS_PER_CHECK = 8


@dataclass(frozen=True)
class Prompt:
    """What a completion goes on from: speech, text alone, or nothing."""

    tokens: Sequence[int] = ()  # LLM token ids, (T,)
    words: Sequence[int] = ()  # word index of every token, (T,)
    codes: np.ndarray | None = None  # (W, Q) int; None = text without speech

    @property
    def has_codes(self) -> bool:
        """Whether this is a prompt of speech."""
        return len(self.tokens) > 0 and self.codes is not None


@dataclass(frozen=True)
class CompletionSettings:
    """How to complete."""

    extra_words: int = 16  # stop at a sentence end from here on, or at 3 times as many
    max_tokens: int = 256  # text tokens, at most
    text: Sampler = field(default_factory=lambda: Sampler(top_p=0.9))
    codes: Sampler | None = None  # None = the best code; a latent head draws nothing
    # How a text prompt is read: "plain" token embeddings alone (released), or "fused"
    # as in training, with start symbol and the pad in the place of TASTE.
    text_prompt: Literal["plain", "fused"] = "plain"

    def __post_init__(self) -> None:
        """Check the values."""
        if self.extra_words < 0 or self.max_tokens < 1:
            raise ValueError(
                "extra_words must be at least 0 and max_tokens at least 1, got "
                f"{self.extra_words} and {self.max_tokens}"
            )
        if self.text_prompt not in ("plain", "fused"):
            raise ValueError(
                f"text_prompt must be 'plain' or 'fused', got '{self.text_prompt}'"
            )


@dataclass(frozen=True)
class Trace:
    """All steps of one completion."""

    tokens: np.ndarray  # (S,) int64, every drawn token, dropped ones included
    actions: np.ndarray  # (S,) int64, Action
    taste_actions: np.ndarray  # (S,) int64, TasteAction
    codes: np.ndarray  # (S, Q) int64; IGNORE where none were taken


@dataclass(frozen=True)
class Completion:
    """The generated part, without the prompt."""

    tokens: np.ndarray  # (N,) int64, LLM token ids
    words: np.ndarray  # (N,) int64, word index of every token, from 0 up
    codes: np.ndarray  # (W, Q) int64, one row a word
    was_cut: bool  # max_tokens ended it
    trace: Trace


@torch.no_grad()
def complete(
    slm: SpokenLM,
    prompts: Sequence[Prompt],
    vocabulary: Vocabulary,
    *,
    settings: CompletionSettings = CompletionSettings(),
    source: RandomSource = None,
) -> list[Completion]:
    """Complete a batch of prompts.

    Args:
        slm: The spoken LM, in eval mode.
        prompts: One a completion; kinds and lengths may differ.
        vocabulary: Masks of the LLM's tokens.
        settings: How to complete.
        source: Source of randomness, on the device of ``slm``; a greedy completion
            draws nothing.

    Returns:
        One completion a prompt, every word with its codes.

    Raises:
        ValueError: If ``slm`` is in train mode or a prompt has another number of
            words than codes.
    """
    if slm.training:
        raise ValueError("the spoken LM is in train mode; call eval() first")
    if not prompts:
        return []
    loop = _Loop(slm, prompts, vocabulary.to(slm.pad_text.device), settings, source)
    num_steps = settings.max_tokens + slm.delay
    every = 1 if slm.pad_text.device.type == "cpu" else GPU_STEPS_PER_CHECK
    for number in range(1, num_steps + 1):
        loop.step()
        if number % every == 0 and bool(loop.done.all()):
            break
    return loop.results()


class _Loop:
    """State of the completion of one batch."""

    def __init__(
        self,
        slm: SpokenLM,
        prompts: Sequence[Prompt],
        vocabulary: Vocabulary,
        settings: CompletionSettings,
        source: RandomSource,
    ):
        self.slm, self.vocabulary = slm, vocabulary
        self.settings, self.source = settings, source
        device = slm.pad_text.device
        read = [read_prompt(slm, prompt, settings.text_prompt) for prompt in prompts]
        self.pending = torch.stack([pending for _, pending in read])  # (B, delay, D)
        self.inputs, self.mask = _pad_left([inputs for inputs, _ in read])
        self.past = None
        has_prefix = torch.tensor([p.has_codes for p in prompts], device=device)
        self.machine = WordMachine(
            has_prefix, settings.extra_words, slm.delay, slm.delay_level
        )
        self.seen = self._context(prompts)
        self.taste = slm.pad_taste.expand(len(prompts), -1)  # last generated one
        self.done = torch.zeros_like(has_prefix)
        self.cut = torch.zeros_like(has_prefix)
        self.history: list[tuple[Tensor, Step, Tensor]] = []

    def step(self) -> None:
        """Draw one token and one code row in every row of the batch."""
        hidden, self.past = self.slm.read_on(self.inputs, self.past, self.mask)
        tokens = self._draw_text(hidden)
        codes = self.slm.head.choose(
            self.slm.run_head(hidden),
            self.slm.codebooks,
            sampler=self.settings.codes,
            source=self.source,
        )
        if len(self.history) == self.settings.max_tokens:
            self.cut = ~self.machine.ended
            self.machine.end()
        # The released machine starts its flush anew at every stop token, and misses
        # the last word's codes if that token starts no word.
        stop = self.vocabulary.stop[tokens] & ~self.machine.ended
        step = self.machine.step(
            self.vocabulary.word_start[tokens] | stop,
            self.vocabulary.sentence_end[tokens],
            stop,
        )
        self.history.append((tokens, step, codes))
        self.done = self.done | (step.action == Action.TERMINATE)
        self.seen = self.seen.scatter(1, tokens[:, None], True)
        self._prepare(tokens, step, codes)

    def results(self) -> list[Completion]:
        """Cut every row at its last step and collect words and codes."""
        tokens = torch.stack([t for t, _, _ in self.history], 1).cpu().numpy()
        codes = torch.stack([c for _, _, c in self.history], 1).cpu().numpy()
        steps = [
            torch.stack([getattr(s, name) for _, s, _ in self.history], 1).cpu().numpy()
            for name in ("action", "taste_action", "take")
        ]
        cut = self.cut.cpu().tolist()
        return [
            _completion(tokens[row], codes[row], *(s[row] for s in steps), cut[row])
            for row in range(len(tokens))
        ]

    def _draw_text(self, hidden: Tensor) -> Tensor:
        logits = self.slm.output_layer(hidden).float()
        logits = remove(logits, self.vocabulary.banned)
        return self.settings.text.choose(logits, self.seen, source=self.source)

    def _prepare(self, tokens: Tensor, step: Step, codes: Tensor) -> None:
        """Choose the TASTE to read along with the drawn tokens."""
        fresh = self.slm.codebooks.decode(codes)
        self.taste = torch.where(step.take[:, None], fresh, self.taste)
        slot = step.prefix_slot[:, None, None].expand(-1, 1, self.pending.size(-1))
        prefix = self.pending.gather(1, slot).squeeze(1)
        action = step.taste_action[:, None]
        # To wait is to read the pad, which is what prompts without TASTE have pending.
        taste = torch.where(action == TasteAction.SAMPLE, self.taste, prefix)
        text = self.slm.embed_tokens(tokens)
        self.inputs = self.slm.fuse(taste, text)[:, None]
        if self.mask is not None:
            self.mask = F.pad(self.mask, (0, 1), value=True)

    def _context(self, prompts: Sequence[Prompt]) -> Tensor:
        """Mark the ids a repetition penalty counts as said, (B, V)."""
        size = len(self.vocabulary.banned)
        seen = torch.zeros(len(prompts), size, dtype=torch.bool)
        for row, prompt in zip(seen, prompts):
            row[list(prompt.tokens) or [self.slm.sos_id]] = True
        return seen.to(self.vocabulary.banned.device)


def read_prompt(
    slm: SpokenLM, prompt: Prompt, text_prompt: Literal["plain", "fused"] = "plain"
) -> tuple[Tensor, Tensor]:
    """Turn a prompt into what the LLM reads and what is still to be heard.

    Args:
        slm: The spoken LM.
        prompt: The prompt.
        text_prompt: How a prompt without codes is read, see ``CompletionSettings``.

    Returns:
        Inputs of the LLM, (P, H), and the TASTE of the last words of the prompt,
        which the delay keeps for the words that follow, (delay, D).

    Raises:
        ValueError: If words and codes of the prompt disagree.
    """
    device = slm.pad_text.device
    silence = slm.pad_taste.expand(slm.delay, -1)
    if not len(prompt.tokens):
        return slm.embed_start(1)[0], silence
    if prompt.has_codes:
        layout = delay_words(prompt.tokens, prompt.words, slm.delay, slm.delay_level)
        batch = collate([layout], [np.asarray(prompt.codes)]).to(device)
        end = len(prompt.tokens)
        return slm.embed(batch)[0, : end + 1], slm.lookup_taste(batch)[0, end:]
    text = slm.embed_tokens(torch.tensor(prompt.tokens, device=device))
    if text_prompt == "plain":
        return text, silence
    fused = slm.fuse(slm.pad_taste.expand(len(text), -1), text)
    return torch.cat([slm.embed_start(1)[0], fused]), silence


def _pad_left(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Stack (P, H) rows of unequal length; the mask is None if they are equal."""
    longest = max(len(row) for row in rows)
    padded = [F.pad(row, (0, 0, longest - len(row), 0)) for row in rows]
    if all(len(row) == longest for row in rows):
        return torch.stack(padded), None
    lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
    positions = torch.arange(longest, device=lengths.device)
    return torch.stack(padded), positions >= longest - lengths[:, None]


def _completion(
    tokens: np.ndarray,
    codes: np.ndarray,
    actions: np.ndarray,
    taste_actions: np.ndarray,
    take: np.ndarray,
    was_cut: bool,
) -> Completion:
    """Cut one row at its last step."""
    length = int(np.argmax(actions == Action.TERMINATE)) + 1
    tokens, actions, take = tokens[:length], actions[:length], take[:length]
    codes = np.where(take[:, None], codes[:length], IGNORE)
    starts = actions == Action.CONTINUE_AT_WORD_START
    kept = starts | (actions == Action.CONTINUE_NOT_AT_WORD_START)
    words = (np.cumsum(starts) - 1)[kept]
    if starts.sum() != take.sum():
        raise RuntimeError(
            f"{starts.sum()} words were generated but codes for {take.sum()}; "
            "this is a bug of the word state machine"
        )
    trace = Trace(tokens, actions, taste_actions[:length], codes)
    return Completion(tokens[kept], words, codes[take], was_cut, trace)
