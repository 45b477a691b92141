"""Units of the decoder that start from their codebook."""

import argparse

import pytest
import tiny_experiment
import torch

from espnet_taste.decoder.contracts import AbsUnitDecoder
from espnet_taste.decoder.unit_lm import UnitLM, spread_like
from espnet_taste.tasks.tokenizer import TasteTokenizerTask
from espnet_taste.units.build import load_units
from espnet_taste.units.contracts import AbsUnitExtractor
from tests.unit.test_whisper_kmeans import learn, whisper  # noqa: F401  (fixture)

NUM_UNITS = 8
CONF = {
    **{"text_dim": 8, "taste_input_dim": 8, "width": 16, "heads": 2},
    **{"text_layers": 1, "taste_layers": 1, "lm_layers": 1},
    **{"taste_dim": 16, "speaker_dim": 6, "feedforward": 16},
}


def decoder():
    torch.manual_seed(0)
    sizes = {"width": 16, "heads": 2, "feedforward": 16, "text_dim": 4}
    layers = {"text_layers": 1, "taste_layers": 1, "lm_layers": 1}
    return UnitLM(NUM_UNITS, 8, 5, speaker_dim=3, taste_input_dim=4, **sizes, **layers)


def likeness(table):
    """Return the cosines between all rows, (N, N)."""
    centred = torch.nn.functional.normalize(table - table.mean(0), dim=-1)
    return centred @ centred.T


@pytest.mark.parametrize("dim", [3, 16])
def test_vectors_keep_their_angles_and_the_table_its_spread(dim):
    torch.manual_seed(1)
    table, vectors = torch.randn(NUM_UNITS, 16) * 0.3, torch.randn(NUM_UNITS, dim) + 7

    spread = spread_like(table, vectors)

    torch.testing.assert_close(likeness(spread), likeness(vectors))
    torch.testing.assert_close(spread.mean(0), torch.zeros(16), atol=1e-6, rtol=0)
    torch.testing.assert_close(spread.square().mean(), table.square().mean())


def test_vectors_wider_than_the_table_still_tell_who_is_near():
    torch.manual_seed(1)
    base = torch.randn(NUM_UNITS // 2, 400)
    twins = torch.cat([base, base + 0.01 * torch.randn_like(base)])

    near = likeness(spread_like(torch.randn(NUM_UNITS, 16), twins))

    near.fill_diagonal_(-1)
    assert near.argmax(1).tolist() == [4, 5, 6, 7, 0, 1, 2, 3]


@pytest.mark.parametrize("value", [2.0, float("nan")])
def test_vectors_that_tell_nothing_are_refused(value):
    vectors = torch.full((NUM_UNITS, 3), value)
    with pytest.raises(ValueError, match="finite and differ"):
        spread_like(torch.randn(NUM_UNITS, 16), vectors)


def test_embeddings_and_classes_start_from_vectors_and_all_else_as_before():
    before, model = decoder(), decoder()
    vectors = torch.randn(NUM_UNITS, 3)

    model.start_units(vectors)

    classes = model.output.weight[:NUM_UNITS]
    for table in (model.unit_embedding.weight, classes):
        torch.testing.assert_close(likeness(table), likeness(vectors))
    changed = {"unit_embedding.weight", "output.weight"}
    for name, value in before.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]) == (name not in changed)
    end = NUM_UNITS
    assert torch.equal(model.output.weight[end], before.output.weight[end])


def test_vectors_of_other_units_are_refused():
    with pytest.raises(ValueError, match="7 unit vectors do not fit 8 units"):
        decoder().start_units(torch.randn(NUM_UNITS - 1, 3))


def test_units_and_decoders_that_cannot_say_so(monkeypatch):
    monkeypatch.setattr(AbsUnitDecoder, "__abstractmethods__", frozenset())
    with pytest.raises(ValueError, match="cannot start .* unit_start: random"):
        AbsUnitDecoder().start_units(torch.ones(2))
    monkeypatch.setattr(AbsUnitExtractor, "__abstractmethods__", frozenset())
    with pytest.raises(ValueError, match="has no vectors .* unit_start: random"):
        AbsUnitExtractor().unit_vectors()


@pytest.fixture
def units_dir(whisper, tmp_path):  # noqa: F811
    learn(whisper, num_units=NUM_UNITS).save(tmp_path / "units")
    return tmp_path / "units"


@pytest.fixture
def build(tmp_path):
    """Build a text-only model as a training does."""
    words = tiny_experiment.write_whisper(tmp_path / "words")

    def build(**changes):
        args = TasteTokenizerTask.get_parser().parse_args(["--output_dir", "unused"])
        conf, frozen = dict(CONF), {}  # both are written to
        parts = dict.fromkeys(("encoder", "aggregator", "quantizer"), "none")
        values = {**vars(args), **parts, "whisper": str(words)}
        values |= {"decoder_conf": conf, "frozen_weights": frozen}
        args = argparse.Namespace(**{**values, **changes})
        torch.manual_seed(0)
        return TasteTokenizerTask.build_model(args), args

    return build


def test_a_training_starts_from_the_codebook_of_its_units(units_dir, build):
    model, args = build(units_dir=str(units_dir), unit_start="codebook")

    vectors = load_units(units_dir).unit_vectors()
    table = model.decoder.unit_embedding.weight
    torch.testing.assert_close(likeness(table), likeness(vectors))
    assert args.unit_start == "codebook"  # stays in the config as what was done


def test_only_a_training_that_says_so_does(units_dir, build):
    plain, _ = build(units_dir=str(units_dir))
    started, args = build(units_dir=str(units_dir), unit_start="codebook")

    # At inference, the folder is not named and need not be there.
    again, _ = build(**{k: vars(args)[k] for k in ("unit_start", "decoder_conf")})

    for model, same in ((started, False), (again, True)):
        table = model.decoder.unit_embedding.weight
        assert torch.equal(table, plain.decoder.unit_embedding.weight) == same


def test_weights_of_the_stage_before_win(units_dir, build, tmp_path, monkeypatch):
    """Units are not even asked for their vectors: not all kinds have some."""
    before, _ = build(units_dir=str(units_dir))
    monkeypatch.delattr(UnitLM, "start_units")
    torch.save(before.state_dict(), tmp_path / "before.pth")
    options = {"units_dir": str(units_dir), "init_from": str(tmp_path / "before.pth")}

    model, _ = build(**options, unit_start="codebook")

    table = model.decoder.unit_embedding.weight
    assert torch.equal(table, before.decoder.unit_embedding.weight)


def test_other_frozen_weights_than_those_of_the_training_are_refused(build):
    """They are not in checkpoints: nothing else would notice."""
    _, args = build(decoder_conf=CONF | {"num_units": NUM_UNITS})
    (name,) = args.frozen_weights
    noted = {name: "0" * 64}
    with pytest.raises(ValueError, match="trained on 000000000000.*fetch the right"):
        build(decoder_conf=CONF | {"num_units": NUM_UNITS}, frozen_weights=noted)


def test_a_codebook_that_is_not_given_is_asked_for():
    args = TasteTokenizerTask.get_parser().parse_args(["--output_dir", "unused"])
    args.unit_start = "codebook"
    with pytest.raises(ValueError, match="unit_start: codebook needs --units_dir"):
        TasteTokenizerTask.main_worker(args)
