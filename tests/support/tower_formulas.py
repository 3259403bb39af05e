"""Transformers and a ResNet in NumPy and float64, as their formulas say: references for the towers."""

import math

import numpy as np

ERF = np.vectorize(math.erf)
ACTIVATIONS = {
    "quick_gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
    "gelu": lambda x: x * (1 + ERF(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
}


class Formulas:
    """Layers of a tower, called by the names of its parameters."""

    def __init__(self, weights, epsilon, activation):
        self.weights = {name: value.numpy().astype("float64") for name, value in weights.items()}
        self.epsilon, self.activation = epsilon, ACTIVATIONS[activation]

    def has(self, name):
        return any(weight.startswith(f"{name}.") or weight == name for weight in self.weights)

    def count_blocks(self, blocks):
        numbers = [int(name[len(blocks) + 1 :].split(".")[0]) for name in self.weights if name.startswith(blocks)]
        return 1 + max(numbers)

    def linear(self, x, name):
        return x @ self.weights[f"{name}.weight"] + self.weights.get(f"{name}.bias", 0)

    def norm(self, x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + self.epsilon)
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def attention(self, q, k, v, heads, mask=True):
        """Return attention of queries `[L, D]` to keys and values `[M, D]`; `mask` `[L, M]` is true where one sees."""
        q = q.reshape(len(q), heads, -1).transpose(1, 0, 2)  # [heads, L, D / heads]
        k = k.reshape(len(k), heads, -1).transpose(1, 0, 2)
        v = v.reshape(len(v), heads, -1).transpose(1, 0, 2)
        scores = np.where(mask, np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])), 0)
        return (scores / scores.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(q.shape[1], -1)

    def mlp(self, x, first, second):
        return self.linear(self.activation(self.linear(x, first)), second)

    def apply_pre_norm_block(self, x, block, heads, mask=True, places=None):
        """Compute a block with norms before attention and MLP (Dosovitskiy et al. 2021, equations 2 and 3).

        SwiGLU and the norm within attention are computed where their weights exist, rotary positions for `places`, see
        `rotate`.
        """
        attention, mlp = f"{block}.attn", f"{block}.mlp"
        inputs = self.norm(x, f"{block}.norm1")
        if self.has(f"{attention}.qkv"):
            q, k, v = np.split(self.linear(inputs, f"{attention}.qkv"), 3, axis=-1)
        else:
            q = self.linear(inputs, f"{attention}.q_proj")
            k = self.linear(inputs, f"{attention}.k_proj")
            v = self.linear(inputs, f"{attention}.v_proj")
        if places is not None:
            q, k = rotate(q, heads, places), rotate(k, heads, places)
        mixed = self.attention(q, k, v, heads, mask)
        if self.has(f"{attention}.norm"):
            mixed = self.norm(mixed, f"{attention}.norm")
        last_layer = "proj" if self.has(f"{attention}.proj") else "out_proj"
        x = x + self.linear(mixed, f"{attention}.{last_layer}")

        inputs = self.norm(x, f"{block}.norm2")
        if not self.has(f"{mlp}.gate"):
            return x + self.mlp(inputs, f"{mlp}.fc1", f"{mlp}.fc2")
        hidden = self.activation(self.linear(inputs, f"{mlp}.gate")) * self.linear(inputs, f"{mlp}.fc1")
        return x + self.linear(self.norm(hidden, f"{mlp}.norm"), f"{mlp}.fc2")

    def apply_post_norm_block(self, x, block, heads, mask=True):
        """Compute a block with a norm of each sum (Vaswani et al. 2017)."""
        q = self.linear(x, f"{block}.self_attn.q_proj")
        k = self.linear(x, f"{block}.self_attn.k_proj")
        v = self.linear(x, f"{block}.self_attn.v_proj")
        mixed = self.linear(self.attention(q, k, v, heads, mask), f"{block}.self_attn.out_proj")
        x = self.norm(x + mixed, f"{block}.norm1")
        return self.norm(x + self.mlp(x, f"{block}.linear1", f"{block}.linear2"), f"{block}.norm2")


def cut_patches(image, patch):
    """Return the square patches of an image `[C, H, W]`, row by row, each `[C, patch, patch]`."""
    patches = []
    for y in range(0, image.shape[1], patch):
        for x in range(0, image.shape[2], patch):
            patches.append(image[:, y : y + patch, x : x + patch])
    return patches


def rotate(x, heads, places):
    """Turn queries or keys `[L, D]` as Su et al. 2021, equation 34, by products of complex numbers.

    Args:
        places: for each token, the numbers by which the two halves of a head are rotated, `[L, 2]`.
    """
    pairs = x.reshape(len(x), heads, 2, -1, 2)
    count = pairs.shape[3]
    angles = places[:, None, :, None] * 10_000 ** (-np.arange(count) / count)  # [L, 1, 2, d / 4]
    turned = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angles)
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def compute_vit_features(
    weights,
    images,
    patch,
    heads,
    epsilon=1e-6,
    activation="quick_gelu",
    places=None,
    pooling_heads=None,
    norm_after_mean=False,
    visible_tokens=None,
):
    """Return the features of a ViT (Dosovitskiy et al. 2021, equations 1 to 4), `[N, D]`.

    CLIP's LayerNorm before the blocks, SigLIP's pooling, the pooler of transformers and a last linear layer are
    computed where their weights exist, rotary positions for `places`, see `rotate`.

    Args:
        norm_after_mean: whether the patches, without the class token, are averaged before the last norm.
        visible_tokens: positions of each image's tokens that go through the blocks; None: all tokens.
    """
    tower = Formulas(weights, epsilon, activation)
    kernel, features = tower.weights["patch_embed.proj.weight"], []
    for row, image in enumerate(images.astype("float64")):
        patches = cut_patches(image, patch)
        if kernel.ndim == 4:  # a convolution
            z = np.stack([np.einsum("chw,dchw->d", pixels, kernel) for pixels in patches])
        else:
            z = np.stack([pixels.transpose(1, 2, 0).ravel() @ kernel for pixels in patches])
        z = z + tower.weights.get("patch_embed.proj.bias", 0)
        if tower.has("cls_token"):
            z = np.concatenate([tower.weights["cls_token"][0], z])
        z = z + tower.weights["pos_embed"][0]
        visible = slice(None) if visible_tokens is None else visible_tokens[row]
        z = z[visible]
        if tower.has("ln_pre"):
            z = tower.norm(z, "ln_pre")

        places_of_row = None if places is None else places[visible]
        for number in range(tower.count_blocks("blocks")):
            z = tower.apply_pre_norm_block(z, f"blocks.{number}", heads, places=places_of_row)
        if norm_after_mean:
            z = z[int(tower.has("cls_token")) :].mean(axis=0, keepdims=True)
        z = tower.norm(z, "norm")

        if tower.has("attn_pool"):
            query = tower.linear(tower.weights["attn_pool.probe"][0], "attn_pool.q")
            keys, values = np.split(tower.linear(z, "attn_pool.kv"), 2, axis=-1)
            mixed = tower.attention(query, keys, values, pooling_heads or heads)
            z = tower.linear(mixed, "attn_pool.proj")
            z = z + tower.mlp(tower.norm(z, "attn_pool.norm"), "attn_pool.mlp.fc1", "attn_pool.mlp.fc2")
        elif not tower.has("cls_token"):
            z = z.mean(axis=0, keepdims=True)
        elif tower.has("pooler"):
            z = np.tanh(tower.linear(z, "pooler"))
        if tower.has("head"):
            z = tower.linear(z, "head")
        features.append(z[0])
    return np.stack(features)


def compute_text_features(
    weights,
    ids,
    heads,
    epsilon,
    pooled,
    activation="gelu",
    mask="padding",
    padding=0,
    first_position=0,
    head_activation=None,
    word_scale=1.0,
):
    """Return the features of a transformer over texts, `[N, D]`.

    Positions are sinusoids where there are no weights for them.

    Args:
        pooled: function of the formulas, the states `[L, D]` of a text and its ids that returns the text's features.
        mask: "padding" cuts a text where its padding begins, "causal" hides later tokens, "none" does neither.
    """
    tower = Formulas(weights, epsilon, activation)
    has_post_norm, features = tower.has("network.embeddings.layer_norm"), []
    embeddings = "network.embeddings."
    for row in ids:
        if mask == "padding":
            row = row[row != padding]
        x = word_scale * tower.weights[f"{embeddings}word_embeddings.weight"][row]
        places = first_position + np.arange(len(row))
        if tower.has(f"{embeddings}position_embeddings"):
            x = x + tower.weights[f"{embeddings}position_embeddings.weight"][places]
        else:
            half = x.shape[1] // 2
            angles = places[:, None] / 10_000 ** (np.arange(half) / (half - 1))
            x = x + np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
        x = x + tower.weights.get(f"{embeddings}token_type_embeddings.weight", np.zeros((1, 1)))[0]
        if has_post_norm:
            x = tower.norm(x, f"{embeddings}layer_norm")

        visible = np.tri(len(row), dtype=bool) if mask == "causal" else True
        apply_block = tower.apply_post_norm_block if has_post_norm else tower.apply_pre_norm_block
        for number in range(tower.count_blocks("network.encoder.layers")):
            x = apply_block(x, f"network.encoder.layers.{number}", heads, visible)
        if not has_post_norm:
            x = tower.norm(x, "network.norm")

        x = pooled(tower, x, row)
        if tower.has("head_norm"):
            x = tower.norm(x, "head_norm")
        if tower.has("head"):
            x = tower.linear(x, "head")
        features.append(ACTIVATIONS[head_activation](x) if head_activation else x)
    return np.stack(features)


def compute_convnext_features(weights, images, epsilon=1e-6):
    """Return the features of a ConvNeXt (Liu et al. 2022, section 2), `[N, D]`, and of a head with a GELU if it exists.

    Maps are `[H, W, C]`: a norm, a linear layer and a convolution of patches are then those of a row of numbers.
    """
    tower, features = Formulas(weights, epsilon, "gelu"), []

    def embed_patches(x, name):
        kernel = tower.weights[f"{name}.weight"]  # [D, C, size, size]
        size = kernel.shape[-1]
        rows, columns = x.shape[0] // size, x.shape[1] // size
        patches = x[: rows * size, : columns * size].reshape(rows, size, columns, size, -1)
        return np.einsum("ryxsc,dcys->rxd", patches, kernel) + tower.weights[f"{name}.bias"]

    def filter_channels(x, name):
        kernel = tower.weights[f"{name}.weight"][:, 0]  # [C, 7, 7]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((3, 3), (3, 3), (0, 0))), (7, 7), axis=(0, 1))
        return np.einsum("hwcyx,cyx->hwc", windows, kernel) + tower.weights[f"{name}.bias"]

    for image in images.astype("float64"):
        x = tower.norm(embed_patches(image.transpose(1, 2, 0), "patch_embed.proj"), "patch_embed.norm")
        for stage in (1, 2, 3, 4):
            if stage > 1:
                x = embed_patches(tower.norm(x, f"downsample{stage}.norm"), f"downsample{stage}.proj")
            for number in range(tower.count_blocks(f"layer{stage}")):
                block = f"layer{stage}.{number}"
                cells = tower.norm(filter_channels(x, f"{block}.conv_dw"), f"{block}.norm")
                x = x + tower.weights[f"{block}.gamma"] * tower.mlp(cells, f"{block}.mlp.fc1", f"{block}.mlp.fc2")
        z = tower.norm(x.mean(axis=(0, 1)), "norm")
        features.append(tower.activation(tower.linear(z, "head")) if tower.has("head") else z)
    return np.stack(features)


def compute_clip_resnet_features(weights, images, heads, of_the_batch=False, epsilon=1e-5):
    """Return the features of CLIP's ResNet (Radford et al. 2021, section 2.4), `[N, D]`.

    Bottlenecks (He et al. 2016) halve the sides of images by averages, and a mean of the cells attends to all of them.

    Args:
        of_the_batch: whether norms use the statistics of the batch instead of the running ones.
    """
    tower = Formulas(weights, epsilon, "gelu")

    def convolve(x, name, stride=1):
        kernel = tower.weights[f"{name}.weight"]
        margin = kernel.shape[-1] // 2
        x = np.pad(x, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], axis=(2, 3))
        return np.einsum("bchwij,dcij->bdhw", windows[:, :, ::stride, ::stride], kernel)

    def normalise(x, name):
        mean, variance = tower.weights[f"{name}._mean"], tower.weights[f"{name}._variance"]
        if of_the_batch:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
        scale = tower.weights[f"{name}.weight"] / np.sqrt(variance + epsilon)
        shift = tower.weights[f"{name}.bias"]
        return (x - mean[:, None, None]) * scale[:, None, None] + shift[:, None, None]

    def halve(x):
        return (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4

    # The stem: three convolutions.
    x = images.astype("float64")
    for number, stride in ((1, 2), (2, 1), (3, 1)):
        x = np.maximum(normalise(convolve(x, f"conv{number}", stride), f"bn{number}"), 0)
    x = halve(x)

    for stage in (1, 2, 3, 4):
        for number in range(tower.count_blocks(f"layer{stage}")):
            block = f"layer{stage}.{number}"
            should_halve = stage > 1 and number == 0
            y = np.maximum(normalise(convolve(x, f"{block}.conv1"), f"{block}.bn1"), 0)
            y = np.maximum(normalise(convolve(y, f"{block}.conv2"), f"{block}.bn2"), 0)
            if should_halve:
                x, y = halve(x), halve(y)
            y = normalise(convolve(y, f"{block}.conv3"), f"{block}.bn3")
            if tower.has(f"{block}.downsample"):
                x = normalise(convolve(x, f"{block}.downsample.0"), f"{block}.downsample.1")
            x = np.maximum(x + y, 0)

    features = []
    for cells in x.reshape(*x.shape[:2], -1).transpose(0, 2, 1):
        tokens = np.concatenate([cells.mean(0, keepdims=True), cells]) + tower.weights["attnpool.pos_embed"][0]
        q = tower.linear(tokens[:1], "attnpool.q_proj")
        k = tower.linear(tokens, "attnpool.k_proj")
        v = tower.linear(tokens, "attnpool.v_proj")
        features.append(tower.linear(tower.attention(q, k, v, heads)[0], "attnpool.c_proj"))
    return np.stack(features)
