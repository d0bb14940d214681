"""Encode once, ask many times: the decoder's answers to everything that the stage `full` answers, in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from perceiver_deploy.arrays import Arrays
from perceiver_deploy.bundle.manifest import Stage, axes_of, evaluate_size
from perceiver_deploy.errors import UsageError
from perceiver_deploy.runtimes.checks.inputs import axis_sizes, check_inputs
from perceiver_deploy.runtimes.session import Session

CHUNK = 8192
_QUERY_AXIS = "queries"
"""What the name of an axis of queries begins with."""


def run_in_chunks(session: Session, inputs: Mapping[str, NDArray[np.generic]], *, chunk: int = CHUNK) -> Arrays:
    """What `session.run(inputs)` gives, answering at most `chunk` queries at a time.

    Each query is answered independently of the others, so the numbers are those of one run; its memory is not, because
    attention over the queries grows with `chunk`. The inputs are encoded once where the bundle has the stages
    `encoder` and `decoder`; without them each chunk encodes them again, if the model takes queries at all.

    Raises:
        InputError: inputs that the model does not take; nothing was run.
        BundleError: the queries are the model's own, and the bundle has no stage `decoder`.
        UsageError: `chunk` is less than 1.
    """
    if chunk < 1:
        raise UsageError(f"chunk is {chunk}; expected at least 1.")
    full = Stage(inputs=session.inputs, outputs=session.outputs)
    if "decoder" in session.stages or not _query_axes(full):
        return answer_queries(session, inputs, lambda _: chunk)
    check_inputs(inputs, session.inputs, session.axes)
    return _answer(session.run, full, dict(inputs), chunk)


def answer_queries(session: Session, inputs: Mapping[str, NDArray[np.generic]], chunk: Callable[[int], int]) -> Arrays:
    """Outputs of the stage `full` by encoding its inputs once and decoding all queries, `chunk(their number)` a run."""
    check_inputs(inputs, session.inputs, session.axes)
    encoder, decoder = session.stage("encoder"), session.stage("decoder")
    stage = Stage(inputs=decoder.inputs, outputs=decoder.outputs)
    latents = encoder.run({spec.name: inputs[spec.name] for spec in encoder.inputs})
    asked = all_queries(stage, Stage(inputs=session.inputs, outputs=session.outputs), inputs)
    most = max(_counts(stage, asked).values(), default=1)
    outputs = _answer(lambda part: decoder.run({**latents, **part}), stage, asked, chunk(most))
    sizes = axis_sizes(inputs, session.inputs)
    return {
        spec.name: outputs[spec.name].reshape([evaluate_size(size, sizes) for size in spec.shape])
        for spec in session.outputs
    }


def all_queries(decoder: Stage, full: Stage, inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
    """What the stage `decoder` takes beside the latents to answer all that `full` answers for its inputs.

    Raises:
        UsageError: the decoder takes something that the inputs do not say.
    """
    sizes, specs = axis_sizes(inputs, full.inputs), {spec.name: spec for spec in full.inputs}
    made: dict[str, Callable[[], NDArray[np.int64]]] = {
        "positions": lambda: np.arange(sizes["length"]),
        "points": lambda: np.arange(sizes["height"] * sizes["width"]),
        "clip_size": lambda: np.array(
            [
                sizes["frames"],
                sizes["height"],
                sizes["width"],
                evaluate_size(specs["audio_points"].maximum or 0, sizes) + 1,
            ]
        ),
    }
    names = [spec.name for spec in decoder.inputs if spec.name != "latents"]
    if unknown := [name for name in names if name not in inputs and name not in made]:
        raise UsageError(
            f"The decoder takes {unknown[0]!r}, which the inputs {', '.join(specs)} do not say, so encoder and decoder "
            "cannot be run as one. Call session.encode(inputs), then session.decode with the latents and what it takes."
        )
    return {name: inputs[name] if name in inputs else made[name]() for name in names}


def _answer(run: Callable[[Arrays], Arrays], stage: Stage, asked: Arrays, chunk: int) -> Arrays:
    parts = [run(part) for part in _chunks(stage, asked, chunk)]
    counts = _counts(stage, asked)
    return {spec.name: _join([part[spec.name] for part in parts], spec.shape, counts) for spec in stage.outputs}


def _chunks(stage: Stage, asked: Arrays, chunk: int) -> Iterator[Arrays]:
    """A run needs queries of every axis, so an axis that is through goes on with its first query."""
    counts = _counts(stage, asked)
    for start in range(0, max(counts.values(), default=1), chunk):
        spans = {axis: slice(start, start + chunk) if start < count else slice(1) for axis, count in counts.items()}
        yield {
            spec.name: asked[spec.name][tuple(spans.get(str(size), slice(None)) for size in spec.shape)]
            for spec in stage.inputs
            if spec.name in asked
        }


def _join(
    parts: Sequence[NDArray[np.generic]], shape: tuple[int | str, ...], counts: Mapping[str, int]
) -> NDArray[np.generic]:
    """Answers in a row along their query axis, without those to the queries that only filled a chunk up."""
    for dimension, size in enumerate(shape):
        if _is_query_axis(size):
            joined = np.concatenate(parts, axis=dimension)
            return joined[(slice(None),) * dimension + (slice(evaluate_size(size, counts)),)]
    return parts[0]


def _query_axes(stage: Stage) -> set[str]:
    return {str(size) for spec in stage.inputs for size in spec.shape if _is_query_axis(size)}


def _counts(stage: Stage, asked: Arrays) -> dict[str, int]:
    sizes = axis_sizes(asked, [spec for spec in stage.inputs if spec.name in asked])
    return {axis: sizes[axis] for axis in _query_axes(stage)}


def _is_query_axis(size: int | str) -> bool:
    return isinstance(size, str) and any(axis.startswith(_QUERY_AXIS) for axis in axes_of(size))
