"""What published models consist of: their config, and every module with its matrix, without a weight.

Numbers are those of the publishers' config.json. `tiny` and the mixtures of experts are ours, for tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from pairprobe.errors import ConfigError


@dataclass(frozen=True)
class Module:
    """One tensor-bearing module. shape: [out, in], or [width] of a norm. kind: linear (quantised where anything is),
    router, embedding, head, or norm. bias: it has one, [out].
    """

    path: str
    shape: tuple[int, ...]
    kind: str = "linear"
    bias: bool = False


@dataclass(frozen=True)
class Shape:
    """A decoder's sizes. extra: keys of config.json beside the sizes. experts: of each layer, 0 for a plain MLP.

    padded: (intermediate, max_window_layers) of the publisher's AWQ and GPTQ files, where those are padded.
    """

    family: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    dtype: str
    eps: float
    rope_theta: float
    bos: int | None
    eos: int
    positions: int
    extra: dict[str, Any] = field(default_factory=dict)
    experts: int = 0
    padded: tuple[int, int] | None = None

    def stored_as(self, format: str) -> Shape:
        """The sizes of the publisher's files in this format."""
        if self.padded is None or format not in ("awq", "gptq"):
            return self
        intermediate, windows = self.padded
        return replace(self, intermediate=intermediate, extra={**self.extra, "max_window_layers": windows}, padded=None)

    def reduced(self, *, layers: int | None = None, width: int | None = None, vocab: int | None = None) -> Shape:
        """The same model with fewer layers, another hidden width (heads and MLP in proportion), a smaller table.

        Raises:
            ConfigError: a size is not positive, or the width is no multiple of head_dim.
        """
        for name, value in (("layers", layers), ("width", width), ("vocab", vocab)):
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value}: at least 1 is needed.")
        found = self
        if width:
            if width % self.head_dim:
                raise ConfigError(
                    f"width={width} is no multiple of head_dim {self.head_dim} of this shape.",
                    f"Near it: {max(self.head_dim, width // self.head_dim * self.head_dim)}.",
                )
            heads = width // self.head_dim
            per_kv = self.heads // self.kv_heads
            kv_heads = heads // per_kv if heads >= per_kv and heads % per_kv == 0 else 1
            intermediate = max(128, round(self.intermediate * width / self.hidden / 128) * 128)
            sizes = {"hidden": width, "heads": heads, "kv_heads": kv_heads, "intermediate": intermediate}
            found = replace(found, **sizes, padded=None)
        return replace(found, layers=layers or found.layers, vocab=vocab or found.vocab)

    def config(self, dtype: str | None = None) -> dict[str, Any]:
        """config.json as transformers 4 wrote it (5 reads it too), without quantization_config."""
        name = {"llama": "Llama", "qwen2": "Qwen2", "mixtral": "Mixtral", "qwen3_moe": "Qwen3Moe"}[self.family]
        values = {
            "architectures": [f"{name}ForCausalLM"],
            "attention_dropout": 0.0,
            "bos_token_id": None if self.bos is None else min(self.bos, self.vocab - 1),
            "eos_token_id": min(self.eos, self.vocab - 2),
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": self.positions,
            "model_type": self.family,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "rms_norm_eps": self.eps,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tied,
            "torch_dtype": dtype or self.dtype,
            "use_cache": True,
            "vocab_size": self.vocab,
            **self.extra,
        }
        if "max_window_layers" in values:  # never more than there are layers
            values["max_window_layers"] = min(values["max_window_layers"], self.layers)
        if self.family == "llama" or self.head_dim * self.heads != self.hidden:
            values["head_dim"] = self.head_dim
        return values

    def modules(self) -> Iterator[Module]:
        """Every module in the order publishers store them: table, layers, norm, head."""
        yield Module("model.embed_tokens", (self.vocab, self.hidden), "embedding")
        for layer in range(self.layers):
            yield from self._layer(f"model.layers.{layer}")
        yield Module("model.norm", (self.hidden,), "norm")
        if not self.tied:
            yield Module("lm_head", (self.vocab, self.hidden), "head")

    def _layer(self, path: str) -> Iterator[Module]:
        own, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        bias = self.family == "qwen2"
        yield Module(f"{path}.input_layernorm", (self.hidden,), "norm")
        yield Module(f"{path}.self_attn.q_proj", (own, self.hidden), bias=bias)
        yield Module(f"{path}.self_attn.k_proj", (kv, self.hidden), bias=bias)
        yield Module(f"{path}.self_attn.v_proj", (kv, self.hidden), bias=bias)
        yield Module(f"{path}.self_attn.o_proj", (self.hidden, own))
        if self.family == "qwen3_moe":
            yield Module(f"{path}.self_attn.q_norm", (self.head_dim,), "norm")
            yield Module(f"{path}.self_attn.k_norm", (self.head_dim,), "norm")
        yield Module(f"{path}.post_attention_layernorm", (self.hidden,), "norm")
        up, down = (self.intermediate, self.hidden), (self.hidden, self.intermediate)
        if not self.experts:
            yield Module(f"{path}.mlp.gate_proj", up)
            yield Module(f"{path}.mlp.up_proj", up)
            yield Module(f"{path}.mlp.down_proj", down)
            return
        block = f"{path}.block_sparse_moe" if self.family == "mixtral" else f"{path}.mlp"
        names = ("w1", "w3", "w2") if self.family == "mixtral" else ("gate_proj", "up_proj", "down_proj")
        yield Module(f"{block}.gate", (self.experts, self.hidden), "router")
        for expert in range(self.experts):
            for name, shape in zip(names, (up, up, down), strict=True):
                yield Module(f"{block}.experts.{expert}.{name}", shape)


_LLAMA: dict[str, Any] = {"attention_bias": False, "mlp_bias": False, "pretraining_tp": 1}


def _llama3(factor: float) -> dict[str, Any]:
    scaling = {"factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_type": "llama3"}
    return {**_LLAMA, "rope_scaling": {**scaling, "original_max_position_embeddings": 8192}}


_QWEN = {"use_sliding_window": False}

_LLAMA70B = Shape(
    "llama", 8192, 28672, 80, 64, 8, 128, 128256, False, "bfloat16", 1e-5, 5e5, 128000, 128009, 131072,
    _llama3(8.0),
)  # fmt: skip
_QWEN72B = Shape(
    "qwen2", 8192, 29568, 80, 64, 8, 128, 152064, False, "bfloat16", 1e-6, 1e6, 151643, 151645, 32768,
    {**_QWEN, "max_window_layers": 80, "sliding_window": 131072}, padded=(29696, 70),
)  # fmt: skip
_TINY = replace(_LLAMA70B, hidden=256, intermediate=384, layers=2, heads=4, kv_heads=2, head_dim=64, vocab=512)

SHAPES: dict[str, Shape] = {
    "llama70b": _LLAMA70B,  # Llama-3.3-70B-Instruct
    "qwen72b": _QWEN72B,  # Qwen2.5-72B-Instruct
    "llama8b": replace(_LLAMA70B, hidden=4096, intermediate=14336, layers=32, heads=32),  # Llama-3.1-8B
    "llama1b": replace(
        _LLAMA70B, hidden=2048, intermediate=8192, layers=16, heads=32, head_dim=64, tied=True, eos=128001,
        extra=_llama3(32.0),
    ),  # Llama-3.2-1B
    "qwen05b": replace(
        _QWEN72B, hidden=896, intermediate=4864, layers=24, heads=14, kv_heads=2, head_dim=64, vocab=151936, tied=True,
        eos=151643, extra={**_QWEN, "max_window_layers": 24, "sliding_window": 32768}, padded=None,
    ),  # Qwen2.5-0.5B
    "tiny": _TINY,
    "tiny_qwen": replace(
        _QWEN72B, hidden=256, intermediate=384, layers=2, heads=4, kv_heads=2, head_dim=64, vocab=512, padded=None,
    ),
    "mixtral_tiny": Shape(
        "mixtral", 256, 128, 2, 4, 2, 64, 512, False, "bfloat16", 1e-5, 1e6, 1, 2, 32768,
        {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}, experts=4,
    ),
    "qwen3_moe_tiny": Shape(
        "qwen3_moe", 256, 128, 2, 4, 2, 64, 512, False, "bfloat16", 1e-6, 1e6, None, 1, 40960,
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 128, "norm_topk_prob": True,
         "decoder_sparse_step": 1, "mlp_only_layers": [], "head_dim": 64, "attention_bias": False,
         "use_sliding_window": False, "sliding_window": None}, experts=4,
    ),
}  # fmt: skip
