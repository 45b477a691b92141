"""Golden fixtures of other sizes, made by our own modules.

What our modules compute must of course equal what they computed: such a pack tells
nothing about parity. It tells that the golden tests take every size, length, name and
seed from the fixtures, and none from the pack they were written with.
"""

import json
from pathlib import Path

import numpy as np
import torch
from reference_names import CODEBOOK_BUFFERS, RVQ
from safetensors.torch import save_file
from torch import Tensor

from espnet_taste.layers.kmeans import lloyd
from espnet_taste.layers.residual_vq import ResidualVQ
from espnet_taste.sampling import Sampler, keep_nucleus, remove
from espnet_taste.slm.delay import PAD, delay_words
from espnet_taste.slm.state_machine import Action, TasteAction, WordMachine
from espnet_taste.types import IGNORE
from espnet_taste.words import code_sources, expand_word_rows

RTOL = 1e-4


class Writer:
    """Collects inputs, weights and results of one case.

    Args:
        name: Name of the case.
        config: Its configuration.
        seed: Seed of the random numbers.
    """

    def __init__(self, name: str, config: dict, seed: int):
        self.name = name
        self.info = {"case": name, "config": config, "inputs": {}, "outputs": {}}
        self.tensors: dict[str, Tensor] = {}
        self.random = torch.Generator().manual_seed(seed)

    def randn(self, *shape: int) -> Tensor:
        """Return normal numbers."""
        return torch.randn(shape, generator=self.random)

    def randint(self, low: int, high: int, *shape: int) -> Tensor:
        """Return integers from low up to, but without, high."""
        return torch.randint(low, high, shape, generator=self.random)

    def input(self, name: str, value: Tensor) -> Tensor:
        """Note an input and return it."""
        self.tensors[f"in.{name}"] = value.clone()
        self.info["inputs"][name] = {"shape": list(value.shape)}
        return value

    def output(self, name: str, value: Tensor, atol: float = 1e-5) -> None:
        """Note a result; integers must be reproduced exactly."""
        value = value.detach().clone().contiguous()
        self.tensors[f"out.{name}"] = value
        loose = {"atol": atol, "rtol": RTOL}
        entry = loose if value.is_floating_point() else {"match": "exact"}
        self.info["outputs"][name] = entry

    def save(self, folder: Path) -> None:
        """Write the two files of the case."""
        text = json.dumps(self.info)
        (folder / f"{self.name}.json").write_text(text, encoding="utf-8")
        tensors = {name: value.contiguous() for name, value in self.tensors.items()}
        save_file(tensors, folder / f"{self.name}.safetensors")


def mask_of(lengths: list[int]) -> Tensor:
    """(B,) -> (B, T), True on what is valid."""
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def write_rvq(folder: Path, seed: int) -> None:
    """Residual quantizer: training steps, inference, k-means."""
    sizes = {"dim": 9, "codebook_dim": 5, "codebook_size": 7, "num_quantizers": 3}
    kmeans = {
        "many": {"codebook_size": 4, "lengths": [8, 3], "iters": 3},
        "few": {"codebook_size": 6, "lengths": [1, 2, 1], "iters": 2},
    }
    config = {"rvq": {**sizes, "decay": 0.9}, "kmeans": kmeans}
    case = Writer("rvq", config, seed)
    rvq = build_rvq(config, sizes["codebook_size"])
    features = 3 * case.randn(50, sizes["dim"])
    rvq.initialise(features, generator=case.random, num_iterations=2)
    add_quantizer(case, rvq)
    write_training(case, rvq, lengths=[2, 6])
    write_inference(case, rvq.eval())
    for name in kmeans:
        write_kmeans(case, name, rvq)
    write_lloyd(case, rvq)
    case.save(folder)


def build_rvq(config: dict, codebook_size: int) -> ResidualVQ:
    """Return a quantizer of the case's sizes."""
    sizes = config["rvq"]
    return ResidualVQ(
        sizes["dim"],
        sizes["codebook_dim"],
        codebook_size,
        sizes["num_quantizers"],
        decay=sizes["decay"],
    )


def add_quantizer(case: Writer, rvq: ResidualVQ) -> None:
    """Note the weights of a quantizer under their released names."""
    for name, value in rvq.state_dict().items():
        if name.startswith("project_"):
            case.tensors[f"state.{RVQ}{name}"] = value.clone()
    for number, codebook in enumerate(rvq.codebooks):
        for ours, theirs in CODEBOOK_BUFFERS.items():
            name = f"state.{RVQ}layers.{number}._codebook.{theirs}"
            case.tensors[name] = getattr(codebook, ours)[None].clone()


def add_codebooks(case: Writer, name: str, rvq: ResidualVQ) -> None:
    """Note the buffers of all codebooks as results."""
    for number, codebook in enumerate(rvq.codebooks):
        for ours, theirs in CODEBOOK_BUFFERS.items():
            value = getattr(codebook, ours).float()[None]
            case.output(f"{name}.layer{number}.{theirs}", value)


def write_training(case: Writer, rvq: ResidualVQ, lengths: list[int]) -> None:
    """One step for every number of active codebooks but one."""
    mask = case.input("mask", mask_of(lengths))
    dim = case.info["config"]["rvq"]["dim"]
    x = case.input("x", case.randn(*mask.shape, dim))
    cotangent = case.input("cotangent", case.randn(*mask.shape, dim))
    cases = {f"train{n}": n for n in range(1, rvq.num_codebooks)}
    case.info["dropout_index_of_train_case"] = cases
    initial = {k: v.clone() for k, v in rvq.state_dict().items()}
    for name, last in cases.items():
        rvq.load_state_dict(initial)
        rvq.zero_grad()
        features = x.clone().requires_grad_()
        out = rvq.train()(features, mask, last + 1)
        ((out.quantized * cotangent).sum() + out.commitment.sum()).backward()
        case.output(f"{name}.y", out.quantized)
        case.output(f"{name}.indices", out.codes)
        case.output(f"{name}.commit_losses", out.commitment)
        case.output(f"{name}.commit_loss", out.commitment.sum())
        case.output(f"{name}.grad_x", features.grad)
        for parameter, value in rvq.named_parameters():
            case.output(f"{name}.grad_{parameter.replace('.', '_')}", value.grad)
        add_codebooks(case, name, rvq)
    rvq.load_state_dict(initial)


@torch.no_grad()
def write_inference(case: Writer, rvq: ResidualVQ) -> None:
    """Evaluation mode and the helpers of inference."""
    out = rvq(case.tensors["in.x"], case.tensors["in.mask"])
    total = rvq.sum_codes(out.codes)
    case.output("eval.y", out.quantized)
    case.output("eval.indices", out.codes)
    case.output("eval.code_sum", total)
    case.output("eval.output_from_indices", rvq.decode(out.codes))
    layers = torch.eye(rvq.num_codebooks, dtype=torch.bool)
    only = [out.codes.masked_fill(~layer, IGNORE) for layer in layers]
    case.output("eval.codes_per_layer", torch.stack([*map(rvq.sum_codes, only)]))
    codes = case.randint(IGNORE, rvq.codebook_size, 3, 2, rvq.num_codebooks)
    case.input("partial_indices", codes)
    case.output("partial.code_sum", rvq.sum_codes(codes))
    case.output("partial.output_from_indices", rvq.decode(codes))
    latent = case.input("latent", case.randn(4, 3, rvq.codebook_dim))
    case.output("requant.of_latent", rvq.quantize_latent(latent))
    case.output("requant.of_code_sum", rvq.quantize_latent(total))


@torch.no_grad()
def write_kmeans(case: Writer, name: str, projections: ResidualVQ) -> None:
    """Start of codebooks from data; with many vectors also a training step."""
    setting = case.info["config"]["kmeans"][name]
    mask, size = mask_of(setting["lengths"]), setting["codebook_size"]
    num_layers, count = projections.num_codebooks, int(mask.sum())
    dim = case.info["config"]["rvq"]["dim"]
    x = case.input(f"kmeans_{name}.x", case.randn(*mask.shape, dim))
    if name == "many":
        order = [torch.randperm(count, generator=case.random)] * num_layers
        start = torch.stack(order)
    else:
        start = case.randint(0, count, num_layers, size)
    case.input(f"kmeans_{name}.start_indices", start)

    def started() -> ResidualVQ:
        rvq = build_rvq(case.info["config"], size)
        for part in ("project_in", "project_out"):
            weights = getattr(projections, part).state_dict()
            getattr(rvq, part).load_state_dict(weights)
        rvq.initialise(
            x[mask],
            generator=case.random,
            num_iterations=setting["iters"],
            start_indices=start,
        )
        return rvq

    rvq = started().eval()
    out = rvq(x, mask)
    case.output(f"kmeans_{name}.y", out.quantized)
    if name == "few":
        totals = torch.stack([codebook.count.sum() for codebook in rvq.codebooks])
        case.output("kmeans_few.counts_total", totals)
        return
    case.output("kmeans_many.indices", out.codes)
    add_codebooks(case, "kmeans_many", rvq)
    vectors = rvq.project_in(x)[mask]
    history = [vectors[start[0, :size]]]
    write_history(case, "kmeans_many.layer0", vectors, history, setting["iters"])
    trained = started().train()
    out = trained(x, mask)
    case.output("kmeans_train.y", out.quantized)
    case.output("kmeans_train.indices", out.codes)
    case.output("kmeans_train.commit_losses", out.commitment)
    add_codebooks(case, "kmeans_train", trained)


def write_history(case, name, vectors, means, steps, first=0):
    """Note the means and counts of every iteration."""
    means, counts = [*means], []
    for _ in range(steps):
        moved, count = lloyd(vectors, means[-1], 1)
        means.append(moved)
        counts.append(count.long())
    case.output(f"{name}.means_per_iteration", torch.stack(means[first:]))
    case.output(f"{name}.counts_per_iteration", torch.stack(counts))


def write_lloyd(case: Writer, rvq: ResidualVQ) -> None:
    """Plain iterations; the last cluster stays empty."""
    data = case.input("kmeans_direct.data", case.randn(17, 3))
    start = case.randn(5, 3)
    start[-1] = 100.0
    case.input("kmeans_direct.start_means", start)
    write_history(case, "kmeans_direct", data, [start], 6, first=1)


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
    }
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def words_of(rng, num_words, most=4):
    """Return the word index of every token."""
    sizes = rng.integers(1, most, num_words)
    return np.repeat(np.arange(num_words), sizes).tolist()


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
