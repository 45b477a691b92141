"""Edits as data: a JSON object an edit, checked before any model works.

    {"key": "e1", "edit": "swap", "utterance": "a", "donor": "b", "words": [2]}

``docs/edits.md`` is the format. A list is a file of such lines. What cannot be read as
a line with an id stops the reader; everything else that is wrong with a line is an
``ExclusionError``, so that one line spoils no other.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet_taste.data.exclusions import ExclusionError
from espnet_taste.data.kaldi import check_key
from espnet_taste.pipeline import delivery, editing
from espnet_taste.pipeline.editing import Edit
from espnet_taste.pipeline.taste import TasteTokenizer
from espnet_taste.pipeline.tokens import TasteTokens, require_same_tokenizer


@dataclass(frozen=True)
class Form:
    """Names of the arguments of an edit."""

    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()


FORMS = {
    "swap": Form(("donor", "words")),
    "transplant": Form(("word", "donor", "donor_word")),
    "retime": Form(("span", "factor"), ("examples",)),
    "replace": Form(("word", "text")),
    "repeat": Form(("word", "times")),
    "interpolate": Form(("donor", "share"), ("words",)),
}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_whole(value: Any) -> bool:
    # bool is an int to Python and a slip to everybody else.
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or isinstance(value, float)


def _is_list(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and bool(value) and all(map(fits, value))


# What a field must be, for messages and as a test.
KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "utterance": ("the id of an utterance", _is_text),
    "donor": ("the id of an utterance", _is_text),
    "word": ("the number of a word, from 0", _is_whole),
    "donor_word": ("the number of a word, from 0", _is_whole),
    "words": ("a list of numbers of words", lambda v: _is_list(v, _is_whole)),
    "span": (
        "the first word and one past the last",
        lambda v: _is_list(v, _is_whole) and len(v) == 2,
    ),
    "times": ("a whole number", _is_whole),
    "factor": ("a number", _is_number),
    "share": ("a number", _is_number),
    "text": ("a word", _is_text),
    "examples": ("a list of ids of utterances", lambda v: _is_list(v, _is_text)),
}


@dataclass(frozen=True)
class EditOrder:
    """An edit that is asked for.

    Args:
        edit: A name in ``FORMS``.
        utterance: Id of what is edited.
        arguments: As ``FORMS`` names them.
    """

    edit: str
    utterance: str
    arguments: Mapping[str, Any]

    @property
    def asked(self) -> dict[str, Any]:
        """What a line of a list says, but for the id."""
        return {"edit": self.edit, "utterance": self.utterance, **self.arguments}

    @property
    def utterances(self) -> list[str]:
        """Ids of all utterances that the edit reads."""
        donor = self.arguments.get("donor")
        others = [] if donor is None else [donor]
        return [self.utterance, *others, *self.arguments.get("examples", [])]


@dataclass(frozen=True)
class EditLine:
    """A line of a list, of which only the id is known to be right."""

    key: str  # id of the result
    where: str  # file:line
    asked: Mapping[str, Any]  # the other fields

    def excluded(self, reason: str, detail: str) -> ExclusionError:
        """Return why the line is left out, with its place."""
        return ExclusionError(reason, f"{self.where}: {detail}")


def read_edit_list(path: str | Path) -> dict[str, EditLine]:
    """Read a list of edits.

    Args:
        path: JSON lines; empty lines are passed over.

    Returns:
        Id of the result to its line, in the order of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no edit, or a line is no JSON object with an id of its
            own; the line is named.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no list of edits at {path}")
    lines: dict[str, EditLine] = {}
    with path.open("rb") as stream:
        for number, text in enumerate(stream, start=1):
            if not text.strip():
                continue
            line = _read_line(text, f"{path}:{number}")
            if line.key in lines:
                raise ValueError(
                    f"{line.where}: the id '{line.key}' is also that of "
                    f"{lines[line.key].where}; every edit needs its own"
                )
            lines[line.key] = line
    if not lines:
        raise ValueError(f"{path}: no edits; write one a line, see docs/edits.md")
    return lines


def _read_line(text: bytes, where: str) -> EditLine:
    try:
        row = json.loads(text)
    except ValueError as error:  # also of bytes that are no UTF-8
        raise ValueError(f"{where}: not JSON: {error}") from error
    if not isinstance(row, dict) or not isinstance(row.get("key"), str):
        raise ValueError(
            f'{where}: expected an object with an id for the result, {{"key": "..."}}'
        )
    try:
        check_key(row["key"])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    asked = {name: value for name, value in row.items() if name != "key"}
    return EditLine(row["key"], where, asked)


def parse_line(line: EditLine, known: Mapping[str, Any], place: str) -> EditOrder:
    """Check what a line asks for, as far as can be told without the tokens.

    Args:
        line: The line.
        known: Holds the ids of all utterances.
        place: Where these are, for messages.

    Raises:
        ExclusionError: If the edit is unknown, an argument is missing, unknown or of
            another kind (``bad_edit``), or an utterance is unknown (``no_utterance``).
    """
    edit = line.asked.get("edit")
    if not isinstance(edit, str) or edit not in FORMS:
        names = ", ".join(FORMS)
        raise line.excluded("bad_edit", f"no edit {edit!r:.40}; edit is one of {names}")
    given = {name: value for name, value in line.asked.items() if name != "edit"}
    if complaint := _misfit(edit, given):
        raise line.excluded("bad_edit", complaint)
    # An argument that may be left out may also be null.
    arguments = {name: value for name, value in given.items() if value is not None}
    order = EditOrder(edit, arguments.pop("utterance"), arguments)
    for name in order.utterances:
        if name not in known:
            raise line.excluded(
                "no_utterance", f"no utterance '{name}' in {place}; encode it first"
            )
    return order


def _misfit(edit: str, given: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the fields of an edit; None if nothing is."""
    needed = ("utterance", *FORMS[edit].needed)
    allowed = (*needed, *FORMS[edit].optional)
    if unknown := sorted(given.keys() - set(allowed)):
        return f"{edit} has no '{unknown[0]}'; it takes {', '.join(allowed)}"
    for name in allowed:
        wanted, fits = KINDS[name]
        value = given.get(name)
        if value is None and name in needed:
            return f"{edit} needs '{name}', {wanted}"
        if value is not None and not fits(value):
            return f"{name} must be {wanted}, got {value!r:.40}"
    return None


def make_edit(
    order: EditOrder, tokens: Mapping[str, TasteTokens], tokenizer: TasteTokenizer
) -> tuple[TasteTokens, Edit]:
    """Make an edit.

    Args:
        order: What is asked for.
        tokens: Has ``order.utterances``.
        tokenizer: What made them.

    Returns:
        The unedited utterance and the edit of it.

    Raises:
        ValueError: If it cannot be made: a word or span is not there, texts differ, or
            tokens are of another tokenizer.
    """
    for name in order.utterances:
        require_same_tokenizer(tokens[name], tokenizer.models, f"edit '{name}',")
    return tokens[order.utterance], _edit_of(order, tokens, tokenizer)


def _edit_of(
    order: EditOrder, tokens: Mapping[str, TasteTokens], tokenizer: TasteTokenizer
) -> Edit:
    target, given = tokens[order.utterance], order.arguments
    if order.edit == "retime":
        return _retime(target, given, tokens, tokenizer)
    if order.edit == "replace":
        encode = tokenizer.encoder.encode_text
        return editing.replace_text(target, given["word"], given["text"], encode)
    if order.edit == "repeat":
        return editing.repeat_word(target, given["word"], given["times"])
    donor = tokens[given["donor"]]
    if order.edit == "swap":
        return editing.swap_words(target, donor, given["words"])[0]
    if order.edit == "transplant":
        return editing.transplant(target, given["word"], donor, given["donor_word"])
    return delivery.interpolate(
        target, donor, given["share"], tokenizer, given.get("words")
    )


def _retime(
    target: TasteTokens,
    given: Mapping[str, Any],
    tokens: Mapping[str, TasteTokens],
    tokenizer: TasteTokenizer,
) -> Edit:
    first, stop = given["span"]
    if not 0 <= first < stop <= len(target):
        raise ValueError(
            f"the span {[first, stop]} must be the first word and one past the last, "
            f"within 0..{len(target)}"
        )
    examples = None
    if "examples" in given:
        examples = [tokens[name] for name in given["examples"]]
    return delivery.retime(target, (first, stop), given["factor"], tokenizer, examples)
