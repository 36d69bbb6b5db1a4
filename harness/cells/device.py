"""Where cells are computed and in which precision, resolved from the two groups of the configuration that say so."""

import glob
import sys
from typing import NamedTuple

from harness import torchrun
from harness.config.cluster import ClusterSpec
from harness.engine.spec import EngineSpec
from harness.errors import UserError


class Placement(NamedTuple):
    """A device and the precision of the model on it, nothing left to be found out."""

    device: str  # cpu | cuda | cuda:N
    dtype: str  # float32 | float16 | bfloat16


HERE = ClusterSpec()  # this process


def placement(engine: EngineSpec, cluster: ClusterSpec = HERE) -> Placement:
    """What `auto` comes to where cells will be computed, known without being there: float32 on a CPU, else bfloat16."""
    device = engine.device if engine.device != "auto" else _given(cluster)
    automatic = "float32" if device == "cpu" else "bfloat16"
    return Placement(device, automatic if engine.dtype == "auto" else engine.dtype)


def _given(cluster: ClusterSpec) -> str:
    """The device that a cluster gives to a process, or the one that is found here."""
    if cluster.name == "gpus" or (cluster.name == "slurm" and cluster.gpus):
        return "cuda"
    if cluster.name == "slurm":
        return "cpu"
    if not _may_have_gpu():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _may_have_gpu() -> bool:
    """False where there is surely none, which need not wait for torch: Linux shows the drivers of GPUs as files.

    NVIDIA's (on a desktop, in WSL, on Tegra), and AMD's.
    """
    places = ("/dev/nvidia*", "/proc/driver/nvidia", "/dev/dxg", "/dev/nvhost*", "/dev/nvmap", "/dev/kfd")
    return sys.platform != "linux" or any(glob.glob(place) for place in places)


def check_device(engine: EngineSpec, cluster: ClusterSpec = HERE) -> None:
    """Raise UserError where the device is not on this machine."""
    wanted = placement(engine, cluster).device
    if not wanted.startswith("cuda"):
        return
    import torch

    reason = "" if engine.device != "auto" else f" (cluster={cluster.name} gives a GPU to every process)"
    if not torch.cuda.is_available():
        raise UserError(f"engine.device={wanted}{reason}: no CUDA device is available here; use cpu or auto.")
    number = wanted.partition(":")[2]
    if torchrun.size() > 1:
        if number:
            raise UserError(f"engine.device must be auto, cuda or cpu under torchrun (a GPU a process), got {wanted}.")
        if torchrun.local_size() > torch.cuda.device_count():
            raise UserError(
                f"torchrun must start at most one process a GPU, got {torchrun.local_size()} processes and "
                f"{torch.cuda.device_count()} CUDA devices on this machine; engine.device=cpu runs without."
            )
    if number.isdigit() and int(number) >= torch.cuda.device_count():
        raise UserError(f"engine.device={wanted}: this machine has {torch.cuda.device_count()} CUDA devices, from 0.")
