"""ERNIE-ViL 2.0: multi-view contrastive image-text pretraining, retrieval and search on PaddlePaddle.

model = ernie_vil2.load_model("ernie-vil-2.0-base-zh")
scores, probabilities = model.rank(["cat.jpg"], ["一只猫", "一只狗"])

Importing the package changes nothing in the process. On a CPU, Paddle is about twice as fast after
`ernie_vil2.runtime.configure()`, which must be called before Paddle is imported; the command lines do so.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .device import runtime as runtime
from .version import __version__ as __version__

if TYPE_CHECKING:
    from .apps.search import open_index
    from .data.samples import BadSample
    from .encoder import EncodedImages, ErnieViL2, Ranking, load_model
    from .evaluation.compare import compare

__all__ = ["BadSample", "EncodedImages", "ErnieViL2", "Ranking", "__version__", "compare", "load_model", "open_index"]

# Imported at the first use, since they import Paddle, which takes seconds.
_MODULES = {
    "BadSample": ".data.samples",
    "EncodedImages": ".encoder",
    "ErnieViL2": ".encoder",
    "Ranking": ".encoder",
    "compare": ".evaluation.compare",
    "load_model": ".encoder",
    "open_index": ".apps.search",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    runtime.ignore_ccache_hint()
    try:
        return getattr(import_module(_MODULES[name], __name__), name)
    except ModuleNotFoundError as error:
        from .device.extras import EXTRAS, missing_package_error

        if error.name in EXTRAS:
            raise missing_package_error(error.name, f"{__name__}.{name}") from None
        raise


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
