"""Completion ends, keeps words and codes in step, and equals teacher forcing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_slm import VOCAB_SIZE, make_slm, random_utterance

from espnet_taste.sampling import RowStreams, Sampler
from espnet_taste.slm.delay import collate, delay_words
from espnet_taste.slm.generation import CompletionSettings, complete
from espnet_taste.slm.prompt import Prompt
from espnet_taste.slm.state_machine import Action, WordMachine
from espnet_taste.slm.vocabulary import Vocabulary

delays = st.integers(1, 3)
levels = st.sampled_from(["word", "token"])
seeds = st.integers(0, 999)
sizes = st.lists(st.integers(1, 3), min_size=1, max_size=4)
few = settings(max_examples=6, deadline=None)


@pytest.fixture(scope="module")
def models():
    return {
        # The head's own sight of TASTE must keep step as well, so half have it.
        (delay, level): make_slm(
            delay=delay, delay_level=level, head_skip=(delay == 2) == (level == "token")
        )
        for delay in (1, 2, 3)
        for level in ("word", "token")
    }


some = st.sampled_from([0.0, 0.5])


@st.composite
def vocabularies(draw, blanks=st.just(0.0)):
    """Draw any split of the tokens, the hopeless ones included."""
    flags = st.sampled_from(["none", "all", "some"])
    rng = np.random.default_rng(draw(seeds))

    def mask(share):
        kind = draw(flags)
        values = {"none": 0.0, "all": 1.0, "some": share}
        return torch.from_numpy(rng.random(VOCAB_SIZE) < values[kind])

    stop = torch.from_numpy(rng.random(VOCAB_SIZE) < draw(st.sampled_from([0, 0.1])))
    starts, nothing = mask(0.4), torch.zeros(VOCAB_SIZE, dtype=torch.bool)
    blank = torch.from_numpy(rng.random(VOCAB_SIZE) < draw(blanks)) & starts
    return Vocabulary(
        word_start=starts,
        sign=mask(0.2) & ~starts,
        blank=nothing if bool(starts.all()) else blank,  # as ``build_vocabulary``
        sentence_end=mask(0.2),
        banned=nothing,
        stop=stop,
    )


def make_prompts(kinds, seed):
    rng = np.random.default_rng(seed)
    prompts = []
    for kind in kinds:
        tokens, words, codes = random_utterance(rng, rng.integers(1, 4, 3))
        if kind == "zero":
            prompts.append(Prompt())
        elif kind == "order":
            prompts.append(Prompt(tokens.tolist(), words, codes, [3, 4], [5]))
        else:
            with_codes = codes if kind == "speech" else None
            prompts.append(Prompt(tokens.tolist(), words, with_codes))
    return prompts


kind = st.sampled_from(["speech", "text", "zero", "order"])
kinds = st.lists(kind, min_size=1, max_size=3)


@few
@given(vocabularies(some), kinds, delays, levels, st.integers(0, 4), seeds)
def test_it_ends_with_codes_for_every_word(
    models, vocabulary, kinds, delay, level, extra_words, seed
):
    options = CompletionSettings(
        extra_words=extra_words, max_tokens=9, text=Sampler(temperature=2.0)
    )
    generator = torch.Generator().manual_seed(seed)

    results = complete(
        models[delay, level],
        make_prompts(kinds, seed),
        vocabulary,
        settings=options,
        source=generator,
    )

    assert len(results) == len(kinds)
    for result in results:
        assert len(result.tokens) <= 9
        assert len(result.trace.tokens) <= 9 + delay
        counted = sorted(set(result.words.tolist()))
        assert counted == list(range(len(result.codes)))
        assert (result.codes >= 0).all()
        assert (result.trace.actions[:-1] != Action.TERMINATE).all()
        assert result.trace.actions[-1] == Action.TERMINATE
        if not result.was_cut and not vocabulary.stop.any():
            cut = int(vocabulary.blank.any())  # a blank that nothing followed
            assert extra_words - cut <= len(result.codes) <= 3 * extra_words + 1


@few
@given(vocabularies(some), kinds, delays, levels, seeds)
def test_a_batch_is_its_rows(models, vocabulary, kinds, delay, level, seed):
    for top_p in (0.0, 0.9):
        text = Sampler(top_p=top_p)
        options = CompletionSettings(extra_words=2, max_tokens=8, text=text)
        prompts = make_prompts(kinds, seed)
        check_batch(models[delay, level], prompts, vocabulary, options)


def check_batch(slm, prompts, vocabulary, options):
    streams = RowStreams(range(len(prompts)))
    together = complete(slm, prompts, vocabulary, settings=options, source=streams)

    for row, (prompt, found) in enumerate(zip(prompts, together)):
        (alone,) = complete(
            slm, [prompt], vocabulary, settings=options, source=RowStreams([row])
        )
        assert np.array_equal(found.trace.tokens, alone.trace.tokens)
        assert np.array_equal(found.trace.codes, alone.trace.codes)
        assert np.array_equal(found.trace.actions, alone.trace.actions)


@few
@given(vocabularies(), sizes, delays, levels, seeds)
@torch.no_grad()
def test_it_says_what_teacher_forcing_predicts(
    models, vocabulary, prompt_sizes, delay, level, seed
):
    """Step by step with a cache equals one pass over prompt and result together."""
    slm = models[delay, level]
    tokens, words, codes = random_utterance(np.random.default_rng(seed), prompt_sizes)
    options = CompletionSettings(extra_words=3, max_tokens=10, text=Sampler(top_p=0.0))
    prompt = Prompt(tokens.tolist(), words, codes)
    (result,) = complete(slm, [prompt], vocabulary, settings=options)

    num_words, num_tokens = len(codes), len(tokens)
    all_tokens = np.concatenate([tokens, result.tokens])
    all_words = np.concatenate([words, num_words + result.words])
    layout = delay_words(all_tokens, all_words, delay, level)
    batch = collate([layout], [np.concatenate([codes, result.codes])])
    hidden = slm.read(slm.embed(batch))

    logits = slm.output_layer(hidden)[0, num_tokens : len(all_tokens)]
    assert logits.argmax(-1).tolist() == result.tokens.tolist()
    chosen = slm.head.choose(slm.predict_words(hidden, batch), slm.codebooks)[0]
    said = batch.word_codes[0, num_words:]
    assert torch.equal(chosen[num_words:], said)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.text("siex", min_size=12, max_size=12), min_size=1, max_size=4),
    delays,
    levels,
    st.integers(0, 3),
)
def test_the_machine_treats_rows_alike(scripts, delay, level, extra_words):
    def run(rows):
        has_prefix = torch.tensor([len(row) % 2 == 0 for row in rows])
        machine = WordMachine(has_prefix, extra_words, delay, level)
        steps = []
        for position in range(12):
            letters = [row[position] for row in rows]
            flags = [torch.tensor([x == kind for x in letters]) for kind in "sex"]
            steps.append(machine.step(*flags))
        return steps

    together = run(scripts)
    for row, script in enumerate(scripts):
        for step, alone in zip(together, run([script])):
            for name, value in vars(step).items():
                assert value[row] == vars(alone)[name][0]
