"""Where things for native programs are: our C++ sources, and the library of the installed onnxruntime."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from perceiver_deploy.errors import MissingError


def cpp_directory() -> Path:
    """The folder with CMakeLists.txt, headers, sources and examples: in the installed package or in the checkout.

    Raises:
        MissingError: neither has it.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "cpp", package.parent / "cpp"):
        if (folder / "CMakeLists.txt").is_file():
            return folder
    raise MissingError(
        f"The C++ sources are neither in {package} nor beside it. Install perceiver-deploy from its wheel again."
    )


def onnxruntime_library() -> Path:
    """The shared library in the installed onnxruntime package.

    Raises:
        MissingError: it is not installed, or has no such file.
    """
    spec = importlib.util.find_spec("onnxruntime")  # importing it takes long
    if spec is None or spec.origin is None:
        raise MissingError("onnxruntime is not installed. Install it with: pip install 'perceiver-deploy[cpu]'")
    folder = Path(spec.origin).parent / "capi"
    found = sorted(folder.glob("libonnxruntime.so.*"))
    if not found:
        raise MissingError(f"{folder} has no libonnxruntime.so. Take onnxruntime's official release instead.")
    return found[-1]
