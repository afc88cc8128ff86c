"""Commands that train no GAN: ``score``, ``sweep``, ``export`` and ``directions``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import yaml

from lightning_gans import checks, tools
from lightning_gans.callbacks.direction_charts import DirectionCharts
from lightning_gans.cli.configuration import built
from lightning_gans.cli.mistakes import sentence_of, silence, told
from lightning_gans.cli.parsing import Parser, prepared
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules.base import GANDataModule
from lightning_gans.datamodules.text import TextDataModule
from lightning_gans.diagnostics.latent_directions import LatentDirections
from lightning_gans.engine import contract
from lightning_gans.metrics import METRICS, TEXT_METRICS
from lightning_gans.runs.atomic import check_writable, write_text
from lightning_gans.runs.checkpoints import AtomicCheckpointIO, newest_checkpoint, read_checkpoint
from lightning_gans.runs.folder import claim, configs, run_of
from lightning_gans.runs.metrics_csv import MetricsCSV
from lightning_gans.tools.score import score_samples
from lightning_gans.tools.text import TEMPERATURES, score_text, temperature_sweep


def score(args: list[str]) -> None:
    """``score``: images in a folder, .zip or .npz file, or a file of text, whoever made them, against a data set."""
    parser = Parser("score", description=score.__doc__ or "")
    parser.add_argument("--samples", required=True, help="Folder, .zip or .npz of images, or a text file.")
    parser.add_subclass_arguments(GANDataModule, "data", required=True)
    parser.add_function_arguments(score_samples, skip={"samples", "data"})
    parser.add_argument("--out", type=str | None, default=None, help="JSON file for the scores and their protocol.")
    if torch.cuda.is_available():
        parser.set_defaults({"device": "cuda"})
    parsed = parser.parse_args(prepared(args))
    with told():
        if parsed.out:
            check_writable("--out", parsed.out)
        given = parser.instantiate_classes(parsed)
        options = {k: v for k, v in vars(given).items() if k not in ("config", "samples", "data", "out")}
        if isinstance(given.data, TextDataModule):
            _score_text(given)
            return
        found = score_samples(given.samples, given.data, **options)
    told_by = found["protocol"]
    left_out = f", {told_by['reference_left_out']:,} others left out (--split)" if told_by["reference_left_out"] else ""
    print(f"{given.samples}: {told_by['fakes']:,} images against {given.data.name}, "
          f"{told_by['reference_items']:,} of {told_by['reference_split']}{left_out}")  # fmt: skip
    for name, value in found["scores"].items():
        print(f"{name:<24} {value:.6g}")
    if given.out:
        write_text(given.out, json.dumps(found, indent=2) + "\n")


def _score_text(given: Any) -> None:
    chosen = {} if tuple(given.metrics) == METRICS else {"metrics": given.metrics}
    found = score_text(given.samples, given.data, **chosen)
    told_by = found["protocol"]
    print(f"{given.samples}: {told_by['samples']:,} texts against {told_by['data']}")
    for name, value in found["scores"].items():
        print(f"{name:<24} {value:.6g}")
    if given.out:
        write_text(given.out, json.dumps(found, indent=2) + "\n")


def sweep(args: list[str]) -> None:
    """``sweep``: a trained model of text at several temperatures of sampling, as sweep.csv in the folder of its run."""
    parser = argparse.ArgumentParser("sweep", description=sweep.__doc__)
    parser.add_argument("--ckpt_path", type=Path, required=True, help="Folder of a run, or a checkpoint in one.")
    parser.add_argument("--which", choices=("last", "best"), default="last", help="Which checkpoint of a folder.")
    parser.add_argument("--temperatures", type=float, nargs="+", default=TEMPERATURES)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--metrics", nargs="+", choices=TEXT_METRICS, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=None, help="CSV file; by default sweep.csv in the folder of the run.")
    own = parser.parse_args(args)
    with told():
        folder = own.ckpt_path if own.ckpt_path.is_dir() else run_of(own.ckpt_path)
        if folder is None or not (known := configs(folder)):
            raise SystemExit(
                f"error: --ckpt_path must be a run or lie in one, which tells its data, got {own.ckpt_path}."
            )
        out = Path(own.out or folder / "sweep.csv")
        check_writable("--out", out)
        model = tools.load(own.ckpt_path, own.which)
        try:
            contract.require(model, contract.Text, "sweep")
        except TypeError as error:
            raise SystemExit(f"error: {error}") from error
        data = built(yaml.safe_load(known[-1].read_text())["data"])
        found = temperature_sweep(model, data, own.temperatures, own.samples, own.metrics, own.seed)
    names = [*found["curve"][0]]
    print(" ".join(f"{name:>12}" for name in names))
    for point in found["curve"]:
        print(" ".join(f"{point[name]:>12.4g}" for name in names))
    rows = [",".join(names), *(",".join(f"{point[name]:.8g}" for name in names) for point in found["curve"])]
    write_text(out, "\n".join(rows) + "\n")
    write_text(out.with_suffix(".json"), json.dumps(found, indent=2) + "\n")
    print(f"Sweep        {out}")


def export(args: list[str]) -> None:
    """``export``: the generator of a run or checkpoint as a .pt2 file (torch.export) or an .onnx file."""
    parser = argparse.ArgumentParser("export", description=export.__doc__)
    parser.add_argument("--ckpt_path", required=True, help="Folder of a run, or a checkpoint.")
    parser.add_argument("--out", required=True, help="File to write, .pt2 or .onnx.")
    parser.add_argument("--which", choices=("last", "best"), default="last", help="Which checkpoint of a folder.")
    parser.add_argument("--weights", choices=("ema", "raw"), default="ema", help="Averaged weights if there are any.")
    own = parser.parse_args(args)
    with told():
        check_writable("--out", own.out)
        print(f"Generator    {tools.export(tools.load(own.ckpt_path, own.which, own.weights), own.out)}")


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
    silence()
    try:
        checks.at_least_one(max_steps=steps)
        path = newest_checkpoint(path) if path.is_dir() else path
        data = read_checkpoint(path).get("datamodule_hyper_parameters", {})
        pl.seed_everything(options["seed"], verbose=False)
        place = (run_of(path) or path.parent) / "directions"
        check_writable("--ckpt_path", place / "last.ckpt")
        found = LatentDirections(tools.load(path), **options)
        folder = claim(place)
        charts = DirectionCharts(value_range=data.get("value_range") or (-1.0, 1.0), dirpath=folder)
        trainer = pl.Trainer(max_steps=steps, devices=1, default_root_dir=str(folder), logger=MetricsCSV(folder),
                             callbacks=[charts], plugins=[AtomicCheckpointIO()], enable_checkpointing=False,
                             enable_model_summary=False, num_sanity_val_steps=0)  # fmt: skip
        trainer.fit(found)
        trainer.save_checkpoint(folder / "last.ckpt")
        seen = trainer.validate(found, verbose=False)[0]
    except Exception as error:
        if (sentence := sentence_of(error)) is None:
            raise
        raise SystemExit(f"error: {sentence}") from error
    chance = 1 / found.num_directions
    print(f"RCA          {seen['directions/rca']:.3f} (chance {chance:.3f})")
    print(f"Shift error  {seen['directions/shift_error']:.3f}\nCharts       {folder}")
