"""Dagster's UI driven in a browser as a person does it, and the pictures of docs/ui.md.

    pip install playwright
    python benchmarks/ui_screenshots.py PROJECT [--chromium /usr/bin/chromium] [--out docs/images]

PROJECT is a folder in which `lvdd demo` has run. It is copied and one clip of one class is replaced. That class is
launched from the asset's page, which must succeed. Then a dataset is added whose budget is too small for its recipe,
and its release is launched, whose check must fail. A page that does not say so ends the script.
Playwright needs no browser of its own: any Chromium of the system will do.
"""

import argparse
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

BIN = Path(sys.executable).parent
WIDTH, HEIGHT = 1400, 900
CLASS = "spin_left"
TOO_SMALL = """
  too_small:                # the paper's recipe fixes its bytes, and they are more than that
    root: demo
    layout: folders
    split: folders
    classes: [grow, move_left]
    frames: 8
    stride: 3
    size: 64
    recipe: paper
    budget: {bytes: 20kB}
"""
CLASS_ASSETS = "raw_clips,latents,dpp_subsets,hosvd_cores"
PICTURES = (
    ("dpp_subsets", f"demo/{CLASS}", "preview"),
    ("dpp_subsets", f"demo/{CLASS}", "projection"),
    ("hosvd_cores", f"demo/{CLASS}", "preview"),
    ("hosvd_cores", f"demo/{CLASS}", "spectrum"),
    ("release", "demo", "ledger"),
    ("release", "demo", "classes"),
    ("eval_report", "demo", "preview"),
)


def environment() -> dict[str, str]:
    """This process's without what would name another project."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("LVDD_", "DAGSTER_"))}


def prepare(project: Path, folder: Path) -> None:
    """A copy of a finished demo in which one class is stale.

    Raises:
        ValueError: the demo is not finished.
    """
    if not (project / "data/release/demo.zarr.zip").exists():
        raise ValueError(f"no data/release/demo.zarr.zip in {project}: run `lvdd demo` there first")
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns(".venv", ".git"))
    clips = sorted((folder / "data/demo/train" / CLASS).iterdir())
    shutil.copyfile(clips[1], clips[0])


def add_too_small(folder: Path) -> None:
    """A second dataset in the registry, made up to its release."""
    registry = folder / "data/datasets.yaml"
    registry.write_text(registry.read_text() + TOO_SMALL)
    for select in (CLASS_ASSETS, "quantized_vae"):
        words = ("--select", select, "--partition", "too_small", "-m", "lvdd_assets.definitions")
        subprocess.run(
            [str(BIN / "dagster"), "asset", "materialize", *words],
            cwd=folder,
            env=environment(),
            check=True,
            capture_output=True,
        )


@contextmanager
def ui(folder: Path) -> Iterator[str]:
    """`lvdd ui` on a free port, and its address once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "ui.log").open("w") as log:
        child = subprocess.Popen(
            [str(BIN / "lvdd"), "ui", "--port", str(port)],
            cwd=folder,
            env=environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(180):
                try:
                    urllib.request.urlopen(f"{address}/server_info", timeout=5).close()
                    break
                except OSError:
                    time.sleep(1)
            yield address
        finally:
            os.killpg(child.pid, signal.SIGTERM)
            child.wait(60)


class Browser:
    """A page of the UI, and where its pictures are kept."""

    def __init__(self, page: Any, address: str, out: Path) -> None:
        self.page, self.address, self.out = page, address, out

    def open(self, path: str) -> None:
        self.page.goto(f"{self.address}{path}")
        self.page.wait_for_timeout(8000)  # figures arrive one by one after the page itself

    def keep(self, name: str, *, height: int = HEIGHT, of: Any = None) -> None:
        """A picture of the page from its top, or of one element, in 128 colours."""
        data = of.screenshot() if of is not None else self.page.screenshot(clip=_clip(height))
        picture = Image.open(io.BytesIO(data)).convert("RGB").quantize(128, dither=Image.Dither.NONE)
        path = self.out / f"ui_{name}.png"
        picture.save(path, optimize=True)
        print(f"{path} {picture.width} x {picture.height}, {path.stat().st_size / 1000:.0f} kB", flush=True)

    def launch(self, asset: str, partition: str, *, keep: str = "") -> None:
        """Materialize… on the asset's page, one partition chosen, and launched."""
        page = self.page
        self.open(f"/assets/{asset}")
        page.get_by_role("button", name="Materialize…").click()
        page.get_by_text("Select a partition or create one").click()
        page.get_by_placeholder("Filter partitions").fill(partition)
        page.wait_for_timeout(1000)
        if keep:
            self.keep(keep, height=620)
        page.get_by_role("menuitem", name=partition).click()
        page.get_by_text("Partition selection", exact=True).click()  # closes the list
        page.get_by_role("button", name="Launch 1 run").click()
        page.wait_for_timeout(3000)

    def open_newest_run(self) -> str:
        """The page of the newest run once it has ended; "Success" or "Failure".

        Raises:
            RuntimeError: it did not end in ten minutes.
        """
        for _ in range(40):
            self.open("/runs")
            newest = self.page.locator("a[href^='/runs/']").first.get_attribute("href")
            self.open(newest or "/runs")
            for word in ("Success", "Failure"):
                if self.page.get_by_text(word, exact=True).count():
                    return word
            self.page.wait_for_timeout(10_000)
        raise RuntimeError("the run did not end in ten minutes")

    def keep_picture(self, asset: str, partition: str, name: str) -> None:
        """What a partition's page shows after a click on [Show Markdown]."""
        self.open(f"/assets/{asset}?view=partitions&partition={urllib.parse.quote(partition, safe='')}")
        row = self.page.locator("tr", has=self.page.get_by_text(name, exact=True))
        row.get_by_text("[Show Markdown]").first.click()
        self.page.wait_for_timeout(1500)
        self.keep(f"{asset}_{name}", of=self.page.locator("[class*=Dialog_dialog__], [role=dialog]").last)


def _clip(height: int) -> dict[str, int]:
    return {"x": 0, "y": 0, "width": WIDTH, "height": height}


def visit(browser: Browser, folder: Path) -> None:
    """Everything that docs/ui.md tells.

    Raises:
        RuntimeError: a run or a check did not end as it must.
    """
    page = browser.page
    page.set_viewport_size({"width": WIDTH, "height": 560})
    browser.open("/asset-groups")
    page.get_by_text("Hide navigation").click()
    browser.open("/asset-groups")  # laid out anew in the room that is there now
    page.locator("button:has([aria-label^='panel_show'])").last.click()
    page.wait_for_timeout(1000)
    browser.keep("lineage", height=560)
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    browser.launch("hosvd_cores", f"demo/{CLASS}", keep="launch")
    if (ended := browser.open_newest_run()) != "Success":
        raise RuntimeError(f"hosvd_cores of demo/{CLASS} ended with {ended}; expected Success")
    browser.keep("run")
    browser.open(f"/assets/hosvd_cores?view=partitions&partition=demo%2F{CLASS}")
    browser.keep("asset")
    for asset, partition, name in PICTURES:
        browser.keep_picture(asset, partition, name)
    add_too_small(folder)
    browser.open("/asset-groups")
    page.get_by_text("Reload definitions").click()
    page.wait_for_timeout(20_000)
    browser.launch("release", "too_small")
    browser.open_newest_run()
    browser.open("/assets/release?view=checks")
    browser.keep("check_fails", height=720)
    said = page.locator("body").inner_text()
    if "Failed" not in said or "release_fits_its_budget" not in said:
        raise RuntimeError(f"release_fits_its_budget did not fail:\n{said[:2000]}")
    browser.open("/automation")
    browser.keep("automation", height=430)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path, help="folder in which `lvdd demo` has run")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="executable of a browser")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ui-") as name:
        folder = Path(name) / "project"
        prepare(options.project, folder)
        with ui(folder) as address, sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
            context = chromium.new_context(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
            context.set_default_timeout(60_000)
            try:
                visit(Browser(context.new_page(), address, options.out), folder)
            finally:
                chromium.close()


if __name__ == "__main__":
    main()
