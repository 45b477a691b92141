"""What the recipe runs beside its stages."""

import time

import pytest
from recipe_shell import needs_espnet, once

pytestmark = needs_espnet


ASIDE = """
at_once={}
trap stop_others EXIT
slow() {{ sleep 0.5; echo from >> log; sleep 0.3; echo to >> log; }}
aside slow
aside slow
echo main >> log
"""


@pytest.mark.parametrize(
    ("at_once", "order"), [(1, "from to from to main"), (2, "main from to from to")]
)
def test_what_runs_aside_runs_beside_the_stages_in_turn(tmp_path, at_once, order):
    result = once(tmp_path, ASIDE.format(at_once) + "join_asides")

    assert result.returncode == 0, result.stderr
    assert (tmp_path / "log").read_text().split() == order.split()


def test_what_may_run_on_is_not_waited_for(tmp_path):
    steps = """
at_once=2
quick() { echo quick; }
slow() { sleep 0.4; echo slow; }
aside quick
aside slow
join_asides slow other
echo main
join_asides other
echo end
"""
    result = once(tmp_path, steps)

    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["quick", "main", "slow", "end"]


def test_it_is_known_whether_something_is_at_work_beside(tmp_path):
    tell = "! works_aside || echo busy\n"

    result = once(tmp_path, tell + ASIDE.format(2) + tell + "join_asides\n" + tell)

    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["busy"]


def test_a_failure_aside_is_reported_where_it_is_awaited(tmp_path):
    result = once(tmp_path, "at_once=2\naside false\necho on\njoin_asides\necho not")

    assert result.returncode == 2 and result.stdout == "on\n"
    assert "what ran beside the stages has failed" in result.stderr


def test_what_runs_aside_ends_with_the_run(tmp_path):
    result = once(tmp_path, ASIDE.format(2) + "false")
    time.sleep(1.2)

    assert result.returncode == 1
    assert (tmp_path / "log").read_text() == "main\n"


def test_what_needs_no_turn_waits_for_none(tmp_path):
    """As the spoken LM, which is trained while controls still are."""
    steps = """
at_once=2
slow() { sleep 0.6; echo slow; }
quick() { sleep 0.2; echo quick; }
here() { local in_turn=false; aside quick; }
aside slow; here
join_asides
"""
    result = once(tmp_path, steps)

    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["quick", "slow"]


def test_what_runs_behind_reads_no_terminal(tmp_path):
    """A command of a wav.scp that did (as ffmpeg does) would be stopped for ever."""
    steps = """
at_once=2
exec <<< typed
reads() { cat; echo read; }
each reads a b
aside reads
join_asides
cat
"""
    result = once(tmp_path, steps)

    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["read"] * 3 + ["typed"]


def test_what_still_runs_aside_is_resumed_too(tmp_path):
    """Behind a kill, the stages that follow would take what is half trained."""
    steps = """
at_once=2
slow() { sleep 0.5; }
begin_stage 3; aside slow
begin_stage 4; echo "${resume_from}"
begin_stage 5; echo "${resume_from}"
join_asides
begin_stage 6; echo "${resume_from}"
"""
    result = once(tmp_path, steps)

    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["3", "3", "6"]
