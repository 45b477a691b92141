"""ESPnet task of the speech tokenizer, in all its sub-stages.

One task serves text-only, no-quantizer and quantizer training: YAML chooses the
parts (``encoder: none`` and so on leave a part out).
"""

import argparse

from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import str_or_none

from espnet_taste.tasks.base import TasteTask
from espnet_taste.tasks.tokenizer_builder import TokenizerBuilder


class TasteTokenizerTask(TokenizerBuilder, TasteTask):
    """Train the speech tokenizer and its unit decoder."""

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the options of this task to ESPnet's parser."""
        group = parser.add_argument_group("TASTE tokenizer")
        cls.add_shared_arguments(group)
        group.add_argument(
            "--whisper",
            default="openai/whisper-tiny.en",
            help="Whisper weights of text tokenizer, encoder and aggregator",
        )
        group.add_argument("--language", default="en", help="Language of the text")
        group.add_argument(
            "--units_dir",
            type=str_or_none,
            default=None,
            help="Folder of the trained units, which gives number and rate of units",
        )
        group.add_argument(
            "--unit_rate_hz", type=float, default=50.0, help="Speech units a second"
        )
        group.add_argument(
            "--span_conf",
            action=NestedDictAction,
            default={"whole": True},
            help="Word spans, unit masking and packing of the training rows",
        )
        for choices in cls.class_choices_list:
            choices.add_arguments(group)

    @classmethod
    def required_data_names(
        cls, train: bool = True, inference: bool = False
    ) -> tuple[str, ...]:
        """Return the names of the data that must be given."""
        return ("text", "spembs") if inference else ("text", "units", "spembs")

    @classmethod
    def optional_data_names(
        cls, train: bool = True, inference: bool = False
    ) -> tuple[str, ...]:
        """Return the names of the data that may be given."""
        return ("speech", "encoder_states", "word_times", "units")
