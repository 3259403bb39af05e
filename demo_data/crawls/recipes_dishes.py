"""What a cooking community cooks: dishes with their layers, and how a plan of a dish becomes a photograph."""

import math
import random
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from recipes_kitchen import (
    MIDDLE,
    PIECES,
    SIDE,
    SURFACES,
    VESSEL_COLOURS,
    VESSELS,
    Colour,
    Piece,
    Spot,
    Table,
    Textures,
    arrange,
    banded,
    heap,
    place_vessel,
    plain,
    pour,
    spread_grains,
    sprinkle,
    tangle,
)

Layer = tuple[Any, ...]  # name of a way to add food, and its arguments


@dataclass(frozen=True)
class Dish:
    """A dish: names, the sort that captions speak of, vessels that it is served in and layers from below to above."""

    zh: str
    en: str
    sort: str
    vessels: tuple[str, ...]
    layers: tuple[Layer, ...]
    garnishes: tuple[str, ...] = ()

    @property
    def pieces(self) -> list[str]:
        """Names of the pieces that can be seen, in the order in which they are added."""
        names: list[str] = []
        for way, *arguments in self.layers:
            if way == "heap":
                names.extend(arguments[0])
            elif way in ("ring", "sprinkle"):
                names.append(arguments[0])
        return list(dict.fromkeys(names))


GREEN = ("scallion", "coriander")
PLATES = ("plate", "oval_plate")
DISHES: dict[str, Dish] = {
    "tomato_egg": Dish("番茄炒蛋", "tomato and egg stir-fry", "hot", PLATES,
        (("heap", ("tomato_wedge", "egg_curd"), 46),), ("scallion",)),
    "red_pork": Dish("红烧肉", "red-braised pork belly", "hot", ("bowl", "clay_pot", "plate"),
        (("pour", (92, 40, 20), 8), ("heap", ("pork_belly",), 26)), ("scallion", "sesame")),
    "kung_pao": Dish("宫保鸡丁", "kung pao chicken", "hot", PLATES,
        (("heap", ("chicken_dice", "peanut", "dried_chili", "scallion_length"), 70),), ()),
    "mapo": Dish("麻婆豆腐", "mapo tofu", "hot", ("bowl", "plate"), (("pour", (164, 58, 26), 14),
        ("heap", ("tofu",), 34)), ("scallion",)),
    "potato_shreds": Dish("酸辣土豆丝", "hot and sour shredded potatoes", "hot", PLATES,
        (("heap", ("potato_strip",), 110), ("sprinkle", "dried_chili", 5)), ("scallion",)),
    "pepper_pork": Dish("青椒肉丝", "pork with green peppers", "hot", PLATES,
        (("heap", ("green_pepper", "beef_slice"), 60),), ()),
    "broccoli_shrimp": Dish("西兰花炒虾仁", "shrimps with broccoli", "hot", PLATES,
        (("heap", ("broccoli", "shrimp"), 42),), ()),
    "garlic_broccoli": Dish("蒜蓉西兰花", "garlic broccoli", "hot", PLATES, (("heap", ("broccoli",), 34),
        ("sprinkle", "garlic_mince", 40)), ()),
    "greens": Dish("清炒时蔬", "stir-fried greens", "hot", PLATES, (("heap", ("greens",), 44),
        ("sprinkle", "garlic_mince", 20)), ()),
    "eggplant": Dish("鱼香茄子", "fish-fragrant aubergine", "hot", ("plate", "bowl"), (("pour", (120, 52, 24), 10),
        ("heap", ("eggplant",), 34)), ("scallion",)),
    "wings": Dish("可乐鸡翅", "cola chicken wings", "hot", PLATES, (("heap", ("chicken_wing",), 13),), ("sesame",)),
    "steamed_fish": Dish("清蒸鱼", "steamed fish", "hot", ("oval_plate",), (("pour", (136, 96, 50), 6),
        ("ring", "fish", 1), ("sprinkle", "chili_ring", 6)), GREEN),
    "boiled_fish": Dish("水煮鱼", "Sichuan boiled fish", "hot", ("bowl",), (("pour", (176, 58, 24), 30),
        ("heap", ("fish_fillet", "bean_sprout"), 30), ("sprinkle", "dried_chili", 14)), GREEN),
    "beef_potato": Dish("土豆炖牛肉", "beef and potato stew", "hot", ("bowl", "clay_pot", "pot"),
        (("pour", (128, 74, 36), 8), ("heap", ("beef_cube", "potato_cube", "carrot_slice"), 36)), ("coriander",)),
    "lotus": Dish("凉拌藕片", "lotus root salad", "cold", PLATES, (("heap", ("lotus_root",), 20),
        ("sprinkle", "chili_ring", 10)), ("scallion", "sesame")),
    "cucumber": Dish("凉拌黄瓜", "cucumber salad", "cold", ("plate", "bowl"), (("heap", ("cucumber_slice",), 36),
        ("sprinkle", "garlic_mince", 20)), ("sesame", "chili_ring")),
    "wood_ear": Dish("木耳炒肉", "wood ear with pork", "hot", PLATES,
        (("heap", ("wood_ear", "beef_slice", "carrot_slice"), 42),), ("scallion",)),
    "spicy_shrimp": Dish("香辣虾", "spicy shrimps", "hot", ("plate", "bowl"),
        (("heap", ("shrimp", "dried_chili"), 46),), ("coriander", "sesame")),
    "clams": Dish("辣炒花蛤", "spicy stir-fried clams", "hot", PLATES, (("heap", ("clam",), 34),
        ("sprinkle", "chili_ring", 12)), GREEN),
    "meatballs": Dish("红烧狮子头", "braised meatballs", "hot", ("bowl", "clay_pot"), (("pour", (110, 62, 32), 8),
        ("ring", "meatball", 6)), ("scallion",)),
    "fried_tofu": Dish("香煎豆腐", "pan-fried tofu", "hot", ("plate", "pan"), (("ring", "fried_tofu", 8),),
        ("scallion", "chili_ring")),
    "rice_cakes": Dish("辣炒年糕", "spicy rice cakes", "hot", ("bowl", "pan"), (("pour", (190, 50, 26), 6),
        ("heap", ("rice_cake",), 40)), ("sesame", "scallion")),
    "seaweed_soup": Dish("番茄蛋花汤", "tomato egg drop soup", "soup", ("bowl",), (("pour", (222, 150, 70), 26),
        ("heap", ("egg_curd", "tomato_wedge"), 14)), GREEN),
    "pumpkin_soup": Dish("南瓜浓汤", "pumpkin soup", "soup", ("bowl",), (("pour", (232, 150, 44), 0),
        ("sprinkle", "almond", 5)), ("coriander", "black_sesame")),
    "corn_soup": Dish("玉米排骨汤", "sweetcorn and rib soup", "soup", ("bowl", "pot", "clay_pot"),
        (("pour", (226, 206, 150), 22), ("heap", ("corn", "beef_cube", "carrot_slice"), 16)), GREEN),
    "tofu_soup": Dish("豆腐蘑菇汤", "tofu and mushroom soup", "soup", ("bowl", "clay_pot"),
        (("pour", (220, 210, 178), 16), ("heap", ("tofu", "mushroom_slice"), 26)), GREEN),
    "borscht": Dish("罗宋汤", "borscht", "soup", ("bowl", "pot"), (("pour", (168, 44, 34), 12),
        ("heap", ("potato_cube", "carrot_slice"), 14), ("sprinkle", "cream_dollop", 1)), ("coriander",)),
    "date_soup": Dish("红枣银耳羹", "white fungus and red date soup", "sweet_soup", ("bowl",),
        (("pour", (232, 214, 170), 4), ("heap", ("date",), 6)), ("goji",)),
    "tangyuan": Dish("黑芝麻汤圆", "sweet glutinous rice balls", "sweet_soup", ("bowl",),
        (("pour", (226, 216, 190), 4), ("ring", "tangyuan", 8)), ("goji",)),
    "beef_noodles": Dish("红烧牛肉面", "braised beef noodles", "noodles", ("bowl",), (("pour", (142, 74, 32), 26),
        ("tangle", (238, 208, 140), 26), ("heap", ("beef_cube", "greens"), 10)), GREEN),
    "ramen": Dish("日式拉面", "ramen", "noodles", ("bowl",), (("pour", (206, 160, 96), 20),
        ("tangle", (244, 216, 150), 26), ("ring", "egg_half", 2), ("sprinkle", "seaweed", 1)), ("scallion",
        "corn_kernel")),
    "scallion_noodles": Dish("葱油拌面", "scallion oil noodles", "noodles", ("bowl", "plate"),
        (("tangle", (206, 150, 80), 42), ("sprinkle", "scallion_length", 7)), ("sesame",)),
    "spaghetti": Dish("番茄意面", "spaghetti with tomato sauce", "noodles", ("plate", "pan"),
        (("tangle", (244, 208, 120), 40), ("heap", ("meatball",), 5), ("sprinkle", "cherry_tomato", 4)), ("basil",
        "parmesan")),
    "wonton_soup": Dish("鲜肉馄饨", "wonton soup", "noodles", ("bowl",), (("pour", (222, 196, 140), 26),
        ("heap", ("wonton",), 12)), ("scallion", "coriander")),
    "fried_rice": Dish("扬州炒饭", "Yangzhou fried rice", "rice", ("plate", "bowl"), (("grains", (236, 208, 140)),
        ("sprinkle", "pea", 26), ("sprinkle", "egg_curd", 10), ("sprinkle", "carrot_slice", 5)), ("scallion",)),
    "curry_rice": Dish("咖喱鸡肉饭", "chicken curry with rice", "rice", ("plate", "bowl"),
        (("pour", (190, 122, 36), 4), ("heap", ("chicken_dice", "potato_cube", "carrot_slice"), 24),
        ("mound", (246, 242, 232))), ("coriander", "black_sesame")),
    "claypot_rice": Dish("腊味煲仔饭", "claypot rice with sausage", "rice", ("clay_pot",),
        (("grains", (240, 226, 190)), ("heap", ("sausage_slice",), 14), ("sprinkle", "greens", 5)), ("scallion",)),
    "omelette_rice": Dish("滑蛋盖饭", "soft egg rice bowl", "rice", ("bowl",), (("grains", (246, 240, 226)),
        ("heap", ("egg_curd",), 24), ("sprinkle", "shrimp", 5)), ("scallion", "black_sesame")),
    "congee": Dish("皮蛋瘦肉粥", "congee with pork and preserved egg", "rice", ("bowl", "clay_pot"),
        (("pour", (236, 230, 214), 0), ("heap", ("beef_slice",), 8)), GREEN),
    "dumplings": Dish("白菜猪肉水饺", "boiled dumplings", "dough", PLATES, (("ring", "dumpling", 10),),
        ("scallion",)),
    "potstickers": Dish("生煎锅贴", "potstickers", "dough", ("pan", "plate"), (("ring", "potsticker", 9),),
        ("sesame", "scallion")),
    "buns": Dish("鲜肉包子", "steamed pork buns", "dough", ("steamer",), (("ring", "bun", 6),), ()),
    "mantou": Dish("白馒头", "plain steamed buns", "dough", ("steamer",), (("ring", "mantou", 6),), ()),
    "soup_dumplings": Dish("蟹黄小笼包", "soup dumplings", "dough", ("steamer",), (("ring", "soup_dumpling", 8),),
        ()),
    "shumai": Dish("糯米烧卖", "shumai", "dough", ("steamer", "plate"), (("ring", "shumai", 9),), ("pea",)),
    "zongzi": Dish("蛋黄肉粽", "zongzi", "dough", ("plate", "bowl"), (("ring", "zongzi", 5),), ()),
    "spring_rolls": Dish("炸春卷", "fried spring rolls", "dough", PLATES, (("heap", ("spring_roll",), 9),), ()),
    "flatbread": Dish("葱油饼", "scallion pancake", "dough", ("plate", "pan", "board"), (("ring", "flatbread", 1),),
        ("scallion", "sesame")),
    "sushi": Dish("三文鱼寿司卷", "salmon sushi rolls", "cold", ("square_plate", "board"), (("ring", "sushi", 8),),
        ("sesame",)),
    "nigiri": Dish("三文鱼握寿司", "salmon nigiri", "cold", ("square_plate", "board"), (("ring", "nigiri", 6),), ()),
    "steak": Dish("香煎牛排", "pan-seared steak", "grill", ("plate", "pan", "board"), (("ring", "steak", 1),
        ("sprinkle", "butter", 1), ("sprinkle", "garlic", 4)), ("basil",)),
    "salmon": Dish("香煎三文鱼", "pan-seared salmon", "grill", PLATES, (("ring", "salmon", 2),
        ("sprinkle", "lemon_slice", 2), ("sprinkle", "broccoli", 3)), ("coriander",)),
    "skewers": Dish("孜然羊肉串", "cumin lamb skewers", "grill", ("tray", "oval_plate"), (("heap", ("skewer",), 7),),
        ("sesame", "chili_ring")),
    "sausages": Dish("烤香肠", "grilled sausages", "grill", ("plate", "board", "tray"), (("heap", ("sausage",), 6),),
        ("coriander",)),
    "roast_chicken": Dish("烤鸡腿", "roast chicken drumsticks", "grill", ("tray", "plate"),
        (("ring", "drumstick", 6), ("sprinkle", "potato_cube", 6)), ("basil",)),
    "fries": Dish("炸薯条", "French fries", "snack", ("plate", "bowl", "board"), (("heap", ("fries",), 46),),
        ("coriander",)),
    "mussels": Dish("白葡萄酒青口", "mussels in white wine", "hot", ("bowl", "pot"), (("pour", (206, 180, 120), 12),
        ("heap", ("mussel",), 24)), ("coriander",)),
    "greek_salad": Dish("希腊沙拉", "Greek salad", "cold", ("bowl", "plate"), (("heap", ("lettuce",), 7),
        ("heap", ("tomato_wedge", "cucumber_slice", "olive", "feta", "onion_ring"), 44)), ()),
    "caprese": Dish("卡布里沙拉", "tomato and basil salad", "cold", PLATES, (("ring", "tomato_slice", 10),
        ("sprinkle", "feta", 8)), ("basil",)),
    "shrimp_salad": Dish("牛油果虾仁沙拉", "avocado shrimp salad", "cold", ("bowl", "plate"),
        (("heap", ("lettuce",), 8), ("heap", ("avocado_slice", "shrimp", "cherry_tomato"), 30)), ("black_sesame",)),
    "pizza": Dish("自制披萨", "home-made pizza", "bake", ("board", "tray"), (("ring", "pizza", 1),
        ("sprinkle", "sausage_slice", 11), ("sprinkle", "olive", 8)), ("basil",)),
    "breakfast": Dish("煎蛋早餐", "fried eggs and bacon", "breakfast", ("plate", "pan"), (("ring", "fried_egg", 2),
        ("sprinkle", "bacon", 3), ("sprinkle", "cherry_tomato", 3)), ()),
    "avocado_toast": Dish("牛油果吐司", "avocado toast", "breakfast", ("plate", "board"), (("ring", "toast", 2),
        ("sprinkle", "avocado_slice", 16)), ("black_sesame", "chili_ring")),
    "oatmeal": Dish("水果燕麦碗", "oatmeal with fruit", "breakfast", ("bowl",), (("pour", (232, 214, 186), 0),
        ("sprinkle", "oat", 60), ("sprinkle", "banana_slice", 6), ("sprinkle", "blueberry", 11)), ("almond",)),
    "pancakes": Dish("美式松饼", "pancakes", "breakfast", ("plate",), (("ring", "pancake", 1),
        ("ring", "pancake", 1), ("ring", "pancake", 1), ("sprinkle", "butter", 1), ("sprinkle", "blueberry", 9)),
        ("mint",)),
    "waffles": Dish("华夫饼", "waffles", "breakfast", ("plate",), (("ring", "waffle", 1),
        ("sprinkle", "strawberry", 5), ("sprinkle", "cream_dollop", 1)), ("mint",)),
    "toast": Dish("烤吐司", "toast", "bake", ("plate", "board"), (("ring", "toast", 2),), ()),
    "loaf": Dish("乡村面包", "a country loaf", "bake", ("board", "tray"), (("ring", "loaf", 1),), ("oat",)),
    "baguettes": Dish("法棍面包", "baguettes", "bake", ("board", "tray"), (("heap", ("baguette",), 3),), ()),
    "croissants": Dish("黄油可颂", "butter croissants", "bake", ("tray", "plate"), (("ring", "croissant", 5),), ()),
    "rolls": Dish("奶香小餐包", "milk bread rolls", "bake", ("tray",), (("ring", "bread_roll", 8),), ("sesame",)),
    "cookies": Dish("巧克力曲奇", "chocolate chip cookies", "bake", ("tray", "plate"), (("ring", "cookie", 9),), ()),
    "macarons": Dish("马卡龙", "macarons", "sweet", ("plate", "square_plate"), (("ring", "macaron", 9),), ()),
    "doughnuts": Dish("草莓甜甜圈", "strawberry doughnuts", "sweet", ("tray", "plate"), (("ring", "doughnut", 5),),
        ("sesame",)),
    "cupcakes": Dish("纸杯蛋糕", "cupcakes", "sweet", ("tray", "plate"), (("ring", "cupcake", 6),), ()),
    "egg_tarts": Dish("葡式蛋挞", "Portuguese egg tarts", "bake", ("tray", "plate"), (("ring", "egg_tart", 7),), ()),
    "mooncakes": Dish("广式月饼", "mooncakes", "bake", ("plate", "tray"), (("ring", "mooncake", 6),), ()),
    "cream_cake": Dish("水果奶油蛋糕", "a cream cake with fruit", "sweet", ("plate", "board"), (("ring", "cake", 1),
        ("sprinkle", "strawberry", 7), ("sprinkle", "kiwi_slice", 3), ("sprinkle", "blueberry", 10)), ("mint",)),
    "cheesecake": Dish("巴斯克芝士蛋糕", "Basque cheesecake", "bake", ("plate", "board"),
        (("ring", "cheesecake", 1),), ("raspberry", "blueberry")),
    "brownies": Dish("布朗尼", "brownies", "bake", ("tray", "board"), (("ring", "brownie", 9),), ("walnut",)),
    "fruit_tart": Dish("水果塔", "a fruit tart", "sweet", ("plate", "board"), (("ring", "tart_shell", 1),
        ("ring", "strawberry", 9), ("sprinkle", "blueberry", 12)), ("mint",)),
    "ice_cream": Dish("香草冰淇淋", "vanilla ice cream", "sweet", ("bowl",), (("ring", "ice_cream", 3),
        ("sprinkle", "raspberry", 4)), ("mint",)),
    "fruit_plate": Dish("水果拼盘", "a plate of fruit", "fruit", ("plate", "oval_plate"),
        (("heap", ("kiwi_slice", "orange_slice", "strawberry", "grape"), 34),), ("mint",)),
    "mango_pomelo": Dish("杨枝甘露", "mango sago", "sweet_soup", ("bowl", "cup"), (("pour", (248, 206, 100), 0),
        ("heap", ("mango_cube",), 14), ("sprinkle", "tapioca", 8)), ("mint",)),
    "figs": Dish("无花果酸奶", "figs with yoghurt", "breakfast", ("bowl", "plate"), (("pour", (246, 242, 234), 0),
        ("ring", "fig_half", 5)), ("walnut",)),
    "latte": Dish("拿铁咖啡", "a caffè latte", "drink", ("cup",), (("pour", (176, 120, 72), 0),
        ("leaf", (240, 224, 198))), ()),
    "matcha": Dish("抹茶拿铁", "a matcha latte", "drink", ("cup", "bowl"), (("pour", (142, 170, 84), 0),
        ("leaf", (232, 238, 206))), ()),
    "black_tea": Dish("红茶", "black tea", "drink", ("cup",), (("pour", (150, 66, 24), 0),), ("lemon_slice",)),
    "lemonade": Dish("柠檬气泡水", "lemonade with ice", "drink", ("cup",), (("pour", (232, 230, 190), 0),
        ("sprinkle", "ice_cube", 4), ("sprinkle", "lemon_slice", 2)), ("mint",)),
    "milk_tea": Dish("珍珠奶茶", "bubble milk tea", "drink", ("cup",), (("pour", (206, 164, 122), 0),
        ("sprinkle", "tapioca", 16)), ()),
    "berry_smoothie": Dish("莓果奶昔", "a berry smoothie", "drink", ("cup", "bowl"), (("pour", (206, 104, 136), 0),
        ("sprinkle", "blueberry", 5), ("sprinkle", "strawberry", 2)), ("mint",)),
}  # fmt: skip

# Single ingredients: shown alone, in heaps at a market, or laid out before cooking.
INGREDIENTS = (
    "tomato", "egg", "potato", "onion", "carrot", "whole_eggplant", "lemon", "orange", "apple", "green_apple",
    "peach", "banana", "strawberry", "blueberry", "cherry", "grape", "shiitake", "broccoli", "cauliflower", "garlic",
    "corn", "raw_beef", "greens", "lettuce", "spinach", "red_pepper", "green_pepper", "yellow_pepper", "date",
    "walnut", "clam", "mussel", "avocado_half", "cherry_tomato", "mint", "basil", "fish", "tofu", "butter",
    "bean_sprout",
)  # fmt: skip

# What a dish changes its colour into, with the words for it: the same picture otherwise.
COLOUR_DISHES: dict[str, tuple[tuple[str, str, Colour], ...]] = {
    "macaron": (("粉色", "pink", (236, 160, 180)), ("抹茶绿", "matcha green", (164, 188, 116)), ("柠檬黄",
        "lemon yellow", (244, 220, 120)), ("淡紫色", "lilac", (190, 168, 214)), ("巧克力色", "chocolate brown",
        (116, 76, 54)), ("天蓝色", "sky blue", (150, 192, 220))),
    "cupcake": (("草莓", "strawberry pink", (244, 190, 204)), ("香草", "vanilla", (246, 236, 210)), ("抹茶",
        "matcha green", (176, 198, 124)), ("巧克力", "chocolate", (112, 72, 50)), ("蓝莓", "blueberry purple",
        (168, 150, 202))),
    "doughnut": (("草莓", "pink strawberry", (240, 150, 180)), ("巧克力", "chocolate", (92, 56, 38)), ("抹茶",
        "matcha", (156, 182, 104)), ("白巧克力", "white chocolate", (246, 240, 226)), ("柠檬", "lemon",
        (246, 222, 110))),
    "ice_cream": (("香草", "vanilla", (246, 232, 196)), ("草莓", "strawberry", (240, 170, 180)), ("抹茶", "matcha",
        (160, 184, 110)), ("巧克力", "chocolate", (104, 66, 46)), ("芒果", "mango", (248, 196, 90))),
    "mantou": (("白面", "white", (244, 236, 216)), ("南瓜", "yellow pumpkin", (240, 192, 80)), ("紫薯",
        "purple sweet potato", (150, 104, 160)), ("菠菜", "green spinach", (150, 180, 110)), ("黑米",
        "dark black rice", (110, 84, 92))),
    "cake": (("原味奶油", "white cream", (246, 238, 224)), ("巧克力奶油", "chocolate cream", (96, 60, 42)),
        ("抹茶奶油", "matcha cream", (172, 192, 120)), ("草莓奶油", "strawberry cream", (242, 190, 200)), ("芋泥",
        "taro cream", (192, 172, 206))),
}  # fmt: skip

DONENESS: dict[str, tuple[tuple[str, str, float], ...]] = {
    "steak": (("三分熟", "rare", 1.35), ("五分熟", "medium", 1.0), ("全熟", "well done", 0.55)),
    "toast": (("刚放进烤箱的", "pale, untoasted", 1.3), ("烤到金黄的", "golden", 1.0), ("烤焦了的", "burnt", 0.45)),
    "cookies": (("没烤的", "unbaked", 1.22), ("烤好的", "baked", 1.0), ("烤过头的", "overbaked", 0.5)),
    "rolls": (("发酵好还没烤的", "risen but unbaked", 1.5), ("刚出炉的", "freshly baked", 1.0), ("烤得太深的",
        "too darkly baked", 0.5)),
    "loaf": (("入炉前的", "unbaked", 1.4), ("出炉的", "baked", 1.0)),
    "croissants": (("烤之前的", "unbaked", 1.35), ("烤好的", "baked", 1.0)),
    "egg_tarts": (("烤之前的", "unbaked", 1.25), ("烤好的", "baked", 0.95), ("带焦斑的", "deeply caramelised", 0.55)),
}  # fmt: skip

SIDES: dict[str, tuple[str, str]] = {
    "chopsticks": ("一双筷子", "a pair of chopsticks"),
    "fork": ("一把叉子", "a fork"),
    "spoon": ("一把勺子", "a spoon"),
    "tea": ("一杯茶", "a cup of tea"),
    "sauce": ("一碟蘸料", "a dish of dipping sauce"),
    "lemons": ("一个柠檬", "a lemon"),
    "eggs": ("两个鸡蛋", "two eggs"),
    "herbs": ("几片香草", "a few herb leaves"),
    "rice": ("一碗米饭", "a bowl of rice"),
    "": ("", ""),
}
# Props that go with Chinese and with Western dishes.
SIDES_OF_SORT = {
    "hot": ("chopsticks", "rice", "sauce", "tea", "", ""),
    "soup": ("spoon", "chopsticks", "", ""),
    "sweet_soup": ("spoon", "", "tea"),
    "noodles": ("chopsticks", "spoon", "tea", ""),
    "rice": ("spoon", "chopsticks", "tea", ""),
    "dough": ("sauce", "chopsticks", "tea", ""),
    "cold": ("chopsticks", "fork", "lemons", ""),
    "grill": ("fork", "lemons", "herbs", ""),
    "snack": ("sauce", "", "herbs"),
    "bake": ("eggs", "tea", "", "herbs"),
    "breakfast": ("fork", "tea", "", "eggs"),
    "sweet": ("fork", "spoon", "tea", ""),
    "fruit": ("fork", "", "herbs"),
    "drink": ("spoon", "lemons", "", "herbs"),
}


@dataclass(frozen=True)
class Plan:
    """What lies on the table. Each part is drawn with a generator of its own, so that one can change alone."""

    dish_name: str
    vessel: str
    colour: str
    surface: str
    seed: int
    side: str = ""
    garnish: str = ""
    radius: float = 118
    num_layers: int = 99
    shade: float = 1  # of what the dish is made of: darker is browner
    rawness: float = 0  # share of the colour of raw dough or meat
    recolour: tuple[str, Colour] | None = None  # a piece and its colour
    skip: int = -1  # piece of a ring that is left out
    num_sprigs: int = 0
    sauce: Colour = (84, 40, 24)
    second_seed: int = 0  # another arrangement of the same things

    @property
    def dish(self) -> Dish:
        return DISHES[self.dish_name]


def draw_plan(rng: random.Random, dish_name: str = "") -> Plan:
    dish_name = dish_name or rng.choice(list(DISHES))
    dish = DISHES[dish_name]
    vessel = rng.choice(dish.vessels)
    return Plan(
        dish_name,
        vessel,
        rng.choice(VESSELS[vessel].colours),
        rng.choice(list(SURFACES)),
        rng.getrandbits(32),
        rng.choice(SIDES_OF_SORT[dish.sort]),
        rng.choice(dish.garnishes) if dish.garnishes and rng.random() < 0.75 else "",
        rng.uniform(100, 136),
        shade=rng.uniform(0.9, 1.08),
    )


SURFACES_OF_A_KIND = 5  # drawn once each, which saves a tenth of the time; eight turns and mirrorings make 40 of them


class Stove:
    """Turns plans into tables."""

    def __init__(self, seed: int = 0) -> None:
        self.textures = Textures(seed)
        self.surfaces: dict[tuple[str, int], list[np.ndarray]] = {}

    def clear_table(self, plan: Plan) -> Table:
        table = Table(self.textures, random.Random(f"{plan.seed} table"))  # noqa: S311
        turned = self._draw_surface(plan.surface, table.rng)
        table.colour[:], table.height[:], table.gloss[:] = turned
        return table

    def _draw_surface(self, name: str, rng: random.Random) -> list[np.ndarray]:
        """Return colours, heights and gloss of a surface: one of a few that were drawn, turned or mirrored."""
        key = (name, rng.randrange(SURFACES_OF_A_KIND))
        if key not in self.surfaces:
            table = Table(self.textures, random.Random(f"surface {key}"))  # noqa: S311
            SURFACES[name][2](table)
            self.surfaces[key] = [array.astype(np.float16) for array in (table.colour, table.height, table.gloss)]
        arrays = self.surfaces[key]
        quarter_turns, is_mirrored = rng.randrange(4), rng.random() < 0.5
        turned = [np.rot90(array, quarter_turns) for array in arrays]
        return [array[::-1] for array in turned] if is_mirrored else turned

    def cook(self, plan: Plan) -> Table:
        table = self.clear_table(plan)
        table.rng = random.Random(f"{plan.seed} place")  # noqa: S311
        x, y = MIDDLE + table.rng.uniform(-16, 16), MIDDLE + table.rng.uniform(-14, 14)
        turn = table.rng.uniform(-0.3, 0.3)
        self._lay_side(table, plan, x, y)
        table.rng = random.Random(f"{plan.seed} vessel")  # noqa: S311
        vessel = VESSELS[plan.vessel]
        radius = plan.radius * {"cup": 0.8, "oval_plate": 0.95, "board": 0.98, "tray": 1.0}.get(plan.vessel, 1)
        room = place_vessel(table, plan.vessel, plan.colour, x, y, radius, turn)
        floor = float(table.height[int(y), int(x)])
        spot = Spot(x, y, room, floor)
        level = vessel.thickness * radius / 100 * {"plate": 0.42, "pan": 0.5}.get(vessel.profile, 0.62)

        for index, layer in enumerate(plan.dish.layers[: plan.num_layers]):
            table.rng = random.Random(f"{plan.seed} {plan.second_seed} layer {index}")  # noqa: S311
            self._add_layer(table, plan, spot, layer, level)
        if plan.garnish and plan.num_layers >= len(plan.dish.layers):
            table.rng = random.Random(f"{plan.seed} {plan.second_seed} garnish")  # noqa: S311
            piece = PIECES[plan.garnish]
            sprinkle(table, spot, plan.garnish, round(90 / (piece.size + 1)), 0.72)
        table.rng = random.Random(f"{plan.seed} sprigs")  # noqa: S311
        for _ in range(plan.num_sprigs):
            angle = table.rng.uniform(0, 6.3)
            at = (x + math.cos(angle) * room * 0.3, y + math.sin(angle) * room * 0.3)
            table.stamp(PIECES["coriander"], *at, 1.25, angle)
        table.rng = random.Random(f"{plan.seed} camera")  # noqa: S311
        return table

    def _add_layer(self, table: Table, plan: Plan, spot: Spot, layer: Layer, level: float) -> None:
        way, *arguments = layer
        shade = plan.shade
        originals = {}
        if plan.recolour:
            name, colour = plan.recolour
            originals[name] = PIECES[name]
            PIECES[name] = replace(PIECES[name], skin=_recolour(PIECES[name], name, colour))
        if plan.rawness and way == "ring":
            name = arguments[0]
            originals[name] = PIECES[name]
            PIECES[name] = replace(PIECES[name], skin=_make_raw(PIECES[name], plan.rawness))
        try:
            if way == "heap":
                heap(table, spot, arguments[0], arguments[1], shade)
            elif way == "ring":
                arrange(table, spot, arguments[0], arguments[1], shade, plan.skip, 1.05)
            elif way == "tangle":
                tangle(table, spot, arguments[0], arguments[1])
            elif way == "grains":
                spread_grains(table, spot, arguments[0])
            elif way == "mound":
                half = Spot(spot.x - spot.radius * 0.42, spot.y, spot.radius * 0.56, level)
                spread_grains(table, half, arguments[0])
            elif way == "pour":
                radius = (
                    spot.radius / VESSELS[plan.vessel].room * {"plate": 0.72}.get(VESSELS[plan.vessel].profile, 0.9)
                )
                pour(table, spot.x, spot.y, radius, arguments[0], level, arguments[1])
            elif way == "leaf":
                self._draw_leaf(table, spot, arguments[0])
            else:
                sprinkle(table, spot, arguments[0], arguments[1], 0.6)
        finally:
            PIECES.update(originals)

    def _draw_leaf(self, table: Table, spot: Spot, colour: Colour) -> None:
        """Draw what baristas pour: leaves of milk above each other."""
        turn = table.rng.uniform(0, 6.3)
        for index in range(5):
            along = (index - 2) * spot.radius * 0.27
            leaf = Piece(
                "", "", spot.radius * (0.16 + 0.05 * (4 - index)), plain(colour), 2.2, 0.3, 2, 0, "flat", 0.6, 0.8
            )
            table.stamp(leaf, spot.x + math.sin(turn) * along, spot.y - math.cos(turn) * along, 1, turn)

    def _lay_side(self, table: Table, plan: Plan, x: float, y: float) -> None:
        """Lay something next to the vessel."""
        angle = table.rng.choice((-0.6, 0.6, 2.5, 3.7)) + table.rng.uniform(-0.2, 0.2)
        far = plan.radius * 1.35 + 18
        at = (x + math.cos(angle) * far, y + math.sin(angle) * far)
        turn = angle + math.pi / 2
        if plan.side == "chopsticks":
            for offset in (-5, 6):
                stick = Piece("", "", 3.2, plain((120, 66, 36)), 36, 6, 6, 0, "dome", 0.4)
                table.stamp(stick, at[0] + offset, at[1] + offset, 1, turn + offset * 0.006)
        elif plan.side in ("fork", "spoon"):
            lay_cutlery(table, plan.side, at, turn, (196, 198, 202))
        elif plan.side == "tea":
            room = place_vessel(table, "cup", "white", *at, 42)
            pour(table, *at, room, (164, 84, 34), 14)
        elif plan.side == "sauce":
            place_vessel(table, "plate", "white", *at, 40)
            pour(table, *at, 28, plan.sauce, 4, 2)
        elif plan.side == "rice":
            room = place_vessel(table, "bowl", "blue_white", *at, 58)
            spread_grains(table, Spot(*at, room, 12), (246, 242, 232))
        elif plan.side == "lemons":
            table.stamp(PIECES["lemon"], *at, 1.2, turn)
        elif plan.side == "eggs":
            table.stamp(PIECES["egg"], *at, 1.2, turn)
            table.stamp(PIECES["egg"], at[0] + 40, at[1] + 14, 1.2, turn + 1)
        elif plan.side == "herbs":
            for _ in range(4):
                offset = (table.rng.uniform(-24, 24), table.rng.uniform(-24, 24))
                table.stamp(PIECES["basil"], at[0] + offset[0], at[1] + offset[1], 1.1, table.rng.uniform(0, 6.3))

    # -----------------------------------------------------------------------------------------------------------------
    # Other tables of the community

    def lay_out(self, names: list[str], counts: list[int], surface: str, seed: int) -> Table:
        """Lay ingredients out in groups, as before cooking."""
        plan = Plan("tomato_egg", "plate", "white", surface, seed)
        table = self.clear_table(plan)
        table.rng = random.Random(f"{seed} groups")  # noqa: S311
        for index, (name, count) in enumerate(zip(names, counts, strict=True)):
            angle = index * 2 * math.pi / len(names) + table.rng.uniform(-0.2, 0.2)
            far = 92 if len(names) > 1 else 0
            x, y = MIDDLE + math.cos(angle) * far, MIDDLE + math.sin(angle) * far
            piece = PIECES[name]
            if piece.size < 10:  # small things lie in a dish
                room = place_vessel(table, "bowl", table.rng.choice(("white", "celadon", "black")), x, y, 56)
                heap(table, Spot(x, y, room, 10), [name], 60)
                continue
            for item in range(count):
                offset = item * 2 * math.pi / max(1, count)
                away = piece.size * 1.3 * (count > 1)
                at = (x + math.cos(offset) * away, y + math.sin(offset) * away)
                table.stamp(piece, *at, min(1.5, 36 / piece.size), table.rng.uniform(0, 6.3))
        return table

    def pile(self, name: str, seed: int, shade: float = 1) -> Table:
        """Fill the whole picture with one ingredient, as crates of a market do."""
        table = self.clear_table(Plan("tomato_egg", "plate", "white", "dark_wood", seed))
        table.rng = random.Random(f"{seed} pile")  # noqa: S311
        piece = PIECES[name]
        scale = table.rng.uniform(29, 42) / piece.size
        pitch = piece.size * scale * (1.5 if piece.aspect < 2 else 1.9)
        for layer in range(2):
            base = layer * piece.thickness * scale * 0.45
            step = pitch * (1 + 0.4 * layer)  # fewer lie on top
            y = 0.0
            while y < SIDE:
                x = table.rng.uniform(0, pitch)
                while x < SIDE:
                    at = (x + table.rng.uniform(-9, 9), y + table.rng.uniform(-9, 9))
                    tone = shade * table.rng.uniform(0.84, 1.1)
                    table.stamp(piece, *at, scale * table.rng.uniform(0.9, 1.1), table.rng.uniform(0, 6.3), base, tone)
                    x += step
                y += step * 0.9
        return table

    def set_table(self, plans: list[Plan], surface: str, seed: int) -> Table:
        """Stand several dishes on one table."""
        table = self.clear_table(Plan("tomato_egg", "plate", "white", surface, seed))
        places = (
            ((110, 112), (308, 120), (116, 306), (304, 310))
            if len(plans) == 4
            else ((112, 150), (300, 130), (214, 316))
        )
        for plan, (x, y) in zip(plans, places, strict=True):
            table.rng = random.Random(f"{plan.seed} several")  # noqa: S311
            room = place_vessel(table, plan.vessel, plan.colour, x, y, 84)
            spot = Spot(x, y, room, float(table.height[y, x]))
            vessel = VESSELS[plan.vessel]
            level = vessel.thickness * 0.84 * {"plate": 0.42, "pan": 0.5}.get(vessel.profile, 0.62)
            for layer in plan.dish.layers:
                self._add_layer(table, plan, spot, layer, level)
        return table


def _make_raw(piece: Piece, rawness: float) -> Any:
    """Mix the colours with those of raw dough, or of raw meat if it is a steak."""
    raw = (196, 96, 88) if piece is PIECES["steak"] else (240, 224, 186)

    def paint(u: Any, v: Any, rho: Any) -> Any:
        colours = piece.skin(u, v, rho)
        return colours + (plain(raw)(u, v, rho) - colours) * rawness

    return paint


def _recolour(piece: Piece, name: str, colour: Colour) -> Any:
    """Keep the dough of a doughnut and the folds of a cupcake, and change the rest."""
    skin = piece.skin

    def paint(u: Any, v: Any, rho: Any) -> Any:
        colours = skin(u, v, rho)
        grey = colours.mean(axis=-1, keepdims=True) / colours.mean(axis=-1).max()
        painted = plain(colour)(u, v, rho) * (0.5 + 0.5 * grey)
        if name == "doughnut":
            glazed = ((rho > 0.42) & (rho < 0.92))[..., None]
            return colours + (plain(colour)(u, v, rho) - colours) * glazed
        return painted

    return paint


# ---------------------------------------------------------------------------------------------------------------------
# Tools

TOOLS: dict[str, tuple[str, str, str]] = {
    "knife": ("菜刀", "kitchen knife", "把"),
    "chef_knife": ("主厨刀", "chef's knife", "把"),
    "spatula": ("锅铲", "spatula", "把"),
    "ladle": ("汤勺", "ladle", "把"),
    "rolling_pin": ("擀面杖", "rolling pin", "根"),
    "whisk": ("打蛋器", "whisk", "个"),
    "spoons": ("量勺", "set of measuring spoons", "套"),
    "wok": ("炒锅", "wok", "口"),
    "pan": ("平底锅", "frying pan", "口"),
    "pot": ("汤锅", "stock pot", "口"),
    "clay_pot": ("砂锅", "clay pot", "个"),
    "steamer": ("竹蒸笼", "bamboo steamer", "个"),
    "board": ("砧板", "chopping board", "块"),
    "tray": ("烤盘", "baking tray", "个"),
    "scale": ("厨房秤", "kitchen scale", "台"),
    "bowls": ("三只碗", "set of three bowls", "套"),
    "chopsticks": ("筷子", "pair of chopsticks", "双"),
    "fork": ("叉子", "fork", "把"),
    "mould": ("玛芬模具", "muffin tin", "个"),
    "cutters": ("饼干模", "set of cookie cutters", "套"),
}
HANDLES: dict[str, tuple[str, str, Colour]] = {
    "wood": ("木柄", "wooden handle", (150, 100, 58)),
    "black": ("黑色手柄", "black handle", (40, 40, 42)),
    "red": ("红色手柄", "red handle", (186, 44, 40)),
    "green": ("绿色手柄", "green handle", (92, 150, 104)),
    "yellow": ("黄色手柄", "yellow handle", (232, 186, 60)),
}
METAL = (198, 200, 204)


def lay_cutlery(table: Table, name: str, at: tuple[float, float], turn: float, colour: Colour) -> None:
    """Lay a fork or a spoon."""
    cosine, sine = math.cos(turn), math.sin(turn)
    handle = Piece("", "", 4, plain(colour), 13, 4, 5, 0, "dome", 0.9)
    table.stamp(handle, *at, 1, turn)
    head = (at[0] + cosine * 64, at[1] + sine * 64)
    if name == "spoon":
        table.stamp(Piece("", "", 14, plain(colour), 1.5, 6, 2, 0, "ring", 0.9), *head, 1, turn)
        return
    table.stamp(Piece("", "", 11, banded(colour, (90, 90, 92), 2.5, 6, True), 2, 4, 5, 0, "dome", 0.9), *head, 1, turn)


def lay_tool(table: Table, name: str, grip: Colour, colour: str, turn: float) -> None:
    """Lay a tool into the middle of the table."""
    x, y = MIDDLE, MIDDLE
    cosine, sine = math.cos(turn), math.sin(turn)

    def place(size: float, aspect: float, away: float, skin: Any, **shape: Any) -> None:
        piece = replace(Piece("", "", size, skin, aspect, 8, 5, 0, "dome", 0.6, 0, 0.03), **shape)
        table.stamp(piece, x + cosine * away, y + sine * away, 1, turn)

    metal, handle = plain(METAL), plain(grip)
    if name in ("wok", "pan", "pot", "clay_pot", "steamer", "board", "tray"):
        place_vessel(table, name, colour, x, y, 118, turn)
    elif name == "knife":
        place(12, 5, -112, handle, thickness=14, gloss=0.2)
        place(40, 2.2, 32, banded(METAL, (222, 224, 228), 0.5, 8, True), thickness=3, corner=8, gloss=0.9)
    elif name == "chef_knife":
        place(11, 5.2, -110, handle, thickness=14, gloss=0.2)
        place(20, 5.2, 45, banded(METAL, (224, 226, 230), 0.5, 8, True), thickness=3, corner=1.7, gloss=0.9)
    elif name == "spatula":
        place(7, 14, -60, handle, thickness=9, corner=4)
        place(34, 1.4, 76, banded(METAL, (120, 122, 124), 2, 9), thickness=4, gloss=0.8)
    elif name == "ladle":
        place(6, 16, -56, handle, thickness=9, corner=4)
        place(38, 1.1, 76, metal, thickness=14, corner=2, profile="bowl", gloss=0.9)
    elif name == "rolling_pin":
        place(9, 16, 0, handle, thickness=20, corner=4)
        place(26, 3.7, 0, plain((214, 174, 122)), thickness=30, corner=9, gloss=0.15, mottle=0.08)
    elif name == "whisk":
        place(8, 8, -92, handle, thickness=12, corner=4)
        for size in (40, 27, 13):
            place(size, 86 / size, 54, metal, thickness=6, corner=2, profile="ring", gloss=0.9)
    elif name == "spoons":
        for index, size in enumerate((26, 21, 17, 13)):
            piece = Piece("", "", size, metal, 1.2, 8, 2, 0, "bowl", 0.9)
            offset = (index - 1.5) * 62
            table.stamp(Piece("", "", 5, handle, 9, 4, 4, 0), x + offset, y + 40, 1, math.pi / 2)
            table.stamp(piece, x + offset, y - 36, 1, math.pi / 2)
    elif name == "scale":
        place(100, 1.1, 0, plain(grip), thickness=16, corner=7, gloss=0.4)
        place(70, 1.05, -14, metal, thickness=6, corner=2, profile="flat", gloss=0.7)
        table.stamp(Piece("", "", 14, plain((150, 180, 150)), 2.4, 1, 8, 0, "flat"), x, y + 82, 1, 0)
    elif name == "bowls":
        for index, size in enumerate((84, 62, 46)):
            angle = index * 2.1 + turn
            place_vessel(table, "bowl", colour, x + math.cos(angle) * 84, y + math.sin(angle) * 84, size)
    elif name == "chopsticks":
        for offset in (-12, 10):
            stick = Piece("", "", 5, handle, 32, 9, 6, 0, "dome", 0.5)
            table.stamp(stick, x - sine * offset, y + cosine * offset, 1, turn + offset * 0.004)
    elif name == "fork":
        lay_cutlery(table, "fork", (x, y), turn, METAL)
    elif name == "mould":
        place(104, 1.3, 0, plain((120, 122, 126)), thickness=10, corner=9, profile="flat")
        for index in range(6):
            dx, dy = (index % 3 - 1) * 78, (index // 3 - 0.5) * 84
            cavity = Piece("", "", 32, plain((84, 86, 90)), 1, 12, 2, 0, "bowl", 0.7)
            table.stamp(cavity, x + dx * cosine - dy * sine, y + dx * sine + dy * cosine, 1, 0, 11)
    else:
        for index, corner in enumerate((2, 1.1, 7, 1.5)):
            angle = index * math.pi / 2 + turn
            cutter = Piece("", "", 40, handle if index % 2 else metal, 1, 14, corner, 0.1 * (index == 0), "ring", 0.8)
            table.stamp(cutter, x + math.cos(angle) * 78, y + math.sin(angle) * 78, 1, angle)


def name_vessel(plan: Plan) -> tuple[str, str]:
    """Return what the vessel of a plan is called, with its colour."""
    vessel, colour = VESSELS[plan.vessel], VESSEL_COLOURS[plan.colour]
    if plan.vessel in ("steamer", "clay_pot", "tray"):
        return ("烤盘" if plan.vessel == "tray" else vessel.zh), vessel.en
    return colour[0] + vessel.zh, f"{colour[1]} {vessel.en}"
