"""What a checkpoint without a commit is: a hash over what could change a number."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pairprobe.checkpoints.files import SIDES

if TYPE_CHECKING:
    from pairprobe.checkpoints.checkpoint import Checkpoint

HASHED_WHOLE = 2 * 2**30  # bytes; above this a content hash takes samples


def of(checkpoint: Checkpoint) -> str:
    """A content hash, with what it covers in front.

    `sha256:` covers config, tokenizer and every byte of the weights; `sampled:` (checkpoints over 2 GiB) covers
    config, tokenizer, headers and 256 blocks of 64 KiB spread over each file; `tagged:` (behind a URL) covers config,
    tokenizer, headers, and each file's size and the server's tag for it.
    """
    whole = checkpoint.nbytes <= HASHED_WHOLE
    digest = hashlib.sha256()
    for side in SIDES:
        digest.update(side.encode())
        if (checkpoint.folder / side).exists():
            digest.update((checkpoint.folder / side).read_bytes())
    for remote in checkpoint.remotes:
        digest.update(f"{remote.name} {remote.size} {remote.sha256 or remote.etag}\n".encode())
    for file in [] if checkpoint.remote else sorted({t.file for t in checkpoint.tensors.values()}):
        if whole:
            digest.update(bytes.fromhex(file_sha256(file)))
        else:
            size = file.stat().st_size
            with file.open("rb") as stream:
                for start in np.linspace(0, max(0, size - 65536), 256, dtype=np.int64):
                    stream.seek(int(start))
                    digest.update(stream.read(65536))
    digest.update(checkpoint.headers)
    kind = "tagged" if checkpoint.remote else "sha256" if whole else "sampled"
    return f"{kind}:{digest.hexdigest()}"


def file_sha256(file: Path) -> str:
    """sha256 of a file, hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
