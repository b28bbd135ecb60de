"""Devices and processes: one device, or several processes started by torchrun, behind Lightning Fabric."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from edgeseg.errors import MissingPackage, OptionError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def connect(device: str = "auto", precision: str = "fp32", nodes: int = 1) -> Fabric:
    """A launched Fabric. Under torchrun it spans all its processes (gloo on CPUs, NCCL on GPUs), else it has one.

    Raises OptionError for a device that this machine lacks, for fp16 without a GPU and for wrong `nodes`.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment as Torchrun
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError as error:
        raise MissingPackage("lightning-fabric", "Training", "train") from error
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        device = next(name for name in ("cuda", "mps", "cpu") if available[name])
    if not available[device]:
        raise OptionError(f"Device {device} is not available.", "Set machine.device in the recipe to auto or cpu.")
    if precision == "fp16" and device != "cuda":  # Fabric would silently use bf16
        raise OptionError(f"Precision fp16 does not train on {device}.", "Set precision to bf16 or fp32 in the recipe.")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    world = Torchrun().world_size() if Torchrun.detect() else 1
    if world % nodes:
        raise OptionError(f"{world} process(es) on {nodes} nodes.", "Start torchrun on every node, with --nnodes.")
    fabric = Fabric(
        accelerator=device,
        devices=world // nodes,
        num_nodes=nodes,
        # smp's encoders have stages that a shallow decoder does not use.
        strategy=DDPStrategy(find_unused_parameters=True) if world > 1 else "auto",
        precision=PRECISIONS[precision],  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def sync_batchnorms(model: nn.Module, fabric: Fabric) -> nn.Module:
    """`model`, or on several GPUs a copy whose batch norms compute their statistics over all of them.

    torch has no such norms for CPUs: there each process sees its own share, and the main one's statistics are used.
    """
    if fabric.world_size == 1 or fabric.device.type != "cuda":
        return model
    import timm

    layers: Any = timm.layers
    convert = layers.convert_sync_batchnorm  # handles timm's norms with an activation inside, torch's does not
    copied: nn.Module = convert(copy.deepcopy(model))
    return copied


def broadcast_buffers(model: nn.Module) -> None:
    """Give every process the main one's buffers (batch norm statistics), which DDP does not synchronize."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def is_main_process() -> bool:
    """Whether this process is the one that writes files and reports progress."""
    return not dist.is_initialized() or dist.get_rank() == 0


def barrier() -> None:
    """Wait until every process has reached this call."""
    if dist.is_initialized():
        dist.barrier()
