"""Flow matching equals the released mel generator, step by step."""

import json

import pytest
import torch

from espnet_taste.decoder.flow import FlowConfig, FlowMatching, stack_conditions
from espnet_taste.decoder.flow_estimator import NORM_GROUPS, TIME_SCALE

PREFIX = "flow."


@pytest.fixture(scope="module")
def case(golden):
    return golden("flow")


def config_of(case):
    values, encoder = case.config, case.config["encoder"]
    estimator, cfm = values["estimator"], values["cfm"]
    assert estimator["act_fn"] == "gelu" and cfm["schedule"] == "cosine"
    # Not a choice of ours either: the released network has these.
    assert estimator["groupnorm_groups"] == NORM_GROUPS
    assert estimator["time_scale"] == TIME_SCALE
    return FlowConfig(
        num_units=values["vocab_size"],
        speaker_dim=values["spk_embed_dim"],
        input_dim=values["input_size"],
        width=encoder["output_size"],
        heads=encoder["attention_heads"],
        feedforward=encoder["linear_units"],
        layers=encoder["num_blocks"],
        num_mels=values["mel_bins"],
        regulator_convs=values["length_regulator"]["blocks"],
        channels=tuple(estimator["channels"]),
        mid_blocks=estimator["num_mid_blocks"],
        transformers=estimator["n_blocks"],
        estimator_heads=estimator["num_heads"],
        head_dim=estimator["attention_head_dim"],
        steps=cfm["steps"],
        guidance=cfm["cfg_rate"],
    )


@pytest.fixture(scope="module")
def flow(case):
    model = FlowMatching(config_of(case))
    model.load_state_dict(case.state(PREFIX))
    return model


def rows(case):
    return range(len(case.info["token_counts"]))


def mean_of(case, flow, row):
    units = case.input(f"{row}.token")
    lengths = torch.tensor([units.size(1)])
    frames = torch.tensor([case.info["mel_frames"][row]])
    encoded = flow.encode(units, lengths)
    projected = flow.encoder_proj(encoded)
    mean = flow.length_regulator(projected, lengths, frames, None)
    return encoded, projected, mean


def test_encoder_and_length_regulator(case, flow):
    for row in rows(case):
        encoded, projected, mean = mean_of(case, flow, row)

        case.check(f"{row}.encoder_out", encoded)
        case.check(f"{row}.encoder_proj", projected)
        case.check(f"{row}.mu", mean)
        speaker = flow.project_speaker(case.input(f"{row}.speaker_embeds"))
        case.check(f"{row}.speaker_proj", speaker)


def test_one_call_of_the_estimator(case, flow):
    estimator = flow.decoder.estimator
    for row in rows(case):
        x, mu, t, speaker, cond = (
            case.input(f"{row}.estimator.{name}")
            for name in ("x", "mu", "t", "spks", "cond")
        )
        speaker = speaker[..., None].expand_as(x)
        inputs = torch.cat([x, mu, speaker, cond], dim=1)

        case.check(f"{row}.estimator.out", estimator(inputs, t))
        mask = torch.ones(1, 1, x.size(2))
        case.check(f"{row}.estimator.out", estimator(inputs, t, mask))
        case.check(f"{row}.estimator.time_embedding", estimator.time_mlp(t))


def test_every_state_of_the_solution(case, flow):
    for row in rows(case):
        _, _, mean = mean_of(case, flow, row)
        speaker = flow.project_speaker(case.input(f"{row}.speaker_embeds"))
        noise = case.input(f"{row}.noise")

        states = list(flow.decoder.trajectory(noise, mean, speaker, None))

        case.check(f"{row}.states", torch.cat(states))
        case.check(f"{row}.times", torch.tensor(flow.decoder.times()[:-1]))
        conditions = stack_conditions(mean, speaker)
        last = flow.config.steps - 1
        for step in (0, last):
            t = flow.decoder.times()[step]
            pair = flow.decoder.velocities(states[step], conditions, t, None)
            case.check(f"{row}.velocity_cond_step{step}", pair[0])
            case.check(f"{row}.velocity_uncond_step{step}", pair[1])


def test_the_mel_spectrogram(case, flow):
    for row in rows(case):
        units = case.input(f"{row}.token")
        mel = flow(
            units,
            torch.tensor([units.size(1)]),
            case.input(f"{row}.speaker_embeds"),
            case.input(f"{row}.noise"),
        )
        case.check(f"{row}.mel", mel)


def test_schedules(golden):
    schedules = golden("logic_schedules").info
    grid = schedules["cfm_time_grid"]
    config = FlowConfig(steps=len(grid) - 1)
    with torch.device("meta"):
        times = FlowMatching(config).decoder.times()
    assert times == pytest.approx(grid, abs=schedules["tolerance"]["atol"])

    frames = schedules["mel_frames"]
    counts = torch.arange(1, len(frames) + 1)
    assert FlowConfig().frames(counts).tolist() == frames
    for units, original, _ in schedules["mel_frames_float32_deviations"]:
        assert FlowConfig().frames(torch.tensor(units)).item() == original


def test_names_and_shapes_of_the_released_file(golden_dir):
    path = golden_dir / "voice_generator_keys.json"
    if not path.is_file():
        pytest.skip(f"no {path}")
    released = json.loads(path.read_text(encoding="utf-8"))
    expected = {
        name: (tuple(shape), dtype)
        for name, (shape, dtype) in released.items()
        if name.startswith(PREFIX)
    }
    with torch.device("meta"):
        state = FlowMatching(FlowConfig()).state_dict(prefix=PREFIX)
    assert {
        name: (tuple(value.shape), str(value.dtype)) for name, value in state.items()
    } == expected
