"""A tiny ESPnet recogniser, built by ESPnet, as aligner and transcriber."""

import sys
import types

import numpy as np
import pytest
import yaml

from espnet_taste.data.audio import AudioError
from espnet_taste.data.espnet_asr import load_espnet_asr

pytestmark = pytest.mark.slow  # importing ESPnet's ASR task takes 10 s

TOKENS = ["<blank>", "<unk>", "<space>", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'", "<sos/eos>"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build(tmp_path_factory.mktemp("asr"))


TRANSFORMER = {
    "decoder": "transformer",
    "decoder_conf": {"attention_heads": 2, "linear_units": 8, "num_blocks": 1},
}
TRANSDUCER = {
    "decoder": "transducer",
    "decoder_conf": {"rnn_type": "lstm", "num_layers": 1, "hidden_size": 8},
    "joint_net_conf": {"joint_space_size": 8},
}


def build(folder, rate="16k", ctc_weight=0.3, decoder=TRANSFORMER):
    torch = pytest.importorskip("torch")
    from espnet2.tasks.asr import ASRTask

    config = {
        "token_list": TOKENS,
        "token_type": "char",
        "frontend_conf": {"fs": rate, "n_fft": 512, "hop_length": 160},
        "normalize": None,
        "specaug": None,
        "encoder": "transformer",
        "encoder_conf": {
            "output_size": 8,
            "attention_heads": 2,
            "linear_units": 8,
            "num_blocks": 1,
        },
        "model_conf": {"ctc_weight": ctc_weight},
        **decoder,
    }
    defaults = ASRTask.get_default_config()
    args = {**defaults, **config}
    (folder / "config.yaml").write_text(yaml.safe_dump(args))
    torch.manual_seed(0)
    built, _ = ASRTask.build_model_from_file(folder / "config.yaml")
    torch.save(built.state_dict(), folder / "model.pth")
    return folder


def load(model):
    return load_espnet_asr(None, model / "config.yaml", model / "model.pth", "cpu")


def noise(seconds):
    draw = np.random.default_rng(0)
    return draw.uniform(-0.5, 0.5, round(seconds * 16000)).astype(np.float32)


def test_words_are_spelled_in_the_case_of_the_model(model):
    asr = load(model)

    assert asr.encode_word("don't,") == [TOKENS.index(c) for c in "DON'T"]
    assert asr.encode_word("\u4f60") == []
    assert asr.separator == 2 and asr.blank == 0


def test_posteriors_align_and_transcribe(model):
    from espnet_taste.align.ctc import CtcAligner

    asr = load(model)
    audio = noise(2.0)
    scores = asr.log_probs(audio)

    assert scores.shape[1] == len(TOKENS) and 40 < len(scores) < 60
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, atol=1e-5)
    aligner = CtcAligner(asr.log_probs, asr.encode_word, separator=2)
    times = aligner.align(audio, ["hello", "you"]).times
    assert times.shape == (2, 2) and times[-1, 1] <= 2.0 + 1e-6
    text = asr.transcribe([audio, noise(1.0)])
    assert len(text) == 2 and all("<" not in line for line in text)


def test_greedy_search_merges_repeats_and_drops_blanks(model):
    best = [TOKENS.index(t) for t in ("<blank>", "A", "A", "<blank>", "A", "<space>")]
    best += [TOKENS.index("B"), 0, 1]

    assert load(model)._decode(np.array(best)) == "AA B"


def test_audio_is_brought_to_the_rate_of_the_model(model, tmp_path):
    asr, half = load(model), load(build(tmp_path, rate=8000))
    assert (asr.rate_hz, half.rate_hz) == (16000, 8000)

    frames = len(half.log_probs(noise(2.0)))

    assert abs(2 * frames - len(asr.log_probs(noise(2.0)))) <= 2
    assert len(half.transcribe([noise(1.0)])) == 1


def test_a_model_without_ctc_is_searched(tmp_path):
    asr = load(build(tmp_path, ctc_weight=0.0))
    audios = [noise(0.5), noise(1.0)]

    texts = asr.transcribe(audios)

    expected = asr.search(audios[1])[0][0]
    assert texts[1] == " ".join(expected.split())
    assert asr.transcribe(audios[:1]) == texts[:1]
    with pytest.raises(ValueError, match="without CTC, which alignment needs"):
        asr.log_probs(audios[0])


def add_warprnnt(monkeypatch):
    """Stand in for a package that is compiled by hand; only trainings call its loss."""
    torch = pytest.importorskip("torch")
    package = types.ModuleType("warprnnt_pytorch")
    package.RNNTLoss = lambda **options: torch.nn.Identity()
    monkeypatch.setitem(sys.modules, "warprnnt_pytorch", package)


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3])
def test_a_transducer_is_searched(tmp_path, monkeypatch, ctc_weight):
    add_warprnnt(monkeypatch)
    build(tmp_path, ctc_weight=ctc_weight, decoder=TRANSDUCER)
    files = tmp_path / "config.yaml", tmp_path / "model.pth"
    asr = load_espnet_asr(None, *files, "cpu", beam_size=2)
    audios = [noise(0.5), noise(1.0)]

    texts = asr.transcribe(audios)

    expected = asr.search(audios[1])[0][0]
    assert texts[1] == " ".join(expected.split())
    assert type(asr.search.beam_search_transducer).__name__ == "BeamSearchTransducer"
    assert asr.has_ctc is (ctc_weight > 0)
    if asr.has_ctc:
        assert asr.log_probs(audios[1]).shape[1] == len(TOKENS)


def test_a_model_with_ctc_may_be_searched_too(model):
    files = model / "config.yaml", model / "model.pth"
    asr = load_espnet_asr(None, *files, "cpu", beam_size=2)

    (text,) = asr.transcribe([noise(0.5)])

    assert text == " ".join(asr.search(noise(0.5))[0][0].split())
    np.testing.assert_allclose(
        asr.log_probs(noise(1.0)), load(model).log_probs(noise(1.0))
    )


def test_a_tag_of_another_kind_is_named(monkeypatch):
    from espnet2.utils import pretrained

    files = {"train_config": "a", "model_file": "b"}
    monkeypatch.setattr(pretrained, "download_pretrained", lambda tag: files)
    with pytest.raises(ValueError, match="some/tts is no recogniser: it has .'mod"):
        load_espnet_asr("some/tts", None, None, "cpu")

    def refuse(tag):
        raise RuntimeError("no meta.yaml")

    monkeypatch.setattr(pretrained, "download_pretrained", refuse)
    with pytest.raises(FileNotFoundError, match="'some/tts'.*no meta.yaml.*--asr_c"):
        load_espnet_asr("some/tts", None, None, "cpu")


def test_models_that_cannot_be_used_are_named(model, tmp_path):
    with pytest.raises(ValueError, match="at least 1 wide, got 0"):
        files = model / "config.yaml", model / "model.pth"
        load_espnet_asr(None, *files, "cpu", beam_size=0)
    with pytest.raises(FileNotFoundError, match="gone.pth"):
        load_espnet_asr(None, model / "config.yaml", model / "gone.pth", "cpu")
    with pytest.raises(ValueError, match="--asr_config and --asr_model_file"):
        load_espnet_asr(None, model / "config.yaml", None, "cpu")
    other = build(tmp_path, decoder={**TRANSFORMER, "decoder_conf": {"num_blocks": 2}})
    with pytest.raises(ValueError, match="model.pth does not fit .*config.yaml: "):
        load_espnet_asr(None, other / "config.yaml", model / "model.pth", "cpu")


def test_a_package_that_a_model_needs_is_named(tmp_path, monkeypatch):
    with monkeypatch.context() as present:
        add_warprnnt(present)
        build(tmp_path, decoder=TRANSDUCER)
    monkeypatch.setitem(sys.modules, "warprnnt_pytorch", None)
    with pytest.raises(ValueError, match="needs the package warprnnt_pytorch, which"):
        load(tmp_path)


def test_audio_too_short_for_the_encoder_is_nothing_heard(model):
    """ESPnet's own error is none of ours, and ended the job at every run."""
    asr = load(model)

    assert asr.transcribe([noise(0.03), noise(1.0)])[0] == ""
    with pytest.raises(AudioError) as caught:
        asr.log_probs(noise(0.03))
    assert caught.value.reason == "too_short"
