"""Makes transformers' AutoConfig and AutoModel know the Trajectory Transformer, without importing transformers.

Registering needs transformers, which takes seconds to import; `import trajplan` must not. So it is done as soon as both
are there: at once where transformers' auto classes are loaded already, else right after they are.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    # Importing it takes longer than all the rest.
    from importlib.abc import Loader

AUTO_CONFIG = "transformers.models.auto.configuration_auto"
# Registers what registers the rest when a checkpoint is read.
OURS = "trajplan.models.stand_in"


class AutoConfigFinder:
    """Finds transformers' module of AutoConfig as the other finders do, and nothing else."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that another finder has, with a loader that registers afterwards."""
        if name != AUTO_CONFIG:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            spec.loader = cast("Loader", RegisteringLoader(spec.loader))
        return spec


class RegisteringLoader:
    """Loads a module as its own loader does, which it leaves in its place, and registers the Trajectory Transformer."""

    def __init__(self, loader: "Loader") -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the module's own loader."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """As the module's own loader; registers then."""
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        import_module(OURS)


_FINDER = AutoConfigFinder()


def register_trajectory_transformer() -> None:
    """Register the Trajectory Transformer with AutoConfig and AutoModel, now or when transformers loads them."""
    if AUTO_CONFIG in sys.modules:
        import_module(OURS)
    elif _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
