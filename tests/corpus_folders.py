"""Scripts of local/ for tests, and folders for them to read."""

import contextlib
import importlib.util
import io
import subprocess
from pathlib import Path

from espnet_taste.data.kaldi import read_table

ROOT = Path(__file__).parents[1]


def prepare(corpus, *args, cwd):
    """Run a preparation script in this process, in the folder ``cwd``."""
    path = ROOT / "local" / f"prepare_{corpus}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    stderr = io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stderr(stderr):
        status = module.main([str(arg) for arg in args])
    return subprocess.CompletedProcess(args, status, "", stderr.getvalue())


def tables(folder):
    return tuple(read_table(folder / name) for name in ("wav.scp", "text", "utt2spk"))


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def kaldi_folder(folder, prefix, number, speaker):
    for name, value in (("wav.scp", "x.wav"), ("text", "hi"), ("utt2spk", speaker)):
        rows = (f"{prefix}{n:02} {value}\n" for n in range(number))
        write(folder / name, "".join(rows))
    write(folder / "x.wav")
    return folder
