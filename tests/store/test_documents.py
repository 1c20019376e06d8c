"""JSON is compared with what it should be before anything is made of it."""

from __future__ import annotations

import re

import pytest

from lape.errors import FileError
from lape.store.documents import Whole, misfit, parse, read_json

SCHEMA = {
    "n": int,
    "x": float | None,
    "texts": [str],
    "by": {...: (str, [str])},
    "model": (type(None), Whole({"id": str})),
}


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ({}, None),
        (
            {"n": 1, "x": 2, "texts": [], "by": {"a": "b", "c": ["d"]}, "model": {"id": "m", "more": 1}, "other": [{}]},
            None,
        ),
        ({"x": None, "model": None}, None),
        ([], "it is a list; expected an object"),
        ({"n": True}, "it.n is true or false; expected a whole number"),
        ({"n": 1.0}, "it.n is a number; expected a whole number"),
        ({"x": "1"}, "it.x is text; expected a number or null"),
        ({"texts": ["a", 5]}, r"it.texts\[1\] is a whole number; expected text"),
        ({"by": {"a": [None]}}, r"it.by.a\[0\] is null; expected text"),
        ({"model": {}}, "it.model has no id"),
    ],
)
def test_what_does_not_fit_is_said_by_its_place(value, wrong):
    found = misfit(value, SCHEMA, "it")
    assert (found is None) if wrong is None else re.fullmatch(wrong, found or "")


@pytest.mark.parametrize(
    "text", ["NaN", '{"a": Infinity}', "[" * 100_000 + "]" * 100_000, "[" * 65 + "]" * 65, "{", "", b"\xff"]
)
def test_what_is_no_json_of_ours_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match=r".*"):
        parse(text)
    (tmp_path / "run.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FileError, match=r"run\.json is damaged"):
        read_json(tmp_path / "run.json", object)
