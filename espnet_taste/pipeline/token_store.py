"""A folder of tokens that parallel jobs fill and that a killed run goes on with.

Every job appends to a part of its own, ``.parts/<job>.jsonl``, and notes what it left
out in a journal beside it. Whoever comes next takes up all parts, however many jobs
wrote them. At the end they become ``tokens.jsonl``, sorted by id, with
``excluded.jsonl`` and ``summary.json``.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path

from espnet_taste.data.exclusions import (
    ExclusionError,
    Journal,
    is_excluded,
    write_outcome,
)
from espnet_taste.pipeline.interchange import TokenFile, append_tokens, join_files
from espnet_taste.pipeline.tokens import TasteTokens, require_same_tokenizer


class TokenStore:
    """The folder.

    Args:
        folder: Where to; made if needed.
        settings: Options that decide the result, name to value. A folder that was
            begun with others is refused.

    Raises:
        ValueError: If the settings differ, or a part is broken.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, object]):
        self.folder = Path(folder)
        self.settings = dict(settings)
        self.tokens = self.folder / "tokens.jsonl"
        self.excluded: dict[str, dict] = {}
        for path in self._files("journal"):
            self.excluded.update(Journal(path, self.settings).rows)
        self._sources = [
            TokenFile(path, forgive_last=True)
            for path in [self.tokens, *self._files("jsonl")]
            if path.is_file()
        ]

    @property
    def done(self) -> set[str]:
        """Utterances that are written or left out for good, as they were on opening."""
        left_out = {key for key, row in self.excluded.items() if is_excluded(row)}
        return left_out | self.written

    @property
    def written(self) -> set[str]:
        """Utterances that were written, on opening."""
        return {key for file in self._sources for key in file}

    def words(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the utterances that were written, on opening, with their words."""
        for file in self._sources:
            with file.path.open("rb") as lines:
                for row in map(json.loads, lines):
                    yield row["key"], row["words"]

    def forget_excluded(self, keys: Set[str]) -> None:
        """Take utterances out of the journals, which keep the settings at any moment.

        To be called before jobs open parts.
        """
        for path in self._files("journal") if keys else ():
            fresh = path.with_suffix(".fresh")
            fresh.unlink(missing_ok=True)
            kept = Journal(fresh, self.settings)
            for key, row in Journal(path, self.settings).rows.items():
                if key not in keys:
                    kept.add(key, row)
            os.replace(fresh, path)
        for key in keys:
            self.excluded.pop(key, None)

    def part(self, job: int) -> "TokenPart":
        """Open the part of one job."""
        return TokenPart(self.folder / ".parts", job, self.settings)

    def require_same_tokenizer(self, models: Mapping[str, str]) -> None:
        """Refuse to go on with another model under the same name.

        Args:
            models: Those that are about to work.

        Raises:
            ValueError: If what is there was made by another tokenizer.
        """
        for file in self._sources:
            for key in list(file)[:1]:
                require_same_tokenizer(
                    file[key], models, f"go on in {self.folder} with"
                )

    def finish(self, keys: Sequence[str], max_excluded: float) -> dict:
        """Join the parts.

        Args:
            keys: All utterances that there should be.
            max_excluded: Largest share that may be left out, for the summary.

        Returns:
            The summary; see ``write_outcome``.

        Raises:
            ValueError: If an utterance is neither written nor left out.
        """
        parts = self._files("jsonl")
        sources = [path for path in [self.tokens, *parts] if path.is_file()]
        rows: dict[str, dict] = {}
        for path in self._files("journal"):
            rows.update(Journal(path, self.settings).rows)
        # Also what earlier runs with other --key_file left here.
        known = sorted({*keys, *rows, *self.done})
        written = set(join_files(sources, known, self.tokens))
        lost = [key for key in known if key not in written and key not in rows]
        if lost:
            raise ValueError(
                f"{self.folder}: {len(lost)} utterances are neither written nor left "
                f"out, for instance '{lost[0]}'; run the same command again"
            )
        outcomes = {key: {} if key in written else rows[key] for key in known}
        for part in parts:
            part.unlink()
        return write_outcome(self.folder, outcomes, {}, max_excluded)

    def _files(self, suffix: str) -> list[Path]:
        return sorted((self.folder / ".parts").glob(f"*.{suffix}"))


class TokenPart:
    """What one job writes.

    Args:
        folder: Folder of the parts.
        job: Number of the job.
        settings: As for ``TokenStore``.
    """

    def __init__(self, folder: Path, job: int, settings: Mapping[str, object]):
        self.path = folder / f"{job}.jsonl"
        self.journal = Journal(folder / f"{job}.journal", settings)

    def add(self, batch: Mapping[str, TasteTokens]) -> None:
        """Write utterances; errors as ``append_tokens``."""
        append_tokens(self.path, batch)

    def exclude(self, key: str, error: ExclusionError) -> None:
        """Note that an utterance is left out."""
        self.journal.exclude(key, error)

    def note(self, outcomes: Mapping[str, TasteTokens | ExclusionError]) -> None:
        """Write what there is of a batch, and why there is none of the others."""
        self.add(
            {
                key: outcome
                for key, outcome in outcomes.items()
                if not isinstance(outcome, ExclusionError)
            }
        )
        for key, outcome in outcomes.items():
            if isinstance(outcome, ExclusionError):
                self.exclude(key, outcome)
