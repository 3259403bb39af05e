"""Make the crawl of news sites: press photographs, illustrations, their versions on the sites, and newsroom captions.

    python demo_data/crawls/news.py --output runs/crawls/news --images photos

Writes shards as img2dataset does, truth.csv and benchmark/test.tar; README.md of this folder explains them.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import making
import news_texts as texts
from making import Crawl, Drawing, Photo, PhotoSource, Row, Signs
from news_pictures import BLUE, RED, Graphics
from PIL import Image, ImageDraw, ImageOps

# Share of the rows that a kind of fault has: 40 of 5,000, so that a share of them found means something.
SHARE_OF_KIND = 0.008
# A caption at fault stands now and then under a spoilt picture: some 5 % of all faulty rows then have two faults.
SHARE_OF_TWO_FAULTS = 0.16

# Press photographs show their subject, so crops show more of a photograph than a cut at full size would, and no mere
# sky or blur. Both were set by looking; stricter ones leave fewer crops than the photographs that are needed.
LEAST_SCALE, LEAST_DETAIL = 0.75, 6

# Backgrounds of illustrations; the names stand in captions.
BACKGROUNDS = (
    ((236, 226, 208), "米色", "cream"),
    ((206, 222, 238), "浅蓝色", "pale blue"),
    ((28, 52, 92), "深蓝色", "navy"),
    ((246, 208, 96), "黄色", "yellow"),
    ((222, 98, 78), "橙红色", "orange-red"),
    ((120, 168, 140), "灰绿色", "sage green"),
    ((232, 196, 204), "粉色", "pink"),
    ((84, 84, 92), "灰色", "grey"),
)


@dataclass(frozen=True)
class Subject:
    """Something the newsroom has drawings of."""

    name: str
    beat: str
    drawings: tuple[Drawing, ...]

    @property
    def noun_zh(self) -> str:
        return texts.NOUNS_ZH.get(self.name, self.drawings[0].name_zh)

    @property
    def noun_en(self) -> str:
        return texts.NOUNS_EN.get(self.name, self.name)


@dataclass
class Story:
    """A picture of an article, and the words by which it can be described."""

    picture: Image.Image
    form: str
    subject: str
    words: dict[str, str] = field(default_factory=dict)


class Newsroom:
    """Publishes photographs and illustrations, and plants faults among them.

    Args:
        rng: draws everything.
        photos: photographs of the agencies.
        signs: writes text into pictures.
    """

    def __init__(self, rng: random.Random, photos: PhotoSource, signs: Signs) -> None:
        self.rng, self.photos, self.signs = rng, photos, signs
        self.crawl = Crawl(rng)
        self.graphics = Graphics(rng, signs, self.draw_words)
        names = {*texts.PEOPLE, *(name for beat in texts.BEATS.values() for name in beat.nouns)}
        drawings = making.read_drawings("emoji-train.tar", names) + making.read_drawings("emoji-val.tar", names)
        self.subjects = collect_subjects(drawings)
        self.test_subjects = collect_subjects(making.read_drawings("emoji-test.tar", names))
        self.people = [drawing for drawing in drawings if drawing.name_en in texts.PEOPLE]
        self.people = [drawing for drawing in self.people if making.is_solid(drawing.image)]
        # Rows with nothing special about them, and their stories: what copies are made of.
        self.plain_rows: list[tuple[Row, Story]] = []

    # ------------------------------------------------------------------------------------------------------ stories

    def cover_anything(self) -> Story:
        """Cover a story with a photograph, an illustration (a third) or a photograph with a drawing in it."""
        form = self.rng.choices(("photo", "illustration", "montage"), (50, 36, 14))[0]
        if form == "photo":
            return self.take_photo()
        return self.make_montage() if form == "montage" else self.illustrate()

    def take_photo(self, photo: Photo | None = None) -> Story:
        """Cover a story with a photograph of an agency."""
        photo = photo or self.photos.take()
        scene_zh, place_sort = describe_scene(photo.name)
        place_zh, place_en = self.rng.choice(texts.PLACES[place_sort])
        colour_zh, colour_en = making.name_colour(photo.image)
        words = self.draw_words() | {
            "scene_zh": scene_zh,
            "scene_en": add_article(photo.name),
            "place_zh": place_zh,
            "place_en": place_en,
            "colour_zh": colour_zh,
            "colour_en": colour_en,
            "context_zh": self.rng.choice(texts.CONTEXTS_PHOTO_ZH),
            "context_en": self.rng.choice(texts.CONTEXTS_PHOTO_EN),
        }
        return Story(photo.image, "photo", photo.name, words)

    def illustrate(self, subject: Subject | None = None, setting: str = "") -> Story:
        """Cover a story with a drawing on a coloured background, in a disc, on stripes, or several times in a row."""
        rng = self.rng
        subject = subject or rng.choice(self.subjects)
        setting = setting or rng.choice(list(texts.WHERES))
        drawing = rng.choice(subject.drawings).image
        width, height = rng.choice(((480, 320), (480, 270), (400, 400), (420, 315), (360, 450), (560, 315)))
        colour, colour_zh, colour_en = rng.choice(BACKGROUNDS)
        canvas = Image.new("RGB", (width, height), making.WHITE if setting == "white" else colour)
        draw = ImageDraw.Draw(canvas)
        side = int(min(width, height) * rng.uniform(0.55, 0.8))
        center = (width // 2 + rng.randint(-width // 10, width // 10), height // 2)

        if setting == "plain" and rng.random() < 0.5:  # light from above
            canvas = making.make_gradient(width, height, making.WHITE, colour)
        elif setting == "disc":
            canvas.paste((248, 246, 240), (0, 0, width, height))
            radius = int(side * 0.62)
            box = (center[0] - radius, center[1] - radius, center[0] + radius, center[1] + radius)
            draw.ellipse(box, fill=colour)
        elif setting == "stripes":
            paler = tuple(level + (255 - level) // 3 for level in colour)
            breadth = rng.choice((18, 26, 40))
            for x in range(-height, width, 2 * breadth):
                draw.polygon(
                    [(x, height), (x + breadth, height), (x + breadth + height, 0), (x + height, 0)], fill=paler
                )
        elif setting == "several":
            side = int(width * 0.3)
            for offset in (-0.31, 0.31):
                at = (int(width * (0.5 + offset)), height // 2 + rng.randint(-15, 15))
                making.paste_drawing(canvas, drawing, side, at, shadow=0.25)
            center = (width // 2, height // 2)
        making.paste_drawing(canvas, drawing, side, center, shadow=rng.choice((0, 0.3)), turn=rng.uniform(-8, 8))

        words = self.describe_subject(subject, drawing)
        where_zh, where_en = texts.WHERES[setting]
        words["where_zh"] = where_zh.format(colour_zh, colour_en)
        words["where_en"] = where_en.format(colour_zh, colour_en)
        return Story(canvas, "illustration", subject.name, words)

    def make_montage(self, photo: Photo | None = None) -> Story:
        """Cover a story with a drawing set into a photograph."""
        subject = self.rng.choice(self.subjects)
        drawing = self.rng.choice(subject.drawings).image
        story = self.take_photo(photo or self.photos.take(is_subject=False))
        canvas = story.picture.copy()
        side = int(min(canvas.size) * self.rng.uniform(0.4, 0.6))
        center = (int(canvas.width * self.rng.uniform(0.35, 0.65)), int(canvas.height * self.rng.uniform(0.5, 0.65)))
        making.paste_drawing(canvas, drawing, side, center)
        return Story(canvas, "montage", subject.name, story.words | self.describe_subject(subject, drawing))

    def describe_subject(self, subject: Subject, drawing: Image.Image) -> dict[str, str]:
        """Return the words of an article about a subject."""
        beat = texts.BEATS[subject.beat]
        colour_zh, colour_en = making.name_colour(drawing)
        return self.draw_words() | {
            "noun_zh": subject.noun_zh,
            "noun_en": subject.noun_en,
            "section_zh": beat.section_zh,
            "section_en": beat.section_en,
            "context_zh": self.rng.choice(beat.contexts_zh),
            "context_en": self.rng.choice(beat.contexts_en),
            "colour_zh": colour_zh,
            "colour_en": colour_en,
        }

    def draw_words(self) -> dict[str, str]:
        """Draw what belongs to no picture: dates, people, agencies, numbers, addresses."""
        rng = self.rng
        month = rng.randint(1, 12)
        season = texts.SEASONS[(month % 12) // 3 - 1]
        city_zh, city_en = rng.choice(texts.PLACES["city"])
        site_zh, host = rng.choice(texts.SITES_ZH)
        site_en, host_en = rng.choice(texts.SITES_EN)
        section = texts.BEATS[rng.choice(list(texts.BEATS))]
        total = rng.randint(5, 30)
        words = {
            "year": str(rng.randint(2011, 2025)),
            "month": str(month),
            "Month": texts.MONTHS[month - 1],
            "day": str(rng.randint(1, 28)),
            "h": f"{rng.randint(0, 23):02d}",
            "minute": f"{rng.randint(0, 59):02d}",
            "weekday": rng.choice(texts.WEEKDAYS),
            "season_zh": season[0],
            "season_en": season[1],
            "weather": rng.choice(texts.WEATHERS_ZH),
            "witness": rng.choice(texts.WITNESSES),
            "city_zh": city_zh,
            "city_en": city_en.split(",")[0],
            "CITY": city_en.split(",")[0].upper(),
            "site_zh": site_zh,
            "site_en": site_en,
            "host": rng.choice((host, host_en)),
            "host_zh": host,
            "host_en": host_en,
            "section_zh": section.section_zh,
            "section_en": section.section_en,
            "section_slug": section.section_en.lower().replace(" & ", "-"),
            "agency_zh": rng.choice(texts.AGENCIES_ZH),
            "agency_en": rng.choice(texts.AGENCIES_EN),
            "photographer_zh": rng.choice(texts.PHOTOGRAPHERS_ZH),
            "photographer2_zh": rng.choice(texts.PHOTOGRAPHERS_ZH),
            "photographer_en": rng.choice(texts.PHOTOGRAPHERS_EN),
            "photographer2_en": rng.choice(texts.PHOTOGRAPHERS_EN),
            "number": str(rng.randint(10**6, 10**9)),
            "number4": str(rng.randint(1000, 9999)),
            "code": "".join(rng.choices("abcdef0123456789", k=10)),
            "n": str(rng.randint(1, total)),
            "m": str(total),
        }
        words["agency_slug"] = words["agency_en"].split()[0].lower()
        words["date_zh"] = f"{month}月{words['day']}日"
        if rng.random() < 0.4:
            words["date_zh"] = f"{words['year']}年{words['date_zh']}"
        date_forms = ("{Month} {day}, {year}", "{day} {Month} {year}", "{Month} {day}")
        words["date_en"] = rng.choice(date_forms).format(**words)
        return words

    def caption(self, story: Story, language: str = "") -> str:
        """Write a caption or alt text as newsrooms do."""
        rng = self.rng
        language = language or rng.choices(("zh", "en"), (55, 45))[0]
        templates = {
            ("photo", "zh"): texts.PHOTO_ZH,
            ("photo", "en"): texts.PHOTO_EN,
            ("illustration", "zh"): texts.DRAWING_ZH,
            ("illustration", "en"): texts.DRAWING_EN,
            ("montage", "zh"): texts.MONTAGE_ZH,
            ("montage", "en"): texts.MONTAGE_EN,
        }
        return rng.choice(templates[story.form, language]).format(**self._speak(story.words, language))

    def _speak(self, words: dict[str, str], language: str) -> dict[str, str]:
        """Return the words with those of one language under their short names, and in the cases of headlines."""
        suffix = "_" + language
        spoken = words | {name.removesuffix(suffix): word for name, word in words.items() if name.endswith(suffix)}
        if language == "zh":
            return spoken
        if "noun" in spoken:
            spoken["a_noun"] = add_article(spoken["noun"])
        for name in ("scene", "noun", "a_noun", "context", "place", "season", "section"):
            word = spoken.get(name, "")
            spoken[name.upper()] = word.upper()
            spoken[name[:1].upper() + name[1:]] = word[:1].upper() + word[1:]
        slug = f"{spoken.get('scene', '')} {spoken.get('noun', '')} {spoken.get('place', spoken['section'])}"
        plain = "".join(letter if letter.isalnum() else " " for letter in slug.lower())
        spoken["slug"] = "-".join(plain.split())
        return spoken

    def make_fields(self, caption: str) -> dict[str, str]:
        """Make the address, page and section of a row."""
        words = self.draw_words()
        language = "en" if caption.isascii() else "zh"
        date = f"{words['year']}-{int(words['month']):02d}-{int(words['day']):02d}"
        path = f"{date.replace('-', '/')}/{words['section_slug']}-{words['number']}"
        host = words[f"host_{language}"]
        return {
            "url": f"https://img.{host}/{path}.jpg",
            "page": f"https://www.{host}/{path}.html",
            "site": words[f"site_{language}"],
            "section": words[f"section_{language}"],
            "published": f"{date}T{words['h']}:{words['minute']}:00Z",
        }

    def add(self, picture: Image.Image | bytes, caption: str, suffix: str = "", **truth: object) -> Row:
        """Add a row with the fields of the source; one in eight pictures is a WebP or PNG."""
        suffix = suffix or self.rng.choices(("jpg", "webp", "png"), (87, 10, 3))[0]
        return self.crawl.add(picture, caption, suffix, fields=self.make_fields(caption), **truth)

    # ---------------------------------------------------------------------------------------------------- good rows

    def add_plain_rows(self, count: int) -> None:
        for _ in range(count):
            story = self.cover_anything()
            row = self.add(story.picture, self.caption(story), group="good", kind=story.form)
            self.plain_rows.append((row, story))
            story.picture = Image.new("RGB", (1, 1))  # the row has it

    def add_marked_originals(self, count: int) -> None:
        """Add good pictures that exist only with an agency's small mark, or with a channel's logo."""
        marks = {"small_agency_mark": self.graphics.mark_agency, "small_channel_logo": self.graphics.add_channel_logo}
        for kind, mark in marks.items():
            for _ in range(count):
                story = self.cover_anything()
                self.add(mark(story.picture), self.caption(story), group="good", kind=kind)

    def add_captions_to_trim(self, count: int) -> None:
        """Add good captions with a head or tail to be cut off, `count` of each kind; credits twice as many."""
        for kind, heads, tails in texts.ADDITIONS:
            for _ in range(count * 2 if "credit" in kind else count):
                story = self.cover_anything()
                language = self.rng.choice(("zh", "en"))
                caption = self.caption(story, language)
                # Editors write in one language; markup, which has none, is added to both.
                additions = heads or tails
                matching = [text for text in additions if is_english(text) == (language == "en")]
                addition = self.rng.choice(matching or additions).format(**story.words)
                full = addition + caption if heads else caption + addition
                self.add(story.picture, full, group="good", kind=kind, clean=caption)

    def add_galleries(self, count: int) -> None:
        """Add galleries: pictures of one event, parts of one large photograph, captions much alike."""
        templates = (
            ("{date}，{place}，{scene}。", "{Scene} in {place}, {date}."),
            ("组图：{place}{scene}", "In pictures: {scene}, {place}"),
            ("在{place}拍摄的{scene}。{context}。", "{Scene}, {place}. {Context}."),
        )
        added = 0
        while added < count:
            photos = self.photos.take_series(self.rng.randint(2, 4))
            if len(photos) < 2:
                return
            template_zh, template_en = self.rng.choice(templates)
            shared = self.take_photo(photos[0]).words
            language = self.rng.choice(("zh", "en"))
            first: Row | None = None
            for photo in photos:
                story = self.take_photo(photo)
                story.words |= {name: shared[name] for name in shared if name.startswith(("date", "place"))}
                template = template_zh if language == "zh" else template_en
                if self.rng.random() < 0.4:
                    caption = self.caption(story, language)
                else:
                    caption = template.format(**self._speak(story.words, language))
                row = self.add(story.picture, caption, group="good", kind="gallery_picture", like=first)
                first = first or row
                added += 1

    def add_frames(self, count: int) -> None:
        """Add two frames of one moment: the camera moved on by 40 % of the frame, the second often upright."""
        for _ in range(count // 2):
            photo = self.photos.take()
            while not making.has_detail(photo.image):  # two frames of a mere sky would be copies
                photo = self.photos.take()
            width, height = int(photo.image.width * 0.72), int(photo.image.height * 0.72)
            second_width = width if self.rng.random() < 0.5 else int(width * 0.78)
            right, bottom = photo.image.size
            boxes = ((0, 0, width, height), (right - second_width, bottom - height, right, bottom))
            first: Row | None = None
            for box in boxes:
                frame = making.change_gamma(photo.image.crop(box), self.rng.uniform(0.93, 1.08))
                story = self.take_photo(Photo(frame, photo.name))
                row = self.add(story.picture, self.caption(story), group="good", kind="other_frame", like=first)
                first = first or row

    def add_columns(self, count: int) -> None:
        """Add pictures of daily columns: one layout, another drawing each day, captions that differ in one word."""
        for _ in range(count // 5):
            beat = self.rng.choice(list(texts.BEATS))
            members = [subject for subject in self.subjects if subject.beat == beat]
            template = self.rng.choice(self.rng.choice(texts.COLUMNS))
            language = "en" if is_english(template) else "zh"
            colour = self.rng.choice(BACKGROUNDS)[0]
            number = self.rng.randint(10, 400)
            first: Row | None = None
            for index, subject in enumerate(self.rng.sample(members, min(5, len(members)))):
                drawing = self.rng.choice(subject.drawings).image
                canvas = Image.new("RGB", (480, 300), colour)
                canvas.paste((250, 249, 245), (20, 20, 460, 240))
                making.paste_drawing(canvas, drawing, 190, (240, 130), shadow=0)
                title = self.graphics.fill(texts.BEATS[beat].section_zh, texts.BEATS[beat].section_en)
                self.signs.write(canvas, title, (240, 270), 24, making.WHITE if sum(colour) < 500 else (40, 40, 45))
                words = self.describe_subject(subject, drawing) | {"n": str(number + index)}
                caption = template.format(**self._speak(words, language))
                row = self.add(canvas, caption, group="good", kind="daily_column", like=first)
                first = first or row

    def add_portraits(self, count: int) -> None:
        """Add portraits before one background, such as those of candidates, whose captions differ in the person."""
        for _ in range(count // 4):
            colour, colour_zh, colour_en = self.rng.choice(BACKGROUNDS)
            place_zh, place_en = self.rng.choice(texts.PLACES["city"])
            language = self.rng.choice(("zh", "en"))
            first: Row | None = None
            for person in self.rng.sample(self.people, 4):
                canvas = making.make_gradient(340, 400, tuple((255 + level) // 2 for level in colour), colour)
                making.paste_drawing(canvas, person.image, 300, (170, 235), shadow=0.2)
                job_zh, job_en = texts.PEOPLE[person.name_en]
                words = self.draw_words()
                if language == "zh":
                    caption = f"人物肖像：来自{place_zh}的{job_zh}{words['photographer_zh']}，{colour_zh}背景"
                else:
                    caption = f"{words['photographer_en']}, {add_article(job_en)} from {place_en}, against {colour_en}"
                row = self.add(canvas, caption, group="good", kind="portrait_series", like=first)
                first = first or row

    def add_team_colours(self, count: int) -> None:
        """Add one drawing in the colours of three teams or parties, with captions that differ in the colour."""
        added = 0
        while added < count:
            subject = self.rng.choice(self.subjects)
            drawing = self.rng.choice(subject.drawings).image
            variants: dict[tuple[str, str], Image.Image] = {}
            for degrees in (0, 120, 240):
                variant = making.shift_hue(drawing, degrees)
                variants.setdefault(making.name_colour(variant), variant)
            if len(variants) < 3:
                continue
            language = self.rng.choice(("zh", "en"))
            first: Row | None = None
            for (colour_zh, colour_en), variant in variants.items():
                canvas = Image.new("RGB", (420, 300), (240, 240, 238))
                making.paste_drawing(canvas, variant, 240, (210, 150), shadow=0.2)
                caption = f"三款配色之一：{colour_zh}的{subject.noun_zh}"
                if language == "en":
                    caption = f"One of three designs: {add_article(subject.noun_en)} in {colour_en}"
                row = self.add(canvas, caption, "jpg", group="good", kind="colour_variant", like=first)
                first = first or row
                added += 1

    # ----------------------------------------------------------------------------------------------------- faults

    def add_copies(self, count: int) -> None:
        """Add changed copies of plain rows, `count` of each kind; every third original has several."""
        shared = self.rng.sample(self.plain_rows, max(1, len(self.plain_rows) // 3))
        # Their originals get worse, so nothing else may be made of them.
        replaced = [entry for entry in self.plain_rows if entry not in shared]
        self.rng.shuffle(replaced)

        used: set[tuple[int, str]] = set()
        for kind, alter in self._list_alterations().items():
            for _ in range(count):
                row, story = self.rng.choice(shared)
                while (id(row), kind) in used and count < len(shared):
                    row, story = self.rng.choice(shared)
                used.add((id(row), kind))
                keep = None if kind == "exact" else row
                picture = row.image if kind == "exact" else alter(row.open())
                suffix = row.suffix if kind == "exact" else "jpg"
                self.add(picture, self._recaption(row, story), suffix, group="copy", kind=kind, of=row, keep=keep)

        spoilers: dict[str, making.Alteration] = {
            "larger_200": partial(making.resize_by, factor=0.5),
            "without_lower_third": self.graphics.add_lower_third,
            "without_preview_mark": self._mark_preview,
        }
        for kind, spoil in spoilers.items():
            for _ in range(min(count, len(replaced))):
                row, story = replaced.pop()
                copy = self.add(row.image, self._recaption(row, story), row.suffix, group="copy", kind=kind, of=row)
                copy.keep = copy
                row.image, row.suffix = making.encode_image(spoil(row.open()), "jpg", 88), "jpg"

    def _list_alterations(self) -> dict[str, making.Alteration]:
        rng, graphics = self.rng, self.graphics
        return {
            "exact": lambda image: image,
            "jpeg_20": partial(making.recompress, quality=20),
            "width_160": lambda image: ImageOps.contain(image, (160, 160)),
            "upscaled_250": lambda image: making.resize_by(making.resize_by(image, 0.4), 2.5),
            "teaser_16_9": partial(crop_to_ratio, ratio=16 / 9, rng=rng),
            "teaser_square": partial(crop_to_ratio, ratio=1, rng=rng),
            "agency_mark": graphics.mark_agency,
            "channel_logo": graphics.add_channel_logo,
            "lower_third": graphics.add_lower_third,
            "play_button": graphics.add_play_button,
            "video_bars_12": lambda image: graphics.add_channel_logo(making.add_bars(image, 0.12)),
            "blurred_fill": graphics.fill_around,
            "grey": lambda image: ImageOps.grayscale(image).convert("RGB"),
            "tinted": graphics.tint,
            "darker_12": partial(making.change_brightness, factor=0.88),
            "darker_30": partial(making.change_brightness, factor=0.7),
            "brighter_20": partial(making.change_brightness, factor=1.2),
            "mirrored": making.mirror,
            "gallery_number": graphics.number_in_gallery,
            "teaser_card": graphics.make_teaser_card,
            "halftone": graphics.print_halftone,
        }

    def _mark_preview(self, image: Image.Image) -> Image.Image:
        return self.signs.tile(image, self.graphics.name_agency(), 0.3)

    def _recaption(self, row: Row, story: Story) -> str:
        """Return the caption of another site for the same picture, or in half of the cases the agency's."""
        if self.rng.random() < 0.5:
            return row.caption
        fresh = self.draw_words()  # dates and places stay, people and sites change
        story.words |= {name: fresh[name] for name in ("witness", "weather", "site_zh", "site_en", "number", "code")}
        return self.caption(story)

    def add_bad_captions(self, count: int) -> None:
        """Add good pictures with captions that are none, `count` of each kind."""
        spoilers: dict[str, making.Alteration] = {
            "preview_watermark": self._cover_with_marks,
            "pixelated": partial(making.pixelate, cells=14),
        }
        for kind, write in self._list_bad_captions().items():
            for _ in range(count):
                story = self.cover_anything()
                picture, detail = story.picture, ""
                if self.rng.random() < SHARE_OF_TWO_FAULTS:
                    second = self.rng.choice(list(spoilers))
                    picture, detail = spoilers[second](picture), f"{kind} and {second}"
                self.add(picture, write(story), group="text", kind=kind, detail=detail)

    def _cover_with_marks(self, image: Image.Image) -> Image.Image:
        return self.signs.tile(image, self.graphics.name_agency(), 0.75, size=34)

    def _list_bad_captions(self) -> dict[str, Callable[[Story], str]]:
        rng = self.rng

        def pick(choices: tuple[str, ...]) -> Callable[[Story], str]:
            return lambda story: rng.choice(choices).format(**story.words)

        def list_tags(story: Story) -> str:
            parts = rng.choice((texts.TAG_PARTS_ZH, texts.TAG_PARTS_EN))
            return rng.choice((",", ", ", " ", "，", " #")).join(rng.sample(parts, rng.randint(7, 13)))

        def repeat(story: Story) -> str:
            caption = self.caption(story)
            words = caption.split() if caption.isascii() else [caption[:4]]
            stuttered = " ".join(word for word in words for _ in range(rng.randint(3, 4)))
            return rng.choice(("".join([caption] * 4), " ".join([caption] * 3), stuttered))

        def write_foreign(story: Story) -> str:
            words = story.words | {"city": story.words["city_en"], "agency": story.words["agency_en"]}
            return rng.choice(texts.OTHER_LANGUAGES).format(**words)

        def question(story: Story) -> str:
            return "".join(letter if letter.isascii() else "?" for letter in self.caption(story, "zh"))

        return {
            "credit_only": pick(texts.CREDITS),
            "date_only": pick(texts.DATES),
            "copyright": pick(texts.COPYRIGHTS),
            "breadcrumb": pick(texts.BREADCRUMBS),
            "url": pick(texts.URLS),
            "call_to_action": pick(texts.CALLS),
            "gallery_serial": pick(texts.SERIALS),
            "file_photo_only": pick(texts.FILE_PHOTOS),
            "placeholder_alt": pick(texts.PLACEHOLDERS),
            "file_name": pick(texts.FILE_NAMES),
            "wire_code": pick(texts.WIRE_CODES),
            "json_leftover": pick(texts.JSON_LEFTOVERS),
            "template_leftover": pick(texts.TEMPLATES),
            "clickbait": pick(texts.CLICKBAIT),
            "abstract_headline": pick(texts.HEADLINES),
            "widget": pick(texts.WIDGETS),
            "tag_list": list_tags,
            "repeated": repeat,
            "other_language": write_foreign,
            "mojibake_gbk": lambda story: making.misread(self.caption(story, "zh"), "gbk"),
            "mojibake_latin1": lambda story: making.misread(
                self.caption(story, "zh"), rng.choice(("latin-1", "cp1252"))
            ),
            "question_marks": question,
        }

    def add_bad_pictures(self, count: int) -> None:
        """Add pictures that are no photographs or hardly any, under the captions of their articles."""
        graphics = self.graphics
        makers: dict[str, making.Alteration] = {
            "chart": graphics.make_chart,
            "locator_map": graphics.make_locator_map,
            "site_logo": graphics.make_site_logo,
            "qr_code": graphics.make_qr_code,
            "post_screenshot": graphics.make_post,
            "document_scan": graphics.make_document,
            "breaking_card": graphics.make_breaking_card,
            "placeholder_picture": graphics.make_placeholder,
            "page_screenshot": graphics.make_page,
        }
        for kind, make in makers.items():
            for _ in range(count):
                row, story = self.rng.choice(self.plain_rows)  # another picture of its article
                self.add(make(row.open()), self.caption(story), group="image", kind=kind)

        spoilers: dict[str, making.Alteration] = {
            "preview_watermark": self._cover_with_marks,
            "thumbnail_48": lambda image: ImageOps.fit(image, (64, 48)),
        }
        for kind, spoil in spoilers.items():
            for _ in range(count):
                story = self.cover_anything()
                self.add(spoil(story.picture), self.caption(story), group="image", kind=kind)

    def add_mismatches(self, count: int) -> None:
        """Add captions of other pictures: of another photograph, of a drawing, of the picture before in a gallery."""
        photos = [(row, story) for row, story in self.plain_rows if story.form == "photo"]
        drawings = [(row, story) for row, story in self.plain_rows if story.form == "illustration"]
        for _ in range(count):
            story = self.take_photo()
            other = self.rng.choice(
                [row for row, entry in photos if describe_scene(entry.subject) != describe_scene(story.subject)]
            )
            self.add(story.picture, other.caption, group="mismatch", kind="wrong_photo", of=other)
        for index in range(count):
            story = self.take_photo() if index % 2 else self.illustrate()
            other = self.rng.choice(drawings if index % 2 else photos)[0]
            self.add(story.picture, other.caption, group="mismatch", kind="photo_and_drawing_mixed_up", of=other)

        story = self.illustrate()
        before = self.add(story.picture, self.caption(story), group="good", kind="illustration")
        caption, subject = before.caption, story.subject
        for _ in range(count):
            following = self.cover_anything()
            while following.subject == subject:
                following = self.cover_anything()
            before = self.add(following.picture, caption, group="mismatch", kind="shifted_gallery", of=before)
            caption, subject = self.caption(following), following.subject

    def add_local_changes(self, count: int) -> None:
        """Add pairs that differ in a red circle, a mosaic, the word on a placard or the number on a vehicle."""
        for _ in range(count):
            story = self.cover_anything()
            language = self.rng.choice(("zh", "en"))
            caption = self.caption(story, language)
            circled, detail = caption, "captions same"
            if self.rng.random() < 0.5:
                note = "（红圈处为事发位置）" if language == "zh" else " (circled in red)"
                circled, detail = caption + note, "captions differ"
            picture = self.graphics.circle_in_red(story.picture)
            self._add_pair("red_circle", (story.picture, picture), (caption, circled), detail)

        for _ in range(count):
            story = self.take_photo()
            caption = self.caption(story)
            picture = self.graphics.mosaic_patch(story.picture)
            self._add_pair("mosaic", (story.picture, picture), (caption, caption), "captions same")

        for _ in range(count):
            story = self.take_photo()
            language = self.rng.choice(("zh", "en"))
            caption = self.caption(story, language).rstrip("。.")
            words = [self.signs.choose(*word) for word in self.rng.sample(texts.PLACARDS, 2)]
            pictures = [self.graphics.write_placard(story.picture, word) for word in words]
            note = "{}。牌子上写着“{}”。" if language == "zh" else '{}. A sign reads "{}".'
            captions = [note.format(caption, word) for word in words]
            self._add_pair("placard", pictures, captions, "captions differ")

        vehicles = [subject for subject in self.subjects if subject.beat == "transport"]
        for _ in range(count):
            story = self.illustrate(self.rng.choice(vehicles))
            numbers = [str(number) for number in self.rng.sample(range(2, 90), 2)]
            colour = self.rng.choice((RED, BLUE, (15, 15, 20)))
            pictures = [self.graphics.write_number(story.picture, number, colour) for number in numbers]
            language = self.rng.choice(("zh", "en"))
            template = "{0}号{noun}的插图，{where}" if language == "zh" else "{A_noun} bearing the number {0}, {where}"
            words_of_story = self._speak(story.words, language)
            captions = [template.format(number, **words_of_story) for number in numbers]
            self._add_pair("fleet_number", pictures, captions, "captions differ")

    def _add_pair(self, kind: str, pictures: Sequence[Image.Image], captions: Sequence[str], detail: str) -> None:
        base = self.add(pictures[0], captions[0], "jpg", group="good", kind="before_local_change")
        self.add(pictures[1], captions[1], "jpg", group="local", kind=kind, of=base, detail=detail)

    def add_benchmark(self, num_images: int, count: int) -> None:
        """Make the benchmark's test set, leaks of it, and good rows that resemble a test image."""
        tests: list[tuple[Row, Story]] = []
        frames: list[tuple[Row, Photo]] = []
        for index in range(num_images):
            if index % 3:
                photo = self.photos.take()
                width, height = int(photo.image.width * 0.75), int(photo.image.height * 0.75)
                story = self.take_photo(Photo(photo.image.crop((0, 0, width, height)), photo.name))
                row = self.crawl.add_test_image(story.picture, self.caption(story))
                if making.has_detail(photo.image):
                    rest = photo.image.crop((photo.image.width - width, photo.image.height - height, *photo.image.size))
                    frames.append((row, Photo(rest, photo.name)))
            else:
                story = self.illustrate(self.rng.choice(self.test_subjects))
                row = self.crawl.add_test_image(story.picture, self.caption(story))
            tests.append((row, story))

        leaks: dict[str, making.Alteration] = {
            "leak_exact": lambda image: image,
            "leak_jpeg_30": partial(making.recompress, quality=30),
            "leak_teaser_16_9": partial(crop_to_ratio, ratio=16 / 9, rng=self.rng),
            "leak_lower_third": self.graphics.add_lower_third,
            "leak_grey": lambda image: ImageOps.grayscale(image).convert("RGB"),
        }
        for kind, alter in leaks.items():
            for row, story in self.rng.sample(tests, min(count, len(tests))):
                picture = row.image if kind == "leak_exact" else alter(row.open())
                self.add(picture, self.caption(story), "jpg", group="leak", kind=kind, of=row)

        for row, photo in self.rng.sample(frames, min(count, len(frames))):
            story = self.take_photo(photo)
            self.add(story.picture, self.caption(story), group="good", kind="other_frame_of_test_image", like=row)
        by_name = {subject.name: subject for subject in self.subjects}
        for row, story in tests:
            if story.form == "illustration" and story.subject in by_name:
                other = self.illustrate(by_name[story.subject])
                self.add(other.picture, self.caption(other), group="good", kind="subject_of_test_image", like=row)


def collect_subjects(drawings: list[Drawing]) -> list[Subject]:
    """Collect the subjects that there are drawings of."""
    by_name: dict[str, list[Drawing]] = {}
    for drawing in drawings:
        by_name.setdefault(drawing.name_en, []).append(drawing)
    subjects = []
    for beat_name, beat in texts.BEATS.items():
        for name in beat.nouns:
            solid = [drawing for drawing in by_name.get(name, []) if making.is_solid(drawing.image)]
            if solid:
                subjects.append(Subject(name, beat_name, tuple(solid)))
    return subjects


def describe_scene(name: str) -> tuple[str, str]:
    """Return what a photograph shows in Chinese, and what sort of place it is, by the words of its name."""
    ground, _, sky = name.partition(" under a ")
    if ground in texts.GROUNDS_ZH and sky in texts.SKIES_ZH:
        ground_zh, place_sort = texts.GROUNDS_ZH[ground]
        return texts.SKIES_ZH[sky] + ground_zh, place_sort
    if name in texts.SURFACES_ZH:
        return texts.SURFACES_ZH[name], "city"
    words = f" {name}"
    matches = [(chinese, place_sort) for english, chinese, place_sort in texts.SCENES if f" {english}" in words]
    return matches[0] if matches else ("户外景色", "rural")


PREPOSITIONS = ("in", "on", "at", "under", "with", "of", "by", "from", "over", "after", "to", "and")


def add_article(name: str) -> str:
    """Put the article before a name, unless its head is a plural or a mass."""
    words = name.split()
    ends = [index for index, word in enumerate(words) if index and word in PREPOSITIONS]
    head = words[(ends[0] if ends else len(words)) - 1]
    if name.startswith("roman "):
        return "the Roman " + name.removeprefix("roman ")
    if head in texts.PLURALS_AND_MASS or (head.endswith("s") and not head.endswith(("ss", "us"))):
        return name
    has_vowel = name[0].lower() in "aeiou" or name.startswith(("hour", "x-"))
    return f"{'an' if has_vowel else 'a'} {name}"


def is_english(template: str) -> bool:
    """Return whether a template has no Chinese, neither letters and brackets nor words that it asks for."""
    return template.replace("©", "").isascii() and "_zh" not in template


def crop_to_ratio(image: Image.Image, ratio: float, rng: random.Random) -> Image.Image:
    """Cut a picture to a ratio of width to height, more from the end than from the beginning."""
    if image.width > image.height * ratio:
        width, height = round(image.height * ratio), image.height
    else:
        width, height = image.width, round(image.width / ratio)
    left = int((image.width - width) * rng.uniform(0.2, 0.6))
    top = int((image.height - height) * rng.uniform(0.1, 0.5))
    return image.crop((left, top, left + width, top + height))


def main() -> None:
    args = making.parse_arguments(__doc__)
    rng = random.Random(args.seed)  # noqa: S311
    # Half of the rows take a photograph; with fewer expected, the last kinds would get made ones only.
    photos = PhotoSource(args.images, rng, round(args.rows * 0.5), LEAST_SCALE, LEAST_DETAIL)
    newsroom = Newsroom(rng, photos, Signs(args.font))
    count = max(1, round(args.rows * SHARE_OF_KIND))

    # The shares leave half of the rows good; what is not a fault or a likeness is plain.
    newsroom.add_galleries(round(args.rows * 0.03))  # first, while photographs have crops enough
    newsroom.add_plain_rows(round(args.rows * 0.28))
    newsroom.add_marked_originals(count)
    newsroom.add_captions_to_trim(count)
    newsroom.add_frames(round(args.rows * 0.04))
    newsroom.add_columns(round(args.rows * 0.03))
    newsroom.add_portraits(round(args.rows * 0.012))
    newsroom.add_team_colours(round(args.rows * 0.012))
    newsroom.add_copies(count)
    newsroom.add_bad_captions(count)
    newsroom.add_bad_pictures(count)
    newsroom.add_mismatches(count)
    newsroom.add_local_changes(count)
    newsroom.add_benchmark(max(6, round(args.rows * 0.04)), count)
    newsroom.crawl.write(args.output)
    language = newsroom.signs.choose("Chinese", "English (no Chinese font found)")
    print(
        f"{len(newsroom.crawl.rows):,} rows in {args.output}; {newsroom.photos.num_crops:,} crops of photographs, "
        f"{newsroom.photos.num_made:,} made photographs, signs in {language}"
    )


if __name__ == "__main__":
    main()
