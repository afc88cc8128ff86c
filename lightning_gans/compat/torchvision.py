"""Make ``import torchvision`` work where its compiled ops do not load.

torchvision's wheels are built against CUDA; beside a CPU-only torch their native library is silently skipped and
``import torchvision`` then fails with "operator torchvision::nms does not exist", because fake kernels are registered
for operators that nobody declared. Declaring the two schemas first mends it; no operator is ever run. Where the real
library loads, this module does nothing.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_LIBRARIES = ("_C", "_C_stable")  # the second, of torchvision 0.29, ends the process where it finds schemas declared
_library: torch.library.Library | None = None  # kept alive: torch undeclares a library's operators when it is collected


def native_library_loads() -> bool:
    """Whether torchvision's own compiled operators can be loaded into this process."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True  # nothing to mend
    folder, suffixes = Path(spec.origin).parent, importlib.machinery.EXTENSION_SUFFIXES
    for library in (folder / f"{name}{suffix}" for name in _LIBRARIES for suffix in suffixes):
        if library.exists():
            try:
                torch.ops.load_library(str(library))
            except OSError:
                return False
            return True
    return False


def declare_missing_ops() -> bool:
    """Declare the schemas that torchvision needs to be imported; return whether anything had to be declared."""
    global _library
    if "torchvision" in sys.modules or _library is not None or native_library_loads():
        return False
    library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS.values():
        library.define(schema)
    _library = library
    return True


declare_missing_ops()
