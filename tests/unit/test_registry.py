"""Registration: lazy, checked, and visible to a stock ESPnet task."""

import subprocess
import sys

import pytest

from espnet_taste import registry
from espnet_taste.tasks.choices import quantizer_choices
from espnet_taste.tokenizer.quantizer import NoQuantizer


@pytest.fixture
def restore():
    before = dict(quantizer_choices.classes)
    yield
    quantizer_choices.classes.clear()
    quantizer_choices.classes.update(before)


def test_one_line_adds_a_class_in_lower_case(restore):
    class Mine(NoQuantizer):
        pass

    registry.register("quantizer", "Mine", Mine)

    assert quantizer_choices.get_class("MINE") is Mine


def test_a_class_of_another_kind_is_refused(restore):
    with pytest.raises(TypeError, match="must inherit .*AbsQuantizer"):
        registry.register("quantizer", "wrong", dict)


def test_a_taken_name_is_refused(restore):
    class Other(NoQuantizer):
        pass

    with pytest.raises(ValueError, match="already RvqQuantizer"):
        registry.register("quantizer", "rvq", Other)


def test_registering_twice_is_harmless(restore):
    registry.register("quantizer", "no_quantizer", NoQuantizer)


def test_an_unknown_registry_is_named():
    with pytest.raises(ValueError, match="unknown registry 'qantizer'"):
        registry.register("qantizer", "x", NoQuantizer)


def test_a_stock_task_can_choose_our_encoder():
    """In a process of its own, because the hook must come before the import."""
    code = (
        "import espnet_taste, espnet2.tasks.asr as asr;"
        "print(asr.encoder_choices.get_class('taste_whisper').__name__);"
        "import espnet; print(espnet.TASKS['taste'][0])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert result.stdout.split() == [
        "TasteWhisperEncoder",
        "espnet_taste.pipeline.speech",
    ], result.stderr
