"""Pictures of a second-hand market: listings with what they show, pictures without content, and changes of reposts."""

import io
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import classifieds_texts as texts
import cv2
import numpy as np
from classifieds_models import (
    BUILDERS,
    CAR_BODIES,
    COUNTS,
    HEIGHTS,
    Camera,
    Colour,
    Face,
    Model,
    Size,
    Stage,
    build_bicycle,
    build_car,
    build_wardrobe,
    take_picture,
)
from magazine_pictures import make_open_web_photograph
from making import (
    WHITE,
    Drawing,
    Photo,
    Signs,
    add_noise,
    blur,
    change_brightness,
    change_gamma,
    change_saturation,
    crop_margins,
    encode_image,
    is_solid,
    make_gradient,
    make_smooth_noise,
    mirror,
    paste_drawing,
    pixelate,
    read_drawings,
    recompress,
    resize_by,
    tint,
    turn,
)
from PIL import Image, ImageDraw, ImageFile, ImageFilter, ImageOps
from travel_pictures import Facts, join_facts, state
from travel_pictures import make_photograph as make_view_photograph

SIZES = ((480, 360), (360, 480), (420, 420), (500, 375), (560, 420), (400, 534), (540, 405))
INK = (34, 34, 36)


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

    def write_caption(self, language: str, rng: random.Random) -> str:
        """Write one of the many captions that describe this picture."""
        return texts.GRAMMARS[language].expand(self.topic, self.facts[language], rng).strip()


@dataclass(frozen=True)
class Shot:
    """A thing where it stands, with the camera that takes it."""

    model: Model
    stage: Stage
    camera: Camera
    topic: str
    facts: Facts

    def develop(self, rng: random.Random) -> Scene:
        image = develop_phone_photo(take_picture(self.model, self.stage, self.camera), rng)
        return Scene(image, self.topic, self.facts)

    def step_aside(self, rng: random.Random) -> "Shot":
        """Take the same thing from another side."""
        turned = rng.uniform(17, 32)
        yaw = self.camera.yaw + (turned if self.camera.yaw < 0 else -turned)
        pitch = min(78.0, max(4.0, self.camera.pitch + rng.choice((-9, -6, 6, 9))))
        distance = self.camera.distance * rng.uniform(0.85, 1.1)
        return replace(self, camera=replace(self.camera, yaw=yaw, pitch=pitch, distance=distance))


def name_thing(name_zh: str, name_en: str) -> Facts:
    """Return the facts that name a thing; English with its article, or a plural without."""
    bare = name_en
    for article in ("a pair of ", "a set of ", "an ", "a "):
        if bare.startswith(article):
            bare = bare.removeprefix(article)
            break
    return state(thing=(name_zh, bare), a_thing=(name_zh, name_en))


def develop_phone_photo(image: Image.Image, rng: random.Random) -> Image.Image:
    """Give a picture the light, the cast and the grain of a telephone, sometimes of its flash."""
    noise = np.random.default_rng(rng.getrandbits(32))
    height, width = image.height, image.width
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None]
    falloff = rng.choice((0.04, 0.1, 0.16, 0.34))  # the last is a flash
    light = rng.uniform(0.92, 1.1) * (1 + rng.uniform(-0.1, 0.1) * columns + rng.uniform(-0.08, 0.08) * rows)
    light = light * (1 - falloff * (rows**2 + columns**2) / 2)
    warmth = rng.uniform(-0.07, 0.07)
    cast = np.array((1 + warmth, 1, 1 - warmth), np.float32)
    pixels = np.asarray(image, np.float32) * light[..., None] * cast
    pixels += noise.standard_normal((height, width, 1), np.float32) * rng.uniform(1.5, 5)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def join_words(words: list[str], language: str) -> str:
    if language == "zh":
        return "、".join(words)
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


# ---------------------------------------------------------------------------------------------------------------------
# Drawings as small goods, and clothes


class Cupboard:
    """The drawings that stand for small goods, by sort.

    Args:
        names: shards of demo_data.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        sort_of_name = {name: sort for sort, listed in texts.SMALL_GOODS.items() for name in listed.split("|")}
        self.sorts: dict[str, list[Drawing]] = {}
        for shard in names:
            for drawing in read_drawings(shard, sort_of_name):
                if is_solid(drawing.image):
                    self.sorts.setdefault(sort_of_name[drawing.name_en], []).append(drawing)

    def draw(self, rng: random.Random, sort: str | None = None) -> Drawing:
        return rng.choice(self.sorts[sort or rng.choice(sorted(self.sorts))])


def name_small(drawing: Drawing) -> tuple[str, str]:
    """Return the Chinese name and the English phrase of a drawing as it is sold."""
    zh = texts.SMALL_NAMES_ZH.get(drawing.name_en, drawing.name_zh)
    en = texts.SMALL_NAMES_EN.get(drawing.name_en, texts.add_article(drawing.name_en))
    return zh, en


def enlarge(drawing: Image.Image, side: int = 300) -> Image.Image:
    """Cut a drawing to its outline and enlarge it."""
    trimmed = drawing.crop(drawing.getchannel("A").point(lambda level: 255 * (level > 60)).getbbox())
    factor = side / max(trimmed.size)
    return trimmed.resize((round(trimmed.width * factor), round(trimmed.height * factor)), Image.Resampling.LANCZOS)


# Outlines in shares of width and height.
OUTLINES: dict[str, list[tuple[float, float]]] = {
    "tshirt": [
        (0.36, 0.06),
        (0.42, 0.1),
        (0.58, 0.1),
        (0.64, 0.06),
        (0.8, 0.12),
        (0.98, 0.34),
        (0.84, 0.43),
        (0.76, 0.34),
        (0.77, 0.96),
        (0.23, 0.96),
        (0.24, 0.34),
        (0.16, 0.43),
        (0.02, 0.34),
        (0.2, 0.12),
    ],
    "sweater": [
        (0.38, 0.05),
        (0.44, 0.08),
        (0.56, 0.08),
        (0.62, 0.05),
        (0.78, 0.12),
        (0.98, 0.82),
        (0.86, 0.86),
        (0.76, 0.44),
        (0.76, 0.92),
        (0.24, 0.92),
        (0.24, 0.44),
        (0.14, 0.86),
        (0.02, 0.82),
        (0.22, 0.12),
    ],
    "shirt": [
        (0.4, 0.04),
        (0.5, 0.11),
        (0.6, 0.04),
        (0.76, 0.11),
        (0.95, 0.78),
        (0.84, 0.82),
        (0.74, 0.42),
        (0.75, 0.95),
        (0.5, 0.98),
        (0.25, 0.95),
        (0.26, 0.42),
        (0.16, 0.82),
        (0.05, 0.78),
        (0.24, 0.11),
    ],
    "dress": [
        (0.36, 0.03),
        (0.42, 0.14),
        (0.58, 0.14),
        (0.64, 0.03),
        (0.7, 0.06),
        (0.66, 0.38),
        (0.92, 0.96),
        (0.5, 0.98),
        (0.08, 0.96),
        (0.34, 0.38),
        (0.3, 0.06),
    ],
    "skirt": [(0.32, 0.08), (0.68, 0.08), (0.72, 0.2), (0.95, 0.92), (0.5, 0.96), (0.05, 0.92), (0.28, 0.2)],
    "trousers": [
        (0.28, 0.03),
        (0.72, 0.03),
        (0.8, 0.3),
        (0.78, 0.97),
        (0.58, 0.97),
        (0.51, 0.34),
        (0.49, 0.34),
        (0.42, 0.97),
        (0.22, 0.97),
        (0.2, 0.3),
    ],
    "shorts": [
        (0.26, 0.12),
        (0.74, 0.12),
        (0.86, 0.78),
        (0.56, 0.82),
        (0.51, 0.46),
        (0.49, 0.46),
        (0.44, 0.82),
        (0.14, 0.78),
    ],
    "coat": [
        (0.38, 0.03),
        (0.5, 0.2),
        (0.62, 0.03),
        (0.78, 0.09),
        (0.94, 0.7),
        (0.83, 0.74),
        (0.76, 0.42),
        (0.82, 0.97),
        (0.18, 0.97),
        (0.24, 0.42),
        (0.17, 0.74),
        (0.06, 0.7),
        (0.22, 0.09),
    ],
}


def cut_cloth(garment: str, pattern: str, colour: Colour, second: Colour, seed: int) -> Image.Image:
    """Draw a garment of a patterned cloth with folds, RGBA."""
    noise = np.random.default_rng(seed)
    width, height = 340, 380
    cloth = np.tile(np.array(colour, np.float32), (height, width, 1))
    step = int(noise.integers(14, 34))
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    is_second = np.zeros((height, width), bool)
    if pattern == "stripes":
        is_second = np.broadcast_to(rows % step < step // 2, (height, width))
    elif pattern == "pinstripes":
        is_second = np.broadcast_to(columns % step < max(3, step // 6), (height, width))
    elif pattern == "checks":
        is_second = (rows % step < step // 2) ^ (columns % step < step // 2)
    elif pattern == "dots":
        shifted = columns + (rows // step % 2) * (step // 2)
        is_second = (rows % step - step / 2) ** 2 + (shifted % step - step / 2) ** 2 < (step * 0.27) ** 2
    cloth[is_second] = second
    folds = make_smooth_noise(noise, height, width, (3, 5), 0.5)
    weave = make_smooth_noise(noise, height, width, (90, 90), 0.5)
    cloth *= (1 + folds * 0.06 + weave * 0.02)[..., None]

    outline = np.array([(x * width, y * height) for x, y in OUTLINES[garment]])
    outline += noise.normal(0, 3.5, outline.shape)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.round(outline * 8).astype(np.int32)], 255, cv2.LINE_AA, 3)
    mask = cv2.GaussianBlur(mask, (0, 0), 3)
    mask = np.clip((mask.astype(np.float32) - 110) * 9, 0, 255).astype(np.uint8)  # rounds the corners
    edge = cv2.GaussianBlur(mask, (0, 0), 6).astype(np.float32) / 255
    cloth *= (0.72 + 0.28 * edge)[..., None]

    image = Image.fromarray(np.clip(cloth, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    seam = tuple(int(level * 0.6) for level in colour)
    if garment in ("shirt", "coat"):
        top = 0.12 if garment == "shirt" else 0.2
        draw.line([(width / 2, top * height), (width / 2, 0.96 * height)], fill=seam, width=2)
        for y in np.linspace(top + 0.06, 0.88, 6):
            draw.ellipse((width / 2 + 5, y * height, width / 2 + 12, y * height + 7), fill=seam)
    elif garment in ("trousers", "shorts", "skirt"):
        y = min(y for _, y in OUTLINES[garment]) + 0.06
        draw.line([(0.2 * width, y * height), (0.8 * width, y * height)], fill=seam, width=3)
    elif garment in ("tshirt", "sweater"):
        draw.arc((0.38 * width, 0.0, 0.62 * width, 0.14 * height), 20, 160, fill=seam, width=4)
    image.putalpha(Image.fromarray(mask))
    return image


# ---------------------------------------------------------------------------------------------------------------------
# Listings


@dataclass(frozen=True)
class FurnitureSpec:
    """What a piece of furniture looks like; `seed` draws its proportions and details."""

    kind: str
    colour: str
    count: int
    seed: int
    is_open: bool = False


def name_furniture(spec: FurnitureSpec) -> tuple[str, str]:
    """Return what a piece of furniture is called in Chinese and English, with its article."""
    colour_zh, colour_en = texts.COLOURS[spec.colour][0], spec.colour
    template_zh, template_en, _ = texts.FURNITURE[spec.kind]
    count_zh, count_en = texts.ZH_NUMBERS[spec.count], texts.EN_NUMBERS[spec.count]
    is_plural = spec.kind in ("chair", "washer", "suitcase", "lamp") and spec.count > 1
    if spec.count == 0 or (spec.count == 1 and spec.kind in texts.SINGULAR):
        template_zh, template_en = texts.SINGULAR[spec.kind]
    if spec.kind == "bed" and spec.count > 1:
        template_zh = "{colour}双人床架配床垫"
    zh = template_zh.format(colour=colour_zh, count=count_zh)
    en = template_en.format(colour=colour_en, count=count_en)
    if spec.is_open:
        zh, en = f"柜门打开的{zh}", f"{en} and its outer doors open"
    return zh, en if is_plural else texts.add_article(en)


TOPIC_OF_FURNITURE = {"fridge": "appliance", "washer": "appliance", "lamp": "lamp_topic", "suitcase": "case_topic"}


@dataclass
class Studio:
    """Photographs goods, rooms, vehicles and papers as their owners do."""

    cupboard: Cupboard
    signs: Signs
    rng: random.Random
    views: list[Image.Image] = field(default_factory=list)  # photographs that windows, backdrops and pictures show

    def make_any(self) -> Scene:
        """Compose one of the usual listings."""
        makers: tuple[tuple[Callable[[], Scene], int], ...] = (
            (lambda: self.shoot_furniture().develop(self.rng), 26),
            (lambda: self.shoot_room().develop(self.rng), 9),
            (lambda: self.shoot_clothes().develop(self.rng), 16),
            (lambda: self.shoot_bicycle().develop(self.rng), 9),
            (lambda: self.shoot_car().develop(self.rng), 10),
            (lambda: self.shoot_small().develop(self.rng), 30),
        )
        make = self.rng.choices([maker for maker, _ in makers], [weight for _, weight in makers])[0]
        return make()

    # -- where it stands ----------------------------------------------------------------------------------------------

    def draw_stage(self, back: float, reach: float = 5.5, floors: tuple[str, ...] = ()) -> tuple[Stage, Facts]:
        """Draw floor and walls of a home."""
        rng = self.rng
        floor, wall = rng.choice(floors or tuple(texts.FLOORS)), rng.choice(("plaster", *texts.WALLS))
        floor_zh, floor_en, floor_colours = texts.FLOORS[floor]
        wall_zh, wall_en, wall_colours = texts.WALLS[wall]
        material = "plaster" if wall == "paint" else wall
        light = (rng.uniform(-0.7, 0.7), rng.uniform(0.6, 1), rng.uniform(-0.8, -0.3))
        stage = Stage(
            (floor, rng.choice(floor_colours)),
            (material, rng.choice(wall_colours)),
            back,
            reach,
            light=light,
            height=rng.uniform(2.4, 3.0),
            variant=rng.randrange(6),
        )
        return stage, state(floor=(floor_zh, floor_en), wall=(wall_zh, wall_en))

    def take_view(self, size: Size) -> Image.Image:
        """Cut one of the photographs at hand to a size, each time another part of it."""
        view = crop_margins(self.rng.choice(self.views), 0.25, self.rng)
        return ImageOps.fit(view, size)

    # -- furniture ----------------------------------------------------------------------------------------------------

    def draw_furniture(self, kind: str | None = None) -> FurnitureSpec:
        rng = self.rng
        kind = kind or rng.choice(sorted(BUILDERS))
        return FurnitureSpec(kind, rng.choice(texts.FURNITURE[kind][2]), rng.choice(COUNTS[kind]), rng.getrandbits(31))

    def build_furniture(self, spec: FurnitureSpec) -> Model:
        colour = texts.COLOURS[spec.colour][1]
        rng = random.Random(spec.seed)  # noqa: S311
        if spec.is_open:
            return build_wardrobe(colour, spec.count, rng, is_open=True)
        return BUILDERS[spec.kind](colour, spec.count, rng)

    def shoot_furniture(self, spec: FurnitureSpec | None = None, has_clutter: bool = True) -> Shot:
        """Photograph a piece of furniture in a room."""
        rng = self.rng
        spec = spec or self.draw_furniture()
        furniture = self.build_furniture(spec)
        depth = max(z1 for _, _, _, z1 in furniture.footprints)
        half = max(abs(x) for x0, x1, _, _ in furniture.footprints for x in (x0, x1))
        stage, facts = self.draw_stage(depth + rng.choice((0.03, 0.1, 0.3, 0.8)))
        if rng.random() < 0.3:
            stage = replace(stage, left=-half - rng.uniform(0.1, 1.4))
        elif rng.random() < 0.4:
            stage = replace(stage, right=half + rng.uniform(0.1, 1.4))
        model = Model()
        model.add_model(furniture)
        if has_clutter and rng.random() < 0.45:
            self.add_clutter(model, half, stage)
        high = HEIGHTS[spec.kind]
        extent = max(high, half * 1.5, 0.8)
        size = self.draw_size(high > half * 2)
        camera = Camera(
            rng.uniform(-32, 32),
            rng.uniform(5, 24),
            extent * rng.uniform(1.35, 1.75) + 0.9,
            (rng.uniform(-0.12, 0.12), high * 0.46, depth / 2),
            size,
            roll=rng.uniform(-2.5, 2.5),
        )
        facts = join_facts(texts.draw_facts(rng), facts, name_thing(*name_furniture(spec)))
        return Shot(model, stage, camera, TOPIC_OF_FURNITURE.get(spec.kind, "furniture"), facts)

    def draw_size(self, is_tall: bool) -> Size:
        width, height = self.rng.choice(SIZES)
        return (min(width, height), max(width, height)) if is_tall else (width, height)

    def draw_wide_size(self) -> Size:
        width, height = self.rng.choice(SIZES)
        return max(width, height), min(width, height)

    def add_clutter(self, model: Model, half: float, stage: Stage) -> None:
        """Put what happens to stand around next to a thing: a carton, a plant, a picture on the wall."""
        rng = self.rng
        x = rng.choice((-1, 1)) * (half + rng.uniform(0.3, 0.6))
        z = rng.uniform(-0.1, 0.3)
        what = rng.choice(("carton", "plant", "picture", "bin"))
        if what == "carton":
            side = rng.uniform(0.25, 0.4)
            model.add_box((x - side / 2, x + side / 2), (0, side * 0.8), (z, z + side), (186, 148, 104))
        elif what == "plant":
            model.add_post((x, z), 0.11, (0, 0.22), rng.choice(((170, 96, 66), (220, 216, 208))))
            for _ in range(7):
                height, lean = rng.uniform(0.35, 0.8), rng.uniform(-0.25, 0.25)
                leaf = np.array(
                    [(x - 0.03, 0.2, z), (x + 0.03, 0.2, z), (x + lean, height, z + rng.uniform(-0.2, 0.2))]
                )
                model.faces.append(Face(leaf, (rng.randint(40, 80), rng.randint(96, 140), 60), "", None))
        elif what == "bin":
            model.add_post((x, z), 0.13, (0, 0.35), (88, 90, 94))
        else:
            y, wide = rng.uniform(1.35, 1.6), rng.uniform(0.35, 0.7)
            picture = self.take_view((160, 120))
            bounds = ((x * 0.4 - wide / 2, x * 0.4 + wide / 2), (y, y + wide * 0.75))
            model.add_box(*bounds, (stage.back - 0.03, stage.back), INK, "", picture)

    def shoot_room(self, seed: int | None = None) -> Shot:
        """Photograph a room of a flat to let; equal seeds give the same walls and floor."""
        rng = self.rng
        layout = random.Random(seed if seed is not None else rng.getrandbits(31))  # noqa: S311
        wide, deep = rng.uniform(3.2, 4.4), rng.uniform(2.0, 2.8)
        floor = layout.choice(("planks", "tiles", "carpet"))
        wall = layout.choice(("plaster", "paint", "stripes"))
        floor_zh, floor_en, floor_colours = texts.FLOORS[floor]
        wall_zh, wall_en, wall_colours = texts.WALLS[wall]
        stage = Stage(
            (floor, layout.choice(floor_colours)),
            ("plaster" if wall == "paint" else wall, layout.choice(wall_colours)),
            deep,
            wide,
            -wide / 2,
            wide / 2,
            2.5,
            light=(0.3, 0.8, -0.5),
            variant=layout.randrange(6),
        )
        model = Model()
        model.add_box((-wide, wide), (2.5, 2.55), (-4, deep), (244, 243, 240))
        x = rng.uniform(-0.6, 0.6)
        bounds = ((x - 0.6, x + 0.6), (0.9, 2.1), (deep - 0.04, deep))
        model.add_box(*bounds, (246, 246, 244), "", self.take_view((200, 200)))
        for bar in (x - 0.61, x, x + 0.6):
            model.add_box((bar - 0.025, bar + 0.025), (0.88, 2.12), (deep - 0.07, deep - 0.03), (246, 246, 244))
        room = rng.choice(("bedroom", "living", "study"))
        main = {"bedroom": "bed", "living": "sofa", "study": "desk"}[room]
        names = []
        pieces = [main, *rng.sample(("bookshelf", "drawers", "lamp", "chair"), rng.randint(1, 2))]
        slots = [(-wide / 2 + 1.2, deep - 2.1 if main == "bed" else deep - 0.95), (wide / 2 - 0.6, deep - 0.5)]
        slots.append((wide / 2 - 0.55, deep - 1.6))
        for kind, (x, z) in zip(pieces, slots, strict=False):
            spec = self.draw_furniture(kind)
            if kind == main:
                spec = replace(spec, count=2)
            elif kind in ("chair", "lamp"):
                spec = replace(spec, count=1)
            model.add_model(self.build_furniture(spec), x=x, z=z)
            names.append(name_furniture(spec))
        names.append(("窗户", "a window"))
        rng.shuffle(names)
        listed = tuple(join_words([name[index] for name in names], "zh" if index == 0 else "en") for index in (0, 1))
        camera = Camera(
            rng.uniform(-24, 24),
            rng.uniform(6, 15),
            rng.uniform(3.0, 3.6),
            (0, 1.0, deep - 1.2),
            rng.choice(((560, 420), (540, 405), (420, 520))),
            0.85,
        )
        words = state(
            furniture_list=(listed[0], listed[1]),
            floor=(floor_zh, floor_en),
            wall=(wall_zh, wall_en),
            room_name=texts.ROOM_NAMES[room],
        )
        return Shot(model, stage, camera, "room", join_facts(texts.draw_facts(rng), words))

    # -- clothes and small things -------------------------------------------------------------------------------------

    def draw_surface(self, reach: float, back: float, names: tuple[str, ...] = ()) -> tuple[Stage, Facts]:
        """Draw what small things lie on, with a wall behind."""
        rng = self.rng
        material = rng.choice(names or tuple(texts.SURFACES))
        zh, en, colours = texts.SURFACES[material]
        wall = (
            None
            if material == "grass"
            else ("plaster", rng.choice(((226, 222, 214), (190, 198, 190), (206, 190, 170))))
        )
        light = (rng.uniform(-0.8, 0.8), 0.8, -0.4)
        backdrop = self.take_view((360, 160)).filter(ImageFilter.GaussianBlur(5)) if wall is None else None
        stage = Stage(
            (material, rng.choice(colours)),
            wall,
            back,
            reach,
            light=light,
            height=4,
            backdrop=backdrop,
            variant=rng.randrange(6),
        )
        return stage, state(surface=(zh, en))

    def shoot_clothes(
        self, garment: str = "", pattern: str = "", colours: tuple[str, str] | None = None, seed: int | None = None
    ) -> Shot:
        """Photograph a garment laid out or hung up."""
        rng = self.rng
        garment = garment or rng.choice(sorted(texts.GARMENTS))
        pattern = pattern or rng.choice(("plain", *texts.PATTERNS))
        first, second = colours or tuple(rng.sample(texts.CLOTH_COLOURS, 2))
        tones = (texts.COLOURS[first][1], texts.COLOURS[second][1])
        cloth = cut_cloth(garment, pattern, *tones, rng.getrandbits(31) if seed is None else seed)
        stage, facts = self.draw_surface(2.4, 1.2, ("wood", "fabric", "carpet", "sheet", "tiles"))
        model = Model()
        model.add_card(cloth, rng.uniform(-0.04, 0.04), 0.62, lean=1)
        camera = Camera(
            rng.uniform(-28, 28),
            rng.uniform(52, 76),
            rng.uniform(0.95, 1.25),
            (0, 0, 0),
            self.draw_size(True),
            roll=rng.uniform(-6, 6),
        )
        zh, en = texts.GARMENTS[garment]
        pattern_zh, pattern_en = texts.PATTERNS[pattern]
        first_zh, second_zh = texts.COLOURS[first][0], texts.COLOURS[second][0]
        if pattern == "plain":
            name = (f"{first_zh}{zh}", texts.add_article(f"{first} {en}"))
        else:
            name = (
                f"{first_zh}{second_zh[:-1]}{pattern_zh}{zh}",
                texts.add_article(f"{first} and {second} {pattern_en} {en}"),
            )
        return Shot(model, stage, camera, "clothes", join_facts(texts.draw_facts(rng), facts, name_thing(*name)))

    def shoot_small(self, drawing: Drawing | None = None, image: Image.Image | None = None) -> Shot:
        """Photograph a small thing on a table, a bed or the floor."""
        rng = self.rng
        drawing = drawing or self.cupboard.draw(rng)
        stage, facts = self.draw_surface(1.2, rng.uniform(0.3, 0.7))
        model = Model()
        is_flat = rng.random() < 0.3
        wide = rng.uniform(0.22, 0.3)
        card = enlarge(image or drawing.image)
        model.add_card(
            card, rng.uniform(-0.05, 0.05), wide * min(1, card.width / card.height), 0, 1 if is_flat else 0.1
        )
        pitch = rng.uniform(50, 74) if is_flat else rng.uniform(10, 32)
        target = (0, 0 if is_flat else 0.11, 0)
        camera = Camera(
            rng.uniform(-26, 26), pitch, rng.uniform(0.5, 0.72), target, rng.choice(SIZES), roll=rng.uniform(-4, 4)
        )
        return Shot(
            model, stage, camera, "small", join_facts(texts.draw_facts(rng), facts, name_thing(*name_small(drawing)))
        )

    # -- vehicles -----------------------------------------------------------------------------------------------------

    def shoot_bicycle(self, colour: str = "", seed: int | None = None) -> Shot:
        rng = self.rng
        design = random.Random(rng.getrandbits(31) if seed is None else seed)  # noqa: S311
        colour = colour or rng.choice(texts.CLOTH_COLOURS)
        has_basket, is_child = design.random() < 0.35, design.random() < 0.25
        model = build_bicycle(texts.COLOURS[colour][1], has_basket, is_child, design)
        stage, facts = self.draw_stage(rng.uniform(0.25, 0.9), floors=("concrete", "tiles", "planks"))
        camera = Camera(
            rng.uniform(-30, 30),
            rng.uniform(4, 20),
            rng.uniform(1.7, 2.2) * (0.8 if is_child else 1),
            (0, 0.36 if is_child else 0.5, 0),
            self.draw_wide_size(),
            roll=rng.uniform(-3, 3),
        )
        zh = f"{texts.COLOURS[colour][0]}{'儿童' if is_child else ''}自行车{'带车筐' if has_basket else ''}"
        en = f"{colour} {'child’s ' if is_child else ''}bicycle{' with a basket' if has_basket else ''}"
        facts = join_facts(texts.draw_facts(rng), facts, name_thing(zh, texts.add_article(en)))
        return Shot(model, stage, camera, "bicycle", facts)

    def shoot_car(self, colour: str = "", body: str = "", seed: int | None = None) -> Shot:
        """Photograph a car in a street."""
        rng = self.rng
        design = random.Random(rng.getrandbits(31) if seed is None else seed)  # noqa: S311
        colour, body = colour or rng.choice(texts.CAR_COLOURS), body or rng.choice(sorted(CAR_BODIES))
        model_name = design.choice(texts.CAR_MODELS[body][2])
        number = f"{chr(design.randint(65, 90))}{chr(design.randint(65, 90))} {design.randint(100, 999)}"
        model = build_car(texts.COLOURS[colour][1], body, self.draw_plate(number), design)
        where = rng.choice(("street", "garage"))
        if where == "street":
            backdrop = self.take_view((640, 330))
            stage = Stage(
                ("asphalt", (126, 126, 128)),
                None,
                rng.uniform(3, 7),
                9,
                backdrop=backdrop,
                light=(rng.uniform(-0.6, 0.6), 0.9, -0.5),
                variant=rng.randrange(6),
            )
            outside = ("路边", "on the street")
        else:
            wall = rng.choice((("brick", (160, 98, 78)), ("plaster", (206, 200, 188))))
            stage = Stage(
                ("concrete", (140, 138, 134)), wall, rng.uniform(1.6, 3), 9, height=5, variant=rng.randrange(6)
            )
            outside = ("院子里", "in the yard")
        yaw = rng.choice((-1, 1)) * rng.uniform(8, 44)
        camera = Camera(yaw, rng.uniform(5, 15), rng.uniform(5.4, 6.8), (0, 0.72, 0), self.draw_wide_size())
        zh, en, _ = texts.CAR_MODELS[body]
        name = (f"{texts.COLOURS[colour][0]}{zh}", texts.add_article(f"{colour} {en}"))
        words = state(
            outside=outside, model=(model_name, model_name), colour=(texts.COLOURS[colour][0], colour), body=(zh, en)
        )
        return Shot(model, stage, camera, "car", join_facts(texts.draw_facts(rng), words, name_thing(*name)))

    def draw_plate(self, number: str) -> Image.Image:
        plate = Image.new("RGB", (160, 40), (236, 234, 226))
        self.signs.write(plate, number, (80, 19), 30, INK)
        return plate

    # -- photographs --------------------------------------------------------------------------------------------------

    def hang_photo(self, photo: Photo) -> Scene:
        """Photograph a picture that hangs on a wall, with furniture below it."""
        rng = self.rng
        spec = self.draw_furniture(rng.choice(("drawers", "sofa", "desk")))
        furniture = self.build_furniture(spec)
        depth = max(z1 for _, _, _, z1 in furniture.footprints)
        stage, facts = self.draw_stage(depth + 0.05)
        model = Model()
        model.add_model(furniture)
        wide = rng.uniform(0.75, 1.15)
        high = wide * photo.image.height / photo.image.width
        tone, frame_zh, frame_en = rng.choice(
            (
                (INK, "黑框", "a black frame"),
                ((236, 234, 228), "白框", "a white frame"),
                ((170, 128, 82), "木框", "a wooden frame"),
            )
        )
        picture = ImageOps.expand(photo.image, max(6, photo.image.width // 30), tone)
        y = 1.05 + rng.uniform(0, 0.2)
        model.add_box((-wide / 2, wide / 2), (y, y + high), (stage.back - 0.04, stage.back), tone, "", picture)
        camera = Camera(
            rng.uniform(-20, 20),
            rng.uniform(-2, 8),
            rng.uniform(1.4, 1.9),
            (0, y + high * 0.38, depth),
            self.draw_size(False),
            roll=rng.uniform(-2, 2),
        )
        motif = describe_motif(photo)
        words = join_facts(texts.draw_facts(rng), facts, motif, state(frame=(frame_zh, frame_en)))
        return Shot(model, stage, camera, "print", words).develop(rng)

    # -- papers and pages ---------------------------------------------------------------------------------------------

    def lay_down(self, card: Image.Image, width: float = 0.24) -> Image.Image:
        """Photograph a paper that lies on something."""
        rng = self.rng
        stage, _ = self.draw_surface(1.2, 0.8, ("wood", "fabric", "marble", "sheet", "carpet"))
        model = Model()
        model.add_card(card, 0, width, lean=1)
        longer = width * max(1, card.height / card.width)
        camera = Camera(
            rng.uniform(-14, 14),
            rng.uniform(58, 84),
            longer * rng.uniform(1.15, 1.4) + 0.06,
            (0, 0, 0),
            self.draw_size(card.height > card.width),
            roll=rng.uniform(-8, 8),
        )
        return develop_phone_photo(take_picture(model, stage, camera), rng)

    def draw_plan(self, style: int | None = None) -> Scene:
        """Draw the floor plan of a flat; equal styles give the same colours and lines."""
        rng, signs = self.rng, self.signs
        look = random.Random(rng.getrandbits(31) if style is None else style)  # noqa: S311
        width, height = look.choice(((520, 400), (480, 480), (420, 520)))
        paper = look.choice((WHITE, (250, 248, 240), (240, 246, 250)))
        line, thickness = look.choice(((INK, 7), ((90, 70, 50), 6), ((40, 60, 110), 5))), look.choice((4, 6, 8))
        image = Image.new("RGB", (width, height), paper)
        draw = ImageDraw.Draw(image)
        left, top, right, bottom = 40, 40, width - 40, height - 50
        split_x = rng.randint(int(width * 0.36), int(width * 0.64))
        split_left, split_right = (rng.randint(int(height * 0.32), int(height * 0.66)) for _ in range(2))
        boxes = [
            (left, top, split_x, split_left),
            (left, split_left, split_x, bottom),
            (split_x, top, right, split_right),
            (split_x, split_right, right, bottom),
        ]
        rooms = rng.sample(sorted(texts.ROOM_NAMES), 4)
        fills = (
            ((244, 232, 206), (222, 236, 222), (220, 228, 244), (242, 222, 222))
            if look.random() < 0.5
            else (paper,) * 4
        )
        names = []
        for box, room, fill in zip(boxes, rooms, fills, strict=True):
            draw.rectangle(box, fill=fill, outline=line[0], width=thickness)
            zh, en = texts.ROOM_NAMES[room]
            middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            signs.write(image, signs.choose(zh, en), middle, 17, INK)
            area = (box[2] - box[0]) * (box[3] - box[1]) / 2600
            signs.write(image, f"{area:.1f} m²", (middle[0], middle[1] + 22), 13, (110, 110, 110))
            names.append((zh, en))
            door = rng.randint(0, 1)
            x, y = (box[0] + 30, box[1]) if door else (box[0], box[1] + 34)
            gap = (x, y - 4, x + 30, y + 4) if door else (x - 4, y, x + 4, y + 30)
            draw.rectangle(gap, fill=fill)
            draw.arc((x - 30, y - 30, x + 30, y + 30), 0, 90, fill=line[0], width=1)
        signs.write(image, f"{(right - left) / 46:.2f} m", (width / 2, 20), 13, (90, 90, 90))
        signs.write(image, f"{rng.randint(1, 9)}0{rng.randint(1, 6)}", (width - 60, height - 22), 13, (90, 90, 90))
        words = state(room_list=(join_words([zh for zh, _ in names], "zh"), join_words([en for _, en in names], "en")))
        return Scene(image, "plan", join_facts(texts.draw_facts(rng), words))

    def show_label(self, size_text: str = "", cotton: int = 0, style: int | None = None) -> Scene:
        """Photograph the label of a garment."""
        rng, signs = self.rng, self.signs
        look = random.Random(rng.getrandbits(31) if style is None else style)  # noqa: S311
        size_text, cotton = size_text or rng.choice(("XS", "S", "M", "L", "XL")), cotton or rng.randrange(50, 100, 5)
        paper, ink = look.choice(
            (((246, 245, 240), INK), ((40, 40, 42), (236, 236, 230)), ((236, 226, 206), (70, 50, 40)))
        )
        card = Image.new("RGB", (260, 330), paper)
        brand = look.choice(("NORDVIK", "Lina & Co", "BAUMWERK", "ATELIER 9", "kori kori"))
        signs.write(card, brand, (130, 45), 30, ink)
        signs.write(card, size_text, (130, 125), 68, ink)
        fibres = signs.choose(f"棉 {cotton}%  涤纶 {100 - cotton}%", f"{cotton}% cotton  {100 - cotton}% polyester")
        signs.write(card, fibres, (130, 195), 17, ink)
        draw = ImageDraw.Draw(card)
        for index in range(5):
            x = 40 + index * 38
            draw.rectangle((x, 230, x + 24, 254), outline=ink, width=2)
            if look.random() < 0.5:
                draw.line((x, 230, x + 24, 254), fill=ink, width=2)
        signs.write(card, f"RN {look.randrange(10**5):05d}", (130, 290), 15, ink)
        garment = texts.GARMENTS[look.choice(sorted(texts.GARMENTS))]
        words = state(
            garment_size=(size_text, size_text),
            fabric_line=(f"棉{cotton}%涤纶{100 - cotton}%", f"{cotton}% cotton and {100 - cotton}% polyester"),
        )
        facts = join_facts(texts.draw_facts(rng), name_thing(garment[0], texts.add_article(garment[1])), words)
        return Scene(self.lay_down(card, 0.14), "garment_label", facts)

    def show_type_plate(self, style: int | None = None) -> Scene:
        """Photograph the plate of a machine."""
        rng, signs = self.rng, self.signs
        look = random.Random(rng.getrandbits(31) if style is None else style)  # noqa: S311
        machine = look.choice(texts.MACHINES)
        code, watts = (
            f"{chr(look.randint(65, 90))}{chr(look.randint(65, 90))}-{rng.randrange(1000, 9999)}",
            str(rng.randrange(60, 2400, 20)),
        )
        card = (
            make_gradient(400, 230, (214, 216, 218), (184, 187, 190))
            if look.random() < 0.6
            else Image.new("RGB", (400, 230), (240, 240, 236))
        )
        draw = ImageDraw.Draw(card)
        draw.rectangle((6, 6, 393, 223), outline=INK, width=2)
        rows = (
            (signs.choose("型号", "MODEL"), code),
            (signs.choose("功率", "POWER"), f"{watts} W"),
            (signs.choose("电压", "VOLTAGE"), "220-240 V ~ 50 Hz"),
            (signs.choose("编号", "SERIAL"), f"{rng.randrange(10**9):09d}"),
        )
        signs.write(card, signs.choose(machine[0], machine[1].upper()), (20, 30), 24, INK, "lm")
        for index, (name, value) in enumerate(rows):
            y = 76 + index * 38
            signs.write(card, name, (20, y), 19, (70, 70, 72), "lm")
            signs.write(card, value, (150, y), 21, INK, "lm")
        words = state(machine=machine, code=(code, code), watts=(watts, watts))
        return Scene(self.lay_down(card, 0.2), "type_plate", join_facts(texts.draw_facts(rng), words))

    def show_ticket(self, style: int | None = None, seat: int = 0) -> Scene:
        """Photograph a ticket that is sold on."""
        rng, signs = self.rng, self.signs
        look = random.Random(rng.getrandbits(31) if style is None else style)  # noqa: S311
        event, colour = (
            look.choice(texts.EVENTS),
            look.choice(((64, 92, 150), (160, 60, 70), (60, 120, 100), (120, 80, 140), (200, 150, 60))),
        )
        row, seat = rng.randint(1, 40), seat or rng.randint(1, 60)
        month, day = rng.randint(1, 12), rng.randint(1, 28)
        card = Image.new("RGB", (460, 190), (248, 246, 240))
        draw = ImageDraw.Draw(card)
        draw.rectangle((0, 0, 459, 54), fill=colour)
        signs.write(card, signs.choose(event[0], event[1]), (16, 27), 22, WHITE, "lm")
        signs.write(card, f"{month:02d}-{day:02d}  19:{look.choice(('00', '30', '45'))}", (16, 84), 22, INK, "lm")
        signs.write(card, signs.choose(f"{row}排 {seat}座", f"ROW {row}  SEAT {seat}"), (16, 126), 30, INK, "lm")
        signs.write(card, f"No. {rng.randrange(10**8):08d}", (16, 166), 15, (110, 110, 110), "lm")
        for x in range(340, 344):
            for y in range(56, 190, 10):
                draw.line((x, y, x, y + 5), fill=(170, 170, 170))
        x = 356
        while x < 448:
            bar = rng.randint(1, 4)
            draw.rectangle((x, 70, x + bar, 172), fill=INK)
            x += bar + rng.randint(2, 5)
        words = state(
            event=event, row=(str(row),) * 2, seat=(str(seat),) * 2, date=(f"{month}月{day}日", f"{day}/{month}")
        )
        return Scene(self.lay_down(card, 0.26), "ticket_topic", join_facts(texts.draw_facts(rng), words))

    def show_book(self, style: int | None = None) -> Scene:
        """Photograph a book; equal styles give volumes of one series."""
        rng, signs = self.rng, self.signs
        look = random.Random(rng.getrandbits(31) if style is None else style)  # noqa: S311
        title, author = rng.choice(texts.BOOK_TITLES), look.choice(texts.AUTHORS)
        colour = look.choice(texts.CLOTH_COLOURS)
        tone = texts.COLOURS[colour][1]
        ink = INK if sum(tone) > 380 else (244, 240, 230)
        drawing = self.cupboard.draw(rng)
        card = make_gradient(290, 410, tone, tuple(int(level * 0.82) for level in tone))
        signs.write(card, signs.choose(title[0], title[1]), (145, 62), 28 if signs.path else 20, ink)
        signs.write(card, signs.choose(author[0], author[1]), (145, 104), 18, ink)
        paste_drawing(card, drawing.image, 180, (145, 240), 0.2)
        ImageDraw.Draw(card).rectangle((14, 14, 275, 395), outline=ink, width=look.choice((1, 3)))
        signs.write(card, look.choice(("RIVER PRESS", "Lamp Books", "N° 7")), (145, 372), 15, ink)
        words = state(title=title, author=author, colour=(texts.COLOURS[colour][0], colour))
        facts = join_facts(texts.draw_facts(rng), name_thing(*name_small(drawing)), words)
        return Scene(self.lay_down(card, 0.15), "book", facts)

    def draw_sketch(self) -> Scene:
        """Draw the measurements of a thing on squared paper."""
        rng, signs = self.rng, self.signs
        spec = self.draw_furniture(rng.choice(("bookshelf", "drawers", "wardrobe", "desk")))
        shot = replace(self.shoot_furniture(spec, has_clutter=False))
        camera = replace(shot.camera, yaw=0.0, pitch=4.0, roll=0.0, size=(420, 400))
        plain = replace(shot.stage, floor=("", WHITE), wall=("", WHITE), left=None, right=None)
        grey = cv2.cvtColor(np.asarray(take_picture(shot.model, plain, camera)), cv2.COLOR_RGB2GRAY)
        edges = cv2.dilate(cv2.Canny(grey, 25, 70), np.ones((2, 2), np.uint8))
        paper = Image.new("RGB", (420, 400), (252, 251, 246))
        draw = ImageDraw.Draw(paper)
        for at in range(0, 420, 20):
            draw.line((at, 0, at, 400), fill=(222, 230, 238))
            draw.line((0, at, 420, at), fill=(222, 230, 238))
        paper.paste((50, 60, 110), (0, 0), Image.fromarray(edges))
        facts = shot.facts
        draw.line((70, 375, 350, 375), fill=(180, 50, 40), width=2)
        draw.line((28, 60, 28, 340), fill=(180, 50, 40), width=2)
        signs.write(paper, f"{facts['en']['cm_a']} cm", (210, 388), 16, (180, 50, 40))
        signs.write(paper, f"{facts['en']['cm_c']}", (14, 200), 15, (180, 50, 40))
        return Scene(paper, "sketch", facts)

    def show_phone_page(self) -> Scene:
        """Photograph the screen of a telephone that shows its settings."""
        rng, signs = self.rng, self.signs
        phone, storage, health = rng.choice(texts.PHONES), rng.choice((64, 128, 256, 512)), rng.randint(76, 100)
        is_dark = rng.random() < 0.4
        paper, ink = ((18, 18, 20), (235, 235, 238)) if is_dark else ((246, 246, 248), INK)
        screen = Image.new("RGB", (250, 500), paper)
        draw = ImageDraw.Draw(screen)
        signs.write(screen, f"{rng.randint(8, 23)}:{rng.randint(10, 59)}", (30, 16), 14, ink)
        signs.write(screen, signs.choose("关于本机", "About"), (125, 50), 22, ink)
        rows = (
            (signs.choose("名称", "Name"), phone),
            (signs.choose("容量", "Capacity"), f"{storage} GB"),
            (signs.choose("电池健康", "Battery"), f"{health}%"),
            (signs.choose("版本", "Version"), f"{rng.randint(11, 16)}.{rng.randint(0, 6)}"),
            (signs.choose("序列号", "Serial"), f"{rng.getrandbits(36):09X}"),
        )
        for index, (name, value) in enumerate(rows):
            y = 110 + index * 62
            draw.rectangle((12, y - 26, 238, y + 26), fill=(40, 40, 44) if is_dark else WHITE)
            signs.write(screen, name, (22, y), 16, ink, "lm")
            signs.write(screen, value, (228, y), 16, (130, 130, 136), "rm")
        words = state(phone=(phone, phone), storage=(str(storage),) * 2, health=(str(health),) * 2)
        body = ImageOps.expand(screen, 9, (24, 24, 26))
        image = self.lay_down(body, 0.12) if rng.random() < 0.6 else screen
        return Scene(image, "phone_page", join_facts(texts.draw_facts(rng), words))

    def show_board(self) -> Scene:
        """Photograph a painted board outdoors."""
        rng, signs = self.rng, self.signs
        sign = rng.choice(texts.BOARD_SIGNS)
        words = signs.choose(*sign)
        wood = make_smooth_noise(np.random.default_rng(rng.getrandbits(31)), 150, 380, (30, 2), 0.7)
        tone = np.array(rng.choice(((170, 130, 88), (206, 200, 186), (120, 92, 66))), np.float32)
        card = Image.fromarray(np.clip(tone * (1 + wood[..., None] * 0.06), 0, 255).astype(np.uint8))
        ink = rng.choice(((160, 40, 36), (30, 30, 32), (36, 60, 120))) if tone[0] > 150 else (240, 236, 226)
        signs.write(card, words, (190, 75), min(66, int(340 / len(words) * (1 if signs.path else 1.5))), ink)
        stage = Stage(
            ("grass", (96, 128, 66)), None, 2.5, 6, backdrop=self.take_view((480, 240)), variant=rng.randrange(6)
        )
        model = Model()
        for x in (-0.3, 0.3):
            model.add_box((x - 0.03, x + 0.03), (0, 1.0), (0.02, 0.06), (110, 84, 60), "wood")
        model.add_box((-0.5, 0.5), (0.6, 1.0), (-0.01, 0.02), (130, 100, 70), "", card)
        camera = Camera(
            rng.uniform(-24, 24), rng.uniform(0, 8), rng.uniform(1.2, 1.7), (0, 0.74, 0), self.draw_size(False)
        )
        image = develop_phone_photo(take_picture(model, stage, camera), rng)
        # The board says one of both; a caption in the other language translates it.
        return Scene(image, "board", join_facts(texts.draw_facts(rng), state(sign=sign)))

    def show_four_sides(self) -> Scene:
        """Lay four views of one thing out, as sellers do who may post one picture only."""
        rng = self.rng
        shot = self.shoot_furniture()
        image = Image.new("RGB", (524, 404), WHITE)
        for index, yaw in enumerate((-30, -8, 14, 32)):
            camera = replace(shot.camera, yaw=yaw, pitch=rng.uniform(6, 22), size=(260, 200))
            view = develop_phone_photo(take_picture(shot.model, shot.stage, camera), rng)
            image.paste(view, (index % 2 * 264, index // 2 * 204))
        return Scene(image, "four_sides", shot.facts)

    def show_wide_room(self) -> Scene:
        shot = self.shoot_room()
        camera = replace(shot.camera, size=(840, 300), focal=0.62, distance=3.2, roll=0)
        return replace(shot, camera=camera).develop(self.rng)

    def show_at_night(self) -> Scene:
        """Photograph something in little light, which can still be made out."""
        scene = self.make_any()
        image = change_gamma(change_brightness(scene.image, 0.62), 1.15)
        return replace(scene, image=add_noise(image, 7, self.rng))


PAPERS = (
    "draw_plan",
    "show_label",
    "show_type_plate",
    "show_ticket",
    "show_book",
    "draw_sketch",
    "show_phone_page",
    "show_board",
    "show_four_sides",
    "show_wide_room",
    "show_at_night",
)


def make_market_photograph(rng: random.Random, is_subject: bool = True) -> Photo:
    """Make what passes for a photograph: a painted view, fruit, lanterns, a city, a forest, a flower."""
    if rng.random() < 0.6:
        photo = make_view_photograph(rng)
        zh, en, _ = photo.name.split("|")
        return Photo(photo.image, f"{zh}|{en.removeprefix('+')}")
    photo = make_open_web_photograph(rng)
    return Photo(photo.image, f"{texts.translate_photo_name(photo.name)}|{photo.name}")


def shows_enough(crop: Image.Image) -> bool:
    """Return whether a crop is not dark, and sharp in a quarter of its sixteen cells: a subject, not a background."""
    grey = np.asarray(crop.convert("L").resize((192, 192)), np.float32)
    small = cv2.resize(grey, (48, 48), interpolation=cv2.INTER_AREA)
    contrast = small.reshape(4, 12, 4, 12).std(axis=(1, 3))
    fine = grey - cv2.GaussianBlur(grey, (0, 0), 2)
    sharpness = np.sort(fine.reshape(4, 48, 4, 48).std(axis=(1, 3)).ravel())
    # All bounds were set by looking at crops of wallpapers: skies and blurred leaves lie below them.
    is_lit = 40 < float(grey.mean()) < 230 and float(small.std()) > 16
    return is_lit and int((contrast > 5).sum()) >= 10 and float(sharpness[11]) > 2.5


def describe_motif(photo: Photo) -> Facts:
    zh, _, en = photo.name.partition("|")
    return state(motif=(zh, en) if en else (texts.translate_photo_name(photo.name), photo.name))


def describe_photo(photo: Photo, rng: random.Random) -> Scene:
    """Take a photograph as a view from a place to let, a print or a sample of a camera."""
    motif = describe_motif(photo)
    is_view = bool(texts.VIEW_WORDS.intersection(motif["en"]["motif"].split()))
    return Scene(photo.image, "view" if is_view else "motif_topic", join_facts(texts.draw_facts(rng), motif))


# ---------------------------------------------------------------------------------------------------------------------
# Changes of reposts


@dataclass
class Repost:
    """Changes a picture as sellers, sites and telephones do when it is posted again."""

    cupboard: Cupboard
    signs: Signs
    rng: random.Random

    def change(self, image: Image.Image, kind: str, strength: Any) -> Image.Image:
        return getattr(self, kind)(image, strength)

    # Light and colour

    def exposure(self, image: Image.Image, factor: float) -> Image.Image:
        return change_brightness(image, factor)

    def auto_enhance(self, image: Image.Image, strength: float) -> Image.Image:
        """Stretch the levels, saturate and sharpen, as the magic wand of a telephone."""
        stretched = Image.blend(image, ImageOps.autocontrast(image, cutoff=1), strength)
        vivid = change_saturation(stretched, 1 + 0.5 * strength)
        return vivid.filter(ImageFilter.UnsharpMask(2, int(90 * strength), 2))

    def film_filter(self, image: Image.Image, name: str) -> Image.Image:
        """Apply one of the filters that people use, by its curves of red, green and blue."""
        lifts = {
            "fade": ((38, 235), (36, 232), (44, 226)),
            "tokyo": ((10, 235), (22, 250), (40, 255)),
            "toast": ((30, 255), (14, 232), (0, 190)),
            "mint": ((0, 232), (24, 255), (20, 236)),
            "noir_warm": ((18, 250), (12, 240), (8, 222)),
        }[name]
        base = change_saturation(image, 0.25) if name == "noir_warm" else change_saturation(image, 0.85)
        table = [round(low + (high - low) * level / 255) for low, high in lifts for level in range(256)]
        return base.point(table)

    # Shape

    def crop(self, image: Image.Image, share: float) -> Image.Image:
        return crop_margins(image, share, self.rng)

    def flipped(self, image: Image.Image, _: str) -> Image.Image:
        return mirror(image)

    def tilt(self, image: Image.Image, degrees: float) -> Image.Image:
        return turn(image, degrees * self.rng.choice((-1, 1)))

    def tilt_with_corners(self, image: Image.Image, degrees: float) -> Image.Image:
        """Turn and leave the corners filled, as editors that do not crop."""
        fill = self.rng.choice(((0, 0, 0), WHITE))
        angle = degrees * self.rng.choice((-1, 1))
        return image.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=fill)

    def on_its_side(self, image: Image.Image, degrees: int) -> Image.Image:
        """Turn by quarters: the orientation in the file was lost."""
        return image.rotate(degrees, expand=True)

    def squeezed(self, image: Image.Image, factor: float) -> Image.Image:
        return image.resize((round(image.width * factor), image.height))

    def blurred_sides(self, image: Image.Image, aspect: float) -> Image.Image:
        """Fill up to an aspect with an enlarged, blurred picture."""
        if abs(image.width / image.height / aspect - 1) < 0.15:
            aspect = 1.5 / aspect
        width, height = max(image.width, int(image.height * aspect)), max(image.height, int(image.width / aspect))
        canvas = change_brightness(ImageOps.fit(image, (width, height)).filter(ImageFilter.GaussianBlur(16)), 0.8)
        canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
        return canvas

    # Files

    def saved_again(self, image: Image.Image, quality: int) -> Image.Image:
        return recompress(image, quality)

    def shared_often(self, image: Image.Image, times: int) -> Image.Image:
        """Reduce and save again and again, as messengers do."""
        for index in range(times):
            image = recompress(resize_by(image, 0.93), 46 - index)
        return image

    def preview(self, image: Image.Image, side: int) -> Image.Image:
        small = image.copy()
        small.thumbnail((side, side))
        return small

    # Marks

    def site_corner(self, image: Image.Image, share: float) -> Image.Image:
        """Put the site's sign with its name into a corner."""
        marked = image.copy()
        high = max(14, int(image.height * share))
        name = self.signs.choose("邻家闲置", "FleaCorner")
        font = self.signs.font(int(high * 0.62))
        wide = int(font.getlength(name)) + high + 10
        badge = Image.new("RGBA", (wide, high), (255, 255, 255, 0))
        draw = ImageDraw.Draw(badge)
        draw.rounded_rectangle((0, 0, wide - 1, high - 1), high // 3, fill=(20, 20, 24, 120))
        draw.ellipse((4, 3, high - 4, high - 5), fill=(250, 190, 40, 235))
        draw.text((high + 2, high / 2), name, font=font, fill=(255, 255, 255, 235), anchor="lm")
        right = self.rng.random() < 0.6
        at = (image.width - wide - 8 if right else 8, image.height - high - 8 if self.rng.random() < 0.8 else 8)
        marked.paste(badge, at, badge)
        return marked

    def site_middle(self, image: Image.Image, opacity: float) -> Image.Image:
        """Lay the site's name large across the middle."""
        layer = Image.new("L", image.size)
        name = self.signs.choose("旧物集市网", "fleacorner")
        size = int(image.width / (5.6 if self.signs.path else 6.5))
        draw = ImageDraw.Draw(layer)
        draw.text(
            (image.width / 2, image.height / 2), name, font=self.signs.font(size), fill=int(255 * opacity), anchor="mm"
        )
        marked = image.copy()
        marked.paste(WHITE, (0, 0), layer)
        return marked

    def seller_tiles(self, image: Image.Image, opacity: float) -> Image.Image:
        words = self.signs.choose(
            self.rng.choice(("盗图必究", "阿珍闲置 勿盗", "本人实拍")),
            self.rng.choice(("do not copy", "my own photo", "seller rob_t88")),
        )
        return self.signs.tile(image, words, opacity, self.rng.choice((18, 26)))

    def phone_across(self, image: Image.Image, share: float) -> Image.Image:
        """Write a telephone number over the picture in loud letters."""
        marked = image.copy()
        size = max(16, int(image.width * share))
        number = texts.draw_mobile("zh" if self.signs.path else "en", self.rng)
        y = image.height * self.rng.choice((0.12, 0.5, 0.88))
        colour = self.rng.choice(((230, 30, 30), (250, 220, 30), WHITE))
        draw = ImageDraw.Draw(marked)
        draw.text(
            (image.width / 2, y),
            number,
            font=self.signs.font(size),
            fill=colour,
            anchor="mm",
            stroke_width=2,
            stroke_fill=INK,
        )
        return marked

    def sold_stamp(self, image: Image.Image, opacity: float) -> Image.Image:
        """Stamp that it is gone, slanting."""
        side = int(min(image.size) * 0.62)
        stamp = Image.new("L", (side, side // 2))
        draw = ImageDraw.Draw(stamp)
        level = int(255 * opacity)
        draw.rounded_rectangle((4, 4, side - 5, side // 2 - 5), 16, outline=level, width=7)
        words = self.signs.choose("已售出", "SOLD")
        draw.text((side / 2, side / 4), words, font=self.signs.font(int(side * 0.25)), fill=level, anchor="mm")
        stamp = stamp.rotate(self.rng.choice((18, -18)), Image.Resampling.BILINEAR, expand=True)
        marked = image.copy()
        marked.paste((205, 30, 34), ((image.width - stamp.width) // 2, (image.height - stamp.height) // 2), stamp)
        return marked

    def price_burst(self, image: Image.Image, share: float) -> Image.Image:
        """Stick a jagged price onto the picture."""
        marked = image.copy()
        radius = min(image.size) * share
        x, y = image.width - radius - 8, radius + 8
        if self.rng.random() < 0.5:
            x = radius + 8
        points = []
        for index in range(28):
            length = radius * (1 if index % 2 else 0.8)
            angle = math.pi * index / 14
            points.append((x + length * math.cos(angle), y + length * math.sin(angle)))
        ImageDraw.Draw(marked).polygon(points, fill=self.rng.choice(((240, 60, 40), (250, 205, 20))))
        self.signs.write(
            marked,
            self.signs.choose(f"¥{self.rng.randint(9, 999)}", f"£{self.rng.randint(5, 450)}"),
            (x, y),
            max(12, int(radius * 0.55)),
            WHITE,
        )
        return marked

    def cover_stickers(self, image: Image.Image, count: int) -> Image.Image:
        """Stick drawings over what shall not be seen."""
        marked = image.copy()
        for _ in range(count):
            side = int(min(image.size) * self.rng.uniform(0.14, 0.22))
            at = (
                self.rng.randint(side // 2, image.width - side // 2),
                self.rng.randint(side // 2, image.height - side // 2),
            )
            paste_drawing(marked, self.cupboard.draw(self.rng, "toy").image, side, at, 0)
        return marked

    def blurred_patch(self, image: Image.Image, share: float) -> Image.Image:
        """Make a number or a face unreadable."""
        width, height = int(image.width * share), int(image.height * share * 0.6)
        left, top = self.rng.randint(0, image.width - width), self.rng.randint(0, image.height - height)
        box = (left, top, left + width, top + height)
        marked = image.copy()
        marked.paste(pixelate(image.crop(box), 6), box[:2])
        return marked

    def red_circle(self, image: Image.Image, count: int) -> Image.Image:
        """Draw circles and an arrow around what the buyer should see."""
        marked = image.copy()
        draw = ImageDraw.Draw(marked)
        for _ in range(count):
            radius = min(image.size) * self.rng.uniform(0.08, 0.16)
            x, y = image.width * self.rng.uniform(0.2, 0.8), image.height * self.rng.uniform(0.2, 0.8)
            draw.ellipse((x - radius * 1.3, y - radius, x + radius * 1.3, y + radius), outline=(235, 30, 30), width=4)
            end = (x + radius * 1.3, y + radius * 0.6)
            start = (end[0] + 40, end[1] + 34)
            draw.line([start, end], fill=(235, 30, 30), width=5)
        return marked

    def camera_date(self, image: Image.Image, share: float) -> Image.Image:
        """Print the date in orange digits."""
        marked, rng = image.copy(), self.rng
        date = f"'{rng.randint(3, 23):02d} {rng.randint(1, 12):2d} {rng.randint(1, 28):2d}"
        self.signs.write(
            marked,
            date,
            (image.width - 12, image.height - 12),
            max(13, int(image.height * share)),
            (255, 140, 40),
            "rd",
        )
        return marked

    # Frames and screens

    def paper_frame(self, image: Image.Image, share: float) -> Image.Image:
        border = int(max(image.size) * share)
        return ImageOps.expand(
            image, border, self.rng.choice((WHITE, INK, (226, 206, 176), (196, 40, 52), (90, 150, 210)))
        )

    def template_frame(self, image: Image.Image, share: float) -> Image.Image:
        """Set the picture into a seller's template with a title above and promises below."""
        rng, signs = self.rng, self.signs
        colour = rng.choice(((244, 110, 60), (52, 120, 200), (90, 160, 90), (230, 190, 60)))
        bar = int(image.height * share)
        canvas = Image.new("RGB", (image.width + 24, image.height + 2 * bar), colour)
        canvas.paste(image, (12, bar))
        upper = signs.choose("个人闲置 · 诚信交易", "PRIVATE SELLER")
        lower = signs.choose("实物拍摄   当天发货", "REAL PHOTOS  ·  FAST POST")
        size = max(11, min(int(bar * 0.5), image.width // 16))
        signs.write(canvas, upper, (canvas.width / 2, bar / 2), size, WHITE)
        signs.write(canvas, lower, (canvas.width / 2, canvas.height - bar / 2), size, WHITE)
        return canvas

    def phone_screenshot(self, image: Image.Image, style: str) -> Image.Image:
        """Show the picture in the app, between the bars of the telephone."""
        rng, signs = self.rng, self.signs
        is_dark = style == "viewer"
        paper, ink = ((0, 0, 0), WHITE) if is_dark else (WHITE, INK)
        width = image.width
        high = int(width * rng.uniform(1.75, 2.05))
        canvas = Image.new("RGB", (width, max(high, image.height + 160)), paper)
        draw = ImageDraw.Draw(canvas)
        signs.write(canvas, f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}", (34, 16), 14, ink)
        draw.rectangle((width - 46, 10, width - 22, 21), outline=ink)
        draw.rectangle((width - 44, 12, width - 44 + rng.randint(5, 20), 19), fill=ink)
        top = (canvas.height - image.height) // 2 if is_dark else 62
        canvas.paste(image, (0, top))
        if is_dark:
            signs.write(canvas, f"{rng.randint(1, 9)}/9", (width / 2, 50), 16, ink)
            return canvas
        signs.write(canvas, signs.choose("< 宝贝详情", "<  Item"), (14, 44), 17, ink, "lm")
        y = top + image.height + 26
        signs.write(
            canvas,
            signs.choose(f"¥ {rng.randint(10, 2000)}", f"£ {rng.randint(5, 900)}"),
            (14, y),
            24,
            (235, 60, 40),
            "lm",
        )
        for index in range(3):
            left, right = 14, width - rng.randint(20, width // 2)
            draw.rectangle((left, y + 26 + index * 22, right, y + 36 + index * 22), fill=(206, 206, 208))
        draw.rounded_rectangle(
            (width // 2, canvas.height - 44, width - 12, canvas.height - 10), 16, fill=(250, 200, 30)
        )
        signs.write(canvas, signs.choose("我想要", "Make offer"), (width * 0.75 - 6, canvas.height - 27), 16, INK)
        return canvas

    def page_screenshot(self, image: Image.Image, share: float) -> Image.Image:
        """Show the picture on the page of the site: lines of text at its side."""
        rng, signs = self.rng, self.signs
        side = int(image.width * share)
        canvas = Image.new("RGB", (image.width + side + 36, image.height + 74), (248, 248, 250))
        draw = ImageDraw.Draw(canvas)
        draw.rectangle((0, 0, canvas.width, 46), fill=(30, 110, 90))
        signs.write(canvas, signs.choose("旧物集市", "FleaCorner"), (16, 23), 20, WHITE, "lm")
        canvas.paste(image, (12, 58))
        x = image.width + 24
        signs.write(
            canvas,
            signs.choose(f"¥{rng.randint(20, 4000)}", f"${rng.randint(20, 4000)}"),
            (x, 84),
            26,
            (30, 110, 90),
            "lm",
        )
        for index in range(int((image.height - 60) / 18)):
            draw.rectangle(
                (x, 112 + index * 18, x + rng.randint(side // 3, side), 119 + index * 18), fill=(200, 202, 206)
            )
        return canvas

    def screen_photo(self, image: Image.Image, strength: float) -> Image.Image:
        """Photograph the picture from a screen: askew, with lines and a sheen."""
        rng = self.rng
        width, height = image.size
        pixels = np.asarray(image, np.float32)
        rows, columns = np.arange(height)[:, None], np.arange(width)[None]
        period, slant = rng.uniform(2.6, 4.5), rng.uniform(0.1, 0.6)
        lines = np.sin((rows + columns * slant) * 2 * np.pi / period) * 14 * strength
        sheen = np.exp(-(((columns / width - rng.uniform(0.1, 0.9)) * 4) ** 2)) * 40 * strength
        pixels = np.clip(pixels * 0.93 + lines[..., None] + sheen[..., None], 0, 255).astype(np.uint8)
        corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
        noise = np.random.default_rng(rng.getrandbits(32))
        moved = corners + noise.uniform(-0.045, 0.045, (4, 2)).astype(np.float32) * width * strength
        matrix = cv2.getPerspectiveTransform(corners, moved)
        return Image.fromarray(cv2.warpPerspective(pixels, matrix, (width, height), borderValue=(24, 24, 28)))

    # Several at once

    def bundle(self, image: Image.Image, names: str) -> Image.Image:
        """Apply several of these, as a picture that went through several hands."""
        for name in names.split("+"):
            image = self.change(image, name, self.rng.choice(CHANGES[name]))
        return image


CHANGES: dict[str, tuple[Any, ...]] = {
    "exposure": (0.58, 0.72, 0.84, 1.18, 1.34, 1.55),
    "auto_enhance": (0.5, 1.0),
    "film_filter": ("fade", "tokyo", "toast", "mint", "noir_warm"),
    "crop": (0.05, 0.1, 0.18, 0.28),
    "flipped": ("",),
    "tilt": (1.2, 2.5, 4.5),
    "tilt_with_corners": (2, 5),
    "on_its_side": (90, 270),
    "squeezed": (0.75, 0.85, 1.2),
    "blurred_sides": (1.0, 1.78),
    "saved_again": (12, 25, 50),
    "shared_often": (3, 6),
    "preview": (130, 200),
    "site_corner": (0.055, 0.09),
    "site_middle": (0.3, 0.55),
    "seller_tiles": (0.22, 0.4),
    "phone_across": (0.06, 0.1),
    "sold_stamp": (0.6, 0.9),
    "price_burst": (0.13, 0.2),
    "cover_stickers": (1, 3),
    "red_circle": (1, 2),
    "camera_date": (0.04, 0.06),
    "paper_frame": (0.03, 0.08),
    "template_frame": (0.1, 0.16),
    "phone_screenshot": ("item_page", "viewer"),
    "page_screenshot": (0.5, 0.8),
    "screen_photo": (0.6, 1.0),
    "bundle": (
        "crop+exposure+shared_often",
        "flipped+site_corner",
        "film_filter+paper_frame",
        "tilt+price_burst",
        "squeezed+camera_date",
    ),
}
# Changes after which an editor finds both equally good, or cannot say which was first.
EQUALLY_GOOD = {
    "flipped": ("",),
    "exposure": (0.84, 1.18),
    "auto_enhance": (0.5, 1.0),
    "tilt": (1.2,),
    "saved_again": (50,),
}


# ---------------------------------------------------------------------------------------------------------------------
# Pictures without content


@dataclass
class EmptyPictures:
    """Makes pictures that an editor throws away."""

    cupboard: Cupboard
    signs: Signs
    rng: random.Random

    def make(self, kind: str, image: Image.Image) -> Image.Image:
        return getattr(self, kind)(image)

    def no_picture_sign(self, image: Image.Image) -> Image.Image:
        """Draw the sign for an advertisement without pictures."""
        rng, signs = self.rng, self.signs
        size = rng.choice(((400, 300), (300, 300), (240, 180), (480, 360), image.size))
        paper = rng.choice(((238, 238, 240), (226, 230, 234), WHITE, (204, 208, 214), (250, 244, 230)))
        canvas = Image.new("RGB", size, paper)
        draw = ImageDraw.Draw(canvas)
        tone = tuple(max(0, level - rng.randint(30, 90)) for level in paper)
        x, y = size[0] / 2 + rng.randint(-6, 6), size[1] * rng.uniform(0.36, 0.5)
        side = min(size) * rng.uniform(0.12, 0.24)
        shape = rng.choice(("camera", "mountains", "house", "none"))
        if shape == "camera":
            draw.rounded_rectangle((x - side, y - side * 0.6, x + side, y + side * 0.7), 8, fill=tone)
            draw.ellipse((x - side * 0.4, y - side * 0.35, x + side * 0.4, y + side * 0.45), fill=paper)
        elif shape == "mountains":
            draw.rectangle((x - side, y - side * 0.8, x + side, y + side * 0.7), outline=tone, width=3)
            draw.polygon(
                [(x - side * 0.8, y + side * 0.6), (x - side * 0.2, y - side * 0.3), (x + side * 0.3, y + side * 0.6)],
                fill=tone,
            )
        elif shape == "house":
            draw.polygon([(x - side, y), (x, y - side), (x + side, y)], fill=tone)
            draw.rectangle((x - side * 0.7, y, x + side * 0.7, y + side * 0.8), fill=tone)
        words = signs.choose(
            rng.choice(("暂无图片", "该用户未上传图片", "图片走丢了")),
            rng.choice(("no photo", "Photo coming soon", "Image not available")),
        )
        signs.write(canvas, words, (size[0] / 2, size[1] * 0.8), max(13, size[1] // rng.randint(13, 20)), tone)
        return canvas

    def under_review_sign(self, image: Image.Image) -> Image.Image:
        """Cover a picture until a moderator has seen it."""
        covered = change_brightness(pixelate(image, self.rng.randint(3, 7)), self.rng.uniform(0.45, 0.7))
        words = self.signs.choose(
            self.rng.choice(("图片审核中", "涉嫌违规，图片已屏蔽")),
            self.rng.choice(("Image under review", "Removed by moderator")),
        )
        self.signs.write(covered, words, (image.width / 2, image.height / 2), max(16, image.width // 16), WHITE)
        return covered

    def chat_screenshot(self, image: Image.Image) -> Image.Image:
        """Draw a chat between buyer and seller."""
        rng, signs = self.rng, self.signs
        canvas = Image.new("RGB", (330, rng.randint(520, 640)), rng.choice(((237, 237, 237), WHITE, (226, 236, 228))))
        draw = ImageDraw.Draw(canvas)
        draw.rectangle((0, 0, 330, 52), fill=(246, 246, 246))
        signs.write(
            canvas, rng.choice(texts.USERS) if signs.path else f"buyer {rng.randint(10, 99)}", (165, 30), 17, INK
        )
        colour = rng.choice(((150, 236, 106), (180, 214, 255), (220, 248, 198)))
        y = 76
        while y < canvas.height - 80:
            words = texts.fill(
                rng.choice(texts.BAD["buyer_question"]["zh" if signs.path else "en"]),
                "en",
                {"place": rng.choice(texts.EN_PLACES if not signs.path else texts.ZH_PLACES)},
                rng,
            )
            words = words[: (13 if signs.path else 26)]
            is_own = rng.random() < 0.5
            wide = int(signs.font(15).getlength(words)) + 24
            left = 330 - 56 - wide if is_own else 56
            draw.rounded_rectangle((left, y, left + wide, y + 38), 8, fill=colour if is_own else WHITE)
            signs.write(canvas, words, (left + 12, y + 19), 15, INK, "lm")
            avatar = (286, y, 322, y + 36) if is_own else (10, y, 46, y + 36)
            draw.rectangle(avatar, fill=(rng.randint(90, 220), rng.randint(90, 220), rng.randint(90, 220)))
            y += rng.choice((50, 56, 74))
        return canvas

    def contact_card(self, image: Image.Image) -> Image.Image:
        """Draw a card with a code to be scanned."""
        rng, signs = self.rng, self.signs
        code = cv2.QRCodeEncoder.create().encode(f"https://u.jiuwu.example/{rng.getrandbits(48):012x}")
        code_image = Image.fromarray(cv2.resize(code, (220, 220), interpolation=cv2.INTER_NEAREST)).convert("RGB")
        paper = rng.choice((WHITE, (34, 160, 90), (30, 130, 230), (246, 240, 228)))
        canvas = Image.new("RGB", (320, rng.randint(390, 450)), paper)
        canvas.paste(ImageOps.expand(code_image, 10, WHITE), (40, 100))
        ink = INK if sum(paper) > 500 else WHITE
        signs.write(canvas, rng.choice(texts.USERS[1::3]), (160, 40), 20, ink)
        signs.write(
            canvas,
            signs.choose(
                rng.choice(("扫一扫加我微信", "扫码支付", "进群看更多闲置")),
                rng.choice(("Scan to add me", "Scan to pay", "Join our group")),
            ),
            (160, 365),
            18,
            ink,
        )
        return canvas

    def sale_text_card(self, image: Image.Image) -> Image.Image:
        """Draw a card of nothing but promises."""
        rng, signs = self.rng, self.signs
        upper = (rng.randint(180, 250), rng.randint(40, 190), rng.randint(30, 120))
        lower = tuple(max(0, level - rng.randint(20, 90)) for level in upper)
        canvas = make_gradient(rng.choice((360, 420, 480)), rng.choice((260, 320, 420)), upper, lower)
        lines = rng.sample(
            (
                ("全场包邮", "FREE POSTAGE"),
                ("搬家清仓", "MOVING OUT"),
                ("先到先得", "FIRST COME FIRST SERVED"),
                ("不满意包退", "MONEY BACK"),
                ("关注店铺减五元", "FOLLOW ME -5%"),
                ("春节不打烊", "OPEN ALL WEEK"),
                ("新人红包", "WELCOME GIFT"),
            ),
            rng.randint(2, 4),
        )
        for index, line in enumerate(lines):
            y = canvas.height * (index + 1) / (len(lines) + 1)
            size = int(canvas.width / (7 if signs.path else 13) * (1.25 if index == 0 else 0.8))
            signs.write(canvas, signs.choose(*line), (canvas.width / 2, y), size, rng.choice((WHITE, (255, 240, 120))))
        return canvas

    def covered_lens(self, image: Image.Image) -> Image.Image:
        """Make a picture that was taken in a pocket or with a finger on the lens."""
        rng = self.rng
        noise = np.random.default_rng(rng.getrandbits(32))
        height, width = image.height, image.width
        tone = np.array(rng.choice(((92, 30, 22), (14, 13, 14), (120, 62, 46), (40, 22, 18))), np.float32)
        shade = make_smooth_noise(noise, height, width, (2, 2), 0.2)[..., None]
        pixels = tone * (1 + shade * 0.25) + noise.normal(0, 3, (height, width, 3))
        return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.2))

    def motion_smear(self, image: Image.Image) -> Image.Image:
        """Smear a picture until nothing can be made out."""
        length = int(max(image.size) * self.rng.uniform(0.28, 0.45))
        kernel = np.zeros((length, length), np.float32)
        angle = self.rng.uniform(-1.2, 1.2)
        middle = length / 2
        reach = (math.cos(angle) * middle, math.sin(angle) * middle)
        ends = [
            (round(middle - reach[0]), round(middle - reach[1])),
            (round(middle + reach[0]), round(middle + reach[1])),
        ]
        cv2.line(kernel, ends[0], ends[1], 1.0, 2)
        smeared = cv2.filter2D(np.asarray(blur(image, 5)), -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)
        return Image.fromarray(smeared)

    def half_upload(self, image: Image.Image) -> Image.Image:
        """Cut the file off: the rest of the picture is grey or smeared."""
        content = encode_image(image, "jpg", 85)
        cut = content[: int(len(content) * self.rng.uniform(0.2, 0.4))]
        # libjpeg fills what is missing with grey.
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
        try:
            return Image.open(io.BytesIO(cut)).convert("RGB")
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before

    def order_page(self, image: Image.Image) -> Image.Image:
        """Draw the page of an order or a parcel."""
        rng, signs = self.rng, self.signs
        canvas = Image.new("RGB", (340, rng.randint(480, 620)), (244, 244, 246))
        draw = ImageDraw.Draw(canvas)
        draw.rectangle((0, 0, 340, 70), fill=rng.choice(((250, 120, 40), (40, 120, 200), (60, 60, 70))))
        signs.write(
            canvas,
            signs.choose(
                rng.choice(("订单详情", "物流信息", "转账成功")),
                rng.choice(("Order details", "Tracking", "Payment sent")),
            ),
            (170, 38),
            20,
            WHITE,
        )
        y = 96
        labels = (
            ("订单编号", "Order no."),
            ("付款时间", "Paid"),
            ("实付款", "Total"),
            ("快递单号", "Parcel"),
            ("收货人", "Name"),
            ("地址", "Address"),
        )
        while y < canvas.height - 50:
            name = signs.choose(*rng.choice(labels))
            draw.rectangle((10, y - 18, 330, y + 18), fill=WHITE)
            signs.write(canvas, name, (20, y), 15, (120, 120, 124), "lm")
            signs.write(canvas, f"{rng.randrange(10**9, 10**10)}", (320, y), 15, INK, "rm")
            y += rng.choice((42, 46, 60))
        return canvas

    def hidden_by_marks(self, image: Image.Image) -> Image.Image:
        """Cover a picture with so many marks that little of it is left."""
        rng = self.rng
        covered = tint(image, (235, 235, 235), rng.uniform(0.3, 0.45))
        for size in (52, 38, 30):
            words = self.signs.choose(rng.choice(("旧物集市网", "请勿下载")), rng.choice(("FLEACORNER", "DO NOT COPY")))
            covered = self.signs.tile(covered, words, rng.uniform(0.8, 0.95), size)
        return covered


IMAGE_KINDS = (
    "no_picture_sign",
    "under_review_sign",
    "chat_screenshot",
    "contact_card",
    "sale_text_card",
    "covered_lens",
    "motion_smear",
    "half_upload",
    "order_page",
    "hidden_by_marks",
)
