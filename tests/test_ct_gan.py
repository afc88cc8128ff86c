"""The consistency term (arXiv:1803.01541)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from common import trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_gans import CTGAN
from lightning_gans.engine.batch import Batch
from lightning_gans.functional.consistency import _twice, consistency_term, dropout_distance
from lightning_gans.networks import ToyDiscriminator, ToyGenerator
from lightning_gans.regularizers import ConsistencyTerm


class Dropped(nn.Module):
    """f = w . h, h the samples with dropout: a linear head on dropped features."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.dropout, self.head = nn.Dropout(p), nn.Linear(3, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(x)).squeeze(1)


def at(x: Tensor) -> Batch:
    return Batch(x, None, None, torch.zeros(len(x), 2))


X = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def test_expectation_of_a_linear_head_on_dropped_features() -> None:
    """E (f1 - f2)^2 = 2 p / (1 - p) sum (w h)^2, and E mean (h1 - h2)^2 = 2 p / (1 - p) mean h^2."""
    torch.manual_seed(0)
    critic, p, samples = Dropped(0.4).double(), 0.4, X.expand(400_000, 3)
    w = critic.head.weight.detach()[0]
    for a, expected in ((0.0, (w * X).square().sum()), (0.1, (w * X).square().sum() + 0.1 * X.square().mean())):
        term = ConsistencyTerm(feature_weight=a)
        values = torch.stack([term(critic, at(part), part).detach() for part in samples.chunk(20)])
        error = values.std() / math.sqrt(20)
        assert abs(float(values.mean() - 2 * p / (1 - p) * expected)) < 4 * error


def test_a_samples_two_answers_are_of_one_label_and_features_weigh_a_tenth() -> None:
    class Labelled(Dropped):
        def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
            return super().forward(x) if labels is None else super().forward(x) * 0 + labels

    critic, x = Labelled(0.4).double(), X.expand(6, 3)
    assert not dropout_distance(critic, x, torch.arange(6), feature_weight=0.0).any()
    terms = []
    for options in ({}, {"feature_weight": 0.1}, {"feature_weight": 1.0}):
        torch.manual_seed(0)
        terms.append(float(consistency_term(critic, x, **options)))
    assert terms[0] == terms[1] < terms[2]


def test_without_dropout_it_is_zero_and_says_so() -> None:
    x = X.expand(8, 3)
    for critic in (Dropped(0.0).double(), Dropped(0.5).double().eval()):
        term = ConsistencyTerm()
        with pytest.warns(UserWarning, match="no active dropout"):
            assert term(critic, at(x), x) == 0


def test_a_margin_above_all_leaves_nothing() -> None:
    """The hinge max(0, lambda d - M) of the code, lambda outside."""
    critic, x = Dropped(0.5).double(), X.expand(64, 3)
    term = ConsistencyTerm(weight=2.0, margin=1e4)(critic, at(x), x)
    assert term == 0 and float(torch.autograd.grad(term, critic.head.weight)[0].abs().max()) == 0
    found = []
    for margin in (0.0, 0.3):
        torch.manual_seed(0)
        found.append(ConsistencyTerm(weight=2.0, margin=margin, feature_weight=0.0)(critic, at(x[:1]), x))
    assert float(found[0]) > 0.15
    torch.testing.assert_close(2 * found[1], 2 * found[0] - 0.3)


def test_no_gradient_reaches_the_generator() -> None:
    generator = ToyGenerator(shape=(3,), latent_dim=2, width=4)
    module = CTGAN(generator, Dropped(0.5), 2)
    batch = at(torch.randn(4, 3))
    term = module.discriminator_terms(batch, generator(batch.z).detach())["consistency"]
    assert all(g is None for g in torch.autograd.grad(term, list(generator.parameters()), allow_unused=True))
    assert module.own_terms == {"adversarial": False, "gradient_penalty": True, "consistency": True}


def test_features_are_what_the_last_linear_layer_is_given() -> None:
    """The input of an earlier linear layer is the same in both passes; the scores of a last layer of zeros are too."""
    critic = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1), nn.Flatten(0)).double()
    nn.init.zeros_(critic[2].weight)
    x = X.expand(16, 3)
    assert float(ConsistencyTerm()(critic, at(x), x)) > 1e-3
    with pytest.warns(UserWarning, match="no active dropout"):
        assert ConsistencyTerm(feature_weight=0.0)(critic, at(x), x) == 0


class Nothing(nn.Module):
    """A generator of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(3))

    def forward(self, z: Tensor) -> Tensor:
        return z.new_zeros(len(z), 3) * self.theta


@pytest.mark.parametrize("weight", [2.0, 0.5, 1e-9])
def test_the_critic_finds_the_known_optimum(weight: float) -> None:
    """Data at x, fakes at 0: -w.x + lambda 2p/(1-p) sum (w x)^2 is least at w_i x_i = (1-p) / (4 p lambda).

    Without the term there is nothing to stop w.
    """
    torch.manual_seed(0)
    module = CTGAN(Nothing(), Dropped(0.5), 2, gp_weight=0.0, ct_weight=weight, lr_d=0.01, lr_g=0.0, betas=(0.5, 0.9))
    trainer(max_steps=80).fit(module, DataLoader([X.float().expand(512, 3)] * 400, batch_size=None))
    found = (module.discriminator.head.weight[0].detach() * X).tolist()
    if weight > 1e-3:
        assert found == pytest.approx([0.25 / weight] * 3, rel=0.15)
    else:
        assert min(found) > 1.0


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="margin must be a finite number >= 0, got -1"):
        ConsistencyTerm(margin=-1)

    class Plain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(1)

    with pytest.raises(ValueError, match="must be 0 for a discriminator without a torch"):
        ConsistencyTerm()(Plain(), at(torch.randn(2, 3)), torch.randn(2, 3))


def test_the_technique_has_the_term_by_its_values() -> None:
    """lambda max(0, d - M / lambda), that of the regularizer."""
    options: Any = {"ct_weight": 3.0, "margin": 0.2, "gp_weight": 0.0}
    module = CTGAN(ToyGenerator(shape=(3,), latent_dim=2, width=4), Dropped(0.5).float(), 2, **options)
    batch, fake, found = at(torch.randn(4, 3)), torch.randn(4, 3), []
    torch.manual_seed(1)
    module.score(batch.real, batch), module.score(fake, batch)  # as many masks
    found.append(3.0 * ConsistencyTerm(3.0, 0.2)(module.discriminator, batch, fake))
    torch.manual_seed(1)
    found.append(module.discriminator_terms(batch, fake)["consistency"])
    assert float(found[0]) == float(found[1]) > 0
    with pytest.raises(ValueError, match=r"^margin must be 0.0 with ct_weight=0, got 0.2\.$"):
        CTGAN(ToyGenerator(shape=(3,), latent_dim=2, width=4), Dropped(0.5), 2, ct_weight=0.0, margin=0.2)


def test_a_critic_without_dropout_is_warned_of() -> None:
    module = CTGAN(ToyGenerator(shape=(3,), latent_dim=2, width=4), ToyDiscriminator(shape=(3,), width=4), 2)
    with pytest.warns(UserWarning, match="no active dropout"):
        trainer(max_steps=1).fit(module, DataLoader(torch.randn(40, 3), 4))  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["in a row", "nested", "hooked", "replaced", "without a linear layer"])
def test_layers_in_a_row_need_no_hooks(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same answers, features and gradients whichever way the features are found."""
    layers: list[nn.Module] = [nn.Linear(3, 5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 1), nn.Flatten(0)]
    critic = nn.Sequential(nn.Dropout(0.5), nn.Flatten(0)) if "without" in where else nn.Sequential(*layers)
    if where == "nested":
        critic = nn.Sequential(nn.Sequential(*layers[:3]), *layers[3:])
    seen: list[Any] = []
    if where == "hooked":
        critic.register_forward_hook(lambda *_: seen.append(1))
    if where == "replaced":
        plain = critic.forward
        critic.forward = lambda x: seen.append(1) or plain(x)  # type: ignore[func-returns-value,method-assign]
    x = torch.randn(6, 1 if "without" in where else 3)
    critic, registered = critic.to(torch.float64), list[nn.Module]()
    register = nn.Module.register_forward_pre_hook
    monkeypatch.setattr(
        nn.Module, "register_forward_pre_hook", lambda layer, hook: registered.append(layer) or register(layer, hook)
    )
    found = []
    for network in (critic, Wrapped(critic)):
        torch.manual_seed(0)
        registered.clear()
        found.append(_twice(network, x.double(), None, True))
        if network is critic:
            assert bool(registered) == (where in ("nested", "hooked", "replaced"))
    (scores, features), (others, expected) = found
    torch.testing.assert_close([*scores, *features], [*others, *expected], rtol=0, atol=0)
    assert len(features) == (0 if "without" in where else 2) and len(seen) == (
        2 if where in ("hooked", "replaced") else 0
    )
    assert not any(layer._forward_pre_hooks for layer in critic.modules())


class Wrapped(nn.Module):
    """Not a sequence."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)
