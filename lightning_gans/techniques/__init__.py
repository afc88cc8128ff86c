"""One file per paper. ``TECHNIQUES`` maps the name used in configs and tests to the class."""

from lightning_gans.gan import GANModule
from lightning_gans.techniques.ada_gan import AdaGAN
from lightning_gans.techniques.boosted_gan import BoostedGAN
from lightning_gans.techniques.ct_gan import CTGAN
from lightning_gans.techniques.dcgan import DCGAN
from lightning_gans.techniques.gan import GAN
from lightning_gans.techniques.prc_gan import PRCGAN
from lightning_gans.techniques.primal_dual_gan import PrimalDualGAN
from lightning_gans.techniques.robust_wgan import RobustWGAN
from lightning_gans.techniques.sn_gan import SNGAN
from lightning_gans.techniques.srn_gan import SRNGAN
from lightning_gans.techniques.unrolled_gan import UnrolledGAN
from lightning_gans.techniques.wgan import WGAN
from lightning_gans.techniques.wgan_alp import WGANALP
from lightning_gans.techniques.wgan_gp import WGANGP

TECHNIQUES: dict[str, type[GANModule]] = {
    "gan": GAN,
    "dcgan": DCGAN,
    "wgan": WGAN,
    "wgan_gp": WGANGP,
    "ct_gan": CTGAN,
    "sn_gan": SNGAN,
    "srn_gan": SRNGAN,
    "wgan_alp": WGANALP,
    "prc_gan": PRCGAN,
    "primal_dual": PrimalDualGAN,
    "unrolled": UnrolledGAN,
    "robust_wgan": RobustWGAN,
    "boosted": BoostedGAN,
    "ada_gan": AdaGAN,
}

__all__ = [
    "CTGAN",
    "DCGAN",
    "GAN",
    "PRCGAN",
    "SNGAN",
    "SRNGAN",
    "TECHNIQUES",
    "WGAN",
    "WGANALP",
    "WGANGP",
    "AdaGAN",
    "BoostedGAN",
    "PrimalDualGAN",
    "RobustWGAN",
    "UnrolledGAN",
]
