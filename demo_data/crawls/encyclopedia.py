"""Make the crawl of an encyclopedia, its media library and the sites that copy both, with what is true of every row.

    python demo_data/crawls/encyclopedia.py --output runs/crawls/encyclopedia --images photographs

Captions are those of figures, files and schoolbooks, half in Chinese, half in English. Half of the pictures are
photographs: crops of those in --images, and specimens, vessels, coins, planets and slides of cells that are rendered to
look like photographs. The others are plates, engravings, flags, arms, maps, charts, signs, formulas and diagrams.
Mirrors, question-and-answer sites and schoolbooks show changed copies of them.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import encyclopedia_texts as texts
from encyclopedia_copies import CHANGES, IMAGE_KINDS, EmptyPictures, Reuse, Typesetter, can_change
from encyclopedia_drawings import FLAG_COLOURS, LOCANTS, PARENTS, SUBSTITUENTS, Cabinet, Draughtsman, Picture
from encyclopedia_specimens import GLAZES, LEAF_COLOURS, MOON_PHASES, Collection, describe_photo, shows_subject
from making import Crawl, PhotoSource, Row, Signs, parse_arguments, recompress, resize_by
from PIL import Image, ImageDraw

NUM_ROWS = 5000
NUM_OF_KIND = 40
NUM_OF_CHANGE = 25  # of each change of a copy; 40 would leave less than half of the rows good
NUM_OF_PAIRS = 26  # of each kind of pictures that resemble each other
PHOTO_SHARE = 0.6  # of pictures that need not be drawings; most pairs are drawings
SHARE_OF_SECOND_FAULTS = 0.05
LICENCES = ("CC BY-SA 4.0", "CC BY-SA 3.0", "CC BY 2.0", "CC0", "Public domain", "GFDL", "")

# Captions of topics that share a word may be true of each other's pictures.
TOPIC_GROUPS = {
    "photo": "nature building sky thing",
    "organism": "nature",
    "specimen": "nature",
    "object": "thing building",
    "artefact": "thing",
    "flag": "emblem",
    "arms": "emblem",
    "sign": "emblem",
    "symbol": "emblem",
    "locator": "map",
    "chart": "chart figure",
    "graph": "chart figure",
    "molecule": "figure",
    "solid": "figure",
    "diagram": "figure thing building",
    "board": "figure",
    "plan": "building map",
    "elevation": "building",
    "sky": "sky",
    "view": "nature building sky thing",
    "slide": "nature",
    "coin": "thing",
}


def are_related(first: Picture, second: Picture) -> bool:
    """Return whether the caption of one picture may be true of the other."""
    return bool(set(TOPIC_GROUPS[first.topic].split()) & set(TOPIC_GROUPS[second.topic].split()))


class Library:
    """Adds the rows of the crawl.

    Args:
        crawl: takes the rows.
        draughtsman: makes drawings.
        test_draughtsman: makes drawings that only the benchmark has.
        collection: gives photographs.
        reuse: changes pictures.
        empty: makes pictures without content.
        num_rows: about how many rows to add.
    """

    def __init__(
        self,
        crawl: Crawl,
        draughtsman: Draughtsman,
        test_draughtsman: Draughtsman,
        collection: Collection,
        reuse: Reuse,
        empty: EmptyPictures,
        num_rows: int,
    ) -> None:
        self.crawl, self.rng = crawl, crawl.rng
        self.draughtsman, self.test_draughtsman, self.collection = draughtsman, test_draughtsman, collection
        self.reuse, self.empty = reuse, empty
        self.num_rows = num_rows
        self.num_of_kind = max(1, round(num_rows * NUM_OF_KIND / NUM_ROWS))
        self.num_of_change = max(1, num_rows * NUM_OF_CHANGE // NUM_ROWS)
        self.num_of_pairs = max(1, num_rows * NUM_OF_PAIRS // NUM_ROWS)
        self.originals: list[tuple[Row, Picture]] = []  # good rows that are copied

    def fill(self) -> None:
        """Add all rows; the rows that are simply good come last but for those that refer to them."""
        self.add_leaks()
        self.add_lookalikes()
        self.add_local_changes()
        self.add_bad_captions()
        self.add_bad_pictures()
        self.add_shifted_galleries()
        self.add_good_with_tails()
        self.add_better_copies()
        num_copies = self.num_of_change * (len(CHANGES) + 1)
        num_before = self.num_rows - num_copies - self.num_of_kind
        while len(self.crawl.rows) < num_before or len(self.originals) < 12:
            self.add_good()
        self.add_captions_of_other_articles()
        self.add_copies()

    # -----------------------------------------------------------------------------------------------------------------
    # Good rows

    def draw_language(self) -> str:
        return self.rng.choice(("zh", "en"))

    def draw_picture(self) -> Picture:
        if self.rng.random() < PHOTO_SHARE:
            return self.collection.take_photo()
        return self.draughtsman.make_any()

    def add(self, picture: Picture | Image.Image | bytes, caption: str, suffix: str = "", **truth: Any) -> Row:
        """Add a row as a media library or one of its mirrors gives it out, with page, author and licence."""
        rng = self.rng
        is_drawing = isinstance(picture, Picture) and "drawing" in picture.traits
        suffix = suffix or rng.choices(("jpg", "webp", "png"), (40, 10, 50) if is_drawing else (88, 10, 2))[0]
        number = f"{rng.getrandbits(40):010x}"
        site = rng.choice(
            (
                "upload.enzyklo.example",
                "upload.enzyklo.example",
                "img.baike5.example",
                "pic.answerhub.example",
                "static.kidspedia.example",
            )
        )
        fields = {
            "url": f"https://{site}/{number[0]}/{number[:2]}/{number}.{suffix}",
            "page": f"https://{site.partition('.')[2]}/page/{rng.randrange(10**4, 10**7)}",
            "author": rng.choice((*texts.USERS, *texts.USERS_ZH)),
            "license": rng.choice(LICENCES),
        }
        image = picture.image if isinstance(picture, Picture) else picture
        return self.crawl.add(image, caption, suffix, fields=fields, **truth)

    def write_good_caption(self, picture: Picture, language: str) -> tuple[str, str]:
        """Write a good caption in one of the ways people write them, with the name of the way."""
        style = self.rng.choices(("plain", "long", "all_caps", "lower_case", "slug"), (70, 16, 3, 6, 5))[0]
        caption = picture.write_caption(language, self.rng, style == "long")
        if style == "long":
            return caption, style
        if language == "en" and style == "all_caps":
            return caption.upper(), style
        if language == "en" and style == "lower_case":
            return caption.lower(), style
        if language == "en" and style == "slug":
            words = "".join(letter if letter.isalnum() else " " for letter in caption).split()
            return self.rng.choice("-_").join(words[:10]), style
        return caption, "plain"

    def add_good(self) -> None:
        picture = self.draw_picture()
        caption, style = self.write_good_caption(picture, self.draw_language())
        self.originals.append((self.add(picture, caption, kind=style), picture))

    def add_good_with_tails(self) -> None:
        """Add good captions with a head or tail that an editor cuts off."""
        for kind in texts.TAIL_KINDS:
            for _ in range(self.num_of_kind):
                picture, language = self.draw_picture(), self.draw_language()
                clean = picture.write_caption(language, self.rng).rstrip(" .。")
                caption = texts.add_tail(kind, language, clean, self.rng)
                self.add(picture, caption, kind=f"good_with_{kind}", clean=clean)

    # -----------------------------------------------------------------------------------------------------------------
    # Good rows that resemble each other

    def add_lookalikes(self) -> None:
        makers = (
            self.make_other_flag_colours,
            self.make_reversed_flag,
            self.make_other_charge,
            self.make_other_tincture,
            self.make_other_district,
            self.make_other_data,
            self.make_other_sign,
            self.make_isomer,
            self.make_solid_from_side,
            self.make_next_symbol,
            self.make_later_position,
            self.make_other_axles,
            self.make_one_more_floor,
            self.make_other_style,
            self.make_same_plate,
            self.make_other_specimen,
            self.make_mineral_from_side,
            self.make_other_glaze,
            self.make_leaf_in_autumn,
            self.make_other_phase,
            self.make_next_crop,
        )
        for make in makers:
            for _ in range(self.num_of_pairs):
                first, second = make()
                captions = (
                    self.write_pair(first, second) if self.rng.random() < 0.5 else self.write_apart(first, second)
                )
                kind = make.__name__.removeprefix("make_")
                row = self.add(first, captions[0], kind=f"first_of_{kind}")
                self.add(second, captions[1], kind=kind, like=row)

    def write_pair(self, first: Picture, second: Picture) -> tuple[str, str]:
        """Write captions of the same form, which differ where the pictures differ."""
        language, seed = self.draw_language(), self.rng.getrandbits(32)
        captions = [picture.write_caption(language, random.Random(seed)) for picture in (first, second)]  # noqa: S311
        return captions[0], captions[1]

    def write_apart(self, first: Picture, second: Picture) -> tuple[str, str]:
        captions = [picture.write_caption(self.draw_language(), self.rng) for picture in (first, second)]
        return captions[0], captions[1]

    def repeat(self, make: Callable[..., Picture], *variants: dict[str, Any]) -> tuple[Picture, Picture]:
        """Make two pictures from the same random numbers."""
        at = self.rng.getstate()
        pictures = []
        for variant in variants:
            self.rng.setstate(at)
            pictures.append(make(**variant))
        return pictures[0], pictures[1]

    def draw_design(self, kind: str, draw: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
        """Draw a design until one comes that does not exist yet, and take it; for some there are no new ones left."""
        for _ in range(60):
            design = draw()
            if (kind, *design) not in self.draughtsman.seen:
                break
        self.draughtsman.seen.discard((kind, *design))
        return design

    def make_other_flag_colours(self) -> tuple[Picture, Picture]:
        rng = self.rng
        layout, size = (
            rng.choice(("rows", "columns", "nordic", "triangle", "stripes", "border", "diagonal")),
            rng.choice(((360, 240), (400, 240))),
        )
        designs = [
            self.draw_design("flag", lambda: (layout, tuple(rng.sample(list(FLAG_COLOURS), 3)))) for _ in range(2)
        ]
        first, second = (self.draughtsman.draw_flag(layout, colours, size) for _, colours in designs)
        return first, second

    def make_reversed_flag(self) -> tuple[Picture, Picture]:
        """Make two vertical tricolours, one of which is the other in the mirror."""
        rng, size = self.rng, self.rng.choice(((360, 240), (390, 260)))
        _, colours = self.draw_design("flag", lambda: ("columns", tuple(rng.sample(list(FLAG_COLOURS), 3))))
        self.draughtsman.seen.discard(("flag", "columns", colours[::-1]))
        return self.draughtsman.draw_flag("columns", colours, size), self.draughtsman.draw_flag(
            "columns", colours[::-1], size
        )

    def draw_field(self) -> tuple[str, str, str]:
        first, second = self.rng.sample(("gules", "azure", "vert", "sable", "purpure"), 2)
        return first, second, self.rng.choice(("or", "argent"))

    def make_other_charge(self) -> tuple[Picture, Picture]:
        names = sorted(name for name in self.draughtsman.cabinet.silhouettes if name in texts.CHARGES)
        field, division = self.draw_field(), self.rng.choice(("plain", "pale", "fess", "bend", "chief", "bordure"))
        first, second = (self.draw_new_arms(charge, field, division) for charge in self.rng.sample(names, 2))
        return first, second

    def draw_new_arms(self, charge: str, field: tuple[str, str, str], division: str) -> Picture:
        self.draughtsman.seen.discard(("arms", charge, field, division))
        return self.draughtsman.draw_arms(charge, field, division)

    def make_other_tincture(self) -> tuple[Picture, Picture]:
        names = sorted(name for name in self.draughtsman.cabinet.silhouettes if name in texts.CHARGES)
        charge, division = (
            self.rng.choice(names),
            self.rng.choice(("plain", "pale", "fess", "bend", "chief", "bordure")),
        )
        first = second = self.draw_field()
        while second[0] == first[0]:
            second = self.draw_field()
        return self.draw_new_arms(charge, first, division), self.draw_new_arms(charge, second, division)

    def make_other_district(self) -> tuple[Picture, Picture]:
        seed, index = self.rng.getrandbits(31), self.rng.randrange(8)
        return self.draughtsman.draw_locator(seed, index), self.draughtsman.draw_locator(
            seed, index + self.rng.randint(1, 6)
        )

    def make_other_data(self) -> tuple[Picture, Picture]:
        style = self.rng.getrandbits(31)
        return self.draughtsman.draw_chart(style), self.draughtsman.draw_chart(style)

    def make_other_sign(self) -> tuple[Picture, Picture]:
        """Make two road signs or route shields of one shape; there are enough of the latter."""
        shape = "plate"
        if len([design for design in self.draughtsman.seen if design[0] == "sign"]) < 60:
            shape = self.rng.choice(("warning", "prohibition", "order", "diamond", "limit"))
        draws: dict[str, Callable[[], str]] = {
            "plate": lambda: str(self.rng.randrange(100, 1000)),
            "limit": lambda: str(self.rng.randrange(5, 135, 5)),
        }
        draw = draws.get(shape, lambda: self.draughtsman.cabinet.silhouette(texts.CROSSINGS).name_en)
        contents: set[str] = set()
        while len(contents) < 2:
            contents.add(self.draw_design("sign", lambda: (shape, draw()))[1])
        first, second = (self.draughtsman.draw_sign(shape, content) for content in sorted(contents))
        return first, second

    def make_isomer(self) -> tuple[Picture, Picture]:
        """Make two molecules of the same groups at other places of the ring."""
        free: dict[tuple[str, str], list[tuple[int, ...]]] = {}
        for parent in PARENTS:
            for substituent in SUBSTITUENTS:
                places = [
                    places
                    for places in LOCANTS
                    if ("molecule", parent, substituent, places) not in self.draughtsman.seen
                ]
                for count in (1, 2):
                    alike = [place for place in places if len(place) == count]
                    if len(alike) > 1:
                        free[parent, substituent] = alike
        if not free:
            return self.make_solid_from_side()
        parent, substituent = self.rng.choice(sorted(free))
        style, places = self.rng.getrandbits(31), self.rng.sample(free[parent, substituent], 2)
        first, second = (self.draughtsman.draw_molecule(parent, substituent, place, style) for place in places)
        return first, second

    def make_solid_from_side(self) -> tuple[Picture, Picture]:
        kind, sides = (
            self.rng.choice(("prism", "pyramid", "bipyramid", "antiprism")),
            self.rng.choice((3, 4, 5, 6, 7, 8)),
        )
        colour = self.rng.choice(("red", "yellow", "blue", "green", "orange"))
        return self.draughtsman.draw_solid(kind, sides, colour), self.draughtsman.draw_solid(kind, sides, colour)

    def make_next_symbol(self) -> tuple[Picture, Picture]:
        series = self.rng.choice(("hexagram", "domino", "semaphore"))
        if sum(symbol[0] == series for symbol in self.draughtsman.symbols) < 2:
            return self.make_other_flag_colours()
        return self.draughtsman.draw_symbol(series), self.draughtsman.draw_symbol(series)

    def make_later_position(self) -> tuple[Picture, Picture]:
        seed = self.rng.getrandbits(31)
        return self.draughtsman.draw_board(seed), self.draughtsman.draw_board(seed, 3)

    def make_other_axles(self) -> tuple[Picture, Picture]:
        style, lead, drive = self.rng.getrandbits(31), self.rng.randint(0, 2), self.rng.randint(2, 4)
        trail = self.rng.randint(0, 1)
        other = self.rng.choice(((lead, drive + 1, trail), (lead, drive, trail + 1)))
        return self.draughtsman.draw_locomotive((lead, drive, trail), style), self.draughtsman.draw_locomotive(
            other, style
        )

    def make_one_more_floor(self) -> tuple[Picture, Picture]:
        style, floors = self.rng.getrandbits(31), self.rng.randint(2, 4)
        return self.draughtsman.draw_elevation(style, floors), self.draughtsman.draw_elevation(style, floors + 1)

    def make_other_style(self) -> tuple[Picture, Picture]:
        """Make two plates of one thing, drawn by two people."""
        while any(self.draughtsman.cabinet.drawings.values()):
            drawing = self.draughtsman.cabinet.take()
            namesake = self.draughtsman.cabinet.take_namesake(drawing)
            if namesake:
                style = self.rng.choice(("plate", "clip_art", "exhibit"))
                return self.draughtsman.draw_plate(drawing, style), self.draughtsman.draw_plate(namesake, style)
        return self.make_solid_from_side()

    def make_same_plate(self) -> tuple[Picture, Picture]:
        """Make two things on plates of one series."""
        sort, style, seed = (
            self.rng.choice(("animal", "plant", "machine", "object")),
            self.rng.choice(("plate", "engraving", "exhibit")),
            self.rng.getrandbits(31),
        )
        first, second = (
            self.draughtsman.draw_plate(self.draughtsman.cabinet.take(sort), style, seed) for _ in range(2)
        )
        return first, second

    def make_other_specimen(self) -> tuple[Picture, Picture]:
        colour, family = self.rng.choice(("orange", "yellow", "blue", "brown", "white")), self.rng.randrange(6)
        first, second = (self.collection.pin_butterfly(None, colour, family) for _ in range(2))
        return first, second

    def make_mineral_from_side(self) -> tuple[Picture, Picture]:
        seed, yaw = self.rng.getrandbits(31), self.rng.uniform(0.7, 1.6)
        return self.collection.grow_mineral(seed), self.collection.grow_mineral(seed, yaw)

    def make_other_glaze(self) -> tuple[Picture, Picture]:
        seed = self.rng.getrandbits(31)
        first, second = (self.collection.turn_vase(seed, glaze) for glaze in self.rng.sample(sorted(GLAZES), 2))
        return first, second

    def make_leaf_in_autumn(self) -> tuple[Picture, Picture]:
        seed = self.rng.getrandbits(31)
        first, second = (
            self.collection.press_leaf(seed, colour) for colour in self.rng.sample(sorted(LEAF_COLOURS), 2)
        )
        return first, second

    def make_other_phase(self) -> tuple[Picture, Picture]:
        seed = self.rng.getrandbits(31)
        first, second = (
            self.collection.render_planet(seed, phase) for phase in self.rng.sample(range(len(MOON_PHASES)), 2)
        )
        return first, second

    def make_next_crop(self) -> tuple[Picture, Picture]:
        """Take two neighbouring parts of a photograph; photographs run out, then two specimens follow."""
        crops = self.collection.photos.take_series(2)
        if not crops:
            return self.make_other_specimen()
        return describe_photo(crops[0]), describe_photo(crops[1])

    # -----------------------------------------------------------------------------------------------------------------
    # Rows that differ in a detail

    def add_local_changes(self) -> None:
        for make in (self.change_letter, self.add_move, self.change_coin_year, self.add_arrow):
            for _ in range(self.num_of_kind):
                first, second, captions = make()
                row = self.add(first, captions[0], kind=f"first_of_{make.__name__}")
                detail = "captions same" if captions[0] == captions[1] else "captions differ"
                self.add(second, captions[1], group="local", kind=make.__name__, of=row, detail=detail)

    def change_letter(self) -> tuple[Picture, Picture, tuple[str, str]]:
        """Exchange a letter of a labelled drawing."""
        first = self.draughtsman.draw_plate(style="labelled")
        (x, y), letter = self.rng.choice(first.labels)
        image = first.image.copy()
        ImageDraw.Draw(image).rectangle((x - 9, y - 11, x + 9, y + 11), fill=(255, 255, 255))
        other = self.rng.choice([candidate for candidate in "FGHKMX" if candidate != letter])
        self.draughtsman.signs.write(image, other, (x, y), 18, (28, 28, 32))
        caption = first.write_caption(self.draw_language(), self.rng)
        return first, replace(first, image=image), (caption, caption)

    def add_move(self) -> tuple[Picture, Picture, tuple[str, str]]:
        """Play one more move on a Go board."""
        seed = self.rng.getrandbits(31)
        first, second = self.draughtsman.draw_board(seed), self.draughtsman.draw_board(seed, 1)
        return first, second, self.write_pair(first, second)

    def change_coin_year(self) -> tuple[Picture, Picture, tuple[str, str]]:
        """Strike the same coin in another year."""
        seed, year = self.rng.getrandbits(31), self.rng.randrange(1840, 1970)
        first, second = self.repeat(
            self.collection.strike_coin,
            {"seed": seed, "year": year},
            {"seed": seed, "year": year + self.rng.randint(1, 20)},
        )
        return first, second, self.write_pair(first, second)

    def add_arrow(self) -> tuple[Picture, Picture, tuple[str, str]]:
        """Point at a part of a photograph, of which half of the captions speak."""
        first = self.collection.take_photo()
        image = first.image.copy()
        draw = ImageDraw.Draw(image)
        x, y = image.width * self.rng.uniform(0.3, 0.7), image.height * self.rng.uniform(0.3, 0.7)
        dx, dy = self.rng.choice(((1, 1), (-1, 1), (1, -1), (-1, -1)))
        colour = self.rng.choice(((255, 255, 255), (230, 30, 30), (255, 220, 0)))
        draw.line((x, y, x + dx * 38, y + dy * 38), fill=colour, width=5)
        draw.polygon(((x - dx * 6, y - dy * 6), (x + dx * 15, y + dy * 3), (x + dx * 3, y + dy * 15)), fill=colour)
        language = self.draw_language()
        caption = first.write_caption(language, self.rng).rstrip(" .。")
        pointed = caption
        if self.rng.random() < 0.5:
            pointed += "，箭头指示处为细部" if language == "zh" else "; the arrow points at a detail"
        return first, replace(first, image=image), (caption, pointed)

    # -----------------------------------------------------------------------------------------------------------------
    # Faults

    def add_bad_captions(self) -> None:
        for kind in texts.TEXT_KINDS:
            for _ in range(self.num_of_kind):
                picture, detail = self.draw_picture(), ""
                caption = self.write_bad_caption(picture, kind)
                if self.rng.random() < SHARE_OF_SECOND_FAULTS:
                    fault = self.rng.choice(IMAGE_KINDS)
                    picture, detail = (
                        replace(picture, image=self.empty.make(fault, picture.image)),
                        f"{kind} and {fault}",
                    )
                self.add(picture, caption, group="text", kind=kind, detail=detail)

    def write_bad_caption(self, picture: Picture, kind: str) -> str:
        language = "zh" if kind.startswith("mojibake") else self.draw_language()
        return texts.write_fault(kind, language, picture.write_caption(language, self.rng), self.rng)

    def add_bad_pictures(self) -> None:
        for kind in IMAGE_KINDS:
            for _ in range(self.num_of_kind):
                picture = self.draw_picture()
                language = self.draw_language()
                caption, _ = self.write_good_caption(picture, language)
                if kind == "collage" and self.rng.random() < 0.5:
                    caption = ("拼图，其中有：" if language == "zh" else "Montage with, among others: ") + caption
                self.add(self.empty.make(kind, picture.image), caption, group="image", kind=kind)

    def add_shifted_galleries(self) -> None:
        """Add galleries of four whose captions moved on by one picture."""
        for _ in range(max(1, self.num_of_kind // 4)):
            pictures: list[Picture] = []
            while len(pictures) < 4:
                picture = self.draw_picture()
                if not any(are_related(picture, other) for other in pictures):
                    pictures.append(picture)
            language = self.draw_language()
            captions = [picture.write_caption(language, self.rng) for picture in pictures]
            rows = [
                self.add(pictures[index], captions[index - 1], group="mismatch", kind="gallery_shifted")
                for index in range(4)
            ]
            for index, row in enumerate(rows):
                row.of = rows[index - 1]

    def add_captions_of_other_articles(self) -> None:
        for _ in range(self.num_of_kind):
            picture = self.draw_picture()
            owner, owner_picture = self.rng.choice(self.originals)
            while are_related(owner_picture, picture):
                owner, owner_picture = self.rng.choice(self.originals)
            self.add(picture, owner.caption, group="mismatch", kind="caption_of_other_article", of=owner)

    # -----------------------------------------------------------------------------------------------------------------
    # Copies

    def add_better_copies(self) -> None:
        """Add pictures that the crawl has small or marked first, and as they were made second."""
        for kind in ("larger_source", "unmarked_source"):
            for _ in range(self.num_of_kind):
                picture, language = self.draw_picture(), self.draw_language()
                if kind == "larger_source":
                    poorer = recompress(resize_by(picture.image, 0.6), 60)
                else:
                    mark, strength = self.rng.choice(
                        (("mirror_corner", 0.06), ("mirror_middle", 0.4), ("mirror_tiles", 0.2))
                    )
                    poorer = self.reuse.change(picture.image, mark, strength)
                captions = [picture.write_caption(language, self.rng) for _ in range(2)]
                original = self.add(poorer, captions[0], "jpg", kind=f"first_of_{kind}")
                copy = self.add(picture, captions[self.rng.randrange(2)], group="copy", kind=kind, of=original)
                copy.keep = copy

    def add_copies(self) -> None:
        """Add each change as often as the others; most pictures are copied once, some more often."""
        rng = self.rng
        copied: set[Row] = set()
        for kind, strengths in {**CHANGES, "same_file": ("",)}.items():
            fitting = [entry for entry in self.originals if can_change(kind, entry[1].traits)]
            rng.shuffle(fitting)
            for index in range(min(self.num_of_change, len(fitting))):
                is_repeated = rng.random() < 0.25
                pool = [entry for entry in fitting if (entry[0] in copied) == is_repeated] or fitting
                original, picture = pool[0]
                fitting.remove(pool[0])  # the same change once only
                copied.add(original)
                self.add_copy(original, picture, kind, strengths[index % len(strengths)])

    def add_copy(self, original: Row, picture: Picture, kind: str, strength: Any) -> None:
        rng, detail = self.rng, ""
        caption = original.caption
        if rng.random() < 0.5:
            caption, _ = self.write_good_caption(picture, self.draw_language())
        if rng.random() < SHARE_OF_SECOND_FAULTS:
            fault = rng.choice(texts.TEXT_KINDS)
            caption, detail = self.write_bad_caption(picture, fault), f"{kind} and {fault}"
        label = f"{kind}_{strength}".rstrip("_")
        truth = {"kind": label, "of": original, "keep": None if kind == "same_file" else original, "detail": detail}
        if kind == "same_file":
            self.add(original.image, caption, original.suffix, group="copy", **truth)
            return
        row = self.add(self.reuse.change(original.open(), kind, strength), caption, group="copy", **truth)
        if row.image == original.image:  # a flag of three colours as a palette
            row.keep = None

    # -----------------------------------------------------------------------------------------------------------------
    # The benchmark

    def add_leaks(self) -> None:
        """Add images of the test set, and good rows that resemble test images."""
        ways: dict[str, tuple[tuple[str, Any], ...]] = {
            "leak_saved_again": (("saved_again", 80),),
            "leak_cropped_and_marked": (("crop", 0.1), ("mirror_corner", 0.05)),
            "leak_in_infobox": (("infobox", 4),),
        }
        for kind, changes in ways.items():
            for _ in range(self.num_of_kind):
                picture = self.draw_test_picture()
                caption = picture.write_caption(self.draw_language(), self.rng)
                test_row = self.crawl.add_test_image(picture.image, caption)
                image = picture.image
                for change, strength in changes:
                    image = self.reuse.change(image, change, strength)
                if self.rng.random() < 0.5:
                    caption = picture.write_caption(self.draw_language(), self.rng)
                self.add(image, caption, group="leak", kind=kind, of=test_row)
        for _ in range(self.num_of_kind * 2):
            picture = self.draw_test_picture()
            self.crawl.add_test_image(picture.image, picture.write_caption(self.draw_language(), self.rng))
        for _ in range(self.num_of_kind):
            first, second = self.rng.choice(
                (self.make_other_data, self.make_other_glaze, self.make_other_district, self.make_other_specimen)
            )()
            captions = self.write_pair(first, second)
            test_row = self.crawl.add_test_image(first.image, captions[0])
            self.add(second, captions[1], kind="like_test_image", like=test_row)

    def draw_test_picture(self) -> Picture:
        if self.rng.random() < 0.5:
            return self.collection.take_photo()
        return self.test_draughtsman.make_any()


def main() -> None:
    arguments = parse_arguments(__doc__, NUM_ROWS)
    rng = random.Random(arguments.seed)  # noqa: S311
    crawl, signs = Crawl(rng), Signs(arguments.font)
    cabinet, test_cabinet = Cabinet(("emoji-train.tar", "emoji-val.tar"), rng), Cabinet(("emoji-test.tar",), rng)
    # Two fifths of the rows take a photograph.
    photos = PhotoSource(arguments.images, rng, arguments.rows * 2 // 5, 0.6, accept=shows_subject)
    collection = Collection(photos, cabinet, signs, rng)
    draughtsman, test_draughtsman = Draughtsman(cabinet, signs, rng), Draughtsman(test_cabinet, signs, rng)
    test_draughtsman.seen, test_draughtsman.symbols = draughtsman.seen, draughtsman.symbols
    typesetter = Typesetter(signs, rng)
    reuse = Reuse(typesetter, signs, rng)

    def draw_more() -> Image.Image:
        return (collection.make_specimen() if rng.random() < 0.5 else draughtsman.make_any()).image

    empty = EmptyPictures(typesetter, signs, rng, draw_more)
    library = Library(crawl, draughtsman, test_draughtsman, collection, reuse, empty, arguments.rows)
    library.fill()
    crawl.write(arguments.output)
    print(f"{crawl.describe()} in {arguments.output}")
    print(f"photographs: {photos.num_crops:,} crops, {collection.num_rendered:,} rendered; signs: {signs.language}")


if __name__ == "__main__":
    main()
