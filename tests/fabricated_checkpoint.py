"""The checkpoint of a fabricated pack, and its results; see ``fabricated_pack``."""

import tempfile
from collections import Counter
from copy import deepcopy
from pathlib import Path

import torch
import torch.nn.functional as F
from fabricated_pack import Writer
from tiny_released import CONFIG, WHISPER, released_state, write_checkpoint

from espnet_taste.convert.architecture import PREFIX_IDS, Backbone
from espnet_taste.convert.checkpoint import Options, convert
from espnet_taste.convert.load import load_released
from espnet_taste.decoder.layout import whole_rows
from espnet_taste.layers.word_pooling import first_of_words
from espnet_taste.slm.delay import collate, delay_words
from espnet_taste.slm.likelihood import score
from espnet_taste.types import IGNORE
from espnet_taste.words import code_sources

# The prefix that the released code prescribes needs so many tokens.
VOCABULARY = max(PREFIX_IDS) + 9
ASR_WORDS = [[0, 0, 1, 2, 2], [0, 1, 1], [0, 0]]
LLM_WORDS = [[0, 1, 1, 2], [0, 0, 0, 1], [0]]
UNIT_COUNTS = [6, 2, 9]


def write_checkpoint_case(folder: Path, seed: int) -> None:
    """A small checkpoint in the released layout, and what it computes."""
    config = deepcopy(CONFIG)
    config["spoken_lm_config"] |= {"delay": 2, "loss_weights": "0.3-0.7"}
    config["speech_decoder_config"]["encoder__attention_heads"] = 8
    backbone = Backbone(
        WHISPER | {"vocab_size": VOCABULARY},
        taste_heads=4,
        taste_feedforward=5,
        taste_layers=2,
    )
    state = released_state(config, backbone)
    official = write_checkpoint(folder / "checkpoint", state, 3, config)
    (official / "generation_config.json").write_text("{}\n", encoding="utf-8")
    case = Writer("checkpoint_expected", {}, seed)
    dtypes = Counter(str(t.dtype).removeprefix("torch.") for t in state.values())
    case.info |= {
        "backbone_whisper_config": dict(backbone.whisper),
        "audio_token_encoder": {"heads": 4, "units": 5, "blocks": 2},
        "tensor_dtypes": dict(dtypes),
        "n_tensors": len(state),
        "unused_keys": "audio_tower.vq.rvq.mlps.*",
    }
    write_inputs(case, config)
    with tempfile.TemporaryDirectory() as name:
        target, options = Path(name) / "ours", Options(backbone)
        convert(official, target, to="espnet_taste", options=options)
        model = load_released(target, llm_dtype=torch.float32)
        with torch.no_grad():
            write_results(case, model)
    case.save(folder)


def padded(rows: list[list[int]]) -> torch.Tensor:
    """(B, T), zeros behind every row."""
    longest = max(map(len, rows))
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows])


def write_inputs(case: Writer, config: dict) -> None:
    """Note text, speech and units."""
    limits = {"asr": 30, "llm": config["text_config"]["vocab_size"]}
    for kind, words in (("asr", ASR_WORDS), ("llm", LLM_WORDS)):
        case.input(f"{kind}_word_ids", padded(words))
        case.input(f"{kind}_token_lengths", torch.tensor([*map(len, words)]))
        rows = [case.randint(5, limits[kind], len(row)).tolist() for row in words]
        case.input(f"{kind}_token_ids", padded(rows))
    units = config["speech_decoder_config"]
    frames, bins = 2 * WHISPER["max_source_positions"], WHISPER["num_mel_bins"]
    case.input("audio_features", case.randn(len(ASR_WORDS), frames, bins))
    case.input("speaker_embeds", case.randn(len(ASR_WORDS), units["spk_embed_dim"]))
    rows = [
        case.randint(0, units["speech_token_size"], n).tolist() for n in UNIT_COUNTS
    ]
    case.input("speech_token_ids", padded(rows))
    case.input("speech_token_lengths", torch.tensor(UNIT_COUNTS))


def write_results(case, model):
    """Note codes, then what spoken LM and unit LM make of them."""
    text = [
        case.tensors[f"in.asr_{name}"]
        for name in ("token_ids", "token_lengths", "word_ids")
    ]
    states = model.tokenizer.encoder.encode_log_mel(case.tensors["in.audio_features"])
    tokenized = model.tokenizer.encode(states, *text)
    case.output("asr_indices", tokenized.codes)
    case.output("audio_unit_embeds", tokenized.embeds)
    shape = (*case.tensors["in.llm_token_ids"].shape, tokenized.codes.size(-1))
    moved = torch.full(shape, IGNORE)
    for row, (asr, llm) in enumerate(zip(ASR_WORDS, LLM_WORDS)):
        for token, source in enumerate(code_sources(asr, llm)):
            if source != IGNORE:
                moved[row, token] = tokenized.codes[row, source]
    case.output("llm_indices", moved)
    predicted = write_spoken_lm(case, model.spoken_lm, tokenized, text)
    write_unit_lm(case, model.unit_lm, tokenized, predicted, text)


def write_spoken_lm(case, slm, tokenized, text):
    """Note what the spoken LM says; return TASTE of its codes on ASR tokens."""
    word_codes = first_of_words(tokenized.codes, text[2], text[1])
    embeds, scores = torch.zeros_like(tokenized.embeds), []
    for row, words in enumerate(LLM_WORDS):
        tokens = case.tensors["in.llm_token_ids"][row, : len(words)].numpy()
        layout = delay_words(tokens, words, slm.delay, slm.delay_level)
        codes = word_codes[row]
        batch = collate([layout], [codes[codes[:, 0] != IGNORE].numpy()])
        hidden = slm.read(slm.embed(batch))
        latent, labels = slm.run_head(hidden), batch.label_words[0]
        case.output(f"utt{row}.text_logits", slm.output_layer(hidden)[0], 1e-4)
        chosen = slm.head.choose(latent, slm.codebooks)[0]
        case.output(f"utt{row}.predicted_codes", chosen)
        case.output(f"utt{row}.latent_mu", latent.mu[0], 1e-4)
        case.output(f"utt{row}.latent_z", latent.value[0], 1e-4)
        rows = batch.word_codes[0][labels.clamp(min=0)]
        rows = rows.masked_fill((labels == IGNORE)[:, None], IGNORE)
        case.output(f"utt{row}.taste_labels", rows)
        spoken = slm.head.choose(slm.predict_words(hidden, batch), slm.codebooks)[0]
        embeds[row, : len(ASR_WORDS[row])] = slm.codebooks.decode(
            spoken[ASR_WORDS[row]]
        )
        scores.append(losses(slm, batch))
    text_ce, taste = map(torch.cat, zip(*scores))
    case.output("score_text_ce", text_ce)
    case.output("score_taste_loss", taste)
    case.output("score", slm.weights.text * text_ce + slm.weights.taste * taste)
    return embeds


def losses(slm, batch):
    """Return text and TASTE loss of one utterance, each (1,)."""
    sums, share = score(slm, batch), slm.weights.latent_kl
    terms = {name: value / sums.num_words for name, value in sums.taste_terms.items()}
    taste = (1 - share) * terms["latent_mse"] + share * terms["latent_kl"]
    return sums.text_ce / sums.num_tokens, taste


def write_unit_lm(case, unit_lm, tokenized, predicted, text):
    """Note logits with TASTE, without, and with the codes that were predicted."""
    layout = whole_rows(
        text[1],
        case.tensors["in.speech_token_ids"],
        case.tensors["in.speech_token_lengths"],
        num_tokens=text[0].size(1),
        num_units=unit_lm.num_units,
    )
    speaker = case.tensors["in.speaker_embeds"]
    conditions = {"": tokenized.embeds, "_text_only": None}
    conditions["_from_predicted_codes"] = predicted
    for name, embeds in conditions.items():
        logits = unit_lm(text[0], embeds, speaker, layout)
        case.output(f"unit_logits{name}", logits, 1e-4)
        if not name:
            labels = layout.labels.flatten()
            loss = F.cross_entropy(logits.flatten(0, 1), labels, ignore_index=IGNORE)
            case.output("unit_ce", loss, 1e-4)
    case.output("unit_labels", layout.labels)
