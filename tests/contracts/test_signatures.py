"""What every public signature keeps to: plain typed keywords, the same as the options that files keep, and one order of arguments."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, get_args, get_type_hints

import pytest

import lape
from lape.detect import DETECTORS
from lape.detect.identify import MethodOptions
from lape.values.space import NeuronSpace
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
VARIADIC |= {"lape.measure.ablation.Ablations.check", "lape.values.same.check_adds_up", "lape.options.shares"}
"""Those whose further keywords are names that a caller chooses, or a method's options; all are typed."""


def taking() -> Iterator[tuple[str, Callable[..., Any], type]]:
    """Functions whose first line is `options = given(KIND, locals())`, each with its kind."""
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in (one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)):
            found = [one for one in ast.walk(node) if isinstance(one, ast.Call) and ast.unparse(one.func) == "given"]
            for call in (one for one in found if ast.unparse(one.args[-1]) == "locals()"):
                parts = path.relative_to(SOURCE.parent).with_suffix("").parts
                module = import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
                function = inspect.unwrap(getattr(module, node.name))
                yield f"{module.__name__}.{node.name}", function, getattr(module, ast.unparse(call.args[0]))


TAKING = {name: (function, kind) for name, function, kind in taking()}


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
    assert len(TAKING) >= 25
    assert len(DOCUMENTED) > 250


@pytest.mark.parametrize("name", TAKING)
def test_options_are_keywords_of_the_same_names_defaults_and_types(name: str) -> None:
    function, kind = TAKING[name]
    parameters = inspect.signature(function).parameters
    for field in dataclasses.fields(kind):
        assert field.name in parameters, f"{name} lacks {field.name} of {kind.__name__}"
        one = parameters[field.name]
        assert one.kind is inspect.Parameter.KEYWORD_ONLY, field.name
        assert (one.default, one.annotation) == (field.default, field.type), field.name


def test_no_function_takes_options_or_their_fields() -> None:
    for path in SOURCE.rglob("*.py"):
        for node in (one for one in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(one, ast.FunctionDef)):
            assert node.args.kwarg is None or node.args.kwarg.arg != "changes", f"{path}: {node.name}"


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


@pytest.mark.parametrize("name", [*DOCUMENTED, *TAKING])
def test_a_model_comes_first_then_its_tokenizer_neurons_and_statistics(name: str) -> None:
    function = DOCUMENTED.get(name) or TAKING[name][0]
    parameters = inspect.signature(function).parameters.values()
    given = [
        one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD and one.name not in ("self", "cls")
    ]
    if "model" not in given and "neurons" not in given:
        return
    first = [one for one in given if one in ORDER]
    assert first == sorted(first, key=ORDER.index)


def test_the_options_of_methods_are_those_of_all_that_come_with_lape() -> None:
    ours = [one for one in DETECTORS.values() if one.find.__module__.startswith("lape.")]
    kinds: dict[str, set[Any]] = {}
    for detector in ours:
        for name, hint in get_type_hints(detector.options).items():
            kinds.setdefault(name, set()).update(alternatives(hint))
    told = {name: set(alternatives(hint)) for name, hint in get_type_hints(MethodOptions).items()}
    assert told == kinds


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the words of a literal."""
    return get_args(hint) or (hint,)


def test_the_old_order_of_perplexity_still_works_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from lape.experiments.perplexity import run

    asked = []
    monkeypatch.setattr(
        run, "line_losses", lambda _model, _tokenizer, neurons, texts, *_, **__: asked.append((neurons, texts))
    )
    monkeypatch.setattr(run, "summary", lambda *_: None)
    neurons, texts = lape.LanguageNeurons(NeuronSpace.dense(1, 4), {}), {"fr": "fr.txt"}
    lape.perplexity(None, None, neurons, texts)
    with pytest.warns(DeprecationWarning, match=r"perplexity\(model, tokenizer, neurons, texts\)") as told:
        lape.perplexity(None, None, texts, neurons)
    assert asked == [(neurons, texts)] * 2
    assert Path(told[0].filename) == Path(__file__)
