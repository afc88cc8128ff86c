"""Models without an adversary, on the same engine. ``NONADVERSARIAL`` maps the name used in tests to the class."""

from lightning_gans.engine.module import GenerativeModule
from lightning_gans.nonadversarial.exemplar_vae import ExemplarVAE
from lightning_gans.nonadversarial.mle import MLE

NONADVERSARIAL: dict[str, type[GenerativeModule]] = {"exemplar_vae": ExemplarVAE, "mle": MLE}

__all__ = ["MLE", "NONADVERSARIAL", "ExemplarVAE"]
