#!/usr/bin/env python3
"""Continue spoken prompts by a spoken LM, tokens to tokens.

Reads tokens.jsonl (espnet_taste.bin.encode) and writes tokens.jsonl with the words and
codes that follow; espnet_taste.bin.decode makes them audible. A prompt is the whole
utterance, or its beginning up to a word near --prompt_s seconds; the codes then know
what followed in the recording (prompts of espnet_taste.bin.cut_prompts do not).
Examples may stand before it (--shots), or an instruction around it (--instruction). A
killed run goes on where it was. What cannot be continued is counted in
``excluded.jsonl``.
"""

import argparse
import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from espnet_taste.bin.command import parse_bool, run_command
from espnet_taste.bin.token_work import (
    add_max_excluded,
    add_released,
    deciding,
    naming_full_gpu,
    open_spoken_lm,
    open_tokens,
    refuse_changed,
    spoil_no_other,
    tokens_parser,
)
from espnet_taste.data.exclusions import ExclusionError

if TYPE_CHECKING:
    from espnet_taste.pipeline.interchange import TokenFile
    from espnet_taste.pipeline.spoken_lm import TasteSpokenLM
    from espnet_taste.pipeline.token_store import TokenStore
    from espnet_taste.pipeline.tokens import TasteTokens
    from espnet_taste.slm.generation import CompletionSettings

# Options that decide the result; the others may change when a killed run goes on.
SETTINGS = (
    "model",
    "tokens",
    "prompt_s",
    "with_prompt",
    "shots",
    "prompt_texts",
    "instruction",
    "extra_words",
    "max_words",
    "max_tokens",
    "top_p",
    "top_k",
    "temperature",
    "repetition_penalty",
    "compat",
    "seed",
    "llm",
    "whisper",
)


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = tokens_parser(__doc__)
    add_prompts(parser)
    add_stops(parser)
    parser.add_argument("--top_p", type=float, default=0.9, help="0: the best token")
    parser.add_argument("--top_k", type=int, default=0, help="0: no limit")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--repetition_penalty", type=float, default=1.0)
    parser.add_argument(
        "--compat",
        type=parse_bool,
        default=False,
        help="the released rules of what may be drawn, and how",
    )
    parser.add_argument("--seed", type=int, default=1986)
    parser.add_argument("--batch_size", type=int, default=8, help="prompts at once")
    parser.add_argument("--device", default="cpu")
    add_released(parser)
    add_max_excluded(parser, 0.0, "continued")
    return parser


def add_prompts(parser: argparse.ArgumentParser) -> None:
    """Add what to go on from."""
    parser.add_argument(
        "--prompt_s", type=float, help="seconds of a prompt; default: all of it"
    )
    parser.add_argument(
        "--with_prompt",
        type=parse_bool,
        default=True,
        help="false: write what follows without the prompt",
    )
    parser.add_argument(
        "--shots", type=Path, help="tokens.jsonl of examples to put before every prompt"
    )
    parser.add_argument(
        "--prompt_texts",
        type=Path,
        help="table of utterance ids and texts: go on from these (from nothing where "
        "one is empty) in the voice of the utterance",
    )
    parser.add_argument(
        "--instruction",
        help="answer speech instead, by the LLM's chat template, with this text first",
    )


def add_stops(parser: argparse.ArgumentParser) -> None:
    """Add when to stop."""
    parser.add_argument(
        "--extra_words", type=int, default=16, help="stop at a sentence end from here"
    )
    parser.add_argument("--max_words", type=int, help="and after so many in any case")
    parser.add_argument("--max_tokens", type=int, default=256, help="likewise")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(complete, get_parser(), "complete", argv)


def complete(args: argparse.Namespace) -> None:
    """Continue every prompt that is not done yet, then join what was written."""
    from espnet_taste.data.exclusions import check_share, summary_table
    from espnet_taste.pipeline.token_store import TokenStore

    tokens, keys = open_tokens(args)
    if args.batch_size < 1:
        raise ValueError(f"--batch_size must be at least 1, got {args.batch_size}")
    if args.instruction is not None and (args.with_prompt or args.shots is not None):
        raise ValueError(
            "--instruction gives answers: add --with_prompt false, and no --shots"
        )
    if args.prompt_texts is not None and (
        args.with_prompt or args.shots or args.instruction or args.prompt_s
    ):
        raise ValueError(
            "--prompt_texts go on from text: add --with_prompt false, and no "
            "--prompt_s, --shots or --instruction"
        )
    settings, prompts = settings_of(args), open_prompts(args, tokens)
    store = TokenStore(args.output_dir, deciding(args, SETTINGS))
    done = store.done
    made_of = {key: tokens.digest(key) for key in keys}
    refuse_changed(args.output_dir, args.tokens, made_of, done)
    left = [key for key in keys if key not in done]
    if left:
        complete_left(args, prompts, left, settings, store)
    summary = store.finish(keys, args.max_excluded)
    # Like tokens.jsonl, also of what earlier runs with other --key_file left here.
    known = sorted(key for key in {*keys, *done} if key in tokens)
    write_prompt_text(args.output_dir, prompts, known)
    print(f"{store.tokens}\n{summary_table(summary)}")
    check_share(summary, args.output_dir)


@dataclass(frozen=True)
class Prompts:
    """What to go on from, by utterance id."""

    tokens: "TokenFile"
    prompt_s: float | None  # None: whole utterances
    shots: "list[TasteTokens]"  # examples, which stand before every prompt
    texts: Mapping[str, str] | None  # written prompts instead of spoken ones
    instruction: str | None  # what an answer is wanted by, instead of more of the same

    def spoken(self, key: str) -> "TasteTokens":
        """Return the words up to the word end nearest to ``prompt_s``, or all.

        Raises:
            ValueError: If it is not known when the words were spoken.
        """
        tokens = self.tokens[key]
        return tokens if self.prompt_s is None else tokens.up_to(self.prompt_s)

    def written(self, key: str) -> str | None:
        """Return a text; None, to begin with nothing, where it is empty.

        Raises:
            ValueError: If there is none.
        """
        if key not in self.texts:
            raise ValueError(f"--prompt_texts: no line of '{key}'")
        return self.texts[key].strip() or None

    def text(self, key: str) -> str:
        """Return what was said before the continuation."""
        if self.texts is not None:
            return self.written(key) or ""
        return self.spoken(key).text.strip()

    def behind_shots(self, prompt: "TasteTokens") -> "TasteTokens":
        """Put a prompt behind the examples; the prompt's voice goes on."""
        from espnet_taste.pipeline.tokens import TasteTokens

        if not self.shots:
            return prompt
        joined = TasteTokens.concatenate([*self.shots, prompt])
        return replace(joined, speaker=prompt.speaker)


def open_prompts(args: argparse.Namespace, tokens: "TokenFile") -> Prompts:
    """Read examples and texts, once.

    Raises:
        FileNotFoundError: If a file is absent.
        ValueError: If one is broken, or there is no example.
    """
    from espnet_taste.data.kaldi import read_table
    from espnet_taste.pipeline.interchange import TokenFile

    shots = []
    if args.shots is not None:
        file = TokenFile(args.shots)
        shots = [file[key] for key in file]
        if not shots:
            raise ValueError(f"{args.shots}: no examples")
    texts = None if args.prompt_texts is None else read_table(args.prompt_texts)
    return Prompts(tokens, args.prompt_s, shots, texts, args.instruction)


def write_prompt_text(folder: Path, prompts: Prompts, keys: Sequence[str]) -> None:
    """Write what was said before the continuations, for who rates them."""
    from espnet_taste.data.kaldi import write_table

    said = {}
    for key in keys:
        with contextlib.suppress(ExclusionError, ValueError):  # counted as excluded
            said[key] = prompts.text(key)
    write_table(
        folder / "prompt_text", {key: text for key, text in said.items() if text}
    )


def settings_of(args: argparse.Namespace) -> "CompletionSettings":
    """Return how to complete."""
    from espnet_taste.sampling import Sampler
    from espnet_taste.slm.generation import CompletionSettings

    if args.prompt_s is not None and not args.prompt_s > 0:
        raise ValueError(f"--prompt_s must be above 0, got {args.prompt_s:g}")
    text = Sampler(
        top_p=args.top_p,
        top_k=args.top_k,
        temperature=args.temperature,
        repetition_penalty=args.repetition_penalty,
    )
    return CompletionSettings(
        extra_words=args.extra_words,
        max_words=args.max_words,
        max_tokens=args.max_tokens,
        text=text,
        compat=args.compat,
    )


def complete_left(
    args: argparse.Namespace,
    prompts: Prompts,
    keys: list[str],
    settings: "CompletionSettings",
    store: "TokenStore",
) -> None:
    """Continue prompts, and write every batch at once."""
    from espnet_taste.bin.progress import progress
    from espnet_taste.data.utterances import in_batches

    model = open_spoken_lm(args)
    store.require_same_tokenizer(model.tokenizer.models)
    part = store.part(0)
    with progress(None, "complete", total=len(keys)) as bar:
        for batch in in_batches(keys, args.batch_size):
            with naming_full_gpu(args, "batch_size", batch):
                found = spoil_no_other(
                    batch,
                    lambda keys: complete_batch(model, prompts, keys, settings, args),
                    "not_continued",
                )
            part.note(dict(zip(batch, found, strict=True)))
            bar.update(len(batch))


def complete_batch(
    model: "TasteSpokenLM",
    prompts: Prompts,
    keys: Sequence[str],
    settings: "CompletionSettings",
    args: argparse.Namespace,
) -> "list[TasteTokens | ExclusionError]":
    """Continue prompts at once.

    Raises:
        ValueError: If one of them cannot be continued.
    """
    from espnet_taste.pipeline.speech import row_seeds

    options = {"seed": row_seeds(args.seed, keys), "batch_size": len(keys)}
    spoken = [prompts.spoken(key) for key in keys]
    if prompts.texts is not None:
        written = [prompts.written(key) for key in keys]
        voices = [prompt.speaker for prompt in spoken]
        found = model.complete(written, settings, speaker=voices, **options)
    elif prompts.instruction is not None:
        contents = [[prompts.instruction, prompt] for prompt in spoken]
        chats = [[{"role": "user", "content": content}] for content in contents]
        found = model.chat(chats, settings, **options)
    else:
        behind = [prompts.behind_shots(prompt) for prompt in spoken]
        found = model.complete(behind, settings, **options)
    rows = [
        prompt + more if args.with_prompt else more
        for prompt, more in zip(spoken, found, strict=True)
    ]
    silent = ExclusionError("nothing_said", "the spoken LM ended before a word")
    return [row if len(more) else silent for row, more in zip(rows, found, strict=True)]


if __name__ == "__main__":
    sys.exit(main())
