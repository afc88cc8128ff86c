"""LeakGAN: ranks, goals and what is leaked by closed forms; who learns of what; where it begins, and that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from common import equal, js2, loud, state, trainer
from torch import Tensor, nn

from lightning_gans import MLE, LeakGAN, load
from lightning_gans.callbacks import EMA
from lightning_gans.compat.lightning import callbacks, pl
from lightning_gans.datamodules import MarkovText
from lightning_gans.engine.batch import Batch
from lightning_gans.functional.goals import goal_cosines, goal_sums, intrinsic_rewards
from lightning_gans.functional.policy import follow, rank_rescaled
from lightning_gans.functional.text import one_hot
from lightning_gans.networks import LanguageModel, LeakGANGenerator, SeqGANDiscriminator, ToyDiscriminator

SMALL: dict[str, Any] = {"embedding": 8, "kernels": (1, 2), "filters": 6}


def critic(shape: tuple[int, int] = (4, 6), **options: Any) -> SeqGANDiscriminator:
    return SeqGANDiscriminator(shape, **SMALL | options)


def network(shape: tuple[int, int] = (4, 6), horizon: int = 2, **options: Any) -> LeakGANGenerator:
    return LeakGANGenerator(critic(shape, **options), shape, 4, 5, 3, horizon)


class Wide(nn.Module):
    """A user's own discriminator, which tells no length, and reads texts of six tokens or more."""

    def features(self, x: Tensor) -> Tensor:
        return F.conv1d(x[:, None].float(), torch.ones(2, 1, 6)).amax(-1)


def game(seed: int = 0, one_hot: bool = False, **options: Any) -> tuple[Any, MarkovText]:
    data = MarkovText(T=4, batch_size=8, one_hot=one_hot)
    torch.manual_seed(seed)
    nets = options.pop("generator", None) or network(), options.pop("discriminator", None) or critic()
    return LeakGAN(*nets, 4, **{"rollouts": 2, "d_steps": 2, **options}), data


def test_the_workers_last_layer_begins_as_one_of_its_state_alone() -> None:
    torch.manual_seed(0)
    weight = LeakGANGenerator(critic(), (4, 6), hidden=16, goal_size=8).out.weight
    assert float(weight.std()) == pytest.approx(0.25 / 3**0.5, rel=0.06) and float(weight.abs().max()) <= 0.25


def batch(tokens: Tensor, weights: Tensor | None = None) -> Batch:
    return Batch(tokens, None, weights, torch.zeros(len(tokens), 1), torch.Generator().manual_seed(0))


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


# ---------------------------------------------------------------------- ranks
def test_rewards_become_what_their_ranks_say() -> None:
    """Each place by itself, and whatever the distances; the mean is that of the ranks."""
    reward = torch.rand(7, 3, dtype=torch.float64)
    found = rank_rescaled(reward, delta=5.0)
    for i in range(7):
        for t in range(3):
            rank = 1 + sum(float(reward[j, t] > reward[i, t]) for j in range(7))
            assert float(found[i, t]) == pytest.approx(1 / (1 + torch.e ** (-5 * (0.5 - rank / 7))), abs=1e-12)
    assert all(torch.equal(found[:, t].argsort(), reward[:, t].argsort()) for t in range(3))
    assert torch.equal(rank_rescaled(reward**5 / 1e6), rank_rescaled(reward))
    same = rank_rescaled(torch.full((4, 1), 0.3))
    assert torch.allclose(same, torch.tensor(12 * (0.5 - 2.5 / 4)).sigmoid().expand(4, 1))
    assert rank_rescaled(torch.rand(4, 2, dtype=torch.bfloat16)).dtype == torch.float32


def test_the_reward_of_a_goal_is_the_rank_behind_its_tokens() -> None:
    """Of rollouts that keep what was written towards it, in the order of the texts' scores."""
    module, _ = game()
    first = torch.randint(6, (8, 4))
    first[:, 0] = torch.arange(8) % 6
    module.probability = lambda x, b: x[:, 0].double() / 6  # type: ignore[method-assign]
    rewards = module.rewards(first, batch(first))
    assert torch.equal(rewards, rank_rescaled(first[:, :1].double() / 6, 12.0).expand(8, 2))
    module.delta = None
    assert torch.equal(module.rewards(first, batch(first)), (first[:, :1].double() / 6).expand(8, 2))
    assert float(module.values["g/reward"]) == pytest.approx(float(first[:, 0].double().mean() / 6))


# ---------------------------------------------------------------------- goals
@pytest.mark.parametrize("horizon", [1, 2, 3, 7])
def test_goals_by_their_sums(horizon: int) -> None:
    """Text by text and place by place, with a last goal that has less far to go."""
    f, g = torch.randn(3, 6, 4, dtype=torch.float64), torch.randn(3, 5, 4, dtype=torch.float64)
    sums, cosines, steps = goal_sums(g, horizon), goal_cosines(f, g, horizon), intrinsic_rewards(f, g, horizon)
    starts = list(range(0, 5, horizon))
    assert cosines.shape == (3, len(starts)) and steps.shape == (3, 5)
    for n in range(3):
        for k, t in enumerate(starts):
            wanted = cosine(f[n, min(t + horizon, 5)] - f[n, t], g[n, t])
            assert float(cosines[n, k]) == pytest.approx(wanted, abs=1e-12)
        for t in range(1, 6):
            past = [cosine(f[n, t] - f[n, t - i], g[n, t - i]) for i in range(1, min(horizon, t) + 1)]
            assert float(steps[n, t - 1]) == pytest.approx(sum(past) / len(past), abs=1e-12)
        for t in range(5):
            assert torch.allclose(sums[n, t], g[n, max(0, t - horizon + 1) : t + 1].sum(0), atol=1e-12)
    still = f[:, :1] + 1e-16 * f  # which features are where no token changes them, read by another kernel
    assert max(float(made(still, g, horizon).abs().max()) for made in (goal_cosines, intrinsic_rewards)) < 1e-9


# ---------------------------------------------------------------------- the generator
def test_the_generator_is_the_published_formula() -> None:
    """Token by token, of texts whose rest is not written; D reads zeros there."""
    torch.manual_seed(0)
    net = loud(network((5, 6), horizon=2))
    tokens, size = torch.randint(6, (3, 5)), net.lstm.hidden_size
    manager = worker = None
    goals, found, read = [], [], []
    with torch.no_grad():
        for t in range(6):
            seen = one_hot(tokens, 6, torch.float64)
            seen[:, t:] = 0
            read.append(net.leaked.features(seen))
            if t == 5:
                break
            m, manager = net.manager(read[-1][:, None], manager)
            aim = net.aim(m[:, 0])
            goals.append(aim / aim.norm(dim=1, keepdim=True))
            turned = net.turn(goals[-1] + (goals[-2] if t else 0))
            last = tokens[:, t - 1] if t else torch.zeros(3, dtype=torch.int64)
            h, worker = net.lstm(net.embedding(last)[:, None], worker)
            flat = net.out.weight.view(6, size + 1, 3)  # of A, and of B behind it
            o = torch.einsum("nh,vhk->nvk", h[:, 0], flat[:, :size]) + flat[:, size]
            found.append(torch.einsum("nvk,nk->nv", o, turned / turned.norm(dim=1, keepdim=True)))
        features, planned = net.plan(tokens)
        assert torch.allclose(features, torch.stack(read, 1), atol=1e-12)
        assert torch.allclose(planned, torch.stack(goals, 1), atol=1e-12)
        assert torch.allclose(net.logits(tokens), torch.stack(found, 1), atol=1e-12)
        state, token, steps = net.begin(3), torch.zeros(3, dtype=torch.int64), []
        for t in range(5):
            h, state = net.step(token, state)
            steps.append(net.out(h))
            token = tokens[:, t]
        assert torch.allclose(torch.stack(steps, 1), torch.stack(found, 1), atol=1e-12)
        other = tokens.clone()
        other[:, 3:] = (other[:, 3:] + 1) % 6
        assert torch.equal(net.logits(other)[:, :4], net.logits(tokens)[:, :4])
    assert len({tuple(row) for row in net.generate(torch.randn(9, 5, dtype=torch.float64)).tolist()}) > 3


def test_what_it_writes_hangs_on_what_is_leaked() -> None:
    torch.manual_seed(0)
    net, tokens = network(dropout=0.5), torch.randint(6, (3, 4))
    before = net.nll(tokens)
    assert torch.equal(net.nll(tokens), before) and net.leaked.training  # it is read without dropout
    follow(net.leaked, critic(), 0.0)
    assert float((net.nll(tokens) - before).abs().max()) > 1e-4
    assert not any(p.requires_grad for p in net.leaked.parameters())


# ---------------------------------------------------------------------- terms
def test_terms_are_the_published_sums() -> None:
    torch.manual_seed(1)
    module, _ = game(mle_weight=0.5)
    module.double()
    tokens, real = torch.randint(6, (8, 4)), torch.randint(6, (8, 4))
    q = torch.rand(8, 2, dtype=torch.float64)
    module.rewards = lambda tokens, b: q  # type: ignore[method-assign]
    weights = torch.rand(8, dtype=torch.float64)
    terms = module.generator_terms(batch(real, weights), tokens)
    net = module.generator
    f, g = net.plan(tokens)
    missed = torch.tensor([[1 - cosine(f[n, t + 2] - f[n, t], g[n, t]) for t in (0, 2)] for n in range(8)])
    assert float(terms["manager"]) == pytest.approx(float((q * missed).sum()), abs=1e-6)
    assert float(terms["adversarial"]) == pytest.approx(float((intrinsic_rewards(f, g, 2) * net.nll(tokens)).sum()))
    losses = net.losses(real)
    wanted = 0.5 * sum((weights[:, None] * loss).sum() for loss in losses.values())
    assert float(terms["mle"]) == pytest.approx(float(wanted)) and losses.keys() == {"nll", "manager"}
    assert torch.equal(losses["nll"], net.nll(real))
    assert float(losses["manager"][3, 1]) == pytest.approx(float(1 - goal_cosines(*net.plan(real), 2)[3, 1]))
    assert "mle" not in game(mle_weight=0.0)[0].generator_terms(batch(real), tokens)
    assert float(module.values["g/followed"]) == pytest.approx(float(intrinsic_rewards(f, g, 2).mean()))


def test_manager_and_worker_learn_apart() -> None:
    module, _ = game()
    tokens, net = torch.randint(6, (8, 4)), module.generator
    terms = module.generator_terms(batch(tokens), tokens)
    of = {"manager": [net.manager.weight_ih_l0, net.aim.weight], "adversarial": [net.out.weight, net.turn.weight]}
    of["adversarial"] += [net.lstm.weight_hh_l0, net.embedding.weight]
    every = [p for ps in of.values() for p in ps]
    for name, own in of.items():
        found = torch.autograd.grad(terms[name], every, allow_unused=True, retain_graph=True)
        moved = {id(p) for p, g in zip(every, found) if g is not None and float(g.abs().max()) > 0}
        assert moved == {id(p) for p in own}


def test_controls() -> None:
    """Of both rewards: all the same, or another text's."""
    tokens = torch.randint(6, (8, 4))
    module, _ = game(reward="constant", mle_weight=0.0)
    module.delayed.rollouts = None  # not asked
    terms = module.generator_terms(batch(tokens), tokens)
    nll, features, goals = module.generator.told(tokens)
    assert float(terms["adversarial"]) == pytest.approx(float(nll.sum()), rel=1e-5)
    assert float(terms["manager"]) == pytest.approx(float((1 - goal_cosines(features, goals, 2)).sum()), rel=1e-5)
    mixed, _ = game(reward="permuted")
    own = intrinsic_rewards(features, goals, 2).detach()
    given = super(LeakGAN, mixed).given(own, batch(tokens))
    assert sorted(given.tolist()) == sorted(own.tolist()) and not torch.equal(given, own)


# ---------------------------------------------------------------------- the leak
def test_each_update_of_the_discriminator_is_leaked() -> None:
    """To the generator and the rollout policy alike; what G reads in the next draw is the new D."""
    module, data = game(lr_d=0.1, delay=0.5)
    first = state(module)
    module.after_discriminator_step, seen = lambda: seen.append(leak()), []  # type: ignore[method-assign, func-returns-value]

    def leak() -> bool:
        stale = not equal(module.generator.leaked.state_dict(), module.discriminator.state_dict())
        LeakGAN.after_discriminator_step(module)
        for network in (module.generator, module.delayed):
            assert equal(network.leaked.state_dict(), module.discriminator.state_dict())
        return stale

    trainer(max_steps=2).fit(module, datamodule=data)
    assert seen == [True] * 4
    assert not torch.equal(first["generator.leaked.score.weight"], module.generator.leaked.score.weight)
    assert module.delayed.leaked is module.generator.leaked


def test_both_begin_with_what_the_generator_has_learned_to_read(tmp_path: Path) -> None:
    """D and the leak: by maximum likelihood, D alone, that again, and the game."""
    data = MarkovText(T=4, batch_size=8, one_hot=False)

    def fitted(module: Any, name: str, steps: int) -> Any:
        t = trainer(max_steps=steps)
        t.fit(module, datamodule=data)
        t.save_checkpoint(tmp_path / name)
        return module

    torch.manual_seed(3)
    mle = MLE(network())
    read, before = state(mle), {n: p.clone() for n, p in mle.named_parameters() if p.requires_grad}
    fitted(mle, "mle.ckpt", 3)
    assert equal(
        {k: v for k, v in state(mle).items() if "leaked" in k}, {k: v for k, v in read.items() if "leaked" in k}
    )
    assert {"mle/nll", "mle/manager"} <= mle.values.keys()
    assert all(not torch.equal(p, before[n]) for n, p in mle.named_parameters() if p.requires_grad)
    with pytest.warns(UserWarning, match="lr_g is 0"):
        alone, _ = game(7, lr_g=0.0, lr_d=0.1, reward="constant", generator_checkpoint=str(tmp_path / "mle.ckpt"))
    fitted(alone, "d.ckpt", 1)
    assert torch.equal(alone.generator.manager.weight_ih_l0, mle.generator.manager.weight_ih_l0)
    again = MLE(network(), generator_checkpoint=str(tmp_path / "d.ckpt"), lr_mle=1e-9)
    fitted(again, "again.ckpt", 1)
    assert torch.allclose(again.generator.out.weight, mle.generator.out.weight, atol=1e-6)
    last, _ = game(9, lr_d=1e-9, generator_checkpoint=str(tmp_path / "again.ckpt"))
    trainer(max_steps=1).fit(last, datamodule=data)
    for name, value in alone.discriminator.state_dict().items():
        assert torch.allclose(last.discriminator.state_dict()[name], value, atol=1e-6), name
    assert not torch.allclose(last.discriminator.gate.weight, mle.generator.leaked.gate.weight, atol=1e-3)
    fresh, _ = game(5, lr_d=1e-9)
    own = state(fresh)["discriminator.gate.weight"]
    trainer(max_steps=1).fit(fresh, datamodule=data)
    assert torch.allclose(fresh.generator.leaked.gate.weight, own, atol=1e-6)


def test_it_goes_on_to_the_bit(tmp_path: Path) -> None:
    """With what is leaked, which ``load`` finds too; averages have a leak of their own."""

    def run(steps: int, ckpt: str | None = None) -> Any:
        pl.seed_everything(3, verbose=False)
        module, data = game(lr_g=0.1, lr_d=0.1, baseline="batch", one_hot=True)
        save = callbacks.ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=2)
        t = trainer(max_steps=steps, callbacks=[save, EMA(0.5)], enable_checkpointing=True)
        t.fit(module, datamodule=data, ckpt_path=ckpt)
        return module

    whole = run(4)
    assert equal(state(whole), state(run(4, str(tmp_path / "step=2.ckpt"))))
    nets = {"generator": network(), "discriminator": critic()}
    found: Any = load(tmp_path / "step=4.ckpt", **nets)
    assert torch.equal(found.sample(5, seed=1), whole.sample(5, seed=1))
    average = whole.network.leaked.gate.weight
    assert whole.network is not whole.generator and not torch.equal(average, whole.discriminator.gate.weight)


# ---------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    "made, told",
    [
        (lambda: game(delta=0.0), "delta must be a finite number > 0, got 0.0"),
        (lambda: game(mle_weight=-1.0), "mle_weight must be a finite number >= 0, got -1.0"),
        (lambda: game(discriminator=critic(filters=5)), "generator must be made of a discriminator of the same sizes"),
        (lambda: LeakGANGenerator(critic(), (4, 6), horizon=0), "horizon must be an integer >= 1, got 0"),
        (lambda: LeakGANGenerator(critic(), (4, 6), goal_size=0), "goal_size must be an integer >= 1, got 0"),
        (
            lambda: LeakGANGenerator(ToyDiscriminator(), (4, 6)),
            "discriminator must have features, got ToyDiscriminator",
        ),
        (lambda: LeakGANGenerator(critic((4, 5)), (4, 6)), "discriminator.vocabulary_size must be 6 as the texts have"),
        (lambda: LeakGANGenerator(critic((3, 6)), (4, 6)), "discriminator.length must be 4 as the texts have, got 3"),
        (lambda: LeakGANGenerator(critic((9, 6)), (4, 6)), "discriminator.length must be 4 as the texts have, got 9"),
        (lambda: LeakGANGenerator(Wide(), (4, 6)), "discriminator must read texts of 4 tokens, got one that fails: "),
        (lambda: game(generator=LanguageModel((4, 6))), "must be a language model, got LanguageModel without leaked"),
    ],
)
def test_bad_input(made: Any, told: str) -> None:
    with pytest.raises((ValueError, TypeError), match=told):
        made()


# ---------------------------------------------------------------------- learning
def toy(seed: int = 0, **options: Any) -> tuple[LeakGAN, MarkovText]:
    """A game on a toy language, after a few updates by maximum likelihood."""
    data = MarkovText(one_hot=False)
    torch.manual_seed(seed)
    discriminator = SeqGANDiscriminator(data.shape, 16, (1, 2, 3, 4), 16)
    generator = LeakGANGenerator(discriminator, data.shape, 16, 32, 8)
    trainer(max_steps=8).fit(MLE(generator), datamodule=data)
    options = {"d_steps": 3, "lr_d": 2e-3, "lr_g": 1e-2, **options}
    return LeakGAN(generator, discriminator, 8, **options), data


@pytest.mark.slow
def test_it_learns_the_toy_language_by_its_rewards_alone() -> None:
    """.13 for two seeds, which begin at .18 and .24; where D does not learn, so that features say nothing, 1.0."""
    options = {"mle_weight": 0.0, "baseline": "batch", "lr_g": 3e-3}
    found = []
    for rate in (2e-3, 1e-9):
        model, data = toy(**options, lr_d=rate)
        trainer(max_steps=60).fit(model, datamodule=data)
        found.append(js2(model, data, 1000))
    assert found[0] < 0.18 and found[1] > 0.3
