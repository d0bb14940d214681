import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.perceiver.modeling_perceiver import build_linear_positions, generate_fourier_features

from perceiver_deploy.model.positions import (
    FourierEncoding,
    FourierPositions,
    LearnedEncoding,
    LearnedPositions,
    indexed_positions,
    linear_positions,
)

CPU = torch.device("cpu")


def expected_linspace(size):
    return torch.linspace(-1, 1, size)  # noqa: TID251 - what ours must equal


def test_linear_positions_are_bit_equal_to_linspace_for_every_size_up_to_600():
    differing = [
        size for size in range(1, 601) if not torch.equal(linear_positions(size, CPU), expected_linspace(size))
    ]
    assert differing == []


@given(st.integers(601, 2999))
@settings(deadline=None)
def test_linear_positions_are_bit_equal_to_linspace_beyond(size):
    assert torch.equal(linear_positions(size, CPU), expected_linspace(size))


def test_linear_positions_of_one_point_are_its_start():
    assert linear_positions(1, CPU).tolist() == [-1.0]


def test_a_grid_is_row_major_with_the_last_dimension_fastest():
    features = FourierEncoding(FourierPositions(1, (4, 4)))((2, 3), torch.zeros(()))
    assert features[:, :2].tolist() == [[-1, -1], [-1, 0], [-1, 1], [1, -1], [1, 0], [1, 1]]


def test_indexed_positions_are_those_of_the_subsampled_grid():
    sizes = (3, 4, 5)
    indices = torch.arange(60)
    expected = -1 + 2 * np.stack(np.unravel_index(indices.numpy(), sizes), axis=-1) / np.array(sizes)
    np.testing.assert_allclose(indexed_positions(indices, sizes).numpy(), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("order", ["positions_first", "by_dimension"])
def test_points_of_a_grid_have_the_rows_of_the_whole_grid(order):
    encoding = FourierEncoding(FourierPositions(3, (4, 8, 6), order=order))
    whole = encoding((2, 5, 3), torch.zeros(()))
    points = torch.tensor([29, 0, 7, 7, 14])
    assert torch.equal(encoding((2, 5, 3), torch.zeros(()), points), whole[points])


@pytest.mark.parametrize(
    ("sizes", "bands", "max_resolution"),
    [((7,), 5, (20,)), ((12, 9), 64, (224, 224)), ((1, 6), 4, (56, 56)), ((3, 5, 4), 8, (16, 56, 30))],
)
def test_fourier_features_are_bit_equal_to_those_of_hugging_face(sizes, bands, max_resolution):
    positions = build_linear_positions(sizes).reshape(1, math.prod(sizes), len(sizes))
    expected = generate_fourier_features(positions, bands, max_resolution)[0]
    encoding = FourierEncoding(FourierPositions(bands, max_resolution))
    found = encoding(sizes, torch.zeros(()))
    assert found.shape == (math.prod(sizes), encoding.channels)
    assert torch.equal(found, expected)


def test_fourier_features_are_ordered_positions_sin_of_each_dimension_cos_of_each_dimension():
    encoding = FourierEncoding(FourierPositions(num_bands=2, max_resolution=(4, 8)))
    features = encoding.features(torch.tensor([[0.25, -0.5]]))[0].tolist()
    angles = [math.pi * x for x in (0.25 * 1, 0.25 * 2, -0.5 * 1, -0.5 * 4)]
    expected = [0.25, -0.5, *map(math.sin, angles), *map(math.cos, angles)]
    assert features == pytest.approx(expected, abs=1e-6)  # float32 rounding of an angle of at most 2 pi: 2.4e-7


def test_fourier_features_stay_float32_numbers_when_the_model_is_double():
    encoding = FourierEncoding(FourierPositions(64, (224, 224)))
    single = encoding((31, 17), torch.zeros(()))
    double = encoding.double()((31, 17), torch.zeros((), dtype=torch.float64))
    assert double.dtype == torch.float64
    assert torch.equal(double, single.double())


def test_fourier_encoding_holds_no_tensor_that_a_change_of_dtype_could_round():
    encoding = FourierEncoding(FourierPositions(64, (224, 224)))
    expected = encoding((9, 9), torch.zeros(()))
    encoding.half()
    assert encoding.state_dict() == {}
    assert torch.equal(encoding.float()((9, 9), torch.zeros(())), expected)


def numbered_table():
    encoding = LearnedEncoding(LearnedPositions((4, 5), channels=1), initializer_range=0.02)
    with torch.no_grad():
        encoding.table.copy_(torch.arange(20.0)[:, None])
    return encoding


@pytest.mark.parametrize(
    ("sizes", "rows"),
    [((4, 5), [*range(20)]), ((1, 1), [0]), ((2, 3), [0, 1, 2, 5, 6, 7]), ((3, 1), [0, 5, 10]), ((1, 5), [*range(5)])],
)
def test_learned_encoding_takes_the_leading_part_of_its_table_along_each_dimension(sizes, rows):
    assert numbered_table()(sizes, torch.zeros(())).squeeze(-1).tolist() == rows


def test_learned_encoding_refuses_a_grid_larger_than_its_table():
    with pytest.raises(RuntimeError, match="exceeds"):
        numbered_table()((4, 6), torch.zeros(()))


def test_learned_encoding_projects_the_rows_it_took():
    encoding = LearnedEncoding(LearnedPositions((4, 5), channels=3, projection_channels=2), initializer_range=0.02)
    assert encoding.channels == 2
    rows = encoding.table.view(4, 5, 3)[:2, :3].reshape(6, 3)
    expected = rows @ encoding.projection.weight.T + encoding.projection.bias
    # one float32 rounding a product of 3 terms below 1
    torch.testing.assert_close(encoding((2, 3), torch.zeros(())), expected, atol=1e-7, rtol=0)
