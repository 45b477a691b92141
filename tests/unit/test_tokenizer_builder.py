"""What the tokenizer's task makes of its options, beside the model."""

import numpy as np
import pytest
import torch

from espnet_taste.tasks.tokenizer import TasteTokenizerTask
from tests.unit.test_unit_start import build  # noqa: F401  (fixture)
from tests.unit.test_whisper_kmeans import learn, whisper  # noqa: F401  (fixture)


@pytest.fixture
def slow_units(whisper, tmp_path):  # noqa: F811
    """Units at 25 a second, half of the default."""
    learn(whisper, unit_rate_hz=25.0).save(tmp_path / "units")
    return str(tmp_path / "units")


def utterance(args, train=True):
    """Preprocess an utterance of two words, a second each."""
    data = {
        "text": "ab c",
        "units": np.arange(50) % 8,
        "word_times": np.array([[0.0, 1.0], [1.0, 2.0]]),
        "spembs": np.ones(6, np.float32),
    }
    return TasteTokenizerTask.build_preprocess_fn(args, train)("u", data)


def test_the_rate_of_the_units_is_that_of_their_folder(slow_units, build):  # noqa: F811
    _, args = build(units_dir=slow_units)

    assert args.unit_rate_hz == 25.0
    assert utterance(args)["word_bounds"].tolist() == [0, 25, 50]


def test_training_has_spans_and_validation_whole_utterances(
    slow_units, build  # noqa: F811
):
    """Without spans and masks a small corpus teaches a decoder to ignore the text."""
    spans = {"whole": False, "sizes": [1], "max_masked_units": 0.5}
    model, args = build(units_dir=slow_units, span_conf=spans)
    items = [("u", utterance(args)), ("v", utterance(args))]

    _, trained = TasteTokenizerTask.build_collate_fn(args, True)(items)
    _, valid = TasteTokenizerTask.build_collate_fn(args, False)(items)

    rows = trained["layout"].lm_rows
    assert len(set(rows[rows >= 0].tolist())) == 4  # a row a word
    assert "layout" not in valid
    loss, stats, _ = model.train()(**trained)
    assert torch.isfinite(loss) and stats["padding_share"] < 1
