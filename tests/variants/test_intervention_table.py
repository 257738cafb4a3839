"""Interventions on a toy mixture in which one channel drives the routing, and the level of their p-values."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from families import FAMILIES, VOCABULARY, save_family
from outlier_features.config.variants import Vary
from outlier_features.variants.evaluate import evaluate
from outlier_features.variants.intervention_table import p_value
from safetensors.torch import load_file, save_file
from varied_models import ids_of, varied

DRIVER, DECOY = 3, 17
IDS = ids_of(4, VOCABULARY)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture whose routers read one large channel, and not another as large."""
    folder = save_family(FAMILIES["olmoe"], tmp_path_factory.mktemp("planted") / "model", is_pickled=False)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    for name in set(index.values()):
        tensors = load_file(folder / name)
        for key, values in tensors.items():
            if key.endswith("post_attention_layernorm.weight"):
                values[[DRIVER, DECOY]] = 8.0
            if key.endswith("mlp.gate.weight"):
                values.mul_(0.2)
                values[:, DRIVER] = torch.linspace(-1, 1, len(values))
                values[:, DECOY] = 0
        save_file(tensors, folder / name, metadata={"format": "pt"})
    return folder


def table(checkpoint: Path, folder: Path, interventions: dict) -> pd.DataFrame:
    found = varied(checkpoint, folder, {}, interventions, ids=IDS, settings=Vary(sqnr_windows=0))
    outputs = {each: folder / f"{each}.parquet" for each in ("quantization", "sqnr", "interventions")}
    evaluate([found.manifest], folder / "tokens.arrow", outputs, {"variants": "test", "tokens": "test"})
    return pd.read_parquet(outputs["interventions"])


def test_the_channel_that_drives_routing_is_found_and_a_decoy_of_its_size_is_not(planted: Path, tmp_path: Path) -> None:
    controls = {"random": 19, "equal_size": 39}
    found = table(
        planted,
        tmp_path,
        {
            name: {"channels": [channel], "at": ["router"], "controls": controls}
            for name, channel in (("driver", DRIVER), ("decoy", DECOY))
        },
    )
    real = found[found["kind"] == "real"].set_index("intervention")
    assert real.loc["driver", "jaccard"] < 0.6
    assert real.loc["driver", "p_random_jaccard"] == pytest.approx(1 / 20)
    assert real.loc["driver", "p_equal_size_jaccard"] <= 0.05
    assert real.loc["driver", "p_equal_size_routing_kl"] <= 0.05
    assert real.loc["decoy", "jaccard"] == 1.0
    assert real.loc["decoy", "routing_kl"] == pytest.approx(0, abs=1e-9)
    assert real.loc["decoy", ["p_random_jaccard", "p_equal_size_jaccard"]].tolist() == [1.0, 1.0]
    plain = found[found["kind"] == "plain"].iloc[0]
    assert (plain["jaccard"], plain["delta_nll"]) == (1.0, 0.0)
    assert plain["load_entropy"] <= 2.0


def test_experts_alone_and_router_alone_are_what_they_say(planted: Path, tmp_path: Path) -> None:
    every = {"driver": {"channels": [DRIVER], "at": ["mlp_in"]}, "experts": {"channels": [DRIVER], "at": ["experts"]}}
    every["both"] = {"channels": [DRIVER], "at": ["router", "experts"]}
    one_block = {name: entry | {"blocks": [2]} for name, entry in every.items()}
    found = table(planted, tmp_path, one_block)
    real = found[found["kind"] == "real"].set_index("intervention")
    assert real.loc["experts", "jaccard"] == 1.0
    assert real.loc["experts", "routing_kl"] == pytest.approx(0, abs=1e-12)
    assert real.loc["experts", "delta_nll"] != 0
    assert real.loc["driver", "jaccard"] < 1
    assert real.loc["both", "delta_nll"] == real.loc["driver", "delta_nll"]


def test_p_values_count_draws_at_least_as_strong() -> None:
    assert p_value(2.0, [1.0, 3.0, 2.0]) == pytest.approx(3 / 4)
    assert p_value(5.0, [1.0] * 39) == pytest.approx(1 / 40)
    assert p_value(5.0, [np.nan] * 3 + [1.0]) == pytest.approx(1 / 2)
    assert np.isnan(p_value(5.0, []))
    assert np.isnan(p_value(np.nan, [1.0]))


def test_p_values_of_null_interventions_are_uniform(planted: Path, tmp_path: Path) -> None:
    """200 interventions that are draws of their own controls: as many p-values below a level as the level says."""
    generator = np.random.default_rng(0)
    others = [channel for channel in range(32) if channel not in (DRIVER, DECOY)]
    found = table(
        planted,
        tmp_path,
        {
            f"null{n}": {
                "channels": [int(generator.choice(others))],
                "at": ["attn_in"],
                "blocks": [1],
                "controls": {"random": 1},
                "seed": n,
            }
            for n in range(200)
        },
    )
    drawn = found[(found["kind"] == "random") & ~found["channels"].map(lambda c: bool({DRIVER, DECOY} & set(c)))]
    sizes = drawn["delta_nll"].abs().to_numpy()
    real = found.loc[found["kind"] == "real", "delta_nll"].abs().to_numpy()
    p = np.array([p_value(each, generator.choice(sizes, 39)) for each in real])
    for level in (0.05, 0.1, 0.25, 0.5):
        spread = 3.5 * np.sqrt(level * (1 - level) / len(p)) + 1 / 40
        assert abs((p <= level).mean() - level) < spread, level
