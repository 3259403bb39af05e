"""Any backbone of PaddleClas as an image tower, by its name there."""

from __future__ import annotations

import inspect
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator

import paddle
from paddle import nn
from paddle.utils import unique_name

from ernie_vil2.config import ImageTowerConfig
from ernie_vil2.registry import unknown

_CLASSES = 1237
"""Output width by which a backbone's classifier is recognised: no backbone has a layer of this width itself."""


def build_backbone(config: ImageTowerConfig) -> nn.Layer:
    """The tower of any name that PaddleClas knows.

    Raises:
        ValueError: PaddleClas has no backbone of this name, or none whose classifier can be told from the rest.
    """
    builders = {name: value for name, value in vars(paddleclas()).items() if inspect.isfunction(value)}
    del builders["get_apis"]
    if config.name not in builders:
        from ernie_vil2.models.towers import IMAGE_TOWERS

        raise unknown("image tower", config.name, IMAGE_TOWERS, builders)
    return Backbone(config.name, builders[config.name], config.image_size)


class Backbone(nn.Layer):
    """A PaddleClas backbone without its classifier: what the classifier saw are the features.

    Args:
        name: for error messages.
        build: PaddleClas's constructor.
        image_size: side of the square input in pixels, for constructors that ask for it.

    Raises:
        ValueError: the network does not end in exactly one linear classifier.
    """

    def __init__(self, name: str, build: Callable[..., nn.Layer], image_size: int):
        super().__init__()
        self.network = _construct(name, build, image_size)
        _settle(self.network)
        classifiers = [
            (parent, child, layer)
            for parent in self.network.sublayers(include_self=True)
            for child, layer in parent.named_children()
            if isinstance(layer, nn.Linear) and layer.weight.shape[1] == _CLASSES
        ]
        if len(classifiers) != 1:
            raise ValueError(
                f"image tower {name!r}: expected one linear classifier to remove, found {len(classifiers)}; "
                "choose another backbone"
            )
        parent, child, layer = classifiers[0]
        setattr(parent, child, nn.Identity())
        self.width = layer.weight.shape[0]

    @property
    def blocks(self) -> list[nn.Layer]:
        """The parts that the network repeats: outermost layers made of others, of a class that occurs again."""
        classes = Counter(type(layer) for layer in self.network.sublayers())

        def outermost(layer: nn.Layer) -> Iterator[nn.Layer]:
            for part in layer.children():
                if not list(part.children()):
                    continue
                if classes[type(part)] > 1 and not isinstance(part, nn.Sequential | nn.LayerList):
                    yield part
                else:
                    yield from outermost(part)

        return list(outermost(self.network))

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        return self.network(images).flatten(1)


def _construct(name: str, build: Callable[..., nn.Layer], image_size: int) -> nn.Layer:
    # The constructors pass their arguments on, so only a call tells which of them takes an image size.
    # Some default to downloaded weights.
    arguments = {"class_num": _CLASSES, "pretrained": False}
    for extra in ({"img_size": image_size}, {}):
        try:
            # Many give their parameters fixed names, which Paddle refuses a second time in its namespace.
            with unique_name.guard():
                network = build(**arguments, **extra)
        except (TypeError, KeyError) as error:
            refusal = error
        else:
            for parameter in network.parameters():
                parameter.name = unique_name.generate("image_tower")
            return network
    raise ValueError(f"image tower {name!r} cannot be built without its classifier: {refusal}")


def _settle(network: nn.Layer) -> None:
    """Rids a network of parameters that its forward leaves out, which break data parallel, and of globals."""
    for layer in network.sublayers():
        if hasattr(layer, "dw_conv_list"):  # PP-LCNetV2: the sum of this list, fused for deployment
            for parameter in layer.dw_conv.parameters():
                parameter.stop_gradient = True
    module = sys.modules[type(network).__module__]
    if hasattr(module, "_model_size"):  # foundation_vit: see towers.transformers
        network.proj = None
        own = {name: getattr(module, name) for name in ("_model_size", "_model_diff")}
        network.register_forward_pre_hook(lambda layer, inputs: vars(module).update(own))


def paddleclas():
    """PaddleClas's module of backbones, imported and used without its chatter."""
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)
    from paddleclas.ppcls.arch import backbone

    # Its import sets the level; the warnings are about its own deprecated calls.
    logging.getLogger("ppcls").setLevel(logging.ERROR)
    return backbone
