"""Greedy completion takes the released steps for every kind of prompt."""

import numpy as np
import pytest
import torch
from reference_names import load_unit_lm
from released_slm import SPOKEN_LM, build_spoken_lm
from released_tower import build_tokenizer
from released_unit_lm import build_unit_lm

from espnet_taste.convert.architecture import PREFIX_IDS, VALUE_LAYER
from espnet_taste.decoder.contracts import UnitSampling
from espnet_taste.decoder.generation import generate_units, unit_bounds
from espnet_taste.sampling import Sampler
from espnet_taste.slm.generation import CompletionSettings, complete
from espnet_taste.slm.prompt import Prompt
from espnet_taste.slm.state_machine import Action, TasteAction
from espnet_taste.slm.vocabulary import build_vocabulary
from espnet_taste.types import IGNORE
from espnet_taste.words import code_sources


@pytest.fixture(scope="module")
def case(golden):
    return golden("completion")


@pytest.fixture(scope="module")
def texts(case):
    """Text of every id of the fixture's made-up tokenizer."""
    table = case.info["llm_tokenizer"]
    texts = [table["others"]] * table["size"]
    for index, text in table["id_to_text"].items():
        texts[int(index)] = text
    return texts


@pytest.fixture(scope="module")
def vocabulary(case, texts):
    sos_id = case.config["sos_id"]
    return build_vocabulary(
        texts,
        special_ids=range(sos_id, len(texts)),
        banned_ids=range(len(texts))[sos_id : sos_id + 2],  # start and end, released
        ban="released",
    )


@pytest.fixture(scope="module")
def build(case):
    built = {}

    def build_with_delay(delay):
        if delay not in built:
            built[delay] = build_spoken_lm(
                case,
                case.config["quantizer"],
                delay=delay,
                level=case.config["delay_level"],
                out_module=case.config["out_llm_module"],
                state=case.state(SPOKEN_LM),
            )
        return built[delay]

    return build_with_delay


def make_prompt(case, mode):
    if mode == "zero":
        return Prompt()
    length = int(case.input(f"{mode}.llm_token_lengths"))
    tokens = case.input(f"{mode}.llm_token_ids")[0, :length].tolist()
    words = case.input(f"{mode}.llm_word_ids")[0, :length].tolist()
    if mode == "text":
        return Prompt(tokens, words)
    indices = case.output(f"{mode}.llm_indices")[0, :length].numpy()
    return Prompt(tokens, words, indices[indices[:, 0] != IGNORE])


def settings_of(case, run):
    values = case.info["settings"]
    assert values["taste_top_p"] == 0
    return CompletionSettings(
        extra_words=values["extra_words"][run],
        text=Sampler(
            top_p=values["text_top_p"],
            temperature=values["text_temperature"],
            repetition_penalty=values["repetition_penalty"],
            rule="released",
        ),
        compat=True,
    )


def test_codes_of_the_audio_prompt(case):
    """Where the case names no value layer and prefix, those of the released code."""
    tokenizer = build_tokenizer(
        case,
        case.config.get("target_hidden_layer", VALUE_LAYER),
        case.config.get("decoder_prefix_ids", PREFIX_IDS),
    )
    names = case.sub_cases("asr_indices")
    assert names
    for name in names:
        asr_tokens, asr_lengths, asr_words = (
            case.input(f"{name}.asr_{kind}")
            for kind in ("token_ids", "token_lengths", "word_ids")
        )
        states = tokenizer.encoder.encode_log_mel(case.input(f"{name}.audio_features"))
        codes = tokenizer.encode(states, asr_tokens, asr_lengths, asr_words).codes
        case.check(f"{name}.asr_indices", codes)

        llm_words = case.input(f"{name}.llm_word_ids")
        moved = torch.full((*llm_words.shape, codes.size(-1)), IGNORE)
        for row, length in enumerate(case.input(f"{name}.llm_token_lengths").tolist()):
            sources = code_sources(
                asr_words[row, : asr_lengths[row]].tolist(),
                llm_words[row, :length].tolist(),
            )
            for token, source in enumerate(sources):
                if source != IGNORE:
                    moved[row, token] = codes[row, source]
        case.check(f"{name}.llm_indices", moved)


def test_derived_sets(case, vocabulary):
    sets = case.info["derived_sets"]
    sos_id = case.config["sos_id"]
    listed = vocabulary.word_start[:sos_id].nonzero().flatten().tolist()
    assert listed == sets["word_start_ids"]
    assert bool(vocabulary.word_start[sos_id:].all())
    ends = vocabulary.sentence_end.nonzero().flatten().tolist()
    assert ends == sets["sentence_end_ids"]
    allowed = (~vocabulary.banned).nonzero().flatten().tolist()
    assert allowed == sets["allowed_ids"]


def steps_of(trace):
    return [
        [
            int(token),
            Action(action).name.lower(),
            TasteAction(taste_action).name.lower(),
        ]
        for token, action, taste_action in zip(
            trace.tokens, trace.actions, trace.taste_actions
        )
    ]


@pytest.fixture(scope="module")
def results(case, build, vocabulary):
    """The completion of every run, computed once."""
    completions = {}
    for name, run in case.info["runs"].items():
        prompt = make_prompt(case, run["mode"])
        (completions[name],) = complete(
            build(run["delay"]), [prompt], vocabulary, settings=settings_of(case, name)
        )
    return completions


def test_every_run(case, texts, results):
    assert case.info["runs"]
    for name, run in case.info["runs"].items():
        result = results[name]
        assert steps_of(result.trace) == run["steps"], name
        text = "".join(texts[token] for token in result.tokens).strip()
        assert text == run["generated_text"]
        sampled = result.trace.taste_actions == TasteAction.SAMPLE
        for output, value in {
            "generated_text_ids": result.tokens,
            "generated_word_ids": result.words,
            "step_text_id": result.trace.tokens,
            "step_taste_ids": result.trace.codes,
            "taste_rows": result.trace.codes[sampled],
        }.items():
            case.check(f"{name}.{output}", torch.from_numpy(value))
        assert len(result.codes) == result.words[-1] + 1
        assert not result.was_cut


@pytest.fixture(scope="module")
def unit_lm(case):
    state = case.state("speech_decoder.")
    lm = build_unit_lm(case.config, len(state["audio_embed_affine_layer.bias"]))
    load_unit_lm(lm, state)
    return lm.eval()


def asr_tokens_of(case, texts, result):
    """Look the generated words up in the fixture's table of an ASR tokenizer."""
    table, tokens, words = case.info["asr_tokenizer"]["words_seen"], [], []
    for word in range(len(result.codes)):
        text = "".join(texts[t] for t in result.tokens[result.words == word])
        ids = table[f" {text.strip()}"]
        tokens += ids
        words += [word] * len(ids)
    return tokens, words


@pytest.mark.slow
def test_units_of_every_run(case, build, texts, results, unit_lm):
    """The whole way: generated words and codes, in ASR tokens, to speech units."""
    for name, run in case.info["runs"].items():
        slm, mode, result = build(run["delay"]), run["mode"], results[name]
        tokens, words = asr_tokens_of(case, texts, result)
        codes = torch.from_numpy(result.codes[words])
        if mode == "audio" and not run["out_generated_part_only"]:
            length = int(case.input(f"{mode}.asr_token_lengths"))
            prompt = case.input(f"{mode}.asr_token_ids")[0, :length].tolist()
            tokens = [*prompt, *tokens]
            codes = torch.cat([case.output(f"{mode}.asr_indices")[0, :length], codes])

        generated = generate_units(
            unit_lm,
            torch.tensor([tokens]),
            torch.tensor([len(tokens)]),
            slm.codebooks.decode(codes)[None].detach(),
            case.input("speaker_embeds"),
            sampling=UnitSampling(top_k=1),
        )

        case.check(f"{name}.s3_units", generated.units[0])
        least, most = unit_bounds(torch.tensor(len(tokens)), UnitSampling())
        assert (least, most) == (run["s3_min_len"], run["s3_max_len"])


def test_runs_of_one_delay_in_one_batch(case, build, vocabulary):
    """Prompts of other lengths and kinds in the batch change nothing."""
    by_key = {}
    for name, run in case.info["runs"].items():
        settings = settings_of(case, name)
        key = (run["delay"], settings.extra_words)
        by_key.setdefault(key, []).append((name, run["mode"], settings))
    for (delay, _), runs in by_key.items():
        prompts = [make_prompt(case, mode) for _, mode, _ in runs]

        results = complete(build(delay), prompts, vocabulary, settings=runs[0][2])

        for (name, _, _), result in zip(runs, results):
            case.check(f"{name}.step_text_id", torch.from_numpy(result.trace.tokens))
            codes = np.asarray(result.trace.codes)
            case.check(f"{name}.step_taste_ids", torch.from_numpy(codes))
