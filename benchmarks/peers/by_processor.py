"""Results that hold for one kind of processor: a file has an entry for each that was measured."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from perceiver_deploy.machine import describe_environment, processor_kind


def record(path: Path, model: str, found: dict[str, Any]) -> None:
    """Put what was found of a model into the entry of this processor; `masked` says whether it hides instructions."""
    document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    entry = document.setdefault(processor_kind(), {"models": {}})
    entry["environment"] = describe_environment()
    entry["masked"] = "PERCEIVER_DEPLOY_PROCESSOR" in os.environ
    entry["models"][model] = found
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
