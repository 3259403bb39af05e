"""Pictures of a travel and food community: scenes with what they show, pictures without content, and alterations."""

import functools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import travel_texts as texts
from making import (
    WHITE,
    Drawing,
    Photo,
    Signs,
    add_bars,
    add_noise,
    blur,
    change_brightness,
    change_contrast,
    change_gamma,
    change_saturation,
    crop_margins,
    is_solid,
    make_gradient,
    make_lights,
    make_smooth_noise,
    make_surface,
    mirror,
    name_colour,
    paste_drawing,
    pixelate,
    read_drawings,
    recompress,
    resize_by,
    tint,
    turn,
)
from PIL import Image, ImageDraw, ImageFilter, ImageOps

Facts = dict[str, dict[str, str]]
VOCABULARY = {
    "food": texts.FOODS,
    "drink": texts.DRINKS,
    "sight": texts.SIGHTS,
    "vehicle": texts.VEHICLES,
    "animal": texts.ANIMALS,
    "souvenir": texts.SOUVENIRS,
    "person": texts.PEOPLE,
    "extra": texts.TABLE_EXTRAS,
    "sticker": dict.fromkeys(texts.STICKERS, ("", "", "")),
}


@dataclass(frozen=True)
class Scene:
    """A picture with what its captions can say.

    Args:
        topic: rule of the grammar that a caption is written by.
        facts: what it shows and when and where, in both languages.
    """

    image: Image.Image
    topic: str
    facts: Facts
    is_photo: bool = False

    def write_caption(self, language: str, rng: random.Random) -> str:
        """Write one of the many captions that describe this picture."""
        grammar = texts.Grammar(texts.GRAMMARS[language])
        caption = grammar.expand(self.topic, self.facts[language], rng).strip()
        return caption[:1].upper() + caption[1:] if language == "en" and rng.random() < 0.85 else caption


def join_facts(*facts: Facts) -> Facts:
    """Merge facts; later ones win."""
    merged: Facts = {"zh": {}, "en": {}}
    for language, words in merged.items():
        for more in facts:
            words.update(more[language])
    return merged


def state(**values: tuple[str, str]) -> Facts:
    """Return facts of which each is given in Chinese and English."""
    return {
        "zh": {name: value[0] for name, value in values.items()},
        "en": {name: value[1] for name, value in values.items()},
    }


class Shelf:
    """The drawings by what they show.

    Args:
        names: shards of demo_data.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.drawings: dict[str, list[Drawing]] = {}
        all_names = [name for entries in VOCABULARY.values() for name in entries]
        for name in names:
            for drawing in read_drawings(name, all_names):
                if is_solid(drawing.image):
                    self.drawings.setdefault(drawing.name_en, []).append(drawing)

    def draw(self, category: str, rng: random.Random) -> tuple[Image.Image, tuple[str, str, str]]:
        """Return a drawing of a category with its measure word, Chinese name and English phrase."""
        entries = VOCABULARY[category]
        name = rng.choice([name for name in entries if name in self.drawings])
        return rng.choice(self.drawings[name]).image, entries[name]


# ---------------------------------------------------------------------------------------------------------------------
# Made photographs


@dataclass(frozen=True)
class View:
    """A made view: its shape is drawn by a seed, its sky, light and viewpoint are not.

    Args:
        seed: draws ridges, towers and the like.
        motif: `mountains`, `sea`, `skyline` or `forest`.
        ground: colour of the mountains.
        sky: time of day and weather.
        step: to the side, in pixels of the nearest ridge: what is near moves more than what is far.
        weather: draws clouds, waves and lit windows, which no two pictures share.
    """

    seed: int
    motif: str
    ground: str
    sky: str
    size: tuple[int, int]
    step: int = 0
    weather: int = 0

    def name(self) -> tuple[str, str, str]:
        """Return the Chinese name, the English phrase and the topic."""
        sky_zh, sky_en = texts.SKY_NAMES[self.sky]
        if self.motif == "mountains":
            ground_zh, ground_en = texts.GROUND_NAMES[self.ground]
            return f"{sky_zh}的{ground_zh}", f"{ground_en} {sky_en}", "nature"
        zh, en, topic = {
            "sea": ("海滩", "a sandy beach", "nature"),
            "skyline": ("城市高楼", "+city towers", "city_view"),
            "forest": ("树林", "a forest", "nature"),
            "lake": ("湖面倒影", "a lake with reflections", "nature"),
        }[self.motif]
        return f"{sky_zh}的{zh}", f"{en} {sky_en}", topic

    def paint(self) -> Image.Image:
        """Paint the view with grain."""
        width, height = self.size
        noise = np.random.default_rng((self.seed, self.weather))
        pixels = PAINTERS[self.motif](self, width, height)
        # The towers of a skyline have their own brightness, which their windows outshine at night.
        if self.motif != "skyline":
            pixels = pixels * np.array(SKY_LIGHT[self.sky], np.float32)
        return finish(pixels, noise)


SKY_COLOURS = {
    "noon": ((70, 130, 205), (205, 226, 240)),
    "dusk": ((120, 95, 160), (250, 180, 155)),
    "gold": ((190, 130, 70), (252, 222, 150)),
    "grey": ((140, 147, 154), (216, 218, 216)),
    "night": ((22, 28, 60), (90, 100, 145)),
    "dawn": ((150, 175, 205), (248, 214, 190)),
}
# Factors of red, green and blue that the light of a sky has on what is below it.
SKY_LIGHT = {
    "noon": (1.0, 1.0, 1.0),
    "dusk": (0.93, 0.81, 0.83),
    "gold": (1.12, 1.02, 0.82),
    "grey": (0.88, 0.88, 0.88),
    "night": (0.36, 0.4, 0.56),
    "dawn": (0.92, 0.92, 0.92),
}
GROUND_COLOURS = {
    "green": (60, 105, 48),
    "brown": (120, 88, 58),
    "blue": (62, 82, 118),
    "snow": (208, 214, 224),
    "red": (175, 88, 52),
    "tea": (95, 140, 60),
}


def paint_sky(view: View, width: int, height: int) -> np.ndarray:
    """Paint a gradient with clouds, which no two pictures of a view share."""
    noise = np.random.default_rng((view.seed, view.weather, 1))
    upper, lower = (np.array(colour, np.float32) for colour in SKY_COLOURS[view.sky])
    share = np.linspace(0, 1, height, dtype=np.float32)[:, None, None] ** 0.8
    pixels = np.repeat(upper + (lower - upper) * share, width, axis=1)
    cells = (int(noise.integers(3, 7)), int(noise.integers(2, 5)))
    clouds = make_smooth_noise(noise, height, width, cells)
    return pixels + np.clip(clouds, 0, None)[..., None] * float(noise.uniform(5, 38))


def paint_mountains(view: View, width: int, height: int) -> np.ndarray:
    """Paint two to five ridges that pale with distance."""
    noise = np.random.default_rng(view.seed)
    pixels = paint_sky(view, width, height)
    lower = np.array(SKY_COLOURS[view.sky][1], np.float32)
    rows = np.arange(height, dtype=np.float32)[:, None]
    num_ridges = int(noise.integers(2, 6))
    highest, roughness = noise.uniform(0.22, 0.5), float(noise.uniform(0.25, 0.5))
    for ridge in range(num_ridges):
        nearness = (ridge + 1) / num_ridges
        # Wider than the picture, so that a step to the side shows more of it.
        wide = width + 160
        cells = int(noise.choice((2, 3, 5)))
        profile = make_smooth_noise(noise, 1, wide, (1, cells), roughness)[0]
        texture = make_smooth_noise(noise, height, wide, (24, 30))
        level = highest + (0.9 - highest) * nearness * noise.uniform(0.8, 1)
        tone = noise.uniform(0.75, 1.1)
        offset = 80 + round(view.step * nearness)
        horizon = height * level + profile[offset : offset + width] * height * 0.08
        colour = np.array(GROUND_COLOURS[view.ground], np.float32) * nearness * tone + lower * (1 - nearness)
        shaded = colour + texture[:, offset : offset + width, None] * 22 * nearness
        pixels = np.where((rows > horizon[None])[..., None], shaded, pixels)
    return pixels


def paint_sea(view: View, width: int, height: int) -> np.ndarray:
    """Paint sky, water with waves, a shore that slants and sand."""
    noise, waves = np.random.default_rng(view.seed), np.random.default_rng((view.seed, view.weather, 2))
    pixels = paint_sky(view, width, height)
    horizon = int(height * noise.uniform(0.3, 0.55))
    water = np.array(((40, 110, 150), (60, 150, 160), (50, 85, 130))[int(noise.integers(3))], np.float32)
    rows = np.arange(height, dtype=np.float32)[:, None, None]
    depth = np.clip((rows - horizon) / max(1, height - horizon), 0, 1)
    swell = make_smooth_noise(waves, height, width, (40, 6))[..., None]
    sea = water * (0.75 + 0.5 * depth) + swell * (6 + 16 * depth)
    pixels = np.where(rows >= horizon, sea, pixels)

    slope, shore = noise.uniform(-0.25, 0.25), height * noise.uniform(0.7, 0.88)
    columns = np.arange(width, dtype=np.float32) + view.step
    edge = shore + columns * slope + make_smooth_noise(waves, 1, width, (1, 5))[0] * 6
    sand_colour = np.array(((222, 198, 155), (200, 180, 150), (235, 222, 200))[int(noise.integers(3))], np.float32)
    sand = sand_colour + make_smooth_noise(noise, height, width, (80, 60))[..., None] * 7
    pixels = np.where(rows > edge[None, :, None], sand, pixels)
    foam = np.abs(rows - edge[None, :, None]) < 4 + swell * 2
    return np.where(foam, 238, pixels)


def paint_skyline(view: View, width: int, height: int) -> np.ndarray:
    """Paint two rows of towers with windows, lit at night."""
    noise, lamps = np.random.default_rng(view.seed), np.random.default_rng((view.seed, view.weather, 3))
    canvas = np.ascontiguousarray(np.clip(paint_sky(view, width, height), 0, 255).astype(np.uint8))
    base = {"night": 0.28, "dusk": 0.55, "gold": 0.8, "grey": 0.85, "dawn": 0.75}.get(view.sky, 1)
    for nearness in (0.55, 1.0):
        x = -130
        while x < width + 130:
            tower = int(noise.integers(28, 80))
            top = int(height * (1 - noise.uniform(0.2, 0.75) * (1.25 - nearness * 0.45)))
            body = noise.integers(90, 200, 3) * 0.4 + int(noise.integers(90, 200)) * 0.6
            colour = body * base * nearness + np.array(SKY_COLOURS[view.sky][1]) * (1 - nearness) * 0.6
            left = x - round(view.step * nearness)
            cv2.rectangle(canvas, (left, top), (left + tower, height), colour.tolist(), -1)
            step_x, step_y = int(noise.integers(7, 13)), int(noise.integers(9, 16))
            lit_share = 0.55 if view.sky in ("night", "dusk") else 0.0
            for window_y in range(top + 6, height - 6, step_y):
                for window_x in range(left + 5, left + tower - 5, step_x):
                    is_lit = lamps.random() < lit_share
                    shade = (250, 215, 140) if is_lit else (colour * 0.72).tolist()
                    cv2.rectangle(
                        canvas, (window_x, window_y), (window_x + step_x // 2, window_y + step_y // 2), shade, -1
                    )
            x += tower + int(noise.integers(0, 18))
    return canvas.astype(np.float32)


def paint_forest(view: View, width: int, height: int) -> np.ndarray:
    """Paint trunks in front of leaves, lighter in the distance."""
    noise = np.random.default_rng(view.seed)
    haze = np.array(SKY_COLOURS[view.sky][1], np.float32)
    leaves = make_smooth_noise(np.random.default_rng((view.seed, view.weather)), height, width, (14, 18), 0.75)[
        ..., None
    ]
    tone = np.array(((70, 115, 50), (150, 110, 45), (60, 95, 70), (165, 75, 40))[int(noise.integers(4))], np.float32)
    pixels = tone * 0.6 + haze * 0.35 + leaves * 26
    for _ in range(int(noise.integers(9, 22))):
        nearness = noise.uniform(0.3, 1)
        x = noise.uniform(-60, width + 60) - view.step * nearness
        trunk = max(3, int(26 * nearness * noise.uniform(0.6, 1.2)))
        lean = noise.uniform(-0.08, 0.08)
        centers = (x + (np.arange(height, dtype=np.float32) - height) * lean).astype(np.float32)
        left, right = max(0, int(centers.min()) - trunk), min(width, int(centers.max()) + trunk)
        if left >= right:
            continue
        distance = np.abs(np.arange(left, right, dtype=np.float32)[None] - centers[:, None])[..., None] / trunk
        bark = np.array((70, 52, 40), np.float32) * (1.15 - distance) * nearness + haze * (1 - nearness) * 0.5
        strip = pixels[:, left:right]
        pixels[:, left:right] = np.where(distance < 0.5, bark + leaves[:, left:right] * 7, strip)
    ground = np.arange(height)[:, None, None] > height * noise.uniform(0.82, 0.92)
    return np.where(ground, tone * 0.5 + leaves * 20, pixels)


def paint_lake(view: View, width: int, height: int) -> np.ndarray:
    """Paint mountains and their reflection in water."""
    shore = int(height * 0.55)
    land = paint_mountains(replace(view, motif="mountains"), width, int(shore / 0.8))[:shore]
    noise = np.random.default_rng((view.seed, view.weather, 4))
    reflection = cv2.GaussianBlur(land[::-1], (0, 0), 2)
    water = cv2.resize(reflection, (width, height - shore))
    ripples = make_smooth_noise(noise, height - shore, width, (50, 5))[..., None]
    return np.concatenate([land, water * np.array((0.72, 0.8, 0.9), np.float32) + ripples * 9])


PAINTERS: dict[str, Callable[[View, int, int], np.ndarray]] = {
    "mountains": paint_mountains,
    "sea": paint_sea,
    "skyline": paint_skyline,
    "forest": paint_forest,
    "lake": paint_lake,
}


def draw_view(rng: random.Random) -> View:
    """Draw a view that no other picture has."""
    motif = rng.choices(("mountains", "sea", "skyline", "forest", "lake"), (4, 3, 3, 2, 2))[0]
    size = rng.choice(((480, 360), (460, 345), (360, 450), (400, 400), (500, 334), (520, 300)))
    ground, sky = rng.choice(list(texts.GROUND_NAMES)), rng.choice(list(texts.SKY_NAMES))
    return View(rng.getrandbits(31), motif, ground, sky, size)


def paint_lanterns(rng: random.Random, width: int, height: int) -> tuple[np.ndarray, tuple[str, str, str]]:
    """Hang glowing lanterns in the dark."""
    canvas = make_gradient(width, height, (18, 16, 30), (60, 38, 40))
    glow = Image.new("RGB", canvas.size)
    colour, zh, en = rng.choice(
        (((215, 50, 35), "红灯笼", "red"), ((240, 190, 70), "黄灯笼", "yellow"), ((60, 120, 200), "蓝灯笼", "blue"))
    )
    for row in range(rng.randint(2, 4)):
        radius = 13 + row * 7
        y0, step = 30 + row * height // 4, rng.randint(radius * 2 + 6, radius * 4)
        for x in range(rng.randint(-10, 20), width, step):
            y = y0 + rng.randint(-6, 14)
            draw = ImageDraw.Draw(glow)
            draw.line((x, y - radius * 2, x, y), fill=(70, 60, 50))
            draw.ellipse((x - radius, y - int(radius * 0.8), x + radius, y + int(radius * 0.8)), fill=colour)
            draw.ellipse(
                (x - radius // 2, y - radius // 2, x + radius // 2, y + radius // 2),
                fill=tuple(min(255, c + 60) for c in colour),
            )
    pixels = np.asarray(canvas, np.float32) + np.asarray(glow.filter(ImageFilter.GaussianBlur(1.6)), np.float32)
    pixels += np.asarray(glow.filter(ImageFilter.GaussianBlur(22)), np.float32) * 0.8
    return pixels, (f"夜里的一排排{zh}", f"+rows of {en} lanterns at night", "city_view")


def paint_fruit_pile(rng: random.Random, width: int, height: int) -> tuple[np.ndarray, tuple[str, str, str]]:
    """Pile up round fruit of one or two kinds."""
    fruits = (
        ((235, 140, 30), "橙子", "oranges"),
        ((200, 35, 40), "红苹果", "red apples"),
        ((130, 185, 50), "青苹果", "green apples"),
        ((225, 60, 40), "番茄", "tomatoes"),
        ((250, 210, 60), "柠檬", "lemons"),
        ((80, 45, 90), "李子", "plums"),
        ((240, 170, 140), "桃子", "peaches"),
    )  # fmt: skip
    piles = rng.sample(fruits, rng.choice((1, 2)))
    canvas = np.full((height, width, 3), 25, np.uint8)
    border = rng.uniform(0.35, 0.65) * width if len(piles) == 2 else width * 2
    radius = rng.randint(15, 38)
    for y in range(-radius, height + radius * 2, int(radius * 1.2)):
        for x in range(-radius, width + radius * 2, int(radius * 1.7)):
            at = (x + rng.randint(-7, 7) + (y // 3) % radius, y + rng.randint(-5, 5))
            colour = np.array(piles[0][0] if at[0] < border else piles[-1][0], np.float32) * rng.uniform(0.85, 1.1)
            for shrink, light in ((1.0, 0.42), (0.93, 0.75), (0.75, 0.95), (0.5, 1.08), (0.16, 1.5)):
                shift = int(radius * (1 - shrink) * 0.4)
                tone = np.clip(colour * light + (70 if light > 1.2 else 0), 0, 255).tolist()
                cv2.circle(canvas, (at[0] - shift, at[1] - shift), max(1, int(radius * shrink)), tone, -1, cv2.LINE_AA)
    names_zh = "和".join(pile[1] for pile in piles)
    names_en = " and ".join(pile[2] for pile in piles)
    pixels = cv2.GaussianBlur(canvas, (0, 0), 1).astype(np.float32)
    return pixels, (f"市场上堆成山的{names_zh}", f"+{names_en} piled up at the market", "city_view")


def paint_flower_field(rng: random.Random, width: int, height: int) -> tuple[np.ndarray, tuple[str, str, str]]:
    """Paint rows of flowers that run to the horizon."""
    view = View(
        rng.getrandbits(31), "mountains", "green", rng.choice(("noon", "gold", "grey", "dawn")), (width, height)
    )
    pixels = paint_sky(view, width, height)
    noise = np.random.default_rng(view.seed)
    tones = {
        "red": (200, 40, 50),
        "yellow": (240, 205, 50),
        "purple": (130, 80, 180),
        "pink": (235, 130, 170),
        "white": (235, 235, 230),
    }
    names = rng.sample(sorted(tones), rng.choice((1, 2, 3)))
    horizon, vanish = int(height * rng.uniform(0.25, 0.45)), rng.uniform(0.2, 0.8) * width
    rows, columns = np.mgrid[horizon:height, 0:width].astype(np.float32)
    depth = (rows - horizon + 4) / (height - horizon)
    lane = np.floor((columns - vanish) / depth / rng.uniform(45, 90)).astype(int)
    speckle = make_smooth_noise(noise, height - horizon, width, (60, 60), 0.9)
    colours = np.array([tones[name] for name in names], np.float32)[lane % len(names)]
    leaves = np.array((60, 105, 45), np.float32)
    pixels[horizon:] = np.where((speckle > -0.2)[..., None], colours, leaves) + speckle[..., None] * 18
    pixels[horizon:][(np.abs((columns - vanish) / depth / 60 % 1) < 0.06)] *= 0.6
    zh = "、".join(texts.COLOUR_NAMES[name] for name in names)
    sky_zh, sky_en = texts.SKY_NAMES[view.sky]
    return pixels, (f"{sky_zh}一垄垄{zh}的花田", f"a field of {' and '.join(names)} flowers {sky_en}", "nature")


def paint_fireworks(rng: random.Random, width: int, height: int) -> tuple[np.ndarray, tuple[str, str, str]]:
    """Paint fireworks over a dark shore."""
    canvas = make_gradient(width, height, (8, 8, 24), (40, 30, 50))
    draw = ImageDraw.Draw(canvas)
    count = rng.randint(1, 4)
    for _ in range(count):
        x, y, reach = rng.randint(60, width - 60), rng.randint(50, int(height * 0.6)), rng.randint(45, 120)
        colour = rng.choice(((255, 200, 90), (255, 90, 110), (120, 220, 255), (160, 255, 150), (230, 140, 255)))
        for spoke in range(rng.randint(24, 48)):
            angle, length = spoke * 2.399, reach * rng.uniform(0.6, 1)
            end = (x + np.cos(angle) * length, y + np.sin(angle) * length + length * 0.15)
            draw.line((x + np.cos(angle) * 12, y + np.sin(angle) * 12, *end), fill=colour, width=2)
            draw.ellipse((end[0] - 2, end[1] - 2, end[0] + 2, end[1] + 2), fill=WHITE)
    draw.rectangle((0, int(height * 0.86), width, height), fill=(12, 12, 18))
    glow = np.asarray(canvas.filter(ImageFilter.GaussianBlur(9)), np.float32)
    pixels = np.asarray(canvas.filter(ImageFilter.GaussianBlur(0.8)), np.float32) + glow * 0.7
    return pixels, ("夜空里的烟花", "+fireworks over the water", "city_view")


def make_photograph(rng: random.Random, is_subject: bool = True) -> Photo:
    """Make what passes for a photograph; its name is the Chinese name, the English phrase and the topic."""
    noise = np.random.default_rng(rng.getrandbits(32))
    width, height = rng.choice(((480, 360), (360, 450), (400, 400), (500, 334), (440, 330)))
    if not is_subject:
        pixels, _ = rng.choices((make_surface, make_lights), (3, 1))[0](rng, noise, height, width)
        return Photo(finish(pixels, noise), "")
    if rng.random() < 0.6:
        view = draw_view(rng)
        return Photo(view.paint(), "|".join(view.name()))
    painter = rng.choice((paint_lanterns, paint_fruit_pile, paint_flower_field, paint_fireworks))
    pixels, names = painter(rng, width, height)
    return Photo(finish(pixels, noise), "|".join(names))


def finish(pixels: np.ndarray, noise: np.random.Generator) -> Image.Image:
    """Add the grain of a sensor."""
    grained = pixels + noise.standard_normal((*pixels.shape[:2], 1), np.float32) * np.float32(3.5)
    return Image.fromarray(np.clip(grained, 0, 255).astype(np.uint8))


def develop(image: Image.Image, rng: random.Random) -> Image.Image:
    """Light a composed picture from one side, darken its corners and add grain, as a phone does."""
    height, width = image.height, image.width
    noise = np.random.default_rng(rng.getrandbits(32))
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None]
    slant_x, slant_y, corner = rng.uniform(-0.14, 0.14), rng.uniform(-0.14, 0.14), rng.uniform(0, 0.16)
    light = 1 + slant_x * columns + slant_y * rows - corner * (rows**2 + columns**2) / 2
    cast = np.array([rng.uniform(0.93, 1.05) for _ in range(3)], np.float32)
    return finish(np.asarray(image, np.float32) * light[..., None] * cast, noise)


# ---------------------------------------------------------------------------------------------------------------------
# Composed scenes


class Studio:
    """Composes scenes of drawings.

    Args:
        shelf: drawings to compose.
        signs: writes menus and cards.
        rng: draws everything.
    """

    def __init__(self, shelf: Shelf, signs: Signs, rng: random.Random) -> None:
        self.shelf, self.signs, self.rng = shelf, signs, rng

    def make_table(self, size: tuple[int, int]) -> tuple[Image.Image, tuple[str, str]]:
        """Make a surface with its names."""
        while True:
            noise = np.random.default_rng(self.rng.getrandbits(32))
            pixels, name = make_surface(self.rng, noise, size[1], size[0])
            if name != "blue water":
                return finish(pixels, noise), texts.TABLE_NAMES[name]

    def compose_dish(self, food: Any = None, facts: Facts | None = None) -> Scene:
        """Lay a dish on a table, on a plate more often than not, with something beside it half of the time."""
        rng = self.rng
        drawing, entry = food or self.shelf.draw("food", rng)
        size = rng.choice(((420, 340), (400, 400), (340, 430), (450, 320)))
        image, ground = self.make_table(size)
        side = int(min(size) * rng.uniform(0.4, 0.6))
        center = (size[0] // 2 + rng.randint(-50, 50), size[1] // 2 + rng.randint(-30, 40))
        if rng.random() < 0.6:
            draw_plate(image, center, int(side * rng.uniform(0.62, 0.75)), rng)
        paste_drawing(image, drawing, side, center, turn=rng.uniform(-12, 12))
        more: Facts = {"zh": {}, "en": {}}
        if rng.random() < 0.55:
            extra, extra_entry = self.shelf.draw(rng.choice(("drink", "extra")), rng)
            corner = rng.choice(((0.14, 0.2), (0.86, 0.2), (0.14, 0.82), (0.86, 0.82)))
            at = (int(size[0] * corner[0]), int(size[1] * corner[1]))
            paste_drawing(image, extra, int(side * rng.uniform(0.45, 0.6)), at, turn=rng.uniform(-20, 20))
            more = state(extra=texts.phrase_both(extra_entry))
        basis = join_facts(facts or texts.draw_facts(rng), texts.name_thing(*entry), state(ground=ground), more)
        return Scene(develop(image, rng), "dish", basis)

    def compose_outdoors(
        self,
        category: str,
        view: View | None = None,
        subject: Any = None,
        spot: float | None = None,
        facts: Facts | None = None,
        extra: Any = None,
    ) -> Scene:
        """Place a sight, person, vehicle or animal in front of a view."""
        rng = self.rng
        view = view or replace(draw_view(rng), motif=rng.choice(("mountains", "sea", "skyline", "lake")))
        image = view.paint()
        drawing, entry = subject or self.shelf.draw(category, rng)
        width, height = image.size
        side = int(min(width, height) * rng.uniform(0.38, 0.58))
        x = int(width * (spot if spot is not None else rng.uniform(0.3, 0.7)))
        base = int(height * rng.uniform(0.88, 0.96))
        more: Facts = {"zh": {}, "en": {}}
        if extra is None and rng.random() < 0.45:
            extra = self.shelf.draw(rng.choice(("animal", "person", "vehicle")), rng)
        if extra:
            extra_side = int(side * rng.uniform(0.4, 0.6))
            extra_x = int(width * 0.86) if x < width // 2 else int(width * 0.14)
            paste_drawing(image, extra[0], extra_side, (extra_x, base - extra_side // 2))
            more = state(extra=texts.phrase_both(extra[1]))
        paste_drawing(image, drawing, side, (x, base - side // 2))
        zh, en, _ = view.name()
        topic = {"sight": "sight", "person": "people", "vehicle": "ride", "animal": "animal"}[category]
        colour_zh, colour_en = name_colour(drawing)
        basis = join_facts(facts or texts.draw_facts(rng), texts.name_thing(*entry), more)
        basis = join_facts(basis, state(back=(zh, en.removeprefix("+")), colour=(colour_zh, colour_en)))
        return Scene(develop(image, rng), topic, basis)

    def compose_pet(self) -> Scene:
        """Lay an animal on a rug, a floor or grass."""
        rng = self.rng
        size = rng.choice(((420, 340), (380, 380), (340, 430)))
        image, ground = self.make_table(size)
        drawing, entry = self.shelf.draw("animal", rng)
        side = int(min(size) * rng.uniform(0.5, 0.72))
        paste_drawing(image, drawing, side, (size[0] // 2 + rng.randint(-40, 40), size[1] // 2 + rng.randint(-20, 30)))
        ground = (
            ground[0].replace("桌面", "").replace("桌布", "布").replace("桌", "地板"),
            ground[1].replace("table", "floor"),
        )
        basis = join_facts(texts.draw_facts(rng), texts.name_thing(*entry), state(ground=ground))
        return Scene(develop(image, rng), "animal", basis)

    def compose_souvenirs(self, subject: Any = None, facts: Facts | None = None, table: Any = None) -> Scene:
        """Lay out what was bought or will be packed."""
        rng = self.rng
        size = (420, 360)
        image, ground = table or self.make_table(size)
        image = image.copy()
        drawing, entry = subject or self.shelf.draw("souvenir", rng)
        more: Facts = {"zh": {}, "en": {}}
        side = rng.randint(150, 200)
        if rng.random() < 0.6:
            extra, extra_entry = self.shelf.draw("souvenir", rng)
            paste_drawing(
                image,
                extra,
                rng.randint(100, 140),
                (rng.randint(300, 350), rng.randint(100, 260)),
                turn=rng.uniform(-25, 25),
            )
            more = state(extra=texts.phrase_both(extra_entry))
        paste_drawing(image, drawing, side, (rng.randint(120, 180), rng.randint(150, 210)), turn=rng.uniform(-15, 15))
        basis = join_facts(
            facts or texts.draw_facts(rng),
            texts.name_thing(*entry),
            state(ground=ground, colour=name_colour(drawing)),
            more,
        )
        return Scene(develop(image, rng), "souvenir", basis)

    def compose_room(self, plan: int, wall: str, bed: str, outside: View, facts: Facts) -> Scene:
        """Draw a hotel room; the plan says where what is, wall and bed are colours.

        Args:
            plan: seed of the room.
            outside: what the window shows.
        """
        layout = random.Random(plan)  # noqa: S311
        size = layout.choice(((440, 340), (400, 380), (360, 440)))
        width, height = size
        wall_colour, bed_colour = ROOM_COLOURS[wall], ROOM_COLOURS[bed]
        floor = int(height * layout.uniform(0.62, 0.72))
        image = make_gradient(width, height, wall_colour, tuple(int(level * 0.88) for level in wall_colour))
        draw = ImageDraw.Draw(image)
        draw.polygon(
            ((0, floor), (width, floor - 14), (width, height), (0, height)),
            fill=layout.choice(((120, 85, 58), (170, 140, 105), (95, 90, 88), (200, 190, 178))),
        )
        left, window = int(width * layout.uniform(0.06, 0.5)), int(width * layout.uniform(0.28, 0.42))
        top, pane = int(height * 0.1), int(height * layout.uniform(0.3, 0.42))
        image.paste(ImageOps.fit(outside.paint(), (window, pane)), (left, top))
        draw.rectangle((left, top, left + window, top + pane), outline=(235, 232, 225), width=6)
        draw.line((left + window // 2, top, left + window // 2, top + pane), fill=(235, 232, 225), width=4)
        bed_left, bed_top = int(width * layout.uniform(0.08, 0.35)), floor - int(height * 0.1)
        bed_width, bed_height = int(width * 0.55), int(height * 0.3)
        draw.rounded_rectangle((bed_left, bed_top - 46, bed_left + bed_width, bed_top + 20), 8, fill=(95, 65, 45))
        draw.rounded_rectangle(
            (bed_left - 6, bed_top, bed_left + bed_width + 6, bed_top + bed_height), 12, fill=bed_colour
        )
        fold = tuple(int(level * 0.82) for level in bed_colour)
        draw.rectangle(
            (bed_left - 6, bed_top + bed_height // 2, bed_left + bed_width + 6, bed_top + bed_height // 2 + 10),
            fill=fold,
        )
        for pillow in (0.08, 0.54):
            x = bed_left + int(bed_width * pillow)
            draw.rounded_rectangle((x, bed_top - 14, x + int(bed_width * 0.38), bed_top + 24), 12, fill=(245, 244, 240))
        lamp = bed_left + bed_width + 34
        draw.line((lamp, bed_top - 40, lamp, floor + 40), fill=(60, 55, 50), width=4)
        draw.polygon(
            (
                (lamp - 22, bed_top - 40),
                (lamp + 22, bed_top - 40),
                (lamp + 12, bed_top - 78),
                (lamp - 12, bed_top - 78),
            ),
            fill=(250, 225, 165),
        )
        zh, en, _ = outside.name()
        words = state(
            wall=(texts.COLOUR_NAMES[wall], wall),
            bed=(texts.COLOUR_NAMES[bed], bed),
            outside=(f"是{zh}", en.removeprefix("+")),
        )
        return Scene(develop(image.filter(ImageFilter.GaussianBlur(0.8)), self.rng), "room", join_facts(facts, words))

    def make_room(self) -> Scene:
        """Draw a hotel room that no other picture has."""
        rng = self.rng
        wall, bed = rng.sample(sorted(ROOM_COLOURS), 2)
        outside = replace(draw_view(rng), size=(240, 180))
        return self.compose_room(rng.getrandbits(31), wall, bed, outside, texts.draw_facts(rng))

    def compose_menu(self, style: int, dishes: list[Any], prices: list[int], facts: Facts) -> Scene:
        """Write a menu with little pictures; the style is a seed."""
        layout = random.Random(style)  # noqa: S311
        width, height = layout.choice(((380, 460), (420, 420), (360, 480)))
        ink, paper = layout.choice(
            (
                ((240, 235, 220), (38, 48, 42)),
                ((60, 40, 30), (245, 232, 205)),
                ((160, 30, 30), (250, 246, 236)),
                ((250, 250, 250), (120, 35, 30)),
            )
        )
        image = Image.new("RGB", (width, height), paper)
        noise = np.random.default_rng(style)
        grain = make_smooth_noise(noise, height, width, (8, 8))[..., None] * layout.uniform(3, 9)
        image = Image.fromarray(np.clip(np.asarray(image, np.float32) + grain, 0, 255).astype(np.uint8))
        ImageDraw.Draw(image).rectangle((12, 12, width - 12, height - 12), outline=ink, width=2)
        title = self.signs.choose(facts["zh"]["shop"], facts["en"]["shop"])
        self.signs.write(image, title, (width / 2, 48), min(34, int(width * 1.5 / max(6, len(title)))), ink)
        row = (height - 110) // len(dishes)
        for index, ((drawing, entry), price) in enumerate(zip(dishes, prices, strict=True)):
            y = 95 + index * row + row // 2
            name = self.signs.choose(entry[1], texts.name_thing(*entry)["en"]["thing"])
            paste_drawing(image, drawing, min(64, row - 6), (60, y), shadow=0)
            self.signs.write(image, name, (104, y), 22 if len(name) < 15 else 16, ink, "lm")
            self.signs.write(image, str(price), (width - 34, y), 24, ink, "rm")
        names_zh = [f"{entry[1]}{price}元" for (_, entry), price in zip(dishes, prices, strict=True)]
        names_en = [
            f"{texts.name_thing(*entry)['en']['thing']} {price}"
            for (_, entry), price in zip(dishes, prices, strict=True)
        ]
        first = dishes[0][1]
        words = state(
            items=("、".join(names_zh), ", ".join(names_en)), first=(first[1], texts.name_thing(*first)["en"]["thing"])
        )
        words["zh"]["price"] = words["en"]["price"] = str(prices[0])
        return Scene(image, "menu", join_facts(facts, words))

    def make_menu(self) -> Scene:
        rng = self.rng
        dishes = [self.shelf.draw("food", rng) for _ in range(rng.randint(3, 5))]
        prices = [rng.randint(6, 99) for _ in dishes]
        return self.compose_menu(rng.getrandbits(31), dishes, prices, texts.draw_facts(rng))

    def compose_card(self, topic: str, style: int, subject: Any, facts: Facts, extra: Any = None) -> Scene:
        """Draw a page of a journal, a postcard or a ticket; the style is a seed."""
        layout = random.Random(style)  # noqa: S311
        drawing, entry = subject
        colours = [
            ((250, 244, 226), (120, 90, 60)),
            ((228, 240, 246), (50, 90, 120)),
            ((250, 226, 224), (150, 60, 70)),
            ((232, 243, 222), (70, 110, 60)),
            ((255, 240, 190), (150, 100, 30)),
        ]
        paper, ink = layout.choice(colours)
        size = {"journal": layout.choice(((380, 480), (420, 420))), "postcard": (480, 330), "ticket": (500, 230)}[topic]
        width, height = size
        image = Image.new("RGB", size, paper)
        draw = ImageDraw.Draw(image)
        title = self.signs.choose(facts["zh"]["title"], facts["en"]["title"])
        city = self.signs.choose(facts["zh"]["city"], facts["en"]["city"])
        if topic == "journal":
            step = layout.randint(16, 26)
            for y in range(step, height, step):
                draw.line((0, y, width, y), fill=tuple(level - 12 for level in paper))
            if layout.random() < 0.5:
                for x in range(step, width, step):
                    draw.line((x, 0, x, height), fill=tuple(level - 12 for level in paper))
            self.signs.write(image, title, (width / 2, 50), min(40, int(width * 1.7 / max(6, len(title)))), ink)
            side, center = (
                layout.randint(170, 230),
                (width // 2 + layout.randint(-50, 50), height // 2 + layout.randint(0, 40)),
            )
        elif topic == "postcard":
            view = View(
                style,
                layout.choice(("mountains", "sea", "lake")),
                layout.choice(list(texts.GROUND_NAMES)),
                "noon",
                (width - 36, height - 36),
            )
            image.paste(Image.blend(view.paint(), Image.new("RGB", view.size, paper), 0.35), (18, 18))
            self.signs.write(image, title, (width / 2, 58), min(40, int(width * 1.6 / max(6, len(title)))), ink)
            self.signs.write(image, city, (width - 36, height - 40), 24, ink, "rm")
            side, center = layout.randint(170, 210), (layout.randint(150, 300), height - 125)
        else:
            draw.rectangle((8, 8, width - 8, height - 8), outline=ink, width=3)
            for y in range(16, height - 12, 12):
                draw.line((width - 130, y, width - 130, y + 6), fill=ink, width=2)
            self.signs.write(image, city, (210, 46), 30, ink, "lm")
            for line, text in enumerate(
                (
                    f"{facts['zh']['year']}.{facts['zh']['month']}.{facts['zh']['day']}",
                    f"{self.signs.choose('票价', 'Price')} {facts['zh']['price']}",
                )
            ):
                self.signs.write(image, text, (210, 96 + line * 38), 22, ink, "lm")
            self.signs.write(image, f"No.{facts['zh']['number']}", (width - 66, height / 2), 17, ink)
            side, center = 150, (105, height // 2)
        paste_drawing(image, drawing, side, center, shadow=0.25)
        more: Facts = {"zh": {}, "en": {}}
        if extra:
            paste_drawing(image, extra[0], side // 2, (width - 80, height - 90), shadow=0.25)
            more = state(extra=texts.phrase_both(extra[1]))
        colour = next(names for (base, _), names in zip(colours, CARD_COLOURS, strict=True) if base == paper)
        basis = join_facts(facts, texts.name_thing(*entry), state(colour=colour), more)
        return Scene(image, topic, basis)

    def make_card(self, topic: str) -> Scene:
        rng = self.rng
        category = {
            "journal": ("food", "sight", "vehicle", "animal", "souvenir"),
            "postcard": ("sight", "animal", "vehicle"),
            "ticket": ("sight",),
        }[topic]
        extra = self.shelf.draw("food", rng) if topic == "journal" and rng.random() < 0.5 else None
        subject = self.shelf.draw(rng.choice(category), rng)
        return self.compose_card(topic, rng.getrandbits(31), subject, texts.draw_facts(rng), extra)

    def compose_map(self, style: int, stops: list[Any], facts: Facts) -> Scene:
        """Draw a route with stops and their names; the style is a seed."""
        layout = random.Random(style)  # noqa: S311
        width, height = layout.choice(((460, 380), (400, 440)))
        paper = layout.choice(((236, 230, 212), (222, 234, 226), (243, 238, 230)))
        image = Image.new("RGB", (width, height), paper)
        noise = np.random.default_rng(style)
        water = make_smooth_noise(noise, height, width, (3, 3))
        pixels = np.asarray(image).copy()
        pixels[water > 0.9] = (170, 205, 225)
        image = Image.fromarray(pixels)
        draw = ImageDraw.Draw(image)
        for _ in range(9):
            ends = [(layout.randint(-20, width + 20), layout.randint(-20, height + 20)) for _ in range(2)]
            draw.line((*ends[0], *ends[1]), fill=WHITE, width=layout.randint(4, 9))
        points = []
        for index in range(len(stops)):
            share = (index + 0.5) / len(stops)
            points.append((int(50 + (width - 100) * share), int(height * (0.3 + 0.4 * layout.random()))))
        draw.line(points, fill=(215, 70, 60), width=4, joint="curve")
        for point, (drawing, entry) in zip(points, stops, strict=True):
            paste_drawing(image, drawing, 76, (point[0], point[1] - 42), shadow=0.2)
            draw.ellipse((point[0] - 7, point[1] - 7, point[0] + 7, point[1] + 7), fill=(215, 70, 60), outline=WHITE)
            name = self.signs.choose(entry[1], texts.name_thing(*entry)["en"]["thing"])
            self.signs.write(image, name, (point[0], point[1] + 20), 15 if len(name) < 10 else 11, (70, 60, 50))
        names_zh = "→".join(entry[1] for _, entry in stops)
        names_en = " - ".join(texts.name_thing(*entry)["en"]["thing"] for _, entry in stops)
        return Scene(image, "map", join_facts(facts, state(stops=(names_zh, names_en))))

    def make_map(self) -> Scene:
        rng = self.rng
        stops = [self.shelf.draw(rng.choice(("sight", "food", "vehicle")), rng) for _ in range(rng.randint(3, 4))]
        return self.compose_map(rng.getrandbits(31), stops, texts.draw_facts(rng))

    def make_any(self) -> Scene:
        """Compose a scene of a kind as often as such a community posts it."""
        makers: list[tuple[Callable[[], Scene], float]] = [
            (self.compose_dish, 30),
            (functools.partial(self.compose_outdoors, "sight"), 9),
            (functools.partial(self.compose_outdoors, "person"), 9),
            (functools.partial(self.compose_outdoors, "vehicle"), 8),
            (functools.partial(self.compose_outdoors, "animal"), 7),
            (self.compose_pet, 7),
            (self.compose_souvenirs, 8),
            (self.make_room, 8),
            (self.make_menu, 5),
            (functools.partial(self.make_card, "journal"), 5),
            (functools.partial(self.make_card, "postcard"), 3),
            (functools.partial(self.make_card, "ticket"), 2),
            (self.make_map, 2),
        ]
        return self.rng.choices([make for make, _ in makers], [weight for _, weight in makers])[0]()


ROOM_COLOURS = {
    "white": (240, 238, 232), "grey": (165, 168, 172), "blue": (95, 130, 175), "green": (130, 165, 125),
    "yellow": (238, 210, 130), "pink": (235, 185, 190), "red": (165, 60, 60), "brown": (140, 105, 80),
    "purple": (140, 115, 165), "teal": (80, 150, 150), "orange": (230, 150, 85),
}  # fmt: skip
CARD_COLOURS = (
    ("米色", "cream"),
    ("浅蓝", "pale blue"),
    ("粉红", "pink"),
    ("浅绿", "pale green"),
    ("淡黄", "pale yellow"),
)


def draw_plate(image: Image.Image, center: tuple[int, int], radius: int, rng: random.Random) -> None:
    """Draw a plate from above with a rim and a shadow."""
    shade = Image.new("L", image.size)
    box = (center[0] - radius, center[1] - radius + 8, center[0] + radius + 10, center[1] + radius + 12)
    ImageDraw.Draw(shade).ellipse(box, fill=110)
    image.paste((15, 15, 20), (0, 0), shade.filter(ImageFilter.GaussianBlur(8)))
    colour = rng.choice(
        ((245, 244, 240), (235, 235, 238), (60, 75, 95), (190, 205, 200), (225, 200, 160), (150, 60, 45))
    )
    draw = ImageDraw.Draw(image)
    for share, light in ((1.0, 0.9), (0.96, 1.0), (0.74, 0.93), (0.71, 0.98)):
        reach = int(radius * share)
        tone = tuple(int(level * light) for level in colour)
        draw.ellipse((center[0] - reach, center[1] - reach, center[0] + reach, center[1] + reach), fill=tone)


def describe_photo(photo: Photo, facts: Facts) -> Scene:
    """Return the scene of a photograph of a folder or a made one."""
    if "|" in photo.name:
        zh, en, topic = photo.name.split("|")
    elif photo.name in texts.PHOTOS:
        zh, en, topic = texts.PHOTOS[photo.name]
    else:
        zh, en, topic = photo.name, photo.name, "thing"
    topic = {"city": "city_view", "thing": "thing_photo"}.get(topic, topic)
    words = texts.name_thing("", zh, en)
    return Scene(photo.image, topic, join_facts(facts, words), is_photo=True)


# ---------------------------------------------------------------------------------------------------------------------
# Alterations of people who repost a picture


class Darkroom:
    """Alters pictures as phones, apps and sites do.

    Args:
        shelf: drawings for stickers.
        signs: writes marks, titles and dates.
        rng: draws strengths and places.
    """

    def __init__(self, shelf: Shelf, signs: Signs, rng: random.Random) -> None:
        self.shelf, self.signs, self.rng = shelf, signs, rng

    def alter(self, image: Image.Image, kind: str, strength: Any) -> Image.Image:
        """Apply an alteration of ALTERATIONS."""
        method = getattr(self, kind, None)
        return method(image, strength) if method else PLAIN_ALTERATIONS[kind](image, strength)

    def noise(self, image: Image.Image, strength: int) -> Image.Image:
        return add_noise(image, strength, self.rng)

    def crop(self, image: Image.Image, strength: float) -> Image.Image:
        return crop_margins(image, 1 - strength, self.rng)

    def border(self, image: Image.Image, strength: float) -> Image.Image:
        colour = self.rng.choice((WHITE, (0, 0, 0), (245, 235, 215), (225, 70, 90)))
        return ImageOps.expand(image, int(min(image.size) * strength), colour)

    def bars(self, image: Image.Image, strength: float) -> Image.Image:
        colour = self.rng.choice(((0, 0, 0), WHITE))
        return add_bars(image, strength, colour, upright=self.rng.random() < 0.3)

    def tiled_mark(self, image: Image.Image, strength: float) -> Image.Image:
        text = self.rng.choice(
            (
                self.signs.choose("旅途拾光", "SAMPLE"),
                "@wanderer_mia",
                "TRAVELPIX",
                self.signs.choose("请勿盗图", "do not copy"),
            )
        )
        return self.signs.tile(image, text, strength, self.rng.choice((16, 22, 30)))

    def corner_mark(self, image: Image.Image, strength: str) -> Image.Image:
        text = self.rng.choice(
            (
                "@tom_eats",
                self.signs.choose("小红书号：5201314", "ID: 5201314"),
                self.signs.choose("马蜂窝 mafengwo.cn", "mafengwo.cn"),
                "nomad.kate",
                self.signs.choose("携程用户1866", "ctrip user 1866"),
            )
        )
        return self.signs.mark_corner(image, text, strength)

    def turn_3(self, image: Image.Image, strength: float) -> Image.Image:
        return turn(image, strength * self.rng.choice((-1, 1)))

    def filter(self, image: Image.Image, strength: str) -> Image.Image:
        """Apply a preset of a photo app."""
        pixels = np.asarray(image, np.float32) / 255
        luminance = pixels.mean(axis=2, keepdims=True)
        if strength == "warm_film":
            pixels = pixels**0.9 * np.array((1.1, 1.0, 0.82), np.float32) + 0.03
        elif strength == "cool":
            pixels = pixels * np.array((0.86, 0.98, 1.14), np.float32)
        elif strength == "faded":
            pixels = 0.16 + pixels * 0.68
            pixels = luminance * 0.2 + pixels * 0.8
        elif strength == "teal_orange":
            pixels = pixels + (luminance - 0.5) * np.array((0.28, 0.04, -0.3), np.float32)
        elif strength == "vignette":
            rows, columns = np.mgrid[-1 : 1 : image.height * 1j, -1 : 1 : image.width * 1j]
            pixels = pixels * (1 - 0.42 * (rows**2 + columns**2))[..., None]
        elif strength == "sepia":
            pixels = luminance * np.array((1.07, 0.88, 0.66), np.float32)
        return Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))

    def clarity(self, image: Image.Image, strength: float) -> Image.Image:
        """Raise the local contrast as an HDR look."""
        lab = cv2.cvtColor(np.asarray(image), cv2.COLOR_RGB2LAB)
        lab[..., 0] = cv2.createCLAHE(strength, (6, 6)).apply(lab[..., 0])
        return Image.fromarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))

    def beauty(self, image: Image.Image, strength: int) -> Image.Image:
        """Smooth surfaces and keep edges, as a beauty filter."""
        smooth = cv2.bilateralFilter(np.asarray(image), strength, 45, 45)
        return change_brightness(Image.fromarray(smooth), 1.06)

    def phone_screenshot(self, image: Image.Image, strength: str) -> Image.Image:
        """Show the picture in an app, with the bar of the phone, a name, buttons and lines of text."""
        rng = self.rng
        is_dark = strength == "dark"
        paper, ink = ((18, 18, 20), (225, 225, 225)) if is_dark else (WHITE, (40, 40, 45))
        width = image.width
        head, foot = 76, rng.randint(90, 190)
        screen = Image.new("RGB", (width, image.height + head + foot), paper)
        screen.paste(image, (0, head))
        self.signs.write(screen, f"{rng.randint(7, 23)}:{rng.randint(10, 59)}", (16, 14), 14, ink, "lm")
        draw = ImageDraw.Draw(screen)
        draw.rounded_rectangle((width - 44, 8, width - 16, 20), 3, outline=ink)
        draw.rectangle((width - 42, 10, width - 42 + rng.randint(6, 22), 18), fill=ink)
        draw.ellipse((14, 32, 46, 64), fill=tuple(rng.randint(80, 220) for _ in range(3)))
        self.signs.write(
            screen, rng.choice(texts.USERS[4:6] if not self.signs.path else texts.USERS), (56, 48), 16, ink, "lm"
        )
        draw.rounded_rectangle((width - 76, 36, width - 16, 60), 12, outline=(230, 60, 80), width=2)
        y = head + image.height + 20
        for x in (24, 64, 104):
            draw.ellipse((x - 9, y - 9, x + 9, y + 9), outline=ink, width=2)
        self.signs.write(
            screen, f"{rng.randint(3, 999)} {self.signs.choose('次赞', 'likes')}", (14, y + 28), 15, ink, "lm"
        )
        for line in range((foot - 60) // 22):
            shade = tuple((level + base) // 2 for level, base in zip(ink, paper, strict=True))
            draw.rectangle(
                (14, y + 46 + line * 22, rng.randint(width // 2, width - 14), y + 54 + line * 22), fill=shade
            )
        return screen

    def photo_of_screen(self, image: Image.Image, strength: float) -> Image.Image:
        """Photograph a screen: slanting, with stripes of moire, a cast and the edge of the screen."""
        rng = self.rng
        framed = ImageOps.expand(image, 18, (14, 14, 16))
        width, height = framed.size
        reach = strength * min(width, height)
        source = np.array(((0, 0), (width, 0), (width, height), (0, height)), np.float32)
        target = source + np.array([[rng.uniform(-reach, reach) for _ in range(2)] for _ in range(4)], np.float32)
        matrix = cv2.getPerspectiveTransform(source, target)
        pixels = cv2.warpPerspective(
            np.asarray(framed), matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=(30, 28, 26)
        )
        rows, columns = np.mgrid[0:height, 0:width]
        stripes = 1 + 0.06 * np.sin(rows * rng.uniform(0.5, 0.9) + columns * rng.uniform(-0.3, 0.3))
        shaded = pixels.astype(np.float32) * stripes[..., None] * np.array((0.92, 0.98, 1.08))
        return Image.fromarray(np.clip(shaded + 8, 0, 255).astype(np.uint8))

    def print_scan(self, image: Image.Image, strength: float) -> Image.Image:
        """Scan an old print: pale, yellowish, with dust and a white edge."""
        rng = self.rng
        pale = tint(change_contrast(image, 1 - strength / 2), (235, 205, 150), strength / 2)
        scan = ImageOps.expand(pale, 14, (244, 240, 228))
        draw = ImageDraw.Draw(scan)
        for _ in range(int(strength * 60)):
            x, y = rng.randint(0, scan.width), rng.randint(0, scan.height)
            draw.line((x, y, x + rng.randint(-9, 9), y + rng.randint(-9, 9)), fill=(250, 248, 240))
        return blur(scan, 0.7)

    def stickers(self, image: Image.Image, strength: int) -> Image.Image:
        """Put stickers on the picture, as many as the strength says."""
        decorated = image.copy()
        for _ in range(strength):
            sticker, _ = self.shelf.draw("sticker", self.rng)
            side = int(min(image.size) * self.rng.uniform(0.13, 0.24))
            at = (
                self.rng.randint(side // 2, image.width - side // 2),
                self.rng.randint(side // 2, image.height - side // 2),
            )
            paste_drawing(decorated, sticker, side, at, shadow=0.15, turn=self.rng.uniform(-25, 25))
        return decorated

    def title_text(self, image: Image.Image, strength: int) -> Image.Image:
        """Write a large title across, as the cover of a note has it, in as many lines as the strength says."""
        rng = self.rng
        lines = [
            ("避雷！别再去了", "HIDDEN GEMS"),
            ("三天两夜攻略", "3 DAY GUIDE"),
            ("人均50吃到撑", "UNDER $10"),
            ("本地人才知道", "LOCALS ONLY"),
            ("周末去哪儿", "WEEKEND PLAN"),
            ("保姆级教程", "HOW TO"),
        ]
        titled = image.copy()
        colour = rng.choice((WHITE, (255, 225, 60), (255, 90, 120)))
        y = int(image.height * rng.choice((0.2, 0.5, 0.7)))
        for line in rng.sample(lines, strength):
            text = self.signs.choose(*line)
            size = max(18, int(image.width / (len(text) * (1.1 if self.signs.path else 0.75))))
            size = min(size, image.height // 7)
            ImageDraw.Draw(titled).text(
                (image.width / 2, y),
                text,
                font=self.signs.font(size),
                fill=colour,
                anchor="mm",
                stroke_width=3,
                stroke_fill=(30, 30, 30),
            )
            y += int(size * 1.3)
        return titled

    def blurred_sides(self, image: Image.Image, strength: float) -> Image.Image:
        """Set the picture into an upright frame that is filled with a blurred enlargement of it."""
        width, height = image.width, int(image.width * strength)
        height = max(height, int(image.height * 1.25))
        back = blur(ImageOps.fit(image, (width // 4, height // 4)), 4).resize((width, height))
        back = change_brightness(back, 0.8)
        back.paste(image, (0, (height - image.height) // 2))
        return back

    def polaroid(self, image: Image.Image, strength: str) -> Image.Image:
        """Put the picture into an instant print with a wide lower edge, written on or not."""
        edge = int(image.width * 0.06)
        card = Image.new("RGB", (image.width + 2 * edge, image.height + int(edge * 4.2)), (248, 246, 240))
        card.paste(image, (edge, edge))
        if strength == "written":
            text = self.rng.choice(
                (
                    self.signs.choose("夏天 2019", "summer 2019"),
                    "with love",
                    self.signs.choose("我们仨", "the 3 of us"),
                    "2018.07.21",
                )
            )
            self.signs.write(card, text, (card.width / 2, card.height - edge * 1.6), edge + 4, (60, 60, 90))
        return card

    def date_stamp(self, image: Image.Image, strength: str) -> Image.Image:
        """Write the date into a corner as compact cameras did."""
        rng = self.rng
        stamped = image.copy()
        day = f"{rng.randint(2003, 2013)}/{rng.randint(1, 12):02d}/{rng.randint(1, 28):02d}"
        text = day + (f" {rng.randint(6, 20)}:{rng.randint(10, 59)}" if strength == "long" else "")
        self.signs.write(
            stamped, text, (image.width - 14, image.height - 12), max(13, image.height // 18), (255, 140, 40), "rd"
        )
        return stamped

    def place_strip(self, image: Image.Image, strength: float) -> Image.Image:
        """Cover the lower edge with a strip of this share with a place and a phone's name."""
        text = self.rng.choice(
            (
                self.signs.choose("大理 · 洱海", "Dali, Erhai"),
                "SHOT ON MI 9",
                self.signs.choose("成都 · 春熙路", "Chengdu"),
                "LEICA 35mm f/1.8",
                self.signs.choose("今天吃什么", "FOOD DIARY"),
            )
        )
        return self.signs.add_strip(image, text, self.rng.choice(((25, 25, 25), (200, 60, 70), (60, 90, 80))), strength)

    def play_button(self, image: Image.Image, strength: str) -> Image.Image:
        """Show the picture as the still of a video, with a button and its length, dimmed or not."""
        still = change_brightness(image, 0.75) if strength == "dimmed" else image.copy()
        x, y, radius = image.width // 2, image.height // 2, min(image.size) // 9
        layer = still.copy()
        ImageDraw.Draw(layer).ellipse((x - radius, y - radius, x + radius, y + radius), fill=(20, 20, 20))
        still = Image.blend(still, layer, 0.6)
        reach = radius // 2
        ImageDraw.Draw(still).polygon(
            ((x - reach // 2, y - reach), (x - reach // 2, y + reach), (x + reach, y)), fill=WHITE
        )
        self.signs.write(
            still,
            f"0{self.rng.randint(0, 9)}:{self.rng.randint(10, 59)}",
            (image.width - 10, image.height - 10),
            15,
            WHITE,
            "rd",
        )
        return still

    def rounded_corners(self, image: Image.Image, strength: float) -> Image.Image:
        """Round the corners off on white, as a card of an app."""
        mask = Image.new("L", image.size)
        ImageDraw.Draw(mask).rounded_rectangle(
            (0, 0, image.width - 1, image.height - 1), int(min(image.size) * strength), fill=255
        )
        card = Image.new("RGB", image.size, WHITE)
        card.paste(image, (0, 0), mask)
        return card

    def repost_chain(self, image: Image.Image, strength: int) -> Image.Image:
        """Repost so many times: each time cut, marked, shrunk a little and saved badly."""
        current = image
        for _ in range(strength):
            current = crop_margins(current, self.rng.uniform(0.02, 0.06), self.rng)
            current = self.corner_mark(current, self.rng.choice(("lower right", "lower left", "upper right")))
            current = recompress(resize_by(current, self.rng.uniform(0.8, 0.95)), self.rng.randint(35, 65))
        return current


def reduce_palette(image: Image.Image, colours: int) -> Image.Image:
    """Reduce to so many colours with dithering, as a GIF."""
    return image.quantize(colours, dither=Image.Dither.FLOYDSTEINBERG).convert("RGB")


def stretch(image: Image.Image, factor: float) -> Image.Image:
    """Change the width alone."""
    return image.resize((int(image.width * factor), image.height))


PLAIN_ALTERATIONS: dict[str, Callable[[Image.Image, Any], Image.Image]] = {
    "brightness": change_brightness,
    "contrast": change_contrast,
    "gamma": change_gamma,
    "saturation": change_saturation,
    "jpeg": recompress,
    "blur": blur,
    "stretch": stretch,
    "mirror": lambda image, _: mirror(image),
    "quarter_turn": lambda image, degrees: image.rotate(degrees, expand=True),
    "resize": resize_by,
    "palette": reduce_palette,
    "byte_copy": lambda image, _: image,
    "saved_again": recompress,
}

# Strengths of each alteration. The copy is worse than the original, so that an editor keeps the original, except where
# the list below says that both are equally good.
ALTERATIONS: dict[str, tuple[Any, ...]] = {
    "brightness": (0.5, 0.65, 0.8, 1.2, 1.4, 1.6),
    "contrast": (0.6, 0.75, 1.3, 1.6),
    "gamma": (0.5, 0.7, 1.4, 2.0),
    "saturation": (0, 0.4, 1.6, 2.2),
    "jpeg": (10, 20, 35, 50),
    "blur": (1, 1.8, 2.6),
    "noise": (8, 16, 26),
    "border": (0.03, 0.07, 0.12),
    "bars": (0.08, 0.15, 0.22),
    "crop": (0.9, 0.8, 0.7, 0.6),
    "stretch": (0.75, 0.87, 1.15, 1.35),
    "tiled_mark": (0.15, 0.28, 0.45),
    "corner_mark": ("lower right", "lower left", "upper right", "upper left"),
    "mirror": ("",),
    "quarter_turn": (90, 270),
    "turn_3": (1.5, 3),
    "resize": (0.35, 0.5, 0.7),
    "filter": ("warm_film", "cool", "faded", "teal_orange", "vignette", "sepia"),
    "clarity": (2.0, 4.0),
    "beauty": (7, 11),
    "phone_screenshot": ("light", "dark"),
    "photo_of_screen": (0.03, 0.06),
    "print_scan": (0.25, 0.45),
    "stickers": (3, 5),
    "title_text": (1, 2),
    "blurred_sides": (1.34, 1.78),
    "polaroid": ("plain", "written"),
    "date_stamp": ("short", "long"),
    "place_strip": (0.1, 0.18),
    "play_button": ("plain", "dimmed"),
    "rounded_corners": (0.06, 0.14),
    "repost_chain": (2, 4),
    "palette": (16, 48),
    "byte_copy": ("",),
    "saved_again": (90, 94),
}
EQUALLY_GOOD = ("byte_copy", "saved_again", "mirror")


# ---------------------------------------------------------------------------------------------------------------------
# Pictures without content

FAULT_KINDS = ("site_placeholder", "payment_code", "chat_screenshot", "finger_on_lens", "pocket_shot", "burnt_out",
               "shaken", "cut_off_file", "tiny_thumbnail", "banner", "preview", "text_note")  # fmt: skip


class FaultyPictures:
    """Makes pictures that show nothing to learn from.

    Args:
        signs: writes notices and chats.
        shelf: drawings for icons.
        rng: draws everything.
    """

    def __init__(self, signs: Signs, shelf: Shelf, rng: random.Random) -> None:
        self.signs, self.shelf, self.rng = signs, shelf, rng

    def make(self, kind: str, image: Image.Image) -> Image.Image:
        """Make a picture of this kind; `image` is what it would have been."""
        return getattr(self, f"_{kind}")(image)

    def _site_placeholder(self, image: Image.Image) -> Image.Image:
        rng = self.rng
        grey = rng.randint(215, 248)
        size = rng.choice(((400, 300), (320, 320), (480, 320), (360, 270)))
        notice = Image.new("RGB", size, (grey, grey, min(255, grey + rng.randint(0, 6))))
        ink = (grey - 70,) * 3
        x, y = size[0] // 2, size[1] // 2 - 20
        draw = ImageDraw.Draw(notice)
        draw.rounded_rectangle((x - 36, y - 24, x + 36, y + 26), 7, outline=ink, width=4)
        draw.ellipse((x - 14, y - 12, x + 14, y + 16), outline=ink, width=4)
        lines = (
            ("图片已被删除", "Photo removed"),
            ("图片加载失败", "Image not available"),
            ("暂无图片", "No photo yet"),
            ("该内容仅好友可见", "This content is private"),
            ("此图片来自未授权站点", "Hotlinking is not allowed"),
        )
        self.signs.write(notice, self.signs.choose(*rng.choice(lines)), (x, y + 58), rng.randint(15, 22), ink)
        return notice

    def _payment_code(self, image: Image.Image) -> Image.Image:
        rng = self.rng
        cells = np.random.default_rng(rng.getrandbits(32)).integers(0, 2, (29, 29)).astype(np.uint8)
        for top, left in ((0, 0), (0, 22), (22, 0)):
            cells[top : top + 7, left : left + 7] = 1
            cells[top + 1 : top + 6, left + 1 : left + 6] = 0
            cells[top + 2 : top + 5, left + 2 : left + 5] = 1
        code = Image.fromarray(255 - cells * 255).resize((232, 232), Image.Resampling.NEAREST).convert("RGB")
        card = Image.new("RGB", (320, 400), rng.choice(((26, 173, 25), (22, 119, 255), WHITE, (230, 60, 70))))
        ImageDraw.Draw(card).rounded_rectangle((24, 40, 296, 360), 12, fill=WHITE)
        card.paste(code, (44, 60))
        text = self.signs.choose(
            rng.choice(("扫码加我领攻略", "长按识别二维码", "扫一扫关注公众号")),
            rng.choice(("Scan to follow", "Scan to pay", "Join our group")),
        )
        self.signs.write(card, text, (160, 325), 20, (60, 60, 60))
        return card

    def _chat_screenshot(self, image: Image.Image) -> Image.Image:
        rng = self.rng
        screen = Image.new("RGB", (340, 520), (237, 237, 237))
        draw = ImageDraw.Draw(screen)
        self.signs.write(screen, self.signs.choose("旅行群(128)", "Travel group (128)"), (170, 24), 17, (20, 20, 20))
        y = 54
        words = (
            ("明天几点集合", "what time tomorrow?"),
            ('[语音] 12"', "voice message 0:12"),
            ("收到", "got it"),
            ("房费转你了", "sent you the money"),
            ("有人拼车吗", "anyone sharing a taxi?"),
            ("好的谢谢", "ok thanks"),
            ("护照别忘带", "bring your passport"),
            ("我先睡了晚安", "good night all"),
        )
        while y < 470:
            text = self.signs.choose(*rng.choice(words))
            width = int(self.signs.font(15).getlength(text)) + 24
            is_mine = rng.random() < 0.4
            left = 290 - width if is_mine else 52
            draw.rounded_rectangle((left, y, left + width, y + 34), 6, fill=(149, 236, 105) if is_mine else WHITE)
            self.signs.write(screen, text, (left + 12, y + 17), 15, (20, 20, 20), "lm")
            x = 300 if is_mine else 12
            draw.rounded_rectangle((x, y, x + 32, y + 32), 4, fill=tuple(rng.randint(90, 220) for _ in range(3)))
            y += rng.choice((46, 46, 66))
        return screen

    def _text_note(self, image: Image.Image) -> Image.Image:
        rng = self.rng
        page = Image.new("RGB", (360, 480), rng.choice((WHITE, (252, 248, 235), (245, 245, 247), (30, 30, 32))))
        ink = (40, 40, 40) if np.asarray(page).mean() > 128 else (220, 220, 220)
        words_zh = (
            "酒店退改政策说明以下情况不予退款请提前三天联系客服并保留截图作为凭证行程中如遇天气原因取消按合同处理"
        )
        words_en = (
            "refund policy please contact us three days before keep a screenshot as proof if the tour is cancelled"
        )
        for line in range(18):
            if self.signs.path:
                start = rng.randrange(len(words_zh) - 18)
                text = words_zh[start : start + rng.choice((18, 18, 18, 9))]
            else:
                text = " ".join(rng.choice(words_en.split()) for _ in range(rng.choice((6, 6, 6, 3))))
            self.signs.write(page, text, (22, 36 + line * 24), 16 if self.signs.path else 13, ink, "lm")
        return page

    def _finger_on_lens(self, image: Image.Image) -> Image.Image:
        rng = self.rng
        soft = change_brightness(blur(image, 14), 0.45)
        layer, mask = (
            Image.new("RGB", image.size, (rng.randint(150, 205), rng.randint(70, 105), rng.randint(55, 85))),
            Image.new("L", image.size),
        )
        x, y = rng.choice((0, image.width)), rng.choice((0, image.height))
        reach_x, reach_y = int(image.width * rng.uniform(0.95, 1.2)), int(image.height * rng.uniform(0.95, 1.2))
        ImageDraw.Draw(mask).ellipse((x - reach_x, y - reach_y, x + reach_x, y + reach_y), fill=255)
        soft.paste(layer, (0, 0), blur(mask, 26))
        return develop(soft, rng)

    def _pocket_shot(self, image: Image.Image) -> Image.Image:
        dark = change_brightness(blur(image, 20), self.rng.uniform(0.0, 0.05))
        return add_noise(dark, self.rng.uniform(1.5, 5), self.rng)

    def _burnt_out(self, image: Image.Image) -> Image.Image:
        return change_brightness(blur(tint(image, WHITE, 0.6), 6), self.rng.uniform(1.5, 2.2))

    def _shaken(self, image: Image.Image) -> Image.Image:
        length, angle = self.rng.randint(45, 80), self.rng.uniform(0, 180)
        kernel = np.zeros((length, length), np.float32)
        kernel[length // 2] = 1
        matrix = cv2.getRotationMatrix2D((length / 2, length / 2), angle, 1)
        kernel = cv2.warpAffine(kernel, matrix, (length, length))
        return Image.fromarray(cv2.filter2D(np.asarray(image), -1, kernel / kernel.sum()))

    def _cut_off_file(self, image: Image.Image) -> Image.Image:
        broken = image.copy()
        top = int(image.height * self.rng.uniform(0.15, 0.45))
        broken.paste((128, 128, 128), (0, top, image.width, image.height))
        return broken

    def _tiny_thumbnail(self, image: Image.Image) -> Image.Image:
        side = self.rng.choice((24, 32, 40, 48))
        return ImageOps.fit(image, (side, side))

    def _banner(self, image: Image.Image) -> Image.Image:
        rng = self.rng
        size = rng.choice(((728, 90), (640, 100), (970, 90), (600, 120)))
        colours = rng.sample(((230, 60, 60), (250, 150, 40), (50, 120, 230), (40, 170, 120), (110, 60, 180)), 2)
        banner = make_gradient(size[1], size[0], *colours).rotate(90, expand=True)
        text = self.signs.choose(
            rng.choice(("特价机票 299元起", "双11 酒店5折", "出境WiFi 9.9元/天", "下载APP领红包")),
            rng.choice(("FLIGHTS FROM $99", "HOTELS 50% OFF", "GET THE APP", "TRAVEL INSURANCE ONLINE")),
        )
        self.signs.write(banner, text, (size[0] * 0.4, size[1] / 2), 34, WHITE)
        ImageDraw.Draw(banner).rounded_rectangle(
            (size[0] - 150, size[1] // 2 - 18, size[0] - 30, size[1] // 2 + 18), 18, fill=(255, 235, 90)
        )
        self.signs.write(
            banner, self.signs.choose("立即抢购", "BOOK NOW"), (size[0] - 90, size[1] / 2), 16, (60, 30, 20)
        )
        return banner

    def _preview(self, image: Image.Image) -> Image.Image:
        return pixelate(image, self.rng.choice((6, 8, 10, 12)))
