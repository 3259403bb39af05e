"""Food, vessels and tools as a camera above a table sees them: what lies there has colours, heights and gloss."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import cv2
import numpy as np
from making import make_smooth_noise
from PIL import Image

SIDE = 420  # pixels of the table that the camera looks at; a larger one costs time in proportion to its area
MIDDLE = SIDE / 2
BYTE_SCALE = 0.75  # of colours while they are bytes
NUM_TEXTURES = 8  # patterns of mottling and cloth, drawn once, since noise is dear

Colour = tuple[int, int, int]
Array = np.ndarray
# Colours of the pixels at these places: u runs along the thing and v across it, from -1 to 1; rho is 1 at its edge.
Skin = Callable[[Array, Array, Array], Array]

PORCELAIN = (238, 238, 234)
STEEL, WOOD, PALE_WOOD = (172, 175, 178), (150, 104, 62), (205, 168, 118)


# ---------------------------------------------------------------------------------------------------------------------
# Skins: colours of things


def fill(colour: Colour, shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(np.array(colour, np.float32), (*shape, 3)).copy()


def plain(colour: Colour) -> Skin:
    return lambda u, v, rho: fill(colour, u.shape)


def rings(*stops: tuple[float, Colour]) -> Skin:
    """Colour by the distance from the middle, as slices of fruit and eggs have it."""
    table = tabulate(stops, 0)
    return lambda u, v, rho: table[np.minimum(rho * 255, 255).astype(np.uint8)]


def along(*stops: tuple[float, Colour]) -> Skin:
    """Colour by the place along the thing, from -1 to 1."""
    table = tabulate(stops, -1)
    return lambda u, v, rho: table[np.clip(u * 127.5 + 127.5, 0, 255).astype(np.uint8)]


def tabulate(stops: Sequence[tuple[float, Colour]], start: float) -> Array:
    """Return 256 colours from `start` to 1: looking them up is several times as fast as interpolating each pixel."""
    places = [place for place, _ in stops]
    positions = np.linspace(start, 1, 256)
    channels = [np.interp(positions, places, [colour[index] for _, colour in stops]) for index in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def mix(colours: Array, colour: Colour, share: Array) -> Array:
    return colours + (np.array(colour, np.float32) - colours) * np.clip(share, 0, 1)[..., None]


def segmented(flesh: Colour, pith: Colour, peel: Colour, count: int = 10) -> Skin:
    """Segments of a citrus fruit, or with few of them the chambers of a tomato."""

    def paint(u: Array, v: Array, rho: Array) -> Array:
        wall = np.abs(np.sin(np.arctan2(v, u) * count / 2)) * rho < 0.09
        colours = mix(fill(flesh, u.shape), pith, wall | (rho < 0.12) | (rho > 0.84))
        return mix(colours, peel, rho > 0.92)

    return paint


def pierced(colour: Colour, hole: Colour, count: int = 8) -> Skin:
    """Round holes on a circle, as of lotus root."""

    def paint(u: Array, v: Array, rho: Array) -> Array:
        angle = np.arctan2(v, u) * count / (2 * np.pi) % 1 - 0.5
        distance = np.hypot(angle * 2 * np.pi * 0.55 / count * 1.6, rho - 0.55)
        return mix(fill(colour, u.shape), hole, (distance < 0.13) | (rho < 0.14))

    return paint


def banded(colour: Colour, band: Colour, count: float, sharpness: float = 3, across: bool = False) -> Skin:
    """Bands across the thing (or along it), as of shrimps, bacon and grilled meat."""

    def paint(u: Array, v: Array, rho: Array) -> Array:
        wave = np.sin((v if across else u) * np.pi * count)
        return mix(fill(colour, u.shape), band, wave * sharpness - sharpness * 0.5)

    return paint


def veined(colour: Colour, vein: Colour) -> Skin:
    """A leaf with its veins."""

    def paint(u: Array, v: Array, rho: Array) -> Array:
        side_veins = np.abs(np.sin((u - np.abs(v) * 0.6) * 14)) < 0.22
        return mix(mix(fill(colour, u.shape), vein, side_veins * 0.5), vein, np.abs(v) < 0.08)

    return paint


def dotted(colour: Colour, dot: Colour, cells: float, size: float = 0.28) -> Skin:
    """Dots in staggered rows, as seeds of a strawberry or the holes of a biscuit."""

    def paint(u: Array, v: Array, rho: Array) -> Array:
        row = np.floor(v * cells)
        x, y = (u * cells + row % 2 * 0.5) % 1 - 0.5, v * cells % 1 - 0.5
        return mix(fill(colour, u.shape), dot, np.hypot(x, y) < size)

    return paint


def pleated(colour: Colour, crease: Colour, count: int, core: float = 0.8) -> Skin:
    """Creases that run to the middle, as of buns and tarts."""

    def paint(u: Array, v: Array, rho: Array) -> Array:
        wave = np.cos(np.arctan2(v, u) * count + rho * 2.5)
        return mix(fill(colour, u.shape), crease, np.clip(wave - 0.45, 0, 1) * (rho < core) * 1.3)

    return paint


def crimped(colour: Colour, crease: Colour) -> Skin:
    """The folded edge of a dumpling."""

    def paint(u: Array, v: Array, rho: Array) -> Array:
        folds = (np.sin(u * 22) > 0.4) & (v < -0.25)
        return mix(fill(colour, u.shape), crease, folds * 0.6 + (np.abs(v + 0.3) < 0.06) * 0.5)

    return paint


# ---------------------------------------------------------------------------------------------------------------------
# Pieces: what food is made of

PROFILE_CURVES: dict[str, Callable[[Array], Array]] = {
    "dome": lambda rho: np.sqrt(np.clip(1 - rho * rho, 0, 1)),
    "flat": lambda rho: np.clip((1 - rho) * 5, 0, 1),
    "ring": lambda rho: np.sqrt(np.clip(1 - ((rho - 0.66) / 0.34) ** 2, 0, 1)),
    "plate": lambda rho: np.interp(rho, (0, 0.7, 0.8, 0.97, 1), (0.2, 0.2, 0.45, 1, 0.9)),
    "bowl": lambda rho: np.interp(rho, (0, 0.45, 0.8, 0.94, 1), (0.05, 0.1, 0.5, 1, 0.95)),
    "pan": lambda rho: np.interp(rho, (0, 0.78, 0.92, 0.97, 1), (0.1, 0.12, 0.8, 1, 0.9)),
    "cake": lambda rho: np.clip((1 - rho) * 9, 0, 1),
}
PROFILES = {name: curve(np.linspace(0, 1, 512)).astype(np.float32) for name, curve in PROFILE_CURVES.items()}


@dataclass(frozen=True)
class Piece:
    """A bit of food; sizes are pixels when the plate has a radius of 100."""

    zh: str
    en: str
    size: float
    skin: Skin
    aspect: float = 1
    thickness: float = 8
    corner: float = 2  # exponent of the outline: 2 is an ellipse, 8 a box
    ripple: float = 0.05
    profile: str = "dome"
    gloss: float = 0.3
    bend: float = 0  # 1 makes a crescent
    mottle: float = 0.06


def _piece(zh: str, en: str, size: float, skin: Skin, **shape: float | str) -> Piece:
    return replace(Piece(zh, en, size, skin), **shape)  # type: ignore[arg-type]


PIECES: dict[str, Piece] = {
    "tomato_wedge": _piece("番茄", "tomatoes", 11, along((-1, (214, 62, 38)), (0, (228, 92, 58)),
        (1, (196, 44, 30))), aspect=1.6, bend=0.3, gloss=0.7),
    "cherry_tomato": _piece("小番茄", "cherry tomatoes", 11, plain((206, 44, 32)), thickness=16, gloss=0.9),
    "tomato": _piece("西红柿", "tomatoes", 24, plain((208, 52, 36)), thickness=30, gloss=0.9),
    "tomato_slice": _piece("番茄片", "tomato slices", 17, segmented((226, 96, 70), (236, 150, 120), (198, 40, 30),
        5), profile="flat", thickness=4, gloss=0.7),
    "egg_curd": _piece("鸡蛋", "scrambled eggs", 13, plain((246, 205, 92)), aspect=1.3, ripple=0.16, mottle=0.12),
    "egg_half": _piece("半个水煮蛋", "halved boiled eggs", 15, rings((0, (240, 160, 40)), (0.48, (244, 178, 60)),
        (0.56, (246, 243, 234)), (1, (236, 230, 216))), aspect=1.25, thickness=7, gloss=0.5),
    "fried_egg": _piece("煎蛋", "fried eggs", 27, rings((0, (246, 170, 30)), (0.34, (248, 184, 46)),
        (0.4, (250, 248, 240)), (0.86, (244, 238, 222)), (1, (196, 140, 74))), ripple=0.09, thickness=6, gloss=0.6),
    "egg": _piece("鸡蛋", "eggs", 17, plain((214, 166, 124)), aspect=1.28, thickness=24, gloss=0.25, ripple=0,
        mottle=0.03),
    "scallion": _piece("葱花", "chopped scallions", 4, rings((0, (190, 214, 140)), (0.5, (120, 176, 70)),
        (1, (62, 124, 40))), profile="ring", thickness=3),
    "scallion_length": _piece("葱段", "scallion lengths", 4, along((-1, (226, 232, 190)), (0.2, (110, 164, 70)),
        (1, (44, 104, 40))), aspect=4.5, thickness=4),
    "coriander": _piece("香菜", "coriander", 8, veined((54, 122, 44), (120, 170, 90)), ripple=0.35, profile="flat",
        thickness=2),
    "basil": _piece("罗勒叶", "basil leaves", 10, veined((48, 112, 44), (96, 150, 76)), aspect=1.6, thickness=4,
        gloss=0.4),
    "mint": _piece("薄荷叶", "mint leaves", 9, veined((70, 150, 72), (130, 190, 120)), aspect=1.5, ripple=0.1,
        thickness=4),
    "sesame": _piece("白芝麻", "sesame seeds", 1.8, plain((240, 224, 184)), aspect=1.6, thickness=2),
    "black_sesame": _piece("黑芝麻", "black sesame", 1.8, plain((36, 32, 32)), aspect=1.6, thickness=2),
    "chili_ring": _piece("小米辣", "sliced red chillies", 5, rings((0, (240, 190, 130)), (0.5, (216, 60, 40)),
        (1, (186, 24, 22))), profile="ring", thickness=3, gloss=0.6),
    "dried_chili": _piece("干辣椒", "dried chillies", 5, along((-1, (150, 24, 20)), (1, (104, 14, 14))), aspect=3.2,
        bend=0.3, thickness=6, gloss=0.6),
    "green_pepper": _piece("青椒", "green peppers", 8, plain((70, 136, 46)), aspect=2, bend=0.4, gloss=0.7,
        thickness=6),
    "red_pepper": _piece("红椒", "red peppers", 8, plain((204, 48, 34)), aspect=2, bend=0.4, gloss=0.7, thickness=6),
    "yellow_pepper": _piece("黄椒", "yellow peppers", 8, plain((238, 188, 44)), aspect=2, bend=0.4, gloss=0.7,
        thickness=6),
    "pork_belly": _piece("五花肉", "pork belly", 14, banded((150, 62, 34), (226, 178, 130), 1.6, across=True),
        corner=5, thickness=15, gloss=0.9),
    "beef_slice": _piece("牛肉片", "sliced beef", 13, plain((122, 72, 50)), aspect=1.7, ripple=0.1, thickness=4,
        gloss=0.5, mottle=0.16),
    "beef_cube": _piece("牛肉块", "beef chunks", 13, plain((104, 58, 38)), corner=4, thickness=14, gloss=0.6,
        mottle=0.16),
    "raw_beef": _piece("生牛肉", "raw beef", 24, banded((176, 44, 46), (230, 190, 180), 4, 2), aspect=1.5,
        ripple=0.08, thickness=9, gloss=0.6, mottle=0.14),
    "chicken_dice": _piece("鸡丁", "diced chicken", 9, plain((206, 150, 92)), corner=4, thickness=9, gloss=0.6,
        mottle=0.1),
    "chicken_wing": _piece("鸡翅", "chicken wings", 17, along((-1, (166, 84, 32)), (0, (196, 112, 44)),
        (1, (140, 66, 28))), aspect=1.8, bend=0.35, thickness=15, gloss=0.8, mottle=0.14),
    "drumstick": _piece("鸡腿", "drumsticks", 19, along((-1, (150, 78, 32)), (0.5, (190, 110, 50)),
        (0.7, (230, 208, 176)), (1, (236, 222, 196))), aspect=1.8, thickness=20, gloss=0.7, mottle=0.14),
    "sausage_slice": _piece("腊肠片", "sliced sausage", 9, dotted((158, 50, 40), (226, 180, 160), 3, 0.25),
        aspect=1.35, profile="flat", thickness=3, gloss=0.6),
    "sausage": _piece("烤肠", "grilled sausages", 11, banded((160, 76, 42), (84, 40, 26), 4), aspect=4, thickness=17,
        gloss=0.8),
    "meatball": _piece("肉丸", "meatballs", 15, plain((122, 76, 48)), thickness=22, gloss=0.7, mottle=0.2,
        ripple=0.08),
    "bacon": _piece("培根", "bacon", 10, banded((168, 64, 44), (238, 196, 160), 2, across=True), aspect=4.5,
        bend=0.25, thickness=5, gloss=0.6, ripple=0.1),
    "steak": _piece("牛排", "steak", 40, banded((112, 62, 38), (52, 30, 22), 5, 4), aspect=1.45, ripple=0.09,
        thickness=15, gloss=0.6, mottle=0.16),
    "shrimp": _piece("虾仁", "shrimps", 10, banded((244, 170, 130), (226, 100, 66), 3.5), aspect=1.7, bend=0.9,
        thickness=10, gloss=0.6),
    "fish": _piece("整条鱼", "a whole fish", 30, along((-1, (112, 96, 70)), (-0.4, (164, 142, 104)),
        (0.4, (150, 128, 94)), (1, (90, 76, 60))), aspect=2.7, thickness=22, gloss=0.6, mottle=0.12),
    "fish_fillet": _piece("鱼片", "fish fillets", 15, along((-1, (240, 232, 214)), (1, (226, 208, 180))), aspect=1.6,
        ripple=0.1, thickness=6, gloss=0.5),
    "salmon": _piece("三文鱼", "salmon", 22, banded((240, 128, 84), (250, 196, 160), 4, 2), aspect=1.7, corner=3.5,
        thickness=13, gloss=0.6),
    "mussel": _piece("青口", "mussels", 15, along((-1, (40, 40, 56)), (0, (222, 150, 80)), (1, (54, 52, 66))),
        aspect=1.7, thickness=9, gloss=0.9),
    "clam": _piece("花蛤", "clams", 11, rings((0, (226, 196, 150)), (0.6, (180, 150, 116)), (1, (120, 98, 80))),
        aspect=1.25, thickness=9, gloss=0.6),
    "tofu": _piece("豆腐", "tofu", 12, plain((242, 232, 206)), corner=6, thickness=11, gloss=0.4, ripple=0.02,
        mottle=0.03),
    "fried_tofu": _piece("煎豆腐", "pan-fried tofu", 15, rings((0, (222, 170, 84)), (0.7, (206, 146, 66)),
        (1, (150, 92, 40))), corner=5, thickness=10, gloss=0.5, mottle=0.1),
    "potato_strip": _piece("土豆丝", "shredded potatoes", 3, plain((236, 212, 136)), aspect=9, bend=0.1, thickness=3,
        gloss=0.4),
    "potato_cube": _piece("土豆块", "potato chunks", 13, plain((226, 186, 98)), corner=3.5, thickness=13,
        mottle=0.08),
    "potato": _piece("土豆", "potatoes", 21, plain((186, 146, 92)), aspect=1.3, thickness=26, ripple=0.08,
        mottle=0.12, gloss=0.1),
    "fries": _piece("薯条", "French fries", 5, along((-1, (206, 146, 56)), (0, (240, 200, 100)),
        (1, (200, 136, 50))), aspect=6, corner=6, thickness=8, gloss=0.3),
    "carrot_slice": _piece("胡萝卜片", "carrot slices", 9, rings((0, (250, 176, 84)), (0.4, (244, 150, 54)),
        (0.5, (236, 124, 36)), (1, (222, 106, 28))), profile="flat", thickness=3),
    "carrot": _piece("胡萝卜", "carrots", 11, banded((234, 122, 40), (200, 94, 28), 8, 1), aspect=4, thickness=18,
        gloss=0.2),
    "cucumber_slice": _piece("黄瓜片", "cucumber slices", 12, rings((0, (206, 224, 160)), (0.5, (196, 218, 146)),
        (0.85, (214, 230, 176)), (0.9, (60, 116, 44)), (1, (44, 96, 36))), profile="flat", thickness=3, gloss=0.6),
    "lotus_root": _piece("莲藕片", "lotus root", 17, pierced((234, 216, 188), (150, 112, 82)), profile="flat",
        thickness=4, ripple=0.03),
    "broccoli": _piece("西兰花", "broccoli", 14, dotted((62, 128, 50), (104, 164, 74), 4, 0.3), ripple=0.18,
        thickness=16, mottle=0.3, gloss=0.2),
    "cauliflower": _piece("花菜", "cauliflower", 14, dotted((232, 222, 190), (208, 190, 150), 4, 0.3), ripple=0.18,
        thickness=15, mottle=0.14),
    "greens": _piece("青菜", "greens", 12, veined((62, 128, 48), (182, 210, 140)), aspect=2.4, ripple=0.12,
        thickness=6, gloss=0.6),
    "lettuce": _piece("生菜", "lettuce", 22, veined((138, 190, 78), (206, 226, 150)), aspect=1.3, ripple=0.2,
        thickness=8, gloss=0.3, mottle=0.2),
    "spinach": _piece("菠菜", "spinach", 11, veined((36, 92, 36), (86, 140, 70)), aspect=1.8, ripple=0.14,
        thickness=5, gloss=0.5),
    "mushroom_slice": _piece("蘑菇片", "sliced mushrooms", 12, rings((0, (226, 204, 170)), (0.7, (206, 176, 136)),
        (1, (140, 100, 66))), aspect=1.3, bend=0.5, thickness=4, gloss=0.4),
    "shiitake": _piece("香菇", "shiitake mushrooms", 15, rings((0, (104, 70, 46)), (0.7, (122, 84, 54)),
        (1, (74, 48, 34))), thickness=12, gloss=0.5, mottle=0.16),
    "wood_ear": _piece("木耳", "wood ear fungus", 12, plain((58, 42, 38)), ripple=0.28, thickness=6, gloss=0.8),
    "corn": _piece("玉米段", "corn on the cob", 14, dotted((244, 200, 66), (220, 160, 40), 5, 0.2), aspect=1.6,
        corner=5, thickness=20, gloss=0.5),
    "corn_kernel": _piece("玉米粒", "sweetcorn", 4, plain((246, 204, 70)), thickness=5, gloss=0.5),
    "pea": _piece("豌豆", "peas", 4, plain((110, 168, 62)), thickness=6, gloss=0.5),
    "peanut": _piece("花生米", "peanuts", 5, plain((196, 138, 84)), aspect=1.3, thickness=6),
    "bean_sprout": _piece("豆芽", "bean sprouts", 3, along((-1, (238, 232, 214)), (0.8, (236, 226, 196)),
        (1, (230, 200, 100))), aspect=8, bend=0.6, thickness=3),
    "onion_ring": _piece("洋葱圈", "onion rings", 14, rings((0.5, (232, 214, 226)), (0.9, (206, 160, 200)),
        (1, (150, 80, 140))), profile="ring", thickness=5),
    "onion": _piece("洋葱", "onions", 22, banded((160, 72, 96), (190, 110, 130), 5, 1), thickness=28, gloss=0.5),
    "garlic": _piece("蒜瓣", "garlic cloves", 7, along((-1, (240, 230, 214)), (1, (214, 190, 170))), aspect=1.7,
        bend=0.3, thickness=8),
    "garlic_mince": _piece("蒜末", "minced garlic", 2.4, plain((244, 230, 184)), thickness=3, ripple=0.2),
    "ginger_slice": _piece("姜片", "ginger slices", 9, rings((0, (238, 214, 136)), (0.85, (226, 196, 112)),
        (1, (160, 120, 70))), aspect=1.5, profile="flat", ripple=0.12, thickness=3),
    "eggplant": _piece("茄子", "aubergines", 11, along((-1, (84, 44, 92)), (0, (150, 104, 90)), (1, (74, 36, 80))),
        aspect=2.6, thickness=9, gloss=0.9),
    "whole_eggplant": _piece("长茄子", "whole aubergines", 14, along((-1, (62, 120, 50)), (-0.86, (70, 34, 84)),
        (1, (58, 26, 70))), aspect=4.2, bend=0.25, thickness=22, gloss=1),
    "pumpkin_chunk": _piece("南瓜块", "pumpkin chunks", 15, along((-1, (226, 140, 44)), (0.8, (236, 160, 60)),
        (1, (70, 96, 50))), corner=3.5, thickness=13),
    "seaweed": _piece("海苔", "nori", 22, plain((30, 44, 34)), corner=9, profile="flat", thickness=2, ripple=0,
        gloss=0.3, mottle=0.2),
    "dumpling": _piece("饺子", "dumplings", 17, crimped((240, 228, 200), (206, 186, 150)), aspect=1.75, bend=0.3,
        thickness=16, gloss=0.4, ripple=0.02),
    "wonton": _piece("馄饨", "wontons", 16, crimped((244, 228, 196), (220, 170, 140)), ripple=0.14, thickness=12,
        gloss=0.6),
    "potsticker": _piece("锅贴", "potstickers", 15, along((-1, (226, 190, 130)), (0, (190, 120, 52)),
        (1, (224, 186, 126))), aspect=2.3, thickness=14, gloss=0.6, mottle=0.14),
    "bun": _piece("包子", "steamed buns", 27, pleated((244, 236, 218), (206, 192, 166), 14, 0.7), thickness=24,
        ripple=0.03, gloss=0.2, mottle=0.03),
    "mantou": _piece("馒头", "plain steamed buns", 24, plain((244, 236, 216)), corner=3, thickness=24, ripple=0.02,
        gloss=0.2, mottle=0.03),
    "soup_dumpling": _piece("小笼包", "soup dumplings", 20, pleated((238, 222, 190), (196, 172, 134), 16, 0.6),
        thickness=15, gloss=0.5, ripple=0.03),
    "shumai": _piece("烧卖", "shumai", 15, rings((0, (236, 140, 60)), (0.25, (226, 170, 120)),
        (0.6, (238, 206, 110)), (1, (226, 186, 90))), ripple=0.09, thickness=17, gloss=0.5),
    "zongzi": _piece("粽子", "zongzi", 24, banded((92, 112, 52), (210, 196, 150), 1.5, 8), aspect=1.3, corner=1.4,
        thickness=24, gloss=0.3),
    "spring_roll": _piece("春卷", "spring rolls", 9, along((-1, (190, 120, 48)), (0, (222, 160, 76)),
        (1, (186, 112, 44))), aspect=4, corner=4, thickness=13, gloss=0.5, mottle=0.12),
    "sushi": _piece("寿司卷", "sushi rolls", 15, rings((0, (240, 130, 84)), (0.35, (240, 146, 96)),
        (0.42, (246, 244, 236)), (0.84, (240, 238, 228)), (0.9, (28, 40, 32)), (1, (20, 32, 26))), thickness=13,
        profile="flat", ripple=0.02),
    "nigiri": _piece("握寿司", "nigiri", 13, banded((240, 132, 90), (250, 206, 176), 3.5, 2), aspect=2.1, corner=3,
        thickness=15, gloss=0.6),
    "skewer": _piece("烤串", "skewers", 9, banded((134, 74, 40), (84, 44, 26), 4.5, 2), aspect=6, corner=3,
        thickness=12, gloss=0.7, mottle=0.2),
    "toast": _piece("吐司", "toast", 36, rings((0, (226, 178, 110)), (0.8, (216, 162, 92)), (0.9, (160, 100, 50)),
        (1, (130, 78, 40))), corner=5, thickness=9, gloss=0.05, mottle=0.1),
    "loaf": _piece("面包", "a loaf of bread", 42, banded((176, 108, 52), (232, 200, 150), 3.5, 5), aspect=1.75,
        thickness=36, gloss=0.2, mottle=0.1),
    "baguette": _piece("法棍", "baguettes", 17, banded((186, 118, 58), (236, 204, 150), 5, 4), aspect=6,
        thickness=20, gloss=0.2, mottle=0.1),
    "croissant": _piece("可颂", "croissants", 22, banded((206, 134, 58), (158, 88, 34), 4.5, 2), aspect=1.9,
        bend=0.7, thickness=20, gloss=0.6),
    "bread_roll": _piece("小餐包", "bread rolls", 24, rings((0, (172, 98, 42)), (0.6, (190, 118, 56)),
        (1, (222, 170, 106))), thickness=22, gloss=0.5, ripple=0.03),
    "cookie": _piece("曲奇", "chocolate chip cookies", 19, dotted((202, 148, 88), (70, 42, 30), 2.4, 0.24),
        ripple=0.06, thickness=7, gloss=0.1, mottle=0.1),
    "macaron": _piece("马卡龙", "macarons", 16, plain((236, 160, 180)), thickness=13, profile="cake", ripple=0.02,
        gloss=0.2, mottle=0.03),
    "doughnut": _piece("甜甜圈", "doughnuts", 27, rings((0.3, (206, 150, 84)), (0.45, (240, 150, 180)),
        (0.88, (236, 140, 172)), (0.95, (206, 150, 84))), profile="ring", thickness=18, gloss=0.6, ripple=0.03),
    "cupcake": _piece("纸杯蛋糕", "cupcakes", 25, pleated((246, 214, 222), (220, 170, 186), 7, 0.95), thickness=26,
        ripple=0.07, gloss=0.3),
    "egg_tart": _piece("蛋挞", "egg tarts", 22, rings((0, (244, 186, 66)), (0.6, (236, 170, 50)),
        (0.72, (214, 150, 84)), (1, (190, 122, 62))), thickness=10, profile="flat", gloss=0.7, mottle=0.14),
    "mooncake": _piece("月饼", "mooncakes", 25, pleated((190, 118, 52), (140, 78, 32), 12, 0.75), ripple=0.05,
        thickness=15, profile="cake", gloss=0.5),
    "pancake": _piece("松饼", "pancakes", 44, rings((0, (190, 122, 60)), (0.82, (202, 136, 70)),
        (0.9, (240, 208, 146)), (1, (232, 196, 132))), thickness=8, profile="flat", ripple=0.03, mottle=0.1),
    "waffle": _piece("华夫饼", "waffles", 40, dotted((214, 156, 80), (158, 98, 44), 4, 0.36), corner=5, thickness=11,
        profile="flat", gloss=0.2),
    "pizza": _piece("披萨", "pizza", 82, rings((0, (236, 190, 92)), (0.76, (226, 160, 70)), (0.84, (206, 90, 46)),
        (0.88, (216, 158, 92)), (1, (180, 116, 58))), thickness=8, profile="flat", ripple=0.02, mottle=0.18,
        gloss=0.3),
    "flatbread": _piece("葱油饼", "scallion pancakes", 62, rings((0, (214, 160, 84)), (0.5, (198, 138, 64)),
        (1, (222, 176, 104))), thickness=6, profile="flat", mottle=0.24, gloss=0.4),
    "cake": _piece("蛋糕", "a cake", 60, plain((246, 238, 224)), thickness=40, profile="cake", ripple=0.01,
        gloss=0.2, mottle=0.02),
    "cheesecake": _piece("芝士蛋糕", "cheesecake", 58, rings((0, (198, 128, 56)), (0.7, (212, 146, 72)),
        (1, (236, 200, 130))), thickness=32, profile="cake", ripple=0.01, gloss=0.4),
    "brownie": _piece("布朗尼", "brownies", 20, plain((74, 44, 32)), corner=8, thickness=15, profile="flat",
        gloss=0.2, mottle=0.2, ripple=0.02),
    "tart_shell": _piece("水果塔", "a fruit tart", 62, rings((0, (246, 226, 160)), (0.84, (244, 218, 146)),
        (0.88, (206, 150, 84)), (1, (186, 126, 66))), thickness=9, profile="plate", ripple=0.02),
    "strawberry": _piece("草莓", "strawberries", 12, dotted((210, 38, 40), (240, 190, 110), 4, 0.16), aspect=1.25,
        corner=1.8, thickness=15, gloss=0.7),
    "blueberry": _piece("蓝莓", "blueberries", 7, rings((0, (44, 44, 74)), (0.25, (74, 84, 130)),
        (1, (52, 60, 104))), thickness=11, gloss=0.3),
    "raspberry": _piece("树莓", "raspberries", 9, dotted((196, 40, 70), (236, 100, 120), 3, 0.3), thickness=13,
        gloss=0.4),
    "cherry": _piece("车厘子", "cherries", 11, plain((120, 16, 30)), thickness=17, gloss=1),
    "grape": _piece("葡萄", "grapes", 10, plain((96, 52, 104)), aspect=1.15, thickness=16, gloss=0.6),
    "orange": _piece("橙子", "oranges", 25, plain((238, 138, 34)), thickness=34, gloss=0.4, mottle=0.08),
    "orange_slice": _piece("橙片", "orange slices", 18, segmented((246, 160, 50), (252, 226, 180), (236, 130, 26)),
        profile="flat", thickness=3, gloss=0.6),
    "lemon_slice": _piece("柠檬片", "lemon slices", 16, segmented((246, 224, 100), (252, 246, 210), (240, 206, 50)),
        profile="flat", thickness=3, gloss=0.6),
    "lime_slice": _piece("青柠片", "lime slices", 14, segmented((176, 206, 90), (234, 242, 200), (88, 144, 46)),
        profile="flat", thickness=3, gloss=0.6),
    "lemon": _piece("柠檬", "lemons", 20, plain((244, 212, 56)), aspect=1.3, corner=1.8, thickness=28, gloss=0.5),
    "kiwi_slice": _piece("猕猴桃片", "kiwi slices", 16, rings((0, (232, 238, 190)), (0.22, (214, 226, 150)),
        (0.3, (66, 86, 30)), (0.45, (136, 180, 52)), (0.92, (122, 170, 44)), (1, (110, 84, 54))), profile="flat",
        thickness=3, gloss=0.6),
    "banana": _piece("香蕉", "bananas", 14, along((-1, (110, 90, 50)), (-0.86, (240, 206, 76)),
        (0.86, (244, 212, 84)), (1, (90, 74, 40))), aspect=3.6, bend=0.9, thickness=18, gloss=0.2),
    "banana_slice": _piece("香蕉片", "banana slices", 11, rings((0, (226, 206, 140)), (0.3, (244, 230, 176)),
        (1, (240, 222, 160))), profile="flat", thickness=4),
    "mango_cube": _piece("芒果丁", "mango cubes", 9, plain((248, 182, 50)), corner=5, thickness=9, gloss=0.6),
    "apple": _piece("苹果", "apples", 26, rings((0, (232, 150, 84)), (0.16, (206, 58, 46)), (1, (168, 28, 34))),
        thickness=34, gloss=0.8),
    "green_apple": _piece("青苹果", "green apples", 26, plain((150, 190, 66)), thickness=34, gloss=0.8),
    "peach": _piece("水蜜桃", "peaches", 25, along((-1, (232, 120, 110)), (1, (248, 206, 150))), thickness=34,
        gloss=0.1, mottle=0.1),
    "avocado_half": _piece("半个牛油果", "avocado halves", 22, rings((0, (120, 76, 44)), (0.38, (106, 64, 36)),
        (0.42, (226, 226, 130)), (0.8, (176, 200, 90)), (0.9, (70, 88, 40)), (1, (46, 58, 34))), aspect=1.35,
        thickness=14, gloss=0.5),
    "avocado_slice": _piece("牛油果片", "avocado slices", 7, along((-1, (150, 184, 80)), (0, (222, 224, 130)),
        (1, (140, 176, 74))), aspect=3, bend=0.6, thickness=5),
    "fig_half": _piece("切开的无花果", "halved figs", 17, rings((0, (222, 120, 96)), (0.6, (196, 74, 74)),
        (0.75, (240, 226, 200)), (1, (90, 50, 84))), aspect=1.15, thickness=10, gloss=0.6, mottle=0.2),
    "walnut": _piece("核桃仁", "walnuts", 10, banded((176, 128, 78), (120, 80, 46), 4, 2), ripple=0.16, thickness=9,
        mottle=0.2),
    "almond": _piece("杏仁", "almonds", 6, plain((168, 104, 58)), aspect=1.7, corner=1.7, thickness=5),
    "oat": _piece("燕麦", "oats", 3.4, plain((226, 200, 150)), aspect=1.3, thickness=2),
    "red_bean": _piece("红豆", "red beans", 4, plain((112, 34, 34)), aspect=1.3, thickness=6, gloss=0.5),
    "date": _piece("红枣", "red dates", 9, plain((128, 30, 28)), aspect=1.3, ripple=0.08, thickness=10, gloss=0.7,
        mottle=0.16),
    "goji": _piece("枸杞", "goji berries", 3.4, plain((212, 56, 34)), aspect=1.9, thickness=4, gloss=0.6),
    "tapioca": _piece("珍珠", "tapioca pearls", 6, plain((42, 28, 24)), thickness=9, gloss=1),
    "tangyuan": _piece("汤圆", "glutinous rice balls", 15, plain((246, 240, 230)), thickness=20, gloss=0.6,
        ripple=0.02, mottle=0.02),
    "ice_cube": _piece("冰块", "ice cubes", 12, rings((0, (226, 234, 238)), (1, (196, 210, 218))), corner=6,
        thickness=10, gloss=1),
    "ice_cream": _piece("冰淇淋球", "scoops of ice cream", 25, plain((246, 226, 190)), thickness=30, gloss=0.3,
        ripple=0.05, mottle=0.1),
    "cream_dollop": _piece("奶油", "whipped cream", 14, pleated((250, 246, 238), (222, 212, 198), 6, 0.95),
        thickness=16, ripple=0.08),
    "butter": _piece("黄油", "butter", 12, plain((248, 222, 120)), aspect=1.3, corner=7, thickness=9, gloss=0.4,
        ripple=0.01, mottle=0.02),
    "parmesan": _piece("芝士碎", "grated cheese", 3, plain((248, 230, 170)), aspect=2.4, thickness=2),
    "feta": _piece("羊奶酪", "feta", 8, plain((248, 246, 238)), corner=5, thickness=8, ripple=0.08),
    "olive": _piece("黑橄榄", "black olives", 7, rings((0, (150, 110, 80)), (0.4, (44, 32, 40)), (1, (34, 26, 34))),
        profile="ring", thickness=6, gloss=0.8),
    "rice_cake": _piece("年糕", "rice cakes", 9, plain((222, 120, 78)), aspect=2, corner=3, thickness=7, gloss=0.5),
    "chocolate": _piece("巧克力", "chocolate squares", 11, plain((72, 42, 30)), corner=8, thickness=6,
        profile="flat", gloss=0.5, ripple=0),
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# The table and the camera


@dataclass(frozen=True)
class View:
    """Where the camera stands and how it is set."""

    light: float  # direction that the light comes from, radians
    elevation: float = 0.8  # of the light: low ones throw long shadows
    turn: float = 0  # of the camera, degrees
    zoom: float = 1.15
    tilt: float = 0.1  # 0 looks straight down
    shift: tuple[float, float] = (0, 0)
    warmth: float = 0  # -1 to 1
    exposure: float = 1
    blur: float = 0  # of what is far away or near
    grain: float = 3
    size: tuple[int, int] = (400, 300)


def draw_view(rng: random.Random) -> View:
    """Draw a view as people photograph their food: mostly from above or obliquely, with light from a window."""
    sizes = ((400, 300), (420, 315), (440, 330), (400, 400), (360, 360), (300, 400), (330, 440), (420, 280), (384, 288))
    return View(
        light=rng.uniform(0, 2 * math.pi),
        elevation=rng.uniform(0.5, 1),
        turn=rng.uniform(-14, 14),
        zoom=rng.uniform(1.08, 1.5),
        tilt=rng.choice((0, 0.05, 0.15, 0.25, 0.32)),
        shift=(rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05)),
        warmth=rng.gauss(0.15, 0.4),
        exposure=rng.gauss(1.14, 0.1),
        blur=rng.choice((0, 0, 1.5, 2.5, 4)),
        grain=rng.choice((1, 2, 3, 5)),
        size=rng.choice(sizes),
    )


class Textures:
    """Patterns of noise that all tables share."""

    def __init__(self, seed: int) -> None:
        noise = np.random.default_rng(seed)
        self.fine = [make_smooth_noise(noise, SIDE, SIDE, (40, 40)) for _ in range(NUM_TEXTURES)]
        self.coarse = [make_smooth_noise(noise, SIDE, SIDE, (5, 5)) for _ in range(NUM_TEXTURES)]
        self.grain = [make_smooth_noise(noise, SIDE, SIDE, (3, 70), 0.75) for _ in range(NUM_TEXTURES)]
        self.rows, self.columns = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
        self.film = noise.normal(0, 1, (700, 700, 3)).astype(np.float32)


@dataclass
class Table:
    """Colours, heights and gloss of what lies on a table.

    Args:
        textures: patterns of noise.
        rng: draws the places of patterns and the irregularities of things.
    """

    textures: Textures
    rng: random.Random
    colour: Array = field(init=False)
    height: Array = field(init=False)
    gloss: Array = field(init=False)

    def __post_init__(self) -> None:
        self.colour = np.full((SIDE, SIDE, 3), 200, np.float32)
        self.height = np.zeros((SIDE, SIDE), np.float32)
        self.gloss = np.full((SIDE, SIDE), 0.08, np.float32)
        self.rows, self.columns = self.textures.rows, self.textures.columns
        self.fine, self.coarse, self.grain = (
            self.rng.choice(pool) for pool in (self.textures.fine, self.textures.coarse, self.textures.grain)
        )

    def stamp(
        self,
        piece: Piece,
        x: float,
        y: float,
        scale: float = 1,
        turn: float = 0,
        base: float | None = None,
        shade: float = 1,
    ) -> None:
        """Lay a piece down; where something higher lies already, it is hidden.

        Args:
            base: height of its lower side; None lays it on what is there.
            shade: factor of its colours.
        """
        half = piece.size * scale
        cosine, sine = math.cos(turn), math.sin(turn)
        length, breadth = half * piece.aspect, half * (1 + abs(piece.bend))
        if piece.corner == 2 and not piece.bend:
            reach_x, reach_y = math.hypot(length * cosine, breadth * sine), math.hypot(length * sine, breadth * cosine)
        else:
            reach_x = abs(length * cosine) + abs(breadth * sine)
            reach_y = abs(length * sine) + abs(breadth * cosine)
        growth = 1 + 1.6 * piece.ripple  # both waves of the outline at their highest
        left, right = max(0, int(x - reach_x * growth - 2)), min(SIDE, int(x + reach_x * growth + 3))
        top, bottom = max(0, int(y - reach_y * growth - 2)), min(SIDE, int(y + reach_y * growth + 3))
        if left >= right or top >= bottom:
            return
        window = (slice(top, bottom), slice(left, right))
        dx, dy = self.columns[window] - x, self.rows[window] - y
        u = (dx * cosine + dy * sine) / (half * piece.aspect)
        v = (dy * cosine - dx * sine) / half
        if piece.bend:
            v = v - piece.bend * (u * u - 0.4)
        if piece.corner == 2:
            rho = np.hypot(u, v)
        else:
            rho = (np.abs(u) ** piece.corner + np.abs(v) ** piece.corner) ** (1 / piece.corner)
        if piece.ripple:
            angle = np.arctan2(v, u)
            phases = (self.rng.uniform(0, 6.3), self.rng.uniform(0, 6.3))
            waves = np.sin(angle * self.rng.choice((2, 3)) + phases[0])
            waves += 0.6 * np.sin(angle * self.rng.choice((4, 5, 7)) + phases[1])
            rho = rho / (1 + piece.ripple * waves)

        mask = np.minimum(np.maximum((1 - rho) * (half / 1.5) + 0.5, 0), 1)
        inside = mask > 0.5
        if not inside.any():
            return
        existing = self.height[window]
        if base is None:
            base = float(existing[inside].mean())
        height = base + piece.thickness * scale * PROFILES[piece.profile][np.minimum(rho * 511, 511).astype(np.int32)]
        mask = mask * (height > existing - 1)
        colours = piece.skin(u, v, rho) * (shade * (1 + piece.mottle * self.fine[window]))[..., None]
        self.colour[window] += mask[..., None] * (colours - self.colour[window])
        self.height[window] += mask * (height - existing)
        self.gloss[window] += mask * (piece.gloss - self.gloss[window])

    def draw_strand(self, points: Array, width: int, colour: Colour, gloss: float = 0.5) -> None:
        """Lay a noodle along points (N, 2)."""
        margin = width + 2
        left, top = np.maximum(points.min(axis=0).astype(int) - margin, 0)
        right, bottom = np.minimum(points.max(axis=0).astype(int) + margin, SIDE)
        if left >= right or top >= bottom:
            return
        window = (slice(top, bottom), slice(left, right))
        layer = np.zeros((bottom - top, right - left), np.uint8)
        cv2.polylines(layer, [(points - (left, top)).astype(np.int32)], False, 255, width)
        depth = cv2.distanceTransform(layer, cv2.DIST_L2, 3)
        inside = depth > 0
        base = float(self.height[window][inside].mean()) if inside.any() else 0
        height = base + width * 0.9 * np.sqrt(np.clip(depth / (width / 2 + 0.5), 0, 1))
        visible = inside & (height > self.height[window] - 1)
        self.colour[window][visible] = np.array(colour, np.float32) * self.rng.uniform(0.92, 1.06)
        self.height[window][visible] = height[visible]
        self.gloss[window][visible] = gloss

    def photograph(self, view: View) -> Image.Image:
        """Light the table and look at it."""
        height = cv2.GaussianBlur(self.height, (0, 0), 0.9)
        slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=1 / 8)
        slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=1 / 8)
        length = np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
        to_light = (math.cos(view.light), math.sin(view.light))
        flat = math.cos(view.elevation)
        lit = (math.sin(view.elevation) - flat * (slope_x * to_light[0] + slope_y * to_light[1])) / length

        # A point lies in shadow if a step towards the light something is higher than the ray. Shadows and hollows are
        # soft, so that they are found at half the size in a quarter of the time.
        rise = math.tan(view.elevation)
        small = cv2.resize(height, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)
        blocked = np.zeros_like(small)
        for distance in (3, 6, 10, 15, 22, 32):
            step = distance / 2
            offset = np.float32([[1, 0, -to_light[0] * step], [0, 1, -to_light[1] * step]])
            nearer = cv2.warpAffine(small, offset, small.shape[::-1], flags=cv2.INTER_NEAREST)
            blocked = np.maximum(blocked, nearer - small - rise * distance)
        shadow = cv2.GaussianBlur(np.clip(blocked / 6, 0, 1), (0, 0), 1)
        shadow = cv2.resize(shadow, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        hollow = np.clip(cv2.blur(small, (13, 13)) - small, 0, 14) / 14
        hollow = cv2.resize(hollow, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        shade = (0.42 + 0.72 * np.clip(lit, 0, 1.2) * (1 - 0.75 * shadow)) * (1 - 0.38 * hollow)
        # Glazed things shine where they lean a little towards the light.
        off_x, off_y = slope_x - to_light[0] * 0.4, slope_y - to_light[1] * 0.4
        sharp = np.clip(lit * 1.06 - 0.12 * np.sqrt(off_x * off_x + off_y * off_y), 0, 1)
        for _ in range(4):
            sharp *= sharp  # to the 16th power: the narrow highlights of wet and glazed things
        shine = self.gloss * (1 - shadow) * sharp

        bright = self.colour * shade[..., None] + (shine * 190)[..., None]
        # Warping and blurring bytes is several times as fast; highlights up to 340 are compressed only later.
        pixels = cv2.convertScaleAbs(bright, alpha=BYTE_SCALE)
        if view.tilt:
            # Seen obliquely, what is higher hides what lies behind it.
            angle = math.radians(view.turn)
            rise = height * (view.tilt * 1.5)
            from_x, from_y = self.columns - math.sin(angle) * rise, self.rows + math.cos(angle) * rise
            pixels = cv2.remap(pixels, from_x, from_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        return self._develop(pixels, view)

    def _develop(self, pixels: Array, view: View) -> Image.Image:
        width, height = view.size
        # The far edge of the picture shows more of the table than the near one.
        half = SIDE / 2 / view.zoom / max(1, abs(view.turn) / 60)
        aspect = width / height
        half_x, half_y = half * min(1, aspect), half * min(1, 1 / aspect)
        corners = np.float32(
            [
                [-half_x * (1 + view.tilt), -half_y * (1 + view.tilt)],
                [half_x * (1 + view.tilt), -half_y * (1 + view.tilt)],
                [half_x * (1 - view.tilt * 0.5), half_y],
                [-half_x * (1 - view.tilt * 0.5), half_y],
            ]
        )
        angle = math.radians(view.turn)
        rotation = np.float32([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        center = np.float32([MIDDLE + view.shift[0] * SIDE, MIDDLE + view.shift[1] * SIDE])
        corners = corners @ rotation.T + center
        frame = np.float32([[0, 0], [width, 0], [width, height], [0, height]])
        matrix = cv2.getPerspectiveTransform(np.ascontiguousarray(corners, np.float32), frame)
        warped = cv2.warpPerspective(pixels, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
        picture = warped.astype(np.float32) / BYTE_SCALE

        rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        columns = np.linspace(-1, 1, width, dtype=np.float32)[None]
        if view.blur:
            soft = cv2.GaussianBlur(warped, (0, 0), view.blur).astype(np.float32) / BYTE_SCALE
            share = np.clip(np.abs(rows - 0.15) * 1.6 - 0.55, 0, 1)[..., None]
            picture = picture + (soft - picture) * share
        picture *= (1 - 0.14 * (rows * rows + columns * columns))[..., None] * view.exposure
        picture *= np.float32([1 + 0.09 * view.warmth, 1, 1 - 0.13 * view.warmth])
        # A curve as cameras have: highlights are compressed, shadows deepened.
        picture = 255 * np.clip(picture / 255, 0, 1.25)
        picture = np.where(picture > 205, 205 + (picture - 205) * 0.45, picture)
        top, left = self.rng.randrange(200), self.rng.randrange(200)
        picture += self.textures.film[top : top + height, left : left + width] * view.grain
        return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


# ---------------------------------------------------------------------------------------------------------------------
# What things stand on


def lay_wood(table: Table, colour: Colour, boards: int) -> None:
    pixels = np.array(colour, np.float32) + table.grain[..., None] * 13 + table.coarse[..., None] * 5
    joints = np.linspace(0, SIDE, boards + 1).astype(int)
    for left, right in pairwise(joints.tolist()):
        pixels[:, left:right] *= table.rng.uniform(0.9, 1.08)
        pixels[:, left : left + 2] *= 0.5
    if table.rng.random() < 0.5:
        pixels = pixels.transpose(1, 0, 2)
    table.colour[:] = pixels


def lay_stone(table: Table, colour: Colour, veins: float, contrast: float) -> None:
    pixels = np.array(colour, np.float32) + table.fine[..., None] * contrast
    vein = np.clip(1 - np.abs(table.coarse + 0.2 * table.fine) * 9, 0, 1) * veins
    table.colour[:] = mix(pixels, (120, 120, 124), vein)
    table.gloss[:] = 0.25


def lay_cloth(table: Table, colour: Colour, stripe: Colour, pitch: int, checks: bool) -> None:
    pixels = np.array(colour, np.float32) + table.fine[..., None] * 4
    places = np.arange(SIDE)
    threads = np.float32(7) * ((places[:, None] + places[None]) % 3 == 0)
    across = (places // pitch % 2).astype(np.float32)[None, :, None]
    down = across.transpose(1, 0, 2)
    share = (across + down) / 2 if checks else across * 0.9
    pixels = pixels + (np.array(stripe, np.float32) - pixels) * share * 0.85
    table.colour[:] = pixels - threads[..., None]
    table.height[:] = table.coarse * 0.8


def lay_metal(table: Table) -> None:
    table.colour[:] = np.array(STEEL, np.float32) + table.grain[..., None] * 5
    table.gloss[:] = 0.5


def lay_mat(table: Table) -> None:
    strips = np.abs(np.sin(table.columns[:1] / 4)) * 22
    table.colour[:] = np.array((196, 164, 100), np.float32) + (strips + table.grain * 6)[..., None]
    table.colour[np.arange(SIDE) % 52 < 3] *= 0.6


def lay_tiles(table: Table, colour: Colour, pitch: int) -> None:
    table.colour[:] = np.array(colour, np.float32) + table.fine[..., None] * 3
    joints = np.arange(SIDE) % pitch < 3
    table.colour[joints] = (170, 168, 162)
    table.colour[:, joints] = (170, 168, 162)
    table.gloss[:] = 0.4


Surface = tuple[str, str, Callable[[Table], None]]
SURFACES: dict[str, Surface] = {
    "wood": ("木桌", "a wooden table", lambda table: lay_wood(table, WOOD, 4)),
    "pale_wood": ("原木色餐桌", "a pale wooden table", lambda table: lay_wood(table, PALE_WOOD, 3)),
    "dark_wood": ("深色木桌", "a dark wooden table", lambda table: lay_wood(table, (82, 56, 40), 5)),
    "white_wood": ("白色木板", "white boards", lambda table: lay_wood(table, (218, 212, 202), 5)),
    "marble": ("大理石台面", "a marble worktop", lambda table: lay_stone(table, (228, 227, 224), 0.7, 3)),
    "slate": ("黑色石板", "a black slate", lambda table: lay_stone(table, (54, 55, 58), 0.15, 6)),
    "concrete": ("水泥灰台面", "a grey concrete worktop", lambda table: lay_stone(table, (158, 156, 152), 0, 5)),
    "blue_check": ("蓝格子桌布", "a blue checked tablecloth", lambda table: lay_cloth(table, (232, 232, 228),
        (70, 100, 160), 26, True)),
    "red_check": ("红格子桌布", "a red checked tablecloth", lambda table: lay_cloth(table, (236, 230, 224),
        (176, 48, 46), 24, True)),
    "green_stripe": ("绿条纹餐布", "a green striped cloth", lambda table: lay_cloth(table, (232, 228, 214),
        (104, 140, 96), 18, False)),
    "linen": ("亚麻桌布", "a linen tablecloth", lambda table: lay_cloth(table, (206, 194, 172), (198, 186, 164), 40,
        False)),
    "pink": ("粉色桌布", "a pink tablecloth", lambda table: lay_cloth(table, (232, 190, 190), (236, 200, 198), 60,
        False)),
    "steel": ("不锈钢台面", "a steel worktop", lay_metal),
    "mat": ("竹垫", "a bamboo mat", lay_mat),
    "tiles": ("白瓷砖台面", "a white tiled worktop", lambda table: lay_tiles(table, (232, 232, 228), 84)),
    "green_tiles": ("绿瓷砖台面", "a green tiled worktop", lambda table: lay_tiles(table, (112, 150, 132), 70)),
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# Vessels


@dataclass(frozen=True)
class Vessel:
    """What a dish is served or cooked in: names, colours and the share of its radius that food may take."""

    zh: str
    en: str
    measure: str  # of a dish in it: 一盘, 一碗
    profile: str
    thickness: float
    room: float
    colours: tuple[str, ...]
    corner: float = 2
    aspect: float = 1


VESSEL_COLOURS: dict[str, tuple[str, str, Colour, Colour]] = {
    "white": ("白", "white", PORCELAIN, (226, 226, 222)),
    "blue_white": ("青花", "blue-and-white", PORCELAIN, (52, 78, 150)),
    "black": ("黑", "black", (48, 47, 48), (34, 34, 36)),
    "celadon": ("青瓷", "celadon", (168, 194, 176), (140, 170, 152)),
    "brown": ("棕色陶", "brown stoneware", (132, 94, 64), (96, 66, 44)),
    "pink": ("粉色", "pink", (236, 190, 194), (220, 160, 168)),
    "yellow": ("黄色", "yellow", (240, 204, 104), (222, 178, 70)),
    "blue": ("蓝色", "blue", (88, 124, 168), (64, 96, 140)),
    "red": ("红色", "red", (176, 48, 42), (140, 34, 32)),
    "iron": ("铁", "cast-iron", (52, 50, 50), (40, 39, 40)),
    "metal": ("不锈钢", "steel", (176, 178, 180), (150, 152, 156)),
    "bamboo": ("竹", "bamboo", (204, 166, 104), (176, 134, 78)),
    "wood": ("木", "wooden", (178, 128, 78), (140, 98, 58)),
}  # fmt: skip

VESSELS: dict[str, Vessel] = {
    "plate": Vessel("盘子", "plate", "盘", "plate", 11, 0.8, ("white", "blue_white", "black", "celadon", "pink",
        "yellow", "blue")),
    "oval_plate": Vessel("长盘", "oval plate", "盘", "plate", 11, 0.8, ("white", "blue_white", "celadon", "black"),
        aspect=1.35),
    "square_plate": Vessel("方盘", "square plate", "盘", "plate", 10, 0.8, ("white", "black", "blue"), corner=7),
    "bowl": Vessel("碗", "bowl", "碗", "bowl", 34, 0.82, ("white", "blue_white", "black", "celadon", "brown",
        "yellow", "blue", "red")),
    "wok": Vessel("锅", "wok", "锅", "pan", 26, 0.86, ("iron", "metal")),
    "pan": Vessel("平底锅", "frying pan", "锅", "pan", 16, 0.84, ("iron", "metal", "red", "blue")),
    "pot": Vessel("汤锅", "pot", "锅", "bowl", 46, 0.84, ("red", "blue", "metal", "yellow", "iron")),
    "clay_pot": Vessel("砂锅", "clay pot", "砂锅", "bowl", 40, 0.82, ("brown", "black")),
    "steamer": Vessel("蒸笼", "steamer", "笼", "pan", 24, 0.86, ("bamboo",)),
    "board": Vessel("砧板", "board", "板", "flat", 9, 0.86, ("wood", "bamboo", "white"), corner=9, aspect=1.3),
    "tray": Vessel("烤盘", "baking tray", "盘", "pan", 12, 0.84, ("metal", "iron"), corner=9, aspect=1.25),
    "cup": Vessel("杯子", "cup", "杯", "bowl", 44, 0.84, ("white", "blue", "pink", "celadon", "yellow", "brown")),
}  # fmt: skip


def place_vessel(
    table: Table, name: str, colour_name: str, x: float, y: float, radius: float, turn: float = 0
) -> float:
    """Stand a vessel on the table and return the radius of the room in it."""
    vessel = VESSELS[name]
    _, _, body, rim = VESSEL_COLOURS[colour_name]
    stops = [(0.0, body), (0.88, body), (0.9, rim), (0.94, rim), (0.96, body), (1.0, body)]
    if name in ("wok", "pan", "pot", "tray", "steamer"):
        stops = [(0.0, rim), (0.85, body), (1.0, body)]
    skin: Skin = rings(*stops)
    if name == "steamer":
        skin = banded((214, 180, 120), (170, 128, 74), 9, 4)
    elif name == "board":
        skin = banded(body, rim, 11, 0.6, across=True)
    elif colour_name == "blue_white":
        skin = flowered(body, rim)

    handles: list[tuple[float, float]] = []
    if name == "pan":
        handles = [(turn + 0.6, 1.0)]
    elif name in ("wok", "pot", "clay_pot"):
        handles = [(turn + 0.3, 0.3), (turn + 0.3 + math.pi, 0.3)]
    elif name == "cup":
        handles = [(turn + 0.5, 0.36)]
    for angle, length in handles:
        grip = Piece("", "", radius * 0.1, plain(rim), max(1, length * 5), 10, corner=4, ripple=0, gloss=0.3)
        distance = radius * (0.95 + length / 2)
        table.stamp(grip, x + math.cos(angle) * distance, y + math.sin(angle) * distance, 1, angle, 8)

    gloss = {"board": 0.05, "steamer": 0.05, "wok": 0.3}.get(name, 0.6)
    mottle = 0.05 if name in ("wok", "pan", "board", "steamer", "clay_pot") else 0.012
    body_piece = Piece(
        "",
        "",
        radius,
        skin,
        vessel.aspect,
        vessel.thickness * radius / 100,
        vessel.corner,
        0,
        vessel.profile,
        gloss,
        0,
        mottle,
    )
    table.stamp(body_piece, x, y, 1, turn if vessel.aspect != 1 or vessel.corner != 2 else 0, 1)
    return radius * vessel.room


def flowered(body: Colour, line: Colour) -> Skin:
    """The rim of blue-and-white porcelain."""

    def paint(u: Array, v: Array, rho: Array) -> Array:
        angle = np.arctan2(v, u)
        petals = (np.abs(rho - 0.85 - 0.05 * np.sin(angle * 18)) < 0.022) | (np.abs(rho - 0.95) < 0.012)
        return mix(fill(body, u.shape), line, petals | (np.abs(rho - 0.72) < 0.01))

    return paint


def pour(table: Table, x: float, y: float, radius: float, colour: Colour, level: float, oil: int = 0) -> None:
    """Fill a vessel with a soup, sauce or drink up to this height."""
    inner = mix(np.array([[colour]], np.float32), (255, 240, 210), np.array([[0.12]]))[0, 0]
    tones = tuple(int(value) for value in inner)
    skin = rings((0, tones), (0.8, colour), (1, colour))  # type: ignore[arg-type]
    surface = Piece("", "", radius, skin, 1, 0.6, 2, 0, "flat", 0.8, 0, 0.05)
    table.stamp(surface, x, y, 1, 0, level)
    for _ in range(oil):
        distance, angle = radius * math.sqrt(table.rng.random()) * 0.9, table.rng.uniform(0, 6.3)
        tone = tuple(min(255, int(value * 1.25) + 18) for value in colour)
        drop = Piece("", "", table.rng.uniform(1.5, 5), plain(tone), 1, 0.8, 2, 0, "dome", 1)  # type: ignore[arg-type]
        table.stamp(drop, x + math.cos(angle) * distance, y + math.sin(angle) * distance, 1, 0, level)


# ---------------------------------------------------------------------------------------------------------------------
# How food is put into a vessel


@dataclass(frozen=True)
class Spot:
    """A place for food: middle, radius of the room and height of its floor."""

    x: float
    y: float
    radius: float
    floor: float

    @property
    def scale(self) -> float:
        return self.radius / 70


def heap(table: Table, spot: Spot, names: Sequence[str], count: int, shade: float = 1, spread: float = 0.92) -> None:
    """Throw pieces onto a heap."""
    rng = table.rng
    for index in range(count):
        piece = PIECES[names[index % len(names)]]
        distance = spot.radius * math.sqrt(rng.random()) * spread * (1 - 0.35 * index / count)
        distance = max(0, min(distance, spot.radius - piece.size * spot.scale * 0.6))
        angle = rng.uniform(0, 6.3)
        at = (spot.x + math.cos(angle) * distance, spot.y + math.sin(angle) * distance)
        table.stamp(
            piece, *at, spot.scale * rng.uniform(0.85, 1.15), rng.uniform(0, 6.3), None, shade * rng.uniform(0.9, 1.08)
        )


def arrange(
    table: Table, spot: Spot, name: str, count: int, shade: float = 1, skip: int = -1, scale: float = 1
) -> None:
    """Lay pieces in a ring around one or more in the middle, leaving out one of them if told."""
    piece = PIECES[name]
    inner = 1 if count > 5 else 0
    for index in range(count):
        if index < inner:
            x, y, turn = spot.x, spot.y, table.rng.uniform(0, 6.3)
        else:
            angle = (index - inner) * 2 * math.pi / max(1, count - inner) + table.rng.uniform(-0.08, 0.08)
            distance = spot.radius * (0.62 if count > 2 else 0.4) * (count > 1)
            x, y = spot.x + math.cos(angle) * distance, spot.y + math.sin(angle) * distance
            turn = angle + math.pi / 2
        size, tone = spot.scale * scale * table.rng.uniform(0.94, 1.06), shade * table.rng.uniform(0.94, 1.04)
        if index != skip:
            table.stamp(piece, x, y, size, turn, None, tone)


def tangle(table: Table, spot: Spot, colour: Colour, count: int, width: int = 4) -> None:
    """Lay noodles as loops."""
    steps = np.linspace(0, 1, 14)
    for _ in range(count):
        rng = table.rng
        angle, sweep = rng.uniform(0, 6.3), rng.uniform(1.4, 3.4) * rng.choice((-1, 1))
        loop = spot.radius * rng.uniform(0.25, 0.6)
        middle_angle, away = rng.uniform(0, 6.3), spot.radius * rng.uniform(0, 0.38)
        angles = angle + steps * sweep
        x = spot.x + math.cos(middle_angle) * away + np.cos(angles) * loop
        y = spot.y + math.sin(middle_angle) * away + np.sin(angles) * loop * rng.uniform(0.6, 1)
        thickness = max(2, round(width * spot.scale))
        table.draw_strand(np.stack([x, y], axis=1), thickness, colour)


def spread_grains(table: Table, spot: Spot, colour: Colour, count: int = 1) -> None:
    """Spread rice or crumbs: bumps of noise on a low mound."""
    mound = Piece("", "", spot.radius, plain(colour), 1, 16 * spot.scale, 2, 0.05, "dome", 0.3, 0, 0.05)
    before = table.height.copy()
    table.stamp(mound, spot.x, spot.y, 1, 0, spot.floor)
    raised = table.height > before
    table.height[raised] += table.fine[raised] * 1.4
    table.colour[raised] += table.fine[raised][:, None] * 7


def sprinkle(table: Table, spot: Spot, name: str, count: int, spread: float = 0.8) -> None:
    """Scatter small pieces over what is there."""
    rng = table.rng
    for _ in range(count):
        distance, angle = spot.radius * spread * math.sqrt(rng.random()), rng.uniform(0, 6.3)
        at = (spot.x + math.cos(angle) * distance, spot.y + math.sin(angle) * distance)
        table.stamp(PIECES[name], *at, spot.scale * rng.uniform(0.8, 1.2), rng.uniform(0, 6.3))
