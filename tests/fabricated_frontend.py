"""The front end's case of a fabricated pack; see ``fabricated_pack``."""

from pathlib import Path

import torch
import torch.nn.functional as F
from fabricated_pack import Writer

from espnet_taste.convert.architecture import DISTIL_LARGE_V3, PREFIX_IDS
from espnet_taste.decoder.mel import resample
from espnet_taste.tokenizer.log_mel import FFT_SIZE, HOP_SAMPLES, log_mel, mel_filters
from espnet_taste.types import SAMPLE_RATE_HZ
from espnet_taste.units.campplus import kaldi_fbank, speaker_features

CONFIG = {
    "sampling_rate": SAMPLE_RATE_HZ,
    "n_fft": FFT_SIZE,
    "hop": HOP_SAMPLES,
    "mel_bins": 12,
    "pad_seconds": 2,
    "frames": 200,
}
FIRST, FIRST_UNPADDED, FIRST_SPEAKER = 37, 11, 9
SPEAKER_SAMPLES = 7001
# Words of one token; the vocabulary is the released one, whatever the pack.
TOKENS = {"I": 286, "love": 959, "the": 264, "movie": 3169, "in": 294, "no": 572}


def write_frontend(folder: Path, seed: int) -> None:
    """Log-mel, resampling, filter bank of the speaker encoder, words."""
    case = Writer("frontend", CONFIG, seed)
    samples = (9000 * case.randn(9123)).clamp(-32768, 32767).to(torch.int16)
    waveform = case.input("waveform_int16", samples).float() / 32768
    write_log_mel(case, waveform)
    for rate in (48000, 22050):
        samples = (9000 * case.randn(3001)).clamp(-32768, 32767).to(torch.int16)
        case.input(f"resample_{rate}.input_int16", samples)
        speech = resample(samples.float() / 32768, rate, SAMPLE_RATE_HZ)
        case.output(f"resample_{rate}.output", speech)
    speech = waveform[:SPEAKER_SAMPLES]
    case.output("speaker_fbank_first_samples", kaldi_fbank(speech), 1e-4)
    case.output(
        f"speaker_fbank_mean_subtracted_first{FIRST_SPEAKER}",
        speaker_features(speech)[:FIRST_SPEAKER],
        1e-4,
    )
    case.info["tokenizer"] = {
        "prefix_ids": list(PREFIX_IDS),
        "eot_id": DISTIL_LARGE_V3["eos_token_id"],
        "vocabulary_size": DISTIL_LARGE_V3["vocab_size"],
        "sentences": [sentence(case, length) for length in (1, 4, 9)],
    }
    case.save(folder)


def write_log_mel(case: Writer, waveform: torch.Tensor) -> None:
    """Note the spectrogram with and without padding."""
    filters = mel_filters(CONFIG["mel_bins"])
    window = CONFIG["pad_seconds"] * CONFIG["sampling_rate"]
    mel = log_mel(F.pad(waveform, (0, window - len(waveform)))[None], filters)[0]
    case.output(f"log_mel_first{FIRST}", mel[:FIRST])
    for kind in ("mean", "min", "max"):
        case.output(f"log_mel_rest_{kind}", getattr(mel[FIRST:], kind)())
    case.output("log_mel_mean_per_bin", mel.mean(0))
    mel = log_mel(waveform[None], filters)[0]
    case.output(f"log_mel_unpadded_first{FIRST_UNPADDED}", mel[:FIRST_UNPADDED])
    case.output("log_mel_unpadded_mean_per_bin", mel.mean(0))
    case.output("log_mel_unpadded_frames", torch.tensor(len(mel)))
    case.output("n_frames_informational", torch.tensor(len(waveform) // HOP_SAMPLES))


def sentence(case: Writer, length: int) -> dict:
    """Return some words with their tokens."""
    chosen = case.randint(0, len(TOKENS), length).tolist()
    words = [list(TOKENS)[number] for number in chosen]
    return {
        "text": " ".join(words),
        "words": [f" {word}" for word in words],
        "token_ids": [TOKENS[word] for word in words],
        "word_ids": list(range(length)),
    }
