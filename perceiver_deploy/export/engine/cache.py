"""Engines that were built, kept in the user's cache, so that building one again without a change is instant.

The key is a digest of all that decides what the builder makes: graph and weights, profiles, options, family and its
version, and for a library that builds for the GPU at hand, that GPU. An entry is one archive; what was changed or cut
off does not pass its checksums and is built again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from perceiver_deploy.cache import Store
from perceiver_deploy.export.engine.build import BuildOptions, BuiltEngine, build_engine_bytes, load_builder
from perceiver_deploy.progress import log
from perceiver_deploy.runtimes.nvidia.families import Family
from perceiver_deploy.runtimes.nvidia.gpu import find_gpus
from perceiver_deploy.runtimes.nvidia.profiles import Profile

_STORE = Store("engines", ".zip", most_bytes=8 << 30)
_ENGINE, _FACTS, _LOG = "engine", "facts.json", "builder.log"


def build_or_reuse(
    onnx: Path, graph_digest: str, family: Family, profiles: Sequence[Profile], options: BuildOptions
) -> tuple[BuiltEngine, bool]:
    """The engine of a graph, and whether it was there already.

    `graph_digest` tells the graph and its weights from any other. For all else, and the errors, see
    `export.engine.build_engine_bytes`.
    """
    version = load_builder(family).__version__
    import polygraphy

    options.require_buildable(family)
    gpus = () if family.ahead_of_time else find_gpus().devices[:1]
    parts = [
        graph_digest,
        family.name,
        version,
        polygraphy.__version__,
        [sorted(profile.items()) for profile in profiles],
        dataclasses.asdict(options),
        [dataclasses.asdict(gpu) for gpu in gpus],
    ]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    if (kept := _read(key)) is not None:
        return kept, True
    built = build_engine_bytes(onnx, family, profiles, options)
    _keep(key, built)
    return built, False


def _read(key: str) -> BuiltEngine | None:
    path = _STORE.path(key)
    try:
        with zipfile.ZipFile(path) as archive:  # not read as a whole: an engine is large
            facts = json.loads(archive.read(_FACTS))
            built = BuiltEngine(archive.read(_ENGINE), facts, archive.read(_LOG).decode())
    except FileNotFoundError:
        return None
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        log.info("The kept engine %s cannot be used (%s); it is built again.", path, error)
        return None
    _STORE.mark_used(path)
    return built


def _keep(key: str, built: BuiltEngine) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(_ENGINE, built.content)
        archive.writestr(_FACTS, json.dumps(built.facts))
        archive.writestr(_LOG, built.log, zipfile.ZIP_DEFLATED)
    _STORE.keep(key, content.getvalue(), "The engine")
