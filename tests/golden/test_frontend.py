"""Log-mel and word tokenisation equal what the reference feeds its tower."""

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from espnet_taste.convert.architecture import DISTIL_LARGE_V3, PREFIX_IDS
from espnet_taste.decoder.mel import resample
from espnet_taste.tokenizer.log_mel import FFT_SIZE, HOP_SAMPLES, log_mel, mel_filters
from espnet_taste.types import SAMPLE_RATE_HZ
from espnet_taste.units.campplus import WINDOW, kaldi_fbank, speaker_features
from espnet_taste.weights import resolve
from espnet_taste.words import encode_words, split_words

SHIFT = SAMPLE_RATE_HZ // 100  # Kaldi's: 10 ms


@pytest.fixture(scope="module")
def case(golden):
    """The case, of whose settings these are no choice of ours."""
    found = golden("frontend")
    config = found.config
    assert (config["n_fft"], config["hop"]) == (FFT_SIZE, HOP_SAMPLES)
    assert config["sampling_rate"] == SAMPLE_RATE_HZ
    return found


@pytest.fixture(scope="module")
def multilingual_tokenizer():
    """The multilingual vocabulary, which is the same in all Whisper sizes."""
    name = "Systran/faster-whisper-base"
    try:
        folder = resolve(name, offline=True)
    except FileNotFoundError as error:
        pytest.skip(f"needs the vocabulary of {name}: {error}")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def waveform_of(case, name="waveform_int16"):
    samples = case.input(name)
    return samples.float() / -torch.iinfo(samples.dtype).min


def excerpt(case, prefix):
    """Return the name of the result with the first frames, and their number."""
    names = case.output_names(f"{prefix}_first")
    for name in names:
        return name, int(name.removeprefix(f"{prefix}_first"))
    pytest.skip(f"case '{case.name}' has no {prefix}_first<number>")


def padded_log_mel(case):
    config, waveform = case.config, waveform_of(case)
    num_samples = config["pad_seconds"] * config["sampling_rate"]
    padded = F.pad(waveform, (0, num_samples - len(waveform)))[None]
    return log_mel(padded, mel_filters(config["mel_bins"]))[0]


def unpadded_log_mel(case):
    filters = mel_filters(case.config["mel_bins"])
    return log_mel(waveform_of(case)[None], filters)[0]


def test_log_mel_of_the_padded_window(case):
    mel = padded_log_mel(case)

    assert len(mel) == case.config["frames"]
    case.check("log_mel_mean_per_bin", mel.mean(0))


def test_frames_of_the_padded_window(case):
    mel = padded_log_mel(case)

    name, first = excerpt(case, "log_mel")
    case.check(name, mel[:first])
    for kind in ("mean", "min", "max"):
        case.check(f"log_mel_rest_{kind}", getattr(mel[first:], kind)())


def test_log_mel_without_padding(case):
    mel = unpadded_log_mel(case)

    case.check("log_mel_unpadded_mean_per_bin", mel.mean(0))
    case.check("log_mel_unpadded_frames", torch.tensor(len(mel)))
    num_frames = case.input("waveform_int16").numel() // HOP_SAMPLES
    case.check("n_frames_informational", torch.tensor(num_frames))


def test_frames_without_padding(case):
    name, first = excerpt(case, "log_mel_unpadded")
    case.check(name, unpadded_log_mel(case)[:first])


def test_resampling(case):
    """Windowed sinc, as training and evaluation use it on waveforms in memory.

    Audio files are read by soxr, whose filter is another one.
    """
    names = case.sub_cases("output")
    assert names
    for name in names:
        speech = waveform_of(case, f"{name}.input_int16")
        rate = int(name.removeprefix("resample_"))
        result = resample(speech, rate, case.config["sampling_rate"])
        case.check(f"{name}.output", result)


def test_words_of_the_released_rule(case):
    for sentence in case.info["tokenizer"]["sentences"]:
        words = split_words(sentence["text"], keep_empty=True)
        assert [" " + word for word in words] == sentence["words"]


def test_special_tokens_are_those_that_converted_models_get(case):
    """The released config does not name them, so that the converter has to."""
    tokenizer = case.info["tokenizer"]

    assert list(PREFIX_IDS) == tokenizer["prefix_ids"]
    assert DISTIL_LARGE_V3["vocab_size"] == tokenizer["vocabulary_size"]
    assert DISTIL_LARGE_V3["eos_token_id"] == tokenizer["eot_id"]
    for sentence in tokenizer["sentences"]:
        assert max(sentence["token_ids"]) < tokenizer["eot_id"]  # no special token


@pytest.mark.weights
def test_whisper_tokens(case, multilingual_tokenizer):
    for sentence in case.info["tokenizer"]["sentences"]:
        words = split_words(sentence["text"], keep_empty=True)
        result = encode_words(words, multilingual_tokenizer)
        assert result.tokens == sentence["token_ids"], sentence["text"]
        assert result.words == sentence["word_ids"], sentence["text"]


def test_filter_bank_of_the_speaker_encoder(case):
    """Of the samples that the frames of the first result cover, and their mean."""
    (whole,) = case.output_names("speaker_fbank_first")
    part, first = excerpt(case, "speaker_fbank_mean_subtracted")
    num_samples = (len(case.output(whole)) - 1) * SHIFT + WINDOW
    speech = waveform_of(case)[:num_samples]

    case.check(whole, kaldi_fbank(speech))
    case.check(part, speaker_features(speech)[:first])
