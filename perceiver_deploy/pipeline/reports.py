"""Writing report files."""

from __future__ import annotations

import tempfile
from pathlib import Path

from perceiver_deploy.errors import BundleError


def write_report(path: Path, text: str) -> Path:
    """Write a text file under a temporary name, then rename it; returns `path`.

    Raises:
        BundleError: the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            file.write(text)
        partial = Path(file.name)
        partial.chmod(0o644)
        return partial.replace(path)
    except OSError as error:
        raise BundleError(f"The report {path} could not be written: {error.strerror or error}.") from error
