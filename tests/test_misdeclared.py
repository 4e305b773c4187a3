"""Quantisation settings that cannot be read: an error with the value, said once; never read as nothing said."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from mlflow.tracking import MlflowClient
from packed import headers
from safetensors.torch import load_file, save_file
from small_models import edit_config

from bench.make_checkpoint import make
from bench.shapes import SHAPES
from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.checkpoints.formats import compressed_tensors
from pairprobe.checkpoints.groups import activations
from pairprobe.checkpoints.headers import Tensor
from pairprobe.commands.main import run
from pairprobe.errors import CheckpointError, Misdeclared
from pairprobe.executions.streamed import Streamed
from pairprobe.rooms import UNKNOWN, Activations

MISSING = object()


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Checkpoint]:
    """A checkpoint of a format with one value of its quantisation settings replaced, or taken out."""

    def of(format: str, path: str, value: Any) -> Checkpoint:
        folder = make(tmp_path / "odd", SHAPES["tiny"], format)
        config = json.loads((folder / "config.json").read_text())
        *within, last = path.split("/")
        place = config
        for key in within:
            place = place[key]
        place[last] = value
        if value is MISSING:
            del place[last]
        if format.startswith("mlx"):  # declares all of it twice
            config["quantization_config"] = copy.deepcopy(config["quantization"])
        (folder / "config.json").write_text(json.dumps(config))
        return Checkpoint.open(folder)

    return of


GROUPS = "quantization_config/config_groups"
INPUTS = f"{GROUPS}/group_0/input_activations"
WEIGHTS = f"{GROUPS}/group_0/weights"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (GROUPS, "group_0", 'config_groups is "group_0"; allowed: an object, or null'),
        (GROUPS, [{"targets": ["Linear"]}], 'config_groups is [{"targets": ["Linear"]}]; allowed'),
        (GROUPS, {}, "config_groups is {}; allowed: the groups that say how"),
        (GROUPS, None, "config_groups is null or missing"),
        (GROUPS, MISSING, "config_groups is null or missing"),
        (f"{GROUPS}/group_0", [], "config_groups.group_0 is []; allowed: an object"),
        (f"{GROUPS}/group_0", "W8A8", 'config_groups.group_0 is "W8A8"; allowed: an object'),
        (f"{GROUPS}/group_0/targets", "Linear", 'config_groups.group_0.targets is "Linear"; allowed: a list of names'),
        (f"{GROUPS}/group_0/targets", ["re:("], 'a target is "re:("; allowed: a pattern'),
        (WEIGHTS, "int8", 'config_groups.group_0.weights is "int8"; allowed: an object'),
        (f"{WEIGHTS}/num_bits", 9, "config_groups.group_0.weights.num_bits is 9; allowed: 1 … 8"),
        (f"{WEIGHTS}/num_bits", "8", 'weights.num_bits is "8"; allowed'),
        (f"{WEIGHTS}/type", "integer", 'weights.type is "integer"; allowed: int or float'),
        (f"{WEIGHTS}/group_size", "128", 'weights.group_size is "128"; allowed: a number above 0'),
        (f"{WEIGHTS}/block_structure", "big", 'weights.block_structure is "big"; allowed: two numbers'),
        (f"{WEIGHTS}/symmetric", "false", 'weights.symmetric is "false"; allowed: true, false'),
        (INPUTS, "int8", 'config_groups.group_0.input_activations is "int8"; allowed: an object, or null'),
        (INPUTS, [], "input_activations is []; allowed"),
        (f"{GROUPS}/group_0/output_activations", "int8", 'output_activations is "int8"; allowed'),
        (f"{INPUTS}/type", "flot", 'input_activations.type is "flot"; allowed: int or float'),
        (f"{INPUTS}/num_bits", None, "input_activations.num_bits is null or missing; allowed: 1 … 8"),
        (f"{INPUTS}/dynamic", "true", 'input_activations.dynamic is "true"; allowed: true, false'),
        (f"{INPUTS}/symmetric", 0, "input_activations.symmetric is 0; allowed: true, false"),
        (f"{INPUTS}/strategy", "tokens", 'input_activations.strategy is "tokens"; allowed: token, tensor, group'),
        (f"{INPUTS}/strategy", "group", "group_size is null or missing; allowed: a number above 0 where strategy is"),
        ("quantization_config", "int8", 'config.json, quantization_config is "int8"; allowed: an object, or null'),
        ("quantization_config", ["int8"], 'quantization_config is ["int8"]; allowed'),
    ],
)
def test_settings_that_cannot_be_read_are_told_once_with_their_value(changed, path, value, said):
    opened = changed("int8", path, value)
    with pytest.raises(Misdeclared) as caught:
        len(opened.weights)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith("odd: config.json, quantization_config")
    assert said in caught.value.problems[0]
    assert "correct the value" in caught.value.next_step


@pytest.mark.parametrize(
    ("format", "path", "value", "said"),
    [
        ("gptq", "quantization_config/desc_act", "false", 'desc_act is "false"; allowed: true, false'),
        ("gptq", "quantization_config/checkpoint_format", "", "checkpoint_format is ''; of GPTQ's, gptq"),
        ("gptq", "quantization_config/checkpoint_format", ["gptq"], "checkpoint_format is '['gptq']'; of GPTQ's"),
        ("fp8_block", "quantization_config/weight_block_size", [0, 128], "weight_block_size is [0, 128]; allowed: two"),
        ("fp8_block", "quantization_config/weight_block_size", "128", 'weight_block_size is "128"; allowed: two'),
        ("fp8_block", "quantization_config/activation_scheme", "some", 'activation_scheme is "some"; allowed: dynamic'),
        ("mlx4", "quantization/model.embed_tokens", "4 bit", 'model.embed_tokens is "4 bit"; allowed: an object'),
        ("mlx4", "quantization/model.embed_tokens", False, "model.embed_tokens is false; allowed: an object"),
        ("mlx4", "quantization", "4 bit", 'quantization_config is "4 bit"; allowed: an object'),
    ],
)
def test_so_are_other_formats(changed, format, path, value, said):
    opened = changed(format, path, value)
    with pytest.raises(Misdeclared) as caught:
        len(opened.weights)
    assert len(caught.value.problems) == 1
    assert said in caught.value.problems[0]
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{WEIGHTS}/group_size", -1),
        (f"{WEIGHTS}/type", "INT"),
        (f"{WEIGHTS}/symmetric", None),
        (f"{GROUPS}/attention", {"targets": ["Attention"], "weights": None}),
        (f"{INPUTS}/group_size", None),
    ],
)
def test_what_compressed_tensors_takes_is_taken(changed, path, value):
    found = changed("int8", path, value).storage
    assert found.activations == {"int8 per token": 14}


def test_a_block_may_be_written_as_older_versions_did():
    # compressed-tensors' own validator takes '128x128' for [128, 128]
    weights = {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": "2x4"}
    config = {"config_groups": {"g": {"targets": ["Linear"], "weights": weights}}}
    tensors = {
        "weight": Tensor(Path("a"), "F8_E4M3", (4, 8), 32),
        "weight_scale": Tensor(Path("a"), "F32", (2, 2), 16),
    }
    assert compressed_tensors.recognise("m", tensors, config).block == (2, 4)


def test_inputs_without_a_strategy_have_the_librarys_own():
    for said in ({"dynamic": True}, {"dynamic": True, "group_size": 16}):
        expected = QuantizationArgs(**said).strategy
        found = activations({"num_bits": 8, **said}, "input_activations")
        assert found == Activations("int8", "tensor" if expected == "tensor" else "token", said.get("group_size"))
        assert (expected == "group") is (found.group is not None)


def test_groups_under_the_name_they_had_in_2024_are_found(tmp_path):
    # "compression_config" of compressed-tensors before 0.6: the inputs of its W8A8 were taken for unquantised
    folder = make(tmp_path / "old", SHAPES["tiny"], "int8")
    said = json.loads((folder / "config.json").read_text())["quantization_config"]
    edit_config(folder, quantization_config=None, compression_config=said)
    assert Checkpoint.open(folder).storage.activations == {"int8 per token": 14}


@pytest.mark.parametrize(
    ("scheme", "stored", "expected"),
    [("dynamic", False, "tensor"), ("static", True, "static"), ("static", False, None), ("both", False, None)],
)
def test_autofp8_says_by_its_scheme_how_inputs_are_quantised(scheme, stored, expected):
    # its FP8DynamicLinear finds one scale for all of x, per_tensor_quantize(x)
    tensors = headers({"bias": torch.ones(4)})
    tensors |= {"weight": Tensor(Path("a"), "F8_E4M3", (4, 8), 32), "weight_scale": Tensor(Path("a"), "F32", (), 4)}
    if stored:
        tensors["input_scale"] = Tensor(Path("a"), "F32", (), 4)
    config = {"quant_method": "fp8", "activation_scheme": scheme}
    if expected is None:
        with pytest.raises(CheckpointError, match=r"input_scale is missing|activation_scheme is"):
            compressed_tensors.recognise("m", tensors, config)
    else:
        assert compressed_tensors.recognise("m", tensors, config).activations == Activations("fp8", expected)


def test_a_packing_format_of_null_says_no_version(tmp_path):
    settings = {"packing_format": None, "checkpoint_format": "gptq_v2"}
    folder = make(tmp_path / "v2", SHAPES["tiny"], "gptq")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] |= settings
    (folder / "config.json").write_text(json.dumps(config))
    weight = Checkpoint.open(folder).weights["model.layers.0.self_attn.q_proj.weight"]
    assert weight.add == 0  # version 2 stores zero points as they are


# ── settings that tensors do not bear out ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("format", "path", "value", "said"),
    [
        ("awq", "quantization_config/bits", 8, "bits 8 (stored: 4) of 14 weights"),
        ("awq", "quantization_config/group_size", 64, "group_size 64 (stored: 128) of 14 weights"),
        ("awq", "quantization_config/group_size", -1, "group_size -1 (stored: 128) of 14 weights"),
        ("gptq", "quantization_config/bits", 8, "bits 8 (stored: 4) of 14 weights"),
        ("gptq", "quantization_config/bits", "three", 'bits "three" (stored: 4) of 14 weights'),
        ("gptq", "quantization_config/group_size", 64, "group_size 64 (stored: 128) of 14 weights"),
        ("int8", f"{WEIGHTS}/group_size", 64, "group_size 64 (stored: a scale per row) of 14 weights"),
        ("int8", f"{WEIGHTS}/strategy", "tensor", "strategy tensor (stored: a scale per row) of 14 weights"),
        ("int8", f"{WEIGHTS}/block_structure", [8, 8], "block_structure [8, 8] (stored: a scale per row) of"),
        ("fp8", f"{WEIGHTS}/strategy", "tensor", "strategy tensor (stored: a scale per row) of 14 weights"),
        ("int4", f"{WEIGHTS}/strategy", "channel", "strategy channel (stored: groups of 128) of 14 weights"),
    ],
)
def test_where_tensors_say_otherwise_they_are_believed_and_it_is_said(changed, format, path, value, said):
    opened = changed(format, path, value)
    sound = Checkpoint.open(make(opened.folder.parent / "sound", SHAPES["tiny"], format))
    assert opened.storage.formats == sound.storage.formats
    assert sound.storage.caution == ""
    assert "caution" not in sound.storage.described
    assert opened.storage.caution.startswith(f"config.json declares {said}")
    assert opened.storage.caution.endswith("the tensors say otherwise, and are believed")
    assert opened.storage.described["caution"] == opened.storage.caution


@pytest.mark.parametrize(
    ("format", "path", "value"),
    [
        *((format, f"quantization_config/{key}", None) for format in ("awq", "gptq") for key in ("bits", "group_size")),
        ("gptq", "quantization_config/bits", MISSING),
        ("awq", "quantization_config/group_size", "128"),  # wrong, and right
        ("int8", f"{WEIGHTS}/strategy", None),
        ("int8", f"{WEIGHTS}/group_size", -1),
        ("int8", f"{WEIGHTS}/group_size", 4096),  # a group that holds all columns
        ("int4", f"{WEIGHTS}/strategy", MISSING),
    ],
)
def test_what_is_not_declared_or_is_the_same_is_no_contradiction(changed, format, path, value):
    assert changed(format, path, value).storage.caution == ""


@pytest.mark.parametrize(
    "settings",
    [{"dynamic": {"+:.*": {"bits": 4, "group_size": 128}}}, {"extra_config": {"x": {"bits": 4, "group_size": 128}}}],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_of_single_modules_are_declared_too(tmp_path, settings):
    # GPTQModel's and AutoRound's: other bits and groups for some of a model's modules
    folder = make(tmp_path / "mixed", SHAPES["tiny"], "gptq")
    declared = json.loads((folder / "config.json").read_text())["quantization_config"]
    edit_config(folder, quantization_config=declared | {"bits": 8, "group_size": 32} | settings)
    assert Checkpoint.open(folder).storage.caution == ""
    edit_config(folder, quantization_config=declared | {"bits": 8} | {key: {"x": {"bits": 2}} for key in settings})
    assert "bits 8 (stored: 4) of 14 weights" in Checkpoint.open(folder).storage.caution


@pytest.mark.parametrize(
    ("key", "value", "said"), [("num_bits", 8, "8, group_size 128"), ("group_size", 64, "4, group_si")]
)
def test_packed_words_that_the_config_does_not_fit_are_told_with_what_it_says(changed, key, value, said):
    with pytest.raises(CheckpointError, match=rf"fit none of the config's groups \(num_bits {said}"):
        len(changed("int4", f"{WEIGHTS}/{key}", value).weights)


def test_a_strategy_that_compressed_tensors_has_not_is_told(changed):
    with pytest.raises(Misdeclared, match=r'weights\.strategy is "chanel"; allowed: tensor, channel, group'):
        len(changed("int8", f"{WEIGHTS}/strategy", "chanel").weights)


def test_a_plan_a_doctor_and_a_run_say_so(changed, home, capfd):
    folder = changed("awq", "quantization_config/bits", 8).folder
    words = ["model=local", f"model.source={folder}", "execution.device=cpu", "template=bare"]
    said = "config.json declares bits 8 (stored: 4) of 14 weights: the tensors say otherwise, and are believed"
    for before in (["plan"], ["plan", "method=static"], ["doctor"], []):
        assert run([*before, *words]) == 0
        told = " ".join(capfd.readouterr().out.split())
        assert told.count(said) == 1, before
    found = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    (of,) = found.search_runs([e.experiment_id for e in found.search_experiments()])
    assert of.data.tags["checkpoint_caution"] == said


# ── dtypes that are not the config's ─────────────────────────────────────────────────────────────────────


def relabelled(folder: Path, name: str, dtype: str) -> Path:
    """The same bytes under another dtype in the header."""
    file = folder / "model.safetensors"
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header[name]["dtype"] = dtype
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    return folder


@pytest.mark.parametrize(
    ("format", "dtype", "said"),
    [
        ("int8", "F8_E4M3", "stored as FP8, but by config.json, none of its config_groups (group_0) is of weights of"),
        ("fp8", "I8", "stored as integers, but by config.json, none of its config_groups (group_0) is of weights of"),
    ],
)
def test_bytes_under_another_dtype_are_not_read_as_another_format(tmp_path, format, dtype, said):
    module = "model.layers.0.self_attn.q_proj"
    folder = relabelled(make(tmp_path / "odd", SHAPES["tiny"], format), f"{module}.weight", dtype)
    opened = Checkpoint.open(folder)
    with pytest.raises(CheckpointError) as caught:
        len(opened.weights)
    assert caught.value.problems[0].startswith(f"odd: {module}: its weight is {said} type ")
    assert caught.value.problems[0].endswith("It is stored in model.safetensors.")
    assert "get the repository again" in caught.value.next_step


@pytest.mark.parametrize(("format", "role"), [("awq", "scales"), ("gptq", "scales"), ("int8", "weight_scale")])
def test_one_scale_of_another_floating_dtype_changes_nothing_and_one_of_integers_is_refused(tmp_path, format, role):
    folder = make(tmp_path / "mixed", SHAPES["tiny"], format)
    file, module = folder / "model.safetensors", "model.layers.0.mlp.down_proj"
    tensors = load_file(file)
    before = Checkpoint.open(folder)
    w = before.dense(before.weights[f"{module}.weight"])
    scale = tensors[f"{module}.{role}"].float()
    save_file(tensors | {f"{module}.{role}": scale}, file)
    after = Checkpoint.open(folder)
    assert torch.equal(after.dense(after.weights[f"{module}.weight"]), w)
    save_file(tensors | {f"{module}.{role}": scale.view(torch.int32)}, file)
    with pytest.raises(CheckpointError, match=rf"mixed: {module}.*{role} is I32"):
        len(Checkpoint.open(folder).weights)


def of_type(kind: str, target: str) -> dict[str, Any]:
    return {"targets": [target], "weights": {"type": kind, "num_bits": 8, "strategy": "channel"}}


EIGHT = {"weight": Tensor(Path("a"), "I8", (4, 8), 32), "weight_scale": Tensor(Path("a"), "F32", (4, 1), 16)}


def test_where_groups_are_of_both_types_the_one_that_targets_a_module_is_believed():
    config = {"config_groups": {"a": of_type("int", "Linear"), "b": of_type("float", "re:.*down_proj")}}
    assert compressed_tensors.recognise("x.down_proj", EIGHT, config).block == (1, 8)  # 'Linear' means it, too
    config = {"config_groups": {"a": of_type("int", "re:.*up_proj"), "b": of_type("float", "re:.*down_proj")}}
    assert compressed_tensors.recognise("x.up_proj", EIGHT, config).block == (1, 8)
    with pytest.raises(CheckpointError, match=r"x\.down_proj: its weight is stored as integers, .* and targets it"):
        compressed_tensors.recognise("x.down_proj", EIGHT, config)


@pytest.mark.parametrize(
    "config",
    [
        {"quant_method": "fp8", "activation_scheme": "dynamic"},
        {"quant_method": "fbgemm_fp8"},
        {"quant_method": "modelopt", "quant_algo": "FP8"},
    ],
    ids=lambda config: config["quant_method"],
)
def test_integers_are_no_weights_of_methods_that_store_fp8(config):
    with pytest.raises(CheckpointError, match=r"m: its weight is stored as integers, but by config\.json, it says"):
        compressed_tensors.recognise("m", EIGHT, config)


# ── methods whose statement about inputs is not read ─────────────────────────────────────────────────────

QUARK = {
    "quant_method": "quark",
    "global_quant_config": {"weight": {"dtype": "int8"}, "input_tensors": {"dtype": "int8", "is_dynamic": True}},
}


@pytest.mark.parametrize(
    ("format", "declared", "said"),
    [
        ("int8", QUARK, "quant_method 'quark'"),
        ("int8", {"quant_method": "awq", "bits": 8}, "quant_method 'awq'"),
        ("int8", {"bits": 8}, "no quant_method"),
        ("int8", None, "no quantisation"),
        ("fp8", None, "no quantisation"),
        (
            "fp8",
            {"quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"},
            "quant_method 'modelopt', quant_algo 'FP8_PER_CHANNEL_PER_TOKEN'",
        ),
        ("fp8", {"quant_method": "ptpc_fp8"}, "quant_method 'ptpc_fp8'"),
        ("fp8", {"quant_method": "torchao", "quant_type": "float8dq"}, "quant_method 'torchao'"),
        ("fp8", {"quant_method": "fp8"}, "quant_method 'fp8'"),  # without an activation_scheme
        ("fp8", {"quant_method": "of tomorrow"}, "quant_method 'of tomorrow'"),
    ],
)
def test_inputs_of_a_method_that_is_not_read_are_unknown_and_not_unquantised(changed, format, declared, said):
    # they would be run weight only without a word
    opened = changed(format, "quantization_config", declared)
    assert opened.storage.activations == {f"unknown ({said})": 14}
    assert opened.storage.inputs() == f"inputs as unknown ({said})"
    refusal = Streamed(device="cpu").refuse(opened)
    assert refusal.startswith("odd: The weights are integers or FP8 beside scales, and config.json declares ")
    assert f"declares {said}: whether and how inputs of products are quantised is not known." in refusal
    assert "execution.activations=weight_only" in refusal
    assert Streamed(device="cpu", activations="weight_only").refuse(opened) is None


def test_a_stored_scale_of_inputs_says_nothing_of_them_in_a_method_that_is_not_read():
    # Quark's may have a zero point, or be of groups; only ModelOpt's FP8 is known to be one number for all
    eight = {**EIGHT, "input_scale": Tensor(Path("a"), "F32", (), 4)}
    float8 = {**eight, "weight": Tensor(Path("a"), "F8_E4M3", (4, 8), 32)}
    for tensors, declared in ((eight, QUARK), (eight, {}), (float8, {"quant_method": "quark"})):
        assert compressed_tensors.recognise("m", tensors, declared).activations.kind == UNKNOWN
    per_token = {"quant_method": "modelopt", "quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"}
    assert compressed_tensors.recognise("m", float8, per_token).activations.kind == UNKNOWN


@pytest.mark.usefixtures("home")
def test_a_run_with_unknown_inputs_is_refused_once_and_runs_weight_only(changed, capfd):
    folder = changed("int8", "quantization_config", QUARK).folder
    words = ["model=local", f"model.source={folder}", "execution.device=cpu", "template=bare"]
    with pytest.raises(SystemExit, match="2"):
        run(words)
    told = " ".join(capfd.readouterr().err.split())
    assert told.count("quant_method 'quark'") == 1
    assert "execution.activations=weight_only" in told
    said = "inputs unquantised (execution.activations=weight_only; by the checkpoint unknown (quant_method 'quark'))"
    for before in (["plan"], []):
        assert run([*before, *words, "execution.activations=weight_only"]) == 0
        assert said in " ".join(capfd.readouterr().out.split())
    assert run([*words, "method=static"]) == 0  # of which no product is a part
