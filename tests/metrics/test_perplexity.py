"""Perplexity: small cases worked out by hand."""

# Shapes: S sequence, T position.

import json
import math
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from outlier_features.artefacts import provenance
from outlier_features.errors import StaleFile
from outlier_features.metrics import intervals
from outlier_features.metrics.bootstrap import resampling_counts
from outlier_features.metrics.perplexity import digest, perplexity, write_perplexity
from outlier_features.statistics import schemas, shards
from outlier_features.text.windows import NO_TOKEN, SCHEMA, TokenWindows

CUT = {"window": 3, "stride": 3, "bos": False}
LN2 = math.log(2)


def packed(bytes_ST: list[list[int]], scored_from_S: list[int] | None = None) -> TokenWindows:
    widths = np.array(bytes_ST, np.int32)
    first = np.array(scored_from_S or [1] * len(widths), np.int32)
    return TokenWindows(np.zeros_like(widths), widths, first, {"cut": CUT})


def random_case() -> tuple[np.ndarray, TokenWindows]:
    generator = np.random.default_rng(0)
    losses = generator.gamma(4, 0.8, size=(16, 63)).astype(np.float32)
    return losses, packed(generator.integers(1, 9, size=(16, 64)).tolist())


def test_perplexity_is_exp_of_the_mean_loss_over_all_predicted_tokens() -> None:
    losses = np.array([[1, 2], [3, 1]]) * LN2
    found = perplexity(losses, packed([[1, 1, 1], [1, 1, 1]]), [0, 1])
    assert found["loss"] == pytest.approx(7 / 4 * LN2)
    assert found["perplexity"] == pytest.approx(2 ** (7 / 4))
    assert found["tokens"] == 4


def test_bits_per_byte_count_the_bytes_of_the_predicted_tokens_only() -> None:
    losses = np.array([[1, 2], [3, 1]]) * LN2  # 7 bits
    found = perplexity(losses, packed([[100, 4, 5], [50, 3, 2]]), [0, 1])
    assert found["bytes"] == 14
    assert found["bits_per_byte"] == pytest.approx(0.5)


def test_the_mean_is_over_tokens_and_not_over_windows() -> None:
    # two tokens are new in the first window, one in the second
    losses = np.array([[2, 2], [1000, 8]]) * LN2
    found = perplexity(losses, packed([[1, 1, 1], [1, 1, 1]], [1, 2]), [0, 1])
    assert found["perplexity"] == pytest.approx(2**4)


def test_what_an_earlier_window_predicted_counts_neither_as_loss_nor_as_token_nor_as_bytes() -> None:
    losses = np.array([[1, 1, 1], [500, 2, 3], [500, 500, 4]]) * LN2
    windows = packed([[9, 1, 1, 1], [9, 90, 2, 2], [9, 90, 900, 3]], [1, 2, 3])
    found = perplexity(losses, windows, [0, 1, 2])
    assert found["tokens"] == 6
    assert found["bytes"] == 10
    assert found["loss"] == pytest.approx(2 * LN2)
    assert found["bits_per_byte"] == pytest.approx(12 / 10)


def test_losses_meet_the_windows_they_were_made_of() -> None:
    windows = packed([[1, 7, 7], [1, 2, 3], [1, 4, 1]], [1, 1, 2])
    found = perplexity(np.array([[6, 4], [99, 5]]) * LN2, windows, [1, 2])
    assert found["sequences"] == 2
    assert found["tokens"] == 3
    assert found["bytes"] == 2 + 3 + 1
    assert found["bits_per_byte"] == pytest.approx(15 / 6)


def ragged_windows(bytes_of: list[list[int]], cut: dict) -> TokenWindows:
    longest = max(map(len, bytes_of))
    ids = np.array([[0] * len(row) + [NO_TOKEN] * (longest - len(row)) for row in bytes_of], np.int32)
    widths = np.array([row + [0] * (longest - len(row)) for row in bytes_of], np.int32)
    return TokenWindows(ids, widths, np.ones(len(bytes_of), np.int32), {"cut": cut})


def test_a_shorter_window_counts_as_far_as_it_goes() -> None:
    losses = np.array([[1, 3, np.nan, np.nan], [2, 2, 5, 6]]) * LN2
    found = perplexity(losses, ragged_windows([[9, 1, 2], [9, 1, 1, 1, 4]], CUT), [0, 1])
    assert (found["tokens"], found["bytes"]) == (6, 10)
    assert found["loss"] == pytest.approx(19 / 6 * LN2)
    assert found["bits_per_byte"] == pytest.approx(19 / 10)
    assert "note" not in found


CUT_2025 = {"window": 4, "stride": 2, "bos": False, "windows": "arb8020"}


def test_the_windows_of_2025_are_cut_to_their_length_and_weigh_by_tokens_and_not_by_predictions() -> None:
    # mean losses of 2 bits over 3 tokens, of 3 bits over 4 tokens; the fifth token of the second window is left out
    losses = np.array([[1, 3, np.nan, np.nan], [2, 2, 5, 99]]) * LN2
    found = perplexity(losses, ragged_windows([[9, 1, 2], [9, 1, 1, 1, 50]], CUT_2025), [0, 1])
    assert found["loss"] == pytest.approx((3 * 2 + 4 * 3) / (3 + 4) * LN2)
    assert found["perplexity"] == pytest.approx(2 ** (18 / 7))
    assert (found["tokens"], found["bytes"]) == (2 + 3, 3 + 3)
    assert found["bits_per_byte"] == pytest.approx((1 + 3 + 2 + 2 + 5) / 6)
    assert {name: found[name] for name in CUT_2025} == CUT_2025
    assert "count twice" in found["note"]


def test_the_interval_of_the_windows_of_2025_weighs_windows_by_their_tokens() -> None:
    generator = np.random.default_rng(1)
    lengths = generator.integers(5, 12, size=8)
    windows = ragged_windows([[1] * length for length in lengths], CUT_2025 | {"window": 9})
    losses = np.full((8, lengths.max() - 1), np.nan)
    for row, length in zip(losses, lengths, strict=True):
        row[: length - 1] = generator.gamma(4, 0.8, size=length - 1)
    tokens = np.minimum(lengths, 9)
    means = np.array([row[: count - 1].mean() for row, count in zip(losses, tokens, strict=True)])
    loss = intervals.ratio(means * tokens, tokens)
    found = perplexity(losses, windows, list(range(8)))
    assert found["interval"]["loss"] == pytest.approx([loss.low, loss.high])
    assert found["interval"]["perplexity"] == pytest.approx([math.exp(loss.low), math.exp(loss.high)])


def test_losses_of_the_shorter_windows_alone_meet_them() -> None:
    windows = ragged_windows([[1, 1, 1, 1, 1], [1, 2, 3], [1, 4, 1]], CUT)
    found = perplexity(np.array([[6, 4], [3, 2]]) * LN2, windows, [1, 2])
    assert found["bits_per_byte"] == pytest.approx(15 / 10)


def test_how_the_text_was_cut_stands_beside_the_value() -> None:
    found = perplexity(np.ones((1, 2)), packed([[1, 1, 1]]), [0])
    assert {name: found[name] for name in CUT} == CUT


def test_a_digest_tells_windows_apart_by_their_token_ids_and_where_they_end() -> None:
    def of(*ids: list[int], chosen: tuple[int, ...] = (0, 1)) -> str:
        rows = np.array([row + [NO_TOKEN] * (4 - len(row)) for row in ids])
        return digest(TokenWindows(rows, np.ones_like(rows), np.ones(len(rows), np.int32), {"cut": CUT}), list(chosen))

    same = of([1, 2, 3], [4, 5])
    assert of([1, 2, 3], [4, 5], [6]) == same
    others = [of([1, 2], [3, 4, 5]), of([4, 5], [1, 2, 3]), of([1, 2, 3], [4, 6]), of([1, 2, 3], [4, 5], chosen=(0,))]
    assert len({same, *others}) == 5


def test_many_small_losses_add_up_in_double_precision() -> None:
    losses = np.full((4, 100_000), 0.1, np.float32)
    found = perplexity(losses, packed(np.ones((4, 100_001), int).tolist()), [0, 1, 2, 3])
    assert found["loss"] == pytest.approx(float(np.float32(0.1)), rel=1e-12)


@pytest.mark.parametrize("name", ["perplexity", "bits_per_byte", "loss"])
def test_the_interval_contains_the_value(name: str) -> None:
    found = perplexity(*random_case(), list(range(16)))
    low, high = found["interval"][name]
    assert low < found[name] < high


def test_the_same_losses_give_the_same_interval() -> None:
    assert perplexity(*random_case(), list(range(16))) == perplexity(*random_case(), list(range(16)))


@pytest.mark.parametrize(("sequences", "why"), [(5, "fewer than 8 sequences"), (8, "no spread")])
def test_losses_of_few_sequences_or_all_alike_have_no_interval_and_say_why(sequences: int, why: str) -> None:
    found = perplexity(np.full((sequences, 2), 3 * LN2), packed([[1, 1, 1]] * sequences), list(range(sequences)))
    assert [found[name] for name in ("perplexity", "bits_per_byte", "loss")] == pytest.approx([8, 3, 3 * LN2])
    assert found["interval"] == {name: [None, None] for name in ("perplexity", "bits_per_byte", "loss")}
    assert found["interval_note"].startswith(f"No interval for perplexity, bits_per_byte, loss ({why}")
    json.dumps(found, allow_nan=False)


def test_the_interval_of_the_perplexity_is_that_of_the_mean_loss() -> None:
    losses, windows = random_case()
    loss = intervals.ratio(losses.astype(np.float64).mean(1), np.ones(16))
    found = perplexity(losses, windows, list(range(16)))
    assert found["interval"]["perplexity"] == pytest.approx([math.exp(loss.low), math.exp(loss.high)])
    assert found["interval_note"] is None


def test_every_draw_has_as_many_sequences_as_the_sample() -> None:
    counts = resampling_counts(7, draws=50)
    assert counts.shape == (50, 7)
    assert counts.sum(1).tolist() == [7] * 50
    assert counts.min() == 0
    assert (counts != resampling_counts(7, draws=50, seed=1)).any()


def write_inputs(directory: Path) -> tuple[list[Path], Path]:
    """Write the losses of windows 0 and 2 and the three windows as capture and tokenize do; return the paths."""
    tokens, manifest = directory / "model.arrow", directory / "model.json"
    rows = [
        {"window": window, "token_ids": [1, 2, 3], "token_bytes": [9, 2, 2], "scored_from": 1} for window in range(3)
    ]
    origin = provenance.record({"tokens": "tokens-1"}, cut=CUT)
    schema = SCHEMA.with_metadata(provenance.encode(origin))
    with pa.OSFile(str(tokens), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    origin = provenance.record({"statistics": "statistics-1"})
    losses = [{"window": 0, "loss": [1 * LN2, 3 * LN2]}, {"window": 2, "loss": [2 * LN2, 2 * LN2]}]
    shards.write(directory / "model" / shards.LOSSES, schemas.LOSS_SCHEMA, losses, origin)
    shards.write_manifest(manifest, directory / "model", {"windows": [0, 2]}, origin)
    return [manifest], tokens


LINEAGE = {"perplexity": "perplexity-1", "statistics": "statistics-1", "tokens": "tokens-1"}


def test_the_file_holds_the_value_the_cut_and_where_it_comes_from(tmp_path: Path) -> None:
    output = tmp_path / "out/perplexity.json"
    write_perplexity(*write_inputs(tmp_path), output, LINEAGE)
    found = json.loads(output.read_text(encoding="utf-8"))
    assert found["perplexity"] == pytest.approx(4)
    assert found["bits_per_byte"] == pytest.approx(1)
    assert (found["tokens"], found["bytes"], found["sequences"]) == (4, 8, 2)
    assert {name: found[name] for name in CUT} == CUT
    assert found["provenance"]["lineage"] == LINEAGE


@pytest.mark.parametrize("artefact", ["statistics", "tokens"])
def test_losses_or_windows_of_another_lineage_are_refused_and_nothing_is_written(artefact: str, tmp_path: Path) -> None:
    output = tmp_path / "out/perplexity.json"
    with pytest.raises(StaleFile, match=f"{artefact}-1.*another"):
        write_perplexity(*write_inputs(tmp_path), output, LINEAGE | {artefact: "another"})
    assert not output.parent.exists()


def test_a_loss_that_is_not_finite_is_left_out_with_its_bytes_and_counted() -> None:
    losses = np.array([[1, np.nan], [np.inf, 3], [np.nan, np.nan]]) * LN2
    found = perplexity(losses, packed([[9, 2, 7], [9, 7, 3], [9, 7, 7]]), [0, 1, 2])
    assert (found["tokens"], found["bytes"], found["nonfinite_losses"]) == (2, 5, 4)
    assert found["loss"] == pytest.approx(2 * LN2)
    assert found["bits_per_byte"] == pytest.approx(4 / 5)
    json.dumps(found, allow_nan=False)


def test_a_window_of_2025_weighs_nothing_without_a_finite_loss() -> None:
    losses = np.array([[1, 3, np.inf], [np.nan] * 3]) * LN2
    found = perplexity(losses, ragged_windows([[9, 1, 2, 4], [9, 1, 1, 1]], CUT_2025), [0, 1])
    assert found["loss"] == pytest.approx(2 * LN2)
    assert found["nonfinite_losses"] == 4


@pytest.mark.parametrize(
    ("losses", "bytes_ST", "missing", "reason"),
    [
        ([[np.nan, np.inf]], [[1, 1, 1]], ["perplexity", "bits_per_byte", "loss"], r"no loss is finite \(2 are not\)"),
        ([[800, 900]], [[1, 1, 1]], ["perplexity"], "exp of the mean loss of 850 nats is larger than"),
        ([[1, 2]], [[1, 0, 0]], ["bits_per_byte"], "the predicted tokens add no byte"),
        ([[]], [[1]], ["perplexity", "bits_per_byte", "loss"], "no token is predicted"),
    ],
)
def test_what_has_no_finite_value_is_null_with_the_reason(losses, bytes_ST, missing, reason) -> None:
    found = perplexity(np.array(losses, float).reshape(1, -1), packed(bytes_ST), [0])
    assert [name for name in ("perplexity", "bits_per_byte", "loss") if found[name] is None] == missing
    assert all(found["interval"][name] == [None, None] for name in missing)
    assert re.match(reason, found["reason"])
    json.dumps(found, allow_nan=False)


def test_finite_values_give_no_reason() -> None:
    assert "reason" not in perplexity(*random_case(), list(range(16)))
