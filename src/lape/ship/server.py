"""Ask a running server, and find out whether it uses an adapter: the same prompts with and without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

from lape.endpoint import Endpoint, Unanswered
from lape.errors import MismatchError, OptionError, foreign
from lape.options import Options, Positive, keywords_of
from lape.progress import Progress, each, shown
from lape.signs import many

KEY = "LAPE_SERVER_KEY"
"""The environment variable that holds the server's key, if it wants one; the key is never written anywhere."""
SECONDS = 600.0
"""Limit of one answer: a server on a few cores takes minutes."""
Prompt: TypeAlias = str | Sequence[Mapping[str, str]]
"""A question, or a conversation whose last message is the user's."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class ServerOptions(Options):
    """How to ask a server. Always greedily: temperature 0, one seed, one request at a time."""

    base: str | None = None
    """The server's name for the model without the adapter. Default: what it says the adapter is for, or the only other model."""
    bare: bool = False
    """Send each prompt as it is, not in the model's chat template."""
    new_tokens: Positive = 32
    """At most this many new tokens per answer."""
    remote: bool = False
    """Allow a server on another machine: the prompts, and the key if there is one, are sent there."""


@dataclass(frozen=True)
class Engine:
    """What runs behind an address."""

    name: str
    load: str
    """How to load an adapter."""
    remedy: str
    """What to do if it answers as if there were no adapter."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """What each request needs so that the answer depends only on model, adapter and prompt."""
    penalty: str = ""
    """The field of the repetition penalty. Engines that have one also accept fields of the chat template."""


def vllm_options(rank: int | str, name: str, folder: str) -> str:
    """Return vLLM's options for one adapter of a rank that vLLM allows.

    `--max-loras` is one more than there are adapters: on a CPU, vLLM 0.32 computes requests for the base that share a batch with others with the
    adapter in the last slot (its pull request 48421).
    """
    return f"--enable-lora --max-loras 2 --max-lora-rank {rank} --lora-modules {name}={folder}"


VLLM = Engine(
    "vLLM",
    f"vllm serve MODEL {vllm_options('RANK', 'NAME', 'FOLDER')}",
    "start it without --lora-target-modules, or with all target_modules of the adapter: it ignores modules that are left out",
    {"repetition_penalty": 1.0},  # else the default of the model's generation_config.json
    "repetition_penalty",
)
SGLANG = Engine(
    "SGLang",
    "python -m sglang.launch_server --model-path MODEL --enable-lora --lora-paths NAME=FOLDER --max-lora-rank RANK",
    "name BASE:NAME in requests, since the base answers to any other name; start it with --lora-target-modules all",
    {"repetition_penalty": 1.0},
    "repetition_penalty",
)
LLAMA = Engine(
    "llama.cpp",
    "llama-server -m MODEL.gguf --lora ADAPTER.gguf --lora-init-without-apply --no-cache-prompt",
    'put "lora": [{"id": ID, "scale": 1.0}] into requests, which versions before 2025 do not know',
    {"cache_prompt": False, "repeat_penalty": 1.0},  # a cached prompt was computed with whatever adapter came first
    "repeat_penalty",
)
OTHER = Engine(
    "an OpenAI-compatible server",
    "the steps in its documentation; transformers serve takes a folder that holds the base's files (links are enough), adapter_config.json and "
    "adapter_model.safetensors",
    "look in its log for whether it loaded the adapter, and under which name; transformers serve needs peft, without which it loads the base",
)
_OWNERS = {"vllm": VLLM, "sglang": SGLANG, "llamacpp": LLAMA}
"""`owned_by` of the models that a server lists -> its engine."""


@dataclass(frozen=True)
class Model:
    """A model, or an adapter, that a server lists."""

    names: tuple[str, ...]
    """Its names; the first one is shown."""
    fields: Mapping[str, Any]
    """The fields of a request that asks for it."""
    is_adapter: bool = False
    base: str | None = None
    """The model that an adapter is for, if the server says so."""

    @property
    def name(self) -> str:
        """The name that is shown."""
        return self.names[0]


@dataclass(frozen=True)
class Answered:
    """A server's answers to one prompt, in this order: without the adapter, with it, and without it again."""

    prompt: str
    """The question; of a conversation, its last message."""
    base: str
    adapter: str
    again: str

    @property
    def changed(self) -> bool:
        """True if the answer with the adapter is neither of those without."""
        return self.adapter not in (self.base, self.again)


@dataclass(frozen=True)
class Served:
    """A server's answers with and without an adapter."""

    url: str
    engine: Engine
    base: str
    adapter: str
    answers: tuple[Answered, ...]

    @property
    def changed(self) -> int:
        """Number of prompts whose answer the adapter changes."""
        return sum(answer.changed for answer in self.answers)

    @property
    def noise(self) -> int:
        """Number of prompts that the base itself answers in two ways."""
        return sum(answer.base != answer.again for answer in self.answers)

    def check(self) -> None:
        """Raise MismatchError unless the answers show that the server uses the adapter."""
        name, engine, of = self.adapter, self.engine, many(len(self.answers), "prompt")
        if not any(answer.base or answer.adapter for answer in self.answers):
            raise MismatchError(
                f"All answers are empty, with {name} and without it, so nothing can be compared. Give other prompts, one per line: prompts=FILE."
            )
        if not self.changed:
            raise MismatchError(
                f"{engine.name} does not use {name}, or {name} changes nothing here: the answers with it are those without it, byte for byte, on {of}. "
                f"What to try: {engine.remedy}; load it with: {engine.load}; ask for more tokens (new_tokens=64) or other prompts (prompts=FILE)."
            )
        if self.changed <= self.noise:
            raise MismatchError(
                f"The answers do not show that {engine.name} uses {name}: it changes {self.changed} of {of}, and without it the server answers "
                f"{self.noise} in two ways. Ask while it serves nobody else, ask more prompts (prompts=FILE), or use a number format that rounds less, "
                "such as float32."
            )


@dataclass(frozen=True)
class AskArguments(ServerOptions):
    """What `ask_server` takes besides an address, an adapter and prompts."""

    progress: Progress = shown
    """Called with what is being done, how much of it is done, and of how much."""


@keywords_of(AskArguments)
def ask_server(url: str, adapter: str, prompts: Sequence[Prompt], options: AskArguments) -> Served:
    """Ask a running server the same prompts without an adapter, with it, and without it again; `Served.check` says whether it is used.

    `url`: of vLLM, SGLang, llama.cpp's server, `transformers serve`, or another OpenAI-compatible server, such as http://127.0.0.1:8000. `adapter`: its
    name there; of llama.cpp its file's name or number. Requests are greedy, one at a time; a server may still answer a prompt in two ways (other
    requests in the batch change rounding), which the second time without the adapter shows.

    The key is read from LAPE_SERVER_KEY. Raises OptionError for a server that is on another machine (unless `remote`), does not answer, or has no
    such adapter, and MismatchError for an adapter that is for another model than `base`.

    Example:
        >>> from lape.ship.server import ask_server
        >>> try:
        ...     ask_server("http://192.0.2.1:8000", "to-fr", ["How are you?"]).check()
        ... except lape.LapeError as error:
        ...     print(error)
        The server http://192.0.2.1:8000 is not on this machine. ... Type remote=True to allow that.
    """
    if not prompts:
        raise OptionError("No prompt was given. Expected one or more, such as ['How are you?'].")
    listing = Listing.of(_endpoint(url, remote=options.remote))
    with_adapter = listing.find(adapter)
    without = listing.base_of(with_adapter, options.base)
    models = [listing.answering(model, without) for model in (without, with_adapter, without)]
    answers = []
    for prompt in each(prompts, "asking the server", options.progress):
        question = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        if options.bare:
            texts = [model.complete(question, new_tokens=options.new_tokens) for model in models]
        else:
            messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            replies = [model.answer(messages, new_tokens=options.new_tokens) for model in models]
            texts = [text or thought or "" for text, thought, _ in replies]  # it may have only thought so far
        answers.append(Answered(question, *texts))
    return Served(listing.endpoint.url, listing.engine, without.name, with_adapter.name, tuple(answers))


@dataclass(frozen=True)
class Answering:
    """A model, or an adapter on its base, that a running server answers with.

    Example:
        >>> from lape.ship.server import Answering
        >>> try:
        ...     Answering.at("http://192.0.2.1:8000")
        ... except lape.LapeError as error:
        ...     print(error)
        The server http://192.0.2.1:8000 is not on this machine. ... Type remote=True to allow that.
    """

    endpoint: Endpoint
    engine: Engine
    model: Model

    @classmethod
    def at(cls, url: str, name: str | None = None, *, remote: bool = False) -> Answering:
        """Return the model or adapter of a name; by default the only model that the server lists. Raises as `ask_server` does."""
        listing = Listing.of(_endpoint(url, remote=remote))
        plain = [model for model in listing.models if not model.is_adapter]
        if name is None and len(plain) != 1:
            raise OptionError(f"{listing} serves {_join(listing.models)}. Name the one to ask: served=NAME.")
        model = plain[0] if name is None else listing.find(name)
        return listing.answering(model, listing.base_of(model, None) if model.is_adapter else model)

    def answer(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        new_tokens: int = 100,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        repetition_penalty: float = 1.0,
        thinking: bool | None = None,
    ) -> tuple[str, str | None, bool]:
        """Answer a conversation: the answer, the thought before it if the server separates it, and whether it was cut at the number of tokens.

        `repetition_penalty`: of engines that take one in a request; others use the model's own settings. Raises OptionError if the server
        gives no usable answer, and for `thinking` if the engine has no field for it.
        """
        penalty = {self.engine.penalty: repetition_penalty} if self.engine.penalty else {}
        if thinking is not None and not penalty:
            raise OptionError(
                f"thinking is {thinking}, and a request to {self.engine.name} has no field for it. Leave it out, or set it in the server."
            )
        template = {} if thinking is None else {"chat_template_kwargs": {"enable_thinking": thinking}}
        sampling: dict[str, Any] = {"temperature": temperature, "seed": seed, "max_tokens": new_tokens}
        sampling |= {"top_p": top_p} if top_p < 1 else {}  # some engines refuse a field that has no effect

        def read(choice: Any) -> tuple[str, str | None, bool]:
            message = choice["message"]
            thought = _text_of(message.get("reasoning_content") or message.get("reasoning"))
            return _text_of(message["content"]), thought or None, choice.get("finish_reason") == "length"

        return self._ask("/v1/chat/completions", {**penalty, **template, **sampling, "messages": list(messages)}, read)

    def complete(self, prompt: str, *, new_tokens: int) -> str:
        """Continue a text greedily. Raises OptionError if the server gives no usable answer."""
        body = {"prompt": prompt, "temperature": 0, "seed": 0, "max_tokens": new_tokens}
        return self._ask("/v1/completions", body, lambda choice: _text_of(choice["text"]))

    def _ask(self, path: str, body: Mapping[str, Any], read: Callable[[Any], _T]) -> _T:
        """Read the first completion."""
        try:
            reply = self.endpoint.post(path, {**self.model.fields, **self.engine.fields, **body})
            return read(reply["choices"][0])
        except Unanswered as error:
            raise _unusable(self.endpoint, f"POST {path} for {self.model.name}", error) from error
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise OptionError(
                f"The server at {self.endpoint.url} answers POST {path} for {self.model.name} with something else than a completion. Expected text, "
                "or a list of parts with text, in choices[0]. Look in its log."
            ) from error


@dataclass(frozen=True)
class Listing:
    """The models and adapters that a server lists."""

    endpoint: Endpoint
    engine: Engine
    models: Sequence[Model]

    def __str__(self) -> str:
        return f"The server at {self.endpoint.url} ({self.engine.name})"

    @classmethod
    def of(cls, endpoint: Endpoint) -> Listing:
        """Ask a server for its models and adapters. Raises OptionError if it does not list any."""
        try:
            listed = [(str(entry["id"]), entry) for entry in endpoint.get("/v1/models")["data"]]
        except Unanswered as error:
            raise _unusable(endpoint, "GET /v1/models", error) from error
        except (KeyError, TypeError) as error:
            raise OptionError(
                f"The server at {endpoint.url} does not list models as OpenAI's interface does (GET /v1/models). Expected the address of vLLM, SGLang, "
                "llama.cpp's server or transformers serve, such as http://127.0.0.1:8000."
            ) from error
        parents = {name: _text_or_none(entry.get("parent")) for name, entry in listed}
        models = [Model((name,), {"model": name}, parents[name] is not None, parents[name]) for name, entry in listed]
        engine = next((_OWNERS[owner] for _, entry in listed if (owner := str(entry.get("owned_by"))) in _OWNERS), None)
        loras = _get(endpoint, "/lora-adapters") if engine in (None, LLAMA) else None
        if isinstance(loras, list) and all(
            isinstance(lora, dict) and isinstance(lora.get("id"), int) for lora in loras
        ):
            return cls(endpoint, LLAMA, _with_loras(models, loras))
        return cls(endpoint, engine or OTHER, models)

    def find(self, name: str) -> Model:
        """Find the model or adapter of a name. Raises OptionError if there is none, or more than one."""
        matches = [model for model in self.models if name in model.names]
        if len(matches) == 1:
            return matches[0]
        if len(matches) > 1:
            raise OptionError(
                f"{name} names {len(matches)} adapters of the server at {self.endpoint.url}: {_join(matches)}. Name one by its path or number."
            )
        if self.engine is OTHER:  # it may load what a request names
            return Model((name,), {"model": name})
        adapters = [model for model in self.models if model.is_adapter]
        has = f"Its adapters: {_join(adapters)}" if adapters else f"It has none; its models: {_join(self.models)}"
        raise OptionError(f"{self} has no adapter {name}. {has}. Load one with: {self.engine.load}.")

    def base_of(self, adapter: Model, base: str | None) -> Model:
        """Find the model without the adapter. Raises OptionError if it is unclear, and MismatchError if the adapter is for another."""
        others = [model for model in self.models if not model.is_adapter and model.name != adapter.name]
        wanted = next((model for model in self.models if model.name == (base or adapter.base)), None)
        if wanted is None and base is None and len(others) == 1:
            wanted = others[0]
        if wanted is None and base is not None and self.engine is OTHER:
            wanted = Model((base,), {"model": base})
        if wanted is None:
            has = f"no model {base}" if base else f"{len(others)} models that may be the one without {adapter.name}"
            raise OptionError(
                f"{self} has {has}. It serves: {_join(others)}. Name the model without the adapter: base=NAME."
            )
        if wanted.name == adapter.name:
            raise OptionError(f"base and adapter are both {base}. Name the model without the adapter: base=NAME.")
        right = next((model for model in self.models if model.name == adapter.base), wanted)
        if right.name != wanted.name:
            raise MismatchError(
                f"The server at {self.endpoint.url} has {adapter.name} as an adapter of {right.name}, not of {wanted.name}. Type base={right.name}, "
                "or leave it out."
            )
        return wanted

    def answering(self, model: Model, base: Model) -> Answering:
        """Return what answers requests for a model, or for an adapter on its base."""
        fields = {**base.fields, **model.fields}
        if self.engine is SGLANG and model is not base:
            fields["model"] = f"{base.name}:{model.name}"
        return Answering(self.endpoint, self.engine, replace(model, fields=fields))


def _endpoint(url: str, *, remote: bool) -> Endpoint:
    """Check a server's address. Raises OptionError for one that is not allowed."""
    with foreign(OptionError, lambda said: f"{url} is not the address of a server: {said}."):
        parts = urlsplit(url)
    plain = parts.username is None and not parts.query and not parts.fragment
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
        raise OptionError(
            f"{url.partition('?')[0].rpartition('@')[2]} is not the address of a server. Expected one without user, query or fragment, such as "
            f"http://127.0.0.1:8000. Give a key in {KEY}."
        )
    endpoint = Endpoint(url.rstrip("/").removesuffix("/v1"), KEY, seconds=SECONDS)
    if not (endpoint.local or remote):
        raise OptionError(
            f"The server {url} is not on this machine. The prompts would be sent there, and {KEY} where it is set. Type remote=True to allow that."
        )
    return endpoint


def _get(endpoint: Endpoint, path: str) -> Any:
    """Ask for what only some engines have; None from the others."""
    try:
        return endpoint.get(path)
    except Unanswered:
        return None


def _with_loras(models: Sequence[Model], loras: Sequence[Mapping[str, Any]]) -> list[Model]:
    """Add the adapters of llama.cpp's server, each with all others off; its models answer with all of them off."""

    def scales(on: object) -> list[dict[str, Any]]:
        return [{"id": lora["id"], "scale": 1.0 if lora["id"] == on else 0.0} for lora in loras]

    base = models[0].name if len(models) == 1 else None
    adapters = []
    for lora in loras:
        path = _text_or_none(lora.get("path")) or ""
        names = dict.fromkeys(name for name in (Path(path).stem, Path(path).name, path, str(lora["id"])) if name)
        adapters.append(Model(tuple(names), {"lora": scales(lora["id"])}, True, base))
    return [*(replace(model, fields={**model.fields, "lora": scales(None)}) for model in models), *adapters]


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _text_of(content: object) -> str:
    """Return the text of a message or of its parts. Raises TypeError for anything else."""
    if isinstance(content, list) and all(part["type"] == "text" for part in content):
        content = "".join(part["text"] for part in content)
    if content is not None and not isinstance(content, str):
        raise TypeError("it is not text")
    return content or ""


def _unusable(endpoint: Endpoint, what: str, error: Unanswered) -> OptionError:
    """Say why a server's answer is of no use, and what to type."""
    if error.status is None:
        hint = "Start it, wait until it has loaded its model, or check the address"
    elif error.status in (401, 403):
        hint = f"Give its key in the environment: export {KEY}=…"
    elif error.status == 200:
        hint = "Expected the address of vLLM, SGLang, llama.cpp's server or transformers serve, such as http://127.0.0.1:8000"
    elif "chat" in what:
        hint = "If the model has no chat template, send prompts as they are: bare=True. Else its log says whether it took the adapter's rank and modules"
    else:
        hint = "Look in its log for the model, and for the adapter's rank and modules"
    return OptionError(f"The server at {endpoint.url} could not be used ({what}): {error.why.rstrip('.')}. {hint}.")


def _join(models: Sequence[Model], most: int = 12) -> str:
    """List the first few names."""
    names = [model.name for model in models]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "none"
