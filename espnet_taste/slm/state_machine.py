"""When a generated token starts a word, when its TASTE is due, when to stop.

Text runs ahead of TASTE by D words: the codes that come out at a word start belong to
the word D starts earlier. After the last word, D more steps ("flush") draw text that
nobody keeps, to collect the codes still missing. All of this follows from the drawn
tokens alone, so it is kept apart from the network, for a whole batch at once.

Source: TASTE (arXiv:2504.07053); sampler of the reference, equal to it on all
recorded traces.
"""

from dataclasses import dataclass, field
from enum import IntEnum

import torch
from torch import Tensor

from espnet_taste.slm.delay import DelayLevel

_UNSET = -1


class Action(IntEnum):
    """What a step does with its text token."""

    CONTINUE_AT_WORD_START = 0  # keep it; it starts a word
    CONTINUE_NOT_AT_WORD_START = 1  # keep it; it continues a word
    WAIT_FOR_TASTE = 2  # drop it; codes are still missing
    TERMINATE = 3  # drop it; this was the last step


class TasteAction(IntEnum):
    """Which TASTE is read along with the token of a step."""

    SAMPLE = 0  # the last generated one
    USE_PREFIX = 1  # the next word of the prompt
    USE_PREFIX_IGNORE = 2  # the same word of the prompt again
    WAIT = 3  # none yet: the learned pad


@dataclass(frozen=True)
class Step:
    """What follows from one drawn token a row."""

    action: Tensor  # (B,) int64, an Action
    taste_action: Tensor  # (B,) int64, a TasteAction
    take: Tensor  # (B,) bool; this step's codes are those of a word
    prefix_slot: Tensor  # (B,) int64, 0..D-1; pending word of the prompt to read


@dataclass
class WordMachine:
    """Follow the words of a batch of completions.

    Args:
        has_prefix: Whether a row's prompt has TASTE, (B,), bool.
        extra_words: Words to generate: a row ends at the first sentence end from
            this many on.
        delay: Delay D of the TASTE stream, at least 1.
        level: What ``delay`` counts.
        max_words: A row ends before one word more; None for the released rule, a
            few tokens behind three times ``extra_words``.

    Raises:
        ValueError: If ``extra_words`` is negative or ``delay`` below 1.
    """

    has_prefix: Tensor
    extra_words: int
    delay: int = 1
    level: DelayLevel = "word"
    max_words: int | None = None
    ended: Tensor = field(init=False)  # (B,) bool; no more text is kept
    num_starts: Tensor = field(init=False)  # (B,) int64; word starts so far
    num_steps: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.extra_words < 0 or self.delay < 1:
            raise ValueError(
                "extra_words must be at least 0 and delay at least 1, got "
                f"{self.extra_words} and {self.delay}"
            )
        self.ended = torch.zeros_like(self.has_prefix)
        self.num_starts = torch.zeros_like(self.has_prefix, dtype=torch.long)
        self._countdown = torch.full_like(self.num_starts, _UNSET)
        # Whether each of the last D + 1 steps, the newest last, started a word.
        self._recent = self.ended[:, None].repeat(1, self.delay + 1)

    def end(self, rows: Tensor | None = None) -> None:
        """Keep no more text in some rows, (B,) bool, or all; D steps finish them."""
        self.ended = torch.ones_like(self.ended) if rows is None else self.ended | rows

    def step(self, is_start: Tensor, is_end: Tensor, is_stop: Tensor) -> Step:
        """Take in the token drawn in every row.

        The first token starts a word whatever it is; what it continues in the
        prompt is already spoken.

        Args:
            is_start: The token starts a word, (B,), bool.
            is_end: The token ends a sentence, (B,), bool.
            is_stop: The token ends the completion at once, (B,), bool. While
                flushing, a released stop token makes the flush start anew.

        Returns:
            What to do.
        """
        flush, begun_before = self.ended, self.num_starts > 0
        start = ~begun_before | flush | is_start
        fresh = torch.where(self._countdown == _UNSET, self.delay, self._countdown)
        countdown = torch.where(flush & begun_before, fresh - 1, self._countdown)

        enough = self.num_starts >= self.extra_words
        if self.max_words is None:
            too_many = self.num_starts >= 3 * self.extra_words
        else:
            too_many = torch.zeros_like(flush)
            is_one_more = self.num_starts >= self.max_words
            is_stop = is_stop | (start & is_one_more & ~flush)
        self.ended = self.ended | (enough & is_end) | too_many | is_stop
        self._countdown = torch.where(is_stop, self.delay - 1, countdown)
        flush = flush | is_stop
        self.num_starts = self.num_starts + start
        self.num_steps += 1
        self._recent = torch.cat([self._recent[:, 1:], start[:, None]], dim=1)
        return self._decide(start, flush)

    def _decide(self, start: Tensor, flush: Tensor) -> Step:
        action = torch.where(
            start, Action.CONTINUE_AT_WORD_START, Action.CONTINUE_NOT_AT_WORD_START
        )
        action = torch.where(flush, Action.WAIT_FOR_TASTE, action)
        action = torch.where(self._countdown == 0, Action.TERMINATE, action)

        if self.level == "word":
            begun, moves_on = self.num_starts > self.delay, start
            due, slot = start, self.num_starts - 1
        else:
            begun = torch.full_like(start, self.num_steps > self.delay)
            moves_on, due = torch.ones_like(start), self._recent[:, 0]
            slot = torch.full_like(self.num_starts, self.num_steps - 1)
        prefix = torch.where(
            moves_on, TasteAction.USE_PREFIX, TasteAction.USE_PREFIX_IGNORE
        )
        taste = torch.where(self.has_prefix, prefix, TasteAction.WAIT)
        taste = torch.where(begun, TasteAction.SAMPLE, taste)
        return Step(action, taste, begun & due, slot.clamp(max=self.delay - 1))
