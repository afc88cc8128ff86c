"""A generator that is rewarded for what a network likes."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.functional.conditional import conditional_call
from lightning_gans.functional.modes import beside, copied, evaluating
from lightning_gans.functional.numerics import full_precision
from lightning_gans.regularizers.regularizer import RegularizedBatch, Regularizer


class Reward(Regularizer):
    r"""The generator's term of a reward r, held near the generator that it began with (after arXiv:2009.01325).

    .. math:: E_z \Big[ -r(G(z)) + \frac{\beta}{D} \|G(z) - G_0(z)\|^2 \Big]

    with a squared distance in the place of the divergence, which a GAN does not know. r is learned from preferences,
    say (``functional.preference.preference_loss``). What is rewarded is got, and more of it than was meant: look at
    the diversity of samples beside it.

    Args:
        reward: samples to (N,), high for good; copied and frozen.
        anchor: G_0, a trained generator; copied and frozen.
        weight: of the term.
        beta: >= 0.

    >>> import torch
    >>> from types import SimpleNamespace
    >>> batch = SimpleNamespace(z=torch.zeros(3, 1), labels=None)
    >>> term = Reward(nn.Sequential(nn.Identity(), nn.Flatten(0)), nn.Identity(), beta=2.0)
    >>> float(term(nn.Identity(), batch, fake=torch.full((3, 1), 3.0)))  # -3 + 2 * 3^2
    15.0
    """

    name = "reward"
    player = "g"

    def __init__(self, reward: nn.Module, anchor: nn.Module, weight: float = 1.0, beta: float = 1.0) -> None:
        super().__init__(weight)
        checks.not_negative(beta=beta)
        checks.networks(reward=reward, anchor=anchor)
        self.reward, self.anchor = (copied(net).requires_grad_(False) for net in (reward, anchor))
        self.beta = beta

    def __call__(self, discriminator: nn.Module, batch: RegularizedBatch, fake: Tensor) -> Tensor:
        """The term at the fakes of this step."""
        reward, anchor = (beside(net, batch.z) for net in (self.reward, self.anchor))
        fake, z = full_precision(fake), full_precision(batch.z)
        with evaluating(reward), evaluating(anchor):
            told, began = reward(fake), conditional_call(anchor, z, batch.labels)
        return self.beta * (fake - began).square().mean() - full_precision(told).mean()
