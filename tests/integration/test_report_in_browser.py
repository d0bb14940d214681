"""The HTML report in headless Chromium: plots and tables are really there, in light and dark, and tables can be sorted.

Chromium is the system's, or what tests/fetch_package.sh put into build/chromium.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from perceiver_deploy.evaluate.report.benchmark_page import page_of_benchmark
from perceiver_deploy.evaluate.report.plots import COLOURS, benchmark_plots
from perceiver_deploy.pipeline.reports import write_page
from tests.helpers.benchmark_reports import make_report, steady

pytestmark = pytest.mark.slow

FETCHED = Path(__file__).parents[2] / "build/chromium/usr"
LIBRARIES = FETCHED / "lib/x86_64-linux-gnu"
SIZE = (1200, 1600)
SCHEMES = {"dark": 0, "light": 1}  # Blink's numbers
NAMES = ("eager fp32", "onnxruntime fp32", "onnxruntime int8")


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """`browse(page, *arguments)` opens a file in Chromium and gives what it prints."""
    program = shutil.which("chromium") or shutil.which(str(FETCHED / "lib/chromium/chromium"))
    if program is None:
        pytest.skip("Chromium is not here: sh tests/fetch_package.sh build/chromium chromium")
    profile = tmp_path_factory.mktemp("profile")
    environment = {**os.environ, "HOME": str(profile)}
    if program.startswith(str(FETCHED)):
        environment["LD_LIBRARY_PATH"] = f"{LIBRARIES}:{LIBRARIES / 'pulseaudio'}"
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}")

    def run(page, *arguments):
        command = [program, *options, *arguments, page.as_uri()]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The HTML file of a report of three candidates at two lengths and two batch sizes."""
    seconds = (0.01, 0.004, 0.002)
    samples = {name: steady(each, seed=seed) for seed, (name, each) in enumerate(zip(NAMES, seconds, strict=True))}
    report = make_report(samples, lengths=(8, 16))
    path = tmp_path_factory.mktemp("report") / "benchmark.json"
    return write_page(path, report.text(), page_of_benchmark(report), benchmark_plots(report))[1]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_screenshot_shows_plots_and_text_on_a_light_and_a_dark_page(browse, page, tmp_path, scheme):
    file = tmp_path / "page.png"
    width, height = SIZE
    browse(
        page,
        f"--window-size={width},{height}",
        f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
        f"--screenshot={file}",
    )
    pixels = np.asarray(Image.open(file).convert("RGB")).astype(int)
    assert pixels.shape == (height, width, 3)
    brightness = pixels.mean(axis=2)
    dark = scheme == "dark"
    assert (np.median(brightness) < 40) == dark
    ink = brightness > 200 if dark else brightness < 80
    assert ink[: height // 2].sum() > 3000  # sentences above, and axes and labels of the plots
    assert ink[height // 2 :].sum() > 3000  # tables
    for colour in COLOURS[: len(NAMES)]:  # the bars of the memory plot alone have thousands of pixels
        assert (np.abs(pixels - ImageColor.getrgb(colour)).max(axis=2) < 12).sum() > 2000, colour


def test_click_on_a_column_sorts_by_number_and_a_second_click_backwards(browse, page, tmp_path):
    clicked = tmp_path / "clicked.html"
    script = """<script>
const table = [...document.querySelectorAll("table")].find(t => t.textContent.includes("p50 ms"));
const column = [...table.tHead.rows[0].cells].find(c => c.textContent === "p50 ms");
const values = () => [...table.tBodies[0].rows].map(row => row.cells[column.cellIndex].textContent).join(" ");
const button = column.querySelector("button");
button.click();
const up = values();
button.click();
document.title = `${up}|${values()}|${column.getAttribute("aria-sort")}`;
</script></body>"""
    clicked.write_text(page.read_text().replace("</body>", script))
    (title,) = re.findall(r"<title>(.*?)</title>", browse(clicked, "--dump-dom"))
    up, down, state = title.split("|")
    numbers = [float(value) for value in up.split()]
    assert len(numbers) == 12
    assert numbers == sorted(numbers)
    assert [float(value) for value in down.split()] == numbers[::-1]
    assert state == "descending"
