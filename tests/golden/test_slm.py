"""The spoken LM equals the released one: inputs, outputs, losses, gradients."""

import numpy as np
import pytest
import torch
from released_slm import SPOKEN_LM, build_spoken_lm, our_name

from espnet_taste.slm.delay import collate, delay_words, text_labels, word_outputs
from espnet_taste.types import IGNORE


@pytest.fixture(scope="module")
def case(golden):
    return golden("slm")


@pytest.fixture(scope="module")
def variants(case):
    return list(case.config["variants"])


@pytest.fixture(scope="module")
def build(case):
    """Return a builder of the configurations; each is built once."""
    built = {}

    def build_variant(name):
        if name not in built:
            variant = case.config["variants"][name]
            state = case.state(SPOKEN_LM)
            special = case.state(SPOKEN_LM, kind=f"state_{name}")
            if special:
                state = {
                    key: tensor
                    for key, tensor in state.items()
                    if not key.startswith("extract_for_bridge_out_llm.")
                }
            built[name] = build_spoken_lm(
                case,
                case.config["rvq"],
                delay=variant["delay"],
                level=case.config["delay_level"],
                out_module=variant["out_llm_module"],
                state={**state, **special},
            )
        model = built[name]
        model.zero_grad()
        return model.eval()

    return build_variant


def make_batch(case, model):
    """Lay out the batch of the case, leaving its padding aside."""
    delay = model.delay, model.delay_level
    rows = zip(
        case.input("llm_token_ids").numpy(),
        case.input("llm_word_ids").numpy(),
        case.input("llm_indices").numpy(),
        case.input("llm_token_lengths").tolist(),
    )
    layouts, codes = [], []
    for tokens, words, indices, length in rows:
        layouts.append(delay_words(tokens[:length], words[:length], *delay))
        codes.append(indices[:length][indices[:length, 0] != IGNORE])
    return collate(layouts, codes)


def check_everywhere(model, batch, case, name):
    """Compare what the model reads and says at every valid position."""
    valid = case.output(f"{name}.valid_mask")
    used = case.input("used_ids")
    inputs = model.embed(batch)
    hidden = model.read(inputs)
    prediction = model.run_head(hidden)
    case.check(f"{name}.llm_inputs", inputs, valid)
    case.check(f"{name}.last_hidden", hidden, valid)
    logits = model.output_layer(hidden)[..., used]
    case.check(f"{name}.text_logits_used", logits, valid)
    codes = model.head.choose(prediction, model.codebooks)
    case.check(f"{name}.code_argmax", codes, valid)
    if case.has(f"{name}.latent_mu"):
        case.check(f"{name}.latent_mu", prediction.mu, valid)
        case.check(f"{name}.latent_z", prediction.value, valid)
    else:
        case.check(f"{name}.taste_logits", prediction, valid)


def check_reference(model, batch, case, name):
    """Compare the logits of the LLM without adapters."""
    expected = case.output(f"{name}.ref_logits_used")
    hidden = model.read_text_only(batch)
    logits = model.output_layer(hidden)[..., case.input("used_ids")]
    steps = torch.arange(logits.size(1))
    padded = expected.clone()  # the original reads the last token too, we stop at it
    padded[:, : logits.size(1)] = logits
    lengths = case.input("llm_token_lengths")
    has_label = torch.zeros(expected.shape[:2], dtype=torch.bool)
    has_label[:, : logits.size(1)] = steps < lengths[:, None]
    case.check(f"{name}.ref_logits_used", padded, has_label)


def each_variant(variants, build, case):
    for name in variants:
        model = build(name)
        yield name, model, make_batch(case, model)


def test_layout(case, build, variants):
    for name, model, batch in each_variant(variants, build, case):
        lengths = batch.tokens.ne(IGNORE).sum(1) + 1
        case.check(f"{name}.lengths", lengths)
        positions = torch.arange(batch.tokens.size(1) + 1)
        case.check(f"{name}.valid_mask", positions < lengths[:, None])
        case.check(f"{name}.text_labels", text_labels(batch.tokens))
        labels = batch.label_words
        index = labels.clamp(min=0)[..., None]
        codes = batch.word_codes.gather(
            1, index.expand(-1, -1, batch.word_codes.size(-1))
        )
        codes = codes.masked_fill((labels == IGNORE)[..., None], IGNORE)
        case.check(f"{name}.taste_labels", codes)


@torch.no_grad()
def test_inputs_and_outputs_at_every_position(case, build, variants):
    for name, model, batch in each_variant(variants, build, case):
        check_everywhere(model, batch, case, name)
        check_reference(model, batch, case, name)


@torch.no_grad()
def test_losses(case, build, variants):
    for name, model, batch in each_variant(variants, build, case):
        out = model(batch)

        case.check(f"{name}.n_text_labels", out.num_tokens)
        case.check(f"{name}.text_ce", out.text_ce)
        case.check(f"{name}.text_kl", out.text_kl)
        case.check(f"{name}.taste_loss", out.taste_loss)
        case.check(f"{name}.total_with_ref_model", out.loss)
        text, taste = case.config["loss_weights"]
        total = text * out.text_ce + taste * out.taste_loss
        case.check(f"{name}.total_eval", total)
        if case.has(f"{name}.taste_mse"):
            case.check(f"{name}.taste_mse", out.taste_terms["latent_mse"])
            case.check(f"{name}.taste_latent_kl", out.taste_terms["latent_kl"])
            targets = model.codebooks.sum_codes(batch.word_codes)
            valid = batch.word_codes[..., 0] != IGNORE
            case.check(f"{name}.taste_target_code", targets[valid])
        else:
            case.check(f"{name}.taste_ce_per_layer", out.taste_terms["code_ce"])


@torch.no_grad()
def test_padding_has_no_label(case, build, variants):
    """Reference defect C1: what its spurious labels give must not come out."""
    for name, model, batch in each_variant(variants, build, case):
        out = model(batch)
        wrong = case.output(f"{name}.text_ce_reference_defect")
        assert not torch.allclose(out.text_ce, wrong, rtol=1e-3)


def test_training_step(case, build, variants):
    for name, model, batch in each_variant(variants, build, case):
        model.train()
        noise = None
        if f"{name}.train_noise" in case.info["inputs"]:
            everywhere = case.input(f"{name}.train_noise")
            outputs = word_outputs(batch.label_words, batch.word_codes.size(1))
            index = outputs[..., None].expand(-1, -1, everywhere.size(-1))
            noise = everywhere.gather(1, index)
            hidden = model.read(model.embed(batch))
            latent = model.run_head(hidden, everywhere)
            valid = case.output(f"{name}.valid_mask")
            case.check(f"{name}.train.latent_z", latent.value, valid)

        out = model(batch, noise)
        out.loss.backward()

        case.check(f"{name}.train.taste_loss", out.taste_loss)
        case.check(f"{name}.train.total_with_ref_model", out.loss)
        check_gradients(model, case, f"{name}.train.grad.")


def check_gradients(model, case, prefix):
    names = case.output_names(prefix)
    assert names
    parameters = dict(model.named_parameters())
    for name in names:
        parameter = parameters[our_name(name.removeprefix(prefix))]
        case.check(name, parameter.grad)
    for name, parameter in parameters.items():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@torch.no_grad()
def test_one_word_of_one_or_more_tokens(case, build):
    code = case.input("oneword_code").numpy()
    first = case.input("llm_token_ids")[0].numpy()
    names = [n for n in case.output_names() if ".oneword_t" in n]
    assert names
    for name in {n.rsplit(".", 1)[0] for n in names}:
        variant, sub = name.split(".")
        num_tokens = int(sub.removeprefix("oneword_t"))
        model = build(variant)
        words = np.zeros(num_tokens, dtype=int)
        layout = delay_words(first[:num_tokens], words, model.delay, model.delay_level)
        batch = collate([layout], [code[None]])

        case.check(f"{name}.llm_inputs", model.embed(batch)[0])
        labels = np.where((layout.label_words >= 0)[:, None], code, IGNORE)
        case.check(f"{name}.taste_labels", torch.from_numpy(labels))
