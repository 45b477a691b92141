"""A row of the flow is what it would be alone, whatever the padding holds."""

import pytest
import torch

from espnet_taste.decoder.flow import FlowConfig, FlowMatching, row_noise
from espnet_taste.layers.masked_norm import MaskedGroupNorm, padding_mask

CONFIG = FlowConfig(
    num_units=20,
    speaker_dim=6,
    input_dim=16,
    width=16,
    heads=2,
    feedforward=32,
    layers=2,
    num_mels=10,
    channels=(16, 16),
    mid_blocks=2,
    transformers=1,
    estimator_heads=2,
    head_dim=8,
)
# Odd and even numbers of frames (1, 39, 44, 18), the longest not last.
LENGTHS = torch.tensor([1, 23, 26, 11])
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def flow():
    torch.manual_seed(0)
    return FlowMatching(CONFIG)


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(1)
    size = int(LENGTHS.max())
    units = torch.randint(CONFIG.num_units, (len(LENGTHS), size), generator=generator)
    speaker = torch.randn(len(LENGTHS), CONFIG.speaker_dim, generator=generator)
    frames = CONFIG.frames(LENGTHS).tolist()
    rows = [torch.Generator().manual_seed(seed) for seed in range(len(frames))]
    return units, speaker, row_noise(rows, frames, CONFIG.num_mels)


def alone(flow, batch, row):
    units, speaker, noise = batch
    length = int(LENGTHS[row])
    frames = int(CONFIG.frames(LENGTHS[row]))
    return flow(
        units[row : row + 1, :length],
        torch.tensor([length]),
        speaker[row : row + 1],
        noise[row : row + 1, :, :frames],
    )[0]


@pytest.mark.parametrize("unit_padding", [0, -1, 19, 10**6])
@pytest.mark.parametrize("noise_padding", [0.0, -3.0, 50.0])
def test_batch_equals_single(flow, batch, unit_padding, noise_padding):
    """Reference defect C27: its mask is added to the scores and hides no padding."""
    units, speaker, noise = (value.clone() for value in batch)
    for row, length in enumerate(LENGTHS.tolist()):
        units[row, length:] = unit_padding
        noise[row, :, int(CONFIG.frames(LENGTHS[row])) :] = noise_padding

    mels = flow(units, LENGTHS, speaker, noise)

    for row in range(len(LENGTHS)):
        expected = alone(flow, batch, row)
        found = mels[row, :, : expected.size(1)]
        torch.testing.assert_close(found, expected, **CLOSE)


def test_one_batched_call_equals_two(flow):
    generator = torch.Generator().manual_seed(2)
    x, mean, speaker, _ = torch.randn(4, 3, 10, 17, generator=generator)
    conditions = torch.cat([mean, speaker, torch.zeros_like(x)], dim=1)
    both = torch.cat([conditions, torch.zeros_like(conditions)])

    pair = flow.decoder.velocities(x, both, 0.3, None)

    estimator, time = flow.decoder.estimator, torch.tensor([0.3])
    for found, condition in zip(pair, (conditions, torch.zeros_like(conditions))):
        expected = estimator(torch.cat([x, condition], dim=1), time)
        torch.testing.assert_close(found, expected, **CLOSE)


def test_guidance_weighs_the_two_velocities(flow, batch):
    """The first step by hand, from two calls."""
    mean, speaker = batch[2] * 0.5, batch[1][:, :1].expand(-1, CONFIG.num_mels)
    states = flow.decoder.trajectory(batch[2], mean, speaker, None)
    start, second = next(states), next(states)
    estimator, time = flow.decoder.estimator, torch.zeros(1)
    nothing = torch.zeros_like(start)
    conditions = [mean, speaker[..., None].expand_as(mean), nothing]
    conditioned = estimator(torch.cat([start, *conditions], dim=1), time)
    free = estimator(torch.cat([start, *[nothing] * 3], dim=1), time)

    step = flow.decoder.times()[1] * (1.7 * conditioned - 0.7 * free)

    torch.testing.assert_close(second, start + step, **CLOSE)


def test_noise_of_a_row_does_not_depend_on_its_batch():
    def draw(seeds, lengths):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return row_noise(generators, lengths, 5)

    together = draw([4, 5, 6], [9, 30, 2])

    torch.testing.assert_close(draw([5], [30])[0], together[1], atol=0, rtol=0)
    torch.testing.assert_close(draw([4], [9])[0], together[0, :, :9], atol=0, rtol=0)
    assert not together[0, :, 9:].any()
    assert draw([0], [20000])[0].std() == pytest.approx(1.0, abs=0.02)


def test_it_stays_frozen_and_in_eval_mode(flow):
    """Reference defect C7: dropout stays on when speech is generated."""
    assert not FlowMatching(CONFIG).training
    torch.nn.ModuleList([flow]).train()

    assert not any(module.training for module in flow.modules())
    assert not any(parameter.requires_grad for parameter in flow.parameters())


def test_a_unit_that_the_model_does_not_know_is_named(flow, batch):
    units = batch[0].clone()
    units[1, 3] = CONFIG.num_units

    with pytest.raises(ValueError, match=r"0\.\.19, got 20; .*another extractor"):
        flow(units, LENGTHS, *batch[1:])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 18, "heads": 4}, "got width 18, heads 4"),
        ({"width": 9, "heads": 3}, "got width 9, heads 3"),
        ({"steps": 0}, "a step and a resolution.*steps 0"),
        ({"channels": ()}, "a step and a resolution"),
        ({"unit_rate_hz": 50.0}, "a whole number, got 50.0"),
    ],
)
def test_a_config_that_cannot_be_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        FlowConfig(**values)


@pytest.mark.parametrize("groups", [1, 4])
def test_masked_group_norm_is_that_of_the_rows_alone(groups):
    torch.manual_seed(3)
    norm = MaskedGroupNorm(groups, 8)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x, lengths = torch.randn(3, 8, 12) + 5, torch.tensor([12, 1, 7])

    found = norm(x, padding_mask(lengths, 12, x.dtype))

    for row, length in enumerate(lengths.tolist()):
        expected = torch.nn.functional.group_norm(
            x[row : row + 1, :, :length], groups, norm.weight, norm.bias
        )
        torch.testing.assert_close(found[row, :, :length], expected[0], **CLOSE)
    assert padding_mask(torch.tensor([12, 12]), 12, x.dtype) is None
