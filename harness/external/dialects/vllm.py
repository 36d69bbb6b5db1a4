"""vLLM's /v1/completions with `prompt_logprobs`."""

from harness.external.answers import Answer, BadAnswer
from harness.external.dialects.base import Dialect, Post, understood
from harness.external.prompts import Prompt

CLAMPED = -9999.0  # what the server writes for minus infinity


class Vllm(Dialect):
    """A prompt of token ids; `prompt_logprobs: 0` asks for the log-probability of each prompt token alone.

    The answer's choices[0].prompt_logprobs is a list over the prompt: null for the first token, then an object that
    maps the token's id, as text, to {logprob, rank, decoded_token}; rank 1 is the likeliest of the vocabulary. The
    server needs --max-model-len of at least one token more than the window, for the token that it generates.
    Log-probabilities are those of the model before any sampling parameter (--logprobs-mode raw_logprobs, the default).
    """

    source = (
        "vLLM 0.33.0: entrypoints/openai/completion/protocol.py (CompletionRequest, CompletionResponseChoice), "
        "entrypoints/generate/base/serving.py (clamp_prompt_logprobs), logprobs.py (Logprob)"
    )

    def ask(self, post: Post, prompt: Prompt) -> Answer:
        """One request."""
        body = {
            "prompt": prompt.ids.tolist(),
            "prompt_logprobs": 0,
            "max_tokens": 1,
            "temperature": 0.0,
            "add_special_tokens": False,
        }
        answer = post("/v1/completions", self.served | body)
        with understood(prompt):
            listed = answer["choices"][0]["prompt_logprobs"]
            if listed is None or len(listed) != len(prompt.ids):
                given = "none" if listed is None else len(listed)
                raise BadAnswer(f"{prompt.place} has {len(prompt.ids)} tokens, and {given} prompt_logprobs were given.")
            own = [
                None if one is None else one[str(token)] for one, token in zip(listed, prompt.ids.tolist(), strict=True)
            ]
            logprobs = [None if one is None else one["logprob"] for one in own]
            ranks = [None if one is None else one.get("rank") for one in own]
        return Answer(
            [float("-inf") if value == CLAMPED else value for value in logprobs],
            [None if rank is None else rank == 1 for rank in ranks],
        )
