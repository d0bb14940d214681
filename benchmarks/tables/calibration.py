"""INT8 of the shipped models by the method of calibration, and with equalised channels."""

from __future__ import annotations

from typing import Any

from tables import table

METHODS = ("minmax", "percentile", "mse", "entropy")


def calibration_methods(document: dict[str, Any]) -> str:
    """SQNR of the first output of each model, symmetric int8, by method."""
    models = sorted(document["models"].items())
    lines = [[name, *(sqnr_cell(found["int8"][method]["sqnr_db"]) for method in METHODS)] for name, found in models]
    return table(["checkpoint, SQNR in dB", *METHODS], lines)


def equalisation(document: dict[str, Any]) -> str:
    """SQNR of the first output of each model without `--equalise` and with it."""
    ways = ("plain", "equalised")
    models = sorted(document["models"].items())
    return table(
        ["checkpoint, SQNR in dB", *ways], [[name, *(sqnr_cell(found[way]) for way in ways)] for name, found in models]
    )


def sqnr_cell(outputs: dict[str, float]) -> str:
    """SQNR of the first output."""
    return f"{next(iter(outputs.values())):.1f}"
