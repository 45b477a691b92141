"""Word and character error rates as counts.

The alignment is jiwer's (minimal edit distance). Counts are pooled over
utterances and the rate is recomputed from the pooled counts; rates are never
averaged.

Policies:

* A missing hypothesis is an error, an empty one is all deletions.
* An empty reference adds its insertions to the errors and nothing to the length.
  A rate over no reference at all is undefined and raises, for an item as for a
  corpus.
* Beside every count stands the count capped at the reference length, because a
  judge that loops on two bad signals can outweigh a hundred good ones.
* Words are those of the transcripts: of scripts written without blanks, every sign
  (``espnet_taste.words.space_signs``), however a recogniser groups them.
* Characters are those of the normalised text, single spaces between words
  included; beside such a sign there is none.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from espnet_taste.eval.normalise import normalise
from espnet_taste.packages import require
from espnet_taste.words import space_signs, starts_with_sign


@dataclass(frozen=True)
class EditCounts:
    """Outcome of aligning a hypothesis with its reference; can be summed."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    capped_errors: int = 0  # errors, at most the reference length of each utterance

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference_length(self) -> int:
        """Number of reference words or characters."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float:
        """Errors over reference length, 0 or more; may exceed 1.

        Raises:
            ValueError: If the reference is empty.
        """
        return self._per_reference(self.errors)

    @property
    def capped_rate(self) -> float:
        """Capped errors over reference length, 0..1.

        Raises:
            ValueError: If the reference is empty.
        """
        return self._per_reference(self.capped_errors)

    def __add__(self, other: "EditCounts") -> "EditCounts":
        return EditCounts(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.capped_errors + other.capped_errors,
        )

    def _per_reference(self, errors: int) -> float:
        if self.reference_length == 0:
            raise ValueError("an error rate over an empty reference is undefined")
        return errors / self.reference_length


def count_word_errors(reference: str, hypothesis: str) -> EditCounts:
    """Align the words of two normalised texts and count the edits."""
    align = require("jiwer").process_words
    return _count(reference.split(), hypothesis.split(), align)


def count_char_errors(reference: str, hypothesis: str) -> EditCounts:
    """Align the characters of two normalised texts and count the edits."""
    return _count(reference, hypothesis, require("jiwer").process_characters)


def _count(
    reference: Sequence[str], hypothesis: Sequence[str], align: Callable
) -> EditCounts:
    """Count the edits between two sequences of words or characters."""
    # jiwer's answer for an empty side has changed between versions; ours is stated.
    if not reference:
        return EditCounts(insertions=len(hypothesis))
    if not hypothesis:
        length = len(reference)
        return EditCounts(deletions=length, capped_errors=length)
    separator = "" if isinstance(reference, str) else " "
    found = align(separator.join(reference), separator.join(hypothesis))
    errors = found.substitutions + found.deletions + found.insertions
    return EditCounts(
        found.hits,
        found.substitutions,
        found.deletions,
        found.insertions,
        min(errors, len(reference)),
    )


def pool(counts: Iterable[EditCounts]) -> EditCounts:
    """Sum the counts of many utterances."""
    return sum(counts, EditCounts())


def error_items(
    references: Mapping[str, str], hypotheses: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """Count word and character errors of every utterance.

    Args:
        references: Utterance id to transcript, as written.
        hypotheses: Utterance id to recognised text, as written; the same ids.

    Returns:
        Utterance id to the fields ``words``, ``word_errors``,
        ``word_errors_capped``, ``word_substitutions``, ``word_deletions``,
        ``word_insertions``, ``chars``, ``char_errors``, ``char_errors_capped``.

    Raises:
        ValueError: If an utterance lacks its hypothesis or its reference.
    """
    for name, missing in (
        ("hypothesis", references.keys() - hypotheses.keys()),
        ("reference", hypotheses.keys() - references.keys()),
    ):
        if missing:
            raise ValueError(
                f"no {name} for {len(missing)} utterances: {sorted(missing)[:10]}; "
                "an utterance left out would change the rate without a trace"
            )
    return {
        key: _error_fields(
            normalise(space_signs(text)), normalise(space_signs(hypotheses[key]))
        )
        for key, text in references.items()
    }


def _join_signs(text: str) -> str:
    """Leave out the blanks that ``space_signs`` put in: they are always right."""
    words = text.split()
    joined = "".join(words[:1])
    for before, word in itertools.pairwise(words):
        apart = not (starts_with_sign(before) or starts_with_sign(word))
        joined += " " * apart + word
    return joined


def _error_fields(reference: str, hypothesis: str) -> dict[str, float]:
    """Return the counts of one utterance by field name."""
    words = count_word_errors(reference, hypothesis)
    chars = count_char_errors(_join_signs(reference), _join_signs(hypothesis))
    return {
        "words": words.reference_length,
        "word_errors": words.errors,
        "word_errors_capped": words.capped_errors,
        "word_substitutions": words.substitutions,
        "word_deletions": words.deletions,
        "word_insertions": words.insertions,
        "chars": chars.reference_length,
        "char_errors": chars.errors,
        "char_errors_capped": chars.capped_errors,
    }
