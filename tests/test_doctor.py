"""What doctor looks at, what it calls a problem, and that it changes nothing."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from pairprobe.commands import compose, doctor
from pairprobe.commands.main import run
from pairprobe.config import Job, build
from pairprobe.executions import device
from pairprobe.tracking import Store

INT8 = "model=llama70b_int8"
DENSE = "model=minilm"


def job_of(*words: str) -> Job:
    return build(compose.jobs(list(words), multirun=False)[0])


def told(capfd: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """Finding texts by 'mark topic', each unwrapped to one line; '' holds the line that counts problems."""
    found: dict[str, list[str]] = {}
    head = ""
    for line in capfd.readouterr().out.splitlines():
        label, text = line[:12].strip(), line[12:].strip()
        if label or text.endswith(("problems", "problem")):
            head = label
            found.setdefault(head, []).append(text)
        else:
            found[head][-1] += " " + text
    return found


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, whatever this one has."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(device, "nvidia_expected", lambda: False)


@pytest.mark.usefixtures("no_gpu")
def test_doctor_finds_the_main_job_well_and_says_what_it_looked_at(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor"]) == 0
    found = told(capfd)
    assert found[""] == ["no problems"]
    topics = ("python", "packages", "versions", "pairs", "model", "device", "memory", "store", "disk")
    assert set(found) - {""} == {f"✓ {topic}" for topic in topics}
    assert f"torch {torch.__version__.partition('+')[0]}" in found["✓ packages"][0]
    assert found["✓ pairs"] == ["pie_oc: 10 cognate, 4 control"]
    assert "91 MB as " in found["✓ model"][0]
    assert found["✓ device"][0].startswith("cpu")
    assert re.fullmatch(r"resident: needs about \d+ MB", found["✓ memory"][0])
    assert "will be made by the first run" in found["✓ store"][0]
    assert list(home.iterdir()) == []


def test_doctor_counts_the_runs_of_a_store_and_leaves_it_as_it_is(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = Store(f"sqlite:///{home / 'mlflow.db'}", home)
    for i in range(3):
        with store.start("pairprobe", f"run{i}", {}, {}):
            pass
    before = (home / "mlflow.db").read_bytes()
    files = {p.name for p in home.iterdir()}
    assert run(["doctor", "method=static"]) == 0
    assert "writable, 3 runs" in told(capfd)["✓ store"][0]
    assert (home / "mlflow.db").read_bytes() == before
    assert {p.name for p in home.iterdir()} == files


def test_a_method_that_computes_nothing_needs_no_device(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "method=static"]) == 0
    assert "✓ device" not in told(capfd)


@pytest.mark.usefixtures("no_gpu")
def test_every_problem_is_told_at_once_and_nothing_is_written(
    home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("word_a,word_b,group\na,b,cognat\n,b,control\n", encoding="utf-8")
    (tmp_path / "file").write_text("", encoding="utf-8")
    words = [INT8, "execution.device=cuda", "pairs=table", f"pairs.path={bad}"]
    words.append(f"tracking.uri=sqlite:///{tmp_path / 'file' / 'mlflow.db'}")
    assert run(["doctor", *words]) == 1
    found = told(capfd)
    assert "llama70b_int8: not found" in found["✗ model"][0]
    assert "hf download" in found["✗ model"][0]
    assert "execution.device=cuda" in found["✗ device"][0]
    assert "execution.device=cpu" in found["✗ device"][0]
    assert "line 2: unknown group 'cognat'" in found["✗ pairs"][0]
    assert "line 3: word_a is empty" in found["✗ pairs"][0]
    assert "cannot be written" in found["✗ store"][0]
    count = sum(len(texts) for head, texts in found.items() if head.startswith("✗"))
    assert found[""] == [f"{count} problems"]
    assert list(home.iterdir()) == []
    assert {p.name for p in tmp_path.iterdir()} == {"home", "bad.csv", "file"}


@pytest.mark.usefixtures("no_gpu")
def test_one_problem_is_counted_as_one(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "execution.device=cuda"]) == 1
    found = told(capfd)
    assert found[""] == ["1 problem"]
    assert found["– not seen"] == [
        "memory, because of what is wrong above. Nothing is wrong so far with: pairs, template, model."
    ]


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    ("method", "unseen"),
    [
        ("layerwise", "template, memory, because of what is wrong above. Nothing is wrong so far with: model, device."),
        ("static", "template, because of what is wrong above. Nothing is wrong so far with: model."),
    ],
)
def test_faulty_pairs_leave_the_rest_looked_at_as_far_as_it_can_be(
    method: str, unseen: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("word_a,word_b,group\na,b,cognat\n", encoding="utf-8")
    assert run(["doctor", "pairs=table", f"pairs.path={bad}", f"method={method}"]) == 1
    assert told(capfd)["– not seen"] == [unseen]


def test_an_error_in_the_config_does_not_hide_the_other_checks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}")
    assert run(["doctor", "method.poling=last", "modle=minilm"]) == 1
    found = told(capfd)
    assert any("there is no 'method.poling'" in text for text in found["✗ config"])
    assert any("There is no 'modle'" in text for text in found["✗ config"])
    assert {"✓ python", "✓ packages", "✓ versions", "✗ store"} <= set(found)
    assert found["– not seen"] == ["pairs, template, model, device, memory, because of what is wrong above."]


def test_a_flag_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--verbose"]) == 2
    assert "doctor does not know --verbose" in capfd.readouterr().err


@pytest.mark.usefixtures("no_gpu")
def test_too_little_memory_is_told_with_need_and_rest(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "free_memory", lambda _: 50_000_000)
    assert run(["doctor"]) == 1
    found = told(capfd)
    assert "– not seen" not in found
    (text,) = found["✗ memory"]
    # layer by layer, since whole it would need more than 91 MB; of 50 MB free not all may be used
    assert re.search(r"minilm: needs about [3-6]\d MB of the host, of which it may use [1-4]\d MB", text)
    assert "execution=streamed needs least" in text


# ── packages ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """pretend(package=version, …): what importlib.metadata then says; None: it is not installed."""
    true = importlib.metadata.version

    def install(**versions: str | None) -> None:
        def version(package: str) -> str:
            said = versions.get(package.replace("-", "_"), ...)
            if said is None:
                raise importlib.metadata.PackageNotFoundError(package)
            return true(package) if said is ... else str(said)

        monkeypatch.setattr(importlib.metadata, "version", version)

    return install


@pytest.mark.parametrize("package", ["numpy", "hydra-core", "transformers"])
def test_a_package_outside_its_bounds_is_told_with_the_way_to_mend_it(
    package: str, pretend: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    wish = next(r for r in map(Requirement, importlib.metadata.requires("pairprobe") or []) if r.name == package)
    pretend(**{package.replace("-", "_"): "0.0.1"})
    assert run(["doctor", "method=static"]) == 1
    (text,) = told(capfd)["✗ packages"]
    assert text == f"{package} 0.0.1 is outside {wish.specifier}. pip install '{wish}'"


def test_a_missing_package_is_told(pretend: Callable[..., None], capfd: pytest.CaptureFixture[str]) -> None:
    pretend(seaborn=None)
    assert run(["doctor", "method=static"]) == 1
    (text,) = told(capfd)["✗ packages"]
    assert text == "seaborn is not installed. pip install 'seaborn>=0.13'"


def test_what_is_installed_here_is_within_the_packages_own_bounds() -> None:
    assert [f.text for f in doctor._requirements(None) if f.problem] == []


# ── versions known to misbehave ──────────────────────────────────────────────────────────────────────────


def bad(job: Job | None, **versions: str) -> list[doctor.Finding]:
    installed = {name.replace("_", "-"): version for name, version in versions.items()}
    found: Iterator[doctor.Finding] = doctor.known_bad(job, installed.get)
    return list(found)


@pytest.mark.parametrize(
    ("versions", "reason"),
    [
        ({"transformers": "4.57.6", "compressed_tensors": "0.13.0"}, "3–4 × the checkpoint"),
        ({"transformers": "5.23.0", "compressed_tensors": "0.20.0"}, "2.2 × the checkpoint"),
        ({"transformers": "5.23.0", "autoawq": "0.2.9"}, "autoawq is unmaintained and needs transformers 4.51.3"),
        ({"mlflow": "3.18.0"}, "pip install 'mlflow!=3.18.0'"),
        ({"hydra_core": "1.3.8", "omegaconf": "2.4.0"}, "pip install 'omegaconf<2.4'"),
        ({"hydra_core": "1.3.8", "omegaconf": "2.4.0.dev3"}, "pip install 'omegaconf<2.4'"),
        ({"transformers": "4.57.6+local", "compressed_tensors": "0.13.0"}, "3–4 × the checkpoint"),
    ],
    ids=lambda v: " ".join(v.values()) if isinstance(v, dict) else "",
)
def test_a_known_combination_is_flagged_with_its_versions_and_reason(versions: dict[str, str], reason: str) -> None:
    (finding,) = bad(None, **versions)
    assert reason in finding.text
    for name, version in versions.items():
        assert f"{name.replace('_', '-')} {version}" in finding.text


@pytest.mark.parametrize(
    "versions",
    [
        {},
        {"transformers": "4.51.3", "compressed_tensors": "0.9.0", "autoawq": "0.2.9"},  # the paper's own
        {"transformers": "4.57.6"},
        {"transformers": "5.23.0", "compressed_tensors": "0.9.0"},
        {"mlflow": "3.17.2"},
        {"mlflow": "3.18.1"},
        {"hydra_core": "1.3.8", "omegaconf": "2.3.1"},
        {"transformers": "unknown", "compressed_tensors": "0.13.0"},
    ],
    ids=lambda v: " ".join(v.values()) or "none",
)
def test_other_combinations_are_not_flagged(versions: dict[str, str]) -> None:
    assert bad(None, **versions) == []


@pytest.mark.parametrize(("model", "problem"), [(INT8, True), (DENSE, False)])
@pytest.mark.parametrize(("transformers", "tensors"), [("4.57.6", "0.13.0"), ("5.23.0", "0.20.0")])
def test_what_bites_int8_models_is_a_problem_for_them_and_a_remark_for_others(
    model: str, problem: bool, transformers: str, tensors: str
) -> None:
    (finding,) = bad(job_of(model), transformers=transformers, compressed_tensors=tensors)
    assert finding.problem is problem


@pytest.mark.parametrize("versions", [{"transformers": "5.23.0", "autoawq": "0.2.9"}, {"mlflow": "3.18.0"}])
def test_what_bites_everybody_is_a_problem_for_a_dense_model_too(versions: dict[str, str]) -> None:
    (finding,) = bad(job_of(DENSE), **versions)
    assert finding.problem


def test_a_combination_that_is_only_a_remark_leaves_doctor_content(
    pretend: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    pretend(transformers="5.23.0", compressed_tensors="0.20.0")
    assert run(["doctor", "method=static"]) == 0
    (remark,) = told(capfd)["✓ versions"]  # beside it 'no combination that is known to misbehave' would not be true
    assert "transformers 5.23.0 with compressed-tensors 0.20.0" in remark
