"""Files not to be trusted, through the C++ readers under AddressSanitizer: they refuse them, or read them."""

from __future__ import annotations

import copy
import io
import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.cpp.conftest import built
from tests.helpers.factories import manifest_document

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
    return with_other_bytes(changed_structure(generator), generator, (b'"', b"{", b"[" * 50, b"1e999", b"\\ud800"))


def with_other_bytes(content: bytes, generator: random.Random, pieces: tuple[bytes, ...]) -> bytes:
    """Some bytes cut out, repeated, or replaced by others or one of the pieces."""
    changed = bytearray(content)
    for _ in range(generator.randint(1, 6)):
        start = generator.randrange(len(changed) + 1)
        end = min(len(changed), start + generator.randint(0, 20))
        changed[start:end] = generator.choice((b"", bytes(changed[start:end]) * 3, generator.randbytes(3), *pieces))
    return bytes(changed)


def changed_npz(generator: random.Random) -> bytes:
    """An .npz file of a few arrays with some bytes flipped, cut out, repeated or, as most often, put in their place."""
    arrays: dict[str, Any] = {
        "name": np.array("opt"),
        "inputs.x": np.arange(generator.randrange(20), dtype=generator.choice(["<f4", "<i8", "|u1", "<i2", "<f2"])),
        "full.y": np.asarray(np.zeros((2, 3)), order=generator.choice(["C", "F"])),
        "full_bound.y": np.float64(1),
    }
    file = io.BytesIO()
    (np.savez_compressed if generator.random() < 0.05 else np.savez)(file, **arrays)
    content = bytearray(file.getvalue())
    pieces = (b"PK\1\2", b"PK\3\4", b"PK\5\6", b"\xff" * 4, b"(9, )", b"True ", b"}")
    if generator.random() < 0.2:
        return with_other_bytes(bytes(content), generator, pieces)
    for _ in range(generator.randint(1, 4)):  # nothing moves, so that what follows is still read
        piece = generator.choice((*pieces, generator.randbytes(1), bytes(4)))
        start = generator.randrange(len(content) - len(piece))
        content[start : start + len(piece)] = piece
    return bytes(content)


KINDS: dict[str, tuple[Callable[[random.Random], bytes], ...]] = {
    "manifest": (changed_structure, changed_bytes),
    "npz": (changed_npz,),
}


def documents(kind: str, generator: random.Random, count: int) -> bytes:
    """Documents as the program takes them: each after its length in eight bytes."""
    made = [generator.choice(KINDS[kind])(generator) for _ in range(count)]
    return b"".join(len(document).to_bytes(8, "little") + document for document in made)


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_are_read_or_refused_without_a_finding(kind: str, run: Callable[..., Any]) -> None:
    result = run(built("asan", f"tests/fuzz_{kind}"), standard_input=documents(kind, random.Random(0), 2000))
    assert (result.returncode, result.stdout) == (0, "2000\n"), result.stderr[-4000:]


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_five_minutes_of_mutated_files_have_no_finding(kind: str, run: Callable[..., Any]) -> None:
    end, seed = time.monotonic() + SECONDS, time.time_ns()
    while time.monotonic() < end:
        seed += 1
        result = run(built("asan", f"tests/fuzz_{kind}"), standard_input=documents(kind, random.Random(seed), 5000))
        assert (result.returncode, result.stdout) == (0, "5000\n"), f"seed {seed}: {result.stderr[-4000:]}"
