"""requirements.lock: follows setup.py and holds what a supported machine installs."""

import importlib.util
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


@pytest.fixture
def lock():
    """tools/lock.py as a module; tools/ is no package."""
    spec = importlib.util.spec_from_file_location("lock", ROOT / "tools" / "lock.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lock_holds_what_setup_names(lock):
    """Somebody who edits setup.py must not forget ``make lock``."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    locked = dict(li.split(" ")[0].split("==") for li in lines if "==" in li)
    source = (ROOT / "setup.py").read_text()
    names: dict = {"__file__": str(ROOT / "setup.py"), "__name__": "setup"}
    exec(source.replace("setup(\n", "arguments = dict(\n"), names)
    extras = names["extras_require"]
    assert set(extras) - set(lock.EXTRAS) == {"s3"}  # not installed by `make setup`
    wanted = names["install_requires"] + sum((extras[e] for e in lock.EXTRAS), [])

    for requirement in map(Requirement, wanted):
        version = locked.get(requirement.name.lower().replace("_", "-"))
        assert version is not None, f"{requirement.name}: run `make lock`"
        assert requirement.specifier.contains(version), f"{requirement} has {version}"


def test_the_package_that_tests_add_is_one_that_setup_names():
    """The lock has no s3tokenizer; without it the tests of S3 units skip."""
    makefile = (ROOT / "Makefile").read_text()
    (line,) = re.findall(r"^S3_PACKAGES := (.+)$", makefile, flags=re.MULTILINE)
    pinned = dict(package.split("==") for package in line.split())
    (named,) = re.findall(r'"(s3tokenizer\S+)"', (ROOT / "setup.py").read_text())

    assert Requirement(named).specifier.contains(pinned["s3tokenizer"])
    for target in ("test-all", "test-units"):
        recipe = re.search(rf"^{target}: (.+)\n(.+)$", makefile, flags=re.MULTILINE)
        assert ".s3/stamp" in recipe[1] and "PYTHONPATH=$(CURDIR)/.s3" in recipe[2]


def test_only_files_that_a_target_installs_are_locked(lock):
    def wheel(name, digest):
        return {"url": f"index/{name}", "hashes": {"sha256": digest}}

    package = {
        "name": "p",
        "version": "1",
        "sdist": wheel("p-1.tar.gz", "s"),
        "wheels": [
            wheel("p-1-cp312-cp312-manylinux_2_17_x86_64.whl", "a"),
            wheel("p-1-cp313-cp313-manylinux_2_28_aarch64.whl", "b"),
            wheel("p-1-cp314-cp314-manylinux_2_28_x86_64.whl", "no"),
            wheel("p-1-cp312-cp312-win_amd64.whl", "no"),
            wheel("p-1-cp312-cp312-musllinux_1_2_x86_64.whl", "no"),
        ],
    }
    tags = lock.target_tags()

    (text,) = lock.requirement_lines(package, tags)
    assert text.split() == (
        "p==1 \\ --hash=sha256:a \\ --hash=sha256:b \\ --hash=sha256:s".split()
    )
    assert not list(
        lock.requirement_lines({**package, "marker": "sys_platform == 'win32'"}, tags)
    )
    with pytest.raises(ValueError, match="no file fits"):
        bad = {**package, "wheels": package["wheels"][3:]}
        del bad["sdist"]
        list(lock.requirement_lines(bad, tags))
