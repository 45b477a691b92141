"""What the unit LM computes for a row depends on that row alone, up to a position."""

import copy

import numpy as np
import pytest
import torch

from espnet_taste.decoder.contracts import UnitSampling
from espnet_taste.decoder.generation import UnitStepper, prompt_layout, unit_bounds
from espnet_taste.decoder.layout import NUM_SPECIAL, Kind, Row, pack_rows, whole_rows
from espnet_taste.decoder.unit_lm import UnitLM
from espnet_taste.sampling import RowStreams
from espnet_taste.types import IGNORE

NUM_UNITS, VOCABULARY, TASTE_DIM, SPEAKER_DIM = 11, 17, 6, 5
NUM_TOKENS = 9  # Ta
SEEDS = [0, 1, 2]


@pytest.fixture(scope="module")
def unit_lm():
    torch.manual_seed(0)
    model = UnitLM(
        NUM_UNITS,
        VOCABULARY,
        TASTE_DIM,
        speaker_dim=SPEAKER_DIM,
        text_dim=8,
        taste_input_dim=8,
        width=16,
        heads=4,
        feedforward=24,
        text_layers=2,
        taste_layers=1,
        lm_layers=2,
    )
    return model.double().eval()


@pytest.fixture
def condition():
    """Tokens, TASTE and speaker of three utterances."""
    random = torch.Generator().manual_seed(1)
    return (
        torch.randint(VOCABULARY, (3, NUM_TOKENS), generator=random),
        torch.randn(3, NUM_TOKENS, TASTE_DIM, generator=random).double(),
        torch.randn(3, SPEAKER_DIM, generator=random).double(),
    )


def random_rows(seed, count=14):
    """Return spans of many lengths, some longer than the shortest block."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        start, stop = sorted(rng.choice(NUM_TOKENS + 1, 2, replace=False))
        num_units = int(rng.choice([1, 3, 8, 20, 70]))
        rows.append(
            Row(
                int(rng.integers(3)),
                int(start),
                int(stop),
                rng.integers(NUM_UNITS, size=num_units),
                masked=rng.random(num_units) < 0.3,
                ends=bool(rng.integers(2)),
            )
        )
    return rows


def lay_out(rows, max_positions=None):
    return pack_rows(
        rows,
        num_tokens=NUM_TOKENS,
        num_units=NUM_UNITS,
        max_positions=max_positions,
    )


@torch.no_grad()
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("max_positions", [None, 0, 64, 1000])
@pytest.mark.parametrize("with_taste", [True, False])
def test_a_row_gets_what_it_gets_alone(
    unit_lm, condition, seed, max_positions, with_taste
):
    tokens, taste, speaker = condition
    taste = taste if with_taste else None
    rows = random_rows(seed)
    layout = lay_out(rows, max_positions)

    logits = unit_lm(tokens, taste, speaker, layout)

    for index, row in enumerate(rows):
        alone = lay_out([row])
        expected = unit_lm(tokens, taste, speaker, alone)[alone.lm_rows == 0]
        torch.testing.assert_close(logits[layout.lm_rows == index], expected)
        assert layout.labels[layout.lm_rows == index].equal(
            alone.labels[alone.lm_rows == 0]
        )


@pytest.mark.parametrize("max_positions", [None, 64])
def test_gradients_do_not_depend_on_the_layout(unit_lm, condition, max_positions):
    tokens, taste, speaker = condition
    rows = random_rows(3)
    taste.requires_grad_()

    def gradients(layouts):
        loss = 0.0
        for layout in layouts:
            logits = unit_lm(tokens, taste, speaker, layout).flatten(0, 1)
            loss = loss + torch.nn.functional.cross_entropy(
                logits, layout.labels.flatten(), ignore_index=IGNORE, reduction="sum"
            )
        return torch.autograd.grad(loss, [taste, *unit_lm.parameters()])

    together = gradients([lay_out(rows, max_positions)])

    torch.testing.assert_close(together, gradients([lay_out([row]) for row in rows]))


@torch.no_grad()
@pytest.mark.parametrize("max_positions", [None, 64])
def test_a_unit_changes_nothing_before_it(unit_lm, condition, max_positions):
    row = random_rows(4, 1)[0]
    units = np.arange(20) % NUM_UNITS
    changed = units.copy()
    changed[7] = (changed[7] + 1) % NUM_UNITS

    def run(units):
        rows = [Row(0, 1, 5, units), row]
        layout = lay_out(rows, max_positions)
        return unit_lm(*condition, layout)[layout.lm_rows == 0]

    before, after = run(units), run(changed)

    place = NUM_SPECIAL + 4 + 7  # where unit 7 is read
    assert before[:place].equal(after[:place])
    assert not torch.isclose(before[place], after[place]).all()


@torch.no_grad()
def test_a_token_changes_nothing_before_it(unit_lm, condition):
    tokens, taste, _ = condition
    layout = lay_out([Row(0, 0, NUM_TOKENS, np.zeros(3, int))], 64)
    before = unit_lm.encode_condition(tokens, taste, layout)[0]
    tokens[0, 4] = (tokens[0, 4] + 1) % VOCABULARY
    text_changed = unit_lm.encode_condition(tokens, taste, layout)[0]
    taste[0, 6] += 1.0
    both_changed = unit_lm.encode_condition(tokens, taste, layout)[0]

    assert before[:4].equal(text_changed[:4])
    assert not torch.isclose(before[4:9], text_changed[4:9]).all(1).any()
    assert text_changed[:6].equal(both_changed[:6])
    assert not torch.isclose(text_changed[6:9], both_changed[6:9]).all(1).any()


@torch.no_grad()
@pytest.mark.parametrize("pad_token", [IGNORE, 0, 5])
def test_padding_values_do_not_matter(unit_lm, condition, pad_token):
    tokens, taste, speaker = condition
    token_lengths = torch.tensor([9, 4, 1])
    unit_lengths = torch.tensor([3, 8, 5])
    is_padding = torch.arange(NUM_TOKENS) >= token_lengths[:, None]
    units = torch.arange(24).view(3, 8) % NUM_UNITS
    unit_padding = torch.arange(8) >= unit_lengths[:, None]

    def run(tokens, taste, units):
        layout = whole_rows(
            token_lengths,
            units,
            unit_lengths,
            num_tokens=NUM_TOKENS,
            num_units=NUM_UNITS,
        )
        return unit_lm(tokens, taste, speaker, layout), layout

    expected, layout = run(tokens, taste, units)
    logits, other = run(
        tokens.masked_fill(is_padding, pad_token),
        taste.masked_fill(is_padding[..., None], 99.0),
        units.masked_fill(unit_padding, IGNORE),
    )

    is_valid = layout.lm_rows != IGNORE
    assert logits[is_valid].equal(expected[is_valid])
    assert other.labels.equal(layout.labels)


@torch.no_grad()
def test_incremental_equals_full_for_prompts_of_different_length(unit_lm, condition):
    tokens, taste, speaker = condition
    token_lengths, num_units = torch.tensor([9, 4, 1]), 12
    units = torch.randint(NUM_UNITS, (3, num_units))
    prompts = prompt_layout(token_lengths, NUM_TOKENS, NUM_UNITS)
    inputs = unit_lm.gather_inputs(
        unit_lm.encode_condition(tokens, taste, prompts), speaker, prompts
    )
    stepper = UnitStepper(unit_lm, 3, inputs.size(1) + num_units)

    places = [cache.keys.data_ptr() for cache in stepper.caches]
    hidden = [stepper.read_prompt(inputs, NUM_SPECIAL + token_lengths)]
    hidden += [stepper.read_units(units[:, step]) for step in range(num_units)]
    # Reference cost P8: caches are made anew, a position longer, at every step.
    assert [cache.keys.data_ptr() for cache in stepper.caches] == places
    logits = unit_lm.output(torch.stack(hidden, dim=1))

    layout = whole_rows(
        token_lengths,
        units,
        torch.full((3,), num_units),
        num_tokens=NUM_TOKENS,
        num_units=NUM_UNITS,
    )
    full = unit_lm(tokens, taste, speaker, layout)
    for row, tokens_here in enumerate(token_lengths.tolist()):
        task = 2 + tokens_here
        expected = full[row, task : task + num_units + 1]
        torch.testing.assert_close(logits[row], expected)


@pytest.mark.parametrize("top_k", [1, 10])
@pytest.mark.parametrize("bounds", ["prompt", "tokens"])
def test_a_batch_generates_what_its_utterances_generate_alone(
    unit_lm, condition, bounds, top_k
):
    lengths = torch.tensor([9, 4, 1])
    sampling = UnitSampling(top_k=top_k, bounds=bounds, unit_rate_hz=25.0)
    together = unit_lm.generate(
        condition[0],
        lengths,
        *condition[1:],
        sampling=sampling,
        source=RowStreams(range(3)),
    )

    for row, length in enumerate(lengths.tolist()):
        tokens, taste, speaker = (value[row : row + 1] for value in condition)
        alone = unit_lm.generate(
            tokens[:, :length],
            lengths[row : row + 1],
            taste[:, :length],
            speaker,
            sampling=sampling,
            source=RowStreams([row]),
        )
        count = int(together.lengths[row])
        assert alone.lengths.tolist() == [count]
        assert together.units[row, :count].equal(alone.units[0])
        assert together.has_ended[row] == alone.has_ended[0]


@pytest.mark.parametrize("check_every", [1, 5])
@pytest.mark.parametrize("top_k", [1, 10])
def test_rows_that_have_ended_are_no_longer_read(
    unit_lm, condition, monkeypatch, top_k, check_every
):
    lengths = torch.tensor([2, 9, 5])
    if top_k == 1:  # the best units of this model end two rows at once
        unit_lm = copy.deepcopy(unit_lm)
        unit_lm.output.bias.data[-1] -= 50.0
    rows_read = []
    read_units = UnitStepper.read_units

    def spy(stepper, units):
        rows_read.append(len(units))
        hidden = read_units(stepper, units)
        assert hidden.isfinite().all()
        return hidden

    def generate(check_every):
        return unit_lm.generate(
            condition[0],
            lengths,
            *condition[1:],
            sampling=UnitSampling(
                top_k=top_k, bounds="tokens", max_token_s=0.2, check_every=check_every
            ),
            source=RowStreams(range(3)),
        )

    expected = generate(1000)
    monkeypatch.setattr(UnitStepper, "read_units", spy)
    generated = generate(check_every)

    assert len(set(expected.lengths.tolist())) == 3
    for field in ("units", "lengths", "has_ended"):
        assert getattr(generated, field).equal(getattr(expected, field))
    for row in range(3):  # after the first look behind the end of the row
        last = int(expected.lengths.sort().values[row])
        seen = -(-(last + 1) // check_every) * check_every
        assert rows_read[seen - 1 : seen] in ([2 - row], [])


@pytest.mark.parametrize("top_k", [2, 5, 100])
@pytest.mark.parametrize("end_bias", [-9.0, 0.0, 4.0, 50.0])
def test_generated_lengths_stay_inside_their_bounds(
    unit_lm, condition, top_k, end_bias
):
    unit_lm = copy.deepcopy(unit_lm)
    unit_lm.output.bias.data[-1] += end_bias
    lengths = torch.tensor([3, 4, 1])
    sampling = UnitSampling(top_k=top_k, bounds="tokens", unit_rate_hz=20.0)
    least, most = unit_bounds(lengths, sampling)
    assert (least < most).all()
    random = torch.Generator().manual_seed(top_k)

    generated = unit_lm.generate(
        condition[0][:, :4],
        lengths,
        condition[1][:, :4],
        condition[2],
        sampling=sampling,
        source=random,
    )

    counts = generated.lengths
    assert (least <= counts).all() and (counts <= most).all()
    assert generated.has_ended.logical_or(counts == most).all()
    inside = torch.arange(generated.units.size(1)) < counts[:, None]
    assert (generated.units[~inside] == IGNORE).all()
    assert (0 <= generated.units[inside]).all()
    assert (generated.units[inside] < NUM_UNITS).all()
    if end_bias == 50.0:
        assert counts.equal(least) and generated.has_ended.all()
    if end_bias == -9.0 and top_k == 2:
        assert counts.equal(most) and not generated.has_ended.any()


def test_hidden_units_are_replaced_by_the_mask_vector(unit_lm, condition):
    units = np.arange(6) % NUM_UNITS
    masked = np.array([False, True, False, True, True, False])
    layout = lay_out([Row(0, 0, 3, units, masked)])

    inputs = unit_lm.gather_inputs(
        unit_lm.encode_condition(condition[0], None, layout), condition[2], layout
    )

    read = inputs[layout.lm_kind == Kind.UNIT]
    expected = unit_lm.unit_embedding.weight[torch.from_numpy(units)].clone()
    expected[torch.from_numpy(masked)] = unit_lm.mask_embedding.weight[0]
    assert read.equal(expected)
