"""Point clouds: reading OBJ meshes and drawing points from their surface."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.preprocessing import PointsPreprocessing
from perceiver_deploy.errors import InputError, requires

if TYPE_CHECKING:
    from trimesh import Trimesh

_ZERO_INDEX = re.compile(rb"^[ \t]*f\b.*\s0+(?:[/\s]|$)", re.MULTILINE)


def read_points(path: Path, preprocessing: PointsPreprocessing) -> Arrays:
    """`points` [1, points, 3] and `attention_mask` [1, points] of an OBJ file.

    Raises:
        InputError: no file there, or not an OBJ mesh with a surface.
        MissingError: trimesh is not installed.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist. Give the path of an OBJ file.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}). Give the path of an OBJ file.") from None
    surface = draw_points(read_mesh(content, str(path)), preprocessing.points, preprocessing.seed)
    points = normalize_points(surface[None])
    return {"points": points, "attention_mask": np.ones(points.shape[:2], np.int64)}


def read_mesh(content: bytes, where: str) -> Trimesh:
    """The mesh in the text of an OBJ file called `where`; polygons are cut into triangles, materials are not read.

    Raises:
        InputError: no vertices, no faces, broken text, an index out of range, coordinates that are not finite, or a
            surface without a finite area.
        MissingError: trimesh is not installed.
    """
    with requires("media", "Reading OBJ meshes"):
        import trimesh
    text = content.decode("latin-1").encode()  # trimesh guesses where names are not UTF-8
    try:
        if _ZERO_INDEX.search(content):
            raise IndexError("a face has the index 0, and OBJ counts from 1")
        mesh = trimesh.load_mesh(
            io.BytesIO(text), file_type="obj", process=False, skip_materials=True, group_material=False
        )
    except (IndexError, ValueError) as error:
        raise InputError(
            f"{where} is a broken OBJ file: {error}. Expected `v x y z` lines with numbers, and `f` lines with three "
            "or more indices of vertices that are there. Export the mesh again."
        ) from None
    if problem := _problem(mesh):
        raise InputError(
            f"{where} has {problem}. Expected an OBJ mesh: vertices (`v x y z`) and faces (`f`) that span a surface."
        )
    return mesh


def _problem(mesh: Trimesh) -> str | None:
    """What the mesh has instead of a surface."""
    if not len(mesh.faces):
        return "no face"
    if mesh.vertices.shape[1] != 3:
        return f"vertices with {mesh.vertices.shape[1]} coordinates"
    if not np.isfinite(mesh.vertices).all():
        return "a coordinate that is not finite"
    with np.errstate(over="ignore", invalid="ignore"):
        area = float(mesh.area)
    return None if 0 < area < math.inf else f"a surface of area {area:g}"


def draw_points(mesh: Trimesh, count: int, seed: int) -> NDArray[np.float64]:
    """`count` points [count, 3], uniform over the surface of a mesh."""
    from trimesh.sample import sample_surface

    points, _ = sample_surface(mesh, count, seed=seed)
    return np.asarray(points)


def normalize_points(points: NDArray[np.float64]) -> NDArray[np.float32]:
    """Clouds [clouds, points, 3] about their mean, the farthest point of each at distance 1."""
    centred = points - points.mean(axis=1, keepdims=True)
    radius = np.linalg.norm(centred, axis=-1).max(axis=1)
    return (centred / radius[:, None, None]).astype(np.float32)
