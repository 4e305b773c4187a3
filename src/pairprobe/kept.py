"""Vectors of finished layers, kept on disk by what they are made of, so that nothing is read or computed twice.

    ROOT/KEY/SET/texts.json        the texts' own keys (token ids and pooling weights), in order; where their norms are
    ROOT/KEY/SET/depth-007.npy     float32 [texts, width]: their vectors at that depth; then float32 [tokens]: the
                                   lengths of all their tokens' states there
    ROOT/KEY/SET/state-007         all tokens' states there, from which an interrupted run goes on; one at a time

    ROOT/KEY/SET/.NAME.HOST.PID    a file in the making, locked by its process

    ROOT/KEY/about.json            what KEY is the hash of
    ROOT/hashes/                   sha256 of weight files, see `identity.file_sha256`

KEY is a hash over everything that could change a vector: see `key`. Files appear whole or not at all, and end with a
checksum of what is before it: a disk's mistake never becomes a result.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from pairprobe.locks import HOST, locked

FloatArray = npt.NDArray[np.float32]
#: States are written when this much longer has passed than writing them takes.
WORTH = 20
#: Seconds after which a file in the making is nobody's, where no lock can tell.
FORGOTTEN = 7 * 24 * 3600


def key(about: Mapping[str, Any]) -> str:
    """Hexadecimal hash of everything named in `about`; equal only for equal content."""
    return hashlib.sha256(json.dumps(about, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


@functools.cache
def source_hash() -> str:
    """Of pairprobe's own code that makes vectors: a changed line makes everything anew."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for folder in ("checkpoints", "executions", "methods"):
        for file in [package / "rooms.py", *sorted((package / folder).rglob("*.py"))]:
            digest.update(file.relative_to(package).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Kept:
    """What is kept under `root`. limit: bytes; what was used longest ago goes first when there is more. used: the sets
    that were written to or read from through this object."""

    root: Path
    limit: int = 20 * 10**9
    used: set[Path] = field(default_factory=set, compare=False, repr=False)

    def shelf(self, about: Mapping[str, Any]) -> Shelf:
        """The place of all vectors made in the way `about` says."""
        whole = {**about, "code": source_hash()}
        return Shelf(self, self.root / key(whole)[:32], whole)

    @property
    def hashes(self) -> Path:
        """Where hashes of weight files are noted."""
        return self.root / "hashes"

    def may_have(self, files: Sequence[Sequence[Any]]) -> bool:
        """Whether anything may be kept of these weight files, `files` as `Checkpoint.files` has them. Their content is
        not asked for: where this is False, hashing them would be for nothing."""
        for folder in {found.parent for found in self.root.glob("*/*/")}:
            try:
                if json.loads((folder / "about.json").read_text())["files"] == files:
                    return True
            except (OSError, ValueError, TypeError, KeyError):  # damaged or in the making: it may be of them
                return True
        return False

    def clear(self) -> None:
        """Remove files in the making that nobody makes any more: their process ended on this machine, or they did not
        change for a week."""
        for file in self.root.glob("*/*/.*"):
            with contextlib.suppress(OSError):  # finished or removed meanwhile, or not ours to remove
                if not _left_over(file):
                    continue
                used = file.parent.stat()
                file.unlink()
                os.utime(file.parent, ns=(used.st_atime_ns, used.st_mtime_ns))  # clearing is no use of the set

    def tidy(self, spare: Path) -> None:
        """Remove sets until no more than `limit` bytes are left; `spare` stays."""
        sets = []
        for folder in self.root.glob("*/*/"):
            with contextlib.suppress(OSError):
                size = sum(f.stat().st_size for f in folder.iterdir())
                sets.append((folder.stat().st_mtime, size, folder))
        total = sum(size for _, size, _ in sets)
        for _, size, folder in sorted(sets):
            if total <= self.limit:
                return
            if folder != spare:
                shutil.rmtree(folder, ignore_errors=True)
                total -= size


@dataclass(frozen=True)
class Shelf:
    """Vectors that were all made in one way."""

    kept: Kept
    folder: Path
    about: dict[str, Any]

    def find(
        self, texts: Sequence[str], depths: Sequence[int], lengths: Sequence[int] | None = None
    ) -> dict[int, tuple[FloatArray, FloatArray]]:
        """Index of a text → its vectors [depths, width] and its tokens' norms [depths, tokens], for the texts that are
        there at every depth. lengths: tokens of each text, where those without norms do not serve."""
        missing = _places(texts)
        found: dict[int, tuple[FloatArray, FloatArray]] = {}
        for folder, slices, wanted in self._sets(missing, depths, lengths):
            try:
                rows = [n for _, n in wanted]
                parts = [_load(folder / f"depth-{d:03d}.npy", len(slices), _end(slices)) for d in depths]
                values = np.stack([vectors[rows] for vectors, _ in parts], axis=1)
                norms = np.stack([of for _, of in parts])
                for (text, n), vectors in zip(wanted, values, strict=True):
                    found |= dict.fromkeys(missing.pop(text), (vectors, norms[:, slice(*slices[n])]))
                os.utime(folder)
                self.kept.used.add(folder)
            except (OSError, ValueError):  # removed or damaged meanwhile: made anew
                continue
        return found

    def listed(self, texts: Sequence[str], depths: Sequence[int], lengths: Sequence[int] | None = None) -> set[int]:
        """Indices of the texts that `find` will find, unless their files are damaged: none is read."""
        missing = _places(texts)
        found: set[int] = set()
        for _, _, wanted in self._sets(missing, depths, lengths):
            for text, _ in wanted:
                found.update(missing.pop(text))
        return found

    def _sets(
        self, missing: Mapping[str, list[int]], depths: Sequence[int], lengths: Sequence[int] | None
    ) -> Iterator[tuple[Path, list[tuple[int, int]], list[tuple[str, int]]]]:
        """Each set that has some of what is `missing` by then: its folder, where each text's norms are, and those texts
        with their places in it."""
        for folder in sorted(self.folder.glob("*/")):
            try:
                listed = json.loads((folder / "texts.json").read_text())
                slices = [(int(start), int(stop)) for start, stop in listed["norms"]]
                there = dict(zip(listed["texts"], range(len(slices)), strict=True))
                wanted = [
                    (t, there[t])
                    for t, of in missing.items()
                    if t in there and (lengths is None or np.diff(slices[there[t]])[0] == lengths[of[0]])
                ]
            except (OSError, ValueError, TypeError, KeyError):  # removed or damaged meanwhile
                continue
            if wanted and all((folder / f"depth-{d:03d}.npy").exists() for d in depths):
                yield folder, slices, wanted

    def writing(self, texts: Sequence[str], norms: Sequence[tuple[int, int]] = ()) -> Writing:
        """A set of vectors in the making, or one whose making was interrupted.

        norms: where the norms of each text's tokens begin and end among those of a depth; none where they are not kept.
        """
        slices = tuple(norms) or ((0, 0),) * len(texts)
        folder = self.folder / key({"texts": list(texts), "norms": slices})[:32]
        return Writing(self, folder, tuple(texts), slices)


class Writing:
    """A set of texts whose vectors are being made. A disk that is full or read-only stops the keeping, not the run."""

    def __init__(self, shelf: Shelf, folder: Path, texts: tuple[str, ...], norms: tuple[tuple[int, int], ...]) -> None:
        self.shelf, self.folder, self.texts, self.norms = shelf, folder, texts, norms
        self.works = True
        self._last = time.monotonic()
        self._cost = 0.0
        with self._trying():
            shelf.kept.clear()
            folder.mkdir(parents=True, exist_ok=True)
            self._put("texts.json", lambda file: file.write_text(json.dumps({"texts": texts, "norms": norms})))
            about = shelf.folder / "about.json"
            if not about.exists():
                about.write_text(json.dumps(shelf.about, indent=1, sort_keys=True))

    def depth(self, depth: int, vectors: FloatArray, norms: FloatArray | None = None) -> None:
        """Keep the vectors [texts, width] and the norms [tokens] of a finished depth: both or neither."""
        if not self.works:
            return
        with self._trying():
            self._put(f"depth-{depth:03d}.npy", lambda file: _save(file, vectors, norms))
            self.shelf.kept.used.add(self.folder)

    def kept_depth(self, depth: int) -> tuple[FloatArray, FloatArray] | None:
        """The vectors and norms of a depth, where they are there."""
        try:
            return _load(self.folder / f"depth-{depth:03d}.npy", len(self.texts), _end(self.norms))
        except (OSError, ValueError):
            return None

    def state(self, depth: int, save: Callable[[Path], Any]) -> None:
        """Keep the states from which a run can go on at `depth`, unless that takes too much of its time."""
        if not self.works or time.monotonic() - self._last < WORTH * self._cost:
            return
        start = time.monotonic()
        before = self._states()
        with self._trying():
            self._put(f"state-{depth:03d}", save)
            for file in before:
                if file.name != f"state-{depth:03d}":
                    file.unlink(missing_ok=True)
        self._last = time.monotonic()
        self._cost = self._last - start

    def last_state(self) -> tuple[int, Path] | None:
        """(depth, file) of the deepest states that are there, undamaged."""
        for file in reversed(self._states()):
            with contextlib.suppress(OSError, ValueError):
                if _intact(file):
                    return int(file.name.partition("-")[2]), file
        return None

    def finish(self) -> None:
        """All depths are done: states are needed no more, and old sets make room."""
        with self._trying():
            for file in self._states():
                file.unlink(missing_ok=True)
            self.shelf.kept.tidy(self.folder)

    def drop(self) -> None:
        """These texts will not be run together: nothing of them is kept."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.shelf.kept.used.discard(self.folder)

    def _states(self) -> list[Path]:
        return sorted(self.folder.glob("state-*"))

    def _put(self, name: str, write: Callable[[Path], Any]) -> None:
        temporary = self.folder / f".{name}.{HOST}.{os.getpid()}"
        try:
            with temporary.open("wb") as made:
                locked(made)
                write(temporary)
                if not name.endswith(".json"):
                    with temporary.open("r+b") as stream:
                        stream.write(_checksum(stream, temporary.stat().st_size))
                temporary.replace(self.folder / name)
        finally:
            temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _trying(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self.works = False


@contextlib.contextmanager
def going_on(kept: Kept | None) -> Iterator[None]:
    """Add to an interrupt within, as a note, that what is kept need not be computed again, where something is."""
    try:
        yield
    except KeyboardInterrupt as error:
        if kept is not None and kept.used:
            error.add_note("The same command goes on from the vectors that are kept.")
        raise


def _left_over(file: Path) -> bool:
    """Whether the process that made this temporary file is gone."""
    if f".{HOST}." in file.name:
        with file.open("rb") as stream:
            alone = locked(stream)
        if alone is not None:
            return alone
    return time.time() - file.stat().st_mtime > FORGOTTEN


def _places(texts: Sequence[str]) -> dict[str, list[int]]:
    """Where each text stands: different words may become the same tokens."""
    places: dict[str, list[int]] = {}
    for i, text in enumerate(texts):
        places.setdefault(text, []).append(i)
    return places


def _end(slices: Sequence[tuple[int, int]]) -> int:
    """How many norms there are at each depth."""
    return max((stop for _, stop in slices), default=0)


def _save(file: Path, vectors: FloatArray, norms: FloatArray | None) -> None:
    with file.open("wb") as stream:
        np.save(stream, vectors)
        np.save(stream, np.empty(0, dtype=np.float32) if norms is None else norms)


def _load(file: Path, texts: int, tokens: int) -> tuple[FloatArray, FloatArray]:
    """Vectors [texts, width], norms [tokens]. Raises OSError or ValueError where they are damaged, or are not these."""
    if not _intact(file):
        raise ValueError(f"{file.name} is damaged")
    with file.open("rb") as stream:
        found: FloatArray = np.load(stream)
        norms: FloatArray = np.load(stream)
    if found.dtype != np.float32 or found.ndim != 2 or found.shape[0] != texts:
        raise ValueError(f"{file.name} holds something else")
    if norms.dtype != np.float32 or norms.shape != (tokens,):
        raise ValueError(f"{file.name} holds other norms")
    return found, norms


def _checksum(stream: IO[bytes], nbytes: int) -> bytes:
    """CRC-32 of the first bytes of a file; the stream stands after them."""
    stream.seek(0)
    value, left = 0, nbytes
    while left:
        block = stream.read(min(left, 1 << 20))
        if not block:
            raise ValueError("the file ends early")
        value, left = zlib.crc32(block, value), left - len(block)
    return value.to_bytes(4, "little")


def _intact(file: Path) -> bool:
    size = file.stat().st_size - 4
    with file.open("rb") as stream:
        return size > 0 and _checksum(stream, size) == stream.read()
