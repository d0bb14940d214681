"""Shape profiles: the sizes min, opt and max of every input that an engine is built for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from perceiver_deploy.bundle.manifest import Axis, Stage, evaluate_size
from perceiver_deploy.errors import UsageError

UNBOUNDED_BATCH_MAX = 4
"""Largest batch by default. An engine reserves memory for its largest shapes: 5 GB for the full-size Fourier image
model at batch 4 and twice its image size, where 8 would take 10 GB."""

_FORM = re.compile(r"([^=]+)=(\d+)(?::(\d+):(\d+))?", re.ASCII)
_LARGEST_SIZE = 2**31 - 1


class Sizes(NamedTuple):
    """Sizes of one axis."""

    min: int
    opt: int
    max: int


class InputShapes(NamedTuple):
    """Shapes of one input at the least, the usual and the largest sizes of its axes."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


Profile = dict[str, InputShapes]
"""Shapes by input name."""


def parse_shapes(shapes: Iterable[str], axes: Mapping[str, Axis]) -> list[dict[str, Sizes]]:
    """Sizes of every axis, for each profile: those given as `AXIS=MIN:OPT:MAX` or `AXIS=SIZE` (fixed), or defaults.

    An axis that is given several times makes as many profiles, the first of them with its first sizes and so on; axes
    given once have those sizes in all. By default min and opt are the axis' own. So is max where the axis has one;
    otherwise it is 4 for `batch` and twice opt for the others. Sizes that are not a multiple of what the axis needs are
    rounded up.

    Raises:
        UsageError: not of that form, an axis that does not exist, axes that are given several times but not equally
            often, sizes out of order, or sizes that the axis cannot take.
    """
    given: dict[str, list[Sizes]] = {}
    for text in shapes:
        name, sizes = _parse(text, axes)
        _check(text, sizes, axes[name])
        given.setdefault(name, []).append(sizes)
    count = max(map(len, given.values()), default=1)
    if uneven := [name for name, each in given.items() if len(each) not in (1, count)]:
        most = next(name for name, each in given.items() if len(each) == count)
        raise UsageError(
            f"Axis {most!r} is given {count} times, which makes {count} profiles, and {uneven[0]!r} is given "
            f"{len(given[uneven[0]])} times. Give it once for all profiles, or {count} times, once for each."
        )
    each = {name: given.get(name) or [default_sizes(name, axis)] for name, axis in axes.items()}
    return [{name: sizes[min(k, len(sizes) - 1)] for name, sizes in each.items()} for k in range(count)]


def default_sizes(name: str, axis: Axis) -> Sizes:
    """Sizes of an axis that the user did not name, see `parse_shapes`."""
    least = _round_up(axis.min, axis)
    opt = max(least, _round_up(axis.opt, axis))
    if axis.max is not None:
        most = axis.max // axis.multiple_of * axis.multiple_of
        return Sizes(least, min(opt, most), most)
    return Sizes(least, opt, max(opt, _round_up(UNBOUNDED_BATCH_MAX, axis)) if name == "batch" else 2 * opt)


def input_profile(stage: Stage, sizes: Mapping[str, Sizes]) -> Profile:
    """Shapes of each input of a stage. Inputs that share an axis agree, because sizes belong to axes."""
    each = [{name: size[which] for name, size in sizes.items()} for which in range(len(Sizes._fields))]
    return {
        spec.name: InputShapes(*(tuple(evaluate_size(size, chosen) for size in spec.shape) for chosen in each))
        for spec in stage.inputs
    }


def _parse(text: str, axes: Mapping[str, Axis]) -> tuple[str, Sizes]:
    name = text.partition("=")[0]
    if "=" in text and name not in axes:
        raise UsageError(
            f"Shape {text!r} names the axis {name!r}, which this model does not have. Its axes are {', '.join(axes)}."
        )
    match = _FORM.fullmatch(text)
    if match is None:
        example = next((axis for axis in axes if axis != "batch"), "batch")
        raise UsageError(
            f"Shape {text!r} is not of the form AXIS=MIN:OPT:MAX or AXIS=SIZE, with whole numbers. "
            f"Write for example {example}={':'.join(map(str, default_sizes(example, axes[example])))}."
        )
    least, opt, most = match.group(2, 3, 4)
    return name, Sizes(int(least), int(opt or least), int(most or least))


def _check(text: str, sizes: Sizes, axis: Axis) -> None:
    if not sizes.min <= sizes.opt <= sizes.max:
        raise UsageError(
            f"Shape {text!r} has min {sizes.min}, opt {sizes.opt} and max {sizes.max}; expected min <= opt <= max."
        )
    if sizes.min < axis.min:
        raise UsageError(f"Shape {text!r} starts at {sizes.min}; this model takes at least {axis.min}. Raise MIN.")
    if axis.max is not None and sizes.max > axis.max:
        raise UsageError(
            f"Shape {text!r} goes up to {sizes.max}, beyond the position table of this model, which ends at "
            f"{axis.max}. Lower MAX to {axis.max} or less."
        )
    if sizes.max > _LARGEST_SIZE:
        raise UsageError(f"Shape {text!r} goes up to {sizes.max}; an engine counts sizes up to {_LARGEST_SIZE}.")
    for size in sizes:
        if size % axis.multiple_of:
            raise UsageError(
                f"Shape {text!r} holds the size {size}; this model takes multiples of {axis.multiple_of}, "
                f"for example {_round_up(size, axis)}."
            )


def _round_up(size: int, axis: Axis) -> int:
    return -(-size // axis.multiple_of) * axis.multiple_of
