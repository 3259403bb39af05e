"""Pictures of a cooking community: scenes with what they show, and pictures that show nothing."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
import recipes_texts as texts
from making import (
    WHITE,
    Drawing,
    Photo,
    Signs,
    add_noise,
    blur,
    is_solid,
    make_collage,
    make_gradient,
    paste_drawing,
    pixelate,
    read_drawings,
    recompress,
)
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from recipes_dishes import (
    COLOUR_DISHES,
    DISHES,
    DONENESS,
    HANDLES,
    INGREDIENTS,
    SIDES,
    TOOLS,
    Plan,
    Stove,
    draw_plan,
    lay_tool,
    name_vessel,
)
from recipes_kitchen import (
    MIDDLE,
    PIECES,
    SURFACES,
    VESSEL_COLOURS,
    VESSELS,
    Colour,
    Piece,
    Spot,
    View,
    draw_view,
    heap,
    place_vessel,
    plain,
)

Facts = dict[str, dict[str, str]]

# What the photographs of a cook's trips show, in Chinese; those that are not named here have English captions only.
PHOTOS_ZH = {
    "aloe plant": "芦荟",
    "astronaut in an orange suit": "穿橙色宇航服的宇航员",
    "autumn mountain meadow": "秋天的高山草甸",
    "baboon face": "狒狒的脸",
    "blue forget me not flowers": "蓝色勿忘我",
    "blue lit bridge at night": "夜里亮着蓝灯的桥",
    "brick houses in an old street": "老街上的砖房",
    "bridge at night": "夜里的桥",
    "bridge cables under a blue sky": "蓝天下的桥索",
    "butterfly in the leaves": "叶间的蝴蝶",
    "castle with towers": "有塔楼的城堡",
    "chinese pavilion by the lake": "湖边的中式亭子",
    "citrus fruit slices": "柑橘切片",
    "city street at sunset": "日落时的街道",
    "colorful paint brushes": "彩色画笔",
    "colorful plastic cups": "彩色塑料杯",
    "cup of coffee on a wooden table": "木桌上的一杯咖啡",
    "cut fig on a red plate": "红盘子里切开的无花果",
    "dandelions in evening light": "夕阳里的蒲公英",
    "dark blue lake at night": "夜里深蓝的湖",
    "desert dunes under a blue sky": "蓝天下的沙丘",
    "dog at a wooden door": "木门前的狗",
    "dragonfly on leaves": "叶子上的蜻蜓",
    "fallen maple leaf": "落下的枫叶",
    "forest stream with rocks": "林间溪流和石头",
    "ginger cat face": "橘猫的脸",
    "glass tower under a pink sky": "粉色天空下的玻璃大楼",
    "grass on sand dunes": "沙丘上的草",
    "green circuit board": "绿色电路板",
    "green fern leaves": "绿色的蕨叶",
    "green grass": "青草",
    "green palm leaf": "绿色棕榈叶",
    "green tea gardens in mist": "雾中的绿茶园",
    "grey moon surface": "灰色的月面",
    "honey bee on a purple flower": "紫花上的蜜蜂",
    "jellyfish in blue sea": "蓝海里的水母",
    "kite in a cloudy sky": "多云天空里的风筝",
    "ladybird on blue flowers": "蓝花上的瓢虫",
    "lake in brown mountains": "褐色群山里的湖",
    "lamp with a flying bird": "灯和飞鸟",
    "monarch butterfly wing": "帝王蝶的翅膀",
    "mountain lake with snow peaks": "雪山下的湖",
    "night lights of the earth": "地球的夜间灯光",
    "ocean waves": "海浪",
    "orange dahlia flower": "橙色大丽花",
    "orange flower macro": "橙色花朵微距",
    "orange nebula": "橙色星云",
    "oranges and kiwi fruit": "橙子和猕猴桃",
    "osprey in a tree": "树上的鱼鹰",
    "otters on a tree trunk": "树干上的水獭",
    "pale wood grain": "浅色木纹",
    "path in a dark forest": "幽暗林间的小路",
    "pier in grey fog": "灰雾中的栈桥",
    "pink dahlia flower": "粉色大丽花",
    "potted grass by a wall": "墙边的盆栽草",
    "purple canyon": "紫色的峡谷",
    "purple sea at dusk": "黄昏的紫色海面",
    "radio telescope": "射电望远镜",
    "rain drops on green leaves": "绿叶上的雨滴",
    "red and yellow garden flower": "红黄相间的花",
    "red canyon walls": "红色的峡谷岩壁",
    "red desert dune with hikers": "有徒步者的红色沙丘",
    "red flower in green moss": "绿苔里的红花",
    "red motorcycle in a garage": "车库里的红摩托",
    "rocket on the launch pad at night": "夜里发射台上的火箭",
    "roman colosseum": "罗马斗兽场",
    "rowing boats in evening glow": "晚霞里的小船",
    "satellite over the coast": "海岸上空的卫星",
    "seed with wings on orange": "橙色底上带翅的种子",
    "skyline of a city at dusk": "黄昏的城市天际线",
    "small bird on a rock": "石头上的小鸟",
    "snow peak at dusk": "黄昏的雪峰",
    "spiral courtyard with lamps": "有灯的螺旋庭院",
    "star trails over hills": "山丘上的星轨",
    "stone path in the mountains": "山里的石板路",
    "storm clouds over a road": "公路上的乌云",
    "sunset by the pier": "码头日落",
    "sunset over hills": "山丘上的日落",
    "toy shells and fabric": "玩具贝壳和布料",
    "tree trunk in the snow": "雪里的树干",
    "water drop on blue water": "蓝色水面上的水滴",
    "white concrete building": "白色混凝土建筑",
    "white curved facade": "白色弧形立面",
    "white lantern at night": "夜里的白灯笼",
    "white roof tiles": "白色屋瓦",
    "white tower from below": "仰望白塔",
    "wine glass in a cellar": "酒窖里的酒杯",
    "wooden pier by the water": "水边的木栈桥",
    "wooden sign in the desert": "沙漠里的木牌",
    "yellow flower petals on grey": "灰底上的黄色花瓣",
    "yellow flower petals": "黄色花瓣",
}  # fmt: skip

# Nobody photographs these on a trip: they are wallpapers and pictures that people like.
FAR_FROM_KITCHENS = {
    "astronaut", "baboon", "board", "earth", "jellyfish", "moon", "nebula", "rocket", "satellite", "telescope",
    "trails",
}  # fmt: skip

COLOUR_NAMES: dict[str, tuple[str, Colour]] = {
    "green": ("绿色", (62, 120, 84)),
    "red": ("红色", (178, 52, 44)),
    "blue": ("蓝色", (56, 92, 142)),
    "yellow": ("黄色", (228, 184, 78)),
    "white": ("白色", (232, 230, 224)),
    "brown": ("棕色", (126, 84, 56)),
    "grey": ("灰色", (140, 142, 144)),
    "pink": ("粉色", (232, 180, 184)),
    "dark": ("深色", (58, 52, 50)),
}  # fmt: skip

DRAWN_FOOD = (
    "bento box", "sushi", "pizza", "hamburger", "strawberry", "watermelon", "pineapple", "grapes", "cherries",
    "peach", "pear", "avocado", "eggplant", "carrot", "ear of corn", "broccoli", "mushroom", "croissant", "bread",
    "pretzel", "bagel", "pancakes", "waffle", "cheese wedge", "meat on bone", "bacon", "french fries", "hot dog",
    "sandwich", "taco", "burrito", "cooking", "pot of food", "curry rice", "steaming bowl", "spaghetti", "doughnut",
    "cookie", "birthday cake", "shortcake", "cupcake", "pie", "chocolate bar", "candy", "lollipop", "honey pot",
    "hot beverage", "teapot", "bubble tea", "lobster", "crab", "shrimp", "squid", "oyster", "kiwi fruit", "tomato",
    "olive", "coconut", "garlic", "onion", "chestnut", "moon cake", "dumpling", "fortune cookie", "takeout box",
    "ice cream", "shaved ice", "lemon", "banana", "mango", "red apple", "green apple", "potato", "cucumber",
    "leafy green", "hot pepper", "jar",
)  # fmt: skip
STICKERS = ("red heart", "star", "fire", "sparkles", "face savoring food", "thumbs up", "party popper", "sun with face")

MENU_ITEMS = (
    ("牛肉面", "beef noodles"), ("馄饨", "wonton soup"), ("小笼包", "soup dumplings"), ("炒饭", "fried rice"),
    ("酸辣汤", "hot and sour soup"), ("凉拌黄瓜", "cucumber salad"), ("宫保鸡丁", "kung pao chicken"), ("麻婆豆腐",
    "mapo tofu"), ("葱油饼", "scallion pancake"), ("豆浆", "soy milk"), ("拿铁", "latte"), ("柠檬茶", "lemon tea"),
    ("蛋挞", "egg tart"), ("芝士蛋糕", "cheesecake"), ("烤鸡", "roast chicken"), ("煎饺", "fried dumplings"),
    ("春卷", "spring rolls"), ("清蒸鱼", "steamed fish"),
)  # fmt: skip
CHART_FOODS = (
    ("米饭", "rice"), ("面条", "noodles"), ("鸡胸", "chicken breast"), ("牛肉", "beef"), ("豆腐", "tofu"), ("鸡蛋",
    "eggs"), ("牛油果", "avocado"), ("苹果", "apples"), ("香蕉", "bananas"), ("花生", "peanuts"), ("三文鱼",
    "salmon"), ("土豆", "potatoes"),
)  # fmt: skip
QUANTITIES = (
    ("热量", "calories"), ("蛋白质", "protein"), ("脂肪", "fat"), ("膳食纤维", "fibre"), ("价格", "prices"),
    ("含糖量", "sugar"),
)  # fmt: skip
JARS = (
    ("花生", "PEANUTS", "peanut"), ("芝麻", "SESAME", "sesame"), ("珍珠", "TAPIOCA", "tapioca"), ("豆", "BEANS",
    "red_bean"), ("坚果", "NUTS", "almond"), ("红枣", "DATES", "date"), ("燕麦", "OATS", "oat"), ("辣椒", "CHILLI",
    "dried_chili"), ("枸杞", "GOJI", "goji"), ("玉米", "CORN", "corn_kernel"),
)  # fmt: skip


BASES = {"pour": ("汤汁", "liquid"), "tangle": ("面条", "noodles"), "grains": ("米饭", "rice")}


@dataclass(frozen=True)
class Scene:
    """A picture, what it shows and how it was made, so that one that resembles it can be made.

    Args:
        subject: scenes of one subject may exchange their captions without being wrong.
    """

    image: Image.Image
    topic: str
    facts: Facts
    subject: str
    plan: Plan | None = None
    view: View | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def languages(self) -> list[str]:
        return [language for language in ("zh", "en") if self.facts.get(language)]

    def write_caption(self, language: str, rng: random.Random) -> str:
        return texts.write_caption(self.topic, language, self.facts[language], rng)


def name_pieces(names: list[str]) -> tuple[list[str], list[str]]:
    return [PIECES[name].zh for name in names], [PIECES[name].en for name in names]


class Kitchen:
    """Makes the good pictures.

    Args:
        stove: turns plans into tables.
        signs: writes into pictures.
        rng: draws what is shown.
        drawings: drawings of food, for illustrations.
    """

    def __init__(self, stove: Stove, signs: Signs, rng: random.Random, drawings: list[Drawing]) -> None:
        self.stove, self.signs, self.rng = stove, signs, rng
        self.drawings = [drawing for drawing in drawings if is_solid(drawing.image)]

    def make_any(self) -> Scene:
        """Make a scene of any sort, most often a dish."""
        makers: tuple[Callable[[], Scene], ...] = (
            self.make_dish,
            self.make_step,
            self.make_ingredients,
            self.make_market,
            self.make_thing,
            self.make_tool,
            self.make_table,
            self.make_storefront,
            self.make_interior,
            self.make_variant,
            self.make_drawing,
        )
        return self.rng.choices(makers, (46, 10, 8, 5, 5, 8, 6, 3, 3, 4, 4))[0]()

    # -----------------------------------------------------------------------------------------------------------------
    # Tables

    def make_dish(self, plan: Plan | None = None, view: View | None = None) -> Scene:
        plan, view = plan or draw_plan(self.rng), view or draw_view(self.rng)
        return Scene(
            self.stove.cook(plan).photograph(view), "dish", self.describe(plan), f"dish {plan.dish_name}", plan, view
        )

    def describe(self, plan: Plan) -> Facts:
        dish, vessel = plan.dish, name_vessel(plan)
        pieces = name_pieces(dish.pieces)
        surface, side = SURFACES[plan.surface], SIDES[plan.side]
        garnish = PIECES[plan.garnish] if plan.garnish else None
        facts: Facts = {}
        for index, language in enumerate(("zh", "en")):
            # "Mapo tofu with tofu" is what nobody writes.
            title = (dish.zh, dish.en)[index]
            words = [word for word in pieces[index] if not set(word.split()) & set(title.split()) and word not in title]
            facts[language] = {
                "dish": title,
                "sort": dish.sort,
                "vessel": vessel[index],
                "measure": VESSELS[plan.vessel].measure,
                "surface": surface[index],
                "side": side[index],
                "garnish": (garnish.zh, garnish.en)[index] if garnish else "",
                "main": texts.join_words(words[:3], language),
                "first": words[0] if words else "",
            }
        return facts

    def make_step(self, plan: Plan | None = None, view: View | None = None, num_layers: int | None = None) -> Scene:
        """Show a vessel before all of the dish is in it."""
        rng = self.rng
        if plan is None:
            names = [name for name, dish in DISHES.items() if len(dish.layers) > 1]
            plan = replace(draw_plan(rng, rng.choice(names)), side="", garnish="")
        view = view or draw_view(rng)
        layers = plan.dish.layers
        if num_layers is None:
            num_layers = 0 if rng.random() < 0.12 else rng.randint(1, len(layers) - 1)
        plan = replace(plan, num_layers=num_layers)
        visible = replace(plan.dish, layers=layers[:num_layers])
        following = replace(plan.dish, layers=layers[num_layers:]).pieces
        facts = self.describe(plan)
        for index, language in enumerate(("zh", "en")):
            words = name_pieces(visible.pieces)[index]
            if num_layers and not words:  # what is no piece: a soup, noodles or rice
                words = [BASES[layers[num_layers - 1][0]][index]]
            facts[language]["main"] = texts.join_words(words[:3], language)
            facts[language]["first"] = words[0] if words else ""
            facts[language]["next"] = name_pieces(following)[index][0] if following else ""
        topic = "step" if num_layers else "empty_step"
        image = self.stove.cook(plan).photograph(view)
        return Scene(image, topic, facts, f"dish {plan.dish_name}", plan, view)

    def make_ingredients(self) -> Scene:
        rng = self.rng
        names = rng.sample(INGREDIENTS, rng.randint(2, 5))
        counts = [rng.randint(1, 3) for _ in names]
        surface, view = rng.choice(list(SURFACES)), draw_view(rng)
        image = self.stove.lay_out(names, counts, surface, rng.getrandbits(32)).photograph(replace(view, zoom=1.1))
        return Scene(image, "ingredients", self.describe_list(names, surface), "ingredients")

    def describe_list(self, names: list[str], surface: str) -> Facts:
        pieces = name_pieces(names)
        lists = [texts.join_words(pieces[index], language) for index, language in enumerate(("zh", "en"))]
        surfaces = SURFACES[surface]
        # "dish" is empty: nothing shows what the ingredients are for.
        return {
            language: {"list": lists[index], "surface": surfaces[index], "dish": "", "thing": lists[index]}
            for index, language in enumerate(("zh", "en"))
        }

    def make_market(self, name: str = "") -> Scene:
        rng = self.rng
        name = name or rng.choice([name for name in INGREDIENTS if PIECES[name].size > 8])
        view = replace(draw_view(rng), zoom=rng.uniform(1.2, 1.7))
        image = self.stove.pile(name, rng.getrandbits(32)).photograph(view)
        facts = {"zh": {"thing": PIECES[name].zh}, "en": {"thing": PIECES[name].en}}
        return Scene(image, "market", facts, f"piece {name}")

    def make_thing(self, name: str = "") -> Scene:
        """Show a few of one ingredient."""
        rng = self.rng
        name = name or rng.choice([name for name in INGREDIENTS if PIECES[name].size >= 10])
        count, surface = rng.randint(1, 4), rng.choice(list(SURFACES))
        table = self.stove.lay_out([name], [count], surface, rng.getrandbits(32))
        facts = self.describe_list([name], surface)
        facts["zh"]["count"] = f"{'一两三四'[count - 1]}份" if name in ("greens", "raw_beef", "bean_sprout") else ""
        facts["en"]["count"] = ("", "two", "three", "four")[count - 1]
        image = table.photograph(replace(draw_view(rng), zoom=rng.uniform(1.4, 2.2)))
        return Scene(image, "one_thing", facts, f"piece {name}")

    def make_tool(
        self, name: str = "", handle: str = "", view: View | None = None, surface: str = "", turn: float | None = None
    ) -> Scene:
        rng = self.rng
        name, surface = name or rng.choice(list(TOOLS)), surface or rng.choice(list(SURFACES))
        vessel = "bowl" if name == "bowls" else name
        if vessel in VESSELS:
            colour = handle or rng.choice(VESSELS[vessel].colours)
            words: tuple[str, str] = (VESSEL_COLOURS[colour][0], VESSEL_COLOURS[colour][1] + " finish")
            grip: Colour = (40, 40, 42)
        else:
            colour = handle or rng.choice(list(HANDLES))
            words, grip = (HANDLES[colour][0], "a " + HANDLES[colour][1]), HANDLES[colour][2]
        turn = rng.uniform(0, 6.3) if turn is None else turn
        table = self.stove.clear_table(Plan("toast", "plate", "white", surface, rng.getrandbits(32)))
        lay_tool(table, name, grip, colour, turn)
        view = view or replace(draw_view(rng), zoom=rng.uniform(1.02, 1.2))
        zh, en, unit = TOOLS[name]
        facts: Facts = {
            "zh": {"tool": zh, "unit": unit, "colour": words[0], "surface": SURFACES[surface][0]},
            "en": {"tool": en, "colour": words[1], "surface": SURFACES[surface][1]},
        }
        extra = {"name": name, "handle": colour, "surface": surface, "turn": turn}
        return Scene(table.photograph(view), "tool", facts, f"tool {name}", None, view, extra)

    def make_table(self) -> Scene:
        """Show three or four dishes on one table."""
        rng = self.rng
        names = [name for name, dish in DISHES.items() if dish.vessels[0] in ("plate", "bowl", "oval_plate")]
        plans = []
        for name in rng.sample(names, rng.choice((3, 4))):
            plan = draw_plan(rng, name)
            vessel = "bowl" if "bowl" in plan.dish.vessels else "plate"
            plans.append(replace(plan, vessel=vessel, colour=rng.choice(VESSELS[vessel].colours)))
        surface = rng.choice(list(SURFACES))
        image = self.stove.set_table(plans, surface, rng.getrandbits(32)).photograph(replace(draw_view(rng), zoom=1.06))
        lists = (
            texts.join_words([plan.dish.zh for plan in plans], "zh"),
            texts.join_words([plan.dish.en for plan in plans], "en"),
        )
        facts = {
            language: {"list": lists[index], "surface": SURFACES[surface][index]}
            for index, language in enumerate(("zh", "en"))
        }
        return Scene(image, "table", facts, "table")

    def make_variant(self, piece: str = "", index: int | None = None, like: Scene | None = None) -> Scene:
        """Show a sweet in one of its colours, if told on the table of another scene."""
        rng = self.rng
        dish_names = {
            "macaron": "macarons",
            "cupcake": "cupcakes",
            "doughnut": "doughnuts",
            "ice_cream": "ice_cream",
            "mantou": "mantou",
            "cake": "cream_cake",
        }
        nouns = {
            "macaron": ("马卡龙", "macarons"),
            "cupcake": ("纸杯蛋糕", "cupcakes"),
            "doughnut": ("甜甜圈", "doughnuts"),
            "ice_cream": ("冰淇淋", "ice cream"),
            "mantou": ("馒头", "steamed buns"),
            "cake": ("水果蛋糕", "cake with fruit"),
        }
        piece = piece or rng.choice(list(COLOUR_DISHES))
        index = rng.randrange(len(COLOUR_DISHES[piece])) if index is None else index
        zh, en, colour = COLOUR_DISHES[piece][index]
        plan = like.plan if like and like.plan else draw_plan(rng, dish_names[piece])
        view = like.view if like and like.view else draw_view(rng)
        plan = replace(plan, recolour=(piece, colour))
        facts: Facts = {
            "zh": {"variant": zh, "thing": nouns[piece][0], "surface": SURFACES[plan.surface][0]},
            "en": {"variant": en, "thing": nouns[piece][1], "surface": SURFACES[plan.surface][1]},
        }
        image = self.stove.cook(plan).photograph(view)
        return Scene(image, "variant", facts, f"dish {plan.dish_name}", plan, view, {"piece": piece, "index": index})

    def make_doneness(self, name: str, index: int, like: Scene | None = None) -> Scene:
        """Show a dish paler or browner."""
        zh, en, shade = DONENESS[name][index]
        plan = like.plan if like and like.plan else draw_plan(self.rng, name)
        view = like.view if like and like.view else draw_view(self.rng)
        # Above 1 it is not done yet: less brown of the oven, more of the dough.
        plan = replace(plan, shade=min(shade, 1.06), rawness=max(0.0, min(0.8, (shade - 1) * 2)))
        facts: Facts = {
            "zh": {"variant": zh, "thing": plan.dish.zh, "surface": SURFACES[plan.surface][0]},
            "en": {"variant": en, "thing": plan.dish.en.removeprefix("a "), "surface": SURFACES[plan.surface][1]},
        }
        return Scene(self.stove.cook(plan).photograph(view), "variant", facts, f"dish {name}", plan, view)

    def make_jar(
        self, index: int | None = None, label: str = "", seed: int | None = None, view: View | None = None
    ) -> Scene:
        """Show a bowl with a card; `label` replaces the word that belongs on it."""
        rng = self.rng
        index = rng.randrange(len(JARS)) if index is None else index
        zh, en, piece_name = JARS[index]
        seed, view = (
            rng.getrandbits(32) if seed is None else seed,
            view or replace(draw_view(rng), turn=0, tilt=0.05, zoom=1.1, size=(380, 400)),
        )
        surface = random.Random(f"{seed} surface").choice(list(SURFACES))  # noqa: S311
        table = self.stove.clear_table(Plan("toast", "plate", "white", surface, seed))
        table.rng = random.Random(f"{seed} jar")  # noqa: S311
        room = place_vessel(table, "bowl", "white", MIDDLE, MIDDLE - 34, 98)
        heap(table, Spot(MIDDLE, MIDDLE - 34, room, 10), [piece_name], 190)
        card = Piece("", "", 34, plain((240, 234, 214)), 2.4, 2, 9, 0, "flat", 0.05)
        table.stamp(card, MIDDLE, MIDDLE + 104, 1, 0, 2)
        word = label or self.signs.choose(zh, en)
        layer = Image.new("L", (160, 64))
        self.signs.write(layer, word, (80, 32), min(40, 190 // len(word)), 255)
        ink = np.asarray(layer, np.float32)[..., None] / 255
        top, left = int(MIDDLE + 104 - 32), int(MIDDLE - 80)
        window = (slice(top, top + 64), slice(left, left + 160))
        table.colour[window] *= 1 - 0.85 * ink
        facts: Facts = {
            "zh": {"word": word, "thing": PIECES[piece_name].zh, "surface": SURFACES[surface][0]},
            "en": {"word": word, "thing": PIECES[piece_name].en, "surface": SURFACES[surface][1]},
        }
        extra = {"index": index, "seed": seed, "word": word}
        return Scene(table.photograph(view), "label", facts, f"jar {index}", None, view, extra)

    # -----------------------------------------------------------------------------------------------------------------
    # Places, prints and drawings

    def show_photo(self, photo: Photo) -> Scene:
        """Take a photograph of a trip, or the dish that replaces one when there are no more."""
        if isinstance(photo, MadePhoto):
            return photo.scene
        facts: Facts = {"en": {"thing": photo.name}}
        if photo.name in PHOTOS_ZH:
            facts["zh"] = {"thing": PHOTOS_ZH[photo.name]}
        is_far = bool(FAR_FROM_KITCHENS & set(photo.name.split()))
        return Scene(photo.image, "picture" if is_far else "photo", facts, f"photo {photo.name}")

    def make_storefront(self, name_index: int | None = None, awning: str = "", seed: int | None = None) -> Scene:
        """Paint the front of a restaurant, with grain and softness of a photograph."""
        rng = self.rng
        name_index = rng.randrange(len(texts.RESTAURANTS["zh"])) if name_index is None else name_index
        awning, seed = (
            awning or rng.choice(("green", "red", "blue", "yellow", "white", "brown")),
            seed or rng.getrandbits(32),
        )
        dice = random.Random(seed)  # noqa: S311
        wall = dice.choice(("white", "brown", "grey", "yellow", "pink", "dark"))
        names = texts.RESTAURANTS["zh"][name_index], texts.RESTAURANTS["en"][name_index]
        width, height = dice.randint(380, 460), dice.randint(300, 380)
        image = Image.new("RGB", (width, height), COLOUR_NAMES[wall][1])
        draw = ImageDraw.Draw(image)
        if dice.random() < 0.5:  # bricks
            for line, top in enumerate(range(0, height, 14)):
                for left in range(-(line % 2) * 16, width, 32):
                    tone = tuple(int(level * dice.uniform(0.86, 1.06)) for level in COLOUR_NAMES[wall][1])
                    draw.rectangle((left, top, left + 30, top + 12), tone)
        ground = int(height * 0.86)
        draw.rectangle((0, ground, width, height), (104, 102, 100))
        sign_top = int(height * dice.uniform(0.06, 0.14))
        sign_height = int(height * 0.14)
        board = dice.choice(((50, 40, 34), (130, 34, 30), (34, 60, 50), (230, 222, 204)))
        draw.rectangle((24, sign_top, width - 24, sign_top + sign_height), board)
        lettering = (240, 214, 150) if sum(board) < 400 else (70, 44, 30)
        text = self.signs.choose(*names)
        size = min(int(sign_height * 0.6), int((width - 70) / len(text) / (1.05 if self.signs.path else 0.58)))
        self.signs.write(image, text, (width / 2, sign_top + sign_height / 2), size, lettering)

        top = int(height * 0.42)
        door_left = dice.choice((36, width - 116))
        panes = [
            (width // 2 - 60 + offset, top, width // 2 + 70 + offset, ground - 34)
            for offset in ((46,) if door_left < 100 else (-46,))
        ]
        glow = dice.choice(((240, 196, 120), (226, 170, 96), (150, 170, 180)))
        for box in [*panes, (door_left, top, door_left + 76, ground)]:
            pane = make_gradient(box[2] - box[0], box[3] - box[1], glow, tuple(level * 0.5 for level in glow))
            inside = ImageDraw.Draw(pane)
            for _ in range(7):
                x, y = dice.randint(0, pane.width), dice.randint(pane.height // 2, pane.height)
                inside.ellipse(
                    (x - 10, y - 14, x + 10, y + 30), tuple(int(level * dice.uniform(0.2, 0.6)) for level in glow)
                )
            image.paste(pane.filter(ImageFilter.GaussianBlur(2)), box[:2])
            draw.rectangle(box, outline=(60, 46, 38), width=5)
            draw.line(((box[0] + box[2]) // 2, box[1], (box[0] + box[2]) // 2, box[3]), (60, 46, 38), 3)
        stripe = COLOUR_NAMES[awning][1]
        awning_top, awning_bottom = int(height * 0.31), int(height * 0.44)
        for index, left in enumerate(range(14, width - 14, 24)):
            tone = stripe if index % 2 == 0 or awning == "white" else (236, 232, 224)
            draw.polygon(
                ((left, awning_top), (left + 24, awning_top), (left + 26, awning_bottom), (left - 2, awning_bottom)),
                tone,
            )
            draw.pieslice((left - 2, awning_bottom - 9, left + 26, awning_bottom + 9), 0, 180, tone)
        num_plants = dice.randint(1, 4)
        for _ in range(num_plants):
            x = dice.randint(20, width - 20)
            draw.rectangle((x - 13, ground - 14, x + 13, ground + 12), (150, 84, 56))
            for _ in range(26):
                dx, dy = dice.gauss(0, 13), dice.gauss(-34, 13)
                draw.ellipse(
                    (x + dx - 7, ground + dy - 5, x + dx + 7, ground + dy + 5),
                    (40 + dice.randint(0, 40), 90 + dice.randint(0, 60), 44),
                )
        image = self._finish_place(image, dice)
        facts: Facts = {
            "zh": {
                "name": names[0],
                "awning": COLOUR_NAMES[awning][0],
                "wall": COLOUR_NAMES[wall][0],
                "plants": "绿植",
            },
            "en": {"name": names[1], "awning": awning, "wall": wall},
        }
        return Scene(
            image,
            "storefront",
            facts,
            f"front {name_index}",
            extra={"name_index": name_index, "awning": awning, "seed": seed},
        )

    def make_interior(self) -> Scene:
        """Paint the room of a restaurant."""
        dice = random.Random(self.rng.getrandbits(32))  # noqa: S311
        wall = dice.choice(("white", "green", "blue", "brown", "grey", "pink", "yellow"))
        name_index = dice.randrange(len(texts.RESTAURANTS["zh"]))
        width, height = dice.randint(380, 460), dice.randint(290, 360)
        horizon = int(height * dice.uniform(0.46, 0.56))
        tone = COLOUR_NAMES[wall][1]
        image = make_gradient(width, height, tuple(level * 0.66 for level in tone), tone)
        draw = ImageDraw.Draw(image)
        middle = width * dice.uniform(0.35, 0.65)
        for index in range(-18, 19):
            shade = dice.uniform(0.8, 1.1)
            plank = tuple(int(level * shade) for level in (132, 92, 60))
            left, right = middle + index * 22, middle + (index + 1) * 22
            far_left, far_right = middle + index * 90, middle + (index + 1) * 90
            draw.polygon(((left, horizon), (right, horizon), (far_right, height), (far_left, height)), plank)
        for _ in range(dice.randint(1, 4)):  # pictures on the wall
            x, y = dice.randint(20, width - 80), dice.randint(int(height * 0.14), int(height * 0.3))
            draw.rectangle(
                (x, y, x + dice.randint(34, 64), y + dice.randint(30, 56)),
                dice.choice(((230, 220, 200), (70, 90, 110), (150, 80, 60))),
                (50, 36, 28),
                3,
            )
        num_tables = dice.randint(2, 5)
        rows = sorted(dice.uniform(horizon + 22, height * 0.92) for _ in range(num_tables))
        for y in rows:
            near = (y - horizon) / (height - horizon)
            x, half = dice.uniform(width * 0.12, width * 0.88), 30 + 70 * near
            draw.rectangle((x - half * 0.08, y, x + half * 0.08, y + half * 0.9), (50, 38, 32))
            for side in (-1, 1):
                seat = x + side * half * 1.15
                draw.rectangle((seat - half * 0.26, y - half * 0.42, seat + half * 0.26, y + half * 0.1), (84, 54, 38))
                draw.rectangle((seat - half * 0.26, y + half * 0.2, seat + half * 0.26, y + half * 0.34), (104, 68, 46))
            draw.ellipse((x - half, y - half * 0.26, x + half, y + half * 0.26), (176, 128, 84), (110, 76, 50), 2)
            for dish in range(2):
                dx = (dish - 0.5) * half * 0.8
                draw.ellipse(
                    (x + dx - half * 0.24, y - half * 0.1, x + dx + half * 0.24, y + half * 0.08), (236, 234, 228)
                )
                draw.ellipse(
                    (x + dx - half * 0.14, y - half * 0.07, x + dx + half * 0.14, y + half * 0.04),
                    dice.choice(((190, 60, 40), (90, 140, 60), (210, 160, 80))),
                )
        num_lamps = dice.randint(1, 5)
        light = np.zeros((height, width), np.float32)
        for index in range(num_lamps):
            x, y = int(width * (index + 0.7) / (num_lamps + 0.4)), int(height * dice.uniform(0.14, 0.26))
            draw.line((x, 0, x, y), (40, 36, 34), 2)
            draw.pieslice(
                (x - 17, y - 12, x + 17, y + 22), 180, 360, dice.choice(((46, 44, 44), (170, 60, 44), (196, 150, 80)))
            )
            draw.ellipse((x - 7, y, x + 7, y + 12), (255, 240, 200))
            cv2.circle(light, (x, y + 6), 30, 1.0, -1)
        glow = cv2.GaussianBlur(light, (0, 0), 26)[..., None] * np.float32((150, 110, 60))
        pixels = np.clip(np.asarray(image, np.float32) * 0.92 + glow, 0, 255).astype(np.uint8)
        image = self._finish_place(Image.fromarray(pixels), dice)
        numbers = "一两三四五"
        names = texts.RESTAURANTS["zh"][name_index], texts.RESTAURANTS["en"][name_index]
        facts: Facts = {
            "zh": {
                "name": names[0],
                "wall": COLOUR_NAMES[wall][0],
                "lamps": numbers[num_lamps - 1],
                "tables": numbers[num_tables - 1],
            },
            "en": {"name": names[1], "wall": wall, "lamps": str(num_lamps), "tables": str(num_tables)},
        }
        if num_lamps == 1:
            facts["en"]["lamps"] = ""
        return Scene(image, "interior", facts, "interior")

    def _finish_place(self, image: Image.Image, dice: random.Random) -> Image.Image:
        """Light a painted place unevenly and give it the softness and grain of a telephone."""
        pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(0.8)), np.float32)
        height, width = pixels.shape[:2]
        texture = cv2.resize(dice.choice(self.stove.textures.coarse), (width, height))
        fine = cv2.resize(dice.choice(self.stove.textures.fine), (width, height))
        slope = np.linspace(dice.uniform(0.75, 1), dice.uniform(1, 1.2), width, dtype=np.float32)[None, :, None]
        pixels = pixels * slope * (1 + 0.05 * texture + 0.05 * fine)[..., None]
        lean = dice.uniform(0, 0.07)
        inner = np.float32([[width * lean, 0], [width * (1 - lean), 0], [width, height], [0, height]])
        outer = np.float32([[0, 0], [width, 0], [width, height], [0, height]])
        pixels = cv2.warpPerspective(pixels, cv2.getPerspectiveTransform(inner, outer), (width, height))
        return add_noise(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), 3, dice)

    def make_menu(self, like: Scene | None = None) -> Scene:
        """Write a menu with a few dishes and prices on a board or card, if told in the form of another."""
        rng = self.rng
        layout = (
            like.extra["layout"]
            if like
            else (
                rng.choice(("chalk", "paper", "red", "kraft")),
                rng.randint(4, 7),
                rng.randint(300, 380),
                rng.randrange(len(texts.RESTAURANTS["zh"])),
            )
        )
        form, count, width, name_index = layout
        ground, ink = {
            "chalk": ((42, 48, 46), (236, 232, 220)),
            "paper": ((246, 240, 226), (60, 44, 36)),
            "red": ((150, 32, 30), (248, 216, 130)),
            "kraft": ((196, 164, 120), (66, 44, 30)),
        }[form]
        items = rng.sample(MENU_ITEMS, count)
        prices = [rng.randint(6, 88) for _ in items]
        height = 110 + count * 46
        image = add_noise(Image.new("RGB", (width, height), ground), 4, rng)
        names = texts.RESTAURANTS["zh"][name_index], texts.RESTAURANTS["en"][name_index]
        self.signs.write(image, self.signs.choose(*names), (width / 2 + 12, 40), 23, ink)
        ImageDraw.Draw(image).line((30, 70, width - 30, 70), ink, 2)
        for index, (item, price) in enumerate(zip(items, prices, strict=True)):
            y = 100 + index * 46
            self.signs.write(image, self.signs.choose(*item), (28, y), 21, ink, "lm")
            self.signs.write(image, str(price), (width - 28, y), 21, ink, "rm")
        drawing = rng.choice(self.drawings).image
        paste_drawing(image, drawing, 34, (26, 40), 0)
        dear = prices.index(max(prices))
        facts: Facts = {}
        for index, language in enumerate(("zh", "en")):
            facts[language] = {
                "name": names[index],
                "first_item": items[0][index],
                "first_price": str(prices[0]),
                "second_item": items[1][index],
                "dear_item": items[dear][index],
                "count": str(count),
            }
        return Scene(image, "menu", facts, "menu", extra={"layout": layout})

    def make_chart(self, like: Scene | None = None) -> Scene:
        """Draw a bar chart of foods, if told in the form of another."""
        rng = self.rng
        form = (
            like.extra["form"]
            if like
            else (
                rng.choice(((214, 90, 60), (70, 120, 170), (90, 150, 90), (220, 170, 60))),
                rng.randint(4, 6),
                rng.choice(((440, 320), (400, 340))),
            )
        )
        colour, count, (width, height) = form
        foods, quantity = rng.sample(CHART_FOODS, count), rng.choice(QUANTITIES)
        values = rng.sample(range(12, 100), count)
        image = Image.new("RGB", (width, height), (252, 251, 248))
        draw = ImageDraw.Draw(image)
        self.signs.write(image, self.signs.choose(*quantity).capitalize(), (width / 2, 26), 20, (50, 50, 50))
        for level in range(5):
            y = height - 60 - level * (height - 130) / 4
            draw.line((50, y, width - 20, y), (214, 214, 210), 1)
            self.signs.write(image, str(level * 25), (42, y), 12, (110, 110, 110), "rm")
        pitch = (width - 80) / count
        for index, (food, value) in enumerate(zip(foods, values, strict=True)):
            left = 56 + index * pitch
            draw.rectangle((left, height - 60 - value * (height - 130) / 100, left + pitch * 0.62, height - 60), colour)
            self.signs.write(image, self.signs.choose(*food), (left + pitch * 0.31, height - 42), 13, (70, 70, 70))
        dear = values.index(max(values))
        facts: Facts = {}
        for index, language in enumerate(("zh", "en")):
            facts[language] = {
                "quantity": quantity[index],
                "first_item": foods[0][index],
                "second_item": foods[1][index],
                "last_item": foods[-1][index],
                "dear_item": foods[dear][index],
                "count": str(count),
            }
        return Scene(image, "chart", facts, "chart", extra={"form": form})

    def make_drawing(self) -> Scene:
        """Illustrate a recipe: a drawing on a plain or striped ground, painted softly."""
        rng = self.rng
        drawing, ground = rng.choice(self.drawings), rng.choice(list(COLOUR_NAMES))
        side = rng.randint(320, 420)
        tone = tuple(int(150 + level * 0.41) for level in COLOUR_NAMES[ground][1])
        image = make_gradient(side, side, tone, tuple(int(level * 0.9) for level in tone))
        if rng.random() < 0.5:
            draw = ImageDraw.Draw(image)
            for offset in range(-side, side, 34):
                draw.line((offset, 0, offset + side, side), tuple(min(255, level + 10) for level in tone), 9)
        paste_drawing(
            image, drawing.image, int(side * rng.uniform(0.5, 0.75)), (side // 2, side // 2), 0.3, rng.uniform(-20, 20)
        )
        if rng.random() < 0.5:
            image = add_noise(image.filter(ImageFilter.MedianFilter(5)), 5, rng)
        facts: Facts = {
            "zh": {"thing": drawing.name_zh, "colour_name": COLOUR_NAMES[ground][0]},
            "en": {"thing": drawing.name_en, "colour_name": ground},
        }
        return Scene(image, "drawing", facts, f"drawing {drawing.name_en}")


@dataclass(frozen=True)
class MadePhoto(Photo):
    """A dish in place of a photograph, when there are no more."""

    scene: Scene


# ---------------------------------------------------------------------------------------------------------------------
# Pictures that show nothing

RECIPE_LINES = {
    "zh": ("1. 土豆去皮切丝,泡水{n}分钟", "2. 锅烧热,倒油{n}克", "3. 放蒜末爆香", "4. 大火翻炒{n}分钟",
        "5. 加盐、醋调味", "6. 出锅装盘", "揉面{n}分钟", "醒发{n}分钟", "黄油{n}克软化", "鸡蛋{n}个打散",
        "烤{n}分钟至金黄", "小火炖{n}分钟", "生抽{n}克", "料酒一勺", "冷藏过夜", "面粉 {n}0克", "白糖 {n}克",
        "牛奶 {n}0毫升", "小贴士:火不要太大"),
    "en": ("1. Peel and shred the potatoes, soak {n} min", "2. Heat the pan and add {n} g of oil",
        "3. Fry the garlic until fragrant", "4. Stir over high heat for {n} min", "5. Season with salt and vinegar",
        "6. Serve at once", "Knead for {n} minutes", "Rest the dough {n} min", "Chill overnight",
        "{n} g butter, soft", "1 egg, beaten", "Bake {n} min until golden", "Simmer {n} min, lid on",
        "Soak the beans overnight", "{n} g soy sauce", "1 tbsp rice wine", "A pinch of white pepper", "Serves {n}",
        "{n}0 g flour", "{n} g sugar", "{n}0 ml milk", "Tip: keep the heat low"),
}  # fmt: skip


NUM_PARTS = 60  # pictures that collages share; pictures of one collage differ almost always


class EmptyPictures:
    """Makes pictures that a model should not learn from."""

    def __init__(self, kitchen: Kitchen, take: Callable[[], Scene]) -> None:
        self.kitchen, self.signs, self.rng, self.draw_scene = kitchen, kitchen.signs, kitchen.rng, take
        self.pool: list[Scene] = []
        # A kind is drawn from one or two ways in which it comes about.
        self.makers: dict[str, tuple[Callable[[], Image.Image], ...]] = {
            "collage_2x2": (self.make_collage_2x2,),
            "collage_steps": (self.make_collage_steps,),
            "two_in_one": (self.make_pin_of_two, self.make_before_after),
            "recipe_page": (self.make_recipe_page,),
            "text_screenshot": (self.make_notes_screenshot, self.make_chat_screenshot),
            "qr_code": (self.make_qr_code,),
            "even_or_gradient": (self.make_even, self.make_gradient),
            "placeholder": (self.make_placeholder,),
            "banner": (self.make_banner,),
            "not_loaded": (self.make_lost_preview, self.make_cut_off),
        }

    def make(self, kind: str) -> Image.Image:
        return self.rng.choice(self.makers[kind])()

    def take(self) -> Scene:
        """Return a scene for a part of a picture: a new one, or one that was in another collage."""
        if len(self.pool) < NUM_PARTS:
            self.pool.append(self.draw_scene())
            return self.pool[-1]
        return self.rng.choice(self.pool)

    def make_collage_2x2(self) -> Image.Image:
        return make_collage(
            [self.take().image for _ in range(4)], self.rng.randint(180, 230), self.rng.choice((0, 4, 8))
        )

    def make_collage_steps(self) -> Image.Image:
        """Six steps of a recipe in one picture, numbered."""
        kitchen, rng = self.kitchen, self.rng
        plan = draw_plan(rng, rng.choice([name for name, dish in DISHES.items() if len(dish.layers) > 2]))
        view, side = draw_view(rng), rng.choice((150, 170))
        page = Image.new("RGB", (side * 3 + 8, side * 2 + 4), WHITE)
        for index in range(6):
            step = replace(plan, num_layers=min(index // 2 + index % 2, len(plan.dish.layers)), second_seed=index)
            image = ImageOps.fit(kitchen.stove.cook(step).photograph(replace(view, turn=index * 3)), (side, side))
            ImageDraw.Draw(image).ellipse((6, 6, 32, 32), (220, 80, 50))
            self.signs.write(image, str(index + 1), (19, 19), 16, WHITE)
            page.paste(image, (index % 3 * (side + 4), index // 3 * (side + 4)))
        return page

    def make_pin_of_two(self) -> Image.Image:
        """Two photographs above each other with a title between, as bloggers make for boards of pins."""
        width = self.rng.randint(300, 340)
        page = Image.new("RGB", (width, 520), self.rng.choice(((246, 238, 224), (214, 90, 60), (60, 90, 80))))
        page.paste(ImageOps.fit(self.take().image, (width, 220)), (0, 0))
        page.paste(ImageOps.fit(self.take().image, (width, 220)), (0, 300))
        dark = sum(page.getpixel((4, 260))) < 450
        title = self.signs.choose("简单好吃的家常菜", "EASY HOMEMADE DINNER")
        self.signs.write(page, title, (width / 2, 260), 22, WHITE if dark else (90, 50, 40))
        return page

    def make_before_after(self) -> Image.Image:
        kitchen, rng = self.kitchen, self.rng
        name = rng.choice([name for name, states in DONENESS.items() if len(states) >= 2])
        first = kitchen.make_doneness(name, 0)
        second = kitchen.make_doneness(name, 1, first)
        page = Image.new("RGB", (484, 300), WHITE)
        page.paste(ImageOps.fit(first.image, (240, 300)), (0, 0))
        page.paste(ImageOps.fit(second.image, (240, 300)), (244, 0))
        return page

    def make_recipe_page(self) -> Image.Image:
        """The recipe as a page of text."""
        rng = self.rng
        width, height = rng.randint(320, 400), rng.randint(400, 480)
        page = Image.new("RGB", (width, height), rng.choice((WHITE, (250, 246, 236), (244, 246, 250))))
        self._write_lines(page, 24, 30, 11)
        return page

    def make_notes_screenshot(self) -> Image.Image:
        """A screenshot of a notes app."""
        page = Image.new("RGB", (330, 500), (250, 249, 244))
        draw = ImageDraw.Draw(page)
        draw.rectangle((0, 0, 330, 22), (238, 236, 230))
        self.signs.write(page, f"{self.rng.randint(7, 23)}:{self.rng.randint(10, 59)}", (30, 11), 12, (60, 60, 60))
        draw.rectangle((296, 6, 318, 16), outline=(60, 60, 60), width=2)
        self.signs.write(page, self.signs.choose("< 备忘录", "< Notes"), (16, 42), 16, (214, 160, 40), "lm")
        self._write_lines(page, 74, 16, 12)
        return page

    def make_chat_screenshot(self) -> Image.Image:
        """A screenshot of a chat about a recipe."""
        page = Image.new("RGB", (330, 500), (236, 236, 238))
        draw, y = ImageDraw.Draw(page), 40
        draw.rectangle((0, 0, 330, 28), (246, 246, 246))
        while y < 450:
            is_mine, lines = self.rng.random() < 0.5, self.rng.randint(1, 2)
            language = "zh" if self.signs.path else "en"
            left, right = (90, 288) if is_mine else (42, 240)
            draw.rounded_rectangle((left, y, right, y + 12 + lines * 22), 6, (150, 220, 110) if is_mine else WHITE)
            draw.rectangle(
                (296, y, 322, y + 26) if is_mine else (8, y, 34, y + 26),
                tuple(self.rng.randint(90, 220) for _ in range(3)),
            )
            for line in range(lines):
                text = self._draw_line(language)[:26]
                self.signs.write(page, text, (left + 8, y + 17 + line * 22), 13, (40, 40, 40), "lm")
            y += 30 + lines * 22
        return page

    def _draw_line(self, language: str) -> str:
        return self.rng.choice(RECIPE_LINES[language]).replace("{n}", str(self.rng.randint(2, 30)))

    def _write_lines(self, page: Image.Image, top: int, left: int, count: int) -> None:
        language = "zh" if self.signs.path else "en"
        title = self.signs.choose(*self.rng.choice(MENU_ITEMS)).capitalize()
        self.signs.write(page, title, (left, top + 10), 21, (40, 36, 34), "lm")
        for index in range(count):
            y = top + 48 + index * 30
            if y < page.height - 16:
                self.signs.write(page, self._draw_line(language), (left, y), 14, (70, 66, 64), "lm")

    def make_qr_code(self) -> Image.Image:
        """A code to follow an account, with or without a line below."""
        rng = self.rng
        page = draw_qr_code(rng, 9)
        page = ImageOps.expand(page, rng.randint(16, 50), WHITE)
        if rng.random() < 0.6:
            page = ImageOps.expand(page, (0, 0, 0, 46), WHITE)
            self.signs.write(
                page,
                self.signs.choose("扫码关注 领取菜谱", "Scan to follow"),
                (page.width / 2, page.height - 34),
                20,
                (60, 60, 60),
            )
        return page

    def make_even(self) -> Image.Image:
        """One colour: a lens cap, steam, a picture that never came."""
        tone = self.rng.choice(
            ((8, 8, 9), (246, 246, 245), (238, 234, 226), (128, 128, 128), (20, 14, 12), (222, 120, 70))
        )
        size = (self.rng.randint(300, 440), self.rng.randint(280, 400))
        return add_noise(Image.new("RGB", size, tone), self.rng.choice((0, 0.8, 1.6)), self.rng)

    def make_gradient(self) -> Image.Image:
        rng = self.rng
        tones = [tuple(rng.randint(60, 250) for _ in range(3)) for _ in range(2)]
        picture = make_gradient(rng.randint(300, 440), rng.randint(280, 400), *tones)
        return picture if rng.random() < 0.5 else picture.transpose(Image.Transpose.TRANSPOSE)

    def make_placeholder(self) -> Image.Image:
        """A plate and cutlery in grey, as pages show for recipes without a picture."""
        rng = self.rng
        tone = rng.randint(222, 244)
        page = Image.new("RGB", (rng.randint(300, 420), rng.randint(280, 360)), (tone, tone, tone - 2))
        draw = ImageDraw.Draw(page)
        x, y, grey = page.width // 2, page.height // 2 - 14, (tone - 40,) * 3
        draw.ellipse((x - 46, y - 46, x + 46, y + 46), outline=grey, width=5)
        draw.ellipse((x - 28, y - 28, x + 28, y + 28), outline=grey, width=3)
        draw.line((x - 70, y - 44, x - 70, y + 46), grey, 6)
        draw.line((x + 70, y - 44, x + 70, y + 46), grey, 6)
        if rng.random() < 0.75:
            words = rng.choice(
                (("暂无图片", "No photo yet"), ("上传成品图", "Add your photo"), ("图片已删除", "Image removed"))
            )
            self.signs.write(page, self.signs.choose(*words), (x, y + 76), 18, grey)
        return page

    def make_banner(self) -> Image.Image:
        """An advertisement of the site: words and a button on a colour."""
        rng = self.rng
        page = make_gradient(
            rng.randint(420, 520),
            rng.randint(160, 220),
            *rng.choice(
                (((250, 120, 60), (230, 60, 50)), ((90, 160, 110), (40, 110, 90)), ((250, 210, 90), (246, 170, 60)))
            ),
        )
        words = rng.choice(
            (
                ("新人专享 领50元券", "NEW USERS: 50% OFF"),
                ("下载APP看万道菜谱", "GET 10,000 RECIPES IN THE APP"),
                ("会员日 全场五折", "MEMBERS' DAY: HALF PRICE"),
                ("报名烘焙课", "JOIN OUR BAKING CLASS"),
            )
        )
        text = self.signs.choose(*words)
        self.signs.write(
            page, text, (page.width / 2, page.height * 0.38), min(34, int(page.width * 1.5 / len(text))), WHITE
        )
        draw = ImageDraw.Draw(page)
        box = (page.width // 2 - 70, int(page.height * 0.62), page.width // 2 + 70, int(page.height * 0.84))
        draw.rounded_rectangle(box, 16, WHITE)
        self.signs.write(
            page,
            self.signs.choose("立即领取", "CLICK HERE"),
            (page.width / 2, (box[1] + box[3]) / 2),
            17,
            (220, 80, 50),
        )
        return page

    def make_lost_preview(self) -> Image.Image:
        """A preview of a few pixels that was never replaced by its picture."""
        return recompress(blur(pixelate(self.take().image, self.rng.choice((5, 6, 8))), 5), 70)

    def make_cut_off(self) -> Image.Image:
        """A file that was cut off: most of it is grey."""
        picture = self.take().image.copy()
        picture.paste(
            (128, 128, 128), (0, int(picture.height * self.rng.uniform(0.06, 0.16)), picture.width, picture.height)
        )
        return picture


def draw_qr_code(rng: random.Random, scale: int) -> Image.Image:
    """Draw what looks like a QR code."""
    cells = np.random.default_rng(rng.getrandbits(32)).random((29, 29)) < 0.5
    for top, left in ((0, 0), (0, 22), (22, 0)):
        cells[max(0, top - 1) : top + 8, max(0, left - 1) : left + 8] = False
        cells[top : top + 7, left : left + 7] = True
        cells[top + 1 : top + 6, left + 1 : left + 6] = False
        cells[top + 2 : top + 5, left + 2 : left + 5] = True
    code = Image.fromarray(np.where(cells, 0, 255).astype(np.uint8))
    return code.resize((29 * scale, 29 * scale), Image.Resampling.NEAREST).convert("RGB")


def read_food(shards: tuple[str, ...]) -> tuple[list[Drawing], list[Drawing]]:
    """Read the drawings of food and those that serve as stickers."""
    drawings = [drawing for shard in shards for drawing in read_drawings(shard, DRAWN_FOOD + STICKERS)]
    food = [drawing for drawing in drawings if drawing.name_en in DRAWN_FOOD]
    return food, [drawing for drawing in drawings if drawing.name_en in STICKERS]
