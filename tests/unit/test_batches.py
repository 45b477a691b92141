"""Batches by cost: none too dear, nothing lost, the same after a break."""

import pytest

from espnet_taste.data.batches import in_batches_by_cost


def batches(costs, limit):
    return list(in_batches_by_cost(costs, float, limit))


def test_a_batch_costs_its_dearest_times_its_number():
    assert batches([1, 1, 3, 1, 9, 2, 2], 6) == [[1, 1], [3, 1], [9], [2, 2]]
    assert batches([], 6) == []


def test_batches_after_a_break_are_those_of_an_unbroken_run():
    costs = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    whole = batches(costs, 10)
    done = sum(len(batch) for batch in whole[:3])

    assert whole[:3] + batches(costs[done:], 10) == whole


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_a_limit_that_nothing_meets_is_refused(limit):
    with pytest.raises(ValueError, match="must be allowed to cost something"):
        batches([1], limit)
