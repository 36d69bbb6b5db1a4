"""llama.cpp's own llama-server, which gives no log-probabilities of a prompt: each token is forced and asked for."""

from typing import Any

from harness.external.answers import Answer, BadAnswer
from harness.external.dialects.base import Dialect, Post, understood
from harness.external.prompts import Prompt

FORCE = 1000.0  # added to a logit, so that its token is generated whatever the model says
UNDERFLOW = -1e30  # below: the float32 probability was 0, and its logarithm the lowest float


class LlamaServer(Dialect):
    """/completion with a prompt of token ids, one request a scored token; its /v1/completions refuses `echo`.

    `logit_bias` makes the wanted token the one that is generated; `n_probs` reports its log-probability before any
    sampling, from the model's own logits. The server keeps the keys and values of what it saw (`cache_prompt`), so a
    request computes one token. Slots hold one text each: `parallel` must be at most the server's --parallel, and
    max_requests counts tokens. -c of at least one token more than the window.
    """

    source = (
        "llama.cpp as it comes with llama-cpp-python 0.3.36: tools/server/server-common.cpp (get_token_probabilities, "
        "'Only no echo is supported'), tools/server/server-context.cpp (populate_token_probs), "
        "tools/server/server-task.cpp (probs_vector_to_json), tools/server/server-schema.cpp (logit_bias, n_probs)"
    )

    def requests(self, prompt: Prompt) -> int:
        """One for every scored token."""
        return len(prompt.ids) - prompt.job.score_from

    def ask(self, post: Post, prompt: Prompt) -> Answer:
        """As many requests as the window has scored tokens."""
        first, ids = prompt.job.score_from, prompt.ids.tolist()
        asked = [self._token(post, prompt, ids[:at], token) for at, token in enumerate(ids[first:], first)]
        return Answer([*[None] * first, *(value for value, _ in asked)], [*[None] * first, *(top for _, top in asked)])

    def _token(self, post: Post, prompt: Prompt, before: list[int], token: int) -> tuple[float, bool]:
        """The log-probability of a token behind others, and whether it was the likeliest."""
        body: dict[str, Any] = {
            "prompt": before,
            "n_predict": 1,
            "n_probs": 1,
            "logit_bias": [[token, FORCE]],
            "temperature": 0.0,
            "cache_prompt": True,
        }
        answer = post("/completion", body)
        with understood(prompt):
            (given,) = answer["completion_probabilities"]
            if answer["tokens_evaluated"] != len(before) or given["id"] != token:
                raise BadAnswer(
                    f"the server saw {answer['tokens_evaluated']} tokens and gave token {given['id']}, not "
                    f"{len(before)} and {token}, in {prompt.place}."
                )
            value = given["logprob"]
            return float("-inf") if value < UNDERFLOW else value, given["top_logprobs"][0]["id"] == token
