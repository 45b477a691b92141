"""ESPnet model of the spoken LM: losses, statistics and small checkpoints."""

from contextlib import AbstractContextManager

import torch
from espnet2.torch_utils.device_funcs import force_gatherable
from torch import Tensor

from espnet_taste.layers.precision import amp_dtype_of, autocast
from espnet_taste.slm.delay import DelayBatch
from espnet_taste.slm.model import SpokenLM
from espnet_taste.tasks.checkpointing import TasteESPnetModel


class TasteSpokenLMModel(TasteESPnetModel):
    """Train adapters (or the LLM itself), fusion and code head of a spoken LM.

    Not the object for users (that is ``pipeline.spoken_lm.TasteSpokenLM``): this one
    speaks ESPnet's training protocol.

    Args:
        slm: The spoken LM. Its LLM stays out of checkpoints unless it is trained,
            its adapters and its quantizer do not.
        amp_dtype: "bfloat16" to run under autocast on any device that has
            instructions for it; None for the trainer's precision.
        extract_feats_in_collect_stats: Only there because ESPnet asks for it.

    Raises:
        ValueError: If ``amp_dtype`` is unknown.
    """

    def __init__(
        self,
        slm: SpokenLM,
        *,
        amp_dtype: str | None = None,
        extract_feats_in_collect_stats: bool = False,
    ):
        super().__init__()
        self.slm = slm
        self.amp_dtype = amp_dtype_of(amp_dtype)
        if not slm.trains_llm:
            self.protect_frozen_parts(["slm.llm"], trained_inside=["lora_"])

    def forward(
        self, layout: DelayBatch, **unused: object
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Compute the loss of a batch.

        Args:
            layout: Tokens, delayed words, labels and codes.
            **unused: ``utt_id``, which ESPnet adds.

        Returns:
            Loss, statistics and weight (number of predicted tokens). The loss of
            codes is a mean over words: averaged over ranks and batches by tokens, it
            is exact only where they have equally many words a token.
        """
        with self.autocast(layout.tokens.device):
            out = self.slm(layout)
        stats = {
            "loss": out.loss,
            "loss_text": out.text_loss,
            "text_ce": out.text_ce,
            "text_kl": out.text_kl,
            "loss_taste": out.taste_loss,
            "acc": out.text_accuracy,
            "acc_codes": out.code_accuracy.mean(),
        }
        for name, value in out.taste_terms.items():
            stats[name] = value.mean()
        for number, value in enumerate(out.code_accuracy):
            stats[f"acc_code{number}"] = value
        stats = {name: value.detach() for name, value in stats.items()}
        return force_gatherable((out.loss, stats, out.num_tokens), out.loss.device)

    def autocast(self, device: torch.device) -> AbstractContextManager:
        """Return the context of the chosen precision."""
        return autocast(device, self.amp_dtype)
