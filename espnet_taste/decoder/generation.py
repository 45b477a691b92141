"""Drawing units from the unit LM, one by one, for a batch of utterances.

Keys and values of earlier positions are kept in memory reserved for the longest row
allowed, and every row has its own positions, so rows of different prompt length go
together and each gets what it would get alone. Rows that have ended are dropped.

Symbols: U utterances, Ta tokens, S units, C = num_units + 1 classes.

Source: TASTE (arXiv:2504.07053); released sampler of the reference.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from espnet_taste.decoder.contracts import GeneratedUnits, UnitSampling
from espnet_taste.decoder.layout import NUM_SPECIAL, UnitLMLayout, whole_rows
from espnet_taste.layers.relative_attention import AttentionCache
from espnet_taste.sampling import RandomSource, RowStreams, draw, remove
from espnet_taste.types import IGNORE

if TYPE_CHECKING:
    from espnet_taste.decoder.unit_lm import UnitLM

# Released rule (reference defect C15: of the prompt, not of the text).
MIN_PER_PROMPT, MAX_PER_PROMPT = 2, 20


class UnitStepper:
    """Unit LM with a memory: reads a prompt, then one unit a row at a time.

    Args:
        lm: The unit LM, in eval mode.
        batch: U.
        length: Positions to reserve a row, prompt included.
    """

    def __init__(self, lm: "UnitLM", batch: int, length: int):
        self.lm = lm
        self.caches: list[AttentionCache] = lm.unit_encoder.new_caches(batch, length)
        self.used = 0  # slots that may hold something
        self.positions: Tensor | None = None  # (U,) place of each row's next unit

    def read_prompt(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Read prompts.

        Args:
            inputs: Input vectors of the prompts, (U, L, D), padded on the right.
            lengths: Positions of every prompt, (U,), int64, at least 1.

        Returns:
            Hidden state at the last position of every prompt, (U, D).
        """
        batch, length, _ = inputs.shape
        rows = torch.arange(batch, device=inputs.device).repeat_interleave(length)
        hidden = self.lm.unit_encoder(
            inputs.flatten(0, 1), rows, ((batch, length),), self.caches
        ).unflatten(0, (batch, length))
        # Slots of the padding are overwritten by units before a unit looks at them.
        self.used = length
        self.positions = lengths.clone()
        last = (lengths - 1)[:, None, None].expand(-1, 1, hidden.size(-1))
        return hidden.gather(1, last).squeeze(1)

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the rows only: their indices, (n,), int64, rising."""
        for cache in self.caches:
            cache.keep(rows, self.used)
        self.positions = self.positions[rows]

    def read_units(self, units: Tensor) -> Tensor:
        """Read one unit a row, (U,) int64; return its hidden state, (U, D)."""
        self.used += 1
        hidden = self.lm.unit_encoder.step(
            self.lm.unit_embedding(units), self.positions, self.used, self.caches
        )
        self.positions = self.positions + 1
        return hidden


@torch.no_grad()
def generate_units(
    lm: "UnitLM",
    tokens: Tensor,
    token_lengths: Tensor,
    taste: Tensor | None,
    speaker: Tensor,
    *,
    sampling: UnitSampling | None = None,
    source: RandomSource = None,
) -> GeneratedUnits:
    """Draw the units of whole utterances.

    Args:
        lm: The unit LM, in eval mode.
        tokens: Text tokens, (U, Ta), int64; any padding.
        token_lengths: (U,), int64.
        taste: TASTE embeddings, (U, Ta, taste_dim); None for text alone.
        speaker: Speaker embeddings, (U, speaker_dim).
        sampling: How to draw; None for the released settings.
        source: Source of randomness.

    Returns:
        The units.

    Raises:
        ValueError: If the model is in train mode, or a token or the width of the
            embeddings is unknown to it.
    """
    if lm.training:
        raise ValueError("the unit LM is in train mode; call eval() before generating")
    _refuse_unknown(lm, tokens, token_lengths, taste)
    sampling = sampling or UnitSampling()
    batch, num_tokens = tokens.shape
    least, most = unit_bounds(token_lengths, sampling)
    # The longest row a batch of this width can have, known without asking the device.
    max_steps = int(unit_bounds(torch.tensor(num_tokens), sampling)[1])
    stepper = UnitStepper(lm, batch, NUM_SPECIAL + num_tokens + max_steps)
    layout = prompt_layout(token_lengths, num_tokens, lm.num_units)
    condition = lm.encode_condition(tokens, taste, layout)
    hidden = stepper.read_prompt(
        lm.gather_inputs(condition, speaker, layout), NUM_SPECIAL + token_lengths.long()
    )

    rows = _OpenRows(least, most, max_steps, source)
    for step in range(max_steps):
        logits = lm.output(hidden).float()
        units = rows.extend(logits, step, sampling)
        # Asking the device costs a wait: rows that have ended run on until then.
        if (step + 1) % sampling.check_every == 0:
            left = rows.close_ended()
            if len(left) == 0:
                break
            if len(left) < len(units):
                stepper.keep(left)
                units = units[left]
        hidden = stepper.read_units(units)
    return rows.result()


def _refuse_unknown(
    lm: "UnitLM", tokens: Tensor, token_lengths: Tensor, taste: Tensor | None
) -> None:
    """Refuse what embedding and projection would fail on."""
    valid = torch.arange(tokens.size(1), device=tokens.device) < token_lengths[:, None]
    wrong = valid & (tokens >= lm.text_vocab_size)
    if bool(wrong.any()):
        raise ValueError(
            f"the text has token {int(tokens[wrong][0])}, this unit LM knows "
            f"0..{lm.text_vocab_size - 1}; are the tokens of another Whisper?"
        )
    if taste is not None and taste.size(-1) != lm.taste_dim:
        raise ValueError(
            f"TASTE embeddings of {taste.size(-1)} values, this unit LM was trained "
            f"with {lm.taste_dim}; are they of another tokenizer?"
        )


class _OpenRows:
    """Rows that are being written, and the finished ones that were put away.

    Args:
        least: Least number of units a row, (U,), int64.
        most: Largest number, (U,), int64.
        max_steps: Room for units.
        source: Source of randomness.
    """

    def __init__(
        self, least: Tensor, most: Tensor, max_steps: int, source: RandomSource
    ):
        self.least, self.most = least, most
        self.source = source
        self.places = torch.arange(len(least), device=least.device)
        self.units = least.new_full((len(least), max_steps), IGNORE)
        self.lengths = torch.zeros_like(least)
        self.has_ended = torch.zeros_like(least, dtype=torch.bool)
        self.goes_on = torch.ones_like(self.has_ended)
        self.whole = GeneratedUnits(
            self.units.clone(), self.lengths.clone(), self.has_ended.clone()
        )

    def extend(self, logits: Tensor, step: int, sampling: UnitSampling) -> Tensor:
        """Choose the next class of every open row.

        Args:
            logits: (n, C), float32.
            step: Units that open rows have.
            sampling: How to draw.

        Returns:
            Units to read next, (n,), int64; anything for a row that has ended.
        """
        end = logits.size(-1) - 1
        drawn = choose_units(logits, step < self.least, sampling, self.source)
        self.has_ended = self.has_ended | ((drawn == end) & (step < self.most))
        self.goes_on = ~self.has_ended & (step < self.most)
        self.units[:, step] = torch.where(self.goes_on, drawn, IGNORE)
        self.lengths = self.lengths + self.goes_on
        return drawn.clamp(max=end - 1)

    def close_ended(self) -> Tensor:
        """Put rows away that do not go on; return which did, (n,), int64."""
        left = self.goes_on.nonzero().squeeze(1)
        if len(left) == len(self.goes_on):
            return left
        self._put_away()
        self.places = self.places[left]
        self.least, self.most = self.least[left], self.most[left]
        self.units, self.lengths = self.units[left], self.lengths[left]
        self.has_ended = self.has_ended[left]
        self.goes_on = self.goes_on[left]
        if isinstance(self.source, RowStreams):
            self.source = self.source.select(left)
        return left

    def result(self) -> GeneratedUnits:
        """Return all rows in the order in which they were begun."""
        self._put_away()
        whole = self.whole
        longest = int(whole.lengths.max())
        return GeneratedUnits(whole.units[:, :longest], whole.lengths, whole.has_ended)

    def _put_away(self) -> None:
        self.whole.units[self.places] = self.units
        self.whole.lengths[self.places] = self.lengths
        self.whole.has_ended[self.places] = self.has_ended


def choose_units(
    logits: Tensor,
    is_early: Tensor,
    sampling: UnitSampling,
    source: RandomSource = None,
) -> Tensor:
    """Choose one class a row; the last class is the end.

    The end takes its place among the k best and is then left out while it is too
    early, as the released sampler does by drawing again; with k = 1, where that
    would go on for ever, the best unit is taken.

    Args:
        logits: (U, C), float32.
        is_early: True where the row must not end yet, (U,), bool.
        sampling: How to draw.
        source: Source of randomness.

    Returns:
        Classes, (U,), int64.
    """
    end = logits.size(-1) - 1
    if sampling.top_k == 1:
        banned = is_early[:, None] & (
            torch.arange(end + 1, device=logits.device) == end
        )
        return remove(logits, banned).argmax(-1)
    best = (logits / sampling.temperature).topk(min(sampling.top_k, end + 1), dim=-1)
    allowed = remove(best.values, is_early[:, None] & (best.indices == end))
    return best.indices.gather(1, draw(allowed, source)[:, None]).squeeze(1)


def prompt_layout(
    token_lengths: Tensor, num_tokens: int, num_units: int
) -> UnitLMLayout:
    """Lay out rows without units: what the unit LM reads before it speaks."""
    no_units = token_lengths.new_zeros(len(token_lengths), 0, dtype=torch.int64)
    return whole_rows(
        token_lengths,
        no_units,
        torch.zeros_like(token_lengths),
        num_tokens=num_tokens,
        num_units=num_units,
        ends=False,
    )


def unit_bounds(token_lengths: Tensor, sampling: UnitSampling) -> tuple[Tensor, Tensor]:
    """Return the least and the largest number of units of utterances.

    Args:
        token_lengths: Text tokens, any shape, int.
        sampling: Rule and its numbers.

    Returns:
        Least and largest number, same shape, int64.
    """
    token_lengths = token_lengths.long()
    if sampling.bounds == "prompt":
        prompt = NUM_SPECIAL + token_lengths
        return MIN_PER_PROMPT * prompt, MAX_PER_PROMPT * prompt
    rate = sampling.unit_rate_hz
    least = (token_lengths * (sampling.min_token_s * rate)).floor().long()
    most = (token_lengths * (sampling.max_token_s * rate)).ceil().long()
    return least, most + math.ceil(sampling.extra_s * rate)
