"""What a run's files are like on disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from groups import FAST, pair_set, similarities
from safetensors.numpy import load_file

from pairprobe import archive, config, figures
from pairprobe.commands import compose
from pairprobe.records import Text, Texts, Vectors
from pairprobe.result import Result
from pairprobe.verdict import verdict


@pytest.fixture
def result() -> Result:
    pairs = pair_set(4, 3)
    words = [w for p in pairs.pairs for w in (p.a, p.b)]
    index = np.arange(len(words))
    texts = Texts(tuple(Text(w.form, 0, len(w.form), w) for w in words), index[::2], index[1::2], "{word}")
    vectors = Vectors(np.arange(28, dtype=np.float32).reshape(1, 14, 2), (0,), "float32")
    measured = similarities(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.1, 0.2, 0.4]))
    test = FAST.tests([measured], pairs)["cosine", "control"]
    return Result(
        texts, None, None, vectors, None, pairs, {"cosine": measured}, {("cosine", "control"): test},
        verdict(test, pairs, -1),
    )  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_vectors_can_be_read_by_whom_the_umask_lets(
    umask: int, mode: int, result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "draw_all", lambda *_: None)
    before = os.umask(umask)
    try:
        archive.write_result(tmp_path, result, vectors=True)
    finally:
        os.umask(before)
    file = tmp_path / "vectors" / "vectors.safetensors"
    assert file.stat().st_mode & 0o777 == mode
    assert load_file(file)["vectors"].tolist() == result.vectors.values.tolist()


# ── hashes of the plan ───────────────────────────────────────────────────────────────────────────────────


def hashes(*words: str, model: str = "sha256:1") -> tuple[str, str]:
    job = config.build(compose.jobs(list(words), multirun=False)[0])
    primary = archive.primary_sha256(job, "pairs")
    return primary, archive.plan_sha256(job, primary, model)


@pytest.mark.parametrize(
    ("word", "primary", "whole"),
    [
        ("experiment.primary.side=closer", True, True),
        ("tokens.exclude=[unknown]", True, True),
        ("statistics.alpha=0.01", True, True),
        ("method.pooling=last", True, True),
        ("+multiverse.templates.says='Say {word}.'", False, True),
        ("execution.weights=int8", False, True),
        ("execution.activations=weight_only", False, True),
        ("execution.threads=2", False, False),  # where it runs is no plan
        ("execution.memory=8", False, False),
        ("tracking.experiment=mine", False, False),
    ],
)
def test_the_first_hash_is_of_the_primary_outcome_and_the_second_of_all_that_was_fixed(
    word: str, primary: bool, whole: bool
) -> None:
    before, after = hashes(), hashes(word)
    assert (before[0] != after[0], before[1] != after[1]) == (primary, whole)


def test_two_families_of_ways_and_two_models_are_two_plans() -> None:
    says, asks = "+multiverse.templates.x='Say {word}.'", "+multiverse.templates.x='What is {word}?'"
    assert hashes(says)[0] == hashes(asks)[0]
    assert hashes(says)[1] != hashes(asks)[1]
    assert hashes()[1] != hashes(model="sha256:2")[1]
    assert hashes("execution=streamed") == hashes("execution=resident") == hashes()
