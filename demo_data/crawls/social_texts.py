"""Words of microblogs and short videos: names of things, grammars of captions, and what is no caption.

The notation of templates is that of `magazine_texts.Grammar`: `{a|b}` is one of the alternatives, `<name>` a rule or a
word of the picture. In the grammars `<s>` is what the picture shows, in English with its article.
"""

import random
from collections.abc import Mapping, Sequence

from magazine_texts import Grammar

# ---------------------------------------------------------------------------------------------------------------------
# What pictures show

# Photographs by the name of their file: Chinese, English, topic. Other names are taken as they are, in English.
PHOTOS = {
    "aloe plant": ("一盆芦荟", "my aloe", "plant"),
    "astronaut in an orange suit": ("橙色宇航服的宇航员", "an astronaut in orange", "thing"),
    "autumn mountain meadow": ("山上秋天的草甸", "a mountain meadow in autumn", "view"),
    "baboon face": ("狒狒大脸", "a baboon up close", "creature"),
    "blue forget me not flowers": ("蓝色小花勿忘我", "tiny blue forget-me-nots", "plant"),
    "blue lit bridge at night": ("晚上亮蓝灯的桥", "a bridge with blue lights at night", "view"),
    "brick houses in an old street": ("老街红砖房", "old brick houses", "view"),
    "bridge at night": ("晚上的大桥", "a bridge at night", "view"),
    "bridge cables under a blue sky": ("蓝天和斜拉桥的钢索", "bridge cables against a blue sky", "view"),
    "butterfly in the leaves": ("树叶上的蝴蝶", "a butterfly on the leaves", "creature"),
    "castle with towers": ("有尖塔的城堡", "a castle with towers", "view"),
    "chinese pavilion by the lake": ("湖边的凉亭", "a Chinese pavilion at the lake", "view"),
    "citrus fruit slices": ("切片的橙子柠檬", "citrus slices", "snack"),
    "city street at sunset": ("夕阳下的马路", "a street at sunset", "view"),
    "colorful paint brushes": ("一堆沾颜料的画笔", "paint brushes in all colours", "thing"),
    "colorful plastic cups": ("彩色塑料杯", "colourful plastic cups", "thing"),
    "cup of coffee on a wooden table": ("木桌上的咖啡", "a cup of coffee on a wooden table", "snack"),
    "cut fig on a red plate": ("红盘子里的无花果", "a cut fig on a red plate", "snack"),
    "dandelions in evening light": ("夕阳里的蒲公英", "dandelions in the evening sun", "plant"),
    "dark blue lake at night": ("夜里深蓝色的湖", "a dark blue lake at night", "view"),
    "desert dunes under a blue sky": ("蓝天下的沙漠", "desert dunes under a blue sky", "view"),
    "dog at a wooden door": ("木门口的狗狗", "a dog at a wooden door", "creature"),
    "dragonfly on leaves": ("叶子上的蜻蜓", "a dragonfly on a leaf", "creature"),
    "fallen maple leaf": ("地上一片枫叶", "a fallen maple leaf", "plant"),
    "forest stream with rocks": ("林子里的小溪和石头", "a rocky stream in the woods", "view"),
    "ginger cat face": ("橘猫的大脸", "a ginger cat's face", "creature"),
    "glass tower under a pink sky": ("粉色天空下的玻璃大楼", "a glass tower under a pink sky", "view"),
    "grass on sand dunes": ("沙丘上的草", "grass on the dunes", "view"),
    "green circuit board": ("绿色的电路板", "a green circuit board", "thing"),
    "green fern leaves": ("绿绿的蕨叶", "green ferns", "plant"),
    "green grass": ("绿草地", "green grass", "plant"),
    "green palm leaf": ("棕榈叶", "a palm leaf", "plant"),
    "green tea gardens in mist": ("雾里的茶山", "tea gardens in the mist", "view"),
    "grey moon surface": ("月球表面", "the surface of the moon", "thing"),
    "honey bee on a purple flower": ("紫花上的小蜜蜂", "a bee on a purple flower", "creature"),
    "jellyfish in blue sea": ("蓝色海水里的水母", "jellyfish in blue water", "creature"),
    "kite in a cloudy sky": ("多云天里的风筝", "a kite in a cloudy sky", "view"),
    "ladybird on blue flowers": ("蓝花上的瓢虫", "a ladybird on blue flowers", "creature"),
    "lake in brown mountains": ("棕色群山中的湖", "a lake among brown mountains", "view"),
    "lamp with a flying bird": ("路灯旁飞过的鸟", "a bird flying past a lamp", "creature"),
    "monarch butterfly wing": ("帝王蝶的翅膀", "a monarch butterfly's wing", "creature"),
    "mountain lake with snow peaks": ("雪山下的湖", "a lake below snowy peaks", "view"),
    "night lights of the earth": ("地球夜晚的灯光", "the lights of the Earth at night", "thing"),
    "ocean waves": ("海浪", "ocean waves", "view"),
    "orange dahlia flower": ("橙色大丽花", "an orange dahlia", "plant"),
    "orange flower macro": ("橙色花朵微距", "a macro of an orange flower", "plant"),
    "orange nebula": ("橙色星云", "an orange nebula", "thing"),
    "oranges and kiwi fruit": ("橙子和猕猴桃", "oranges and kiwis", "snack"),
    "osprey in a tree": ("树上的鱼鹰", "an osprey in a tree", "creature"),
    "otters on a tree trunk": ("树干上的水獭", "otters on a log", "creature"),
    "pale wood grain": ("浅色木纹", "pale wood grain", "thing"),
    "path in a dark forest": ("黑树林里的小路", "a path through a dark forest", "view"),
    "pier in grey fog": ("大雾里的栈桥", "a pier in the fog", "view"),
    "pink dahlia flower": ("粉色大丽花", "a pink dahlia", "plant"),
    "potted grass by a wall": ("墙边的盆栽草", "potted grass by the wall", "plant"),
    "purple canyon": ("紫色的峡谷", "a purple canyon", "view"),
    "purple sea at dusk": ("傍晚紫色的海", "a purple sea at dusk", "view"),
    "radio telescope": ("射电望远镜", "a radio telescope", "thing"),
    "rain drops on green leaves": ("绿叶上的雨珠", "raindrops on green leaves", "plant"),
    "red and yellow garden flower": ("院子里红黄色的花", "a red and yellow flower in the garden", "plant"),
    "red canyon walls": ("红色峡谷的岩壁", "red canyon walls", "view"),
    "red desert dune with hikers": ("红色沙丘上的徒步者", "hikers on a red dune", "view"),
    "red flower in green moss": ("青苔里的小红花", "a red flower in the moss", "plant"),
    "red motorcycle in a garage": ("车库里的红色摩托", "a red motorcycle in the garage", "thing"),
    "rocket on the launch pad at night": ("夜里发射台上的火箭", "a rocket on the pad at night", "thing"),
    "roman colosseum": ("罗马斗兽场", "the Colosseum", "view"),
    "rowing boats in evening glow": ("晚霞里的小船", "rowing boats in the evening glow", "view"),
    "satellite over the coast": ("海岸上空的卫星", "a satellite above the coast", "thing"),
    "seed with wings on orange": ("橙色底上的带翅种子", "a winged seed on orange", "plant"),
    "skyline of a city at dusk": ("傍晚的城市天际线", "the skyline at dusk", "view"),
    "small bird on a rock": ("石头上的小鸟", "a little bird on a rock", "creature"),
    "snow peak at dusk": ("傍晚的雪山尖", "a snowy peak at dusk", "view"),
    "spiral courtyard with lamps": ("有灯的螺旋天井", "a spiral courtyard with lamps", "view"),
    "star trails over hills": ("山上的星轨", "star trails over the hills", "view"),
    "stone path in the mountains": ("山里的石板路", "a stone path in the mountains", "view"),
    "storm clouds over a road": ("公路上的乌云", "storm clouds over the road", "view"),
    "sunset by the pier": ("码头边的落日", "sunset at the pier", "view"),
    "sunset over hills": ("山头的日落", "sunset over the hills", "view"),
    "toy shells and fabric": ("玩具贝壳和布料", "toy shells on fabric", "thing"),
    "tree trunk in the snow": ("雪地里的树干", "a tree trunk in the snow", "view"),
    "water drop on blue water": ("蓝色水面上的水滴", "a water drop hitting blue water", "thing"),
    "white concrete building": ("白色水泥建筑", "a white concrete building", "view"),
    "white curved facade": ("白色弧形外墙", "a curved white facade", "view"),
    "white lantern at night": ("夜里的白灯笼", "a white lantern at night", "thing"),
    "white roof tiles": ("白色的屋瓦", "white roof tiles", "view"),
    "white tower from below": ("仰拍的白塔", "a white tower from below", "view"),
    "wine glass in a cellar": ("酒窖里的酒杯", "a wine glass in the cellar", "snack"),
    "wooden pier by the water": ("水边的木栈道", "a wooden pier by the water", "view"),
    "wooden sign in the desert": ("沙漠里的木牌", "a wooden sign in the desert", "view"),
    "yellow flower petals on grey": ("灰底上的黄花瓣", "yellow petals on grey", "plant"),
    "yellow flower petals": ("黄色花瓣", "yellow petals", "plant"),
    # Made by `making`.
    "green hills": ("绿色的山丘", "green hills", "view"),
    "brown hills": ("棕色的山丘", "brown hills", "view"),
    "blue mountains": ("蓝色的远山", "blue mountains", "view"),
    "snowy hills": ("积雪的山丘", "snowy hills", "view"),
    "red dunes": ("红色的沙丘", "red dunes", "view"),
}
# Views of which a part would lack what they are named for, and things of which a part shows enough.
WHOLE_VIEWS = (
    "kite in a cloudy sky",
    "wooden pier by the water",
    "red desert dune with hikers",
    "rowing boats in evening glow",
    "wooden sign in the desert",
    "tree trunk in the snow",
    "chinese pavilion by the lake",
    "white tower from below",
    "pier in grey fog",
    "sunset by the pier",
    "bridge at night",
)
DIVISIBLE_THINGS = (
    "grey moon surface",
    "green circuit board",
    "pale wood grain",
    "green grass",
    "green fern leaves",
    "green palm leaf",
    "yellow flower petals",
    "orange nebula",
    "night lights of the earth",
    "rain drops on green leaves",
    "colorful paint brushes",
    "colorful plastic cups",
    "citrus fruit slices",
    "oranges and kiwi fruit",
)
SKIES_ZH = {
    "blue sky": "蓝天下",
    "pink evening sky": "粉色晚霞下",
    "grey sky": "阴天里",
    "golden sky": "金色天空下",
    "night sky": "夜空下",
}

# Drawings by what they are good for. Names as in the demo data.
CATEGORIES = {
    "pet": "cat|black cat|dog|poodle|rabbit|hamster|parrot|turtle|hedgehog|duck|guide dog|baby chick|mouse|pig",
    "animal": (
        "cat|dog|rabbit|hamster|fox|panda|koala|penguin|owl|hedgehog|otter|turtle|frog|duck|parrot|pig|goat|cow|horse|"
        "elephant|giraffe|tiger|bear|polar bear|raccoon|sloth|dolphin|whale|octopus|crab|tropical fish|snail|butterfly|"
        "lady beetle|honeybee|swan|flamingo|peacock|rooster|chicken|monkey|wolf|deer|llama|kangaroo|crocodile|lizard|"
        "dragon|unicorn|T-Rex|sauropod|black cat|shark|chipmunk|eagle|goose|turkey|squid|blowfish|spouting whale"
    ),
    "food": (
        "pizza|hamburger|french fries|sandwich|taco|hot dog|sushi|bento box|curry rice|spaghetti|steaming bowl|"
        "dumpling|pancakes|waffle|croissant|doughnut|cookie|birthday cake|shortcake|cupcake|pie|ice cream|"
        "soft ice cream|shaved ice|dango|custard|watermelon|strawberry|pineapple|peach|mango|avocado|"
        "cooking|bacon|meat on bone|pot of food|green salad|popcorn|pretzel|bagel|rice ball|moon cake|fried shrimp|"
        "lobster|poultry leg"
    ),
    "drink": "bubble tea|hot beverage|cocktail glass|tropical drink|beer mug|cup with straw|wine glass|glass of milk",
    "clothes": (
        "t-shirt|jeans|dress|coat|scarf|gloves|socks|woman’s hat|billed cap|running shoe|high-heeled shoe|woman’s boot|"
        "hiking boot|flat shoe|handbag|purse|backpack|sunglasses|necktie|kimono|shorts|top hat|watch|clutch bag|"
        "woman’s sandal|man’s shoe|umbrella|glasses|bikini"
    ),
    "face": (
        "grinning face|face with tears of joy|loudly crying face|thinking face|face with rolling eyes|sleeping face|"
        "smiling face with heart-eyes|exploding head|face screaming in fear|pouting cat|cat with tears of joy|"
        "smiling face with sunglasses|face vomiting|zany face|melting face|clown face|yawning face|angry face|"
        "partying face|star-struck|pleading face|hot face|cold face|drooling face|nerd face"
    ),
    "thing": (
        "laptop|camera|headphone|guitar|violin|books|teddy bear|candle|alarm clock|potted plant|cactus|bicycle|"
        "skateboard|balloon|wrapped gift|robot|telescope|microphone|video game|puzzle piece|yarn|artist palette|"
        "soccer ball|basketball|teapot|lipstick|lotion bottle|toothbrush|umbrella|sunglasses|running shoe|backpack|"
        "radio|television|magnifying glass tilted left|crystal ball|kite|drum|saxophone|motor scooter|mirror|chair"
    ),
    "person": (
        "woman dancing|man dancing|woman running|man walking|woman cook|man firefighter|woman astronaut|"
        "woman detective|man surfing|woman biking|man juggling|ninja|superhero|mage|student|woman farmer|"
        "man police officer|woman in lotus position|woman singer|man artist|skier|snowboarder|mermaid|vampire|robot"
    ),
    "sticker": (
        "red heart|sparkles|fire|party popper|hundred points|two hearts|glowing star|cherry blossom|rainbow|crown|"
        "thumbs up|face with tears of joy|smiling face with heart-eyes|eyes|kiss mark|ribbon|sparkling heart|collision"
    ),
}
# Names that differ from those of the demo data: Chinese, English with its article.
NAMES = {
    "guide dog": ("狗", "a dog"),
    "pig": ("小香猪", "a mini pig"),
    "black cat": ("黑猫", "a black cat"),
    "mouse": ("小白鼠", "a mouse"),
    "baby chick": ("小鸡", "a chick"),
    "hedgehog": ("刺猬", "a hedgehog"),
    "pizza": ("披萨", "pizza"),
    "french fries": ("薯条", "fries"),
    "sushi": ("寿司", "sushi"),
    "bento box": ("便当", "a bento"),
    "curry rice": ("咖喱饭", "curry rice"),
    "spaghetti": ("意面", "spaghetti"),
    "steaming bowl": ("一碗面", "a bowl of noodles"),
    "dumpling": ("饺子", "a dumpling"),
    "pancakes": ("松饼", "pancakes"),
    "croissant": ("可颂", "a croissant"),
    "dango": ("三色丸子", "dango"),
    "shortcake": ("草莓蛋糕", "strawberry cake"),
    "cooking": ("煎蛋", "a fried egg"),
    "bacon": ("培根", "bacon"),
    "poultry leg": ("鸡腿", "a chicken leg"),
    "meat on bone": ("带骨大肉", "meat on the bone"),
    "pot of food": ("一锅炖菜", "a pot of stew"),
    "green salad": ("沙拉", "a green salad"),
    "popcorn": ("爆米花", "popcorn"),
    "pretzel": ("碱水结", "a pretzel"),
    "bagel": ("贝果", "a bagel"),
    "rice ball": ("饭团", "a rice ball"),
    "custard": ("焦糖布丁", "caramel pudding"),
    "taco": ("塔可", "a taco"),
    "soft ice cream": ("甜筒", "a soft serve"),
    "shaved ice": ("刨冰", "shaved ice"),
    "moon cake": ("月饼", "a moon cake"),
    "fried shrimp": ("炸虾", "fried shrimp"),
    "waffle": ("华夫饼", "a waffle"),
    "hot beverage": ("热咖啡", "a hot coffee"),
    "bubble tea": ("奶茶", "bubble tea"),
    "cup with straw": ("可乐", "a coke"),
    "beer mug": ("啤酒", "a beer"),
    "glass of milk": ("牛奶", "milk"),
    "cocktail glass": ("鸡尾酒", "a cocktail"),
    "tropical drink": ("果汁", "a fruit punch"),
    "wine glass": ("红酒", "red wine"),
    "woman’s hat": ("草帽", "a sun hat"),
    "billed cap": ("鸭舌帽", "a cap"),
    "jeans": ("牛仔裤", "jeans"),
    "gloves": ("手套", "gloves"),
    "socks": ("袜子", "socks"),
    "running shoe": ("运动鞋", "sneakers"),
    "high-heeled shoe": ("高跟鞋", "heels"),
    "woman’s boot": ("靴子", "boots"),
    "hiking boot": ("登山鞋", "hiking boots"),
    "flat shoe": ("平底鞋", "flats"),
    "purse": ("小钱包", "a purse"),
    "sunglasses": ("墨镜", "sunglasses"),
    "glasses": ("眼镜", "glasses"),
    "shorts": ("短裤", "shorts"),
    "woman’s sandal": ("凉鞋", "sandals"),
    "man’s shoe": ("皮鞋", "leather shoes"),
    "t-shirt": ("T恤", "a tee"),
    "clutch bag": ("手拿包", "a clutch"),
    "books": ("一摞书", "a pile of books"),
    "headphone": ("耳机", "headphones"),
    "potted plant": ("盆栽", "a potted plant"),
    "yarn": ("毛线", "yarn"),
    "video game": ("游戏手柄", "a game controller"),
    "puzzle piece": ("拼图", "a jigsaw piece"),
    "lotion bottle": ("乳液", "a bottle of lotion"),
    "magnifying glass tilted left": ("放大镜", "a magnifying glass"),
    "laptop": ("笔记本电脑", "a laptop"),
    "motor scooter": ("小电驴", "a scooter"),
    "soccer ball": ("足球", "a football"),
    "skateboard": ("滑板", "a skateboard"),
    "violin": ("小提琴", "a violin"),
    "umbrella": ("雨伞", "an umbrella"),
    "woman dancing": ("跳舞的女人", "a woman dancing"),
    "man dancing": ("跳舞的男人", "a man dancing"),
    "woman running": ("跑步的女人", "a woman running"),
    "man walking": ("走路的男人", "a man walking"),
    "woman cook": ("女厨师", "a cook"),
    "man firefighter": ("消防员", "a firefighter"),
    "woman astronaut": ("女宇航员", "an astronaut"),
    "woman detective": ("女侦探", "a detective"),
    "man surfing": ("冲浪的男人", "a man surfing"),
    "woman biking": ("骑车的女人", "a woman on a bike"),
    "man juggling": ("抛球的男人", "a man juggling"),
    "student": ("戴学士帽的学生", "a student"),
    "mage": ("巫师", "a wizard"),
    "woman farmer": ("农妇", "a farmer"),
    "man police officer": ("警察", "a policeman"),
    "woman in lotus position": ("打坐的女人", "a woman meditating"),
    "woman singer": ("女歌手", "a singer"),
    "man artist": ("画家", "a painter"),
    "skier": ("滑雪的人", "a skier"),
    "vampire": ("吸血鬼", "a vampire"),
    "snowboarder": ("玩单板的人", "a snowboarder"),
    "tropical fish": ("热带鱼", "a tropical fish"),
    "lady beetle": ("瓢虫", "a ladybird"),
    "honeybee": ("蜜蜂", "a bee"),
    "llama": ("羊驼", "a llama"),
    "chipmunk": ("花栗鼠", "a chipmunk"),
    "sauropod": ("长颈龙", "a long-necked dinosaur"),
    "blowfish": ("河豚", "a pufferfish"),
    "spouting whale": ("喷水的鲸鱼", "a spouting whale"),
    "face with tears of joy": ("笑哭脸", "a face crying with laughter"),
    "face vomiting": ("呕吐脸", "a face throwing up"),
    "loudly crying face": ("大哭脸", "a bawling face"),
    "melting face": ("融化的脸", "a melting face"),
    "smiling face with heart-eyes": ("星星眼花痴脸", "a heart-eyed face"),
    "hot face": ("热红的脸", "a sweating hot face"),
    "exploding head": ("爆炸头脸", "an exploding head"),
    "cold face": ("冻僵的脸", "a frozen face"),
    "pouting cat": ("生气猫", "a pouting cat"),
    "cat with tears of joy": ("笑哭猫", "a cat crying with laughter"),
    "pleading face": ("求求你的脸", "a pleading face"),
    "star-struck": ("追星脸", "a star-struck face"),
    "thinking face": ("思考脸", "a thinking face"),
    "face with rolling eyes": ("翻白眼的脸", "a face rolling its eyes"),
    "face screaming in fear": ("尖叫脸", "a screaming face"),
    "grinning face": ("咧嘴笑脸", "a grinning face"),
}
# Japanese names of what pets, drawings and dishes show.
JAPANESE = {
    "cat": "猫",
    "black cat": "黒猫",
    "dog": "犬",
    "rabbit": "うさぎ",
    "hamster": "ハムスター",
    "fox": "きつね",
    "panda": "パンダ",
    "penguin": "ペンギン",
    "owl": "ふくろう",
    "frog": "カエル",
    "hedgehog": "ハリネズミ",
    "pizza": "ピザ",
    "sushi": "お寿司",
    "curry rice": "カレー",
    "dango": "お団子",
    "pancakes": "パンケーキ",
    "birthday cake": "誕生日ケーキ",
    "shaved ice": "かき氷",
    "steaming bowl": "ラーメン",
    "doughnut": "ドーナツ",
    "koala": "コアラ",
    "octopus": "タコ",
    "whale": "クジラ",
    "duck": "アヒル",
    "turtle": "カメ",
    "poodle": "プードル",
}


def split(text: str) -> tuple[str, ...]:
    return tuple(text.split("|"))


# ---------------------------------------------------------------------------------------------------------------------
# Captions

CITIES_ZH = split(
    "成都|重庆|长沙|厦门|青岛|大理|杭州|武汉|西安|南京|广州|哈尔滨|昆明|苏州|泉州|贵阳|沈阳|福州|洛阳|威海"
)
CITIES_EN = split(
    "Lisbon|Leeds|Portland|Osaka|Melbourne|Austin|Glasgow|Toronto|Seoul|Oslo|Bristol|Chicago|Auckland|Cork"
)

CHINESE = Grammar(
    {
        "city": CITIES_ZH,
        "when": split(
            "今早|昨晚|周六下午|下班路上|刚刚|午休时|凌晨|傍晚|雨停以后|生日那天|国庆第三天|放学路上|跑步时|上周末|等车的时候|年三十"
        ),
        "who": split("我妈|室友|老公|闺蜜|我弟|同事小林|外婆|隔壁桌|楼下大爷|学妹|我家娃|师傅"),
        "pet_name": split("年糕|芝麻|布丁|可乐|汤圆|土豆|豆包|奥利奥|大福|来财|二饼|花卷|阿黄|米粒|雪球|胖虎"),
        "feel": split("绝了|治愈了|好看到失语|太顶了|当场走不动路|心情一下就好了|手机根本拍不出来|看了十分钟没舍得走"),
        "day": split("7|12|18|23|31|46|58|77|99|104|120|233"),
        "coda": ("", "", "", "，<feel>", "～", "！", "。", "，分享一下", "哈哈"),
        "place": split("<city>|公司楼下|学校后门|地铁口|小区里|外婆家|操场边|阳台上|老家"),
        "view": (
            "<when>拍到的<s><coda>",
            "<place>的<s><coda>",
            "抬头就是<s><coda>",
            "谁懂啊，<s>真的<feel>",
            "<s>，<when>拍的",
            "今日份的<s>",
            "plog｜<s>",
            "来<city>第{一|二|三|四}天，<s>",
            "<when>遇到<s>，停下来拍了{一|两|好几}张",
            "<s>，<who>拍的",
            "坐车{两|三|四|五}小时就为了看<s><coda>",
            "朋友圈没发的<s>",
            "<s>当壁纸正好",
            "手机原相机拍的<s>，<city>",
            "在<place>看见<s><coda>",
            "<city>{vlog|日记|碎片}：<s>",
        ),
        "plant": (
            "<place>的<s><coda>",
            "<who>养的，<s>",
            "<s>，<when>拍的",
            "蹲下来拍了<s><coda>",
            "<s>也太好看了吧",
            "<when>在<place>发现<s>",
            "给<s>拍了张特写",
            "路边的<s>，没人注意只有我拍了",
            "微距：<s>",
            "<season>限定：<s>",
        ),
        "season": split("春天|夏天|秋天|冬天|雨季|梅雨天"),
        "creature": (
            "<when>偶遇<s><coda>",
            "<s>，跟它对视了{三|五|十}秒",
            "抓拍到<s><coda>",
            "在<place>碰见的<s>",
            "<s>！<feel>",
            "今天的主角是<s>",
            "<who>发来的<s>",
            "拍<s>拍了半小时，就这张清楚",
            "<s>，不敢大声说话怕吓跑",
        ),
        "snack": (
            "<when>的<s><coda>",
            "<s>，配一本书刚好",
            "<place>，<s>",
            "今天的下午茶是<s>",
            "<s>摆拍失败但好吃",
            "<who>准备的<s><coda>",
            "随手拍：<s>",
        ),
        "thing": (
            "<s><coda>",
            "第一次近距离看到<s>",
            "<when>拍的<s>",
            "<who>给我看的<s>",
            "<s>，细节放大看",
            "收藏夹里的<s>",
            "今天的素材：<s>",
        ),
        "pet": (
            "我家<s>“<pet_name>”趴在<where>",
            "<pet_name>（<s>）又赖在<where>",
            "<where>长出了一只<s>",
            "<s>在<where>，一脸不想上班",
            "<when>回家，<s>就在<where>等我",
            "主子<pet_name>：<s>，在<where>不下来",
            "<pet_name>今天{1|2|3|5}岁啦，在<where>营业的<s>",
            "偷拍<where>的<s>",
            "云吸{猫|宠}：<where>的<s>，叫<pet_name>",
            "拍到<s>{发呆|伸懒腰|打哈欠|歪头}，在<where>",
        ),
        "food": (
            "<when>吃了<s>，<more>",
            "今天的晚饭：<s>，<more>",
            "<s>上桌，<more><coda>",
            "自己做的<s>，<more>，第{一|二|三}次就成功",
            "<city>这家的<s>我可以吃{三|五}份，<more>",
            "减肥第<day>天，<s>，<more>",
            "<who>做的<s>，<more>",
            "打工人午餐：<s>，<more>",
            "<s>到手，<more>，人均{28|35|49|66}",
            "深夜放毒：<s>，<more>",
        ),
        "art": (
            "画了<s>，<medium>",
            "<medium>练习：<s>",
            "打卡第<day>天，画<s>（<medium>）",
            "<when>摸鱼画的<s>，<medium>",
            "<medium>｜<s>",
            "给<who>画的<s>，用的<medium>",
            "用<medium>画一个<s><coda>",
            "每日一画 <day>：<s>，<medium>",
            "约稿完成，<medium>风格的<s>",
        ),
        "colour_art": (
            "<medium>画的<colour><s>",
            "<colour>的<s>，<medium>",
            "涂了<colour>版的<s>（<medium>）",
            "<s>：<colour>，<medium>",
        ),
        "outfit": (
            "今日穿搭：<list>",
            "明天出门穿：<list>，先平铺拍一张",
            "<season>ootd，<list>",
            "<city>三日游行李里的<list>",
            "<who>帮我搭的：<list>",
            "平铺图｜<list>",
            "约会穿搭，<list><coda>",
            "<list>，通勤就这么穿",
        ),
        "meme": (
            "表情包：<face>嫌弃<a>，<face2>选择<s>",
            "梗图，不要<a>要<s>",
            "两格梗图：<face>配<a>，<face2>配<s>",
            "自制梗图，上面是<a>，下面是<s>，<who>笑到打鸣",
            "<when>的我：<a>不行，<s>可以（梗图）",
        ),
        "still": (
            "剧里<s>站在<bg>前，字幕是“<line>”",
            "截图：<bg>前的<s>说“<line>”",
            "第{2|3|7|11|24}集名场面，<s>：<line>",
            "这一幕<s>说完“<line>”我哭了",
            "短剧截图，<s>和<bg>，字幕写着<line>",
            "<s>的台词“<line>”封神了，背景是<bg>",
        ),
        "chat": (
            "聊天截图：<s>",
            "和<who>的聊天记录，<s>",
            "家人群截图，<s>",
            "笑死，<s>（聊天截图）",
            "<when>的对话框：<s>",
        ),
        "quote": (
            "<colour>底的文案图：“<s>”",
            "今日文案：<s>（<colour>背景）",
            "图上写着“<s>”，<colour>的",
            "一张<colour>的句子卡片：<s>",
            "手机壁纸，<colour>底色写“<s>”",
        ),
        "comic": (
            "四格漫画：<s>",
            "条漫更新，<s>",
            "我画的小漫画，<s>",
            "第<day>话，<s>",
            "给<who>看的漫画：<s>",
        ),
        "poll": (
            "投票结果：<a><x>%，<b><y>%",
            "<a>党{险胜|惨败|对决}<b>党，<x>比<y>",
            "发起的投票出来了，选<a>的有<x>%，<b>有<y>%",
            "投票截图，<a>（<x>%）和<b>（<y>%）",
        ),
        "haul": (
            "开箱：<list>",
            "这个月的好物，<list>",
            "空瓶空箱记，<list>",
            "双十一买了<list>",
            "<who>送的<list>，摆一起拍个全家福",
            "九宫格晒图：<list>",
        ),
        "product": (
            "<brand>新款<colour><s>，<price>元",
            "<brand><s>（<colour>）今天上架",
            "<colour>的<s>来自<brand>，定价<price>",
            "<brand>官方：<colour><s>海报",
            "<brand> <s> <colour>款 ¥<price>",
        ),
        "run": (
            "跑步打卡：<km>公里，用时<time>，路线图",
            "<when>跑了<km>公里，<time>",
            "轨迹截图，<km>km，<time>，配速还行",
            "<city>夜跑<km>公里的路线，<time>",
        ),
        "music": (
            "正在听《<title>》，<artist>，封面是<colour>底的<s>",
            "播放界面截图：<artist>的《<title>》，专辑封面画着<s>",
            "单曲循环<artist>《<title>》，<colour>封面上一个<s>",
            "歌单第<day>首，《<title>》，封面<s>",
        ),
        "sticker": (
            "表情包：<s>，配字“<line>”",
            "自制贴图<s>，写着<line>",
            "<s>，“<line>”，自取",
            "聊天用的<s>表情，文字是<line>",
            "<colour>底的<s>表情，“<line>”",
        ),
        "post": (
            "<name>发的微博截图：<s>",
            "截图，<name>说“<s>”",
            "<name>：<s>（截图存档）",
            "转一张截图，<name>写道：<s>",
        ),
        "cover": (
            "封面：<s>，大字标题“<title>”",
            "新视频《<title>》，封面是<s>",
            "<s>的视频封面，写着<title>",
            "本期封面<s>，标题<title>",
            "《<title>》第{2|3|4|5|6|8}期，封面拍的<s>",
        ),
        "aside": (
            "其实前面还排了好久的队。",
            "<who>说我小题大做。",
            "希望明天也是这样。",
            "存着以后慢慢看。",
            "评论区有人说像他老家。",
            "回来路上还堵车了。",
            "下次带<who>一起。",
            "拍完手都冻僵了。",
            "那天是我们认识的第<day>天。",
            "现在想起来还是很开心。",
        ),
    }
)

ENGLISH = Grammar(
    {
        "city": CITIES_EN,
        "when": split(
            "this morning|last night|on my lunch break|after the rain|on Saturday|at 2am|before work|on day two|"
            "on the way home|earlier today|last weekend|right before the storm|on my birthday|during golden hour"
        ),
        "who": split("my mum|my roommate|dad|my sister|the neighbour|my boss|grandma|my best friend|our intern|my kid"),
        "pet_name": split(
            "Mochi|Biscuit|Pepper|Waffles|Nugget|Olive|Ziggy|Beans|Clementine|Gus|Pickle|Momo|Toast|Luna"
        ),
        "feel": split("unreal|so calming|worth it|better than the pics|I have no words|10/10|obsessed|ngl I teared up"),
        "day": split("4|9|16|22|35|41|60|73|88|100|147|201"),
        "coda": ("", "", "", ", <feel>", "!", ".", " lol", " tbh", " (<when>)"),
        "place": split("<city>|campus|the office|the parking lot|our street|grandma's place|the bus stop|the backyard"),
        "season": split("spring|summer|fall|winter"),
        "view": (
            "<s>, shot on my phone <when>",
            "POV: you look up and see <s>",
            "<city> <when>: <s>",
            "<s><coda>",
            "current view: <s>",
            "Saw <s> on the way to {work|class|the gym|the store}<coda>",
            "new wallpaper: <s>",
            "can we talk about <s> in <city>",
            "Drove {three|four|six} hours for <s><coda>",
            "<s> near <place>",
            "from my camera roll: <s>",
            "<who> took this one of <s>",
            "photo dump {1|2|3|4}: <s>",
            "<s>. That's the post.",
            "tell me <s> isn't the best thing in <city>",
            "<s> <when>, no filter",
        ),
        "plant": (
            "<s> at <place><coda>",
            "got down on my knees for <s>",
            "<s>, close up",
            "<season> update: <s>",
            "<who> grew this: <s>",
            "noticed <s> <when>",
            "macro attempt: <s><coda>",
            "<s> doing its thing at <place>",
        ),
        "creature": (
            "met <s> <when><coda>",
            "look who I found: <s>",
            "<s>, caught {in the act|just in time}",
            "<s> at <place>",
            "today's main character: <s>",
            "{forty|ninety|two hundred} blurry shots and one of <s>",
            "<s> judging me",
            "<who> sent me <s><coda>",
        ),
        "snack": (
            "<s> <when><coda>",
            "<s> and a book",
            "treating myself: <s>",
            "table shot: <s> at <place>",
            "<s>, <who>'s idea",
        ),
        "thing": (
            "<s><coda>",
            "first time I see <s> this close",
            "zoom in on <s>",
            "<who> showed me <s>",
            "saved this one: <s>",
            "<s> <when>",
        ),
        "pet": (
            "<pet_name> the <n> {on|has claimed|loafing on} <where>",
            "My <n> <pet_name> on <where><coda>",
            "<s> on <where>, zero thoughts",
            "caught <pet_name> (<s>) on <where> <when>",
            "{gotcha day|birthday boy|birthday girl}! <pet_name>, <s> on <where>",
            "nobody: / <s>: *lies down on <where>*",
            "<pet_name> refuses to leave <where>. <S> with opinions.",
            "<s> called <pet_name> taking over <where>",
        ),
        "food": (
            "<s>, <more><coda>",
            "dinner <when>: <s>, <more>",
            "made <s> from scratch, <more>",
            "<city> does <s> right (<more>)",
            "<s> for one, <more>",
            "day <day> of cooking: <s>, <more>",
            "<who> made <s>, <more>",
            "what I eat: <s>, <more>",
        ),
        "art": (
            "drew <s> in <medium>",
            "day <day> of drawing: <s>, <medium>",
            "<medium> <n> I did <when>",
            "WIP no more! <S>, <medium>",
            "commission for <who>: <s> in <medium>",
            "<s> ({first|second|third} try at <medium>)",
            "quick <medium> study of <s>",
        ),
        "colour_art": (
            "a <colour> <n> in <medium>",
            "<n>, the <colour> version, <medium>",
            "<medium>: <n> in <colour>",
        ),
        "outfit": (
            "ootd: <list>",
            "laid out for tomorrow: <list>",
            "flat lay | <list>",
            "packing for <city>: <list>",
            "<season> fit check, <list>",
            "thrifted <list> <when>",
            "<who> picked <list> for me",
        ),
        "meme": (
            "meme: <face> at <a>, <face2> at <s>",
            "two-panel meme, no to <a>, yes to <s>",
            "made a meme where <face2> picks <s> over <a>",
            "top panel <a>, bottom panel <s>, you get it",
            "me choosing <s> instead of <a> (meme)",
        ),
        "still": (
            "still of <s> in front of <bg>, subtitle “<line>”",
            "that scene where <s> says “<line>”",
            "S{1|2|3}E{2|4|7|9}: <s> and the line “<line>”",
            "screencap: <s>, <bg>, “<line>”",
            "<s> saying “<line>” lives in my head rent free",
        ),
        "chat": (
            "chat screenshot: <s>",
            "texts with <who>, <s>",
            "group chat be like: <s>",
            "screenshot of our messages where <s>",
        ),
        "quote": (
            "<colour> card that reads “<s>”",
            "“<s>” on a <colour> background",
            "phone wallpaper in <colour>: <s>",
            "today's reminder, white text on <colour>: <s>",
        ),
        "comic": (
            "four panel comic: <s>",
            "new strip! <S>",
            "comic no. <day>, <s>",
            "drew a tiny comic, <s>",
        ),
        "poll": (
            "poll results: <a> <x>%, <b> <y>%",
            "<x>% of you said <a>, <y>% said <b>",
            "<a> vs <b>, final score <x> to <y>",
            "screenshot of the poll, <a> at <x>% and <b> at <y>%",
        ),
        "haul": (
            "unboxing: <list>",
            "small haul: <list>",
            "birthday presents! <list>",
            "things I actually used this month: <list>",
            "grid of <list>",
        ),
        "product": (
            "<brand> drops a <colour> <n>, $<price>",
            "the <colour> <n> by <brand>",
            "new in at <brand>: <n> in <colour>",
            "<brand> | <n>, <colour>, $<price>",
            "poster for <brand>'s <colour> <n>",
        ),
        "run": (
            "<km> km in <time>, route below",
            "ran <km>k <when> (<time>)",
            "tracker screenshot: <km> km, <time>, <city>",
        ),
        "music": (
            "now playing: <title> by <artist>, cover with <s> on <colour>",
            "on repeat, <artist> - <title> (<colour> cover, <s>)",
            "player screenshot, “<title>”, the art shows <s>",
        ),
        "sticker": (
            "sticker: <s> saying “<line>”",
            "<s> with the words “<line>”, free to use",
            "made a reaction pic, <s>, “<line>”",
            "<s> on <colour>, caption “<line>”",
        ),
        "post": (
            "screenshot of <name>'s post: “<s>”",
            "<name> said: <s>",
            "<name> posting “<s>” is peak internet",
            "saving this one by <name>: “<s>”",
        ),
        "cover": (
            "cover with <s> and the title “<title>”",
            "New video: <title>. Cover: <s>",
            "thumbnail of <s>, big letters “<title>”",
            "“<title>” ep. {2|3|5|6|9}, thumbnail with <s>",
        ),
        "aside": (
            "My phone died right after.",
            "<Who> still doesn't get it.",
            "More tomorrow if it doesn't rain.",
            "Took the long way home for this.",
            "Somebody said it looks like their hometown.",
            "Day <day> and counting.",
            "Would do it again.",
            "It smelled amazing too.",
            "We stayed until it got cold.",
        ),
    }
)
GRAMMARS = {"zh": CHINESE, "en": ENGLISH}
JAPANESE_FORMS = {
    "pet": ("うちの{0}、{1}でくつろぎ中", "{1}を占領する{0}", "今日の{0}さん、{1}にて", "{0}がかわいすぎる（{1}）"),
    "food": ("今日のごはんは{0}！", "{0}を食べました", "手作り{0}、上手にできた", "お昼は{0}にしました"),
    "art": ("{0}を描きました（{1}）", "{1}で{0}のらくがき", "ワンドロ：{0}、{1}", "{0}のイラスト、{1}です"),
}
ROOMS = (
    ("沙发上", "the sofa", "ソファ"),
    ("床上", "the bed", "ベッド"),
    ("地毯上", "the rug", "ラグ"),
)
MEDIA = {
    "pencil": ("铅笔", "pencil", "鉛筆"),
    "pixel": ("像素画", "pixel art", "ドット絵"),
    "watercolour": ("水彩", "watercolour", "水彩"),
    "crayon": ("蜡笔", "crayon", "クレヨン"),
    "digital": ("板绘", "digital paint", "デジタル"),
    "ink": ("黑色勾线", "ink lines", "ペン画"),
}
LINES = (
    ("今晚就走", "We leave tonight"),
    ("你终于来了", "You finally came"),
    ("我没有骗你", "I never lied to you"),
    ("那不是我的错", "It was not my fault"),
    ("再给我一次机会", "Give me one more chance"),
    ("水开了", "The water is boiling"),
    ("别回头", "Do not look back"),
    ("谁动了我的饭", "Who touched my food"),
    ("明天会下雨", "It will rain tomorrow"),
    ("我等了十年", "I waited ten years"),
    ("这里以前是海", "This used to be the sea"),
    ("把门关上", "Close the door"),
    ("听我解释", "Let me explain"),
    ("钥匙在花盆下面", "The key is under the flowerpot"),
    ("他早就知道了", "He knew all along"),
    ("最后一班车走了", "The last bus is gone"),
    ("我想回家", "I want to go home"),
    ("你认错人了", "Wrong person"),
)
STICKER_LINES = (
    ("收到", "copy that"),
    ("不想动", "cannot move"),
    ("我先睡了", "going to bed"),
    ("救命", "send help"),
    ("已老实", "I behave now"),
    ("加油啊", "you got this"),
    ("吃了吗", "have you eaten"),
    ("没钱", "no money"),
    ("下班", "clocking out"),
    ("破防了", "I'm broken"),
    ("谢谢老板", "thanks boss"),
    ("你好棒", "so proud"),
    ("不听不听", "not listening"),
    ("早", "morning"),
    ("别催了", "stop rushing"),
)
TITLES = (
    ("一个人住第三年", "LIVING ALONE YEAR 3"),
    ("五块钱吃一天", "ONE DAY ON 1 DOLLAR"),
    ("我把房间改了", "ROOM MAKEOVER"),
    ("凌晨四点的城市", "THE CITY AT 4AM"),
    ("沉浸式收纳", "TIDY WITH ME"),
    ("不露脸也能拍", "NO FACE NO PROBLEM"),
    ("裸辞之后", "I QUIT MY JOB"),
    ("回村过年", "BACK TO THE VILLAGE"),
    ("三十天挑战", "30 DAY CHALLENGE"),
    ("新手必看", "WATCH BEFORE YOU TRY"),
    ("周末去哪儿", "WEEKEND IDEAS"),
    ("这样拍才好看", "HOW I SHOOT THIS"),
    ("全网都在找", "EVERYONE ASKED"),
    ("别再买错了", "STOP BUYING THIS"),
    ("我妈的秘方", "MUM'S RECIPE"),
    ("慢生活", "SLOW DAYS"),
)
QUOTES = (
    ("慢一点也没关系", "slow is fine"),
    ("今天也辛苦了", "you did enough today"),
    ("先吃饭再难过", "eat first, cry later"),
    ("把日子过成自己的", "make the day yours"),
    ("月亮会替我说晚安", "the moon says good night"),
    ("不必追光，你就是光", "be your own light"),
    ("山水有相逢", "we will meet again"),
    ("心软是病", "soft hearts get hurt"),
    ("别急，花会开", "flowers take time"),
    ("保持热爱", "stay in love with it"),
    ("少说话多喝水", "talk less, drink water"),
    ("忽有故人心上过", "an old friend crossed my mind"),
    ("我允许一切发生", "let it happen"),
    ("下雨天适合睡觉", "rain is for naps"),
    ("没有白走的路", "no step is wasted"),
    ("风会记得", "the wind remembers"),
    ("自己哄自己", "be nice to yourself"),
    ("明天再说", "tomorrow problem"),
)
SONGS = (
    ("夏夜晚班车", "Late Bus"),
    ("橘子海", "Orange Sea"),
    ("没寄出的信", "Unsent"),
    ("天台", "Rooftop"),
    ("第七个星期天", "Seventh Sunday"),
    ("雨刷", "Wipers"),
    ("借过", "Excuse Me"),
    ("南方来电", "Call from the South"),
    ("低电量", "Low Battery"),
    ("旧毛衣", "Old Sweater"),
)
ARTISTS = (
    ("陈小满", "Ivy Marlow"),
    ("海带乐队", "The Kelp"),
    ("林不语", "Noah Quill"),
    ("三号线", "Line Three"),
    ("阿纸", "Paper Kid"),
)
BRANDS = (
    ("北屿", "NORDISLE"),
    ("小满家", "MANI"),
    ("拾物社", "FOUNDRY 9"),
    ("OHAYO", "OHAYO"),
    ("半山", "HALFHILL"),
    ("云朵研究所", "CLOUDLAB"),
)
POSTS = (
    ("上班第一天，电梯坏了，爬了十八楼", "first day at work and the elevator is broken. 18 floors"),
    ("我奶奶说快递员是她最好的朋友", "my grandma says the courier is her best friend"),
    ("楼下的猫今天没来，我有点担心", "the street cat did not come today and I am worried"),
    ("建议周三也算周末", "wednesday should count as weekend"),
    ("刚发现伞里有个洞", "just found a hole in my umbrella"),
    ("谁发明的闹钟，出来聊聊", "who invented alarm clocks, let us talk"),
    ("今天的晚霞像打翻的橘子汽水", "the sky tonight looks like spilled orange soda"),
    ("妈妈第一次用表情包，发了二十个", "mum found stickers and sent twenty"),
    ("地铁上有人在给仙人掌让座", "someone on the metro gave their seat to a cactus"),
    ("我的外卖被隔壁狗吃了", "the dog next door ate my delivery"),
    ("电梯里七个人，没人按楼层", "seven people in the lift and nobody pressed a button"),
    ("我爸给扫地机器人织了条围巾", "dad knitted a scarf for the robot vacuum"),
    ("凌晨三点，楼上开始搬家具", "3am and upstairs is moving furniture again"),
    ("同事把我的名字写成了另一种鱼", "a colleague spelled my name as a kind of fish"),
    ("超市的自助收银台对我说晚安", "the self checkout just told me good night"),
    ("理发师说就剪一点点", "the barber said just a little off"),
    ("每次我说马上到，其实还在洗澡", "whenever I say almost there I am still in the shower"),
    ("我的仙人球开花了，比我先谈恋爱", "my cactus bloomed, it found love before me"),
    ("公交司机放了一整路的摇滚", "the bus driver played rock all the way"),
    ("小侄子问月亮晚上住哪儿", "my nephew asked where the moon sleeps"),
    ("今天的会议本可以是一个表情", "this meeting could have been an emoji"),
    ("外婆把我的旧手机当砧板了", "grandma uses my old phone as a cutting board"),
    ("洗衣机里又少了一只袜子", "the washing machine took another sock"),
    ("原来隔壁每天拉琴的是只猫", "turns out the neighbour playing piano is a cat"),
)
# Chats: lines of both, left first; what they are about. The first one is about food, the others about things.
CHATS = (
    (
        ("今晚吃<s>吗", "吃！", "几点", "七点半老地方"),
        ("<s> tonight?", "yes!!", "what time", "7:30, same place"),
        ("约了七点半吃<s>", "we agree on <s> at 7:30"),
    ),
    (
        ("我把<s>弄丢了", "又丢？", "这次真不怪我", "行吧"),
        ("I lost <s>", "again?", "not my fault this time", "sure"),
        ("她又把<s>弄丢了", "I admit losing <s> again"),
    ),
    (
        ("猜我捡到啥", "啥", "<s>", "快送回去"),
        ("guess what I found", "what", "<s>", "put it back"),
        ("说捡到了<s>让送回去", "I found <s> and get told to put it back"),
    ),
    (
        ("老板，<s>还有货吗", "最后一个", "给我留着", "好嘞亲"),
        ("is <s> still there", "last one", "keep it for me", "will do"),
        ("问店家<s>还有没有，只剩最后一个", "the shop has one left of <s>"),
    ),
    (
        ("妈，我买了<s>", "多少钱", "不贵", "退了"),
        ("mum I bought <s>", "how much", "not much", "return it"),
        ("我妈让我把<s>退了", "mum tells me to return <s>"),
    ),
    (
        ("你昨晚梦到什么", "<s>追我", "哈哈哈", "真的跑了一晚上"),
        ("what did you dream", "<s> chasing me", "hahaha", "ran all night"),
        ("梦见被<s>追了一晚上", "I dreamt of running from <s>"),
    ),
)
COMIC_PLOTS = (
    ("<a>给<b>送了<s>", "<a> gives <b> <s>"),
    ("<a>和<b>抢<s>", "<a> and <b> fight over <s>"),
    ("<a>偷吃<s>被<b>发现", "<a> gets caught with <s> by <b>"),
    ("<a>找<b>借<s>", "<a> borrows <s> from <b>"),
)
BUBBLES = (
    ("给你", "here"),
    ("真的吗", "really?"),
    ("嘿嘿", "hehe"),
    ("不行", "nope"),
    ("好耶", "yay"),
    ("那是我的", "that's mine"),
    ("？", "?"),
    ("谢谢", "thanks"),
    ("等等", "wait"),
    ("算了", "whatever"),
)
COLOURS = {
    (250, 214, 120): ("黄色", "yellow"),
    (240, 160, 170): ("粉色", "pink"),
    (150, 200, 160): ("绿色", "green"),
    (130, 170, 225): ("蓝色", "blue"),
    (190, 165, 225): ("紫色", "purple"),
    (245, 170, 100): ("橙色", "orange"),
    (60, 62, 70): ("黑色", "black"),
    (225, 95, 90): ("红色", "red"),
    (120, 200, 205): ("青色", "teal"),
}
TABLES = (
    ("木桌", "on a wooden table", "wooden table"),
    ("深色桌板", "on dark wood", "dark wood"),
    ("麻布桌布", "on linen", "linen cloth"),
    ("大理石台面", "on marble", "white marble"),
    ("草地野餐", "on the lawn", "green lawn"),
    ("水泥台", "on concrete", "grey concrete"),
)
EMOJI = split("😂|🥹|😭|✨|🔥|🫶|💖|😋|👀|🙌|🍃|☁️|🥰|😎|💯|🤍|🌈|🎨|📷|🐾|🤝|😴|🍜|🌇|(≧▽≦)|(´･ω･`)|QAQ|^_^|orz")
HANDLES = (
    ("柠檬不酸", "lemon.not.sour"),
    ("半糖去冰", "halfsugar_"),
    ("老王修车铺", "wangs_garage"),
    ("画画的阿蓝", "blue.inks"),
    ("一只野生编辑", "feral_editor"),
    ("胖橘观察员", "orange_cat_watch"),
    ("今天也没更新", "no_update_today"),
    ("小岛电台", "islet.radio"),
    ("三餐四季", "4seasons3meals"),
    ("北漂小鹿", "deer_in_bj"),
    ("打工喵", "9to5cat"),
    ("Kiki的日常", "kiki.daily"),
)

# ---------------------------------------------------------------------------------------------------------------------
# Heads and tails that an editor cuts off: kind: (heads, tails), a language each.

Pairs = dict[str, tuple[Sequence[str], Sequence[str]]]
REMARKS: dict[str, Pairs] = {
    "topic_tags": {
        "zh": ((), (" #<tag># #<tag>#", " #<tag> #<tag> #<tag>", "#<tag>[话题]# #<tag>[话题]#", "\n#<tag> #<tag>")),
        "en": ((), (" #<tag> #<tag>", " #<tag> #<tag> #<tag> #<tag>", "\n.\n.\n#<tag> #<tag> #<tag>")),
    },
    "mentions": {
        "zh": ((), (" @<handle>", " @<handle> @<handle> 快来看", " 艾特一下@<handle>")),
        "en": ((), (" @<handle>", " cc @<handle> @<handle>", " tagging @<handle>")),
    },
    "picture_credit": {
        "zh": ((), (" （图源网络，侵删）", " cr.<handle>", " 图/@<handle>", " 画师：<handle>", " 📷<handle>")),
        "en": ((), (" (pic via @<handle>)", " cr: <handle>", " 📸 @<handle>", " art by @<handle>", " [OC]")),
    },
    "short_link": {
        "zh": ((), (" http://t.cn/<code>", " 戳→ https://url.example/<code>", " 🔗网页链接", " 链接放评论区了")),
        "en": ((), (" https://t.example/<code>", " pic.example.com/<code>", " link in bio", " 👉 lnk.example/<code>")),
    },
    "repost_head": {
        "zh": (("转发微博 //@<handle>:", "//@<handle>: ", "【转】", "转自<handle>：", "回复@<handle>:"), ()),
        "en": (
            ("RT @<handle>: ", "Repost from @<handle>: ", "#repost @<handle> ・・・ ", "Replying to @<handle> "),
            (),
        ),
    },
    "follow_line": {
        "zh": ((), (" 关注我，每天更新", "，想看更多记得点个小红心", " ｜主页还有更多", " 求三连！")),
        "en": (
            (),
            (
                " Follow @<handle> for daily posts",
                " - like & share if you agree",
                " | follow for part 2",
                " Subscribe!",
            ),
        ),
    },
    "posted_by_app": {
        "zh": (
            (),
            (" 来自 iPhone客户端", " 来自<tag>超话", " <handle>的微博视频", " 发布于<city>", " 编辑于 {3|5|9|11}天前"),
        ),
        "en": ((), (" · Twitter for iPhone", " | TikTok", " on Reels", " - Posted {3h|2d|5w} ago", " (via the app)")),
    },
    "page_number": {
        "zh": (("P{1|2|3|4} ", "（{1|2|3}/{4|6|9}）", "图{1|2|3|5}：", "{1|2|3}/9 "), ()),
        "en": (("{1|2|3}/{4|5|7} ", "({2|3|4}/{6|9}) ", "p{1|2|3}: ", "swipe ➡️ "), ()),
    },
    "sound_line": {
        "zh": ((), (" @<handle>创作的原声", " ♬ 原声 - <handle>", " 🎵 BGM：<song>")),
        "en": ((), (" ♬ original sound - <handle>", " 🎵 <song>", " original audio")),
    },
    "see_more": {
        "zh": ((), ("...展开", "…全文", " 收起d", " 展开c", " 查看翻译")),
        "en": ((), ("... more", "… See more", " See translation", " Show more", "...see less")),
    },
    "counters": {
        "zh": (
            (),
            (
                " ❤{128|2041|66} 💬{12|305}",
                " 转发{2|15} 评论{8|41} 赞{97|530}",
                " {1.2|3.4|8.8}万次播放",
                " 👍{1.1|5}w",
            ),
        ),
        "en": (
            (),
            (
                " ❤ {1.2K|847|15.3K} 💬 {24|310}",
                " {12|88} Retweets {301|977} Likes",
                " {4.5M|23K} views",
                " ▶ {9.1K|77K}",
            ),
        ),
    },
    "account_frame": {
        "zh": (
            ("<handle>：", "<handle>的小红书笔记：", "@<handle> ："),
            (" - <handle> - 微博", " - 抖音", " | 小红书", "_哔哩哔哩_bilibili"),
        ),
        "en": (
            ("@<handle>: ", "<handle> on Instagram: ", "<handle> • "),
            (" / X", " | Instagram", " (@<handle>) • Photos and videos", " - YouTube"),
        ),
    },
}
TAGS = {
    "zh": split(
        "日常碎片|我的plog|夏日氛围感|一起看晚霞|今天吃什么|宠物日常|画画|城市漫游|治愈系|打工人|周末去哪玩|随手拍|手机摄影|同城|涨知识|新人报道"
    ),
    "en": split(
        "fyp|foryou|dailylife|aesthetic|catsofinsta|foodie|artistsoninstagram|photodump|viral|slowliving|smallbusiness|explorepage|ootd|weekendvibes"
    ),
}

# Captions that are none: kind, and templates of both languages.
TEXT_FAULTS: dict[str, dict[str, Sequence[str]]] = {
    "reaction_only": {
        "zh": (
            "哈哈哈哈哈哈哈哈{哈|哈哈|嗝}",
            "啊啊啊啊啊{啊|啊啊啊}",
            "awsl",
            "笑{死|晕|裂|拉}了{家人们|}",
            "我{真的|}会谢",
            "{离大谱|无语子|蚌埠住了}",
            "呜呜呜{呜|}我哭死",
            "就{离谱|很突然|很难评}",
            "{绝绝子|yyds}！！{！|}",
            "这合理吗{？|？？}",
            "6{66|666}",
            "不是，{啊|哥们}？",
        ),
        "en": (
            "LMAO{OO|OOOO}",
            "omg {omg|stop|I can't}",
            "I'm {dead|crying|screaming|deceased} 💀",
            "{nah|bro|girl} what",
            "this. {just this|so much this}.",
            "no because {why|WHY}",
            "help{pp|ppp} 😭",
            "{same|mood|me fr}",
            "I {can't|CAN'T} even",
            "W{ow|OWWW}",
            "yesss{ss|}{!|!!}",
        ),
    },
    "tags_alone": {
        "zh": (
            "#<tag># #<tag># #<tag>#",
            "#<tag> #<tag> #<tag> #<tag>",
            "#<tag>[话题]# #<tag>[话题]#",
            "#<tag># #<tag>#",
        ),
        "en": ("#<tag> #<tag> #<tag> #<tag> #<tag>", "#<tag> #<tag>", "#<tag> . #<tag> . #<tag>"),
    },
    "giveaway": {
        "zh": (
            "转发+关注，抽{1|2|3|5}个{宝|朋友|粉丝}送<prize>，{周五|月底|下周一}开奖",
            "【抽奖】评论区揪{1|3|6}位送<prize>",
            "满{1千|五千|1万}转就抽<prize>，欧气滚滚",
            "点赞过{百|千}立刻安排<prize>福利",
        ),
        "en": (
            "GIVEAWAY!! Follow, like and tag {2|3} friends to win <prize>",
            "RT + follow to win <prize>, ends {Friday|Sunday|midnight}",
            "{5K|10K} followers = <prize> for one of you. Good luck!",
            "Comment DONE to enter and win <prize>",
        ),
    },
    "follow_request": {
        "zh": (
            "点个关注再走呗，{主页|合集}还有{好多|更多}",
            "关注<handle>，带你{看遍全世界|每天进步一点点|不迷路}",
            "互{粉|关}，{秒|必}回",
            "求{点赞|一键三连|扩散}，跪谢了",
            "还差{3|17|52|88}个粉丝就破{百|千}了",
        ),
        "en": (
            "Follow @<handle> so you never miss a post!",
            "drop a follow, I follow back {fast|asap}",
            "Only {12|40|96} more until {1K|10K}, let's go!",
            "like + save + share pls, algorithm hates me",
            "Turn on notifications for @<handle>",
        ),
    },
    "emoji_alone": {
        "zh": ("<e><e><e>", "<e><e><e><e><e><e>", "<e>", "[{doge|笑cry|泪|心}][{doge|笑cry|泪|心}][{允悲|赞|吃瓜}]"),
        "en": ("<e><e>", "<e><e><e><e>", "<e> <e> <e>", "{:)|xD|<3|:')}"),
    },
    "mentions_alone": {
        "zh": (
            "@<handle> @<handle>",
            "@<handle> 你看{你|他|这个}",
            "@<handle> 速来",
            "艾特{那个他|你的好朋友|懂的人} @<handle>",
        ),
        "en": (
            "@<handle> @<handle>",
            "@<handle> {us|u|look}",
            "@<handle> THIS",
            "tag someone {who needs this|you miss} @<handle>",
        ),
    },
    "mood_diary": {
        "zh": (
            "有些话{说不出口|到嘴边又咽了回去}，就{这样|算了}吧",
            "又是{失眠|emo|想躺平}的一{晚|天}",
            "人生嘛，{起起落落落落|没什么大不了}",
            "突然{好想|不想}长大",
            "距离{放假|发工资|过年}还有{3|9|17|40}天",
            "{三十|二十五|十八}岁的我，{一事无成|依然天真}",
            "原来{成年人|大人}的世界没有容易二字",
        ),
        "en": (
            "some days you just {breathe|survive}, and that's okay",
            "{overthinking|can't sleep} again",
            "life update: {none|still tired|it's complicated}",
            "why is adulting so {hard|expensive}",
            "{3|11|26} days until {vacation|payday|I quit}",
            "not me {crying|spiralling} on a {Monday|Tuesday|Sunday}",
            "healing isn't linear. {read that again|ok bye}",
        ),
    },
    "asks_followers": {
        "zh": (
            "{第一张|左边|A}还是{第二张|右边|B}？评论区告诉我",
            "你们{觉得|选}哪个？在线等",
            "有{人|姐妹}知道{这是哪|怎么弄|多少钱}吗？",
            "如果是你，你会{怎么办|怎么选}？",
            "评论区说出你的{故事|答案|星座}👇",
        ),
        "en": (
            "{1 or 2|left or right|A or B}? tell me below",
            "does anyone know {what this is|where to get one|how}?",
            "what would you do? {answers only|wrong answers only}",
            "drop your {sign|thoughts|answer} 👇",
            "rate this {1-10|out of 10}, be honest",
        ),
    },
    "share_token": {
        "zh": (
            "{3.58|7.12|0.25|9.41} <code>:/ 复制打开抖音，看看【<handle>的作品】",
            "https://v.example.cn/<code>/ 复制此链接，打开APP直接观看",
            "{12|40|88} 【<handle>发布了一篇笔记，快来看吧！】 😆 <code> 😆",
            "http://t.cn/<code>",
        ),
        "en": (
            "https://vm.example.com/<code>/",
            "Check out <handle>'s video! #app https://vt.example.com/<code>",
            "https://x.example.com/<handle>/status/{148|155|162}<digits>",
            "Copy link <code> and open the app",
        ),
    },
    "platform_default": {
        "zh": (
            "分享{图片|视频|一组图}",
            "<handle>的{微博视频|投稿视频|动态}",
            "发布了{一条新动态|新作品}",
            "转发微博",
            "{我参与了|来自}@<handle> 发起的投票",
            "#话题# 分享自<handle>",
            "该视频暂无{标题|描述|简介}",
        ),
        "en": (
            "Photo by <handle> on {March|June|October} {3|14|27}, 20{19|21|22}.",
            "<handle> posted a {photo|reel|story}",
            "Instagram post by <handle> • {Jul|Nov|Feb} {2|11|30} at {4:05pm|9:41am} UTC",
            "Video by <handle>",
            "No caption",
            "<handle> shared a {memory|post|link}",
            "Uploaded from my phone",
        ),
    },
    "question_marks": {},  # made from a good caption: letters that an old database could not store
    "agent_advert": {
        "zh": (
            "招{代理|兼职}，在家{带娃|躺着}日入{300|500|800}，➕{v|薇}<code>",
            "{原单|一比一|工厂直供}，支持{对比|一件代发}，{细节|价格}私",
            "{瘦|减}了{20|35}斤，{方法|同款}找我，不{反弹|节食}",
            "私我领{资料|优惠券|教程}，仅限前{20|50|100}名",
            "{刷单|点赞|做任务}赚零花，手机就行，日结",
        ),
        "en": (
            "Earn ${300|500|900} a day from your phone, DM me {START|INFO}",
            "lost {15|22|30} lbs in {3|6} weeks, ask me how",
            "Work from home, no experience, link in bio, {10|25} spots",
            "crypto signals {98|94}% win rate, join t.example/<code>",
            "use code <code> for {20|30|50}% off everything, today only",
        ),
    },
}
PRIZES = {
    "zh": split("奶茶券|口红一支|手账本|周边礼包|蓝牙耳机|猫条一箱|电影票两张|现金红包"),
    "en": split("a mystery box|AirPods|a $50 gift card|two tickets|a merch bundle|a signed print|a year of coffee"),
}


def draw_words(language: str, rng: random.Random) -> dict[str, str]:
    """Draw the words of remarks and faults that no rule of the grammars has."""
    index = 0 if language == "zh" else 1
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"
    return {
        "prize": rng.choice(PRIZES[language]),
        "code": "".join(rng.choice(letters) for _ in range(rng.randint(6, 9))),
        "digits": f"{rng.randrange(10**12):012d}",
        "song": rng.choice(SONGS)[index],
    }


def expand(template: str, language: str, rng: random.Random, words: Mapping[str, str]) -> str:
    """Expand a template of a remark or fault; names, tags and emoji are drawn anew wherever they stand."""
    index = 0 if language == "zh" else 1
    for name, choices in (("handle", [pair[index] for pair in HANDLES]), ("tag", TAGS[language]), ("e", EMOJI[:24])):
        order = rng.sample(list(choices), len(choices))
        while f"<{name}>" in template:
            template = template.replace(f"<{name}>", order.pop(), 1)
    template = template.replace("<3", "‹3")
    return GRAMMARS[language].expand(template, rng, words)


def draw_bad_caption(kind: str, language: str, caption: str, rng: random.Random) -> str:
    """Write a caption that is none.

    Args:
        kind: of TEXT_FAULTS.
        language: "zh" or "en".
        caption: a good Chinese caption of the picture, which some kinds damage.
        rng: makes the choices.
    """
    if kind == "question_marks":
        return "".join("?" if ord(letter) > 126 else letter for letter in caption)
    template = rng.choice(TEXT_FAULTS[kind][language])
    return expand(template, language, rng, draw_words(language, rng))


def draw_remark(kind: str, language: str, rng: random.Random) -> tuple[str, str]:
    """Return a head and a tail, of which one is empty."""
    heads, tails = REMARKS[kind][language]
    choices = [(head, "") for head in heads] + [("", tail) for tail in tails]
    head, tail = rng.choice(choices)
    words = draw_words(language, rng)
    return expand(head, language, rng, words), expand(tail, language, rng, words)
