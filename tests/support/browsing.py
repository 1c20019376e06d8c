"""A page in headless Chromium, watched: what it says on the console, and what it asks of the network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Watched:
    """What a page did beside what it shows."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


def chromium() -> str:
    """Where Chromium is; the test is skipped where it or Playwright is not."""
    pytest.importorskip("playwright", reason="needs Playwright (the extra dev)")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("needs Chromium (on Debian: apt-get install chromium)")
    return found


@contextmanager
def opened(address: str, *, width: int = 1280, height: int = 900, scheme: Any = "light") -> Iterator[Watched]:
    """A page, opened and quiet; no dialog stays open."""
    where = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=where, args=list(FLAGS))
        try:
            page = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page()
            watched = Watched(page)
            page.on("console", lambda message: watched.said.append(message.text))
            page.on("pageerror", lambda error: watched.said.append(str(error)))
            page.on("dialog", lambda dialog: (watched.said.append(dialog.message), dialog.dismiss()))
            page.on("request", lambda request: watched.asked.append(request.url))
            page.goto(address)
            yield watched
        finally:
            browser.close()


def faults(page: Any) -> list[str]:
    """What axe-core finds of serious and critical accessibility faults."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-playwright-python (the extra dev)"
    )
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:160]} {node['failureSummary'][:300]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:3]
    ]
