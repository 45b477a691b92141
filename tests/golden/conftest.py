"""Bookkeeping of the golden tests: what ran, and that no comparison was empty."""

from collections.abc import Iterator

import pytest
from golden_case import COUNTS
from golden_coverage import COLLECTED, FOLDER, UNFINISHED

COVERAGE = FOLDER / "test_coverage.py"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Note every test before deselection, and put the one of their sum last."""
    for item in items:
        if item.path.parent == FOLDER and isinstance(item, pytest.Function):
            name = item.path.name
            COLLECTED.setdefault(name, set()).add(item.originalname)
            UNFINISHED.setdefault(name, set()).add(item.nodeid)
    result = yield
    items.sort(key=lambda item: item.path == COVERAGE)
    return result


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what has passed; of several processes each knows its own share only."""
    if report.when == "call" and report.passed:
        name = report.nodeid.split("::")[0].rsplit("/", 1)[-1]
        UNFINISHED.get(name, set()).discard(report.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Skip a test that asked only for results which a subset leaves out."""
    before = COUNTS.copy()
    result = yield
    if COUNTS["left out"] > before["left out"]:
        if COUNTS["compared"] == before["compared"]:
            pytest.skip("the subset leaves out all results that this test compares")
    return result
