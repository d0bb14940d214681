"""`perceiver-deploy doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.verb import Outcome, Verb

if TYPE_CHECKING:
    from rich.console import Console

    from perceiver_deploy.pipeline.doctor import Diagnosis


@click.command(
    "doctor",
    cls=Verb,
    short_help="Show what is installed and what can run here.",
    extra="cpu",
    example="perceiver-deploy doctor",
)
def command() -> Outcome:
    """Show what is installed, what can run here, and what to install for the rest."""
    from perceiver_deploy.pipeline.doctor import diagnose

    diagnosis = diagnose()
    return Outcome(diagnosis.to_json(), lambda console: _show(console, diagnosis))


def _show(console: Console, diagnosis: Diagnosis) -> None:
    from perceiver_deploy.cli.tables import make_table

    rows = [
        (
            extra.name,
            ", ".join(f"{package} {found or '(missing)'}" for package, found in extra.packages.items()),
            extra.install or "complete",
        )
        for extra in diagnosis.extras
    ]
    console.print(make_table("Extras", ("extra", "packages", "to complete it"), rows))
    console.print(f"Runtimes that can run a bundle here: {', '.join(diagnosis.runtimes) or 'none'}")
    environment = diagnosis.environment
    console.print(f"{environment['processor']}, {environment['cores']} cores, {environment['system']}")
    lacking = [(name, "; ".join(pieces) or "nothing") for name, pieces in diagnosis.gpu_runtimes.items()]
    console.print(make_table("Runtimes on an NVIDIA GPU", ("runtime", "missing here"), lacking))
    for gpu in diagnosis.gpus:
        memory = f"{gpu['memory_bytes'] / 2**30:.0f} GiB"
        console.print(f"GPU: {gpu['name']}, compute capability {gpu['compute_capability']}, {memory}")
    console.print(f"NVIDIA driver: {diagnosis.gpu_driver or 'none'}")
    for problem in diagnosis.problems:
        console.print(f"- {problem}")
