"""Whatever users call audio."""

import io
import os
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from espnet_taste.data.audio import AudioError
from espnet_taste.pipeline.inputs import is_many, read_any, slices

WAVE = np.random.default_rng(0).uniform(-0.5, 0.5, 1600).astype(np.float32)


class TorchcodecDecoder:
    """Items of Hugging Face datasets 4 and later, which are no mappings."""

    def get_all_samples(self):
        return SimpleNamespace(data=torch.from_numpy(WAVE)[None], sample_rate=16000)


@pytest.fixture
def path(tmp_path):
    soundfile.write(tmp_path / "a.wav", WAVE, 16000, subtype="FLOAT")
    return tmp_path / "a.wav"


def test_all_forms_give_the_same_samples(path):
    forms = [
        path,
        str(path),
        io.BytesIO(path.read_bytes()),
        WAVE,
        WAVE.astype(np.float64),
        np.stack([WAVE, WAVE]),
        np.stack([WAVE, WAVE], axis=1),
        torch.from_numpy(WAVE)[None],
        {"array": WAVE, "sampling_rate": 16000, "path": None},
        {"bytes": path.read_bytes(), "path": "elsewhere.wav"},
        {"bytes": None, "path": str(path)},
        TorchcodecDecoder(),
    ]
    for form in forms:
        found = read_any(form)
        assert found.dtype == np.float32 and found.shape == (1600,)
        np.testing.assert_allclose(found, WAVE, atol=1e-7)


def test_integers_are_of_full_scale():
    ints = (WAVE * 32768).astype(np.int16)

    np.testing.assert_allclose(read_any(ints), WAVE, atol=2 / 32768)


def test_the_rate_of_an_array_is_the_callers():
    assert len(read_any(WAVE, 8000)) == 3200
    assert len(read_any({"array": WAVE, "sampling_rate": 48000})) == pytest.approx(533)
    assert len(read_any(WAVE, torch.tensor(8000))) == 3200


@pytest.mark.parametrize(
    "rate", [None, "high", 0, -8000, 16, float("nan"), float("inf")]
)
def test_what_is_no_rate_is_refused(rate):
    """The resampler does not return from NaN."""
    with pytest.raises(AudioError, match="x has a rate of .*, expected samples a sec"):
        read_any(WAVE, rate, where="x")


def test_integers_whose_full_scale_is_not_their_types_are_refused():
    """A list of 16-bit samples became near silence, which was encoded."""
    samples = np.asarray((WAVE * 32768).astype(int).tolist())

    with pytest.raises(AudioError, match="x is of type int64, which tells no full sc"):
        read_any(samples, 16000, where="x")


def test_half_precision_is_read_too():
    wave = torch.from_numpy(WAVE).bfloat16()

    np.testing.assert_array_equal(read_any(wave), wave.float().numpy())


def test_open_files_that_cannot_be_read_are_named(path, capfd):
    with path.open("rb") as stream:
        read_any(stream)
        with pytest.raises(AudioError, match="^empty: x is a file at its end; seek"):
            read_any(stream, where="x")
    with pytest.raises(AudioError, match="x: .*closed file; open it again"):
        read_any(stream, where="x")
    with pytest.raises(TypeError, match="opened as text; open it in mode 'rb'"):
        read_any(io.StringIO("RIFF"), where="x")
    assert capfd.readouterr().err == ""


def test_a_list_is_many():
    assert is_many([WAVE]) and is_many(("a", "b"))
    assert not is_many("a.wav") and not is_many(WAVE) and not is_many({"array": 1})
    assert is_many([])
    with pytest.raises(TypeError, match="list of numbers; give an array"):
        is_many(WAVE.tolist())


def test_batches_hold_something():
    assert [list(range(5))[part] for part in slices(5, 2)] == [[0, 1], [2, 3], [4]]
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"at least 1, got {size}"):
            slices(5, size)


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (np.zeros(0, np.float32), "empty: no samples in x"),
        (np.array([0.0, np.nan]), "nan: 1 of 2 samples"),
        (np.zeros((2, 3, 4)), "unreadable: x has shape"),
        (np.array(["a"]), "unreadable: x has shape"),
        (io.BytesIO(b"no sound"), "unreadable: x: Format not recognised.$"),
    ],
)
def test_what_is_no_audio_is_named(audio, words):
    with pytest.raises(AudioError, match=words):
        read_any(audio, where="x")


def test_other_types_are_refused():
    with pytest.raises(TypeError, match="x is a int; expected a path.*sample_rate_hz"):
        read_any(3, where="x")
    with pytest.raises(TypeError, match=r"mapping without \['array'\]; of a row"):
        read_any({"sampling_rate": 3}, where="x")


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_what_was_cut_off_is_no_shorter_speech(tmp_path, name):
    soundfile.write(tmp_path / name, WAVE, 16000)
    content = (tmp_path / name).read_bytes()
    half = content[: len(content) // 2]

    for form in (io.BytesIO(half), {"bytes": half, "path": None}):
        with pytest.raises(AudioError, match="unreadable"):
            read_any(form)


def test_a_path_is_whatever_names_one(path):
    (entry,) = os.scandir(path.parent)

    np.testing.assert_allclose(read_any(entry), WAVE, atol=1e-7)
    np.testing.assert_allclose(
        read_any({"bytes": None, "path": entry}), WAVE, atol=1e-7
    )


def test_empty_stereo_is_empty(tmp_path):
    soundfile.write(tmp_path / "e.wav", np.zeros((0, 2)), 16000)

    for form in (np.zeros((2, 0)), tmp_path / "e.wav", (tmp_path / "e.wav").open("rb")):
        with pytest.raises(AudioError, match="empty: no samples"):
            read_any(form)
