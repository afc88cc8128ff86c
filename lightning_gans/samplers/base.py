"""What all samplers share: where proposals and log ratios come from, blocks with a stream of noise each, a report."""

from __future__ import annotations

import inspect
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Generator, Tensor, nn
from tqdm import tqdm

from lightning_gans import checks
from lightning_gans.engine.contract import require_normal_noise, require_one_call
from lightning_gans.functional.conditional import conditional_call, score
from lightning_gans.functional.modes import evaluating

BLOCK = 100  # samples that share one stream of noise, and what networks are given at once
LogRatio = Callable[..., Tensor]


@dataclass
class Report:
    """What a sampler has done since it was built.

    Attributes:
        samples: that it returned.
        proposals: samples or moves that were tried for them.
        accepted: of those; for Langevin the sum of the acceptance probabilities.
        burn_in: samples that were drawn before the first, to fix constants.
        seconds: of all this.

    >>> report = Report(samples=10, proposals=40, accepted=10)
    >>> report.acceptance, report.cost
    (0.25, 4.0)
    """

    samples: int = 0
    proposals: int = 0
    accepted: float = 0.0
    burn_in: int = 0
    seconds: float = 0.0

    @property
    def acceptance(self) -> float:
        """Share of the proposals that were accepted; NaN before the first."""
        return self.accepted / self.proposals if self.proposals else float("nan")

    @property
    def cost(self) -> float:
        """Proposals per sample, those of the burn-in left out; NaN before the first."""
        return self.proposals / self.samples if self.samples else float("nan")

    def as_dict(self) -> dict[str, float]:
        """All of it as plain numbers."""
        return {**asdict(self), "acceptance": self.acceptance, "cost": self.cost}


class Sampler(ABC):
    """Samples of a trained GAN that its discriminator helps to choose or to move; no network is changed.

    Samples come in blocks of 100, each with its own stream of noise: so what a seed gives, in whole blocks, depends
    neither on how many samples are asked for at once nor on the number of processes that share the blocks. A last block
    that is smaller is drawn as such, and may be others. Networks run in evaluation mode.

    A log ratio is taken to be of a sample alone. A discriminator that compares samples (`networks.StyleDiscriminator`
    with ``group`` > 1) tells another one in another batch: what it chooses is near the law, not of it.

    Args:
        module: a trained module (``sample``, ``generator``, ``discriminator``, ``latent_dim``), whose EMA generator is
            taken if there is one; for samplers that only choose also a function ``(n, generator) -> (n, ...)``.
        log_ratio: maps samples [, labels] to log p_data / p_generated, (N,); None takes ``module.log_ratio``. Where
            there is none (a critic without a calibrated score), `calibrate` or `keep_training` make one. Samplers that
            only choose take -inf for what is never to be kept.

    Raises:
        ValueError: if there is no log ratio.

    >>> class Plain(Sampler):
    ...     def draw(self, n, generator, labels=None):
    ...         return self.propose(n, generator, labels)[0]
    >>> plain = Plain(lambda n, generator: torch.rand(n, 2, generator=generator), log_ratio=lambda x: 0 * x[:, 0])
    >>> torch.equal(plain.sample(150, progress=False)[100:], plain.sample(50, start=100, progress=False))
    True
    """

    name = "sampler"
    other_calls = 0  # of the network, for a sample, beside one for each proposal

    def __init__(self, module: Any, log_ratio: LogRatio | None = None) -> None:
        if getattr(module, "vocabulary_size", None) is not None:
            raise ValueError(f"module must make images or points for {type(self).__name__}, got one that makes text.")
        self.module, self.log_ratio = module, ratio_of(module) if log_ratio is None else log_ratio
        checks.functions(log_ratio=self.log_ratio)
        self.report = Report()

    @property
    def network_calls(self) -> float:
        """Calls of the module's network that a sample took so far, those of the log ratio and the burn-in left out."""
        return (self.report.cost + self.other_calls) * getattr(self.module, "network_calls", 1)

    @property
    def protocol(self) -> dict[str, Any]:
        """What scores of its samples tell: its name and options, and what it did here (this process's share)."""
        options = {name: getattr(self, name, self) for name in inspect.signature(type(self)).parameters}
        plain = {name: value for name, value in options.items() if isinstance(value, int | float | str | None)}
        return {
            "network_calls": self.network_calls,
            "sampler": {"name": self.name, **plain},
            "sampler_report": self.report.as_dict(),
        }

    @abstractmethod
    def draw(self, n: int, generator: Generator, labels: Tensor | None = None) -> Tensor:
        """``n`` samples whose every random number comes from ``generator`` (CPU), with ``labels`` if they are given."""

    def blocks(self, n: int, labels: Tensor | None = None, seed: int = 0, start: int = 0) -> Iterator[Tensor]:
        """The samples start .. start + n of a seed in blocks of 100, one after the other; see :meth:`sample`."""
        checks.at_least_one(n=n)
        checks.at_least(0, seed=seed, start=start)
        if start % BLOCK:
            raise ValueError(f"start must be a multiple of {BLOCK}, the size of a block, got {start}.")
        if labels is not None and labels.shape != (n,):
            raise ValueError(f"labels must have shape ({n},), one per sample, got {tuple(labels.shape)}.")
        for first in range(0, n, BLOCK):
            begin, size = time.perf_counter(), min(BLOCK, n - first)
            with torch.inference_mode(False), torch.no_grad():  # for gradients by z in ``trainer.test``, too
                given = None if labels is None else labels[first : first + size].clone()
                block = self.draw(size, stream(seed, start + first), given)
            self.report.samples += size
            self.report.seconds += time.perf_counter() - begin
            yield block

    def sample(
        self, n: int, labels: Tensor | None = None, seed: int = 0, start: int = 0, progress: bool = True
    ) -> Tensor:
        """``n`` samples (n, ...); ``report`` then tells the acceptance rate, the proposals and the time they took.

        Args:
            n: number of samples, >= 1.
            labels: (n,) classes; for a conditional generator they are drawn with the proposals if not given, by the
                module's ``draw_labels``, uniformly if it has none.
            seed: of all randomness, >= 0; the same samples each time, whatever else draws random numbers.
            start: leave out so many samples of the seed, a multiple of 100: several processes can share the work.
            progress: show a bar.

        Raises:
            ValueError: for arguments out of range, and for log ratios that are not finite.
        """
        blocks = []
        with tqdm(total=n, desc=self.name, unit="sample", leave=False, disable=not progress) as bar:
            for block in self.blocks(n, labels, seed, start):
                blocks.append(block)
                bar.set_postfix(acceptance=f"{self.report.acceptance:.3g}", refresh=False)
                bar.update(len(block))
        return torch.cat(blocks)

    def propose(self, n: int, generator: Generator, labels: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """``n`` samples of the module and their labels."""
        if not hasattr(self.module, "sample"):
            if labels is not None:
                raise ValueError("labels were given, but the proposal is a function without any.")
            return self.module(n, generator), None
        labels = self.some_labels(n, generator, labels)
        return self.module.sample(n, labels, generator), labels

    def some_labels(self, n: int, generator: Generator, labels: Tensor | None) -> Tensor | None:
        """``labels``, or those that the module draws (uniform ones, if it does not) if the generator takes any."""
        classes = getattr(self.module, "num_classes", None)
        if labels is None and classes is not None:
            draws = hasattr(self.module, "draw_labels")
            labels = (
                self.module.draw_labels(n, generator) if draws else torch.randint(classes, (n,), generator=generator)
            )
        if labels is not None and classes is None:
            raise ValueError("labels were given, but the generator takes none.")
        return labels

    def logits(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """The log ratios of samples, (N,) in float64; -inf stands for never."""
        return self.checked(call_ratio(self.log_ratio, x, labels), never=True)

    def checked(self, ratios: Tensor, never: bool = False) -> Tensor:
        """``ratios`` in float64; a ValueError for NaN and infinity, of which -inf may stand for never."""
        if bool(ratios.isfinite().all()) or (never and bool((ratios < torch.inf).all())):
            return ratios.double()
        learned = isinstance(f := self.log_ratio, nn.Module) or f == getattr(self.module, "log_ratio", None)
        allowed, cause = " or -inf" if never else "", ": the networks have diverged" if learned else ""
        raise ValueError(f"log_ratio must give finite numbers{allowed}, got NaN or infinity{cause}.")


class LatentSampler(Sampler):
    """A sampler that needs the generator itself: it chooses or moves z, or an activation.

    ``module`` must have ``network`` (or ``generator``) and ``latent_dim``; its noise must be standard normal.

    >>> class Prior(LatentSampler):
    ...     def draw(self, n, generator, labels=None):
    ...         return self.make(*self.latents(n, generator, labels))
    >>> from types import SimpleNamespace
    >>> module = SimpleNamespace(generator=nn.Linear(2, 1), latent_dim=2, log_ratio=lambda x: x[:, 0])
    >>> tuple(Prior(module).sample(3, progress=False).shape)
    (3, 1)
    """

    def __init__(self, module: Any, log_ratio: LogRatio | None = None) -> None:
        for name in ("generator", "latent_dim"):
            if not hasattr(module, name) and not (name == "generator" and hasattr(module, "network")):
                raise ValueError(f"module must have a {name} for {type(self).__name__}, got {type(module).__name__}.")
        require_one_call(module, self)
        require_normal_noise(module, self)
        super().__init__(module, log_ratio)

    @property
    def network(self) -> nn.Module:
        """What samples are made by: the EMA generator, if there is one, else the generator."""
        return cast(nn.Module, getattr(self.module, "network", None) or self.module.generator)

    def latents(self, n: int, generator: Generator, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Standard normal z (n, latent_dim) and labels, on the generator's device."""
        labels = self.some_labels(n, generator, labels)
        z = self.normal((n, self.module.latent_dim), generator)
        return z, None if labels is None else labels.to(z.device)

    def normal(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Standard normal numbers in the generator network's type, on its device."""
        parameter = next(self.network.parameters(), torch.empty(0))
        return torch.randn(shape, generator=generator, dtype=parameter.dtype).to(parameter.device)

    def make(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """The samples of z."""
        with evaluating(self.network):
            return conditional_call(self.network, z, labels)

    def gradient(self, of: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Tensor]:
        """``of(at)`` (N,) in float64, and the gradient of each by its row of ``at``; parameters get none."""
        with torch.enable_grad():
            at = at.detach().requires_grad_()
            values = of(at)
            gradient = torch.autograd.grad(values.sum(), at)[0]
        return self.checked(values.detach()), gradient

    def ratio_of_latent(self, labels: Tensor | None) -> Callable[[Tensor], Tensor]:
        """The function l(G(z)) of z, differentiable."""
        return lambda z: call_ratio(self.log_ratio, self.make(z, labels), labels)


def call_ratio(log_ratio: LogRatio, x: Tensor, labels: Tensor | None) -> Tensor:
    """The log ratios (N,) of samples, by a network in evaluation mode, on its device, or by any function."""
    network = log_ratio if isinstance(log_ratio, nn.Module) else nn.Identity()
    x = x.to(next(network.parameters(), x).device)
    with evaluating(network):
        return score(log_ratio, x, None if labels is None else labels.to(x.device), "log_ratio")


def ratio_of(module: Any) -> LogRatio:
    """``module.log_ratio``; a ValueError that says what to train if there is none."""
    found = getattr(module, "log_ratio", None)
    if found is None:
        raise ValueError(
            f"log_ratio must be given for {type(module).__name__}, which trains no network whose output is "
            "log p_data / p_generated: make one with samplers.calibrate or samplers.keep_training."
        )
    return cast(LogRatio, found)


def score_of(module: Any, given: LogRatio | None) -> LogRatio:
    """``given``, else the log ratio, else the discriminator: for samplers that only go where scores are high."""
    return given or getattr(module, "log_ratio", None) or cast(LogRatio, discriminator_of(module))


def discriminator_of(module: Any) -> Any:
    """The discriminator; a ValueError for a model without one."""
    found = getattr(module, "discriminator", None)
    if not callable(found):
        raise ValueError(f"module must have a discriminator, got {type(module).__name__}, which has none.")
    return found


def stream(seed: int, start: int) -> Generator:
    """The noise of the block of samples that begins at ``start``."""
    return Generator().manual_seed(seed * 1_000_003 + start)


SamplerFactory = Callable[[Any], Sampler]


def name_of(factory: SamplerFactory) -> str:
    """What a sampler's scores are called, before it is built: its class's name, also of a partial, as from YAML."""
    known = (factory.func, *factory.args) if isinstance(factory, partial) else (factory,)
    return next((str(made.name) for made in known if hasattr(made, "name")), Sampler.name)
