"""The completion of a fabricated pack; see ``fabricated_pack``."""

from itertools import count
from pathlib import Path

import torch
from fabricated_pack import Writer
from fabricated_slm import released_name as slm_name
from fabricated_tower import add_tower
from fabricated_unit_lm import released_name as unit_lm_name
from golden_case import GoldenCase
from released_slm import HEADS, SPOKEN_LM, build_spoken_lm
from released_tower import build_tokenizer
from released_unit_lm import build_unit_lm
from transformers import LlamaConfig, LlamaForCausalLM

from espnet_taste.convert.architecture import PREFIX_IDS, VALUE_LAYER
from espnet_taste.decoder.contracts import UnitSampling
from espnet_taste.decoder.generation import generate_units, unit_bounds
from espnet_taste.sampling import Sampler
from espnet_taste.slm.generation import CompletionSettings, complete
from espnet_taste.slm.model import SpokenLM
from espnet_taste.slm.prompt import Prompt
from espnet_taste.slm.state_machine import Action, TasteAction
from espnet_taste.slm.vocabulary import build_vocabulary
from espnet_taste.types import IGNORE
from espnet_taste.words import code_sources

SOS_ID, WIDTH, TASTE_INPUT_DIM = 36, 12, 9
CONFIG = {
    # As the released code has it, the case names neither prefix nor value layer.
    "whisper": {
        "d_model": WIDTH,
        "encoder_layers": VALUE_LAYER + 1,
        "encoder_attention_heads": 3,
        "encoder_ffn_dim": 10,
        "decoder_layers": 1,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 8,
        "num_mel_bins": 5,
        "max_source_positions": 7,
        "max_target_positions": 15,
        "vocab_size": max(PREFIX_IDS) + 4,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 3,
    },
    "quantizer": {"codebook_dim": 4, "codebook_size": 6, "num_quantizers": 3},
    "llama": {
        "vocab_size": 40,
        "hidden_size": 15,
        "intermediate_size": 10,
        "num_hidden_layers": 1,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 6,
        "max_position_embeddings": 200,
        "initializer_range": 0.5,
        "tie_word_embeddings": False,
    },
    "lora": {"r": 2, "alpha": 6},
    "sos_id": SOS_ID,
    "speech_decoder": {
        "audio_encoder_input_size": WIDTH,
        "encoder_input_size": 6,
        "encoder__attention_heads": 2,
        "encoder__linear_units": 7,
        "encoder__num_blocks": 1,
        "fuse_encoded_audio_text_kwargs": {"normalize": False},
        "llm__attention_heads": 3,
        "llm__linear_units": 8,
        "llm__num_blocks": 2,
        "llm_input_size": 18,
        "speech_token_size": 13,
        "spk_embed_dim": 5,
        "text_token_size": 33,
    },
    "audio_token_encoder": {"heads": 9, "units": 11, "blocks": 1},
    "taste_width": WIDTH,
    "delay_level": "word",
    "out_llm_module": "continue_latent_linear_last",
}
RUNS = {
    "audio": {"mode": "audio", "delay": 2},
    "text": {"mode": "text", "delay": 2},
    "zero": {"mode": "zero", "delay": 2},
    "later": {"mode": "audio", "delay": 3},
    "continuation": {"mode": "audio", "delay": 2, "out_generated_part_only": True},
}
EXTRA_WORDS = dict(zip(RUNS, (2, 3, 2, 1, 2)))
# The table of a made-up tokenizer: words, what goes on in them, two ends.
TEXTS = {
    number: f" {'bdfgk'[number % 5]}{'aeiou'[number // 5]}" for number in range(25)
}
TEXTS |= {25: "la", 26: "ti", 27: "ne", 28: ".", 29: " so.", 30: " ?"}
PROMPT_WORDS = {"asr": [0, 0, 1, 2], "llm": [0, 1, 1, 2]}


def write_completion(folder: Path, seed: int) -> None:
    """Completions of every kind of prompt; the first weights under which all end."""
    for attempt in count(seed):
        case = Writer("completion", CONFIG, attempt)
        describe(case)
        add_weights(case, attempt)
        write_inputs(case)
        case.save(folder)
        reader = GoldenCase(folder, "completion")
        write_codes(case, reader)
        completions = run_all(case, reader)
        if not any(found.was_cut for found in completions.values()):
            break
    for name, found in completions.items():
        write_run(case, name, found)
    write_units(case, reader, completions)
    case.save(folder)


def describe(case: Writer) -> None:
    """Note tables and settings."""
    table = {str(number): text for number, text in TEXTS.items()}
    size = CONFIG["llama"]["vocab_size"]
    vocabulary = vocabulary_of()
    sets = {
        "word_start_ids": vocabulary.word_start[:SOS_ID],
        "sentence_end_ids": vocabulary.sentence_end,
        "allowed_ids": ~vocabulary.banned,
    }
    case.info |= {
        "llm_tokenizer": {"id_to_text": table, "others": "#", "size": size},
        "derived_sets": {n: m.nonzero().flatten().tolist() for n, m in sets.items()},
        "asr_tokenizer": {"words_seen": {}},
        "settings": {
            "extra_words": EXTRA_WORDS,
            "text_top_p": 0.0,
            "taste_top_p": 0.0,
            "text_temperature": 1.0,
            "repetition_penalty": 1.2,
        },
        "runs": {},
    }


def texts_of():
    """Return the text of every id."""
    return [TEXTS.get(number, "#") for number in range(CONFIG["llama"]["vocab_size"])]


def vocabulary_of():
    """Classify the tokens by the released rules."""
    texts = texts_of()
    special = range(SOS_ID, len(texts))
    return build_vocabulary(
        texts, special_ids=special, banned_ids=special[:2], ban="released"
    )


def add_weights(case: Writer, seed: int) -> None:
    """Note random weights of tower, spoken LM and unit LM."""
    torch.manual_seed(seed)
    rvq = add_tower(case, seed)
    slm = SpokenLM(
        LlamaForCausalLM(LlamaConfig(**CONFIG["llama"])),
        rvq,
        WIDTH,
        head=HEADS[CONFIG["out_llm_module"]],
        lora={**CONFIG["lora"], "dropout": 0},
        sos_id=SOS_ID,
    )
    for name, value in slm.state_dict().items():
        if not name.startswith("codebooks."):
            value = value if "norm" in name else 0.5 * case.randn(*value.shape)
            case.tensors[f"state.{slm_name(name)}"] = value.clone()
    unit_lm = build_unit_lm(CONFIG, TASTE_INPUT_DIM)
    with torch.no_grad():  # or generation would go on to its bound
        unit_lm.output.bias[-1] += 2.0
    for name, value in unit_lm.state_dict().items():
        if not name.startswith("mask_embedding."):
            case.tensors[f"state.{unit_lm_name(name)}"] = value.clone()


def write_inputs(case: Writer) -> None:
    """Note two prompts and a speaker."""
    case.input(
        "speaker_embeds", case.randn(1, CONFIG["speech_decoder"]["spk_embed_dim"])
    )
    for kind, words in PROMPT_WORDS.items():
        low, high = (10, 30) if kind == "asr" else (0, 28)
        case.input(f"audio.{kind}_word_ids", torch.tensor([words]))
        case.input(f"audio.{kind}_token_lengths", torch.tensor([len(words)]))
        tokens = case.randint(low, high, 1, len(words))
        case.input(f"audio.{kind}_token_ids", tokens)
    case.input("text.llm_token_ids", torch.tensor([[3, 26, 14]]))
    case.input("text.llm_word_ids", torch.tensor([[0, 0, 1]]))
    case.input("text.llm_token_lengths", torch.tensor([3]))
    sizes = CONFIG["whisper"]
    frames = 2 * sizes["max_source_positions"]
    case.input("audio.audio_features", case.randn(1, frames, sizes["num_mel_bins"]))


@torch.no_grad()
def write_codes(case, reader):
    """Note the codes of the spoken prompt, on the tokens of both tokenizers."""
    tokenizer = build_tokenizer(reader, VALUE_LAYER, PREFIX_IDS)
    states = tokenizer.encoder.encode_log_mel(case.tensors["in.audio.audio_features"])
    kinds = ("token_ids", "token_lengths", "word_ids")
    text = [case.tensors[f"in.audio.asr_{kind}"] for kind in kinds]
    codes = tokenizer.encode(states, *text).codes
    moved = torch.full((1, len(PROMPT_WORDS["llm"]), codes.size(-1)), IGNORE)
    for token, source in enumerate(code_sources(*PROMPT_WORDS.values())):
        if source != IGNORE:
            moved[0, token] = codes[0, source]
    case.output("audio.asr_indices", codes)
    case.output("audio.llm_indices", moved)


def run_all(case, reader):
    """Complete every prompt, each by itself."""
    completions = {}
    for name, run in RUNS.items():
        slm = build_spoken_lm(
            reader,
            CONFIG["quantizer"],
            delay=run["delay"],
            out_module=CONFIG["out_llm_module"],
            state=reader.state(SPOKEN_LM),
        )
        settings = case.info["settings"]
        text = Sampler(
            top_p=settings["text_top_p"],
            temperature=settings["text_temperature"],
            repetition_penalty=settings["repetition_penalty"],
            rule="released",
        )
        (completions[name],) = complete(
            slm,
            [prompt_of(case, run["mode"])],
            vocabulary_of(),
            settings=CompletionSettings(extra_words=EXTRA_WORDS[name], text=text),
        )
    return completions


def prompt_of(case, mode):
    """Return a prompt."""
    if mode == "zero":
        return Prompt()
    tokens, words = (
        case.tensors[f"in.{mode}.llm_{kind}"][0].tolist()
        for kind in ("token_ids", "word_ids")
    )
    if mode == "text":
        return Prompt(tokens, words)
    codes = case.tensors["out.audio.llm_indices"][0].numpy()
    return Prompt(tokens, words, codes[codes[:, 0] != IGNORE])


def write_run(case, name, found):
    """Note text, codes and every step of a completion."""
    trace, texts = found.trace, texts_of()
    steps = [
        [int(token), Action(action).name.lower(), TasteAction(taste).name.lower()]
        for token, action, taste in zip(
            trace.tokens, trace.actions, trace.taste_actions
        )
    ]
    text = "".join(texts[token] for token in found.tokens).strip()
    run = {"out_generated_part_only": False, **RUNS[name]}
    case.info["runs"][name] = {**run, "steps": steps, "generated_text": text}
    sampled = trace.taste_actions == TasteAction.SAMPLE
    for output, value in {
        "generated_text_ids": found.tokens,
        "generated_word_ids": found.words,
        "step_text_id": trace.tokens,
        "step_taste_ids": trace.codes,
        "taste_rows": trace.codes[sampled],
    }.items():
        case.output(f"{name}.{output}", torch.from_numpy(value))


def write_units(case, reader, completions):
    """Note the units of every completion, its words spelt by another tokenizer."""
    unit_lm = build_unit_lm(CONFIG, TASTE_INPUT_DIM).eval()
    state = unit_lm.state_dict()
    for name in state:
        key = f"state.{unit_lm_name(name)}" if "mask_emb" not in name else None
        state[name] = case.tensors.get(key, state[name])
    unit_lm.load_state_dict(state)
    codebooks = build_tokenizer(reader, VALUE_LAYER, PREFIX_IDS).quantizer
    for name, found in completions.items():
        run, texts = case.info["runs"][name], texts_of()
        tokens, words = [], []
        for word in range(len(found.codes)):
            text = "".join(texts[t] for t in found.tokens[found.words == word])
            ids = [10 + ord(letter) % 20 for letter in text.strip()[:2]]
            case.info["asr_tokenizer"]["words_seen"][f" {text.strip()}"] = ids
            tokens += ids
            words += [word] * len(ids)
        codes = torch.from_numpy(found.codes[words])
        if run["mode"] == "audio" and not run["out_generated_part_only"]:
            tokens = case.tensors["in.audio.asr_token_ids"][0].tolist() + tokens
            codes = torch.cat([case.tensors["out.audio.asr_indices"][0], codes])
        lengths, greedy = torch.tensor([len(tokens)]), UnitSampling(top_k=1)
        made = generate_units(
            unit_lm,
            torch.tensor([tokens]),
            lengths,
            codebooks.decode(codes)[None].detach(),
            case.tensors["in.speaker_embeds"],
            sampling=greedy,
        )
        case.output(f"{name}.s3_units", made.units[0])
        bounds = unit_bounds(lengths, UnitSampling())
        run["s3_min_len"], run["s3_max_len"] = (int(bound[0]) for bound in bounds)
