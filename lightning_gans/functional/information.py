"""How much a discriminator's answer depends on the sample, and how much on its label (Gat et al., arXiv:2010.10802)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lightning_gans.functional.conditional import score, takes_labels
from lightning_gans.functional.double_backward.input_gradient import (
    Discriminator,
    in_full_precision,
    input_gradient,
)
from lightning_gans.functional.draw import normal
from lightning_gans.functional.numerics import full_precision
from lightning_gans.functional.ranks import gather_rows, mean_over_ranks

Law = Literal["logit", "normal"]
LAWS: tuple[Law, ...] = ("logit", "normal")
_LOOK_UPS: dict[Any, int] = {F.embedding: 0, F.one_hot: 0, torch.embedding: 1, Tensor.__getitem__: 1}  # place of index


class Information(NamedTuple):
    """Functional Fisher information of a discriminator's answer in its two inputs, scalars >= 0.

    >>> Information(torch.tensor(3.0), torch.tensor(1.0)).share.item()
    0.25
    """

    sample: Tensor
    label: Tensor

    @property
    def share(self) -> Tensor:
        """That of the label, of the sum of both."""
        return self.label / (self.sample + self.label).clamp_min(torch.finfo(self.label.dtype).tiny)


def label_information(
    discriminator: Callable[..., Tensor],
    x: Tensor,
    labels: Tensor | None,
    noise: float = 1.0,
    law: Law = "logit",
    generator: torch.Generator | None = None,
) -> Information:
    r"""What a conditional discriminator's answer depends on: its sample, and its label's vector e.

    .. math::
        I_m = E\, \frac{\nabla_m f^T\, \Sigma_m \nabla_m f}{f}, \qquad
        f = KL\big(p(\cdot | x, e)\,\|\,p(\cdot | x', e')\big), \qquad m' = m + \mathrm{noise}\; \Sigma_m^{1/2} \epsilon

    for each of the two with the other one as it is; the gradient is by m'. :math:`\Sigma_m` is the covariance over the
    batch, so that steps are as the data's own, that no linear change of coordinates matters, and that a label whose
    vectors are all alike tells nothing. The label's vector is what ``nn.Embedding``, ``F.one_hot`` or an index make of
    it, of several all together.

    With p of scores a, a' the fraction is :math:`r\, \nabla_m a'^T \Sigma_m \nabla_m a'`, where r is
    :math:`(p' - p)^2 / KL(p\|p')` of Bernoulli's p = sigmoid(a), which tends to 2 p (1 - p) as a' -> a, and 2 of normal
    laws N(a, 1). Hence I_label is 0 if the answer does not depend on the label.

    Args:
        discriminator: (x, labels) to raw scores (N,).
        x: samples (N, ...), in which the information is taken.
        labels: (N,) integers.
        noise: >= 0, in standard deviations of the batch; 0: at the samples themselves, the ordinary Fisher information.
        law: "logit" for scores that are logits, "normal" for a critic's.
        generator: source of the noise.

    Raises:
        ValueError: for a discriminator that takes no labels, or makes no vector of them.

    >>> labels, x = torch.tensor([0, 1]), torch.tensor([[-1.0], [1.0]])
    >>> critic = lambda x, labels: 3 * x[:, 0] + torch.tensor([[0.0], [2.0]])[labels][:, 0]
    >>> [round(float(i), 4) for i in label_information(critic, x, labels, law="normal")]  # 2 var(3 x)
    [18.0, 2.0]
    """
    require_labels(discriminator, "label_information")
    if labels is None:
        raise ValueError("labels must be given, for their information, got None.")
    told = _Labels(labels, full_precision(x).dtype)
    with told:
        clean = score(discriminator, x, labels)
    if not told.vectors:
        name = type(discriminator).__name__
        raise ValueError(f"discriminator must look its labels up by an embedding or F.one_hot, got {name}.")
    vectors, flat = torch.cat([full_precision(v.flatten(1)) for v in told.vectors], 1), full_precision(x).flatten(1)

    def by_labels(moved: Tensor) -> Tensor:
        with _Labels(labels, moved.dtype, moved):
            return score(discriminator, x, labels)

    by_sample = partial(score, discriminator, labels=labels)
    steps, own = [_steps(m) for m in (flat, vectors)], partial(normal, len(x), generator=generator, device=x.device)
    some, shift = (noise * own(len(s), dtype=s.dtype) @ s.detach() for s in steps)
    return Information(
        _information(by_sample, (flat + some).view_as(x), clean, steps[0], law),
        _information(by_labels, shift, clean, steps[1], law),
    )


def require_labels(discriminator: Callable[..., Tensor], who: str) -> None:
    """ValueError for a discriminator that takes no labels."""
    if not takes_labels(discriminator):
        raise ValueError(f"{who} needs a discriminator that takes labels, got {type(discriminator).__name__}.")


def _steps(m: Tensor) -> Tensor:
    """(M, F) from the mean of (N, F) to each row of all ranks, over sqrt(M): S^T S is the covariance."""
    rows = gather_rows(m)
    return (rows - rows.mean(0)) / len(rows) ** 0.5


def _information(critic: Discriminator, at: Tensor, clean: Tensor, steps: Tensor, law: Law) -> Tensor:
    along = (input_gradient(critic, at) @ steps.T).square().sum(1)
    rate = 2.0 if law == "normal" else _rate(full_precision(clean), in_full_precision(critic)(at))
    return mean_over_ranks((rate * along).mean())


def _rate(a: Tensor, b: Tensor) -> Tensor:
    """(p' - p)^2 / KL(p || p') of the laws of logits a and b, >= 0; the same of -a and -b."""
    dtype, sign = a.dtype, torch.where(a > 0, -1.0, 1.0)  # the smaller probability is the one that is exact
    a, b = ((sign * logit.double()).clamp(-300, 300) for logit in (a, b))  # for a difference of nearly equal numbers
    p = a.sigmoid()
    near = (a - b).abs() < 1e-3
    apart = torch.where(near, a.detach() + 1, b)  # no 0/0 behind the mask
    kl = p * (a - apart) + F.softplus(apart) - F.softplus(a)
    exact = (apart.sigmoid() - p).square() / kl
    between = ((a + 2 * b) / 3).sigmoid()  # where 2 p (1 - p) is the fraction up to the square of a - b
    return torch.where(near, 2 * between * (1 - between), exact).to(dtype)


class _Labels(TorchFunctionMode):
    """Sees, and moves, the vectors that a network makes of its labels.

    Args:
        labels: (N,).
        dtype: of the vectors that F.one_hot makes.
        moved: what is added to the vectors, (N, F) of all side by side; None: nothing.
    """

    def __init__(self, labels: Tensor, dtype: torch.dtype, moved: Tensor | None = None) -> None:
        super().__init__()
        self.labels, self.dtype, self.moved, self.start = labels, dtype, moved, 0
        self.vectors: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The function's result; of a look-up of the labels, moved."""
        out = func(*args, **(kwargs or {}))
        place = _LOOK_UPS.get(func)
        if place is None or len(args) <= place or not self._are_labels(args[place]) or not isinstance(out, Tensor):
            return out
        out = out if out.is_floating_point() else out.to(self.dtype)
        self.vectors.append(out)
        if self.moved is None:
            return out
        size = out[0].numel()
        part = self.moved[:, self.start : self.start + size].view(out.shape).to(out.dtype)
        self.start += size
        return out + part

    def _are_labels(self, given: Any) -> bool:
        return isinstance(given, Tensor) and given.dtype != torch.bool and given.shape == self.labels.shape
