"""An edited model runs for those inside of the edit alone, is neither copied nor taken for itself, and is afterwards what it was."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from threading import Thread

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


def test_a_thread_that_entered_no_edit_is_refused_and_goes_on_when_the_edit_is_left(worker, tokens):
    model = model_of("llama")
    plain = written(model)
    with edited(model, EDIT, tokens=tokens):
        with pytest.raises(ModelError, match="edited by another thread or task"):
            worker(lambda: written(model))
        with pytest.raises(ModelError, match="edited by another thread or task"):
            worker(lambda: worker_born(lambda: written(model)))
        with pytest.raises(ModelError, match="edited by another thread or task"):
            worker(lambda: record(model, tokenizer_of(), {"en": Documents(["the cat"])}))
    assert worker(lambda: written(model)) == plain


def worker_born(task):
    """What a thread gives that is born now, of whoever calls."""
    kept = []

    def run():
        try:
            kept.append(task())
        except ModelError as error:
            kept.append(error)

    thread = Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(kept[0], ModelError):
        raise kept[0]
    return kept[0]


def test_threads_in_edits_of_their_own_each_get_their_own(worker, tokens):
    model = model_of("llama")
    plain, ours, theirs = written(model), under(model, EDIT, tokens=tokens), under(model, OTHER, tokens=tokens)
    assert len({str(one) for one in (plain, ours, theirs)}) == 3
    with edited(model, EDIT, tokens=tokens):
        assert worker(lambda: under(model, OTHER, tokens=tokens)) == theirs
        assert worker(lambda: under(model, [])) == plain
        assert written(model) == ours


@pytest.mark.parametrize("kind", [*KINDS, "qwen3_moe"])
def test_threads_that_run_at_the_same_time_do_not_mix(kind, tokens):
    model = model_of(kind) if kind in KINDS else build(kind, ZOO[kind])
    space = find(model).space
    edits = [*(Set(NeuronSet(space, torch.arange(at, len(space), 3)), 0.7) for at in (0, 1)), []]
    alone = [under(model, one, tokens=tokens) for one in edits]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            assert list(pool.map(lambda one: under(model, one, tokens=tokens), edits)) == alone


def test_a_thread_started_inside_that_streams_is_steered(tokens):
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
    with edited(model, EDIT, tokens=tokens):
        ours = "".join(stream(model, tokenizer, "the cat", GenerationOptions(6, 1.0)))
    assert ours != "".join(stream(model, tokenizer, "the cat", GenerationOptions(6, 1.0)))


def test_a_thread_that_outlives_the_edit_it_was_started_in_is_refused():
    model, begin = model_of("llama"), Queue()
    kept = []

    def late():
        begin.get()
        try:
            kept.append(written(model))
        except ModelError as error:
            kept.append(str(error))

    with edited(model, EDIT):
        thread = Thread(target=late)
        thread.start()
    written(model)  # who left it is free
    begin.put(None)
    thread.join()
    assert "has ended" in kept[0]
    del thread
    assert hooks_on(model) == 0


def test_a_pool_serves_whoever_asks_so_its_workers_inherit_no_edit():
    model = model_of("llama")
    ours = under(model, EDIT)
    with ThreadPoolExecutor(1) as pool, edited(model, EDIT):
        with pytest.raises(ModelError, match="copy_context"):
            pool.submit(written, model).result()
        assert pool.submit(contextvars.copy_context().run, written, model).result() == ours


def test_tasks_are_told_apart_and_what_they_hand_to_threads_is_theirs(tokens):
    model = model_of("llama")
    plain, ours, theirs = written(model), under(model, EDIT, tokens=tokens), under(model, OTHER, tokens=tokens)

    async def steered(edits, expected):
        with edited(model, edits, tokens=tokens):
            for _ in range(2):
                await asyncio.sleep(0)
                assert written(model) == expected
            assert await asyncio.to_thread(written, model) == expected
            assert await asyncio.create_task(inside()) == expected

    async def inside():
        return written(model)

    async def both():
        await asyncio.gather(steered(EDIT, ours), steered(OTHER, theirs), steered([], plain))
        stranger = asyncio.create_task(later())
        await asyncio.sleep(0)
        with edited(model, EDIT, tokens=tokens):
            go.set()
            with pytest.raises(ModelError, match="edited by another thread or task"):
                await stranger

    async def later():
        await go.wait()
        return written(model)

    go = asyncio.Event()
    asyncio.run(both())


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
    [copy.deepcopy, copy.copy, pickle.dumps, lambda model: torch.save(model, "/dev/null")],
    ids=["deepcopy", "copy", "pickle", "torch.save"],
)
@pytest.mark.parametrize("part", [lambda model: model, lambda model: model.model.layers[0].mlp], ids=["model", "part"])
def test_an_edited_model_is_not_copied(take, part, tokens):
    model = lively("llama")
    with edited(model, EDIT, tokens=tokens), pytest.raises(ModelError, match="neither copied nor pickled"):
        take(part(model))
    assert torch.equal(logits_of(copy.deepcopy(model), IDS), logits_of(model, IDS))


def test_an_edited_model_is_not_taken_for_itself(tmp_path):
    model, tokenizer = lively("llama"), tokenizer_of()
    texts = {"en": Documents(["the cat sat on the mat"])}
    before, unedited = checksum(model), describe(model, tokenizer)
    with edited(model, EDIT):
        with pytest.raises(ModelError, match="edited here, and a recording"):
            record(model, tokenizer, texts)
        assert describe(model, tokenizer) == unedited
        with pytest.warns(LapeWarning, match="unedited weights are saved"):
            model.save_pretrained(tmp_path)
        assert checksum(model) == before
    with edited(model, []):
        record(model, tokenizer, texts)


def test_edits_left_in_any_order_leave_what_was_there(tokens):
    model = lively("llama")
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
    assert not {"generate", "save_pretrained", "__getstate__"} & model.__dict__.keys()
    assert torch.equal(logits_of(model, IDS), before)
    assert hooks_on(model) == 0
