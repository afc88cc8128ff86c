"""Commands that train no GAN: ``score``, ``sweep``, ``export``, ``directions``, ``explain``, ``guide`` and others."""

from __future__ import annotations

import argparse
import json
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from torch import nn

from lightning_gans import checks, tools
from lightning_gans.callbacks.direction_charts import DirectionCharts
from lightning_gans.callbacks.progress import GANProgressBar
from lightning_gans.cli.configuration import built, fit_networks_to_data
from lightning_gans.cli.mistakes import sentence_of, silence, told
from lightning_gans.cli.parsing import Parser, prepared, spread
from lightning_gans.compat.lightning import pl
from lightning_gans.compat.shell import from_here, usage
from lightning_gans.datamodules.base import GANDataModule
from lightning_gans.datamodules.text import TextDataModule, lines_of
from lightning_gans.diagnostics.att_find import AttFind
from lightning_gans.diagnostics.latent_directions import LatentDirections
from lightning_gans.engine import contract
from lightning_gans.metrics import METRICS, TEXT_METRICS
from lightning_gans.networks.rel_gan import Annealed
from lightning_gans.runs.atomic import check_writable, replacing, write_text
from lightning_gans.runs.checkpoints import AtomicCheckpointIO, newest_checkpoint, read_checkpoint
from lightning_gans.runs.folder import claim, configs, newest_config, run_of
from lightning_gans.runs.load import load_weights
from lightning_gans.runs.metrics_csv import MetricsCSV
from lightning_gans.stages.guidance import guided_scores
from lightning_gans.stages.style_classifier import fit_style_classifier, style_accuracy
from lightning_gans.tools.score import score_samples
from lightning_gans.tools.text import TEMPERATURES, landmarks, score_text, temperature_sweep
from lightning_gans.tools.text import rewrite as rewritten
from lightning_gans.visualization.images import save_image_atomic


def loaded(path: str | Path, *options: Any) -> Any:
    """``tools.load``; what lies in the folder of a run, with its ``config.yaml``, is trusted, as by ``predict``.

    Raises:
        ValueError: a checkpoint that lies in no run names classes that are not ours.
    """
    with trusting(path) as trust_code:
        return tools.load(path, *options, trust_code=trust_code)


@contextmanager
def trusting(path: str | Path) -> Iterator[bool]:
    """Whether classes of anywhere may be built; where they may not, the error tells what to do on the command line."""
    run = run_of(Path(path) / "checkpoints" / "last.ckpt" if Path(path).is_dir() else Path(path))
    trust_code = run is not None and "model" in newest_config(run)  # no other's file
    try:
        yield trust_code
    except ValueError as error:
        if "trust_code" not in str(error):
            raise
        told = str(error).partition(";")[0]
        raise ValueError(f"{told}; it is trusted where it lies in the folder of its run, with config.yaml.") from error


def score(args: list[str]) -> None:
    """``score``: images in a folder, .zip or .npz file, or a file of text, whoever made them, against a data set."""
    parser = Parser(usage("score"), description=score.__doc__ or "")
    parser.add_argument("--samples", required=True, help="Folder, .zip or .npz of images, or a text file.")
    parser.add_subclass_arguments(GANDataModule, "data", required=True)
    parser.add_function_arguments(score_samples, skip={"samples", "data"})
    parser.add_argument("--out", type=str | None, default=None, help="JSON file for the scores and their protocol.")
    if torch.cuda.is_available():
        parser.set_defaults({"device": "cuda"})
    parsed = parser.parse_args(prepared(spread(args, "--metrics", brackets=True)))
    with told():
        if parsed.out:
            check_writable("--out", parsed.out)
        given = parser.instantiate_classes(parsed)
        options = {k: v for k, v in vars(given).items() if k not in ("config", "samples", "data", "out")}
        if isinstance(given.data, TextDataModule):
            other = [k for k, v in options.items() if k != "metrics" and v != parser.get_default(k)]
            if other:
                raise SystemExit(f"error: --{other[0]} is for scores of images, got {options[other[0]]!r} with text.")
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
    parts = f"{told_by['training']:,} of train and {told_by['held_out']:,} held out"
    print(f"{given.samples}: {told_by['samples']:,} texts against {told_by['data']}, {parts}")
    for name, value in found["scores"].items():
        print(f"{name:<24} {value:.6g}")
    if given.out:
        write_text(given.out, json.dumps(found, indent=2) + "\n")


def sweep(args: list[str]) -> None:
    """``sweep``: a trained model of text at several temperatures of sampling, as sweep.csv in the folder of its run."""
    parser = argparse.ArgumentParser(usage("sweep"), description=sweep.__doc__)
    parser.add_argument("--ckpt_path", type=Path, required=True, help="Folder of a run, or a checkpoint in one.")
    parser.add_argument("--which", choices=("last", "best"), default="last", help="Which checkpoint of a folder.")
    usual, some = ", ".join(map(str, TEMPERATURES)), "distinct and nll_oracle, js of data without one, if not given."
    parser.add_argument("--temperatures", type=float, nargs="+", default=TEMPERATURES, help=f"{usual} if not given.")
    parser.add_argument("--samples", type=int, default=1000, help="At each, %(default)s if not given.")
    parser.add_argument("--metrics", nargs="+", choices=TEXT_METRICS, default=None, help=some)
    parser.add_argument("--seed", type=int, default=0, help="Of the samples, %(default)s if not given.")
    parser.add_argument("--out", default=None, help="CSV file; by default sweep.csv in the folder of the run.")
    own = parser.parse_args(spread(spread(args, "--metrics"), "--temperatures"))
    with told():
        folder = own.ckpt_path if own.ckpt_path.is_dir() else run_of(own.ckpt_path)
        if folder is None or not configs(folder):
            raise SystemExit(
                f"error: --ckpt_path must be a run or lie in one, which tells its data, got {own.ckpt_path}."
            )
        out = Path(own.out or folder / "sweep.csv")
        if out.suffix == ".json":
            raise SystemExit(f"error: --out must be a CSV file, beside which the .json lies, got {own.out}.")
        check_writable("--out", out)
        model = loaded(own.ckpt_path, own.which)
        try:
            contract.require(model, contract.Text, "sweep")
        except TypeError as error:
            raise SystemExit(f"error: {error}") from error
        data = built(newest_config(folder)["data"])
        found = temperature_sweep(model, data, own.temperatures, own.samples, own.metrics, own.seed)
        found["landmarks"] = landmarks(data, own.samples, own.metrics, own.seed)
    names = [*found["curve"][0]]
    print(" ".join(f"{name:>12}" for name in names))
    for point in found["curve"]:
        print(" ".join(f"{point[name]:>12.4g}" for name in names))
    print("\n".join(_landmark_lines(found, names)))
    rows = [",".join(names), *(",".join(f"{point[name]:.8g}" for name in names) for point in found["curve"])]
    write_text(out, "\n".join(rows) + "\n")
    write_text(out.with_suffix(".json"), json.dumps(found, indent=2) + "\n")
    print(f"Sweep        {from_here(out)}")


def _landmark_lines(found: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    """What a curve is read beside; why there is no held-out text, where too few are held out."""
    if "held-out text" not in found["landmarks"]:
        n, samples = found["protocol"]["held_out"], found["protocol"]["samples"]
        hint = f" (--samples {n})" if n > 1 else ""
        yield f"held-out text: not told, since {n:,} are held out, fewer than {samples:,} samples{hint}"
    for name, scores in found["landmarks"].items():
        yield f"{name}: {', '.join(f'{score} {value:.4g}' for score, value in scores.items() if score in names)}"


def classify(args: list[str]) -> None:
    """``classify``: train a classifier of the styles of texts, by which `StyleTransfer` rewrites, into a file."""
    parser = Parser(usage("classify"), description=classify.__doc__ or "")
    parser.add_subclass_arguments(GANDataModule, "data", required=True)
    parser.add_subclass_arguments(nn.Module, "classifier", required=True, help="One-hot texts to logits.")
    parser.add_function_arguments(fit_style_classifier, skip={"classifier", "tokens", "styles", "size", "folder"})
    parser.add_argument("--out", required=True, help="File for its weights; --model.classifier_weights of a fit.")
    parser.set_defaults({"seed": 0})
    silence()
    parsed = parser.parse_args(prepared(args))
    with told():
        check_writable("--out", parsed.out)
        if not issubclass(kind := pkgutil.resolve_name(parsed.data.class_path), TextDataModule):
            raise SystemExit(f"error: --data must be text in two styles, got {kind.__name__}.")
        nets = Namespace(init_args=Namespace(classifier=parsed.classifier))
        fit_networks_to_data(Namespace(model=nets, data=parsed.data))
        pl.seed_everything(parsed.seed, verbose=False)
        given = parser.instantiate_classes(parsed)
        options = {k: v for k, v in vars(given).items() if k not in ("config", "data", "classifier", "out")}
        classifier, size = given.classifier, len(given.data.vocabulary)
        tokens, styles = given.data.reference("train")
        fit_style_classifier(classifier, tokens, styles, size, **options)
        tokens, styles = given.data.reference("test")
        assert styles is not None
        with replacing(Path(given.out)) as temporary:
            torch.save(classifier.state_dict(), temporary)
        print(f"Classifier   {given.out}, right on {style_accuracy(classifier, tokens, styles, size):.3f} held out")


def rewrite(args: list[str]) -> None:
    """``rewrite``: the lines of a text file in another style, by a run of `StyleTransfer`."""
    parser = argparse.ArgumentParser(usage("rewrite"), description=rewrite.__doc__)
    parser.add_argument("--ckpt_path", type=Path, required=True, help="Folder of a run, or a checkpoint.")
    parser.add_argument("--samples", required=True, help="A text file, a sentence a line.")
    parser.add_argument("--style", type=int, required=True, help="The style to write in, 0 or 1.")
    parser.add_argument("--out", required=True, help="Text file to write.")
    parser.add_argument("--which", choices=("last", "best"), default="last", help="Which checkpoint of a folder.")
    own = parser.parse_args(args)
    with told():
        check_writable("--out", own.out)
        lines = lines_of(own.samples)
        try:
            made = rewritten([line for line in lines if line.strip()], loaded(own.ckpt_path, own.which), own.style)
        except TypeError as error:
            raise SystemExit(f"error: {error}") from error
        rest = iter(made)  # blank lines stay, so that each line is where it was
        write_text(own.out, "".join(f"{next(rest) if line.strip() else ''}\n" for line in lines))
        print(f"Rewritten    {own.out}, {len(made):,} line{'s' * (len(made) != 1)} in style {own.style}")


def export(args: list[str]) -> None:
    """``export``: the generator of a run or checkpoint as a .pt2 file (torch.export) or an .onnx file."""
    parser = argparse.ArgumentParser(usage("export"), description=export.__doc__)
    parser.add_argument("--ckpt_path", required=True, help="Folder of a run, or a checkpoint.")
    parser.add_argument("--out", required=True, help="File to write, .pt2 or .onnx.")
    parser.add_argument("--which", choices=("last", "best"), default="last", help="Which checkpoint of a folder.")
    parser.add_argument("--weights", choices=("ema", "raw"), default="ema", help="Averaged weights if there are any.")
    own = parser.parse_args(args)
    with told():
        check_writable("--out", own.out)
        model = loaded(own.ckpt_path, own.which, own.weights)
        if own.out.endswith(".onnx") and isinstance(net := getattr(model, "network", None), Annealed):
            print(f"The graph holds {net.length} tokens, one after the other: dozens take minutes.", flush=True)
        print(f"Generator    {tools.export(model, own.out)}")
        if model.vocabulary_size is not None and model(model.latents(1)[0]).is_floating_point():
            print("Its samples are relaxed one-hot vectors (N, T, V), whose argmax are the tokens of its text.")


def directions(args: list[str]) -> None:
    """``directions``: find and draw directions in the latent space of a trained GAN, in a folder of its run."""
    parser = argparse.ArgumentParser(usage("directions"), description=directions.__doc__)
    parser.add_argument("--ckpt_path", type=Path, required=True, help="A checkpoint or the folder of a run.")
    parser.add_argument("--num_directions", type=int, default=None, help="By default the length of z.")
    parser.add_argument("--kind", default="orthonormal", help="%(default)s (if not given), unit or free.")
    parser.add_argument("--init", default="random", help="%(default)s (if not given) or axes.")
    parser.add_argument("--space", default="z", help="%(default)s (if not given), or w of a generator by styles.")
    parser.add_argument("--max_steps", type=int, default=20_000, help="Updates, %(default)s if not given.")
    parser.add_argument("--batch_size", type=int, default=32, help="Pairs in an update, %(default)s if not given.")
    parser.add_argument("--lr", type=float, default=1e-4, help="Of Adam, %(default)s if not given.")
    parser.add_argument("--seed", type=int, default=0, help="Of the noise, %(default)s if not given.")
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
        found = LatentDirections(loaded(path), **options)
        folder = claim(place)
        charts = DirectionCharts(value_range=data.get("value_range") or (-1.0, 1.0), dirpath=folder)
        bar = GANProgressBar()
        trainer = pl.Trainer(max_steps=steps, devices=1, default_root_dir=str(folder), logger=MetricsCSV(folder),
                             callbacks=[charts, bar], plugins=[AtomicCheckpointIO()], enable_checkpointing=False,
                             enable_model_summary=False, num_sanity_val_steps=0)  # fmt: skip
        trainer.fit(found)
        trainer.save_checkpoint(folder / "last.ckpt")
        bar.disable()  # the test of directions is short
        seen = trainer.validate(found, verbose=False)[0]
    except Exception as error:
        if (sentence := sentence_of(error)) is None:
            raise
        raise SystemExit(f"error: {sentence}") from error
    chance = 1 / found.num_directions
    print(f"RCA          {seen['directions/rca']:.3f} (chance {chance:.3f})")
    print(f"Shift error  {seen['directions/shift_error']:.3f}\nCharts       {from_here(folder)}")


def guide(args: list[str]) -> None:
    """``guide``: draw samples of a trained diffusion to classes, by a classifier of noised samples trained for it.

    Writes into ``guidance/`` of the run: the classifier (a call that was stopped goes on), for each scale a grid with a
    class per column, and ``scores.jsonl``.
    """
    parser = Parser(usage("guide"), description=guide.__doc__ or "")
    parser.add_argument("--ckpt_path", required=True, help="Folder of a run of a diffusion, or a checkpoint.")
    parser.add_subclass_arguments(GANDataModule, "data", required=True)
    parser.add_function_arguments(guided_scores, skip={"path", "data", "folder", "trust_code"})
    parsed = parser.parse_args(prepared(args))
    with told():
        given = parser.instantiate_classes(parsed)
        path = Path(given.ckpt_path)
        place = (run_of(path) or path.parent if path.is_file() else path) / "guidance"
        check_writable("--ckpt_path", place / "last.ckpt")
        silence()
        options = {k: v for k, v in vars(given).items() if k not in ("config", "ckpt_path", "data")}
        with trusting(path) as trust_code:
            rows = guided_scores(path, given.data, place, trust_code=trust_code, **options)
    for row in rows:
        print(f"scale {row['scale']:<6g} fid/lenet {row['fid/lenet']:<9.4g} right class {row['right_class']:<7.3f} "
              f"{row['network_calls']:g} network calls")  # fmt: skip
    print(f"Guidance     {from_here(place)}")


def explain(args: list[str]) -> None:
    """``explain``: which coordinates of a trained generator drive a classifier, as charts and a table of its run."""
    parser = Parser(usage("explain"), description=explain.__doc__ or "")
    parser.add_argument("--ckpt_path", type=Path, required=True, help="A checkpoint or the folder of a run.")
    parser.add_subclass_arguments(nn.Module, "classifier", required=True, help="Images to logits (N, K), or (N,).")
    parser.add_argument("--weights", type=Path | None, default=None, help="The classifier's state_dict, by torch.save.")
    parser.add_argument("--target", type=int, default=1, help="The class that is explained.")
    parser.add_argument("--space", type=str | None, default=None, help="styles, w or z.")
    parser.add_argument("--samples", type=int, default=100, help="That are looked at.")
    parser.add_argument("--picks", type=int, default=8, help="Coordinates in the table, a chart for each.")
    parser.add_argument("--seed", type=int, default=0, help="Of the samples.")
    silence()
    parsed = parser.parse_args(prepared(args))
    try:
        own = parser.instantiate_classes(parsed)
        path = newest_checkpoint(own.ckpt_path) if own.ckpt_path.is_dir() else own.ckpt_path
        place = (run_of(path) or path.parent) / "explained"
        check_writable("--ckpt_path", place / "table.md")
        classifier = own.classifier.eval()
        if own.weights is None and next(classifier.parameters(), None) is not None:
            pl.utilities.rank_zero_warn(
                f"{type(classifier).__name__} is explained as it was built: give --weights a file of its state_dict, "
                "unless it reads its own."
            )
        if own.weights is not None:
            load_weights(classifier, own.weights, "--weights")
        value_range = read_checkpoint(path).get("datamodule_hyper_parameters", {}).get("value_range") or (-1.0, 1.0)
        found = AttFind(loaded(path), classifier, space=own.space, n=own.samples, seed=own.seed)
        picks = found.picks(own.target, picks=own.picks)
        charts = [found.chart(pick, own.target, value_range=value_range) for pick in picks]
    except Exception as error:
        if (sentence := sentence_of(error)) is None:
            raise
        raise SystemExit(f"error: {sentence}") from error
    folder, lines = claim(place), list[str]()
    for i, (picture, probabilities) in enumerate(charts):
        save_image_atomic(picture, folder / f"{i}.png")
        before, after = probabilities.mean(0).tolist()
        lines.append(f"{i}.png: {found.name(picks[i].coordinate)}, probability {before:.2f} to {after:.2f}")
    text = "\n".join([found.table(picks), "", *lines, ""])
    write_text(folder / "table.md", text)
    print(f"{text}\nExplained    {from_here(folder)}")
