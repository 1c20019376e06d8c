"""The page in a real browser, on the real model: it answers in the wanted language, asks nobody, and can be used by all."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from lape.play.page import Place, serve
from lape.play.presets import PRESETS
from lape.play.session import Session
from lape.values.stats import ActivationStats
from support.browsing import FLAGS, faults

pytest.importorskip("gradio", reason="gradio is missing: pip install 'lape[play]'")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install playwright")
pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="There is no chromium to open the page in.")
PATIENCE = 40_000
"""Milliseconds that an answer may take on a busy machine."""
HOSTILE = "Why is it important to drink water? <img src=x onerror=alert(1)> ${7*7} {{7*7}}"


@pytest.fixture(scope="module")
def session(loaded: tuple[Any, Any], stats: ActivationStats) -> Session:
    return Session(*loaded, stats)


@pytest.fixture(scope="module")
def address(session: Session) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = serve(session, Place("sample", "runs/demo"), port)
    yield f"http://127.0.0.1:{port}"
    served.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield opened
        opened.close()


@contextmanager
def opened(browser: Any, address: str, **how: Any) -> Iterator[Any]:
    """The page, on which nothing may go wrong, and from which nothing may go out."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **how})
    page, asked, complaints = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda line: complaints.append(line.text) if line.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    page.goto(address)
    page.get_by_role("button", name="Ask twice").wait_for(timeout=PATIENCE)
    yield page
    context.close()
    assert len(asked) > 10
    assert [url for url in asked if not url.startswith((f"{address}/", "data:", "blob:"))] == []
    assert complaints == []


def ask(page: Any, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()
    page.get_by_text("Both answers are written.").wait_for(timeout=PATIENCE)


def language_of(page: Any, side: str) -> str | None:
    told: str | None = page.locator(f"#{side} [data-language]").get_attribute("data-language")
    return told


def test_an_example_is_answered_in_the_wanted_language_in_both_columns(browser: Any, address: str) -> None:
    with opened(browser, address) as page:
        ask(page, "English → Chinese")
        assert (language_of(page, "unsteered"), language_of(page, "steered")) == ("en", "zh")
        for side in ("unsteered", "steered"):
            assert len(page.inner_text(f"#{side} .lape-text")) > 20
            assert page.locator(f"#{side} svg[role=img] polyline").count() == 2
        shares = page.eval_on_selector_all(
            ".lape-text span[style]",
            "all => all.map(one => [one.closest('article').id, +one.style.getPropertyValue('--share')])",
        )
        means = {side: [share for at, share in shares if at == side] for side in ("unsteered", "steered")}
        mean = {side: sum(found) / len(found) for side, found in means.items()}
        assert mean["steered"] > 0.7 > 0.4 > mean["unsteered"]  # Chinese neurons

        page.get_by_role("button", name="The same in Python").click()
        assert "lape.steer(model, neurons, source='en', to='zh'" in page.inner_text(".cm-content")
        page.get_by_label("Shade tokens by the neurons of").click()
        page.get_by_role("option", name="English (en)").click()
        page.get_by_text("English neurons that fire on a token").wait_for(timeout=PATIENCE)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_can_be_used_by_all(browser: Any, address: str, width: int, scheme: str) -> None:
    with opened(browser, address, viewport={"width": width, "height": 900}, color_scheme=scheme) as page:
        assert faults(page) == []
        page.get_by_role("button", name="More settings").click()
        page.get_by_label("number input for New tokens, at most").fill("6")
        ask(page, "Ask twice")
        page.get_by_role("button", name="The same in Python").click()
        page.get_by_text("All shares in numbers").click()
        assert faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_mistake_is_a_message_and_hostile_text_stays_text(browser: Any, address: str) -> None:
    with opened(browser, address) as page:
        box = page.get_by_label("Prompt", exact=True)
        box.fill("  ")
        page.get_by_role("button", name="Ask twice").click()
        page.get_by_role("alert").get_by_text("There is no prompt.").wait_for(timeout=PATIENCE)
        assert "Traceback" not in page.content()
        assert faults(page) == []
        box.fill(HOSTILE)
        page.get_by_role("button", name="Ask twice").click()
        page.get_by_text("Both answers are written.").wait_for(timeout=PATIENCE)
        assert page.inner_text(".lape-prompt") == HOSTILE
        assert page.get_by_role("alert").count() == 0


def test_a_reader_who_leaves_in_the_middle_does_not_keep_the_model(
    browser: Any, address: str, session: Session
) -> None:
    with opened(browser, address) as page:
        page.get_by_role("button", name="English → Chinese", exact=True).click()
        page.get_by_text("Writing the").wait_for(timeout=PATIENCE)
    with opened(browser, address) as page:
        ask(page, "English → French")
        assert language_of(page, "unsteered") == "en"


def test_nobody_else_is_let_in(address: str) -> None:
    import http.client

    host, port = address.removeprefix("http://").split(":")
    for name, status in ((f"127.0.0.1:{port}", 200), ("elsewhere.example", 421)):
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        connection.request("GET", "/", headers={"Host": name})
        answer = connection.getresponse()
        assert answer.status == status
        assert status != 200 or "default-src 'self'" in str(answer.getheader("content-security-policy"))


def test_examples_do_what_they_say(session: Session) -> None:
    for preset in PRESETS:
        answer = session.answer(replace(preset.asked, new_tokens=14))
        assert answer.unsteered.language == preset.asked.source, preset.name
        assert (answer.steered.language == preset.asked.target) == preset.works, (preset.name, answer.steered.text)
