"""Crops of units and mel frames: aligned, evenly spread, checked."""

import numpy as np
import pytest
import torch

from espnet_taste.data.mel_crops import (
    TARGET_LEVEL,
    MelCropCollate,
    UnitMelPreprocessor,
    level_mel,
)

UNITS_PER_FRAME = 50.0 * 256 / 22050


def utterance(num_units):
    """Units count up; every mel frame holds its own number."""
    num_frames = int(num_units / UNITS_PER_FRAME)
    return {
        "units": np.arange(num_units),
        "mel": np.repeat(np.arange(num_frames, dtype=np.float32)[:, None], 3, axis=1),
        "spembs": np.ones(4, np.float32),
    }


def test_frames_of_a_crop_lie_where_the_offset_says():
    np.random.seed(0)
    items = [("a", utterance(500)), ("b", utterance(230))]

    uids, batch = MelCropCollate(UNITS_PER_FRAME, crop_units=48)(items)

    assert uids == ["a"] * 10 + ["b"] * 5
    assert batch["units"].shape == (15, 48)
    begins = batch["units"][:, 0] / UNITS_PER_FRAME + batch["frame_offset"]
    torch.testing.assert_close(batch["mel"][:, 0, 0], begins.float())
    assert (batch["frame_offset"] >= 0).all() and (batch["frame_offset"] < 1).all()
    ends = (batch["units"][:, -1] + 1) / UNITS_PER_FRAME
    last = batch["mel"][torch.arange(15), batch["mel_lengths"] - 1, 0]
    assert ((last + 1) <= ends + 1e-3).all() and (ends - last < 2.01).all()


def test_crops_are_spread_over_the_utterance():
    np.random.seed(0)

    _, batch = MelCropCollate(UNITS_PER_FRAME, 50)([("a", utterance(500))])

    starts = batch["units"][:, 0]
    assert (starts.diff() > 0).all() and starts[0] < 50 and starts[-1] >= 400


def test_short_and_whole_utterances_are_padded():
    items = [("a", utterance(20)), ("b", utterance(30))]

    for collate in (
        MelCropCollate(UNITS_PER_FRAME, 48),
        MelCropCollate(UNITS_PER_FRAME),
    ):
        _, batch = collate(items)

        assert batch["units_lengths"].tolist() == [20, 30]
        assert batch["mel_lengths"].tolist() == [34, 51]
        assert batch["units"][0, 20:].eq(-1).all()


def test_one_unit_with_one_frame_survives():
    data = {**utterance(1), "mel": np.zeros((1, 3), np.float32)}

    _, batch = MelCropCollate(UNITS_PER_FRAME, 48)([("a", data)])

    assert batch["mel"].shape == (1, 1, 3)


def test_level_does_not_depend_on_loudness():
    mel = np.random.default_rng(0).normal(-4, 1, (30, 80))

    np.testing.assert_allclose(level_mel(mel), level_mel(mel + 1.5), atol=1e-5)
    energy = np.mean(np.exp(2.0 * level_mel(mel)))
    assert 0.5 * np.log(energy) == pytest.approx(TARGET_LEVEL, abs=1e-3)


def test_units_and_mel_of_different_audio_are_refused():
    preprocess = UnitMelPreprocessor(UNITS_PER_FRAME, num_units=500)
    data = utterance(100)
    data["mel"] = data["mel"] * 0 - 4

    assert len(preprocess("a", data)["mel"]) == 172
    with pytest.raises(ValueError, match="'a' has 80 mel frames, its 100 units"):
        preprocess("a", {**data, "mel": data["mel"][:80]})
    with pytest.raises(ValueError, match=r"units 0\.\.99, expected 0\.\.63"):
        UnitMelPreprocessor(UNITS_PER_FRAME, num_units=64)("a", data)
