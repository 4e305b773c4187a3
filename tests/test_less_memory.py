"""Less memory than was planned: smaller passes take the place of one that fails, and it is said."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from small_models import LAYERS, tokens_of

from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.errors import OutOfMemory
from pairprobe.executions import streamed
from pairprobe.executions.memory import Budget
from pairprobe.executions.stream import taken_apart
from pairprobe.executions.streamed import Streamed
from pairprobe.kept import Kept
from pairprobe.methods.layerwise import Layerwise
from pairprobe.rooms import Workload

CPU = Streamed(device="cpu", dtype="float32", threads=1)

pytestmark = pytest.mark.usefixtures("one_thread")


class Narrow(Streamed):
    """Runs out of memory half way through a pass with more than three texts."""

    def forward(self, checkpoint, tokens, observe, keep=None, asked=None):
        def limit(depth, states, rows):
            observe(depth, states, rows)
            if depth == 1 and len(tokens) > 3:
                raise MemoryError("could not create a primitive")

        return super().forward(checkpoint, tokens, limit, keep, asked)


def test_what_runs_out_of_memory_is_run_in_smaller_passes_and_said(written, tmp_path):
    checkpoint = Checkpoint.open(written("llama"))
    tokens = tokens_of(checkpoint)
    whole, _ = Layerwise().vectors(checkpoint, tokens, CPU)
    narrow, done = Narrow(device="cpu", dtype="float32", threads=1), []
    found, _ = Layerwise().vectors(
        checkpoint, tokens, narrow, lambda n, of: done.append((n, of)), Kept(tmp_path / "kept")
    )
    assert len(tokens) == 8  # then 4, then 2
    np.testing.assert_allclose(found.values, whole.values, atol=1e-5 * np.abs(whole.values).max())
    assert found.about["memory"] == "there was less than planned: passes of 2 texts or fewer took their place"
    assert "memory" not in whole.about
    assert done[-1] == (8 * (LAYERS + 1), 8 * (LAYERS + 1))
    assert all(n <= of for n, of in done)
    assert not [*(tmp_path / "kept").rglob("state-*")]
    sets = [*(tmp_path / "kept").rglob("texts.json")]
    assert sorted(len(json.loads(file.read_text())["texts"]) for file in sets) == [2, 2, 2, 2]


def test_one_text_that_does_not_fit_is_an_error_with_what_was_planned(written):
    checkpoint = Checkpoint.open(written("llama"))

    class Never(Streamed):
        def forward(self, checkpoint, tokens, observe, keep=None, asked=None):
            def fail(*_):
                observe(*_)
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

            return super().forward(checkpoint, tokens, fail, keep, asked)

    with pytest.raises(OutOfMemory) as raised:
        Layerwise().vectors(checkpoint, tokens_of(checkpoint), Never(device="cpu", dtype="float32", memory=0.5))
    said = str(raised.value)
    assert re.search(r"out of memory \(.*can't allocate memory\), where \d+ MB were planned of 500 MB it may use", said)
    assert "execution.memory" in said


def test_memory_that_shrinks_after_the_texts_were_chosen_is_asked_for_again(written, monkeypatch):
    checkpoint = Checkpoint.open(written("llama"))
    tokens = tokens_of(checkpoint)
    stream = taken_apart(checkpoint, "float32", "sdpa")
    least = CPU._needs(stream, Workload.of(tokens), "cpu", Budget(0)).host
    there = iter([10**9])
    monkeypatch.setattr(streamed, "budget", lambda *_: Budget(next(there, least)))
    found, _ = Layerwise().vectors(checkpoint, tokens, CPU)
    assert found.values.shape[1] == len(tokens)
    assert "passes of" in found.about["memory"]
