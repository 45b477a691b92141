"""The quantizer must equal the released one: codes, losses, gradients, buffers."""

import pytest
import torch
from reference_names import CODEBOOK_BUFFERS, RVQ, rvq_state

from espnet_taste.layers.kmeans import lloyd
from espnet_taste.layers.residual_vq import ResidualVQ
from espnet_taste.types import IGNORE


@pytest.fixture
def case(golden):
    return golden("rvq")


@pytest.fixture
def rvq(case):
    model = build(case, case.config["rvq"]["codebook_size"])
    released = case.state(RVQ)
    model.load_state_dict(rvq_state(released, model.num_codebooks))
    return model


def build(case, codebook_size):
    config = case.config["rvq"]
    return ResidualVQ(
        config["dim"],
        config["codebook_dim"],
        codebook_size,
        config["num_quantizers"],
        decay=config["decay"],
    )


def build_with_projections(case, name):
    """Return an uninitialised quantizer that has the fixture's projections."""
    model = build(case, case.config["kmeans"][name]["codebook_size"])
    state = {k: v for k, v in case.state(RVQ).items() if k.startswith("project_")}
    model.load_state_dict(state, strict=False)
    return model


def kmeans_input(case, name):
    """Return the padded features of a k-means case and their mask."""
    x = case.input(f"kmeans_{name}.x")
    lengths = torch.tensor(case.config["kmeans"][name]["lengths"])
    return x, torch.arange(x.size(1)) < lengths[:, None]


def check_codebook(case, name, codebook):
    """Compare the buffers of one codebook as far as the case stores them."""
    stored = [t for t in CODEBOOK_BUFFERS.values() if case.has(f"{name}.{t}")]
    assert stored
    for ours, theirs in CODEBOOK_BUFFERS.items():
        if theirs in stored:
            expected = case.output(f"{name}.{theirs}")
            value = getattr(codebook, ours).reshape(expected.shape)
            case.check(f"{name}.{theirs}", value)


def train_cases(case):
    return sorted(case.info["dropout_index_of_train_case"].items())


def test_train_step(case, rvq):
    initial = {k: v.clone() for k, v in rvq.state_dict().items()}
    for name, dropout_index in train_cases(case):
        rvq.load_state_dict(initial)
        rvq.zero_grad()
        features = case.input("x").requires_grad_()

        out = rvq.train()(features, case.input("mask"), dropout_index + 1)
        objective = (out.quantized * case.input("cotangent")).sum()
        (objective + out.commitment.sum()).backward()

        case.check(f"{name}.y", out.quantized)
        case.check(f"{name}.indices", out.codes)
        case.check(f"{name}.commit_losses", out.commitment)
        case.check(f"{name}.commit_loss", out.commitment.sum())
        case.check(f"{name}.grad_x", features.grad)
        for parameter, value in rvq.named_parameters():
            case.check(f"{name}.grad_{parameter.replace('.', '_')}", value.grad)
        for number, codebook in enumerate(rvq.codebooks):
            check_codebook(case, f"{name}.layer{number}", codebook)


def test_eval(case, rvq):
    rvq.eval()
    out = rvq(case.input("x"), case.input("mask"))

    case.check("eval.y", out.quantized)
    case.check("eval.indices", out.codes)
    case.check("eval.code_sum", rvq.sum_codes(out.codes))
    case.check("eval.output_from_indices", rvq.decode(out.codes))
    per_layer = []
    for number in range(rvq.num_codebooks):
        only = torch.full_like(out.codes, IGNORE)
        only[..., number] = out.codes[..., number]
        per_layer.append(rvq.sum_codes(only))
    case.check("eval.codes_per_layer", torch.stack(per_layer))
    assert out.commitment.count_nonzero() == 0


def test_partial_codes(case, rvq):
    codes = case.input("partial_indices")

    case.check("partial.code_sum", rvq.sum_codes(codes))
    case.check("partial.output_from_indices", rvq.decode(codes))


def test_latent_requantization(case, rvq):
    case.check("requant.of_code_sum", rvq.quantize_latent(case.output("eval.code_sum")))
    case.check("requant.of_latent", rvq.quantize_latent(case.input("latent")))


def test_kmeans_start_with_more_vectors_than_codes(case):
    rvq = build_with_projections(case, "many").eval()
    x, mask = kmeans_input(case, "many")

    rvq.initialise(
        x[mask],
        generator=torch.Generator(),
        num_iterations=case.config["kmeans"]["many"]["iters"],
        start_indices=case.input("kmeans_many.start_indices"),
    )
    out = rvq(x, mask)

    for number, codebook in enumerate(rvq.codebooks):
        check_codebook(case, f"kmeans_many.layer{number}", codebook)
    case.check("kmeans_many.indices", out.codes)
    case.check("kmeans_many.y", out.quantized)


def test_kmeans_start_with_fewer_vectors_than_codes(case):
    rvq = build_with_projections(case, "few").eval()
    x, mask = kmeans_input(case, "few")

    rvq.initialise(
        x[mask],
        generator=torch.Generator(),
        num_iterations=case.config["kmeans"]["few"]["iters"],
        start_indices=case.input("kmeans_few.start_indices"),
    )

    case.check("kmeans_few.y", rvq(x, mask).quantized)
    totals = torch.stack([codebook.count.sum() for codebook in rvq.codebooks])
    expected = case.output("kmeans_few.counts_total")
    case.check("kmeans_few.counts_total", totals.reshape(expected.shape))


def test_lloyd_iterations_of_the_first_codebook(case):
    rvq = build_with_projections(case, "many")
    x, mask = kmeans_input(case, "many")
    vectors = rvq.project_in(x)[mask].detach()
    start = case.input("kmeans_many.start_indices")[0, : rvq.codebook_size]

    means, counts = run_lloyd(
        vectors, vectors[start], case.config["kmeans"]["many"]["iters"]
    )

    name = "kmeans_many.layer0"
    check_like(case, f"{name}.means_per_iteration", [vectors[start], *means])
    check_like(case, f"{name}.counts_per_iteration", counts)


def test_lloyd_keeps_empty_clusters(case):
    start = case.input("kmeans_direct.start_means")
    steps = len(case.output("kmeans_direct.means_per_iteration"))

    means, counts = run_lloyd(case.input("kmeans_direct.data"), start, steps)

    check_like(case, "kmeans_direct.means_per_iteration", means)
    check_like(case, "kmeans_direct.counts_per_iteration", counts)


def run_lloyd(vectors, means, steps):
    """Run k-means one iteration at a time."""
    history = []
    for _ in range(steps):
        means, counts = lloyd(vectors, means, 1)
        history.append((means, counts))
    return tuple(zip(*history))


def check_like(case, name, values):
    expected = case.output(name)
    case.check(name, torch.stack(list(values)).reshape(expected.shape))


def test_start_and_first_training_step(case):
    """Codebooks that are not active stay as they were constructed."""
    rvq = build_with_projections(case, "many").train()
    x, mask = kmeans_input(case, "many")
    starts = case.input("kmeans_many.start_indices")[:, : rvq.codebook_size]
    num_active = int((case.output("kmeans_train.indices")[0, 0] != IGNORE).sum())

    started = build_with_projections(case, "many")
    started.initialise(
        x[mask],
        generator=torch.Generator(),
        num_iterations=case.config["kmeans"]["many"]["iters"],
        start_indices=starts,
    )
    state = rvq.state_dict()
    for name, value in started.state_dict().items():
        if not name.startswith("codebooks.") or int(name.split(".")[1]) < num_active:
            state[name] = value
    rvq.load_state_dict(state)
    out = rvq(x, mask, num_active)

    case.check("kmeans_train.y", out.quantized)
    case.check("kmeans_train.indices", out.codes)
    case.check("kmeans_train.commit_losses", out.commitment)
    for number, codebook in enumerate(rvq.codebooks):
        check_codebook(case, f"kmeans_train.layer{number}", codebook)
