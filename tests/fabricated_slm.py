"""The spoken LM's case of a fabricated pack; see ``fabricated_pack``."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from fabricated_logic import words_of
from fabricated_pack import Writer, add_quantizer, build_rvq
from golden_case import GoldenCase
from released_slm import HEADS, PREFIXES, SPOKEN_LM, build_spoken_lm
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from espnet_taste.slm.delay import (
    DelayBatch,
    collate,
    delay_words,
    text_labels,
    word_outputs,
)
from espnet_taste.slm.model import SpokenLM
from espnet_taste.types import IGNORE

CONFIG = {
    "llama": {
        "vocab_size": 61,
        "hidden_size": 24,
        "intermediate_size": 20,
        "num_hidden_layers": 1,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "tie_word_embeddings": False,
    },
    "lora": {"r": 2, "alpha": 6},
    "rvq": {
        "dim": 10,
        "codebook_dim": 4,
        "codebook_size": 9,
        "num_quantizers": 3,
        "decay": 0.9,
    },
    "sos_id": 60,
    "loss_weights": [0.3, 0.7],
    "taste_width": 10,
    "delay_level": "word",
    "variants": {
        "far": {"delay": 3, "out_llm_module": "continue_latent_linear_last"},
        "near": {"delay": 1, "out_llm_module": "linear_last"},
    },
}


def write_slm(folder: Path, seed: int) -> None:
    """Inputs, labels, outputs, losses and gradients of two configurations."""
    case = Writer("slm", CONFIG, seed)
    rvq = build_rvq(CONFIG, CONFIG["rvq"]["codebook_size"])
    features = case.randn(40, CONFIG["taste_width"])
    rvq.initialise(features, generator=case.random, num_iterations=2)
    add_quantizer(case, rvq)
    add_weights(case, rvq, seed)
    write_inputs(case, np.random.default_rng(seed))
    case.save(folder)
    reader = GoldenCase(folder, "slm")
    for name in CONFIG["variants"]:
        write_variant(case, reader, name)
    case.save(folder)


def released_name(name: str) -> str:
    """Turn our name of a tensor into the released one."""
    for theirs, ours in PREFIXES.items():
        if name.startswith(ours):
            return SPOKEN_LM + theirs + name.removeprefix(ours)
    raise KeyError(name)


def add_weights(case: Writer, rvq: nn.Module, seed: int) -> None:
    """Note random weights; all but the heads are common to the configurations."""
    torch.manual_seed(seed)
    for number, (name, variant) in enumerate(CONFIG["variants"].items()):
        model = SpokenLM(
            LlamaForCausalLM(LlamaConfig(**CONFIG["llama"])),
            rvq,
            CONFIG["taste_width"],
            delay=variant["delay"],
            head=HEADS[variant["out_llm_module"]],
            lora={**CONFIG["lora"], "dropout": 0},
            sos_id=CONFIG["sos_id"],
        )
        for ours, value in model.state_dict().items():
            is_head = ours.startswith("head.")
            if ours.startswith("codebooks.") or (number and not is_head):
                continue
            kind = f"state_{name}" if number else "state"
            if "lora_B" in ours or ours.startswith("pad_") or "logvar" in ours:
                value = 0.3 * case.randn(*value.shape)
            case.tensors[f"{kind}.{released_name(ours)}"] = value.clone()


def write_inputs(case: Writer, rng: np.random.Generator) -> None:
    """Note two utterances, the longer one second."""
    words = [words_of(rng, 5), words_of(rng, 7)]
    longest = max(map(len, words))
    rows = {"llm_token_ids": [], "llm_word_ids": [], "llm_indices": []}
    num_codes = CONFIG["rvq"]["num_quantizers"]
    for owner in words:
        rest = longest - len(owner)
        tokens = case.randint(1, CONFIG["sos_id"], len(owner))
        codes = case.randint(0, CONFIG["rvq"]["codebook_size"], len(owner), num_codes)
        owner = torch.tensor(owner)
        codes[1:][owner[1:] == owner[:-1]] = IGNORE
        rows["llm_token_ids"].append(F.pad(tokens, (0, rest)))
        rows["llm_word_ids"].append(F.pad(owner, (0, rest)))
        rows["llm_indices"].append(F.pad(codes, (0, 0, 0, rest)))
    for name, values in rows.items():
        case.input(name, torch.stack(values))
    case.input("llm_token_lengths", torch.tensor([*map(len, words)]))
    case.input("used_ids", torch.arange(0, CONFIG["sos_id"], 7))
    case.input("oneword_code", torch.arange(num_codes))
    for name, variant in CONFIG["variants"].items():
        if HEADS[variant["out_llm_module"]] == "latent":
            shape = (2, longest + variant["delay"] + 1, CONFIG["rvq"]["codebook_dim"])
            case.input(f"{name}.train_noise", case.randn(*shape))


def read_batch(case: GoldenCase, delay: int) -> DelayBatch:
    """Lay out the batch."""
    layouts, codes = [], []
    for row, length in enumerate(case.input("llm_token_lengths").tolist()):
        tokens, words, indices = (
            case.input(f"llm_{name}")[row, :length].numpy()
            for name in ("token_ids", "word_ids", "indices")
        )
        layouts.append(delay_words(tokens, words, delay))
        codes.append(indices[indices[:, 0] != IGNORE])
    return collate(layouts, codes)


def write_variant(case: Writer, reader: GoldenCase, name: str) -> None:
    """Note all results of one configuration."""
    variant = CONFIG["variants"][name]
    state = reader.state(SPOKEN_LM)
    if special := reader.state(SPOKEN_LM, kind=f"state_{name}"):
        head = "extract_for_bridge_out_llm."
        state = {k: v for k, v in state.items() if not k.startswith(head)} | special
    model = build_spoken_lm(
        reader,
        CONFIG["rvq"],
        delay=variant["delay"],
        out_module=variant["out_llm_module"],
        state=state,
    )
    batch = read_batch(reader, variant["delay"])
    with torch.no_grad():
        write_layout(case, name, batch)
        write_outputs(case, name, model, batch)
        write_losses(case, name, model, batch)
        for num_tokens in (2, 5):
            write_one_word(case, f"{name}.oneword_t{num_tokens}", model, num_tokens)
    write_training(case, name, model, batch)


def write_layout(case: Writer, name: str, batch: DelayBatch) -> None:
    """Note lengths and labels."""
    lengths = batch.tokens.ne(IGNORE).sum(1) + 1
    case.output(f"{name}.lengths", lengths)
    positions = torch.arange(batch.tokens.size(1) + 1)
    case.output(f"{name}.valid_mask", positions < lengths[:, None])
    case.output(f"{name}.text_labels", text_labels(batch.tokens))
    case.output(f"{name}.taste_labels", labels_of(batch))


def labels_of(batch: DelayBatch) -> Tensor:
    """Return the codes that every position must predict, (B, L, Q)."""
    rows = torch.arange(len(batch.label_words))[:, None]
    codes = batch.word_codes[rows, batch.label_words.clamp(min=0)]
    return codes.masked_fill((batch.label_words == IGNORE)[..., None], IGNORE)


def write_outputs(case, name, model, batch):
    """Note what the model reads and says."""
    used = case.tensors["in.used_ids"]
    inputs = model.embed(batch)
    hidden = model.read(inputs)
    prediction = model.run_head(hidden)
    case.output(f"{name}.llm_inputs", inputs)
    case.output(f"{name}.last_hidden", hidden, 1e-4)
    case.output(f"{name}.text_logits_used", model.output_layer(hidden)[..., used], 1e-4)
    codes = model.head.choose(prediction, model.codebooks)
    case.output(f"{name}.code_argmax", codes)
    if f"in.{name}.train_noise" in case.tensors:
        case.output(f"{name}.latent_mu", prediction.mu, 1e-4)
        case.output(f"{name}.latent_z", prediction.value, 1e-4)
    else:
        case.output(f"{name}.taste_logits", prediction, 1e-4)
    logits = model.output_layer(model.read_text_only(batch))[..., used]
    longer = case.tensors["in.llm_token_ids"].size(1) + 1 - logits.size(1)
    case.output(f"{name}.ref_logits_used", F.pad(logits, (0, 0, 0, longer)), 1e-4)


def write_losses(case, name, model, batch):
    """Note every term, and a false one in place of the original's."""
    out = model(batch)
    text, taste = CONFIG["loss_weights"]
    terms = {
        "n_text_labels": out.num_tokens,
        "text_ce": out.text_ce,
        "text_kl": out.text_kl,
        "taste_loss": out.taste_loss,
        "total_with_ref_model": out.loss,
        "total_eval": text * out.text_ce + taste * out.taste_loss,
        "text_ce_reference_defect": out.text_ce + 1,
    }
    if f"in.{name}.train_noise" in case.tensors:
        terms["taste_mse"] = out.taste_terms["latent_mse"]
        terms["taste_latent_kl"] = out.taste_terms["latent_kl"]
        targets = model.codebooks.sum_codes(batch.word_codes)
        terms["taste_target_code"] = targets[batch.word_codes[..., 0] != IGNORE]
    else:
        terms["taste_ce_per_layer"] = out.taste_terms["code_ce"]
    for term, value in terms.items():
        case.output(f"{name}.{term}", value)


def write_one_word(case, name, model, num_tokens):
    """Note the layout of one word."""
    tokens = case.tensors["in.llm_token_ids"][0, :num_tokens].numpy()
    code = case.tensors["in.oneword_code"].numpy()
    layout = delay_words(tokens, np.zeros(num_tokens, dtype=int), model.delay)
    batch = collate([layout], [code[None]])
    case.output(f"{name}.llm_inputs", model.embed(batch)[0])
    case.output(f"{name}.taste_labels", labels_of(batch)[0])


def write_training(case, name, model, batch):
    """Note a training step with the noise of the inputs."""
    model.train()
    noise = case.tensors.get(f"in.{name}.train_noise")
    if noise is not None:
        latent = model.run_head(model.read(model.embed(batch)), noise)
        case.output(f"{name}.train.latent_z", latent.value, 1e-4)
        outputs = word_outputs(batch.label_words, batch.word_codes.size(1))
        noise = noise.gather(1, outputs[..., None].expand(-1, -1, noise.size(-1)))
    out = model(batch, noise)
    out.loss.backward()
    case.output(f"{name}.train.taste_loss", out.taste_loss)
    case.output(f"{name}.train.total_with_ref_model", out.loss)
    for ours, parameter in model.named_parameters():
        if parameter.grad is not None:
            released = released_name(ours).removeprefix(SPOKEN_LM)
            case.output(f"{name}.train.grad.{released}", parameter.grad, 1e-4)
