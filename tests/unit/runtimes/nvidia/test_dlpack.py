from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from perceiver_deploy.errors import InputError
from perceiver_deploy.runtimes.nvidia.dlpack import CPU, CUDA, DeviceArray, borrow


@pytest.fixture(autouse=True)
def only_new_objects() -> None:
    """A worker holds millions of objects, and a search of all of them takes seconds."""
    gc.freeze()


def lend(array: np.ndarray, freed: list[bool]) -> DeviceArray:
    return DeviceArray(array.ctypes.data, array.shape, array.dtype, (CPU, 0), lambda: freed.append(True))


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "uint8", "int16"])
def test_tensor_of_torch_is_borrowed_where_it_lies(dtype: str) -> None:
    tensor = torch.arange(6).reshape(1, 2, 3).to(getattr(torch, dtype))
    found = borrow("x", tensor, CPU, 0, None)
    assert (found.pointer, found.shape, found.dtype) == (tensor.data_ptr(), (1, 2, 3), np.dtype(dtype))


def test_part_of_a_tensor_is_borrowed_at_its_own_place() -> None:
    tensor = torch.zeros(4, 3)[2:]
    assert borrow("x", tensor, CPU, 0, None).pointer == tensor.data_ptr()


def test_borrowed_tensor_lives_as_long_as_it_is_held() -> None:
    array = np.arange(5.0)
    references = [borrow("x", array, CPU, 0, None)]
    view = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_double * 5).from_address(references[0].pointer))
    del array
    gc.collect()
    assert view.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("tensor", "part"),
    [
        ([1.0], "list; expected a tensor with __dlpack__"),
        (torch.zeros(2, 3).T, "not contiguous"),
        (torch.zeros(2, dtype=torch.complex64), "no model takes"),
    ],
)
def test_what_cannot_be_borrowed_is_an_input_error(tensor: object, part: str) -> None:
    with pytest.raises(InputError, match=part):
        borrow("x", tensor, CPU, 0, None)


def test_tensor_on_another_device_is_refused_with_both() -> None:
    with pytest.raises(InputError, match=r"\(1, 0\); expected \(2, 0\)"):
        borrow("x", torch.zeros(2), CUDA, 0, None)


@pytest.mark.parametrize("consumer", [torch.from_dlpack, np.from_dlpack])
def test_array_is_taken_over_without_a_copy_and_freed_after_the_last_holder(consumer: object) -> None:
    source, freed = np.arange(6, dtype=np.float32).reshape(2, 3), list[bool]()
    lent = lend(source, freed)
    taken = consumer(lent)
    source[1, 2] = 9
    assert taken.tolist() == [[0, 1, 2], [3, 4, 9]]
    del lent
    gc.collect()
    assert freed == []
    del taken
    gc.collect()
    assert freed == [True]


@pytest.mark.parametrize("wish", [{"copy": True}, {"dl_device": (CUDA, 0)}])
def test_copy_or_another_device_is_refused_as_the_protocol_says(wish: dict[str, object]) -> None:
    with pytest.raises(BufferError, match="without a copy"):
        lend(np.zeros(3, np.float32), []).__dlpack__(**wish)


def test_capsule_that_nobody_takes_is_given_back() -> None:
    freed = list[bool]()
    lent = lend(np.zeros(3, np.float32), freed)
    capsule = lent.__dlpack__()
    del lent
    gc.collect()
    assert freed == []
    del capsule
    gc.collect()
    assert freed == [True]


def test_array_without_elements_and_a_scalar_keep_their_shapes() -> None:
    for shape in ((), (0, 4)):
        assert torch.from_dlpack(lend(np.zeros(shape, np.int64), [])).shape == shape
