"""What do the exporters make of the same checkpoint: torch.onnx.export in four forms, optimum-onnx, and ours?

For each model a randomly initialised Hugging Face model of the published configuration is saved. A row for each
exporter says whether it exports, whether its graph is right at three other sizes than the exported one (against
transformers' eager float32), nodes, bytes, seconds to export, and fp32 latency and whole-process peak memory in
onnxruntime and OpenVINO, interleaved with transformers' eager model and with the matrix products of our graph alone
(the limit). Writes results/export_peers.json after each row; rows of models and exporters that are not run are kept.

    python benchmarks/export_peers.py [MODEL ...] [--threads 2] [--exporters NAME,NAME] [--small --output FILE]

Models: fourier, flow, language, multimodal (the default: these four), learned, conv, sequence.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from peers.environments import OPTIMUM, NotInstalledError
from peers.measuring import Case, Timing, brief, check, time_beside
from peers.plans import EAGER, EXPORTERS, FULL, ONLY_IN, OURS, SMALL, Plan
from peers.sources import EagerSource, Gemm, GemmSource, GraphSource
from peers.verdicts import RUNTIMES, judge_targets, report

from perceiver_deploy.bundle.samples import load_sample
from perceiver_deploy.errors import PerceiverDeployError
from perceiver_deploy.evaluate.speed.workers import Source
from perceiver_deploy.machine import describe_environment
from perceiver_deploy.progress import log

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "export_peers.json"
DEFAULT_MODELS = ("fourier", "flow", "language", "multimodal")
_EXPORT_TIMEOUT = 1200


class Results:
    """The file of results, written anew after every change."""

    def __init__(self, path: Path, model: str) -> None:
        self._path = path
        self.document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"models": {}}
        self.model: dict[str, Any] = self.document["models"].setdefault(model, {"rows": {}})

    def put_row(self, exporter: str, row: dict[str, Any]) -> None:
        """Replace the row of an exporter."""
        self.model["rows"][exporter] = row
        self.save()

    def save(self) -> None:
        """Write the file."""
        unfinished = self._path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(self.document, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(self._path)


class Experiment:
    """The measurements of one model, in a folder of its own."""

    def __init__(self, model: str, folder: Path, options: argparse.Namespace) -> None:
        self.model, self.folder, self.threads = model, folder, options.threads
        self.plan: Plan = (SMALL if options.small else FULL)[model]
        asked = [name for name in EXPORTERS if name in options.exporters]
        self.exporters = [name for name in asked if name not in ONLY_IN or name in self.plan.timed]
        self.results = Results(options.output, model)
        self.size = "small" if options.small else "full"
        self.gate = ["--gate"] if options.gate else []

    def run(self) -> None:
        """All of it."""
        started = time.perf_counter()
        log.info("%s: making the checkpoint and what transformers gives", self.model)
        self._python("peers.prepare", self.size, self.model, str(self.folder))
        cases = self._cases()
        self.results.model |= {
            "class": self.plan.class_name,
            "size": self.size,
            "threads": self.threads,
            "rounds": self.plan.rounds,
            "process": "a new one for each run, its second" if self.plan.fresh else "one for all runs",
            "environment": describe_environment(),
        }
        for exporter in self.exporters:
            log.info("%s: exporting with %s", self.model, exporter)
            row = self._export(exporter)
            if row["exports"]:
                runtime = ONLY_IN.get(exporter, self.plan.check_runtime)
                row["checks"] = check(self._graph(exporter, runtime), cases, self.threads)
            self.results.put_row(exporter, row)
        self._time(cases[0])
        self.results.model["targets"] = judge_targets(self.plan.targets, self.results.model["rows"])
        self.results.model["total_seconds"] = time.perf_counter() - started
        self.results.save()

    def _cases(self) -> list[Case]:
        """The usual sizes, then the others, with what the eager model gives."""
        samples = {name: load_sample(self.folder / f"{name}.npz") for name in self.plan.cases()}
        return [Case(sizes, samples[name].inputs, samples[name].float32) for name, sizes in self.plan.cases().items()]

    def _export(self, exporter: str) -> dict[str, Any]:
        """A row with what the export took, or why it failed."""
        try:
            if exporter == "optimum":
                if self.plan.optimum_task is None:
                    return {"exports": False, "error": f"optimum-onnx has no task for {self.plan.class_name}"}
                script = str(HERE / "peers" / "export_optimum.py")
                arguments = [str(self.folder / "checkpoint"), str(self.folder / exporter), self.plan.optimum_task]
                took = self._run([str(OPTIMUM.python()), script, *arguments], PYTHONPATH="")
            else:
                took = self._python("peers.export_one", exporter, self.plan.class_name, str(self.folder), *self.gate)
            if "error" in took:
                return {"exports": False, "error": brief(took["error"])}
            facts = self._python("peers.graph_facts", str(self._file(exporter)))
        except subprocess.CalledProcessError as error:
            return {"exports": False, "error": last_error(error.stderr, error.returncode)}
        except subprocess.TimeoutExpired:
            return {"exports": False, "error": f"not finished after {_EXPORT_TIMEOUT} s"}
        except NotInstalledError as error:
            return {"exports": False, "error": brief(error)}
        return {"exports": True, **took, **facts}

    def _time(self, case: Case) -> None:
        """Latency and memory of eager and of the graphs that are right at the usual sizes, and the limit."""
        eager = self._eager()
        graphs = [
            self._graph(name, runtime)
            for name in self._timed()
            for runtime in RUNTIMES
            if ONLY_IN.get(name, runtime) == runtime
        ]
        limit = self._limit()
        sources: list[Source] = [eager, *graphs, *([limit] if limit else [])]
        for row in self.results.model["rows"].values():
            row.pop("latency", None)  # of an earlier run, beside another eager
        self.results.model.pop("limit", None)
        plan = self.plan
        timings = time_beside(
            sources, case.inputs, threads=self.threads, rounds=plan.rounds, fresh=plan.fresh, burst=1 + plan.fresh
        )
        self.results.put_row(EAGER, {"latency": {"torch": timings[eager].to_json(case)}})
        for graph in graphs:
            row = self.results.model["rows"][graph.exporter]
            row.setdefault("latency", {})[graph.runtime] = timings[graph].to_json(case)
            self.results.put_row(graph.exporter, row)
        if limit is not None and (timing := timings[limit]).error is None:
            self.results.model["limit"] = limit_figures(limit, timing)

    def _timed(self) -> list[str]:
        """Of each family to time one exporter: the static form where it is right."""
        names = []
        for family in self.plan.timed:
            for exporter in (name for name in self.exporters if name == family or name.startswith(f"{family}-")):
                checks = self.results.model["rows"][exporter].get("checks")
                if checks and checks[0]["right"]:
                    names.append(exporter)
                    break
        return names

    def _limit(self) -> GemmSource | None:
        if not self.results.model["rows"].get(OURS, {}).get("exports") or OURS not in self.exporters:
            return None
        facts = self._python("peers.graph_facts", str(self._file(OURS)), json.dumps(dict(self.plan.usual)))
        return GemmSource(tuple(Gemm(**gemm) for gemm in facts["gemms"]))

    def _eager(self) -> EagerSource:
        return EagerSource(self.plan.class_name, self.folder / "checkpoint")

    def _graph(self, exporter: str, runtime: str) -> GraphSource:
        return GraphSource(exporter, runtime, self._file(exporter), self.folder / "signature.json")

    def _file(self, exporter: str) -> Path:
        return self.folder / exporter / "model.onnx"

    def _python(self, module: str, *arguments: str) -> Any:
        path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
        return self._run([sys.executable, "-m", module, *arguments], PYTHONPATH=path)

    def _run(self, command: list[str], **variables: str) -> Any:
        """The JSON that a program prints last, if any."""
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads), "HF_HUB_OFFLINE": "1", **variables}
        result = subprocess.run(  # noqa: S603 - our own programs
            command, check=True, capture_output=True, text=True, timeout=_EXPORT_TIMEOUT, env=environment
        )
        return json.loads(lines[-1]) if (lines := result.stdout.strip().splitlines()) else None


def limit_figures(source: GemmSource, timing: Timing) -> dict[str, Any]:
    """How long the graph's matrix products take alone."""
    seconds, flops = float(np.median(timing.samples)), sum(gemm.flops for gemm in source.gemms)
    return {"seconds": seconds, "flops": flops, "flops_per_second": flops / seconds, "shapes": len(source.gemms)}


def last_error(stderr: str, code: int) -> str:
    """The line of a traceback that says what went wrong."""
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    return brief(lines[-1]) if lines and code > 0 else f"the process ended with exit code {code}"


def main() -> None:
    """Run the models that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(FULL))
    parser.add_argument("--threads", type=int, default=2, help="for every candidate and every export")
    parser.add_argument("--small", action="store_true", help="small models, to try the program")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--exporters", type=lambda text: text.split(","), default=EXPORTERS, metavar="NAME,NAME")
    parser.add_argument("--gate", action="store_true", help="also time all of export_model, its parity gate included")
    options = parser.parse_args()
    if unknown := {*options.models} - {*FULL}:
        parser.error(f"no model {', '.join(sorted(unknown))}; there are {', '.join(FULL)}")
    if unknown := {*options.exporters} - {*EXPORTERS}:
        parser.error(f"no exporter {', '.join(sorted(unknown))}; there are {', '.join(EXPORTERS)}")
    if options.small and options.output == RESULTS:
        parser.error("--small needs --output: its figures are not results")
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    log.setLevel("INFO")
    failed = []
    for model in options.models or DEFAULT_MODELS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                experiment = Experiment(model, Path(folder), options)
                experiment.run()
                print("\n".join(report(model, experiment.results.model)), flush=True)
            except (PerceiverDeployError, subprocess.SubprocessError) as error:
                failed.append(model)
                log.error("%s was not finished: %s\n%s", model, error, getattr(error, "stderr", None) or "")
    if failed:
        sys.exit(f"Not finished: {', '.join(failed)}. Rows that were measured are in {options.output}.")


if __name__ == "__main__":
    main()
