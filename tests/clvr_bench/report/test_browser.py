"""The page in a real browser: it opens silently, loads nothing, sorts and chooses. Needs Chromium."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clvr_bench.report.page import report_text
from clvr_bench.report.pictures import Picture
from tests.clvr_bench.records_fake import write_realistic, write_seeds
from tests.clvr_bench.report.test_page import NASTY, write_nasty

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")

HARNESS = """<!DOCTYPE html>
<iframe src="report.html" width="1280" height="1000"></iframe>
<pre></pre>
<script>
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {
  const page = frame.contentDocument;
  const tasks = () => [...page.querySelectorAll("#leaderboard tbody tr")]
    .filter((row) => !row.hidden).map((row) => row.dataset.task);
  const heading = (start) => [...page.querySelectorAll("th")]
    .find((cell) => cell.textContent.startsWith(start)).querySelector("button");
  const choose = (name, value) => {
    const field = page.querySelector(`select[name=${name}]`);
    field.value = value;
    field.dispatchEvent(new Event("change", { bubbles: true }));
  };
  document.querySelector("pre").textContent = JSON.stringify((() => { STEPS })());
});
</script>
"""
"""Looks into the page from outside, so that what is tested is the very file."""


def browse(results: Path, folder: Path, steps: str, pictures: Sequence[Picture] = ()) -> tuple[Any, str]:
    """Open the page of a results folder and take some steps in it; return what they return, and complaints."""
    assert CHROMIUM
    (folder / "report.html").write_text(report_text(results, pictures=pictures))
    (folder / "harness.html").write_text(HARNESS.replace("STEPS", steps))
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
        "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000", "--dump-dom",
        (folder / "harness.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    (found,) = re.findall(r"<pre>(.*?)</pre>", done.stdout, flags=re.DOTALL)
    return json.loads(unescape(found)), "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def test_it_opens_without_a_complaint_and_loads_nothing(tmp_path: Path) -> None:
    write_nasty(tmp_path / "results" / "study")
    steps = """return {
      loaded: frame.contentWindow.performance.getEntriesByType("resource").map((entry) => entry.name),
      pictures: page.images.length, form: page.querySelector("form").hidden, tasks: tasks() };"""
    found, complaints = browse(tmp_path / "results", tmp_path, steps)
    assert complaints == ""
    assert (found["loaded"], found["pictures"], found["form"]) == ([], 0, False)
    assert NASTY in found["tasks"]


def test_it_shows_pictures_that_are_a_part_of_it(tmp_path: Path) -> None:
    write_seeds(tmp_path / "results" / "study", [60.0])
    Image.new("RGB", (7, 3)).save(tmp_path / "small.png")
    shown = "return [...page.images].map((picture) => picture.naturalWidth);"
    pictures = [Picture.read(tmp_path / "small.png")]
    assert browse(tmp_path / "results", tmp_path, shown, pictures) == ([7], "")


def test_it_runs_no_script_but_its_own(tmp_path: Path) -> None:
    write_seeds(tmp_path / "results" / "study", [60.0])
    steps = """const script = page.createElement("script");
      script.textContent = "window.intruded = true";
      page.body.append(script);
      return frame.contentWindow.intruded ?? false;"""
    intruded, complaints = browse(tmp_path / "results", tmp_path, steps)
    assert intruded is False
    assert "Content Security Policy" in complaints


def test_a_click_on_a_heading_sorts_and_another_one_reverses(tmp_path: Path) -> None:
    for task, top1 in (("simclr", 9.0), ("byol", 60.0), ("pirl", 51.0)):
        write_seeds(tmp_path / "results" / "study", [top1, top1 + 1], task=task)
    write_seeds(tmp_path / "results" / "study", [40.0], task="raw", encoder=None)
    steps = """const seen = [];
      for (const start of ["top-1", "top-1", "pretext task", "encoder"]) { heading(start).click(); seen.push(tasks()); }
      return seen;"""
    (high, low, by_name, by_encoder), _ = browse(tmp_path / "results", tmp_path, steps)
    assert high == ["byol", "pirl", "raw", "simclr"]
    assert low == high[::-1]
    assert by_name == sorted(high)
    assert by_encoder[-1] == "raw"  # what has none comes last


def test_choosing_shows_only_the_rows_and_runs_that_match(tmp_path: Path) -> None:
    write_realistic(tmp_path / "results" / "first")
    write_seeds(tmp_path / "results" / "second", [60.0, 61.0], task="byol")
    steps = """choose("task", "byol"); const both = tasks().length;
      choose("suite", "second"); const one = tasks().length;
      const cards = [...page.querySelectorAll("#runs > details")].filter((card) => !card.hidden).length;
      choose("task", "dino");
      return [both, one, cards, tasks().length, page.querySelector("#runs").className];"""
    found, complaints = browse(tmp_path / "results", tmp_path, steps)
    assert (found, complaints) == ([2, 1, 1, 0, "nothing"], "")


def test_a_link_of_the_table_opens_the_card_of_its_row(tmp_path: Path) -> None:
    write_seeds(tmp_path / "results" / "study", [60.0, 61.0])
    steps = """const card = page.getElementById("row-1");
      const before = card.open;
      frame.contentWindow.location.hash = "#row-1";
      frame.contentWindow.dispatchEvent(new HashChangeEvent("hashchange"));
      return [before, card.open];"""
    assert browse(tmp_path / "results", tmp_path, steps)[0] == [False, True]
