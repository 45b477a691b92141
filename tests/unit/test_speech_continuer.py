"""The recipe's continuations: from the audio of a prompt alone to audio."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from tiny_taste import SPEAKER_DIM, noise, tiny_tokenizer

from espnet_taste.data.ark_writer import ArkWriter
from espnet_taste.data.kaldi import write_table
from espnet_taste.pipeline.continuation import Parts, SpeechContinuer
from espnet_taste.pipeline.speech import DecodeOptions

RATE = 16000
WORDS = {"a": "one two three", "b": "four five"}
OPTIONS = DecodeOptions(prompt_words=2)


class Slm:
    """Says two more words with the last codes of the prompt."""

    def prompt(self, key, words, codes):
        return key, {"words": words, "codes": codes}

    def continue_speech(self, prompts, settings, seeds):
        self.prompts, self.seeds = prompts, seeds
        return [
            SimpleNamespace(
                words=["and", "more"],
                codes=data["codes"][[-1, -1]],
                completion=SimpleNamespace(was_cut=False),
            )
            for _, data in prompts
        ]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def folder(tmp_path):
    for number, key in enumerate(WORDS):
        wave = noise(RATE * 8 // 10, seed=number)
        soundfile.write(tmp_path / f"{key}.flac", wave, RATE)
    write_table(tmp_path / "wav.scp", {key: f"{key}.flac" for key in WORDS})
    write_table(tmp_path / "text", WORDS)
    with ArkWriter(tmp_path, "word_times") as writer:
        for key, text in WORDS.items():
            ends = 0.25 * np.arange(1, len(text.split()) + 1, dtype=np.float32)
            writer(key, np.stack([ends - 0.25, ends], 1))
    with ArkWriter(tmp_path, "spembs") as writer:
        for key in WORDS:
            writer(key, np.ones(SPEAKER_DIM, np.float32))
    return tmp_path


def make(folder, tokenizer, options=OPTIONS):
    slm = Slm()
    parts = Parts(slm, tokenizer.inference, tokenizer.synthesize)
    return slm, SpeechContinuer(parts, folder, folder, options)


def test_prompt_and_continuation_become_audio_with_facts(folder, tokenizer):
    _, go_on = make(folder, tokenizer)

    first, second = go_on(["a", "b"])

    assert len(first.audio) > 0 and len(second.audio) > 0
    expected = {
        "prompt": "one two",
        "prompt_s": 0.5,
        "continuation": "and more",
        "text_was_cut": False,
    }
    assert expected.items() <= first.facts.items()
    assert second.facts["prompt"] == "four five"


def test_what_is_spoken_is_the_prompt_and_then_its_continuation(
    folder, tokenizer, monkeypatch
):
    slm, go_on = make(folder, tokenizer)
    spoken = {}

    def record(texts, codes, speakers, sampling, seeds):
        spoken.update(texts=texts, codes=codes, speakers=speakers)
        raise InterruptedError

    monkeypatch.setattr(go_on.parts.tokenizer, "generate_from_codes", record)
    with pytest.raises(InterruptedError):
        go_on(["b", "a"])

    assert spoken["texts"] == ["four five and more", "one two and more"]
    for codes, (_, prompt) in zip(spoken["codes"], slm.prompts, strict=True):
        assert codes.shape == (4, prompt["codes"].shape[1])
        np.testing.assert_array_equal(codes[:2], prompt["codes"])
        np.testing.assert_array_equal(codes[2:], prompt["codes"][[-1, -1]])
    assert [key for key, _ in slm.prompts] == ["b", "a"]


def test_a_prompt_is_heard_up_to_its_last_word_and_no_further(folder, tokenizer):
    """Codes of the whole utterance know how it goes on."""
    slm, go_on = make(folder, tokenizer)
    go_on(["a"])
    ((_, data),) = slm.prompts

    wave, _ = soundfile.read(folder / "a.flac", dtype="float32")
    piece = tokenizer.encode(wave[: RATE // 2], "one two", word_times=False)
    assert np.array_equal(data["codes"], piece.codes)
    wave[RATE // 2 :] = noise(len(wave) - RATE // 2, seed=7)
    soundfile.write(folder / "a.flac", wave, RATE)
    go_on(["a"])
    assert np.array_equal(slm.prompts[0][1]["codes"], data["codes"])


@pytest.mark.parametrize(("seconds", "count"), [(0.01, 1), (0.6, 2), (99.0, 3)])
def test_a_prompt_ends_with_the_word_nearest_to_some_seconds(
    folder, tokenizer, seconds, count
):
    slm, go_on = make(folder, tokenizer, DecodeOptions(prompt_s=seconds))

    (speech,) = go_on(["a"])

    assert speech.facts["prompt"].split() == ["one", "two", "three"][:count]
    assert len(slm.prompts[0][1]["codes"]) == count


@pytest.mark.parametrize("options", [{"prompt_s": 0.0}, {"prompt_words": 0}])
def test_prompts_of_nothing_are_refused(options):
    with pytest.raises(ValueError, match="must be above 0, got 0"):
        DecodeOptions(**options)


def test_a_short_utterance_is_its_own_prompt(folder, tokenizer):
    slm, go_on = make(folder, tokenizer, replace(OPTIONS, prompt_words=9))
    go_on(["b", "a"])

    assert [data["words"] for _, data in slm.prompts] == [
        ["four", "five"],
        ["one", "two", "three"],
    ]
