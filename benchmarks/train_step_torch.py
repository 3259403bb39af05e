"""Worker of `train_step.py` in PyTorch: the same towers and loss, with PyTorch's fused attention.

Weights and batch come from a folder that the first Paddle worker fills; layers have the same names as in Paddle.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.train_step import serve


class Attention(nn.Module):
    """Self-attention; subclasses project to queries, keys and values."""

    def __init__(self, heads, dropout):
        super().__init__()
        self.heads = heads
        self.dropout = dropout

    def split_heads(self, x):
        """Reshape `[B, L, D]` to `[B, H, L, D / H]`."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def attend(self, q, k, v, mask=None):
        """Return `[B, L, D]` of queries, keys and values `[B, H, L, D / H]`."""
        dropout = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, mask, dropout).transpose(1, 2).flatten(2)


class ImageAttention(Attention):
    def __init__(self, width, heads):
        super().__init__(heads, 0.0)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.proj(self.attend(self.split_heads(q), self.split_heads(k), self.split_heads(v)))


class TextAttention(Attention):
    def __init__(self, width, heads, dropout):
        super().__init__(heads, dropout)
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x, mask):
        q = self.split_heads(self.q_proj(x))
        k = self.split_heads(self.k_proj(x))
        v = self.split_heads(self.v_proj(x))
        return self.out_proj(self.attend(q, k, v, mask))


class Mlp(nn.Module):
    """Two layers with CLIP's approximation of GELU between them."""

    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x))


class ImageBlock(nn.Module):
    """Block of ViT, which normalises the inputs of its layers."""

    def __init__(self, width, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, 1e-6)
        self.norm2 = nn.LayerNorm(width, 1e-6)
        self.attn = ImageAttention(width, heads)
        self.mlp = Mlp(width)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TextBlock(nn.Module):
    """Block of BERT, which normalises the outputs of its layers."""

    def __init__(self, width, heads, dropout, attention_dropout, epsilon):
        super().__init__()
        self.self_attn = TextAttention(width, heads, attention_dropout)
        self.linear1 = nn.Linear(width, 4 * width)
        self.linear2 = nn.Linear(4 * width, width)
        self.norm1 = nn.LayerNorm(width, epsilon)
        self.norm2 = nn.LayerNorm(width, epsilon)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, mask):
        x = self.norm1(x + self.dropout(self.self_attn(x, mask)))
        return self.norm2(x + self.dropout(self.linear2(F.gelu(self.linear1(x)))))


class Network(nn.Module):
    """Network whose layers have the names of Paddle's."""

    def load_paddle_weights(self, weights):
        """Load Paddle's weights by name; those of linear layers are transposed there."""
        for name, layer in self.named_modules():
            if isinstance(layer, nn.Linear):
                weights = {**weights, f"{name}.weight": weights[f"{name}.weight"].T}
        self.load_state_dict(weights)


class ImageTower(Network):
    """ViT; returns the class token `[B, D]` of images `[B, 3, H, W]`."""

    def __init__(self, image_size, patch_size, width, depth, heads):
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch_size, patch_size, bias=False)})
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + (image_size // patch_size) ** 2, width))
        self.ln_pre = nn.LayerNorm(width, 1e-6)
        self.norm = nn.LayerNorm(width, 1e-6)
        self.blocks = nn.ModuleList(ImageBlock(width, heads) for _ in range(depth))

    def forward(self, images):
        patches = self.patch_embed["proj"](images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1)
        tokens = self.ln_pre(tokens + self.pos_embed)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])


class TextTower(Network):
    """ERNIE; returns the pooled first token `[B, D]` of token ids `[B, L]`, padded with 0."""

    def __init__(self, vocabulary, width, depth, heads, max_positions, dropout, attention_dropout, epsilon):
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(vocabulary, width, padding_idx=0),
                "position_embeddings": nn.Embedding(max_positions, width),
                "layer_norm": nn.LayerNorm(width, epsilon),
            }
        )
        self.dropout = nn.Dropout(dropout)
        layers = (TextBlock(width, heads, dropout, attention_dropout, epsilon) for _ in range(depth))
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        self.pooler = nn.ModuleDict({"dense": nn.Linear(width, width)})

    def forward(self, ids):
        words = self.embeddings["word_embeddings"](ids)
        states = words + self.embeddings["position_embeddings"].weight[: ids.shape[1]]
        states = self.dropout(self.embeddings["layer_norm"](states))
        mask = (ids != 0)[:, None, None]  # [B, 1, 1, L]
        for layer in self.encoder["layers"]:
            states = layer(states, mask)
        return torch.tanh(self.pooler["dense"](states[:, 0]))


class DualEncoder(Network):
    """Both towers and the temperature."""

    def __init__(self, image, text):
        super().__init__()
        self.image = image
        self.text = nn.ModuleDict({"network": text})
        self.log_logit_scale = nn.Parameter(torch.empty(1))

    def forward(self, images, ids):
        """Return the embeddings of two image views and two text views, `[4, B, D]`.

        Args:
            images: both views of each image, `[2, B, 3, H, W]`.
            ids: token ids `[B, L]`, which both text views have.
        """
        image_features = self.image(images.flatten(0, 1))
        text_features = self.text["network"](torch.cat([ids, ids]))
        return torch.cat([F.normalize(image_features), F.normalize(text_features)]).unflatten(0, (4, -1))


def multi_view_loss(embeddings, logit_scale):
    """Return the sum of the contrastive losses of the four view pairs."""
    image_1, image_2, text_1, text_2 = embeddings
    targets = torch.arange(len(image_1))
    pairs = ((image_1, image_2), (text_1, text_2), (image_1, text_1), (text_1, image_1))
    return sum(F.cross_entropy(logit_scale * rows @ columns.T, targets) for rows, columns in pairs)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = json.loads((folder / "config.json").read_text())
    image, text, options = config["Model"]["image"], config["Model"]["text"], config["Optimizer"]
    weights = load_tensors(folder / "weights.npz")
    batch = load_tensors(folder / "batch.npz")

    image_options = ("image_size", "patch_size", "width", "depth", "heads")
    text_options = ("width", "depth", "heads", "max_positions", "dropout", "attention_dropout", "epsilon")
    num_words = len(weights["text.network.embeddings.word_embeddings.weight"])
    model = DualEncoder(
        ImageTower(*[image[key] for key in image_options]),
        TextTower(num_words, *[text[key] for key in text_options]),
    )
    model.load_paddle_weights(weights)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        options["learning_rate"],
        (options["beta1"], options["beta2"]),
        options["epsilon"],
        options["weight_decay"],
    )

    def compute_loss():
        return multi_view_loss(model(batch["images"], batch["ids"]), model.log_logit_scale.exp())

    def step():
        compute_loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), options["clip_norm"])
        optimizer.step()
        optimizer.zero_grad()

    model.eval()
    with torch.no_grad():
        loss = float(compute_loss())
    model.train()
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    serve({"parameters": num_parameters, "loss": loss, "note": f"torch {torch.__version__}"}, step)


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the arrays of an .npz file by name."""
    return {name: torch.from_numpy(array) for name, array in np.load(path).items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
