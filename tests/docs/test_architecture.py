"""The page on the architecture is true: its picture is the code's, and what it names is there."""

from __future__ import annotations

import re
from importlib import import_module

from support.floors import PAGE, ROOT, floors, imports, redrawn


def test_the_picture_of_the_floors_is_that_of_the_code():
    page = PAGE.read_text(encoding="utf-8")
    assert page == redrawn(page), "python tests/support/floors.py"


def test_every_room_stands_on_a_floor_and_imports_lower_ones_only():
    rooms = {
        path.stem for path in (ROOT / "src" / "lape").iterdir() if path.name[0] not in "_." and path.name != "py.typed"
    }
    order = {room: k for k, floor in enumerate(floors()) for room in floor}
    assert rooms == set(order)
    for room, k in order.items():
        assert all(order[one] > k for one in imports(room)), room


def test_every_dotted_name_and_file_of_the_page_is_there():
    page = PAGE.read_text(encoding="utf-8")
    for dotted in re.findall(r"`(lape\.[a-z_.]+[a-z])`", page):
        if dotted not in ("lape.detectors",):
            import_module(dotted)
    for file in re.findall(r"`((?:src|tests|docs)/[\w/]+\.(?:py|md))`", page):
        assert (ROOT / file).exists() or file.endswith("mine.py"), file
