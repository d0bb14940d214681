"""Text as bytes: encoding to token ids and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.manifest import Axis
from perceiver_deploy.bundle.preprocessing import MASKED_BYTE, TextPreprocessing
from perceiver_deploy.errors import InputError

MASK_TEXT = "[MASK]"


def read_text(path: Path) -> str:
    """A UTF-8 text file.

    Raises:
        InputError: no file there, or not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")  # read_text would change line ends, which are bytes too
    except FileNotFoundError:
        raise InputError(f"{path} does not exist. Give the path of a text file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text ({error}).") from None


def encode(text: str, preprocessing: TextPreprocessing) -> NDArray[np.int64]:
    """Token ids [length]: CLS, one id a UTF-8 byte, SEP. Each `[MASK]` in the text is one masked byte."""
    ids = [preprocessing.cls_id]
    for index, part in enumerate(text.split(MASK_TEXT)):
        if index:
            ids.append(preprocessing.mask_id)
        ids += [byte + preprocessing.byte_offset for byte in part.encode("utf-8")]
    return np.array([*ids, preprocessing.sep_id], np.int64)


def read_tokens(path: Path, preprocessing: TextPreprocessing, length: Axis) -> Arrays:
    """`input_ids` and `attention_mask` [1, length] of a text file.

    Raises:
        InputError: not a text file, or longer than the axis allows.
    """
    ids = encode(read_text(path), preprocessing)
    if length.max is not None and len(ids) > length.max:
        raise InputError(
            f"{path} is {len(ids)} tokens long (its bytes, CLS and SEP); the model's position table holds "
            f"{length.max}. Shorten the text or cut it into parts."
        )
    return {"input_ids": ids[None], "attention_mask": np.ones_like(ids[None])}


def read_utf8(path: Path, preprocessing: TextPreprocessing, length: Axis) -> Arrays:
    """`utf8` and `attention_mask` [1, length] of a text file; of an empty one, one byte that is hidden.

    Raises:
        InputError: not a text file, or longer than the axis allows.
    """
    utf8 = utf8_of(encode(read_text(path), preprocessing)[1:-1], preprocessing)
    if length.max is not None and len(utf8) > length.max:
        raise InputError(
            f"{path} is {len(utf8)} bytes long; the model takes at most {length.max}. Shorten the text or cut it into "
            "parts."
        )
    mask = np.ones(len(utf8), np.int64)
    if not len(utf8):
        utf8, mask = np.zeros(1, np.uint8), np.zeros(1, np.int64)
    return {"utf8": utf8[None], "attention_mask": mask[None]}


def utf8_of(ids: NDArray[np.int64], preprocessing: TextPreprocessing) -> NDArray[np.uint8]:
    """Bytes of token ids that are bytes or masked ones; see `MASKED_BYTE`."""
    return np.where(ids == preprocessing.mask_id, MASKED_BYTE, ids - preprocessing.byte_offset).astype(np.uint8)


def tokens_of(utf8: NDArray[np.uint8], preprocessing: TextPreprocessing) -> NDArray[np.int64]:
    """Token ids of bytes; undoes `utf8_of`."""
    values = utf8.astype(np.int64)
    return np.where(values == MASKED_BYTE, preprocessing.mask_id, values + preprocessing.byte_offset)


def decode(ids: NDArray[np.int64], preprocessing: TextPreprocessing) -> str:
    """Text of the byte tokens among `ids`; special tokens are left out, broken UTF-8 shows as U+FFFD."""
    values = ids[ids >= preprocessing.byte_offset] - preprocessing.byte_offset
    return bytes(values.astype(np.uint8)).decode("utf-8", errors="replace")
