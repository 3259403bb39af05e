"""Rows of TSV, tables, Chinese-CLIP's files and folders that are damaged, unusual, or none."""

import base64
import os
import pickle
import shutil

import lmdb
import pyarrow as pa
import pyarrow.parquet as pq

from ernie_vil2.data.samples import MAX_BYTES, MAX_TEXT_BYTES, Reason
from tests.hostile.bad_input.case import CAPTION, GOOD, Case, as_bytes, as_json, file, without_privileges

IN_BASE64 = base64.b64encode(GOOD).decode()
ROW = f"{CAPTION}\t7\t{IN_BASE64}"


def tsv(input, *lines, used=0, **result):
    """An official TSV of lines, each with its end."""
    return Case(input, file("a.tsv", b"".join(map(as_bytes, lines))), used=used, **result)


def jsonl(input, *lines, used=0, spoil=lambda folder: None, files=lambda folder: None, **result):
    """JSON lines next to 0.png, and whatever `files` puts there."""

    def make(folder):
        (folder / "0.png").write_bytes(GOOD)
        files(folder)
        return file("a.jsonl", b"".join(map(as_bytes, lines)))(folder)

    return Case(input, make, used=used, spoil=spoil, **result)


def parquet(input, rows, spoil_file=lambda path: None, written=None, **result):
    """A Parquet file, two rows a group."""

    def make(folder):
        path = folder / "a.parquet"
        table = rows() if callable(rows) else rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
        plain = {"row_group_size": 2, "compression": "none", "use_dictionary": False, "write_statistics": False}
        pq.write_table(table, path, **plain | (written or {}))
        spoil_file(path)
        return path

    return Case(input, make, **result)


def many_tags(count):
    """A row of so many tags of a MiB, all of them the same."""

    def make():
        tags = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array(["x" * 2**20]))
        return pa.table({"jpg": [GOOD], "caption": [CAPTION], "tags": pa.ListArray.from_arrays([0, count], tags)})

    return make


def many_nulls(rows, count):
    """Rows with a list of so many nulls each, which are one in memory."""

    def make():
        nulls = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), pa.nulls(count, pa.int8()))
        return pa.concat_tables([pa.table({"jpg": [GOOD], "caption": [CAPTION], "x": nulls})] * rows)

    return make


def deep_schema(path):
    """A footer of 30,000 groups within each other, in Thrift's compact protocol, which Arrow reads on the stack."""
    group, leaf = b"\x35\0\x18\x01g\x15\x02\0", b"\x15\x02\x25\0\x18\x01x\0"
    schema = b"\x15\x02\x19\xfc" + b"\xb2\xea\x01" + group * 30_001 + leaf  # version 1; 30,002 elements
    footer = schema + b"\x16\0\x19\x0c\0"  # no rows, no row groups
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def clip(input, texts, used=0, more_images="", **result):
    """Chinese-CLIP's files: the image 7, other lines of images, and JSON rows."""

    def make(folder):
        (folder / "train_imgs.tsv").write_text(f"7\t{IN_BASE64}\n{more_images}")
        if texts is not None:
            (folder / "train_texts.jsonl").write_bytes(b"".join(row + b"\n" for row in texts))
        return folder / "train_imgs.tsv"

    return Case(input, make, used=used, **result)


def database(input, pairs, images, used=0, cut=None, **result):
    """Chinese-CLIP's LMDB of raw keys and values; `cut` names a part of which only the first half is there."""

    def make(folder):
        for part, entries in (("pairs", pairs), ("imgs", images)):
            (folder / "train" / part).mkdir(parents=True)
            with lmdb.open(str(folder / "train" / part), map_size=2**24) as opened, opened.begin(write=True) as write:
                for key, value in entries.items():
                    write.put(key, value)
            if part == cut:
                path = folder / "train" / part / "data.mdb"
                os.truncate(path, path.stat().st_size // 2)
        return folder / "train"

    return Case(input, make, used=used, **result)


def coco_cn(images):
    """`make` of COCO-CN's files of the images 0 and 1, of which some are there, with an empty and an odd caption."""

    def make(folder):
        (folder / "coco-cn_train.txt").write_text("0\n1\n")
        (folder / "imageid.human-written-caption.txt").write_text("0#0\tx\n0#1\t \n2#0\tz")
        (folder / "train2014").mkdir()
        for name in images:
            (folder / "train2014" / f"{name}.jpg").write_bytes(GOOD)
        return folder

    return make


def damage_first_group(path):
    """Overwrites the header of the first column's first page."""
    with path.open("r+b") as opened:
        opened.seek(4)
        opened.write(b"\xff" * 12)


def keep_half(path):
    os.truncate(path, path.stat().st_size // 2)


def large_row(folder):
    """A TSV whose second row is a hole of more than 256 MiB, which takes no room on the disk."""
    with (folder / "a.tsv").open("wb") as out:
        out.write(f"{ROW}\n".encode())
        out.seek(MAX_BYTES + 1, os.SEEK_CUR)
        out.write(b"\n")
    return folder / "a.tsv"


def files(**content):
    """`make` of a folder of files; `_` in a name is the dot."""

    def make(folder):
        for name, data in content.items():
            (folder / name.replace("_", ".")).write_bytes(as_bytes(data))
        return folder

    return make


def unreadable(folder):
    (folder / "1.png").write_bytes(GOOD)
    (folder / "1.png").chmod(0)


def first_image(samples):
    assert [sample.image for sample in samples] == [GOOD]


def two_captions(samples):
    assert [sample.caption("en") for sample in samples] == [CAPTION, CAPTION]


def line(image="0.png", text=CAPTION, **more):
    return as_json(image=image, text=text, **more) + b"\n"


PAIR = pickle.dumps(("7", "1", CAPTION))
# A position in the memo, and lengths of bytes, of a number and of a frame: Python allocates them before it reads on.
BOMBS = [
    b"\x80\x03N" + pickle.LONG_BINPUT + (2**27).to_bytes(4, "little") + b".",
    b"\x80\x04" + pickle.BINBYTES8 + (2**32).to_bytes(8, "little") + b".",
    b"\x80\x05" + pickle.BYTEARRAY8 + (2**32).to_bytes(8, "little") + b".",
    b"\x80\x02" + pickle.LONG4 + (2**31 - 1).to_bytes(4, "little") + b".",
    b"\x80\x04" + pickle.FRAME + (2**40).to_bytes(8, "little") + b"N.",
]
IMAGES = {b"7": base64.b64encode(GOOD)}
GOOD_ROW = {"jpg": GOOD, "caption": CAPTION, "key": "0"}
TEXT = as_json(text_id=1, text=CAPTION, image_ids=[7])
NOT_UTF8 = pa.table({"jpg": [GOOD], "caption": pa.array([b"\xff"]).view(pa.utf8())})


CASES = [
    tsv("TSV row without text", f"{ROW}\n", f"\t7\t{IN_BASE64}\n", used=1, skipped={Reason.EMPTY_CAPTION: 1}),
    tsv("TSV row without image", f"{ROW}\n", f"{CAPTION}\n", f"{CAPTION}\t7\n", used=1,
        skipped={Reason.MALFORMED_ROW: 1, Reason.MALFORMED_BASE64: 1}),
    tsv("TSV in UTF-16", f"{ROW}\n".encode("utf-16"), skipped={Reason.NOT_UTF8: 1, Reason.MALFORMED_ROW: 1}),
    tsv("TSV rows that end in CRLF", f"{ROW}\r\n{ROW}\r\n", used=2, check=two_captions),
    tsv("byte order mark before a TSV", f"\ufeff{ROW}\n{ROW}\n", used=2, check=two_captions, note="dropped"),
    tsv("TSV of zero bytes", stopped="no rows in this file; is it whole?"),
    Case("TSV row of more than 256 MiB", large_row, used=1, skipped={Reason.TOO_LARGE: 1}),
    jsonl("last JSON line, cut off", line(), line()[:-5], used=1, skipped={Reason.MALFORMED_JSON: 1}),
    jsonl("JSON lines with CRLF, blank lines and byte order mark", b"\xef\xbb\xbf", line()[:-1], b"\r\n\r\n \n", line(),
          used=2, check=two_captions),
    jsonl("JSON line of more than 4 MiB", line(), line(x=[[]] * 1_500_000), used=1, skipped={Reason.TOO_MUCH_TEXT: 1}),
    jsonl("row without image column", line(), as_json(text=CAPTION), used=1, skipped={Reason.NO_IMAGE: 1}),
    jsonl("image that is not there", line(), line("1.png"), used=1, skipped={Reason.MISSING_IMAGE: 1}),
    jsonl("image outside the folder", line(), line("../0.png"), line("/etc/passwd"), line("a\0.png"),
          used=1, skipped={Reason.OUTSIDE_FOLDER: 3}),
    jsonl("image name of 5,000 characters", line(), line("x" * 5000), used=1, skipped={Reason.UNREADABLE_FILE: 1}),
    jsonl("image that is a pipe", line(), line("p"), used=1, skipped={Reason.UNREADABLE_FILE: 1},
          files=lambda folder: os.mkfifo(folder / "p")),
    jsonl("image that may not be read", line(), line("1.png"), used=1, skipped={Reason.UNREADABLE_FILE: 1},
          files=unreadable, within=without_privileges, note="the rest of the table"),
    jsonl("image removed while a run goes on", line(), line("1.png"), used=1, skipped={Reason.MISSING_IMAGE: 1},
          files=lambda folder: (folder / "1.png").write_bytes(GOOD), spoil=lambda folder: (folder / "1.png").unlink()),
    jsonl("table appended to while a run goes on", line(), line(), skipped={Reason.UNREADABLE_FILE: 2},
          spoil=lambda folder: (folder / "a.jsonl").write_bytes(3 * line())),
    Case("CSV without image column", file("a.csv", "text\na\n"), stopped="columns here: text; one must be image, or"),
    Case("CSV with an open quotation mark", file("a.csv", 'image,text\n0.png,"a\n'), stopped="not a CSV file"),
    Case("CSV row of more than 4 MiB", file("a.csv", f"image,text\n0.png,{',x' * 3_000_000}\n"),
         stopped="a row of more than 4194304 bytes; is this a CSV file?"),
    parquet("Parquet row without image", [GOOD_ROW, GOOD_ROW | {"jpg": None}], used=1, skipped={Reason.NO_IMAGE: 1}),
    parquet("Parquet text that is not UTF-8", NOT_UTF8, skipped={Reason.NOT_UTF8: 1}),
    parquet("Parquet, a row group damaged", [GOOD_ROW] * 4, damage_first_group, used=2,
            skipped={Reason.UNREADABLE_FILE: 2}, note="the other row groups"),
    parquet("Parquet of 3 kB whose row means 4 GiB", many_tags(4096), skipped={Reason.TOO_LARGE: 1},
            written={"dictionary_pagesize_limit": 2**22, "use_dictionary": True, "compression": "zstd",
                     "store_schema": False}),
    parquet("Parquet of 3 kB whose row group means 67 million nulls", many_nulls(16, 2**22),
            skipped={Reason.LARGE_GROUP: 16}, written={"row_group_size": 16, "use_dictionary": True}),
    parquet("Parquet whose schema has 30,000 columns within each other", [GOOD_ROW], deep_schema,
            stopped="not a Parquet file"),
    parquet("Parquet, cut off", [GOOD_ROW] * 4, keep_half, stopped="not a Parquet file"),
    Case("pipe named x.parquet", lambda folder: os.mkfifo(folder / "a.parquet") or folder / "a.parquet",
         stopped="not an ordinary file"),
    clip("Chinese-CLIP text without image", [TEXT, as_json(text_id=2, text="x", image_ids=[])], used=1,
         skipped={Reason.TEXT_WITHOUT_IMAGE: 1}),
    clip("Chinese-CLIP image id that repeats", [TEXT], used=1, more_images="7\tAAAA\n", note="the first image",
         check=first_image),
    clip("Chinese-CLIP images without texts", None, stopped="the texts are missing; put"),
    database("LMDB pair with an image id of 5,000 digits",
             {b"num_samples": b"2", b"0": PAIR, b"1": pickle.dumps((10**5000, 1, CAPTION))}, IMAGES, used=1,
             skipped={Reason.MALFORMED_ROW: 1}),
    database("LMDB pairs of 14 bytes whose pickles ask for gigabytes",
             {b"num_samples": b"%d" % len(BOMBS), **{b"%d" % row: bomb for row, bomb in enumerate(BOMBS)}}, IMAGES,
             skipped={Reason.MALFORMED_ROW: len(BOMBS)}),
    database("LMDB pair of more than 4 MiB",
             {b"num_samples": b"2", b"0": PAIR, b"1": pickle.dumps(("7", "1", "x" * MAX_TEXT_BYTES))}, IMAGES, used=1,
             skipped={Reason.TOO_MUCH_TEXT: 1}),
    database("LMDB without num_samples", {b"0": PAIR}, IMAGES, stopped="does not say its num_samples"),
    database("LMDB of fewer pairs than it says", {b"num_samples": b"9" * 20, b"0": PAIR}, IMAGES,
             stopped="was it built to the end?"),
    database("LMDB, cut off", {b"num_samples": b"400", **{b"%d" % row: PAIR * 20 for row in range(400)}}, IMAGES,
             cut="pairs", stopped="copy or build it again"),
    Case("benchmark whose captions are empty or of no image", coco_cn("01"), used=1,
         skipped={Reason.EMPTY_TEXT: 1, Reason.UNMATCHED_IMAGE: 1}, note="of any published benchmark"),
    Case("benchmark of which no image is there", coco_cn(""), stopped="no image file was found"),
    Case("image in a folder without texts", files(**{"0_png": GOOD, "0_txt": CAPTION, "1_png": GOOD}), used=1,
         skipped={Reason.NO_CAPTION: 1}),
    Case("folder of samples that loses a file", files(**{"0_png": GOOD, "0_txt": CAPTION, "1_png": GOOD, "1_txt": "x"}),
         skipped={Reason.UNREADABLE_FILE: 2},
         spoil=lambda folder: [(folder / name).unlink() for name in ("1.png", "1.txt")]),
    Case("folder that is removed while a run goes on", files(**{"0_png": GOOD, "0_txt": CAPTION}),
         skipped={Reason.UNREADABLE_FILE: 1}, spoil=lambda folder: shutil.rmtree(folder) or folder.mkdir()),
]  # fmt: skip
