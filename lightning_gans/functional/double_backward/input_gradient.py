"""The gradient of scores by samples, and how its own gradient is computed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache, partial
from typing import Literal, cast, get_args
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lightning_gans import checks
from lightning_gans.functional.conditional import check_scores, score
from lightning_gans.functional.double_backward.first_order import linear_input_gradient
from lightning_gans.functional.double_backward.perceptron import (
    perceptron_input_gradient,
    perceptron_layers,
    perceptron_scores_and_gradient,
)
from lightning_gans.functional.double_backward.sparse import sparse_double_backward
from lightning_gans.functional.numerics import full_precision

Discriminator = Callable[[Tensor], Tensor]
DoubleBackward = Literal["sparse", "linear", "compiled", "plain"]
# Networks with the input shapes for which nothing in them was worth replacing: small MLPs, which the mode would slow.
_nothing_to_gain: WeakKeyDictionary[nn.Module, set[torch.Size]] = WeakKeyDictionary()
_refuses: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
chosen: ContextVar[DoubleBackward] = ContextVar("double_backward", default="sparse")  # see double_backward


@contextmanager
def double_backward(method: DoubleBackward) -> Iterator[None]:
    """Have `input_gradient` differentiated by another method; the values and gradients are the same.

    ========== ====================================================================================================
    "sparse"   the default: a double backward pass without the part that is zero in piecewise linear layers; of a
               perceptron (see `perceptron_layers`) one operation whose gradient is written out
    "linear"   no double backward: a backward and a tangent pass with frozen masks, of piecewise linear critics only
               (others are left to "sparse"); what it gives can be differentiated once
    "compiled" the whole of it by torch.compile as one graph, anew for each network and shape; torch's limit of
               recompilations (8) is also that of the number of networks and shapes; critics that count their calls
               (``Attention(kernel="favor")``) are left to "sparse"
    "plain"    torch's own
    ========== ====================================================================================================

    >>> net, x = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)), torch.ones(3, 2)
    >>> with double_backward("linear"):
    ...     gradient = input_gradient(net, x)
    >>> torch.allclose(gradient, input_gradient(net, x))
    True
    """
    checks.one_of("double_backward", method, get_args(DoubleBackward))
    token = chosen.set(method)
    try:
        yield
    finally:
        chosen.reset(token)


def input_gradient(discriminator: Discriminator, x: Tensor, create_graph: bool = True, through: bool = False) -> Tensor:
    """The gradient of each sample's score with respect to that sample, flattened: (N, ...) -> (N, D).

    Samples must not see each other in the discriminator (no BatchNorm), since the gradient is of the summed scores.
    With `create_graph` the result can itself be differentiated with respect to the discriminator's parameters, by the
    method of `double_backward`; and with `through` with respect to what `x` was computed from too, by "sparse" where
    the method is neither that nor "plain". Without it `x` is detached.

    >>> input_gradient(lambda x: x.square().sum(1), torch.tensor([[1.0, 2.0]])).tolist()
    [[2.0, 4.0]]
    """
    return _differentiate(discriminator, x, create_graph, through)[1]


def scores_and_gradient(discriminator: Discriminator, x: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (N,) of samples, and their `input_gradient` to be differentiated: of one pass, where that is possible.

    Two passes are needed under autocast, in which the gradient has no part, and by the methods "linear" and "compiled"
    of `double_backward`. Not by x, which is held fixed.

    >>> scores, gradient = scores_and_gradient(lambda x: x.square().sum(1), torch.tensor([[1.0, 2.0]]))
    >>> scores.tolist(), gradient.tolist()
    ([5.0], [[2.0, 4.0]])
    """
    if chosen.get() in ("linear", "compiled") or torch.is_autocast_enabled(x.device.type):
        return check_scores(discriminator(x.detach()), len(x)), input_gradient(discriminator, x)
    scores, gradient = _differentiate(discriminator, x, True, False, scored=True)
    return cast(Tensor, scores), gradient


def _differentiate(
    discriminator: Discriminator, x: Tensor, create_graph: bool, through: bool, scored: bool = False
) -> tuple[Tensor | None, Tensor]:
    method = chosen.get() if create_graph else "plain"
    if through and method != "plain":
        method = "sparse"
    network = _network(discriminator)
    scores: Tensor | None = None
    plainly = discriminator is network or (isinstance(discriminator, partial) and discriminator.func is score)
    told = type(network) is nn.Sequential or hasattr(type(network), "perceptron")
    if told and plainly and method == "sparse" and not through and (layers := perceptron_layers(network)) is not None:
        with no_autocast(x.device.type):
            x = _as_taken(x.detach(), layers[0][0])  # without a walk through all
            if not scored:
                return None, full_precision(perceptron_input_gradient(layers, x))
            scores, slope = perceptron_scores_and_gradient(layers, x)
            return scores, full_precision(slope)
    x = _as_taken(x if through else x.detach(), network)
    if not x.requires_grad:
        x.requires_grad_(True)
    if method == "sparse" and network is not None and x.shape in _nothing_to_gain.get(network, ()):
        method = "plain"
    if method == "compiled" and network is not None and any(getattr(m, "counts", False) for m in network.modules()):
        method = "sparse"  # a function that torch differentiates may write nothing
    again = twice_differentiable(network, method != "compiled") if create_graph else nullcontext()
    with torch.enable_grad(), no_autocast(x.device.type), again:
        gradient = linear_input_gradient(partial(_scores, discriminator), x) if method == "linear" else None
        if gradient is not None:
            pass
        elif method == "compiled":
            gradient = _compiled()(discriminator, x.detach())
        elif method == "plain":
            scores = check_scores(discriminator(x), len(x))
            (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=create_graph)
        else:
            with sparse_double_backward(x) as session:
                scores = check_scores(discriminator(x), len(x))
            session.inner = True
            try:
                (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
            finally:
                session.inner = False
            if network is not None and not session.replaced:
                _nothing_to_gain.setdefault(network, set()).add(x.shape)
    return scores, full_precision(gradient.flatten(1))


def _as_taken(x: Tensor, network: nn.Module | None) -> Tensor:
    """Samples in full precision, or in half where the weights themselves are so (``precision="bf16-true"``)."""
    weight = None if network is None else next(network.parameters(), None)
    half = weight is not None and weight.dtype in (torch.float16, torch.bfloat16)
    return x.to(weight.dtype) if weight is not None and half else full_precision(x)


def in_full_precision(discriminator: Discriminator) -> Discriminator:
    """The same for samples and scores in full precision, whatever its weights are in.

    >>> in_full_precision(nn.Linear(2, 1).bfloat16())(torch.zeros(3, 2)).dtype
    torch.float32
    """
    network = _network(discriminator)
    return lambda x: full_precision(discriminator(_as_taken(x, network)))


@contextmanager
def twice_differentiable(network: nn.Module | None = None, eager: bool = True) -> Iterator[None]:
    """Run what is to be differentiated twice in forms that can be: attention by plain operations, no compiled code.

    Whatever is called inside, now and later, may be compiled or hold what is: it is not looked for.

    Raises:
        ValueError: for a layer of the network that says of itself that it cannot (``once_differentiable``).
    """
    if network is not None and network not in _refuses:
        _refuses[network] = any(getattr(m, "once_differentiable", False) for m in network.modules())
    if network is not None and _refuses[network]:
        raise ValueError(
            "kernel must be auto, explicit or favor in the attention of a critic whose gradient is penalised, since "
            "the fused one has no second derivative, got 'fused'."
        )
    flags = torch.backends.cuda  # of the CPU too
    was = flags.flash_sdp_enabled(), flags.mem_efficient_sdp_enabled(), flags.cudnn_sdp_enabled()
    setters = flags.enable_flash_sdp, flags.enable_mem_efficient_sdp, flags.enable_cudnn_sdp
    for switch in setters:
        switch(False)
    try:
        with _uncompiled() if eager else nullcontext():
            yield
    finally:
        for switch, on in zip(setters, was):
            switch(on)


def _uncompiled() -> AbstractContextManager:
    """What is compiled runs as it was written; except within a function that is itself, where torch refuses."""
    if "torch._dynamo" not in sys.modules or torch.compiler.is_compiling():
        return nullcontext()
    try:
        return torch.compiler.set_stance("force_eager")
    except RuntimeError:
        return nullcontext()


def _network(discriminator: Discriminator) -> nn.Module | None:
    """The module that is called in the end: a regularizer makes a new partial function of it every time."""
    called = discriminator.args[0] if isinstance(discriminator, partial) and discriminator.args else discriminator
    return called if isinstance(called, nn.Module) else None


def _scores(discriminator: Discriminator, x: Tensor) -> Tensor:
    return check_scores(discriminator(x), len(x))


def _gradient(discriminator: Discriminator, x: Tensor) -> Tensor:
    # torch.func, since dynamo traces no autograd.grad; outside of torch.compile it is no faster than that
    return torch.func.grad(lambda x: _scores(discriminator, x).sum())(x)


@cache
def _compiled() -> Callable[[Discriminator, Tensor], Tensor]:
    return torch.compile(_gradient, fullgraph=True, dynamic=False)  # not at import, which it would slow


def no_autocast(device_type: str) -> AbstractContextManager:
    """Autocast switched off, at no cost where it is not on."""
    on = torch.is_autocast_enabled(device_type)
    return torch.autocast(device_type, enabled=False) if on else nullcontext()
