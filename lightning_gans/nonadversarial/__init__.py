"""Models without an adversary, on the same engine. ``NONADVERSARIAL`` maps the name used in tests to the class."""

from lightning_gans.engine.module import GenerativeModule
from lightning_gans.nonadversarial.exemplar_vae import ExemplarVAE

NONADVERSARIAL: dict[str, type[GenerativeModule]] = {"exemplar_vae": ExemplarVAE}

__all__ = ["NONADVERSARIAL", "ExemplarVAE"]
