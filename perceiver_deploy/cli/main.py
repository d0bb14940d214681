"""The entry point: each verb is imported when it is used."""

from __future__ import annotations

import importlib

import click

_VERBS = (
    "demo",
    "train",
    "export",
    "convert",
    "build",
    "validate",
    "benchmark",
    "tune",
    "run",
    "inspect",
    "data",
    "doctor",
    "cpp-dir",
)


class _LazyGroup(click.Group):
    """A group whose commands live in `perceiver_deploy.cli.VERB`, as `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command: click.Command = importlib.import_module(f"perceiver_deploy.cli.{cmd_name.replace('-', '_')}").command
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="perceiver-deploy")
def main() -> None:
    """From a trained Perceiver to a verified, small, fast deployment.

    A checkpoint becomes a bundle: ONNX with every input length dynamic, INT8, and TensorRT-RTX engines, checked and
    measured against eager PyTorch. Bundles run in Python without torch.
    """
