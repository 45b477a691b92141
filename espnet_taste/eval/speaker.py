"""Speaker similarity: cosine of two utterance embeddings.

The embedding is injected, so that this file names no model. Where it is the same
encoder whose vector conditions the decoder (GE2E in the embedded recipe), the
score is friendly to the decoder, and the report says so.
"""

from collections.abc import Mapping

import numpy as np


def cosine_similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Return the cosine of the angle between two embeddings, -1..1.

    Args:
        first: Embedding, (E,), float.
        second: Embedding, (E,), float.

    Raises:
        ValueError: If the shapes differ, or one is all zeros or not finite.
    """
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(
            f"expected two embeddings of one shape (E,), got {first.shape} and "
            f"{second.shape}"
        )
    first = first.astype(np.float64)
    second = second.astype(np.float64)
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    if not np.isfinite(norm) or norm == 0:
        raise ValueError("an embedding is all zeros or not finite")
    return float(np.clip(first @ second / norm, -1.0, 1.0))


def similarity_items(
    references: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """Compare every utterance that has an embedding on the other side.

    Args:
        references: Utterance id to the original's embedding, (E,).
        others: Utterance id to the reconstruction's embedding; an id that is absent
            had no audio to embed, and the caller counts it.

    Returns:
        Utterance id to ``similarity`` and ``compared`` (1).

    Raises:
        ValueError: If an id has no reference or a pair cannot be compared; names it.
    """
    items = {}
    for key, embedding in others.items():
        if key not in references:
            raise ValueError(f"no reference speaker embedding for '{key}'")
        try:
            value = cosine_similarity(references[key], embedding)
        except ValueError as error:
            raise ValueError(f"speaker embedding of '{key}': {error}") from error
        items[key] = {"similarity": value, "compared": 1}
    return items
