"""Damage told as a person needs it: checkpoint, file, tensor, what is missing or wrong, and the next step."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import edit_config, write

from bench.make_checkpoint import make
from bench.shapes import SHAPES
from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.errors import CheckpointError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
Q_PROJ = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    """A checkpoint of a format in two files; layer 0 is in the first."""

    def of(format: str) -> Path:
        folder = make(tmp_path / "hurt", SHAPES["tiny"], format)
        tensors = load_file(folder / SINGLE)
        (folder / SINGLE).unlink()
        placed = {name: SECOND if ".layers.1." in name else FIRST for name in tensors}
        for file in (FIRST, SECOND):
            save_file({n: t for n, t in tensors.items() if placed[n] == file}, folder / file)
        (folder / INDEX).write_text(json.dumps({"weight_map": placed}))
        return folder

    return of


def without(folder: Path, name: str) -> Path:
    """The same with a tensor taken out of file and index."""
    tensors = load_file(folder / FIRST)
    del tensors[name]
    save_file(tensors, folder / FIRST)
    placed = json.loads((folder / INDEX).read_text())["weight_map"]
    del placed[name]
    (folder / INDEX).write_text(json.dumps({"weight_map": placed}))
    return folder


def refused(call: Callable[[], object]) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        call()
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith("hurt: ")
    assert caught.value.next_step
    return caught.value


@pytest.mark.parametrize(
    ("format", "part", "rest"),
    [
        ("int8", "weight_scale", f"weight I8 [256, 256] (in {FIRST})"),
        ("int8", "weight", f"weight_scale BF16 [256, 1] (in {FIRST})"),
        ("fp8", "weight_scale", f"weight F8_E4M3 [256, 256] (in {FIRST})"),
        ("fp8_block", "weight_scale_inv", f"weight F8_E4M3 [256, 256] (in {FIRST})"),
        ("fp8_block", "weight", f"weight_scale_inv BF16 [2, 2] (in {FIRST})"),
        ("int4", "weight_scale", f"weight_packed I32 [256, 32] (in {FIRST})"),
        ("int4", "weight_packed", f"weight_scale BF16 [256, 2] (in {FIRST})"),
        ("awq", "qweight", f"qzeros and scales (in {FIRST})"),
        ("gptq", "qweight", f"qzeros and scales (in {FIRST})"),
        ("bnb8", "SCB", f"weight I8 [256, 256] (in {FIRST})"),
        ("bnb8", "weight", f"SCB F32 [256] (in {FIRST})"),
        ("mlx4", "scales", f"weight and biases (in {FIRST})"),
        ("mlx4", "biases", f"weight and scales (in {FIRST})"),
        ("mlx4", "weight", f"scales and biases (in {FIRST})"),
    ],
)
def test_a_part_that_is_missing_is_called_so(made, format, part, rest):
    opened = Checkpoint.open(without(made(format), f"{Q_PROJ}.{part}"))
    said = refused(lambda: len(opened.weights)).problems[0]
    assert f"{Q_PROJ}.{part} (" in said
    assert "is missing" in said
    assert f"without which {rest} cannot be read" in said


@pytest.mark.parametrize(
    ("format", "part"),
    [("awq", "scales"), ("gptq", "qzeros"), ("nf4", "weight.absmax"), ("nf4", "weight.quant_map"), ("nf4", "weight")],
)
def test_so_is_one_whose_format_is_known_without_it(made, format, part):
    opened = Checkpoint.open(without(made(format), f"{Q_PROJ}.{part}"))
    said = refused(lambda: len(opened.weights)).problems[0]
    assert said.startswith(f"hurt: {Q_PROJ}: ")
    assert f"no {part}" in said
    assert said.endswith(f"It is stored in {FIRST}.")


@pytest.mark.parametrize(
    ("format", "part", "tensor"),
    [
        ("int8", "weight_scale", torch.ones(7, 1)),
        ("int8", "weight_scale", torch.ones(256, 1, dtype=torch.int32)),
        ("awq", "scales", torch.ones(3, 256).half()),
        ("gptq", "qzeros", torch.ones(3, 3, dtype=torch.int32)),
        ("nf4", "weight.quant_state.bitsandbytes__nf4", torch.zeros(9, dtype=torch.uint8)),
        ("mlx4", "scales", torch.ones(256, 3)),
        ("fp8_block", "weight_scale_inv", torch.ones(5, 5)),
        ("bnb8", "SCB", torch.ones(3)),
    ],
)
def test_a_part_that_does_not_fit_is_told_with_its_file(made, format, part, tensor):
    folder = made(format)
    save_file(load_file(folder / FIRST) | {f"{Q_PROJ}.{part}": tensor}, folder / FIRST)
    opened = Checkpoint.open(folder)
    said = refused(lambda: len(opened.weights)).problems[0]
    assert said.startswith(f"hurt: {Q_PROJ}")
    assert said.endswith(f"It is stored in {FIRST}.")


def test_integers_of_a_method_that_is_not_known_are_not_given_anothers_parts(made):
    # as BitNet's: U8 of its own, which bitsandbytes' parts would not explain
    folder = edit_config(made("bf16"), quantization_config={"quant_method": "bitnet"})
    codes = {f"{Q_PROJ}.weight": torch.ones(256, 64, dtype=torch.uint8)}
    save_file(load_file(folder / FIRST) | codes, folder / FIRST)
    opened = Checkpoint.open(folder)
    said = refused(lambda: len(opened.weights)).problems[0]
    assert said == f"hurt: {Q_PROJ}.weight: U8 [256, 64] fits no format that is known. It is stored in {FIRST}."


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_cut_off_file_says_whose_it_is(made):
    folder = made("int8")
    (folder / SECOND).write_bytes((folder / SECOND).read_bytes()[:-5000])
    error = refused(lambda: Checkpoint.open(folder))
    assert error.problems[0].startswith(f"hurt: {SECOND}: cut off. model.layers.1.")
    assert error.next_step == "Download this file again."


def test_a_folder_in_the_place_of_a_file_is_to_be_removed(made):
    folder = made("int8")
    (folder / SECOND).unlink()
    (folder / SECOND).mkdir()
    error = refused(lambda: Checkpoint.open(folder))
    assert f"{SECOND}: cannot be read (Is a directory)" in error.problems[0]
    assert "remove it, and download the file again" in error.next_step


def test_a_tensor_in_two_files_is_told_with_both(made):
    folder = made("int8")
    twice = {f"{Q_PROJ}.weight": load_file(folder / FIRST)[f"{Q_PROJ}.weight"]}
    save_file(load_file(folder / SECOND) | twice, folder / SECOND)
    error = refused(lambda: Checkpoint.open(folder))
    assert f"{Q_PROJ}.weight is stored in two files: {FIRST} and {SECOND}." in error.problems[0]
    assert "get the repository again" in error.next_step


def test_an_entry_that_cannot_be_read_is_shown(made):
    folder = made("int8")
    raw = (folder / FIRST).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length]) | {f"{Q_PROJ}.weight": {"dtype": "I8", "shape": "256"}}
    text = json.dumps(header).encode()
    (folder / FIRST).write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    error = refused(lambda: Checkpoint.open(folder))
    assert f'{FIRST}: the header\'s entry for {Q_PROJ}.weight is {{"dtype": "I8", "shape": "256"}}' in error.problems[0]
    assert error.next_step == "Download this file again."


# ── config.json ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("values", "said", "step"),
    [
        ({"hidden_size": "256"}, "'hidden_size' expected int, got str (value: '256')", "Correct the value"),
        ({"num_attention_heads": 7}, "not a multiple of the number of attention heads (7)", "Correct the value"),
        ({"hidden_act": "sillu"}, "hidden_act is 'sillu', which it does not know", "Correct the value"),
        (
            {"rope_scaling": {"rope_type": "lama3", "factor": 8.0}},
            "rope_scaling.rope_type is 'lama3', which it does not know",
            "Correct the value",
        ),
        ({"model_type": "lama"}, "'lama' of config.json: this release of transformers does not know", "newer"),
        ({"num_hidden_layers": "two"}, "'num_hidden_layers' expected int, got str (value: 'two')", "Correct the value"),
    ],
)
def test_a_value_that_no_model_can_have_is_told_with_its_key(made, values, said, step):
    opened = Checkpoint.open(edit_config(made("bf16"), **values))
    error = refused(opened.empty_model)
    assert said in error.problems[0]
    assert step in error.next_step
    assert ("trust_remote_code" in error.next_step) is (step == "newer")


@pytest.mark.parametrize(
    ("value", "said"),
    [(["llama"], '["llama"]'), (3, "3"), ("", '""'), ({}, "{}"), (None, "null or missing")],
)
def test_a_type_that_is_none_is_told_with_its_value(made, value, said):
    error = refused(Checkpoint.open(edit_config(made("bf16"), model_type=value)).empty_model)
    assert error.problems == (
        f'hurt: model_type of config.json is {said}; allowed: the name of an architecture, as "llama".',
    )
    assert error.next_step.startswith("Correct the value")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_hidden_layers": 100_000}, "num_hidden_layers of config.json is 100000"),
        ({"num_hidden_layers": 1e30}, "num_hidden_layers of config.json is 1e+30"),
        ({"num_local_experts": 1001}, "num_local_experts of config.json is 1001"),
        ({"text_config": {"n_layer": 10**12}}, "text_config.n_layer of config.json is 1000000000000"),
    ],
    ids=str,
)
def test_more_layers_than_tensors_are_told_before_any_is_built(made, values, said):
    folder = edit_config(made("bf16"), **values)
    error = refused(lambda: Checkpoint.open(folder))
    assert error.problems == (f"hurt: {said}, but its files hold 21 tensors, less than one for each.",)
    assert error.next_step.startswith("Correct the value")


def test_some_hundred_layers_may_share_what_is_stored(made):
    assert Checkpoint.open(edit_config(made("bf16"), num_hidden_layers=1000)).layers == 1000


@pytest.mark.parametrize(
    ("kind", "key"), [("bert", "max_position_embeddings"), ("llama", "head_dim"), ("mamba", "state_size")]
)
def test_buffers_of_gigabytes_are_told_before_they_are_made(tmp_path, kind, key):
    folder = edit_config(write(kind, tmp_path / "hurt"), **{key: 4 * 10**12})  # no machine has as much
    error = refused(Checkpoint.open(folder).empty_model)
    assert "it would hold a buffer of [" in error.problems[0]
    assert "allowed: 268435456 numbers" in error.problems[0]
    assert error.next_step.startswith("Correct the value")


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (["config.4.0.0.json"], '["config.4.0.0.json"]: transformers takes config.4.0.0.json in its place'),
        (["config.json", "config.2.0.json"], ": transformers takes config.2.0.json in its place"),
        ("config.4.0.0.json", None),  # characters, of which none is a file
        ([3], "[3], which is no list of such files"),
        (None, None),
        (["config.json", "config.1000.0.json"], None),  # for later releases
    ],
    ids=str,
)
def test_a_config_that_hands_over_to_another_file_is_refused(made, named, said):
    folder = edit_config(made("bf16"), configuration_files=named)
    if said is None:
        assert Checkpoint.open(folder).layers == 2
        return
    error = refused(lambda: Checkpoint.open(folder))
    assert error.problems[0].startswith("hurt: configuration_files of config.json is [")
    assert said in error.problems[0]
    assert error.next_step == "Put the configuration that is meant into config.json, and remove the key."


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rope_theta": 0}, "rope_theta of config.json is 0"),
        ({"rope_theta": -10000.0}, "rope_theta of config.json is -10000.0"),
        ({"rope_theta": math.nan}, "rope_theta of config.json is NaN"),
        ({"rope_theta": math.inf}, "rope_theta of config.json is Infinity"),
        ({"rope_theta": "1e4"}, 'rope_theta of config.json is "1e4"'),
        ({"rope_theta": True}, "rope_theta of config.json is true"),
        ({"rope_theta": [1e4, 0]}, "rope_theta of config.json holds 0"),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 0}},
            "rope_parameters.rope_theta of config.json is",
        ),
        ({"rope_parameters": {"full_attention": {"rope_theta": -1}}}, "rope_parameters.full_attention.rope_theta of"),
        ({"rope_scaling": LLAMA3 | {"factor": 0}}, "rope_scaling.factor of config.json is 0"),
        ({"rope_scaling": LLAMA3 | {"low_freq_factor": 0}}, "rope_scaling.low_freq_factor of config.json is 0"),
        (
            {"rope_scaling": {"type": "longrope", "short_factor": [1.0, 0.0]}},
            "rope_scaling.short_factor of config.json hol",
        ),
        ({"text_config": {"model_type": "llama", "rope_theta": 0}}, "rope_theta of config.json is 0"),
    ],
    ids=str,
)
def test_rotary_frequencies_that_no_state_survives_are_told_with_their_key(made, values, said):
    # the weights are sound: 'state 1 is not finite' would blame them, minutes later
    error = refused(Checkpoint.open(edit_config(made("bf16"), **values)).empty_model)
    (problem,) = error.problems
    assert problem.startswith(f"hurt: {said}")
    assert problem.endswith("; allowed: a number above 0.")
    assert error.next_step.startswith("Correct the value in config.json")


@pytest.mark.parametrize("value", [[1e4], [1e4, 1e4]])  # a list is right for other kinds of models
def test_a_list_of_bases_for_a_model_of_one_is_told_with_its_key(made, value):
    error = refused(Checkpoint.open(edit_config(made("bf16"), rope_theta=value)).empty_model)
    assert f"config.json: rope_theta is {value}; allowed: a number above 0." in error.problems[0]


def test_scalings_that_are_right_or_null_are_taken(made):
    scaling = LLAMA3 | {"attention_factor": None, "mscale_all_dim": 0}
    assert Checkpoint.open(edit_config(made("bf16"), rope_theta=1, rope_scaling=scaling)).empty_model() is not None


@pytest.mark.parametrize("value", ["two", 0, 1.5, True])
def test_a_number_of_layers_that_is_none_is_told(made, value):
    opened = Checkpoint.open(edit_config(made("bf16"), num_hidden_layers=value))
    error = refused(lambda: opened.layers)
    assert f"num_hidden_layers of config.json is {value!r}; allowed: a number above 0" in error.problems[0]
    assert error.next_step.startswith("Correct the value")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rms_norm_eps": "1e-5"}, "'rms_norm_eps' expected float, got str (value: '1e-5')"),
        ({"rope_scaling": "8"}, "Field 'rope_parameters' with value '8'"),
    ],
    ids=str,
)
def test_a_tokenizer_is_not_to_blame_for_what_config_json_says(made, values, said):
    # AutoTokenizer reads config.json too
    opened = Checkpoint.open(edit_config(made("bf16"), **values))
    error = refused(opened.tokenizer)
    assert "config.json" in error.problems[0]
    assert said in error.problems[0]
    assert "tokenizer" not in error.problems[0] + error.next_step
    assert error.problems == refused(opened.empty_model).problems


def test_code_that_is_allowed_already_is_not_asked_for(made):
    folder = edit_config(made("bf16"), model_type="lama")
    opened = [Checkpoint.open(folder, trust_remote_code=trusted) for trusted in (False, True)]
    refusals = [refused(checkpoint.empty_model) for checkpoint in opened]
    assert refusals[0].problems == refusals[1].problems
    assert "model.trust_remote_code=true" in refusals[0].next_step
    assert refusals[1].next_step == "A newer transformers may know it."


@pytest.mark.parametrize("config", [True, False], ids=["beside a model", "alone"])
def test_an_adapter_that_would_be_left_out_is_told(made, config):
    # from_pretrained of such a folder loads base and adapter
    folder = made("bf16")
    (folder / "adapter_config.json").write_text("{}")
    if not config:
        (folder / "config.json").unlink()
    error = refused(lambda: Checkpoint.open(folder))
    assert f"{folder} holds adapter_config.json" in error.problems[0]
    assert "merge_and_unload" in error.next_step
    assert "remove adapter_config.json" in error.next_step
