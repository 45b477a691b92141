"""A small corpus, and a tokenizer that counts what the commands make it do."""

import soundfile
from tiny_taste import noise, tiny_tokenizer

from espnet_taste.bin import decode, encode
from espnet_taste.data.kaldi import write_table

TEXT = {"a": "one two", "b": "three", "c": "four five six", "d": "seven", "e": "8 9"}


def make_corpus(folder):
    """Lay out five utterances of about half a second."""
    folder.mkdir()
    for number, key in enumerate(TEXT):
        samples = noise(8000 + 400 * number, number)
        soundfile.write(folder / f"{key}.wav", samples, 16000)
    write_table(folder / "wav.scp", {key: f"{key}.wav" for key in TEXT})
    write_table(folder / "text", TEXT)
    return folder


class Worker:
    """Stands for the model: counts what it does and dies when told to."""

    def __init__(self, **changes):
        self.tokenizer = tiny_tokenizer(**changes)
        self.models = self.tokenizer.models
        self.synthesize = self.tokenizer.synthesize
        self.encoded, self.decoded, self.batches = [], [], []
        self.dies_after = None
        self.opened = []

    def open(self, source, *, device="cpu", **options):
        self.opened.append((source, device, options))
        return self

    def encode(self, audio, text, **options):
        if self.dies_after is not None and len(self.encoded) >= self.dies_after:
            raise KeyboardInterrupt
        self.encoded += text
        self.batches.append(len(audio))
        return self.tokenizer.encode(audio, text, **options)

    def decode(self, tokens, **options):
        if self.dies_after is not None and len(self.decoded) >= self.dies_after:
            raise KeyboardInterrupt
        self.decoded += [row.text for row in tokens]
        return self.tokenizer.decode(tokens, **options)


def run_encode(corpus, out, *options):
    return encode.main(
        ["--model", "m", "--data_dir", str(corpus), "--output_dir", str(out)]
        + ["--word_times", "false", "--batch_s", "1.3", *options]
    )


def run_decode(tokens, out, *options):
    return decode.main(
        ["--model", "m", "--tokens", str(tokens), "--output_dir", str(out)]
        + ["--batch_words", "4", *options]
    )
