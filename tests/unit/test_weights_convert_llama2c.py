"""llama2.c to Hugging Face: same logits, tokens by score, refusals."""

import struct

import pytest
import torch

from espnet_taste.weights.convert_llama2c import convert_llama2c, read_pieces

# The higher the score, the earlier the merge; in no order, so that ids do not help.
LEARNED = [("nn", -3.0), ("inn", -4.0), (" in", -2.0), ("in", -1.0), ("\u00e9", -9.0)]
SINGLE = [(character, -10.0 - i) for i, character in enumerate(" inx")]
SIZES = {"width": 32, "hidden": 48, "layers": 2, "heads": 4, "positions": 16}


def make_pieces():
    head = [("<unk>", 0.0), ("\n<s>\n", 0.0), ("\n</s>\n", 0.0)]
    return [*head, *((chr(byte), 0.0) for byte in range(256)), *LEARNED, *SINGLE]


def pair_rows(weight, heads):
    size = weight.shape[0] // heads
    order = [
        head * size + half * (size // 2) + i
        for head in range(heads)
        for i in range(size // 2)
        for half in (0, 1)
    ]
    return weight[order]


@pytest.fixture(scope="module")
def model():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(make_pieces()),
        hidden_size=SIZES["width"],
        intermediate_size=SIZES["hidden"],
        num_hidden_layers=SIZES["layers"],
        num_attention_heads=SIZES["heads"],
        num_key_value_heads=SIZES["heads"],
        max_position_embeddings=SIZES["positions"],
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def write_file(path, model):
    layers = model.model.layers
    heads = SIZES["heads"]
    blocks = [
        [model.model.embed_tokens.weight],
        [layer.input_layernorm.weight for layer in layers],
        [pair_rows(layer.self_attn.q_proj.weight, heads) for layer in layers],
        [pair_rows(layer.self_attn.k_proj.weight, heads) for layer in layers],
        [layer.self_attn.v_proj.weight for layer in layers],
        [layer.self_attn.o_proj.weight for layer in layers],
        [layer.post_attention_layernorm.weight for layer in layers],
        [layer.mlp.gate_proj.weight for layer in layers],
        [layer.mlp.down_proj.weight for layer in layers],
        [layer.mlp.up_proj.weight for layer in layers],
        [model.model.norm.weight],
        [torch.zeros(2, SIZES["positions"], SIZES["width"] // heads // 2)],
    ]
    sizes = ("width", "hidden", "layers", "heads", "heads")
    numbers = [SIZES[name] for name in sizes]
    data = struct.pack("<7i", *numbers, len(make_pieces()), SIZES["positions"])
    for block in blocks:
        data += b"".join(value.detach().numpy().tobytes() for value in block)
    data += struct.pack("<i", 10)
    for piece, score in make_pieces():
        content = piece.encode()
        data += struct.pack("<fi", score, len(content)) + content
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("llama2c")
    target = path / "target"
    target.mkdir()
    convert_llama2c({"x.data": write_file(path / "x.data", model)}, target)
    return target


def test_the_converted_model_gives_the_same_logits(model, folder):
    from transformers import AutoModelForCausalLM

    converted, report = AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(report.values())
    ids = torch.tensor([[1, 260, 261, 30, 7]])
    with torch.no_grad():
        torch.testing.assert_close(converted(ids).logits, model(ids).logits)


def test_best_scored_pieces_are_merged_first(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)

    def cut(text):
        return tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)

    # "in" (-1) goes before "nn" (-3), although both could start with the first n.
    assert cut("inn") == ["<s>", "\u2581in", "n"]
    assert cut("xinn") == ["<s>", "\u2581", "x", "inn"]
    assert cut("\u00e9z") == ["<s>", "\u2581", "\u00e9", "<0x7A>"]
    assert tokenizer.decode(tokenizer("in xz").input_ids, skip_special_tokens=True) == (
        "in xz"
    )


def test_a_file_that_ends_early_is_refused(model, tmp_path):
    path = write_file(tmp_path / "x.data", model)
    whole = path.read_bytes()
    count = len(make_pieces())
    for missing in (1, 4, 9):  # in the piece, its length, its score
        path.write_bytes(whole[:-missing])
        with pytest.raises(ValueError, match=f"after {count - 1} of {count} pieces"):
            convert_llama2c({"x.data": path}, tmp_path)
    with pytest.raises(ValueError, match="ends after 0 of 5 pieces"):
        list(read_pieces(b"1234", 0, 5))


def test_an_output_projection_of_its_own_is_refused(tmp_path):
    (tmp_path / "x.data").write_bytes(struct.pack("<7i", 8, 8, 1, 2, 2, -5, 4))
    with pytest.raises(ValueError, match="only tied output projections"):
        convert_llama2c({"x.data": tmp_path / "x.data"}, tmp_path)
