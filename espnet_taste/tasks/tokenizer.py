"""ESPnet task of the speech tokenizer, in all its sub-stages.

One task serves text-only, no-quantizer and quantizer training: YAML chooses the
parts (``encoder: none`` and so on leave a part out).
"""

import argparse

from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import str_or_none

from espnet_taste.tasks.base import TasteTask, one_line_of_a_rank
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
            "--unit_start",
            choices=["random", "codebook"],
            default="random",
            help="Where the decoder's vectors of the units start: codebook takes them "
            "from units_dir, so that units that sound alike start alike. Of no effect "
            "with --init_from",
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

    @classmethod
    def main_worker(cls, args: argparse.Namespace) -> None:
        """Train.

        Raises:
            ValueError: If units are to start as a codebook that is not given.
        """
        starts = args.unit_start == "codebook" and args.init_from is None
        with one_line_of_a_rank():
            if starts and args.units_dir is None:
                raise ValueError(
                    "unit_start: codebook needs --units_dir, the folder that has it"
                )
        super().main_worker(args)
