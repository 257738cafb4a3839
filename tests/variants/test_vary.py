"""A pass with variants: each as in a run of its own, resumed and in parts to the same numbers, bad input refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, VOCABULARY, save_family
from outlier_features.capture import resume
from outlier_features.config.variants import Vary
from outlier_features.errors import ArchitectureError, ConfigError, NonFiniteActivations, OutOfMemory
from outlier_features.variants import observer
from outlier_features.variants.runs import Found
from safetensors.torch import load_file, save_file
from varied_models import Varied, ids_of, varied

VARIANTS: dict[str, Any] = {
    "none": {"format": "none"},
    "llm": {"format": "vector_wise", "keep_above": 2.0},
    "static": {"format": "w8a8_static"},
    "smooth": {"format": "absmax", "smooth": 0.5},
    "rotated": {"format": "int4", "rotate": 4},
    "kept": {"format": "nvfp4", "keep_channels": 2},
    "late": {"format": "mxfp4", "blocks": [1, 2]},
    "down": {"format": "absmax", "sites": ["down_in"], "weights_only": True},
}
CONTROLS = {"random": 1, "equal_size": 1}
INTERVENTIONS: dict[str, Any] = {
    "channels": {"channels": [3, 17], "set_to": ["zero", "mean"], "controls": CONTROLS},
    "late_channels": {"channels": [3], "at": ["mlp_in"], "blocks": [2], "controls": CONTROLS},
}
ROUTED: dict[str, Any] = {
    "router": {"channels": [3], "at": ["router"], "set_to": ["mean"]},
    "experts": {"channels": [3], "at": ["experts"]},
    "silent": {"experts": {2: [0, 1]}, "controls": {"random": 1}},
}
IDS, TRAINING = ids_of(4, VOCABULARY), ids_of(3, VOCABULARY, seed=5)
FAMILY_NAMES = ("llama", "gpt2", "opt", "olmoe", "qwen3-moe", "glm4-moe", "gpt-oss")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in made:
            made[name] = save_family(FAMILIES[name], tmp_path_factory.mktemp(name) / "model", is_pickled=False)
        return made[name]

    return of


def everything(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return VARIANTS, INTERVENTIONS | (ROUTED if "moe" in name or name == "gpt-oss" else {})


def assert_same(found: Varied, wanted: Varied) -> None:
    assert found.losses.keys() == wanted.losses.keys()
    for key, losses in wanted.losses.items():
        np.testing.assert_array_equal(found.losses[key], losses, err_msg=key)
    assert found.sqnr == wanted.sqnr
    assert found.effects == wanted.effects


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_each_variant_is_bit_equal_to_a_run_of_its_own(
    checkpoint: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    variants, interventions = everything(name)
    together = varied(checkpoint(name), tmp_path / "all", variants, interventions, ids=IDS, calibration=TRAINING)
    np.testing.assert_array_equal(together.losses["none/format"], together.losses["plain"])
    seen = {"plain"}
    for own in [*({key: value} for key, value in variants.items())]:
        alone = varied(checkpoint(name), tmp_path / next(iter(own)), own, ids=IDS, calibration=TRAINING)
        for key, losses in alone.losses.items():
            np.testing.assert_array_equal(together.losses[key], losses, err_msg=key)
            seen.add(key)
        assert [row for row in together.sqnr if row["variant"] in own] == alone.sqnr
    for key, value in interventions.items():
        alone = varied(checkpoint(name), tmp_path / key, {}, {key: value}, ids=IDS, calibration=TRAINING)
        for run, losses in alone.losses.items():
            np.testing.assert_array_equal(together.losses[run], losses, err_msg=run)
            seen.add(run)
    assert seen == set(together.losses)
    changed = [key for key, losses in together.losses.items() if not np.array_equal(losses, together.losses["plain"])]
    assert set(together.losses) - set(changed) <= {"plain", "none/format", "none/noise"}


@pytest.mark.parametrize("name", ["llama", "qwen3-moe"])
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_stopped_pass_resumes_to_the_same_bits(
    checkpoint: Callable[[str], Path], tmp_path: Path, name: str, stopped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants, interventions = everything(name)
    whole = varied(checkpoint(name), tmp_path / "whole", variants, interventions, ids=IDS, calibration=TRAINING)
    monkeypatch.setattr(resume.Unfinished, "is_due", lambda self: True)
    original = observer.VariantObserver.begin

    def begin(self: Any, block: int, reading: Any) -> None:
        if block == stopped + 1 and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        began.append(block)
        original(self, block, reading)

    began: list[int] = []
    monkeypatch.setattr(observer.VariantObserver, "begin", begin)
    with pytest.raises(KeyboardInterrupt):
        varied(checkpoint(name), tmp_path / "stopped", variants, interventions, ids=IDS, calibration=TRAINING)
    (tmp_path / "again").mkdir()
    began.clear()
    resumed = varied(checkpoint(name), tmp_path / "stopped", variants, interventions, ids=IDS, calibration=TRAINING)
    assert began[0] == stopped + 1
    assert_same(resumed, whole)


def test_parts_have_the_numbers_of_one_pass(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    options: dict[str, Any] = {"ids": IDS, "settings": Vary(sqnr_windows=3)}
    whole = varied(checkpoint("olmoe"), tmp_path, VARIANTS, INTERVENTIONS | ROUTED, name="whole", **options)
    parts = [
        varied(
            checkpoint("olmoe"),
            tmp_path,
            VARIANTS,
            INTERVENTIONS | ROUTED,
            chosen=chosen,
            name=f"part{chosen}",
            **options,
        )
        for chosen in ([0, 1], [2, 3])
    ]
    for key, losses in whole.losses.items():
        np.testing.assert_array_equal(np.concatenate([part.losses[key] for part in parts]), losses, err_msg=key)
    places = ("variant", "block", "matrix", "expert")
    sums = [{tuple(row[place] for place in places): row for row in each.sqnr} for each in (whole, *parts)]
    for place, row in sums[0].items():
        own = [each[place] for each in sums[1:] if place in each]
        assert sum(each["windows"] for each in own) == row["windows"]
        assert sum(each["error"] for each in own) == pytest.approx(row["error"], rel=1e-12)
        assert {each["top_channel"] for each in own} == {row["top_channel"]}


def test_bfloat16_and_every_way_of_experts_run(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    for way in ("grouped_mm", "eager"):
        found = varied(
            checkpoint("qwen3-moe"),
            tmp_path / way,
            VARIANTS,
            INTERVENTIONS | ROUTED,
            ids=IDS,
            dtype=torch.bfloat16,
            experts_implementation=way,
        )
        np.testing.assert_array_equal(found.losses["none/format"], found.losses["plain"])
        assert all(np.isfinite(losses).all() for losses in found.losses.values())


BAD: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "beyond the width": ("llama", {}, {"i": {"channels": [32]}}, "interventions.i.channels: 32 is no channel of model"),
    "router of dense": ("llama", {}, {"i": {"channels": [3], "at": ["router"]}}, "is dense and has no router; give"),
    "experts of dense": ("llama", {}, {"i": {"experts": {0: [1]}}}, "is dense and has no experts"),
    "no such block": ("llama", {"v": {"format": "absmax", "blocks": [3]}}, {}, "has blocks 0 to 2"),
    "no such expert": ("olmoe", {}, {"i": {"experts": {1: [9]}}}, "has experts 0 to 3"),
    "too few windows": ("llama", {"v": {"format": "w8a8_static", "windows": 9}}, {}, "asks for 9 .* lower windows"),
    "no training": ("llama", {"v": {"format": "absmax", "calibration": "training"}}, {}, "there are 0; .*measured"),
    "no hadamard": ("llama", {"v": {"format": "absmax", "rotate": 128}}, {}, "no multiple of blocks of 128"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_a_model_or_text_cannot_have_is_said_at_once(
    checkpoint: Callable[[str], Path], tmp_path: Path, case: str
) -> None:
    name, variants, interventions, words = BAD[case]
    with pytest.raises(ConfigError, match=words):
        varied(checkpoint(name), tmp_path, variants, interventions, ids=IDS)
    assert not list(tmp_path.glob("model*"))


def test_a_matrix_that_saw_no_quantised_input_is_named(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.llama.modeling_llama import LlamaMLP

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        gate = torch.nn.functional.linear(x, self.gate_proj.weight)  # its module is not called
        return self.down_proj(self.act_fn(gate) * self.up_proj(x))

    monkeypatch.setattr(LlamaMLP, "forward", forward)
    with pytest.raises(ArchitectureError, match=r"gate_proj"):
        varied(checkpoint("llama"), tmp_path, {"v": {"format": "absmax"}}, ids=IDS)


def test_a_variant_that_overflows_is_reported_and_the_others_run(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    save_family(FAMILIES["llama"], folder, is_pickled=False)
    variants = {"a": {"format": "absmax"}, "b": {"format": "vector_wise"}}
    from outlier_features.variants.options.treatment import Treatment

    original = Treatment.input

    def broken(self: Treatment, x: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        return x * torch.inf if self.format.activations.__class__.__name__ == "PerTensor" else original(self, x, whole)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Treatment, "input", broken)
        found = varied(folder, tmp_path / "out", variants, ids=IDS)
    assert np.isnan(found.losses["a/format"]).any()
    assert np.isfinite(found.losses["b/format"]).all()


def test_a_plain_model_without_losses_is_refused(tmp_path: Path) -> None:
    folder = save_family(FAMILIES["llama"], tmp_path / "model", is_pickled=False)
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        for name in tensors:
            if name.endswith("1.mlp.down_proj.weight"):
                tensors[name][0] = torch.nan
        save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(NonFiniteActivations, match="without any change"):
        varied(folder, tmp_path / "out", {"v": {"format": "none"}}, ids=IDS)


def test_findings_of_a_capture_are_what_interventions_name(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    interventions = {"d": {"channels": "llm_int8"}, "s": {"experts": "super"}, "n": {"channels": [3, 17]}}
    found = Found({"d": (3, 17)}, {1: (2,)})
    got = varied(checkpoint("olmoe"), tmp_path, {}, interventions, ids=IDS, found=found)
    np.testing.assert_array_equal(got.losses["d/real/zero"], got.losses["n/real/zero"])
    assert not np.array_equal(got.losses["s/real/zero"], got.losses["plain"])
    nothing = varied(checkpoint("olmoe"), tmp_path / "none", {}, interventions, ids=IDS, found=Found({"d": ()}, {}))
    np.testing.assert_array_equal(nothing.losses["d/real/zero"], nothing.losses["plain"])
    np.testing.assert_array_equal(nothing.losses["s/real/zero"], nothing.losses["plain"])


def test_short_memory_says_how_many_runs_would_fit(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(self: Any, block: int, reading: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(observer.VariantObserver, "begin", begin)
    with pytest.raises(
        OutOfMemory, match=r"block 0; by the plan 3 runs take 0\.\d\d GB and \d would fit\. Ask for fewer"
    ):
        varied(checkpoint("llama"), tmp_path, {"v": {"format": "absmax"}}, ids=IDS)


@pytest.mark.parametrize("name", ["llama", "glm4-moe"])
def test_the_noise_of_a_variant_is_nothing_where_its_inputs_do_not_change(
    checkpoint: Callable[[str], Path], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observer, "NOISE", 1.0)
    found = varied(checkpoint(name), tmp_path, VARIANTS, ids=IDS, calibration=TRAINING)
    for variant in VARIANTS:
        np.testing.assert_array_equal(found.losses[f"{variant}/noise"], found.losses[f"{variant}/format"], variant)
