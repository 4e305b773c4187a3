"""What a run says about where its numbers come from is true: code, versions, memory."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

import pairprobe
from pairprobe import provenance
from pairprobe.provenance import Git

MB = 1_000_000


def git(folder: Path, *words: str) -> str:
    who = {f"GIT_{role}_{what}": "tester@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        ["git", "-C", str(folder), *words],
        env={**os.environ, **who, **alone},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit of two files."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "words.csv").write_text("*kʷel-,輪\n", encoding="utf-8")
    (folder / "code.py").write_text("a = 1\n", encoding="utf-8")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "first")
    return folder


# ── git ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_clean_checkout_is_its_commit(checkout: Path) -> None:
    assert provenance.git(checkout) == Git(git(checkout, "rev-parse", "HEAD"), dirty=False, diff="")


def test_a_folder_of_a_checkout_is_that_checkout(checkout: Path) -> None:
    (checkout / "inner").mkdir()
    assert provenance.git(checkout / "inner").commit == git(checkout, "rev-parse", "HEAD")


@pytest.mark.parametrize("staged", [False, True])
def test_a_change_is_dirty_and_its_diff_restores_it(checkout: Path, tmp_path: Path, staged: bool) -> None:
    (checkout / "words.csv").write_text("*kʷel-,輪\n*wódr̥,水\n", encoding="utf-8")
    (checkout / "code.py").unlink()
    if staged:
        git(checkout, "add", "--all")
    state = provenance.git(checkout)
    assert state.dirty
    again = tmp_path / "again"
    git(tmp_path, "clone", "--quiet", str(checkout), str(again))
    git(again, "checkout", "--quiet", state.commit)
    (tmp_path / "git.diff").write_text(state.diff, encoding="utf-8")
    git(again, "apply", str(tmp_path / "git.diff"))
    assert (again / "words.csv").read_text(encoding="utf-8") == "*kʷel-,輪\n*wódr̥,水\n"
    assert not (again / "code.py").exists()


@pytest.mark.parametrize("name", ["new.py", "two words.yaml", "wörter.py"])
def test_code_that_git_does_not_know_is_named(checkout: Path, name: str) -> None:
    (checkout / name).write_text("", encoding="utf-8")
    state = provenance.git(checkout)
    assert state.dirty
    assert state.diff.startswith("# not in git: ")
    assert name in state.diff


def test_a_table_that_git_does_not_know_is_no_code(checkout: Path) -> None:
    (checkout / "mine.csv").write_text("word_a,word_b,group\n", encoding="utf-8")
    state = provenance.git(checkout)
    assert (state.dirty, state.diff) == (False, "")


def test_a_file_that_git_ignores_changes_nothing(checkout: Path) -> None:
    (checkout / ".git" / "info" / "exclude").write_text("mlruns/\n", encoding="utf-8")
    (checkout / "mlruns").mkdir()
    (checkout / "mlruns" / "run.json").write_text("{}", encoding="utf-8")
    assert not provenance.git(checkout).dirty


def test_a_huge_diff_is_cut_and_says_so(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "LARGEST_DIFF", 1000)
    (checkout / "code.py").write_text("a = 2\n" * 1000, encoding="utf-8")
    diff = provenance.git(checkout).diff
    assert len(diff) < 1100
    assert re.search(r"cut off at 1000 of \d+ characters", diff)


def test_a_folder_without_repository_has_no_commit(tmp_path: Path) -> None:
    assert provenance.git(tmp_path) == Git("", dirty=False, diff="")


def test_an_installed_wheel_has_no_repository() -> None:
    assert provenance.git(None) == Git()


def test_a_machine_without_git_has_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance.git(checkout) == Git()


# ── versions and hardware ────────────────────────────────────────────────────────────────────────────────


def test_every_package_that_can_change_a_number_has_a_version() -> None:
    versions = provenance.versions()
    assert set(versions) == {"python", "pairprobe", "cuda", "driver", *provenance.PACKAGES}
    assert all(versions.values())
    assert versions["python"] == platform.python_version()
    assert versions["pairprobe"] == pairprobe.__version__ == importlib.metadata.version("pairprobe")
    assert versions["numpy"] == np.__version__


def test_a_package_that_is_missing_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    true = importlib.metadata.version

    def version(package: str) -> str:
        if package == "compressed-tensors":
            raise importlib.metadata.PackageNotFoundError(package)
        return true(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert provenance.versions()["compressed-tensors"] == "not installed"


def test_asking_for_versions_and_hardware_imports_no_torch() -> None:
    code = (
        "import sys; from pairprobe import provenance as p; p.versions(); p.hardware(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_hardware_is_told_in_plain_words() -> None:
    hardware = provenance.hardware()
    assert set(hardware) == {"cpu", "cores", "memory", "gpu"}
    assert all(hardware.values())
    assert hardware["cores"] == str(os.cpu_count())
    assert hardware["memory"] == f"{psutil.virtual_memory().total / 1e9:.1f} GB"


def test_freeze_lists_every_installed_package_once_in_order() -> None:
    text = provenance.freeze()
    lines = text.splitlines()
    assert text.endswith("\n")
    assert f"numpy=={np.__version__}" in lines
    assert f"pairprobe=={pairprobe.__version__}" in lines
    assert all(re.fullmatch(r"[\w.-]+==\S+", line) for line in lines)
    assert lines == sorted(set(lines), key=str.lower)


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_peak_grows_with_an_allocation_and_can_begin_anew() -> None:
    provenance.reset_peak_memory()
    before = provenance.peak_memory()
    block = np.ones(200 * MB, dtype=np.uint8)
    during = provenance.peak_memory()
    del block
    after = provenance.peak_memory()  # a peak remembers what is gone
    provenance.reset_peak_memory()
    anew = provenance.peak_memory()
    assert during - before > 180 * MB
    assert after > during - 5 * MB  # the kernel adds up its counters now and then
    assert during - anew > 150 * MB


def test_the_peak_is_that_of_this_process_in_bytes() -> None:
    provenance.reset_peak_memory()
    now = psutil.Process().memory_info().rss
    assert 0.8 * now < provenance.peak_memory() < 1.5 * now


# ── processors ───────────────────────────────────────────────────────────────────────────────────────────

ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd85\n"
X86 = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 7B13\nstepping\t: 0\n"
LSCPU = "Architecture: aarch64\nModel name:            Cortex-X925\nModel name:            Cortex-A725\n"


@pytest.fixture
def cpuinfo(monkeypatch: pytest.MonkeyPatch):
    """cpuinfo(text of /proc/cpuinfo or None, what lscpu prints or None): a machine that has these."""

    def pretend(text: str | None, lscpu: str | None) -> None:
        def read_text(path: Path, *_: object, **__: object) -> str:
            if text is None:
                raise FileNotFoundError(path)
            return text

        def ran(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
            if lscpu is None:
                raise FileNotFoundError(words[0])
            return subprocess.CompletedProcess(words, 0, lscpu, "")

        monkeypatch.setattr(Path, "read_text", read_text)
        monkeypatch.setattr(subprocess, "run", ran)
        monkeypatch.setattr(platform, "machine", lambda: "aarch64")
        monkeypatch.setattr(platform, "processor", lambda: "")

    return pretend


@pytest.mark.parametrize(
    ("text", "lscpu", "name"),
    [
        (X86, None, "AMD EPYC 7B13"),
        (ARM, LSCPU, "Cortex-X925 + Cortex-A725"),
        (ARM, "Model name:  -\n", "aarch64, 0x41 part 0xd85"),
        (ARM, None, "aarch64, 0x41 part 0xd85"),
        (ARM.replace("CPU implementer\t: 0x41\n", ""), None, "aarch64, ? part 0xd85"),
        ("processor: 0\n", None, "aarch64"),
        (None, None, "aarch64"),
    ],
)
def test_a_processor_has_a_name_on_every_machine(cpuinfo, text: str | None, lscpu: str | None, name: str) -> None:
    cpuinfo(text, lscpu)
    assert provenance._cpu() == name
