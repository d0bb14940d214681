"""The C ABI of the C++ library through ctypes: a session with the same methods as Python's."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy import errors
from perceiver_deploy.arrays import Arrays

DTYPES = {"float32": 1, "float16": 2, "int64": 3, "uint8": 4, "int16": 5, "int32": 6, "float64": 7}
INPUT, OUTPUT = 0, 1


class Tensor(ctypes.Structure):
    """`pd_tensor`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_int),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("rank", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("bytes", ctypes.c_size_t),
    )


class Spec(ctypes.Structure):
    """`pd_spec`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_int),
        ("shape", ctypes.POINTER(ctypes.c_char_p)),
        ("rank", ctypes.c_size_t),
    )


class Axis(ctypes.Structure):
    """`pd_axis`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("minimum", ctypes.c_int64),
        ("optimum", ctypes.c_int64),
        ("maximum", ctypes.c_int64),
        ("multiple_of", ctypes.c_int64),
    )


class Library:
    """The shared library. `call` raises what Python's API raises for the same mistake.

    Verdicts on graphs are kept in the folder `cache`.
    """

    def __init__(self, path: Path, cache: Path) -> None:
        self.functions = ctypes.CDLL(str(path))
        self.cache = cache
        parts = ("runtime", "device", "variant", "manifest", "label", "conformance")
        for name in ("version", "last_error", "last_error_family", *(f"session_{part}" for part in parts)):
            getattr(self.functions, f"pd_{name}").restype = ctypes.c_char_p
        self.functions.pd_session_label_count.restype = ctypes.c_size_t
        self.functions.pd_outputs_count.restype = ctypes.c_size_t

    def call(self, name: str, *arguments: object) -> None:
        """Call a function that returns a status."""
        with environment(PERCEIVER_DEPLOY_CACHE=str(self.cache)):
            status = getattr(self.functions, f"pd_{name}")(*arguments)
        if status == 0:
            return
        family = getattr(errors, self.functions.pd_last_error_family().decode())
        error = family(self.functions.pd_last_error().decode())
        assert error.exit_code == status
        raise error


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Environment variables for a while."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


class Session:
    """A bundle opened by the C++ library."""

    def __init__(self, api: Library, bundle: Path, **options: object) -> None:
        self.api = api
        self.handle = ctypes.c_void_p()
        given = ctypes.c_void_p()
        api.call("options_new", ctypes.byref(given))
        try:
            for name, value in options.items():
                api.call("options_set", given, name.encode(), str(value).encode())
            api.call("session_open", str(bundle).encode(), given, ctypes.byref(self.handle))
        finally:
            api.functions.pd_options_free(ctypes.byref(given))

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.api.functions.pd_session_close(ctypes.byref(self.handle))

    def text(self, name: str) -> str:
        """`pd_session_runtime` and the like."""
        return getattr(self.api.functions, f"pd_session_{name}")(self.handle).decode()

    def check(self) -> None:
        """`pd_session_check`."""
        self.api.call("session_check", self.handle)

    def specs(self, side: int, stage: str | None = None) -> list[tuple[str, int, tuple[str, ...]]]:
        """Name, dtype and shape of each input or output."""
        count, found, stage_name = ctypes.c_size_t(), [], encoded(stage)
        self.api.call("session_count", self.handle, stage_name, side, ctypes.byref(count))
        for index in range(count.value):
            spec = Spec()
            self.api.call("session_spec", self.handle, stage_name, side, ctypes.c_size_t(index), ctypes.byref(spec))
            found.append((spec.name.decode(), spec.dtype, tuple(spec.shape[i].decode() for i in range(spec.rank))))
        return found

    def run(self, inputs: Mapping[str, NDArray[np.generic]], stage: str | None = None) -> Arrays:
        """Outputs by name, copied out of the library's memory."""
        tensors, _keep = tensors_of(inputs)
        handle = ctypes.c_void_p()
        count = ctypes.c_size_t(len(inputs))
        self.api.call("session_run", self.handle, encoded(stage), tensors, count, ctypes.byref(handle))
        try:
            outputs = {}
            for index in range(self.api.functions.pd_outputs_count(handle)):
                tensor = Tensor()
                self.api.call("outputs_get", handle, ctypes.c_size_t(index), ctypes.byref(tensor))
                outputs[tensor.name.decode()] = array_of(tensor)
            return outputs
        finally:
            self.api.functions.pd_outputs_free(ctypes.byref(handle))

    def run_into(
        self,
        inputs: Mapping[str, NDArray[np.generic]],
        outputs: Mapping[str, NDArray[np.generic]],
        stage: str | None = None,
    ) -> None:
        """Run into the memory of `outputs`."""
        given, _keep = tensors_of(inputs)
        wanted, _keep_too = tensors_of(outputs)
        counts = ctypes.c_size_t(len(inputs)), ctypes.c_size_t(len(outputs))
        self.api.call("session_run_into", self.handle, encoded(stage), given, counts[0], wanted, counts[1])

    def output_shape(
        self, inputs: Mapping[str, NDArray[np.generic]], index: int, rank: int, stage: str | None = None
    ) -> list[int]:
        """Sizes of the output at `index`."""
        given, _keep = tensors_of(inputs)
        shape = (ctypes.c_int64 * rank)()
        self.api.call(
            "session_output_shape",
            self.handle,
            encoded(stage),
            given,
            ctypes.c_size_t(len(inputs)),
            ctypes.c_size_t(index),
            shape,
            ctypes.c_size_t(rank),
        )
        return list(shape)


def encoded(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def tensors_of(arrays: Mapping[str, NDArray[np.generic]]) -> tuple[ctypes.Array[Tensor], list[object]]:
    """`pd_tensor`s that point into the arrays, and what must be kept alive meanwhile."""
    keep: list[object] = []
    tensors = (Tensor * len(arrays))()
    for tensor, (name, array) in zip(tensors, arrays.items(), strict=True):
        assert array.flags.c_contiguous
        shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        keep += [shape, array]
        tensor.name, tensor.dtype, tensor.shape, tensor.rank = (
            name.encode(),
            DTYPES[str(array.dtype)],
            shape,
            array.ndim,
        )
        tensor.data, tensor.bytes = array.ctypes.data, array.nbytes
    return tensors, keep


def array_of(tensor: Tensor) -> NDArray[np.generic]:
    """A copy of what a tensor points to."""
    dtype = next(name for name, number in DTYPES.items() if number == tensor.dtype)
    content = ctypes.string_at(tensor.data, tensor.bytes)
    return np.frombuffer(content, dtype).reshape(tensor.shape[: tensor.rank])
