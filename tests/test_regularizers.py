from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from lightning_gans import regularizers
from lightning_gans.functional import (
    finite_difference_penalty,
    gradient_penalty,
    interpolate,
    perturb,
    score,
    takes_labels,
)
from lightning_gans.functional.conditional import (
    as_logits,
    check_scores,
    label_argument,
    needs_labels,
    real_in_generator_step,
)
from lightning_gans.regularizers import (
    DRAGAN,
    R1,
    R2,
    AdversarialLipschitzPenalty,
    ConsistencyTerm,
    Drift,
    FiniteDifferencePenalty,
    GradientPenalty,
    InformationTerm,
    Regularizer,
    ScorePenalty,
)

EVERY = [cls for _, cls in inspect.getmembers(regularizers, inspect.isclass) if cls is not Regularizer]
ALL = [  # the others have tests of their own
    cls
    for cls in EVERY
    if cls not in (ConsistencyTerm, AdversarialLipschitzPenalty, InformationTerm, ScorePenalty, Drift)
]


@dataclass(frozen=True)
class Batch:
    real: Tensor
    labels: Tensor | None = None
    generator: torch.Generator | None = None


class Critic(nn.Module):
    """tanh(a x) . b"""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 5).double()
        self.b = nn.Linear(5, 1).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x.flatten(1)).tanh()).squeeze(1)


class ConditionalCritic(nn.Module):
    """Slope 1, 2 or 3 by label: every penalty of it is known."""

    def __init__(self, num_classes: int | None = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.slope = nn.Parameter(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        slope = self.slope.new_tensor(7.0) if labels is None else self.slope[labels]
        return slope * x.flatten(1)[:, 0]


@pytest.fixture
def critic() -> Critic:
    torch.manual_seed(0)
    return Critic()


@pytest.fixture
def batch() -> Batch:
    return Batch(points(0), generator=torch.Generator().manual_seed(3))


def points(seed: int, n: int = 6) -> Tensor:
    return torch.randn(n, 1, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def again() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_gradient_penalty_at_interpolates(critic: Critic, batch: Batch) -> None:
    fake = points(1)
    expected = gradient_penalty(critic, interpolate(batch.real, fake, again()))
    assert GradientPenalty()(critic, batch, fake).item() == expected.item()


def test_gradient_penalty_at_real_and_fake(critic: Critic, batch: Batch) -> None:
    fake = points(1)
    at_real, at_fake = gradient_penalty(critic, batch.real), gradient_penalty(critic, fake)
    assert at_real.item() != at_fake.item()
    assert GradientPenalty(at="real")(critic, batch, fake).item() == at_real.item()
    assert GradientPenalty(at="fake")(critic, batch, fake).item() == at_fake.item()
    assert GradientPenalty(at="fake")(critic, batch, points(1, n=9)).isfinite()  # the number of fakes is free there


def test_gradient_penalty_passes_its_arguments(critic: Critic, batch: Batch) -> None:
    x = batch.real
    assert GradientPenalty(p=1, at="real")(critic, batch, x).item() == gradient_penalty(critic, x, p=1).item()
    assert GradientPenalty(target=3, at="real")(critic, batch, x).item() == gradient_penalty(critic, x, target=3).item()
    assert GradientPenalty(power=1, at="real")(critic, batch, x).item() == gradient_penalty(critic, x, power=1).item()
    sided = GradientPenalty(target=0.2, one_sided=True, at="real")(critic, batch, x)
    assert sided.item() == gradient_penalty(critic, x, target=0.2, one_sided=True).item()


def test_zero_centred_penalties_have_the_half_inside(critic: Critic, batch: Batch) -> None:
    """gamma / 2 mean ||grad||^2 with gamma = weight; against a gradient made by hand."""
    fake = points(1)

    def half_square(x: Tensor) -> float:
        a, b = critic.a.weight, critic.b.weight[0]
        bent = 1 - critic.a(x.flatten(1)).tanh().square()
        return ((bent * b) @ a).square().sum(1).mean().item() / 2

    assert R1()(critic, batch, fake).item() == pytest.approx(half_square(batch.real), rel=1e-12)
    assert R2()(critic, batch, fake).item() == pytest.approx(half_square(fake), rel=1e-12)


def test_dragan(critic: Critic, batch: Batch) -> None:
    expected = gradient_penalty(critic, perturb(batch.real, again()))
    assert DRAGAN()(critic, batch, points(1)).item() == expected.item()


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_finite_difference_takes_independent_pairs(critic: Critic, batch: Batch, p: float) -> None:
    fake, draws = points(1), again()
    x1 = interpolate(batch.real, fake, draws)
    order = [3, 4, 5, 0, 1, 2]
    x2 = interpolate(batch.real[order], fake[order], draws)
    expected = finite_difference_penalty(critic, x1, x2, p)
    assert FiniteDifferencePenalty(p=p)(critic, batch, fake).item() == expected.item()


def test_finite_difference_of_one_sample(critic: Critic) -> None:
    value = FiniteDifferencePenalty()(critic, Batch(points(0, n=1)), points(1, n=1))
    assert value.isfinite() and value.item() > 0


LABELS = torch.tensor([0, 1, 2, 2, 1, 0])


@pytest.mark.parametrize(
    "regularizer, term",
    [
        (GradientPenalty(), lambda s: (s - 1) ** 2),
        (GradientPenalty(at="real"), lambda s: (s - 1) ** 2),
        (GradientPenalty(at="fake"), lambda s: (s - 1) ** 2),
        (R1(), lambda s: s**2 / 2),
        (R2(), lambda s: s**2 / 2),
        (DRAGAN(), lambda s: (s - 1) ** 2),
    ],
)
def test_conditional_critic_gets_the_labels(
    regularizer: Regularizer, term: Callable[[float], float], batch: Batch
) -> None:
    labelled, fake = Batch(batch.real, LABELS, batch.generator), points(1)
    value = regularizer(ConditionalCritic(), labelled, fake)
    assert value.item() == pytest.approx(sum(term(s) for s in (1, 2, 3, 3, 2, 1)) / 6, rel=1e-12)
    # A network without classes takes none, though its forward could.
    assert regularizer(ConditionalCritic(None), labelled, fake).item() == pytest.approx(term(7), rel=1e-12)


def test_finite_difference_scores_both_points_under_one_label(batch: Batch) -> None:
    """One slope per label: if each point had its own label the quotient would be no slope."""
    critic, labelled, fake = ConditionalCritic(), Batch(batch.real, LABELS, batch.generator), points(1)
    draws = again()
    x1, x2 = (interpolate(batch.real.roll(k, 0), fake.roll(k, 0), draws).flatten(1) for k in (0, 3))
    slope = critic.slope[LABELS] * (x1 - x2)[:, 0].abs() / (x1 - x2).norm(dim=1)
    value = FiniteDifferencePenalty()(critic, labelled, fake)
    assert value.item() == pytest.approx((slope - 1).square().mean().item(), rel=1e-12)


@pytest.mark.parametrize("cls", ALL)
def test_interface(cls: type[Regularizer], critic: Critic, batch: Batch) -> None:
    regularizer = cls()
    assert isinstance(regularizer, Regularizer) and regularizer.weight == 10 and regularizer.per_sample is True
    assert cls(weight=0.5).weight == 0.5 and cls(0).weight == 0
    generator = nn.Linear(4, 4).double()
    fake = generator(points(1).flatten(1)).view(6, 1, 2, 2)
    value = regularizer(critic, batch, fake)
    assert value.shape == () and value.item() > 0
    assert value.item() == cls(weight=99)(critic, Batch(batch.real, generator=again()), fake).item()  # unweighted
    value.backward()
    assert critic.a.weight.grad.abs().sum() > 0 and critic.b.weight.grad.abs().sum() > 0
    assert critic.b.bias.grad is None or critic.b.bias.grad.abs().max() < 1e-12
    assert generator.weight.grad is None


def test_names_differ() -> None:
    assert len({cls.name for cls in EVERY}) == len(EVERY) == 10


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_bad_weight(cls: type[Regularizer], weight: float) -> None:
    with pytest.raises(ValueError) as error:
        cls(weight=weight)
    assert str(error.value) == f"weight must be a finite number >= 0, got {weight}."


@pytest.mark.parametrize(
    "make, message",
    [
        (partial(GradientPenalty, at="middle"), "at must be one of interpolates, real, fake, got 'middle'."),
        (partial(GradientPenalty, p=0.9), "p must be the order of a norm, at least 1, got 0.9."),
        (partial(GradientPenalty, power=-1), "power must be a finite number > 0, got -1."),
        (partial(GradientPenalty, target=-2), "target must be a finite number >= 0, got -2."),
        (partial(FiniteDifferencePenalty, p=0), "p must be the order of a norm, at least 1, got 0."),
    ],
)
def test_bad_arguments(make: Callable[[], Regularizer], message: str) -> None:
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value) == message


@pytest.mark.parametrize("regularizer", [GradientPenalty(), FiniteDifferencePenalty()])
def test_unequal_numbers(regularizer: Regularizer, critic: Critic, batch: Batch) -> None:
    with pytest.raises(ValueError, match=r"^fake must have the shape of real, \(6, 1, 2, 2\), got \(4, .*\)\.$"):
        regularizer(critic, batch, points(1, n=4))


def test_takes_labels() -> None:
    class NoLabels(nn.Module):
        num_classes = 3

        def forward(self, x: Tensor) -> Tensor:
            return x

    class Foreign(nn.Module):
        def forward(self, x: Tensor, labels: Tensor) -> Tensor:
            return x

    assert takes_labels(ConditionalCritic()) and takes_labels(Foreign())
    assert not takes_labels(ConditionalCritic(None)) and not takes_labels(NoLabels())
    assert not takes_labels(ConditionalCritic(0))  # as StudioGAN and others say it
    assert not takes_labels(nn.Sequential(nn.Linear(1, 1)))
    assert takes_labels(lambda x, labels: x) and not takes_labels(lambda x: x)
    assert takes_labels(torch.compile(ConditionalCritic()))
    assert not takes_labels(torch.compile(ConditionalCritic(None)))


def test_names_of_labels_and_who_needs_them() -> None:
    class Able(nn.Module):
        """Which can do without."""

        def forward(self, x: Tensor, y: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
            return x

    class Told(Able):
        num_classes = 3

    class Bound(nn.Module):
        def forward(self, x: Tensor, labels: Tensor) -> Tensor:
            return x

    assert label_argument(Able()) == "labels"  # ours first
    for net, name in ((lambda x, y: x, "y"), (lambda x, class_labels: x, "class_labels"), (lambda x, c: x, None)):
        assert label_argument(net) == name and needs_labels(net) == (name is not None)
    with pytest.raises(
        ValueError, match=r"^g_batch_factor must be 1 with a conditional discriminator that scores real"
    ):
        real_in_generator_step(2, Told())
    real_in_generator_step(1, Told())
    real_in_generator_step(2, nn.Flatten(0))
    assert needs_labels(Told()) and needs_labels(torch.compile(Bound())) and not needs_labels(Able())


def test_logits_and_scores_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"classifier must tell num_classes = 3 classes, got 2"):
        as_logits(torch.zeros(4, 2), 4, classes=3)
    for scores, n in ((torch.zeros(1, 3), 3), (torch.tensor(0.0), 1), (torch.zeros(3, 2), 3)):
        with pytest.raises(ValueError, match=r"discriminator must return scores of shape \(.,\), got"):
            check_scores(scores, n)


def test_score() -> None:
    x, labels = points(0), LABELS
    critic = ConditionalCritic()
    expected = x.flatten(1)[:, 0]
    assert torch.equal(score(critic, x, labels), critic.slope[labels] * expected)
    assert torch.equal(score(critic, x), 7 * expected)
    assert torch.equal(score(ConditionalCritic(None), x, labels), 7 * expected)
    with pytest.raises(ValueError, match=r"^labels must be one per sample, 6, got 4\.$"):
        score(critic, x, labels[:4])
    with pytest.raises(ValueError, match=r"^discriminator must return scores of shape \(6,\), got \(6, 2\)\.$"):
        score(nn.Sequential(nn.Flatten(), nn.Linear(4, 2).double()), x)
