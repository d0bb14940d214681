"""Read DeepMind's `.pickle` and `.pystate` files without running anything that is in them.

Such a file is a pickle of numpy or jax arrays in dicts, or in containers of Haiku. Every global that it may name is
listed here and stands for a function of this module; real classes, numpy's included, are out of its reach.
Sources: what numpy 1 and 2, jax 0.2 to 0.10 and dm-haiku 0.0.4 to 0.0.17 write in `__reduce__`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.errors import CheckpointError

_NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


def read_pickle(path: Path) -> Any:
    """What the file holds, as dicts, lists, tuples, strings, numbers and numpy arrays.

    Raises:
        CheckpointError: the file names anything else (the message says what), is not a pickle, or is truncated.
    """
    try:
        with path.open("rb") as file:
            return _plain(_Unpickler(file, path).load(), {})
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise CheckpointError(
            f"{path} cannot be read as a pickle of arrays ({type(error).__name__}: {error}). It may be truncated: "
            "copy it again; or it may be of another project."
        ) from None


class _Dtype:
    """Stands for `numpy.dtype`: of numbers, or None where it is of anything else."""

    def __init__(self, code: str, *_: Any) -> None:
        self.value = np.dtype(code) if code in _NUMBERS else None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if self.value is not None and state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class _Array:
    """Stands for `numpy.ndarray`: empty until its state is set, as numpy's `_reconstruct` leaves it."""

    def __init__(self) -> None:
        self.value: NDArray[Any] = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, dtype, is_fortran, data = state[-4:]
        self.value = _from_bytes(data, dtype, shape, "F" if is_fortran else "C")


def _from_bytes(data: Any, dtype: Any, shape: Any, order: str) -> NDArray[Any]:
    if not isinstance(data, bytes | bytearray) or not isinstance(dtype, _Dtype) or dtype.value is None:
        raise ValueError("it holds an array that is not of numbers")
    array = np.frombuffer(bytes(data), dtype.value).reshape(shape, order="F" if order == "F" else "C")
    return np.ascontiguousarray(array.astype(dtype.value.newbyteorder("="))).reshape(shape)


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> _Array:
    array = _Array()
    array.value = _from_bytes(data, dtype, shape, order)
    return array


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _scalar(dtype: Any, data: Any) -> _Array:
    return _frombuffer(data, dtype, (), "C")


def _jax_array(reconstruct: Any, arguments: Any, state: Any, *_: Any) -> _Array:
    array = _Array()
    array.__setstate__(state)
    return array


def _mapping(content: Any = ()) -> dict[Any, Any]:
    return dict(content)


def _latin1(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


def _nothing(*_: Any) -> bytes:
    return b""


_GLOBALS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _nothing,  # only ever an argument of _reconstruct
    **{
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")
        for module, name, function in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _frombuffer),
        )
    },
    ("jax._src.device_array", "reconstruct_device_array"): _jax_array,
    ("jax._src.array", "_reconstruct_array"): _jax_array,
    **{
        ("haiku._src.data_structures", name): _mapping
        for name in ("FlatMapping", "FlatMap", "frozendict", "to_immutable_dict", "to_haiku_dict")
    },
    ("collections", "OrderedDict"): _mapping,
    ("_codecs", "encode"): _latin1,  # bytes, in protocols 0 to 2
    ("builtins", "bytes"): _nothing,  # empty bytes, in protocols 0 to 2
    ("__builtin__", "bytes"): _nothing,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        function = _GLOBALS.get((module, name))
        if function is None:
            raise CheckpointError(
                f"{self._path} was not loaded: it names {module}.{name}, which no checkpoint of DeepMind's Perceivers "
                "does and which could run code."
            )
        # A new one each time, for a pickle may set attributes of what it named.
        return lambda *arguments: function(*arguments)


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """Arrays in place of what stands for them; `done` holds results by id, for a container may be there many times."""
    if isinstance(value, _Array):
        return value.value
    if not isinstance(value, dict | list | tuple):
        return value
    if id(value) not in done:
        if isinstance(value, dict):
            done[id(value)] = {key: _plain(item, done) for key, item in value.items()}
        else:
            done[id(value)] = type(value)(_plain(item, done) for item in value)
    return done[id(value)]
