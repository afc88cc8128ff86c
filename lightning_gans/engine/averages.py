"""Averages, and what else a model samples by, in the state dict of its weights, where there is no other place."""

from __future__ import annotations

from typing import Any

_HANDED = "sampling_state"


def key_of(name: str) -> str:
    """Of an averaged network in a checkpoint."""
    return name if name == "ema" else f"ema_{name}"


def save_within(module: Any, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Put averages into the state of another module that has this one: its checkpoint has no other place for them.

    What a process hands back has none for anything else, either.
    """
    if module.hands_back and not prefix:
        state[_HANDED] = module.sampling_state()
    if prefix:
        for name, (mean, _) in module.averages.items():
            state |= {f"{prefix}{key_of(name)}.{key}": value for key, value in mean.state_dict().items()}


def load_within(module: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Take them back."""
    if not prefix and _HANDED in state:
        module.load_sampling_state(state.pop(_HANDED))
    for name in ("ema", *module.averaged_with):
        own = f"{prefix}{key_of(name)}."
        if found := {key[len(own) :]: state.pop(key) for key in [*state] if key.startswith(own)}:
            module._begin_ema()
            module.averages[name][0].load_state_dict(found)
