"""The joint tokenizer model: losses, gradients, reliance, small batches of truth."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from espnet_taste.decoder.layout import Row, pack_rows
from espnet_taste.decoder.unit_lm import UnitLM
from espnet_taste.tasks.checkpointing import load_weights
from espnet_taste.tasks.tokenizer_model import (
    TasteTokenizerModel,
    TokenBatch,
    unit_hits,
    unit_statistics,
)
from espnet_taste.tokenizer.contracts import AbsAggregator, AbsEncoder
from espnet_taste.tokenizer.quantizer import NoQuantizer, RvqQuantizer
from espnet_taste.tokenizer.states import EncoderStates
from espnet_taste.types import IGNORE

WIDTH, NUM_UNITS = 12, 7


class CountingEncoder(AbsEncoder):
    calls = 0

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def output_size(self):
        return WIDTH

    def forward(self, speech, speech_lengths):
        self.calls += 1
        states = speech[..., None].expand(-1, -1, WIDTH) * self.scale
        return EncoderStates(states, states, speech_lengths)


class MeanAggregator(AbsAggregator):
    """Every token gets a projection of the mean state."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def output_size(self):
        return WIDTH

    def forward(self, tokens, token_lengths, words, states):
        mask = states.mask[..., None]
        mean = (states.values * mask).sum(1) / mask.sum(1)
        return self.linear(mean)[:, None].expand(-1, tokens.size(1), -1)

    def attention_maps(self, tokens, token_lengths, words, states):
        return torch.ones(*tokens.shape, states.keys.size(1))[:, None]


def build(kind="taste", **options):
    torch.manual_seed(0)
    decoder = UnitLM(
        NUM_UNITS,
        20,
        WIDTH,
        speaker_dim=4,
        text_dim=8,
        taste_input_dim=8,
        width=16,
        heads=2,
        feedforward=16,
        text_layers=1,
        taste_layers=1,
        lm_layers=1,
        dropout=0.0,
    )
    if kind == "text":
        return TasteTokenizerModel(None, None, None, decoder, **options)
    quantizer = NoQuantizer()
    if kind == "rvq":
        quantizer = RvqQuantizer(WIDTH, 4, 4, 2, quantizer_dropout=False)
        generator = torch.Generator().manual_seed(0)
        quantizer.initialise(torch.randn(50, WIDTH), generator=generator)
    return TasteTokenizerModel(
        CountingEncoder(), MeanAggregator(), quantizer, decoder, **options
    )


def batch(pad=IGNORE):
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    tokens = torch.tensor([[3, 4, 5], [6, pad, pad]])
    units = torch.tensor([[1, 2, 3, 4, 5, 6], [0, 1, 2, pad, pad, pad]])
    return {
        "asr_tokens": tokens,
        "asr_tokens_lengths": torch.tensor([3, 1]),
        "asr_words": torch.tensor([[0, 0, 1], [0, pad, pad]]),
        "units": units,
        "units_lengths": torch.tensor([6, 3]),
        "spembs": draw(2, 4),
        "speech": draw(2, 9),
        "speech_lengths": torch.tensor([9, 5]),
        "utt_id": ["a", "b"],
    }


@pytest.mark.parametrize("kind", ["text", "taste", "rvq"])
def test_a_step_trains_all_that_is_trained(kind):
    model = build(kind).train()

    loss, stats, weight = model(**batch())
    loss.backward()

    assert weight == 6 + 1 + 3 + 1  # units and ends
    assert stats["loss"] == loss
    silent = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]
    if kind == "text":  # the TASTE side of the decoder waits for its stage
        assert all("taste" in n or "mask" in n or "fusion" in n for n in silent)
    else:
        assert silent == []


class TaughtAggregator(MeanAggregator):
    """Says when it is taught, and what that costs."""

    def forward(self, tokens, token_lengths, words, states, guide=None):
        return super().forward(tokens, token_lengths, words, states)

    def guide(self, token_times, states):
        return SimpleNamespace(loss=lambda: self.linear.weight.square().mean())


def taught(**options):
    model = build(listening_weight=0.5, **options)
    model.aggregator = TaughtAggregator()
    return model.train()


def guided_steps(model, count):
    data = batch() | {"token_times": torch.ones(2, 3, 2)}
    return [int("loss_listening" in model(**data)[1]) for _ in range(count)]


def test_listening_is_taught_at_first_and_then_now_and_again():
    every, first = {"listening_every": 4}, {"listening_first": 3}

    assert guided_steps(taught(), 3) == [1, 1, 1]
    assert guided_steps(taught(**every), 9) == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert guided_steps(taught(**every, **first), 9) == [1, 1, 1, 0, 1, 0, 0, 0, 1]
    assert guided_steps(taught(**every).eval(), 2) == [0, 0]
    with pytest.raises(ValueError, match="every 0 steps"):
        taught(listening_every=0)


def test_a_resumed_training_is_taught_at_the_steps_of_an_unbroken_one():
    options = {"listening_every": 3, "listening_first": 2}
    unbroken, broken, resumed = (taught(**options) for _ in range(3))

    expected = guided_steps(unbroken, 8)
    found = guided_steps(broken, 4)
    resumed.load_state_dict(broken.state_dict())
    found += guided_steps(resumed, 4)

    assert found == expected


def test_a_step_that_is_not_taught_has_the_loss_of_reconstruction_alone():
    data = batch() | {"token_times": torch.ones(2, 3, 2)}
    model = taught(listening_every=2)

    (first, stats, _), (second, _, _) = model(**data), model(**data)

    weighted = 0.5 * model.aggregator.linear.weight.square().mean()
    torch.testing.assert_close(stats["loss_listening"][0] * 0.5, weighted.detach())
    torch.testing.assert_close(first - weighted, second)


def test_the_encoder_is_frozen_and_not_saved():
    model = build().train()
    loss, _, _ = model(**batch())
    loss.backward()

    assert model.encoder.scale.grad is None
    assert not any(name.startswith("encoder.") for name in model.state_dict())


def test_cached_states_spare_the_encoder_and_change_nothing():
    model = build().eval()
    data = batch()
    loss, _, _ = model(**data)
    states = model.encoder(data.pop("speech"), data.pop("speech_lengths"))
    calls = model.encoder.calls

    cached, _, _ = model(
        **data, encoder_states=states.pack(), encoder_states_lengths=states.lengths
    )

    assert model.encoder.calls == calls
    torch.testing.assert_close(loss, cached)


@pytest.mark.parametrize("pad", [IGNORE, 0, 5])
def test_padding_never_matters(pad):
    model = build("rvq").eval()

    torch.testing.assert_close(model(**batch(pad))[0], model(**batch())[0])


def test_the_commitment_weight_grows_from_zero():
    model = build("rvq", commitment_weight=2.0, commitment_warmup_steps=4).train()

    for expected in (0.0, 0.5, 1.0, 1.5, 2.0, 2.0):
        loss, stats, _ = model(**batch())
        gap = loss - stats["loss_units"]
        torch.testing.assert_close(gap, expected * stats["loss_commitment"])


def test_validation_is_no_step():
    model = build("rvq").eval()

    model(**batch())
    assert int(model.num_steps) == 0
    model.train()(**batch())
    assert int(model.num_steps) == 1


def test_a_sub_stage_goes_on_with_the_whole_decoder(tmp_path):
    """Reference defect C21: its list of what to load lacks embeddings and fusion."""
    source, target = build("text"), build("rvq")
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.normal_()
    torch.save(source.state_dict(), tmp_path / "text_only.pth")

    load_weights(
        target, tmp_path / "text_only.pth", allow_new=("aggregator", "quantizer")
    )

    carried = target.decoder.state_dict()
    assert {"text_embedding.weight", "unit_embedding.weight"} <= carried.keys()
    assert {"speaker_projection.weight", "fusion.weights"} <= carried.keys()
    for name, value in source.decoder.state_dict().items():
        assert torch.equal(carried[name], value), name


def test_training_reports_the_share_of_padding():
    """Of 3 special positions, 3 or 1 tokens and 6 or 3 units a row, in rows of 12."""
    _, stats, _ = build().train()(**batch())

    torch.testing.assert_close(stats["padding_share"], torch.tensor([5 / 24]))
    _, stats, _ = build().eval()(**batch())
    assert "padding_share" not in stats


def test_padding_of_packed_rows_is_that_of_their_blocks():
    units = np.array([1, 2, 3, 4, 5, 6])
    packed = pack_rows(
        [Row(0, 0, 3, units, ends=True), Row(1, 0, 1, units[:3], ends=True)],
        num_tokens=3,
        num_units=NUM_UNITS,
        max_positions=64,
    )

    _, stats, _ = build().train()(**batch(), layout=packed)

    expected = torch.tensor([1 - (12 + 7) / packed.lm_rows.numel()])
    torch.testing.assert_close(stats["padding_share"], expected)


def test_validation_reports_how_much_the_condition_matters():
    """By how much the loss rises with the text, or the codes, of the other one."""
    model, data = build().eval(), batch()
    _, stats, _ = model(**data)

    def loss(**changes):
        return model(**data | changes)[1]["loss_units"]

    # The first has three tokens in two words, the second one token.
    other_text = torch.tensor([[6, 6, 6], [3, IGNORE, IGNORE]])
    with pytest.MonkeyPatch.context() as patch:
        taste = model.tokenize(
            TokenBatch.from_padded(data),
            speech=data["speech"],
            speech_lengths=data["speech_lengths"],
        )
        patch.setattr(model, "_listen", lambda *_, **__: (taste, None))
        with_text = loss(asr_tokens=other_text)
        swapped = taste.quantized[[1, 0], 0][:, None].expand(-1, 3, -1)
        other = replace(taste, quantized=swapped)
        patch.setattr(model, "_listen", lambda *_, **__: (other, None))
        with_codes = loss()
    rises = {"reliance_text": with_text, "reliance_codes": with_codes}
    for name, found in rises.items():
        rise = found - stats["loss_units"]
        torch.testing.assert_close(stats[name], rise, atol=1e-6, rtol=1e-4)
        assert rise.abs() > 1e-4
    _, stats, _ = build("text").eval()(**data)
    assert "reliance_codes" not in stats


def test_a_lone_utterance_has_no_other_to_tell_by():
    data = {name: value[:1] for name, value in batch().items()}
    _, stats, _ = build().eval()(**data)
    assert torch.isnan(stats["reliance_text"]) and torch.isnan(stats["reliance_codes"])


def test_the_decoder_is_taught_which_word_it_speaks():
    units, words = np.array([1, 2, 3, 4, 5, 6]), np.array([0, 0, 0, 1, 1, 1])
    of_first = {"token_words": np.array([0, 0, 1]), "unit_words": words}
    of_second = {"token_words": words[:1], "unit_words": words[:3]}
    layout = pack_rows(
        [
            Row(0, 0, 3, units, ends=True, **of_first),
            Row(1, 0, 1, units[:3], ends=True, **of_second),
        ],
        num_tokens=3,
        num_units=NUM_UNITS,
        max_positions=64,
    )
    model = build(alignment_weight=0.5).train()

    loss, stats, _ = model(**batch(), layout=layout)

    taught = 0.5 * stats["loss_alignment"]
    assert taught > 0
    torch.testing.assert_close(loss.detach(), stats["loss_units"] + taught)
    _, stats, _ = model.eval()(**batch(), layout=layout)
    assert "loss_alignment" not in stats
    with pytest.raises(ValueError, match="alignment_weight: Linear cannot be guided"):
        TasteTokenizerModel(None, None, None, nn.Linear(1, 1), alignment_weight=0.5)


def test_autocast_runs_on_the_cpu_and_stays_close(with_bfloat16):
    full, _, _ = build().eval()(**batch())
    half, _, _ = build(amp_dtype="bfloat16").eval()(**batch())

    assert full.dtype == half.dtype == torch.float32
    assert 0 < abs(full - half) < 0.05


def test_a_batch_without_speech_is_named():
    data = batch()
    del data["speech"]

    with pytest.raises(ValueError, match="neither 'encoder_states' nor 'speech'"):
        build()(**data)


def test_speaker_embeddings_of_another_encoder_are_named():
    """It was an error of a matrix product, after all features had been made."""
    data = batch()
    data["spembs"] = torch.zeros(len(data["spembs"]), 6)
    with pytest.raises(
        ValueError, match="decoder_conf: .* is 4, .* are 6 wide; set sp"
    ):
        build("text")(**data)


def test_an_aggregator_without_quantizer_is_refused():
    decoder = build("text").decoder
    with pytest.raises(ValueError, match="use quantizer: no_quantizer"):
        TasteTokenizerModel(CountingEncoder(), MeanAggregator(), None, decoder)


def test_sums_and_means_agree():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 8), torch.randint(0, 8, (2, 5))
    labels[1, 3:] = IGNORE

    sums = {name: value.sum() for name, value in unit_hits(logits, labels).items()}
    means = unit_statistics(logits, labels)

    assert sums["count"] == 8
    torch.testing.assert_close(
        (sums["loss_sum"] / 8).float(), means["loss_units"], rtol=1e-5, atol=1e-6
    )
    assert sums["top1"] / 8 == means["acc"] and sums["top5"] / 8 == means["acc_top5"]
