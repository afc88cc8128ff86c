"""The command line: ``fit``, ``test`` and ``predict`` of any model on any data, each run in a folder of its own.

Beside them ``boost`` (rounds), ``score`` (images or text, whoever made them), ``sweep`` (text over temperatures),
``export`` (the generator as a file), ``directions`` (in the latent space), ``explain`` (what drives a classifier),
``guide`` (a diffusion, by one), ``classify`` and ``rewrite`` (text by styles), ``report`` (a run as a page),
``compare`` (runs beside each other), ``workspace`` (of W&B) and ``recipes`` (the configurations that are shipped).
"""

from __future__ import annotations

import argparse
import difflib
import io
import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any

import jsonargparse
import torch
import yaml

import lightning_gans.callbacks as gan_callbacks
from lightning_gans.cli.commands import classify, directions, explain, export, guide, rewrite, score, sweep
from lightning_gans.cli.configuration import built, fit_networks_to_data, parameters, resolve
from lightning_gans.cli.gan_cli import GANCLI, SaveConfig
from lightning_gans.cli.interruption import exit_status
from lightning_gans.cli.mistakes import quiet, sentence_of, silence, told
from lightning_gans.cli.pages import compare, report, workspace
from lightning_gans.cli.parsing import given_values, prepared
from lightning_gans.cli.recipes import MAIN, RECIPES, names, recipes, unasked
from lightning_gans.cli.warned import in_a_line
from lightning_gans.compat.lightning import pl, utilities
from lightning_gans.compat.shell import printable, usage
from lightning_gans.datamodules.base import GANDataModule
from lightning_gans.engine.logbook import NonFiniteError
from lightning_gans.engine.module import GenerativeModule
from lightning_gans.functional.boosting import BOOSTS
from lightning_gans.functional.ranks import apart, rank_and_world
from lightning_gans.runs.atomic import alone
from lightning_gans.runs.checkpoints import newest_checkpoint, read_checkpoint
from lightning_gans.runs.folder import finished, newest_run, remove_empty
from lightning_gans.runs.load import load, resolve_class
from lightning_gans.stages import reweight
from lightning_gans.techniques import TECHNIQUES
from lightning_gans.version import __version__


def main(args: list[str] | None = None, default_config: Path | None = None) -> Path | None:
    """Run the command line: ``lightning-gans``, and ``train.py`` of a clone.

    Lightning's own messages are left out but with ``--verbose``, which any command takes.

    Args:
        args: as they would be typed, for a call from Python; None takes the shell's.
        default_config: what ``fit`` does when no ``--config`` is given; from a shell that is a shipped recipe.

    Returns:
        of ``fit``, ``test`` and ``predict`` called from Python the run's folder, else None.

    Raises:
        SystemExit: for a mistake, with its sentence; with status 0 after ``--help``, ``--print_config``, ``--dry_run``.
    """
    given = list(sys.argv[1:] if args is None else args)
    if args is None and (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # where a user's own networks and techniques lie; last, so that it hides nothing
    shell_default, verbose = default_config or RECIPES / f"{MAIN}.yaml", "--verbose" in given
    if given[:1] != ["boost"]:  # which hands it to its fits
        given = [arg for arg in given if arg != "--verbose"]
    known = [*GANCLI.subcommands(), *OTHERS]
    if given == ["--version"]:
        print(f"lightning_gans {__version__}, torch {torch.__version__}, pytorch_lightning {pl.__version__}")
        return None
    if not given or (not given[0].startswith("-") and given[0] not in known):
        asked = given[0] if given else "none"
        near = difflib.get_close_matches(asked, known, n=1)
        hint = f": did you mean {near[0]}?" if near else "."
        raise SystemExit(f"error: The command must be {', '.join(known[:-1])} or {known[-1]}, got {asked}{hint}")
    with exit_status(), quiet(not verbose), in_a_line(), printable():
        if given and given[0] in OTHERS:
            try:
                OTHERS[given[0]](given[1:])
            except BrokenPipeError:  # `| head` has seen enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise SystemExit(141) from None
        else:
            return _train(given, shell_default if args is None else default_config, args is None)
    return None


def _train(args: list[str], default_config: Path | None, from_shell: bool) -> Path | None:
    args = prepared(resolve(args, default_config, GANCLI.subcommands()))
    if from_shell:
        sys.argv[1:] = args
    silence()
    about = "GANs and other generative models: any technique on any data, each run in a folder of its own."
    epilog = f"Other commands, each with --help: {', '.join(OTHERS)}. --version prints ours and torch's."
    try:
        cli = GANCLI(
            GenerativeModule,
            GANDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            trainer_defaults={"callbacks": [gan_callbacks.GANProgressBar()]},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_kwargs={"description": about, "epilog": epilog},
            args=None if from_shell else args,
        )
    except Exception as error:
        if (sentence := sentence_of(error)) is None:
            raise
        rank = getattr(pl.utilities.rank_zero_only, "rank", 0)  # of another process, which may be the only one it hit
        if rank and isinstance(error, NonFiniteError):  # which all have seen
            raise SystemExit(1) from error
        raise SystemExit(f"error{f' on rank {rank}' if rank else ''}: {sentence}{unasked(sentence, args)}") from error
    return None if from_shell else cli.run_dir  # a shell would take it for an exit status


def boost(args: list[str]) -> None:
    """``boost``: a ``fit`` for each round, on the checkpoint of the one before (``--model.base``).

    The data of a round of AdaGAN are drawn by weights, for which a classifier, a new discriminator, is trained. Called
    again, it passes over finished rounds, and goes on with the one that was stopped.
    """
    parser = argparse.ArgumentParser(
        usage("boost"), description=boost.__doc__, epilog="All other options are those of fit."
    )
    parser.add_argument("--rounds", type=int, default=2, help="How many, the first one included.")
    parser.add_argument("--name", required=True, help="Folder in OUT; that of round k is NAME/round-k.")
    first = "Configuration of the first round, to which no other option applies; or a run or checkpoint in its place."
    parser.add_argument("--first", help=first)
    parser.add_argument("--weights", choices=BOOSTS, help="How AdaGAN weighs the data, star if not given.")
    parser.add_argument("--out", default="runs", help="Where NAME lies, %(default)s if not given.")
    own, rest = parser.parse_known_args(args)
    if own.rounds < 1:
        raise SystemExit(f"error: rounds must be an integer >= 1, got {own.rounds}.")
    base: Path | None = None
    if own.first and own.first not in names() and not own.first.endswith((".yaml", ".yml")):
        base = newest_checkpoint(own.first) if Path(own.first).is_dir() else Path(own.first)
        try:
            read_checkpoint(base)
        except (FileNotFoundError, ValueError) as error:
            raise SystemExit(f"error: --first: {error}") from error
    config = mixture_configuration(rest) if own.rounds > 1 else {}
    if own.weights and config and not _weighs(config["model"]):
        short = config["model"]["class_path"].rpartition(".")[2]
        raise SystemExit(f"error: --weights must be left out with {short}: only AdaGAN weighs the data.")
    folder = Path(own.out, own.name)
    with ExitStack() as held:
        if getattr(utilities.rank_zero_only, "rank", 0) == 0:  # the others are started by it, with the same command
            held.callback(remove_empty, folder)
            with told():
                folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(alone(folder))
        for k in range(0 if base is None else 1, own.rounds):
            options = ["--config", own.first] if k == 0 and own.first else rest
            base = _round(k, base, folder, options, config, own.weights or "star")


def _round(k: int, base: Path | None, folder: Path, options: list[str], config: dict[str, Any], weights: str) -> Path:
    """Fit round ``k`` on the checkpoint of the one before, or go on with it; returns its own checkpoint."""
    say = utilities.rank_zero_only(print)
    if (run := newest_run(folder, k)) is None:
        seeded = k == 0 or any(option.startswith("--seed_everything") for option in options)
        more = [] if seeded else [f"--seed_everything={k}"]
        if base is not None:
            more += [f"--model.base={base}", *reweighted(config, base, folder / f"weights-{k}", weights, k)]
        main(["fit", *options, *more, f"--out={folder}", f"--name=round-{k}"])
    elif finished(run):
        say(f"Round {k} is finished, as {run}/config.yaml says: other options have no effect on it.")
    else:
        say(f"Round {k} goes on as {run}/config.yaml says: other options have no effect on it.")
        main(["fit", f"--ckpt_path={run}"])
    run = newest_run(folder, k)
    assert run is not None
    return newest_checkpoint(run)


def mixture_configuration(args: list[str]) -> dict[str, Any]:
    """What ``fit`` would do with these arguments, in the rounds after the first one.

    Raises:
        SystemExit: it refuses them, or its model is no mixture, which nothing can be added to.
    """
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            main(["fit", *args, "--print_config"])
    except SystemExit as error:
        if error.code:
            raise
    config = yaml.safe_load(printed.getvalue()) or {}
    for part in ("model", "data"):
        if not config.get(part):
            raise SystemExit(f"error: --{part} must be given, or be in --config, for the rounds after the first.")
    name = config["model"]["class_path"]
    if "base" not in parameters(resolve_class(name, (GenerativeModule,), trust_code=True)):
        kinds = " or ".join(cls.__name__ for cls in TECHNIQUES.values() if "base" in parameters(cls))
        short = name.rpartition(".")[2]
        raise SystemExit(f"error: --model must be a mixture ({kinds}) for the rounds after the first, got {short}.")
    fitted = jsonargparse.dict_to_namespace({"model": config["model"], "data": config["data"]})
    with told():
        fit_networks_to_data(fitted, given_values(args))
    return {**config, "model": fitted["model"].as_dict()}


def reweighted(config: Mapping[str, Any], base: Path, folder: Path, weights: str, seed: int) -> list[str]:
    """What tells ``fit`` the data of AdaGAN's next round, after ``base``; nothing for other techniques."""
    model, data = config["model"], config["data"]
    if not _weighs(model):
        return []
    if getattr(utilities.rank_zero_only, "rank", 0) == 0:  # others of the round before go on, or will be started
        with apart():
            _weigh(model, data, base, folder, weights, seed)
    if rank_and_world()[1] > 1:
        torch.distributed.barrier()
    begun = time.monotonic()  # by torchrun all processes are there, and do not know each other yet
    while not (folder / "weights.pt").is_file():
        if time.monotonic() - begun > 3600:
            raise SystemExit(f"error: {folder} must hold weights.pt after an hour, which rank 0 writes, got none.")
        time.sleep(0.5)
    drawn = {"class_path": "Resampled", "init_args": {"data": data, "probabilities": str(folder / "weights.pt")}}
    return ["--data", json.dumps(drawn)]


def _weighs(model: Mapping[str, Any]) -> bool:
    return bool(model["class_path"].endswith(".AdaGAN"))


def _weigh(model: Any, data: Any, base: Path, folder: Path, weights: str, seed: int) -> None:
    """Write ``weights.pt``."""
    pl.seed_everything(seed, verbose=False)
    classifier = built(model["init_args"]["discriminator"])
    folder.mkdir(parents=True, exist_ok=True)
    print(f"AdaGAN: weighing the data for {folder.parent}/round-{seed}")
    mixture = load(base, trust_code=True)  # of the same classes as the round that is to come, or of the user's choice
    reweight(built(data), mixture, classifier, folder, weights=weights, beta=model["init_args"]["beta"])  # type: ignore[arg-type]


OTHERS = {
    "boost": boost, "classify": classify, "compare": compare, "directions": directions, "explain": explain,
    "export": export, "guide": guide, "recipes": recipes, "report": report, "rewrite": rewrite,
    "score": score, "sweep": sweep, "workspace": workspace,
}  # fmt: skip

__all__ = ["GANCLI", "OTHERS", "SaveConfig", "main"]
