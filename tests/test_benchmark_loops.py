"""The loops beside which techniques are measured minimise what these do: gradients in float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import images, sequences, skilled, techniques
from lightning_gans import TECHNIQUES
from lightning_gans.engine.batch import Batch
from lightning_gans.functional.consistency import consistency_term
from lightning_gans.functional.control import share_parts
from lightning_gans.functional.text import draw_tokens, gumbel, to_tokens
from lightning_gans.networks import language

N = 4
SIZES = {"gan_control": 32}  # which has twelve pairs
ROWS = {name: row for name, row in images.ROWS.items() if not name.endswith("_128")}  # the same as those of width 32
BY_STYLES = ("style_gan2", "gan_control", "stylex")


@pytest.fixture(autouse=True)
def doubles() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def sides(name: str) -> tuple[Any, Any, Batch]:
    """The loop, the module with the same weights, and a batch; dropout is off."""
    n = SIZES.get(name, N)
    row = dataclasses.replace(ROWS[name], batch=n)
    setting, loop = row.setting(), row.loop()
    loop.begin(dataclasses.replace(setting, data=setting.data[:64].double()))
    torch.manual_seed(0)
    generator, critic, *others = setting.networks()
    further = dict(zip(techniques.FURTHER.get(row.technique, ()), others))
    module = TECHNIQUES[row.technique](generator, critic, row.latent_dim, **row.options, **further)
    for net in (critic, loop.critic):
        if hasattr(net, "dropout"):
            net.dropout = [0.0] * len(net.dropout)
    if name == "sn_gan":
        share_iteration(critic, loop.critic)
    for net in (critic, loop.critic):
        for key, parameter in net.named_parameters():
            if key.endswith("bias"):
                nn.init.constant_(parameter, 0.1)  # they start at 0, where masks of images of one sign are all alike
    batch = Batch(setting.data[:n].double(), None, None, torch.randn(n, row.latent_dim))
    if name == "stylex":
        loop.picked(torch.arange(n))
        batch = module.told_by(batch)
    return loop, module, batch


def share_iteration(ours: nn.Module, theirs: nn.Module) -> None:
    """In evaluation torch keeps its vectors, and ours goes one step further: have torch's be where that comes."""
    ours.eval()
    theirs.eval()
    for a, b in zip((m for m in ours.modules() if hasattr(m, "parametrizations")),
                    (m for m in theirs.modules() if hasattr(m, "parametrizations"))):  # fmt: skip
        norm, matrix = a.parametrizations.weight[0], a.parametrizations.weight.original.flatten(1)
        v = F.normalize(matrix.mT @ norm.u, dim=0)
        b.parametrizations.weight[0]._u.copy_(F.normalize(matrix @ v, dim=0).detach())
        b.parametrizations.weight[0]._v.copy_(v.detach())


def gradient(loss: Tensor, net: nn.Module) -> Tensor:
    wanted = [p for p in net.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in found])


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert float(theirs.abs().max()) > 0
    assert float((ours - theirs).abs().max()) < 1e-10 * float(theirs.abs().max())


@pytest.mark.parametrize("name", ROWS)
def test_the_critic_minimises_the_same(name: str) -> None:
    loop, module, batch = sides(name)
    fake = module.generator(batch.z).detach()
    torch.manual_seed(1)
    terms = list(module.discriminator_terms(batch, fake).values())
    terms += [r.every * r.weight * r(module.discriminator, batch, fake) for r in module.regularizers if r.player == "d"]
    ours = gradient(sum(terms), module.discriminator)  # type: ignore[arg-type]
    loop.noise()
    torch.manual_seed(1)
    assert_same(ours, gradient(loop.d_loss(loop.critic, batch.real.clone(), fake), loop.critic))


@pytest.mark.parametrize("name", [name for name in ROWS if name not in ("prc_gan", *BY_STYLES)])
def test_the_generator_minimises_the_same(name: str) -> None:
    loop, module, batch = sides(name)
    ours = sum(module.generator_terms(batch, module.generator(batch.z)).values())
    theirs = loop.g_loss(loop.critic, loop.generator(batch.z), batch.real)
    assert_same(gradient(ours, module.generator), gradient(theirs, loop.generator))  # type: ignore[arg-type]


def test_path_length() -> None:
    loop, module, batch = sides("style_gan2")
    (term,) = (r for r in module.regularizers if r.player == "g")
    torch.manual_seed(1)
    ours = gradient(term(module.generator, batch, batch.real), module.generator)
    torch.manual_seed(1)
    assert_same(ours, gradient(loop.path(batch.z[: N // 2], batch.real), loop.net))


@pytest.mark.parametrize("name", BY_STYLES[1:])
def test_generators_by_styles_minimise_the_same(name: str) -> None:
    loop, module, batch = sides(name)
    ours, theirs = [module.generator], [loop.net]
    made = batch
    if name == "stylex":
        ours, theirs = [*ours, module.encoder], [*theirs, loop.encoder]
    else:
        made = dataclasses.replace(batch, z=share_parts(batch.z, module.columns_of, module.pairs))
        loop.d_done = 1
        loop.after_d(batch.real, batch.real)
        module.variance.copy_(loop.variance)
        loop.strength = float(module.strength.fill_(0.5))
    torch.manual_seed(1)
    fake = module.make_fake(made)
    torch.manual_seed(1)
    found = loop.generator(batch.z)
    assert torch.allclose(fake, found)
    terms = module.generator_terms(made, fake)
    assert len(terms) == {"stylex": 5, "gan_control": 7}[name] and all(bool(term > 0) for term in terms.values())
    grads = gradient(sum(terms.values()), nn.ModuleList(ours))  # type: ignore[arg-type]
    assert_same(grads, gradient(loop.g_loss(loop.critic, found, batch.real), nn.ModuleList(theirs)))


def test_deviations_are_those_of_the_first_real_samples() -> None:
    loop, module, batch = sides("gan_control")
    for updates in (1, 2):
        module.progress.updates["d"] = loop.d_done = updates
        module.progress.batches["d"] = batch
        module.after_discriminator_step()
        loop.after_d(batch.real, batch.real)
        batch = dataclasses.replace(batch, real=batch.real.flip(3) * 0.9)
    assert torch.allclose(module.variance, loop.variance)


def test_consistency(monkeypatch: pytest.MonkeyPatch) -> None:
    """With factors in the place of dropout: one for the first pass and another for the second."""
    loop, module, batch = sides("ct_gan")
    for net in (loop.critic, module.discriminator):
        net.dropout[-3:] = images.DROPOUT
    calls: list[int] = []

    def dropout(x: Tensor, *_: Any, **__: Any) -> Tensor:
        calls.append(1)
        if len(x) == N:
            return x * (0.5 if len(calls) <= 3 else 2)
        return torch.cat([0.5 * x[:N], 2 * x[N:]])

    monkeypatch.setattr(F, "dropout", dropout)
    theirs = gradient(images.consistency(loop.critic, batch.real), loop.critic)
    assert len(calls) == 6
    assert_same(gradient(consistency_term(module.discriminator, batch.real), module.discriminator), theirs)


def test_a_loops_step_reads_gradients_as_weights_lie_in_memory() -> None:
    """Fused Adam on a CPU does not look how they lie, and a penalty's gradients of convolutions lie otherwise."""
    found = []
    for fused in (True, False):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(), nn.Conv2d(4, 1, 3), nn.Flatten())
        net = net.to(memory_format=torch.channels_last)
        x = torch.randn(2, 3, 5, 5).contiguous(memory_format=torch.channels_last)
        weights = list(net.parameters())
        skilled.step(skilled.slope(net, x).square().sum(), weights, torch.optim.Adam(weights, 0.1, fused=fused))
        found.append([w.detach() for w in weights])
    assert all(torch.allclose(a, b) for a, b in zip(*found))


# ---------------------------------------------------------------------- texts
def text_sides(name: str) -> tuple[Any, Any, Batch]:
    """As `sides`; the batch is what the module is given, and its noise the module's."""
    row = dataclasses.replace(sequences.ROWS[name], batch=N)
    setting, loop = row.setting(), row.loop()
    torch.manual_seed(0)
    setting = dataclasses.replace(setting, data=setting.data.double() if row.one_hot else setting.data)
    loop.begin(setting)
    torch.manual_seed(0)
    generator, critic, *others = setting.networks()
    module = TECHNIQUES[row.technique](generator, critic, row.latent_dim, **row.options,
                                       **({"classifier": others[0]} if others else {}))  # fmt: skip
    for net in (module, loop.critic, loop.net):
        for part in net.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
    for net in (generator, critic, loop.net, loop.critic):
        for key, parameter in net.named_parameters():
            if key.endswith("bias") and parameter.requires_grad:
                nn.init.constant_(parameter, 0.1)
    styles = None if setting.labels is None else setting.labels[:N]
    return loop, module, Batch(setting.data[:N], styles, None, torch.randn(N, row.latent_dim))


def written(name: str, loop: Any, module: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Fakes of the module and of the loop, by the same noise."""
    noise: Any = gumbel(batch.z).view(N, *sequences.SHAPE) if "rel" in name else torch.special.ndtr(batch.z)
    return module.make_fake(batch), loop.generator(real(batch) if "style" in name else noise)


def real(batch: Batch) -> Any:
    """What the loop has of a batch."""
    return to_tokens(batch.real) if batch.labels is None else (to_tokens(batch.real), batch.labels)


@pytest.mark.parametrize("name", sequences.ROWS)
def test_critics_of_texts_minimise_the_same(name: str) -> None:
    loop, module, batch = text_sides(name)
    with torch.no_grad():
        ours, theirs = written(name, loop, module, batch)
    assert torch.allclose(ours, theirs)
    terms = sum(module.discriminator_terms(batch, ours).values())
    found = loop.d_loss(loop.critic, real(batch), theirs)
    assert_same(gradient(terms, module.discriminator), gradient(found, loop.critic))


@pytest.mark.parametrize("name", ["rel_gan", "rel_gan_lstm", "style_transfer"])
def test_generators_of_relaxed_texts_minimise_the_same(name: str) -> None:
    loop, module, batch = text_sides(name)
    ours, theirs = written(name, loop, module, batch)
    terms = sum(module.generator_terms(batch, ours).values())
    found = loop.g_loss(loop.critic, theirs, real(batch))
    assert_same(gradient(terms, module.generator), gradient(found, loop.net))


@pytest.mark.parametrize("name", ["seq_gan", "leak_gan"])
def test_rewards_and_the_policy_gradient(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rollouts that take the likeliest token."""
    loop, module, batch = text_sides(name)
    loop.rollouts = module.rollouts = 2
    for net in (loop.delayed, module.delayed):
        nn.init.normal_(net.out.weight, generator=torch.Generator().manual_seed(1))
    tokens = written(name, loop, module, batch)[0]
    monkeypatch.setattr(language, "draw_tokens", lambda logits, *_: logits.argmax(-1))
    monkeypatch.setattr(sequences, "drawn", lambda logits, _: logits.argmax(-1))
    module.delta = None  # of LeakGAN's ranks, which its loop takes in the loss
    rewards = module.rewards(tokens, batch)
    assert float(rewards.std(0).min()) > 0
    assert torch.allclose(rewards, loop.rewards(tokens))
    module.delta = 12.0
    ours = sum(module.generator_terms(batch, tokens).values())
    assert_same(gradient(ours, module.generator), gradient(loop.policy(tokens, rewards, real(batch)), loop.net))


def test_loops_draw_tokens_by_their_law() -> None:
    logits, u = torch.randn(500, 7), torch.rand(500)
    assert torch.equal(sequences.drawn(logits, u), draw_tokens(logits, torch.special.ndtri(u)))


def test_each_technique_has_a_row() -> None:
    texts = {row.technique for row in sequences.ROWS.values()}
    pictures = {row.technique for row in images.ROWS.values()}
    assert {*techniques.TOYS, *texts, *pictures} == {*TECHNIQUES}
