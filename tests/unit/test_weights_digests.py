"""Model files of a folder, fingerprints, noted digests, names for configs."""

import hashlib
import json
import os

import pytest

from espnet_taste.weights import digests
from espnet_taste.weights.digests import (
    describe,
    fingerprint,
    identify_model,
    model_files,
    portable_name,
)


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    return folder


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_the_fingerprint_is_the_sha256_of_the_model_file(tmp_path):
    folder = write(tmp_path / "m", model__safetensors=b"weights", config__json=b"{}")

    assert fingerprint(folder, cache_dir=tmp_path) == sha256(b"weights")
    file = folder / "model.safetensors"
    assert fingerprint(file, cache_dir=tmp_path) == sha256(b"weights")


def test_what_tokens_say_of_their_models_names_no_path(tmp_path):
    """Tokens get published, and those of two machines are put together."""
    folder = write(tmp_path / "m", model__safetensors=b"weights")

    assert portable_name(str(folder)) == sha256(b"weights")
    assert portable_name(str(folder / "model.safetensors")) == sha256(b"weights")
    assert portable_name("openai/whisper-tiny.en") == "openai/whisper-tiny.en"


def test_shards_give_the_sha256_of_what_sha256sum_prints(tmp_path):
    weight_map = {"b": "model-2.safetensors", "a": "model-1.safetensors"}
    folder = write(tmp_path / "m", **{"model-1__safetensors": b"1"})
    write(folder, **{"model-2__safetensors": b"2"})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))

    listing = f"{sha256(b'1')}  model-1.safetensors\n{sha256(b'2')}  "
    expected = sha256(f"{listing}model-2.safetensors\n".encode())
    assert fingerprint(folder, cache_dir=tmp_path) == expected

    (folder / "model-2.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 2 shards.*model-2.safetensors"):
        model_files(folder)


def test_safetensors_come_before_pickles(tmp_path):
    folder = write(tmp_path, pytorch_model__bin=b"p", model__safetensors=b"s")
    assert [path.name for path in model_files(folder)] == ["model.safetensors"]


def test_a_folder_without_weights_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}: no weights"):
        fingerprint(tmp_path)


def test_a_digest_is_computed_once_for_each_state_of_a_file(tmp_path, monkeypatch):
    hashed = []
    compute = digests.sha256_of
    monkeypatch.setattr(
        digests, "sha256_of", lambda path: hashed.append(path) or compute(path)
    )
    folder = write(tmp_path / "m", model__safetensors=b"first")
    for _ in range(2):
        assert fingerprint(folder, cache_dir=tmp_path) == sha256(b"first")
    assert len(hashed) == 1

    write(folder, model__safetensors=b"other")
    os.utime(folder / "model.safetensors", ns=(5, 5))
    assert fingerprint(folder, cache_dir=tmp_path) == sha256(b"other")
    assert len(hashed) == 2


def test_a_damaged_note_is_not_believed(tmp_path):
    folder = write(tmp_path / "m", model__safetensors=b"first")
    fingerprint(folder, cache_dir=tmp_path)
    (note,) = (tmp_path / "digests").iterdir()
    note.write_text("{")

    assert fingerprint(folder, cache_dir=tmp_path) == sha256(b"first")


def test_notes_are_for_all_users_and_those_of_others_may_be_closed(
    tmp_path, monkeypatch
):
    """The second user of a cache was refused, since notes were their writer's alone."""
    folder = write(tmp_path / "m", model__safetensors=b"first")
    (tmp_path / "digests").mkdir(mode=0o755)
    fingerprint(folder, cache_dir=tmp_path)
    (note,) = (tmp_path / "digests").iterdir()
    assert note.stat().st_mode & 0o777 == 0o644

    def closed(self, **options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(note), "read_text", closed)
    assert fingerprint(folder, cache_dir=tmp_path) == sha256(b"first")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("espnet_taste.weights.digests.json.dump", full)
    assert fingerprint(folder, cache_dir=tmp_path) == sha256(b"first")
    assert [path.suffix for path in (tmp_path / "digests").iterdir()] == [".json"]


def test_without_a_place_for_notes_the_digest_is_still_computed(tmp_path):
    folder = write(tmp_path / "m", model__safetensors=b"first")
    (tmp_path / "file").touch()

    digest = fingerprint(folder, cache_dir=tmp_path / "file")
    assert digest == sha256(b"first")


def test_weights_are_described_by_name_and_hash(tmp_path):
    ours = write(tmp_path / "ours", model__bin=b"x", manifest__json=b'{"name": "a/b"}')
    hub = tmp_path / "models--org--name" / "snapshots" / "abc"
    write(hub, model__safetensors=b"x")
    other = write(tmp_path / "other", model__safetensors=b"x")

    for folder, name in ((ours, "a/b"), (hub, "org/name"), (other, str(other))):
        found = describe(folder, cache_dir=tmp_path)
        assert found == {"name": name, "sha256": sha256(b"x")}


def test_a_model_is_known_by_what_is_at_its_path(tmp_path):
    def name(source):
        return identify_model(source, cache_dir=tmp_path / "cache")

    experiment = tmp_path / "exp"
    for part in ("taste", "vocoder", "text_only"):
        write(experiment / part, **{"valid.loss.best__pth": part.encode()})
    first = name(experiment)
    write(experiment / "text_only", **{"valid.loss.best__pth": b"another"})
    assert name(experiment) == first  # of no use to anybody who opens it
    write(experiment / "taste", **{"valid.loss.best__pth": b"trained again"})
    assert name(experiment) != first and name(experiment).startswith(str(experiment))

    second = name(experiment)
    write(experiment / "taste", valid__acc__best__pth=b"more accurate")
    assert name(experiment) == second
    (experiment / "taste" / "inference_model").write_text("valid.acc.best.pth\n")
    assert name(experiment) != second

    released = write(tmp_path / "released" / "a", model__safetensors=b"1").parent
    before = name(released)
    write(released / "a", model__safetensors=b"22")
    assert name(released) != before
    assert name("someone/a-tag") == "someone/a-tag"
