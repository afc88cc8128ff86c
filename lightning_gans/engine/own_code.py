"""What a class of the user's may get wrong, told in one sentence before work is lost."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lightning_gans import checks
from lightning_gans.compat.lightning import pl, utilities
from lightning_gans.engine.player import Player
from lightning_gans.regularizers.regularizer import Regularizer


def check_regularizers(given: Any) -> Sequence[Any]:
    """They, so that they can be gone through more than once; TypeError unless they are several, and instances."""
    kind = type(given).__name__
    if not isinstance(given, Iterable):
        hint = f": give [{kind}(...)]" if isinstance(given, Regularizer) else ""
        raise TypeError(f"regularizers must be a list, got {kind}{hint}.")
    several: Sequence[Any] = given if isinstance(given, Sequence) else list(given)
    if classes := [part.__name__ for part in several if isinstance(part, type)]:
        raise TypeError(f"regularizers must be objects, got the class {classes[0]}: give {classes[0]}(...).")
    return several


def check_player(module: Any, player: Player) -> None:
    """ValueError for a player that cannot take part in a module's game."""
    name = player.name
    if name in module.players:
        raise ValueError(
            f"play must be given players of different names, got {name!r} twice: change self.players[{name!r}] instead."
        )
    for attribute in player.networks:
        if hasattr(module, attribute):
            checks.networks(**{attribute: getattr(module, attribute)})
        else:
            raise ValueError(
                f"networks of the player {name!r} must be attributes that hold networks, got {attribute!r}, which this "
                f"{type(module).__name__} does not have: set self.{attribute} before the player is given to play."
            )
    if player.sam and module.cuda_graphs:
        raise ValueError(f"sam_{name} must be None with cuda_graphs, got {player.sam!r}.")
    if name == module.counted and player.every != 1:  # global_step would stand still
        raise ValueError(f"{name}_every must be 1 for the player that is counted, got {player.every}.")


def arguments_of(cls: type) -> set[str]:
    """Names of the arguments of a class's constructor, with those that it hands on."""
    names: set[str] = set()
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            names |= {p.name for p in parameters}
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return names


def refuse_lightnings_own(trainer: Any, module: Any) -> None:
    """ValueError for options of a Trainer in whose place each player has one, before Lightning refuses them."""
    known = arguments_of(type(module))
    for option, off, ours in (("gradient_clip_val", None, "clip_grad"), ("accumulate_grad_batches", 1, "accumulate")):
        if (given := getattr(trainer, option)) not in (off, None, 0):
            names = [name for name in (ours, *(f"{ours}_{player}" for player in module.players)) if name in known]
            instead = f"give {' or '.join(names)} to the model" if names else f"its players have {ours} of their own"
            raise ValueError(f"{option} of the Trainer must be {off}, got {given!r}: {instead}.")


def parameters_to_train(player: Player, networks: Sequence[nn.Module]) -> list[nn.Parameter]:
    """Those of a player's networks; ValueError if it has none."""
    if parameters := [p for net in networks for p in net.parameters() if p.requires_grad]:
        return parameters
    raise ValueError(nothing_to_train(player))


def nothing_to_train(player: Player, begun: bool = False) -> str:
    """That all of a player's networks are frozen; before its first step nothing else helps: it has an optimizer."""
    instead = ", or let it rest by every= or due" if begun else " (load gives a frozen model)"
    return (
        f"The player {player.name!r} must have parameters that require a gradient, got none in "
        f"{', '.join(player.networks)}: call requires_grad_(True){instead}."
    )


def check_apart(trainer: Any, module: Any) -> None:
    """ValueError for a parameter that two optimizers move: each player's step freezes what the others train."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    times = Counter(id(p) for group in groups for p in group["params"] if p.requires_grad)
    if twice := {i for i, n in times.items() if n > 1}:
        names = [name for name, p in module.named_parameters(remove_duplicate=False) if id(p) in twice]
        raise ValueError(
            f"Parameters must belong to one player each, got one that several train ({', '.join(names[:4])}): give "
            "each a copy, or freeze it."
        )


def check_not_compiled(module: Any) -> None:
    """ValueError for a module that was compiled as a whole, loop and optimizers included; it is no longer then."""
    try:
        utilities.compile.to_uncompiled(module)
    except ValueError:  # it was not
        return
    nets = ", ".join(f"torch.compile({name})" for player in module.players.values() for name in player.networks)
    raise ValueError(
        f"{type(module).__name__} must not be compiled itself, now or in an earlier predict or test: give it compiled "
        f"networks ({nets}), or fit it as it is from here on, no longer compiled."
    )


def unconnected(trainer: Any, name: str) -> str:
    """Why callbacks of a trainer lack what connects a module to it: a trial has its own alone, or somebody left it."""
    if any(type(callback).__module__.endswith("tuner.lr_finder") for callback in trainer.callbacks):
        return f"lr_find must be given a module with automatic optimization, got {name}: compare short fits."
    return (
        f"{name}.configure_callbacks must return what super().configure_callbacks() returns, and its own, got a list "
        "without it."
    )


def tell_untrained(trainer: Any, module: Any) -> None:
    """Warn of networks in training mode whose parameters nobody moves."""
    moved = {id(p) for optimizer in trainer.optimizers for group in optimizer.param_groups for p in group["params"]}
    moved |= {id(p) for name in module.players for net in module.networks(name) for p in net.parameters()}
    waiting = [name for name, net in module.named_children() if _waits(net, moved)]
    waiting += [name for name, p in module.named_parameters(recurse=False) if p.requires_grad and id(p) not in moved]
    if waiting:
        pl.utilities.rank_zero_warn(
            f"No player has the parameters of {', '.join(waiting)}, which {type(module).__name__} holds, so that they "
            "are not trained: give self.play a Player of theirs, or let them rest by requires_grad_(False) or eval()."
        )


def _waits(net: nn.Module, moved: Collection[int]) -> bool:
    """Whether a network, or a part of it, has parameters that nobody moves; not if it measures."""
    if not net.training or hasattr(net, "compute") or isinstance(net, AveragedModel):
        return False
    own = any(p.requires_grad and id(p) not in moved for p in net.parameters(recurse=False))
    return own or any(_waits(child, moved) for child in net.children())


def tell_idle(awaited: Sequence[str], updates: Mapping[str, int]) -> None:
    """Warn of players whose turn it was in the first cycle, and who have made no update."""
    if idle := [name for name in awaited if not updates[name]]:
        pl.utilities.rank_zero_warn(
            f"The player {', '.join(map(repr, idle))} has made no update in the first cycle: step it by "
            f"self.minimise({idle[0]!r}, terms, batches), as in before_generator_step, or have due tell when it begins."
        )


def tell_no_update(trainer: Any, counted: str, needed: int, before: int) -> None:
    """Warn that a fit has ended without an update, which would take ``needed`` batches, and say why.

    There were so many updates ``before`` it, of the checkpoint that it went on from.
    """
    if 0 <= trainer.max_steps <= trainer.global_step:
        why = f"max_steps={trainer.max_steps}, and {trainer.global_step} are done"
    elif trainer.limit_train_batches == 0:
        why = f"limit_train_batches={trainer.limit_train_batches}"
    elif before and 0 <= (trainer.max_epochs or -1) <= trainer.current_epoch:
        why = f"max_epochs={trainer.max_epochs}, and {trainer.current_epoch} are done"
    else:
        batches, epochs = trainer.lightning_module.run.batches, trainer.max_epochs
        why = f"{batches} batches an epoch, while one update takes {needed} (d_steps), and {epochs} epochs"
    pl.utilities.rank_zero_warn(f"The fit has made no update of {counted!r}: {why}.")


def tell_untrained_step(module: Any) -> None:
    """Warn of a ``training_step`` of somebody's that has trained in place of ours."""
    pl.utilities.rank_zero_warn(
        f"{type(module).__name__}.training_step must call super().training_step(dataloader_iter), which trains, got "
        "one that does not: override terms or cycle to train in another way."
    )


# ---------------------------------------------------------------------- terms
def speaks_for(method: str) -> Callable[[Callable[..., Any]], Any]:
    """Mark what hands on the terms of a method that people override, which messages are to name."""

    def mark(function: Any) -> Any:
        function.speaks_for = method
        return function

    return mark


def check_terms(player: Player, terms: Any, found: Any, batches: int, noted: Collection[str]) -> None:
    """What a player minimises for the first time can be minimised and logged.

    Args:
        player: who minimises.
        terms: what gave them.
        found: the terms, by name.
        batches: on how many batches at once.
        noted: names under which something else is logged already.

    Raises:
        TypeError: for anything but tensors by name.
        ValueError: for tensors or names that cannot be minimised or logged.
    """
    name, must = player.name, f"{_called(terms)} must return a dict of scalar tensors by name"
    if not isinstance(found, Mapping) or not found:
        raise TypeError(f"{must}, got {'an empty one' if isinstance(found, Mapping) else type(found).__name__}.")
    for term, value in found.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{must}, got {type(value).__name__} for {term!r}.")
        if value.numel() != 1:
            raise ValueError(f"{must}, got a tensor of shape {tuple(value.shape)} for {term!r}.")
    if not any(value.requires_grad for value in found.values()):
        raise ValueError(f"{must} that depend on the parameters of {name!r}, got none with a gradient.")
    for term in found:
        if term == "loss" or (term == "grad_norm" and player.clip is not None):
            raise ValueError(f"{must}, got {term!r}, under which the engine logs another value: take another name.")
        if f"{name}/{term}" in noted:
            raise ValueError(
                f"note must be given names that no term has, got {name}_{term}, and {term!r} of {_called(terms)}."
            )
    if player.accumulate not in (1, batches):
        raise ValueError(
            f"minimise must be given accumulate_{name} = {player.accumulate} batches for {name!r}, got {batches}: have "
            "g_batches, or take, fetch them."
        )


def _called(terms: Any) -> str:
    """``FMZ.encoder_terms``, ``MLE.terms('mle')``."""
    options = f"({', '.join(map(repr, terms.args))})" if isinstance(terms, partial) else ""
    function = terms.func if isinstance(terms, partial) else terms
    name = getattr(function, "speaks_for", getattr(function, "__name__", type(function).__name__))
    owner = getattr(function, "__self__", None)
    return f"{name}{options}" if owner is None else f"{type(owner).__name__}.{name}{options}"
