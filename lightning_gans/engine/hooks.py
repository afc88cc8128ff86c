"""Lightning's hooks that people override: those that ours are called behind, and those that nobody calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any

from lightning_gans.compat.lightning import callbacks, pl

_STEP = "on_before_optimizer_step"
# People override these without super(), and what a technique begins, ends or saves hangs on them
_KEPT = ("on_fit_start", "on_train_start", "on_train_end", "on_save_checkpoint", "on_load_checkpoint")
# Lightning calls these where it optimizes by itself, and never here; what does their work
_UNCALLED = {
    "configure_gradient_clipping": "clip_grad_<player>",
    "optimizer_step": f"optimizer_<player> or {_STEP}",
    "optimizer_zero_grad": _STEP,
    "on_before_zero_grad": _STEP,
    "lr_scheduler_step": "scheduler_<player>",
    "on_before_backward": _STEP,
    "on_after_backward": _STEP,
    "backward": "the terms",
    "manual_backward": "the terms",
}


def keep_hooks(cls: Any, base: Any) -> None:
    """Have a class that overrides hooks in which ours do their work do that too, by ``super()`` or not."""
    for owner in (base, cls):
        ours = _is_ours(owner)
        for name in _KEPT:
            hook = getattr(owner, name)
            if hook is not getattr(pl.LightningModule, name) and not hasattr(hook, "keeps"):
                setattr(owner, name, _keeping(hook, name, ours))


def _keeping(own: Callable[..., None], name: str, ours: bool) -> Any:
    """A hook of ours that tells that it was called; of the user's that else calls the nearest one of ours behind it."""

    @wraps(own)
    def hook(self: Any, *arguments: Any, **named: Any) -> None:
        calls = vars(self).setdefault("hook_calls", Counter())
        before = calls[name]
        own(self, *arguments, **named)
        if ours:
            calls[name] += 1
        elif calls[name] == before:
            found = (vars(cls)[name] for cls in type(self).__mro__ if _is_ours(cls) and name in vars(cls))
            next(found, lambda *_, **__: None)(self, *arguments, **named)

    vars(hook)["keeps"] = True
    return hook


def _is_ours(cls: Any) -> bool:
    return cls.__module__.startswith("lightning_gans.")


def tell_uncalled(trainer: Any, module: Any) -> None:
    """Warn of hooks that somebody overrides and nobody calls."""
    found = []
    for owner, base in ((module, pl.LightningModule), *((c, callbacks.Callback) for c in trainer.callbacks)):
        for hook, instead in _UNCALLED.items():
            known = getattr(base, hook, None)
            if known is not None and _place(getattr(getattr(owner, hook), "__func__", None)) != _place(known):
                found.append(f"{type(owner).__name__}.{hook} (in its place {instead})")
    if found:
        pl.utilities.rank_zero_warn(
            f"These hooks are never called, since players step by the engine: {'; '.join(found)}."
        )
    if not _is_ours(type(module).forward) and _is_ours(getattr(type(module), "make_fake", tell_uncalled)):
        name = type(module).__name__
        pl.utilities.rank_zero_warn(
            f"{name}.forward is called neither in training nor by {name}.sample: its {module.made_by} alone makes "
            "samples. What forward does beside belongs into that network."
        )


def _place(function: Any) -> tuple[str, str] | None:
    """Where a function is written, alike in both of Lightning's packages."""
    if function is None:
        return None
    module = function.__module__.removeprefix("pytorch_lightning").removeprefix("lightning.pytorch")
    return module, function.__qualname__
