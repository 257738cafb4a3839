"""A hub on this machine: as much of the Hugging Face hub as its clients ask for, and its failures on demand."""

import hashlib
import io
import json
import os
import re
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, Self
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".bin", ".parquet", ".model")
"""Files that the hub keeps outside git and knows by their sha256."""

DATE = "2024-01-01T00:00:00.000Z"
PIECE = 1 << 20

NAME = r"(?P<name>[^/]+(?:/[^/]+)?)"
API = re.compile(
    rf"/api/(?P<kind>models|datasets)/{NAME}"
    r"(?:/(?P<route>revision|tree|paths-info)/(?P<revision>[^/]+)(?:/(?P<path>.+))?)?"
)
RESOLVE = re.compile(rf"/(?P<kind>datasets/)?{NAME}/(?P<route>resolve)/(?P<revision>[^/]+)/(?P<path>.+)")
RANGE = re.compile(r"bytes=(\d*)-(\d*)")

BODY_KINDS = ("cut", "stall", "wrong_size", "flipped_byte")


@dataclass
class Repository:
    """One model or data set: a directory for every commit, and the branches and tags that name commits.

    A commit is 40 hex digits. `main` names the first one unless `revisions` says otherwise.
    """

    commits: dict[str, Path]
    revisions: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def commit(self, revision: str) -> str | None:
        """Return the commit that a branch, tag or commit names."""
        named = {commit: commit for commit in self.commits}
        return (named | {"main": next(iter(self.commits))} | self.revisions).get(revision)

    def files(self, commit: str) -> dict[str, Path]:
        directory = self.commits[commit]
        return {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if path.is_file()}


@dataclass
class Fault:
    """A way to fail, used up by at most `times` requests; `match` is searched for in `METHOD /path?query`.

    "401", "429" and "503": that status, with Retry-After and further `headers` if given. "refuse": the connection is
    closed without a response. The others spoil a body and so leave HEAD alone, which keeps promising the true size.
    "cut": Content-Length is right, the connection is closed after half of the body. "stall": the same, but the
    connection stays open and silent until the client closes it. "wrong_size": the last byte is missing,
    Content-Length agrees with what is sent. "flipped_byte": the byte in the middle differs.
    """

    kind: Literal["401", "429", "503", "refuse", "cut", "stall", "wrong_size", "flipped_byte"]
    match: str
    times: int = 1
    retry_after: float | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def applies(self, method: str, path: str) -> bool:
        has_body = method != "HEAD" or self.kind not in BODY_KINDS
        return self.times > 0 and has_body and re.search(self.match, f"{method} {path}") is not None


class Request(NamedTuple):
    """A request that was seen: header names in lower case, no status where the connection was refused."""

    method: str
    path: str
    headers: dict[str, str]
    status: int | None


class Digests(NamedTuple):
    """What the hub knows of a file's content; `pointer_size` only where git holds a pointer instead of the file."""

    size: int
    sha256: str
    blob: str
    pointer_size: int | None


@dataclass
class Answer:
    """A response: the `size` bytes of `body` from `start` on. A path is read piece by piece, however large."""

    status: int
    headers: dict[str, str]
    body: bytes | Path
    start: int
    size: int

    def write(self, stream: BinaryIO, length: int, flipped: int | None) -> None:
        """Write the first `length` bytes, all bits of number `flipped` inverted."""
        with io.BytesIO(self.body) if isinstance(self.body, bytes) else self.body.open("rb") as source:
            source.seek(self.start)
            for position in range(0, length, PIECE):
                piece = bytearray(source.read(min(PIECE, length - position)))
                if flipped is not None and position <= flipped < position + len(piece):
                    piece[flipped - position] ^= 0xFF
                stream.write(piece)


@dataclass
class HubServer:
    """A hub that listens on `url` while its context is open.

    Repositories and faults may be added and removed at any time; `requests` grows in the order of arrival. Of a gated
    repository everybody sees the listing, but only who sends `token` gets its files. Where there is a
    `storage` (this hub again, called localhost), links to large files lead there, and need no token any more.
    """

    models: dict[str, Repository] = field(default_factory=dict)
    datasets: dict[str, Repository] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    token: str = "hf_granted"
    storage: str | None = None

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        self._listener = _Listener(("127.0.0.1", 0), _Connection)
        self._listener.hub = self
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown()
        self._thread.join()
        self._listener.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.server_port}"

    def seen(self, match: str) -> list[Request]:
        """Return the requests whose `METHOD /path?query` has a match; clients also ask for things of their own."""
        return [request for request in self.requests if re.search(match, f"{request.method} {request.path}")]

    def take_fault(self, method: str, path: str) -> Fault | None:
        """Use up the first fault that applies."""
        with self._lock:
            fault = next((fault for fault in self.faults if fault.applies(method, path)), None)
            if fault is not None:
                fault.times -= 1
            return fault

    def answer(self, path: str, headers: Mapping[str, str], form: str) -> Answer:
        """Return what a hub without faults says."""
        url = urlsplit(path)
        part = API.fullmatch(url.path) or RESOLVE.fullmatch(url.path)
        if part is None:
            return _error(404, f"Cannot find {url.path}")
        name, route, revision = part["name"], part["route"], unquote(part["revision"] or "main")
        repository = (self.datasets if (part["kind"] or "").startswith("datasets") else self.models).get(name)
        if repository is None:
            return _error(404, "Repository not found", "RepoNotFound")
        commit = repository.commit(revision)
        if commit is None:
            return _error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        query, inside = parse_qs(url.query), unquote(part["path"] or "")
        if route == "resolve":
            return self._resolve(repository, commit, inside, headers, path)
        if route == "tree":
            return _tree(repository, commit, inside, _is_true(query, "recursive"), _is_true(query, "expand"))
        if route == "paths-info":
            wanted = parse_qs(form)
            return _paths_info(repository, commit, wanted.get("paths", []), _is_true(wanted, "expand"))
        return _info(name, repository, commit, _is_true(query, "blobs"))

    def _resolve(
        self, repository: Repository, commit: str, path: str, headers: Mapping[str, str], asked: str
    ) -> Answer:
        given, is_elsewhere = headers.get("authorization"), headers.get("host", "").startswith("localhost:")
        if repository.gated and given != f"Bearer {self.token}" and not is_elsewhere:
            return _error(403 if given else 401, "Access to this repository is restricted.", "GatedRepo")
        location = repository.files(commit).get(path)
        if location is None:
            return _error(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit})
        if self.storage and not is_elsewhere and location.suffix in LFS_SUFFIXES:
            return Answer(302, {"Location": f"{self.storage}{asked}?stored"}, b"", 0, 0)
        return _content(location, commit, headers.get("range"))


def environment(server: HubServer, home: Path, **more: str) -> dict[str, str]:
    """Return this process's environment for a subprocess that knows no hub, cache, token or proxy but these."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("HF_", "HUGGING", "TRANSFORMERS_")) and not name.upper().endswith("_PROXY")
    }
    hub = {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    return kept | hub | more


def digests(location: Path) -> Digests:
    """Return what the hub knows of a file; hashed once for as long as it does not change."""
    stat = location.stat()
    return _digests(location, stat.st_size, stat.st_mtime_ns)


@lru_cache
def _digests(location: Path, size: int, _modified: int) -> Digests:
    sha256 = _hexdigest(location, hashlib.sha256())
    if location.suffix not in LFS_SUFFIXES:
        return Digests(size, sha256, _hexdigest(location, hashlib.sha1(b"blob %d\0" % size)), None)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    return Digests(size, sha256, hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest(), len(pointer))


def _hexdigest(location: Path, state: Any) -> str:
    with location.open("rb") as source:
        while piece := source.read(PIECE):
            state.update(piece)
    return state.hexdigest()


def _is_true(query: Mapping[str, list[str]], name: str) -> bool:
    return query.get(name, [""])[0].lower() in ("true", "1")


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    body = json.dumps(content).encode()
    return Answer(status, {"Content-Type": "application/json; charset=utf-8"} | dict(headers or {}), body, 0, len(body))


def _error(status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None) -> Answer:
    codes = {"X-Error-Code": code} if code else {}
    return _json({"error": message}, status, {"X-Error-Message": message} | codes | dict(headers or {}))


def _info(name: str, repository: Repository, commit: str, blobs: bool) -> Answer:
    files = repository.files(commit).items()
    information = {
        "id": name,
        "sha": commit,
        "private": False,
        "disabled": False,
        "gated": "manual" if repository.gated else False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "createdAt": DATE,
        "lastModified": DATE,
        "siblings": [{"rfilename": path} | (_sibling(digests(place)) if blobs else {}) for path, place in files],
    }
    return _json(information)


def _sibling(known: Digests) -> dict[str, Any]:
    lfs = {"lfs": {"sha256": known.sha256, "size": known.size, "pointerSize": known.pointer_size}}
    return {"size": known.size, "blobId": known.blob} | (lfs if known.pointer_size else {})


def _tree(repository: Repository, commit: str, folder: str, recursive: bool, expand: bool) -> Answer:
    prefix = f"{folder}/" if folder else ""
    entries = [
        entry
        for entry in _entries(repository, commit, expand)
        if entry["path"].startswith(prefix) and (recursive or "/" not in entry["path"].removeprefix(prefix))
    ]
    if folder and not entries:
        return _error(404, f"{folder} does not exist on {commit}", "EntryNotFound")
    return _json(entries)


def _paths_info(repository: Repository, commit: str, paths: list[str], expand: bool) -> Answer:
    return _json([entry for entry in _entries(repository, commit, expand) if entry["path"] in paths])


def _entries(repository: Repository, commit: str, expand: bool) -> list[dict[str, Any]]:
    """Return every folder, then every file, the way the hub lists a tree."""
    files = repository.files(commit)
    folders = {parent.as_posix() for path in files for parent in Path(path).parents} - {"."}
    last = {"lastCommit": {"id": commit, "title": "All of it", "date": DATE}} if expand else {}
    listed = [_folder(path) for path in sorted(folders)] + [_file(path, digests(files[path])) for path in files]
    return [entry | last for entry in listed]


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0, "path": path}


def _file(path: str, known: Digests) -> dict[str, Any]:
    lfs = {"lfs": {"oid": known.sha256, "size": known.size, "pointerSize": known.pointer_size}}
    return {"type": "file", "oid": known.blob, "size": known.size, "path": path} | (lfs if known.pointer_size else {})


def _content(location: Path, commit: str, wanted: str | None) -> Answer:
    known = digests(location)
    headers = {
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
        "ETag": f'"{known.blob}"',
        "X-Repo-Commit": commit,
    }
    if known.pointer_size:
        headers |= {"X-Linked-Etag": f'"{known.sha256}"', "X-Linked-Size": str(known.size)}
    range_ = RANGE.fullmatch(wanted) if wanted else None
    if range_ is None:
        return Answer(200, headers, location, 0, known.size)
    first, last = _span(range_[1], range_[2], known.size)
    if first > last:
        return _error(416, "Range not satisfiable", headers={"Content-Range": f"bytes */{known.size}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{known.size}"
    return Answer(206, headers, location, first, last - first + 1)


def _span(first: str, last: str, size: int) -> tuple[int, int]:
    """Return the first and last byte that a Range header asks for: `a-b`, `a-` or the last n as `-n`."""
    if not first:
        return max(0, size - int(last or 0)), size - 1
    return int(first), min(int(last) if last else size, size - 1)


class _Listener(ThreadingHTTPServer):
    """Accept connections, each in its own thread that dies with this process."""

    request_queue_size = 64
    hub: HubServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client may go whenever it likes
            super().handle_error(request, client_address)


class _Connection(BaseHTTPRequestHandler):
    """Read requests of one client, write what the hub answers, and fail where a fault says so."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def do_GET(self) -> None:
        form = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        fault = self.server.hub.take_fault(self.command, self.path)
        answer = self._answer(headers, form, fault)
        self.server.hub.requests.append(Request(self.command, self.path, headers, answer and answer.status))
        if answer is None:
            self.close_connection = True
        else:
            self._send(answer, fault.kind if fault else None)

    do_HEAD = do_POST = do_GET

    def _answer(self, headers: Mapping[str, str], form: str, fault: Fault | None) -> Answer | None:
        if fault is None or fault.kind in BODY_KINDS:
            return self.server.hub.answer(self.path, headers, form)
        if fault.kind == "refuse":
            return None
        if fault.kind == "401":
            return _error(401, "Invalid credentials in Authorization header", headers=fault.headers)
        later = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
        return _error(int(fault.kind), "Come back later", headers=later | fault.headers)

    def _send(self, answer: Answer, kind: str | None) -> None:
        length = max(0, answer.size - 1) if kind == "wrong_size" else answer.size
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            flipped = length // 2 if kind == "flipped_byte" else None
            answer.write(self.wfile, length // 2 if kind in ("cut", "stall") else length, flipped)
        if kind == "stall":
            self.rfile.read(1)  # returns when the client goes
        self.close_connection = self.close_connection or kind in ("cut", "stall")

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: `requests` has it all."""
