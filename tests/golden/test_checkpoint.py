"""A released checkpoint, converted, gives the released results; and comes back whole.

Every size, name and setting is read from the fixtures.
"""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from released_checkpoint import backbone_of, read_folder, released_config
from safetensors.torch import save_file

from espnet_taste.convert import names, voice_generator
from espnet_taste.convert.architecture import Backbone, read_official
from espnet_taste.convert.checkpoint import Options, convert
from espnet_taste.convert.load import load_released
from espnet_taste.convert.plan import make_plan
from espnet_taste.decoder.layout import whole_rows
from espnet_taste.layers.word_pooling import first_of_words
from espnet_taste.slm.conventions import OF_A_LATENT, ItemLikelihood
from espnet_taste.slm.delay import collate, delay_words
from espnet_taste.slm.likelihood import log_likelihoods, score
from espnet_taste.tokenizer.model import TokenizerOutput
from espnet_taste.types import IGNORE
from espnet_taste.words import code_sources

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.fixture(scope="module")
def case(golden):
    return golden("checkpoint_expected")


@pytest.fixture(scope="module")
def official(case, golden_dir):
    folder = golden_dir / "checkpoint"
    if not folder.is_dir():
        pytest.skip(f"the golden fixtures in {golden_dir} have no folder checkpoint")
    return folder


@pytest.fixture(scope="module")
def converted(case, official, tmp_path_factory):
    target = tmp_path_factory.mktemp("converted") / "model"
    options = Options(backbone_of(case.info))
    return target, convert(official, target, to="espnet_taste", options=options)


@pytest.fixture(scope="module")
def model(converted):
    return load_released(converted[0], llm_dtype=torch.float32)


@pytest.fixture(scope="module")
def text(case):
    """ASR tokens, lengths and words."""
    return [
        case.input(f"asr_{name}") for name in ("token_ids", "token_lengths", "word_ids")
    ]


@pytest.fixture(scope="module")
def tokenized(case, model, text) -> TokenizerOutput:
    states = model.tokenizer.encoder.encode_log_mel(case.input("audio_features"))
    return model.tokenizer.encode(states, *text)


def llm_rows(case):
    """LLM tokens and words of every utterance, without padding."""
    for row, length in enumerate(case.input("llm_token_lengths").tolist()):
        yield (
            case.input("llm_token_ids")[row, :length].numpy(),
            case.input("llm_word_ids")[row, :length].numpy(),
        )


@pytest.fixture(scope="module")
def singles(case, model, text, tokenized):
    """One batch of the spoken LM an utterance, from the codes that we found."""
    word_codes = first_of_words(tokenized.codes, text[2], text[1])
    batches = []
    for (tokens, words), codes in zip(llm_rows(case), word_codes, strict=True):
        layout = delay_words(
            tokens, words, model.spoken_lm.delay, model.spoken_lm.delay_level
        )
        batches.append(collate([layout], [codes[codes[:, 0] != IGNORE].numpy()]))
    return batches


def test_tokenizer(case, tokenized):
    case.check("asr_indices", tokenized.codes)
    case.check("audio_unit_embeds", tokenized.embeds)


def test_codes_on_llm_tokens(case, text, tokenized):
    codes = torch.full_like(case.output("llm_indices"), IGNORE)
    for row, (_, words) in enumerate(llm_rows(case)):
        asr_words = text[2][row, : text[1][row]].tolist()
        for token, source in enumerate(code_sources(asr_words, words.tolist())):
            if source != IGNORE:
                codes[row, token] = tokenized.codes[row, source]
    case.check("llm_indices", codes)


@torch.no_grad()
def test_spoken_lm_at_every_position(case, model, singles):
    slm = model.spoken_lm
    for row, batch in enumerate(singles):
        hidden = slm.read(slm.embed(batch))
        latent = slm.run_head(hidden)
        case.check(f"utt{row}.text_logits", slm.output_layer(hidden)[0])
        codes = slm.head.choose(latent, slm.codebooks)
        case.check(f"utt{row}.predicted_codes", codes[0])
        case.check(f"utt{row}.latent_mu", latent.mu[0])
        case.check(f"utt{row}.latent_z", latent.value[0])
        labels = batch.label_words[0]
        rows = batch.word_codes[0][labels.clamp(min=0)]
        rows = rows.masked_fill((labels == IGNORE)[:, None], IGNORE)
        case.check(f"utt{row}.taste_labels", rows)


@torch.no_grad()
def test_scores(case, model, singles):
    weights, text, taste = model.spoken_lm.weights, [], []
    for batch in singles:
        sums = score(model.spoken_lm, batch)
        text.append(sums.text_ce / sums.num_tokens)
        terms = {k: v / sums.num_words for k, v in sums.taste_terms.items()}
        share = weights.latent_kl
        taste.append((1 - share) * terms["latent_mse"] + share * terms["latent_kl"])
    text, taste = torch.cat(text), torch.cat(taste)

    case.check("score_text_ce", text)
    case.check("score_taste_loss", taste)
    case.check("score", weights.text * text + weights.taste * taste)
    if (weights.text, weights.taste) != (0.5, 0.5):
        return  # the score of another model than the released one
    found = [log_likelihoods(model.spoken_lm, batch) for batch in singles]
    items = [
        ItemLikelihood(
            row.text[0, : row.num_tokens[0]].double().numpy(),
            np.zeros(int(row.num_tokens[0]), dtype=np.int64),
            np.zeros((1, 0)),
            row.latent_losses[0, : row.num_words[0]].double().mean(0, True).numpy(),
        )
        for row in found
    ]
    released = [-OF_A_LATENT["released"](item) for item in items]
    case.check("score", torch.tensor(released, dtype=torch.float32))


@pytest.fixture(scope="module")
def predicted(case, model, text, singles):
    """TASTE of the codes that the spoken LM predicts, on ASR tokens."""
    slm = model.spoken_lm
    embeds = torch.zeros_like(case.output("audio_unit_embeds"))
    with torch.no_grad():
        for row, batch in enumerate(singles):
            prediction = slm.predict_words(slm.read(slm.embed(batch)), batch)
            codes = slm.head.choose(prediction, slm.codebooks)[0]
            words = text[2][row, : text[1][row]].long()
            embeds[row, : len(words)] = slm.codebooks.decode(codes[words])
    return embeds


@torch.no_grad()
def test_unit_lm(case, model, text, tokenized, predicted):
    layout = whole_rows(
        text[1],
        case.input("speech_token_ids"),
        case.input("speech_token_lengths"),
        num_tokens=text[0].size(1),
        num_units=model.unit_lm.num_units,
    )
    valid, speaker = layout.lm_rows != IGNORE, case.input("speaker_embeds")
    conditions = {
        "unit_logits": tokenized.embeds,
        "unit_logits_text_only": None,
        "unit_logits_from_predicted_codes": predicted,
    }
    for name, embeds in conditions.items():
        logits = model.unit_lm(text[0], embeds, speaker, layout)
        case.check(name, logits, valid)
        if name == "unit_logits":
            labels = layout.labels.flatten()
            loss = F.cross_entropy(logits.flatten(0, 1), labels, ignore_index=IGNORE)
            case.check("unit_ce", loss)
    case.check("unit_labels", layout.labels)


def test_every_expected_result_is_compared_above(case):
    """A pack with further results must not pass by their being overlooked."""
    of_one_utterance = "text_logits predicted_codes latent_mu latent_z taste_labels"
    of_all = (
        "asr_indices audio_unit_embeds llm_indices score score_text_ce score_taste_loss"
        " unit_logits unit_logits_text_only unit_logits_from_predicted_codes unit_ce"
        " unit_labels"
    )
    rows = range(len(case.input("llm_token_lengths")))
    compared = {f"utt{row}.{name}" for row in rows for name in of_one_utterance.split()}
    compared |= set(of_all.split())

    left = set(case.output_names()) - compared
    assert all("reference_defect" in name for name in left), left


def test_every_tensor_is_accounted_for(case, official, converted):
    stored, report = read_folder(official), converted[1]

    assert {*report.consumed, *report.dropped} == set(stored)
    assert len(stored) == case.info["n_tensors"]
    unused = case.info["unused_keys"].removesuffix("*")
    assert all(name.startswith(unused) for name in report.dropped)
    assert not any(name.startswith(unused) for name in report.consumed)
    assert report.missing == {}


def test_dtypes_are_those_of_the_file(case, official, converted):
    stored, report = read_folder(official), converted[1]
    parts = {
        part: read_folder(converted[0] / part)
        for part in (names.WHISPER, names.TASTE, names.LLM, names.SLM)
    }
    for released, places in report.consumed.items():
        for place in places.split(", "):
            part, _, name = place.partition("/")
            assert parts[part][name].dtype == stored[released].dtype
    counts = {}
    for tensor in stored.values():
        dtype = str(tensor.dtype).removeprefix("torch.")
        counts[dtype] = counts.get(dtype, 0) + 1
    assert counts == case.info["tensor_dtypes"]


@pytest.mark.parametrize("share", [1.0, 0.3, 0.0])
def test_there_and_back_bit_for_bit(official, converted, tmp_path, share):
    """In one file, in some shards, and in as many as there are tensors."""
    total = sum(tensor.nbytes for tensor in read_folder(official).values())
    options = Options(max_shard_bytes=max(1, int(share * total)))
    convert(converted[0], tmp_path / "back", to="official", options=options)

    before, after = read_folder(official), read_folder(tmp_path / "back")
    assert {n for n in before if n not in after} == set(converted[1].dropped)
    assert set(after) <= set(before)
    for name, tensor in after.items():
        assert tensor.dtype == before[name].dtype, name
        assert torch.equal(bits(tensor), bits(before[name])), name
    for name in ("config.json", "generation_config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (official / name).read_bytes()
    is_single = (tmp_path / "back" / "model.safetensors").is_file()
    assert is_single == (share == 1.0)


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def test_one_file_and_shards_convert_alike(case, official, converted, tmp_path):
    single = tmp_path / "single"
    single.mkdir()
    save_file(read_folder(official), single / "model.safetensors")
    config = (official / "config.json").read_bytes()
    (single / "config.json").write_bytes(config)
    options = Options(backbone_of(case.info))

    report = convert(single, tmp_path / "ours", to="espnet_taste", options=options)

    assert report.sha256 == converted[1].sha256


def test_the_output_layer_is_a_matrix_of_its_own(official, model):
    """Whatever the config says of ties (the released one says tied).

    Reference defect C5: it makes up the output layer at random where a file lacks it;
    ``test_convert_checkpoint.py`` has that such a file is refused.
    """
    llm = model.spoken_lm.causal_lm
    stored = read_folder(official)
    for name, ours in {
        "lm_head.weight": llm.lm_head.weight,
        "model.embed_tokens.weight": llm.model.embed_tokens.weight,
    }.items():
        released = f"spoken_lm.language_model.base_model.model.{name}"
        assert torch.equal(ours, stored[released].float())
    assert not torch.equal(llm.lm_head.weight, llm.model.embed_tokens.weight)
    assert llm.config.tie_word_embeddings is False


def read_keys(golden_dir, name):
    path = golden_dir / name
    if not path.is_file():
        pytest.skip(f"the golden fixtures in {golden_dir} have no {name}")
    keys = json.loads(path.read_text(encoding="utf-8"))
    return {key: tuple(shape) for key, (shape, _) in keys.items()}


def test_all_names_and_shapes_of_the_released_size(case, official, golden_dir):
    """On the meta device: all 1252 released tensors, no more and no fewer."""
    keys = read_keys(golden_dir, "full_keys.json")
    config = released_config(official / "config.json", keys)
    architecture = read_official(config, Backbone())

    plan = make_plan(architecture)

    found = {pair.released: pair.released_shape for pair in plan.pairs}
    sizes = architecture.tokenizer["quantizer_conf"]
    unused = names.unused_shapes(sizes["num_codebooks"], sizes["codebook_dim"])
    assert {**found, **unused} == keys
    assert not set(found) & set(unused)


def test_all_names_and_shapes_of_the_voice_generator(golden_dir):
    keys = read_keys(golden_dir, "voice_generator_keys.json")

    assert voice_generator.expected_shapes() == keys
    for name in keys:
        place, _ = names.to_ours(name)
        assert names.to_released(place)[0] == name
