"""Models without an adversary, on the same engine. ``NONADVERSARIAL`` maps the name used in tests to the class."""

from lightning_gans.engine.module import GenerativeModule
from lightning_gans.nonadversarial.ddpm import DDPM
from lightning_gans.nonadversarial.exemplar_vae import ExemplarVAE
from lightning_gans.nonadversarial.mle import MLE
from lightning_gans.nonadversarial.vae import VAE
from lightning_gans.nonadversarial.vaebm import VAEBM

NONADVERSARIAL: dict[str, type[GenerativeModule]] = {
    "vae": VAE,
    "vaebm": VAEBM,
    "exemplar_vae": ExemplarVAE,
    "ddpm": DDPM,
    "mle": MLE,
}

__all__ = ["DDPM", "MLE", "NONADVERSARIAL", "VAE", "VAEBM", "ExemplarVAE"]
