"""A server on loopback that answers as an engine does: how it lists models and adapters, how a request names one, and what it ignores."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

BASE, ADAPTER = "org/base", "to-fr"
ENGINES = ("vllm", "sglang", "llamacpp", "transformers", "other")
Reply = tuple[int, Any]


def said(text: str, *, chat: bool) -> dict[str, Any]:
    """A completion."""
    return {"choices": [{"message": {"role": "assistant", "content": text}} if chat else {"text": text}]}


@dataclass
class Fake:
    """What the server does, and what it was asked."""

    engine: str = "vllm"
    uses: Callable[[str], bool] = lambda _: True
    """Prompt -> whether the adapter acts where a request asks for it."""
    says: Callable[[str, bool], str] = lambda prompt, acts: f"{'réponse à' if acts else 'answer to'} {prompt}"
    """Prompt, and whether the adapter acts -> the answer."""
    noise: Callable[[str, int], str] | None = None
    """What is added to an answer: of the prompt, and how many requests came before."""
    extra: tuple[Mapping[str, Any], ...] = ()
    """More models that it lists."""
    loras: tuple[str, ...] = ("adapters/to-fr.gguf", "adapters/to-de.gguf")
    replies: Mapping[str, Any] = field(default_factory=dict)
    """Path -> (status, JSON), or bytes that are sent as they are, in place of its own."""
    drips: float = 0.0
    """Seconds between single bytes that follow bytes of `replies`, for as long as the other side listens; 0: none follow."""
    url: str = ""
    seen: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)

    def get(self, path: str) -> Reply:
        """What is read."""
        if path == "/v1/models":
            owner = {"transformers": "org", "other": "someone"}.get(self.engine, self.engine)
            base = {"id": BASE, "object": "model", "owned_by": owner, "parent": None}
            one = {
                "id": ADAPTER,
                "object": "model",
                "owned_by": owner,
                "parent": None if self.engine == "other" else BASE,
            }
            listed = [base] if self.engine in ("llamacpp", "transformers") else [base, one]
            return 200, {"object": "list", "data": [*listed, *self.extra]}
        if path == "/lora-adapters" and self.engine == "llamacpp":
            return 200, [{"id": at, "path": one, "scale": 0.0} for at, one in enumerate(self.loras)]
        return 404, {"detail": "Not Found"}

    def post(self, path: str, body: dict[str, Any]) -> Reply:
        """What is answered."""
        chat = path == "/v1/chat/completions"
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        known = {BASE, ADAPTER} | {str(one["id"]) for one in self.extra}
        if self.engine == "vllm" and body["model"] not in known:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist.", "code": 404}}
        known = {"model", "messages", "prompt", "temperature", "seed", "max_tokens"}
        if self.engine == "transformers" and set(body) - known:
            return 422, {"detail": "Unexpected fields in the request"}
        acts = self.asked_for(body) and self.uses(prompt)
        answer = self.says(prompt, acts)
        answer = answer + self.noise(prompt, len(self.seen)) if self.noise else answer
        return 200, said(answer, chat=chat)

    def asked_for(self, body: dict[str, Any]) -> bool:
        """Whether a request is for the adapter, in this engine's manner."""
        if self.engine == "llamacpp":
            return {"id": 0, "scale": 1.0} in body.get("lora", ())
        return body["model"] == (f"{BASE}:{ADAPTER}" if self.engine == "sglang" else ADAPTER)


@contextmanager
def serving(fake: Fake) -> Iterator[Fake]:
    """The server, while inside."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer({})

        def do_POST(self) -> None:
            self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def answer(self, body: dict[str, Any]) -> None:
            reply = fake.replies.get(self.path)
            if reply is None:
                reply = fake.post(self.path, body) if self.command == "POST" else fake.get(self.path)
            fake.seen.append((self.path, body, dict(self.headers)))
            if isinstance(reply, bytes):
                with suppress(OSError):  # whoever asked has gone
                    self.wfile.write(reply)
                    while fake.drips:
                        self.wfile.write(b" ")
                        time.sleep(fake.drips)
                return
            status, value = reply
            data = json.dumps(value).encode()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
