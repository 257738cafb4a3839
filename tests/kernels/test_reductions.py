"""The reductions, in plain torch, compiled for a CPU and as kernels of a GPU: all keep what NumPy computes."""

import numpy as np
import pytest
import reductions
import torch
from outlier_features.kernels import reference
from outlier_features.kernels.cpu import CpuReduction
from outlier_features.kernels.gpu import CudaReduction
from outlier_features.kernels.reference import ExpertSums, Reached
from reductions import CASES, GRIDS, SHAPES, Reduce, activation, check, check_equal, token_kurtosis

interpreted = pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu runs the kernels on the device")
QUICK = {"reference": reductions.reduced, "cpu": reductions.reduced_on_cpu}
REDUCTIONS = [
    *(pytest.param(way, id=name) for name, way in QUICK.items()),
    pytest.param(reductions.reduced_by_kernels, id="kernels", marks=interpreted),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("kind", "dtype"), CASES)
@pytest.mark.parametrize("reduce", [pytest.param(way, id=name) for name, way in QUICK.items()])
def test_everything_kept_is_that_of_numpy(
    reduce: Reduce, kind: str, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    check(reduce, activation(kind, shape, dtype))


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("first", [2, 8, 60])
def test_position_0_may_have_several_rows(reduce: Reduce, first: int) -> None:
    check(reduce, activation("planted", (60, 70), torch.float32), first)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_position_kurtosis_is_that_of_numpy(reduce: Reduce) -> None:
    x_TC = torch.randn(50, 300, generator=torch.Generator().manual_seed(0)) ** 3
    found = reduce(x_TC, GRIDS)["position_kurtosis"]
    np.testing.assert_allclose(found, token_kurtosis(x_TC.double().numpy()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize(
    ("value", "channels"), [(0.1, 130), (1234.567, 1100), (-6.0, 17), (1e9, 130), (1e-12, 130), (0.0, 130)]
)
def test_a_position_whose_channels_are_alike_has_no_kurtosis(reduce: Reduce, value: float, channels: int) -> None:
    assert (reduce(torch.full((3, channels), value), GRIDS)["position_kurtosis"] == 0).all()


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize(("offset", "spread"), [(1.0, 0.5), (1000.0, 1.0), (1000.0, 1e-3), (1e6, 30.0), (0.0, 1e-12)])
def test_kurtosis_far_from_zero_or_close_to_it_is_that_of_numpy(reduce: Reduce, offset: float, spread: float) -> None:
    x_TC = (offset + spread * torch.randn(20, 300, generator=torch.Generator().manual_seed(2)).double() ** 3).float()
    found = reduce(x_TC, GRIDS)["position_kurtosis"]
    np.testing.assert_allclose(found, token_kurtosis(x_TC.double().numpy()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_one_channel_off_by_one_rounding_is_a_spread(reduce: Reduce) -> None:
    x_TC = torch.full((2, 300), 0.1)
    x_TC[1, 7] = torch.nextafter(x_TC[1, 7], torch.tensor(1.0))
    found = reduce(x_TC, GRIDS)["position_kurtosis"]
    np.testing.assert_allclose(found, token_kurtosis(x_TC.double().numpy()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_nan_and_infinity_are_counted_and_left_out(reduce: Reduce) -> None:
    x_TC = torch.randn(40, 20, generator=torch.Generator().manual_seed(1))
    clean = x_TC.clone()
    for row, column, value in ((0, 1, "nan"), (5, 2, "inf"), (6, 2, "-inf"), (7, 3, "nan")):
        x_TC[row, column], clean[row, column] = float(value), 0.0
    reached = [Reached.nothing(40, 20, x_TC.device) for _ in range(2)]
    found = reduce(x_TC, GRIDS, reached[0], medians=True, spread=True)
    expected = reference.reduce(clean, GRIDS, reached[1], medians=True, spread=True)
    assert (found.pop("nan_count"), found.pop("inf_count")) == (2, 2)
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, err_msg=name)
    assert torch.equal(reached[0].absolute_TC, reached[1].absolute_TC)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_the_level_reached_is_the_highest_over_tensors(reduce: Reduce) -> None:
    reached = Reached.nothing(2, 3, torch.device("cpu"))
    for values in ([[1.0, 5.0, 0.0], [7.0, 0.0, 3.0]], [[4.5, 3.5, 0.0], [0.0, 200.0, 0.0]]):
        reduce(torch.tensor(values), GRIDS, reached)
    assert reached.absolute_TC.tolist() == [[2, 2, 0], [4, 6, 1]]


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_the_same_input_gives_the_same_bits(reduce: Reduce) -> None:
    x_TC = activation("planted", (130, 70), torch.float32)

    def run() -> reference.Columns:
        return reduce(x_TC, GRIDS, Reached.nothing(130, 70, x_TC.device), medians=True, spread=True)

    first = run()
    for _ in range(10 if reduce is not reductions.reduced_by_kernels else 2):
        check_equal(run(), first)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("asked", [{}, {"medians": True}, {"spread": True}, {"medians": True, "spread": True}])
def test_every_way_keeps_the_same_of_the_same_kind(reduce: Reduce, asked: dict[str, bool]) -> None:
    x_TC = activation("random", (9, 8), torch.float32)
    for rows in (x_TC, x_TC[:0]):
        expected = reference.reduce(rows, GRIDS, Reached.nothing(len(rows), 8, x_TC.device), **asked)
        found = reduce(rows, GRIDS, Reached.nothing(len(rows), 8, x_TC.device), **asked)
        kinds = [{name: np.asarray(value).dtype for name, value in kept.items()} for kept in (found, expected)]
        assert kinds[0] == kinds[1]
    assert "hit_count" not in reduce(x_TC, GRIDS)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_nothing_is_kept_of_no_position(reduce: Reduce) -> None:
    found = reduce(torch.zeros(0, 3), GRIDS, Reached.nothing(0, 3, torch.device("cpu")), medians=True, spread=True)
    check_equal(found, reference.nothing(3, hits=True, medians=True, spread=True))


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strided_rows_are_read_as_they_are(reduce: Reduce, dtype: torch.dtype) -> None:
    wide = torch.randn(30, 80, generator=torch.Generator().manual_seed(4)).to(dtype)
    for view in (wide[:, ::2], wide[:, :40], wide.t()[:40]):
        found, expected = (reduce(x_TC, GRIDS, medians=True) for x_TC in (view, view.contiguous()))
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("shape", [(9, 10), (7, 11)])
def test_massive_activations_are_listed_from_the_largest_on(reduce: Reduce, shape: tuple[int, int]) -> None:
    x_TC = torch.randn(shape, generator=torch.Generator().manual_seed(3)) * 0.1
    x_TC[0, 2], x_TC[3, 4], x_TC[5, 1], x_TC[6, 6], x_TC[2, 0] = -500.0, 150.0, 99.0, 101.0, 150.0
    found = reduce(x_TC, GRIDS, medians=True)
    assert found["massive_value"].tolist() == [-500.0, 150.0, 150.0, 101.0]
    assert found["massive_position"].tolist() == [0, 2, 3, 6]
    assert found["massive_channel"].tolist() == [2, 0, 4, 6]


BY_EXPERT = [
    pytest.param(reference.by_expert, id="reference"),
    pytest.param(CpuReduction(GRIDS).by_expert, id="cpu"),
    pytest.param(CudaReduction(torch.device("cpu"), GRIDS).by_expert, id="kernels", marks=interpreted),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("by_expert", BY_EXPERT)
def test_sums_by_expert_are_those_of_float64_and_leave_out_what_is_not_finite(by_expert, dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    windows = [(3 * torch.randn(20, 7, generator=generator)).to(dtype) for _ in range(3)]
    windows[1][4, 2], windows[2][5, 0] = float("nan"), float("inf")
    sums = ExpertSums.nothing(5, 7, torch.device("cpu"))
    squares, largest, tokens = np.zeros((5, 7)), np.zeros((5, 7)), np.zeros(5, int)
    for x_RC in windows:
        rows, experts = torch.arange(20).repeat(2), torch.randint(0, 4, (40,), generator=generator)  # none to expert 4
        by_expert(x_RC, rows, experts, sums)
        wide = np.nan_to_num(x_RC.double().numpy(), nan=0, posinf=0)
        for row, expert in zip(rows.tolist(), experts.tolist(), strict=True):
            squares[expert] += wide[row] ** 2
            largest[expert] = np.maximum(largest[expert], np.abs(wide[row]))
            tokens[expert] += 1
    np.testing.assert_allclose(sums.sum_2_EC, squares, rtol=1e-14)
    np.testing.assert_array_equal(sums.max_abs_EC, largest)
    assert sums.tokens_E.tolist() == tokens.tolist()
    assert (tokens[4], sums.sum_2_EC[4].sum()) == (0, 0)
