"""A graph in parts that run one after the other, so that any number of its tensors is looked at in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.errors import requires
from perceiver_deploy.runtimes.settings import RuntimeSettings

with requires("cpu", "Calibrating"):
    import onnxruntime

    from perceiver_deploy.runtimes.cpu.onnxruntime import session_options


@dataclass(frozen=True)
class _Part:
    """Nodes in their order, what they show, and what later parts read of them."""

    nodes: list[ir.Node]
    shown: list[str]


class Segments:
    """Runs a graph part by part: every node once for each batch, and what is looked at is given back part by part.

    Args:
        model: a graph; its external data lie in `folder`. Tensors of subgraphs cannot be looked at.
        sizes: bytes of each tensor to look at, by its name: a graph input or the result of a node.
        most: what the tensors looked at in one part may take together, unless one alone takes more.
        folder: where the parts are written.
    """

    def __init__(self, model: ir.Model, sizes: Mapping[str, int], most: int, folder: Path) -> None:
        self._given = [str(value.name) for value in model.graph.inputs if value.name in sizes]
        parts = _cut(model, sizes, most)
        last_use = _last_uses(parts)
        self._runs = [
            _Run(model, part, [name for name in _results(part) if last_use.get(name, -1) > index], folder, index)
            for index, part in enumerate(parts)
        ]
        self._last_use = last_use

    def __len__(self) -> int:
        return len(self._runs) + bool(self._given)

    def run(self, batch: Arrays) -> Iterator[Arrays]:
        """What is looked at, by name, part by part; one part's at a time is held, with what later parts need."""
        if self._given:
            yield {name: batch[name] for name in self._given}
        live = dict(batch)
        for index, run in enumerate(self._runs):
            found = run(live)
            yield {name: found[name] for name in run.shown}
            live |= {name: found[name] for name in run.kept}
            live = {name: array for name, array in live.items() if self._last_use.get(name, -1) > index}


class _Run:
    """One part, loaded."""

    def __init__(self, model: ir.Model, part: _Part, kept: list[str], folder: Path, index: int) -> None:
        self.shown, self.kept = part.shown, kept
        inside = set(_results(part))
        read = dict.fromkeys(value for node in part.nodes for value in _read(node))
        inputs = [value for value in read if value.name not in inside and not value.is_initializer()]
        self._inputs = [str(value.name) for value in inputs]
        self._outputs = list(dict.fromkeys([*part.shown, *kept]))
        graph = ir.convenience.extract(model.graph, self._inputs, self._outputs)
        path = folder / f"part{index}.onnx"
        ir.save(ir.Model(graph, ir_version=model.ir_version), path)  # external data stay in the file beside it
        self._session = onnxruntime.InferenceSession(str(path), _options(), providers=["CPUExecutionProvider"])

    def __call__(self, live: Arrays) -> Arrays:
        inputs = {name: np.ascontiguousarray(live[name]) for name in self._inputs}
        return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))


def _options() -> onnxruntime.SessionOptions:
    """Parts share the machine and its memory: none holds on to either between its runs."""
    options = session_options(RuntimeSettings(memory_arena=False))
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _cut(model: ir.Model, sizes: Mapping[str, int], most: int) -> list[_Part]:
    """The nodes that lead to what is looked at, in the order of the graph, cut where a part would show too much."""
    parts: list[_Part] = []
    free = 0
    for node in _needed(model, sizes):
        shown = [str(value.name) for value in node.outputs if value.name in sizes]
        wanted = sum(sizes[name] for name in shown)
        if not parts or (shown and parts[-1].shown and wanted > free):
            parts.append(_Part([], []))
            free = most
        parts[-1].nodes.append(node)
        parts[-1].shown.extend(shown)
        free -= wanted
    return parts


def _needed(model: ir.Model, wanted: Mapping[str, int]) -> list[ir.Node]:
    needed: set[ir.Node] = set()
    for node in reversed(model.graph):
        if node in needed or any(value.name in wanted for value in node.outputs):
            needed.add(node)
            needed.update(producer for value in _read(node) if (producer := value.producer()))
    return [node for node in model.graph if node in needed]


def _results(part: _Part) -> list[str]:
    return [str(value.name) for node in part.nodes for value in node.outputs]


def _last_uses(parts: Sequence[_Part]) -> dict[str, int]:
    """The last part that reads each value."""
    return {str(value.name): index for index, part in enumerate(parts) for node in part.nodes for value in _read(node)}


def _read(node: ir.Node) -> list[ir.Value]:
    """What a node reads of the graph it is in: its inputs, and what its subgraphs read from outside."""
    read = [value for value in node.inputs if value is not None]
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            body = attribute.as_graph()
            own = {*body.inputs, *(value for inner in body for value in inner.outputs)}
            read += [value for inner in body for value in _read(inner) if value not in own]
    return read
