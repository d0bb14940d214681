"""Entity sets: rows of a table as sets with one entity a feature, and the metric of answers for each entity."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.preprocessing import EntitiesPreprocessing
from perceiver_deploy.data.metrics import Metric
from perceiver_deploy.errors import InputError


def read_row(path: Path, preprocessing: EntitiesPreprocessing) -> Arrays:
    """`entities` [1, features, 1] and `attention_mask` [1, features] of a CSV file with one row of raw features.

    A header is optional; with one, columns may come in any order and may be fewer. An empty cell or `nan` is missing.

    Raises:
        InputError: no file there, not one row of numbers, or other features than the model's.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist. Give the path of a CSV file with one row of features.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV ({error}). Give a text file with commas, in UTF-8.") from None
    header = rows.pop(0) if rows and not any(_is_number(cell) for cell in rows[0]) and any(rows[0]) else None
    if len(rows) != 1:
        raise InputError(f"{path} has {len(rows)} rows of numbers; expected one: a file holds one example.")
    if header is not None:
        rows = [_in_order(header, rows[0], preprocessing.names, path)]
    values = [_number(cell, path) for cell in rows[0]]
    return standardize_row(np.array(values), preprocessing, str(path))


def standardize_row(values: NDArray[Any], preprocessing: EntitiesPreprocessing, where: str) -> Arrays:
    """Raw features [features] or [1, features], NaN where missing, as a batch of one set.

    Raises:
        InputError: another number of features than the model's, an infinite one, or no number at all.
    """
    count = len(preprocessing.names)
    if values.dtype.kind not in "fiu" or values.shape not in ((count,), (1, count)):
        raise InputError(
            f"{where} has features of shape {list(values.shape)} and type {values.dtype}; expected {count} numbers, "
            f"one per entity of the model: {', '.join(preprocessing.names)}. Leave a cell empty (in an array: NaN) "
            "where a value is missing."
        )
    if np.isinf(values).any():
        raise InputError(f"{where} has an infinite feature. Expected finite numbers, or nothing where one is missing.")
    return standardize(values.reshape(1, count), preprocessing)


def standardize(values: NDArray[Any], preprocessing: EntitiesPreprocessing) -> Arrays:
    """Raw features [rows, features] to `entities` [rows, features, 1] and `attention_mask`, 0 where one is NaN."""
    present = ~np.isnan(values)
    scaled = (values - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    entities = np.where(present, scaled, 0).astype(np.float32)
    return {"entities": entities[..., None], "attention_mask": present.astype(np.int64)}


def _in_order(header: list[str], row: list[str], names: tuple[str, ...], path: Path) -> list[str]:
    """The cells of a row in the order of the model's features; empty for columns that are not there."""
    unknown = [name for name in header if name not in names]
    if unknown or len(set(header)) != len(header) or len(row) != len(header):
        raise InputError(
            f"{path} has {len(row)} values under {len(header)} column names, of which the model does not know "
            f"{unknown or 'any twice'}. Expected each at most once, with one value: {', '.join(names)}."
        )
    cells = dict(zip(header, row, strict=True))
    return [cells.get(name, "") for name in names]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(cell: str, path: Path) -> float:
    if cell and not _is_number(cell):
        raise InputError(
            f"{path} has {cell!r} where a number is expected. Leave a cell empty where a value is missing."
        )
    return float(cell or "nan")


def _entity_top1(outputs: Arrays, inputs: Arrays, targets: NDArray[Any]) -> NDArray[np.float64]:
    right = outputs["entity_logits"].argmax(-1) == targets[:, None]
    present = inputs["attention_mask"] != 0
    return np.where(present, right, 0).sum(1) / np.where(present.any(1), present.sum(1), np.nan)


ENTITY_TOP1 = Metric("top-1 accuracy of entities", "%", True, _entity_top1)
"""Share of a set's entities whose largest logit is the set's target; masked entities do not count."""
