"""What jsonargparse does for each key of each namespace, thousands of times for one command, in a fraction of its time.

Each function has the result of the one that it stands for, for keys that a parser makes. They are shortcuts, without
which everything works: where a version of jsonargparse has no function of that name, nothing is put in its place.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import jsonargparse._core
import jsonargparse._namespace
import jsonargparse._subcommands
from jsonargparse import Namespace


class _Index:
    """Of a parser's actions, by name those which that name may mean: jsonargparse compares it with all of them."""

    def __init__(self, actions: list[Any]) -> None:
        self.actions = actions.copy()
        commands = [action for action in actions if getattr(action, "_name_parser_map", None) is not None]
        self.others = SimpleNamespace(_actions=commands)  # what a parser is asked for its actions
        self.named: dict[str, SimpleNamespace] = {}
        for action in actions:
            for name in {action.dest, *(option[2:] for option in action.option_strings if option[:2] == "--")}:
                same = self.named.setdefault(name, SimpleNamespace(_actions=commands.copy()))._actions
                same += [action] if action not in same else []


def _find(parser: Any, dest: str, exclude: Any = None) -> Any:
    """``find_action_and_subcommand`` among the few that it can be."""
    index = vars(parser).get("_by_name")
    if index is None or index.actions != parser._actions:
        index = parser._by_name = _Index(parser._actions)
    return _FIND(index.named.get(dest, index.others), dest, exclude=exclude)


def _parse_key(self: Any, key: Any) -> Any:
    """``Namespace._parse_key``, where there is nothing to split."""
    if isinstance(key, str) and key.isidentifier():
        return jsonargparse._namespace.add_clash_mark(key), self, ""
    return _PARSE_KEY(self, key)


def _copied(data: Any, skip_keys: Any = None) -> Any:
    """``recreate_branches``, without parsing keys that are in a namespace already."""
    if type(data) is not Namespace:
        return _COPIED(data, skip_keys) if isinstance(data, (Namespace, dict, list)) else data
    copy = Namespace()
    vars(copy).update({k: _copied(v, skip_keys) for k, v in vars(data).items() if not skip_keys or k not in skip_keys})
    return copy


def instead(name: str, shortcut: Any, *places: ModuleType | type) -> Any:
    """Put a shortcut in the places that have something of this name; what it stands for, from the first of them."""
    original = getattr(places[0], name, None)
    for place in places:
        if original is not None and hasattr(place, name):
            setattr(place, name, shortcut)
    return original


_FIND = instead("find_action_and_subcommand", _find, jsonargparse._subcommands, jsonargparse._core)
_PARSE_KEY = instead("_parse_key", _parse_key, Namespace)
_COPIED = instead("recreate_branches", _copied, jsonargparse._namespace, jsonargparse._core)
