"""Parts of files behind a URL: Range requests, a few at a time, and nothing but what was asked for."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from pairprobe.errors import CheckpointError, OutOfReach

if TYPE_CHECKING:
    import requests

TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two arrivals
WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds before each retry
LONGEST_WAIT = 20.0  # seconds a server may ask for in all, over the retries of one request
AGAIN = (408, 425, 429, 500, 502, 503, 504)
WORKERS = 6
REDIRECTS = 5
LARGEST_REQUEST = 16 * 2**20  # bytes
#: Bytes that are rather read than skipped: a request more costs about as long as these.
GAP = 32 * 2**10
FIRST = 16 * 2**10  # bytes of the first request, which most headers fit in
LARGEST_SIDE = 64 * 2**20  # bytes of a config or a tokenizer file
WEB_PAGE = (b"<!doctype html", b"<html")


class Web:
    """One server a checkpoint is read from, over one pool of connections.

    Args:
        base: URL of the folder the files are in.
        headers: sent to the origin (scheme, host, port) of `base` alone: a redirect elsewhere never sees them.
        advice: what to do where the server forbids a file.
    """

    def __init__(self, base: str, headers: Mapping[str, str] | None = None, advice: str = "") -> None:
        import requests

        self.base, self.advice = base, advice
        #: Bytes of bodies received so far.
        self.fetched = 0
        self._headers = dict(headers or {})
        self._moved: dict[str, str] = {}
        self._lock = threading.Lock()
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=WORKERS))

    def open(self, url: str, name: str) -> Remote | None:
        """The file at `url`, its first bytes read; None where there is none.

        Raises:
            CheckpointError: forbidden, out of reach, or the server knows no ranges.
        """
        answer = self._get(url, (0, FIRST))
        if answer is None:
            return None
        return Remote(url, name, answer.size, answer.etag, self, answer.sha256, answer.body)

    def small(self, url: str) -> bytes | None:
        """All of a small file, without asking for ranges; None where there is none, or a web page in its place."""
        answer = self._get(url, None)
        return None if answer is None or is_web_page(answer.body) else answer.body

    def part(self, file: Remote, start: int, stop: int) -> bytes:
        """Bytes `start` … `stop` of a file, which must still be the one that was opened."""
        answer = self._get(file.url, (start, stop))
        if answer is None:
            raise CheckpointError(f"{file.name}: it is no longer at {file.url}.")
        # a hub's storage has tags of its own: there the hash counts, which the hub states where it redirects
        was, now = (file.etag, answer.etag) if file.sha256 is None else (file.sha256, answer.sha256)
        if answer.size != file.size or (now is not None and was is not None and now != was):
            raise CheckpointError(
                f"{file.name}: it changed while it was read (size {file.size}, tag {was}; now {answer.size}, {now}).",
                "Run again once the upload is done.",
            )
        return answer.body

    # ── one request ──────────────────────────────────────────────────────────────────────────────────────

    def _get(self, url: str, places: tuple[int, int] | None) -> _Answer | None:
        """Try, wait, try again; None for 404."""
        import requests

        waited = 0.0
        for attempt in range(len(WAITS) + 1):
            wait = WAITS[attempt] if attempt < len(WAITS) else None
            try:
                return self._try(url, places)
            except _Again as again:
                said = again.said
                if wait is not None and again.wait is not None:
                    wait = max(wait, again.wait)
                if wait is not None and waited + wait > LONGEST_WAIT:
                    raise CheckpointError(
                        f"{url}: {said}, and asks to wait {wait:.0f} s.", "Too many requests: run again later."
                    ) from None
            except requests.exceptions.SSLError as error:
                raise CheckpointError(
                    f"{url}: its certificate is not trusted here ({_cause(error)}).",
                    "Set REQUESTS_CA_BUNDLE to your network's certificates.",
                ) from None
            except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
                said = f"cannot be reached ({_cause(error)})"
            except requests.exceptions.ChunkedEncodingError as error:
                said = f"the connection breaks off ({_cause(error)})"
            except (requests.exceptions.RequestException, ValueError) as error:
                raise CheckpointError(f"{url}: cannot be asked for ({_cause(error)}).") from None
            if wait is None:
                break
            time.sleep(wait)
            waited += wait
        raise OutOfReach(
            f"{url}: {said}, in {len(WAITS) + 1} tries.", "Check the network and the address; or download it elsewhere."
        )

    def _try(self, url: str, places: tuple[int, int] | None) -> _Answer | None:
        with self._lock:
            moved = self._moved.get(url)
        at, sha256 = moved or url, None
        for _ in range(REDIRECTS + 1):
            with self._ask(at, places) as response:
                linked = response.headers.get("X-Linked-ETag", "").strip('"')
                sha256 = linked if re.fullmatch("[0-9a-f]{64}", linked) else sha256
                if response.status_code not in (301, 302, 303, 307, 308):
                    if moved and response.status_code in (400, 401, 403, 404, 410):
                        with self._lock:  # a signed address that has run out: ask for a new one
                            self._moved.pop(url, None)
                        raise _Again(f"answers {response.status_code}")
                    if at != url:
                        with self._lock:
                            self._moved[url] = at
                    return self._answer(url, response, places, sha256)
                target = urljoin(at, response.headers.get("Location", ""))
            if urlsplit(target).scheme not in ("http", "https") or (
                at.startswith("https:") and target.startswith("http:")
            ):
                raise CheckpointError(f"{url}: redirects to {bare(target)}, which is no https address.")
            at = target
        raise CheckpointError(f"{url}: redirects more than {REDIRECTS} times.")

    def _ask(self, at: str, places: tuple[int, int] | None) -> requests.Response:
        headers = {"Accept-Encoding": "identity", "User-Agent": "pairprobe"}
        own = _origin(at) == _origin(self.base)
        if own:
            headers |= self._headers
        if places:
            headers["Range"] = f"bytes={places[0]}-{places[1] - 1}"
        # ~/.netrc would take the place of a header of ours
        auth = (lambda request: request) if own and self._headers else None
        return self._session.get(at, headers=headers, auth=auth, stream=True, timeout=TIMEOUT, allow_redirects=False)

    def _answer(
        self, url: str, response: requests.Response, places: tuple[int, int] | None, sha256: str | None
    ) -> _Answer | None:
        status = response.status_code
        if status in AGAIN:
            after = response.headers.get("Retry-After", "")
            raise _Again(
                f"answers {status} {response.reason or ''}".rstrip(), float(after) if after.isdigit() else None
            )
        if status in (404, 410):
            return None
        if status in (401, 403):
            raise CheckpointError(
                f"{url}: the server refuses it ({status}).", self.advice or "Log in: a line for its host in ~/.netrc."
            )
        if response.headers.get("Content-Encoding", "identity") not in ("", "identity"):
            raise CheckpointError(f"{url}: comes compressed ({response.headers['Content-Encoding']}), asked for plain.")
        etag = response.headers.get("ETag") or response.headers.get("Last-Modified")
        length = response.headers.get("Content-Length", "")
        if places is None:
            if status != 200:
                raise CheckpointError(f"{url}: answers {status}.")
            return _Answer(self._body(response, None, LARGEST_SIDE, url), 0, etag, sha256)
        if status == 206:
            said = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", "").strip())
            begin, last, size = (int(n) for n in said.groups()) if said else (-1, -1, -1)
            stop = min(places[1], size)
            if (begin, last + 1) != (places[0], stop):
                raise CheckpointError(
                    f"{url}: asked for bytes {places[0]}-{places[1] - 1}, answered "
                    f"'{response.headers.get('Content-Range', '')}'."
                )
            return _Answer(self._body(response, stop - begin, stop - begin, url), size, etag, sha256)
        if status == 200 and places[0] == 0 and length.isdigit() and int(length) <= places[1]:
            return _Answer(self._body(response, int(length), int(length), url), int(length), etag, sha256)
        if status == 200:
            raise CheckpointError(
                f"{url}: the server sends the whole file ({length or 'unknown'} bytes) where a part was asked for.",
                "It knows no Range requests. Download the folder, then model.source=/models/…",
            )
        if status == 416 and places[0] == 0:
            return _Answer(b"", 0, etag, sha256)
        raise CheckpointError(f"{url}: answers {status} {response.reason or ''}".rstrip() + ".")

    def _body(self, response: requests.Response, expected: int | None, most: int, url: str) -> bytes:
        pieces, length = [], 0
        for piece in response.iter_content(2**18):
            pieces.append(piece)
            length += len(piece)
            with self._lock:
                self.fetched += len(piece)
            if length > most:
                raise CheckpointError(f"{url}: more than the {most} bytes that were due.")
        if expected is not None and length < expected:
            raise _Again(f"the connection breaks off after {length} of {expected} bytes")
        return b"".join(pieces)


@dataclass(frozen=True)
class _Answer:
    """size: of the whole file. etag: or its date, None without either. sha256: as the hub states it."""

    body: bytes
    size: int
    etag: str | None
    sha256: str | None


class _Again(Exception):
    """Worth another try. wait: seconds the server asks for."""

    def __init__(self, said: str, wait: float | None = None) -> None:
        self.said, self.wait = said, wait


@dataclass(frozen=True)
class Remote:
    """One file that is not on this machine. size: bytes; sha256: where its server states one."""

    url: str
    name: str
    size: int
    etag: str | None
    web: Web = field(repr=False, compare=False)
    sha256: str | None = None
    head: bytes = field(default=b"", repr=False, compare=False)

    def read(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """(offset, bytes) → the bytes of each place, in order; near places come in one request.

        Raises:
            CheckpointError: out of reach, changed, or a place outside the file.
        """
        for offset, size in places:
            if offset + size > self.size:
                raise CheckpointError(f"{self.name}: ends early.", "Its repository is damaged: tell its owner.")
        spans = _spans([(o, o + n) for o, n in places if n and o + n > len(self.head)])
        pieces = [
            (start, min(stop, start + LARGEST_REQUEST))
            for first, stop in spans
            for start in range(first, stop, LARGEST_REQUEST)
        ]
        with ThreadPoolExecutor(max_workers=max(1, min(WORKERS, len(pieces)))) as pool:
            waiting = [pool.submit(self.web.part, self, *piece) for piece in pieces]
            try:
                bodies = [w.result() for w in waiting]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        held = {start: body for (start, _), body in zip(pieces, bodies, strict=True)}
        whole = {first: b"".join(held[start] for start in range(first, stop, LARGEST_REQUEST)) for first, stop in spans}
        return [self._cut(whole, offset, size) for offset, size in places]

    def _cut(self, whole: Mapping[int, bytes], offset: int, size: int) -> bytes:
        if offset + size <= len(self.head) or not size:
            return self.head[offset : offset + size]
        first = max(start for start in whole if start <= offset)
        return whole[first][offset - first : offset - first + size]


def _spans(places: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Places (start, stop) → what to ask for: sorted, near ones joined."""
    spans: list[tuple[int, int]] = []
    for start, stop in sorted(places):
        if spans and start - spans[-1][1] <= GAP:
            spans[-1] = (spans[-1][0], max(stop, spans[-1][1]))
        else:
            spans.append((start, stop))
    return spans


def is_web_page(start: bytes) -> bool:
    """Whether these bytes begin an HTML page."""
    return start[:512].lstrip().lower().startswith(WEB_PAGE)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def bare(url: str) -> str:
    """An address without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _cause(error: BaseException) -> str:
    said: Any = error
    while said.args and isinstance(said.args[0], BaseException):
        said = said.args[0]
    reason = getattr(said, "reason", None)
    text = re.sub(r"\?\S+", "?…", str(reason or said))  # a signed address is a key for whoever reads it
    return " ".join(text.split())[:160] or type(error).__name__
