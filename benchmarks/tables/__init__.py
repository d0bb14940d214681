"""Markdown tables of what `benchmarks/` has measured, by subject; `readme_tables.py` puts them into pages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def from_results(file: str, make: Callable[[dict[str, Any]], str]) -> Callable[[], str]:
    """A table made of one file of `results/`."""
    return lambda: make(json.loads((RESULTS / file).read_text(encoding="utf-8")))
