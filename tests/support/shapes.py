"""Coloured shapes with captions and tags in two languages, as images, shards and tables."""

import base64
import io
import json
import tarfile

import cv2
import numpy as np

COLOURS = {
    "red": ((200, 30, 30), "红色"),
    "green": ((30, 180, 40), "绿色"),
    "blue": ((40, 60, 210), "蓝色"),
    "yellow": ((230, 220, 40), "黄色"),
}
SHAPES = {"disc": "圆", "square": "方块", "bar": "条", "cross": "十字"}
SPECIAL_TOKENS = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
TOKENS = [*SPECIAL_TOKENS, "a", *COLOURS, *SHAPES]


def draw(colour, shape, rng, size=32):
    """Draw a filled shape of jittered position and size on white, `[size, size, 3]` uint8 RGB."""
    image = np.full([size, size, 3], 255, np.uint8)
    x, y = rng.integers(size // 2 - 3, size // 2 + 4, 2).tolist()
    r = int(rng.integers(size // 4, size // 3))
    if shape == "disc":
        cv2.circle(image, (x, y), r, colour, -1)
    elif shape == "square":
        cv2.rectangle(image, (x - r, y - r), (x + r, y + r), colour, -1)
    elif shape == "bar":
        cv2.rectangle(image, (x - r // 3, 0), (x + r // 3, size), colour, -1)
    else:
        cv2.line(image, (x - r, y - r), (x + r, y + r), colour, 3)
        cv2.line(image, (x + r, y - r), (x - r, y + r), colour, 3)
    return image


def encode_png(image):
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def read_tar(path):
    """Return the content of each member by its name, in order."""
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def read_fields(path):
    """Return the contents of the JSON members of a shard, in order."""
    return [json.loads(content) for name, content in read_tar(path).items() if name.endswith(".json")]


def write_tsv(path, rows):
    """Write rows of (text, id, image bytes)."""
    lines = [f"{text}\t{name}\t{base64.b64encode(image).decode()}\n" for text, name, image in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def draw_shape_members(copies, seed):
    """Yield the members of a shard with `copies` samples of each shape in each colour, 16 in a copy."""
    rng = np.random.default_rng(seed)
    for copy in range(copies):
        for colour, (rgb, colour_zh) in COLOURS.items():
            for shape, shape_zh in SHAPES.items():
                name = f"{colour}-{shape}-{seed}-{copy}"
                fields = {
                    "id": f"{colour}-{shape}",
                    "kind": shape,
                    "caption_en": f"a {colour} {shape}",
                    "caption_zh": f"{colour_zh}的{shape_zh}",
                    "tags_en": [colour, shape],
                    "tags_zh": [colour_zh, shape_zh],
                }
                yield f"{name}.png", encode_png(draw(rgb, shape, rng))
                yield f"{name}.json", json.dumps(fields, ensure_ascii=False).encode()
