"""Any ESPnet recogniser, as the functions that alignment and transcripts need."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espnet_taste.types import SAMPLE_RATE_HZ


class EspnetAsr:
    """An ESPnet ASR model with a CTC layer.

    Args:
        config: Its config.yaml.
        model_file: Its .pth file.
        device: Torch device.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the model wants another rate or has no CTC layer.
    """

    def __init__(self, config: Path, model_file: Path, device: str = "cpu"):
        from espnet2.tasks.asr import ASRTask
        from espnet2.text.build_tokenizer import build_tokenizer

        for path in (config, model_file):
            if not Path(path).is_file():
                raise FileNotFoundError(f"no such file: {path}")
        self.model, args = ASRTask.build_model_from_file(config, model_file, device)
        self.model.eval()
        self.device = device
        rate = (args.frontend_conf or {}).get("fs", SAMPLE_RATE_HZ)
        if _hertz(rate) != SAMPLE_RATE_HZ:
            raise ValueError(f"{config}: the model wants {rate}, expected 16000 Hz")
        if self.model.ctc is None or getattr(self.model, "ctc_weight", 1.0) == 0.0:
            raise ValueError(f"{config}: the model was trained without CTC")
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
        """Return CTC log posteriors, (N,) float32 at 16 kHz -> (T, V) float32."""
        import torch

        speech = torch.from_numpy(audio).to(self.device)[None]
        lengths = torch.tensor([speech.shape[1]], device=self.device)
        with torch.no_grad():
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
        """Return greedy CTC transcripts of audios, each (N,) float32 at 16 kHz."""
        return [self._decode(self.log_probs(audio).argmax(axis=1)) for audio in audios]

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


def _share_known(encoded: _Encoded) -> float:
    return encoded.share


def _hertz(rate: int | str) -> int:
    """Read 16000, "16000" or "16k"."""
    text = str(rate)
    return int(float(text[:-1]) * 1000) if text.endswith("k") else int(text)


def load_espnet_asr(
    tag: str | None, config: Path | None, model_file: Path | None, device: str
) -> Any:
    """Load a recogniser by files, or by its model-zoo tag.

    Raises:
        ValueError: If neither is complete.
    """
    if tag is not None:
        from espnet2.utils.pretrained import download_pretrained

        found = download_pretrained(tag)
        config, model_file = found["asr_train_config"], found["asr_model_file"]
    if config is None or model_file is None:
        raise ValueError(
            "an ESPnet recogniser needs --asr_config and --asr_model_file, or --asr_tag"
        )
    return EspnetAsr(Path(config), Path(model_file), device)
