"""What a training hands to its optimizer: the trained parameters, by learning rate."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from espnet_taste.tasks.base import TasteTask, WarmupCosineLR


@pytest.fixture
def model():
    parts = {name: nn.Linear(2, 2) for name in ("encoder", "aggregator", "decoder")}
    parts["encoder"].requires_grad_(False)
    return nn.ModuleDict(parts)


def training(**change):
    args = SimpleNamespace(lr_scale={}, freeze_param=[], optim="adamw", optim_conf={})
    args.scheduler, args.scheduler_conf = "warmupcosine", {"total_steps": 9}
    vars(args).update(change)
    return args


def build(model, **lr_scale):
    args = training(lr_scale=lr_scale, optim_conf={"lr": 0.5})
    (optimizer,) = TasteTask.build_optimizers(args, model)
    return optimizer.param_groups


def test_a_scaled_part_is_trained_at_its_own_rate(model):
    groups = build(model, aggregator=0.2)

    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    aggregator, decoder = model["aggregator"].weight, model["decoder"].weight
    assert rates[id(aggregator)] == pytest.approx(0.1)
    assert rates[id(decoder)] == pytest.approx(0.5)
    assert id(model["encoder"].weight) not in rates


def test_without_a_rate_the_optimizer_has_its_own(model):
    args = training(optim="adadelta", lr_scale={"aggregator": 0.2})
    (optimizer,) = TasteTask.build_optimizers(args, model)

    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 1.0]


def test_a_scale_of_nothing_trained_is_refused(model):
    with pytest.raises(ValueError, match=r"lr_scale.*\['encoder', 'encodr'\]"):
        build(model, encoder=0.2, encodr=0.2)


def test_a_model_without_trained_parameters_is_refused(model):
    with pytest.raises(ValueError, match="freeze_param"):
        build(model.requires_grad_(False))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optim_conf": {"l": 0.5}}, r"optim_conf: unknown option \['l'\]"),
        ({"optim_conf": {"params": []}}, r"optim_conf: unknown option \['params'\]"),
        ({"scheduler_conf": {"steps": 9}}, r"scheduler_conf: unknown option \['steps'"),
        ({"scheduler_conf": {}}, r"scheduler_conf: no value for \['total_steps'\]"),
        ({"freeze_param": ["decoder", "decodr"]}, r"freeze_param: .* \['decodr'\]"),
        ({"exclude_weight_decay": True}, "--exclude_weight_decay would do nothing"),
        ({"sharded_ddp": True}, "--sharded_ddp would do nothing"),
    ],
)
def test_options_that_would_do_nothing_are_named(model, change, message):
    with pytest.raises(ValueError, match=message):
        TasteTask.build_optimizers(training(**change), model)


def test_the_rate_grows_to_its_peak_and_falls_by_half_a_cosine_to_its_floor(model):
    groups = [
        {"params": [model["aggregator"].weight], "lr": 1.0},
        {"params": [model["decoder"].weight], "lr": 0.1},
    ]
    optimizer = torch.optim.SGD(groups)
    scheduler = WarmupCosineLR(optimizer, total_steps=12, warmup_steps=4, floor=0.2)

    rates = []
    for _ in range(15):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()

    peak, other = zip(*rates)
    assert peak[:5] == pytest.approx((0.25, 0.5, 0.75, 1.0, 1.0))
    assert peak[8] == pytest.approx(0.6)  # half-way, between peak and floor
    assert peak[6] + peak[10] == pytest.approx(1.2) and peak[6] > 0.8
    assert peak[12:] == pytest.approx((0.2, 0.2, 0.2))
    assert other == pytest.approx([0.1 * rate for rate in peak])
