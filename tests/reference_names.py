"""Names of the released state dict, mapped to ours, for the golden tests.

The quantizer's are written down a second time here, as a witness of the converter's
table; those of the unit LM are the table's.
"""

import torch

from espnet_taste.convert.names import to_ours

TOWER = "audio_tower.audio_joint_encoder_segmenter."
ENCODER = TOWER + "audio_encoder.encoder."
DECODER = TOWER + "audio_segmenter.decoder."
RVQ = "audio_tower.vq.rvq."
UNIT_LM = "speech_decoder."
# What released checkpoints of the unit LM do not have.
UNIT_LM_ALONE = "mask_embedding.weight"
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


def unit_lm_name(released):
    """Turn the released name of a tensor of the unit LM into ours."""
    return to_ours(released)[0].name.removeprefix("decoder.")


def load_unit_lm(unit_lm, released):
    """Load a released state (prefix removed), of which nothing may be left over."""
    state = {unit_lm_name(UNIT_LM + name): value for name, value in released.items()}
    missing, unexpected = unit_lm.load_state_dict(state, strict=False)
    assert (missing, unexpected) == ([UNIT_LM_ALONE], [])
