"""Several poolings and templates from one pass, and the norms of all tokens: each as if it had been measured alone.

Reference norms come from transformers' own `output_hidden_states`, one text per forward; 1e-5 of the largest, as in
test_resident.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import GLOSSED, LAYERS, WORDS, tokens_of
from transformers import AutoModel

from pairprobe import kept as keeping
from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.executions.batches import batches
from pairprobe.executions.feeder import Feeder
from pairprobe.executions.resident import Resident
from pairprobe.executions.streamed import Streamed
from pairprobe.kept import Kept
from pairprobe.methods import layerwise
from pairprobe.methods.layerwise import Layerwise
from pairprobe.methods.pooling import Pooling
from pairprobe.methods.static import Static
from pairprobe.multiverse import _together
from pairprobe.records import Tokens, Vectors
from pairprobe.rooms import Workload

POOLINGS = (Pooling(), Pooling("last"), Pooling("first"), Pooling("mean", "text"), Pooling("mean", "text", True))
PATTERNS = (GLOSSED, "{word}", "a {word} of old")
EXECUTIONS = {
    "resident": Resident(device="cpu", dtype="float32", batch_tokens=50, threads=1),
    "streamed": Streamed(device="cpu", dtype="float32", batch_tokens=50, threads=1),
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def layers_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many layers each pass over the checkpoint read, in order."""
    passes: list[int] = []
    whole = Feeder.__iter__

    def counted(feeder: Feeder):
        passes.append(0)
        for tensors in whole(feeder):
            passes[-1] += 1
            yield tensors

    monkeypatch.setattr(Feeder, "__iter__", counted)
    return passes


def several(
    checkpoint: Checkpoint,
    tokens: Tokens,
    execution: Resident | Streamed,
    poolings: tuple[Pooling, ...] = POOLINGS,
    kept: Kept | None = None,
    **method: object,
) -> tuple[Vectors, ...]:
    return Layerwise(**method).several(checkpoint, tokens, poolings, execution, kept=kept)[0]  # type: ignore[arg-type]


def alone(checkpoint: Checkpoint, tokens: Tokens, execution: Resident | Streamed, pooling: Pooling) -> Vectors:
    method = Layerwise(pooling.pooling, pooling.scope, pooling.special_tokens)
    return method.vectors(checkpoint, tokens, execution)[0]


def same_norms(a: Vectors, b: Vectors) -> bool:
    assert a.token_norms is not None
    assert b.token_norms is not None
    return all(np.array_equal(x, y) for x, y in zip(a.token_norms, b.token_norms, strict=True))


# ── one pass is what separate ones are ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["llama", "bert", "gpt2"])
@pytest.mark.parametrize("execution", EXECUTIONS.values(), ids=EXECUTIONS)
def test_each_template_and_pooling_is_to_the_last_bit_what_it_is_alone(written, kind, execution):
    checkpoint = Checkpoint.open(written(kind))
    written_texts = [tokens_of(checkpoint, pattern=pattern) for pattern in PATTERNS]
    together, _ = _together(written_texts)
    assert len(together) == sum(map(len, written_texts))
    found = several(checkpoint, together, execution)
    start = 0
    for tokens in written_texts:
        rows = slice(start, start := start + len(tokens))
        for pooling, vectors in zip(POOLINGS, found, strict=True):
            reference = alone(checkpoint, tokens, execution, pooling)
            assert np.array_equal(vectors.values[:, rows], reference.values)
            assert vectors.token_norms is not None
            assert reference.token_norms is not None
            for a, b in zip(vectors.token_norms[rows], reference.token_norms, strict=True):
                assert np.array_equal(a, b)
    assert [v.about["pooling"] for v in found] == [p.described for p in POOLINGS]


def test_texts_of_different_parts_never_share_a_batch_and_each_part_is_divided_as_if_alone():
    lengths, parts = np.array([3, 12, 5, 5, 8, 1, 12]), np.array([1, 0, 0, 1, 1, 0, 1])
    divided = [list(rows) for rows in batches(lengths, 24, parts)]
    # part 0 is texts 1, 2, 5 of 12, 5, 1 tokens; part 1 is 6, 4, 3, 0 of 12, 8, 5, 3
    assert divided == [[1, 2], [5], [6, 4], [3, 0]]
    for part in (0, 1):
        own = np.flatnonzero(parts == part)
        expected = [list(own[rows]) for rows in batches(lengths[own], 24)]
        assert [rows for rows in divided if parts[rows[0]] == part] == expected


def test_selected_texts_keep_their_parts(written):
    checkpoint = Checkpoint.open(written("llama"))
    together, _ = _together([tokens_of(checkpoint, pattern=p) for p in PATTERNS])
    some = together.select([0, len(WORDS), 1])
    assert some.parts is not None
    assert list(some.parts) == [0, 1, 0]


def test_a_workload_knows_the_texts_it_is_made_of(written):
    checkpoint = Checkpoint.open(written("llama"))
    together, _ = _together([tokens_of(checkpoint, pattern=p) for p in PATTERNS])
    rows = [0, len(WORDS), 1]
    some, selected = Workload.of(together, 3).select(np.array(rows)), together.select(rows)
    assert (list(some.lengths), list(some.parts)) == (list(selected.lengths), [0, 1, 0])
    assert (len(some), some.poolings, some.held) == (3, 3, len(together))
    ids = [selected.of[i].ids for i in range(3)]
    assert some.vocabulary == len({int(i) for of in ids for i in of})
    led = [(part, *of[: n + 1]) for of, part in zip(ids, (0, 1, 0), strict=True) for n in range(len(of))]
    assert some.beginnings() == len({*led}) < len(led)
    assert some.beginnings(np.array([0, 1])) == len(ids[0]) + len(ids[1])  # of two parts
    assert Workload(some.lengths).beginnings() == Workload(some.lengths).vocabulary == some.lengths.sum()


def test_a_pass_asks_the_model_once_whatever_is_pooled(written, layers_read):
    checkpoint = Checkpoint.open(written("llama"))
    together, _ = _together([tokens_of(checkpoint, pattern=p) for p in PATTERNS])
    several(checkpoint, together, EXECUTIONS["streamed"])
    assert layers_read == [LAYERS]


def test_several_passes_under_a_small_budget_give_the_same_up_to_rounding(written):
    checkpoint = Checkpoint.open(written("llama"))
    together, _ = _together([tokens_of(checkpoint, pattern=p) for p in PATTERNS])
    whole = several(checkpoint, together, EXECUTIONS["streamed"])

    class InParts(Streamed):
        def chunks(self, checkpoint, asked):  # noqa: ARG002
            return iter(np.array_split(np.arange(len(asked)), 3 if len(asked) > 5 else 1))

    parted = several(checkpoint, together, InParts(device="cpu", dtype="float32", batch_tokens=50, threads=1))
    for a, b in zip(whole, parted, strict=True):
        np.testing.assert_allclose(a.values, b.values, atol=1e-5 * np.abs(a.values).max())


def test_every_pooling_counts_in_the_memory_that_is_planned(written):
    checkpoint = Checkpoint.open(written("llama"))
    asked = Workload(np.full(1000, 12))
    streamed = EXECUTIONS["streamed"]
    one, three = (streamed.estimate(checkpoint, replace(asked, poolings=n)).host for n in (1, 3))
    assert three - one == 2 * (LAYERS + 1) * 1000 * 32 * 4


def test_only_the_depths_that_are_measured_count_in_the_memory_that_is_planned(written):
    checkpoint = Checkpoint.open(written("llama"))
    asked = Workload(np.full(1000, 12))
    streamed = EXECUTIONS["streamed"]
    every, two = (streamed.estimate(checkpoint, replace(asked, depths=n)).host for n in (None, 2))
    assert every - two == (LAYERS + 1 - 2) * 1000 * (32 + 12) * 4  # vectors, and norms of tokens
    seen = []

    class Watched(Streamed):
        def forward(self, checkpoint, tokens, observe, keep=None, asked=None):
            seen.append(asked.depths)
            return super().forward(checkpoint, tokens, observe, keep, asked)

    Layerwise(depths=(0, -1)).vectors(checkpoint, tokens_of(checkpoint), Watched(device="cpu", dtype="float32"))
    assert seen == [2]


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_static_poolings_are_what_they_are_alone_and_rows_are_read_once(written, kind, monkeypatch):
    checkpoint = Checkpoint.open(written(kind))
    tokens = tokens_of(checkpoint)
    asked: list[set[int]] = []
    whole = Checkpoint.rows

    def rows(self, name, ids):
        asked.append(set(ids))
        return whole(self, name, asked[-1])

    monkeypatch.setattr(Checkpoint, "rows", rows)
    found = Static().several(checkpoint, tokens, POOLINGS, EXECUTIONS["resident"])[0]
    assert len(asked) == 1
    for pooling, vectors in zip(POOLINGS, found, strict=True):
        method = Static(pooling.pooling, pooling.scope, pooling.special_tokens)
        assert np.array_equal(vectors.values, method.vectors(checkpoint, tokens, EXECUTIONS["resident"])[0].values)
        assert vectors.token_norms is None


# ── norms ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["llama", "bert", "gpt2"])
@pytest.mark.parametrize("execution", EXECUTIONS.values(), ids=EXECUTIONS)
def test_norms_are_those_of_transformers_own_states(written, kind, execution):
    checkpoint = Checkpoint.open(written(kind))
    tokens = tokens_of(checkpoint)
    (found,) = several(checkpoint, tokens, execution, (Pooling(),))
    model = AutoModel.from_pretrained(checkpoint.folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    assert found.token_norms is not None
    assert len(found.token_norms) == len(tokens)
    for of, norms in zip(tokens.of, found.token_norms, strict=True):
        with torch.inference_mode():
            states = model(torch.from_numpy(of.ids.copy())[None], output_hidden_states=True).hidden_states
        expected = np.stack([np.linalg.norm(s[0].double().numpy(), axis=-1) for s in states])
        assert norms.shape == expected.shape == (LAYERS + 1, len(of))
        assert norms.dtype == np.float32
        assert np.abs(norms - expected).max() <= 1e-5 * expected.max()


def test_norms_of_chosen_depths_only(written):
    checkpoint = Checkpoint.open(written("llama"))
    tokens = tokens_of(checkpoint)
    (every,) = several(checkpoint, tokens, EXECUTIONS["resident"], (Pooling(),))
    (some,) = several(checkpoint, tokens, EXECUTIONS["resident"], (Pooling(),), depths=[1, -1])
    assert some.token_norms is not None
    assert every.token_norms is not None
    assert all(np.array_equal(a, b[[1, LAYERS]]) for a, b in zip(some.token_norms, every.token_norms, strict=True))


@pytest.mark.parametrize("less", [0, 1])
def test_norms_that_would_take_too_much_are_not_kept_and_it_is_said(written, monkeypatch, less):
    checkpoint = Checkpoint.open(written("llama"))
    tokens = tokens_of(checkpoint)
    monkeypatch.setattr(layerwise, "TOKEN_NORMS", (LAYERS + 1) * int(tokens.lengths.sum()) * 4 - less)
    (found,) = several(checkpoint, tokens, EXECUTIONS["resident"], (Pooling(),))
    assert (found.token_norms is None) == bool(less)
    assert ("token_norms" in found.about) == bool(less)


# ── kept ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def llama(written: Callable[..., Path]) -> tuple[Checkpoint, Tokens]:
    checkpoint = Checkpoint.open(written("llama"))
    return checkpoint, tokens_of(checkpoint)


def test_each_pooling_is_found_that_was_measured_with_others(llama, tmp_path, layers_read):
    checkpoint, tokens = llama
    kept = Kept(tmp_path / "kept")
    first = several(checkpoint, tokens, EXECUTIONS["streamed"], kept=kept)
    for pooling, vectors in zip(POOLINGS, first, strict=True):
        (again,) = several(checkpoint, tokens, EXECUTIONS["streamed"], (pooling,), kept)
        assert np.array_equal(again.values, vectors.values)
        assert same_norms(again, vectors)
    both = several(checkpoint, tokens, EXECUTIONS["streamed"], POOLINGS[2:0:-1], kept)
    assert np.array_equal(both[1].values, first[1].values)
    assert both[0].about["kept"] == "8 of 8 texts were kept from an earlier run"
    assert layers_read == [LAYERS]


def test_a_pooling_that_is_not_there_is_measured_and_then_is(llama, tmp_path, layers_read):
    checkpoint, tokens = llama
    kept = Kept(tmp_path / "kept")
    several(checkpoint, tokens, EXECUTIONS["streamed"], POOLINGS[:2], kept)
    found = several(checkpoint, tokens, EXECUTIONS["streamed"], POOLINGS[:3], kept)
    # words of one token pool alike under mean, last and first: they alone are found
    single = [int(t.word.sum()) == 1 for t in tokens.of]
    assert found[0].about.get("kept", "0").startswith(str(sum(single)))
    reference = several(checkpoint, tokens, EXECUTIONS["streamed"], POOLINGS[:3])
    for a, b in zip(found, reference, strict=True):
        np.testing.assert_allclose(a.values, b.values, atol=1e-5)
    assert layers_read == [LAYERS] * 3
    several(checkpoint, tokens, EXECUTIONS["streamed"], POOLINGS[:3], kept)
    assert layers_read == [LAYERS] * 3


def test_another_template_runs_its_own_texts_only(llama, tmp_path):
    checkpoint, tokens = llama
    kept = Kept(tmp_path / "kept")
    several(checkpoint, tokens, EXECUTIONS["streamed"], kept=kept)
    together, _ = _together([tokens, tokens_of(checkpoint, pattern="{word}")])
    found = several(checkpoint, together, EXECUTIONS["streamed"], kept=kept)
    assert found[0].about["kept"] == "8 of 16 texts were kept from an earlier run"
    reference = several(checkpoint, together, EXECUTIONS["streamed"])
    # what was found and what was run are each divided as before: nothing differs in any bit
    for a, b in zip(found, reference, strict=True):
        assert np.array_equal(a.values, b.values)
        assert same_norms(a, b)


def test_vectors_without_norms_serve_no_run_that_wants_them(llama, tmp_path, layers_read, monkeypatch):
    checkpoint, tokens = llama
    kept = Kept(tmp_path / "kept")
    with monkeypatch.context() as small:
        small.setattr(layerwise, "TOKEN_NORMS", 10)
        (without,) = several(checkpoint, tokens, EXECUTIONS["streamed"], (Pooling(),), kept)
        assert without.token_norms is None
        several(checkpoint, tokens, EXECUTIONS["streamed"], (Pooling(),), kept)
    assert layers_read == [LAYERS]
    (found,) = several(checkpoint, tokens, EXECUTIONS["streamed"], (Pooling(),), kept)
    assert layers_read == [LAYERS, LAYERS]
    assert found.token_norms is not None
    with monkeypatch.context() as small:  # and those with norms serve one that does not
        small.setattr(layerwise, "TOKEN_NORMS", 10)
        several(checkpoint, tokens, EXECUTIONS["streamed"], (Pooling(),), kept)
    assert layers_read == [LAYERS, LAYERS]


def test_an_interrupted_pass_goes_on_with_all_poolings_and_norms(llama, tmp_path, layers_read, monkeypatch):
    checkpoint, tokens = llama
    kept = Kept(tmp_path / "kept")
    monkeypatch.setattr(keeping, "WORTH", 0)
    whole = keeping.Writing.state

    def stopped(writing, depth, save):
        whole(writing, depth, save)
        if depth == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(keeping.Writing, "state", stopped)
        with pytest.raises(KeyboardInterrupt):
            several(checkpoint, tokens, EXECUTIONS["streamed"], kept=kept)
    layers_read.clear()
    found = several(checkpoint, tokens, EXECUTIONS["streamed"], kept=kept)
    assert layers_read == [LAYERS - 2]
    reference = several(checkpoint, tokens, EXECUTIONS["streamed"])
    for a, b in zip(found, reference, strict=True):
        assert np.array_equal(a.values, b.values)
        assert same_norms(a, b)


def test_an_interrupted_pass_with_other_poolings_is_not_taken_up(llama, tmp_path, layers_read, monkeypatch):
    checkpoint, tokens = llama
    kept = Kept(tmp_path / "kept")
    monkeypatch.setattr(keeping, "WORTH", 0)
    whole = keeping.Writing.state

    def stopped(writing, depth, save):
        whole(writing, depth, save)
        if depth == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(keeping.Writing, "state", stopped)
        with pytest.raises(KeyboardInterrupt):
            several(checkpoint, tokens, EXECUTIONS["streamed"], POOLINGS[:1], kept=kept)
    layers_read.clear()
    found = several(checkpoint, tokens, EXECUTIONS["streamed"], kept=kept)
    assert layers_read == [LAYERS]
    assert np.array_equal(found[1].values, several(checkpoint, tokens, EXECUTIONS["streamed"])[1].values)
