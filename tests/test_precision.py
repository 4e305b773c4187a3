"""What a sweep over execution.weights says at its end: worked by hand, and down the corridor on a small model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from groups import group_test, pair_set, similarities
from mlflow.tracking import MlflowClient

from pairprobe.commands.main import run
from pairprobe.errors import StatisticsError
from pairprobe.records import Vectors
from pairprobe.statistics.paired import delta_of_deltas
from pairprobe.statistics.precision import agreement, effect

# ── by hand ──────────────────────────────────────────────────────────────────────────────────────────────


def vectors(values: list) -> Vectors:
    array = np.array(values, dtype=np.float32)
    return Vectors(array, tuple(range(len(array))), "float32")


def test_cosines_by_hand() -> None:
    first = vectors([[[1, 0], [0, 2]], [[3, 4], [1, 0]]])
    second = vectors([[[5, 0], [0, 1]], [[4, 3], [1, 1]]])
    top, last = agreement(first, second, ["wheel", "water"])
    assert (top.depth, top.mean, top.least) == (0, 1.0, 1.0)
    assert last.mean == pytest.approx((24 / 25 + 0.5**0.5) / 2)
    assert (last.least, last.word) == (pytest.approx(0.5**0.5), "water")


def test_a_vector_without_length_has_no_cosine() -> None:
    (found,) = agreement(vectors([[[0, 0], [1, 0]]]), vectors([[[1, 0], [1, 0]]]), ["a", "b"])
    assert (found.mean, found.least) == (None, None)


def test_vectors_of_other_words_are_refused() -> None:
    with pytest.raises(StatisticsError, match="cannot be compared word by word"):
        agreement(vectors([[[1, 0]]]), vectors([[[1, 0], [0, 1]]]), ["a"])


def test_the_effect_is_delta_of_deltas_and_counts_what_crosses_alpha() -> None:
    rng = np.random.default_rng(1)
    # depth 0: found in the first alone; depth 1: in both; depth 2: in neither
    shifts = np.array([[3.0], [3.0], [0.0]])
    x, y = rng.normal(size=(3, 12)) + shifts, rng.normal(size=(3, 12))
    x2 = x.copy()
    x2[0] = x[0] / 2 + y[0].mean() - x[0].mean() / 2
    before, after = group_test(x, y), group_test(x2, y)
    assert [t.p is not None and t.p <= 0.05 for t in before.depths] == [True, True, False]
    assert [t.p is not None and t.p <= 0.05 for t in after.depths] == [False, True, False]
    pairs = pair_set(12, 12)
    found = effect("nf4", pairs, (similarities(x, y), similarities(x2, y)), (before, after), (), among=4)
    assert (found.changed, found.tested, found.agreement) == ((0,), (0, 1, 2), ())
    both = [np.concatenate([a, y], axis=1) for a in (x, x2)]
    alone = delta_of_deltas(both[0][0], both[1][0], pairs, "control")
    assert found.deltas[0].estimate == pytest.approx(alone.estimate)
    assert found.deltas[0].ci is not None and alone.ci is not None  # noqa: PT018
    assert found.deltas[0].ci.low == pytest.approx(alone.ci.low)
    assert found.deltas[0].estimate == pytest.approx(y[0].mean() - x[0].mean())
    wider = delta_of_deltas(both[0][0], both[1][0], pairs, "control", 1 - 0.05 / 4)
    assert found.corrected[0] is not None and wider.ci is not None  # noqa: PT018
    assert found.corrected[0].high == pytest.approx(wider.ci.high)
    assert found.corrected[0].high > found.deltas[0].ci.high


# ── a sweep ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def words(written) -> list[str]:
    folder = written("bert", hidden_size=128, intermediate_size=256)
    return ["model=local", f"model.source={folder}", "execution.device=cpu", "template=bare"]


def runs_of(home: Path) -> list:
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    ids = [e.experiment_id for e in client.search_experiments()]
    return client.search_runs(ids, order_by=["attributes.start_time ASC"])


def test_the_experiment_compares_every_rounding_with_what_is_stored(words, home, capfd) -> None:
    assert run([*words, "experiment=precision"]) == 0
    said = capfd.readouterr().out
    end = said[said.index("precision   ") :]
    rows = {line.split()[0]: line for line in end.splitlines() if line and not line.startswith(" ")}
    assert [w for w in rows if w in ("as_stored", "int8", "fp8", "int4_g128", "nf4")] == [
        "as_stored", "int8", "fp8", "int4_g128", "nf4",
    ]  # fmt: skip
    assert "0   1.0000   1.0000   1.0000" in end  # embeddings are the same in all
    together = " ".join(end.split())  # the published pairs' Δ cannot be tested, and nor is its change
    assert together.count("is not told from so little: cognates are worth 5.6 and control pairs 4 independent") == 4
    assert "Δ changes by" not in together
    assert "logged with each of these 5 runs: tables/precision.json" in end
    runs = runs_of(home)
    assert [r.data.params["execution.weights"] for r in runs] == ["as_stored", "int8", "fp8", "int4_g128", "nf4"]
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    files = [client.download_artifacts(r.info.run_id, "tables/precision.json") for r in runs]
    tables = [json.loads(Path(file).read_text()) for file in files]
    assert all(t == tables[0] for t in tables)
    rows_of = [dict(zip(tables[0]["columns"], row, strict=True)) for row in tables[0]["data"]]
    assert len(rows_of) == 4 * 2 * 4  # roundings × similarities × depths
    by_id = {r.data.params["execution.weights"]: r.data.metrics for r in runs}
    for row in rows_of:
        if row["similarity"] == "cosine" and row["depth"] == 3:
            assert row["delta_as_stored"] == pytest.approx(by_id["as_stored"]["delta"])
            assert row["delta_rounded"] == pytest.approx(by_id[row["weights"]]["delta"])
            assert row["delta_delta"] == pytest.approx(row["delta_rounded"] - row["delta_as_stored"])
            assert row["cosine_least"] <= row["cosine_mean"] < 1
            assert f"{row['cosine_mean']:.4f}" in rows[row["weights"]]
    finer, coarser = (
        next(r["cosine_mean"] for r in rows_of if r["weights"] == w and r["depth"] == 3) for w in ("int8", "int4_g128")
    )
    assert finer > coarser
    outcome = json.loads(Path(client.download_artifacts(runs[0].info.run_id, "precision.json")).read_text())
    assert set(outcome) == {"int8", "fp8", "int4_g128", "nf4"}


def test_any_sweep_over_weights_is_compared_within_equal_settings(words, capfd) -> None:
    assert run([*words, "-m", "execution.weights=as_stored,int8", "method.pooling=mean,last"]) == 0
    assert " ".join(capfd.readouterr().out.split()).count("weights rounded, against as_stored") == 2


def test_a_sweep_without_the_reference_says_so(words, capfd) -> None:
    assert run([*words, "-m", "execution.weights=int8,nf4"]) == 0
    said = " ".join(capfd.readouterr().out.split())
    assert "nothing to compare with: no run has execution.weights=as_stored" in said


def test_other_sweeps_say_nothing_of_precision(words, capfd) -> None:
    assert run([*words, "-m", "method.pooling=mean,last"]) == 0
    assert "precision " not in capfd.readouterr().out


def test_vectors_that_rounding_does_not_touch_are_equal_and_have_no_interval(words, capfd) -> None:
    assert run([*words, "method=static", "-m", "execution.weights=as_stored,int8"]) == 0
    said = " ".join(capfd.readouterr().out.split())
    assert "int8: how far Δ changes has no interval: no similarity differs between the two" in said
