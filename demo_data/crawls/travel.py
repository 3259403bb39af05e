"""Make the crawl of a travel and food community, with what is true of every row.

    python demo_data/crawls/travel.py --output runs/crawls/travel --images photographs

People post photographs of places, dishes, rooms, animals and friends, menus, tickets and pages of their journals, half
of them in Chinese, half in English. Others repost them through filters, screenshots and marks; captions are hashtags,
questions or reviews; an album has its captions shifted by one. Photographs are crops of those in --images; without it,
or when they are used up, views, lanterns, fruit, flowers and fireworks are painted with noise.
"""

import random
from dataclasses import replace
from typing import Any

import travel_texts as texts
from making import (
    WHITE,
    Crawl,
    PhotoSource,
    Row,
    Signs,
    desaturate,
    name_colour,
    parse_arguments,
    paste_drawing,
    shift_hue,
)
from PIL import Image, ImageOps
from travel_pictures import (
    ALTERATIONS,
    EQUALLY_GOOD,
    FAULT_KINDS,
    ROOM_COLOURS,
    Darkroom,
    Facts,
    FaultyPictures,
    Scene,
    Shelf,
    Studio,
    describe_photo,
    draw_view,
    join_facts,
    make_photograph,
    state,
)

# Forty rows of each of the eighty kinds of faults are as many as a share of them needs; the good rows are some more.
NUM_ROWS = 7000
NUM_OF_KIND = 42
PHOTO_SHARE = 0.55  # of pictures that are not made for what their kind needs
SHARE_OF_SECOND_FAULTS = 0.1  # of copies and captions that are none; 5 % of all rows with a fault
EMOJI_OF_TOPIC = {
    "dish": "😋🍴🤤",
    "eaten": "😋☕️",
    "nature": "🏔🌄🍃",
    "city_view": "🏙✨",
    "animal": "🐾❤️",
    "room": "🛏🏨",
}


class Community:
    """Adds the rows of the crawl.

    Args:
        crawl: takes the rows.
        photos: photographs, each given once.
        studio: composes scenes of the training and validation drawings.
        test_studio: composes scenes of drawings that only the benchmark has.
        darkroom: alters pictures for reposts.
        faulty: makes pictures without content.
        num_rows: about how many rows to add.
    """

    def __init__(
        self,
        crawl: Crawl,
        photos: PhotoSource,
        studio: Studio,
        test_studio: Studio,
        darkroom: Darkroom,
        faulty: FaultyPictures,
        num_rows: int,
    ) -> None:
        self.crawl, self.photos, self.studio, self.test_studio = crawl, photos, studio, test_studio
        self.darkroom, self.faulty = darkroom, faulty
        self.rng = crawl.rng
        self.num_rows = num_rows
        self.num_of_kind = max(1, num_rows * NUM_OF_KIND // NUM_ROWS)
        self.originals: list[tuple[Row, str, Facts]] = []  # good rows that people repost, with topic and facts

    def fill(self) -> None:
        """Add all rows; the rows that are simply good come last but for those that refer to them."""
        self.add_leaks()
        self.add_lookalikes()
        self.add_local_changes()
        self.add_bad_captions()
        self.add_bad_pictures()
        self.add_albums()
        self.add_good_with_tails()
        self.add_rare_forms()
        num_copies = self.num_of_kind * len(ALTERATIONS)
        num_stolen = self.num_of_kind
        while len(self.crawl.rows) < self.num_rows - num_copies - num_stolen:
            self.add_good()
        self.add_stolen_captions(num_stolen)
        self.add_copies()

    # -----------------------------------------------------------------------------------------------------------------
    # Good rows

    def draw_language(self) -> str:
        return self.rng.choice(("zh", "en"))

    def draw_scene(self) -> Scene:
        """Take a photograph or compose a scene."""
        if self.rng.random() < PHOTO_SHARE:
            return self.take_photo()
        return self.studio.make_any()

    def make_scene(self) -> Scene:
        """Compose a scene or paint a photograph, which leaves those of the folder to rows whose pictures matter."""
        if self.rng.random() < PHOTO_SHARE:
            return describe_photo(make_photograph(self.rng), texts.draw_facts(self.rng))
        return self.studio.make_any()

    def take_photo(self) -> Scene:
        return describe_photo(self.photos.take(), texts.draw_facts(self.rng))

    def add(self, scene: Scene, caption: str, **truth: Any) -> Row:
        """Add a row as the site gives it out, with a user and an address."""
        rng = self.rng
        suffix = rng.choices(("jpg", "webp", "png"), (88, 9, 3))[0]
        return self.add_picture(scene.image, caption, suffix, **truth)

    def add_picture(self, picture: Image.Image | bytes, caption: str, suffix: str = "jpg", **truth: Any) -> Row:
        rng = self.rng
        fields = {
            "url": f"https://img.yituxing.example/{rng.randint(2009, 2023)}/{rng.getrandbits(40):010x}.{suffix}",
            "user": rng.choice(texts.USERS),
            "likes": int(rng.expovariate(1 / 40)),
        }
        return self.crawl.add(picture, caption, suffix, fields=fields, **truth)

    def write_good_caption(self, scene: Scene, language: str) -> tuple[str, str]:
        """Write a good caption in one of the ways people write them, with the name of the way."""
        rng = self.rng
        style = rng.choices(
            ("plain", "short_name", "all_caps", "slug", "with_emoji", "mixed_language", "long"),
            (56, 7, 3, 3, 14, 5, 12),
        )[0]
        if style in ("all_caps", "slug") and language == "zh":
            style = "plain"
        facts = scene.facts[language]
        if style == "short_name" and "thing" in facts:
            return facts["thing" if language == "zh" else "a_thing"], style
        if style == "mixed_language" and language == "zh":
            city = scene.facts["en"]["city"]
            mixed = replace(scene, facts=join_facts(scene.facts, state(city=(city, city))))
            caption = mixed.write_caption(language, rng)
            return caption, style if city in caption else "plain"
        caption = scene.write_caption(language, rng)
        if style == "all_caps":
            return caption.upper(), style
        if style == "slug":
            words = "".join(letter if letter.isalnum() else " " for letter in caption.lower()).split()
            return "-".join(words[:9]), style
        if style == "with_emoji":
            symbol = rng.choice(EMOJI_OF_TOPIC.get(scene.topic, "😊✨📍").replace("️", ""))
            return caption + rng.choice(("", " ")) + symbol * rng.choice((1, 1, 2)), style
        if style == "long":
            asides = replace(scene, topic="aside")
            stop = "。" if language == "zh" else ". "
            return caption.rstrip(" .。") + stop + asides.write_caption(language, rng), style
        return caption, "plain"

    def add_good(self) -> None:
        scene = self.draw_scene()
        caption, style = self.write_good_caption(scene, self.draw_language())
        row = self.add(scene, caption, kind=style)
        self.originals.append((row, scene.topic, scene.facts))

    def add_good_with_tails(self) -> None:
        """Add good captions with a head or tail that an editor cuts off."""
        for kind in texts.TAIL_KINDS:
            for _ in range(self.num_of_kind):
                scene, language = self.make_scene(), self.draw_language()
                clean = scene.write_caption(language, self.rng).rstrip(" .。")
                head, tail = texts.draw_tail(kind, language, scene.facts[language], self.rng)
                self.add(scene, head + clean + tail, kind=f"good_with_{kind}", clean=clean)

    def add_rare_forms(self) -> None:
        """Add good rows of forms that are rare: very wide and tall views, black and white, two dishes side by side."""
        rng = self.rng
        for _ in range(self.num_of_kind):
            view = replace(draw_view(rng), size=rng.choice(((960, 280), (840, 260), (270, 560))))
            self.add_with_caption(self.show_view(view, texts.draw_facts(rng)), kind="panorama")

            photo = self.take_photo()
            self.add_with_caption(replace(photo, image=desaturate(photo.image)), kind="black_and_white")

            left, right = self.make_plain_dish(), self.make_plain_dish()
            image = Image.new("RGB", (484, 300), WHITE)
            image.paste(ImageOps.fit(left.image, (240, 300)), (0, 0))
            image.paste(ImageOps.fit(right.image, (240, 300)), (244, 0))
            second = state(extra=(right.facts["zh"]["a_thing"], right.facts["en"]["a_thing"]))
            self.add_with_caption(Scene(image, "diptych", join_facts(left.facts, second)), kind="diptych")

    def add_with_caption(self, scene: Scene, **truth: Any) -> Row:
        return self.add(scene, scene.write_caption(self.draw_language(), self.rng), **truth)

    def make_plain_dish(self) -> Scene:
        """Compose a dish that has nothing beside it."""
        while True:
            scene = self.studio.compose_dish()
            if "extra" not in scene.facts["zh"]:
                return scene

    # -----------------------------------------------------------------------------------------------------------------
    # Good rows that resemble each other

    def add_lookalikes(self) -> None:
        makers = (
            self.make_burst, self.make_same_dish, self.make_other_time, self.make_other_viewpoint, self.make_other_room,
            self.make_other_menu, self.make_other_colour, self.make_other_postcard, self.make_other_ticket,
            self.make_other_map,
            self.make_next_crop, self.make_same_words,
        )  # fmt: skip
        for make in makers:
            for _ in range(self.num_of_kind):
                first, second = make()
                language = self.draw_language()
                # Captions of the same form, which differ in the words that count.
                is_same_form = make == self.make_same_words or self.rng.random() < 0.25
                seed = self.rng.getrandbits(32)
                captions = []
                for scene in (first, second):
                    writer = random.Random(seed) if is_same_form else self.rng  # noqa: S311
                    captions.append(scene.write_caption(language, writer))
                kind = make.__name__.removeprefix("make_")
                row = self.add(first, captions[0], kind=f"first_of_{kind}")
                self.add(second, captions[1], kind=kind, like=row)

    def make_burst(self) -> tuple[Scene, Scene]:
        """Make two shots of a scene: the subject and the camera have moved."""
        rng = self.rng
        category = rng.choice(("person", "animal", "vehicle"))
        view = replace(draw_view(rng), motif=rng.choice(("mountains", "sea", "skyline")))
        drawing, entry = self.studio.shelf.draw(category, rng)
        extra, facts = self.studio.shelf.draw("person", rng), texts.draw_facts(rng)
        first = self.studio.compose_outdoors(category, view, (drawing, entry), 0.34, facts, extra)
        moved = replace(view, step=rng.choice((-70, -55, 55, 70)), weather=1)
        second = self.studio.compose_outdoors(category, moved, (drawing, entry), 0.68, facts, extra)
        return first, second

    def make_same_dish(self) -> tuple[Scene, Scene]:
        food = self.studio.shelf.draw("food", self.rng)
        return self.studio.compose_dish(food), self.studio.compose_dish(food)

    def make_other_time(self) -> tuple[Scene, Scene]:
        """Make a view at two times of day, under other clouds."""
        view, facts = draw_view(self.rng), texts.draw_facts(self.rng)
        skies = self.rng.sample(("noon", "dusk", "gold", "night", "grey"), 2)
        views = [replace(view, sky=sky, weather=weather) for weather, sky in enumerate(skies)]
        return self.show_view(views[0], facts), self.show_view(views[1], facts)

    def make_other_viewpoint(self) -> tuple[Scene, Scene]:
        """Make a view from two places: what is near has moved against what is far."""
        view, facts = draw_view(self.rng), texts.draw_facts(self.rng)
        view = replace(view, motif=self.rng.choice(("mountains", "skyline", "forest")))
        step = self.rng.choice((-80, -65, 65, 80))
        return self.show_view(view, facts), self.show_view(replace(view, step=step, weather=1), facts)

    def show_view(self, view: Any, facts: Facts) -> Scene:
        zh, en, topic = view.name()
        return Scene(view.paint(), topic, join_facts(facts, texts.name_thing("", zh, en)), is_photo=True)

    def make_other_room(self) -> tuple[Scene, Scene]:
        """Make two rooms of a hotel that differ in their colours."""
        plan, outside, facts = (
            self.rng.getrandbits(31),
            replace(draw_view(self.rng), size=(240, 180)),
            texts.draw_facts(self.rng),
        )
        wall, bed, other_wall, other_bed = self.rng.sample(sorted(ROOM_COLOURS), 4)
        first = self.studio.compose_room(plan, wall, bed, outside, facts)
        return first, self.studio.compose_room(plan, other_wall, other_bed, replace(outside, weather=1), facts)

    def make_other_menu(self) -> tuple[Scene, Scene]:
        """Make two pages of a menu: other dishes in the same design."""
        rng, style, facts = self.rng, self.rng.getrandbits(31), texts.draw_facts(self.rng)
        pages = []
        count = rng.randint(3, 5)
        for _ in range(2):
            dishes = [self.studio.shelf.draw("food", rng) for _ in range(count)]
            pages.append(self.studio.compose_menu(style, dishes, [rng.randint(6, 99) for _ in dishes], facts))
        return pages[0], pages[1]

    def make_other_colour(self) -> tuple[Scene, Scene]:
        """Make a souvenir in two colours."""
        while True:
            drawing, entry = self.studio.shelf.draw("souvenir", self.rng)
            recoloured = shift_hue(drawing, self.rng.choice((90, 130, 180, 230)))
            if name_colour(drawing) != name_colour(recoloured):
                break
        facts, table = texts.draw_facts(self.rng), self.studio.make_table((420, 360))
        first = self.studio.compose_souvenirs((drawing, entry), facts, table)
        return first, self.studio.compose_souvenirs((recoloured, entry), facts, table)

    def make_other_postcard(self) -> tuple[Scene, Scene]:
        return self.make_cards("postcard")

    def make_other_ticket(self) -> tuple[Scene, Scene]:
        return self.make_cards("ticket")

    def make_cards(self, topic: str) -> tuple[Scene, Scene]:
        """Make two cards of a series: other subjects, cities and dates in the same design."""
        style, scenes = self.rng.getrandbits(31), []
        first = self.studio.shelf.draw("sight", self.rng)
        second = first
        while second[1] == first[1]:
            second = self.studio.shelf.draw("sight", self.rng)
        for subject in (first, second):
            scenes.append(self.studio.compose_card(topic, style, subject, texts.draw_facts(self.rng)))
        return scenes[0], scenes[1]

    def make_other_map(self) -> tuple[Scene, Scene]:
        rng, style, facts = self.rng, self.rng.getrandbits(31), texts.draw_facts(self.rng)
        scenes = []
        for _ in range(2):
            stops = [self.studio.shelf.draw(rng.choice(("sight", "food", "animal")), rng) for _ in range(4)]
            scenes.append(self.studio.compose_map(style, stops, facts))
        return scenes[0], scenes[1]

    def make_next_crop(self) -> tuple[Scene, Scene]:
        """Take two disjoint crops of a photograph, or two views from one place, looking the other way."""
        crops = self.photos.take_series(2)
        facts = texts.draw_facts(self.rng)
        if crops:
            return describe_photo(crops[0], facts), describe_photo(crops[1], facts)
        view = draw_view(self.rng)
        return self.show_view(view, facts), self.show_view(replace(view, seed=view.seed + 1), facts)

    def make_same_words(self) -> tuple[Scene, Scene]:
        """Make two dishes whose captions differ in the name of the dish alone."""
        facts = texts.draw_facts(self.rng)
        scenes = [self.studio.compose_dish(facts=facts) for _ in range(2)]
        for index, scene in enumerate(scenes):
            # Which sentences are possible depends on whether something lies beside the dish.
            facts_without_extra = {
                language: {name: words for name, words in facts.items() if name != "extra"}
                for language, facts in scene.facts.items()
            }
            scenes[index] = replace(scene, facts=facts_without_extra)
        return scenes[0], scenes[1]

    # -----------------------------------------------------------------------------------------------------------------
    # Rows that differ in a detail

    def add_local_changes(self) -> None:
        makers = (
            self.change_title, self.change_price, self.change_number, self.add_object, self.recolour_object,
            self.add_small_sticker, self.add_pin,
        )  # fmt: skip
        for change in makers:
            for _ in range(self.num_of_kind):
                change(change.__name__)

    def add_local_pair(self, kind: str, first: Scene, second: Scene, captions: tuple[str, str]) -> None:
        row = self.add(first, captions[0], kind=f"first_of_{kind}")
        detail = "captions same" if captions[0] == captions[1] else "captions differ"
        self.add(second, captions[1], group="local", kind=kind, of=row, detail=detail)

    def write_pair(self, first: Scene, second: Scene) -> tuple[str, str]:
        """Write captions of the same form for both."""
        language, seed = self.draw_language(), self.rng.getrandbits(32)
        captions = [scene.write_caption(language, random.Random(seed)) for scene in (first, second)]  # noqa: S311
        return captions[0], captions[1]

    def change_title(self, kind: str) -> None:
        """Change the words on the page of a journal."""
        style, subject, facts = (
            self.rng.getrandbits(31),
            self.studio.shelf.draw("food", self.rng),
            texts.draw_facts(self.rng),
        )
        titles = zip(self.rng.sample(texts.ZH_TITLES, 2), self.rng.sample(texts.EN_TITLES, 2), strict=True)
        scenes = [
            self.studio.compose_card("journal", style, subject, join_facts(facts, state(title=title)))
            for title in titles
        ]
        self.add_local_pair(kind, scenes[0], scenes[1], self.write_pair(scenes[0], scenes[1]))

    def change_price(self, kind: str) -> None:
        """Change the first price of a menu."""
        rng, style, facts = self.rng, self.rng.getrandbits(31), texts.draw_facts(self.rng)
        dishes = [self.studio.shelf.draw("food", rng) for _ in range(4)]
        prices = [rng.randint(6, 99) for _ in dishes]
        raised = [prices[0] + rng.choice((2, 3, 5, 10)), *prices[1:]]
        scenes = [self.studio.compose_menu(style, dishes, listed, facts) for listed in (prices, raised)]
        self.add_local_pair(kind, scenes[0], scenes[1], self.write_pair(scenes[0], scenes[1]))

    def change_number(self, kind: str) -> None:
        """Change the number of a ticket."""
        style, subject, facts = (
            self.rng.getrandbits(31),
            self.studio.shelf.draw("sight", self.rng),
            texts.draw_facts(self.rng),
        )
        number = f"{int(facts['zh']['number']) + self.rng.randint(1, 40):06d}"
        changed = join_facts(facts, state(number=(number, number)))
        scenes = [self.studio.compose_card("ticket", style, subject, words) for words in (facts, changed)]
        self.add_local_pair(kind, scenes[0], scenes[1], self.write_pair(scenes[0], scenes[1]))

    def add_object(self, kind: str) -> None:
        """Put one more thing into a scene, of which its caption speaks."""
        scene = self.make_plain_scene()
        drawing, entry = self.studio.shelf.draw("drink", self.rng)
        image = scene.image.copy()
        paste_drawing(image, drawing, 64, (image.width - 46, image.height - 46))
        more = replace(scene, image=image, facts=join_facts(scene.facts, state(extra=texts.phrase_both(entry))))
        language = self.draw_language()
        caption = scene.write_caption(language, self.rng).rstrip(" .。！!~")
        extra = more.facts[language]["extra"]
        self.add_local_pair(
            kind,
            scene,
            more,
            (caption, caption + (f"，旁边多了{extra}" if language == "zh" else f", now with {extra}")),
        )

    def recolour_object(self, kind: str) -> None:
        """Turn the hue of a small thing in a scene."""
        scene = self.make_plain_scene()
        while True:
            drawing, _ = self.studio.shelf.draw("souvenir", self.rng)
            recoloured = shift_hue(drawing, self.rng.choice((90, 140, 200)))
            if name_colour(drawing) != name_colour(recoloured):
                break
        scenes = []
        at = (self.rng.choice((44, scene.image.width - 44)), self.rng.choice((44, scene.image.height - 44)))
        for small in (drawing, recoloured):
            image = scene.image.copy()
            paste_drawing(image, small, 60, at)
            scenes.append(replace(scene, image=image))
        caption = scene.write_caption(self.draw_language(), self.rng)
        self.add_local_pair(kind, scenes[0], scenes[1], (caption, caption))

    def add_small_sticker(self, kind: str) -> None:
        """Put one small sticker on a picture."""
        scene = self.draw_scene()
        image = scene.image.copy()
        sticker, _ = self.studio.shelf.draw("sticker", self.rng)
        side = max(28, min(image.size) // 9)
        at = (self.rng.randint(side, image.width - side), self.rng.randint(side, image.height - side))
        paste_drawing(image, sticker, side, at, shadow=0.15)
        language = self.draw_language()
        caption = scene.write_caption(language, self.rng)
        second = caption if self.rng.random() < 0.5 else scene.write_caption(language, self.rng)
        self.add_local_pair(kind, scene, replace(scene, image=image), (caption, second))

    def add_pin(self, kind: str) -> None:
        """Write one small mark into the middle of a picture."""
        scene = self.draw_scene()
        image = scene.image.copy()
        text = self.rng.choice(
            (
                "@mia",
                "NO.1",
                self.studio.signs.choose("到此一游", "I was here"),
                self.studio.signs.choose("好吃", "yum"),
                "<3",
            )
        )
        at = (image.width * self.rng.uniform(0.3, 0.7), image.height * self.rng.uniform(0.3, 0.7))
        self.studio.signs.write(image, text, at, 20, (255, 255, 255))
        caption = scene.write_caption(self.draw_language(), self.rng)
        self.add_local_pair(kind, scene, replace(scene, image=image), (caption, caption))

    def make_plain_scene(self) -> Scene:
        """Compose a dish or a pet that has nothing beside it."""
        return self.make_plain_dish() if self.rng.random() < 0.6 else self.studio.compose_pet()

    # -----------------------------------------------------------------------------------------------------------------
    # Faults

    def add_bad_captions(self) -> None:
        for kind in texts.TEXT_KINDS:
            for _ in range(self.num_of_kind):
                scene = self.make_scene()
                detail = ""
                if self.rng.random() < SHARE_OF_SECOND_FAULTS / 2:
                    fault = self.rng.choice(FAULT_KINDS)
                    scene = replace(scene, image=self.faulty.make(fault, scene.image))
                    detail = f"{kind} and {fault}"
                self.add(scene, self.write_bad_caption(scene, kind), group="text", kind=kind, detail=detail)

    def write_bad_caption(self, scene: Scene, kind: str) -> str:
        language = "zh" if kind == "mojibake" else self.draw_language()
        caption = scene.write_caption(language, self.rng)
        return texts.draw_bad_caption(kind, language, scene.facts[language], caption, self.rng)

    def add_bad_pictures(self) -> None:
        for kind in FAULT_KINDS:
            for _ in range(self.num_of_kind):
                scene = self.make_scene()
                caption = scene.write_caption(self.draw_language(), self.rng)
                self.add(replace(scene, image=self.faulty.make(kind, scene.image)), caption, group="image", kind=kind)

    def add_albums(self) -> None:
        """Add albums whose captions moved on by one picture."""
        for _ in range(max(1, self.num_of_kind // 3)):
            topics: set[str] = set()
            scenes: list[Scene] = []
            while len(scenes) < 3:
                scene = self.draw_scene()
                if scene.topic not in topics:
                    topics.add(scene.topic)
                    scenes.append(scene)
            language = self.draw_language()
            captions = [scene.write_caption(language, self.rng) for scene in scenes]
            rows = [self.add(scenes[i], captions[i - 1], group="mismatch", kind="album_shifted") for i in range(3)]
            for index, row in enumerate(rows):
                row.of = rows[index - 1]

    def add_stolen_captions(self, count: int) -> None:
        """Add pictures under the caption of another post."""
        for _ in range(count):
            scene = self.draw_scene()
            owner, topic, _ = self.rng.choice(self.originals)
            while topic == scene.topic:
                owner, topic, _ = self.rng.choice(self.originals)
            self.add(scene, owner.caption, group="mismatch", kind="caption_of_other_post", of=owner)

    def add_copies(self) -> None:
        """Add reposts: each alteration as often as the others, most pictures reposted once, some more often."""
        rng = self.rng
        waiting = rng.sample(self.originals, len(self.originals))
        reposted: list[tuple[Row, str, Facts]] = []
        for kind, strengths in ALTERATIONS.items():
            for index in range(self.num_of_kind):
                is_first = waiting and (not reposted or rng.random() < 0.75)
                original, topic, facts = waiting.pop() if is_first else rng.choice(reposted)
                reposted.append((original, topic, facts))
                strength = strengths[index % len(strengths)]
                self.add_copy(original, Scene(original.open(), topic, facts), kind, strength)

    def add_copy(self, original: Row, scene: Scene, kind: str, strength: Any) -> None:
        rng, detail = self.rng, ""
        caption = original.caption
        if rng.random() < 0.5:
            caption, _ = self.write_good_caption(scene, self.draw_language())
        if rng.random() < SHARE_OF_SECOND_FAULTS / 2:
            fault = rng.choice(texts.TEXT_KINDS)
            caption = self.write_bad_caption(scene, fault)
            detail = f"{kind} and {fault}"
        label = f"{kind}_{strength}".replace(" ", "_").rstrip("_")
        keep = None if kind in EQUALLY_GOOD else original
        truth = {"group": "copy", "kind": label, "of": original, "keep": keep, "detail": detail}
        if kind == "byte_copy":
            self.add_picture(original.image, caption, original.suffix, **truth)
        else:
            self.add_picture(self.darkroom.alter(scene.image, kind, strength), caption, **truth)

    # -----------------------------------------------------------------------------------------------------------------
    # The benchmark

    def add_leaks(self) -> None:
        """Add images of the test set, changed in four ways, and good rows that resemble test images."""
        ways = {
            "leak_plain": ("saved_again",),
            "leak_small": ("resize", "jpeg"),
            "leak_crop": ("crop",),
            "leak_filter_mark": ("filter", "corner_mark"),
            "leak_light": ("brightness", "contrast"),
        }
        for kind, alterations in ways.items():
            for _ in range(self.num_of_kind):
                scene = self.draw_test_scene()
                caption = scene.write_caption(self.draw_language(), self.rng)
                test_row = self.crawl.add_test_image(scene.image, caption)
                image = scene.image
                for alteration in alterations:
                    image = self.darkroom.alter(image, alteration, self.rng.choice(ALTERATIONS[alteration]))
                if self.rng.random() < 0.5:
                    caption = scene.write_caption(self.draw_language(), self.rng)
                self.add(replace(scene, image=image), caption, group="leak", kind=kind, of=test_row)
        for _ in range(self.num_of_kind * 2):
            scene = self.draw_test_scene()
            self.crawl.add_test_image(scene.image, scene.write_caption(self.draw_language(), self.rng))
        for _ in range(self.num_of_kind):
            first, second = self.make_other_time()
            test_row = self.crawl.add_test_image(first.image, first.write_caption(self.draw_language(), self.rng))
            self.add(
                second, second.write_caption(self.draw_language(), self.rng), kind="like_test_image", like=test_row
            )

    def draw_test_scene(self) -> Scene:
        return self.take_photo() if self.rng.random() < 0.6 else self.test_studio.make_any()


def main() -> None:
    arguments = parse_arguments(__doc__, NUM_ROWS)
    rng = random.Random(arguments.seed)  # noqa: S311
    crawl, signs = Crawl(rng), Signs(arguments.font)
    shelf = Shelf(("emoji-train.tar", "emoji-val.tar"))
    # A fifth of the rows takes a photograph. Smaller crops show too little of what their file is named by.
    num_photos, scales = arguments.rows // 5, {"least_scale": 0.5, "greatest_scale": 0.9}
    photos = PhotoSource(arguments.images, rng, num_photos, **scales, detail=6, make=make_photograph)
    studio, test_studio = Studio(shelf, signs, rng), Studio(Shelf(("emoji-test.tar",)), signs, rng)
    darkroom, faulty = Darkroom(shelf, signs, rng), FaultyPictures(signs, shelf, rng)
    community = Community(crawl, photos, studio, test_studio, darkroom, faulty, arguments.rows)
    community.fill()
    crawl.write(arguments.output)
    print(f"{crawl.describe()} in {arguments.output}")
    print(f"photographs: {photos.num_crops:,} crops, {photos.num_made:,} made; signs: {signs.language}")


if __name__ == "__main__":
    main()
