"""What the documents say can be run, and what they name exists."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("experiments/*.md")], key=lambda p: str(p)
)


def test_the_notebook_lines_run_and_end_in_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    exec(compile(code, "docs/python.md", "exec"), {})
    said = capsys.readouterr().out
    assert "8 of 8 control words also occur in cognate pairs" in said
    assert len(said.strip().splitlines()[-1].split(",")) == 7  # a Δ for each of the depths 0 … 6


def test_the_notebook_needs_about_ten_lines() -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line and not line.startswith("from")]) <= 10


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_path_in_code_marks_exists(document: Path) -> None:
    for path in re.findall(r"`((?:src|conf|tests|docs|experiments|bench)/[\w./-]+\.\w+)`", document.read_text("utf-8")):
        if "NAME" in path:  # stands for any
            continue
        assert (ROOT / path).exists(), path


def test_the_files_map_of_the_readme_names_every_module() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    package = ROOT / "src" / "pairprobe"
    names = {p.name for p in package.glob("*.py")} | {f"{p.parent.name}/" for p in package.glob("*/__init__.py")}
    missing = {n for n in names - {"__init__.py"} if n not in text}
    assert not missing


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("target", "tools"),
    [("run", False), ("ui", False), ("test", True), ("check", True), ("fix", True), ("bench", True)],
)
def test_make_installs_what_a_target_needs_and_says_so(tmp_path: Path, target: str, tools: bool) -> None:
    words = ["make", "--dry-run", "--no-print-directory", target, f"VENV={tmp_path / 'new'}"]
    said = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    installing = [i for i, line in enumerate(said) if " -m pip install " in line]
    extras = [re.findall(r"\.\[([a-z,]+)\]", said[i]) for i in installing]
    assert extras == [[], ["minilm,gguf"]] + [["minilm,gguf,dev"]] * tools
    for before, i in zip([-1, *installing], installing, strict=False):
        assert any(line.startswith("echo") for line in said[before + 1 : i])  # before each of some minutes
