"""What the cases measure on: a random Llama that transformers writes, the installed MiniLM, and gloss texts."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from pairprobe.config import conf
from pairprobe.pairs.pie_oc import PieOc
from pairprobe.records import Texts

#: Where the checkpoint is written; `python -m bench` makes a temporary folder when it is not set.
FOLDER = "PAIRPROBE_BENCH"
#: 121 M parameters, 242 MB in bf16. The head is tied to the embedding, as in Llamas of this size, so that the
#: side that loads it has nothing more to read.
LLAMA: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 1536,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 32_000,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": None,
}
PIECES = (
    700  # the tokenizer's vocabulary: the texts become 11 to 18 tokens each, somewhat fewer than in published models
)


def gloss_texts(copies: int = 1) -> Texts:
    """The texts of pie_oc under template=gloss; each further copy has a number after every word.

    28 words, of which two occur twice with the same gloss: 26 distinct texts a copy. Both sides get these, though
    only pairprobe would find the repetitions by itself.
    """
    pairs = PieOc(reference=False).read()
    several = [
        replace(p, a=replace(p.a, form=f"{p.a.form}{n or ''}"), b=replace(p.b, form=f"{p.b.form}{n or ''}"))
        for n in range(copies)
        for p in pairs.pairs
    ]
    texts: Texts = _configured("template/gloss").write(replace(pairs, pairs=tuple(several)))
    return texts


def minilm() -> Path:
    """The folder of model=minilm in its installed package."""
    return Path(_configured("model/minilm").locate().folder)


def llama() -> Path:
    """The folder of the random checkpoint; see `write_llama`."""
    recipe = hashlib.sha256(json.dumps([LLAMA, PIECES]).encode()).hexdigest()
    return Path(os.environ[FOLDER]) / f"llama-{recipe[:8]}"


def write_llama() -> None:
    """Write the checkpoint unless it is there, and read it once, so that no side meets a cold file."""
    folder = llama()
    if not folder.exists():
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
        LlamaForCausalLM(LlamaConfig(**LLAMA)).to(torch.bfloat16).save_pretrained(unfinished)
        tokenizer().save_pretrained(unfinished)
        try:
            unfinished.rename(folder)
        except OSError:  # another run was faster
            shutil.rmtree(unfinished)
    warm(folder)


def warm(folder: Path) -> None:
    """Read every file once: afterwards it lies in the page cache."""
    for file in filter(Path.is_file, folder.iterdir()):
        with file.open("rb") as stream:
            while stream.read(2**24):
                pass


def own(name: str) -> Path:
    """A folder for what another tool must write before it can run."""
    place = Path(os.environ[FOLDER]) / name
    place.mkdir(parents=True, exist_ok=True)
    return place


def _configured(which: str) -> Any:
    from hydra.utils import instantiate

    return instantiate(OmegaConf.load(conf() / f"{which}.yaml"))


def tokenizer() -> Any:
    """Byte-level BPE of the gloss texts themselves, BOS first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES,
        special_tokens=["<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([t.text for t in gloss_texts().texts], trainer)
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", pad_token="<s>")
