"""A Hugging Face hub of our own on 127.0.0.1, with its storage on another port, and a plain file server beside it.

    with Server() as server:
        server.repositories["someone/tiny"] = Repository.of(folder)
        …                                    # server.endpoint is its HF_ENDPOINT

Answers as the hub does (headers and codes seen in huggingface_hub's own handling of them): the API's revision and
tree, /ID/resolve/REVISION/FILE with ETag, X-Repo-Commit, and for weights a redirect to the storage with X-Linked-*.
/plain/ID/FILE serves the same files as any web server would. Everything asked is written down in `asked`.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".gguf")  # files that the storage has
COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


@dataclass
class Repository:
    """Files by name. gated, private: only for who sends `token`."""

    files: dict[str, bytes]
    commit: str = COMMIT
    gated: bool = False
    private: bool = False

    @classmethod
    def of(cls, folder: Path, **more: Any) -> Repository:
        return cls({f.name: f.read_bytes() for f in folder.iterdir()}, **more)


@dataclass(frozen=True)
class Asked:
    """One request. role: hub | storage."""

    role: str
    method: str
    path: str
    authorization: str | None
    range: str | None
    sent: int


@dataclass
class Server:
    """faults: a part of a path → what goes wrong with the next requests to it, in order: a status, 'cut' (half of the
    body, then nothing), 'changed' (another ETag), 'expired' (403 from the storage), or None (nothing).
    ranges: False: Range is ignored and everything sent. More: see `_answer`.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    token: str = "hf_secret"
    faults: dict[str, list[Any]] = field(default_factory=dict)
    ranges: bool = True
    etags: bool = True
    retry_after: str | None = None
    elsewhere: str | None = None  # what plain files redirect to, with the path behind it
    asked: list[Asked] = field(default_factory=list)

    def __enter__(self) -> Server:
        self._lock = threading.Lock()
        self._servers = {role: self._serve(role) for role in ("hub", "storage")}
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._servers['hub'].server_port}"

    @property
    def storage(self) -> str:
        return f"http://127.0.0.1:{self._servers['storage'].server_port}"

    def of(self, role: str, part: str = "") -> list[Asked]:
        return [a for a in self.asked if a.role == role and part in a.path]

    @property
    def sent(self) -> int:
        """Bytes of all bodies."""
        return sum(a.sent for a in self.asked)

    def fault(self, path: str) -> Any:
        with self._lock:
            for part, faults in self.faults.items():
                if part in path and faults:
                    return faults.pop(0)
        return None

    def _serve(self, role: str) -> ThreadingHTTPServer:
        server = _Quiet(("127.0.0.1", 0), type("Of", (_Handler,), {"server_of": self, "role": role}))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return server


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Who asks may hang up; that is part of the test."""


class _Handler(BaseHTTPRequestHandler):
    server_of: Server
    role: str
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._handle()

    def do_GET(self) -> None:
        self._handle()

    def _handle(self) -> None:
        hub = self.server_of
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        fault = hub.fault(f"{self.role}{path}")
        if isinstance(fault, int):
            more = {"Retry-After": hub.retry_after} if hub.retry_after is not None else {}
            return self._send(fault, b"a fault", more)
        if self.role == "storage":
            if "signature" not in parse_qs(parts.query) or fault == "expired":
                return self._send(403, b"<Error>signature</Error>")
            _, repository, file = path.split("/", 2)
            return self._file(hub.repositories[repository.replace("--", "/")], file, fault)
        if path.startswith("/plain/"):
            if hub.elsewhere:
                return self._send(302, b"", {"Location": hub.elsewhere + path})
            _, _, owner, name, file = path.split("/", 4)
            repository_ = hub.repositories.get(f"{owner}/{name}")
            if repository_ is None or file not in repository_.files:
                return self._send(404, b"<!DOCTYPE html><p>Not found</p>")
            return self._file(repository_, file, fault)
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/(.+)", path)
        resolve = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        found = api or resolve
        if not found:
            return self._send(404, b"no such page")
        name = found[1]
        repository_ = hub.repositories.get(name)
        allowed = self.headers.get("Authorization") == f"Bearer {hub.token}"
        if repository_ is None or (repository_.private and not allowed):
            return self._error(401, "RepoNotFound", "Repository not found")
        if (api[3] if api else found[2]) not in ("main", repository_.commit):
            return self._error(404, "RevisionNotFound", "Invalid rev id")
        if api and api[2] == "revision":
            return self._json(
                {
                    "id": name, "modelId": name, "sha": repository_.commit, "private": repository_.private,
                    "gated": "manual" if repository_.gated else False, "tags": [], "downloads": 0, "likes": 0,
                    "siblings": [{"rfilename": f, "size": len(b)} for f, b in repository_.files.items()],
                }
            )  # fmt: skip
        if api:
            return self._json([_tree(f, b) for f, b in repository_.files.items()])
        if repository_.gated and not allowed:
            return self._error(401, "GatedRepo", f"Access to model {name} is restricted.")
        file = found[3]
        if file not in repository_.files:
            return self._error(404, "EntryNotFound", "Entry not found")
        more = {"X-Repo-Commit": repository_.commit}
        body = repository_.files[file]
        if file.endswith(LARGE):
            more |= {
                "Location": f"{hub.storage}/{name.replace('/', '--')}/{file}?signature=abc",
                "X-Linked-Size": str(len(body)), "X-Linked-ETag": f'"{hashlib.sha256(body).hexdigest()}"',
            }  # fmt: skip
            return self._send(302, b"", more)
        return self._file(repository_, file, fault, more)

    def _file(self, repository: Repository, file: str, fault: Any, more: dict[str, str] | None = None) -> None:
        body = repository.files[file]
        headers = dict(more or {})
        if self.server_of.etags:
            headers["ETag"] = '"another"' if fault == "changed" else f'"{hashlib.md5(body).hexdigest()}"'
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and self.server_of.ranges:
            start, stop = int(wanted[1]), min(int(wanted[2] or len(body)) + 1, len(body))
            if start >= len(body):
                return self._send(416, b"", {"Content-Range": f"bytes */{len(body)}"})
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(body)}"
            return self._send(206, body[start:stop], headers, cut=fault == "cut")
        return self._send(200, body, headers, cut=fault == "cut")

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, message: str) -> None:
        self._send(status, message.encode(), {"X-Error-Code": code, "X-Error-Message": message})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        sent = 0
        if self.command != "HEAD":
            body = body[: len(body) // 2] if cut else body
            try:
                self.wfile.write(body)
                sent = len(body)
            except OSError:
                pass  # who asked has hung up
        if cut:
            self.close_connection = True
        with self.server_of._lock:
            self.server_of.asked.append(
                Asked(
                    self.role,
                    self.command,
                    self.path,
                    self.headers.get("Authorization"),
                    self.headers.get("Range"),
                    sent,
                )
            )


def _tree(file: str, body: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": file, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
    if file.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 130}
    return entry
