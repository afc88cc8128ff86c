"""Two ranks for a test, which meet in a file: a port that was free a moment ago may be somebody else's now."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def two_ranks(work: Callable[[int, Path], None], folder: Path) -> None:
    """``work(rank, folder)`` in two forked processes (spawned ones import for long) that are ranks for Lightning."""
    mp.start_processes(_rank, (work, folder), nprocs=2, start_method="fork")


def _rank(rank: int, work: Callable[[int, Path], None], folder: Path) -> None:
    os.environ |= {"WORLD_SIZE": "2", "NODE_RANK": "0", "LOCAL_RANK": str(rank), "CUDA_VISIBLE_DEVICES": ""}
    torch.set_num_threads(1)
    meet = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=timedelta(seconds=300))
    work(rank, folder)
    dist.barrier()
    dist.destroy_process_group()
