"""`perceiver-deploy run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.options import bundle_argument, threads_option, variant_option
from perceiver_deploy.cli.verb import Outcome, Verb

if TYPE_CHECKING:
    from rich.console import Console

    from perceiver_deploy.pipeline.predict import Classes, Prediction


@click.command(
    "run",
    cls=Verb,
    short_help="Predict on real files.",
    extra="cpu",
    example="perceiver-deploy run digits.bundle examples/seven.png",
)
@bundle_argument
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option(
    "--runtime",
    default="auto",
    show_default=True,
    help="auto, onnxruntime, openvino, torch, or a GPU runtime that doctor lists.",
)
@variant_option
@threads_option
@click.option("--save", type=click.Path(path_type=Path), metavar="DIR", help="Folder for outputs that are not text.")
def command(
    bundle: Path,
    files: tuple[Path, ...],
    runtime: str,
    variant: str | None,
    threads: int | None,
    save: Path | None,
) -> Outcome:
    """Predict on image, sound, text, video, OBJ or CSV files, or on .npz files that hold the model's inputs.

    A masked language model fills in each [MASK]; optical flow takes two images; autoencoding reports the PSNR of a
    reconstructed clip and its sound.
    """
    from perceiver_deploy.pipeline.predict import predict_files

    predictions = predict_files(bundle, files, runtime=runtime, variant=variant, threads=threads, save=save)
    return Outcome([prediction.to_json() for prediction in predictions], lambda console: _show(console, predictions))


def _show(console: Console, predictions: list[Prediction]) -> None:
    for prediction in predictions:
        console.print(prediction.file, style="bold")
        if prediction.text is not None:
            console.print(prediction.text)
        if prediction.flow is not None:
            mean, longest = prediction.flow.mean, prediction.flow.longest
            console.print(f"  moves {mean:.2f} px on average, {longest:.2f} px at most")
        _show_classes(console, prediction.classes)
        for task, classes in prediction.answers.items():
            console.print(f" {task}")
            _show_classes(console, classes)
        for name, decibels in prediction.psnr.items():
            console.print(f"  {name} PSNR {decibels:.2f} dB")
        for file in prediction.files:
            console.print(f"  written: {file}")


def _show_classes(console: Console, classes: Classes) -> None:
    for label, share in classes:
        console.print(f"  {label:<24} {100 * share:6.2f} %  {'█' * round(30 * share)}")
