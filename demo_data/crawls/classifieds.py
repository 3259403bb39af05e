"""Make the crawl of a second-hand market, with what is true of every row.

    python demo_data/crawls/classifieds.py --output runs/crawls/classifieds --images photographs

Private people sell furniture, clothes, bicycles, cars and small things, let rooms, and show prints, views and samples
of cameras, half of them in Chinese, half in English. Most captions describe their picture; others are contacts, terms,
questions and names of files. Things are photographed from several sides, listings are posted again with changed
pictures. Photographs are crops of those in --images; without it, or when they are used up, landscapes are painted.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import classifieds_texts as texts
from classifieds_models import COUNTS
from classifieds_pictures import (
    CHANGES,
    EQUALLY_GOOD,
    IMAGE_KINDS,
    PAPERS,
    Cupboard,
    EmptyPictures,
    Repost,
    Scene,
    Shot,
    Studio,
    describe_photo,
    make_market_photograph,
    shows_enough,
)
from making import Crawl, PhotoSource, Row, Signs, parse_arguments
from PIL import Image, ImageDraw

NUM_ROWS = 5000
NUM_OF_KIND = 40
NUM_OF_CHANGE = 30  # of each change of a repost; 40 would leave less than half of the rows good
NUM_OF_PAPER = 20
NUM_VIEWS = 60  # photographs for windows, backdrops and pictures on walls
PHOTO_SHARE, PRINT_SHARE = 0.4, 0.1  # of pictures that are not made for what their kind needs
SHARE_OF_SECOND_FAULTS = 0.1  # of copies and captions that are none; 5 % of all rows with a fault
EMOJI = {
    "furniture": "🛋🏠",
    "room": "🏠🔑",
    "clothes": "👗👕🧵",
    "bicycle": "🚲💨",
    "car": "🚗🔑",
    "small": "✨🎁",
    "view": "🌄📷",
    "motif_topic": "📷🖼",
}

# Topics whose captions may be true of each other's pictures: a room has furniture, a print shows a view.
RELATED_TOPICS = {
    **dict.fromkeys(("view", "motif_topic", "print"), "picture"),
    **dict.fromkeys(("furniture", "room", "lamp_topic"), "home"),
}


def are_related(first: Scene, second: Scene) -> bool:
    """Return whether the caption of one scene may be true of the other."""
    sorts = [RELATED_TOPICS.get(scene.topic, scene.topic) for scene in (first, second)]
    return sorts[0] == sorts[1] or set(sorts) == {"home", "picture"}


class Market:
    """Adds the rows of the crawl.

    Args:
        crawl: takes the rows.
        photos: photographs, each given once.
        studio: photographs goods.
        test_studio: photographs goods that only the benchmark has.
        repost: changes pictures.
        empty: makes pictures without content.
        num_rows: about how many rows to add.
    """

    def __init__(
        self,
        crawl: Crawl,
        photos: PhotoSource,
        studio: Studio,
        test_studio: Studio,
        repost: Repost,
        empty: EmptyPictures,
        num_rows: int,
    ) -> None:
        self.crawl, self.photos, self.studio, self.test_studio = crawl, photos, studio, test_studio
        self.repost, self.empty = repost, empty
        self.rng = crawl.rng
        self.num_rows = num_rows
        self.num_of_kind = max(1, round(num_rows * NUM_OF_KIND / NUM_ROWS))
        self.num_of_change = max(1, num_rows * NUM_OF_CHANGE // NUM_ROWS)
        self.num_of_paper = max(1, num_rows * NUM_OF_PAPER // NUM_ROWS)
        self.originals: list[tuple[Row, Scene]] = []  # good rows that are posted again

    def fill(self) -> None:
        """Add all rows; the rows that are simply good come last but for those that refer to them."""
        self.add_leaks()
        self.add_lookalikes()
        self.add_local_changes()
        self.add_bad_captions()
        self.add_bad_pictures()
        self.add_shifted_albums()
        self.add_good_with_tails()
        self.add_papers()
        self.add_marked_goods()
        num_copies = self.num_of_change * (len(CHANGES) + 1)
        while len(self.crawl.rows) < self.num_rows - num_copies - self.num_of_kind:
            self.add_good()
        self.add_borrowed_captions()
        self.add_copies()

    # -----------------------------------------------------------------------------------------------------------------
    # Good rows

    def draw_language(self) -> str:
        return self.rng.choice(("zh", "en"))

    def draw_scene(self) -> Scene:
        """Take a photograph, hang one on a wall, or photograph goods."""
        share = self.rng.random()
        if share < PHOTO_SHARE:
            return describe_photo(self.photos.take(), self.rng)
        if share < PHOTO_SHARE + PRINT_SHARE:
            return self.studio.hang_photo(self.photos.take())
        return self.studio.make_any()

    def add(self, picture: Image.Image | bytes, caption: str, suffix: str = "", **truth: Any) -> Row:
        """Add a row as the site gives it out, with seller, category and address."""
        rng = self.rng
        suffix = suffix or rng.choices(("jpg", "webp", "png"), (86, 11, 3))[0]
        number = rng.randrange(10**8, 10**9)
        fields = {
            "url": f"https://pic{rng.randint(1, 6)}.jiuwu.example/{number}/{rng.getrandbits(32):08x}_b.{suffix}",
            "page": f"https://www.jiuwu.example/item/{number}.html",
            "seller": rng.choice(texts.USERS),
            "price": rng.choice((0, rng.randint(1, 60), rng.randint(5, 400), rng.randint(100, 9000))),
        }
        return self.crawl.add(picture, caption, suffix, fields=fields, **truth)

    def write_good_caption(self, scene: Scene, language: str) -> tuple[str, str]:
        """Write a good caption in one of the ways people write them, with the name of the way."""
        rng = self.rng
        style = rng.choices(
            ("plain", "all_caps", "lower_case", "slug", "with_emoji", "long", "thing_only"), (52, 6, 6, 4, 12, 12, 8)
        )[0]
        caption = scene.write_caption(language, rng)
        if style == "thing_only" and "thing" in scene.facts[language]:
            return scene.facts[language]["a_thing"], style
        if style == "with_emoji":
            return caption + rng.choice(("", " ")) + rng.choice(EMOJI.get(scene.topic, "👍📦")), style
        if style == "long":
            stop = "。" if language == "zh" else ". "
            aside = texts.GRAMMARS[language].expand("aside", scene.facts[language], rng)
            return caption.rstrip(" .。") + stop + aside, style
        if language == "en" and style == "all_caps":
            return caption.upper(), style
        if language == "en" and style == "lower_case":
            return caption.lower(), style
        if language == "en" and style == "slug":
            words = "".join(letter if letter.isalnum() else " " for letter in caption.lower()).split()
            return "-".join(words[:10]), style
        return caption, "plain"

    def add_good(self) -> None:
        scene = self.draw_scene()
        caption, style = self.write_good_caption(scene, self.draw_language())
        self.originals.append((self.add(scene.image, caption, kind=style), scene))

    def add_good_with_tails(self) -> None:
        """Add good captions with a head or tail that an editor cuts off."""
        for kind in texts.TAIL_KINDS:
            for _ in range(self.num_of_kind):
                scene, language = self.draw_scene(), self.draw_language()
                clean = scene.write_caption(language, self.rng).rstrip(" .。")
                words = texts.draw_tail(kind, language, scene.facts[language], self.rng)
                caption = words + clean if kind.endswith("_head") else clean + words
                self.add(scene.image, caption, kind=f"good_with_{kind}", clean=clean)

    def add_papers(self) -> None:
        """Add plans, labels, tickets, boards and other pictures of writing that their caption describes."""
        for name in PAPERS:
            for _ in range(self.num_of_paper):
                scene = getattr(self.studio, name)()
                kind = name.partition("_")[2]
                self.add(scene.image, scene.write_caption(self.draw_language(), self.rng), kind=kind)

    def add_marked_goods(self) -> None:
        """Add pictures that exist only with a small mark, which an editor keeps."""
        marks: dict[str, Callable[[], Scene]] = {
            "site_corner": self.draw_scene,
            "camera_date": self.draw_scene,
            "blurred_patch": lambda: self.studio.shoot_car().develop(self.rng),
        }
        for kind, make in marks.items():
            for _ in range(self.num_of_paper):
                scene = make()
                strength = 0.14 if kind == "blurred_patch" else 0.05
                image = self.repost.change(scene.image, kind, strength)
                self.add(image, scene.write_caption(self.draw_language(), self.rng), kind=f"only_with_{kind}")

    # -----------------------------------------------------------------------------------------------------------------
    # Good rows that resemble each other

    def add_lookalikes(self) -> None:
        makers = (
            self.make_furniture_from_side,
            self.make_room_from_side,
            self.make_vehicle_from_side,
            self.make_small_from_side,
            self.make_other_colour,
            self.make_same_elsewhere,
            self.make_one_more,
            self.make_doors_open,
            self.make_next_crop,
            self.make_next_room,
            self.make_other_plan,
            self.make_other_paper,
            self.make_same_words,
        )
        for make in makers:
            for _ in range(self.num_of_kind):
                first, second = make()
                language = self.draw_language()
                is_same_form = make == self.make_same_words or self.rng.random() < 0.3
                seed = self.rng.getrandbits(32)
                captions = []
                for scene in (first, second):
                    writer = random.Random(seed) if is_same_form else self.rng  # noqa: S311
                    captions.append(scene.write_caption(language, writer))
                kind = make.__name__.removeprefix("make_")
                row = self.add(first.image, captions[0], kind=f"first_of_{kind}")
                self.add(second.image, captions[1], kind=kind, like=row)

    def take_from_two_sides(self, shot: Shot) -> tuple[Scene, Scene]:
        return shot.develop(self.rng), shot.step_aside(self.rng).develop(self.rng)

    def make_furniture_from_side(self) -> tuple[Scene, Scene]:
        return self.take_from_two_sides(self.studio.shoot_furniture())

    def make_room_from_side(self) -> tuple[Scene, Scene]:
        return self.take_from_two_sides(self.studio.shoot_room())

    def make_vehicle_from_side(self) -> tuple[Scene, Scene]:
        shoot = self.rng.choice((self.studio.shoot_bicycle, self.studio.shoot_car))
        return self.take_from_two_sides(shoot())

    def make_small_from_side(self) -> tuple[Scene, Scene]:
        shoot = self.rng.choice((self.studio.shoot_small, self.studio.shoot_clothes))
        return self.take_from_two_sides(shoot())

    def repeat(self, shoot: Callable[..., Shot], *variants: dict[str, Any]) -> tuple[Scene, Scene]:
        """Photograph two things at the same place with the same camera."""
        at = self.rng.getstate()
        shots = []
        for variant in variants:
            self.rng.setstate(at)
            shots.append(shoot(**variant))
        return shots[0].develop(self.rng), shots[1].develop(self.rng)

    def make_other_colour(self) -> tuple[Scene, Scene]:
        rng, studio = self.rng, self.studio
        what, seed = rng.choice(("furniture", "clothes", "bicycle", "car")), rng.getrandbits(31)
        if what == "furniture":
            spec = studio.draw_furniture()
            names = rng.sample(texts.FURNITURE[spec.kind][2], 2)
            return self.repeat(studio.shoot_furniture, *({"spec": replace(spec, colour=name)} for name in names))
        if what == "clothes":
            garment, pattern = rng.choice(sorted(texts.GARMENTS)), rng.choice(sorted(texts.PATTERNS))
            names = rng.sample(texts.CLOTH_COLOURS, 4)
            common = {"garment": garment, "pattern": pattern, "seed": seed}
            variants = [{**common, "colours": colours} for colours in (tuple(names[:2]), tuple(names[2:]))]
            return self.repeat(studio.shoot_clothes, *variants)
        if what == "bicycle":
            names = rng.sample(texts.CLOTH_COLOURS, 2)
            return self.repeat(studio.shoot_bicycle, *({"colour": name, "seed": seed} for name in names))
        names = rng.sample(texts.CAR_COLOURS, 2)
        body = rng.choice(sorted(texts.CAR_MODELS))
        return self.repeat(studio.shoot_car, *({"colour": name, "body": body, "seed": seed} for name in names))

    def make_same_elsewhere(self) -> tuple[Scene, Scene]:
        """Make the same model in the homes of two sellers."""
        if self.rng.random() < 0.5:
            spec = self.studio.draw_furniture()
            shots = [self.studio.shoot_furniture(spec) for _ in range(2)]
        else:
            drawing = self.studio.cupboard.draw(self.rng)
            shots = [self.studio.shoot_small(drawing) for _ in range(2)]
        return shots[0].develop(self.rng), shots[1].develop(self.rng)

    def make_one_more(self) -> tuple[Scene, Scene]:
        """Make a piece with another number of chairs, drawers or seats."""
        # Of desks and refrigerators only lines on the front would differ.
        kinds = [kind for kind in sorted(COUNTS) if kind not in ("desk", "fridge")]
        spec = self.studio.draw_furniture(self.rng.choice(kinds))
        counts = self.rng.sample(COUNTS[spec.kind], 2)
        return self.repeat(self.studio.shoot_furniture, *({"spec": replace(spec, count=count)} for count in counts))

    def make_doors_open(self) -> tuple[Scene, Scene]:
        spec = self.studio.draw_furniture("wardrobe")
        variants = ({"spec": spec}, {"spec": replace(spec, is_open=True)})
        return self.repeat(self.studio.shoot_furniture, *variants)

    def make_next_crop(self) -> tuple[Scene, Scene]:
        """Take two neighbouring parts of a photograph; photographs run out, then two rooms follow."""
        crops = self.photos.take_series(2)
        if not crops:
            return self.make_next_room()
        return describe_photo(crops[0], self.rng), describe_photo(crops[1], self.rng)

    def make_next_room(self) -> tuple[Scene, Scene]:
        """Make two rooms of a flat, with the same walls and floor."""
        seed = self.rng.getrandbits(31)
        shots = [self.studio.shoot_room(seed) for _ in range(2)]
        return shots[0].develop(self.rng), shots[1].develop(self.rng)

    def make_other_plan(self) -> tuple[Scene, Scene]:
        style = self.rng.getrandbits(31)
        return self.studio.draw_plan(style), self.studio.draw_plan(style)

    def make_other_paper(self) -> tuple[Scene, Scene]:
        """Make two type plates, tickets or books of one design."""
        style, studio = self.rng.getrandbits(31), self.studio
        show = self.rng.choice((studio.show_type_plate, studio.show_ticket, studio.show_book))
        return show(style), show(style)

    def make_same_words(self) -> tuple[Scene, Scene]:
        """Make two things on one table whose captions differ in the thing alone."""
        sort = self.rng.choice(sorted(texts.SMALL_GOODS))
        first = second = self.studio.cupboard.draw(self.rng, sort)
        while second.name_en == first.name_en:
            second = self.studio.cupboard.draw(self.rng, sort)
        return self.repeat(self.studio.shoot_small, {"drawing": first}, {"drawing": second})

    # -----------------------------------------------------------------------------------------------------------------
    # Rows that differ in a detail

    def add_local_changes(self) -> None:
        for make in (self.change_label_size, self.change_ticket_seat, self.add_scratch):
            for _ in range(self.num_of_kind):
                first, second, captions = make()
                row = self.add(first.image, captions[0], kind=f"first_of_{make.__name__}")
                detail = "captions same" if captions[0] == captions[1] else "captions differ"
                self.add(second.image, captions[1], group="local", kind=make.__name__, of=row, detail=detail)

    def write_pair(self, first: Scene, second: Scene) -> tuple[str, str]:
        """Write captions of the same form for both."""
        language, seed = self.draw_language(), self.rng.getrandbits(32)
        captions = [scene.write_caption(language, random.Random(seed)) for scene in (first, second)]  # noqa: S311
        return captions[0], captions[1]

    def change_label_size(self) -> tuple[Scene, Scene, tuple[str, str]]:
        """Change the letter of a garment's size."""
        style, cotton = self.rng.getrandbits(31), self.rng.randrange(50, 100, 5)
        sizes, at = self.rng.sample(("S", "M", "L", "XL", "XS"), 2), self.rng.getrandbits(31)
        first, second = (self.redraw(at, self.studio.show_label, size, cotton, style) for size in sizes)
        return first, second, self.write_pair(first, second)

    def change_ticket_seat(self) -> tuple[Scene, Scene, tuple[str, str]]:
        """Change the number of a seat."""
        style, seat, at = self.rng.getrandbits(31), self.rng.randint(1, 50), self.rng.getrandbits(31)
        seats = (seat, seat + self.rng.randint(1, 6))
        first, second = (self.redraw(at, self.studio.show_ticket, style, number) for number in seats)
        return first, second, self.write_pair(first, second)

    def redraw(self, seed: int, show: Callable[..., Scene], *arguments: Any) -> Scene:
        """Make a scene with random numbers of its own, so that it can be made again with one change."""
        at = self.rng.getstate()
        self.rng.seed(seed)
        scene = show(*arguments)
        self.rng.setstate(at)
        return scene

    def add_scratch(self) -> tuple[Scene, Scene, tuple[str, str]]:
        """Scratch what is sold, of which half of the captions speak."""
        rng = self.rng
        # The middle of their pictures is a front, not the wall behind.
        spec = self.studio.draw_furniture(rng.choice(("drawers", "wardrobe", "fridge", "sofa")))
        scene = self.studio.shoot_furniture(spec).develop(rng)
        image = scene.image.copy()
        width, height = image.size
        x, y = width * rng.uniform(0.42, 0.58), height * rng.uniform(0.42, 0.62)
        points = [(x, y)]
        for _ in range(4):
            points.append((points[-1][0] + rng.uniform(3, 9), points[-1][1] + rng.uniform(-7, 7)))
        ImageDraw.Draw(image).line(points, fill=rng.choice(((236, 232, 224), (60, 44, 34))), width=2)
        language = self.draw_language()
        caption = scene.write_caption(language, rng).rstrip(" .。")
        other = caption
        if rng.random() < 0.5:
            other += "，正面有一道划痕" if language == "zh" else ", with a scratch on the front"
        return scene, replace(scene, image=image), (caption, other)

    # -----------------------------------------------------------------------------------------------------------------
    # Faults

    def add_bad_captions(self) -> None:
        for kind in texts.TEXT_KINDS:
            for _ in range(self.num_of_kind):
                scene = self.draw_scene()
                caption, detail = self.write_bad_caption(scene, kind), ""
                image = scene.image
                if self.rng.random() < SHARE_OF_SECOND_FAULTS / 2:
                    fault = self.rng.choice(IMAGE_KINDS)
                    image, detail = self.empty.make(fault, image), f"{kind} and {fault}"
                self.add(image, caption, group="text", kind=kind, detail=detail)

    def write_bad_caption(self, scene: Scene, kind: str) -> str:
        language = "zh" if kind == "mojibake" else self.draw_language()
        caption = scene.write_caption(language, self.rng)
        return texts.draw_bad_caption(kind, language, scene.facts[language], caption, self.rng)

    def add_bad_pictures(self) -> None:
        for kind in IMAGE_KINDS:
            for _ in range(self.num_of_kind):
                scene = self.draw_scene()
                caption, _ = self.write_good_caption(scene, self.draw_language())
                self.add(self.empty.make(kind, scene.image), caption, group="image", kind=kind)

    def add_shifted_albums(self) -> None:
        """Add a seller's four things whose texts moved on by one picture."""
        for _ in range(max(1, self.num_of_kind // 4)):
            scenes: list[Scene] = []
            while len(scenes) < 4:
                scene = self.studio.make_any()
                if not any(are_related(scene, other) for other in scenes):
                    scenes.append(scene)
            language = self.draw_language()
            captions = [scene.write_caption(language, self.rng) for scene in scenes]
            rows = [
                self.add(scenes[index].image, captions[index - 1], group="mismatch", kind="album_shifted")
                for index in range(4)
            ]
            for index, row in enumerate(rows):
                row.of = rows[index - 1]

    def add_borrowed_captions(self) -> None:
        """Add pictures under the text of another listing of another sort."""
        for _ in range(self.num_of_kind):
            scene = self.draw_scene()
            owner, owner_scene = self.rng.choice(self.originals)
            while are_related(owner_scene, scene):
                owner, owner_scene = self.rng.choice(self.originals)
            self.add(scene.image, owner.caption, group="mismatch", kind="text_of_other_listing", of=owner)

    def add_copies(self) -> None:
        """Add reposts: each change as often as the others, most pictures once, some more often."""
        rng = self.rng
        waiting = rng.sample(self.originals, len(self.originals))
        reposted: list[tuple[Row, Scene]] = []
        for kind, strengths in {**CHANGES, "same_file": ("",)}.items():
            for index in range(self.num_of_change):
                is_first = waiting and (not reposted or rng.random() < 0.75)
                original, scene = waiting.pop() if is_first else rng.choice(reposted)
                reposted.append((original, scene))
                self.add_copy(original, scene, kind, strengths[index % len(strengths)])

    def add_copy(self, original: Row, scene: Scene, kind: str, strength: Any) -> None:
        rng, detail = self.rng, ""
        caption = original.caption
        if rng.random() < 0.5:
            caption, _ = self.write_good_caption(scene, self.draw_language())
        if rng.random() < SHARE_OF_SECOND_FAULTS / 2:
            fault = rng.choice(texts.TEXT_KINDS)
            caption, detail = self.write_bad_caption(scene, fault), f"{kind} and {fault}"
        is_equal = kind == "same_file" or strength in EQUALLY_GOOD.get(kind, ())
        label = f"{kind}_{strength}".rstrip("_")
        truth = {"kind": label, "of": original, "keep": None if is_equal else original, "detail": detail}
        if kind == "same_file":
            self.add(original.image, caption, original.suffix, group="copy", **truth)
        else:
            changed = self.repost.change(original.open(), kind, strength)
            self.add(changed, caption, group="copy", **truth)

    # -----------------------------------------------------------------------------------------------------------------
    # The benchmark

    def add_leaks(self) -> None:
        """Add images of the test set, and good rows that resemble test images."""
        ways: dict[str, tuple[tuple[str, Any], ...]] = {
            "leak_as_it_is": (("saved_again", 90),),
            "leak_cropped_marked": (("crop", 0.1), ("site_corner", 0.07)),
        }
        for kind, changes in ways.items():
            for _ in range(self.num_of_kind):
                scene = self.draw_test_scene()
                caption = scene.write_caption(self.draw_language(), self.rng)
                test_row = self.crawl.add_test_image(scene.image, caption)
                image = scene.image
                for change, strength in changes:
                    image = self.repost.change(image, change, strength)
                if self.rng.random() < 0.5:
                    caption = scene.write_caption(self.draw_language(), self.rng)
                self.add(image, caption, group="leak", kind=kind, of=test_row)
        for _ in range(self.num_of_kind * 2):
            scene = self.draw_test_scene()
            self.crawl.add_test_image(scene.image, scene.write_caption(self.draw_language(), self.rng))
        for _ in range(self.num_of_kind):
            first, second = self.take_from_two_sides(self.test_studio.shoot_small())
            test_row = self.crawl.add_test_image(first.image, first.write_caption(self.draw_language(), self.rng))
            caption = second.write_caption(self.draw_language(), self.rng)
            self.add(second.image, caption, kind="like_test_image", like=test_row)

    def draw_test_scene(self) -> Scene:
        if self.rng.random() < 0.5:
            return describe_photo(self.photos.take(), self.rng)
        return self.test_studio.make_any()


def main() -> None:
    arguments = parse_arguments(__doc__, NUM_ROWS)
    rng = random.Random(arguments.seed)  # noqa: S311
    crawl, signs = Crawl(rng), Signs(arguments.font)
    cupboard = Cupboard(("emoji-train.tar", "emoji-val.tar"))
    # Three tenths of the rows take a photograph; smaller crops would show too little of what their file is named by.
    photos = PhotoSource(
        arguments.images, rng, arguments.rows * 3 // 10, 0.65, 1, 7, shows_enough, make_market_photograph
    )
    views = [photos.take().image for _ in range(max(8, arguments.rows * NUM_VIEWS // NUM_ROWS))]
    studio = Studio(cupboard, signs, rng, views)
    test_studio = Studio(Cupboard(("emoji-test.tar",)), signs, rng, views)
    repost = Repost(cupboard, signs, rng)
    empty = EmptyPictures(cupboard, signs, rng)
    market = Market(crawl, photos, studio, test_studio, repost, empty, arguments.rows)
    market.fill()
    crawl.write(arguments.output)
    print(f"{crawl.describe()} in {arguments.output}")
    print(f"photographs: {photos.num_crops:,} crops, {photos.num_made:,} made; signs: {signs.language}")


if __name__ == "__main__":
    main()
