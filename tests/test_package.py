"""The shape of the package itself: what is public, how large it may grow, and what may know of what."""

import ast
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import foretoken
from foretoken.registry import METHODS

ROOT = Path(foretoken.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
METHODS_AND_TOOLS = ("draft", "length", "shape", "accept", "serve", "train", "bench", "data", "cli")
CORE_LINES = 4460  # three backends, two that draw several tokens at once, weights in fewer bits, and costs take 2,600
FILE_LINES, FUNCTION_LINES, STEP_LINES = 250, 60, 16
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# What is trained for one method, and counts with it.
NETS = {f"models/{net}.py" for net in ("acceptance_head", "block_heads", "disco_classifier", "falcon", "lookahead")}
NETS |= {"models/ngram.py", "models/rescoring.py"}
# Files of a station that are no methods: what every method follows, and what several use.
SHARED = {
    "ahead",
    "at_once",
    "balance",
    "base",
    "belief",
    "floor",
    "hearing",
    "known",
    "outlook",
    "pace",
    "points",
    "record",
    "relay",
}
SHARED |= {"signals"}
# Files that are allowed to be longer, each for a reason.
LONG_FILES = {
    "types.py": "everything that travels, read from top to bottom",
    "llm.py": "the whole Python interface",
    "models/source.py": "every way a checkpoint can be unusable, found before its weights are loaded",
    "models/hf.py": "one adapter for every architecture, which proves on loading that the model follows it",
}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def num_lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def num_code_lines(path: Path) -> int:
    """Lines that hold code: no blank ones, comments or docstrings."""
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    with path.open("rb") as file:
        code = [t for t in tokenize.tokenize(file.readline) if t.type not in (*skipped, tokenize.ENCODING)]
    lines = {line for t in code for line in range(t.start[0], t.end[0] + 1)}
    texts = [n.body[0] for n in ast.walk(tree(path)) if isinstance(n, DOCUMENTED) and ast.get_docstring(n) is not None]
    return len(lines - {line for n in texts for line in range(n.lineno, (n.end_lineno or 0) + 1)})


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def test_public_names_are_listed_sorted_and_importable() -> None:
    source = ast.parse((ROOT / "__init__.py").read_text())
    typed = {alias.name for node in ast.walk(source) if isinstance(node, ast.ImportFrom) for alias in node.names}
    public = typed - {"import_module", "TYPE_CHECKING", "Any"}
    assert set(foretoken.__all__) == public == {key for key in dir(foretoken) if not key.startswith("_")}
    constants_classes_functions = sorted(public, key=lambda key: (not key.isupper(), key.islower(), key))
    assert list(foretoken.__all__) == constants_classes_functions
    assert all(getattr(foretoken, key).__doc__ for key in foretoken.__all__)
    with pytest.raises(AttributeError, match="no attribute `lod`"):
        foretoken.lod  # noqa: B018 - the access is the test


def test_types_are_shipped() -> None:
    assert (ROOT / "py.typed").is_file()


def test_size_budget_of_the_core() -> None:
    own = [path for path in FILES if path.relative_to(ROOT).parts[0] not in METHODS_AND_TOOLS]
    core = [path for path in own if name(path) not in NETS]
    assert sum(map(num_code_lines, core)) < CORE_LINES, {name(path): num_code_lines(path) for path in core}


def test_no_file_is_long_without_a_reason() -> None:
    long = {name(path): num_lines(path) for path in FILES if num_lines(path) > FILE_LINES}
    assert not long.keys() - LONG_FILES.keys(), long


def test_no_function_is_long() -> None:
    long = {
        f"{name(path)}:{node.name}": size
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES
    }
    assert not long


def test_there_is_no_drawer_for_everything() -> None:
    assert not [name(path) for path in FILES if path.stem in {"util", "utils", "helpers", "common", "misc"}]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("station", list(METHODS))
def test_no_method_knows_another(station: str) -> None:
    methods = {path for path in FILES if path.parent.name in METHODS and path.stem not in SHARED | {"__init__"}}
    modules = {f"foretoken.{name(path).removesuffix('.py').replace('/', '.')}" for path in methods}
    for path in methods:
        if path.parent.name == station:
            known = [i for i in imports(path) if any(i == m or i.startswith(m + ".") for m in modules)]
            assert not known, f"{name(path)} knows {known}"
    registered = {target.partition(":")[0] for target in METHODS[station].values()}
    assert registered == {m for m in modules if m.startswith(f"foretoken.{station}.")}


def test_only_the_registry_and_the_command_line_name_methods() -> None:
    """The engine never knows which methods it runs."""
    for path in FILES:
        parts = path.relative_to(ROOT).parts
        if parts[0] in ("cli", "bench", "train", "serve"):
            continue
        methods = [i for i in imports(path) if i.count(".") >= 3 and i.split(".")[1] in METHODS]
        assert all(i.split(".")[2] in SHARED for i in methods), f"{name(path)} imports {methods}"


def test_a_step_fits_on_half_a_screen() -> None:
    (engine,) = (n for n in tree(ROOT / "engine.py").body if isinstance(n, ast.ClassDef) and n.name == "Engine")
    (step,) = (n for n in engine.body if isinstance(n, ast.FunctionDef) and n.name == "step")
    first = step.body[1]  # after the docstring
    assert (step.end_lineno or 0) - first.lineno + 1 < STEP_LINES


def test_the_page_of_methods_is_what_the_command_prints() -> None:
    from typer.testing import CliRunner

    from foretoken.cli.main import app

    result = CliRunner().invoke(app, ["methods", "--markdown"])
    assert result.exit_code == 0, result.output
    assert (ROOT.parent / "docs" / "methods.md").read_text() == result.stdout


def test_the_readme_lists_every_method_with_its_file() -> None:
    readme = (ROOT.parent / "README.md").read_text()
    for station, methods in METHODS.items():
        for method, home in methods.items():
            file = home.partition(":")[0].removeprefix("foretoken.").replace(".", "/") + ".py"
            assert f"| {station} | `{method}` | `{file}` |" in readme
