"""Forced alignment with PocketSphinx and the English model that its package ships.

Needs no model hub and no GPU and takes 0.02 s for a second of speech. English only.
"""

from collections.abc import Sequence

import numpy as np

from espnet_taste.align.contracts import (
    AbsAligner,
    AlignmentError,
    WordTimes,
    fit_times,
)
from espnet_taste.align.letter_to_sound import guess_phones
from espnet_taste.align.spoken import spoken_pieces
from espnet_taste.packages import MissingPackageError
from espnet_taste.types import SAMPLE_RATE_HZ

FRAME_S = 0.01
# Silence put around the audio: where a recording was cut off within its last phone,
# the last word would be lost (2 of 150 utterances of one corpus; none with silence).
PAD_S = 0.5


class PocketSphinxAligner(AbsAligner):
    """Aligns with PocketSphinx's US English model and the CMU dictionary.

    Words that the dictionary lacks are given a pronunciation by rule; ``guessed``
    counts how often.

    Raises:
        MissingPackageError: If the package is not installed.
    """

    def __init__(self) -> None:
        try:
            import pocketsphinx
        except ImportError as error:
            raise MissingPackageError(
                "the aligner pocketsphinx needs its package: pip install pocketsphinx"
            ) from error
        self.decoder = pocketsphinx.Decoder(
            samprate=SAMPLE_RATE_HZ, lm=None, loglevel="FATAL"
        )
        self.guessed = 0
        self._added: set[str] = set()

    def align(
        self, audio: np.ndarray, words: Sequence[str], *, key: str = ""
    ) -> WordTimes:
        """Align one utterance; see ``AbsAligner.align``."""
        pieces = [spoken_pieces(word) for word in words]
        for word, said in zip(words, pieces, strict=True):
            if not said:
                raise AlignmentError(
                    "no_pronunciation",
                    f"'{word}' has no English pronunciation; --aligner whisper knows "
                    "other languages",
                )
        flat = [piece for said in pieces for piece in said]
        for piece in flat:
            self._learn(piece)
        segments = self._place(audio, flat)
        edges = np.cumsum([0] + [len(said) for said in pieces])
        starts = segments[edges[:-1], 0]
        ends = segments[edges[1:] - 1, 1]
        return fit_times(np.stack([starts, ends], axis=1), len(audio) / SAMPLE_RATE_HZ)

    def _place(self, audio: np.ndarray, pieces: list[str]) -> np.ndarray:
        """Return start and end in s of every piece, (P, 2), within the audio."""
        num_pad = round(PAD_S * SAMPLE_RATE_HZ)
        frames = self._decode(np.pad(audio, num_pad), pieces)
        if len(frames) == len(pieces):
            return (frames * FRAME_S - PAD_S).clip(0, len(audio) / SAMPLE_RATE_HZ)
        raise AlignmentError(
            "not_aligned",
            f"PocketSphinx placed {len(frames)} of {len(pieces)} words; audio and "
            "transcript may differ",
        )

    def _learn(self, piece: str) -> None:
        """Give a word that the dictionary lacks a pronunciation."""
        if piece in self._added:
            self.guessed += 1
        elif self.decoder.lookup_word(piece) is None:
            # Guesses must not build on earlier guesses: the result would depend on
            # the order of the utterances.
            phones = guess_phones(piece, self._lookup_shipped)
            self.decoder.add_word(piece, phones, True)
            self._added.add(piece)
            self.guessed += 1

    def _lookup_shipped(self, word: str) -> str | None:
        return None if word in self._added else self.decoder.lookup_word(word)

    def _decode(self, audio: np.ndarray, pieces: list[str]) -> np.ndarray:
        """Return first and last-plus-one frame of the pieces found, (P, 2)."""
        decoder = self.decoder
        # Feature normalisation carries over from the last utterance otherwise.
        decoder.reinit_feat()
        decoder.set_align_text(" ".join(pieces))
        samples = (audio.clip(-1, 1) * 32767).astype("<i2").tobytes()
        decoder.start_utt()
        decoder.process_raw(samples, full_utt=True)
        decoder.end_utt()
        frames = []
        # Segments are used up one by one: as a list, all would be the freed last one.
        for segment in decoder.seg() or ():
            if not segment.word.startswith(("<", "[", "+")):
                frames.append((segment.start_frame, segment.end_frame + 1))
        return np.array(frames, dtype=np.float64).reshape(-1, 2)
