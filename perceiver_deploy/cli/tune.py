"""`perceiver-deploy tune`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.options import AxisSize, bundle_argument
from perceiver_deploy.cli.verb import Outcome, Verb

if TYPE_CHECKING:
    from rich.console import Console

    from perceiver_deploy.pipeline.tune.tune import TuneResult
    from perceiver_deploy.runtimes.tuned import Finding


def _once(_: click.Context, __: click.Parameter, given: tuple[tuple[str, int], ...]) -> dict[str, int]:
    """The sizes by axis."""
    sizes = dict(given)
    if len(sizes) < len(given):
        raise click.BadParameter("an axis is given twice.")
    return sizes


@click.command(
    "tune",
    cls=Verb,
    short_help="Find the fastest way to run a bundle here.",
    extra="cpu",
    example="perceiver-deploy tune digits.bundle --batch 8",
)
@bundle_argument
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Batch size to tune for.")
@click.option(
    "--size",
    "sizes",
    multiple=True,
    type=AxisSize(),
    metavar="AXIS=N",
    callback=_once,
    help="Axis size to tune for; may be repeated.",
)
@click.option(
    "--static-shapes",
    is_flag=True,
    help="Also measure OpenVINO with static shapes: faster, but each new size is compiled when it first occurs.",
)
@click.option(
    "--seconds", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Time budget in seconds."
)
@click.option(
    "--max-drop",
    metavar="X",
    help="Largest allowed drop of the task's metric against eager: 0.5 (points) or 1% (relative). Without --data, only "
    "variants whose conversion met it are considered.",
)
@click.option("--data", help="Data to measure --max-drop on here: a data set (its test split) or a .npz file.")
@click.option("--again", is_flag=True, help="Measure again even if nothing has changed.")
def command(
    bundle: Path,
    batch: int,
    sizes: dict[str, int],
    static_shapes: bool,
    seconds: float,
    max_drop: str | None,
    data: str | None,
    again: bool,
) -> Outcome:
    """Measure the runtimes, variants, thread counts and precision hints that keep the contract on this machine.

    The fastest is stored in the user's cache; `load` and `run` use it as long as the processor, the cores and the
    runtime versions stay the same. A repeated call with nothing changed does not measure again.
    """
    from perceiver_deploy.pipeline.tune.tune import tune_bundle

    result = tune_bundle(
        bundle,
        batch=batch,
        sizes=sizes,
        static_shapes=static_shapes,
        seconds=seconds,
        max_drop=max_drop,
        data=data,
        again=again,
    )
    return Outcome(result.to_json(), lambda console: _show(console, result))


def _show(console: Console, result: TuneResult) -> None:
    from perceiver_deploy.cli.tables import make_table
    from perceiver_deploy.runtimes.settings import way_text

    sizes = ", ".join(f"{name} {size}" for name, size in result.sizes.items())
    headers = ("runtime", "variant", "hint", "shapes", "threads", "alone ms", "in turn ms", "x fastest (95 %)", "")
    console.print(make_table(f"Ways to run {result.bundle} at {sizes}", headers, map(_row, result.findings)))
    refused = {  # for the same reason at every number of threads
        way_text(finding.runtime, finding.variant, replace(finding.settings, threads=None)): finding.reason
        for finding in result.findings
        if finding.reason is not None
    }
    for way, reason in refused.items():
        console.print(f"refused: {way}: {reason}")
    if result.remark is not None:
        console.print(result.remark)
    if not result.measured:
        console.print("Measured before, and nothing has changed since. Measure again with --again.")
    console.print(_recommendation(result))


def _recommendation(result: TuneResult) -> str:
    """`Chosen: onnxruntime int8 with 2 threads, ...`: why, and how to get it."""
    from perceiver_deploy.evaluate.speed.ranking import WORTH

    chosen, *others = result.findings
    intervals = {str(finding): finding.times_fastest for finding in others if finding.times_fastest is not None}
    tied = [name for name, (low, _) in intervals.items() if low <= WORTH]
    kept = f"the fastest of {len(intervals) + 1} that were ranked" if intervals else "the only one that was ranked"
    if tied:
        kept = f"statistically tied with {' and '.join(tied)} and the simplest of them"
    taken = "" if chosen.seconds is None else f", {1000 * chosen.seconds:.2f} ms"
    return (
        f"Chosen: {result.chosen}{taken}, {kept}; it is kept in {result.file}, where load({json.dumps(result.bundle)}) "
        "and run find it on this machine."
    )


def _row(finding: Finding) -> tuple[str, ...]:
    alone, in_turn = (
        "" if seconds is None else f"{1000 * seconds:.2f}" for seconds in (finding.first_seconds, finding.seconds)
    )
    interval = finding.times_fastest
    times = "" if interval is None else "{:.2f} to {:.2f}".format(*interval)
    shapes = "static" if finding.static_shapes else "dynamic"
    way = finding.runtime, finding.variant, finding.hint, shapes, str(finding.threads)
    return *way, alone, in_turn, times, finding.state
