"""A checkpoint of a published model's exact layout with random weights: real in everything but its knowledge.

    python -m bench.make_checkpoint /tmp/llama70b --shape llama70b --format int8
    python -m bench.make_checkpoint /tmp/small --shape qwen72b --format awq --layers 4 --vocab 4096

Config, names, dtypes, shapes, shards and index are the publisher's; numbers have a realistic spread. Written tensor
by tensor, never more than a few MiB of one in memory: random numbers are drawn once, a page of a few million for
each kind, and each piece of a tensor begins at another place of the page.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import struct
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.encode import FORMATS
from bench.layouts import Part, dense_dtype, parts, quantisation
from bench.shapes import SHAPES, Shape
from pairprobe.errors import ConfigError, PairprobeError

PAGE = 1 << 22  # numbers in a page, at most
PIECES = 2  # a piece, written at a time from a random place, is the page's PIECES-th part
SMALLEST_VOCAB = 300  # every byte, a few pieces, special tokens
ALPHABET_WORDS = ("The Proto-Indo-European word is old.", "*kʷel- 環 wheel water *wódr̥ *dʰéǵʰōm")
SIDE = 1 << 20  # bytes left for config, tokenizer and headers


class Pages:
    """Random numbers as a file holds them; one page for each kind and spread, made when it is first asked for.

    size: numbers in a page.
    """

    def __init__(self, seed: int, size: int = PAGE) -> None:
        self.seed = seed
        self.size = size
        self._pages: dict[tuple[str, str, float, float], npt.NDArray[Any]] = {}
        self._standard: npt.NDArray[np.float32] | None = None

    def page(self, dtype: str, kind: str, mean: float, by: float) -> npt.NDArray[Any]:
        """`size` numbers of this kind (`layouts.Part`), little-endian, in unsigned integers of the dtype's size."""
        key = (dtype, kind, mean, by)
        if key not in self._pages:
            self._pages[key] = self._made(dtype, kind, mean, by)
        return self._pages[key]

    def _made(self, dtype: str, kind: str, mean: float, by: float) -> npt.NDArray[Any]:
        import torch

        random = np.random.default_rng([self.seed, zlib.crc32(kind.encode())])
        if kind == "bytes":
            return random.integers(0, 256, self.size, np.uint8)
        if kind == "int8":
            return random.integers(-127, 128, self.size, np.int8).view(np.uint8)
        if kind == "zeros4":
            high, low = random.integers(6, 10, (2, self.size), np.uint8)
            return np.asarray(high * 16 + low, np.uint8)
        if kind == "ones4":
            return np.full(self.size, 0x77, np.uint8)
        if kind == "uniform":  # the same numbers for every mean, so that MLX's scales and biases agree
            values = mean + by * random.uniform(-1, 1, self.size).astype(np.float32)
        else:
            if self._standard is None:
                self._standard = np.random.default_rng([self.seed, 1]).standard_normal(self.size, np.float32)
            values = mean + by * self._standard
        found = torch.from_numpy(values)
        if dtype == "F8_E4M3":
            eighths: npt.NDArray[Any] = found.clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
            return eighths
        if dtype == "F32":
            return values.view(np.uint32)
        chosen = torch.bfloat16 if dtype == "BF16" else torch.float16
        halves: npt.NDArray[Any] = found.to(chosen).view(torch.int16).numpy().view(np.uint16)
        return halves

    def pieces(self, part: Part) -> Iterator[memoryview]:
        """The bytes of one tensor, in pieces."""
        if isinstance(part.fill, np.ndarray):
            yield memoryview(np.ascontiguousarray(part.fill).tobytes())
            return
        page = self.page(part.dtype, *part.fill)
        random = np.random.default_rng([self.seed, zlib.crc32(part.key.encode())])
        left = part.nbytes // page.itemsize
        while left:
            piece = min(left, self.size // PIECES)
            start = int(random.integers(0, self.size - piece + 1))
            yield memoryview(page[start : start + piece].data).cast("B")
            left -= piece


def make(
    folder: Path,
    shape: Shape,
    format: str,
    *,
    group: int | None = None,
    shards: int = 5 * 10**9,
    seed: int = 0,
    quiet: bool = True,
    holes: Sequence[str] = (),
) -> Path:
    """Write a whole checkpoint into `folder`, which must be empty or absent; returns the folder.

    Args:
        format: a key of FORMATS. group: columns that share a scale; None for the format's usual number.
        shards: largest size of a weight file in bytes; a tensor that is larger has a file of its own.
        holes: a tensor whose name contains one of these is not written: it reads as zeros and takes no room.

    Raises:
        ConfigError: an unknown format, a matrix that does not fit it, a folder in use, a disk too small. Nothing has
            been written then.
    """
    if shape.vocab < SMALLEST_VOCAB:
        raise ConfigError(f"vocab={shape.vocab}: at least {SMALLEST_VOCAB} are needed, for every byte and some pieces.")
    shape = shape.stored_as(format)
    everything = list(parts(shape, format, group))
    files = _shards(everything, shards)
    total = sum(part.nbytes for part in everything)
    _room(folder, sum(part.nbytes for part in everything if not _left_out(part, holes)))
    _tokenizer(folder, shape)
    dtype = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[dense_dtype(shape, format)]
    config = shape.config(dtype) | quantisation(format, group)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    largest = max(part.nbytes for part in everything)
    pages = Pages(seed, min(PAGE, 1 << (PIECES * largest).bit_length()))
    placed: dict[str, str] = {}
    started, written = time.perf_counter(), 0
    for n, own in enumerate(files, 1):
        name = f"model-{n:05d}-of-{len(files):05d}.safetensors" if len(files) > 1 else "model.safetensors"
        write_safetensors(folder / name, own, pages, holes)
        placed |= {part.name: name for part in own}
        written += sum(part.nbytes for part in own)
        if not quiet:
            rate = written / 1e6 / (time.perf_counter() - started)
            print(f"{name}  {written / 1e9:.1f} of {total / 1e9:.1f} GB, {rate:.0f} MB/s", flush=True)
    if len(files) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(placed.items()))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return folder


def write_safetensors(file: Path, own: Sequence[Part], pages: Pages, holes: Sequence[str] = ()) -> None:
    """Write one file: 8 bytes of header length, a JSON header padded to 8 bytes, the tensors end to end.

    holes: as `make` has them.
    """
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for part in own:
        entries[part.name] = {
            "dtype": part.dtype,
            "shape": list(part.shape),
            "data_offsets": [begin, begin + part.nbytes],
        }
        begin += part.nbytes
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with file.open("wb", buffering=0) as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        for part in own:
            if _left_out(part, holes):
                stream.seek(part.nbytes, os.SEEK_CUR)
                continue
            for piece in pages.pieces(part):
                done = 0
                while done < len(piece):  # an unbuffered write may take less than it is given
                    done += stream.write(piece[done:])
        stream.truncate(8 + len(header) + begin)  # the last may be a hole


def _left_out(part: Part, holes: Sequence[str]) -> bool:
    return any(name in part.name for name in holes)


def _shards(everything: Sequence[Part], largest: int) -> list[list[Part]]:
    if largest < 1:
        raise ConfigError(f"shards={largest}: at least 1 byte is needed.")
    files: list[list[Part]] = [[]]
    size = 0
    for part in everything:
        if files[-1] and size + part.nbytes > largest:
            files.append([])
            size = 0
        files[-1].append(part)
        size += part.nbytes
    return [_aligned(own) for own in files]


def _aligned(own: list[Part]) -> list[Part]:
    """Parts with an odd number of bytes go last, so that all others begin at multiples of 8."""
    return sorted(own, key=lambda part: part.nbytes % 8 != 0)


def _room(folder: Path, total: int) -> None:
    """Make the folder, or raise: it holds something already, or the disk has not the room."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is in use.", "Name a folder that is empty or not there yet.")
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if free < total + SIDE:
        raise ConfigError(
            f"{folder}: {total / 1e9:.1f} GB are to be written, but only {free / 1e9:.1f} GB are free there.",
            "Fewer layers (--layers), a narrower model (--width), or another disk.",
        )
    folder.mkdir(parents=True, exist_ok=True)


# ── tokenizer ────────────────────────────────────────────────────────────────────────────────────────────


def _tokenizer(folder: Path, shape: Shape) -> None:
    """A byte-level BPE that knows every string, its ids spread over the whole table; BOS where the family has it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=290, special_tokens=["<pad>", "<bos>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(ALPHABET_WORDS, trainer)
    written = json.loads(tokenizer.to_str())
    known: dict[str, int] = written["model"]["vocab"]
    step = (shape.vocab - 1) // len(known)
    ids = {piece: n * step for piece, n in known.items()}
    first = bos_of(shape)
    if first is not None:
        if first in ids.values():  # no two pieces share an id
            ids = {piece: n + (n >= first) for piece, n in ids.items()}
        ids["<bos>"] = first
        written["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                {"SpecialToken": {"id": "<bos>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [first], "tokens": ["<bos>"]}},
        }
    written["model"]["vocab"] = ids
    for added in written["added_tokens"]:
        added["id"] = ids[added["content"]]
    (folder / "tokenizer.json").write_text(json.dumps(written, ensure_ascii=False), encoding="utf-8")
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}
    settings |= {"clean_up_tokenization_spaces": False, "model_max_length": shape.positions}
    if first is not None:
        settings["bos_token"] = "<bos>"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def bos_of(shape: Shape) -> int | None:
    """Id of the token that begins each text, None where the family begins with nothing (Qwen)."""
    if shape.family.startswith("qwen") or shape.bos is None:
        return None
    return shape.bos if shape.bos < shape.vocab else shape.vocab - 1


# ── command ──────────────────────────────────────────────────────────────────────────────────────────────


def nbytes(words: str) -> int:
    """'5GB', '40KB', '1GiB' or a plain number, in bytes."""
    found = re.fullmatch(r"\s*([\d.]+)\s*([KMGT]?)(i?)B?\s*", words, re.IGNORECASE)
    try:
        if found is None:
            raise ValueError
        base = 1024 if found[3] else 1000
        size = float(found[1]) * float(base ** " KMGT".index(found[2].upper() or " "))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{words!r} is no size, as 5GB or 40KB are") from None
    return math.floor(size)


def main(words: Sequence[str]) -> int:
    """Exit code: 0 written, 2 what was asked for cannot be written."""
    listed = "\n".join(f"  {name:10}{said}" for name, (_, said) in FORMATS.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench.make_checkpoint",
        description=__doc__,
        epilog=f"formats:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="to be written; empty or not there yet")
    parser.add_argument("--shape", required=True, choices=SHAPES, metavar="SHAPE", help=", ".join(SHAPES))
    parser.add_argument("--format", required=True, choices=FORMATS, metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument("--layers", type=int, help="fewer layers than the published model has")
    parser.add_argument("--width", type=int, help="hidden width; heads and MLP follow in proportion")
    parser.add_argument("--vocab", type=int, help="rows of the embedding table")
    parser.add_argument("--group", type=int, help="columns that share a scale")
    parser.add_argument("--shards", type=nbytes, default=5 * 10**9, metavar="SIZE", help="of a weight file (5GB)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(words)
    try:
        shape = SHAPES[args.shape].reduced(layers=args.layers, width=args.width, vocab=args.vocab)
        make(args.folder, shape, args.format, group=args.group, shards=args.shards, seed=args.seed, quiet=False)
    except PairprobeError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
