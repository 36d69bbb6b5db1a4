"""SGLang's own /generate with `logprob_start_len`."""

from harness.external.answers import Answer
from harness.external.dialects.base import Dialect, Post, check_ids, understood
from harness.external.prompts import Prompt


class SGLang(Dialect):
    """A prompt of token ids, log-probabilities from its first token on, the likeliest token beside each.

    The answer's meta_info.input_token_logprobs is a list over the prompt of [log-probability, token id, text], the
    first log-probability null; input_top_logprobs holds for each token a list of such triples, null for the first.
    Its /v1/completions says of itself that echo with logprobs does not go together, and to use this way.
    """

    source = (
        "SGLang 0.5.23: srt/managers/io_struct.py (GenerateReqInput), srt/managers/tokenizer_manager.py "
        "(add_logprob_to_meta_info, detokenize_logprob_tokens), srt/entrypoints/openai/serving_completions.py"
    )

    def ask(self, post: Post, prompt: Prompt) -> Answer:
        """One request."""
        body = {
            "input_ids": prompt.ids.tolist(),
            "sampling_params": {"max_new_tokens": 0, "temperature": 0.0},
            "return_logprob": True,
            "logprob_start_len": 0,
            "top_logprobs_num": 1,
        }
        answer = post("/generate", body)
        with understood(prompt):
            listed = answer["meta_info"]["input_token_logprobs"]
            check_ids(prompt, [token for _, token, *_ in listed])
            top = answer["meta_info"].get("input_top_logprobs") or []
            likeliest = [one[0][1] if one else None for one in top]
            logprobs = [value for value, *_ in listed]
        if len(likeliest) != len(prompt.ids):
            return Answer(logprobs)
        pairs = zip(likeliest, prompt.ids.tolist(), strict=True)
        return Answer(logprobs, [None if best is None else best == token for best, token in pairs])
