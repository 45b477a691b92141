#!/usr/bin/env python3
"""Write requirements.lock: the exact versions of every supported Linux machine.

uv resolves once for all targets; this program keeps the hashes of the files that
one of them can install. uv's own export lists every platform's wheels, which is
4,700 lines against 600 here.
"""

import argparse
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ((3, 12), (3, 13))
MACHINES = ("x86_64", "aarch64")
EXTRAS = ("train", "eval", "demo", "dev")
# Minor versions of glibc 2; torch 2.11 asks for 28, the machine may be far newer.
GLIBC = range(45, 4, -1)
HEADER = """\
# Exact versions for Python 3.12 and 3.13 on Linux, x86_64 and aarch64.
# Written by `make lock` from the ranges of setup.py; do not edit by hand.
"""


def get_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--uv", default="uv", help="the uv program (tools/setup_env.sh has one)"
    )
    parser.add_argument(
        "--upgrade",
        action="store_true",
        help="take the newest versions; default: keep what the lock already names",
    )
    parser.add_argument("--output", type=Path, default=ROOT / "requirements.lock")
    return parser


def target_environments() -> list[dict[str, str]]:
    """Return the marker environment of every supported machine."""
    return [
        {
            "sys_platform": "linux",
            "platform_system": "Linux",
            "os_name": "posix",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "platform_machine": machine,
            "python_version": f"{major}.{minor}",
            "python_full_version": f"{major}.{minor}.0",
        }
        for major, minor in PYTHONS
        for machine in MACHINES
    ]


def target_tags() -> frozenset[Tag]:
    """Return every wheel tag that a supported machine can install."""
    tags: set[Tag] = set()
    for machine in MACHINES:
        platforms = [f"manylinux_2_{minor}_{machine}" for minor in GLIBC]
        platforms += [f"manylinux2014_{machine}", f"linux_{machine}"]
        platforms += [f"manylinux2010_{machine}", f"manylinux1_{machine}"]
        for version in PYTHONS:
            interpreter = "cp" + "".join(map(str, version))
            tags.update(cpython_tags(version, platforms=platforms))
            tags.update(compatible_tags(version, interpreter, platforms))
    return frozenset(tags)


def resolve(uv: str, constraints: Path | None) -> dict:
    """Let uv resolve setup.py for every target and return its lock file, parsed."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "pylock.toml"
        command = [uv, "pip", "compile", "setup.py", "--universal", "--quiet"]
        command += ["--python-version", "3.12", "--format", "pylock.toml"]
        command += ["--output-file", str(output)]
        for extra in EXTRAS:
            command += ["--extra", extra]
        if constraints is not None:
            command += ["--constraint", str(constraints)]
        subprocess.run(command, cwd=ROOT, check=True)
        return tomllib.loads(output.read_text(encoding="utf-8"))


def requirement_lines(package: dict, tags: frozenset[Tag]) -> Iterator[str]:
    """Yield the lines of one package; none if no target installs it.

    Args:
        package: An entry of the lock file's ``packages``.
        tags: Wheel tags that a target can install.

    Yields:
        ``name==version [; marker] \\`` and one ``--hash`` per installable file,
        the source distribution only where there is no wheel for every target.

    Raises:
        ValueError: If no file of the package fits any target.
    """
    marker = Marker(package["marker"]) if "marker" in package else None
    wanted = [marker is None or marker.evaluate(e) for e in target_environments()]
    if not any(wanted):
        return
    wheels = {
        Path(wheel.get("name") or wheel["url"]).name: wheel["hashes"]["sha256"]
        for wheel in package.get("wheels", [])
    }
    hashes = [
        digest
        for name, digest in sorted(wheels.items())
        if not tags.isdisjoint(parse_wheel_filename(name)[3])
    ]
    if "sdist" in package and not any(name.endswith("-any.whl") for name in wheels):
        hashes.append(package["sdist"]["hashes"]["sha256"])
    if not hashes:
        raise ValueError(f"{package['name']}: no file fits Linux, Python 3.12 or 3.13")
    suffix = "" if all(wanted) else f" ; {marker}"
    lines = [f"{package['name']}=={package['version']}{suffix}"]
    lines += [f"    --hash=sha256:{digest}" for digest in hashes]
    yield " \\\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = get_parser().parse_args(argv)
    keep = args.output.exists() and not args.upgrade
    try:
        lock = resolve(args.uv, args.output.resolve() if keep else None)
        tags = target_tags()
        lines = [line for p in lock["packages"] for line in requirement_lines(p, tags)]
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        print(f"lock: {error}", file=sys.stderr)
        return 1
    args.output.write_text(HEADER + "".join(lines), encoding="utf-8")
    print(f"{args.output}: {len(lines)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
