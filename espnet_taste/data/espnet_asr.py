"""Any ESPnet recogniser, as the functions that alignment and transcripts need."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espnet_taste.data.audio import AudioError
from espnet_taste.data.model_zoo import download_packed
from espnet_taste.types import SAMPLE_RATE_HZ
from espnet_taste.weights.hub import first_line

logger = logging.getLogger(__name__)

ROLES = ("asr_train_config", "asr_model_file")  # in a pack
BEAM_SIZE = 10  # half of ESPnet's default
CTC_WEIGHT = 0.3  # in the beam search of a model that has CTC, as in ESPnet's recipes


class EspnetAsr:
    """An ESPnet ASR model: attention, transducer or CTC.

    A model without a CTC layer can transcribe, but not align.

    Args:
        config: Its config.yaml.
        model_file: Its .pth file.
        device: Torch device.
        beam_size: Transcribe by ESPnet's beam search, this wide; None decodes CTC
            greedily, which is faster, where the model has it.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If ``beam_size`` is below 1, the model needs a package that is not
            installed, or its files do not fit together.
    """

    def __init__(
        self,
        config: Path,
        model_file: Path,
        device: str = "cpu",
        *,
        beam_size: int | None = None,
    ):
        from espnet2.text.build_tokenizer import build_tokenizer

        if beam_size is not None and beam_size < 1:
            raise ValueError(f"the beam must be at least 1 wide, got {beam_size}")
        for path in (config, model_file):
            if not Path(path).is_file():
                raise FileNotFoundError(f"no such file: {path}")
        self.model, args = _open_model(config, model_file, device)
        self.model.eval()
        self.device, self.config = device, config
        rate = (args.frontend_conf or {}).get("fs", SAMPLE_RATE_HZ)
        self.rate_hz = _hertz(rate)
        weight = getattr(self.model, "ctc_weight", 1.0)
        self.has_ctc = self.model.ctc is not None and weight > 0.0
        self.search = None
        if beam_size is not None or not self.has_ctc:
            weight = CTC_WEIGHT if self.has_ctc else 0.0
            self.search = _open_search(
                config, model_file, device, beam_size or BEAM_SIZE, weight
            )
            self.model = self.search.asr_model
        self.blank = self.model.blank_id
        self.tokens: list[str] = list(self.model.token_list)
        self.ids = {token: index for index, token in enumerate(self.tokens)}
        self.separator = self.ids.get("<space>")
        self.tokenizer = build_tokenizer(
            token_type=args.token_type,
            bpemodel=args.bpemodel,
            non_linguistic_symbols=args.non_linguistic_symbols,
            g2p_type=args.g2p,
        )

    def log_probs(self, audio: np.ndarray) -> np.ndarray:
        """Return CTC log posteriors, (N,) float32 at 16 kHz -> (T, V) float32.

        Raises:
            AudioError: With reason too_short, of audio that its encoder cannot take.
            ValueError: If the model has no CTC layer.
        """
        import torch

        if not self.has_ctc:
            raise ValueError(
                f"{self.config}: the model was trained without CTC, which alignment "
                "needs; give another model, or another aligner"
            )
        speech = torch.from_numpy(self._resample(audio)).to(self.device)[None]
        lengths = torch.tensor([speech.shape[1]], device=self.device)
        with torch.no_grad(), _counting_too_short():
            encoded = self.model.encode(speech, lengths)[0]
            # Models with intermediate CTC return them beside the last layer's output.
            last = encoded[0] if isinstance(encoded, tuple) else encoded
            return self.model.ctc.log_softmax(last)[0].float().cpu().numpy()

    def encode_word(self, word: str) -> list[int]:
        """Return the known tokens of a word, in the case that the model knows best.

        Models differ in case and most of them know no punctuation; what stays unknown
        is left out, which is harmless for alignment as long as something is left.
        """
        forms = dict.fromkeys((word, word.upper(), word.lower()))
        return max((self._known(form) for form in forms), key=_share_known).ids

    def _known(self, word: str) -> "_Encoded":
        pieces = [p for p in self.tokenizer.text2tokens(word) if p != "<space>"]
        known = [self.ids[p] for p in pieces if p in self.ids and p != "<unk>"]
        return _Encoded(known, len(known) / max(1, len(pieces)))

    def transcribe(self, audios: Sequence[np.ndarray]) -> list[str]:
        """Return the transcripts of audios, each (N,) float32 at 16 kHz.

        Of audio that is too short for the encoder it is empty.
        """
        hear = self._greedy if self.search is None else self._search
        texts = []
        for audio in audios:
            try:
                texts.append(hear(audio))
            except AudioError:
                texts.append("")
        return texts

    def _greedy(self, audio: np.ndarray) -> str:
        """Return the best token of every frame, as text."""
        return self._decode(self.log_probs(audio).argmax(axis=1))

    def _search(self, audio: np.ndarray) -> str:
        """Return the best of a beam; nothing if the search finds nothing."""
        with _counting_too_short():
            found = self.search(self._resample(audio))
        text = found[0][0] if found else None
        return " ".join((text or "").split())

    def _resample(self, audio: np.ndarray) -> np.ndarray:
        """Bring audio from 16 kHz to the rate of the model."""
        if self.rate_hz == SAMPLE_RATE_HZ:
            return audio
        import soxr

        return soxr.resample(audio, SAMPLE_RATE_HZ, self.rate_hz, quality="HQ")

    def _decode(self, best: np.ndarray) -> str:
        """Turn the best token of every frame into text."""
        changed = np.concatenate([[True], best[1:] != best[:-1]])
        ids = best[changed & (best != self.blank)]
        pieces = [self.tokens[index] for index in ids]
        text = self.tokenizer.tokens2text([p for p in pieces if p != "<unk>"])
        return " ".join(text.split())


@dataclass(frozen=True)
class _Encoded:
    """Ids of one spelling of a word and the share of it that they cover."""

    ids: list[int]
    share: float  # of the pieces, 0..1


@contextmanager
def _counting_too_short() -> Iterator[None]:
    """Make a reason to leave audio out of ESPnet's own error of too few frames."""
    from espnet2.legacy.nets.pytorch_backend.transformer import subsampling

    try:
        yield
    except subsampling.TooShortUttError as error:
        raise AudioError("too_short", str(error)) from error


def _share_known(encoded: _Encoded) -> float:
    return encoded.share


def _hertz(rate: int | str) -> int:
    """Read 16000, "16000" or "16k"."""
    text = str(rate)
    return int(float(text[:-1]) * 1000) if text.endswith("k") else int(text)


def _open_model(config: Path, model_file: Path, device: str) -> tuple[Any, Any]:
    """Let ESPnet build and load a model, and say in one line why it cannot."""
    from espnet2.tasks.asr import ASRTask

    try:
        return ASRTask.build_model_from_file(config, model_file, device)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{config}: the model needs the package {error.name}, which is not "
            "installed; what pip does not know, ESPnet's tools/installers do"
        ) from error
    except RuntimeError as error:
        raise ValueError(
            f"{model_file} does not fit {config}: {first_line(error)}"
        ) from error


def _open_search(
    config: Path, model_file: Path, device: str, beam_size: int, ctc_weight: float
) -> Any:
    """Open ESPnet's beam search, which loads the model again."""
    from espnet2.bin.asr_inference import Speech2Text

    logger.info(f"{config}: transcripts come from a beam of {beam_size}")
    return Speech2Text(
        config, model_file, device=device, beam_size=beam_size, ctc_weight=ctc_weight
    )


def load_espnet_asr(
    tag: str | None,
    config: Path | None,
    model_file: Path | None,
    device: str,
    **options: Any,
) -> EspnetAsr:
    """Load a recogniser by files, or by its model-zoo tag.

    Args:
        tag: Model-zoo tag, or None.
        config: Its config.yaml, if there is no tag.
        model_file: Its .pth file, likewise.
        device: Torch device.
        **options: Further ones of ``EspnetAsr``.

    Raises:
        FileNotFoundError: If a file is absent, or there is no model of that tag.
        ValueError: If neither is complete, or the tag is of another kind of model.
    """
    if tag is not None:
        found = download_packed(tag, "--asr_config and --asr_model_file instead")
        if missing := [role for role in ROLES if role not in found]:
            raise ValueError(
                f"--asr_tag {tag} is no recogniser: it has {sorted(found)}, and not "
                f"{missing}; give the tag of an ASR model"
            )
        config, model_file = (found[role] for role in ROLES)
    if config is None or model_file is None:
        raise ValueError(
            "an ESPnet recogniser needs --asr_config and --asr_model_file, or --asr_tag"
        )
    return EspnetAsr(Path(config), Path(model_file), device, **options)
