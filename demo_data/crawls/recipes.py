"""Make the crawl of a cooking community, with what is true of every row.

    python demo_data/crawls/recipes.py --output runs/crawls/recipes --images photographs

People post recipes with a picture of each step, dishes, tools, markets and restaurants, half in Chinese, half in
English. Most captions describe their picture; others are numbers of steps, cooking times, comments, buttons and the
like. Dishes are recipes of layers that are laid into vessels on tables, lit and photographed from above. A fifth of the
pictures are photographs of trips: crops of those in --images; without it, or when they are used up, dishes.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import recipes_texts as texts
from making import Crawl, Photo, PhotoSource, Row, Signs, crop_margins, parse_arguments, resize_by
from PIL import Image
from recipes_dishes import COLOUR_DISHES, DISHES, DONENESS, HANDLES, Plan, Stove, draw_plan
from recipes_kitchen import PIECES, View, draw_view
from recipes_pictures import JARS, EmptyPictures, Kitchen, MadePhoto, Scene, read_food
from recipes_reposts import EQUALLY_GOOD, Repost

NUM_ROWS = 5000
NUM_OF_KIND = 40
NUM_OF_LOOKALIKES = 48  # pairs of each kind
NUM_OF_TAIL = 34  # good captions with each kind of head or tail
NUM_OF_PRINT = 30  # menus, charts and jars
PHOTO_SHARE = 0.22
SHARE_OF_SECOND_FAULTS = 0.1  # of copies and captions that are none; 5 % of all rows with a fault
STYLES = ("plain", "lower_case", "all_caps", "slug", "with_emoji", "long")
STYLE_WEIGHTS = (58, 6, 4, 4, 14, 14)
EMOJI = ("😋", "🍜", "🥢", "🔥", "🍳", "🥬", "🍅", "❤️", "✨", "🤤", "🍰", "👩‍🍳")


def show_same(first: Scene, second: Scene) -> bool:
    """Return whether the caption of one scene may be true of the other."""
    if first.topic == second.topic and first.topic in ("ingredients", "table", "interior", "menu", "chart", "photo"):
        return True
    if {first.topic, second.topic} & {"ingredients", "table"}:
        return bool({first.topic, second.topic} & {"one_thing", "market", "dish", "step"})
    for scene, other in ((first, second), (second, first)):
        if other.plan is None:
            continue
        # A wok is in a picture of what is cooked in it, and tomatoes in one of a dish with tomatoes.
        contents = (f"tool {other.plan.vessel}", *(f"piece {name}" for name in other.plan.dish.pieces))
        if scene.subject in contents:
            return True
    return first.subject == second.subject


class Community:
    """Adds the rows of the crawl.

    Args:
        crawl: takes the rows.
        photos: photographs, each given once.
        kitchen: makes the good pictures.
        test_kitchen: the same with drawings that only the benchmark has.
        repost: changes pictures.
        num_rows: about how many rows to add.
    """

    def __init__(
        self, crawl: Crawl, photos: PhotoSource, kitchen: Kitchen, test_kitchen: Kitchen, repost: Repost, num_rows: int
    ) -> None:
        self.crawl, self.photos, self.kitchen, self.test_kitchen = crawl, photos, kitchen, test_kitchen
        self.repost, self.rng, self.num_rows = repost, crawl.rng, num_rows
        self.empty = EmptyPictures(kitchen, self.draw_scene)
        self.originals: list[tuple[Row, Scene]] = []  # good rows that are posted again

    def scale(self, count: int) -> int:
        """Return how many rows of a kind there are when 5,000 rows have so many."""
        return max(1, round(count * self.num_rows / NUM_ROWS))

    def fill(self) -> None:
        """Add all rows; the rows that are simply good come last but for those that refer to them."""
        self.add_leaks()
        self.add_lookalikes()
        self.add_local_changes()
        self.add_bad_captions()
        self.add_bad_pictures()
        self.add_shifted_albums()
        self.add_good_with_tails()
        self.add_prints()
        num_borrowed = self.scale(NUM_OF_KIND) * (len(self.repost.changes) + 1)
        while len(self.crawl.rows) < self.num_rows - num_borrowed:
            self.add_good()
        self.add_borrowed_captions()
        self.add_copies()

    # -----------------------------------------------------------------------------------------------------------------
    # Good rows

    def draw_scene(self) -> Scene:
        if self.rng.random() < PHOTO_SHARE:
            return self.kitchen.show_photo(self.photos.take())
        return self.kitchen.make_any()

    def draw_language(self, scene: Scene) -> str:
        return self.rng.choice(scene.languages)

    def add(self, picture: Image.Image | bytes, caption: str, **truth: Any) -> Row:
        """Add a row as the site gives it out, with author, recipe and address."""
        rng = self.rng
        suffix = rng.choices(("jpg", "webp", "png"), (88, 10, 2))[0]
        number, width = rng.randrange(10**6, 10**9), rng.choice((640, 750, 1024))
        fields = {
            "url": f"https://i{rng.randint(1, 4)}.zaotai.example/{rng.getrandbits(64):016x}_{width}w.{suffix}",
            "page_url": f"https://www.zaotai.example/recipe/{number}/",
            "author": rng.choice(texts.USERS),
            "likes": int(rng.paretovariate(0.9)),
        }
        return self.crawl.add(picture, caption, suffix, fields=fields, **truth)

    def write_caption(self, scene: Scene, language: str = "") -> tuple[str, str]:
        """Write a good caption in one of the ways people write them, with the name of the way."""
        rng = self.rng
        language = language or self.draw_language(scene)
        caption = scene.write_caption(language, rng)
        style = rng.choices(STYLES, STYLE_WEIGHTS)[0]
        if style == "with_emoji":
            return caption + rng.choice(("", " ")) + rng.choice(EMOJI) * rng.choice((1, 1, 2)), style
        if style == "long" and scene.topic in ("dish", "step", "table", "variant"):
            stop = "。" if language == "zh" else ". "
            return caption.rstrip(" .。") + stop + rng.choice(texts.TEMPLATES[language]["aside"]), style
        if language == "en" and style == "lower_case":
            return caption.lower(), style
        if language == "en" and style == "all_caps":
            return caption.upper(), style
        if language == "en" and style == "slug":
            words = "".join(letter if letter.isalnum() else " " for letter in caption.lower()).split()
            return "-".join(words[:9]), style
        return caption, "plain"

    def add_good(self) -> None:
        scene = self.draw_scene()
        caption, style = self.write_caption(scene)
        self.originals.append((self.add(scene.image, caption, kind=f"{scene.topic}_{style}"), scene))

    def add_good_with_tails(self) -> None:
        """Add good captions with a head or tail that an editor cuts off."""
        rng = self.rng
        for kind in texts.TAILS:
            for _ in range(self.scale(NUM_OF_TAIL)):
                scene = self.kitchen.make_step() if kind == "step_head" and rng.random() < 0.6 else self.draw_scene()
                language = self.draw_language(scene)
                clean = scene.write_caption(language, rng).rstrip(" .。")
                words = texts.draw_tail(kind, language, rng)
                caption = words + clean if kind.endswith("_head") else clean + words
                self.add(scene.image, caption, kind=f"good_with_{kind}", clean=clean)

    def add_prints(self) -> None:
        """Add menus, charts and labelled jars that their caption describes."""
        makers = (self.kitchen.make_menu, self.kitchen.make_chart, self.kitchen.make_jar)
        for make in makers:
            for _ in range(self.scale(NUM_OF_PRINT)):
                scene = make()
                caption = scene.write_caption(self.draw_language(scene), self.rng)
                self.originals.append((self.add(scene.image, caption, kind=scene.topic), scene))

    # -----------------------------------------------------------------------------------------------------------------
    # Good rows that resemble each other

    def add_lookalikes(self) -> None:
        """Add pairs, each of a row and another one that resembles it by nature."""
        makers: dict[str, Callable[[], tuple[Scene, Scene]]] = {
            "other_frame": self.pair_frames,
            "other_portion": self.pair_portions,
            "same_plate": self.pair_plates,
            "next_step": self.pair_steps,
            "other_colour": self.pair_colours,
            "other_doneness": self.pair_doneness,
            "other_handle": self.pair_tools,
            "same_menu_form": lambda: self.pair_by_form(self.kitchen.make_menu),
            "same_chart_form": lambda: self.pair_by_form(self.kitchen.make_chart),
            "other_awning": self.pair_storefronts,
            "other_pile": self.pair_piles,
        }
        for kind, make in makers.items():
            for _ in range(self.scale(NUM_OF_LOOKALIKES)):
                first, second = make()
                language = self.draw_language(first)
                row = self.add(first.image, first.write_caption(language, self.rng), kind=f"like_{kind}")
                second_caption = second.write_caption(language, self.rng)
                second_row = self.add(second.image, second_caption, kind=f"like_{kind}", like=row)
                self.originals += [(row, first), (second_row, second)]
        for _ in range(self.scale(NUM_OF_LOOKALIKES)):
            crops = self.photos.take_series(2)
            if len(crops) == 2:
                scenes = [self.kitchen.show_photo(crop) for crop in crops]
                row = self.add(scenes[0].image, self.write_caption(scenes[0])[0], kind="like_part_of_photo")
                self.add(scenes[1].image, self.write_caption(scenes[1])[0], kind="like_part_of_photo", like=row)
        self._add_template_captions()

    def _add_template_captions(self) -> None:
        """Captions that differ in the dish only, as a site writes them for all of its recipes."""
        forms = ("{}的做法", "家常{}", "How to make {}", "{} recipe", "教你在家做{}", "Homemade {}")
        for _ in range(self.scale(NUM_OF_LOOKALIKES) // 2):
            form = self.rng.choice(forms)
            first, second = (
                self.kitchen.make_dish(draw_plan(self.rng, name)) for name in self.rng.sample(list(DISHES), 2)
            )
            language = "en" if form.replace("{}", "").isascii() else "zh"
            captions = [form.format(scene.facts[language]["dish"]) for scene in (first, second)]
            row = self.add(first.image, captions[0], kind="like_template_caption")
            self.add(second.image, captions[1], kind="like_template_caption", like=row)

    def pair_frames(self) -> tuple[Scene, Scene]:
        """The same dish from another side, in other light, after something was put next to it or taken away."""
        rng = self.rng
        first = self.kitchen.make_dish()
        plan, view = self.expect(first)
        second_view = replace(
            draw_view(rng),
            light=view.light + rng.uniform(1.2, 2.4),
            turn=view.turn + rng.choice((-1, 1)) * rng.uniform(25, 60),
            tilt=0.34 if view.tilt < 0.2 else 0.0,
            size=view.size,
        )
        side = "tea" if plan.side != "tea" else "chopsticks"
        return first, self.kitchen.make_dish(replace(plan, side=side), second_view)

    def pair_portions(self) -> tuple[Scene, Scene]:
        """The next portion of a dish in the same vessel on the same table."""
        names = [name for name, dish in DISHES.items() if any(layer[0] in ("heap", "tangle") for layer in dish.layers)]
        first = self.kitchen.make_dish(draw_plan(self.rng, self.rng.choice(names)))
        plan, view = self.expect(first)
        view = replace(view, turn=view.turn + self.rng.uniform(-8, 8), zoom=view.zoom * self.rng.uniform(0.94, 1.06))
        return first, self.kitchen.make_dish(replace(plan, second_seed=1), view)

    def pair_plates(self) -> tuple[Scene, Scene]:
        """Another dish on the same plate and table, from the same place."""
        rng = self.rng
        vessel = rng.choice(("plate", "bowl"))
        names = rng.sample([name for name, dish in DISHES.items() if vessel in dish.vessels], 2)
        plan = draw_plan(rng, names[0])
        colour = rng.choice(("white", "blue_white", "black", "celadon"))
        plan = replace(plan, vessel=vessel, colour=colour, garnish="")
        first = self.kitchen.make_dish(plan)
        return first, self.kitchen.make_dish(replace(plan, dish_name=names[1]), self.expect(first)[1])

    def pair_steps(self) -> tuple[Scene, Scene]:
        """Two steps of a recipe, the camera on its tripod; what is added is more than a sprinkle."""
        steps = []
        for name, dish in DISHES.items():
            steps += [(name, index) for index, layer in enumerate(dish.layers) if layer[0] != "sprinkle"]
        name, first_layers = self.rng.choice(steps)
        plan = replace(draw_plan(self.rng, name), side="", garnish="")
        first = self.kitchen.make_step(plan, None, first_layers)
        view = self.expect(first)[1]
        if first_layers + 1 < len(plan.dish.layers):
            return first, self.kitchen.make_step(plan, view, first_layers + 1)
        return first, self.kitchen.make_dish(plan, view)

    def pair_colours(self) -> tuple[Scene, Scene]:
        piece = self.rng.choice(list(COLOUR_DISHES))
        indices = self.rng.sample(range(len(COLOUR_DISHES[piece])), 2)
        first = self.kitchen.make_variant(piece, indices[0])
        return first, self.kitchen.make_variant(piece, indices[1], first)

    def pair_doneness(self) -> tuple[Scene, Scene]:
        name = self.rng.choice(list(DONENESS))
        indices = sorted(self.rng.sample(range(len(DONENESS[name])), 2))
        first = self.kitchen.make_doneness(name, indices[0])
        return first, self.kitchen.make_doneness(name, indices[1], first)

    def pair_tools(self) -> tuple[Scene, Scene]:
        """A tool with another handle, laid down again."""
        rng = self.rng
        tool = rng.choice(("knife", "chef_knife", "spatula", "ladle", "whisk", "rolling_pin", "scale", "spoons"))
        handles = rng.sample(list(HANDLES), 2)
        first = self.kitchen.make_tool(tool, handles[0])
        extra = first.extra
        return first, self.kitchen.make_tool(
            tool, handles[1], first.view, extra["surface"], extra["turn"] + rng.uniform(-0.1, 0.1)
        )

    def pair_by_form(self, make: Callable[..., Scene]) -> tuple[Scene, Scene]:
        first = make()
        return first, make(first)

    def pair_storefronts(self) -> tuple[Scene, Scene]:
        """Two branches of a restaurant: built alike, with another awning and another name."""
        rng = self.rng
        awnings = rng.sample(("green", "red", "blue", "yellow", "brown"), 2)
        names = rng.sample(range(len(texts.RESTAURANTS["zh"])), 2)
        first = self.kitchen.make_storefront(names[0], awnings[0])
        return first, self.kitchen.make_storefront(names[1], awnings[1], first.extra["seed"])

    def pair_piles(self) -> tuple[Scene, Scene]:
        """Two pictures of a heap of the same goods."""
        first = self.kitchen.make_market()
        return first, self.kitchen.make_market(first.subject.removeprefix("piece "))

    def expect(self, scene: Scene) -> tuple[Plan, View]:
        """Return plan and view of a scene that has both."""
        if not (scene.plan and scene.view):
            raise ValueError(f"scene of {scene.topic} without a plan or a view")
        return scene.plan, scene.view

    # -----------------------------------------------------------------------------------------------------------------
    # Rows that differ from another in a detail

    def add_local_changes(self) -> None:
        makers = {"sprig_added": self.add_sprig, "one_missing": self.take_one_away, "label_letter": self.change_letter}
        for kind, make in makers.items():
            for _ in range(self.scale(NUM_OF_KIND)):
                first, second = make()
                language = self.draw_language(first)
                caption = first.write_caption(language, self.rng)
                row = self.add(first.image, caption, kind=f"of_{kind}")
                is_same = self.rng.random() < 0.5
                other = caption if is_same else second.write_caption(language, self.rng)
                detail = "captions the same" if other == caption else "captions differ"
                self.add(second.image, other, group="local", kind=kind, of=row, detail=detail)

    def add_sprig(self) -> tuple[Scene, Scene]:
        plan = replace(draw_plan(self.rng), garnish="")
        first = self.kitchen.make_dish(plan)
        second = self.kitchen.make_dish(replace(plan, num_sprigs=1), first.view)
        for language, name in (("zh", PIECES["coriander"].zh), ("en", PIECES["coriander"].en)):
            second.facts[language]["garnish"] = name
        return first, second

    def take_one_away(self) -> tuple[Scene, Scene]:
        names = [name for name, dish in DISHES.items() if dish.layers[0][0] == "ring" and dish.layers[0][2] >= 5]
        plan = replace(draw_plan(self.rng, self.rng.choice(names)), garnish="")
        first = self.kitchen.make_dish(plan)
        return first, self.kitchen.make_dish(replace(plan, skip=self.rng.randint(1, 4)), first.view)

    def change_letter(self) -> tuple[Scene, Scene]:
        """Another letter on the label of a jar, as of the first and second batch."""
        index, letters = self.rng.randrange(len(JARS)), self.rng.sample("ABCDEFGHKMNPRSTUX", 2)
        first = self.kitchen.make_jar(index, letters[0])
        return first, self.kitchen.make_jar(index, letters[1], first.extra["seed"], first.view)

    # -----------------------------------------------------------------------------------------------------------------
    # Faults

    def add_bad_captions(self) -> None:
        rng = self.rng
        for kind in texts.TEXT_KINDS:
            for _ in range(self.scale(NUM_OF_KIND)):
                scene = self.draw_scene()
                # Damage of letters needs a caption with letters to lose.
                needs_chinese = kind in ("mojibake_gbk", "mojibake_latin1", "lost_letters")
                while needs_chinese and "zh" not in scene.languages:
                    scene = self.draw_scene()
                language = "zh" if needs_chinese else self.draw_language(scene)
                caption = self.write_bad_caption(kind, language, scene)
                image, detail = scene.image, ""
                if rng.random() < SHARE_OF_SECOND_FAULTS:
                    image_kind = rng.choice(("collage_2x2", "qr_code", "placeholder"))
                    image, detail = self.empty.make(image_kind), f"{kind} and image {image_kind}"
                self.add(image, caption, group="text", kind=kind, detail=detail)

    def write_bad_caption(self, kind: str, language: str, scene: Scene) -> str:
        facts = scene.facts[language]
        dish = (
            facts.get("dish") or facts.get("thing") or facts.get("tool") or ("红烧肉" if language == "zh" else "pasta")
        )
        return texts.write_bad_caption(kind, language, scene.write_caption(language, self.rng), dish, self.rng)

    def add_bad_pictures(self) -> None:
        """Add pictures without content, under captions of what they were meant to show."""
        for kind in self.empty.makers:
            for _ in range(self.scale(NUM_OF_KIND)):
                scene = self.draw_scene()
                caption = scene.write_caption(self.draw_language(scene), self.rng)
                self.add(self.empty.make(kind), caption, group="image", kind=kind)

    def add_shifted_albums(self) -> None:
        """Add albums in which every caption belongs to the next picture."""
        for _ in range(self.scale(NUM_OF_KIND) // 5 or 1):
            scenes: list[Scene] = []
            while len(scenes) < 5:
                scene = self.draw_scene()
                if not any(show_same(scene, other) for other in scenes):
                    scenes.append(scene)
            captions = [scene.write_caption(self.draw_language(scene), self.rng) for scene in scenes]
            rows = []
            for index, scene in enumerate(scenes):
                caption = captions[(index + 1) % 5]
                rows.append(self.add(scene.image, caption, group="mismatch", kind="shifted_album"))
            for index, row in enumerate(rows):
                row.of = rows[(index + 1) % 5]

    def add_borrowed_captions(self) -> None:
        """Add pictures under the caption of another recipe."""
        for _ in range(self.scale(NUM_OF_KIND)):
            scene = self.draw_scene()
            row, lender = self.rng.choice(self.originals)
            while show_same(scene, lender):
                row, lender = self.rng.choice(self.originals)
            self.add(scene.image, row.caption, group="mismatch", kind="borrowed_caption", of=row)

    def add_copies(self) -> None:
        """Add pictures posted again, under the caption of the original, another one or none."""
        rng = self.rng
        for kind, change in self.repost.changes.items():
            for _ in range(self.scale(NUM_OF_KIND)):
                row, scene = rng.choice(self.originals)
                picture, detail = change(row.open()), ""
                caption = row.caption if rng.random() < 0.4 else self.write_caption(scene)[0]
                if rng.random() < SHARE_OF_SECOND_FAULTS / 2:
                    text_kind = rng.choice(("hashtags_only", "rating_comment", "step_number"))
                    caption = self.write_bad_caption(text_kind, self.draw_language(scene), scene)
                    detail = f"{kind} and text {text_kind}"
                elif rng.random() < SHARE_OF_SECOND_FAULTS / 2:
                    second = rng.choice([name for name in ("corner_mark", "crop_20", "step_badge") if name != kind])
                    picture, detail = self.repost.changes[second](picture), f"{kind} and {second}"
                is_equal = kind in EQUALLY_GOOD and " and corner" not in detail and " and crop" not in detail
                is_equal = is_equal and " and step_badge" not in detail
                keep = None if is_equal else row
                self.add(picture, caption, group="copy", kind=kind, of=row, keep=keep, detail=detail)
                if keep:
                    row.keep = row

    def add_leaks(self) -> None:
        """Add pictures of the benchmark's test set, as they are and changed, and others that resemble them."""
        changes: dict[str, Callable[[Image.Image], Image.Image]] = {
            "leak_exact": lambda image: image,
            "leak_resized_0.6": lambda image: resize_by(image, 0.6),
            "leak_crop_12": lambda image: crop_margins(image, 0.12, self.rng),
            "leak_corner_mark": self.repost.mark_corner,
        }
        for kind, change in changes.items():
            for _ in range(self.scale(NUM_OF_KIND)):
                scene = self.draw_test_scene()
                test_row = self.crawl.add_test_image(scene.image, self.write_caption(scene)[0])
                caption = self.write_caption(scene)[0]
                self.add(change(test_row.open()), caption, group="leak", kind=kind, of=test_row)
        for _ in range(self.scale(NUM_OF_LOOKALIKES)):
            first, second = self.rng.choice(
                (self.pair_frames, self.pair_portions, self.pair_plates, self.pair_colours)
            )()
            test_row = self.crawl.add_test_image(first.image, self.write_caption(first)[0])
            self.add(second.image, self.write_caption(second)[0], kind="like_test_image", like=test_row)

    def draw_test_scene(self) -> Scene:
        if self.rng.random() < PHOTO_SHARE:
            return self.kitchen.show_photo(self.photos.take())
        return self.test_kitchen.make_any()


def main() -> None:
    arguments = parse_arguments(__doc__, NUM_ROWS)
    rng = random.Random(arguments.seed)  # noqa: S311
    crawl, signs, stove = Crawl(rng), Signs(arguments.font), Stove(arguments.seed)
    food, stickers = read_food(("emoji-train.tar", "emoji-val.tar"))
    kitchen = Kitchen(stove, signs, rng, food)
    test_kitchen = Kitchen(stove, signs, rng, read_food(("emoji-test.tar",))[0])

    def make_photo(dice: random.Random, is_subject: bool) -> Photo:
        scene = kitchen.make_dish()
        return MadePhoto(scene.image, "dish", scene)

    # Photographs are reduced: of larger ones a crop shows too little of what its file is named by.
    num_photos = round(arguments.rows * PHOTO_SHARE)
    photos = PhotoSource(arguments.images, rng, num_photos, 0.55, 0.9, 7, make=make_photo)
    repost = Repost(signs, rng, stickers)
    community = Community(crawl, photos, kitchen, test_kitchen, repost, arguments.rows)
    community.fill()
    crawl.write(arguments.output)
    print(f"{crawl.describe()} in {arguments.output}")
    print(f"photographs: {photos.num_crops:,} crops, {photos.num_made:,} made; signs: {signs.language}")


if __name__ == "__main__":
    main()
