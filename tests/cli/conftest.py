"""No terminal unless a test says so."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other packages that were imported before may have said how wide one is."""
    monkeypatch.delenv("COLUMNS", raising=False)
