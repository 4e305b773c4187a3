"""What a checkpoint without a commit is: a hash over what could change a number."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pairprobe.checkpoints.files import SIDES
from pairprobe.errors import CheckpointError

if TYPE_CHECKING:
    from pairprobe.checkpoints.checkpoint import Checkpoint

HASHED_WHOLE = 2 * 2**30  # bytes; above this a content hash takes samples
#: Seconds after which a further change of a file shows in its times, however coarse the file system's clock is.
SETTLED = 2.0


def of(checkpoint: Checkpoint) -> str:
    """A content hash, with what it covers in front.

    `sha256:` covers config, tokenizer and every byte of the weights; `sampled:` (checkpoints over 2 GiB) covers
    config, tokenizer, headers and 256 blocks of 64 KiB spread over each file; `tagged:` (behind a URL) covers config,
    tokenizer, headers, and each file's size and the server's tag for it.
    """
    whole = hashed_whole(checkpoint)
    digest = hashlib.sha256()
    for side in SIDES:
        digest.update(side.encode())
        if (checkpoint.folder / side).exists():
            digest.update((checkpoint.folder / side).read_bytes())
    for remote in checkpoint.remotes:
        digest.update(f"{remote.name} {remote.size} {remote.sha256 or remote.etag}\n".encode())
    for file in [] if checkpoint.remote else sorted({t.file for t in checkpoint.tensors.values()}):
        if whole:
            digest.update(bytes.fromhex(file_sha256(file, checkpoint.hashes)))
        else:
            size = file.stat().st_size
            with file.open("rb") as stream:
                for start in np.linspace(0, max(0, size - 65536), 256, dtype=np.int64):
                    stream.seek(int(start))
                    digest.update(stream.read(65536))
    digest.update(checkpoint.headers)
    kind = "tagged" if checkpoint.remote else "sha256" if whole else "sampled"
    return f"{kind}:{digest.hexdigest()}"


def code(folder: Path, config: Mapping[str, Any]) -> str | None:
    """Hash of all Python in the folder and those below it; None where the config has code of another repository run
    (`owner/name--module.Class`), of which the folder says nothing."""
    if _another(config):
        return None
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.rglob("*.py") if file.is_file()):
        digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()


def _another(config: Any, mapped: bool = False) -> bool:
    """Whether an `auto_map`, the config's or of a part of it, names a class of another repository."""
    if isinstance(config, Mapping):
        return any(_another(value, mapped or key == "auto_map") for key, value in config.items())
    if isinstance(config, list | tuple):
        return any(_another(value, mapped) for value in config)
    return mapped and "--" in str(config)


def hashed_whole(checkpoint: Checkpoint) -> bool:
    """Whether every byte of the weights is in its identity: no commit stands for them, and no sample."""
    return not checkpoint.revision and not checkpoint.remote and checkpoint.nbytes <= HASHED_WHOLE


def hashed_bytes(checkpoint: Checkpoint) -> int:
    """How much `check` reads."""
    files = {t.file for t in checkpoint.tensors.values()}
    return 0 if checkpoint.remote or len(files) > 1 else files.pop().stat().st_size


def check(checkpoint: Checkpoint, expected: str) -> None:
    """Raise CheckpointError unless the checkpoint's one weight file hashes to `expected`."""
    files, name = sorted({t.file for t in checkpoint.tensors.values()}), checkpoint.name
    if len(files) > 1:
        raise CheckpointError(
            f"{name}: model.sha256 is of one file, and these weights are {len(files)} files ({files[0].name}, …).",
            "Set model.sha256=null; model.revision=COMMIT fixes all files of a hub repository.",
        )
    # the hub states it; what no server states cannot be known without every byte
    actual = checkpoint.remotes[0].sha256 if checkpoint.remote else _hashed(files[0], checkpoint.hashes)
    if actual is None:
        raise CheckpointError(
            f"{name}: the sha256 of {files[0].name} is unknown, since it lies behind a URL and its server does not "
            "state it: model.sha256 cannot be checked.",
            "Set model.sha256=null to use it all the same, or download it: model.source=/models/…",
        )
    if actual != expected:
        raise CheckpointError(
            f"{name}: {files[0].name} has sha256 {actual}, but model.sha256 is {expected}.",
            f"These are not the weights that {name} is the name of: get them again. Weights of your own: "
            "model=local model.source=FOLDER, which calls runs after the folder.",
        )


def file_sha256(file: Path, hashes: Path | None = None) -> str:
    """sha256 of a file, hexadecimal; as it is noted in the folder `hashes`, where the file has not changed since."""
    if hashes:
        with contextlib.suppress(OSError, ValueError):
            noted = (hashes / _state(file)).read_text(encoding="ascii")
            if re.fullmatch("[0-9a-f]{64}", noted):
                return noted
    return _hashed(file, hashes)


def _hashed(file: Path, hashes: Path | None) -> str:
    """sha256 of a file, every byte of which is read; noted in the folder `hashes` under the state the file was in."""
    state, began = _state(file), time.time()
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    # a file that changed just now may change again without another time of change
    if hashes and _state(file) == state and began - file.stat().st_ctime > SETTLED:
        with contextlib.suppress(OSError):  # a disk that is full or read-only: it is read again
            hashes.mkdir(parents=True, exist_ok=True)
            made = hashes / f".{state}.{os.getpid()}"
            made.write_text(sha256, encoding="ascii")
            made.replace(hashes / state)
    return sha256


def _state(file: Path) -> str:
    """Name for a file as it is now: whatever writes to it changes its ctime, which no program can set back."""
    stat = file.stat()
    state = [str(file.resolve()), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()
