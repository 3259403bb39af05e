"""Cases of captions, tags and JSON that are damaged, unusual or missing."""

from functools import partial

from ernie_vil2.data.samples import MAX_CHARACTERS, SEVERAL_LINES, Reason
from ernie_vil2.data.tokenizer import WordPieceTokenizer
from tests.hostile.bad_input.case import CAPTION, GOOD, Case, dump_json, members_writer, shard_writer


def caption_case(input, text, reason=None, reads_as=None, **details):
    """Return the case of a caption in a .txt, which is skipped for a reason, or has the tokens of `reads_as`."""

    def check(samples):
        tokenizer = WordPieceTokenizer(max_length=24)
        for sample in samples:
            assert tokenizer.encode(sample.caption("en")) == tokenizer.encode(reads_as)

    make = shard_writer((GOOD, text))
    if reason:
        return Case(input, make, skips={reason: 1})
    return Case(input, make, num_used=1, check=check, **details)


def fields_case(input, content, reason=None, note="", check=lambda samples: None):
    """Return the case of a .json next to an image."""
    make = members_writer(("0.png", GOOD), ("0.json", content))
    if reason:
        return Case(input, make, skips={reason: 1})
    return Case(input, make, num_used=1, note=note, check=check)


def nest_arrays(depth):
    return b'{"caption": "a red disc", "x": ' + b"[" * depth + b"]" * depth + b"}"


def check_tags(tags, samples):
    assert [sample.tag_list("en") for sample in samples] == [tags]


LONG = "a red disc and " * 700  # 10,500 characters
TAGS = tuple(f"tag{number}" for number in range(10_000))

CASES = [
    caption_case("caption of spaces, wide ones too", " \t\u3000\u2003\n", Reason.EMPTY_CAPTION),
    caption_case("caption of control and zero-width characters", "\0\x07\u200b\u200d\ufeff", Reason.EMPTY_CAPTION),
    caption_case("NUL and control characters in a caption", "a r\0ed\x1b \x07disc\r\n", reads_as=CAPTION,
                 note="the tokenizer drops them"),
    caption_case("byte order mark before a caption", "\ufeffa red disc", reads_as=CAPTION, note="dropped"),
    caption_case("caption of several lines", "a red\ndisc", reads_as=CAPTION,
                 note="each line is a text where `Views.caption_lines` says so", remark=SEVERAL_LINES),
    caption_case("HTML in a caption", "<b>a</b> red", reads_as="<b>a</b> red", note="as it is written"),
    caption_case("caption of 10,500 characters", LONG, reads_as=LONG[:300], note="cut to Data.max_length tokens"),
    caption_case("caption of more than 100,000 characters", "圆" * (MAX_CHARACTERS + 1), Reason.TEXT_TOO_LONG),
    caption_case("Chinese caption in GBK", "红色的圆".encode("gbk"), Reason.CAPTION_NOT_UTF8),
    caption_case("caption in UTF-16", CAPTION.encode("utf-16"), Reason.CAPTION_NOT_UTF8),
    fields_case("half a character as JSON escape (\\ud800)", b'{"caption": "a \\ud800 disc"}', Reason.NOT_UNICODE),
    fields_case("caption that is a number", dump_json(caption=7), Reason.MALFORMED_CAPTION),
    fields_case("caption that is null", dump_json(caption=None), Reason.NO_CAPTION),
    fields_case("JSON without a caption", dump_json(text_id=7), Reason.NO_CAPTION),
    fields_case("tags that are one text", dump_json(caption=CAPTION, tags="red|disc"), Reason.MALFORMED_TAGS),
    fields_case("tags with numbers among them", dump_json(caption=CAPTION, tags=["red", 7]), Reason.MALFORMED_TAGS),
    fields_case("tags that are blank", dump_json(caption=CAPTION, tags=["", " ", "red", "\u200b"]), note="dropped",
                check=partial(check_tags, ("red",))),
    fields_case("10,000 tags", dump_json(caption=CAPTION, tags=TAGS), check=partial(check_tags, TAGS),
                note="cut to Data.max_length tokens"),
    fields_case("100,000 tags", dump_json(caption=CAPTION, tags=["red"] * 100_000), Reason.TEXT_TOO_LONG),
    fields_case("JSON, cut off", dump_json(caption=CAPTION)[:-4], Reason.MALFORMED_JSON),
    fields_case("JSON that is an array", b'["a red disc"]', Reason.MALFORMED_JSON),
    fields_case("JSON, 100,000 brackets deep", nest_arrays(100_000), Reason.MALFORMED_JSON),
    fields_case("whole number of 5,000 digits in JSON", b'{"caption": "a red disc", "x": ' + b"7" * 5000 + b"}",
                Reason.MALFORMED_JSON),
    fields_case("NaN and Infinity in JSON", b'{"caption": "a red disc", "x": NaN, "y": -Infinity}', note="as fields"),
    fields_case("NaN as image id", b'{"caption": "a red disc", "image_id": NaN}', Reason.MALFORMED_IMAGE_ID),
    fields_case("key that occurs twice in JSON", b'{"caption": "x", "caption": "a red disc"}', Reason.REPEATED_KEY),
    fields_case("byte order mark before JSON", b"\xef\xbb\xbf" + dump_json(caption=CAPTION), note="dropped"),
    fields_case("JSON in UTF-16", dump_json(caption=CAPTION).decode().encode("utf-16"), note="as JSON allows"),
]  # fmt: skip
