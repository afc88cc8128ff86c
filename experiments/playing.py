"""One game of an experiment played and watched, and many of them at once and remembered.

A game is a dict of plain values, so that it can be hashed, kept as JSON and handed to another process: see `play`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import inspect
import json
import logging
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import as_completed
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.orphans import pool
from benchmarks.recipes import header
from lightning_gans import TECHNIQUES, callbacks, datamodules, networks, regularizers, wrappers
from lightning_gans.compat.lightning import callbacks as lightning_callbacks
from lightning_gans.compat.lightning import loggers, pl
from lightning_gans.engine.logbook import NonFiniteError
from lightning_gans.gan import GANModule
from lightning_gans.runs.atomic import replacing, write_text
from lightning_gans.runs.checkpoints import read_checkpoint

Game = dict[str, Any]
Result = dict[str, Any]
TOYS = ("Ring", "Grid")
IMAGES = ("Digits", "MNIST", "FashionMNIST", "CIFAR10")
TEXTS = ("MarkovText",)
LINES = ("Gaussian1D", "PointMass", "RareTail1D")


class Rows(loggers.Logger):
    """Keeps what is logged in memory, a dict per step, and the seconds of computing that training had taken by then."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.rows = clock.rows

    name = version = ""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add to the row of `step`."""
        row = self.rows.setdefault(int(step or 0), {"step": int(step or 0)})
        row |= {name: float(value) for name, value in metrics.items()}
        row["seconds"] = self.clock.seconds

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the game says all."""


class Clock(pl.Callback):
    """Seconds spent in training steps alone, scores and diagnostics left out: of the processor, or of the GPU's host.

    Processor time, since several games share the machine; on a GPU the wall's clock, after the device is done. It is
    kept in checkpoints, with the rows that were logged by then.
    """

    def __init__(self) -> None:
        self.seconds, self.start = 0.0, 0.0
        self.rows: dict[int, dict[str, float]] = {}

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"seconds": self.seconds, "rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Of a checkpoint."""
        self.seconds = state_dict["seconds"]
        self.rows |= state_dict["rows"]

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def on_train_batch_start(self, *args: Any) -> None:
        """Before a cycle."""
        self.start = self._now()

    def on_train_batch_end(self, *args: Any) -> None:
        """After it, and before any callback behind this one."""
        self.seconds += self._now() - self.start


class Uniform(nn.Module):
    """Makes U(-1, 1) of the normal noise, 2 Phi(z) - 1, for a generator behind it."""

    def forward(self, z: Tensor) -> Tensor:
        """Of z (N, latent_dim)."""
        return 2 * torch.special.ndtr(z) - 1


class Memory(pl.Callback):
    """The most bytes that autograd held at once for backward passes, storages counted once, in one early cycle."""

    def __init__(self) -> None:
        self.bytes, self.live = 0, 0
        self.counts: dict[int, int] = {}
        self.hooks: Any = None

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:
        """The third cycle, when optimizers have their state."""
        if module.global_step == 2:
            self.hooks = torch.autograd.graph.saved_tensors_hooks(partial(_Held, self), lambda held: held.tensor)
            self.hooks.__enter__()

    def on_train_batch_end(self, *args: Any) -> None:
        """Done."""
        if self.hooks is not None:
            self.hooks.__exit__(None, None, None)
            self.hooks = None


class _Held:
    """A saved tensor, counted as long as it lives."""

    def __init__(self, memory: Memory, tensor: Tensor) -> None:
        self.memory, self.tensor = memory, tensor.detach()  # with its graph it would keep itself alive
        storage = tensor.untyped_storage()
        self.key, self.size = storage.data_ptr(), storage.nbytes()
        if self.key not in memory.counts:
            memory.live += self.size
            memory.bytes = max(memory.bytes, memory.live)
        memory.counts[self.key] = memory.counts.get(self.key, 0) + 1

    def __del__(self) -> None:
        self.memory.counts[self.key] -= 1
        if not self.memory.counts[self.key]:
            del self.memory.counts[self.key]
            self.memory.live -= self.size


def _at(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _optimizer(path: str, options: dict[str, Any]) -> Callable[..., torch.optim.Optimizer]:
    return partial(_at(path), **options)


def _callback(name: str) -> Callable[..., pl.Callback]:
    return _at(name) if "." in name else getattr(callbacks, name)  # type: ignore[no-any-return]


def _is_data(option: Any) -> bool:
    return isinstance(option, (list, tuple)) and len(option) == 2 and option[0] in datamodules.__all__


def _data(name: str, options: Game, batch_size: int) -> Any:
    """A data module; an option [class, options] is one too, and then says the size of the batches."""
    inner = {key: _data(value[0], value[1], batch_size) for key, value in options.items() if _is_data(value)}
    numbers = {key: torch.tensor(v) for key, v in options.items() if key == "probabilities"}
    made = getattr(datamodules, name)
    own = {"batch_size": batch_size} if "batch_size" in inspect.signature(made).parameters else {}
    return made(**{**own, **options, **numbers, **inner})


def _sources(name: str, options: Game) -> set[str]:
    """The data sets that a data module is made of."""
    inner = [_sources(value[0], value[1]) for value in options.values() if _is_data(value)]
    if inner:  # what is made of others has nothing of its own to prepare
        return set().union(*inner)
    own = getattr(getattr(datamodules, name), "prepare_data", None)  # Lightning's does nothing
    return {name} if own not in (None, pl.LightningDataModule.prepare_data) else set()


def scored(game: Game) -> str:
    """The data set that a game is scored against: what others are made of, and the clean one where a share is not."""
    name, options = game["data"], game.get("data_options", {})
    while (inner := options.get("base", options.get("data"))) is not None:
        name, options = inner
    return str(name)


def build(game: Game) -> tuple[GANModule, Any]:
    """The module and the data of a game."""
    pl.seed_everything(game["seed"], verbose=False)
    data = _data(game["data"], game.get("data_options", {}), game["batch_size"])

    def network(spec: Sequence[Any], wrap: Sequence[Any] = ()) -> nn.Module:
        name, options = spec
        made = _at(name) if "." in name else getattr(networks, name)
        fitted = {"shape": tuple(data.shape), "latent_dim": game["latent_dim"]}
        net = made(**{k: v for k, v in fitted.items() if k in inspect.signature(made).parameters}, **options)
        for wrapper, wrapper_options in wrap:
            net = getattr(wrappers, wrapper)(net, **wrapper_options)
        return net

    generator, discriminator = network(game["generator"]), network(game["discriminator"], game.get("wrap", ()))
    nets = nn.Sequential(Uniform(), generator) if game.get("uniform_noise") else generator, discriminator
    options = dict(game.get("options", {}))
    for player, spec in game.get("optimizers", {}).items():
        options[f"optimizer_{player}"] = _optimizer(*spec)
    if game.get("decay"):  # the learning rates fall to nothing
        fall = partial(torch.optim.lr_scheduler.LinearLR, start_factor=1, end_factor=0, total_iters=game["updates"])
        options |= {"scheduler_g": fall, "scheduler_d": fall}
    for third in ("classifier", "weight_network", "encoder", "measure"):  # last, so that the others start as without it
        if third in game:
            options[third] = network(game[third])
    own = [getattr(regularizers, name)(**kwargs) for name, kwargs in game.get("regularizers", [])]
    if own:
        options["regularizers"] = own
    technique = game["technique"]
    made = _at(technique) if "." in technique else TECHNIQUES[technique]
    return made(*nets, game["latent_dim"], **options), data


def play(game: Game) -> Result:
    """Train one game and tell what was seen.

    Args:
        game: ``technique`` (of ``TECHNIQUES``, or the path of a function of the same arguments) with ``options`` and
            ``regularizers``; ``data`` (a data module's class) with ``data_options``, of which one that is [class,
            options] is a data module, or a tail, too; ``generator``, ``discriminator`` and perhaps ``classifier``,
            ``weight_network``, ``encoder`` or ``measure`` as [class, options], a network of ours or the path of a
            class, and ``wrap`` as [[wrapper, options], ...] for the discriminator; perhaps ``optimizers`` as {"g":
            [class path, options], "d": ...}, ``decay`` (of both learning rates, to 0), ``uniform_noise``;
            ``latent_dim``, ``batch_size``, ``updates``, ``seed``, ``ema`` (decay), ``every`` (updates between scores),
            ``log_every``, ``score`` (its options; None for no score), ``watch`` as [[callback, options], ...], a
            callback of ours or the path of a class, ``save_every`` (updates between checkpoints, from which a game that
            was broken off goes on), ``start`` (another game, with whose last weights this one begins).

    Returns:
        ``rows``: what was logged, by generator update, scores and ``seconds`` of training among it; ``weights``: 201
        quantiles of the discriminator's parameters; ``failed``: the error that ended it, or None; ``curves``: the
        history of ``SurrogateObjective``, if it watched; ``bytes``: the most that autograd held, see `Memory`.
    """
    torch.set_num_threads(1)
    _quiet()
    module, data = build(game)
    if "start" in game:
        weights = ends(game["start"] | {"seed": game["seed"]}, Path(game["folder"]).parent)
        own = {name.split(".")[0] for name in module.state_dict()}  # it may have fewer networks
        weights = {name: value for name, value in weights.items() if name.split(".")[0] in own}
        assert any(name.split(".")[0] == "generator" for name in weights), "the start's generator has another name"
        assert not module.load_state_dict(weights, strict=False).unexpected_keys  # missing: a classifier that is new
    clock, memory = Clock(), Memory()
    rows = Rows(clock)
    watching = [_callback(name)(**options) for name, options in game.get("watch", [])]
    if scored(game) in (*TOYS, *LINES, "StackedMNIST"):
        score: list[Any] = [callbacks.ModeCoverage(game["every"], **game.get("score", {}))]
    elif scored(game) in TEXTS:
        score = [callbacks.TextMetrics(game["every"], **game.get("score", {}))]
    elif game["score"] is None:
        score = []
    else:
        score = [callbacks.GenerativeMetrics(game["every"], **{"metrics": ["fid"], **game["score"]})]
    averaging = [callbacks.EMA(game["ema"])] if game.get("ema") else []
    folder, saving = Path(game["folder"]), []
    if game.get("save_every"):
        every = game["save_every"]
        saving = [
            lightning_callbacks.ModelCheckpoint(folder, "last", every_n_train_steps=every, enable_version_counter=False)
        ]
    trainer = pl.Trainer(
        max_steps=game["updates"], max_epochs=-1, logger=rows, log_every_n_steps=game["log_every"], devices=1,
        callbacks=[clock, memory, *averaging, *watching, *score, *saving], enable_checkpointing=bool(saving),
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0, default_root_dir=str(folder),
    )  # fmt: skip
    failed, last = None, folder / "last.ckpt"
    # one that was broken off at its very end would make no update any more, and so no last score
    goes_on = saving and last.exists() and read_checkpoint(last)["global_step"] < game["updates"]
    try:
        trainer.fit(module, datamodule=data, ckpt_path=str(last) if goes_on else None)
        if not all(bool(p.isfinite().all()) for p in module.parameters()):
            failed = "not finite"
    except NonFiniteError:
        failed = "not finite"
    except (ValueError, RuntimeError) as error:
        failed = str(error)
    looked_at = getattr(module, "discriminator", module.trained_network)  # a model without an adversary has none
    weights = torch.cat([p.detach().flatten() for p in looked_at.parameters()]).double().cpu()
    spread = weights[torch.linspace(0, len(weights) - 1, 100_000).long()] if len(weights) > 100_000 else weights
    sample = module.sample(100, generator=torch.Generator().manual_seed(0)).cpu()
    return {
        "rows": [rows.rows[step] for step in sorted(rows.rows)],
        "weights": torch.quantile(spread, torch.linspace(0, 1, 201).double()).tolist() if not failed else [],
        "parameters": {
            name: sum(p.numel() for p in net.parameters()) for name, net in (("g", module.generator), ("d", looked_at))
        },
        "failed": failed,
        "bytes": memory.bytes,
        "curves": next((w.history for w in watching if hasattr(w, "history")), []),
        "kept": {type(w).__name__: w.kept for w in watching if hasattr(w, "kept")},
        "sample": sample.tolist(),
    }


def ends(game: Game, runs: Path) -> dict[str, Tensor]:
    """The weights that a game ends with, which is played once and kept under ``runs``, or was there with a checkpoint.

    Games that begin at the same moment may each play it, which gives the same; none finds another's half-written.
    """
    played = [path.with_suffix("") / "last.ckpt" for path in runs.glob(f"*-{_key(game)}.json")]
    last = next((path for path in played if path.exists()), runs / f"start-{_key(game)}" / "last.ckpt")
    if not last.exists():
        runs.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=runs, prefix="start-") as folder:
            play(game | {"folder": folder, "save_every": game["updates"]})
            last.parent.mkdir(exist_ok=True)
            with replacing(last) as part:
                shutil.copyfile(Path(folder) / "last.ckpt", part)
    weights: dict[str, Tensor] = torch.load(last, weights_only=True)["state_dict"]
    return weights


def _quiet() -> None:
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


# ---------------------------------------------------------------------------------------------- many games
def sweep(games: Mapping[str, Game], seeds: Iterable[int], arguments: argparse.Namespace) -> dict[str, list[Result]]:
    """Play every game with every seed, several at once; the results by name, in the order of the seeds.

    A result is kept under ``--runs`` by the hash of its game, with the commit it was made at; what is there already is
    not played again.
    """
    runs, seeds = Path(arguments.runs), list(seeds)
    runs.mkdir(parents=True, exist_ok=True)
    at = commit()
    todo: dict[Path, Game] = {}
    paths: dict[str, list[Path]] = {}
    for name, game in games.items():
        paths[name] = []
        for seed in seeds:
            seeded = {**game, "seed": seed}
            path = runs / f"{_slug(name)}-{_key(seeded)}.json"
            path = next(iter(sorted(runs.glob(f"*-{_key(seeded)}.json"))), path)
            paths[name].append(path)
            if not path.exists() and path not in todo:
                todo[path] = {**seeded, "folder": str(path.with_suffix(""))}

    for name in sorted(set().union(*(_sources(g["data"], g.get("data_options", {})) for g in todo.values()))):
        getattr(datamodules, name)().prepare_data()  # once, so that no two games download it

    def keep(path: Path, result: Result) -> None:
        write_text(path, json.dumps({**result, "game": todo[path], "commit": at}))

    bar = partial(tqdm, total=len(todo), desc="games", disable=not todo)
    if arguments.jobs == 1:
        for path, game in bar(todo.items()):
            keep(path, play(game))
    else:
        with pool(arguments.jobs) as processes:
            jobs = {processes.submit(play, game): path for path, game in todo.items()}
            for job in bar(as_completed(jobs)):
                if job.exception() is None:
                    keep(jobs[job], job.result())
        for job in jobs:
            job.result()  # raises what went wrong, now that all the others are kept
    return {name: [json.loads(path.read_text()) for path in found] for name, found in paths.items()}


@cache
def commit() -> str:
    """Of the code that plays, as it was when it was first asked for."""
    return header("")[1].removeprefix("- commit: ")


def once(path: Path, made: Callable[[], Result]) -> Result:
    """What is kept in a file, with the commit it was made at; made if it is not there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        at = commit()
        write_text(path, json.dumps(made() | {"commit": at}))
    result: Result = json.loads(path.read_text())
    return result


def told(*values: Any) -> str:
    """A short name of values that a result depends on, for its file's."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]


def _key(game: Game) -> str:
    return hashlib.sha256(json.dumps(_by_content(game), sort_keys=True).encode()).hexdigest()[:12]


def _by_content(value: Any) -> Any:
    """With the digest of a file in the place of its path: another text is another game, wherever it lies."""
    if isinstance(value, dict):
        return {name: _digests(v) if name == "path" else _by_content(v) for name, v in value.items()}
    return [_by_content(v) for v in value] if isinstance(value, list) else value


def _digests(path: Any) -> Any:
    """Of a file, or of each of several; anything else as it is."""
    if isinstance(path, list):
        return [_digests(part) for part in path]
    found = isinstance(path, str) and os.path.isfile(path)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() if found else path


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())


# ---------------------------------------------------------------------------------------------- the usual games
def toy_game(data: str, updates: int, width: int = 128, **more: Any) -> Game:
    """WGAN-GP's toy networks and values at a quarter of the width (configs/ring), learning rates of our recipes."""
    return {
        "data": data, "latent_dim": 2, "batch_size": 256, "updates": updates, "ema": 0.99,
        "every": max(1, updates // 4), "log_every": 10,
        "generator": ["ToyGenerator", {"width": width}], "discriminator": ["ToyDiscriminator", {"width": width}],
        **more,
    }  # fmt: skip


def line_game(data: str, updates: int, width: int = 32, **more: Any) -> Game:
    """The 1-width-1 nets of a study of the primal-dual GAN (configs/toy1d); no EMA."""
    return {
        "data": data, "latent_dim": 1, "batch_size": 256, "updates": updates,
        "every": max(1, updates // 20), "log_every": max(1, updates // 100),
        "generator": ["ToyGenerator", {"width": width, "depth": 1}],
        "discriminator": ["ToyDiscriminator", {"width": width, "depth": 1}],
        **more,
    }  # fmt: skip


def score_of(data: str) -> str:
    """Under which name the one score of a data set is logged."""
    if data in TOYS:
        return "metrics/high_quality"
    if data in LINES:
        return "metrics/w1"
    if data == "StackedMNIST":
        return "metrics/modes/lenet"
    return "metrics/fid/resnet" if data in ("CIFAR10", "Shapes") else "metrics/fid/lenet"


def image_game(data: str, updates: int, width: int = 16, norm: str = "none", batch_size: int = 32, **more: Any) -> Game:
    """DCGAN's networks, narrow; the score is FID by a small classifier trained on the data."""
    extractor = score_of(data).rsplit("/", 1)[1]
    return {
        "data": data, "latent_dim": 64, "batch_size": batch_size, "updates": updates, "ema": 0.99,
        "every": max(1, updates // 4), "log_every": 10,
        "score": {"extractor": extractor, "num_fake": 2000, "num_real": None if data == "Digits" else 10_000},
        "generator": ["DCGANGenerator", {"width": width}],
        "discriminator": ["DCGANDiscriminator", {"width": width, "norm": norm}],
        **({"data_options": {"download": False}} if data != "Digits" else {}),
        **more,
    }  # fmt: skip


def shapes_game(arguments: argparse.Namespace, latent_dim: int = 48, **more: Any) -> Game:
    """StyleGAN2's networks, narrow, on coloured shapes of 16 pixels (configs/shapes), without mixed styles.

    Args:
        arguments: ``updates``, ``widths``, ``items`` (of training), ``fakes`` (scored by a small ResNet, 0 for none).
        latent_dim: length of z and w.
        more: what differs.
    """
    updates, widths, fakes = arguments.updates, arguments.widths, arguments.fakes
    data = {"side": 16, "items": arguments.items, "held_out": arguments.items // 5}
    options = {"r1_gamma": 1.0, "path_length_weight": 0.0, "style_mixing": 0.0, "lr_g": 2e-3, "lr_d": 2e-3}
    return {
        "technique": "style_gan2", "data": "Shapes", "data_options": data, "latent_dim": latent_dim,
        "batch_size": 32, "updates": updates, "ema": 0.99, "every": updates, "log_every": min(10, updates),
        "save_every": updates // 4 + 1,  # not at the end, which is still to be looked at
        "score": {"extractor": "resnet", "num_fake": fakes, "num_real": None} if fakes else None,
        "generator": ["StyleGenerator", {"widths": widths}],
        "discriminator": ["StyleDiscriminator", {"widths": widths}],
        **more, "options": options | more.get("options", {}),
    }  # fmt: skip
