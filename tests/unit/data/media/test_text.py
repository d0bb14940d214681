"""Byte tokens against transformers' PerceiverTokenizer."""

from __future__ import annotations

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from perceiver_deploy.bundle.preprocessing import TextPreprocessing
from perceiver_deploy.data.media.text import decode, encode, read_text
from perceiver_deploy.errors import InputError

TEXT = TextPreprocessing()
TOKENIZER = transformers.PerceiverTokenizer()


@given(st.text(max_size=40).filter(lambda text: "[" not in text))
def test_encoding_equals_that_of_transformers(text):
    assert encode(text, TEXT).tolist() == TOKENIZER.build_inputs_with_special_tokens(
        [byte + 6 for byte in text.encode()]
    )


def test_plain_text_equals_the_whole_tokenizer_of_transformers():
    text = "This is an incomplete sentence, naïve café."
    assert encode(text, TEXT).tolist() == TOKENIZER(text).input_ids


@given(st.text(max_size=40).filter(lambda text: "[MASK]" not in text))
def test_decoding_gives_the_text_back(text):
    assert decode(encode(text, TEXT), TEXT) == text


def test_each_mask_is_one_masked_byte():
    ids = encode("a[MASK][MASK]b", TEXT)
    np.testing.assert_array_equal(ids, [4, ord("a") + 6, 3, 3, ord("b") + 6, 5])


def test_a_file_that_is_not_utf8_is_an_input_error(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        read_text(tmp_path / "x.txt")
    with pytest.raises(InputError, match="does not exist"):
        read_text(tmp_path / "absent.txt")
