"""Word times that somebody has made already: Praat TextGrids or a CTM file."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from espnet_taste.align.contracts import (
    AbsAligner,
    AlignmentError,
    WordTimes,
    fit_times,
)
from espnet_taste.types import SAMPLE_RATE_HZ
from espnet_taste.words import space_signs

Interval = tuple[float, float, str]  # start and end in s, label

# Labels of silence and noise in the output of the usual aligners.
_SILENCE = {"", "sp", "sil", "spn", "sil1", "<eps>", "<sil>", "<unk>", "eps"}


class ExistingAligner(AbsAligner):
    """Looks word times up by utterance id.

    Args:
        source: A ``.ctm`` file (``utterance channel start duration word``) or a
            folder in which ``<utterance>.TextGrid`` lies at any depth, once.
        tier: TextGrid tier of the words; any case. "<speaker> - words" also fits.
        keys: Utterances that will be asked for, the only ones kept of a CTM file;
            None for all.

    Raises:
        FileNotFoundError: If ``source`` is neither.
        ValueError: If the CTM file is broken.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        tier: str = "words",
        keys: Iterable[str] | None = None,
    ):
        self.source = Path(source)
        self.tier = tier
        self.intervals: dict[str, list[Interval]] = {}
        self.grids: dict[str, list[Path]] = {}  # by name; folders may share names
        if self.source.is_dir():
            for path in sorted(self.source.rglob("*.TextGrid")):
                self.grids.setdefault(path.name, []).append(path)
            if not self.grids:
                raise FileNotFoundError(f"no *.TextGrid in {self.source}")
        else:
            self.intervals = read_ctm(self.source, keys)

    def align(
        self, audio: np.ndarray, words: Sequence[str], *, key: str = ""
    ) -> WordTimes:
        """Look one utterance up; see ``AbsAligner.align``."""
        if (grid := self._grid_of(key)) is not None:
            intervals = self._read_grid(grid)
        elif key in self.intervals:
            intervals = self.intervals[key]
        else:
            raise AlignmentError("no_alignment", f"'{key}' is not in {self.source}")
        spoken = [row for row in intervals if row[2].lower() not in _SILENCE]
        times = match_words(words, divide_signs(spoken))
        return fit_times(times, len(audio) / SAMPLE_RATE_HZ)

    def _grid_of(self, key: str) -> Path | None:
        """Return the TextGrid of an utterance, whose id may name folders, too."""
        wanted = Path(f"{key}.TextGrid").parts
        named = self.grids.get(wanted[-1], [])
        found = [path for path in named if path.parts[-len(wanted) :] == wanted]
        if len(found) > 1:
            raise AlignmentError(
                "no_alignment",
                f"'{key}' has {len(found)} TextGrids, {found[0]} and {found[1]}; leave "
                "one, or let ids begin with the folder",
            )
        return found[0] if found else None

    def _read_grid(self, grid: Path) -> list[Interval]:
        try:
            tiers = read_textgrid(grid)
        except ValueError as error:
            raise AlignmentError("no_alignment", str(error)) from error
        for name, intervals in tiers.items():
            if re.fullmatch(rf"(.* - )?{re.escape(self.tier)}", name, re.IGNORECASE):
                return intervals
        raise AlignmentError(
            "no_alignment",
            f"{grid}: no tier '{self.tier}', there are {sorted(tiers)}",
        )


def divide_signs(intervals: Sequence[Interval]) -> list[Interval]:
    """Divide intervals of several signs evenly over them.

    A dictionary word of Chinese or Thai has one time in the alignment, and a time for
    each sign is wanted (``espnet_taste.words.space_signs``). Others stay as they are.
    """
    divided: list[Interval] = []
    for start, end, label in intervals:
        signs = space_signs(label).split()
        if len(signs) <= len(label.split()):
            signs = [label]
        edges = np.linspace(start, end, len(signs) + 1).tolist()
        divided += zip(edges, edges[1:], signs)
    return divided


def match_words(words: Sequence[str], intervals: Sequence[Interval]) -> np.ndarray:
    """Give each word the time of the interval or intervals that spell it.

    Case and punctuation do not count. Aligners cut some words ("don't", "well-known")
    in two, so a word may take several intervals.

    Args:
        words: Words of the transcript.
        intervals: Spoken intervals in time order.

    Returns:
        Start and end in s, (W, 2), float64.

    Raises:
        AlignmentError: With reason words_differ at the first word that does not fit.
    """
    times: list[tuple[float, float]] = []
    place = 0
    for index, word in enumerate(words):
        wanted, spelled, first = _letters(word), "", place
        while place < len(intervals) and len(spelled) < len(wanted):
            spelled += _letters(intervals[place][2])
            place += 1
        if spelled != wanted:
            raise AlignmentError(
                "words_differ",
                f"word {index + 1} of the transcript is '{word}', the alignment has "
                f"'{' '.join(row[2] for row in intervals[first:place])}'",
            )
        times.append((intervals[first][0], intervals[place - 1][1]))
    if place < len(intervals):
        raise AlignmentError(
            "words_differ",
            f"the alignment goes on with '{intervals[place][2]}' after the last word",
        )
    return np.array(times, dtype=np.float64)


def _letters(word: str) -> str:
    """Return a word's letters and digits, folded."""
    folded = unicodedata.normalize("NFKC", word).casefold()
    return "".join(character for character in folded if character.isalnum())


def read_ctm(
    path: str | Path, keys: Iterable[str] | None = None
) -> dict[str, list[Interval]]:
    """Read ``utterance channel start duration word [confidence]`` lines.

    Args:
        path: CTM file, UTF-8.
        keys: Utterances to keep; None for all. Of 1,000 hours, all take some 2 GB,
            which would be wanted by each of many jobs.

    Returns:
        Utterance to its words in time order.

    Raises:
        ValueError: If a line has another form; it is named.
    """
    path = Path(path)
    table: dict[str, list[Interval]] = {}
    wanted = None if keys is None else frozenset(keys)
    with path.open(encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            fields = line.split()
            if not fields or line.startswith(";;"):
                continue
            if wanted is not None and fields[0] not in wanted:
                continue
            try:
                start, duration = float(fields[2]), float(fields[3])
                row = (start, start + duration, fields[4])
            except (IndexError, ValueError) as error:
                raise ValueError(
                    f"{path}:{number}: expected 'utterance channel start duration "
                    f"word', got '{line.strip()}'"
                ) from error
            table.setdefault(fields[0], []).append(row)
    for rows in table.values():
        rows.sort(key=lambda row: row[0])
    return table


def read_textgrid(path: str | Path) -> dict[str, list[Interval]]:
    """Read the interval tiers of a TextGrid, long or short form, UTF-8 or UTF-16.

    Returns:
        Tier name to intervals in time order; of tiers with one name the first.

    Raises:
        ValueError: If the file is no TextGrid or ends too early.
    """
    path = Path(path)
    data = path.read_bytes()
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: neither UTF-8 nor UTF-16: {error}") from error
    # Both forms hold the same values in the same order: quoted strings, numbers and
    # <exists>. The long form has names around them, which are skipped.
    found = re.findall(
        r'"(?:[^"]|"")*"|(?<![\w.\[])-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w\]])', text
    )
    values = iter(found)
    try:
        if [_unquoted(next(values)), _unquoted(next(values))] != [
            "ooTextFile",
            "TextGrid",
        ]:
            raise ValueError(f"{path}: not a TextGrid")
        next(values), next(values)  # start and end of the whole
        return _read_tiers(values, int(next(values)))
    except StopIteration as error:
        raise ValueError(f"{path}: the TextGrid ends too early") from error


def _read_tiers(values: Iterator[str], num_tiers: int) -> dict[str, list[Interval]]:
    """Read tiers from the values of a TextGrid; point tiers are skipped over."""
    tiers: dict[str, list[Interval]] = {}
    for _ in range(num_tiers):
        kind, name = _unquoted(next(values)), _unquoted(next(values))
        next(values), next(values)  # start and end of the tier
        rows = []
        for _ in range(int(next(values))):
            start = float(next(values))
            end = float(next(values)) if kind == "IntervalTier" else start
            rows.append((start, end, _unquoted(next(values)).strip()))
        if kind == "IntervalTier":
            tiers.setdefault(name, rows)
    return tiers


def _unquoted(value: str) -> str:
    """Take the quotes off a Praat string; a doubled one inside stands for one."""
    return value[1:-1].replace('""', '"') if value.startswith('"') else value
