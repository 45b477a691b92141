"""The page: its structure, its marks, and that every number comes from the scores."""

import json
import re

import pytest
from fabricated_scores import audio_file, save_run, unit_file, whole_run

from espnet_taste.bin.report import gather_exclusions, main
from espnet_taste.eval.cells import format_bitrate, format_score, table
from espnet_taste.eval.metrics import METRICS
from espnet_taste.eval.report import render_page
from espnet_taste.eval.results import Results, Row, Score, build_set

MAIN_ROWS = [
    "original audio",
    "units only (topline)",
    "text only",
    "text only, trained as long as TASTE",
    "TASTE without quantizer",
    "TASTE without quantizer, trained as long as TASTE",
    "TASTE",
]
OUTLINE = """\
# Results
## Test set `test`
### Ordering
### Paired differences
### Details of the free-running scores
### Streams
### Spoken LM
## Excluded and skipped
## How it was measured
## Environment"""


def page_of(run, **fields):
    results = Results({"seed": "1"}, (build_set("test", run),), **fields)
    return render_page(results)


def first_table(page):
    """Return the cells of the first table, head first."""
    lines = [line for line in page.split("## Test set")[1].splitlines()]
    start = next(n for n, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return [rows[0], *rows[2:]]


def test_outline():
    page = page_of(whole_run())

    heads = [line for line in page.splitlines() if line.startswith("#")]
    assert "\n".join(heads) == OUTLINE


def test_one_row_for_every_system_and_every_row_complete():
    head, *rows = first_table(page_of(whole_run()))

    assert [row[0] for row in rows] == MAIN_ROWS
    assert {len(row) for row in rows} == {len(head)}
    assert [cell == "-" for cell in rows[0]] == [
        *(False, True, True, True, True, True),
        *(False, False, True, True, True, False),
    ]
    assert "-" not in rows[-1]


def test_cells_show_the_scores():
    run = whole_run()
    score = build_set("test", run).row("taste").scores["unit_loss"]

    cell = first_table(page_of(run))[-1][1]

    numbers = [float(number) for number in re.findall(r"[\d.]+", cell)]
    expected = [score.value, score.low, score.high]
    assert numbers == [pytest.approx(number, abs=5e-4) for number in expected]


def test_not_meaningful_cells_carry_a_dagger_and_its_reason():
    run = whole_run()
    run["taste"][1] = audio_file("taste", matched_share=0.25)

    page = page_of(run)

    *_, text_row, _, _, _, taste_row = first_table(page)
    assert "\u20201 @ " in taste_row[8]
    assert "\u2020" not in text_row[8]
    assert "\u2020" not in taste_row[9]
    assert "* \u20201 not meaningful (TASTE): only 2" in page


def test_a_dagger_with_two_reasons_lists_both():
    run = whole_run()
    run["taste"][0] = unit_file("taste", reliance=0.01)
    run["taste"][1] = audio_file("taste", matched_share=0.1)

    assert "\u20201,2 @ " in first_table(page_of(run))[-1][8]


def test_the_details_carry_daggers_too_but_not_where_there_is_no_number():
    run = whole_run()
    run["taste"][0] = unit_file("taste", reliance=0.01)

    section = page_of(run).split("### Details")[1].split("###")[0]

    cells = section.strip().splitlines()[-1].split(" | ")
    assert cells[3].endswith("] \u20201")  # within 50 ms
    assert cells[6] == "none: no two transcripts are identical"


def test_every_stream_is_listed_once():
    section = page_of(whole_run()).split("### Streams")[1].split("###")[0]

    rows = [line.split(" | ")[1] for line in section.strip().splitlines()[2:]]
    assert rows == ["units", "characters", "word codes"]


def test_differences_that_exclude_zero_are_bold():
    section = page_of(whole_run()).split("### Paired differences")[1]
    line = next(row for row in section.splitlines() if row.startswith("| TASTE | text"))

    assert "| **-0." in line
    assert "| +0.000 [+0.000, +0.000] |" in line


def test_the_spoken_lm_has_its_perplexity():
    page = page_of(whole_run())
    without = whole_run()
    del without["slm"]

    line = next(r for r in page.splitlines() if r.startswith("| text loss (nats"))
    assert line.split(" | ")[2] == "26.44"  # exp(65.5 / 20)
    assert "code accuracy minus unigram code accuracy: +15.0%" in page
    assert "No spoken LM was scored in this run." in page_of(without)


def test_exclusions_and_skipped_counts_are_on_the_page():
    exclusions = {
        "train": {"format": {"kept": 90, "excluded": {"silent": 3, "nan": 0}}}
    }

    page = page_of(whole_run(), exclusions=exclusions)

    assert "| train | format | 90 | silent 3 |" in page
    assert "| test | TASTE | audio: heard_as_nothing 1 |" in page


def test_formats():
    loss, wer = METRICS["unit_loss"], METRICS["wer"]

    assert format_score(Score(2.5, 2.25, 2.75), loss) == "2.500 [2.250, 2.750]"
    assert format_score(Score(0.5, 0.25, 0.75), wer) == "50.0% [25.0, 75.0]"
    assert format_score(Score(0.5, note="too few"), wer) == "50.0% (too few)"
    assert format_score(Score(None, note="no word"), wer) == "none: no word"
    assert format_score(Score(0.5, 0.1, 1.0), loss, signed=True).startswith("+0.500 [+")
    assert format_score(None, loss) == "-"


def test_rates_name_their_streams():
    rates = {"code_used_bps": 61.5, "code_nominal_bps": 72.0}
    rates |= {"text_used_bps": 40.0, "text_nominal_bps": 50.0}

    assert format_bitrate(Row("original", "s", {})) == "-"
    assert format_bitrate(Row("no_quantizer", "s", {})) == "vectors"
    assert (
        format_bitrate(Row("taste", "s", {}, rates))
        == "codes 61.5 (72.0) + text 40.0 (50.0)"
    )


def test_a_cell_cannot_break_the_table():
    assert table(["a"], [["x|y\nz"]]).splitlines()[-1] == r"| x\|y z |"


@pytest.fixture
def run_report(tmp_path):
    """Call the command on a saved run; return its status."""

    def call(files=None, *more):
        data = tmp_path / "dump" / "test"
        data.mkdir(parents=True, exist_ok=True)
        summary = {"kept": 12, "excluded": {"silent": 2}}
        (data / "summary.json").write_text(json.dumps(summary))
        options = save_run(tmp_path / "exp", files)
        options += ["--test_sets", "test", "--output_dir", str(tmp_path), "--seed", "7"]
        return main([*options, "--data_dir", str(data), *more])

    return call


def test_command(tmp_path, run_report):
    config = tmp_path / "train.yaml"
    config.write_text("a: 1\n")

    assert run_report(None, "--config", str(config), "--meta", "hours=2") == 0

    content = json.loads((tmp_path / "results.json").read_text())
    page = (tmp_path / "RESULTS.md").read_text()
    assert content["metadata"]["seed"] == "7"
    assert content["exclusions"]["test"]["dump"]["excluded"] == {"silent": 2}
    for line in ("| seed | 7 |", "| hours | 2 |", "| test | dump | 12 | silent 2 |"):
        assert line in page
    assert f"| config {config} | sha256 " in page


def test_command_refuses_a_run_without_a_row(tmp_path, run_report, capsys):
    files = whole_run()
    del files["units"]

    assert run_report(files) == 1
    assert "no scores for the rows ['units']" in capsys.readouterr().err
    assert not (tmp_path / "RESULTS.md").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--system", "taste"], "--system must be KEY=VALUE, got 'taste'"),
        (["--system", "taste=x"], "--system taste is given twice"),
        (["--meta", "a=1", "--meta", "a=2"], "--meta a is given twice"),
        (["--config", "none.yaml"], "none.yaml"),
    ],
)
def test_command_refuses_broken_options(run_report, capsys, options, message):
    assert run_report(None, *options) == 1
    assert message in capsys.readouterr().err


def write_summary(folder, content):
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(content)
    return folder


def test_exclusions_are_gathered_by_set_and_step(tmp_path):
    raw = write_summary(
        tmp_path / "raw" / "te", '{"total": 6, "kept": 5, "excluded": {"nan": 1}}'
    )
    aligned = write_summary(
        tmp_path / "aligned" / "te", '{"kept": 4, "excluded": {"oov": 1}, "x": "y"}'
    )

    assert gather_exclusions([raw, aligned]) == {
        "te": {
            "raw": {"kept": 5, "excluded": {"nan": 1}},
            "aligned": {"kept": 4, "excluded": {"oov": 1}},
        }
    }
    with pytest.raises(ValueError, match="step 'raw' of 'te' twice"):
        gather_exclusions([raw, raw])


@pytest.mark.parametrize("content", ['{"kept": 1}', "[]", "{"])
def test_a_summary_of_another_form_is_refused(tmp_path, content):
    folder = write_summary(tmp_path / "raw" / "te", content)
    with pytest.raises(ValueError, match="summary.json: (no 'kept' and|not JSON)"):
        gather_exclusions([folder])


def test_the_seed_comes_from_the_training_config(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("seed: 1986\n")
    options = save_run(tmp_path / "exp")
    options += ["--test_sets", "test", "--output_dir", str(tmp_path)]

    assert main([*options, "--train_config", str(config)]) == 0

    assert "| seed | 1986 |" in (tmp_path / "RESULTS.md").read_text()
    config.write_text("lr: 1\n")
    assert main([*options, "--train_config", str(config)]) == 1


def pair_facts(accuracy, **fields):
    facts = {"accuracy": accuracy, "low": 0.4, "high": 0.8}
    return facts | {"num_pairs": 20, "num_scored": 19} | fields


def test_pairs_of_speech_have_a_section_of_their_own():
    conventions = {
        "sum": {"speaker_switch": pair_facts(0.55)},
        "taste": {"speaker_switch": pair_facts(0.6), "mean": {"accuracy": 0.5}},
    }
    pairs = {"test": {"transcripts": "given", "conventions": conventions}}

    page = page_of(whole_run(), pairs=pairs)

    section = page.split("## Spoken LM on pairs of speech")[1].split("\n## ")[0]
    assert "| pairs | sum | taste | scored of all |" in section
    row = "| speaker_switch | 55.0% [40.0, 80.0] | 60.0% [40.0, 80.0] | 19 of 20 |"
    assert row in section
    assert "| mean | - | 50.0% | - |" in section
    assert "the words' source: given" in section
    assert "chance is 50 %" in section


def test_conventions_that_scored_different_numbers_of_pairs_show_both():
    conventions = {
        "taste": {"speaker_switch": pair_facts(0.6)},
        "sum": {"speaker_switch": pair_facts(0.6, num_scored=18)},
        "localised": {"speaker_switch": pair_facts(0.6, num_scored=12)},
    }
    pairs = {"test": {"transcripts": "given", "conventions": conventions}}

    assert "[40.0, 80.0] | 12 to 19 of 20 |" in page_of(whole_run(), pairs=pairs)


def test_pair_scores_are_read_from_their_file(tmp_path, run_report):
    facts = {"speaker_switch": pair_facts(0.75)}
    content = {"transcripts": "given", "conventions": {"taste": facts}}
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(content))

    assert run_report(None, "--pairs", f"test={path}") == 0

    (found,) = tmp_path.rglob("results.json")
    assert json.loads(found.read_text())["pairs"] == {"test": content}
    assert "75.0%" in (found.parent / "RESULTS.md").read_text()


def test_another_file_is_not_read_as_pair_scores(tmp_path, capsys, run_report):
    path = tmp_path / "pairs.json"
    path.write_text("[]")

    assert run_report(None, "--pairs", f"test={path}") == 1
    assert "no 'transcripts' and 'conventions'" in capsys.readouterr().err


def continuation_facts(**fields):
    facts = {"judge": "base", "llm": "some", "num_items": 9, "num_empty": 1}
    facts["gen_ppl"] = {"value": 20.04, "low": 15.0, "high": 30.0}
    facts["auto_bleu"] = {"value": 0.1, "low": None, "high": None}
    facts["words"] = {"value": None, "low": None, "high": None}
    return facts | fields


def test_continuations_have_a_section_of_their_own():
    row = {"system": "S", "value": 46.6, "source": "a paper", "note": "another LM"}
    ratings = {"distillmos": {"value": 3.5, "low": 3.0, "high": 4.0}}
    scores = {
        "test": continuation_facts(ratings=ratings, published={"GenPPL": [row]}),
        "more": continuation_facts(prompts_cut_off=True, num_unrated=2, judge="tiny"),
    }

    page = page_of(whole_run(), continuations=scores)

    section = page.split("## Spoken continuations")[1].split("\n## ")[0]
    assert "| test | 20.0 [15.0, 30.0] | 0.100 | - | 3.50 [3.00, 4.00] | 1 of 9 |" in (
        section
    )
    assert "| more | 20.0 [15.0, 30.0] | 0.100 | - | - | 1 of 9 |" in section
    for text in (
        "Judge: base; text LM: some.",
        "Judge: tiny; text LM: some.",
        "`more`: 2 of 9 lack an opinion score and are left out of its mean.",
        "begin with their prompts",
    ):
        assert text in section
    assert "* published, GenPPL: S 46.6" in section
    assert "Spoken continuations" not in page_of(whole_run())


def test_answer_scores_are_read_from_their_file(tmp_path, run_report):
    path = tmp_path / "a.json"
    path.write_text('{"accuracy": 0.25, "num_items": 4, "output": "text"}')

    assert run_report(None, "--answers", f"questions={path}") == 0
    (found,) = tmp_path.rglob("results.json")
    assert json.loads(found.read_text())["answers"]["questions"]["num_items"] == 4
    path.write_text("{}")
    assert run_report(None, "--answers", f"questions={path}") == 1


def test_published_values_stand_below_the_pairs():
    row = {"system": "S", "value": 61.5, "source": "a paper", "note": "summed"}
    content = {"transcripts": "given", "conventions": {"sum": {"sSC": pair_facts(0.5)}}}
    content["published"] = {"sSC": [row]}

    page = page_of(whole_run(), pairs={"benchmarks": content})

    assert "* published, sSC: S 61.5\n*   a paper: summed" in page


def test_continuation_scores_are_read_from_their_file(tmp_path, run_report, capsys):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(continuation_facts()))

    assert run_report(None, "--continuations", f"test={path}") == 0
    (found,) = tmp_path.rglob("results.json")
    assert json.loads(found.read_text())["continuations"]["test"]["llm"] == "some"
    path.write_text("{}")
    assert run_report(None, "--continuations", f"test={path}") == 1
    assert "no 'judge', 'gen_ppl' and 'auto_bleu'" in capsys.readouterr().err
