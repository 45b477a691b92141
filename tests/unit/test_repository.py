"""What git carries must work on a machine that is not ours."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


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
