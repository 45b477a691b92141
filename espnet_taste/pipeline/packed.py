"""Open what the recipe packed, or an experiment folder."""

from dataclasses import dataclass
from pathlib import Path

from espnet_taste.pipeline.slm import SpokenLMInference
from espnet_taste.pipeline.speech import DecodeOptions, SpeechReconstructor
from espnet_taste.weights.digests import trained_file


@dataclass(frozen=True)
class PackedFiles:
    """Where the parts of a packed model lie."""

    train_config: Path
    model_file: Path
    vocoder_train_config: Path
    vocoder_model_file: Path
    slm_train_config: Path | None = None  # a tokenizer may be packed alone
    slm_model_file: Path | None = None

    def reconstructor(
        self, options: DecodeOptions = DecodeOptions(), device: str = "cpu"
    ) -> SpeechReconstructor:
        """Build tokenizer and vocoder."""
        return SpeechReconstructor(
            self.model_file,
            self.vocoder_train_config.parent,
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
        source: An experiment folder of the recipe, a packed ``.zip`` file, or a tag of
            ESPnet's model zoo or the hub.
        cache_dir: Where a zip is unpacked; None for a folder beside it.
        need_slm: A model without spoken LM is refused.

    Raises:
        FileNotFoundError: If a folder lacks a part.
        ValueError: If the pack does not hold such a model.
    """
    path = Path(source)
    if path.is_dir():
        return _files_of_experiment(path, need_slm)
    if path.suffix == ".zip":
        return _files_of_dict(_unpack(path, cache_dir), source, need_slm)
    from espnet2.utils.pretrained import download_pretrained

    return _files_of_dict(download_pretrained(str(source)), source, need_slm)


def _files_of_experiment(path: Path, need_slm: bool) -> PackedFiles:
    places = []
    folders = ["taste", "vocoder"]
    if need_slm or trained_file(path / "slm").is_file():
        folders.append("slm")
    for folder in folders:
        for place in (path / folder / "config.yaml", trained_file(path / folder)):
            if not place.is_file():
                raise FileNotFoundError(f"no {place}; run the recipe's training stages")
            places.append(place)
    return PackedFiles(*places)


def _unpack(path: Path, cache_dir: str | Path | None) -> dict[str, str]:
    from espnet2.main_funcs.pack_funcs import unpack

    if not path.is_file():
        raise FileNotFoundError(f"no packed model at {path}")
    folder = path.with_suffix("") if cache_dir is None else Path(cache_dir)
    return unpack(path, folder)


def _files_of_dict(
    found: dict[str, str], source: str | Path, need_slm: bool
) -> PackedFiles:
    names = set(PackedFiles.__dataclass_fields__)
    needed = {name for name in names if need_slm or not name.startswith("slm_")}
    missing = sorted(needed - set(found))
    if missing:
        raise ValueError(f"{source} is not a packed TASTE model: it lacks {missing}")
    return PackedFiles(**{name: Path(found[name]) for name in names & set(found)})
