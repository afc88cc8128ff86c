"""LightningCLI for generative models: ``fit``, ``test`` and ``predict``, each run in a folder of its own."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
import sysconfig
import uuid
from contextlib import ExitStack, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

import lightning_gans.callbacks as gan_callbacks
from lightning_gans import checks
from lightning_gans.callbacks.probe import run_dir
from lightning_gans.callbacks.score import ScoreCallback
from lightning_gans.cli.attributes import AskedAttributes
from lightning_gans.cli.configuration import fit_networks_to_data, require_annotations
from lightning_gans.cli.interruption import Interruption, handlers_kept, remember_job, requeued
from lightning_gans.cli.last_values import LastValues
from lightning_gans.cli.mistakes import is_quiet
from lightning_gans.cli.parsing import RUN, Parser, all_shipped, given_values, typed_options
from lightning_gans.cli.plan import Opening, counted, duration, plan
from lightning_gans.cli.warned import KeptWarnings
from lightning_gans.compat.lightning import callbacks, loggers, pl_cli, utilities
from lightning_gans.compat.shell import from_here, python, typed
from lightning_gans.engine.logbook import NonFiniteError
from lightning_gans.engine.loggers import attempt
from lightning_gans.runs.atomic import alone, sweep, write_text
from lightning_gans.runs.checkpoints import AtomicCheckpointIO, newest_checkpoint
from lightning_gans.runs.folder import claim, configs, newest_config, remove_empty, run_of, unused
from lightning_gans.runs.metrics_csv import MetricsCSV
from lightning_gans.tools.write import SampleWriter

_BEST = "best-{step:06d}"
_OF_LOGGERS = {"CometLogger": "comet_ml", "MLFlowLogger": "mlflow", "NeptuneLogger": "neptune",
               "TensorBoardLogger": "tensorboard", "WandbLogger": "wandb"}  # fmt: skip
# The command that an option, or a group of them, is of, and others take no account of.
_OF = {"dry_run": "fit", "fast": "fit", "checkpoint": "fit", "grid": "fit", "samples": "predict", "npz": "predict",
       "attributes": "predict", "temperature": "predict"}  # fmt: skip
_FOLDER = "_LIGHTNING_GANS_FOLDER"  # environment variable that tells other ranks the run's folder


class GANCLI(pl_cli.LightningCLI):
    """LightningCLI with run folders, networks that take their shape from the data, and a plan (``--dry_run``)."""

    trainer: Any
    uses_wandb = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.claimed: Path | None = None  # the folder that was made for this run
        self.made: list[Path] = []  # and those around it, inner ones first
        asked, known = (kwargs.get("args") or sys.argv[1:] or [""])[0], self.subcommands()
        if asked in known:  # each parser takes its time, and the others' are not needed
            self.subcommands = lambda: {asked: known[asked]}  # type: ignore[method-assign]
        self.command: list[str] = kwargs.get("args") or sys.argv[1:]
        try:
            with ExitStack() as self.held, handlers_kept():
                super().__init__(*args, **kwargs)
        except BaseException:
            if self.claimed is not None:
                remove_empty(self.claimed, self.made)
            raise
        finally:
            os.environ.pop(_FOLDER, None)  # which is for the processes of this run

    def init_parser(self, **kwargs: Any) -> Any:
        """A parser with helpful errors. (The argument ``parser_class`` is younger than Lightning 2.4.)"""
        parser = super().init_parser(**kwargs)
        parser.__class__, parser.allow_abbrev = Parser, False  # what was typed is looked at by its whole name
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
        seed = self.config[self.config["subcommand"]].get("seed_everything")
        if seed not in (None, True, False):  # older Lightnings take another one in silence
            checks.at_least(0, seed_everything=seed)
        typed = isinstance(self.command, list)  # else it is a call with a configuration of the caller's
        command = self.command if typed else []
        require_annotations(self.config[self.config["subcommand"]].get("model"))
        told, warn = given_values(command), not (typed and all_shipped(command))
        fit_networks_to_data(self.config[self.config["subcommand"]], told, warn)
        self.asked = self.config.clone()

    def add_arguments_to_parser(self, parser: Any) -> None:
        """Add the run folder, ``--dry_run``, and the callbacks that every run has."""
        parser.add_argument("--out", default="runs", help="Folder that holds the runs.")
        parser.add_argument("--name", default=None, help="Folder of this run in OUT; by default <data>-<model>/<date>.")
        parser.add_argument("--dry_run", action="store_true", help="fit: print the resolved plan and stop.")
        parser.epilog = "--verbose shows all that Lightning says, too."
        parser.add_argument("--threads", type=int | None, default=None, help="CPU threads of torch; null: its choice.")
        parser.add_argument(
            "--fast", type=bool, default=False, help="fit on a GPU: TF32, cudnn.benchmark, CUDA graphs."
        )
        parser.add_argument("--samples", type=int, default=64, help="predict: how many samples it writes.")
        parser.add_argument("--npz", action="store_true", help="predict: one array in place of many files.")
        parser.add_argument(
            "--attributes",
            type=dict | None,
            default=None,
            help="predict: values that samples of GANControl are to have.",
        )
        parser.add_argument("--temperature", type=float | None, default=None, help="predict: of text, > 0.")
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
        """Refuse what would be ignored, and choose the run's folder."""
        for option in self._typed():  # a file is of any command
            if (of := _OF.get(option.partition(".")[0], self.subcommand)) != self.subcommand:
                raise SystemExit(f"error: --{option} must be left out with {self.subcommand}: it is an option of {of}.")
            if option in ("checkpoint.dirpath", "trainer.default_root_dir"):
                raise SystemExit(f"error: --{option} must be left out: --out and --name say where a run lies.")
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
        agents = os.environ.get("WANDB_RUN_ID")  # an agent of a sweep names the run, whatever is asked of W&B
        self.wandb_id = known.read_text().strip() if known.is_file() else agents or uuid.uuid4().hex[:8]
        self.wandb_id = (os.environ.get("WANDB_SWEEP_ID") and agents) or self.wandb_id
        if self.subcommand == "predict" and not any(o.startswith("trainer.logger") for o in self._typed()):
            # it logs nothing, and would open a run of W&B's for that
            self.options["trainer"]["logger"] = False
        self._place_loggers(self.wandb_id)

    def _typed(self) -> list[str]:
        return typed_options(self.command) if isinstance(self.command, list) else []

    def _place_loggers(self, run: str | None) -> None:
        """Tell loggers the run's folder, and W&B its run; None: as ``config.yaml`` says it, for any run."""
        chosen = self.options["trainer"].get("logger")
        for logger in chosen if isinstance(chosen, list) else [chosen]:
            if not hasattr(logger, "get"):
                continue
            package = _OF_LOGGERS.get(str(logger.get("class_path")).rpartition(".")[2])
            if package and not (package == "tensorboard" and importlib.util.find_spec("tensorboardX")):
                checks.installed(package)
            given = logger.get("init_args") or {}
            for known in (RUN, str(self.run_dir)):  # or a folder in it
                if (where := str(given.get("save_dir") or "")) == known or where.startswith(f"{known}/"):
                    given["save_dir"] = (str(self.run_dir) if run is not None else RUN) + where.removeprefix(known)
                    break
            if str(logger.get("class_path")).endswith("WandbLogger"):
                name = self._short_name()
                given["id"], given["save_dir"] = run, str(self.run_dir)
                if given.get("name") in (None, name):
                    given["name"] = run and name
                if given.get("project") in (None, "lightning_logs"):  # Lightning's choice
                    given["project"] = os.environ.get("WANDB_PROJECT") or "lightning_gans"
                self.uses_wandb = True
                if run is not None and not given.get("offline"):
                    offline_without_login()

    def _short_name(self) -> str:
        """The run's folder, as seen from that of all runs."""
        name = os.path.relpath(self.run_dir, self.options["out"])
        return self.run_dir.resolve().name if name.startswith("..") else Path(name).as_posix()

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
        given = given if isinstance(given, list) else [given]
        keys = [c.state_key for c in given if type(c).state_dict is not callbacks.Callback.state_dict]
        if twice := next((c for c in given if keys.count(c.state_key) > 1), None):
            raise ValueError(
                f"callbacks, those of the recipe included, must keep states of their own, got {type(twice).__name__} "
                f"twice, each as {twice.state_key}."
            )
        bars = [c for c in given if isinstance(c, callbacks.ProgressBar)]
        if bars or config.get("enable_progress_bar") is False:  # Lightning allows one bar, and none if it is off
            self.trainer_defaults = {k: v for k, v in self.trainer_defaults.items() if k != "callbacks"}
        trainer: Any = super().instantiate_trainer(**kwargs)
        if getattr(self.datamodule, "vocabulary", None) is not None:
            grid = self.config_init[self.subcommand]["grid"]  # ours; a user's own is refused
            trainer.callbacks = [_for_text(grid) if callback is grid else callback for callback in trainer.callbacks]
        if not any(isinstance(callback, gan_callbacks.Rates) for callback in trainer.callbacks):
            trainer.callbacks.insert(0, gan_callbacks.Rates())
        if self.subcommand == "fit":
            trainer.callbacks[:0] = [LastValues(), Opening(self.run_dir)]
            resume = command("fit", f"--ckpt_path={self.run_dir}")
            self.held.enter_context(kept := KeptWarnings(self.run_dir))
            trainer.callbacks.append(kept)
            trainer.callbacks.append(Interruption(self.run_dir / "checkpoints" / "last.ckpt", resume))
        return trainer

    def before_fit(self) -> None:
        """Print the plan if that is all that was asked for; else say where the run goes."""
        resumed, self.options["ckpt_path"] = self.options.get("ckpt_path") is not None, None
        self._place_loggers(None)  # neither is in config.yaml, which another run may start from
        if self.options["dry_run"]:
            told = plan(self.model, self.datamodule, self.options, self.run_dir, self.trainer.callbacks)
            if self.trainer.is_global_zero:  # by torchrun there are others by now
                print(told)
            raise SystemExit(0)
        if getattr(self.model, "classifier_weights", "") is None and not resumed:
            utilities.rank_zero_warn(
                "The classifier stays as it was drawn: give --model.classifier_weights a file of `classify`."
            )
        if self.options["fast"]:
            go_fast(self.model, self.trainer.strategy.root_device, self.options["trainer"].get("benchmark") is None)
        self._start_loggers()
        if self.trainer.is_global_zero:
            remember_job(self.run_dir, self.command)
            if self.uses_wandb:
                write_text(self.run_dir / "wandb_id", self.wandb_id)

    def _start_loggers(self) -> None:
        """Leave those out that cannot start, W&B without network, say; it comes first, for the sake of TensorBoard."""
        started: list[Any] = []

        def start(logger: Any) -> None:
            getattr(logger, "experiment", None)
            started.append(logger)

        for logger in sorted(self.trainer.loggers, key=lambda logger: not isinstance(logger, loggers.WandbLogger)):
            attempt(logger, partial(start, logger))
        self.trainer.loggers = [logger for logger in self.trainer.loggers if logger in started]

    def after_fit(self) -> None:
        """Write the last checkpoint, and say where everything lies."""
        last = self.run_dir / "checkpoints" / "last.ckpt"
        self.trainer.save_checkpoint(last, weights_only=False)
        if self.trainer.is_global_zero:
            print(self._report(last))

    def before_test(self) -> None:
        """Refuse a test that would score nothing."""
        if not any(isinstance(callback, ScoreCallback) for callback in self.trainer.callbacks):
            by = "GenerativeMetrics" if self.model.vocabulary_size is None else "TextMetrics"
            raise SystemExit(f"error: there is nothing to score with: add --trainer.callbacks+={by}.")
        self.config_init[self.subcommand]["verbose"] = not is_quiet()  # Lightning's table, beside ours
        if isinstance(bar := self.trainer.progress_bar_callback, gan_callbacks.GANProgressBar):
            bar.disable()  # batches of data are not what scoring takes its time for

    def after_test(self) -> None:
        """Say what the scores are, and where they lie."""
        folder = from_here(run_dir(self.trainer))  # a collective
        if not self.trainer.is_global_zero:
            return
        scores = {name.removeprefix("metrics/"): float(v) for name, v in self.trainer.callback_metrics.items()}
        lines = [f"{name:<12} {value:.4g}" for name, value in scores.items()]
        found = [] if self.trainer.fast_dev_run else [c for c in self.trainer.callbacks if isinstance(c, ScoreCallback)]
        files = [path for c in found if (path := folder / f"test-scores-{c.label}.jsonl").is_file()]
        lines += [f"{'' if i else 'Scores':<12} {path}" for i, path in enumerate(files)]
        print("\n".join(lines))

    def before_predict(self) -> None:
        """Feed sample counts instead of data, and write what comes back."""
        checks.at_least_one(samples=(n := self.options["samples"]))
        self.datamodule.predict_dataloader = lambda: [min(64, n - done) for done in range(0, n, 64)]
        if (temperature := self.options["temperature"]) is not None:
            checks.positive(temperature=temperature)
            self.model.sample(1, seed=0, temperature=temperature)  # refused here, before anything is written
            self.model.sample_options["temperature"] = temperature
        if (asked := self.options["attributes"]) is not None:
            where = self.run_dir / "control"
            self.trainer.callbacks.append(AskedAttributes(self.model, asked, where, self.trainer.world_size))
        folder = unused(self.run_dir / "predictions")
        self.trainer.callbacks.append(SampleWriter(folder, self.datamodule.value_range, self.options["npz"]))

    def _run_folder(self) -> Path:
        checkpoint = self.options.get("ckpt_path")
        folder = from_here(known) if checkpoint and (known := run_of(Path(checkpoint))) is not None else None
        fresh = folder is None and self.subcommand == "fit"
        if folder is not None:
            said = newest_config(folder)
            for option, unset in (("name", None), ("out", "runs")):
                if self.options[option] not in (unset, said.get(option)):
                    raise SystemExit(
                        f"error: --{option} must be left out with --ckpt_path, since all goes into the run's folder "
                        f"{folder}, got {self.options[option]!r}."
                    )
        if folder is None:
            short = [self.options[k]["class_path"].rsplit(".", 1)[1].lower() for k in ("data", "model")]
            name = self.options["name"] or f"{'-'.join(short)}/{datetime.now():%Y%m%d-%H%M%S}"
            folder = Path(self.options["out"]) / name
            if fresh and (begun := requeued(folder, self.command)) is not None:
                folder, fresh, last = begun, False, newest_checkpoint(begun)
                self.options["ckpt_path"] = str(last) if last.is_file() else None
        if (rank := getattr(utilities.rank_zero_only, "rank", 0)) or self.options["dry_run"]:  # only rank 0 writes
            chosen = os.environ.pop(_FOLDER, None) if rank and fresh else None  # by rank 0, which started this process
            return Path(chosen) if chosen else unused(folder) if fresh else folder
        try:
            if fresh:
                self.made = [path for path in folder.parents if not path.exists()]
                folder = self.claimed = claim(folder)
                os.environ[_FOLDER] = str(folder)
            folder.mkdir(parents=True, exist_ok=True)
            (probe := folder / ".writable").touch()
            probe.unlink()
            if self.subcommand == "fit":
                self.held.enter_context(alone(folder))
                sweep(folder)
        except OSError as error:
            raise SystemExit(
                f"error: the run folder {folder} cannot be written ({error.strerror or error}): choose another --out."
            ) from None
        return folder

    def _report(self, last: Path) -> str:
        saved = self.trainer.checkpoint_callback
        best = Path((getattr(saved, "monitor", None) and saved.best_model_path) or last)
        best = beside if (beside := last.with_name(best.name)).is_file() else best  # as short as the others' paths
        files = {
            "Sample grid": self.run_dir / "samples" / "latest.png",
            "Samples": self.run_dir / "samples" / "latest.txt",
            "Metrics": self.run_dir / "metrics.csv",
            **({"Best": best} if best != last else {}),
            "Checkpoint": last,
            "Config": (configs(self.run_dir) or [Path()])[-1],
        }
        lines = ["", *(f"{what:<12} {path}" for what, path in files.items() if path.is_file())]
        for callback in self.trainer.callbacks:
            if isinstance(callback, ScoreCallback) and callback.history:
                first, latest = callback.history[0], callback.history[-1]
                for name in callback.shown(n for n in latest if n in first):
                    scores = {
                        "at step": first,
                        "best of training, at step": callback.best(name),
                        "last, at step": latest,
                    }
                    told = ", ".join(
                        f"{entry[name]:.4g} ({when} {entry['step']:.0f})" for when, entry in scores.items()
                    )
                    lines.append(f"{name.removeprefix('metrics/'):<12} {told}")
        took = next(c.seconds for c in self.trainer.callbacks if isinstance(c, gan_callbacks.Rates))
        lines.append(f"{'Trained':<12} {counted(self.trainer.global_step, 'update')} in {duration(took)}")
        lines.append(f"{'Next':<12} {command('predict', f'--ckpt_path={self.run_dir}')}  # samples")
        if importlib.util.find_spec("plotly") is not None and (self.run_dir / "metrics.csv").is_file():
            lines.append(f"{'':<12} {command('report', f'--ckpt_path={self.run_dir}')}   # all of it as a page")
        return "\n".join(lines)


class SaveConfig(pl_cli.SaveConfigCallback):
    """Writes ``config.yaml`` into the run's folder; a resumed run whose differs adds ``config-<n>.yaml``."""

    def save_config(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Nothing: :meth:`on_train_start` does it."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Nothing: a configuration that does not get as far as training is not to be resumed with."""

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Keep the weights before a step that went wrong; of a run that is stopped in its first scores, what it was."""
        folder = Path(trainer.default_root_dir)
        stopped = isinstance(exception, (KeyboardInterrupt, SystemExit))
        if stopped and not configs(folder) and any(folder.glob("[!.]*")):  # beside its lock
            self._write(trainer)
        if isinstance(exception, NonFiniteError) and exception.weights_are_good:
            path = folder / "checkpoints" / "before_non_finite.ckpt"
            trainer.save_checkpoint(path, weights_only=False)
            exception.args = (f"{exception} The weights are in {path}.",)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Write the file, and tell the loggers, on rank 0."""
        if text := self._write(trainer):
            for logger in trainer.loggers:
                attempt(logger, partial(_tell_configuration, logger, text))

    def _write(self, trainer: Any) -> str | None:
        """The configuration, which is in the folder now; None on other ranks."""
        if not trainer.is_global_zero:
            return None
        folder = Path(trainer.default_root_dir)
        text = self.parser.dump(
            self.config, skip_none=False, skip_validation=True
        )  # checked already, with the hyperparameters
        written = configs(folder)
        if not written or written[-1].read_text() != text:
            write_text(folder / (f"config-{len(written) + 1}.yaml" if written else "config.yaml"), text)
        return text


def _tell_configuration(logger: Any, text: str) -> None:
    """The whole of it, where a dashboard shows it."""
    if isinstance(logger, loggers.WandbLogger):
        logger.experiment.config.update({"config": yaml.safe_load(text)}, allow_val_change=True)
    elif isinstance(logger, loggers.TensorBoardLogger):
        logger.experiment.add_text("config", "\n".join(f"    {line}" for line in text.splitlines()))


def command(*args: str) -> str:
    """What to type for this program with these arguments; for ours, where it is a script with others of its own."""
    program = sys.argv[0]
    if sys.argv[1:2] != ["boost"] and not {*sys.argv[1:2]} & GANCLI.subcommands().keys():
        beside = os.pathsep.join([str(Path(sys.executable).parent), sysconfig.get_path("scripts")])
        program = shutil.which("lightning-gans", path=beside) or shutil.which("lightning-gans") or "lightning-gans"
    return shlex.join(
        [python(), program, *args] if program.endswith(".py") else [typed(program, Path(program).name), *args]
    )


def offline_without_login() -> None:
    """Have W&B write its runs to the disk where it has no login, for which it would ask, or end the run."""
    checks.installed("wandb")
    if "WANDB_MODE" in os.environ:
        return
    wandb = importlib.import_module("wandb")
    with suppress(TypeError):  # an old one, which cannot tell without asking
        if not wandb.login(prompt=False):
            os.environ["WANDB_MODE"] = "offline"
            wandb.teardown()  # the question has made it read its settings
            utilities.rank_zero_warn("W&B has no login (`wandb login`): the run is written to the disk (`wandb sync`).")


def go_fast(model: Any, device: torch.device, benchmark: bool = True) -> None:
    """What pays on a GPU: TF32 for matrix products, CUDA graphs, and the fastest algorithms of cuDNN.

    No effect on other devices. ``benchmark`` says whether cuDNN may choose by trying; it never does where training is
    to be deterministic. bf16 is the trainer's ``precision``.
    """
    if device.type != "cuda":
        return
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark |= benchmark and not torch.are_deterministic_algorithms_enabled()
    model.cuda_graphs = True


def _for_text(callback: gan_callbacks.SampleGrid) -> gan_callbacks.SampleText:
    """The one in place of a grid of images, where the data are text."""
    every = None if callback.off else callback.every_n_steps
    return gan_callbacks.SampleText(every, seed=callback.seed, dirpath=callback.dirpath)


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
