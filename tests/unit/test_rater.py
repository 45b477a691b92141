"""A chat model behind a real HTTP endpoint rates continuations."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from espnet_taste.bin import score_continuations as command
from espnet_taste.eval.rater import ChatRater, rate_texts, score_in
from espnet_taste.slm import perplexity
from tests.unit.test_bin_score_continuations import FakeLM


class Endpoint(BaseHTTPRequestHandler):
    """Rates by the number of words in the continuation; fails on "crash"."""

    asked = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][0]["content"]
        Endpoint.asked.append((self.path, body, self.headers["Authorization"]))
        continuation = text.split("Continuation: ")[1].split("\n")[0]
        status = 400 if "crash" in continuation else 200
        answer = f"It goes on.\nScore: {len(continuation.split())}"
        reply = {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": answer},
                }
            ],
        }
        data = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def url(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    Endpoint.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("Fine.\nScore: 4", 4),
        ("Score: 2 at first.\n**Score:** 5", 5),
        ("score - 3/5", None),
        ("Score: 7", None),
        ("Score: 3.5", None),
        ("", None),
    ],
)
def test_the_last_score_counts(answer, score):
    assert score_in(answer) == score


def test_what_was_rated_is_not_asked_again(tmp_path, url):
    rater = ChatRater(url, "judge-1")
    prompts = {"u": "once upon", "v": "they"}
    cache = tmp_path / "rater.jsonl"

    first = rate_texts(rater, prompts, {"u": "a time"}, cache, ["u"])
    again = rate_texts(rater, prompts, {"u": "a time", "v": "x"}, cache, ["u", "v"])
    changed = rate_texts(rater, prompts, {"u": "a long time"}, cache, ["u"])

    assert first["u"].score == again["u"].score == 2
    assert changed["u"].score == 3
    assert len(Endpoint.asked) == 3
    path, body, key = Endpoint.asked[0]
    assert path == "/v1/chat/completions" and key == "Bearer secret"
    assert body["model"] == "judge-1" and body["temperature"] == 0
    assert "Beginning: once upon\n" in body["messages"][0]["content"]


def test_a_failing_endpoint_keeps_what_was_rated(tmp_path, url):
    rater, cache = ChatRater(url, "judge-1"), tmp_path / "rater.jsonl"
    texts = {"u": "fine", "v": "crash"}

    with pytest.raises(ConnectionError, match="what was rated is kept"):
        rate_texts(rater, dict(u="a", v="b"), texts, cache, ["u", "v"])

    assert len(cache.read_text().splitlines()) == 1
    with pytest.raises(ValueError, match="no prompt text of 'v'"):
        rate_texts(rater, {"u": "a"}, texts, cache, ["u", "v"])


def test_the_command_reports_plausibility(tmp_path, url, monkeypatch, capsys):
    monkeypatch.setattr(perplexity, "TextLM", FakeLM)
    (tmp_path / "text").write_text("u one two\nv one two three four\n")
    (tmp_path / "before").write_text("u zero\nv zero\n")
    options = ["--llm", "some", "--text", str(tmp_path / "text")]
    options += ["--output_dir", str(tmp_path / "out")]

    assert command.main([*options, "--rater_url", url]) == 1
    assert "go together" in capsys.readouterr().err
    options += ["--rater_url", url, "--rater_model", "judge-1"]
    assert command.main([*options, "--prompt_text", str(tmp_path / "before")]) == 0

    facts = json.loads((tmp_path / "out" / "continuations.json").read_text())
    assert facts["rater"] == "judge-1"
    assert facts["ratings"]["plausibility"]["value"] == pytest.approx(3.0)
