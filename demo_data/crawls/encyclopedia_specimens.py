"""What an encyclopedia photographs: specimens, minerals, vessels, coins, leaves, planets, galaxies and slides of cells.

They are rendered with light, shadow, grain and a soft lens, so that they pass for photographs; crops of photographs are
described here too.
"""

import math
import random
from typing import Any

import cv2
import encyclopedia_texts as texts
import numpy as np
from encyclopedia_drawings import Cabinet, Picture, add_article, make_facts, make_polygon, make_rotation, make_solid
from making import Photo, PhotoSource, Signs, make_photograph, make_smooth_noise
from PIL import Image, ImageDraw, ImageFilter

GROUNDS = ((24, 24, 28), (60, 64, 70), (132, 132, 130), (205, 203, 198), (238, 236, 230), (40, 52, 74))
CENTURIES = (
    ("公元前5世纪", "5th century BC"),
    ("2世纪", "2nd century"),
    ("12世纪", "12th century"),
    ("15世纪", "15th century"),
    ("18世纪", "18th century"),
    ("19世纪", "19th century"),
)
MINERALS = {
    "quartz": ("水晶", (206, 212, 220), "prism"),
    "amethyst": ("紫水晶", (134, 82, 172), "prism"),
    "smoky quartz": ("烟晶", (96, 76, 64), "prism"),
    "beryl": ("绿柱石", (90, 178, 140), "prism"),
    "tourmaline": ("电气石", (190, 70, 120), "prism"),
    "pyrite": ("黄铁矿", (196, 168, 92), "cube"),
    "fluorite": ("萤石", (108, 140, 200), "octahedron"),
    "galena": ("方铅矿", (120, 124, 132), "cube"),
    "halite": ("石盐", (222, 206, 204), "cube"),
    "magnetite": ("磁铁矿", (58, 58, 64), "octahedron"),
    "sulphur": ("自然硫", (226, 204, 60), "octahedron"),
    "garnet": ("石榴石", (142, 30, 40), "octahedron"),
}
BUTTERFLIES = (
    ("凤蝶", "swallowtail", "Papilio"),
    ("蛱蝶", "brush-footed butterfly", "Nymphalis"),
    ("粉蝶", "pierid butterfly", "Pieris"),
    ("灰蝶", "lycaenid butterfly", "Lycaena"),
    ("眼蝶", "satyrine butterfly", "Erebia"),
    ("斑蝶", "milkweed butterfly", "Danaus"),
)
WING_COLOURS = {
    "orange": ("橙色", (226, 120, 30)),
    "yellow": ("黄色", (240, 206, 70)),
    "blue": ("蓝色", (56, 104, 190)),
    "brown": ("褐色", (112, 72, 44)),
    "white": ("白色", (238, 234, 220)),
    "green": ("绿色", (70, 140, 90)),
    "red": ("红色", (190, 44, 36)),
    "violet": ("紫色", (110, 74, 150)),
}
GLAZES = {
    "blue-and-white": ("青花", (236, 238, 240), (36, 66, 150)),
    "celadon": ("青瓷", (150, 178, 150), (112, 146, 120)),
    "black-figure": ("黑绘", (196, 104, 52), (30, 24, 22)),
    "brown-glazed": ("褐釉", (110, 68, 40), (70, 42, 26)),
    "yellow-glazed": ("黄釉", (220, 180, 70), (160, 110, 40)),
    "red-figure": ("红绘", (34, 28, 26), (204, 108, 58)),
    "oxblood": ("郎窑红", (140, 30, 34), (100, 18, 24)),
    "turquoise": ("孔雀蓝釉", (60, 150, 160), (36, 104, 120)),
}
METALS = {
    "silver": ("银币", (186, 188, 190)),
    "gold": ("金币", (214, 172, 74)),
    "copper": ("铜币", (176, 104, 66)),
    "bronze": ("青铜币", (120, 124, 88)),
}
LEAVES = (
    ("卵形叶", "an ovate leaf"),
    ("披针形叶", "a lanceolate leaf"),
    ("掌状裂叶", "a palmately lobed leaf"),
    ("羽状裂叶", "a pinnately lobed leaf"),
    ("锯齿缘叶", "a serrate leaf"),
    ("心形叶", "a cordate leaf"),
)
LEAF_COLOURS = {
    "green": ("绿色", (74, 124, 48)),
    "yellow autumn": ("秋季黄色", (210, 166, 44)),
    "red autumn": ("秋季红色", (176, 52, 36)),
    "dried brown": ("干枯褐色", (128, 90, 56)),
}
STAINS = (
    ("HE染色", "haematoxylin and eosin", (238, 190, 214), (106, 62, 142)),
    ("亚甲蓝染色", "methylene blue", (214, 228, 240), (40, 70, 150)),
    ("番红染色", "safranin", (246, 226, 222), (190, 50, 60)),
    ("碘液染色", "iodine", (240, 224, 180), (120, 70, 30)),
)
TISSUES = (
    ("洋葱表皮细胞", "onion epidermis"),
    ("肝组织", "liver tissue"),
    ("叶表皮", "leaf epidermis"),
    ("血细胞", "blood cells"),
    ("藻类细胞", "algal cells"),
    ("根尖切片", "a section of a root tip"),
)
PLANETS = ("gas giant", "rocky planet", "ice giant", "moon")
MOON_PHASES = (
    (0.24, "蛾眉月", "waxing crescent"),
    (0.5, "上弦月", "first quarter"),
    (0.75, "盈凸月", "waxing gibbous"),
    (1.0, "满月", "full moon"),
)


class Collection:
    """Makes rendered photographs and gives crops of real ones.

    Args:
        photos: crops of photographs, each given once.
        cabinet: gives the reliefs of coins.
        signs: writes scale bars and labels.
        rng: draws everything random.
    """

    def __init__(self, photos: PhotoSource, cabinet: Cabinet, signs: Signs, rng: random.Random) -> None:
        self.photos, self.cabinet, self.signs, self.rng = photos, cabinet, signs, rng
        # Rendered specimens stand in for missing crops here, not the made landscapes of the source.
        # Both are mixed even where there are crops enough.
        self.share_of_crops = min(0.65, photos.share_of_crops) if photos.paths else 0
        photos.share_of_crops = 1
        self.num_rendered = 0

    def take_photo(self) -> Picture:
        """Return a crop of a photograph, or if there are not enough, a landscape or specimen."""
        has_crops = self.photos.paths or self.photos.open_photos
        if has_crops and self.rng.random() < self.share_of_crops:
            return describe_photo(self.photos.take())
        if self.rng.random() < 0.14:
            return describe_photo(make_photograph(self.rng))
        return self.make_specimen()

    def make_specimen(self) -> Picture:
        makers = {
            self.pin_butterfly: 4,
            self.grow_mineral: 4,
            self.turn_vase: 4,
            self.strike_coin: 3,
            self.press_leaf: 3,
            self.render_planet: 3,
            self.render_galaxy: 2,
            self.stain_cells: 3,
            self.show_ammonite: 2,
            self.show_snowflake: 2,
        }
        self.num_rendered += 1
        return self.rng.choices(list(makers), list(makers.values()))[0]()

    def _noise(self, local: random.Random) -> np.random.Generator:
        return np.random.default_rng(local.getrandbits(32))

    def _start(self, seed: int | None) -> tuple[random.Random, int, int]:
        local = random.Random(self.rng.getrandbits(31) if seed is None else seed)  # noqa: S311
        return local, local.randint(310, 430), local.randint(300, 390)

    def _lay_on(self, ground: np.ndarray, colour: np.ndarray, mask: np.ndarray, shadow: float = 0.45) -> np.ndarray:
        """Lay a thing on a ground, with its soft shadow to the lower right."""
        soft = cv2.GaussianBlur(np.roll(mask, (9, 7), (0, 1)), (0, 0), 7)[..., None]
        edge = cv2.GaussianBlur(mask, (3, 3), 0)[..., None]
        return ground * (1 - shadow * soft) * (1 - edge) + colour * edge

    def _make_ground(self, local: random.Random, width: int, height: int, grain: float = 2.5) -> np.ndarray:
        noise = self._noise(local)
        light = np.linspace(local.uniform(0.85, 1.1), local.uniform(0.85, 1.1), width, dtype=np.float32)[None, :, None]
        fall = np.linspace(local.uniform(0.95, 1.15), local.uniform(0.75, 1), height, dtype=np.float32)[:, None, None]
        texture = make_smooth_noise(noise, height, width, (6, 6), 0.7)[..., None] * grain
        return np.array(local.choice(GROUNDS), np.float32) * light * fall + texture

    def _finish(self, pixels: np.ndarray, grain: float = 3.0) -> Image.Image:
        noise = np.random.default_rng(self.rng.getrandbits(32)).normal(0, grain, (*pixels.shape[:2], 1))
        return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))

    def _draw_mask(self, width: int, height: int, outlines: list[Any]) -> np.ndarray:
        mask = Image.new("L", (width * 2, height * 2))
        for outline in outlines:
            ImageDraw.Draw(mask).polygon([(x * 2, y * 2) for x, y in outline], fill=255)
        return np.asarray(mask.reduce(2), np.float32) / 255

    # -----------------------------------------------------------------------------------------------------------------

    def pin_butterfly(self, seed: int | None = None, colour: str = "", family: int | None = None) -> Picture:
        """Pin a butterfly; the seed gives the specimen and its ground, colour and family what kind it is."""
        local, width, height = self._start(seed)
        drawn_colour, drawn_family = local.choice(list(WING_COLOURS)), local.randrange(len(BUTTERFLIES))
        colour, family = colour or drawn_colour, drawn_family if family is None else family
        ground = self._make_ground(local, width, height, 1.5)
        if local.random() < 0.7:
            ground = ground * 0.12 + np.array((206, 202, 192), np.float32)
        middle, center = width / 2, height / 2
        span, tall = width * local.uniform(0.4, 0.46), height * local.uniform(0.3, 0.38)
        tips = [
            (0.04, -0.1),
            (0.3, -0.7),
            (0.75, -1.05),
            (1.0, -0.95),
            (0.92, -0.45),
            (0.62, 0.0),
            (0.8, 0.25),
            (0.74, 0.75),
            (0.45, local.uniform(0.8, 1.1)),
            (0.16, 0.6),
            (0.04, 0.2),
        ]
        tips = [(x + local.uniform(-0.04, 0.04), y + local.uniform(-0.05, 0.05)) for x, y in tips]
        curve = smooth_outline([(max(0.01, x) * span, y * tall) for x, y in tips])
        outlines = [[(middle + side * x, center + y) for x, y in curve] for side in (-1, 1)]
        mask = self._draw_mask(width, height, outlines)
        rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
        across, down = np.abs(columns - middle) / span, (rows - center) / tall
        radius, turn = np.hypot(across, down), np.arctan2(down, across)
        base = np.array(WING_COLOURS[colour][1], np.float32)
        second = np.array(WING_COLOURS[local.choice([name for name in WING_COLOURS if name != colour])][1], np.float32)
        wing = np.repeat(base[None, None] * (0.75 + 0.35 * radius[..., None]), 1, 0)
        bands, phase = local.uniform(4, 10), local.uniform(0, 6)
        is_band = np.sin(radius * bands + np.cos(turn * local.randint(1, 4)) * 1.2 + phase) > local.uniform(0.4, 0.8)
        wing[is_band] = second * 0.9
        depth = cv2.distanceTransform((mask > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
        wing[depth < span * local.uniform(0.05, 0.14)] = np.array((36, 26, 22)) + 30 * local.random()
        veins = np.abs(np.sin(turn * local.randint(7, 11))) < 0.1
        wing[veins] *= 0.6
        for _ in range(local.randint(0, 4)):
            x, y, size = local.uniform(0.35, 0.8), local.uniform(-0.75, 0.6), local.uniform(0.05, 0.11)
            distance = np.hypot(across - x, down - y)
            wing[distance < size] = (30, 24, 24)
            wing[distance < size * 0.55] = local.choice(((245, 235, 210), (90, 130, 210), (230, 120, 40)))
        pixels = self._lay_on(ground, wing, mask)
        body = self._draw_mask(
            width,
            height,
            [[(middle + math.cos(t) * 6, center + math.sin(t) * tall * 0.55) for t in np.linspace(0, 6.28, 30)]],
        )
        pixels = self._lay_on(pixels, np.full_like(pixels, (58, 42, 34)), body, 0)
        name_zh, name_en, genus = BUTTERFLIES[family]
        species = local.choice(
            ("rubra", "montana", "alpina", "maculata", "orientalis", "fasciata", "lunata", "borealis", "pallida")
        )
        facts = make_facts(
            {"name": f"{WING_COLOURS[colour][0]}{name_zh}（{genus} {species}）"},
            {"name": f"{add_article(colour)} {name_en} ({genus} {species})"},
        )
        return Picture(self._finish(pixels), "specimen", facts)

    def grow_mineral(self, seed: int | None = None, yaw: float = 0) -> Picture:
        """Grow a cluster of crystals; the seed makes it, yaw is the side it is seen from."""
        local, width, height = self._start(seed)
        name = local.choice(list(MINERALS))
        name_zh, tone, habit = MINERALS[name]
        ground = self._make_ground(local, width, height)
        canvas = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8)).resize((width * 2, height * 2))
        draw = ImageDraw.Draw(canvas)
        faces: list[tuple[float, list[Any], float]] = []
        for _ in range(local.randint(5, 11)):
            size = local.uniform(0.14, 0.34)
            kind, sides = ("bipyramid", 4) if habit == "octahedron" else ("prism", 4 if habit == "cube" else 6)
            vertices, sheets = make_solid(
                kind, sides, 1.42 if habit == "cube" else local.uniform(3, 5) if kind == "prism" else 1.6
            )
            vertices = vertices * (size if habit != "prism" else size * 0.55)
            tilt = make_rotation(local.uniform(-0.7, 0.7), local.uniform(0, 6.28), local.uniform(-0.8, 0.8))
            offset = np.array((local.uniform(-0.5, 0.5), local.uniform(-0.3, 0.2), local.uniform(-0.4, 0.4)))
            turned = (vertices @ tilt.T + offset) @ make_rotation(0.45, yaw, 0).T
            for sheet in sheets:
                normal = np.cross(turned[sheet[1]] - turned[sheet[0]], turned[sheet[2]] - turned[sheet[1]])
                normal = normal / (np.linalg.norm(normal) + 1e-6)
                faces.append(
                    (float(turned[sheet, 2].mean()), turned[sheet].tolist(), abs(float(normal @ (0.45, 0.75, 0.48))))
                )
        scale = min(width, height) * 2 * 0.46
        for _, corners, light in sorted(faces, key=lambda face: face[0]):
            shade = tuple(int(min(255, level * (0.35 + 0.75 * light) + 34 * light**6)) for level in tone)
            draw.polygon(
                [(width + x * scale, height - y * scale) for x, y, _ in corners],
                fill=shade,
                outline=tuple(min(255, level + 18) for level in shade),
            )
        pixels = np.asarray(canvas.reduce(2).filter(ImageFilter.GaussianBlur(0.6)), np.float32)
        pixels += make_smooth_noise(self._noise(local), height, width, (12, 12), 0.75)[..., None] * 5
        facts = make_facts({"name": f"{name_zh}晶簇"}, {"name": f"a cluster of {name} crystals"})
        return Picture(self._finish(pixels), "specimen", facts)

    def turn_vase(self, seed: int | None = None, glaze: str = "") -> Picture:
        """Turn a vessel on a wheel; the seed gives shape and pattern, the glaze its colours."""
        local, width, height = self._start(seed)
        drawn = local.choice(list(GLAZES))
        glaze = glaze or drawn
        name_zh, base, paint = GLAZES[glaze]
        ground = self._make_ground(local, width, height)
        top, bottom = height * 0.1, height * 0.9
        marks = [
            local.uniform(0.3, 0.6),
            local.uniform(0.2, 0.5),
            local.uniform(0.7, 1.0),
            local.uniform(0.8, 1.0),
            local.uniform(0.4, 0.9),
            local.uniform(0.3, 0.5),
        ]
        rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
        share = np.clip((rows - top) / (bottom - top), 0, 1)
        profile = smooth_profile(marks, height, top, bottom) * min(width * 0.34, height * 0.36)
        across = (columns - width / 2) / np.maximum(profile, 1)
        is_inside = (np.abs(across) < 1) & (rows > top) & (rows < bottom)
        turn = np.arcsin(np.clip(across, -1, 1))
        colour = np.full((height, width, 3), base, np.float32)
        num_bands = local.randint(2, 5)
        for _ in range(num_bands):
            at, half, count, kind = (
                local.uniform(0.1, 0.9),
                local.uniform(0.02, 0.08),
                local.randint(6, 22),
                local.randrange(4),
            )
            wave = np.sin(turn * count)
            is_row = np.abs(share - at) < half
            is_paint = {
                0: is_row,
                1: is_row & (wave > 0),
                2: np.abs(share - at - wave * half) < half * 0.35,
                3: (share - at) ** 2 + (wave * half) ** 2 < half**2 * 0.5,
            }[kind]
            colour[is_paint] = paint
        light = 0.42 + 0.62 * np.clip(np.cos(turn + 0.55), 0, 1)
        shine = np.exp(-((turn + 0.6) ** 2) / 0.02) * 70 * np.exp(-((share - 0.4) ** 2) / 0.06)
        colour = colour * light[..., None] + shine[..., None]
        pixels = self._lay_on(ground, colour, is_inside.astype(np.float32))
        form_zh, form_en = (("罐", "jar"), ("瓶", "vase"), ("壶", "flask"))[int(marks[0] * 10) % 3]
        century_zh, century_en = local.choice(CENTURIES)
        facts = make_facts(
            {"name": name_zh + form_zh, "century": century_zh},
            {"name": f"{add_article(glaze)} {form_en}", "century": century_en},
        )
        return Picture(self._finish(pixels), "artefact", facts)

    def strike_coin(self, seed: int | None = None, year: int | None = None) -> Picture:
        """Strike a coin with a figure in relief and a year."""
        local, width, height = self._start(seed)
        drawn = local.randrange(1840, 1990)
        year = year or drawn
        metal = local.choice(list(METALS))
        name_zh, tone = METALS[metal]
        names = sorted(name for name in self.cabinet.silhouettes if name in texts.CHARGES)
        figure = self.cabinet.silhouettes[local.choice(names)]
        ground = self._make_ground(local, width, height)
        radius = min(width, height) * local.uniform(0.38, 0.44)
        relief = Image.new("L", (width, height), 60)
        draw = ImageDraw.Draw(relief)
        x, y = width // 2, height // 2
        draw.ellipse((x - radius * 0.93, y - radius * 0.93, x + radius * 0.93, y + radius * 0.93), fill=20)
        side = int(radius * 1.15)
        enlarged = figure.image.resize((side, side), Image.Resampling.LANCZOS)
        grey = np.asarray(enlarged.convert("L"), np.float32) * 0.35 + 60
        relief.paste(
            Image.fromarray(grey.astype(np.uint8)), (x - side // 2, y - side // 2 - 8), enlarged.getchannel("A")
        )
        for bead in make_polygon(x, y, radius * 0.86, 60, 0):
            draw.ellipse((bead[0] - 2, bead[1] - 2, bead[0] + 2, bead[1] + 2), fill=70)
        draw.text(
            (x, y + radius * 0.68), str(year), font=self.signs.font(max(16, int(radius * 0.2))), fill=110, anchor="mm"
        )
        depth = cv2.GaussianBlur(np.asarray(relief, np.float32), (0, 0), 1.1)
        slope = cv2.Sobel(depth, cv2.CV_32F, 1, 0) + cv2.Sobel(depth, cv2.CV_32F, 0, 1)
        wear = make_smooth_noise(self._noise(local), height, width, (5, 5), 0.75) * local.uniform(4, 11)
        light = np.clip(150 + slope * 0.75 + wear, 25, 250)[..., None] / 170
        mask = self._draw_mask(width, height, [make_polygon(x, y, radius, 90, 0)])
        pixels = self._lay_on(ground, np.array(tone, np.float32) * light, mask)
        facts = make_facts(
            {"name": f"{year}年的{name_zh}，正面为{figure.name_zh}", "year": str(year)},
            {
                "name": f"{add_article(metal)} coin of {year} with {add_article(figure.name_en)}",
                "year": str(year),
            },
        )
        return Picture(self._finish(pixels), "coin", facts)

    def press_leaf(self, seed: int | None = None, colour: str = "") -> Picture:
        """Lay a leaf on a sheet; the seed gives its form."""
        local, width, height = self._start(seed)
        drawn, kind = local.choice(list(LEAF_COLOURS)), local.randrange(len(LEAVES))
        colour = colour or drawn
        tone = np.array(LEAF_COLOURS[colour][1], np.float32)
        ground = self._make_ground(local, width, height, 1.2) * 0.1 + np.array((222, 218, 208), np.float32)
        length, half = (
            height * local.uniform(0.36, 0.42),
            local.uniform(0.45, 0.7) if kind != 1 else local.uniform(0.18, 0.28),
        )
        lobes, depth, lean = local.randint(5, 9), local.uniform(0.2, 0.4), local.uniform(-0.35, 0.35)
        outline = []
        for t in np.linspace(0, 2 * math.pi, 240):
            radius = 1.0
            if kind == 2:
                radius = 1 - depth * (0.5 + 0.5 * math.cos(t * lobes))
            elif kind == 3:
                radius = 1 - depth * 0.7 * (0.5 + 0.5 * math.cos(t * lobes * 2))
            elif kind == 4:
                radius = 1 - 0.09 * ((t * lobes * 3 / math.pi) % 1)
            elif kind == 5:
                radius = 1 - 0.5 * math.exp(-((t - math.pi / 2) ** 2) / 0.08)
            x, y = math.cos(t) * half * radius * (1 + 0.3 * math.sin(t)), math.sin(t) * radius
            outline.append(
                (
                    width / 2 + length * (x * math.cos(lean) - y * math.sin(lean)),
                    height / 2 + length * (x * math.sin(lean) + y * math.cos(lean)),
                )
            )
        mask = self._draw_mask(width, height, [outline])
        rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
        dx, dy = (columns - width / 2) / length, (rows - height / 2) / length
        u, v = dx * math.cos(lean) + dy * math.sin(lean), -dx * math.sin(lean) + dy * math.cos(lean)
        texture = make_smooth_noise(self._noise(local), height, width, (6, 6), 0.75)[..., None]
        blade = tone * (1 + texture * 0.07) + texture * 4
        is_vein = (np.abs(u) < 0.012) | (
            (np.abs(np.sin((v + np.abs(u) * 0.8) * local.uniform(12, 22))) < 0.07) & (np.abs(u) < half)
        )
        blade[is_vein] = blade[is_vein] * 0.75 + 45
        stalk = self._draw_mask(
            width,
            height,
            [
                [
                    (width / 2 - 3 - length * math.sin(lean) * 0.95, height / 2 + length * 0.95),
                    (width / 2 + 3 - length * math.sin(lean) * 0.95, height / 2 + length * 0.95),
                    (width / 2 - length * math.sin(lean) * 1.3, height - 4),
                ]
            ],
        )
        pixels = self._lay_on(ground, np.full_like(blade, tone * 0.7), stalk)
        pixels = self._lay_on(pixels, blade, mask)
        name_zh, name_en = LEAVES[kind]
        facts = make_facts({"name": f"{LEAF_COLOURS[colour][0]}的{name_zh}"}, {"name": f"{name_en}, {colour}"})
        return Picture(self._finish(pixels), "specimen", facts)

    def render_planet(self, seed: int | None = None, phase: int | None = None) -> Picture:
        """Render a planet, or with a phase the Moon."""
        local, width, height = self._start(seed)
        rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
        radius = min(width, height) * local.uniform(0.3, 0.44)
        x, y = (columns - width / 2) / radius, (rows - height / 2) / radius
        square = x**2 + y**2
        z = np.sqrt(np.clip(1 - square, 0, 1))
        kind = local.choice(PLANETS) if phase is None else "moon"
        noise = self._noise(local)
        texture = make_smooth_noise(noise, height, width, (4, 4), 0.8)
        first, second = local.sample(
            (
                (210, 170, 120),
                (180, 90, 50),
                (90, 130, 190),
                (190, 200, 210),
                (220, 200, 140),
                (120, 80, 70),
                (110, 160, 150),
            ),
            2,
        )
        if kind in ("gas giant", "ice giant"):
            lean = local.uniform(-0.3, 0.3)
            bands = np.sin((y + lean * x) * local.uniform(7, 22) + texture * 0.5)
            mix = (bands * (0.5 if kind == "gas giant" else 0.15) + 0.5)[..., None]
        else:
            mix = np.clip(texture * 0.35 + 0.5, 0, 1)[..., None]
        colour = np.array(first, np.float32) * mix + np.array(second, np.float32) * (1 - mix)
        if kind == "moon":
            colour = np.repeat((150 + texture * 22)[..., None], 3, 2)
            for _ in range(local.randint(14, 30)):
                cx, cy, size = local.uniform(-0.8, 0.8), local.uniform(-0.8, 0.8), local.uniform(0.03, 0.14)
                distance = np.hypot(x - cx, y - cy) / size
                colour += (np.exp(-((distance - 1) ** 2) / 0.03) * 30 - np.exp(-(distance**2) / 0.5) * 26)[..., None]
        share = MOON_PHASES[phase][0] if phase is not None else local.uniform(0.35, 1)
        angle = math.pi * (1 - share)
        light = np.clip(x * math.sin(angle) + z * math.cos(angle), 0, 1) ** 0.6
        sky = np.zeros((height, width, 3), np.float32) + 6
        stars = noise.random((height, width)) > 0.9985
        sky[stars] = noise.uniform(60, 220, (int(stars.sum()), 1))
        edge = np.clip((1 - np.sqrt(square)) * radius, 0, 1)[..., None]
        pixels = sky * (1 - edge) + colour * light[..., None] * edge
        names = {
            "gas giant": ("气态巨行星", "a gas giant with cloud bands"),
            "ice giant": ("冰巨星", "an ice giant"),
            "rocky planet": ("岩质行星", "a rocky planet"),
            "moon": ("布满环形山的卫星", "a cratered moon"),
        }
        name_zh, name_en = names[kind]
        if phase is not None:
            name_zh, name_en = MOON_PHASES[phase][1], f"the Moon, {MOON_PHASES[phase][2]}"
        return Picture(self._finish(pixels, 2.5), "sky", make_facts({"name": name_zh}, {"name": name_en}))

    def render_galaxy(self) -> Picture:
        local, width, height = self._start(None)
        noise = self._noise(local)
        rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
        tilt, lean, arms = local.uniform(0.35, 1), local.uniform(0, 3.14), local.randint(2, 5)
        dx, dy = columns - width / 2, rows - height / 2
        u, v = dx * math.cos(lean) + dy * math.sin(lean), (dy * math.cos(lean) - dx * math.sin(lean)) / tilt
        radius = np.hypot(u, v) / (min(width, height) * local.uniform(0.3, 0.42))
        wind = np.arctan2(v, u) * arms - np.log(radius + 0.05) * arms * local.uniform(1.6, 3.4)
        clouds = make_smooth_noise(noise, height, width, (8, 8), 0.75)
        arm = (
            np.exp(-radius * 2.1) * (0.55 + 0.45 * np.cos(wind + clouds * 0.5)) * 330 * np.clip(1 + clouds * 0.2, 0, 2)
        )
        core = np.exp(-(radius**2) * 22) * 240
        blue, warm = np.array((0.72, 0.82, 1.1), np.float32), np.array((1.05, 0.9, 0.68), np.float32)
        pixels = arm[..., None] * blue + core[..., None] * warm + 5
        for _ in range(local.randint(60, 160)):
            x, y, size = local.randrange(width), local.randrange(height), local.choice((0, 0, 0, 1, 2))
            pixels[max(0, y - size) : y + size + 1, max(0, x - size) : x + size + 1] += local.uniform(40, 200)
        arms_zh = ("", "", "双", "三", "四", "五")[arms]
        facts = make_facts(
            {"name": f"{arms_zh}旋臂的旋涡星系"},
            {"name": f"a spiral galaxy with {('', '', 'two', 'three', 'four', 'five')[arms]} arms"},
        )
        return Picture(self._finish(pixels, 4), "sky", facts)

    def stain_cells(self, seed: int | None = None, shift: float = 0) -> Picture:
        """Stain cells under a microscope; the seed makes the slide, the shift moves it."""
        local, width, height = self._start(seed)
        tissue_zh, tissue_en = local.choice(TISSUES)
        stain_zh, stain_en, pale, dark = local.choice(STAINS)
        rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
        noise = self._noise(local)
        field = make_smooth_noise(noise, height, width, (5, 5), 0.6)
        step, stretch = local.uniform(34, 70), local.uniform(1, 2.2)
        best = np.full((height, width), 1e9, np.float32)
        runner = best.copy()
        for row in range(-1, int(height / step) + 3):
            for column in range(-1, int(width / step / stretch) + 3):
                x = (column + local.uniform(-0.3, 0.3) + shift) * step * stretch
                y = (row + local.uniform(-0.3, 0.3)) * step
                left, right = max(0, int(x - 2.2 * step * stretch)), min(width, int(x + 2.2 * step * stretch))
                top, bottom = max(0, int(y - 2.2 * step)), min(height, int(y + 2.2 * step))
                if left >= right or top >= bottom:
                    continue
                window = (slice(top, bottom), slice(left, right))
                distance = np.hypot((columns[window] - x) / stretch, rows[window] - y) + field[window] * 2
                runner[window] = np.minimum(runner[window], np.maximum(best[window], distance))
                best[window] = np.minimum(best[window], distance)
        wall = np.exp(-((runner - best) ** 2) / 14)
        nucleus = 1 / (1 + np.exp((best - step * local.uniform(0.14, 0.24)) * 0.9))
        depth = np.clip(wall * 0.6 + nucleus * 0.9 + field * 0.05, 0, 1)[..., None]
        pixels = np.array(pale, np.float32) * (1 - depth) + np.array(dark, np.float32) * depth + field[..., None] * 4
        image = self._finish(pixels)
        bar = local.randint(50, 90)
        ImageDraw.Draw(image).rectangle((width - bar - 14, height - 18, width - 14, height - 14), fill=(10, 10, 10))
        facts = make_facts(
            {"name": f"{tissue_zh}显微照片，{stain_zh}"}, {"name": f"a micrograph of {tissue_en}, {stain_en} stain"}
        )
        return Picture(image, "slide", facts)

    def show_ammonite(self) -> Picture:
        local, width, height = self._start(None)
        rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
        dx, dy = columns - width / 2, rows - height / 2
        size = min(width, height) * local.uniform(0.4, 0.46)
        radius, turn = np.hypot(dx, dy * local.uniform(1, 1.15)) / size, np.arctan2(dy, dx)
        growth, ribs = local.uniform(0.16, 0.26), local.randint(16, 40)
        whorl = np.log(np.maximum(radius, 1e-3)) / (growth * 2 * math.pi) - turn / (2 * math.pi)
        across = whorl - np.floor(whorl)
        length = (np.floor(whorl) + turn / (2 * math.pi)) * ribs
        tube = np.sqrt(np.clip(np.sin(across * math.pi), 0, 1))
        rib = np.sin(length * 2 * math.pi + across * local.uniform(1, 3)) * 0.5 + 0.5
        slope = (
            cv2.Sobel((tube * 2 + rib * 0.8 * tube).astype(np.float32), cv2.CV_32F, 1, 1, ksize=5) * 0.03
            + (tube - 0.5) * 0.4
        )
        light = np.clip(0.72 + slope + (rib - 0.5) * 0.25, 0.2, 1.5)[..., None]
        tone = np.array(
            local.choice(((168, 138, 98), (120, 116, 110), (190, 120, 70), (96, 84, 74), (204, 190, 164))), np.float32
        )
        texture = make_smooth_noise(self._noise(local), height, width, (8, 8), 0.8)[..., None]
        ground = self._make_ground(local, width, height)
        mask = (radius < 1 + 0.05 * np.cos(turn - 1)).astype(np.float32)
        pixels = self._lay_on(ground, tone * light + texture * 7, mask)
        genus = local.choice(("Dactylioceras", "Perisphinctes", "Hildoceras", "Arietites", "Amaltheus", "Parkinsonia"))
        facts = make_facts({"name": f"菊石化石（{genus}）"}, {"name": f"a fossil ammonite ({genus})"})
        return Picture(self._finish(pixels), "specimen", facts)

    def show_snowflake(self) -> Picture:
        local, width, height = self._start(None)
        canvas = Image.new("L", (width * 2, height * 2))
        draw = ImageDraw.Draw(canvas)
        reach = min(width, height) * 0.86
        branches = [(local.uniform(0.2, 0.95), local.uniform(0.1, 0.36)) for _ in range(local.randint(3, 7))]
        core, thick = local.uniform(0.06, 0.22), local.randint(4, 12)
        for arm in range(6):
            turn = math.pi / 3 * arm + 0.26
            draw.line(
                (width, height, width + reach * math.cos(turn), height + reach * math.sin(turn)), fill=190, width=thick
            )
            for at, length in branches:
                x, y = width + reach * at * math.cos(turn), height + reach * at * math.sin(turn)
                for side in (-1, 1):
                    end = turn + side * math.pi / 3
                    draw.line(
                        (
                            x,
                            y,
                            x + reach * length * (1.1 - at) * math.cos(end),
                            y + reach * length * (1.1 - at) * math.sin(end),
                        ),
                        fill=210,
                        width=max(2, thick - 2),
                    )
        draw.polygon(make_polygon(width, height, reach * core, 6, 15), fill=150, outline=240)
        ice = cv2.GaussianBlur(np.asarray(canvas.reduce(2), np.float32), (0, 0), 1.0)
        slope = cv2.Sobel(ice, cv2.CV_32F, 1, 1, ksize=3)
        hue = np.array(local.choice(((40, 70, 130), (20, 30, 60), (90, 110, 140), (60, 50, 100))), np.float32)
        light = make_smooth_noise(self._noise(local), height, width, (2, 2), 0.5)[..., None] * 10
        pixels = hue + light + (ice * 0.6 + np.abs(slope) * 0.25)[..., None]
        form_zh, form_en = ("星状", "stellar") if core < 0.12 else ("板状", "sectored plate")
        facts = make_facts({"name": f"{form_zh}雪晶的显微照片"}, {"name": f"a {form_en} snow crystal"})
        return Picture(self._finish(pixels), "slide", facts)


def smooth_outline(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Round the corners of an outline (Chaikin's cuts)."""
    for _ in range(3):
        rounded = []
        for (x1, y1), (x2, y2) in zip(points, [*points[1:], points[0]], strict=True):
            rounded += [(x1 * 0.75 + x2 * 0.25, y1 * 0.75 + y2 * 0.25), (x1 * 0.25 + x2 * 0.75, y1 * 0.25 + y2 * 0.75)]
        points = rounded
    return points


def smooth_profile(marks: list[float], height: int, top: float, bottom: float) -> np.ndarray:
    """Return the half width of a vessel in each row, between marks from the rim to the foot; shape (height, 1)."""
    rows = np.arange(height, dtype=np.float32)
    widths = np.interp(rows, np.linspace(top, bottom, len(marks)), marks).astype(np.float32)
    blurred = cv2.GaussianBlur(
        widths[:, None], (1, height // 6 | 1), 0, sigmaY=height / 22, borderType=cv2.BORDER_REPLICATE
    )
    return blurred.reshape(-1, 1)


def shows_subject(crop: Image.Image) -> bool:
    """Return whether most of a crop is in focus and neither sky nor darkness."""
    grey = np.asarray(crop.convert("L").resize((96, 96), Image.Resampling.BOX), np.float32)
    blocks = grey.reshape(12, 8, 12, 8).swapaxes(1, 2).reshape(144, 64)
    # Two fifths of blocks with more than 4 levels of detail: set by looking at what is left of wallpapers.
    return float((blocks.std(1) > 4).mean()) > 0.4 and float(grey.mean()) > 25


def describe_photo(photo: Photo) -> Picture:
    """Return a photograph with what the name of its file says."""
    topic = "photo"
    if photo.name in texts.PHOTOS:
        name_zh, name_en, sort = texts.PHOTOS[photo.name]
        topic = "view" if sort == "unique" else topic
    else:
        ground, _, sky = photo.name.partition(" under a ")
        name_en = photo.name
        name_zh = (
            f"{texts.SKIES[sky]}下的{texts.GROUNDS[ground]}"
            if sky in texts.SKIES and ground in texts.GROUNDS
            else photo.name
        )
    return Picture(photo.image, topic, make_facts({"name": name_zh}, {"name": name_en}))
