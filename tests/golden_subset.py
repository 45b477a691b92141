"""Make the small pack of golden fixtures that the repository carries.

    python tests/golden_subset.py SOURCE DEST

From the pack in SOURCE one case of every part is kept in DEST, compressed
(``packed_fixtures.py``). What is left out is listed in the JSON file of its case, so
that tests skip instead of failing. Nothing is chosen by a size or number of the pack.

* Whole: index logic, lists of names, the quantizer, the unit LM, the checkpoint.
* ``tower``: pooling and quantizer. Its networks are those of the checkpoint.
* ``completion``: traces. Its tower and its unit LM are as the checkpoint's.
* ``slm``: the first configuration of every kind of head.
* ``flow``: the first utterance. ``hift``: the shortest in full; of the first one only
  what needs no noise.
* ``frontend``: what follows from the waveform without storing many frames of it.

Weights are rounded to 19 bits of mantissa, inputs and results are not. With that our
worst difference is 0.08 of a tolerance (in ``slm`` 0.27, as without rounding).
"""

import argparse
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from packed_fixtures import SUFFIX, TENSORS, pack
from safetensors.torch import load_file, save_file
from torch import Tensor

LIMIT_BYTES = 3_000_000
ROUNDED_BITS = 4
WEIGHTS = ("state", "rows.")


@dataclass
class Case:
    """JSON and tensors of a case while it is cut down."""

    info: dict
    tensors: dict[str, Tensor]
    left_out: list[str] = field(default_factory=list)

    def drop(self, pattern: str, keep: str | None = None) -> None:
        """Leave out tensors whose whole name fits; tests that need them skip."""
        for name in sorted(self.tensors):
            if re.fullmatch(pattern, name) and not (keep and re.fullmatch(keep, name)):
                del self.tensors[name]
                self.left_out.append(name)
                kind, _, rest = name.partition(".")
                self.info.get(f"{kind}puts", {}).pop(rest, None)

    def forget(self, pattern: str) -> None:
        """Remove a whole sub-case, of which no test will hear."""
        before = len(self.left_out)
        self.drop(pattern)
        del self.left_out[before:]

    def give(self, pattern: str) -> None:
        """Keep results that only serve as inputs: what computes them is left out."""
        for name, entry in self.info["outputs"].items():
            if re.fullmatch(pattern, name):
                entry["match"] = "none"


def cut_tower(case: Case) -> None:
    """Keep what pooling and quantizer need."""
    case.give(r".*\.decoder_features")
    case.drop(r"(state|rows|row_ids)\.(?!audio_tower\.vq\.).*")
    case.drop(r"in\..*audio_feature.*|out\..*(encoder_|decoder_hidden).*")


def cut_completion(case: Case) -> None:
    """Keep the traces of text and codes."""
    case.give(r".*\.llm_indices")
    case.drop(r"(state|rows|row_ids)\.(?!spoken_lm\.|audio_tower\.vq\.).*")
    case.drop(r"in\..*audio_feature.*|out\..*(s3_units|\.asr_indices)")


def cut_slm(case: Case) -> None:
    """Keep one configuration of every kind of head."""
    kept = {}
    for name, variant in case.info["config"]["variants"].items():
        if variant["out_llm_module"] in kept:
            case.forget(rf"(in|out|state_{name})\.?{re.escape(name)}\..*")
        else:
            kept[variant["out_llm_module"]] = name
    case.info["config"]["variants"] = {
        name: case.info["config"]["variants"][name] for name in kept.values()
    }


def cut_flow(case: Case) -> None:
    """Keep the first utterance."""
    case.forget(r"(in|out)\.(?!0\.)\d+\..*")
    for name in ("token_counts", "mel_frames"):
        case.info[name] = case.info[name][:1]


def cut_hift(case: Case) -> None:
    """Let the shortest utterance come first, and be the only one with its noise."""
    frames = case.info["mel_frames"]
    short = frames.index(min(frames))
    order = [short, *(n for n in range(len(frames)) if n != short)][:2]
    case.forget(rf"(in|out)\.(?!({'|'.join(map(str, order))})\.)\d+\..*")
    case.info["mel_frames"] = [frames[n] for n in order]
    new = {old: place for place, old in enumerate(order)}

    def rename(name: str) -> str:
        return re.sub(r"^\d+", lambda number: str(new[int(number[0])]), name)

    for kind in ("in", "out"):
        entries = case.info[f"{kind}puts"]
        case.info[f"{kind}puts"] = {rename(n): e for n, e in entries.items()}
    case.tensors = {
        (f"{kind}.{rename(rest)}" if kind in ("in", "out") else f"{kind}.{rest}"): value
        for name, value in case.tensors.items()
        for kind, _, rest in [name.partition(".")]
    }
    case.drop(r"in\.1\..*noise|out\.1\..*", keep=r"out\.1\.(f0|decoded)")


def cut_frontend(case: Case) -> None:
    """Keep the statistics, a few frames and one rate."""
    case.drop(r"out\.(log_mel_first|log_mel_rest_).*")
    rates = sorted({n.split(".")[1] for n in case.tensors if ".resample_" in n})
    for rate in rates[1:]:
        case.forget(rf"(in|out)\.{rate}\..*")


CUTS: dict[str, Callable[[Case], None]] = {
    "tower": cut_tower,
    "completion": cut_completion,
    "slm": cut_slm,
    "flow": cut_flow,
    "hift": cut_hift,
    "frontend": cut_frontend,
}


def round_mantissa(tensor: Tensor, bits: int = ROUNDED_BITS) -> Tensor:
    """Round float32 so that the lowest bits are 0; other dtypes stay."""
    if tensor.dtype != torch.float32 or bits == 0:
        return tensor
    half, mask = 1 << (bits - 1), -(1 << bits)
    return ((tensor.contiguous().view(torch.int32) + half) & mask).view(torch.float32)


def cut(path: Path, folder: Path) -> None:
    """Write a case, cut down, into a folder of ordinary files."""
    info = json.loads(path.read_text(encoding="utf-8"))
    tensors = path.with_suffix(TENSORS)
    case = Case(info, load_file(tensors) if tensors.exists() else {})
    if path.stem in CUTS:
        CUTS[path.stem](case)
    if case.left_out:
        case.info["left_out"] = case.left_out
    text = json.dumps(case.info, ensure_ascii=False, separators=(",", ":"))
    (folder / path.name).write_text(text, encoding="utf-8")
    if case.tensors:
        rounded = {
            name: round_mantissa(value) if name.startswith(WEIGHTS) else value
            for name, value in case.tensors.items()
        }
        save_file(rounded, folder / tensors.name)


def main() -> None:
    """Cut, pack and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder of the complete fixtures")
    parser.add_argument("dest", type=Path, help="folder to write, empty or new")
    arguments = parser.parse_args()
    if arguments.dest.exists() and any(arguments.dest.iterdir()):
        parser.error(f"{arguments.dest} is not empty; remove what is in it first")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in sorted(arguments.source.glob("*.json")):
            cut(path, folder)
        (folder / "checkpoint").mkdir()
        for path in sorted((arguments.source / "checkpoint").iterdir()):
            if path.suffix == TENSORS:
                state = {n: round_mantissa(t) for n, t in load_file(path).items()}
                save_file(state, folder / "checkpoint" / path.name, {"format": "pt"})
            else:
                (folder / "checkpoint" / path.name).write_bytes(path.read_bytes())
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            place = path.relative_to(folder)
            pack(path, arguments.dest / place.with_name(place.name + SUFFIX))
    sizes = {
        path: path.stat().st_size for path in sorted(arguments.dest.rglob(f"*{SUFFIX}"))
    }
    for path, size in sizes.items():
        print(f"{size:9d}  {path.relative_to(arguments.dest)}")
    print(f"{sum(sizes.values()):9d}  of at most {LIMIT_BYTES}")


if __name__ == "__main__":
    main()
