"""The dual encoder: two towers, one joint space, and the temperature and bias that the loss learns.

Freezing and layer-wise learning rates go by the layer groups of a tower, from its input to the joint space.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from fnmatch import fnmatchcase

import paddle
from paddle import nn
from paddle.nn import functional as F

from ernie_vil2.config import ModelConfig, TuningConfig
from ernie_vil2.config.sections import TOWER_VIEWS, with_native_towers
from ernie_vil2.device.cpu_kernels import speed_up
from ernie_vil2.device.mixed_precision import keep_maps_narrow
from ernie_vil2.io.terminal import join_names


def build_dual_encoder(
    config: ModelConfig, vocab_size: int, temperature: float = 0.07, bias: float | None = None
) -> DualEncoder:
    """Build the randomly initialised dual encoder that `config` describes.

    Args:
        config: towers and joint space.
        vocab_size: rows of the word embedding.
        temperature: see `DualEncoder`.
        bias: see `DualEncoder`.
    """
    image, text = config.image.build(), config.text.build(vocab_size)
    embed_dim = config.embed_dim or text.width
    model = DualEncoder(image, text, embed_dim, temperature, bias, list_projected_towers(config))
    keep_maps_narrow(model)
    # Last, because it replaces the classes of layers that exist; parameters and their names stay.
    speed_up(model)
    return model


def list_projected_towers(config: ModelConfig) -> list[str]:
    """Return the towers, "image" and "text", that are followed by a projection whatever their width."""
    return [tower for tower in TOWER_VIEWS if config.projections in ("both", tower)]


def with_sizes(config: ModelConfig) -> ModelConfig:
    """Return the same towers with the sizes spelt out that a name such as ViT-B/16 stands for."""
    config = with_native_towers(config)
    return config.model_copy(update={"image": config.image.with_sizes(), "text": config.text.with_sizes()})


def count_min_parameters(config: ModelConfig, vocab_size: int) -> int:
    """Return a lower bound of the number of parameters of a model, without building it.

    Backbones of PaddleClas and user-defined towers count as zero.
    """
    text_width = config.text.sizes.get("width")
    projection = 0
    if text_width and config.embed_dim not in (None, text_width):
        projection = text_width * config.embed_dim
    return config.image.fewest_parameters() + config.text.fewest_parameters(vocab_size) + projection


class DualEncoder(nn.Layer):
    """Model that encodes images and texts into one space of width D (paper, section 3).

    Args:
        image: tower from `[B, 3, H, W]` to `[B, image.width]`.
        text: tower from `[B, L]` ids to `[B, text.width]`.
        embed_dim: D. A tower of another width is followed by a linear projection, a tower of this width by none.
        temperature: initial tau of equation 1. Its inverse `logit_scale` is learned as its log.
        bias: initial bias of the logits, for the sigmoid loss; None: the model has no bias.
        projected_towers: "image", "text": towers that are followed by a projection even if their width is D.
    """

    def __init__(
        self,
        image: nn.Layer,
        text: nn.Layer,
        embed_dim: int,
        temperature: float = 0.07,
        bias: float | None = None,
        projected_towers: Collection[str] = (),
    ):
        super().__init__()
        self.image, self.text, self.embed_dim = image, text, embed_dim
        self.image_projection = _build_projection(image.width, embed_dim, "image" in projected_towers)
        self.text_projection = _build_projection(text.width, embed_dim, "text" in projected_towers)
        # The log is learned, as in CLIP: the scale stays positive, and steps change it by a factor.
        self.log_logit_scale = self.create_parameter(
            [1], default_initializer=nn.initializer.Constant(-math.log(temperature))
        )
        self.logit_bias = None
        if bias is not None:
            self.logit_bias = self.create_parameter([1], default_initializer=nn.initializer.Constant(bias))

    @property
    def logit_scale(self) -> paddle.Tensor:
        """Factor from cosine similarity to score, `[1]`: 1 / tau of equation 1."""
        return self.log_logit_scale.exp()

    @property
    def scalars(self) -> dict[str, paddle.Tensor]:
        """Learned scalars of the loss, `[1]` each: `logit_scale` and, if the model has a bias, `logit_bias`."""
        scalars = {"logit_scale": self.logit_scale}
        if self.logit_bias is not None:
            # A copy: the cached step first takes the gradient of the loss in the scalars, then backpropagates it. For
            # the parameter itself, the gradient would be added up twice.
            scalars["logit_bias"] = self.logit_bias.clone()
        return scalars

    def encode_image(self, images: paddle.Tensor, width: int | None = None) -> paddle.Tensor:
        """Encode images.

        Args:
            images: `[B, 3, H, W]` normalised pixels.
            width: number of leading coordinates to keep; they are normalised on their own. None: all D.

        Returns:
            `[B, D]` or `[B, width]` float32 embeddings, L2-normalised.
        """
        return _normalize(self.image_projection(self.image(images)), width)

    def encode_text(self, ids: paddle.Tensor, width: int | None = None) -> paddle.Tensor:
        """Encode texts.

        Args:
            ids: `[B, L]` int64 token ids, padded with 0.
            width: as for `encode_image`.

        Returns:
            `[B, D]` or `[B, width]` float32 embeddings, L2-normalised.
        """
        return _normalize(self.text_projection(self.text(ids)), width)

    def forward(
        self,
        views: dict[str, paddle.Tensor],
        normalize: Callable[[paddle.Tensor], paddle.Tensor] | None = None,
    ) -> tuple[dict[str, paddle.Tensor], dict[str, paddle.Tensor]]:
        """Encode any of the views `image_1`, `image_2` (images) and `text_1`, `text_2` (ids of equal length).

        The views of one kind go through their tower in one batch; equal texts still get different dropout masks.

        Args:
            views: images and ids by view.
            normalize: function that normalises the pixels of all images; None: they are normalised already.

        Returns:
            `[B, D]` embeddings by view, and `scalars`. Data parallel wraps `forward` alone, so that the gradients of
            the scalars are averaged over ranks only if they are returned here.
        """
        embeddings: dict[str, paddle.Tensor] = {}
        for kind, encode in (("image", self.encode_image), ("text", self.encode_text)):
            names = [name for name in TOWER_VIEWS[kind] if name in views]
            if not names:
                continue
            batch = paddle.concat([views[name] for name in names])
            if normalize and kind == "image":
                batch = normalize(batch)
            chunks = encode(batch).chunk(len(names))
            embeddings.update(zip(names, chunks, strict=True))
        return embeddings, self.scalars

    def freeze_unused_towers(self, views: Collection[str]) -> None:
        """Take a tower that encodes none of `views` out of training, so that no rank waits for its gradients."""
        for kind, layers in (
            ("image", (self.image, self.image_projection)),
            ("text", (self.text, self.text_projection)),
        ):
            if any(view.startswith(kind) for view in views):
                continue
            for layer in layers:
                for parameter in layer.parameters():
                    parameter.stop_gradient = True

    @paddle.no_grad()
    def clamp_temperature(self, max_logit_scale: float) -> None:
        """Clip `logit_scale` to [1, max_logit_scale], in place; call it after every optimiser step."""
        self.log_logit_scale.set_value(self.log_logit_scale.clip(0.0, math.log(max_logit_scale)))


def has_weight_decay(name: str, parameter: paddle.Tensor) -> bool:
    """Return whether weight decay applies to a parameter.

    It applies to matrices, kernels and word embeddings. It applies neither to norms, biases and the temperature, which
    have one dimension, nor to class tokens and position embeddings.
    """
    # Decay would pull these learned vectors towards zero, although they have the form of matrices.
    tokens_and_positions = ("cls_token", "dist_token", "pos_embed", "position_embedding", "position_bias")
    return parameter.ndim > 1 and not any(word in name for word in tokens_and_positions)


def find_layer_groups(model: DualEncoder) -> dict[str, dict[str, list[str]]]:
    """Return the parameters of each tower by layer group, from the first group to the last.

    The groups are `image.embeddings`, all that comes before the first block; `image.blocks.0` and so on, each with the
    parameters between it and the next block; and `image.head`, the rest of the tower and its projection; likewise for
    `text`. A group may be empty. A tower without an attribute `blocks` is all head. The scalars of the loss are in no
    group.

    Returns:
        Names of parameters by tower ("image", "text") and group.
    """
    groups = {}
    for tower in TOWER_VIEWS:
        layer, projection = getattr(model, tower), f"{tower}_projection"
        blocks = list(layer.blocks) if hasattr(layer, "blocks") else []
        # Blocks know their parameters by other names than the tower, so they are matched by identity.
        name_of = {id(parameter): name for name, parameter in layer.named_parameters()}
        names = list(name_of.values())

        block_of = {}
        for number, block in enumerate(blocks):
            for parameter in block.parameters():
                block_of[name_of[id(parameter)]] = number
        last_in_block = max((position for position, name in enumerate(names) if name in block_of), default=-1)

        # Bucket 0 holds the embeddings, bucket 1 + number a block, the last one the head. A parameter between two
        # blocks goes to the first of them; behind the last block it goes to the head.
        buckets: list[list[str]] = [[] for _ in range(len(blocks) + 2)]
        number = -1
        for position, name in enumerate(names):
            if position > last_in_block:
                number = len(blocks)
            else:
                number = block_of.get(name, number)
            buckets[number + 1].append(f"{tower}.{name}")
        for name, _ in getattr(model, projection).named_parameters():
            buckets[-1].append(f"{projection}.{name}")

        keys = ["embeddings", *(f"blocks.{number}" for number in range(len(blocks))), "head"]
        groups[tower] = {f"{tower}.{key}": bucket for key, bucket in zip(keys, buckets, strict=True)}
    return groups


def compute_rate_factors(model: DualEncoder, tuning: TuningConfig) -> dict[str, float]:
    """Return the factor of each parameter's learning rate.

    It is the rate of its tower, times `layer_decay` for each layer group between the parameter's and the output.
    """
    rates = {"image": tuning.image_rate, "text": tuning.text_rate}
    factors = {}
    for tower, groups in find_layer_groups(model).items():
        for position, names in enumerate(groups.values()):  # the last group, the head, is not decayed
            factor = rates[tower] * tuning.layer_decay ** (len(groups) - 1 - position)
            factors.update(dict.fromkeys(names, factor))
    return factors


def match_parameters(model: DualEncoder, patterns: Sequence[str]) -> set[str]:
    """Return the names of the parameters that glob patterns match.

    A pattern is compared with the names of layer groups and with those of parameters. It may match a group without
    parameters, so that `image.embeddings` works for every tower.

    Raises:
        ValueError: a pattern matches nothing; the message lists the groups.
    """
    groups: dict[str, list[str]] = {}
    for groups_of_tower in find_layer_groups(model).values():
        groups |= groups_of_tower
    parameters = [name for name, _ in model.named_parameters()]

    matches = set()
    for pattern in patterns:
        matching_groups = fnmatch_filter(groups, pattern)
        matching_parameters = fnmatch_filter(parameters, pattern)
        if not matching_groups and not matching_parameters:
            usable_groups = [group for group, names in groups.items() if names]
            raise ValueError(
                f"{pattern} matches no layer group and no parameter of this model; its groups are "
                f"{join_names(usable_groups, 12)}"
            )
        matches.update(matching_parameters)
        for group in matching_groups:
            matches.update(groups[group])
    return matches


def fnmatch_filter(names: Collection[str], pattern: str) -> list[str]:
    """Return the names that a glob pattern matches, in their order; case counts on all systems."""
    return [name for name in names if fnmatchcase(name, pattern)]


def _build_projection(width: int, embed_dim: int, is_required: bool) -> nn.Layer:
    if width == embed_dim and not is_required:
        return nn.Identity()
    return nn.Linear(width, embed_dim, bias_attr=False)


def _normalize(features: paddle.Tensor, width: int | None) -> paddle.Tensor:
    if width is not None:
        features = features[:, :width]
    # Half precision would round the norm, and with it every score, so this runs in float32 under AMP, too.
    with paddle.amp.auto_cast(enable=False):
        if features.dtype != paddle.float64:
            features = features.astype("float32")
        return F.normalize(features, axis=1)
