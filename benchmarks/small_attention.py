"""A small model on a GPU: tokens a second under methods that change attention, first pass and later ones, and compiled.

    python benchmarks/small_attention.py --output small_attention.json
    python benchmarks/small_attention.py --device cpu --length 512 --layers 2 --wide 512     # whether it runs

Random weights in the shapes of SmolLM2-135M, through the engine and the installing of methods that a cell goes through.
The first pass counts installing, proving and every kernel that is built. Kernels: "chosen", as the harness does;
"built", cuDNN's for everything but bands; "blocks", blocks of 1024 rows without bands, as before there were any. Every
group of rows is of a process of its own. Deviations are from float64 on the CPU.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from harness import methods
from harness.engine.engine import Engine
from harness.engine.spec import EngineSpec
from harness.methods.base import RopeGeometry
from harness.models.attention import flash, row_blocks, tiles
from harness.models.attention.rotation import LayerRotation
from harness.models.install import applied

TRAINED, THETA = 8192, 100_000.0
NAMES = ["plain", "windowed", "dca", "self_extend", "rerope", "string"]
KERNELS = ("chosen", "built", "blocks")
Row = dict[str, Any]


def arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--device", default="cuda")
    made.add_argument("--length", type=int, default=32_768, help="tokens")
    made.add_argument("--layers", type=int, default=30)
    made.add_argument("--passes", type=int, default=4)
    made.add_argument("--wide", type=int, default=32_768, help="tokens of one layer with 32 heads of 128")
    made.add_argument(
        "--groups",
        default=",".join(list(GROUPS)[:-1]),
        help="default: %(default)s; short: the last ones in one process",
    )
    made.add_argument("--inside", help="the group that this process measures")
    made.add_argument("--output", type=Path, help="a JSON file of all rows")
    return made.parse_args()


def small_model(options: argparse.Namespace) -> LlamaForCausalLM:
    """Random weights in the shapes of SmolLM2-135M."""
    config = LlamaConfig(
        vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=options.layers,
        num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=TRAINED, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
    )  # fmt: skip
    torch.manual_seed(0)
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    return LlamaForCausalLM._from_config(config, dtype=dtype, attn_implementation="sdpa").to(options.device).eval()


@contextmanager
def kernels(name: str) -> Iterator[None]:
    """Until the block ends, attention in regions runs through these kernels."""
    with ExitStack() as stack:
        if name == "built":
            stack.enter_context(mock.patch.object(flash, "BUILT_FOR", 0.0))
        if name == "blocks":
            stack.enter_context(mock.patch.object(tiles, "has_flash", return_value=False))
        yield


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(run: Callable[[], object], device: str) -> float:
    wait(device)
    begin = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - begin


@contextmanager
def installed(model: LlamaForCausalLM, name: str, length: int, passed: set[int | None] | None = None) -> Iterator[None]:
    """The method, as a cell installs it; `passed`: of the model's earlier cells."""
    geometry = RopeGeometry(rotary_dim=64, rope_theta=THETA, original_max_position_embeddings=TRAINED)
    method = methods.build("none" if name == "plain" else name, {}, geometry, length)
    with applied(model, method, length, passed=passed):
        yield


def passes(
    options: argparse.Namespace,
    model: LlamaForCausalLM,
    spec: EngineSpec,
    name: str,
    kernel: str,
    passed: set[int | None] | None = None,
) -> Row:
    """Seconds of a cell's first pass (installing and proving in it), and the median of the later ones."""
    ids = torch.randint(0, 49_152, (1, options.length), generator=torch.Generator().manual_seed(1)).to(options.device)
    with ExitStack() as stack:
        stack.enter_context(kernels(kernel))
        making = time.perf_counter()
        engine = Engine(model, spec)
        wait(options.device)
        making = time.perf_counter() - making

        def first() -> None:
            stack.enter_context(installed(model, name, options.length, passed))
            engine.token_nll(ids, 1)

        took = seconds(first, options.device)
        later = [seconds(lambda: engine.token_nll(ids, 1), options.device) for _ in range(options.passes - 1)]
        median = statistics.median(later)
        losses = engine.token_nll(ids, 1).double()
        top = profile(lambda: engine.token_nll(ids, 1), options.device) if kernel == "chosen" else []
    return {
        "method": name, "kernels": kernel, "compile": spec.compile, "engine_s": round(making, 2),
        "first_pass_s": round(took, 3), "later_s": [round(one, 4) for one in later],
        "tokens_a_second": round(options.length / median), "mean_nll": float(losses.mean()), "profile": top,
    }  # fmt: skip


def profile(run: Callable[[], object], device: str) -> list[str]:
    """The 14 kernels that took longest, and the processor's share."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if device == "cuda" else []
    with torch.profiler.profile(activities=kinds) as found:
        run()
        wait(device)
    events = [event for event in found.key_averages() if event.device_type == torch.autograd.DeviceType.CUDA]
    events.sort(key=lambda event: -event.self_device_time_total)
    total = sum(event.self_device_time_total for event in events)
    lines = [f"{total / 1e3:.1f} ms on the device, {sum(event.count for event in events)} kernels"]
    return lines + [f"{e.self_device_time_total / 1e3:8.2f} ms {e.count:6d} x {e.key[:90]}" for e in events[:14]]


def small(options: argparse.Namespace, kernel: str, names: list[str]) -> list[Row]:
    """The methods, one after the other in one process, each with an engine of its own."""
    model = small_model(options)
    with torch.inference_mode():
        rows = [passes(options, model, EngineSpec(), name, kernel) for name in names]
    for row in rows:
        row["of_plain"] = round(row["tokens_a_second"] / rows[0]["tokens_a_second"], 3)
    return rows


def compiled(options: argparse.Namespace) -> list[Row]:
    """Compiling: what it costs at a first length and at a second one, and what it gains."""
    model, rows = small_model(options), []
    with torch.inference_mode():
        for length, is_compiled in ((options.length, False), (options.length, True), (options.length // 8, True)):
            shorter = argparse.Namespace(**vars(options) | {"length": length})
            rows += [passes(shorter, model, EngineSpec(compile=is_compiled), "plain", "built") | {"length": length}]
    return rows


def later(options: argparse.Namespace) -> list[Row]:
    """The first pass of a second cell of the same model: the method is proved once."""
    model, passed = small_model(options), set[int | None]()
    names = ("rerope", "self_extend", "dca", "windowed", "string")
    with torch.inference_mode():
        return [passes(options, model, EngineSpec(), name, "chosen", passed) for name in names]


def wide(options: argparse.Namespace) -> list[Row]:
    """One layer's attention at the shapes of an 8B model, where building kernels repays."""
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    generator = torch.Generator().manual_seed(0)
    states = [
        torch.randn(1, heads, options.wide, 128, generator=generator).to(options.device, dtype) for heads in (32, 8, 8)
    ]
    geometry = RopeGeometry(rotary_dim=128, rope_theta=500_000.0, original_max_position_embeddings=TRAINED)

    def plain() -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(*states, is_causal=True, enable_gqa=True)

    def median(run: Callable[[], object]) -> Row:
        first = seconds(run, options.device)
        if options.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        times = [seconds(run, options.device) for _ in range(options.passes)]
        peak = torch.cuda.max_memory_allocated() / 2**30 if options.device == "cuda" else 0.0
        return {
            "first_ms": round(first * 1e3, 1),
            "ms": round(statistics.median(times) * 1e3, 2),
            "gib": round(peak, 2),
        }

    rows = [{"wide": "plain"} | median(plain)]
    for name in NAMES[1:]:
        parts, scale = _parts(name, geometry, states[0])
        for kernel in KERNELS:
            with kernels(kernel):
                row = median(partial(tiles.attend, *states, parts, scale))
            rows.append({"wide": name, "kernels": kernel} | row)
    return rows


def _parts(name: str, geometry: RopeGeometry, query: Tensor) -> tuple[list[tiles.Part], float]:
    length = query.shape[2]
    method = methods.build(name, {}, geometry, length)
    rotation = LayerRotation(tuple(geometry.inv_freq), 0, False, method(geometry, length).attention_scaling)
    return tiles.parts(method.regions(length), rotation, query), query.shape[-1] ** -0.5


def deviations(options: argparse.Namespace) -> list[Row]:
    """The largest deviation from float64 of one layer's attention in half precision, 3000 tokens, by kernels."""
    rows, length = [], 3000
    geometry = RopeGeometry(rotary_dim=64, rope_theta=THETA, original_max_position_embeddings=500)
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(1, heads, length, 64, generator=generator).bfloat16() for heads in (9, 3, 3)]
    for name in NAMES[1:]:
        exact = [states.double() for states in given]
        parts, scale = _parts(name, geometry, exact[0])
        wanted = tiles.attend(*exact, parts, scale)
        here = [states.to(options.device) for states in given]
        parts, scale = _parts(name, geometry, here[0])
        blocks = row_blocks.straight([(p.begin, p.end) for p in parts], tiles.STRAIGHT_ROWS, 1000)
        for kernel in KERNELS:
            with kernels(kernel), mock.patch.object(tiles, "STRAIGHT_ROWS", 1300):
                found = tiles.attend(*here, parts, scale).double().cpu()
            error = (found - wanted).abs()
            rows.append(
                {"deviation": name, "kernels": kernel, "largest": float(error.max()), "mean": float(error.mean())}
                | {"blocks": len(blocks or [])}
            )
    return rows


GROUPS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "deviations": deviations,
    "small": lambda options: small(options, "chosen", NAMES),
    "fresh rerope": lambda options: small(options, "chosen", ["rerope"]),
    "small built": lambda options: small(options, "built", ["plain", "dca", "rerope"]),
    "small blocks": lambda options: small(options, "blocks", ["plain", "windowed", "rerope"]),
    "later": later,
    "wide": wide,
    "compiled": compiled,
    "compiled again": compiled,
    "short": lambda options: [*later(options), *wide(options), *compiled(options)],
}


def main() -> None:
    options = arguments()
    if options.inside:
        print(json.dumps(GROUPS[options.inside](options)))
        return
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache, "TRITON_CACHE_DIR": f"{cache}/triton"}
        for group in options.groups.split(","):
            begin = time.monotonic()
            command = [sys.executable, __file__, *sys.argv[1:], "--inside", group]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
            print(f"== {group}: {time.monotonic() - begin:.0f} s, exit {done.returncode}", flush=True)
            for row in json.loads(done.stdout.splitlines()[-1]) if not done.returncode else []:
                lines = row.pop("profile", [])
                rows.append({"group": group} | row | {"profile": lines})
                print("  ".join(f"{key} {value}" for key, value in row.items()), *lines, sep="\n    ", flush=True)
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
