"""Every YAML file of conf/ is read by its command's parser and fits its classes."""

import inspect
from pathlib import Path

import pytest
import yaml

CONF = Path(__file__).parents[2] / "conf"
FILES = sorted(CONF.rglob("*.yaml"))
TOKENIZER = [p for p in FILES if "text_only" in p.name or "vq" in p.name]
TOKENIZER += [p for p in FILES if p.name == "train_taste.yaml"]


def relative(path):
    return str(path.relative_to(CONF))


def test_all_files_are_found():
    """A glob that finds too little would make this file pass for nothing."""
    by_folder = {}
    for path in FILES:
        by_folder.setdefault(relative(path.parent), set()).add(path.name)

    assert by_folder["."] == by_folder["debug"]
    assert len(by_folder["."]) == 10 and len(TOKENIZER) == 13
    assert len(by_folder["released"]) == 6


def test_the_released_vocoder_is_built_at_its_size():
    import torch

    from espnet_taste.decoder.cosyvoice import build_cosyvoice

    conf = yaml.safe_load((CONF / "released/vocoder.yaml").read_text())
    with torch.device("meta"):
        vocoder = build_cosyvoice(conf)

    assert sum(p.numel() for p in vocoder.parameters()) == 125_335_343


@pytest.mark.parametrize("path", TOKENIZER, ids=relative)
def test_a_tokenizer_config_fits_its_classes(path):
    from espnet_taste.data.collate import SpanOptions
    from espnet_taste.tasks.tokenizer import TasteTokenizerTask
    from espnet_taste.tasks.tokenizer_model import TasteTokenizerModel

    args = TasteTokenizerTask.get_parser().parse_args(["--config", str(path)])

    SpanOptions.from_conf(args.span_conf)
    assert set(args.model_conf) <= set(
        inspect.signature(TasteTokenizerModel).parameters
    )
    for choices in TasteTokenizerTask.class_choices_list:
        cls = choices.get_class(getattr(args, choices.name))
        conf = getattr(args, f"{choices.name}_conf")
        known = inspect.signature(cls).parameters if cls else {}
        assert set(conf) <= set(known), choices.name
    if args.num_iters_per_epoch:
        steps = args.max_epoch * args.num_iters_per_epoch
        assert args.scheduler_conf["total_steps"] == steps


def test_the_released_decoder_has_the_size_of_the_released_decoder():
    """153.4 million parameters, with the text table of large-v3 and CAM++ speakers."""
    import torch

    from espnet_taste.decoder.unit_lm import UnitLM

    conf = yaml.safe_load((CONF / "released/train_taste.yaml").read_text())
    sizes = {**conf["decoder_conf"], "speaker_dim": 192}
    with torch.device("meta"):
        decoder = UnitLM(num_units=4096, text_vocab_size=51866, **sizes)

    total = sum(p.numel() for p in decoder.parameters())
    assert round(total / 1e6, 1) == 153.4


@pytest.mark.parametrize("folder", [".", "debug", "released"])
def test_all_sub_stages_train_one_decoder(folder):
    """Reference defect C22: normalisation and the end come and go between stages."""
    paths = [path for path in TOKENIZER if path.parent == CONF / folder]
    confs = {path.name: yaml.safe_load(path.read_text()) for path in paths}
    assert len(confs) >= 3
    for key in ("decoder", "decoder_conf", "span_conf"):
        assert len({repr(conf[key]) for conf in confs.values()}) == 1, key
    # What listens is one from its first sub-stage on.
    listening = [conf for conf in confs.values() if conf["encoder"] != "none"]
    assert len(listening) >= 2
    for key in ("encoder", "encoder_conf", "aggregator", "aggregator_conf"):
        assert len({repr(conf[key]) for conf in listening}) == 1, key


@pytest.mark.parametrize(
    "name", ["train_slm.yaml", "debug/train_slm.yaml", "released/train_slm.yaml"]
)
def test_a_spoken_lm_config_fits(name):
    from espnet_taste.tasks.slm import TasteSpokenLMTask
    from espnet_taste.tasks.slm_builder import check_slm_options

    parser = TasteSpokenLMTask.get_parser()
    args = parser.parse_args(["--config", str(CONF / name)])

    args.slm_conf["taste_dim"] = 384  # of the tokenizer
    check_slm_options(args)
    if args.num_iters_per_epoch:
        steps = args.max_epoch * args.num_iters_per_epoch
        assert args.scheduler_conf["total_steps"] == steps


@pytest.mark.parametrize("name", ["decode.yaml", "debug/decode.yaml"])
def test_decoding_options_fit(name):
    from espnet_taste.pipeline.speech import DecodeOptions

    assert DecodeOptions.read(CONF / name).sampling.bounds == "tokens"


def test_tokenizers_of_ours_draw_units_as_the_recipe_does(tmp_path):
    """At any unit rate; released ones draw as released."""
    from espnet_taste.pipeline.released import ReleasedInference
    from espnet_taste.pipeline.speech import DecodeOptions
    from espnet_taste.pipeline.tokenizer import TokenizerInference

    assert (
        DecodeOptions.read(CONF / "decode.yaml").sampling == TokenizerInference.sampling
    )
    assert DecodeOptions().sampling is None
    assert ReleasedInference.sampling.bounds == "prompt"


def test_released_spoken_lms_keep_the_latent_of_the_reference():
    """Reference defect C9, kept by name: a default that changes must not change it."""
    conf = yaml.safe_load((CONF / "released/train_slm.yaml").read_text())
    assert conf["slm_conf"]["eval_latent"] == "mu_sigma"


def test_controls_train_as_long_as_what_they_are_compared_with():
    def steps(name):
        conf = yaml.safe_load((CONF / f"train_{name}.yaml").read_text())
        total = conf["max_epoch"] * conf["num_iters_per_epoch"]
        assert conf["scheduler_conf"]["total_steps"] == total
        return total

    assert steps("text_only_control") == steps("without_vq") + steps("taste")
    assert steps("without_vq_control") == steps("taste")
    for name in ("units", "unit_to_mel", "text_only", "slm"):
        steps(name)


def test_a_misspelt_key_stops_the_program(tmp_path, capsys):
    """Reference defect C32: such a key is ignored."""
    from espnet_taste.tasks.tokenizer import TasteTokenizerTask

    path = tmp_path / "c.yaml"
    path.write_text("encodr: whisper\n")

    with pytest.raises(SystemExit):
        TasteTokenizerTask.get_parser().parse_args(["--config", str(path)])

    assert "encodr" in capsys.readouterr().err


def test_a_misspelt_key_of_the_adapters_is_refused():
    """Reference defect C32: the one that was ignored stands this deep."""
    from types import SimpleNamespace

    from espnet_taste.tasks.slm_builder import check_slm_options

    conf = yaml.safe_load((CONF / "train_slm.yaml").read_text())
    conf["slm_conf"] |= {
        "taste_dim": 8,
        "lora": {"r": 4, "lora_linear_name_to_skip": "x"},
    }
    args = SimpleNamespace(
        llm_dtype="bfloat16", slm_conf=conf["slm_conf"], model_conf={}
    )

    with pytest.raises(ValueError, match="slm_conf: lora: unknown .*lora_linear_name"):
        check_slm_options(args)


@pytest.mark.parametrize("text", ["sampling: {topk: 3}", "batchsize: 3"])
def test_a_misspelt_decoding_option_is_named(tmp_path, text):
    from espnet_taste.pipeline.speech import DecodeOptions

    path = tmp_path / "decode.yaml"
    path.write_text(text)

    with pytest.raises(ValueError, match=r"unknown \['(topk|batchsize)'\]"):
        DecodeOptions.read(path)


def test_the_debug_twins_differ_in_sizes_only():
    """A key that only one of the two has would not be tested by the demo."""
    for path in sorted(CONF.glob("train_*.yaml")):
        real = yaml.safe_load(path.read_text())
        tiny = yaml.safe_load((CONF / "debug" / path.name).read_text())
        assert real.keys() == tiny.keys(), path.name
