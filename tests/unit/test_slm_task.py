"""The spoken LM as ESPnet trains it: loss, statistics, weight, precision."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_experiment import write_experiment, write_spoken_lm, write_whisper
from tiny_slm import NUM_CODEBOOKS, make_batch, make_slm

from espnet_taste.tasks.building import read_config
from espnet_taste.tasks.slm_builder import SpokenLMBuilder
from espnet_taste.tasks.slm_model import TasteSpokenLMModel
from espnet_taste.weights.digests import TRAINED_FILE


@pytest.fixture
def batch():
    return make_batch([[1, 2, 1], [2], [1, 1, 1, 3]])


@pytest.mark.parametrize(("end_id", "ends"), [(None, 0), (3, 3)])
def test_a_batch_counts_by_its_predicted_tokens(batch, end_id, ends):
    """Ranks and batches of one epoch are averaged by this weight."""
    _, _, weight = TasteSpokenLMModel(make_slm(end_id=end_id))(batch)

    assert weight.tolist() == [4 + 2 + 6 + ends]


def test_statistics_are_those_of_the_losses(batch):
    slm = make_slm()
    out = slm(batch)

    loss, stats, _ = TasteSpokenLMModel(slm)(batch)

    assert loss.requires_grad and not any(s.requires_grad for s in stats.values())
    expected = {
        "loss": out.loss,
        "loss_text": out.text_loss,
        "text_ce": out.text_ce,
        "text_kl": out.text_kl,
        "loss_taste": out.taste_loss,
        "acc": out.text_accuracy,
        "acc_codes": out.code_accuracy.mean(),
        "latent_mse": out.taste_terms["latent_mse"],
        "latent_kl": out.taste_terms["latent_kl"],
        "latent_error": out.taste_terms["latent_error"],
    }
    expected |= {f"acc_code{n}": out.code_accuracy[n] for n in range(NUM_CODEBOOKS)}
    assert stats.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(stats[name], value.detach()[None], msg=name)


def test_autocast_stays_near_float32(batch, with_bfloat16):
    exact, _, _ = TasteSpokenLMModel(make_slm())(batch)
    half, _, _ = TasteSpokenLMModel(make_slm(), amp_dtype="bfloat16")(batch)

    assert half.dtype == torch.float32
    assert 0 < abs(half - exact) < 0.05 * exact


def test_a_start_from_another_tokenizers_spoken_lm_is_refused(tmp_path):
    """Its checkpoint carries its quantizer, which replaced the tokenizer's."""
    tokenizer = write_experiment(tmp_path / "exp", write_whisper(tmp_path / "whisper"))
    experiment = write_spoken_lm(tokenizer, tmp_path / "llm")
    args = read_config(experiment / "slm" / "config.yaml")
    args.init_from = str(experiment / "slm" / TRAINED_FILE)
    args.tokenizer_file = str(experiment / "taste" / TRAINED_FILE)
    SpokenLMBuilder.build_model(args)

    state = torch.load(args.tokenizer_file)
    name = next(n for n in state if n.startswith("quantizer.") and "embed" in n)
    torch.save(state | {name: state[name] + 1}, args.tokenizer_file)

    with pytest.raises(ValueError, match=f"of another tokenizer than .*{name[10:]}"):
        SpokenLMBuilder.build_model(args)


@pytest.fixture
def untrained(tmp_path):
    """Arguments of a training that begins, and its text LLM's folder."""
    tokenizer = write_experiment(tmp_path / "exp", write_whisper(tmp_path / "whisper"))
    experiment = write_spoken_lm(tokenizer, tmp_path / "llm")
    args = read_config(experiment / "slm" / "config.yaml")
    args.tokenizer_file = str(experiment / "taste" / TRAINED_FILE)
    args.frozen_weights = {}
    return args, tmp_path / "llm"


def test_a_training_begins_with_adapters_that_change_nothing(untrained):
    """Reference defect C6: what initialises the whole model overwrites their zeros."""
    args, _ = untrained

    slm = SpokenLMBuilder.build_model(args).slm

    outer = [p for name, p in slm.llm.named_parameters() if "lora_B" in name]
    assert outer and not any(p.any() for p in outer)


def test_the_end_of_a_text_is_modelled_where_it_is_asked_for(untrained):
    args, _ = untrained

    assert SpokenLMBuilder.build_model(args).slm.end_id is None
    args.slm_conf["end_of_text"] = True
    assert SpokenLMBuilder.build_model(args).slm.end_id == 0  # "<end>"
    args.slm_conf["end_id"] = 3
    with pytest.raises(ValueError, match="end_id is 3; give one of them"):
        SpokenLMBuilder.build_model(args)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_an_llm_that_is_trained_is_kept_in_float32(untrained, dtype):
    """ESPnet trains in it, and later fewer bits would round what was trained."""
    args, _ = untrained
    args.llm_dtype = dtype
    args.slm_conf |= {"train_llm": True, "lora": None, "weights": {"text_kl": 0}}

    model = SpokenLMBuilder.build_model(args)

    assert {p.dtype for p in model.slm.llm.parameters()} == {torch.float32}
    assert args.llm_dtype == "float32"


def test_float16_is_for_inference_only(untrained):
    args, _ = untrained
    args.llm_dtype = "float16"
    with pytest.raises(ValueError, match="llm_dtype: float16 loses small gradients"):
        SpokenLMBuilder.build_model(args)


def test_a_text_llm_that_lacks_a_tensor_is_refused(untrained):
    """transformers would draw it at random, with a warning."""
    args, folder = untrained
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in sorted(tensors) if "q_proj" in name)
    save_file({k: v for k, v in tensors.items() if k != name}, path, {"format": "pt"})

    with pytest.raises(ValueError, match=f"not a complete .* 1 tensors .*{name}"):
        SpokenLMBuilder.build_model(args)


def test_a_text_llm_that_was_cut_short_is_named(untrained):
    """A copy that a full disk ended; it was a traceback of safetensors."""
    args, folder = untrained
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(ValueError, match=f"{folder}: damaged weights .* copy them"):
        SpokenLMBuilder.build_model(args)
