"""Read prepared utterances for inference: the arrays that training sees, by key."""

from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path

import numpy as np

from espnet_taste.data.audio import read_audio
from espnet_taste.data.kaldi import read_scp_arrays, read_table

Arrays = dict[str, np.ndarray]


class Utterances:
    """Arrays of the utterances of one prepared set.

    Args:
        data_dir: Folder of the alignment stage (wav.scp, text).
        features_dir: Folder of the feature stage.
        names: Features to read: ``units``, ``spembs``, ``encoder_states``, ``speech``.
            If ``encoder_states`` are wanted but not cached, ``speech`` takes
            their place.
        preprocess: A preprocessor of this package.
        keys: Utterances that will be asked for, as a job among many knows them; None:
            any.

    Raises:
        FileNotFoundError: If a table is absent; it names the stage that makes it.
    """

    def __init__(
        self,
        data_dir: str | Path,
        features_dir: str | Path,
        names: Sequence[str],
        preprocess: Callable[[str, dict], Arrays],
        keys: Container[str] | None = None,
    ):
        self.data_dir = Path(data_dir)
        self.preprocess = preprocess
        self.text = read_table(self.data_dir / "text", keys)
        self.wav = read_table(self.data_dir / "wav.scp", keys)
        self.features = {}
        self.use_speech = False
        for name in names:
            scp = Path(features_dir) / f"{name}.scp"
            if name == "speech" or (name == "encoder_states" and not scp.exists()):
                self.use_speech = True
            elif not scp.exists():
                raise FileNotFoundError(
                    f"no {scp}; run the stage extract_features for this set"
                )
            else:
                self.features[name] = read_scp_arrays(scp, keys)

    def __getitem__(self, key: str) -> Arrays:
        """Return the arrays of one utterance.

        Raises:
            ValueError: If a table lacks the utterance; the table is named.
        """
        if key not in self.text:
            raise ValueError(f"{self.data_dir}/text: no utterance '{key}'")
        data: dict = {"text": self.text[key]}
        for name, table in self.features.items():
            if key not in table:
                raise ValueError(f"{table.scp}: no utterance '{key}'")
            data[name] = table[key]
        if self.use_speech:
            data["speech"] = read_audio(self.wav[key], folder=self.data_dir)
        return self.preprocess(key, data)


def in_batches(keys: Sequence[str], size: int) -> Iterator[list[str]]:
    """Yield the keys in lists of at most ``size``."""
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, got {size}")
    for start in range(0, len(keys), size):
        yield list(keys[start : start + size])
