"""Frozen text embeddings of a Whisper checkpoint with a learned projection."""

import json
from pathlib import Path

import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from espnet_taste.weights import resolve

TABLE = "model.decoder.embed_tokens.weight"


class FrozenTextEmbedding(nn.Module):
    """Look tokens up in a frozen table and project the result.

    The table is a buffer outside the state dict: it is named in the configuration
    and read from the checkpoint again, not saved with every model.

    Args:
        model: Whisper checkpoint, by name or folder.
        vocab_size: Text tokens that must be in the table.
        output_dim: Width of the projected embeddings.

    Raises:
        FileNotFoundError: If the checkpoint cannot be had.
        ValueError: If it has no or too small a table.
    """

    def __init__(self, model: str, vocab_size: int, output_dim: int):
        super().__init__()
        table = read_token_table(resolve(model))
        if len(table) < vocab_size:
            raise ValueError(
                f"text_embedding: {model} has {len(table)} tokens, but the text has a "
                f"vocabulary of {vocab_size}; name the checkpoint whose tokens are used"
            )
        self.register_buffer("table", table, persistent=False)
        self.projection = nn.Linear(table.size(1), output_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed tokens, (...,) int64 to (..., output_dim)."""
        return self.projection(F.embedding(tokens, self.table))


def read_token_table(folder: Path) -> Tensor:
    """Read the token table of a Whisper checkpoint and nothing else.

    Args:
        folder: Checkpoint in Hugging Face layout, in one file or in shards.

    Returns:
        Table, (V, D), float32.

    Raises:
        FileNotFoundError: If the folder holds no safetensors weights.
        ValueError: If they hold no token table.
    """
    path = folder / "model.safetensors"
    index = folder / "model.safetensors.index.json"
    if not path.exists() and index.exists():
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        path = folder / shards.get(TABLE, "")
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no model.safetensors with {TABLE}")
    with safe_open(path, framework="pt") as tensors:
        if TABLE not in tensors.keys():  # noqa: SIM118  (not a dict)
            raise ValueError(f"{path} has no tensor {TABLE}; is it a Whisper model?")
        return tensors.get_tensor(TABLE).float()
