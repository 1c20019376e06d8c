"""What other packages add through entry points: detectors and experiments."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import TypeVar

from lape.errors import OptionError

T = TypeVar("T")


def added(group: str, kind: type[T]) -> Iterator[T]:
    """Every record of a kind that an entry point of a group names. Raises OptionError for what cannot be imported or is another thing."""
    for point in entry_points(group=group):
        package = point.dist.name if point.dist else "A package"
        try:
            found = point.load()
        except Exception as error:
            raise OptionError(
                f"{package} adds {point.value} to {group}, which cannot be imported: {error}. Fix the package, or uninstall it."
            ) from error
        if not isinstance(found, kind):
            raise OptionError(
                f"{package} adds {point.value} to {group}. Expected a {kind.__module__}.{kind.__qualname__}, found {type(found).__name__}."
            )
        yield found


def by_name(records: Iterator[T], what: str) -> dict[str, T]:
    """Records by their names. Raises OptionError where two have the same."""
    found: dict[str, T] = {}
    for record in records:
        name = record.name  # type: ignore[attr-defined]
        if name in found:
            raise OptionError(f"Two {what} are called {name}. Uninstall the package that adds the second.")
        found[name] = record
    return found
