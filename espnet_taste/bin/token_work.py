"""What the commands over TASTE tokens share: options, resuming, and failing alone."""

import argparse
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from espnet_taste.data.exclusions import ExclusionError, Journal

if TYPE_CHECKING:
    from espnet_taste.pipeline.interchange import TokenFile
    from espnet_taste.pipeline.spoken_lm import TasteSpokenLM

# Options that not every model has.
CHOICES = ("speaker_model", "whisper", "language", "task", "window")
Item = TypeVar("Item")
Result = TypeVar("Result")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add --model."""
    parser.add_argument(
        "--model", required=True, help="experiment folder, packed zip or model tag"
    )


def add_whisper(parser: argparse.ArgumentParser) -> None:
    """Add --whisper, which every use of a released checkpoint may need."""
    parser.add_argument(
        "--whisper",
        help="released checkpoints: name or folder of the Whisper that the tokenizer "
        "was cut from",
    )


def add_encoding(parser: argparse.ArgumentParser) -> None:
    """Add how a model encodes where it leaves a choice."""
    add_whisper(parser)
    parser.add_argument(
        "--speaker_model",
        help="weight name, folder or ONNX file of the speaker encoder; default: the "
        "one that lies with the model or that its training recorded",
    )
    group = parser.add_argument_group("released checkpoints")
    group.add_argument("--language", help="of the transcripts; default: en")
    group.add_argument("--task", help="of Whisper's prefix; default: transcribe")
    group.add_argument(
        "--window",
        choices=["full", "trimmed"],
        help="trimmed: do not encode the silence behind a recording, which is faster "
        "and changes some codes; default: full",
    )


def choices_of(args: argparse.Namespace) -> dict[str, str]:
    """Return what ``add_whisper`` and ``add_encoding`` were given, for the tokenizer.

    Left out stays left out: older folders were begun without these options.
    """
    given = {name: getattr(args, name, None) for name in CHOICES}
    return {name: value for name, value in given.items() if value is not None}


def add_released(parser: argparse.ArgumentParser) -> None:
    """Add what a released checkpoint does not say about itself."""
    parser.add_argument(
        "--llm",
        help="of a released checkpoint: LLM whose text tokenizer it needs, name or "
        "folder",
    )
    add_whisper(parser)


def open_spoken_lm(args: argparse.Namespace) -> "TasteSpokenLM":
    """Open the spoken LM that --model names, with its tokenizer.

    Raises:
        FileNotFoundError: If a part of the model is absent.
        ValueError: If a part does not fit.
    """
    from espnet_taste.pipeline.released import find_released
    from espnet_taste.pipeline.spoken_lm import TasteSpokenLM

    options = choices_of(args)
    if args.llm is not None:
        options["llm"] = args.llm
    if options and find_released(args.model) is None:
        raise ValueError(
            f"--{next(iter(options))} is for released checkpoints; {args.model} names "
            "its own"
        )
    return TasteSpokenLM.from_pretrained(args.model, device=args.device, **options)


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """Add --dtype."""
    parser.add_argument(
        "--dtype", choices=["float32", "float16", "bfloat16"], default="float32"
    )


def add_max_excluded(
    parser: argparse.ArgumentParser, default: float, done: str = "used"
) -> None:
    """Add --max_excluded.

    Args:
        parser: Gets the option.
        default: Its default share.
        done: What cannot be done with the utterances in question.
    """
    parser.add_argument(
        "--max_excluded",
        type=float,
        default=default,
        help=f"end with an error if a larger share cannot be {done}",
    )


def tokens_parser(description: str | None) -> argparse.ArgumentParser:
    """Build the parser of a command that goes over a file of tokens with a model."""
    parser = argparse.ArgumentParser(description=description)
    add_model(parser)
    parser.add_argument("--tokens", type=Path, required=True, help="tokens.jsonl")
    parser.add_argument("--key_file", type=Path, help="subset; default: all")
    parser.add_argument("--output_dir", type=Path, required=True)
    return parser


def open_tokens(args: argparse.Namespace) -> "tuple[TokenFile, list[str]]":
    """Open what ``tokens_parser`` names, with the utterances to work on.

    Raises:
        FileNotFoundError: If a file is absent.
        ValueError: If there are no utterances, or a line is broken.
    """
    from espnet_taste.data.data_dir import select_keys
    from espnet_taste.pipeline.interchange import TokenFile

    tokens = TokenFile(args.tokens)
    keys = select_keys(tokens, args.key_file)
    if not keys:
        raise ValueError(f"{args.tokens}: no utterances")
    return tokens, keys


def first_readable(tokens: "TokenFile", keys: Sequence[str]) -> str | None:
    """Return the first utterance whose line can be read; the others are counted."""
    for key in keys:
        try:
            tokens[key]
        except ValueError:
            continue
        return key
    return None


def refuse_changed(
    folder: Path, source: Path, made_of: Mapping[str, str], done: Container[str]
) -> None:
    """Refuse results that were made of other tokens of the same id; note today's.

    Args:
        folder: Folder of the results.
        source: File of the tokens, for the message.
        made_of: Id of a result to the digest of the tokens that it is made of.
        done: Ids of the results that there are.

    Raises:
        ValueError: It names one of them. Results of older versions tell nothing.
    """
    journal = Journal(folder / ".made_of.jsonl", {})
    noted = {key: row["tokens_sha256"] for key, row in journal.rows.items()}
    changed = [
        key
        for key, digest in made_of.items()
        if key in done and noted.get(key, digest) != digest
    ]
    if changed:
        raise ValueError(
            f"{source} has other tokens than when {folder} was made of them, for "
            f"{len(changed)} results, e.g. '{changed[0]}'; remove it or choose another "
            "--output_dir"
        )
    journal.add_all(
        {
            key: {"tokens_sha256": digest}
            for key, digest in made_of.items()
            if noted.get(key) != digest
        }
    )


def deciding(
    args: argparse.Namespace, names: Iterable[str], models: Iterable[str] = ("model",)
) -> dict[str, object]:
    """Return the options that decide a result, to compare with those of a killed run.

    Args:
        args: All options.
        names: The deciding ones; a file is known by what it holds, too. Files of tokens
            are not: they grow, and rows of another tokenizer are refused.
        models: Those that name a model, which is known by its weights, too.
    """
    from espnet_taste.weights.digests import identify_model, noted_sha256

    settings = {name: getattr(args, name) for name in names}
    for name, value in settings.items():
        if name != "tokens" and isinstance(value, Path) and value.is_file():
            settings[name] = f"{value} {noted_sha256(value)[:16]}"
    for name in models:
        if getattr(args, name) is not None:
            settings[name] = identify_model(getattr(args, name))
    return settings


@contextmanager
def naming_full_gpu(args: argparse.Namespace, option: str, keys: Sequence[str]):
    """Say which option to lower when a GPU cannot hold a batch.

    Args:
        args: All options.
        option: Name of the one that bounds a batch.
        keys: Ids of the batch.

    Raises:
        OSError: Instead of torch's error, which is none of an item's.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OSError(
            f"the GPU cannot hold {len(keys)} utterances at once, from '{keys[0]}' on; "
            f"lower --{option}, now {getattr(args, option):g}"
        ) from error


def spoil_no_other(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], Sequence[Result]],
    reason: str,
) -> list[Result | ExclusionError]:
    """Work on items at once; where that fails, on each alone.

    Args:
        items: At least one.
        work: Returns one result an item, or raises ValueError.
        reason: Under which an item is counted that fails alone.

    Returns:
        Per item its result, or why there is none.
    """
    try:
        return list(work(items))
    except ValueError as error:
        if len(items) == 1:
            return [ExclusionError(reason, str(error))]
    return [spoil_no_other([item], work, reason)[0] for item in items]
