"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path

import click

bundle_argument = click.argument("bundle", type=click.Path(path_type=Path))
output_option = click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Output path.")
force_option = click.option("--force", is_flag=True, help="Replace existing output.")
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="Number of threads; default: the runtime's choice."
)
variant_option = click.option("--variant", help="Variant to run; default: the one that tune chose, else fp32.")
