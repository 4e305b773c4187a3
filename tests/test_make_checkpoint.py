"""Checkpoints made for measuring and for testing: layout, numbers, and what quantised tensors are worth.

Packed words are worked by hand here, or opened by the vendor's library where it is installed.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from small_models import tokens_of, write

from bench import make_checkpoint
from bench.encode import AWQ_ORDER, FORMATS, NF4, dequantised, encode, nested_map, quantise
from bench.layouts import dense_dtype, parts, quantisation
from bench.make_checkpoint import bos_of, main, make, nbytes
from bench.shapes import SHAPES
from bench.twins import dequantised_twin, quantise_folder
from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.errors import CheckpointError, ConfigError

QUANTISED = [f for f in FORMATS if f not in ("bf16", "fp16", "fp32")]
Q_PROJ = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A checkpoint folder by shape and format, written once for all tests; not to be changed."""
    root = tmp_path_factory.mktemp("made")

    @functools.cache
    def of(shape: str, format: str) -> Path:
        return make(root / f"{shape}-{format}", SHAPES[shape], format)

    return of


def random_matrix(out: int, wide: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(out, wide, generator=torch.Generator().manual_seed(seed)) * 0.05


# ── shapes ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("shape", "parameters"),
    [  # as the model cards count them; a tied head is not counted twice
        ("llama70b", 70_553_706_496),
        ("qwen72b", 72_706_203_648),
        ("llama8b", 8_030_261_248),
        ("llama1b", 1_235_814_400),
        ("qwen05b", 494_032_768),
    ],
)
def test_shapes_have_the_published_number_of_parameters(shape, parameters):
    assert sum(math.prod(part.shape) for part in parts(SHAPES[shape], "bf16")) == parameters


def test_the_70b_int8_checkpoint_is_int8_layers_bf16_scales_and_bf16_tables():
    total = sum(part.nbytes for part in parts(SHAPES["llama70b"], "int8"))
    linear = 80 * (2 * 8192 * 8192 + 2 * 1024 * 8192 + 3 * 8192 * 28672)
    scales = 80 * (2 * 8192 + 2 * 1024 + 2 * 28672 + 8192) * 2
    rest = (2 * 128256 * 8192 + 161 * 8192) * 2
    assert total == linear + scales + rest


@pytest.mark.parametrize("shape", ["tiny", "tiny_qwen", "mixtral_tiny", "qwen3_moe_tiny", "llama1b", "qwen05b"])
def test_transformers_builds_each_shape_with_these_very_tensors(shape, tmp_path):
    import transformers

    chosen = SHAPES[shape].reduced(layers=2)
    (tmp_path / "config.json").write_text(json.dumps(chosen.config()))
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    expected = {n: tuple(t.shape) for n, t in model.state_dict().items() if ".experts." not in n}
    if chosen.tied:
        expected.pop("lm_head.weight")
    own = {p.name: p.shape for p in parts(chosen, "bf16") if ".experts." not in p.name}
    if shape == "mixtral_tiny":  # transformers 5 calls the block mlp as it loads
        own = {n.replace("block_sparse_moe", "mlp"): s for n, s in own.items()}
    assert own == expected


def test_a_reduced_shape_keeps_its_proportions():
    small = SHAPES["llama70b"].reduced(layers=3, width=1024, vocab=1000)
    assert (small.layers, small.hidden, small.heads, small.kv_heads, small.vocab) == (3, 1024, 8, 1, 1000)
    assert small.intermediate == 3584  # 28672 / 8


@pytest.mark.parametrize(
    ("values", "said"),
    [({"layers": 0}, "layers=0"), ({"vocab": -1}, "vocab=-1"), ({"width": 1000}, "head_dim 128.*Near it: 896")],
)
def test_a_reduction_that_cannot_be_is_refused(values, said):
    with pytest.raises(ConfigError, match=f"(?s){said}"):
        SHAPES["llama70b"].reduced(**values)


# ── whole checkpoints ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("format", FORMATS)
def test_the_safetensors_library_reads_what_is_written(made, format):
    folder = made("tiny", format)
    with safe_open(folder / "model.safetensors", "pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    listed = {part.name: part for part in parts(SHAPES["tiny"], format)}
    assert stored.keys() == listed.keys()
    for name, tensor in stored.items():
        assert tuple(tensor.shape) == listed[name].shape
        if tensor.is_floating_point():
            assert tensor.float().isfinite().all(), name
        if name.endswith(("scale", "scales", "scale_inv", "SCB")):
            assert (tensor > 0).all(), name


@pytest.mark.parametrize("format", QUANTISED)
def test_layout_and_encoder_agree_on_names_dtypes_and_shapes(made, format):
    stored = load_file(made("tiny", format) / "model.safetensors")
    own = {n.removeprefix(f"{Q_PROJ}."): t for n, t in stored.items() if n.startswith(f"{Q_PROJ}.")}
    encoded = quantise(random_matrix(256, 256), format)
    assert own.keys() == encoded.keys()
    for name, tensor in own.items():
        if "quant_state" in name:
            ours, theirs = (json.loads(bytes(t.tolist())) for t in (tensor, encoded[name]))
            assert ours.keys() == theirs.keys()
            assert ours["shape"] == theirs["shape"] == [256, 256]
            continue
        assert tensor.shape == encoded[name].shape, name
        if not (name.endswith(("scale", "scales", "biases", "scale_inv")) and tensor.element_size() == 2):
            assert tensor.dtype == encoded[name].dtype, name  # scales of 16 bits follow the checkpoint's dtype


def test_the_written_int8_weights_have_the_usual_spread(made):
    stored = load_file(made("tiny", "int8") / "model.safetensors")
    weight = stored[f"{Q_PROJ}.weight"].float() * stored[f"{Q_PROJ}.weight_scale"].float()
    assert weight.std() == pytest.approx(0.02 * (8192 / 256) ** 0.5, rel=0.05)
    assert abs(float(weight.mean())) < 0.01
    assert stored["model.embed_tokens.weight"].float().std() == pytest.approx(0.02, rel=0.05)


def test_the_written_awq_weights_have_the_usual_spread(made):
    stored = load_file(made("tiny", "awq") / "model.safetensors")
    words, zeros = (stored[f"{Q_PROJ}.{n}"].numpy().view(np.uint32).astype(np.int64) for n in ("qweight", "qzeros"))
    q = np.stack([words >> 4 * k & 15 for k in range(8)], -1).astype(float)
    z = np.stack([zeros >> 4 * k & 15 for k in range(8)], -1).repeat(128, 0)
    assert z.min() == 6
    assert z.max() == 9
    scale = float(stored[f"{Q_PROJ}.scales"].float().mean())
    assert ((q - z) * scale).std() == pytest.approx(0.02 * (8192 / 256) ** 0.5, rel=0.05)


def test_mlx_scales_and_biases_belong_together(made):
    stored = load_file(made("tiny", "mlx4") / "model.safetensors")
    scales, biases = (stored[f"model.embed_tokens.{n}"].float() for n in ("scales", "biases"))
    assert torch.allclose(biases, -7.5 * scales, rtol=2e-3)  # fp16 has 11 bits


@pytest.mark.parametrize("shape", ["tiny", "tiny_qwen", "mixtral_tiny", "qwen3_moe_tiny"])
def test_a_made_checkpoint_opens_and_transformers_runs_it(made, shape):
    from transformers import AutoModelForCausalLM

    folder = made(shape, "fp32")
    tokens = tokens_of(Checkpoint.open(folder))
    assert [int(t.special.sum()) for t in tokens.of] == [bos_of(SHAPES[shape]) is not None] * len(tokens)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    ids = torch.tensor(tokens.of[0].ids)[None]
    with torch.no_grad():
        found = model(input_ids=ids, output_hidden_states=True, output_attentions=True)
    assert all(state.isfinite().all() for state in found.hidden_states)
    last = found.attentions[-1][0, :, -1]  # [heads, tokens]
    assert (last.amax(-1) > 2 / last.shape[-1]).all()  # every head prefers some token: not uniform


def test_the_tokenizer_knows_every_string_and_its_ids_reach_through_the_table(tmp_path):
    made = make(tmp_path / "made", SHAPES["llama1b"].reduced(layers=1, width=64, vocab=40_000), "bf16")
    tokenizer = Checkpoint.open(made).tokenizer()
    for words in ("*kʷel-", "環", "\u0001", "🜁 wódr̥"):
        ids = tokenizer(words)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id == 39_999  # the published id has no row here
        assert tokenizer.decode(ids[1:]) == words
    ids = set(tokenizer.get_vocab().values())
    assert len(ids) == len(tokenizer.get_vocab())
    assert max(ids) < 40_000
    assert min(ids) == 0
    assert sum(i > 30_000 for i in ids) > 50


def test_the_published_bos_keeps_its_id_even_where_another_piece_had_it(tmp_path):
    shape = SHAPES["llama1b"].reduced(layers=1, width=64, vocab=301)
    shifted = dataclasses.replace(shape, bos=5)
    tokenizer = Checkpoint.open(make(tmp_path / "made", shifted, "bf16")).tokenizer()
    vocabulary = tokenizer.get_vocab()
    assert tokenizer.bos_token_id == 5
    assert len(set(vocabulary.values())) == len(vocabulary)
    assert tokenizer.decode(tokenizer("環 wheel")["input_ids"][1:]) == "環 wheel"


def test_shards_are_no_larger_than_asked_and_the_index_finds_every_tensor(tmp_path):
    folder = make(tmp_path / "made", SHAPES["tiny"], "int8", shards=300_000)
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) > 3
    assert all(f"-of-{len(files):05d}" in f.name for f in files)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    opened = Checkpoint.open(folder)
    assert {n: t.file.name for n, t in opened.tensors.items()} == index["weight_map"]
    assert index["metadata"]["total_size"] == opened.nbytes == sum(p.nbytes for p in parts(SHAPES["tiny"], "int8"))
    for file in files:
        own = [t.nbytes for t in opened.tensors.values() if t.file == file]
        assert sum(own) <= 300_000 or len(own) == 1


def test_numbers_begin_where_their_size_divides(made):
    for format in FORMATS:
        for name, tensor in Checkpoint.open(made("tiny", format)).tensors.items():
            assert (
                tensor.start % {"F32": 4, "I32": 4, "U32": 4, "I64": 8, "F16": 2, "BF16": 2}.get(tensor.dtype, 1) == 0
            ), name


def test_the_same_seed_gives_the_same_bytes_and_another_others(tmp_path):
    shape = SHAPES["tiny"].reduced(layers=1)
    one, same, other = (
        (make(tmp_path / name, shape, "int8", seed=seed) / "model.safetensors").read_bytes()
        for name, seed in (("one", 3), ("same", 3), ("other", 4))
    )
    assert one == same
    assert one != other


def test_layers_are_not_copies_of_each_other(made):
    stored = load_file(made("tiny", "bf16") / "model.safetensors")
    names = [n for n, t in stored.items() if t.ndim == 2]
    assert len({bytes(stored[n].flatten()[:32].view(torch.uint8).tolist()) for n in names}) == len(names)


def test_a_tensor_larger_than_its_page_is_written_in_pieces():
    page = make_checkpoint.Pages(0, 1 << 10)
    part = next(p for p in parts(SHAPES["tiny"], "int8") if p.dtype == "I8")
    pieces = [bytes(piece) for piece in page.pieces(part)]
    assert len(pieces) == 256 * 256 // 512
    assert sum(map(len, pieces)) == part.nbytes
    assert len(set(pieces)) > 64  # from different places


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "other.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is in use"):
        make(tmp_path, SHAPES["tiny"], "int8")
    with pytest.raises(ConfigError, match="is in use"):
        make(tmp_path / "other.txt", SHAPES["tiny"], "int8")


def test_a_disk_too_small_is_an_error_before_anything_is_written(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**11, 10**11 - 10**9, 10**9))
    with pytest.raises(ConfigError, match=r"72\.\d GB are to be written, but only 1\.0 GB are free"):
        make(tmp_path / "a" / "b", SHAPES["llama70b"], "int8")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"format": "int3"}, "format=int3.*There are int8"),
        ({"format": "awq", "group": 7}, "group=7"),
        ({"format": "awq", "group": 72}, r"q_proj: 256 columns do not divide into groups of 72 \(awq\)"),
        ({"format": "bf16", "shards": 0}, "shards=0"),
    ],
)
def test_what_cannot_be_made_is_said_before_anything_is_written(tmp_path, values, said):
    with pytest.raises(ConfigError, match=f"(?s){said}"):
        make(tmp_path / "made", SHAPES["tiny"], **values)
    assert not (tmp_path / "made").exists()


def test_a_table_with_fewer_rows_than_bytes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="vocab=299: at least 300"):
        make(tmp_path / "made", SHAPES["tiny"].reduced(vocab=299), "bf16")


def test_awq_needs_output_columns_in_eights():
    shape = dataclasses.replace(SHAPES["tiny"], intermediate=260)
    with pytest.raises(ConfigError, match="gate_proj: 260 output columns are not a multiple of 8"):
        list(parts(shape, "awq"))


# ── what the config says ─────────────────────────────────────────────────────────────────────────────────


def test_the_config_of_the_72b_awq_checkpoint_is_the_publishers():
    shape = SHAPES["qwen72b"].stored_as("awq")
    config = shape.config("float16") | quantisation("awq")
    assert (config["intermediate_size"], config["max_window_layers"]) == (29696, 70)  # not the dense model's
    assert SHAPES["qwen72b"].config()["intermediate_size"] == 29568
    assert SHAPES["qwen72b"].reduced(layers=4).stored_as("awq").intermediate == 29696
    assert config["quantization_config"] == {
        "bits": 4, "group_size": 128, "modules_to_not_convert": None, "quant_method": "awq", "version": "gemm",
        "zero_point": True,
    }  # fmt: skip
    assert (config["model_type"], config["torch_dtype"], config["rms_norm_eps"]) == ("qwen2", "float16", 1e-6)
    assert dense_dtype(SHAPES["qwen72b"], "awq") == "F16"


def test_compressed_tensors_reads_the_config_as_it_was_meant():
    library = pytest.importorskip("compressed_tensors.quantization")
    for format, bits, activations in (("int8", 8, 8), ("int4", 4, None), ("fp8", 8, 8)):
        declared = quantisation(format)["quantization_config"]
        scheme = library.QuantizationConfig.model_validate(declared).config_groups["group_0"]
        assert scheme.weights.num_bits == bits
        assert (scheme.input_activations and scheme.input_activations.num_bits) == activations


def test_quantisation_is_nothing_where_weights_are_dense():
    assert quantisation("bf16") == {}
    assert quantisation("nf4")["quantization_config"]["load_in_4bit"]
    assert quantisation("bnb8")["quantization_config"]["load_in_8bit"]
    assert quantisation("mlx8", 32)["quantization"] == {"group_size": 32, "bits": 8}
    assert quantisation("gptq")["quantization_config"]["group_size"] == 128
    assert quantisation("fp8_block")["quantization_config"]["weight_block_size"] == [128, 128]


# ── the encoder, against words worked by hand ────────────────────────────────────────────────────────────


def test_awq_words_hold_their_eight_columns_in_the_published_order():
    # One input, eight outputs 0 … 7 (times 0.5): span 3.5 / 15 would round, so the last one is 7.5 → scale 0.5.
    weight = torch.tensor([[0.0], [0.5], [1.0], [1.5], [2.0], [2.5], [3.0], [7.5]])
    made = encode(weight, "awq", group=1)
    # each row is a group of its own: scale = value / 15, q = 15 where the value is not 0, zero point 0
    assert made.parts["qzeros"].tolist() == [[0]]
    # column 0 is 0, all others 15; nibble k holds column [0, 2, 4, 6, 1, 3, 5, 7][k]: column 0 is nibble 0
    assert [hex(w & 0xFFFFFFFF) for w in made.parts["qweight"][0].tolist()] == ["0xfffffff0"]
    assert torch.allclose(made.values, weight, rtol=1e-3)


def test_awq_nibbles_and_zero_points_worked_by_hand():
    # Two inputs in one group; column o spans −o … 15 − o, so scale 1, zero point o, q = 0 and 15 − … as below.
    columns = torch.arange(8.0)
    weight = torch.stack((-columns, 15 - columns), 1)  # [8 out, 2 in]
    made = encode(weight, "awq", group=2)
    assert made.parts["scales"].tolist() == [[1.0] * 8]
    assert torch.equal(made.values, weight)
    # zero point of column c is c: nibbles from the lowest up hold columns 0 2 4 6 1 3 5 7
    assert hex(made.parts["qzeros"].item() & 0xFFFFFFFF) == "0x75316420"
    assert [hex(w & 0xFFFFFFFF) for w in made.parts["qweight"][:, 0].tolist()] == ["0x0", "0xffffffff"]
    assert AWQ_ORDER == (0, 2, 4, 6, 1, 3, 5, 7)


def test_gptq_words_hold_eight_inputs_and_zeros_less_one():
    # q = 0 … 7 along one output of eight inputs: values (q − 8) · s with the largest at −8 · s
    weight = (torch.arange(8.0) - 8)[None] * 0.9375 * torch.ones(8, 1)  # −7.5 … −0.9375, so s = 1
    made = encode(weight, "gptq", group=8)
    assert made.parts["scales"].tolist() == [[1.0] * 8]
    expected = [max(0, min(15, round(float(w)) + 8)) for w in weight[0]]  # banker's rounding, as torch has it
    word = sum(q << 4 * k for k, q in enumerate(expected))
    assert {w & 0xFFFFFFFF for w in made.parts["qweight"].flatten().tolist()} == {word}
    assert hex(made.parts["qzeros"].item() & 0xFFFFFFFF) == "0x77777777"
    assert made.values[0].tolist() == [q - 8 for q in expected]
    assert hex(quantise(weight, "gptq", group=8, v2=True)["qzeros"].item() & 0xFFFFFFFF) == "0x88888888"


def test_gptq_with_act_order_deals_columns_to_groups():
    weight = random_matrix(8, 32)
    made = encode(weight, "gptq", group=8, act_order=True, symmetric=False)
    g_idx = made.parts["g_idx"]
    assert g_idx.bincount().tolist() == [8] * 4
    assert g_idx.tolist() != sorted(g_idx.tolist())
    assert (made.values - weight).abs().max() <= 0.5001 * made.parts["scales"].max() * 1.5


def test_int4_words_hold_eight_inputs_offset_by_eight():
    weight = torch.tensor([[-7.5, -7.0, -1.0, 0.0, 1.0, 2.0, 6.0, 7.0, 3.0, 4.0]])  # scale 1
    made = encode(weight, "int4", group=10)
    assert made.parts["weight_scale"].tolist() == [[1.0]]
    assert [hex(w & 0xFFFFFFFF) for w in made.parts["weight_packed"][0].tolist()] == ["0xfea98710", "0xcb"]
    assert made.parts["weight_shape"].tolist() == [1, 10]
    assert made.values.tolist() == [[-8, -7, -1, 0, 1, 2, 6, 7, 3, 4]]


def test_mlx_words_hold_their_inputs_in_order_and_start_at_the_bias():
    weight = torch.arange(16.0)[None] - 3  # lowest −3, step 1
    four = encode(weight, "mlx4", group=16)
    assert [hex(w) for w in four.parts["weight"][0].tolist()] == ["0x76543210", "0xfedcba98"]
    assert (four.parts["scales"].item(), four.parts["biases"].item()) == (1.0, -3.0)
    assert torch.equal(four.values, weight)
    eight = encode(torch.tensor([[0.0, 255.0, 1.0, 2.0]]), "mlx8", group=4)
    assert hex(eight.parts["weight"].item()) == "0x201ff00"


def test_nf4_holds_the_first_of_two_in_the_high_nibble():
    weight = torch.tensor([[2.0 * NF4[15], 2.0 * NF4[0], 2.0 * NF4[7], 2.0 * NF4[9]]])
    made = encode(weight, "nf4", nested=False)
    assert [hex(b) for b in made.parts["weight"].flatten().tolist()] == ["0xf0", "0x79"]
    assert made.parts["weight.absmax"].tolist() == [2.0]
    assert torch.equal(made.values, weight)
    assert len(quantise(weight[:, :3], "nf4", nested=False)["weight"]) == 2  # an odd number: half a byte over


def test_the_nested_map_has_256_values_with_their_negatives():
    values = nested_map()
    assert len(values) == len(set(values)) == 256
    assert {-v for v in values if 0 < v < 1} == {v for v in values if v < 0}
    assert values[-1] == 1.0
    assert values[-2] == pytest.approx(0.1 + 0.9 * 127 / 128)  # the middle of the last of 64 steps


def test_int8_bnb8_and_fp8_worked_by_hand():
    weight = torch.tensor([[127.5, -127.5, 1.0], [0.0, 0.0, 0.0]])
    int8 = encode(weight, "int8")
    assert int8.parts["weight"].tolist() == [[127, -128, 1], [0, 0, 0]]  # 127.5 → 128, which int8 has not
    assert int8.parts["weight_scale"].tolist() == [[1.0], [1.0]]
    bnb8 = encode(torch.tensor([[2.0, -1.0]]), "bnb8")
    assert bnb8.parts["weight"].tolist() == [[127, -64]]
    assert bnb8.values.tolist() == [[2.0, pytest.approx(-128 / 127)]]
    fp8 = encode(torch.tensor([[448.0, -17.0, 1.0]]), "fp8")
    assert fp8.values.tolist() == [[448.0, -16.0, 1.0]]  # e4m3 has 16, 18, … there; ties go to even


def test_fp8_blocks_at_the_edges_have_scales_of_their_own():
    weight = random_matrix(130, 260)
    weight[129, 259] = 448.0 * 4
    made = encode(weight, "fp8_block")
    assert made.parts["weight_scale_inv"].shape == (2, 3)
    assert made.parts["weight_scale_inv"][1, 2] == 4.0
    assert made.values[129, 259] == 448.0 * 4
    assert (made.values - weight)[:128].abs().max() < 0.01


@pytest.mark.parametrize("format", FORMATS)
def test_rounding_to_the_nearest_stays_near(format):
    weight = random_matrix(24, 128)
    worth = dequantised(weight, format)
    assert worth.dtype == torch.float32
    bits = {"int4": 4, "awq": 4, "gptq": 4, "nf4": 4, "mlx4": 4}.get(format, 8)
    assert (worth - weight).norm() / weight.norm() < (0.15 if bits == 4 else 0.03)


@pytest.mark.parametrize(
    ("weight", "format", "group", "said"),
    [
        (torch.zeros(8, 8), "int3", None, "format=int3"),
        (torch.zeros(8), "int8", None, "float32 matrix"),
        (torch.zeros(8, 8, dtype=torch.float16), "int8", None, "float32 matrix"),
        (torch.zeros(8, 12), "awq", 8, "12 columns do not divide into groups of 8"),
        (torch.zeros(12, 8), "awq", 8, "12 output columns"),
        (torch.zeros(12, 8), "gptq", 8, "12 integers of 4 bits"),
        (torch.zeros(8, 8), "mlx4", 0, "groups of 0"),
    ],
)
def test_what_cannot_be_encoded_is_refused(weight, format, group, said):
    with pytest.raises(ConfigError, match=said):
        quantise(weight, format, group=group)


@pytest.mark.parametrize("nested", [True, False])
def test_bitsandbytes_gives_nf4_the_same_values(nested):
    # rows of whole blocks: with others the CPU kernel of bitsandbytes 0.50.2 does not give back even its own tensors
    functional = pytest.importorskip("bitsandbytes.functional")
    made = encode(random_matrix(48, 192), "nf4", nested=nested)
    rest = {n.removeprefix("weight."): t for n, t in made.parts.items() if n != "weight"}
    state = functional.QuantState.from_dict(rest, device=torch.device("cpu"))
    state.dtype = torch.float32
    assert torch.equal(functional.dequantize_4bit(made.parts["weight"], state), made.values)


# ── quantised folders and their twins ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("format", QUANTISED)
def test_a_quantised_folder_and_its_twin_agree(tmp_path, format):
    dense = write("llama", tmp_path / "dense", intermediate_size=64)
    folder = quantise_folder(dense, tmp_path / "quantised", format, group=16)
    twin = dequantised_twin(dense, tmp_path / "twin", format, group=16)
    stored, values, before = (load_file(f / "model.safetensors") for f in (folder, twin, dense))
    assert values.keys() == before.keys()
    name = "model.layers.1.mlp.down_proj"
    assert torch.equal(values[f"{name}.weight"], dequantised(before[f"{name}.weight"], format, group=16))
    assert not torch.equal(values[f"{name}.weight"], before[f"{name}.weight"])
    for part, tensor in quantise(before[f"{name}.weight"], format, group=16).items():
        assert torch.equal(stored[f"{name}.{part}"].view(torch.uint8), tensor.view(torch.uint8))
    for kept in ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"):
        assert torch.equal(stored[kept], before[kept])
        assert torch.equal(values[kept], before[kept])
    config = json.loads((folder / "config.json").read_text())
    assert config["quantization_config"]
    assert "quantization_config" not in json.loads((twin / "config.json").read_text())
    assert [t.ids.tolist() for t in tokens_of(Checkpoint.open(twin)).of] == [
        t.ids.tolist() for t in tokens_of(Checkpoint.open(dense)).of
    ]


def test_every_format_but_the_vendors_is_what_pairprobe_reads(tmp_path):
    """What the twins are for, in small: each quantised matrix, read by pairprobe, is the twin's."""
    dense = write("llama", tmp_path / "dense", intermediate_size=64, num_hidden_layers=1)
    for format in QUANTISED:
        opened = Checkpoint.open(quantise_folder(dense, tmp_path / format, format, group=32))
        twin = load_file(dequantised_twin(dense, tmp_path / f"{format}-twin", format, group=32) / "model.safetensors")
        for name, values in twin.items():
            weight = opened.weights[name]
            raw = {role: _read(part) for role, part in weight.parts.items()}
            out = torch.empty(values.shape)
            factor = weight.rows(raw, 0, len(values), out)
            found = out if factor is None else out * factor[:, None]
            assert torch.allclose(found, values, rtol=3e-7, atol=1e-9), (format, name)


def _read(part):
    from pairprobe.rooms import dtype_name

    raw = bytearray(part.file.read_bytes()[part.start : part.start + part.nbytes])
    return torch.frombuffer(raw, dtype=getattr(torch, dtype_name(part.dtype))).view(part.shape)


def test_the_config_tells_of_act_order_versions_and_activations(tmp_path):
    dense = write("llama", tmp_path / "dense", num_hidden_layers=1)

    def declared(name: str, format: str, **options: object) -> dict[str, object]:
        folder = quantise_folder(dense, tmp_path / name, format, group=16, **options)
        return json.loads((folder / "config.json").read_text())["quantization_config"]

    gptq = declared("gptq", "gptq", act_order=True, symmetric=False, v2=True)
    assert (gptq["desc_act"], gptq["sym"], gptq["checkpoint_format"]) == (True, False, "gptq_v2")
    plain = declared("int8", "int8", activations=False)
    assert plain["config_groups"]["group_0"]["input_activations"] is None
    assert plain["ignore"] == ["lm_head", "model.embed_tokens"]
    assert declared("w8a8", "int8")["config_groups"]["group_0"]["input_activations"]["strategy"] == "token"


def test_a_folder_with_nothing_to_quantise_is_refused(tmp_path):
    dense = write("llama", tmp_path / "dense", num_hidden_layers=1)
    with pytest.raises(CheckpointError, match="no matrix is left"):
        quantise_folder(dense, tmp_path / "none", "int8", skip=("model", "lm_head"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no safetensors"):
        quantise_folder(tmp_path / "empty", tmp_path / "none", "int8")


# ── command ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_writes_a_checkpoint_and_tells_its_progress(tmp_path, capsys):
    words = [str(tmp_path / "made"), "--shape", "tiny", "--format", "awq", "--layers", "1", "--shards", "200KB"]
    assert main(words) == 0
    assert "MB/s" in capsys.readouterr().out
    opened = Checkpoint.open(tmp_path / "made")
    assert opened.layers == 1
    assert opened.declared["quant_method"] == "awq"


def test_the_command_says_what_is_wrong_and_leaves_with_2(tmp_path, capsys):
    assert main([str(tmp_path / "made"), "--shape", "tiny", "--format", "awq", "--width", "100"]) == 2
    assert "width=100 is no multiple of head_dim 64" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "size"), [("5GB", 5 * 10**9), ("40KB", 40_000), ("1.5GiB", 3 * 2**29), ("7", 7)])
def test_sizes_are_read(words, size):
    assert nbytes(words) == size


@pytest.mark.parametrize("words", ["", "GB", "5 apples", "1.2.3GB"])
def test_what_is_no_size_is_refused(words):
    with pytest.raises(argparse.ArgumentTypeError, match="is no size"):
        nbytes(words)
