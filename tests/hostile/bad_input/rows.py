"""Cases of damaged and unusual rows of TSV, tables, Chinese-CLIP's files and folders."""

import base64
import os
import pickle
import shutil

import lmdb
import pyarrow as pa
import pyarrow.parquet as pq

from ernie_vil2.data.samples import MAX_BYTES, MAX_TEXT_BYTES, Reason
from tests.hostile.bad_input.case import CAPTION, GOOD, Case, dump_json, file_writer, to_bytes, without_privileges

IN_BASE64 = base64.b64encode(GOOD).decode()
ROW = f"{CAPTION}\t7\t{IN_BASE64}"


def tsv_case(input, *lines, num_used=0, **result):
    """Return the case of an official TSV of lines, which include their ends."""
    return Case(input, file_writer("a.tsv", b"".join(map(to_bytes, lines))), num_used=num_used, **result)


def jsonl_case(input, *lines, num_used=0, spoil=lambda folder: None, add_files=lambda folder: None, **result):
    """Return the case of JSON lines next to 0.png and other files."""

    def make(folder):
        (folder / "0.png").write_bytes(GOOD)
        add_files(folder)
        return file_writer("a.jsonl", b"".join(map(to_bytes, lines)))(folder)

    return Case(input, make, num_used=num_used, spoil=spoil, **result)


def parquet_case(input, rows, spoil_file=lambda path: None, options=None, **result):
    """Return the case of a Parquet file of two rows a group.

    Args:
        rows: list of rows, a table, or a function that returns a table.
        spoil_file: changes the file after it was written.
        options: of `write_table`.
    """

    def make(folder):
        path = folder / "a.parquet"
        table = rows() if callable(rows) else rows
        if isinstance(table, list):
            table = pa.Table.from_pylist(table)
        defaults = {"row_group_size": 2, "compression": "none", "use_dictionary": False, "write_statistics": False}
        pq.write_table(table, path, **defaults | (options or {}))
        spoil_file(path)
        return path

    return Case(input, make, **result)


def repeat_tags(count):
    """Return a function that makes a row of so many equal tags of a MiB."""

    def make():
        tags = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array(["x" * 2**20]))
        return pa.table({"jpg": [GOOD], "caption": [CAPTION], "tags": pa.ListArray.from_arrays([0, count], tags)})

    return make


def repeat_nulls(rows, count):
    """Return a function that makes rows with a list of so many nulls each; all rows share one list in memory."""

    def make():
        nulls = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), pa.nulls(count, pa.int8()))
        return pa.concat_tables([pa.table({"jpg": [GOOD], "caption": [CAPTION], "x": nulls})] * rows)

    return make


def write_deep_schema(path):
    """Write a footer of 30,000 nested groups in Thrift's compact protocol; Arrow reads it by recursion."""
    group, leaf = b"\x35\0\x18\x01g\x15\x02\0", b"\x15\x02\x25\0\x18\x01x\0"
    schema = b"\x15\x02\x19\xfc" + b"\xb2\xea\x01" + group * 30_001 + leaf  # version 1; 30,002 elements
    footer = schema + b"\x16\0\x19\x0c\0"  # no rows, no row groups
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def clip_case(input, texts, num_used=0, more_images="", **result):
    """Return the case of Chinese-CLIP's files: the image 7, more lines of images, and rows of texts in JSON."""

    def make(folder):
        (folder / "train_imgs.tsv").write_text(f"7\t{IN_BASE64}\n{more_images}")
        if texts is not None:
            (folder / "train_texts.jsonl").write_bytes(b"".join(row + b"\n" for row in texts))
        return folder / "train_imgs.tsv"

    return Case(input, make, num_used=num_used, **result)


def database_case(input, pairs, images, num_used=0, cut=None, **result):
    """Return the case of Chinese-CLIP's two databases of raw keys and values; the one that `cut` names is truncated."""

    def make(folder):
        for name, entries in (("pairs", pairs), ("imgs", images)):
            path = folder / "train" / name
            path.mkdir(parents=True)
            with lmdb.open(str(path), map_size=2**24) as environment, environment.begin(write=True) as transaction:
                for key, value in entries.items():
                    transaction.put(key, value)
            if name == cut:
                keep_half(path / "data.mdb")
        return folder / "train"

    return Case(input, make, num_used=num_used, **result)


def coco_cn_writer(images):
    """Return `make` of COCO-CN's files with some image files; one caption is empty, one has an unknown image."""

    def make(folder):
        (folder / "coco-cn_train.txt").write_text("0\n1\n")
        (folder / "imageid.human-written-caption.txt").write_text("0#0\tx\n0#1\t \n2#0\tz")
        (folder / "train2014").mkdir()
        for name in images:
            (folder / "train2014" / f"{name}.jpg").write_bytes(GOOD)
        return folder

    return make


def damage_first_group(path):
    """Overwrite the header of the first page."""
    with path.open("r+b") as file:
        file.seek(4)
        file.write(b"\xff" * 12)


def keep_half(path):
    os.truncate(path, path.stat().st_size // 2)


def write_large_row(folder):
    """Write a TSV whose second row is a hole of more than 256 MiB, which takes no room on the disk."""
    with (folder / "a.tsv").open("wb") as out:
        out.write(f"{ROW}\n".encode())
        out.seek(MAX_BYTES + 1, os.SEEK_CUR)
        out.write(b"\n")
    return folder / "a.tsv"


def files_writer(**content):
    """Return `make` of a folder of files; an underscore stands for the dot of a name."""

    def make(folder):
        for name, data in content.items():
            (folder / name.replace("_", ".")).write_bytes(to_bytes(data))
        return folder

    return make


def write_unreadable_image(folder):
    (folder / "1.png").write_bytes(GOOD)
    (folder / "1.png").chmod(0)


def check_first_image(samples):
    assert [sample.image for sample in samples] == [GOOD]


def check_two_captions(samples):
    assert [sample.caption("en") for sample in samples] == [CAPTION, CAPTION]


def dump_row(image="0.png", text=CAPTION, **more):
    return dump_json(image=image, text=text, **more) + b"\n"


PAIR = pickle.dumps(("7", "1", CAPTION))
# A position in the memo, and lengths of bytes, of a number and of a frame: Python allocates so much before it reads on.
BOMBS = [
    b"\x80\x03N" + pickle.LONG_BINPUT + (2**27).to_bytes(4, "little") + b".",
    b"\x80\x04" + pickle.BINBYTES8 + (2**32).to_bytes(8, "little") + b".",
    b"\x80\x05" + pickle.BYTEARRAY8 + (2**32).to_bytes(8, "little") + b".",
    b"\x80\x02" + pickle.LONG4 + (2**31 - 1).to_bytes(4, "little") + b".",
    b"\x80\x04" + pickle.FRAME + (2**40).to_bytes(8, "little") + b"N.",
]
IMAGES = {b"7": base64.b64encode(GOOD)}
GOOD_ROW = {"jpg": GOOD, "caption": CAPTION, "key": "0"}
TEXT = dump_json(text_id=1, text=CAPTION, image_ids=[7])
NOT_UTF8 = pa.table({"jpg": [GOOD], "caption": pa.array([b"\xff"]).view(pa.utf8())})


CASES = [
    tsv_case("TSV row without text", f"{ROW}\n", f"\t7\t{IN_BASE64}\n", num_used=1, skips={Reason.EMPTY_CAPTION: 1}),
    tsv_case("TSV row without image", f"{ROW}\n", f"{CAPTION}\n", f"{CAPTION}\t7\n", num_used=1,
             skips={Reason.MALFORMED_ROW: 1, Reason.MALFORMED_BASE64: 1}),
    tsv_case("TSV in UTF-16", f"{ROW}\n".encode("utf-16"), skips={Reason.NOT_UTF8: 1, Reason.MALFORMED_ROW: 1}),
    tsv_case("TSV rows that end in CRLF", f"{ROW}\r\n{ROW}\r\n", num_used=2, check=check_two_captions),
    tsv_case("byte order mark before a TSV", f"\ufeff{ROW}\n{ROW}\n", num_used=2, check=check_two_captions,
             note="dropped"),
    tsv_case("TSV of zero bytes", error="no rows in this file; is it whole?"),
    Case("TSV row of more than 256 MiB", write_large_row, num_used=1, skips={Reason.TOO_LARGE: 1}),
    jsonl_case("last JSON line, cut off", dump_row(), dump_row()[:-5], num_used=1, skips={Reason.MALFORMED_JSON: 1}),
    jsonl_case("JSON lines with CRLF, blank lines and byte order mark", b"\xef\xbb\xbf", dump_row()[:-1],
               b"\r\n\r\n \n", dump_row(), num_used=2, check=check_two_captions),
    jsonl_case("JSON line of more than 4 MiB", dump_row(), dump_row(x=[[]] * 1_500_000), num_used=1,
               skips={Reason.TOO_MUCH_TEXT: 1}),
    jsonl_case("row without image column", dump_row(), dump_json(text=CAPTION), num_used=1, skips={Reason.NO_IMAGE: 1}),
    jsonl_case("image that is not there", dump_row(), dump_row("1.png"), num_used=1, skips={Reason.MISSING_IMAGE: 1}),
    jsonl_case("image outside the folder", dump_row(), dump_row("../0.png"), dump_row("/etc/passwd"),
               dump_row("a\0.png"), num_used=1, skips={Reason.OUTSIDE_FOLDER: 3}),
    jsonl_case("image name of 5,000 characters", dump_row(), dump_row("x" * 5000), num_used=1,
               skips={Reason.UNREADABLE_FILE: 1}),
    jsonl_case("image that is a pipe", dump_row(), dump_row("p"), num_used=1, skips={Reason.UNREADABLE_FILE: 1},
               add_files=lambda folder: os.mkfifo(folder / "p")),
    jsonl_case("image that may not be read", dump_row(), dump_row("1.png"), num_used=1,
               skips={Reason.UNREADABLE_FILE: 1}, add_files=write_unreadable_image, context=without_privileges,
               note="the rest of the table"),
    jsonl_case("image removed while a run goes on", dump_row(), dump_row("1.png"), num_used=1,
               skips={Reason.MISSING_IMAGE: 1}, add_files=lambda folder: (folder / "1.png").write_bytes(GOOD),
               spoil=lambda folder: (folder / "1.png").unlink()),
    jsonl_case("table appended to while a run goes on", dump_row(), dump_row(), skips={Reason.UNREADABLE_FILE: 2},
               spoil=lambda folder: (folder / "a.jsonl").write_bytes(3 * dump_row())),
    Case("CSV without image column", file_writer("a.csv", "text\na\n"),
         error="columns here: text; one must be image, or"),
    Case("CSV with an open quotation mark", file_writer("a.csv", 'image,text\n0.png,"a\n'), error="not a CSV file"),
    Case("CSV row of more than 4 MiB", file_writer("a.csv", f"image,text\n0.png,{',x' * 3_000_000}\n"),
         error="a row of more than 4194304 bytes; is this a CSV file?"),
    parquet_case("Parquet row without image", [GOOD_ROW, GOOD_ROW | {"jpg": None}], num_used=1,
                 skips={Reason.NO_IMAGE: 1}),
    parquet_case("Parquet text that is not UTF-8", NOT_UTF8, skips={Reason.NOT_UTF8: 1}),
    parquet_case("Parquet, a row group damaged", [GOOD_ROW] * 4, damage_first_group, num_used=2,
                 skips={Reason.UNREADABLE_FILE: 2}, note="the other row groups"),
    parquet_case("Parquet of 3 kB whose row means 4 GiB", repeat_tags(4096), skips={Reason.TOO_LARGE: 1},
                 options={"dictionary_pagesize_limit": 2**22, "use_dictionary": True, "compression": "zstd",
                          "store_schema": False}),
    parquet_case("Parquet of 3 kB whose row group means 67 million nulls", repeat_nulls(16, 2**22),
                 skips={Reason.LARGE_GROUP: 16}, options={"row_group_size": 16, "use_dictionary": True}),
    parquet_case("Parquet whose schema has 30,000 columns within each other", [GOOD_ROW], write_deep_schema,
                 error="not a Parquet file"),
    parquet_case("Parquet, cut off", [GOOD_ROW] * 4, keep_half, error="not a Parquet file"),
    Case("pipe named x.parquet", lambda folder: os.mkfifo(folder / "a.parquet") or folder / "a.parquet",
         error="not an ordinary file"),
    clip_case("Chinese-CLIP text without image", [TEXT, dump_json(text_id=2, text="x", image_ids=[])], num_used=1,
              skips={Reason.TEXT_WITHOUT_IMAGE: 1}),
    clip_case("Chinese-CLIP image id that repeats", [TEXT], num_used=1, more_images="7\tAAAA\n", note="the first image",
              check=check_first_image),
    clip_case("Chinese-CLIP images without texts", None, error="the texts are missing; put"),
    database_case("LMDB pair with an image id of 5,000 digits",
                  {b"num_samples": b"2", b"0": PAIR, b"1": pickle.dumps((10**5000, 1, CAPTION))}, IMAGES, num_used=1,
                  skips={Reason.MALFORMED_ROW: 1}),
    database_case("LMDB pairs of 14 bytes whose pickles ask for gigabytes",
                  {b"num_samples": b"%d" % len(BOMBS), **{b"%d" % row: bomb for row, bomb in enumerate(BOMBS)}}, IMAGES,
                  skips={Reason.MALFORMED_ROW: len(BOMBS)}),
    database_case("LMDB pair of more than 4 MiB",
                  {b"num_samples": b"2", b"0": PAIR, b"1": pickle.dumps(("7", "1", "x" * MAX_TEXT_BYTES))}, IMAGES,
                  num_used=1, skips={Reason.TOO_MUCH_TEXT: 1}),
    database_case("LMDB without num_samples", {b"0": PAIR}, IMAGES, error="does not say its num_samples"),
    database_case("LMDB of fewer pairs than it says", {b"num_samples": b"9" * 20, b"0": PAIR}, IMAGES,
                  error="was it built to the end?"),
    database_case("LMDB, cut off", {b"num_samples": b"400", **{b"%d" % row: PAIR * 20 for row in range(400)}}, IMAGES,
                  cut="pairs", error="copy or build it again"),
    Case("benchmark whose captions are empty or of no image", coco_cn_writer("01"), num_used=1,
         skips={Reason.EMPTY_TEXT: 1, Reason.UNMATCHED_IMAGE: 1}, note="of any published benchmark"),
    Case("benchmark of which no image is there", coco_cn_writer(""), error="no image file was found"),
    Case("image in a folder without texts", files_writer(**{"0_png": GOOD, "0_txt": CAPTION, "1_png": GOOD}),
         num_used=1, skips={Reason.NO_CAPTION: 1}),
    Case("folder of samples that loses a file",
         files_writer(**{"0_png": GOOD, "0_txt": CAPTION, "1_png": GOOD, "1_txt": "x"}),
         skips={Reason.UNREADABLE_FILE: 2},
         spoil=lambda folder: [(folder / name).unlink() for name in ("1.png", "1.txt")]),
    Case("folder that is removed while a run goes on", files_writer(**{"0_png": GOOD, "0_txt": CAPTION}),
         skips={Reason.UNREADABLE_FILE: 1}, spoil=lambda folder: shutil.rmtree(folder) or folder.mkdir()),
]  # fmt: skip
