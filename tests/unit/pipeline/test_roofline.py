from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.recipe import VariantRecipe
from perceiver_deploy.errors import BundleError, UsageError
from perceiver_deploy.pipeline.roofline import DEVICES, device_named, latency_bounds


def test_device_is_found_however_it_is_written() -> None:
    assert device_named("RTX 4090") is device_named("rtx-4090") is DEVICES["rtx4090"]
    with pytest.raises(UsageError, match=r"'mi300'; expected h100, .*rtx4090"):
        device_named("mi300")


def test_rates_of_every_device_rise_from_fp32_to_int8() -> None:
    for device in DEVICES.values():
        assert device.rate("fp32") < device.rate("fp16") < device.rate("int8")
        assert device.source.startswith("https://")


def test_bound_is_the_larger_of_operations_and_bytes_at_peak(shared_bundle: Callable[[str], Path]) -> None:
    bundle = Bundle.open(shared_bundle("text_classification"))
    bounds = {bound.precision: bound for bound in latency_bounds(bundle, DEVICES["l4"])}
    graph = bundle.manifest.variants["fp32"].recipe.model_dump()["graphs"]["full"]
    length, weights = bundle.manifest.axes["length"].opt, sum(module["weight_bytes"] for module in graph["modules"])
    classes = bundle.manifest.stages["full"].outputs[0].shape[1]
    moved = 2 * 8 * length + 4 * classes  # two inputs of int64 and the logits
    assert bounds["fp32"].flops == graph["flops"]
    assert bounds["fp32"].bytes == weights + moved
    assert bounds["int8"].bytes == weights // 4 + moved
    assert bounds["fp16"].compute_seconds == graph["flops"] / 121e12
    assert bounds["fp32"].memory_seconds == (weights + moved) / 300e9
    for bound in bounds.values():
        assert bound.seconds == max(bound.compute_seconds, bound.memory_seconds)
        assert (bound.limit == "memory") == (bound.memory_seconds > bound.compute_seconds)


def test_bundle_without_counted_operations_is_refused(shared_bundle: Callable[[str], Path]) -> None:
    bundle = Bundle.open(shared_bundle("text_classification"))
    bare = bundle.manifest.variants["fp32"].model_copy(update={"recipe": VariantRecipe()})
    manifest = bundle.manifest.model_copy(update={"variants": {"fp32": bare}})
    with pytest.raises(BundleError, match="Export the checkpoint again"):
        latency_bounds(Bundle(bundle.path, manifest), DEVICES["h100"])
