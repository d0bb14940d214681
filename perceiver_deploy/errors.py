"""The error family. Every error a user can cause is one of these, and each names its exit code.

A message is one paragraph: what happened, which value, what was expected, what to do.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class PerceiverDeployError(Exception):
    """Base of all errors that are the user's to act on. Exit code 1."""

    exit_code = 1


class CheckpointError(PerceiverDeployError):
    """A checkpoint cannot be read as a Perceiver."""


class BundleError(PerceiverDeployError):
    """A bundle cannot be read or written, or does not hold what was asked for."""


class InputError(PerceiverDeployError):
    """An input does not fit the model: name, dtype, rank, size, value or file format."""


class ExportError(PerceiverDeployError):
    """An artefact could not be made as promised."""


class UsageError(PerceiverDeployError):
    """An option or argument has a value that cannot be used. Exit code 2."""

    exit_code = 2


class ParityError(PerceiverDeployError):
    """Numbers differ from the reference by more than the stated bound. Exit code 3."""

    exit_code = 3


class BoundError(PerceiverDeployError):
    """A stated bound, such as that on the loss of accuracy, was not kept. Exit code 4."""

    exit_code = 4


class MissingError(PerceiverDeployError):
    """Something needed is not here: package, runtime, hardware or data set. Exit code 5."""

    exit_code = 5


@contextmanager
def requires(extra: str, purpose: str) -> Iterator[None]:
    """Turn the import error of an optional package into a `MissingError` naming the extra that brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("perceiver_deploy"):
            raise
        raise MissingError(
            f"{purpose} needs the package {error.name!r}, which is not installed. "
            f"Install it with: pip install 'perceiver-deploy[{extra}]'"
        ) from error
