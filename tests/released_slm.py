"""Build our spoken LM from the weights of a golden case, for the golden tests."""

from reference_names import RVQ, rvq_state
from transformers import LlamaConfig, LlamaForCausalLM

from espnet_taste.layers.residual_vq import ResidualVQ
from espnet_taste.slm.losses import LossWeights
from espnet_taste.slm.model import SpokenLM

SPOKEN_LM = "spoken_lm."
HEADS = {"continue_latent_linear_last": "latent", "linear_last": "linear"}
# Start of the released name to start of ours; the first that fits is taken.
PREFIXES = {
    "language_model.": "llm.",
    "fuse_for_bridge_in_llm.weights": "fusion.weights",
    "fuse_for_bridge_in_llm.linear.": "taste_projection.",
    "extract_for_bridge_out_llm.fc_mu.": "head.latent.mu.",
    "extract_for_bridge_out_llm.b_logvar": "head.latent.logvar",
    "extract_for_bridge_out_llm.linear.": "head.linear.",
    "pad_text_unit_embed": "pad_text",
    "pad_audio_unit_embed": "pad_taste",
}


def our_name(released):
    """Turn the released name of a tensor into ours; ``spoken_lm.`` is removed."""
    for theirs, ours in PREFIXES.items():
        if released.startswith(theirs):
            return ours + released.removeprefix(theirs)
    raise KeyError(released)


def build_codebooks(case, taste_width, sizes):
    """Return the quantizer of a case."""
    rvq = ResidualVQ(
        taste_width,
        sizes["codebook_dim"],
        sizes["codebook_size"],
        sizes["num_quantizers"],
    )
    rvq.load_state_dict(rvq_state(case.state(RVQ), rvq.num_codebooks))
    return rvq


def build_spoken_lm(case, sizes, *, delay, level="word", out_module, state):
    """Return our spoken LM in eval mode with released weights.

    Args:
        case: The golden case.
        sizes: Quantizer sizes of its configuration.
        delay: Delay in words or tokens.
        level: Which of the two.
        out_module: Released name of the head.
        state: Released weights, ``spoken_lm.`` removed.
    """
    config = case.config
    llm = LlamaForCausalLM(LlamaConfig(**config["llama"]))
    model = SpokenLM(
        llm,
        build_codebooks(case, config["taste_width"], sizes),
        config["taste_width"],
        delay=delay,
        delay_level=level,
        head=HEADS[out_module],
        lora={"r": config["lora"]["r"], "alpha": config["lora"]["alpha"], "dropout": 0},
        sos_id=config["sos_id"],
        weights=LossWeights(*config.get("loss_weights", ())),
    )
    ours = {our_name(name): tensor for name, tensor in state.items()}
    report = model.load_state_dict(ours, strict=False)
    assert not report.unexpected_keys, report.unexpected_keys
    missing = [n for n in report.missing_keys if not n.startswith("codebooks.")]
    assert not missing, missing
    return model.eval()
