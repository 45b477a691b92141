"""Moving codes between the tokenizers equals the reference on its cases."""

from espnet_taste.types import IGNORE
from espnet_taste.words import code_sources, expand_word_rows


def test_asr_to_llm(golden):
    cases = golden("logic_mapping").info["asr_to_llm"]

    for case in cases:
        sources = code_sources(case["asr_word_ids"], case["llm_word_ids"])
        padding = case["llm_padded_length"] - len(sources)
        assert sources + [IGNORE] * padding == case["source_asr_pos"]

        empty = [IGNORE] * len(case["asr_codes"][0])
        codes = [case["asr_codes"][s] if s != IGNORE else empty for s in sources]
        assert codes + [empty] * padding == case["llm_codes"]
    assert cases


def test_llm_to_asr(golden):
    cases = golden("logic_mapping").info["llm_to_asr"]

    for case in cases:
        rows = [row for row in case["llm_rows"] if row[0] != IGNORE]
        assert expand_word_rows(rows, case["asr_word_ids"]) == case["asr_rows"]
    assert cases
