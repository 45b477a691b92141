"""The spoken LM as its YAML file describes it: for its task and at inference."""

import argparse
import logging
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from torch import Tensor

from espnet_taste.data.collate import SpokenLMCollate
from espnet_taste.data.preprocessor import SpokenLMPreprocessor
from espnet_taste.slm.lora import attach_lora
from espnet_taste.slm.losses import LossWeights
from espnet_taste.slm.model import SpokenLM
from espnet_taste.slm.text import LlmText, load_llm
from espnet_taste.tasks.building import (
    ModelBuilder,
    check_options,
    read_config,
    record_frozen_weights,
)
from espnet_taste.tasks.checkpointing import read_part
from espnet_taste.tasks.choices import quantizer_choices
from espnet_taste.tasks.slm_model import TasteSpokenLMModel
from espnet_taste.tasks.tokenizer_builder import build_part
from espnet_taste.tokenizer.contracts import AbsQuantizer

logger = logging.getLogger(__name__)

LLM_DTYPES = ("bfloat16", "float32", "float16")


class SpokenLMBuilder(ModelBuilder):
    """Builds spoken LMs around the quantizer of a speech tokenizer."""

    class_choices_list = [quantizer_choices]
    only_to_begin = ("tokenizer_file",)

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

        Raises:
            ValueError: If an option is unknown, or the tokenizer has no quantizer.
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
        check_slm_options(args)
        if args.tokenizer_file is not None:
            load_quantizer(quantizer, args.tokenizer_file)
        choose_trained_dtype(args)
        llm = load_llm(args.llm, getattr(torch, args.llm_dtype))
        conf = dict(args.slm_conf)
        weights = LossWeights(**conf.pop("weights", {}))
        if conf.pop("end_of_text", False):
            conf["end_id"] = end_symbol(args.llm)
        slm = SpokenLM(llm, quantizer, weights=weights, **conf)
        model = TasteSpokenLMModel(slm, **args.model_conf)
        given = {name: value.clone() for name, value in quantizer.state_dict().items()}
        cls.start_from(model, args.init_from, new_parts=())
        if args.tokenizer_file is not None:
            check_same_quantizer(quantizer, given, args)
        return model


def choose_trained_dtype(args: argparse.Namespace) -> None:
    """Keep weights that are trained in float32, in which ESPnet trains them.

    Loaded in fewer bits later, they would not be those that were validated.

    Raises:
        ValueError: If a training begins whose gradients float16 would lose.
    """
    if args.slm_conf.get("train_llm") and args.llm_dtype != "float32":
        logger.info(
            f"train_llm: the LLM is trained and kept in float32, not in "
            f"{args.llm_dtype}; amp_dtype: bfloat16 still computes in bfloat16"
        )
        args.llm_dtype = "float32"
    if args.llm_dtype == "float16" and args.tokenizer_file is not None:
        raise ValueError(
            "llm_dtype: float16 loses small gradients on their way through the LLM; "
            "train with bfloat16 or float32"
        )


def check_same_quantizer(
    quantizer: AbsQuantizer, given: dict[str, Tensor], args: argparse.Namespace
) -> None:
    """Refuse a start from a spoken LM that was trained on other codes.

    Its checkpoint carries the quantizer, so that it would replace the tokenizer's
    without a word, and every code of the data would mean something else.

    Args:
        quantizer: As ``--init_from`` left it.
        given: State of the same one, as ``--tokenizer_file`` had it.
        args: Training arguments, for the message.

    Raises:
        ValueError: If they differ.
    """
    state = quantizer.state_dict()
    if changed := [name for name in given if not torch.equal(given[name], state[name])]:
        raise ValueError(
            f"--init_from {args.init_from} was trained on the codes of another "
            f"tokenizer than --tokenizer_file {args.tokenizer_file} (its quantizer "
            f"differs in {', '.join(changed)}); start from a spoken LM of this "
            "tokenizer, or extract the codes with that one's"
        )


def load_quantizer(quantizer: AbsQuantizer, path: str) -> None:
    """Load the quantizer out of a tokenizer checkpoint.

    Raises:
        ValueError: If the checkpoint has no quantizer or another one.
    """
    state = read_part(path, "quantizer.")
    try:
        quantizer.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold this quantizer: {error}") from error
    logger.info(f"loaded the quantizer of {path}")


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


def check_slm_options(args: argparse.Namespace) -> None:
    """Check the names of all options before the LLM is loaded.

    Raises:
        ValueError: If one is unknown or missing, or the LLM's type is none.
    """
    if args.llm_dtype not in LLM_DTYPES:
        raise ValueError(
            f"llm_dtype must be one of {', '.join(LLM_DTYPES)}, got {args.llm_dtype!r}"
        )
    conf = dict(args.slm_conf)
    if conf.pop("end_of_text", False) and conf.get("end_id") is not None:
        raise ValueError(
            "slm_conf: end_of_text takes the end symbol of the LLM's tokenizer and "
            f"end_id is {conf['end_id']}; give one of them"
        )
    check_options("slm_conf: weights", conf.pop("weights", {}), LossWeights)
    check_options("slm_conf", conf, SpokenLM, given=("llm", "codebooks", "weights"))
    if conf.get("lora") is not None:
        check_options("slm_conf: lora", conf["lora"], attach_lora, given=("llm",))
    check_options("model_conf", args.model_conf, TasteSpokenLMModel, given=("slm",))
