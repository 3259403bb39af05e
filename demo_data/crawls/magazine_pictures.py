"""Pictures of the crawl of magazines: made photographs, scenes, families of diagrams, and pictures without content."""

import colorsys
import io
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from magazine_texts import Subject
from making import (
    SKIES,
    WHITE,
    Drawing,
    Photo,
    Signs,
    blur,
    encode_image,
    make_gradient,
    make_landscape,
    make_smooth_noise,
    paste_drawing,
)
from PIL import Image, ImageDraw, ImageFilter, ImageOps

Colour = tuple[int, int, int]

# ---------------------------------------------------------------------------------------------------------------------
# Made photographs: name -> (article, Chinese name, topic); landscapes are put together from their parts.
MADE_SUBJECTS = {
    "lit windows of a city at night": ("the", "夜晚城市的万家灯火", "city"),
    "tree trunks in a misty forest": ("", "薄雾森林里的树干", "land"),
    "waves under a wide sky": ("", "开阔天空下的海浪", "land"),
    "stars above a dark ridge": ("", "山脊上空的繁星", "space"),
    "petals of a flower": ("the", "一朵花的花瓣", "plant"),
    "pebbles on a beach": ("", "海滩上的鹅卵石", "land"),
}
GROUND_NAMES = {
    "green hills": "绿色山丘",
    "brown hills": "褐色山丘",
    "blue mountains": "蓝色群山",
    "snowy hills": "雪山",
    "red dunes": "红色沙丘",
}
SKY_NAMES = {
    "blue sky": "蓝天下的",
    "pink evening sky": "粉色晚霞下的",
    "grey sky": "阴天里的",
    "golden sky": "金色天空下的",
    "night sky": "夜空下的",
}


def name_made_photograph(name: str) -> Subject | None:
    """Return what a made photograph shows, or None if it is not one."""
    if name in MADE_SUBJECTS:
        article, name_zh, topic = MADE_SUBJECTS[name]
        return Subject(name, article, name_zh, topic)
    ground, _, sky = name.partition(" under a ")
    if ground in GROUND_NAMES and sky in SKY_NAMES:
        return Subject(name, "", SKY_NAMES[sky] + GROUND_NAMES[ground], "land")
    return None


def make_open_web_photograph(rng: random.Random, is_subject: bool = True) -> Photo:
    """Make a photograph-like picture: a landscape, a city at night, a forest, a sea, stars, a flower or pebbles."""
    noise = np.random.default_rng(rng.getrandbits(32))
    width, height = rng.randint(320, 520), rng.randint(290, 460)
    makers = (make_landscape, make_city, make_forest, make_sea, make_stars, make_flower, make_pebbles)
    pixels, name = rng.choices(makers, (5, 2, 2, 2, 1, 3, 1))[0](rng, noise, height, width)
    pixels = pixels + noise.normal(0, rng.uniform(1.5, 5), (height, width, 1))
    return Photo(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), name)


def make_city(rng: random.Random, noise: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, str]:
    """Make houses at night, far ones first, with windows of which some are lit."""
    top = rng.choice(((15, 18, 40), (40, 30, 60), (25, 40, 70)))
    canvas = make_gradient(width, height, top, tuple(level + rng.randint(25, 70) for level in top))
    draw = ImageDraw.Draw(canvas)
    for row in range(3):
        x = -rng.randint(0, 30)
        while x < width:
            house_width = rng.randint(28, 85)
            roof = int(height * rng.uniform(0.15 + 0.15 * row, 0.5 + 0.15 * row))
            shade = 55 - 17 * row + rng.randint(-4, 4)
            draw.rectangle((x, roof, x + house_width, height), fill=(shade, shade, shade + 14))
            step, share = rng.randint(8, 13), rng.uniform(0.15, 0.7)
            for window_y in range(roof + 6, height - 6, step + 2):
                for window_x in range(x + 5, x + house_width - 6, step):
                    if rng.random() < share:
                        tone = rng.choice(((240, 200, 120), (250, 225, 170), (190, 205, 225), (225, 160, 80)))
                        dim = rng.uniform(0.4, 1)
                        fill = tuple(int(level * dim) for level in tone)
                        draw.rectangle((window_x, window_y, window_x + 4, window_y + 5), fill=fill)
            x += house_width + rng.randint(0, 12)
    return np.asarray(blur(canvas, rng.uniform(0.6, 1.2)), np.float32), "lit windows of a city at night"


def make_forest(rng: random.Random, noise: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, str]:
    """Make trunks that pale with distance above a ground of leaves."""
    haze = np.array(rng.choice(((190, 200, 185), (215, 195, 160), (160, 180, 200))), np.float32)
    pixels = np.ones((height, width, 1), np.float32) * haze
    pixels += make_smooth_noise(noise, height, width, (6, 6))[..., None] * 9
    bark = np.array(rng.choice(((60, 48, 40), (45, 50, 38), (80, 60, 48))), np.float32)
    columns = np.arange(width, dtype=np.float32)[None]
    rows = np.arange(height, dtype=np.float32)[:, None]
    texture = make_smooth_noise(noise, height, width, (10, 60))[..., None]
    for layer in range(4):
        nearness = (layer + 1) / 4
        for _ in range(rng.randint(3, 9 - layer)):
            center, slant = rng.uniform(0, width), rng.uniform(-0.06, 0.06)
            half = (3 + 16 * nearness**2) * rng.uniform(0.6, 1.3) * (0.8 + 0.4 * rows / height)
            inside = np.abs(columns - center - slant * rows) < half
            inside &= rows < height * (0.62 + 0.3 * nearness)
            colour = bark * nearness + haze * (1 - nearness) + texture * 16 * nearness
            pixels = np.where(inside[..., None], colour, pixels)
    floor = rows > height * 0.72 + make_smooth_noise(noise, 1, width, (1, 5)) * 8
    leaves = np.array(rng.choice(((95, 110, 50), (130, 85, 45), (70, 90, 60))), np.float32)
    leaves = leaves + make_smooth_noise(noise, height, width, (40, 40), 0.8)[..., None] * 22
    return np.where(floor[..., None], leaves * 0.6 + pixels * 0.4, pixels), "tree trunks in a misty forest"


def make_sea(rng: random.Random, noise: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, str]:
    """Make a sky with clouds above waves that become smaller towards the horizon."""
    upper, lower = (np.array(colour, np.float32) for colour in SKIES[rng.choice(list(SKIES))])
    horizon = int(height * rng.uniform(0.3, 0.6))
    share = np.linspace(0, 1, horizon, dtype=np.float32)[:, None, None]
    sky = np.repeat(upper + (lower - upper) * share, width, axis=1)
    sky += np.clip(make_smooth_noise(noise, horizon, width, (4, 3)), 0, None)[..., None] * rng.uniform(8, 40)

    depth = height - horizon
    waves = make_smooth_noise(noise, depth, width, (rng.randint(14, 30), 4), 0.75)
    # The rows near the horizon are a part of the waves seen from afar: the noise is stretched towards the viewer.
    source = (np.linspace(0, 1, depth, dtype=np.float32) ** 0.6 * (depth - 1))[:, None].repeat(width, axis=1)
    across = np.arange(width, dtype=np.float32)[None].repeat(depth, axis=0)
    waves = cv2.remap(waves, across, source, cv2.INTER_LINEAR)
    water = np.array(rng.choice(((30, 85, 110), (45, 60, 80), (20, 110, 120))), np.float32)
    sea = water * 0.7 + lower * 0.3 + waves[..., None] * rng.uniform(14, 30)
    return np.concatenate([sky, sea]), "waves under a wide sky"


def make_stars(rng: random.Random, noise: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, str]:
    """Make a band of the Milky Way with stars above a black ridge."""
    glow = make_smooth_noise(noise, height, width, (5, 5))
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    slope, center = rng.uniform(-1, 1), rng.uniform(0.3, 0.7)
    distance = np.abs(rows - height * center - slope * (columns - width / 2)) / height
    band = np.exp(-((distance / 0.18) ** 2)) * (60 + 22 * glow)
    tone = np.array(rng.choice(((0.9, 0.8, 1.0), (1.0, 0.85, 0.7), (0.7, 0.9, 1.0))), np.float32)
    pixels = 14 + band[..., None] * tone
    for _ in range(rng.randint(250, 700)):
        y, x = rng.randrange(height), rng.randrange(width)
        pixels[y : y + rng.choice((1, 1, 2)), x : x + rng.choice((1, 1, 2))] += rng.uniform(40, 220)
    ridge = height * 0.85 + make_smooth_noise(noise, 1, width, (1, 4))[0] * height * 0.05
    return np.where((rows > ridge)[..., None], 7.0, pixels), "stars above a dark ridge"


def make_flower(rng: random.Random, noise: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, str]:
    """Make rings of petals around a centre, in front of blurred leaves."""
    leaves = np.array(rng.choice(((45, 80, 40), (70, 95, 70), (60, 70, 45), (40, 60, 75))), np.float32)
    canvas = leaves + make_smooth_noise(noise, height, width, (5, 5), 0.4)[..., None] * 20
    picture = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    hue, saturation = rng.random(), rng.uniform(0.45, 0.95)
    center_x, center_y = width * rng.uniform(0.35, 0.65), height * rng.uniform(0.35, 0.65)
    num_rings, num_petals = rng.randint(2, 6), rng.randint(6, 20)
    reach = min(width, height) * rng.uniform(0.4, 0.75)
    for ring in range(num_rings):
        length = reach * (1 - ring / (num_rings + 0.7))
        for petal in range(num_petals):
            angle = 2 * math.pi * (petal + 0.5 * (ring % 2) + rng.uniform(-0.12, 0.12)) / num_petals
            value = rng.uniform(0.6, 0.75) + 0.25 * ring / num_rings
            fill = tuple(int(255 * level) for level in colorsys.hsv_to_rgb(hue, saturation, value))
            spread = math.pi / num_petals * 1.25
            outline = []
            for step in range(13):
                turn = (step / 12 * 2 - 1) * spread
                radius = length * math.cos(turn / spread * math.pi / 2) ** 0.45 * rng.uniform(0.97, 1)
                outline.append((center_x + radius * math.cos(angle + turn), center_y + radius * math.sin(angle + turn)))
            dark = tuple(int(level * 0.8) for level in fill)
            ImageDraw.Draw(picture).polygon([(center_x, center_y), *outline], fill=fill, outline=dark)
    radius = reach * rng.uniform(0.1, 0.25)
    box = (center_x - radius, center_y - radius, center_x + radius, center_y + radius)
    ImageDraw.Draw(picture).ellipse(box, fill=rng.choice(((220, 180, 50), (90, 60, 35), (150, 160, 60))))
    pixels = np.asarray(blur(picture, rng.uniform(0.8, 1.8)), np.float32)
    light = make_smooth_noise(noise, height, width, (4, 4), 0.8)[..., None]
    return pixels * (1 + 0.1 * light), "petals of a flower"


def make_pebbles(rng: random.Random, noise: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, str]:
    """Make round stones that overlap, each lit from above."""
    canvas = Image.new("RGB", (width, height), (70, 65, 60))
    draw = ImageDraw.Draw(canvas)
    warmth = rng.randint(-12, 25)
    for _ in range(rng.randint(250, 500)):
        x, y = rng.randint(0, width), rng.randint(0, height)
        long, flat = rng.randint(9, 36), rng.uniform(0.55, 0.95)
        tone = rng.randint(80, 205)
        for inner in range(4):
            share = 1 - inner * 0.22
            level = tone - 35 + inner * 15
            box = (x - long * share, y - long * flat * share - inner, x + long * share, y + long * flat * share - inner)
            draw.ellipse(box, fill=(level + warmth, level + warmth // 3, level))
    texture = make_smooth_noise(noise, height, width, (60, 60), 0.8)[..., None]
    return np.asarray(blur(canvas, 0.9), np.float32) + texture * 9, "pebbles on a beach"


# ---------------------------------------------------------------------------------------------------------------------
# Illustrations


# Backgrounds of illustrations: English and Chinese words, sky above and below, ground, and what else is there.
SCENERIES = (
    ("on a green meadow", "青青草地上", (120, 190, 240), (225, 243, 252), (110, 180, 80), "sun"),
    ("under a starry sky", "星空下", (25, 30, 75), (70, 70, 130), (40, 65, 60), "stars"),
    ("in the snow", "雪地里", (165, 190, 215), (235, 242, 248), (245, 248, 252), "flakes"),
    ("in the desert", "沙漠里", (240, 180, 110), (252, 230, 180), (222, 170, 100), "sun"),
    ("by the sea", "海边", (95, 175, 225), (215, 240, 250), (60, 140, 190), "sun"),
    ("in the evening", "傍晚", (230, 130, 110), (252, 210, 150), (85, 70, 95), "sun"),
    ("in a yellow room", "黄色的房间里", (250, 225, 150), (252, 235, 180), (185, 130, 85), ""),
    ("in the rain", "雨中", (120, 130, 145), (180, 188, 196), (90, 115, 90), "rain"),
    ("on a pink background", "粉色背景上", (248, 200, 210), (252, 225, 228), (244, 180, 195), ""),
    ("at full moon", "满月之夜", (15, 22, 50), (50, 60, 100), (30, 40, 50), "moon"),
)


def vary_colour(colour: Colour, rng: random.Random) -> Colour:
    """Shift a colour by up to 18 levels: backgrounds of the same words then differ as those of two painters."""
    red, green, blue = (min(255, max(0, level + rng.randint(-18, 18))) for level in colour)
    return red, green, blue


def paint_scenery(scenery: tuple, width: int, height: int, rng: random.Random) -> Image.Image:
    """Paint the background of an illustration: a sky, hills and weather."""
    _, _, upper, lower, ground, extra = scenery
    upper, lower, ground = (vary_colour(colour, rng) for colour in (upper, lower, ground))
    canvas = make_gradient(width, height, upper, lower)
    draw = ImageDraw.Draw(canvas, "RGBA")
    if extra in ("sun", "moon"):
        x, y, radius = rng.randint(40, width - 40), rng.randint(30, height // 3), rng.randint(16, 34)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 250, 215, 235))
    for _ in range({"stars": 70, "flakes": 90, "rain": 110}.get(extra, 0)):
        x, y = rng.randint(0, width), rng.randint(0, height)
        if extra == "rain":
            draw.line((x, y, x - 4, y + 14), fill=(225, 232, 240, 130), width=1)
        else:
            size = rng.choice((1, 1, 2, 3))
            draw.ellipse((x, y, x + size, y + size), fill=(255, 255, 255, 210))
    form, num_layers = rng.choice(("hills", "hills", "peaks", "flat")), rng.randint(2, 4)
    for step in range(num_layers):
        top = int(height * (0.5 + 0.35 * (step + 1) / (num_layers + 1)))
        shade = tuple(max(0, level - 14 * (num_layers - 1 - step)) for level in ground)
        if form == "flat":
            draw.rectangle((0, top, width, height), fill=(*shade, 255))
        elif form == "peaks" and step < num_layers - 1:
            tops = [
                (x, top + rng.randint(-height // 8, height // 8)) for x in range(-40, width + 80, rng.randint(45, 90))
            ]
            draw.polygon([(-40, height), *tops, (width + 40, height)], fill=(*shade, 255))
        else:
            offset = rng.randint(-width // 3, width // 3)
            draw.ellipse((offset - width // 2, top, offset + width * 3 // 2, top + height), fill=(*shade, 255))
    return canvas


def place_figures(canvas: Image.Image, drawings: list[Drawing], spots: list[tuple[float, float, float]]) -> Image.Image:
    """Place drawings on a background; a spot is a centre and a size, as shares of the canvas."""
    scene = canvas.copy()
    for drawing, (x, y, size) in zip(drawings, spots, strict=True):
        side = int(size * scene.height)
        paste_drawing(scene, drawing.image, side, (int(x * scene.width), int(y * scene.height)), shadow=0.3)
    return scene


def make_studio_picture(drawing: Image.Image, rng: random.Random, backdrop: Image.Image | None = None) -> Image.Image:
    """Put a drawing before a pale backdrop as shops and stock sites do, or on a photograph that is out of focus."""
    width, height = rng.choice(((400, 400), (450, 340), (360, 440), (500, 375), (320, 320), (480, 320)))
    if backdrop is None:
        tone = rng.choice(
            ((255, 255, 255), (246, 246, 244), (238, 242, 246), (250, 240, 228), (228, 236, 226), (70, 74, 82))
        )
        canvas = make_gradient(width, height, tone, tuple(max(0, level - rng.randint(0, 22)) for level in tone))
    else:
        canvas = blur(ImageOps.fit(backdrop, (width, height)), rng.uniform(2, 6))
    side = int(min(width, height) * rng.uniform(0.5, 0.85))
    center = (width // 2 + rng.randint(-25, 25), height // 2 + rng.randint(-15, 20))
    paste_drawing(canvas, drawing, side, center, shadow=0.4, turn=rng.choice((0, 0, 0, -8, 6, 12)))
    return canvas


def make_icon_tile(drawing: Image.Image, colour: Colour, shape: str, side: int = 256) -> Image.Image:
    """Make an icon of a set: a drawing on a coloured tile, round or with round corners."""
    canvas = Image.new("RGB", (side, side), WHITE)
    tile = make_gradient(side, side, tuple(min(255, level + 30) for level in colour), colour)
    mask = Image.new("L", (side, side))
    radius = side // 2 - 8 if shape == "round" else side // 5
    ImageDraw.Draw(mask).rounded_rectangle((8, 8, side - 8, side - 8), radius, fill=255)
    canvas.paste(tile, (0, 0), mask)
    paste_drawing(canvas, drawing, int(side * 0.58), (side // 2, side // 2), shadow=0.15)
    return canvas


def make_counting_card(drawing: Image.Image, count: int, colour: Colour) -> Image.Image:
    """Make a card of an exercise book with so many of a thing, in rows of four."""
    canvas = Image.new("RGB", (420, 300), colour)
    for index in range(count):
        row, column = divmod(index, 4)
        paste_drawing(canvas, drawing, 84, (66 + 96 * column, 64 + 88 * row), shadow=0.1)
    return canvas


# ---------------------------------------------------------------------------------------------------------------------
# Families of diagrams: members differ in what counts and are alike in everything else


def make_palette(rng: random.Random, count: int = 6) -> list[Colour]:
    """Draw colours of the same strength, spread around the circle of hues."""
    start, saturation, value = rng.random(), rng.uniform(0.35, 0.75), rng.uniform(0.65, 0.92)
    colours = []
    for index in range(count):
        red, green, blue = colorsys.hsv_to_rgb((start + index / count) % 1, saturation, value)
        colours.append((int(255 * red), int(255 * green), int(255 * blue)))
    return colours


def make_bar_chart(
    values: list[int], labels: list[str], colours: list[Colour], title: str, signs: Signs
) -> Image.Image:
    """Draw a bar chart with a title and a label below each bar."""
    canvas = Image.new("RGB", (480, 340), WHITE)
    draw = ImageDraw.Draw(canvas)
    signs.write(canvas, title, (240, 22), 18, (50, 50, 55))
    for line in range(5):
        y = 290 - line * 58
        draw.line((46, y, 466, y), fill=(222, 222, 226))
        signs.write(canvas, str(line * 25), (40, y), 11, (110, 110, 115), "rm")
    step = 420 // len(values)
    for index, (value, label) in enumerate(zip(values, labels, strict=True)):
        left = 52 + index * step
        draw.rectangle((left, 290 - value * 2.32, left + step - 12, 290), fill=colours[index % len(colours)])
        signs.write(canvas, label, (left + step / 2 - 6, 306), 12, (70, 70, 75))
    return canvas


def make_line_chart(series: list[list[float]], colours: list[Colour], title: str, signs: Signs) -> Image.Image:
    """Draw a line chart; values are shares of the height."""
    canvas = Image.new("RGB", (520, 320), (250, 250, 252))
    draw = ImageDraw.Draw(canvas)
    signs.write(canvas, title, (260, 20), 17, (50, 50, 55))
    for line in range(6):
        draw.line((40, 280 - line * 46, 505, 280 - line * 46), fill=(225, 228, 232))
    for values, colour in zip(series, colours, strict=False):
        step = 460 / (len(values) - 1)
        points = [(42 + index * step, 280 - value * 235) for index, value in enumerate(values)]
        draw.line(points, fill=colour, width=3, joint="curve")
    return canvas


@dataclass(frozen=True)
class PieDesign:
    """What the pie charts of one report have in common."""

    colours: list[Colour]
    background: Colour
    hole: float
    legend_is_left: bool


def draw_pie_design(rng: random.Random) -> PieDesign:
    background = rng.choice((WHITE, WHITE, (244, 244, 240), (38, 42, 52), (232, 240, 246)))
    return PieDesign(make_palette(rng), background, rng.choice((0, 0, 0.45, 0.62)), rng.random() < 0.3)


def make_pie_chart(shares: list[int], labels: tuple[str, ...], design: PieDesign, signs: Signs) -> Image.Image:
    """Draw a pie chart or a ring with its legend at a side."""
    canvas = Image.new("RGB", (460, 320), design.background)
    draw = ImageDraw.Draw(canvas)
    left, legend = (176, 18) if design.legend_is_left else (24, 310)
    ink = (60, 60, 65) if sum(design.background) > 400 else (225, 225, 225)
    angle = -90.0
    for index, (share, label) in enumerate(zip(shares, labels, strict=True)):
        end = angle + 360 * share / sum(shares)
        fill = design.colours[index % len(design.colours)]
        draw.pieslice((left, 30, left + 260, 290), angle, end, fill=fill, outline=design.background, width=2)
        draw.rectangle((legend, 60 + index * 34, legend + 18, 78 + index * 34), fill=fill)
        text = f"{label} {100 * share // sum(shares)}%"
        signs.write(canvas, text, (legend + 28, 69 + index * 34), 14, ink, "lm")
        angle = end
    radius = 130 * design.hole
    center = left + 130
    draw.ellipse((center - radius, 160 - radius, center + radius, 160 + radius), fill=design.background)
    return canvas


class RegionMap:
    """A country with districts whose borders are drawn once; each locator map marks one of them."""

    def __init__(self, rng: random.Random) -> None:
        noise = np.random.default_rng(rng.getrandbits(32))
        self.width, self.height = rng.choice(((420, 360), (360, 420), (460, 320)))
        rows, columns = np.mgrid[0 : self.height, 0 : self.width].astype(np.float32)
        rows += make_smooth_noise(noise, self.height, self.width, (8, 8)) * 9
        columns += make_smooth_noise(noise, self.height, self.width, (8, 8)) * 9
        self.num_districts = rng.randint(9, 16)
        centers = noise.uniform(0.15, 0.85, (self.num_districts, 2)) * (self.height, self.width)
        distances = [(rows - y) ** 2 + (columns - x) ** 2 for y, x in centers]
        self.districts = np.argmin(distances, axis=0)
        radius = ((rows - self.height / 2) / (self.height * 0.44)) ** 2
        self.is_land = radius + ((columns - self.width / 2) / (self.width * 0.44)) ** 2 < 1
        self.land, self.mark = rng.choice(
            (((254, 254, 233), (200, 30, 30)), ((224, 224, 224), (60, 120, 190)), ((246, 225, 185), (220, 110, 60)))
        )
        self.sea = rng.choice(((199, 231, 251), (255, 255, 255), (214, 228, 240)))

    def draw(self, district: int) -> Image.Image:
        """Draw the map with this district marked."""
        pixels = np.where(self.is_land[..., None], self.land, self.sea)
        pixels = np.where((self.is_land & (self.districts == district))[..., None], self.mark, pixels).astype(np.uint8)
        labels = np.where(self.is_land, self.districts + 1, 0).astype(np.uint8)
        edges = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0
        pixels[edges] = (100, 100, 100)
        return blur(Image.fromarray(pixels), 0.5)

    def visible_districts(self) -> list[int]:
        """Return the districts of which enough is land."""
        least = 0.03 * self.width * self.height
        return [
            index for index in range(self.num_districts) if (self.is_land & (self.districts == index)).sum() > least
        ]


def make_flag(colours: tuple[Colour, Colour, Colour], layout: str, emblem: Image.Image | None) -> Image.Image:
    """Draw a flag of three bands, upright or lying, with an emblem or without."""
    canvas = Image.new("RGB", (450, 300), colours[1])
    draw = ImageDraw.Draw(canvas)
    if layout == "upright":
        draw.rectangle((0, 0, 149, 299), fill=colours[0])
        draw.rectangle((300, 0, 449, 299), fill=colours[2])
    else:
        draw.rectangle((0, 0, 449, 99), fill=colours[0])
        draw.rectangle((0, 200, 449, 299), fill=colours[2])
    if emblem is not None:
        paste_drawing(canvas, emblem, 110, (225, 150), shadow=0)
    return canvas


def make_route_sign(text: str, colour: Colour, shape: str, signs: Signs) -> Image.Image:
    """Draw the sign of a road, a bus or an underground line."""
    canvas = Image.new("RGB", (260, 260), WHITE)
    draw = ImageDraw.Draw(canvas)
    if shape == "round":
        draw.ellipse((20, 20, 240, 240), fill=colour)
    elif shape == "shield":
        outline = [(30, 40), (130, 20), (230, 40), (222, 150), (130, 242), (38, 150)]
        draw.polygon(outline, fill=colour, outline=(30, 30, 30), width=5)
    else:
        draw.rounded_rectangle((14, 60, 246, 200), 24, fill=colour, outline=(30, 30, 30), width=4)
    signs.write(canvas, text, (130, 130), 96 if len(text) < 3 else 70, WHITE)
    return canvas


@dataclass(frozen=True)
class ClockDesign:
    """What the clocks of one worksheet have in common."""

    rim: Colour
    face: Colour
    is_round: bool
    has_numbers: bool


def draw_clock_design(rng: random.Random) -> ClockDesign:
    face = rng.choice(((252, 252, 248), (255, 244, 214), (226, 240, 250), (240, 232, 250), (50, 54, 66)))
    return ClockDesign(rng.choice(make_palette(rng)), face, rng.random() < 0.7, rng.random() < 0.7)


def make_clock(hour: int, minute: int, design: ClockDesign, signs: Signs) -> Image.Image:
    """Draw a clock of a worksheet."""
    canvas = Image.new("RGB", (320, 320), WHITE)
    draw = ImageDraw.Draw(canvas)
    if design.is_round:
        draw.ellipse((14, 14, 306, 306), fill=design.face, outline=design.rim, width=11)
    else:
        draw.rounded_rectangle((14, 14, 306, 306), 30, fill=design.face, outline=design.rim, width=16)
    ink = (50, 50, 55) if sum(design.face) > 400 else (230, 230, 230)
    for number in range(1, 13):
        angle = math.radians(number * 30 - 90)
        x, y = math.cos(angle), math.sin(angle)
        if design.has_numbers:
            signs.write(canvas, str(number), (160 + 112 * x, 160 + 112 * y), 25, ink)
        else:
            draw.line((160 + 108 * x, 160 + 108 * y, 160 + 126 * x, 160 + 126 * y), fill=ink, width=6)
    for turns, length, width in (((hour + minute / 60) / 12, 66, 9), (minute / 60, 96, 6)):
        angle = math.radians(360 * turns - 90)
        end = (160 + length * math.cos(angle), 160 + length * math.sin(angle))
        draw.line((160, 160, *end), fill=design.rim, width=width)
    draw.ellipse((150, 150, 170, 170), fill=design.rim)
    return canvas


def make_go_board(stones: list[tuple[int, int]], tone: Colour) -> Image.Image:
    """Draw a position on a board of nine by nine; black begins."""
    canvas = Image.new("RGB", (340, 340), tone)
    draw = ImageDraw.Draw(canvas)
    for line in range(9):
        at = 30 + 35 * line
        draw.line((30, at, 310, at), fill=(60, 45, 25))
        draw.line((at, 30, at, 310), fill=(60, 45, 25))
    for index, (row, column) in enumerate(stones):
        x, y = 30 + 35 * column, 30 + 35 * row
        fill = (25, 25, 28) if index % 2 == 0 else (245, 245, 242)
        draw.ellipse((x - 16, y - 16, x + 16, y + 16), fill=fill, outline=(70, 70, 70))
    return canvas


def make_cover(photo: Image.Image, masthead: str, lines: tuple[str, str], colour: Colour, signs: Signs) -> Image.Image:
    """Make the cover of a magazine: a masthead above a photograph, and two lines below."""
    canvas = ImageOps.fit(photo, (330, 430))
    canvas.paste(colour, (0, 0, 330, 74))
    signs.write(canvas, masthead, (165, 38), min(48, 480 // len(masthead)), WHITE)
    canvas.paste(colour, (0, 376, 330, 430))
    signs.write(canvas, lines[0], (165, 392), 17, WHITE)
    signs.write(canvas, lines[1], (165, 414), 12, (235, 235, 235))
    return canvas


# ---------------------------------------------------------------------------------------------------------------------
# Pictures without content


def write_paragraphs(canvas: Image.Image, top: int, words: tuple[str, ...], rng: random.Random, signs: Signs) -> None:
    """Fill a picture with lines of text from a height on."""
    size = rng.choice((11, 13, 15))
    y = top
    while y < canvas.height - size:
        line = " ".join(rng.choices(words, k=canvas.width // (size * 3)))
        signs.write(canvas, line, (18, y), size, (45, 45, 48), "la")
        y += int(size * 1.55) + (size if rng.random() < 0.12 else 0)


PAGE_WORDS = (
    "the",
    "of",
    "and",
    "a",
    "to",
    "in",
    "is",
    "for",
    "that",
    "members",
    "agreement",
    "annual",
    "report",
    "shall",
    "with",
    "party",
    "section",
    "school",
    "hereby",
    "notice",
    "period",
    "payment",
    "between",
    "under",
    "table",
    "results",
    "2014",
    "page",
    "any",
    "service",
    "from",
    "date",
    "following",
    "as",
    "be",
    "by",
    "on",
    "this",
    "year",
    "policy",
    "which",
)


def make_text_page(rng: random.Random, signs: Signs) -> Image.Image:
    """Make a page of a document, scanned or shot from a screen."""
    canvas = Image.new(
        "RGB",
        rng.choice(((360, 500), (420, 420), (500, 360))),
        rng.choice(((255, 255, 255), (250, 248, 240), (236, 236, 232))),
    )
    signs.write(
        canvas,
        rng.choice(("ANNUAL REPORT", "Terms and Conditions", "Notice", "Syllabus", "Minutes of Meeting")),
        (18, 20),
        20,
        (30, 30, 30),
        "la",
    )
    write_paragraphs(canvas, 58, PAGE_WORDS, rng, signs)
    return canvas


def make_spreadsheet(rng: random.Random, signs: Signs) -> Image.Image:
    """Make a screenshot of a table of numbers."""
    canvas = Image.new("RGB", (520, 330), WHITE)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 0, 520, 26), fill=rng.choice(((33, 115, 70), (230, 230, 232), (60, 90, 150))))
    for row in range(26, 330, 22):
        draw.line((0, row, 520, row), fill=(210, 210, 214))
        for column in range(0, 520, 74):
            text = str(rng.randint(1, 9999)) if rng.random() < 0.8 else ""
            signs.write(canvas, text, (column + 66, row + 11), 11, (50, 50, 55), "rm")
    for column in range(0, 520, 74):
        draw.line((column, 26, column, 330), fill=(210, 210, 214))
    return canvas


def make_code_screenshot(rng: random.Random, signs: Signs) -> Image.Image:
    """Make a screenshot of a terminal or an editor."""
    canvas = Image.new("RGB", (520, 320), rng.choice(((30, 30, 34), (39, 40, 34), (0, 20, 40), (12, 12, 12))))
    for y in range(16, 312, 18):
        indent = 12 + 22 * rng.choice((0, 0, 1, 1, 2, 3))
        token = rng.choice(
            (
                "def run(self):",
                "return value",
                "$ make install",
                "npm WARN deprecated",
                "if (x == null) {",
                "}",
                "import os",
                "ERROR 404 at line 12",
                "for i in range(n):",
                "SELECT id FROM t;",
                "[ok] done",
                "",
            )
        )
        colour = rng.choice(((220, 220, 210), (130, 190, 120), (230, 120, 110), (120, 170, 230), (230, 200, 120)))
        signs.write(canvas, token, (indent, y), 13, colour, "lm")
    return canvas


def make_missing_image_sign(rng: random.Random, signs: Signs) -> Image.Image:
    """Make what sites show in place of an image that is gone or refused."""
    tone = rng.choice((238, 224, 245, 204))
    canvas = Image.new("RGB", rng.choice(((300, 300), (400, 300), (640, 360), (200, 150))), (tone, tone, tone))
    draw = ImageDraw.Draw(canvas)
    x, y = canvas.width // 2, canvas.height // 2 - 12
    ink = (tone - 50, tone - 50, tone - 46)
    if rng.random() < 0.6:
        draw.rectangle((x - 38, y - 30, x + 38, y + 30), outline=ink, width=4)
        draw.polygon([(x - 30, y + 22), (x - 8, y - 8), (x + 8, y + 10), (x + 16, y + 2), (x + 30, y + 22)], fill=ink)
        draw.ellipse((x + 10, y - 22, x + 22, y - 10), fill=ink)
    text = rng.choice(
        (
            "No image available",
            "Image not found",
            "Photo coming soon",
            "403 Hotlinking not allowed",
            "This image is no longer available",
            "IMAGE REMOVED",
            "No Photo",
            "404",
            "Image unavailable",
        )
    )
    signs.write(canvas, text, (x, y + 52), 17, ink)
    return canvas


def make_default_avatar(rng: random.Random) -> Image.Image:
    """Make the head that members without a picture have, or a pattern made of their address."""
    side = rng.choice((80, 96, 128, 200))
    if rng.random() < 0.5:
        colour = rng.choice(make_palette(rng))
        canvas = Image.new("RGB", (side, side), (240, 240, 240))
        cell = side // 5
        for row in range(5):
            for column in range(3):
                if rng.random() < 0.5:
                    for x in {column, 4 - column}:
                        canvas.paste(colour, (x * cell, row * cell, (x + 1) * cell, (row + 1) * cell))
        return canvas
    back = rng.choice(((204, 204, 204), (190, 205, 220), (225, 225, 225), (160, 170, 180)))
    canvas = Image.new("RGB", (side, side), back)
    draw = ImageDraw.Draw(canvas)
    ink = rng.choice(((255, 255, 255), (130, 135, 140)))
    draw.ellipse((side * 0.32, side * 0.16, side * 0.68, side * 0.54), fill=ink)
    draw.ellipse((side * 0.14, side * 0.6, side * 0.86, side * 1.4), fill=ink)
    return canvas


def make_banner(rng: random.Random, signs: Signs) -> Image.Image:
    """Make an advertisement of words, in the sizes that networks of advertisements take."""
    width, height = rng.choice(((468, 60), (728, 90), (300, 250), (336, 280), (320, 100), (970, 90)))
    upper, lower = rng.sample(make_palette(rng, 8), 2)
    canvas = make_gradient(width, height, upper, lower)
    text = rng.choice(
        (
            "50% OFF TODAY",
            "Subscribe now",
            "Free trial - 30 days",
            "DOWNLOAD",
            "WIN A PRIZE",
            "Click here",
            "Save big!",
            "JOIN NOW >>",
            "Best rates 0.9%",
            "Advertise here",
        )
    )
    signs.write(canvas, text, (width / 2, height / 2 - 8), max(16, min(34, height // 3)), WHITE)
    if height > 80:
        box = (width / 2 - 50, height * 0.68, width / 2 + 50, height * 0.68 + 24)
        ImageDraw.Draw(canvas).rounded_rectangle(box, 8, fill=(255, 210, 60))
        signs.write(canvas, "Learn more", (width / 2, height * 0.68 + 12), 13, (60, 40, 0))
    return canvas


def make_button(rng: random.Random, signs: Signs) -> Image.Image:
    """Make a button of an old page."""
    width, height = rng.choice(((120, 40), (88, 31), (160, 48), (200, 56)))
    colour = rng.choice(make_palette(rng))
    canvas = make_gradient(width, height, tuple(min(255, level + 40) for level in colour), colour)
    ImageDraw.Draw(canvas).rectangle((0, 0, width - 1, height - 1), outline=(90, 90, 90), width=2)
    text = rng.choice(
        (
            "Submit",
            "Buy Now",
            "Home",
            "Next >",
            "Login",
            "RSS",
            "Play",
            "PDF",
            "Register",
            "Search",
            "Reply",
            "New Thread",
        )
    )
    signs.write(canvas, text, (width / 2, height / 2), height // 2 - 3, WHITE)
    return canvas


def make_qr_code(rng: random.Random) -> Image.Image:
    """Make a code that telephones read, of an address."""
    text = f"https://m.shanye.example/{rng.randrange(10**9)}"
    code = cv2.QRCodeEncoder.create().encode(text)
    side = rng.choice((200, 258, 320, 430))
    picture = Image.fromarray(cv2.resize(code, (side, side), interpolation=cv2.INTER_NEAREST)).convert("RGB")
    return ImageOps.expand(picture, rng.choice((8, 16, 24)), WHITE)


def make_captcha(rng: random.Random, signs: Signs) -> Image.Image:
    """Make the letters that a form asks to copy."""
    canvas = Image.new("RGB", (160, 60), (238, 238, 244))
    for index in range(rng.randint(4, 6)):
        letter = rng.choice("ABCDEFGHKMNPRSTWXYZ23456789")
        signs.write(canvas, letter, (20 + 24 * index, 30 + rng.randint(-9, 9)), 32, rng.choice(make_palette(rng)))
    draw = ImageDraw.Draw(canvas)
    for _ in range(6):
        ends = (rng.randint(0, 160), rng.randint(0, 60), rng.randint(0, 160), rng.randint(0, 60))
        draw.line(ends, fill=rng.choice(make_palette(rng)), width=2)
    return canvas


def make_blank(rng: random.Random) -> Image.Image:
    """Make a picture of one colour, as counters, spacers and loading pages have."""
    size = rng.choice(((300, 200), (100, 100), (640, 360), (16, 16), (2, 2), (400, 300)))
    colour = rng.choice(
        ((255, 255, 255), (0, 0, 0), (238, 238, 238), (245, 245, 245), (200, 210, 220), (253, 250, 245))
    )
    return Image.new("RGB", size, colour)


def make_divider(rng: random.Random) -> Image.Image:
    """Make a line between paragraphs or the shadow of a page's header."""
    width, height = rng.choice(((900, 12), (600, 20), (720, 8), (14, 500), (1000, 30)))
    upper, lower = rng.choice(
        (((255, 255, 255), (170, 170, 175)), ((150, 40, 40), (80, 20, 20)), ((230, 230, 235), (230, 230, 235)))
    )
    return make_gradient(width, height, upper, lower)


def make_star_rating(rng: random.Random) -> Image.Image:
    """Make a row of five stars."""
    size = rng.choice((18, 26, 40))
    canvas = Image.new("RGB", (size * 5 + 8, size + 6), WHITE)
    draw = ImageDraw.Draw(canvas)
    full = rng.randint(0, 5)
    for index in range(5):
        center = 4 + size * (index + 0.5)
        points = []
        for corner in range(10):
            radius = size * (0.46 if corner % 2 == 0 else 0.2)
            angle = math.radians(36 * corner - 90)
            points.append((center + radius * math.cos(angle), size / 2 + 3 + radius * math.sin(angle)))
        draw.polygon(points, fill=(245, 180, 40) if index < full else (214, 214, 214))
    return canvas


def make_play_frame(rng: random.Random) -> Image.Image:
    """Make the first frame of a video that begins black, below a play button."""
    canvas = Image.new("RGB", rng.choice(((480, 270), (480, 360), (320, 180))), (rng.randint(0, 14),) * 3)
    draw = ImageDraw.Draw(canvas)
    x, y, radius = canvas.width // 2, canvas.height // 2, rng.randint(24, 40)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=(240, 240, 240), width=4)
    half = radius // 2
    draw.polygon([(x - half // 2, y - half), (x - half // 2, y + half), (x + half, y)], fill=(240, 240, 240))
    return canvas


def make_title_card(rng: random.Random, signs: Signs) -> Image.Image:
    """Make the card that a blog without pictures gives to social networks: its title on a colour."""
    upper, lower = rng.sample(make_palette(rng, 7), 2)
    canvas = make_gradient(600, 315, upper, lower)
    first, second = rng.choice(
        (
            ("How we doubled", "our open rate"),
            ("Release notes", "version 4.2"),
            ("10 tips for", "better meetings"),
            ("Job opening:", "Accountant (m/f)"),
            ("Weekly update", "No. 38"),
            ("Why I left", "social media"),
            ("Q3 Results", "Webcast 14:00"),
            ("Reading list", "for the summer"),
        )
    )
    signs.write(canvas, first, (300, 120), 46, WHITE)
    signs.write(canvas, second, (300, 180), 46, WHITE)
    signs.write(canvas, "blog.fenwick.example", (300, 270), 18, WHITE)
    return canvas


def smear_blocks(image: Image.Image, rng: random.Random) -> Image.Image:
    """Damage a JPEG as a disturbed transfer does: blocks below a height are shifted, and their colours are off."""
    original = np.asarray(image, np.float32)
    while True:
        data = bytearray(encode_image(image, "jpg", 85))
        start = data.find(b"\xff\xda") + 14
        first = start + int((len(data) - start) * rng.uniform(0.1, 0.35))
        for _ in range(12):
            data[rng.randrange(first, len(data) - 20)] = rng.randrange(1, 255)
        try:
            damaged = Image.open(io.BytesIO(bytes(data))).convert("RGB")
        except OSError:  # the damage ended the picture
            continue
        difference = np.abs(np.asarray(damaged, np.float32) - original).max(axis=2)
        # Some damage moves nothing: a quarter of the pixels is seen at a glance.
        if (difference > 40).mean() > 0.25:
            return damaged


def half_loaded(image: Image.Image, rng: random.Random) -> Image.Image:
    """Return a picture of which only the upper part arrived, the rest grey, as browsers save it."""
    broken = image.copy()
    top = int(image.height * rng.uniform(0.2, 0.5))
    broken.paste((128, 128, 128), (0, top, image.width, image.height))
    return broken


def blur_preview(image: Image.Image, rng: random.Random) -> Image.Image:
    """Return the tiny preview of a picture, stretched, that pages show until the picture has come."""
    cells = rng.choice((8, 12, 16))
    small = image.resize((cells, max(4, cells * image.height // image.width)), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(4))


def make_no_content_pictures(signs: Signs) -> dict[str, Callable[[random.Random], Image.Image]]:
    """Return the makers of pictures that show nothing, by kind."""
    return {
        "blank": make_blank,
        "divider": make_divider,
        "default_avatar": make_default_avatar,
        "qr_code": make_qr_code,
        "star_rating": make_star_rating,
        "black_video_frame": make_play_frame,
        "missing_image_sign": lambda rng: make_missing_image_sign(rng, signs),
        "text_page": lambda rng: make_text_page(rng, signs),
        "spreadsheet": lambda rng: make_spreadsheet(rng, signs),
        "code_screenshot": lambda rng: make_code_screenshot(rng, signs),
        "banner": lambda rng: make_banner(rng, signs),
        "button": lambda rng: make_button(rng, signs),
        "captcha": lambda rng: make_captcha(rng, signs),
        "title_card": lambda rng: make_title_card(rng, signs),
    }
