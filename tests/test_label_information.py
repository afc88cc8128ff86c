"""What a conditional discriminator's answer has of its label: closed forms, and the term that raises it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from common import Record, make, trainer
from torch import Tensor, nn

from lightning_gans import WGANGP
from lightning_gans.callbacks import LabelInformation
from lightning_gans.datamodules import MemoryLoader
from lightning_gans.diagnostics import label_use
from lightning_gans.functional.information import Information, Law, _rate, label_information
from lightning_gans.networks import (
    DCGANDiscriminator,
    R3Discriminator,
    StyleDiscriminator,
    ToyDiscriminator,
    ToyGenerator,
    TransGANDiscriminator,
)
from lightning_gans.regularizers import InformationTerm
from lightning_gans.regularizers.path_length import PathLength

LABELS = torch.tensor([0, 0, 1, 2])
A, B = torch.tensor([2.0, -1.0]).double(), torch.tensor([0.5, 1.0, -3.0]).double()
X = torch.tensor([[0.2, 0.1], [-0.3, 0.4], [0.6, -0.2], [0.0, 0.3]]).double()


class Linear(nn.Module):
    """a . x + scale b . e of a label's vector e, its place among the classes or a table's row."""

    def __init__(self, how: str = "one_hot", scale: float = 1.0) -> None:
        super().__init__()
        self.how, self.b = how, nn.Parameter(scale * B)
        self.embedding = nn.Embedding.from_pretrained(torch.eye(3).double())

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        e: Any = F.one_hot(labels, 3).to(x) if self.how == "one_hot" else self.embedding
        e = e(labels) if self.how == "embedding" else e.weight[labels] if self.how == "index" else e
        e = torch.embedding(e.weight, labels) if self.how == "torch.embedding" else e
        return x @ A + e @ self.b


def covariance(m: Tensor) -> Tensor:
    return m.T.cov(correction=0)


@pytest.mark.parametrize("how", ["one_hot", "embedding", "index", "torch.embedding"])
def test_of_a_linear_discriminator_it_is_known(how: str) -> None:
    """2 a' S a of a critic, times p (1 - p) of a logit without noise."""
    net, e = Linear(how), F.one_hot(LABELS, 3).double()
    known = [2 * float(w @ covariance(m) @ w) for m, w in ((X, A), (e, B))]
    critic = label_information(net, X, LABELS, noise=0.7, law="normal")
    assert [i.item() for i in critic] == pytest.approx(known, rel=1e-12)
    p = net(X, LABELS).sigmoid()
    logit = label_information(net, X, LABELS, noise=0)
    slopes = torch.autograd.grad(logit.sample + logit.label, net.b, retain_graph=True)[0]
    assert slopes.isfinite().all() and slopes.any()
    assert [i.item() for i in logit] == pytest.approx([k * float((p * (1 - p)).mean()) for k in known], rel=1e-9)
    assert float(logit.share) == pytest.approx(known[1] / sum(known), rel=1e-9)


def test_all_vectors_of_a_label_count_together_and_other_look_ups_do_not() -> None:
    """Two tables of one number each, a table of places and a mask: 2 var(2 e + 4 e) of e = 0, 0, 1, 1, a critic's."""
    one, two = (torch.tensor([[0.0], [a], [a]]).double() for a in (2.0, 4.0))

    def critic(x: Tensor, labels: Tensor) -> Tensor:
        places, own = F.embedding(torch.tensor([2, 0]), one), F.embedding(labels, one)[:, 0]
        own = own + two[labels][:, 0] + x @ A * places[0, 0]
        own[labels == 0] = own[labels == 0] + 7.0
        return own

    found = label_information(critic, X, LABELS, noise=0.3, law="normal")
    assert float(found.label) == pytest.approx(2 * 36 / 4, rel=1e-12)
    assert float(found.sample) == pytest.approx(2 * 4 * float(A @ covariance(X) @ A), rel=1e-12)


def test_the_share_of_nothing_is_nothing_and_of_little_is_exact() -> None:
    assert float(Information(torch.tensor(0.0), torch.tensor(0.0)).share) == 0
    assert float(Information(torch.tensor(3e-30), torch.tensor(1e-30)).share) == pytest.approx(0.25)


def test_of_logits_it_is_the_squared_slope_of_the_divergence_over_the_divergence() -> None:
    net, own = Linear(), lambda: torch.Generator().manual_seed(3)
    found = label_information(net, X, LABELS, 1.0, "logit", own())
    moved = X + torch.randn(4, 4, generator=own(), dtype=X.dtype) @ (X - X.mean(0)) / 2
    at = moved.clone().requires_grad_()
    p, q = net(X, LABELS).sigmoid(), net(at, LABELS).sigmoid()
    f = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    (slope,) = torch.autograd.grad(f.sum(), at)
    assert found.sample.item() == pytest.approx(float(((slope @ covariance(X) * slope).sum(1) / f).mean()), rel=1e-9)


@pytest.mark.parametrize("a", [0.0, 5.0, 21.0, 38.0, 800.0])
def test_a_sure_discriminator_has_a_rate_too(a: float) -> None:
    """Finite, and the same for -a and -b."""
    for d in (1.0, -2.0, 1e-4, 40.0):
        x, y = torch.tensor([a], dtype=torch.double), torch.tensor([a + d], dtype=torch.double)
        assert _rate(x, y).isfinite().all()
        torch.testing.assert_close(_rate(x, y), _rate(-x, -y), rtol=1e-9, atol=0)
    below, above = (_rate(x, x + d) for d in (0.999e-3, 1.001e-3))  # where one formula goes over into the other
    torch.testing.assert_close(below, above, rtol=1e-5, atol=0)


@pytest.mark.parametrize("law", ["logit", "normal"])
def test_a_label_that_is_ignored_tells_nothing(law: Law) -> None:
    """By the weights behind it, or by vectors that are all alike; and what is told does not depend on their unit."""
    assert float(label_information(Linear(scale=0.0), X, LABELS, law=law).label) == 0
    alike = Linear("embedding")
    alike.embedding.weight.data[:] = 1.0
    assert float(label_information(alike, X, LABELS, law=law).label) == 0
    larger = Linear("embedding")
    larger.embedding.weight.data *= 10
    larger.b.data /= 10
    two = [label_information(net, X, LABELS, 0, law).label for net in (larger, Linear())]
    torch.testing.assert_close(two[0], two[1], rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    "net",
    [
        ToyDiscriminator((1, 8, 8), 8, 1, num_classes=3),
        DCGANDiscriminator((1, 8, 8), 4, "none", 3),
        R3Discriminator((1, 8, 8), num_classes=3),
        StyleDiscriminator((1, 8, 8), num_classes=3),
        TransGANDiscriminator((1, 8, 8), (8, 4), (1, 1, 1), heads=2, num_classes=3),
    ],
    ids=lambda net: type(net).__name__,
)
def test_every_way_in_which_our_networks_take_labels_is_seen(net: nn.Module) -> None:
    torch.manual_seed(0)
    x, labels = torch.randn(6, 1, 8, 8), torch.arange(6) % 3
    found = label_information(net, x, labels, generator=torch.Generator().manual_seed(0))
    assert float(found.label) > 0 and float(found.sample) > 0
    gradients = torch.autograd.grad(InformationTerm()(net, SimpleNamespace(real=x, labels=labels, generator=None), x),
                                    list(net.parameters()), allow_unused=True)  # fmt: skip
    assert sum(float(g.abs().sum()) for g in gradients if g is not None) > 0


@pytest.mark.parametrize("law", ["logit", "normal"])
def test_weights_in_half_precision(law: Law) -> None:
    torch.manual_seed(0)
    net, x, labels = ToyDiscriminator((2,), 8, 1, num_classes=3), torch.randn(6, 2), torch.arange(6) % 3
    full = label_information(net, x, labels, 0, law)
    half = label_information(net.bfloat16(), x.bfloat16(), labels, 0, law)
    torch.testing.assert_close(torch.stack([*half]), torch.stack([*full]), rtol=0.05, atol=0)
    layer, table = nn.Linear(4, 1).bfloat16(), nn.Embedding(3, 2).bfloat16()  # which takes vectors of its own type

    def joined(x: Tensor, labels: Tensor) -> Tensor:
        return layer(torch.cat([x.bfloat16(), table(labels)], 1)).squeeze(1)

    assert float(label_information(joined, x, labels, 0, law).label) > 0


def test_the_term_and_its_gradient() -> None:
    batch = SimpleNamespace(real=X, labels=LABELS, generator=None)
    net = Linear(scale=0.1)
    i = label_information(net, X, LABELS, 0, "normal")
    term = InformationTerm(floor=0.5, noise=0, law="normal")(net, batch, X)  # type: ignore[arg-type]
    assert float(term) == pytest.approx(float(((i[0] + 0.5) ** -2 + (i[1] + 0.5) ** -2).sqrt()), rel=1e-12)
    (gradient,) = torch.autograd.grad(term, net.b)
    known = -((i.label + 0.5) ** -3) / term * 4 * covariance(F.one_hot(LABELS, 3).double()) @ net.b
    torch.testing.assert_close(gradient, known.detach(), rtol=1e-9, atol=0)


def faces(n: int = 512) -> tuple[Tensor, Tensor]:
    """Points of two classes whose laws nearly agree, so that a critic learns little from the label."""
    labels = torch.arange(n) % 2
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(0)) + 0.05 * labels[:, None], labels


def play(weight: float) -> tuple[WGANGP, Record]:
    torch.manual_seed(0)
    nets = ToyGenerator((2,), 3, 8, 1, num_classes=2), ToyDiscriminator((2,), 8, 1, num_classes=2)
    nets[1].layers[0].weight.data[:, 2:] *= 0.01  # the label's
    term = [InformationTerm(weight=weight, law="normal")] if weight else []
    module, record = WGANGP(*nets, 3, regularizers=term, d_steps=1, lr_d=5e-3), Record()
    fit = trainer(max_steps=60, callbacks=[LabelInformation(30)], logger=record, log_every_n_steps=60)
    fit.fit(module, MemoryLoader(*faces(), 64))
    return module, record


def test_a_discriminator_with_the_term_looks_at_labels() -> None:
    x, labels = faces()
    plain, told = play(0.0)
    raised, _ = play(0.1)
    use = [label_use(module, x, labels) for module in (plain, raised)]
    assert use[1].label > 0.1 > 100 * use[0].label and use[1].share > 0.05 and use[1].swap > 10 * use[0].swap
    assert {30, 60} == told.of("d/label_information").keys() == told.of("d/label_swap").keys()
    assert told.of("d/label_share")[60] < 0.01


def test_a_swap_is_of_the_rows_that_get_another_label() -> None:
    """Of a score that is the label, 0 or 1, all of these move by 1: 1 / sqrt(p (1 - p)) in its deviations."""
    net = Linear()
    net.b.data = torch.tensor([0.0, 1.0, 0.0]).double()
    x, labels = torch.zeros(20, 2).double(), (torch.arange(20) < 4).long()
    found = label_use(SimpleNamespace(discriminator=net), x, labels)
    assert found.swap == pytest.approx(1 / (0.2 * 0.8) ** 0.5, rel=1e-12)


def test_a_logit_is_known_by_its_model() -> None:
    net = Linear()
    laws = [label_use(SimpleNamespace(discriminator=net, log_ratio=ratio), X, LABELS) for ratio in (net, None)]
    assert laws[0].label < laws[1].label  # which has no p (1 - p)
    apart = label_use(SimpleNamespace(discriminator=net), X, torch.zeros(4, dtype=torch.int64))
    assert apart.swap == 0 == apart.label  # one class tells nothing


def test_bad_company() -> None:
    with pytest.raises(ValueError, match="LabelInformation needs a discriminator that takes labels, got ToyDiscrim"):
        trainer(max_steps=1, callbacks=[LabelInformation()]).fit(make("gan"), MemoryLoader(X.float(), None, 2))
    with pytest.raises(ValueError, match="label_information needs a discriminator that takes labels, got ToyDiscrimi"):
        label_information(ToyDiscriminator(), X, LABELS)
    with pytest.raises(ValueError, match="InformationTerm needs a discriminator that takes labels, got ToyDiscrimina"):
        make("gan", regularizers=[InformationTerm()])
    with pytest.raises(ValueError, match="PathLength needs a generator by styles, such as"):
        make("gan", regularizers=[PathLength()])
    with pytest.raises(ValueError, match="labels must be given, for their information, got None"):
        label_information(Linear(), X, None)
    with pytest.raises(ValueError, match=r"look its labels up by an embedding or F\.one_hot, got function"):
        label_information(lambda x, labels: x[:, 0] * labels, X, LABELS)
    for options, words in (
        ({"floor": 0.0}, "floor must be a finite number > 0"),
        ({"noise": -1.0}, "noise must be a finite number >= 0"),
        ({"law": "uniform"}, "law must be one of logit, normal, got 'uniform'"),
    ):
        with pytest.raises(ValueError, match=words):
            InformationTerm(**options)  # type: ignore[arg-type]
