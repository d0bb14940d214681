"""Points drawn from meshes, and the meshes that are refused."""

from __future__ import annotations

import numpy as np
import pytest

from perceiver_deploy.bundle.preprocessing import PointsPreprocessing
from perceiver_deploy.data.media.points import draw_points, normalize_points, read_mesh, read_points
from perceiver_deploy.errors import InputError

CORNERS = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"
# A unit square in two triangles and, apart from it, a 3 x 1 rectangle in four.
TWO_RECTANGLES = (
    f"{CORNERS}f 1 2 3 4\nv 10 0 0\nv 13 0 0\nv 13 1 0\nv 10 1 0\nv 11.5 0.5 0\nf 5 6 9\nf 6 7 9\nf 7 8 9\nf 8 5 9\n"
)


def test_points_fall_on_faces_in_proportion_to_their_area_however_they_are_cut():
    points = draw_points(read_mesh(TWO_RECTANGLES.encode(), "two"), 8000, seed=0)
    assert np.all(points[:, 2] == 0)
    on_square = points[:, 0] < 5
    assert on_square.mean() == pytest.approx(0.25, abs=0.02)  # four standard deviations of 8,000 draws
    assert points[on_square].mean(0) == pytest.approx([0.5, 0.5, 0], abs=0.03)
    assert points[~on_square].mean(0) == pytest.approx([11.5, 0.5, 0], abs=0.05)


def test_the_same_seed_draws_the_same_points_and_another_seed_others():
    mesh = read_mesh(TWO_RECTANGLES.encode(), "two")
    assert np.array_equal(draw_points(mesh, 9, seed=3), draw_points(mesh, 9, seed=3))
    assert not np.array_equal(draw_points(mesh, 9, seed=3), draw_points(mesh, 9, seed=4))


def test_clouds_are_centred_and_reach_the_unit_sphere_whatever_their_place_and_size():
    cloud = np.random.default_rng(0).normal(size=(1, 50, 3))
    normal = normalize_points(cloud)
    assert normal.mean(1) == pytest.approx(0, abs=1e-6)  # float32
    assert np.linalg.norm(normal, axis=-1).max() == pytest.approx(1, abs=1e-6)
    assert normalize_points(1e6 * cloud + 7e6) == pytest.approx(normal, abs=1e-6)


def test_a_file_becomes_a_batch_of_one_with_nothing_masked(tmp_path):
    (tmp_path / "square.obj").write_text(f"mtllib none.mtl\no square\n{CORNERS}f -4/1/1 -3/2/1 -2//1 -1\n")
    inputs = read_points(tmp_path / "square.obj", PointsPreprocessing(points=17))
    assert inputs["points"].shape == (1, 17, 3)
    assert inputs["points"].dtype == np.float32
    assert inputs["attention_mask"].tolist() == [[1] * 17]


def test_names_in_another_encoding_than_utf8_do_no_harm():
    assert len(read_mesh(b"# table \xe0 caf\xe9\n" + CORNERS.encode() + b"f 1 2 3\n", "latin").faces) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no face"),
        (CORNERS, "has no face"),
        ("\x00\x01\x02not a mesh", "has no face"),
        ("v 0 0 x\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "broken OBJ file"),
        (f"{CORNERS}f 1 2 x\n", "broken OBJ file"),
        (f"{CORNERS}f 1 2 9\n", "broken OBJ file"),
        (f"{CORNERS}f 1 2 -9\n", "broken OBJ file"),
        (f"{CORNERS}f 0 1 2\n", "broken OBJ file: a face has the index 0"),
        (f"{CORNERS}f 1 2\n", "has no face"),
        ("v 0 0\nv 1 0\nv 0 1\nf 1 2 3\n", "vertices with 2 coordinates"),
        ("v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "a coordinate that is not finite"),
        ("v 0 0 inf\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "a coordinate that is not finite"),
        ("v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n", "a surface of area 0"),
        ("v 0 0 0\nv 1e300 0 0\nv 0 1e300 0\nf 1 2 3\n", "a surface of area inf"),
    ],
)
def test_a_mesh_without_a_surface_is_refused_with_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "bad.obj"
    path.write_text(content)
    with pytest.raises(InputError, match=f"bad.obj .*{message}") as caught:
        read_points(path, PointsPreprocessing())
    assert "\n" not in str(caught.value)


def test_a_path_without_a_readable_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.obj does not exist"):
        read_points(tmp_path / "none.obj", PointsPreprocessing())
    with pytest.raises(InputError, match="cannot be read"):
        read_points(tmp_path, PointsPreprocessing())
