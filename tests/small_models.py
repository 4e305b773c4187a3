"""Small random checkpoints on disk, real in everything but their size: written by transformers itself.

    folder = write("llama", tmp_path / "llama", dtype="bfloat16", shards="40KB")
    tokens = tokens_of(Checkpoint.open(folder))

Decoders are written from their CausalLM class, so stored names carry the task prefix (`model.`,
`transformer.`) that the base model lacks; BERT from BertModel. Llama and Gemma begin each text with BOS,
Qwen2 and GPT-2 with nothing, BERT with [CLS]: as their publishers' tokenizers do.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from pairprobe.checkpoints.checkpoint import Checkpoint
from pairprobe.records import Pair, PairSet, Tokens, Word
from pairprobe.texts import Template
from pairprobe.tokens import tokenise

transformers.utils.logging.disable_progress_bar()

WORDS = ("*kʷel-", "wheel", "環", "轮", "water", "*wódr̥", "a", "*dʰéǵʰōm")
GLOSSED = "The Proto-Indo-European word {word} is old."
CORPUS = [*WORDS, "Proto-Indo-European *kʷel- 環/轮", *(GLOSSED.format(word=word) for word in WORDS)]

LAYERS = 3
# Ten times the usual spread: at 0.02 attention is all but uniform, and a wrong mask would hardly show.
_ROPED = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
_GEMMA = {**_ROPED, "head_dim": 8}
_GEMMA2 = {**_GEMMA, "sliding_window": 4, "query_pre_attn_scalar": 8}  # windows shorter than the texts
_GEMMA3 = {**_GEMMA2, "sliding_window_pattern": 3}
_VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
_GEMMA3_BOTH = {
    "text_config": _GEMMA3,
    "vision_config": {**_VISION, "image_size": 28, "patch_size": 14},
    "mm_tokens_per_image": 4,
}
_DISTIL = {"dim": 32, "hidden_dim": 48, "n_layers": LAYERS, "n_heads": 4, "initializer_range": 0.2}
_GPT2 = {"n_embd": 32, "n_layer": LAYERS, "n_head": 4, "n_positions": 64, "initializer_range": 0.2}
_BERT = {k: v for k, v in _ROPED.items() if k != "num_key_value_heads"}

_WINDOW = {**_ROPED, "sliding_window": 4}  # shorter than the texts
_SOME_WINDOWS = {**_WINDOW, "use_sliding_window": True, "max_window_layers": 1}
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + i / 8 for i in range(4)],
    "long_factor": [2.0 + i for i in range(4)],
    "original_max_position_embeddings": 16,  # between the lengths of the texts
}
_LONG = {**_ROPED, "rope_parameters": _LONGROPE, "original_max_position_embeddings": 16}
_HEADS = {**_ROPED, "head_dim": 8}
_EXPERTS = {**_ROPED, "num_experts_per_tok": 2, "num_local_experts": 4}
_QWEN3_EXPERTS = {**_HEADS, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_SHIFTED = {**_BERT, "max_position_embeddings": 66, "pad_token_id": 1}  # positions are counted from the padding's id
_FALCON = {"hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "initializer_range": 0.2}
_MAMBA = {"hidden_size": 32, "num_hidden_layers": LAYERS, "state_size": 4}

#: kind → (config class, model class, sizes, token that begins each text)
KINDS: dict[str, tuple[str, str, dict[str, Any], str | None]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", _ROPED, "<bos>"),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", _ROPED, None),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", _GEMMA, "<bos>"),
    "gemma3_text": ("Gemma3TextConfig", "Gemma3ForCausalLM", _GEMMA3, "<bos>"),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", _GEMMA2, "<bos>"),  # knows no sdpa attention
    "gemma3": ("Gemma3Config", "Gemma3ForConditionalGeneration", _GEMMA3_BOTH, "<bos>"),  # with a vision tower
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", _GPT2, None),
    "bert": ("BertConfig", "BertModel", _BERT, "[CLS]"),
    "distilbert": ("DistilBertConfig", "DistilBertModel", _DISTIL, "[CLS]"),  # config.json says n_layers
    "qwen2_windows": ("Qwen2Config", "Qwen2ForCausalLM", _SOME_WINDOWS, None),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", _HEADS, None),
    "mistral": ("MistralConfig", "MistralForCausalLM", _WINDOW, "<bos>"),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", _ROPED, "<bos>"),
    "phi3_long": ("Phi3Config", "Phi3ForCausalLM", _LONG, "<bos>"),
    "gpt_neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", _BERT, None),
    "olmo2": ("Olmo2Config", "Olmo2ForCausalLM", _ROPED, None),
    "stablelm": ("StableLmConfig", "StableLmForCausalLM", _ROPED, None),
    "falcon": ("FalconConfig", "FalconForCausalLM", _FALCON, None),  # its layers return tuples
    "mamba": ("MambaConfig", "MambaForCausalLM", _MAMBA, None),  # multiplies with a Linear's weight itself
    "mixtral": ("MixtralConfig", "MixtralForCausalLM", _EXPERTS, "<bos>"),
    "qwen3_moe": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM", _QWEN3_EXPERTS, None),
    "roberta": ("RobertaConfig", "RobertaModel", _SHIFTED, "[CLS]"),
    "xlm_roberta": ("XLMRobertaConfig", "XLMRobertaForMaskedLM", _SHIFTED, "[CLS]"),  # stores no pooler
    "deberta": ("DebertaV2Config", "DebertaV2Model", _BERT, "[CLS]"),  # its layers return pairs
    "albert": ("AlbertConfig", "AlbertModel", _BERT, "[CLS]"),  # one layer, used several times
    "xlnet": ("XLNetConfig", "XLNetModel", {"d_model": 32, "n_layer": 3, "n_head": 4, "d_inner": 48}, "[CLS]"),
}


def write(
    kind: str,
    folder: Path,
    *,
    dtype: str = "float32",
    shards: str = "5GB",
    plant: tuple[int, float] | None = None,
    without: str | None = None,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write a checkpoint of `kind` (a key of KINDS) into `folder` and return the folder.

    Args:
        dtype: float32 | bfloat16 | float16, to store the weights in.
        shards: largest size of a weight file; a small one ("40KB") gives several and an index.
        plant: (layer, value): put the value into one weight of that layer's last matrix, so that the state
            after the layer shows it in every token.
        without: leave out the tensors whose stored name contains this.
        seed: of the random weights, norms and biases included.
        config: values of the config that replace the small ones.
    """
    config_class, model_class, sizes, first = KINDS[kind]
    tokenizer = _wordpiece() if first == "[CLS]" else _bytes(first)
    values: dict[str, Any] = {f"{name}_token_id": None for name in ("bos", "eos", "pad")}
    values |= {**sizes, "vocab_size": len(tokenizer), **config}
    if "text_config" in values:
        values["text_config"] = {**values["text_config"], "vocab_size": values.pop("vocab_size")}
    chosen = getattr(transformers, config_class)(**values)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, model_class)(chosen)
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases begin as ones and zeros, which hide mistakes
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        if plant:
            layers = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
            [p for p in layers[plant[0]].parameters() if p.ndim == 2][-1].view(-1)[0] = plant[1]
    state = {n: t for n, t in model.to(getattr(torch, dtype)).state_dict().items() if not without or without not in n}
    model.save_pretrained(folder, state_dict=state, max_shard_size=shards)
    tokenizer.save_pretrained(folder)
    return folder


def edit_config(folder: Path, **values: Any) -> Path:
    """Set keys of config.json, or remove those given as None; returns the folder."""
    file = folder / "config.json"
    config = {**json.loads(file.read_text(encoding="utf-8")), **values}
    file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}), encoding="utf-8")
    return folder


def tokens_of(checkpoint: Checkpoint, words: tuple[str, ...] = WORDS, pattern: str = GLOSSED) -> Tokens:
    """`words` set into `pattern` and tokenised by the checkpoint's own tokenizer, one text per word, in order."""
    pairs = tuple(
        Pair(str(i), "cognate", Word(a), Word(b)) for i, (a, b) in enumerate(zip(words[::2], words[1::2], strict=True))
    )
    texts = Template(pattern=pattern).write(PairSet("small", pairs, "tests"))
    return tokenise(checkpoint.tokenizer(), texts)


def _bytes(first: str | None) -> PreTrainedTokenizerFast:
    """Byte-level BPE: knows every string, gives several pieces for most words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", *([first] if first else [])]
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if first:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{first} $A", special_tokens=[(first, special.index(first))]
        )
    named = {"bos_token": first} if first else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", **named)


def _wordpiece() -> PreTrainedTokenizerFast:
    """WordPiece that knows some words whole, most in pieces, and neither 環 nor 轮: these become [UNK].

    Its vocabulary is written down, because the library's WordPiece trainer gives another one every time.
    """
    letters = sorted(set("".join(CORPUS).lower()) - set("環轮 "))
    whole = ["the", "proto", "indo", "european", "word", "is", "old", "wh", "##eel", "wat"]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *whole, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
