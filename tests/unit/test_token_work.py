"""What the commands over tokens share."""

import argparse

import pytest

from espnet_taste.bin.token_work import deciding, spoil_no_other, tokens_parser
from espnet_taste.data.exclusions import ExclusionError


def test_items_that_can_be_worked_on_at_once_are():
    calls = []

    def work(items):
        calls.append(list(items))
        return [item * 2 for item in items]

    assert spoil_no_other([1, 2, 3], work, "bad") == [2, 4, 6]
    assert calls == [[1, 2, 3]]


def test_one_bad_item_spoils_no_other_and_keeps_its_reason_and_place():
    def work(items):
        if 2 in items:
            raise ValueError("two is out of range")
        return [item * 2 for item in items]

    first, bad, last = spoil_no_other([1, 2, 3], work, "bad")
    assert (first, last) == (2, 6)
    assert isinstance(bad, ExclusionError)
    assert (bad.reason, bad.detail) == ("bad", "two is out of range")


def test_what_is_no_fault_of_an_item_comes_through():
    def work(items):
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        spoil_no_other([1, 2], work, "bad")


def test_other_weights_under_the_same_name_are_another_model(tmp_path):
    path = tmp_path / "model.pth"
    args = argparse.Namespace(model=str(path), seed=1, nj=2)
    path.write_bytes(b"weights")
    first = deciding(args, ("model", "seed"))
    assert first.keys() == {"model", "seed"}
    assert deciding(args, ("model", "seed")) == first
    path.write_bytes(b"other weights")
    assert deciding(args, ("model", "seed")) != first


def test_another_file_under_the_same_name_is_another_input(tmp_path):
    """Other examples or moments: what was made with those before must not be kept."""
    path = tmp_path / "shots.jsonl"
    args = argparse.Namespace(model=None, tokens=path, shots=path)
    path.write_text("one")
    first = deciding(args, ("tokens", "shots"))
    assert deciding(args, ("tokens", "shots")) == first
    path.write_text("other")
    second = deciding(args, ("tokens", "shots"))
    assert second["shots"] != first["shots"]
    assert second["tokens"] == first["tokens"]  # grows when more is encoded


def test_a_model_that_is_not_named_stays_none():
    args = argparse.Namespace(model=None, seed=1)
    assert deciding(args, ("model", "seed")) == {"model": None, "seed": 1}


def test_every_command_over_tokens_wants_model_tokens_and_output_dir(capsys):
    with pytest.raises(SystemExit):
        tokens_parser("what").parse_args([])
    message = capsys.readouterr().err
    assert all(name in message for name in ("--model", "--tokens", "--output_dir"))
