"""A session called from many threads.

`python -m tests.helpers.soak BUNDLE RUNTIME VARIANT SECONDS` prints one JSON document.
Memory is that of a process of its own, where nothing but the session works.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from perceiver_deploy import load
from perceiver_deploy.bundle.bundle import Bundle
from perceiver_deploy.evaluate.parity.grid import make_inputs, shape_grid

THREADS = 16
_SAMPLE_SECONDS = 0.05
_LONGEST_WARM_UP = 60.0


def soak(bundle: Path, runtime: str, variant: str, seconds: float) -> dict[str, float]:
    """Calls, outputs that differ by a bit from those of one thread, and how memory grew after the warm-up."""
    manifest = Bundle.open(bundle).manifest
    cases = [make_inputs(manifest.signature, case, manifest.preprocessing) for case in shape_grid(manifest.signature)]
    with load(bundle, runtime=runtime, variant=variant) as session:
        expected = [session.run(inputs) for inputs in cases]
        ended = threading.Event()

        def work(number: int) -> tuple[int, int]:
            rng, calls, differing = np.random.default_rng(number), 0, 0
            while not ended.is_set():
                index = int(rng.integers(len(cases)))
                outputs = session.run(cases[index])
                calls += 1
                differing += any(not np.array_equal(outputs[name], array) for name, array in expected[index].items())
            return calls, differing

        def watch() -> dict[str, float]:
            try:
                return _watch_memory(seconds)
            finally:
                ended.set()

        with ThreadPoolExecutor(THREADS) as pool:
            memory = pool.submit(watch)
            others = [pool.submit(work, number) for number in range(1, THREADS)]
            mine = work(0)  # of the thread that opened the session, too: see OpenVinoSession
            found = [mine, *(other.result() for other in others)]
        calls, differing = map(sum, zip(*found, strict=True))
    return {"cases": len(cases), "calls": calls, "differing": differing, **memory.result()}


def _watch_memory(seconds: float) -> dict[str, float]:
    """Medians of the resident bytes in the first and the last quarter of what follows the warm-up."""
    started, warm = time.monotonic(), min(_LONGEST_WARM_UP, seconds / 2)
    time.sleep(warm)
    samples = [_resident_bytes()]
    while time.monotonic() - started < seconds:
        time.sleep(_SAMPLE_SECONDS)
        samples.append(_resident_bytes())
    quarter = -(-len(samples) // 4)
    first, last = statistics.median(samples[:quarter]), statistics.median(samples[-quarter:])
    return {"seconds": seconds, "bytes_after_warm_up": first, "bytes_at_end": last, "growth": last / first - 1}


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    path, runtime, variant, seconds = sys.argv[1:]
    sys.stdout.write(json.dumps(soak(Path(path), runtime, variant, float(seconds))))
