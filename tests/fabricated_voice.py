"""Flow and HiFT of a fabricated pack; see ``fabricated_pack``."""

import math
from pathlib import Path

import torch
from fabricated_pack import Writer
from torch import nn

from espnet_taste.decoder.flow import FlowConfig, FlowMatching, stack_conditions
from espnet_taste.decoder.flow_estimator import NORM_GROUPS, TIME_SCALE
from espnet_taste.decoder.hift import HiftConfig, HiftGenerator

FLOW = {
    "vocab_size": 17,
    "input_size": 10,
    "mel_bins": 5,
    "spk_embed_dim": 7,
    "encoder": {
        "attention_heads": 3,
        "linear_units": 9,
        "num_blocks": 1,
        "output_size": 12,
    },
    "length_regulator": {"blocks": 2},
    "estimator": {
        "channels": [16, 16],
        "attention_head_dim": 3,
        "n_blocks": 1,
        "num_mid_blocks": 1,
        "num_heads": 2,
        "groupnorm_groups": NORM_GROUPS,
        "time_scale": TIME_SCALE,
        "act_fn": "gelu",
    },
    "cfm": {"steps": 4, "schedule": "cosine", "cfg_rate": 0.4},
}
HIFT = {
    "in_channels": 5,
    "base_channels": 8,
    "f0_predictor_channels": 6,
    "nb_harmonics": 3,
    "sampling_rate": 16000,
    "nsf_alpha": 0.2,
    "nsf_sigma": 0.01,
    "nsf_voiced_threshold": 5,
    "upsample_rates": [4, 2],
    "upsample_kernel_sizes": [8, 4],
    "istft": {"n_fft": 8, "hop": 2},
    "resblock_kernel_sizes": [3, 5],
    "resblock_dilations": [1, 2],
    "source_resblock_kernel_sizes": [3, 5],
    "source_resblock_dilations": [1, 2],
    "lrelu_slope": 0.2,
    "last_lrelu_slope": 0.03,
    "audio_limit": 0.9,
    "magnitude_clip": 50.0,
}


def fill(module: nn.Module, case: Writer) -> None:
    """Draw all weights; what is a gain stays near 1."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            is_gain = "alpha" in name or name.endswith("weight_g")
            is_gain |= "norm" in name and name.endswith("weight")
            parameter.copy_(0.3 * case.randn(*parameter.shape) + is_gain)


def write_flow(folder: Path, seed: int) -> None:
    """Units to mel frames, three utterances."""
    case = Writer("flow", FLOW, seed)
    encoder, estimator = FLOW["encoder"], FLOW["estimator"]
    config = FlowConfig(
        num_units=FLOW["vocab_size"],
        speaker_dim=FLOW["spk_embed_dim"],
        input_dim=FLOW["input_size"],
        width=encoder["output_size"],
        heads=encoder["attention_heads"],
        feedforward=encoder["linear_units"],
        layers=encoder["num_blocks"],
        num_mels=FLOW["mel_bins"],
        regulator_convs=FLOW["length_regulator"]["blocks"],
        channels=tuple(estimator["channels"]),
        mid_blocks=estimator["num_mid_blocks"],
        transformers=estimator["n_blocks"],
        estimator_heads=estimator["num_heads"],
        head_dim=estimator["attention_head_dim"],
        steps=FLOW["cfm"]["steps"],
        guidance=FLOW["cfm"]["cfg_rate"],
    )
    flow = FlowMatching(config)
    fill(flow, case)
    case.weights("flow.", flow.state_dict())
    counts = [8, 3, 11]
    frames = config.frames(torch.tensor(counts)).tolist()
    case.info |= {"token_counts": counts, "mel_frames": frames}
    for row, sizes in enumerate(zip(counts, frames)):
        write_utterance(case, flow, str(row), *sizes)
    case.save(folder)


@torch.no_grad()
def write_utterance(case, flow, row, count, frames):
    """Note the stations of one utterance."""
    mels = flow.config.num_mels
    units = case.input(f"{row}.token", case.randint(0, flow.config.num_units, 1, count))
    speaker = case.input(f"{row}.speaker_embeds", case.randn(1, FLOW["spk_embed_dim"]))
    noise = case.input(f"{row}.noise", case.randn(1, mels, frames))
    lengths = torch.tensor([count])
    encoded = flow.encode(units, lengths)
    projected = flow.encoder_proj(encoded)
    mean = flow.length_regulator(projected, lengths, torch.tensor([frames]), None)
    case.output(f"{row}.encoder_out", encoded)
    case.output(f"{row}.encoder_proj", projected)
    case.output(f"{row}.mu", mean)
    speaker_proj = flow.project_speaker(speaker)
    case.output(f"{row}.speaker_proj", speaker_proj)
    states = list(flow.decoder.trajectory(noise, mean, speaker_proj, None))
    times, conditions = flow.decoder.times(), stack_conditions(mean, speaker_proj)
    case.output(f"{row}.states", torch.cat(states), 1e-4)
    case.output(f"{row}.times", torch.tensor(times[:-1]))
    for step in (0, len(times) - 2):
        pair = flow.decoder.velocities(states[step], conditions, times[step], None)
        for kind, value in zip(("cond", "uncond"), pair):
            case.output(f"{row}.velocity_{kind}_step{step}", value, 1e-4)
    mel = flow(units, lengths, speaker, noise)
    case.output(f"{row}.mel", mel, 1e-4)
    x, mu, cond = (
        case.input(f"{row}.estimator.{name}", case.randn(1, mels, frames))
        for name in ("x", "mu", "cond")
    )
    t = case.input(f"{row}.estimator.t", torch.tensor([0.3]))
    speaker = case.input(f"{row}.estimator.spks", case.randn(1, mels))
    inputs = torch.cat([x, mu, speaker[..., None].expand_as(x), cond], dim=1)
    estimator = flow.decoder.estimator
    case.output(f"{row}.estimator.out", estimator(inputs, t), 1e-4)
    case.output(f"{row}.estimator.time_embedding", estimator.time_mlp(t))


def write_hift(folder: Path, seed: int) -> None:
    """Mel frames to a waveform, two utterances."""
    case = Writer("hift", HIFT, seed)
    hift = HiftGenerator(
        HiftConfig(
            num_mels=HIFT["in_channels"],
            channels=HIFT["base_channels"],
            f0_channels=HIFT["f0_predictor_channels"],
            sample_rate_hz=HIFT["sampling_rate"],
            harmonics=HIFT["nb_harmonics"],
            sine_amplitude=HIFT["nsf_alpha"],
            sine_noise=HIFT["nsf_sigma"],
            voiced_above_hz=HIFT["nsf_voiced_threshold"],
            upsample_rates=tuple(HIFT["upsample_rates"]),
            upsample_kernel_sizes=tuple(HIFT["upsample_kernel_sizes"]),
            fft_size=HIFT["istft"]["n_fft"],
            fft_hop=HIFT["istft"]["hop"],
            resblock_kernel_sizes=tuple(HIFT["resblock_kernel_sizes"]),
            resblock_dilations=tuple(HIFT["resblock_dilations"]),
            source_kernel_sizes=tuple(HIFT["source_resblock_kernel_sizes"]),
            source_dilations=tuple(HIFT["source_resblock_dilations"]),
            slope=HIFT["lrelu_slope"],
            last_slope=HIFT["last_lrelu_slope"],
            audio_limit=HIFT["audio_limit"],
            magnitude_limit=HIFT["magnitude_clip"],
        )
    )
    fill(hift, case)
    with torch.no_grad():  # or no frame would be voiced
        hift.f0_predictor.classifier.weight.mul_(30.0)
    case.weights("hift.", hift.state_dict())
    case.info["mel_frames"] = [4, 9]
    for row, frames in enumerate(case.info["mel_frames"]):
        write_waveform(case, hift, str(row), frames)
    case.save(folder)


@torch.no_grad()
def write_waveform(case, hift, row, frames):
    """Note the stations of one utterance."""
    sines, samples = hift.m_source.num_sines, frames * hift.config.hop_size
    lengths = torch.tensor([frames])
    mel = case.input(f"{row}.mel", case.randn(1, hift.config.num_mels, frames))
    uniform = torch.rand(1, sines, generator=case.random)
    phase = case.input(f"{row}.phase", (2 * uniform - 1) * math.pi)
    noise = case.input(f"{row}.sine_noise", case.randn(1, sines, samples))
    f0 = hift.predict_f0(mel, lengths)
    case.output(f"{row}.f0", f0)
    per_sample = f0.repeat_interleave(hift.config.hop_size, dim=1)
    case.output(f"{row}.uv", hift.m_source.voiced(per_sample))
    waves = hift.m_source.sines(per_sample, phase, noise)
    case.output(f"{row}.sine_waves", waves[..., :21])
    source = hift.m_source(per_sample, phase, noise)
    case.output(f"{row}.source", source[:, None])
    case.output(f"{row}.source_stft", hift.source_spectrum(source, lengths))
    case.output(f"{row}.waveform", hift(mel, lengths, phase, noise), 1e-4)
    given = case.input(f"{row}.given_source", case.randn(1, 1, samples).tanh())[:, 0]
    spectrum = hift.source_spectrum(given, lengths)
    predicted = hift.predict_spectrum(mel, lengths, spectrum)
    case.output(f"{row}.decoded_conv_post", predicted, 1e-4)
    case.output(f"{row}.decoded", hift.decode(mel, lengths, given), 1e-4)
