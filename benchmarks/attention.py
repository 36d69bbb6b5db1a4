"""Attention-changing methods against plain attention: time and peak memory at the shapes of an 8B model.

    python benchmarks/attention.py --length 32768 --out benchmarks/attention_h200_2026-11-23.md

Both sides start from unrotated queries and keys of one layer. Plain attention rotates them as a rotary model does and
calls scaled_dot_product_attention. Runs alternate in one process; times are medians, memory is the peak of tensors
allocated during a run, inputs included. The model rows are a whole forward of a random model of a few such layers.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from harness import methods
from harness.methods.base import RopeGeometry
from harness.models.attention import tiles
from harness.models.install import applied

HEADS, KEY_HEADS, HEAD_DIM, HIDDEN, WIDTH = 32, 8, 128, 4096, 14_336
GEOMETRY = RopeGeometry(rotary_dim=HEAD_DIM, rope_theta=500_000.0, original_max_position_embeddings=8192)
NAMES = [name for name, method in methods.METHODS.items() if method.kind == "attention"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=32_768, help="tokens")
    parser.add_argument("--layers", type=int, default=4, help="of the random model; 0: attention alone")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--rows", type=_numbers, help="query rows a block, instead of the built-in number; 512,1024: both"
    )
    parser.add_argument("--out", type=Path, help="write the table here, too")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(run: Callable[[], object], device: str) -> float:
    synchronize(device)
    begin = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - begin


def peak(run: Callable[[], object], device: str) -> float:
    """Largest number of bytes allocated during a run; NaN without a GPU."""
    if device != "cuda":
        return float("nan")
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated())


def table(title: str, runs: dict[str, Callable[[], object]], repeats: int, device: str) -> list[str]:
    """Markdown rows: median seconds, bytes, and both as ratios to the first run; runs alternate."""
    for run in runs.values():
        run()
    memory = {name: peak(run, device) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(seconds(run, device))
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    first = next(iter(runs))
    lines = [f"| {title} | ms | time ratio | GiB | memory ratio |", "|---|---|---|---|---|"]
    for name in runs:
        ratio, share = medians[name] / medians[first], memory[name] / memory[first]
        lines.append(f"| {name} | {medians[name] * 1e3:.1f} | {ratio:.2f} | {memory[name] / 2**30:.3f} | {share:.2f} |")
    return [*lines, ""]


def attention_runs(length: int, device: str, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    generator = torch.Generator(device).manual_seed(0)

    def states(heads: int) -> Tensor:
        return torch.randn(1, heads, length, HEAD_DIM, generator=generator, device=device, dtype=dtype)

    query, key, value = states(HEADS), states(KEY_HEADS), states(KEY_HEADS)
    angles = torch.outer(torch.arange(length), torch.from_numpy(GEOMETRY.inv_freq)).to(device)
    cos, sin = (f(torch.cat((angles, angles), dim=-1))[None].to(dtype) for f in (torch.cos, torch.sin))

    def plain() -> Tensor:
        rotated_query, rotated_key = apply_rotary_pos_emb(query, key, cos, sin)
        return scaled_dot_product_attention(rotated_query, rotated_key, value, is_causal=True, enable_gqa=True)

    def changed(name: str) -> Callable[[], Tensor]:
        method = methods.build(name, {}, GEOMETRY, length)
        frequencies = method(GEOMETRY, length)
        rotation = tiles.LayerRotation(tuple(frequencies.inv_freq), 0, False, frequencies.attention_scaling)
        parts = tiles.parts(method.regions(length), rotation, query)
        return lambda: tiles.attend(query, key, value, parts, HEAD_DIM**-0.5)

    return {"plain": plain, **{name: changed(name) for name in NAMES}}


def model_runs(length: int, layers: int, device: str, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=HIDDEN,
        intermediate_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        max_position_embeddings=GEOMETRY.original_max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": GEOMETRY.rope_theta},
    )
    model = LlamaForCausalLM._from_config(config, dtype=dtype, attn_implementation="sdpa").to(device).eval()
    ids = torch.randint(0, config.vocab_size, (1, length), device=device)

    def run(name: str) -> Callable[[], object]:
        def forward() -> None:
            method = None if name == "plain" else methods.build(name, {}, GEOMETRY, length)
            with nullcontext() if method is None else applied(model, method, length):
                model.model(ids, use_cache=False)

        return forward

    return {name: run(name) for name in ("plain", *NAMES)}


@torch.inference_mode()
def main() -> None:
    args = arguments()
    dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    name = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    trained = GEOMETRY.original_max_position_embeddings
    lines = [
        f"{name}, torch {torch.__version__}, {dtype}, {args.length} tokens, {HEADS} heads of {HEAD_DIM}, {KEY_HEADS} "
        f"key heads, trained length {trained}.",
        "",
    ]
    for rows in args.rows or [tiles.BLOCK_ROWS[args.device]]:
        tiles.BLOCK_ROWS[args.device] = rows
        runs = attention_runs(args.length, args.device, dtype)
        lines += table(f"attention of one layer, {rows} rows a block", runs, args.repeats, args.device)
        if args.layers:
            runs = model_runs(args.length, args.layers, args.device, dtype)
            title = f"forward of {args.layers} layers, {rows} rows a block"
            lines += table(title, runs, args.repeats, args.device)
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
