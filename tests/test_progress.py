"""What is told of work while it goes on."""

from __future__ import annotations

import pytest

from lape.progress import each


@pytest.mark.parametrize("things", [[], ["a"], {"a": 1, "b": 2}.items(), range(3)])
def test_it_is_told_before_each_thing_how_many_are_done_and_once_more_at_the_end(things):
    told = []
    seen = [(one, len(told)) for one in each(things, "work", lambda *said: told.append(said))]
    assert seen == [(one, k + 1) for k, one in enumerate(things)]
    assert told == [("work", done, len(things)) for done in range(len(things) + 1)]


def test_work_that_breaks_off_is_not_said_to_be_done():
    told = []
    next(each([1, 2], "work", lambda *said: told.append(said)))
    assert told == [("work", 0, 2)]
