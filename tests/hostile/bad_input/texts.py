"""Captions, tags and JSON that are damaged, unusual, or none."""

from functools import partial

from ernie_vil2.data.samples import MAX_CHARACTERS, SEVERAL_LINES, Reason
from ernie_vil2.data.tokenizer import WordPieceTokenizer
from tests.hostile.bad_input.case import CAPTION, GOOD, Case, as_json, members, shard


def caption(input, text, reason=None, reads_as=None, **used):
    """A caption in a .txt; it is used if no reason is given, and then the tokens are those of `reads_as`."""

    def check(samples):
        tokenizer = WordPieceTokenizer(max_length=24)
        for sample in samples:
            assert tokenizer.encode(sample.caption("en")) == tokenizer.encode(reads_as)

    make = shard((GOOD, text))
    return Case(input, make, skipped={reason: 1}) if reason else Case(input, make, used=1, check=check, **used)


def fields(input, content, reason=None, note="", check=lambda samples: None):
    """A .json next to an image."""
    make = members(("0.png", GOOD), ("0.json", content))
    return Case(input, make, skipped={reason: 1}) if reason else Case(input, make, used=1, note=note, check=check)


def nested(depth):
    return b'{"caption": "a red disc", "x": ' + b"[" * depth + b"]" * depth + b"}"


def has_tags(tags, samples):
    assert [sample.tag_list("en") for sample in samples] == [tags]


LONG = "a red disc and " * 700  # 10,500 characters
TAGS = tuple(f"tag{number}" for number in range(10_000))

CASES = [
    caption("caption of spaces, wide ones too", " \t\u3000\u2003\n", Reason.EMPTY_CAPTION),
    caption("caption of control and zero-width characters", "\0\x07\u200b\u200d\ufeff", Reason.EMPTY_CAPTION),
    caption("NUL and control characters in a caption", "a r\0ed\x1b \x07disc\r\n", reads_as=CAPTION,
            note="the tokeniser drops them"),
    caption("byte order mark before a caption", "\ufeffa red disc", reads_as=CAPTION, note="dropped"),
    caption("caption of several lines", "a red\ndisc", reads_as=CAPTION,
            note="each line is a text where `Views.caption_lines` says so", remark=SEVERAL_LINES),
    caption("HTML in a caption", "<b>a</b> red", reads_as="<b>a</b> red", note="as it is written"),
    caption("caption of 10,500 characters", LONG, reads_as=LONG[:300], note="cut to Data.max_length tokens"),
    caption("caption of more than 100,000 characters", "圆" * (MAX_CHARACTERS + 1), Reason.TEXT_TOO_LONG),
    caption("Chinese caption in GBK", "红色的圆".encode("gbk"), Reason.CAPTION_NOT_UTF8),
    caption("caption in UTF-16", CAPTION.encode("utf-16"), Reason.CAPTION_NOT_UTF8),
    fields("half a character as JSON escape (\\ud800)", b'{"caption": "a \\ud800 disc"}', Reason.NOT_UNICODE),
    fields("caption that is a number", as_json(caption=7), Reason.MALFORMED_CAPTION),
    fields("caption that is null", as_json(caption=None), Reason.NO_CAPTION),
    fields("JSON without a caption", as_json(text_id=7), Reason.NO_CAPTION),
    fields("tags that are one text", as_json(caption=CAPTION, tags="red|disc"), Reason.MALFORMED_TAGS),
    fields("tags with numbers among them", as_json(caption=CAPTION, tags=["red", 7]), Reason.MALFORMED_TAGS),
    fields("tags that are blank", as_json(caption=CAPTION, tags=["", " ", "red", "\u200b"]), note="dropped",
           check=partial(has_tags, ("red",))),
    fields("10,000 tags", as_json(caption=CAPTION, tags=TAGS), check=partial(has_tags, TAGS),
           note="cut to Data.max_length tokens"),
    fields("100,000 tags", as_json(caption=CAPTION, tags=["red"] * 100_000), Reason.TEXT_TOO_LONG),
    fields("JSON, cut off", as_json(caption=CAPTION)[:-4], Reason.MALFORMED_JSON),
    fields("JSON that is an array", b'["a red disc"]', Reason.MALFORMED_JSON),
    fields("JSON, 100,000 brackets deep", nested(100_000), Reason.MALFORMED_JSON),
    fields("whole number of 5,000 digits in JSON", b'{"caption": "a red disc", "x": ' + b"7" * 5000 + b"}",
           Reason.MALFORMED_JSON),
    fields("NaN and Infinity in JSON", b'{"caption": "a red disc", "x": NaN, "y": -Infinity}', note="as fields"),
    fields("NaN as image id", b'{"caption": "a red disc", "image_id": NaN}', Reason.MALFORMED_IMAGE_ID),
    fields("key that occurs twice in JSON", b'{"caption": "x", "caption": "a red disc"}', Reason.REPEATED_KEY),
    fields("byte order mark before JSON", b"\xef\xbb\xbf" + as_json(caption=CAPTION), note="dropped"),
    fields("JSON in UTF-16", as_json(caption=CAPTION).decode().encode("utf-16"), note="as JSON allows"),
]  # fmt: skip
