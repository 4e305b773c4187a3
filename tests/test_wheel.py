"""An installed wheel does what the checkout does, from any folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked as an installer would."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def installed(site: Path, words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    code = "from pairprobe.commands.main import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    environment.pop("PAIRPROBE_HOME")
    return subprocess.run(
        [sys.executable, "-c", code, *words], cwd=cwd, env=environment, capture_output=True, text=True
    )


def test_the_wheel_holds_every_yaml_and_table(site: Path) -> None:
    packed = {str(p.relative_to(site / "pairprobe" / "conf")) for p in (site / "pairprobe" / "conf").rglob("*.yaml")}
    assert packed == {str(p.relative_to(ROOT / "conf")) for p in (ROOT / "conf").rglob("*.yaml")}
    assert (site / "pairprobe" / "pairs" / "pie_oc.csv").exists()
    assert (site / "pairprobe" / "methods" / "paper70_published.csv").exists()
    assert (site / "pairprobe" / "page" / "style.css").exists()


def test_the_installed_command_is_declared(site: Path) -> None:
    (entry,) = site.glob("*.dist-info/entry_points.txt")
    assert "pairprobe = pairprobe.commands.main:main" in entry.read_text()


def test_an_installed_wheel_keeps_its_runs_in_the_current_folder(site: Path, tmp_path: Path) -> None:
    done = installed(site, ["method=static"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "verdict" in done.stdout
    assert (tmp_path / "mlflow.db").exists()
    assert (tmp_path / "mlruns").is_dir()
    run_id = re.findall(r"\b[0-9a-f]{32}\b", done.stdout)[0]
    again = installed(site, ["reproduce", run_id[:10]], tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr


def test_an_installed_wheel_refuses_bad_words_too(site: Path, tmp_path: Path) -> None:
    done = installed(site, ["modle=minilm"], tmp_path)
    assert done.returncode == 2
    assert "Did you mean 'model'?" in done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "home"]
