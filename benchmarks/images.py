"""Images and sequences: each technique by ``trainer.fit`` beside the loop that a skilled engineer writes for it.

Run from the repository's root::

    python -m benchmarks.images                              # every row
    python -m benchmarks.images --only wgan_gp sn_gan        # some rows

Clock, protocol and columns are those of `benchmarks.techniques`. The loops have networks of torch's own layers in
channels_last (a folded convolution and its change of resolution are computed one after the other, see
`benchmarks.speed.unfolded`), torch's own double backward and fused Adam. Real and fake samples are scored apart, which
is the faster way here (0.95 of one pass of both at width 32), but for the texts; R3GAN's loop takes scores and slopes
from the same pass. ResNet rows: critic batches of 64, random images of 32 x 32 in memory, 5 D + 1 G unless said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.skilled import PRC, Loop, Setting, non_saturating_g, pairs_g, penalised, penalty, wasserstein_g
from benchmarks.speed import unfolded
from benchmarks.techniques import measure
from lightning_gans.networks import (
    CharCritic,
    CharGenerator,
    R3Discriminator,
    R3Generator,
    ResNetDiscriminator,
    ResNetGenerator,
    StyleDiscriminator,
    StyleGenerator,
    TransGANDiscriminator,
    TransGANGenerator,
)

GAMMA, DRIFT, LIMIT, R1_GAMMA = 0.05, 1e-3, 5.0, 1.0


# ---------------------------------------------------------------------- what each critic minimises
def wasserstein(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    on_real, on_fake = critic(real), critic(fake)
    return on_fake.mean() - on_real.mean()


def with_penalty(critic: nn.Module, real: Tensor, fake: Tensor, weight: float = 10.0) -> Tensor:
    return wasserstein(critic, real, fake) + weight * penalty(critic, real, fake)


def hinge(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    return F.relu(1 - critic(real)).mean() + F.relu(1 + critic(fake)).mean()


def pairs(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """R3GAN: scores and slopes of one pass."""
    (on_real, r1), (on_fake, r2) = (sloped(critic, x) for x in (real, fake))
    return F.softplus(on_fake - on_real).mean() + GAMMA / 2 * (r1 + r2)


def sloped(critic: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Scores, and the mean squared slope."""
    on = critic(x.requires_grad_(True))
    (gradient,) = torch.autograd.grad(on.sum(), x, create_graph=True)
    return on, gradient.flatten(1).square().sum(1).mean()


def consistency(critic: Any, real: Tensor) -> Tensor:
    """CT-GAN's term, of two passes of a ResNet with dropout."""
    (f1, h1), (f2, h2) = (features(critic, real) for _ in range(2))
    return ((f1 - f2).square() + 0.1 * (h1 - h2).square().mean(1)).mean()


def features(critic: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    for block, p in zip(critic.blocks, critic.dropout):
        x = F.dropout(block(x), p) if p else block(x)
    h = F.relu(x).mean((2, 3))
    return critic.head(h), h


def consistent(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    return with_penalty(critic, real, fake) + 2 * consistency(critic, real)


def drifting(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """TransGAN."""
    on_real = critic(real)
    return (critic(fake) - on_real).mean() + 10 * penalty(critic, real, fake) + DRIFT * on_real.mean().square()


# ---------------------------------------------------------------------- the loops
class Apart(Loop):
    """With networks taken apart, in channels_last."""

    def begin(self, setting: Setting) -> None:
        def networks() -> Any:
            return [unfolded(net).to(memory_format=torch.channels_last) for net in setting.networks()]  # type: ignore[call-overload]

        super().begin(replace(setting, networks=lambda: networks()[:2]))
        self.others = networks()[2:]


class Batches(nn.Module):
    """A network that scores so many samples at a time: BatchNorm's statistics are of real or of fake samples alone."""

    def __init__(self, net: nn.Module, size: int) -> None:
        super().__init__()
        self.net, self.size = net, size

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.net(part) for part in x.split(self.size)])


class ImagePRC(Apart, PRC):
    """With CT-GAN's penalties, and BatchNorm in C."""

    def begin(self, setting: Setting) -> None:
        super().begin(setting)
        self.classifier = Batches(self.others[0], setting.batch)
        self.c_parameters = list(self.classifier.parameters())
        self.c_optimizer = torch.optim.Adam(self.c_parameters, 2e-5, self.options["betas"], fused=True)

    def reweighted(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        on_real, on_fake = critic(real), critic(fake)
        weights = len(fake) * on_fake.detach().softmax(0)
        self.z = self.last
        loss = (weights * on_fake).mean() - on_real.mean() + 5 * penalty(critic, real, fake)
        return loss + 2 * consistency(critic, real)


class Styled(Apart):
    """StyleGAN2: mixed styles, R1 in each 16th update of D and the path length in each 4th of G."""

    def begin(self, setting: Setting) -> None:
        super().begin(setting)
        self.net: Any = self.generator
        self.generator: Any = self.mixed
        self.d_loss, self.g_loss = self.with_slope, self.with_length
        self.length, self.d_done, self.g_done = torch.zeros(()), 0, 0

    def mixed(self, z: Tensor) -> Tensor:
        n, net = len(z), self.net
        w = net.mapping(z)
        if torch.is_grad_enabled():
            net.w_mean.lerp_(w.detach().mean(0), 0.005)
        other, layers = net.mapping(torch.randn_like(z)), net.num_ws
        cut = torch.where(torch.rand(n) < 0.9, torch.randint(1, layers, (n,)), layers)
        first = (torch.arange(layers) < cut[:, None])[:, :, None]
        return net.synthesis(torch.where(first, w[:, None], other[:, None]), self.maps(n))

    def maps(self, n: int) -> list[Tensor]:
        return [torch.randn(n, *shape) for shape in self.net.noise_shapes]

    def with_slope(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        due, self.d_done = self.d_done % 16 == 0, self.d_done + 1
        on_real, r1 = sloped(critic, real) if due else (critic(real), 0.0)
        return F.softplus(-on_real).mean() + F.softplus(critic(fake)).mean() + 16 * R1_GAMMA / 2 * r1

    def with_length(self, critic: nn.Module, fake: Tensor, real: Tensor) -> Tensor:
        due, self.g_done = self.g_done % 4 == 0, self.g_done + 1
        loss = non_saturating_g(critic, fake, real)
        return loss + 4 * 2 * self.path(self.noise()[: len(real) // 2], fake) if due else loss

    def path(self, z: Tensor, fake: Tensor) -> Tensor:
        n, ws = len(z), self.net.spread(self.net.mapping(z))
        maps, y = self.maps(n), torch.randn_like(fake[:n]) / fake[0, 0].numel() ** 0.5
        (slope,) = torch.autograd.grad((self.net.synthesis(ws, maps) * y).sum(), ws, create_graph=True)
        length = slope.square().sum(2).mean(1).sqrt()
        self.length.lerp_(length.detach().mean(), 0.01)
        return (length - self.length).square().mean()


class Clipped(torch.optim.Adam):
    """Adam of gradients of a limited norm."""

    def step(self, closure: Any = None) -> Any:
        nn.utils.clip_grad_norm_(self.param_groups[0]["params"], LIMIT)
        return super().step(closure)


def normalised(critic: nn.Module) -> None:
    """Torch's own spectral norm."""
    for layer in critic.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.utils.parametrizations.spectral_norm(layer)


# ---------------------------------------------------------------------- the rows
@dataclass(frozen=True)
class Row:
    """A game, and how long a round is.

    Attributes:
        title: what the table calls it.
        technique: by its key in TECHNIQUES.
        networks: makes them; the third one is PRC-GAN's classifier.
        loop: of the skilled side.
        options: of the technique.
        updates: of G in a round, on each side.
        target: largest ratio allowed.
        shape: of an item; ``batch`` of them in a step of D.
        one_hot: the items are one-hot.
    """

    title: str
    technique: str
    networks: Callable[[], tuple[nn.Module, ...]]
    loop: Callable[[], Loop]
    options: dict[str, Any]
    updates: int
    target: float | None = None
    shape: tuple[int, ...] = (3, 32, 32)
    batch: int = 64
    latent_dim: int = 128
    one_hot: bool = False

    def setting(self) -> Setting:
        """The game with its data."""
        torch.manual_seed(0)
        data = torch.rand(2000, *self.shape)
        if self.one_hot:
            data = F.one_hot(data.argmax(-1), self.shape[-1]).float()
        networks: Any = self.networks
        return Setting(networks, data, self.batch, self.latent_dim, self.options, loop=self.loop)


DROPOUT = (0.2, 0.5, 0.5)
WGAN = {"d_steps": 5, "betas": (0.0, 0.9), "lr_g": 2e-4, "lr_d": 2e-4}
FACTOR = {**WGAN, "g_batch_factor": 2}


def resnets(width: int = 32, **options: Any) -> tuple[nn.Module, ...]:
    return ResNetGenerator(width=width), ResNetDiscriminator(width=width, **options)


def three(width: int = 32) -> tuple[nn.Module, ...]:
    return *resnets(width, dropout=DROPOUT), ResNetDiscriminator(width=width, norm="batch")


def r3_networks() -> tuple[nn.Module, ...]:
    return R3Generator(latent_dim=128, widths=32, blocks=1), R3Discriminator(widths=32, blocks=1)


def transformers() -> tuple[nn.Module, ...]:
    shape = (1, 8, 8)
    generator = TransGANGenerator(shape, latent_dim=64, width=128, depths=[1, 1])
    return generator, TransGANDiscriminator(shape, widths=[64], depths=[1, 1])


def styled() -> tuple[nn.Module, ...]:
    shape, widths = (3, 16, 16), [64, 32, 16]
    return StyleGenerator(shape, latent_dim=48, widths=widths), StyleDiscriminator(shape, widths=widths)


def texts() -> tuple[nn.Module, ...]:
    return CharGenerator((16, 27), 64, width=32, blocks=2), CharCritic((16, 27), width=32, blocks=2)


PLAY = partial(Apart, with_penalty, wasserstein_g)
PRC_OPTIONS = {**WGAN, "lr_g": 2e-5, "lr_d": 1e-4, "g_steps": 5}
R3_OPTIONS = {"betas": (0.0, 0.9), "lr_g": 2e-4, "lr_d": 2e-4, "gamma": GAMMA}
TRANS = {"d_steps": 2, "g_batch_factor": 1, "betas": (0.0, 0.9), "lr_g": 1e-3, "lr_d": 1e-3}
STYLE = {"r1_gamma": R1_GAMMA, "betas": (0.0, 0.99), "lr_g": 2e-3, "lr_d": 2e-3}
TEXT = {"d_steps": 5, "betas": (0.5, 0.9), "lr_g": 1e-3, "lr_d": 1e-3}
ROWS = {
    "wgan_gp": Row("WGAN-GP, ResNet, width 32", "wgan_gp", resnets, PLAY, FACTOR, 3, 0.55),
    "sn_gan": Row(
        "SN-GAN, ResNet, width 32", "sn_gan", partial(resnets, pool="sum"),
        partial(Apart, hinge, wasserstein_g, normalised), {**FACTOR, "order": "g_first"}, 4, 0.75,
    ),
    "prc_gan": Row("PRC-GAN, ResNet, width 32, 5 D + 5 G", "prc_gan", three, ImagePRC, PRC_OPTIONS, 10),
    "ct_gan": Row(
        "CT-GAN, ResNet, width 32", "ct_gan", partial(resnets, dropout=DROPOUT),
        partial(Apart, consistent, wasserstein_g), FACTOR, 3,
    ),
    "r3_gan": Row(
        "R3GAN, ResNet, width 32, 1 D + 1 G", "r3_gan", resnets, partial(Apart, pairs, pairs_g), R3_OPTIONS, 8, 0.75
    ),
    "r3_own": Row(
        "R3GAN, its own networks, width 32, 1 D + 1 G", "r3_gan", r3_networks, partial(Apart, pairs, pairs_g),
        R3_OPTIONS, 5, 0.75,
    ),
    "wgan_gp_128": Row(
        "WGAN-GP, ResNet, width 128", "wgan_gp", partial(resnets, 128), PLAY, FACTOR, 2, 0.55
    ),
    "trans_gan": Row(
        "TransGAN, digits' networks, batch 64, 2 D + 1 G", "trans_gan", transformers,
        partial(Apart, drifting, wasserstein_g, adam=partial(Clipped, betas=(0.0, 0.9), fused=True)), TRANS, 20,
        shape=(1, 8, 8), latent_dim=64,
    ),
    "style_gan2": Row(
        "StyleGAN2, 16 pixels, batch 32, 1 D + 1 G", "style_gan2", styled, Styled, STYLE, 32,
        shape=(3, 16, 16), batch=32, latent_dim=48,
    ),
    "text": Row(
        "character WGAN-GP, 16 characters, batch 32", "wgan_gp", texts,
        partial(Apart, partial(penalised, weight=10.0), wasserstein_g), TEXT, 40,
        shape=(16, 27), batch=32, latent_dim=64, one_hot=True,
    ),
}  # fmt: skip


if __name__ == "__main__":
    measure(ROWS, "Images and sequences beside a skilled engineer's loop, in CPU time.")
