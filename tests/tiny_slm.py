"""Tiny spoken LMs with random weights, in which every input matters."""

import numpy as np
import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from espnet_taste.layers.residual_vq import ResidualVQ
from espnet_taste.slm.delay import collate, delay_words
from espnet_taste.slm.model import SpokenLM

VOCAB_SIZE, WIDTH, TASTE_DIM = 37, 16, 12
LATENT_DIM, CODEBOOK_SIZE, NUM_CODEBOOKS = 6, 9, 3
SOS_ID = 1
_SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": SOS_ID,
    "initializer_range": 0.3,
}


def make_llm(family="llama", **options):
    """Return a random causal LM of one of three families."""
    torch.manual_seed(5)
    if family == "gpt2":
        sizes = {"n_embd": WIDTH, "n_layer": 2, "n_head": 4, "n_positions": 512}
        common = {"vocab_size": VOCAB_SIZE, "bos_token_id": SOS_ID}
        config = GPT2Config(**sizes, **common, initializer_range=0.3, **options)
        return GPT2LMHeadModel(config).eval()
    if family == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**{**_SIZES, **options})).eval()
    return LlamaForCausalLM(LlamaConfig(**{**_SIZES, **options})).eval()


def make_codebooks(taste_dim=TASTE_DIM):
    """Return a quantizer with random, initialised codebooks."""
    torch.manual_seed(6)
    rvq = ResidualVQ(taste_dim, LATENT_DIM, CODEBOOK_SIZE, NUM_CODEBOOKS)
    features = 3 * torch.randn(60, taste_dim)
    rvq.initialise(
        features, generator=torch.Generator().manual_seed(0), num_iterations=2
    )
    return rvq.eval()


def make_slm(family="llama", *, llm=None, **options):
    """Return a spoken LM in eval mode; adapters, pads and fusion do something."""
    options.setdefault("lora", {"r": 2, "alpha": 4, "dropout": 0.0})
    llm = make_llm(family) if llm is None else llm
    slm = SpokenLM(llm, make_codebooks(), TASTE_DIM, **options)
    torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in slm.named_parameters():
            starts_idle = name.startswith(("pad_", "head_skip"))
            if "lora_B" in name or "logvar" in name or starts_idle:
                nn.init.normal_(parameter, std=0.3)
        for parameter in slm.fusion.parameters():
            nn.init.constant_(parameter, 0.0 if parameter.shape == (2,) else 0.3)
    return slm.eval()


def random_utterance(rng, sizes_of_words):
    """Return tokens, word indices and codes of an utterance."""
    words = [word for word, size in enumerate(sizes_of_words) for _ in range(size)]
    tokens = rng.integers(2, VOCAB_SIZE, len(words))
    shape = (len(sizes_of_words), NUM_CODEBOOKS)
    return tokens, words, rng.integers(0, CODEBOOK_SIZE, shape)


def make_batch(rows_of_sizes, delay=1, level="word", seed=0):
    """Return a batch of random utterances with the given words."""
    rng = np.random.default_rng(seed)
    rows = [random_utterance(rng, sizes) for sizes in rows_of_sizes]
    layouts = [delay_words(tokens, words, delay, level) for tokens, words, _ in rows]
    return collate(layouts, [codes for _, _, codes in rows])
