"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class AxisSize(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions alone
    """`AXIS=N`, such as `length=512`, as a pair."""

    name = "AXIS=N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """The name of the axis and its size."""
        if isinstance(value, tuple):
            return value
        axis, _, size = value.partition("=")
        if not (size.isascii() and size.isdigit()):
            self.fail(f"{value!r} is not of the form AXIS=N, such as length=512.", param, ctx)
        return axis, int(size)


bundle_argument = click.argument("bundle", type=click.Path(path_type=Path))
output_option = click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Output path.")
force_option = click.option("--force", is_flag=True, help="Replace existing output.")
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="Number of threads; default: the runtime's choice."
)

variant_option = click.option("--variant", help="Variant to run; default: the one that tune chose, else fp32.")
