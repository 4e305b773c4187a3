"""Groups of texts that go through a model in one batch: to the last bit what each is alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import WORDS, tokens_of, write
from test_packed import PACKED

from bench.twins import quantise_folder
from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.executions import activations, products, sharing, streamed
from pairprobe.executions.batches import batches, joined
from pairprobe.executions.feeder import Feeder
from pairprobe.executions.products import Workshop, integer_sums
from pairprobe.executions.stream import taken_apart
from pairprobe.executions.streamed import Streamed
from pairprobe.methods.layerwise import Layerwise
from pairprobe.multiverse import _together
from pairprobe.records import Tokens

CPU = Streamed(device="cpu", dtype="float32", resume=False)
#: Wide enough for the order of a sum to depend on how many rows are multiplied, on processors where it does.
WIDE = {"hidden_size": 384, "intermediate_size": 1024}
PATTERNS = ("{word}", "The Proto-Indo-European word {word} is old and its meaning is known.")


def in_two_parts(checkpoint: Checkpoint) -> Tokens:
    return _together([tokens_of(checkpoint, pattern=pattern) for pattern in PATTERNS])[0]


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Texts of each group, of every batch that was made in this test."""
    sizes: list[tuple[int, ...]] = []
    enter = streamed.enter

    def watched(sequence: object, tokens: Tokens, groups: tuple, device: str) -> object:
        sizes.append(tuple(len(group) for group in groups))
        return enter(sequence, tokens, groups, device)  # type: ignore[arg-type]

    monkeypatch.setattr(streamed, "enter", watched)
    return sizes


def vectors(checkpoint: Checkpoint, tokens: Tokens, execution: Streamed = CPU) -> np.ndarray:
    found, _ = Layerwise(scope="text", special_tokens=True).vectors(checkpoint, tokens, execution)
    return found.values


@pytest.mark.parametrize("kind", PACKED)
def test_parts_in_one_batch_are_to_the_last_bit_what_they_are_alone(
    written: Callable[..., Path], entered: list[tuple[int, ...]], kind: str
) -> None:
    checkpoint = Checkpoint.open(written(kind))
    tokens = in_two_parts(checkpoint)
    whole = vectors(checkpoint, tokens)
    experts_or_own_products = kind in ("mixtral", "qwen3_moe", "gpt2") or "phi3_long" in kind
    assert len(entered) == (2 if experts_or_own_products else 1)
    for part in (0, 1):
        own = np.flatnonzero(tokens.parts == part)
        assert np.array_equal(vectors(checkpoint, tokens.select(own)), whole[:, own])


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write("llama", tmp_path_factory.mktemp("wide") / "llama", **WIDE)


@pytest.mark.parametrize("how", ["float32", "bfloat16", "float16", "int8", "fp8"])
def test_also_where_the_number_of_rows_moves_the_last_digits(
    wide: Path, entered: list[tuple[int, ...]], how: str, tmp_path: Path
) -> None:
    dense = how.startswith(("float", "bfloat"))
    checkpoint = Checkpoint.open(wide if dense else quantise_folder(wide, tmp_path / how, how))
    execution = replace(CPU, dtype=how if dense else "float32")
    tokens = in_two_parts(checkpoint)
    whole = vectors(checkpoint, tokens, execution)
    assert entered == [(len(WORDS), len(WORDS))]
    for part in (0, 1):
        own = np.flatnonzero(tokens.parts == part)
        assert np.array_equal(vectors(checkpoint, tokens.select(own), execution), whole[:, own])


@pytest.mark.parametrize("threads", [1, 3, 5])
@pytest.mark.parametrize(
    ("kind", "how"),
    [("llama", "float32"), ("llama", "int8"), ("llama", "awq"), ("phi3", "float32"), ("bert", "float32")],
)
def test_also_where_threads_divide_a_layers_work_at_other_places(
    tmp_path: Path, kind: str, how: str, threads: int
) -> None:
    folder = write(kind, tmp_path / kind, **WIDE)
    checkpoint = Checkpoint.open(folder if how == "float32" else quantise_folder(folder, tmp_path / how, how))
    words = tuple(f"{a}{b}{c}" for a in "bdgkpt" for b in "aeiou" for c in "nmr")[:40]
    tokens = _together([tokens_of(checkpoint, words, pattern=pattern) for pattern in (*PATTERNS, "a {word} of old")])[0]
    execution = replace(CPU, threads=threads)
    whole = vectors(checkpoint, tokens, execution)
    for part in range(3):
        own = np.flatnonzero(tokens.parts == part)
        assert np.array_equal(vectors(checkpoint, tokens.select(own), execution), whole[:, own])


@pytest.mark.parametrize("how", ["int8", "fp8"])
def test_inputs_that_are_quantised_and_summed_in_parts_change_nothing(
    wide: Path, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint.open(quantise_folder(wide, tmp_path / how, how))
    tokens, heights = in_two_parts(checkpoint), []
    whole = vectors(checkpoint, tokens)

    def watched(x: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        heights.append(len(q))
        return integer_sums(x, q)

    monkeypatch.setattr(products, "integer_sums", watched)
    monkeypatch.setattr(products, "LEAST_SUMS", 16)
    monkeypatch.setattr(products, "SUMS_CPU", 8 * 24 * 40)  # 24 rows for some 40 inputs
    monkeypatch.setattr(activations, "AT_ONCE_CPU", 5 * 384)
    assert np.array_equal(vectors(checkpoint, tokens), whole)
    assert (how == "fp8") == (not heights)
    assert max(heights, default=0) <= 64


def test_groups_are_multiplied_one_by_one(wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test before sees on some processors only."""
    checkpoint, rows = Checkpoint.open(wide), []
    multiply = Workshop.multiply

    def watched(self: Workshop, x: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
        rows.append(len(x))
        return multiply(self, x, *more)

    monkeypatch.setattr(Workshop, "multiply", watched)
    tokens = in_two_parts(checkpoint)
    vectors(checkpoint, tokens)
    together, alone = rows.copy(), []
    for part in (0, 1):
        rows.clear()
        vectors(checkpoint, tokens.select(np.flatnonzero(tokens.parts == part)))
        alone.append(rows.copy())
    assert together == [n for both in zip(*alone, strict=True) for n in both]


def test_a_checkpoint_is_read_once_and_two_weights_are_room_enough(wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, made = Checkpoint.open(wide), []
    begin = Feeder.__init__

    def watched(self: Feeder, *args: object, **more: object) -> None:
        begin(self, *args, **more)  # type: ignore[arg-type]
        made.append((self, more["room"]))

    monkeypatch.setattr(Feeder, "__init__", watched)
    vectors(checkpoint, in_two_parts(checkpoint))
    ((feeder, room),) = made
    assert room == 2 * 384 * 1024 * 4
    assert feeder.beside == feeder.again == 0


# ── which texts, and which rows ──────────────────────────────────────────────────────────────────────────


def test_groups_join_while_they_fit_padded_to_the_longest_of_all() -> None:
    lengths = np.array([4, 4, 2, 2, 2, 3])
    groups = [np.array(of) for of in ([0, 1], [2, 3, 4], [5])]
    assert [[list(g) for g in b] for b in joined(groups, lengths, 20)] == [[[0, 1], [2, 3, 4]], [[5]]]
    assert [[list(g) for g in b] for b in joined(groups, lengths, 24)] == [[[0, 1], [2, 3, 4], [5]]]
    assert [[list(g) for g in b] for b in joined(groups, lengths, 8)] == [[[0, 1]], [[2, 3, 4]], [[5]]]
    assert [*joined([], lengths, 8)] == []
    parts = np.array([0, 0, 1, 1, 1, 1])
    assert [len(b) for b in joined(batches(lengths, 24, parts), lengths, 24)] == [2]


def test_rows_of_groups_worked_by_hand() -> None:
    ids = np.array([[5, 1, 2], [5, 1, 3], [5, 4, 5], [7, 1, 2], [6, 6, 6]])
    mask = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 0, 0]], dtype=bool)
    found = sharing.rows(ids, mask, "cpu", (3, 2))
    assert isinstance(found, sharing.Groups)
    assert found.each.places.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12]
    assert found.each.sizes == (8, 4)
    flat = torch.zeros(15, 2)
    for place in range(15):
        flat[place] = ids.flatten()[place]
    taken = found.shared(flat)
    assert taken is not None
    assert taken.places.tolist() == [0, 1, 2, 5, 7, 9, 10, 11, 12]  # 9 begins another group, and 5 1 is not 7 1
    assert taken.sizes == (5, 4)
    real = mask.flatten().nonzero()[0]
    assert taken.places[taken.back][real].tolist() == [0, 1, 2, 0, 1, 5, 0, 7, 9, 10, 11, 12]
    assert found.again.tolist() == [3, 4, 6]
    assert found.apart_in(flat, taken.back) == frozenset()
    flat[6] += 1  # after the layer, say
    assert found.apart_in(flat, taken.back) == {0}
    assert found.apart_in(flat, found.each.back) == frozenset()  # they share no row
    flat[6] -= 1
    assert found.shared(flat, frozenset([0])).sizes == (8, 4)
    assert found.shared(flat, frozenset([0, 1])) is None
    flat[4] = 9.0
    taken = found.shared(flat)
    assert taken is not None
    assert taken.places.tolist() == [0, 1, 2, 5, 7, 4, 9, 10, 11, 12]  # within its group
    assert taken.sizes == (6, 4)
    assert taken.places[taken.back][real].tolist() == [0, 1, 2, 0, 4, 5, 0, 7, 9, 10, 11, 12]


def test_a_group_that_would_spare_nothing_alone_computes_all_its_places() -> None:
    ids = np.arange(40).reshape(4, 10)
    mask = np.ones((4, 10), dtype=bool)
    mask[2:, 4:] = False  # the second group is full at four tokens
    found = sharing.rows(ids, mask, "cpu", (2, 2))
    assert isinstance(found, sharing.Groups)
    assert found.each.places.tolist() == [*range(20), *range(20, 24), *range(30, 34)]
    assert found.each.sizes == (20, 8)
    assert found.shared(torch.zeros(40, 1)) is None or not len(found.again)


def test_models_that_count_positions_by_the_longest_text_are_not_joined(written: Callable[..., Path]) -> None:
    stream = taken_apart(Checkpoint.open(written("llama")), "float32", "sdpa")
    assert stream.joins
    del stream.joins
    stream.sequence.stack.config.rope_parameters = {"rope_type": "longrope", "rope_theta": 1.0}
    assert not stream.joins
