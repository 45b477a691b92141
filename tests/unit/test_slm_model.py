"""The spoken LM as a whole: what is trained, what is read, what is refused."""

import pytest
import torch
from tiny_slm import (
    NUM_CODEBOOKS,
    SOS_ID,
    TASTE_DIM,
    make_batch,
    make_codebooks,
    make_llm,
    make_slm,
)
from torch.utils._python_dispatch import TorchDispatchMode

from espnet_taste.slm.delay import word_outputs
from espnet_taste.slm.heads import LinearCodeHead
from espnet_taste.slm.losses import LossWeights
from espnet_taste.slm.model import SpokenLM
from espnet_taste.types import IGNORE

# Operators that make the host wait for a device.
SYNCING = ("_local_scalar_dense", "nonzero", "masked_select", "equal.", "item")


class RefuseSyncs(TorchDispatchMode):
    """Fail at the first operator that needs a value on the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func).removeprefix("aten.")
        assert not name.startswith(SYNCING), f"{func} waits for the device"
        if name.startswith("index."):
            masks = [i for i in args[1] if i is not None and i.dtype == torch.bool]
            assert not masks, "indexing by a mask waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.fixture
def batch():
    return make_batch([[1, 2, 1], [2], [1, 1, 1, 3]])


@pytest.mark.parametrize("head", ["latent", "linear"])
def test_trained_are_adapters_fusion_head_and_pads(head, batch):
    slm = make_slm(head=head).train()

    slm(batch).loss.backward()

    trained = {n for n, p in slm.named_parameters() if p.requires_grad}
    with_gradient = {n for n, p in slm.named_parameters() if p.grad is not None}
    assert trained == with_gradient
    outside = {n for n in trained if "lora_" not in n}
    head_names = {
        "latent": {
            "head.latent.mu.weight",
            "head.latent.mu.bias",
            "head.latent.logvar",
        },
        "linear": {"head.linear.weight", "head.linear.bias"},
    }
    assert outside == head_names[head] | {
        "pad_text",
        "pad_taste",
        "fusion.weights",
        "taste_projection.weight",
        "taste_projection.bias",
    }


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
def test_an_llm_without_adapters_can_be_trained_itself(family, batch):
    weights = LossWeights(text_kl=0.0)
    llm = make_llm(family)
    slm = make_slm(llm=llm, lora=None, train_llm=True, weights=weights).train()
    kept = {id(slm.output_layer.weight), id(llm.get_input_embeddings().weight)}

    slm(batch).loss.backward()

    for name, parameter in llm.named_parameters():
        is_kept = id(parameter) in kept
        assert parameter.requires_grad != is_kept, name
        assert (parameter.grad is None) == is_kept, name
    assert llm.training and not slm.codebooks.training


@pytest.mark.parametrize("fusion", ["gated", "addition"])
def test_other_fusions_are_trained_too(fusion, batch):
    slm = make_slm(fusion=fusion).train()

    slm(batch).loss.backward()

    for name, parameter in slm.fusion.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_the_llm_may_read_latents_before_the_projection(batch):
    slm = make_slm(taste_input="latent").train()
    embedding = make_slm()

    slm(batch).loss.backward()

    width = slm.codebooks.codebook_dim
    assert slm.pad_taste.shape == (width,) != embedding.pad_taste.shape
    assert slm.taste_projection.weight.grad.any() and slm.pad_taste.grad.any()
    read = slm.lookup_taste(batch)
    is_word = batch.taste_words >= 0
    expected = embedding.lookup_taste(batch)[is_word]
    torch.testing.assert_close(slm.codebooks.project_out(read[is_word]), expected)


@pytest.mark.parametrize("taste_input", ["embedding", "latent"])
@pytest.mark.parametrize(("delay", "level"), [(1, "word"), (2, "word"), (2, "token")])
@torch.no_grad()
def test_the_head_sees_what_is_read_where_it_stands(delay, level, taste_input):
    slm = make_slm(
        head_skip=True, delay=delay, delay_level=level, taste_input=taste_input
    )
    batch = make_batch([[1, 2, 1], [2], [1, 1, 1, 3]], delay=delay, level=level)
    hidden = torch.randn(*batch.label_words.shape, 16)
    words = slm.embed_codes(batch.word_codes)

    found = slm.predict_words(hidden, batch).mu

    outputs = word_outputs(batch.label_words, batch.word_codes.size(1))
    for row, word in (batch.word_codes[..., 0] != IGNORE).nonzero().tolist():
        place = int(outputs[row, word])
        owner = int(batch.taste_words[row, place - 1])
        # Never its own TASTE, which it has to predict, nor that of a word behind it.
        assert owner < word
        read = slm.pad_taste if owner < 0 else words[row, owner]
        seen = hidden[row, place] + slm.head_skip.weight @ read
        torch.testing.assert_close(found[row, word], slm.head(seen).mu)
        assert not torch.allclose(found[row, word], slm.head(hidden[row, place]).mu)


def test_the_sight_of_the_head_starts_at_nothing_and_is_trained(batch):
    codebooks, llm = make_codebooks(), make_llm()
    fresh = SpokenLM(llm, codebooks, TASTE_DIM, head_skip=True).train()
    plain = make_slm()

    fresh(batch).loss.backward()

    assert not fresh.head_skip.weight.any() and fresh.head_skip.weight.grad.any()
    assert plain.head_skip is None
    assert not any("skip" in name for name in plain.state_dict())


def test_an_end_is_predicted_behind_the_last_token_of_every_row(batch):
    slm, plain = make_slm(end_id=3), make_slm()

    hidden = slm.read(slm.embed(batch))
    _, labels = slm.text_positions(hidden, batch)
    _, without = plain.text_positions(hidden, batch)

    for row, count in enumerate([4, 2, 6]):
        assert int(labels[row, count]) == 3
        assert torch.equal(labels[row, :count], without[row, :count])
        assert (labels[row, count + 1 :] == IGNORE).all()
    assert int(slm(batch).num_tokens) == int(plain(batch).num_tokens) + 3


@pytest.mark.parametrize("delay", [1, 2])
def test_the_end_of_a_short_row_is_that_of_the_row_alone(delay):
    slm = make_slm(end_id=3, delay=delay)
    together = slm(make_batch([[2], [1, 1, 3]], delay=delay))
    rows = [slm(make_batch([[2]], delay=delay)), None]
    both = make_batch([[2], [1, 1, 3]], delay=delay)
    rows[1] = slm(type(both)(*(value[1:] for value in vars(both).values())))

    counts = [int(row.num_tokens) for row in rows]
    mean = sum(row.text_loss * n for row, n in zip(rows, counts)) / sum(counts)

    assert counts == [3, 6]
    torch.testing.assert_close(together.text_loss, mean)


def test_the_text_pad_is_trained_by_a_longer_delay():
    slm = make_slm(delay=2).train()

    slm(make_batch([[1, 2], [2]], delay=2)).loss.backward()

    assert slm.pad_text.grad.any() and slm.pad_taste.grad.any()


def test_frozen_parts_stay_in_eval_mode():
    slm = make_slm("gpt2").train()

    assert not slm.codebooks.training
    training = [n for n, m in slm.llm.named_modules() if m.training]
    assert training and all("lora_dropout" in name for name in training)
    assert slm.head.training


def test_codebooks_do_not_move_in_training(batch):
    slm = make_slm().train()
    before = {k: v.clone() for k, v in slm.codebooks.state_dict().items()}

    slm(batch).loss.backward()

    for name, value in slm.codebooks.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
def test_the_step_never_waits_for_the_device(batch, family, training):
    """Reference costs P4 and P6: a look-up on the host for every word of a batch."""
    slm = make_slm(family).train(training)

    with RefuseSyncs():
        loss = slm(batch).loss
        if training:
            loss.backward()


def test_the_head_runs_where_words_end_and_nowhere_else(batch, monkeypatch):
    slm = make_slm()
    shapes = []
    forward = slm.head.forward

    def record(hidden, noise=None):
        shapes.append(tuple(hidden.shape[:-1]))
        return forward(hidden, noise)

    monkeypatch.setattr(slm.head, "forward", record)
    slm(batch)

    assert shapes == [tuple(batch.word_codes.shape[:2])]


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
def test_a_half_precision_base_with_the_rest_in_float32(family, batch):
    slm = make_slm(llm=make_llm(family).bfloat16()).train()

    out = slm(batch)
    out.loss.backward()

    assert slm.embed(batch).dtype == torch.bfloat16
    assert out.loss.dtype == torch.float32
    trained = [p for p in slm.parameters() if p.requires_grad]
    assert {p.grad.dtype for p in trained} == {torch.float32}
    exact = make_slm(family).train()(batch)
    torch.testing.assert_close(out.text_ce, exact.text_ce, atol=0.1, rtol=0.05)


def test_autocast_leaves_fusion_and_head_in_float32(batch):
    slm = make_slm()

    with torch.autocast("cpu", torch.bfloat16):
        inputs = slm.embed(batch)
        prediction = slm.run_head(torch.randn(2, 16))

    assert torch.equal(inputs, slm.embed(batch))
    assert prediction.mu.dtype == torch.float32


def test_without_adapters_the_text_matches_the_plain_llm(batch):
    slm = make_slm(lora=None)
    tokens = batch.tokens[2, :-1].tolist()

    hidden = slm.read_text_only(batch)[2, : len(tokens)]

    start = torch.tensor([[SOS_ID, *tokens]])
    expected = make_llm()(start).logits[0, :-1]
    torch.testing.assert_close(slm.output_layer(hidden), expected)


def test_adapters_off_is_the_base_exactly(batch):
    adapted, plain = make_slm(), make_slm(lora=None)

    assert torch.equal(adapted.read_text_only(batch), plain.read_text_only(batch))
    assert not torch.allclose(
        adapted.read(adapted.embed(batch)), plain.read(plain.embed(batch))
    )


def test_the_losses_are_mixed_as_asked(batch):
    weights = LossWeights(text=0.2, taste=3.0, text_kl=0.25, latent_kl=0.1)
    out = make_slm(weights=weights)(batch)

    text = 0.75 * out.text_ce + 0.25 * out.text_kl
    terms = out.taste_terms
    taste = 0.9 * terms["latent_mse"] + 0.1 * terms["latent_kl"]
    torch.testing.assert_close(out.text_loss, text)
    torch.testing.assert_close(out.taste_loss, taste)
    torch.testing.assert_close(out.loss, 0.2 * text + 3.0 * taste)


def test_no_share_no_reference_pass(batch, monkeypatch):
    slm = make_slm(weights=LossWeights(text_kl=0.0))
    monkeypatch.setattr(slm, "read_text_only", None)

    out = slm(batch)

    assert out.text_kl.item() == 0
    assert torch.equal(out.text_loss, out.text_ce)


def test_counts_and_shapes(batch):
    out = make_slm()(batch)

    assert (int(out.num_tokens), int(out.num_words)) == (4 + 2 + 6, 3 + 1 + 4)
    assert out.codes.shape == batch.word_codes.shape
    assert out.code_accuracy.shape == (NUM_CODEBOOKS,)


def test_accuracies_are_shares(batch):
    slm = make_slm(weights=LossWeights(text_kl=0.0))
    first = slm(batch)
    codes = torch.where(batch.word_codes >= 0, first.codes, batch.word_codes)
    codes[0, :2] = (codes[0, :2] + 1) % 9  # two of eight words are wrong
    truth = type(batch)(batch.tokens, batch.taste_words, batch.label_words, codes)
    with torch.no_grad():
        hidden = slm.read(slm.embed(batch))
    slm.read = lambda inputs: hidden  # the same outputs, other labels

    out = slm(truth)

    assert out.code_accuracy.tolist() == [0.75] * NUM_CODEBOOKS


def test_a_head_of_your_own(batch):
    head = LinearCodeHead(16, NUM_CODEBOOKS, 9)

    assert make_slm(head=head).head is head


def test_adapters_loaded_before_are_kept():
    adapted = make_slm().llm
    slm = SpokenLM(adapted, make_codebooks(), TASTE_DIM)

    assert slm.llm is adapted
    with pytest.raises(ValueError, match="has adapters already"):
        SpokenLM(adapted, make_codebooks(), TASTE_DIM, lora={"r": 2})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delay": 0}, "delay must be at least 1, got 0"),
        ({"delay_level": "phrase"}, "'word' or 'token', got 'phrase'"),
        ({"head": "softmax"}, "'both'\\) or a module, got 'softmax'"),
        ({"fusion": "sum"}, "'gated' or 'addition', got 'sum'"),
        ({"train_llm": True}, "train_llm trains the LLM itself; set lora: null"),
        ({"train_llm": True, "lora": None}, "set weights: {text_kl: 0}"),
        ({"eval_latent": "mode"}, "'mu_sigma' or 'mu', got 'mode'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_slm(**options)


def test_an_llm_without_start_symbol_needs_one():
    llm = make_llm()
    llm.config.bos_token_id = None

    with pytest.raises(ValueError, match="has no start symbol; pass sos_id"):
        make_slm(llm=llm)
    assert make_slm(llm=llm, sos_id=4).sos_id == 4


def test_an_llm_that_scales_its_logits_is_refused():
    llm = make_llm()
    llm.config.logits_scaling = 8.0

    with pytest.raises(ValueError, match="changes its logits by 'logits_scaling'"):
        make_slm(llm=llm)
