"""Small real GGUF files, written with llama.cpp's own gguf package from small random models.

    model = small("llama"); file = write(model, tmp_path / "x.gguf", type="Q8_0")

`write` does what llama.cpp's convert_hf_to_gguf.py does for these architectures: its names come from the package, q and
k of Llama are interleaved, Gemma's norms get 1 added, Llama 3's rotary factors become a tensor, all experts of a layer
become one tensor, and routers stay F32. The package quantises
to the plain types itself; for the others (K, IQ) it can only dequantise, so their bytes are drawn at random.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from zlib import crc32

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType, GGUFWriter, quants
from small_models import _bytes

HIDDEN = 256  # one block of the K types
_SIZES = {
    "hidden_size": HIDDEN,
    "intermediate_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "vocab_size": 290,
    "initializer_range": 0.1,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}
_GEMMA = {**_SIZES, "head_dim": 32, "tie_word_embeddings": True}
_GEMMA2 = {**_GEMMA, "query_pre_attn_scalar": 32, "sliding_window": 4}  # shorter than the texts
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + i / 16 for i in range(24)],
    "long_factor": [2.0 + i for i in range(24)],
    "original_max_position_embeddings": 32,
    "partial_rotary_factor": 0.75,
}
_GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}
_YARN = {"rope_type": "yarn", "rope_theta": 1000000.0, "factor": 4.0, "original_max_position_embeddings": 16}
_LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}

#: kind → (GGUF's architecture, Hugging Face's class, its config)
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("llama", "Llama", _SIZES),
    "llama3": ("llama", "Llama", {**_SIZES, "tie_word_embeddings": True, "rope_parameters": _LLAMA3}),
    "llama, narrow heads": ("llama", "Llama", {**_SIZES, "head_dim": 32, "rope_parameters": _LINEAR}),
    "mistral": ("llama", "Mistral", {**_SIZES, "sliding_window": 4}),
    "qwen2": ("qwen2", "Qwen2", _SIZES),
    "qwen2, yarn": ("qwen2", "Qwen2", {**_SIZES, "rope_parameters": _YARN}),
    "qwen3": ("qwen3", "Qwen3", {**_SIZES, "head_dim": 32}),
    "gemma": ("gemma", "Gemma", _GEMMA),
    "gemma2": ("gemma2", "Gemma2", _GEMMA2),
    "gemma3": ("gemma3", "Gemma3", {**_GEMMA2, "num_hidden_layers": 7, "rope_parameters": _GEMMA3_ROPE}),
    "phi3": ("phi3", "Phi3", _SIZES),
    "phi3, long": ("phi3", "Phi3", {**_SIZES, "rope_parameters": _LONG, "original_max_position_embeddings": 32}),
}
_EXPERTS = {**_SIZES, "num_experts_per_tok": 2, "intermediate_size": 2 * HIDDEN}
_QWEN_EXPERTS = {**_EXPERTS, "num_experts": 4, "moe_intermediate_size": 2 * HIDDEN, "intermediate_size": 4 * HIDDEN}
#: The same for mixtures of experts. norm_topk_prob is what these models are published with, and llama.cpp computes.
MIXTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mixtral": ("llama", "Mixtral", {**_EXPERTS, "num_local_experts": 4, "head_dim": 64}),
    "qwen2moe": ("qwen2moe", "Qwen2Moe", {**_QWEN_EXPERTS, "shared_expert_intermediate_size": HIDDEN}),
    "qwen3moe": ("qwen3moe", "Qwen3Moe", {**_QWEN_EXPERTS, "head_dim": 128, "norm_topk_prob": True}),
}


def small(kind: str, **changes: Any) -> Any:
    """A small random causal language model of `kind` (of KINDS or MIXTURES); norms and biases are random too."""
    _, name, sizes = (KINDS | MIXTURES)[kind]
    text = "Text" if name == "Gemma3" else ""
    config = getattr(transformers, f"{name}{text}Config")(**{**sizes, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, f"{name}ForCausalLM")(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter += 0.1 * torch.randn(parameter.shape)
    return model.eval()


def write(
    kind: str,
    file: Path,
    type: str = "F32",
    *,
    model: Any = None,
    metadata: dict[str, Any] | None = None,
    without: tuple[str, ...] = (),
    extra: dict[str, np.ndarray] | None = None,
    tokens: str | None = "llama-bpe",
    parts: int = 0,
) -> Path:
    """Write a model as GGUF and return the (first) file.

    Args:
        type: of all matrices; vectors and routers are F32, as llama.cpp has it.
        metadata: keys that replace what the model says; None leaves one out.
        without: keys and tensors to leave out. extra: tensors to add.
        tokens: tokenizer.ggml.pre of a small byte-level vocabulary; None: no vocabulary.
        parts: tensors of each file, for a model in parts; 0: one file.
    """
    arch = (KINDS | MIXTURES)[kind][0]
    model = model or small(kind)
    writer = GGUFWriter(file, arch, split_max_tensors=parts)
    values = {**facts(arch, model.config), **(vocabulary(tokens) if tokens else {}), **(metadata or {})}
    for key, value in values.items():
        if value is None or key in without:
            continue
        kinds = {bool: "add_bool", int: "add_uint32", float: "add_float32", str: "add_string", list: "add_array"}
        getattr(writer, kinds[value.__class__])(key, value)
    for name, tensor in {**tensors(arch, model), **(extra or {})}.items():
        if name in without:
            continue
        if tensor.ndim == 1 or name.endswith("ffn_gate_inp.weight"):
            writer.add_tensor(name, tensor.astype(np.float32))
        else:
            writer.add_tensor(name, quantise(tensor, type, crc32(name.encode())), raw_dtype=GGMLQuantizationType[type])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(file.parent.glob(f"{file.stem}*.gguf"))[0]


def facts(arch: str, config: Any) -> dict[str, Any]:
    """What llama.cpp's converter writes of a config."""
    rope = config.rope_parameters
    local = rope.get("sliding_attention")
    rope = rope.get("full_attention", rope)
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    found = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "attention.key_length": size,
        "attention.value_length": size,
        "rope.freq_base": float(rope["rope_theta"]),
        "rope.dimension_count": int(size * rope.get("partial_rotary_factor", 1)),
        "attention.sliding_window": getattr(config, "sliding_window", None),
        "attn_logit_softcapping": getattr(config, "attn_logit_softcapping", None),
        "final_logit_softcapping": getattr(config, "final_logit_softcapping", None),
        "vocab_size": config.vocab_size,
        "expert_count": getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None),
        "expert_used_count": getattr(config, "num_experts_per_tok", None),
        "expert_feed_forward_length": getattr(config, "moe_intermediate_size", None),
        "expert_shared_feed_forward_length": getattr(config, "shared_expert_intermediate_size", None),
    }
    if rope["rope_type"] in ("linear", "yarn"):
        found["rope.scaling.type"] = rope["rope_type"]
        found["rope.scaling.factor"] = rope["factor"]
    if rope["rope_type"] in ("yarn", "longrope"):
        found["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
    if local:
        found["rope.freq_base_swa"] = local["rope_theta"]
    return {f"{arch}.{key}": value for key, value in found.items()}


def tensors(arch: str, model: Any) -> dict[str, np.ndarray]:
    """Every tensor by GGUF's name, with the changes llama.cpp's converter makes."""
    config = model.config
    number = next(n for n, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    found = {}
    for name, whole in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        data = whole.numpy().copy()
        if arch == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            data = data.reshape(heads, 2, -1, data.shape[1]).swapaxes(1, 2).reshape(data.shape)
        if arch.startswith("gemma") and name.endswith("norm.weight"):
            data = data + 1
        if name.endswith("mlp.experts.gate_up_proj"):  # written apart, as published
            path = name.removesuffix("gate_up_proj")
            parts = dict(zip((f"{path}gate_proj.weight", f"{path}up_proj.weight"), np.split(data, 2, 1), strict=True))
        elif name.endswith("mlp.experts.down_proj"):
            parts = {f"{name}.weight": data}
        elif name.endswith("shared_expert_gate.weight"):
            parts = {name: data.squeeze()}
        else:
            parts = {name: data}
        for part, value in parts.items():
            ours = names.get_name(part, try_suffixes=(".weight", ".bias"))
            assert ours, part
            found[ours] = value
    rope = config.rope_parameters
    if rope.get("rope_type") == "longrope":
        for length in ("short", "long"):
            found[f"rope_factors_{length}.weight"] = np.array(rope[f"{length}_factor"], np.float32)
    if rope.get("rope_type") == "llama3":
        found["rope_freqs.weight"] = np.array(llama3_factors(rope, config.head_dim), np.float32)
    return found


def llama3_factors(rope: dict[str, Any], size: int) -> list[float]:
    """As generate_extra_tensors has them: 1 for short waves, the whole factor for long ones, smooth between."""
    low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    found = []
    for frequency in (rope["rope_theta"] ** (-i / size) for i in range(0, size, 2)):
        length = 2 * math.pi / frequency
        if length < high:
            found.append(1.0)
        elif length > low:
            found.append(rope["factor"])
        else:
            smooth = (rope["original_max_position_embeddings"] / length - rope["low_freq_factor"]) / (
                rope["high_freq_factor"] - rope["low_freq_factor"]
            )
            found.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return found


def quantise(data: np.ndarray, type: str, seed: int = 0) -> np.ndarray:
    """Bytes […, out, bytes of a row] of this type, or values for F32 and F16. seed: of bytes that are drawn."""
    try:
        return quants.quantize(data.astype(np.float32), GGMLQuantizationType[type])
    except NotImplementedError:
        weights, _ = gguf.GGML_QUANT_SIZES[GGMLQuantizationType[type]]
        return blocks(type, data.size // weights, seed).reshape(*data.shape[:-1], -1)


#: Where a block's fp16 scales lie.
SCALES = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q2_K": (80, 82), "Q3_K": (108,),
    "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,), "IQ4_XS": (0,),
}  # fmt: skip


def blocks(type: str, count: int, seed: int = 0) -> np.ndarray:
    """Random blocks uint8 [count, bytes] with scales of about 0.01, of either sign."""
    generator = np.random.default_rng(seed)
    nbytes = gguf.GGML_QUANT_SIZES[GGMLQuantizationType[type]][1]
    data = generator.integers(0, 256, (count, nbytes), dtype=np.uint8)
    for place in SCALES.get(type, ()):
        scales = (0.01 * generator.standard_normal((count, 1))).astype(np.float16)
        data[:, place : place + 2] = scales.view(np.uint8)
    return data


def vocabulary(pre: str) -> dict[str, Any]:
    """Metadata of the small byte-level tokenizer of `small_models`; <bos> and <pad> are control tokens."""
    made = _bytes("<bos>")
    pieces = sorted(made.get_vocab().items(), key=lambda item: item[1])
    merges = json.loads(made.backend_tokenizer.to_str())["model"]["merges"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [piece for piece, _ in pieces],
        "tokenizer.ggml.token_type": [3 if piece in ("<bos>", "<pad>") else 1 for piece, _ in pieces],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in merges],
        "tokenizer.ggml.bos_token_id": 1,
    }
