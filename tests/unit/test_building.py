"""Names of options: unknown and missing ones, in every section of every training."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_taste import no_quantizer, tiny_model

from espnet_taste.tasks.building import ModelBuilder, check_options
from espnet_taste.tokenizer.quantizer import NoQuantizer

CONF = Path(__file__).parents[2] / "conf" / "debug"


def takes(first, second=2, *, third=3, **rest):
    """A target."""


def passes_on(fourth, **rest):
    """A target that passes the rest on."""


@pytest.mark.parametrize(
    ("conf", "given", "message"),
    [
        (
            {"first": 1, "thrid": 0},
            (),
            r"conf: unknown option \['thrid'\]; known: \['fir",
        ),
        ({"second": 1}, (), r"conf: no value for \['first'\]"),
        ({"first": 1}, ["first"], r"unknown option \['first'\]; known: \['second'"),
        ({"rest": 1}, ["first"], r"unknown option \['rest'\]"),
        ({1: 2}, ["first"], r"unknown option \['1'\]"),
        (7, (), "conf: expected names and values, got 7"),
    ],
)
def test_wrong_options_are_named(conf, given, message):
    with pytest.raises(ValueError, match=message):
        check_options("conf", conf, takes, given=given)


def test_options_may_be_those_of_several_targets():
    check_options("conf", {"first": 1, "third": 0}, takes)
    check_options("conf", {"second": 1}, takes, given=["first"])
    check_options("conf", {"fourth": 1, "third": 0}, passes_on, takes, given=["first"])


def test_a_class_without_a_constructor_of_its_own_takes_no_options():
    """The bottleneck that is none; Python says that it takes anything."""
    check_options("quantizer_conf", {}, NoQuantizer)
    with pytest.raises(ValueError, match=r"unknown option \['codebook_size'\]"):
        check_options("quantizer_conf", {"codebook_size": 8}, NoQuantizer)


SECTIONS = [
    ("tokenizer:TasteTokenizerTask", "train_taste", "model_conf"),
    ("tokenizer:TasteTokenizerTask", "train_taste", "decoder_conf"),
    ("tokenizer:TasteTokenizerTask", "train_taste", "quantizer_conf"),
    ("unit_to_mel:UnitToMelTask", "train_unit_to_mel", "model_conf"),
    ("unit_to_mel:UnitToMelTask", "train_unit_to_mel", "unit_to_mel_conf"),
    ("unit_autoencoder:UnitAutoencoderTask", "train_units", "model_conf"),
    ("unit_autoencoder:UnitAutoencoderTask", "train_units", "encoder_conf"),
    ("unit_autoencoder:UnitAutoencoderTask", "train_units", "unit_encoder_conf"),
    ("unit_autoencoder:UnitAutoencoderTask", "train_units", "unit_to_mel_conf"),
    ("slm:TasteSpokenLMTask", "train_slm", "model_conf"),
    ("slm:TasteSpokenLMTask", "train_slm", "slm_conf"),
    ("slm:TasteSpokenLMTask", "train_slm", "slm_conf: weights"),
    ("slm:TasteSpokenLMTask", "train_slm", "slm_conf: lora"),
]


@pytest.mark.parametrize(("task", "config", "section"), SECTIONS)
def test_a_misspelt_option_of_a_training_is_named(monkeypatch, task, config, section):
    from espnet_taste.bin.training import load_task
    from espnet_taste.tasks import slm_builder

    # The spoken LM reads its quantizer first and must not come to its LLM.
    monkeypatch.setattr(slm_builder, "record_frozen_weights", lambda *names: None)
    monkeypatch.delattr(slm_builder, "load_llm")
    cls = load_task(f"espnet_taste.tasks.{task}")
    argv = ["--config", str(CONF / f"{config}.yaml"), "--output_dir", "unused"]
    args = cls.get_parser().parse_args(argv)
    units = {"num_units": 8, "unit_rate_hz": 50.0}
    if config == "train_taste":
        args.decoder_conf |= {"num_units": 8}
    if config == "train_unit_to_mel":
        args.unit_to_mel_conf |= units
    if config == "train_slm":
        args.quantizer_conf = {"input_dim": 8, "codebook_dim": 4}
        args.slm_conf |= {"taste_dim": 8, "weights": {}}
    name, _, inside = section.partition(": ")
    conf = getattr(args, name)
    (conf[inside] if inside else conf)["speling"] = 1

    with pytest.raises(ValueError, match=rf"^{section}: unknown option \['speling'\]"):
        cls.build_model(args)


def test_a_type_that_torch_does_not_have_is_refused_before_the_llm_is_loaded():
    """It ended in an AttributeError of torch."""
    from espnet_taste.tasks.slm_builder import check_slm_options

    args = SimpleNamespace(llm_dtype="bf16", slm_conf={"taste_dim": 8}, model_conf={})
    with pytest.raises(ValueError, match="llm_dtype must be one of bfloat16, .*'bf16'"):
        check_slm_options(args)

    args.llm_dtype = "bfloat16"
    check_slm_options(args)


def test_a_training_takes_the_weights_before_it_and_counts_from_zero(tmp_path):
    """What warms up or is taught at first does so in every training."""
    before, model = tiny_model(quantizer=no_quantizer()), tiny_model()
    with torch.no_grad():
        before.num_steps.fill_(7)
        before.decoder.output.bias.fill_(0.5)
    torch.save(before.state_dict(), tmp_path / "before.pth")

    ModelBuilder.start_from(model, tmp_path / "before.pth", ("quantizer",))

    assert int(model.num_steps) == 0
    assert torch.equal(model.decoder.output.bias, before.decoder.output.bias)


def test_a_training_without_one_before_it_starts_as_it_was_built():
    model = tiny_model()
    state = {name: value.clone() for name, value in model.state_dict().items()}

    ModelBuilder.start_from(model, None, ())

    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
