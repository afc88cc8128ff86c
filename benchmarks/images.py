"""Images and sequences: each technique by ``trainer.fit`` beside the loop that a skilled engineer writes for it.

Run from the repository's root::

    python -m benchmarks.images                              # every row
    python -m benchmarks.images --only wgan_gp sn_gan        # some rows

Clock, protocol and columns are those of `benchmarks.techniques`. The loops have networks of torch's own layers in
channels_last (a folded convolution and its change of resolution are computed one after the other, see
`benchmarks.speed.unfolded`), torch's own double backward and fused Adam. Real and fake samples are scored apart, which
is the faster way here (0.95 of one pass of both at width 32), but for the texts; R3GAN's loop takes scores and slopes
from the same pass. ResNet rows: critic batches of 64, random images of 32 x 32 in memory, 5 D + 1 G unless said.
GAN-Control and StylEx are played as in their recipes, on coloured shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.skilled import PRC, Loop, Setting, fused, non_saturating_g, pairs_g, penalised, penalty, wasserstein_g
from benchmarks.speed import unfolded
from benchmarks.techniques import measure
from lightning_gans.functional.shapes import GROUND, RANGES, draw_shapes
from lightning_gans.metrics import ShapeMeasure
from lightning_gans.networks import (
    CharCritic,
    CharGenerator,
    LeNet,
    R3Discriminator,
    R3Generator,
    ResNetDiscriminator,
    ResNetGenerator,
    SoftDiscriminator,
    StyleDiscriminator,
    StyleEncoder,
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
        made: list[Any] = []

        def networks() -> Any:
            made[:] = [unfolded(net).to(memory_format=torch.channels_last) for net in setting.networks()]  # type: ignore[call-overload]
            return made[:2]

        super().begin(replace(setting, networks=networks))
        self.others = made[2:]


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


class Controlled(Styled):
    """GAN-Control: no mixed styles and no path length; pairs share a part of z, and what they show is compared.

    Only what is asked for is measured, and of distances one triangle.
    """

    def begin(self, setting: Setting) -> None:
        super().begin(setting)
        self.generator, self.g_loss = self.by_parts, self.contrasted
        sizes, self.pairs, half = list(setting.options["groups"].values()), setting.options["pairs"], setting.batch // 2
        group = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))  # the last is "other"
        owner = torch.arange(half) // self.pairs
        self.shared = (owner[:, None] == group) & (group < len(sizes) - 1)
        first, other = torch.triu_indices(2 * half, 2 * half, 1)
        self.own = (other - first == half).nonzero().flatten()  # places of the pairs (i, i + half), by i
        self.variance, self.strength = torch.ones(len(sizes) - 1), 0.0

    def by_parts(self, z: Tensor) -> Tensor:
        n, net = len(z), self.net
        if training := torch.is_grad_enabled():
            first, second = z.chunk(2)
            z = torch.cat([first, torch.where(self.shared, first, second)])
        w = net.mapping(z)
        if training:
            net.w_mean.lerp_(w.detach().mean(0), 0.005)
        return net.synthesis(net.spread(w), self.maps(n))

    def after_d(self, real: Tensor, fake: Tensor) -> None:
        if self.d_done <= 100:
            with torch.no_grad():
                now = torch.stack([of.var(0).mean() for of in coloured(real)])
            self.variance.lerp_(now, 1 / self.d_done)
        self.strength = min(1.0, self.g_done / 200)

    def contrasted(self, critic: nn.Module, fake: Tensor, real: Tensor) -> Tensor:
        self.g_done += 1
        half, n = len(fake) // 2, len(fake)
        loss = non_saturating_g(critic, torch.cat([fake[:half], fake[half:].roll(1, 0)]), real)
        for k, (of, unit) in enumerate(zip(coloured(fake), self.variance.sqrt().tolist())):
            d = F.pdist(of, 1) / (of.shape[1] * unit)
            own = d[self.own[k * self.pairs : (k + 1) * self.pairs]]
            others = (1 - d).relu().sum() - (1 - own).relu().sum()
            found = (own - 0.1).relu().mean() + others / (n * (n - 1) / 2 - self.pairs)
            loss = loss + 2 * self.strength * found
        return loss


def coloured(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Colour (N, 3), size (N, 1) and place (N, 2) of a shape."""
    pixels, side = (images + 1) / 2, images.shape[-1]
    mass = (2 * ((pixels - GROUND).abs().amax(1) - 0.15).clamp(0, 0.5)).flatten(1)
    total = mass.sum(1, keepdim=True).clamp(min=1e-6)
    share = mass * (total > 1e-6) / total
    at = (torch.arange(side, dtype=images.dtype) + 0.5) / side
    places = torch.stack([at.repeat(side), at.repeat_interleave(side)], 1)
    size = (total / math.pi).sqrt() / side * (total > 1e-6)
    return (share[:, None] @ pixels.flatten(2).mT).squeeze(1), size, share @ places


class Explained(Styled):
    """StylEx: what C says of the data is looked up; a real sample's code is one for D's step, G's and its own term."""

    def begin(self, setting: Setting) -> None:
        super().begin(setting)
        self.encoder, self.classifier = self.others
        self.classifier.eval().requires_grad_(False)
        self.generator, self.d_loss, self.g_loss = self.half_again, self.by_verdicts, self.kept
        self.g_parameters += [*self.encoder.parameters()]
        self.g_optimizer = fused(self.g_parameters, self.options["lr_g"], self.options["betas"])
        with torch.no_grad():
            told = [self.told(images) for images in setting.data.split(100)]
        self.verdicts, self.looks = torch.cat([log_p for log_p, _ in told]).exp(), torch.cat([h for _, h in told])

    def told(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The classifier's log p and its features at unit length, of one pass."""
        h = self.classifier.features(images)
        return self.classifier.logits(h).log_softmax(1), F.normalize(h, dim=1)

    def real(self) -> Tensor:
        return self.picked(torch.randint(len(self.setting.data), (self.setting.batch,)))

    def picked(self, rows: Tensor) -> Tensor:
        self.x, self.p, self.near = (of[rows] for of in (self.setting.data, self.verdicts, self.looks))
        self.x, self.near = self.x[: len(rows) // 2], self.near[: len(rows) // 2]
        with torch.enable_grad():  # the encoder is the same until G has stepped
            self.codes = self.encoder(self.x)
        return self.setting.data[rows]

    def half_again(self, z: Tensor) -> Tensor:
        n, half, net = len(z), len(z) // 2, self.net
        drawn = net.mapping(torch.cat([z[half:, : -self.p.shape[1]], self.p[half:]], 1))
        w = torch.cat([torch.cat([self.codes, self.p[:half]], 1), drawn])
        if torch.is_grad_enabled():
            net.w_mean.lerp_(w.detach().mean(0), 0.005)
        return net.synthesis(net.spread(w), self.maps(n))

    def by_verdicts(self, critic: Any, real: Tensor, fake: Tensor) -> Tensor:
        return self.with_slope(partial(critic, labels=self.p), real, fake)  # type: ignore[arg-type]

    def kept(self, critic: Any, fake: Tensor, real: Tensor) -> Tensor:
        again, p = fake[: len(self.x)], self.p[: len(self.x)]
        q, near = self.told(again)
        loss = F.softplus(-critic(fake, self.p)).mean() + (self.x - again).abs().mean()
        loss = loss + 0.1 * (self.near - near).square().sum(1).mean() + F.kl_div(q, p, reduction="batchmean")
        return loss + 0.1 * (self.codes - self.encoder(again)).abs().mean()


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
        networks: makes them; behind the two are those that the technique has besides.
        loop: of the skilled side.
        options: of the technique.
        updates: of G in a round, on each side.
        target: largest ratio allowed.
        shape: of an item; ``batch`` of them in a step of D.
        data: makes so many items, (2000, *shape).
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
    data: Callable[..., Tensor] = torch.rand

    def setting(self) -> Setting:
        """The game with its data."""
        torch.manual_seed(0)
        networks: Any = self.networks
        data = self.data(2000, *self.shape)
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


def controlled() -> tuple[nn.Module, ...]:
    shape, widths = (3, 16, 16), [64, 32, 16]
    generator = StyleGenerator(shape, latent_dim=48, widths=widths, groups=[*GROUPS.values()])
    return generator, StyleDiscriminator(shape, widths=widths)


def explained() -> tuple[nn.Module, ...]:
    shape, widths = (3, 16, 16), [64, 32, 16]
    generator, encoder = StyleGenerator(shape, 48, widths=widths, passed=2), StyleEncoder(shape, 48, widths=widths)
    return generator, SoftDiscriminator(shape, widths), encoder, LeNet(shape, num_classes=2)


def coloured_shapes(n: int, _: int, side: int, __: int) -> Tensor:
    factors = {name: low + (high - low) * torch.rand(n) for name, (low, high) in RANGES.items()}
    return 2 * draw_shapes({**factors, "shape": factors["shape"].long()}, side) - 1


def letters(*shape: int) -> Tensor:
    return F.one_hot(torch.rand(shape).argmax(-1), shape[-1]).float()


def texts() -> tuple[nn.Module, ...]:
    return CharGenerator((16, 27), 64, width=32, blocks=2), CharCritic((16, 27), width=32, blocks=2)


PLAY = partial(Apart, with_penalty, wasserstein_g)
PRC_OPTIONS = {**WGAN, "lr_g": 2e-5, "lr_d": 1e-4, "g_steps": 5}
R3_OPTIONS = {"betas": (0.0, 0.9), "lr_g": 2e-4, "lr_d": 2e-4, "gamma": GAMMA}
HINGE = (partial(Apart, hinge, wasserstein_g, normalised), {**FACTOR, "order": "g_first"})
PAIRS = (partial(Apart, pairs, pairs_g), R3_OPTIONS)
TRANS = {"d_steps": 2, "g_batch_factor": 1, "betas": (0.0, 0.9), "lr_g": 1e-3, "lr_d": 1e-3}
STYLE = {"r1_gamma": R1_GAMMA, "betas": (0.0, 0.99), "lr_g": 2e-3, "lr_d": 2e-3}
GROUPS = {"hue": 12, "size": 12, "position": 12, "other": 12}
PLAIN_STYLE = {**STYLE, "path_length_weight": 0.0}
CONTROL = {**PLAIN_STYLE, "measure": ShapeMeasure(), "groups": GROUPS, "pairs": 4}
TEXT = {"d_steps": 5, "betas": (0.5, 0.9), "lr_g": 1e-3, "lr_d": 1e-3}
ROWS = {
    "wgan_gp": Row("WGAN-GP, ResNet, width 32", "wgan_gp", resnets, PLAY, FACTOR, 3, 0.55),
    "sn_gan": Row(
        "SN-GAN, ResNet, width 32", "sn_gan", partial(resnets, pool="sum"), *HINGE, 4, 0.75,
    ),
    "prc_gan": Row("PRC-GAN, ResNet, width 32, 5 D + 5 G", "prc_gan", three, ImagePRC, PRC_OPTIONS, 10),
    "ct_gan": Row(
        "CT-GAN, ResNet, width 32", "ct_gan", partial(resnets, dropout=DROPOUT),
        partial(Apart, consistent, wasserstein_g), FACTOR, 3,
    ),
    "r3_gan": Row("R3GAN, ResNet, width 32, 1 D + 1 G", "r3_gan", resnets, *PAIRS, 8, 0.75),
    "r3_own": Row(
        "R3GAN, its own networks, width 32, 1 D + 1 G", "r3_gan", r3_networks, *PAIRS, 5, 0.75,
    ),
    "wgan_gp_128": Row(
        "WGAN-GP, ResNet, width 128", "wgan_gp", partial(resnets, 128), PLAY, FACTOR, 2, 0.55
    ),
    "sn_gan_128": Row(
        "SN-GAN, ResNet, width 128", "sn_gan", partial(resnets, 128, pool="sum"), *HINGE, 2, 0.75,
    ),
    "r3_gan_128": Row(
        "R3GAN, ResNet, width 128, 1 D + 1 G", "r3_gan", partial(resnets, 128), *PAIRS, 2, 0.75,
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
    "gan_control": Row(
        "GAN-Control, 16 pixels, batch 32, 1 D + 1 G", "gan_control", controlled, Controlled, CONTROL, 32,
        shape=(3, 16, 16), batch=32, latent_dim=48, data=coloured_shapes,
    ),
    "stylex": Row(
        "StylEx, 16 pixels, batch 32, 1 D + 1 G", "stylex", explained, Explained, PLAIN_STYLE, 32,
        shape=(3, 16, 16), batch=32, latent_dim=48, data=coloured_shapes,
    ),
    "text": Row(
        "character WGAN-GP, 16 characters, batch 32", "wgan_gp", texts,
        partial(Apart, partial(penalised, weight=10.0), wasserstein_g), TEXT, 40,
        shape=(16, 27), batch=32, latent_dim=64, data=letters,
    ),
}  # fmt: skip


if __name__ == "__main__":
    measure(ROWS, "Images and sequences beside a skilled engineer's loop, in CPU time.")
