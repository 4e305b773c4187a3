"""The README's sweep over the published experiment's models, from the hub's cache, offline. Layers are two, and 512
wide in place of 8192 (`python -m bench.make_checkpoint` writes them whole); formats, names and settings are theirs."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from safetensors import safe_open

from bench.make_checkpoint import make
from bench.shapes import SHAPES, Shape
from pairprobe.commands.main import run

ROOT = Path(__file__).parents[1]
#: model → repository, shape, format; the commit that is in the cache, and whether a branch stands for it.
PUBLISHED = {
    "llama70b_int8": ("RedHatAI/Llama-3.3-70B-Instruct-quantized.w8a8", "llama70b", "int8", "0123456789" * 4, True),
    "qwen72b_awq": (
        "Qwen/Qwen2.5-72B-Instruct-AWQ", "qwen72b", "awq", "698703eae6604af048a3d2f509995dc302088217", False,
    ),
}  # fmt: skip


def reduced(name: str) -> Shape:
    return SHAPES[PUBLISHED[name][1]].reduced(layers=2, width=512, vocab=1024)


def as_the_hub_lays_it_out(cache: Path, name: str) -> Path:
    """Content by its hash in blobs/, links to it in snapshots/COMMIT/, and, of a branch, refs/main. The snapshot."""
    repository, _, format, commit, branch = PUBLISHED[name]
    place = cache / f"models--{repository.replace('/', '--')}"
    made = place / "made"
    make(made, reduced(name), format)
    snapshot = place / "snapshots" / commit
    for folder in (snapshot, place / "blobs", place / "refs"):
        folder.mkdir(parents=True)
    for file in made.iterdir():
        blob = place / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(blob)
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / blob.name)
    made.rmdir()
    if branch:
        (place / "refs" / "main").write_text(commit)
    return snapshot


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Path], list[Run]]]:
    """The models' snapshots, and the runs of the README's words, in the order in which they began."""
    from huggingface_hub import constants

    root = tmp_path_factory.mktemp("published")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (words,) = re.findall(r"^ +python run\.py (-m model=llama70b_int8,qwen72b_awq .*)$", readme, flags=re.MULTILINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(root / "hub"))
        patch.setenv("PAIRPROBE_HOME", str(root / "home"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        snapshots = {name: as_the_hub_lays_it_out(root / "hub", name) for name in PUBLISHED}
        assert run([*words.split(), "--quiet"]) == 0
        client = MlflowClient(f"sqlite:///{root / 'home' / 'mlflow.db'}")
        ids = [e.experiment_id for e in client.search_experiments()]
        yield snapshots, client.search_runs(ids, order_by=["attributes.start_time ASC"])


def test_four_runs_are_finished_each_under_its_models_name(swept):
    _, runs = swept
    assert [r.info.run_name for r in runs] == [
        "llama70b_int8-static-pie_oc",
        "llama70b_int8-layerwise-pie_oc",
        "qwen72b_awq-static-pie_oc",
        "qwen72b_awq-layerwise-pie_oc",
    ]
    assert {r.info.status for r in runs} == {"FINISHED"}
    assert [(r.data.tags["model"], r.data.tags["method"]) for r in runs] == [
        (name, method) for name in PUBLISHED for method in ("static", "layerwise")
    ]
    assert [r.data.params["model.name"] for r in runs] == [r.data.tags["model"] for r in runs]
    assert len({r.data.tags["sweep_id"] for r in runs}) == 1
    assert [r.data.tags.get("execution") for r in runs] == [None, "streamed"] * 2
    assert all(-1 <= r.data.metrics["delta"] <= 1 for r in runs)


def test_each_run_names_the_commit_that_was_in_the_cache(swept):
    # of llama70b_int8 only the branch main is configured: which commit it stood for, the cache knows
    for found in swept[1]:
        repository, _, _, commit, _ = PUBLISHED[found.data.tags["model"]]
        assert found.data.params["model.hub"] == repository
        assert found.data.params["model.revision"] == commit
        assert found.data.tags["checkpoint"] == f"commit:{commit}"
        assert found.data.tags["checkpoint_from"] == f"hub cache {repository}"


def test_each_run_says_in_which_format_its_weights_are_and_how_many_bits_they_take(swept):
    snapshots, runs = swept
    named = {"llama70b_int8": "compressed-tensors int8", "qwen72b_awq": "AWQ"}
    dense = {"llama70b_int8": {"embeddings", "head", "norms"}, "qwen72b_awq": {"embeddings", "head", "norms", "biases"}}
    for found in runs:
        name = found.data.tags["model"]
        assert named[name] in found.data.tags["checkpoint_formats"]
        assert {*found.data.tags["checkpoint_unquantised"].split(", ")} == dense[name]
        nbytes = 0
        for file in snapshots[name].glob("*.safetensors"):
            with safe_open(file, "pt") as opened:
                nbytes += sum(opened.get_tensor(key).nbytes for key in opened.keys())  # noqa: SIM118
        modules = list(reduced(name).stored_as(PUBLISHED[name][2]).modules())
        weights = sum(math.prod(m.shape) + (m.shape[0] if m.bias else 0) for m in modules)
        assert float(found.data.tags["checkpoint_bits_per_weight"]) == pytest.approx(8 * nbytes / weights, abs=0.01)
