"""A model whose own code fails on its config is told in one error; an error of ours keeps its traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from small_models import edit_config, tokens_of, write

from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.errors import CheckpointError
from pairprobe.executions.resident import Resident
from pairprobe.executions.states import unfit
from pairprobe.executions.streamed import Streamed

EXECUTIONS = [of(device="cpu", dtype="float32", threads=1) for of in (Streamed, Resident)]
HALF = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4, "partial_rotary_factor": 0.5}
OWN = """
from transformers import LlamaModel

class Own(LlamaModel):
    def forward(self, *args, **kwargs):
        raise KeyError("no such thing")
"""


def forward(execution: Any, folder: Path, observe: Any = lambda *_: None, trust: bool = False) -> None:
    checkpoint = Checkpoint.open(folder, trust_remote_code=trust)
    execution.forward(checkpoint, tokens_of(checkpoint), observe)


@pytest.mark.parametrize("execution", EXECUTIONS, ids=lambda of: of.name)
@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("llama", {"rope_parameters": HALF}, r"LlamaModel, .* \(RuntimeError: The size of tensor a \(8\) must match"),
        ("mixtral", {"num_experts_per_tok": 9}, r"MixtralModel, .* \(RuntimeError: selected index k out of range\)"),
    ],
)
def test_a_config_on_which_a_layer_fails_is_one_error(tmp_path, execution, kind, values, said):
    folder = edit_config(write(kind, tmp_path / kind), **values)
    with pytest.raises(CheckpointError, match=rf"^{kind}: its model, {said}") as caught:
        forward(execution, folder)
    (problem,) = caught.value.problems
    assert f"config.json and the weights, or transformers {transformers.__version__}, do not belong" in problem
    assert caught.value.next_step.startswith("Get config.json again")
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("execution", EXECUTIONS, ids=lambda of: of.name)
def test_an_error_of_what_observes_the_states_is_its_own(tmp_path, execution):
    def observe(depth: int, *_: Any) -> None:
        if depth == 1:
            torch.zeros(2) + torch.zeros(3)  # torch's, called from here, though a layer of transformers calls this

    with pytest.raises(RuntimeError, match="The size of tensor a"):
        forward(execution, write("llama", tmp_path / "llama"), observe)


def test_an_error_of_a_checkpoints_own_code_is_of_its_model(tmp_path):
    folder = write("llama", tmp_path / "own")
    (folder / "modeling_own.py").write_text(OWN)
    edit_config(folder, auto_map={"AutoModel": "modeling_own.Own"})
    with pytest.raises(CheckpointError, match=r"its model, Own, fails on the texts \(KeyError: 'no such thing'\)"):
        forward(EXECUTIONS[1], folder, trust=True)


@pytest.mark.parametrize("words", ["CUDA error: an illegal memory access", "CUBLAS_STATUS_EXECUTION_FAILED"])
def test_what_a_device_says_is_no_fault_of_the_config(words):
    def inside_transformers() -> None:
        exec(compile("raise RuntimeError(words)", "x", "exec"), {"__name__": "transformers.models.x", "words": words})

    for said, expected in ((words, False), ("a shape", True)):
        words = said
        with pytest.raises(RuntimeError) as caught:
            inside_transformers()
        assert (unfit(caught.value, "m", torch.nn.Linear(1, 1)) is not None) is expected
