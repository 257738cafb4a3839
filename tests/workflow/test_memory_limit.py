"""A checkpoint larger than what its process may take: a capture runs to the end, the ordinary way does not."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from outlier_features.models.checkpoints import seal
from projects import PROJECT
from small_models import write_windows
from transformers import AutoConfig, AutoModelForCausalLM

pytestmark = pytest.mark.slow

EXPERTS = {
    "vocab_size": 512,
    "hidden_size": 512,
    "moe_intermediate_size": 512,
    "num_experts": 32,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 34,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
}
LIMIT = 2_000_000_000

OURS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from small_models import capture_settings
from outlier_features.capture.run import capture
capture(Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[2]).with_name("out.json"), capture_settings(), {})
"""
ORDINARY = """
import sys
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[2], dtype=torch.float32)
model(input_ids=torch.arange(64)[None])
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture of experts of 0.9 billion parameters, 3.6 GB in float32."""
    directory = tmp_path_factory.mktemp("large") / "model"
    torch.set_default_dtype(torch.bfloat16)
    try:
        built = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3_moe", **EXPERTS))
    finally:
        torch.set_default_dtype(torch.float32)
    assert 4 * sum(parameter.numel() for parameter in built.parameters()) > 1.6 * LIMIT
    built.save_pretrained(directory, max_shard_size="60MB")  # a mapping counts with the whole of its file
    seal(directory, {"path": "test"}, {"checkpoint": "test"})
    return directory


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in a process whose data may take no more than LIMIT bytes."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))

    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        # Arrow's own allocator reserves a gigabyte it does not use, which this limit would count
        env=os.environ | {"PYTHONPATH": str(PROJECT / "workflow"), "ARROW_DEFAULT_MEMORY_POOL": "system"},
        preexec_fn=limit,
        capture_output=True,
        text=True,
    )


def test_a_model_larger_than_its_process_may_be_runs_to_the_end(model: Path, tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(512, size=(2, 64))
    windows = write_windows(tmp_path / "windows.arrow", ids)
    ours = run(OURS, PROJECT / "tests/support", model, windows)
    assert ours.returncode == 0, ours.stderr[-2000:]
    assert model.with_name("out.json").is_file()
    assert "peak memory" in ours.stdout


def test_the_ordinary_way_does_not(model: Path) -> None:
    ordinary = run(ORDINARY, PROJECT / "tests", model)
    assert ordinary.returncode != 0
    assert "memory" in ordinary.stderr.lower()
