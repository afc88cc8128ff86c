"""Optimizers for games, and the game x y that plain gradient steps lose."""

from __future__ import annotations

import copy
import math
from contextlib import closing, nullcontext
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from common import equal, make, plain, state, trainer
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from lightning_gans.cli import main
from lightning_gans.optim import Adam, ClippedAdam, ExtraAdam, ExtraSGD, OptimisticAdam, OptimisticSGD, RMSprop
from lightning_gans.optim.recorded import RecordedStep

CONFIGS = Path(__file__).parent.parent / "configs"


def play(make_optimizer: Any, steps: int) -> list[float]:
    """Distances from the saddle of min_x max_y x y, in simultaneous steps from (1, 1)."""
    x, y = (torch.ones((), dtype=torch.float64, requires_grad=True) for _ in range(2))
    players = make_optimizer([x]), make_optimizer([y])
    distances = [math.sqrt(2)]
    for _ in range(steps):
        x.grad, y.grad = y.detach().clone(), -x.detach().clone()
        for player in players:
            player.step()
        distances.append(math.hypot(x.item(), y.item()))
    return distances


def test_plain_steps_spiral_out() -> None:
    d = play(lambda p: torch.optim.SGD(p, 0.3), 50)
    assert [b / a for a, b in pairwise(d)] == pytest.approx([math.sqrt(1 + 0.3**2)] * 50)


def test_optimistic_steps_converge() -> None:
    """By the larger root of z^2 - (1 + 2 i eta) z + i eta, the eigenvalues of the two-step recursion, per step."""
    root = torch.linalg.eigvals(torch.tensor([[1 + 0.6j, -0.3j], [1, 0]], dtype=torch.complex128)).abs().max()
    d = play(lambda p: OptimisticSGD(p, 0.3), 300)
    assert float(root) < 0.95
    assert (d[300] / d[200]) ** 0.01 == pytest.approx(float(root), rel=1e-6)


def test_optimistic_steps_are_extrapolation_from_the_past() -> None:
    """v_t = w_t - lr grad(v_{t-1}), w_{t+1} = w_t - lr grad(v_t): the parameters are the v_t."""
    w = torch.tensor([1.0, 1.0], dtype=torch.float64)
    field = lambda v: torch.stack([v[1], -v[0]])  # noqa: E731
    last, distances = torch.zeros(2, dtype=torch.float64), []
    for _ in range(21):
        v = w - 0.3 * last
        distances.append(float(v.norm()))
        last = field(v)
        w = w - 0.3 * last
    assert play(lambda p: OptimisticSGD(p, 0.3), 20) == pytest.approx(distances, rel=1e-12)


def test_extra_gradient_converges_at_its_rate() -> None:
    """w <- w - eta J (w - eta J w): a factor sqrt((1 - eta^2)^2 + eta^2) each two updates."""
    d = play(lambda p: ExtraSGD(p, 0.3), 100)[::2]
    factor = math.sqrt((1 - 0.3**2) ** 2 + 0.3**2)
    assert factor < 1 and [b / a for a, b in pairwise(d)] == pytest.approx([factor] * 50)


@pytest.mark.parametrize("optimizer", [OptimisticAdam, ExtraAdam])
def test_adams_that_look_ahead_come_closer(optimizer: Any) -> None:
    """Adam's step does not shrink with the gradient, so none goes all the way; by looking ahead they come near."""
    ahead = play(lambda p: optimizer(p, 0.03, betas=(0.0, 0.99)), 2000)
    plain = play(lambda p: torch.optim.Adam(p, 0.03, betas=(0.0, 0.99)), 2000)
    assert max(ahead[-200:]) < 0.2 and min(plain[-200:]) > 0.8


@pytest.mark.parametrize("optimizer", [OptimisticAdam, ExtraAdam])
def test_the_direction_is_adams(optimizer: Any) -> None:
    """From the positions of torch's Adam: twice its step less the last one, or ahead, back and on."""
    torch.manual_seed(0)
    gradients = torch.randn(4, 5, dtype=torch.float64)
    theirs, ours = (torch.zeros(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    adam, own = torch.optim.Adam([theirs], 0.1, betas=(0.5, 0.9)), optimizer([ours], 0.1)
    positions, found = [theirs.detach().clone()], []
    for gradient in gradients:
        theirs.grad, ours.grad = gradient, gradient.clone()
        adam.step()
        own.step()
        positions.append(theirs.detach().clone())
        found.append(ours.detach().clone())
    s = [a - b for a, b in pairwise(positions)]
    if optimizer is OptimisticAdam:
        steps = [2 * s[0], 2 * s[1] - s[0], 2 * s[2] - s[1], 2 * s[3] - s[2]]
        want = [-sum(steps[: i + 1]) for i in range(4)]
    else:
        want = [-s[0], -s[1], -s[1] - s[2], -s[1] - s[3]]
    for a, b in zip(found, want):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("optimizer", [OptimisticSGD, OptimisticAdam, ExtraSGD, ExtraAdam, ClippedAdam, RMSprop, Adam])
def test_a_closure_is_called_once_with_gradients_on_and_its_loss_returned(optimizer: Any) -> None:
    """A parameter without a gradient stays where it is."""
    w, still = (torch.ones(2, requires_grad=True) for _ in range(2))
    calls: list[Tensor] = []

    def closure() -> Tensor:
        w.grad = None
        calls.append(w.square().sum())
        calls[-1].backward()
        return calls[-1]

    own = optimizer([w, still], lr=0.1)
    for step in range(2):
        with torch.no_grad():
            assert own.step(closure) is calls[step]
    assert len(calls) == 2 and not w.eq(1).any() and still.eq(1).all()
    still.grad = torch.zeros(2)
    own.step()
    assert still.eq(1).all()


@pytest.mark.parametrize("optimizer", [OptimisticSGD, OptimisticAdam, ExtraSGD, ExtraAdam])
def test_they_train_resume_and_count(tmp_path: Path, optimizer: Any) -> None:
    def build() -> Any:
        make_it = lambda parameters: optimizer(parameters, lr=0.01)  # noqa: E731
        return make("gan", optimizer_g=make_it, optimizer_d=make_it)

    def run(module: Any, steps: int, **options: Any) -> Any:
        torch.manual_seed(3)
        t = trainer(max_steps=steps)
        t.fit(module, plain(), **options)
        assert t.global_step == steps
        return t

    whole, half, rest = build(), build(), build()
    run(whole, 7)
    run(half, 3).save_checkpoint(tmp_path / "a.ckpt")
    torch.load(tmp_path / "a.ckpt", weights_only=True)
    run(rest, 7, ckpt_path=tmp_path / "a.ckpt")
    assert equal(state(whole), state(rest)) and not equal(state(whole), state(half))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda p: OptimisticSGD(p, -1.0), "lr must be a finite number >= 0, got -1.0"),
        (lambda p: OptimisticAdam(p, betas=(0.5, 1.0)), r"betas must be two numbers in \[0, 1\)"),
        (lambda p: ExtraAdam(p, eps=0.0), "eps must be a finite number > 0, got 0.0"),
        (lambda p: ClippedAdam(p, factor=0.0), "factor must be a finite number > 0, got 0.0"),
        (lambda p: ClippedAdam(p, slack=-1.0), "slack must be a finite number > 0, got -1.0"),
    ],
)
def test_bad_settings(build: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build([torch.zeros(1, requires_grad=True)])


def test_by_class_path_on_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = (CONFIGS / "ring" / "gan.yaml").read_text()
    line = "    lr_g: 0.001\n"
    assert line in text
    factory = "    optimizer_g: {class_path: lightning_gans.optim.OptimisticAdam, init_args: {lr: 0.01}}\n"
    (tmp_path / "a.yaml").write_text(text.replace(line, line + factory))
    main(["fit", f"--config={tmp_path / 'a.yaml'}", "--trainer.max_steps=2", "--trainer.accelerator=cpu", "--name=a",
          "--grid.every_n_steps=null"])  # fmt: skip
    saved = torch.load("runs/a/checkpoints/last.ckpt", weights_only=True, map_location="cpu")
    slots: list[dict[str, Tensor]] = list(saved["optimizer_states"][1]["state"].values())
    assert all({"last_step", "exp_avg"} <= slot.keys() for slot in slots) and len(slots) == 8


KINDS: dict[type[Any], dict[str, Any]] = {Adam: {"betas": (0.5, 0.9), "fused": True}, RMSprop: {"alpha": 0.9}}


def two_of(kind: type[Any], **options: Any) -> tuple[list[list[Tensor]], list[Any]]:
    """Torch's and ours, of the same parameters in two groups."""
    parameters, optimizers = [], []
    for which in (kind.theirs, kind):
        torch.manual_seed(0)
        own = [torch.randn(shape, requires_grad=True) for shape in ((3, 2), (3,), ())]
        groups = [{"params": own[:2]}, {"params": own[2:], "lr": 0.3}]
        parameters.append(own)
        optimizers.append(which(groups, lr=0.1, **KINDS[kind], **options))
    return parameters, optimizers


MORE: list[tuple[type[Any], dict[str, Any]]] = [
    *[(kind, options) for kind in KINDS for options in ({}, {"weight_decay": 0.1}, {"maximize": True})],
    (Adam, {"amsgrad": True}),
    *[(RMSprop, options) for options in ({"momentum": 0.5}, {"centered": True}, {"foreach": True})],
]


@pytest.mark.parametrize(("kind", "options"), MORE, ids=str)
def test_what_goes_without_wrappers_is_torchs_to_the_bit(kind: type[Any], options: dict[str, Any]) -> None:
    """Parameters without a gradient, a loaded state, hooks, a schedule and a closure included."""
    parameters, optimizers = two_of(kind, **options)
    schedules = [torch.optim.lr_scheduler.ExponentialLR(o, 0.9) for o in optimizers]
    hooked: list[int] = []
    for step in range(12):
        gradients = [torch.randn_like(p) for p in parameters[0]]
        for i, (own, optimizer, schedule) in enumerate(zip(parameters, optimizers, schedules)):
            for k, (p, gradient) in enumerate(zip(own, gradients)):
                p.grad = None if (step, k) == (5, 1) else gradient.clone()
            if step == 7:
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            if step == 9:
                optimizer.register_step_post_hook(lambda *_, i=i: hooked.append(i))
            loss = optimizer.step(lambda: torch.tensor(2.0)) if step % 2 else optimizer.step()
            assert (loss is None) == (step % 2 == 0)
            schedule.step()
        assert all(map(torch.equal, *parameters))
        ours, theirs = (o.state_dict() for o in optimizers)
        assert ours["param_groups"] == theirs["param_groups"]
        assert all(torch.equal(a, theirs["state"][k][n]) for k, s in ours["state"].items() for n, a in s.items())
    assert hooked == [0, 1] * 3


def test_a_step_of_ones_own_is_not_recorded() -> None:
    class Own(Adam):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            pass

    for kind in (Adam, Own):
        optimizer = kind([w := torch.ones(2, requires_grad=True)], fused=True)
        w.grad = torch.ones(2)
        Adam.step(optimizer)
        assert (RecordedStep.of(optimizer) is None) == (kind is Own)


@pytest.mark.parametrize("what", ["two types", "complex", "late"])
@pytest.mark.parametrize("kind", KINDS)
def test_other_types_and_parameters_that_come_later_are_torchs_too(kind: type[Any], what: str) -> None:
    """In one group; torch's fused Adam takes no complex numbers."""
    types = {"two types": (torch.float32, torch.float64), "complex": (torch.complex64,), "late": (torch.float32,) * 2}
    options = KINDS[kind] | ({"fused": None} if what == "complex" and kind is Adam else {})
    own, optimizers = [], []
    for which in (kind.theirs, kind):
        torch.manual_seed(0)
        own.append([torch.randn(3, dtype=dtype, requires_grad=True) for dtype in types[what]])
        optimizers.append(which(own[-1][: 1 if what == "late" else None], lr=0.1, **options))
    for step in range(6):
        gradients = [torch.randn_like(p) for p in own[0]]
        for parameters, optimizer in zip(own, optimizers):
            if step == 3 and what == "late":
                optimizer.param_groups[0]["params"].append(parameters[-1])
            for p, gradient in zip(parameters, gradients):
                p.grad = gradient.clone()
            optimizer.step()
        assert all(map(torch.equal, *own))
    counts = [[float(o.state[p]["step"]) for p in parameters] for o, parameters in zip(optimizers, own)]
    assert counts[0] == counts[1] and counts[0][-1] == (3 if what == "late" else 6)


@pytest.mark.parametrize("what", ["before", "before all", "after all", "profiler", "scaler", "rate", "foreach"])
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_asks_for_more_is_torchs_own_step(kind: type[Any], what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, (_, optimizer) = two_of(kind)
    by_torch: list[int] = []
    monkeypatch.setattr(kind, "_by_torch", lambda self, *a, real=kind._by_torch: by_torch.append(1) or real(self, *a))
    for p in (own := [p for group in optimizer.param_groups for p in group["params"]]):
        p.grad = torch.ones_like(p)
    optimizer.step()
    optimizer.step()
    assert len(by_torch) == 1  # the first alone
    watched: Any = nullcontext()
    if what == "before":
        optimizer.register_step_pre_hook(lambda *_: None)
    elif what.endswith("all"):
        register = {"before all": register_optimizer_step_pre_hook, "after all": register_optimizer_step_post_hook}[
            what
        ]
        handle = register(lambda *_: None)
        watched = closing(SimpleNamespace(close=handle.remove))
    elif what == "profiler":
        watched = torch.autograd.profiler.profile()
    elif what == "scaler":
        monkeypatch.setattr(kind, "_by_torch", lambda self, *a: by_torch.append(1))
        optimizer.grad_scale = torch.tensor(2.0)
    elif what == "rate":
        monkeypatch.setattr(kind, "_by_torch", lambda self, *a: by_torch.append(1))
        optimizer.param_groups[1]["lr"] = torch.tensor(0.1)
    elif kind is RMSprop:
        optimizer.param_groups[1]["foreach"] = False
    else:
        optimizer.param_groups[1]["decoupled_weight_decay"] = True
    with watched:
        optimizer.step()
    assert len(by_torch) == 2 and len(own) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_on_a_cpu_is_torchs_too(kind: type[Any]) -> None:
    torch.manual_seed(0)
    own = [[torch.ones(50, dtype=torch.bfloat16, requires_grad=True)] for _ in range(2)]
    optimizers = [which(p, lr=0.1, **KINDS[kind]) for which, p in zip((kind.theirs, kind), own)]
    for _ in range(20):
        gradient = torch.randn(50).bfloat16()
        for (p,), optimizer in zip(own, optimizers):
            p.grad = gradient.clone()
            optimizer.step()
    assert torch.equal(own[0][0], own[1][0])


@pytest.mark.parametrize("kind", KINDS)
def test_steps_go_without_wrappers(kind: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the first, and wherever more is asked of one; a loss by a closure is computed once."""
    by_torch: list[int] = []
    _, (_, optimizer) = two_of(kind)
    own = [p for group in optimizer.param_groups for p in group["params"]]
    real = kind._by_torch
    monkeypatch.setattr(kind, "_by_torch", lambda self, *a: by_torch.append(step) or real(self, *a))
    calls: list[int] = []
    for step in range(6):
        for p in own:
            p.grad = torch.ones_like(p)
        if step == 2:
            own[0].grad = None
        if step == 4:
            optimizer.state[own[1]]["step"] = optimizer.state[own[1]]["step"].clone()  # somebody's own
        optimizer.step(lambda step=step: calls.append(step) or torch.zeros(()))
    assert by_torch == [0, 2] and calls == [*range(6)]
    assert [float(optimizer.state[p]["step"]) for p in own] == [5.0, 6.0, 6.0]
