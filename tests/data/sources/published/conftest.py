"""Small folders laid out as benchmarks are published."""

import json

import numpy as np

from tests.support.shapes import png


def image(number):
    """An encoded image, another one for every number."""
    return png(np.full([8, 8, 3], number, np.uint8))


def write(folder, files):
    """Files by path below a folder: bytes, text, or what JSON is made of."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, bytes):
            content = (content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)).encode()
        path.write_bytes(content)
    return folder


def pairs(benchmark):
    """The pairs as ids."""
    return [(benchmark.images[i].id, benchmark.texts[t].id) for i, t in benchmark.pairs.tolist()]


def problems(benchmark):
    """The names of what could not be used, by reason."""
    return {reason: entry["names"] for reason, entry in benchmark.rows.as_dict()["reasons"].items()}
