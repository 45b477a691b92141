"""Log-mel and word tokenisation equal what the reference feeds its tower."""

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from espnet_taste.tokenizer.log_mel import HOP_SAMPLES, log_mel, mel_filters
from espnet_taste.units.campplus import kaldi_fbank, speaker_features
from espnet_taste.weights import resolve
from espnet_taste.words import encode_words, split_words


@pytest.fixture(scope="module")
def case(golden):
    return golden("frontend")


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


def test_log_mel_of_the_padded_window(case):
    waveform = case.input("waveform_int16").float() / 32768
    config = case.config
    num_samples = config["pad_seconds"] * config["sampling_rate"]
    padded = F.pad(waveform, (0, num_samples - len(waveform)))[None]

    mel = log_mel(padded, mel_filters(config["mel_bins"]))[0]

    first = len(case.output("log_mel_first400"))
    assert len(mel) == config["frames"]
    case.check("log_mel_first400", mel[:first])
    case.check("log_mel_mean_per_bin", mel.mean(0))
    for kind in ("mean", "min", "max"):
        case.check(f"log_mel_rest_{kind}", getattr(mel[first:], kind)())


def test_log_mel_without_padding(case):
    waveform = case.input("waveform_int16").float()[None] / 32768

    mel = log_mel(waveform, mel_filters(case.config["mel_bins"]))[0]

    first = len(case.output("log_mel_unpadded_first50"))
    assert len(mel) == len(waveform[0]) // HOP_SAMPLES
    case.check("log_mel_unpadded_first50", mel[:first])
    case.check("log_mel_unpadded_mean_per_bin", mel.mean(0))
    case.check("log_mel_unpadded_frames", torch.tensor(len(mel)))


def test_words_of_the_released_rule(case):
    for sentence in case.info["tokenizer"]["sentences"]:
        words = split_words(sentence["text"], keep_empty=True)
        assert [" " + word for word in words] == sentence["words"]


@pytest.mark.weights
def test_whisper_tokens(case, multilingual_tokenizer):
    for sentence in case.info["tokenizer"]["sentences"]:
        words = split_words(sentence["text"], keep_empty=True)
        result = encode_words(words, multilingual_tokenizer)
        assert result.tokens == sentence["token_ids"], sentence["text"]
        assert result.words == sentence["word_ids"], sentence["text"]


def test_filter_bank_of_the_speaker_encoder(case):
    waveform = case.input("waveform_int16").float() / 32768
    # One second; the mean is that of this excerpt.
    excerpt = waveform[: case.config["sampling_rate"]]

    case.check("speaker_fbank_first_second", kaldi_fbank(excerpt))
    first = len(case.output("speaker_fbank_mean_subtracted_first20"))
    features = speaker_features(excerpt)
    case.check("speaker_fbank_mean_subtracted_first20", features[:first])
