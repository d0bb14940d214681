"""Manifests not to be trusted, through the C++ reader under AddressSanitizer: it refuses them, or reads them."""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cpp.conftest import built
from tests.factories import manifest_document

SECONDS = 300
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        0,
        1,
        2**31,
        2**63 - 1,
        2**63,
        2**64,
        10**30,
        1.5,
        -1e308,
        "",
        "/",
        "..",
        "a\0b",
        "\ud83d\ude00",
        "x" * 999,
    ),
    *(
        "batch",
        "batch*length",
        "length/0",
        "9223372036854775807*length",
        "length[",
        "length[9]-1",
        "-",
        "[",
        [],
        {},
        [[]],
        {"": {}},
    ),
)
DOCUMENT = manifest_document(
    labels=["a"],
    engines={"e": {"variant": "fp32", "stage": "full", "file": "onnx/fp32.onnx"}},
    preprocessing={"kind": "image", "size": [8, 8], "mean": [0, 0, 0], "std": [1, 1, 1]},
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Ways to everything inside a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def changed_structure(generator: random.Random) -> bytes:
    """The document with up to three values replaced, removed, renamed or put elsewhere."""
    document = copy.deepcopy(DOCUMENT)
    for _ in range(generator.randint(1, 3)):
        everything = list(places(document))
        if not everything:
            break
        *parents, last = generator.choice(everything)
        holder: Any = document
        for part in parents:
            holder = holder[part]
        change = generator.randrange(4)
        if change == 0:
            del holder[last]
        elif change == 1 and isinstance(holder, dict):
            holder[str(generator.choice(VALUES))] = holder.pop(last)
        elif change == 2:
            holder[last] = copy.deepcopy(
                generator.choice(list(holder.values() if isinstance(holder, dict) else holder))
            )
        else:
            holder[last] = copy.deepcopy(generator.choice(VALUES))
    return json.dumps(document, ensure_ascii=generator.random() < 0.5).encode(errors="surrogatepass")


def changed_bytes(generator: random.Random) -> bytes:
    """The document's text with some bytes flipped, cut out or repeated."""
    content = bytearray(changed_structure(generator))
    for _ in range(generator.randint(1, 6)):
        start = generator.randrange(len(content) + 1)
        end = min(len(content), start + generator.randint(0, 20))
        content[start:end] = generator.choice(
            (b"", bytes(content[start:end]) * 3, generator.randbytes(3), b'"', b"{", b"[" * 50, b"1e999", b"\\ud800")
        )
    return bytes(content)


def documents(generator: random.Random, count: int) -> bytes:
    """Documents as the program takes them: each after its length in eight bytes."""
    made = [generator.choice((changed_structure, changed_bytes))(generator) for _ in range(count)]
    return b"".join(len(document).to_bytes(8, "little") + document for document in made)


def test_mutated_manifests_are_read_or_refused_without_a_finding(run: Callable[..., Any]) -> None:
    result = run(built("asan", "tests/fuzz_manifest"), standard_input=documents(random.Random(0), 2000))
    assert (result.returncode, result.stdout) == (0, "2000\n"), result.stderr[-4000:]


@pytest.mark.full
def test_five_minutes_of_mutated_manifests_have_no_finding(run: Callable[..., Any]) -> None:
    end, seed = time.monotonic() + SECONDS, time.time_ns()
    while time.monotonic() < end:
        seed += 1
        result = run(built("asan", "tests/fuzz_manifest"), standard_input=documents(random.Random(seed), 5000))
        assert (result.returncode, result.stdout) == (0, "5000\n"), f"seed {seed}: {result.stderr[-4000:]}"
