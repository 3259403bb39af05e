"""Tar shards that are damaged, hostile, or none."""

import gzip
import os
import tarfile

from ernie_vil2.data.samples import MAX_BYTES, MAX_TEXT_BYTES, Reason, content_id
from tests.hostile.bad_input.case import CAPTION, GOOD, Case, file, header, member, members, without_privileges
from tests.support.shapes import write_tar

OK = member("0.png", GOOD) + member("0.txt", CAPTION.encode())
END = bytes(1024)
SECOND = member("1.png", GOOD) + member("1.txt", CAPTION.encode())
WHOLE = OK + SECOND + END


def raw(content, name="a.tar"):
    return file(name, content)


def good_and(reason, *parts):
    """`make`, used and skipped of a shard with one good sample and one that is not."""
    return {"make": raw(OK + b"".join(parts) + END), "used": 1, "skipped": {reason: 1}}


def with_size(name, size):
    """The header of a member of any size, negative ones too."""
    content = bytearray(header(name))
    content[124:136] = (b"\xff" if size < 0 else b"\x80") + size.to_bytes(11, "big", signed=True)
    return of_type(b"0", bytes(content))


def of_type(kind, head):
    """A header with another type of member, and a checksum that is right."""
    content = bytearray(head)
    content[156:157] = kind
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content)
    return bytes(content)


def sparse_file(folder):
    """A shard whose image is a hole of more than 256 MiB, which takes no room on the disk."""
    size = -(-(MAX_BYTES + 1) // 512) * 512
    with (folder / "a.tar").open("wb") as out:
        out.write(OK + with_size("1.png", size))
        out.seek(size, os.SEEK_CUR)
        out.write(member("1.txt", CAPTION.encode()) + END)
    return folder / "a.tar"


def device(folder):
    (folder / "a.tar").symlink_to("/dev/zero")
    return folder / "a.tar"


def without_permission(folder):
    path = raw(WHOLE)(folder)
    path.chmod(0)
    return path


def is_sample_0(samples):
    assert [(sample.image_name, sample.image, sample.caption("en")) for sample in samples] == [("0", GOOD, CAPTION)]


def two_of_a_name(samples):
    assert [(sample.image_name, sample.caption("en")) for sample in samples] == [("0", CAPTION), ("0", "another")]


def first_image(samples):
    assert [sample.image for sample in samples] == [GOOD]


def keys_begin_again(folder):
    write_tar(folder / "a.tar", [("0.png", GOOD), ("0.txt", b"x")])
    write_tar(folder / "b.tar", [("0.png", GOOD + b" "), ("0.txt", b"y")])
    return folder


def two_images(samples):
    assert [sample.image_name for sample in samples] == ["0", "0"]
    assert len({content_id(sample.image_name, sample.image) for sample in samples}) == 2


LONG_JSON = b'{"caption": "a red disc", "x": [' + b"[]," * (MAX_TEXT_BYTES // 3) + b"0]}"

CASES = [
    Case("shard, cut within an image", raw((OK + SECOND)[: len(OK) + 700]), used=1, skipped={Reason.CUT_SHARD: 1},
         check=is_sample_0, note="the samples before the cut"),
    Case("shard, cut between two samples", raw(OK), used=1, skipped={Reason.CUT_SHARD: 1}, check=is_sample_0),
    Case("shard with a damaged header in the middle", raw(OK + bytes([0x55]) * 512 + SECOND + END), used=1,
         skipped={Reason.CUT_SHARD: 1}, check=is_sample_0, note="the samples before it"),
    Case("two shards joined by cat", raw(OK + END + SECOND + END), used=1, skipped={Reason.DATA_BEHIND: 1},
         check=is_sample_0, note="the first shard"),
    Case("shard without members", raw(END), skipped={Reason.EMPTY_SHARD: 1}),
    Case("shard of zero bytes", raw(b""), stopped="not a tar shard (empty file); is it whole?"),
    Case("HTML page saved as .tar", raw(b"<html>404 Not Found</html>" * 99), stopped="not a tar shard"),
    Case("shard compressed with gzip, named .tar", raw(gzip.compress(WHOLE)), stopped="compressed with gzip"),
    Case("shard compressed with zstd, named .tar", raw(b"\x28\xb5\x2f\xfd" + WHOLE[:99]), stopped="with zstd"),
    Case("member whose name has ../", **good_and(Reason.OUTSIDE_SHARD, member("../1.png", GOOD))),
    Case("member with an absolute path", **good_and(Reason.OUTSIDE_SHARD, member("/tmp/1.png", GOOD))),  # noqa: S108  -- a name alone, nothing is written there
    Case("symbolic link in a shard",
         **good_and(Reason.LINK, header("1.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"))),
    Case("hard link in a shard", **good_and(Reason.LINK, header("1.png", type=tarfile.LNKTYPE, linkname="0.png"))),
    Case("device in a shard", **good_and(Reason.DEVICE, header("1.png", type=tarfile.CHRTYPE, devmajor=1, devminor=5))),
    Case("member name that is not UTF-8", **good_and(Reason.NAME_NOT_UTF8, member("\udcff.png", GOOD))),
    Case("member of more than 256 MiB", sparse_file, used=1, skipped={Reason.TOO_LARGE: 1}, check=is_sample_0),
    Case("JSON of more than 4 MiB",
         members(("0.png", GOOD), ("0.txt", CAPTION), ("1.png", GOOD), ("1.json", LONG_JSON)), used=1,
         skipped={Reason.TOO_MUCH_TEXT: 1}),
    *(
        Case(input, raw(OK + content + END), used=1, skipped={Reason.CUT_SHARD: 1}, check=is_sample_0)
        for input, content in (
            ("member that claims more bytes than the shard has", with_size("1.png", 2**40)),
            ("member of a size below zero", with_size("1.png", -1024)),
            ("sparse member that leads back", of_type(b"S", with_size("1.png", -1024))),
            ("header that claims a gigabyte for a name", of_type(b"L", with_size("././@LongLink", 2**30))),
            ("3,000 long names in a row", member("././@LongLink", b"a.png\0", type=b"L") * 3000 + SECOND),
            ("extended header without sense", member("pax", b"25 GNU.sparse.size=abcde\n", type=b"x") + SECOND),
        )
    ),
    Case("sample without texts", **good_and(Reason.NO_CAPTION, member("1.png", GOOD))),
    Case("image with an unknown suffix", **good_and(Reason.NO_IMAGE_MEMBER, member("1.heic", GOOD),
                                                  member("1.txt", CAPTION.encode()))),
    Case("name that repeats", members(("0.png", GOOD), ("0.txt", CAPTION), ("0.png", GOOD), ("0.txt", "another")),
         used=2, note="a new sample", check=two_of_a_name),
    Case("two images in one sample", members(("0.png", GOOD), ("0.jpg", b"x"), ("0.txt", CAPTION)), used=1,
         note="the first", check=first_image),
    Case("shards in which keys begin again", keys_begin_again, used=2, note="both; for the loss they are two images",
         check=two_images),
    Case("device named x.tar", device, stopped="write it to a disk first"),
    Case("shard that may not be read", without_permission, stopped="and may be read by this user",
         within=without_privileges),
    Case("list that names itself", file("a.txt", "a.txt\n"), stopped="name the files themselves"),
    Case("list that names nothing", file("a.txt", "# later\n"), stopped="a list holds a path or address a line"),
    Case("shard replaced by another one", raw(WHOLE), skipped={Reason.UNREADABLE_FILE: 2},
         spoil=lambda folder: raw(OK + END)(folder)),
]  # fmt: skip
