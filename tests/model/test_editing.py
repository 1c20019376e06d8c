"""An edit acts in every thread, or in its own context alone; an edited model is neither copied nor taken for the unedited one."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from threading import Event, Thread

import pytest
import torch
from transformers import TextIteratorStreamer

from lape.data.texts import Documents
from lape.edit.edit import Off, Set, edited
from lape.errors import LapeWarning, ModelError
from lape.measure.generation import GenerationOptions, stream
from lape.model.find import find
from lape.model.identity import checksum, describe
from lape.recording.record import record
from lape.values.neurons import NeuronSet
from support.brute import hooks_on, lively, logits_of, model_of, tokenizer_of
from support.by_hand import chosen, one_of_each
from support.zoo.table import KINDS as ZOO
from support.zoo.written import build

IDS = torch.tensor([[1, 20, 30, 40, 50, 60, 70]])
KINDS = ("llama", "phi3")
"""With an activation module, and where gate and up are remembered between hooks."""
EDIT, OTHER = one_of_each("llama")[1:5], Off(chosen("llama", 1))


def written(model):
    return model.generate(IDS, max_new_tokens=6, min_new_tokens=6, do_sample=False, pad_token_id=0).tolist()


def under(model, edits, **how):
    with edited(model, edits, **how):
        return written(model)


class Worker:
    """A thread that was there before, and does what it is told."""

    def __init__(self):
        self._tasks, self._results = Queue(), Queue()
        Thread(target=self._work, daemon=True).start()

    def _work(self):
        while (task := self._tasks.get()) is not None:
            try:
                self._results.put((task(), None))
            except Exception as error:
                self._results.put((None, error))

    def __call__(self, task):
        self._tasks.put(task)
        result, error = self._results.get(timeout=60)
        if error is not None:
            raise error
        return result


@pytest.fixture
def worker():
    one = Worker()
    yield one
    one._tasks.put(None)


@pytest.fixture(params=["both", "generated"])
def tokens(request):
    return request.param


# --- threads and tasks ---


def test_an_edit_acts_in_every_thread_and_task_from_entry_to_exit(worker, tokens):
    model = model_of("llama")
    plain, ours = written(model), under(model, EDIT, tokens=tokens)

    async def waiting():
        await go.wait()
        return written(model)

    async def main():
        stranger = asyncio.create_task(waiting())
        await asyncio.sleep(0)
        with edited(model, EDIT, tokens=tokens):
            go.set()
            assert await stranger == ours
            assert await asyncio.to_thread(written, model) == ours

    go = asyncio.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        with edited(model, EDIT, tokens=tokens):
            assert worker(lambda: written(model)) == ours
            assert born(lambda: written(model)) == ours
            assert pool.submit(written, model).result() == ours
        assert pool.submit(written, model).result() == plain
    asyncio.run(main())
    assert worker(lambda: written(model)) == born(lambda: written(model)) == plain


def born(task):
    """What a thread returns that is started now."""
    kept = Queue()
    thread = Thread(target=lambda: kept.put(task()))
    thread.start()
    thread.join(60)
    return kept.get(timeout=1)


def test_a_thread_left_over_from_an_edit_runs_the_unedited_model(tokens):
    model, begin, kept = model_of("llama"), Queue(), Queue()
    plain = written(model)

    def late():
        begin.get()
        kept.put(written(model))

    with edited(model, EDIT, tokens=tokens):
        thread = Thread(target=late)
        thread.start()
    begin.put(None)
    thread.join(60)
    assert kept.get(timeout=1) == plain


def test_edits_in_several_threads_all_act(worker):
    model = model_of("llama")
    with edited(model, OTHER), edited(model, EDIT):
        both = written(model)
    with edited(model, OTHER):
        assert worker(lambda: under(model, EDIT)) == both


def test_threads_start_as_python_starts_them():
    with edited(model_of("llama"), EDIT):
        pass
    assert (Thread.start.__module__, hasattr(Thread.start, "__wrapped__")) == ("threading", False)


@pytest.mark.parametrize("how", [{}, {"tokens": "generated"}, {"spare": True}], ids=["both", "generated", "spare"])
@pytest.mark.parametrize("kind", [*KINDS, "qwen3_moe"])
@pytest.mark.parametrize("place", ["mlp", "mlp.down_proj"])
def test_a_forward_that_runs_when_an_edit_is_entered_or_left_ends_without_an_error(kind, how, place):
    """Another thread is in the middle of a block, before or within its MLP."""
    model = model_of(kind) if kind in KINDS else build(kind, ZOO[kind])
    space = find(model).space
    edit = Set(NeuronSet(space, torch.arange(0, len(space), 3)), 0.7)
    within = model.get_submodule(f"model.layers.1.{place if kind in KINDS else 'mlp'}")
    there, go_on, kept = Event(), Event(), Queue()

    def wait(*_):
        there.set()
        assert go_on.wait(60)

    def run():
        try:
            kept.put(logits_of(model, IDS))
        except Exception as error:
            kept.put(error)

    def started():
        there.clear()
        go_on.clear()
        handle = within.register_forward_pre_hook(wait)
        thread = Thread(target=run)
        thread.start()
        assert there.wait(60)
        handle.remove()
        return thread

    before = logits_of(model, IDS)
    with contextlib.ExitStack() as stack:
        thread = started()
        stack.enter_context(edited(model, edit, **how))
        go_on.set()
        thread.join(60)
        assert isinstance(kept.get(timeout=1), torch.Tensor)
        thread = started()
    go_on.set()
    thread.join(60)
    assert isinstance(kept.get(timeout=1), torch.Tensor)
    assert torch.equal(logits_of(model, IDS), before)


# --- isolated: a request of its own ---


def test_an_isolated_edit_acts_where_it_was_entered_alone(worker, tokens):
    model = model_of("llama")
    plain, ours, theirs = written(model), under(model, EDIT, tokens=tokens), under(model, OTHER, tokens=tokens)
    assert len({str(one) for one in (plain, ours, theirs)}) == 3
    with edited(model, EDIT, tokens=tokens, isolated=True):
        assert worker(lambda: under(model, OTHER, tokens=tokens, isolated=True)) == theirs
        assert worker(lambda: written(model)) == born(lambda: written(model)) == plain
        assert worker(lambda: find(model)) is find(model)
        assert written(model) == ours
        context = contextvars.copy_context()
        assert worker(lambda: context.run(written, model)) == ours
    assert worker(lambda: context.run(written, model)) == plain


def test_an_edit_that_is_not_isolated_acts_beside_those_that_are(worker):
    model = model_of("llama")
    with edited(model, OTHER), edited(model, EDIT):
        both = written(model)
    alone = under(model, OTHER)
    with edited(model, OTHER), edited(model, EDIT, isolated=True):
        assert written(model) == both
        assert worker(lambda: written(model)) == alone


@pytest.mark.parametrize("kind", [*KINDS, "qwen3_moe"])
def test_requests_that_run_at_the_same_time_do_not_mix(kind, tokens):
    """Batches with padding, in `generate` and in forwards; one of them runs the unedited model, bit for bit."""
    model = model_of(kind) if kind in KINDS else build(kind, ZOO[kind])
    space = find(model).space
    edits = [*(Set(NeuronSet(space, torch.arange(at, len(space), 3)), 0.7) for at in (0, 1)), []]
    ids = torch.tensor([[0, 0, 1, 20, 30], [1, 40, 50, 60, 70]])
    asked = {"attention_mask": (ids != 0).long(), "max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}

    def request(edit):
        with edited(model, edit, tokens=tokens, isolated=True):
            return model.generate(ids, **asked).tolist(), logits_of(model, ids).tolist()

    alone = [request(one) for one in edits]
    assert len({str(one) for one in alone}) == 3
    with ThreadPoolExecutor(3) as pool:
        for _ in range(4):
            assert list(pool.map(request, edits)) == alone
    assert hooks_on(model) == 0


def test_tasks_are_told_apart_and_what_they_hand_to_threads_is_theirs(tokens):
    model = model_of("llama")
    plain, ours, theirs = written(model), under(model, EDIT, tokens=tokens), under(model, OTHER, tokens=tokens)

    async def steered(edits, expected):
        with edited(model, edits, tokens=tokens, isolated=True):
            for _ in range(2):
                await asyncio.sleep(0)
                assert written(model) == expected
            assert await asyncio.to_thread(written, model) == expected
            assert await asyncio.create_task(inside()) == expected

    async def inside():
        return written(model)

    async def all_at_once():
        await asyncio.gather(steered(EDIT, ours), steered(OTHER, theirs), steered([], plain), stranger())

    async def stranger():
        for _ in range(4):
            await asyncio.sleep(0)
            assert written(model) == plain

    asyncio.run(all_at_once())


def test_an_isolated_edit_that_is_left_in_another_context_is_gone(worker):
    """As happens to a generator that a server closes from another thread."""
    model = model_of("llama")
    plain = written(model)

    def request():
        with edited(model, EDIT, isolated=True):
            yield written(model)
            yield None

    answers = request()
    context = contextvars.copy_context()
    ours = context.run(next, answers)
    assert ours == under(model, EDIT) != plain
    worker(answers.close)
    assert context.run(written, model) == plain
    assert hooks_on(model) == 0


def test_a_thread_that_streams_is_steered(tokens):
    model, tokenizer = model_of("llama"), tokenizer_of()
    expected = tokenizer.decode(under(model, EDIT, tokens=tokens)[0][7:])
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
    asked = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "streamer": streamer}
    with edited(model, EDIT, tokens=tokens):
        thread = Thread(target=model.generate, args=(IDS,), kwargs=asked)
        thread.start()
        text = "".join(streamer)
        thread.join()
    assert text == expected
    with edited(model, EDIT, tokens=tokens, isolated=True):
        ours = "".join(stream(model, tokenizer, "the cat", GenerationOptions(6, 1.0)))
    assert ours != "".join(stream(model, tokenizer, "the cat", GenerationOptions(6, 1.0)))


def test_texts_read_in_turn_keep_their_own_prompts():
    """Two conversations on caches of their own, by tasks inside of one edit of what is generated."""
    model = model_of("llama")
    long, short = torch.tensor([[1, 20, 30, 40, 50]]), torch.tensor([[1, 7]])
    more = torch.tensor([[33, 44]])

    def begin(ids):
        return model(input_ids=ids, use_cache=True).past_key_values

    def go_on(cache):
        return model(input_ids=more, past_key_values=cache, use_cache=True).logits

    with torch.no_grad(), edited(model, EDIT, tokens="both", first=2):
        alone = [go_on(begin(ids)) for ids in (short, long)]
        caches = [begin(ids) for ids in (short, long)]
        assert all(torch.equal(go_on(cache), expected) for cache, expected in zip(caches, alone, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_sites_are_found_while_another_thread_generates(kind, worker):
    model, over = lively(kind), []

    def generate():
        return [written(model) for _ in range(40) if not over]

    results = Queue()
    thread = Thread(target=lambda: results.put(generate()))
    thread.start()
    try:
        find(model)
    finally:
        over.append(True)
        thread.join()
    assert all(one == written(model) for one in results.get())


# --- what is not done to an edited model ---


@pytest.mark.parametrize(
    "take",
    [copy.deepcopy, pickle.dumps, lambda model: torch.save(model, "/dev/null")],
    ids=["deepcopy", "pickle", "torch.save"],
)
@pytest.mark.parametrize("part", ["", "model.layers.1.mlp"], ids=["model", "part"])
@pytest.mark.parametrize("kind", ["llama", "qwen3_moe"])
def test_an_edited_model_is_not_copied(take, kind, part, tokens):
    model = lively(kind) if kind in KINDS else build(kind, ZOO[kind])
    space = find(model).space
    edit = Off(NeuronSet(space, torch.arange(0, len(space), 3)))
    part += ".experts" if part and kind not in KINDS else ""
    with edited(model, edit, tokens=tokens), pytest.raises(ModelError, match="neither copied nor pickled"):
        take(model.get_submodule(part))
    assert torch.equal(logits_of(copy.deepcopy(model), IDS), logits_of(model, IDS))


def test_a_shallow_copy_that_was_made_of_an_edited_model_is_unedited_afterwards(tokens):
    model = lively("llama")
    with edited(model, EDIT, tokens=tokens):
        other = copy.copy(model)
    assert torch.equal(logits_of(other, IDS), logits_of(model, IDS))
    assert written(other) == written(model)


def test_an_edited_model_is_not_taken_for_itself(worker, tmp_path):
    model, tokenizer = lively("llama"), tokenizer_of()
    texts = {"en": Documents(["the cat sat on the mat"])}
    before, unedited = checksum(model), describe(model, tokenizer)
    with edited(model, EDIT):
        with pytest.raises(ModelError, match="is edited, and a recording"):
            record(model, tokenizer, texts)
        assert describe(model, tokenizer) == unedited
        with pytest.warns(LapeWarning, match="unedited weights are saved"):
            model.save_pretrained(tmp_path)
        assert checksum(model) == before
        with pytest.raises(ModelError, match="is edited, and a recording"):
            worker(lambda: record(model, tokenizer, texts))
    with edited(model, EDIT, isolated=True):
        assert describe(model, tokenizer) == unedited
        born(lambda: record(model, tokenizer, texts))
    with edited(model, []):
        record(model, tokenizer, texts)


def test_edits_left_in_any_order_leave_what_was_there(tokens):
    model = lively("llama")
    attributes = {module: set(module.__dict__) for module in model.modules()}
    own = model.generate = lambda *args, **kwargs: type(model).generate(model, *args, **kwargs)
    before, first, second = (
        logits_of(model, IDS),
        edited(model, EDIT, tokens=tokens),
        edited(model, OTHER, tokens=tokens),
    )
    alone = under(model, OTHER, tokens=tokens)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert written(model) == alone
    second.__exit__(None, None, None)
    assert model.__dict__["generate"] is own
    del model.generate
    assert all(set(module.__dict__) == keys for module, keys in attributes.items())
    assert torch.equal(logits_of(model, IDS), before)
    assert hooks_on(model) == 0
