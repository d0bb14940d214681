"""What each layer of a variant in reduced precision is off by."""

from __future__ import annotations

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.bundle.samples import Sample
from perceiver_deploy.errors import requires
from perceiver_deploy.evaluate.report.benchmark_document import LayerErrors
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.opening import runtimes_here


def measure_layer_errors(bundle: Bundle, inputs: Arrays) -> list[LayerErrors]:
    """The SQNR of the layers of each variant in reduced precision on some inputs, in the first runtime it is for.

    Raises:
        BundleError, MissingError: as `bisect`.
    """
    with requires("export", "Comparing layers"):
        from perceiver_deploy.export.graph.origin import layer_of
        from perceiver_deploy.pipeline.validate.bisection import bisect
    found = []
    for name, variant in bundle.manifest.variants.items():
        runtimes = runtimes_here(bundle, name)
        if variant.precision == "fp32" or not runtimes:
            continue
        log.info("Comparing the layers of %s with eager", name)
        modules = bisect(bundle, name, runtimes[0], Sample("benchmark", inputs, {}, {})).modules
        layers = dict[str, float]()
        for module in modules:  # from the lowest SQNR
            layers.setdefault(layer_of(module.module), module.sqnr_db)
        found.append(LayerErrors(bundle=str(bundle.path), variant=name, sqnr_db=layers))
    return found
