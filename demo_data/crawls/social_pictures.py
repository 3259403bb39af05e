"""Pictures of microblogs and short videos: posts with what they show, and pictures without content."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import social_texts as texts
from making import (
    WHITE,
    Drawing,
    Photo,
    PhotoSource,
    Signs,
    add_noise,
    is_solid,
    make_gradient,
    make_lights,
    make_photograph,
    make_smooth_noise,
    make_surface,
    name_colour,
    paste_drawing,
    read_drawings,
    shift_hue,
)
from PIL import Image, ImageDraw, ImageFilter, ImageOps

Colour = tuple[int, int, int]
Words = dict[str, dict[str, str]]
INK: Colour = (40, 40, 46)
MAX_DRAWS = 1000  # of a card that was not made yet: a crawl of some 30,000 rows has made all that there are
COVER_SIZES = ((300, 400), (300, 534), (330, 440), (360, 360), (480, 270))  # of short videos, notes and their covers


@dataclass(frozen=True)
class Item:
    """A drawing with its names."""

    image: Image.Image
    key: str
    name_zh: str
    phrase: str

    @property
    def noun(self) -> str:
        """English name without its article."""
        first, _, rest = self.phrase.partition(" ")
        return rest if first in ("a", "an", "the") else self.phrase


@dataclass(frozen=True)
class Post:
    """A picture with what its captions can say.

    Args:
        topic: rule of the grammars that captions are written by.
        words: what the picture shows, by language and name of the word.
    """

    image: Image.Image
    topic: str
    words: Words
    key: str = ""  # drawing that a Japanese caption can name

    def write(self, language: str, rng: random.Random) -> str:
        """Write one of the many captions of this picture."""
        if language == "ja":
            form = rng.choice(texts.JAPANESE_FORMS[self.topic])
            return form.format(texts.JAPANESE[self.key], self.words["ja"].get("where", ""))
        caption = texts.GRAMMARS[language].expand(f"<{self.topic}>", rng, self.words[language]).strip()
        # Half of the people begin with a capital.
        return caption[:1].upper() + caption[1:] if rng.random() < 0.5 else caption

    def has_japanese(self) -> bool:
        return self.topic in texts.JAPANESE_FORMS and self.key in texts.JAPANESE


def say(**values: tuple[str, ...]) -> Words:
    """Return words of which each is given in Chinese and English, and some in Japanese."""
    words: Words = {"zh": {}, "en": {}, "ja": {}}
    for name, value in values.items():
        for language, word in zip(words, value, strict=False):
            words[language][name] = word
    return words


def name_item(item: Item) -> Words:
    return say(s=(item.name_zh, item.phrase), n=(item.name_zh, item.noun))


def join(*parts: Words) -> Words:
    """Merge words; later ones win."""
    return {language: {k: v for part in parts for k, v in part[language].items()} for language in ("zh", "en", "ja")}


def same(text: str) -> tuple[str, str]:
    return text, text


class Shelf:
    """The drawings by category.

    Args:
        names: shards of demo_data.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        wanted = {name for names_en in texts.CATEGORIES.values() for name in names_en.split("|")}
        self.drawings: dict[str, list[Drawing]] = {}
        for shard in names:
            for drawing in read_drawings(shard, wanted):
                if is_solid(drawing.image):
                    self.drawings.setdefault(drawing.name_en, []).append(drawing)

    def take(self, category: str, rng: random.Random) -> Item:
        """Return a drawing of a category."""
        names = [name for name in texts.CATEGORIES[category].split("|") if name in self.drawings]
        name = rng.choice(names)
        drawing = rng.choice(self.drawings[name])
        article = "an" if name[0] in "aeiou" else "a"
        name_zh, phrase = texts.NAMES.get(name, (drawing.name_zh, f"{article} {name}"))
        return Item(drawing.image, name, name_zh, phrase)

    def take_several(self, category: str, count: int, rng: random.Random) -> list[Item]:
        """Return drawings of a category with different names."""
        items: list[Item] = []
        while len(items) < count:
            item = self.take(category, rng)
            if item.name_zh not in [other.name_zh for other in items]:
                items.append(item)
        return items


def list_items(items: list[Item]) -> tuple[str, str]:
    """Name several things in a row."""
    english = [item.phrase for item in items]
    return "、".join(item.name_zh for item in items), ", ".join(english[:-1]) + " and " + english[-1]


# ---------------------------------------------------------------------------------------------------------------------
# Made photographs. Names are "Chinese|English|topic".


def make_phone_photograph(rng: random.Random, is_subject: bool = True) -> Photo:
    """Make what passes for a photograph by a phone: as a subject, one of a dozen sorts."""
    if not is_subject:
        photo = make_photograph(rng, False)
        return photo if rng.random() < 0.6 else Photo(paint_window(rng)[0], photo.name)
    if rng.random() < 0.2:
        return make_photograph(rng, True)
    return paint_photograph(rng.choice(list_painters()), rng)


def make_similar_photographs(rng: random.Random) -> list[Photo]:
    """Make two photographs of one sort."""
    painter = rng.choice(list_painters())
    return [paint_photograph(painter, rng) for _ in range(2)]


def paint_photograph(painter: Callable[[random.Random], tuple[Image.Image, str]], rng: random.Random) -> Photo:
    """Paint a photograph with the grain of a small sensor."""
    image, name = painter(rng)
    return Photo(add_noise(image, rng.uniform(2, 6), rng), name)


def list_painters() -> list[Callable[[random.Random], tuple[Image.Image, str]]]:
    return [
        paint_latte,
        paint_moon,
        paint_window,
        paint_sunset_sea,
        paint_crossing,
        paint_tiles,
        paint_wires,
        paint_snow,
        paint_shelf,
        paint_balloons,
    ]


def random_size(rng: random.Random) -> tuple[int, int]:
    return rng.choice(((360, 480), (420, 420), (480, 360), (330, 500), (500, 340)))


def to_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def paint_latte(rng: random.Random) -> tuple[Image.Image, str]:
    """Paint a cup of coffee from above, with layers or a heart of milk, on a surface."""
    width, height = random_size(rng)
    noise = np.random.default_rng(rng.getrandbits(32))
    pixels, _ = make_surface(rng, noise, height, width)
    image = to_image(pixels)
    draw = ImageDraw.Draw(image)
    radius = int(min(width, height) * rng.uniform(0.24, 0.36))
    x, y = int(width * rng.uniform(0.4, 0.6)), int(height * rng.uniform(0.4, 0.6))
    cup = rng.choice(((240, 238, 232), (60, 75, 95), (190, 110, 80), (120, 150, 130), (235, 205, 120), (30, 30, 34)))
    for share, colour in ((1.45, cup), (1.38, tuple(int(level * 0.88) for level in cup)), (1.0, cup)):
        reach = int(radius * share)
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)
    handle = rng.choice((-1, 1))
    draw.rounded_rectangle(
        (min(x, x + handle * radius * 1.35), y - 14, max(x, x + handle * radius * 1.35), y + 14), 12, fill=cup
    )
    inner = int(radius * 0.88)
    draw.ellipse((x - inner, y - inner, x + inner, y + inner), fill=(rng.randint(120, 150), 80, 45))
    milk = (238, 220, 190)
    if rng.random() < 0.5:
        for step in range(rng.randint(4, 7)):
            reach = int(inner * (0.62 - step * 0.08))
            top = y - inner // 2 + step * inner // 5
            draw.chord((x - reach, top - reach // 2, x + reach, top + reach), 15, 165, fill=milk)
        name = "拉花咖啡|latte art|snack"
    else:
        reach = int(inner * rng.uniform(0.3, 0.42))
        draw.ellipse((x - reach, y - reach, x, y + reach // 3), fill=milk)
        draw.ellipse((x, y - reach, x + reach, y + reach // 3), fill=milk)
        draw.polygon(((x - reach, y - reach // 5), (x + reach, y - reach // 5), (x, y + reach)), fill=milk)
        name = "爱心拉花咖啡|a latte with a heart|snack"
    return image.filter(ImageFilter.GaussianBlur(0.8)), name


def paint_moon(rng: random.Random) -> tuple[Image.Image, str]:
    """Paint the moon with craters above branches, clouds or roofs."""
    width, height = random_size(rng)
    noise = np.random.default_rng(rng.getrandbits(32))
    upper, lower = rng.choice(
        (((8, 10, 28), (40, 50, 90)), ((20, 14, 40), (110, 60, 90)), ((40, 70, 110), (150, 170, 190)))
    )
    pixels = np.asarray(make_gradient(width, height, upper, lower), np.float32)
    pixels += np.clip(make_smooth_noise(noise, height, width, (3, 4)), 0, None)[..., None] * rng.uniform(4, 26)
    radius = min(width, height) * rng.uniform(0.08, 0.26)
    x, y = width * rng.uniform(0.25, 0.75), height * rng.uniform(0.2, 0.55)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    disc = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    shift = rng.choice((0.0, 0.0, 0.5, 0.9, -0.7)) * radius
    if shift:
        disc &= (rows - y) ** 2 + (columns - x - shift) ** 2 > radius**2
    craters = make_smooth_noise(noise, height, width, (14, 14))[..., None]
    pixels = np.where(disc[..., None], np.array((236, 228, 205), np.float32) + craters * 14, pixels)
    image = to_image(pixels)
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.6:
        for _ in range(rng.randint(3, 7)):
            draw_branch(
                draw, (rng.uniform(-20, width + 20), height + 10), rng.uniform(-2.3, -0.9), height * 0.22, 4, rng
            )
        name_zh, name_en = "树枝上", "above the branches"
    else:
        left = -10
        while left < width:
            roof, top = rng.randint(50, 130), height - rng.randint(30, 110)
            draw.rectangle((left, top, left + roof, height), fill=(14, 14, 20))
            draw.polygon(((left - 6, top), (left + roof + 6, top), (left + roof // 2, top - 34)), fill=(14, 14, 20))
            left += roof
        name_zh, name_en = "屋顶上", "over the roofs"
    phase_zh, phase_en = ("月牙", "a crescent moon") if shift else ("圆月", "the full moon")
    return image, f"{name_zh}的{phase_zh}|{phase_en} {name_en}|view"


def draw_branch(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], angle: float, length: float, depth: int, rng: random.Random
) -> None:
    """Draw a bare branch and what grows out of it."""
    end = (at[0] + np.cos(angle) * length, at[1] + np.sin(angle) * length)
    draw.line((*at, *end), fill=(16, 14, 18), width=max(1, depth * 2))
    if depth > 1:
        for _ in range(rng.randint(2, 3)):
            draw_branch(draw, end, angle + rng.uniform(-0.8, 0.8), length * rng.uniform(0.55, 0.8), depth - 1, rng)


def paint_window(rng: random.Random) -> tuple[Image.Image, str]:
    """Paint drops on a window before blurred lights."""
    width, height = random_size(rng)
    noise = np.random.default_rng(rng.getrandbits(32))
    pixels, _ = make_lights(rng, noise, height, width)
    behind = to_image(pixels * rng.uniform(0.8, 1.3)).filter(ImageFilter.GaussianBlur(rng.uniform(3, 7)))
    bright = behind.point([min(255, level + 45) for level in range(256)] * 3).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    mask = Image.new("L", behind.size)
    draw = ImageDraw.Draw(mask)
    for _ in range(rng.randint(60, 260)):
        x, y, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(1.5, 9)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius * 1.3), fill=rng.randint(120, 255))
    behind.paste(bright, (0, 0), mask.filter(ImageFilter.GaussianBlur(0.8)))
    if rng.random() < 0.4:
        ImageDraw.Draw(behind).rectangle((width * 0.48, 0, width * 0.53, height), fill=(24, 22, 22))
    return behind, "夜里窗玻璃上的雨滴|raindrops on the window at night|view"


def paint_sunset_sea(rng: random.Random) -> tuple[Image.Image, str]:
    """Paint a low sun above the sea with its path of light, and a boat or a hill."""
    width, height = random_size(rng)
    noise = np.random.default_rng(rng.getrandbits(32))
    upper, lower, sea = rng.choice(
        (
            ((70, 60, 120), (250, 150, 90), (60, 50, 90)),
            ((220, 110, 60), (255, 210, 120), (120, 70, 60)),
            ((90, 130, 190), (250, 200, 190), (70, 110, 150)),
        )
    )
    horizon = int(height * rng.uniform(0.42, 0.68))
    pixels = np.asarray(make_gradient(width, height, upper, lower), np.float32)
    pixels += np.clip(make_smooth_noise(noise, height, width, (8, 2)), 0, None)[..., None] * rng.uniform(8, 34)
    waves = make_smooth_noise(noise, height, width, (70, 8))
    x, radius = width * rng.uniform(0.2, 0.8), rng.uniform(14, 44)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    sun = (rows - horizon + radius * rng.uniform(-0.2, 1.6)) ** 2 + (columns - x) ** 2 < radius**2
    pixels = np.where(sun[..., None], np.array((255, 244, 200), np.float32), pixels)
    glitter = (np.abs(columns - x) < radius * (0.6 + (rows - horizon) / height * 2)) & (waves > 0.1)
    water = np.array(sea, np.float32) + waves[..., None] * 12
    water = np.where(glitter[..., None], water * 0.4 + np.array((255, 220, 160), np.float32) * 0.6, water)
    pixels = np.where((rows > horizon)[..., None], water, pixels)
    image = to_image(pixels)
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.5:
        at = width * rng.uniform(0.15, 0.85)
        size = rng.uniform(12, 34)
        draw.polygon(
            (
                (at - size, horizon + 2),
                (at + size, horizon + 2),
                (at + size * 0.6, horizon + size * 0.4),
                (at - size * 0.6, horizon + size * 0.4),
            ),
            fill=(30, 24, 30),
        )
        draw.polygon(((at, horizon), (at, horizon - size * 2), (at + size, horizon - 2)), fill=(60, 44, 50))
        return image, "海上落日和帆船|a sailing boat at sunset|view"
    return image, "海面上的落日|the sun going down over the sea|view"


def paint_crossing(rng: random.Random) -> tuple[Image.Image, str]:
    """Paint a street at night with shop signs and their light on the wet ground."""
    width, height = random_size(rng)
    image = make_gradient(width, height, (16, 16, 34), (40, 32, 44))
    ground = int(height * rng.uniform(0.6, 0.72))
    draw = ImageDraw.Draw(image)
    left = 0
    while left < width:
        house, top = rng.randint(40, 110), rng.randint(0, int(height * 0.35))
        draw.rectangle((left, top, left + house, ground), fill=tuple(rng.randint(26, 62) for _ in range(3)))
        for y in range(top + 12, ground - 50, 22):
            for window in range(left + 8, left + house - 10, 16):
                if rng.random() < 0.4:
                    draw.rectangle((window, y, window + 8, y + 11), fill=(240, rng.randint(180, 225), 130))
        sign = rng.choice(((255, 70, 120), (70, 210, 255), (255, 190, 60), (120, 255, 150), (200, 110, 255)))
        draw.rounded_rectangle((left + 6, ground - 46, left + house - 6, ground - 22), 5, fill=sign)
        left += house
    glow = image.filter(ImageFilter.GaussianBlur(9))
    image = Image.blend(image, Image.fromarray(cv2.add(np.asarray(image), np.asarray(glow) // 2)), 0.7)
    wet = ImageOps.flip(image.crop((0, 2 * ground - height, width, ground))).resize((width, height - ground))
    noise = np.random.default_rng(rng.getrandbits(32))
    ripples = make_smooth_noise(noise, height - ground, width, (40, 10))[..., None]
    pixels = np.asarray(image, np.float32).copy()
    pixels[ground:] = np.asarray(wet.filter(ImageFilter.GaussianBlur(3)), np.float32) * 0.6 + ripples * 9
    return to_image(pixels), "夜里湿漉漉的霓虹街道|a wet street with neon signs at night|view"


def paint_tiles(rng: random.Random) -> tuple[Image.Image, str]:
    """Paint a street café's tiled wall with a plant in a pot before it."""
    width, height = random_size(rng)
    noise = np.random.default_rng(rng.getrandbits(32))
    zh, en, base = rng.choice(
        (
            ("绿", "green", (90, 140, 115)),
            ("白", "white", (225, 224, 218)),
            ("蓝", "blue", (95, 130, 175)),
            ("粉", "pink", (228, 170, 172)),
        )
    )
    pixels = np.zeros((height, width, 3), np.float32) + np.array(base, np.float32) * 0.7
    step_x, step_y = rng.randint(26, 60), rng.randint(22, 44)
    for row, y in enumerate(range(0, height, step_y)):
        for x in range(-(row % 2) * step_x // 2, width, step_x):
            tone = np.array(base) * rng.uniform(0.88, 1.08)
            pixels[y + 1 : y + step_y - 1, max(0, x + 1) : max(0, x + step_x - 1)] = tone
    light = make_smooth_noise(noise, height, width, (2, 2))[..., None]
    image = to_image(pixels * (1 + light * 0.09))
    draw = ImageDraw.Draw(image)
    x, foot, size = width * rng.uniform(0.25, 0.75), height * rng.uniform(0.86, 0.96), rng.uniform(40, 72)
    for _ in range(rng.randint(14, 40)):
        angle, reach = rng.uniform(-2.9, -0.25), size * rng.uniform(1.2, 3)
        tip = (x + np.cos(angle) * reach * 0.7, foot - size + np.sin(angle) * reach)
        side = size * 0.12
        leaf = (
            (x, foot - size),
            ((x + tip[0]) / 2 - side, (foot - size + tip[1]) / 2 - side),
            tip,
            ((x + tip[0]) / 2 + side, (foot - size + tip[1]) / 2 + side),
        )
        draw.polygon(leaf, fill=(rng.randint(30, 80), rng.randint(95, 150), rng.randint(40, 80)))
    pot = rng.choice(((170, 90, 60), (235, 232, 225), (70, 72, 80)))
    draw.polygon(
        ((x - size * 0.7, foot - size), (x + size * 0.7, foot - size), (x + size * 0.5, foot), (x - size * 0.5, foot)),
        fill=pot,
    )
    return image.filter(
        ImageFilter.GaussianBlur(0.7)
    ), f"{zh}色瓷砖墙前的盆栽|a potted plant by a {en} tiled wall|plant"


def paint_wires(rng: random.Random) -> tuple[Image.Image, str]:
    """Paint wires and poles before an evening sky, with or without birds."""
    width, height = random_size(rng)
    noise = np.random.default_rng(rng.getrandbits(32))
    zh, en, upper, lower = rng.choice(
        (
            ("粉色", "pink", (130, 110, 180), (250, 180, 180)),
            ("橙色", "orange", (90, 80, 130), (250, 160, 80)),
            ("蓝色", "blue", (70, 130, 200), (190, 215, 235)),
            ("紫色", "purple", (70, 50, 120), (200, 150, 210)),
        )
    )
    pixels = np.asarray(make_gradient(width, height, upper, lower), np.float32)
    pixels += np.clip(make_smooth_noise(noise, height, width, (7, 3)), 0, None)[..., None] * rng.uniform(8, 40)
    image = to_image(pixels)
    draw = ImageDraw.Draw(image)
    slope = rng.uniform(-0.35, 0.35)
    birds = 0
    for _ in range(rng.randint(3, 7)):
        y, sag = height * rng.uniform(0.15, 0.7), rng.uniform(6, 40)
        points = [(x, y + slope * x + sag * np.sin(np.pi * x / width)) for x in range(0, width + 20, 12)]
        draw.line(points, fill=(22, 20, 28), width=rng.randint(2, 3))
        if rng.random() < 0.5:
            for x, at in rng.sample(points[2:-3], rng.randint(1, 5)):
                draw.ellipse((x - 4, at - 13, x + 5, at), fill=(16, 14, 20))
                draw.ellipse((x, at - 18, x + 7, at - 10), fill=(16, 14, 20))
                birds += 1
    x, top = width * rng.uniform(0.1, 0.9), height * rng.uniform(0.1, 0.4)
    draw.rectangle((x - 6, top, x + 6, height), fill=(24, 22, 28))
    for step in range(rng.randint(1, 3)):
        draw.rectangle((x - 48, top + 20 + step * 34, x + 48, top + 27 + step * 34), fill=(24, 22, 28))
    if birds:
        return image, f"{zh}天空下电线上的鸟|birds on wires under a {en} sky|view"
    return image, f"{zh}天空和电线杆|a power pole and a {en} sky|view"


def paint_snow(rng: random.Random) -> tuple[Image.Image, str]:
    """Paint falling snow in the light of a street lamp."""
    width, height = random_size(rng)
    image = make_gradient(width, height, (14, 18, 40), (50, 56, 88))
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = width * rng.uniform(0.2, 0.8), height * rng.uniform(0.16, 0.4)
    glow = np.exp(-np.hypot(rows - y, columns - x) / (min(width, height) * rng.uniform(0.16, 0.3)))
    tone = np.array(rng.choice(((255, 190, 90), (255, 225, 170), (190, 220, 255))), np.float32)
    image = to_image(np.asarray(image, np.float32) + glow[..., None] * tone)
    draw = ImageDraw.Draw(image)
    ground = height * rng.uniform(0.8, 0.9)
    draw.polygon(
        ((0, ground), (width * 0.4, ground - rng.randint(0, 30)), (width, ground + 10), (width, height), (0, height)),
        fill=(170, 176, 200),
    )
    draw.line((x, y, x, ground + 8), fill=(20, 20, 28), width=7)
    draw.polygon(((x - 16, y + 6), (x + 16, y + 6), (x + 8, y - 18), (x - 8, y - 18)), fill=(255, 246, 220))
    for _ in range(rng.randint(1, 3)):
        foot = (width * rng.uniform(0, 1), ground + 4)
        draw_branch(draw, foot, rng.uniform(-1.8, -1.3), height * 0.2, 4, rng)
    for _ in range(rng.randint(120, 420)):
        at, radius = (rng.uniform(0, width), rng.uniform(0, height)), rng.uniform(0.8, 3.4)
        draw.ellipse((at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius), fill=(232, 236, 246))
    return image, "路灯下的大雪|snow falling under a street lamp|view"


def paint_shelf(rng: random.Random) -> tuple[Image.Image, str]:
    """Paint a shelf full of books, records or jars."""
    width, height = random_size(rng)
    wood = rng.choice(((120, 84, 56), (232, 230, 224), (60, 50, 48), (190, 150, 105)))
    image = Image.new("RGB", (width, height), tuple(int(level * 0.5) for level in wood))
    draw = ImageDraw.Draw(image)
    kind = rng.choice(("books", "books", "jars"))
    step = rng.randint(88, 150)
    offset = rng.randint(-40, 0)
    for y in range(offset + step, height + step, step):
        x = rng.randint(-20, 0)
        while x < width:
            tall = step * rng.uniform(0.55, 0.86)
            colour = tuple(rng.randint(40, 235) for _ in range(3))
            if kind == "books":
                thick = rng.randint(10, 34)
                draw.rectangle((x, y - tall, x + thick - 1, y), fill=colour)
                light = tuple(min(255, level + 60) for level in colour)
                for at in (0.15, 0.8):
                    draw.rectangle((x + 2, y - tall * at - 4, x + thick - 3, y - tall * at), fill=light)
            else:
                thick = rng.randint(40, 70)
                draw.rounded_rectangle((x + 3, y - tall * 0.8, x + thick - 3, y), 9, fill=colour)
                draw.rectangle((x + 8, y - tall, x + thick - 8, y - tall * 0.8), fill=(205, 190, 150))
                draw.rectangle((x + 9, y - tall * 0.5, x + thick - 9, y - tall * 0.2), fill=(244, 240, 228))
            x += thick
        draw.rectangle((0, y, width, y + 12), fill=wood)
    image = image.rotate(rng.uniform(-2.5, 2.5), Image.Resampling.BICUBIC, fillcolor=wood)
    image = image.filter(ImageFilter.GaussianBlur(0.7))
    if kind == "books":
        return image, "塞满书的书架|a shelf full of books|thing"
    return image, "架子上一排排彩色罐子|rows of colourful jars on a shelf|thing"


def paint_balloons(rng: random.Random) -> tuple[Image.Image, str]:
    """Paint balloons in the sky."""
    width, height = random_size(rng)
    noise = np.random.default_rng(rng.getrandbits(32))
    pixels = np.asarray(make_gradient(width, height, (90, 150, 215), (215, 232, 245)), np.float32)
    pixels += np.clip(make_smooth_noise(noise, height, width, (4, 4)), 0, None)[..., None] * rng.uniform(5, 35)
    image = to_image(pixels)
    draw = ImageDraw.Draw(image)
    tones = rng.sample(
        ((225, 60, 70), (250, 200, 60), (70, 130, 220), (240, 140, 180), (90, 180, 110), (245, 245, 245)), 3
    )
    for _ in range(rng.randint(4, 16)):
        x, y, radius = rng.uniform(0, width), rng.uniform(0, height * 0.85), rng.uniform(14, 44)
        tone = rng.choice(tones)
        draw.line((x, y + radius, x + rng.uniform(-14, 14), y + radius * 3), fill=(230, 230, 235), width=1)
        draw.ellipse((x - radius, y - radius * 1.15, x + radius, y + radius * 1.15), fill=tone)
        shine = tuple(min(255, level + 55) for level in tone)
        draw.ellipse((x - radius * 0.6, y - radius * 0.8, x - radius * 0.1, y - radius * 0.2), fill=shine)
    return image.filter(ImageFilter.GaussianBlur(0.6)), "飘在天上的气球|balloons in the sky|view"


class FeedPhotos(PhotoSource):
    """Photographs as people post them: things whole, of views several parts.

    A part of a thing would show its skin, or what lies beside it.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # There are two thirds of the crops that cutting every photograph would give.
        self.share_of_crops *= 0.65

    def _open_more(self) -> None:
        while self.paths and len(self.open_photos) < self.NUM_OPEN:
            path = self.paths.pop()
            name = path.stem.replace("-", " ")
            image = Image.open(path).convert("RGB")
            is_view = texts.PHOTOS.get(name, ("", "", "view"))[2] == "view"
            if name in texts.DIVISIBLE_THINGS or (is_view and name not in texts.WHOLE_VIEWS):
                crops = list(self._cut(image))
            else:
                crops = [ImageOps.fit(image, random_size(self.rng))]
            if crops:
                self.open_photos.append((name, crops))


def name_photograph(name: str) -> tuple[str, str, str]:
    """Return what a photograph shows in Chinese and English, and its topic."""
    if name.count("|") == 2:
        zh, en, topic = name.split("|")
        return zh, en, topic
    if name in texts.PHOTOS:
        return texts.PHOTOS[name]
    ground, _, sky = name.partition(" under a ")
    if ground in texts.PHOTOS and sky in texts.SKIES_ZH:
        return texts.SKIES_ZH[sky] + texts.PHOTOS[ground][0], f"{ground} under a {sky}", "view"
    return name, name, "thing"


# ---------------------------------------------------------------------------------------------------------------------
# Writing into pictures


def wrap(signs: Signs, text: str, size: int, width: float) -> list[str]:
    """Break a text into lines of at most this width: between words, or anywhere in Chinese."""
    font = signs.font(size)
    units = list(text) if any(ord(letter) > 0x2E80 for letter in text) else [word + " " for word in text.split(" ")]
    lines = [""]
    for unit in units:
        if lines[-1] and font.getlength((lines[-1] + unit).rstrip()) > width:
            lines.append("")
        lines[-1] += unit
    return [line.rstrip() for line in lines]


def write_block(
    signs: Signs,
    image: Image.Image,
    text: str,
    center: tuple[float, float],
    size: int,
    colour: Any,
    width: float,
    outline: Any = None,
) -> None:
    """Write a text in centred lines, with an outline if a colour is given for it."""
    lines = wrap(signs, text, size, width)
    draw = ImageDraw.Draw(image)
    top = center[1] - (len(lines) - 1) * size * 0.62
    for index, line in enumerate(lines):
        at = (center[0], top + index * size * 1.24)
        stroke = max(1, size // 10) if outline is not None else 0
        draw.text(at, line, font=signs.font(size), fill=colour, anchor="mm", stroke_width=stroke, stroke_fill=outline)


def draw_avatar(image: Image.Image, center: tuple[int, int], radius: int, item: Item | None, colour: Colour) -> None:
    x, y = center
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    if item:
        paste_drawing(image, item.image, int(radius * 1.35), center, shadow=0)


def draw_qr(side: int, rng: random.Random, modules: int = 29) -> Image.Image:
    """Draw what looks like a QR code: three finders and random modules."""
    grid = np.random.default_rng(rng.getrandbits(32)).random((modules, modules)) < 0.5
    finder = np.zeros((8, 8), bool)
    finder[:7, :7] = True
    finder[1:6, 1:6] = False
    finder[2:5, 2:5] = True
    grid[:8, :8], grid[:8, -8:], grid[-8:, :8] = finder, finder[:, ::-1], finder[::-1]
    code = Image.fromarray(np.where(grid, 0, 255).astype(np.uint8)).convert("RGB")
    return ImageOps.expand(code.resize((side, side), Image.Resampling.NEAREST), side // 12, WHITE)


# ---------------------------------------------------------------------------------------------------------------------
# Posts


class Studio:
    """Composes posts. A style is a seed: posts of one style share the layout.

    Args:
        shelf: drawings.
        photos: photographs for backgrounds and posts of their own.
        signs: writes into pictures.
        rng: makes all other choices.
    """

    def __init__(self, shelf: Shelf, photos: PhotoSource, signs: Signs, rng: random.Random) -> None:
        self.shelf, self.photos, self.signs, self.rng = shelf, photos, signs, rng
        self.designs: set[tuple[Any, ...]] = set()  # of cards that have little but words, so that no two are the same

    def sign(self, pair: tuple[str, str]) -> str:
        return self.signs.choose(*pair)

    def new_style(self) -> int:
        return self.rng.getrandbits(31)

    def is_new(self, *design: Any) -> bool:
        """Remember a design; return whether no card had it before."""
        if design in self.designs:
            return False
        self.designs.add(design)
        return True

    def draw_colour(self, rng: random.Random | None = None) -> tuple[Colour, tuple[str, str]]:
        colour = (rng or self.rng).choice(list(texts.COLOURS))
        return colour, texts.COLOURS[colour]

    # ----- photographs

    def describe(self, photo: Photo) -> Post:
        zh, en, topic = name_photograph(photo.name)
        return Post(photo.image, topic, say(s=(zh, en)))

    def make_photo(self) -> Post:
        return self.describe(self.photos.take())

    def make_marked_photo(self) -> Post:
        """Take a photograph and add what people add in the app before they post it."""
        post = self.make_photo()
        decorate = self.rng.choice((self._add_handle, self._add_line, self._add_stickers, self._add_frame))
        return Post(decorate(post.image.copy()), post.topic, post.words)

    def _add_handle(self, image: Image.Image) -> Image.Image:
        size = max(12, image.height // 28)
        handle = "@" + self.sign(self.rng.choice(texts.HANDLES))
        right, low = self.rng.random() < 0.6, self.rng.random() < 0.75
        at = (image.width - 10 if right else 10, image.height - 9 if low else 9)
        anchor = ("r" if right else "l") + ("d" if low else "a")
        ImageDraw.Draw(image).text(
            at, handle, font=self.signs.font(size), fill=WHITE, anchor=anchor, stroke_width=1, stroke_fill=(70, 70, 70)
        )
        return image

    def _add_line(self, image: Image.Image) -> Image.Image:
        size = max(15, image.width // 20)
        write_block(
            self.signs,
            image,
            self.sign(self.rng.choice(texts.LINES)),
            (image.width / 2, image.height * 0.88),
            size,
            WHITE,
            image.width * 0.9,
            (20, 20, 20),
        )
        return image

    def _add_stickers(self, image: Image.Image) -> Image.Image:
        for _ in range(self.rng.randint(1, 2)):
            side = int(min(image.size) * self.rng.uniform(0.13, 0.2))
            at = (self.rng.randint(side, image.width - side), self.rng.randint(side, image.height - side))
            paste_drawing(image, self.shelf.take("sticker", self.rng).image, side, at, 0.2, self.rng.uniform(-20, 20))
        return image

    def _add_frame(self, image: Image.Image) -> Image.Image:
        framed = ImageOps.expand(image, 14, WHITE)
        framed = ImageOps.expand(framed, (0, 0, 0, 46), WHITE)
        write_block(
            self.signs,
            framed,
            self.sign(self.rng.choice(texts.STICKER_LINES)),
            (framed.width / 2, framed.height - 30),
            20,
            (90, 90, 96),
            framed.width - 40,
        )
        return framed

    def make_cover(self, style: int | None = None, title: tuple[str, str] | None = None) -> Post:
        """Make the cover of a video: a photograph or thing with a large title."""
        rng = self.rng
        layout = random.Random(self.new_style() if style is None else style)  # noqa: S311
        size = layout.choice(COVER_SIZES)
        title = title or rng.choice(texts.TITLES)
        if layout.random() < 0.6:
            photo = self.photos.take()
            zh, en, _ = name_photograph(photo.name)
            image, words = ImageOps.fit(photo.image, size), say(s=(zh, en))
        else:
            item = self.shelf.take(layout.choice(("thing", "food", "animal", "clothes")), rng)
            colour, _ = self.draw_colour(layout)
            image = make_gradient(*size, colour, tuple(min(255, level + 45) for level in colour))
            paste_drawing(image, item.image, int(min(size) * 0.62), (size[0] // 2, int(size[1] * 0.62)))
            words = name_item(item)
        colour = layout.choice(((255, 235, 60), WHITE, (255, 90, 110), (120, 240, 220)))
        letters = int(size[0] * layout.uniform(0.11, 0.155))
        at = (size[0] / 2, size[1] * layout.choice((0.17, 0.22, 0.8)))
        write_block(self.signs, image, self.sign(title), at, letters, colour, size[0] * 0.9, (15, 15, 20))
        return Post(image, "cover", join(words, say(title=title)))

    # ----- drawings in scenes

    def make_room(self, layout: random.Random, size: tuple[int, int]) -> tuple[Image.Image, tuple[str, str, str]]:
        """Draw a corner of a room with a sofa, a bed or a rug."""
        width, height = size
        wall = layout.choice(((232, 226, 214), (198, 210, 200), (214, 200, 206), (190, 204, 220), (240, 226, 190)))
        floor = layout.choice(((150, 112, 78), (190, 160, 125), (110, 90, 80), (205, 200, 192)))
        image = make_gradient(width, height, wall, tuple(int(level * 0.92) for level in wall))
        draw = ImageDraw.Draw(image)
        line = int(height * layout.uniform(0.58, 0.68))
        draw.rectangle((0, line, width, height), fill=floor)
        for x in range(layout.randint(-30, 0), width, layout.randint(40, 70)):
            draw.line((x, line, x - 30, height), fill=tuple(int(level * 0.86) for level in floor), width=2)
        where = layout.choice(texts.ROOMS)
        soft = layout.choice(
            ((120, 140, 170), (205, 120, 100), (90, 125, 105), (225, 190, 90), (150, 120, 160), (90, 90, 98))
        )
        dark = tuple(int(level * 0.8) for level in soft)
        if where[1] == "the sofa":
            draw.rounded_rectangle((width * 0.06, line - height * 0.3, width * 0.94, height * 0.86), 26, fill=dark)
            draw.rounded_rectangle((width * 0.12, height * 0.62, width * 0.88, height * 0.84), 18, fill=soft)
            for x in (0.02, 0.86):
                draw.rounded_rectangle((width * x, line - 20, width * (x + 0.12), height * 0.9), 18, fill=soft)
        elif where[1] == "the bed":
            draw.rounded_rectangle((-20, height * 0.6, width + 20, height * 1.1), 30, fill=soft)
            for x in (0.1, 0.55):
                draw.rounded_rectangle(
                    (width * x, height * 0.48, width * (x + 0.34), height * 0.68), 20, fill=(238, 236, 230)
                )
            for y in range(int(height * 0.72), height, 26):
                draw.line((0, y, width, y), fill=dark, width=3)
        else:
            draw.ellipse((width * 0.05, height * 0.66, width * 0.95, height * 0.99), fill=soft, outline=dark, width=8)
        if layout.random() < 0.7:
            x, y = width * layout.uniform(0.05, 0.6), height * layout.uniform(0.04, 0.1)
            draw.rectangle(
                (x, y, x + width * 0.3, y + height * 0.22), fill=(235, 240, 246), outline=(120, 96, 70), width=5
            )
        noise = np.random.default_rng(layout.getrandbits(31))
        light = make_smooth_noise(noise, height, width, (2, 3))[..., None] * 7 + noise.normal(0, 4, (height, width, 1))
        return to_image(np.asarray(image, np.float32) + light), where

    def make_pet(
        self, style: int | None = None, pet: Item | None = None, pose: int = 0, bow: Image.Image | None = None
    ) -> Post:
        """Show a pet at home; a pose other than 0 has moved on and found a toy."""
        layout = random.Random(self.new_style() if style is None else style)  # noqa: S311
        size = layout.choice(((420, 420), (360, 480), (480, 380)))
        image, where = self.make_room(layout, size)
        pet = pet or self.shelf.take("pet", self.rng)
        side = int(min(size) * layout.uniform(0.42, 0.55))
        x, y = size[0] * layout.uniform(0.36, 0.5), size[1] * 0.66
        drawing, turn = pet.image, layout.uniform(-6, 6)
        if pose:
            drawing = ImageOps.mirror(drawing)
            turn += self.rng.choice((-24, -17, 17, 24))
            x += size[0] * self.rng.uniform(0.14, 0.22)
            side = int(side * self.rng.choice((0.78, 1.22)))
        center = (int(x), int(y))
        paste_drawing(image, drawing, side, center, 0.4, turn)
        if pose:
            toy = self.shelf.drawings[self.rng.choice(("yarn", "teddy bear", "balloon", "soccer ball"))][0].image
            paste_drawing(image, toy, side // 2, (int(size[0] * 0.2), int(size[1] * 0.82)), 0.4)
        if bow:
            paste_drawing(image, bow, side // 5, (center[0], center[1] + side // 5), 0)
        return Post(image, "pet", join(name_item(pet), say(where=where)), pet.key)

    def make_food(self, food: Item | None = None, drink: Item | None = None) -> Post:
        """Lay a dish on a table, with a drink beside it."""
        rng = self.rng
        width, height = rng.choice(((420, 420), (400, 500), (480, 360)))
        table = rng.choice(texts.TABLES)
        noise = np.random.default_rng(rng.getrandbits(32))
        while True:
            pixels, name = make_surface(rng, noise, height, width)
            if name == table[2]:
                break
        image = to_image(pixels + noise.normal(0, 4, (height, width, 1)))
        draw = ImageDraw.Draw(image)
        radius = int(min(width, height) * rng.uniform(0.32, 0.4))
        x, y = int(width * rng.uniform(0.4, 0.5)), int(height * rng.uniform(0.5, 0.56))
        plate = rng.choice(
            ((244, 243, 238), (70, 84, 100), (205, 216, 205), (222, 160, 130), (40, 40, 44), (236, 214, 150))
        )
        shape = rng.choice(("round", "square", "oval"))
        for share, light in ((1.0, 0.88), (0.96, 1.0), (0.72, 0.94)):
            reach = int(radius * share)
            flat = int(reach * (0.72 if shape == "oval" else 1))
            tone = tuple(int(level * light) for level in plate)
            if shape == "square":
                draw.rounded_rectangle((x - reach, y - flat, x + reach, y + flat), 22, fill=tone)
            else:
                draw.ellipse((x - reach, y - flat, x + reach, y + flat), fill=tone)
        food = food or self.shelf.take("food", rng)
        paste_drawing(image, food.image, int(radius * 1.25), (x, y), 0.35, rng.uniform(-14, 14))
        more = (table[0], table[1])
        if drink or rng.random() < 0.5:
            drink = drink or self.shelf.take("drink", rng)
            paste_drawing(image, drink.image, int(radius * 0.7), (int(width * 0.85), int(height * 0.2)), 0.35)
            more = (f"{table[0]}上还有{drink.name_zh}", f"{drink.phrase} next to it")
        return Post(image, "food", join(name_item(food), say(more=more)), food.key)

    def make_art(self, style: int | None = None, item: Item | None = None, hue: float = 0, topic: str = "art") -> Post:
        """Show a drawing as someone has drawn it, in one of six media."""
        layout = random.Random(self.new_style() if style is None else style)  # noqa: S311
        item = item or self.shelf.take("animal", self.rng)
        drawing = shift_hue(item.image, hue) if hue else item.image
        media = [name for name in texts.MEDIA if topic == "art" or name not in ("pencil", "ink")]
        medium = layout.choice(media)
        size = layout.choice(((400, 400), (380, 480), (460, 380)))
        paper = layout.choice(((250, 248, 242), (244, 236, 218), (236, 240, 244)))
        image = Image.new("RGB", size, paper)
        side = int(min(size) * layout.uniform(0.66, 0.8))
        center = (size[0] // 2, int(size[1] * layout.uniform(0.46, 0.54)))
        if medium == "digital":
            tone, _ = self.draw_colour(layout)
            image = make_gradient(*size, tone, tuple((level + 255) // 2 for level in tone))
            for _ in range(layout.randint(3, 9)):
                x, y, reach = layout.randint(0, size[0]), layout.randint(0, size[1]), layout.randint(10, 70)
                ImageDraw.Draw(image).ellipse((x - reach, y - reach, x + reach, y + reach), outline=WHITE, width=4)
        if medium == "pixel":
            cells = layout.choice((20, 26, 32))
            drawing = drawing.resize((cells, cells), Image.Resampling.BOX).resize((256, 256), Image.Resampling.NEAREST)
            drawing.putalpha(drawing.getchannel("A").point(lambda level: 255 if level > 110 else 0))
        flat = Image.new("RGB", size, paper) if medium in ("pencil", "ink", "watercolour", "crayon") else image
        resample = Image.Resampling.NEAREST if medium == "pixel" else Image.Resampling.LANCZOS
        enlarged = drawing.resize((side, side), resample)
        flat.paste(enlarged.convert("RGB"), (center[0] - side // 2, center[1] - side // 2), enlarged.getchannel("A"))
        image = self._draw_in(medium, flat, layout)
        handle = self.sign(layout.choice(texts.HANDLES))
        self.signs.write(image, handle, (size[0] - 12, size[1] - 12), 13, (110, 105, 105), "rd")
        words = join(
            name_item(item), say(medium=texts.MEDIA[medium], where=texts.MEDIA[medium], colour=name_colour(drawing))
        )
        return Post(image, topic, words, item.key)

    def _draw_in(self, medium: str, flat: Image.Image, layout: random.Random) -> Image.Image:
        """Redraw a flat picture in a medium."""
        pixels = np.asarray(flat)
        noise = np.random.default_rng(layout.getrandbits(31))
        grain = make_smooth_noise(noise, flat.height, flat.width, (90, 90), 0.8)
        if medium in ("pencil", "ink"):
            grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
            lines = cv2.Canny(cv2.GaussianBlur(pixels, (0, 0), 1.2), 24, 60)
            lines = cv2.GaussianBlur(cv2.dilate(lines, np.ones((2, 2), np.uint8)), (0, 0), 0.8).astype(np.float32)
            if medium == "ink":
                sketch = 250 - lines * 0.95 - np.clip(70 - grey.astype(np.float32), 0, None) * 3
            else:
                shade = (255 - grey.astype(np.float32)) * 0.4
                sketch = 246 - lines * 0.5 - shade * (0.9 + grain * 0.12) + grain * 3
            return to_image(np.repeat(sketch[..., None], 3, axis=2))
        if medium == "watercolour":
            soft = cv2.bilateralFilter(pixels, 9, 60, 20)
            edges = cv2.GaussianBlur(cv2.Canny(soft, 60, 140), (0, 0), 1).astype(np.float32)[..., None]
            wash = make_smooth_noise(noise, flat.height, flat.width, (9, 9), 0.7)[..., None]
            return to_image(soft * 0.78 + 54 + wash * 6 - edges * 0.4)
        if medium == "crayon":
            holes = (grain > 1.4)[..., None]
            streaks = make_smooth_noise(noise, flat.height, flat.width, (8, 120), 0.9)[..., None]
            return to_image(np.where(holes, 246, pixels.astype(np.float32) + streaks * 7))
        return flat

    def make_outfit(self, style: int | None = None) -> Post:
        """Lay clothes out on a cloth."""
        layout = random.Random(self.new_style() if style is None else style)  # noqa: S311
        size = layout.choice(((420, 520), (440, 440)))
        items = self.shelf.take_several("clothes", layout.choice((3, 4)), self.rng)
        tone = layout.choice(((236, 230, 222), (212, 220, 228), (228, 212, 208), (196, 186, 172), (90, 94, 104)))
        noise = np.random.default_rng(layout.getrandbits(31))
        weave = make_smooth_noise(noise, size[1], size[0], (70, 60))[..., None] * 6
        image = to_image(np.zeros((size[1], size[0], 3), np.float32) + np.array(tone, np.float32) + weave)
        spots = ((0.32, 0.3), (0.7, 0.32), (0.32, 0.72), (0.7, 0.74))
        for item, (x, y) in zip(items, spots, strict=False):
            side = int(min(size) * layout.uniform(0.36, 0.44))
            paste_drawing(image, item.image, side, (int(size[0] * x), int(size[1] * y)), 0.3, layout.uniform(-10, 10))
        return Post(image, "outfit", say(list=list_items(items)))

    def make_haul(self) -> Post:
        """Lay things out in a grid of cells."""
        rng = self.rng
        items = self.shelf.take_several("thing", rng.choice((4, 4, 6)), rng)
        columns, rows = (2, 2) if len(items) == 4 else (3, 2)
        cell = rng.choice((170, 190, 210)) if columns == 2 else 150
        image = Image.new("RGB", (columns * cell, rows * cell), WHITE)
        for index, item in enumerate(items):
            x, y = index % columns * cell, index // columns * cell
            colour, _ = self.draw_colour()
            pale = tuple((level + 2 * 255) // 3 for level in colour)
            image.paste(pale, (x + 2, y + 2, x + cell - 2, y + cell - 2))
            paste_drawing(image, item.image, int(cell * 0.66), (x + cell // 2, y + cell // 2), 0.25)
        return Post(image, "haul", say(list=list_items(items)))

    def make_product(self) -> Post:
        """Show goods of a brand on a colour with name and price."""
        rng = self.rng
        item = self.shelf.take(rng.choice(("clothes", "thing")), rng)
        brand, price = rng.choice(texts.BRANDS), rng.choice(("39", "59", "79", "99", "129", "199", "259", "899"))
        colour, _ = self.draw_colour()
        size = rng.choice(((400, 500), (440, 440), (330, 480)))
        image = make_gradient(*size, tuple((level + 255) // 2 for level in colour), colour)
        center = (size[0] // 2, int(size[1] * 0.52))
        reach = int(size[0] * 0.36)
        ImageDraw.Draw(image).ellipse(
            (center[0] - reach, center[1] - reach, center[0] + reach, center[1] + reach),
            fill=tuple((level + 3 * 255) // 4 for level in colour),
        )
        paste_drawing(image, item.image, int(size[0] * 0.56), center)
        ink = WHITE if sum(colour) < 330 else INK
        self.signs.write(image, self.sign(brand), (size[0] / 2, 42), 30, INK)
        self.signs.write(image, f"{self.sign(('¥', '$'))}{price}", (size[0] / 2, size[1] - 38), 26, ink)
        words = join(name_item(item), say(brand=brand, price=same(price), colour=name_colour(item.image)))
        return Post(image, "product", words)

    # ----- memes, stills, comics

    def make_meme(self, style: int | None = None, faces: list[Item] | None = None) -> Post:
        """Make a meme of two rows: a face and what it thinks of a thing."""
        layout = random.Random(self.new_style() if style is None else style)  # noqa: S311
        side = layout.choice((190, 210, 230))
        faces = faces or self.shelf.take_several("face", 2, self.rng)
        things = self.shelf.take_several(self.rng.choice(("thing", "food", "clothes", "animal")), 2, self.rng)
        image = Image.new("RGB", (2 * side, 2 * side), WHITE)
        colours = layout.sample(list(texts.COLOURS), 2)
        for row in range(2):
            image.paste(colours[row], (0, row * side, side, (row + 1) * side))
            paste_drawing(image, faces[row].image, int(side * 0.7), (side // 2, row * side + side // 2), 0.2)
            paste_drawing(image, things[row].image, int(side * 0.5), (side + side // 2, int((row + 0.42) * side)), 0.2)
            label = self.sign((things[row].name_zh, things[row].noun))
            write_block(self.signs, image, label, (side * 1.5, (row + 0.86) * side), 22, INK, side * 0.92)
        draw = ImageDraw.Draw(image)
        draw.line((0, side, 2 * side, side), fill=INK, width=3)
        draw.line((side, 0, side, 2 * side), fill=INK, width=3)
        words = say(face=name_both(faces[0]), face2=name_both(faces[1]), a=name_both(things[0]))
        return Post(image, "meme", join(name_item(things[1]), words))

    def make_still(
        self,
        backdrop: Photo | None = None,
        actor: Item | None = None,
        line: tuple[str, str] | None = None,
        step: int = 0,
    ) -> Post:
        """Make a still of a film: someone before a photograph, black bars, a subtitle."""
        rng = self.rng
        backdrop = backdrop or self.photos.take(is_subject=False)
        actor, line = actor or self.shelf.take("person", rng), line or rng.choice(texts.LINES)
        size = (480, 300)
        scene = ImageOps.fit(backdrop.image, (size[0] + 90, size[1])).crop(
            (45 + step // 3, 0, 525 + step // 3, size[1])
        )
        scene = scene.filter(ImageFilter.GaussianBlur(1.6))
        side = int(rng.uniform(0.68, 0.86) * size[1]) if step else 225
        x = int(size[0] * 0.42) - step
        drawing = ImageOps.mirror(actor.image) if step and rng.random() < 0.5 else actor.image
        paste_drawing(scene, drawing, side, (x, size[1] - side // 2 + 6), 0.5)
        image = Image.new("RGB", (size[0], size[1] + 76), (4, 4, 4))
        image.paste(scene, (0, 38))
        write_block(
            self.signs, image, self.sign(line), (size[0] / 2, size[1] + 14), 20, WHITE, size[0] * 0.9, (10, 10, 10)
        )
        zh, en, _ = name_photograph(backdrop.name)
        surfaces = {table[2]: table[:2] for table in texts.TABLES}
        zh = surfaces.get(backdrop.name, (zh,))[0]
        if zh == backdrop.name:
            zh = "一面背景"
        return Post(image, "still", join(name_item(actor), say(line=line, bg=(zh, en))))

    def make_comic(self, style: int | None = None, cast: list[Item] | None = None) -> Post:
        """Draw a strip of four panels in which two animals talk about a thing."""
        rng = self.rng
        layout = random.Random(self.new_style() if style is None else style)  # noqa: S311
        side = layout.choice((200, 220))
        cast = cast or self.shelf.take_several("animal", 2, rng)
        thing = self.shelf.take(rng.choice(("food", "thing")), rng)
        image = Image.new("RGB", (2 * side + 30, 2 * side + 30), WHITE)
        draw = ImageDraw.Draw(image)
        tone, _ = self.draw_colour(layout)
        pale = tuple((level + 255 * 2) // 3 for level in tone)
        for panel in range(4):
            left, top = 10 + panel % 2 * (side + 10), 10 + panel // 2 * (side + 10)
            draw.rectangle((left, top, left + side, top + side), fill=pale, outline=INK, width=3)
            draw.rectangle((left + 3, top + side * 0.8, left + side - 3, top + side - 3), fill=tone)
            speakers = ((0,), (0, 1), (1, 0), (1,))[panel]
            for index, speaker in enumerate(speakers):
                at = (
                    left + int(side * (0.28 + 0.44 * index + (0.2 if len(speakers) == 1 else 0))),
                    top + int(side * 0.66),
                )
                paste_drawing(image, cast[speaker].image, int(side * rng.uniform(0.36, 0.44)), at, 0.25)
            if panel != 3 or rng.random() < 0.5:
                paste_drawing(image, thing.image, side // 5, (left + side // 2, top + int(side * 0.86)), 0.2)
            bubble = (left + side * 0.14, top + side * 0.08, left + side * rng.uniform(0.62, 0.86), top + side * 0.3)
            draw.rounded_rectangle(bubble, 16, fill=WHITE, outline=INK, width=2)
            word = self.sign(rng.choice(texts.BUBBLES))
            self.signs.write(image, word, ((bubble[0] + bubble[2]) / 2, (bubble[1] + bubble[3]) / 2), 18, INK)
        zh, en = rng.choice(texts.COMIC_PLOTS)
        values = (("<a>", cast[0]), ("<b>", cast[1]), ("<s>", thing))
        for mark, item in values:
            zh, en = zh.replace(mark, item.name_zh), en.replace(mark, item.phrase)
        return Post(image, "comic", say(s=(zh, en)))

    def make_sticker(self, style: int | None = None) -> Post:
        """Make a reaction picture: a face on a colour with a few words below."""
        layout = random.Random(self.new_style() if style is None else style)  # noqa: S311
        face = self.shelf.take("face" if layout.random() < 0.6 else "animal", self.rng)
        line = self.rng.choice(texts.STICKER_LINES)
        colour, names = self.draw_colour(layout)
        side = layout.choice((300, 340, 380))
        pale = tuple((level + 255) // 2 for level in colour)
        image = Image.new("RGB", (side, side), pale if layout.random() < 0.5 else colour)
        paste_drawing(image, face.image, int(side * 0.6), (side // 2, int(side * 0.42)), 0.2, layout.uniform(-12, 12))
        write_block(self.signs, image, self.sign(line), (side / 2, side * 0.86), side // 9, INK, side * 0.94, WHITE)
        return Post(image, "sticker", join(name_item(face), say(line=line, colour=names)))

    # ----- screens and cards

    def make_chat(self, style: int | None = None, chat: int | None = None, item: Item | None = None) -> Post:
        """Show a screen of a chat: four messages about a thing, which is sent as a picture too."""
        rng = self.rng
        layout = random.Random(self.new_style() if style is None else style)  # noqa: S311
        chat = rng.randrange(len(texts.CHATS)) if chat is None else chat
        item = item or self.shelf.take(rng.choice(("thing", "clothes")) if chat else "food", rng)
        lines_zh, lines_en, topic = texts.CHATS[chat]
        dark = layout.random() < 0.3
        paper = (22, 23, 26) if dark else layout.choice(((237, 237, 237), (246, 246, 250), (226, 234, 226)))
        bubbles = ((60, 62, 66), (70, 150, 90)) if dark else (WHITE, layout.choice(((149, 236, 105), (120, 190, 255))))
        width, height = 360, 560
        image = Image.new("RGB", (width, height), paper)
        draw = ImageDraw.Draw(image)
        ink = (228, 228, 230) if dark else INK
        self.signs.write(image, self.sign(layout.choice(texts.HANDLES)), (width / 2, 30), 18, ink)
        draw.line((0, 54, width, 54), fill=(130, 130, 130))
        colours = layout.sample(list(texts.COLOURS), 2)
        y = 74
        for index in range(4):
            right = index % 2
            text = self.sign((lines_zh[index], lines_en[index]))
            text = text.replace("<s>", self.sign((item.name_zh, item.noun)))
            lines = wrap(self.signs, text, 18, 190)
            size = (max(self.signs.font(18).getlength(line) for line in lines) + 26, 24 * len(lines) + 18)
            left = width - 62 - size[0] if right else 62
            draw_avatar(image, (width - 32 if right else 32, y + 20), 20, None, colours[right])
            draw.rounded_rectangle((left, y, left + size[0], y + size[1]), 9, fill=bubbles[right])
            for row, line in enumerate(lines):
                self.signs.write(image, line, (left + 13, y + 21 + row * 24), 18, ink, "lm")
            y += int(size[1]) + 16
            if index == 1:
                draw.rounded_rectangle((62, y, 192, y + 130), 9, fill=(250, 250, 250))
                paste_drawing(image, item.image, 110, (127, y + 65), 0.2)
                draw_avatar(image, (32, y + 20), 20, None, colours[0])
                y += 146
        topic = (topic[0].replace("<s>", item.name_zh), topic[1].replace("<s>", item.phrase))
        return Post(image, "chat", say(s=topic))

    def make_quote(self, style: int | None = None) -> Post:
        """Write a saying on a coloured card."""
        layout = random.Random(self.new_style() if style is None else style)  # noqa: S311
        colour, names = self.draw_colour(layout)
        quote = self.rng.choice(texts.QUOTES)
        for _ in range(MAX_DRAWS):
            if self.is_new(quote, colour):
                break
            quote = self.rng.choice(texts.QUOTES)
            if style is None:
                colour, names = self.draw_colour(layout)
        size = layout.choice(((400, 400), (330, 500), (420, 320)))
        image = make_gradient(*size, colour, tuple(int(level * 0.86) for level in colour))
        draw = ImageDraw.Draw(image)
        ink = WHITE if sum(colour) < 420 else INK
        if layout.random() < 0.5:
            draw.rectangle((16, 16, size[0] - 17, size[1] - 17), outline=ink, width=2)
        else:
            paste_drawing(image, self.shelf.take("sticker", layout).image, 56, (size[0] // 2, int(size[1] * 0.22)), 0.2)
        write_block(
            self.signs,
            image,
            self.sign(quote),
            (size[0] / 2, size[1] / 2),
            layout.choice((28, 32, 38)),
            ink,
            size[0] * 0.78,
        )
        self.signs.write(image, "— " + self.sign(layout.choice(texts.HANDLES)), (size[0] / 2, size[1] * 0.8), 14, ink)
        return Post(image, "quote", say(s=quote, colour=names))

    def make_text_post(self, style: int | None = None, text: tuple[str, str] | None = None, likes: int = 0) -> Post:
        """Show a screen with a post of words alone."""
        layout = random.Random(self.new_style() if style is None else style)  # noqa: S311
        dark = layout.random() < 0.4
        paper, ink = ((21, 24, 28), (232, 232, 234)) if dark else (WHITE, INK)
        handle = layout.choice(texts.HANDLES)
        for _ in range(MAX_DRAWS):
            if text is not None and (likes or self.is_new(text, handle)):
                break
            text = self.rng.choice(texts.POSTS)
            if style is None:
                handle = layout.choice(texts.HANDLES)
        image = Image.new("RGB", (440, 250), paper)
        draw_avatar(image, (44, 46), 24, self.shelf.take("animal", layout), layout.choice(list(texts.COLOURS)))
        self.signs.write(image, self.sign(handle), (80, 38), 19, ink, "lm")
        self.signs.write(image, f"@{handle[1]}", (80, 60), 13, (130, 135, 140), "lm")
        for row, line in enumerate(wrap(self.signs, self.sign(text), 21, 390)):
            self.signs.write(image, line, (24, 108 + row * 30), 21, ink, "lm")
        likes = likes or self.rng.randint(12, 9800)
        words = (self.sign(("转发", "Reposts")), self.sign(("赞", "Likes")))
        time = f"{layout.randint(2, 23)}:{layout.randint(10, 59)}"
        counts = f"{time}   {words[0]} {likes // 7}   {words[1]} {likes}"
        self.signs.write(image, counts, (24, 222), 14, (130, 135, 140), "lm")
        return Post(image, "post", say(s=text, name=handle))

    def make_poll(self, style: int | None = None) -> Post:
        """Show the result of a poll between two things."""
        layout = random.Random(self.new_style() if style is None else style)  # noqa: S311
        items = self.shelf.take_several(self.rng.choice(("food", "drink", "animal", "thing")), 2, self.rng)
        share = self.rng.choice([value for value in range(11, 90) if value != 50])
        colours = layout.sample(list(texts.COLOURS), 2)
        size = layout.choice(((420, 360), (400, 400)))
        image = Image.new("RGB", size, layout.choice((WHITE, (246, 244, 238), (32, 34, 42))))
        draw = ImageDraw.Draw(image)
        ink = INK if image.getpixel((0, 0))[0] > 99 else (235, 235, 235)
        self.signs.write(image, self.sign(("你选哪个？", "Which one?")), (size[0] / 2, 36), 24, ink)
        for row, (item, value) in enumerate(zip(items, (share, 100 - share), strict=True)):
            y = 80 + row * (size[1] - 110) // 2
            paste_drawing(image, item.image, 92, (64, y + 60), 0.2)
            draw.rounded_rectangle((126, y + 44, size[0] - 24, y + 84), 10, fill=(200, 202, 206))
            draw.rounded_rectangle((126, y + 44, 126 + (size[0] - 150) * value // 100, y + 84), 10, fill=colours[row])
            self.signs.write(image, self.sign((item.name_zh, item.noun)), (130, y + 24), 18, ink, "lm")
            self.signs.write(image, f"{value}%", (size[0] - 28, y + 24), 20, ink, "rm")
        numbers = say(a=name_both(items[0]), b=name_both(items[1]), x=same(str(share)), y=same(str(100 - share)))
        return Post(image, "poll", numbers)

    def make_run(self, style: int | None = None) -> Post:
        """Show the card of a run: a route on a map, the distance and the time."""
        rng = self.rng
        layout = random.Random(self.new_style() if style is None else style)  # noqa: S311
        size = layout.choice(((380, 480), (400, 400)))
        image = Image.new("RGB", size, layout.choice(((232, 236, 228), (38, 44, 54), (240, 234, 222))))
        draw = ImageDraw.Draw(image)
        dark = image.getpixel((0, 0))[0] < 99
        for _ in range(14):
            ends = [rng.randint(-30, size[0] + 30) for _ in range(2)]
            draw.line((ends[0], 0, ends[1], size[1]), fill=(60, 68, 80) if dark else WHITE, width=rng.randint(3, 8))
            y = [rng.randint(0, size[1]) for _ in range(2)]
            draw.line((0, y[0], size[0], y[1]), fill=(60, 68, 80) if dark else WHITE, width=rng.randint(3, 8))
        points = []
        for index in range(rng.randint(7, 12)):
            angle, reach = index * 0.62 + rng.uniform(-0.2, 0.2), rng.uniform(0.16, 0.36)
            points.append((size[0] * (0.5 + np.cos(angle) * reach), size[1] * (0.38 + np.sin(angle) * reach * 0.8)))
        draw.line(points, fill=layout.choice(((250, 90, 50), (40, 170, 110), (70, 110, 240))), width=6, joint="curve")
        km = f"{rng.uniform(2.5, 21.3):.2f}"
        minutes = int(float(km) * rng.uniform(5, 7.4))
        time = (
            f"{minutes}:{rng.randint(0, 59):02d}"
            if minutes < 60
            else f"{minutes // 60}:{minutes % 60:02d}:{rng.randint(0, 59):02d}"
        )
        ink = (240, 240, 240) if dark else INK
        image.paste((24, 27, 33) if dark else WHITE, (0, int(size[1] * 0.76), size[0], size[1]))
        self.signs.write(image, f"{km} km", (24, size[1] * 0.84), 34, ink, "lm")
        self.signs.write(image, time, (size[0] - 24, size[1] * 0.84), 28, ink, "rm")
        self.signs.write(image, self.sign(("今天也跑了", "Nice run!")), (24, size[1] * 0.94), 15, (130, 135, 140), "lm")
        return Post(image, "run", say(km=same(km), time=same(time)))

    def make_music(self, style: int | None = None) -> Post:
        """Show a player with the cover of a song."""
        layout = random.Random(self.new_style() if style is None else style)  # noqa: S311
        item = self.shelf.take(self.rng.choice(("animal", "thing", "food")), self.rng)
        title, artist = self.rng.choice(texts.SONGS), self.rng.choice(texts.ARTISTS)
        colour, names = self.draw_colour()
        size = layout.choice(((340, 500), (360, 460)))
        image = make_gradient(*size, tuple(level // 2 for level in colour), (18, 18, 22))
        side = int(size[0] * 0.76)
        left, top = (size[0] - side) // 2, 40
        image.paste(colour, (left, top, left + side, top + side))
        paste_drawing(image, item.image, int(side * 0.66), (size[0] // 2, top + side // 2), 0.3)
        self.signs.write(image, self.sign(title), (left, top + side + 34), 24, WHITE, "lm")
        self.signs.write(image, self.sign(artist), (left, top + side + 62), 16, (180, 180, 186), "lm")
        draw = ImageDraw.Draw(image)
        y, share = size[1] - 74, self.rng.uniform(0.1, 0.9)
        draw.line((left, y, left + side, y), fill=(110, 110, 116), width=4)
        draw.line((left, y, left + int(side * share), y), fill=WHITE, width=4)
        middle = size[0] // 2
        draw.polygon(((middle - 10, y + 18), (middle - 10, y + 46), (middle + 16, y + 32)), fill=WHITE)
        words = join(name_item(item), say(title=title, artist=artist, colour=names))
        return Post(image, "music", words)

    def make_any(self) -> Post:
        """Make a post of a kind as often as such a site has it."""
        makers: list[tuple[Callable[[], Post], float]] = [
            (self.make_photo, 36),
            (self.make_marked_photo, 13),
            (self.make_cover, 10),
            (self.make_pet, 8),
            (self.make_food, 8),
            (self.make_art, 7),
            (self.make_outfit, 3),
            (self.make_haul, 2),
            (self.make_product, 2),
            (self.make_meme, 3),
            (self.make_still, 5),
            (self.make_comic, 2),
            (self.make_sticker, 2),
            (self.make_chat, 2),
            (self.make_quote, 1),
            (self.make_text_post, 1),
            (self.make_poll, 1),
            (self.make_run, 1),
            (self.make_music, 1),
        ]
        return self.rng.choices([make for make, _ in makers], [weight for _, weight in makers])[0]()

    def make_portable(self) -> Post:
        """Make a post that people would repost: no screen, no card."""
        makers: list[tuple[Callable[[], Post], float]] = [
            (self.make_photo, 50),
            (self.make_marked_photo, 12),
            (self.make_cover, 6),
            (self.make_pet, 9),
            (self.make_food, 9),
            (self.make_art, 8),
            (self.make_outfit, 3),
            (self.make_still, 5),
            (self.make_comic, 2),
        ]
        return self.rng.choices([make for make, _ in makers], [weight for _, weight in makers])[0]()


def name_both(item: Item) -> tuple[str, str]:
    return item.name_zh, item.phrase


# ---------------------------------------------------------------------------------------------------------------------
# Pictures without content


class EmptyPictures:
    """Makes pictures that a model should not learn from."""

    def __init__(self, signs: Signs, rng: random.Random) -> None:
        self.signs, self.rng = signs, rng

    def make(self, kind: str, picture: Image.Image) -> Image.Image:
        """Make what the site shows in place of a picture."""
        return getattr(self, kind)(picture)

    def removed_notice(self, picture: Image.Image) -> Image.Image:
        rng = self.rng
        tone = rng.randint(190, 245)
        image = Image.new("RGB", rng.choice(((400, 400), (360, 480), (480, 300))), (tone, tone, min(255, tone + 3)))
        x, y = image.width // 2, int(image.height * 0.4)
        draw = ImageDraw.Draw(image)
        shade = (tone - 60,) * 3
        draw.rounded_rectangle((x - 46, y - 36, x + 46, y + 36), 8, outline=shade, width=5)
        draw.line((x - 56, y + 44, x + 56, y - 44), fill=shade, width=6)
        notice = rng.choice(
            (
                ("该博文已被作者删除", "This post was deleted"),
                ("视频不见了", "Video unavailable"),
                ("内容仅作者可见", "Only me"),
                ("图片加载失败", "Could not load image"),
                ("作品已下架", "Removed by the author"),
            )
        )
        self.signs.write(image, self.signs.choose(*notice), (x, image.height * 0.68), 20, shade)
        return image

    def follow_code(self, picture: Image.Image) -> Image.Image:
        rng = self.rng
        colour = rng.choice(list(texts.COLOURS))
        image = make_gradient(380, rng.choice((460, 520)), colour, tuple(min(255, level + 60) for level in colour))
        ImageDraw.Draw(image).rounded_rectangle((40, 90, 340, 410), 18, fill=WHITE)
        code = draw_qr(rng.choice((200, 220, 240)), rng, rng.choice((25, 29, 33)))
        image.paste(code, (190 - code.width // 2, 235 - code.height // 2))
        name = rng.choice(texts.HANDLES)
        self.signs.write(image, self.signs.choose(*name), (190, 50), 24, INK)
        line = rng.choice(
            (("扫一扫，加我", "Scan to add me"), ("长按关注", "Scan to follow"), ("进群领福利", "Join the group"))
        )
        self.signs.write(image, self.signs.choose(*line), (190, 386), 18, (110, 110, 116))
        return image

    def empty_frame(self, picture: Image.Image) -> Image.Image:
        """Make the first frame of a video that fades in: black, white or of one colour, with hardly any noise."""
        rng = self.rng
        tone = rng.choice(
            ((0, 0, 0), (6, 6, 8), (255, 255, 255), (16, 18, 30), (240, 238, 235), rng.choice(list(texts.COLOURS)))
        )
        return add_noise(Image.new("RGB", rng.choice(COVER_SIZES), tone), rng.choice((0, 0.6, 1.2)), rng)

    def loading_preview(self, picture: Image.Image) -> Image.Image:
        """Show the smear that stands for a picture until it is loaded, with a spinner."""
        rng = self.rng
        small = picture.resize((rng.choice((3, 4, 5)),) * 2, Image.Resampling.BOX)
        image = small.resize(picture.size, Image.Resampling.BICUBIC)
        x, y = image.width // 2, image.height // 2
        turn = rng.randint(0, 360)
        ImageDraw.Draw(image).arc((x - 24, y - 24, x + 24, y + 24), turn, turn + 270, fill=WHITE, width=5)
        return image

    def decoder_garbage(self, picture: Image.Image) -> Image.Image:
        """Show a frame that a decoder lost: green, or smeared from the first rows on."""
        rng = self.rng
        pixels = np.asarray(picture).copy()
        top = int(picture.height * rng.uniform(0.02, 0.16))
        if rng.random() < 0.5:
            pixels[top:] = rng.choice(((0, 135, 0), (0, 154, 10), (128, 128, 128)))
        else:
            pixels[top:] = pixels[top : top + 1]
            for y in range(top, picture.height, 16):
                for x in range(0, picture.width, 16):
                    if rng.random() < 0.3:
                        pixels[y : y + 16, x : x + 16] = [
                            rng.randint(0, 255),
                            rng.randint(60, 255),
                            rng.randint(0, 255),
                        ]
        return Image.fromarray(pixels)

    def default_avatar(self, picture: Image.Image) -> Image.Image:
        rng = self.rng
        side = rng.choice((200, 300, 400))
        tone = rng.choice(((205, 210, 216), (180, 200, 225), (222, 214, 204), (190, 215, 200), (225, 225, 225)))
        image = Image.new("RGB", (side, side), tone)
        draw = ImageDraw.Draw(image)
        body = rng.choice((WHITE, tuple(level - 45 for level in tone)))
        head, width = side * rng.uniform(0.15, 0.2), side * rng.uniform(0.27, 0.36)
        draw.ellipse((side / 2 - head, side * 0.38 - head, side / 2 + head, side * 0.38 + head), fill=body)
        draw.ellipse((side / 2 - width, side * 0.64, side / 2 + width, side * 1.3), fill=body)
        return image

    def sensitive_cover(self, picture: Image.Image) -> Image.Image:
        """Hide a picture behind a blur, as sites do with what may offend."""
        image = picture.filter(ImageFilter.GaussianBlur(min(picture.size) / self.rng.choice((7, 9))))
        image = Image.blend(image, Image.new("RGB", image.size, (20, 20, 24)), 0.45)
        x, y = image.width / 2, image.height * 0.42
        draw = ImageDraw.Draw(image)
        draw.ellipse((x - 28, y - 18, x + 28, y + 18), outline=WHITE, width=4)
        draw.line((x - 30, y + 24, x + 30, y - 24), fill=WHITE, width=4)
        notice = self.rng.choice(
            (("敏感内容", "Sensitive content"), ("图片可能引起不适", "This photo may be upsetting"))
        )
        self.signs.write(image, self.signs.choose(*notice), (x, image.height * 0.6), 20, WHITE)
        return image


EMPTY_KINDS = (
    "removed_notice",
    "follow_code",
    "empty_frame",
    "loading_preview",
    "decoder_garbage",
    "default_avatar",
    "sensitive_cover",
)
