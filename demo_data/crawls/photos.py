"""Make the crawl of a photo community: photographs, edits and reposts of them, drawings, and what people write below.

    python demo_data/crawls/photos.py --output runs/crawls/photos --images photos

Writes shards as img2dataset does, truth.csv and benchmark/test.tar; README.md of this folder explains them.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import making
import numpy as np
import photos_texts as texts
from making import Crawl, Drawing, Photo, PhotoSource, Row, Signs
from PIL import Image, ImageDraw, ImageFilter, ImageOps

# Share of the rows that a kind of fault has: 40 of 5,000, so that a share of them found means something.
SHARE_OF_KIND = 0.008
# Of copies and of bad captions; some 5 % of all faulty rows then have two faults.
SHARE_OF_TWO_FAULTS = 0.08

DARK, GREY, RED = (38, 38, 42), (140, 140, 146), (225, 45, 70)
PAPERS = ((250, 248, 240), (244, 238, 224), (255, 255, 255), (238, 232, 220))
PALETTES = (
    ((250, 214, 165), (245, 160, 140)), ((190, 220, 240), (235, 245, 250)), ((40, 50, 100), (120, 100, 160)),
    ((200, 230, 190), (240, 248, 220)), ((250, 225, 235), (225, 200, 240)), ((255, 240, 190), (250, 205, 120)),
    ((25, 70, 80), (90, 160, 150)), ((230, 120, 90), (250, 200, 150)),
)  # fmt: skip


@dataclass
class Post:
    """A picture and what can be said of it."""

    picture: Image.Image
    kind: str  # photo, painting, toy or composite
    genre: str
    subjects_zh: tuple[str, ...]
    subjects_en: tuple[str, ...]
    # Of paintings and toys.
    name: str = ""
    noun_zh: str = ""
    style: str = ""
    scene: tuple[str, str] = ("", "")


class Community:
    """Posts photographs and drawings, and plants faults among them.

    Args:
        rng: draws everything.
        photos: the photographs.
        signs: writes text into pictures.
    """

    def __init__(self, rng: random.Random, photos: PhotoSource, signs: Signs) -> None:
        self.rng, self.photos, self.signs = rng, photos, signs
        self.crawl = Crawl(rng)
        self.measures = {name: measure for measure, names in texts.PAINTED.items() for name in names}
        wanted = {*self.measures, *texts.COMPANIONS}
        drawings = making.read_drawings("emoji-train.tar", wanted) + making.read_drawings("emoji-val.tar", wanted)
        drawings = [drawing for drawing in drawings if making.is_solid(drawing.image)]
        self.subjects = [drawing for drawing in drawings if drawing.name_en in self.measures]
        self.companions = [drawing for drawing in drawings if drawing.name_en in texts.COMPANIONS]
        test_drawings = making.read_drawings("emoji-test.tar", set(self.measures))
        self.test_subjects = [drawing for drawing in test_drawings if making.is_solid(drawing.image)]
        # Rows with nothing special about them, and their posts: what copies are made of.
        self.plain_rows: list[tuple[Row, Post]] = []

    # ------------------------------------------------------------------------------------------------------- posts

    def make_post(self) -> Post:
        """Make a post of any kind: seven of ten are photographs."""
        make = self.rng.choices(
            (self.post_photo, self.post_painting, self.post_toy, self.post_composite), (70, 22, 4, 4)
        )
        return make[0]()

    def post_photo(self, photo: Photo | None = None) -> Post:
        photo = photo or self.photos.take()
        genre, subjects_zh, subjects_en = describe_photo(photo.name)
        return Post(photo.image, "photo", genre, subjects_zh, subjects_en, scene=(subjects_zh[0], subjects_en[0]))

    def post_painting(self, drawing: Drawing | None = None, style: str = "") -> Post:
        """Draw one thing, in half of the drawings with another thing beside it."""
        drawing = drawing or self.rng.choice(self.subjects)
        style = style or self.rng.choice(list(texts.STYLES))
        name_zh, name_en = self._count_noun(drawing)
        size = self.rng.choice(((420, 420), (360, 480), (480, 360), (512, 400)))
        background = (
            self.rng.choice(PALETTES) if style in ("digital", "flat", "oil") else (self.rng.choice(PAPERS),) * 2
        )
        canvas = making.make_gradient(*size, *background)
        if style == "oil" or (style == "digital" and self.rng.random() < 0.5):
            self._paint_ground(canvas)

        if self.rng.random() < 0.5:
            companion = self.rng.choice([drawn for drawn in self.companions if drawn.name_en != drawing.name_en])
            at = (int(size[0] * self.rng.choice((0.2, 0.8))), int(size[1] * self.rng.uniform(0.2, 0.3)))
            making.paste_drawing(canvas, companion.image, min(size) // 4, at, shadow=0)
            companion_zh, companion_en = texts.COMPANIONS[companion.name_en]
            name_zh, name_en = f"{name_zh}和{companion_zh}", f"{name_en} and {companion_en}"
        at = (int(size[0] * self.rng.uniform(0.42, 0.58)), int(size[1] * self.rng.uniform(0.52, 0.64)))
        side = int(min(size) * self.rng.uniform(0.45, 0.66))
        shadow = 0.25 if style in ("digital", "flat") else 0
        making.paste_drawing(canvas, drawing.image, side, at, shadow, self.rng.uniform(-12, 12))
        picture = self._apply_style(canvas, style)
        return Post(picture, "painting", "painting", (name_zh,), (name_en,), drawing.name_en, drawing.name_zh, style)

    def post_toy(self, drawing: Drawing | None = None, place: tuple[Image.Image, str] | None = None) -> Post:
        """Photograph a figure on a table, on cloth or before the lights of a night."""
        drawing = drawing or self.rng.choice(self.subjects)
        surface, name = place or self.make_table()
        canvas = surface.copy()
        at = (int(canvas.width * self.rng.uniform(0.35, 0.65)), int(canvas.height * self.rng.uniform(0.5, 0.65)))
        side = int(min(canvas.size) * self.rng.uniform(0.4, 0.55))
        making.paste_drawing(canvas, drawing.image, side, at, 0.5, self.rng.uniform(-15, 15))
        canvas = making.add_noise(making.blur(canvas, 0.7), 4, self.rng)
        name_zh, name_en = self._count_noun(drawing)
        scene = (texts.SURFACES_ZH[name], name)
        return Post(canvas, "toy", "object", (name_zh,), (name_en,), drawing.name_en, drawing.name_zh, scene=scene)

    def make_table(self) -> tuple[Image.Image, str]:
        photo = making.make_photograph(self.rng, is_subject=False)
        while photo.name not in texts.SURFACES_ZH:
            photo = making.make_photograph(self.rng, is_subject=False)
        return photo.image, photo.name

    def post_composite(self) -> Post:
        """Paste a drawing into a photograph."""
        photo, drawing = self.photos.take(), self.rng.choice(self.subjects)
        canvas = photo.image.copy()
        at = (int(canvas.width * self.rng.uniform(0.25, 0.75)), int(canvas.height * self.rng.uniform(0.5, 0.75)))
        making.paste_drawing(canvas, drawing.image, int(min(canvas.size) * self.rng.uniform(0.3, 0.5)), at, 0.4)
        genre, scenes_zh, scenes_en = describe_photo(photo.name)
        name_zh, name_en = self._count_noun(drawing)
        scene = (self.rng.choice(scenes_zh), self.rng.choice(scenes_en))
        return Post(canvas, "composite", genre, (name_zh,), (name_en,), drawing.name_en, drawing.name_zh, scene=scene)

    def _count_noun(self, drawing: Drawing) -> tuple[str, str]:
        """Return the name of what is drawn with its article, in Chinese and English."""
        noun = drawing.name_en
        article = "an" if noun[0] in "aeiouAEIO" and noun != "unicorn" else "a"
        return f"一{self.measures[noun]}{drawing.name_zh}", f"{article} {noun}"

    def _paint_ground(self, canvas: Image.Image) -> None:
        """Paint rolling ground into the lower third."""
        draw = ImageDraw.Draw(canvas)
        colour = self.rng.choice(((110, 150, 90), (190, 150, 100), (90, 110, 140), (230, 225, 230)))
        for layer in range(3):
            top = canvas.height * (0.6 + 0.12 * layer)
            shade = tuple(int(level * (1.1 - 0.13 * layer)) for level in colour)
            left = -canvas.width * self.rng.uniform(0.1, 0.6)
            draw.ellipse((left, top, left + canvas.width * 2, top + canvas.height), fill=shade)

    def _apply_style(self, canvas: Image.Image, style: str) -> Image.Image:
        """Make a picture look painted, sketched, or like a photographed page of a sketchbook."""
        noise = np.random.default_rng(self.rng.getrandbits(32))
        width, height = canvas.size
        grain = making.make_smooth_noise(noise, height, width, (height // 4, width // 4), 0.8)[..., None]
        pixels = np.asarray(canvas)
        if style == "pencil":
            grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
            # A colour dodge of the grey picture by its blurred negative leaves the lines.
            lines = cv2.divide(grey, cv2.GaussianBlur(grey, (0, 0), 7), scale=245).astype(np.float32)
            painted = np.repeat((lines * 0.8 + grey * 0.2)[..., None], 3, axis=2) + grain * 4
        elif style == "watercolour":
            smooth = cv2.bilateralFilter(cv2.medianBlur(pixels, 5), 9, 60, 9).astype(np.float32)
            pigment = making.make_smooth_noise(noise, height, width, (5, 5), 0.7)[..., None]
            painted = 255 - (255 - smooth) * (0.78 + 0.12 * pigment) + grain * 3
        elif style == "oil":
            painted = cv2.medianBlur(pixels, 9).astype(np.float32)
            strokes = cv2.blur(grain[..., 0], (11, 2))[..., None]
            painted = painted + strokes * 16
        elif style == "sketchbook":
            page = ImageOps.expand(making.change_saturation(canvas, 0.8), 12, (250, 248, 242))
            table = making.make_photograph(self.rng, is_subject=False).image.resize((width + 70, height + 70))
            page_with_hole = page.convert("RGBA").rotate(self.rng.uniform(-6, 6), Image.Resampling.BICUBIC, expand=True)
            at = ((table.width - page_with_hole.width) // 2, (table.height - page_with_hole.height) // 2)
            table.paste(page_with_hole.convert("RGB"), at, page_with_hole.getchannel("A"))
            return making.add_noise(table, 4, self.rng)
        else:
            painted = pixels.astype(np.float32) + grain * (1.5 if style == "digital" else 0)
        return Image.fromarray(np.clip(painted, 0, 255).astype(np.uint8))

    # ------------------------------------------------------------------------------------------------------ captions

    def draw_words(self, post: Post) -> dict[str, str | int]:
        """Draw the words with which captions of a post are filled."""
        rng = self.rng
        genre = texts.GENRES[post.genre]
        zh, en = rng.choice(post.subjects_zh), rng.choice(post.subjects_en)
        place, detail, title = rng.choice(genre.places), rng.choice(genre.details), rng.choice(texts.TITLES)
        tags_zh, tags_en = rng.sample(genre.tags_zh, 2), rng.sample(genre.tags_en, 2)
        handles = rng.sample(texts.HANDLES, 2)
        month = rng.randint(1, 12)
        camera = rng.choice(texts.CAMERAS)
        style_zh, style_en = texts.STYLES.get(post.style, ("", ""))
        words: dict[str, str | int] = {
            "zh": zh, "en": en, "En": en[0].upper() + en[1:], "EN": en.upper(), "noun_zh": post.noun_zh,
            "noun_en": post.name,
            "slug": "-".join(en.lower().replace(",", "").split()), "scene_zh": post.scene[0], "scene_en": post.scene[1],
            "place_zh": place[0], "place_en": place[1], "detail_zh": detail[0], "detail_en": detail[1],
            "Detail_en": detail[1][0].upper() + detail[1][1:], "title_zh": title[0], "title_en": title[1],
            "genre_zh": genre.name_zh,
            "style_zh": style_zh, "style_en": style_en, "Style_en": style_en.capitalize(),
            "tag1_zh": tags_zh[0], "tag2_zh": tags_zh[1], "tag1_en": tags_en[0], "tag2_en": tags_en[1],
            "handle_zh": handles[0][0], "handle": handles[0][1], "handle2_zh": handles[1][0], "handle2": handles[1][1],
            "name_en": rng.choice(texts.NAMES_EN), "name": handles[0][1].split(".")[0], "host": rng.choice(texts.HOSTS),
            "year": rng.randint(2006, 2023), "month": month, "day": rng.randint(1, 28),
            "month_en": texts.MONTHS[month - 1],
            "weekday_zh": rng.choice("一二三四五"), "camera": camera, "camera_tag": camera.split()[0].lower(),
            "mm": rng.choice((14, 24, 35, 50, 85, 105, 200, 400)), "f": rng.choice((1.4, 1.8, 2.8, 4, 5.6, 8, 11, 16)),
            "speed": rng.choice((8, 30, 60, 125, 250, 500, 1000, 2000)),
            "iso": rng.choice((50, 100, 200, 400, 800, 1600, 6400)),
            "lat": f"{rng.uniform(3, 62):.4f}", "lon": f"{rng.uniform(5, 140):.4f}",
            "letters": "".join(rng.choices("abcdefghkmnpqrstuvwxyz", k=5)),
        }  # fmt: skip
        for digits in range(2, 8):
            words[f"n{digits}"] = rng.randint(10 ** (digits - 1), 10**digits - 1)
        return words

    def describe(self, post: Post, language: str = "") -> str:
        """Write a caption as people do; three of five are Chinese."""
        language = language or self.rng.choice(("zh", "zh", "zh", "en", "en"))
        words = self.draw_words(post)
        if post.kind == "toy":
            words["zh"] = post.noun_zh
        templates: tuple[str, ...]
        if post.kind in ("toy", "composite"):
            pairs = texts.TOY_CAPTIONS if post.kind == "toy" else texts.COMPOSITE_CAPTIONS
            templates = tuple(chinese if language == "zh" else english for chinese, english in pairs)
        elif post.kind == "painting":
            templates = texts.PAINTING_CAPTIONS_ZH if language == "zh" else texts.PAINTING_CAPTIONS_EN
        else:
            templates = texts.PHOTO_CAPTIONS_ZH if language == "zh" else texts.PHOTO_CAPTIONS_EN
        return self.rng.choice(templates).format(**words)

    # ---------------------------------------------------------------------------------------------------- good rows

    def add(self, picture: Image.Image | bytes, caption: str, suffix: str = "", **truth: object) -> Row:
        """Add a row with the fields of the source; one in ten pictures is a WebP or PNG."""
        suffix = suffix or self.rng.choices(("jpg", "webp", "png"), (90, 7, 3))[0]
        number = self.rng.randint(10_000_000, 99_999_999)
        user = self.rng.choice(texts.HANDLES)[1]
        host = self.rng.choice(texts.HOSTS)
        fields = {
            "url": f"https://img.{host}/{number % 97:02d}/{number}_b.{suffix}",
            "page": f"https://{host}/{user}/{number}",
            "user": user,
            "faves": int(self.rng.paretovariate(0.8)) - 1,
        }
        return self.crawl.add(picture, caption, suffix, fields=fields, **truth)

    def add_plain_rows(self, count: int) -> None:
        for _ in range(count):
            post = self.make_post()
            row = self.add(post.picture, self.describe(post), group="good", kind=post.kind)
            self.plain_rows.append((row, post))
            post.picture = Image.new("RGB", (1, 1))  # the row has it

    def add_finished_photos(self, count: int) -> None:
        """Add photographs that their authors themselves signed, framed, dated or made grey, `count` of each kind."""
        finishes: dict[str, making.Alteration] = {
            "small_signature": lambda image: self.signs.mark_corner(image, self._author(), self._corner()),
            "framed_by_author": lambda image: ImageOps.expand(image, self.rng.randint(8, 20), making.WHITE),
            "date_stamp": self.stamp_date,
            "black_and_white_by_author": making.desaturate,
        }
        for kind, finish in finishes.items():
            for _ in range(count):
                post = self.post_photo()
                self.add(finish(post.picture), self.describe(post), group="good", kind=kind)

    def add_captions_to_trim(self, count: int) -> None:
        """Add good captions with a head or tail to be cut off, `count` of each kind."""
        for kind, heads, tails in texts.ADDITIONS:
            for _ in range(count):
                post = self.make_post()
                language = self.rng.choice(("zh", "en"))
                caption = self.describe(post, language)
                additions = heads or tails
                if language == "en":  # whoever writes English adds nothing Chinese
                    additions = tuple(addition for addition in additions if not has_chinese(addition))
                addition = self.rng.choice(additions).format(**self.draw_words(post))
                full = addition + caption if heads else caption + addition
                self.add(post.picture, full, group="good", kind=kind, clean=caption)

    def add_series_of_places(self, count: int) -> None:
        """Add albums: parts of one place that do not overlap, three or four of each."""
        for _ in range(count // 4):
            photos = self.photos.take_series(4) or self._make_album()
            first: Row | None = None
            for number, photo in enumerate(photos, 1):
                post = self.post_photo(photo)
                caption = self.describe(post)
                if self.rng.random() < 0.3:
                    caption += f" ({number}/{len(photos)})"
                row = self.add(photo.image, caption, group="good", kind="album_of_place", like=first)
                first = first or row

    def _make_album(self) -> list[Photo]:
        view = self.rng.getrandbits(32)
        return [make_view(view, self.rng) for _ in range(3)]

    def add_frames(self, count: int) -> None:
        """Add two frames of one scene, the second moved on by a third of the frame, in slightly other light."""
        for _ in range(count // 2):
            first: Row | None = None
            for photo in self.take_frames():
                post = self.post_photo(photo)
                row = self.add(photo.image, self.describe(post), group="good", kind="frame_of_scene", like=first)
                first = first or row

    def take_frames(self) -> list[Photo]:
        """Take two frames of one scene that share a third of what they show."""
        photo = self.photos.take()
        while not making.has_detail(photo.image):  # two frames of a mere sky would be copies
            photo = self.photos.take()
        width, height = int(photo.image.width * 0.75), int(photo.image.height * 0.75)
        corners = [(0, 0), (photo.image.width - width, photo.image.height - height)]
        if self.rng.random() < 0.5:
            corners = [(0, photo.image.height - height), (photo.image.width - width, 0)]
        frames = []
        for left, top in corners:
            frame = photo.image.crop((left, top, left + width, top + height))
            frames.append(Photo(making.change_brightness(frame, self.rng.uniform(0.95, 1.06)), photo.name))
        return frames

    def add_moments(self, count: int) -> None:
        """Add the same place in two other lights: other sky, clouds and season, the same ridges."""
        for _ in range(count // 2):
            view = self.rng.getrandbits(32)
            first: Row | None = None
            names: set[str] = set()
            while len(names) < 2:
                photo = make_view(view, self.rng)
                if photo.name in names:
                    continue
                names.add(photo.name)
                post = self.post_photo(photo)
                row = self.add(
                    photo.image, self.describe(post), group="good", kind="same_place_other_light", like=first
                )
                first = first or row

    def add_toy_frames(self, count: int) -> None:
        """Add two photographs of one figure on one table, moved and turned."""
        for _ in range(count // 2):
            drawing, place = self.rng.choice(self.subjects), self.make_table()
            first: Row | None = None
            for _ in range(2):
                post = self.post_toy(drawing, place)
                row = self.add(post.picture, self.describe(post), group="good", kind="frame_of_figure", like=first)
                first = first or row

    def add_colour_versions(self, count: int) -> None:
        """Add paintings of one design in two colours, with captions that differ in the colour."""
        added = 0
        while added < count:
            drawing, style = self.rng.choice(self.subjects), self.rng.choice(("flat", "digital", "watercolour"))
            language = self.rng.choice(("zh", "en"))
            versions = [drawing.image, making.shift_hue(drawing.image, self.rng.choice((100, 140, 200)))]
            colours = [making.name_colour(version) for version in versions]
            if colours[0] == colours[1]:  # grey and brown drawings have no hue to turn
                continue
            state = self.rng.getrandbits(32)
            first: Row | None = None
            for version, (colour_zh, colour_en) in zip(versions, colours, strict=True):
                post = self._post_version(drawing, version, style, state)
                counted = f"一{self.measures[drawing.name_en]}{colour_zh}的{drawing.name_zh}"
                caption = f"{texts.STYLES[style][0]}：{counted}"
                if language == "en":
                    article = "an" if colour_en == "orange" else "a"
                    caption = f"{texts.STYLES[style][1].capitalize()} of {article} {colour_en} {drawing.name_en}"
                row = self.add(post, caption, group="good", kind="colour_version", like=first)
                first = first or row
                added += 1

    def _post_version(self, drawing: Drawing, version: Image.Image, style: str, state: int) -> Image.Image:
        """Paint a version of a drawing like its sibling of the same state."""
        rng = random.Random(state)  # noqa: S311
        canvas = making.make_gradient(420, 420, *rng.choice(PALETTES))
        making.paste_drawing(canvas, version, 250, (210, 220), 0.2)
        return self._apply_style(canvas, style)

    def add_daily_drawings(self, count: int) -> None:
        """Add series of cards in one layout whose captions differ in the word that counts."""
        templates = (
            "每日一画：{zh}", "动植物认知卡 {zh}", "Postcard series, {noun_en}", "Inktober prompt: {noun_en}",
            "贴纸设计·{zh}", "Alphabet print: {noun_en}",
        )  # fmt: skip
        for _ in range(count // 5):
            template = self.rng.choice(templates)
            upper, lower = self.rng.choice(PALETTES)
            first: Row | None = None
            for drawing in self.rng.sample(self.subjects, 5):
                card = ImageOps.expand(making.make_gradient(360, 440, upper, lower), 20, (250, 248, 240))
                making.paste_drawing(card, drawing.image, 230, (200, 240), 0.2)
                caption = template.format(zh=drawing.name_zh, noun_en=drawing.name_en)
                row = self.add(card, caption, group="good", kind="card_of_series", like=first)
                first = first or row

    # ------------------------------------------------------------------------------------------------------ faults

    def add_copies(self, count: int) -> None:
        """Add edits and reposts of plain rows, `count` of each kind; an original has three on average."""
        shared = self.rng.sample(self.plain_rows, max(1, len(self.plain_rows) // 3))
        # Their originals get worse, so nothing else may be made of them.
        replaced = [entry for entry in self.plain_rows if entry not in shared]
        self.rng.shuffle(replaced)
        edits = self._list_edits()
        light_edits = ("darker_20", "brighter_25", "tint_25", "crop_10", "smaller_40", "jpeg_15", "corner_signature")

        used: set[tuple[int, str]] = set()
        for kind, edit in edits.items():
            for _ in range(count):
                row, post = self.rng.choice(shared)
                while (id(row), kind) in used and count < len(shared):
                    row, post = self.rng.choice(shared)
                used.add((id(row), kind))
                if kind == "exact":
                    picture: Image.Image | bytes = row.image
                else:
                    picture = edit(row.open())
                suffix = row.suffix if kind == "exact" else "jpg"
                detail = ""
                if kind != "exact" and self.rng.random() < SHARE_OF_TWO_FAULTS:
                    second = self.rng.choice([light for light in light_edits if light != kind])
                    picture = edits[second](picture)  # type: ignore[arg-type]
                    detail = f"{kind} and {second}"
                keep = None if kind in ("exact", "mirrored") and not detail else row
                caption = self._repost(row, post)
                self.add(picture, caption, suffix, group="copy", kind=kind, of=row, keep=keep, detail=detail)

        replacements: dict[str, making.Alteration] = {
            "larger_200": lambda image: making.resize_by(image, 0.5),
            "without_watermark": lambda image: self.signs.tile(image, self._author(), 0.3),
            "without_meme_text": self.write_meme,
        }
        for kind, spoil in replacements.items():
            for _ in range(min(count, len(replaced))):
                row, post = replaced.pop()
                copy = self.add(row.image, self._repost(row, post), row.suffix, group="copy", kind=kind, of=row)
                copy.keep = copy
                row.image, row.suffix = making.encode_image(spoil(row.open()), "jpg", 88), "jpg"

    def _list_edits(self) -> dict[str, making.Alteration]:
        rng = self.rng
        return {
            "exact": lambda image: image,
            "darker_20": partial(making.change_brightness, factor=0.8),
            "brighter_25": partial(making.change_brightness, factor=1.25),
            "contrast_140": partial(making.change_contrast, factor=1.4),
            "saturation_170": partial(making.change_saturation, factor=1.7),
            "black_and_white": making.desaturate,
            "tint_25": lambda image: making.tint(image, rng.choice(((240, 170, 80), (60, 110, 190))), 0.25),
            "gamma_160": partial(making.change_gamma, gamma=1.6),
            "faded_film": self.fade,
            "crop_10": partial(making.crop_margins, share=0.1, rng=rng),
            "crop_25": partial(making.crop_margins, share=0.25, rng=rng),
            "border_with_signature": self.frame_with_signature,
            "corner_signature": lambda image: self.signs.mark_corner(image, self._author(), self._corner()),
            "tiled_name_30": lambda image: self.signs.tile(image, self._author(), 0.3),
            "app_page": self.make_app_page,
            "mirrored": making.mirror,
            "straightened_3": lambda image: making.turn(image, rng.choice((-3, 3))),
            "quarter_turn": lambda image: image.transpose(
                rng.choice((Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270))
            ),
            "jpeg_15": partial(making.recompress, quality=15),
            "smaller_40": partial(making.resize_by, factor=0.4),
            "blurred_2": partial(making.blur, radius=2),
            "noise_18": lambda image: making.add_noise(image, 18, rng),
            "diptych": self.make_diptych,
            "meme_text": self.write_meme,
        }

    def _repost(self, row: Row, post: Post) -> str:
        """Return the caption of a repost: in two of five cases the same."""
        return row.caption if self.rng.random() < 0.4 else self.describe(post)

    def add_bad_captions(self, count: int) -> None:
        """Add good pictures with captions that describe nothing, `count` of each kind."""
        for kind, write in self._list_bad_captions().items():
            for _ in range(count):
                post = self.make_post()
                picture, detail = post.picture, ""
                if self.rng.random() < SHARE_OF_TWO_FAULTS:
                    picture, detail = making.blur(picture, 9), f"{kind} and out_of_focus"
                self.add(picture, write(post), group="text", kind=kind, detail=detail)

    def _list_bad_captions(self) -> dict[str, Callable[[Post], str]]:
        rng = self.rng

        def pick(templates: tuple[str, ...]) -> Callable[[Post], str]:
            return lambda post: rng.choice(templates).format(**self.draw_words(post))

        def write_emoji(post: Post) -> str:
            emoji = rng.choices([sign for sign in texts.EMOJI if sign != "\ufe0f"], k=rng.randint(1, 7))
            return rng.choice(("", " ")).join(emoji)

        def write_letters(post: Post) -> str:
            letters = "asdfghjklqwertyuiopzxcvbnm" if rng.random() < 0.7 else "的了是在口一啊不哈我吧呃额"
            words = ["".join(rng.choices(letters, k=rng.randint(3, 9))) for _ in range(rng.randint(1, 4))]
            return " ".join(words)

        def pile_tags(post: Post) -> str:
            everything = [tag for genre in texts.GENRES.values() for tag in (*genre.tags_zh, *genre.tags_en)]
            return rng.choice((", ", " ", "，", ";")).join(rng.sample(sorted(set(everything)), rng.randint(12, 28)))

        writers = {kind: pick(templates) for kind, templates in texts.BAD_CAPTIONS.items()}
        writers |= {
            "emoji_only": write_emoji,
            "mojibake_gbk": lambda post: making.misread(self.describe(post, "zh"), "gbk"),
            "mojibake_latin": lambda post: making.misread(self.describe(post, "zh"), "cp1252"),
            "random_letters": write_letters,
            "pile_of_tags": pile_tags,
        }
        return writers

    def add_bad_pictures(self, count: int) -> None:
        """Add pictures that show nothing well, under good captions, `count` of each kind."""
        rng = self.rng
        makers: dict[str, making.Alteration] = {
            "grid_of_nine": self.make_grid,
            "quote_card": self.make_quote_card,
            "qr_poster": self.make_qr_poster,
            "underexposed": lambda image: making.add_noise(making.change_brightness(image, 0.05), 2.5, rng),
            "out_of_focus": partial(making.blur, radius=11),
            "thumbnail_48": lambda image: ImageOps.fit(image, (48, 48)),
            "stock_watermark": lambda image: self.signs.tile(image, self._author(), 0.8, size=36),
            "removed_notice": self.make_notice,
            "broken_file": partial(making.grey_out_lower, share=0.6),
            "profile_page": self.make_profile_page,
        }
        for kind, make in makers.items():
            for _ in range(count):
                post = self.make_post()
                self.add(make(post.picture), self.describe(post), group="image", kind=kind)

    def add_mismatches(self, count: int) -> None:
        """Add captions of other pictures: of another genre, of a painting, of the post before in an album."""
        photos = [(row, post) for row, post in self.plain_rows if post.kind == "photo"]
        paintings = [(row, post) for row, post in self.plain_rows if post.kind == "painting"]
        for _ in range(count):
            post = self.post_photo()
            strangers = [row for row, other in photos if other.genre != post.genre]
            other = self.rng.choice(strangers)
            self.add(post.picture, other.caption, group="mismatch", kind="other_photo", of=other)
        for _ in range(count):
            is_photo = self.rng.random() < 0.5
            other, _ = self.rng.choice(paintings if is_photo else photos)
            post = self.post_photo() if is_photo else self.post_painting()
            self.add(post.picture, other.caption, group="mismatch", kind="photo_and_painting_mixed_up", of=other)

        post = self.post_photo()
        before = self.add(post.picture, self.describe(post), group="good", kind="photo")
        caption, genre = before.caption, post.genre
        for _ in range(count):
            post = self.post_photo()
            while post.genre == genre:
                post = self.post_photo()
            before = self.add(post.picture, caption, group="mismatch", kind="shifted_album", of=before)
            caption, genre = self.describe(post), post.genre

    def add_local_changes(self, count: int) -> None:
        """Add pairs that differ in a sticker, a bird, a name across the middle or a painted number."""
        birds = [drawing for drawing in self.subjects if drawing.name_en in ("bird", "dove", "parrot", "butterfly")]
        for kind in ("sticker", "added_animal", "name_in_middle", "number"):
            for _ in range(count):
                post = self.post_photo() if kind != "number" else self.post_painting()
                first, second = post.picture.copy(), post.picture.copy()
                language = self.rng.choice(("zh", "en"))
                caption = self.describe(post, language)
                other_caption, detail = caption, "captions same"
                x = int(second.width * self.rng.uniform(0.3, 0.7))
                y = int(second.height * self.rng.uniform(0.3, 0.6))
                if kind == "sticker":
                    making.paste_drawing(second, self.rng.choice(self.subjects).image, min(second.size) // 5, (x, y), 0)
                elif kind == "name_in_middle":
                    self.signs.write(second, self._author(), (x, y), 17, (240, 240, 240))
                elif kind == "added_animal":
                    bird = self.rng.choice(birds)
                    making.paste_drawing(second, bird.image, min(second.size) // 7, (x, y), 0)
                    name_zh, name_en = self._count_noun(bird)
                    other_caption = f"{caption}，还有{name_zh}" if language == "zh" else f"{caption}, with {name_en}"
                    detail = "captions differ"
                else:
                    numbers = self.rng.sample(range(2, 99), 2)
                    for picture, number in zip((first, second), numbers, strict=True):
                        at = (picture.width * 0.8, picture.height * 0.82)
                        self.signs.write(picture, f"No.{number}", at, 26, (150, 40, 40))
                    form = "{}，编号{}" if language == "zh" else "{}, no. {}"
                    caption, other_caption = (form.format(caption, number) for number in numbers)
                    detail = "captions differ"
                base = self.add(first, caption, "jpg", group="good", kind="before_local_change")
                self.add(second, other_caption, "jpg", group="local", kind=kind, of=base, detail=detail)

    def add_benchmark(self, num_images: int, count: int) -> None:
        """Make the benchmark's test set, leaks of it, and good rows that resemble a test image."""
        tests: list[tuple[Row, Post]] = []
        for index in range(num_images):
            if index % 3 == 0:
                first, second = self.take_frames()
                post, other = self.post_photo(first), self.post_photo(second)
            elif index % 3 == 1:
                view = self.rng.getrandbits(32)
                post = self.post_photo(make_view(view, self.rng))
                moments = [make_view(view, self.rng) for _ in range(6)]
                other = self.post_photo(next(photo for photo in moments if photo.name not in post.name + post.scene[1]))
            else:
                drawing = self.rng.choice(self.test_subjects)
                post = self.post_painting(drawing)
                alike = [subject for subject in self.subjects if subject.name_en == drawing.name_en]
                other = self.post_painting(self.rng.choice(alike or self.subjects))
            test = self.crawl.add_test_image(post.picture, self.describe(post))
            tests.append((test, post))
            self.add(other.picture, self.describe(other), group="good", kind="like_test_image", like=test)

        leaks: dict[str, making.Alteration] = {
            "leak_exact": lambda image: image,
            "leak_smaller_50": partial(making.resize_by, factor=0.5),
            "leak_darker_20": partial(making.change_brightness, factor=0.8),
            "leak_crop_15": partial(making.crop_margins, share=0.15, rng=self.rng),
            "leak_signature": lambda image: self.signs.mark_corner(image, self._author(), self._corner()),
            "leak_black_and_white": making.desaturate,
        }
        for kind, alter in leaks.items():
            for _ in range(count):
                row, post = self.rng.choice(tests)
                picture = row.image if kind == "leak_exact" else alter(row.open())
                self.add(picture, self.describe(post), "jpg", group="leak", kind=kind, of=row)

    # ------------------------------------------------------------------------------------ what the community draws on

    def _author(self) -> str:
        chinese, english = self.rng.choice(texts.HANDLES)
        chinese = self.rng.choice((f"© {chinese}", f"@{chinese}", f"{chinese}摄影", f"© {english}"))
        return self.signs.choose(chinese, f"© {english}")

    def _corner(self) -> str:
        return self.rng.choice(("lower right", "lower right", "lower left", "upper left", "upper right"))

    def stamp_date(self, image: Image.Image) -> Image.Image:
        """Stamp the date into a corner in the orange of compact cameras."""
        stamped = image.copy()
        date = f"{self.rng.randint(2003, 2019)} {self.rng.randint(1, 12)} {self.rng.randint(1, 28)}"
        at = (stamped.width - 14, stamped.height - 12)
        self.signs.write(stamped, f"'{date[2:]}", at, max(13, stamped.height // 20), (255, 150, 40), "rd")
        return stamped

    def fade(self, image: Image.Image) -> Image.Image:
        """Lift the blacks, pale the colours and add grain, as filters named after films do."""
        faded = making.change_saturation(image, 0.65).point([40 + round(level * 0.78) for level in range(256)] * 3)
        return making.add_noise(making.tint(faded, (250, 220, 180), 0.08), 7, self.rng)

    def frame_with_signature(self, image: Image.Image) -> Image.Image:
        """Put a wide border around a picture and the author's name below it."""
        colour = self.rng.choice((making.WHITE, making.WHITE, (15, 15, 15)))
        width = image.width // 18
        framed = ImageOps.expand(image, (width, width, width, width * 3), colour)
        ink = GREY if colour == making.WHITE else (220, 220, 220)
        self.signs.write(framed, self._author(), (framed.width / 2, framed.height - width * 1.5), width, ink)
        return framed

    def make_diptych(self, image: Image.Image) -> Image.Image:
        """Lay another picture beside or below this one."""
        other = self.rng.choice(self.plain_rows)[0].open()
        if self.rng.random() < 0.5:
            other = ImageOps.fit(other, (image.width, image.height))
            diptych = Image.new("RGB", (image.width * 2 + 8, image.height), making.WHITE)
            diptych.paste(other, (image.width + 8, 0))
        else:
            other = ImageOps.fit(other, (image.width, image.height))
            diptych = Image.new("RGB", (image.width, image.height * 2 + 8), making.WHITE)
            diptych.paste(other, (0, image.height + 8))
        diptych.paste(image, (0, 0))
        return diptych

    def write_meme(self, image: Image.Image) -> Image.Image:
        """Write a joke over the upper and lower edge, or onto a white band above."""
        lines = self.rng.choice([lines for lines in texts.MEME_LINES if self.signs.path or lines[0].isascii()])
        size = image.width // 12
        if self.rng.random() < 0.4:
            meme = ImageOps.expand(image, (0, size * 3, 0, 0), making.WHITE).crop(
                (0, 0, image.width, image.height + size * 3)
            )
            for index, line in enumerate(lines):
                self.signs.write(meme, line, (meme.width / 2, size * (0.85 + 1.3 * index)), size, (0, 0, 0))
            return meme
        meme = image.copy()
        draw = ImageDraw.Draw(meme)
        for line, y, anchor in ((lines[0], 6, "ma"), (lines[1], meme.height - 8, "md")):
            outline = {"stroke_width": max(2, size // 10), "stroke_fill": (0, 0, 0)}
            draw.text(
                (meme.width / 2, y), line, font=self.signs.font(size), fill=making.WHITE, anchor=anchor, **outline
            )
        return meme

    def _make_phone(self, height: int) -> Image.Image:
        """Make an empty page of the community's app with its status bar and the bar of buttons below."""
        is_dark = self.rng.random() < 0.3
        page = Image.new("RGB", (390, height), (18, 18, 20) if is_dark else making.WHITE)
        ink = (235, 235, 235) if is_dark else DARK
        draw = ImageDraw.Draw(page)
        self.signs.write(page, f"{self.rng.randint(7, 23)}:{self.rng.randint(10, 59)}", (36, 16), 14, ink)
        self.signs.write(page, self.rng.choice(("5G", "4G", "LTE")), (318, 16), 12, ink)
        draw.rounded_rectangle((340, 10, 368, 22), radius=3, outline=ink)
        draw.rectangle((342, 12, 342 + self.rng.randint(5, 24), 20), fill=ink)
        draw.line((0, height - 50, 390, height - 50), fill=GREY)
        for index in range(5):  # home, search, upload, messages, profile
            x, y = 39 + index * 78, height - 26
            if index == 2:
                draw.rounded_rectangle((x - 18, y - 13, x + 18, y + 13), radius=6, fill=RED)
                self.signs.write(page, "+", (x, y), 20, making.WHITE)
            else:
                draw.ellipse((x - 10, y - 10, x + 10, y + 10), outline=ink, width=2)
        return page

    def _draw_user(self, page: Image.Image, top: int, ink: tuple[int, int, int]) -> None:
        """Draw the line of a post's author, with avatar and button."""
        draw = ImageDraw.Draw(page)
        tone = self.rng.choice(((90, 140, 190), (190, 120, 90), (110, 160, 110), (150, 110, 170)))
        draw.ellipse((12, top, 48, top + 36), fill=tone)
        chinese, english = self.rng.choice(texts.HANDLES)
        self.signs.write(page, self.signs.choose(chinese, english), (58, top + 18), 16, ink, "lm")
        draw.rounded_rectangle((306, top + 5, 378, top + 31), radius=13, fill=RED)
        self.signs.write(page, self.signs.choose("关注", "Follow"), (342, top + 18), 14, making.WHITE)

    def make_app_page(self, image: Image.Image) -> Image.Image:
        """Make a screenshot of the post in the community's app."""
        fitted = ImageOps.contain(image, (390, 460))
        page = self._make_phone(fitted.height + 240)
        ink = DARK if page.getpixel((2, 2))[0] > 100 else (235, 235, 235)
        self._draw_user(page, 36, ink)
        page.paste(fitted, ((390 - fitted.width) // 2, 84))
        below = 84 + fitted.height
        draw = ImageDraw.Draw(page)
        draw.polygon(
            [
                (14, below + 20),
                (25, below + 34),
                (36, below + 20),
                (30, below + 14),
                (25, below + 19),
                (20, below + 14),
            ],
            fill=RED,
        )
        draw.ellipse((54, below + 13, 76, below + 33), outline=ink, width=2)
        draw.polygon(
            [(350, below + 13), (350, below + 35), (359, below + 27), (368, below + 35), (368, below + 13)], outline=ink
        )
        likes, comments = self.rng.randint(12, 9800), self.rng.randint(2, 300)
        line = self.signs.choose(f"{likes}次赞  {comments}条评论", f"{likes} likes  {comments} comments")
        self.signs.write(page, line, (14, below + 54), 15, ink, "lm")
        line = self.signs.choose("说点什么吧…", "Add a comment...")
        self.signs.write(page, line, (14, below + 82), 14, GREY, "lm")
        return page

    def make_profile_page(self, image: Image.Image) -> Image.Image:
        """Make a screenshot of an account: its figures and nine small pictures."""
        page = self._make_phone(700)
        ink = DARK if page.getpixel((2, 2))[0] > 100 else (235, 235, 235)
        self._draw_user(page, 44, ink)
        heads = self.signs.choose("作品 粉丝 关注 获赞", "Posts Fans Following Likes").split()
        for index, head in enumerate(heads):
            self.signs.write(page, str(self.rng.randint(9, 9999)), (52 + 96 * index, 112), 18, ink)
            self.signs.write(page, head, (52 + 96 * index, 138), 13, GREY)
        self._fill_grid(page, image, (0, 170), 128, 3)
        return page

    def make_grid(self, image: Image.Image) -> Image.Image:
        """Lay nine pictures out as previews of an album."""
        grid = Image.new("RGB", (480, 480), making.WHITE)
        self._fill_grid(grid, image, (0, 0), 156, 6)
        return grid

    def _fill_grid(self, page: Image.Image, image: Image.Image, corner: tuple[int, int], side: int, gap: int) -> None:
        others = [row.open() for row, _ in self.rng.sample(self.plain_rows, 8)]
        for index, picture in enumerate([image, *others]):
            at = (corner[0] + index % 3 * (side + gap), corner[1] + index // 3 * (side + gap))
            page.paste(ImageOps.fit(picture, (side, side)), at)

    def make_quote_card(self, image: Image.Image) -> Image.Image:
        """Make a card with two lines of wisdom on a gradient."""
        lines = self.rng.choice([lines for lines in texts.CARD_LINES if self.signs.path or lines[0].isascii()])
        upper, lower = self.rng.choice(PALETTES)
        card = making.make_gradient(420, self.rng.choice((420, 560)), upper, lower)
        ink = making.WHITE if sum(lower) < 420 else DARK
        for index, line in enumerate(lines):
            self.signs.write(card, line, (210, card.height * 0.42 + 56 * index), 36, ink)
        self.signs.write(card, self._author(), (210, card.height - 40), 15, ink)
        return card

    def make_qr_poster(self, image: Image.Image) -> Image.Image:
        """Make a poster of a class or group with the code to join it."""
        poster = Image.new(
            "RGB", (400, 560), self.rng.choice((making.WHITE, (30, 60, 110), (235, 190, 60), (40, 40, 44)))
        )
        ink = DARK if sum(poster.getpixel((3, 3))) > 450 else making.WHITE
        title = self.rng.choice(
            (("摄影交流群", "Photo walk group"), ("零基础修图课", "Retouching class"), ("预约拍摄", "Book a session"))
        )
        self.signs.write(poster, self.signs.choose(*title), (200, 70), 38, ink)
        code = cv2.QRCodeEncoder.create().encode(
            f"https://q.{self.rng.choice(texts.HOSTS)}/{self.rng.getrandbits(40):x}"
        )
        poster.paste(Image.fromarray(code).resize((260, 260), Image.Resampling.NEAREST).convert("RGB"), (70, 140))
        self.signs.write(poster, self.signs.choose("长按识别二维码", "Scan to join"), (200, 440), 24, ink)
        self.signs.write(poster, self._author(), (200, 490), 18, ink)
        return poster

    def make_notice(self, image: Image.Image) -> Image.Image:
        """Make the picture that a site shows in place of one that it does not give."""
        grey = self.rng.choice((40, 215, 232, 245))
        notice = Image.new("RGB", self.rng.choice(((500, 374), (400, 400), (320, 240), (600, 400))), (grey,) * 3)
        ink = (120, 120, 124) if grey > 100 else (170, 170, 174)
        x, y = notice.width // 2, int(notice.height * 0.4)
        ImageDraw.Draw(notice).rounded_rectangle((x - 40, y - 28, x + 40, y + 28), radius=8, outline=ink, width=4)
        ImageDraw.Draw(notice).ellipse((x - 17, y - 17, x + 17, y + 17), outline=ink, width=4)
        line = self.signs.choose(*self.rng.choice(texts.NOTICES))
        self.signs.write(notice, line, (x, notice.height * 0.66), notice.width // 22, ink)
        return notice


# ---------------------------------------------------------------------------------------------------------------------
# Photographs that are made


def describe_photo(name: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return genre and what a photograph shows, in Chinese and English, by a word of its name."""
    ground, _, sky = name.partition(" under a ")
    base = ground.removeprefix("lake before ")
    if base in texts.GROUNDS_ZH and sky in texts.SKIES_ZH:
        ground_zh, sky_zh = texts.GROUNDS_ZH[base], texts.SKIES_ZH[sky]
        if ground == base:
            genre = "desert" if "dunes" in base else "mountain"
            return genre, (f"{sky_zh}下的{ground_zh}", f"{ground_zh}与{sky_zh}"), (name, f"{sky} over {ground}")
        return (
            "water",
            (f"{sky_zh}下的湖和{ground_zh}", f"{ground_zh}倒映在湖里，{sky_zh}"),
            (f"a {name}", f"{base} and a lake, {sky}"),
        )
    for words, subject_zh, subject_en, genre in texts.SUBJECTS:
        if words in name:
            return genre, tuple(subject_zh.split("|")), tuple(subject_en.split("|"))
    return "object", (f"照片：{name}",), (name,)


def is_in_focus(image: Image.Image) -> bool:
    """Return whether a crop shows something sharp: much of a close-up is blurred background, of a night black."""
    size, block = 192, 8
    grey = np.asarray(image.convert("L").resize((size, size), Image.Resampling.BOX)).astype(np.float32)
    blocks = grey.reshape(size // block, block, size // block, block).transpose(0, 2, 1, 3).reshape(-1, block * block)
    # A quarter of the blocks deviates by 4 grey levels: both set by looking at crops in the order of the share.
    return float((blocks.std(axis=1) > 4).mean()) > 0.25


def make_photograph(rng: random.Random, is_subject: bool = True) -> Photo:
    """Make what passes for a photograph: a view of hills, a city at night, stars, a sunset, a forest or lights."""
    if not is_subject:
        return making.make_photograph(rng, is_subject)
    make = rng.choices((make_view, make_scene), (4, 5))[0]
    return make(rng.getrandbits(32), rng)


def make_view(view: int, moment: random.Random) -> Photo:
    """Make a landscape: the view decides on ridges and lake, the moment on sky, clouds and season.

    Args:
        view: seed of the place.
        moment: draws what changes between two visits.
    """
    place = random.Random(view)  # noqa: S311
    place_noise = np.random.default_rng(view)
    noise = np.random.default_rng(moment.getrandbits(32))
    width, height = place.randint(340, 520), place.randint(300, 400)
    sky = moment.choice(list(making.SKIES))
    grounds = making.GROUNDS | {"autumn hills": (165, 110, 45)}
    ground = moment.choice(list(grounds))

    upper, lower = (np.array(colour, np.float32) for colour in making.SKIES[sky])
    share = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    pixels = np.repeat(upper + (lower - upper) * share, width, axis=1)
    clouds = making.make_smooth_noise(noise, height, width, (moment.randint(3, 6), moment.randint(2, 4)))
    pixels += np.clip(clouds, 0, None)[..., None] * moment.uniform(8, 45)

    texture = making.make_smooth_noise(place_noise, height, width, (24, 24))[..., None]
    rows = np.arange(height, dtype=np.float32)[:, None]
    num_ridges = place.randint(2, 5)
    light = 0.45 if sky == "night sky" else moment.uniform(0.85, 1.1)
    top, roughness = place.uniform(0.25, 0.45), place.uniform(0.3, 0.5)
    for ridge in range(num_ridges):
        nearness = (ridge + 1) / num_ridges
        profile = making.make_smooth_noise(place_noise, 1, width, (1, place.choice((2, 3, 5))), roughness)[0]
        horizon = height * (top + (0.9 - top) * nearness * place.uniform(0.8, 1)) + profile * height * 0.08
        colour = np.array(grounds[ground], np.float32) * nearness * light + lower * (1 - nearness)
        pixels = np.where((rows > horizon[None])[..., None], colour + texture * 20 * nearness, pixels)

    name = f"{ground} under a {sky}"
    if place.random() < 0.4:  # a lake that mirrors the upper part
        shore = int(height * 0.66)
        mirrored = pixels[shore - 1 :: -1][: height - shore]
        ripples = cv2.resize(noise.normal(0, 5, (height - shore, 12)).astype(np.float32), (width, height - shore))
        pixels[shore:] = cv2.blur(mirrored, (3, 7)) * 0.8 + ripples[..., None]
        name = f"lake before {name}"
    pixels += noise.normal(0, 4, (height, width, 1))
    return Photo(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), name)


def make_scene(seed: int, rng: random.Random) -> Photo:
    """Make a city at night, a starry sky, a sunset over the sea, a misty forest or blurred lights."""
    noise = np.random.default_rng(seed)
    width, height = rng.randint(320, 500), rng.randint(300, 400)
    makers: dict[str, Callable[[random.Random, np.random.Generator, int, int], np.ndarray]] = {
        "city lights": make_city,
        "starry sky": make_stars,
        "sun over the sea": make_sunset,
        "misty forest": make_forest,
        "blurred lights": lambda rng, noise, height, width: making.make_lights(rng, noise, height, width)[0],
    }
    name = rng.choice(list(makers))
    pixels = makers[name](rng, noise, height, width) + noise.normal(0, 4, (height, width, 1))
    return Photo(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), name)


def make_city(rng: random.Random, noise: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Make two rows of buildings with lit windows."""
    sky = rng.choice((((10, 14, 40), (70, 60, 90)), ((8, 10, 20), (30, 40, 60)), ((40, 30, 70), (200, 120, 90))))
    city = making.make_gradient(width, height, *sky)
    draw = ImageDraw.Draw(city)
    for layer in range(2):
        x = -rng.randint(0, 20)
        while x < width:
            broad, top = rng.randint(28, 75), int(height * rng.uniform(0.2 + 0.2 * layer, 0.6 + 0.1 * layer))
            tone = rng.randint(14, 40) + 12 * (1 - layer)
            draw.rectangle((x, top, x + broad, height), fill=(tone, tone, tone + 8))
            share_lit, warm = rng.uniform(0.15, 0.6), rng.choice(((250, 215, 140), (240, 235, 215), (190, 215, 250)))
            step_x, step_y = rng.randint(6, 9), rng.randint(8, 12)
            for window_y in range(top + 6, height - 4, step_y):
                for window_x in range(x + 4, x + broad - 5, step_x):
                    if rng.random() < share_lit:
                        draw.rectangle((window_x, window_y, window_x + 3, window_y + 4), fill=warm)
            x += broad + rng.randint(0, 6)
    pixels = np.asarray(city.filter(ImageFilter.GaussianBlur(0.8)), np.float32)
    return pixels + cv2.GaussianBlur(pixels, (0, 0), 9) * 0.35  # the glow of the lights


def make_stars(rng: random.Random, noise: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Make stars and a faint milky way above the outline of firs."""
    upper, lower = rng.choice((((6, 8, 25), (30, 45, 80)), ((15, 10, 30), (70, 50, 80)), ((4, 12, 18), (30, 70, 70))))
    pixels = np.asarray(making.make_gradient(width, height, upper, lower), np.float32).copy()
    across = (np.arange(width)[None] - width * rng.uniform(0.3, 0.7)) - (
        np.arange(height)[:, None] - height / 2
    ) * rng.uniform(-0.8, 0.8)
    band = np.exp(-((across / (width * 0.16)) ** 2)) * (
        1 + 0.4 * making.make_smooth_noise(noise, height, width, (6, 6))
    )
    pixels += np.clip(band, 0, None)[..., None] * np.array((40, 36, 48), np.float32)
    stars = np.clip(noise.pareto(1.6, (height, width)) - 12, 0, 60).astype(np.float32) * 9
    pixels += cv2.GaussianBlur(stars, (0, 0), 0.8)[..., None]

    silhouette = Image.new("L", (width, height))
    draw = ImageDraw.Draw(silhouette)
    for _ in range(rng.randint(5, 18)):
        x, tall = rng.randint(0, width), rng.randint(height // 8, height // 3)
        broad = tall * rng.uniform(0.2, 0.35)
        draw.polygon([(x - broad, height), (x, height - tall), (x + broad, height)], fill=255)
    return np.where(np.asarray(silhouette)[..., None] > 0, np.float32(6), pixels)


def make_sunset(rng: random.Random, noise: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Make a low sun, its glow, and its path on the water."""
    sky = rng.choice(
        (((90, 70, 120), (250, 170, 90)), ((60, 90, 150), (250, 200, 150)), ((120, 40, 60), (250, 140, 60)))
    )
    horizon = int(height * rng.uniform(0.5, 0.68))
    pixels = np.asarray(making.make_gradient(width, height, *sky), np.float32).copy()
    x, y, radius = width * rng.uniform(0.2, 0.8), horizon - rng.uniform(5, height * 0.2), rng.uniform(10, 26)
    clouds = making.make_smooth_noise(noise, height, width, (9, 2))
    pixels += np.clip(clouds, 0, None)[..., None] * np.array((25, 8, 5), np.float32)
    distance = np.hypot(np.arange(width)[None] - x, np.arange(height)[:, None] - y)
    pixels += (np.exp(-distance / (radius * 3)) * 140 + (distance < radius) * 120)[..., None] * np.array((1, 0.85, 0.5))

    depth = height - horizon
    waves = making.make_smooth_noise(noise, depth, width, (depth // 3, 8), 0.5)
    path = np.exp(-(((np.arange(width)[None] - x) / (radius * 1.6)) ** 2)) * np.clip(waves + 0.6, 0, 2)
    water = np.array(sky[0], np.float32) * 0.55 + np.array(sky[1], np.float32) * 0.2
    pixels[horizon:] = water + waves[..., None] * 9 + path[..., None] * np.array((120, 85, 45), np.float32)
    return pixels


def make_forest(rng: random.Random, noise: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Make trunks that fade into fog with distance."""
    fog = np.array(rng.choice(((205, 212, 210), (190, 200, 185), (215, 205, 190), (170, 185, 200))), np.float32)
    bark = np.array(rng.choice(((45, 40, 35), (35, 45, 35), (60, 45, 35))), np.float32)
    pixels = np.repeat(fog[None, None] * np.linspace(1.05, 0.85, height)[:, None, None], width, axis=1).astype(
        np.float32
    )
    num_layers = rng.randint(3, 5)
    texture = making.make_smooth_noise(noise, height, width, (10, 80))[..., None]
    columns, rows = np.arange(width)[None], np.arange(height)[:, None]
    for layer in range(num_layers):
        nearness = (layer + 1) / num_layers
        mask = np.zeros((height, width), bool)
        for _ in range(rng.randint(4, 9)):
            x, lean, broad = rng.randint(0, width), rng.uniform(-0.05, 0.05), rng.uniform(3, 12) * nearness
            mask |= np.abs(columns - x - (rows - height) * lean) < broad * (0.7 + 0.3 * rows / height)
        mask |= rows > height * (0.8 + 0.06 * layer) + making.make_smooth_noise(noise, 1, width, (1, 8))[0] * 5
        colour = bark * nearness + fog * (1 - nearness)
        pixels = np.where(mask[..., None], colour + texture * 9 * nearness, pixels)
    return pixels


def has_chinese(text: str) -> bool:
    return any("\u4e00" <= character <= "\u9fff" for character in text)


def main() -> None:
    args = making.parse_arguments(__doc__)
    rng = random.Random(args.seed)  # noqa: S311
    # Half of the rows take a photograph; more are expected because blurred crops are left out.
    num_expected = round(args.rows * 0.65)
    photos = PhotoSource(args.images, rng, num_expected, 0.75, accept=is_in_focus, make=make_photograph)
    community = Community(rng, photos, Signs(args.font))
    count = max(1, round(args.rows * SHARE_OF_KIND))

    # The shares leave half of the rows good; what is not a fault or a likeness is plain.
    community.add_plain_rows(round(args.rows * 0.225))
    community.add_finished_photos(count)
    community.add_captions_to_trim(count)
    community.add_series_of_places(round(args.rows * 0.04))
    community.add_frames(round(args.rows * 0.05))
    community.add_moments(round(args.rows * 0.03))
    community.add_toy_frames(round(args.rows * 0.025))
    community.add_colour_versions(round(args.rows * 0.025))
    community.add_daily_drawings(round(args.rows * 0.03))
    community.add_copies(count)
    community.add_bad_captions(count)
    community.add_bad_pictures(count)
    community.add_mismatches(count)
    community.add_local_changes(count)
    community.add_benchmark(max(6, round(args.rows * 0.03)), count)
    community.crawl.write(args.output)
    print(
        f"{len(community.crawl.rows):,} rows in {args.output}; {photos.num_crops:,} crops of photographs, "
        f"{photos.num_made:,} made photographs, signs in {community.signs.language}"
    )


if __name__ == "__main__":
    main()
