"""What git carries works on other machines; what is said of its tests is true."""

import ast
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ID = re.compile(r"[CP]\d+")
NAMED = re.compile(rf"(?:[Dd]efect|[Cc]ost)s? ((?:{ID.pattern}(?:, | and )?)+)")


@pytest.fixture(scope="module")
def links():
    """Symbolic links that git carries, and what each says."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-s", "-z"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip(f"git cannot tell: {listed.stderr.strip()}")
    entries = (entry.split("\t") for entry in listed.stdout.split("\0") if entry)
    names = [name for facts, name in entries if facts.startswith("120000")]
    return {name: os.readlink(ROOT / name) for name in names}


def test_links_lead_nowhere_outside_the_repository(links):
    assert {"egs2/taste/conf", "egs2/taste/local"} <= links.keys()
    for name, target in links.items():
        assert not os.path.isabs(target), name
        place = Path(os.path.normpath(ROOT / Path(name).parent / target))
        assert place.is_relative_to(ROOT) and place.exists(), name


def test_links_to_an_espnet_tree_are_made_by_the_recipe_and_not_carried(links):
    assert not {
        name
        for name in links
        if Path(name).name in ("utils", "scripts", "pyscripts", "steps")
    }


def named_by_tests():
    """Return the ids that docstrings of tests name as defect or cost."""
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for ids in NAMED.findall(ast.get_docstring(node) or ""):
                    found |= set(ID.findall(ids))
    return found


def test_every_defect_of_the_reference_is_named_by_a_test_or_says_why_not():
    """And no test names one that the page does not explain."""
    page = (ROOT / "docs" / "defects.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([CP]\d+) \|.*\| (.+) \|$", page, flags=re.MULTILINE)
    untested = {name for name, here in rows if here.startswith("no test: ")}

    listed = [name for name, _ in rows]
    assert listed == [f"C{n}" for n in range(1, 35)] + [f"P{n}" for n in range(1, 10)]
    assert named_by_tests() == set(listed) - untested
