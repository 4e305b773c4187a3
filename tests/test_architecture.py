"""The design, held by a machine: who may import whom, how long a file may grow, whose folders may be named."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "pairprobe"
MODULES = {".".join(f.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): f
           for f in sorted(PACKAGE.rglob("*.py"))}  # fmt: skip
ROOMS = ("pairs", "texts", "tokens", "checkpoints", "executions", "methods", "similarities", "statistics",
         "verdict", "geometry", "xray")  # fmt: skip
HEAVY = ("torch", "transformers", "mlflow", "scipy", "pandas", "matplotlib", "sklearn", "seaborn", "pyarrow")


def room_of(module: str) -> str:
    """pairprobe.methods.static → methods"""
    return module.split(".")[1] if "." in module else ""


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(module: str, *, at_once: bool = False) -> Iterator[str]:
    """Full names of all that a module imports, for types alone left out; at_once: while it is imported itself."""
    waiting: list[ast.AST] = [ast.parse(MODULES[module].read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if only_for_types(node) or (at_once and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                yield whole if whole in MODULES else str(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            yield from (str(first.value) for first in node.args[:1] if isinstance(first, ast.Constant))
        waiting += ast.iter_child_nodes(node)


def ours(module: str) -> set[str]:
    return {name for name in imports(module) if name.split(".")[0] == "pairprobe"}


def test_the_parser_of_imports_sees_what_it_must() -> None:
    # otherwise every test below would pass on an empty set
    assert "mlflow" in set(imports("pairprobe.tracking"))
    assert "mlflow" not in set(imports("pairprobe.tracking", at_once=True))
    assert "pairprobe.archive" in ours("pairprobe.runner")
    assert "torch" in set(imports("pairprobe.executions.device"))
    assert {room_of(m) for m in MODULES} >= {*ROOMS, "runner", "commands"}


@pytest.mark.parametrize("module", [m for m in MODULES if room_of(m) in ROOMS])
def test_a_room_knows_records_errors_protocols_and_itself(module: str) -> None:
    allowed = {"records", "rooms", "errors", room_of(module)}
    if room_of(module) in ("statistics", "verdict", "geometry", "xray"):
        allowed |= {"outcomes", "evidence"}
    if room_of(module) in ("similarities", "geometry"):
        allowed |= {"norms"}
    if room_of(module) == "pairs":
        allowed |= {"covariates"}  # controls are matched in what they are later adjusted for
    assert {name for name in ours(module) if room_of(name) not in allowed} == set()


@pytest.mark.parametrize("module", [m for m in MODULES if room_of(m) in ROOMS])
def test_a_room_gets_plain_values(module: str) -> None:
    assert {n for n in imports(module) if n.split(".")[0] in ("omegaconf", "hydra")} == set()


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("errors", set()),
        ("records", {"errors"}),
        ("rooms", {"records"}),
        ("norms", {"records", "errors"}),
        ("disk", set()),
        ("stores", {"errors", "disk"}),
        ("sweeps", {"errors"}),
        ("locks", set()),
        ("running", {"locks"}),
        ("tracking", {"records", "errors", "stores", "sweeps", "running"}),
        ("outcomes", set()),
        ("evidence", {"outcomes"}),
        ("covariates", {"records"}),
        ("matrices", {"records", "evidence", "statistics"}),
        ("further", {"records", "outcomes", "result", "covariates", "matrices", "geometry", "xray", "statistics"}),
        ("against", {"outcomes", "evidence", "result"}),
        ("beside", {"records", "outcomes", "evidence", "result"}),
        ("result", {"records", "outcomes", "evidence"}),
        ("figures", {"records", "outcomes", "evidence", "errors"}),
        ("figures_multiverse", {"figures", "outcomes", "evidence"}),
        ("multiverse", {"records", "rooms", "errors", "outcomes", "evidence", "pairs", "tokens", "methods"}),
        ("across.runs", {"records", "outcomes", "errors", "tracking"}),
        ("across.comparison", {"records", "outcomes", "evidence", "errors", "statistics", "across"}),
        ("across.table", {"records", "outcomes", "errors", "disk", "across"}),
        ("provenance", {"records", "errors", ""}),  # "": the package's own version
    ],
)
def test_what_lies_at_the_bottom_knows_little(module: str, allowed: set[str]) -> None:
    assert {room_of(name) for name in ours(f"pairprobe.{module}")} <= allowed


@pytest.mark.parametrize("module", [m for m in MODULES if room_of(m) == "page"])
def test_the_page_is_made_from_records_alone(module: str) -> None:
    """Whatever it shows must have been logged, so that it can be made later from any stored run."""
    assert {room_of(name) for name in ours(module)} <= {
        "page",
        "records",
        "outcomes",
        "evidence",
        "result",
        "errors",
        "",
    }


@pytest.mark.parametrize("module", [m for m in MODULES if room_of(m) != "commands"])
def test_only_commands_know_commands_and_the_runner(module: str) -> None:
    assert {n for n in ours(module) if room_of(n) in ("commands", "runner")} == set()


def test_no_two_modules_import_each_other() -> None:
    found = {module: ours(module) - {module} for module in MODULES}
    assert [(a, b) for a in found for b in found[a] if a < b and a in found.get(b, ())] == []


@pytest.mark.parametrize("module", [m for m in MODULES if m != "pairprobe.tracking"])
def test_only_tracking_knows_mlflow(module: str) -> None:
    assert {n for n in imports(module) if n.split(".")[0] == "mlflow"} == set()


@pytest.mark.parametrize("module", MODULES)
def test_torch_and_transformers_stay_where_models_are(module: str) -> None:
    if room_of(module) not in ("executions", "checkpoints", "methods", "provenance"):
        assert {n for n in imports(module) if n.split(".")[0] in ("torch", "transformers")} == set()


@pytest.mark.parametrize("module", MODULES)
def test_nothing_heavy_is_imported_with_a_module(module: str) -> None:
    assert {n for n in imports(module, at_once=True) if n.split(".")[0] in HEAVY} == set()


@pytest.mark.parametrize("module", MODULES)
def test_only_what_is_declared_is_imported(module: str) -> None:
    """A package that happens to be there as somebody else's dependency may be gone tomorrow."""
    declared = (
        (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("dependencies = [")[2].partition("\n]")[0]
    )
    names = {n.lower().replace("-", "_") for n in re.findall(r'^\s*"([A-Za-z0-9_-]+)', declared, flags=re.MULTILINE)}
    names |= {"hydra", "sklearn"}  # imported under another name than they are installed by
    third = {n.split(".")[0] for n in imports(module)} - set(sys.stdlib_module_names) - {"pairprobe"}
    assert third <= names


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────


def lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("module", MODULES)
def test_a_file_can_be_read_at_one_sitting(module: str) -> None:
    assert lines(MODULES[module]) <= 400


def test_the_corridor_stays_one_screen() -> None:
    assert lines(PACKAGE / "runner.py") < 150


def test_run_py_only_hands_over() -> None:
    assert lines(ROOT / "run.py") <= 10


@pytest.mark.parametrize("name", ["utils", "util", "helpers", "common", "manager", "misc"])
def test_no_room_is_named_after_nothing(name: str) -> None:
    assert [m for m in MODULES if name in m.split(".")] == []


OTHERS = (
    ".git",
    ".venv",
    ".venv-paper",
    "mlruns",
    "dist",
    "build",
    "__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
)
TEXT = (".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".csv", ".sh", ".cff", "")


def test_no_file_names_a_folder_of_its_author() -> None:
    mine = {re.escape(str(p)) for p in (ROOT, Path.home()) if len(p.parts) > 1}
    # written in pieces, or this file would find itself
    anybody = [r"/hom" + r"e/\w+/", r"/User" + r"s/\w+/", r"C:\\\\?User" + "s"]
    pattern = re.compile("|".join([*(rf"{p}(?=[/\s'\"`)]|$)" for p in mine), *anybody]), flags=re.MULTILINE)
    tops = [p for p in ROOT.iterdir() if p.name not in OTHERS]
    files = [f for p in tops for f in (p.rglob("*") if p.is_dir() else [p]) if not {*f.parts} & {*OTHERS}]
    found = [
        f"{file.relative_to(ROOT)}: {hit.group()}"
        for file in files
        if file.is_file() and file.suffix in TEXT and file.stat().st_size < 5_000_000
        for hit in [pattern.search(file.read_text(encoding="utf-8", errors="replace"))]
        if hit
    ]
    assert found == []
