"""The speech tokenizer's parts as YAML chooses them: for its task and at inference."""

import argparse
import inspect
from collections.abc import Callable, Collection
from pathlib import Path

from espnet_taste.data.collate import SpanOptions, TokenizerCollate
from espnet_taste.data.preprocessor import TokenizerPreprocessor
from espnet_taste.tasks.building import (
    ModelBuilder,
    check_options,
    read_config,
    record_frozen_weights,
)
from espnet_taste.tasks.choices import (
    CaseBlindChoices,
    aggregator_choices,
    decoder_choices,
    encoder_choices,
    quantizer_choices,
)
from espnet_taste.tasks.tokenizer_model import TasteTokenizerModel
from espnet_taste.tokenizer.contracts import AbsEncoder
from espnet_taste.tokenizer.text import WhisperText
from espnet_taste.units.build import load_units, read_units_info


class TokenizerBuilder(ModelBuilder):
    """Builds speech tokenizers with their unit decoder."""

    class_choices_list = [
        encoder_choices,
        aggregator_choices,
        quantizer_choices,
        decoder_choices,
    ]

    @classmethod
    def build_preprocess_fn(cls, args: argparse.Namespace, train: bool) -> Callable:
        """Return the preprocessor of one utterance."""
        text = WhisperText(args.whisper, language=args.language)
        return TokenizerPreprocessor(text.encode, args.unit_rate_hz)

    @classmethod
    def build_collate_fn(
        cls, args: argparse.Namespace, train: bool
    ) -> Callable[[Collection], tuple]:
        """Return the batch maker; spans and packing only in training."""
        spans = SpanOptions.from_conf(args.span_conf) if train else None
        return TokenizerCollate(args.decoder_conf["num_units"], spans)

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> TasteTokenizerModel:
        """Build the model that the YAML file describes.

        Raises:
            ValueError: If a needed option is absent or parts do not fit.
        """
        units_dir = args.units_dir
        if units_dir is not None:
            info = read_units_info(Path(units_dir))
            args.decoder_conf["num_units"] = info.num_units
            args.unit_rate_hz = info.unit_rate_hz
            args.units_dir = None  # noted in the config; the folder is not needed again
        if "num_units" not in args.decoder_conf:
            raise ValueError(
                "the number of units is unknown: give --units_dir, or "
                "--decoder_conf num_units=N with --unit_rate_hz"
            )
        names = [choices.name for choices in cls.class_choices_list]
        check_options("model_conf", args.model_conf, TasteTokenizerModel, given=names)
        record_frozen_weights(args, [args.whisper])
        text = WhisperText(args.whisper, language=args.language)
        defaults = {
            "model": args.whisper,
            "language": args.language,
            "text_vocab_size": text.vocab_size,
        }
        parts = {
            choices.name: build_part(args, choices, **defaults)
            for choices in cls.class_choices_list
        }
        model = TasteTokenizerModel(**parts, **args.model_conf)
        # Folders of older versions do not know the option.
        from_codebook = getattr(args, "unit_start", "random") == "codebook"
        if from_codebook and units_dir is not None and args.init_from is None:
            model.decoder.start_units(load_units(Path(units_dir)).unit_vectors())
        cls.start_from(model, args.init_from, new_parts=("aggregator", "quantizer"))
        return model


def build_encoder(config: Path, whisper: str) -> AbsEncoder:
    """Build the encoder that a training YAML names, for extraction.

    Args:
        config: Training YAML.
        whisper: Whisper weights, as ``--whisper`` of the training.

    Raises:
        ValueError: If the YAML chooses no encoder.
    """
    args = read_config(config)
    args.encoder = getattr(args, "encoder", encoder_choices.default)
    args.encoder_conf = getattr(args, "encoder_conf", {})
    encoder = build_part(args, encoder_choices, model=whisper)
    if encoder is None:
        raise ValueError(f"{config} chooses no encoder, so there is nothing to extract")
    return encoder.eval()


def build_part(
    args: argparse.Namespace, choices: CaseBlindChoices, **defaults: object
) -> object | None:
    """Build one part from ``<name>`` and ``<name>_conf``; None if left out.

    Defaults that the class takes and the YAML does not set are filled in.

    Raises:
        ValueError: If an option is unknown or missing.
    """
    cls = choices.get_class(getattr(args, choices.name))
    if cls is None:
        return None
    conf = dict(getattr(args, f"{choices.name}_conf"))
    known = inspect.signature(cls).parameters
    for name, value in defaults.items():
        if name in known:
            conf.setdefault(name, value)
    check_options(f"{choices.name}_conf", conf, cls)
    return cls(**conf)
