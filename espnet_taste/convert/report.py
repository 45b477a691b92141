"""What became of every tensor, as one JSON file and as lines to read."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from espnet_taste.convert.errors import DamagedFile

REPORT = "conversion.json"


@dataclass
class Report:
    """One conversion; every tensor of the source is consumed or dropped."""

    to: str  # layout that was written
    consumed: dict[str, str] = field(default_factory=dict)  # name to where it went
    dropped: dict[str, str] = field(default_factory=dict)  # name to the reason
    missing: dict[str, str] = field(default_factory=dict)  # name to why that is right
    added: dict[str, str] = field(default_factory=dict)  # name to the reason
    sha256: dict[str, str] = field(default_factory=dict)  # written file to its digest

    def write(self, folder: Path) -> None:
        """Write the report into a converted folder."""
        text = json.dumps(asdict(self), indent=1) + "\n"
        (folder / REPORT).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Report":
        """Read the report of a converted folder.

        Raises:
            FileNotFoundError: If there is none.
            DamagedFile: If it cannot be read.
        """
        path = folder / REPORT
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} has no {REPORT}, so it was not converted by "
                "espnet_taste.bin.convert"
            )
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return cls(**values)
        except (ValueError, TypeError) as error:
            message = f"{path} cannot be read ({error}); convert again"
            raise DamagedFile(message) from error

    def lines(self) -> list[str]:
        """Say how many tensors were consumed, and name all others by reason."""
        lines = [f"consumed: {len(self.consumed)} tensors"]
        for kind in ("dropped", "missing", "added"):
            names: dict[str, str] = getattr(self, kind)
            lines.append(f"{kind}: {len(names)} tensors")
            for reason, count in Counter(names.values()).items():
                lines.append(f"  {count} because {reason}:")
                lines += [f"    {n}" for n, why in names.items() if why == reason]
        return lines
