"""Ratios of signal and error of every matrix, against float64 NumPy on the inputs of a model of transformers."""

import functools
from pathlib import Path

import fake_quantisation
import numpy as np
import pandas as pd
import pytest
import torch
from families import FAMILIES, VOCABULARY, save_family
from outlier_features.config.variants import Vary
from outlier_features.variants.evaluate import evaluate
from transformers import AutoModelForCausalLM
from varied_models import ids_of, varied

IDS = ids_of(3, VOCABULARY)
FORMATS = ("absmax", "vector_wise", "mxfp4")


def table(folder: Path, name: str, variants: dict) -> tuple[Path, pd.DataFrame]:
    checkpoint = save_family(FAMILIES[name], folder / "model", is_pickled=False)
    found = varied(checkpoint, folder / "out", variants, ids=IDS, settings=Vary(sqnr_windows=2, noise=False))
    outputs = {each: folder / f"{each}.parquet" for each in ("quantization", "sqnr", "interventions")}
    evaluate([found.manifest], folder / "out/tokens.arrow", outputs, {"variants": "test", "tokens": "test"})
    return checkpoint, pd.read_parquet(outputs["sqnr"])


def decibels(signal: float, error: float) -> float:
    return 10 * float(np.log10(signal / error))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_sums_are_those_of_plain_inputs(tmp_path: Path, name: str) -> None:
    checkpoint, found = table(tmp_path, name, {each: {"format": each} for each in FORMATS})
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    inputs: dict[str, list[np.ndarray]] = {}

    def keep(where: str, _module: object, args: tuple) -> None:
        inputs.setdefault(where, []).append(args[0].reshape(-1, args[0].shape[-1]).double().numpy())

    for where, module in model.named_modules():
        if where in set(found["matrix"]):
            module.register_forward_pre_hook(functools.partial(keep, where))
    with torch.inference_mode():
        for row in IDS[:2]:
            model(input_ids=torch.from_numpy(row)[None], use_cache=False)
    assert len(inputs) == len(set(found["matrix"]))
    largest = {where: np.abs(np.concatenate(windows)).max(0) for where, windows in inputs.items()}
    for row in found.to_dict("records"):
        w = model.get_submodule(row["matrix"]).weight.detach().double().numpy()
        w = w.T if name == "gpt2" else w
        w_back = fake_quantisation.MATRICES[row["variant"]](w)
        top = int(largest[row["matrix"]].argmax())
        assert row["top_channel"] == top
        sums = dict.fromkeys(("signal", "error", "signal_rest", "error_rest", "y", "y_error"), 0.0)
        for x in inputs[row["matrix"]]:
            back = fake_quantisation.ROUND_TRIPS[row["variant"]](x)
            rest = np.delete(np.arange(x.shape[1]), top)
            sums["signal"] += (x**2).sum()
            sums["error"] += ((back - x) ** 2).sum()
            sums["signal_rest"] += (x[:, rest] ** 2).sum()
            sums["error_rest"] += ((back - x)[:, rest] ** 2).sum()
            sums["y"] += ((x @ w.T) ** 2).sum()
            sums["y_error"] += ((back @ w_back.T - x @ w.T) ** 2).sum()
        close = functools.partial(pytest.approx, abs=0.1)
        assert row["sqnr_activation_db"] == close(decibels(sums["signal"], sums["error"])), row
        assert row["sqnr_rest_db"] == close(decibels(sums["signal_rest"], sums["error_rest"]))
        assert row["sqnr_output_db"] == close(decibels(sums["y"], sums["y_error"]))
        assert row["signal"] == pytest.approx(sums["signal"], rel=1e-5)


def test_experts_add_up_to_their_matrix(tmp_path: Path) -> None:
    _, found = table(tmp_path, "olmoe", {"absmax": {"format": "absmax"}, "int4": {"format": "int4"}})
    routed = found[found["matrix"].str.contains("experts")]
    keys = ["variant", "block", "matrix"]
    sums = ["signal", "error", "output_signal", "output_error"]
    whole = routed[routed["expert"].isna()].set_index(keys)[sums]
    parts = routed[routed["expert"].notna()].groupby(keys)[sums].sum()
    np.testing.assert_allclose(parts.loc[whole.index].to_numpy(), whole.to_numpy(), rtol=1e-12)
    # each token is sent to two of four experts
    of_attention = found[(found["site"] == "attn_in") & (found["variant"] == "absmax")]
    assert len(whole) == 2 * 2 * found["block"].nunique()
    assert of_attention["expert"].isna().all()


def test_formats_of_no_rounding_lose_nothing_and_one_channel_gains(tmp_path: Path) -> None:
    variants = {
        "none": {"format": "none"},
        "absmax": {"format": "absmax"},
        "k": {"format": "absmax", "keep_channels": 2},
    }
    _, found = table(tmp_path, "llama", variants)
    assert np.isinf(found.loc[found["variant"] == "none", "sqnr_output_db"]).all()
    planted = found[(found["variant"] == "absmax") & (found["site"] == "attn_in")]
    assert set(planted["top_channel"]) <= {3, 17}
    assert (planted["gain_top_channel_db"] > 0.1).all()
    assert (planted.loc[planted["block"] == 0, "gain_top_channel_db"] > 4).all()
    kept = found[found["variant"] == "k"]
    assert kept["gain_top_channel_db"].isna().all()
    assert (kept["kept_channels"] == 2).all()
