"""One file per paper. ``TECHNIQUES`` maps the name used in configs and tests to the class.

A technique needs two lines here, an import and an entry; all that is exported, of the package too, follows from them.
"""

from typing import TYPE_CHECKING

from lightning_gans.gan import GANModule
from lightning_gans.techniques.ada_gan import AdaGAN as AdaGAN
from lightning_gans.techniques.boosted_gan import BoostedGAN as BoostedGAN
from lightning_gans.techniques.ct_gan import CTGAN as CTGAN
from lightning_gans.techniques.dcgan import DCGAN as DCGAN
from lightning_gans.techniques.gan import GAN as GAN
from lightning_gans.techniques.prc_gan import PRCGAN as PRCGAN
from lightning_gans.techniques.primal_dual_gan import PrimalDualGAN as PrimalDualGAN
from lightning_gans.techniques.r3_gan import R3GAN as R3GAN
from lightning_gans.techniques.robust_wgan import RobustWGAN as RobustWGAN
from lightning_gans.techniques.sn_gan import SNGAN as SNGAN
from lightning_gans.techniques.srn_gan import SRNGAN as SRNGAN
from lightning_gans.techniques.style_gan2 import StyleGAN2 as StyleGAN2
from lightning_gans.techniques.unrolled_gan import UnrolledGAN as UnrolledGAN
from lightning_gans.techniques.wgan import WGAN as WGAN
from lightning_gans.techniques.wgan_alp import WGANALP as WGANALP
from lightning_gans.techniques.wgan_gp import WGANGP as WGANGP

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
    "r3_gan": R3GAN,
    "style_gan2": StyleGAN2,
}
if not TYPE_CHECKING:  # which reads no computed list, and follows the aliases above
    __all__ = ["TECHNIQUES", *(technique.__name__ for technique in TECHNIQUES.values())]
