"""`perceiver-deploy inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perceiver_deploy.cli.options import threads_option
from perceiver_deploy.cli.verb import Outcome, Verb

if TYPE_CHECKING:
    from rich.console import Console

    from perceiver_deploy.pipeline.inspect import Inspection


@click.command(
    "inspect",
    cls=Verb,
    short_help="Show inputs, axes, operators, FLOPs and bytes.",
    extra="cpu",
    example="perceiver-deploy inspect digits.bundle",
)
@click.argument("path", type=click.Path(path_type=Path), metavar="BUNDLE|ONNX")
@click.option("--device", metavar="GPU", help="Show the lowest possible latency on a GPU, such as h100 or rtx4090.")
@click.option("--time", "timed", is_flag=True, help="Show the time per layer, measured here (needs the extra export).")
@threads_option
def command(path: Path, device: str | None, threads: int | None, *, timed: bool) -> Outcome:
    """Show inputs, outputs, axes and operators of a bundle or an ONNX file, with FLOPs and bytes per module.

    --time instead runs eager and each variant of a bundle under the profiler of its runtime.
    """
    from perceiver_deploy.pipeline.inspect import inspect_path

    if timed and device is not None:
        raise click.UsageError("--time measures on this machine and --device predicts for a GPU; give one of them.")
    if threads is not None and not timed:
        raise click.UsageError("--threads is of --time; give that too.")
    if timed:
        return _times(path, threads)
    if device is not None:
        return _roofline(path, device)
    inspection = inspect_path(path)
    return Outcome(inspection.to_json(), lambda console: _show(console, inspection))


def _times(path: Path, threads: int | None) -> Outcome:
    from perceiver_deploy.bundle.bundle import Bundle
    from perceiver_deploy.cli.tables import make_table
    from perceiver_deploy.evaluate.report.benchmark_page import layer_table
    from perceiver_deploy.pipeline.benchmark.module_times import time_modules

    found = time_modules(Bundle.open(path), threads)
    table = layer_table(found)

    return Outcome(
        found.model_dump(mode="json"), lambda console: console.print(make_table(table.title, table.header, table.rows))
    )


def _roofline(path: Path, name: str) -> Outcome:
    from dataclasses import asdict

    from perceiver_deploy.bundle.bundle import Bundle
    from perceiver_deploy.cli.tables import make_table, megabytes
    from perceiver_deploy.pipeline.roofline import device_named, latency_bounds

    device, bundle = device_named(name), Bundle.open(path)
    bounds = latency_bounds(bundle, device)

    def show(console: Console) -> None:
        rows = [
            (
                bound.stage,
                bound.precision,
                f"{bound.flops / 1e9:,.3f}",
                megabytes(bound.bytes),
                f"{1e6 * bound.compute_seconds:,.2f}",
                f"{1e6 * bound.memory_seconds:,.2f}",
                f"{1e6 * bound.seconds:,.2f} ({bound.limit})",
            )
            for bound in bounds
        ]
        headers = ("stage", "precision", "GFLOP", "read and written", "compute, us", "memory, us", "at least, us")
        console.print(make_table(f"Least time on {device.title}, axes at opt sizes", headers, rows))
        console.print(f"Peak rates: {device.source}")

    return Outcome({"device": asdict(device), "bounds": [bound.to_json() for bound in bounds]}, show)


def _show(console: Console, inspection: Inspection) -> None:
    from perceiver_deploy.bundle.recipe import summarize_reasons
    from perceiver_deploy.cli.tables import fill, make_table, megabytes

    console.print(f"{inspection.path}: {inspection.task or 'task unknown'}, {inspection.parameters:,} parameters")
    tensors = [("input", i) for i in inspection.inputs] + [("output", o) for o in inspection.outputs]
    for name, stage in inspection.stages.items():
        tensors += [(f"{name} input", i) for i in stage.inputs] + [(f"{name} output", o) for o in stage.outputs]
    rows = [(kind, t.name, t.dtype, ", ".join(map(str, t.shape))) for kind, t in tensors]
    console.print(make_table("Inputs and outputs", ("", "name", "dtype", "shape"), rows))
    if inspection.axes:
        axes = [
            (name, *("-" if v is None else str(v) for v in axis.values())) for name, axis in inspection.axes.items()
        ]
        console.print(make_table("Axes", ("axis", "min", "opt", "max", "multiple of"), axes))
    for graph in inspection.graphs:
        operators = ", ".join(f"{name} {count}" for name, count in graph.operators.items())
        console.print(fill(f"{graph.name} {graph.stage} ({graph.file}, {megabytes(graph.bytes)}): {operators}"))
        if graph.flops is not None:
            console.print(f"  {graph.flops / 1e9:,.3f} GFLOP with the axes at their opt sizes")
        if graph.kept:
            kept = summarize_reasons(graph.kept)
            console.print(fill(f"  nodes kept in higher precision: {kept} (each with --json)"))
        if graph.saturation is not None:
            count = len(graph.saturation["weights"])
            console.print(
                f"  sums of {count} weight GEMMs can saturate on x86 processors without INT8 dot products"
                if count
                else "  no sum with a weight can saturate, on any processor"
            )
        if graph.rewrites:
            rewrites = ", ".join(f"{name} {count}" for name, count in graph.rewrites.items())
            console.print(fill(f"  rewrites: {rewrites}"))
        if graph.modules:
            _show_modules(console, graph.modules)
        if graph.attentions:
            _show_attentions(console, graph.attentions)
    for variant, runtimes in inspection.conformance.items():
        for runtime, text in runtimes.items():
            console.print(f"{variant} in {runtime} here {text}")
    if inspection.engines:
        console.print(f"Engines: {', '.join(inspection.engines)}")


def _show_modules(console: Console, modules: list[dict[str, Any]]) -> None:
    from perceiver_deploy.cli.tables import make_table, megabytes, percent

    total = sum(module["flops"] for module in modules) or 1
    rows = [
        (
            module["module"],
            f"{module['flops'] / 1e9:,.3f}",
            percent(module["flops"] / total),
            megabytes(module["weight_bytes"]),
            megabytes(module["activation_bytes"]),
        )
        for module in modules
    ]
    headers = ("module", "GFLOP", "share", "weights", "activations moved")
    console.print(make_table("Modules, axes at opt sizes", headers, rows))


def _show_attentions(console: Console, attentions: list[dict[str, Any]]) -> None:
    """One line per attention, then why engines do not fuse it: each reason with the modules it applies to."""
    from perceiver_deploy.cli.tables import fill, make_table

    rows, reasons = [], dict[str, list[str]]()
    for a in attentions:
        for engine, verdict in a["fuses"].items():
            if verdict != "fused":
                reasons.setdefault(f"{engine} does not fuse: {verdict}", []).append(a["module"])
        sizes = (f"{a['qk_size']}, {a['v_size']}", f"{a['queries']} x {a['keys']}", "yes" if a["mask"] else "-")
        engines = ", ".join(engine for engine, verdict in a["fuses"].items() if verdict == "fused")
        module = a["module"] if a["count"] == 1 else f"{a['module']} x {a['count']}"
        rows.append((module, str(a["heads"]), *sizes, f"{a['flops'] / 1e9:,.3f}", engines or "-"))
    headers = ("attention", "heads", "qk, v of a head", "queries x keys", "mask", "GFLOP", "fused by")
    console.print(make_table("Attentions, one sample at opt sizes", headers, rows))
    for reason, modules in reasons.items():
        console.print(fill(f"  {reason} ({', '.join(dict.fromkeys(modules))})"))
