"""Causal self-attention with relative positions (Transformer-XL style).

The score of query i and key j is

    ((q_i + u) . k_j + (q_i + v) . W_pos r(i - j)) / sqrt(d_k)

with learned vectors u, v and sinusoids r of the distance i - j. Only distances that
a causal query can see (0 up) are ever computed. Distances know no beginning, so
several rows may lie behind one another in a block: a mask keeps them apart and no
position has to be counted anew.

Symbols: N positions of a batch, D width, H heads, dk = D / H, n blocks of c
positions.

Source: Transformer-XL (arXiv:1901.02860); numbers and parameter names are those of
ESPnet's ``RelPositionMultiHeadedAttention``.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnet_taste.layers.attention_guide import AttentionGuide

# Tables grow by doubling, so that a few serve all lengths.
SMALLEST_TABLE = 512


def distance_table(farthest: int, width: int, device: torch.device) -> Tensor:
    """Return the sinusoids of the distances farthest, ..., 1, 0.

    Args:
        farthest: Largest distance.
        width: D, even.
        device: Where the table shall lie.

    Returns:
        Table, (farthest + 1, D), float32; even channels are sines, odd ones cosines.
    """
    size = SMALLEST_TABLE
    while size <= farthest:
        size *= 2
    return _sinusoids(size, width, device)[-(farthest + 1) :]


@lru_cache(maxsize=16)
def _sinusoids(size: int, width: int, device: torch.device) -> Tensor:
    # Shared by all encoders of a process. A table born in inference mode could not
    # be used in training later. Made on the CPU: not every device has float64.
    wide = {"dtype": torch.float64, "device": "cpu"}
    with torch.inference_mode(False), torch.no_grad():
        distances = torch.arange(size - 1, -1, -1, **wide)
        channels = torch.arange(0, width, 2, **wide)
        angles = distances[:, None] * 10000.0 ** (-channels / width)
        table = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
        return table.float().to(device)


@dataclass(frozen=True)
class CausalBlocks:
    """How a flat sequence of N positions falls into blocks that attend to themselves.

    Inside a block a position sees itself and the earlier positions of its own row.
    """

    sizes: tuple[tuple[int, int], ...]  # (n, c) of consecutive groups; sum n * c = N
    masks: tuple[Tensor, ...]  # one a group, (n, c, c), 0 where visible, else -inf

    @classmethod
    def build(
        cls, rows: Tensor, sizes: tuple[tuple[int, int], ...], dtype: torch.dtype
    ) -> "CausalBlocks":
        """Make the masks from the row of every position.

        Padding counts as a row of its own kind: nothing valid sees it, and it sees
        itself, so that no softmax is empty.

        Args:
            rows: Row of every position, (N,), int64; any negative value is padding.
            sizes: Number and length of the blocks of each group, in order.
            dtype: Type of the masks, that of the attention scores.

        Raises:
            ValueError: If the groups do not cover N positions.
        """
        if sum(n * c for n, c in sizes) != rows.numel():
            raise ValueError(
                f"blocks {sizes} do not cover the {rows.numel()} positions of the batch"
            )
        masks = []
        start = 0
        for n, c in sizes:
            block = rows[start : start + n * c].view(n, c)
            visible = (block[:, :, None] == block[:, None, :]).tril()
            mask = torch.zeros(n, c, c, dtype=dtype, device=rows.device)
            masks.append(mask.masked_fill_(~visible, float("-inf")))
            start += n * c
        return cls(sizes, tuple(masks))

    @property
    def longest(self) -> int:
        """Length of the longest block."""
        return max(c for _, c in self.sizes)


class QueryWeights(NamedTuple):
    """What makes queries, with 1 / sqrt(dk) and the vectors u and v folded in."""

    weight: Tensor  # (D, D)
    bias: Tensor  # (D,), for (q + u) / sqrt(dk)
    shift: Tensor  # (D,), what leads from there to (q + v) / sqrt(dk)


class AttentionCache:
    """Keys and values of one attention layer, in room reserved beforehand.

    Rows are aligned left: slot t of a row holds its position t, whatever the other
    rows' lengths.

    Args:
        keys: Room for the keys, (B, H, T, dk).
        values: Room for the values, (B, H, T, dk).
        distances: Projected table of distances 0..T-1, (H, dk, T).
        query: Weights of the queries. A step reads all weights for a few rows, so
            making these anew would take up to a fifth of its time.
    """

    def __init__(
        self, keys: Tensor, values: Tensor, distances: Tensor, query: QueryWeights
    ):
        self.keys = keys
        self.values = values
        self.distances = distances
        self.query = query

    def fill(self, keys: Tensor, values: Tensor) -> None:
        """Store the first c positions of all rows, each (B * c, H, dk)."""
        batch, _, _, _ = self.keys.shape
        for room, new in ((self.keys, keys), (self.values, values)):
            new = new.unflatten(0, (batch, -1)).transpose(1, 2)
            room[:, :, : new.size(2)] = new

    def keep(self, rows: Tensor, used: int) -> None:
        """Keep some rows, by rising index (n,) int64; ``used`` slots hold something.

        The room stays where it is, so that nothing is reserved twice.
        """
        for room in (self.keys, self.values):
            room[: len(rows), :, :used] = room[:, :, :used][rows]
        self.keys, self.values = self.keys[: len(rows)], self.values[: len(rows)]

    def put(self, keys: Tensor, values: Tensor, positions: Tensor) -> None:
        """Store one position a row: keys and values (B, H, dk), positions (B,)."""
        index = positions[:, None, None, None].expand(*keys.shape[:2], 1, keys.size(2))
        self.keys.scatter_(2, index, keys[:, :, None])
        self.values.scatter_(2, index, values[:, :, None])


class RelativeAttention(nn.Module):
    """Multi-head causal self-attention over blocks, with relative positions.

    Args:
        width: D.
        heads: H, a divisor of D.

    Raises:
        ValueError: If D is not a multiple of H.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        self.heads = heads
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(width, width)
        self.linear_v = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.empty(heads, width // heads))
        self.pos_bias_v = nn.Parameter(torch.empty(heads, width // heads))
        nn.init.xavier_uniform_(self.pos_bias_u)
        nn.init.xavier_uniform_(self.pos_bias_v)

    def forward(
        self,
        x: Tensor,
        table: Tensor,
        blocks: CausalBlocks,
        cache: AttentionCache | None = None,
        guide: AttentionGuide | None = None,
    ) -> Tensor:
        """Attend inside every block.

        Args:
            x: (N, D), float.
            table: Sinusoids of the distances blocks.longest .. 0, from
                ``distance_table``, (blocks.longest + 1, D).
            blocks: Blocks and their masks.
            cache: Where to keep keys and values, for blocks of one row each;
                None keeps nothing.
            guide: What watches the first head in training, or None.

        Returns:
            (N, D).
        """
        queries, positional, keys, values = self._project(x, self.query_weights())
        if cache is not None:
            cache.fill(keys, values)
        distances = self.project_table(table)
        # split and cat, not slices: the gradient of a slice is as large as the whole.
        lengths = [n * c for n, c in blocks.sizes]
        groups = zip(
            *(t.split(lengths) for t in (queries, positional, keys, values)),
            blocks.sizes,
            blocks.masks,
            strict=True,
        )
        outputs = []
        for number, (*parts, (n, c), mask) in enumerate(groups):
            queries, positional, keys, values = (
                t.view(n, c, self.heads, -1).permute(2, 0, 1, 3) for t in parts
            )
            bias = _position_scores(positional, distances[..., -(c + 1) :]) + mask
            if guide is not None:
                guide.read(number, queries, keys, bias)
            outputs.append(_attend(queries, keys, values, bias))
        return self.linear_out(torch.cat(outputs))

    def step(
        self, x: Tensor, positions: Tensor, length: int, cache: AttentionCache
    ) -> Tensor:
        """Attend from one new position a row to all positions before it.

        Args:
            x: (B, D), float.
            positions: Place of the new position in its row, (B,), int64.
            length: Slots to look at, more than the largest place.
            cache: Keys and values so far; the new ones are added.

        Returns:
            (B, D).
        """
        queries, positional, keys, values = self._project(x, cache.query)
        cache.put(keys, values, positions)
        slots = torch.arange(length, device=x.device)
        distances = positions[:, None] - slots  # (B, T), negative = not yet written
        scores = torch.einsum("bhk,hkt->bht", positional, cache.distances[..., :length])
        index = distances.clamp(min=0)[:, None].expand_as(scores)
        bias = scores.gather(2, index)
        bias = bias.masked_fill((distances < 0)[:, None], float("-inf"))
        mixed = F.scaled_dot_product_attention(
            queries[:, :, None],
            cache.keys[:, :, :length],
            cache.values[:, :, :length],
            attn_mask=bias[:, :, None],
            scale=1.0,
        )
        return self.linear_out(mixed.flatten(1))

    def project_table(self, table: Tensor) -> Tensor:
        """Project sinusoids (T, D) to every head, (H, dk, T)."""
        return self.linear_pos(table).unflatten(1, (self.heads, -1)).permute(1, 2, 0)

    def query_weights(self) -> QueryWeights:
        """Make the weights of the queries, in the type of the parameters."""
        # The factor goes into the weights, which are smaller than the queries.
        scale = self.pos_bias_u.size(1) ** -0.5
        bias = (self.linear_q.bias + self.pos_bias_u.flatten()) * scale
        shift = (self.pos_bias_v - self.pos_bias_u).flatten() * scale
        return QueryWeights(self.linear_q.weight * scale, bias, shift)

    def _project(
        self, x: Tensor, query: QueryWeights
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return scaled q + u and q + v, then k and v, each (N, H, dk)."""
        content = F.linear(x, query.weight, query.bias)
        positional = content + query.shift.to(content.dtype)
        projected = (content, positional, self.linear_k(x), self.linear_v(x))
        return tuple(t.unflatten(1, (self.heads, -1)) for t in projected)


def _position_scores(positional: Tensor, distances: Tensor) -> Tensor:
    """Score keys by their distance inside blocks of one length.

    Args:
        positional: (q + v) / sqrt(dk), (H, n, c, dk).
        distances: Projected distances c .. 0, (H, dk, c + 1).

    Returns:
        (H, n, c, c); meaningless above the diagonal.
    """
    heads, n, c, _ = positional.shape
    # Row i of the product holds distance c - m in column m, so the score of key j is
    # i * (c + 1) + (c - i + j) = c + i * c + j elements into the block: skipping c
    # of them aligns all rows at once. What wraps around lies above the diagonal.
    by_distance = torch.bmm(positional.flatten(1, 2), distances)
    return by_distance.view(heads, n, c * (c + 1))[..., c:].view(heads, n, c, c)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """Attend inside blocks of one length.

    Args:
        queries: (q + u) / sqrt(dk), (H, n, c, dk).
        keys: (H, n, c, dk).
        values: (H, n, c, dk).
        bias: Positional scores, -inf where a key is not seen, (H, n, c, c).

    Returns:
        (n * c, D).
    """
    heads, n, c, _ = queries.shape
    if queries.is_cuda or not bias.requires_grad:
        mixed = F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=bias, scale=1.0
        )
    else:
        # On CPU a bias with a gradient sends scaled_dot_product_attention through
        # float32 copies; these three lines take 0.6 times as long in bfloat16.
        merged = (t.flatten(0, 1) for t in (bias, queries, keys, values))
        bias, queries, keys, values = merged
        weights = torch.baddbmm(bias, queries, keys.transpose(1, 2)).softmax(-1)
        mixed = torch.bmm(weights, values).unflatten(0, (heads, n))
    return mixed.permute(1, 2, 0, 3).reshape(n * c, -1)
