"""A server of completions with a model behind it, as vLLM answers, and what a server can do instead of answering."""

import contextlib
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

CONTEXT = 48
Write = Callable[[BaseHTTPRequestHandler], None]


class Server(ThreadingHTTPServer):
    """Completions of a model; ``script`` holds what the next requests get instead of an answer."""

    daemon_threads = True

    def __init__(self, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.model, self.tokenizer = model, tokenizer
        self.script: list[Write] = []
        self.edit: Callable[[dict[str, Any]], Any] = lambda answer: answer
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @torch.no_grad()
    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """As vLLM answers, one thread at a time."""
        chat = path.endswith("/chat/completions")
        prompt = body["messages"][0]["content"] if chat else body["prompt"]
        ids = self.tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else prompt
        whole = ids
        for _ in range(body["max_tokens"]):
            logits = self.model(torch.tensor([whole])).logits[0]
            whole = [*whole, int(logits[-1].argmax())]
            if whole[-1] == self.tokenizer.eos_token_id:
                break
        text = self.tokenizer.decode(whole[len(ids) :], skip_special_tokens=True)
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
        for stop in body.get("stop", []):
            text = text.partition(stop)[0]
        if chat:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        if body.get("echo"):
            log_probs = self.model(torch.tensor([whole])).logits[0].log_softmax(-1)
            names = [self.tokenizer.decode([token]) for token in whole]
            values, best = [float(log_probs[n, token]) for n, token in enumerate(whole[1:])], log_probs.max(-1)
            tops = [{f"token {int(i)}": float(v)} for v, i in zip(best.values[:-1], best.indices[:-1], strict=True)]
            choice["logprobs"] = {
                "tokens": names,
                "token_logprobs": [None, *values],
                "top_logprobs": [
                    None,
                    *({name: v, **top} for name, v, top in zip(names[1:], values, tops, strict=True)),
                ],
            }
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(whole) - len(ids)}
        return {"choices": [choice], "usage": usage}


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        with self.server.lock:
            script = self.server.script.pop(0) if self.server.script else None
        listed = [{"id": "tiny", "max_model_len": CONTEXT + 2}, {"id": "other"}]
        (script or send(200, {"data": listed}))(self)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(body)
            self.server.keys.add(self.headers.get("Authorization"))
            script = self.server.script.pop(0) if self.server.script else None
            answer = None if script else self.server.edit(self.server.answer(self.path, body))
        (script or send(200, answer))(self)

    def log_message(self, *_: Any) -> None:
        """Nothing goes to the terminal."""


def send(status: int, body: Any, length: int = 0, **headers: str) -> Write:
    """Write an answer; ``length`` more bytes are promised than come."""
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()

    def write(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data) + length))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)
        handler.close_connection = bool(length)

    return write


def trickle(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then, so that no single wait is long."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(30):
            handler.wfile.write(b" ")
            time.sleep(0.05)


def hang(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(0.5)
    handler.close_connection = True


def drop(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
