"""Hub: the files of one commit of a model, resumed after a break and checked by their digests.

The hub's own client asks for names and sizes; file contents are streamed here, because the client neither resumes what
an earlier run left half-done nor compares a digest.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from huggingface_hub import HfApi, constants, hf_hub_url, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, get_session, get_token, hf_raise_for_status
from tqdm import tqdm

from outlier_features.errors import SourceError
from outlier_features.machine.disk import require_room
from outlier_features.sources.retry import Broken, retried

SILENCE = 60.0
"""Seconds without a byte after which a connection counts as broken."""
PIECE = 1 << 20
SHA256_DIGITS, SHA1_DIGITS = 64, 40
ONLINE = "unset HF_HUB_OFFLINE, or fetch on a machine with a network."

Result = TypeVar("Result")


@dataclass(frozen=True)
class RemoteFile:
    """One file of a commit: its name, its size in bytes and its digest."""

    name: str
    size: int
    digest: str
    """sha256 (64 digits) of large files, sha1 of the git blob (40) of small ones, empty where nothing is told."""

    @property
    def key(self) -> str:
        """The name under which its content is kept while a checkpoint is incomplete."""
        return self.digest or self.name.replace("/", "--")

    def is_intact(self, path: Path) -> bool:
        """Return whether a file on disk has this size and digest."""
        if path.stat().st_size != self.size:
            return False
        if len(self.digest) not in (SHA256_DIGITS, SHA1_DIGITS):
            return True
        is_blob = len(self.digest) == SHA1_DIGITS
        digest = hashlib.sha1(usedforsecurity=False) if is_blob else hashlib.sha256()
        digest.update(f"blob {self.size}\0".encode() if is_blob else b"")
        with path.open("rb") as opened:
            while piece := opened.read(PIECE):
                digest.update(piece)
        return digest.hexdigest() == self.digest


@dataclass(frozen=True)
class Snapshot:
    """One commit of a model, and its files by their names, those of folders with their folder."""

    repository: str
    commit: str
    files: dict[str, RemoteFile]

    def __str__(self) -> str:
        return f"{self.repository}@{self.commit[:12]}"

    @property
    def remedy(self) -> str:
        """What to do where it lacks a file, which in the hub's cache may just not have arrived."""
        return ONLINE if constants.HF_HUB_OFFLINE else "name another revision."


def snapshot(repository: str, revision: str | None) -> Snapshot:
    """Resolve a revision (`main` by default) to its commit and list its files. Raises SourceError.

    With HF_HUB_OFFLINE set only what lies in the hub's cache is known.
    """
    where = f"{repository}@{revision or 'main'}"
    if constants.HF_HUB_OFFLINE:
        return _cached_snapshot(repository, revision, where)
    api = HfApi()
    info = _asked(lambda: api.model_info(repository, revision=revision, files_metadata=True, timeout=SILENCE), where)
    siblings = info.siblings or []
    digests = [found.lfs.sha256 if found.lfs else found.blob_id or "" for found in siblings]
    files = [RemoteFile(s.rfilename, s.size or 0, digest) for s, digest in zip(siblings, digests, strict=True)]
    commit = str(info.sha)
    if revision != commit:
        warning = f"warning: {where} is commit {commit} today; pin it in config.yaml with revision: {commit}"
        print(warning, file=sys.stderr)
    return Snapshot(repository, commit, {file.name: file for file in files})


def download(
    found: Snapshot, names: Iterable[str], folder: Path, earlier: Path | None = None, spare: int = 0
) -> dict[str, Path]:
    """Bring files of a commit into `folder`, or find them in `earlier` or the hub's cache; return where each lies.

    Every file is checked by size and digest.
    Files in `folder` are named by their digests, so a later call resumes where this one was stopped, whatever the
    revision. Raises SourceError, also where the disk has no room for what is missing and `spare` bytes more, before
    anything is downloaded.
    """
    wanted = [found.files[name] for name in names]
    present = {file.name: path for file in wanted if (path := _present(found, file, folder, earlier)) is not None}
    missing = [file for file in wanted if file.name not in present]
    if constants.HF_HUB_OFFLINE and missing:
        raise SourceError(f"{found}: {missing[0].name} is damaged in the hub's cache; {ONLINE}")
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        total, arrived = sum(file.size for file in missing), sum(_size(_part(file, folder)) for file in missing)
        require_room(folder, total - arrived + spare, str(found))
        with tqdm(total=total, initial=arrived, desc=str(found), unit="B", unit_scale=True, mininterval=2) as progress:
            for file in missing:
                present[file.name] = _fetched(found, file, folder, progress)
    return present


def _cached_snapshot(repository: str, revision: str | None, where: str) -> Snapshot:
    try:
        directory = Path(
            snapshot_download(repository, revision=revision, allow_patterns="config.json", local_files_only=True)
        )
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise SourceError(
            f"{where}: is not in the hub's cache ({constants.HF_HUB_CACHE}) and HF_HUB_OFFLINE is set; {ONLINE}"
        ) from error
    paths = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    # blobs bear digests
    files = [RemoteFile(name, path.stat().st_size, path.resolve().name) for name, path in paths.items()]
    return Snapshot(repository, directory.name, {file.name: file for file in files})


def _present(found: Snapshot, file: RemoteFile, folder: Path, earlier: Path | None) -> Path | None:
    """Return where a file lies whole already: from a stopped run, in an earlier checkpoint, or in the hub's cache."""
    cached = try_to_load_from_cache(found.repository, file.name, revision=found.commit)
    places = [folder / file.key, *([earlier / file.name] if earlier else [])]
    places += [Path(cached).resolve()] if isinstance(cached, str) else []
    return next((path for path in places if path.is_file() and file.is_intact(path)), None)


def _fetched(found: Snapshot, file: RemoteFile, folder: Path, progress: tqdm) -> Path:
    """Download one file, in as many pieces as it takes."""
    part = _part(file, folder)

    def attempt() -> None:
        _stream(found, file, part, progress)
        if not file.is_intact(part):
            _discard(part, progress)
            raise Broken(f"{file.name} came with another content than its digest {file.digest[:12]}… on the hub says")

    progress.set_postfix_str(file.name)
    _asked(attempt, str(found), lambda: _size(part))
    return part.replace(folder / file.key)


def _stream(found: Snapshot, file: RemoteFile, part: Path, progress: tqdm) -> None:
    """Append what is missing of a file to `part`. Raises Broken where another number of bytes came than promised."""
    start = _size(part)
    if start < file.size or not file.size:
        url = hf_hub_url(found.repository, file.name, revision=found.commit)
        headers = build_hf_headers() | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        with get_session().stream("GET", url, headers=headers, timeout=SILENCE, follow_redirects=True) as response:
            if response.is_error:
                response.read()  # the error quotes the body
            hf_raise_for_status(response)
            if start and response.status_code != 206:
                _discard(part, progress)
            with part.open("ab") as opened:
                for piece in response.iter_raw(PIECE):
                    opened.write(piece)
                    progress.update(len(piece))
    if (arrived := _size(part)) != file.size:
        if arrived > file.size:
            _discard(part, progress)
        raise Broken(f"{file.name} came with {arrived} bytes where the hub promised {file.size}")


def _discard(part: Path, progress: tqdm) -> None:
    progress.update(-_size(part))
    part.unlink()


def _part(file: RemoteFile, folder: Path) -> Path:
    return folder / f"{file.key}.part"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _asked(call: Callable[[], Result], where: str, advanced: Callable[[], int] | None = None) -> Result:
    """Return what a call to the hub returns, retried; say what a name asks of the user that the hub does not give."""

    def once() -> Result:
        try:
            return call()
        except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise SourceError(_refusal(error, where)) from error
        except HFValidationError as error:
            raise SourceError(f"{where}: is no name of a model; names look like organisation/model.") from error

    return retried(once, where, advanced)


def _refusal(error: HfHubHTTPError, where: str) -> str:
    if isinstance(error, GatedRepoError):
        page = f"{constants.ENDPOINT}/{where.partition('@')[0]}"
        if get_token():
            return f"{where}: is gated, and HF_TOKEN may not read it; accept its terms at {page} with that account."
        return f"{where}: is gated; accept its terms at {page}, and set HF_TOKEN to a token of that account."
    if isinstance(error, RevisionNotFoundError):
        return f"{where}: the model has no such revision; give a commit, a branch or a tag that it has."
    return f"{where}: no such model on the hub, or it is private; check the name, and HF_TOKEN if it is yours."
