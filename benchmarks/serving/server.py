"""A server on loopback: started with adapters, asked, and stopped with all that it started."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines import Engine
from materials import Materials

STARTS = 600
ANSWERS = 600


@dataclass(frozen=True)
class Answer:
    """What a server wrote."""

    text: str
    tokens: int
    """How many new tokens, as the server counts them."""
    first: float
    """Seconds until the first piece."""
    seconds: float


@dataclass(frozen=True)
class Server:
    """A running server."""

    engine: Engine
    made: Materials
    port: int

    def ask(self, name: str, prompt: str, tokens: int, **more: Any) -> Answer:
        """The greedy continuation of a prompt by an adapter, or by the base, read piece by piece."""
        body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True, **more}
        body |= {"stream_options": {"include_usage": True}, **self.engine.names(self.made.adapters, name)}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        begun, first, text, counted = time.perf_counter(), 0.0, "", 0
        with urllib.request.urlopen(request, timeout=ANSWERS) as answer:
            for event in _events(answer):
                counted = (event.get("usage") or {}).get("completion_tokens", counted)
                for choice in event.get("choices", ()):
                    text += choice.get("text") or ""
                    first = first or time.perf_counter() - begun
        return Answer(text, counted, first, time.perf_counter() - begun)

    def curl(self) -> str:
        """What the page's own request is answered."""
        done = subprocess.run(self.engine.curl(self.port), capture_output=True, text=True, check=True)
        return str(json.loads(done.stdout)["choices"][0]["text"])


def _events(answer: Any) -> Iterator[dict[str, Any]]:
    """Server-sent events, as far as OpenAI's interface uses them."""
    for line in answer:
        said = line.decode().strip()
        if said.startswith("data:") and said != "data: [DONE]":
            yield json.loads(said.removeprefix("data:"))


@contextmanager
def running(engine: Engine, made: Materials) -> Iterator[Server]:
    """The engine's server, until the block ends. Raises RuntimeError where it does not start."""
    port, log = _free(), made.folder / f"{engine.name}.log"
    command, variables = engine.start(port)
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            cwd=made.folder,
            env=os.environ | variables,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that what it starts is stopped with it, and nothing else
        )
    try:
        _wait(process, port, log)
        yield Server(engine, made, port)
    finally:
        _stop(process)


def _free() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + STARTS
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    last = log.read_text(errors="replace").splitlines()[-15:]
    raise RuntimeError("\n".join((f"The server did not start. The end of {log}:", *last)))


def _stop(process: subprocess.Popen[bytes]) -> None:
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            break
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
