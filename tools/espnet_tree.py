#!/usr/bin/env python3
"""Unpack ESPnet's source distribution into a tree that its recipes can run in.

The source distribution lost every link to a directory (utils, steps, scripts,
pyscripts of 350 recipes), so an unpacked recipe stops at its first line. They all
pointed to the same place, which is how they can be made again. The few recipes
without a local/ of their own take that of the corpus's asr1 recipe.

Standard library only: it also repairs trees outside our environment.
"""

import argparse
import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

SHARED = ("utils", "steps", "scripts", "pyscripts")
# Links that no rule explains, as the git repository has them: place -> target.
SINGLE_LINKS = {
    "TEMPLATE/tts2/sid": "../tts1/sid",
    "must_c/asr1/local": "../st1/local",
}
# What our recipe takes from the tree; a root without one of these is not usable.
NEEDED = (
    "egs2/TEMPLATE/asr1/utils/parse_options.sh",
    "egs2/TEMPLATE/asr1/scripts/audio/format_wav_scp.sh",
    "egs2/TEMPLATE/asr1/pyscripts/audio/format_wav_scp.py",
)


def get_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="exit 0 if the tree is usable")
    check.add_argument("root", type=Path)
    relink = commands.add_parser("relink", help="make the lost links of a tree again")
    relink.add_argument("root", type=Path)
    unpack = commands.add_parser("unpack", help="check, unpack and relink an archive")
    unpack.add_argument("archive", type=Path, help="espnet-<version>.tar.gz")
    unpack.add_argument("root", type=Path, help="folder to make; replaced if there")
    unpack.add_argument("--sha256", required=True, help="digest of the archive, hex")
    return parser


def check_tree(root: Path) -> None:
    """Refuse a folder that is not an ESPnet tree with its recipe tools.

    Raises:
        FileNotFoundError: Naming the files that are missing.
    """
    missing = [name for name in NEEDED if not (root / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{root} is no ESPnet source tree with recipe tools: no {missing}; name a "
            "git checkout (a pip-installed espnet has no egs2), or unset ESPNET_ROOT"
        )


def check_sha256(path: Path, expected: str) -> None:
    """Refuse a file whose digest is not the recorded one.

    Raises:
        ValueError: If the digests differ.
    """
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != expected.lower():
        raise ValueError(
            f"{path}: sha256 is {found}, expected {expected}; delete it and download "
            "again, and if it stays so do not trust the index"
        )


def relink_tree(root: Path) -> int:
    """Make the directory links of the recipes that are missing.

    Existing files, folders and links are left alone, so a second call does nothing.

    Args:
        root: ESPnet tree, the folder that holds ``egs2``.

    Returns:
        Number of links made.
    """
    recipes = root / "egs2"
    wanted = {}
    for folder in sorted(recipes.glob("*/*/")):
        if (folder / "path.sh").is_file() or (folder / "cmd.sh").is_file():
            corpus, recipe = folder.relative_to(recipes).parts
            base = "../asr1" if corpus == "TEMPLATE" else "../../TEMPLATE/asr1"
            if corpus != "TEMPLATE":
                wanted[f"{corpus}/{recipe}/local"] = "../asr1/local"
            for name in SHARED:
                wanted[f"{corpus}/{recipe}/{name}"] = f"{base}/{name}"
    wanted.update(SINGLE_LINKS)
    made = 0
    for place, target in wanted.items():
        link = recipes / place
        if link.parent.is_dir() and not os.path.lexists(link):
            # A link to nothing would hide that the source tree lacks the folder.
            if (link.parent / target).is_dir():
                link.symlink_to(target, target_is_directory=True)
                made += 1
    return made


def unpack_tree(archive: Path, root: Path, *, sha256: str) -> int:
    """Put the archive's one folder at ``root``, links repaired.

    The folder appears by a rename when it is complete; a killed call leaves only a
    hidden folder beside it, which the next call removes.

    Args:
        archive: ESPnet's source distribution.
        root: Folder to make; an existing one is replaced.
        sha256: Digest that the archive must have, hex.

    Returns:
        Number of links made.

    Raises:
        ValueError: If the digest differs or the archive holds other than one folder.
        FileNotFoundError: If the unpacked tree lacks the recipe tools.
    """
    check_sha256(archive, sha256)
    root.parent.mkdir(parents=True, exist_ok=True)
    prefix = f"{root.name}.unpacking."
    for leftover in root.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover)
    staging = Path(tempfile.mkdtemp(prefix=prefix, dir=root.parent))
    try:
        with tarfile.open(archive) as source:
            source.extractall(staging, filter="data")
        folders = list(staging.iterdir())
        if len(folders) != 1:
            raise ValueError(f"{archive}: {len(folders)} entries at the top, not one")
        made = relink_tree(folders[0])
        check_tree(folders[0])
        if root.exists():
            shutil.rmtree(root)
        folders[0].rename(root)
    finally:
        shutil.rmtree(staging)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = get_parser().parse_args(argv)
    try:
        if args.command == "check":
            check_tree(args.root)
            return 0
        if args.command == "relink":
            made = relink_tree(args.root)
        else:
            made = unpack_tree(args.archive, args.root, sha256=args.sha256)
    except (OSError, ValueError, tarfile.TarError) as error:
        print(f"espnet_tree: {error}", file=sys.stderr)
        return 1
    print(f"espnet_tree: {args.root}: {made} links made", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
