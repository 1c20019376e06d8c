"""What a missing package says: what needs it, how pip calls it, and what to type."""

from __future__ import annotations

import importlib.util

import pytest

from lape.errors import OptionError
from lape.extras import lacking, need


def test_what_is_installed_is_needed_in_silence():
    need("dev", "A test", "pytest", "json")
    assert lacking("dev", "A test", "pytest") is None


def test_every_missing_package_is_named_as_pip_knows_it():
    said = 'A thing needs no-such-package, nor-this. In the folder of lape\'s source, type: pip install ".[lid]"'
    assert lacking("lid", "A thing", "no_such_package", "json", "nor_this") == said
    with pytest.raises(OptionError) as error:
        need("lid", "A thing", "no_such_package", "nor_this")
    assert str(error.value) == said


def test_lingua_has_another_name_to_pip(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert "lingua-language-detector" in lacking("lid", "A thing", "lingua")
