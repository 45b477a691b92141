"""Edits by the codebooks: between deliveries, slower and faster."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_taste import CODEBOOK_SIZE, WIDTH, letters, no_quantizer, tiny_tokenizer

from espnet_taste.pipeline.delivery import interpolate, learn_pace, retime, vectors_of
from espnet_taste.pipeline.tokens import TasteTokens
from espnet_taste.words import encode_words


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def unquantized():
    return tiny_tokenizer(quantizer=no_quantizer())


def make(tokenizer, text="one two three four", seed=0, **changes):
    """Return tokens with codes drawn at random, or embeddings without a quantizer."""
    draw = np.random.default_rng(seed)
    words = text.split()
    encoded = encode_words(words, letters)
    has_codes = tokenizer.model.quantizer.num_codebooks > 0
    codes = draw.integers(0, CODEBOOK_SIZE, (len(words), 2)) if has_codes else None
    embeds = draw.normal(size=(len(words), WIDTH)).astype(np.float32)
    parts = dict(
        words=tuple(words),
        speaker=np.ones(4, np.float32) / 2,
        asr_tokens=np.asarray(encoded.tokens, dtype=np.int64),
        asr_words=np.asarray(encoded.words, dtype=np.int64),
        codes=codes,
        embeds=tokenizer.embed(codes) if has_codes else embeds,
        models=tokenizer.models,
    )
    return TasteTokens(**parts | changes)


def timed(tokenizer, seed, noise=0.0):
    """Return 40 words whose log durations follow one direction of their vectors."""
    tokens = make(tokenizer, " ".join(["word"] * 40), seed)
    vectors = vectors_of(tokens, tokenizer)
    direction = np.eye(vectors.shape[1])[0]
    draw = np.random.default_rng(seed)
    seconds = 0.3 * np.exp(0.5 * vectors @ direction + noise * draw.normal(size=40))
    ends = np.cumsum(seconds)
    times = np.stack([ends - seconds, ends], axis=1).astype(np.float32)
    return replace(tokens, times=times, span_s=(0.0, float(ends[-1])))


@pytest.mark.parametrize("kind", ["tokenizer", "unquantized"])
@pytest.mark.parametrize("share", [0, 1])
def test_the_ends_are_the_deliveries_themselves(kind, share, request):
    """Although coding the sum of entries again gives other codes for some words."""
    tokenizer = request.getfixturevalue(kind)
    pair = [make(tokenizer, " ".join(["w"] * 30), seed) for seed in (1, 2)]

    edit = interpolate(*pair, share, tokenizer)

    assert edit.tokens == replace(pair[share], times=None)
    assert "takes codes as they are" in edit.caveats[0]
    if kind == "tokenizer":
        codes = np.concatenate([tokens.codes for tokens in pair])
        latent = tokenizer.model.quantizer.sum_codes(torch_of(codes))
        again = tokenizer.model.quantizer.quantize_latent(latent).numpy()
        assert not np.array_equal(again, codes)


def torch_of(codes):
    import torch

    return torch.from_numpy(codes)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_between_lie_valid_codes_of_the_chosen_words_only(tokenizer, share):
    first, second = make(tokenizer, seed=1), make(tokenizer, seed=2)
    second.codes[2] = first.codes[2]

    edit = interpolate(first, second, share, tokenizer, words=[1, 2])

    tokens = edit.tokens
    assert set(edit.changed) <= {1}
    assert np.array_equal(tokens.codes[[0, 2, 3]], first.codes[[0, 2, 3]])
    mixed = (1 - share) * vectors_of(first, tokenizer)
    mixed += share * vectors_of(second, tokenizer)
    latent = torch_of(mixed[1:2]).float()
    wanted = tokenizer.model.quantizer.quantize_latent(latent).numpy()
    assert np.array_equal(tokens.codes[1:2], wanted)
    np.testing.assert_allclose(tokens.embeds, tokenizer.embed(tokens.codes), atol=1e-6)
    assert any("miss the mixed vectors by" in line for line in edit.caveats)
    assert len(tokenizer.decode(tokens).audio)


def test_without_quantizer_embeddings_are_mixed(unquantized):
    first, second = make(unquantized, seed=1), make(unquantized, seed=2)

    edit = interpolate(first, second, 0.25, unquantized)

    wanted = 0.75 * first.embeds + 0.25 * second.embeds
    np.testing.assert_allclose(edit.tokens.embeds, wanted, atol=1e-6)
    assert edit.changed == (0, 1, 2, 3) and edit.tokens.codes is None


def test_bad_interpolations_are_refused(tokenizer):
    tokens = make(tokenizer)
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="share must be in 0..1"):
            interpolate(tokens, tokens, share, tokenizer)
    with pytest.raises(ValueError, match="from word 0 on: 'one' and 'won'"):
        interpolate(tokens, make(tokenizer, "won two"), 0.5, tokenizer)
    foreign = replace(tokens, models={"tokenizer": "you"})
    with pytest.raises(ValueError, match="codes are of tokenizer you"):
        interpolate(foreign, foreign, 0.5, tokenizer)
    big = replace(tokens, codes=tokens.codes + CODEBOOK_SIZE)
    with pytest.raises(ValueError, match="expected 0..7"):
        interpolate(big, tokens, 0.5, tokenizer)


@pytest.mark.parametrize("kind", ["tokenizer", "unquantized"])
def test_the_direction_of_durations_is_found(kind, request):
    tokenizer = request.getfixturevalue(kind)
    tokens = timed(tokenizer, 3, noise=0.01)

    pace = learn_pace([tokens], tokenizer)

    place = pace.place(vectors_of(tokens, tokenizer))
    lengths = np.log(tokens.times[:, 1] - tokens.times[:, 0])
    assert pace.agreement > 0.5 and pace.slope > 0 and pace.num_words == 40
    assert np.corrcoef(place, lengths)[0, 1] > 0.7


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_retimed_words_move_the_wanted_way_and_others_not_at_all(tokenizer, factor):
    examples = [timed(tokenizer, seed) for seed in (3, 4)]
    tokens = make(tokenizer, " ".join(["word"] * 12), 9)

    edit = retime(tokens, (2, 10), factor, tokenizer, iter(examples))

    pace = learn_pace(examples, tokenizer)
    step = pace.place(vectors_of(edit.tokens, tokenizer))
    step -= pace.place(vectors_of(tokens, tokenizer))
    assert edit.changed and set(edit.changed) <= set(range(2, 10))
    still = [word for word in range(12) if word not in edit.changed]
    assert np.array_equal(edit.tokens.codes[still], tokens.codes[still])
    assert (step[list(edit.changed)] * np.log(factor) > 0).all()
    text = " ".join(edit.caveats)
    assert "TASTE holds no durations" in text and f"A factor of {factor:g}" in text


def test_without_quantizer_a_small_factor_is_told_exactly(unquantized):
    tokens = timed(unquantized, 3)

    edit = retime(tokens, (0, 40), 1.0001, unquantized)

    pace = learn_pace([tokens], unquantized)
    step = pace.place(edit.tokens.embeds.astype(float))
    step -= pace.place(tokens.embeds.astype(float))
    np.testing.assert_allclose(np.median(step) * pace.slope, 1e-4, rtol=0.01)


def test_codes_that_tell_nothing_of_durations_are_refused(tokenizer):
    tokens = timed(tokenizer, 3)
    same = np.stack([np.arange(40), np.arange(40) + 0.5], axis=1).astype(np.float32)

    with pytest.raises(ValueError, match="do not tell how long the words are"):
        retime(replace(tokens, times=same), (0, 2), 1.5, tokenizer)


@pytest.mark.parametrize("factor", [0.0, -1.0, 1.0, float("nan"), float("inf")])
def test_factors_that_mean_nothing_are_refused(tokenizer, factor):
    with pytest.raises(ValueError, match="factor must be above 0 and not 1"):
        retime(make(tokenizer), (0, 1), factor, tokenizer)


def test_examples_need_times_and_enough_words(tokenizer):
    tokens = timed(tokenizer, 3)

    with pytest.raises(ValueError, match="'one two three four' has no word times"):
        retime(make(tokenizer), (0, 1), 2.0, tokenizer)
    with pytest.raises(ValueError, match="9 words are too few .* at least 10"):
        retime(tokens, (0, 1), 2.0, tokenizer, [tokens[:9]])
    with pytest.raises(ValueError, match="no word 40"):
        retime(tokens, (39, 41), 2.0, tokenizer)
