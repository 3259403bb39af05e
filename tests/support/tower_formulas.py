"""Transformers and a ResNet in NumPy, written from the formulas, in float64: what the towers are compared with."""

import math

import numpy as np

ERF = np.vectorize(math.erf)
ACTIVATIONS = {
    "quick_gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
    "gelu": lambda x: x * (1 + ERF(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
}


class Formulas:
    """The layers of a tower by the names of its parameters."""

    def __init__(self, weights, epsilon, activation):
        self.weights = {name: value.numpy().astype("float64") for name, value in weights.items()}
        self.epsilon, self.activation = epsilon, ACTIVATIONS[activation]

    def has(self, name):
        return any(own.startswith(f"{name}.") or own == name for own in self.weights)

    def depth(self, blocks):
        return 1 + max(int(name[len(blocks) + 1 :].split(".")[0]) for name in self.weights if name.startswith(blocks))

    def linear(self, x, name):
        return x @ self.weights[f"{name}.weight"] + self.weights.get(f"{name}.bias", 0)

    def norm(self, x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + self.epsilon)
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def attention(self, q, k, v, heads, seen=True):
        """`[L, D]` each; `seen` `[L, M]` says which token sees which."""
        q, k, v = (x.reshape(len(x), heads, -1).transpose(1, 0, 2) for x in (q, k, v))
        scores = np.where(seen, np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])), 0)
        return (scores / scores.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(q.shape[1], -1)

    def mlp(self, x, first, second):
        return self.linear(self.activation(self.linear(x, first)), second)

    def norm_before(self, x, block, heads, seen=True):
        """Dosovitskiy et al. 2021, equations 2 and 3."""
        q, k, v = np.split(self.linear(self.norm(x, f"{block}.norm1"), f"{block}.attn.qkv"), 3, axis=-1)
        x = x + self.linear(self.attention(q, k, v, heads, seen), f"{block}.attn.proj")
        return x + self.mlp(self.norm(x, f"{block}.norm2"), f"{block}.mlp.fc1", f"{block}.mlp.fc2")

    def norm_after(self, x, block, heads, seen=True):
        """Vaswani et al. 2017, with a norm of each sum."""
        q, k, v = (self.linear(x, f"{block}.self_attn.{part}_proj") for part in "qkv")
        mixed = self.linear(self.attention(q, k, v, heads, seen), f"{block}.self_attn.out_proj")
        x = self.norm(x + mixed, f"{block}.norm1")
        return self.norm(x + self.mlp(x, f"{block}.linear1", f"{block}.linear2"), f"{block}.norm2")


def compute_vit_features(weights, images, patch, heads, epsilon=1e-6, activation="quick_gelu"):
    """Dosovitskiy et al. 2021, equations 1 to 4, with CLIP's LayerNorm before the blocks, or SigLIP's pooling; what it
    has follows from the names of the weights."""
    its = Formulas(weights, epsilon, activation)
    kernel, features = its.weights["patch_embed.proj.weight"], []
    for image in images.astype("float64"):
        _, height, width = image.shape
        corners = [(y, x) for y in range(0, height, patch) for x in range(0, width, patch)]
        pieces = [image[:, y : y + patch, x : x + patch] for y, x in corners]
        if kernel.ndim == 4:
            z = np.stack([np.einsum("chw,dchw->d", piece, kernel) for piece in pieces])
        else:
            z = np.stack([piece.transpose(1, 2, 0).ravel() @ kernel for piece in pieces])
        z = z + its.weights.get("patch_embed.proj.bias", 0)
        if its.has("cls_token"):
            z = np.concatenate([its.weights["cls_token"][0], z])
        z = z + its.weights["pos_embed"][0]
        z = its.norm(z, "ln_pre") if its.has("ln_pre") else z
        for number in range(its.depth("blocks")):
            z = its.norm_before(z, f"blocks.{number}", heads)
        z = its.norm(z, "norm")
        if its.has("attn_pool"):
            query = its.linear(its.weights["attn_pool.probe"][0], "attn_pool.q")
            mixed = its.attention(query, *np.split(its.linear(z, "attn_pool.kv"), 2, axis=-1), heads)
            z = its.linear(mixed, "attn_pool.proj")
            z = z + its.mlp(its.norm(z, "attn_pool.norm"), "attn_pool.mlp.fc1", "attn_pool.mlp.fc2")
        elif not its.has("cls_token"):
            z = z.mean(axis=0, keepdims=True)
        features.append(z[0])
    return np.stack(features)


def compute_text_features(
    weights, ids, heads, epsilon, pooled, activation="gelu", mask="padding", padding=0, first_position=0
):
    """A transformer over texts; `pooled` makes features of the states of a text and its ids.

    With mask "padding" a text is cut where its padding begins.
    """
    its = Formulas(weights, epsilon, activation)
    after, features = its.has("network.embeddings.layer_norm"), []
    for row in ids:
        row = row[row != padding] if mask == "padding" else row
        embeddings = "network.embeddings."
        x = its.weights[f"{embeddings}word_embeddings.weight"][row]
        x = x + its.weights[f"{embeddings}position_embeddings.weight"][first_position : first_position + len(row)]
        x = x + its.weights.get(f"{embeddings}token_type_embeddings.weight", np.zeros((1, 1)))[0]
        x = its.norm(x, f"{embeddings}layer_norm") if after else x
        seen = np.tri(len(row), dtype=bool) if mask == "causal" else True
        for number in range(its.depth("network.encoder.layers")):
            block = its.norm_after if after else its.norm_before
            x = block(x, f"network.encoder.layers.{number}", heads, seen)
        x = pooled(its, x if after else its.norm(x, "network.norm"), row)
        x = its.norm(x, "head_norm") if its.has("head_norm") else x
        features.append(its.linear(x, "head") if its.has("head") else x)
    return np.stack(features)


def compute_clip_resnet_features(weights, images, heads, of_the_batch=False, epsilon=1e-5):
    """Radford et al. 2021, section 2.4: bottlenecks (He et al. 2016) whose sides averages halve, and a mean that
    attends to all cells; norms by running statistics, or by those of the batch."""
    its = Formulas(weights, epsilon, "gelu")

    def convolved(x, name, stride=1):
        kernel = its.weights[f"{name}.weight"]
        margin = kernel.shape[-1] // 2
        x = np.pad(x, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], axis=(2, 3))
        return np.einsum("bchwij,dcij->bdhw", windows[:, :, ::stride, ::stride], kernel)

    def normed(x, name):
        mean, variance = (its.weights[f"{name}.{part}"] for part in ("_mean", "_variance"))
        if of_the_batch:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
        scale = its.weights[f"{name}.weight"] / np.sqrt(variance + epsilon)
        mean, scale, shift = (part[:, None, None] for part in (mean, scale, its.weights[f"{name}.bias"]))
        return (x - mean) * scale + shift

    def halved(x):
        return (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4

    x = images.astype("float64")
    for number, stride in ((1, 2), (2, 1), (3, 1)):
        x = np.maximum(normed(convolved(x, f"conv{number}", stride), f"bn{number}"), 0)
    x = halved(x)
    for stage in (1, 2, 3, 4):
        for number in range(its.depth(f"layer{stage}")):
            block, smaller = f"layer{stage}.{number}", halved if stage > 1 and number == 0 else lambda x: x
            y = np.maximum(normed(convolved(x, f"{block}.conv1"), f"{block}.bn1"), 0)
            y = smaller(np.maximum(normed(convolved(y, f"{block}.conv2"), f"{block}.bn2"), 0))
            y = normed(convolved(y, f"{block}.conv3"), f"{block}.bn3")
            if its.has(f"{block}.downsample"):
                x = normed(convolved(smaller(x), f"{block}.downsample.0"), f"{block}.downsample.1")
            x = np.maximum(x + y, 0)
    features = []
    for cells in x.reshape(*x.shape[:2], -1).transpose(0, 2, 1):
        tokens = np.concatenate([cells.mean(0, keepdims=True), cells]) + its.weights["attnpool.pos_embed"][0]
        q, k, v = (
            its.linear(part, f"attnpool.{name}_proj")
            for part, name in ((tokens[:1], "q"), (tokens, "k"), (tokens, "v"))
        )
        features.append(its.linear(its.attention(q, k, v, heads)[0], "attnpool.c_proj"))
    return np.stack(features)
