"""dry_run=true: the cells of a sweep, which of them are finished, and what the others would cost. Loads no weights."""

import copy
import re
import time
from collections.abc import Sequence
from typing import Any

import torch

from harness.cells import cost
from harness.cells.cost import Shape
from harness.cells.device import check_device
from harness.cells.documents import Documents
from harness.cells.passes import passes
from harness.cells.prepare import Prepared
from harness.engine.batches import plans
from harness.engine.budget import CPU_CHUNK, CPU_TOKENS_PER_BATCH, GPU_TOKENS_PER_BATCH
from harness.engine.nll import LOGITS_PER_SLICE
from harness.engine.packed import LARGEST

CALIBRATION_S = 0.3
EXPERT = re.compile(r"\.experts\.")


def show(prepared: Sequence[Prepared]) -> None:
    """Print a line a cell and their sum."""
    todo = [p for p in prepared if not p.files.is_finished()]
    estimates = estimate(todo)
    rate = _rate(todo[0]) if todo else None
    width = max(len(p.files.label) for p in prepared)
    print(f"{'cell':{width}}  {'status':8}  {'FLOPs':>8}  {'memory':>9}  {'time':>8}")
    for p in prepared:
        print(f"{p.files.label:{width}}  {_line(estimates.get(p.cell.cell_id), rate, p not in todo)}".rstrip())
    total = sum(flops for flops, _ in estimates.values())
    count = f"{len(prepared)} cell" + "s" * (len(prepared) > 1)
    print(f"\n{count}: {len(prepared) - len(todo)} finished, {len(todo)} to compute", end="")
    print(f", {total:.1e} FLOPs" + _time(total, rate, prepared[0]) if todo else "")


def _line(estimated: tuple[float, int] | None, rate: float | None, is_done: bool) -> str:
    if is_done or estimated is None:
        return "finished"
    flops, peak = estimated
    if not flops:
        return f"{'to do':8}  comes with the pass of a longer cell"
    seconds = _duration(flops / rate) if rate else "-"
    return f"{'to do':8}  {flops:8.1e}  {peak / 2**30:5.2f} GiB  {seconds:>8}"


def _time(total: float, rate: float | None, one: Prepared) -> str:
    if rate is None:
        return "; times are known on the machine that computes, which is elsewhere"
    where = f"{one.placement.dtype} reaches on this {one.placement.device}"
    return (
        f", {_duration(total / rate)} at the {rate / 1e9:.3g} GFLOP/s that a matrix product in {where}: "
        "a lower bound, loading and small operations come on top"
    )


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def estimate(todo: Sequence[Prepared]) -> dict[str, tuple[float, int]]:
    """FLOPs and peak bytes by cell id; a cell that comes with the pass of a longer one costs nothing."""
    sets = Documents()
    shapes = {p.cell.config.model: shape(p) for p in {p.cell.config.model: p for p in todo}.values()}
    made: dict[str, tuple[float, int]] = {}
    for one in passes(todo):
        longest, cell = one.longest, one.longest.cell
        planned = plans(sets.of(longest).documents, cell.ctx, cell.protocol, cell.config.seed)
        known = shapes[cell.config.model]
        peak = _memory(known, longest)
        made |= {p.cell.cell_id: (0.0, peak) for p in one.cells}
        made[cell.cell_id] = cost.flops(known, [w for ws in planned for w in ws]), peak
    return made


def _memory(known: Shape, prepared: Prepared) -> int:
    """With the batch, the chunk and the packed copies of weights that the engine would take."""
    cell, where = prepared.cell, prepared.placement
    on_cpu = where.device == "cpu"
    batch = cell.config.engine.tokens_per_batch or (CPU_TOKENS_PER_BATCH if on_cpu else GPU_TOKENS_PER_BATCH)
    tokens = max(cell.ctx, batch // cell.ctx * cell.ctx)
    logits = min(LOGITS_PER_SLICE["cpu" if on_cpu else "cuda"], tokens * known.vocabulary)
    chunk = CPU_CHUNK if on_cpu else GPU_TOKENS_PER_BATCH // 2
    size = getattr(torch, where.dtype).itemsize
    copies = known.weight_bytes if on_cpu and size == 4 and known.weight_bytes <= LARGEST else 0
    return copies + cost.memory(known, tokens=tokens, chunk=chunk, logits=logits, element_bytes=size)


def shape(prepared: Prepared) -> Shape:
    """The shape of a model, from its modules without weights."""
    from transformers import AutoModelForCausalLM

    from harness.models.checkpoint.sliding_window import set_window

    spec, known = prepared.cell.config.model, copy.deepcopy(prepared.header.config)
    if not isinstance(spec.sliding_window, str):
        set_window(known, spec.sliding_window)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(known, trust_remote_code=spec.trust_remote_code)
    config: Any = model.config.get_text_config()
    looked_up = [m for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    ends = {id(m.weight) for m in (*looked_up, model.get_output_embeddings()) if m is not None}
    matrices = [(name, p) for name, p in model.named_parameters() if p.ndim > 1 and id(p) not in ends]
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    key_dim = getattr(config, "qk_nope_head_dim", 0) + getattr(config, "qk_rope_head_dim", 0) or head_dim
    return Shape(
        matrix_parameters=sum(p.numel() * _share(name, config) for name, p in matrices),
        weight_bytes=sum(p.numel() for p in model.parameters()) * getattr(torch, prepared.placement.dtype).itemsize,
        hidden=config.hidden_size,
        inner=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        vocabulary=config.vocab_size,
        heads=config.num_attention_heads,
        key_dim=key_dim,
        value_dim=getattr(config, "v_head_dim", None) or head_dim,
        attention_windows=_attention_windows(config),
    )


def _share(name: str, config: Any) -> float:
    """Of the tokens that pass a matrix: all, or those that a router sends to an expert."""
    experts = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None)
    experts = experts or getattr(config, "n_routed_experts", None)
    chosen = getattr(config, "num_experts_per_tok", None)
    return chosen / experts if EXPERT.search(name) and experts and chosen else 1.0


def _attention_windows(config: Any) -> tuple[int | None, ...]:
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ["all"] * config.num_hidden_layers
    return tuple(None if kind == "full_attention" else window for kind in kinds)


def _rate(one: Prepared) -> float | None:
    """FLOPs a second of a matrix product of the model's size on this device; None where cells run elsewhere."""
    config = one.cell.config
    if config.cluster.name == "slurm":
        return None
    check_device(config.engine, config.cluster)
    hidden = one.header.config.get_text_config().hidden_size
    options: Any = {"device": one.placement.device, "dtype": getattr(torch, one.placement.dtype)}
    a, b = torch.ones(2048, hidden, **options), torch.ones(hidden, 4 * hidden, **options)
    count, started = 0, time.monotonic()
    while time.monotonic() - started < CALIBRATION_S:
        for _ in range(10):
            product = a @ b
        product[0, 0].item()  # waits for the device
        count += 10
    return count * 2 * 2048 * hidden * 4 * hidden / (time.monotonic() - started)
