"""Any text: what is written, joined and read back keeps its characters."""

import re
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_taste.align.letter_to_sound import guess_phones
from espnet_taste.align.spoken import attach_punctuation, spoken_pieces
from espnet_taste.data.kaldi import read_table, write_table
from espnet_taste.words import split_words

texts = st.text(max_size=40) | st.text(alphabet="ab1,.-' $%\u2019\u00e9", max_size=20)


@given(texts)
def test_joining_loses_nothing_and_leaves_only_words_with_letters(text):
    written = split_words(text)

    words, count = attach_punctuation(written)

    assert all(any(c.isalnum() for c in word) for word in words)
    if words:
        assert "".join(words) == "".join(written)
        assert len(words) == len(written) - count
        assert split_words(" ".join(words)) == words
        assert attach_punctuation(words) == (words, 0)


@given(texts)
def test_any_word_is_said_with_plain_letters(text):
    for piece in spoken_pieces(text):
        assert re.fullmatch(r"[a-z](?:[a-z']*[a-z])?", piece)
        assert guess_phones(piece, {}.get)


keys = st.text(min_size=1, max_size=8).filter(lambda key: not re.search(r"\s", key))
values = st.text(max_size=20).filter(lambda v: not set(v) & {"\n", "\r"})


@settings(max_examples=40)
@given(st.dictionaries(keys, values, max_size=6))
def test_tables_come_back_sorted(rows):
    try:
        "".join([*rows, *rows.values()]).encode()
    except UnicodeEncodeError:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table"
        write_table(path, rows)
        found = read_table(path)

    assert found == {key: value.strip(" \t") for key, value in rows.items()}
    assert list(found) == sorted(rows, key=str.encode)
