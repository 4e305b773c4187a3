"""How long a text may be where rotary positions follow from the longest text of a batch: no longer than they do not."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from small_models import edit_config, tokens_of, write

from pairprobe.checkpoints import positions
from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.commands.main import run
from pairprobe.executions.resident import Resident
from pairprobe.executions.streamed import Streamed

LONG = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0] * 4}
#: kind → config of a model whose positions are a text's own up to 28 tokens
KINDS: dict[str, dict[str, Any]] = {
    "longrope": {"rope_parameters": LONG | {"original_max_position_embeddings": 28}},
    "dynamic": {
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
        "max_position_embeddings": 28,
    },
}
EXECUTIONS = {
    "streamed": Streamed(device="cpu", dtype="float32", threads=1, batch_tokens=4096),
    "resident": Resident(device="cpu", dtype="float32", threads=1, batch_tokens=4096),
}


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_up_to_that_length_a_text_is_the_same_beside_any_other_and_beyond_it_is_not(tmp_path, kind, execution):
    checkpoint = Checkpoint.open(write("llama", tmp_path / kind, **KINDS[kind]))
    assert checkpoint.alone == (28, kind)
    assert checkpoint.max_tokens == 28
    whole = tokens_of(checkpoint, ("water wheel " * 4, "wheel water " * 4))
    assert whole.lengths.min() > 29

    def first(*lengths: int) -> torch.Tensor:
        """The first text's last states, run beside others: all are cut to these lengths."""
        names = ("ids", "pieces", "spans", "word", "special", "unknown")
        of = [replace(t, **{k: getattr(t, k)[:n] for k in names}) for t, n in zip(whole.of, lengths, strict=True)]
        seen: dict[int, torch.Tensor] = {}

        def observe(depth: int, states: torch.Tensor, rows: Any) -> None:
            if depth == checkpoint.layers and 0 in rows:
                seen[0] = states[list(rows).index(0), : lengths[0]].clone()

        EXECUTIONS[execution].forward(checkpoint, replace(whole, of=tuple(of)), observe)
        return seen[0]

    torch.testing.assert_close(first(20, 28), first(20, 20), rtol=0, atol=1e-5)
    assert (first(20, 29) - first(20, 20)).abs().max() > 1e-3


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_longer_text_is_an_error_that_says_why(tmp_path, kind, execution, capsys):
    folder = write("llama", tmp_path / kind, **KINDS[kind])
    long = "xyz" * 13
    rows = [("water", "wet", "cognate"), ("wheel", "ring", "cognate"), ("old", long, "cognate"),
            ("is", "the", "control"), ("word", "a", "control")]  # fmt: skip
    file = tmp_path / "pairs.csv"
    file.write_text("word_a,word_b,group\n" + "".join(f"{','.join(row)}\n" for row in rows), encoding="utf-8")
    words = ["pairs=table", f"pairs.path={file}", "template=bare", "model=local", f"model.source={folder}",
             f"execution={execution}", "execution.device=cpu"]  # fmt: skip
    assert run(words) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"'{long}': its text has 40 tokens, the model allows 28 (its {kind} positions beyond 28 tokens" in said
    assert "depend on the longest text of a batch): xyzxyz" in said
    assert "tokens.exclude=[empty,too_long]" in said
    # a smaller length of the reader's own needs no such reason
    assert run([*words, "tokens.max_length=10"]) == 1
    assert "positions" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ({}, None),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1.0}}, None),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, (64, "dynamic")),
        ({"rope_scaling": LONG}, (64, "longrope")),  # without one of its own: max_position_embeddings
        ({"rope_scaling": LONG, "original_max_position_embeddings": 7}, (7, "longrope")),
        ({"rope_scaling": LONG | {"original_max_position_embeddings": 9}}, (9, "longrope")),
        # two kinds of layers: the shorter length
        (
            {
                "layer_types": ["full_attention", "sliding_attention"],
                "num_hidden_layers": 2,
                "rope_parameters": {
                    "full_attention": LONG | {"original_max_position_embeddings": 9},
                    "sliding_attention": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1.0},
                },
            },
            (9, "longrope"),
        ),
    ],
    ids=str,
)
def test_the_length_is_read_from_all_settings_that_transformers_reads(made, expected):
    config = transformers.LlamaConfig(
        hidden_size=32, num_attention_heads=4, max_position_embeddings=64, **copy.deepcopy(made)
    )
    assert positions.alone(config) == expected


def test_what_a_config_leaves_to_transformers_counts_too(tmp_path: Path) -> None:
    folder = write("phi3_long", tmp_path / "phi3")
    assert Checkpoint.open(folder).alone == (16, "longrope")
    scaling = {k: LONG[k] for k in ("short_factor", "long_factor")} | {"type": "longrope"}
    edit_config(folder, rope_parameters=None, rope_scaling=scaling, original_max_position_embeddings=None)
    edit_config(folder, max_position_embeddings=8192)
    opened = Checkpoint.open(folder)
    assert opened.alone == (4096, "longrope")
    assert opened.max_tokens == 4096
