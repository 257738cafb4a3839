"""Results in an object store: the same bytes as on a disk, in a store that a server of our own keeps."""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import PROJECT, copy_of, words_project, write_config

pytestmark = pytest.mark.slow

OVERLAY = PROJECT / ".venv/storage"
TARGETS = ("results/words/reproduction.csv", "results/plots/moe_vs_dense.png")
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
LIST = """
import hashlib, json, sys, boto3
bucket = boto3.resource("s3", endpoint_url=sys.argv[1], region_name="us-east-1").Bucket("sweeps")
digests = {item.key: hashlib.sha256(item.get()["Body"].read()).hexdigest() for item in bucket.objects.all()}
print(json.dumps(digests))
"""


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an object store that begins empty."""
    if not (OVERLAY / ".ready").exists():
        pytest.skip("needs the plugin and the server of envs/storage.lock: run `make storage`")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (tmp_path_factory.mktemp("server") / "log").open("w") as log:
        server = subprocess.Popen(command, env=with_overlay(), stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address)
        yield address
    finally:
        server.kill()
        server.wait()


def wait_for(address: str) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"no object store at {address} after a minute")


def with_overlay() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(OVERLAY), "HF_HUB_OFFLINE": "1", "TERM": "dumb"} | KEYS


def snakemake(project: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "snakemake", *TARGETS, *arguments, "--cores", "1", "--resources", "gpu=1"]
    ended = subprocess.run(command, cwd=project, env=with_overlay(), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def with_one_model(config: dict) -> None:
    config["experiments"]["demo"]["models"] = ["moe"]


def test_results_in_an_object_store_are_those_on_a_disk_to_the_byte(
    endpoint: str, finished: Path, tmp_path: Path
) -> None:
    here = copy_of(finished, tmp_path / "here")
    write_config(here, with_one_model)
    snakemake(here)
    there = words_project(tmp_path / "there", with_one_model)
    for folder in ("checkpoints", "words/tokens", "words/statistics"):  # what stays on a disk, with its metadata
        shutil.copytree(here / "results" / folder, there / "results" / folder)
    shutil.copytree(here / ".snakemake/metadata", there / ".snakemake/metadata")
    store = ("--default-storage-provider", "s3", "--default-storage-prefix", "s3://sweeps/words")
    store += ("--storage-s3-endpoint-url", endpoint)
    planned = snakemake(there, "-n", *store)
    assert not re.search(r"^(train|tokenize|capture) ", planned, re.MULTILINE)
    snakemake(there, *store)
    listed = subprocess.run([sys.executable, "-c", LIST, endpoint], env=with_overlay(), capture_output=True, check=True)
    digests = {
        name.removeprefix("words/"): digest
        for name, digest in json.loads(listed.stdout).items()
        if "/logs/" not in name
    }
    assert set(TARGETS) <= digests.keys()
    assert {"results/words/layers/moe.parquet", "results/words/perplexity/moe.json"} <= digests.keys()
    assert not any(part in name for name in digests for part in ("checkpoints", "tokens", "statistics"))
    assert digests == {name: hashlib.sha256((here / name).read_bytes()).hexdigest() for name in digests}
    assert not list((there / "results").glob("plots"))
    assert not list((there / "results/words").glob("*.csv"))
    assert "Nothing to be done" in snakemake(there, "-n", *store)
