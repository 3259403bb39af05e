"""Vision and text transformers, with LayerNorms before attention and MLP (ViT, CLIP, SigLIP) or after them (BERT).

Parameters have the names of PaddleClas's ViT and PaddleNLP's ERNIE and BERT, so weights fit either implementation.
Layers are made in the same order as theirs, so that one seed gives the same initial weights and dropout masks.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F

from ernie_vil2.device.cpu_kernels import add_to_rows, embed_patches
from ernie_vil2.device.token_packing import pack, skip_padding, unpack
from ernie_vil2.towers.base import ImageVariant, TextTowerConfig, TextVariant
from ernie_vil2.towers.layers.activations import ACTIVATIONS
from ernie_vil2.towers.layers.attention import MASKED, Attention, has_flash_attention
from ernie_vil2.towers.layers.blocks import (
    AttentionPool,
    PostNormBlock,
    PreNormBlock,
    repeat_for_batch,
)
from ernie_vil2.towers.layers.kept_tokens import draw_kept_tokens, gather_rope, gather_tokens
from ernie_vil2.towers.layers.rotary import compute_rope
from ernie_vil2.towers.layers.sinusoids import compute_sinusoids

PAD_ID = 0
# On GPUs, texts are padded to a multiple of 8 tokens. Batched products in 16 bits are fast only with rows of a multiple
# of 16 bytes. Paddle's fused attention in float32 takes only masks of such a width (`check_attn_mask_alignment` in
# nn/functional/sdpa.py, 3.3.1); for others it computes the plain formula, which stores the attention weights.
TOKEN_MULTIPLE = 8
# Poolings of both towers that use the first token alone.
FIRST_TOKEN_POOLINGS = ("class", "tanh", "cls", "first")


class Transformer(nn.Layer):
    """Base class of both transformer towers.

    Attributes:
        reduces_residual: whether mixed precision computes the residual stream in 16 bits, as it does products.
            LayerNorms must then be on its white list.
    """

    reduces_residual = False

    def cast_residual(self, tokens: paddle.Tensor) -> paddle.Tensor:
        """Return tokens with their positions in the type of the residual stream, which all later sums keep."""
        if self.reduces_residual and paddle.amp.is_autocast_enabled():
            return tokens.astype(paddle.amp.get_autocast_dtype())
        return tokens

    def fuse_attention(self, fused: bool = True) -> None:
        """Compute attention by Paddle's fused kernel; with `fused=False` no longer.

        The kernel draws its own dropout masks. Without dropout the features are equal up to rounding.
        """
        for layer in self.sublayers():
            if isinstance(layer, Attention):
                layer.fused = fused

    def initialise(
        self, width: int, initializer: Callable[..., nn.initializer.Initializer], embedding_std: float = 0.02
    ) -> None:
        """Draw the weights of linear layers and embeddings again, after Paddle has drawn its own.

        Args:
            width: width of the tower.
            initializer: class of the distribution.
            embedding_std: standard deviation of embeddings.
        """
        # The libraries' standard deviation of 0.02 belongs to width 768. It is scaled so that a signal keeps its size
        # through a layer of any width; the layers of a narrow tower would hardly pass it on otherwise.
        linear_std = 0.02 * (768 / width) ** 0.5
        for layer in self.sublayers():
            if isinstance(layer, nn.Linear):
                initializer(std=linear_std)(layer.weight)
            elif isinstance(layer, nn.Embedding):
                initializer(std=embedding_std)(layer.weight)


class VisionTransformer(Transformer):
    """Vision transformer: `[B, 3, S, S]` images to `[B, width]` features.

    An image is cut into as many whole patches as fit; pixels to the right of and below the last patches are not used.
    SigLIP So400m/14, for example, cuts images of 384 pixels into 27 x 27 patches and ignores the last 6 rows and
    columns of pixels.

    The default is the ViT of the released models: CLIP's, with the epsilon of ViT and without a projection.

    Args:
        image_size: side of the images in pixels, S.
        patch_size: side of a patch in pixels.
        width: width of the tokens and features.
        depth: number of blocks.
        heads: number of attention heads.
        drop_path: stochastic depth of the last block; it grows linearly from 0 at the first.
        keep_tokens: share of the patches that go through the blocks in training, see `draw_kept_tokens`; 1: all.
        variant: how other families differ from the ViT of the released models; None: not at all.

    Attributes:
        blocks: blocks, first to last.
        keep_tokens: as the argument; it may change between two steps.
        rope: cosines and sines of rotary positions, see `compute_rope`; None: there are no such positions.
    """

    rope: paddle.Tensor | None

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        width: int,
        depth: int,
        heads: int,
        drop_path: float = 0.0,
        keep_tokens: float = 1.0,
        variant: ImageVariant | None = None,
    ):
        super().__init__()
        variant = variant or ImageVariant()
        self.image_size, self.patch_size, self.keep_tokens = image_size, patch_size, keep_tokens
        self.width, self.pooling = variant.head or width, variant.pooling
        self.norm_after_mean = variant.pooling == "mean" and variant.norm_after_mean
        epsilon = variant.epsilon

        bias_attr = None if variant.patch_bias else False
        if variant.patches == "linear":
            embed: nn.Linear | nn.Conv2D = nn.Linear(3 * patch_size**2, width, bias_attr=bias_attr)
        else:
            embed = nn.Conv2D(3, width, patch_size, stride=patch_size, bias_attr=bias_attr)
        self.patch_embed = nn.LayerDict({"proj": embed})

        zero = nn.initializer.Constant(0.0)
        self.cls_token = None
        num_tokens = (image_size // patch_size) ** 2
        if variant.class_token:
            self.cls_token = self.create_parameter([1, 1, width], default_initializer=zero)
            num_tokens += 1
        self.pos_embed = self.create_parameter([1, num_tokens, width], default_initializer=zero)
        # PaddleClas draws a projection here, which this tower lacks; later draws must be the same as there.
        paddle.randn([width, 512])

        self.ln_pre = nn.LayerNorm(width, epsilon) if variant.input_norm else nn.Identity()
        hidden = variant.hidden or 4 * width
        options: dict[str, Any] = {"mlp": variant.mlp, "key_bias": variant.key_bias}
        options["attention_norm"] = variant.attention_norm
        self.blocks = nn.LayerList()
        for rate in np.linspace(0, drop_path, depth):
            self.blocks.append(
                PreNormBlock(width, heads, hidden, variant.activation, epsilon, drop_path=rate, **options)
            )
        self.norm = nn.LayerNorm(width, epsilon)
        self.attn_pool = None
        if variant.pooling == "attention":
            pooling_heads, pooling_hidden = variant.pooling_heads or heads, variant.pooling_hidden or hidden
            self.attn_pool = AttentionPool(width, pooling_heads, pooling_hidden, variant.activation, epsilon)
        self.pooler = nn.Linear(width, width) if variant.pooling == "tanh" else None
        self.head = nn.Linear(width, variant.head) if variant.head else nn.Identity()

        # The angles follow from the settings: they are exported with the weights, but no file of weights holds them.
        if variant.rotary is None:
            self.rope = None
        else:
            rope = compute_rope(image_size // patch_size, width // heads, variant.rotary, variant.class_token)
            self.register_buffer("rope", paddle.to_tensor(rope), persistable=False)

        for parameter in (self.pos_embed, self.cls_token):
            if parameter is not None:
                nn.initializer.TruncatedNormal(std=0.02)(parameter)
        self.initialise(width, nn.initializer.TruncatedNormal)

    # Paddle would first rewrite the Python code for graphs. No control flow here depends on a tensor, so plain tracing
    # of the original code suffices.
    @paddle.jit.not_to_static
    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        check_size(images.shape[2], images.shape[3], self.image_size)
        tokens = self.embed(cut_to_patches(images, self.image_size, self.patch_size))
        if self.cls_token is not None:
            tokens = paddle.concat([repeat_for_batch(self.cls_token, tokens), tokens], axis=1)
        return self.encode(add_to_rows(tokens, self.pos_embed))

    def embed(self, images: paddle.Tensor) -> paddle.Tensor:
        """Embed images `[B, 3, H, W]` of whole patches: P patches row by row, `[B, P, width]`."""
        embed, size = self.patch_embed["proj"], self.patch_size
        if isinstance(embed, nn.Conv2D):
            return embed_patches(images, embed)
        rows, columns = self.grid(images)
        patches = images.reshape([-1, 3, rows, size, columns, size]).transpose([0, 2, 4, 3, 5, 1])
        return embed(patches.reshape([-1, rows * columns, 3 * size**2]))

    def grid(self, images: paddle.Tensor) -> list[Any]:
        """Return rows and columns of patches: numbers, or tensors in a traced graph, which knows no sizes."""
        sizes = images.shape[2:]
        if min(sizes) < 0:
            sizes = paddle.shape(images)[2:].unbind(0)
        return [size // self.patch_size for size in sizes]

    def encode(self, tokens: paddle.Tensor, mask: paddle.Tensor | None = None) -> paddle.Tensor:
        """Encode tokens with their positions to features.

        Args:
            tokens: `[B, T, width]`.
            mask: `MASKED` for padding and 0 for patches, `[B, 1, 1, T]`; None: there is no padding, as in training.
        """
        tokens = self.cast_residual(tokens)
        rope = self.rope
        if self.training and self.keep_tokens < 1:
            positions = draw_kept_tokens(tokens, self.keep_tokens, num_fixed=0 if self.cls_token is None else 1)
            tokens = gather_tokens(tokens, positions)
            if rope is not None:
                rope = gather_rope(rope, positions)
        tokens = self.ln_pre(tokens)
        *blocks, last_block = self.blocks
        for block in blocks:
            tokens = block(tokens, mask, rope)
        # Where the first token is pooled, nothing else of the last block's result is used.
        tokens = last_block(tokens, mask, rope, only_first=self.pooling in FIRST_TOKEN_POOLINGS)
        return self.head(self.pool(tokens, mask))

    def pool(self, tokens: paddle.Tensor, mask: paddle.Tensor | None) -> paddle.Tensor:
        """Return the features of the last block's tokens, `[B, width of the tokens]`; arguments as for `encode`."""
        if self.pooling == "class":
            return self.norm(tokens[:, 0])
        if self.pooler is not None:
            return F.tanh(self.pooler(self.norm(tokens[:, 0])))
        if self.attn_pool is not None:
            return self.attn_pool(self.norm(tokens), mask)
        patches = tokens if self.cls_token is None else tokens[:, 1:]
        if self.norm_after_mean:
            return self.norm(patches.mean(axis=1))
        return self.norm(patches).mean(axis=1)


class NaFlexTransformer(VisionTransformer):
    """Vision transformer for images of any shape: `[B, 3, H, W]` of whole patches to `[B, width]` features.

    The position embedding is resized to each shape, as in SigLIP 2 NaFlex (Tschannen et al. 2025, arXiv 2502.14786) and
    FG-CLIP 2. `image_size` is the side of the square whose patches have the learned positions. There is no class token.

    All images of a batch have the same shape. The authors' code mixes shapes: it pads all images to the same number of
    patches. It masks the padding everywhere, so its features are the same as those computed here without padding.
    """

    @paddle.jit.not_to_static
    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        check_patches(images.shape[2], images.shape[3], self.patch_size)
        return self.encode(add_to_rows(self.embed(images), self.positions(*self.grid(images))))

    def positions(self, rows: int | paddle.Tensor, columns: int | paddle.Tensor) -> paddle.Tensor:
        """Return the position embedding for a grid of patches, `[1, rows * columns, width]`.

        Args:
            rows: rows of patches; a tensor in a traced graph.
            columns: columns of patches; a tensor in a traced graph.
        """
        side, width = self.image_size // self.patch_size, self.pos_embed.shape[-1]
        # Resize the vertical axis: [rows, side] @ [side, side * width].
        grid = self.pos_embed.reshape([side, side * width])
        grid = paddle.matmul(_resize_weights(rows, side, grid), grid).reshape([rows, side, width])
        # Resize the horizontal axis, in each of the rows: [columns, side] @ [rows, side, width].
        return paddle.matmul(_resize_weights(columns, side, grid), grid).reshape([1, -1, width])


class TextTransformer(Transformer):
    """Text transformer with learned positions: `[B, L]` token ids to `[B, width]` features.

    Where padding is masked, as in ERNIE, BERT and the released models, features do not depend on the length to which
    the texts of a batch are padded.

    Args:
        config: sizes, dropout and pooling. The pooling is the first token through a linear layer and tanh (cls), the
            mean over all tokens but padding (mean), or the state of one token: the first (first), the first one with
            the id `variant.end` (end), the one with the largest id (largest_id), or the last position (last).
        vocab_size: number of tokens.
        variant: how the family differs from CLIP.
        epsilon: epsilon of the LayerNorms.

    Attributes:
        width: width of the features.
        blocks: blocks, first to last.
        sinusoids: position embedding `[rows, width of the states]`; None: it is learned.
    """

    sinusoids: paddle.Tensor | None

    def __init__(self, config: TextTowerConfig, vocab_size: int, variant: TextVariant, epsilon: float):
        super().__init__()
        width, depth = config.sizes["width"], config.sizes["depth"]
        self.width, self.first_position = variant.head or width, variant.first_position
        self.max_tokens = config.max_positions - variant.first_position
        self.mask, self.padding, self.pooling, self.end = variant.mask, variant.padding, config.pooling, variant.end
        is_post_norm = variant.norm == "after"

        embeddings: dict[str, nn.Layer] = {"word_embeddings": nn.Embedding(vocab_size, width)}
        if variant.positions == "learned":
            embeddings["position_embeddings"] = nn.Embedding(config.max_positions, width)
            self.sinusoids = None
        else:
            sinusoids = paddle.to_tensor(compute_sinusoids(config.max_positions, width))
            self.register_buffer("sinusoids", sinusoids, persistable=False)
        self.word_scale = math.sqrt(width) if variant.scaled_words else None
        if variant.token_types:
            embeddings["token_type_embeddings"] = nn.Embedding(variant.token_types, width)
        if is_post_norm:
            embeddings["layer_norm"] = nn.LayerNorm(width, epsilon)

        block_class = PostNormBlock if is_post_norm else PreNormBlock
        block_sizes = width, config.sizes["heads"], variant.hidden or 4 * width, variant.activation, epsilon
        dropout: dict[str, Any] = {"dropout": config.dropout, "attention_dropout": config.attention_dropout}
        blocks = [block_class(*block_sizes, **dropout) for _ in range(depth)]

        # Nested as in PaddleNLP's encoders, since the names of parameters follow from it.
        layers: dict[str, nn.Layer] = {"embeddings": nn.LayerDict(embeddings)}
        layers["encoder"] = nn.LayerDict({"layers": nn.LayerList(blocks)})
        if not is_post_norm:
            layers["norm"] = nn.LayerNorm(width, epsilon)
        layers["pooler"] = nn.LayerDict({"dense": nn.Linear(width, width)})
        self.network: Any = nn.LayerDict(layers)
        self.dropout = nn.Dropout(config.dropout)
        self.head_norm = nn.LayerNorm(width, epsilon) if variant.head_norm else None
        self.head: nn.Linear | None = None
        if variant.head:
            self.head = nn.Linear(width, variant.head, bias_attr=None if variant.head_bias else False)
        self.head_activation = ACTIVATIONS[variant.head_activation] if variant.head_activation else None

        # A LayerNorm follows the sum of the embeddings, so only their direction matters. A step of Adam has a fixed
        # length, so it rotates small embeddings further than large ones: a small tower that starts with smaller
        # embeddings learns its words in fewer steps.
        self.initialise(width, nn.initializer.Normal, 0.02 if width >= 768 else 0.005)
        if config.pooling != "cls":
            # It was created nevertheless: PaddleNLP draws weights for it, and later draws must be the same as there.
            del self.network["pooler"]

    @property
    def blocks(self) -> list[nn.Layer]:
        return list(self.network["encoder"]["layers"])

    @paddle.jit.not_to_static
    def forward(self, ids: paddle.Tensor) -> paddle.Tensor:
        check_length(ids.shape[1], self.max_tokens)
        # Under either mask no token attends to padding on the right; only pooling of the last position would see it.
        if self.mask != "none" and self.pooling != "last":
            ids = align_length(ids, self.padding)
        # Where padding is masked and not pooled, nothing depends on it, and it may be skipped.
        needs_padding = self.mask != "padding" or self.pooling == "last"
        only_first = self.pooling in FIRST_TOKEN_POOLINGS and self.mask != "causal"
        *blocks, last_block = self.blocks
        with nullcontext() if needs_padding else skip_padding(ids, self.padding, self._attends_by_text(ids)):
            states, mask = self._embed(ids), self._build_mask(ids)
            for block in blocks:
                states = block(states, mask)
            if not only_first:
                states = last_block(states, mask)
            states = unpack(states)  # [B, L, width of the states]
        if only_first:
            # Nothing else of the last block's result is used. It takes keys and values of all tokens with padding,
            # which only two of its products multiply.
            states = last_block(states, mask, only_first=True)
        if "norm" in self.network:
            states = self.network["norm"](states)
        features = self._pool(states, ids)
        if self.head_norm is not None:
            features = self.head_norm(features)
        if self.head is not None:
            features = self.head(features)
        return features if self.head_activation is None else self.head_activation(features)

    def _attends_by_text(self, ids: paddle.Tensor) -> bool:
        """Return whether flash attention computes texts without their padding: in 16 bits on a GPU, not in training."""
        # In training the host would wait for the number of tokens in every micro batch, while the device has no work.
        if self.training or not paddle.in_dynamic_mode() or not paddle.amp.is_autocast_enabled():
            return False
        attention = next(layer for layer in self.sublayers() if isinstance(layer, Attention))
        head_width = self.network["embeddings"]["word_embeddings"].weight.shape[1] // attention.heads
        return attention.fused is not False and has_flash_attention(ids, head_width)

    def _embed(self, ids: paddle.Tensor) -> paddle.Tensor:
        """Return the states before the first block, `[B, L, width of the states]`, or those of the packed tokens."""
        embeddings = self.network["embeddings"]
        states = embeddings["word_embeddings"](pack(ids))
        if self.word_scale is not None:
            states = self.word_scale * states
        positions = _positions(ids)
        if paddle.in_dynamic_mode() and ids.shape[1] > self.max_tokens:
            # Only padding that `align_length` has added lies beyond the last position. It gets the last one: nothing
            # depends on it.
            positions = positions.clip(max=self.max_tokens - 1)
        if self.first_position:
            # RoBERTa does not use the first rows of its position embedding, and counts real tokens only: a text may
            # spell out a padding token, which then takes no position.
            is_token = (ids != self.padding).astype(ids.dtype)
            positions = paddle.cumsum(is_token, axis=1) - 1 + self.first_position
        positions = pack(positions)
        if self.sinusoids is None:
            states = states + embeddings["position_embeddings"](positions)
        else:
            states = states + F.embedding(positions, self.sinusoids)
        if "token_type_embeddings" in embeddings:
            states = add_to_rows(states, embeddings["token_type_embeddings"].weight[0])
        states = self.cast_residual(states)
        if "layer_norm" in embeddings:
            states = embeddings["layer_norm"](states)
        return self.dropout(states)

    def _build_mask(self, ids: paddle.Tensor) -> paddle.Tensor | None:
        """Return what is added to the scores of attention, `[B or 1, 1, L or 1, L]`."""
        if self.mask == "padding":
            return ((ids == self.padding).astype("float32") * MASKED).unsqueeze([1, 2])
        if self.mask == "causal":
            positions = _positions(ids[:1])
            return ((positions > positions.transpose([1, 0])).astype("float32") * MASKED).unsqueeze([0, 1])
        return None

    def _pool(self, states: paddle.Tensor, ids: paddle.Tensor) -> paddle.Tensor:
        if self.pooling == "cls":
            return F.tanh(self.network["pooler"]["dense"](states[:, 0]))
        if self.pooling == "first":
            return states[:, 0]
        if self.pooling == "last":
            return states[:, -1]

        # Weights of the states, [B, L]: the same for all tokens, or 1 for one of them.
        if self.pooling == "mean":
            is_token = (ids != self.padding).astype(states.dtype)
            weights = is_token / is_token.sum(axis=1, keepdim=True)
        else:
            if self.pooling == "largest_id":
                scores = ids
            else:
                # "end": the configuration makes sure that there is an end token, so `or 0` is for the type checker
                # alone.
                scores = (ids == (self.end or 0)).astype("int32")
            # argmax finds the first of several maxima.
            weights = (_positions(ids) == scores.argmax(axis=1, keepdim=True)).astype(states.dtype)
        return weights.unsqueeze(1).matmul(states).squeeze(1)


def align_length(ids: paddle.Tensor, padding: int) -> paddle.Tensor:
    """Pad texts `[B, L]` on a GPU to a multiple of `TOKEN_MULTIPLE` tokens; return them as they are elsewhere."""
    if not paddle.in_dynamic_mode() or not ids.place.is_gpu_place():
        return ids
    return pad_to_multiple(ids, padding)


def pad_to_multiple(ids: paddle.Tensor, padding: int) -> paddle.Tensor:
    """Pad texts `[B, L]` on the right to the next multiple of `TOKEN_MULTIPLE` tokens."""
    num_missing = -ids.shape[1] % TOKEN_MULTIPLE
    if not num_missing:
        return ids
    return F.pad(ids, [0, num_missing], value=padding)


def _positions(ids: paddle.Tensor) -> paddle.Tensor:
    """Return the position of each token in its text, from 0, `[B, L]`."""
    # Not by `arange`: a traced graph does not know L.
    return paddle.cumsum(paddle.ones_like(ids), axis=1) - 1


# If the check were traced, the graph would contain its error and take only the batch size of the example.
@paddle.jit.not_to_static
def check_size(height: int, width: int, side: int) -> None:
    """Raise ValueError unless images are squares of this side."""
    if (height, width) != (side, side):
        raise ValueError(f"images of {height} x {width} pixels; this tower takes {side} x {side}")


def cut_to_patches(images: paddle.Tensor, side: int, patch_size: int) -> paddle.Tensor:
    """Cut square images to the region that whole patches cover, from the upper left corner."""
    covered_side = side // patch_size * patch_size
    if covered_side == side:
        return images
    return images[:, :, :covered_side, :covered_side]


@paddle.jit.not_to_static  # a traced graph has no length yet
def check_length(length: int, longest: int) -> None:
    """Raise ValueError if texts have more tokens than the tower has positions."""
    if paddle.in_dynamic_mode() and length > longest:
        raise ValueError(f"texts of {length} tokens, but Model.text.max_positions has room for {longest}")


@paddle.jit.not_to_static
def check_patches(height: int, width: int, patch_size: int) -> None:
    """Raise ValueError if images are not of whole patches."""
    # A traced graph has -1 for unknown sizes.
    if paddle.in_dynamic_mode() and (height % patch_size or width % patch_size):
        raise ValueError(f"images of {height} x {width} pixels; this tower takes multiples of {patch_size}")


def _resize_weights(size: int | paddle.Tensor, side: int, like: paddle.Tensor) -> paddle.Tensor:
    """Return `resize_weights` as a tensor like another one; in a traced graph `size` is a tensor."""
    if isinstance(size, int):
        return paddle.to_tensor(resize_weights(size, side), dtype=like.dtype, place=like.place)
    # The formula of `resize_weights` in operations that a graph can contain.
    scale = side / size.astype(like.dtype)
    centres = scale * (paddle.cumsum(paddle.ones([size], like.dtype)) - 0.5)
    cells = paddle.to_tensor(np.arange(side) + 0.5, dtype=like.dtype)
    weights = F.relu(1 - paddle.abs((cells - centres.unsqueeze(1)) / paddle.clip(scale, min=1.0)))
    return weights / weights.sum(axis=1, keepdim=True)


@lru_cache(maxsize=256)  # images come in few shapes
def resize_weights(size: int, side: int) -> np.ndarray:
    """Return the matrix `[size, side]` that resizes a row of `side` values to `size` values.

    Resizing is bilinear, with antialiasing if values become fewer, as in Pillow and PyTorch's `interpolate`.
    """
    scale = side / size
    reach = max(scale, 1.0)  # half the width of the triangle filter
    matrix = np.zeros([size, side])
    for row in range(size):
        centre = scale * (row + 0.5)
        first, last = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), side)
        weights = np.maximum(0, 1 - np.abs((np.arange(first, last) - centre + 0.5) / reach))
        matrix[row, first:last] = weights / weights.sum()
    return matrix
