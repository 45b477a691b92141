"""Pairs of real speech, made from a corpus, that differ in one thing.

Like published benchmarks of consistency (SALMon), but from whatever corpus is at hand,
and named as ours: scores on them compare models on one corpus and nothing else. Both
halves of a pair are cut and joined in the same way, so that a splice gives nothing
away, and have as many words: the shorter one would be likelier.

Symbols: N samples (16 kHz), W words.

Source: construction after SALMon (arXiv:2409.07437).
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from espnet_taste.types import SAMPLE_RATE_HZ

MIN_WORDS = 6  # of an utterance that is cut in two
FADE_S = 0.01  # over which joined pieces overlap
SNR_DB = 10.0
LEVEL = 0.05  # root mean square of every piece: loudness must not tell
REVERB_S = (0.3, 1.2)  # decay by 60 dB
RATES = (0.85, 1.18)  # how fast, against the recording
SEMITONES = (-3.0, 3.0)  # how high
_CHAPTER = re.compile(r"(.*\D)?(\d+)")
# LibriTTS: reader, chapter, paragraph, sentence.
_LIBRITTS = re.compile(r"(\d+_\d+_)\d{6}_\d{6}")


@dataclass(frozen=True)
class Spoken:
    """Speech with its words."""

    wave: np.ndarray  # (N,) float32
    words: tuple[str, ...]
    times: np.ndarray  # (W, 2) s

    def cut(self, word: int) -> tuple["Spoken", "Spoken"]:
        """Cut between two words, in the middle of what is between them."""
        at = round(float(self.times[word - 1, 1] + self.times[word, 0]) / 2, 4)
        sample = round(at * SAMPLE_RATE_HZ)
        left = Spoken(self.wave[:sample], self.words[:word], self.times[:word])
        right = Spoken(self.wave[sample:], self.words[word:], self.times[word:] - at)
        return left, right

    def levelled(self) -> "Spoken":
        """Bring to the common level."""
        level = float(np.sqrt(np.mean(self.wave**2)))
        return replace(self, wave=self.wave * (LEVEL / max(level, 1e-5)))

    @property
    def duration_s(self) -> float:
        """Length in s."""
        return len(self.wave) / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class MadePair:
    """Two halves and the moment from which on they differ."""

    anchor: str  # utterance that both begin with
    positive: Spoken
    negative: Spoken
    moment_s: float
    about: str  # what differs, for the table


@dataclass(frozen=True)
class Corpus:
    """A set to make pairs from.

    Args:
        keys: Its utterances with at least ``MIN_WORDS`` words.
        speaker: Utterance to speaker.
        gender: Speaker to gender, where it is known.
        read: Reads one utterance.
    """

    keys: Sequence[str]
    speaker: Mapping[str, str]
    gender: Mapping[str, str]
    read: Callable[[str], Spoken]

    def others(self, key: str, wanted: Callable[[str], bool]) -> list[str]:
        """Return the other utterances that are wanted."""
        return [other for other in self.keys if other != key and wanted(other)]

    def gender_of(self, key: str) -> str | None:
        """Return the speaker's gender; None where it is not known."""
        return self.gender.get(self.speaker[key])

    @cached_property
    def following(self) -> dict[str, str]:
        """Utterance to the one that follows it, by ids that end in a number."""
        known = set(self.keys)
        found = {}
        for key in self.keys:
            match = _CHAPTER.fullmatch(key)
            if match is None:
                continue
            head, number = match[1] or "", match[2]
            after = f"{head}{int(number) + 1:0{len(number)}d}"
            if after in known and self.speaker[after] == self.speaker[key]:
                found[key] = after
        return found


Maker = Callable[[Corpus, str, np.random.Generator], MadePair | None]


def speaker_switch(
    corpus: Corpus, key: str, random: np.random.Generator
) -> MadePair | None:
    """Go on in the same voice, or in another one."""
    me = corpus.speaker[key]
    different = corpus.others(key, lambda other: corpus.speaker[other] != me)
    return _splice(corpus, key, different, random, "speaker")


def gender_switch(
    corpus: Corpus, key: str, random: np.random.Generator
) -> MadePair | None:
    """Go on in the same voice, or in one of another gender."""
    gender = corpus.gender_of(key)
    if gender is None:
        return None
    different = corpus.others(
        key, lambda other: corpus.gender_of(other) not in (None, gender)
    )
    return _splice(corpus, key, different, random, "gender")


def topic_switch(
    corpus: Corpus, key: str, random: np.random.Generator
) -> MadePair | None:
    """Go on with what follows in the recording, or with something else of its voice."""
    after = corpus.following.get(key)
    if after is None:
        return None
    chapter, me = _chapter_of(key), corpus.speaker[key]
    different = corpus.others(
        key,
        lambda other: corpus.speaker[other] == me and _chapter_of(other) != chapter,
    )
    if not different:
        return None
    first = corpus.read(key).levelled()
    seconds = as_long(corpus.read(after), corpus.read(str(random.choice(different))))
    right, wrong = (join(first, second.levelled()) for second in seconds)
    return MadePair(key, right, wrong, first.duration_s - FADE_S, "topic")


def background_switch(
    corpus: Corpus, key: str, random: np.random.Generator
) -> MadePair | None:
    """Keep the noise behind the voice, or change it."""
    spoken = corpus.read(key).levelled()
    left, _ = spoken.cut(len(spoken.words) // 2)
    count = len(spoken.wave)
    kinds = [hum, hiss, rumble]
    first, second = (kinds[n] for n in random.choice(len(kinds), 2, replace=False))
    noises = [_at_snr(kind(count, random)) for kind in (first, second)]
    at = len(left.wave)
    changed = go_over(noises[0], noises[1], at)
    return MadePair(
        key,
        replace(spoken, wave=spoken.wave + noises[0]),
        replace(spoken, wave=spoken.wave + changed),
        left.duration_s,
        f"background {first.__name__} to {second.__name__}",
    )


def reverb_switch(
    corpus: Corpus, key: str, random: np.random.Generator
) -> MadePair | None:
    """Stay in the room, or go to another one."""
    spoken = corpus.read(key).levelled()
    left, _ = spoken.cut(len(spoken.words) // 2)
    order = random.permutation(len(REVERB_S))
    rooms = [
        replace(spoken, wave=_reverberate(spoken.wave, REVERB_S[n], random)).levelled()
        for n in order
    ]
    at = len(left.wave)
    changed = go_over(rooms[0].wave, rooms[1].wave, at)
    return MadePair(
        key,
        rooms[0],
        replace(spoken, wave=changed).levelled(),
        left.duration_s,
        f"reverberation {REVERB_S[order[0]]:g} s to {REVERB_S[order[1]]:g} s",
    )


def prosody_switch(
    corpus: Corpus, key: str, random: np.random.Generator
) -> MadePair | None:
    """Keep rate or pitch, or change it; the recording's own is in neither half."""
    spoken = corpus.read(key).levelled()
    left, right = spoken.cut(len(spoken.words) // 2)
    what, change, values = (
        ("rate", _at_rate, RATES),
        ("pitch", _at_pitch, SEMITONES),
    )[random.integers(2)]
    before, after = random.permutation(values)
    first = change(left, before).levelled()
    same, other = (
        join(first, change(right, value).levelled()) for value in (before, after)
    )
    about = f"{what} {before:g} to {after:g}"
    return MadePair(key, same, other, first.duration_s - FADE_S, about)


MAKERS: dict[str, Maker] = {
    "speaker_switch": speaker_switch,
    "gender_switch": gender_switch,
    "topic_switch": topic_switch,
    "prosody_switch": prosody_switch,
    "background_switch": background_switch,
    "reverb_switch": reverb_switch,
}


def make_pairs(
    corpus: Corpus, kind: str, num_pairs: int, seed: int
) -> Iterator[MadePair]:
    """Make pairs of a kind, each from another utterance.

    A pair depends on its utterance, the corpus and the seed, not on the others.

    Args:
        corpus: Where they come from.
        kind: A name in ``MAKERS``.
        num_pairs: At most so many.
        seed: Chooses utterances and everything random in them.

    Yields:
        Pairs; fewer where the corpus has nothing more.
    """
    order = np.random.default_rng(seed).permutation(len(corpus.keys))
    made = 0
    for place in order:
        if made == num_pairs:
            return
        random = np.random.default_rng([seed, int(place)])
        pair = MAKERS[kind](corpus, corpus.keys[place], random)
        if pair is not None:
            made += 1
            yield pair


def as_long(one: Spoken, other: Spoken) -> tuple[Spoken, Spoken]:
    """Cut two pieces of at least two words to equally many, each before its end."""
    count = min(len(one.words), len(other.words)) - 1
    return one.cut(count)[0], other.cut(count)[0]


def join(left: Spoken, right: Spoken) -> Spoken:
    """Put one piece behind the other, with a short cross-fade."""
    fade = min(round(FADE_S * SAMPLE_RATE_HZ), len(left.wave), len(right.wave))
    ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    head, tail = left.wave.copy(), right.wave[fade:]
    head[len(head) - fade :] *= 1 - ramp
    head[len(head) - fade :] += ramp * right.wave[:fade]
    shift = left.duration_s - fade / SAMPLE_RATE_HZ
    times = np.concatenate([left.times, right.times + shift])
    return Spoken(np.concatenate([head, tail]), left.words + right.words, times)


def go_over(first: np.ndarray, second: np.ndarray, at: int) -> np.ndarray:
    """Change from a sound to another, both (N,), over ``FADE_S`` from a sample on."""
    since = np.arange(len(first)) - at
    share = np.clip(since / (FADE_S * SAMPLE_RATE_HZ), 0, 1).astype(np.float32)
    return first * (1 - share) + second * share


def hiss(count: int, random: np.random.Generator) -> np.ndarray:
    """Return white noise, (count,)."""
    return random.standard_normal(count)


def rumble(count: int, random: np.random.Generator) -> np.ndarray:
    """Return noise that falls by 6 dB an octave from 50 Hz on, (count,)."""
    frequencies = np.fft.rfftfreq(count, 1 / SAMPLE_RATE_HZ)
    spectrum = np.fft.rfft(random.standard_normal(count))
    return np.fft.irfft(spectrum / np.maximum(frequencies, 50.0), count)


def hum(count: int, random: np.random.Generator) -> np.ndarray:
    """Return 50 Hz with overtones, (count,)."""
    seconds = np.arange(count) / SAMPLE_RATE_HZ
    phases = random.uniform(0, 2 * np.pi, 8)
    tones = [
        np.sin(2 * np.pi * 50 * (n + 1) * seconds + phase) / (n + 1)
        for n, phase in enumerate(phases)
    ]
    return np.sum(tones, axis=0)


def _splice(
    corpus: Corpus,
    key: str,
    different: Sequence[str],
    random: np.random.Generator,
    about: str,
) -> MadePair | None:
    """Let the first half of an utterance be followed by second halves of two others.

    The one of its own voice is of another chapter, as the other voice always is, if
    the speaker has one: else what is told, or the room, would favour the right half.
    """
    me, chapter = corpus.speaker[key], _chapter_of(key)
    own = corpus.others(key, lambda other: corpus.speaker[other] == me)
    same = [other for other in own if _chapter_of(other) != chapter]
    if not same:
        same, about = own, f"{about}, in one chapter"
    if not same or not different:
        return None
    halves = []
    for other in (key, random.choice(same), random.choice(different)):
        spoken = corpus.read(str(other))
        halves.append(spoken.cut(len(spoken.words) // 2))
    first = halves[0][0].levelled()
    seconds = as_long(halves[1][1], halves[2][1])
    right, wrong = (join(first, second.levelled()) for second in seconds)
    return MadePair(key, right, wrong, first.duration_s - FADE_S, about)


def _at_snr(noise: np.ndarray) -> np.ndarray:
    """Scale noise to its level under speech of the common one."""
    wanted = LEVEL * 10 ** (-SNR_DB / 20)
    return (noise * (wanted / np.sqrt(np.mean(noise**2)))).astype(np.float32)


def _at_rate(spoken: Spoken, rate: float) -> Spoken:
    """Speak faster or slower at the same pitch."""
    from librosa.effects import time_stretch

    wave = time_stretch(spoken.wave, rate=float(rate)).astype(np.float32)
    return Spoken(wave, spoken.words, spoken.times / rate)


def _at_pitch(spoken: Spoken, semitones: float) -> Spoken:
    """Speak higher or lower at the same rate."""
    from librosa.effects import pitch_shift

    wave = pitch_shift(spoken.wave, sr=SAMPLE_RATE_HZ, n_steps=float(semitones))
    return replace(spoken, wave=wave.astype(np.float32))


def _reverberate(
    wave: np.ndarray, decay_s: float, random: np.random.Generator
) -> np.ndarray:
    """Let a wave sound in a room of decaying noise, (N,) float32."""
    seconds = np.arange(round(decay_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    response = random.standard_normal(len(seconds)) * 10 ** (-3 * seconds / decay_s)
    response[0] = 3 * np.sqrt(np.sum(response**2)) / 2  # direct sound
    size = len(wave) + len(response)
    product = np.fft.rfft(wave, size) * np.fft.rfft(response, size)
    return np.fft.irfft(product, size)[: len(wave)].astype(np.float32)


def _chapter_of(key: str) -> str:
    match = _LIBRITTS.fullmatch(key) or _CHAPTER.fullmatch(key)
    return key if match is None else match[1] or ""
