"""Words of a travel and food community: what pictures show, grammars of captions, and what is no caption.

A rule of a grammar is a list of alternatives. `{name}` stands for a fact of the picture or for another rule, `{name?}`
for the same half of the time. Alternatives that need a fact which the picture lacks are not taken.
"""

import calendar
import random
import re
from collections.abc import Mapping

from making import misread

# ---------------------------------------------------------------------------------------------------------------------
# What pictures show. English phrases: "a ..." is one, "+..." are several, everything else is a mass or a name.

# Drawings of food: measure word, Chinese name, English phrase.
# fmt: off
FOODS = {
    "steaming bowl": ("一碗", "热汤面", "a bowl of noodles"),
    "pizza": ("一块", "披萨", "a slice of pizza"),
    "sushi": ("一份", "寿司", "+sushi pieces"),
    "bento box": ("一份", "便当", "a bento box"),
    "cooked rice": ("一碗", "白米饭", "a bowl of rice"),
    "curry rice": ("一盘", "咖喱饭", "a plate of curry rice"),
    "spaghetti": ("一盘", "意大利面", "a plate of spaghetti"),
    "pot of food": ("一锅", "炖菜", "a pot of stew"),
    "shallow pan of food": ("一锅", "海鲜饭", "a pan of paella"),
    "green salad": ("一碗", "蔬菜沙拉", "a green salad"),
    "hamburger": ("一个", "汉堡", "a hamburger"),
    "french fries": ("一份", "薯条", "+french fries"),
    "hot dog": ("一个", "热狗", "a hot dog"),
    "sandwich": ("一份", "三明治", "a sandwich"),
    "taco": ("一个", "塔可", "a taco"),
    "burrito": ("一个", "墨西哥卷饼", "a burrito"),
    "stuffed flatbread": ("一个", "皮塔饼", "a stuffed pita"),
    "falafel": ("一份", "炸豆丸子", "+falafel balls"),
    "fried shrimp": ("一只", "炸虾", "a piece of fried shrimp"),
    "shrimp": ("一只", "大虾", "a prawn"),
    "lobster": ("一只", "龙虾", "a lobster"),
    "oyster": ("一只", "生蚝", "an oyster"),
    "dumpling": ("一只", "大饺子", "a dumpling"),
    "oden": ("一串", "关东煮", "an oden skewer"),
    "dango": ("一串", "三色团子", "+dango on a stick"),
    "moon cake": ("一块", "月饼", "a moon cake"),
    "rice ball": ("一个", "饭团", "a rice ball"),
    "fish cake with swirl": ("一片", "鱼板", "a slice of fish cake"),
    "meat on bone": ("一大块", "带骨烤肉", "meat on the bone"),
    "poultry leg": ("一只", "烤鸡腿", "a roast chicken leg"),
    "cut of meat": ("一块", "牛排", "a steak"),
    "bacon": ("几片", "培根", "+strips of bacon"),
    "cooking": ("一个", "煎蛋", "a fried egg"),
    "pancakes": ("一叠", "松饼", "a stack of pancakes"),
    "waffle": ("一块", "华夫饼", "a waffle"),
    "croissant": ("一个", "可颂", "a croissant"),
    "baguette bread": ("一根", "法棍", "a baguette"),
    "pretzel": ("一个", "德国碱水结", "a pretzel"),
    "bagel": ("一个", "贝果", "a bagel"),
    "bread": ("一条", "吐司面包", "a loaf of bread"),
    "cheese wedge": ("一块", "奶酪", "a wedge of cheese"),
    "fondue": ("一锅", "奶酪火锅", "a cheese fondue"),
    "pie": ("一个", "派", "a pie"),
    "birthday cake": ("一个", "生日蛋糕", "a birthday cake"),
    "shortcake": ("一块", "草莓蛋糕", "a piece of strawberry cake"),
    "cupcake": ("一个", "纸杯蛋糕", "a cupcake"),
    "doughnut": ("一个", "甜甜圈", "a doughnut"),
    "cookie": ("一块", "曲奇", "a cookie"),
    "custard": ("一个", "焦糖布丁", "a caramel pudding"),
    "ice cream": ("一杯", "冰淇淋", "a cup of ice cream"),
    "soft ice cream": ("一支", "甜筒", "a soft serve cone"),
    "shaved ice": ("一碗", "刨冰", "a bowl of shaved ice"),
    "chocolate bar": ("一块", "巧克力", "a chocolate bar"),
    "lollipop": ("一支", "棒棒糖", "a lollipop"),
    "popcorn": ("一桶", "爆米花", "a box of popcorn"),
    "roasted sweet potato": ("一个", "烤红薯", "a roasted sweet potato"),
    "ear of corn": ("一根", "玉米", "an ear of corn"),
    "watermelon": ("一块", "西瓜", "a slice of watermelon"),
    "pineapple": ("一个", "菠萝", "a pineapple"),
    "mango": ("一个", "芒果", "a mango"),
    "coconut": ("半个", "椰子", "half a coconut"),
    "strawberry": ("一颗", "草莓", "a strawberry"),
    "cherries": ("一对", "樱桃", "+cherries"),
    "grapes": ("一串", "葡萄", "a bunch of grapes"),
    "peach": ("一个", "水蜜桃", "a peach"),
    "avocado": ("半个", "牛油果", "half an avocado"),
    "squid": ("一只", "鱿鱼", "a squid"),
    "octopus": ("一只", "章鱼", "an octopus"),
    "honey pot": ("一罐", "蜂蜜", "a pot of honey"),
    "takeout box": ("一盒", "外卖", "a takeout box"),
    "tamale": ("一个", "玉米粽子", "a tamale"),
    "chestnut": ("一颗", "板栗", "a chestnut"),
}

DRINKS = {
    "beer mug": ("一杯", "啤酒", "a mug of beer"),
    "clinking beer mugs": ("两杯", "啤酒", "+two mugs of beer"),
    "wine glass": ("一杯", "红酒", "a glass of red wine"),
    "cocktail glass": ("一杯", "鸡尾酒", "a cocktail"),
    "tropical drink": ("一杯", "热带果汁", "a fruity tropical drink"),
    "hot beverage": ("一杯", "热咖啡", "a cup of coffee"),
    "teacup without handle": ("一杯", "绿茶", "a cup of green tea"),
    "bubble tea": ("一杯", "珍珠奶茶", "a bubble tea"),
    "cup with straw": ("一杯", "可乐", "a soda with a straw"),
    "mate": ("一杯", "马黛茶", "a gourd of mate"),
    "teapot": ("一壶", "茶", "a pot of tea"),
    "sake": ("一壶", "清酒", "a flask of sake"),
    "bottle with popping cork": ("一瓶", "香槟", "a bottle of champagne"),
    "beverage box": ("一盒", "果汁", "a juice box"),
    "tumbler glass": ("一杯", "威士忌", "a whisky on the rocks"),
}

SIGHTS = {
    "castle": ("一座", "古堡", "a castle"),
    "church": ("一座", "小教堂", "a small church"),
    "mosque": ("一座", "清真寺", "a mosque"),
    "shinto shrine": ("一座", "鸟居", "a red torii gate"),
    "hindu temple": ("一座", "印度神庙", "a Hindu temple"),
    "Tokyo tower": ("一座", "东京塔", "Tokyo Tower"),
    "Statue of Liberty": ("一座", "自由女神像", "the Statue of Liberty"),
    "ferris wheel": ("一座", "摩天轮", "a Ferris wheel"),
    "roller coaster": ("一座", "过山车", "a roller coaster"),
    "carousel horse": ("一匹", "旋转木马", "a carousel horse"),
    "circus tent": ("一顶", "马戏团帐篷", "a circus tent"),
    "tent": ("一顶", "帐篷", "a tent"),
    "hut": ("一间", "草屋", "a straw hut"),
    "houses": ("几栋", "民居", "+village houses"),
    "classical building": ("一座", "古典建筑", "a classical building with columns"),
    "fountain": ("一座", "喷泉", "a fountain"),
    "palm tree": ("一棵", "棕榈树", "a palm tree"),
    "cactus": ("一棵", "仙人掌", "a cactus"),
    "evergreen tree": ("一棵", "松树", "a fir tree"),
    "hotel": ("一栋", "酒店楼", "a hotel building"),
    "moai": ("一尊", "复活节岛石像", "a moai statue"),
    "kite": ("一只", "风筝", "a kite"),
    "balloon": ("一只", "气球", "a balloon"),
    "umbrella on ground": ("一把", "沙滩伞", "a beach umbrella"),
    "derelict house": ("一栋", "废弃老屋", "an abandoned house"),
}

VEHICLES = {
    "bus": ("一辆", "公交车", "a bus"),
    "minibus": ("一辆", "小巴", "a minibus"),
    "taxi": ("一辆", "出租车", "a taxi"),
    "auto rickshaw": ("一辆", "嘟嘟车", "a tuk-tuk"),
    "bicycle": ("一辆", "自行车", "a bicycle"),
    "motor scooter": ("一辆", "小绵羊摩托", "a scooter"),
    "motorcycle": ("一辆", "摩托车", "a motorcycle"),
    "automobile": ("一辆", "租来的小车", "a rental car"),
    "sport utility vehicle": ("一辆", "越野车", "an SUV"),
    "tram car": ("一辆", "有轨电车", "a tram"),
    "trolleybus": ("一辆", "无轨电车", "a trolleybus"),
    "locomotive": ("一列", "蒸汽火车", "a steam locomotive"),
    "high-speed train": ("一列", "高铁", "a high-speed train"),
    "railway car": ("一节", "火车车厢", "a railway car"),
    "sailboat": ("一艘", "帆船", "a sailboat"),
    "ferry": ("一艘", "渡轮", "a ferry"),
    "speedboat": ("一艘", "快艇", "a speedboat"),
    "canoe": ("一条", "独木舟", "a canoe"),
    "airplane": ("一架", "飞机", "an airplane"),
    "small airplane": ("一架", "小飞机", "a small plane"),
    "helicopter": ("一架", "直升机", "a helicopter"),
    "kick scooter": ("一辆", "滑板车", "a kick scooter"),
    "pickup truck": ("一辆", "皮卡", "a pickup truck"),
}

ANIMALS = {
    "cat": ("一只", "猫", "a cat"),
    "black cat": ("一只", "黑猫", "a black cat"),
    "dog": ("一只", "狗", "a dog"),
    "poodle": ("一只", "贵宾犬", "a poodle"),
    "rabbit": ("一只", "兔子", "a rabbit"),
    "camel": ("一头", "骆驼", "a camel"),
    "two-hump camel": ("一头", "双峰驼", "a two-humped camel"),
    "llama": ("一只", "羊驼", "a llama"),
    "horse": ("一匹", "马", "a horse"),
    "donkey": ("一头", "毛驴", "a donkey"),
    "cow": ("一头", "奶牛", "a cow"),
    "water buffalo": ("一头", "水牛", "a water buffalo"),
    "ewe": ("一只", "绵羊", "a sheep"),
    "elephant": ("一头", "大象", "an elephant"),
    "giraffe": ("一只", "长颈鹿", "a giraffe"),
    "zebra": ("一匹", "斑马", "a zebra"),
    "kangaroo": ("一只", "袋鼠", "a kangaroo"),
    "monkey": ("一只", "猴子", "a monkey"),
    "penguin": ("一只", "企鹅", "a penguin"),
    "flamingo": ("一只", "火烈鸟", "a flamingo"),
    "peacock": ("一只", "孔雀", "a peacock"),
    "parrot": ("一只", "鹦鹉", "a parrot"),
    "duck": ("一只", "鸭子", "a duck"),
    "swan": ("一只", "天鹅", "a swan"),
    "rooster": ("一只", "公鸡", "a rooster"),
    "turtle": ("一只", "海龟", "a turtle"),
    "deer": ("一只", "小鹿", "a deer"),
    "owl": ("一只", "猫头鹰", "an owl"),
    "lizard": ("一只", "蜥蜴", "a lizard"),
    "snail": ("一只", "蜗牛", "a snail"),
    "sloth": ("一只", "树懒", "a sloth"),
    "seal": ("一只", "海豹", "a seal"),
    "hedgehog": ("一只", "刺猬", "a hedgehog"),
    "goose": ("一只", "大鹅", "a goose"),
}

SOUVENIRS = {
    "nesting dolls": ("一个", "套娃", "a nesting doll"),
    "teddy bear": ("一只", "泰迪熊", "a teddy bear"),
    "kimono": ("一件", "和服", "a kimono"),
    "wind chime": ("一个", "风铃", "a wind chime"),
    "red paper lantern": ("一盏", "红灯笼", "a red paper lantern"),
    "spiral shell": ("一个", "海螺", "a sea shell"),
    "nazar amulet": ("一个", "蓝眼睛护身符", "a blue eye amulet"),
    "camera": ("一台", "相机", "a camera"),
    "sunglasses": ("一副", "墨镜", "+sunglasses"),
    "backpack": ("一个", "背包", "a backpack"),
    "luggage": ("一个", "行李箱", "a suitcase"),
    "compass": ("一个", "指南针", "a compass"),
    "scarf": ("一条", "围巾", "a scarf"),
    "hiking boot": ("一只", "登山靴", "a hiking boot"),
    "thong sandal": ("一只", "人字拖", "a flip-flop"),
    "billed cap": ("一顶", "棒球帽", "a baseball cap"),
    "t-shirt": ("一件", "T恤", "a T-shirt"),
    "bikini": ("一套", "比基尼", "a bikini"),
    "handbag": ("一个", "手提包", "a handbag"),
    "ring": ("一枚", "戒指", "a ring"),
    "diving mask": ("一个", "潜水镜", "a diving mask"),
    "closed umbrella": ("一把", "雨伞", "an umbrella"),
    "top hat": ("一顶", "礼帽", "a top hat"),
    "crystal ball": ("一个", "水晶球", "a crystal ball"),
    "violin": ("一把", "小提琴", "a violin"),
    "guitar": ("一把", "吉他", "a guitar"),
    "mirror ball": ("一个", "迪斯科球", "a mirror ball"),
    "wrapped gift": ("一份", "礼物", "a wrapped gift"),
    "postbox": ("一个", "邮筒", "a postbox"),
    "bouquet": ("一束", "花", "a bouquet of flowers"),
    "sunflower": ("一朵", "向日葵", "a sunflower"),
    "tulip": ("一朵", "郁金香", "a tulip"),
    "rose": ("一朵", "玫瑰", "a rose"),
}

PEOPLE = {
    "boy": ("一个", "小男孩", "a boy"),
    "woman: blond hair": ("一位", "金发姑娘", "a blonde woman"),
    "man: beard": ("一位", "大胡子", "a bearded man"),
    "old man": ("一位", "老爷爷", "an old man"),
    "old woman": ("一位", "老奶奶", "an old woman"),
    "woman cook": ("一位", "女厨师", "a cook"),
    "cook": ("一位", "厨师", "a chef"),
    "woman dancing": ("一位", "跳舞的姑娘", "a dancing woman"),
    "man walking": ("一位", "走路的男生", "a man on a walk"),
    "man running": ("一位", "跑步的人", "a runner"),
    "woman biking": ("一位", "骑车的姑娘", "a girl on a bike"),
    "man surfing": ("一位", "冲浪的小哥", "a surfer"),
    "skier": ("一位", "滑雪的人", "a skier"),
    "snowboarder": ("一位", "玩单板的人", "a snowboarder"),
    "woman pilot": ("一位", "女机长", "a pilot"),
    "guard": ("一位", "卫兵", "a guard in uniform"),
    "woman farmer": ("一位", "农妇", "a farmer"),
    "person climbing": ("一位", "攀岩的人", "a climber"),
    "man rowing boat": ("一位", "划船的人", "a man rowing a boat"),
    "person taking bath": ("一位", "泡澡的人", "a bather"),
    "Santa Claus": ("一位", "圣诞老人", "Santa Claus"),
    "snowman": ("一个", "雪人", "a snowman"),
}

TABLE_EXTRAS = {
    "fork and knife": ("一副", "刀叉", "+a knife and fork"),
    "chopsticks": ("一双", "筷子", "+chopsticks"),
    "spoon": ("一把", "勺子", "a spoon"),
    "lemon": ("一个", "柠檬", "a lemon"),
    "hot pepper": ("一根", "辣椒", "a red chilli"),
    "candle": ("一支", "蜡烛", "a candle"),
    "herb": ("一枝", "香草", "a sprig of herbs"),
    "salt": ("一瓶", "盐", "a salt shaker"),
    "tomato": ("一个", "西红柿", "a tomato"),
    "rose": ("一朵", "玫瑰", "a rose"),
    "sunglasses": ("一副", "墨镜", "+sunglasses"),
    "mobile phone": ("一部", "手机", "a phone"),
}
STICKERS = (
    "red heart", "sparkles", "glowing star", "smiling face with heart-eyes", "face savoring food", "thumbs up",
    "rainbow", "camera", "airplane", "smiling face with sunglasses", "fire", "two hearts", "party popper",
    "hundred points", "cherry blossom", "collision",
)

# Photographs: name of the file, Chinese, English, topic.
PHOTOS = {
    "aloe plant": ("芦荟", "an aloe plant", "flora"),
    "astronaut in an orange suit": ("穿橙色航天服的宇航员", "an astronaut in an orange suit", "thing"),
    "autumn mountain meadow": ("秋天的高山草甸", "an autumn mountain meadow", "nature"),
    "baboon face": ("狒狒的脸", "a baboon's face", "wildlife"),
    "blue forget me not flowers": ("蓝色勿忘我", "+blue forget-me-nots", "flora"),
    "blue lit bridge at night": ("夜里亮着蓝光的桥", "a bridge lit in blue at night", "city"),
    "brick houses in an old street": ("老街上的砖房", "+brick houses in an old street", "city"),
    "bridge at night": ("夜色中的桥", "a bridge at night", "city"),
    "bridge cables under a blue sky": ("蓝天下的斜拉桥索", "+bridge cables under a blue sky", "city"),
    "butterfly in the leaves": ("叶间的蝴蝶", "a butterfly in the leaves", "wildlife"),
    "castle with towers": ("带塔楼的城堡", "a castle with towers", "city"),
    "chinese pavilion by the lake": ("湖边的中式亭子", "a Chinese pavilion by the lake", "city"),
    "citrus fruit slices": ("切片的柑橘", "+slices of citrus fruit", "eaten"),
    "city street at sunset": ("日落时的街道", "a city street at sunset", "city"),
    "colorful paint brushes": ("五颜六色的画笔", "+colourful paint brushes", "thing"),
    "colorful plastic cups": ("彩色塑料杯", "+colourful plastic cups", "thing"),
    "cup of coffee on a wooden table": ("木桌上的咖啡", "a cup of coffee on a wooden table", "eaten"),
    "cut fig on a red plate": ("红盘子里切开的无花果", "a cut fig on a red plate", "eaten"),
    "dandelions in evening light": ("夕照里的蒲公英", "+dandelions in evening light", "flora"),
    "dark blue lake at night": ("夜里深蓝的湖", "a dark blue lake at night", "nature"),
    "desert dunes under a blue sky": ("蓝天下的沙丘", "+desert dunes under a blue sky", "nature"),
    "dog at a wooden door": ("木门前的狗", "a dog at a wooden door", "wildlife"),
    "dragonfly on leaves": ("停在叶子上的蜻蜓", "a dragonfly on leaves", "wildlife"),
    "fallen maple leaf": ("落下的枫叶", "a fallen maple leaf", "flora"),
    "forest stream with rocks": ("林间石溪", "a forest stream with rocks", "nature"),
    "ginger cat face": ("橘猫的脸", "a ginger cat's face", "wildlife"),
    "glass tower under a pink sky": ("粉色天空下的玻璃高楼", "a glass tower under a pink sky", "city"),
    "grass on sand dunes": ("沙丘上的草", "grass on sand dunes", "nature"),
    "green circuit board": ("绿色电路板", "a green circuit board", "thing"),
    "green fern leaves": ("绿色蕨叶", "+green fern leaves", "flora"),
    "green grass": ("绿草地", "green grass", "flora"),
    "green palm leaf": ("绿色棕榈叶", "a green palm leaf", "flora"),
    "green tea gardens in mist": ("晨雾里的茶园", "+tea gardens in the mist", "nature"),
    "grey moon surface": ("灰色的月面", "the grey surface of the moon", "thing"),
    "honey bee on a purple flower": ("紫花上的蜜蜂", "a honey bee on a purple flower", "wildlife"),
    "jellyfish in blue sea": ("蓝色海水里的水母", "a jellyfish in the blue sea", "wildlife"),
    "kite in a cloudy sky": ("多云天空里的风筝", "a kite in a cloudy sky", "nature"),
    "ladybird on blue flowers": ("蓝花上的瓢虫", "a ladybird on blue flowers", "wildlife"),
    "lake in brown mountains": ("褐色群山中的湖", "a lake among brown mountains", "nature"),
    "lamp with a flying bird": ("飞鸟造型的灯", "a lamp with a flying bird", "thing"),
    "monarch butterfly wing": ("帝王蝶的翅膀", "the wing of a monarch butterfly", "wildlife"),
    "mountain lake with snow peaks": ("雪山下的湖", "a mountain lake with snow peaks", "nature"),
    "night lights of the earth": ("地球的夜间灯光", "the night lights of the earth", "thing"),
    "ocean waves": ("海浪", "+ocean waves", "nature"),
    "orange dahlia flower": ("橙色大丽花", "an orange dahlia", "flora"),
    "orange flower macro": ("橙色花朵的特写", "a close-up of an orange flower", "flora"),
    "orange nebula": ("橙色星云", "an orange nebula", "thing"),
    "oranges and kiwi fruit": ("橙子和猕猴桃", "+oranges and kiwis", "eaten"),
    "osprey in a tree": ("树上的鱼鹰", "an osprey in a tree", "wildlife"),
    "otters on a tree trunk": ("树干上的水獭", "+otters on a tree trunk", "wildlife"),
    "pale wood grain": ("浅色木纹", "pale wood grain", "thing"),
    "path in a dark forest": ("幽暗林中的小路", "a path in a dark forest", "nature"),
    "pier in grey fog": ("灰雾中的栈桥", "a pier in grey fog", "nature"),
    "pink dahlia flower": ("粉色大丽花", "a pink dahlia", "flora"),
    "potted grass by a wall": ("墙边的盆栽草", "potted grass by a wall", "thing"),
    "purple canyon": ("紫色峡谷", "a purple canyon", "nature"),
    "purple sea at dusk": ("黄昏时紫色的海", "the purple sea at dusk", "nature"),
    "radio telescope": ("射电望远镜", "a radio telescope", "thing"),
    "rain drops on green leaves": ("绿叶上的雨滴", "+rain drops on green leaves", "flora"),
    "red and yellow garden flower": ("红黄相间的花", "a red and yellow garden flower", "flora"),
    "red canyon walls": ("红色峡谷岩壁", "+red canyon walls", "nature"),
    "red desert dune with hikers": ("红色沙丘和徒步的人", "a red dune with hikers", "nature"),
    "red flower in green moss": ("青苔里的红花", "a red flower in green moss", "flora"),
    "red motorcycle in a garage": ("车库里的红色摩托", "a red motorcycle in a garage", "thing"),
    "rocket on the launch pad at night": ("夜里发射台上的火箭", "a rocket on the launch pad at night", "thing"),
    "roman colosseum": ("罗马斗兽场", "the Colosseum in Rome", "city"),
    "rowing boats in evening glow": ("晚霞里的小木船", "+rowing boats in the evening glow", "nature"),
    "satellite over the coast": ("海岸线上空的卫星", "a satellite over the coast", "thing"),
    "seed with wings on orange": ("橙色背景上带翅膀的种子", "a winged seed on orange", "thing"),
    "skyline of a city at dusk": ("黄昏的城市天际线", "a city skyline at dusk", "city"),
    "small bird on a rock": ("石头上的小鸟", "a small bird on a rock", "wildlife"),
    "snow peak at dusk": ("黄昏的雪峰", "a snow peak at dusk", "nature"),
    "spiral courtyard with lamps": ("挂灯的螺旋天井", "a spiral courtyard with lamps", "city"),
    "star trails over hills": ("山丘上空的星轨", "+star trails over hills", "nature"),
    "stone path in the mountains": ("山里的石头路", "a stone path in the mountains", "nature"),
    "storm clouds over a road": ("公路上空的乌云", "+storm clouds over a road", "nature"),
    "sunset by the pier": ("栈桥边的日落", "a sunset by the pier", "nature"),
    "sunset over hills": ("山丘上的日落", "a sunset over the hills", "nature"),
    "toy shells and fabric": ("小贝壳和布料", "+toy shells and fabric", "thing"),
    "tree trunk in the snow": ("雪中的树干", "a tree trunk in the snow", "flora"),
    "water drop on blue water": ("蓝色水面上的水滴", "a water drop on blue water", "thing"),
    "white concrete building": ("白色水泥建筑", "a white concrete building", "city"),
    "white curved facade": ("白色弧形外墙", "a white curved facade", "city"),
    "white lantern at night": ("夜里的白灯笼", "a white lantern at night", "city"),
    "white roof tiles": ("白色屋瓦", "+white roof tiles", "city"),
    "white tower from below": ("仰拍的白色高楼", "a white tower from below", "city"),
    "wine glass in a cellar": ("酒窖里的酒杯", "a wine glass in a cellar", "eaten"),
    "wooden pier by the water": ("水边的木栈道", "a wooden pier by the water", "nature"),
    "wooden sign in the desert": ("沙漠里的木牌", "a wooden sign in the desert", "nature"),
    "yellow flower petals on grey": ("灰底上的黄色花瓣", "+yellow petals on grey", "flora"),
    "yellow flower petals": ("黄色花瓣", "+yellow flower petals", "flora"),
}

SKY_NAMES = {
    "noon": ("蓝天下", "under a blue sky"),
    "dusk": ("粉色晚霞里", "under a pink evening sky"),
    "gold": ("金色夕照里", "in golden light"),
    "grey": ("阴天里", "on a grey day"),
    "night": ("夜色中", "at night"),
    "dawn": ("清晨", "at dawn"),
}
GROUND_NAMES = {
    "green": ("青山", "+green mountains"),
    "brown": ("褐色的山", "+brown hills"),
    "blue": ("远山", "+blue mountains"),
    "snow": ("雪山", "+snowy mountains"),
    "red": ("红色沙丘", "+red dunes"),
    "tea": ("茶山", "+tea hills"),
}
COLOUR_NAMES = {
    "red": "红色",
    "orange": "橙色",
    "yellow": "黄色",
    "green": "绿色",
    "blue": "蓝色",
    "purple": "紫色",
    "pink": "粉色",
    "white": "白色",
    "teal": "青色",
    "brown": "棕色",
    "grey": "灰色",
}
TABLE_NAMES = {
    "wooden table": ("木桌", "wooden table"),
    "dark wood": ("深色木桌", "dark wooden table"),
    "linen cloth": ("亚麻桌布", "linen tablecloth"),
    "grey concrete": ("水泥台面", "concrete counter"),
    "green lawn": ("草地", "grass"),
    "white marble": ("白色大理石桌面", "marble table"),
    "sand": ("沙滩", "sand"),
    "blue water": ("水面", "water"),
}

CITIES = [
    ("成都", "Chengdu"), ("重庆", "Chongqing"), ("西安", "Xi'an"), ("大理", "Dali"), ("丽江", "Lijiang"),
    ("厦门", "Xiamen"), ("杭州", "Hangzhou"), ("苏州", "Suzhou"), ("广州", "Guangzhou"), ("潮州", "Chaozhou"),
    ("顺德", "Shunde"), ("青岛", "Qingdao"), ("哈尔滨", "Harbin"), ("拉萨", "Lhasa"), ("喀什", "Kashgar"),
    ("伊犁", "Yili"), ("敦煌", "Dunhuang"), ("桂林", "Guilin"), ("阳朔", "Yangshuo"), ("泉州", "Quanzhou"),
    ("长沙", "Changsha"), ("武汉", "Wuhan"), ("台北", "Taipei"), ("台南", "Tainan"), ("香港", "Hong Kong"),
    ("澳门", "Macau"), ("三亚", "Sanya"), ("婺源", "Wuyuan"), ("平遥", "Pingyao"), ("呼伦贝尔", "Hulunbuir"),
    ("京都", "Kyoto"), ("大阪", "Osaka"), ("札幌", "Sapporo"), ("冲绳", "Okinawa"), ("首尔", "Seoul"),
    ("济州岛", "Jeju"), ("曼谷", "Bangkok"), ("清迈", "Chiang Mai"), ("河内", "Hanoi"), ("会安", "Hoi An"),
    ("暹粒", "Siem Reap"), ("槟城", "Penang"), ("新加坡", "Singapore"), ("巴厘岛", "Bali"),
    ("加德满都", "Kathmandu"), ("伊斯坦布尔", "Istanbul"), ("卡帕多奇亚", "Cappadocia"), ("里斯本", "Lisbon"),
    ("波尔图", "Porto"), ("塞维利亚", "Seville"), ("巴塞罗那", "Barcelona"), ("巴黎", "Paris"), ("里昂", "Lyon"),
    ("罗马", "Rome"), ("那不勒斯", "Naples"), ("博洛尼亚", "Bologna"), ("威尼斯", "Venice"), ("维也纳", "Vienna"),
    ("布拉格", "Prague"), ("布达佩斯", "Budapest"), ("柏林", "Berlin"), ("慕尼黑", "Munich"),
    ("爱丁堡", "Edinburgh"), ("雷克雅未克", "Reykjavik"), ("特罗姆瑟", "Tromsø"), ("马拉喀什", "Marrakesh"),
    ("开罗", "Cairo"), ("开普敦", "Cape Town"), ("纽约", "New York"), ("新奥尔良", "New Orleans"),
    ("旧金山", "San Francisco"), ("墨西哥城", "Mexico City"), ("库斯科", "Cusco"), ("皇后镇", "Queenstown"),
    ("墨尔本", "Melbourne"), ("圣托里尼", "Santorini"), ("杜布罗夫尼克", "Dubrovnik"),
]

# ---------------------------------------------------------------------------------------------------------------------
# Grammars. Facts are thing, a_thing, ground, extra, city, shop, street, price and the like; in English also the, this,
# be and was, which go with the thing.

ZH = {
    "flora": [
        "{thing}{mood?}", "{city}植物园里的{thing}{mood?}", "{street}路边的{thing}{mood?}",
        "{when?}{saw}{thing}{mood?}", "蹲在地上拍的{thing}，{camera}", "{month}月{day}日，{thing}开得正好",
        "微距下的{thing}", "{city}的{season}，{thing}{mood?}", "民宿院子里的{thing}{mood?}",
        "{who}叫不出名字，我查了，{thing}", "走近看{thing}，{detail_word}", "{thing}，{detail_word}{mood?}",
        "去{city}的路上{saw}{thing}", "拍{thing}拍了{n}张，留这张",
    ],
    "detail_word": ["纹路清清楚楚", "颜色特别正", "还带着露水", "背景虚化得刚好", "一点不输画册", "凑近才看得见"],
    "wildlife": [
        "{thing}{cute?}", "守了{n}个小时，终于等到{thing}", "{when?}{saw}{thing}{mood?}",
        "{city}郊外的{thing}{mood?}", "{camera}{shot}的{thing}", "{thing}，{month}月{shot}于{city}",
        "徒步路上{saw}{thing}，不敢出声", "第{n}次来{city}，头一回{saw}{thing}", "请看镜头！{thing}",
        "{who}先发现的：{thing}", "{thing}，{detail_word}", "放大看，{thing}{mood?}",
    ],
    "diptych": [
        "左边{a_thing}，右边{extra}", "{a_thing}和{extra}的拼图", "二选一：{thing}还是{extra}？",
        "{city}吃了两家，{a_thing}，{extra}",
        "{who}点的{thing}，我点的{extra}", "{meal}和甜点：{a_thing}，{extra}",
        "拼个图，{thing}＋{extra}{bang}",
    ],
    "aside": [
        "从{street}走过去{n}分钟", "{who}说旺季要提前{n}天订", "那天{weather}，{who}一直催我快拍",
        "{year}年来的时候还不是这样", "下次想带{who}再来", "记得带{bring}", "算是给这趟{city}之行留个纪念",
        "一路{weather}，心情倒是不错", "回来翻照片，最喜欢的就是这张", "来回花了{n}个小时，{mood_word}",
        "不用门票，{hour}点以后人少", "{who}非要我发出来", "照片是{month}月拍的，拖到现在才整理，{mood_word}",
        "原本计划去别处，因为{weather}才留下来的", "{bring}一定要带，别问我怎么知道的",
    ],
    "weather": ["下着小雨", "大太阳", "起了大雾", "刮大风", "又冷又湿", "热得像蒸笼", "天气好得不像话", "晴转多云"],
    "bring": ["防晒霜", "雨衣", "现金", "厚外套", "驱蚊水", "充电宝", "零钱", "学生证", "望远镜"],
    # food
    "dish": [
        "{when?}在{shop}{ate}{a_thing}{side?}{taste?}", "{shop}的{thing}{side?}，{taste_word}",
        "{shop}{thing}{taste?}", "{city}{must}的{thing}{taste?}", "{a_thing}{side?}{taste?}",
        "终于{ate}了心心念念的{thing}{taste?}", "{who}给我{made}的{thing}{side?}{taste?}",
        "{who}{made}了{a_thing}{side?}{taste?}", "{on_ground}的{a_thing}{side?}",
        "{on_ground}放着{a_thing}{side?}{taste?}", "今天的{meal}：{a_thing}{side?}{taste?}",
        "{city}第{n}天，{meal}是{a_thing}{taste?}", "{price}块钱的{thing}，{value}", "{thing}（{price}元），{value}",
        "{street}路边摊的{thing}，{price}元一份{taste?}", "{when?}{city}街头{a_thing}{taste?}",
        "来{city}怎么能不吃{thing}{bang}", "{shop}，{a_thing}{side?}，{people_count}{spent}",
        "饭后甜点换成了{a_thing}{side?}", "{thing}上桌了，{taste_word}{side?}",
        "第一次吃{thing}，没想到{taste_word}", "{meal}随便吃点：{thing}", "深夜放毒：{a_thing}{side?}{taste?}",
        "{thing}和{extra}，{pair}", "{thing}特写", "俯拍{on_ground}的{thing}", "「{shop}」招牌{thing}{taste?}",
        "{city}·{thing}", "在{city}的早晨，从{a_thing}开始", "排了{n}个小时的队，就为这{measure}{thing}",
        "{who}说这是{city}最好吃的{thing}{taste?}", "{month}月的{city}，{street}，{a_thing}{side?}",
    ],
    "taste": [
        "，{taste_word}", "，{taste_word}，{taste_word}", "。{taste_word}{bang}", "，{value}", "（{taste_word}）",
        "~{taste_word}", "，真的{taste_word}", "，就是{flaw}",
    ],
    "taste_word": [
        "外酥里嫩", "味道很正", "分量很足", "入口即化", "汤头很鲜", "甜而不腻", "咸香下饭", "有点辣但停不下来",
        "香味隔着屏幕都能闻到", "颜值和味道都在线", "比想象中清淡", "口感很扎实", "料给得很大方", "越嚼越香",
        "酸酸甜甜很开胃", "和小时候的味道一样", "热乎乎的", "摆盘好看",
    ],
    "flaw": ["稍微咸了点", "分量有点少", "等得久了些", "价格小贵", "放凉了一点"],
    "value": [
        "性价比很高", "值得专门跑一趟", "景区里算良心了", "本地人也来吃", "两个人吃刚好", "一个人吃不完",
        "比国内便宜", "不算便宜但值",
    ],
    "ate": ["点了", "吃了", "尝了", "吃到", "打包了", "要了", "拼桌吃了", "又吃了"],
    "made": ["做", "煮", "现做", "端", "买", "推荐"],
    "who": ["老板", "民宿阿姨", "老公", "我妈", "房东奶奶", "隔壁桌的大叔", "闺蜜", "当地朋友", "导游小哥", "厨师"],
    "when": [
        "{month}月", "清早", "一大早", "傍晚", "半夜", "下雨天", "周末", "昨晚", "爬完山", "下了火车", "临走前",
        "{hour}点多", "年三十晚上", "旅行最后一天",
    ],
    "must": ["必吃", "随处可见", "街头", "老字号", "夜市", "早市", "特色", "人从小吃到大"],
    "meal": ["早餐", "午饭", "晚饭", "夜宵", "下午茶", "早午餐", "路餐", "飞机餐后的第一口"],
    "side": ["，配{extra}", "，旁边是{extra}", "加{extra}", "，边上还有{extra}", "和{extra}"],
    "on_ground": ["{ground}上"],
    "people_count": ["两个人", "三个人", "一家四口", "我俩", "六个人"],
    "spent": ["花了{price}", "一共{price}元", "人均{price}", "吃得精光", "全吃完了"],
    "pair": ["绝配", "简单却满足", "今天的快乐", "就是一顿饭", "完美搭档"],
    "bang": ["！", "！！", "~", "", "。", "呀", "呢"],
    "mood": ["，{mood_word}", "。{mood_word}", "，{mood_word}{bang}", "~ {mood_word}", "（{mood_word}）"],
    "mood_word": [
        "风很大", "安静得只听见风声", "一个游客都没有", "人比想象中多", "站了很久舍不得走", "比照片里还美",
        "手机随手拍的", "没有滤镜", "等了{n}个小时等到的光", "冷得发抖", "空气里都是青草味", "运气真好", "像画一样",
        "这一刻什么都不想", "拍到手机没电", "刚下过雨", "云走得很快", "颜色一分钟一个样",
    ],
    # views
    "nature": [
        "{when?}{city}的{thing}{mood?}", "{thing}，{shot}于{city}{mood?}", "{when?}{saw}{thing}{mood?}",
        "{thing}{mood?}", "从{stand}看{thing}{mood?}", "{city}第{n}天：{thing}{mood?}",
        "徒步{n}公里后{saw}{thing}{mood?}", "海拔{altitude}米，{thing}{mood?}", "{month}月{day}日，{city}，{thing}",
        "{hour}点的{thing}{mood?}", "自驾路上{saw}的{thing}{mood?}", "车窗外的{thing}{mood?}",
        "{who}拍的{thing}{mood?}", "最想念的还是{city}的{thing}", "{city}，{thing}，{mood_word}", "{thing}的一角",
        "在{city}{saw}了{thing}，{mood_word}", "一年前的今天，{city}，{thing}",
        "没想到{city}也有这样的{thing}{mood?}", "{camera}{shot}，{thing}", "换个角度看{thing}",
        "路过{city}，{thing}就在{near}", "镜头里的{thing}{mood?}", "为了{thing}专门来的{city}",
        "{thing}，值得早起{bang}", "{thing}——{city}{season}的样子",
    ],
    "saw": ["遇见", "看到", "偶遇", "拍到", "撞见", "等来"],
    "shot": ["拍摄", "摄", "随拍", "拍"],
    "stand": ["山顶", "民宿露台", "对岸", "高处", "飞机上", "船上", "观景台", "酒店房间", "木栈道"],
    "camera": ["富士胶片", "手机", "索尼A7M3", "大疆", "长焦", "尼康Z6", "iPhone 13", "GR3", "50mm定焦"],
    "near": ["路边", "脚下", "眼前", "拐角处", "村口", "桥那头"],
    "season": ["春天", "夏天", "秋天", "冬天", "雨季", "旺季", "淡季"],
    "altitude": ["2860", "3200", "3650", "4112", "4718", "5013", "1864"],
    "city_view": [
        "{city}的{thing}{mood?}", "{when?}逛{city}，{thing}{mood?}", "{thing}，{city}{street}{mood?}",
        "走累了坐在{street}看{thing}{mood?}", "{city}citywalk，{saw}{thing}{mood?}", "{thing}{mood?}",
        "{hour}点的{city}：{thing}", "建筑控的{city}之行：{thing}", "{thing}，{month}月{shot}于{city}",
        "从{stand}望出去，{thing}{mood?}", "雨后的{city}，{thing}", "{city}地标之一，{thing}",
        "迷路的时候{saw}了{thing}", "{city}老城，{thing}，{mood_word}", "第{n}次来{city}，{thing}还是老样子",
        "仰头就是{thing}{mood?}", "{who}带我去看{thing}{mood?}",
    ],
    "animal": [
        "{city}{street}的{thing}{cute?}", "{a_or_thing}{cute?}", "{when?}{saw}{a_or_thing}{cute?}",
        "民宿养的{thing}{cute?}", "{thing}盯着我看{cute?}", "路边{saw}{a_or_thing}，{cute_word}",
        "{on_ground}的{thing}{cute?}", "{city}偶遇{thing}{cute?}", "{thing}：拍够了没有？", "喂完{thing}才舍得走",
        "和{thing}合影，{cute_word}", "{city}动物园的{thing}{cute?}", "{who}家的{thing}，{cute_word}",
        "给{thing}拍了{n}张，这张最好", "{thing}的侧脸{cute?}", "{month}月的{city}，{thing}{cute?}",
    ],
    "a_or_thing": ["{a_thing}", "{thing}"],
    "cute": ["，{cute_word}", "~{cute_word}", "，{cute_word}{bang}", "（{cute_word}）"],
    "cute_word": [
        "一点不怕人", "懒洋洋的", "毛茸茸", "在晒太阳", "名叫{pet}", "{n}岁了", "好像在等人", "眼神很有戏",
        "跟了我们一路", "胖得走不动", "很上镜", "全岛最闲",
    ],
    "pet": ["豆包", "年糕", "阿黄", "咪咪", "可乐", "元宝", "Lucky", "小七", "馒头", "大王"],
    # composed scenes
    "sight": [
        "{back}前的{a_thing}{mood?}", "{back}，{a_thing}{with?}", "{city}的{thing}{with?}{mood?}",
        "{when?}在{city}看{thing}{mood?}", "远处是{back}，近处是{a_thing}{with?}", "{thing}和{back}，{city}",
        "{a_thing}立在{back}下面{mood?}", "{city}一日游，{thing}打头阵{with?}",
        "画面里有{a_thing}{with?}，背景是{back}", "终于见到{city}的{thing}{bang}", "{thing}旁边{with_only}{mood?}",
    ],
    "with": ["，还有{extra}", "，旁边{extra}", "，和{extra}同框", "，右边是{extra}", "，加上{extra}"],
    "with_only": ["有{extra}", "是{extra}", "站着{extra}", "停着{extra}"],
    "people": [
        "{a_thing}在{back}前{with?}", "{when?}{city}，{a_thing}{with?}{mood?}", "{thing}和{extra}在{city}的合影",
        "{back}下的{a_thing}{mood?}", "抓拍到{a_thing}，背后是{back}", "{city}街头{a_thing}{with?}",
        "{who}镜头下的{thing}，{mood_word}", "旅途中认识的{thing}{with?}", "{a_thing}和{extra}，{city}，{month}月",
    ],
    "ride": [
        "{city}的{thing}{mood?}", "{back}下驶过{a_thing}{mood?}", "坐{thing}去{city}，{hour}点出发",
        "{a_thing}和{back}{mood?}", "{city}街头的{colour}{thing}", "等了{n}分钟，{thing}来了{bang}",
        "{thing}票价{price}元，全程{n}小时", "租了{a_thing}环岛，{mood_word}", "{thing}开进{back}里",
        "换乘{n}次才坐上的{thing}{mood?}", "{month}月在{city}坐的{thing}，窗外是{back}",
    ],
    "room": [
        "{hotel}的{room_name}，{wall}墙面配{bed}床品", "{hotel}{room_name}{stay?}",
        "{city}住的{room_name}，{bed}的床{stay?}", "{bed}床单、{wall}墙的{room_name}{stay?}",
        "推开门就是{bed}的大床{stay?}", "{city}第{n}晚住{hotel}，{wall}墙{stay?}",
        "{price}元一晚的{room_name}，{stay_word}", "{hotel}，窗外{outside}{stay?}",
        "房间不大，{wall}的墙，{bed}的床，窗外{outside}", "升级到了{room_name}，{stay_word}",
        "{n}楼的{room_name}，窗外{outside}", "晚上{hour}点入住，{room_name}，{bed}床",
    ],
    "room_name": ["大床房", "标间", "海景房", "榻榻米房", "家庭房", "阁楼房", "青旅单间", "庭院房", "LOFT", "复式"],
    "stay": ["，{stay_word}", "，{stay_word}，{stay_word}", "（{stay_word}）", "。{stay_word}{bang}"],
    "stay_word": [
        "很干净", "隔音一般", "采光好", "床很软", "离地铁站{n}分钟", "含双早", "老板娘很热情", "小而温馨",
        "装修挺新", "可以带宠物", "有浴缸",
    ],
    "menu": [
        "{shop}的菜单：{items}", "{city}{shop}价目表，{first}{price}元", "手写菜单，{items}", "墙上的菜牌：{items}",
        "{shop}点菜看这里，{first}{price}元一份", "{items}，{shop}的{month}月新菜单",
        "菜单拍给你们看，{first}才{price}块", "在{shop}对着菜单纠结：{items}", "{city}物价参考：{first}{price}元",
    ],
    "souvenir": [
        "{city}带回来的{thing}{with?}", "{a_thing}{with?}，{on_ground}", "这次的战利品：{a_thing}{with?}",
        "{street}小店淘到的{colour}{thing}，{price}元", "出发前的行李：{thing}{with?}",
        "{thing}和{extra}摆在{ground}上", "送给{who}的{colour}{thing}", "{city}手信，{a_thing}{with?}",
        "{ground}上摊开的{thing}{with?}，准备打包", "逛{city}集市，{a_thing}砍到{price}元",
        "{colour}的{thing}，{city}集市", "{on_ground}有{a_thing}{with?}",
    ],
    "journal": [
        "{city}手帐，画了{thing}{with?}", "旅行手绘：{city}的{thing}{with?}",
        "手帐第{n}页，{thing}{with?}，标题写着“{title}”", "随手画的{thing}{with?}，{city}之行第{n}天",
        "{month}月{city}的旅行手帐，贴了{thing}贴纸", "把{city}画进本子里：{thing}{with?}", "“{title}”，手绘{thing}",
        "水彩小画，{thing}{with?}",
    ],
    "postcard": [
        "{city}明信片，印着{thing}", "寄自{city}的明信片：{thing}，盖了{month}月{day}日的戳",
        "写着“{title}”的明信片，图案是{thing}", "收到{who}从{city}寄来的{thing}明信片",
        "{city}邮局买的明信片，{thing}款", "明信片一张，{colour}底，{thing}，{city}",
    ],
    "ticket": [
        "{city}{thing}的门票，No.{number}", "门票{price}元，票面印着{thing}，编号{number}",
        "{month}月{day}日的票根：{city}，{thing}", "集票爱好者，{city}的{thing}票，{number}",
        "票根收藏第{n}张，{thing}，{price}元",
    ],
    "map": [
        "{city}{n}日路线图：{stops}", "手绘路线：{stops}", "{stops}，我的{city}地图",
        "{city}citywalk路线，{stops}，全程{n}公里", "第{n}天的路线：{stops}",
    ],
    "eaten": [
        "{thing}{taste?}", "{shop}的角落，{thing}{mood?}", "{city}，{thing}，{taste_word}", "{when?}{thing}{taste?}",
        "{shop}，{thing}{mood?}", "{meal}拍了{thing}", "{who}{made}的，{thing}", "{thing}，慢生活从{city}开始",
        "{hour}点的{shop}，{thing}",
    ],
    "thing_photo": [
        "{city}拍到的{thing}{mood?}", "{thing}{mood?}", "{city}博物馆里的{thing}照片", "{when?}拍下{thing}{mood?}",
        "{thing}，细节很好看", "{who}喜欢的{thing}", "{thing}的特写，{camera}{shot}",
        "{shot}了一张{thing}，{mood_word}", "在{city}展览上{saw}的{thing}",
    ],
}

EN = {
    "flora": [
        "{A_thing}{mood?}",
        "{A_thing} in the botanical garden of {city}{mood?}",
        "{A_thing} by the road to {city}{mood?}",
        "Macro of {a_thing}, {camera}",
        "{month} {day}: {a_thing}",
        "{A_thing}, {detail_word}",
        "Our host's garden: {a_thing}{mood?}",
        "Can anyone name the species? {A_thing}, {detail_word}",
        "Look closely at {a_thing}{mood?}",
        "{city} in {season}, {a_thing}",
        "{When_} {we} stopped for {a_thing}",
        "Knelt in the dirt for {this} {thing}{mood?}",
        "{n} tries to get {a_thing} in focus",
    ],
    "detail_word": [
        "every vein visible", "such a colour", "still wet with dew", "soft background", "straight out of camera",
        "smaller than my thumb",
    ],
    "wildlife": [
        "{A_thing}{cute?}", "{A_thing} near {city}{mood?}", "Waited {n} hours for {a_thing}",
        "{We} spotted {a_thing} on the trail{mood?}", "{A_thing}, {city}, {month} {year}", "Shh! {A_thing}",
        "{A_thing}, {camera}", "Best sighting of the trip: {a_thing}{mood?}", "My {who} saw it first: {a_thing}",
        "{A_thing}, {detail_word}", "{When_} {we} found {a_thing}{mood?}",
    ],
    "diptych": [
        "{A_thing} on the left, {extra} on the right", "Two plates from {city}: {a_thing} and {extra}",
        "{thing} or {extra}? You choose", "Collage of {a_thing} and {extra}", "My {who} had {a_thing}, I had {extra}",
        "{A_thing} from {shop}, and {extra} next door", "Side by side: {thing}, {extra}{bang}",
    ],
    "aside": [
        "It is a {n} minute walk from {street}.",
        "My {who} says to book {n} days ahead.",
        "The weather was {weather} all day but nobody cared.",
        "Bring {bring}, trust me.",
        "Last time I came, in {year}, none of this was here.",
        "Next time I'm taking my {who}.",
        "Posting it so that I remember this day in {city}.",
        "We were on our way elsewhere when it got {weather}.",
        "No ticket needed, and after {hour} it gets quiet.",
        "Taken in {month}, only sorted my photos now.",
        "It took us {n} hours to get there, {mood_word}.",
        "Of the whole album this is the one I'd print.",
        "My {who} made me post this.",
    ],
    "weather": ["rainy", "far too hot", "foggy", "windy", "cold and wet", "perfect", "grey", "unreal"],
    "bring": [
        "sunscreen", "a raincoat", "cash", "a warm jacket", "mosquito spray", "a power bank", "good shoes",
        "a student card", "binoculars",
    ],
    "dish": [
        "{A_thing}{side?} at {shop}{taste?}",
        "{When_} {we} had {a_thing}{side?} at {shop}{taste?}",
        "{The} {thing} at {shop} {was} {good}{taste?}",
        "{A_thing}{side?}{taste?}",
        "{A_thing} on a {ground}{taste?}",
        "{Meal} in {city}: {a_thing}{side?}",
        "{Meal}, day {n} in {city}. {A_thing}{side?}.",
        "{city} street food - {thing}{taste?}",
        "My {who} made {a_thing}{side?}{taste?}",
        "{This} {thing} {was} {good}{bang}",
        "{This} {thing} cost {price} {money} and {was} {good}",
        "You can't leave {city} without trying {the} {thing}{bang}",
        "Finally tried {the} famous {thing} of {city}{taste?}",
        "{A_thing}, {price} {money}, {good}",
        "{thing} + {extra} = {joy}",
        "Close up of {a_thing}",
        "Overhead shot of {a_thing}{side?} on a {ground}",
        "Who could say no to {this} {thing}?",
        "{shop} does {good} {thing}",
        "{We} queued {n}0 minutes for {this} {thing}{taste?}",
        "{A_thing} from the stall on {street}{taste?}",
        "{Good} {thing} at {shop}, {city}",
        "When in {city}... {thing}!",
        "{A_thing} to share{side?}",
        "First {thing} of the trip{taste?}",
        "Not the prettiest photo, but {this} {thing} {was} {good}",
        "{shop}, {city}: {thing}{side?}",
        "{A_thing} for {meal}{side?}{taste?}",
        "Sunday {meal}: {thing}{side?}",
        "The house special at {shop}, {a_thing}",
        "{We} ordered {a_thing} and {extra}{taste?}",
        "{thing} and {extra} on the table",
        "I dream about {the} {thing} from {shop}",
    ],
    "A_thing": ["{a_thing}"],
    "The": ["{the}"],
    "This": ["{this}"],
    "When_": ["{when}"],
    "We": ["{we}"],
    "Good": ["{good}"],
    "Meal": ["{meal}"],
    "we": ["we", "I", "the kids", "my husband and I", "the two of us", "our group", "my sister"],
    "when": [
        "on our last night", "after a long hike", "straight off the plane", "last Saturday",
        "at {hour} in the morning", "in {month}", "on a rainy afternoon", "before the ferry", "two years ago",
        "on day {n}",
    ],
    "good": [
        "delicious", "crispy and hot", "surprisingly light", "a bit too salty", "worth every cent", "huge",
        "just like my grandma's", "very fresh", "sweet but not too sweet", "spicy", "perfect after a swim",
        "nothing fancy, really good", "rich and creamy", "better than it looks", "generous",
    ],
    "taste": [
        ", {good}", ". {good_S}", " - {good}", " ({good})", ", {good} and {good}", "; {verdict}", ". {verdict_S}",
        ", {verdict}", ". {verdict_S}{bang}",
    ],
    "good_S": ["{good}"],
    "verdict_S": ["{verdict}"],
    "verdict": [
        "we came back twice", "no leftovers", "next time without onions", "I'd order it again",
        "the portion is big enough for two", "the locals eat here too", "ask for extra sauce", "don't skip it",
        "I licked the plate", "book ahead", "cash only",
    ],
    "side": [" with {extra}", " and {extra}", ", {extra} on the side", " next to {extra}", " plus {extra}"],
    "money": ["euros", "dollars", "yuan", "baht", "pounds", "yen", "pesos"],
    "meal": ["breakfast", "lunch", "dinner", "brunch", "a late supper", "a quick snack", "picnic", "room service"],
    "who": ["husband", "mum", "host", "friend Anna", "sister", "dad", "landlady", "guide", "roommate"],
    "joy": ["happiness", "vacation mode", "the perfect evening", "dinner", "heaven", "love"],
    "bang": ["!", "!!", ".", "", " :)", "..."],
    "mood": [
        ", {mood_word}", ". {mood_S}.", " - {mood_word}", " ({mood_word})", "; {mood_word}",
        ", {mood_word} and {mood_word}", ". {mood_S}!", "... {mood_word}",
    ],
    "mood_S": ["{mood_word}"],
    "mood_word": [
        "not another soul around", "no filter needed", "taken on my phone", "colder than it looks",
        "we stayed until dark", "so quiet", "worth the climb", "the light was unreal", "windy but beautiful",
        "just before the rain", "shot from the train", "my favourite of the trip", "pure luck", "an hour of waiting",
        "one of {n} shots", "I could have stayed all day",
    ],
    "nature": [
        "{A_thing} near {city}{mood?}",
        "{A_thing}{mood?}",
        "{A_thing} seen from {stand}{mood?}",
        "{The} {thing} in {month}{mood?}",
        "{When_} {we} came across {a_thing}{mood?}",
        "{city}, day {n}: {a_thing}{mood?}",
        "View of {a_thing} from {stand}",
        "{A_thing}, {city}, {month} {year}",
        "Hiked {n} km to see {a_thing}{mood?}",
        "{hour}am: {a_thing}{mood?}",
        "Looking at {a_thing} somewhere outside {city}",
        "Detail of {a_thing}",
        "Nothing beats {a_thing}{bang}",
        "Can you believe {this} {thing} {be} only an hour from {city}?",
        "{thing} ({city}, {year})",
        "Road trip stop no. {n}: {thing}",
        "I miss {this}: {thing}, {city}",
        "Woke up early for {a_thing}{mood?}",
        "{We} drove from {city} to see {a_thing}{mood?}",
        "{A_thing}, {camera}",
        "Back in {month}: {a_thing}{mood?}",
        "{Season} near {city}, {a_thing}",
        "Another angle on {a_thing}",
        "A quiet moment with {a_thing}{mood?}",
        "Through my lens: {thing}",
        "Throwback to {city} and {a_thing}",
        "{The} {thing} {we} had been waiting for",
        "So this is {city}: {thing}{mood?}",
    ],
    "Season": ["{season}"],
    "season": ["spring", "summer", "autumn", "winter", "low season", "monsoon season"],
    "stand": [
        "the top", "the hotel balcony", "the other shore", "the plane", "the boat", "the lookout", "our tent",
        "the cable car", "the road",
    ],
    "camera": [
        "Fuji X100V", "35mm film", "iPhone 13 Pro", "Nikon D750, 70-200mm", "Sony a6400", "GoPro", "DJI Mini 2",
        "Canon EOS R6", "Kodak Portra 400",
    ],
    "city_view": [
        "{A_thing} in {city}{mood?}",
        "{city}: {a_thing}{mood?}",
        "Walking around {city}, {a_thing}{mood?}",
        "{A_thing}{mood?}",
        "{The} {thing}, a short walk from {street}{mood?}",
        "Got lost near {street} and found {a_thing}",
        "{city} by {dayhalf}: {thing}",
        "{A_thing} as seen from {stand}",
        "Look up! {A_thing} in {city}",
        "{city} in {n} photos, no. {n}: {thing}",
        "{The} {thing} on our last evening in {city}",
        "Lines and shapes: {thing}, {city}",
        "{We} spent {month} in {city}. {A_thing}{mood?}",
        "{A_thing} off {street}{mood?}",
        "{city} {year}. {A_thing}.",
        "Sightseeing day: {thing}{mood?}",
        "Everybody takes this photo of {the} {thing}. So did {we}.",
    ],
    "dayhalf": ["day", "night", "bike", "foot", "tram"],
    "animal": [
        "{A_thing}{cute?}",
        "{A_thing} in {city}{cute?}",
        "{We} met {a_thing} on {street}{cute?}",
        "{The} {thing} at our guesthouse{cute?}",
        "{A_thing} on the {ground}{cute?}",
        "{When_} {a_thing} came by{cute?}",
        "Say hello to {this} {thing}{bang}",
        "Made a new friend in {city}: {a_thing}",
        "{This} {thing} followed us home{cute?}",
        "{A_thing} near {city}, {month} {year}",
        "Portrait of {a_thing}{cute?}",
        "The real boss of {street}: {a_thing}",
        "Spotted: {a_thing}{cute?}",
        "{thing} looking at the camera",
        "{n} shots later, {the} {thing} finally held still",
        "Wildlife of {city}: {thing}{cute?}",
    ],
    "cute": [", {cute_word}", " - {cute_word}", " ({cute_word})", ". {cute_S}{bang}"],
    "cute_S": ["{cute_word}"],
    "cute_word": [
        "not shy at all", "very sleepy", "waiting for snacks", "called {pet}", "the softest thing ever",
        "posing for us", "totally ignoring me", "my favourite local", "enjoying the sun", "a bit grumpy",
    ],
    "pet": ["Biscuit", "Mochi", "Luna", "Pepe", "Oscar", "Nacho", "Bella", "Tofu", "Captain"],
    "sight": [
        "{A_thing} in front of {back}{mood?}",
        "{back} behind {a_thing}{with?}{mood?}",
        "{A_thing}{with?}, {city}",
        "{The} {thing} of {city}{with?}{mood?}",
        "{A_thing} below {back}{mood?}",
        "{When_} {we} saw {a_thing} with {back} in the distance",
        "{city} postcard view: {a_thing} and {back}",
        "{A_thing}{with?} and {back}",
        "Stopped for {a_thing} on the way to {city}{mood?}",
        "Day {n}, {city}: {a_thing}{with?}",
        "{thing}, {back}, and {extra}",
    ],
    "with": [" with {extra}", ", {extra} beside it", " next to {extra}", " and {extra} on the right", ", plus {extra}"],
    "people": [
        "{A_thing} in front of {back}{with?}",
        "{A_thing} in {city}{with?}{mood?}",
        "{city} people: {a_thing}{with?}",
        "{A_thing} and {extra}, {back} behind them",
        "Caught {a_thing} just in time, {back} in the background",
        "{When_} {we} met {a_thing}{with?}",
        "{A_thing} enjoying {back}{mood?}",
        "Street portrait, {city}: {a_thing}{with?}",
    ],
    "ride": [
        "{A_thing} in {city}{mood?}",
        "{A_thing} passing {back}{mood?}",
        "{We} took {a_thing} to {city}{mood?}",
        "{Colour_} {thing}, {city}",
        "Our {colour} {thing} for the week{mood?}",
        "{The} {hour} o'clock {thing} to {city}",
        "{A_thing} with {back} behind it",
        "Tickets for {the} {thing} were {price} {money}",
        "Waiting {n} minutes for {a_thing}{bang}",
        "Getting around {city} by {thing}",
        "{A_thing}, {back}, {month} {year}",
    ],
    "Colour_": ["{colour}"],
    "room": [
        "Our room at {hotel}: {wall} walls and {bed} bedding",
        "{hotel}, {room_name} with a {bed} bed{stay?}",
        "{Room_} at {hotel}, {city}{stay?}",
        "{wall_S} walls, {bed} sheets{stay?}",
        "Home for {n} nights: a {room_name} with {wall} walls{stay?}",
        "{price} {money} a night for this {room_name}{stay?}",
        "The {bed} bed in room {number} at {hotel}",
        "View of {outside} from our {room_name}",
        "Upgraded to the {room_name}, {outside} outside the window",
        "Small {room_name} with {bed} bed and {wall} walls{stay?}",
        "We stayed at {hotel} in {month}. {Room_} with {bed} bed{stay?}",
    ],
    "wall_S": ["{wall}"],
    "Room_": ["{room_name}"],
    "room_name": [
        "double room", "single room", "family room", "loft room", "deluxe room", "garden room", "hostel room",
        "studio", "corner suite",
    ],
    "stay": [", {stay_word}", " ({stay_word})", ". {stay_S}.", ", {stay_word}, {stay_word}"],
    "stay_S": ["{stay_word}"],
    "stay_word": [
        "very clean", "a little noisy", "soft pillows", "{n} minutes from the station", "breakfast included",
        "friendly owner", "no lift", "good light", "thin walls", "bathtub and all",
    ],
    "menu": [
        "Menu at {shop}: {items}",
        "The menu of {shop} in {city}, {first} {price} {money}",
        "Chalkboard menu: {items}",
        "What to order at {shop}: {items}",
        "{first_S} for {price}? Menu board at {shop}",
        "Prices at {shop} ({month} {year}): {items}",
        "Couldn't decide at {shop}: {items}",
        "Handwritten menu with {items}",
    ],
    "first_S": ["{first}"],
    "souvenir": [
        "{A_thing}{with?} from {city}",
        "Souvenirs from {city}: {a_thing}{with?}",
        "{A_thing}{with?} on a {ground}",
        "Packing for {city}: {thing}{with?}",
        "{Colour_} {thing} from the market on {street}, {price} {money}",
        "I bought {a_thing} in {city}{with?}",
        "A present for my {who}: {a_thing}{with?}",
        "Flat lay: {thing} and {extra}",
        "What {we} brought back from {city}: {a_thing}{with?}",
        "{Colour_} {thing}, bargained down to {price} {money}",
        "Market find: {a_thing}{with?}",
    ],
    "journal": [
        "Travel journal, page {n}: {thing}{with?}",
        "Sketch of {a_thing}{with?} from {city}",
        'My {city} journal page titled "{title}" with {a_thing}',
        "Drew {a_thing}{with?} on the train to {city}",
        '"{title}" - illustrated diary with {a_thing}{with?}',
        "Stickers of {a_thing}{with?} in my {city} notebook",
        "Little watercolour of {a_thing}",
    ],
    "postcard": [
        "Postcard from {city} with {a_thing} on it",
        "{title} - {city} postcard, {thing}",
        "Got this {colour} postcard from {city}: {thing}",
        "Vintage style postcard, {thing}, {city}",
        "Sent my {who} {a_thing} postcard from {city}",
        '"{title}" postcard with {a_thing}, stamped {month} {day}',
    ],
    "ticket": [
        "Ticket no. {number} for {the} {thing} in {city}",
        "{city} {thing} ticket, {price} {money}, No. {number}",
        "Ticket stub from {month} {day}: {thing}, {city}",
        "Kept the ticket ({number}) from {city}, {thing} printed on it",
    ],
    "map": [
        "{n} days in {city}: {stops}", "Route map: {stops}", "Our walk through {city}: {stops}, {n} km",
        "Hand-drawn map of {city} with {stops}", "Day {n} itinerary: {stops}",
    ],
    "eaten": [
        "{A_thing}{taste?}", "{A_thing} at {shop}{taste?}", "{city} {meal}: {a_thing}", "{When_}: {a_thing}{taste?}",
        "{shop} and {a_thing}{mood?}", "Still thinking about {this} {thing}{bang}",
        "{Meal} at {shop}, {a_thing}{mood?}", "Detail of {a_thing}, {shop}",
    ],
    "thing_photo": [
        "{A_thing}{mood?}", "{A_thing} in {city}{mood?}", "Museum day in {city}: {thing}",
        "Found in {city}: {a_thing}{mood?}", "{A_thing}, {camera}", "Detail shot of {a_thing}{mood?}",
        "{When_} I photographed {a_thing}", "One for the collection: {thing}{mood?}",
    ],
}
# fmt: on

GRAMMARS = {"zh": ZH, "en": EN}
TOKEN = re.compile(r"\{(\w+)(\?)?\}")


class Grammar:
    """Writes sentences by the rules of a language.

    Args:
        rules: alternatives of each symbol.
    """

    def __init__(self, rules: Mapping[str, list[str]]) -> None:
        self.rules = rules

    def expand(self, symbol: str, facts: Mapping[str, str], rng: random.Random) -> str:
        """Write what a symbol stands for: a fact, or one of its alternatives that the facts allow."""
        if symbol in facts:
            return facts[symbol]
        alternatives = [text for text in self.rules[symbol] if self._is_possible(text, facts)]
        text = TOKEN.sub(lambda token: self._expand_token(token, facts, rng), rng.choice(alternatives))
        # The rule of a word at the beginning of a sentence has a capital in its name.
        starts_sentence = any(letter.isupper() for letter in symbol)
        return text[:1].upper() + text[1:] if starts_sentence else text

    def _expand_token(self, token: re.Match[str], facts: Mapping[str, str], rng: random.Random) -> str:
        symbol, is_optional = token.groups()
        if is_optional and (rng.random() < 0.5 or not self._is_known(symbol, facts)):
            return ""
        return self.expand(symbol, facts, rng)

    def _is_possible(self, text: str, facts: Mapping[str, str]) -> bool:
        symbols = [symbol for symbol, is_optional in TOKEN.findall(text) if not is_optional]
        return all(self._is_known(symbol, facts) for symbol in symbols)

    def _is_known(self, symbol: str, facts: Mapping[str, str]) -> bool:
        if symbol in facts:
            return True
        return any(self._is_possible(text, facts) for text in self.rules.get(symbol, []))


# ---------------------------------------------------------------------------------------------------------------------
# Names of places and dates

ZH_SHOPS = (
    (
        "老王",
        "阿婆",
        "陈记",
        "刘姐",
        "胖子",
        "巷口",
        "海边",
        "阿明",
        "永和",
        "德庆",
        "小杨",
        "外婆",
        "三哥",
        "福满",
        "聚兴",
        "林家",
    ),
    (
        "面馆",
        "小吃店",
        "大排档",
        "咖啡馆",
        "茶餐厅",
        "私房菜",
        "甜品铺",
        "早点铺",
        "烧烤摊",
        "酒馆",
        "糖水铺",
        "家常菜",
        "烘焙",
    ),
)
EN_SHOPS = (
    (
        "Joe's",
        "Mama Rosa's",
        "The Blue Door",
        "Nino's",
        "Golden Dragon",
        "Café Linde",
        "Lucky Cat",
        "Harbour",
        "Old Mill",
        "La Paloma",
        "Chez Marie",
        "Banyan",
        "Number 9",
        "Grandma Li's",
        "Corner",
        "Zum Löwen",
    ),
    ("Diner", "Kitchen", "Bistro", "Eatery", "Coffee House", "Bakery", "Food Stall", "Grill", "Tavern", "Canteen"),
)
ZH_HOTELS = (
    ("云栖", "海角", "半山", "听雨", "如家", "悦来", "古城", "望山", "四季青", "花间", "漫居"),
    ("酒店", "民宿", "客栈", "青旅", "度假村", "公寓"),
)
EN_HOTELS = (
    ("Hotel", "Guesthouse", "Pension", "Villa", "Hostel", "Casa"),
    ("Bellevue", "Miramar", "Lotus", "Sakura", "Alpina", "Central", "Riverside", "del Sol", "Old Town", "Nomad"),
)
ZH_STREETS = (
    "人民路",
    "回民街",
    "宽窄巷子",
    "鼓浪屿",
    "南锣鼓巷",
    "中山路",
    "太平街",
    "洋人街",
    "户部巷",
    "东门",
    "码头边",
    "旧街",
    "三坊七巷",
)
EN_STREETS = (
    "Main Street",
    "Rua Augusta",
    "Khao San Road",
    "the harbour",
    "Market Street",
    "Via Roma",
    "the old town",
    "La Rambla",
    "Chapel Lane",
    "Nguyen Hue",
    "Baker Street",
)
EN_MONTHS = tuple(calendar.month_name)[1:]
ZH_TITLES = (
    "海边的一天",
    "慢慢走",
    "去有风的地方",
    "吃遍全城",
    "山里来信",
    "周末逃跑计划",
    "夏日限定",
    "见字如面",
    "一路向西",
    "出发吧",
)
EN_TITLES = (
    "GREETINGS",
    "Wish you were here",
    "Slow travel",
    "A day by the sea",
    "Eat more cake",
    "Go west",
    "Hello summer",
    "Weekend escape",
    "With love",
    "Bon voyage",
)


def draw_facts(rng: random.Random) -> dict[str, dict[str, str]]:
    """Draw what a post says beside what the picture shows: a place, a date, prices, in both languages."""
    city_zh, city_en = rng.choice(CITIES)
    month, day = rng.randint(1, 12), rng.randint(1, 28)
    shared = {
        "n": str(rng.randint(2, 9)),
        "price": str(rng.choice((5, 8, 12, 15, 18, 25, 28, 36, 48, 58, 68, 88, 128, 199, 268))),
        "hour": str(rng.randint(5, 11)),
        "day": str(day),
        "year": str(rng.randint(2009, 2023)),
        "number": f"{rng.randint(1000, 999999):06d}",
    }
    zh = {
        "city": city_zh,
        "month": str(month),
        "shop": "".join(rng.choice(words) for words in ZH_SHOPS),
        "hotel": "".join(rng.choice(words) for words in ZH_HOTELS),
        "street": rng.choice(ZH_STREETS),
        "title": rng.choice(ZH_TITLES),
    }
    en = {
        "city": city_en,
        "month": EN_MONTHS[month - 1],
        "shop": " ".join(rng.choice(words) for words in EN_SHOPS),
        "hotel": " ".join(rng.choice(words) for words in EN_HOTELS),
        "street": rng.choice(EN_STREETS),
        "title": rng.choice(EN_TITLES),
    }
    return {"zh": shared | zh, "en": shared | en}


def name_thing(measure: str, name_zh: str, phrase: str) -> dict[str, dict[str, str]]:
    """Return the facts of what a picture shows."""
    is_plural = phrase.startswith("+")
    words = phrase.removeprefix("+")
    bare = re.sub(r"^(an?|the|two) ", "", words)
    en = {
        "thing": bare,
        "a_thing": words,
        "the": "the",
        "this": "these" if is_plural else "this",
        "be": "are" if is_plural else "is",
        "was": "were" if is_plural else "was",
    }
    return {"zh": {"thing": name_zh, "a_thing": measure + name_zh, "measure": measure}, "en": en}


def phrase_both(entry: tuple[str, str, str]) -> tuple[str, str]:
    """Return a thing as it stands in a sentence, with its measure word or article."""
    return entry[0] + entry[1], entry[2].removeprefix("+")


# ---------------------------------------------------------------------------------------------------------------------
# Heads and tails that a site, a phone or a habit adds to a good caption: what an editor cuts off

HASHTAGS = {
    "zh": (
        "旅行",
        "美食",
        "打卡",
        "周末去哪儿",
        "吃货日记",
        "我的旅行日记",
        "vlog",
        "探店",
        "旅行摄影",
        "citywalk",
        "治愈系风景",
        "随手拍",
    ),
    "en": (
        "travel",
        "foodie",
        "wanderlust",
        "instatravel",
        "yum",
        "photooftheday",
        "travelgram",
        "nofilter",
        "foodporn",
        "vacation",
        "explore",
        "igers",
    ),
}
USERS = (
    "吃货小王",
    "在路上的Lily",
    "阿杰爱旅行",
    "胖虎探店",
    "wanderer_mia",
    "tom_eats",
    "两只行李箱",
    "nomad.kate",
    "小鹿不迷路",
    "daisy0412",
)


BLOGS = ("miaonthemove", "two-suitcases", "eatwithtom", "nomadkate", "slowtrainblog")


def draw_tail(kind: str, language: str, facts: Mapping[str, str], rng: random.Random) -> tuple[str, str]:
    """Return what stands before and after a caption; one of both is empty."""
    user, number, count = rng.choice(USERS), rng.randint(2, 480), rng.randint(2, 40)
    year, month, day = rng.randint(2012, 2023), rng.randint(1, 12), rng.randint(1, 28)
    is_zh = language == "zh"
    city = facts["city"]
    if kind == "hashtags":
        words = rng.sample(HASHTAGS[language], rng.randint(2, 6))
        return "", " " + (" ".join(f"#{word}#" for word in words) if is_zh else " ".join(f"#{word}" for word in words))
    if kind == "site_name":
        zh = ("_马蜂窝", " - 携程攻略", "-大众点评", " | 穷游网", "_小红书", " - 去哪儿旅行", "【马蜂窝游记】")
        en = (
            " - Tripadvisor",
            " | Flickr",
            " - Yelp",
            " : Lonely Planet",
            " | Booking.com",
            " · Foursquare",
            " - Pinterest",
        )
        return "", rng.choice(zh if is_zh else en)
    if kind == "credit":
        zh = (f"（图/{user}）", f" 摄影：{user}", f" ©{user}", f"。图片来自网友{user}", f" 图源：{user}")
        en = (
            f" (photo: {user})",
            f" Photo by {user}",
            f" © {user} {year}",
            f" | 📷 @{user}",
            f" Picture courtesy of {user}.",
        )
        return "", rng.choice(zh if is_zh else en)
    if kind == "link":
        code = "".join(rng.choice("abcdefghkmnpqrstuvwxyzABCDEFGH23456789") for _ in range(7))
        zh = (f" http://t.cn/{code}", f" 网页链接 https://m.weibo.cn/{code}", f" 详情见 www.lvyou{number}.com/{code}")
        en = (f" https://bit.ly/{code}", f" More at www.{rng.choice(BLOGS)}.com/{code}", f" pic.twitter.com/{code}")
        return "", rng.choice(zh if is_zh else en)
    if kind == "label":
        zh = (
            "【图】",
            f"图{count}：",
            f"P{count % 9 + 1} ",
            "[图片] ",
            "分享图片：",
            f"（{count}/{count + 9}）",
            "图文：",
        )
        en = (
            "[Photo] ",
            f"Photo {count}: ",
            f"{count}/{count + 9} ",
            "Image: ",
            "Caption: ",
            "[IMG] ",
            f"Fig. {count % 9 + 1}: ",
        )
        return rng.choice(zh if is_zh else en), ""
    if kind == "author":
        zh = (f"@{user}：", f"{user}: ", f"转发自@{user}: ", f"//@{user}:", f"{user} 发表了照片：")
        en = (f"@{user}: ", f"RT @{user}: ", f"{user} shared: ", f"{user} posted a photo: ", f"From {user}: ")
        return rng.choice(zh if is_zh else en), ""
    if kind == "counts":
        zh = (
            f" 赞({number}) 评论({count})",
            f" ♥{number} 收藏{count}",
            f" 展开 {number}人点赞",
            f" 阅读{number}万 · {count}评",
            f" [{number}赞]",
        )
        en = (
            f" {number} likes {count} comments",
            f" · {number} likes · Reply",
            f" ♥ {number}",
            f" ({number} views)",
            f" {number} people found this helpful",
        )
        return "", rng.choice(zh if is_zh else en)
    if kind == "device":
        zh = (
            " 来自iPhone 12",
            " 来自华为Mate 40",
            " 发自我的小米手机",
            " ——来自新浪微博",
            " 由美图秀秀处理",
            " 来自 Android客户端",
        )
        en = (
            " Sent from my iPhone",
            " via Instagram",
            " (posted with Hootsuite)",
            " - uploaded via mobile app",
            " from Samsung Galaxy S9",
            " Edited with VSCO",
        )
        return "", rng.choice(zh if is_zh else en)
    if kind == "address":
        zh = (
            f" 📍地址：{city}市中山路{number}号，电话：0{count + 20}-8{number:03d}{count:04d}",
            f" 地址：{city}{rng.choice(ZH_STREETS)}{count}号 营业时间：10:00-21:30",
            f" 📍{city}·{rng.choice(ZH_STREETS)}{count}号",
            f" 电话：138{number:04d}{count:04d} 地址：{city}老城{count}号",
        )
        en = (
            f" 📍 {number} {rng.choice(('Main St', 'High St', 'Via Roma'))}, {city}",
            f" Address: {count} Market Street, {city}. Tel. +{count} {number} {number}",
            f" Open daily 9am-6pm, {number} River Road, {city}",
            f" Find us at {count} Station Road, {city}, phone 0{number} {number}{count}",
        )
        return "", rng.choice(zh if is_zh else en)
    if kind == "follow":
        zh = (
            " 关注我，看更多旅行日常",
            " 点赞收藏不迷路~",
            " 想要攻略的评论区扣1",
            " 更多美图请关注公众号：旅途",
            " 喜欢记得双击哦",
            " 记得一键三连",
        )
        en = (
            " Follow me for more!",
            " Link in bio!",
            " Like and share if you agree!",
            " Tag a friend who needs this",
            " Subscribe for more travel tips!",
            " DM me for the full guide",
        )
        return "", rng.choice(zh if is_zh else en)
    if kind == "date":
        zh = (
            f" 发表于 {year}-{month:02d}-{day:02d} 14:{count:02d}",
            f" {year}年{month}月{day}日 上传",
            f" 编辑于{month:02d}-{day:02d}",
            f" （{count}天前）",
            f" 上传时间：{year}/{month}/{day}",
        )
        en = (
            f" Uploaded on {EN_MONTHS[month - 1]} {day}, {year}",
            f" {count} days ago",
            f" Posted {year}-{month:02d}-{day:02d} at 14:{count:02d}",
            f" | Date of experience: {EN_MONTHS[month - 1]} {year}",
            " - Edited",
        )
        return "", rng.choice(zh if is_zh else en)
    raise ValueError(kind)


TAIL_KINDS = (
    "hashtags",
    "site_name",
    "credit",
    "link",
    "label",
    "author",
    "counts",
    "device",
    "address",
    "follow",
    "date",
)


# ---------------------------------------------------------------------------------------------------------------------
# Captions that are none

TEXT_KINDS = (
    "emoji_wall",
    "hashtag_wall",
    "reaction_only",
    "camera_name",
    "contact_ad",
    "booking_spam",
    "mojibake",
    "markup_left",
    "site_buttons",
    "exif_dump",
    "forum_question",
    "service_review",
    "repeated_text",
    "placeholder",
    "address_only",
    "wise_saying",
    "template_variable",
    "keyword_list",
    "copyright_notice",
)

EMOJI = "😍😋🤤🔥❤️✨🌈☀️🌊🏖️🍜🍣🍰🥰👍💯🎉📸✈️🧳😂🙈💕🌸🍻"
REACTIONS = {
    "zh": (
        "打卡",
        "到此一游",
        "绝绝子",
        "好好吃！！！",
        "太美了",
        "爱了爱了",
        "哈哈哈哈哈",
        "冲鸭",
        "yyds",
        "美哭",
        "啊啊啊啊",
        "想去",
        "又来了",
        "晚安",
        "沙发",
        "今日份快乐",
        "开心的一天",
        "无语",
        "666",
        "就这？",
        "emmm",
        "好吧",
        "嘿嘿嘿",
        "自己体会",
        "你猜",
        "如图",
        "懂的都懂",
        "种草了",
        "不说了看图",
        "凑个九图",
    ),
    "en": (
        "wow",
        "Yummy!!!",
        "omg",
        "so good",
        "love it",
        "Amazing!",
        "Nice",
        "no words",
        "LOL",
        "test",
        "me",
        "happy",
        "Best day ever",
        "Beautiful.",
        "hmmmm",
        "yes please",
        "Thoughts?",
        "goals",
        "mood",
        "Finally!",
        "Enjoy",
        "delicious",
        "ok",
        "I'm so happy right now",
        "Miss this",
        "can't even",
        "haha",
        "this.",
        "Good morning",
        "see pic",
    ),
}
QUESTIONS = {
    "zh": (
        "求问从机场到{city}市区怎么走最方便？在线等，急",
        "有没有{month}月去{city}的小伙伴，求拼车",
        "{city}两天够吗？带老人孩子",
        "请问{city}现在需要预约吗",
        "谁知道{hotel}可以寄存行李不",
        "{city}租车要什么证件？",
        "预算{price}00够不够去{city}玩{n}天",
        "求推荐{city}靠谱的一日游",
        "有去过的姐妹说说值不值得吗？",
        "签证{n}天能下来吗，有没有经验的",
    ),
    "en": (
        "Does anyone know if the night bus to {city} runs on Sundays?",
        "Is {n} days in {city} enough with two small kids?",
        "Where can I buy a SIM card at the airport?",
        "Looking for travel buddies to {city} in {month}, anyone?",
        "How much should I tip in {city}?",
        "Do I need a visa for a layover of {hour} hours?",
        "Any tips for {city} on a budget?",
        "Can someone recommend a reliable driver?",
        "Is it safe to walk around after {hour} pm?",
        "Which is better, {city} or somewhere else? Help me decide",
    ),
}
REVIEWS = {
    "zh": (
        "前台态度极差，等了{n}0分钟才办好入住", "空调是坏的，打电话也没人管", "再也不来了",
        "服务员爱答不理，催了{n}次才上菜", "结账还多算了{price}元，避雷", "订单早就付了款，到店说没有房间",
        "平台客服互相推诿，退款等了{n}天",
        "总体不错，交通方便，性价比高", "服务热情，下次还会再来，推荐给大家", "出门就是地铁，早餐种类丰富，五星好评",
        "导游全程带我们购物，不买就甩脸色", "{city}这个团千万别报", "默认好评", "第{n}次住了，一如既往的好",
        "感谢前台小姐姐的升级", "停车要另收{price}，没有提前说", "隔壁半夜还在装修，投诉无门", "发票开了三天还没寄到",
    ),
    "en": (
        "We waited {n}0 minutes to check in", "The wifi did not work and nobody at reception cared",
        "They charged my card twice and still haven't refunded the {price} {money}",
        "Great value for money and friendly staff",
        "Would definitely recommend to family and friends", "The tour was cancelled at the last minute",
        "They refuse to answer my emails", "Everything was perfect from booking to check-out",
        "Thank you to the whole team, see you next year", "Overpriced and overrated",
        "The waiter was rude and we left without a tip",
        "Five stars because the app makes me give five stars",
        "We had an issue with parking but the manager sorted it out",
        "Solid 4/5", "Would not come back", "Booking in {city} was easy and the confirmation came at once",
        "Nobody told us about the resort fee of {price} {money}", "Housekeeping knocked at {hour} every morning",
    ),
}  # fmt: skip
SAYINGS = {
    "zh": (
        "人生就是一场旅行，不必在乎目的地，在乎的是沿途的风景。",
        "要么读书，要么旅行，身体和灵魂总有一个在路上。",
        "唯有美食与爱不可辜负。",
        "愿你走出半生，归来仍是少年。",
        "生活不止眼前的苟且，还有诗和远方。",
        "岁月静好，现世安稳。",
        "世界那么大，我想去看看。",
        "所有的遇见都是久别重逢。",
        "心有猛虎，细嗅蔷薇。",
        "且行且珍惜。",
    ),
    "en": (
        "Not all those who wander are lost.",
        "Life is short and the world is wide.",
        "Collect moments, not things.",
        "Travel is the only thing you buy that makes you richer.",
        "Good vibes only",
        "Live, laugh, love.",
        "Take only memories, leave only footprints.",
        "The journey is the destination.",
        "People who love to eat are always the best people.",
        "Be yourself; everyone else is already taken.",
    ),
}


def draw_bad_caption(kind: str, language: str, facts: Mapping[str, str], caption: str, rng: random.Random) -> str:
    """Write something of this kind where a caption should be; `caption` is the good one of the picture."""
    is_zh = language == "zh"
    city, number, count = facts["city"], rng.randint(100, 9999), rng.randint(2, 60)
    year, month, day = rng.randint(2012, 2023), rng.randint(1, 12), rng.randint(1, 28)
    stamp = f"{year}{month:02d}{day:02d}"
    match kind:
        case "emoji_wall":
            symbols = re.findall(r"\S\ufe0f?", EMOJI)
            return "".join(rng.choice(symbols) * rng.choice((1, 1, 2, 3)) for _ in range(rng.randint(2, 7)))
        case "hashtag_wall":
            words = rng.sample(HASHTAGS[language], rng.randint(5, 10))
            return " ".join(f"#{word}#" if is_zh else f"#{word}" for word in [*words, city.replace(" ", "").lower()])
        case "reaction_only":
            return rng.choice(REACTIONS[language]) + rng.choice(("", "", "", "！", "~", "😂", "❤️", "...", "👍👍"))
        case "camera_name":
            return rng.choice(
                (
                    f"IMG_{stamp}_{number:06d}",
                    f"DSC{number:05d}.JPG",
                    f"mmexport1556{number:04d}{number:05d}",
                    f"微信图片_{stamp}{number:06d}",
                    f"P{number:07d}",
                    f"DSCF{number:04d}",
                    f"WhatsApp Image {year}-{month:02d}-{day:02d} at 12.{count:02d}.03",
                    f"_MG_{number:04d}.CR2",
                    f"Screenshot_{stamp}-{number:06d}_Instagram",
                    f"DJI_0{number:04d}",
                    f"image{count}",
                    f"{stamp}{number:06d}.jpg",
                    f"Snapchat-{number}{number}",
                )
            )
        case "contact_ad":
            return rng.choice(
                (
                    f"专业代订{city}酒店门票一日游，加微信lvyou{number}，量大从优",
                    f"{city}包车 导游 接送机 ☎138{number:04d}{number:04d} 小李",
                    f"代购日本药妆，V信：mai{number}，假一赔十",
                    f"{city}民宿转让，带客源，非诚勿扰，电话139{number:04d}{number:04d}",
                    f"免费领{city}旅游攻略，加QQ群{number}{number}，名额有限",
                )
                if is_zh
                else (
                    f"Private driver in {city}, best price! WhatsApp +{count} {number} {number}",
                    f"Cheap airport transfer {city} - call/Viber 0{number}{number} (Mr. Minh)",
                    f"Earn money while you travel!! DM me or write to easycash{number}@mail.com",
                    f"Book your {city} tour now: telegram @tours{number}, 10% for groups",
                    f"Selling 2 tickets for {city}, contact me at +{count}{number}{number}, serious buyers only",
                )
            )
        case "booking_spam":
            return rng.choice(
                (
                    f"【限时抢购】{city}双飞{count % 6 + 3}日游仅需{number}元起！立即预订>>",
                    f"领券立减{count}元！{city}酒店低至{count % 5 + 3}折，今晚24点截止",
                    f"{city}特价机票{number}元起 含税 往返 限量{count}张",
                    f"订{city}酒店，上XX旅行网，返现{count}%，免费取消",
                    f"双11大促 {city}自由行 第二人半价 点击查看详情",
                )
                if is_zh
                else (
                    f"Flights to {city} from ${number}! Book now and save {count}%",
                    f"LAST MINUTE DEAL!!! {city} 7 nights all inclusive only £{number}pp - limited availability",
                    f"Compare {count} hotels in {city} and get the best rate. Free cancellation.",
                    f"Use code TRIP{count} for {count}% off your next booking in {city}",
                    f"Only {count % 5 + 1} rooms left at this price! Reserve your {city} stay today",
                )
            )
        case "mojibake":
            return misread(caption, rng.choice(("latin-1", "cp1252", "gb18030", "gb18030")))
        case "markup_left":
            return rng.choice(
                (
                    f"[img]http://p{count}.{'mafengwo' if is_zh else 'photobucket'}.net/s{number}/{stamp}.jpeg[/img]",
                    f'<p style="text-align:center">&nbsp;&nbsp;<br/></p><img src="/upload/{stamp}.jpg">',
                    f"[quote={number}][b][/b][/quote][url=http://bbs.{number}.com][/url]",
                    f"&lt;div class=&quot;pic&quot;&gt;{city}&lt;/div&gt;&amp;nbsp;&lt;br&gt;",
                    f"<a href='javascript:void(0)' onclick='show({number})'>{city}</a><span></span>",
                    f'[caption id="attachment_{number}" align="aligncenter" width="600"][/caption]',
                    f"![]({stamp}.png)  **  ** <!-- more -->",
                )
            )
        case "site_buttons":
            return rng.choice(
                (
                    f"展开全文 收起 点赞{number} 收藏{count} 评论{count} 分享",
                    f"查看全部{number}张照片 举报 写点评 上一张 下一张",
                    "登录后查看更多内容 | 注册 | 忘记密码",
                    f"回复 {count}楼 只看楼主 倒序浏览 加载中",
                    f"首页 > 目的地 > {city} > 照片 > 第{count}页",
                    f"长按识别二维码 阅读原文 阅读{number} 在看{count}",
                )
                if is_zh
                else (
                    f"See all {number} photos Report photo Helpful ({count}) Share Save",
                    f"Previous Next Close Download Full size {count} of {number}",
                    "Log in to see photos and videos from friends. Sign up",
                    f"Home > Destinations > {city} > Photos > Page {count}",
                    f"View more comments ({number}) Add a comment... Post",
                    f"Write a review Ask a question Add photo Open now {count} reviews #{count} of {number} in {city}",
                )
            )
        case "exif_dump":
            body = rng.choice(
                (
                    "Canon EOS 80D",
                    "NIKON D750",
                    "SONY ILCE-7M3",
                    "FUJIFILM X-T3",
                    "Apple iPhone 12 Pro",
                    "HUAWEI P30 Pro",
                )
            )
            aperture, shutter = (
                rng.choice(("1.8", "2.8", "4", "5.6", "8", "11")),
                rng.choice((30, 60, 125, 250, 400, 1000)),
            )
            speed, focus = rng.choice((100, 200, 400, 800, 1600, 3200)), rng.choice((16, 24, 35, 50, 85, 135, 200))
            return rng.choice(
                (
                    f"{body}, f/{aperture}, 1/{shutter} sec, ISO {speed}, {focus}mm",
                    f"光圈F{aperture} 快门1/{shutter}s ISO{speed} 焦距{focus}mm 白平衡自动",
                    f"{body} | {focus}mm | f/{aperture} | 1/{shutter}s | ISO{speed}",
                    f"Taken {year}:{month:02d}:{day:02d} 12:{count % 60:02d}:07, {body}, no flash, sRGB, 5472x3648",
                    f"相机：{body} 曝光补偿：-0.3EV 测光：点测光 ISO{speed}",
                )
            )
        case "forum_question":
            zh = ("", "", "急急急，", "小白提问：", "大家好，", "各位大神，", "求助！", "rt，")
            en = (
                "",
                "",
                "Hi everyone! ",
                "First timer here. ",
                "Quick question: ",
                "Help! ",
                "Hey guys, ",
                "Planning our honeymoon. ",
            )
            return rng.choice(zh if is_zh else en) + _fill(rng.choice(QUESTIONS[language]), facts, rng)
        case "service_review":
            remarks = rng.sample(REVIEWS[language], rng.randint(2, 4))
            text = "，".join(remarks) + "。" if is_zh else ". ".join(remarks) + "."
            return _fill(text, facts, rng)
        case "repeated_text":
            word = (
                rng.choice(("好吃", "太美了！", f"{city}旅游，", "打卡打卡", f"我爱{city}", caption[:14]))
                if is_zh
                else rng.choice(
                    ("yum ", f"I love {city}! ", "so so so ", "best beach ever ", caption + " ", f"{city} {city} ")
                )
            )
            return (word * rng.randint(5, 12)).strip()
        case "placeholder":
            return rng.choice(
                (
                    "无标题",
                    "请输入图片描述",
                    "这里写下你的心情...",
                    "该用户很懒，什么都没有留下",
                    "图片说明",
                    "未命名相册",
                    "暂无简介",
                    "新建文件夹",
                    "照片",
                    "上传的图片",
                    "分享照片",
                )
                if is_zh
                else (
                    "Untitled",
                    "Add a caption...",
                    "No description",
                    "Write something about this photo",
                    "Photo",
                    "image",
                    "My album",
                    "Mobile uploads",
                    "Timeline Photos",
                    "Enter your text here",
                    "Picture 1",
                    "Profile picture",
                )
            )
        case "address_only":
            return rng.choice(
                (
                    f"{city}市中山区人民路{number}号（近地铁2号线）",
                    f"地址：{facts['street']}{count}号 电话：0{count + 20}-{number}{number} 营业时间：10:00-22:00",
                    f"经度{count + 70}.{number} 纬度{count % 40 + 10}.{number}",
                    f"人均：¥{count + 20} 营业：11:00-21:30 停车：免费",
                )
                if is_zh
                else (
                    f"{number} Main Street, {city}, Tel: +{count} {number} {number}",
                    f"{count}.{number}° N, {count + 20}.{number}° E",
                    f"Mon-Fri {count % 4 + 8}:00-18:00, Sat 9:00-13:00, closed on Sundays",
                    f"Address: {count} Station Road, {city}. Phone: 0{number} {number}. Price range: $$",
                )
            )
        case "wise_saying":
            zh = ("", "", "——三毛", " 早安", " 晚安，好梦", "（转）", "与君共勉", " ❤️")
            en = ("", "", " - unknown", " ~ Ibn Battuta", " #quote", " xx", " Good night everyone", " 🙏")
            return rng.choice(SAYINGS[language]) + rng.choice(zh if is_zh else en)
        case "template_variable":
            return rng.choice(
                (
                    "{{poi_name}}的图片",
                    "${city}旅游图片_${city}景点照片",
                    "undefined的照片",
                    "%s 第%d张",
                    "[object Object]",
                    "null - null - 马蜂窝",
                    "NaN张照片 · undefined",
                    "#{photo.title}",
                    "{location}, {date}: {user_name}'s photo",
                    "Photo of $restaurant_name in $city",
                    "{% if caption %}{{ caption }}{% endif %}",
                    "<%= image.alt %>",
                    "__('caption.default')",
                    "Picture of undefined",
                    "${ctx.user} posted in {{ group }}",
                )
            )
        case "keyword_list":
            if is_zh:
                words = [
                    "旅游",
                    "攻略",
                    "住宿",
                    "美食",
                    "地图",
                    "天气",
                    "门票",
                    "自由行",
                    "跟团",
                    "酒店预订",
                    "必去景点",
                    "图片",
                ]
                return rng.choice((" ", ",", "，", "|")).join(
                    city + word for word in rng.sample(words, rng.randint(6, 10))
                )
            words = [
                "hotels",
                "restaurants",
                "things to do",
                "map",
                "weather",
                "cheap flights",
                "tours",
                "nightlife",
                "best beaches",
                "travel guide",
                "airport",
                "photos",
            ]
            return rng.choice((", ", " | ", "; ")).join(
                f"{city} {word}" for word in rng.sample(words, rng.randint(6, 10))
            )
        case "copyright_notice":
            return rng.choice(
                (
                    f"版权所有 © {year} 未经授权禁止转载",
                    "本图片由用户上传，如有侵权请联系删除",
                    "转载请注明出处及作者，违者必究",
                    "图片来源于网络，版权归原作者所有，侵删",
                    "声明：本站图文仅供学习交流，不代表本站观点",
                )
                if is_zh
                else (
                    f"© {year} All rights reserved. Do not use without written permission.",
                    "Image may be subject to copyright",
                    "This work is licensed under CC BY-NC-ND. Unauthorised use is prohibited.",
                    f"All images copyright {rng.choice(USERS[4:6])} {year}. Please ask before reposting",
                    "DISCLAIMER: I do not own this photo. Credit to the rightful owner.",
                )
            )
    raise ValueError(kind)


def _fill(text: str, facts: Mapping[str, str], rng: random.Random) -> str:
    money = rng.choice(("euros", "dollars", "pounds"))
    return text.format_map({"money": money} | dict(facts))
