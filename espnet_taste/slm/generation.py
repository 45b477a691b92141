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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from espnet_taste.sampling import RandomSource, Sampler, remove
from espnet_taste.slm.model import SpokenLM
from espnet_taste.slm.prompt import (
    Prompt,
    TextPrompt,
    pad_left,
    read_prompt,
    rooms_of,
)
from espnet_taste.slm.state_machine import Action, Step, TasteAction, WordMachine
from espnet_taste.slm.vocabulary import Vocabulary
from espnet_taste.types import IGNORE

# Asking a GPU whether all rows are done stops it, so it is asked now and then.
GPU_STEPS_PER_CHECK = 8
KEPT = (Action.CONTINUE_AT_WORD_START, Action.CONTINUE_NOT_AT_WORD_START)


@dataclass(frozen=True)
class CompletionSettings:
    """How to complete, and when to stop."""

    extra_words: int = 16  # stop at a sentence end from here on
    max_words: int | None = None  # stop before one more; None: soon after 3 extra_words
    max_tokens: int = 256  # text tokens, at most
    # Asked after every token with the ids of the generated text so far, also of one row
    # of a batch; stops where it is true. It makes every step wait for the device.
    until: Callable[[list[int]], bool] | None = None
    text: Sampler = field(default_factory=lambda: Sampler(top_p=0.9))
    codes: Sampler | None = None  # None = the best code; a latent head draws nothing
    # How text is read, see ``read_prompt``; None: as the opened model was trained, and
    # "plain", as released, where there is none or it is a released one.
    text_prompt: TextPrompt | None = None
    # The released rules: of the tokens, ``read_vocabulary``; of drawing, ``Sampler``;
    # of text that is read, unless ``text_prompt`` says otherwise; and while the last
    # codes are awaited, tokens that nobody keeps are read instead of the pad.
    compat: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        if self.extra_words < 0 or self.max_tokens < 1:
            raise ValueError(
                "extra_words must be at least 0 and max_tokens at least 1, got "
                f"{self.extra_words} and {self.max_tokens}"
            )
        if self.max_words is not None and self.max_words < 1:
            raise ValueError(f"max_words must be at least 1, got {self.max_words}")
        if self.text_prompt not in (None, "plain", "fused"):
            raise ValueError(
                f"text_prompt must be 'plain' or 'fused', got '{self.text_prompt}'"
            )
        if self.codes is not None and self.codes.repetition_penalty != 1:
            raise ValueError(
                "codes have no repetition_penalty, which is of the text; leave it at 1"
            )
        if self.compat:
            object.__setattr__(self, "text", replace(self.text, rule="released"))
            if self.codes is not None:
                object.__setattr__(self, "codes", replace(self.codes, rule="released"))


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


@dataclass(frozen=True)
class GeneratedWord:
    """One word of a completion, as soon as its codes are known."""

    tokens: np.ndarray  # (N,) int64, LLM token ids
    codes: np.ndarray  # (Q,) int64


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
    _require_eval(slm)
    if not prompts:
        return []
    loop = CompletionLoop(
        slm, prompts, vocabulary.to(slm.pad_text.device), settings, source
    )
    every = 1 if slm.pad_text.device.type == "cpu" else GPU_STEPS_PER_CHECK
    for number in range(1, loop.num_steps + 1):
        loop.step()
        if number % every == 0 and bool(loop.done.all()):
            break
    return loop.results()


@torch.no_grad()
def complete_words(
    slm: SpokenLM,
    prompt: Prompt,
    vocabulary: Vocabulary,
    *,
    settings: CompletionSettings = CompletionSettings(),
    source: RandomSource = None,
) -> Iterator[GeneratedWord]:
    """Complete one prompt word by word; leave the loop to stop.

    Args:
        slm: The spoken LM, in eval mode.
        prompt: The prompt.
        vocabulary: Masks of the LLM's tokens.
        settings: How to complete.
        source: Source of randomness.

    Yields:
        The words of ``complete``, each ``slm.delay`` words after its text was drawn.

    Raises:
        ValueError: As ``complete``.
    """
    _require_eval(slm)
    loop = CompletionLoop(
        slm, [prompt], vocabulary.to(slm.pad_text.device), settings, source
    )
    drawn: list[list[int]] = []
    heard: list[np.ndarray] = []
    num_given = 0
    for _ in range(loop.num_steps):
        tokens, step, codes = loop.step()
        known = torch.stack([step.action[0], tokens[0], step.take[0].to(tokens)])
        action, token, take = known.tolist()  # the device is waited for once
        if action == Action.CONTINUE_AT_WORD_START:
            drawn.append([])
        if action in KEPT:
            drawn[-1].append(token)
        if take:
            heard.append(codes[0].cpu().numpy())
        # Codes that are delayed by tokens may come before their word is finished.
        num_whole = len(drawn) - (action in KEPT)
        for number in range(num_given, min(len(heard), num_whole)):
            num_given += 1
            word = np.asarray(drawn[number], dtype=np.int64)
            if not _is_blank(word, loop.vocabulary):
                yield GeneratedWord(word, heard[number])
        if action == Action.TERMINATE:
            return


class CompletionLoop:
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
        text_prompt = settings.text_prompt or "plain"
        read = [read_prompt(slm, prompt, text_prompt) for prompt in prompts]
        self.pending = torch.stack([pending for _, pending in read])  # (B, delay, D)
        self.inputs, self.mask = pad_left([inputs for inputs, _ in read])
        self.past = None
        room = rooms_of(
            slm, prompts, [inputs for inputs, _ in read], settings.max_tokens
        )
        self.max_tokens = torch.tensor(room, device=device)
        self.num_steps = max(room) + slm.delay  # at most
        has_prefix = torch.tensor([p.goes_on for p in prompts], device=device)
        self.machine = WordMachine(
            has_prefix,
            settings.extra_words,
            slm.delay,
            slm.delay_level,
            settings.max_words,
        )
        self.texts: list[list[int]] = [[] for _ in prompts]
        self.seen = self._context(prompts)
        self.taste = slm.pad_taste.expand(len(prompts), -1)  # last generated one
        # Read along with the last token; behind a prompt no codes are taken yet.
        self.read = self.taste
        # The last token was a lone blank: the next one goes on with its word.
        self.behind_blank = torch.zeros_like(has_prefix)
        self.done = torch.zeros_like(has_prefix)
        self.cut = torch.zeros_like(has_prefix)
        self.history: list[tuple[Tensor, Step, Tensor]] = []

    def step(self) -> tuple[Tensor, Step, Tensor]:
        """Draw one token and one code row in every row of the batch.

        Returns:
            Tokens (B,), what follows from them, and codes (B, Q).
        """
        hidden, self.past = self.slm.read_on(self.inputs, self.past, self.mask)
        tokens = self._draw_text(hidden)
        codes = self.slm.head.choose(
            self.slm.run_head(hidden, taste=self.read),
            self.slm.codebooks,
            sampler=self.settings.codes,
            source=self.source,
        )
        is_full = self.max_tokens <= len(self.history)
        self.cut = self.cut | (is_full & ~self.machine.ended)
        self.machine.end(is_full)
        # The released machine starts its flush anew at every stop token, and misses
        # the last word's codes if that token starts no word.
        stop = self.vocabulary.stop[tokens] & ~self.machine.ended
        starts = self.vocabulary.word_start[tokens] | self.vocabulary.sign[tokens]
        step = self.machine.step(
            (starts & ~self.behind_blank) | stop,
            self.vocabulary.sentence_end[tokens],
            stop,
        )
        self.history.append((tokens, step, codes))
        self.done = self.done | (step.action == Action.TERMINATE)
        self.seen = self.seen.scatter(1, tokens[:, None], True)
        self.behind_blank = self.vocabulary.blank[tokens]
        self._prepare(tokens, step, codes)
        if self.settings.until is not None:
            self._ask(tokens, step)
        return tokens, step, codes

    def results(self) -> list[Completion]:
        """Cut every row at its last step and collect words and codes."""
        tokens = torch.stack([t for t, _, _ in self.history], 1).cpu().numpy()
        codes = torch.stack([c for _, _, c in self.history], 1).cpu().numpy()
        steps = [
            torch.stack([getattr(s, name) for _, s, _ in self.history], 1).cpu().numpy()
            for name in ("action", "taste_action", "take")
        ]
        cut = self.cut.cpu().tolist()
        found = [
            _completion(tokens[row], codes[row], *(s[row] for s in steps), cut[row])
            for row in range(len(tokens))
        ]
        return [_without_blank_end(result, self.vocabulary) for result in found]

    def _draw_text(self, hidden: Tensor) -> Tensor:
        logits = self.slm.output_layer(hidden).float()
        empties = self.behind_blank[:, None] & self.vocabulary.word_start
        logits = remove(logits, self.vocabulary.banned | empties)
        return self.settings.text.choose(logits, self.seen, source=self.source)

    def _prepare(self, tokens: Tensor, step: Step, codes: Tensor) -> None:
        """Choose the TASTE to read along with the drawn tokens."""
        fresh = self.slm.embed_codes(codes)
        self.taste = torch.where(step.take[:, None], fresh, self.taste)
        slot = step.prefix_slot[:, None, None].expand(-1, 1, self.pending.size(-1))
        prefix = self.pending.gather(1, slot).squeeze(1)
        action = step.taste_action[:, None]
        # To wait is to read the pad, which is what prompts without TASTE have pending.
        self.read = torch.where(action == TasteAction.SAMPLE, self.taste, prefix)
        text = self.slm.embed_tokens(tokens).float()
        if not self.settings.compat:
            # As in training, where nothing but the pad stands behind a text.
            waits = (step.action == Action.WAIT_FOR_TASTE)[:, None]
            text = torch.where(waits, self.slm.pad_text, text)
        self.inputs = self.slm.fuse(self.read, text)[:, None]
        if self.mask is not None:
            self.mask = F.pad(self.mask, (0, 1), value=True)

    def _ask(self, tokens: Tensor, step: Step) -> None:
        """End the rows whose text is what the caller waits for."""
        actions = step.action.tolist()
        for text, token, action in zip(self.texts, tokens.tolist(), actions):
            text += [token] * (action in KEPT)
        is_enough = [bool(text) and self.settings.until(text) for text in self.texts]
        self.machine.end(torch.tensor(is_enough, device=tokens.device))

    def _context(self, prompts: Sequence[Prompt]) -> Tensor:
        """Mark the ids a repetition penalty counts as said, (B, V)."""
        size = len(self.vocabulary.banned)
        seen = torch.zeros(len(prompts), size, dtype=torch.bool)
        for row, prompt in zip(seen, prompts):
            said = prompt.said
            if prompt.is_instruction and self.settings.text.rule == "released":
                # The released code leaves out the first token inside.
                said = [*prompt.before, *prompt.tokens[1:], *prompt.after]
            row[said or [self.slm.sos_id]] = True
        return seen.to(self.vocabulary.banned.device)


def _require_eval(slm: SpokenLM) -> None:
    if slm.training:
        raise ValueError("the spoken LM is in train mode; call eval() first")


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
    kept = np.isin(actions, KEPT)
    words = (np.cumsum(starts) - 1)[kept]
    if starts.sum() != take.sum():
        raise RuntimeError(
            f"{starts.sum()} words were generated but codes for {take.sum()}; "
            "this is a bug of the word state machine"
        )
    trace = Trace(tokens, actions, taste_actions[:length], codes)
    return Completion(tokens[kept], words, codes[take], was_cut, trace)


def _is_blank(tokens: np.ndarray, vocabulary: Vocabulary) -> bool:
    """Whether a word is a lone blank: its text was cut before anything was said."""
    return len(tokens) == 1 and bool(vocabulary.blank[int(tokens[0])])


def _without_blank_end(completion: Completion, vocabulary: Vocabulary) -> Completion:
    last = len(completion.codes) - 1
    if not _is_blank(completion.tokens[completion.words == last], vocabulary):
        return completion
    return replace(
        completion,
        tokens=completion.tokens[:-1],
        words=completion.words[:-1],
        codes=completion.codes[:-1],
    )
