"""Tensors that lie on a device, handed in and out by DLPack: the memory is shared and nothing is copied.

Structures and names are those of dlpack.h (https://dmlc.github.io/dlpack/latest/c_api.html), unversioned form, which
PyTorch, CuPy, JAX and NumPy write and read.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from perceiver_deploy.errors import InputError

CPU, CUDA = 1, 2
"""DLDeviceType."""
_KINDS = {"i": 0, "u": 1, "f": 2}
"""DLDataTypeCode, by NumPy's letter."""
_UNUSED = b"dltensor"


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("index", ctypes.c_int32))


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))

_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype, _capsule_pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


@dataclass(frozen=True)
class Borrowed:
    """A tensor of somebody else. Valid as long as `owner` is held."""

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: object


def borrow(name: str, tensor: Any, device_type: int, device: int, stream: int | None) -> Borrowed:
    """What an object with `__dlpack__` holds, contiguous and on that device.

    Args:
        name: what to call it in errors.
        tensor: for example a `torch.Tensor` on the GPU.
        device_type: `CUDA` or `CPU`.
        device: its number.
        stream: the CUDA stream that will read it; its producer orders its own work before that.

    Raises:
        InputError: it has no `__dlpack__`, lies elsewhere, is not contiguous, or is of a type that NumPy lacks.
    """
    if not hasattr(tensor, "__dlpack__"):
        raise InputError(f"Input {name!r} is a {type(tensor).__name__}; expected a tensor with __dlpack__.")
    found = tuple(map(int, tensor.__dlpack_device__()))
    if found != (device_type, device):
        raise InputError(
            f"Input {name!r} lies on the DLPack device {found}; expected {(device_type, device)}. Move it there first."
        )
    capsule = tensor.__dlpack__() if stream is None else tensor.__dlpack__(stream=stream)
    managed = ctypes.cast(_capsule_pointer(capsule, _UNUSED), ctypes.POINTER(_Managed)).contents.tensor
    shape = tuple(managed.shape[k] for k in range(managed.ndim))
    if managed.strides and not _contiguous(shape, tuple(managed.strides[k] for k in range(managed.ndim))):
        raise InputError(f"Input {name!r} is not contiguous in memory. Make it so first, as with tensor.contiguous().")
    # The capsule keeps the memory: it is never marked as used, so its own destructor gives it back.
    return Borrowed((managed.data or 0) + managed.byte_offset, shape, _dtype(name, managed.dtype), capsule)


class DeviceArray:
    """A contiguous tensor on a device, which `torch.from_dlpack` and the like take over without a copy.

    `free` is called once nobody uses the memory any more.
    """

    def __init__(
        self,
        pointer: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        device: tuple[int, int],
        free: Callable[[], None],
    ) -> None:
        self.pointer = pointer
        self.shape = shape
        self.dtype = dtype
        self._device = device
        self._memory = _Memory(free)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: object = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """A capsule of the unversioned form. Whatever computes the tensor has ended, so no stream has to wait.

        Raises:
            BufferError: a copy is asked for, or another device.
        """
        if copy or dl_device not in (None, self._device):
            raise BufferError(f"This tensor is handed out where it lies, on {self._device}, and without a copy.")
        shape = (ctypes.c_int64 * max(1, len(self.shape)))(*self.shape)
        tensor = _Tensor(
            self.pointer,
            _Device(*self._device),
            len(self.shape),
            _DataType(_KINDS[self.dtype.kind], self.dtype.itemsize * 8, 1),
            shape,
            None,
            0,
        )
        managed = _Managed(tensor, None, _give_back)
        address = ctypes.addressof(managed)
        _lent[address] = (managed, shape, self._memory)
        return _new_capsule(address, _UNUSED, ctypes.cast(_drop_unused, ctypes.c_void_p))


class _Memory:
    """Frees what it stands for when the last array and the last consumer have let go of it."""

    def __init__(self, free: Callable[[], None]) -> None:
        self._free = free

    def __del__(self) -> None:
        self._free()


_lent: dict[int, tuple[_Managed, Any, _Memory]] = {}
"""What consumers hold, by the address of its structure."""


def _take_back(managed: Any) -> None:
    _lent.pop(ctypes.addressof(managed.contents), None)


def _drop(capsule: int) -> None:
    """Destructor of a capsule: one that a consumer took over has another name, and the consumer gives it back."""
    if _raw_is_valid(capsule, _UNUSED):
        _lent.pop(_raw_pointer(capsule, _UNUSED), None)


_give_back = _Deleter(_take_back)
_drop_unused = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_drop)
_raw_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)
_raw_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    return all(
        size <= 1 or stride == math.prod(shape[k + 1 :])
        for k, (size, stride) in enumerate(zip(shape, strides, strict=True))
    )


def _dtype(name: str, dtype: _DataType) -> np.dtype[Any]:
    letter = next((letter for letter, code in _KINDS.items() if code == dtype.code), None)
    if letter is None or dtype.lanes != 1:
        raise InputError(f"Input {name!r} is of DLPack type {dtype.code} with {dtype.bits} bits, which no model takes.")
    return np.dtype(f"{letter}{dtype.bits // 8}")
