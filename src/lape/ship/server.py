"""Whether a running server uses an adapter: the same prompts with and without it, in the manner of the engine that answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from lape.endpoint import Endpoint, Unanswered
from lape.errors import MismatchError, OptionError, foreign, passed_over, warn
from lape.options import given, positive
from lape.progress import Progress, each, shown
from lape.signs import many

KEY = "LAPE_SERVER_KEY"
"""The environment variable that holds the server's key, where it wants one; it is never written anywhere."""
SECONDS = 600.0
"""How long an answer is waited for: a server on a few cores, which gives all of it at once, takes minutes."""
FIRST = 16
"""Tokens of an answer that are compared with the local one: later ones follow from any rounding before."""
SLACK = 0.1
"""How much less the server may agree with the edited local model than with the unedited one: two dozen prompts tell no less apart."""
Prompt: TypeAlias = str | Sequence[Mapping[str, str]]
"""A question, or a conversation whose last message is the user's."""


@dataclass(frozen=True)
class ServerOptions:
    """How a server is asked. Always greedily: temperature 0, one seed, one request at a time."""

    base: str | None = None
    """The server's name for the model without the adapter. Default: what it says the adapter is for, or the only other that it serves."""
    bare: bool = False
    """Give each prompt as it is, not in the model's chat template."""
    new_tokens: int = 32
    """At most this many new tokens per answer."""
    remote: bool = False
    """Let the server be on another machine: the prompts, and the key where there is one, are sent there."""

    def __post_init__(self) -> None:
        positive(self, "new_tokens")


@dataclass(frozen=True)
class Engine:
    """What runs behind an address, told by what it answers, and its manner."""

    name: str
    load: str
    """How it is given an adapter."""
    ignored: str
    """Why it may answer as if there were none."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """What a request needs besides so that an answer depends on nothing but model, adapter and prompt."""
    kept: str = ""
    """Which of `fields` keeps it from answering out of what it has of the same prompt under another adapter; requests usually lack it."""
    penalty: str = ""
    """Which of `fields` is the repetition penalty; engines that take one in a request take fields of the chat template too."""
    joined: str = ""
    """What an adapter's name is put behind, with the base's before it; the name alone where this is empty."""


def vllm_options(rank: int | str, name: str, folder: str) -> str:
    """What vLLM is started with to serve one adapter of a rank that it allows.

    One place more than there are adapters: on a CPU, vLLM 0.32 computes requests for the base that share a batch with others with whatever lies in the
    last place (its pull request 48421).
    """
    return f"--enable-lora --max-loras 2 --max-lora-rank {rank} --lora-modules {name}={folder}"


VLLM = Engine(
    "vLLM",
    f"vllm serve MODEL {vllm_options('RANK', 'NAME', 'FOLDER')}",
    "look in its log for modules of the adapter that it does not know; start it without --lora-target-modules, or with all of the "
    "adapter's target_modules: those left out are ignored without a word",
    {"repetition_penalty": 1.0},  # else the default of the model's generation_config.json
    penalty="repetition_penalty",
)
SGLANG = Engine(
    "SGLang",
    "python -m sglang.launch_server --model-path MODEL --enable-lora --lora-paths NAME=FOLDER --max-lora-rank RANK",
    "requests must name BASE:NAME, since any other name is answered by the base without a word; start it with --lora-target-modules all",
    {"repetition_penalty": 1.0},
    penalty="repetition_penalty",
    joined=":",
)
LLAMA = Engine(
    "llama.cpp",
    "llama-server -m MODEL.gguf --lora ADAPTER.gguf --lora-init-without-apply --no-cache-prompt",
    'each request must hold "lora": [{"id": ID, "scale": 1.0}], which versions before 2025 do not know',
    {"cache_prompt": False, "repeat_penalty": 1.0},
    kept="cache_prompt",
    penalty="repeat_penalty",
)
TRANSFORMERS = Engine(
    "transformers serve",
    "transformers serve, with peft installed beside it; the model that a request names is a folder with the base's configuration, tokenizer and "
    "weights (links will do) and, beside them, adapter_config.json and adapter_model.safetensors",
    "without peft it loads such a folder's base without a word; weights that have no place in the model are left out with a warning in its log",
)
OTHER = Engine(
    "an OpenAI-compatible server",
    "what its documentation says of LoRA",
    "see that its log says that it loaded the adapter, and under which name",
)
_OWNERS = {"vllm": VLLM, "sglang": SGLANG, "llamacpp": LLAMA}
"""What an engine writes in `owned_by` of the models that it lists -> the engine."""


@dataclass(frozen=True)
class Model:
    """A model, or an adapter as a model, that a server serves."""

    called: tuple[str, ...]
    """Its names, the one for people first."""
    fields: Mapping[str, Any]
    """What a request holds to be answered by it; of an adapter, besides what it holds to be answered by its base."""
    adapter: bool = False
    """Whether the server says that it is an adapter."""
    parent: str | None = None
    """Of an adapter: the model that it is for, where the server says so."""
    path: str | None = None
    """Where it lies on the server's machine, where the server says so."""

    @property
    def name(self) -> str:
        """Its name for people."""
        return self.called[0]


@dataclass(frozen=True)
class Answered:
    """What a server answered to one prompt, in this order: without the adapter, with it, and without it again."""

    prompt: str
    """The question; of a conversation, its last message."""
    base: str
    adapter: str
    again: str
    after: str | None = None
    """Of an engine that keeps prompts: without the adapter, as requests usually are, where the adapter was the last to be asked the same."""

    @property
    def changed(self) -> bool:
        """Whether the answer with the adapter is neither of those without."""
        return self.adapter not in (self.base, self.again)

    @property
    def steady(self) -> bool:
        """Whether both answers without the adapter are the same."""
        return self.base == self.again

    @property
    def mixed(self) -> bool:
        """Whether the answer without the adapter becomes another by what the server kept of the same prompt with it."""
        return self.after not in (None, self.base, self.again)


@dataclass(frozen=True)
class Agreement:
    """How far a server's answers are those of the local model, in their first `FIRST` tokens."""

    share: float
    """Tokens before the first that differs, as a share of those of the longer answer; the mean over prompts, 0 to 1."""
    whole: int
    """Answers without a difference."""
    of: int


@dataclass(frozen=True)
class Local:
    """The model at hand, which says what the server should have said."""

    answers: Callable[[Sequence[Prompt]], tuple[list[str], list[str] | None]]
    """Prompts -> greedy answers of the unedited model and of the edited one; None where the adapter's edits are not at hand."""
    tokens: Callable[[str], Sequence[int]]
    """A text's tokens, without special ones."""


@dataclass(frozen=True)
class Served:
    """What a server answered with and without an adapter."""

    url: str
    engine: Engine
    base: str
    adapter: str
    answers: tuple[Answered, ...]
    unedited: Agreement | None = None
    """The server without the adapter beside the unedited local model."""
    edited: Agreement | None = None
    """The server with the adapter beside the edited local model."""

    @property
    def changed(self) -> int:
        """Prompts whose answer the adapter changes."""
        return sum(one.changed for one in self.answers)

    @property
    def noise(self) -> int:
        """Prompts on which the base itself gives two answers."""
        return sum(not one.steady for one in self.answers)

    @property
    def mixed(self) -> int:
        """Prompts on which the answer without the adapter depends on whether the adapter was asked before."""
        return sum(one.mixed for one in self.answers)

    @property
    def short(self) -> bool:
        """Whether the server agrees with the edited local model less than with the unedited one, by more than `SLACK`."""
        if self.unedited is None or self.edited is None:
            return False
        return self.edited.share < self.unedited.share - SLACK

    def check(self) -> None:
        """Raise MismatchError where it was not shown that the server uses the adapter."""
        name, of = self.adapter, many(len(self.answers), "prompt")
        if not any(one.base or one.adapter for one in self.answers):
            raise MismatchError(
                f"All answers are empty, with {name} and without it, so nothing can be compared. Give other prompts, one per line: prompts=FILE."
            )
        if not self.changed:
            raise MismatchError(
                f"The answers with {name} are those without it, byte for byte, on {'' if len(self.answers) == 1 else 'all '}{of}: "
                f"{self.engine.name} does not use the adapter, or it changes nothing here. What to try: {self.engine.ignored}. It is loaded by: "
                f"{self.engine.load}. To see what the adapter itself does, compare with the edited model at hand (local=MODEL and folder=FOLDER), or "
                "ask for more tokens (new_tokens=64)."
            )
        if self.changed <= self.noise:
            raise MismatchError(
                f"The answers with {name} differ from those without it on {self.changed} of {of}, and those without it differ from themselves on "
                f"{self.noise}: that {self.engine.name} uses the adapter was not shown. Ask while it serves nobody else, ask more prompts "
                "(prompts=FILE), or in a number format that rounds less, such as float32."
            )


def ask_server(
    url: str,
    adapter: str,
    prompts: Sequence[Prompt],
    *,
    base: str | None = None,
    bare: bool = False,
    new_tokens: int = 32,
    remote: bool = False,
    local: Local | None = None,
    progress: Progress = shown,
) -> Served:
    """Ask a running server the same prompts without an adapter, with it, and without it again; `Served.check` says whether it is used.

    `url`: of vLLM, SGLang, llama.cpp's server, `transformers serve`, or another server of OpenAI's interface, such as http://127.0.0.1:8000. The
    engine is told by what it answers. `adapter`: its name there; of llama.cpp its file's name or its number. Greedy, one request at a time; though
    greedy, a server may answer a prompt differently each time (other requests in the batch change rounding), which the second asking shows.
    With `local`, the answers are compared with those of the model at hand, token by token.

    The key is taken from LAPE_SERVER_KEY. Raises OptionError for a server that is on another machine (unless `remote`), does not answer, or has no
    such adapter, and MismatchError for an adapter that is for another model than `base`.

    Example:
        >>> from lape.ship.server import ask_server
        >>> try:
        ...     ask_server("http://192.0.2.1:8000", "to-fr", ["How are you?"]).check()
        ... except lape.LapeError as error:
        ...     print(error)
        The server http://192.0.2.1:8000 is not on this machine. ... Type remote=True to allow that.
    """
    options = given(ServerOptions, locals())
    if not prompts:
        raise OptionError("No prompt was given. Expected one or more, such as ['How are you?'].")
    endpoint = _endpoint(url, options)
    engine, models = served_by(endpoint)
    with_it = _adapter(endpoint, engine, models, adapter)
    without = _base(endpoint, engine, models, with_it, options)
    _compare_names(endpoint, without, with_it)
    with_it = _on(without, with_it, engine)
    answers = []
    for prompt in each(prompts, "asking the server", progress):
        first, second, third = (_answer(endpoint, engine, one, prompt, options) for one in (without, with_it, without))
        answers.append(Answered(last_of(prompt), first, second, third))
    if engine.kept:
        usual = replace(engine, fields={name: value for name, value in engine.fields.items() if name != engine.kept})
        for prompt in each(prompts, "asking the adapter once more", progress):
            _answer(endpoint, engine, with_it, prompt, options)
        after = [
            _answer(endpoint, usual, without, prompt, options)
            for prompt in each(prompts, "asking without it, as usual", progress)
        ]
        answers = [replace(one, after=said) for one, said in zip(answers, after, strict=True)]
    served = Served(endpoint.url, engine, without.name, with_it.name, tuple(answers))
    return served if local is None else _beside(served, local, prompts)


@dataclass(frozen=True)
class Answering:
    """A model, or an adapter on one, that a running server answers with, in the manner of its engine.

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
        """The model or adapter of a name at an address; by default the only model that it serves. Raises as `ask_server` does."""
        options = ServerOptions(remote=remote)
        endpoint = _endpoint(url, options)
        engine, models = served_by(endpoint)
        plain = [one for one in models if not one.adapter]
        if name is None:
            if len(plain) != 1:
                raise OptionError(
                    f"The server at {endpoint.url} ({engine.name}) serves {_listed(models)}. Name the one that is asked: served=NAME."
                )
            return cls(endpoint, engine, plain[0])
        found = _adapter(endpoint, engine, models, name)
        if found.adapter:
            found = _on(_base(endpoint, engine, models, found, options), found, engine)
        return cls(endpoint, engine, found)

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
        """What is answered to a conversation, what was thought before where the server tells it apart, and whether it was cut at the number of tokens.

        `repetition_penalty`: of engines that take one in a request; others use what the model's own settings say. Raises OptionError where the server
        gives no usable answer, and for `thinking` where its engine has no field for it.
        """
        how: dict[str, Any] = {"temperature": temperature, "seed": seed, "max_tokens": new_tokens}
        how |= {"top_p": top_p} if top_p < 1 else {}  # what says nothing some engines do not know
        penalty = {self.engine.penalty: repetition_penalty} if self.engine.penalty else {}
        if thinking is not None and not penalty:
            raise OptionError(
                f"thinking is {thinking}, and a request to {self.engine.name} has no field for it. Leave it out, or set it in the server."
            )
        template = {} if thinking is None else {"chat_template_kwargs": {"enable_thinking": thinking}}
        body = {**self.model.fields, **self.engine.fields, **penalty, **template, **how}
        choice = _choice(self.endpoint, self.model, "/v1/chat/completions", {**body, "messages": list(messages)})
        try:
            message = choice["message"]
            return _text_of(message["content"]), _thought(message) or None, choice.get("finish_reason") == "length"
        except (KeyError, TypeError, AttributeError) as error:
            raise _no_completion(self.endpoint, self.model, "/v1/chat/completions") from error


def last_of(prompt: Prompt) -> str:
    """The question; of a conversation, its last message."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def messages_of(prompt: Prompt) -> list[dict[str, str]]:
    """A prompt as a conversation."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(one) for one in prompt]


def _endpoint(url: str, options: ServerOptions) -> Endpoint:
    with foreign(OptionError, lambda said: f"{url} is not the address of a server: {said}."):
        parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise OptionError(f"{url} is not the address of a server. Expected one such as http://127.0.0.1:8000.")
    if parts.username is not None or parts.query or parts.fragment:
        raise OptionError(
            f"The address of a server is given without user, query or fragment, such as http://127.0.0.1:8000. A key is given by {KEY}."
        )
    endpoint = Endpoint(url.rstrip("/").removesuffix("/v1"), KEY, seconds=SECONDS)
    if not (endpoint.local or options.remote):
        raise OptionError(
            f"The server {url} is not on this machine. The prompts would be sent there, and {KEY} where it is set. Type remote=True to allow that."
        )
    return endpoint


def served_by(endpoint: Endpoint) -> tuple[Engine, list[Model]]:
    """The engine behind an address, and the models and adapters that it lists. Raises OptionError where it answers nothing of the kind."""
    try:
        found = endpoint.get("/v1/models")
        listed = [(str(one["id"]), one) for one in found["data"]]
    except Unanswered as error:
        raise OptionError(_unusable(endpoint, "GET /v1/models", error)) from error
    except (KeyError, TypeError) as error:
        raise OptionError(
            f"The server at {endpoint.url} does not list models as OpenAI's interface does (GET /v1/models). Expected the address of vLLM, SGLang, "
            "llama.cpp's server or transformers serve, such as http://127.0.0.1:8000."
        ) from error
    parents = {name: _text(one.get("parent")) for name, one in listed}
    models = [
        Model((name,), {"model": name}, parents[name] is not None, parents[name], _text(one.get("root")))
        for name, one in listed
    ]
    engine = next((_OWNERS[owner] for _, one in listed if (owner := str(one.get("owned_by"))) in _OWNERS), None)
    if engine in (None, LLAMA):
        loras = _loras(endpoint)
        if loras is not None:
            off = [{"id": one["id"], "scale": 0.0} for one in loras]
            models = [replace(one, fields={**one.fields, "lora": off}) for one in models]
            return LLAMA, [*models, *(_lora(one, off, models) for one in loras)]
    if engine is None:
        engine = TRANSFORMERS if "/load_model" in _routes(endpoint) else OTHER
    return engine, models


def _loras(endpoint: Endpoint) -> list[dict[str, Any]] | None:
    """What llama.cpp's server has loaded as adapters; None of another server."""
    try:
        found = endpoint.get("/lora-adapters")
    except Unanswered:
        return None
    good = isinstance(found, list) and all(isinstance(one, dict) and isinstance(one.get("id"), int) for one in found)
    return found if good else None


def _lora(one: Mapping[str, Any], off: Sequence[Mapping[str, Any]], models: Sequence[Model]) -> Model:
    """An adapter of llama.cpp's server: on by its number, all others off."""
    path = _text(one.get("path")) or ""
    names = dict.fromkeys(name for name in (Path(path).stem, Path(path).name, path, str(one["id"])) if name)
    scales = [{**other, "scale": 1.0 if other["id"] == one["id"] else 0.0} for other in off]
    return Model(tuple(names), {"lora": scales}, True, models[0].name if len(models) == 1 else None, path or None)


def _routes(endpoint: Endpoint) -> list[str]:
    """What a server of FastAPI's says that it can be asked; none of another."""
    try:
        found = endpoint.get("/openapi.json")
    except Unanswered:
        return []
    return list(found["paths"]) if isinstance(found, dict) and isinstance(found.get("paths"), dict) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _adapter(endpoint: Endpoint, engine: Engine, models: Sequence[Model], name: str) -> Model:
    """The adapter of a name. Raises OptionError where there is none, or several."""
    found = [one for one in models if name in one.called]
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        raise OptionError(
            f"{name} names {len(found)} adapters of the server at {endpoint.url}: {_listed(found)}. Name one by its path or number."
        )
    if engine is TRANSFORMERS:  # it loads what a request names
        return Model((name,), {"model": name}, path=name)
    adapters = [one for one in models if one.adapter]
    has = f"Its adapters: {_listed(adapters)}" if adapters else f"It has none; its models: {_listed(models)}"
    raise OptionError(
        f"The server at {endpoint.url} ({engine.name}) has no adapter {name}. {has}. One is loaded by: {engine.load}."
    )


def _base(endpoint: Endpoint, engine: Engine, models: Sequence[Model], adapter: Model, options: ServerOptions) -> Model:
    """The model without the adapter. Raises OptionError where it cannot be told, and MismatchError for another than the adapter is for."""
    bases = [one for one in models if not one.adapter and one.name != adapter.name]
    named = next((one for one in models if one.name == (options.base or adapter.parent)), None)
    if options.base is not None and named is None and engine is TRANSFORMERS:
        named = Model((options.base,), {"model": options.base}, path=options.base)
    if named is None and options.base is None and len(bases) == 1:
        named = bases[0]
    if named is None:
        found = (
            f"no model {options.base}"
            if options.base
            else "no model"
            if not bases
            else f"{len(bases)} models, any of which may be"
        )
        found = found if options.base or not bases else f"{found} the one without {adapter.name}"
        raise OptionError(
            f"The server at {endpoint.url} ({engine.name}) has {found}. It serves: {_listed(bases)}. Name the model without the adapter: base=NAME."
        )
    if named.name == adapter.name:
        raise OptionError(f"base and adapter are both {named.name}. Name the model without the adapter: base=NAME.")
    meant = next((one for one in models if one.name == adapter.parent), None)
    if meant is not None and meant.name != named.name and (meant.path is None or meant.path != named.path):
        raise MismatchError(
            f"The server at {endpoint.url} has {adapter.name} as an adapter of {meant.name}, not of {named.name}. Type base={meant.name}, or leave it out."
        )
    return named


def _on(base: Model, adapter: Model, engine: Engine) -> Model:
    """An adapter as a request names it that is for it and its base."""
    called = {"model": f"{base.name}{engine.joined}{adapter.name}"} if engine.joined else {}
    return replace(adapter, fields={**base.fields, **adapter.fields, **called})


def _listed(models: Sequence[Model], most: int = 12) -> str:
    """Names, the first few."""
    some = [one.name for one in models]
    return ", ".join(some[:most]) + (f" and {len(some) - most} more" if len(some) > most else "") or "none"


def _compare_names(endpoint: Endpoint, base: Model, adapter: Model) -> None:
    """Warn where the adapter lies on this machine and says that it is for a model of another name."""
    folder = Path(adapter.path) if endpoint.local and adapter.path else None
    made_for = None
    with passed_over(OSError, ValueError):
        said = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")) if folder else {}
        made_for = said.get("base_model_name_or_path") if isinstance(said, dict) else None
    names = {Path(one).name for one in (base.name, base.path) if one}
    if isinstance(made_for, str) and made_for and Path(made_for).name not in names:
        warn(
            f"The adapter {adapter.name} says that it is for {made_for}, and the server puts it on {base.path or base.name}. If this is the same model "
            "under another name, all is well; if not, its answers mean nothing."
        )


def _answer(endpoint: Endpoint, engine: Engine, model: Model, prompt: Prompt, options: ServerOptions) -> str:
    """What is answered to a prompt, as it comes."""
    body = {**model.fields, **engine.fields, "temperature": 0, "seed": 0, "max_tokens": options.new_tokens}
    path = "/v1/completions" if options.bare else "/v1/chat/completions"
    asked = {"prompt": last_of(prompt)} if options.bare else {"messages": messages_of(prompt)}
    choice = _choice(endpoint, model, path, {**body, **asked})
    try:
        if options.bare:
            return _text_of(choice["text"])
        return _text_of(choice["message"]["content"]) or _thought(choice["message"])  # it may have only thought so far
    except (KeyError, TypeError, AttributeError) as error:
        raise _no_completion(endpoint, model, path) from error


def _choice(endpoint: Endpoint, model: Model, path: str, body: Mapping[str, Any]) -> Any:
    """The first completion that a server gives. Raises OptionError where it gives none."""
    try:
        return endpoint.post(path, body)["choices"][0]
    except Unanswered as error:
        raise OptionError(_unusable(endpoint, f"POST {path} for {model.name}", error)) from error
    except (KeyError, IndexError, TypeError) as error:
        raise _no_completion(endpoint, model, path) from error


def _no_completion(endpoint: Endpoint, model: Model, path: str) -> OptionError:
    return OptionError(
        f"The server at {endpoint.url} answers POST {path} for {model.name} with something else than a completion. Expected text, or a list of parts "
        "with text, in choices[0]. Look in its log."
    )


def _text_of(content: object) -> str:
    """The text of a message: as it is, or of its parts, as OpenAI's interface allows. Raises TypeError for anything else."""
    if isinstance(content, list) and all(part["type"] == "text" for part in content):
        return "".join(part["text"] for part in content)
    if content is not None and not isinstance(content, str):
        raise TypeError("it is not text")
    return content or ""


def _thought(message: Mapping[str, Any]) -> str:
    """What a model thought before it answered, where the server tells it apart."""
    return _text_of(message.get("reasoning_content") or message.get("reasoning"))


def _unusable(endpoint: Endpoint, what: str, error: Unanswered) -> str:
    """A paragraph for a server that does not answer: why, and what to type."""
    if error.status is None:
        hint = "Start it, wait until it has loaded its model, or check the address"
    elif error.status in (401, 403):
        hint = f"Give its key in the environment: export {KEY}=…"
    elif error.status == 200:
        hint = "Expected the address of vLLM, SGLang, llama.cpp's server or transformers serve, such as http://127.0.0.1:8000"
    elif "chat" in what:
        hint = "Of a model without a chat template, ask for prompts as they are: bare=True. Of an adapter, its log says whether rank and modules were taken"
    else:
        hint = "Look in its log: it says whether the model, and an adapter's rank and modules, were taken"
    why = error.why.rstrip(".")
    return f"The server at {endpoint.url} could not be used ({what}): {why}. {hint}."


def _beside(served: Served, local: Local, prompts: Sequence[Prompt]) -> Served:
    """The same, compared with the model at hand."""
    unedited, edited = local.answers(prompts)
    pairs = [(one.base, said) for one, said in zip(served.answers, unedited, strict=True)]
    changed = (
        None if edited is None else [(one.adapter, said) for one, said in zip(served.answers, edited, strict=True)]
    )
    return replace(
        served,
        unedited=agreement(pairs, local.tokens),
        edited=None if changed is None else agreement(changed, local.tokens),
    )


def agreement(pairs: Sequence[tuple[str, str]], tokens: Callable[[str], Sequence[int]]) -> Agreement:
    """How far two answers to each prompt agree in their first `FIRST` tokens; white space around an answer does not count.

    Example:
        >>> from lape.ship.server import agreement
        >>> agreement([("a b c d", "a b c d"), ("a b c d", "a b x")], lambda text: [ord(word) for word in text.split()])
        Agreement(share=0.75, whole=1, of=2)
    """
    shares = []
    for pair in pairs:
        a, b = (list(tokens(text.strip()))[:FIRST] for text in pair)
        longer = max(len(a), len(b))
        same = next(
            (at for at, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b))
        )
        shares.append(same / longer if longer else 1.0)
    return Agreement(sum(shares) / max(1, len(shares)), sum(one == 1 for one in shares), len(shares))
