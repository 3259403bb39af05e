"""Make the crawl of microblogs and short videos, with what is true of every row.

    python demo_data/crawls/social.py --output runs/crawls/social --images photographs

Posts of ordinary people and brands: photographs, pets, food, drawings, outfits, memes, stills with subtitles, covers
with large titles, chats and other screens, quotes and cards. Others repost them in stories, screenshots, frames and
filters; captions are reactions, tags, giveaways and requests to follow. Photographs are crops of those in --images;
without it, or when they are used up, coffee, moons, windows, seas, streets, shelves and the like are painted.
"""

import random
from typing import Any

import social_texts as texts
from making import Crawl, Row, Signs, name_colour, parse_arguments, paste_drawing, shift_hue
from PIL import Image, ImageDraw
from social_pictures import (
    EMPTY_KINDS,
    EmptyPictures,
    FeedPhotos,
    Post,
    Shelf,
    Studio,
    make_phone_photograph,
    make_similar_photographs,
)
from social_reposts import EQUALLY_GOOD, REPOSTS, Reposter

DEFAULT_ROWS = 5000
ROWS_OF_KIND = 40  # in a crawl of DEFAULT_ROWS: as many as a share of them needs
PHOTO_SHARE = 0.4  # rows that take a photograph as their subject or background
SHARE_WITH_TWO_FAULTS = 0.05
LEAKS = {"leak_same": (), "leak_story": ("story_canvas",), "leak_filter_mark": ("app_filter", "platform_mark")}
HOSTS = (
    "wx{0}.sinaimg.example/mw690/{1}",
    "pbs.twimg.example/media/{1}",
    "p{0}-sign.douyinpic.example/{1}",
    "i.redd.example/{1}",
    "sns-img-qc.xhscdn.example/{1}",
    "scontent-{0}.cdninsta.example/v/{1}",
)


def may_agree(left: str, right: str) -> bool:
    """Return whether the caption of one post could be said of the other by chance."""
    if "cover" in (left, right) or "meme" in (left, right):  # these show anything
        return True
    group_of_topic = dict.fromkeys(("art", "colour_art", "comic", "pet", "creature", "sticker", "still"), "figures")
    return group_of_topic.get(left, left) == group_of_topic.get(right, right)


class SocialCrawl:
    """Adds the rows of the crawl.

    Args:
        crawl: takes the rows.
        studio: composes posts of the training and validation drawings.
        test_studio: composes posts of drawings that only the benchmark has.
        reposter: changes pictures.
        empty: makes pictures without content.
        num_rows: about how many rows to add.
    """

    def __init__(
        self, crawl: Crawl, studio: Studio, test_studio: Studio, reposter: Reposter, empty: EmptyPictures, num_rows: int
    ) -> None:
        self.crawl, self.studio, self.test_studio = crawl, studio, test_studio
        self.reposter, self.empty = reposter, empty
        self.rng = crawl.rng
        self.num_rows = num_rows
        self.num_of_kind = max(1, round(num_rows * ROWS_OF_KIND / DEFAULT_ROWS))
        self.plain_posts: list[tuple[Row, Post]] = []
        self.first_of_photo: dict[str, Row] = {}
        self.posts_of_rows: dict[Row, Post] = {}

    def fill(self) -> None:
        """Add all rows: series first, while photographs have several crops left, plain ones as many as are missing."""
        self.add_lookalikes()
        self.add_benchmark()
        self.add_local_changes()
        self.add_good_with_remarks()
        self.add_japanese()
        self.add_text_faults()
        self.add_empty_pictures()
        num_copies = self.num_of_kind * len(REPOSTS)
        num_mismatches = self.num_of_kind * 2
        while len(self.crawl.rows) < self.num_rows - num_copies - num_mismatches:
            self.add_plain()
        self.add_copies()
        self.add_mismatches()
        self.add_second_faults()

    # -----------------------------------------------------------------------------------------------------------------
    # Captions and rows

    def draw_language(self) -> str:
        return self.rng.choice(("zh", "en"))

    def add(self, picture: Image.Image | bytes, caption: str, suffix: str = "", **truth: Any) -> Row:
        """Add a row with what a site gives out beside it."""
        rng = self.rng
        suffix = suffix or rng.choices(("jpg", "webp", "png"), (82, 14, 4))[0]
        name = f"{rng.getrandbits(64):016x}.{suffix}"
        fields = {
            "url": "https://" + rng.choice(HOSTS).format(rng.randint(1, 4), name),
            "author": rng.choice(texts.HANDLES)[1],
            "reposts": int(rng.expovariate(1 / 25)),
        }
        return self.crawl.add(picture, caption, suffix, fields=fields, **truth)

    def add_post(self, post: Post, caption: str, **truth: Any) -> Row:
        row = self.add(post.image, caption, **truth)
        self.posts_of_rows[row] = post
        return row

    def write_caption(self, post: Post, language: str = "") -> tuple[str, str]:
        """Write a good caption in one of the ways people write them, with the name of the way."""
        rng = self.rng
        language = language or self.draw_language()
        style = rng.choices(
            ("plain", "with_emoji", "long", "lower_case", "all_capitals", "inline_tag", "spaced"),
            (52, 18, 12, 7, 3, 5, 3),
        )[0]
        caption = post.write(language, rng)
        if style == "with_emoji":
            symbol = rng.choice(texts.EMOJI)
            if rng.random() < 0.2:
                return f"{symbol} {caption}", style
            return caption + rng.choice(("", " ")) + symbol * rng.choice((1, 1, 2)), style
        if style == "long":
            stop = "。" if language == "zh" else ". "
            aside = texts.GRAMMARS[language].expand("<aside>", rng, {})
            return caption.rstrip(" .。！!～~，,") + stop + aside, style
        subject = post.words[language].get("s", "")
        if style == "inline_tag" and subject and subject in caption:
            tag = f"#{subject}#" if language == "zh" else "#" + subject.split(" ")[-1]
            old = subject if language == "zh" else subject.split(" ")[-1]
            return caption.replace(old, tag, 1), style
        if language == "en" and style == "lower_case":
            return caption.lower(), style
        if language == "en" and style == "all_capitals":
            return caption.upper(), style
        if language == "zh" and style == "spaced":
            return caption.replace("，", " ").replace("：", " ").replace("｜", " "), style
        return caption, "plain"

    def write_family(self, posts: list[Post]) -> list[str]:
        """Write captions of posts that belong together: a third of them in the same form."""
        language, seed = self.draw_language(), self.rng.getrandbits(32)
        is_same_form = self.rng.random() < 0.35
        captions = []
        for post in posts:
            if is_same_form:
                captions.append(post.write(language, random.Random(seed)))  # noqa: S311
            else:
                captions.append(self.write_caption(post, language)[0])
        return captions

    def add_plain(self) -> None:
        """Add a good row with nothing about it, or one of those that are reposted."""
        post = self.studio.make_any() if self.rng.random() < 0.5 else self.studio.make_portable()
        caption, style = self.write_caption(post)
        # Other crops of one photograph, other made photographs of one sort.
        subject = post.words["en"].get("s", "")
        is_photo = post.topic in ("view", "plant", "creature", "snack", "thing")
        like = self.first_of_photo.get(subject) if is_photo else None
        row = self.add_post(post, caption, kind=f"{post.topic}_{style}", like=like)
        if is_photo:
            self.first_of_photo.setdefault(subject, row)
        self.plain_posts.append((row, post))

    def add_good_with_remarks(self) -> None:
        """Add good captions with a head or tail that an editor cuts off."""
        for kind in texts.REMARKS:
            for _ in range(self.num_of_kind):
                post, language = self.studio.make_any(), self.draw_language()
                clean = post.write(language, self.rng).rstrip(" .。")
                head, tail = texts.draw_remark(kind, language, self.rng)
                self.add_post(post, head + clean + tail, kind=f"good_with_{kind}", clean=clean)

    def add_japanese(self) -> None:
        for _ in range(self.num_of_kind):
            while True:
                post = self.rng.choice((self.studio.make_pet, self.studio.make_food, self.studio.make_art))()
                if post.has_japanese():
                    break
            self.add_post(post, post.write("ja", self.rng), kind="japanese")

    # -----------------------------------------------------------------------------------------------------------------
    # Good rows that resemble each other

    def add_lookalikes(self) -> None:
        """Add pairs and threes of posts of which each resembles the one before."""
        makers = (
            self.make_next_frame,
            self.make_other_pose,
            self.make_same_template,
            self.make_other_colour,
            self.make_neighbours,
            self.make_daily_drawing,
            self.make_other_plate,
            self.make_next_episode,
            self.make_other_outfit,
            self.make_other_card,
            self.make_other_words,
            self.make_other_chat,
            self.make_next_strip,
        )
        for make in makers:
            kind = make.__name__.removeprefix("make_")
            for _ in range(self.num_of_kind):
                posts = make()
                previous = None
                for post, caption in zip(posts, self.write_family(posts), strict=True):
                    name = kind if previous else f"first_of_{kind}"
                    previous = self.add_post(post, caption, kind=name, like=previous)

    def make_next_frame(self) -> list[Post]:
        """Make two stills of one scene: the actor and the camera have moved, someone says something else."""
        backdrop = self.studio.photos.take(is_subject=False)
        actor = self.studio.shelf.take("person", self.rng)
        lines = self.rng.sample(texts.LINES, 2)
        step = self.rng.choice((-120, -90, 90, 110))
        return [
            self.studio.make_still(backdrop, actor, lines[0]),
            self.studio.make_still(backdrop, actor, lines[1], step),
        ]

    def make_other_pose(self) -> list[Post]:
        style, pet = self.studio.new_style(), self.studio.shelf.take("pet", self.rng)
        return [self.studio.make_pet(style, pet, pose) for pose in (0, 1)]

    def make_same_template(self) -> list[Post]:
        """Fill one template of a meme with other things, twice or three times."""
        style, faces = self.studio.new_style(), self.studio.shelf.take_several("face", 2, self.rng)
        return [self.studio.make_meme(style, faces) for _ in range(self.rng.choice((2, 2, 3)))]

    def make_other_colour(self) -> list[Post]:
        """Draw one thing in two colours that have different names."""
        style = self.studio.new_style()
        while True:
            item, hue = self.studio.shelf.take("animal", self.rng), self.rng.choice((80, 120, 180, 240))
            colours = (name_colour(item.image), name_colour(shift_hue(item.image, hue)))
            if colours[0] != colours[1]:
                break
        return [self.studio.make_art(style, item, turn, "colour_art") for turn in (0, hue)]

    def make_neighbours(self) -> list[Post]:
        """Take crops of one photograph that show different parts of it."""
        photos = self.studio.photos.take_series(2)
        if photos:
            return [self.studio.describe(photo) for photo in photos]
        return [self.studio.describe(photo) for photo in make_similar_photographs(self.rng)]

    def make_daily_drawing(self) -> list[Post]:
        """Draw two animals in one medium on the same paper."""
        style = self.studio.new_style()
        return [self.studio.make_art(style, item) for item in self.studio.shelf.take_several("animal", 2, self.rng)]

    def make_other_plate(self) -> list[Post]:
        food = self.studio.shelf.take("food", self.rng)
        return [self.studio.make_food(food) for _ in range(2)]

    def make_next_episode(self) -> list[Post]:
        """Make covers of one layout with one title and other pictures, or other titles."""
        style = self.studio.new_style()
        title = self.rng.choice(texts.TITLES)
        return [self.studio.make_cover(style, title) for _ in range(2)]

    def make_other_outfit(self) -> list[Post]:
        style = self.studio.new_style()
        return [self.studio.make_outfit(style) for _ in range(2)]

    def make_other_card(self) -> list[Post]:
        """Make two cards of an app: other runs, polls or songs."""
        style = self.studio.new_style()
        make = self.rng.choice((self.studio.make_run, self.studio.make_poll, self.studio.make_music))
        return [make(style) for _ in range(2)]

    def make_other_words(self) -> list[Post]:
        """Make two cards, stickers or screens of one layout with other words."""
        style = self.studio.new_style()
        make = self.rng.choice((self.studio.make_quote, self.studio.make_sticker, self.studio.make_text_post))
        first = second = make(style)
        while second.words == first.words:
            second = make(style)
        return [first, second]

    def make_other_chat(self) -> list[Post]:
        style = self.studio.new_style()
        return [self.studio.make_chat(style, chat) for chat in self.rng.sample(range(len(texts.CHATS)), 2)]

    def make_next_strip(self) -> list[Post]:
        style, cast = self.studio.new_style(), self.studio.shelf.take_several("animal", 2, self.rng)
        return [self.studio.make_comic(style, cast) for _ in range(2)]

    # -----------------------------------------------------------------------------------------------------------------
    # Rows that differ in a detail

    def add_local_changes(self) -> None:
        for change in (self.change_bow, self.change_counter, self.add_small_thing, self.change_message):
            kind = change.__name__
            for _ in range(self.num_of_kind):
                (first, second), captions = change()
                row = self.add_post(first, captions[0], kind=f"first_of_{kind}")
                detail = "captions same" if captions[0] == captions[1] else "captions differ"
                self.add_post(second, captions[1], group="local", kind=kind, of=row, detail=detail)

    def change_bow(self) -> tuple[list[Post], list[str]]:
        """Give a pet a bow in two colours."""
        bow = self.studio.shelf.drawings["ribbon"][0].image
        style, pet = self.studio.new_style(), self.studio.shelf.take("pet", self.rng)
        other = shift_hue(bow, self.rng.choice((110, 160, 210)))
        posts = [self.studio.make_pet(style, pet, bow=colour) for colour in (bow, other)]
        language = self.draw_language()
        caption = posts[0].write(language, self.rng)
        if self.rng.random() < 0.5:
            return posts, [caption, caption]
        captions = []
        for colour in (bow, other):
            name_zh, name_en = name_colour(colour)
            captions.append(caption + (f"，{name_zh}蝴蝶结" if language == "zh" else f", {name_en} bow"))
        return posts, captions

    def change_counter(self) -> tuple[list[Post], list[str]]:
        """Take a screen twice, while the likes grow."""
        style, text = self.studio.new_style(), self.rng.choice(texts.POSTS)
        likes = self.rng.randint(100, 4000)
        posts = [self.studio.make_text_post(style, text, count) for count in (likes, likes + self.rng.randint(7, 500))]
        caption = posts[0].write(self.draw_language(), self.rng)
        return posts, [caption, caption]

    def add_small_thing(self) -> tuple[list[Post], list[str]]:
        """Put one small sticker on a picture."""
        post = self.studio.make_portable()
        image = post.image.copy()
        sticker = self.studio.shelf.take("sticker", self.rng)
        side = max(30, int(min(image.size) * 0.13))
        at = (self.rng.randint(side, image.width - side), self.rng.randint(side, image.height - side))
        paste_drawing(image, sticker.image, side, at, 0.2)
        language = self.draw_language()
        captions = [post.write(language, self.rng)] * 2
        if self.rng.random() < 0.5:
            captions[1] = post.write(language, self.rng)
        return [post, Post(image, post.topic, post.words)], captions

    def change_message(self) -> tuple[list[Post], list[str]]:
        """Write another last message into a chat."""
        post = self.studio.make_chat()
        posts = []
        words = self.rng.sample(texts.STICKER_LINES, 2)
        language = self.draw_language()
        caption = post.write(language, self.rng)
        captions = []
        for word in words:
            image = post.image.copy()
            draw = ImageDraw.Draw(image)
            sign = self.studio.sign(word)
            y = image.height - 52
            width = self.studio.signs.font(17).getlength(sign) + 26
            draw.rounded_rectangle((62, y, 62 + width, y + 40), 9, fill=(255, 255, 255), outline=(200, 200, 200))
            self.studio.signs.write(image, sign, (75, y + 20), 17, (40, 40, 46), "lm")
            posts.append(Post(image, post.topic, post.words))
            captions.append(caption + (f"，最后回“{word[0]}”" if language == "zh" else f", last reply “{word[1]}”"))
        return posts, captions

    # -----------------------------------------------------------------------------------------------------------------
    # Faults

    def add_text_faults(self) -> None:
        for kind in texts.TEXT_FAULTS:
            for _ in range(self.num_of_kind):
                post = self.studio.make_any()
                self.add_post(post, self.write_bad_caption(post, kind), group="text", kind=kind)

    def write_bad_caption(self, post: Post, kind: str) -> str:
        caption = post.write("zh", self.rng) if kind == "question_marks" else ""
        return texts.draw_bad_caption(kind, self.draw_language(), caption, self.rng)

    def add_empty_pictures(self) -> None:
        for kind in EMPTY_KINDS:
            for _ in range(self.num_of_kind):
                post = self.studio.make_portable()
                caption, _ = self.write_caption(post)
                self.add(self.empty.make(kind, post.image), caption, group="image", kind=kind)

    def add_copies(self) -> None:
        """Repost pictures: each change as often as the others, most pictures once, some several times."""
        rng = self.rng
        portable = (
            "view",
            "plant",
            "creature",
            "snack",
            "thing",
            "pet",
            "food",
            "art",
            "outfit",
            "still",
            "comic",
            "cover",
        )
        waiting = [entry for entry in self.plain_posts if entry[1].topic in portable]
        rng.shuffle(waiting)
        reposted: list[tuple[Row, Post]] = []
        for kind, strengths in REPOSTS.items():
            for index in range(self.num_of_kind):
                is_first = waiting and (not reposted or rng.random() < 0.7)
                original, post = waiting.pop() if is_first else rng.choice(reposted or self.plain_posts)
                reposted.append((original, post))
                self.add_copy(original, post, kind, strengths[index % len(strengths)])

    def add_copy(self, original: Row, post: Post, kind: str, strength: Any) -> None:
        caption = original.caption
        if self.rng.random() < 0.6:
            caption, _ = self.write_caption(post)
        keep = None if kind in EQUALLY_GOOD else original
        truth = {"group": "copy", "kind": f"{kind}_{strength}".rstrip("_"), "of": original, "keep": keep}
        if kind == "same_bytes":
            self.add(original.image, caption, original.suffix, **truth)
            return
        row = self.add(self.reposter.change(original.open(), kind, strength), caption, **truth)
        self.posts_of_rows[row] = post

    def add_mismatches(self) -> None:
        """Add pictures with the caption of another post of another topic, and posts of an account mixed up in pairs."""
        for _ in range(self.num_of_kind):
            post = self.studio.make_portable()
            while may_agree(post.topic, ""):
                post = self.studio.make_portable()
            owner = self.draw_other_topic(post)
            self.add(post.image, owner.caption, group="mismatch", kind="caption_of_other_post", of=owner)
        for _ in range(self.num_of_kind // 2):
            left = self.studio.make_portable()
            right = left
            while may_agree(left.topic, right.topic):
                left, right = self.studio.make_portable(), self.studio.make_portable()
            rows = []
            for shown, told in ((left, right), (right, left)):
                caption, _ = self.write_caption(told)
                rows.append(self.add(shown.image, caption, group="mismatch", kind="swapped_in_feed"))
            rows[0].of, rows[1].of = rows[1], rows[0]

    def draw_other_topic(self, post: Post) -> Row:
        """Draw a row whose caption cannot be said of a picture."""
        owner, other = self.rng.choice(self.plain_posts)
        while may_agree(post.topic, other.topic):
            owner, other = self.rng.choice(self.plain_posts)
        return owner

    def add_second_faults(self) -> None:
        """Give some copies and empty pictures a caption that is none."""
        candidates = [row for row in self.crawl.rows if row.group in ("copy", "image", "leak")]
        number = round(SHARE_WITH_TWO_FAULTS * sum(row.group not in ("good", "local") for row in self.crawl.rows))
        kinds = [kind for kind in texts.TEXT_FAULTS if kind != "question_marks"]
        for row in self.rng.sample(candidates, min(number, len(candidates))):
            kind = self.rng.choice(kinds)
            row.caption = texts.draw_bad_caption(kind, self.draw_language(), "", self.rng)
            row.detail = f"{row.kind}, {kind}"

    # -----------------------------------------------------------------------------------------------------------------
    # The benchmark

    def add_benchmark(self) -> None:
        """Write a test set, let some of its images leak, and add good rows that resemble others of them."""
        rng = self.rng
        for kind, changes in LEAKS.items():
            for _ in range(self.num_of_kind):
                post = self.make_test_post()
                caption, _ = self.write_caption(post)
                test_row = self.crawl.add_test_image(post.image, caption)
                if rng.random() < 0.5:
                    caption, _ = self.write_caption(post)
                if not changes:
                    self.add(test_row.image, caption, "jpg", group="leak", kind=kind, of=test_row)
                    continue
                image = test_row.open()
                for change in changes:
                    image = self.reposter.change(image, change, rng.choice(REPOSTS[change]))
                self.add(image, caption, group="leak", kind=kind, of=test_row)
        for _ in range(self.num_of_kind):
            post = self.make_test_post()
            self.crawl.add_test_image(post.image, self.write_caption(post)[0])
        for _ in range(self.num_of_kind):
            make = rng.choice(
                (self.make_other_pose, self.make_neighbours, self.make_same_template, self.make_other_outfit)
            )
            posts = make()[:2]
            captions = self.write_family(posts)
            test_row = self.crawl.add_test_image(posts[0].image, captions[0])
            self.add_post(posts[1], captions[1], kind="like_test_image", like=test_row)

    def make_test_post(self) -> Post:
        if self.rng.random() < 0.5:
            return self.studio.make_photo()
        makers = (
            self.test_studio.make_art,
            self.test_studio.make_food,
            self.test_studio.make_outfit,
            self.test_studio.make_haul,
        )
        return self.rng.choice(makers)()


def main() -> None:
    options = parse_arguments(__doc__, DEFAULT_ROWS)
    rng = random.Random(options.seed)  # noqa: S311
    crawl, signs = Crawl(rng), Signs(options.font)
    # Reduced before they are cut, views keep more than a surface; a detail of 7 leaves out plain sky and blur.
    photos = FeedPhotos(
        options.images,
        rng,
        int(options.rows * PHOTO_SHARE),
        least_scale=0.55,
        greatest_scale=0.9,
        detail=7,
        make=make_phone_photograph,
    )
    shelf = Shelf(("emoji-train.tar", "emoji-val.tar"))
    studio, test_studio = Studio(shelf, photos, signs, rng), Studio(Shelf(("emoji-test.tar",)), photos, signs, rng)
    social = SocialCrawl(
        crawl, studio, test_studio, Reposter(shelf, signs, rng), EmptyPictures(signs, rng), options.rows
    )
    social.fill()
    crawl.write(options.output)
    print(f"{crawl.describe()} in {options.output}")
    print(f"photographs: {photos.num_crops:,} crops, {photos.num_made:,} made; signs: {signs.language}")


if __name__ == "__main__":
    main()
