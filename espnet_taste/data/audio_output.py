"""Write audio utterance by utterance, so that a killed run goes on where it was."""

import io
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import soundfile

from espnet_taste.data.kaldi import atomic_write, check_key, write_table
from espnet_taste.data.utterances import in_batches

logger = logging.getLogger(__name__)

# What a file name cannot hold, and what marks it there; all else stays as it is.
QUOTED = str.maketrans({"/": "%2F", "%": "%25", "\0": "%00"})


class AudioOutput:
    """A folder of audio with a table and a report.

    An utterance is done when its facts are on disk; its audio is renamed into place
    before. In the names of its files, what a file name cannot hold is written as %XX.

    Args:
        directory: Folder, made if needed.
    """

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)
        (self.directory / "audio").mkdir(parents=True, exist_ok=True)

    @property
    def done(self) -> set[str]:
        """Keys whose audio and facts are on disk."""
        paths = (self.directory / "audio").glob("*.json")
        found = [(unquote(path.stem), path) for path in paths]
        # What bears another name than ours for its key would not be found later.
        return {key for key, path in found if path == self._facts(key)}

    def facts(self, key: str) -> dict[str, object]:
        """Return what was told about an utterance that is done."""
        return json.loads(self._facts(key).read_text(encoding="utf-8"))

    def write(
        self,
        key: str,
        audio: np.ndarray,
        sample_rate_hz: int,
        facts: Mapping[str, object],
    ) -> None:
        """Write one utterance.

        Args:
            key: Its id.
            audio: Samples, (N,), float32, -1..1; clipped beyond.
            sample_rate_hz: Their rate.
            facts: What the report says about it.

        Raises:
            ValueError: If a sample is not finite.
            OSError: If it cannot be written; a full disk is named as such.
        """
        check_key(key)
        if not np.isfinite(audio).all():
            raise ValueError(
                f"the audio made for '{key}' has samples that are no number"
            )
        # In memory, because libsndfile does not report a full disk reliably.
        encoded = io.BytesIO()
        samples = np.clip(audio, -1.0, 1.0)
        soundfile.write(
            encoded, samples, sample_rate_hz, format="FLAC", subtype="PCM_16"
        )
        with atomic_write(self._audio(key), "wb") as stream:
            stream.write(encoded.getvalue())
        with atomic_write(self._facts(key)) as stream:
            json.dump({"key": key, "num_samples": len(audio), **facts}, stream)

    def fill(
        self,
        keys: Sequence[str],
        batch_size: int,
        open_source: Callable[[], Callable],
    ) -> None:
        """Make and write the audio of utterances, batch by batch.

        Batches are cut from all keys and made again whole if one of theirs is
        missing, so that a run after a kill draws what an unbroken one would have.

        Args:
            keys: Utterances.
            batch_size: Utterances a batch.
            open_source: Gives the function from a list of keys to results with
                ``audio``, ``sample_rate_hz`` and ``facts``; called only if
                something is left to do.
        """
        done = self.done
        todo = [b for b in in_batches(keys, batch_size) if not done.issuperset(b)]
        source = open_source() if todo else None
        for number, batch in enumerate(todo, start=1):
            for key, result in zip(batch, source(batch), strict=True):
                self.write(key, result.audio, result.sample_rate_hz, result.facts)
            logger.info(f"{number}/{len(todo)} batches of audio")
        self.close(keys)

    def close(self, keys: Iterable[str]) -> None:
        """Write ``wav.scp`` and ``report.jsonl`` for the given utterances."""
        keys = sorted(keys)
        write_table(
            self.directory / "wav.scp", {key: str(self._audio(key)) for key in keys}
        )
        with atomic_write(self.directory / "report.jsonl") as stream:
            for key in keys:
                stream.write(self._facts(key).read_text(encoding="utf-8") + "\n")

    def _audio(self, key: str) -> Path:
        return self.directory / "audio" / f"{key.translate(QUOTED)}.flac"

    def _facts(self, key: str) -> Path:
        return self.directory / "audio" / f"{key.translate(QUOTED)}.json"
