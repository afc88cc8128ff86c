"""What a class of the user's may get wrong, told in one sentence before work is lost."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_gans.engine.player import Player


def check_player(module: Any, player: Player) -> None:
    """ValueError for a player that cannot take part in a module's game."""
    name = player.name
    if name in module.players:
        raise ValueError(
            f"play must be given players of different names, got {name!r} twice: change self.players[{name!r}] instead."
        )
    for attribute in player.networks:
        if not isinstance(getattr(module, attribute, None), nn.Module):
            raise ValueError(
                f"networks of the player {name!r} must be attributes that hold networks, got {attribute!r}, which this "
                f"{type(module).__name__} does not have: set self.{attribute} before the player is given to play."
            )
    if player.sam and module.cuda_graphs:
        raise ValueError(f"sam_{name} must be None with cuda_graphs, got {player.sam!r}.")
    if name == module.counted and player.every != 1:  # global_step would stand still
        raise ValueError(f"{name}_every must be 1 for the player that is counted, got {player.every}.")
