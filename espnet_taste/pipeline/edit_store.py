"""A folder of edited tokens, with a row about every edit.

A ``TokenStore`` whose lines have one field more, ``edit``: what was asked for and what
came of it. So tokens and report of an edit reach the disk in one write. ``edits.jsonl``
is made of these fields at the end.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from espnet_taste.data.kaldi import atomic_write
from espnet_taste.pipeline.edit_list import EditLine
from espnet_taste.pipeline.interchange import TokenFile, to_row
from espnet_taste.pipeline.token_store import TokenPart, TokenStore
from espnet_taste.pipeline.tokens import TasteTokens


class EditStore(TokenStore):
    """The folder; arguments and errors as ``TokenStore``."""

    def __init__(self, folder: str | Path, settings: Mapping[str, object]):
        super().__init__(folder, settings)
        self.table = self.folder / "edits.jsonl"

    def begin(self, lines: Mapping[str, EditLine], keys: Iterable[str]) -> list[str]:
        """Return what is to be done; to be called once, before jobs open parts.

        What earlier runs left out is tried again: lines of a list get mended, and
        utterances that were unknown get encoded.

        Args:
            lines: The list of edits.
            keys: Ids of those that there should be.

        Raises:
            ValueError: If what is in the folder is no work of edits, or is another
                edit than the one asked for under its id.
        """
        for file in self._sources:
            if any("edit" not in json.loads(file.line(key)) for key in list(file)[:1]):
                raise ValueError(
                    f"{file.path} holds tokens that no edit made; choose another "
                    "--output_dir"
                )
        keys = list(keys)
        # Lines that are gone, too: nobody could mend them any more.
        self.forget_excluded({*keys, *(self.excluded.keys() - lines.keys())})
        left = []
        for key in keys:
            file = next((file for file in self._sources if key in file), None)
            if file is None:
                left.append(key)
                continue
            asked = json.loads(file.line(key))["edit"]["asked"]
            if asked != lines[key].asked:
                raise ValueError(
                    f"{lines[key].where}: '{key}' is in {self.folder} already, made by "
                    f"{json.dumps(asked, ensure_ascii=False)}; give the edit another "
                    "id or choose another --output_dir"
                )
        return left

    def part(self, job: int) -> "EditPart":
        """Open the part of one job."""
        return EditPart(self.folder / ".parts", job, self.settings)

    def finish(self, keys: Iterable[str], max_excluded: float) -> dict:
        """Join the parts and write the table; see ``TokenStore.finish``."""
        summary = super().finish(list(keys), max_excluded)
        tokens = TokenFile(self.tokens)
        with atomic_write(self.table) as stream:
            for key in tokens:
                line = json.loads(tokens.line(key))
                row = {"key": key, "text": " ".join(line["words"]), **line["edit"]}
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        return summary


class EditPart(TokenPart):
    """What one job writes."""

    def add_edits(
        self, rows: Mapping[str, tuple[TasteTokens, Mapping[str, Any]]]
    ) -> None:
        """Write edits; they survive a kill from here on.

        Args:
            rows: Id to edited tokens and what is told about the edit, ``asked`` (the
                line of the list) among it.

        Raises:
            ValueError: As ``to_row``; nothing is written then.
            OSError: If the disk is full or the file cannot be written.
        """
        texts = [
            json.dumps(
                {**to_row(key, tokens), "edit": facts},
                ensure_ascii=False,
                allow_nan=False,
            )
            for key, (tokens, facts) in rows.items()
        ]
        with self.path.open("ab") as stream:
            stream.write("".join(f"{text}\n" for text in texts).encode())
