#!/usr/bin/env python3
"""Time what encoding runs through: Whisper's encoder, aggregator and quantizer.

With random weights of the released size or of the recipe's default (Whisper tiny.en):

* the encoder alone against the limit of this machine's matrix products: the best rate
  of a square product in the same type, measured before and after. Work that is no
  product (softmax, norms, GELU) counts as nothing, so 100 % is out of reach;
* speech seconds a second of encoder + aggregator + quantizer, alone and in a batch,
  with the whole 30-s window ("full", as released) and without its silent tail
  ("trimmed").

With --model and --wav_scp, the share of equal codes of the two windows on real speech:
a trained model (an experiment folder), the transcripts of --text. Of the model of
docs/results, trained on trimmed windows, 60 % of the codes are equal on its held-out
tenth (192 recordings, 2,792 words; by codebook 86, 64, 50 and 40 %) and 68 % on unseen
speakers (50, 872); 35 and 46 % of the words have all of them equal. So the window is a
part of a model, and codes are compared within one.

Measured on one core of a busy machine with AMX, default size: the encoder reaches 62 %
of 132 GFLOP/s in float32 and 21 % of 757 in bfloat16. In bfloat16, 8 recordings of 3 s
are encoded at 10 s of speech a second with the whole window, at 113 trimmed; of 10 s at
48 and 168; of 29 s at 128 and 130.

The released code, run beside ours on the same weights of the released size (float32,
one core of a busy machine with AVX2, CPU time, one recording, transcript given), takes
1.44 times as long as "full" for any recording (four turns, 1.38 to 1.45): its encoder
writes out attention weights; what follows the encoder is level (1.02 to 1.09). Beside
"trimmed" it takes 12.7 times as long for 3 s, 4.6 for 10 s and 1.5 for 29 s. It cannot
do batches; on such a core they bring little: 14.6 for 3 s trimmed, by 8. Codes were the
same.

    python benchmarks/bench_encode.py --size default --threads 2 --dtype bfloat16
    python benchmarks/bench_encode.py --model egs2/taste/exp/TAG --wav_scp W --text T
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

# As in bench_packing.py: threads that wait for long must sleep.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from timing import (  # noqa: E402
    add_machine_options,
    autocast,
    describe,
    make_clock,
)
from torch import Tensor  # noqa: E402
from transformers import WhisperConfig  # noqa: E402
from transformers.models.whisper import modeling_whisper  # noqa: E402

from espnet_taste.convert.architecture import DISTIL_LARGE_V3  # noqa: E402
from espnet_taste.tokenizer.aggregator import (  # noqa: E402
    WhisperAggregator,
    build_decoder,
)
from espnet_taste.tokenizer.encoder import WhisperEncoder  # noqa: E402
from espnet_taste.tokenizer.quantizer import RvqQuantizer  # noqa: E402
from espnet_taste.types import SAMPLE_RATE_HZ  # noqa: E402

TINY_EN = {
    "d_model": 384,
    "encoder_layers": 4,
    "encoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "decoder_layers": 4,
    "decoder_attention_heads": 6,
    "decoder_ffn_dim": 1536,
    "num_mel_bins": 80,
    "vocab_size": 51864,
    "max_source_positions": 1500,
    "max_target_positions": 448,
    "pad_token_id": 50256,
}
SIZES = {"default": (TINY_EN, 1, 64), "released": (DISTIL_LARGE_V3, 6, 256)}
TOKENS_A_SECOND = 3.5


def encoder_products(config: WhisperConfig, frames: int) -> float:
    """Return the floating-point operations of the encoder's products for one row."""
    width, hidden = config.d_model, config.encoder_ffn_dim
    dense = 4 * width * width + 2 * width * hidden
    attention = 2 * frames * width
    layers = config.encoder_layers * frames * (dense + attention)
    convolutions = frames * 3 * width * (2 * config.num_mel_bins + width)
    return 2.0 * (layers + convolutions)


class Bench:
    """The modules and the clock."""

    def __init__(self, args: argparse.Namespace):
        torch.manual_seed(0)
        sizes, value_layer, codebook_dim = SIZES[args.size]
        self.args = args
        self.now = make_clock(args)
        self.config = WhisperConfig(**sizes, attn_implementation="sdpa")
        encoder = modeling_whisper.WhisperEncoder(self.config)
        decoder = build_decoder(self.config)
        quantizer = RvqQuantizer(self.config.d_model, codebook_dim)
        for codebook in quantizer.rvq.codebooks:
            torch.nn.init.normal_(codebook.embed)
            codebook.initialised.fill_(1.0)
        quantizer.load_state_dict(quantizer.state_dict())  # reads the line above
        self.encoders = {
            window: WhisperEncoder.from_module(encoder, value_layer, window=window)
            for window in ("full", "trimmed")
        }
        self.aggregator = WhisperAggregator.from_module(decoder, [1, 2, 3, 4])
        self.quantizer = quantizer
        for module in (*self.encoders.values(), self.aggregator, quantizer):
            module.to(args.device).eval()

    def seconds(self, work: Callable[[], object]) -> float:
        """Return the median time of a piece of work, the first run left out."""
        times = []
        for _ in range(self.args.turns + 1):
            start = self.now()
            work()
            times.append(self.now() - start)
        return float(np.median(times[1:]))

    @torch.inference_mode()
    def product_limit(self) -> float:
        """Return the best rate of a square product, operations a second."""
        rates = []
        for size in (1024, 2048, 4096):
            dtype = getattr(torch, self.args.dtype)
            a, b = (torch.randn(size, size, dtype=dtype) for _ in range(2))
            a, b = a.to(self.args.device), b.to(self.args.device)
            rates.append(2 * size**3 / self.seconds(lambda a=a, b=b: a @ b))
        return max(rates)

    @torch.inference_mode()
    def encoder_rate(self, batch: int) -> float:
        """Return the rate of the encoder's products on whole windows."""
        encoder = self.encoders["full"]
        shape = (batch, 2 * encoder.max_frames, self.config.num_mel_bins)
        mel = torch.randn(shape, device=self.args.device)
        with autocast(self.args):
            spent = self.seconds(lambda: encoder.encode_log_mel(mel))
        return batch * encoder_products(self.config, encoder.max_frames) / spent

    @torch.inference_mode()
    def throughput(self, window: str, batch: int, audio_s: float) -> float:
        """Return seconds of speech encoded in a second."""
        device = self.args.device
        samples = round(audio_s * SAMPLE_RATE_HZ)
        num_tokens = max(1, round(audio_s * TOKENS_A_SECOND))
        speech = 0.1 * torch.randn(batch, samples, device=device)
        lengths = torch.full((batch,), samples, device=device)
        tokens = torch.randint(1000, (batch, num_tokens), device=device)
        counts = torch.full((batch,), num_tokens, device=device)
        words = torch.arange(num_tokens, device=device).expand(batch, -1)
        mask = torch.ones_like(tokens, dtype=torch.bool)

        def work() -> Tensor:
            states = self.encoders[window](speech, lengths)
            features = self.aggregator(tokens, counts, words, states)
            return self.quantizer(features, mask).codes

        with autocast(self.args):
            return batch * audio_s / self.seconds(work)


def compare_codes(args: argparse.Namespace) -> None:
    """Print the share of codes that do not change with the silent tail left out."""
    from espnet_taste.data.kaldi import read_table
    from espnet_taste.pipeline.taste import TasteTokenizer

    tokenizer = TasteTokenizer.from_pretrained(args.model, device=args.device)
    encoder = tokenizer.model.encoder
    texts = read_table(args.text)
    paths = {k: v for k, v in read_table(args.wav_scp).items() if k in texts}
    keys = sorted(paths)[: args.utterances]
    codes = {}
    for window in ("full", "trimmed"):
        encoder.window = window
        rows = tokenizer.encode(
            [paths[key] for key in keys],
            [texts[key] for key in keys],
            word_times=False,
        )
        codes[window] = np.concatenate([row.codes for row in rows])
    equal = codes["full"] == codes["trimmed"]
    shares = ", ".join(f"{share:.1%}" for share in equal.mean(0))
    print(
        f"{len(keys)} utterances, {len(equal)} words: {equal.mean():.1%} of the codes "
        f"are equal with and without the silent tail (codebooks in order: {shares}), "
        f"{equal.all(1).mean():.1%} of the words have all of them equal"
    )


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=sorted(SIZES), default="default")
    parser.add_argument("--audio_s", type=float, nargs="+", default=[3.0, 10.0, 29.0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--turns", type=int, default=3)
    add_machine_options(parser, ("float32", "bfloat16", "float16"))
    parser.add_argument("--model", help="experiment folder: compare codes instead")
    parser.add_argument("--wav_scp", type=Path)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--utterances", type=int, default=100)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = get_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.model is not None:
        compare_codes(args)
        return 0
    bench = Bench(args)
    print(f"{args.size} size, {describe(args)}, median of {args.turns} turns")
    limit = bench.product_limit()
    rates = {batch: bench.encoder_rate(batch) for batch in args.batches}
    limit = max(limit, bench.product_limit())
    for batch, rate in rates.items():
        print(
            f"encoder, {batch} x 30 s: {rate / 1e9:.0f} GFLOP/s in products, "
            f"{rate / limit:.0%} of the limit of {limit / 1e9:.0f}"
        )
    for audio_s in args.audio_s:
        for window in ("full", "trimmed"):
            for batch in args.batches:
                rate = bench.throughput(window, batch, audio_s)
                row = f"{batch} x {audio_s:4.1f} s, {window:7s}"
                print(f"{row}: {rate:7.1f} s of speech a second")
    return 0


if __name__ == "__main__":
    sys.exit(main())
