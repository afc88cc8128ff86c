"""One file per paper. ``TECHNIQUES`` maps the name used in configs and tests to the class.

A technique needs one line here, its import; its name is that of its file, and all that is exported, of the package too,
follows from it.
"""

from typing import TYPE_CHECKING

from lightning_gans.gan import GANModule

# in the order of tables and tests, from simple to composed
# isort: off
from lightning_gans.techniques.gan import GAN as GAN
from lightning_gans.techniques.dcgan import DCGAN as DCGAN
from lightning_gans.techniques.wgan import WGAN as WGAN
from lightning_gans.techniques.wgan_gp import WGANGP as WGANGP
from lightning_gans.techniques.ct_gan import CTGAN as CTGAN
from lightning_gans.techniques.sn_gan import SNGAN as SNGAN
from lightning_gans.techniques.srn_gan import SRNGAN as SRNGAN
from lightning_gans.techniques.wgan_alp import WGANALP as WGANALP
from lightning_gans.techniques.prc_gan import PRCGAN as PRCGAN
from lightning_gans.techniques.primal_dual_gan import PrimalDualGAN as PrimalDualGAN
from lightning_gans.techniques.unrolled_gan import UnrolledGAN as UnrolledGAN
from lightning_gans.techniques.robust_wgan import RobustWGAN as RobustWGAN
from lightning_gans.techniques.boosted_gan import BoostedGAN as BoostedGAN
from lightning_gans.techniques.ada_gan import AdaGAN as AdaGAN
from lightning_gans.techniques.r3_gan import R3GAN as R3GAN
from lightning_gans.techniques.style_gan2 import StyleGAN2 as StyleGAN2
from lightning_gans.techniques.trans_gan import TransGAN as TransGAN
from lightning_gans.techniques.gan_control import GANControl as GANControl
from lightning_gans.techniques.stylex import StylEx as StylEx
from lightning_gans.techniques.rel_gan import RelGAN as RelGAN
from lightning_gans.techniques.seq_gan import SeqGAN as SeqGAN
from lightning_gans.techniques.leak_gan import LeakGAN as LeakGAN
from lightning_gans.techniques.style_transfer import StyleTransfer as StyleTransfer

# isort: on

_SHORT = {"boosted_gan": "boosted", "primal_dual_gan": "primal_dual", "unrolled_gan": "unrolled"}
TECHNIQUES: dict[str, type[GANModule]] = {
    _SHORT.get(file := made.__module__.rpartition(".")[2], file): made
    for made in [*globals().values()]
    if isinstance(made, type) and issubclass(made, GANModule) and made is not GANModule
}
if not TYPE_CHECKING:  # which reads no computed list, and follows the aliases above
    __all__ = ["TECHNIQUES", *(technique.__name__ for technique in TECHNIQUES.values())]
