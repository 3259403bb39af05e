"""Whatever lies in a file, a reader gives samples, bad samples, or one of its errors: in bounded time and memory.

The usual run tries a few dozen inputs of each kind; `-m slow` tries thousands.
"""

import base64
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie_vil2.config import load_config
from ernie_vil2.data.augment import draw_image_views, draw_texts
from ernie_vil2.data.readers import ShardedSource, source
from ernie_vil2.data.readers.locations import LocalFile
from ernie_vil2.data.readers.opening import open_shard, recognise
from ernie_vil2.data.samples import BadSample, is_blank
from ernie_vil2.data.spec import DataSpec
from ernie_vil2.data.tokenizer import WordPieceTokenizer
from tests.hostile.bad_input.case import CAPTION, as_json, bounded_time, member
from tests.hostile.bad_input.images import JPEG, animated
from tests.hostile.bad_input.shards import of_type, with_size
from tests.support.image_formats import encode_image, make_smooth_image

# Pillow warns about what it finds.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.thorough]
SECONDS = 60  # for one input
VIEWS = load_config(None, ["Views.languages={en: 1.0}"]).Views
SMALL = encode_image(make_smooth_image(4, 6))
IN_BASE64 = base64.b64encode(SMALL).decode()
SHARD = (member("0.png", SMALL) + member("0.txt", CAPTION.encode())) * 2 + bytes(1024)


@pytest.fixture(scope="module")
def tokenizer():
    return WordPieceTokenizer(max_length=24)


@pytest.fixture(params=[40, pytest.param(2000, marks=pytest.mark.slow)])
def examples(request):
    return request.param


def use(position, tokenizer, rows=50):
    """Reads the samples at a location as training does."""
    with bounded_time(SECONDS):
        try:
            # Not by `open_sources`: its threads cannot be interrupted.
            found = recognise(LocalFile(position), DataSpec([]))
            source = ShardedSource([open_shard(found.layout, shard, found.data) for shard in found.shards])
        except (ValueError, OSError) as error:
            assert position.name in str(error)  # noqa: PT017  -- there may be no error
            return
        for row in range(min(rows, len(source))):
            try:
                sample = source[row]
                text, _ = draw_texts(sample, VIEWS, np.random.default_rng(0))
                assert len(tokenizer.encode(text)) > 2
                views = draw_image_views(sample.image, sample.image_name, 2, 32, VIEWS, np.random.default_rng(0))
                assert all(view.shape == (32, 32, 3) for view in views)
            except BadSample as bad:
                assert bad.name and len(str(bad)) < 1000  # noqa: PT017  -- there may be no error


@st.composite
def damaged(draw, whole):
    """Bytes of which a few are overwritten, dropped, repeated or exchanged for others."""
    data = draw(whole) if isinstance(whole, st.SearchStrategy) else whole
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(data) - 1)))
        end = min(len(data), start + draw(st.sampled_from([1, 2, 4, 8, 100, 10_000])))
        piece = draw(st.sampled_from([b"", data[start:end] * 2, data[:20]]) | st.binary(max_size=12))
        data = data[:start] + piece + data[end:]
    return data


def survive(examples, strategy, read):
    """Runs `read` on so many inputs of a strategy."""

    @settings(max_examples=examples)
    @given(strategy)
    def one(content):
        read(content)

    one()


sizes = st.sampled_from([0, 1, 9, 511, 512, 513, 2**20, 2**33, 2**63 - 1, -1, -512, -1024, -(2**40)])
names = st.sampled_from(["0.png", "0.txt", "0.json", "1.jpg", "././@LongLink", "../x.png", "", ".", "a/b.c.png", "pax"])
kinds = st.sampled_from([b"\0", *(b"%c" % kind for kind in b"0123567LKSxg?")])
records = st.sampled_from(
    [b"", b"20 path=abc.png.txt\n", b"17 size=-1024000\n", b"22 GNU.sparse.major=1\n", b"24 GNU.sparse.map=0,abc\n",
     b"0 path=x\n", b"99999999 path=x\n", b"18 hdrcharset=BIN\n", b"30 GNU.sparse.realsize=99999\n", b"\xff" * 30]
)  # fmt: skip


@st.composite
def tar_members(draw):
    """Members whose checksums are right, whatever else is not."""
    parts = [member("9.png", SMALL) + member("9.txt", CAPTION.encode())]
    for _ in range(draw(st.integers(1, 5))):
        head = of_type(draw(kinds), with_size(draw(names), draw(sizes)))
        content = draw(records | st.sampled_from([SMALL, CAPTION.encode()]))
        parts.append(head + content + bytes(-len(content) % 512))
    return b"".join(parts) + draw(st.sampled_from([b"", bytes(512), bytes(1024)]))


@pytest.mark.parametrize("kind", ["tar", "tsv", "jsonl", "csv", "parquet"])
def test_damaged_files_of_samples(kind, examples, tmp_path, tokenizer):
    (tmp_path / "0.png").write_bytes(SMALL)
    path = tmp_path / f"a.{kind}"
    whole = {
        "tar": SHARD,
        "tsv": f"{CAPTION}\t7\t{IN_BASE64}\n{CAPTION}\t8\t{IN_BASE64}\n".encode(),
        "jsonl": 2 * (as_json(image="0.png", caption=CAPTION, tags_en=["red", "disc"]) + b"\n"),
        "csv": b"image,caption,tags_en\n" + 3 * b'0.png,"a red, disc",red|disc\n',
        "parquet": in_parquet(tmp_path),
    }[kind]

    def read(content):
        path.write_bytes(content)
        use(path, tokenizer)

    survive(examples, damaged(whole), read)


def in_parquet(folder):
    row = {"jpg": SMALL, "caption": CAPTION, "tags_en": ["red", "disc"]}
    rows = [row | {"key": str(number)} for number in range(6)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "b.parquet", row_group_size=2)
    content = (folder / "b.parquet").read_bytes()
    (folder / "b.parquet").unlink()
    return content


def test_tar_headers_that_lie(examples, tmp_path, tokenizer):
    def read(content):
        (tmp_path / "a.tar").write_bytes(content)
        use(tmp_path / "a.tar", tokenizer)

    survive(examples, tar_members(), read)


plain = st.none() | st.booleans() | st.integers() | st.floats()
values = st.recursive(
    plain | st.text(max_size=8) | st.sampled_from(["\ud800", "0.png", CAPTION]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(
    ["image", "file_name", "image_id", "text", "caption", "caption_en", "caption_\ud800", "tags", "tags_en", "key", "x"]
)


def test_json_of_any_types(examples, tmp_path, tokenizer):
    (tmp_path / "0.png").write_bytes(SMALL)

    def read(rows):
        lines = [json.dumps(row).encode() for row in rows]
        (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
        use(tmp_path / "a.jsonl", tokenizer)
        (tmp_path / "a.tar").write_bytes(
            b"".join(member(f"{n}.png", SMALL) + member(f"{n}.json", line) for n, line in enumerate(lines))
            + bytes(1024)
        )
        use(tmp_path / "a.tar", tokenizer)

    survive(examples, st.lists(st.dictionaries(keys, values, max_size=5), min_size=1, max_size=3), read)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_damaged_images(kind, examples):
    small = make_smooth_image(16, 24)
    wholes = [encode_image(small, kind)]
    if kind in ("GIF", "WEBP", "PNG"):
        wholes.append(animated(kind))
    if kind == "JPEG":
        wholes += [JPEG, encode_image(small, kind, progressive=True)]

    def read(content):
        with bounded_time(SECONDS):
            try:
                views = draw_image_views(content, "a", 2, 32, VIEWS, np.random.default_rng(0))
            except BadSample as bad:
                assert bad.name == "a"  # noqa: PT017  -- there may be no error
            else:
                assert all(view.shape == (32, 32, 3) and view.dtype == np.uint8 for view in views)

    survive(examples, damaged(st.sampled_from(wholes)), read)


def test_a_caption_is_blank_where_the_tokeniser_finds_nothing(examples, tokenizer):
    def read(text):
        assert is_blank(text) == (len(tokenizer.encode(text)) == 2)

    odd = st.text(st.characters(categories=["Cc", "Cf", "Zs", "Zl", "Zp", "Mn", "So", "Lo", "Cn", "Co"]), max_size=4)
    survive(5 * examples, st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | odd, read)


def test_a_damaged_index_is_made_again(examples, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(source, "MIN_CACHED_SECONDS", -math.inf)
    made = {"bounds": np.arange(50), "names": np.array(["a", "bc"])}
    source.load_or_scan_index("fuzz", "x", lambda: made)
    (kept,) = (tmp_path / "indexes").iterdir()
    whole = kept.read_bytes()

    def read(content):
        kept.write_bytes(content)
        again = source.load_or_scan_index("fuzz", "x", lambda: made)
        assert all(np.array_equal(again[name], value) for name, value in made.items())

    survive(examples, damaged(whole), read)
