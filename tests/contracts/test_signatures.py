"""What every public signature keeps to: plain typed keywords, the same as the options that files keep, and one order of arguments."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pkgutil import resolve_name
from typing import Any

import pytest

from support.pages import ROOT, referenced

SOURCE = ROOT / "src/lape"
ORDER = ("model", "tokenizer", "neurons", "stats")
"""What comes first, in this order; then data, then keywords."""
JSON = re.compile(r"\b(dict|Mapping)\[str, Any\]")
"""Values of a file or manifest, of whatever kind JSON has."""
OF_ANY_KIND = re.compile(
    r"\b(Experiment|Detector|type|ndarray)\[Any\b|Callable\[\[Context, Any\]|\blist\[list\[Any\]\]"
)
FOREIGN = {
    "lape.experiments.context.Context.__init__": "a model is None where no experiment that needs one is run",
    "lape.experiments.harness.run.Tasks.__init__": "lm-eval has no types",
    "lape.values.quantity.Quantity.from_json": "it reads any JSON, and refuses",
    "lape.values.space.NeuronSpace.from_json": "it reads any JSON, and refuses",
}
"""Public names whose types others decide -> why."""
VARIADIC = {"lape.detect.identify.identify", "lape.model.identity.check_made_with", "lape.values.same.check_same_model"}
VARIADIC |= {"lape.measure.ablation.Ablations.check", "lape.values.same.check_adds_up"}
"""Those whose further keywords are names that a caller chooses, or a method's options; all are typed."""


def documented() -> Iterator[tuple[str, Callable[..., Any]]]:
    """The functions, and the methods of the classes, that the reference documents."""
    for path in dict.fromkeys(referenced()):
        value = resolve_name(path)
        name = f"{value.__module__}.{value.__qualname__}" if callable(value) else path
        if inspect.isclass(value) and not getattr(value, "_is_protocol", False):
            yield from ((f"{name}.{method}", function) for method, function in methods(value))
        elif inspect.isfunction(inspect.unwrap(value)):
            yield name, inspect.unwrap(value)


def methods(kind: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, value in vars(kind).items():
        function = getattr(value, "fget", None) or getattr(value, "__func__", value)
        if inspect.isfunction(function) and (not name.startswith("_") or name == "__init__"):
            yield name, inspect.unwrap(function)


DOCUMENTED = {name: function for name, function in documented() if inspect.isfunction(function)}


def test_there_are_signatures_to_hold() -> None:
    assert len(DOCUMENTED) > 250


@pytest.mark.parametrize("name", [one for one in DOCUMENTED if one not in FOREIGN])
def test_a_public_signature_is_typed(name: str) -> None:
    function = DOCUMENTED[name]
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        said = str(parameter.annotation)
        assert parameter.annotation is not parameter.empty, parameter.name
        assert "Any" not in OF_ANY_KIND.sub("", JSON.sub("", said)), f"{parameter.name}: {said}"
        if parameter.kind is parameter.VAR_KEYWORD:
            assert name in VARIADIC, f"{parameter.name}: expected keywords that an editor knows"
    returned = str(inspect.signature(function).return_annotation)
    assert "Any" not in OF_ANY_KIND.sub("", JSON.sub("", returned)), returned


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_model_comes_first_then_its_tokenizer_neurons_and_statistics(name: str) -> None:
    function = DOCUMENTED[name]
    parameters = inspect.signature(function).parameters.values()
    given = [
        one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD and one.name not in ("self", "cls")
    ]
    if "model" not in given and "neurons" not in given:
        return
    first = [one for one in given if one in ORDER]
    assert first == sorted(first, key=ORDER.index)
