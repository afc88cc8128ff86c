"""The command line: ``fit``, ``test`` and ``predict`` of any technique on any data, each run in a folder of its own.

Beside them ``boost`` (rounds), ``score`` (images, whoever made them), ``export`` (the generator as a file) and
``directions`` (in the latent space).
"""

from __future__ import annotations

import argparse
import copy
import difflib
import importlib
import inspect
import io
import itertools
import json
import logging
import os
import re
import sys
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonargparse
import torch
import yaml
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

import lightning_gans.callbacks as gan_callbacks
import lightning_gans.datamodules as gan_datamodules
from lightning_gans import checks, networks, regularizers, techniques, tools, wrappers
from lightning_gans._lightning import callbacks, loggers, pl, pl_cli, utilities
from lightning_gans.base import PLAYERS, GANModule
from lightning_gans.callbacks.score import ScoreCallback
from lightning_gans.checkpoints import AtomicCheckpointIO, read_checkpoint
from lightning_gans.datamodules.base import GANDataModule
from lightning_gans.functional.boosting import BOOSTS
from lightning_gans.loggers import MetricsCSV
from lightning_gans.rounds import reweight
from lightning_gans.tools.latent_directions import DirectionCharts, LatentDirections
from lightning_gans.tools.load import HARMLESS, resolve_class
from lightning_gans.tools.score import score_samples
from lightning_gans.tools.write import SampleWriter

_BEST = "best-{step:06d}"
# What a checkpoint may name, and where it is defined, if it lies in no run.
_REMEMBERED = (nn.Module, regularizers.Regularizer, GANDataModule, torch.optim.Optimizer, LRScheduler)
_DEFINED = (*HARMLESS, "lightning_gans.datamodules.", "lightning_gans.optim", "torch.optim.")
_PACKAGES = (techniques, gan_datamodules, gan_callbacks, networks, regularizers, wrappers)


class _Parser(pl_cli.LightningArgumentParser):
    """Adds the nearest valid names to a parsing error, and leaves out the 250 lines of usage before it."""

    def print_usage(self, file: Any = None) -> None:
        """Nothing: an error ends with a hint at ``--help``."""

    def error(self, message: str, *args: Any, **kwargs: Any) -> Any:
        options = {part for action in self._actions for part in str(action.dest).split(".")}
        classes = {name for package in _PACKAGES for name in package.__all__}
        owners = [pl.Trainer, callbacks.ModelCheckpoint, *(getattr(p, name) for p in _PACKAGES for name in p.__all__)]
        known = options | classes | {name for owner in owners for name in _parameters(owner)}
        known |= {"Callback", "GANDataModule", "GANModule", "Logger", "Module", "NoneType"}
        quoted = re.findall(r"""["'`]([\w.]+)["'`]|Given value: ([\w.]+)|--([\w.]+)""", str(message))
        words = {word.split(".")[-1] for match in quoted for word in match if word}
        hints = {word: difflib.get_close_matches(word, known, n=3, cutoff=0.75) for word in sorted(words - known)}
        lines = [f"'{word}': did you mean {', '.join(near)}?" for word, near in hints.items() if near]
        lines = [line for line in lines if line not in str(message)]  # a parser within this one may have said it
        return super().error("\n  ".join([str(message), *lines]), *args, **kwargs)


class GANCLI(pl_cli.LightningCLI):
    """LightningCLI with run folders, networks that take their shape from the data, and a plan (``--dry_run``)."""

    trainer: Any
    uses_wandb = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.claimed: Path | None = None  # the folder that was made for this run
        try:
            super().__init__(*args, **kwargs)
        except BaseException:
            if self.claimed is not None:
                _remove_empty(self.claimed)
            raise

    def init_parser(self, **kwargs: Any) -> Any:
        """A parser with helpful errors. (The argument ``parser_class`` is younger than Lightning 2.4.)"""
        parser = super().init_parser(**kwargs)
        parser.__class__ = _Parser
        return parser

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """``fit``, ``test`` and ``predict``; GANs have no validation loss, so there is no ``validate``."""
        return {name: skip for name, skip in pl_cli.LightningCLI.subcommands().items() if name != "validate"}

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Fit the networks to the data, and keep what was asked for.

        Here, since Lightning 2.4 takes what checkpoints remember of the model from the result, and 2.6 lets a given
        checkpoint's values win over it, silently.
        """
        super().parse_arguments(parser, args)
        _fit_networks_to_data(self.config[self.config["subcommand"]])
        self.asked = self.config.clone()

    def add_arguments_to_parser(self, parser: Any) -> None:
        """Add the run folder, ``--dry_run``, and the callbacks that every run has."""
        parser.add_argument("--out", default="runs", help="Folder that holds the runs.")
        parser.add_argument("--name", default=None, help="Folder of this run in OUT; by default <data>-<model>/<date>.")
        parser.add_argument("--dry_run", action="store_true", help="Print the resolved plan and stop.")
        parser.add_argument("--threads", type=int | None, default=None, help="CPU threads of torch; null: its choice.")
        parser.add_argument("--samples", type=int, default=64, help="How many samples predict writes.")
        parser.add_argument("--npz", action="store_true", help="predict writes one array in place of many files.")
        parser.add_lightning_class_args(callbacks.ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(gan_callbacks.SampleGrid, "grid")
        parser.set_defaults({"checkpoint.save_last": True, "checkpoint.filename": _BEST})
        parser.set_defaults({"checkpoint.enable_version_counter": False, "checkpoint.every_n_train_steps": 1000})
        parser.set_defaults({"trainer.limit_val_batches": 0, "trainer.limit_test_batches": 1})
        parser.set_defaults({"trainer.max_epochs": -1, "trainer.enable_model_summary": False})

    @property
    def options(self) -> Any:
        """The parsed configuration of the subcommand that runs."""
        return self.config[self.subcommand]

    def before_instantiate_classes(self) -> None:
        """Choose the run's folder."""
        self.config = self.asked
        self.run_dir = self._run_folder()
        self.options["trainer"]["default_root_dir"] = str(self.run_dir)
        self.options["checkpoint"]["dirpath"] = str(self.run_dir / "checkpoints")
        if self.options["checkpoint"]["monitor"] is None and self.options["checkpoint"]["filename"] == _BEST:
            self.options["checkpoint"]["filename"] = "{step:06d}"
        if (threads := self.options["threads"]) is not None:
            checks.at_least_one(threads=threads)
            torch.set_num_threads(threads)
        known = self.run_dir / "wandb_id"  # the W&B run of this folder, which a resumed run goes on with
        self.wandb_id = known.read_text().strip() if known.is_file() else uuid.uuid4().hex[:8]
        self._name_wandb_run(self.wandb_id)

    def _name_wandb_run(self, run: str | None) -> None:
        chosen = self.options["trainer"].get("logger")
        for logger in chosen if isinstance(chosen, list) else [chosen]:
            if hasattr(logger, "get") and str(logger.get("class_path")).endswith("WandbLogger"):
                logger["init_args"]["id"], logger["init_args"]["save_dir"] = run, str(self.run_dir)
                self.uses_wandb = True

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Give the trainer a CSV of its metrics, whole checkpoints, and ``gan_ddp`` if there are several devices."""
        config = self.config_init[self.subcommand]["trainer"]
        chosen = config.get("logger")
        others = chosen if isinstance(chosen, list) else [chosen] if isinstance(chosen, loggers.Logger) else []
        own = [MetricsCSV(self.run_dir)] if self.subcommand == "fit" else []  # a test is no part of the run's curve
        kwargs["logger"] = False if chosen is False else [*own, *others] or False
        kwargs["plugins"] = [*(config.get("plugins") or []), AtomicCheckpointIO()]
        if config.get("strategy") in (None, "auto") and _several_devices(config):
            kwargs["strategy"] = "gan_ddp"
            if config.get("accelerator") != "cpu" and torch.cuda.is_available():  # torch synchronises it on GPUs only
                kwargs["sync_batchnorm"] = True
        given = config.get("callbacks") or []
        bars = [c for c in (given if isinstance(given, list) else [given]) if isinstance(c, callbacks.ProgressBar)]
        if bars or config.get("enable_progress_bar") is False:  # Lightning allows one bar, and none if it is off
            self.trainer_defaults = {k: v for k, v in self.trainer_defaults.items() if k != "callbacks"}
        return super().instantiate_trainer(**kwargs)

    def before_fit(self) -> None:
        """Print the plan if that is all that was asked for; else say where the run goes."""
        self._name_wandb_run(None)  # not in config.yaml, which another run may start from
        if self.options["dry_run"]:
            print(plan(self.model, self.datamodule, self.options, self.run_dir))
            raise SystemExit(0)
        if self.trainer.is_global_zero:
            print(f"Run folder: {self.run_dir}")
            if self.uses_wandb:
                (self.run_dir / "wandb_id").write_text(self.wandb_id)

    def after_fit(self) -> None:
        """Write the last checkpoint, and say where everything lies."""
        last = self.run_dir / "checkpoints" / "last.ckpt"
        self.trainer.save_checkpoint(last, weights_only=False)
        if self.trainer.is_global_zero:
            print(self._report(last))

    def before_test(self) -> None:
        """Refuse a test that would score nothing."""
        if not any(isinstance(callback, ScoreCallback) for callback in self.trainer.callbacks):
            raise SystemExit("error: there is nothing to score with: add --trainer.callbacks+=GenerativeMetrics.")

    def before_predict(self) -> None:
        """Feed sample counts instead of data, and write what comes back."""
        checks.at_least_one(samples=(n := self.options["samples"]))
        self.datamodule.predict_dataloader = lambda: [min(64, n - done) for done in range(0, n, 64)]
        folder = _unused(self.run_dir / "predictions")
        self.trainer.callbacks.append(SampleWriter(folder, self.datamodule.value_range, self.options["npz"]))

    def _run_folder(self) -> Path:
        checkpoint = self.options.get("ckpt_path")
        folder = _run_of(Path(checkpoint)) if checkpoint else None
        fresh = folder is None and self.subcommand == "fit"
        if folder is None:
            short = [self.options[k]["class_path"].rsplit(".", 1)[1].lower() for k in ("data", "model")]
            name = self.options["name"] or f"{'-'.join(short)}/{datetime.now():%Y%m%d-%H%M%S}"
            folder = Path(self.options["out"]) / name
        if self.options["dry_run"] or getattr(utilities.rank_zero_only, "rank", 0) != 0:  # only rank 0 writes
            return _unused(folder) if fresh else folder
        try:
            if fresh:
                folder = self.claimed = _claim(folder)
            folder.mkdir(parents=True, exist_ok=True)
            (probe := folder / ".writable").touch()
            probe.unlink()
        except OSError as error:
            raise SystemExit(
                f"error: the run folder {folder} cannot be written ({error.strerror}): choose another --out."
            ) from None
        return folder

    def _report(self, last: Path) -> str:
        saved = self.trainer.checkpoint_callback
        best = Path((getattr(saved, "monitor", None) and saved.best_model_path) or last)
        files = {
            "Sample grid": self.run_dir / "samples" / "latest.png",
            "Metrics": self.run_dir / "metrics.csv",
            **({"Best": best} if best != last else {}),
            "Checkpoint": last,
            "Config": (_configs(self.run_dir) or [Path()])[-1],
        }
        lines = ["", *(f"{what:<12} {path}" for what, path in files.items() if path.is_file())]
        for callback in self.trainer.callbacks:
            if isinstance(callback, ScoreCallback) and callback.history:
                first, latest = callback.history[0], callback.history[-1]
                for name in (n for n in latest if n in first and set(n.split("/")) & set(callback.in_progress_bar)):
                    scores = {"at step": first, "best, at step": callback.best(name), "last, at step": latest}
                    told = ", ".join(
                        f"{entry[name]:.4g} ({when} {entry['step']:.0f})" for when, entry in scores.items()
                    )
                    lines.append(f"{name.removeprefix('metrics/'):<12} {told}")
        return "\n".join(lines)


class SaveConfig(pl_cli.SaveConfigCallback):
    """Writes ``config.yaml`` into the run's folder; a resumed run whose differs adds ``config-<n>.yaml``."""

    def save_config(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Nothing: :meth:`on_train_start` does it."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Nothing: a configuration that does not get as far as training is not to be resumed with."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Write the file, on rank 0."""
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        text = self.parser.dump(self.config, skip_none=False)
        written = _configs(folder)
        if not written or written[-1].read_text() != text:
            path = folder / (f"config-{len(written) + 1}.yaml" if written else "config.yaml")
            path.with_suffix(".tmp").write_text(text)
            os.replace(path.with_suffix(".tmp"), path)


def plan(model: GANModule, data: GANDataModule, options: Any, run_dir: Path, steps: int = 3) -> str:
    """The resolved plan of a run: shapes, parameters, batches, and time and memory measured over a few real steps."""
    trial = copy.deepcopy(model)
    clock: list[float] = []

    class Clock(callbacks.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            clock.append(time.perf_counter())

    trainer_options = {k: options["trainer"].get(k) for k in ("accelerator", "precision")}
    trainer = pl.Trainer(max_steps=steps + 1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                         enable_model_summary=False, devices=1, limit_val_batches=0, callbacks=[Clock()],
                         **trainer_options)  # fmt: skip
    trainer.fit(trial, datamodule=data)
    seconds = (clock[-1] - clock[0]) / max(1, len(clock) - 1)
    size, updates = data.batch_size, options["trainer"].get("max_steps", -1)

    def count(net: nn.Module) -> str:
        return f"{type(net).__name__}, {sum(p.numel() for p in net.parameters()):,} parameters"

    total = f"{updates:,} generator updates, about {_duration(seconds * updates)}" if updates > 0 else "no max_steps"
    if torch.cuda.is_available() and trial.device.type == "cuda":
        memory = f"{torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB peak on the GPU"
    else:
        memory = f"{_peak_memory_mib():,.0f} MiB peak of this process"
    return "\n".join(
        [
            f"Technique      {type(model).__name__}, {model.d_steps} discriminator update(s) per generator update",
            f"Data           {data.describe()}",
            f"Samples        shape {tuple(data.shape)}, range {data.value_range}, classes {data.num_classes}",
            f"Generator      {count(model.generator)}, z of length {model.latent_dim}",
            f"Discriminator  {count(model.discriminator)}",
            f"Regularizers   {', '.join(r.name for r in model.regularizers) or 'none'}",
            f"Batch          {size} real samples for a discriminator update, {size * model.g_batch_factor} fakes for G",
            f"Cycle          {seconds * 1000:.1f} ms measured, {size * model.d_steps} images",
            f"Length         {total}",
            f"Memory         {memory}",
            f"Run folder     {run_dir}",
        ]
    )


def main(args: list[str] | None = None, default_config: Path | None = None) -> None:
    """Run the command line; ``default_config`` is what ``fit`` does when no ``--config`` is given."""
    from_shell = args is None
    args = list(sys.argv[1:] if args is None else args)
    if args and args[0] in OTHERS:
        return OTHERS[args[0]](args[1:])
    args = _resolve(args, default_config)
    if from_shell:
        sys.argv[1:] = args
    _silence()
    try:
        GANCLI(
            GANModule,
            GANDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            trainer_defaults={"callbacks": [gan_callbacks.GANProgressBar()]},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            args=None if from_shell else args,
        )
    except Exception as error:
        if (sentence := _sentence(error)) is None:
            raise
        raise SystemExit(f"error: {sentence}") from error


def boost(args: list[str]) -> None:
    """``boost``: a ``fit`` for each round, on the checkpoint of the one before (``--model.base``).

    The data of a round of AdaGAN are drawn by weights, for which a classifier, a new discriminator, is trained. Called
    again, it passes over finished rounds, and goes on with the one that was stopped.
    """
    parser = argparse.ArgumentParser("boost", description=boost.__doc__, epilog="All other options are those of fit.")
    parser.add_argument("--rounds", type=int, default=2, help="How many, the first one included.")
    parser.add_argument("--name", required=True, help="Folder in OUT; that of round k is NAME/round-k.")
    parser.add_argument("--first", help="Configuration of the first round, or a run or checkpoint in place of it.")
    parser.add_argument("--weights", choices=BOOSTS, default="star", help="How AdaGAN weighs the data.")
    parser.add_argument("--out", default="runs")
    own, rest = parser.parse_known_args(args)
    if own.rounds < 1:
        raise SystemExit(f"error: rounds must be an integer >= 1, got {own.rounds}.")
    base: Path | None = None
    for k in range(own.rounds):
        if k == 0 and own.first and not own.first.endswith((".yaml", ".yml")):
            base = Path(own.first)
            base = base / "checkpoints" / "last.ckpt" if base.is_dir() else base
            try:
                read_checkpoint(base)
            except (FileNotFoundError, ValueError) as error:
                raise SystemExit(f"error: --first: {error}") from error
            continue
        folder = Path(own.out, own.name)
        if (run := _newest_run(folder, k)) is None:
            options = ["--config", own.first] if k == 0 and own.first else rest
            grown = [] if base is None else [f"--model.base={base}"]
            seed = [] if k == 0 or any(a.startswith("--seed_everything") for a in rest) else [f"--seed_everything={k}"]
            data = [] if base is None else _reweighted(options, base, folder / f"weights-{k}", own.weights, k)
            main(["fit", *options, *seed, *grown, *data, f"--out={folder}", f"--name=round-{k}"])
        elif not _finished(run):
            main(["fit", f"--ckpt_path={run}"])
        run = _newest_run(folder, k)
        assert run is not None
        base = run / "checkpoints" / "last.ckpt"


def score(args: list[str]) -> None:
    """``score``: a folder, .zip or .npz file of images, whoever made them, against a data set."""
    parser = _Parser("score", description=score.__doc__ or "")
    parser.add_argument("--samples", required=True, help="Folder or .zip of images, or .npz with samples (N, H, W, C).")
    parser.add_subclass_arguments(GANDataModule, "data", required=True)
    parser.add_function_arguments(score_samples, skip={"samples", "data"})
    parser.add_argument("--out", type=str | None, default=None, help="JSON file for the scores and their protocol.")
    if torch.cuda.is_available():
        parser.set_defaults({"device": "cuda"})
    parsed = parser.parse_args(args)
    with _told():
        given = parser.instantiate_classes(parsed)
        options = {k: v for k, v in vars(given).items() if k not in ("config", "samples", "data", "out")}
        found = score_samples(given.samples, given.data, **options)
    print(f"{given.samples}: {found['protocol']['fakes']:,} images against {given.data.name}")
    for name, value in found["scores"].items():
        print(f"{name:<24} {value:.6g}")
    if given.out:
        path = Path(given.out)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_text(json.dumps(found, indent=2) + "\n")
        os.replace(part, path)


def export(args: list[str]) -> None:
    """``export``: the generator of a run or checkpoint as a .pt2 file (torch.export) or an .onnx file."""
    parser = argparse.ArgumentParser("export", description=export.__doc__)
    parser.add_argument("--ckpt_path", required=True, help="Folder of a run, or a checkpoint.")
    parser.add_argument("--out", required=True, help="File to write, .pt2 or .onnx.")
    parser.add_argument("--which", choices=("last", "best"), default="last", help="Which checkpoint of a folder.")
    parser.add_argument("--weights", choices=("ema", "raw"), default="ema", help="Averaged weights if there are any.")
    own = parser.parse_args(args)
    with _told():
        print(f"Generator    {tools.export(tools.load(own.ckpt_path, own.which, own.weights), own.out)}")


@contextmanager
def _told() -> Iterator[None]:
    """What a user has done wrong, as one sentence."""
    try:
        yield
    except (ValueError, FileNotFoundError, ImportError) as error:
        raise SystemExit(f"error: {_sentence(error) or error}") from error


def directions(args: list[str]) -> None:
    """``directions``: find and draw directions in the latent space of a trained GAN, in a folder of its run."""
    parser = argparse.ArgumentParser("directions", description=directions.__doc__)
    parser.add_argument("--ckpt_path", type=Path, required=True, help="A checkpoint or the folder of a run.")
    parser.add_argument("--num_directions", type=int, default=None, help="By default the length of z.")
    parser.add_argument("--kind", default="orthonormal", help="orthonormal, unit or free.")
    parser.add_argument("--init", default="random", help="random or axes.")
    parser.add_argument("--max_steps", type=int, default=20_000)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args(args))
    path, steps = options.pop("ckpt_path"), options.pop("max_steps")
    _silence()
    try:
        checks.at_least_one(max_steps=steps)
        path = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
        data = read_checkpoint(path).get("datamodule_hyper_parameters", {})
        pl.seed_everything(options["seed"], verbose=False)
        found = LatentDirections(tools.load(path), **options)
        folder = _claim((_run_of(path) or path.parent) / "directions")
        charts = DirectionCharts(value_range=data.get("value_range") or (-1.0, 1.0), dirpath=folder)
        trainer = pl.Trainer(max_steps=steps, devices=1, default_root_dir=str(folder), logger=MetricsCSV(folder),
                             callbacks=[charts], plugins=[AtomicCheckpointIO()], enable_checkpointing=False,
                             enable_model_summary=False, num_sanity_val_steps=0)  # fmt: skip
        trainer.fit(found)
        trainer.save_checkpoint(folder / "last.ckpt")
        seen = trainer.validate(found, verbose=False)[0]
    except Exception as error:
        if (sentence := _sentence(error)) is None:
            raise
        raise SystemExit(f"error: {sentence}") from error
    chance = 1 / found.num_directions
    print(f"RCA          {seen['directions/rca']:.3f} (chance {chance:.3f})")
    print(f"Shift error  {seen['directions/shift_error']:.3f}\nCharts       {folder}")


OTHERS = {"boost": boost, "directions": directions, "export": export, "score": score}


def _reweighted(args: list[str], base: Path, folder: Path, weights: str, seed: int) -> list[str]:
    """What tells ``fit`` the data of AdaGAN's next round, after ``base``; nothing for other techniques."""
    printed = io.StringIO()
    with redirect_stdout(printed), suppress(SystemExit):  # of mistakes fit will tell
        main(["fit", *args, "--print_config"])
    config = yaml.safe_load(printed.getvalue()) or {}
    model, data = config.get("model"), config.get("data")
    if not model or not data or not model["class_path"].endswith(".AdaGAN"):
        return []
    fitted = jsonargparse.dict_to_namespace({"model": model, "data": data})
    _fit_networks_to_data(fitted)
    pl.seed_everything(seed, verbose=False)
    classifier = _built(fitted["model"]["init_args"]["discriminator"].as_dict())
    folder.mkdir(parents=True, exist_ok=True)
    print(f"AdaGAN: weighing the data for {folder.parent}/round-{seed}")
    reweight(_built(data), tools.load(base), classifier, folder, weights=weights, beta=model["init_args"]["beta"])  # type: ignore[arg-type]
    drawn = {"class_path": "Resampled", "init_args": {"data": data, "probabilities": str(folder / "weights.pt")}}
    return ["--data", json.dumps(drawn)]


def _newest_run(folder: Path, k: int) -> Path | None:
    """The run of round k that has a checkpoint; a run that was stopped before its first one has none."""
    found = [path.parent.parent for path in folder.glob(f"round-{k}*/checkpoints/last.ckpt")]
    found = [run for run in found if re.fullmatch(rf"round-{k}(-\d+)?", run.name)]
    return max(found, key=lambda run: run.stat().st_mtime, default=None)


def _finished(run: Path) -> bool:
    """Whether a run has made the updates that its newest configuration asks for."""
    trainer = yaml.safe_load(_configs(run)[-1].read_text())["trainer"]
    return read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] >= trainer["max_steps"]


def _sentence(error: Exception) -> str | None:
    """What a user is told instead of a traceback if the mistake is theirs: what our own code, or Lightning, refuses."""
    if isinstance(error, utilities.exceptions.MisconfigurationException) or "stateful callback" in str(error):
        return str(error)
    if isinstance(error, RuntimeError) and "loading state_dict" in str(error):
        detail = " ".join(str(error).splitlines()[1:2]).strip().rstrip(".")
        return f"The checkpoint does not fit the networks that the configuration asks for ({detail})."
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_by = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    if raised_by.startswith("jsonargparse.") and isinstance(error.__cause__, Exception):
        return _sentence(error.__cause__)  # raised by a constructor
    refused = raised_by.startswith("lightning_gans.") and isinstance(error, (ValueError, FileNotFoundError))
    return str(error) if refused or (raised_by == checks.__name__ and isinstance(error, TypeError)) else None


def _silence() -> None:
    """Leave out what a user can do nothing about."""
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # of Lightning's own calls
    for message in (
        "isinstance",
        "does not have many workers",
        "smaller than the logging interval",
        "Checkpoint directory",
        "Couldn't infer the batch indices",
        "The dirpath has changed",
        "args parameter is intended",
        "in eval mode at the start of training",
    ):
        warnings.filterwarnings("ignore", message=f".*{message}.*")
    for name in ("pytorch_lightning.utilities.rank_zero", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).addFilter(lambda record: "litlogger" not in record.getMessage())


def _resolve(args: list[str], default_config: Path | None) -> list[str]:
    """A run folder as ``--ckpt_path`` means its last checkpoint; a checkpoint brings its configuration along."""
    if not args or args[0] not in GANCLI.subcommands():
        return args
    config = None if default_config is None else str(default_config)
    i = next((i for i, arg in enumerate(args) if arg.partition("=")[0] == "--ckpt_path"), None)
    if i is not None and args[i:] != ["--ckpt_path"]:
        name, inline, value = args[i].partition("=")
        path = Path(value if inline else args[i + 1])
        path = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
        try:
            checkpoint = read_checkpoint(path)
        except (FileNotFoundError, ValueError) as error:
            raise SystemExit(f"error: --ckpt_path: {error}") from error
        args[i : i + (1 if inline else 2)] = [f"{name}={path}"]
        folder = _run_of(path)
        config = str(_configs(folder)[-1]) if folder is not None else _remembered_config(checkpoint)
    elif i is None and args[0] != "fit" and not any(a.startswith(("-h", "--help", "--print_config")) for a in args):
        raise SystemExit(f"error: {args[0]} needs --ckpt_path, a checkpoint or the folder of a run.")
    if config is not None and not any(a.partition("=")[0] in ("-c", "--config") for a in args):
        args[1:1] = ["--config", config]
    return args


def _remembered_config(checkpoint: dict[str, Any]) -> str | None:
    """Model and data as a checkpoint knows them, for one that lies in no run folder; JSON is YAML.

    It may be a stranger's, so that only classes which ``load`` would build are taken, data and optimizers.
    """
    config: dict[str, Any] = {}
    for name, key in (("model", "hyper_parameters"), ("data", "datamodule_hyper_parameters")):
        options = {k: v for k, v in checkpoint.get(key, {}).items() if k != "_instantiator"}
        if (class_path := options.pop("_class_path", None)) is not None:
            config[name] = {"class_path": class_path, "init_args": options}
    try:
        for class_path in _class_paths(config):
            resolve_class(class_path, _REMEMBERED, harmless=_DEFINED)
    except ValueError as error:
        told = str(error).partition(";")[0].rstrip(".")
        raise SystemExit(f"error: --ckpt_path: {told}; if you trust it, give its configuration by --config.") from error
    return json.dumps(config) if config else None


def _class_paths(config: Any) -> Iterator[str]:
    """All of a configuration."""
    if isinstance(config, dict) and "class_path" in config:
        yield str(config["class_path"])
    for value in config.values() if isinstance(config, dict) else config if isinstance(config, (list, tuple)) else ():
        yield from _class_paths(value)


def _configs(folder: Path) -> list[Path]:
    """``config.yaml``, ``config-2.yaml`` ... of a run, oldest first."""
    found = [path for path in folder.glob("config*.yaml") if re.fullmatch(r"config(-\d+)?", path.stem)]
    return sorted(found, key=lambda path: int(path.stem.partition("-")[2] or 1))


def _remove_empty(folder: Path) -> None:
    """Remove a folder if there are only empty ones in it."""
    for path in [*sorted(folder.rglob("*"), reverse=True), folder]:
        with suppress(OSError):
            path.rmdir()


def _unused(folder: Path) -> Path:
    """The folder, or where there is one already ``<folder>-2``, ``<folder>-3`` ..."""
    candidates = itertools.chain([folder], (Path(f"{folder}-{i}") for i in itertools.count(2)))
    return next(path for path in candidates if not os.path.lexists(path))


def _claim(folder: Path) -> Path:
    """Make the first unused folder. A sweep may start several runs within a second; one mkdir succeeds only once."""
    while True:
        with suppress(FileExistsError):
            (unused := _unused(folder)).mkdir(parents=True)
            return unused


def _run_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in, if it lies in one."""
    folder = checkpoint.resolve().parent.parent
    return folder if (folder / "config.yaml").is_file() else None


def _fit_networks_to_data(options: Any) -> None:
    """Write what the data and latent_dim determine into networks that take it: no other value could work.

    These are shape, latent_dim, and the number of classes of a network that is conditional (none for unlabelled data).
    """
    model, data = options.get("model"), options.get("data")
    if not model or not data:
        return
    source = _built(data.as_dict())
    nets = [model["init_args"].get(net) for net in PLAYERS.values()]
    while nets:
        config = nets.pop()
        if not hasattr(config, "as_dict") or "init_args" not in config:
            continue
        nets += vars(config["init_args"]).values()  # a wrapper has a network of its own
        module, name = config["class_path"].rsplit(".", 1)
        taken = _parameters(getattr(importlib.import_module(module), name))
        if "shape" in taken:
            config["init_args"]["shape"] = list(source.shape)
        if "latent_dim" in taken:
            config["init_args"]["latent_dim"] = model["init_args"]["latent_dim"]
        if config["init_args"].get("num_classes") is not None:
            config["init_args"]["num_classes"] = source.num_classes


def _built(config: Any) -> Any:
    """The object that a class path with its arguments stands for, which may be such objects in their turn."""
    if not isinstance(config, dict) or "class_path" not in config:
        return config
    module, name = config["class_path"].rsplit(".", 1)
    arguments = {key: _built(value) for key, value in config.get("init_args", {}).items()}
    return getattr(importlib.import_module(module), name)(**arguments)


def _parameters(obj: Any) -> list[str]:
    try:
        return list(inspect.signature(obj).parameters)
    except (TypeError, ValueError):
        return []


def _several_devices(config: Any) -> bool:
    devices, nodes = config.get("devices", "auto"), int(config.get("num_nodes") or 1)
    if nodes > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return True
    if isinstance(devices, (list, tuple)):
        return len(devices) > 1
    if str(devices) in ("auto", "-1"):
        return config.get("accelerator", "auto") != "cpu" and torch.cuda.device_count() > 1
    listed = [d for d in str(devices).split(",") if d]
    return len(listed) > 1 or (str(devices).isdigit() and int(devices) > 1)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def _peak_memory_mib() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
