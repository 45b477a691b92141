"""GGUF to Hugging Face: same logits, same tokens, refusals."""

import pytest
import torch

gguf = pytest.importorskip("gguf", reason="needs: pip install gguf")

from espnet_taste.weights.convert_gguf import (  # noqa: E402  (needs gguf)
    convert_llama_gguf,
    restore_rotary_order,
    translate_name,
)

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PLAIN = ["a", "b", "c", "1", "2", "\u0120", "ab", "\u0120ab", "12"]
# The last one can never apply, since digits are cut off before merging.
MERGES = ["a b", "\u0120 ab", "1 2"]
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def model():
    """A small Llama with grouped keys, seeded."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(CONTROL + PLAIN),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
    )
    # bfloat16 values, so that nothing is lost on the way and logits must be equal
    return LlamaForCausalLM(config).bfloat16().float().eval()


def gguf_name(name):
    for ours, theirs in (
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("model.layers", "blk"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ):
        name = name.replace(ours, theirs)
    return name.replace("self_attn.", "attn_").replace("_proj", "")


def pair_rows(weight, heads):
    """Order rows as GGUF does: the two values that rotate together side by side."""
    rows, size = weight.shape[0], weight.shape[0] // heads
    order = [
        head * size + half * (size // 2) + i
        for head in range(heads)
        for i in range(size // 2)
        for half in (0, 1)
    ]
    assert sorted(order) == list(range(rows))
    return weight[order]


def write_gguf(path, model, architecture="llama", rule="smollm"):
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rule)
    writer.add_token_list(CONTROL + PLAIN)
    writer.add_token_types([3] * len(CONTROL) + [1] * len(PLAIN))
    writer.add_token_merges(MERGES)
    for role, number in (("bos", 1), ("eos", 2), ("pad", 2), ("unk", 0)):
        getattr(writer, f"add_{role}_token_id")(number)
    writer.add_chat_template(TEMPLATE)
    for name, value in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        if "q_proj" in name:
            value = pair_rows(value, config.num_attention_heads)
        if "k_proj" in name:
            value = pair_rows(value, config.num_key_value_heads)
        writer.add_tensor(gguf_name(name), value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf")
    write_gguf(path / "model.gguf", model)
    target = path / "target"
    target.mkdir()
    convert_llama_gguf({"model.gguf": path / "model.gguf"}, target)
    return target


def test_the_converted_model_gives_the_same_logits(model, folder):
    from transformers import AutoModelForCausalLM

    converted, report = AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(report.values())
    assert converted.dtype == torch.bfloat16
    ids = torch.tensor([[1, 3, 4, 5, 9, 10, 3, 2]])
    with torch.no_grad():
        expected, found = model(ids).logits, converted.float()(ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_settings_come_from_the_file(model, folder):
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    for name in ("rms_norm_eps", "rope_parameters", "num_key_value_heads"):
        assert getattr(config, name) == getattr(model.config, name)
    assert config.tie_word_embeddings
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 2)


def test_the_tokenizer_merges_splits_digits_and_keeps_its_template(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("ab ab 12<|im_end|>").input_ids)

    assert pieces == ["ab", "\u0120ab", "\u0120", "1", "2", "<|im_end|>"]
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    message = [{"role": "user", "content": "ab"}]
    assert tokenizer.apply_chat_template(message, tokenize=False) == "ab"


def test_rotary_rows_are_put_back():
    weight = torch.arange(24.0).view(12, 2)
    torch.testing.assert_close(restore_rotary_order(pair_rows(weight, 3), 3), weight)


def test_other_files_are_refused(model, tmp_path):
    path = tmp_path / "x.gguf"
    write_gguf(path, model, architecture="gpt2")
    with pytest.raises(ValueError, match="expected architecture 'llama'"):
        convert_llama_gguf({path.name: path}, tmp_path)

    write_gguf(path, model, rule="llama-bpe")
    with pytest.raises(ValueError, match="unknown text cutting rule 'llama-bpe'"):
        convert_llama_gguf({path.name: path}, tmp_path)
    with pytest.raises(ValueError, match="unknown tensor 'blk.0.moe.weight'"):
        translate_name("blk.0.moe.weight")
