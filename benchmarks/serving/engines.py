"""The engines: how each is started and asked as docs/howto-serving.md says it, and how a request there names an adapter."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests"))

from support.pages import Block, blocks, words  # noqa: E402

PAGE = "docs/howto-serving.md"
BASE = "base"
"""How the unedited model is called."""
_MARK = "run by make serve-test: "
_VARIABLE = re.compile(r"[A-Z_]+=.*")


@dataclass(frozen=True)
class Engine:
    """An engine that is installed in an environment of its own."""

    name: str
    environment: Path
    endless: ClassVar[Mapping[str, Any]] = {"ignore_eos": True}
    """What a request holds to be answered with all the tokens that it asks for, where the engine knows that."""

    def names(self, adapters: Sequence[str], name: str) -> dict[str, Any]:
        """What a request says to be answered by an adapter, or by the base."""
        raise NotImplementedError

    def start(self, port: int) -> tuple[list[str], Mapping[str, str]]:
        """The page's command or program that starts the server, at a port, and the variables that are set for it."""
        block = self._blocks()[0]
        if block.language == "python":
            return [self._installed("python"), "-c", _at(block.text, port)], {}
        found = words(_at(block.commands()[0], port))
        count = next(k for k, word in enumerate(found) if not _VARIABLE.fullmatch(word))
        program, *options = found[count:]
        return [self._installed(program), *options], dict(word.split("=", 1) for word in found[:count])

    def curl(self, port: int) -> list[str]:
        """The page's request."""
        return words(_at(self._blocks()[-1].commands()[-1], port))

    def _blocks(self) -> list[Block]:
        return [block for block in blocks(PAGE) if block.mark == f"{_MARK}{self.name}"]

    def _installed(self, program: str) -> str:
        return str(self.environment / "bin" / program)


class Named(Engine):
    """vLLM: an adapter is a model of its own name."""

    def names(self, adapters: Sequence[str], name: str) -> dict[str, Any]:
        return {"model": name}


class Scaled(Engine):
    """llama.cpp: a request says the scale of each adapter; those that it does not name have 0."""

    def names(self, adapters: Sequence[str], name: str) -> dict[str, Any]:
        scale = float(name != BASE)
        return {"lora": [{"id": adapters.index(name) if scale else 0, "scale": scale}]}


class Folders(Engine):
    """transformers serve: no adapters, but each folder with a model that a request names."""

    endless: ClassVar[Mapping[str, Any]] = {}

    def names(self, adapters: Sequence[str], name: str) -> dict[str, Any]:
        return {"model": f"./{name}" if name == BASE else f"./{name}-checkpoint"}


ENGINES: Mapping[str, type[Engine]] = {"vllm": Named, "llamacpp": Scaled, "transformers": Folders}


def _at(text: str, port: int) -> str:
    """The page's ports are those that engines have by themselves; here a free one."""
    return re.sub(r"\b80[08]0\b", str(port), text)
