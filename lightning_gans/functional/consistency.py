"""How far apart a network with dropout is from itself (CT-GAN, arXiv:1803.01541)."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from lightning_gans.functional.conditional import check_scores, score
from lightning_gans.functional.modes import hooked
from lightning_gans.functional.numerics import full_precision
from lightning_gans.functional.ranks import gather_rows


def consistency_term(
    discriminator: nn.Module,
    x: Tensor,
    labels: Tensor | None = None,
    margin: float = 0.0,
    feature_weight: float = 0.1,
) -> Tensor:
    r"""Mean distance of a critic's two answers to the same samples under two dropout masks, above a margin; a scalar.

    .. math:: E \max(0, (f' - f'')^2 + \frac{a}{F} \|h' - h''\|^2 - m)

    where f', f'' are the scores and h', h'' (F,) the features of one sample, which are what goes into the last linear
    layer.

    Args:
        discriminator: the critic, with active dropout.
        x: samples (N, ...).
        labels: their classes (N,), if the critic takes them.
        margin: m >= 0.
        feature_weight: a >= 0.

    Raises:
        ValueError: for a critic without a linear layer if a > 0.

    >>> net, x = nn.Sequential(nn.Dropout(), nn.Linear(2, 1)).requires_grad_(False), torch.ones(64, 2)
    >>> float(consistency_term(net.eval(), x)), float(consistency_term(net.train(), x)) > 0
    (0.0, True)
    """
    return (dropout_distance(discriminator, x, labels, feature_weight) - margin).clamp_min(0).mean()


def dropout_distance(
    discriminator: nn.Module, x: Tensor, labels: Tensor | None = None, feature_weight: float = 0.1
) -> Tensor:
    """The distance (N,) of each sample's two answers, before margin and mean; as in `consistency_term`.

    >>> dropout = nn.Sequential(nn.Dropout(0.5), nn.Flatten(0))  # 1 becomes 0 or 2
    >>> sorted(set(dropout_distance(dropout, torch.ones(100, 1), feature_weight=0).tolist()))
    [0.0, 4.0]
    """
    (f1, f2), features = _twice(discriminator, x, labels, feature_weight > 0)
    distance = (f1 - f2).square()
    if feature_weight > 0:
        if not features:
            raise ValueError(
                f"feature_weight must be 0 for a discriminator without a torch.nn.Linear layer, got {feature_weight}."
            )
        h1, h2 = features
        distance = distance + feature_weight * (h1 - h2).square().mean(1)
    return distance


def relic_term(
    discriminator: nn.Module, x: Tensor, labels: Tensor | None = None, temperature: float = 0.1, alpha: float = 1.0
) -> Tensor:
    r"""A sample's two answers are alike, and like the others' in the same way (ReLIC, arXiv:2010.07922); a scalar.

    .. math:: -\frac1{2N} \sum_i \big( \log p_{12}(i|i) + \log p_{21}(i|i) \big)
        + \alpha \frac1N \sum_i KL\big(p_{12}(\cdot|i)\,\|\,p_{21}(\cdot|i)\big), \qquad
        p_{12}(j|i) \propto e^{h'_i \cdot h''_j / \tau}

    of the features h', h'' of unit length in two passes, whose masks (dropout, ``wrappers.DiffAugment``) differ.
    p_12 of the divergence has no gradient.

    Args:
        discriminator: with a linear layer, whose input the features are, and something random.
        x: samples (N, ...).
        labels: their classes (N,), if it takes them.
        temperature: tau > 0.
        alpha: >= 0.

    Raises:
        ValueError: for a discriminator without a linear layer.

    >>> net = nn.Sequential(nn.Linear(2, 1))  # without anything random both passes agree: the rest is the contrast
    >>> round(float(relic_term(net, torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), temperature=0.5, alpha=9.0)), 4)
    0.0181
    """
    _, features = _twice(discriminator, x, labels, True)
    if not features:
        raise ValueError("relic needs a discriminator with a torch.nn.Linear layer, whose input the features are.")
    one, two = (torch.nn.functional.normalize(gather_rows(h), dim=1) for h in features)
    there, back = (a @ b.T / temperature for a, b in ((one, two), (two, one)))
    contrast = -(there.log_softmax(1).diagonal() + back.log_softmax(1).diagonal()).mean() / 2
    p = there.detach().log_softmax(1)
    return contrast + alpha * (p.exp() * (p - back.log_softmax(1))).sum(1).mean()


def _twice(
    discriminator: nn.Module, x: Tensor, labels: Tensor | None, seen: bool
) -> tuple[tuple[Tensor, Tensor], list[Tensor]]:
    """Both scores (N,) of each sample; if ``seen`` also both inputs (N, F) of the last linear layer, if any.

    Several rows of a sample, as of the representations of `RelGANDiscriminator`, are its features together.
    """
    twice = torch.cat([x, x])  # one pass: each row has a mask of its own
    labels = None if labels is None else torch.cat([labels, labels])
    features: list[Tensor] = []
    if labels is None and seen and (layers := _in_a_row(discriminator)) is not None:
        for layer in layers:
            features += [twice] if isinstance(layer, nn.Linear) else []
            twice = layer(twice)
        scores = check_scores(twice, 2 * len(x))
    else:
        hooks = [
            layer.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
            for layer in discriminator.modules()
            if isinstance(layer, nn.Linear) and seen
        ]
        try:
            scores = score(discriminator, twice, labels)
        finally:
            for hook in hooks:
                hook.remove()
    f1, f2 = full_precision(scores).chunk(2)
    if not features:
        return (f1, f2), []
    h = features[-1]
    if len(h) % len(scores):
        raise ValueError(
            f"the discriminator's last torch.nn.Linear layer must be given rows of each of {len(scores)} samples, one "
            f"sample's behind the other's, got {tuple(h.shape)}."
        )
    return (f1, f2), list(full_precision(h.reshape(len(scores), -1)).chunk(2))


def _in_a_row(network: nn.Module) -> list[nn.Module] | None:
    """Its layers, if they are called one after the other and hold no others: hooks on all of them would cost more."""
    if type(network) is not nn.Sequential or hooked(network):
        return None
    layers = [*network]
    for layer in layers:
        if layer._modules:
            return None
    return layers


def warn_without_dropout(distance: Tensor) -> None:
    """Warn if distances (N,) are all 0. Waits for the device."""
    if not distance.detach().any():
        warnings.warn("The consistency term is 0: the discriminator has no active dropout.", stacklevel=3)
