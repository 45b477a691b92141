"""The package's rooms may only import downwards; this file is the whole rule."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "espnet_taste"

# A room may import itself and the rooms of earlier lines, never the later ones; the
# rooms of one line are siblings, which meet only further down.
FLOORS = [
    {"registry"},
    {"packages"},
    {"types"},
    {"words"},
    {"sampling"},
    {"weights"},
    {"layers"},
    {"tokenizer", "decoder", "slm"},
    {"units", "align", "convert"},
    {"data"},
    {"tasks"},
    {"pipeline"},
    {"eval"},
    {"bin"},
    {"run"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# Reading and writing of files, which knows no other room and may be used early.
FILE_MODULES = {
    "espnet_taste.data.audio",
    "espnet_taste.data.exclusions",
    "espnet_taste.data.kaldi",
}
FILE_USERS = {"units", "align", "eval"}
# Heavy dependencies, and the only rooms that may import them at all.
ONLY_IN = {
    "espnet2": {"registry", "data", "tasks", "pipeline", "bin"},
    "espnet3": set(),
    "transformers": {
        *("weights", "tokenizer", "slm", "units", "align", "decoder", "convert")
    },
}
# These load without torch, so that commands answer --help at once.
WITHOUT_TORCH = {"registry", "packages", "types", "words", "run"}
# Parts of an extra: imported inside the function that needs them, or the package
# could not be imported without the extra.
OPTIONAL = {
    "accelerate",
    "ctc_segmentation",
    "datasets",
    "faster_whisper",
    "gguf",
    "h5py",
    "jiwer",
    "librosa",
    "matplotlib",
    "onnxruntime",
    "pocketsphinx",
    "pyarrow",
    "pyworld",
    "rapidfuzz",
    "resampy",
    "s3tokenizer",
    "sentencepiece",
    "sklearn",
    "tensorboard",
}


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted name of everything imported, ``from a import b`` as a.b too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def module_level(tree: ast.Module) -> ast.Module:
    """Return the part of a module that runs when it is imported."""

    class WithoutFunctions(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        visit_AsyncFunctionDef = visit_FunctionDef

    return WithoutFunctions().visit(tree)


def in_modules(name: str, modules: set[str]) -> bool:
    """Tell whether a dotted name is one of the modules or something inside one."""
    return any(name == m or name.startswith(f"{m}.") for m in modules)


def complaint(room: str, name: str) -> str | None:
    """Say what is wrong with a room importing a dotted name, or return None."""
    top, _, rest = name.partition(".")
    if not top:
        return f"{room} imports {name}; write the absolute name"
    if room not in ONLY_IN.get(top, {room}):
        return f"{room} may not import {top}; only {sorted(ONLY_IN[top])} may"
    if top == "torch" and room in WITHOUT_TORCH:
        return f"{room} must load without torch"
    if top != "espnet_taste" or not rest:
        return None
    target = rest.split(".")[0]
    if target not in FLOOR_OF:  # a name of the package itself, such as register
        return None
    if room in FILE_USERS and in_modules(name, FILE_MODULES):
        return None
    if FLOOR_OF[target] > FLOOR_OF[room]:
        return f"{room} imports {name}, which is above it"
    if FLOOR_OF[target] == FLOOR_OF[room] and target != room:
        return f"{room} and {target} are siblings; join them in pipeline or tasks"
    return None


def python_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", python_files(), ids=name_of)
def test_imports_point_down(path):
    room = room_of(path)
    if room == "__init__":
        pytest.skip("the package itself is every room's parent")
    assert room in FLOOR_OF, f"{path} is in no room: add it to the list or move it"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [complaint(room, name) for name in imported_modules(tree)]
    assert not any(found), "; ".join(filter(None, found))


@pytest.mark.parametrize("path", python_files(), ids=name_of)
def test_optional_packages_are_imported_where_they_are_used(path):
    tree = module_level(ast.parse(path.read_text(encoding="utf-8")))
    found = {name.split(".")[0] for name in imported_modules(tree)} & OPTIONAL
    assert not found, f"{name_of(path)}: {sorted(found)} at module level"


@pytest.mark.parametrize("module", sorted(FILE_MODULES))
def test_file_modules_know_no_other_room(module):
    path = PACKAGE.parent / (module.replace(".", "/") + ".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = {n for n in imported_modules(tree) if n.startswith("espnet_taste.")}
    others = {
        n for n in own if not in_modules(n, FILE_MODULES | {"espnet_taste.types"})
    }
    heavy = {
        n for n in imported_modules(tree) if n.split(".")[0] in ("torch", *ONLY_IN)
    }
    assert not others | heavy


@pytest.mark.parametrize(
    ("room", "name", "words"),
    [
        ("layers", "espnet_taste.bin.report", "above it"),
        ("slm", "espnet_taste.tokenizer.encoder.WhisperEncoder", "siblings"),
        ("layers", "espnet_taste.data.kaldi.read_table", "above it"),
        ("decoder", "espnet_taste.convert.names", "above it"),
        ("convert", "espnet_taste.tasks.base", "above it"),
        ("convert", "espnet_taste.units.build", "siblings"),
        ("units", "espnet_taste.data.collate", "above it"),
        ("layers", "espnet2.layers.abs_normalize", "may not import espnet2"),
        ("eval", "transformers", "may not import transformers"),
        ("words", "torch.nn", "without torch"),
        ("data", ".kaldi.read_table", "absolute name"),
    ],
)
def test_the_rule_refuses(room, name, words):
    assert words in complaint(room, name)


@pytest.mark.parametrize(
    ("room", "name"),
    [
        ("bin", "espnet_taste.eval.metrics"),
        ("units", "espnet_taste.data.kaldi.read_table"),
        ("align", "espnet_taste.data.audio"),
        ("slm", "espnet_taste.slm.delay"),
        ("tasks", "espnet2.tasks.abs_task.AbsTask"),
        ("tasks", "espnet_taste.register"),
        ("layers", "torch"),
    ],
)
def test_the_rule_allows(room, name):
    assert complaint(room, name) is None


def test_a_name_imported_from_the_package_is_seen_as_a_room():
    """``from espnet_taste import bin`` must not slip through."""
    tree = ast.parse("from espnet_taste import bin as programs")

    assert [complaint("layers", name) for name in imported_modules(tree)] == [
        "layers imports espnet_taste.bin, which is above it"
    ]


def test_imports_inside_functions_are_not_module_level():
    source = "import a\nclass C:\n    import b\n    def f(self):\n        import c\n"

    assert list(imported_modules(module_level(ast.parse(source)))) == ["a", "b"]


def test_every_file_of_the_package_was_looked_at():
    assert len(python_files()) > 40
