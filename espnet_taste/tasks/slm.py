"""ESPnet task of the spoken LM: a text LLM that learns to speak by LoRA alone."""

import argparse

from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import str_or_none

from espnet_taste.tasks.base import TasteTask
from espnet_taste.tasks.slm_builder import SpokenLMBuilder


class TasteSpokenLMTask(SpokenLMBuilder, TasteTask):
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
            "--llm_dtype",
            default="bfloat16",
            help="dtype of the LLM; for bfloat16, float32 where the device lacks it",
        )
        group.add_argument(
            "--tokenizer_file",
            type=str_or_none,
            default=None,
            help="Checkpoint of the trained speech tokenizer, whose quantizer is used",
        )
        group.add_argument(
            "--slm_conf",
            action=NestedDictAction,
            default={"delay": 1},
            help="Options of SpokenLM: delay, taste_input, head, fusion, lora, ...; "
            "end_of_text: true also learns where a text ends",
        )
        for choices in cls.class_choices_list:
            choices.add_arguments(group)

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
