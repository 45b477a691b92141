"""YAML files that people write: an empty one, broken ones, values in wrong places."""

import pytest

from espnet_taste.bin import check_whisper, install_vocoder, train_units
from espnet_taste.data.settings import read_settings
from espnet_taste.pipeline.speech import DecodeOptions

BROKEN = "a: [1\nb: {\n"


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "options.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_names_and_values_are_read(write):
    assert read_settings(write("a: 1\nb: [x]\n")) == {"a": 1, "b": ["x"]}
    assert read_settings(write("# nothing but a comment\n")) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BROKEN, "options.yaml: not YAML: while parsing.* line 2, column 2"),
        ("- a\n", "options.yaml: expected a YAML mapping"),
        ("a", "options.yaml: expected a YAML mapping"),
    ],
)
def test_anything_else_is_one_line_that_names_the_file(write, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_settings(write(text))
    assert "\n" not in str(caught.value)


def test_a_file_without_decoding_options_leaves_the_defaults(write):
    """Both ended in an AttributeError or TypeError."""
    for text in ("", "# none\n", "completion:\nsampling:\n", "completion: {text: }"):
        options = DecodeOptions.read(write(text))
        assert options.sampling == DecodeOptions().sampling
        assert options.completion == DecodeOptions().completion


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sampling: 3", "names and values for UnitSampling, got 3"),
        ("completion: [8]", r"names and values for CompletionSettings, got \[8\]"),
        ("completion: {text: 0.9}", "names and values for Sampler, got 0.9"),
    ],
)
def test_a_value_in_the_place_of_names_is_refused(write, text, message):
    with pytest.raises(ValueError, match=message):
        DecodeOptions.read(write(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch_size: '8'", "batch_size of DecodeOptions cannot be '8', a str"),
        ("batch_size: 8.5", "batch_size of DecodeOptions cannot be 8.5, a float"),
        ("max_prompts: true", "max_prompts of DecodeOptions cannot be True, a bool"),
        ("sampling: {top_k: ten}", "top_k of UnitSampling cannot be 'ten'"),
        (
            "completion: {max_words: []}",
            r"max_words of CompletionSettings .* \[\], a l",
        ),
        (
            "completion: {text: {top_p: 9e-1}}",
            "top_p of Sampler cannot be '9e-1', a str",
        ),
        ("completion: {until: word}", "until of CompletionSettings cannot be 'word'"),
        ("sampling: {top_k: null}", "top_k of UnitSampling cannot be None"),
        ("sampling: {bounds: [tokens]}", r"bounds must be .* got \['tokens'\]"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_name(write, text, message):
    """It ended in a TypeError of torch or Python; YAML reads 9e-1 as a text."""
    with pytest.raises(ValueError, match=message):
        DecodeOptions.read(write(text))


def test_whole_numbers_and_nothing_stand_where_they_may(write):
    text = "sampling: {temperature: 1}\ncompletion: {max_words: null, codes: null}"

    options = DecodeOptions.read(write(text))

    assert options.sampling.temperature == 1
    assert options.completion.max_words is None


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (train_units, ("--data_dir", ".", "--output_dir", "out")),
        (install_vocoder, ("--output_dir", "out")),
        (check_whisper, ("--whisper", "none")),
    ],
)
def test_commands_say_in_one_line_that_a_file_is_broken(
    write, capsys, command, options
):
    assert command.main(["--config", str(write(BROKEN)), *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "options.yaml: not YAML: " in line
