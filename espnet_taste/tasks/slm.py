"""ESPnet task of the spoken LM: a text LLM that learns to speak by LoRA alone."""

import argparse
from collections.abc import Callable, Collection

from espnet2.utils.types import str_or_none

from espnet_taste.data.collate import SpokenLMCollate
from espnet_taste.data.preprocessor import SpokenLMPreprocessor
from espnet_taste.tasks.base import TasteTask, record_frozen_weights
from espnet_taste.tasks.slm_model import TasteSpokenLMModel, build_spoken_lm
from espnet_taste.tasks.tokenizer import TasteTokenizerTask
from espnet_taste.weights import resolve


class TasteSpokenLMTask(TasteTask):
    """Train the spoken LM on extracted codes."""

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the options of this task to ESPnet's parser."""
        group = parser.add_argument_group("TASTE spoken LM")
        cls.add_shared_arguments(group)
        group.add_argument(
            "--llm",
            default="HuggingFaceTB/SmolLM2-135M-Instruct",
            help="Causal LM by name or folder",
        )
        group.add_argument(
            "--tokenizer_file",
            type=str_or_none,
            default=None,
            help="Checkpoint of the trained speech tokenizer, whose quantizer is used",
        )
        cls.add_nested_argument(group, "--slm_conf", "The options of SpokenLM")

    @classmethod
    def required_data_names(
        cls, train: bool = True, inference: bool = False
    ) -> tuple[str, ...]:
        """Return the names of the data that must be given."""
        return ("text", "codes")

    @classmethod
    def optional_data_names(
        cls, train: bool = True, inference: bool = False
    ) -> tuple[str, ...]:
        """Return the names of the data that may be given."""
        return ()

    @classmethod
    def build_preprocess_fn(cls, args: argparse.Namespace, train: bool) -> Callable:
        """Return the preprocessor of one utterance."""
        return SpokenLMPreprocessor(LlmText(args.llm).encode)

    @classmethod
    def build_collate_fn(
        cls, args: argparse.Namespace, train: bool
    ) -> Callable[[Collection], tuple]:
        """Return the batch maker, which lays out the word delay."""
        return SpokenLMCollate(delay=args.slm_conf.get("delay", 1))

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> TasteSpokenLMModel:
        """Build LLM, LoRA, fusion and heads around the tokenizer's quantizer."""
        record_frozen_weights(args, [args.llm])
