"""Which tensors store one module in each format, and how random bytes of each become plausible numbers.

The layout alone: no quantiser runs, so that a 70B checkpoint is written as fast as the disk takes it. Random words
are valid data for every packed format; scales are chosen so that the dense weight has the spread that is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.encode import BLOCK, FORMATS, NF4, NF4_BLOCK, NF4_NESTED, nested_map
from bench.shapes import Module, Shape
from pairprobe.errors import ConfigError


@dataclass(frozen=True)
class Part:
    """One tensor to be written. dtype: as safetensors names it. fill: bytes given, or a page of random numbers:

    (kind, mean, spread), kind being normal, uniform (mean ± spread), bytes, int8 (−127 … 127), zeros4 (nibbles
    6 … 9), ones4 (nibbles 7) or fp8 (e4m3, standard deviation `spread`). key: parts of one key draw the same numbers.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    fill: npt.NDArray[Any] | tuple[str, float, float]
    key: str

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        size = {"F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I64": 8}.get(self.dtype, 1)
        return size * int(np.prod(self.shape, dtype=np.int64))


#: Standard deviation of the integers a random part holds, which its scale divides by.
INT8 = float(np.sqrt(np.mean(np.arange(-127, 128) ** 2.0)))
NIBBLE = float(np.sqrt(np.mean((np.arange(16) - 7.5) ** 2)))  # uniform, about its middle
BYTE = float(np.sqrt(np.mean((np.arange(256) - 127.5) ** 2)))
AWQ = float(np.sqrt(NIBBLE**2 + np.mean((np.arange(6, 10) - 7.5) ** 2)))  # less zero points of 6 … 9
SIGNED = float(np.sqrt(np.mean((np.arange(16) - 8.0) ** 2)))
E4M3 = 112.0  # four standard deviations reach the largest, 448
NF = float(np.sqrt(np.mean(np.square(NF4))))
#: A product of `in` terms of unit size comes out at about 1.8, at 8192 columns and the usual 0.02 just as at others.
GAIN = 0.02 * 8192**0.5
VARIES = 0.2  # scales lie within this share of their mean


def dense_dtype(shape: Shape, format: str) -> str:
    """safetensors' name of the dtype of what is not quantised: the publisher's, fp16 where the format asks for it."""
    forced = {"fp16": "F16", "fp32": "F32", "bf16": "BF16", "awq": "F16", "gptq": "F16", "bnb8": "F16", "mlx4": "F16",
              "mlx8": "F16"}  # fmt: skip
    return forced.get(format, {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}[shape.dtype])


def parts(shape: Shape, format: str, group: int | None = None) -> Iterator[Part]:
    """Every tensor of the checkpoint, in the order it is stored.

    Raises:
        ConfigError: no such format, or a matrix does not divide into its groups or words.
    """
    if format not in FORMATS:
        raise ConfigError(f"format={format}: there is no such format.", f"There are {', '.join(FORMATS)}.")
    group = FORMATS[format][0] if group is None else group
    if group is not None and FORMATS[format][0] is not None and (group < 8 or group % 8):
        raise ConfigError(f"group={group}: a positive multiple of 8 is needed.")
    dense = dense_dtype(shape, format)
    for module in shape.modules():
        # MLX quantises table and head as well; everyone else leaves them
        quantised = module.kind == "linear" or (format.startswith("mlx") and module.kind in ("embedding", "head"))
        if format in ("bf16", "fp16", "fp32") or not quantised:
            yield _dense(module, dense)
        else:
            yield from _quantised(module, format, group or 0, dense)
        if module.bias:
            yield Part(f"{module.path}.bias", dense, module.shape[:1], ("normal", 0.0, 0.1), f"{module.path}.bias")


def spread(module: Module) -> float:
    """Standard deviation of a module's weights."""
    return 0.02 if module.kind == "embedding" else GAIN / module.shape[1] ** 0.5


def _dense(module: Module, dtype: str) -> Part:
    fill = ("normal", 1.0, 0.1) if module.kind == "norm" else ("normal", 0.0, spread(module))
    return Part(f"{module.path}.weight", dtype, module.shape, fill, module.path)


def _quantised(module: Module, format: str, group: int, dense: str) -> Iterator[Part]:
    out, wide = module.shape
    std = spread(module)
    if format in ("int4", "awq", "gptq", "mlx4", "mlx8") and wide % group:
        raise ConfigError(f"{module.path}: {wide} columns do not divide into groups of {group} ({format}).")
    if format in ("awq", "gptq") and out % 8:
        raise ConfigError(f"{module.path}: {out} output columns are not a multiple of 8 ({format}).")
    groups = wide // group if group else 0

    def part(name: str, dtype: str, shape: tuple[int, ...], kind: str, mean: float = 0.0, by: float = 0.0) -> Part:
        return Part(f"{module.path}.{name}", dtype, shape, (kind, mean, by), f"{module.path}.{name}")

    def given(name: str, dtype: str, values: npt.NDArray[Any]) -> Part:
        return Part(f"{module.path}.{name}", dtype, values.shape, values, module.path)

    def scales(name: str, dtype: str, shape: tuple[int, ...], mean: float, by: float = VARIES) -> Part:
        return part(name, dtype, shape, "uniform", mean, abs(mean) * by)

    if format == "int8":
        yield part("weight", "I8", (out, wide), "int8")
        yield scales("weight_scale", dense, (out, 1), std / INT8)
    elif format == "fp8":
        yield part("weight", "F8_E4M3", (out, wide), "fp8", 0.0, E4M3)
        yield scales("weight_scale", dense, (out, 1), std / E4M3)
    elif format == "fp8_block":
        yield part("weight", "F8_E4M3", (out, wide), "fp8", 0.0, E4M3)
        yield scales("weight_scale_inv", dense, (-(-out // BLOCK), -(-wide // BLOCK)), std / E4M3)
    elif format == "bnb8":
        yield scales("SCB", "F32", (out,), std / INT8 * 127)
        yield part("weight", "I8", (out, wide), "int8")
        yield given("weight_format", "U8", np.zeros((), np.uint8))
    elif format == "int4":
        yield part("weight_packed", "I32", (out, -(-wide // 8)), "bytes")
        yield scales("weight_scale", dense, (out, groups), std / SIGNED)
        yield given("weight_shape", "I64", np.array((out, wide), "<i8"))
    elif format == "awq":
        yield part("qweight", "I32", (wide, out // 8), "bytes")
        yield part("qzeros", "I32", (groups, out // 8), "zeros4")
        yield scales("scales", "F16", (groups, out), std / AWQ)
    elif format == "gptq":
        yield given("g_idx", "I32", (np.arange(wide) // group).astype("<i4"))
        yield part("qweight", "I32", (wide // 8, out), "bytes")
        yield part("qzeros", "I32", (groups, out // 8), "ones4")  # 7 stands for 8 in version 1
        yield scales("scales", "F16", (groups, out), std / SIGNED)
    elif format == "nf4":
        blocks = -(-out * wide // NF4_BLOCK)
        mean = std / NF
        state = {"quant_type": "nf4", "blocksize": NF4_BLOCK, "nested_blocksize": NF4_NESTED,
                 "dtype": {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[dense],
                 "nested_dtype": "float32", "nested_offset": mean, "shape": [out, wide]}  # fmt: skip
        yield part("weight", "U8", (-(-out * wide // 2), 1), "bytes")
        yield part("weight.absmax", "U8", (blocks,), "bytes")
        yield scales("weight.nested_absmax", "F32", (-(-blocks // NF4_NESTED),), mean * VARIES)
        yield given("weight.nested_quant_map", "F32", np.array(nested_map(), "<f4"))
        yield given("weight.quant_map", "F32", np.array(NF4, "<f4"))
        raw = np.frombuffer(json.dumps(state).encode(), np.uint8)
        yield given("weight.quant_state.bitsandbytes__nf4", "U8", raw)
    else:
        bits, unit = (4, NIBBLE) if format == "mlx4" else (8, BYTE)
        yield part("weight", "U32", (out, wide * bits // 32), "bytes")
        scale, middle = std / unit, -(2**bits - 1) / 2  # bias = middle · scale, from the same random numbers
        for name, mean in (("scales", scale), ("biases", middle * scale)):
            fill = ("uniform", mean, mean * VARIES)
            yield Part(f"{module.path}.{name}", dense, (out, groups), fill, f"{module.path}.scales")


# ── what the config says of it ───────────────────────────────────────────────────────────────────────────


def quantisation(format: str, group: int | None = None) -> dict[str, Any]:
    """The keys a publisher's config.json has for this format: quantization_config, MLX's own; {} where dense."""
    group = FORMATS[format][0] if group is None else group
    if format in ("int8", "int4", "fp8"):
        return {"quantization_config": _compressed(format, group)}
    own: dict[str, Any]
    if format == "awq":
        own = {"bits": 4, "group_size": group, "modules_to_not_convert": None, "quant_method": "awq"}
        return {"quantization_config": {**own, "version": "gemm", "zero_point": True}}
    if format == "gptq":
        own = {"bits": 4, "damp_percent": 0.01, "desc_act": False, "group_size": group, "model_file_base_name": "model"}
        own |= {"model_name_or_path": None, "quant_method": "gptq", "static_groups": False, "sym": True}
        return {"quantization_config": {**own, "true_sequential": True}}
    if format == "fp8_block":
        own = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8"}
        return {"quantization_config": {**own, "weight_block_size": [BLOCK, BLOCK]}}
    if format in ("nf4", "bnb8"):
        four = format == "nf4"
        own = {"_load_in_4bit": four, "_load_in_8bit": not four, "bnb_4bit_compute_dtype": "bfloat16"}
        own |= {"bnb_4bit_quant_storage": "uint8", "bnb_4bit_quant_type": "nf4" if four else "fp4"}
        own |= {"bnb_4bit_use_double_quant": four, "llm_int8_enable_fp32_cpu_offload": False}
        own |= {"llm_int8_has_fp16_weight": False, "llm_int8_skip_modules": None, "llm_int8_threshold": 6.0}
        own |= {"load_in_4bit": four, "load_in_8bit": not four, "quant_method": "bitsandbytes"}
        return {"quantization_config": own}
    if format in ("mlx4", "mlx8"):
        own = {"group_size": group, "bits": int(format[3:])}
        return {"quantization": own, "quantization_config": own}
    return {}


def _compressed(format: str, group: int | None) -> dict[str, Any]:
    """compressed-tensors: RedHatAI's quantized.w8a8, quantized.w4a16 and FP8-dynamic."""
    bits, kind = {"int8": (8, "int"), "int4": (4, "int"), "fp8": (8, "float")}[format]
    none: dict[str, Any] = {
        "actorder": None,
        "block_structure": None,
        "group_size": None,
        "observer_kwargs": {},
        "symmetric": True,
    }
    weights = {**none, "dynamic": False, "num_bits": bits, "observer": "minmax", "strategy": "channel", "type": kind}
    if format == "int4":
        weights |= {"group_size": group, "strategy": "group"}
    inputs = {**none, "dynamic": True, "num_bits": bits, "observer": None, "strategy": "token", "type": kind}
    return {
        "config_groups": {
            "group_0": {
                "input_activations": None if format == "int4" else inputs,
                "output_activations": None,
                "targets": ["Linear"],
                "weights": weights,
            }
        },
        "format": {"int8": "int-quantized", "int4": "pack-quantized", "fp8": "float-quantized"}[format],
        "global_compression_ratio": 1.0,
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
    }
