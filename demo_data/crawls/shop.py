"""Make the crawl of a shop: product pictures and prints of photographs, with the titles and faults that shops have.

    python demo_data/crawls/shop.py --output runs/crawls/shop --images photos

Writes shards as img2dataset does, truth.csv and benchmark/test.tar; README.md of this folder explains them.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import cv2
import making
import numpy as np
import shop_texts as texts
from making import Crawl, Drawing, Photo, PhotoSource, Row, Signs
from PIL import Image, ImageDraw, ImageOps

# Share of the rows that a kind of fault has: 40 of 5,000, so that a share of them found means something.
SHARE_OF_KIND = 0.008
# A listing whose text is at fault often has a marked picture too: some 5 % of all faulty rows then have two faults.
SHARE_OF_TWO_FAULTS = 0.16

HOSTS = ("haowu.example.com", "mall.example.org", "shop.example.net")
BACKGROUNDS = (
    ((250, 225, 220), "浅粉色背景", "on a light pink background"),
    ((222, 235, 250), "浅蓝色背景", "on a light blue background"),
    ((235, 245, 225), "浅绿色背景", "on a light green background"),
    ((250, 240, 205), "米黄色背景", "on a cream background"),
    ((60, 62, 70), "深灰色背景", "on a dark grey background"),
    ((200, 40, 45), "大红色背景", "on a red background"),
    ((228, 228, 230), "浅灰色背景", "on a light grey background"),
    ((120, 90, 65), "棕色背景", "on a brown background"),
)
WEARERS = ("boy", "child", "teacher", "student", "farmer", "artist", "office worker", "singer")
WEARABLE = ("clothing", "shoes", "bags", "accessories", "plush", "sports")
RED, ORANGE, DARK = (215, 30, 40), (245, 110, 20), (40, 40, 45)


@dataclass(frozen=True)
class Item:
    """Goods of the shop, with the drawings that show them."""

    name: str
    noun_zh: str
    category: str
    drawings: tuple[Drawing, ...]


@dataclass
class Listing:
    """A picture and the words by which it can be described."""

    picture: Image.Image
    setting: str
    subject: str
    words: dict[str, str] = field(default_factory=dict)
    is_print: bool = False


class Shop:
    """Lists goods and prints, and plants faults among them.

    Args:
        rng: draws everything.
        photos: photographs for scenes and prints.
        signs: writes text into pictures.
    """

    def __init__(self, rng: random.Random, photos: PhotoSource, signs: Signs) -> None:
        self.rng, self.photos, self.signs = rng, photos, signs
        self.crawl = Crawl(rng)
        names = {*WEARERS, *(name for category in texts.CATEGORIES.values() for name in category.goods)}
        drawings = making.read_drawings("emoji-train.tar", names) + making.read_drawings("emoji-val.tar", names)
        self.items = collect_items(drawings)
        self.test_items = collect_items(making.read_drawings("emoji-test.tar", names))
        self.wearables = [item for item in self.items if item.category in WEARABLE]
        self.people = [drawing for drawing in drawings if drawing.name_en in WEARERS and making.is_solid(drawing.image)]
        # Rows with nothing special about them, and their listings: what copies are made of.
        self.plain_rows: list[tuple[Row, Listing]] = []

    # ----------------------------------------------------------------------------------------------------- listings

    def list_anything(self) -> Listing:
        """List goods or a print; a little more than half of the pictures are photographs or stand in one."""
        settings = ("print", "scene", "worn", "white", "plain", "gradient", "set")
        setting = self.rng.choices(settings, (27, 24, 5, 19, 13, 6, 6))[0]
        return self.list_print() if setting == "print" else self.list_goods(setting)

    def list_goods(
        self, setting: str = "white", item: Item | None = None, drawing: Image.Image | None = None
    ) -> Listing:
        """List an item in a setting: white, plain, gradient, scene, worn or set."""
        rng = self.rng
        if not item:
            item = rng.choice(self.wearables if setting == "worn" else self.items)
        drawing = drawing or rng.choice(item.drawings).image
        width, height = rng.choice(((400, 400), (480, 480), (350, 467), (500, 500), (420, 340), (360, 360)))
        where_zh, where_en = "白底图", "on a white background"
        canvas = Image.new("RGB", (width, height), making.WHITE)

        if setting == "plain":
            colour, where_zh, where_en = rng.choice(BACKGROUNDS)
            canvas = Image.new("RGB", (width, height), colour)
        elif setting == "gradient":
            colour, where_zh, where_en = rng.choice(BACKGROUNDS)
            canvas = making.make_gradient(width, height, making.WHITE, colour)
        elif setting in ("scene", "worn"):
            photo = self.photos.take(is_subject=False)
            canvas = photo.image.copy()
            width, height = canvas.size
            if rng.random() < 0.3:  # a wide aperture
                canvas = Image.fromarray(cv2.GaussianBlur(np.asarray(canvas), (0, 0), rng.uniform(1.5, 4)))
            where_zh, where_en = f"背景是{name_scene(photo)}", f"in front of {photo.name}"

        side = int(min(width, height) * rng.uniform(0.5, 0.82))
        center = (width // 2, height // 2)
        if setting == "scene":
            side = int(side * rng.uniform(0.6, 0.95))
            center = (int(width * rng.uniform(0.35, 0.65)), int(height * rng.uniform(0.5, 0.66)))
        if setting == "worn":
            person = rng.choice(self.people)
            making.paste_drawing(canvas, person.image, int(height * 0.72), (int(width * 0.4), int(height * 0.6)))
            where_zh, where_en = "模特展示", f"next to a {person.name_en}"
            side, center = int(side * 0.55), (int(width * 0.72), int(height * 0.66))
        if setting == "set":
            where_zh, where_en = "三件装", "as a set of three"
            side //= 2
            for offset in (-0.3, 0.3):
                at = (int(width * (0.5 + offset)), int(height * 0.6))
                making.paste_drawing(canvas, drawing, side, at, turn=rng.uniform(-15, 15))
            center = (width // 2, int(height * 0.38))
        turn = rng.uniform(-12, 12) if rng.random() < 0.3 else 0
        making.paste_drawing(canvas, drawing, side, center, shadow=rng.choice((0, 0.25, 0.4)), turn=turn)

        words = self._describe_item(item, drawing)
        words |= {"where_zh": where_zh, "where_en": where_en}
        return Listing(canvas, setting, item.name, words)

    def list_print(self, photo: Photo | None = None) -> Listing:
        """List a print of a photograph: the photograph itself, or framed on a wall."""
        rng = self.rng
        photo = photo or self.photos.take()
        noun_zh, noun_en, use_zh, use_en, sizes = rng.choice(texts.PRINTS)
        picture = photo.image
        if noun_en in ("canvas print", "poster", "wall tapestry") and rng.random() < 0.35:
            frame = ImageOps.expand(
                picture, rng.choice((8, 12, 18)), rng.choice(((40, 35, 30), (240, 238, 235), (150, 110, 70)))
            )
            wall_colour = rng.choice(((226, 222, 214), (200, 208, 210), (236, 230, 220)))
            wall = making.make_gradient(frame.width + 120, frame.height + 160, making.WHITE, wall_colour)
            wall.paste(frame, (60, 50))
            picture = wall
        colour_zh, colour_en = making.name_colour(photo.image)
        words = self._draw_words() | {
            "noun_zh": noun_zh,
            "noun_en": noun_en,
            "use_zh": use_zh,
            "use_en": use_en,
            "scene_zh": name_scene(photo),
            "scene_en": photo.name,
            "size": rng.choice(sizes),
            "color_zh": colour_zh,
            "color_en": colour_en,
        }
        return Listing(picture, "print", photo.name, words, is_print=True)

    def _describe_item(self, item: Item, drawing: Image.Image) -> dict[str, str]:
        category = texts.CATEGORIES[item.category]
        colour_zh, colour_en = making.name_colour(drawing)
        features_zh = self.rng.sample(category.features_zh, 2)
        features_en = self.rng.sample(category.features_en, 2)
        return self._draw_words() | {
            "noun_zh": item.noun_zh,
            "noun_en": name_in_english(item),
            "feature_zh": features_zh[0],
            "feature2_zh": features_zh[1],
            "feature_en": features_en[0],
            "feature2_en": features_en[1],
            "use_zh": self.rng.choice(category.uses_zh),
            "use_en": self.rng.choice(category.uses_en),
            "spec_zh": self.rng.choice([spec for spec in category.specs if " " not in spec]),
            "spec_en": self.rng.choice([spec for spec in category.specs if spec.isascii()]),
            "color_zh": colour_zh,
            "color_en": colour_en,
            "category": item.category,
        }

    def _draw_words(self) -> dict[str, str]:
        """Draw what belongs to no item: brands, numbers, addresses."""
        rng = self.rng
        return {
            "brand_zh": rng.choice(texts.BRANDS_ZH),
            "brand_en": rng.choice(texts.BRANDS_EN),
            "year": rng.choice(("2023", "2024春夏", "2024秋冬", "2025")),
            "model": rng.choice("ABDKMQTX") + str(rng.randint(10, 9999)),
            "number": str(rng.randint(10**7, 10**10)),
            "host": rng.choice(HOSTS),
            "code": "".join(rng.choices("abcdefghjkmnpqrstuvwxyzABCDEFGH23456789", k=8)),
            "digits9": str(rng.randint(10**8, 10**9 - 1)),
            "digits7": str(rng.randint(10**6, 10**7 - 1)),
            "wechat": rng.choice(("hm", "wx_", "xiaolu", "vip", "mall")) + str(rng.randint(1000, 99999999)),
            "shop_zh": rng.choice(texts.SHOPS_ZH),
            "shop_en": rng.choice(texts.SHOPS_EN),
            "n": str(rng.choice((49, 59, 99, 199, 299, 399))),
            "m": str(rng.choice((10, 15, 20, 30, 50, 80))),
            "h": str(rng.randint(1, 24)),
        }

    def describe(self, listing: Listing, language: str = "") -> str:
        """Write a caption as a seller or buyer would: a title, a sentence, an alt text, a review."""
        rng = self.rng
        language = language or rng.choices(("zh", "en", "ja"), (58, 40, 2))[0]
        if language == "ja":
            noun = texts.NOUNS_JA.get(listing.subject)
            if noun and not listing.is_print:
                return rng.choice(texts.GOOD_JA).format(noun=noun, spec=listing.words["spec_en"])
            language = "en"
        if language == "zh":
            template = rng.choice(texts.PRINT_ZH if listing.is_print else texts.GOOD_ZH)
        else:
            template = rng.choice(texts.PRINT_EN if listing.is_print else texts.GOOD_EN)

        suffix = "_" + language
        words = dict(listing.words)
        words |= {name.removesuffix(suffix): word for name, word in listing.words.items() if name.endswith(suffix)}
        if language == "en":
            # Titles come in several cases, and as the last part of an address.
            slug = f"{words.get('scene', words.get('feature'))} {words['noun']} {words['model']}".lower()
            words["slug"] = "-".join(slug.replace(".", " ").split())
            words["A"] = "An" if words["noun"][0] in "aeiou" else "A"
            for name in ("noun", "feature", "color", "scene", "size", "spec", "brand"):
                word = words.get(name, "")
                words[name.upper()] = word.upper()
                words[name.capitalize()] = word if name in ("size", "spec", "brand") else word.title()
        return template.format(**words)

    def make_fields(self, caption: str) -> dict[str, str]:
        """Make the address, page and price of a row."""
        words = self._draw_words()
        if caption.isascii():
            url = f"https://images.{HOSTS[1]}/I/{words['code']}._AC_SL1500_.jpg"
            return {
                "url": url,
                "page": f"https://www.{HOSTS[1]}/dp/{words['code'].upper()}",
                "shop": words["shop_en"],
                "price": f"${words['m']}.99",
            }
        folder = f"https://img.{HOSTS[0]}/imgextra/i{self.rng.randint(1, 4)}/{words['number']}"
        url = f"{folder}/O1CN01{words['code']}_!!{words['number']}.jpg"
        return {
            "url": url,
            "page": f"https://item.{HOSTS[0]}/item.htm?id={words['number']}",
            "shop": words["shop_zh"],
            "price": f"¥{words['n']}.00",
        }

    def add(self, picture: Image.Image | bytes, caption: str, suffix: str = "", **truth: object) -> Row:
        """Add a row with the fields of the source; one in six pictures is a WebP or PNG."""
        suffix = suffix or self.rng.choices(("jpg", "webp", "png"), (84, 11, 5))[0]
        return self.crawl.add(picture, caption, suffix, fields=self.make_fields(caption), **truth)

    # ---------------------------------------------------------------------------------------------------- good rows

    def add_plain_rows(self, count: int) -> None:
        for _ in range(count):
            listing = self.list_anything()
            kind = {"white": "white_background", "plain": "coloured_background"}.get(listing.setting, listing.setting)
            row = self.add(listing.picture, self.describe(listing), group="good", kind=kind)
            self.plain_rows.append((row, listing))
            listing.picture = Image.new("RGB", (1, 1))  # the row has it

    def add_corner_marked(self, count: int) -> None:
        """Add good pictures with the shop's small mark in a corner, as most of a shop's are."""
        for _ in range(count):
            listing = self.list_anything()
            picture = self.signs.mark_corner(listing.picture, self._shop_name(), self._corner())
            self.add(picture, self.describe(listing), group="good", kind="small_corner_mark")

    def add_captions_to_trim(self, count: int) -> None:
        """Add good captions with a head or tail to be cut off, `count` of each kind."""
        for kind, heads, tails in texts.ADDITIONS:
            for _ in range(count):
                listing = self.list_anything()
                language = self.rng.choice(("zh", "zh", "en"))
                caption = self.describe(listing, language)
                additions = heads or tails
                if language == "en":  # whoever writes English adds nothing Chinese
                    additions = [addition for addition in additions if addition.isascii()]
                addition = self.rng.choice(additions).format(**listing.words)
                full = addition + caption if heads else caption + addition
                self.add(listing.picture, full, group="good", kind=kind, clean=caption)

    def add_colour_variants(self, count: int) -> None:
        """Add one product in three or four colours, in the same pose, with titles that differ in the colour."""
        added = 0
        while added < count:
            item = self.rng.choice(self.items)
            drawing = self.rng.choice(item.drawings).image
            variants: dict[tuple[str, str], Image.Image] = {}
            for degrees in (0, 90, 180, 270):
                variant = making.shift_hue(drawing, degrees)
                variants.setdefault(making.name_colour(variant), variant)
            if len(variants) < 3:
                continue
            colour, where_zh, where_en = self.rng.choice(((making.WHITE, "白底", "white background"), *BACKGROUNDS))
            words = self._describe_item(item, drawing)
            templates = (
                "{brand_zh}{feature_zh}{noun_zh} {spec_zh} {0}",
                "{0}{noun_zh}，{use_zh}，{where_zh}",
                "{brand_en} {noun_en}, {feature_en} - {1}",
            )
            template = self.rng.choice(templates)
            words |= {"where_zh": where_zh, "where_en": where_en}
            first: Row | None = None
            for names, variant in variants.items():
                canvas = Image.new("RGB", (420, 420), colour)
                making.paste_drawing(canvas, variant, 310, (210, 210))
                row = self.add(
                    canvas,
                    template.format(*names, **words),
                    suffix="jpg",
                    group="good",
                    kind="colour_variant",
                    like=first,
                )
                first = first or row
                added += 1

    def add_angles(self, count: int) -> None:
        """Add series of one product from several sides: turned, squeezed, nearer or farther."""
        poses = (
            ("正面", "front view", 0, 1.0, 0.72),
            ("侧面", "side view", 18, 0.62, 0.66),
            ("俯拍", "seen from above", -35, 0.85, 0.55),
            ("细节", "close-up", 8, 1.0, 1.35),
        )
        for _ in range(count // len(poses)):
            item = self.rng.choice(self.items)
            drawing = self.rng.choice(item.drawings).image
            words = self._describe_item(item, drawing)
            template = self.rng.choice(
                (
                    "{brand_zh}{feature_zh}{noun_zh} {0}图",
                    "{noun_zh}{0}展示，{spec_zh}",
                    "{brand_en} {noun_en} {spec_en}, {1}",
                )
            )
            first: Row | None = None
            for pose_zh, pose_en, turn, squeeze, scale in poses:
                canvas = Image.new("RGB", (450, 450), self.rng.choice((making.WHITE, (240, 240, 242), (250, 246, 238))))
                posed = drawing.resize((max(8, int(64 * squeeze)), 64))
                posed = ImageOps.pad(posed, (64, 64), color=(255, 255, 255, 0))
                center = (225 + self.rng.randint(-25, 25), 225 + self.rng.randint(-25, 25))
                making.paste_drawing(canvas, posed, int(450 * scale), center, turn=turn + self.rng.uniform(-5, 5))
                row = self.add(
                    canvas, template.format(pose_zh, pose_en, **words), group="good", kind="angle", like=first
                )
                first = first or row

    def add_frames(self, count: int) -> None:
        """Add two frames of one scene, the second moved on by 40 % of the frame, in slightly other light."""
        for _ in range(count // 2):
            photo = self.photos.take()
            while not making.has_detail(photo.image):  # two frames of a mere sky would be copies
                photo = self.photos.take()
            width, height = int(photo.image.width * 0.72), int(photo.image.height * 0.72)
            first: Row | None = None
            for left, top in ((0, 0), (photo.image.width - width, photo.image.height - height)):
                frame = photo.image.crop((left, top, left + width, top + height))
                frame = making.change_brightness(frame, self.rng.uniform(0.95, 1.06))
                listing = self.list_print(Photo(frame, photo.name))
                row = self.add(listing.picture, self.describe(listing), group="good", kind="frame_of_scene", like=first)
                first = first or row

    def add_templates(self, count: int) -> None:
        """Add ranges of like products in the same layout, whose captions differ in the one word that counts."""
        templates = (
            "卡通冰箱贴 {noun_zh}款 {spec_zh}",
            "{brand_zh}幼儿认知卡片：{noun_zh}",
            "Enamel pin, {noun_en} design, {brand_en}",
            'Sticker "{noun_en}" 5 cm, vinyl',
        )
        for _ in range(count // 5):
            category = self.rng.choice(list(texts.CATEGORIES))
            members = [item for item in self.items if item.category == category]
            template = self.rng.choice(templates)
            colour = self.rng.choice(((making.WHITE), *(background[0] for background in BACKGROUNDS)))
            shared = self._describe_item(members[0], members[0].drawings[0].image)
            first: Row | None = None
            for item in self.rng.sample(members, min(5, len(members))):
                canvas = Image.new("RGB", (400, 400), colour)
                ImageDraw.Draw(canvas).ellipse(
                    (30, 30, 370, 370), fill=(252, 252, 252), outline=(170, 170, 170), width=4
                )
                making.paste_drawing(canvas, self.rng.choice(item.drawings).image, 220, (200, 200), shadow=0.2)
                caption = template.format(**(shared | {"noun_zh": item.noun_zh, "noun_en": name_in_english(item)}))
                row = self.add(canvas, caption, group="good", kind="template_caption", like=first)
                first = first or row

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
                row, listing = self.rng.choice(shared)
                while (id(row), kind) in used and count < len(shared):
                    row, listing = self.rng.choice(shared)
                used.add((id(row), kind))
                keep = None if kind in ("exact", "mirrored") else row
                picture = row.image if kind == "exact" else alter(row.open())
                suffix = row.suffix if kind == "exact" else "jpg"
                self.add(picture, self._retitle(row, listing), suffix, group="copy", kind=kind, of=row, keep=keep)

        for kind, spoil in (
            ("larger_170", lambda image: making.resize_by(image, 0.6)),
            ("without_banner", lambda image: self.signs.add_strip(image, self._slogan(), RED)),
        ):
            for _ in range(count):
                if not replaced:
                    return
                row, listing = replaced.pop()
                copy = self.add(row.image, self._retitle(row, listing), row.suffix, group="copy", kind=kind, of=row)
                copy.keep = copy
                row.image, row.suffix = making.encode_image(spoil(row.open()), "jpg", 88), "jpg"

    def _list_alterations(self) -> dict[str, making.Alteration]:
        return {
            "exact": lambda image: image,
            "jpeg_25": partial(making.recompress, quality=25),
            "smaller_50": partial(making.resize_by, factor=0.5),
            "darker_15": partial(making.change_brightness, factor=0.85),
            "darker_30": partial(making.change_brightness, factor=0.7),
            "brighter_20": partial(making.change_brightness, factor=1.2),
            "gamma_70": partial(making.change_gamma, gamma=0.7),
            "crop_8": partial(making.crop_margins, share=0.08, rng=self.rng),
            "crop_20": partial(making.crop_margins, share=0.2, rng=self.rng),
            "black_bars_12": partial(making.add_bars, share=0.12),
            "side_bars_15": partial(making.add_bars, share=0.15, colour=(245, 245, 245), upright=True),
            "frame": lambda image: making.add_frame(
                image, self.rng.randint(8, 16), self.rng.choice((RED, ORANGE, DARK))
            ),
            "sale_strip": lambda image: self.signs.add_strip(image, self._slogan(), self.rng.choice((RED, ORANGE))),
            "price_tag": self.add_price_tag,
            "corner_logo": lambda image: self.signs.mark_corner(image, self._shop_name(), self._corner()),
            "tiled_mark": lambda image: self.signs.tile(image, self._shop_name(), 0.35),
            "mirrored": making.mirror,
            "turned_3": lambda image: making.turn(image, self.rng.choice((-3, 3))),
            "phone_screenshot": self.make_phone_page,
        }

    def _retitle(self, row: Row, listing: Listing) -> str:
        """Return the title of another shop for the same picture, or in two of five cases the same one."""
        return row.caption if self.rng.random() < 0.4 else self.describe(listing)

    def add_bad_captions(self, count: int) -> None:
        """Add good pictures with captions that are none, `count` of each kind."""
        for kind, write in self._list_bad_captions().items():
            for _ in range(count):
                listing = self.list_anything()
                picture, detail = listing.picture, ""
                if self.rng.random() < SHARE_OF_TWO_FAULTS:
                    picture = self.signs.tile(picture, self._shop_name(), 0.6, size=30)
                    detail = f"{kind} and tiled_watermark"
                self.add(picture, write(listing), group="text", kind=kind, detail=detail)

    def _list_bad_captions(self) -> dict[str, Callable[[Listing], str]]:
        rng = self.rng

        def pick(choices: tuple[str, ...]) -> Callable[[Listing], str]:
            return lambda listing: rng.choice(choices).format(**listing.words)

        def stuff_zh(listing: Listing) -> str:
            return " ".join([listing.words["noun_zh"], *rng.sample(texts.STUFFING_ZH, rng.randint(9, 16))])

        def stuff_en(listing: Listing) -> str:
            separator = rng.choice((", ", " ", ","))
            return separator.join([listing.words["noun_en"], *rng.sample(texts.STUFFING_EN, rng.randint(9, 18))])

        def write_sku(listing: Listing) -> str:
            words = listing.words
            forms = (
                "{model}-{digits7}",
                "SKU:{number}",
                "货号 {model}{n}",
                "{code}",
                "ASIN B0{code}",
                "{number}",
                "型号：{model}/{m}-{h}",
                "6{digits9}012",
            )
            return rng.choice(forms).format(**words).upper()

        def write_file_name(listing: Listing) -> str:
            forms = (
                "IMG_{digits7}.JPG",
                "O1CN01{code}_!!{number}.jpg_q50s50.jpg",
                "DSC0{n}.jpg",
                "微信图片_2024{digits9}.jpg",
                "{code}_800x800.png",
                "主图{h}.jpg",
                "Screenshot_2024-03-{h}-{digits7}",
                "detail_{m}_{h}.webp",
                "51{code}L._AC_UL320_",
            )
            return rng.choice(forms).format(**listing.words)

        def write_breadcrumb(listing: Listing) -> str:
            category = rng.choice(list(texts.CATEGORIES.values()))
            forms = (
                f"首页 > 全部分类 > {category.path_zh} > {{shop_zh}}",
                f"Home / {category.path_en} / All / New In",
                f"Home » Shop » {category.path_en} » Page {{h}}",
                f"全部商品 » {category.path_zh} » 共{{n}}件",
            )
            return rng.choice(forms).format(**listing.words)

        def write_markup(listing: Listing) -> str:
            noun = self.describe(listing, rng.choice(("zh", "en")))
            forms = (
                '<p style="text-align:center"><img src="{0}.jpg"/></p>',
                "&lt;span class=&quot;title&quot;&gt;{1}&lt;/span&gt;&lt;br/&gt;",
                "{{{{ product.title | escape }}}}",
                '{{"itemId":"{0}","title":"{1}","skuId":null}}',
                "<b>{1}</b><br><font color=red>{0}</font>",
                "[img]{0}.gif[/img]",
                "${{item.name}} - ${{shop.name}}",
            )
            return rng.choice(forms).format(listing.words["number"], noun)

        def write_russian(listing: Listing) -> str:
            return " ".join(
                rng.choice(choices) for choices in (texts.RUSSIAN_FEATURES, texts.RUSSIAN_NOUNS, texts.RUSSIAN_TAILS)
            )

        def write_question_marks(listing: Listing) -> str:
            caption = self.describe(listing, "zh")
            return "".join(letter if letter.isascii() else "?" for letter in caption)

        urls = (
            "https://item.{host}/item.htm?id={number}",
            "http://www.{host}/p/{code}?spm=a21bo.{digits7}",
            "www.{host}",
            "https://m.{host}/detail/{number}.html",
            "https://img.{host}/i2/{number}/{code}.jpg",
        )
        prices = (
            "¥{n}.00",
            "￥{m}.9 包邮",
            "${n}.99",
            "券后价 {n} 元",
            "US ${m}.50 - {n}.00",
            "原价{n} 现价{m}",
            "{n}元/件",
            "月销{n}+ ¥{m}",
        )
        names = (
            *texts.SHOPS_ZH,
            *texts.SHOPS_EN,
            "进入店铺",
            "Visit the {shop_en}",
            "{shop_zh} 粉丝数{n}万",
            "淘好物 {shop_zh}",
            "{shop_en} - Home",
        )
        return {
            "keyword_list_zh": stuff_zh,
            "keyword_list_en": stuff_en,
            "contact": pick(texts.CONTACTS),
            "sale_phrase": pick(texts.SALE_PHRASES),
            "sku_code": write_sku,
            "file_name": write_file_name,
            "placeholder": pick(texts.PLACEHOLDERS),
            "boilerplate": pick(texts.BOILERPLATES),
            "mojibake_gbk": lambda listing: making.misread(self.describe(listing, "zh"), "gbk"),
            "mojibake_latin1": lambda listing: making.misread(
                self.describe(listing, "zh"), rng.choice(("latin-1", "cp1252"))
            ),
            "question_marks": write_question_marks,
            "markup": write_markup,
            "url": pick(urls),
            "price_only": pick(prices),
            "praise_only": pick(texts.PRAISES),
            "russian": write_russian,
            "breadcrumb": write_breadcrumb,
            "shop_name": pick(names),
        }

    def add_bad_pictures(self, count: int) -> None:
        """Add pictures that show no product well, under good captions, `count` of each kind."""
        makers: dict[str, Callable[[Image.Image], Image.Image]] = {
            "tiled_watermark": lambda image: self.signs.tile(image, self._shop_name(), 0.75, size=34),
            "sale_banner": self.make_sale_banner,
            "size_chart": self.make_size_chart,
            "qr_code": self.make_qr_code,
            "collage_four": lambda image: making.make_collage(
                [image] + [self.list_anything().picture for _ in range(3)]
            ),
            "placeholder_picture": self.make_placeholder,
            "thumbnail_50": lambda image: ImageOps.fit(image, (50, 50)),
            "strip_banner": lambda image: self.signs.add_strip(
                ImageOps.fit(image, (950, 90)), self._slogan(), RED, 1.0
            ),
            "text_notice": self.make_notice,
            "phone_page": self.make_recommendations,
            "pixelated": partial(making.pixelate, cells=12),
            "grey_lower_half": partial(making.grey_out_lower, share=0.55),
        }
        for kind, make in makers.items():
            for _ in range(count):
                listing = self.list_anything()
                self.add(make(listing.picture), self.describe(listing), group="image", kind=kind)

    def add_mismatches(self, count: int) -> None:
        """Add captions of other pictures: of goods of another category, of a print, of the listing before."""
        goods = [row for row, listing in self.plain_rows if not listing.is_print]
        categories = {id(row): listing.words.get("category") for row, listing in self.plain_rows}
        prints = [row for row, listing in self.plain_rows if listing.is_print]
        for _ in range(count):
            listing = self.list_goods(self.rng.choice(("white", "plain", "scene")))
            strangers = [row for row in goods if categories[id(row)] != listing.words["category"]]
            other = self.rng.choice(strangers)
            self.add(listing.picture, other.caption, group="mismatch", kind="other_product", of=other)
        for _ in range(count):
            other = self.rng.choice(goods + prints)
            listing = self.list_goods("white") if other in prints else self.list_print()
            self.add(listing.picture, other.caption, group="mismatch", kind="print_and_goods_mixed_up", of=other)

        listing = self.list_goods("white")
        before = self.add(listing.picture, self.describe(listing), group="good", kind="white_background")
        caption, category = before.caption, listing.words["category"]
        for _ in range(count):
            following = self.list_goods(self.rng.choice(("white", "plain", "scene")))
            while following.words["category"] == category:
                following = self.list_goods(self.rng.choice(("white", "plain", "scene")))
            before = self.add(following.picture, caption, group="mismatch", kind="shifted_listing", of=before)
            caption, category = self.describe(following), following.words["category"]

    def add_local_changes(self, count: int) -> None:
        """Add pairs that differ in a sticker, a mark, a letter or the colour of two buttons."""
        for kind in ("sticker", "one_mark", "letter", "button_colour"):
            for _ in range(count):
                listing = self.list_goods(self.rng.choice(("white", "plain", "scene")))
                caption, other_caption = self.describe(listing), self.describe(listing)
                detail = "captions differ"
                first, second = listing.picture.copy(), listing.picture.copy()
                if kind == "sticker":
                    self._stick(second, self.signs.choose("热卖", "HOT"))
                    other_caption, detail = caption, "captions same"
                elif kind == "one_mark":
                    at = (second.width * self.rng.uniform(0.4, 0.6), second.height * self.rng.uniform(0.4, 0.6))
                    self.signs.write(second, self._shop_name(), at, 16, (235, 235, 235))
                    other_caption, detail = caption, "captions same"
                elif kind == "letter":
                    letters = self.rng.sample("ABDEGHKMRSTXYZ", 2)
                    for picture, letter in zip((first, second), letters, strict=True):
                        self.signs.write(picture, letter, (picture.width / 2, picture.height / 2), 54, (30, 30, 120))
                    caption, other_caption = (
                        self._name_variant(listing, f"字母{letter}款", f"letter {letter}") for letter in letters
                    )
                else:
                    colours = self.rng.sample(
                        (
                            (RED, "红", "red"),
                            ((30, 70, 200), "蓝", "blue"),
                            ((20, 140, 60), "绿", "green"),
                            ((250, 200, 0), "黄", "yellow"),
                        ),
                        2,
                    )
                    for picture, colour in zip((first, second), colours, strict=True):
                        self._draw_buttons(picture, colour[0])
                    caption, other_caption = (
                        self._name_variant(listing, f"{colour[1]}扣", f"{colour[2]} buttons") for colour in colours
                    )
                base = self.add(first, caption, "jpg", group="good", kind="before_local_change")
                self.add(second, other_caption, "jpg", group="local", kind=kind, of=base, detail=detail)

    def _name_variant(self, listing: Listing, variant_zh: str, variant_en: str) -> str:
        words = listing.words
        if int(words["number"]) % 2:  # the same language for both of a pair
            return f"{words['brand_zh']}{words['feature_zh']}{words['noun_zh']} {variant_zh}"
        return f"{words['brand_en']} {words['feature_en']} {words['noun_en']}, {variant_en}"

    def add_benchmark(self, num_images: int, count: int) -> None:
        """Make the benchmark's test set, leaks of it, and good rows that resemble a test image."""
        tests: list[tuple[Row, Listing]] = []
        for index in range(num_images):
            if index % 2:
                listing = self.list_print()
            else:
                listing = self.list_goods(
                    self.rng.choice(("white", "plain", "scene")), self.rng.choice(self.test_items)
                )
            tests.append((self.crawl.add_test_image(listing.picture, self.describe(listing)), listing))

        leaks: dict[str, making.Alteration] = {
            "leak_exact": lambda image: image,
            "leak_jpeg_40": partial(making.recompress, quality=40),
            "leak_smaller_60": partial(making.resize_by, factor=0.6),
            "leak_darker_15": partial(making.change_brightness, factor=0.85),
            "leak_crop_10": partial(making.crop_margins, share=0.1, rng=self.rng),
            "leak_sale_strip": lambda image: self.signs.add_strip(image, self._slogan(), ORANGE),
        }
        for kind, alter in leaks.items():
            for row, listing in self.rng.sample(tests, min(count, len(tests))):
                picture = row.image if kind == "leak_exact" else alter(row.open())
                self.add(picture, self.describe(listing), "jpg", group="leak", kind=kind, of=row)

        items = {item.name: item for item in self.items}
        drawn = [(row, listing) for row, listing in tests if listing.subject in items]
        for row, listing in drawn:
            resembling = self.list_goods(self.rng.choice(("white", "plain")), items[listing.subject])
            self.add(resembling.picture, self.describe(resembling), group="good", kind="like_test_image", like=row)

    # ------------------------------------------------------------------------------------------ what shops draw on

    def _shop_name(self) -> str:
        return self.signs.choose(self.rng.choice(texts.SHOPS_ZH), self.rng.choice(texts.SHOPS_EN))

    def _corner(self) -> str:
        return self.rng.choice(("lower right", "lower left", "upper left", "upper right"))

    def _slogan(self) -> str:
        chinese = self.rng.choice(
            ("限时特惠 满199减30", "买一送一 全国包邮", "双11狂欢 低至5折", "新品首发 立减20元", "官方正品 假一赔十")
        )
        return self.signs.choose(
            chinese,
            self.rng.choice(("SALE UP TO 50% OFF", "BUY 1 GET 1 FREE", "BLACK FRIDAY DEALS", "FREE SHIPPING TODAY")),
        )

    def _stick(self, image: Image.Image, text: str) -> None:
        """Put a round sticker onto the upper right of a picture."""
        radius = min(image.size) // 12
        x, y = int(image.width * 0.8), int(image.height * 0.2)
        ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=RED)
        self.signs.write(image, text, (x, y), max(10, int(radius * 0.75)), making.WHITE)

    def _draw_buttons(self, image: Image.Image, colour: tuple[int, int, int]) -> None:
        radius = max(5, min(image.size) // 45)
        for offset in (-0.06, 0.06):
            x, y = image.width / 2, image.height * (0.5 + offset)
            ImageDraw.Draw(image).ellipse(
                (x - radius, y - radius, x + radius, y + radius), fill=colour, outline=(40, 40, 40)
            )

    def add_price_tag(self, image: Image.Image) -> Image.Image:
        """Lay a red plate with the price over a lower corner."""
        tagged = image.copy()
        width, height = int(image.width * 0.36), int(image.height * 0.15)
        left = 0 if self.rng.random() < 0.5 else image.width - width
        box = (left, image.height - height, left + width, image.height)
        ImageDraw.Draw(tagged).rounded_rectangle(box, radius=14, fill=self.rng.choice((RED, ORANGE)))
        price = f"{self.signs.choose('¥', '$')}{self.rng.randint(5, 399)}.{self.rng.choice(('00', '90', '99'))}"
        self.signs.write(tagged, price, (left + width / 2, image.height - height / 2), int(height * 0.5), making.WHITE)
        return tagged

    def _make_phone(self) -> Image.Image:
        """Make an empty page of the shop's app with its status bar and the bar of buttons below."""
        page = Image.new("RGB", (390, 760), (246, 246, 248))
        draw = ImageDraw.Draw(page)
        draw.rectangle((0, 0, 390, 30), fill=making.WHITE)
        self.signs.write(page, f"{self.rng.randint(7, 23)}:{self.rng.randint(10, 59)}", (34, 16), 14, DARK)
        for index, level in enumerate((5, 8, 11)):  # reception
            draw.rectangle((310 + 6 * index, 22 - level, 313 + 6 * index, 22), fill=DARK)
        draw.rounded_rectangle((345, 10, 372, 22), radius=3, outline=DARK)
        draw.rectangle((347, 12, 347 + self.rng.randint(4, 23), 20), fill=DARK)
        draw.rectangle((0, 706, 390, 760), fill=making.WHITE)
        draw.rounded_rectangle((150, 714, 262, 752), radius=19, fill=ORANGE)
        draw.rounded_rectangle((266, 714, 378, 752), radius=19, fill=RED)
        self.signs.write(page, self.signs.choose("加入购物车", "Add to cart"), (206, 733), 15, making.WHITE)
        self.signs.write(page, self.signs.choose("立即购买", "Buy now"), (322, 733), 15, making.WHITE)
        self.signs.write(page, self.signs.choose("客服  收藏", "Chat  Save"), (70, 733), 14, DARK)
        return page

    def make_phone_page(self, image: Image.Image) -> Image.Image:
        """Make a screenshot of the product's page in the shop's app."""
        page = self._make_phone()
        page.paste(making.WHITE, (0, 30, 390, 560))
        fitted = ImageOps.contain(image, (390, 430))
        page.paste(fitted, ((390 - fitted.width) // 2, 30))
        self.signs.write(page, f"{self.signs.choose('¥', '$')} {self.rng.randint(9, 499)}", (14, 490), 28, RED, "lm")
        self.signs.write(
            page,
            self.signs.choose(f"已售{self.rng.randint(1, 90)}00+", "1k+ sold"),
            (376, 490),
            14,
            (150, 150, 150),
            "rm",
        )
        self.signs.write(page, self._slogan(), (14, 530), 17, DARK, "lm")
        for line, (chinese, english) in enumerate(
            (
                ("发货：浙江义乌 快递免运费", "Ships from Leeds, free"),
                ("保障：7天无理由退货", "30-day returns"),
                ("选择：颜色分类 尺码", "Select colour, size"),
            )
        ):
            self.signs.write(
                page, self.signs.choose(chinese, english), (14, 590 + 38 * line), 15, (110, 110, 110), "lm"
            )
        return page

    def make_recommendations(self, image: Image.Image) -> Image.Image:
        """Make a screenshot of the app's list of recommendations, four products with prices."""
        page = self._make_phone()
        self.signs.write(page, self.signs.choose("为你推荐", "Recommended for you"), (195, 50), 17, DARK)
        pictures = [image] + [self.list_anything().picture for _ in range(3)]
        for index, picture in enumerate(pictures):
            left, top = 10 + index % 2 * 188, 74 + index // 2 * 310
            page.paste(making.WHITE, (left, top, left + 180, top + 300))
            page.paste(ImageOps.fit(picture, (180, 200)), (left, top))
            self.signs.write(page, self._slogan()[:11], (left + 8, top + 222), 14, DARK, "lm")
            self.signs.write(
                page, f"{self.signs.choose('¥', '$')}{self.rng.randint(9, 299)}", (left + 8, top + 262), 20, RED, "lm"
            )
        return page

    def make_sale_banner(self, image: Image.Image) -> Image.Image:
        """Cover most of a picture with the banner of a sale."""
        banner = image.copy()
        top = int(image.height * self.rng.uniform(0.2, 0.35))
        banner.paste(self.rng.choice((RED, ORANGE, (120, 20, 160))), (0, top, image.width, image.height))
        size = image.width // 9
        discount = self.signs.choose(f"全场{self.rng.randint(2, 8)}折", f"{self.rng.randint(20, 80)}% OFF")
        self.signs.write(banner, discount, (image.width / 2, top + (image.height - top) * 0.32), size, (255, 235, 60))
        self.signs.write(
            banner, self._slogan(), (image.width / 2, top + (image.height - top) * 0.7), image.width // 20, making.WHITE
        )
        return banner

    def make_size_chart(self, image: Image.Image) -> Image.Image:
        """Make a table of sizes."""
        chart = Image.new("RGB", (520, 400), making.WHITE)
        draw = ImageDraw.Draw(chart)
        self.signs.write(chart, self.signs.choose("尺码表 SIZE", "SIZE CHART (cm)"), (260, 30), 24, DARK)
        heads = self.signs.choose("尺码 衣长 胸围 肩宽 袖长", "Size Length Chest Shoulder Sleeve").split()
        sizes = self.rng.choice(
            (("S", "M", "L", "XL", "2XL"), ("36", "37", "38", "39", "40"), ("100", "110", "120", "130", "140"))
        )
        start = [self.rng.randint(40, 70) for _ in range(4)]
        shade = self.rng.choice(((230, 230, 235), (250, 225, 225), (220, 235, 250)))
        for line in range(6):
            top = 64 + line * 52
            if line % 2 == 0:
                draw.rectangle((20, top, 500, top + 52), fill=shade)
            cells = heads if line == 0 else [sizes[line - 1], *(str(value + 2 * line) for value in start)]
            for column, cell in enumerate(cells):
                draw.rectangle((20 + column * 96, top, 116 + column * 96, top + 52), outline=(160, 160, 160))
                self.signs.write(chart, cell, (68 + column * 96, top + 26), 18, DARK)
        return chart

    def make_qr_code(self, image: Image.Image) -> Image.Image:
        """Make a poster with the code of the shop's account."""
        poster = Image.new(
            "RGB", (420, 520), self.rng.choice((making.WHITE, (35, 160, 80), (225, 60, 50), (240, 240, 245)))
        )
        words = self._draw_words()
        code = cv2.QRCodeEncoder.create().encode(f"https://u.{words['host']}/{words['code']}{words['number']}")
        poster.paste(Image.fromarray(code).resize((300, 300), Image.Resampling.NEAREST).convert("RGB"), (60, 70))
        ink = DARK if poster.getpixel((5, 5))[1] > 200 else making.WHITE
        self.signs.write(poster, self.signs.choose("扫码关注 领取优惠券", "Scan to follow us"), (210, 410), 26, ink)
        self.signs.write(poster, self._shop_name(), (210, 460), 20, ink)
        return poster

    def make_placeholder(self, image: Image.Image) -> Image.Image:
        """Make the picture that stands where there is none."""
        grey = self.rng.choice((225, 235, 242, 210))
        picture = Image.new("RGB", (self.rng.choice((300, 400, 500)),) * 2, (grey,) * 3)
        side = picture.width
        draw = ImageDraw.Draw(picture)
        draw.rectangle((side * 0.32, side * 0.3, side * 0.68, side * 0.58), outline=(170, 170, 170), width=5)
        draw.polygon(
            [(side * 0.35, side * 0.55), (side * 0.46, side * 0.42), (side * 0.58, side * 0.55)], fill=(185, 185, 185)
        )
        text = self.signs.choose(
            self.rng.choice(("暂无图片", "图片加载失败", "商品图片准备中")),
            self.rng.choice(("No image available", "Image coming soon")),
        )
        self.signs.write(picture, text, (side / 2, side * 0.68), side // 16, (150, 150, 150))
        return picture

    def make_notice(self, image: Image.Image) -> Image.Image:
        """Make a page of conditions, nothing but text."""
        lines = self.rng.choice(texts.NOTICES if self.signs.path else texts.NOTICES_EN)
        notice = Image.new("RGB", (480, 480), self.rng.choice((making.WHITE, (250, 245, 235), (45, 45, 50))))
        ink = DARK if notice.getpixel((0, 0))[0] > 100 else making.WHITE
        for index, line in enumerate(lines):
            self.signs.write(notice, line, (240, 70 + index * 68), 34 if index == 0 else 22, ink)
        return notice


def collect_items(drawings: list[Drawing]) -> list[Item]:
    """Collect the goods of the catalogue that there are drawings of."""
    by_name: dict[str, list[Drawing]] = {}
    for drawing in drawings:
        by_name.setdefault(drawing.name_en, []).append(drawing)
    items = []
    for category_name, category in texts.CATEGORIES.items():
        for name, noun_zh in category.goods.items():
            solid = [drawing for drawing in by_name.get(name, []) if making.is_solid(drawing.image)]
            if solid:
                items.append(Item(name, noun_zh, category_name, tuple(solid)))
    return items


def name_in_english(item: Item) -> str:
    """Return what an English shop calls an item; drawings of a sport show what it is played with."""
    name = texts.NOUNS_EN.get(item.name, item.name)
    return f"{name} plush toy" if item.category == "plush" else name


def name_scene(photo: Photo) -> str:
    """Return what a photograph shows in Chinese, by a word of its name."""
    words = f" {photo.name} "
    matches = [chinese for english, chinese in texts.SCENES if english in words]
    return matches[0] if matches else "实景"


def main() -> None:
    args = making.parse_arguments(__doc__)
    rng = random.Random(args.seed)  # noqa: S311
    shop = Shop(rng, PhotoSource(args.images, rng, round(args.rows * 0.42)), Signs(args.font))
    count = max(1, round(args.rows * SHARE_OF_KIND))

    # The shares leave half of the rows good; what is not a fault or a likeness is plain.
    shop.add_plain_rows(round(args.rows * 0.22))
    shop.add_corner_marked(count)
    shop.add_captions_to_trim(count)
    shop.add_colour_variants(round(args.rows * 0.04))
    shop.add_angles(round(args.rows * 0.04))
    shop.add_frames(round(args.rows * 0.06))
    shop.add_templates(round(args.rows * 0.03))
    shop.add_copies(count)
    shop.add_bad_captions(count)
    shop.add_bad_pictures(count)
    shop.add_mismatches(count)
    shop.add_local_changes(count)
    shop.add_benchmark(max(6, round(args.rows * 0.04)), count)
    shop.crawl.write(args.output)
    print(
        f"{len(shop.crawl.rows):,} rows in {args.output}; {shop.photos.num_crops:,} crops of photographs, "
        f"{shop.photos.num_made:,} made photographs, signs in {shop.signs.language}"
    )


if __name__ == "__main__":
    main()
