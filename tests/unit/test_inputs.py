"""Whatever users call audio."""

import io

import numpy as np
import pytest
import soundfile
import torch

from espnet_taste.data.audio import AudioError
from espnet_taste.pipeline.inputs import is_many, read_any

WAVE = np.random.default_rng(0).uniform(-0.5, 0.5, 1600).astype(np.float32)


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


def test_a_list_is_many():
    assert is_many([WAVE]) and is_many(("a", "b"))
    assert not is_many("a.wav") and not is_many(WAVE) and not is_many({"array": 1})


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (np.zeros(0, np.float32), "empty: no samples in x"),
        (np.array([0.0, np.nan]), "nan: 1 of 2 samples"),
        (np.zeros((2, 3, 4)), "unreadable: x has shape"),
        (np.array(["a"]), "unreadable: x has shape"),
        (io.BytesIO(b"no sound"), "unreadable: x:"),
    ],
)
def test_what_is_no_audio_is_named(audio, words):
    with pytest.raises(AudioError, match=words):
        read_any(audio, where="x")


def test_other_types_are_refused():
    with pytest.raises(TypeError, match="x is a int; expected a path"):
        read_any(3, where="x")
    with pytest.raises(TypeError, match=r"mapping without \['array'\]"):
        read_any({"sampling_rate": 3}, where="x")
