"""The real files of the embedded default: they load, and they are what they should be.

Needs the weights in the cache: python -m espnet_taste.bin.fetch_weights --all-default
"""

import math
import os
from pathlib import Path

import pytest
import torch

from espnet_taste.weights import WeightsNotFound, describe, fingerprint, resolve
from espnet_taste.weights.catalog import CATALOG, ENTRIES
from espnet_taste.weights.convert_whisper import special_tokens

pytestmark = pytest.mark.weights

SPEECH = Path(__file__).parents[3] / "shared" / "data" / "librispeech_excerpts" / "test"
# How OpenAI's tokenizer cuts text before merging.
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# A paragraph in the manner of an encyclopaedia, for perplexities.
PARAGRAPH = (
    "The Eiffel Tower is a wrought-iron lattice tower on the Champ de Mars in Paris, "
    "France. It is named after the engineer Gustave Eiffel, whose company designed and "
    "built the tower from 1887 to 1889. Although initially criticised by some of "
    "France's leading artists and intellectuals for its design, it has since become a "
    "global cultural icon of France and one of the most recognisable structures in the "
    "world."
)


def folder_of(name):
    try:
        return resolve(name, offline=True)
    except WeightsNotFound:
        pytest.skip(f"{name} is not in the cache: run espnet_taste.bin.fetch_weights")


@pytest.fixture(scope="module")
def whisper_folder():
    return folder_of("openai/whisper-tiny.en")


def speech(number):
    soundfile = pytest.importorskip("soundfile")
    if not SPEECH.is_dir():
        pytest.skip(f"no speech in {SPEECH}")
    key, path = (SPEECH / "wav.scp").read_text().splitlines()[number].split()
    texts = dict(
        line.split(None, 1) for line in (SPEECH / "text").read_text().splitlines()
    )
    samples, rate = soundfile.read(SPEECH / path, dtype="float32")
    assert rate == 16000
    return samples, texts[key].split()


def share_of_words_found(reference, text):
    heard = "".join(c for c in text.lower() if c.isalpha() or c in "' ").split()
    return len(set(reference) & set(heard)) / len(set(reference))


@pytest.mark.parametrize("name", [entry.name for entry in ENTRIES])
def test_everything_in_the_cache_is_what_its_manifest_says(name):
    folder = folder_of(name)
    assert describe(folder)["name"] == name
    assert len(fingerprint(folder)) == 64


def test_the_judge_is_the_recorded_file():
    """Its parts are pinned one by one; the joined file has a published digest."""
    found = fingerprint(folder_of("Systran/faster-whisper-base"))
    assert found == "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57"


def test_whisper_loads_strictly(whisper_folder):
    from transformers import WhisperForConditionalGeneration, WhisperModel

    for kind in (WhisperModel, WhisperForConditionalGeneration):
        model, report = kind.from_pretrained(whisper_folder, output_loading_info=True)
        assert not any(report.values()), report
    sizes = ("encoder_layers", "decoder_layers", "d_model", "vocab_size")
    assert [getattr(model.config, size) for size in sizes] == [4, 4, 384, 51864]


def test_whisper_transcribes_offline(whisper_folder):
    from transformers import (
        WhisperForConditionalGeneration,
        WhisperProcessor,
    )

    samples, reference = speech(0)
    processor = WhisperProcessor.from_pretrained(whisper_folder)
    model = WhisperForConditionalGeneration.from_pretrained(whisper_folder)
    features = processor(samples, sampling_rate=16000, return_tensors="pt")
    ids = model.generate(features.input_features)
    text = processor.tokenizer.decode(ids[0], skip_special_tokens=True)

    assert share_of_words_found(reference, text) > 0.7, text


@pytest.fixture(scope="module")
def reference_tokenizer(whisper_folder):
    """OpenAI's tokenizer, with the ranks read back out of the converted folder."""
    tiktoken = pytest.importorskip("tiktoken", reason="needs: pip install tiktoken")
    import json

    from espnet_taste.weights.convert_whisper import byte_characters

    bytes_of = {shown: byte for byte, shown in byte_characters().items()}
    vocab = json.loads((whisper_folder / "tokenizer.json").read_text())["model"][
        "vocab"
    ]
    ranks = {
        bytes(bytes_of[character] for character in token): rank
        for token, rank in vocab.items()
        if rank < 50256
    }
    assert len(ranks) == 50256
    return tiktoken.Encoding(
        "gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={}
    )


def tokenizer_texts():
    texts = [
        *("hello world", " hello", "it's the Tea'll don't DON'T", "1234 5 67.8", ""),
        *(
            "naïve café",
            "日本語のテキスト",
            "🙂👍🏽",
            "a\tb\n\n  c   ",
            "\u00a0x\u2009y",
        ),
        *("tout à l'heure, Жизнь, עברית, العربية", "<tag> & [noise] (laughs) ♪"),
    ]
    if SPEECH.is_dir():
        lines = (SPEECH / "text").read_text().splitlines()
        texts += [line.split(None, 1)[1] for line in lines]
        texts += [" " + word for line in lines for word in line.split()[1:]]
    return texts


def test_the_tokenizer_cuts_as_the_reference_does(whisper_folder, reference_tokenizer):
    from transformers import WhisperTokenizer

    tokenizer = WhisperTokenizer.from_pretrained(whisper_folder)
    for text in tokenizer_texts():
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert ids == reference_tokenizer.encode(text), repr(text)


def test_special_ids_are_those_of_the_english_models(whisper_folder):
    from transformers import WhisperTokenizer

    tokenizer = WhisperTokenizer.from_pretrained(whisper_folder)
    ids = tokenizer.convert_tokens_to_ids(
        ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>", "<|0.00|>"]
    )
    assert ids == [50256, 50257, 50362, 50363]
    assert len(special_tokens()) == 107
    assert len(tokenizer) == 51864
    assert tokenizer("").input_ids == [50257, 50362, 50256]


def test_no_symbol_is_generated_that_is_no_speech(whisper_folder, reference_tokenizer):
    """Brackets, quotes, notes and dashes are off; letters and plain marks are not."""
    from transformers import GenerationConfig

    suppressed = set(GenerationConfig.from_pretrained(whisper_folder).suppress_tokens)
    plain = {number for number in suppressed if number < 50256}
    for number in plain:
        symbol = reference_tokenizer.decode_single_token_bytes(number)
        assert not any(
            character.isalnum() for character in symbol.decode(errors="replace")
        )
    for symbol in '()[]{}<>"#*/:;@^_|~':
        for text in (symbol, " " + symbol):
            assert set(reference_tokenizer.encode(text)) <= plain, repr(text)
    for mark in (".", ",", "?", "!", "'", "-", "'s", " I", "%", "$", "&"):
        assert not set(reference_tokenizer.encode(mark)) & plain, repr(mark)
    special = {50257, 50357, 50358, 50359, 50360, 50361}
    assert suppressed - plain == special


def perplexity(folder, text):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, report = AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(report.values()), report
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        return math.exp(model(ids, labels=ids).loss.item())


def test_the_language_model_predicts_prose():
    """5.8 here; query and key rows in GGUF's order give 43."""
    folder = folder_of("HuggingFaceTB/SmolLM2-135M-Instruct")
    assert perplexity(folder, PARAGRAPH) < 10


def test_the_chat_template_is_there():
    from transformers import AutoTokenizer

    folder = folder_of("HuggingFaceTB/SmolLM2-135M-Instruct")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_the_story_model_predicts_stories():
    """About 2 here; rotary rows or token ids in another order give far more."""
    story = "Once upon a time, there was a little girl named Lily. She loved to play."
    assert perplexity(folder_of("llama2.c/stories15M"), story) < 3


def test_the_judge_transcribes():
    faster_whisper = pytest.importorskip(
        "faster_whisper", reason="needs: pip install faster-whisper"
    )
    folder = folder_of("Systran/faster-whisper-base")
    samples, reference = speech(0)
    judge = faster_whisper.WhisperModel(
        str(folder), device="cpu", compute_type="int8", cpu_threads=1
    )
    segments, _ = judge.transcribe(samples, language="en", beam_size=1)
    text = " ".join(segment.text for segment in segments)

    assert share_of_words_found(reference, text) > 0.7, text


def test_a_hifigan_generator_has_plain_weights():
    from safetensors import safe_open

    for name in ("hifigan/universal-v1", "hifigan/ljspeech-v1"):
        with safe_open(folder_of(name) / "model.safetensors", "pt") as file:
            names = set(file.keys())
        assert len(names) == 2 * (1 + 4 + 12 * 6 + 1)
        assert all(name.endswith((".weight", ".bias")) for name in names)


def test_one_real_package_arrives(tmp_path):
    """The whole way through the package index, with the smallest package."""
    if os.environ.get("ESPNET_TASTE_OFFLINE"):
        pytest.skip("offline")
    name = "resemblyzer/ge2e"
    try:
        folder = resolve(name, cache_dir=tmp_path)
    except WeightsNotFound as error:
        pytest.skip(f"no package index: {error}")
    assert sorted(path.name for path in folder.iterdir()) == [
        *("config.json", "manifest.json", "model.safetensors")
    ]
    assert fingerprint(folder) == fingerprint(folder_of(CATALOG[name].name))
