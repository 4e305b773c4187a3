"""GGUF: the container and what is wrong with damaged ones, every block type, and whole models against transformers."""

from __future__ import annotations

import functools
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, quants
from gguf_files import KINDS, blocks, small, write
from small_models import _bytes
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from pairprobe.checkpoints import gguf, reading
from pairprobe.checkpoints.formats import gguf_blocks
from pairprobe.checkpoints.formats.gguf_blocks import DEQUANTISERS, SIZES, TYPES, GgufTensor, recognise
from pairprobe.checkpoints.gguf import Opened, open_file, read_container
from pairprobe.checkpoints.headers import Tensor
from pairprobe.checkpoints.weight import Weight, Weights
from pairprobe.errors import CheckpointError

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
TEXT = "The Proto-Indo-European word *kʷel- is old. 環"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A GGUF file by kind and type, written once for all tests, alone in its folder; not to be changed."""

    @functools.cache
    def of(kind: str = "llama", type: str = "F32") -> Path:
        return write(kind, tmp_path_factory.mktemp("written") / "model.gguf", type)

    return of


def weight_of(type: str, data: np.ndarray, heads: int = 0) -> Weight:
    """The weight that is stored as these bytes [out, bytes of a row]."""
    tensor = GgufTensor(Path("x.gguf"), type, data.shape, data.nbytes, heads=heads)
    found = recognise("some", {"weight": tensor}, {})
    assert found is not None
    return found


def dense(opened: Opened) -> dict[str, torch.Tensor]:
    """Every weight whole, in float32, by name."""
    found = {}
    for name, weight in Weights(opened.tensors, {}).items():
        found[name] = torch.empty(weight.shape)
        parts = {role: reading.whole(part) for role, part in weight.parts.items()}
        assert weight.rows(parts, 0, weight.shape[0], found[name]) is None
    return found


# ── block types ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_table_of_types_is_ggmls_own():
    theirs = {t.value: (t.name, *GGML_QUANT_SIZES[t]) for t in GGMLQuantizationType}
    assert theirs == TYPES


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("type", sorted(DEQUANTISERS))
def test_values_are_ggmls_to_the_bit(type, dtype):
    data = blocks(type, 7 * 3).reshape(7, -1)
    expected = torch.from_numpy(quants.dequantize(data, GGMLQuantizationType[type])).to(dtype)
    weight = weight_of(type, data)
    assert weight.shape == tuple(expected.shape) == (7, 3 * SIZES[type][0])
    out = torch.empty(weight.shape, dtype=dtype)
    assert weight.rows({"weight": torch.from_numpy(data)}, 0, 7, out) is None
    assert torch.equal(out, expected)


@pytest.mark.parametrize("type", sorted(DEQUANTISERS))
def test_values_are_ggmls_whatever_the_scales(type):
    # bytes of any kind: subnormal, infinite and undefined fp16 scales among them
    data = np.random.default_rng(1).integers(0, 256, (4000, SIZES[type][1]), dtype=np.uint8)
    with np.errstate(all="ignore"):
        expected = quants.dequantize(data, GGMLQuantizationType[type])
    out = torch.empty(expected.shape)
    weight_of(type, data).rows({"weight": torch.from_numpy(data)}, 0, len(data), out)
    assert np.array_equal(out.numpy(), expected, equal_nan=True)
    assert np.isnan(expected).any()


def test_a_block_worked_by_hand():
    # Q4_0: scale 0.5; weight 0 in the first byte's low nibble, weight 16 in its high one; 8 stands for 0
    data = np.full((1, 18), 0x88, dtype=np.uint8)
    data[0, :2] = np.array([0.5], np.float16).view(np.uint8)
    data[0, 2] = 0xF0
    out = torch.empty(1, 32)
    weight_of("Q4_0", data).rows({"weight": torch.from_numpy(data)}, 0, 1, out)
    expected = torch.zeros(1, 32)
    expected[0, 0], expected[0, 16] = -4.0, 3.5
    assert torch.equal(out, expected)


@pytest.mark.parametrize("type", ["Q8_0", "Q4_K", "Q6_K"])
@pytest.mark.parametrize(("start", "stop"), [(0, 1), (2, 5), (6, 7), (3, 3)])
def test_some_rows_are_those_of_the_whole(type, start, stop):
    data = blocks(type, 7 * 2).reshape(7, -1)
    expected = torch.from_numpy(quants.dequantize(data, GGMLQuantizationType[type]))[start:stop]
    out = torch.empty(expected.shape)
    weight_of(type, data).rows({"weight": torch.from_numpy(data)}, start, stop, out)
    assert torch.equal(out, expected)


def test_a_transposed_buffer_is_filled_like_any_other():
    data = blocks("Q5_K", 6).reshape(6, -1)
    expected = torch.from_numpy(quants.dequantize(data, GGMLQuantizationType.Q5_K))
    out = torch.empty(256, 6).T
    weight_of("Q5_K", data).rows({"weight": torch.from_numpy(data)}, 0, 6, out)
    assert torch.equal(out, expected)


def test_bytes_at_an_odd_address_are_read():
    data = blocks("Q6_K", 4)
    buffer = torch.empty(data.nbytes + 1, dtype=torch.uint8)
    part = buffer[1:].view(4, -1)
    part.copy_(torch.from_numpy(data))
    out = torch.empty(4, 256)
    weight_of("Q6_K", data).rows({"weight": part}, 0, 4, out)
    assert torch.equal(out, torch.from_numpy(quants.dequantize(data, GGMLQuantizationType.Q6_K)))


def test_many_rows_are_made_piece_by_piece_and_come_out_the_same(monkeypatch):
    data = blocks("Q4_K", 10).reshape(10, -1)
    monkeypatch.setattr(gguf_blocks, "PIECE", 3 * 256)
    out = torch.empty(10, 256)
    weight_of("Q4_K", data).rows({"weight": torch.from_numpy(data)}, 0, 10, out)
    assert torch.equal(out, torch.from_numpy(quants.dequantize(data, GGMLQuantizationType.Q4_K)))


def interleave(matrix: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's own words for it (convert_hf_to_gguf.py, LlamaModel.permute)."""
    return matrix.reshape(heads, 2, len(matrix) // heads // 2, *matrix.shape[1:]).swapaxes(1, 2).reshape(matrix.shape)


@pytest.mark.parametrize("heads", [1, 2, 6])
@pytest.mark.parametrize("type", ["Q8_0", "Q4_K"])
def test_interleaved_heads_are_put_back_for_any_range_of_rows(type, heads):
    data = blocks(type, 24).reshape(24, -1)
    expected = torch.from_numpy(quants.dequantize(data, GGMLQuantizationType[type]))
    stored = torch.from_numpy(interleave(data, heads))
    weight = weight_of(type, data, heads)
    assert not weight.by_row  # a single row of the file is another row of the model
    for start, stop in [(0, 24), (1, 2), (5, 17), (23, 24)]:
        out = torch.empty(stop - start, expected.shape[1])
        weight.rows({"weight": stored}, start, stop, out)
        assert torch.equal(out, expected[start:stop])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
def test_interleaved_floats_are_put_back(stored, dtype):
    matrix = torch.randn(12, 5, generator=torch.Generator().manual_seed(0)).to(stored)
    order = torch.from_numpy(interleave(np.arange(12), 2))
    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    tensor = GgufTensor(Path("x.gguf"), names[stored], (12, 5), matrix.nbytes, heads=2)
    weight = recognise("some", {"weight": tensor}, {})
    out = torch.empty(4, 5, dtype=dtype)
    assert weight.rows({"weight": matrix[order]}, 3, 7, out) is None
    assert torch.equal(out, matrix[3:7].to(dtype))
    assert (weight.dense, weight.by_row) == (True, False)


def test_what_was_added_to_a_norm_is_taken_off_in_float32():
    values = torch.tensor([0.5, -1.0, 2.0**-9])  # 1 + 2⁻⁹ is no bfloat16: it would be lost there
    tensor = GgufTensor(Path("x.gguf"), "F32", (3,), 12, added=1.0)
    weight = recognise("model.norm", {"weight": tensor}, {})
    out = torch.empty(3, dtype=torch.bfloat16)
    weight.rows({"weight": values + 1}, 0, 3, out)
    assert torch.equal(out, values.bfloat16())
    assert (weight.format, weight.dense, weight.by_row) == ("fp32", True, True)


def test_a_weight_says_what_it_is():
    weight = weight_of("Q4_K", blocks("Q4_K", 8).reshape(4, -1))
    assert (weight.format, weight.shape, weight.bits, weight.by_row) == ("GGUF Q4_K", (4, 512), 4.5, True)
    assert weight.integers({}, 0, 1) is None
    assert not weight.dense


@pytest.mark.parametrize("dtype", ["F32", "I8", "I32"])
def test_what_is_no_block_is_left_to_others(dtype):
    assert recognise("some", {"weight": Tensor(Path("x"), dtype, (4, 4), 64)}, {}) is None
    assert recognise("some", {"qweight": Tensor(Path("x"), "Q4_K", (4, 144), 576)}, {}) is None


def test_a_type_that_is_not_read_is_named_with_those_that_are():
    tensor = Tensor(Path("x"), "IQ2_XS", (4, 74), 296)
    with pytest.raises(CheckpointError, match=r"some\.weight is stored as IQ2_XS; .*Q4_K"):
        recognise("some", {"weight": tensor}, {})


@pytest.mark.parametrize("shape", [(4, 143), (2, 2, 144), (144,)])
def test_bytes_that_are_no_blocks_are_refused(shape):
    with pytest.raises(CheckpointError, match=r"some\.weight: Q4_K .* no matrix of blocks of 144 bytes"):
        recognise("some", {"weight": Tensor(Path("x"), "Q4_K", shape, 1)}, {})


@pytest.mark.parametrize("dtype", ["F32", "Q8_0"])
def test_heads_that_do_not_divide_the_rows_are_refused(dtype):
    tensor = GgufTensor(Path("x"), dtype, (10, 34), 1, heads=4)
    with pytest.raises(CheckpointError, match="10 rows are no even number for each of 4 heads"):
        recognise("some", {"weight": tensor}, {})


# ── whole models ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_model_comes_back_as_it_was_with_its_config_and_states(kind, tmp_path):
    model = small(kind)
    opened = open_file(write(kind, tmp_path / "model.gguf", model=model))
    found = dense(opened)
    state = model.state_dict()
    for name, value in found.items():  # (w + 1) − 1 is w to a float32 rounding of 1
        torch.testing.assert_close(value, state[name], rtol=0, atol=2**-24 if "gemma" in kind else 0)
    config = transformers.AutoConfig.for_model(**opened.config)
    again = transformers.AutoModelForCausalLM.from_config(config)
    missing = again.load_state_dict(found, strict=False)
    assert missing.unexpected_keys == []
    assert missing.missing_keys == (["lm_head.weight"] if model.config.tie_word_embeddings else [])
    ids = torch.arange(3, 21).reshape(2, 9)
    with torch.no_grad():
        expected = model(ids, output_hidden_states=True).hidden_states
        states = again.eval()(ids, output_hidden_states=True).hidden_states
    for ours, theirs in zip(states, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    invented = {"initializer_range", "dtype", "architectures", "_name_or_path", "original_max_position_embeddings"}
    theirs, ours = model.config.to_dict(), config.to_dict()
    assert {k for k in theirs if theirs[k] != ours.get(k)} <= invented


# The config's `head_dim` is not taken from the file by transformers for all of these: sizes of its defaults, therefore.
THEIRS = [
    ("llama", "F16"), ("llama", "BF16"), ("llama3", "Q8_0"), ("llama", "Q4_K"), ("llama3", "Q6_K"), ("qwen2", "Q5_K"),
    ("qwen2", "Q4_0"), ("qwen3", "Q3_K"), ("gemma2", "Q2_K"), ("gemma3", "Q5_0"), ("phi3", "Q4_1"), ("phi3", "Q5_1"),
    ("qwen2", "IQ4_NL"), ("llama", "IQ4_XS"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "type"), THEIRS)
def test_every_tensor_is_the_one_transformers_makes_of_the_file(kind, type, tmp_path):
    wide = {"num_attention_heads": 8, "num_key_value_heads": 8} if kind in ("qwen3", "gemma2", "gemma3") else {}
    model = small(kind, **wide)
    file = write(kind, tmp_path / "model.gguf", type, model=model)
    theirs = load_gguf_checkpoint(file, return_tensors=True, model_to_load=model)["tensors"]
    ours = dense(open_file(file))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_rows_of_the_embedding_are_read_alone(written):
    opened = open_file(written("qwen2", "Q8_0"))
    weight = Weights(opened.tensors, {})["model.embed_tokens.weight"]
    assert weight.by_row
    part = reading.rows(weight.parts["weight"], [7, 200])
    out = torch.empty(2, 256)
    weight.rows({"weight": part}, 0, 2, out)
    assert torch.equal(out, dense(opened)["model.embed_tokens.weight"][[7, 200]])


def test_places_and_shapes_are_those_of_the_gguf_package(written):
    file = written("llama", "Q4_K")
    found = read_container(file)
    theirs = {t.name: t for t in GGUFReader(file).tensors}
    assert found.tensors.keys() == theirs.keys()
    for name, tensor in found.tensors.items():
        assert (tensor.start, tensor.nbytes) == (theirs[name].data_offset, theirs[name].n_bytes)
        assert (tensor.dtype, found.shapes[name]) == (
            theirs[name].tensor_type.name,
            tuple(int(n) for n in theirs[name].shape[::-1]),
        )


def test_parts_are_one_model_from_any_of_them_and_from_their_folder(written, tmp_path):
    first = write("llama", tmp_path / "model.gguf", parts=6)
    files = sorted(tmp_path.glob("*.gguf"))
    assert len(files) > 2
    whole = dense(open_file(written()))
    for path in (first, files[-1], tmp_path):
        opened = open_file(path)
        assert opened.files == tuple(files)
        assert opened.config == open_file(written()).config
        assert all(torch.equal(v, whole[n]) for n, v in dense(opened).items())
        assert opened.tensors.keys() == whole.keys()


def test_the_header_is_all_that_is_no_weight(written):
    file = written()
    header = open_file(file).header
    assert file.read_bytes().startswith(header)
    assert b"tokenizer.ggml.merges" in header
    assert len(header) <= min(t.start for t in open_file(file).tensors.values())


# ── which files ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_without_gguf_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=re.escape(f"{tmp_path}: no .gguf file")):
        open_file(tmp_path)


def test_a_folder_of_several_models_asks_which_and_a_vision_tower_is_none(written, tmp_path):
    (tmp_path / "a-Q4_K_M.gguf").symlink_to(written())
    (tmp_path / "mmproj-F16.gguf").write_bytes(b"")
    assert open_file(tmp_path).files == (tmp_path / "a-Q4_K_M.gguf",)
    (tmp_path / "a-Q8_0.gguf").symlink_to(written())
    with pytest.raises(CheckpointError, match=r"2 models \(a-Q4_K_M\.gguf, a-Q8_0\.gguf\)") as caught:
        open_file(tmp_path)
    assert "model.source=" in caught.value.next_step


def test_missing_parts_are_counted_and_named(tmp_path):
    write("llama", tmp_path / "model.gguf", parts=6)
    files = sorted(tmp_path.glob("*.gguf"))
    files[1].unlink()
    with pytest.raises(CheckpointError, match=f"1 of {len(files)} parts are missing: {files[1].name}"):
        open_file(tmp_path)


def test_a_part_of_another_model_is_found_out(written, tmp_path):
    write("llama", tmp_path / "model.gguf", parts=6)
    last = sorted(tmp_path.glob("*.gguf"))[-1]
    last.unlink()
    last.symlink_to(written())
    with pytest.raises(CheckpointError, match="stored in another part already"):
        open_file(tmp_path)


def test_a_single_part_that_was_renamed_is_found_out(tmp_path):
    first = write("llama", tmp_path / "model.gguf", parts=6)
    alone = tmp_path / "other" / "model.gguf"
    alone.parent.mkdir()
    first.rename(alone)
    with pytest.raises(CheckpointError, match=r"1 files with 6 tensors; 21 were due"):
        open_file(alone)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"x\.gguf: cannot be read"):
        open_file(tmp_path / "x.gguf")


# ── config.json beside the file ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a small Mistral in GGUF, of which the file does not say that it is one, and its config.json."""
    model = small("mistral")
    write("mistral", tmp_path / "model.gguf", model=model, without=("llama.attention.sliding_window",))
    model.config.save_pretrained(tmp_path)
    return tmp_path


def edit(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def test_the_config_beside_the_file_is_believed(folder):
    edit(folder, quantization_config={"quant_method": "awq"}, vocab_size=999, rope_theta=5.0)
    found = open_file(folder).config
    assert (found["model_type"], found["sliding_window"], found["rope_theta"]) == ("mistral", 4, 5.0)
    assert found["vocab_size"] == 290  # how many rows the file has
    assert "quantization_config" not in found
    (folder / "config.json").unlink()
    assert open_file(folder).config["model_type"] == "llama"


def test_of_a_config_for_several_kinds_the_texts_part_is_taken(folder):
    text = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": "pixtral", "text_config": text}))
    assert open_file(folder).config["model_type"] == "mistral"


@pytest.mark.parametrize(
    ("key", "value"),
    [("model_type", "qwen2"), ("hidden_size", 512), ("num_hidden_layers", 3), ("num_attention_heads", 8)],
)
def test_the_config_of_another_model_is_refused(folder, key, value):
    edit(folder, **{key: value})
    with pytest.raises(CheckpointError, match=f"config.json beside it says {key} {value}; the file, "):
        open_file(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff"])
def test_a_config_beside_the_file_that_cannot_be_read_is_named(folder, text):
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=r"config\.json: (cannot be read|JSON, but no object)"):
        open_file(folder)


# ── metadata ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("arch", ["mamba", "clip", None])
def test_an_architecture_that_is_not_read_is_named_with_those_that_are(tmp_path, arch):
    pairs = [pair("general.architecture", 8, text(arch))] if arch else []
    with pytest.raises(CheckpointError, match=f"its architecture is '{arch}'") as caught:
        open_file(raw(tmp_path / "x.gguf", pairs=pairs, tensors=[entry("w")]))
    assert "llama, qwen2, qwen3" in caught.value.next_step


@pytest.mark.parametrize("value", [None, 0, "many", True])
def test_a_number_that_is_missing_or_none_is_named(tmp_path, value):
    file = write("llama", tmp_path / "x.gguf", metadata={"llama.block_count": value})
    with pytest.raises(CheckpointError, match=rf"llama\.block_count is {value}; a positive number was due"):
        open_file(file)


def test_heads_that_differ_from_layer_to_layer_are_refused_and_equal_ones_are_not(tmp_path):
    file = write("llama", tmp_path / "x.gguf", metadata={"llama.attention.head_count_kv": [2, 2]})
    assert open_file(file).config["num_key_value_heads"] == 2
    file = write("llama", tmp_path / "y.gguf", metadata={"llama.attention.head_count_kv": [2, 4]})
    with pytest.raises(CheckpointError, match="head_count_kv differs from layer to layer"):
        open_file(file)


def test_a_file_that_says_little_is_read_with_llama_cpps_defaults(tmp_path):
    silent = ("rope.freq_base", "attention.key_length", "rope.dimension_count", "attention.head_count_kv")
    file = write("qwen2", tmp_path / "x.gguf", without=tuple(f"qwen2.{key}" for key in silent), tokens=None)
    found = open_file(file).config
    assert found["rope_parameters"] == {"rope_type": "default", "rope_theta": 10000.0}
    assert (found["head_dim"], found["num_key_value_heads"], found["vocab_size"]) == (64, 4, 290)
    assert (found["bos_token_id"], found["pad_token_id"]) == (None, None)


@pytest.mark.parametrize(("kind", "layers"), [("gemma2", 46), ("gemma3", 62)])
def test_the_largest_gemmas_scale_their_queries_by_another_number(kind, layers, tmp_path):
    # Gemma 2 27B: 4608 / 32 = 144, Gemma 3 27B: 5376 / 32 = 168; heads are 128 wide (their config.json)
    file = write(kind, tmp_path / "x.gguf", metadata={f"{kind}.block_count": layers})
    assert open_file(file).config["query_pre_attn_scalar"] == 256 // 4
    assert open_file(write(kind, tmp_path / "y.gguf")).config["query_pre_attn_scalar"] == 32


def test_gemmas_layers_that_slide_may_be_listed(tmp_path):
    slides = [True, False, True, True, False, True, True]
    file = write("gemma3", tmp_path / "x.gguf", metadata={"gemma3.attention.sliding_window_pattern": slides})
    kinds = {True: "sliding_attention", False: "full_attention"}
    assert open_file(file).config["layer_types"] == [kinds[s] for s in slides]


def test_a_rotary_scaling_that_is_not_known_is_named(tmp_path):
    file = write("qwen2", tmp_path / "x.gguf", metadata={"qwen2.rope.scaling.type": "su"})
    with pytest.raises(CheckpointError, match=r"rope\.scaling\.type is 'su'") as caught:
        open_file(file)
    assert "config.json" in caught.value.next_step


@pytest.mark.parametrize("wrong", [np.linspace(1, 8, 32), np.ones(31), np.ones((2, 16))])
def test_rotary_factors_that_are_not_llama_3s_are_refused(tmp_path, wrong):
    file = write("llama3", tmp_path / "x.gguf", "F16", extra={"rope_freqs.weight": wrong})
    with pytest.raises(CheckpointError, match=r"rope_freqs\.weight does not follow|rotary factors are F16"):
        open_file(file)


# ── tensors ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_types_that_are_not_read_are_named_once_each(tmp_path):
    file = write("llama", tmp_path / "x.gguf", "IQ2_XS")
    with pytest.raises(CheckpointError, match=r"\.weight is stored as IQ2_XS, which is not read") as caught:
        open_file(file)
    assert len(caught.value.problems) == 1
    assert "Q4_K" in caught.value.next_step


def test_tensors_that_are_not_known_are_named(tmp_path):
    strange = {f"blk.0.new_{i}.weight": np.ones(4, np.float32) for i in range(5)}
    with pytest.raises(CheckpointError, match=r"llama: blk\.0\.new_0\.weight, .* and 1 more"):
        open_file(write("llama", tmp_path / "x.gguf", extra=strange))


@pytest.mark.parametrize("name", ["blk.0.attn_q.bias", "blk.1.ffn_up.bias", "output.bias", "token_types.weight"])
def test_a_bias_where_the_architecture_has_none_is_not_dropped(tmp_path, name):
    file = write("llama", tmp_path / "x.gguf", extra={name: np.ones(256, np.float32)})
    with pytest.raises(CheckpointError, match=re.escape(name)):
        open_file(file)


@pytest.mark.parametrize("beside", [True, False])
def test_a_file_without_embeddings_is_no_language_model(tmp_path, beside):
    if beside:
        small("llama").config.save_pretrained(tmp_path)
    file = write("llama", tmp_path / "x.gguf", without=("token_embd.weight",))
    with pytest.raises(CheckpointError, match=r"no token_embd\.weight"):
        open_file(file)


# ── damaged files ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_cut_off_anywhere_is_told_and_never_a_traceback(written, tmp_path):
    whole = written().read_bytes()
    header = len(open_file(written()).header)
    file = tmp_path / "x.gguf"
    for kept in (0, 3, 23, 24, 30, *range(40, header, 211), header, header + 100, len(whole) - 1):
        file.write_bytes(whole[:kept])
        with pytest.raises(CheckpointError, match=r"x\.gguf: (cut off|not a whole GGUF file)"):
            open_file(file)


def raw(
    file: Path,
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    pairs: list[bytes] = [],  # noqa: B006
    tensors: list[bytes] = [],  # noqa: B006
    data: int = 256,
) -> Path:
    """A file by hand: the data begin at the next multiple of 32."""
    head = magic + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs) + b"".join(tensors)
    file.write_bytes(head + bytes(-len(head) % 32) + bytes(data))
    return file


def text(value: str | bytes) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(value)) + value


def pair(key: str | bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def entry(name: str, *, shape: tuple[int, ...] = (4, 4), type: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), type, offset)


def test_a_file_by_hand_is_read(tmp_path):
    pairs = [
        pair("a", 4, struct.pack("<I", 7)),
        pair("b", 9, struct.pack("<IQ", 8, 2) + text("x") + text(b"\xff")),  # a piece that is half a letter
        pair("c", 9, struct.pack("<IQ3h", 3, 3, 1, -2, 3)),
        pair("d", 6, struct.pack("<f", 1e-5)),
        pair("e", 7, b"\1"),
    ]
    file = raw(tmp_path / "x.gguf", pairs=pairs, tensors=[entry("w"), entry("v", shape=(2, 64), type=8, offset=96)])
    found = read_container(file)
    assert found.metadata == {"a": 7, "b": ["x", "\ufffd"], "c": [1, -2, 3], "d": 1e-5, "e": True}
    start = -(-len(found.raw) // 32) * 32
    assert found.tensors["w"] == Tensor(file, "F32", (4, 4), 64, start)
    assert found.tensors["v"] == Tensor(file, "Q8_0", (2, 68), 136, start + 96)
    assert found.shapes["v"] == (2, 64)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"magic": b"GGML"}, "not a GGUF file"),
        ({"version": 1}, "GGUF version 1"),
        ({"version": 3 << 24}, "little-endian"),
        ({"pairs": [pair("a", 13, b"")]}, "the value of a is of kind 13"),
        ({"pairs": [pair("a", 9, struct.pack("<IQ", 9, 1))]}, "the value of a is an array of kind 9"),
        ({"pairs": [pair("a", 9, struct.pack("<IQ", 4, 2**60))]}, "cut off in the value of a"),
        ({"pairs": [pair("a", 9, struct.pack("<IQ", 8, 2**60))]}, "cut off in the value of a"),
        ({"pairs": [pair("a", 8, struct.pack("<Q", 2**62))]}, "cut off in the value of a"),
        ({"pairs": [pair(b"\xff", 7, b"\1")]}, "its metadata is not readable"),
        ({"pairs": [pair("general.alignment", 4, struct.pack("<I", 0))]}, "general.alignment is 0"),
        ({"pairs": [pair("general.alignment", 8, text("x"))]}, "general.alignment is 'x'"),
        ({"tensors": [entry("w", shape=())]}, "w has 0 dimensions"),
        ({"tensors": [entry("w", shape=(1,) * 5)]}, "w has 5 dimensions"),
        ({"tensors": [entry("w", type=99)]}, "w has the GGML type 99, which is not known"),
        ({"tensors": [entry("w", shape=(2, 48), type=8)]}, r"w is Q8_0 \[2, 48\]; its rows are no multiple of 32"),
        ({"tensors": [entry("w", offset=224)]}, "cut off. w ends at byte"),
        ({"tensors": [entry("w", shape=(2**40, 2**40))]}, "cut off. w ends at byte"),
        ({"tensors": [entry("w"), entry("w", offset=64)]}, "w is in its table twice"),
        ({"tensors": [entry("w"), entry("v", offset=32)]}, "v and w share bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damage_is_named_with_the_file(tmp_path, damage, said):
    with pytest.raises(CheckpointError, match=rf"x\.gguf: .*{said}"):
        read_container(raw(tmp_path / "x.gguf", **damage))


# ── tokenizer ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_tokenizer_is_made_of_the_files_vocabulary(written):
    made = gguf.tokenizer(written())
    assert made(TEXT).input_ids == _bytes("<bos>")(TEXT).input_ids
    assert made.decode(made(TEXT, add_special_tokens=False).input_ids) == TEXT


@pytest.mark.parametrize(
    ("pre", "said", "begins"),
    [("llama-bpe", None, True), ("llama-bpe", False, False), ("qwen2", None, False), ("qwen2", True, True)],
)
def test_a_text_begins_with_bos_where_llama_cpp_begins_it_so(tmp_path, pre, said, begins):
    file = write("llama", tmp_path / "x.gguf", tokens=pre, metadata={"tokenizer.ggml.add_bos_token": said})
    assert (gguf.tokenizer(file)(TEXT).input_ids[0] == 1) == begins


def test_a_word_of_llama_3s_vocabulary_is_one_piece_whether_merges_lead_to_it_or_not(tmp_path):
    pieces = [piece for piece, _ in sorted(_bytes("<bos>").get_vocab().items(), key=lambda item: item[1])]
    metadata = {"tokenizer.ggml.tokens": [*pieces, "xyzzy"], "tokenizer.ggml.token_type": [1] * (len(pieces) + 1)}
    for pre, count in (("llama-bpe", 1), ("qwen2", 5)):
        file = write("llama", tmp_path / f"{pre}.gguf", tokens=pre, metadata=metadata)
        assert len(gguf.tokenizer(file)("xyzzy", add_special_tokens=False).input_ids) == count


def test_the_folders_own_tokenizer_wins_and_a_base_models_over_it(tmp_path):
    file = write("llama", tmp_path / "x.gguf", tokens=None)
    _bytes(None).save_pretrained(tmp_path)
    small("llama").config.save_pretrained(tmp_path)
    assert gguf.tokenizer(file)(TEXT).input_ids == _bytes(None)(TEXT).input_ids
    base = tmp_path / "base"
    _bytes("<bos>").save_pretrained(base)
    small("llama").config.save_pretrained(base)
    assert gguf.tokenizer(file, base)(TEXT).input_ids == _bytes("<bos>")(TEXT).input_ids


def test_a_folders_tokenizer_needs_no_config_beside_it(tmp_path):
    file = write("llama", tmp_path / "x.gguf", tokens=None)
    _bytes("<bos>").save_pretrained(tmp_path)
    assert gguf.tokenizer(file)(TEXT).input_ids == _bytes("<bos>")(TEXT).input_ids


def test_no_vocabulary_and_no_tokenizer_is_an_error_that_says_what_to_do(tmp_path):
    file = write("llama", tmp_path / "x.gguf", tokens=None)
    with pytest.raises(CheckpointError, match=r"x\.gguf: no tokenizer could be made of it") as caught:
        gguf.tokenizer(file)
    assert "tokenizer.json" in caught.value.next_step


def test_a_transformers_that_needs_the_gguf_package_says_so(written, monkeypatch):
    def need(*_: object, **__: object) -> None:
        raise ImportError("Please install torch and gguf>=0.10.0")

    monkeypatch.setattr(transformers.PreTrainedTokenizerFast, "from_pretrained", need)
    with pytest.raises(CheckpointError) as caught:
        gguf.tokenizer(written())
    assert caught.value.next_step == "pip install 'pairprobe[gguf]'"


def test_a_base_models_folder_without_a_tokenizer_is_named(written, tmp_path):
    with pytest.raises(CheckpointError, match=re.escape(f"no tokenizer could be made of {tmp_path}")):
        gguf.tokenizer(written(), tmp_path)


@pytest.mark.parametrize(("kind", "expected"), [("llama", [1, 8, 3, 5]), ("gemma2", [1, 7, 3, 5])])
def test_a_sentencepiece_vocabulary_becomes_a_tokenizer(tmp_path, kind, expected):
    # worked by hand: Llama sets ▁ before a text, Gemma does not; both begin with BOS though nothing says so
    pieces = ["<unk>", "<s>", "</s>", "▁", "a", "b", "▁a", "ab", "▁ab"]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": None,
        "tokenizer.ggml.merges": None,
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": [0.0, 0.0, 0.0, -4.0, -5.0, -6.0, -3.0, -2.0, -1.0],
        "tokenizer.ggml.token_type": [2, 3, 3, 1, 1, 1, 1, 1, 1],
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    file = write(kind, tmp_path / "x.gguf", metadata=metadata)
    assert gguf.tokenizer(file)("ab b").input_ids == expected


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("inside", ["", "Q8_0/"])
def test_a_file_of_a_hub_repository_is_found_in_its_cache(written, tmp_path, monkeypatch, inside):
    from huggingface_hub import constants

    from pairprobe.checkpoints.model import Model

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    model = Model(hub="somebody/tiny-GGUF", file=f"{inside}tiny-Q8_0.gguf")
    with pytest.raises(CheckpointError, match="is not in the hub cache") as caught:
        model.locate()
    assert f"hf download somebody/tiny-GGUF {inside}tiny-Q8_0.gguf" in caught.value.next_step
    place = tmp_path / "models--somebody--tiny-GGUF"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(COMMIT)
    file = place / "snapshots" / COMMIT / inside / "tiny-Q8_0.gguf"
    file.parent.mkdir(parents=True)
    file.symlink_to(written())
    found = model.locate()
    assert (found.name, found.identity) == ("tiny-Q8_0", f"commit:{COMMIT}")
    assert found.layers > 0
    assert model.settled(found).revision == COMMIT


@pytest.mark.parametrize("words", [{"file": "a.gguf"}, {"hub": "a/b", "file": "a.safetensors"}])
def test_a_file_that_is_no_gguf_file_of_a_repository_is_refused(words):
    from pairprobe.checkpoints.model import Model
    from pairprobe.errors import ConfigError

    with pytest.raises(ConfigError, match=r"model\.file is"):
        Model(**words)
