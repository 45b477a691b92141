"""Alignments that exist: TextGrids of any form, CTM, and transcripts that differ."""

import numpy as np
import pytest

from espnet_taste.align.contracts import AlignmentError
from espnet_taste.align.existing import (
    ExistingAligner,
    divide_signs,
    match_words,
    read_ctm,
    read_textgrid,
)

LONG = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.0
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "103 - Words"
        xmin = 0
        xmax = 2.0
        intervals: size = 3
        intervals [1]:
            xmin = 0.0
            xmax = 0.5
            text = ""
        intervals [2]:
            xmin = 0.5
            xmax = 1.25
            text = "say ""x"""
        intervals [3]:
            xmin = 1.25
            xmax = 2.0
            text = "caf\u00e9"
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 2.0
        points: size = 1
        points [1]:
            number = 0.75
            mark = "7"
'''
SHORT = '''File type = "ooTextFile"
Object class = "TextGrid"

0
2.0
<exists>
2
"IntervalTier"
"103 - Words"
0
2.0
3
0.0
0.5
""
0.5
1.25
"say ""x"""
1.25
2.0
"caf\u00e9"
"TextTier"
"clicks"
0
2.0
1
0.75
"7"
'''
ROWS = [(0.0, 0.5, ""), (0.5, 1.25, 'say "x"'), (1.25, 2.0, "caf\u00e9")]


@pytest.mark.parametrize("text", [LONG, SHORT], ids=["long", "short"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_textgrids_of_both_forms(tmp_path, text, encoding):
    path = tmp_path / "a.TextGrid"
    path.write_bytes(text.encode(encoding))

    assert read_textgrid(path) == {"103 - Words": ROWS}


def test_textgrids_of_another_library_are_read(tmp_path):
    textgrid = pytest.importorskip("praatio.textgrid")
    grid = textgrid.Textgrid()
    rows = [(0.0, 0.5, "one"), (0.5, 0.75, "2nd"), (0.75, 1.5, "3")]
    grid.addTier(textgrid.IntervalTier("words", rows, 0, 1.5))
    for form in ("short_textgrid", "long_textgrid"):
        path = tmp_path / f"{form}.TextGrid"
        grid.save(str(path), format=form, includeBlankSpaces=True)
        assert read_textgrid(path) == {"words": rows}


@pytest.mark.parametrize("text", ["", "hello", LONG[:300], '"ooTextFile" "Pitch" 1 2'])
def test_a_broken_textgrid_is_named(tmp_path, text):
    path = tmp_path / "a.TextGrid"
    path.write_text(text)

    with pytest.raises(ValueError, match="a.TextGrid: "):
        read_textgrid(path)


def test_words_are_matched_by_letters():
    intervals = [(0, 1, "DON"), (1, 2, "'T"), (2, 3, "well-known"), (3, 4, "x")]

    times = match_words(["Don't", "well-known,", "\u201cX.\u201d"], intervals)

    np.testing.assert_array_equal(times, [[0, 2], [2, 3], [3, 4]])


def test_signs_share_the_time_of_their_word():
    """The words of a transcript are signs, those of an aligner from a dictionary."""
    rows = [(0.0, 1.0, "\u4f60\u597d"), (1.0, 2.0, "two words"), (2.0, 3.0, "\u597d")]

    divided = divide_signs(rows)

    halves = [(0.0, 0.5, "\u4f60"), (0.5, 1.0, "\u597d")]
    assert divided == [*halves, *rows[1:]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["one", "three"], "word 2 of the transcript is 'three', .* 'two'"),
        (["one"], "goes on with 'two'"),
        (["one", "two", "three"], "word 3 of the transcript is 'three', .* ''"),
    ],
)
def test_transcripts_that_differ_are_told_where(words, message):
    with pytest.raises(AlignmentError, match=message) as caught:
        match_words(words, [(0, 1, "one"), (1, 2, "two")])
    assert caught.value.reason == "words_differ"


def test_a_ctm_is_read_in_time_order(tmp_path):
    path = tmp_path / "a.ctm"
    path.write_text(";; comment\nu 1 0.50 0.25 two 0.9\nu 1 0.10 0.40 one\n\n")

    assert read_ctm(path) == {"u": [(0.1, 0.5, "one"), (0.5, 0.75, "two")]}
    path.write_text("u 1 0.1 0.2 a\nu 1 x 0.25 two\n")
    with pytest.raises(ValueError, match="a.ctm:2: expected"):
        read_ctm(path)


def test_of_a_large_ctm_only_the_utterances_of_the_job_are_kept(tmp_path):
    path = tmp_path / "all.ctm"
    path.write_text("u 1 0 0.5 one\nv 1 0 0.5 two\nw 1 0 0.5 three\n")

    assert read_ctm(path, ["v"]) == {"v": [(0.0, 0.5, "two")]}
    assert set(ExistingAligner(path, keys=["u", "w"]).intervals) == {"u", "w"}


def audio(seconds):
    return np.zeros(round(16000 * seconds), dtype=np.float32)


def test_times_come_from_the_grid_of_the_utterance(tmp_path):
    (tmp_path / "103").mkdir()
    (tmp_path / "103" / "u.TextGrid").write_text(LONG)
    aligner = ExistingAligner(tmp_path)

    found = aligner.align(audio(2), ["sayx", "caf\u00e9!"],
                          key="u")  # fmt: skip

    np.testing.assert_allclose(found.times, [[0.5, 1.25], [1.25, 2.0]])
    with pytest.raises(AlignmentError, match="no_alignment: 'v' is not in"):
        aligner.align(audio(2), ["a"], key="v")
    with pytest.raises(AlignmentError, match="no tier 'phones', there are"):
        ExistingAligner(tmp_path, tier="phones").align(audio(2), ["a"], key="u")
    (tmp_path / "w.TextGrid").write_text("broken")
    with pytest.raises(AlignmentError, match="no_alignment: .*w.TextGrid"):
        ExistingAligner(tmp_path).align(audio(2), ["a"], key="w")


def test_times_come_from_the_ctm(tmp_path):
    path = tmp_path / "a.ctm"
    path.write_text(
        "u 1 0 0.3 <eps>\nu 1 0.3 0.4 one\nu 1 0.7 0.1 SIL\nu 1 0.8 0.4 two\n"
    )

    found = ExistingAligner(path).align(audio(1.0), ["One", "two"], key="u")

    np.testing.assert_allclose(found.times, [[0.3, 0.7], [0.8, 1.0]], atol=1e-6)
    assert found.num_moved == 1


def test_a_source_without_alignments_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no \*.TextGrid in"):
        ExistingAligner(tmp_path)
    with pytest.raises(FileNotFoundError, match="gone.ctm"):
        ExistingAligner(tmp_path / "gone.ctm")


def test_a_transcript_in_signs_gets_its_times(tmp_path):
    path = tmp_path / "a.ctm"
    path.write_text("u 1 0.0 0.4 \u4f60\u597d\nu 1 0.4 0.6 \u4eba\n")

    found = ExistingAligner(path).align(
        np.zeros(16000, np.float32), ["\u4f60", "\u597d\u3002", "\u4eba"], key="u"
    )

    np.testing.assert_allclose(found.times, [[0, 0.2], [0.2, 0.4], [0.4, 1]], atol=1e-6)


def test_ids_may_name_folders_and_two_grids_of_an_utterance_are_refused(tmp_path):
    """The last of them was taken, and ids with a slash had none."""
    for folder in ("s1", "s2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "u.TextGrid").write_text(LONG)
    aligner = ExistingAligner(tmp_path)

    with pytest.raises(AlignmentError, match="'u' has 2 TextGrids, .*s1/u.TextGrid"):
        aligner.align(audio(2), ["x"], key="u")
    with pytest.raises(AlignmentError, match="words_differ"):
        aligner.align(audio(2), ["x"], key="s2/u")
