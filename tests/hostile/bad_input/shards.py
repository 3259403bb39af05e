"""Cases of tar shards that are damaged or hostile, and of files that are no shards."""

import gzip
import os
import tarfile

from ernie_vil2.data.samples import MAX_BYTES, MAX_TEXT_BYTES, Reason, hash_id
from tests.hostile.bad_input.case import (
    CAPTION,
    GOOD,
    Case,
    file_writer,
    make_header,
    make_member,
    members_writer,
    without_privileges,
)
from tests.support.shapes import write_tar

OK = make_member("0.png", GOOD) + make_member("0.txt", CAPTION.encode())
END = bytes(1024)
SECOND = make_member("1.png", GOOD) + make_member("1.txt", CAPTION.encode())
WHOLE = OK + SECOND + END


def tar_writer(content, name="a.tar"):
    return file_writer(name, content)


def one_bad_sample(reason, *members):
    """Return arguments of a case: a shard with a good sample, and with one that is skipped for a reason."""
    return {"make": tar_writer(OK + b"".join(members) + END), "num_used": 1, "skips": {reason: 1}}


def make_sized_header(name, size):
    """Return the header of a member of any size, which may be negative."""
    content = bytearray(make_header(name))
    # The field of the size, as a number of 12 bytes whose first one marks it as binary.
    content[124:136] = (b"\xff" if size < 0 else b"\x80") + size.to_bytes(11, "big", signed=True)
    return change_type(b"0", bytes(content))


def change_type(kind, header):
    """Return a header with another type of member and a valid checksum."""
    content = bytearray(header)
    content[156:157] = kind
    content[148:156] = b" " * 8  # the checksum is computed with spaces in its place
    content[148:156] = b"%06o\0 " % sum(content)
    return bytes(content)


def write_sparse_shard(folder):
    """Write a shard whose second image is a hole of more than 256 MiB, which takes no room on the disk."""
    size = -(-(MAX_BYTES + 1) // 512) * 512
    with (folder / "a.tar").open("wb") as out:
        out.write(OK + make_sized_header("1.png", size))
        out.seek(size, os.SEEK_CUR)
        out.write(make_member("1.txt", CAPTION.encode()) + END)
    return folder / "a.tar"


def link_device(folder):
    (folder / "a.tar").symlink_to("/dev/zero")
    return folder / "a.tar"


def write_unreadable_shard(folder):
    path = tar_writer(WHOLE)(folder)
    path.chmod(0)
    return path


def check_sample_0(samples):
    assert [(sample.image_name, sample.image, sample.caption("en")) for sample in samples] == [("0", GOOD, CAPTION)]


def check_two_captions(samples):
    assert [(sample.image_name, sample.caption("en")) for sample in samples] == [("0", CAPTION), ("0", "another")]


def check_first_image(samples):
    assert [sample.image for sample in samples] == [GOOD]


def write_shards_of_equal_keys(folder):
    write_tar(folder / "a.tar", [("0.png", GOOD), ("0.txt", b"x")])
    write_tar(folder / "b.tar", [("0.png", GOOD + b" "), ("0.txt", b"y")])
    return folder


def check_two_images(samples):
    assert [sample.image_name for sample in samples] == ["0", "0"]
    assert len({hash_id(sample.image_name, sample.image) for sample in samples}) == 2


LONG_JSON = b'{"caption": "a red disc", "x": [' + b"[]," * (MAX_TEXT_BYTES // 3) + b"0]}"

CASES = [
    Case("shard, cut within an image", tar_writer((OK + SECOND)[: len(OK) + 700]), num_used=1,
         skips={Reason.CUT_SHARD: 1}, check=check_sample_0, note="the samples before the cut"),
    Case("shard, cut between two samples", tar_writer(OK), num_used=1, skips={Reason.CUT_SHARD: 1},
         check=check_sample_0),
    Case("shard with a damaged header in the middle", tar_writer(OK + bytes([0x55]) * 512 + SECOND + END), num_used=1,
         skips={Reason.CUT_SHARD: 1}, check=check_sample_0, note="the samples before it"),
    Case("two shards joined by cat", tar_writer(OK + END + SECOND + END), num_used=1, skips={Reason.DATA_BEHIND: 1},
         check=check_sample_0, note="the first shard"),
    Case("shard without members", tar_writer(END), skips={Reason.EMPTY_SHARD: 1}),
    Case("shard of zero bytes", tar_writer(b""), error="not a tar shard (empty file); is it whole?"),
    Case("HTML page saved as .tar", tar_writer(b"<html>404 Not Found</html>" * 99), error="not a tar shard"),
    Case("shard compressed with gzip, named .tar", tar_writer(gzip.compress(WHOLE)), error="compressed with gzip"),
    Case("shard compressed with zstd, named .tar", tar_writer(b"\x28\xb5\x2f\xfd" + WHOLE[:99]), error="with zstd"),
    Case("member whose name has ../", **one_bad_sample(Reason.OUTSIDE_SHARD, make_member("../1.png", GOOD))),
    Case("member with an absolute path", **one_bad_sample(Reason.OUTSIDE_SHARD, make_member("/tmp/1.png", GOOD))),  # noqa: S108  -- a name alone, nothing is written there
    Case("symbolic link in a shard",
         **one_bad_sample(Reason.LINK, make_header("1.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"))),
    Case("hard link in a shard",
         **one_bad_sample(Reason.LINK, make_header("1.png", type=tarfile.LNKTYPE, linkname="0.png"))),
    Case("device in a shard",
         **one_bad_sample(Reason.DEVICE, make_header("1.png", type=tarfile.CHRTYPE, devmajor=1, devminor=5))),
    Case("member name that is not UTF-8", **one_bad_sample(Reason.NAME_NOT_UTF8, make_member("\udcff.png", GOOD))),
    Case("member of more than 256 MiB", write_sparse_shard, num_used=1, skips={Reason.TOO_LARGE: 1},
         check=check_sample_0),
    Case("JSON of more than 4 MiB",
         members_writer(("0.png", GOOD), ("0.txt", CAPTION), ("1.png", GOOD), ("1.json", LONG_JSON)), num_used=1,
         skips={Reason.TOO_MUCH_TEXT: 1}),
    *(
        Case(input, tar_writer(OK + content + END), num_used=1, skips={Reason.CUT_SHARD: 1}, check=check_sample_0)
        for input, content in (
            ("member that claims more bytes than the shard has", make_sized_header("1.png", 2**40)),
            ("member of a size below zero", make_sized_header("1.png", -1024)),
            ("sparse member that leads back", change_type(b"S", make_sized_header("1.png", -1024))),
            ("header that claims a gigabyte for a name", change_type(b"L", make_sized_header("././@LongLink", 2**30))),
            ("3,000 long names in a row", make_member("././@LongLink", b"a.png\0", type=b"L") * 3000 + SECOND),
            ("extended header without sense", make_member("pax", b"25 GNU.sparse.size=abcde\n", type=b"x") + SECOND),
        )
    ),
    Case("sample without texts", **one_bad_sample(Reason.NO_CAPTION, make_member("1.png", GOOD))),
    Case("image with an unknown suffix",
         **one_bad_sample(Reason.NO_IMAGE_MEMBER, make_member("1.heic", GOOD), make_member("1.txt", CAPTION.encode()))),
    Case("name that repeats",
         members_writer(("0.png", GOOD), ("0.txt", CAPTION), ("0.png", GOOD), ("0.txt", "another")), num_used=2,
         note="a new sample", check=check_two_captions),
    Case("two images in one sample", members_writer(("0.png", GOOD), ("0.jpg", b"x"), ("0.txt", CAPTION)), num_used=1,
         note="the first", check=check_first_image),
    Case("shards in which keys begin again", write_shards_of_equal_keys, num_used=2,
         note="both; for the loss they are two images", check=check_two_images),
    Case("device named x.tar", link_device, error="write it to a disk first"),
    Case("shard that may not be read", write_unreadable_shard, error="and may be read by this user",
         context=without_privileges),
    Case("list that names itself", file_writer("a.txt", "a.txt\n"), error="name the files themselves"),
    Case("list that names nothing", file_writer("a.txt", "# later\n"), error="a list holds a path or address a line"),
    Case("shard replaced by another one", tar_writer(WHOLE), skips={Reason.UNREADABLE_FILE: 2},
         spoil=lambda folder: tar_writer(OK + END)(folder)),
]  # fmt: skip
