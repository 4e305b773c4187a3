"""A checkpoint behind any http(s) address: small files kept on this machine, rows read where they lie."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit

from pairprobe.checkpoints import files
from pairprobe.checkpoints.remote import WORKERS, Remote, Web, bare
from pairprobe.errors import CheckpointError


def is_url(source: str) -> bool:
    """Whether a model.source is an address."""
    return source.lower().startswith(("http://", "https://"))


def open_url(source: str, name: str) -> tuple[Path, list[Remote]]:
    """The folder that now holds config, tokenizer and index, and the weight files at their addresses.

    Raises:
        CheckpointError: an address that is not allowed, out of reach, without weights, or without Range requests.
    """
    web = Web(checked(source))
    wanted = (*files.SIDES, files.INDEX)
    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        found = list(pool.map(lambda side: web.small(web.base + side), wanted))
    sides = {side: content for side, content in zip(wanted, found, strict=True) if content is not None}
    if "config.json" not in sides:
        raise CheckpointError(
            f"{name}: no config.json at {web.base}", "Give the address of the folder that holds it, as in a browser."
        )
    # the single file first, as in a folder
    single = web.open(web.base + files.SINGLE, files.SINGLE)
    if single is not None:
        sides.pop(files.INDEX, None)
        return keep(web.base, sides), [single]
    if files.INDEX not in sides:
        raise CheckpointError(files.none_of(name, [], web.base))
    names = sorted(set(files.read_index(sides[files.INDEX], name).values()))
    remotes = files.open_all({n: web.base + quote(n) for n in names}, web.open, name)
    return keep(web.base, sides), remotes


def checked(source: str) -> str:
    """The address with one '/' at its end. Raises CheckpointError for one with a password, a query or no host."""
    try:
        parts = urlsplit(source)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise CheckpointError(f"model.source is no address ({error}).") from None
    if not host or "?" in source or "#" in source or "@" in parts.netloc:
        raise CheckpointError(
            f"model.source={bare(source)}: allowed is https://host/path/ without password, '?' and '#'.",
            "Passwords belong into ~/.netrc, where no run records them.",
        )
    return source.rstrip("/") + "/"


def keep(base: str, sides: Mapping[str, bytes]) -> Path:
    """Put small files into a folder of the user's cache that their contents name; returns it.

    Raises:
        CheckpointError: it cannot be written.
    """
    digest = hashlib.sha256(base.encode())
    for name, content in sorted(sides.items()):
        digest.update(f"\n{name} {len(content)}\n".encode())
        digest.update(content)
    root = cache() / "http"
    place = root / digest.hexdigest()[:32]
    try:
        if not place.is_dir():
            root.mkdir(parents=True, exist_ok=True)
            made = Path(tempfile.mkdtemp(dir=root))
            for name, content in sides.items():
                (made / name).write_bytes(content)
            try:
                made.rename(place)
            except OSError:
                if not place.is_dir():  # else another run was first, with the same contents
                    raise
    except OSError as error:
        raise CheckpointError(
            f"{root}: cannot be written ({error.strerror}).", "Set PAIRPROBE_CACHE to a folder of yours."
        ) from None
    return place


def cache() -> Path:
    """The user's cache folder: PAIRPROBE_CACHE, or the platform's own place."""
    named = os.environ.get("PAIRPROBE_CACHE")
    if named:
        return Path(named).expanduser()
    platform = str(sys.platform)
    if platform == "darwin":
        return Path.home() / "Library" / "Caches" / "pairprobe"
    if platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "pairprobe"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pairprobe"
