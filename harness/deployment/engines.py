"""The engines that methods are written for."""

from collections.abc import Callable

from harness.deployment import huggingface, llama_cpp, sglang, vllm
from harness.deployment.express import Expression
from harness.deployment.spelling import Engine, Spelling
from harness.deployment.target import Target

ENGINES: dict[Engine, Callable[[Expression, Target], Spelling]] = {
    "transformers": huggingface.spell,
    "vllm": vllm.spell,
    "sglang": sglang.spell,
    "llama_cpp": llama_cpp.spell,
}
VERSIONS: dict[Engine, str] = {  # in which the spelling was looked up
    "transformers": "5.23.0",
    "vllm": "0.33.0",
    "sglang": "0.5.23",
    "llama_cpp": "of llama-cpp-python 0.3.36",
}
