"""Choosing from logits: what stays, what is drawn, what is refused."""

import pytest
import torch

from espnet_taste.sampling import (
    REMOVED,
    RowStreams,
    Sampler,
    _at_mass,
    draw,
    keep_nucleus,
    keep_top_k,
    penalise_seen,
    remove,
)

PROBS = torch.tensor([[0.5, 0.3, 0.15, 0.05]])


def kept(logits):
    return (logits > REMOVED / 2).tolist()


@pytest.mark.parametrize(
    ("rule", "top_p", "expected"),
    [
        ("standard", 0.0, [True, False, False, False]),
        ("standard", 0.5, [True, False, False, False]),
        ("standard", 0.6, [True, True, False, False]),
        ("standard", 1.0, [True, True, True, True]),
        ("released", 0.6, [True, False, False, False]),
        ("released", 0.82, [True, True, False, False]),
    ],
)
def test_the_crossing_index_stays_only_by_the_standard_rule(rule, top_p, expected):
    assert kept(keep_nucleus(PROBS.log(), top_p, rule)) == [expected]


def test_rows_are_filtered_independently():
    logits = torch.stack([PROBS[0].log(), PROBS[0].flip(0).log()])

    assert kept(keep_nucleus(logits, 0.6)) == [
        [True, True, False, False],
        [False, False, True, True],
    ]


def test_top_k_keeps_ties_and_allows_k_above_the_size():
    logits = torch.tensor([[1.0, 2.0, 2.0, 0.0]])

    assert kept(keep_top_k(logits, 1)) == [[False, True, True, False]]
    assert kept(keep_top_k(logits, 9)) == [[True] * 4]


def test_the_penalty_lowers_both_signs_and_only_seen_indices():
    logits = torch.tensor([[2.0, -2.0, 2.0]])
    seen = torch.tensor([[True, True, False]])

    assert penalise_seen(logits, seen, 2.0).tolist() == [[1.0, -4.0, 2.0]]


def test_the_input_is_left_alone():
    """Reference defect C10: the filter writes into the logits it is given."""
    logits = PROBS.log()
    before = logits.clone()

    Sampler(top_p=0.5, top_k=2, repetition_penalty=2.0).choose(
        logits, torch.ones_like(logits).bool(), source=torch.Generator()
    )

    assert torch.equal(logits, before)


def test_removed_indices_are_never_drawn():
    banned = torch.tensor([True, False, True, False])
    logits = remove(PROBS.log(), banned).expand(500, 4)

    drawn = draw(logits, torch.Generator().manual_seed(0))

    assert set(drawn.tolist()) == {1, 3}


def test_draws_follow_the_distribution_and_the_generator():
    logits = PROBS.log().expand(20000, 4)

    drawn = draw(logits, torch.Generator().manual_seed(3))
    again = draw(logits, torch.Generator().manual_seed(3))

    assert torch.equal(drawn, again)
    shares = torch.bincount(drawn, minlength=4) / 20000
    torch.testing.assert_close(shares, PROBS[0], atol=0.015, rtol=0.0)


def test_streams_follow_the_distribution():
    logits = PROBS.log().expand(40, 4)
    streams = RowStreams(range(40))

    drawn = torch.cat([draw(logits, streams) for _ in range(600)])

    shares = torch.bincount(drawn, minlength=4) / len(drawn)
    torch.testing.assert_close(shares, PROBS[0], atol=0.015, rtol=0.0)


def test_a_row_draws_the_same_in_every_batch():
    logits = torch.randn(300, 3, 50)
    seeds = [5, 9, 5]
    together = RowStreams(seeds)
    drawn = torch.stack([draw(step, together) for step in logits], 1)

    for row, seed in enumerate(seeds):
        alone = RowStreams([seed])
        expected = torch.cat([draw(step[row : row + 1], alone) for step in logits])
        assert drawn[row].equal(expected)


def test_several_draws_of_one_row_stay_in_its_stream():
    """A code head draws once a codebook."""
    logits = torch.randn(6, 50)  # two rows of three

    both = draw(logits, RowStreams([1, 2]))

    assert both[:3].equal(draw(logits[:3], RowStreams([1])))
    assert both[3:].equal(draw(logits[3:], RowStreams([2])))


def test_streams_never_draw_what_is_removed():
    banned = torch.tensor([True, False, True, True])
    streams = RowStreams(range(50))
    logits = remove(PROBS.log(), banned).expand(50, 4)

    drawn = [draw(logits, streams) for _ in range(500)]

    assert set(torch.cat(drawn).tolist()) == {1}


@pytest.mark.parametrize("number", [0.0, 1 - 2**-24])
def test_the_ends_of_a_stream_draw_something_possible(monkeypatch, number):
    streams = RowStreams([0])
    monkeypatch.setattr(streams, "uniform", lambda n: torch.full((1, n), number))
    logits = remove(torch.zeros(1, 5), torch.tensor([True, False, False, False, True]))

    assert draw(logits, streams).item() == (1 if number == 0 else 3)


def test_in_float32_too_nothing_impossible_is_drawn():
    """On MPS, which has no float64, a product may be rounded up to the whole mass."""
    probs = torch.tensor([[0.0, 0.4, 0.0, 0.6, 0.0]])

    for number, expected in ((0.0, 1), (0.3, 1), (0.5, 3), (1.0, 3)):
        assert _at_mass(probs, torch.tensor([number])).item() == expected


@pytest.mark.parametrize("greedy", [{"top_p": 0.0}, {"temperature": 0.0}])
def test_greedy_needs_no_randomness(greedy):
    state = torch.get_rng_state()

    chosen = Sampler(**greedy).choose(torch.tensor([[0.0, 3.0], [3.0, 0.0]]))

    assert chosen.tolist() == [1, 0]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("rule", "expected"), [("released", 0), ("standard", 1)])
def test_a_greedy_choice_obeys_the_penalty_by_the_standard_rule_only(rule, expected):
    sampler = Sampler(top_p=0.0, repetition_penalty=10.0, rule=rule)
    seen = torch.tensor([[True, False]])

    assert sampler.choose(torch.tensor([[3.0, 2.0]]), seen).tolist() == [expected]


def test_the_standard_order_tempers_before_it_filters():
    sampler = Sampler(top_p=0.6, temperature=0.25)

    assert kept(sampler.adjust(PROBS.log())) == [[True, False, False, False]]


@pytest.mark.parametrize("limit", [{"top_k": 1}, {"top_p": 0.3}])
def test_the_standard_order_penalises_before_it_filters(limit):
    sampler = Sampler(repetition_penalty=10.0, **limit)
    seen = torch.tensor([[True, False, False]])

    adjusted = sampler.adjust(torch.tensor([[3.0, 2.0, 1.0]]), seen)

    assert kept(adjusted) == [[False, True, False]]


def test_a_low_temperature_sharpens():
    probs = Sampler(temperature=0.5).adjust(PROBS.log()).softmax(-1)

    torch.testing.assert_close(probs, PROBS.square() / PROBS.square().sum())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_p": 1.1}, "top_p must be in 0..1, got 1.1"),
        ({"temperature": -1.0}, "temperature must be >= 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be > 0"),
        ({"top_k": -2}, "top_k must be >= 0"),
        ({"rule": "nucleus"}, "rule must be 'released' or 'standard'"),
        ({"rule": "released", "top_k": 3}, "released rule has no top_k"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampler(**settings)


def test_refusals_name_the_value():
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        keep_top_k(PROBS, 0)
    with pytest.raises(ValueError, match="greedy sampler"):
        Sampler(top_p=0.0).adjust(PROBS)
