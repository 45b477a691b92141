"""Score files that no model made, for tests of the report: seeded, ordered by plan."""

import numpy as np

from espnet_taste.eval.score_file import ScoreFile

KEYS = [f"utt{number:02d}" for number in range(12)]
# Planned mean unit loss of every row, in nats.
LOSSES = {
    "text_only": 2.6,
    "text_only_control": 2.5,
    "no_quantizer": 2.1,
    "no_quantizer_control": 2.0,
    "taste": 2.3,
}
RATE = {
    "steps": 100.0,
    "seconds": 50.0,
    "nominal_bits": 36.0,
    "used_bits": 30.75,
    "nominal_bps": 72.0,
    "used_bps": 61.5,
    "used_entries": 400.0,
}


def unit_file(role, *, loss=None, reliance=0.4):
    """Teacher-forced scores with small noise around the planned loss."""
    generator = np.random.default_rng(len(role))
    items = {}
    for key in KEYS:
        units = int(generator.integers(80, 120))
        mean = (LOSSES[role] if loss is None else loss) + generator.normal(0, 0.02)
        items[key] = {
            "unit_loss_sum": mean * units,
            "unit_top1": int(units * (0.8 - mean / 5)),
            "unit_top5": int(units * 0.8),
            "units": units,
            "rise_exchanged_text_sum": reliance * units,
        }
        if "text" not in role:
            items[key]["rise_exchanged_codes_sum"] = reliance * units
    return ScoreFile(role, "test", "units", items)


def audio_file(role, *, error_share=0.2, matched_share=0.8):
    """Free-running scores; the original is compared with the transcript only."""
    items = {}
    for number, key in enumerate(KEYS):
        words, chars = 10 + number, 50 + number
        errors = round(words * error_share)
        items[key] = {
            "words": words,
            "word_errors": errors,
            "word_errors_capped": min(errors, words),
            "chars": chars,
            "char_errors": errors * 3,
            "char_errors_capped": min(errors * 3, chars),
        }
        if role != "original":
            matched = int(words * matched_share)
            items[key] |= {
                "reference_words": words,
                "matched_words": matched,
                "duration_diff_s": matched * 0.04,
                "within_25ms": matched // 2,
                "within_50ms": matched // 2,
                "within_100ms": matched,
                "identical": 0,
                "identical_words": 0,
                "identical_within_25ms": 0,
                "similarity": 0.7,
                "compared": 1,
            }
    metadata = {"judge": "fake-judge greedy", "normaliser": "basic-1"}
    skipped = {"heard_as_nothing": 1, "no_audio": 0}
    return ScoreFile(role, "test", "audio", items, {}, skipped, metadata)


def codes_file(role):
    """Rates of the streams a row sends."""
    streams = {"units": ["text", "unit"], "text_only": ["text"], "taste": ["text"]}
    names = streams[role] + (["code"] if role == "taste" else [])
    values = {f"{name}_{figure}": v for name in names for figure, v in RATE.items()}
    return ScoreFile(role, "test", "codes", {}, values)


def slm_file():
    """A spoken LM that beats its unigram baseline."""
    fields = {
        "slm_text_loss_sum": 60.0,
        "slm_text_count": 20,
        "text_llm_text_loss_sum": 70.0,
        "text_llm_text_count": 20,
        "slm_code_count": 10,
        "slm_code_slots": 40,
        "slm_code_hits": 8,
        "slm_latent_loss_sum": 5.0,
        "unigram_loss_sum": 240.0,
        "unigram_hits": 2,
        "unigram_words": 10,
        "unigram_slots": 40,
    }
    items = {key: dict(fields) for key in KEYS}
    for number, key in enumerate(KEYS):
        items[key]["slm_text_loss_sum"] += number
    return ScoreFile("slm", "test", "slm", items)


def whole_run():
    """Score files of every row, by role."""
    return {
        "original": [audio_file("original", error_share=0.15)],
        "units": [audio_file("units"), codes_file("units")],
        "text_only": [
            unit_file("text_only"),
            audio_file("text_only", error_share=0.4),
            codes_file("text_only"),
        ],
        "text_only_control": [unit_file("text_only_control")],
        "no_quantizer": [unit_file("no_quantizer"), audio_file("no_quantizer")],
        "no_quantizer_control": [unit_file("no_quantizer_control")],
        "taste": [unit_file("taste"), audio_file("taste"), codes_file("taste")],
        "slm": [slm_file()],
    }


def save_run(folder, files=None):
    """Write the files where the report command looks; return its --system options."""
    from espnet_taste.eval.score_file import score_path

    options = []
    for role, scores in (files or whole_run()).items():
        for score in scores:
            score.save(score_path(folder / role, score.set_name, score.kind))
        options += ["--system", f"{role}={folder / role}"]
    return options
