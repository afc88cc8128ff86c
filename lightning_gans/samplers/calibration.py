"""Scores made log ratios by logistic or isotonic regression, as for Metropolis-Hastings GAN (arXiv:1811.11357)."""

from __future__ import annotations

import warnings
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.functional.conditional import takes_labels
from lightning_gans.samplers.base import BLOCK, LogRatio, call_ratio, score_of, stream

Method = Literal["isotonic", "logistic"]


class Calibrated(nn.Module):
    """A score made a log ratio, by what `calibrate` found: samples [, labels] to logits (N,).

    Attributes:
        z: how far the logits are from calibrated, see `calibration_z`, on samples that were not fitted.
        z_before: the same of the raw scores, taken as logits.

    >>> on_real, on_fake = torch.tensor([0.0, 1.0, 1.0, 1.0]), torch.tensor([0.0, 0.0, 0.0, 1.0])
    >>> calibrated = Calibrated(lambda x: x[:, 0], "isotonic", on_real, on_fake)
    >>> [round(v, 4) for v in calibrated(torch.tensor([[0.0], [1.0]])).tolist()]  # log 1/3, log 3
    [-1.0986, 1.0986]
    """

    num_classes: int | None

    def __init__(self, raw: LogRatio, method: Method, on_real: Tensor, on_fake: Tensor) -> None:
        super().__init__()
        checks.one_of("method", method, get_args(Method))
        self.raw, self.method = raw, method
        self.num_classes = getattr(raw, "num_classes", 1) if takes_labels(raw) else None
        self.slope, self.shift, self.isotonic = 1.0, 0.0, None
        self.limits = (0.0, 1.0)
        self.z = self.z_before = float("nan")
        if method == "logistic":
            self.slope, self.shift = logistic_fit(on_real, on_fake)
        else:
            from sklearn.isotonic import IsotonicRegression

            scores, real, weights = _pooled(on_real, on_fake)
            self.isotonic = IsotonicRegression(out_of_bounds="clip").fit(scores, real, weights)
            self.limits = _known_limits(torch.as_tensor(self.isotonic.predict(scores)).double())

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Samples ``(N, ...)`` to logits ``(N,)``; isotonic ones without gradient."""
        return self.of_scores(call_ratio(self.raw, x, labels))

    def of_scores(self, scores: Tensor) -> Tensor:
        """The logits of raw scores."""
        if self.isotonic is None:
            return self.slope * scores + self.shift
        probability = torch.as_tensor(self.isotonic.predict(scores.detach().double().cpu().numpy()))
        return probability.clamp(*self.limits).logit().to(scores.device)


def calibrate(
    module: Any,
    real: Tensor,
    labels: Tensor | None = None,
    *,
    log_ratio: LogRatio | None = None,
    method: Method = "isotonic",
    seed: int = 0,
) -> Calibrated:
    """Make a score a log ratio, by regression on one half of real samples and as many of G's.

    Logistic regression, l = a f + b, needs few samples and is differentiable, as Langevin sampling wants it. Isotonic
    regression, any rising function, needs a thousand or more; where the k highest scores are all of real samples, its
    probability is (k + 1) / (k + 2), not 1, and at the other end alike. The other half tells how well it went:
    ``calibrate(...).z`` is about standard normal for a calibrated score.

    Args:
        module: a trained module with ``sample``.
        real: (M, ...) real samples that were not trained on, as the discriminator takes them; M >= 4.
        labels: (M,) their labels, if the discriminator or the generator takes any.
        log_ratio: the score; None takes ``module.log_ratio``, else the discriminator, of whatever loss.
        method: isotonic or logistic.
        seed: of G's samples and of the halves.

    Raises:
        TypeError: for real samples that are no tensor.
        ValueError: for settings out of range, too few samples, and such as the generator does not make.

    >>> from types import SimpleNamespace
    >>> module = SimpleNamespace(sample=lambda n, labels, generator: torch.randn(n, 1, generator=generator))
    >>> real = 1 + torch.randn(2000, 1)  # log p_d / p_g = x - 1/2
    >>> calibrated = calibrate(module, real, log_ratio=lambda x: 9 * x[:, 0], method="logistic")
    >>> round(9 * calibrated.slope), round(2 * calibrated.shift)
    (1, -1)
    """
    check_real(real, labels, 4)
    checks.at_least(0, seed=seed)
    raw = score_of(module, log_ratio)
    checks.functions(log_ratio=raw)
    order = torch.randperm(len(real), generator=stream(seed, 0))
    scores: list[list[Tensor]] = [[], []]
    with torch.inference_mode(False), torch.no_grad():
        for start in range(0, len(real), BLOCK):
            rows = order[start : start + BLOCK].to(real.device)
            given = None if labels is None else labels[rows.to(labels.device)].clone()
            fake = module.sample(len(rows), for_generator(module, given), stream(seed, 1 + start))
            check_alike(real, fake)
            for found, x in zip(scores, (real[rows].to(fake.device), fake)):
                found.append(call_ratio(raw, x, given))
        on_real, on_fake = (torch.cat(found) for found in scores)
        half = len(real) // 2
        made = Calibrated(raw, method, on_real[:half], on_fake[:half])
        made.z = calibration_z(made.of_scores(on_real[half:]), made.of_scores(on_fake[half:]))
        made.z_before = calibration_z(on_real[half:], on_fake[half:])
    return made


def calibration_z(on_real: Tensor, on_fake: Tensor) -> float:
    """Z = sum_i (y_i - p_i) / sqrt(sum_i p_i (1 - p_i)) of logits, p their sigmoid and y = 1 for real ones.

    Standard normal, about, for a calibrated discriminator; below 0 if it takes too much for real.

    Args:
        on_real: (N,) logits of real samples.
        on_fake: (N,) of as many generated ones.

    >>> calibration_z(torch.zeros(10), torch.zeros(10))
    0.0
    """
    p = torch.cat([on_real, on_fake]).double().sigmoid()
    return float((len(on_real) - p.sum()) / (p * (1 - p)).sum().sqrt())


def logistic_fit(on_real: Tensor, on_fake: Tensor) -> tuple[float, float]:
    """a and b for which a f + b is the likeliest logit of scores, both sides counting the same.

    Where a threshold tells the sides apart, no slope is the likeliest: a warning, and one that is held back.
    """
    from sklearn.linear_model import LogisticRegression

    scores, real, _ = _pooled(on_real, on_fake)
    centre, scale = scores.mean(), scores.std() or 1.0
    separable = on_real.min() >= on_fake.max() or on_fake.min() >= on_real.max()
    if separable and scores.std() > 0:
        warnings.warn(
            f"A threshold tells all {len(on_real)} real scores from the {len(on_fake)} generated ones, so that no "
            "slope is the likeliest: the fit is held back by a penalty. Give more samples.",
            stacklevel=2,
        )
    fitted = LogisticRegression(class_weight="balanced", C=1.0 if separable else 1e10, tol=1e-8, max_iter=1000).fit(
        (scores[:, None] - centre) / scale, real
    )
    slope = float(fitted.coef_[0, 0] / scale)
    return slope, float(fitted.intercept_[0] - slope * centre)


def _known_limits(p: Tensor) -> tuple[float, float]:
    """The lowest and the highest probability that fitted ones (N,) allow to state."""
    inner = p[(p > 1e-9) & (p < 1 - 1e-9)]
    low, high = (int((p <= 1e-9).sum()), int((p >= 1 - 1e-9).sum()))
    ends = torch.cat([inner, torch.tensor([1 / (low + 2), (high + 1) / (high + 2)], dtype=p.dtype)])
    return float(ends.min()), float(ends.max())


def _pooled(on_real: Tensor, on_fake: Tensor) -> tuple[Any, Any, Any]:
    """Scores, whether they are of real samples, and weights by which both sides count the same, as arrays."""
    scores = torch.cat([on_real, on_fake]).detach().double().cpu()
    real = torch.cat([torch.ones(len(on_real)), torch.zeros(len(on_fake))])
    weights = torch.where(real > 0, 0.5 / len(on_real), 0.5 / len(on_fake))
    return scores.numpy(), real.numpy(), weights.double().numpy()


def check_real(real: Tensor, labels: Tensor | None, least: int) -> None:
    """ValueError unless there are enough real samples, all finite, and a label for each if there are any."""
    if not isinstance(real, Tensor):
        raise TypeError(f"real must be a tensor of samples (M, ...), got a {type(real).__name__}.")
    if len(real) < least or not real.is_floating_point() or not bool(real.isfinite().all()):
        raise ValueError(f"real must be at least {least} finite floating-point samples, got {len(real)} {real.dtype}.")
    if labels is not None and labels.shape != real.shape[:1]:
        raise ValueError(f"labels must have shape ({len(real)},), one per real sample, got {tuple(labels.shape)}.")


def check_alike(real: Tensor, fake: Tensor) -> None:
    """ValueError for real samples of another shape than the generator's."""
    if real.shape[1:] != fake.shape[1:]:
        wanted, got = (tuple(x.shape[1:]) for x in (fake, real))
        raise ValueError(f"real must be samples of shape {wanted} each, as the generator makes them, got {got}.")


def for_generator(module: Any, labels: Tensor | None) -> Tensor | None:
    """The labels, if the generator takes any."""
    return None if getattr(module, "num_classes", None) is None else labels
