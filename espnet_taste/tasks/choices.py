"""The registries of the speech tokenizer: which classes a YAML file may name."""

from espnet2.train.class_choices import ClassChoices

from espnet_taste.decoder.contracts import AbsUnitDecoder
from espnet_taste.decoder.unit_lm import UnitLM
from espnet_taste.tokenizer.aggregator import WhisperAggregator
from espnet_taste.tokenizer.contracts import AbsAggregator, AbsEncoder, AbsQuantizer
from espnet_taste.tokenizer.encoder import WhisperEncoder
from espnet_taste.tokenizer.quantizer import NoQuantizer, RvqQuantizer


class CaseBlindChoices(ClassChoices):
    """ESPnet's registry, which forgets at inference that it ignores case.

    The command line lower-cases a name, ``get_class`` does not: a hand-written
    ``quantizer: RVQ`` would train and then fail to load with a bare KeyError.
    """

    def get_class(self, name: str | None) -> type | None:
        """Return the class of a name in any case; None for None or "none"."""
        if name is None or name.lower() in ("none", "null", "nil"):
            return None
        return super().get_class(name.lower())


# All are optional: a text-only decoder has neither encoder, aggregator nor
# quantizer. "no_quantizer" is the tokenizer without its discrete bottleneck.
encoder_choices = CaseBlindChoices(
    "encoder",
    classes={"whisper": WhisperEncoder},
    type_check=AbsEncoder,
    default="whisper",
    optional=True,
)
aggregator_choices = CaseBlindChoices(
    "aggregator",
    classes={"whisper_decoder": WhisperAggregator},
    type_check=AbsAggregator,
    default="whisper_decoder",
    optional=True,
)
quantizer_choices = CaseBlindChoices(
    "quantizer",
    classes={"rvq": RvqQuantizer, "no_quantizer": NoQuantizer},
    type_check=AbsQuantizer,
    default="rvq",
    optional=True,
)
decoder_choices = CaseBlindChoices(
    "decoder",
    classes={"unit_lm": UnitLM},
    type_check=AbsUnitDecoder,
    default="unit_lm",
)
