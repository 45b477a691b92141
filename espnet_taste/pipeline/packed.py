"""Open what the recipe packed, or an experiment folder."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

from espnet_taste.data.model_zoo import download_packed
from espnet_taste.pipeline.slm import SpokenLMInference
from espnet_taste.pipeline.sources import KINDS, is_name
from espnet_taste.pipeline.speech import DecodeOptions, SpeechReconstructor
from espnet_taste.units.speakers import RECORD, recorded_speaker_model
from espnet_taste.weights.cache import cache_root, locked
from espnet_taste.weights.digests import trained_file
from espnet_taste.weights.hub import first_line

DONE = ".done"  # in an unpacked folder that is complete
SPEAKER = "speaker"  # folder of an experiment, if its speaker encoder is no default


@dataclass(frozen=True)
class PackedFiles:
    """Where the parts of a packed model lie."""

    train_config: Path
    model_file: Path
    vocoder_train_config: Path
    vocoder_model_file: Path
    slm_train_config: Path | None = None  # a tokenizer may be packed alone
    slm_model_file: Path | None = None
    speaker_config: Path | None = None  # absent: the default speaker encoder

    def speaker_model(self) -> str | None:
        """Return the speaker encoder of the training; None for the default.

        Raises:
            ValueError: If the record of it is broken.
        """
        if self.speaker_config is None:
            return None
        return recorded_speaker_model(self.speaker_config)

    def reconstructor(
        self, options: DecodeOptions = DecodeOptions(), device: str = "cpu"
    ) -> SpeechReconstructor:
        """Build tokenizer and vocoder."""
        return SpeechReconstructor(
            self.model_file,
            self.vocoder_model_file.parent,  # the zoo may move the config
            self.train_config,
            options,
            device,
            vocoder_file=self.vocoder_model_file.name,
        )

    def spoken_lm(self, device: str = "cpu") -> SpokenLMInference:
        """Build the spoken LM."""
        return SpokenLMInference(self.slm_model_file, self.slm_train_config, device)


def find_files(
    source: str | Path,
    cache_dir: str | Path | None = None,
    *,
    need_slm: bool = True,
) -> PackedFiles:
    """Find the parts of a model.

    Args:
        source: An experiment folder of the recipe, a packed ``.zip`` file, or a name
            of ESPnet's model zoo or the hub.
        cache_dir: Cache where a zip is unpacked, once; None for the default.
        need_slm: A model without spoken LM is refused.

    Raises:
        FileNotFoundError: If a folder lacks a part, or there is nothing by that name.
        ValueError: If the file is no such pack.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _files_of_experiment(path, need_slm)
    if path.suffix == ".zip" and "://" not in str(source):
        return _files_of_dict(_unpack(path, cache_dir), source, need_slm)
    if path.is_file():
        raise ValueError(f"{source} is a file, but no .zip; give {KINDS}")
    if not is_name(source):
        raise FileNotFoundError(f"no model at {source}; give {KINDS}")
    return _files_of_dict(download_packed(str(source), KINDS), source, need_slm)


def _files_of_experiment(path: Path, need_slm: bool) -> PackedFiles:
    places = []
    folders = ["taste", "vocoder"]
    if need_slm or trained_file(path / "slm").is_file():
        folders.append("slm")
    for folder in folders:
        for place in (path / folder / "config.yaml", trained_file(path / folder)):
            if not place.is_file():
                raise FileNotFoundError(f"no {place}; {_remedy(path)}")
            places.append(place)
    speaker = path / SPEAKER / RECORD
    return PackedFiles(*places, speaker_config=speaker if speaker.is_file() else None)


def _remedy(path: Path) -> str:
    above = path.resolve().parent
    if (above / "taste" / "config.yaml").is_file():
        return f"the experiment is the folder above it, {above}"
    return "run the recipe's training stages"


def _unpack(path: Path, cache_dir: str | Path | None) -> dict[str, str]:
    """Unpack a file once; another one under the same name is unpacked again."""
    from espnet2.main_funcs.pack_funcs import unpack

    if not path.is_file():
        raise FileNotFoundError(f"no packed model at {path}; give {KINDS}")
    status = path.stat()
    state = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    name = f"{path.stem}-{hashlib.sha256(state.encode()).hexdigest()[:16]}"
    root = cache_root(cache_dir)
    folder = root / "unpacked" / name
    with locked(root, name):
        if not (folder / DONE).is_file():
            shutil.rmtree(folder, ignore_errors=True)  # what a killed process left
        try:
            found = unpack(path, folder)
        except (RuntimeError, BadZipFile) as error:
            raise ValueError(
                f"{path} is no packed model ({first_line(error)}); pack it again with "
                "espnet_taste.bin.pack"
            ) from error
        (folder / DONE).touch()
    return found


def _files_of_dict(
    found: dict[str, str], source: str | Path, need_slm: bool
) -> PackedFiles:
    names = set(PackedFiles.__dataclass_fields__)
    needed = {name for name in names if need_slm or not name.startswith("slm_")}
    needed.discard("speaker_config")
    missing = sorted(needed - set(found))
    if missing:
        raise ValueError(f"{source} is not a packed TASTE model: it lacks {missing}")
    return PackedFiles(**{name: Path(found[name]) for name in names & set(found)})
