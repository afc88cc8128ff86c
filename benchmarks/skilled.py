"""The loop that a skilled engineer writes for each technique of two players: what ``benchmarks.techniques`` compares.

Nothing but the algorithm: no hooks, no logging, no wrappers; fused Adam, gradients of the stepping network only, real
and fake samples scored in one pass where the algorithm allows it, data picked from a tensor in memory, plain
``nn.Sequential`` networks. Losses that take more than a line are the library's own functions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_gans.functional import kernels, losses, robust
from lightning_gans.functional.lipschitz import adversarial_lipschitz_penalty
from lightning_gans.functional.unroll import Moments, unroll
from lightning_gans.wrappers import spectral_norm

Tick = Callable[[int], None]
Networks = Callable[[], tuple[nn.Module, nn.Module]]


@dataclass
class Setting:
    """What both sides are given.

    Attributes:
        networks: makes generator and discriminator; each side seeds and calls it.
        data: (M, ...) in memory.
        batch: samples of a discriminator update.
        latent_dim: length of z.
        options: of the technique, by the names of its constructor; the loop reads what it needs.
        batches: in place of the data, ready batches of a user's own loader.
        loop: in place of the technique's in ``loops``.
        labels: (M,) of the data, or None.
    """

    networks: Networks
    data: Tensor
    batch: int
    latent_dim: int
    options: dict[str, Any] = field(default_factory=dict)
    batches: Callable[[], Any] | None = None
    loop: Callable[[], Any] | None = None
    labels: Tensor | None = None


def fused(parameters: Any, lr: float, betas: tuple[float, float]) -> torch.optim.Optimizer:
    """Adam as one wants it."""
    return torch.optim.Adam(parameters, lr=lr, betas=betas, fused=True)


def give(loss: Tensor, parameters: list[Tensor]) -> None:
    """Gradients to these parameters and nothing else, as they lie in memory, in which fused Adam reads both."""
    for p, g in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True)):
        p.grad = g if g is None or g.stride() == p.stride() else torch.empty_like(p).copy_(g)


def step(loss: Tensor, parameters: list[Tensor], optimizer: torch.optim.Optimizer) -> None:
    """One update of these parameters."""
    give(loss, parameters)
    optimizer.step()


def scores(critic: nn.Module, real: Tensor, fake: Tensor) -> tuple[Tensor, ...]:
    """Of both in one pass."""
    return critic(torch.cat([real, fake])).chunk(2)


def slope(critic: nn.Module, x: Tensor) -> Tensor:
    """Norm of each sample's input gradient."""
    x.requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return gradient.flatten(1).norm(dim=1)


def penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """mean (||grad f|| - 1)^2 between real and fake samples."""
    a = torch.rand(len(real), *[1] * (real.ndim - 1))
    return (slope(critic, torch.lerp(fake, real, a)) - 1).square().mean()


# ---------------------------------------------------------------------- what each minimises: (critic, ...) to a loss
def logistic(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    on_real, on_fake = scores(critic, real, fake)
    return F.softplus(-on_real).mean() + F.softplus(on_fake).mean()


def hinge(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    on_real, on_fake = scores(critic, real, fake)
    return F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean()


def wasserstein(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    on_real, on_fake = scores(critic, real, fake)
    return on_fake.mean() - on_real.mean()


def penalised(critic: nn.Module, real: Tensor, fake: Tensor, weight: float) -> Tensor:
    return wasserstein(critic, real, fake) + weight * penalty(critic, real, fake)


def consistent(critic: nn.Sequential, real: Tensor, fake: Tensor, gp_weight: float, ct_weight: float) -> Tensor:
    """CT-GAN: features and scores of two dropout masks in one pass."""
    body, head = critic[:-2], critic[-2:]
    features = body(torch.cat([real, real]))
    (f1, f2), (h1, h2) = head(features).chunk(2), features.flatten(1).chunk(2)
    distance = (f1 - f2).square() + 0.1 * (h1 - h2).square().mean(1)
    return penalised(critic, real, fake, gp_weight) + ct_weight * distance.mean()


def pairs(critic: nn.Module, real: Tensor, fake: Tensor, gamma: float) -> Tensor:
    """R3GAN: the penalties and the loss share one pass."""
    x = torch.cat([real, fake]).requires_grad_(True)
    on_all = critic(x)
    (gradient,) = torch.autograd.grad(on_all.sum(), x, create_graph=True)
    on_real, on_fake = on_all.chunk(2)
    return F.softplus(on_fake - on_real).mean() + gamma * gradient.flatten(1).square().sum(1).mean()


def lipschitz(critic: nn.Module, real: Tensor, fake: Tensor, weight: float, clip: Any) -> Tensor:
    found = adversarial_lipschitz_penalty(critic, torch.cat([real, fake]), epsilon=(0.1, 10.0), xi=10.0, clip=clip)
    return wasserstein(critic, real, fake) + weight * found


def minimax_g(critic: nn.Module, fake: Tensor, real: Tensor) -> Tensor:
    return -F.softplus(critic(fake)).mean()


def non_saturating_g(critic: nn.Module, fake: Tensor, real: Tensor) -> Tensor:
    return F.softplus(-critic(fake)).mean()


def wasserstein_g(critic: nn.Module, fake: Tensor, real: Tensor) -> Tensor:
    return -critic(fake).mean()


def pairs_g(critic: nn.Module, fake: Tensor, real: Tensor) -> Tensor:
    with torch.no_grad():
        on_real = critic(real)
    return F.softplus(on_real - critic(fake)).mean()


# ---------------------------------------------------------------------- the loop
class Loop:
    """The alternation; what a technique has besides is in a subclass.

    Args:
        d_loss: of critic, real and fake samples.
        g_loss: of critic, fakes and the last real samples.
        wrap: makes the critic that trains.
        adam: makes both optimizers, of parameters and a rate.
    """

    def __init__(
        self,
        d_loss: Callable[..., Tensor] = logistic,
        g_loss: Callable[..., Tensor] = non_saturating_g,
        wrap: Callable[[nn.Module], Any] | None = None,
        adam: Callable[..., Any] | None = None,
    ) -> None:
        self.d_loss, self.g_loss, self.wrap, self.adam = d_loss, g_loss, wrap, adam

    def begin(self, setting: Setting) -> None:
        """Networks and optimizers."""
        options = setting.options
        torch.manual_seed(0)
        self.generator, self.critic = setting.networks()
        self.setting, self.options = setting, options
        if self.wrap is not None:
            self.wrap(self.critic)
        make = self.adam or partial(fused, betas=options["betas"])
        self.d_parameters = [p for p in self.critic.parameters() if p.requires_grad]
        self.g_parameters = [p for p in self.generator.parameters() if p.requires_grad]
        self.d_optimizer = make(self.d_parameters, lr=options["lr_d"])
        self.g_optimizer = make(self.g_parameters, lr=options["lr_g"])
        self.source = None if setting.batches is None else iter(endless(setting.batches()))

    def real(self) -> Tensor:
        """A batch."""
        if self.source is not None:
            return next(self.source)
        data = self.setting.data
        return data[torch.randint(len(data), (self.setting.batch,))]

    def noise(self, factor: int = 1) -> Tensor:
        """z."""
        return torch.randn(factor * self.setting.batch, self.setting.latent_dim)

    def after_d(self, real: Tensor, fake: Tensor) -> None:
        """After each update of D."""

    def update_g(self, real: Tensor) -> None:
        """The generator's part of a cycle."""
        self.critic.requires_grad_(False)
        fake = self.generator(self.noise(self.options.get("g_batch_factor", 1)))
        step(self.g_loss(self.critic, fake, real), self.g_parameters, self.g_optimizer)
        self.critic.requires_grad_(True)

    def run(self, setting: Setting, updates: int, tick: Tick) -> None:
        """So many generator updates, after each cycle ``tick``."""
        self.begin(setting)
        tick(0)
        done, g_steps, d_steps = 0, self.options.get("g_steps", 1), self.options.get("d_steps", 1)
        while done < updates:
            for _ in range(d_steps):
                real = self.real()
                with torch.no_grad():
                    fake = self.generator(self.noise())
                step(self.d_loss(self.critic, real, fake), self.d_parameters, self.d_optimizer)
                self.after_d(real, fake)
            self.update_g(real)
            done += g_steps
            tick(done)


def endless(loader: Any) -> Any:
    """Epoch after epoch."""
    while True:
        yield from loader


class Clipped(Loop):
    """WGAN: RMSprop, and weights clipped after each critic update."""

    def after_d(self, real: Tensor, fake: Tensor) -> None:
        with torch.no_grad():
            torch._foreach_clamp_min_(self.d_parameters, -0.01)
            torch._foreach_clamp_max_(self.d_parameters, 0.01)


class PRC(Loop):
    """Reweighted fakes in D; C, and five clipped steps of G on one batch of noise."""

    def begin(self, setting: Setting) -> None:
        super().begin(setting)
        self.classifier = setting.networks()[1]
        self.c_parameters = list(self.classifier.parameters())
        self.c_optimizer = fused(self.c_parameters, 2e-5, self.options["betas"])
        self.d_loss = self.reweighted

    def reweighted(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        on_real, on_fake = scores(critic, real, fake)
        weights = len(fake) * on_fake.detach().softmax(0)
        loss = (weights * on_fake).mean() - on_real.mean() + self.options["gp_weight"] * penalty(critic, real, fake)
        self.z = self.last  # of this update
        return loss

    def noise(self, factor: int = 1) -> Tensor:
        self.last = super().noise(factor)
        return self.last

    def after_d(self, real: Tensor, fake: Tensor) -> None:
        self.fake = fake

    def update_g(self, real: Tensor) -> None:
        z, old = self.z, None
        for _ in range(self.options["g_steps"]):
            if old is None:
                with torch.no_grad():
                    old = self.classifier(self.fake)
            other = self.real()
            with torch.no_grad():
                fake = self.generator(self.noise())
            loss = logistic(self.classifier, other, fake)
            give(loss, self.c_parameters)
            nn.utils.clip_grad_norm_(self.c_parameters, 0.5)
            self.c_optimizer.step()
            self.critic.requires_grad_(False)
            self.classifier.requires_grad_(False)
            fake = self.generator(z)
            ratio = (old - self.classifier(fake)).clamp(-10, 10).exp()
            loss = -(ratio.clamp_max(1.4) * self.critic(fake)).mean()
            step(loss, self.g_parameters, self.g_optimizer)
            self.critic.requires_grad_(True)
            self.classifier.requires_grad_(True)


class PrimalDual(Loop):
    """G also descends the squared distance of its density from a target, at the last real samples."""

    unit: Tensor | None = None

    def begin(self, setting: Setting) -> None:
        super().begin(setting)
        self.unit, self.g_loss = None, self.dual

    def dual(self, critic: nn.Module, fake: Tensor, real: Tensor) -> Tensor:
        if self.unit is None:
            self.unit = kernels.unit_of_distance(real)
        with torch.no_grad():
            on_real = critic(real)
        p = kernels.log_kernel_density(real, fake, self.unit).exp()
        target = p.detach() + self.options["alpha"] * F.softplus(on_real)
        return -F.softplus(critic(fake)).mean() + (target - p).square().mean()


class Unrolled(Loop):
    """G's loss is of D after five more Adam steps."""

    def begin(self, setting: Setting) -> None:
        super().begin(setting)
        self.g_loss = self.unrolled

    def unrolled(self, critic: nn.Module, fake: Tensor, real: Tensor) -> Tensor:
        names = [name for name, _ in critic.named_parameters()]
        x = torch.cat([real, fake])

        def loss(phi: dict[str, Tensor]) -> Tensor:
            on_real, on_fake = torch.func.functional_call(critic, phi, (x,)).chunk(2)
            return F.softplus(-on_real).mean() + F.softplus(on_fake).mean()

        slots = [self.d_optimizer.state[p] for p in self.d_parameters]
        flat = (torch.cat([slot[key].flatten() for slot in slots]) for key in ("exp_avg", "exp_avg_sq"))
        moments = Moments(slots[0]["step"], *flat)
        phi = dict(zip(names, self.d_parameters))
        return -loss(unroll(loss, phi, 5, 1e-4, rule="adam", betas=self.options["betas"], moments=moments))


class Robust(Loop):
    """A network weighs the real samples; it steps once in a cycle."""

    def begin(self, setting: Setting) -> None:
        super().begin(setting)
        self.weigher = setting.networks()[1]
        self.w_parameters = list(self.weigher.parameters())
        self.w_optimizer = fused(self.w_parameters, self.options["lr_d"], self.options["betas"])
        self.d_loss = self.weighted

    def weighted(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        with torch.no_grad():
            weights = robust.softplus_weights(self.weigher(real))
        on_real, on_fake = scores(critic, real, fake)
        loss = on_fake.mean() - (weights * on_real).mean()
        return loss + self.options["gp_weight"] * penalty(critic, real, fake)

    def update_g(self, real: Tensor) -> None:
        with torch.no_grad():
            value = self.critic(real)
        weights = robust.softplus_weights(self.weigher(real))
        excess = (robust.divergence(weights) - self.options["rho"]).clamp_min(0)
        step((weights * value).mean() + 100 * excess, self.w_parameters, self.w_optimizer)
        super().update_g(real)


class Mixed(Loop):
    """BoostedGAN with p = .9: half of the fakes are of a frozen generator, all are weighted."""

    def begin(self, setting: Setting) -> None:
        super().begin(setting)
        new, old = self.generator, copy.deepcopy(self.generator).requires_grad_(False)
        half = setting.batch // 2
        weights = torch.cat([torch.full((half,), 1.8), torch.full((setting.batch - half,), 0.2)])

        def mixture(z: Tensor) -> Tensor:
            with torch.no_grad():
                first = old(z[:half])
            return torch.cat([first, new(z[half:])])

        self.generator: Any = mixture
        game = losses.LOSSES["non_saturating"]
        self.d_loss = lambda critic, real, fake: game.discriminator(*scores(critic, real, fake), fake_weight=weights)
        self.g_loss = lambda critic, fake, real: game.generator(critic(fake), fake_weight=weights)


def torch_spectral_norm(critic: nn.Module) -> None:
    """Torch's own, of every linear layer."""
    for layer in critic.modules():
        if isinstance(layer, nn.Linear):
            nn.utils.parametrizations.spectral_norm(layer)


def loops(name: str, options: dict[str, Any]) -> Loop:
    """The loop of a technique."""
    if name in ("wgan_gp", "ct_gan", "wgan_alp", "r3_gan"):
        d_loss: Callable[..., Tensor] = {
            "wgan_gp": partial(penalised, weight=options.get("gp_weight", 10.0)),
            "ct_gan": partial(consistent, gp_weight=10.0, ct_weight=2.0),
            "wgan_alp": partial(lipschitz, weight=10.0, clip=None),
            "r3_gan": partial(pairs, gamma=0.05),
        }[name]
        return Loop(d_loss, pairs_g if name == "r3_gan" else wasserstein_g)
    return {
        "gan": lambda: Loop(logistic, minimax_g),
        "dcgan": Loop,
        "ada_gan": Loop,
        "wgan": lambda: Clipped(wasserstein, wasserstein_g, adam=torch.optim.RMSprop),
        "sn_gan": lambda: Loop(hinge, wasserstein_g, torch_spectral_norm),
        "srn_gan": lambda: Loop(hinge, wasserstein_g, partial(spectral_norm, stable_rank=0.7)),
        "prc_gan": PRC,
        "primal_dual": PrimalDual,
        "unrolled": Unrolled,
        "robust_wgan": Robust,
        "boosted": Mixed,
    }[name]()
