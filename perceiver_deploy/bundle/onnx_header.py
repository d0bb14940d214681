"""What an ONNX file says about itself, read without onnx: its versions, and the files that hold its weights.

Runtimes open files that others made, and need neither onnx nor torch for it. The format is Protocol Buffers' (a tag of
field number and wire type before each value) with the fields of onnx.proto; values that are not asked for are skipped.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from perceiver_deploy.errors import BundleError

# Message kinds by field number: the ways from a model to its tensors, those inside nodes and functions included.
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset", 25: "function"},
    "opset": {},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {},
}
_IR_VERSION, _DOMAIN, _VERSION, _KEY, _VALUE = 1, 1, 2, 1, 2
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_DEEPEST = 64

Value = int | tuple[int, int]
"""A number, or where bytes begin and end."""


@dataclass(frozen=True)
class ExternalData:
    """Where the data of one tensor lies: a file beside the model, and a part of it (to its end if `length` is 0)."""

    location: str
    offset: int
    length: int


@dataclass
class OnnxHeader:
    """Versions of an ONNX file, opsets by domain ("" is ONNX's own), and each tensor that is kept outside it."""

    ir_version: int = 0
    opsets: dict[str, int] = field(default_factory=dict)
    external: list[ExternalData] = field(default_factory=list)

    @property
    def opset(self) -> int:
        """Version of ONNX's own operators."""
        return self.opsets.get("", self.opsets.get("ai.onnx", 1))


def read_header(path: Path) -> OnnxHeader:
    """Read the versions and the places of external data.

    Raises:
        BundleError: the file cannot be read, or is not ONNX.
    """
    header = OnnxHeader()
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _read(data, "model", 0, len(data), header, depth=0)
    except (ValueError, IndexError) as error:  # an empty file, or bytes that are not such messages
        raise BundleError(f"{path} is not an ONNX file ({error}). Give a bundle or an ONNX file.") from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.") from error
    return header


def external_files(path: Path) -> list[Path]:
    """The files beside an ONNX file that its weights are read from, each at least as long as what is read from it.

    Raises:
        BundleError: not an ONNX file, or its weights lie outside its folder, in a file that is not there, or beyond
            the end of the file.
    """
    files: dict[Path, None] = {}
    for entry in read_header(path).external:
        data = _beside(path, entry.location)
        size, end = data.stat().st_size, entry.offset + entry.length
        if end > size:
            raise BundleError(
                f"{path} reads {entry.location!r} up to byte {end}, and that file has {size} bytes. Copy the whole "
                "file, or export the checkpoint again."
            )
        files[data] = None
    return list(files)


def _beside(path: Path, location: str) -> Path:
    """The file that a model names, if it lies in the model's folder."""
    data, inside = path.parent / location, PurePosixPath(location)
    if inside.is_absolute() or ".." in inside.parts or "\\" in location or not inside.parts:
        raise BundleError(
            f"{path} reads weights from {location!r}, outside its folder; expected the name of a file beside it. Take "
            "the model from a source that you trust, or export the checkpoint again."
        )
    try:
        there = data.is_file()
    except OSError:  # a name that no file can have
        there = False
    if not there:
        raise BundleError(
            f"{path} reads weights from {location!r}, which is not there. Copy that file beside the model, or export "
            "the checkpoint again."
        )
    if not data.resolve().is_relative_to(path.parent.resolve()):
        raise BundleError(
            f"{path} reads weights from {location!r}, a link to a file outside its folder. Replace the link by the "
            "file."
        )
    return data


def _read(data: mmap.mmap, kind: str, start: int, end: int, header: OnnxHeader, depth: int) -> None:
    """Read one message into the header, and the messages inside it that lead to tensors."""
    if depth > _DEEPEST:
        raise ValueError(f"messages nested more than {_DEEPEST} deep")
    texts: dict[int, str] = {}
    entries: dict[str, str] = {}
    version = 0
    for number, value in _fields(data, start, end):
        if isinstance(value, int):
            if kind == "model" and number == _IR_VERSION:
                header.ir_version = value
            elif kind == "opset" and number == _VERSION:
                version = value
        elif (child := _MESSAGES[kind].get(number)) == "entry":
            key, text = _entry(data, *value)
            entries[key] = text
        elif child is not None:
            _read(data, child, *value, header, depth + 1)
        elif kind == "opset":
            texts[number] = data[slice(*value)].decode()
    if kind == "opset":
        header.opsets[texts.get(_DOMAIN, "")] = version
    if entries:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
        if offset < 0 or length < 0:
            raise ValueError(f"weights at {offset} of length {length}")
        header.external.append(ExternalData(entries.get("location", ""), offset, length))


def _entry(data: mmap.mmap, start: int, end: int) -> tuple[str, str]:
    """Key and value of one entry of a tensor's `external_data`."""
    texts = {
        number: data[slice(*value)].decode()
        for number, value in _fields(data, start, end)
        if not isinstance(value, int)
    }
    return texts.get(_KEY, ""), texts.get(_VALUE, "")


def _fields(data: mmap.mmap, position: int, end: int) -> Iterator[tuple[int, Value]]:
    """Field numbers and values of the message between two positions."""
    while position < end:
        tag, position = _varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        value: Value = 0
        if wire_type == _VARINT:
            value, position = _varint(data, position)
        elif wire_type == _BYTES:
            length, position = _varint(data, position)
            value = (position, position + length)
            position += length
        elif wire_type in (_EIGHT_BYTES, _FOUR_BYTES):
            position += 8 if wire_type == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"wire type {wire_type} at byte {position}")
        if number == 0 or position > end:
            raise ValueError(f"a field that ends beyond its message, at byte {position}")
        yield number, value


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
    raise ValueError(f"a number of more than ten bytes at byte {position}")
