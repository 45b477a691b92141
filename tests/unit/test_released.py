"""A released checkpoint, opened as the tokenizer that users have."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_hub import FakeHub, ask_only
from tiny_experiment import write_speaker_network
from tiny_released import BACKBONE, WHISPER, released_state, write_checkpoint
from tiny_taste import noise

from espnet_taste.bin import likelihood
from espnet_taste.convert.architecture import PREFIX_IDS
from espnet_taste.convert.checkpoint import Options, convert
from espnet_taste.convert.errors import WrongDigest
from espnet_taste.convert.load import load_released
from espnet_taste.convert.report import Report
from espnet_taste.layers.word_pooling import first_of_words
from espnet_taste.pipeline import released, released_lm
from espnet_taste.pipeline.interchange import write_tokens
from espnet_taste.pipeline.lm_export import write_merged
from espnet_taste.pipeline.released import (
    RELEASED,
    ReleasedInference,
    find_released,
    find_speaker_model,
    tokenizer_id,
)
from espnet_taste.pipeline.spoken_lm import TasteSpokenLM, open_inference
from espnet_taste.pipeline.taste import TasteTokenizer
from espnet_taste.slm.generation import CompletionSettings
from espnet_taste.slm.vocabulary import build_vocabulary
from espnet_taste.units.campplus import CamPlus

WINDOW_SAMPLES = 320 * WHISPER["max_source_positions"]
SPEAKER = np.array([0.5, 0.1, 0.3, 0.2, 0.9], dtype=np.float32)


class FakeText:
    """Whisper's tokenizer: a token a letter."""

    prefix_ids = [5, 6, 7, 8]

    def __init__(self, model, language="en", task="transcribe"):
        self.prefix_ids = [5, 6, 9 if task == "translate" else 7, 8]
        self.vocab_size = 99 if model == "other" else WHISPER["vocab_size"]

    def encode(self, text):
        return [10 + ord(letter) % 20 for letter in text.strip()]


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    folder = tmp_path_factory.mktemp("released") / "official"
    return write_checkpoint(folder, released_state())


@pytest.fixture(scope="module")
def converted(official, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted") / "model"
    convert(official, folder, to="espnet_taste", options=Options(BACKBONE))
    return folder


@pytest.fixture(autouse=True)
def text(monkeypatch):
    monkeypatch.setattr(released, "WhisperText", FakeText)


@pytest.fixture
def tokenizer(converted):
    # The prefix of the released model is not in a vocabulary of 30.
    tokenizer = TasteTokenizer.from_pretrained(converted, language="de")
    tokenizer.encoder.speaker_encoder = SimpleNamespace(embed=lambda wave: SPEAKER)
    return tokenizer


def test_codes_are_those_of_the_checkpoint(tokenizer, converted):
    waves = [noise(WINDOW_SAMPLES), noise(2000, seed=1)]
    tokens = tokenizer.encode(waves, ["ab c", "d"], word_times=False)

    whole = load_released(converted)
    whole.tokenizer.aggregator.prefix_ids = torch.tensor(FakeText.prefix_ids)
    rows = torch.tensor([[10 + ord(letter) % 20 for letter in "abc"]])
    words, lengths = torch.tensor([[0, 0, 1]]), torch.tensor([3])
    with torch.no_grad():
        states = whole.tokenizer.encode_speech(
            torch.from_numpy(waves[0])[None], torch.tensor([WINDOW_SAMPLES])
        )
        output = whole.tokenizer(states, rows, lengths, words)
    expected = first_of_words(output.codes, words, lengths)[0, :2]
    assert np.array_equal(tokens[0].codes, expected.numpy())
    assert tokens[1].words == ("d",)
    assert tokens[0].codes.shape == (2, 2)


def test_units_are_drawn_as_released(tokenizer):
    tokens = tokenizer.encode(noise(2000), "ab", word_times=False)
    batch = [tokens, tokens[:1]]
    units = []
    tokenizer.synthesize = lambda rows, speakers, facts: units.append(rows) or rows

    tokenizer.decode(batch)

    # 2 to 20 times the prompt: start, speaker, two tokens, task.
    assert all(2 * 5 <= len(row) <= 20 * 5 for row in units[0])
    assert np.array_equal(units[0][0], units[0][1])
    assert tokenizer.sampling.bounds == "prompt"


def test_it_runs_in_the_precision_of_its_training(tokenizer, converted):
    half = TasteTokenizer.from_pretrained(converted, language="de", dtype="float16")
    half.encoder.speaker_encoder = tokenizer.encoder.speaker_encoder
    waves = [noise(WINDOW_SAMPLES - 100 * seed, seed) for seed in range(12)]
    texts = ["ab c"] * len(waves)
    products = []
    layer = half.model.encoder.encoder.layers[0].fc1
    layer.register_forward_hook(lambda *call: products.append(call[2].dtype))

    exact = tokenizer.encode(waves, texts, word_times=False)
    tokens = half.encode(waves, texts, word_times=False)

    assert set(products) == {torch.float16}
    same = [a.codes == b.codes for a, b in zip(exact, tokens, strict=True)]
    assert np.mean(same) >= 0.9
    units, scores = [], []
    half.synthesize = lambda rows, speakers, facts: units.extend(rows) or rows
    output = half.model.decoder.output
    output.register_forward_hook(lambda *call: scores.append(call[2].dtype))
    half.decode(tokens)
    assert len(units) == len(waves) and all(len(row) for row in units)
    assert set(scores) == {torch.float32}  # the released decoder is not autocast


def test_without_a_vocoder_it_only_encodes(tokenizer):
    tokens = tokenizer.encode(noise(2000), "ab", word_times=False)
    with pytest.raises(ValueError, match="without a vocoder"):
        tokenizer.decode(tokens)


def test_the_released_layout_is_converted_once(official, tmp_path, monkeypatch):
    folder = find_released(official, tmp_path, BACKBONE)

    assert ReleasedInference(folder).model.quantizer.codebook_size == 5
    monkeypatch.setattr(released, "convert", None)
    assert find_released(official, tmp_path, BACKBONE) == folder
    assert find_released(folder, tmp_path) == folder


def test_a_changed_checkpoint_is_converted_again(official, tmp_path):
    copy = write_checkpoint(tmp_path / "official", released_state())
    first = find_released(copy, tmp_path / "cache", BACKBONE)
    write_checkpoint(copy, released_state(), num_shards=3)

    assert find_released(copy, tmp_path / "cache", BACKBONE) != first


def test_a_tokenizer_is_the_same_with_other_parts_converted_along(
    converted, tokenizer, tmp_path
):
    copy = write_checkpoint(tmp_path / "official", released_state(), num_shards=2)
    (copy / "cosyvoice").mkdir()
    (copy / "cosyvoice" / "speaker_embed.onnx").write_bytes(b"a network")
    convert(copy, tmp_path / "ours", to="espnet_taste", options=Options(BACKBONE))

    other = TasteTokenizer.from_pretrained(tmp_path / "ours", language="de")

    assert Report.read(tmp_path / "ours") != Report.read(converted)
    assert other.models["tokenizer"] == tokenizer.models["tokenizer"]
    Report("espnet_taste", sha256={"taste/model.safetensors": "0"}).write(tmp_path)
    assert tokenizer_id(tmp_path) != tokenizer.models["tokenizer"]


@pytest.mark.parametrize("content", [None, "{}", "[1]", "no json"])
def test_other_folders_are_left_to_others(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert find_released(tmp_path, tmp_path / "cache") is None


def test_the_name_on_the_hub_is_downloaded(official, tmp_path, monkeypatch):
    asked = []

    def download(name, allow_patterns):
        asked.append(name)
        assert "*.py" not in allow_patterns and "*" not in allow_patterns
        return str(official)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    folder = find_released(RELEASED, tmp_path, BACKBONE)
    assert asked == [RELEASED] and (folder / "taste").is_dir()

    def offline(name, allow_patterns):
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(FileNotFoundError, match=f"{RELEASED}.*no route.*folder"):
        find_released(RELEASED, tmp_path, BACKBONE)


@pytest.mark.parametrize("name", [RELEASED, "some-mirror/taste"])
def test_a_name_on_the_hub_encodes_with_its_own_speaker_encoder(
    name, official, tmp_path, monkeypatch
):
    pytest.importorskip("onnxruntime")
    network = write_speaker_network(tmp_path / "speaker.onnx", len(SPEAKER))
    files = {path.name: path.read_bytes() for path in official.iterdir()}
    files["cosyvoice/speaker_embed.onnx"] = network.read_bytes()
    monkeypatch.setenv("ESPNET_TASTE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(released, "Backbone", lambda: BACKBONE)
    with FakeHub(name, files) as server:
        ask_only(monkeypatch, server.endpoint)
        tokenizer = TasteTokenizer.from_pretrained(name, language="de")
    tokens = tokenizer.encode(noise(2000), "ab c", word_times=False)

    expected = CamPlus(network).embed(noise(2000))
    np.testing.assert_array_equal(tokens.speaker, expected)
    (folder,) = (tmp_path / "cache" / "converted").iterdir()
    again = TasteTokenizer.from_pretrained(folder, language="de")
    assert again.encode(noise(2000), "ab c", word_times=False).speaker.any()
    (folder / "speaker" / "speaker_embed.onnx").write_bytes(b"changed")
    with pytest.raises(WrongDigest, match="speaker/speaker_embed.onnx"):
        TasteTokenizer.from_pretrained(folder, language="de")


def test_the_prefix_names_language_and_task(converted):
    ids = {
        task: ReleasedInference(
            converted, language="de", task=task
        ).model.aggregator.prefix_ids.tolist()
        for task in ("transcribe", "translate")
    }
    assert ids == {"transcribe": [5, 6, 7, 8], "translate": [5, 6, 9, 8]}
    english = ReleasedInference(converted).model.aggregator.prefix_ids.tolist()
    assert english == list(PREFIX_IDS)  # as released, whatever the Whisper says
    translating = ReleasedInference(converted, task="translate").model.aggregator
    assert translating.prefix_ids.tolist() == [5, 6, 9, 8]


def test_the_silent_tail_may_be_left_out(converted):
    frames = {}
    for window in ("full", "trimmed"):
        encoder = ReleasedInference(converted, window=window).model.encoder
        states = encoder(torch.zeros(1, 640), torch.tensor([640]))
        frames[window] = states.keys.size(1)
    assert frames["full"] == WHISPER["max_source_positions"] == 10
    assert ReleasedInference(converted).model.encoder.window == "full"
    assert encoder.window == "trimmed"
    with pytest.raises(ValueError, match="'full' or 'trimmed', got 'short'"):
        ReleasedInference(converted, window="short")


def test_a_changed_file_is_refused(official, tmp_path):
    folder = find_released(official, tmp_path, BACKBONE)
    path = folder / "taste" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)

    with pytest.raises(WrongDigest, match="taste/model.safetensors"):
        ReleasedInference(folder)
    ReleasedInference(folder, check_sha256=False)


def test_another_whisper_is_refused(converted):
    with pytest.raises(ValueError, match="'other' has 99 text tokens.*30"):
        ReleasedInference(converted, whisper="other")


def test_the_speaker_encoder_is_looked_for(official, converted, tmp_path):
    assert find_speaker_model(tmp_path, converted).endswith("campplus.onnx")
    path = tmp_path / "cosyvoice" / "speaker_embed.onnx"
    path.parent.mkdir()
    path.touch()
    assert find_speaker_model(tmp_path, converted) == str(path)


def test_a_missing_speaker_encoder_is_named(converted):
    tokenizer = TasteTokenizer.from_pretrained(converted, language="de")
    with pytest.raises(FileNotFoundError, match="campplus.onnx"):
        tokenizer.encode(noise(2000), "ab", word_times=False)


def test_another_speaker_encoder_is_refused(tokenizer):
    tokenizer.encoder.speaker_encoder = SimpleNamespace(embed=lambda wave: SPEAKER[:3])
    with pytest.raises(ValueError, match="3 values.*trained with 5"):
        tokenizer.encode(noise(2000), "ab", word_times=False)


def test_a_transcript_with_too_many_tokens_is_named(tokenizer):
    # 12 positions, 4 of them for the prefix.
    with pytest.raises(ValueError, match="'abcdefghi.*9 tokens.*takes 8"):
        tokenizer.encode(noise(2000), "abcdefghi", word_times=False)
    tokenizer.encode(noise(2000), "abcdefgh", word_times=False)


class FakeLlmText:
    """The LLM's tokenizer: a token a letter, which all start a word or none do."""

    def __init__(self, llm):
        size = 999 if llm == "large" else 20
        self.tokenizer = [0] * size

    def encode(self, text):
        return [2 + ord(letter) % 10 for letter in text.strip()]

    def decode(self, tokens):
        return "".join(f" w{token}" for token in tokens)


@pytest.fixture
def spoken(converted, monkeypatch):
    monkeypatch.setattr(released_lm, "LlmText", FakeLlmText)
    lm = TasteSpokenLM.from_pretrained(converted, language="de", llm="small")
    lm.tokenizer.encoder.speaker_encoder = SimpleNamespace(embed=lambda wave: SPEAKER)
    size = lm.slm.output_layer.weight.size(0)
    lm.inference.vocabulary = build_vocabulary([f" w{index}" for index in range(size)])
    return lm


def test_a_released_spoken_lm_goes_on_from_speech(spoken):
    prompt = spoken.tokenizer.encode(noise(2000), "ab c", word_times=False)

    answer = spoken.complete(prompt, CompletionSettings(max_words=3))

    assert len(answer) == 3 and answer.codes.shape == (3, 2)
    whole = spoken.tokenizer.inference.model.quantizer.state_dict()
    for name, tensor in spoken.slm.codebooks.state_dict().items():
        assert torch.equal(tensor, whole[name]), name


def test_a_merged_llm_keeps_the_precision_that_it_is_stored_in(
    converted, tmp_path, monkeypatch
):
    """On a CPU that lacks bfloat16 it is held in float32."""
    monkeypatch.setattr(released_lm, "LlmText", FakeLlmText)
    held = released_lm.ReleasedSpokenLM(converted, llm="small", llm_dtype=torch.float32)
    held.text.tokenizer = SimpleNamespace(save_pretrained=lambda folder: None)

    write_merged(held, tmp_path / "merged")

    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config.get("dtype", config.get("torch_dtype")) == "bfloat16"


def test_a_released_spoken_lm_scores_pairs_of_speech(spoken, converted, tmp_path):
    """By the command, which is how a benchmark is run on the published model."""
    speech = spoken.tokenizer.encode(noise(2000), "ab c", word_times=False)
    write_tokens(tmp_path / "tokens.jsonl", {"a": speech})
    options = f"--tokens {tmp_path}/tokens.jsonl --output_dir {tmp_path}/out"
    options += f" --model {converted} --llm small --transcripts given"

    assert likelihood.main(options.split()) == 0

    (row,) = map(json.loads, (tmp_path / "out" / "likelihoods.jsonl").open())
    assert row["scores"]["taste"] == pytest.approx(spoken.log_likelihood(speech))
    assert open_inference(converted, llm="small").args.llm == "small"


def test_options_of_released_checkpoints_are_for_those(tmp_path, spoken, capsys):
    speech = spoken.tokenizer.encode(noise(2000), "ab c", word_times=False)
    write_tokens(tmp_path / "tokens.jsonl", {"a": speech})
    options = f"--tokens {tmp_path}/tokens.jsonl --output_dir {tmp_path}/out"
    options += f" --model {tmp_path} --whisper tiny --transcripts given"

    assert likelihood.main(options.split()) == 1
    assert "--whisper is for released checkpoints" in capsys.readouterr().err


def test_an_llm_with_more_tokens_than_the_checkpoint_is_refused(spoken, converted):
    with pytest.raises(ValueError, match="'large' has 999 tokens"):
        released_lm.ReleasedSpokenLM(converted, llm="large")


def test_only_a_released_spoken_lm_needs_an_llm(tmp_path, monkeypatch):
    monkeypatch.setattr(TasteTokenizer, "from_pretrained", lambda *_, **options: None)
    with pytest.raises(ValueError, match="names its own LLM; leave it out"):
        TasteSpokenLM.from_pretrained(tmp_path, llm="some")
