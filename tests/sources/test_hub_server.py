"""The hub on this machine: the real clients read from it, and every fault really happens."""

import hashlib
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from hub_server import Fault, HubServer, Repository, environment
from pyarrow import parquet

NEW, OLD, ROWS = "a" * 40, "0" * 40, "d" * 40
WEIGHTS = bytes(range(256)) * 100
CONFIG = b'{"model_type": "llama"}'
MODEL = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "original/tokenizer.model": b"\0\1"}
WEIGHTS_PATH = f"/org/model/resolve/{NEW}/model.safetensors"
EARLIER = {"config.json": CONFIG, "model.safetensors": WEIGHTS[::-1]}
CARD = b"""---
configs:
- config_name: default
  data_files: [{split: train, path: data/*/*}]
- config_name: sample-10BT
  data_files: [{split: train, path: sample/10BT/*}]
---
"""

CLIENT = f"""
import json, os, sys
from pathlib import Path
import datasets, huggingface_hub
from huggingface_hub import HfApi, hf_hub_download, snapshot_download

huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 1000  # what is resumed is a whole number of chunks

def refusal(*arguments, **options):
    try:
        hf_hub_download(*arguments, **options)
    except huggingface_hub.errors.HfHubHTTPError as error:
        return type(error).__name__

def listing(information):
    return {{file.rfilename: [file.size, file.blob_id, file.lfs and file.lfs.sha256] for file in information.siblings}}

def contents(directory):
    files = [path for path in Path(directory).rglob("*") if path.is_file()]
    return {{str(path.relative_to(directory)): path.read_bytes().hex() for path in files}}

rows = datasets.load_dataset("org/rows", name="sample-10BT", split="train", revision="{ROWS}", streaming=True)
token = os.environ["GRANTED"]
json.dump({{
    "listing": listing(HfApi().model_info("org/model", revision="{NEW}", files_metadata=True)),
    "step1": HfApi().model_info("org/model", revision="step1").sha,
    "main": HfApi().model_info("org/model").sha,
    "folder": [entry.path for entry in HfApi().list_repo_tree("org/model", "original", revision="{NEW}")],
    "paths": [entry.path for entry in HfApi().get_paths_info("org/model", ["original", "config.json", "none"])],
    "snapshot": contents(snapshot_download("org/model", revision="{OLD}")),
    "resumed": Path(hf_hub_download("org/model", "model.safetensors", revision="{NEW}")).read_bytes().hex(),
    "rows": list(rows),
    "gated": refusal("org/gated", "config.json"),
    "wrong token": refusal("org/gated", "config.json", token="hf_other"),
    "right token": Path(hf_hub_download("org/gated", "config.json", token=token)).read_text(),
    "no revision": refusal("org/model", "config.json", revision="step2"),
    "no file": refusal("org/model", "none.json"),
    "no repository": refusal("org/none", "config.json"),
}}, sys.stdout)
"""


class Visit(NamedTuple):
    """What the clients got, and the hub they asked."""

    got: dict[str, Any]
    hub: HubServer


def write(directory: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


def rows(*texts: str) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table({"text": texts}), sink)
    return sink.getvalue().to_pybytes()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """A hub with a model of two commits, the same one gated, and a data set of two configurations."""
    root = tmp_path_factory.mktemp("hub")
    model, earlier = write(root / "model", MODEL), write(root / "earlier", EARLIER)
    texts = {"sample/10BT/0.parquet": rows("one", "two"), "data/crawl/0.parquet": rows("elsewhere")}
    with HubServer() as server:
        server.models["org/model"] = Repository({NEW: model, OLD: earlier}, {"step1": OLD})
        server.models["org/gated"] = Repository({NEW: model}, gated=True)
        server.datasets["org/rows"] = Repository({ROWS: write(root / "rows", {"README.md": CARD} | texts)})
        yield server


@pytest.fixture(scope="module")
def visit(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    """One process of the real clients, whose download of the newer weights is cut once."""
    hub.faults = [Fault("cut", f"GET {WEIGHTS_PATH}")]
    variables = environment(hub, tmp_path_factory.mktemp("home"), GRANTED=hub.token)
    done = subprocess.run([sys.executable, "-c", CLIENT], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Visit(json.loads(done.stdout), hub)


def ask(hub: HubServer, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(hub.url.removeprefix("http://"), timeout=10)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def test_model_info_has_size_blob_and_sha256(visit: Visit) -> None:
    blob = hashlib.sha1(b"blob %d\0" % len(CONFIG) + CONFIG).hexdigest()
    assert sorted(visit.got["listing"]) == sorted(MODEL)
    assert visit.got["listing"]["config.json"] == [len(CONFIG), blob, None]
    size, _, sha256 = visit.got["listing"]["model.safetensors"]
    assert (size, sha256) == (len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest())


def test_branches_name_commits(visit: Visit) -> None:
    assert (visit.got["main"], visit.got["step1"]) == (NEW, OLD)


def test_a_folder_and_single_paths_can_be_listed(visit: Visit) -> None:
    assert visit.got["folder"] == ["original/tokenizer.model"]
    assert visit.got["paths"] == ["original", "config.json"]


def test_a_snapshot_of_a_pinned_commit_has_equal_bytes(visit: Visit) -> None:
    assert visit.got["snapshot"] == {name: content.hex() for name, content in EARLIER.items()}


def test_a_download_that_was_cut_asks_for_the_rest_only(visit: Visit) -> None:
    first, second = visit.hub.seen(f"GET {WEIGHTS_PATH}")[:2]
    assert "range" not in first.headers
    assert (second.headers["range"], second.status) == ("bytes=12000-", 206)
    assert visit.got["resumed"] == WEIGHTS.hex()


def test_streaming_yields_the_rows_of_one_configuration_and_reads_no_other(visit: Visit) -> None:
    assert visit.got["rows"] == [{"text": "one"}, {"text": "two"}]
    assert visit.hub.seen("GET /datasets/org/rows/resolve/.*sample")
    assert not visit.hub.seen("GET /datasets/org/rows/resolve/.*crawl")


def test_a_gated_model_needs_the_token(visit: Visit) -> None:
    assert (visit.got["gated"], visit.got["wrong token"]) == ("GatedRepoError", "GatedRepoError")
    assert visit.got["right token"].encode() == CONFIG


def test_no_token_is_seen_where_none_was_given(visit: Visit) -> None:
    given = [request.path for request in visit.hub.requests if "authorization" in request.headers]
    assert {path.split("/resolve/")[0] for path in given} == {"/org/gated"}


def test_what_is_unknown_is_refused_by_its_name(visit: Visit) -> None:
    assert visit.got["no revision"] == "RevisionNotFoundError"
    assert visit.got["no file"] == "RemoteEntryNotFoundError"
    assert visit.got["no repository"] == "RepositoryNotFoundError"


@pytest.mark.parametrize(
    ("asked", "span"),
    [("bytes=100-199", (100, 199)), ("bytes=25000-", (25000, 25599)), ("bytes=-10", (25590, 25599))],
)
def test_a_range_is_answered_with_that_part(hub: HubServer, asked: str, span: tuple[int, int]) -> None:
    response, body = ask(hub, WEIGHTS_PATH, Range=asked)
    assert (response.status, response.headers["Content-Range"]) == (206, f"bytes {span[0]}-{span[1]}/{len(WEIGHTS)}")
    assert body == WEIGHTS[span[0] : span[1] + 1]


def test_a_range_behind_the_end_is_refused(hub: HubServer) -> None:
    response, _ = ask(hub, WEIGHTS_PATH, Range=f"bytes={len(WEIGHTS)}-")
    assert (response.status, response.headers["Content-Range"]) == (416, f"bytes */{len(WEIGHTS)}")


@pytest.mark.parametrize("kind", ["429", "503"])
@pytest.mark.parametrize(("seconds", "said"), [(None, None), (2, "2"), (0.5, "0.5")])
def test_a_busy_hub_says_when_to_come_back(hub: HubServer, kind: str, seconds: float | None, said: str | None) -> None:
    hub.faults = [Fault(kind, "resolve", retry_after=seconds)]
    response, body = ask(hub, WEIGHTS_PATH)
    assert (response.status, response.headers["Retry-After"]) == (int(kind), said)
    assert "error" in json.loads(body)


def test_a_refused_connection_gets_no_response(hub: HubServer) -> None:
    hub.faults = [Fault("refuse", "resolve")]
    with pytest.raises(http.client.RemoteDisconnected):
        ask(hub, WEIGHTS_PATH)
    assert hub.requests[-1].status is None


def test_a_cut_body_ends_half_way(hub: HubServer) -> None:
    hub.faults = [Fault("cut", "resolve")]
    with pytest.raises(http.client.IncompleteRead) as raised:
        ask(hub, WEIGHTS_PATH)
    half = len(WEIGHTS) // 2
    assert (raised.value.partial, raised.value.expected) == (WEIGHTS[:half], half)


def test_a_body_of_the_wrong_size_is_consistent_in_itself_but_not_with_head(hub: HubServer) -> None:
    hub.faults = [Fault("wrong_size", "resolve", times=2)]
    head, _ = ask(hub, WEIGHTS_PATH, "HEAD")
    response, body = ask(hub, WEIGHTS_PATH)
    assert body == WEIGHTS[:-1]
    assert response.headers["Content-Length"] == str(len(body))
    assert head.headers["Content-Length"] == head.headers["X-Linked-Size"] == str(len(WEIGHTS))
    assert hub.faults[0].times == 1


def test_one_byte_is_flipped_and_nothing_else(hub: HubServer) -> None:
    hub.faults = [Fault("flipped_byte", "resolve")]
    response, body = ask(hub, WEIGHTS_PATH)
    assert response.headers["Content-Length"] == str(len(WEIGHTS)) == str(len(body))
    assert [at for at, byte in enumerate(body) if byte != WEIGHTS[at]] == [len(WEIGHTS) // 2]


def test_a_fault_is_used_up_and_spares_what_it_does_not_match(hub: HubServer) -> None:
    hub.faults = [Fault("503", r"GET .*\.safetensors$", times=2)]
    asked = [("GET", "config.json"), ("HEAD", "model.safetensors")] + [("GET", "model.safetensors")] * 3
    statuses = [ask(hub, f"/org/model/resolve/main/{name}", method)[0].status for method, name in asked]
    assert statuses == [200, 200, 503, 503, 200]
