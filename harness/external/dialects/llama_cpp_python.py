"""/v1/completions of llama-cpp-python's server with `echo` and `logprobs`."""

from typing import Any

from harness.cells.prepare import Prepared
from harness.errors import UserError
from harness.external.answers import Answer, BadAnswer
from harness.external.dialects.base import Dialect, Post, understood
from harness.external.prompts import Prompt

FORCE = 1000.0  # added to a logit, so that its token is generated whatever the model says


class LlamaCppPython(Dialect):
    """A prompt of text, as this server takes no token ids; what it made of the text is compared with ours.

    `echo` gives the prompt's tokens back with a log-probability each, the BOS left out. Only behind a BOS is that of a
    token the prediction from the tokens before it: without one the server pairs each token with the logits behind
    itself (llama.py: all_tokens begins at the first token, all_logprobs at its row), and such windows are refused here.
    The first token behind the BOS has none. Where it is scored it comes from a second request: the BOS alone, and the
    token forced by `logit_bias`, which changes what is sampled and not the logits that are reported. The server needs
    --logits_all true and --n_ctx of at least two tokens more than the window.
    """

    source = (
        "llama-cpp-python 0.3.36: llama_cpp/server/types.py (CreateCompletionRequest), llama_cpp/server/app.py "
        "(create_completion), llama_cpp/llama.py (_create_completion)"
    )

    def __init__(self, prepared: Prepared, served: str | None) -> None:
        super().__init__(prepared, served)
        self.tokenizer = prepared.header.tokenizer
        self.bos = self._text([prepared.header.prefix_token_id or 0])
        self.adds_bos: bool | None = None  # whether the server puts a BOS in front of a text; None: not yet known
        if prepared.cell.protocol.bos != "every_window":
            raise UserError(
                "dialect=llama_cpp_python needs protocol.bos=every_window: without a BOS this server's echo pairs "
                f"every token with the logits behind it, got {prepared.cell.protocol.bos}."
            )

    def ask(self, post: Post, prompt: Prompt) -> Answer:
        """One request or two, and once one more to find out whether the server adds a BOS."""
        text = self._text(prompt.ids[1:].tolist())
        if self.tokenizer(text, add_special_tokens=False)["input_ids"] != prompt.ids[1:].tolist():
            raise BadAnswer(f"the text of {prompt.place} is other tokens when it is tokenized alone.")
        answer = self._echo(post, text, prompt)
        with understood(prompt):
            given = answer["choices"][0]["logprobs"]
            self._check_tokens(prompt, given["tokens"])
            length = len(prompt.ids) - 1
            logprobs, top = given["token_logprobs"][:length], given["top_logprobs"][:length]
            top1 = [
                None if own is None else value >= max(own.values()) for value, own in zip(logprobs, top, strict=True)
            ]
        first, is_top = self._first(post, prompt) if prompt.job.score_from == 1 else (None, None)
        return Answer([None, first, *logprobs[1:]], [None, is_top, *top1[1:]])

    def _echo(self, post: Post, text: str, prompt: Prompt) -> Any:
        """The answer for a text behind a BOS, as many tokens as the window has. Raises BadAnswer."""
        if self.adds_bos is None:
            plain = {**self.served, "prompt": text, "max_tokens": 1}
            self.adds_bos = _tokens(post("/v1/completions", plain), prompt) == len(prompt.ids)
        answer = post("/v1/completions", self._body(text) | {"echo": True})
        count = _tokens(answer, prompt)
        if count != len(prompt.ids):
            raise BadAnswer(f"{prompt.place} has {len(prompt.ids)} tokens, and the server made {count} of its text.")
        return answer

    def _text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def _body(self, text: str) -> dict[str, Any]:
        prompt = text if self.adds_bos else self.bos + text
        return {**self.served, "prompt": prompt, "logprobs": 1, "max_tokens": 1, "temperature": 0.0}

    def _check_tokens(self, prompt: Prompt, tokens: list[str]) -> None:
        """Raise BadAnswer where the server's tokens are not ours; bytes that are no text alone say nothing."""
        ours = [self._text([token]) for token in prompt.ids[1:].tolist()]
        if len(tokens) < len(ours):
            raise BadAnswer(f"{prompt.place} has {len(ours)} tokens behind its BOS, and {len(tokens)} were given.")
        for at, (mine, its) in enumerate(zip(ours, tokens, strict=False), 1):
            if mine.isascii() and mine != its:
                raise BadAnswer(f"the server's token {at} is {its!r}, not {mine!r}, in {prompt.place}.")

    def _first(self, post: Post, prompt: Prompt) -> tuple[float, bool]:
        """The log-probability of the first token behind the BOS, and whether it was the likeliest. Raises BadAnswer."""
        if self.adds_bos:  # and answers an empty text with no logits
            raise BadAnswer(
                f"this server, which adds a BOS, says nothing of the first token of {prompt.place}; take a protocol "
                "that does not score it, as fixed_targets with num_targets of at most ctx - 2."
            )
        token = int(prompt.ids[1])
        answer = post("/v1/completions", self._body("") | {"logit_bias": {str(token): FORCE}})
        with understood(prompt):
            given = answer["choices"][0]["logprobs"]
            value = given["token_logprobs"][0]
            return value, value >= max(given["top_logprobs"][0].values())


def _tokens(answer: Any, prompt: Prompt) -> int:
    """How many tokens the server made of what it was sent."""
    with understood(prompt):
        return int(answer["usage"]["prompt_tokens"])
