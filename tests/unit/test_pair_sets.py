"""Benchmarks of pairs: published folders and lists, read and checked."""

import pytest

from espnet_taste.data.pair_sets import (
    SALMON_PARTS,
    Pair,
    check_counts,
    read_list,
    read_pairs,
    read_salmon,
    read_storycloze,
    read_zerospeech,
    write_pairs,
)


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def salmon(folder, count=2):
    names = [
        f"{part}/sample_{number}_{half}.wav"
        for part in SALMON_PARTS
        for number in range(count)
        for half in (0, 1)
    ]
    return touch(folder, *names)


def test_salmon_has_the_consistent_half_first(tmp_path):
    found = read_salmon(salmon(tmp_path))

    assert len(found.pairs) == 2 * 8 and len(found.audio) == 4 * 8
    pair = next(p for p in found.pairs if p.part == "rir_consistency")
    assert found.audio[pair.positive] == tmp_path / "rir_consistency/sample_0_0.wav"
    assert found.audio[pair.negative] == tmp_path / "rir_consistency/sample_0_1.wav"
    check_counts(found, dict.fromkeys(SALMON_PARTS, 2))
    with pytest.raises(ValueError, match="bg_alignment has 2, expected 200"):
        check_counts(found, dict.fromkeys(SALMON_PARTS, 200))


def test_storycloze_pairs_even_with_odd(tmp_path):
    names = ("0_a-b_correct.wav", "1_c_incorrect.wav", "12_x_correct.wav")
    found = read_storycloze(touch(tmp_path, *names, "13_y_incorrect.wav"), "sSC")

    assert [pair.part for pair in found.pairs] == ["sSC", "sSC"]
    last = found.pairs[1]
    assert found.audio[last.positive].name == "12_x_correct.wav"
    assert found.audio[last.negative].name == "13_y_incorrect.wav"


def test_zerospeech_pairs_by_id_and_voice(tmp_path):
    touch(tmp_path, "a.wav", "b.wav", "c.wav", "d.wav")
    (tmp_path / "gold.csv").write_text(
        "id,filename,voice,correct\n1,a,v,0\n1,b,v,1\n1,c,w,1\n1,d,w,0\n"
    )
    found = read_zerospeech(tmp_path, "swuggy")

    halves = {
        (found.audio[p.positive].name, found.audio[p.negative].name)
        for p in found.pairs
    }
    assert halves == {("b.wav", "a.wav"), ("c.wav", "d.wav")}


def test_zerospeech_words_have_texts_and_two_parts(tmp_path):
    touch(tmp_path, *(f"{name}.wav" for name in "abcdef"))
    (tmp_path / "gold.csv").write_text(
        "id,filename,voice,frequency,word,phones,length,correct\n"
        "1,a,v,12,brick,B,4,1\n1,b,v,,blick,B,4,0\n"
        "2,c,v,0,gelid,B,4,1\n2,d,v,7,gelod,B,4,0\n"
        "3,e,v,oov,rath,B,4,1\n3,f,v,oov,reth,B,4,0\n"
    )
    found = read_zerospeech(tmp_path, "sWUGGY")

    parts = {pair.pair: pair.part for pair in found.pairs}
    assert parts == {
        "sWUGGY-1-v": "sWUGGY_in_vocabulary",
        "sWUGGY-2-v": "sWUGGY_oov",
        "sWUGGY-3-v": "sWUGGY_oov",
    }
    assert found.text["sWUGGY-1-v-neg"] == "blick" and len(found.text) == 6


def test_zerospeech_sentences_are_numbered_within_their_subtypes(tmp_path):
    touch(tmp_path, *(f"{name}.wav" for name in "abcd"))
    (tmp_path / "gold.csv").write_text(
        "id,filename,voice,type,subtype,transcription,correct\n"
        "1,a,v,agreement,one two,He goes.,1\n1,b,v,agreement,one two,He go.,0\n"
        "1,c,v,binding,x,They go.,1\n1,d,v,binding,x,They goes.,0\n"
    )
    found = read_zerospeech(tmp_path, "sBLIMP")

    names = [pair.pair for pair in found.pairs]
    assert names == ["sBLIMP-agreement-one_two-1-v", "sBLIMP-binding-x-1-v"]
    assert found.text["sBLIMP-binding-x-1-v-neg"] == "They goes."


def test_a_list_of_ones_own(tmp_path):
    """Pairs of one name in two parts had the audio of one of them."""
    touch(tmp_path, "x/1.wav", "2.wav", "3.wav")
    lines = "p\tmine\tx/1.wav\t2.wav\np\tyours\t2.wav\t3.wav\n"
    (tmp_path / "pairs.tsv").write_text(lines)

    found = read_list(tmp_path / "pairs.tsv")

    assert found.pairs == (
        Pair("mine-p", "mine", "mine-p-pos", "mine-p-neg"),
        Pair("yours-p", "yours", "yours-p-pos", "yours-p-neg"),
    )
    assert found.audio == {
        "mine-p-pos": tmp_path / "x/1.wav",
        "mine-p-neg": tmp_path / "2.wav",
        "yours-p-pos": tmp_path / "2.wav",
        "yours-p-neg": tmp_path / "3.wav",
    }
    (tmp_path / "pairs.tsv").write_text("my p\tmine\tx/1.wav\t2.wav\n")
    with pytest.raises(ValueError, match="pairs.tsv:1: pair 'my p' of 'mine'.*blanks"):
        read_list(tmp_path / "pairs.tsv")
    (tmp_path / "pairs.tsv").write_text(lines)
    write_pairs(tmp_path / "pairs", found.pairs)
    assert read_pairs(tmp_path / "pairs") == list(found.pairs)


def one_part(folder):
    return read_salmon(folder, ["bg_alignment"])


@pytest.mark.parametrize(
    ("read", "names", "message"),
    [
        (read_salmon, ["bg_alignment/a.wav"], "no bg_all_consistency, bg_domain_con"),
        (one_part, ["bg_alignment/a.wav"], "expected a file called sample_"),
        (
            one_part,
            ["bg_alignment/sample_3_0.wav"],
            "pair bg_alignment-0003 of bg_alignment: its negative half is missing",
        ),
        (read_storycloze, ["0_a_correct.wav"], "its negative half is missing"),
        (read_storycloze, ["1_a_correct.wav"], "even numbers are correct"),
        (read_storycloze, ["story.wav"], "expected a file called <number>"),
        (read_storycloze, ["story.txt"], "no .wav files"),
    ],
)
def test_a_download_that_is_not_complete_is_named(tmp_path, read, names, message):
    with pytest.raises(ValueError, match=message):
        read(touch(tmp_path, *names))


def test_a_part_without_files_is_named(tmp_path):
    (salmon(tmp_path) / "empty").mkdir()

    with pytest.raises(ValueError, match="no pairs in empty; the download is not"):
        read_salmon(tmp_path, [*SALMON_PARTS, "empty"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,voice\n1,v\n", "expected rows with the columns"),
        ("id,filename,voice,correct\n1,a,v,1\n1,b,v,1\n", "has two of one kind"),
        ("id,filename,voice,correct\n1,a,v,1\n1,b,v,0\n", "positive half is not there"),
        ("id,filename,voice,correct\n1,a,v,yes\n", ":2: correct is 'yes'"),
        ("id,filename,voice,word,correct\n1,a,v,,1\n", "'a' has no word"),
        (
            "id,filename,voice,frequency,correct\n1,a,v,often,1\n",
            "'a' has frequency 'often'",
        ),
    ],
)
def test_a_broken_gold_table_is_named(tmp_path, text, message):
    (tmp_path / "gold.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_zerospeech(tmp_path, "p")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p\tmine\ta.wav\n", ":1: expected 4 fields"),
        ("p\tmine\ta\tb\np\tmine\ta\tb\n", "repeated"),
    ],
)
@pytest.mark.parametrize("read", [read_list, read_pairs])
def test_a_broken_table_of_pairs_is_named(tmp_path, text, message, read):
    (tmp_path / "t").write_text(text)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "t")
