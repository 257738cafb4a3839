"""Outlier channels equal a naive float64 computation, in the form that is documented."""

import numpy as np
import pandas as pd
import pytest
import torch
from exports import DEFINITIONS, Exported, consumers
from naive_features import naive_features
from outlier_features.capture.run import capture
from outlier_features.config.entries import Definition
from small_models import BLOCKS, DENSE, PLANTED, capture_settings, save_checkpoint


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_outlier_channels_equal_the_naive_float64_computation(kind, name, relative, exported, inputs) -> None:
    definition, readers = DEFINITIONS[name], consumers(kind)
    raw = {
        site: [inputs[kind][readers[f"{block}.{site}"][-1]] for block in range(BLOCKS)]
        for site in ("attn_in", "out_proj_in", "mlp_in")
    }
    features = naive_features(raw, definition, relative)
    each = definition.model_copy(update={"scope": "sequence"})
    qualifying = naive_features(raw, each, relative)["channel"].value_counts()
    found = exported[kind].channels["definitions"][name + "_rms" * relative]
    assert found["channels"] == sorted(set(features["channel"]))
    assert set(PLANTED) & set(found["channels"])
    assert found["threshold_unit"] == ("rms" if relative else "absolute")
    expected = {}
    for block in range(BLOCKS):
        for site in definition.sites:
            x_STC = raw[site][block]
            if definition.rounding and not relative:
                x_STC = torch.from_numpy(x_STC).bfloat16().double().numpy()
            unit = np.sqrt((x_STC**2).mean((1, 2), keepdims=True)) if relative else 1
            for channel in found["channels"]:
                values = x_STC[:, :, channel]
                share = (np.abs(x_STC / unit)[:, :, channel] >= definition.threshold).mean()
                largest = values.flat[np.abs(values).argmax()]
                if share:
                    key = block, site, channel
                    expected[key] = largest, abs(largest), share, qualifying.get(channel, 0)
    keys = ("max_value", "max_abs", "position_share", "qualifying_sequences")
    assert expected == {
        (tensor["block"], tensor["site"], channel["channel"]): pytest.approx([channel[key] for key in keys])
        for tensor in found["tensors"]
        for channel in tensor["channels"]
    }
    for tensor in found["tensors"]:
        assert tensor["modules"] == readers[f"{tensor['block']}.{tensor['site']}"]


def test_outlier_channels_agree_with_the_table_of_channels(exported) -> None:
    found = exported["moe"].channels["definitions"]["llm_int8"]
    table = pd.read_parquet(exported["moe"].entry.outliers.with_name("channels.parquet"))
    table = table[(table["definition"] == "llm_int8") & table["is_outlier"]]
    expected = set(zip(table["block"], table["site"], table["channel"], table["max_value"], strict=True))
    assert expected == {
        (tensor["block"], tensor["site"], channel["channel"], channel["max_value"])
        for tensor in found["tensors"]
        for channel in tensor["channels"]
    }


def test_without_outlier_features_lists_are_empty_and_the_table_says_so(manifests, tokens, tmp_path) -> None:
    none = {"none": Definition(sites=("mlp_in",), threshold=8.0, min_layers=1.0, min_positions=1.0)}
    found = Exported(tmp_path, [manifests["dense"]], tokens, definitions=none)
    definition = found.channels["definitions"]["none"]
    assert (definition["channels"], definition["tensors"], definition["gap"]) == ([], [], None)
    assert "| none | 0 | 0 | - | - |" in found.text("table.md")
    assert "none & 0 & 0 & -- & -- \\\\" in found.text("table.tex")
    assert "Where no outlier feature was found there is no mean share." in found.text("table.md")


def test_a_definition_without_an_answer_is_null_and_says_why(tokens, tmp_path) -> None:
    checkpoint = save_checkpoint(tmp_path / "wide", DENSE | {"head_dim": 12})
    manifest = tmp_path / "wide.statistics.json"
    capture(checkpoint, tokens, manifest, capture_settings(), {"statistics": "test"})
    found = Exported(tmp_path, [manifest], tokens)
    gap = found.channels["definitions"]["llm_int8_paper"]
    assert (gap["channels"], gap["tensors"]) == (None, None)
    assert "48 channels" in gap["gap"]
    assert found.channels["definitions"]["llm_int8"]["channels"]
    assert "| llm_int8_paper | - | - | - | - |" in found.text("table.md")
    assert "llm_int8_paper: out_proj_in has 48 channels in block" in found.text("table.md")
    assert found.tensors("act_scales")["model.layers.0.self_attn.o_proj"].shape == (48,)
