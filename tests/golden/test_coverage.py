"""Every result of the golden fixtures is compared by some test of this folder."""

import json
from pathlib import Path

import pytest
import torch
from golden_case import COMPARED, GoldenCase
from golden_coverage import FOLDER, files_of_case, not_compared, not_run
from safetensors.torch import save_file

# What a logic file says about itself; everything else in it is a list of cases or a
# setting, which some test must read.
WORDS = {"case", "description", "left_out"}


def test_every_result_was_compared(golden_dir):
    """Runs behind all others. Tells nothing where tests did not run, and says which.

    ``make test-all`` in one process leaves nothing out.
    """
    unknown = []
    missing = []
    for case, names in not_compared(golden_dir).items():
        if left := not_run(case):
            unknown.append(f"{case}: {len(names)} results; not run: {', '.join(left)}")
        else:
            missing.append(f"{case}: {', '.join(names)}")
    assert not missing, "never compared:\n" + "\n".join(missing)
    if unknown:
        pytest.skip("; ".join(unknown))


def test_every_case_is_read_by_some_test(golden_dir):
    cases = {path.stem for path in golden_dir.glob("*.json")}
    cases -= {"full_keys", "voice_generator_keys"}  # lists of names, read by path
    assert cases
    unread = {case for case in cases if not files_of_case(case)}
    assert not unread


def test_every_list_of_index_logic_is_read_by_some_test(golden_dir):
    sources = "".join(
        path.read_text(encoding="utf-8")
        for path in FOLDER.glob("test_*.py")
        if path.name != Path(__file__).name
    )
    paths = sorted(golden_dir.glob("logic_*.json"))
    assert paths
    for path in paths:
        for key in set(json.loads(path.read_text(encoding="utf-8"))) - WORDS:
            assert f'"{key}"' in sources, f"{path.name}: {key}"


def test_a_comparison_is_noted_and_an_empty_one_refused(tmp_path):
    outputs = {
        "x": {"match": "exact"},
        "y": {"atol": 0.1, "rtol": 0.0},
        "shape": {"match": "none"},
        "y_reference_defect": {"atol": 0.1, "rtol": 0.0},
    }
    info = {"outputs": outputs, "left_out": ["out.gone", "state.part.weight"]}
    (tmp_path / "made_up.json").write_text(json.dumps(info))
    values = {f"out.{name}": torch.zeros(2) for name in outputs}
    save_file(values, tmp_path / "made_up.safetensors")
    case = GoldenCase(tmp_path, "made_up")
    try:
        assert not_compared(tmp_path) == {"made_up": ["x", "y"]}
        with pytest.raises(AssertionError, match="nothing to compare"):
            case.check("x", torch.zeros(2), torch.zeros(2, dtype=torch.bool))
        with pytest.raises(AssertionError):
            case.check("y", torch.ones(2))
        assert not_compared(tmp_path) == {"made_up": ["x", "y"]}
        case.check("y", torch.full((2,), 0.05))
        assert not_compared(tmp_path) == {"made_up": ["x"]}
        case.check("x", torch.zeros(2))
        assert not_compared(tmp_path) == {}
        for read in (lambda: case.output("gone"), lambda: case.state("part.")):
            with pytest.raises(pytest.skip.Exception, match="leaves out"):
                read()
        with pytest.raises(KeyError):
            case.output("never_there")
    finally:
        COMPARED.pop("made_up", None)
