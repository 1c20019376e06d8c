"""A Hub of our own on loopback: as much of the Hugging Face Hub as huggingface_hub asks for to push a folder and to fetch it."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
from huggingface_hub import constants

TOKEN = "hf_planted"


class Hub:
    """Its repositories: name -> commits, each (id, path -> content). `down`: the paths that are answered with 501."""

    def __init__(self) -> None:
        self.repositories: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.private: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.down: tuple[str, ...] = ()
        self.meanwhile: list[Any] = []
        """Called, each once, when a commit comes, before it is looked at."""

    def put(self, name: str, files: dict[str, bytes]) -> None:
        """Another commit, as if somebody had pushed it."""
        commits = self.repositories.setdefault(name, [])
        said = json.dumps([len(commits), name, {k: hashlib.sha1(v).hexdigest() for k, v in files.items()}])
        commits.append((hashlib.sha1(said.encode()).hexdigest(), dict(files)))

    def files(self, name: str) -> dict[str, bytes]:
        """What a repository holds now."""
        return self.repositories[name][-1][1]

    def commit(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commits = self.repositories.get(name, [])
        return commits[-1] if revision == "main" and commits else next((c for c in commits if c[0] == revision), None)


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def do_GET(self) -> None:
            self._answer()

        do_HEAD = do_POST = do_GET

        def _answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append((self.command, path))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if any(word in path for word in hub.down):
                return self._send(501, {"error": "it is down"})  # 500 is tried again for a while
            if path == "/api/validate-yaml":
                return self._send(200, {"warnings": [], "errors": []})
            parts = path.strip("/").split("/")
            known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            if path == "/api/repos/create":
                return self._create(json.loads(body), known)
            if parts[:2] == ["api", "models"] and len(parts) >= 4:
                return self._api("/".join(parts[2:4]), parts[4:], body, known)
            if len(parts) > 4 and parts[2] == "resolve":
                return self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]), known)
            return self._send(404, {"error": path})

        def _create(self, said: dict[str, Any], known: bool) -> None:
            name = f"{said['organization']}/{said['name']}"
            if not known:
                return self._send(401, {"error": "Invalid username or password."})
            if said["organization"] == "others":
                return self._send(403, {"error": "You don't have the rights to create a model under this namespace"})
            if name in hub.repositories:
                return self._send(409, {"error": "You already created this model repo"})
            hub.put(name, {".gitattributes": b""})
            if said.get("visibility") == "private":
                hub.private.add(name)
            return self._send(200, {"url": f"{_address(self.server)}/{name}", "name": name, "id": name})

        def _api(self, name: str, rest: list[str], body: bytes, known: bool) -> None:
            if "Authorization" in self.headers and not known:
                return self._send(
                    401,
                    {"error": "Invalid credentials"},
                    **{"X-Error-Message": "Invalid credentials in Authorization header"},
                )
            if name not in hub.repositories or (name in hub.private and not known):
                return self._send(404, {"error": "Repository not found"}, **{"X-Error-Code": "RepoNotFound"})
            what, revision = (rest + ["revision", "main"][len(rest) :])[:2]
            found = hub.commit(name, revision)
            if found is None:
                return self._send(404, {"error": "Invalid rev id"}, **{"X-Error-Code": "RevisionNotFound"})
            sha, held = found
            if what == "revision":
                siblings = [{"rfilename": file} for file in held]
                private = name in hub.private
                return self._send(
                    200,
                    {
                        "id": name,
                        "sha": sha,
                        "private": private,
                        "siblings": siblings,
                        "tags": [],
                        "downloads": 0,
                        "likes": 0,
                    },
                )
            if what == "tree":
                tree = [
                    {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for file, content in held.items()
                ]
                return self._send(200, tree)
            if what == "preupload":
                asked = json.loads(body)["files"]
                modes = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked]
                return self._send(200, {"files": modes})
            if what == "commit":
                return self._commit(name, body, known)
            return self._send(404, {"error": what})

        def _commit(self, name: str, body: bytes, known: bool) -> None:
            if not known:
                return self._send(401, {"error": "Invalid username or password."})
            while hub.meanwhile:
                hub.meanwhile.pop()()
            sha, held = hub.repositories[name][-1]
            files = dict(held)
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "header" and value.get("parentCommit", sha) != sha:
                    return self._send(412, {"error": "A commit has happened since. Please refresh and try again."})
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                if line["key"] == "deletedFile":
                    del files[value["path"]]
            hub.put(name, files)
            new = hub.repositories[name][-1][0]
            return self._send(200, {"commitUrl": f"{_address(self.server)}/{name}/commit/{new}", "commitOid": new})

        def _resolve(self, name: str, revision: str, file: str, known: bool) -> None:
            found = None if name in hub.private and not known else hub.commit(name, revision)
            if found is None or file not in found[1]:
                return self._send(404, {"error": "Entry not found"}, **{"X-Error-Code": "EntryNotFound"})
            content = found[1][file]
            return self._send(
                200, content, **{"X-Repo-Commit": found[0], "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
            )

        def _send(self, status: int, answer: Any, **headers: str) -> None:
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    return Handler


def _address(server: Any) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


@contextmanager
def fake_hub(cache: Path) -> Iterator[Hub]:
    """While inside, huggingface_hub asks a Hub of our own, with a token of its, and keeps what it fetches in `cache`."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    address = _address(server)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("HF_TOKEN", TOKEN)
        patch.setattr(constants, "ENDPOINT", address)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        huggingface_hub.close_session()
        try:
            yield hub
        finally:
            server.shutdown()
            server.server_close()
            huggingface_hub.close_session()
