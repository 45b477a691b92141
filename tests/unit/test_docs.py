"""What the documents name exists: links, paths, make targets, commands, stages."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("egs2/*/README.md")]
)
# A path in backticks that starts with one of these is a claim about this repository;
# others are made by a run (exp/, dump/) or belong to a user.
OURS = ("espnet_taste/", "egs2/", "conf/", "local/", "tools/", "tests/", "docs/",
        "benchmarks/", ".ci/")  # fmt: skip
# egs2/<corpus>/<recipe> of a user's ESPnet tree, and what a run leaves in ours.
NOT_OURS = re.compile(r"[<*$]|^egs2/(?!taste/)|^egs2/taste/(exp|dump|data|downloads)\b")


def texts_in_backticks(text: str) -> list[str]:
    """Return inline code and the lines of fenced blocks."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^```.*?^```", "", text))
    return inline + [line for block in fenced for line in block.splitlines()]


def claimed_paths(text: str) -> set[str]:
    """Return the paths of this repository that a document names."""
    words = {w.rstrip(",;:.)") for t in texts_in_backticks(text) for w in t.split()}
    words = {w.lstrip("(").removeprefix("./") for w in words}
    return {w for w in words if w.startswith(OURS) and not NOT_OURS.search(w)}


def linked_paths(text: str) -> set[str]:
    """Return the targets of relative links and pictures."""
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    targets += re.findall(r'(?:src|href)="([^"]+)"', text)
    return {
        t.split("#")[0] for t in targets if "://" not in t and not t.startswith("#")
    }


def make_targets(text: str) -> set[str]:
    """Return the targets of ``make X`` in code."""
    found = {
        target
        for line in texts_in_backticks(text)
        for target in re.findall(r"(?<![\w/-])make ([a-z-]+)", line)
    }
    return found


def modules(text: str) -> set[str]:
    """Return the modules of ``python -m espnet_taste.X`` and of ``espnet_taste.X``."""
    code = "\n".join(texts_in_backticks(text))
    return set(re.findall(r"-m (espnet_taste[\w.]*\w)", code))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.fixture(params=DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def document(request):
    return request.param


def test_links_lead_somewhere(document):
    broken = {
        t for t in linked_paths(read(document)) if not (document.parent / t).exists()
    }
    assert broken == set()


def test_named_paths_exist(document):
    places = {
        path
        for path in claimed_paths(read(document))
        if not (ROOT / path).exists() and not (document.parent / path).exists()
    }
    assert places == set()


def test_make_targets_exist(document):
    targets = set(
        re.findall(r"^([a-z-]+):", read(ROOT / "Makefile"), flags=re.MULTILINE)
    )

    assert make_targets(read(document)) - targets == set()


def test_commands_exist(document):
    missing = {
        name
        for name in modules(read(document))
        if not (ROOT / (name.replace(".", "/") + ".py")).is_file()
    }
    assert missing == set()


def test_stage_table_is_the_recipe():
    """The table's names and order are the driver's own list."""
    driver = read(ROOT / "egs2" / "taste" / "taste.sh")
    block = re.search(r"^stages=\(\n(.*?)^\)", driver, flags=re.MULTILINE | re.DOTALL)
    stages = re.findall(r"^ +(\w+)", block.group(1), flags=re.MULTILINE)
    rows = re.findall(r"^\| *\d+ *\| *`(\w+)`", read(ROOT / "README.md"), re.MULTILINE)

    assert rows == stages


def test_every_make_target_explains_itself():
    makefile = read(ROOT / "Makefile")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE).group(1).split()
    explained = re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.MULTILINE)

    assert sorted(phony) == sorted(explained)


def test_the_readers_of_documents_find_what_is_there():
    text = (
        "See [a](docs/x.svg), `tools/no.sh`, `.ci/no` and `make fly`.\n"
        "```\nmake demo && python -m espnet_taste.bin.none --x 1\n"
        "./egs2/taste/run.sh\n```\n"
        "`exp/taste` is made; so is `egs2/an4/taste1/run.sh`.\n"
    )

    assert linked_paths(text) == {"docs/x.svg"}
    assert claimed_paths(text) == {"tools/no.sh", ".ci/no", "egs2/taste/run.sh"}
    assert make_targets(text) == {"fly", "demo"}
    assert modules(text) == {"espnet_taste.bin.none"}


def test_the_documents_were_found():
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md"} <= {
        d.name for d in DOCUMENTS
    }
