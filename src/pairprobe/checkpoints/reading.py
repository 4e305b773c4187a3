"""Bytes of stored tensors → torch tensors, whole or single rows. Streamed execution reads for itself."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pairprobe.checkpoints.headers import Tensor
from pairprobe.errors import CheckpointError
from pairprobe.rooms import dtype_name

if TYPE_CHECKING:
    import torch


def whole(tensor: Tensor) -> torch.Tensor:
    """The tensor as stored."""
    import torch

    data = np.frombuffer(read(tensor, [(0, tensor.nbytes)])[0], dtype=np.uint8).copy()
    return torch.from_numpy(data).view(getattr(torch, dtype_name(tensor.dtype))).reshape(tensor.shape)


def rows(tensor: Tensor, ids: Sequence[int]) -> torch.Tensor:
    """The chosen rows (first dimension) in the order of `ids`, as stored; only they are read."""
    import torch

    size = tensor.nbytes // max(1, tensor.shape[0])
    data = np.frombuffer(b"".join(read(tensor, [(i * size, size) for i in ids])), dtype=np.uint8).copy()
    shape = (len(ids), *tensor.shape[1:])
    if math.prod(shape) == 0:
        return torch.empty(shape, dtype=getattr(torch, dtype_name(tensor.dtype)))
    return torch.from_numpy(data).view(getattr(torch, dtype_name(tensor.dtype))).reshape(shape)


def read(tensor: Tensor, places: Sequence[tuple[int, int]]) -> list[bytes]:
    """(offset in the tensor, bytes) → the bytes of each place; of a remote file nothing else is fetched.

    Raises:
        CheckpointError: the file ends early, is gone, or cannot be reached.
    """
    if tensor.remote is not None:
        return tensor.remote.read([(tensor.start + offset, size) for offset, size in places])
    found = []
    try:
        with tensor.file.open("rb") as stream:
            for offset, size in places:
                data = _pread(stream.fileno(), size, tensor.start + offset)
                if len(data) != size:
                    raise CheckpointError(f"{tensor.file.name}: ends early.", "Download this file again.")
                found.append(data)
    except OSError as error:
        raise CheckpointError(f"{tensor.file.name}: cannot be read ({error.strerror}).") from None
    return found


def _pread(descriptor: int, size: int, offset: int) -> bytes:
    """`size` bytes, or what there is: one call of the system's gives 2 GiB at most."""
    data = os.pread(descriptor, size, offset)
    if not data or len(data) == size:
        return data
    pieces = [data]
    while data and sum(map(len, pieces)) < size:
        data = os.pread(descriptor, size - sum(map(len, pieces)), offset + sum(map(len, pieces)))
        pieces.append(data)
    return b"".join(pieces)
