"""Do the words last as long in the reconstruction as in the original?

The same judge writes word times for both signals. Its two word sequences are
aligned (minimal edit distance) and the words that are equal and aligned are
compared. Coverage, the share of the original's words that were compared, belongs
to every such score: a system that loses its hard words is judged on the easy ones.

The released evaluation compares only utterances whose whole word sequences are
identical; the same counts under that rule carry ``identical`` in their name.

Source: TASTE (arXiv:2504.07053), duration consistency; window of 25 ms from the
released evaluation script, strict inequality as there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from espnet_taste.eval.normalise import normalise
from espnet_taste.packages import require

WINDOWS_MS = (25, 50, 100)


@dataclass(frozen=True)
class TimedWord:
    """One recognised word."""

    text: str  # as the judge wrote it
    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """Length of the word in seconds."""
        return self.end_s - self.start_s


def match_words(
    reference: Sequence[str], hypothesis: Sequence[str]
) -> list[tuple[int, int]]:
    """Return the index pairs of equal, aligned words, in order.

    Args:
        reference: Words, none of them empty or containing a space.
        hypothesis: Likewise.
    """
    if not reference or not hypothesis:
        return []
    output = require("jiwer").process_words(" ".join(reference), " ".join(hypothesis))
    return [
        (chunk.ref_start_idx + offset, chunk.hyp_start_idx + offset)
        for chunk in output.alignments[0]
        if chunk.type == "equal"
        for offset in range(chunk.ref_end_idx - chunk.ref_start_idx)
    ]


def duration_fields(
    reference: Sequence[TimedWord], hypothesis: Sequence[TimedWord]
) -> dict[str, float]:
    """Compare the word durations of one utterance.

    Args:
        reference: Words of the original signal, in order.
        hypothesis: Words of the reconstruction, in order.

    Returns:
        Counts: ``reference_words``, ``matched_words``, ``duration_diff_s`` (sum of
        absolute differences over matched words), ``within_<N>ms`` for every window;
        ``identical_words`` and ``identical_within_25ms`` count only if both
        sequences are the same, else 0; ``identical`` is 1 or 0.
    """
    reference, ref_texts = _spoken(reference)
    hypothesis, hyp_texts = _spoken(hypothesis)
    pairs = match_words(ref_texts, hyp_texts)
    # Times are whole hundredths, so a difference can be a window exactly: rounding off
    # what subtraction leaves keeps the inequality strict wherever the words stand.
    diffs = [
        round(abs(reference[r].duration_s - hypothesis[h].duration_s), 6)
        for r, h in pairs
    ]
    fields: dict[str, float] = {
        "reference_words": len(reference),
        "matched_words": len(pairs),
        "duration_diff_s": sum(diffs),
    }
    for window in WINDOWS_MS:
        fields[f"within_{window}ms"] = sum(diff < window / 1000 for diff in diffs)
    identical = bool(ref_texts) and ref_texts == hyp_texts
    fields["identical"] = int(identical)
    fields["identical_words"] = len(pairs) if identical else 0
    fields["identical_within_25ms"] = fields["within_25ms"] if identical else 0
    return fields


def duration_items(
    references: Mapping[str, Sequence[TimedWord]],
    hypotheses: Mapping[str, Sequence[TimedWord]],
) -> dict[str, dict[str, float]]:
    """Compare the word durations of every utterance.

    Raises:
        ValueError: If an utterance of ``references`` has no hypothesis.
    """
    missing = sorted(references.keys() - hypotheses.keys())
    if missing:
        raise ValueError(
            f"no judged words for {len(missing)} utterances: {missing[:10]}"
        )
    return {
        key: duration_fields(words, hypotheses[key])
        for key, words in references.items()
    }


def _spoken(words: Sequence[TimedWord]) -> tuple[list[TimedWord], list[str]]:
    """Drop words without a letter or digit; return the rest and their texts."""
    # "twenty-one" has one pair of times, so it must stay one word here.
    texts = [normalise(word.text).replace(" ", "") for word in words]
    kept = [(word, text) for word, text in zip(words, texts) if text]
    return [word for word, _ in kept], [text for _, text in kept]
