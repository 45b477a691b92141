"""The training programs: help without ESPnet, and how they end."""

from types import SimpleNamespace

import pytest
from torch.multiprocessing import ProcessExitedException

from espnet_taste.bin import tokenizer_train, training
from espnet_taste.weights import WeightsNotFound


def run(monkeypatch, error):
    def fail(cmd):
        raise error

    task = SimpleNamespace(main=fail)
    monkeypatch.setattr(training, "load_task", lambda path: task)
    training.run_task("module:Task", "Train.", ["--ngpu", "0"])


@pytest.mark.parametrize(
    "error",
    [
        ValueError("model_conf: unknown option"),
        WeightsNotFound("weights 'a/b' not found"),
        OSError(28, "No space left on device"),
    ],
)
def test_what_a_user_can_cause_is_one_line(monkeypatch, capsys, error):
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, error)

    assert stop.value.code == 1
    assert capsys.readouterr().err.endswith(f": error: {error}\n")


def test_gpus_that_are_not_there_are_one_line(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    task = SimpleNamespace(main=lambda cmd: None)
    monkeypatch.setattr(training, "load_task", lambda path: task)
    training.run_task("module:Task", "Train.", ["--ngpu", "1", "--lr", "1"])

    with pytest.raises(SystemExit) as stop:
        training.run_task("module:Task", "Train.", ["--ngpu", "2"])

    assert stop.value.code == 1
    told = capsys.readouterr().err
    assert "error: --ngpu 2: device: no 'cuda:1' on this machine; there is cpu" in told


def test_a_process_of_several_that_ended_is_one_line(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, ProcessExitedException("process 1 terminated", 1, 9, 1))

    assert stop.value.code == 1
    told = capsys.readouterr().err
    assert told.endswith("error: process 1 terminated; what it said stands above\n")


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch):
    with pytest.raises(TypeError, match="ours"):
        run(monkeypatch, TypeError("ours"))


def test_a_misspelt_option_ends_a_real_training(tmp_path, capsys):
    config = tmp_path / "train.yaml"
    config.write_text(
        "encoder: none\naggregator: none\nquantizer: none\n"
        "decoder_conf: {num_units: 8, taste_dim: 384, speaker_dim: 4}\n"
        "model_conf: {comitment_weight: 1}\n"
    )
    argv = ["--config", str(config), "--output_dir", str(tmp_path / "out")]

    with pytest.raises(SystemExit) as stop:
        tokenizer_train.main([*argv, "--ngpu", "0"])

    assert stop.value.code == 1
    assert "model_conf: unknown option ['comitment_weight']" in capsys.readouterr().err
