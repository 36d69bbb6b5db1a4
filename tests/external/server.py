"""A real HTTP server on loopback: a tiny model's log-probabilities, said in the manner of each engine.

`faults` are used up, one a request: what the server does instead of answering well.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from tests.tiny import logits

DEEP = b"[" * 100_000  # JSON deeper than Python's stack


class Engine:
    """A model behind the three dialects, written from the engines' sources, not from what reads them."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.faults: list[str] = []
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.adds_bos = False  # llama-cpp-python: what the GGUF file says of its tokenizer
        self.spoil = lambda answer: answer  # of a good answer
        self.headers: dict[str, str] = {}  # of the last request
        self.delay_s = 0.0

    def table(self, ids: list[int]) -> torch.Tensor:
        """Row i: log-probabilities of what stands behind token i, (num_tokens, vocabulary)."""
        return torch.log_softmax(logits(self.model, torch.tensor([ids]))[0].float(), dim=-1)

    def vllm(self, body: dict[str, Any]) -> dict[str, Any]:
        ids = body["prompt"]
        listed: list[Any] = [None]
        for token, row in zip(ids[1:], self.table(ids), strict=False):
            rank = int((row > row[token]).sum()) + 1
            listed.append({str(token): {"logprob": row[token].item(), "rank": rank, "decoded_token": "?"}})
        assert body["prompt_logprobs"] == 0
        return {"object": "text_completion", "choices": [{"text": "w1", "prompt_logprobs": listed}]}

    def sglang(self, body: dict[str, Any]) -> dict[str, Any]:
        ids, table = body["input_ids"], self.table(body["input_ids"])
        assert body["return_logprob"] is True
        assert body["logprob_start_len"] == 0
        own = [[None, ids[0], None], *([table[i, t].item(), t, None] for i, t in enumerate(ids[1:]))]
        best = [[[row.max().item(), int(row.argmax()), None]] for row in table[:-1]]
        return {"text": "", "meta_info": {"input_token_logprobs": own, "input_top_logprobs": [None, *best]}}

    def llama_cpp_python(self, body: dict[str, Any]) -> dict[str, Any]:
        """As _create_completion: with `echo` token i of the list is paired with row i, the BOS taken off the list."""
        assert isinstance(body["prompt"], str), "422: it takes text alone"
        bos = self.tokenizer.bos_token_id
        prompt = [bos] * self.adds_bos + self.tokenizer(body["prompt"], add_special_tokens=False)["input_ids"]
        table = self.table(prompt)
        biased = table[-1].clone()
        for token, added in (body.get("logit_bias") or {}).items():
            biased[int(token)] += added
        generated = int(biased.argmax())
        answer = {"usage": {"prompt_tokens": len(prompt)}, "choices": [{"text": "", "logprobs": None}]}
        if body.get("logprobs") is not None:
            echo = body.get("echo", False)
            listed = [*prompt[prompt[0] == bos :], generated] if echo else [generated]
            rows = table if echo else table[len(prompt) - 1 :]
            answer["choices"][0]["logprobs"] = self._listed(listed, rows, echo)  # type: ignore[index]
        return answer

    def llama_server(self, body: dict[str, Any]) -> dict[str, Any]:
        """/completion: the generated token's log-probability from the model's own logits."""
        assert body["n_predict"] == body["n_probs"] == 1
        row = self.table(body["prompt"])[-1]
        biased = row.clone()
        for token, added in body["logit_bias"]:
            biased[token] += added
        own, best = int(biased.argmax()), int(row.argmax())
        given = {"id": own, "logprob": row[own].item(), "top_logprobs": [{"id": best, "logprob": row[best].item()}]}
        return {"content": "", "tokens_evaluated": len(body["prompt"]), "completion_probabilities": [given]}

    def _listed(self, listed: list[int], rows: torch.Tensor, echo: bool) -> dict[str, Any]:
        pairs = list(zip(listed, rows, strict=False))
        own: list[float | None] = [row[token].item() for token, row in pairs]
        top: list[Any] = [
            {self.tokenizer.decode([int(row.argmax())]): row.max().item(), self.tokenizer.decode([t]): row[t].item()}
            for t, row in pairs
        ]
        if echo:
            own[0], top[0] = None, None
        return {"tokens": [self.tokenizer.decode([t]) for t, _ in pairs], "token_logprobs": own, "top_logprobs": top}


class Handler(BaseHTTPRequestHandler):
    """Answers, or does what the next fault says."""

    engine: Engine
    dialect: str
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.send({"data": [{"id": "tiny-served"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.engine.asked.append((self.path, body))
        self.engine.headers = dict(self.headers)
        fault = self.engine.faults.pop(0) if self.engine.faults else ""
        time.sleep(self.engine.delay_s)
        if fault == "busy":
            self.send({"error": {"message": "too many requests"}}, 429, {"Retry-After": "0"})
        elif fault == "broken":
            self.send({"error": {"message": "out of memory"}}, 500)
        elif fault == "refused":
            self.send({"error": {"message": "maximum context length is 16 tokens"}}, 400)
        elif fault == "refused deeply":
            self.send_bytes(DEEP, len(DEEP), 400)
        elif fault == "dropped":
            self.close_connection = True
        elif fault == "slow":
            time.sleep(1.0)
            self.close_connection = True
        else:
            good = json.dumps(self.engine.spoil(getattr(self.engine, self.dialect)(body))).encode()
            self.send_bytes(
                {"cut": good[: len(good) // 2], "words": b"<html>", "deep": DEEP}.get(fault, good), len(good)
            )

    def send(self, content: object, code: int = 200, headers: dict[str, str] | None = None) -> None:
        encoded = json.dumps(content).encode()
        self.send_bytes(encoded, len(encoded), code, headers)

    def send_bytes(self, content: bytes, length: int, code: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length if content.startswith(b"{") else len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = len(content) != length


@contextmanager
def serving(engine: Engine, dialect: str) -> Iterator[str]:
    """The address of a server that runs until the block ends."""
    handler = type("Own", (Handler,), {"engine": engine, "dialect": dialect})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
