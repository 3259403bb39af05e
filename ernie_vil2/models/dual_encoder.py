"""Two towers, one joint space, and the scalars that the loss learns: temperature, and bias where it has one.

The layer groups of a tower, from its input to the joint space, are what freezing and layer-wise rates go by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from fnmatch import fnmatchcase

import paddle
from paddle import nn
from paddle.nn import functional as F

from ernie_vil2.config import ModelConfig, TuningConfig
from ernie_vil2.config.sections import VIEWS_OF, without_implementation
from ernie_vil2.device.cpu_kernels import speed_up
from ernie_vil2.io.terminal import listed


def build_dual_encoder(
    config: ModelConfig, vocab_size: int, temperature: float = 0.07, bias: float | None = None
) -> DualEncoder:
    """The dual encoder of `config`, randomly initialised; `temperature` and `bias` as in `DualEncoder`."""
    image, text = config.image.build(), config.text.build(vocab_size)
    always = [tower for tower in ("image", "text") if config.projections in ("always", tower)]
    model = DualEncoder(image, text, config.embed_dim or text.width, temperature, bias, always)
    speed_up(model)
    return model


def with_sizes(config: ModelConfig) -> ModelConfig:
    """Return the same towers, whoever builds them, with the sizes spelt out that a name such as ViT-B/16 means."""
    config = without_implementation(config)
    return config.model_copy(update={"image": config.image.with_sizes(), "text": config.text.with_sizes()})


def fewest_parameters(config: ModelConfig, vocab_size: int) -> int:
    """Return how many parameters a model has at least, before it is built.

    Those of a backbone of PaddleClas's or of a tower of a user's own are not counted.
    """
    width = config.text.sizes.get("width")
    projection = width * config.embed_dim if width and config.embed_dim not in (None, width) else 0
    return config.image.fewest_parameters() + config.text.fewest_parameters(vocab_size) + projection


class DualEncoder(nn.Layer):
    """Encodes images and texts into one space of width D (paper, section 3).

    Args:
        image: `[B, 3, H, W]` to `[B, image.width]`.
        text: `[B, L]` ids to `[B, text.width]`.
        embed_dim: D. A tower of another width is followed by a linear projection, a tower of this width by none.
        temperature: initial tau of equation 1. Its inverse `logit_scale` is learned as its log.
        bias: initial bias of the logits, for the sigmoid loss; None: there is none.
        projected: image, text: the towers that a projection follows even if they are of width D.
    """

    def __init__(
        self,
        image: nn.Layer,
        text: nn.Layer,
        embed_dim: int,
        temperature: float = 0.07,
        bias: float | None = None,
        projected: Collection[str] = (),
    ):
        super().__init__()
        self.image, self.text, self.embed_dim = image, text, embed_dim
        self.image_projection = _projection(image.width, embed_dim, "image" in projected)
        self.text_projection = _projection(text.width, embed_dim, "text" in projected)
        self.log_logit_scale = self.create_parameter(
            [1], default_initializer=nn.initializer.Constant(-math.log(temperature))
        )
        self.logit_bias = None
        if bias is not None:
            self.logit_bias = self.create_parameter([1], default_initializer=nn.initializer.Constant(bias))

    @property
    def logit_scale(self) -> paddle.Tensor:
        """1 / tau of equation 1, `[1]`."""
        return self.log_logit_scale.exp()

    @property
    def scalars(self) -> dict[str, paddle.Tensor]:
        """What the loss learns besides the embeddings, `[1]` each: `logit_scale`, `logit_bias` where there is one."""
        scalars = {"logit_scale": self.logit_scale}
        if self.logit_bias is not None:
            scalars["logit_bias"] = self.logit_bias.clone()  # the cached step takes its gradient, so not the parameter
        return scalars

    def encode_image(self, images: paddle.Tensor, width: int | None = None) -> paddle.Tensor:
        """`[B, 3, H, W]` normalised pixels to `[B, D]`, L2-normalised float32; of a width to `[B, width]`, the first
        numbers alone, normalised by themselves."""
        return _normalized(self.image_projection(self.image(images)), width)

    def encode_text(self, ids: paddle.Tensor, width: int | None = None) -> paddle.Tensor:
        """`[B, L]` int64 ids, padded with 0, to `[B, D]`, L2-normalised float32; `width` as for `encode_image`."""
        return _normalized(self.text_projection(self.text(ids)), width)

    def forward(
        self,
        views: dict[str, paddle.Tensor],
        normalize: Callable[[paddle.Tensor], paddle.Tensor] | None = None,
    ) -> tuple[dict[str, paddle.Tensor], dict[str, paddle.Tensor]]:
        """Encodes any of the views `image_1`, `image_2` (images) and `text_1`, `text_2` (ids of equal length).

        The views of one kind go through their tower together; equal texts still get dropout masks of their own.

        Args:
            views: images and ids by view.
            normalize: makes normalised pixels of all images at once; None: they are normalised.

        Returns:
            `[B, D]` embeddings by view, and `scalars`, which data parallel wraps as well.
        """
        embeddings: dict[str, paddle.Tensor] = {}
        for kind, encode in (("image", self.encode_image), ("text", self.encode_text)):
            names = [name for name in VIEWS_OF[kind] if name in views]
            if names:
                joined = paddle.concat([views[name] for name in names])
                joined = encode(normalize(joined) if normalize and kind == "image" else joined)
                embeddings.update(zip(names, joined.chunk(len(names)), strict=True))
        return embeddings, self.scalars

    def freeze_all_but(self, views: Collection[str]) -> None:
        """Takes a tower that encodes none of `views` out of training: nobody need wait for its gradient."""
        for kind, layers in (
            ("image", (self.image, self.image_projection)),
            ("text", (self.text, self.text_projection)),
        ):
            if not any(view.startswith(kind) for view in views):
                for layer in layers:
                    for parameter in layer.parameters():
                        parameter.stop_gradient = True

    @paddle.no_grad()
    def clamp_temperature(self, max_logit_scale: float) -> None:
        """Brings `logit_scale` back into [1, max_logit_scale], in place; for after every optimiser step."""
        self.log_logit_scale.set_value(self.log_logit_scale.clip(0.0, math.log(max_logit_scale)))


def decays(name: str, parameter: paddle.Tensor) -> bool:
    """Whether weight decay applies to a parameter: to matrices, kernels and word embeddings; not to norms, biases and
    the temperature (all of one dimension), nor to class tokens and embeddings of position."""
    tokens_and_positions = ("cls_token", "dist_token", "pos_embed", "position_embedding", "position_bias")
    return parameter.ndim > 1 and not any(part in name for part in tokens_and_positions)


def layer_groups(model: DualEncoder) -> dict[str, dict[str, list[str]]]:
    """For each tower the names of its parameters by layer group, first to last.

    The groups are `image.embeddings`, what comes before the first block; `image.blocks.0` and so on, each with what
    lies between it and the next; and `image.head`, the rest and the projection; likewise `text.embeddings`, ... A group
    may be empty. A tower that lists no `blocks` is all head. The scalars of the loss are in no group.
    """
    groups = {}
    for tower in VIEWS_OF:
        layer, projection = getattr(model, tower), f"{tower}_projection"
        blocks = list(layer.blocks) if hasattr(layer, "blocks") else []
        names = {id(parameter): name for name, parameter in layer.named_parameters()}
        block_of = {names[id(one)]: number for number, block in enumerate(blocks) for one in block.parameters()}
        group = -1 if blocks else 0
        found: list[list[str]] = [[] for _ in range(len(blocks) + 2)]
        last = max((position for position, name in enumerate(names.values()) if name in block_of), default=-1)
        for position, name in enumerate(names.values()):
            group = block_of.get(name, group) if position <= last else len(blocks)
            found[group + 1].append(f"{tower}.{name}")
        found[-1] += [f"{projection}.{name}" for name, _ in getattr(model, projection).named_parameters()]
        keys = ["embeddings", *(f"blocks.{number}" for number in range(len(blocks))), "head"]
        groups[tower] = {f"{tower}.{key}": names for key, names in zip(keys, found, strict=True)}
    return groups


def rate_factors(model: DualEncoder, tuning: TuningConfig) -> dict[str, float]:
    """The factor of each parameter's learning rate: its tower's, times `layer_decay` for each group behind its own."""
    rates = {"image": tuning.image_rate, "text": tuning.text_rate}
    return {
        name: rates[tower] * tuning.layer_decay ** (len(groups) - 1 - group)
        for tower, groups in layer_groups(model).items()
        for group, names in enumerate(groups.values())
        for name in names
    }


def chosen_parameters(model: DualEncoder, patterns: Sequence[str]) -> set[str]:
    """The parameters that patterns name: each is the name of a layer group or of a parameter, or a glob of either.

    A group without parameters adds none: `image.embeddings` may be named whatever the tower. ValueError, which lists
    the groups, if a pattern names nothing.
    """
    groups: dict[str, list[str]] = {}
    for tower in layer_groups(model).values():
        groups |= tower
    every = [name for name, _ in model.named_parameters()]
    chosen = set()
    for pattern in patterns:
        named = [key for key in groups if fnmatchcase(key, pattern)]
        own = {name for key in named for name in groups[key]} | {name for name in every if fnmatchcase(name, pattern)}
        if not named and not own:
            known = [key for key, names in groups.items() if names]
            raise ValueError(
                f"{pattern} names no layer group and no parameter of this model; its groups are {listed(known, 12)}"
            )
        chosen |= own
    return chosen


def _projection(width: int, embed_dim: int, always: bool) -> nn.Layer:
    return nn.Identity() if width == embed_dim and not always else nn.Linear(width, embed_dim, bias_attr=False)


def _normalized(features: paddle.Tensor, width: int | None = None) -> paddle.Tensor:
    features = features if width is None else features[:, :width]
    with paddle.amp.auto_cast(enable=False):
        exact = features if features.dtype == paddle.float64 else features.astype("float32")
        return F.normalize(exact, axis=1)
