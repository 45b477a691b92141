"""Golden fixtures of other sizes, made by our own modules.

What our modules compute must of course equal what they computed: such a pack tells
nothing about parity. It tells that the golden tests take every size, length, name and
seed from the fixtures, and none from the pack they were written with.
"""

import json
from pathlib import Path

import torch
from reference_names import CODEBOOK_BUFFERS, RVQ
from safetensors.torch import save_file
from torch import Tensor

from espnet_taste.layers.kmeans import lloyd
from espnet_taste.layers.residual_vq import ResidualVQ
from espnet_taste.types import IGNORE

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

    def weights(self, prefix: str, state: dict[str, Tensor]) -> None:
        """Note weights under a prefix."""
        for name, value in state.items():
            self.tensors[f"state.{prefix}{name}"] = value.detach().clone()

    def some_rows(self, key: str, ids: Tensor) -> None:
        """Keep only some rows of a noted matrix; the others become zeros."""
        whole = self.tensors.pop(f"state.{key}")
        self.tensors[f"rows.{key}"] = whole[ids]
        self.tensors[f"row_ids.{key}"] = ids.clone()
        entries = self.info.setdefault("sparse_rows", {})
        entries[key] = {"shape": list(whole.shape)}

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
