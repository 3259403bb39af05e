"""Readers give samples, bad samples or one of their errors for any content, in bounded time and memory.

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
from tests.hostile.bad_input.case import CAPTION, bounded_time, dump_json, make_member
from tests.hostile.bad_input.images import JPEG, encode_animation
from tests.hostile.bad_input.shards import change_type, make_sized_header
from tests.support.image_formats import encode_image, make_smooth_image

# Pillow warns of damage_bytes images.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.thorough]
SECONDS = 60  # for one input
VIEWS = load_config(None, ["Views.languages={en: 1.0}"]).Views
SMALL = encode_image(make_smooth_image(4, 6))
IN_BASE64 = base64.b64encode(SMALL).decode()
SHARD = (make_member("0.png", SMALL) + make_member("0.txt", CAPTION.encode())) * 2 + bytes(1024)


@pytest.fixture(scope="module")
def tokenizer():
    return WordPieceTokenizer(max_length=24)


@pytest.fixture(params=[40, pytest.param(2000, marks=pytest.mark.slow)])
def examples(request):
    return request.param


def read_samples(path, tokenizer, rows=50):
    """Read the samples of a file as training does."""
    with bounded_time(SECONDS):
        try:
            # Not by `open_sources`, whose threads cannot be interrupted.
            files = recognise(LocalFile(path), DataSpec([]))
            source = ShardedSource([open_shard(files.layout, shard, files.data) for shard in files.shards])
        except (ValueError, OSError) as error:
            assert path.name in str(error)  # noqa: PT017  -- there may be no error
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
def damage_bytes(draw, content):
    """Draw a content, or draw from contents, and overwrite, drop, repeat or replace some of its bytes."""
    data = draw(content) if isinstance(content, st.SearchStrategy) else content
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(data) - 1)))
        end = min(len(data), start + draw(st.sampled_from([1, 2, 4, 8, 100, 10_000])))
        piece = draw(st.sampled_from([b"", data[start:end] * 2, data[:20]]) | st.binary(max_size=12))
        data = data[:start] + piece + data[end:]
    return data


def try_examples(examples, strategy, check):
    """Call a function with so many examples of a strategy."""

    @settings(max_examples=examples)
    @given(strategy)
    def check_example(content):
        check(content)

    check_example()


sizes = st.sampled_from([0, 1, 9, 511, 512, 513, 2**20, 2**33, 2**63 - 1, -1, -512, -1024, -(2**40)])
names = st.sampled_from(["0.png", "0.txt", "0.json", "1.jpg", "././@LongLink", "../x.png", "", ".", "a/b.c.png", "pax"])
kinds = st.sampled_from([b"\0", *(b"%c" % kind for kind in b"0123567LKSxg?")])
records = st.sampled_from(
    [b"", b"20 path=abc.png.txt\n", b"17 size=-1024000\n", b"22 GNU.sparse.major=1\n", b"24 GNU.sparse.map=0,abc\n",
     b"0 path=x\n", b"99999999 path=x\n", b"18 hdrcharset=BIN\n", b"30 GNU.sparse.realsize=99999\n", b"\xff" * 30]
)  # fmt: skip


@st.composite
def draw_shard(draw):
    """Draw a shard of members with valid checksums, whose headers may be wrong in any other way."""
    members = [make_member("9.png", SMALL) + make_member("9.txt", CAPTION.encode())]
    for _ in range(draw(st.integers(1, 5))):
        header = change_type(draw(kinds), make_sized_header(draw(names), draw(sizes)))
        content = draw(records | st.sampled_from([SMALL, CAPTION.encode()]))
        members.append(header + content + bytes(-len(content) % 512))
    return b"".join(members) + draw(st.sampled_from([b"", bytes(512), bytes(1024)]))


@pytest.mark.parametrize("kind", ["tar", "tsv", "jsonl", "csv", "parquet"])
def test_damaged_files_give_samples_bad_samples_or_errors(kind, examples, tmp_path, tokenizer):
    (tmp_path / "0.png").write_bytes(SMALL)
    path = tmp_path / f"a.{kind}"
    contents = {
        "tar": SHARD,
        "tsv": f"{CAPTION}\t7\t{IN_BASE64}\n{CAPTION}\t8\t{IN_BASE64}\n".encode(),
        "jsonl": 2 * (dump_json(image="0.png", caption=CAPTION, tags_en=["red", "disc"]) + b"\n"),
        "csv": b"image,caption,tags_en\n" + 3 * b'0.png,"a red, disc",red|disc\n',
        "parquet": make_parquet(tmp_path),
    }

    def check(content):
        path.write_bytes(content)
        read_samples(path, tokenizer)

    try_examples(examples, damage_bytes(contents[kind]), check)


def make_parquet(folder):
    """Return the content of a Parquet file of three row groups."""
    row = {"jpg": SMALL, "caption": CAPTION, "tags_en": ["red", "disc"]}
    rows = [row | {"key": str(number)} for number in range(6)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "b.parquet", row_group_size=2)
    content = (folder / "b.parquet").read_bytes()
    (folder / "b.parquet").unlink()
    return content


def test_wrong_tar_headers_give_samples_bad_samples_or_errors(examples, tmp_path, tokenizer):
    def check(content):
        (tmp_path / "a.tar").write_bytes(content)
        read_samples(tmp_path / "a.tar", tokenizer)

    try_examples(examples, draw_shard(), check)


plain = st.none() | st.booleans() | st.integers() | st.floats()
values = st.recursive(
    plain | st.text(max_size=8) | st.sampled_from(["\ud800", "0.png", CAPTION]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(
    ["image", "file_name", "image_id", "text", "caption", "caption_en", "caption_\ud800", "tags", "tags_en", "key", "x"]
)


def test_json_of_any_types_gives_samples_or_bad_samples(examples, tmp_path, tokenizer):
    (tmp_path / "0.png").write_bytes(SMALL)

    def check(rows):
        lines = [json.dumps(row).encode() for row in rows]
        (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
        read_samples(tmp_path / "a.jsonl", tokenizer)
        members = []
        for number, line in enumerate(lines):
            members += [make_member(f"{number}.png", SMALL), make_member(f"{number}.json", line)]
        (tmp_path / "a.tar").write_bytes(b"".join(members) + bytes(1024))
        read_samples(tmp_path / "a.tar", tokenizer)

    try_examples(examples, st.lists(st.dictionaries(keys, values, max_size=5), min_size=1, max_size=3), check)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_damaged_images_give_views_or_bad_samples(kind, examples):
    pixels = make_smooth_image(16, 24)
    contents = [encode_image(pixels, kind)]
    if kind in ("GIF", "WEBP", "PNG"):
        contents.append(encode_animation(kind))
    if kind == "JPEG":
        contents += [JPEG, encode_image(pixels, kind, progressive=True)]

    def check(content):
        with bounded_time(SECONDS):
            try:
                views = draw_image_views(content, "a", 2, 32, VIEWS, np.random.default_rng(0))
            except BadSample as bad:
                assert bad.name == "a"  # noqa: PT017  -- there may be no error
            else:
                assert all(view.shape == (32, 32, 3) and view.dtype == np.uint8 for view in views)

    try_examples(examples, damage_bytes(st.sampled_from(contents)), check)


def test_caption_is_blank_if_the_tokenizer_finds_no_token(examples, tokenizer):
    def check(text):
        assert is_blank(text) == (len(tokenizer.encode(text)) == 2)  # [CLS] and [SEP]

    # Control characters, spaces, marks, symbols and unassigned characters, on which both could disagree.
    odd = st.text(st.characters(categories=["Cc", "Cf", "Zs", "Zl", "Zp", "Mn", "So", "Lo", "Cn", "Co"]), max_size=4)
    try_examples(5 * examples, st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | odd, check)


def test_damaged_cache_of_an_index_is_scanned_again(examples, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(source, "MIN_CACHED_SECONDS", -math.inf)
    expected = {"bounds": np.arange(50), "names": np.array(["a", "bc"])}
    source.load_or_scan_index("fuzz", "x", lambda: expected)
    (cache_file,) = (tmp_path / "indexes").iterdir()
    intact_content = cache_file.read_bytes()

    def check(content):
        cache_file.write_bytes(content)
        index = source.load_or_scan_index("fuzz", "x", lambda: expected)
        assert all(np.array_equal(index[name], value) for name, value in expected.items())

    try_examples(examples, damage_bytes(intact_content), check)
