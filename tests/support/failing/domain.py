"""Two kinds of text that have nothing in common, each with itself at one."""

from __future__ import annotations

from lape.experiments.domain import domain
from support.failing.amount import FIND, noisy


def _apart():
    return {"domain": domain(noisy(0, lasting=True), noisy(1, lasting=True), FIND)}, ["fr", "zh"]


FAILING = {"domain matters little": _apart}
