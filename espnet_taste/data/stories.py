"""Stories with a right and a wrong ending, in several voices and across modalities.

A story is a few files of one name: ``<name>_correct.wav`` and ``<name>_incorrect.wav``
hold whole stories (several speakers), or the two endings to ``<name>_mutual.wav``, what
both have in common (across modalities); beside each may stand its text, ``.txt``. Names
are unique within a folder, and folders may be nested, one a voice.

What is scored is always the ending, given its beginning: one of them, or both, spoken.

Source: layouts that SlamKit (github.com/slp-rl/slamkit) reads.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from espnet_taste.data.audio import read_audio
from espnet_taste.data.corpora import Utterance
from espnet_taste.data.kaldi import atomic_write
from espnet_taste.data.pair_sets import Pair
from espnet_taste.types import SAMPLE_RATE_HZ

MODALITIES = ("speech", "text")
ENDINGS = {"pos": "correct", "neg": "incorrect"}
_FILE = re.compile(r"(.+)_(correct|incorrect|mutual)\.(wav|txt)")


@dataclass(frozen=True)
class Story:
    """Where the files of one story lie."""

    name: str  # unique in the set, no blanks or slashes
    base: str  # path without ``_correct.wav``

    def audio(self, part: str) -> Path:
        """Return the recording of ``correct``, ``incorrect`` or ``mutual``.

        Raises:
            FileNotFoundError: If it is absent.
        """
        return _require(Path(f"{self.base}_{part}.wav"), self.name)

    def text(self, part: str) -> str:
        """Return what is said in a part, on one line.

        Raises:
            FileNotFoundError: If its text is absent.
            ValueError: If it is empty.
        """
        path = _require(Path(f"{self.base}_{part}.txt"), self.name)
        text = " ".join(path.read_text(encoding="utf-8").split())
        if not text:
            raise ValueError(f"{path}: no text")
        return text


@dataclass
class StorySet:
    """A set ready to be written: utterances, pairs, and tables beside them."""

    utterances: list[Utterance] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    # Table name to utterance id to value: text_before, text_after or moments.
    tables: dict[str, dict[str, str]] = field(default_factory=dict)


def find_stories(folder: Path) -> list[Story]:
    """Find the stories of a folder and of those in it, by any of their files.

    So one that has lost a file is found, and refused where the file is wanted.

    Raises:
        ValueError: If there are none.
    """
    bases = set()
    for path in folder.rglob("*"):
        match = _FILE.fullmatch(path.name)
        if match:
            bases.add(path.with_name(match[1]))
    found = []
    for base in sorted(bases):
        name = "-".join(base.relative_to(folder).parts).replace(" ", "_")
        found.append(Story(name, str(base)))
    if not found:
        raise ValueError(f"{folder}: no files called <name>_correct.wav")
    return found


def whole_stories(stories: Sequence[Story], part: str) -> StorySet:
    """Pair whole stories, as several speakers tell them.

    Args:
        stories: The stories, all with texts or none.
        part: Name of the part of the benchmark.

    Raises:
        FileNotFoundError: If a recording, or one text of several, is absent.
    """
    made = StorySet()
    have_texts = any(
        Path(f"{story.base}_{ending}.txt").is_file()
        for story in stories
        for ending in ENDINGS.values()
    )
    for story in stories:
        for half, ending in ENDINGS.items():
            made.utterances.append(
                Utterance(
                    f"{story.name}-{half}",
                    story.name,
                    str(story.audio(ending).resolve()),
                    story.text(ending) if have_texts else None,
                )
            )
        made.pairs.append(_pair(story, part))
    return made


def split_stories(
    stories: Iterable[Story], part: str, prompt: str, ending: str, folder: Path
) -> StorySet:
    """Pair endings of which beginning or ending, or both, are spoken.

    Args:
        stories: The stories.
        part: Name of the part of the benchmark.
        prompt: ``speech`` or ``text``, of the beginning.
        ending: ``speech`` or ``text``, of what is scored.
        folder: Where joined recordings are written, if both are spoken.

    Returns:
        With ``text_before`` (a written beginning), ``text_after`` (a written ending) or
        ``moments`` (where the ending of a joined recording begins, in s).

    Raises:
        ValueError: If neither is spoken.
    """
    if "speech" not in (prompt, ending):
        raise ValueError("--prompt text --ending text: a text LLM alone scores that")
    made = StorySet()
    name = {
        ("text", "speech"): "text_before",
        ("speech", "text"): "text_after",
        ("speech", "speech"): "moments",
    }[prompt, ending]
    table = made.tables.setdefault(name, {})
    for story in stories:
        for half, kind in ENDINGS.items():
            key = f"{story.name}-{half}"
            if name == "text_before":
                audio, text = story.audio(kind), story.text(kind)
                table[key] = story.text("mutual")
            elif name == "text_after":
                audio, text = story.audio("mutual"), story.text("mutual")
                table[key] = story.text(kind)
            else:
                audio = folder / f"{key}.flac"
                text = f"{story.text('mutual')} {story.text(kind)}"
                table[key] = f"{join(story, kind, audio):.4f}"
            made.utterances.append(
                Utterance(key, story.name, str(audio.resolve()), text)
            )
        made.pairs.append(_pair(story, part))
    return made


def join(story: Story, ending: str, path: Path) -> float:
    """Write beginning and ending as one recording, 16 kHz.

    Returns:
        Where the ending begins, in s.
    """
    first, second = (
        read_audio(str(story.audio(part).resolve())) for part in ("mutual", ending)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "wb") as stream:
        joined = np.concatenate([first, second])
        soundfile.write(stream, joined, SAMPLE_RATE_HZ, format="FLAC")
    return len(first) / SAMPLE_RATE_HZ


def _pair(story: Story, part: str) -> Pair:
    return Pair(story.name, part, f"{story.name}-pos", f"{story.name}-neg")


def _require(path: Path, name: str) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"story {name}: {path} is absent")
    return path
