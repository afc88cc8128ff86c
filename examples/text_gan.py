"""A text GAN judged properly: as a curve over temperatures beside the language model that it began with.

    python examples/text_gan.py                       # Python's language reference, by characters: nothing to download
    python examples/text_gan.py --text my-text.txt    # yours: letters alone are kept, in lower case

Two minutes on one CPU core.

A text GAN's samples often look better than those of its language model only since it writes what is likely and leaves
out the rest, which a temperature below 1 does too, for nothing. So three models are compared, each at ten temperatures:
the language model (maximum likelihood); RelGAN, which goes on from there; and the language model that goes on learning
for as many updates, which is the cheapest rival. Two lines tell how large the differences are: what as much real text
scores that was held out, and what a model would that knows letters but no order of them.
"""

from __future__ import annotations

import argparse
import copy
import logging
from pathlib import Path
from typing import Any

from lightning_gans import MLE, RelGAN
from lightning_gans.callbacks import GANProgressBar
from lightning_gans.datamodules import PyDocText
from lightning_gans.networks import LSTMGenerator, RelGANDiscriminator
from lightning_gans.tools.text import landmarks, temperature_sweep
from matplotlib.figure import Figure
import pytorch_lightning as pl

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--text", help="a text file in place of the language reference")
parser.add_argument("--likelihood", type=int, default=1500, help="updates of the language model")
parser.add_argument("--updates", type=int, default=200, help="of RelGAN, and of the rival")
parser.add_argument("--samples", type=int, default=1000, help="texts that are scored at each temperature")
parser.add_argument("--out", type=Path, default=Path("runs/text-gan"))
arguments = parser.parse_args()
arguments.out.mkdir(parents=True, exist_ok=True)
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # three fits: what it says of each of them


def fit(model: Any, updates: int) -> Any:
    """The model, trained for so many updates; of a GAN they are its generator's."""
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(max_steps=updates, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
                         enable_model_summary=False, callbacks=[GANProgressBar()])  # fmt: skip
    trainer.fit(model, datamodule=data)
    return model


# 1. Texts of 16 characters, 27 symbols; the last tenth of the file is held out.
data = PyDocText(length=16, path=arguments.text)
print(data.describe())
length, symbols = data.shape

# 2. The language model: an LSTM, whose density is known (so its held-out NLL is) and whose samples can be relaxed by
#    Gumbel noise, which is how RelGAN trains it.
model = fit(MLE(LSTMGenerator(data.shape, embedding=32, hidden=64), lr_mle=0.003), arguments.likelihood)

# 3. From its weights on: RelGAN, and the rival.
critic = RelGANDiscriminator(data.shape, embedding=32, representations=8, filters=32)
gan = fit(RelGAN(copy.deepcopy(model.generator), critic, latent_dim=length * symbols), arguments.updates)
rival = fit(MLE(copy.deepcopy(model.generator), lr_mle=0.003), arguments.updates)
models = {"language model": model, "RelGAN": gan, "language model, gone on with": rival}

# 4. Score all three at each temperature by the same noise: how far the triples of letters are from those of the text
#    (JS-3, bits), and how likely the held-out text is (NLL, nats a letter). The first can be had by writing a few
#    likely texts again and again; the second asks whether all is written that is. The JS is to the text that was
#    learnt from, of which the held-out part is another chapter: below its line there is nothing to be won.
metrics, curves = ["js", "distinct"], {}
for name, trained in models.items():
    curves[name] = temperature_sweep(trained, data, samples=arguments.samples, metrics=metrics)["curve"]
lines = landmarks(data, arguments.samples, metrics)

# 5. Draw.
figure = Figure(figsize=(11, 4.2), dpi=130, layout="constrained")
shown = {"js-3": "JS of triples, bits", "nll_gen": "held-out NLL, nats a letter"}
for axes, (score, title) in zip(figure.subplots(1, 2), shown.items()):
    for name, curve in curves.items():
        axes.plot([point["temperature"] for point in curve], [point[score] for point in curve], "o-", ms=3, label=name)
    for (name, scores), style in zip(lines.items(), (":", "--")):
        if score in scores:
            axes.axhline(scores[score], color="gray", linestyle=style, label=name)
    axes.set(xlabel="temperature of sampling", title=title)
    axes.legend(frameon=False, fontsize=8)
figure.savefig(arguments.out / "curves.png")

# 6. Tell.
for name, trained in models.items():
    best = min(curves[name], key=lambda point: point["js-3"])
    at_one = next(point for point in curves[name] if point["temperature"] == 1)
    print(f"\n{name}: JS-3 {at_one['js-3']:.3f} and NLL {at_one['nll_gen']:.3f} at temperature 1, distinct pairs "
          f"{at_one['distinct-2']:.3f}; its best JS-3 is {best['js-3']:.3f}, at {best['temperature']:g}")  # fmt: skip
    print("   ", " | ".join(data.decode(trained.sample(4, seed=0))))
print(f"""
Look at {arguments.out}/curves.png: a text GAN is worth its time where its curve lies below those of both language
models in both panels. Below in the left one alone is what a colder language model does, too. With the defaults of this
script RelGAN, so small and after so few updates, is worse in both; docs/results/oracle.md has longer games, of which
none gets off the curve.""")
