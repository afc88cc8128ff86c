"""Speed and memory, side by side with a plain PyTorch loop."""

from importlib.util import find_spec
from pathlib import Path

import lightning_gans

if find_spec("lightning_gans.callbacks") is None:  # a checkout that is not installed, as on a machine without a network
    lightning_gans.__path__.append(str(Path(__file__).parents[1]))
