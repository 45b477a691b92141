"""Whisper alignment: the picture made of attention, and a tiny model end to end."""

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_whisper import WINDOW_FRAMES, WINDOW_SAMPLES, randomise, tiny_config
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

from espnet_taste.align import transcripts, whisper_dtw
from espnet_taste.align.contracts import AlignmentError
from espnet_taste.align.whisper_dtw import (
    WhisperAligner,
    alignment_heads,
    prefix_ids,
    sharpen,
)
from espnet_taste.data.data_dir import read_data_dir

START, NO_TIMES = 90, 91


class LetterTokenizer:
    """One token a character; the blank in front of a word is a token too."""

    unk_token_id, eos_token_id = None, 1
    special = {
        "<|notimestamps|>": NO_TIMES,
        "<|de|>": 92,
        "<|transcribe|>": 93,
        "<|translate|>": 94,
    }

    def encode(self, text, add_special_tokens, split_special_tokens=False):
        # A transcript cannot inject a special token.
        assert not add_special_tokens and split_special_tokens
        return [10 + ord(character) % 70 for character in text]

    def convert_tokens_to_ids(self, token):
        return self.special.get(token)

    def batch_decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return [" ".join(str(int(i)) for i in row if i < 90) + " \n" for row in ids]


@pytest.fixture
def tiny(monkeypatch):
    config = tiny_config(
        attn_implementation="eager", decoder_start_token_id=START, eos_token_id=1
    )
    whisper = randomise(WhisperForConditionalGeneration(config), seed=3).eval()
    features = WhisperFeatureExtractor(
        feature_size=80, chunk_length=WINDOW_SAMPLES // 16000, n_samples=WINDOW_SAMPLES
    )
    parts = whisper, LetterTokenizer(), features
    monkeypatch.setattr(whisper_dtw, "load_whisper", lambda model, device: parts)
    return whisper


def noise(samples, seed=0):
    draw = np.random.default_rng(seed)
    return draw.uniform(-0.5, 0.5, samples).astype(np.float32)


def test_every_word_gets_its_times(tiny):
    found = WhisperAligner("tiny").align(noise(12800), ["one", "two", "three"])

    assert found.times.shape == (3, 2) and found.times[-1, 1] <= 0.8 + 1e-6
    assert (np.diff(found.times.ravel()) >= 0).all()


def test_attention_is_that_of_the_model_with_teacher_forcing(tiny):
    aligner = WhisperAligner("tiny")
    audio = noise(6400)

    attention = aligner._attention(audio, [20, 21, 22])

    ids = torch.tensor([[START, NO_TIMES, 20, 21, 22]])
    mel = aligner.features(audio, sampling_rate=16000, return_tensors="pt")
    output = tiny(
        input_features=mel.input_features,
        decoder_input_ids=ids,
        output_attentions=True,
    )
    layer, head = aligner.heads[0]
    expected = output.cross_attentions[layer][0, head, 1:, :20].detach().numpy()
    np.testing.assert_allclose(attention[0], expected, atol=1e-6)
    assert attention.shape == (len(aligner.heads), 4, 20)
    assert len(aligner.heads) == 2


def test_what_was_aligned_before_does_not_matter(tiny):
    aligner = WhisperAligner("tiny")
    first = aligner.align(noise(9600), ["a", "b"]).times
    aligner.align(noise(16000, seed=1), ["other", "words"])

    np.testing.assert_array_equal(aligner.align(noise(9600), ["a", "b"]).times, first)


def test_words_begin_where_their_first_token_is_attended(tiny, monkeypatch):
    """Rows are those that predict a token, so word n begins with its own row."""
    aligner = WhisperAligner("tiny")
    attention = np.full((1, 6, WINDOW_FRAMES), 1e-3)
    for row, (start, end) in enumerate(
        [(0, 10), (10, 14), (14, 20), (20, 26), (26, 40), (40, 50)]
    ):
        attention[0, row, start:end] = 1
    monkeypatch.setattr(aligner, "_attention", lambda audio, tokens, states: attention)

    found = aligner.align(noise(16000), ["a", "bc"])  # tokens " a" and " bc"

    np.testing.assert_allclose(found.times, [[0, 0.28], [0.28, 0.8]], atol=0.021)


def test_limits_of_whisper_are_told(tiny):
    aligner = WhisperAligner("tiny")

    with pytest.raises(AlignmentError, match="too_long: 30.10 s"):
        aligner.align(noise(481600), ["a"])
    with pytest.raises(AlignmentError, match="too_many_words: 26 tokens, .* 22"):
        aligner.align(noise(16000), ["abcdefghijkl"] * 2)


def test_a_frame_that_every_token_attends_says_nothing():
    attention = np.full((1, 2, 40), 0.01)
    attention[0, :, 30:] = 5.0
    attention[0, 0, :15] = attention[0, 1, 15:30] = 1.0

    scores = sharpen(attention)

    assert scores[0, 5] > 0.9 and scores[1, 5] < -0.9
    assert scores[1, 22] > 0.9 and abs(scores[0, 36]) < abs(scores[0, 5])


def test_heads_are_the_models_own_or_the_upper_half():
    config = SimpleNamespace(decoder_layers=4, decoder_attention_heads=2)
    known = SimpleNamespace(alignment_heads=[[1, 0], [3, 1]])

    assert alignment_heads(SimpleNamespace(config=config, generation_config=known)) == [
        (1, 0),
        (3, 1),
    ]
    assert alignment_heads(
        SimpleNamespace(config=config, generation_config=SimpleNamespace())
    ) == [(2, 0), (2, 1), (3, 0), (3, 1)]


def test_the_prefix_of_multilingual_models_names_the_language():
    config = SimpleNamespace(decoder_start_token_id=START)
    many = SimpleNamespace(is_multilingual=True)
    whisper = SimpleNamespace(config=config, generation_config=many)
    one = SimpleNamespace(config=config, generation_config=SimpleNamespace())

    assert prefix_ids(one, LetterTokenizer(), "de") == [START, NO_TIMES]
    assert prefix_ids(whisper, LetterTokenizer(), "de") == [START, 92, 93, NO_TIMES]
    translate = prefix_ids(whisper, LetterTokenizer(), "de", "translate")
    assert translate == [START, 92, 94, NO_TIMES]
    with pytest.raises(ValueError, match="no task 'sing'"):
        prefix_ids(whisper, LetterTokenizer(), "de", "sing")
    with pytest.raises(ValueError, match="no language 'xx'"):
        prefix_ids(whisper, LetterTokenizer(), "xx")


def test_a_task_is_passed_on_to_multilingual_models(tiny):
    options = {"language": "de", "task": "translate"}
    assert "task" not in transcripts.WhisperTranscriber("tiny").options
    tiny.generation_config.is_multilingual = True

    transcriber = transcripts.WhisperTranscriber("tiny", **options)
    aligner = WhisperAligner("tiny", **options)

    assert transcriber.options.items() >= options.items()
    assert aligner.prefix == [START, 92, 94, NO_TIMES]


@pytest.mark.parametrize("options", [{"language": "de"}, {"task": "translate"}])
def test_english_only_models_refuse_what_they_would_pass_over(tiny, options):
    """Transcribing or aligning in English what is German went on without a word."""
    for user in (transcripts.WhisperTranscriber, WhisperAligner):
        with pytest.raises(ValueError, match="is English-only, for .*whisper-base"):
            user("tiny", **options)


def test_transcripts_hold_no_line_breaks_and_come_one_an_audio(tiny):
    transcriber = transcripts.WhisperTranscriber("tiny")
    tiny.generation_config.max_new_tokens = 5
    audios = [noise(4000), noise(16000, seed=1), noise(8000, seed=2)]

    texts = transcriber.transcribe(audios)

    assert len(texts) == 3 and not any("\n" in text for text in texts)
    alone = [transcriber.transcribe([audio])[0] for audio in audios]
    assert alone == texts


def test_transformers_does_not_complain_of_its_own_calls(tiny):
    logger = logging.getLogger("transformers.generation.utils")
    logger.warning_once.cache_clear()  # each is said once a process
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger.addHandler(handler)
    try:
        audios = [noise(4000), noise(16000, seed=1)]
        transcripts.WhisperTranscriber("tiny").transcribe(audios)
        logger.warning("of something else")
    finally:
        logger.removeHandler(handler)

    assert [record.getMessage() for record in records] == ["of something else"]


SPEECH = Path(__file__).parents[3] / "shared" / "data" / "librispeech_excerpts" / "test"


@pytest.mark.weights
@pytest.mark.skipif(not SPEECH.is_dir(), reason=f"no speech in {SPEECH}")
def test_whisper_and_pocketsphinx_agree_on_real_speech():
    """They agreed within 0.13 s (median of 506 words) when this was written."""
    pocketsphinx = pytest.importorskip("espnet_taste.align.pocketsphinx")
    data = read_data_dir(SPEECH)
    whisper, sphinx = WhisperAligner(), pocketsphinx.PocketSphinxAligner()
    differences = []
    for key in data.utterances[:4]:
        audio, words = data.read(key), data.text[key].split()
        starts = whisper.align(audio, words).times[:, 0]
        differences.extend(starts - sphinx.align(audio, words).times[:, 0])
    assert np.median(np.abs(differences)) < 0.2

    text = transcripts.WhisperTranscriber().transcribe([data.read(data.utterances[2])])
    assert "thought me so silly" in text[0]
