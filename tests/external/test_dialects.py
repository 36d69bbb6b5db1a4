"""What the tiny model does not show: ranks, what stands for minus infinity, tokens that were not asked for."""

import numpy as np
import pytest

from harness.data.windows import Window
from harness.engine.batches import Job
from harness.external.answers import BadAnswer, check, parsed
from harness.external.dialects.llama_server import LlamaServer
from harness.external.dialects.sglang import SGLang
from harness.external.dialects.vllm import Vllm
from harness.external.prompts import Prompt

PROMPT = Prompt("0" * 16, np.array([5, 6, 7]), "novel", Job(0, 0, Window(0, 3, 1)))


def vllm(*pairs):
    """Its answer with a (logprob, rank) for each token behind the first."""
    listed = [{str(t): {"logprob": v, "rank": r}} for (v, r), t in zip(pairs, (6, 7), strict=True)]
    return {"choices": [{"prompt_logprobs": [None, *listed]}]}


def sglang(*triples):
    """Its answer with (logprob, token, likeliest token) for each token behind the first."""
    own = [[None, 5, None], *([v, t, None] for v, t, _ in triples)]
    best = [None, *([[-0.1, b, None]] for _, _, b in triples)]
    return {"meta_info": {"input_token_logprobs": own, "input_top_logprobs": best}}


def asked(dialect, answer):
    return dialect(None, None).ask(lambda path, body: answer, PROMPT)


def test_the_likeliest_is_that_of_rank_one():
    assert asked(Vllm, vllm((-0.5, 1), (-0.5, 2))).top1 == [None, True, False]
    assert asked(SGLang, sglang((-0.5, 6, 6), (-0.5, 7, 8))).top1 == [None, True, False]


def test_a_rank_that_a_server_does_not_say_is_not_made_up():
    answer = vllm((-0.5, 1), (-0.5, 2))
    del answer["choices"][0]["prompt_logprobs"][2]["7"]["rank"]
    assert asked(Vllm, answer).top1 == [None, True, None]
    answer = sglang((-0.5, 6, 6), (-0.5, 7, 8))
    del answer["meta_info"]["input_top_logprobs"]
    assert asked(SGLang, answer).top1 is None


@pytest.mark.parametrize(
    ("dialect", "answer"),
    [
        (Vllm, vllm((-0.5, 1), (-9999.0, 96))),
        (LlamaServer, {
            "tokens_evaluated": 1,
            "completion_probabilities": [{"id": 6, "logprob": -3.4028234663852886e38, "top_logprobs": [{"id": 9}]}],
        }),
    ],
)  # fmt: skip
def test_what_stands_for_minus_infinity_is_no_loss(dialect, answer):
    prompt = PROMPT if dialect is Vllm else PROMPT._replace(ids=np.array([5, 6]))
    given = dialect(None, None).ask(lambda path, body: answer, prompt)
    with pytest.raises(BadAnswer, match="-inf is no logarithm of a probability"):
        check(prompt, given)


def test_a_token_that_could_not_be_forced_is_an_error():
    answer = {
        "tokens_evaluated": 1,
        "completion_probabilities": [{"id": 9, "logprob": -0.5, "top_logprobs": [{"id": 9}]}],
    }
    with pytest.raises(BadAnswer, match="the server saw 1 tokens and gave token 9, not 1 and 6"):
        asked(LlamaServer, answer)


def test_tokens_in_another_order_are_an_error():
    with pytest.raises(BadAnswer, match=r"the server's token 1 is 7, not 6, in window 0 \[0, 3\) of document 'novel'"):
        asked(SGLang, sglang((-0.5, 7, 7), (-0.5, 6, 6)))


@pytest.mark.parametrize("answer", [{}, [], {"choices": []}, {"choices": [{"prompt_logprobs": None}]}, None])
def test_an_answer_of_another_form_is_an_error(answer):
    with pytest.raises(BadAnswer, match="document 'novel'"):
        asked(Vllm, answer)


@pytest.mark.parametrize("line", ["[" * 100_000, '{"id": "a", "logprobs": ' + "[" * 100_000, "\x00", '{"id": "a"'])
def test_a_line_that_is_no_json_is_an_error(line):
    with pytest.raises(BadAnswer, match="it is no JSON"):
        parsed(line)
