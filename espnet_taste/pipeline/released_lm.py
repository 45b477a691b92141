"""A released spoken LM in the place of one that the recipe trained.

The checkpoint holds no text tokenizer: it comes from the LLM that was adapted.
"""

import argparse
from pathlib import Path

import torch

from espnet_taste.convert.load import load_spoken_lm
from espnet_taste.convert.names import SLM
from espnet_taste.data.collate import SpokenLMCollate
from espnet_taste.data.preprocessor import SpokenLMPreprocessor
from espnet_taste.pipeline.slm import SpokenLMInference
from espnet_taste.slm.text import LlmText
from espnet_taste.tasks.building import read_config
from espnet_taste.tasks.slm_model import TasteSpokenLMModel

RELEASED_LLM = "meta-llama/Llama-3.2-1B"


class ReleasedSpokenLM(SpokenLMInference):
    """A converted checkpoint's spoken LM.

    Args:
        folder: Folder that ``convert`` made.
        llm: Name or folder of the LLM, for its text tokenizer.
        device: Torch device.
        llm_dtype: Precision of the LLM; None for what it is stored in (bfloat16), or
            float32 where the device lacks that.
        check_sha256: Compare the files with the recorded sha256 first.

    Raises:
        FileNotFoundError: If files or the tokenizer cannot be had.
        CheckpointError: If a file is damaged or changed, or tensors do not fit.
        ValueError: If the tokenizer has more tokens than the LLM.
    """

    text_prompt = "plain"  # what the released completion feeds it

    def __init__(
        self,
        folder: str | Path,
        *,
        llm: str = RELEASED_LLM,
        device: str = "cpu",
        llm_dtype: torch.dtype | None = None,
        check_sha256: bool = True,
    ):
        self.device = torch.device(device)
        slm = load_spoken_lm(
            folder, llm_dtype=llm_dtype, device=device, check_sha256=check_sha256
        )
        self.model = TasteSpokenLMModel(slm).eval()
        self.slm = slm
        # What it is stored in, whatever a device computes it in.
        stored = read_config(Path(folder) / SLM / "config.yaml").llm_dtype
        self.args = argparse.Namespace(llm=llm, llm_dtype=stored)
        self.text = LlmText(llm)
        num_logits = slm.output_layer.weight.size(0)
        if len(self.text.tokenizer) > num_logits:
            raise ValueError(
                f"llm: the tokenizer of '{llm}' has {len(self.text.tokenizer)} tokens, "
                f"{folder} predicts {num_logits}; give the LLM that was adapted"
            )
        self.preprocess = SpokenLMPreprocessor(self.text.encode)
        self.collate = SpokenLMCollate(slm.delay, slm.delay_level)
