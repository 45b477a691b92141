"""Index logic of a fabricated pack; see ``fabricated_pack``."""

import json
from pathlib import Path

import numpy as np
import torch

from espnet_taste.sampling import Sampler, keep_nucleus, remove
from espnet_taste.slm.delay import PAD, delay_words
from espnet_taste.slm.state_machine import Action, TasteAction, WordMachine
from espnet_taste.types import IGNORE
from espnet_taste.words import code_sources, expand_word_rows


def words_of(rng, num_words, most=4):
    """Return the word index of every token."""
    sizes = rng.integers(1, most, num_words)
    return np.repeat(np.arange(num_words), sizes).tolist()


def write_logic(folder: Path, seed: int) -> None:
    """Index logic: as the released files, with other contents."""
    rng = np.random.default_rng(seed)
    files = {
        "logic_delay": {"cases": [delay_case(rng) for _ in range(9)]},
        "logic_mapping": mapping_cases(rng),
        "logic_pooling": {
            "cases": [pooling_case(rng, 4) for _ in range(7)],
            "one_word": [
                {**case, "intended": case["spans"], "reference_defect": []}
                for case in (pooling_case(rng, 1) for _ in range(5))
            ],
        },
        "logic_sampler": sampler_cases(rng),
        "logic_nucleus": nucleus_cases(rng),
        "logic_schedules": schedules(rng),
    }
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def delay_case(rng):
    words = words_of(rng, rng.integers(1, 6))
    delay, level = int(rng.integers(1, 5)), str(rng.choice(["word", "token"]))
    layout = delay_words(np.arange(len(words)), words, delay, level)

    def to_json(values, empty):
        return [None if value == empty else value for value in values.tolist()]

    return {
        "delay": delay,
        "level": level,
        "word_ids": words,
        "audio_word": to_json(layout.taste_words, PAD),
        "label_word": to_json(layout.label_words, IGNORE),
    }


def mapping_cases(rng, num_codes=3):
    to_llm, to_asr = [], []
    for _ in range(8):
        num_words = rng.integers(1, 6)
        asr, llm = words_of(rng, num_words), words_of(rng, num_words)
        rows = rng.integers(0, 99, (num_words, num_codes)).tolist()
        codes = [rows[word] for word in asr]
        sources = code_sources(asr, llm)
        empty = [IGNORE] * num_codes
        moved = [codes[s] if s != IGNORE else empty for s in sources]
        padding = int(rng.integers(0, 3))
        case = {"asr_word_ids": asr, "llm_word_ids": llm, "asr_codes": codes}
        case["llm_padded_length"] = len(llm) + padding
        case["source_asr_pos"] = sources + [IGNORE] * padding
        case["llm_codes"] = moved + [empty] * padding
        to_llm.append(case)
        back = expand_word_rows(rows, asr)
        case = {"asr_word_ids": asr, "llm_rows": moved, "asr_rows": back}
        to_asr.append(case)
    return {"asr_to_llm": to_llm, "llm_to_asr": to_asr}


def pooling_case(rng, most_words):
    words = words_of(rng, rng.integers(1, most_words + 1), most=6)
    spans = []
    for word in range(words[-1] + 1):
        start, length = words.index(word), words.count(word)
        if length > 1:
            spans.append([start, start + length])
    padded = len(words) + int(rng.integers(0, 4))
    return {"word_ids": words, "padded_length": padded, "spans": spans}


def sampler_cases(rng):
    size = 31
    vocabulary = {
        "size": size,
        "word_start": list(range(12, size - 2)),
        "sentence_end": [size - 3, size - 2],
    }
    cases = [sampler_case(rng, vocabulary) for _ in range(20)]
    return {"vocabulary": vocabulary, "cases": cases}


def sampler_case(rng, vocabulary):
    case = {
        "delay": int(rng.integers(1, 5)),
        "level": str(rng.choice(["word", "token"])),
        "extra_words": int(rng.integers(1, 4)),
        "has_prefix": bool(rng.integers(2)),
        "stop_id": vocabulary["size"] - 1,
    }
    machine = WordMachine(
        torch.tensor([case["has_prefix"]]),
        case["extra_words"],
        case["delay"],
        case["level"],
    )
    text_ids, trace = [], []
    while not trace or trace[-1][1] != "terminate":
        token = int(rng.integers(vocabulary["size"]))
        step = machine.step(
            torch.tensor([token in vocabulary["word_start"]]),
            torch.tensor([token in vocabulary["sentence_end"]]),
            torch.tensor([token == case["stop_id"]]),
        )
        names = [Action(int(step.action)), TasteAction(int(step.taste_action))]
        text_ids.append(token)
        trace.append([int(step.take), *(name.name.lower() for name in names)])
    return {**case, "text_ids": text_ids, "trace": trace}


def nucleus_cases(rng):
    kept_count, filtered, draws = [], [], []
    for _ in range(6):
        size = int(rng.integers(4, 9))
        logits = torch.from_numpy(3 * rng.standard_normal((1, size))).float()
        banned = rng.choice(size, 2, replace=False).tolist()
        case = {
            "logits": logits[0].tolist(),
            "top_p": float(rng.choice([0.2, 0.4, 0.8])),
            "context_ids": rng.integers(0, size, 3).tolist(),
            "repetition_penalty": float(rng.choice([1.0, 1.3])),
            "temperature": float(rng.choice([0.7, 1.0])),
        }
        probs = logits.softmax(-1)
        kept = kept_ids(probs.log(), case["top_p"])
        count = {"probs": probs[0].tolist(), "top_p": case["top_p"]}
        kept_count.append({**count, "kept": len(kept)})
        final = final_probs(case, logits)
        kept = kept_ids(logits, case["top_p"])
        filtered.append({**case, "kept": kept, "final_probs": final})
        without = remove(logits, as_mask(banned, size))
        draw = {**case, "banned": banned, "draw_probs": final_probs(case, without)}
        draws.append(draw)
    content = {"kept_count": kept_count, "filter": filtered, "draw": draws}
    return {**content, "tolerance": {"atol": 1e-5}}


def schedules(rng):
    """By the formulas, which the specification states and we do not ask our own."""
    steps, tokens = int(rng.integers(3, 9)), rng.integers(1, 50, 7).tolist()
    return {
        "cfm_time_grid": [1 - np.cos(np.pi / 2 * n / steps) for n in range(steps + 1)],
        "mel_frames": [int(n / 50 * 22050 / 256) for n in range(1, 40)],
        "mel_frames_float32_deviations": [],
        "s3_bounds": [[n, 2 * (n + 3), 20 * (n + 3)] for n in tokens],
        "tolerance": {"atol": 1e-6},
    }


def as_mask(ids, size):
    mask = torch.zeros(1, size, dtype=torch.bool)
    mask[:, ids] = True
    return mask


def kept_ids(logits, top_p):
    kept = keep_nucleus(logits, top_p, "released") == logits
    return kept[0].nonzero().flatten().tolist()


def final_probs(case, logits):
    names = ("top_p", "temperature", "repetition_penalty")
    sampler = Sampler(**{name: case[name] for name in names}, rule="released")
    seen = as_mask(case["context_ids"], logits.size(-1))
    return sampler.adjust(logits, seen).softmax(-1)[0].tolist()
