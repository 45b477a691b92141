"""ESPnet task of the spoken LM: a text LLM that learns to speak by LoRA alone."""

import argparse
import inspect
import logging
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import str_or_none

from espnet_taste.data.collate import SpokenLMCollate
from espnet_taste.data.preprocessor import SpokenLMPreprocessor
from espnet_taste.slm.losses import LossWeights
from espnet_taste.slm.model import SpokenLM
from espnet_taste.slm.text import LlmText, load_llm
from espnet_taste.tasks.base import TasteTask
from espnet_taste.tasks.building import read_config, record_frozen_weights
from espnet_taste.tasks.checkpointing import read_checkpoint
from espnet_taste.tasks.choices import quantizer_choices
from espnet_taste.tasks.slm_model import TasteSpokenLMModel
from espnet_taste.tasks.tokenizer_builder import build_part
from espnet_taste.tokenizer.contracts import AbsQuantizer


class TasteSpokenLMTask(TasteTask):
    """Train the spoken LM on extracted codes."""

    class_choices_list = [quantizer_choices]

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
        group.add_argument("--llm_dtype", default="bfloat16", help="dtype of the LLM")
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

    @classmethod
    def build_preprocess_fn(cls, args: argparse.Namespace, train: bool) -> Callable:
        """Return the preprocessor of one utterance."""
        return SpokenLMPreprocessor(LlmText(args.llm).encode)

    @classmethod
    def build_collate_fn(
        cls, args: argparse.Namespace, train: bool
    ) -> Callable[[Collection], tuple]:
        """Return the batch maker, which lays out the word delay."""
        conf = args.slm_conf
        return SpokenLMCollate(conf.get("delay", 1), conf.get("delay_level", "word"))

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> TasteSpokenLMModel:
        """Build LLM, LoRA, fusion and head around the tokenizer's quantizer.

        The quantizer's options are taken over from the tokenizer's config, so that
        the spoken LM can be loaded without the tokenizer's folder.
        """
        record_frozen_weights(args, [args.llm])
        if args.tokenizer_file is not None:
            tokenizer = read_config(Path(args.tokenizer_file).parent / "config.yaml")
            args.quantizer = tokenizer.quantizer
            args.quantizer_conf = tokenizer.quantizer_conf
            args.slm_conf["taste_dim"] = tokenizer.decoder_conf["taste_dim"]
        quantizer = build_part(args, quantizer_choices)
        if quantizer is None or quantizer.num_codebooks == 0:
            raise ValueError(
                "the spoken LM predicts codes, so the tokenizer needs a quantizer "
                "(quantizer: rvq); give --tokenizer_file of such a tokenizer"
            )
        if args.tokenizer_file is not None:
            load_quantizer(quantizer, args.tokenizer_file)
        llm = load_llm(args.llm, getattr(torch, args.llm_dtype))
        conf = dict(args.slm_conf)
        weights = LossWeights(**conf.pop("weights", {}))
        if conf.pop("end_of_text", False):
            conf["end_id"] = end_symbol(args.llm)
        check_options("slm_conf", conf, SpokenLM)
        slm = SpokenLM(llm, quantizer, weights=weights, **conf)
        model = TasteSpokenLMModel(slm, **args.model_conf)
        cls.start_from(model, args.init_from, new_parts=())
        return model


def load_quantizer(quantizer: AbsQuantizer, path: str) -> None:
    """Load the quantizer out of a tokenizer checkpoint.

    Raises:
        ValueError: If the checkpoint has no quantizer or another one.
    """
    state = {
        name.removeprefix("quantizer."): tensor
        for name, tensor in read_checkpoint(path).items()
        if name.startswith("quantizer.")
    }
    try:
        quantizer.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold this quantizer: {error}") from error
    logging.info(f"loaded the quantizer of {path}")


def end_symbol(llm: str) -> int:
    """Return the end symbol of an LLM's tokenizer.

    Raises:
        ValueError: If it has none.
    """
    index = LlmText(llm).tokenizer.eos_token_id
    if index is None:
        raise ValueError(
            f"end_of_text: the tokenizer of '{llm}' has no end symbol; set end_id to "
            "the token that is to end a text"
        )
    return index


def check_options(where: str, conf: dict, target: type) -> None:
    """Refuse options that a class does not have, naming all of them."""
    known = set(inspect.signature(target).parameters)
    unknown = sorted(set(conf) - known)
    if unknown:
        raise ValueError(f"{where}: unknown option {unknown}; known: {sorted(known)}")
