"""Numbers become the same digits, however they were written or said."""

import pytest

from espnet_taste.eval.numbers import NUMBERS, with_digits


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("four", "4"),
        ("Twenty-four of them.", "24 of them"),
        ("zero, one two", "0 1 2"),
        ("1,000 and 12,345,678", "1000 and 12345678"),
        ("one thousand", "1000"),
        ("a hundred and one", "101"),
        ("one hundred one", "101"),
        ("two hundred and fifty thousand and six", "250006"),
        ("three million two hundred thousand", "3200000"),
        ("5 million", "5000000"),
        ("a million", "1000000"),
        ("two thousand and nineteen", "2019"),
        ("nineteen sixty-nine", "1969"),
        ("nineteen hundred and five", "1905"),
        ("nineteen oh five", "1905"),
        ("twenty twelve", "2012"),
        ("twenty four", "24"),
        ("the fourth of july", "the 4th of july"),
        ("twenty-first", "21st"),
        ("the twelfth, the 11th", "the 12th the 11th"),
        ("the eleventh, the twentieth, ninth", "the 11th the 20th 9th"),
        ("one hundred and third", "103rd"),
        ("3.14", "3 point 1 4"),
        ("three point one four", "3 point 1 4"),
        ("50%", "50 percent"),
        ("fifty percent", "50 percent"),
        ("July 12 1969", "july 12 1969"),
        ("five hundred and you", "500 and you"),
        ("four and five", "4 and 5"),
        ("a dog, and a", "a dog and a"),
        ("007", "007"),
        ("hundred", "hundred"),
        ("", ""),
    ],
)
def test_rule(text, expected):
    assert with_digits(text) == expected


def test_every_number_below_ten_thousand_is_one_number():
    """What a person would say of it, with and without "and"."""
    small = (
        "zero one two three four five six seven eight nine ten eleven twelve thirteen "
        "fourteen fifteen sixteen seventeen eighteen nineteen"
    ).split()
    tens = "twenty thirty forty fifty sixty seventy eighty ninety".split()

    def say(number, joint):
        if number < 20:
            return small[number]
        if number < 100:
            unit = f" {small[number % 10]}" if number % 10 else ""
            return tens[number // 10 - 2] + unit
        base, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
        rest = number % base
        tail = f"{joint if rest < 100 else ' '}{say(rest, joint)}" if rest else ""
        return f"{say(number // base, joint)} {name}{tail}"

    for number in range(10000):
        for joint in (" ", " and "):
            assert with_digits(say(number, joint)) == str(number)


def test_the_name_carries_a_version():
    assert NUMBERS == "digits-en-1"
