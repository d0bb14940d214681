"""Taps: what the modules of a graph give, as further outputs of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from perceiver_deploy.export.graph.flops import QUANTIZATION
from perceiver_deploy.export.graph.origin import module_of

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class Tap:
    """A value that a module gives to another: the output that shows it, its rank, and the taps it is computed from."""

    module: str
    output: str
    rank: int
    reads: tuple[int, ...]


def tap_modules(graph: Path) -> tuple[Path, list[Tap]]:
    """Write a graph beside `graph` that has such values as float32 outputs, and no others; its path and its taps.

    Values inside a module, such as the scores of an attention, are left out: there are too many and they are large.
    """
    model = ir.load(graph)
    shown = [
        value
        for node in model.graph
        if node.op_type not in QUANTIZATION and module_of(node)
        for value in node.outputs
        if value.dtype in _FLOATS and _leaves(value)
    ]
    places = {value: place for place, value in enumerate(shown)}
    taps = [
        Tap(_module(value), f"tap.{place}", len(value.shape or ()), tuple(sorted(_read_by(value, places))))
        for value, place in places.items()
    ]
    model.graph.outputs.clear()
    for value, tap in zip(shown, taps, strict=True):
        cast = ir.node("Cast", [value], {"to": int(ir.DataType.FLOAT)}, name=tap.output)  # onnxruntime refuses bf16
        cast.outputs[0].name = tap.output
        cast.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        cast.outputs[0].shape = value.shape
        model.graph.append(cast)
        model.graph.outputs.append(cast.outputs[0])
    path = graph.with_name(f"tapped-{graph.name}")
    ir.save(model, path)  # external data stay in the file beside it
    return path, taps


def _leaves(value: ir.Value) -> bool:
    """Whether another module reads the value, or the user."""
    uses = {use.node for use in value.uses()}
    return value.is_graph_output() or any(module_of(node) != _module(value) for node in uses)


def _module(value: ir.Value) -> str:
    node = value.producer()
    assert node is not None
    return module_of(node)


def _read_by(value: ir.Value, places: dict[ir.Value, int]) -> set[int]:
    """Places of the nearest tapped values that a value is computed from."""
    found, seen, waiting = set[int](), set[ir.Value](), [value]
    while waiting:
        node = waiting.pop().producer()
        for read in () if node is None else node.inputs:
            if read is None or read in seen:
                continue
            seen.add(read)
            if read in places:
                found.add(places[read])
            else:
                waiting.append(read)
    return found
