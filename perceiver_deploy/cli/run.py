"""`perceiver-deploy run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.options import bundle_argument, threads_option, variant_option
from perceiver_deploy.cli.verb import Outcome, Verb

if TYPE_CHECKING:
    from rich.console import Console

    from perceiver_deploy.pipeline.prediction import Classes, Prediction


@click.command(
    "run",
    cls=Verb,
    short_help="Predict on real files.",
    extra="cpu",
    example="perceiver-deploy run digits.bundle examples/seven.png",
)
@bundle_argument
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--runtime", default="auto", show_default=True, help="auto, onnxruntime, openvino or torch.")
@variant_option
@threads_option
def command(bundle: Path, files: tuple[Path, ...], runtime: str, variant: str | None, threads: int | None) -> Outcome:
    """Predict on image, sound or text files; a masked language model fills in each [MASK]."""
    from perceiver_deploy.pipeline.prediction import predict_files

    predictions = predict_files(bundle, files, runtime=runtime, variant=variant, threads=threads)
    return Outcome([prediction.to_json() for prediction in predictions], lambda console: _show(console, predictions))


def _show(console: Console, predictions: list[Prediction]) -> None:
    for prediction in predictions:
        console.print(prediction.file, style="bold")
        if prediction.text is not None:
            console.print(prediction.text)
        _show_classes(console, prediction.classes)
        for task, classes in (prediction.answers or {}).items():
            console.print(f" {task}")
            _show_classes(console, classes)


def _show_classes(console: Console, classes: Classes) -> None:
    for label, share in classes:
        console.print(f"  {label:<24} {100 * share:6.2f} %  {'█' * round(30 * share)}")
