"""Which files of a checkpoint hold its weights, and what all their headers say together."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pairprobe.checkpoints.headers import Tensor, read_header, shown
from pairprobe.checkpoints.remote import WORKERS, Remote
from pairprobe.errors import CheckpointError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
#: The tokenizer itself; one of these must be there.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
#: Files beside the tokenizer's own that change the tokens it makes.
TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
SIDES = ("config.json", *TOKENIZER_FILES, *TOKENIZER_SETTINGS)
ADAPTER = "adapter_config.json"
#: Endings of weight files, ours and others'.
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
POINTER = b"version https://git-lfs"


def weight_files(folder: Path, name: str) -> tuple[list[Path], dict[str, str] | None, list[str]]:
    """(the folder's weight files, tensor → file where an index says so, what is wrong with them: a line each)."""
    # the single file first, as transformers chooses where a conversion has left both
    if (folder / SINGLE).exists():
        return [folder / SINGLE], None, []
    if (folder / INDEX).exists():
        try:
            placed = weight_map(folder, name)
        except CheckpointError as error:
            return [], None, list(error.problems)
        names = sorted(set(placed.values()))
        missing = [n for n in names if not (folder / n).exists()]
        if missing:
            return [], None, [too_few(name, missing, len(names))]
        return [folder / n for n in names], placed, []
    return [], None, [none_of(name, sorted(f.name for f in folder.iterdir()) if folder.is_dir() else [], str(folder))]


def weight_map(folder: Path, name: str) -> dict[str, str]:
    """The index: tensor → file. Raises CheckpointError where it cannot be read, or names no plain files."""
    try:
        return read_index((folder / INDEX).read_bytes(), name)
    except OSError as error:
        raise CheckpointError(f"{name}: {INDEX} cannot be read ({error.strerror}).") from None


def read_index(raw: bytes, name: str) -> dict[str, str]:
    """See `weight_map`."""
    try:
        found = json.loads(raw)["weight_map"]
        plain: set[str] = set()
        for tensor, file in found.items():
            if isinstance(file, str) and file in plain:
                continue
            # a file elsewhere is none of this checkpoint's
            named = isinstance(file, str) and file.isprintable() and file not in ("", ".", "..")
            if not named or Path(file).name != file or "\\" in file:
                raise ValueError(f"{shown(tensor)} is in {file!r}, which is no file name")
            plain.add(file)
        if not found:
            raise ValueError("weight_map is empty")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{name}: {INDEX} cannot be read ({shown(repr(error))}{_kind(raw)}).") from None
    return dict(found)


def stated_bytes(folder: Path) -> int | None:
    """How large all weights are by the folder's index; None where it does not say."""
    try:
        size = json.loads((folder / INDEX).read_bytes())["metadata"]["total_size"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return size if isinstance(size, int) and size > 0 else None


def too_few(name: str, missing: Sequence[str], count: int) -> str:
    """The line for weight files that an index names and nobody has."""
    listed = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
    return f"{name}: {len(missing)} of {count} weight files are missing: {listed}."


def none_of(name: str, there: Sequence[str], where: str) -> str:
    """The line for a place without weights; `there`: the files it has."""
    pickles = [f for f in there if f.endswith((".bin", ".pt", ".pth"))]
    if pickles:
        return (
            f"{name}: {pickles[0]} is a pickle, which can run any code when opened, and is refused. "
            "Convert it to safetensors first."
        )
    if SINGLE in there or INDEX in there:  # listed, and yet no file
        listed = SINGLE if SINGLE in there else INDEX
        return f"{name}: {listed} in {where} is no file: a link that leads nowhere. Get the whole repository again."
    others = [f for f in there if f.endswith(".safetensors")]
    hint = f" There is {others[0]}: if it holds the whole model, call it {SINGLE}." if len(others) == 1 else ""
    return f"{name}: no weights ({SINGLE}, or {INDEX} with its files) in {where}.{hint}"


def adapted(name: str, where: str) -> CheckpointError:
    """The error for a place whose weights are not all of the model: transformers puts an adapter's upon them."""
    return CheckpointError(
        f"{name}: {where} holds {ADAPTER}: transformers would put that adapter upon the weights; here none is.",
        f"Merge the adapter into the weights first (peft's merge_and_unload); or, for the base model, remove {ADAPTER} "
        "from a copy of the folder.",
    )


def pointers(folder: Path, name: str) -> list[str]:
    """A line for each small file that git-lfs has not replaced by its content yet."""
    found = []
    for side in (*SIDES, INDEX):
        try:
            with (folder / side).open("rb") as stream:
                if stream.read(len(POINTER)) == POINTER:
                    found.append(f"{name}: {side} is a git-lfs pointer, not the file itself: git lfs pull")
        except OSError:
            continue  # not there: said elsewhere, where it matters
    return found


def read_headers(
    files: Sequence[Path | Remote], placed: dict[str, str] | None, name: str
) -> tuple[dict[str, Tensor], bytes]:
    """All tensors by name, and the raw headers in the files' order.

    Args:
        files: Path or Remote of each; remote ones are read several at a time.
        placed: the index's weight_map, where there is one.

    Raises:
        CheckpointError: a damaged header, a tensor in two files, one that is not in the file its index names.
    """
    several = any(isinstance(f, Remote) for f in files)
    if several:
        with ThreadPoolExecutor(max_workers=WORKERS) as pool:
            headers = list(pool.map(lambda file: _header(file, name), files))
    else:
        headers = [_header(file, name) for file in files]
    tensors: dict[str, Tensor] = {}
    for file, (found, _) in zip(files, headers, strict=True):
        twice = sorted(tensors.keys() & found.keys())
        if twice:
            both = f"{tensors[twice[0]].file.name} and {file.name}"
            raise CheckpointError(
                f"{name}: {twice[0]} is stored in two files: {both}.",
                "Files of two versions lie side by side: get the repository again.",
            )
        tensors |= found
    for tensor, file_name in (placed or {}).items():
        if tensor not in tensors:
            raise CheckpointError(
                f"{name}: {shown(tensor)} is in {file_name} by {INDEX}, but not in that file.",
                "Get the repository again.",
            )
        if tensors[tensor].file.name != file_name:
            raise CheckpointError(
                f"{name}: {shown(tensor)} is in {file_name} by {INDEX}, but in {tensors[tensor].file.name}.",
                "Files of two versions lie side by side: get the repository again.",
            )
    if not tensors:
        raise CheckpointError(f"{name}: the weight files hold no tensors.", "Get the repository again.")
    return tensors, b"".join(raw for _, raw in headers)


def _header(file: Path | Remote, name: str) -> tuple[dict[str, Tensor], bytes]:
    """`read_header`, whose errors then say whose file it is."""
    try:
        return read_header(file)
    except CheckpointError as error:
        raise type(error)([f"{name}: {line}" for line in error.problems], error.next_step) from None


def open_all(urls: dict[str, str], opener: Callable[[str, str], Remote | None], name: str) -> list[Remote]:
    """Remote files by name → URL, opened several at a time. Raises CheckpointError where some are missing."""
    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        found = list(pool.map(lambda item: opener(item[1], item[0]), urls.items()))
    missing = [n for n, f in zip(urls, found, strict=True) if f is None]
    if missing:
        raise CheckpointError(too_few(name, missing, len(urls)), "Its repository is incomplete: tell its owner.")
    return [f for f in found if f is not None]


def _kind(raw: bytes) -> Any:
    return ": a git-lfs pointer, git lfs pull" if raw.startswith(POINTER) else ""
