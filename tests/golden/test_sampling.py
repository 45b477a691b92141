"""Nucleus rule, penalty, temperature and ban list must equal the released ones."""

import torch

from espnet_taste.sampling import REMOVED, Sampler, keep_nucleus, remove


def as_mask(ids, size):
    mask = torch.zeros(1, size, dtype=torch.bool)
    mask[:, ids] = True
    return mask


def final_probs(case, logits):
    sampler = Sampler(
        top_p=case["top_p"],
        temperature=case["temperature"],
        repetition_penalty=case["repetition_penalty"],
        rule="released",
    )
    seen = as_mask(case["context_ids"], logits.size(-1))
    return sampler.adjust(logits, seen).softmax(-1)[0]


def kept_ids(logits, top_p):
    kept = keep_nucleus(logits, top_p, "released") == logits
    return kept[0].nonzero().flatten().tolist()


def test_number_of_kept_indices(golden):
    cases = golden("logic_nucleus").info["kept_count"]
    assert cases
    for case in cases:
        logits = torch.tensor([case["probs"]]).log()
        assert len(kept_ids(logits, case["top_p"])) == case["kept"], case


def test_filter_then_penalty_then_temperature(golden):
    logic = golden("logic_nucleus").info
    assert logic["filter"]
    for case in logic["filter"]:
        logits = torch.tensor([case["logits"]])
        assert kept_ids(logits, case["top_p"]) == case["kept"], case
        torch.testing.assert_close(
            final_probs(case, logits),
            torch.tensor(case["final_probs"]),
            atol=logic["tolerance"]["atol"],
            rtol=0.0,
        )


def test_the_ban_list_comes_first(golden):
    logic = golden("logic_nucleus").info
    assert logic["draw"]
    for case in logic["draw"]:
        logits = torch.tensor([case["logits"]])
        logits = remove(logits, as_mask(case["banned"], logits.size(-1)))
        torch.testing.assert_close(
            final_probs(case, logits),
            torch.tensor(case["draw_probs"]),
            atol=logic["tolerance"]["atol"],
            rtol=0.0,
        )


def test_a_batch_is_filtered_as_its_rows_are(golden):
    """The reference's index logic holds for batch 1 only; ours for any batch."""
    by_top_p = {}
    for case in golden("logic_nucleus").info["filter"]:
        by_top_p.setdefault(case["top_p"], []).append(case)
    for top_p, cases in by_top_p.items():
        size = max(len(case["logits"]) for case in cases)
        batch = torch.full((len(cases), size), REMOVED)
        for row, case in zip(batch, cases):
            row[: len(case["logits"])] = torch.tensor(case["logits"])
        kept = keep_nucleus(batch, top_p, "released") > REMOVED / 2
        for case, row in zip(cases, kept):
            assert row.nonzero().flatten().tolist() == case["kept"]
