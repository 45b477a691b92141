"""The spoken LM with its tokenizer: prompts in, words with codes out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_spoken_lm import TEXTS, Letters, tiny_spoken_lm
from tiny_taste import SPEAKER_DIM, letters, noise

from espnet_taste.pipeline import slm as slm_module
from espnet_taste.pipeline.released_lm import ReleasedSpokenLM
from espnet_taste.pipeline.slm import SpokenLMInference
from espnet_taste.pipeline.tokens import TasteTokens
from espnet_taste.sampling import Sampler
from espnet_taste.slm.generation import CompletionSettings
from espnet_taste.slm.vocabulary import build_vocabulary

SHORT = CompletionSettings(extra_words=2, max_words=4, max_tokens=20)


@pytest.fixture(scope="module")
def lm():
    return tiny_spoken_lm()


@pytest.fixture(scope="module")
def speech(lm):
    return lm.tokenizer.encode(noise(12000), "one two three", word_times=False)


def test_speech_goes_on_in_its_own_voice_and_can_be_heard(lm, speech):
    answer = lm.complete(speech, SHORT)

    assert 1 <= len(answer) <= 4 and answer.codes.shape == (len(answer), 2)
    assert np.array_equal(answer.speaker, speech.speaker)
    assert answer.models == lm.tokenizer.models
    assert len(lm.tokenizer.decode(speech + answer).audio) > 0


def test_words_have_the_tokens_of_the_speech_tokenizer(lm, speech):
    answer = lm.complete(speech, SHORT)

    expected = [token for word in answer.words for token in letters(word)]
    assert answer.asr_tokens.tolist() == expected


def test_text_and_nothing_are_prompts_too(lm):
    voice = np.ones(SPEAKER_DIM, dtype=np.float32)

    for prompt in ("one two", None):
        mute, voiced = (
            lm.complete(prompt, SHORT, speaker=speaker) for speaker in (None, voice)
        )
        assert mute.words == voiced.words and len(mute) > 0
        assert lm.tokenizer.decode(voiced).audio.size
        with pytest.raises(ValueError, match="has no voice: its speaker embedding"):
            lm.tokenizer.decode(mute)


def test_text_is_read_as_in_training_unless_the_model_is_a_released_one(lm):
    def said(**options):
        return lm.complete("lo mi", replace(SHORT, **options))

    assert said() == said(text_prompt="fused") != said(text_prompt="plain")
    asked = replace(SHORT, compat=True)
    assert lm.inference.settings_for(asked).text_prompt == "plain"
    kept = replace(asked, text_prompt="fused")
    assert lm.inference.settings_for(kept).text_prompt == "fused"
    assert ReleasedSpokenLM.settings_for(ReleasedSpokenLM, SHORT).text_prompt == "plain"


def test_a_list_is_its_prompts_alone(lm, speech):
    settings = replace(SHORT, text=Sampler(top_p=0.9, temperature=2.0))
    prompts = [speech, "one two", None, speech[:2]]

    together = lm.complete(prompts, settings, batch_size=3)

    for prompt, found in zip(prompts, together, strict=True):
        assert lm.complete(prompt, settings) == found
    assert lm.complete([], settings) == []


def test_a_prompt_that_is_too_long_is_named_by_its_place_in_the_list(lm, speech):
    """It was counted in its batch."""
    limit = lm.slm.max_positions

    with pytest.raises(ValueError, match=f"^prompt 3 takes .*has {limit}; shorten"):
        lm.complete([speech, None, None, "one " * limit], SHORT, batch_size=2)


def test_the_seed_decides(lm, speech):
    settings = replace(SHORT, max_words=12, extra_words=12, text=Sampler())

    first, again, other = (
        lm.complete(speech, settings, seed=seed) for seed in (1, 1, 2)
    )

    assert first == again and first.words != other.words


def test_a_stream_is_the_completion_word_by_word(lm, speech):
    whole = lm.complete(speech, SHORT)

    words = list(lm.stream(speech, SHORT))

    assert all(len(word) == 1 for word in words)
    assert TasteTokens.concatenate(words) == whole
    heard = list(lm.tokenizer.stream(lm.stream(speech, SHORT), words_at_once=2))
    assert len(heard) == -(-len(whole) // 2)


def test_a_batch_of_chats_is_its_chats(lm, speech):
    chats = [
        [{"role": "a", "content": ["x", speech]}],
        [{"role": "a", "content": "hi"}, {"role": "b", "content": "more of it"}],
    ]
    voice = np.full(SPEAKER_DIM, 0.5, dtype=np.float32)

    both = lm.chat(chats, SHORT, seed=[1, 2], speaker=[speech.speaker, voice])

    assert both == [
        lm.chat(chats[0], SHORT, seed=1),
        lm.chat(chats[1], SHORT, seed=2, speaker=voice),
    ]
    with pytest.raises(ValueError, match="2 prompts, but 1 voices"):
        lm.chat(chats, SHORT, speaker=[voice])


def test_the_released_rules_decide_what_may_be_said(lm, monkeypatch):
    """Defects C10 and C11, under their switch."""
    asked = []
    monkeypatch.setattr(
        slm_module,
        "read_vocabulary",
        lambda *_, **options: asked.append(options) or build_vocabulary(TEXTS),
    )

    lm.complete("one", CompletionSettings(max_tokens=3, compat=True))

    assert asked == [{"ban": "released", "sentence_end": "."}]
    drawn = {"text": Sampler(top_p=0.3), "codes": Sampler(top_p=0.4)}
    settings = CompletionSettings(compat=True, **drawn)
    assert settings.text == Sampler(top_p=0.3, rule="released")
    assert settings.codes == Sampler(top_p=0.4, rule="released")
    with pytest.raises(ValueError, match="released rule has no top_k"):
        CompletionSettings(compat=True, text=Sampler(top_k=3))


def test_the_end_that_was_learned_is_the_end_of_what_is_said(lm, monkeypatch):
    asked = []
    monkeypatch.setattr(
        slm_module, "read_vocabulary", lambda *_, **options: asked.append(options)
    )
    inference = SpokenLMInference.__new__(SpokenLMInference)
    inference.text, inference.slm = Letters, lm.slm
    monkeypatch.setattr(lm.slm, "end_id", 5)

    assert inference.vocabulary is None
    assert asked == [{"end_id": 5}]


def test_an_answer_ends_with_the_turn_and_a_completion_does_not(lm, monkeypatch):
    """Reference behaviour: where text stands around the speech, a token stops."""
    monkeypatch.setattr(Letters.tokenizer, "eos_token_id", 7, raising=False)
    monkeypatch.setattr(
        slm_module,
        "read_vocabulary",
        lambda *_, end_id: build_vocabulary(TEXTS, stop_ids=[end_id]),
    )
    inference, asked = lm.inference, []
    vars(inference).pop("turn_vocabulary", None)  # kept, like all masks
    kinds = inference.vocabulary_for
    monkeypatch.setattr(
        inference,
        "vocabulary_for",
        lambda *given: asked.append(kinds(*given)) or asked[-1],
    )

    lm.complete("one", SHORT)
    lm.chat([{"role": "user", "content": "one"}], SHORT)

    completion, turn = (vocabulary.stop.nonzero().tolist() for vocabulary in asked)
    assert completion == [] and turn == [[7]]
    del inference.turn_vocabulary


def test_a_written_prompt_of_an_unspaced_script_has_a_word_a_sign(lm):
    prompt = lm._prompt("世界 ok")

    assert max(prompt.words) + 1 == 3


def test_a_chat_is_read_around_the_speech(lm, speech, monkeypatch):
    seen = []
    monkeypatch.setattr(
        type(lm),
        "_complete",
        lambda self, prompts, *_, **__: seen.extend(prompts) or [0],
    )

    lm.chat([{"role": "a", "content": "hi"}, {"role": "b", "content": ["x", speech]}])
    lm.chat([{"role": "a", "content": "hi"}])

    code = Letters.tokenizer.encode
    assert seen[0].before == code("a:hi;b:x", False)
    assert seen[0].after == code(";you:", False)
    assert np.array_equal(seen[0].codes, speech.codes)
    assert seen[1].before == code("a:hi;you:", False)
    assert not seen[1].has_codes and seen[1].after == []


def test_a_chat_is_answered(lm, speech):
    answer = lm.chat([{"role": "a", "content": speech}], SHORT)

    assert len(answer) > 0 and np.array_equal(answer.speaker, speech.speaker)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "no message to answer"),
        ([{"role": "a"}], r"a role and a content, got \['role'\]"),
        ([{"role": "a", "content": "say <end> now"}], "contains '<end>'"),
        ([{"role": "a", "content": "<b>say</b> <turn>"}], "contains '<turn>'"),
        ({"role": "a", "content": "x"}, "messages are a dict; give a list"),
        ("hello", "messages are a str; give a list"),
        ([1], "a message is a int; give role and content"),
        (["hello"], "a role and a content, got 'h'"),
        ([{"role": "a", "content": None}], "message holds a NoneType; give text"),
        ([{"role": "a", "content": ["x", {}]}], "message holds a dict; give text"),
    ],
)
def test_chats_that_cannot_be_read_are_refused(lm, messages, message):
    with pytest.raises((TypeError, ValueError), match=message):
        lm.chat(messages)


def test_speech_in_two_places_is_refused(lm, speech):
    turn = {"role": "a", "content": [speech, speech]}

    with pytest.raises(ValueError, match="speech in 2 places; one is possible"):
        lm.chat([turn])


def test_an_llm_without_template_cannot_chat(lm, monkeypatch):
    monkeypatch.setattr(Letters.tokenizer, "chat_template", None)

    with pytest.raises(ValueError, match="no chat template"):
        lm.chat([{"role": "a", "content": "x"}])


def test_prompts_of_others_are_refused(lm, speech):
    other = replace(speech, models={"tokenizer": "another"})
    with pytest.raises(ValueError, match="codes are of tokenizer another"):
        lm.complete(other)
    with pytest.raises(ValueError, match="codes are of tokenizer another"):
        lm.log_likelihood(other)
    with pytest.raises(ValueError, match="has no codes, only embeddings"):
        lm.complete(replace(speech, codes=None))
    with pytest.raises(ValueError, match="codes 0..9, expected 0..7"):
        codes = np.array([[0, 1], [9, 0], [1, 1]])
        lm.complete(replace(speech, codes=codes))
    with pytest.raises(ValueError, match="speech without a word"):
        lm.complete(speech[:0])
    with pytest.raises(ValueError, match="the prompt has no word; give None"):
        lm.complete("  ")


def test_the_mean_latent_of_a_large_set_is_not_held_as_a_whole(lm, monkeypatch):
    quantizer = lm.inference.slm.codebooks
    seen = []
    whole = quantizer.sum_codes
    monkeypatch.setattr(
        quantizer, "sum_codes", lambda rows: seen.append(len(rows)) or whole(rows)
    )
    draw = np.random.default_rng(1)
    train = {f"{n}": draw.integers(0, 8, (1 + n % 3, 2)) for n in range(3000)}

    mean = lm.inference.mean_latent(train)

    assert len(seen) > 1 and sum(seen) == sum(map(len, train.values()))
    rows = torch.from_numpy(np.concatenate(list(train.values())))
    torch.testing.assert_close(mean, whole(rows).mean(0))


@pytest.mark.parametrize("prompt", [3, noise(9), [3], iter("ab")])
def test_what_is_no_prompt_is_named(lm, prompt):
    with pytest.raises(TypeError, match="a prompt is a .*; give tokens of the token"):
        lm.complete(prompt)


def test_voices_and_seeds_are_checked(lm, speech):
    found = lm.complete(speech, SHORT, seed=np.int64(3))
    assert found == lm.complete(speech, SHORT, seed=3)
    for voice in (np.ones(SPEAKER_DIM + 1), np.full(SPEAKER_DIM, np.nan)):
        with pytest.raises(ValueError, match="^speaker: a speaker embedding of shape"):
            lm.complete("one", SHORT, speaker=voice)
    with pytest.raises(TypeError, match="give its .speaker"):
        lm.complete("one", SHORT, speaker=speech)
    with pytest.raises(TypeError, match="of them, got a str; encode makes them"):
        lm.log_likelihood("one two")


def test_a_latent_is_measured_against_the_mean_of_the_training_codes(lm):
    inference, quantizer = lm.inference, lm.inference.slm.codebooks
    train = {"a": np.array([[0, 1], [2, 0]]), "b": np.array([[1, 1]])}
    mean = inference.mean_latent(train)
    sums = quantizer.sum_codes(torch.tensor([[0, 1], [2, 0], [1, 1]]))
    torch.testing.assert_close(mean, sums.mean(0))

    def utterance(text, codes):
        return inference.preprocess("key", {"text": text, "codes": np.array(codes)})

    items = [
        ("a", utterance("one two", train["a"])),
        ("b", utterance("on", train["b"])),
    ]
    rows = inference.scores(items, items[::-1], mean)

    coded = {(r["condition"], r["key"]): r for r in rows if "code_count" in r}
    assert {condition for condition, _ in coded} == {"matched", "exchanged_codes"}
    spread = (sums - mean).square().mean(-1)
    for condition in ("matched", "exchanged_codes"):
        found = [coded[condition, key]["latent_spread_sum"] for key in "ab"]
        assert found == pytest.approx([float(spread[:2].sum()), float(spread[2])])
    # One word alone is predicted before any codes are read.
    assert coded["matched", "b"]["latent_error_sum"] == pytest.approx(
        coded["exchanged_codes", "b"]["latent_error_sum"]
    )
    alone = inference.scores(items, items[::-1])
    assert not any("latent_error_sum" in row for row in alone)
