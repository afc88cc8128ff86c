"""What directions in a latent space are worth: beside true ones, to one look, and for attributes that are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from lightning_gans import checks
from lightning_gans.diagnostics.latent_directions import LatentDirections, source_of
from lightning_gans.functional import draw
from lightning_gans.functional.conditional import conditional_call
from lightning_gans.networks import LeNet, ToyDiscriminator

Attributes = Callable[[Tensor], Mapping[str, Tensor]]
_NOTHING = 1e-3


class Match(NamedTuple):
    """Directions ``found`` and ``true`` (M,), by number, matched one to one, and the ``cosine`` (M,) of each pair."""

    found: Tensor
    true: Tensor
    cosine: Tensor


def match_directions(found: Tensor, true: Tensor) -> Match:
    """Match columns of ``found`` (d, K) and ``true`` (d, T) so that the sum of their absolute cosines is the largest.

    One to one by the Hungarian method: min(K, T) pairs, in the order of the true ones.

    Raises:
        ValueError: if the columns have different lengths, or one is zero.

    >>> match = match_directions(torch.tensor([[0.0, -1.0], [1.0, 0.0]]), true=torch.eye(2))
    >>> match.found.tolist(), [round(abs(value), 3) for value in match.cosine.tolist()]
    ([1, 0], [1.0, 1.0])
    """
    if found.ndim != 2 or true.ndim != 2 or len(found) != len(true):
        shapes = tuple(found.shape), tuple(true.shape)
        raise ValueError(f"found and true must be matrices (d, K) and (d, T), got shapes {shapes[0]} and {shapes[1]}.")
    a, b = (matrix.detach().double().cpu() for matrix in (found, true))
    for name, matrix in (("found", a), ("true", b)):
        if not bool((matrix.norm(dim=0) > 0).all()):
            raise ValueError(
                f"{name} must have columns that are not zero, got column norms {matrix.norm(dim=0).min():g}."
            )
    cosine = (F.normalize(b, dim=0).T @ F.normalize(a, dim=0)).abs()
    rows, columns = (torch.as_tensor(side) for side in linear_sum_assignment(cosine.numpy(), maximize=True))
    return Match(columns, rows, cosine[rows, columns])


def sign_accuracy(
    module: LatentDirections,
    directions: Sequence[int] | None = None,
    *,
    magnitude: float | None = None,
    steps: int = 50,
    batch_size: int = 32,
    num_test: int = 512,
    seed: int = 0,
    make_classifier: Callable[[], nn.Module] | None = None,
) -> Tensor:
    """How well one sample alone tells the sign of its shift: a small classifier's accuracy, for each direction.

    For each direction a fresh classifier learns G(z + r a_k) against G(z - r a_k) for a few steps, and is then asked
    about samples of fresh noise. 1/2 is chance; 1 says that what changes can be seen without the sample that it was
    changed from. It is no DVN (arXiv:2002.03754), which also asks whether the classifier's labels of real images can
    be learned: here are no real ones.

    Args:
        module: the directions.
        directions: their numbers; None is all.
        magnitude: r; None is ``max_shift``.
        steps: of Adam(1e-3).
        batch_size: samples of each sign in a step.
        num_test: noise vectors that the accuracy is of.
        seed: of noise and classifiers.
        make_classifier: makes one, samples to logits (N,) or (N, 1); None is a LeNet for images, an MLP for others.

    Returns:
        Accuracies (K,).
    """
    checks.at_least_one(steps=steps, batch_size=batch_size, num_test=num_test)
    r = module.max_shift if magnitude is None else magnitude
    checks.positive(magnitude=r)
    images = len(module.shape) == 3 and min(module.shape[1:]) >= 4
    default: Callable[[], nn.Module] = (
        (lambda: LeNet(module.shape, 1)) if images else (lambda: ToyDiscriminator(module.shape, 64, 2))
    )

    @torch.no_grad()
    def both(k: int, n: int, source: torch.Generator) -> Tensor:
        z, labels = module.noise(n, source)
        return torch.cat([module.at(z, k, r, labels), module.at(z, k, -r, labels)])

    found = []
    for k in tqdm(range(module.num_directions) if directions is None else directions, desc="signs", leave=False):
        source = source_of(seed, k)
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(seed)
            classifier = (make_classifier or default)().to(module.device, module.noise_dtype)
            optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-3)
            for _ in range(steps):
                logits = classifier(both(k, batch_size, source)).flatten()
                loss = F.softplus(-logits * _signs(logits)).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            logits = classifier.eval()(both(k, num_test, source)).flatten()
            found.append(((logits > 0) == (_signs(logits) > 0)).double().mean().cpu())
    return torch.stack(found)


@torch.no_grad()
def attribute_correlations(
    module: LatentDirections, attributes: Attributes, *, n: int = 512, seed: int = 0
) -> dict[str, Tensor]:
    r"""How steadily each measured attribute changes along each direction: (K,) correlations by attribute.

    For attribute a and direction k the correlation over z and :math:`\epsilon`, uniform in [-max_shift, max_shift], of
    :math:`a(G(z + \epsilon A e_k)) - a(G(z))` with :math:`\epsilon`; 0 where these changes are below a thousandth of
    the differences between samples.

    Args:
        module: the directions.
        attributes: samples (N, ...) to a number (N,) each, by name (``metrics.stroke_attributes``).
        n: samples for each direction, >= 2.
        seed: of the noise; the same for all directions.

    >>> generator = nn.Linear(2, 2, bias=False)
    >>> _ = nn.init.eye_(generator.weight)  # a sample is its noise
    >>> module = LatentDirections(generator, latent_dim=2, init="axes")
    >>> attributes = lambda x: {"first": x[:, 0]}
    >>> [round(value, 3) for value in attribute_correlations(module, attributes)["first"].tolist()]
    [1.0, 0.0]
    """
    checks.at_least_one(n=n - 1)
    source = torch.Generator().manual_seed(seed)
    z, labels = module.noise(n, source)
    uniform = draw.uniform(n, generator=source, device=module.device, dtype=module.noise_dtype)
    shift = module.max_shift * (2 * uniform - 1)
    start = attributes(conditional_call(module.generator, z, labels))
    found: dict[str, list[Tensor]] = {name: [] for name in start}
    for k in range(module.num_directions):
        end = attributes(module(z, torch.full((n,), k, device=z.device), shift, labels))
        for name, value in end.items():
            both = torch.stack([value - start[name], shift.to(value)]).double()
            both = both - both.mean(1, keepdim=True)
            steady = both[0].norm() > _NOTHING * (start[name] - start[name].mean()).norm()  # else it may be rounding
            found[name].append((F.normalize(both, dim=1).prod(0).sum() * steady).cpu())
    return {name: torch.stack(values) for name, values in found.items()}


def name_directions(correlations: Mapping[str, Tensor], at_least: float = 0.7, others: float = 0.5) -> list[str | None]:
    """For each direction the one attribute that it changes steadily, or None if it changes none, or several.

    No person is asked, and it is not the paper's measure: a direction whose effect is none of the attributes has no
    name, however plain it is to see. A random direction changes most attributes at once, so it seldom gets one.

    Args:
        correlations: (K,) by attribute (:func:`attribute_correlations`). Attributes that go together (ink and
            thickness) take the name from each other, so leave one of them out.
        at_least: the smallest magnitude of its correlation.
        others: the largest of all others.

    >>> correlations = {"ink": torch.tensor([0.9, 0.8, 0.1]), "slant": torch.tensor([0.2, -0.7, 0.3])}
    >>> name_directions(correlations)
    ['ink', None, None]
    """
    checks.inside(at_least=at_least, others=others)
    if len(correlations) < 2:
        raise ValueError(f"correlations must be of two attributes or more, got {len(correlations)}.")
    size, which = torch.stack([values.abs() for values in correlations.values()]).topk(2, dim=0)
    names = list(correlations)
    alone = (size[0] >= at_least) & (size[1] <= others)
    return [names[k] if told else None for k, told in zip(which[0].tolist(), alone.tolist())]


def _signs(logits: Tensor) -> Tensor:
    """1 for the first half, -1 for the second."""
    half = torch.ones(len(logits) // 2, device=logits.device, dtype=logits.dtype)
    return torch.cat([half, -half])
