#!/usr/bin/env python3
"""Time the spoken LM's generation: late against early tokens, a batch, the cache.

Random adapters, fusion and head around an LLM: ``--llm`` by name, or ``released`` for
random weights of Llama-3.2-1B's size. Questions, each answered by a ratio of this run:

* Does a token cost more late in a text? Steps of one completion around two lengths,
  prompt excluded; median over the steps.
* What does a batch bring? Tokens a second of equal completions, alone and together.
* What does the cache bring? The same tokens by running the LLM over the whole sequence
  at every step, of which only the last position's logits are taken; tokens and codes
  must come out the same (in float32; in bfloat16 near ties may fall otherwise).
* How long does it take to set up after the first call? The vocabulary is classified
  once a tokenizer (not with ``released``, which has none).

Measured on two cores without AVX-512 or bfloat16 (float32, SmolLM2-135M): a token takes
82 ms at length 20 and 1.08 x that at 400; 8 completions at once make 4.1 x the tokens a
second of one; 100 tokens behind a prompt of 10 words come 5.0 x faster than without the
cache; set-up takes 0.6 s, the second time 27 ms. At the released size, on one core that
is busy with other things (CPU time), 100 tokens behind 10 words (20 tokens) take 35 s
with the cache and 280 s without, 7.9 x; behind 20 words, some 7 s of speech, 27 and
284 s, 10.6 x: a step with it waits for 5 GB of weights however long the prompt is.

    python benchmarks/bench_slm.py --threads 2
    python benchmarks/bench_slm.py --llm released --only cache --prompt_words 20
"""

import argparse
import os
import sys

# As in bench_packing.py: threads that wait for long must sleep.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from timing import add_machine_options, describe, make_clock  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

from espnet_taste.layers.residual_vq import ResidualVQ  # noqa: E402
from espnet_taste.sampling import Sampler  # noqa: E402
from espnet_taste.slm.continuation import SpokenContinuer  # noqa: E402
from espnet_taste.slm.generation import (  # noqa: E402
    CompletionLoop,
    CompletionSettings,
    complete,
)
from espnet_taste.slm.model import SpokenLM  # noqa: E402
from espnet_taste.slm.prompt import Prompt  # noqa: E402
from espnet_taste.slm.text import LlmText, load_llm  # noqa: E402
from espnet_taste.slm.vocabulary import Vocabulary, read_vocabulary  # noqa: E402

# Llama-3.2-1B.
RELEASED = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 131072,
    "bos_token_id": 128000,
    "tie_word_embeddings": True,
}
TASTE_DIM, LATENT_DIM, CODEBOOK_SIZE, NUM_CODEBOOKS = 384, 64, 512, 4
TESTS = ("length", "batch", "cache", "setup")


def build_slm(llm_name: str, dtype_name: str) -> SpokenLM:
    """Put random adapters, codebooks, fusion and head around an LLM."""
    torch.manual_seed(0)
    dtype = getattr(torch, dtype_name)
    if llm_name == "released":
        torch.set_default_dtype(dtype)
        llm = LlamaForCausalLM(LlamaConfig(**RELEASED)).eval()
        torch.set_default_dtype(torch.float32)
    else:
        llm = load_llm(llm_name, dtype)
    codebooks = ResidualVQ(TASTE_DIM, LATENT_DIM, CODEBOOK_SIZE, NUM_CODEBOOKS)
    codebooks.initialise(
        torch.randn(2000, TASTE_DIM),
        num_iterations=1,
        generator=torch.Generator().manual_seed(0),
    )
    return SpokenLM(llm, codebooks, TASTE_DIM, lora={"r": 16, "alpha": 32})


class Bench:
    """The spoken LM, a prompt and the clock."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.wait = make_clock(args)
        self.slm = build_slm(args.llm, args.dtype).eval().to(args.device)
        size = self.slm.output_layer.weight.size(0)
        # Every other token starts a word; no sentence ends.
        starts = torch.arange(size) % 2 == 0
        nothing = torch.zeros(size, dtype=torch.bool)
        self.vocabulary = Vocabulary(starts, *[nothing] * 5)
        num_words = args.prompt_words
        codes = np.zeros((num_words, NUM_CODEBOOKS), dtype=np.int64)
        tokens = torch.randint(100, 4000, (2 * num_words,)).tolist()
        self.prompt = Prompt(tokens, np.arange(2 * num_words) // 2, codes)

    def settings(self, num_tokens: int) -> CompletionSettings:
        """Return settings that stop at a number of tokens and nowhere else."""
        return CompletionSettings(
            extra_words=10**6, max_tokens=num_tokens, text=Sampler(top_p=0.0)
        )

    def loop(self, num_tokens: int, batch: int = 1) -> CompletionLoop:
        """Begin a completion."""
        vocabulary = self.vocabulary.to(self.args.device)
        settings = self.settings(num_tokens)
        return CompletionLoop(
            self.slm, [self.prompt] * batch, vocabulary, settings, None
        )

    @torch.no_grad()
    def step_times(self, places: list[int]) -> dict[int, float]:
        """Return the median seconds of the steps around some lengths."""
        around = 10
        times: dict[int, list[float]] = {place: [] for place in places}
        for turn in range(self.args.turns):
            loop = self.loop(max(places) + around)
            for number in range(max(places) + around):
                start = self.wait()
                loop.step()
                spent = self.wait() - start
                for place in places:
                    if abs(number - place) < around and (turn or number > around):
                        times[place].append(spent)
        return {place: float(np.median(spent)) for place, spent in times.items()}

    def tokens_a_second(self, batch: int, num_tokens: int) -> float:
        """Return tokens a second of equal completions, prompts included."""
        rates = []
        for turn in range(self.args.turns + 1):
            start = self.wait()
            made = complete(
                self.slm,
                [self.prompt] * batch,
                self.vocabulary,
                settings=self.settings(num_tokens),
            )
            spent = self.wait() - start
            if turn:
                rates.append(sum(len(one.tokens) for one in made) / spent)
        return float(np.median(rates))

    @torch.no_grad()
    def cached_and_whole(self, num_tokens: int) -> tuple[float, float]:
        """Return seconds of a completion with the cache and without."""
        spent, results = [], []
        for use_cache in (True, False):
            loop = self.loop(num_tokens)
            if not use_cache:
                forget_cache(loop)
            start = self.wait()
            for _ in range(loop.num_steps):
                loop.step()
            spent.append(self.wait() - start)
            results.append(loop.results()[0])
        same = np.array_equal(results[0].tokens, results[1].tokens)
        print(f"the same tokens with and without the cache: {same}")
        return spent[0], spent[1]

    def setup_times(self) -> tuple[float, float]:
        """Return seconds until the first step may begin, first and second time."""
        text = LlmText(self.args.llm)
        size, spent = self.slm.output_layer.weight.size(0), []
        for _ in range(2):
            start = self.wait()
            vocabulary = read_vocabulary(text.tokenizer, size)
            continuer = SpokenContinuer(
                self.slm, text.encode, text.decode, vocabulary=vocabulary
            )
            continuer.make_prompt(["one", "two"], None)
            spent.append(self.wait() - start)
        return spent[0], spent[1]


def forget_cache(loop: CompletionLoop) -> None:
    """Let a completion run the LLM over everything at every step."""
    read_on, read = loop.slm.read_on, []

    def read_all(inputs, past, mask=None):
        read.append(inputs)
        hidden, _ = read_on(torch.cat(read, dim=1), None, mask)
        return hidden, None

    loop.slm = _Reader(loop.slm, read_all)


class _Reader:
    """A spoken LM with another ``read_on``."""

    def __init__(self, slm: SpokenLM, read_on):
        self.slm, self.read_on = slm, read_on

    def __getattr__(self, name: str):
        return getattr(self.slm, name)


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llm", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--lengths", type=int, nargs=2, default=[20, 400])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument(
        "--prompt_words", type=int, default=10, help="each of two tokens"
    )
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", choices=TESTS, nargs="+", default=list(TESTS))
    add_machine_options(parser, ("bfloat16", "float32"))
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = get_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    bench = Bench(args)
    print(f"{args.llm}: {describe(args)}")
    if "length" in args.only:
        early, late = bench.step_times(args.lengths).values()
        print(
            f"a token at {args.lengths[0]}: {1e3 * early:.1f} ms, at "
            f"{args.lengths[1]}: {1e3 * late:.1f} ms, {late / early:.2f} x"
        )
    if "batch" in args.only:
        one = bench.tokens_a_second(1, args.tokens)
        many = bench.tokens_a_second(args.batch, args.tokens)
        print(
            f"batch 1: {one:.1f} tokens/s, batch {args.batch}: {many:.1f}, "
            f"{many / one:.2f} x"
        )
    if "cache" in args.only:
        cached, whole = bench.cached_and_whole(args.tokens)
        print(
            f"{args.tokens} tokens with the cache {cached:.1f} s, without "
            f"{whole:.1f} s, {whole / cached:.1f} x"
        )
    if "setup" in args.only and args.llm != "released":
        first, second = bench.setup_times()
        print(f"set-up: {1e3 * first:.0f} ms, the second time {1e3 * second:.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
