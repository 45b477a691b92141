#!/usr/bin/env python3
"""Score spoken continuations: what a judge hears, its perplexity, its repetitions.

Reads the audio of continuations without their prompts (espnet_taste.bin.complete
--with_prompt false, then decode), or their texts instead of audio. With --prompts the
audio begins with the prompts (espnet_taste.bin.continue_speech), whose words are cut
off what was heard; opinion scores are then of both. Writes
``continuations.json`` (GenPPL, auto-BLEU-2, words, ratings, each with bootstrap
intervals) and ``items.jsonl``. What the judge heard and the chat model answered is
kept, so a killed run goes on where it was. What others have published stands beside it;
raters and estimators are not the same.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_taste.bin.command import run_command
from espnet_taste.bin.judging import add_judge, open_judge

DEFAULT_MOS = "distillmos"
PUBLISHED = ("GenPPL", "GPT-4o (1-5)", "UTMOS", "human MOS")


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--wav_scp", type=Path, help="audio of the continuations")
    source.add_argument("--text", type=Path, help="their texts, where no judge listens")
    parser.add_argument(
        "--prompts",
        type=Path,
        help="report.jsonl with key and prompt, where all begin with their prompts",
    )
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument(
        "--llm", default="HuggingFaceTB/SmolLM2-135M-Instruct", help="judges the text"
    )
    add_judge(parser)
    parser.add_argument(
        "--mos",
        nargs="*",
        metavar="NAME",
        help="who estimates opinion scores of the audio: distillmos, dnsmos; nothing "
        "behind --mos for nobody; default: distillmos if it is installed",
    )
    parser.add_argument(
        "--rater_url",
        help="OpenAI-compatible endpoint of a chat model that rates how plausible the "
        "continuations are; its key in OPENAI_API_KEY",
    )
    parser.add_argument("--rater_model", help="which model of the endpoint")
    parser.add_argument(
        "--prompt_text", type=Path, help="what was said before; complete writes it"
    )
    parser.add_argument(
        "--excluded",
        type=Path,
        nargs="*",
        default=[],
        help="excluded.jsonl of the commands before: prompts without a continuation, "
        "which are counted beside the scores",
    )
    parser.add_argument("--batch_size", type=int, default=16, help="texts at once")
    parser.add_argument("--device", default="cpu")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(score, get_parser(), "score_continuations", argv)


def score(args: argparse.Namespace) -> None:
    """Listen, score, and write the results."""
    from espnet_taste.data.kaldi import atomic_write
    from espnet_taste.eval.continuations import item_rows, summarise
    from espnet_taste.eval.normalise import NORMALISER
    from espnet_taste.eval.published import beside

    if args.batch_size < 1:
        raise ValueError(f"--batch_size must be at least 1, got {args.batch_size}")
    chat_options = (args.rater_url, args.rater_model, args.prompt_text)
    if any(chat_options) and not all(chat_options):
        raise ValueError("--rater_url, --rater_model and --prompt_text go together")
    num_absent = count_absent(args.excluded)  # before hours of listening
    args.mos = choose_mos(args)
    texts, judge = read_texts(args)
    ratings = rate(args, texts)
    items = score_texts(args, texts)
    facts: dict[str, Any] = {
        "judge": judge,
        "prompts_cut_off": args.prompts is not None,
        "llm": args.llm,
        "normaliser": NORMALISER,
        "mos": args.mos,
        "rater": args.rater_model,
        **summarise(items, ratings),
        "num_absent": num_absent,
        "published": beside("continuations", PUBLISHED),
    }
    args.output_dir.mkdir(parents=True, exist_ok=True)
    with atomic_write(args.output_dir / "items.jsonl") as stream:
        for row in item_rows(items, ratings):
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    with atomic_write(args.output_dir / "continuations.json") as stream:
        stream.write(json.dumps(facts, indent=2) + "\n")
    print("\n".join(table_of(facts)))


def count_absent(files: Sequence[Path]) -> int:
    """Return how many prompts have no continuation, by what left them out.

    Raises:
        FileNotFoundError: If a file is absent.
        ValueError: If a line is none of such a file.
    """
    from espnet_taste.eval.json_lines import read_rows

    return len({row["key"] for file in files for _, row in read_rows(file, ("key",))})


def choose_mos(args: argparse.Namespace) -> list[str]:
    """Return who estimates opinion scores: those named, else whoever is installed."""
    from espnet_taste.packages import INSTALL, is_installed

    if args.wav_scp is None:
        return []
    if args.mos is not None:
        return args.mos
    if is_installed(DEFAULT_MOS):
        return [DEFAULT_MOS]
    print(f"no opinion scores: {DEFAULT_MOS} is not installed ({INSTALL})")
    return []


def read_texts(args: argparse.Namespace) -> tuple[dict[str, str], str]:
    """Return the texts and where they come from.

    Raises:
        ValueError: If there are none.
    """
    from espnet_taste.data.kaldi import read_table

    if args.text is not None:
        texts = read_table(args.text)
        source = "none: given texts"
    else:
        texts, source = hear(args)
    if not texts:
        raise ValueError(f"{args.text or args.wav_scp}: no continuations")
    return cut_prompts(args, texts), source


def cut_prompts(args: argparse.Namespace, texts: Mapping[str, str]) -> dict[str, str]:
    """Return what was heard behind the prompts.

    Raises:
        ValueError: If a prompt is missing.
    """
    from espnet_taste.eval.continuations import behind_prompt
    from espnet_taste.eval.json_lines import read_rows

    if args.prompts is None:
        return dict(texts)
    rows = read_rows(args.prompts, ("key", "prompt"))
    prompts = {row["key"]: row["prompt"] for _, row in rows}
    missing = sorted(texts.keys() - prompts.keys())
    if missing:
        raise ValueError(f"{args.prompts}: no prompt of '{missing[0]}'")
    return {key: behind_prompt(text, prompts[key]) for key, text in texts.items()}


def hear(args: argparse.Namespace) -> tuple[dict[str, str], str]:
    """Let the judge write down all recordings."""
    from espnet_taste.bin.progress import progress
    from espnet_taste.data.kaldi import read_table
    from espnet_taste.eval.asr_judge import judge_all
    from espnet_taste.eval.audio_scores import AudioSet

    judge = open_judge(args)
    audio = AudioSet(read_table(args.wav_scp), args.wav_scp.parent)
    signals = ((key, audio.read(key)) for key in progress(list(audio.wavs), "listen"))
    args.output_dir.mkdir(parents=True, exist_ok=True)
    heard = judge_all(judge, signals, args.output_dir / "judge.jsonl")
    return {key: transcript.text for key, transcript in heard.items()}, judge.name


def rate(
    args: argparse.Namespace, texts: Mapping[str, str]
) -> dict[str, dict[str, float | None]] | None:
    """Return what is asked for of opinion scores and plausibility; None for nothing."""
    ratings: dict[str, dict[str, float | None]] = {key: {} for key in texts}
    if args.mos:
        for key, scores in estimate(args).items():
            ratings[key].update(scores)
    if args.rater_url is not None:
        for key, score in ask(args, texts).items():
            ratings[key]["plausibility"] = score
    return ratings if any(ratings.values()) else None


def estimate(args: argparse.Namespace) -> dict[str, dict[str, float | None]]:
    """Estimate the opinion scores of all recordings."""
    from espnet_taste.bin.progress import progress
    from espnet_taste.data.kaldi import read_table
    from espnet_taste.eval.audio_scores import AudioSet
    from espnet_taste.eval.mos import load_estimators, rate_all

    estimators = load_estimators(args.mos)
    signals = AudioSet(read_table(args.wav_scp), args.wav_scp.parent)
    return {
        key: rate_all(estimators, signals.read(key))
        for key in progress(list(signals.wavs), "rate")
    }


def ask(args: argparse.Namespace, texts: Mapping[str, str]) -> dict[str, int | None]:
    """Let a chat model rate all continuations."""
    from espnet_taste.bin.progress import progress
    from espnet_taste.data.kaldi import read_table
    from espnet_taste.eval.rater import ChatRater, rate_texts

    rater = ChatRater(args.rater_url, args.rater_model)
    prompts = read_table(args.prompt_text)
    cache = args.output_dir / "rater.jsonl"
    keys = progress(sorted(texts), "ask")
    ratings = rate_texts(rater, prompts, texts, cache, keys)
    return {key: rating.score for key, rating in ratings.items()}


def score_texts(args: argparse.Namespace, texts: Mapping[str, str]) -> dict:
    """Return the counts of every text."""
    from espnet_taste.data.utterances import in_batches
    from espnet_taste.eval.continuations import Heard, repeated_ngrams
    from espnet_taste.eval.normalise import normalise
    from espnet_taste.slm.perplexity import TextLM

    lm = TextLM(args.llm, args.device)
    items = {}
    for batch in in_batches(sorted(texts), args.batch_size):
        for key, nats in zip(batch, lm.score([texts[key] for key in batch])):
            words = normalise(texts[key]).split()
            repeated, total = repeated_ngrams(words)
            items[key] = Heard(
                " ".join(words),
                nats.nats,
                nats.num_tokens,
                num_words=len(words),
                num_ngrams=total,
                num_repeated=repeated,
            )
    return items


def table_of(facts: Mapping[str, Any]) -> list[str]:
    """Return lines for a person."""
    from espnet_taste.eval import published

    lines = []
    for name, digits in (("gen_ppl", 1), ("auto_bleu", 3), ("words", 1)):
        found = facts[name]
        if found["value"] is None:
            lines.append(f"{name:10s} none")
            continue
        line = f"{name:10s} {found['value']:.{digits}f}"
        if found["low"] is not None:
            line += f" [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"
        lines.append(line)
    for name, found in facts.get("ratings", {}).items():
        if found["value"] is not None:
            line = f"{name:10s} {found['value']:.2f}"
            if found["low"] is not None:
                line += f" [{found['low']:.2f}, {found['high']:.2f}]"
            lines.append(line)
    if facts.get("num_unrated"):
        lines.append(f"{facts['num_unrated']} have a rating too few")
    lines.append(f"of {facts['num_items']}, {facts['num_empty']} without a word")
    if facts["num_absent"]:
        lines.append(f"{facts['num_absent']} more have no continuation (--excluded)")
    return lines + published.lines(facts["published"])


if __name__ == "__main__":
    sys.exit(main())
