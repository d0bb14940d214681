"""The raw form of a model against Python's preprocessing and the model itself, in every runtime that runs here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from PIL import Image

from perceiver_deploy import build_engine, export_model, load
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.preprocessing import (
    AudioPreprocessing,
    FlowPreprocessing,
    ImagePreprocessing,
    TextPreprocessing,
    VideoPreprocessing,
)
from perceiver_deploy.data.media.audio import preprocess_sound
from perceiver_deploy.data.media.flow import extract_patches
from perceiver_deploy.data.media.images import preprocess_image
from perceiver_deploy.data.media.text import encode
from perceiver_deploy.data.media.video import cover, scale_pictures
from perceiver_deploy.errors import BundleError, InputError, UsageError
from perceiver_deploy.model.config import PerceiverConfig
from perceiver_deploy.model.raw.building import raw_model
from perceiver_deploy.pipeline.validate.validate import validate_bundle
from tests.helpers.factories import perturbed_model, relative_l2, small_config, small_model
from tests.helpers.task_factories import TASK_CONFIGS

Arrays = dict[str, Any]
TEXTS = ["Perceivers read bytes.", "é", "", "a [MASK]!"]
PIXELS: dict[str, Any] = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
CROPPED = ImagePreprocessing(size=(10, 12), crop_fraction=0.875, **PIXELS)
SOUND = AudioPreprocessing(sample_rate=100, samples=64, samples_per_patch=4)
FLOW = FlowPreprocessing(tile_size=(12, 16), min_overlap=2, output_scale=20.0)
FILM = VideoPreprocessing(size=(8, 12), frames=4)
FILM_WITH_SOUND = VideoPreprocessing(size=(8, 12), frames=4, frame_rate=25, sample_rate=400, gain=3.0)


@dataclass(frozen=True)
class Case:
    """A model, raw inputs of several sizes, and what Python's preprocessing makes of them."""

    config: PerceiverConfig
    sizes: tuple[Any, ...]
    make: Callable[[Any, np.random.Generator], Arrays]
    preprocess: Callable[[Arrays], Arrays]


def pixels(size: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8)


def images(preprocessing: ImagePreprocessing, kind: str = "fourier") -> Case:
    return Case(
        small_config(kind, preprocessing=preprocessing),
        ((3, 7, 6), (2, 41, 23), (1, 2, 2)) if preprocessing.crop_fraction else ((3, 7, 6), (2, 33, 17), (2, 1, 1)),
        lambda size, rng: {"image_uint8": pixels(size, rng)},
        lambda raw: {
            "pixel_values": np.stack(
                [preprocess_image(Image.fromarray(one), preprocessing) for one in raw["image_uint8"]]
            )
        },
    )


def texts(config: PerceiverConfig, **others: Any) -> Case:
    def make(rows: list[str], rng: np.random.Generator) -> Arrays:
        values = [row.replace("[MASK]", "\0").encode().replace(b"\0", b"\xff") for row in rows]
        length = max(1, *map(len, values))
        utf8 = np.stack([np.frombuffer(value.ljust(length, b"x"), np.uint8) for value in values])
        mask = np.stack([np.arange(length) < len(value) for value in values]).astype(np.int64)
        return {"utf8": utf8, "attention_mask": mask, **others}

    def preprocess(raw: Arrays) -> Arrays:
        rows = TEXTS if len(raw["utf8"]) == len(TEXTS) else TEXTS[1:3] if len(raw["utf8"]) == 2 else TEXTS[2:3]
        ids = [encode(row, TextPreprocessing()) for row in rows]
        length = raw["utf8"].shape[1] + 2
        padded = np.stack([np.pad(row, (0, length - len(row))) for row in ids])
        mask = np.stack([np.arange(length) < len(row) for row in ids]).astype(np.int64)
        return {"input_ids": padded, "attention_mask": mask, **others}

    return Case(
        dataclasses.replace(config, preprocessing=TextPreprocessing()),
        (TEXTS, TEXTS[1:3], TEXTS[2:3]),
        make,
        preprocess,
    )


def sounds(task: str) -> Case:
    def preprocess(raw: Arrays) -> Arrays:
        rows = [preprocess_sound(row.astype(np.float32) / np.float32(32768), SOUND) for row in raw["pcm"]]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    return Case(
        dataclasses.replace(TASK_CONFIGS[task], preprocessing=SOUND),
        ((3, 64), (2, 37), (2, 1), (1, 99)),
        lambda size, rng: {"pcm": rng.integers(-32768, 32768, size, dtype=np.int16)},
        preprocess,
    )


def films(task: str, preprocessing: VideoPreprocessing) -> Case:
    def make(size: tuple[int, ...], rng: np.random.Generator) -> Arrays:
        raw: Arrays = {"video_uint8": pixels(size, rng)}
        if preprocessing.sample_rate is not None:
            raw["pcm"] = rng.integers(-32768, 32768, (size[0], 16 * size[1]), dtype=np.int16)
        if task == "multimodal_autoencoding":
            raw["label"] = rng.random((size[0], 7)).astype(np.float32)
            raw["image_points"] = np.array([0, 17, size[1] * 96 - 1])
            raw["audio_points"] = np.array([0, size[1] * 4 - 1])
        return raw

    def preprocess(raw: Arrays) -> Arrays:
        fitted = [
            [np.asarray(cover(Image.fromarray(one), preprocessing.size)) for one in clip] for clip in raw["video_uint8"]
        ]
        plain = {name: array for name, array in raw.items() if name not in ("video_uint8", "pcm")}
        plain["image"] = scale_pictures(np.array(fitted))
        if "pcm" in raw:
            sound = raw["pcm"].astype(np.float32) / np.float32(32768) * np.float32(preprocessing.gain)
            plain["audio"] = np.clip(sound, -1, 1)[..., None]
        return plain

    config = dataclasses.replace(TASK_CONFIGS[task], preprocessing=preprocessing)
    return Case(config, ((2, 4, 8, 12), (1, 3, 23, 11), (1, 1, 1, 1)), make, preprocess)


CASES = {
    "cropped image": images(CROPPED),
    "resized image": images(CROPPED.model_copy(update={"crop_fraction": None})),
    "image of any size": images(ImagePreprocessing(size=None, **PIXELS)),
    "masked_lm": texts(small_config("masked_lm")),
    "text_classification": texts(small_config("text_classification")),
    "multitask_text": texts(TASK_CONFIGS["multitask_text"], task_ids=np.array([2, 0])),
    "sound": sounds("audio_classification"),
    "sound, log-mel": sounds("audio_classification, log-mel"),
    "flow": Case(
        dataclasses.replace(TASK_CONFIGS["optical_flow"], preprocessing=FLOW),
        ((2, 2, 12, 16), (1, 2, 7, 5), (1, 2, 1, 1)),
        lambda size, rng: {"frames_uint8": pixels(size, rng)},
        lambda raw: {"patches": extract_patches(raw["frames_uint8"])},
    ),
    "video": films("video_classification", FILM),
    "video with sound": films("audiovisual_classification", FILM_WITH_SOUND),
    "autoencoding": films("multimodal_autoencoding", FILM_WITH_SOUND),
}


FULL = (
    *("resized image", "image of any size", "text_classification", "multitask_text"),
    *("sound, log-mel", "video", "autoencoding"),
)
"""Their graphs differ little from another case's or from a shipped checkpoint's."""
SLOW = ("video with sound", "flow")


def expected_outputs(case: Case, raw: Arrays) -> Arrays:
    """The model itself on what Python's preprocessing gives, and what is done to its outputs afterwards."""
    inputs = {name: torch.from_numpy(array) for name, array in case.preprocess(raw).items()}
    with torch.inference_mode():
        outputs = {name: part.numpy() for name, part in perturbed_model(case.config)(**inputs).items()}
    if case.config.task == "optical_flow":
        outputs["flow"] = outputs["flow"] * FLOW.output_scale
    if case.config.task == "masked_lm":
        outputs["logits"] = outputs["logits"][:, 1:-1]
    return outputs


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Raw bundles by case, made when first asked for and not changed but by building engines."""
    root = tmp_path_factory.mktemp("raw")

    def get(name: str) -> Path:
        if not (root / name).exists():
            export_model(perturbed_model(CASES[name].config), root / name, raw_inputs=True, gate_seconds=5)
        return root / name

    return get


@pytest.mark.parametrize("name", CASES)
def test_raw_form_feeds_the_model_what_python_preprocessing_gives(name: str) -> None:
    case, seen = CASES[name], {}
    raw = raw_model(perturbed_model(case.config))
    names = [spec.name for spec in raw.wrapped.signature.stage.inputs]
    raw.wrapped.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(zip(names, args, strict=False), **kwargs), with_kwargs=True
    )
    for seed, size in enumerate(case.sizes):
        arrays = case.make(size, np.random.default_rng(seed))
        with torch.inference_mode():
            raw(**{key: torch.from_numpy(array) for key, array in arrays.items()})
        for key, array in case.preprocess(arrays).items():
            assert tuple(seen[key].shape) == array.shape
            np.testing.assert_allclose(seen[key].numpy(), array, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.full if name in FULL else pytest.mark.slow if name in SLOW else ())
        for name in CASES
    ],
)
def test_raw_graph_gives_the_outputs_of_python_preprocessing_and_the_model(
    name: str, exported: Callable[[str], Path]
) -> None:
    # OpenVINO weighs pixels in float32 and may round one level in 10,000 to the other side; 1e-5 is float32 itself
    for runtime, bound in (("onnxruntime", 1e-5), ("openvino", 1e-3 if "image" in name or "video" in name else 1e-5)):
        with load(exported(name), runtime, threads=1) as session:
            for seed, size in enumerate(CASES[name].sizes):
                raw = CASES[name].make(size, np.random.default_rng(seed))
                outputs = session.run(raw)
                for key, expected in expected_outputs(CASES[name], raw).items():
                    assert relative_l2(outputs[key], expected) < bound, (runtime, size, key)


@pytest.mark.parametrize(
    "name", ["cropped image", "masked_lm", *(pytest.param(name, marks=pytest.mark.full) for name in ("flow", "video"))]
)
def test_raw_graph_is_compiled_with_all_axes_dynamic(name: str, exported: Callable[[str], Path]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="building engines needs tensorrt-rtx-cu13")
    result = build_engine(exported(name))
    (profile,) = result.facts["axes"]
    assert set(profile) == set(Bundle.open(exported(name)).manifest.axes)


def test_raw_sound_is_not_for_tensorrt_which_has_no_16_bit_integers(exported: Callable[[str], Path]) -> None:
    assert Bundle.open(exported("sound")).variant("fp32").runtimes == ("onnxruntime", "openvino")
    with pytest.raises(BundleError, match="not for tensorrt-rtx"):
        build_engine(exported("sound"))


def test_nodes_of_a_raw_graph_are_named_after_the_modules_of_the_model(exported: Callable[[str], Path]) -> None:
    path = exported("cropped image")
    names = [node.name or "" for node in ir.load(path / "onnx/fp32.onnx").graph]
    assert any(name.startswith("resize/") for name in names)
    assert any(name.startswith("encoder.cross_attention") for name in names)
    assert not any("wrapped" in name for name in names)


def test_source_model_of_a_raw_bundle_is_plain_and_eager_takes_raw_data(exported: Callable[[str], Path]) -> None:
    path, case = exported("cropped image"), CASES["cropped image"]
    raw = case.make((2, 9, 5), np.random.default_rng(0))
    with load(path, "torch") as session:
        assert relative_l2(session.run(raw)["logits"], expected_outputs(case, raw)["logits"]) < 1e-6
    assert Bundle.open(path).manifest.raw_inputs
    assert validate_bundle(path).reference == "grid"
    assert validate_bundle(path).passed


def test_masked_byte_is_filled_in_from_a_raw_bundle(exported: Callable[[str], Path], tmp_path: Path) -> None:
    from perceiver_deploy.pipeline.predict import predict_files

    (tmp_path / "text.txt").write_text("Per[MASK]eiver", encoding="utf-8")
    export_model(perturbed_model(CASES["masked_lm"].config), tmp_path / "plain", validate=False)
    (plain,), (raw,) = (
        predict_files(path, [tmp_path / "text.txt"]) for path in (tmp_path / "plain", exported("masked_lm"))
    )
    assert plain.text == raw.text
    assert plain.text is not None
    assert plain.text.startswith("Per")


def test_longer_text_than_the_model_takes_with_cls_and_sep_is_refused(exported: Callable[[str], Path]) -> None:
    with load(exported("masked_lm")) as session:
        raw = {"utf8": np.zeros((1, 31), np.uint8), "attention_mask": np.ones((1, 31), np.int64)}
        with pytest.raises(InputError, match=r"length 31.*at most 30"):
            session.run(raw)


@pytest.mark.parametrize("task", ["point_cloud_classification", "entities", "tokens"])
def test_tasks_without_a_raw_form_are_refused(task: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{task}.*no raw inputs"):
        export_model(perturbed_model(TASK_CONFIGS[task]), tmp_path / "bundle", raw_inputs=True)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("config", "options", "part"),
    [
        (small_config("fourier", preprocessing=None), {}, "states no preprocessing"),
        (small_config("fourier", preprocessing=CROPPED.model_copy(update={"size": None})), {}, "resizes to no size"),
        (small_config("fourier"), {"split": "beside"}, "do not go together"),
    ],
)
def test_what_raw_inputs_cannot_do_is_a_usage_error(
    config: PerceiverConfig, options: dict[str, Any], part: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=part):
        export_model(perturbed_model(config), tmp_path / "bundle", raw_inputs=True, **options)


def test_module_of_the_users_own_has_no_raw_inputs(tmp_path: Path) -> None:
    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.signature = small_model("fourier").signature.model_copy(update={"task": "custom"})

    with pytest.raises(UsageError, match="module of your own"):
        export_model(Own(), tmp_path / "bundle", raw_inputs=True)
