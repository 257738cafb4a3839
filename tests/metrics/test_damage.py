"""Predicted damage is near what quantising the same activations loses, format by format."""

import activations
import fake_quantisation
import numpy as np
import pandas as pd
import pytest
from kept_magnitudes import Kept, statistics
from outlier_features.metrics import intervals
from outlier_features.metrics.damage import DAMAGE_COLUMNS, damage
from outlier_features.metrics.quantisers import FORMATS

WITHIN_DB = {
    "absmax": 0.1,
    "row_wise": 0.1,
    "zeropoint": 0.1,
    "zeropoint_vector": 0.8,
    "w8a8_static": 0.4,
    "int4": 0.1,
    "fp8_tensor": 0.3,
    "fp8_token": 0.4,
    "mxfp8": 0.5,
    "mxfp4": 0.5,
    "nvfp4": 0.7,
}
"""How far predictions are from quantising at most, of the activations drawn here; medians are a third of it or less."""


def of_one(table: pd.DataFrame, name: str) -> pd.Series:
    return table[table["format"] == name].iloc[0]


@pytest.mark.parametrize("kind", activations.KINDS)
def test_every_format_is_predicted_near_what_quantising_loses(kind: str) -> None:
    x_STC = activations.windows(kind)
    table = damage(statistics(attn_in=x_STC))
    assert list(table["format"]) == list(FORMATS)
    for name, within in WITHIN_DB.items():
        found = of_one(table, name)
        for column, options in (
            ("predicted_sqnr_db", {}),
            ("predicted_sqnr_rest_db", {"without_channel": True}),
            ("predicted_sqnr_without_first_db", {"without_first": 1}),
        ):
            direct = fake_quantisation.sqnr_db(x_STC, name, **options)
            assert found[column] == pytest.approx(direct, abs=within), (name, column)


def test_rows_of_position_0_are_as_many_as_experts_were_chosen_there() -> None:
    x_STC = activations.windows("gated")
    table = damage(Kept([{"down_in": x_STC}], {"down_in": 4}))
    for name in ("absmax", "row_wise", "mxfp4"):
        found = of_one(table, name)["predicted_sqnr_without_first_db"]
        assert found == pytest.approx(fake_quantisation.sqnr_db(x_STC, name, without_first=4), abs=WITHIN_DB[name])


@pytest.mark.parametrize("name", FORMATS)
def test_position_0_is_exact(name: str) -> None:
    x_STC = activations.windows("planted", 1, (2, 64))
    x_STC[0][1] = 0
    found = of_one(damage(statistics(attn_in=x_STC)), name)["predicted_sqnr_db"]
    direct = fake_quantisation.sqnr_db(x_STC, name)
    assert found == pytest.approx(direct, abs=0.5 if name == "w8a8_static" else 1e-6)


def test_values_on_the_grid_lose_nothing() -> None:
    x_TC = np.zeros((8, 32))
    x_TC[:, 0] = 127.0
    table = damage(statistics(attn_in=[x_TC]))
    assert of_one(table, "row_wise")["predicted_sqnr_db"] == np.inf
    assert of_one(table, "row_wise")["rank"] == 1


def test_a_tensor_of_zeros_and_a_window_of_one_token_are_no_error() -> None:
    zeros = damage(statistics(attn_in=[np.zeros((4, 16))] * 2))
    assert np.isinf(zeros["predicted_sqnr_db"]).all()
    one = damage(statistics(attn_in=activations.windows("random", 2, (1, 64))))
    assert of_one(one, "absmax")["predicted_sqnr_db"] > 30
    assert np.isfinite(one["predicted_sqnr_db"]).all()


def test_what_an_older_capture_did_not_keep_gives_no_row_but_the_columns() -> None:
    whole = statistics(attn_in=activations.windows("random", 2, (8, 32)))
    for missing in ("mmr", "first_rows", "magnitudes_rest", "block16_rest", "block32_rest"):
        table = damage(whole.without(missing))
        assert table.empty
        assert {name: str(kind) for name, kind in table.dtypes.items()} == DAMAGE_COLUMNS | {
            "site": table["site"].dtype.name,
            "format": table["format"].dtype.name,
        }


def test_rank_1_loses_most_and_its_interval_holds_it() -> None:
    loud, plain, heavy = (activations.windows(kind, 4, (64, 64)) for kind in ("planted", "random", "heavy"))
    sites = [{"attn_in": plain, "mlp_in": heavy}, {"attn_in": loud}]
    table = damage(Kept(sites))
    for _, own in table.groupby("format"):
        assert sorted(own["rank"]) == [1, 2, 3]
        assert own.sort_values("rank")["predicted_sqnr_db"].is_monotonic_increasing
        assert ((own["rank_low"] <= own["rank"]) & (own["rank"] <= own["rank_high"])).all()
    absmax = table[table["format"] == "absmax"].set_index(["block", "site"])["rank"]
    assert absmax[1, "attn_in"] < absmax[0, "mlp_in"] < absmax[0, "attn_in"]


def test_one_window_has_no_interval_and_eight_have_that_of_a_ratio() -> None:
    one = damage(statistics(attn_in=activations.windows("random", 1, (16, 32))))
    assert one[["sqnr_low", "sqnr_high", "rank_low", "rank_high"]].isna().all(axis=None)
    sizes = np.linspace(1, 1.5, 8)
    x_STC = [size * x for size, x in zip(sizes, activations.windows("random", 8, (64, 64)), strict=True)]
    found = of_one(damage(statistics(attn_in=x_STC)), "absmax")
    trips = fake_quantisation.round_trips(x_STC, "absmax")
    signal_S = np.array([(x**2).sum() for x in x_STC])
    error_S = np.array([((x - y) ** 2).sum() for x, y in zip(x_STC, trips, strict=True)])
    direct = intervals.ratio(signal_S, error_S)
    assert found["sqnr_low"] == pytest.approx(10 * np.log10(direct.low), abs=0.3)
    assert found["sqnr_high"] == pytest.approx(10 * np.log10(direct.high), abs=0.2)
    assert found["sqnr_low"] < found["predicted_sqnr_db"] < found["sqnr_high"]


def test_tokens_flip_whose_margin_is_below_the_noise_of_two_logits() -> None:
    x_STC = activations.windows("random", 2, (200, 64))
    kept = Kept([{"attn_in": x_STC, "mlp_in": x_STC}])
    margins = np.linspace(0, 0.5, 200)
    for window in range(2):
        kept.add(0, site="router", window=window, router_margin=margins.tolist(), router_distance=3.0)
    table = damage(kept)
    for name in ("absmax", "mxfp4"):
        trips = fake_quantisation.round_trips(x_STC, name)
        noise_S = [3.0 * np.sqrt(((x - y) ** 2).mean()) for x, y in zip(x_STC, trips, strict=True)]
        own = table[table["format"] == name].set_index("site")["router_flip_share"]
        assert own["mlp_in"] == pytest.approx(np.mean([(margins < noise).mean() for noise in noise_S]), abs=0.02)
        assert np.isnan(own["attn_in"])


def test_a_router_without_margins_says_nothing_of_flips() -> None:
    kept = statistics(mlp_in=activations.windows("random", 1, (8, 32)))
    kept.add(0, site="router", window=0, expert_count=4)
    assert damage(kept)["router_flip_share"].isna().all()
