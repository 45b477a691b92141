"""Names of the released state dict, mapped to ours, for the golden tests.

The converter of whole checkpoints is product code of its own; this is only what
the tokenizer's fixtures need.
"""

import torch

TOWER = "audio_tower.audio_joint_encoder_segmenter."
ENCODER = TOWER + "audio_encoder.encoder."
DECODER = TOWER + "audio_segmenter.decoder."
RVQ = "audio_tower.vq.rvq."
# Ours to released, for the buffers of one codebook.
CODEBOOK_BUFFERS = {
    "embed": "embed",
    "embed_sum": "embed_avg",
    "count": "cluster_size",
    "initialised": "initted",
}


def rvq_state(released, num_codebooks):
    """Rename a released quantizer state (prefix removed) to ours."""
    state = {k: v for k, v in released.items() if k.startswith("project_")}
    for layer in range(num_codebooks):
        for ours, theirs in CODEBOOK_BUFFERS.items():
            value = released[f"layers.{layer}._codebook.{theirs}"]
            state[f"codebooks.{layer}.{ours}"] = value.squeeze(0)
    state["num_steps"] = torch.zeros((), dtype=torch.long)
    return state
