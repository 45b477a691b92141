"""Tokens for other programs: Kaldi arks, ESPnet-SpeechLM, Hugging Face datasets.

Symbols: W words, Q codebooks, D TASTE width.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import kaldiio
import numpy as np

from espnet_taste.data.ark_writer import ArkWriter
from espnet_taste.data.kaldi import atomic_write, write_table
from espnet_taste.pipeline.interchange import ARRAYS, TokenFile, to_row
from espnet_taste.pipeline.tokens import TasteTokens, require_same_tokenizer

logger = logging.getLogger(__name__)


def export_kaldi(tokens: TokenFile, keys: Sequence[str], folder: Path) -> None:
    """Write arks, ``text`` and ``models.json``; a killed run goes on.

    ``codes.scp`` (W, Q), or ``embeds.scp`` (W, D) without codes, ``times.scp`` (W, 2)
    of the utterances that have times, ``speaker.scp`` (speaker_dim,); all float32,
    because ESPnet reads integers slowly or not at all. Codes are exact in it.
    ``codes_shape`` ("W,Q") is what a training batches by.

    Raises:
        ValueError: If utterances are of several tokenizers, or only some have codes; if
            the folder holds an export of other tokens.
    """
    first = tokens[keys[0]]
    _begin(folder / "models.json", dict(first.models))
    names = ("codes" if first.codes is not None else "embeds", "times", "speaker")
    text, shapes = {}, {}
    writers = {name: ArkWriter(folder, name, keys=keys) for name in names}
    for key in keys:
        row = _like_first(tokens, key, first)
        text[key] = row.text
        shapes[key] = ",".join(map(str, getattr(row, names[0]).shape))
        for name, writer in writers.items():
            array = getattr(row, name)
            if array is None and name != "times":
                raise ValueError(f"'{key}' has no {name}, '{keys[0]}' has")
            _add(writer, key, array)
    for writer in writers.values():
        writer.close()
    untimed = len(keys) - len(writers["times"].done)
    if untimed:
        logger.warning(f"{untimed} of {len(keys)} utterances have no word times")
    write_table(folder / f"{names[0]}_shape", shapes)
    write_table(folder / "text", text)


def _begin(path: Path, models: dict[str, str]) -> None:
    """Note the models of an export, which must be those of one that was begun."""
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != models:
        raise ValueError(
            f"{path.parent} holds an export of tokens that other models made; choose "
            "another --output_dir"
        )
    _write_json(path, models)


def _add(writer: ArkWriter, key: str, array: np.ndarray | None) -> None:
    """Write an array unless an earlier run did, which must have written the same."""
    if array is not None:
        array = np.asarray(array, dtype=np.float32)
    if key not in writer.done:
        if array is not None:
            writer(key, array)
    elif array is None or not np.array_equal(writer.stored(key), array):
        raise ValueError(
            f"'{key}': an earlier export to {writer.directory} has other "
            f"{writer.name} of it; choose another --output_dir"
        )


def export_speechlm(
    tokens: TokenFile,
    keys: Sequence[str],
    folder: Path,
    codebook_size: int,
    task: str = "tts",
) -> None:
    """Write ``data.json`` and what it names, as ESPnet's SpeechLM template does.

    Codes become one int32 vector an utterance, (W * Q,), word by word, in which
    codebook q begins at q * codebook_size; the token list names them in this order.

    Raises:
        ValueError: If an utterance has no codes, a code is outside the codebook, or
            ESPnet's reader could not find an id or a path again.
    """
    folder = folder.resolve()
    if "," in str(folder):
        raise ValueError(f"{folder}: ESPnet splits at commas; choose another folder")
    entries = folder / "entries"
    first = tokens[keys[0]]
    text, places, ark = {}, {}, entries / "codes.ark"
    with atomic_write(ark, "wb") as stream:
        for key in keys:
            _check_speechlm_key(key, task)
            row = _like_first(tokens, key, first)
            vector = _flat_codes(row, key, codebook_size)
            stream.write(key.encode() + b" ")
            places[key] = f"{ark}:{stream.tell()}"
            kaldiio.matio.write_array(stream, vector)
            text[key] = row.text
    write_table(entries / "text", text)
    write_table(entries / "wav.scp", places)
    vocabulary = folder / "token_lists" / "codec_token_list"
    _write_vocabulary(vocabulary, first.codes.shape[1], codebook_size)
    files = [f"{entries}/text,g2p,text", f"{entries}/wav.scp,codec,kaldi_ark"]
    content = {"task": task, "vocabularies": [str(vocabulary)], "data_files": files}
    content |= {"num_examples": len(keys), "examples": list(keys)}
    _write_json(folder / "data.json", content)


def _check_speechlm_key(key: str, task: str) -> None:
    if key != key.lstrip(f"{task}_"):
        raise ValueError(
            f"'{key}': ESPnet's reader strips the letters of the task '{task}' and '_' "
            "from the start of ids; choose another id"
        )


def _write_vocabulary(path: Path, num_codebooks: int, codebook_size: int) -> None:
    with atomic_write(path) as stream:
        for layer in range(num_codebooks):
            for code in range(codebook_size):
                stream.write(f"<codec_layer{layer}_code{code}>\n")


def _flat_codes(row: TasteTokens, key: str, codebook_size: int) -> np.ndarray:
    """Return codes (W, Q) as one vector (W * Q,), int32."""
    if row.codes is None:
        raise ValueError(f"'{key}' has no codes; its tokenizer has no quantizer")
    if row.codes.max() >= codebook_size:
        raise ValueError(
            f"'{key}' has code {row.codes.max()}, --codebook_size is {codebook_size}"
        )
    offsets = codebook_size * np.arange(row.codes.shape[1])
    return (row.codes + offsets).ravel().astype(np.int32)


def export_hf(tokens: TokenFile, keys: Sequence[str], folder: Path) -> None:
    """Write ``data/train.parquet``: ``datasets.load_dataset`` reads the folder.

    Columns are the fields of a line, so that ``from_row`` reads the rows.

    Raises:
        ModuleNotFoundError: Without the package ``datasets``.
    """
    import datasets
    import pyarrow
    from pyarrow import parquet

    kinds = {np.float32: "float32", np.int64: "int64"}
    features = {name: datasets.Value("string") for name in ("format", "key")}
    features |= {"version": datasets.Value("int64")}
    features |= {"words": datasets.Sequence(datasets.Value("string"))}
    features |= {"span_s": datasets.Sequence(datasets.Value("float64"))}
    for name, (dtype, ndim) in ARRAYS.items():
        features[name] = datasets.Value(kinds[dtype])
        for _ in range(ndim):
            features[name] = datasets.Sequence(features[name])
    first = tokens[keys[0]]
    if not first.models:
        raise ValueError(
            f"{tokens.path}: '{keys[0]}' does not say by which models it was made, of "
            "which a dataset has a column; put their names into 'models'"
        )
    features["models"] = {name: datasets.Value("string") for name in first.models}
    schema = datasets.Features(features).arrow_schema
    with atomic_write(folder / "data" / "train.parquet", "wb") as stream:
        with parquet.ParquetWriter(stream, schema) as writer:
            for start in range(0, len(keys), 1000):
                rows = [
                    to_row(key, _like_first(tokens, key, first))
                    for key in keys[start : start + 1000]
                ]
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))


def _like_first(tokens: TokenFile, key: str, first: TasteTokens) -> TasteTokens:
    """Read an utterance, refusing what other models made; the line is named."""
    row = tokens[key]
    try:
        require_same_tokenizer(row, first.models, "export")
        if dict(row.models) != dict(first.models):
            raise ValueError(
                f"made by {dict(row.models)}, the first utterance by "
                f"{dict(first.models)}; export them apart with --key_file"
            )
    except ValueError as error:
        line = tokens.places[key].line
        raise ValueError(f"{tokens.path}:{line}: '{key}': {error}") from error
    return row


def _write_json(path: Path, content: dict) -> None:
    with atomic_write(path) as stream:
        json.dump(content, stream, indent=4, ensure_ascii=False)
        stream.write("\n")
