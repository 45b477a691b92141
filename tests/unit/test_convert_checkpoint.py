"""Conversion refuses what is wrong with a checkpoint, by name, and leaves nothing."""

import copy
import json

import pytest
import torch
from released_checkpoint import read_folder
from safetensors.torch import load_file, save_file
from tiny_released import (
    BACKBONE,
    CODEBOOK,
    CONFIG,
    CONV,
    EMBEDDING,
    LM_HEAD,
    released_state,
    write_checkpoint,
)

from espnet_taste.convert.checkpoint import Options, convert
from espnet_taste.convert.errors import (
    CopiesDiffer,
    DamagedFile,
    NotFinite,
    TensorMismatch,
    UnknownArchitecture,
    WrongDigest,
)
from espnet_taste.convert.report import Report
from espnet_taste.weights.digests import sha256_of

INDEX = "model.safetensors.index.json"
TO_OURS = {"to": "espnet_taste", "options": Options(BACKBONE)}
COPY = "slm.codebooks.rvq.codebooks.0.embed"


@pytest.fixture
def state():
    return released_state()


@pytest.fixture
def ours(state, tmp_path):
    source = write_checkpoint(tmp_path / "source", state)
    convert(source, tmp_path / "ours", **TO_OURS)
    return tmp_path / "ours"


def remove(name):
    return lambda state: state.pop(name)


def put(name, value):
    return lambda state: state.update({name: value})


def spoil(name, value):
    def change(state):
        state[name].view(-1)[-1] = value

    return change


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (remove(CONV), TensorMismatch, f"missing: {CONV}"),
        (remove(LM_HEAD), TensorMismatch, "cannot be made up from the embedding"),
        (put("other.weight", torch.zeros(2)), TensorMismatch, "unknown: other.weight"),
        (
            put(EMBEDDING, torch.zeros(20, 9)),
            TensorMismatch,
            rf"of another shape: {EMBEDDING} \(20, 9\) instead of \(20, 8\)",
        ),
        (
            put(CODEBOOK, torch.zeros(5, 3)),
            TensorMismatch,
            r"\(5, 3\) instead of \(1, 5, 3\)",
        ),
        (
            put(CONV, torch.zeros(16, 4, 3, dtype=torch.int32)),
            TensorMismatch,
            f"of another kind: {CONV} I32",
        ),
        (spoil(CONV, float("nan")), NotFinite, f"{CONV} in .* holds NaN or infinity"),
        (spoil(LM_HEAD, float("inf")), NotFinite, f"{LM_HEAD} in .* another check"),
    ],
)
@pytest.mark.parametrize("num_shards", [1, 2])
def test_bad_tensors(state, tmp_path, change, error, words, num_shards):
    """Reference defect C5 among them: an output layer that is absent."""
    change(state)
    source = write_checkpoint(tmp_path / "source", state, num_shards)

    with pytest.raises(error, match=words):
        convert(source, tmp_path / "ours", **TO_OURS)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_all_faults_are_told_at_once(state, tmp_path):
    state.pop(CONV)
    state["other.weight"] = torch.zeros(2)
    source = write_checkpoint(tmp_path / "source", state)

    with pytest.raises(TensorMismatch, match=f"{CONV}; unknown: other.weight. Fetch"):
        convert(source, tmp_path / "ours", **TO_OURS)


@pytest.mark.parametrize("kept", [0, 4, 1000, -1])
def test_truncated_file(state, tmp_path, kept):
    source = write_checkpoint(tmp_path / "source", state)
    path = source / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(DamagedFile, match=f"{path.name} is truncated .* fetch it"):
        convert(source, tmp_path / "ours", **TO_OURS)


def test_absent_shard(state, tmp_path):
    source = write_checkpoint(tmp_path / "source", state)
    (source / "model-00002-of-00002.safetensors").unlink()

    with pytest.raises(FileNotFoundError, match="names model-00002.* absent; fetch"):
        convert(source, tmp_path / "ours", **TO_OURS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no index of shards"),
        ("[]", "is no index of shards"),
        ('{"weight_map": {"x": "../x"}}', "which is no file beside it"),
        ('{"weight_map": {"x": ["y"]}}', "is no index of shards"),
    ],
)
def test_damaged_index(state, tmp_path, text, words):
    source = write_checkpoint(tmp_path / "source", state)
    (source / INDEX).write_text(text)

    with pytest.raises(DamagedFile, match=words):
        convert(source, tmp_path / "ours", **TO_OURS)


def test_index_that_names_another_shard(state, tmp_path):
    source = write_checkpoint(tmp_path / "source", state)
    index = json.loads((source / INDEX).read_text())
    files = sorted(set(index["weight_map"].values()))
    (other,) = set(files) - {index["weight_map"][CONV]}
    index["weight_map"][CONV] = other
    (source / INDEX).write_text(json.dumps(index))

    with pytest.raises(TensorMismatch, match=f"{CONV} is in {other}, where it is not"):
        convert(source, tmp_path / "ours", **TO_OURS)


def test_no_weights(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(FileNotFoundError, match="neither model.safetensors nor"):
        convert(tmp_path, tmp_path / "ours", **TO_OURS)


def test_given_sha256(state, tmp_path):
    source = write_checkpoint(tmp_path / "source", state, num_shards=1)
    digest = sha256_of(source / "model.safetensors")
    for name, value, error in (
        ("model.safetensors", "0" * 64, WrongDigest),
        ("absent.safetensors", digest, FileNotFoundError),
    ):
        options = Options(BACKBONE, digests={name: value})
        with pytest.raises(error, match=name):
            convert(source, tmp_path / "no", to="espnet_taste", options=options)

    right = Options(BACKBONE, digests={"model.safetensors": digest.upper()})
    convert(source, tmp_path / "ours", to="espnet_taste", options=right)


def test_recorded_sha256(ours, tmp_path):
    path = ours / "slm" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)

    with pytest.raises(WrongDigest, match="slm/model.safetensors has sha256"):
        convert(ours, tmp_path / "back", to="official")


def change_ours(folder, part, change):
    """Change tensors of a converted folder, and their recorded sha256."""
    path = folder / part / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)
    report = Report.read(folder)
    report.sha256[f"{part}/model.safetensors"] = sha256_of(path)
    report.write(folder)


@pytest.mark.parametrize(
    ("part", "change", "error", "words"),
    [
        ("slm", spoil(COPY, 7.0), CopiesDiffer, f"slm/{COPY} differs from taste/quant"),
        (
            "llm",
            remove("lm_head.weight"),
            TensorMismatch,
            "missing: llm/lm_head.weight",
        ),
        ("taste", put("x", torch.zeros(1)), TensorMismatch, "unknown: taste/x"),
        ("taste", put("num_steps", torch.zeros(())), TensorMismatch, "num_steps F32"),
        (
            "whisper",
            spoil("model.encoder.conv1.bias", float("nan")),
            NotFinite,
            "model.encoder.conv1.bias|audio_encoder.encoder.conv1.bias",
        ),
    ],
)
def test_bad_tensors_on_the_way_back(ours, tmp_path, part, change, error, words):
    change_ours(ours, part, change)

    with pytest.raises(error, match=words):
        convert(ours, tmp_path / "back", to="official")
    assert not (tmp_path / "back").exists()
    assert not (tmp_path / "back.part").exists()


def test_a_folder_that_was_not_converted(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no conversion.json"):
        convert(tmp_path, tmp_path / "back", to="official")
    (tmp_path / "conversion.json").write_text('{"other": 1}')
    with pytest.raises(DamagedFile, match="convert again"):
        convert(tmp_path, tmp_path / "back", to="official")


def test_an_existing_target_is_left_alone(state, tmp_path):
    source = write_checkpoint(tmp_path / "source", state)
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "mine").write_text("")

    with pytest.raises(FileExistsError, match="name another target"):
        convert(source, tmp_path / "ours", **TO_OURS)
    assert [path.name for path in (tmp_path / "ours").iterdir()] == ["mine"]


def test_arguments_that_make_no_sense(tmp_path):
    for source, to, options in (
        (None, "official", Options()),
        (tmp_path, "theirs", Options()),
        (None, "official", Options(voice_generator=["x"], digests={"y": "z"})),
    ):
        with pytest.raises(
            ValueError, match="nothing to convert|to must|there is none"
        ):
            convert(source, tmp_path / "x", to=to, options=options)


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def test_there_and_back_keeps_every_bit_and_dtype(state, tmp_path):
    """Also values that a detour over float32 or a sum would change."""
    state[CONV].view(-1)[:2] = torch.tensor([-0.0, 1e-39])
    state[CODEBOOK] = state[CODEBOOK].to(torch.float64)
    source = write_checkpoint(tmp_path / "source", state)

    report = convert(source, tmp_path / "ours", **TO_OURS)
    options = Options(max_shard_bytes=4000)
    convert(tmp_path / "ours", tmp_path / "back", to="official", options=options)

    back = read_folder(tmp_path / "back")
    assert set(back) == set(report.consumed)
    for name, tensor in back.items():
        assert tensor.dtype == state[name].dtype
        assert torch.equal(bits(tensor), bits(state[name])), name
    index = json.loads((tmp_path / "back" / INDEX).read_text())
    assert set(index["weight_map"]) == set(back)
    sizes = sum(tensor.nbytes for tensor in back.values())
    assert index["metadata"]["total_size"] == sizes
    assert all(
        path.stat().st_size < 4000 + 10**4
        for path in (tmp_path / "back").glob("*.safetensors")
    )


def test_report_names_every_tensor(state, tmp_path):
    source = write_checkpoint(tmp_path / "source", state)

    report = convert(source, tmp_path / "ours", **TO_OURS)
    back = convert(tmp_path / "ours", tmp_path / "back", to="official")

    assert Report.read(tmp_path / "ours") == report
    unused = {name for name in state if ".mlps." in name}
    assert unused and set(report.dropped) == unused
    assert set(report.consumed) == set(state) - unused
    assert set(report.added) == {
        "taste/num_steps",
        "taste/quantizer.rvq.num_steps",
        "taste/decoder.mask_embedding.weight",
        "slm/slm.codebooks.rvq.num_steps",
    }
    assert set(back.missing) == unused
    assert set(report.added) <= set(back.dropped)
    stored = {
        f"{part}/{name}"
        for part in ("whisper", "taste", "llm", "slm")
        for name in read_folder(tmp_path / "ours" / part)
    }
    assert {*back.consumed, *back.dropped} == stored


def test_what_nobody_uses_may_be_absent(state, tmp_path):
    unused = [name for name in state if ".mlps." in name]
    for name in unused:
        del state[name]
    source = write_checkpoint(tmp_path / "source", state)

    report = convert(source, tmp_path / "ours", **TO_OURS)

    assert (list(report.missing), report.dropped) == (unused, {})


def test_the_tokenizer_of_the_llm_is_taken_along(state, tmp_path):
    source = write_checkpoint(tmp_path / "source", state)
    (source / "llama_tokenizer").mkdir()
    (source / "llama_tokenizer" / "tokenizer.json").write_text("{}")

    convert(source, tmp_path / "ours", **TO_OURS)
    convert(tmp_path / "ours", tmp_path / "back", to="official")

    assert (tmp_path / "ours" / "llm" / "tokenizer.json").is_file()
    files = list((tmp_path / "back" / "llama_tokenizer").iterdir())
    assert [path.name for path in files] == ["tokenizer.json"]


def test_the_speaker_encoder_is_taken_along(state, tmp_path):
    source = write_checkpoint(tmp_path / "source", state)
    (source / "cosyvoice").mkdir()
    (source / "cosyvoice" / "speaker_embed.onnx").write_bytes(b"network")

    report = convert(source, tmp_path / "ours", **TO_OURS)
    back = convert(tmp_path / "ours", tmp_path / "back", to="official")

    digest = report.sha256["speaker/speaker_embed.onnx"]
    assert digest == back.sha256["cosyvoice/speaker_embed.onnx"]
    file = tmp_path / "back" / "cosyvoice" / "speaker_embed.onnx"
    assert file.read_bytes() == b"network"


def test_a_model_that_we_do_not_have(state, tmp_path):
    config = copy.deepcopy(CONFIG)
    config["spoken_lm_config"]["in_llm_module"] = "reference_mix"
    del config["text_config"]["model_type"]
    source = write_checkpoint(tmp_path / "source", state, config=config)

    words = "in_llm_module is 'reference_mix', .*text_config.model_type is None"
    with pytest.raises(UnknownArchitecture, match=words):
        convert(source, tmp_path / "ours", **TO_OURS)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("audio_tower_config", "target_hidden_layer", 3),
        ("speech_decoder_config", "encoder__use_dynamic_chunk", True),
        ("speech_decoder_config", "encoder__normalize_before", False),
        ("speech_decoder_config", "encoder__selfattention_layer_type", "selfattn"),
        ("speech_decoder_config", "llm__selfattention_layer_type", "selfattn"),
    ],
)
def test_what_changes_results_but_no_tensor_is_refused(
    state, tmp_path, part, key, value
):
    config = copy.deepcopy(CONFIG)
    place = config[part]
    if part == "audio_tower_config":
        place = place["kwargs_for_joint_encoder_segmenter"]
    place[key] = value
    source = write_checkpoint(tmp_path / "source", state, config=config)

    with pytest.raises(UnknownArchitecture, match=f"{key} is {value!r}, we have"):
        convert(source, tmp_path / "ours", **TO_OURS)
