"""By what a finished or begun step is known again, and what makes it another one."""

import pytest
from recipe_shell import needs_espnet, once

pytestmark = needs_espnet

FINISH = "once out/.done {} -- true\n"
BEGIN = "signature=$(signature_of {}); begin half found\n"


@pytest.mark.parametrize("step", [FINISH, BEGIN])
def test_copied_configurations_make_no_other_step(tmp_path, step):
    """As for a longer training of one of the models."""
    for name in ("conf", "my_conf"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "units.yaml").write_text("layer: 1\nfile: x.yaml\n")
    first = step.format("a --config conf/units.yaml --b")
    copied = first.replace("conf/", "my_conf/")
    assert once(tmp_path, first).returncode == 0

    result = once(tmp_path, copied)

    assert result.returncode == 0, result.stderr
    for text in ("layer: 2\nfile: x.yaml\n", "layer: 1\nfile: y.yaml\n"):
        (tmp_path / "my_conf" / "units.yaml").write_text(text)
        result = once(tmp_path, copied)
        assert result.returncode == 2
        assert "my_conf" not in result.stderr  # where they differ, not where they are


@pytest.mark.parametrize("more", ["0.5 --b", "0.2 --b --max_excluded 0.5", "1 --b"])
def test_more_may_be_left_out_of_what_is_begun_or_finished(tmp_path, more):
    """The error of a set that lost too many utterances advises it."""
    few, many = (f"--max_excluded {share} 1" for share in ("0.2 --b", more))
    for step in (BEGIN, FINISH):
        assert once(tmp_path, step.format(few)).returncode == 0
        result = once(tmp_path, step.format(many))
        assert result.returncode == 0, result.stderr

    result = once(tmp_path, FINISH.format(many[:-1] + "2"))

    assert result.returncode == 2 and "max_excluded" not in result.stderr


@pytest.mark.parametrize("step", [FINISH, BEGIN])
def test_another_device_makes_no_other_step(tmp_path, step):
    """As of a run that goes on with --gpu_inference true."""
    for options in ("--b --device cpu 1", "--b --device cuda 1", "--b 1"):
        result = once(tmp_path, step.format(options))
        assert result.returncode == 0, result.stderr

    assert once(tmp_path, step.format("--b --device cuda 2")).returncode == 2


def test_what_was_made_although_more_was_left_out_is_not_accepted(tmp_path):
    step = FINISH.format("--max_excluded 0.5 --max_excluded={}")
    assert once(tmp_path, step.format("0.3")).returncode == 0

    result = once(tmp_path, step.format("0.2"))

    assert result.returncode == 2
    assert "< --max_excluded 0.3\n" in result.stderr
    assert once(tmp_path, BEGIN.format("--max_excluded 0.3") * 2).returncode == 0
    assert once(tmp_path, BEGIN.format("--max_excluded 0.2")).returncode == 0


TRAIN = """
python=ran; ran() {{ echo "$*" >> log; }}; ngpu=0; num_nodes=1; config_dir=.
sets() {{ :; }}; train slm slm_train c.yaml sets --b {}
"""
USE = "once exp/.done.pack exp/slm -- true\n"


def test_what_is_trained_anew_is_another_model(tmp_path):
    train, mark = TRAIN.format(1), tmp_path / "exp" / "slm" / ".done"
    (tmp_path / "c.yaml").write_text("max_epoch: 1\n")
    result = once(tmp_path, (train + USE) * 2)
    assert result.returncode == 0, result.stderr
    assert len((tmp_path / "log").read_text().splitlines()) == 1
    first = mark.read_text()

    mark.unlink()
    result = once(tmp_path, train)
    assert result.returncode == 0, result.stderr
    result = once(tmp_path, USE)

    assert mark.read_text() != first
    assert result.returncode == 2 and "< made by" in result.stderr
    result = once(tmp_path, TRAIN.format(2))
    assert result.returncode == 2 and "trained" not in result.stderr


def test_a_model_that_an_older_version_trained_stays(tmp_path):
    (tmp_path / "c.yaml").write_text("max_epoch: 1\n")
    assert once(tmp_path, TRAIN.format(1)).returncode == 0
    mark = tmp_path / "exp" / "slm" / ".done"
    *lines, last = mark.read_text().splitlines(keepends=True)
    assert last.startswith("trained ")
    mark.write_text("".join(lines))
    (tmp_path / "log").unlink()

    result = once(tmp_path, USE + TRAIN.format(1) + USE)

    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "log").exists() and mark.read_text() == "".join(lines)


SETS = 'once data/.done.c kaldi_dir --set tr=more,up/tr cv="$PWD"/cv -- true\n'


@pytest.mark.parametrize("folder", ["more", "up/tr", "cv"])
def test_folders_that_are_joined_are_known_by_their_tables(tmp_path, folder):
    for name in ("more", "up/tr", "cv"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "wav.scp").write_text("a a.wav\n")
    result = once(tmp_path, SETS * 2)
    assert result.returncode == 0, result.stderr
    mark = tmp_path / "data" / ".done.c"

    (tmp_path / folder / "wav.scp").write_text("b b.wav\n")
    result = once(tmp_path, SETS)

    assert result.returncode == 2
    assert f"{folder}/wav.scp " in result.stderr.split("< holds")[1]
    lines = mark.read_text().splitlines(keepends=True)
    mark.write_text("".join(x for x in lines if "holds" not in x))  # an older one
    assert once(tmp_path, SETS).returncode == 0
    assert once(tmp_path, SETS.replace("more,", "")).returncode == 2
