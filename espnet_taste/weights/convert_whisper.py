"""OpenAI's English Whisper checkpoint and its ranks -> Hugging Face folder.

The folder holds what ``transformers`` expects of a hub repository: configuration,
weights, tokenizer, feature extractor and generation settings. The weights are
stored as float32, as on the hub; OpenAI stores them as float16, so nothing is lost.

Source: tokens and suppression of openai/whisper 20250625 (``tokenizer.py``,
``decoding.py``); layout of transformers 5.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from espnet_taste.weights.convert_torch import load_pickle

if TYPE_CHECKING:
    from transformers import WhisperConfig, WhisperTokenizer

ENGLISH_VOCAB_SIZE = 51864
NUM_LANGUAGES = 99
NUM_TIMESTAMPS = 1501  # 0.00 to 30.00 s in steps of 0.02 s

# Applied in this order: a later rule may see what an earlier one has written.
_RENAMINGS = (
    ("blocks.", "layers."),
    ("mlp.0.", "fc1."),
    ("mlp.2.", "fc2."),
    ("mlp_ln.", "final_layer_norm."),
    ("cross_attn_ln.", "encoder_attn_layer_norm."),
    ("attn_ln.", "self_attn_layer_norm."),
    ("cross_attn.", "encoder_attn."),
    (".attn.", ".self_attn."),
    ("attn.query.", "attn.q_proj."),
    ("attn.key.", "attn.k_proj."),
    ("attn.value.", "attn.v_proj."),
    ("attn.out.", "attn.out_proj."),
    ("decoder.ln.", "decoder.layer_norm."),
    ("encoder.ln_post.", "encoder.layer_norm."),
    ("token_embedding.", "embed_tokens."),
    ("positional_embedding", "embed_positions.weight"),
)

# Attention heads that follow the audio, by (layers, width) of the decoder: what
# OpenAI publishes with each checkpoint; word times need them.
_ALIGNMENT_HEADS = {
    (4, 384): [[1, 0], [2, 0], [2, 5], [3, 0], [3, 1], [3, 2], [3, 3], [3, 4]],
}

# Symbols no transcript should contain (brackets, notes, speaker tags), as ids of
# the English vocabulary; the special ids follow in the code.
# fmt: off
_NON_SPEECH_IDS = [
    1, 2, 7, 8, 9, 10, 14, 25, 26, 27, 28, 29, 31, 58, 59, 60, 61, 62, 63, 90, 91,
    92, 93, 357, 366, 438, 532, 685, 705, 796, 930, 1058, 1220, 1267, 1279, 1303,
    1343, 1377, 1391, 1635, 1782, 1875, 2162, 2361, 2488, 3467, 4008, 4211, 4600,
    4808, 5299, 5855, 6329, 7203, 9609, 9959, 10563, 10786, 11420, 11709, 11907,
    13163, 13697, 13700, 14808, 15306, 16410, 16791, 17992, 19203, 19510, 20724,
    22305, 22935, 27007, 30109, 30420, 33409, 34949, 40283, 40493, 40549, 47282,
    49146,
]
# fmt: on
_BLANK_ID = 220  # " "


def convert_english_whisper(files: Mapping[str, Path], target: Path) -> None:
    """Convert an English-only OpenAI checkpoint.

    Args:
        files: One ``<size>.en.pt`` and ``gpt2.tiktoken``.
        target: Existing folder; gets a Hugging Face repository's files.

    Raises:
        ValueError: If the checkpoint is not an English-only Whisper.
    """
    from transformers import GenerationConfig, WhisperFeatureExtractor

    (checkpoint,) = [path for name, path in files.items() if name.endswith(".pt")]
    content = load_pickle(checkpoint)
    dims = content["dims"]
    if dims["n_vocab"] != ENGLISH_VOCAB_SIZE:
        raise ValueError(
            f"{checkpoint}: expected an English-only Whisper with "
            f"{ENGLISH_VOCAB_SIZE} tokens, found {dims['n_vocab']}"
        )
    ranks = read_ranks(files["gpt2.tiktoken"])
    tokenizer = build_tokenizer(ranks)
    if len(tokenizer) != dims["n_vocab"]:
        raise ValueError(
            f"{files['gpt2.tiktoken']}: {dims['n_vocab']} tokens expected with the "
            f"special ones, {len(tokenizer)} found"
        )
    config = build_config(dims, tokenizer)
    state = rename_state(content["model_state_dict"])
    save_file(state, target / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(target)
    tokenizer.save_pretrained(target)
    WhisperFeatureExtractor(feature_size=dims["n_mels"]).save_pretrained(target)
    settings = generation_settings(dims, tokenizer)
    GenerationConfig(**settings).save_pretrained(target)


def rename_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors the names of ``WhisperForConditionalGeneration``, as float32.

    The output projection is the token embedding and is not stored twice.
    """
    renamed = {}
    for name, value in state.items():
        for old, new in _RENAMINGS:
            name = name.replace(old, new)
        renamed[f"model.{name}"] = value.to(torch.float32).contiguous()
    return renamed


def read_ranks(path: Path) -> dict[bytes, int]:
    """Read a ``.tiktoken`` file: one base64 token and its rank per line.

    Raises:
        ValueError: If the ranks are not 0, 1, 2, ... without gaps.
    """
    ranks = {}
    for line in path.read_bytes().splitlines():
        if line.strip():
            token, rank = line.split()
            ranks[base64.b64decode(token)] = int(rank)
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise ValueError(f"{path}: ranks are not 0..{len(ranks) - 1} without gaps")
    return ranks


def byte_characters() -> dict[int, str]:
    """Map every byte to the printable character that byte-level BPE writes for it.

    Printable Latin-1 characters stand for themselves; the other 68 bytes take the
    characters from U+0100 on, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {
        **{byte: chr(byte) for byte in printable},
        **{byte: chr(0x100 + order) for order, byte in enumerate(others)},
    }


def split_of(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """Find the last merge that makes a token: BPE with the lower ranks only.

    Raises:
        ValueError: If lower ranks do not make two parts of it.
    """
    limit = ranks[token]
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = [left + right for left, right in zip(parts, parts[1:])]
        best = min(range(len(pairs)), key=lambda i: ranks.get(pairs[i], limit))
        if ranks.get(pairs[best], limit) >= limit:
            break
        parts[best : best + 2] = [pairs[best]]
    if len(parts) != 2:
        raise ValueError(f"token {token!r} of rank {limit} is no merge of two others")
    return parts[0], parts[1]


def special_tokens() -> list[str]:
    """List the special tokens of the English-only models in order of their ids."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    languages = [f"<|{code}|>" for code in list(LANGUAGES)[:NUM_LANGUAGES]]
    return [
        *("<|endoftext|>", "<|startoftranscript|>", *languages),
        *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>"),
        # The name on the hub; OpenAI calls the same id <|nospeech|>.
        *("<|nocaptions|>", "<|notimestamps|>"),
    ]


def build_tokenizer(ranks: Mapping[bytes, int]) -> "WhisperTokenizer":
    """Build the Hugging Face tokenizer that cuts text as the ranks do.

    Args:
        ranks: Rank of every token's bytes.

    Returns:
        Tokenizer with the special tokens, then the timestamps, after the ranks.
    """
    from tokenizers import AddedToken
    from transformers import WhisperTokenizer

    shown = byte_characters()

    def spell(token: bytes) -> str:
        return "".join(shown[byte] for byte in token)

    by_rank = sorted(ranks, key=ranks.__getitem__)
    merges = [split_of(token, ranks) for token in by_rank if len(token) > 1]
    specials = special_tokens()
    vocab = {spell(token): rank for token, rank in ranks.items()}
    vocab[specials[0]] = len(vocab)
    tokenizer = WhisperTokenizer(
        vocab=vocab,
        merges=[(spell(left), spell(right)) for left, right in merges],
        pad_token=specials[0],
        extra_special_tokens=specials[1:],
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    stamps = [f"<|{step * 0.02:.2f}|>" for step in range(NUM_TIMESTAMPS)]
    tokenizer.add_tokens([AddedToken(stamp, normalized=False) for stamp in stamps])
    return tokenizer


def _special_ids(tokenizer: "WhisperTokenizer") -> dict[str, int]:
    return {
        name: tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        for name in (
            *("endoftext", "startoftranscript", "translate", "transcribe"),
            *("startoflm", "startofprev", "nocaptions", "notimestamps"),
        )
    }


def _suppressed(ids: Mapping[str, int]) -> list[int]:
    names = (
        *("startoftranscript", "translate", "transcribe"),
        *("startoflm", "startofprev", "nocaptions"),
    )
    return [*_NON_SPEECH_IDS, *sorted(ids[name] for name in names)]


def build_config(
    dims: Mapping[str, int], tokenizer: "WhisperTokenizer"
) -> "WhisperConfig":
    """Build the model configuration from OpenAI's dimensions."""
    from transformers import WhisperConfig

    ids = _special_ids(tokenizer)
    return WhisperConfig(
        architectures=["WhisperForConditionalGeneration"],
        vocab_size=dims["n_vocab"],
        num_mel_bins=dims["n_mels"],
        d_model=dims["n_audio_state"],
        encoder_layers=dims["n_audio_layer"],
        encoder_attention_heads=dims["n_audio_head"],
        encoder_ffn_dim=4 * dims["n_audio_state"],
        decoder_layers=dims["n_text_layer"],
        decoder_attention_heads=dims["n_text_head"],
        decoder_ffn_dim=4 * dims["n_text_state"],
        max_source_positions=dims["n_audio_ctx"],
        max_target_positions=dims["n_text_ctx"],
        decoder_start_token_id=ids["startoftranscript"],
        bos_token_id=ids["startoftranscript"],
        eos_token_id=ids["endoftext"],
        pad_token_id=ids["endoftext"],
        dtype="float32",
    )


def generation_settings(
    dims: Mapping[str, int], tokenizer: "WhisperTokenizer"
) -> dict[str, Any]:
    """Return the generation settings of an English-only model."""
    ids = _special_ids(tokenizer)
    settings: dict[str, Any] = {
        "bos_token_id": ids["startoftranscript"],
        "decoder_start_token_id": ids["startoftranscript"],
        "eos_token_id": ids["endoftext"],
        "pad_token_id": ids["endoftext"],
        "no_timestamps_token_id": ids["notimestamps"],
        "prev_sot_token_id": ids["startofprev"],
        "suppress_tokens": _suppressed(ids),
        "begin_suppress_tokens": [_BLANK_ID, ids["endoftext"]],
        "is_multilingual": False,
        "return_timestamps": False,
        "max_initial_timestamp_index": 50,
        "max_length": dims["n_text_ctx"],
    }
    heads = _ALIGNMENT_HEADS.get((dims["n_text_layer"], dims["n_text_state"]))
    if heads is not None:
        settings["alignment_heads"] = heads
    return settings
