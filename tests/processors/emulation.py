"""Run a program as on a processor with fewer instructions than this one has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from perceiver_deploy.machine import processor_features

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build"
QEMU_MODELS = {"avx2": "Haswell", "sse4.2": "Nehalem"}
"""Processors by their widest vectors, none of which has INT8 dot products, and what QEMU calls one of them."""
_WIDER = {"avx2": {"avx512f", "avx512_vnni", "avx_vnni"}, "sse4.2": {"avx", "avx2", "avx512f", "avx_vnni"}}
_SECONDS = 900


@dataclass(frozen=True)
class Processor:
    """A kind of processor and how a program gets to see it: natively, by masked CPUID, or in QEMU."""

    kind: str
    means: str
    prefix: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, cache: Path, threads: int = 1) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments."""
        environment = {
            **os.environ,
            **self.environment,
            "PERCEIVER_DEPLOY_CACHE": str(cache),
            "OMP_NUM_THREADS": str(threads),
        }
        command = [*self.prefix, sys.executable, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False)


def processor(kind: str) -> Processor | None:
    """The kind of processor by the fastest means there is here; None where there is none."""
    for candidate in (_native(kind), _masked(kind), _emulated(kind)):
        if candidate is not None:
            return candidate
    return None


def _native(kind: str) -> Processor | None:
    features = processor_features()
    least = "avx2" if kind == "avx2" else "sse4_2"
    return Processor(kind, "this processor") if least in features and not features & _WIDER[kind] else None


def _masked(kind: str) -> Processor | None:
    """By `mask.c`, which some processors and hypervisors allow: as fast as the processor itself."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = BUILD / f"mask-{os.getpid()}.so"
    library.parent.mkdir(exist_ok=True)
    build = [compiler, "-O1", "-shared", "-fPIC", str(HERE / "mask.c"), "-o", str(library)]
    if subprocess.run(build, capture_output=True, check=False).returncode:
        return None
    library = library.replace(BUILD / "mask.so")
    environment = {"LD_PRELOAD": str(library), "PERCEIVER_DEPLOY_PROCESSOR": kind}
    trial = subprocess.run(
        [sys.executable, "-c", ""], env={**os.environ, **environment}, capture_output=True, check=False
    )
    return Processor(kind, "CPUID masked", environment=environment) if trial.returncode == 0 else None


def _emulated(kind: str) -> Processor | None:
    fetched = BUILD / "qemu" / "usr" / "bin" / "qemu-x86_64"
    program = str(fetched) if fetched.exists() else shutil.which("qemu-x86_64")
    if program is None:
        return None
    return Processor(kind, "QEMU", prefix=(program, "-cpu", QEMU_MODELS[kind]))
