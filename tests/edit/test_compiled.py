"""An edit of a compiled model acts, whatever was compiled and how; afterwards the code from before is used again, and nobody else's was dropped."""

from __future__ import annotations

import shutil
import sys
from threading import Thread

import pytest
import torch
from transformers import CompileConfig

from lape.edit.edit import Add, Off, Scale, Set, edited
from lape.model.find import find
from lape.model.hooks import watching
from lape.values.neurons import NeuronSet
from support.brute import hooks_on, lively
from support.zoo.table import KINDS as ZOO
from support.zoo.written import build

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = torch.tensor([[1, 20, 30, 40, 50, 60, 70]])


class Backend:
    """torch's own "eager", and how many graphs it was given."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, _inputs, **_):
        self.graphs += 1
        return graph.forward


@pytest.fixture
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def made(kind):
    model = lively(kind, torch.float32) if kind in ("llama", "phi3") else build(kind, ZOO[kind])
    return model.requires_grad_(False).eval()


def edits_of(model):
    space = find(model).space
    some = [NeuronSet(space, torch.arange(at, len(space), 4)) for at in range(4)]
    return {
        "off": (Off(some[0]), {}),
        "generated": ([Scale(some[1], 2.0), Add(some[2], 0.3)], {"tokens": "generated", "first": 2, "fade": 0.5}),
        "gate": (Add(some[3], 0.4, at="gate"), {}),
        "isolated": (Set(some[0], 0.7), {"isolated": True}),
    }


# --- what may be compiled: each gives something to call with ids, and what to give to `edited` ---


def logits(model):
    def run(ids):
        with torch.no_grad():
            return model(input_ids=ids, use_cache=False).logits

    return run


def wrapped(model, backend):
    model = torch.compile(model, backend=backend)
    return logits(model), model


def wrapped_inside(model, backend):
    return logits(torch.compile(model, backend=backend)), model


def wrapped_whole(model, backend):
    model = torch.compile(model, backend=backend, fullgraph=True)
    return logits(model), model


def in_place(model, backend):
    model.compile(backend=backend)
    return logits(model), model


def its_forward(model, backend):
    model.forward = torch.compile(model.forward, backend=backend, fullgraph=True)
    return logits(model), model


def a_function(model, backend):
    @torch.compile(backend=backend)
    def run(ids):
        return model(input_ids=ids, use_cache=False).logits * 1

    def call(ids):
        with torch.no_grad():
            return run(ids)

    return call, model


def a_block(model, backend):
    model.model.layers[1] = torch.compile(model.model.layers[1], backend=backend)
    find(model)  # proven again
    return logits(model), model


def blocks_in_place(model, backend):
    for block in model.model.layers:
        block.compile(backend=backend)
    return logits(model), model


def leaves_in_place(model, backend):
    for module in model.modules():
        if not [*module.children()]:
            module.compile(backend=backend)
    return logits(model), model


WAYS = [
    *(wrapped, wrapped_inside, wrapped_whole, in_place, its_forward),
    *(a_function, a_block, blocks_in_place, leaves_in_place),
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("kind", ["llama", "phi3", "qwen3_moe"])
def test_edits_act_and_leave_the_code_from_before(kind, way, fresh_compiler):
    """The same logits as the model gives that was never compiled, edit for edit; no graph is made but once for a function that calls the model."""
    plain, model, backend = made(kind), made(kind), Backend()
    for one in (plain, model):
        find(one)
    call, target = way(model, backend)
    expected = logits(plain)(IDS)
    before = call(IDS)
    torch.testing.assert_close(before, expected)
    graphs = backend.graphs
    assert graphs
    for name, (edits, how) in edits_of(plain).items():
        with edited(plain, edits, **how):
            want = logits(plain)(IDS)
        assert not torch.allclose(want, expected), name
        with edited(target, edits, **how):
            for _ in range(2):
                torch.testing.assert_close(call(IDS), want)
        assert torch.equal(call(IDS), before), name
    if way is a_function:
        assert graphs < backend.graphs <= graphs + 2  # its own part without the model, and the model
    elif (kind, way) != ("qwen3_moe", leaves_in_place):  # one expert after the other: new shapes for their parts
        assert backend.graphs == graphs
    assert hooks_on(model) == 0


def test_edits_of_one_model_compile_nothing_of_another_s_anew(fresh_compiler):
    backend, model = Backend(), made("llama")

    @torch.compile(backend=backend)
    def unrelated(x):
        return x.sin() + 1

    other = torch.compile(made("llama"), backend=backend)
    for _ in range(3):
        unrelated(torch.ones(3))
        logits(other)(IDS)
        graphs = backend.graphs
        with edited(model, edits_of(model)["off"][0]):
            unrelated(torch.ones(3))
            logits(other)(IDS)
        unrelated(torch.ones(3))
        logits(other)(IDS)
        assert backend.graphs == graphs == 2


def test_a_function_that_may_not_leave_its_graph_is_refused_with_a_reason(fresh_compiler):
    model = made("llama")

    @torch.compile(backend="eager", fullgraph=True)
    def run(ids):
        return model(input_ids=ids, use_cache=False).logits

    with torch.no_grad():
        before = run(IDS)
        with (
            edited(model, edits_of(model)["off"][0]),
            pytest.raises(torch._dynamo.exc.Unsupported, match=r"Compile without fullgraph=True"),
        ):
            run(IDS)
        assert torch.equal(run(IDS), before)


def test_other_threads_run_the_compiled_model_unedited_meanwhile(fresh_compiler):
    model = made("llama")
    compiled = torch.compile(model, backend="eager")
    before, found = logits(compiled)(IDS), []
    with edited(compiled, edits_of(model)["off"][0], isolated=True):
        ours = logits(compiled)(IDS)
        thread = Thread(target=lambda: found.append(logits(compiled)(IDS)))
        thread.start()
        thread.join(60)
    torch.testing.assert_close(found[0], before)
    assert not torch.allclose(ours, before)


def test_a_model_compiled_inside_of_an_edit_is_unedited_afterwards(fresh_compiler):
    model, backend = made("llama"), Backend()
    before = logits(model)(IDS)
    with edited(model, edits_of(model)["off"][0]):
        expected = logits(model)(IDS)
        compiled = torch.compile(model, backend=backend)
        assert torch.equal(logits(compiled)(IDS), expected)
        assert not backend.graphs
    torch.testing.assert_close(logits(compiled)(IDS), before)
    assert backend.graphs == 1


def test_generate_with_a_call_that_transformers_compiles(fresh_compiler):
    model, graphs = made("llama"), []

    def backend(graph, _inputs, **_):
        graphs.append(graph)
        return graph.forward

    config = CompileConfig(backend=backend, fullgraph=False)
    config._compile_all_devices = True
    asked = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "min_new_tokens": 6}
    compiled = {"cache_implementation": "static", "compile_config": config}
    plain = model.generate(IDS, **asked)
    for edits, how in edits_of(model).values():
        with edited(model, edits, **how):
            expected = model.generate(IDS, **asked)
            assert torch.equal(model.generate(IDS, **asked, **compiled), expected)
        assert torch.equal(model.generate(IDS, **asked, **compiled), plain)
    assert graphs


def test_who_watches_a_compiled_model_sees_every_forward(fresh_compiler):
    model = made("llama")
    compiled, seen = torch.compile(model, backend="eager"), []
    logits(compiled)(IDS)
    with watching(compiled, find(model).sites, lambda k, _a, _rows: seen.append(k)):
        logits(compiled)(IDS)
    logits(compiled)(IDS)
    assert seen == [*range(len(find(model).sites))]


def test_a_forward_that_others_put_in_place_stays(fresh_compiler):
    """Before an edit, and while it acts."""
    model, calls = made("llama"), []
    mlp = model.model.layers[1].mlp

    def counted(inner):
        def forward(x):
            calls.append(x.shape)
            return inner(x)

        return forward

    first = mlp.forward = counted(mlp.forward)
    find(model)
    with edited(model, edits_of(model)["off"][0]):
        calls.clear()
        logits(model)(IDS)
        assert len(calls) == 1
        second = mlp.forward = counted(mlp.forward)
        logits(model)(IDS)
        assert len(calls) == 3
    assert mlp.__dict__["forward"] is second
    mlp.forward = first
    with edited(model, edits_of(model)["off"][0]):
        pass
    assert mlp.__dict__["forward"] is first


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None or sys.platform == "darwin", reason="needs a C++ compiler")
def test_inductor_s_code_too(fresh_compiler):
    model = made("llama")
    compiled = torch.compile(model)
    edits, how = edits_of(model)["generated"]
    before, plain = logits(compiled)(IDS), logits(model)(IDS)
    torch.testing.assert_close(before, plain, rtol=1e-3, atol=1e-4)
    with edited(compiled, edits, **how):
        found, expected = logits(compiled)(IDS), logits(model)(IDS)
    assert torch.equal(found, expected)
    assert not torch.allclose(found, plain)
    assert torch.equal(logits(compiled)(IDS), before)
