"""Whether the claimed ordering came out, and how sure that is."""

import dataclasses

import pytest
from fabricated_scores import KEYS, unit_file, whole_run

from espnet_taste.eval.report import ordering_verdicts, render_page
from espnet_taste.eval.results import Results, build_set


def test_the_ordering_is_read_off_the_intervals():
    lines = ordering_verdicts(build_set("test", whole_run()))

    loss = [line for line in lines if line.startswith("unit loss")]
    assert len(loss) == 2
    assert all("**yes**" in line for line in loss)
    assert "text only, trained as long as TASTE?" in loss[0]


def test_an_ordering_that_did_not_come_out_is_said():
    run = whole_run()
    run["no_quantizer_control"] = [unit_file("no_quantizer_control", loss=2.6)]
    del run["text_only_control"]
    run["text_only"][0] = dataclasses.replace(
        run["taste"][0], system="text_only", items=run["taste"][0].items
    )

    lines = ordering_verdicts(build_set("test", run))

    assert "**undecided**" in lines[0]
    assert "**no, the other way round**" in lines[1]
    assert lines[-1].startswith("No control run for: text only.")


@pytest.mark.parametrize(
    ("count", "outcome"), [(9, "9 utterances are too few"), (10, "**yes**")]
)
def test_a_few_utterances_decide_nothing(count, outcome):
    keys = KEYS[:count]
    run = {
        role: [
            (
                dataclasses.replace(file, items={k: file.items[k] for k in keys})
                if file.items
                else file
            )
            for file in files
        ]
        for role, files in whole_run().items()
    }

    results = build_set("test", run)
    page = render_page(Results({}, (results,)))

    lines = ordering_verdicts(results)
    assert all(outcome in line for line in lines if line.startswith("unit loss"))
    differences = page.split("### Paired differences")[1].split("###")[0]
    assert ("| **" in differences) == (count >= 10)


def test_a_verdict_on_what_is_not_meaningful_says_so():
    run = whole_run()
    assert "not meaningful" not in "".join(ordering_verdicts(build_set("test", run)))
    run["taste"][0] = unit_file("taste", reliance=0.01)

    lines = ordering_verdicts(build_set("test", run))

    assert all(line.endswith("; not meaningful: TASTE †1") for line in lines)


def test_a_lower_accuracy_is_no_gain():
    """The sign of better differs between loss and accuracy."""
    run = whole_run()
    run["taste"][0] = unit_file("taste", loss=2.9)

    lines = ordering_verdicts(build_set("test", run))

    for name in ("unit loss", "top-1"):
        step = next(line for line in lines if line.startswith(f"{name}: TASTE better"))
        assert "**no, the other way round**" in step
