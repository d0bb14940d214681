"""Which data sets there are, which are here, and fetching the files they are made of."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from typing import Any

from perceiver_deploy.data.datasets import DATA_SETS, DataSetEntry
from perceiver_deploy.data.fetch.fetching import fetch, is_cached
from perceiver_deploy.data.fetch.sources import SOURCES, PublicFile
from perceiver_deploy.errors import UsageError


def describe_data_sets(*, count: bool = False) -> list[dict[str, Any]]:
    """What is known of each data set; with `count`, the examples of those that are here, which loads them."""
    return [_describe(name, entry, count) for name, entry in DATA_SETS.items()]


def describe_files() -> list[dict[str, Any]]:
    """What is known of each file that data sets are made of."""
    return [
        {
            "name": source.name,
            "file": source.file,
            "registry": source.registry,
            "bytes": source.bytes,
            "sha256": source.sha256,
            "license": source.license,
            "here": is_cached(source),
        }
        for source in SOURCES.values()
    ]


def fetch_files(names: Sequence[str]) -> list[dict[str, Any]]:
    """Fetch the files of these data sets, or those of these names; all when there is no name.

    Raises:
        UsageError: neither a data set nor a file is called so.
        MissingError, PerceiverDeployError: as `fetch`.
    """
    wanted = list(dict.fromkeys(source for name in names or SOURCES for source in _sources(name)))
    rows = []
    for source in wanted:
        start = time.perf_counter()
        path = fetch(source)
        seconds = round(time.perf_counter() - start, 2)
        rows.append(
            {
                "name": source.name,
                "path": str(path),
                "bytes": source.bytes,
                "sha256": source.sha256,
                "license": source.license,
                "seconds": seconds,
            }
        )
    return rows


def _describe(name: str, entry: DataSetEntry, count: bool) -> dict[str, Any]:
    here = all(map(is_cached, entry.sources))
    if entry.module is not None:
        here = here and importlib.util.find_spec(entry.module) is not None
    row = {
        "name": name,
        "task": entry.task,
        "here": here,
        "files": [source.name for source in entry.sources],
        "license": entry.license,
        "source": entry.source,
    }
    if count:
        data = entry.load() if here else None
        row |= {"train": data and len(data.train), "test": data and len(data.test)}
    return row


def _sources(name: str) -> tuple[PublicFile, ...]:
    if name in DATA_SETS:
        return DATA_SETS[name].sources
    if name in SOURCES:
        return (SOURCES[name],)
    raise UsageError(
        f"There is no data set or file {name!r}; expected one of {', '.join(DATA_SETS)}, or a file of "
        f"{', '.join(SOURCES)}."
    )
