"""What a GGUF file calls things, and what Hugging Face calls them: tensors, and the numbers of the architecture.

Source: llama.cpp, convert_hf_to_gguf.py (what the conversion changes) and src/llama-model.cpp (what it takes for
granted where the file says nothing).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pairprobe.errors import CheckpointError

_BESIDE = "Put the model's own config.json beside the file."
_ATTENTION = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
}
_LAYER = _ATTENTION | {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_FOUR_NORMS = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_PHI3 = {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}
_QWEN_ROUTER = {"ffn_gate_inp": "mlp.gate"}
_QWEN_EXPERTS = {
    "ffn_gate": "mlp.experts.{}.gate_proj",
    "ffn_up": "mlp.experts.{}.up_proj",
    "ffn_down": "mlp.experts.{}.down_proj",
}
_MIXTRAL_EXPERTS = {
    "ffn_gate": "block_sparse_moe.experts.{}.w1",
    "ffn_up": "block_sparse_moe.experts.{}.w3",
    "ffn_down": "block_sparse_moe.experts.{}.w2",
}
_SHARED = {
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
#: Tensors that hold rotary factors, which belong into the config.
FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


@dataclass(frozen=True)
class Architecture:
    """model_types: Hugging Face's; the first is taken where the file alone decides. layer: GGUF's name of a layer's
    tensor → Hugging Face's. interleaved: q and k rows are in the order of llama.cpp's rotary embedding. added: to norm
    weights. biases: of q, k and v.

    Of a mixture. experts: GGUF's name of a layer's tensor of all experts, without its '_exps' → Hugging Face's of one
    expert. number: what its config calls the number of experts. normed: the weights of a token's experts add up to 1.
    shared: beside them there is one that every token has."""

    model_types: tuple[str, ...]
    layer: Mapping[str, str] = field(default_factory=lambda: _LAYER)
    interleaved: bool = False
    added: float = 0.0
    biases: bool = False
    experts: Mapping[str, str] = field(default_factory=dict)
    number: str = ""
    normed: bool = True
    shared: bool = False


#: general.architecture → what its conversion did, for models without experts.
ARCHITECTURES = {
    "llama": Architecture(("llama", "mistral"), interleaved=True),
    "qwen2": Architecture(("qwen2",), biases=True),
    "qwen3": Architecture(("qwen3",), _LAYER | _HEAD_NORMS),
    "gemma": Architecture(("gemma",), added=1.0),
    "gemma2": Architecture(("gemma2",), _LAYER | _FOUR_NORMS, added=1.0),
    "gemma3": Architecture(("gemma3_text",), _LAYER | _FOUR_NORMS | _HEAD_NORMS, added=1.0),
    "phi3": Architecture(("phi3",), _LAYER | _PHI3),
}


#: The same for mixtures of experts. Whether the weights of a token's experts are normed is in no file: llama.cpp knows
#: it by the architecture (build_moe_ffn's norm_w in src/models/), and so do Hugging Face's published configs.
MIXTURES = {
    "llama": Architecture(
        ("mixtral",),
        _ATTENTION | {"ffn_gate_inp": "block_sparse_moe.gate"},
        interleaved=True,
        experts=_MIXTRAL_EXPERTS,
        number="num_local_experts",
    ),
    "qwen2moe": Architecture(
        ("qwen2_moe",),
        _ATTENTION | _QWEN_ROUTER | _SHARED,
        biases=True,
        experts=_QWEN_EXPERTS,
        number="num_experts",
        normed=False,
        shared=True,
    ),
    "qwen3moe": Architecture(
        ("qwen3_moe",), _ATTENTION | _HEAD_NORMS | _QWEN_ROUTER, experts=_QWEN_EXPERTS, number="num_experts"
    ),
}
#: Keys of a mixture that are read, and beside them the values of others that change nothing.
_EXPERT_KEYS = ("expert_count", "expert_used_count", "expert_feed_forward_length")
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "expert_gating_func": (0, 1),  # softmax
    "expert_weights_scale": (0.0, 1.0),
    "expert_group_count": (0, 1),
    "expert_group_used_count": (0, 1),
}


def architecture(metadata: Mapping[str, Any], file: str) -> str:
    """The file's architecture, if it is one that is read. Raises CheckpointError for others."""
    name = str(metadata.get("general.architecture"))
    known = ", ".join(dict.fromkeys([*ARCHITECTURES, *MIXTURES]))
    if name not in ARCHITECTURES and name not in MIXTURES:
        step = f"Architectures that are read from GGUF: {known}. Others: as safetensors."
        raise CheckpointError(f"{file}: its architecture is '{name}'.", step)
    experts = metadata.get(f"{name}.expert_count")
    if experts and name not in MIXTURES:
        raise CheckpointError(
            f"{file}: a mixture of experts ({name}), which is not read from GGUF.",
            f"Mixtures that are read from GGUF: {', '.join(MIXTURES)}. Others: as safetensors.",
        )
    if not experts and name not in ARCHITECTURES:
        raise CheckpointError(f"{file}: {name}.expert_count is {experts}; a positive number was due.")
    return name


def kind_of(metadata: Mapping[str, Any], arch: str, file: str) -> Architecture:
    """What the conversion of this model did. Raises CheckpointError for experts that are not used as is known here."""
    if not metadata.get(f"{arch}.expert_count"):
        return ARCHITECTURES[arch]
    kind = MIXTURES[arch]
    numbers = []
    for key in ("expert_count", "expert_used_count"):
        value = metadata.get(f"{arch}.{key}")
        if type(value) is not int or value < 1:
            raise CheckpointError(f"{file}: {arch}.{key} is {value}; a positive number was due.")
        numbers.append(value)
    if numbers[1] > numbers[0]:
        raise CheckpointError(f"{file}: {arch}.expert_used_count is {numbers[1]}, of {numbers[0]} experts.")
    read = (*_EXPERT_KEYS, "expert_shared_feed_forward_length") if kind.shared else _EXPERT_KEYS
    allowed = {**_WITHOUT_EFFECT, "expert_weights_norm": (kind.normed,)}
    for key, value in metadata.items():
        short = key.removeprefix(f"{arch}.")
        if not short.startswith("expert") or short in read or value in allowed.get(short, (0,)):
            continue
        raise CheckpointError(
            f"{file}: {key} is {value}, which is not read for this architecture.", "Take this model as safetensors."
        )
    return kind


def hugging_face_name(name: str, kind: Architecture) -> str | None:
    """'blk.0.attn_q.weight' → 'model.layers.0.self_attn.q_proj.weight'; None for a tensor that is not known.

    Of all experts ('blk.0.ffn_up_exps.weight') the name has a place for the expert's number, '{}'.
    """
    if found := re.fullmatch(r"blk\.(\d+)\.(\w+)(?:\.(\d+))?\.(weight|bias)", name):
        layer, stem, expert, suffix = found.groups()
        alone = stem if expert else stem.removesuffix("_exps")  # files from before April 2024: a tensor for each
        if alone in kind.experts and (expert or alone != stem):
            ours = kind.experts[alone]
            return (
                f"model.layers.{layer}.{ours.format(expert) if expert else ours}.weight" if suffix == "weight" else None
            )
        biased = kind.biases and stem in ("attn_q", "attn_k", "attn_v")
        if expert or stem not in kind.layer or (suffix == "bias" and not biased):
            return None
        return f"model.layers.{layer}.{kind.layer[stem]}.{suffix}"
    stem, _, suffix = name.rpartition(".")
    return f"{_OUTSIDE[stem]}.{suffix}" if stem in _OUTSIDE and suffix == "weight" else None


def config(
    metadata: Mapping[str, Any], shapes: Mapping[str, Sequence[int]], factors: Callable[[str], list[float]], file: str
) -> dict[str, Any]:
    """The config in Hugging Face's words.

    Args:
        shapes: of all tensors, by GGUF's name, as the model has them.
        factors: values of a small float tensor, by GGUF's name.

    Raises:
        CheckpointError: the metadata lack a number, or say something that has no counterpart here.
    """
    arch = architecture(metadata, file)
    kind = kind_of(metadata, arch, file)

    def get(key: str, default: Any = None) -> Any:
        value = metadata.get(f"{arch}.{key}", default)
        if isinstance(value, list) and "pattern" not in key:  # a value for each layer
            if len(set(value)) != 1:
                raise CheckpointError(f"{file}: {arch}.{key} differs from layer to layer, which is not read.")
            return value[0]
        return value

    def need(key: str) -> Any:
        value = get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise CheckpointError(f"{file}: {arch}.{key} is {value}; a positive number was due.", _BESIDE)
        return value

    if "token_embd.weight" not in shapes:
        raise CheckpointError(f"{file}: no token_embd.weight: it holds no language model.")
    hidden, layers, heads = need("embedding_length"), need("block_count"), need("attention.head_count")
    size = get("attention.key_length") or (arch == "llama" and get("rope.dimension_count")) or hidden // heads
    found: dict[str, Any] = {
        "model_type": kind.model_types[0],
        "vocab_size": shapes["token_embd.weight"][0],
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": get("attention.head_count_kv", heads),
        "head_dim": size,
        "intermediate_size": need("feed_forward_length"),
        "max_position_embeddings": need("context_length"),
        "rms_norm_eps": need("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in shapes,
        "rope_parameters": _rope(get, arch, size, shapes, factors, file),
    }
    for key, ours in (("bos", "bos"), ("eos", "eos"), ("padding", "pad")):
        found[f"{ours}_token_id"] = metadata.get(f"tokenizer.ggml.{key}_token_id")
    window = get("attention.sliding_window")
    if arch == "llama" and window and not kind.experts:
        found["model_type"] = "mistral"
    if window and arch in ("llama", "phi3", "gemma2", "gemma3"):
        found["sliding_window"] = window
    if arch in ("gemma2", "gemma3"):
        # neither number is in the file; llama.cpp knows the 27B models, which alone deviate, by their layers
        largest = {"gemma2": 46, "gemma3": 62}[arch]
        found["query_pre_attn_scalar"] = hidden // heads if layers == largest else size
        found["final_logit_softcapping"] = get("final_logit_softcapping", 30.0 if arch == "gemma2" else None)
        found["attn_logit_softcapping"] = get("attn_logit_softcapping", 50.0 if arch == "gemma2" else None)
        pattern = get("attention.sliding_window_pattern", 2 if arch == "gemma2" else 6)
        found["layer_types"] = _layer_types(pattern, layers)
    if kind.experts:
        found |= _mixture(get, kind, found["intermediate_size"])
    if arch == "phi3":
        found["original_max_position_embeddings"] = get(
            "rope.scaling.original_context_length", found["max_position_embeddings"]
        )
    return found


def _mixture(get: Callable[..., Any], kind: Architecture, width: int) -> dict[str, Any]:
    """Of the experts. width: of a feed-forward network without any, which Mixtral's experts have too."""
    used = get("expert_used_count")
    found: dict[str, Any] = {kind.number: get("expert_count"), "num_experts_per_tok": used}
    if kind.model_types[0] == "mixtral":
        return found | {"intermediate_size": get("expert_feed_forward_length") or width}
    found["norm_topk_prob"] = kind.normed
    found["moe_intermediate_size"] = get("expert_feed_forward_length") or width // used
    if kind.shared:
        found["shared_expert_intermediate_size"] = get("expert_shared_feed_forward_length") or width
    return found


def _layer_types(pattern: int | list[bool], layers: int) -> list[str]:
    """Gemma: every `pattern`-th layer sees the whole text; or, for each layer, whether it slides."""
    slides = pattern if isinstance(pattern, list) else [bool((i + 1) % pattern) for i in range(layers)]
    return ["sliding_attention" if s else "full_attention" for s in slides]


def _rope(
    get: Callable[..., Any],
    arch: str,
    size: int,
    shapes: Mapping[str, Sequence[int]],
    factors: Callable[[str], list[float]],
    file: str,
) -> dict[str, Any]:
    theta = get("rope.freq_base", 10000.0)
    kind = get("rope.scaling.type", "none")
    found: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    if "rope_freqs.weight" in shapes:
        found |= _llama3(factors("rope_freqs.weight"), theta, size, file)
    elif "rope_factors_short.weight" in shapes and "rope_factors_long.weight" in shapes:
        found |= {
            "rope_type": "longrope",
            "short_factor": factors("rope_factors_short.weight"),
            "long_factor": factors("rope_factors_long.weight"),
            "original_max_position_embeddings": get("rope.scaling.original_context_length"),
        }
    elif kind == "linear":
        found |= {"rope_type": "linear", "factor": get("rope.scaling.factor", 1.0)}
    elif kind == "yarn":
        original = get("rope.scaling.original_context_length")
        found |= {"rope_type": "yarn", "factor": get("rope.scaling.factor", 1.0)}
        found |= {"original_max_position_embeddings": original} if original else {}
    elif kind != "none":
        raise CheckpointError(f"{file}: {arch}.rope.scaling.type is '{kind}'; read are none, linear, yarn.", _BESIDE)
    turned = get("rope.dimension_count", size)
    if arch == "phi3" and turned != size:
        found["partial_rotary_factor"] = turned / size
    if arch == "gemma3":
        local = {"rope_type": "default", "rope_theta": get("rope.freq_base_swa", 10000.0)}
        return {"full_attention": found, "sliding_attention": local}
    return found


def _llama3(stored: list[float], theta: float, size: int, file: str) -> dict[str, Any]:
    """Llama 3.1's rotary settings from the factors that its conversion made of them.

    The file holds the factors and not the rule. All models published with it have the same rule but for `factor`, the
    largest of the factors; that it gives the others too is checked.
    """
    factor, low, high, original = max(stored), 1.0, 4.0, 8192
    expected = []
    for i in range(size // 2):
        length = 2 * math.pi * theta ** (2 * i / size)
        smooth = (original / length - low) / (high - low)
        smooth = min(1.0, max(0.0, smooth))
        expected.append(1 / ((1 - smooth) / factor + smooth))
    if len(stored) != len(expected) or any(abs(a - b) > 1e-3 * b for a, b in zip(stored, expected, strict=True)):
        raise CheckpointError(f"{file}: rope_freqs.weight does not follow Llama 3's rule.", _BESIDE)
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }
