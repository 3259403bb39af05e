"""Rules of captions: those that are shipped, those of users, and that no caption makes them slow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie_vil2.apps.curation.caption_measures import MEASURES, measure_captions, simplify
from ernie_vil2.apps.curation.caption_rules import CaptionRule, CaptionRules, check_examples, load_rules
from ernie_vil2.apps.curation.languages import detect_language
from ernie_vil2.apps.curation.markup import strip_markup
from ernie_vil2.apps.curation.steps.near_texts import compute_likeness
from ernie_vil2.io.terminal import ConfigError
from tests.support.crawled_pairs import make_distinct_image, write_pair_shard
from tests.support.image_formats import encode_image
from tests.support.paths import ROOT

SHIPPED = ROOT / "configs" / "curate" / "rules" / "text.yaml"
GOOD_CAPTIONS = (ROOT / "tests" / "fixtures" / "good_captions.txt").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def shipped():
    return load_rules([SHIPPED])


def test_shipped_rules_do_what_their_examples_say(shipped):
    check_examples(shipped)


def test_what_one_rule_keeps_no_other_rule_removes(shipped):
    captions = []
    for rule in (shipped.removing | shipped.cutting).values():
        captions += rule.examples.kept
    faults = dict(zip(captions, shipped.find_faults(captions), strict=True))
    assert {caption: fault for caption, fault in faults.items() if fault} == {}


def test_good_captions_are_neither_cut_nor_removed(shipped):
    assert shipped.cut(GOOD_CAPTIONS) == GOOD_CAPTIONS
    faults = dict(zip(GOOD_CAPTIONS, shipped.find_faults(GOOD_CAPTIONS), strict=True))
    assert {caption: fault for caption, fault in faults.items() if fault} == {}


def test_most_japanese_captions_without_kana_are_told_from_chinese():
    captions = (ROOT / "tests" / "fixtures" / "japanese_captions.txt").read_text(encoding="utf-8").splitlines()
    assert sum(detect_language(caption) == "other" for caption in captions) >= 0.7 * len(captions)
    assert not any(detect_language(caption) == "other" for caption in GOOD_CAPTIONS)


def test_several_ends_are_cut_one_after_another(shipped):
    captions = ["Sunset over Bergen (AP Photo/Jane Doe) #norway #sea https://example.com/1", "https://example.com #sea"]
    assert shipped.cut(captions) == ["Sunset over Bergen", "https://example.com #sea"]


REMARKS = CaptionRule(why="asks", action="cut", remark=["read more", "likes? \\d+"])


@pytest.mark.parametrize(("caption", "expected"), [
    ("Two hats - read more", "Two hats"), ("Two hats. READ MORE >> like 5!", "Two hats."),
    ("Read more | two hats", "two hats"), ("Two hats read more", "Two hats read more"),
    ("Read more: like 5", "Read more: like 5"), ("He read more books", "He read more books"),
])  # fmt: skip
def test_remark_is_cut_only_where_a_mark_sets_it_apart(caption, expected):
    assert CaptionRules({"remark": REMARKS}).cut([caption]) == [expected]


def test_no_group_of_a_remark_stays():
    rule = CaptionRule(why="credits", action="cut", remark=["(photo|image) by (\\w+)"])
    captions = ["Photo by Jane | two hats", "Two hats | image by Joe", "Two hats! Photo by Jane"]
    assert CaptionRules({"credit": rule}).cut(captions) == ["two hats", "Two hats", "Two hats!"]


def test_caption_of_remarks_alone_is_removed():
    rules = CaptionRules({"remark": REMARKS})
    captions = ["Read more: like 5", "read more", "Two hats. Read more"]
    assert rules.find_faults(captions) == ["remark", "remark", None]


@pytest.mark.parametrize(("caption", "expected"), [
    ("Two red hats. Only 3 left! A sale ends", "Two red hats. Only 3 left!"),
    ("Sale ends soon! Two red hats. Next sale here", "Two red hats."), ("Two hats - a sale", "Two hats"),
    ("Two hats. A sale! Two coats.", "Two hats. A sale! Two coats."), ("A sale! On sale!", "A sale! On sale!"),
    ("Hats for sale", "Hats for sale"),
])  # fmt: skip
def test_faulty_sentences_go_only_around_good_ones(caption, expected):
    rules = {
        "sale": CaptionRule(why="offers", pattern=["sale"]),
        "cut": CaptionRule(why="x", action="cut", pattern=["never$"]),
    }
    assert CaptionRules(rules).cut([caption]) == [expected]


def test_caption_that_is_a_fault_is_not_cut_to_a_caption(shipped):
    captions = ["Photo: Jane Doe Images", "thanks @anna_b", "DSC_6853_copy.jpg"]
    assert shipped.cut(captions) == captions
    assert None not in shipped.find_faults(captions)


@pytest.mark.parametrize(("caption", "expected"), [
    ("<b>Red</b> hats<br/>on&nbsp;a table.</p>", "Red hats on a table."), ("Tom &amp;amp; Jerry", "Tom & Jerry"),
    ("A [cat](http://a.b/c) and a **dog**", "A cat and a dog"), ("[b]Two hats[/b]", "Two hats"),
    ("I <3 R&D; 1 < 2", "I <3 R&D; 1 < 2"), ("[1] a #1 hat", "[1] a #1 hat"),
    ('<p class="caption">hats</p>', '<p class="caption">hats</p>'), ("&nbsp; &nbsp;", "&nbsp; &nbsp;"),
    (f"Red &amp; blue\n{' ' * 40}<b>hats</b>", "Red & blue hats"),
])  # fmt: skip
def test_markup_is_left_out_unless_it_is_most_of_the_caption(caption, expected):
    assert strip_markup(caption) == expected


@given(st.text(alphabet='ab <>&;#[]()*_!/"='))
def test_plain_text_is_no_longer_than_markup(text):
    assert len(strip_markup(text)) <= len(text)


def test_a_text_is_foreign_by_one_clear_word_or_two_others():
    captions = ["Die Polizei sucht nach Zeugen", "Menghadiri acara pada 18 Maret", "20W LED Floodlights",
                "Logo de la SE", "Chateau de la Roche at dusk", "Cathedral Notre Dame de Paris",
                "Le chat dort sur la table"]  # fmt: skip
    languages = ["other", "other", "en", "en", "en", "en", "other"]
    assert list(map(detect_language, captions)) == languages


USER_RULES = """
our shop:
  why: our own name is in every caption
  action: cut
  pattern: ['\\s*-\\s*Example Shop$']
  examples: {cut: {'A red dress - Example Shop': A red dress}}
samples:
  why: the shop's swatches
  whole: ['swatch \\w+']
  above: {codes: 0.9}
  examples: {removed: [Swatch B12, XY1234], kept: [A swatch of cloth]}
address: {why: never, whole: [nothing], examples: {}}
"""


def test_users_add_and_replace_rules_and_leave_some_out(tmp_path, curated):
    (tmp_path / "rules.yaml").write_text(USER_RULES, encoding="utf-8")
    captions = ["Two red shoes on a table - Example Shop", "swatch lilac", "See https://a.com/b for the cat",
                "Call 13812345678 for this lamp", "XY1234"]  # fmt: skip
    rows = [(encode_image(make_distinct_image(number)), caption) for number, caption in enumerate(captions)]
    files = f"[configs/curate/rules/text.yaml, {tmp_path}/rules.yaml]"
    text = f"text_rules: {{rules: {files}, without: [contact, codes]}}"
    table = list(curated([write_pair_shard(tmp_path / "crawl.tar", rows)], text).values())
    assert [row["reason"] for row in table] == [None, "samples", None, None, "samples"]
    assert table[0]["caption"] == "Two red shoes on a table" and table[0]["cut_captions"] == [table[0]["caption"]]
    assert table[2]["caption"] == captions[2] and table[2]["cut_captions"] is None


def test_lists_of_words_stand_in_the_place_of_their_names(tmp_path):
    lists = "words: {days: [mon, tue], times: ['{days} ?\\d+', 'at noon', 'by [ ]']}\n"
    rules = (
        "time: {why: b, pattern: ['^{times}$', '^\\p{Han}{2}{days}$', '\\{days\\}', '^\\x{4E00}{days}?$']}\n"
        "year: {why: b, words: {years: ['2\\d', '{days} 3\\d']}, pattern: ['^year {years}$']}"
    )
    (tmp_path / "rules.yaml").write_text(lists + rules, encoding="utf-8")
    caption_rules = load_rules([tmp_path / "rules.yaml"])
    captions = [
        "mon12",
        "at  noon",
        "by  ",
        "今天Tue",
        "{days}",
        "一",
        "year 21",
        "year mon 31",
        "a mon 12",
        "{times}",
        "by x",
    ]
    faults = ["time", "time", None, "time", "time", "time", "year", "year", None, None, None]
    assert caption_rules.find_faults(captions) == faults


def test_lists_may_have_any_name(tmp_path):
    lists = "words: {Our_shops: [acme], 店名 2: [猫店]}\n"
    rules = "shop: {why: b, pattern: ['at {Our_shops}$', '{店名 2}', 'o{2,3}ps', 'a{3}', 'b{4,}']}"
    (tmp_path / "rules.yaml").write_text(lists + rules, encoding="utf-8")
    captions = ["a hat at Acme", "在猫店", "ooops", "aaa", "bbbb", "a hat"]
    assert load_rules([tmp_path / "rules.yaml"]).find_faults(captions) == [*["shop"] * 5, None]


@pytest.mark.parametrize(("pattern", "caption"), [
    (r"[[:space:](]+shop$", "two hats ( shop"), (r"[[:space:] ]+shop$", "two hats shop"),
    (r"\Q (Our {shop})\E$", "two hats (Our {shop})"), (r"( hats)(?: by \w+)$", "two hats by Joe"),
    (r"(?P<thing> hats) by \w+$", "two hats by Joe"),
])  # fmt: skip
def test_classes_quotations_and_groups_of_re2_are_understood(tmp_path, pattern, caption):
    (tmp_path / "rules.yaml").write_text(f"shop: {{why: b, action: cut, pattern: ['{pattern}']}}", encoding="utf-8")
    rules = load_rules([tmp_path / "rules.yaml"])
    check_examples(rules)
    assert rules.cut([caption, "two hats+shop"]) == ["two hats", "two hats+shop"]


def test_exception_keeps_captions_and_sentences_that_a_pattern_matches():
    sale = CaptionRule(why="offers", pattern=["sale"], whole=["buy"], unless=["a sign"])
    rules = CaptionRules({"sale": sale, "cut": CaptionRule(why="x", action="cut", pattern=["never$"])})
    captions = ["a sign of a sale", "a sale", "buy", "a sign. buy"]
    assert rules.find_faults(captions) == [None, "sale", "sale", None]
    assert rules.cut(["Two hats. A sale!", "Two hats. A sign of a sale!"]) == [
        "Two hats.",
        "Two hats. A sign of a sale!",
    ]


def test_a_cut_that_leaves_nothing_does_not_undo_other_cuts():
    rules = {name: CaptionRule(why="x", action="cut", pattern=[name]) for name in ("^.*©.*$", "^© \\w+: ", " tail$")}
    assert CaptionRules(rules).cut(["© Doe: two hats", "two © hats tail"]) == ["two hats", "two © hats"]


@pytest.mark.parametrize("face", ["(´･ω･`)", "(ง •̀_•́)ง", "ヽ(✿ﾟ▽ﾟ)ノ", "(づ｡◕‿‿◕｡)づ", "Σ(っ °Д °;)っ", "ʕ•ᴥ•ʔ", "ಠ_ಠ",
                                  "( ˘ ³˘)♥", "(╯°□°）╯︵ ┻━┻", "٩(๑❛ᴗ❛๑)۶", "(；′⌒`)"])  # fmt: skip
def test_faces_of_letters_and_marks_do_no_harm_to_a_caption(shipped, face):
    caption = f"蛋糕烤焦了 {face}"
    assert detect_language(caption) == "zh" and detect_language(f"ケーキ{face}") == "other"
    assert shipped.find_faults([caption, f"A burnt cake {face}"]) == [None, None]


def test_names_in_short_captions_are_no_foreign_text():
    captions = ["Pokémon cards", "São Paulo", "Škoda Octavia Combi", "Kırmızı elbiseli kadın", "Tänzer für Mädchen",
                "Al Gore", "Hay bales", "Plus Size Dress", "Robert De Niro", "Wir sind hier"]  # fmt: skip
    assert list(map(detect_language, captions)) == ["en", "en", "en", "other", "other", *["en"] * 4, "other"]


def test_characters_of_both_kinds_of_chinese_are_not_always_japanese():
    captions = ["藍色警車，送礼佳品", "紅色的紅苹果", "浅草雷門前", "無料駐車場", "会社概要", "紅色連衣裙"]
    assert list(map(detect_language, captions)) == ["zh", "zh", "other", "other", "other", "zh"]


@pytest.mark.parametrize(("text", "message"), [
    ("a: {why: b, pattern: ['{colours}']}", "colours"), ("words: {a: ['{b}'], b: [c]}", "'b'"),
    ("words: {a: red}", "words"), ("words: {a: []}", "words.a"),
    ("a: {why: b, words: {c: []}, pattern: ['{c}']}", "words.c"),
    ("a: {why: b}", "above"), ("a: {why: b, above: {shouting: 1}}", "shouting"), ("a: {pattern: [b]}", "why"),
    ("a: {why: b, action: cut, pattern: [c], above: {marks: 1}}", "cut off"),
    ("a: {why: b, action: cut, pattern: [c], unless: [d]}", "cut off"),
    ("a: {why: b, pattern: ['(?=b)']}", "'a' of captions"),
    ("a: {why: b, pattern: ['(?:red|blue|)']}", "every caption"), ("a: {why: b, remark: ['b*']}", "every caption"),
    ("a: {why: b, pattern: [c], examples: {removed: [bbb]}}", "bbb"), ("[a]", "rules"),
    ("a: {why: b, pattern: [c], examples: {kept: [ccc]}}", "ccc"),
    ("a: {why: b, action: cut, pattern: [c$], examples: {cut: {red hat c: blue hat}}}", "red hat"),
])  # fmt: skip
def test_wrong_rules_are_refused_by_their_names(tmp_path, text, message):
    (tmp_path / "rules.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        check_examples(load_rules([tmp_path / "rules.yaml"]))


def test_unknown_rule_to_leave_out_is_refused():
    with pytest.raises(ConfigError, match="adress"):
        load_rules([SHIPPED], ["adress"])


LONG = "a photo of thirteen different words that is longer than any period of the measure"


@pytest.mark.parametrize(("name", "caption", "expected"), [
    ("repetition", "red red red red hat", 4 / 5), ("repetition", "a b a b a b", 1),
    ("repetition", "red hat red hat", 0), ("repetition", "红帽红帽红帽子", 6 / 7), ("commonest", "a hat", 0),
    ("commonest", "hat red hat big hats hat", 4 / 6),
    ("tags", "#a1 bcd", 1 / 2), ("tags", "给#红帽子#拍照", 0),
    ("marks", "ab!!", 1 / 2), ("codes", "AB1234 of", 6 / 8), ("codes", "AB12 red hat", 0),
    ("codes", "A4纸", 0), ("codes", "MiG-29", 0), ("codes", "KD2201", 1), ("codes", "Sharp LC-19LE510K", 0),
    ("keywords", "x, y, z, w, e, f", 6), ("keywords", "x, y, z, w, e, and f", 0),
    ("repetition", f"{LONG} {LONG}", 1), ("repetition", LONG, 0), ("codes", "Object ID 871404932", 1),
    ("random_letters", "q w e r t y", 2), ("random_letters", "2年3月4日5时6分", 0),
    ("random_letters", "kcslz ceye ad", 2), ("random_letters", "snowy day", (5 - 2) / 6),
    ("keywords", "red hat, blue hat, green hat - x, y", 4 + 3),
    ("wrong_decoding", "红帽子", 0), ("wrong_decoding", "red hat", 0),
    ("keywords", "red hat price, best red hat, how to buy a red hat, red hat near me", 4 + 3),
    ("keywords", "the red hat in spring, a red hat in summer, my red hat, his red hat", 0),
    ("keywords", "cheap red hat price red hat sale online red hat", 3 + 3),
    ("keywords", "a hat price and a hat for sale", 0),
    ("keywords", "红帽子的价格,红帽子怎么洗,红帽子图片,红帽子推荐", 4 + 3),
    ("keywords", "一个红帽子,两本书,3张椅子,四把伞", 0), ("keywords", "静物：书、杯子、雨伞、篮球、蜡烛、帽子", 0),
    ("keywords", "红帽子两件套,蓝帽子三件套,白帽子,黑帽子", 4 + 3),
    ("codes", "4-bromophenol", 0), ("codes", "3-methyl-1-butanol", 0), ("codes", "4-header", 1),
    ("fields", "Size: 5 | Hat: red | Price: low", 3), ("fields", "尺码:5 颜色:红 材质:棉", 3),
    ("fields", "Size: 5 | Hat: red", 0),
    ("fields", "Left: 1950, middle: 1980, right: 2010", 0), ("fields", "Size: x | Hat: red | Price: low", 0),
    ("fields", "Open 10:30, shut 11:30, break 12:30", 0), ("fields", "Hat 1: red: hat: old", 0),
])  # fmt: skip
def test_measures_of_captions_by_hand(name, caption, expected):
    assert measure_captions([caption])[name] == pytest.approx(expected)


@pytest.mark.parametrize(("written", "read"), [("utf-8", "gbk"), ("utf-8", "latin-1"), ("gbk", "latin-1"),
                                               ("utf-8", "cp1252")])  # fmt: skip
def test_text_read_by_the_wrong_encoding_is_found(written, read):
    captions = [caption for caption in GOOD_CAPTIONS if sum(letter > "\u4e00" for letter in caption) > 6]
    values = [MEASURES["wrong_decoding"](text.encode(written, "ignore").decode(read, "ignore")) for text in captions]
    assert sum(value > 0 for value in values) >= 0.98 * len(captions)
    assert not any(MEASURES["wrong_decoding"](caption) for caption in GOOD_CAPTIONS)


def test_rare_characters_are_a_wrong_decoding_unless_they_are_few():
    measure = MEASURES["wrong_decoding"]
    assert measure("妈妈做的红烧肉和清蒸鲈鱼".encode("gbk").decode("big5", "replace").replace("\ufffd", "")) > 0
    captions = ["魑魅魍魉", "鱿鱼 鲅鱼 鲳鱼 鳕鱼 鲱鱼", "蝈蝈和蛐蛐", "饕餮纹青铜鼎", "武当山风景区", "人们玩滑板。"]
    assert not any(map(measure, captions))


@given(st.text())
def test_simple_form_is_a_line_and_stays_as_it_is(text):
    simple = simplify(text)
    assert simplify(simple) == simple and len(simple.splitlines()) <= 1


def test_condition_of_a_rule_is_sql_whatever_its_text(shipped):
    rule = CaptionRule(why="quotes", pattern=['it\'s|"b"'], above={"marks": 2})
    assert CaptionRules({"it's": rule}).find_faults(["so it's", "its"]) == ["it's", None]


def test_captions_of_a_template_are_alike_only_if_their_words_are():
    template = "Portrait of a {} on a plain white background"
    assert compute_likeness(template.format("dog"), template.format("cat")) < 0.8
    assert compute_likeness(template.format("dog"), template.format("dog") + "!") == 1
    assert compute_likeness("白色背景上的绿色苹果和刀", "白色背景上的红色苹果和刀") < 0.8
