"""The rows of a results page: what each must have, and which are compared.

Declared in one place, so that a score somebody forgot to compute is a missing score
and not a shorter table.
"""

from dataclasses import dataclass

UNIT = ("unit_loss", "unit_top1", "unit_top5")
ERRORS = ("wer", "wer_capped", "cer", "cer_capped")
OUTPUT = (
    *ERRORS,
    "duration_25ms",
    "duration_diff_s",
    "duration_coverage",
    "speaker_similarity",
)
RELIANCE = ("reliance_text", "reliance_codes")
SLM = ("slm_text_loss", "slm_code_accuracy", "unigram_code_loss")
SLM_MAIN = ("slm_code_loss", "slm_latent_loss")  # at least one of them


@dataclass(frozen=True)
class Role:
    """What a row of the report is, and the scores it must have."""

    name: str
    label: str
    metrics: tuple[str, ...]  # required
    kinds: tuple[str, ...]  # score files it must have
    optional: bool = False  # the row may be absent
    values: tuple[str, ...] = ()  # required figures of the whole set
    reads_text: bool = True  # its decoder is sent the transcript


ROLES = {
    role.name: role
    for role in (
        Role("original", "original audio", ERRORS, ("audio",), reads_text=False),
        Role(
            "units",
            "units only (topline)",
            OUTPUT,
            ("audio", "codes"),
            values=("unit_used_bps",),
            reads_text=False,
        ),
        Role(
            "text_only",
            "text only",
            (*UNIT, "reliance_text", *OUTPUT),
            ("units", "audio"),
            values=("text_used_bps",),
        ),
        Role(
            "text_only_control",
            "text only, trained as long as TASTE",
            (*UNIT, "reliance_text"),
            ("units",),
            optional=True,
        ),
        Role(
            "no_quantizer",
            "TASTE without quantizer",
            (*UNIT, *RELIANCE, *OUTPUT),
            ("units", "audio"),
        ),
        Role(
            "no_quantizer_control",
            "TASTE without quantizer, trained as long as TASTE",
            (*UNIT, *RELIANCE),
            ("units",),
            optional=True,
        ),
        Role(
            "taste",
            "TASTE",
            (*UNIT, *RELIANCE, *OUTPUT),
            ("units", "audio", "codes"),
            values=("code_used_bps",),
        ),
        Role("slm", "spoken LM", SLM, ("slm",), optional=True),
    )
}

# Compared as "first minus second". The controls come first where they exist: a row
# that was trained longer proves nothing against one that was not.
PAIRS = (
    ("text_only_control", "text_only"),
    ("taste", "text_only"),
    ("taste", "text_only_control"),
    ("no_quantizer", "text_only"),
    ("no_quantizer", "text_only_control"),
    ("no_quantizer_control", "text_only_control"),
    ("no_quantizer", "taste"),
    ("no_quantizer_control", "taste"),
)
PAIR_METRICS = (
    *UNIT,
    "wer",
    "wer_capped",
    "cer",
    "duration_25ms",
    "speaker_similarity",
)
# The spoken LM is compared with its baselines on its own items.
SLM_PAIRS = (
    ("slm_text_loss", "text_llm_loss"),
    ("slm_alone_text_loss", "text_llm_loss"),
    ("slm_exchanged_text_loss", "slm_text_loss"),
    ("slm_code_loss", "unigram_code_loss"),
    ("slm_exchanged_code_loss", "slm_code_loss"),
    ("slm_exchanged_latent_unexplained", "slm_latent_unexplained"),
    ("slm_code_accuracy", "unigram_code_accuracy"),
)
