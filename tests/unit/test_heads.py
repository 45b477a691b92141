"""The code heads keep one contract."""

import pytest
import torch
from tiny_slm import CODEBOOK_SIZE, NUM_CODEBOOKS, WIDTH, make_codebooks

from espnet_taste.layers.latent_head import Latent
from espnet_taste.sampling import Sampler
from espnet_taste.slm.heads import LatentCodeHead, LinearCodeHead, build_head
from espnet_taste.types import IGNORE


@pytest.fixture(scope="module")
def codebooks():
    return make_codebooks()


@pytest.fixture
def codes():
    codes = torch.randint(0, CODEBOOK_SIZE, (2, 4, NUM_CODEBOOKS))
    codes[1, 2:] = IGNORE
    return codes


def make_head(name, codebooks):
    return build_head(name, WIDTH, codebooks, "mu_sigma", 0.5).eval()


@pytest.mark.parametrize("name", ["latent", "linear", "both"])
def test_padding_is_left_out_of_the_loss(name, codebooks, codes):
    head = make_head(name, codebooks)
    hidden = torch.randn(2, 4, WIDTH)
    changed = hidden.clone()
    changed[1, 2:] = 50.0

    loss = head.losses(head(hidden), codes, codebooks).loss
    other = head.losses(head(changed), codes, codebooks).loss

    assert torch.equal(loss, other) and float(loss) > 0


@pytest.mark.parametrize("name", ["latent", "linear", "both"])
def test_a_batch_without_words_has_loss_zero(name, codebooks, codes):
    head = make_head(name, codebooks)

    none = torch.full_like(codes, IGNORE)

    assert float(head.losses(head(torch.randn(2, 4, WIDTH)), none, codebooks).loss) == 0


@pytest.mark.parametrize("name", ["latent", "linear", "both"])
def test_chosen_codes_are_codes(name, codebooks):
    head = make_head(name, codebooks)

    chosen = head.choose(head(torch.randn(2, 4, WIDTH)), codebooks)

    assert chosen.shape == (2, 4, NUM_CODEBOOKS) and chosen.dtype == torch.int64
    assert 0 <= int(chosen.min()) and int(chosen.max()) < CODEBOOK_SIZE


def test_a_perfect_latent_has_squared_error_zero(codebooks, codes):
    head = make_head("latent", codebooks)
    target = codebooks.sum_codes(codes)
    latent = Latent(target, torch.zeros(target.size(-1)), target)

    result = head.losses(latent, codes, codebooks)

    assert float(result.loss) == 0
    assert result.terms.keys() == {"latent_mse", "latent_kl", "latent_error"}
    assert float(result.terms["latent_error"].abs().max()) == 0


def test_the_error_of_a_latent_is_that_of_its_mean_not_of_its_value(codebooks, codes):
    head = make_head("latent", codebooks)
    target = codebooks.sum_codes(codes)
    latent = Latent(target + 2, torch.zeros(target.size(-1)), target + 3)

    terms = head.losses(latent, codes, codebooks).terms

    assert terms["latent_error"].unique().tolist() == pytest.approx([4.0])
    assert terms["latent_mse"].unique().tolist() == pytest.approx([9.0])


def test_a_latent_is_quantized_where_it_is(codebooks):
    head = make_head("latent", codebooks)
    value = codebooks.sum_codes(torch.tensor([[3, 1, 0]]))

    chosen = head.choose(Latent(value * 0, value[0], value), codebooks)

    assert torch.equal(chosen, codebooks.quantize_latent(value))


def test_linear_logits_are_ordered_by_codebook(codebooks):
    head = make_head("linear", codebooks)
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.zero_()
        head.linear.bias[1 * CODEBOOK_SIZE + 4] = 9.0  # codebook 1, entry 4

    chosen = head.choose(head(torch.randn(1, WIDTH)), codebooks)

    assert chosen.tolist() == [[0, 4, 0]]


def test_linear_codes_can_be_drawn(codebooks):
    head = make_head("linear", codebooks)
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.zero_()
    logits = head(torch.randn(50, WIDTH))

    def choose():
        generator = torch.Generator().manual_seed(0)
        return head.choose(logits, codebooks, sampler=Sampler(), source=generator)

    assert torch.equal(choose(), choose())
    assert choose().shape == (50, NUM_CODEBOOKS)
    assert len(choose().unique()) == CODEBOOK_SIZE


def test_the_loss_of_uniform_logits_is_the_logarithm_of_the_size(codebooks, codes):
    head = make_head("linear", codebooks)
    logits = torch.zeros(2, 4, NUM_CODEBOOKS, CODEBOOK_SIZE)

    result = head.losses(logits, codes, codebooks)

    expected = torch.tensor(float(CODEBOOK_SIZE)).log()
    torch.testing.assert_close(result.loss, expected)
    assert result.terms["code_ce"].shape == codes.shape


def test_logits_on_the_right_codes_have_loss_zero(codebooks, codes):
    head = make_head("linear", codebooks)
    right = torch.nn.functional.one_hot(codes.clamp(min=0), CODEBOOK_SIZE)

    result = head.losses(50.0 * right, codes, codebooks)

    torch.testing.assert_close(result.loss, torch.tensor(0.0))


def test_the_joint_head_learns_both_and_chooses_by_its_logits(codebooks, codes):
    head = make_head("both", codebooks)
    prediction = head(torch.randn(2, 4, WIDTH))
    latent, logits = prediction

    joint = head.losses(prediction, codes, codebooks)
    one = head.latent.losses(latent, codes, codebooks)
    two = head.linear.losses(logits, codes, codebooks)

    torch.testing.assert_close(joint.loss, (one.loss + two.loss) / 2)
    assert set(joint.terms) == {"latent_mse", "latent_kl", "latent_error", "code_ce"}
    assert torch.equal(head.choose(prediction, codebooks), logits.argmax(-1))
    assert torch.equal(
        head.log_likelihoods(prediction, codes, codebooks),
        head.linear.log_likelihoods(logits, codes, codebooks),
    )


def test_heads_have_names_and_one_of_your_own_is_taken(codebooks):
    own = LinearCodeHead(WIDTH, NUM_CODEBOOKS, CODEBOOK_SIZE)

    assert build_head(own, WIDTH, codebooks, "mu", 0.5) is own
    assert isinstance(make_head("latent", codebooks), LatentCodeHead)
    with pytest.raises(ValueError, match="a module, got 'gaussian'"):
        build_head("gaussian", WIDTH, codebooks, "mu", 0.5)
