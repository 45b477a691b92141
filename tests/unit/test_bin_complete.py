"""The command that continues spoken prompts."""

from dataclasses import replace

import numpy as np
import pytest

from espnet_taste.bin import complete as command
from espnet_taste.data.kaldi import read_table
from espnet_taste.pipeline import spoken_lm
from espnet_taste.pipeline.interchange import TokenFile, write_tokens
from espnet_taste.pipeline.tokens import TasteTokens

MODELS = {"tokenizer": "me"}
TEXTS = {"a": "one two three", "b": "four five", "c": "six", "d": "seven eight"}


def make_tokens(text, **fields):
    count = len(text.split())
    ends = np.cumsum(np.full(count, 1.0))
    tokens = TasteTokens(
        words=tuple(text.split()),
        speaker=np.ones(3, np.float32),
        asr_tokens=np.arange(count),
        asr_words=np.arange(count),
        codes=np.full((count, 2), count),
        times=np.stack([ends - 0.5, ends], axis=1).astype(np.float32),
        span_s=(0.0, float(count)),
        models=MODELS,
    )
    return replace(tokens, **fields)


class Model:
    """Says back the prompt's first word and its seed; may fail, be silent or die."""

    def __init__(self):
        self.tokenizer = type("T", (), {"models": MODELS})
        self.prompts, self.settings = [], None
        self.dies_after, self.refuses, self.silent = None, (), ()

    def complete(self, prompts, settings, *, seed, batch_size, speaker=None):
        if speaker is not None:
            self.written, self.speakers, self.settings = prompts, speaker, settings
            return [make_tokens("and so") for _ in prompts]
        if self.dies_after is not None and len(self.prompts) >= self.dies_after:
            raise KeyboardInterrupt
        assert batch_size == len(prompts) == len(seed)
        self.speakers = [prompt.speaker for prompt in prompts]
        if any(prompt.words[0] in self.refuses for prompt in prompts):
            raise ValueError("too long for the LLM")
        self.prompts += [prompt.text for prompt in prompts]
        self.settings = settings
        return [
            make_tokens("" if p.words[0] in self.silent else f"{p.words[0]} {one}")
            for p, one in zip(prompts, seed)
        ]

    def chat(self, chats, settings, *, seed, batch_size):
        assert batch_size == len(chats) == len(seed)
        for (message,) in chats:
            instruction, speech = message["content"]
            self.prompts.append((message["role"], instruction, speech.text))
        return [make_tokens(f"answer {one}") for one in seed]


@pytest.fixture
def model(monkeypatch):
    model = Model()
    monkeypatch.setattr(
        spoken_lm.TasteSpokenLM, "from_pretrained", lambda *_, **options: model
    )
    return model


@pytest.fixture
def folder(tmp_path):
    rows = {key: make_tokens(text) for key, text in TEXTS.items()}
    write_tokens(tmp_path / "tokens.jsonl", rows)
    return tmp_path


def run(folder, *options):
    paths = ["--tokens", str(folder / "tokens.jsonl")]
    paths += ["--output_dir", str(folder / "out")]
    return command.main(["--model", "m", *paths, *options])


def texts_of(folder):
    tokens = TokenFile(folder / "out" / "tokens.jsonl")
    return {key: tokens[key].text for key in tokens}


def test_prompts_go_on_and_are_written_with_what_follows(folder, model):
    assert run(folder, "--batch_size", "3", "--max_words", "5", "--top_p", "0") == 0

    texts = texts_of(folder)
    assert list(texts) == list(TEXTS)
    for key, text in TEXTS.items():
        assert texts[key].startswith(f"{text} {text.split()[0]} ")
    assert model.settings.max_words == 5 and model.settings.text.is_greedy


def test_what_follows_can_be_written_alone(folder, model):
    assert run(folder, "--with_prompt", "false") == 0

    assert [text.split()[0] for text in texts_of(folder).values()] == [
        text.split()[0] for text in TEXTS.values()
    ]


def test_a_prompt_is_cut_at_the_nearest_word_end(folder, model):
    assert run(folder, "--prompt_s", "1.6") == 0

    assert model.prompts == ["one two", "four five", "six", "seven eight"]
    assert list(read_table(folder / "out" / "prompt_text").values()) == model.prompts
    whole = make_tokens("one two three")
    for seconds, text in ((1.4, "one"), (0.1, "one"), (99, whole.text)):
        assert whole.up_to(seconds).text == text
    assert whole[1:].up_to(0.9).text == "two"


def test_texts_of_prompts_stay_with_their_tokens(folder, model):
    """A subset, then another one, into one folder."""
    for keys in ("a b", "c"):
        (folder / "keys").write_text("\n".join(keys.split()) + "\n")
        assert run(folder, "--key_file", str(folder / "keys")) == 0

    assert list(texts_of(folder)) == ["a", "b", "c"]
    assert list(read_table(folder / "out" / "prompt_text")) == ["a", "b", "c"]


def test_an_utterance_gets_the_same_in_any_batch_and_another_by_the_seed(folder, model):
    for out, options in {
        "one": ["--batch_size", "1"],
        "all": ["--batch_size", "4"],
        "other": ["--seed", "3"],
    }.items():
        assert run(folder, "--output_dir", str(folder / out), *options) == 0
    one, whole, other = (
        (folder / out / "tokens.jsonl").read_text() for out in ("one", "all", "other")
    )

    assert one == whole != other


def test_examples_stand_before_every_prompt_and_its_voice_goes_on(folder, model):
    other = np.zeros(3, np.float32)
    shots = {"x": make_tokens("who where", speaker=other), "y": make_tokens("when")}
    write_tokens(folder / "shots.jsonl", shots)

    assert run(folder, "--shots", str(folder / "shots.jsonl")) == 0

    assert model.prompts == [f"who where when {text}" for text in TEXTS.values()]
    assert all(speaker.all() for speaker in model.speakers)
    assert texts_of(folder)["c"].startswith("six who ")


def test_speech_is_answered_as_instructed(folder, model):
    asked = ["--instruction", "Answer: ", "--with_prompt", "false"]

    assert run(folder, *asked) == 0

    expected = [("user", "Answer: ", text) for text in TEXTS.values()]
    assert model.prompts == expected
    assert texts_of(folder)["a"].startswith("answer ")


def test_an_answer_is_not_written_behind_its_question(folder, model, capsys):
    assert run(folder, "--instruction", "Answer: ") == 1
    assert "add --with_prompt false" in capsys.readouterr().err


def test_written_prompts_go_on_in_the_voice_of_the_utterance(folder, model, capsys):
    table = folder / "texts"
    table.write_text("a once upon\nb\nc and then\nd so\n")
    options = ["--prompt_texts", str(table), "--top_k", "5", "--compat", "false"]

    assert run(folder, *options, "--with_prompt", "false") == 0

    assert model.written == ["once upon", None, "and then", "so"]
    assert all(voice.all() for voice in model.speakers)
    assert model.settings.text.top_k == 5
    assert set(texts_of(folder).values()) == {"and so"}
    assert read_table(folder / "out" / "prompt_text")["c"] == "and then"
    other = ["--output_dir", str(folder / "other")]
    assert run(folder, *options, *other) == 1
    assert "add --with_prompt false" in capsys.readouterr().err
    table.write_text("a once\n")
    assert run(folder, *options, "--with_prompt", "false", *other) == 1
    assert "no line of 'b'" in (folder / "other" / "excluded.jsonl").read_text()


def test_the_released_rules_can_be_asked_for(folder, model):
    assert run(folder, "--compat", "true") == 0

    assert model.settings.compat and model.settings.text.rule == "released"


def test_a_killed_run_goes_on_where_it_was(folder, model):
    model.dies_after = 2
    with pytest.raises(KeyboardInterrupt):
        run(folder, "--batch_size", "2")
    model.dies_after = None

    assert run(folder, "--batch_size", "2") == 0

    assert sorted(model.prompts) == sorted(TEXTS.values())
    assert list(texts_of(folder)) == list(TEXTS)


def test_other_settings_do_not_go_on_in_the_same_folder(folder, model, capsys):
    assert run(folder) == 0
    assert run(folder, "--temperature", "2") == 1
    assert "begun with other settings (temperature 0.7 -> 2.0)" in (
        capsys.readouterr().err
    )


def test_one_that_fails_spoils_no_other_and_is_counted(folder, model, capsys):
    model.refuses, model.silent = ("four",), ("six",)

    assert run(folder, "--with_prompt", "false", "--max_excluded", "0.5") == 0

    assert list(texts_of(folder)) == ["a", "d"]
    rows = (folder / "out" / "excluded.jsonl").read_text()
    assert '"key": "b", "reason": "not_continued", "detail": "too long' in rows
    assert '"key": "c", "reason": "nothing_said"' in rows
    assert "not_continued" in capsys.readouterr().out


def test_too_many_exclusions_end_with_an_error(folder, model, capsys):
    model.refuses = ("four",)

    assert run(folder) == 1
    assert "1 of 4 utterances are excluded" in capsys.readouterr().err


def test_without_word_times_a_prompt_cannot_be_cut():
    with pytest.raises(ValueError, match="by their times, which are not known"):
        make_tokens("one two", times=None).up_to(3.0)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--prompt_s", "0"), "--prompt_s must be above 0"),
        (("--batch_size", "0"), "--batch_size must be at least 1"),
        (("--max_words", "0"), "max_words must be at least 1"),
        (("--temperature", "-1"), "temperature must be >= 0"),
    ],
)
def test_options_out_of_range_are_refused(folder, model, option, message, capsys):
    assert run(folder, *option) == 1
    assert message in capsys.readouterr().err


def test_a_model_that_ends_at_once_has_not_gone_on(folder, model):
    """Behind its prompt an empty continuation looks like a long one."""
    model.silent = ("six",)

    assert run(folder, "--max_excluded", "0.5") == 0

    assert list(texts_of(folder)) == ["a", "b", "d"]


def test_continuations_of_other_tokens_of_the_same_id_are_refused(
    folder, model, capsys
):
    assert run(folder) == 0 == run(folder)
    rows = {key: make_tokens(text) for key, text in TEXTS.items()}
    rows["b"] = make_tokens("four six")
    rows["e"] = make_tokens("nine")
    write_tokens(folder / "tokens.jsonl", rows)

    assert run(folder) == 1
    assert "other tokens than when" in (error := capsys.readouterr().err)
    assert "1 results" in error and "'b'" in error

    rows["b"] = make_tokens(TEXTS["b"])
    write_tokens(folder / "tokens.jsonl", rows)
    assert run(folder) == 0 and "e" in texts_of(folder)  # files may grow
