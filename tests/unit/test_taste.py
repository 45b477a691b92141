"""The tokenizer object: lists, batches, transcripts, refusals, streams."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_taste import CODEBOOK_SIZE, no_quantizer, noise, tiny_tokenizer
from tiny_whisper import (
    PREFIX_IDS,
    WINDOW_SAMPLES,
    randomise,
    tiny_config,
    tiny_decoder,
)
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

from espnet_taste.align.transcripts import WhisperTranscriber
from espnet_taste.align.whisper_dtw import WhisperAligner
from espnet_taste.data.audio import AudioError
from espnet_taste.pipeline import encoding, listening
from espnet_taste.pipeline.listening import (
    AudioListener,
    StateListener,
    has_weights_of,
)
from espnet_taste.pipeline.tokens import TasteTokens
from espnet_taste.tokenizer.aggregator import WhisperAggregator

WAVES = [noise(12000, 1), noise(5000, 2), noise(16000, 3)]
TEXTS = ["one two three", "four", "five six"]


class LetterText:
    """A Whisper tokenizer of letters."""

    def encode(self, text, add_special_tokens=False, split_special_tokens=False):
        return [10 + ord(letter) % 60 for letter in text.strip()]

    def batch_decode(self, ids, skip_special_tokens=True):
        return [" ".join(f"t{int(i) % 9}" for i in row[-3:]) for row in ids]

    def convert_tokens_to_ids(self, name):
        return 91


@pytest.fixture
def whisper():
    config = tiny_config(
        attn_implementation="eager", decoder_start_token_id=90, eos_token_id=1
    )
    model = randomise(WhisperForConditionalGeneration(config), seed=3).eval()
    model.generation_config.max_length = 8
    return model


@pytest.fixture
def with_listener(whisper):
    def give(tokenizer):
        listener = StateListener.__new__(StateListener)
        features = WhisperFeatureExtractor(
            feature_size=80, chunk_length=1, n_samples=WINDOW_SAMPLES
        )
        parts = whisper, LetterText(), features, "en"
        listener.transcriber = WhisperTranscriber.from_loaded(*parts)
        listener.aligner = WhisperAligner.from_loaded(*parts)
        tokenizer.encoder.listener = listener
        return tokenizer

    return give


@pytest.mark.parametrize("window", ["full", "trimmed"])
def test_a_batch_is_its_recordings_alone(window):
    tokenizer = tiny_tokenizer(window)

    together = tokenizer.encode(WAVES, TEXTS, word_times=False)

    for wave, text, tokens in zip(WAVES, TEXTS, together, strict=True):
        alone = tokenizer.encode(wave, text, word_times=False)
        assert np.array_equal(alone.codes, tokens.codes)
        np.testing.assert_allclose(alone.embeds, tokens.embeds, atol=1e-5)
        assert alone.text == tokens.text == text
        assert tokens.codes.shape == (len(text.split()), 2)


def test_embeddings_are_those_of_the_codes():
    tokenizer = tiny_tokenizer()
    tokens = tokenizer.encode(WAVES[0], TEXTS[0], word_times=False)

    np.testing.assert_allclose(tokenizer.embed(tokens.codes), tokens.embeds, atol=1e-6)
    bare = replace(tokens, embeds=None)
    assert np.array_equal(tokenizer.decode(bare).audio, tokenizer.decode(tokens).audio)


def test_codes_that_were_changed_are_what_is_decoded(monkeypatch):
    """Beside them lie the embeddings of before."""
    tokenizer = tiny_tokenizer()
    tokens = tokenizer.encode(WAVES[0], TEXTS[0], word_times=False)
    changed = replace(tokens, codes=(tokens.codes + 1) % CODEBOOK_SIZE)
    real, read = tokenizer.inference.generate_from_embeds, []

    def spy(batch, embeds, *rest):
        read.append(embeds[0].numpy())
        return real(batch, embeds, *rest)

    monkeypatch.setattr(tokenizer.inference, "generate_from_embeds", spy)
    tokenizer.decode(changed)

    wanted = tokenizer.embed(changed.codes)[changed.asr_words]
    np.testing.assert_allclose(read[0], wanted, atol=1e-6)
    assert abs(wanted - tokens.embeds[tokens.asr_words]).max() > 0.01


def test_decoding_does_not_depend_on_the_batch_or_its_place():
    tokenizer = tiny_tokenizer()
    tokens = tokenizer.encode(WAVES, TEXTS, word_times=False)

    together = tokenizer.decode(tokens[::-1])[::-1]

    for row, speech in zip(tokens, together, strict=True):
        assert np.array_equal(tokenizer.decode(row).audio, speech.audio)
        assert len(speech.audio) and speech.sample_rate_hz == 1000
    other = tokenizer.decode(tokens[0], seed=7).audio
    assert not np.array_equal(other, together[0].audio)


def test_a_tokenizer_without_quantizer_has_vectors_but_no_codes():
    tokenizer = tiny_tokenizer(quantizer=no_quantizer())

    tokens = tokenizer.encode(WAVES[0], TEXTS[0], word_times=False)

    assert tokens.codes is None and tokens.embeds.any()
    assert len(tokenizer.decode(tokens).audio)


@pytest.mark.parametrize("window", ["full", "trimmed"])
def test_transcript_and_times_come_from_the_one_encoder_pass(
    window, with_listener, whisper, monkeypatch
):
    """Counted at the encoders' first layers, ours and that of the whole Whisper."""
    tokenizer = with_listener(tiny_tokenizer(window))
    assert tokenizer.encoder.listener.silence.shape == (50, 16)  # once a process
    passes = {"tokenizer": 0, "whisper": 0}
    layers = {
        "tokenizer": tokenizer.model.encoder.encoder.layers[0],
        "whisper": whisper.get_encoder().layers[0],
    }
    for name, layer in layers.items():
        layer.register_forward_hook(
            lambda *_, name=name: passes.__setitem__(name, passes[name] + 1)
        )

    tokens = tokenizer.encode(WAVES)

    assert passes == {"tokenizer": 1, "whisper": 0}
    for row, wave in zip(tokens, WAVES, strict=True):
        assert len(row) > 0 and row.times.shape == (len(row), 2)
        assert row.times[-1, 1] <= len(wave) / 16000 + 1e-6
    alone = tokenizer.encode(WAVES[1])
    assert alone.text == tokens[1].text
    np.testing.assert_allclose(alone.times, tokens[1].times)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_same_whisper_shares_the_encoder_pass(whisper, dtype):
    encoder = tiny_tokenizer().model.encoder
    whisper.get_encoder().to(dtype)
    # What a checkpoint in half precision gives to both of them.
    encoder.encoder.load_state_dict(whisper.get_encoder().state_dict())
    assert has_weights_of(encoder, whisper)

    encoder.encoder.layers[1].fc1.weight[0, 0] += 1e-3
    assert not has_weights_of(encoder, whisper)
    assert not has_weights_of(torch.nn.Identity(), whisper)


def test_another_whisper_hears_the_recording_itself(with_listener, monkeypatch):
    tokenizer = with_listener(tiny_tokenizer())
    listener = tokenizer.encoder.listener
    expected = listener.transcriber.transcribe(WAVES), [
        listener.aligner.align(wave, text.split()).times
        for wave, text in zip(WAVES, TEXTS, strict=True)
    ]
    loaded = listener.aligner.whisper, LetterText(), listener.aligner.features
    monkeypatch.setattr(listening, "load_whisper", lambda model, device: loaded)
    del tokenizer.encoder.listener
    assert isinstance(tokenizer.encoder.listener, AudioListener)

    written = tokenizer.encode(WAVES)
    timed = tokenizer.encode(WAVES, TEXTS)

    assert [row.text for row in written] == expected[0]
    for row, times in zip(timed, expected[1], strict=True):
        np.testing.assert_array_equal(row.times, times)


def test_any_recogniser_may_write_the_transcripts():
    class Recogniser:
        def transcribe(self, audios):
            return [f"heard {len(audio)}" for audio in audios]

    tokenizer = tiny_tokenizer(transcriber=Recogniser())
    tokens = tokenizer.encode(WAVES, [None, "given", None], word_times=False)

    assert [row.text for row in tokens] == ["heard 12000", "given", "heard 16000"]


def test_times_that_cannot_be_had_are_none_and_reported(with_listener, caplog):
    tokenizer = with_listener(tiny_tokenizer())

    tokens = tokenizer.encode(WAVES[1], "a b c d e f g h i j k l m n o p")

    assert tokens.times is None and len(tokens) == 16  # 0.31 s hold 15
    assert "no word times for 'a b c d" in caplog.text


def test_trimmed_audio_is_followed_by_silence(with_listener, whisper):
    """Without it Whisper repeats itself up to its limit."""
    listener = with_listener(tiny_tokenizer("trimmed")).encoder.listener
    keys = torch.randn(2, 20, 16)
    mask = torch.arange(20) < torch.tensor([[20], [7]])

    filled = listener._fill(keys, mask)

    assert filled.shape == (2, 50, 16)
    assert torch.equal(filled[1, :7], keys[1, :7])
    assert torch.equal(filled[1, 7:], listener.silence[7:])
    whole = torch.randn(1, 50, 16)
    assert listener._fill(whole, torch.ones(1, 50, dtype=torch.bool)) is whole


def test_texts_may_be_given_for_some(with_listener):
    """Reference defect C8: a transcript that is passed is thrown away."""
    tokenizer = with_listener(tiny_tokenizer())

    tokens = tokenizer.encode(WAVES[:2], [None, "four"])

    assert tokens[1].text == "four" and tokens[0].text.startswith("t")


def test_a_long_recording_keeps_every_word_once(monkeypatch):
    """Three windows of the true size; only what is heard is made up."""
    tokenizer = tiny_tokenizer()
    seen = []

    def states(waves):
        seen.extend(len(wave) / 16000 for wave in waves)
        return tokenizer_states([wave[:16000] for wave in waves])

    tokenizer_states = tokenizer.encoder._states
    monkeypatch.setattr(tokenizer.encoder, "_states", states)
    quantize = tokenizer.encoder._quantize

    def numbered(states, words, names):
        """Give words codes that say which they are."""
        embeds, _ = quantize(states, words, names)
        return embeds, [np.array([[heard.index(w)] * 2 for w in row]) for row in words]

    monkeypatch.setattr(tokenizer.encoder, "_quantize", numbered)
    edges = np.linspace(0, 70, 36)
    times = np.stack([edges[:-1], edges[1:]], axis=1).astype(np.float32)
    heard = [chr(97 + i % 26) + "b" * (i // 26) for i in range(35)]
    monkeypatch.setattr(encoding, "hear_long", lambda wave, hear: (heard, times))

    tokens = tokenizer.encode(
        [noise(70 * 16000), WAVES[1]], [None, "x"], word_times=False
    )

    assert tokens[0].words == tuple(heard)
    # Every window has context, whose codes are another window's.
    assert tokens[0].codes[:, 0].tolist() == list(range(35))
    assert tokens[0].span_s == (0.0, 70.0) and tokens[1].text == "x"
    assert max(seen) <= 30 + 1e-6 and len(seen) >= 4


def test_one_word_and_two_hundred_are_one_batch():
    tokenizer = tiny_tokenizer()
    decoder = tiny_decoder(max_target_positions=256)
    aggregator = WhisperAggregator.from_module(decoder, PREFIX_IDS, False)
    tokenizer.model.aggregator = aggregator
    texts = ["a", " ".join("abcdefgh" * 25)]

    together = tokenizer.encode(WAVES[:2], texts, word_times=False)
    spoken = tokenizer.decode(together)

    assert [row.codes.shape for row in together] == [(1, 2), (200, 2)]
    for wave, text, tokens, speech in zip(WAVES, texts, together, spoken):
        alone = tokenizer.encode(wave, text, word_times=False)
        assert np.array_equal(alone.codes, tokens.codes)
        np.testing.assert_allclose(alone.embeds, tokens.embeds, atol=1e-5)
        assert np.array_equal(tokenizer.decode(alone).audio, speech.audio)


def test_nothing_in_nothing_out():
    tokenizer = tiny_tokenizer()

    assert tokenizer.encode([]) == [] and tokenizer.decode([]) == []


@pytest.mark.parametrize(
    ("audio", "text", "error", "words"),
    [
        (WAVES, ["a"], ValueError, "3 recordings, but 1 texts"),
        (WAVES[0], "  ", ValueError, "the recording: the transcript has no word"),
        (WAVES[:2], ["a", " "], ValueError, "^recording 1: the transcript has no w"),
        (WAVES[:2], ["a", "b" * 30], ValueError, "^recording 1: .* 30 tokens"),
        (WAVES[:2], "no", TypeError, "texts of 2 recordings are a str; give a list"),
        (WAVES[0], ["a"], TypeError, "text of one recording is a list"),
        (WAVES[:2], ["a", 3], TypeError, "^recording 1: its text is a int"),
        ([WAVES[0], 3], None, TypeError, "^recording 1 is a int"),
        ([WAVES[0], np.zeros(0)], ["a", "b"], AudioError, "no samples in recording 1"),
        ([WAVES[0], "no.wav"], None, AudioError, "recording 1: no such file"),
    ],
)
def test_bad_input_is_named(audio, text, error, words):
    with pytest.raises(error, match=words):
        tiny_tokenizer().encode(audio, text, word_times=False)


def test_codes_that_do_not_belong_are_refused():
    tokenizer = tiny_tokenizer()
    tokens = tokenizer.encode(WAVES[0], TEXTS[0], word_times=False)
    parts = {name: getattr(tokens, name) for name in tokens.__dataclass_fields__}

    big = TasteTokens(**parts | {"codes": tokens.codes + CODEBOOK_SIZE})
    with pytest.raises(ValueError, match=r"'one two three': codes .*expected 0..7"):
        tokenizer.decode([tokens, big])
    with pytest.raises(ValueError, match="expected .words, 2."):
        tokenizer.embed(tokens.codes[:, :1])
    foreign = TasteTokens(**parts | {"models": {"tokenizer": "you"}})
    with pytest.raises(ValueError, match="codes are of tokenizer you, expected me"):
        tokenizer.decode(foreign)
    with pytest.raises(ValueError, match="no words to decode"):
        tokenizer.decode(tokens[:0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_changes_few_codes(dtype, with_bfloat16):
    waves = [noise(6000 + 500 * seed, seed) for seed in range(16)]
    texts = [f"a b{'c' * (seed % 3)} d e f" for seed in range(16)]
    exact = tiny_tokenizer().encode(waves, texts, word_times=False)
    tokenizer = tiny_tokenizer(dtype=dtype)
    seen = []
    for part in (
        tokenizer.model.encoder.encoder.layers[0].fc1,
        tokenizer.model.quantizer.rvq.project_in,  # distances are taken behind it
    ):
        part.register_forward_hook(lambda *call: seen.append(call[2].dtype))

    half = tokenizer.encode(waves, texts, word_times=False)

    assert seen[:2] == [getattr(torch, dtype), torch.float32]
    same = np.concatenate(
        [a.codes == b.codes for a, b in zip(exact, half, strict=True)]
    )
    assert same.mean() >= 0.95
    drawn, output = [], tokenizer.model.decoder.output
    output.register_forward_hook(lambda *call: drawn.append(call[2].dtype))
    for wave, text, tokens in zip(waves, texts, half, strict=True):
        alone = tokenizer.encode(wave, text, word_times=False)
        assert alone.embeds.dtype == np.float32 and len(tokenizer.decode(alone).audio)
        assert np.array_equal(alone.codes, tokens.codes)
    assert set(drawn) == {torch.float32}  # on a CPU


def test_other_types_are_named():
    with pytest.raises(ValueError, match="dtype must be float32 or one of"):
        tiny_tokenizer(dtype="float8")


def test_a_reconstruction_has_its_batch_size_in_both_directions(monkeypatch):
    tokenizer = tiny_tokenizer()
    seen = {}
    for name in ("encode", "decode"):
        done = getattr(tokenizer, name)
        monkeypatch.setattr(
            tokenizer,
            name,
            lambda *a, name=name, done=done, **k: seen.update({name: k})
            or done(*a, **k),
        )

    tokenizer.reconstruct(WAVES[0], TEXTS[0], batch_size=3, seed=4)

    assert seen["encode"] == {"word_times": False, "batch_size": 3}
    assert seen["decode"] == {"batch_size": 3, "seed": 4}


def test_speech_is_saved(tmp_path):
    import soundfile

    tokenizer = tiny_tokenizer()
    speech = tokenizer.reconstruct(WAVES[0], TEXTS[0])

    speech.save(tmp_path / "a.wav")

    audio, rate = soundfile.read(tmp_path / "a.wav")
    assert rate == 1000 and len(audio) == len(speech.audio)
    assert torch.is_tensor(torch.from_numpy(audio))
