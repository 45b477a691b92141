"""Completion: settings, stops, prompts, randomness."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_completion import EVEN, GREEDY, SPEECH, make_vocabulary, only, run
from tiny_slm import (
    CODEBOOK_SIZE,
    NUM_CODEBOOKS,
    SOS_ID,
    VOCAB_SIZE,
    make_llm,
    make_slm,
)

from espnet_taste.sampling import Sampler
from espnet_taste.slm.delay import collate, delay_words
from espnet_taste.slm.generation import (
    CompletionLoop,
    CompletionSettings,
    complete,
    complete_words,
)
from espnet_taste.slm.prompt import Prompt
from espnet_taste.slm.state_machine import Action
from espnet_taste.types import IGNORE


@pytest.fixture(scope="module")
def slm():
    return make_slm()


def test_a_model_that_never_starts_a_word_ends(slm):
    """Reference defect C12: it goes on for ever."""
    result = run(slm, SPEECH, make_vocabulary(), max_tokens=7)

    assert len(result.tokens) == 7 and result.was_cut
    assert result.words.tolist() == [0] * 7
    assert result.codes.shape == (1, NUM_CODEBOOKS)


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_the_limit_still_gives_every_word_its_codes(delay):
    result = run(make_slm(delay=delay), SPEECH, max_tokens=5, extra_words=50)

    assert len(result.tokens) == 5 and result.was_cut
    assert len(result.codes) == result.words[-1] + 1
    assert len(result.trace.tokens) == 5 + delay


def test_a_sentence_end_stops_after_enough_words(slm):
    vocabulary = make_vocabulary(starts=[2], ends=[2], banned=only(2))

    result = run(slm, Prompt(), vocabulary, extra_words=3)

    assert result.words.tolist() == [0, 1, 2, 3]
    assert not result.was_cut


def test_three_times_the_words_stop_without_a_sentence_end(slm):
    vocabulary = make_vocabulary(starts=[2], banned=only(2))

    assert len(run(slm, Prompt(), vocabulary, extra_words=2).codes) == 7


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_a_stop_token_ends_at_once_and_is_not_said(delay):
    """Even if it starts no word, the last word gets its codes."""
    slm = make_slm(delay=delay)
    before = run(slm, SPEECH, extra_words=50)
    # The first token that is said for the first time becomes the stop token.
    where = 3
    stop = before.tokens[where]
    first = before.tokens.tolist().index(stop)
    vocabulary = make_vocabulary(set(range(0, VOCAB_SIZE, 2)) - {stop}, stops=[stop])

    result = run(slm, SPEECH, vocabulary, extra_words=50)

    assert result.tokens.tolist() == before.tokens[:first].tolist()
    assert not result.was_cut
    num_words = result.words[-1] + 1 if len(result.words) else 0
    assert len(result.codes) == num_words


def test_latents_say_what_embeddings_say_through_the_same_map():
    embedding, latent = make_slm(), make_slm(taste_input="latent")
    out = embedding.codebooks.project_out
    with torch.no_grad():
        both = out.weight.T @ embedding.taste_projection.weight.T
        latent.taste_projection.weight.copy_(both.T)
        bias = embedding.taste_projection(out.bias)
        latent.taste_projection.bias.copy_(bias)
        embedding.pad_taste.copy_(out(latent.pad_taste))
    changed = ("taste_projection.", "pad_taste")
    state = embedding.state_dict()
    others = {k: v for k, v in state.items() if not k.startswith(changed)}
    latent.load_state_dict(others, strict=False)

    result, expected = (run(slm, SPEECH, extra_words=9) for slm in (latent, embedding))

    assert result.tokens.tolist() == expected.tokens.tolist()
    assert np.array_equal(result.codes, expected.codes)


@pytest.mark.parametrize(
    "ending", [{}, {"max_words": 3}, {"until": lambda t: len(t) == 4}]
)
def test_a_lone_blank_is_the_beginning_of_a_word(slm, ending):
    """As in 1999, which many tokenizers cut into a blank and digits."""
    blank, start, digit = 3, 4, 5
    vocabulary = make_vocabulary(
        [blank, start], banned=only(blank, start, digit), blanks=[blank]
    )
    lengths = set()
    for seed in range(20):
        source = torch.Generator().manual_seed(seed)
        options = CompletionSettings(
            max_tokens=9, extra_words=9, text=Sampler(temperature=9.0), **ending
        )
        (result,) = complete(slm, [SPEECH], vocabulary, settings=options, source=source)
        source.manual_seed(seed)
        heard = list(
            complete_words(slm, SPEECH, vocabulary, settings=options, source=source)
        )

        words = [result.tokens[result.words == w] for w in range(len(result.codes))]
        assert [w.tokens.tolist() for w in heard] == [w.tolist() for w in words]
        assert np.array_equal([w.codes for w in heard], result.codes)
        assert all(set(word.tolist()) - {blank} for word in words)  # something is said
        later = [token for word in words for token in word[1:].tolist()]
        assert blank not in later
        assert all(w[1] == digit for w in words if w[0] == blank)
        lengths |= {len(w) for w in words if w[0] == blank}
    assert lengths


def test_a_sign_is_a_word_with_or_without_its_blank(slm):
    blank, sign = 3, 4
    vocabulary = make_vocabulary(
        [blank], banned=only(blank, sign), signs=[sign], blanks=[blank]
    )
    result = run(slm, SPEECH, vocabulary, text=Sampler(temperature=9.0))

    words = [result.tokens[result.words == w] for w in range(len(result.codes))]
    assert {tuple(word.tolist()) for word in words} == {(blank, sign), (sign,)}


@pytest.mark.parametrize("delay", [1, 2])
@pytest.mark.parametrize("max_words", [1, 2, 5])
def test_at_most_so_many_words_are_said_each_of_them_whole(delay, max_words):
    """The word that would be one too many is not begun."""
    slm = make_slm(delay=delay)
    free = run(slm, SPEECH, extra_words=50, max_tokens=40)

    result = run(slm, SPEECH, extra_words=50, max_tokens=40, max_words=max_words)

    assert len(result.codes) == max_words and not result.was_cut
    said = free.words < max_words
    assert result.tokens.tolist() == free.tokens[said].tolist()
    # What is flushed is drawn behind text that nobody keeps.
    same = max_words - delay + 1
    assert np.array_equal(result.codes[:same], free.codes[:same])


@pytest.mark.parametrize("delay", [1, 2])
def test_the_caller_says_when_it_is_enough(delay):
    slm = make_slm(delay=delay)
    free = run(slm, SPEECH, extra_words=50, max_tokens=20)
    heard = []

    def until(tokens):
        heard.append(list(tokens))
        return len(tokens) == 7

    result = run(slm, SPEECH, extra_words=50, max_tokens=20, until=until)

    assert result.tokens.tolist() == free.tokens[:7].tolist()
    assert not result.was_cut and len(result.codes) == result.words[-1] + 1
    assert heard[:7] == [free.tokens[:n].tolist() for n in range(1, 8)]


@pytest.mark.parametrize("level", ["word", "token"])
def test_the_last_codes_are_chosen_as_in_training_behind_the_pad(level):
    """The released model reads tokens there that nobody keeps: other codes."""
    slm = make_slm(delay=3, delay_level=level)

    def said_and_predicted(**settings):
        result = run(slm, SPEECH, extra_words=2, max_tokens=6, **settings)
        tokens = [*SPEECH.tokens, *result.tokens.tolist()]
        words = [*SPEECH.words, *(2 + result.words).tolist()]
        codes = np.concatenate([SPEECH.codes, result.codes])
        batch = collate([delay_words(tokens, words, 3, level)], [codes])
        with torch.no_grad():
            prediction = slm.predict_words(slm.read(slm.embed(batch)), batch)
        chosen = slm.head.choose(prediction, slm.codebooks)[0, 2:]
        return result.codes.tolist(), chosen.tolist()

    said, predicted = said_and_predicted()
    assert len(said) > 1 and said == predicted
    said, predicted = said_and_predicted(compat=True)
    assert said != predicted


def test_rows_of_a_batch_stop_each_on_their_own(slm):
    settings = CompletionSettings(
        text=GREEDY, max_tokens=9, extra_words=50, until=lambda t: t == first
    )
    first = run(slm, SPEECH, extra_words=50).tokens[:3].tolist()

    speech, nothing = complete(slm, [SPEECH, Prompt()], EVEN, settings=settings)

    assert speech.tokens.tolist() == first
    assert len(nothing.tokens) == 9 and nothing.was_cut


@pytest.mark.parametrize("level", ["word", "token"])
@pytest.mark.parametrize("delay", [1, 2, 3])
@pytest.mark.parametrize("prompt", [SPEECH, Prompt(), Prompt([4, 9], [0, 1])])
def test_word_by_word_is_the_same_completion(delay, prompt, level):
    """Also where a word's codes come before its last token."""
    slm = make_slm(delay=delay, delay_level=level)
    settings = CompletionSettings(text=GREEDY, max_tokens=12, extra_words=3)
    (whole,) = complete(slm, [prompt], EVEN, settings=settings)

    words = list(complete_words(slm, prompt, EVEN, settings=settings))

    assert len(words) == len(whole.codes) > 1
    for index, word in enumerate(words):
        assert np.array_equal(word.tokens, whole.tokens[whole.words == index])
        assert np.array_equal(word.codes, whole.codes[index])


def test_a_prompt_that_fills_the_context_is_refused_and_a_long_one_is_cut():
    slm = make_slm()
    slm.causal_lm.config.max_position_embeddings = 12
    long = Prompt([4] * 12, range(12), np.zeros((12, NUM_CODEBOOKS), dtype=int))

    with pytest.raises(ValueError, match="prompt 1 takes 13 positions.*has 12"):
        complete(slm, [SPEECH, long], EVEN)
    with pytest.raises(ValueError, match="^mine takes 13 positions"):
        complete(slm, [SPEECH, replace(long, name="mine")], EVEN)
    result = run(slm, SPEECH, extra_words=50, max_tokens=30)
    alone = [run(slm, p, extra_words=50, max_tokens=30) for p in (SPEECH, Prompt())]
    settings = CompletionSettings(text=GREEDY, extra_words=50, max_tokens=30)
    together = complete(slm, [SPEECH, Prompt()], EVEN, settings=settings)

    assert result.was_cut and len(result.tokens) == 12 - 4 - 1
    for one, row in zip(alone, together):
        assert np.array_equal(one.tokens, row.tokens) and one.was_cut == row.was_cut


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_row_whose_context_is_full_does_not_stop_the_others(family):
    """GPT-2 has no position behind its last one, not even for a row that has ended."""
    llm = make_llm(family)
    llm.config.max_position_embeddings = 14
    if family == "gpt2":
        llm.transformer.wpe = torch.nn.Embedding(14, llm.config.n_embd)
    slm = make_slm(llm=llm)
    long = Prompt([4] * 11, range(11), np.zeros((11, NUM_CODEBOOKS), dtype=int))
    settings = CompletionSettings(text=GREEDY, extra_words=50, max_tokens=30)

    short_row, long_row = complete(slm, [SPEECH, long], EVEN, settings=settings)

    assert (len(short_row.tokens), len(long_row.tokens)) == (14 - 4 - 1, 14 - 12 - 1)
    for prompt, found in ((SPEECH, short_row), (long, long_row)):
        (alone,) = complete(slm, [prompt], EVEN, settings=settings)
        assert np.array_equal(alone.tokens, found.tokens)


def test_a_stop_token_at_the_start_gives_nothing(slm):
    vocabulary = make_vocabulary(stops=[6], banned=only(6))

    result = run(slm, SPEECH, vocabulary)

    assert len(result.tokens) == len(result.codes) == 0
    assert result.trace.actions.tolist() == [Action.TERMINATE]


def test_a_stop_token_drawn_again_does_not_prolong_the_flush():
    """With the released machine and a delay of 2 this would never end."""
    vocabulary = make_vocabulary(stops=[6], banned=only(6))

    result = run(make_slm(delay=2), SPEECH, vocabulary, max_tokens=50)

    assert len(result.trace.tokens) == 2


def test_banned_tokens_are_never_drawn(slm):
    vocabulary = make_vocabulary(starts=range(VOCAB_SIZE), banned=range(5, VOCAB_SIZE))

    result = run(slm, Prompt(), vocabulary, text=Sampler(), max_tokens=40)

    assert set(result.trace.tokens.tolist()) <= set(range(5))


def test_draws_follow_the_generator(slm):
    settings = CompletionSettings(text=Sampler(), max_tokens=20)

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        results = complete(slm, [SPEECH], EVEN, settings=settings, source=generator)
        return results[0].tokens.tolist()

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_repetition_is_penalised_over_prompt_and_draws(slm):
    """A hard penalty on what was said leaves only new tokens."""
    text = Sampler(temperature=0.0, repetition_penalty=1e6)

    result = run(slm, SPEECH, text=text, max_tokens=15, extra_words=50)

    said = [*SPEECH.tokens, *result.trace.tokens.tolist()]
    assert len(set(said)) == len(said)


def test_codes_have_no_repetition_penalty():
    """It was passed over."""
    with pytest.raises(ValueError, match="repetition_penalty, which is of the text"):
        CompletionSettings(codes=Sampler(repetition_penalty=1.2))


def test_what_an_instruction_says_counts_but_for_the_released_first_token(slm):
    prompt = replace(SPEECH, before=[5, 6], after=[7])

    def counted(rule):
        settings = CompletionSettings(text=Sampler(rule=rule))
        loop = CompletionLoop(slm, [prompt], make_vocabulary(), settings, None)
        return set(loop.seen[0].nonzero().flatten().tolist())

    everything = {5, 6, 7, *SPEECH.tokens}
    assert SPEECH.tokens[0] not in [5, 6, 7, *SPEECH.tokens[1:]]
    assert counted("standard") == everything
    assert counted("released") == everything - {SPEECH.tokens[0]}


@torch.no_grad()
def test_without_prompt_the_start_symbol_counts_as_said(slm):
    """Of two tokens the start symbol is the likelier one until it is penalised."""
    logits = slm.output_layer(slm.read(slm.embed_start(1))[0, -1])
    lowered = logits[SOS_ID] / 1e6 if logits[SOS_ID] > 0 else logits[SOS_ID] * 1e6
    between = (logits < logits[SOS_ID]) & (logits > lowered)
    other = int(between.nonzero()[0])
    vocabulary = make_vocabulary(banned=only(SOS_ID, other))

    plain = run(slm, Prompt(), vocabulary)
    text = Sampler(temperature=0.0, repetition_penalty=1e6)
    penalised = run(slm, Prompt(), vocabulary, text=text)

    assert (plain.tokens[0], penalised.tokens[0]) == (SOS_ID, other)


def test_codes_can_be_drawn_from_a_linear_head():
    slm = make_slm(head="linear")

    greedy = run(slm, SPEECH)
    torch.manual_seed(0)
    drawn = run(slm, SPEECH, codes=Sampler(temperature=5.0))

    assert not np.array_equal(greedy.codes, drawn.codes)
    assert drawn.codes.min() >= 0 and drawn.codes.max() < CODEBOOK_SIZE


def test_codes_of_inner_tokens_are_ignored_in_the_trace(slm):
    result = run(slm, SPEECH)

    taken = result.trace.codes[:, 0] != IGNORE
    assert np.array_equal(result.trace.codes[taken], result.codes)
    assert (~taken).any()


def test_no_prompts_no_completions(slm):
    assert complete(slm, [], EVEN) == []


def test_train_mode_is_refused():
    slm = make_slm().train()

    with pytest.raises(ValueError, match=r"in train mode; call eval\(\) first"):
        complete(slm, [SPEECH], EVEN)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"extra_words": -1}, "extra_words must be at least 0"),
        ({"max_tokens": 0}, "max_tokens at least 1, got 16 and 0"),
        ({"max_words": 0}, "max_words must be at least 1, got 0"),
        ({"text_prompt": "raw"}, "'plain' or 'fused', got 'raw'"),
    ],
)
def test_settings_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        CompletionSettings(**values)
