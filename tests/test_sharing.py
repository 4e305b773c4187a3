"""Texts that begin alike are computed once, and nothing is changed by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import tokens_of

from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.executions import products, sharing
from pairprobe.executions.stream import taken_apart
from pairprobe.executions.streamed import Streamed
from pairprobe.methods.layerwise import Layerwise
from pairprobe.records import Tokens
from pairprobe.rooms import Workload

CPU = Streamed(device="cpu", dtype="float32", resume=False)
WORDS = ("dog", "doom", "cat", "ʷek", "dot", "wolf")
GEMMA = Streamed(device="cpu", dtype="float32", resume=False, attention="eager")  # knows no sdpa


def test_beginnings_worked_by_hand() -> None:
    ids = np.array([[5, 1, 2], [5, 1, 3], [5, 4, 0], [7, 1, 2]])
    mask = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 1]], dtype=bool)
    found = sharing.rows(ids, mask, "cpu")
    assert found is not None
    assert found.real.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11]  # place 8 is padding
    assert found.first.tolist() == [0, 1, 2, 5, 7, 9, 10, 11]  # 3 and 6 begin as 0, 4 as 1; 7 1 is not 5 1
    assert (found.again.tolist(), found.alike.tolist()) == ([3, 4, 6], [0, 1, 0])
    assert found.first[found.back][found.real].tolist() == [0, 1, 2, 0, 1, 5, 0, 7, 9, 10, 11]
    assert found.real[found.apart][found.real].tolist() == found.real.tolist()


def test_nothing_is_gathered_where_nothing_is_spared() -> None:
    assert sharing.rows(np.arange(40).reshape(4, 10), np.ones((4, 10), dtype=bool), "cpu") is None


def test_padding_alone_is_spared_too() -> None:
    mask = np.ones((4, 10), dtype=bool)
    mask[2, 5:] = False
    found = sharing.rows(np.arange(40).reshape(4, 10), mask, "cpu")
    assert found is not None
    assert (len(found.again), len(found.first)) == (0, 35)


@pytest.fixture
def multiplied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows that went into each product."""
    seen: list[int] = []
    product = products.Workshop.product

    def watched(self: products.Workshop, x: torch.Tensor, *more: object) -> torch.Tensor:
        seen.append(len(x))
        return product(self, x, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(products.Workshop, "product", watched)
    return seen


def vectors(folder: Path, tokens: Tokens, execution: Streamed = CPU) -> np.ndarray:
    found, _ = Layerwise(scope="text", special_tokens=True).vectors(Checkpoint.open(folder), tokens, execution)
    return found.values


def without(folder: Path, tokens: Tokens, monkeypatch: pytest.MonkeyPatch, execution: Streamed = CPU) -> np.ndarray:
    with monkeypatch.context() as patch:
        patch.setattr(products, "PATIENCE", 0)
        return vectors(folder, tokens, execution)


# GPT-2 and Falcon have linear layers of their own, whose weights are made dense and used as they use them.
CAUSAL = ("llama", "qwen2", "qwen2_windows", "qwen3", "mistral", "gemma2", "gemma3", "phi3", "gpt_neox", "olmo2",
          "mixtral")  # fmt: skip


@pytest.mark.parametrize("kind", CAUSAL)
def test_a_causal_model_computes_each_beginning_once_and_gives_the_same_states(
    written: Callable[..., Path], multiplied: list[int], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = written(kind)
    tokens = tokens_of(Checkpoint.open(folder), WORDS)
    execution = GEMMA if kind == "gemma2" else CPU
    shared = vectors(folder, tokens, execution)
    distinct = len({tuple(t.ids[: i + 1]) for t in tokens.of for i in range(len(t))})
    assert distinct == Workload.of(tokens).beginnings()
    apart = Workload.of(replace(tokens, parts=np.arange(len(tokens))))
    assert apart.beginnings() == tokens.lengths.sum()  # none shares a part
    assert taken_apart(Checkpoint.open(folder), "float32", execution.attention).causal
    assert distinct < sum(len(t) for t in tokens.of)
    whole = {n for n in multiplied if n >= distinct}  # experts are given some tokens each
    assert distinct in whole
    assert max(whole) <= (distinct + sum(len(t) for t in tokens.of)) / 2  # threads may round some rows in another way
    # the same rows through the same products; only how many there are at once differs
    assert np.abs(shared - without(folder, tokens, monkeypatch, execution)).max() <= 2e-6 * np.abs(shared).max()


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_a_model_that_looks_ahead_shares_nothing(
    written: Callable[..., Path], multiplied: list[int], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = written(kind)
    tokens = tokens_of(Checkpoint.open(folder), WORDS)
    found = vectors(folder, tokens)
    assert not taken_apart(Checkpoint.open(folder), "float32", "sdpa").causal
    real = sum(len(t) for t in tokens.of)
    if kind == "bert":  # whose layers are run on packed rows: its mask tells
        assert set(multiplied) == {real}
    else:  # its states tell: query, key and value of the first layer have seen no other token yet
        assert min(multiplied[:3]) < real
        assert set(multiplied[3:]) == {real}
    plain = without(folder, tokens, monkeypatch)
    assert np.abs(found - plain).max() <= 2e-6 * np.abs(plain).max()


def test_rows_that_differ_by_one_bit_are_computed_by_themselves() -> None:
    ids = np.array([[1, 2], [1, 3], [1, 4], [1, 5]])
    found = sharing.rows(ids, np.ones((4, 2), dtype=bool), "cpu")
    assert found is not None
    flat = torch.arange(16.0).view(8, 2)
    flat[2] = flat[4] = flat[6] = flat[0]
    taken = found.shared(flat)
    assert taken is not None
    places, back = taken.places, taken.back
    assert taken.sizes == (5,)
    assert places.tolist() == found.first.tolist() == [0, 1, 3, 5, 7]
    assert places[back].tolist() == [0, 1, 0, 3, 0, 5, 0, 7]
    flat[4, 1] = torch.nextafter(flat[4, 1], torch.tensor(9.0))
    taken = found.shared(flat)
    assert taken is not None
    places, back = taken.places, taken.back
    assert places.tolist() == [0, 1, 3, 5, 7, 4]
    assert places[back].tolist() == [0, 1, 0, 3, 4, 5, 0, 7]
    assert torch.equal(flat[places][back], flat)  # every real token has its own row, to the last bit
    flat[2, 0] = 99
    assert found.shared(flat) is None  # two of three differ


def test_batches_share_within_themselves(written: Callable[..., Path]) -> None:
    folder = written("llama")
    tokens = tokens_of(Checkpoint.open(folder), WORDS)
    small = Streamed(device="cpu", dtype="float32", resume=False, batch_tokens=2 * int(tokens.lengths.max()))
    whole = vectors(folder, tokens)
    assert np.abs(vectors(folder, tokens, small) - whole).max() < 2e-6 * np.abs(whole).max()
