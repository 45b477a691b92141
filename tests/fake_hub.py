"""A model hub on this machine: one repository, as much of the protocol as we use."""

import hashlib
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from espnet_taste.weights import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def ask_only(monkeypatch, endpoint: str) -> None:
    """Let huggingface_hub, which is imported already, ask one address and no other."""
    from huggingface_hub import constants

    template = constants.HUGGINGFACE_CO_URL_TEMPLATE
    path = template.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + path)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_unreachable", {})


class FakeHub:
    """Serves one repository; ``endpoint`` is its address, ``asked`` what was asked."""

    def __init__(self, name: str, files: Mapping[str, bytes]):
        self.name = name
        self.files = dict(files)
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self, has_body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, has_body=False)

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> "FakeHub":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request: BaseHTTPRequestHandler, *, has_body: bool) -> None:
        """Answer one request: information, list of files, or a file."""
        path = request.path.split("?")[0]
        self.asked.append(f"{request.command} {path}")
        headers = {"X-Repo-Commit": COMMIT}
        if path.startswith(f"/api/models/{self.name}/tree/"):
            body = json.dumps([self._tree_entry(name) for name in self.files]).encode()
        elif path.startswith(f"/api/models/{self.name}"):
            siblings = [{"rfilename": name} for name in self.files]
            information = {"id": self.name, "sha": COMMIT, "siblings": siblings}
            body = json.dumps({**information, "tags": []}).encode()
        elif path.startswith(f"/{self.name}/resolve/"):
            file = path.removeprefix(f"/{self.name}/resolve/").split("/", 1)[1]
            body = self.files[file]
            headers["ETag"] = f'"{hashlib.sha256(body).hexdigest()}"'
        else:
            request.send_response(404)
            request.send_header("X-Error-Code", "RepoNotFound")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(200)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(key, value)
        request.end_headers()
        if has_body:
            request.wfile.write(body)

    def _tree_entry(self, name: str) -> dict[str, object]:
        body = self.files[name]
        digest = hashlib.sha256(body).hexdigest()
        large = {"lfs": {"oid": digest, "size": len(body), "pointerSize": 130}}
        entry = {"type": "file", "path": name, "size": len(body), "oid": digest[:40]}
        return {**entry, **(large if name.endswith((".safetensors", ".bin")) else {})}
