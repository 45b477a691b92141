"""The pack inside the repository is small, whole, and read as the large one is."""

import json
import lzma
from pathlib import Path

import pytest
import torch
from golden_subset import CUTS, LIMIT_BYTES, ROUNDED_BITS, cut, round_mantissa
from packed_fixtures import (
    SUFFIX,
    is_packed,
    pack,
    pack_tensors,
    unpack,
    unpack_tensors,
)
from safetensors.torch import load_file, save_file

DATA = Path(__file__).parent / "data"
PARTS = {"tower", "rvq", "speech_decoder", "slm", "completion", "flow", "hift"}
PARTS |= {"frontend", "checkpoint_expected"}


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    return {
        "scalar": torch.tensor(2.5),
        "weight": torch.randn(3, 4).T,
        "short": torch.randn(5).bfloat16(),
        "ids": torch.arange(6).reshape(2, 3),
        "samples": torch.tensor([-(2**15), 7], dtype=torch.int16),
        "mask": torch.tensor([True, False]),
        "empty": torch.zeros(0, 4),
    }


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


def test_tensors_come_back_bit_for_bit(tensors):
    assert_same(unpack_tensors(pack_tensors(tensors)), tensors)


def test_files_come_back(tensors, tmp_path):
    source, packed, target = (tmp_path / name for name in ("source", "packed", "back"))
    (source / "inner").mkdir(parents=True)
    contiguous = {name: value.contiguous() for name, value in tensors.items()}
    save_file(contiguous, source / "inner" / "x.safetensors")
    (source / "x.json").write_text('{"a": "ä"}', encoding="utf-8")
    assert not is_packed(source)

    for path in (source / "x.json", source / "inner" / "x.safetensors"):
        place = path.relative_to(source)
        pack(path, packed / place.with_name(place.name + SUFFIX))
    assert is_packed(packed)
    unpack(packed, target)

    assert (target / "x.json").read_bytes() == (source / "x.json").read_bytes()
    assert_same(load_file(target / "inner" / "x.safetensors"), tensors)


def test_rounding_is_to_the_nearest_and_of_floats_only():
    torch.manual_seed(0)
    values = torch.cat([torch.randn(1000), torch.tensor([0.0, -0.0, 1.0, 1e-30])])

    rounded = round_mantissa(values)

    # 23 bits behind the point, half a step of what is left.
    bound = 2.0 ** (ROUNDED_BITS - 24)
    assert ((rounded - values).abs() <= bound * values.abs()).all()
    low_bits = rounded.view(torch.int32) & ((1 << ROUNDED_BITS) - 1)
    assert low_bits.count_nonzero() == 0
    assert torch.equal(round_mantissa(torch.arange(99)), torch.arange(99))


def test_what_is_cut_is_listed(tmp_path):
    info = {
        "outputs": {"0.mel": {"atol": 1.0}, "1.mel": {"atol": 1.0}},
        "inputs": {"0.token": {}, "1.token": {}},
        "token_counts": [3, 4],
        "mel_frames": [5, 6],
    }
    source, target = tmp_path / "flow.json", tmp_path / "out"
    target.mkdir()
    source.write_text(json.dumps(info))
    names = ("in.0.token", "in.1.token", "out.0.mel", "out.1.mel", "state.w")
    save_file(
        {name: torch.ones(1) for name in names}, source.with_suffix(".safetensors")
    )

    cut(source, target)

    kept = json.loads((target / "flow.json").read_text())
    assert kept["mel_frames"] == [5] and kept["token_counts"] == [3]
    assert list(kept["outputs"]) == ["0.mel"] and "left_out" not in kept
    assert set(load_file(target / "flow.safetensors")) == set(names[::2]) | {"state.w"}


def test_the_committed_pack_has_every_part_and_is_small():
    files = [path for path in DATA.rglob("*") if path.is_file()]
    assert files and all(path.suffix == SUFFIX for path in files)
    assert sum(path.stat().st_size for path in files) < LIMIT_BYTES
    cases = {path.name.removesuffix(f".json{SUFFIX}") for path in DATA.glob("*.json.*")}
    logic = {name for name in cases if name.startswith("logic_")}
    assert cases - logic == PARTS | {"full_keys", "voice_generator_keys"}
    assert len(logic) == 6
    assert set(CUTS) <= PARTS
    for name in cases & PARTS:
        info = json.loads(lzma.decompress((DATA / f"{name}.json{SUFFIX}").read_bytes()))
        assert info["outputs"], name
    assert (DATA / "checkpoint" / f"config.json{SUFFIX}").is_file()


def test_the_large_pack_is_preferred(monkeypatch, tmp_path, request):
    """Beside the repository first, inside it second, and a named folder before both."""
    conftest = request.config.pluginmanager.get_plugin(
        str(DATA.parents[1] / "conftest.py")
    )
    beside, inside = tmp_path / "beside", tmp_path / "inside"
    assert conftest.GOLDEN_PLACES[1] == DATA
    assert conftest.GOLDEN_PLACES[0] == DATA.parents[3] / "shared" / "golden"
    monkeypatch.delenv("TASTE_GOLDEN_DIR", raising=False)
    with pytest.raises(pytest.skip.Exception):
        conftest.find_golden((beside, inside))
    inside.mkdir()
    assert conftest.find_golden((beside, inside)) == inside
    beside.mkdir()
    assert conftest.find_golden((beside, inside)) == beside
    monkeypatch.setenv("TASTE_GOLDEN_DIR", str(tmp_path))
    assert conftest.find_golden((beside, inside)) == tmp_path
    monkeypatch.setenv("TASTE_GOLDEN_DIR", str(tmp_path / "none"))
    with pytest.raises(pytest.fail.Exception):
        conftest.find_golden((beside, inside))
