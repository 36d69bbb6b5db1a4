"""How engines are asked for the log-probabilities of a prompt, and how they say them: a file each."""

from harness.external.dialects.base import Dialect
from harness.external.dialects.llama_cpp_python import LlamaCppPython
from harness.external.dialects.llama_server import LlamaServer
from harness.external.dialects.sglang import SGLang
from harness.external.dialects.vllm import Vllm
from harness.external.settings import DialectName

DIALECTS: dict[DialectName, type[Dialect]] = {
    "vllm": Vllm,
    "sglang": SGLang,
    "llama_cpp_python": LlamaCppPython,
    "llama_server": LlamaServer,
}
