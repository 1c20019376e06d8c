"""Whether `lape` is a good guest: a program that uses it finds the process as it was, and nothing done in its name that it did not ask for.

Run as a script in a fresh process: `python guest.py SCENARIO FOLDER` prints a JSON list of complaints, which should be empty.
"""

from __future__ import annotations

import importlib
import json
import locale
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

ROOT = Path(str(find_spec("lape").origin)).parent
OURS, TESTS = str(ROOT), str(Path(__file__).parents[1])
HERE, STDLIB = __file__, os.path.dirname(os.__file__)


class Watch:
    """What happens between `begin` and `end`, and what differs between them."""

    def __init__(self, folder: Path) -> None:
        """`folder`: where the scenario may write, and where lape's cache lies."""
        self.folder = os.path.realpath(folder)
        self.complaints: dict[str, None] = {}
        self._on = False
        self._modules: dict[str, dict[str, Any]] = {}
        self._classes: dict[type, dict[str, Any]] = {}
        self._state: dict[str, Any] = {}

    def complain(self, text: str) -> None:
        if self._on:
            self.complaints.setdefault(text)

    def begin(self) -> None:
        """Look at everything, and watch from now on."""
        import torch

        for owner, name in (
            *((os, name) for name in ("umask", "dup2")),
            *((logging.Logger, name) for name in ("setLevel", "addHandler", "removeHandler", "addFilter")),
            (logging, "disable"),
            (logging, "basicConfig"),
            *((warnings, name) for name in ("simplefilter", "filterwarnings", "resetwarnings")),
            (warnings.catch_warnings, "__enter__"),
            (signal, "signal"),
            (locale, "setlocale"),
            (sys, "setrecursionlimit"),
            *((torch, name) for name in ("set_num_threads", "set_default_dtype", "use_deterministic_algorithms")),
            (torch, "set_float32_matmul_precision"),
            (torch.compiler, "reset"),
        ):
            self._wrap(owner, name)
        self._state = state()
        foreign = {name: module for name, module in list(sys.modules.items()) if is_foreign(name, module)}
        for name, module in foreign.items():
            self._modules[name] = dict(vars(module))
            for value in list(vars(module).values()):
                if issubclass(type(value), type) and value.__module__ == name:
                    self._classes[value] = dict(vars(value))
        for module in foreign.values():
            self._guard(module)
        sys.addaudithook(self._heard)
        self._on = True

    def end(self) -> list[str]:
        """Everything that is to be complained of."""
        for name, before in self._modules.items():
            module = sys.modules.get(name)
            if module is None:
                self.complain(f"{name} is no longer imported")
                continue
            after = vars(module)
            for key, value in before.items():
                if key not in KEPT_BY_PYTHON and after.get(key) is not value and not may_change(name, key):
                    self.complain(f"{name}.{key} was {value!r:.80} and is {after.get(key)!r:.80}")
        for kind, members in self._classes.items():
            now = vars(kind)
            for key in {*members, *now}:
                if members.get(key) is not now.get(key) and not may_change(kind.__module__, f"{kind.__name__}.{key}"):
                    self.complain(
                        f"{kind.__module__}.{kind.__name__}.{key} was {members.get(key)!r:.80} and is {now.get(key)!r:.80}"
                    )
        after = state()
        for key in {*self._state, *after}:
            if self._state.get(key) != after.get(key) and not may_change("", key):
                self.complain(f"{key}: {self._state.get(key)!r:.200} became {after.get(key)!r:.200}")
        self._on = False
        return list(self.complaints)

    def _wrap(self, owner: Any, name: str) -> None:
        """Complain of a function that lape calls itself: what it changes is often back before anyone looks."""
        inner = getattr(owner, name)

        def called(*args: Any, **kwargs: Any) -> Any:
            if place := in_lape(sys._getframe(1)):
                self.complain(f"{place} calls {getattr(owner, '__name__', owner)}.{name}")
            return inner(*args, **kwargs)

        setattr(owner, name, called)

    def _guard(self, module: ModuleType) -> None:
        """Complain of an attribute of another package's module that lape sets, also of one that it sets back."""
        kind = type(module)
        watch = self

        class Guarded(kind):  # type: ignore[misc,valid-type]
            def __setattr__(self, name: str, value: Any) -> None:
                if place := in_lape(sys._getframe(1)):
                    watch.complain(f"{place} sets {module.__name__}.{name}")
                super().__setattr__(name, value)

            def __reduce__(self) -> tuple[Any, ...]:  # as cloudpickle does of other modules
                return importlib.import_module, (self.__name__,)

        Guarded.__name__ = kind.__name__
        try:
            ModuleType.__setattr__(module, "__class__", Guarded)
        except TypeError:  # of a layout of its own
            return

    def _heard(self, event: str, args: tuple[Any, ...]) -> None:
        """What Python is audited for, where lape does it, by itself or by the standard library."""
        if not self._on or event not in EVENTS:
            return
        frame = sys._getframe(1)
        if event in ("compile", "exec"):  # only of text: code objects are modules that are imported
            if (place := in_lape(frame)) and event == "compile":
                self.complain(f"{place} compiles {args[0]!r:.80}")
            return
        while frame is not None and not in_lape(frame) and is_stdlib(frame):
            frame = frame.f_back  # type: ignore[assignment]
        place = in_lape(frame) if frame is not None else ""
        if not place:
            return
        if event in WRITES:
            if event == "open" and not (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
                return
            paths = [str(path) for path in args[: WRITES[event]] if isinstance(path, (str, bytes, os.PathLike))]
            outside = [path for path in paths if not self._inside(path)]
            if outside:
                self.complain(f"{place} writes {', '.join(outside)} ({event})")
        elif event == "socket.connect":
            if isinstance(args[1], tuple) and args[1][0] not in ("127.0.0.1", "::1", "localhost"):
                self.complain(f"{place} connects to {args[1]}")
        else:
            self.complain(f"{place}: {event} {args!r:.200}")

    def _inside(self, path: str) -> bool:
        real = os.path.realpath(path)
        return (
            real in (os.devnull, self.folder) or real.startswith(f"{self.folder}{os.sep}") or "/" not in path
        )  # by a folder's descriptor


WRITES = {
    "open": 1,
    "os.mkdir": 1,
    "os.rename": 2,
    "os.remove": 1,
    "os.rmdir": 1,
    "os.link": 2,
    "os.symlink": 2,
    "os.chmod": 1,
}
"""Events of what is written -> how many of its arguments are paths."""
EVENTS = {
    *WRITES,
    *("ctypes.dlopen", "subprocess.Popen", "os.posix_spawn", "os.system", "os.exec", "os.fork", "os.forkpty"),
    *("os.putenv", "os.unsetenv", "os.chdir", "socket.connect", "compile", "exec", "sys.setprofile", "sys.settrace"),
}
KEPT_BY_PYTHON = {"__warningregistry__", "__builtins__", "__class__"}


def in_lape(frame: FrameType | None) -> str:
    """Where in lape a frame is; empty for one of others."""
    name = "" if frame is None else frame.f_code.co_filename
    return f"{Path(name).relative_to(ROOT.parent)}:{frame.f_lineno}" if frame and name.startswith(OURS) else ""


def is_stdlib(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    return name.startswith("<frozen") or (name.startswith(STDLIB) and "site-packages" not in name) or name == HERE


def is_foreign(name: str, module: object) -> bool:
    """Whether a module is neither lape's nor the tests'."""
    file = str(getattr(module, "__file__", None) or "")
    return isinstance(module, ModuleType) and name != "__main__" and not file.startswith((OURS, TESTS))


def state() -> dict[str, Any]:
    """What belongs to the whole process."""
    import numpy as np
    import torch

    mask = UMASK(0)
    UMASK(mask)
    manager = logging.root.manager
    loggers = {name: one for name, one in manager.loggerDict.items() if isinstance(one, logging.Logger)}
    backends = torch.backends
    plain = np.random.get_state()
    return {
        "the umask": mask,
        "the working folder": os.getcwd(),
        **{f"the environment's {name}": value for name, value in os.environ.items()},
        **{f"descriptor {number}": (os.fstat(number).st_dev, os.fstat(number).st_ino) for number in (0, 1, 2)},
        "streams": (id(sys.stdin), id(sys.stdout), id(sys.stderr)),
        "hooks": (id(sys.excepthook), id(sys.displayhook), id(threading.excepthook), id(sys.unraisablehook)),
        "sys.path": tuple(sys.path),
        "meta_path": tuple(map(id, sys.meta_path)),
        "the recursion limit": sys.getrecursionlimit(),
        "signals": {
            number.name: getattr(signal.getsignal(number), "__qualname__", str(signal.getsignal(number)))
            for number in signal.valid_signals()
            if isinstance(number, signal.Signals)
        },
        "the locale": locale.setlocale(locale.LC_ALL),
        "logging's root": (logging.root.level, tuple(map(id, logging.root.handlers)), logging.root.manager.disable),
        **{
            f"logger {name}": (one.level, [type(handler) for handler in one.handlers], one.propagate, one.disabled)
            for name, one in loggers.items()
            if name in LOGGERS
        },
        "warning filters": tuple(map(str, warnings.filters)),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "torch's dtype and device": (str(torch.get_default_dtype()), str(torch.get_default_device())),
        "torch's threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "torch's determinism": (
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.benchmark,
        ),
        "torch's precision": (
            torch.get_float32_matmul_precision(),
            backends.cuda.matmul.allow_tf32,
            backends.cudnn.allow_tf32,
            backends.mkldnn.enabled,
        ),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()),
        "random numbers of random": hash(random.getstate()),
        "random numbers of numpy": (plain[1].tobytes(), plain[2]),
        "random numbers of torch": torch.get_rng_state().numpy().tobytes(),
    }


UMASK = os.umask
LOGGERS: set[str] = set()
"""Those that there are when the watch begins."""
ALLOWED = {
    "pkgutil._NAME_PATTERN": "a pattern that is compiled when it is first used",
    "tempfile._name_sequence": "made when the first temporary name is drawn",
    "torch.utils.hooks.RemovableHandle.next_id": "counts hooks",
    "polars._dependencies.": "modules that are imported when first used",
    "polars.datatypes.constructor.": "a table that is filled when first used",
    "PIL.Image._initialized": "formats are listed when the first picture is written",
    "matplotlib.path.Path._": "shapes that are made when first drawn",
    "gradio.context.Context.id": "counts the parts of pages",
    "attr._make._CountingAttr.cls_counter": "counts attributes of classes",
    "psutil._": "what it knows of processes",
    "ray._private.external_storage._external_storage": "made when Ray starts",
    "ray.dag.compiled_dag_node._compiled_dags": "emptied when Ray stops",
}
"""What may change -> why: other packages' own caches and counters, which they fill themselves."""


def may_change(module: str, key: str) -> bool:
    """Whether it is a cache of its owner's; `__slotnames__` is one that `copyreg` keeps in classes."""
    return key.endswith(".__slotnames__") or any(f"{module}.{key}".startswith(name) for name in ALLOWED)


# --- what is done with lape; each makes ready what needs no lape, and gives what is watched ---


def importing(_folder: Path) -> Callable[[], object]:
    def use() -> None:
        import lape

        for name in lape.__all__:
            getattr(lape, name)

    return use


def saved_model(folder: Path) -> dict[str, Path]:
    """A tiny model in the folder, used once without lape, so that its libraries have filled their caches; and text of three languages."""
    import torch
    import transformers

    from support.brute import some_texts
    from support.tiny import tiny, tiny_tokenizer

    tiny("llama", torch.float32, hidden_size=64, intermediate_size=128).save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    texts = {}
    for seed, language in enumerate(("en", "fr", "zh")):
        texts[language] = folder / f"{language}.txt"
        texts[language].write_text("\n".join(some_texts(60, seed)), encoding="utf-8")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    model.generate(**tokenizer("the cat", return_tensors="pt"), max_new_tokens=2, do_sample=False)
    return texts


def recording_and_editing(folder: Path) -> Callable[[], object]:
    import matplotlib.pyplot  # noqa: F401
    import numpy as np
    import scipy.stats  # noqa: F401

    texts = saved_model(folder)

    def use() -> None:
        import lape
        from lape.measure.correlation import spearman
        from lape.measure.generation import GenerationOptions, SamplingOptions, generate

        model, tokenizer = lape.load(folder / "model", device="cpu")
        how: dict[str, Any] = {"document": "line", "row_tokens": 64}
        stats = lape.record(model, tokenizer, texts, out=folder / "run", residual=True, histogram=True, **how)
        neurons = lape.identify(stats, rate=0.2)
        with lape.edited(model, lape.Off(neurons["fr"])):
            model(**tokenizer("the cat", return_tensors="pt"))
            generate(model, tokenizer, ["the cat"], GenerationOptions(new_tokens=3))
            generate(model, tokenizer, ["the cat"], SamplingOptions(new_tokens=3, temperature=1.0))
        thread = threading.Thread(target=lambda: model(**tokenizer("the cat", return_tensors="pt")))
        with lape.steer(model, neurons, stats=stats, to="fr", source="en"):
            thread.start()
            thread.join()
        parallel = {language: folder / f"{language}2.txt" for language in texts}
        for language, path in parallel.items():
            path.write_text("\n".join(f"{line} again" for line in texts[language].read_text().splitlines()))
        lape.perplexity(model, tokenizer, neurons, parallel, document="line", draws=1, resamples=20)
        neurons.save(folder / "run" / "neurons.safetensors")
        neurons.save(folder / "sets.pth")
        lape.LanguageNeurons.load(folder / "sets.pth", languages=list(neurons), width=128)
        assert spearman(np.zeros(9), np.arange(9.0)) is None
        lape.export(model, [lape.Off(neurons["fr"])], folder / "adapter", format="lora")
        lape.export(model, [lape.Off(neurons["fr"])], folder / "checkpoint", format="checkpoint")
        lape.report(folder / "run")

    return use


def loading_gguf(folder: Path) -> Callable[[], object]:
    import torch

    from support.gguf_file import write_gguf
    from support.tiny import tiny

    saved_model(folder)
    write_gguf(tiny("llama", torch.float32, hidden_size=64, intermediate_size=128), folder / "tiny.gguf")

    def use() -> None:
        import lape

        lape.load(folder / "tiny.gguf", device="cpu")
        lape.load(folder / "tiny.gguf", device="cpu")

    return use


def loading_in_8_bits(folder: Path) -> Callable[[], object]:
    import bitsandbytes  # noqa: F401

    texts = saved_model(folder)

    def use() -> None:
        import lape

        model, tokenizer = lape.load(folder / "model", bits=8, dtype="bfloat16", device="cpu")
        lape.record(model, tokenizer, texts, document="line", row_tokens=64, attribution=100)

    return use


def fixing(folder: Path) -> Callable[[], object]:
    import pytest

    saved_model(folder)
    from lape.experiments.confusion.cure import CureOptions, cure
    from support.planted import planted, planted_texts, planted_tokenizer
    from support.worded import judged_by_words, prompts

    judged_by_words(pytest.MonkeyPatch())
    model, tokenizer, texts, asked = planted(), planted_tokenizer(), planted_texts(0), prompts()

    def use() -> None:
        few = CureOptions(sets=("difference:4",), strengths=(20.0,), new_tokens=4, repetition_penalty=1.0)
        cure(model, tokenizer, asked, texts, few, to="fr", folder=folder / "fix", tokens=500)

    return use


def recording_with_ray(folder: Path) -> Callable[[], object]:
    import ray

    texts = saved_model(folder)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)  # what Ray changes by itself
    ray.shutdown()

    def use() -> None:
        from lape.model.load import ModelOptions
        from lape.recording.engine import RecordOptions
        from lape.recording.engines.ray import ClusterOptions, record

        cluster = ClusterOptions(engine="ray", workers=1, worker_cpus=1)
        before = random.getstate()
        record(
            folder / "model",
            texts,
            RecordOptions(document="line", row_tokens=64),
            cluster=cluster,
            loading=ModelOptions(device="cpu"),
            out=folder / "run",
        )
        random.setstate(before)  # Ray draws names from it

    return use


def playing(folder: Path) -> Callable[[], object]:
    import socket
    import urllib.request

    import gradio

    texts = saved_model(folder)

    def asked(page: Any, port: int) -> None:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60).read()
        page.close(verbose=False)

    with gradio.Blocks(analytics_enabled=False) as page:  # what gradio changes by itself
        gradio.HTML("without lape")
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True)
    asked(page, int(address.strip("/").rpartition(":")[2]))

    def use() -> None:
        import lape
        from lape.play.page import Place, serve
        from lape.play.session import Session

        model, tokenizer = lape.load(folder / "model", device="cpu")
        stats = lape.record(model, tokenizer, texts, document="line", row_tokens=64)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        before = random.getstate()
        asked(serve(Session(model, tokenizer, stats), Place("a model", "a run"), port), port)
        random.setstate(before)  # gradio draws names from it

    return use


SCENARIOS: dict[str, Callable[[Path], Callable[[], object]]] = {
    one.__name__: one
    for one in (importing, recording_and_editing, loading_gguf, loading_in_8_bits, fixing, recording_with_ray, playing)
}
PACKAGES = {
    "loading_gguf": "gguf",
    "loading_in_8_bits": "bitsandbytes",
    "fixing": "lingua",
    "recording_with_ray": "ray",
    "playing": "gradio",
}
"""What a scenario needs beside lape's own dependencies."""


def main(name: str, folder: Path) -> None:
    import numpy  # noqa: F401
    import polars  # noqa: F401
    import torch._dynamo
    import torch.distributed.tensor  # noqa: F401
    import transformers  # noqa: F401

    use = SCENARIOS[name](folder)
    LOGGERS.update(logging.root.manager.loggerDict)
    watch = Watch(folder)
    watch.begin()
    use()
    print(json.dumps(watch.end()))  # noqa: T201


if __name__ == "__main__":
    sys.path[0] = TESTS
    main(sys.argv[1], Path(sys.argv[2]))
