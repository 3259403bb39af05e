"""Drawings of an encyclopedia: plates and signs from the drawings of the demo data, flags, maps, charts and diagrams.

Drawn at twice their size and reduced, as browsers render vector files.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import encyclopedia_texts as texts
import numpy as np
from making import WHITE, Drawing, Signs, is_solid, make_gradient, make_smooth_noise, paste_drawing, read_drawings
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]
Facts = dict[str, dict[str, str]]

INK = (28, 28, 32)
PAPERS = ((250, 246, 232), (244, 236, 214), (236, 224, 196), (252, 250, 244), (238, 232, 222))


@dataclass(frozen=True)
class Picture:
    """A picture of the encyclopedia and what is true of it.

    Attributes:
        topic: names its caption templates.
        facts: what templates are filled with, by language.
        traits: `drawing`; `white`: the ground is white and can be exchanged; `sided`: mirrored it means something else.
        labels: where the letters of a labelled drawing stand, and the letters.
    """

    image: Image.Image
    topic: str
    facts: Facts
    traits: frozenset[str] = frozenset()
    labels: tuple[tuple[Point, str], ...] = ()

    def write_caption(self, language: str, rng: random.Random, is_long: bool = False) -> str:
        return texts.write_caption(self.topic, self.facts[language], language, rng, is_long)


def make_facts(zh: dict[str, str], en: dict[str, str]) -> Facts:
    return {"zh": zh, "en": en}


def add_article(noun: str) -> str:
    """Return a noun with its article; plurals and materials have none."""
    is_plural = noun.endswith("s") and noun not in texts.SINGULARS_IN_S
    if is_plural or noun in texts.WITHOUT_ARTICLE:
        return noun
    return ("an " if noun[0].lower() in "aeiou" else "a ") + noun


class Sheet:
    """A canvas at twice the size of the picture."""

    def __init__(self, width: int, height: int, ground: Any = WHITE) -> None:
        self.width, self.height = width, height
        self.canvas = Image.new("RGB", (width * 2, height * 2), ground)
        self.draw = ImageDraw.Draw(self.canvas)

    def scale(self, points: Iterable[Point]) -> list[Point]:
        return [(x * 2, y * 2) for x, y in points]

    def line(self, points: Iterable[Point], colour: Any = INK, width: float = 1.5) -> None:
        self.draw.line(self.scale(points), fill=colour, width=round(width * 2), joint="curve")

    def polygon(self, points: Iterable[Point], fill: Any = None, outline: Any = None, width: float = 1.5) -> None:
        corners = self.scale(points)
        self.draw.polygon(corners, fill=fill)
        if outline:
            self.draw.line([*corners, corners[0], corners[1]], fill=outline, width=round(width * 2), joint="curve")

    def box(
        self,
        left: float,
        top: float,
        right: float,
        bottom: float,
        fill: Any = None,
        outline: Any = None,
        width: float = 1.5,
    ) -> None:
        corners = (left * 2, top * 2, max(left, right) * 2, max(top, bottom) * 2)
        self.draw.rectangle(corners, fill=fill, outline=outline, width=round(width * 2))

    def disc(
        self, x: float, y: float, radius: float, fill: Any = None, outline: Any = None, width: float = 1.5
    ) -> None:
        corners = ((x - radius) * 2, (y - radius) * 2, (x + radius) * 2, (y + radius) * 2)
        self.draw.ellipse(corners, fill=fill, outline=outline, width=round(width * 2))

    def arc(
        self, x: float, y: float, radius: float, start: float, end: float, colour: Any = INK, width: float = 1.5
    ) -> None:
        corners = ((x - radius) * 2, (y - radius) * 2, (x + radius) * 2, (y + radius) * 2)
        self.draw.arc(corners, start, end, fill=colour, width=round(width * 2))

    def write(
        self, signs: Signs, text: str, x: float, y: float, size: int, colour: Any = INK, anchor: str = "mm"
    ) -> None:
        self.draw.text((x * 2, y * 2), text, font=signs.font(size * 2), fill=colour, anchor=anchor)

    def finish(self) -> Image.Image:
        return self.canvas.reduce(2)


# Names of drawings by sort.
SORTS = {
    "animal": tuple(texts.ANIMALS),
    "plant": tuple(texts.PLANTS),
    "machine": texts.MACHINES,
    "object": texts.OBJECTS,
    "building": texts.BUILDINGS,
    "body": texts.BODY,
}


class Cabinet:
    """Gives drawings of the demo data by sort, each once.

    Args:
        names: shards of the demo data.
        rng: draws the order.
    """

    def __init__(self, names: tuple[str, ...], rng: random.Random) -> None:
        self.rng = rng
        self.drawings: dict[str, list[Drawing]] = {}
        for sort, names_en in SORTS.items():
            drawings = [drawing for name in names for drawing in read_drawings(name, set(names_en))]
            # The flat style is the same design as another one without its shading.
            self.drawings[sort] = [
                drawing for drawing in drawings if is_solid(drawing.image) and "flat" not in drawing.style
            ]
            rng.shuffle(self.drawings[sort])
        self.silhouettes = {
            drawing.name_en: drawing
            for name in names
            for drawing in read_drawings(name, {*texts.CHARGES, *texts.CROSSINGS})
            if is_solid(drawing.image) and drawing.style != "noto-v1"
        }
        self.used: list[Drawing] = []

    def take(self, sort: str | None = None) -> Drawing:
        """Return a drawing that was not given before; used ones again when none is left."""
        sorts = [name for name, drawings in self.drawings.items() if drawings and sort in (None, name)]
        if not sorts:
            return self.rng.choice(self.used)
        weights = [len(self.drawings[name]) for name in sorts]
        self.used.append(self.drawings[self.rng.choices(sorts, weights)[0]].pop())
        return self.used[-1]

    def take_namesake(self, drawing: Drawing) -> Drawing | None:
        """Return another drawing of the same thing."""
        for drawings in self.drawings.values():
            for candidate in drawings:
                if candidate.name_en == drawing.name_en:
                    drawings.remove(candidate)
                    return candidate
        return None

    def silhouette(self, names: Iterable[str]) -> Drawing:
        return self.silhouettes[self.rng.choice([name for name in names if name in self.silhouettes])]


FLAG_COLOURS = {
    "red": ("红", (206, 17, 38)),
    "white": ("白", (255, 255, 255)),
    "blue": ("蓝", (0, 56, 147)),
    "green": ("绿", (0, 122, 61)),
    "yellow": ("黄", (252, 209, 22)),
    "black": ("黑", (20, 20, 20)),
    "orange": ("橙", (255, 130, 0)),
    "light blue": ("浅蓝", (92, 170, 226)),
    "purple": ("紫", (98, 48, 138)),
    "maroon": ("栗", (124, 22, 48)),
    "grey": ("灰", (150, 152, 156)),
}
FLAG_LAYOUTS = {
    "rows": ("{0}{1}{2}横条三色旗", "a horizontal tricolour of {0}, {1} and {2}"),
    "columns": ("{0}{1}{2}竖条三色旗", "a vertical tricolour of {0}, {1} and {2}"),
    "nordic": ("{0}底{1}色十字旗，镶{2}边", "a {1} cross edged in {2} on {0}"),
    "saltire": ("{0}底{1}色斜十字旗", "a {1} saltire on {0}"),
    "triangle": ("{0}{1}两色旗，旗杆侧为{2}色三角形", "a bicolour of {0} and {1} with a {2} triangle at the hoist"),
    "disc": ("{0}底旗，中央为{1}色圆", "a {0} field with a {1} disc"),
    "quarters": ("{0}{1}四分旗", "quarters of {0} and {1}"),
    "diagonal": ("{0}{1}斜分旗，中有{2}色斜条", "a {2} diagonal band between {0} and {1}"),
    "stripes": ("{0}{1}九道横条旗，旗角{2}色", "nine stripes of {0} and {1} with a {2} canton"),
    "border": ("{0}底旗，{1}色边框，中央{2}色星", "a {0} field with a {1} border and a {2} star"),
}
UNITS = (("市", "municipality"), ("省", "province"), ("县", "county"), ("区", "district"))
TINCTURES = {
    "gules": ("红", (196, 24, 44)),
    "azure": ("蓝", (22, 84, 168)),
    "vert": ("绿", (20, 116, 62)),
    "sable": ("黑", (26, 26, 28)),
    "purpure": ("紫", (104, 46, 132)),
    "or": ("金", (246, 198, 36)),
    "argent": ("银", (240, 240, 240)),
}
TRIGRAMS = (
    ("乾", 7),
    ("震", 1),
    ("坎", 2),
    ("艮", 4),
    ("坤", 0),
    ("巽", 6),
    ("离", 5),
    ("兑", 3),
)  # bit 0: lowest line
HEXAGRAMS = (  # rows: lower trigram, columns: upper one, in the order above
    "1乾 34大壮 5需 26大畜 11泰 9小畜 14大有 43夬",
    "25无妄 51震 3屯 27颐 24复 42益 21噬嗑 17随",
    "6讼 40解 29坎 4蒙 7师 59涣 64未济 47困",
    "33遁 62小过 39蹇 52艮 15谦 53渐 56旅 31咸",
    "12否 16豫 8比 23剥 2坤 20观 35晋 45萃",
    "44姤 32恒 48井 18蛊 46升 57巽 50鼎 28大过",
    "13同人 55丰 63既济 22贲 36明夷 37家人 30离 49革",
    "10履 54归妹 60节 41损 19临 61中孚 38睽 58兑",
)
SUBJECTS = (
    ("人口", "population"),
    ("水稻产量", "rice production"),
    ("月降水量", "monthly rainfall"),
    ("月平均气温", "mean monthly temperature"),
    ("铁路客运量", "railway passengers"),
    ("失业率", "unemployment rate"),
    ("苹果产量", "apple harvest"),
    ("用电量", "electricity consumption"),
    ("游客人数", "number of visitors"),
    ("出生人数", "number of births"),
    ("森林面积", "forest area"),
    ("鱼类捕捞量", "fish catch"),
    ("学生人数", "number of pupils"),
    ("粮食出口", "grain exports"),
)
CHART_FORMS = {
    "bars": ("柱状图", "bar chart"),
    "lines": ("折线图", "line chart"),
    "pie": ("饼图", "pie chart"),
    "rows": ("条形图", "horizontal bar chart"),
}
CHART_COLOURS = ((58, 110, 165), (204, 72, 58), (90, 150, 80), (232, 160, 48), (120, 90, 150), (70, 160, 170))
PARENTS = {
    "OH": ("苯酚", "phenol"),
    "NH2": ("苯胺", "aniline"),
    "CH3": ("甲苯", "toluene"),
    "COOH": ("苯甲酸", "benzoic acid"),
    "CHO": ("苯甲醛", "benzaldehyde"),
}
SUBSTITUENTS = {
    "Cl": ("氯", "chloro"),
    "Br": ("溴", "bromo"),
    "F": ("氟", "fluoro"),
    "I": ("碘", "iodo"),
    "NO2": ("硝基", "nitro"),
    "OCH3": ("甲氧基", "methoxy"),
}
ATOM_COLOURS = {
    "Cl": (30, 140, 50),
    "F": (60, 150, 60),
    "Br": (140, 50, 30),
    "I": (110, 40, 130),
    "OH": (200, 30, 30),
}
LOCANTS = ((2,), (3,), (4,), (2, 4), (2, 6), (3, 5))
FUNCTIONS: dict[str, Callable[[np.ndarray, float, float], np.ndarray]] = {
    "y = {a} sin({b}x)": lambda x, a, b: a * np.sin(b * x),
    "y = {a} cos({b}x)": lambda x, a, b: a * np.cos(b * x),
    "y = {a}x² − {b}": lambda x, a, b: a * x**2 - b,
    "y = {a}x³ − {b}x": lambda x, a, b: a * x**3 - b * x,
    "y = {a} − {b}|x|": lambda x, a, b: a - b * np.abs(x),
    "y = {a} e^(−x²/{b})": lambda x, a, b: a * np.exp(-(x**2) / b),
    "y = {a}x + {b}": lambda x, a, b: a * x + b,
    "y = {a} / (1 + {b}x²)": lambda x, a, b: a / (1 + b * x**2),
    "y = {a} sin(x) + sin({b}x)": lambda x, a, b: a * np.sin(x) + np.sin(b * x),
}
SIDES_ZH = {3: "三", 4: "四", 5: "五", 6: "六", 7: "七", 8: "八", 9: "九", 10: "十", 12: "十二"}
SIDES_EN = {
    3: "triangular",
    4: "square",
    5: "pentagonal",
    6: "hexagonal",
    7: "heptagonal",
    8: "octagonal",
    9: "enneagonal",
    10: "decagonal",
    12: "dodecagonal",
}


class Draughtsman:
    """Makes the drawings.

    Args:
        cabinet: gives the drawings of plates, charges and pictograms.
        signs: writes labels.
        rng: draws everything random.
    """

    def __init__(self, cabinet: Cabinet, signs: Signs, rng: random.Random) -> None:
        self.cabinet, self.signs, self.rng = cabinet, signs, rng
        self.seen: set[Any] = set()  # designs that exist once: flags, signs, molecules
        self.symbols = [("hexagram", index) for index in range(64)] + [("domino", index) for index in range(28)]
        self.symbols += [("semaphore", index) for index in range(26)]
        rng.shuffle(self.symbols)

    def make_any(self) -> Picture:
        makers = {
            self.draw_plate: 30,
            self.draw_flag: 9,
            self.draw_arms: 7,
            self.draw_locator: 5,
            self.draw_chart: 7,
            self.draw_sign: 5,
            self.draw_molecule: 4,
            self.draw_solid: 5,
            self.draw_graph: 5,
            self.draw_board: 4,
            self.draw_bridge: 4,
            self.draw_locomotive: 4,
            self.draw_plan: 4,
            self.draw_elevation: 5,
            self.draw_circuit: 3,
            self.draw_gears: 3,
            self.draw_symbol: 2,
        }
        return self.rng.choices(list(makers), list(makers.values()))[0]()

    def draw_design(self, kind: str, draw: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
        """Draw until a design comes that was not made yet; after 60 draws there is hardly a new one left."""
        for _ in range(60):
            design = draw()
            if self.is_new(kind, *design):
                break
        return design

    def is_new(self, *design: Any) -> bool:
        if design in self.seen:
            return False
        self.seen.add(design)
        return True

    # -----------------------------------------------------------------------------------------------------------------
    # Plates

    def draw_plate(self, drawing: Drawing | None = None, style: str = "", seed: int | None = None) -> Picture:
        """Print a drawing as a colour plate, an engraving, clip art, a museum's picture or a labelled figure."""
        rng = self.rng
        drawing = drawing or self.cabinet.take()
        style = (
            style
            or rng.choices(
                ("plate", "engraving", "clip_art", "exhibit", "labelled", "ground"), (28, 16, 22, 14, 12, 8)
            )[0]
        )
        local = random.Random(rng.getrandbits(32) if seed is None else seed)  # noqa: S311
        facts, topic = self._describe_drawing(drawing)
        traits = {"drawing"}
        width, height = local.randint(300, 420), local.randint(290, 400)
        side = int(min(width, height) * local.uniform(0.66, 0.86))
        center = (width // 2 + local.randint(-12, 12), height // 2 + local.randint(-10, 6))
        labels: tuple[tuple[Point, str], ...] = ()
        if style == "plate":
            image = self._print_plate(drawing, width, height, side, center, facts, local)
        elif style == "engraving":
            image = self._engrave(drawing, width, height, side, center, local)
        elif style == "exhibit":
            tone = local.choice(((70, 74, 80), (150, 150, 148), (205, 200, 190), (48, 56, 78)))
            image = make_gradient(width, height, tone, tuple(min(255, level + 45) for level in tone))
            paste_drawing(image, drawing.image, side, center, 0.45)
        elif style == "labelled":
            image = Image.new("RGB", (width, height), WHITE)
            paste_drawing(image, drawing.image, side, center, 0)
            image, labels = self._label(image, side, center, local)
        else:
            colour = (
                WHITE
                if style == "clip_art"
                else local.choice(((198, 222, 240), (222, 236, 204), (250, 226, 190), (238, 214, 222)))
            )
            image = Image.new("RGB", (width, height), colour)
            paste_drawing(image, drawing.image, side, center, 0)
            if style == "clip_art":
                traits.add("white")
        if style == "labelled":
            traits.add("white")
        return Picture(image, topic, facts, frozenset(traits), labels)

    def _describe_drawing(self, drawing: Drawing) -> tuple[Facts, str]:
        latin = texts.ANIMALS.get(drawing.name_en) or texts.PLANTS.get(drawing.name_en)
        zh = {"name": drawing.name_zh, "thing": drawing.name_zh}
        thing = texts.PLAIN_NAMES.get(drawing.name_en, drawing.name_en)
        en = {"name": add_article(thing), "thing": thing}
        if latin:
            zh["latin"] = en["latin"] = latin
        return make_facts(zh, en), "organism" if latin else "object"

    def _print_plate(
        self,
        drawing: Drawing,
        width: int,
        height: int,
        side: int,
        center: tuple[int, int],
        facts: Facts,
        local: random.Random,
    ) -> Image.Image:
        """Print in colour on old paper, with a frame and the name below."""
        paper = self._make_paper(width, height, local)
        ink = Image.new("RGB", (width, height), WHITE)
        paste_drawing(ink, drawing.image, int(side * 0.88), (center[0], center[1] - 12), 0)
        # Ink multiplies with paper, and fades.
        faded = np.asarray(ink, np.float32) * local.uniform(0.82, 0.95) + 255 * 0.05
        image = Image.fromarray(np.clip(paper * np.minimum(faded, 255) / 255, 0, 255).astype(np.uint8))
        if local.random() < 0.6:
            ImageDraw.Draw(image).rectangle((9, 9, width - 10, height - 10), outline=(92, 80, 62))
        words = facts["en"].get("latin", facts["en"]["thing"])
        self.signs.write(image, words, (width / 2, height - 26), 14, (70, 58, 44))
        if local.random() < 0.5:
            self.signs.write(image, f"Pl. {local.randint(1, 90)}", (width - 40, 22), 12, (70, 58, 44))
        return image

    def _make_paper(self, width: int, height: int, local: random.Random) -> np.ndarray:
        noise = np.random.default_rng(local.getrandbits(32))
        stains = make_smooth_noise(noise, height, width, (3, 3), 0.5)[..., None] * local.uniform(1.5, 5)
        return np.array(local.choice(PAPERS), np.float32) + stains

    def _engrave(
        self, drawing: Drawing, width: int, height: int, side: int, center: tuple[int, int], local: random.Random
    ) -> Image.Image:
        """Turn shades into hatching and edges into lines."""
        ground = Image.new("RGB", (width, height), WHITE)
        paste_drawing(ground, drawing.image, side, center, 0)
        grey = cv2.GaussianBlur(np.asarray(ground.convert("L")), (5, 5), 0)
        rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
        pitch, angle = local.uniform(3.6, 5), local.uniform(0.4, 1.1)
        wave = np.sin((rows * math.cos(angle) + columns * math.sin(angle)) * 2 * math.pi / pitch) * 60 + 118
        edges = cv2.dilate(cv2.Canny(grey, 30, 80), np.ones((2, 2)))
        is_ink = (grey < wave - 6) & (grey < 235) | (edges > 0)
        lines = cv2.GaussianBlur(np.where(is_ink, 0.0, 1.0).astype(np.float32), (3, 3), 0)[..., None]
        paper = self._make_paper(width, height, local)
        return Image.fromarray(np.clip(paper * lines + np.array(INK) * (1 - lines), 0, 255).astype(np.uint8))

    def _label(
        self, image: Image.Image, side: int, center: tuple[int, int], local: random.Random
    ) -> tuple[Image.Image, tuple[tuple[Point, str], ...]]:
        """Point at parts with lines that end in letters."""
        draw = ImageDraw.Draw(image)
        labels = []
        count = local.randint(3, 5)
        for index, letter in enumerate("ABCDE"[:count]):
            is_left = index % 2 == 0
            x = 16 if is_left else image.width - 16
            y = image.height * (index + 0.8) / (count + 0.6)
            target = (center[0] + local.uniform(-0.22, 0.22) * side, center[1] + local.uniform(-0.25, 0.25) * side)
            draw.line(((x + (10 if is_left else -10), y), target), fill=INK, width=1)
            self.signs.write(image, letter, (x, y), 18, INK)
            labels.append(((x, y), letter))
        return image, tuple(labels)

    # -----------------------------------------------------------------------------------------------------------------
    # Flags and arms

    def draw_flag(
        self, layout: str = "", colours: tuple[str, ...] = (), size: tuple[int, int] | None = None
    ) -> Picture:
        rng = self.rng
        while not colours or not self.is_new("flag", layout, colours):
            layout = rng.choice(list(FLAG_LAYOUTS))
            colours = tuple(rng.sample(list(FLAG_COLOURS), 3))
            if layout in ("saltire", "disc", "quarters"):
                colours = (*colours[:2], "")
        width, height = size or rng.choice(((360, 240), (390, 260), (400, 240), (340, 255), (420, 280)))
        sheet = Sheet(width, height)
        self._paint_flag(sheet, layout, [FLAG_COLOURS[name][1] if name else WHITE for name in colours])
        sheet.box(0, 0, width - 0.5, height - 0.5, outline=(170, 170, 170), width=0.5)
        zh_names = [FLAG_COLOURS[name][0] if name else "" for name in colours]
        town_zh, town_en = texts.draw_place_name(rng)
        unit_zh, unit_en = rng.choice(UNITS)
        design_zh, design_en = FLAG_LAYOUTS[layout]
        facts = make_facts(
            {"town": town_zh, "unit": unit_zh, "design": design_zh.format(*zh_names)},
            {"town": town_en, "unit": unit_en, "design": design_en.format(*colours)},
        )
        return Picture(sheet.finish(), "flag", facts, frozenset(("drawing", "sided")))

    def _paint_flag(self, sheet: Sheet, layout: str, colours: list[Colour]) -> None:
        first, second, third = colours
        width, height = sheet.width, sheet.height
        sheet.box(0, 0, width, height, first)
        if layout == "rows":
            sheet.box(0, height / 3, width, height, second)
            sheet.box(0, height * 2 / 3, width, height, third)
        elif layout == "columns":
            sheet.box(width / 3, 0, width, height, second)
            sheet.box(width * 2 / 3, 0, width, height, third)
        elif layout == "nordic":
            for half, colour in ((0.11, third), (0.06, second)):
                sheet.box(0, height * (0.5 - half), width, height * (0.5 + half), colour)
                sheet.box(width * 0.36 - height * half, 0, width * 0.36 + height * half, height, colour)
        elif layout == "saltire":
            sheet.line(((0, 0), (width, height)), second, height * 0.16)
            sheet.line(((width, 0), (0, height)), second, height * 0.16)
        elif layout == "triangle":
            sheet.box(0, height / 2, width, height, second)
            sheet.polygon(((0, 0), (width * 0.4, height / 2), (0, height)), third)
        elif layout == "disc":
            sheet.disc(width / 2, height / 2, height * 0.28, second)
        elif layout == "quarters":
            sheet.box(width / 2, 0, width, height / 2, second)
            sheet.box(0, height / 2, width / 2, height, second)
        elif layout == "diagonal":
            sheet.polygon(((width, 0), (width, height), (0, height)), second)
            sheet.line(((-20, height + 14), (width + 20, -14)), third, height * 0.18)
        elif layout == "stripes":
            for row in range(1, 9, 2):
                sheet.box(0, height * row / 9, width, height * (row + 1) / 9 - 0.5, second)
            sheet.box(0, 0, width * 0.42, height * 5 / 9 - 0.5, third)
        else:
            sheet.box(0, 0, width, height, second)
            sheet.box(width * 0.1, width * 0.1, width * 0.9, height - width * 0.1, first)
            sheet.polygon(make_star(width / 2, height / 2, height * 0.24, 5), third)

    def draw_arms(self, charge: str = "", field: tuple[str, str, str] | None = None, division: str = "") -> Picture:
        """Draw a shield with a charge, described in blazon."""
        rng = self.rng
        metals, colours = ("or", "argent"), ("gules", "azure", "vert", "sable", "purpure")
        while not charge or not self.is_new("arms", charge, field, division):
            charge = rng.choice([name for name in texts.CHARGES if name in self.cabinet.silhouettes])
            division = rng.choice(("plain", "pale", "fess", "bend", "chief", "bordure"))
            field = (*rng.sample(colours, 2), rng.choice(metals))
        assert field is not None  # noqa: S101
        ground, second, metal = field
        width, height = 330, 380
        sheet = Sheet(width, height)
        shield = Image.new("L", sheet.canvas.size)
        outline = [
            (30, 24),
            (300, 24),
            *[
                (300 - 135 * (1 - math.cos(turn)), 190 + 165 * math.sin(turn))
                for turn in np.linspace(0, math.pi / 2, 20)
            ],
            *[
                (30 + 135 * (1 - math.cos(turn)), 190 + 165 * math.sin(turn))
                for turn in np.linspace(math.pi / 2, 0, 20)
            ],
        ]
        ImageDraw.Draw(shield).polygon(sheet.scale(outline), fill=255)
        inside = Sheet(width, height, TINCTURES[ground][1])
        tone = TINCTURES[second][1]
        if division == "pale":
            inside.box(165, 0, width, height, tone)
        elif division == "fess":
            inside.box(0, 180, width, height, tone)
        elif division == "bend":
            inside.polygon(((0, 0), (width, height), (0, height)), tone)
        elif division == "chief":
            inside.box(0, 0, width, 105, tone)
        elif division == "bordure":
            inside.polygon(outline, tone)
            inside.polygon([(165 + (x - 165) * 0.84, 185 + (y - 185) * 0.84) for x, y in outline], TINCTURES[ground][1])
        side = 400 if division != "bordure" else 340
        figure = make_pictogram(self.cabinet.silhouettes[charge].image, side)
        drop = 60 if division == "chief" else 10
        inside.canvas.paste(
            TINCTURES[metal][1],
            (width - side // 2, height - side // 2 - 40 + drop),
            figure,
        )
        sheet.canvas.paste(inside.canvas, (0, 0), shield)
        sheet.polygon(outline, outline=INK, width=2.5)
        zh, en = self._blazon(charge, field, division)
        return Picture(sheet.finish(), "arms", make_facts(zh, en), frozenset(("drawing", "white")))

    def _blazon(self, charge: str, field: tuple[str, str, str], division: str) -> tuple[dict[str, str], dict[str, str]]:
        ground, second, metal = field
        charge_zh = self.cabinet.silhouettes[charge].name_zh
        grounds_en = {
            "plain": f"{ground}",
            "pale": f"per pale {ground} and {second}",
            "fess": f"per fess {ground} and {second}",
            "bend": f"per bend {ground} and {second}",
            "chief": f"{ground}, a chief {second}",
            "bordure": f"{ground}, a bordure {second}",
        }
        first_zh, second_zh, metal_zh = (TINCTURES[name][0] for name in field)
        grounds_zh = {
            "plain": f"{first_zh}底",
            "pale": f"{first_zh}{second_zh}左右分",
            "fess": f"{first_zh}{second_zh}上下分",
            "bend": f"{first_zh}{second_zh}斜分",
            "chief": f"{first_zh}底{second_zh}顶",
            "bordure": f"{first_zh}底{second_zh}边",
        }
        town_zh, town_en = texts.draw_place_name(self.rng)
        unit_zh, unit_en = self.rng.choice(UNITS)
        zh = {
            "town": town_zh,
            "unit": unit_zh,
            "charge": metal_zh + "色" + charge_zh,
            "blazon": f"{grounds_zh[division]}，{metal_zh}色{charge_zh}",
        }
        en = {
            "town": town_en,
            "unit": unit_en,
            "charge": add_article(charge),
            "blazon": f"{grounds_en[division]}, {add_article(charge)} {metal}",
        }
        return zh, en

    def draw_sign(self, shape: str = "", content: str = "") -> Picture:
        """Draw a road sign with a pictogram or number."""
        rng = self.rng
        while not content or not self.is_new("sign", shape, content):
            shape = rng.choice(("warning", "prohibition", "order", "limit", "diamond", "plate"))
            content = self.cabinet.silhouette(texts.CROSSINGS).name_en
            if shape == "limit":
                content = str(rng.randrange(5, 135, 5))
            elif shape == "plate":
                content = str(rng.randrange(100, 1000))
        sheet = Sheet(320, 310)
        middle, red = (160, 158), (200, 22, 30)
        if shape == "warning":
            for share, colour in ((1, red), (0.78, (255, 255, 255))):
                sheet.polygon(make_polygon(160, 180, 160 * share, 3, -90), colour)
            middle = (160, 192)
        elif shape == "diamond":
            sheet.polygon(make_polygon(160, 155, 150, 4, 0), (255, 196, 0), INK, 4)
        elif shape == "order":
            sheet.disc(160, 155, 140, (0, 84, 166))
        elif shape == "plate":
            sheet.box(30, 70, 290, 240, (0, 120, 70), WHITE, 6)
        else:
            sheet.disc(160, 155, 142, red)
            sheet.disc(160, 155, 112, WHITE)
        colour = WHITE if shape in ("order", "plate") else INK
        if content.isdigit():
            sheet.write(self.signs, content, 160, 156, 104 if len(content) > 2 else 124, colour)
            words_zh, words_en, name_zh = content, content, content
        else:
            drawing = self.cabinet.silhouettes[content]
            side = 300 if shape in ("prohibition", "order", "diamond") else 230
            figure = make_pictogram(drawing.image, side)
            sheet.canvas.paste(
                colour,
                (middle[0] * 2 - side // 2, middle[1] * 2 - side // 2),
                figure,
            )
            words_en, name_zh = drawing.name_en, drawing.name_zh
            words_zh = name_zh
        meanings = {
            "warning": (f"注意{words_zh}", f"warning, {words_en} crossing"),
            "diamond": (f"前方可能有{words_zh}", f"caution, {words_en} ahead"),
            "order": (f"{words_zh}专用道", f"{words_en} only"),
            "prohibition": (f"{words_zh}禁止通行", f"no entry for {words_en}"),
            "limit": (f"限速{words_zh}公里", f"speed limit {words_en} km/h"),
            "plate": (f"{words_zh}号公路", f"route {words_en}"),
        }
        shapes = {
            "warning": ("三角形", "triangular"),
            "diamond": ("菱形", "diamond"),
            "plate": ("长方形", "rectangular"),
        }
        shape_zh, shape_en = shapes.get(shape, ("圆形", "round"))
        facts = make_facts(
            {"meaning": meanings[shape][0], "shape": shape_zh}, {"meaning": meanings[shape][1], "shape": shape_en}
        )
        return Picture(sheet.finish(), "sign", facts, frozenset(("drawing", "white", "sided")))

    # -----------------------------------------------------------------------------------------------------------------
    # Maps and charts

    def draw_locator(self, seed: int | None = None, index: int | None = None) -> Picture:
        """Draw the districts of a land, one of them in red; the seed makes the land."""
        seed = self.rng.getrandbits(31) if seed is None else seed
        local, noise = random.Random(seed), np.random.default_rng(seed)  # noqa: S311
        width, height = local.randint(320, 400), local.randint(300, 380)
        rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
        warp_x = make_smooth_noise(noise, height, width, (5, 5), 0.5) * 7
        warp_y = make_smooth_noise(noise, height, width, (5, 5), 0.5) * 7
        count = local.randint(8, 15)
        seeds = [(local.uniform(0.18, 0.82) * width, local.uniform(0.18, 0.82) * height) for _ in range(count)]
        distances = np.stack([(columns + warp_x - x) ** 2 + (rows + warp_y - y) ** 2 for x, y in seeds])
        cells = distances.argmin(0)
        coast = ((columns + warp_x * 2) / width - 0.5) ** 2 + ((rows + warp_y * 2) / height - 0.5) ** 2
        is_land = coast < 0.17
        index = local.randrange(count) if index is None else index % count
        sea, land, line = local.choice(
            (
                ((198, 236, 255), (254, 254, 233), (110, 110, 110)),
                ((255, 255, 255), (192, 192, 192), (255, 255, 255)),
                ((214, 228, 240), (246, 225, 185), (150, 110, 70)),
            )
        )
        pixels = np.full((height, width, 3), sea, np.uint8)
        pixels[is_land] = land
        pixels[is_land & (cells == index)] = local.choice(((193, 40, 56), (200, 60, 40)))
        is_border = cv2.dilate(
            (cv2.Laplacian(np.where(is_land, cells + 1, 0).astype(np.float32), cv2.CV_32F) != 0).astype(np.uint8),
            np.ones((2, 2)),
        )
        pixels[is_border > 0] = line
        town_zh, town_en = texts.draw_place_name(local)
        names = [texts.draw_place_name(local) for _ in range(count)]
        unit_zh, unit_en = local.choice(UNITS[:3])
        district_zh, district_en = names[index]
        facts = make_facts(
            {"town": town_zh, "unit": unit_zh, "district": district_zh + "区"},
            {"town": town_en, "unit": unit_en, "district": district_en},
        )
        return Picture(
            Image.fromarray(cv2.GaussianBlur(pixels, (3, 3), 0)), "locator", facts, frozenset(("drawing", "sided"))
        )

    def draw_chart(self, style: int | None = None) -> Picture:
        """Draw a chart; the style gives its form, subject and colours, the data are new."""
        rng = self.rng
        local = random.Random(rng.getrandbits(31) if style is None else style)  # noqa: S311
        form, (subject_zh, subject_en) = local.choice(list(CHART_FORMS)), local.choice(SUBJECTS)
        width, height = local.randint(340, 430), local.randint(270, 340)
        colours = local.sample(CHART_COLOURS, 6)
        count, top = local.randint(5, 12), local.choice((10, 40, 100, 500, 1000))
        year = rng.randint(1950, 2015)
        town_zh, town_en = texts.draw_place_name(rng)
        sheet = Sheet(width, height, local.choice((WHITE, (250, 250, 246))))
        sheet.write(self.signs, f"{subject_en.capitalize()}, {town_en}", width / 2, 18, 14)
        level = rng.uniform(0.3, 0.7)
        values = []
        for _ in range(count):
            level = min(0.98, max(0.06, level + rng.uniform(-0.28, 0.28)))
            values.append(level)
        if form == "pie":
            self._draw_pie(sheet, values[:6], colours)
        else:
            self._draw_axes(sheet, values, form, colours[0], top, year)
        form_zh, form_en = CHART_FORMS[form]
        facts = make_facts(
            {"town": town_zh, "subject": subject_zh, "form": form_zh, "year": str(year), "later": str(year + count)},
            {"town": town_en, "subject": subject_en, "form": form_en, "year": str(year), "later": str(year + count)},
        )
        return Picture(sheet.finish(), "chart", facts, frozenset(("drawing", "sided")))

    def _draw_pie(self, sheet: Sheet, values: list[float], colours: list[Colour]) -> None:
        x, y, radius = sheet.width * 0.38, sheet.height * 0.55, sheet.height * 0.36
        start = -90.0
        for index, value in enumerate(values):
            end = start + 360 * value / sum(values)
            corners = ((x - radius) * 2, (y - radius) * 2, (x + radius) * 2, (y + radius) * 2)
            sheet.draw.pieslice(corners, start, end, fill=colours[index % 6], outline=WHITE, width=3)
            top = sheet.height * 0.25 + index * 24
            sheet.box(sheet.width * 0.74, top, sheet.width * 0.74 + 12, top + 12, colours[index % 6])
            sheet.write(
                self.signs,
                f"{'ABCDEF'[index]} {100 * value / sum(values):.0f}%",
                sheet.width * 0.74 + 18,
                top + 6,
                12,
                INK,
                "lm",
            )
            start = end

    def _draw_axes(self, sheet: Sheet, values: list[float], form: str, colour: Colour, top: int, year: int) -> None:
        left, right, upper, lower = 48, sheet.width - 16, 36, sheet.height - 30
        step = (right - left) / len(values)
        for tick in range(5):
            y = lower - (lower - upper) * tick / 4
            if form != "rows":
                sheet.line(((left, y), (right, y)), (210, 210, 210), 0.5)
                sheet.write(self.signs, f"{top * tick / 4:g}", left - 6, y, 11, INK, "rm")
        if form == "rows":
            step = (lower - upper) / len(values)
            for index, value in enumerate(values):
                y = upper + step * index
                sheet.box(left, y + step * 0.15, left + (right - left) * value, y + step * 0.85, colour)
                sheet.write(self.signs, str(year + index), left - 6, y + step / 2, 10, INK, "rm")
        else:
            points = [
                (left + step * (index + 0.5), lower - (lower - upper) * value) for index, value in enumerate(values)
            ]
            for index, (x, y) in enumerate(points):
                if form == "bars":
                    sheet.box(x - step * 0.36, y, x + step * 0.36, lower, colour)
                else:
                    sheet.disc(x, y, 3.5, colour)
                if index % 2 == 0:
                    sheet.write(self.signs, str(year + index), x, lower + 12, 10)
            if form == "lines":
                sheet.line(points, colour, 2)
        sheet.line(((left, upper - 6), (left, lower), (right, lower)), INK, 1.5)

    # -----------------------------------------------------------------------------------------------------------------
    # Figures of schoolbooks

    def draw_molecule(
        self, parent: str = "", substituent: str = "", locants: tuple[int, ...] = (), style: int | None = None
    ) -> Picture:
        """Draw a benzene ring with a parent group and others around it; the style says how it stands."""
        rng = self.rng
        local = random.Random(rng.getrandbits(31) if style is None else style)  # noqa: S311
        pool = [(first, second, third) for first in PARENTS for second in SUBSTITUENTS for third in LOCANTS]
        pool = [choice for choice in pool if ("molecule", *choice) not in self.seen]
        if not parent and not pool:
            return self.draw_graph()
        if not parent:
            parent, substituent, locants = rng.choice(pool)
        self.seen.add(("molecule", parent, substituent, locants))
        width, height = local.randint(300, 400), local.randint(300, 360)
        sheet = Sheet(width, height)
        center_x, center_y = width / 2, height / 2
        radius, weight = local.uniform(52, 72), local.choice((1.5, 2.5, 3.5))
        start, size = local.choice((-90, -90, -30, 30, 0, 180)), local.choice((18, 22, 25))
        is_tinted = local.random() < 0.6
        reach = radius + local.uniform(32, 42)  # from the centre to the end of a bond

        corners = make_polygon(center_x, center_y, radius, 6, start)
        sheet.polygon(corners, outline=INK, width=weight)
        inner = make_polygon(center_x, center_y, radius * 0.82, 6, start)
        for side in (0, 2, 4):
            (x1, y1), (x2, y2) = inner[side], inner[side + 1]
            shortened = ((x1 * 0.9 + x2 * 0.1, y1 * 0.9 + y2 * 0.1), (x1 * 0.1 + x2 * 0.9, y1 * 0.1 + y2 * 0.9))
            sheet.line(shortened, INK, weight)
        ends = make_polygon(center_x, center_y, reach, 6, start)
        names_at = make_polygon(center_x, center_y, reach + size * 0.8, 6, start)
        for position, group in [(1, parent), *[(locant, substituent) for locant in locants]]:
            sheet.line((corners[position - 1], ends[position - 1]), INK, weight)
            tone = ATOM_COLOURS.get(group, INK) if is_tinted else INK
            sheet.write(self.signs, group, *names_at[position - 1], size, tone)
        names = ",".join(str(locant) for locant in locants)
        double_zh, double_en = ("二", "di") if len(locants) > 1 else ("", "")
        name_zh = f"{names}-{double_zh}{SUBSTITUENTS[substituent][0]}{PARENTS[parent][0]}"
        name_en = f"{names}-{double_en}{SUBSTITUENTS[substituent][1]}{PARENTS[parent][1]}"
        return Picture(
            sheet.finish(),
            "molecule",
            make_facts({"thing": name_zh}, {"thing": name_en}),
            frozenset(("drawing", "white", "sided")),
        )

    def draw_solid(self, kind: str = "", sides: int = 0, colour: str = "") -> Picture:
        """Draw a prism, pyramid, bipyramid or antiprism from a random direction."""
        rng = self.rng
        kind, sides = (
            kind or rng.choice(("prism", "pyramid", "bipyramid", "antiprism")),
            sides or rng.choice(list(SIDES_ZH)),
        )
        colour = colour or rng.choice(("red", "yellow", "blue", "green", "orange", "light blue", "purple"))
        vertices, faces = make_solid(kind, sides, rng.uniform(0.8, 1.5))
        turned = vertices @ make_rotation(rng.uniform(0.35, 0.9), rng.uniform(0, 6.28), rng.uniform(-0.3, 0.3)).T
        sheet = Sheet(rng.randint(300, 360), rng.randint(300, 360))
        scale = 0.4 * min(sheet.width, sheet.height) / float(np.abs(turned[:, :2]).max())
        points = [(sheet.width / 2 + x * scale, sheet.height / 2 - y * scale) for x, y, _ in turned]
        tone = np.array(FLAG_COLOURS[colour][1])
        for face in sorted(faces, key=lambda face: float(turned[face, 2].mean())):
            normal = np.cross(turned[face[1]] - turned[face[0]], turned[face[2]] - turned[face[1]])
            light = 0.55 + 0.45 * abs(float(normal @ (0.4, 0.7, 0.6))) / (float(np.linalg.norm(normal)) + 1e-6)
            sheet.polygon(
                [points[index] for index in face],
                tuple(int(level) for level in np.minimum(255, tone * light + 20)),
                INK,
                1.2,
            )
        kinds = {
            "prism": ("{}棱柱", "{} prism"),
            "pyramid": ("{}棱锥", "{} pyramid"),
            "bipyramid": ("双{}棱锥", "{} bipyramid"),
            "antiprism": ("{}角反棱柱", "{} antiprism"),
        }
        name_en = kinds[kind][1].format(SIDES_EN[sides])
        name_zh = kinds[kind][0].format(SIDES_ZH[sides])
        num_faces = {"prism": sides + 2, "pyramid": sides + 1, "bipyramid": sides * 2, "antiprism": sides * 2 + 2}[kind]
        num_edges = {"prism": sides * 3, "pyramid": sides * 2, "bipyramid": sides * 3, "antiprism": sides * 4}[kind]
        shared = {"faces": str(num_faces), "edges": str(num_edges)}
        facts = make_facts(
            {"thing": name_zh, "colour": FLAG_COLOURS[colour][0] + "色", **shared},
            {"thing": name_en, "name": add_article(name_en), "colour": colour, **shared},
        )
        return Picture(sheet.finish(), "solid", facts, frozenset(("drawing", "white")))

    def draw_graph(self) -> Picture:
        """Plot a function."""
        rng = self.rng
        formula, a, b = self.draw_design(
            "graph",
            lambda: (rng.choice(list(FUNCTIONS)), rng.choice((0.5, 1, 1.5, 2, 2.5, 3)), rng.choice((1, 2, 3, 4))),
        )
        reach = rng.choice((3, 4, 5, 6))
        x = np.linspace(-reach, reach, 400)
        y = FUNCTIONS[formula](x, a, b)
        sheet = Sheet(rng.randint(310, 400), rng.randint(290, 360))
        unit_x, unit_y = sheet.width / (2.3 * reach), sheet.height / (2.3 * max(2.0, min(9.0, float(np.abs(y).max()))))
        center_x, center_y = sheet.width / 2, sheet.height / 2
        if rng.random() < 0.6:
            for tick in range(-reach, reach + 1):
                sheet.line(
                    ((center_x + tick * unit_x, 0), (center_x + tick * unit_x, sheet.height)), (216, 222, 230), 0.5
                )
            for tick in range(-9, 10):
                sheet.line(
                    ((0, center_y + tick * unit_y), (sheet.width, center_y + tick * unit_y)), (216, 222, 230), 0.5
                )
        sheet.line(((6, center_y), (sheet.width - 6, center_y)), INK, 1)
        sheet.line(((center_x, sheet.height - 6), (center_x, 6)), INK, 1)
        for tick in range(-reach + 1, reach, 2):
            sheet.write(self.signs, str(tick), center_x + tick * unit_x, center_y + 10, 10)
        sheet.line(
            list(zip(center_x + x * unit_x, center_y - y * unit_y, strict=True)),
            rng.choice(CHART_COLOURS),
            rng.choice((1.5, 2, 3)),
        )
        name = formula.format(a=f"{a:g}", b=f"{b:g}").replace("= 1x", "= x").replace("(1x)", "(x)").replace(" 1x", " x")
        if rng.random() < 0.5:
            sheet.write(
                self.signs,
                name.replace("²", "^2").replace("³", "^3").replace("−", "-"),
                sheet.width - 12,
                18,
                13,
                INK,
                "rm",
            )
        shared = {"thing": name, "low": str(-reach), "high": str(reach)}
        return Picture(sheet.finish(), "graph", make_facts(shared, shared), frozenset(("drawing", "white", "sided")))

    def draw_board(self, seed: int | None = None, moves: int | None = None) -> Picture:
        """Draw a Go board; the seed makes the game, so that more moves go on with it."""
        local = random.Random(self.rng.getrandbits(31) if seed is None else seed)  # noqa: S311
        size = local.choice((9, 13, 13, 19))
        side = local.randint(320, 390)
        step = side / (size + 1)
        sheet = Sheet(side, side, local.choice(((226, 178, 102), (238, 200, 140), (255, 255, 255))))
        for line in range(1, size + 1):
            sheet.line(((step, line * step), (size * step, line * step)), INK, 0.7)
            sheet.line(((line * step, step), (line * step, size * step)), INK, 0.7)
        for x in (4, size - 3) if size > 9 else (3, 7):
            for y in (4, size - 3) if size > 9 else (3, 7):
                sheet.disc(x * step, y * step, 2.2, INK)
        first = local.randint(8, 26)
        moves = first + (moves or 0)
        points: list[tuple[int, int]] = []
        while len(points) < first + 3:
            x, y = local.randint(1, size), local.randint(1, size)
            if points and local.random() < 0.7:  # most answers are close
                x, y = points[-1][0] + local.randint(-2, 2), points[-1][1] + local.randint(-2, 2)
            if 1 <= x <= size and 1 <= y <= size and (x, y) not in points:
                points.append((x, y))
        for index, (x, y) in enumerate(points[:moves]):
            sheet.disc(x * step, y * step, step * 0.47, INK if index % 2 == 0 else (250, 250, 248), INK, 0.7)
        x, y = points[moves - 1]
        sheet.disc(x * step, y * step, step * 0.17, (214, 40, 40))
        players = [texts.draw_place_name(local) for _ in range(2)]
        shared = {"move": str(moves), "stones": str(moves), "year": str(1960 + local.randrange(55))}
        names = [{"black": players[0][index], "white": players[1][index], **shared} for index in range(2)]
        return Picture(sheet.finish(), "board", make_facts(*names), frozenset(("drawing", "sided")))

    def draw_bridge(self) -> Picture:
        """Draw a bridge of one of four types from the side."""
        rng = self.rng
        kind, spans, tone = self.draw_design(
            "bridge",
            lambda: (
                rng.choice(("beam", "arch", "suspension", "cable-stayed")),
                rng.randint(1, 5),
                rng.choice(CHART_COLOURS),
            ),
        )
        sheet = Sheet(rng.randint(360, 440), rng.randint(220, 280))
        deck, water = sheet.height * 0.58, sheet.height * 0.84
        sheet.box(0, water, sheet.width, sheet.height, rng.choice(((176, 212, 236), (200, 226, 240))))
        edges = np.linspace(30, sheet.width - 30, spans + 1).tolist()
        for x in edges:
            tower = deck - (sheet.height * 0.38 if kind in ("suspension", "cable-stayed") else 0)
            sheet.box(x - 5, tower, x + 5, sheet.height - 14, tone)
        for left, right in itertools.pairwise(edges):
            middle, half = (left + right) / 2, (right - left) / 2
            xs = np.linspace(left, right, 41)
            if kind == "arch":
                sheet.line([(x, deck + (water - deck) * (((x - middle) / half) ** 2)) for x in xs], tone, 4)
            elif kind == "suspension":
                cable = [(x, deck - 8 - sheet.height * 0.3 * ((x - middle) / half) ** 2) for x in xs]
                sheet.line(cable, tone, 2)
                for x, y in cable[::4]:
                    sheet.line(((x, y), (x, deck)), tone, 0.7)
            elif kind == "cable-stayed":
                for x in xs[2:-2:3]:
                    top = left if x < middle else right
                    sheet.line(((top, deck - sheet.height * 0.34), (x, deck)), tone, 0.8)
            else:
                for x in xs[:-1:5]:
                    sheet.line(((x, deck + 14), (x + half / 4, deck)), tone, 1)
                sheet.line(((left, deck + 14), (right, deck + 14)), tone, 2)
        sheet.box(0, deck - 4, sheet.width, deck + 3, INK)
        names = {
            "beam": ("桁架梁桥", "truss beam bridge"),
            "arch": ("拱桥", "arch bridge"),
            "suspension": ("悬索桥", "suspension bridge"),
            "cable-stayed": ("斜拉桥", "cable-stayed bridge"),
        }
        spans_zh = ("", "单", "双", "三", "四", "五")[spans]
        spans_en = ("", "one span", "two spans", "three spans", "four spans", "five spans")[spans]
        facts = make_facts(
            {"name": f"{spans_zh}跨{names[kind][0]}"}, {"name": f"{add_article(names[kind][1])} of {spans_en}"}
        )
        return Picture(sheet.finish(), "diagram", facts, frozenset(("drawing",)))

    def draw_locomotive(self, wheels: tuple[int, int, int] | None = None, style: int | None = None) -> Picture:
        """Draw a steam locomotive with so many leading, driving and trailing axles."""
        rng = self.rng
        lead, drive, trail = wheels or (rng.randint(0, 2), rng.randint(2, 5), rng.randint(0, 2))
        local = random.Random(rng.getrandbits(31) if style is None else style)  # noqa: S311
        body, trim = (
            local.choice(((36, 60, 44), (30, 30, 34), (110, 30, 34), (34, 56, 100), (90, 92, 96))),
            local.choice(((200, 40, 40), (60, 60, 64))),
        )
        sheet = Sheet(local.randint(380, 440), local.randint(220, 270), local.choice((WHITE, (246, 240, 224))))
        ground = sheet.height - 34
        large, small = local.uniform(20, 25), local.uniform(10, 12.5)
        length = lead * small * 2.3 + drive * large * 2.1 + trail * small * 2.3
        start = (sheet.width - length) / 2
        top = ground - large * 2 - 6
        height = local.uniform(44, 56)
        sheet.box(start - 6, top - 4, start + length + 14, top + 10, trim)
        sheet.box(start, top - height, start + length - 50, top - 4, body, INK, 1)
        sheet.disc(start, top - 4 - height / 2, height / 2, body, INK, 1)
        sheet.box(start + length - 62, top - height - 26, start + length + 10, top, body, INK, 1)
        sheet.box(
            start + length - 44, top - height - 14, start + length - 14, top - height + 8, (214, 226, 234), INK, 1
        )
        sheet.box(start + 16, top - height - local.uniform(24, 36), start + 34, top - height, body, INK, 1)
        for dome in range(local.randint(1, 3)):
            sheet.disc(start + length * (0.4 + 0.14 * dome), top - height, 11, body, INK, 1)
        x = start
        centers = []
        for count, radius in ((lead, small), (drive, large), (trail, small)):
            for _ in range(count):
                x += radius * 1.05
                sheet.disc(x, ground - radius, radius, trim, INK, 2)
                for turn in np.linspace(0, math.pi, 5)[:-1]:
                    dx, dy = radius * 0.9 * math.cos(turn), radius * 0.9 * math.sin(turn)
                    sheet.line(((x - dx, ground - radius - dy), (x + dx, ground - radius + dy)), INK, 0.8)
                if radius == large:
                    centers.append((x, ground - radius + 5))
                x += radius * 1.1
        sheet.line(centers, (170, 172, 176), 4)
        sheet.line(((10, ground + 2), (sheet.width - 10, ground + 2)), INK, 3)
        name = f"{lead * 2}-{drive * 2}-{trail * 2}"
        facts = make_facts(
            {"name": f"轮式为{name}的蒸汽机车"}, {"name": f"a steam locomotive of wheel arrangement {name}"}
        )
        return Picture(sheet.finish(), "diagram", facts, frozenset(("drawing",)))

    def draw_plan(self) -> Picture:
        """Draw the ground plan of a church or a temple."""
        rng = self.rng
        sheet = Sheet(rng.randint(300, 360), rng.randint(340, 420), rng.choice((WHITE, (250, 244, 230))))
        middle, top, bottom = sheet.width / 2, 40, sheet.height - 30
        bays, half = rng.randint(3, 8), rng.uniform(44, 70)
        wall = rng.choice((INK, (120, 30, 30), (60, 70, 110)))
        is_church = rng.random() < 0.6
        if is_church:
            crossing = top + (bottom - top) * 0.3
            arm = half + rng.uniform(14, 60)
            for side in (-1, 1):
                sheet.line(
                    (
                        (middle + side * half, bottom),
                        (middle + side * half, crossing + 28),
                        (middle + side * arm, crossing + 28),
                        (middle + side * arm, crossing - 28),
                        (middle + side * half, crossing - 28),
                        (middle + side * half, top + half),
                    ),
                    wall,
                    5,
                )
            sheet.arc(middle, top + half, half, 180, 360, wall, 5)
            sheet.line(((middle - half, bottom), (middle - 14, bottom)), wall, 5)
            sheet.line(((middle + half, bottom), (middle + 14, bottom)), wall, 5)
            rows = np.linspace(crossing + 40, bottom - 20, bays)
            name_zh, name_en = f"有{bays}个开间的十字形教堂", f"a cruciform church with {bays} bays"
        else:
            sheet.box(middle - half - 46, top, middle + half + 46, bottom, outline=wall, width=2)
            sheet.box(middle - half + 14, top + 50, middle + half - 14, bottom - 60, outline=wall, width=4)
            sheet.line(((middle - 12, bottom - 60), (middle + 12, bottom - 60)), WHITE, 5)
            rows = np.linspace(top + 16, bottom - 16, bays + 3)
            for x in np.linspace(middle - half - 30, middle + half + 30, 6)[1:-1]:
                sheet.disc(x, top + 16, 6, wall)
                sheet.disc(x, bottom - 16, 6, wall)
            name_zh, name_en = (
                f"侧面有{bays + 3}根柱的围柱式神庙",
                f"a peripteral temple with {bays + 3} columns at the side",
            )
        for y in rows.tolist():
            for side in (-1, 1):
                sheet.disc(middle + side * (half * 0.5 if is_church else half + 30), y, 5 if is_church else 6, wall)
        sheet.line(((20, sheet.height - 12), (100, sheet.height - 12)), INK, 2)
        sheet.write(self.signs, f"{rng.choice((5, 10, 20))} m", 120, sheet.height - 12, 10)
        return Picture(
            sheet.finish(), "plan", make_facts({"name": name_zh}, {"name": name_en}), frozenset(("drawing",))
        )

    def draw_elevation(self, style: int | None = None, floors: int = 0) -> Picture:
        """Draw the front of a house with so many floors."""
        local = random.Random(self.rng.getrandbits(31) if style is None else style)  # noqa: S311
        drawn_floors, bays = local.randint(2, 5), local.randint(3, 7)
        floors = floors or drawn_floors
        wall = local.choice(
            ((232, 214, 180), (206, 140, 116), (222, 222, 216), (240, 226, 150), (176, 196, 206), (255, 255, 255))
        )
        roof = local.choice(((130, 60, 46), (84, 88, 96), (70, 96, 80)))
        sheet = Sheet(local.randint(330, 400), local.randint(320, 390), local.choice((WHITE, (244, 240, 228))))
        left, right, ground = 36, sheet.width - 36, sheet.height - 24
        storey = (sheet.height - 120) / max(floors, 4)
        top = ground - storey * floors
        sheet.box(left, top, right, ground, wall, INK, 1.2)
        if local.random() < 0.5:
            sheet.polygon(
                ((left - 12, top), (left + 34, top - 52), (right - 34, top - 52), (right + 12, top)), roof, INK, 1.2
            )
        else:
            sheet.polygon(((left - 8, top), (sheet.width / 2, top - 70), (right + 8, top)), roof, INK, 1.2)
        step = (right - left) / bays
        is_round, pane = local.random() < 0.4, local.choice(((120, 148, 170), (70, 84, 100), (200, 216, 226)))
        door = local.randrange(bays)
        for floor in range(floors):
            for bay in range(bays):
                x, y = left + step * (bay + 0.5), top + storey * (floor + 0.5)
                half = min(step * 0.24, storey * 0.2)
                if floor == floors - 1 and bay == door:
                    sheet.box(x - half * 1.2, y - storey * 0.25, x + half * 1.2, ground, (96, 62, 40), INK, 1.2)
                    continue
                sheet.box(x - half, y - storey * 0.26, x + half, y + storey * 0.26, pane, INK, 1)
                if is_round:
                    sheet.disc(x, y - storey * 0.26, half, pane, INK, 1)
                sheet.line(((x, y - storey * 0.26), (x, y + storey * 0.26)), WHITE, 1)
            sheet.line(((left, top + storey * floor), (right, top + storey * floor)), INK, 0.8)
        sheet.line(((8, ground), (sheet.width - 8, ground)), INK, 2.5)
        floors_zh = ("", "一", "二", "三", "四", "五")[floors]
        floors_en = ("", "one", "two", "three", "four", "five")[floors]
        facts = make_facts(
            {"name": f"{floors_zh}层{bays}开间的房屋"},
            {"name": f"{add_article(floors_en + '-storey house')} with {bays} bays"},
        )
        return Picture(sheet.finish(), "elevation", facts, frozenset(("drawing",)))

    def draw_circuit(self) -> Picture:
        """Draw resistors and lamps in series or in parallel with a battery."""
        rng = self.rng
        is_parallel, kinds = self.draw_design(
            "circuit",
            lambda: (rng.random() < 0.5, tuple(rng.choice(("resistor", "lamp")) for _ in range(rng.randint(2, 5)))),
        )
        count = len(kinds)
        sheet = Sheet(rng.randint(340, 420), rng.randint(240, 320))
        left, right, top, bottom = 50, sheet.width - 40, 50, sheet.height - 40
        sheet.line(((left, top), (right, top), (right, bottom), (left, bottom), (left, top)), INK, 1.8)
        middle = (top + bottom) / 2
        sheet.box(left - 20, middle - 9, left + 20, middle + 9, WHITE)
        sheet.line(((left - 18, middle - 9), (left + 18, middle - 9)), INK, 1.8)
        sheet.line(((left - 9, middle + 9), (left + 9, middle + 9)), INK, 4)
        for index, kind in enumerate(kinds):
            if is_parallel:
                x, y = left + (right - left) * (index + 1) / count, middle
                sheet.line(((x, top), (x, bottom)), INK, 1.8)
            else:
                x, y = left + (right - left) * (index + 0.5) / count, top
            if kind == "lamp":
                sheet.disc(x, y, 14, WHITE, INK, 1.8)
                sheet.line(((x - 10, y - 10), (x + 10, y + 10)), INK, 1.5)
                sheet.line(((x - 10, y + 10), (x + 10, y - 10)), INK, 1.5)
            else:
                dx, dy = (8, 22) if is_parallel else (22, 8)
                sheet.box(x - dx, y - dy, x + dx, y + dy, WHITE, INK, 1.8)
            at = (x + 26, y) if is_parallel else (x, y - 26)
            sheet.write(
                self.signs,
                ("L" if kind == "lamp" else "R") + str(index + 1),
                at[0] - (6 if is_parallel else 0),
                at[1],
                13,
            )
        lamps, resistors = kinds.count("lamp"), kinds.count("resistor")
        way_zh, way_en = ("并联", "in parallel") if is_parallel else ("串联", "in series")
        parts_zh = "和".join(
            word for word in (f"{resistors}个电阻" if resistors else "", f"{lamps}个灯泡" if lamps else "") if word
        )
        plural_r, plural_l = "s" if resistors > 1 else "", "s" if lamps > 1 else ""
        parts_en = " and ".join(
            word
            for word in (
                f"{resistors} resistor{plural_r}" if resistors else "",
                f"{lamps} lamp{plural_l}" if lamps else "",
            )
            if word
        )
        facts = make_facts({"name": f"{parts_zh}{way_zh}的电路"}, {"name": f"a circuit of {parts_en} {way_en}"})
        return Picture(sheet.finish(), "diagram", facts, frozenset(("drawing", "white")))

    def draw_gears(self) -> Picture:
        """Draw two or three gears that mesh."""
        rng = self.rng
        counts = self.draw_design(
            "gears", lambda: tuple(rng.choice((8, 10, 12, 14, 16, 18, 20, 24)) for _ in range(rng.randint(2, 3)))
        )
        sheet = Sheet(rng.randint(360, 440), rng.randint(250, 310))
        module = (sheet.width - 60) / sum(counts)
        x = 30.0
        colours = rng.sample(CHART_COLOURS, 3)
        for index, count in enumerate(counts):
            radius = min(count * module / 2, sheet.height * 0.44)
            x += count * module / 2
            outline = []
            for tooth in range(count * 4):
                level = 1.07 if tooth % 4 in (0, 1) else 0.93
                turn = 2 * math.pi * (tooth / (count * 4) + index * 0.5 / count)
                outline.append(
                    (x + radius * level * math.cos(turn), sheet.height / 2 + radius * level * math.sin(turn))
                )
            sheet.polygon(outline, colours[index], INK, 1.2)
            sheet.disc(x, sheet.height / 2, radius * 0.2, WHITE, INK, 1.2)
            sheet.write(self.signs, str(count), x, sheet.height / 2 + radius * 0.55, 14, WHITE)
            x += count * module / 2
        names = [str(count) for count in counts]
        facts = make_facts(
            {"name": f"齿数为{'、'.join(names)}的啮合齿轮"},
            {"name": f"meshing gears with {', '.join(names[:-1])} and {names[-1]} teeth"},
        )
        return Picture(sheet.finish(), "diagram", facts, frozenset(("drawing", "white")))

    def draw_symbol(self, series: str = "") -> Picture:
        """Draw a sign of a series that was not drawn yet: a hexagram, a domino tile or a letter in semaphore."""
        choices = [symbol for symbol in self.symbols if series in ("", symbol[0])]
        if not choices:
            return self.draw_flag()
        self.symbols.remove(choices[0])
        series, index = choices[0]
        draw = {"hexagram": self._draw_hexagram, "domino": self._draw_domino, "semaphore": self._draw_semaphore}[series]
        image, name_zh, name_en = draw(index)
        titles = {
            "hexagram": ("易经六十四卦", "I Ching"),
            "domino": ("多米诺骨牌", "domino set"),
            "semaphore": ("旗语", "flag semaphore"),
        }
        title_zh, title_en = titles[series]
        facts = make_facts({"thing": name_zh, "series": title_zh}, {"thing": name_en, "series": title_en})
        return Picture(image, "symbol", facts, frozenset(("drawing", "white", "sided")))

    def _draw_hexagram(self, index: int) -> tuple[Image.Image, str, str]:
        lower, upper = divmod(index, 8)
        word = HEXAGRAMS[lower].split(" ")[upper]
        number = "".join(letter for letter in word if letter.isdigit())
        sheet = Sheet(300, 300)
        bits = TRIGRAMS[lower][1] | TRIGRAMS[upper][1] << 3
        for line in range(6):
            y = 246 - line * 38
            sheet.box(50, y - 11, 250, y + 11, INK)
            if not bits >> line & 1:
                sheet.box(133, y - 12, 167, y + 12, WHITE)
        return sheet.finish(), f"第{number}卦{word.removeprefix(number)}", f"hexagram {number}"

    def _draw_domino(self, index: int) -> tuple[Image.Image, str, str]:
        pairs = [(first, second) for first in range(7) for second in range(first, 7)]
        spots = {0: (), 1: (4,), 2: (0, 8), 3: (0, 4, 8), 4: (0, 2, 6, 8), 5: (0, 2, 4, 6, 8), 6: (0, 2, 3, 5, 6, 8)}
        sheet = Sheet(360, 220)
        sheet.box(30, 35, 330, 185, (250, 248, 240), INK, 3)
        sheet.line(((180, 45), (180, 175)), INK, 2)
        for half, value in enumerate(pairs[index]):
            for spot in spots[value]:
                sheet.disc(30 + half * 150 + 35 + spot % 3 * 40, 70 + spot // 3 * 40, 12, INK)
        first, second = pairs[index]
        return sheet.finish(), f"{first}点对{second}点骨牌", f"domino tile {first}-{second}"

    def _draw_semaphore(self, index: int) -> tuple[Image.Image, str, str]:
        # Positions of both flags in eighths of a turn, clockwise from straight down as the reader sees them.
        pairs = (
            "01",
            "02",
            "03",
            "04",
            "05",
            "06",
            "07",
            "12",
            "13",
            "46",
            "14",
            "15",
            "16",
            "17",
            "23",
            "24",
            "25",
            "26",
            "27",
            "34",
            "35",
            "47",
            "56",
            "57",
            "36",
            "67",
        )
        letter = chr(ord("A") + index)
        sheet = Sheet(300, 320)
        sheet.disc(150, 92, 24, (236, 190, 150), INK)
        sheet.polygon(((122, 122), (178, 122), (172, 220), (128, 220)), (40, 60, 120), INK)
        for x in (136, 164):
            sheet.line(((x, 220), (x, 300)), INK, 12)
        for position in pairs[index]:
            turn = int(position) * math.pi / 4
            dx, dy = -math.sin(turn), math.cos(turn)
            hand = (150 + dx * 84, 145 + dy * 84)
            sheet.line(((150, 145), hand), (40, 60, 120), 9)
            end = (hand[0] + dx * 50, hand[1] + dy * 50)
            side = (-dy * 46, dx * 46)
            sheet.polygon((hand, end, (end[0] + side[0], end[1] + side[1])), (214, 30, 40), INK)
            sheet.polygon(
                (hand, (end[0] + side[0], end[1] + side[1]), (hand[0] + side[0], hand[1] + side[1])),
                (252, 209, 22),
                INK,
            )
        return sheet.finish(), f"旗语字母{letter}", f"semaphore letter {letter}"


# ---------------------------------------------------------------------------------------------------------------------
# Geometry


def make_pictogram(drawing: Image.Image, side: int) -> Image.Image:
    """Return the mask of a figure in one colour, with gaps where the drawing has inner lines."""
    enlarged = drawing.resize((side, side), Image.Resampling.LANCZOS)
    solid = (np.asarray(enlarged.getchannel("A")) > 110).astype(np.uint8)
    colours = cv2.GaussianBlur(np.asarray(enlarged.convert("RGB")), (0, 0), side / 110)
    edges = np.maximum.reduce([cv2.Canny(colours[..., channel], 40, 90) for channel in range(3)])
    # Lines along the outline would only make the figure thinner.
    inside = cv2.erode(solid, np.ones((3, 3)), iterations=max(1, side // 45))
    gaps = cv2.dilate(edges, np.ones((3, 3))) * inside
    return Image.fromarray(np.where(gaps > 0, 0, solid * 255).astype(np.uint8))


def make_polygon(x: float, y: float, radius: float, sides: int, start: float) -> list[Point]:
    turns = [math.radians(start + 360 * side / sides) for side in range(sides)]
    return [(x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns]


def make_star(x: float, y: float, radius: float, rays: int) -> list[Point]:
    outer = make_polygon(x, y, radius, rays, -90)
    inner = make_polygon(x, y, radius * 0.4, rays, -90 + 180 / rays)
    return [point for pair in zip(outer, inner, strict=True) for point in pair]


def make_rotation(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """Return the matrix that turns about the vertical axis, then towards the viewer, then in the picture."""
    about_y = np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, math.cos(pitch), -math.sin(pitch)], [0, math.sin(pitch), math.cos(pitch)]])
    about_z = np.array([[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


def make_solid(kind: str, sides: int, height: float) -> tuple[np.ndarray, list[list[int]]]:
    """Return corners, and faces as lists of corners; the base is a regular polygon."""
    ring = np.array(make_polygon(0, 0, 1, sides, 0))
    lower = np.column_stack([ring[:, 0], np.full(sides, -height / 2), ring[:, 1]])
    if kind in ("pyramid", "bipyramid"):
        level = lower + np.array((0, height / 2 if kind == "bipyramid" else 0, 0))
        tips = np.array([[0, height / 2 * 1.3, 0], [0, -height / 2 * 1.3, 0]])
        vertices = np.vstack([level, tips])
        faces = [[index, (index + 1) % sides, sides] for index in range(sides)]
        if kind == "pyramid":
            return vertices[:-1], [*faces, list(range(sides))]
        lower_faces = [[index, (index + 1) % sides, sides + 1] for index in range(sides)]
        return vertices, [*faces, *lower_faces]
    shifted = np.array(make_polygon(0, 0, 1, sides, 180 / sides if kind == "antiprism" else 0))
    upper = np.column_stack([shifted[:, 0], np.full(sides, height / 2), shifted[:, 1]])
    faces = [list(range(sides)), list(range(sides, 2 * sides))]
    for index in range(sides):
        after = (index + 1) % sides
        if kind == "prism":
            faces.append([index, after, sides + after, sides + index])
        else:
            faces += [[index, after, sides + index], [after, sides + after, sides + index]]
    return np.vstack([lower, upper]), faces
