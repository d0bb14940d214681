"""What differs between TensorRT 10.12 and later, TensorRT 11 and TensorRT-RTX: one API in two modules.

All three compile strongly typed networks, so the precision is that of the graph in each.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from perceiver_deploy.errors import MissingError, UsageError, requires
from perceiver_deploy.runtimes.catalogue import RUNTIMES

FamilyName = Literal["tensorrt", "tensorrt-rtx"]


@dataclass(frozen=True)
class Family:
    """A library that builds and runs engines.

    Attributes:
        extra: the extra of ours that names its package.
        title: its name in messages.
        suffix: what names of its engines end in by default.
        oldest: the first version whose strongly typed networks take our graphs.
        ahead_of_time: whether it builds for compute capabilities that are named, without a GPU; otherwise it builds for
            the GPU at hand, with kernels that it times there.
        captures_graphs: whether its contexts record CUDA graphs by themselves.
    """

    name: FamilyName
    extra: str
    title: str
    suffix: str
    oldest: tuple[int, int]
    ahead_of_time: bool
    captures_graphs: bool

    @property
    def module(self) -> str:
        """What is imported."""
        return RUNTIMES[self.name].module

    @property
    def package(self) -> str:
        """What brings the module."""
        return RUNTIMES[self.name].package

    def load(self, purpose: str) -> Any:
        """The module, of a version that will do.

        Raises:
            MissingError: not installed, too old, or a library that it links is not here.
        """
        try:
            with requires(self.extra, purpose):
                module = importlib.import_module(self.module)
        except (OSError, ImportError) as error:  # the bindings load libnvinfer when they are imported
            raise MissingError(
                f"{purpose} needs {self.package}, which cannot be loaded: {error}. "
                f"Install it again with: pip install --force-reinstall {self.package}"
            ) from error
        if _version(module.__version__) < self.oldest:
            oldest = ".".join(map(str, self.oldest))
            raise MissingError(
                f"{purpose} needs {self.package} {oldest} or later; {module.__version__} is installed. "
                f"Upgrade it with: pip install --upgrade '{self.package}>={oldest}'"
            )
        return module

    def network_flags(self, module: Any) -> int:
        """Flags of a strongly typed network: TensorRT 10 has to be told, the others know no other."""
        flag = getattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return 0 if flag is None or self.ahead_of_time else 1 << int(flag)


FAMILIES: dict[FamilyName, Family] = {
    "tensorrt": Family(
        "tensorrt",
        "trt",
        "TensorRT",
        "trt",
        (10, 12),
        ahead_of_time=False,
        captures_graphs=False,
    ),
    "tensorrt-rtx": Family(
        "tensorrt-rtx",
        "rtx",
        "TensorRT-RTX",
        "rtx",
        (1, 7),
        ahead_of_time=True,
        captures_graphs=True,
    ),
}


def engine_family(name: str) -> Family:
    """The family of that name.

    Raises:
        UsageError: there is none.
    """
    for known in get_args(FamilyName):
        if name == known:
            return FAMILIES[known]
    raise UsageError(f"There is no engine {name!r}; expected {' or '.join(FAMILIES)}.")


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)[:2]))
