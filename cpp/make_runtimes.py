"""Write cpp/src/runtimes.inc, the C++ library's table of runtimes, from the catalogue of the Python package.

python cpp/make_runtimes.py
"""

from __future__ import annotations

from pathlib import Path

from perceiver_deploy.runtimes.catalogue import RUNTIMES

TABLE = Path(__file__).parent / "src" / "runtimes.inc"


def table() -> str:
    """One line per runtime: its name, and the runtimes whose variants it takes."""
    lines = ["// Made by `python cpp/make_runtimes.py` from perceiver_deploy/runtimes/catalogue.py."]
    for record in RUNTIMES.values():
        if record.in_cpp:
            taken = ", ".join(f'"{name}"' for name in record.runs)
            lines.append(f'{{"{record.name}", {{{taken}}}}},')
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
