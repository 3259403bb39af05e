"""Write a synthetic crawl of the open web: magazines, encyclopaedias, blogs, forums, museums, stock sites, companies.

    python demo_data/crawls/magazine.py --output runs/crawls/magazine --images FOLDER

Alternative texts and captions, half Chinese (a part of them in traditional characters) and half English, of photographs
and of drawings as illustrations, goods, icons, maps and charts. demo_data/crawls/README.md describes files and truth.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import magazine_pictures as pictures
import magazine_texts as texts
import numpy as np
from magazine_copies import list_copies
from magazine_texts import CHINESE, ENGLISH, Subject
from making import (
    WHITE,
    Alteration,
    Crawl,
    Drawing,
    PhotoSource,
    Row,
    Signs,
    encode_image,
    is_solid,
    misread,
    name_colour,
    parse_arguments,
    read_drawings,
    shift_hue,
)
from PIL import Image, ImageDraw, ImageOps

DEFAULT_ROWS = 5000  # the shares below are written as rows of a crawl of this size

# Rows of a kind in a crawl of DEFAULT_ROWS. There are many kinds, so that shares of one kind take --rows 15000: then
# every kind has 40 rows and more.
ROWS_PER_COPY_KIND = 16
ROWS_PER_TEXT_KIND = 18
ROWS_PER_IMAGE_KIND = 14
ROWS_PER_REMARK = 30
SHARE_WITH_TWO_FAULTS = 0.05

# How the captions of other sites for the same picture come about: copied along with it, written anew in the same
# language, or written in the other one.
CAPTION_OF_COPY = {"same": 0.4, "new": 0.45, "other language": 0.15}

SITES = (
    "https://pinegrove-mag.example/wp-content/uploads/{year}/0{digit}/{slug}-{size}.{suffix}",
    "https://upload.wikivista.example/commons/thumb/{digit}/{digit}a/{slug}.{suffix}/{size}px-{slug}.{suffix}",
    "https://pic{digit}.aiwen.example/v2-{hash}_b.{suffix}",
    "https://img.shiguang.example/a/{year}/{hash}.{suffix}",
    "https://thumbs.stockhaus.example/b/{slug}-{number}.{suffix}",
    "https://www.birdboard.example/attachments/{slug}.{number}/?thumb={digit}",
    "https://slowkitchen.example/images/{slug}.{suffix}",
    "http://www.qinghe-museum.example/UploadFiles/{year}/{number}.{suffix}",
    "https://cdn.shop.example/s/files/1/{number}/products/{slug}_{size}x.{suffix}?v=15{number}",
    "https://{digit}.bp.blogger.example/-{hash}/s{size}/{slug}.{suffix}",
)


# Changes of the benchmark's images in the crawl; `same` leaves them as they are.
LEAK_KINDS = (
    "same", "smaller_50", "crop_80", "brightness_0.65", "mirror", "corner_mark", "jpeg_15", "social_card_crop",
    "headline_over", "grey", "white_border_8",
)  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# The crawl


class MagazineCrawl:
    """Builds the rows of the crawl."""

    def __init__(self, crawl: Crawl, photos: PhotoSource, signs: Signs, num_rows: int) -> None:
        self.crawl, self.photos, self.signs = crawl, photos, signs
        self.rng = crawl.rng
        self.scale = num_rows / DEFAULT_ROWS
        self.num_rows = num_rows
        names = texts.topics_of_drawings()
        drawings = read_drawings("emoji-train.tar", names) + read_drawings("emoji-val.tar", names)
        self.all_drawings = [drawing for drawing in drawings if is_solid(drawing.image)]
        self.unused_drawings: list[Drawing] = []
        self.used_designs: set[tuple] = set()  # of flags and signs, so that no two are the same
        self.unused_times: list[tuple[int, int]] = []  # of clocks, so that no two show the same one
        self.captions: set[str] = set()
        self.subjects: dict[Row, tuple[Subject, str, dict[str, str]]] = {}
        self.plain_rows: list[Row] = []
        self.first_of_name: dict[str, Row] = {}

    def count(self, rows: float) -> int:
        """Return how many rows of a kind this crawl has, from the number in one of DEFAULT_ROWS."""
        return max(1, round(rows * self.scale))

    # ----- words

    def describe(self, subject: Subject, form: str, words: dict[str, str] | None = None, language: str = "") -> str:
        """Write a caption that no row has yet, if a few attempts find one.

        Args:
            subject: what the picture shows.
            form: the rule of the grammar.
            words: further words of the rule.
            language: "zh" or "en"; either if it is empty.
        """
        language = language or self.rng.choice(("zh", "en"))
        if not subject.name_zh:
            language = "en"
        for _ in range(6):
            caption = self._write_caption(subject, form, words or {}, language)
            if caption not in self.captions:
                break
        self.captions.add(caption)
        return caption

    def _write_caption(self, subject: Subject, form: str, words: dict[str, str], language: str) -> str:
        rng = self.rng
        spot = "<town>" if subject.topic in ("city", "building") else rng.choice(("<place>", "<wild>"))
        if language == "zh":
            words = {
                "spot": spot,
                "coda": f"<coda_{subject.topic}>",
                **words,
                "s": subject.name_zh,
                "n": subject.name_zh,
            }
            words.update(
                {
                    "t": words.get("t_zh", ""),
                    "colour": words.get("colour_zh", ""),
                    "scenery": words.get("scenery_zh", ""),
                }
            )
            caption = CHINESE.expand(f"<{form}>", rng, words)
            return texts.to_traditional(caption) if rng.random() < 0.1 else caption

        words = {
            "spot": spot,
            "coda": f"<coda_{subject.topic}>",
            **words,
            "s": subject.phrase,
            "n": subject.name,
            "title": subject.name.title(),
        }
        caption = ENGLISH.expand(f"<{form}>", rng, words)
        style = rng.random()
        if style < 0.02:
            return caption.upper()
        if style < 0.05 and len(caption) < 60:
            letters = "".join(letter if letter.isalnum() else " " for letter in caption.lower())
            return rng.choice(("-", "_", " ")).join(letters.split())
        if style < 0.08:
            return caption + rng.choice((" 🌿", " ✨", " 📸", " :)", " ☀️", " 🍂", "!"))
        return caption

    def make_fields(self, caption: str, suffix: str = "jpg") -> dict[str, Any]:
        """Make up the address of a picture as sites of the kind have it."""
        letters = "".join(letter if letter.isascii() and letter.isalnum() else " " for letter in caption.lower())
        values = {
            "slug": "-".join(letters.split()[:6]) or f"img{self.rng.randrange(10**4)}",
            "year": self.rng.randint(2009, 2023),
            "digit": self.rng.randint(1, 9),
            "size": self.rng.choice((220, 300, 640, 768, 1024, 1600)),
            "hash": f"{self.rng.getrandbits(64):016x}",
            "number": self.rng.randrange(10**5, 10**8),
            "suffix": suffix,
        }
        address = self.rng.choice(SITES).format(**values)
        return {"url": address, "page": "/".join(address.split("/")[:3]) + f"/{self.rng.randrange(10**5)}.html"}

    def add(self, picture: Image.Image | bytes, caption: str, suffix: str = "jpg", **truth: Any) -> Row:
        """Add a sample with an address; a few are saved as WebP."""
        if suffix == "jpg" and not isinstance(picture, bytes) and self.rng.random() < 0.15:
            suffix = "webp"
        return self.crawl.add(picture, caption, suffix, fields=self.make_fields(caption, suffix), **truth)

    # ----- pictures that are used once

    def take_photo(self) -> tuple[Image.Image, Subject]:
        photo = self.photos.take()
        return photo.image, self.name_photo(photo.name)

    def name_photo(self, name: str) -> Subject:
        return pictures.name_made_photograph(name) or texts.photo_subject(name)

    def choose_subject(self) -> Subject:
        """Choose what a picture that is not there would show."""
        return texts.photo_subject(self.rng.choice(list(texts.PHOTO_SUBJECTS)))

    def take_drawing(self) -> tuple[Drawing, Subject]:
        """Return a drawing that was not given before; in other colours when all have been given."""
        if not self.unused_drawings:
            turned = self.all_drawings
            if self.first_of_name:
                turned = [
                    replace(drawing, image=shift_hue(drawing.image, self.rng.randint(50, 310))) for drawing in turned
                ]
            self.unused_drawings = self.rng.sample(turned, len(turned))
        drawing = self.unused_drawings.pop()
        return drawing, texts.drawing_subject(drawing.name_en, drawing.name_zh)

    def make_picture(self) -> tuple[Image.Image, Subject, str, dict[str, str]]:
        """Make a picture with its subject, the rule of its caption and further words: mostly a photograph."""
        chance = self.rng.random()
        if chance < 0.56:
            image, subject = self.take_photo()
            return image, subject, "photo", {}
        if chance < 0.88:
            return self.make_drawing_picture()
        return self.make_scene_picture()

    def make_drawing_picture(self) -> tuple[Image.Image, Subject, str, dict[str, str]]:
        """Make a product, an illustration or an icon of one drawing."""
        rng = self.rng
        drawing, subject = self.take_drawing()
        colour_zh, colour = name_colour(drawing.image)
        words = {"colour": colour, "colour_zh": colour_zh}
        form = "product" if subject.topic in ("thing", "vehicle") and rng.random() < 0.75 else "drawing"
        if subject.topic == "food" and rng.random() < 0.5:
            form = "dish"
        if form == "drawing" and rng.random() < 0.4:
            image = pictures.make_icon_tile(
                drawing.image, rng.choice(pictures.make_palette(rng)), rng.choice(("round", "square"))
            )
        else:
            backdrop = self.photos.take(is_subject=False).image if rng.random() < 0.25 else None
            image = pictures.make_studio_picture(drawing.image, rng, backdrop)
        return image, subject, form, words

    def make_scene_picture(self) -> tuple[Image.Image, Subject, str, dict[str, str]]:
        """Make an illustration of two to four figures before a background."""
        scenery, figures, spots = self.draw_scene()
        canvas = pictures.paint_scenery(scenery, *self.rng.choice(((460, 340), (400, 400), (520, 320))), self.rng)
        image = pictures.place_figures(canvas, figures, spots)
        subject, words = self.name_scene(scenery, figures)
        return image, subject, "scene", words

    def draw_scene(self) -> tuple[tuple, list[Drawing], list[tuple[float, float, float]]]:
        rng = self.rng
        figures = rng.sample(self.all_drawings, rng.randint(2, 4))
        spots = []
        for index in range(len(figures)):
            x = (index + 0.5) / len(figures) + rng.uniform(-0.06, 0.06)
            spots.append((x, rng.uniform(0.5, 0.78), rng.uniform(0.26, 0.46)))
        return rng.choice(pictures.SCENERIES), figures, spots

    def name_scene(self, scenery: tuple, figures: list[Drawing]) -> tuple[Subject, dict[str, str]]:
        first, second = (texts.drawing_subject(figure.name_en, figure.name_zh) for figure in figures[:2])
        words = {"t": second.phrase, "t_zh": second.name_zh, "scenery": scenery[0], "scenery_zh": scenery[1]}
        return first, words

    # ----- good rows

    def add_plain_rows(self, number: int) -> None:
        """Add good rows with nothing about them; copies are made of these."""
        for _ in range(number):
            image, subject, form, words = self.make_picture()
            suffix = "png" if form != "photo" and self.rng.random() < 0.3 else "jpg"
            # Other drawings of the same thing, other crops of the same photograph, made photographs of the same kind.
            like = self.first_of_name.get(subject.name) if form != "scene" else None
            row = self.add(image, self.describe(subject, form, words), suffix, kind=f"plain_{form}", like=like)
            if form != "scene":
                self.first_of_name.setdefault(subject.name, row)
            self.subjects[row] = (subject, form, words)
            self.plain_rows.append(row)

    def add_remarked_rows(self) -> None:
        """Add good rows whose captions begin or end with a remark of the site."""
        for kind, (heads, tails, heads_zh, tails_zh) in texts.REMARKS.items():
            for _ in range(self.count(ROWS_PER_REMARK)):
                image, subject, form, words = self.make_picture()
                language = self.rng.choice(("zh", "en")) if subject.name_zh else "en"
                clean = self.describe(subject, form, words, language)
                grammar = CHINESE if language == "zh" else ENGLISH
                choices = [(head, "") for head in (heads_zh if language == "zh" else heads)]
                choices += [("", tail) for tail in (tails_zh if language == "zh" else tails)]
                head, tail = self.rng.choice(choices)
                caption = grammar.expand(head, self.rng, words) + clean + grammar.expand(tail, self.rng, words)
                self.add(image, caption, kind=f"good_with_{kind}", clean=clean)

    def add_families(self) -> None:
        """Add good rows that resemble one another by nature."""
        makers = (
            self.add_neighbouring_crops, self.add_colour_variants, self.add_icon_sets, self.add_locator_maps,
            self.add_flags, self.add_clocks, self.add_bar_charts, self.add_line_charts, self.add_pie_charts,
            self.add_covers, self.add_comic_frames, self.add_other_backgrounds,
        )  # fmt: skip
        for make in makers:
            for _ in range(self.count(18)):
                make()

    def add_family(self, kind: str, members: list[tuple[Image.Image, str]], suffix: str = "jpg") -> None:
        """Add pictures of which each resembles the one before."""
        previous = None
        for image, caption in members:
            previous = self.add(image, caption, suffix, kind=kind, like=previous)
            self.captions.add(caption)

    def choose_text(self, english: str, chinese: str) -> str:
        """Expand one of two templates."""
        if self.rng.random() < 0.5:
            return ENGLISH.expand(english, self.rng, {})
        return CHINESE.expand(chinese, self.rng, {})

    def add_neighbouring_crops(self) -> None:
        photos = self.photos.take_series(self.rng.randint(2, 4))
        members = []
        for photo in photos:
            members.append((photo.image, self.describe(self.name_photo(photo.name), "photo")))
        self.add_family("series_of_photographs", members)

    def choose_language(self) -> str:
        return self.rng.choice(("zh", "en"))

    def add_colour_variants(self) -> None:
        drawing, subject = self.take_drawing()
        language = self.choose_language()
        grammar = CHINESE if language == "zh" else ENGLISH
        brand, model = (grammar.expand(name, self.rng, {}) for name in ("<brand>", "<model>"))
        seed = self.rng.getrandbits(32)  # the same backdrop and place for all variants
        members: dict[str, tuple[Image.Image, str]] = {}
        for degrees in (0, 60, 120, 180, 240):
            variant = shift_hue(drawing.image, degrees)
            colour_zh, colour = name_colour(variant)
            captions = {
                "zh": f"{brand} {model} {subject.name_zh} {colour_zh}",
                "en": f"{brand} {subject.name} {model}, {colour}",
            }
            image = pictures.make_studio_picture(variant, random.Random(seed))  # noqa: S311
            members.setdefault(colour, (image, captions[language]))
        self.add_family("colour_variant", list(members.values())[:3])

    def add_icon_sets(self) -> None:
        """Add other symbols on the same tile, or the same symbol on tiles of other colours."""
        if self.rng.random() < 0.5:
            self.add_icons_of_set()
        else:
            self.add_icons_in_colours()

    def add_icons_of_set(self) -> None:
        shape, colour = self.rng.choice(("round", "square")), self.rng.choice(pictures.make_palette(self.rng))
        language, set_name = self.choose_language(), self.rng.choice(texts.ICON_SETS)
        members = []
        for _ in range(3):
            drawing, subject = self.take_drawing()
            captions = {"zh": f"{set_name}图标集：{subject.name_zh}", "en": f"{subject.name} icon, {set_name} icon set"}
            members.append((pictures.make_icon_tile(drawing.image, colour, shape), captions[language]))
        self.add_family("icon_set", members, "png")

    def add_icons_in_colours(self) -> None:
        shape, language = self.rng.choice(("round", "square")), self.choose_language()
        set_name = self.rng.choice(texts.ICON_SETS)
        drawing, subject = self.take_drawing()
        members: dict[str, tuple[Image.Image, str]] = {}
        for colour in pictures.make_palette(self.rng):
            colour_zh, name = name_colour(Image.new("RGB", (8, 8), colour))
            captions = {
                "zh": f"{colour_zh}底{subject.name_zh}图标（{set_name}）",
                "en": f"{subject.name} icon on {name} ({set_name})",
            }
            image = pictures.make_icon_tile(drawing.image, colour, shape)
            members.setdefault(name, (image, captions[language]))
        self.add_family("icon_in_other_colour", list(members.values())[:3], "png")

    def add_locator_maps(self) -> None:
        country, language = pictures.RegionMap(self.rng), self.choose_language()
        districts = country.visible_districts()
        self.rng.shuffle(districts)
        *names, nation = self.rng.sample(texts.DISTRICTS, 4)
        *names_zh, nation_zh = self.rng.sample(texts.DISTRICTS_ZH, 4)
        pattern = self.rng.choice(("Location of {0} in {1}", "{0} District within {1}", "Map of {1} highlighting {0}"))
        pattern_zh = self.rng.choice(("{0}在{1}的位置", "{1}行政区划图：{0}", "{0}位置图（{1}）"))
        members = []
        for district, name, name_zh in zip(districts, names, names_zh, strict=False):
            captions = {"zh": pattern_zh.format(name_zh, nation_zh), "en": pattern.format(name, nation)}
            members.append((country.draw(district), captions[language]))
        self.add_family("locator_map", members, "png")

    def add_flags(self) -> None:
        rng = self.rng
        layout, layout_zh, bands = rng.choice((("upright", "竖", "bars"), ("lying", "横", "stripes")))
        emblem = rng.choice(self.all_drawings) if rng.random() < 0.75 else None
        language = self.choose_language()
        places, places_zh = rng.sample(texts.DISTRICTS, 3), rng.sample(texts.DISTRICTS_ZH, 3)
        ring = rng.sample(list(texts.FLAG_COLOURS), 4)
        members = []
        for index, (place, place_zh) in enumerate(zip(places, places_zh, strict=True)):
            first, second, third = (ring + ring)[index : index + 3]
            design = (first, second, third, layout, emblem.name_en if emblem else "")
            if design in self.used_designs:
                continue
            self.used_designs.add(design)
            colours_zh, levels = zip(*(texts.FLAG_COLOURS[name] for name in (first, second, third)), strict=True)
            captions = {
                "zh": f"{place_zh}旗，{'、'.join(colours_zh)}三色{layout_zh}条",
                "en": f"Flag of {place}: {first}, {second} and {third} {bands}",
            }
            if emblem:
                captions["zh"] += f"，中间为{emblem.name_zh}"
                captions["en"] += f" with {texts.drawing_subject(emblem.name_en, '').phrase}"
            image = pictures.make_flag(levels, layout, emblem.image if emblem else None)
            members.append((image, captions[language]))
        self.add_family("flag", members, "png")

    def add_clocks(self) -> None:
        rng = self.rng
        design, language = pictures.draw_clock_design(rng), self.choose_language()
        pattern = rng.choice(("Clock showing {0}:{1:02d}", "Analogue clock at {0}:{1:02d}", "{0}:{1:02d} on the dial"))
        pattern_zh = rng.choice(("钟面上的时间是{0}点{1}分", "认识钟表：{0}点{1}分", "时钟{0}:{1:02d}"))
        members = []
        for _ in range(3):
            if not self.unused_times:
                self.unused_times = [(hour, minute) for hour in range(1, 13) for minute in range(0, 60, 5)]
                rng.shuffle(self.unused_times)
            hour, minute = self.unused_times.pop()
            captions = {"zh": pattern_zh.format(hour, minute), "en": pattern.format(hour, minute)}
            members.append((pictures.make_clock(hour, minute, design, self.signs), captions[language]))
        self.add_family("clock_face", members)

    def add_bar_charts(self) -> None:
        rng = self.rng
        colours, start, language = pictures.make_palette(rng), rng.randint(1990, 2014), self.choose_language()
        labels = [str(start + index) for index in range(rng.randint(4, 7))]
        unit, unit_zh = rng.choice(texts.CHART_UNITS)
        members = []
        for index in rng.sample(range(len(texts.DISTRICTS)), 2):
            values = [rng.randint(12, 98) for _ in labels]
            place, place_zh = texts.DISTRICTS[index], texts.DISTRICTS_ZH[index]
            captions = {
                "zh": f"{labels[0]}—{labels[-1]}年{place_zh}{unit_zh}柱状图",
                "en": f"Bar chart: {unit} of {place}, {labels[0]}–{labels[-1]}",
            }
            image = pictures.make_bar_chart(values, labels, colours[:1], f"{place}: {unit}", self.signs)
            members.append((image, captions[language]))
        self.add_family("bar_chart", members, "png")

    def add_line_charts(self) -> None:
        rng = self.rng
        colours, language = pictures.make_palette(rng), self.choose_language()
        topic, topic_zh = rng.choice(texts.CURVES)
        members = []
        for index in rng.sample(range(len(texts.DISTRICTS)), 2):
            series = []
            for _ in range(rng.randint(1, 3)):
                steps = np.cumsum(np.random.default_rng(rng.getrandbits(32)).normal(0, 1, 24))
                series.append(((steps - steps.min()) / (np.ptp(steps) + 1e-6) * 0.9 + 0.05).tolist())
            place, place_zh = texts.DISTRICTS[index], texts.DISTRICTS_ZH[index]
            month = ENGLISH.expand("<month> <year>", rng, {})
            month_zh = CHINESE.expand("<year>年<month>", rng, {})
            captions = {"zh": f"{place_zh}{month_zh}{topic_zh}变化曲线", "en": f"{topic} at {place}, {month}"}
            image = pictures.make_line_chart(series, colours, f"{topic}, {place}", self.signs)
            members.append((image, captions[language]))
        self.add_family("line_chart", members, "png")

    def add_pie_charts(self) -> None:
        rng = self.rng
        design, language = pictures.draw_pie_design(rng), self.choose_language()
        title, title_zh, labels = rng.choice(texts.PIES)
        members = []
        for index in rng.sample(range(len(texts.DISTRICTS)), 2):
            shares = [rng.randint(8, 60) for _ in labels]
            captions = {
                "zh": f"{texts.DISTRICTS_ZH[index]}{title_zh}占比饼图",
                "en": f"Pie chart: {title} in {texts.DISTRICTS[index]}",
            }
            image = pictures.make_pie_chart(shares, labels, design, self.signs)
            members.append((image, captions[language]))
        self.add_family("pie_chart", members, "png")

    def add_covers(self) -> None:
        rng = self.rng
        masthead, colour = rng.choice(texts.MASTHEADS), rng.choice(pictures.make_palette(rng))
        language, year = self.choose_language(), rng.randint(1995, 2023)
        members = []
        for issue in rng.sample(range(1, 13), 3):
            image, subject = self.take_photo()
            captions = {
                "zh": f"《{masthead}》杂志{year}年第{issue}期封面：{subject.name_zh}",
                "en": f"Cover of {masthead} no. {issue}/{year} with {subject.phrase}",
            }
            lines = (subject.name[:30], f"No. {issue} / {year}")
            cover = pictures.make_cover(image, masthead, lines, colour, self.signs)
            members.append((cover, captions[language if subject.name_zh else "en"]))
        self.add_family("cover_in_same_frame", members)

    def add_comic_frames(self) -> None:
        """Add frames of a strip: the same figures before the same background, at other places."""
        rng = self.rng
        scenery, figures, _ = self.draw_scene()
        canvas = pictures.paint_scenery(scenery, 440, 330, rng)
        subject, words = self.name_scene(scenery, figures)
        members = []
        for _ in range(3):
            order = rng.sample(figures, len(figures))
            spots = []
            for index in range(len(order)):
                x = (index + 0.5) / len(order) + rng.uniform(-0.1, 0.1)
                spots.append((x, rng.uniform(0.4, 0.8), rng.uniform(0.2, 0.5)))
            image = pictures.place_figures(canvas, order, spots)
            members.append((image, self.describe(subject, "scene", words)))
        self.add_family("frames_of_comic", members)

    def add_other_backgrounds(self) -> None:
        """Add the same figures at the same places before two backgrounds."""
        _, figures, spots = self.draw_scene()
        language = self.choose_language()
        members = []
        for scenery in self.rng.sample(pictures.SCENERIES, 2):
            canvas = pictures.paint_scenery(scenery, 440, 330, self.rng)
            subject, words = self.name_scene(scenery, figures)
            captions = {
                "zh": f"{scenery[1]}的{subject.name_zh}和{words['t_zh']}",
                "en": f"{subject.phrase} and {words['t']} {scenery[0]}",
            }
            caption = captions[language]
            image = pictures.place_figures(canvas, figures, spots)
            members.append((image, caption[:1].upper() + caption[1:]))
        self.add_family("other_background", members)

    # ----- faulty rows

    def caption_copy(self, row: Row) -> str:
        """Write the caption of another site for the picture of a row."""
        way = self.rng.choices(list(CAPTION_OF_COPY), list(CAPTION_OF_COPY.values()))[0]
        if way == "same":
            return row.caption
        subject, form, words = self.subjects[row]
        is_chinese = any("\u4e00" <= letter <= "\u9fff" for letter in row.caption)
        language = "zh" if is_chinese == (way == "new") else "en"
        return self.describe(subject, form, words, language)

    def add_copies(self, copies: dict[str, tuple[Alteration, bool]]) -> None:
        """Add changed copies; most originals have one, some have several."""
        originals: list[Row] = []
        for kind, (change, prefers_original) in copies.items():
            for _ in range(self.count(ROWS_PER_COPY_KIND)):
                if not originals:
                    originals = self.rng.sample(self.plain_rows, len(self.plain_rows))
                # A sixth of the copies are of a picture that has one already.
                original = originals.pop() if self.rng.random() > 0.17 else self.rng.choice(self.plain_rows)
                changed = change(original.open())
                suffix = "jpg"
                if kind == "other_format":
                    suffix = self.rng.choice([other for other in ("jpg", "png", "webp") if other != original.suffix])
                keep = original if prefers_original else None
                content: Image.Image | bytes = changed
                if kind.startswith("jpeg_"):
                    content = encode_image(original.open(), "jpg", int(kind.split("_")[1]))
                self.add(content, self.caption_copy(original), suffix, group="copy", kind=kind, of=original, keep=keep)

    def write_text_fault(self, kind: str, subject: Subject) -> str:
        """Write a caption of a kind of TEXT_FAULTS, or a damaged one."""
        rng = self.rng
        if kind == "mojibake_latin":
            return misread(self.describe(subject, "photo", language="zh"), "cp1252")
        if kind == "mojibake_gbk":
            return misread(self.describe(subject, "photo", language="zh"), "gbk")
        english, chinese = texts.TEXT_FAULTS[kind]
        if chinese and subject.name_zh and rng.random() < 0.5:
            return CHINESE.expand(rng.choice(chinese), rng, {"s": subject.name_zh})
        words = {"s": subject.phrase, "n": subject.name, "title": subject.name.title()}
        return ENGLISH.expand(rng.choice(english), rng, words)

    def text_fault_kinds(self) -> list[str]:
        return [*texts.TEXT_FAULTS, "mojibake_latin", "mojibake_gbk"]

    def add_text_faults(self) -> None:
        for kind in self.text_fault_kinds():
            for _ in range(self.count(ROWS_PER_TEXT_KIND)):
                image, subject, _, _ = self.make_picture()
                while kind.startswith("mojibake") and not subject.name_zh:
                    image, subject, _, _ = self.make_picture()
                self.add(image, self.write_text_fault(kind, subject), group="text", kind=kind)

    def add_image_faults(self) -> None:
        makers = pictures.make_no_content_pictures(self.signs)
        for kind, make in makers.items():
            for _ in range(self.count(ROWS_PER_IMAGE_KIND)):
                if kind in texts.CAPTIONS_OF_NO_CONTENT:
                    caption = self.choose_text(*map(self.rng.choice, texts.CAPTIONS_OF_NO_CONTENT[kind]))
                else:
                    caption = self.describe(self.choose_subject(), "photo")
                suffix = self.rng.choice(("jpg", "png"))
                self.crawl.add(
                    make(self.rng), caption, suffix, group="image", kind=kind, fields=self.make_fields(caption, suffix)
                )
        damages: dict[str, Callable[[Image.Image, random.Random], Image.Image]] = {
            "half_loaded": pictures.half_loaded,
            "smeared_blocks": pictures.smear_blocks,
            "blurred_preview": pictures.blur_preview,
            "tiny_24": lambda image, rng: ImageOps.fit(image, (24, 24)),
        }
        for kind, damage in damages.items():
            for _ in range(self.count(ROWS_PER_IMAGE_KIND)):
                image, subject = self.take_photo()
                self.add(damage(image, self.rng), self.describe(subject, "photo"), group="image", kind=kind)

    def add_mismatches(self) -> None:
        """Add captions of other pictures: of the next one of a gallery, or of an article that is linked."""
        for _ in range(self.count(50)):
            image, subject, _, _ = self.make_picture()
            other_subject = self.choose_subject()
            while other_subject.name == subject.name or other_subject.topic == subject.topic:
                other_subject = self.choose_subject()
            kind = "caption_of_linked_article"
            self.add(image, self.describe(other_subject, "photo"), group="mismatch", kind=kind)
        for _ in range(self.count(25)):
            left, right = self.make_picture(), self.make_picture()
            if left[1].name != right[1].name:
                self.add(left[0], self.describe(*right[1:]), group="mismatch", kind="swapped_in_gallery")
                self.add(right[0], self.describe(*left[1:]), group="mismatch", kind="swapped_in_gallery")

    def add_local_changes(self) -> None:
        """Add rows that differ from another one in a local detail."""
        changes: dict[str, Callable[[Image.Image], Image.Image]] = {
            "new_sticker": self.paste_sticker,
            "red_circle": self.draw_circle,
            "pixelated_patch": self.pixelate_patch,
        }
        for kind, change in changes.items():
            for _ in range(self.count(25)):
                original = self.rng.choice(self.plain_rows)
                changed = change(original.open())
                self.add(
                    changed, original.caption, group="local", kind=kind, of=original, detail="captions say the same"
                )
        makers = (self.add_route_signs, self.add_go_positions, self.add_counting_cards, self.add_spot_the_difference)
        for make in makers:
            for _ in range(self.count(25)):
                make()

    def paste_sticker(self, image: Image.Image) -> Image.Image:
        marked = image.copy()
        radius = min(image.size) // 8
        x, y = image.width - int(radius * 1.6), int(radius * 1.6)
        ImageDraw.Draw(marked).ellipse(
            (x - radius, y - radius, x + radius, y + radius),
            fill=self.rng.choice(((220, 40, 40), (250, 190, 30), (40, 150, 90))),
        )
        self.signs.write(marked, self.rng.choice(("NEW", "-20%", "HOT", "No. 1")), (x, y), int(radius * 0.7), WHITE)
        return marked

    def draw_circle(self, image: Image.Image) -> Image.Image:
        marked = image.copy()
        x, y = (self.rng.uniform(0.3, 0.7) * side for side in image.size)
        radius = min(image.size) * self.rng.uniform(0.1, 0.18)
        ImageDraw.Draw(marked).ellipse((x - radius, y - radius, x + radius, y + radius), outline=(230, 20, 20), width=5)
        return marked

    def pixelate_patch(self, image: Image.Image) -> Image.Image:
        marked = image.copy()
        side = int(min(image.size) * 0.22)
        x, y = (int(self.rng.uniform(0.2, 0.6) * length) for length in image.size)
        patch = marked.crop((x, y, x + side, y + side)).resize((6, 6), Image.Resampling.BOX)
        marked.paste(patch.resize((side, side), Image.Resampling.NEAREST), (x, y))
        return marked

    def add_local_pair(self, kind: str, members: list[tuple[Image.Image, str]], detail: str) -> None:
        """Add a good row and one that differs from it in a detail."""
        first = self.add(*members[0], suffix="png", kind=f"original_of_{kind}")
        self.add(*members[1], suffix="png", group="local", kind=kind, of=first, detail=detail)

    def add_route_signs(self) -> None:
        rng = self.rng
        colour, shape = rng.choice(pictures.make_palette(rng)), rng.choice(("round", "shield", "board"))
        letter = rng.choice(("", "", "A", "M", "B"))
        patterns = rng.choice(
            (
                ("Sign of route {0}", "{0}路路牌"),
                ("Line {0} symbol, {1}", "{1}地铁{0}号线标志"),
                ("Highway marker {0}", "{0}号公路标志"),
            )
        )
        town = rng.choice(texts.DISTRICTS)
        pattern = rng.choice(patterns)
        numbers = [number for number in range(1, 100) if (letter, number, shape) not in self.used_designs]
        members = []
        for number in rng.sample(numbers, 2):
            self.used_designs.add((letter, number, shape))
            image = pictures.make_route_sign(f"{letter}{number}", colour, shape, self.signs)
            members.append((image, pattern.format(f"{letter}{number}", town)))
        self.add_local_pair("number_on_sign", members, "captions differ")

    def add_go_positions(self) -> None:
        rng = self.rng
        points = [(row, column) for row in range(9) for column in range(9)]
        stones = rng.sample(points, rng.randint(12, 24))
        tone, game = rng.choice(((222, 184, 120), (235, 205, 150), (205, 165, 105))), rng.randint(2, 99)
        pattern = rng.choice(
            (
                "Game {0}, position after move {1}",
                "第{0}局，第{1}手后的局面",
                "Diagram {0}: black and white after {1} moves",
            )
        )
        members = []
        for count in (len(stones) - 1, len(stones)):
            members.append((pictures.make_go_board(stones[:count], tone), pattern.format(game, count)))
        self.add_local_pair("one_stone_more", members, "captions differ")

    def add_counting_cards(self) -> None:
        rng = self.rng
        drawing, subject = self.take_drawing()
        colour = rng.choice(((255, 255, 255), (250, 244, 225), (226, 240, 250)))
        language, count = self.choose_language(), rng.randint(2, 10)
        members = []
        for number in (count, count + 1):
            captions = {
                "zh": f"数一数：{number}个{subject.name_zh}",
                "en": f"Counting card {number}: {subject.name} × {number}",
            }
            members.append((pictures.make_counting_card(drawing.image, number, colour), captions[language]))
        self.add_local_pair("one_thing_more", members, "captions differ")

    def add_spot_the_difference(self) -> None:
        """Add the two pictures of a puzzle: a figure of the second one is another."""
        rng = self.rng
        scenery, figures, spots = self.draw_scene()
        canvas = pictures.paint_scenery(scenery, 440, 330, rng)
        subject, words = self.name_scene(scenery, figures)
        extra = rng.choice(self.all_drawings)
        spot = (rng.uniform(0.1, 0.9), rng.uniform(0.12, 0.3), 0.16)
        caption = self.describe(subject, "scene", words)
        images = (
            pictures.place_figures(canvas, figures, spots),
            pictures.place_figures(canvas, [*figures, extra], [*spots, spot]),
        )
        members = [(image, caption) for image in images]
        self.add_local_pair("small_figure_more", members, "captions say the same")

    def add_benchmark(self, copies: dict[str, tuple[Alteration, bool]]) -> None:
        """Write the benchmark's test set, let some of its images leak, and add rows that resemble others of them."""
        rng = self.rng
        unused = [
            drawing
            for drawing in read_drawings("emoji-test.tar", texts.topics_of_drawings())
            if is_solid(drawing.image)
        ]
        rng.shuffle(unused)
        num_leaks = self.count(16) * len(LEAK_KINDS)
        subjects = []
        for index in range(num_leaks + self.count(40)):
            if index % 2 or not unused:
                image, subject = self.take_photo()
                entry = (subject, "photo", {})
            else:
                drawing = unused.pop()
                subject = texts.drawing_subject(drawing.name_en, drawing.name_zh)
                image, entry = (
                    pictures.make_studio_picture(drawing.image, rng),
                    (
                        subject,
                        "drawing",
                        {"colour": name_colour(drawing.image)[1], "colour_zh": name_colour(drawing.image)[0]},
                    ),
                )
            self.crawl.add_test_image(image, self.describe(*entry))
            subjects.append(entry)

        for index in range(num_leaks):
            kind, test_row = LEAK_KINDS[index % len(LEAK_KINDS)], self.crawl.test_rows[index]
            caption = test_row.caption if rng.random() < 0.4 else self.describe(*subjects[index])
            content: Image.Image | bytes = test_row.image if kind == "same" else copies[kind][0](test_row.open())
            if kind == "same":
                self.crawl.add(
                    content, caption, group="leak", kind="leak_same", of=test_row, fields=self.make_fields(caption)
                )
            else:
                self.add(content, caption, group="leak", kind=f"leak_{kind}", of=test_row)

        # The same thing drawn by others, or another photograph of the same name.
        for index in range(num_leaks, len(subjects)):
            test_row, (subject, form, _) = self.crawl.test_rows[index], subjects[index]
            if form == "drawing":
                twins = [drawing for drawing in self.all_drawings if drawing.name_en == subject.name]
                if twins:
                    image = pictures.make_studio_picture(rng.choice(twins).image, rng)
                    words = {"colour": name_colour(image)[1], "colour_zh": name_colour(image)[0]}
                    self.add(image, self.describe(subject, "drawing", words), kind="like_a_test_image", like=test_row)

    def add_second_faults(self) -> None:
        """Give some faulty rows a second fault: a caption that is none."""
        candidates = [row for row in self.crawl.rows if row.group in ("copy", "image", "leak")]
        number = round(SHARE_WITH_TWO_FAULTS * sum(row.group not in ("good", "local") for row in self.crawl.rows))
        nobody = Subject("picture", "a", "图片", "thing")
        for row in self.rng.sample(candidates, min(number, len(candidates))):
            kind = self.rng.choice([name for name in self.text_fault_kinds() if not name.startswith("mojibake")])
            subject = self.subjects[row.of][0] if row.of in self.subjects else nobody
            row.caption = self.write_text_fault(kind, subject)
            row.detail = f"{row.kind}, {kind}"


def main() -> None:
    options = parse_arguments(__doc__)
    rng = random.Random(options.seed)  # noqa: S311
    signs = Signs(options.font)
    # A third of the rows take a photograph that no other row has, as the subject or as a backdrop. Photographs are
    # reduced to 0.6 or more before they are cut: crops then show more of a thing than its skin. A detail of 7 leaves
    # out crops of plain sky, sand and blur, which nobody could tell from one another.
    num_photos = int(options.rows * 0.33)
    make = pictures.make_open_web_photograph
    photos = PhotoSource(options.images, rng, num_photos, least_scale=0.6, detail=7, make=make)
    crawl = Crawl(rng)
    magazine = MagazineCrawl(crawl, photos, signs, options.rows)
    copies = list_copies(signs, rng)

    # Series first, while photographs have several crops left.
    magazine.add_families()
    magazine.add_benchmark(copies)
    magazine.add_remarked_rows()
    magazine.add_text_faults()
    magazine.add_image_faults()
    magazine.add_mismatches()
    num_copies = len(copies) * magazine.count(ROWS_PER_COPY_KIND)
    num_local_rows = (3 + 2 * 4) * magazine.count(25)  # three kinds change a plain row, four add a pair of rows
    magazine.add_plain_rows(max(1, options.rows - len(crawl.rows) - num_copies - num_local_rows))
    magazine.add_copies(copies)
    magazine.add_local_changes()
    magazine.add_second_faults()
    crawl.write(options.output)
    print(f"{len(crawl.rows)} rows; {photos.num_crops} crops of photographs and {photos.num_made} made ones")
    print(f"signs in pictures are {signs.language}; {len({row.caption for row in crawl.rows})} different captions")


if __name__ == "__main__":
    main()
