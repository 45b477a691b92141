"""English Whisper: tensor names, tokenizer from ranks, settings, refusals."""

import base64
import random

import pytest
import torch

from espnet_taste.weights import convert_whisper
from espnet_taste.weights.convert_whisper import (
    build_config,
    build_tokenizer,
    byte_characters,
    convert_english_whisper,
    read_ranks,
    rename_state,
    split_of,
)

DIMS = {
    "n_mels": 8,
    "n_vocab": 1866,
    "n_audio_ctx": 10,
    "n_audio_state": 8,
    "n_audio_head": 2,
    "n_audio_layer": 2,
    "n_text_ctx": 9,
    "n_text_state": 8,
    "n_text_head": 2,
    "n_text_layer": 1,
}


def openai_state(dims):
    """Name and shape tensors as OpenAI does, with random values."""
    width, layers = dims["n_audio_state"], {"encoder": 2, "decoder": 1}
    shapes = {
        "decoder.token_embedding.weight": (dims["n_vocab"], width),
        "decoder.positional_embedding": (dims["n_text_ctx"], width),
        "encoder.positional_embedding": (dims["n_audio_ctx"], width),
        "encoder.conv1.weight": (width, dims["n_mels"], 3),
        "encoder.conv2.weight": (width, width, 3),
        "encoder.conv1.bias": (width,),
        "encoder.conv2.bias": (width,),
    }
    for norm in ("encoder.ln_post", "decoder.ln"):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for side, count in layers.items():
        attentions = ("attn", "cross_attn") if side == "decoder" else ("attn",)
        for start in (f"{side}.blocks.{layer}" for layer in range(count)):
            for name in (*attentions, "mlp"):
                shapes[f"{start}.{name}_ln.weight"] = (width,)
                shapes[f"{start}.{name}_ln.bias"] = (width,)
            for attention in attentions:
                for part in ("query", "key", "value", "out"):
                    shapes[f"{start}.{attention}.{part}.weight"] = (width, width)
                    if part != "key":
                        shapes[f"{start}.{attention}.{part}.bias"] = (width,)
            for layer, rows, columns in ((0, 4 * width, width), (2, width, 4 * width)):
                shapes[f"{start}.mlp.{layer}.weight"] = (rows, columns)
                shapes[f"{start}.mlp.{layer}.bias"] = (rows,)
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.rand(shape, generator=generator).half()
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def ranks():
    """256 bytes and 60 merges, each the most frequent pair at its turn."""
    text = b"the tea in the ten tins, at one; not a note on it. an otter ate it too"
    ranks = {bytes([byte]): byte for byte in range(256)}
    parts = [text[i : i + 1] for i in range(len(text))]
    while len(ranks) < 290:
        pairs = [left + right for left, right in zip(parts, parts[1:])]
        best = max(pairs, key=lambda pair: (pairs.count(pair), pair))
        ranks[best] = len(ranks)
        merged, i = [], 0
        while i < len(parts):
            if i + 1 < len(parts) and parts[i] + parts[i + 1] == best:
                merged.append(best)
                i += 2
            else:
                merged.append(parts[i])
                i += 1
        parts = merged
    return ranks


def write_ranks(path, ranks):
    lines = (base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items())
    path.write_bytes(b"".join(lines))
    return path


def test_renamed_tensors_load_strictly(ranks):
    from transformers import WhisperForConditionalGeneration

    source = openai_state(DIMS)
    state = rename_state(source)
    config = build_config(DIMS, build_tokenizer(ranks))
    model = WhisperForConditionalGeneration(config)
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]

    model.load_state_dict(state, strict=True)

    first = model.model.decoder.layers[0]
    for ours, theirs in (
        (first.self_attn.q_proj, "attn.query"),
        (first.encoder_attn.v_proj, "cross_attn.value"),
        (first.fc1, "mlp.0"),
        (first.final_layer_norm, "mlp_ln"),
        (first.encoder_attn_layer_norm, "cross_attn_ln"),
    ):
        expected = source[f"decoder.blocks.0.{theirs}.weight"].float()
        torch.testing.assert_close(ours.weight.detach(), expected, rtol=0, atol=0)


def test_ranks_are_read_and_gaps_are_refused(tmp_path, ranks):
    assert read_ranks(write_ranks(tmp_path / "r", ranks)) == ranks

    gap = {**ranks, b"the tea": len(ranks) + 1}
    with pytest.raises(ValueError, match="without gaps"):
        read_ranks(write_ranks(tmp_path / "r", gap))


def test_every_byte_has_a_character_of_its_own():
    shown = byte_characters()
    assert len(set(shown.values())) == len(shown) == 256
    assert (shown[0x20], shown[0x41], shown[0x0A]) == ("\u0120", "A", "\u010a")
    assert all(character.isprintable() for character in shown.values())


def test_a_token_is_split_where_it_was_merged():
    names = [b"a", b"b", b"c", b"bc", b"ab", b"abc"]
    ranks = {token: rank for rank, token in enumerate(names)}
    # "bc" has the lower rank, so "abc" was made of "a" and "bc", not "ab" and "c".
    assert split_of(b"abc", ranks) == (b"a", b"bc")
    with pytest.raises(ValueError, match="no merge of two others"):
        split_of(b"abc", {b"a": 0, b"b": 1, b"c": 2, b"abc": 3})


def test_the_tokenizer_cuts_as_the_reference_does(ranks):
    tiktoken = pytest.importorskip("tiktoken", reason="needs: pip install tiktoken")
    pattern = (
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    )
    reference = tiktoken.Encoding(
        "tiny", pat_str=pattern, mergeable_ranks=ranks, special_tokens={}
    )
    tokenizer = build_tokenizer(ranks)
    texts = ["the tea in the tins", "  an otter's 12 notes\n\tit", "日本 é 🙂", ""]
    source = random.Random(0)
    texts += ["".join(source.choices(" etaoin'1\n", k=30)) for _ in range(50)]
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert ids == reference.encode(text), repr(text)
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_special_tokens_follow_the_ranks_and_timestamps_follow_them(ranks):
    tokenizer = build_tokenizer(ranks)
    start = len(ranks)

    def id_of(name):
        return tokenizer.convert_tokens_to_ids(f"<|{name}|>")

    assert id_of("endoftext") == start
    assert id_of("startoftranscript") == start + 1
    assert id_of("en") == start + 2
    assert id_of("translate") == start + 2 + 99
    assert id_of("notimestamps") == start + 106
    assert id_of("0.00") == start + 107
    assert id_of("30.00") == len(tokenizer) - 1 == start + 107 + 1500


def test_other_checkpoints_are_refused(tmp_path, ranks):
    files = {"gpt2.tiktoken": write_ranks(tmp_path / "r", ranks)}
    files["x.en.pt"] = tmp_path / "x.en.pt"
    for n_vocab, complaint in ((51865, "English-only"), (51864, "51864 tokens expect")):
        content = {"dims": {**DIMS, "n_vocab": n_vocab}, "model_state_dict": {}}
        torch.save(content, files["x.en.pt"])
        with pytest.raises(ValueError, match=complaint):
            convert_english_whisper(files, tmp_path)


def test_a_converted_folder_loads_and_generates(tmp_path, ranks, monkeypatch):
    """All files together, at toy size."""
    from transformers import WhisperForConditionalGeneration, WhisperTokenizer

    size = len(ranks) + 107 + 1501
    monkeypatch.setattr(convert_whisper, "ENGLISH_VOCAB_SIZE", size)
    suppressed = [1, 2, 3]
    monkeypatch.setattr(convert_whisper, "_NON_SPEECH_IDS", suppressed)
    dims = {**DIMS, "n_vocab": size}
    files = {"gpt2.tiktoken": write_ranks(tmp_path / "r", ranks)}
    files["x.en.pt"] = tmp_path / "x.en.pt"
    content = {"dims": dims, "model_state_dict": openai_state(dims)}
    torch.save(content, files["x.en.pt"])
    target = tmp_path / "target"
    target.mkdir()

    convert_english_whisper(files, target)

    model, report = WhisperForConditionalGeneration.from_pretrained(
        target, output_loading_info=True
    )
    assert not any(report.values())
    assert model.dtype == torch.float32
    tokenizer = WhisperTokenizer.from_pretrained(target)
    start, end = len(ranks) + 1, len(ranks)
    assert model.generation_config.decoder_start_token_id == start
    assert model.generation_config.eos_token_id == end
    assert model.generation_config.suppress_tokens[:3] == suppressed
    assert len(model.generation_config.suppress_tokens) == 3 + 6
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == end
    prefix = tokenizer("the").input_ids[:2]
    assert prefix == [start, tokenizer.convert_tokens_to_ids("<|notimestamps|>")]
    ids = model.generate(torch.rand(1, 8, 20), max_new_tokens=3)
    assert not set(ids[0].tolist()) & {*suppressed, start}
