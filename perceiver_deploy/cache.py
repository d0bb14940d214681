"""Where files are kept that can be had again: fetched data."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """`$PERCEIVER_DEPLOY_CACHE`, else `perceiver-deploy` in `$XDG_CACHE_HOME` or in `~/.cache`. May not exist yet."""
    if own := os.environ.get("PERCEIVER_DEPLOY_CACHE"):
        return Path(own).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "perceiver-deploy"
