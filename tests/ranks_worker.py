"""What two ranks do for test_distributed.py: train, and leave what rank 0 found in a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from common import OTHERS, PENALISED, VARIANTS, build, equal, make, noisy_loader, plain, state, trainer
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_gans import GANModule
from lightning_gans.compat.lightning import callbacks, pl
from lightning_gans.datamodules.memory import MemoryLoader
from lightning_gans.engine import distributed, logbook
from lightning_gans.functional import draw, mean_over_ranks


def sgd(parameters: Iterable) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-2)


IN_FLOAT32 = ("gan", "wgan_gp", "prc_gan", "robust_wgan")  # two networks, a penalty, a third network of each kind
STEPS = 5  # of an epoch of 4 batches, so that a second one begins
SGD: dict[str, Any] = {"optimizer_g": sgd, "optimizer_d": sgd}  # Adam amplifies rounding


class Again(torch.optim.SGD):
    """Steps twice by gradients at two points, of which the second is taken by calling the closure again."""

    def step(self, closure: Any) -> Any:  # type: ignore[override]
        loss = closure()
        super().step()
        closure()
        super().step()
        return loss


def again(parameters: Iterable) -> torch.optim.Optimizer:
    return Again(parameters, lr=1e-2)


def searching(parameters: Iterable) -> torch.optim.Optimizer:
    """Asks as often as the losses that it is told make it."""
    return torch.optim.LBFGS(parameters, lr=0.1, max_iter=3, line_search_fn="strong_wolfe")


REPEATED: dict[str, dict[str, Any]] = {
    "again": {"optimizer_g": again, "optimizer_d": again, "clip_grad_d": 0.5},
    "search": SGD | {"optimizer_d": searching},
    "sam": SGD | {"sam_g": 0.5, "sam_d": 0.5, "clip_grad_d": 0.5},
}


def loader(batch_size: int, dtype: torch.dtype = torch.float64) -> MemoryLoader:
    data = plain(32, dtype=dtype).dataset
    return MemoryLoader(data, None, batch_size, transform=_jitter)


def _jitter(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return x + 0.1 * draw.uniform(len(x), *x.shape[1:], generator=generator, dtype=x.dtype)


class GlobalBatchNorm(nn.Module):
    """BatchNorm over the batches of all ranks together; torch's SyncBatchNorm refuses the CPU."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = mean_over_ranks(x.mean(0))
        variance = mean_over_ranks((x - mean).square().mean(0))
        if self.training:
            self.running_mean.lerp_(mean.detach(), 0.1)
        return (x - mean) / (variance + 1e-5).sqrt() * self.weight + self.bias


def with_batch_norm(name: str) -> GANModule:
    """A technique whose networks (the critic of WGAN-GP excepted) normalise over the global batch."""
    torch.manual_seed(1)
    generator = nn.Sequential(nn.Linear(3, 8), GlobalBatchNorm(8), nn.ReLU(), nn.Linear(8, 2))
    # The search of wgan_alp normalises gradients that BatchNorm makes small, which amplifies rounding.
    norm = nn.Identity() if name in PENALISED or name == "wgan_alp" else GlobalBatchNorm(8)
    nets = [
        nn.Sequential(nn.Linear(2, 8), n, nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0)) for n in (norm, GlobalBatchNorm(8))
    ]
    return build(name, generator, *nets).double()


def weighs_samples() -> GANModule:
    """The technique that keeps a weight for each training sample, and solves for them anew every three updates."""
    return make("robust_wgan", weight_network=None, rho=0.1, w_every=3).double()


def permutes() -> GANModule:
    """The technique whose texts get the rewards of others, with the mean over all of them off."""
    return make("seq_gan", reward="permuted", baseline="batch").double()


def train(module: GANModule, data: Any, steps: int, strategy: str = "gan_ddp", **options: Any) -> GANModule:
    pl.seed_everything(11, verbose=False)
    world = dist.get_world_size() if dist.is_initialized() else 1
    trainer(max_steps=steps, devices=world, strategy=strategy, **options).fit(module, train_dataloaders=data)
    return module


class _Settling(torch.optim.lr_scheduler.ReduceLROnPlateau):
    """Lowers the rate after each value that is not the least so far."""

    def __init__(self, optimizer: Any) -> None:
        super().__init__(optimizer, patience=0, factor=0.5, threshold=0.0)
        self.seen: list[float] = []

    def step(self, metrics: Any, epoch: Any = None) -> None:
        self.seen.append(float(metrics))
        super().step(metrics)


def settle(batch_size: int, strategy: str = "gan_ddp") -> list[float]:
    """What the schedulers of both players saw, by their losses and by a score of a user's, and the rates behind it."""

    class Scores(callbacks.Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            trainer.lr_scheduler_configs[0].scheduler.monitor = "own"

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            trainer.callback_metrics["own"] = pl_module.last_batch.real.mean()  # this rank's

    module = make("gan", scheduler_d=_Settling, scheduler_g=_Settling, **SGD).double()
    train(module, loader(batch_size), 2 * STEPS, strategy, callbacks=[Scores()])
    found = [config.scheduler for config in module.trainer.lr_scheduler_configs]
    return [number for one in found for number in (*one.seen, one.optimizer.param_groups[0]["lr"])]


def predict(data: Any, strategy: str = "gan_ddp") -> Any:
    world = dist.get_world_size() if dist.is_initialized() else 1
    return trainer(devices=world, strategy=strategy).predict(make("gan"), data)


def count_bytes(module: GANModule, data: Any, steps: int) -> int:
    counted, plain = [0], dist.all_reduce

    def counting(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        counted[0] += tensor.numel() * tensor.element_size()
        return plain(tensor, *args, **kwargs)

    dist.all_reduce = counting
    try:
        train(module, data, steps, log_every_n_steps=10**6)
    finally:
        dist.all_reduce = plain
    return counted[0]


def resume(folder: Path, strategy: str) -> bool:
    def one(steps: int, ckpt: str | None, every: int) -> GANModule:
        pl.seed_everything(11, verbose=False)
        module = make("wgan_gp", d_steps=3)
        save = callbacks.ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=every)
        t = trainer(max_steps=steps, devices=2, strategy=strategy, enable_checkpointing=True, callbacks=[save])
        t.fit(module, train_dataloaders=noisy_loader(60, 4, 0), ckpt_path=ckpt)
        return module

    whole = one(8, None, 4)
    again = one(8, str(folder / "step=4.ckpt"), 100)
    return equal(state(whole), state(again))


class Share(IterableDataset):
    """A rank's part of a stream, six batches of four on one and eight on the other."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield from torch.arange(24.0 + 8 * dist.get_rank())[:, None].expand(-1, 2)


class Told(Share):
    """One that says how many items it has."""

    def __len__(self) -> int:
        return 24 + 8 * dist.get_rank()


def end_together(share: Share, d_steps: int, **limits: int) -> tuple[int, int, bool]:
    """Updates, epochs and whether ranks are equal."""
    module = make("gan", d_steps=d_steps)
    train(module, DataLoader(share, 4), **{"steps": -1, **limits})
    return module.trainer.global_step, module.trainer.current_epoch, distributed.drifted(module) is None


class Extra(callbacks.EarlyStopping):
    """Watches a value that one rank alone has."""

    def __init__(self) -> None:
        super().__init__("d/extra", patience=99)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.global_rank:
            pl_module.values["d/extra"] = torch.tensor(1.0)


def watch_what_one_has() -> str:
    try:
        train(make("gan"), loader(4, torch.float32), 2, callbacks=[Extra()])
    except ValueError as error:
        return str(error)
    return "nothing was said"


def main(rank: int, folder: Path) -> None:
    """Train in every way; called on both ranks."""
    found: dict[str, Any] = {}
    for name in VARIANTS:
        module = train(with_batch_norm(name), loader(4), STEPS)
        found[name] = state(module)
        found |= {key: value for key, value in module.values.items() if key == "w/smallest"}
    for name in IN_FLOAT32:
        found[f"{name} float32"] = state(train(make(name, **SGD), loader(4, torch.float32), STEPS))
    for name in OTHERS:
        found[name] = state(train(make(name).double(), loader(4), STEPS))
    found["permuted"] = state(train(permutes(), loader(4), STEPS))
    for name, options in REPEATED.items():
        found[name] = state(train(make("wgan_gp", **options).double(), loader(4), STEPS))
    found["weights of samples"] = state(train(weighs_samples(), loader(4), STEPS))
    for strategy in ("auto", "ddp", "ddp_find_unused_parameters_true"):
        found[strategy] = state(train(make("wgan_gp").double(), loader(4), 5, strategy=strategy))
    module = make("wgan_gp")
    # of four more updates: what Lightning reduces when it starts is left out
    found["bytes"] = count_bytes(make("wgan_gp"), plain(), 8) - count_bytes(module, plain(), 4)
    expected = [sum(4 * p.numel() for p in net.parameters()) for net in (module.discriminator, module.generator)]
    found["gradient_bytes"] = 4 * (module.d_steps * expected[0] + expected[1])
    found["settled"] = distributed.gather_objects(settle(4))
    found["predicted"] = distributed.gather_objects(predict(DataLoader(torch.arange(12), 3)))
    found["numbers predicted"] = distributed.gather_objects(predict([3, 2]))
    found["resume"] = resume(folder / "gan_ddp", "gan_ddp")
    seen = train(make("gan"), noisy_loader(64, 4, 0), 1).last_batch
    assert seen is not None
    rows = [torch.empty_like(seen.real) for _ in range(2)]
    dist.all_gather(rows, seen.real)
    found["orders_differ"] = not torch.equal(*rows)
    games = [(share, steps, limits) for share in (Share(), Told()) for steps in (1, 4)
             for limits in ({"max_epochs": 3}, {"steps": 8})]  # fmt: skip
    found["ends"] = distributed.gather_objects([end_together(s, n, **limits) for s, n, limits in games])
    found["watched"] = distributed.gather_objects(watch_what_one_has())
    one, two = torch.tensor(1.0), torch.tensor(100)
    own = {"g/one": one, "g/hundred": two}
    found["means"] = logbook.means(dict(sorted(own.items(), reverse=rank == 1)), one.device)
    for name, others in {"one more": {"g/extra": one} if rank else {}, "another": {f"g/class{rank}": one}}.items():
        try:
            logbook.means(own | others, one.device)
        except ValueError as error:
            found[name] = str(error)
    module = make("gan")
    found["no_drift"] = distributed.drifted(module)
    if rank == 1:
        next(module.discriminator.parameters()).data += 1
    found["drift"] = distributed.drifted(module)
    if rank == 0:
        torch.save(found, folder / "found.pt")
