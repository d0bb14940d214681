"""Preprocessing of images against transformers' own."""

from __future__ import annotations

import numpy as np
import pytest
import transformers
from PIL import Image

from perceiver_deploy.bundle.preprocessing import ImagePreprocessing
from perceiver_deploy.data.media.images import normalize, preprocess_image, read_image
from perceiver_deploy.errors import InputError

PUBLISHED = ImagePreprocessing(
    size=(224, 224), crop_fraction=224 / 256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)


@pytest.mark.parametrize("size", [(300, 200), (257, 491), (64, 64), (224, 224)])
def test_published_preprocessing_equals_that_of_transformers(size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    theirs = transformers.PerceiverImageProcessorPil()(image, return_tensors="np")["pixel_values"][0]
    # their crop pads and rounds through the same uint8 pixels; what is left is float32 rounding
    np.testing.assert_allclose(preprocess_image(image, PUBLISHED), theirs, atol=1e-5)


def test_normalize_moves_channels_first_and_scales():
    pixels = np.zeros((2, 4, 5, 3), np.uint8)
    pixels[1, 2, 3] = (255, 0, 127)
    plain = ImagePreprocessing(size=None, mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 1.0))
    result = normalize(pixels, plain)
    assert result.shape == (2, 3, 4, 5)
    np.testing.assert_allclose(result[1, :, 2, 3], [1.0, -2.0, 127 / 255 - 0.5], rtol=1e-6)


def test_greyscale_and_transparent_files_become_rgb(tmp_path):
    for mode in ("L", "RGBA", "P", "1"):
        Image.new(mode, (6, 4)).save(tmp_path / f"{mode}.png")
        assert preprocess_image(read_image(tmp_path / f"{mode}.png"), PUBLISHED).shape == (3, 224, 224)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n cut short"])
def test_a_file_that_is_no_image_is_an_input_error(tmp_path, content):
    file = tmp_path / "x.png"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.png cannot be read as an image"):
        read_image(file)
