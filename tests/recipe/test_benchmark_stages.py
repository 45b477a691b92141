"""Stages that put the spoken LM to pairs, questions and continuations."""

from recipe_shell import commands_of, dry, needs_espnet

pytestmark = needs_espnet


def test_pairs_are_made_encoded_scored_and_counted_where_they_are_wanted():
    kinds = ("--pair_kinds", "speaker_switch topic_switch", "--num_pairs", "7")

    commands = commands_of("score_pairs", *kinds)

    names = [words[0] for words in commands]
    assert names == ["make_pairs", "encode", "likelihood", "score_pairs"]
    made = " ".join(commands[0])
    assert "--kinds speaker_switch topic_switch --num_pairs 7" in made
    scored = " ".join(commands[2])
    assert "--moments dump/pairs/test/moments" in scored
    assert "--transcripts given" in scored
    assert commands_of("score_pairs") == []


def test_published_benchmarks_are_scored_at_once_by_the_words_of_one_source():
    sets = ("--benchmark_sets", "sSC tSC", "--at_once", "1")  # in this order

    commands = commands_of("score_pairs", *sets, "--whisper", "w")

    names = [words[0] for words in commands]
    assert names == [*["encode", "likelihood"] * 2, "score_pairs"]
    assert "--data_dir data/sSC" in " ".join(commands[0])
    assert "--transcripts asr" in " ".join(commands[0])
    assert "--transcripts w " in " ".join(commands[1])
    assert "--pairs data/sSC/pairs data/tSC/pairs" in " ".join(commands[-1])
    given = commands_of("score_pairs", *sets, "--benchmark_transcripts", "given")
    assert "--transcripts auto" in " ".join(given[0])
    assert "--transcripts given" in " ".join(given[1])
    for wrong in ("mine", "sBLIMP=given", "sSC=mine"):
        result = dry(*sets, "--benchmark_transcripts", wrong)
        assert "--benchmark_transcripts is asr or given" in result.stderr


def test_benchmarks_of_two_sources_are_not_compared():
    """Whisper repairs the words of sWUGGY that are none; SALMon has no text."""
    sets = ("--benchmark_sets", "sSC sWUGGY", "--at_once", "1")

    commands = commands_of(
        "score_pairs", *sets, "--benchmark_transcripts", "asr sWUGGY=given"
    )

    lines = [" ".join(words) for words in commands]
    assert [line.split()[0] for line in lines[-2:]] == ["score_pairs"] * 2
    assert "--transcripts auto" in lines[2] and "--transcripts given" in lines[3]
    folder = "exp/mini_an4/slm/benchmarks"
    for line, name, words in zip(lines[-2:], ("sSC", "sWUGGY"), ("asr", "given")):
        assert f"--pairs data/{name}/pairs --likelihoods {folder}/{name}/" in line
        assert f"--output_dir {folder}/words.{words} " in line
        assert f"--excluded {folder}/{name}/tokens/excluded.jsonl " in line


def test_words_that_are_none_are_not_repaired_unless_asked_for(tmp_path):
    sets = ("--benchmark_sets", "sSC zero", "--at_once", "1")
    sets += ("--datadir", str(tmp_path), "--benchmark_transcripts")
    for name, part in (("sSC", "sSC"), ("zero", "sWUGGY_oov")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "text").write_text("a word\n")
        (tmp_path / name / "pairs").write_text(f"p\t{part}\ta\tb\n")

    def writers(chosen):
        lines = [" ".join(words) for words in commands_of("score_pairs", *sets, chosen)]
        return [line.split("--transcripts ")[1].split()[0] for line in lines[:4:2]]

    assert writers("") == ["asr", "auto"]  # auto: given where there is a text
    assert writers("asr") == ["asr", "asr"]
    assert writers("zero=asr") == ["asr", "asr"]
    assert writers("sSC=given") == ["auto", "auto"]


def test_words_that_a_recogniser_wrote_are_not_given():
    kinds = ("--pair_kinds", "speaker_switch", "--transcripts", "asr", "--whisper", "w")

    for options, writer in (
        ((), "w"),
        (("--asr_opts", "--asr_tag some/tag --batch_size 3"), "some/tag"),
    ):
        commands = commands_of("score_pairs", *kinds, *options)
        assert f"--transcripts {writer} " in " ".join(commands[2])


def test_spoken_questions_are_asked_where_they_are_wanted():
    asked = ("--question_sets", "llama_questions", "--question_shots", "shots")
    asked += ("--question_opts", "--max_words 9", "--benchmark_transcripts", "given")

    commands = commands_of("score_answers", *asked)

    names = [words[0] for words in commands]
    assert names == ["encode", "encode", "complete", "score_answers"]
    lines = [" ".join(words) for words in commands]
    folder = "exp/mini_an4/slm/questions"
    shots = f"--shots {folder}/shots/tokens/tokens.jsonl"
    assert "--data_dir data/shots" in lines[0] and "--transcripts auto" in lines[0]
    assert "--with_prompt false" in lines[2] and "--top_p 0" in lines[2]
    assert lines[2].endswith(f"{shots} --max_words 9")
    for part in (
        "--answers data/llama_questions/answers",
        f"--tokens {folder}/llama_questions/answers/tokens.jsonl",
        "--benchmark LLaMA-Questions",
        "--transcripts given",
        shots,
    ):
        assert part in lines[3]
    assert "--shots none" in " ".join(commands_of("score_answers", *asked[:2])[-1])
    assert commands_of("score_answers") == []


def test_continuations_are_scored_where_that_is_wanted():
    (score,) = commands_of(
        "score_continuations", "--continuation_scores", "true",
        "--continuation_opts", "--mos dnsmos",
    )  # fmt: skip

    folder = "exp/mini_an4/slm/continuations/test"
    text = " ".join(score)
    assert f"--wav_scp {folder}/wav.scp --prompts {folder}/report.jsonl" in text
    assert "--mos dnsmos" in text
    assert commands_of("score_continuations") == []
