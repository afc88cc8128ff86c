"""What does a sample cost, and what is it worth?

    python -m experiments.sampling_cost --out docs/results/sampling-cost.md
    python -m experiments.sampling_cost --data MNIST --calls 5 25 100 200 --scales 4 --out docs/results/cost-mnist.md

GANs, whose samples take one network call, an autoencoder, one corrected by an energy (21 calls), and a diffusion
sampled in 5 to 200 calls, plainly, by DDIM, and guided by a classifier: each trained for the same processor time on the
same data, without labels but for the guiding classifier's. On the ring the share of samples near a mode; on images
FID by a LeNet trained on them. On MNIST the networks are narrow: a minute of one core is to train them.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from experiments import measures, page, playing
from experiments.figures import COLOURS, tidy
from lightning_gans import DCGAN, DDPM, GAN, R3GAN, VAE, VAEBM, WGANGP, networks
from lightning_gans.callbacks import EMA
from lightning_gans.compat.lightning import pl
from lightning_gans.datamodules import MNIST, Digits, Ring
from lightning_gans.metrics import ClassifierExtractor, GenerativeScores, mode_coverage, to_uint8
from lightning_gans.samplers import Guided
from lightning_gans.stages import fit_noisy_classifier
from lightning_gans.visualization.images import figure_image, new_figure

TOTAL = 200  # times of the diffusion
UPDATES = 100_000  # at most: more than there is time for
DATA = {"Ring": partial(Ring, 256), "Digits": partial(Digits, 64), "MNIST": partial(MNIST, 64)}


class Budget(pl.Callback):
    """Stops training after so many seconds of the processor."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.begun = seconds, 0.0

    def on_train_start(self, *args: Any) -> None:
        """Now."""
        self.begun = time.process_time()

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Enough?"""
        trainer.should_stop = trainer.should_stop or time.process_time() - self.begun > self.seconds


def fit(module: pl.LightningModule, data: Any, seconds: float, updates: int, *watching: pl.Callback) -> int:
    """Train for so many seconds of the processor, at most so many updates; how many there were."""
    trainer = pl.Trainer(max_steps=updates, max_epochs=-1, logger=False, enable_checkpointing=False,
                         accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
                         callbacks=[Budget(seconds), EMA(0.99), *watching])  # fmt: skip
    trainer.fit(module, datamodule=data)
    return int(trainer.global_step)


def models(data: str, channels: int = 1) -> dict[str, Any]:
    """Makers of what is compared, with the networks and values of our recipes (configs/), without classes.

    Images of several channels are modelled as independent digits are: the autoencoders have codes that many times as
    long.
    """
    energetic: dict[str, Any] = {"spectral": 2.0, "lr_energy": 2e-4, "replay_after": 500, "noisy": False}
    if data == "Ring":
        pair = lambda: (networks.ToyGenerator(width=128), networks.ToyDiscriminator(width=128), 2)  # noqa: E731
        coder = lambda: (networks.VAEEncoder((2,), 2, 128), networks.VAEDecoder((2,), 2, 128), 2)  # noqa: E731
        same: dict[str, Any] = {"lr_g": 1e-3, "lr_d": 1e-3}
        return {
            "GAN": lambda: GAN(*pair(), loss="non_saturating", **same),
            "WGANGP": lambda: WGANGP(*pair(), gp_weight=0.1, betas=(0.5, 0.9), **same),
            "R3GAN": lambda: R3GAN(*pair(), gamma=3e-4, betas=(0.5, 0.999), **same),
            "VAE": lambda: VAE(*coder(), warm_up=500),
            "VAEBM": lambda: VAEBM(*coder()[:2], networks.ToyDiscriminator(width=64), 2, vae_steps=1000, warm_up=500,
                                   sigma=0.05, step_size=0.1, **energetic),
            "DDPM": lambda: DDPM(networks.DiffusionMLP(), steps=TOTAL, variance="fixed_small", lr_denoiser=2e-3),
        }  # fmt: skip
    small = data == "Digits"
    shape, width = ((channels, 8, 8), 64) if small else ((channels, 28, 28), 16)
    latent, hidden, warm_up, lr_vae = (8, 64, 170, 2e-3) if small else (20, 128, 1000, 1e-3)
    latent *= channels
    size: dict[str, Any] = {"shape": shape, "width": width}
    made, factors = (networks.DCGANGenerator, networks.DCGANDiscriminator), (1, 2) if small else (1, 2, 2)
    coded = shape, latent, hidden
    coder = lambda: (networks.VAEEncoder(*coded), networks.VAEDecoder(*coded), latent)  # noqa: E731
    return {
        "DCGAN": lambda: DCGAN(made[0](latent_dim=64, **size), made[1](norm="batch", **size), 64),
        "WGANGP": lambda: WGANGP(made[0](latent_dim=64, **size), made[1](norm="none", **size), 64, betas=(0.5, 0.9),
                                 lr_g=1e-3, lr_d=1e-3),
        "VAE": lambda: VAE(*coder(), warm_up=warm_up, lr_vae=lr_vae),
        "VAEBM": lambda: VAEBM(*coder()[:2], networks.ToyDiscriminator(shape, 128), latent, vae_steps=3000,
                               warm_up=warm_up, lr_vae=lr_vae, step_size=0.05, **energetic),
        "DDPM": lambda: DDPM(networks.DiffusionUNet(shape, 16 if small else 8, factors), steps=TOTAL, lr_denoiser=2e-3),
    }  # fmt: skip


class Judge:
    """Scores of samples: a number by name."""

    def __init__(self, data: Any) -> None:
        data.prepare_data()
        self.data, self.labels = data, data.reference("train")[1]
        if self.labels is None:
            return
        images, _ = data.reference("train")
        self.net = ClassifierExtractor(images, self.labels, "lenet")
        features = torch.cat([self.net(part)[0] for part in images.split(1000)])
        self.scores = GenerativeScores(features, ("fid",))

    def __call__(self, samples: Tensor, wanted: Tensor | None = None) -> dict[str, float]:
        if self.labels is None:
            found = mode_coverage(samples, self.data.modes, 4 * self.data.std)
            right = torch.cdist(samples, self.data.modes).argmin(1)
            values = {"quality": float(found.high_quality), "modes": float(found.modes)}
        else:
            features, logits = self.net(to_uint8(samples, (-1.0, 1.0)))
            assert logits is not None
            values, right = {"quality": self.scores(features)["fid"]}, logits.argmax(1)
        return values if wanted is None else values | {"right class": float((right == wanted).float().mean())}


def play(data_name: str, method: str, seed: int, a: argparse.Namespace, judge: Judge) -> dict[str, Any]:
    """Train one model, and score its samples at each cost: {way: {calls: scores}}."""
    pl.seed_everything(seed, verbose=False)
    module, ring = models(data_name)[method](), data_name == "Ring"
    seconds = {"Ring": a.ring_seconds, "Digits": a.digits_seconds, "MNIST": a.mnist_seconds}[data_name]
    updates = fit(module, judge.data, seconds, a.updates)
    result: dict[str, Any] = {"updates": updates, "failed": None, "ways": {}}
    if method != "DDPM":
        return result | {"ways": {"plain": {f"{module.network_calls}": judge(module.sample(a.samples, seed=seed))}}}
    if ring:
        items = judge.data.sample_exact(10_000, torch.Generator().manual_seed(seed))
        labels = torch.cdist(items, judge.data.modes).argmin(1)
    else:
        images, labels = judge.data.reference("train")
        items = images.float() / 127.5 - 1
    classifier = networks.TimedClassifier(tuple(items.shape[1:]), int(labels.max()) + 1, 128)
    fit_noisy_classifier(module, classifier, items, labels, steps=a.classifier_steps)
    wanted = labels[torch.randint(len(labels), (a.samples,))]
    for calls in a.calls:
        module.steps_back = module.process.respaced(calls)
        for way, eta in (("ancestral", None), ("DDIM", 0.0)):
            module.eta = eta
            scores = judge(module.sample(a.samples, seed=seed))
            result["ways"].setdefault(way, {})[str(calls)] = scores
        module.eta = None
        for scale in a.scales:
            guided = Guided(module, classifier, scale=scale)
            scores = judge(guided.sample(a.samples, wanted, seed, progress=False), wanted)
            result["ways"].setdefault(f"guided, s = {scale:g}", {})[f"{guided.network_calls:g}"] = scores
    return result


def figure(found: dict[str, dict[str, list[dict[str, Any]]]]) -> Image.Image:
    """A panel per data set: a mark for what takes one call, a line for each way of the diffusion."""
    sheet = new_figure(1 + 5.2 * len(found), 4.6)
    for axes, (data, methods) in zip(sheet.subplots(1, len(found), squeeze=False)[0], found.items()):
        lines: dict[str, list[dict[str, Any]]] = {}
        for method, results in methods.items():
            for way in results[0]["ways"]:
                name = method if method != "DDPM" else f"DDPM, {way}"
                lines[name] = [r["ways"][way] for r in results]
        for colour, (name, ways) in zip(COLOURS, lines.items()):
            x = [float(calls) for calls in ways[0]]
            values = [[w[calls]["quality"] for w in ways] for calls in ways[0]]
            mean = [sum(v) / len(v) for v in values]
            axes.errorbar(x, mean, [[m - min(v) for m, v in zip(mean, values)], [max(v) - m for m, v in
                          zip(mean, values)]], color=colour, marker="o", markersize=4, linewidth=1.4, label=name,
                          capsize=2)  # fmt: skip
        axes.set_xscale("log")
        if data != "Ring":
            axes.set_yscale("log")
        label = "share of samples near a mode" if data == "Ring" else "FID/lenet"
        tidy(axes, data, "network calls per sample", label)
        axes.legend(frameon=False, fontsize=7.5)
    return figure_image(sheet)


def main() -> None:
    """Play, print, write."""
    p = page.parser(__doc__, DATA, data=["Ring", "Digits"], updates=UPDATES, ring_seconds=10.0,
                    digits_seconds=20.0, mnist_seconds=60.0, samples=1000, classifier_steps=600,
                    calls=[5, 10, 25, 50, 200], scales=[1.0, 4.0])  # fmt: skip
    a = p.parse_args()
    torch.set_num_threads(1)
    playing._quiet()
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    tables: list[str] = []
    for data_name in a.data:
        judge = Judge(DATA[data_name]())
        rows = []
        for method in models(data_name):
            for seed in a.seeds:
                values = [a.ring_seconds, a.digits_seconds, a.samples, a.classifier_steps, a.calls, a.scales]
                values += [a.mnist_seconds] if data_name == "MNIST" else []
                values += [a.updates] if a.updates != UPDATES else []
                path = Path(a.runs) / f"cost-{data_name}-{method}-{seed}-{playing.told(*values)}.json"
                result = playing.once(path, partial(play, data_name, method, seed, a, judge))
                found.setdefault(data_name, {}).setdefault(method, []).append(result)
            results = found[data_name][method]
            updates = measures.spread(float(r["updates"]) for r in results)
            for way in results[0]["ways"]:
                for calls in results[0]["ways"][way]:
                    seen = [r["ways"][way][calls] for r in results]
                    cells = [measures.spread(s[k] for s in seen if k in s) for k in ("quality", "modes", "right class")]
                    rows.append(f"| {method} | {way} | {calls} | {' | '.join(cells)} | {updates} |")
        quality = "share near a mode" if data_name == "Ring" else "FID/lenet"
        tables += ["", f"## {data_name}", "", f"| model | sampled | network calls | {quality} | modes | right class | "
                   "updates |", "|---|---|---|---|---|---|---|", *rows]  # fmt: skip
    seconds = {"Ring": f"{a.ring_seconds:g} s on the ring", "Digits": f"{a.digits_seconds:g} s on digits",
               "MNIST": f"{a.mnist_seconds:g} s on MNIST"}  # fmt: skip
    protocol = [
        f"training, in processor time: {', '.join(seconds[name] for name in a.data)}; one thread, whatever the "
        "updates; EMA 0.99; networks and values of configs/, without classes"
        f"{', on MNIST narrower' if 'MNIST' in a.data else ''}",
        f"scores of {a.samples} samples; near: within 4 standard deviations of a mode; FID by a LeNet trained on the "
        "data; bars: lowest and highest seed",
        f"diffusion: {TOTAL} times, cosine; guided: ancestral, classes as frequent as in the data, two calls a "
        f"step, by a classifier of {a.classifier_steps} updates whose training is not counted",
    ]
    flat = {f"{d}: {m}": r for d, methods in found.items() for m, r in methods.items()}
    page.publish(a, "Quality against sampling cost", flat, protocol, tables, figure(found))


if __name__ == "__main__":
    main()
