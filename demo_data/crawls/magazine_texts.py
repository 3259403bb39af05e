"""Words of the crawl of magazines, encyclopaedias, blogs and small sites: subjects, a grammar of captions, remarks."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Subject:
    """What a picture shows: a name without article, its article, its Chinese name, and the field it belongs to."""

    name: str
    article: str
    name_zh: str
    topic: str

    @property
    def phrase(self) -> str:
        return f"{self.article} {self.name}".strip()


# Photographs known by the name of their file. A folder of other photographs works too: their captions are English.
# name: (article, Chinese name, topic)
PHOTO_SUBJECTS = {
    "aloe plant": ("an", "芦荟", "plant"),
    "astronaut in an orange suit": ("an", "身穿橙色航天服的宇航员", "people"),
    "autumn mountain meadow": ("an", "秋天的高山草甸", "land"),
    "baboon face": ("a", "狒狒的脸部", "animal"),
    "blue forget me not flowers": ("", "蓝色的勿忘我", "plant"),
    "blue lit bridge at night": ("a", "夜里亮着蓝灯的大桥", "city"),
    "brick houses in an old street": ("", "老街上的红砖房", "city"),
    "bridge at night": ("a", "夜色中的大桥", "city"),
    "bridge cables under a blue sky": ("", "蓝天下的斜拉桥钢索", "city"),
    "butterfly in the leaves": ("a", "停在叶间的蝴蝶", "animal"),
    "castle with towers": ("a", "带塔楼的城堡", "city"),
    "chinese pavilion by the lake": ("a", "湖边的亭子", "city"),
    "citrus fruit slices": ("", "切开的柑橘片", "food"),
    "city street at sunset": ("a", "落日下的城市街道", "city"),
    "colorful paint brushes": ("", "五颜六色的画笔", "thing"),
    "colorful plastic cups": ("", "彩色塑料杯", "thing"),
    "cup of coffee on a wooden table": ("a", "木桌上的一杯咖啡", "food"),
    "cut fig on a red plate": ("a", "红盘子里切开的无花果", "food"),
    "dandelions in evening light": ("", "夕阳里的蒲公英", "plant"),
    "dark blue lake at night": ("a", "夜晚深蓝色的湖面", "land"),
    "desert dunes under a blue sky": ("", "蓝天下的沙丘", "land"),
    "dog at a wooden door": ("a", "木门前的小狗", "animal"),
    "dragonfly on leaves": ("a", "叶子上的蜻蜓", "animal"),
    "fallen maple leaf": ("a", "落在地上的枫叶", "plant"),
    "forest stream with rocks": ("a", "林间溪流与石块", "land"),
    "ginger cat face": ("a", "橘猫的脸", "animal"),
    "glass tower under a pink sky": ("a", "粉色天空下的玻璃大楼", "city"),
    "grass on sand dunes": ("", "沙丘上的野草", "land"),
    "green circuit board": ("a", "绿色电路板", "thing"),
    "green fern leaves": ("", "绿色的蕨类叶片", "plant"),
    "green grass": ("", "青草", "plant"),
    "green palm leaf": ("a", "绿色棕榈叶", "plant"),
    "green tea gardens in mist": ("", "薄雾中的茶园", "land"),
    "grey moon surface": ("the", "灰色的月球表面", "space"),
    "honey bee on a purple flower": ("a", "紫色花朵上的蜜蜂", "animal"),
    "jellyfish in blue sea": ("a", "蓝色海水里的水母", "animal"),
    "kite in a cloudy sky": ("a", "多云天空中的风筝", "thing"),
    "ladybird on blue flowers": ("a", "蓝色小花上的瓢虫", "animal"),
    "lake in brown mountains": ("a", "褐色群山间的湖泊", "land"),
    "lamp with a flying bird": ("a", "路灯和飞过的鸟", "thing"),
    "monarch butterfly wing": ("a", "帝王蝶的翅膀", "animal"),
    "mountain lake with snow peaks": ("a", "雪峰下的高山湖泊", "land"),
    "night lights of the earth": ("the", "地球夜间的灯光", "space"),
    "ocean waves": ("", "海浪", "land"),
    "orange dahlia flower": ("an", "橙色大丽花", "plant"),
    "orange flower macro": ("an", "橙色花朵的微距", "plant"),
    "orange nebula": ("an", "橙色星云", "space"),
    "oranges and kiwi fruit": ("", "橙子和猕猴桃", "food"),
    "osprey in a tree": ("an", "树上的鱼鹰", "animal"),
    "otters on a tree trunk": ("", "趴在树干上的水獭", "animal"),
    "pale wood grain": ("a", "浅色木纹", "thing"),
    "path in a dark forest": ("a", "幽暗森林里的小路", "land"),
    "pier in grey fog": ("a", "灰雾中的栈桥", "land"),
    "pink dahlia flower": ("a", "粉色大丽花", "plant"),
    "potted grass by a wall": ("", "墙边的盆栽草", "plant"),
    "purple canyon": ("a", "紫色的峡谷", "land"),
    "purple sea at dusk": ("a", "黄昏时紫色的海面", "land"),
    "radio telescope": ("a", "射电望远镜", "space"),
    "rain drops on green leaves": ("", "绿叶上的雨珠", "plant"),
    "red and yellow garden flower": ("a", "红黄相间的园艺花卉", "plant"),
    "red canyon walls": ("", "红色峡谷岩壁", "land"),
    "red desert dune with hikers": ("a", "红色沙丘上的徒步者", "land"),
    "red flower in green moss": ("a", "青苔里的一朵红花", "plant"),
    "red motorcycle in a garage": ("a", "车库里的红色摩托车", "thing"),
    "rocket on the launch pad at night": ("a", "夜间发射台上的火箭", "space"),
    "roman colosseum": ("the", "古罗马斗兽场", "city"),
    "rowing boats in evening glow": ("", "晚霞中的小船", "land"),
    "satellite over the coast": ("a", "海岸上空的卫星", "space"),
    "seed with wings on orange": ("a", "橙色背景上的翅果", "plant"),
    "skyline of a city at dusk": ("the", "黄昏的城市天际线", "city"),
    "small bird on a rock": ("a", "岩石上的小鸟", "animal"),
    "snow peak at dusk": ("a", "暮色中的雪峰", "land"),
    "spiral courtyard with lamps": ("a", "亮着灯的螺旋形庭院", "city"),
    "star trails over hills": ("", "山丘上空的星轨", "space"),
    "stone path in the mountains": ("a", "山间的石板路", "land"),
    "storm clouds over a road": ("", "公路上空的乌云", "land"),
    "sunset by the pier": ("a", "码头边的日落", "land"),
    "sunset over hills": ("a", "山丘上的日落", "land"),
    "toy shells and fabric": ("", "玩具贝壳和布料", "thing"),
    "tree trunk in the snow": ("a", "雪地里的树干", "land"),
    "water drop on blue water": ("a", "蓝色水面上的水滴", "thing"),
    "white concrete building": ("a", "白色混凝土建筑", "city"),
    "white curved facade": ("a", "白色的弧形外墙", "city"),
    "white lantern at night": ("a", "夜里的白色灯笼", "thing"),
    "white roof tiles": ("", "白色屋瓦", "city"),
    "white tower from below": ("a", "仰视白色高塔", "city"),
    "wine glass in a cellar": ("a", "酒窖里的葡萄酒杯", "food"),
    "wooden pier by the water": ("a", "水边的木栈道", "land"),
    "wooden sign in the desert": ("a", "沙漠里的木牌", "land"),
    "yellow flower petals on grey": ("", "灰底上的黄色花瓣", "plant"),
    "yellow flower petals": ("", "黄色花瓣", "plant"),
}

# Drawings used as products, illustrations and icons, by their English name.
DRAWING_TOPICS = {
    "animal": "ant|badger|bat|bear|beaver|bee|bird|bison|black cat|boar|butterfly|camel|cat|chicken|chipmunk|cow|crab|"
    "crocodile|deer|dodo|dog|dolphin|donkey|duck|eagle|elephant|fish|flamingo|fox|frog|giraffe|goat|goose|gorilla|"
    "hamster|hedgehog|hippopotamus|honeybee|horse|kangaroo|koala|lady beetle|leopard|lizard|llama|lobster|monkey|"
    "moose|mouse|octopus|orangutan|otter|owl|ox|panda|parrot|peacock|penguin|pig|polar bear|poodle|rabbit|raccoon|"
    "rhinoceros|rooster|scorpion|seal|shark|skunk|sloth|snail|snake|squid|swan|tiger|tropical fish|turkey|turtle|"
    "two-hump camel|water buffalo|whale|wolf|zebra|sauropod|T-Rex|hatching chick|baby chick|cricket|beetle|spider",
    "food": "avocado|bacon|bagel|baguette bread|banana|bell pepper|bento box|birthday cake|blueberries|bread|broccoli|"
    "bubble tea|burrito|butter|candy|carrot|cheese wedge|cherries|chestnut|chocolate bar|coconut|cookie|croissant|"
    "cucumber|cupcake|curry rice|doughnut|dumpling|ear of corn|egg|eggplant|fortune cookie|french fries|garlic|grapes|"
    "green apple|green salad|hamburger|hot dog|hot pepper|ice cream|kiwi fruit|lemon|lime|lollipop|mango|melon|"
    "mushroom|"
    "onion|pancakes|peach|peanuts|pear|pie|pineapple|pizza|popcorn|potato|pretzel|red apple|rice ball|sandwich|"
    "shortcake|spaghetti|steaming bowl|strawberry|sushi|taco|tangerine|tomato|waffle|watermelon|shaved ice|dango|"
    "pot of food",
    "thing": "abacus|accordion|alarm clock|amphora|anchor|backpack|balloon|banjo|basket|battery|bell|billed cap|"
    "books|briefcase|broom|bucket|camera|candle|chair|compass|couch and lamp|crayon|crown|crystal ball|"
    "desktop computer|"
    "diving mask|door|dress|drum|electric plug|fire extinguisher|flashlight|flute|fountain pen|game die|gem stone|"
    "glasses|globe with meridians|goggles|graduation cap|guitar|hammer|handbag|headphone|high-heeled shoe|hiking boot|"
    "hourglass not done|jeans|joystick|key|keyboard|kick scooter|kimono|kite|ladder|laptop|light bulb|lipstick|"
    "lotion bottle|luggage|magnet|microscope|mirror|mobile phone|movie camera|necktie|nesting dolls|nut and bolt|"
    "old key|"
    "paintbrush|pencil|postbox|printer|purse|radio|red paper lantern|ring|roller skate|rugby football|running shoe|"
    "sari|saxophone|scarf|scissors|screwdriver|sewing needle|shopping cart|skateboard|soccer ball|socks|spoon|"
    "straight ruler|studio microphone|sunglasses|t-shirt|teapot|teddy bear|telephone|telescope|television|tent|"
    "thermometer|toolbox|top hat|trophy|trumpet|umbrella|video camera|video game|violin|volleyball|watch|"
    "wind chime|wine glass|wrapped gift|wrench|yarn|yo-yo|axe|artist palette|balance scale|basketball|bathtub|bed",
    "vehicle": "airplane|ambulance|articulated lorry|auto rickshaw|automobile|bicycle|bullet train|bus|canoe|"
    "delivery truck|ferry|fire engine|helicopter|light rail|locomotive|minibus|monorail|motor boat|motor scooter|"
    "motorcycle|passenger ship|pickup truck|police car|racing car|rocket|sailboat|ship|small airplane|speedboat|"
    "sport utility vehicle|taxi|tractor|train|tram|trolleybus|satellite|flying saucer|aerial tramway",
    "building": "bank|castle|church|cinema|classical building|convenience store|department store|factory|ferris wheel|"
    "fountain|hospital|hotel|house|house with garden|hut|Japanese castle|mosque|office building|post office|school|"
    "stadium|Statue of Liberty|station|Tokyo tower|circus tent|roller coaster|derelict house|hindu temple|synagogue",
    "plant": "blossom|bouquet|cactus|cherry blossom|Christmas tree|deciduous tree|evergreen tree|"
    "four leaf clover|hibiscus|"
    "hyacinth|lotus|maple leaf|palm tree|potted plant|rose|seedling|sunflower|tulip|white flower|herb|fallen leaf",
}
# Names that read wrong after "a".
WITHOUT_ARTICLE = {
    "bacon", "blueberries", "bread", "broccoli", "bubble tea", "butter", "cherries", "curry rice", "french fries",
    "garlic",
    "grapes", "green salad", "pancakes", "peanuts", "popcorn", "spaghetti", "sushi", "books", "glasses", "goggles",
    "jeans", "nesting dolls", "scissors", "socks", "sunglasses", "yarn", "shaved ice", "chocolate bar",
}  # fmt: skip


def drawing_subject(name_en: str, name_zh: str) -> Subject:
    """Return the subject of a drawing by its names."""
    article = "an" if name_en[0] in "aeiouAEIOU" else "a"
    if name_en in WITHOUT_ARTICLE:
        article = ""
    if name_en in ("Statue of Liberty", "Tokyo tower"):
        article = "the"
    return Subject(name_en, article, name_zh, topics_of_drawings()[name_en])


@cache
def topics_of_drawings() -> dict[str, str]:
    """Return the topic of every drawing that is used."""
    return {name: topic for topic, names in DRAWING_TOPICS.items() for name in names.split("|")}


def photo_subject(name: str) -> Subject:
    """Return the subject of a photograph by the name of its file; without a Chinese name if it is not known."""
    if name in PHOTO_SUBJECTS:
        article, name_zh, topic = PHOTO_SUBJECTS[name]
        return Subject(name, article, name_zh, topic)
    return Subject(name, "", "", "land")


# ---------------------------------------------------------------------------------------------------------------------
# A grammar: `{a|b}` is one of the alternatives, `<name>` a rule or a word of the picture.


# Letters of templates that stand for those of the notation itself.
LITERALS = str.maketrans("‹›⦃⦄¦", "<>{}|")


class Grammar:
    """Rules whose alternatives may hold choices and other rules."""

    CHOICE = re.compile(r"\{([^{}]*)\}")
    NAME = re.compile(r"<(\w+)>")

    def __init__(self, rules: Mapping[str, Sequence[str]]) -> None:
        self.rules = rules

    def expand(self, text: str, rng: random.Random, words: Mapping[str, str]) -> str:
        """Expand a text until neither choices nor names are left.

        Args:
            text: a template; a name in capitals, such as `<Spot>`, is expanded with its first letter in upper case.
            rng: makes the choices.
            words: values of names that are no rules; they go before rules of the same name.
        """
        while "{" in text or "<" in text:
            choice = self.CHOICE.search(text)
            if choice:
                text = text[: choice.start()] + rng.choice(choice[1].split("|")) + text[choice.end() :]
                continue
            name = self.NAME.search(text)
            if not name:
                raise ValueError(f"unbalanced template: {text!r}")
            value = self._expand_name(name[1], rng, words)
            text = text[: name.start()] + value + text[name.end() :]
        return text.translate(LITERALS)

    def _expand_name(self, name: str, rng: random.Random, words: Mapping[str, str]) -> str:
        if name in words:
            return words[name]
        if name in self.rules:
            return rng.choice(self.rules[name])
        if name.islower():
            raise KeyError(f"the grammar has no rule {name!r}")
        value = self.expand(f"<{name.lower()}>", rng, words)
        return value[:1].upper() + value[1:]


def split_words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split("|"))


COMMON_RULES: dict[str, Sequence[str]] = {
    "d": tuple("0123456789"),
    "d1": tuple("123456789"),
    "h": tuple("0123456789abcdef"),
    "L": tuple("ABCDEGHKLMNPRSTVXZ"),
    "year": tuple(str(year) for year in range(1998, 2024)),
    "old_year": tuple(str(year) for year in range(1861, 1997)),
    "two": tuple(str(number) for number in range(12, 60)),
    "model": (
        "<L><L>-<d1><d>0",
        "<L><d1><d><d>",
        "<L><L><L> <d1><d>",
        "<d1><d><d><L>",
        "<L><d1> Pro",
        "<L><d1><d>-<L>",
    ),
    "cm": ("<d1>.<d>", "<two>", "1<d><d>", "<two>.5"),
}

ENGLISH_RULES: dict[str, Sequence[str]] = {
    **COMMON_RULES,
    "month": split_words("January|February|March|April|May|June|July|August|September|October|November|December"),
    "season": split_words("spring|early spring|summer|late summer|autumn|fall|winter|midsummer"),
    "hour": split_words("dawn|first light|noon|dusk|sunrise|low tide|high tide|closing time|the end of the day|"
    "daybreak"),
    "weekday": split_words("Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"),
    "compass": split_words("north|south|east|west|north-west|south-east|car park|old road|far bank|visitor centre"),
    "person": split_words(
        "Anna Keller|Tom Ridgeway|Mei Lin|J. P. Okafor|Sofia Marques|Li Wei|Dr. Hannah Voss|Peter O'Shea|Yuki Tanabe|"
        "Carlos Ibarra|Ruth Amsel|Grace Njoroge|Ben Hollis|Ingrid Dahl|Zhang Min|Farah Aziz|Old Mr Pember|Sam Whitlock"
    ),
    "wild": split_words(
        "Yellowstone|the Lake District|Snowdonia|Patagonia|the Black Forest|Iceland|Big Sur|"
        "the Scottish Highlands|Yunnan|"
        "Tasmania|the Dolomites|Namibia|Zion National Park|the Cotswolds|Hokkaido|Jiuzhaigou|the Alps|Vermont|Banff|"
        "Cape Cod|the Outer Hebrides|Fiordland|Yosemite Valley|Connemara|the Pyrenees|Ladakh|Madeira|Oregon"
    ),
    "town": split_words(
        "Lisbon|Kyoto|Edinburgh|Chengdu|Portland|Ghent|Bristol|Valparaíso|Suzhou|Tallinn|Cape Town|Leipzig|Melbourne|"
        "Porto|Quebec City|Bath|Xi'an|San Antonio|Utrecht|Bologna|Hangzhou|Galway|Kraków|Nanjing|St. Louis|"
        "Bergen|Toledo"
    ),
    "place": ("<wild>", "<town>", "<wild>", "<town>", "our village", "the county", "the university", "my home town"),
    "nice": split_words(
        "lovely|beautiful|quiet|striking|tiny|grand|curious|well-kept|weathered|famous|peaceful|stunning|simple"
    ),
    "brand": split_words(
        "Halden|Morrow & Pike|KOYO|Tellus|Brightwell|Nordby|Oakline|Zephra|Lumino|Castell|Pinegrove|Aurelio|"
        "Fenwick|VANTO|"
        "Kestrel|Mistral|Toko|Redfern|Solvej|Greywater"
    ),
    "material": split_words("brass|stainless steel|oak|ceramic|canvas|wool|recycled plastic|leather|bamboo|"
    "cast iron|glass|cotton"),
    "style": split_words(
        "flat|hand-drawn|cartoon|watercolour|minimalist|isometric|vintage|colourful|simple|cute|3D|kawaii|retro|"
        "line-art"
    ),
    "use": split_words(
        "for kids|for beginners|for the garden|for travel|for small kitchens|for the classroom|for left-handers|"
        "for everyday use|for the office|for outdoor use|for collectors|with gift box|with spare parts"
    ),
    "dynasty": split_words("Qing dynasty|Edo period|Victorian|c. 1900|Ming dynasty|early 20th century|Meiji era|"
    "18th century"),
    "craft": split_words("glazed stoneware|painted wood|silver and enamel|porcelain|lacquer|woodblock print|"
    "gouache on paper|tin"),
    # Openings of whole captions, by what the picture is.
    "coda_land": split_words("an hour's walk from the road|protected since <old_year>|"
    "which no guidebook mentions|after a long dry summer|on the old pilgrims' route|where the trail begins|"
    "<d1>,<d>00 m above the sea|a place to come back to|with nobody around"),
    "coda_plant": split_words("grown from seed|in the back garden|which flowers from May to July|"
    "a gift from our neighbour|hardy down to -<d1> °C|pressed and dried for the herbarium|seen on most verges|"
    "one of <two> species here"),
    "coda_animal": split_words("too shy to come closer|one of <two> species recorded here|waiting for breakfast|"
    "on its way south|watched for half an hour|named Bertie by the children|a rare guest|resting after lunch|"
    "as curious as we were"),
    "coda_city": split_words("built in <old_year>|restored in <year>|designed by <person>|"
    "open from Tuesday to Sunday|<two> minutes from the station|before the crowds arrive|a listed building|"
    "as locals know it"),
    "coda_food": split_words("with a recipe for <d1>|served on Sundays|ready in <two> minutes|best eaten warm|"
    "from the market hall|a family recipe|the way my aunt makes it|under <d1>00 kcal"),
    "coda_thing": split_words("found at a flea market|made in <old_year>|kept in a drawer for years|"
    "no longer in production|used every day|borrowed from <person>|on loan to the museum"),
    "coda_space": split_words("imaged in <year>|seen through a <two> cm telescope|exposure <two> minutes|"
    "as it appears in <month>|processed by <person>"),
    "coda_people": split_words("before the mission|portrait from <old_year>|in training|waiting for the start"),
    "coda_vehicle": split_words("built in <old_year>|fleet no. <d1><d><d>|ready for the parade|"
    "before its last journey|in its first livery"),
    "coda_building": split_words("built in <old_year>|restored in <year>|as seen from the park|open daily|"
    "after plans by <person>"),
    # A second sentence of long captions.
    "sequel": (
        "{We|Nobody} {stayed|waited} {for an hour|until <hour>|longer than planned}.",
        "{Entry|The tour|Parking} is free {on <weekday>s|in <month>|for members}.",
        "The {original|print|negative|sketch} is {kept|on display} {in <town>|"
        "at the <brand> archive}{, inv. no. <d1><d><d>|}.",
        "{Our|The} {guide|driver|host}, <person>, {knew every name|told us the rest|laughed}.",
        "It {took|takes} {<two> minutes|<d1> hours|half a day} {to get there|in all|by bus|on foot}.",
        "{Next time|One day} {we will|I'd like to} {come back|try again|bring a tripod}{ in <season>|}.",
        "{According to|As} <person>{, who has worked here since <year>|}, {it was|"
        "this was} {the first in <d1> years|nothing unusual}.",
        "{The picture|This photograph} {won|was shortlisted for} the <town> {prize|award} in <year>.",
        "{Scale|Height|Width}: {about |}<cm> {cm|mm|m}.",
    ),
    "photo": (
        "<S> {in|near} <spot>. <sequel>",
        "<S>, <coda>. <sequel>",
        "{<month> <year>|<spot>|Day <d1>}: <s>. <sequel>",
        "<S>{, <spot>|}. <sequel>",
        "<sequel> {In the picture|Here}: <s>.",
        "<S>, <coda>", "<S>, <coda>{.|}", "<S> {in|near} <spot>, <coda>",
        "<S>. {It is|Today it is|That means:} <coda>.", "<S>, <spot>: <coda>",
        "{At|Around} <hour>, <s>, <coda>", "{Photographed|Seen} {in|near} <spot>: <s>, <coda>{.|}",
        "{<month> <year>|<season>|<weekday>}: <s>, <coda>",
        "<S>", "<S>.", "<S> {in|near} <spot>", "<S>, <spot>", "<S>, <spot>, <year>", "<S> in <season>",
        "<S>{, seen| , photographed| as seen} from the <compass>", "View of <s>{, <spot>|}{, <month> <year>|}",
        "<S> {at <hour>|in <month>|on a <weekday> morning}{, <spot>|}",
        "{Close-up|Detail|Close up view} of <s>{ in <spot>|}",
        "{A|Another} <nice> {view|picture|shot} of <s>{ from our trip to <spot>| in <spot>|}",
        "<S>: {a|one} <nice> {sight|scene|moment|find} {in <spot>|at <hour>|for any walker|in <season>}",
        "<Nice>! <S> {just outside <spot>|in <spot>|we met on the way home}",
        "{My|Our} {favourite|first|best} {photo|shot} of {the day|<season>|the trip}: <s>",
        "{Here|Look|Day <d1>}: <s> {we found|I photographed|we saw} {in|near} <spot>{ last <season>| on <weekday>|}",
        "<S>. {Taken|Photographed|Shot} {in|near} <spot>{, <month> <year>| with a 50mm lens| during <season>|}",
        "<S>, {a familiar sight|a rare sight|one of many} {in|around} <spot>{ in <season>|}.",
        "{Visitors|Locals|Readers|Travellers} {often ask about|come to see|know} <s> {in|near} <spot>.",
        "<S> {greets|awaits|delights} {visitors|walkers|early risers} {in|to|near} <spot>.",
        "<Month> in <spot>: <s>{ {at <hour>|after the rain}|}", "<Spot> in <season> — <s>", "<S> – <spot> – <year>",
        "<S> {after|before} the {rain|storm|snow|festival}{ in <spot>|}{, <year>|}",
        "{Looking|A look} {at|towards} <s>{ from the <compass>|}{, <spot>|}",
        "\"<Title>\" by <person>{, <year>|}",
        "<person> {took|made} this {picture|photograph} of <s> {in <spot>|in <month> <year>|last <season>}.",
        "{Blue hour|Golden hour|Morning light|A grey day} in <spot>: <s>",
        "Postcard {of|showing} <s>{, <spot>|}, {c. |}<old_year>",
        "<S> {(<year>)|(<spot>)|(<month> <year>)|(detail)|(close-up)}",
        "{Desktop wallpaper|Phone wallpaper|Background image|Header photo} {of|with} <s>",
        "<S> {as it looked|as we found it|on the day we visited}{ in <year>|}{, <spot>|}",
        "{Sometimes|Today} all you need is <s>{ in <season>|}",
        "{On|During} {the walk|day <d1>|our <season> trip}{ in <spot>|} we {came across|stopped for|"
        "photographed} <s>{.|, of course.|}",
        "{Field notes|Diary}, <month> <d1>: <s>{ near <spot>|}",
        "{Why I love|Greetings from|Back in} <spot>: <s>{ 😊| ❤️| 📷|}",
        "The {winning|runner-up} photo {of|in} {the <year> contest|our <season> competition} shows <s>{ in <spot>|}.",
        "<S> {with|in} {soft|low|strong|late} light{, <spot>|}{, <month> <year>|}",
        "{Still|Quiet|Colours|Textures} {life|of <spot>|of <season>}: <s>",
    ),
    "dish": (
        "<S>{, <coda>|}", "{Home-made|Freshly made|Simple|Grandma's|Street-food} <n>{, <coda>|}",
        "<S> by <person>, <coda>", "{How to make|Making|The secret of} <s>{: the result| in <d1> steps|, <coda>}",
        "{Breakfast|Lunch|A snack} in <town>: <s>", "<Title> {Recipe|Guide|of the Month}{ – <coda>|}",
        "{Step <d1>|Last step}: add <s>", "<Colour> <n>{, close up|, ready to serve|, <coda>}",
        "{We tried|Tasting} <s> {in <town>|at the market|for the first time}{, <coda>|}",
        "Nutrition of <n>: about <two><d> kcal per 100 g",
    ),
    "product": (
        "<Colour> <n> on {a |}{white|plain|light} background", "<brand> <n>, <colour>",
        "<brand> <model> <n>{ in <colour>|}{, <cm> cm|}",
        "<Material> <n> by <brand>{, <colour>|}{ – <use>|}", "<Colour> <n> <use>{, <material>|}",
        "{Single|One|Isolated} <colour> <n>{ with shadow| seen from the front|}",
        "{Handmade|Hand-painted|Second-hand|Antique|New} <colour> <n>{ from <town>| by <brand>|, <material>|}",
        "<n> ({<colour>|<material>|<model>}), {<cm> cm|set of <d1>|<year>}",
        "The <brand> <n> {comes in|is now available in|looks good in} <colour>{ and fits any bag|"
        " and costs less than you think|.}",
        "{Our|The} {best|test winner|cheapest|favourite} <n> of <year>: {the |}<brand> <model>{ in <colour>|}",
        "<Title> {Cookie Cutter|Fridge Magnet|Enamel Pin|Plush Toy|Wall Decal|Sticker}, <colour>{, <cm> cm|}",
        "<brand> <Title> <model>",
        "{Buying|Choosing|Cleaning|Repairing} <s>: {the <colour> one|the <brand> <model>|"
        "our <brand>} {on the bench|in our test|after two years}",
        "<N>, <dynasty>, <craft>{. H. <cm> cm| (inv. no. <d1><d><d><d>)|, gift of <person>|}",
        "{Toy|Model|Miniature} <n>, <colour> {plastic|wood|tin}{, <old_year>|}",
        "{A|The} <nice> <colour> <n>{, ready for its new owner| from {our|the} shop|}",
    ),
    "drawing": (
        "<Style> {illustration|drawing|clip art|vector|sticker} of <s>",
        "<S> {illustration|clipart|drawing|icon}{ in <style> style|}",
        "<Style> <n> {icon|emoji|sticker|mascot|logo design}{ with <colour> background|}",
        "{Drawing|Sketch|Cartoon} of <s> {by <person>|for our <season> issue|from a picture book}",
        "How to draw <s>{ step by step| for kids| in five minutes|: the finished picture}",
        "<N> {from|on} page <two> of {the workbook|our colouring book|<brand> Magazine}",
        "{Our|The school's|The team's} mascot, <s>{, drawn by <person>|}", "Flashcard: <n>",
        "English vocabulary card \"<n>\"{ with picture|}",
        "<S>, {illustration|poster art|stamp design} by <person>{, <year>|}",
        "{Meet|This is} {Pip|Olly|Momo|Biscuit|Mr Tuck}, <s> {from|in} {our new story|<person>'s comic|chapter <d1>}",
        "{Printable|Free printable|Embroidered|Knitted} <n> {pattern|template|badge|card}{ in <colour>|}",
    ),
    "scene": (
        "<S> and <t> <scenery>", "<S> {meets|waits for|looks at|walks past|follows} <t> <scenery>",
        "{Illustration|Picture book page|Cartoon|Drawing}: <s>{, <t>| and <t>} <scenery>",
        "{Cover|Poster|Banner} {art|illustration} with <s> and <t>{ <scenery>|}",
        "{Once|One day|That <season>}, <s> {met|saw|found|passed} <t> <scenery>.",
        "<Scenery>, <s> {next to|beside|behind|with} <t>", "{The story of|A fable about} <s> and <t>{ <scenery>|}",
        "Page <two>: <s> and <t> <scenery>{.|, drawn by <person>}",
        "{Where is|Can you find} <t>? {Picture puzzle|A picture} with <s> <scenery>",
        "{Children's|Editorial|Blog} illustration of <s>, <t> and {the weather|the season|nobody else} <scenery>",
    ),
}  # fmt: skip

CHINESE_RULES: dict[str, Sequence[str]] = {
    **COMMON_RULES,
    "month": split_words("一月|二月|三月|四月|五月|六月|七月|八月|九月|十月|十一月|十二月"),
    "season": split_words("春天|初春|暮春|夏天|盛夏|初秋|深秋|冬天|雨季|国庆假期|春节前后|梅雨时节"),
    "hour": split_words("清晨|日出时分|正午|午后|傍晚|黄昏|入夜|雨后|雪后|天刚亮"),
    "person": split_words("李明远|王淑芬|陈一帆|张老师|刘大海|赵小满|周航|老林|阿May|吴建国|孙晓棠|何其正|苏苏|"
    "马师傅|郑怡|小鹿"),
    "wild": split_words("川西|黄山|九寨沟|青海湖|大兴安岭|张家界|呼伦贝尔|莫干山|武夷山|长白山|海南|新疆喀纳斯|"
    "阳朔|雁荡山|崂山|稻城亚丁|腾格里|北海道|冰岛|新西兰南岛"),
    "town": split_words("成都|苏州|泉州|大理|西安|杭州|南京|绍兴|青岛|厦门|洛阳|重庆|哈尔滨|长沙|京都|里斯本|"
    "爱丁堡|台南|景德镇|扬州|喀什|天津"),
    "place": ("<wild>", "<town>", "老家", "校园", "小区", "外婆家门口", "单位附近", "<town>郊外"),
    "nice": split_words("美丽的|安静的|难得一见的|熟悉的|壮观的|小小的|可爱的|朴素的|惊艳的|令人难忘的|不起眼的|"
    "古老的"),
    "brand": split_words("海棠记|青禾|木与石|KOYO|拾光|北岸|山月|宏达|老周家|小满|Zephra|云上|和风堂|蓝鲸|锦程|Nordby"),
    "material": split_words("黄铜|不锈钢|实木|陶瓷|帆布|羊毛|树脂|牛皮|竹制|铸铁|玻璃|纯棉"),
    "style": split_words("卡通|手绘|扁平风|水彩|简约|复古|可爱|立体|国潮|儿童|线描|像素风"),
    "dynasty": split_words("清代|明代|民国|清乾隆|晚清|江户时代|20世纪初|近代|上世纪五十年代"),
    "craft": split_words("彩绘木雕|青花瓷|掐丝珐琅|漆器|木版年画|纸本设色|紫砂|铁皮"),
    "use": split_words("送礼佳品|儿童专用|家用小号|户外便携|学生款|办公室必备|左手可用|新手入门|收藏级|带礼盒"),
    "coda_land": split_words("海拔<d1><d>00米|离公路步行一小时|很少有游客知道|久旱之后|<old_year>年起受到保护|"
    "四周空无一人|步道就从这里开始|值得再来"),
    "coda_plant": split_words("花期五月到七月|自己播种的|邻居送的|路边常见|当地<two>种之一|已制成标本|能耐零下<d1>度"),
    "coda_animal": split_words("怕生，不肯靠近|正等着吃早饭|观察了半个小时|当地记录到的<two>种之一|难得的客人|"
    "刚刚睡醒|孩子们给它取名豆豆"),
    "coda_city": split_words("建于<old_year>年|<year>年重修|由<person>设计|周二至周日开放|离车站<two>分钟|"
    "人潮到来之前|列入保护名录"),
    "coda_food": split_words("附<d1>人份做法|<two>分钟就能做好|趁热吃最好|来自菜市场|妈妈的味道|周日限定"),
    "coda_thing": split_words("旧货市场淘来的|<old_year>年制造|在抽屉里放了多年|已经停产|每天都在用|向<person>借来的"),
    "coda_space": split_words("<year>年拍摄|<two>厘米望远镜所见|曝光<two>分钟|<month>可见|由<person>处理"),
    "coda_people": split_words("任务开始前|<old_year>年肖像|训练中"),
    "coda_vehicle": split_words("<old_year>年出厂|编号<d1><d><d>|退役之前|首次涂装"),
    "coda_building": split_words("建于<old_year>年|<year>年修复|从公园望去|每天开放"),
    "dish": (
        "<s>{，<coda>|}", "{家常|自制|手作}<s>{，<coda>|}", "<person>做的<s>，<coda>",
        "<s>{的做法|怎么做}{（<coda>）|：成品图|}", "<town>{街头的|早市上的|老店里的}<s>",
        "{今天的|周末}{早餐|午饭|下午茶}：<s>", "<colour>的<s>{，看着就有食欲|，<coda>|}",
        "{第<d1>步|最后一步}：摆上<s>", "<s>{营养成分|热量}：每100克约<two><d>千卡",
    ),
    # A second sentence of long captions.
    "sequel": (
        "{我们|大家}{待了一个多小时|一直等到<hour>|停留的时间比计划的长}。",
        "{门票|停车|讲解}{周一免费|<month>半价|对会员免费}。",
        "{原件|底片|画稿}{现存<town>|由<brand>收藏}{，编号<d1><d><d>|}。",
        "{向导|司机|房东}<person>{叫得出每一个名字|给我们讲了后来的事|笑了}。",
        "{步行|坐公交|开车}{大约<two>分钟|要<d1>个小时}。",
        "{下次|以后}{一定再来|还想再试一次|要带上三脚架}{，最好是<season>|}。",
        "据<person>{介绍|回忆}，{这是<d1>年来头一回|这并不稀奇}。",
        "{这张照片|这幅作品}{获得|入围}<year>年<town>{摄影奖|影展}。",
        "{高|宽|长}约<cm>{厘米|毫米|米}。",
    ),
    "photo": (
        "<spot>的<s>。<sequel>",
        "<s>，<coda>。<sequel>",
        "{<year>年<month>|<season>|<hour>}，<s>。<sequel>",
        "<s>{，<spot>|}。<sequel>",
        "<sequel>{图为|图中是}<s>。",
        "<s>，<coda>", "<spot>的<s>，<coda>。", "<s>（<coda>）", "<hour>的<s>，<coda>", "<s>：<coda>",
        "{<year>年<month>|<season>}，<s>，<coda>", "{摄于|拍自}<spot>的<s>，<coda>",
        "<s>", "<s>。", "<spot><s>", "<spot>的<s>", "<hour>，<s>", "<hour>的<spot>，<s>", "<season>，<spot>，<s>",
        "{拍摄于|摄于|拍自}<spot>的<s>", "<year>年<month>摄于<spot>：<s>",
        "<s>（{<spot>|<year>年|<hour>|特写|局部}）", "<s>——<spot>，<year>",
        "{近看|远看|俯瞰|细看|抬头看}<s>{，<spot>|}", "<nice><s>{，拍摄地点：<spot>|}",
        "{从<spot>回来路上遇到的|院子里的|朋友拍的|手机随手拍的}<s>", "<person>镜头{下|里}的<s>",
        "<person>{在<spot>拍下了|拍摄的|用手机记录了}<s>{。|}",
        "{这是|这就是}{我们|我|<person>}在<spot>{看到|拍到|遇见}的<s>{。|，印象很深|😊|}",
        "<spot>{之行|游记|一日|周末}：<s>",
        "{每到|又到}<season>，<s>{总是|都}{让人想起<spot>|吸引不少游客|特别好看}{。|}",
        "{游客|市民|村民|同学们}{喜欢|常来看|纷纷拍下}<spot>的<s>。",
        "<s>，{构图简洁|光线柔和|色彩浓郁|层次分明|细节清晰}{，<spot>|}", "《<s>》 <person>{ <year>年|}",
        "{老照片|明信片|旧影}：<old_year>年的<s>", "{获奖|参赛}作品《<s>》{，作者<person>|}",
        "{电脑壁纸|手机壁纸|桌面背景}：<s>", "<s>{高清|}{特写|全景|近景|远景}{，<hour>|}",
        "{我们|大家|一行人}在<spot>{停下来看|路过|见到了}<s>{，<hour>的光线正好|，天气很好|。}",
        "{最美|最喜欢的|今天的}{一张|画面|风景}：<s>{，<spot>|}", "<hour>{拍|走}到<spot>，{遇上|看见|正好是}<s>",
        "<s>是<spot>{常见的景象|的一张名片|很少有人注意的角落}。",
        "在<spot>，{<season>|<hour>}的<s>{格外|显得}{安静|好看|迷人}。",
        "{雨中|雪后|风里|薄雾里|阳光下}的<s>{，摄于<spot>|}",
    ),
    "product": (
        "<colour><s>", "{白底|浅色背景上的|单个}<colour><s>{正面图|}",
        "<brand><s>{ <colour>|（<colour>）|}{ <cm>厘米|}", "<brand> <model> <s>{，<colour>款|，<material>}",
        "<material><s>{ <use>|，<colour>|}", "<colour><s>，<use>",
        "{手工|二手|全新|老式}<colour><s>{，产自<town>|，<brand>出品|}", "<s>（{<colour>|<material>|<model>}）",
        "<dynasty><s>，<craft>{，高<cm>厘米|，<person>捐赠|，馆藏编号<d1><d><d><d>|}",
        "{玩具|模型|迷你}<s>，<colour>{塑料|木制|铁皮}{，<old_year>年|}",
        "<year>年{值得买的|评测冠军|最便宜的}<s>：<brand> <model>",
        "<s>{冰箱贴|毛绒玩具|胸针|贴纸|摆件}，<colour>{，<cm>厘米|}",
        "{怎样|如何}{挑选|清洁|保养|修理}<s>：{以这款<colour>的为例|图中为<brand> <model>}",
        "<person>的<colour><s>，{用了三年|刚拆箱|朋友送的}",
    ),
    "drawing": (
        "<style><s>{插画|图标|素材|表情|贴纸|矢量图}", "{一只|一个|一幅}<style><s>{插图|简笔画|形象}" ,
        "<s>{简笔画|卡通画|手绘图|剪贴画}{，<person>绘|}", "{怎么画|教你画}<s>{，五步完成|：成品图|（儿童简笔画）}",
        "识字卡片：<s>", "{看图识物|英语单词卡|幼儿园教具}——<s>", "{班级|校运会|球队}吉祥物<s>{，<person>设计|}",
        "<s>{邮票图案|海报元素|刺绣图样|剪纸图样}{，<year>年|}", "绘本里的<s>{，第<two>页|}", "<person>给专栏画的<s>",
    ),
    "scene": (
        "<scenery>，<s>和<t>", "<s>{遇见了|等着|望着|跟着|路过}<t>，{插画|绘本第<two>页|儿童画|<scenery>}",
        "{插图|绘本|封面|海报}：<scenery>的<s>与<t>", "<person>画的<s>和<t>{，<scenery>|}",
        "《<s>和<t>》{绘本插图|封面|，<person>著}", "{从前|有一天|这年<season>}，<s>{遇到|找到}了<t>。",
        "{找一找|看图说话}：<scenery>，<s>旁边的<t>", "<scenery>{有|画着}<s>、<t>{，配色清新|}",
        "<style>场景插画，<s>与<t>{，<scenery>|}",
    ),
}  # fmt: skip

ENGLISH, CHINESE = Grammar(ENGLISH_RULES), Grammar(CHINESE_RULES)

# Simplified characters that occur here with their traditional forms: a part of the Chinese sites is from Taiwan and
# Hong Kong.
TRADITIONAL_PAIRS = (
    "后後游遊朴樸只隻芦蘆荟薈脸臉蓝藍里裡灯燈桥橋红紅楼樓边邊颜顏笔筆无無叶葉间間块塊猫貓绿綠电電类類园園风風筝箏"
    "飞飛过過虫蟲鸟鳥云雲"
    "树樹鱼魚鹰鷹径徑雾霧栈棧远遠镜鏡黄黃艺藝车車库庫发發台臺罗羅马馬斗鬥兽獸场場卫衛层層际際线線岩巖轨軌门門码碼"
    "头頭贝貝"
    "壳殼筑築弧弧墙牆笼籠摄攝节節时時阳陽县縣这這们們张張见見边邊师師陈陳刘劉赵趙吴吳孙孫何何苏蘇郑鄭与與为為习習乌烏"
    "书書亲親产產从從众眾优優会會传傳伞傘体體儿兒关關养養军軍农農冰冰净淨减減几幾击擊创創刚剛动動劳勞华華单單卖賣"
    "历歷厅廳厦廈"
    "双雙变變号號叹嘆听聽吗嗎员員国國图圖圆圓坏壞坛壇声聲处處备備复復够夠夹夾妇婦学學宁寧实實宝寶审審宽寬对對寻尋"
    "导導将將尔爾尘塵"
    "屿嶼岁歲岛島币幣师師帐帳帘簾广廣庄莊应應开開异異弃棄张張弹彈强強归歸当當录錄径徑忆憶态態怀懷总總恋戀惊驚戏戲"
    "户戶扫掃扬揚护護报報"
    "拟擬择擇挂掛换換据據摆擺数數断斷旧舊显顯晒曬暂暫术術机機杂雜权權来來极極构構标標样樣档檔梦夢检檢楼樓欢歡毕畢"
    "气氣汉漢汤湯"
    "沟溝没沒泪淚泽澤洁潔洒灑浅淺测測济濟浓濃润潤涂塗涨漲温溫湾灣湿濕满滿满滿滚滾滨濱灵靈炉爐点點烟煙热熱爱愛牵牽"
    "状狀独獨环環现現"
    "玛瑪珐琺画畫疗療监監盖蓋盘盤盐鹽眼眼矶磯确確离離种種称稱穷窮窝窩竞競筛篩签簽简簡篮籃纤纖约約级級纪紀纯純纱紗"
    "纸紙纹紋组組细細织織终終经經"
    "结結给給络絡绝絕绍紹绘繪统統绣繡继繼绩績续續绳繩维維综綜缘緣网網罐罐羊羊职職联聯肤膚胶膠脚腳脑腦荐薦药藥莲蓮获獲"
    "萧蕭虾蝦补補装裝观觀规規视視览覽觉覺触觸计計认認让讓议議记記讲講许許论論设設访訪证證评評识識诉訴词詞译譯试試"
    "诗詩话話详詳语語说說请請读讀课課调調谈談"
    "谢謝谱譜贝貝负負贡貢财財责責货貨质質购購贴貼贵貴费費资資赏賞赛賽赶趕趋趨跃躍踪蹤轮輪软軟轻輕载載较較辆輛输輸"
    "达達迁遷运運还還进進远遠连連迟遲选選递遞逻邏"
    "遗遺邮郵邻鄰酱醬释釋钓釣钟鐘钢鋼钥鑰铁鐵铃鈴铜銅铸鑄银銀链鏈锅鍋锚錨锤錘锦錦镇鎮长長闪閃闭閉问問闲閒闹鬧队隊"
    "阅閱阔闊陆陸阶階随隨隐隱难難雕雕静靜页頁顶頂项項顺順顾顧预預领領题題额額"
    "飘飄饭飯饮飲饰飾饺餃饼餅馆館驴驢驾駕骆駱验驗骑騎鲜鮮鲸鯨鲨鯊鸡雞鸭鴨鸽鴿鹅鵝鹦鵡鹿鹿麦麥齐齊齿齒龙龍龟龜"
)


@cache
def traditional_table() -> dict[int, str]:
    """Return the table of simplified characters for str.translate."""
    return {ord(simple): TRADITIONAL_PAIRS[2 * index + 1] for index, simple in enumerate(TRADITIONAL_PAIRS[::2])}


def to_traditional(text: str) -> str:
    """Convert a simplified text to traditional characters, as far as the table goes."""
    return text.translate(traditional_table()).replace("裡斯本", "里斯本")


# ---------------------------------------------------------------------------------------------------------------------
# Remarks of sites before and after good captions: (heads, tails), English and Chinese.

REMARKS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "stock_tail": (
        (),
        (
            " - Stock Photo",
            " ¦ Stock Photo",
            " Stock Image",
            " - Royalty-Free Stock Photography",
            ", stock vector",
            " Stock Illustration",
            " — free stock photo",
            " - Stock Photo #<d1><d><d><d><d><d><d>",
            " Royalty Free Images",
        ),
        (),
        (
            "_图片素材",
            " - 正版商用图片",
            "高清图片下载",
            "_免版税图库",
            " 素材编号<d1><d><d><d><d><d>",
            "-免费图片素材",
            " 版权图片",
        ),
    ),
    "site_name": (
        (),
        (
            " - The Green Kettle",
            " ¦ Fernweh Journal",
            " – Halden Museum of Everyday Life",
            " :: Birdwatchers' Board",
            " - Wikivista",
            " • Mill Lane Primary School",
            " ¦ Slow Kitchen",
            " - Nordby GmbH",
            " | Gardeners' Almanac",
        ),
        (),
        (
            "_拾光网",
            " - 山野周刊",
            "-青禾百科",
            " ¦ 老周的博客",
            "_手机网易版",
            " - 第三小学官网",
            "——《北岸》杂志",
            "_爱问答",
        ),
    ),
    "figure_number": (
        (
            "Figure <d1>: ",
            "Fig. <d1>. ",
            "Fig <d1>.<d1> – ",
            "Figure <d1>.<d1>. ",
            "Plate <d1>: ",
            "Photo <d1>. ",
            "Image <d1> of <two>: ",
            "Slide <two>: ",
        ),
        (" (Figure <d1>)", " [Fig. <d1>]"),
        ("图<d1>：", "图<d1> ", "图<d1>-<d1> ", "（图<d1>）", "附图<d1>：", "图片<d1>：", "▲图<d1>｜"),
        ("（图<d1>）", "（见图<d1>）"),
    ),
    "photo_credit": (
        ("Photo by <person>: ", "(c) <person> — "),
        (
            " (Photo: <person>)",
            ". Photo by <person>",
            " Photograph: <person>/The Courier",
            " (Image credit: <person>)",
            ". Credit: <person> / CC BY-SA 4.0",
            " — photo courtesy of <brand>",
            " Picture by <person>.",
            " 📷 <person>",
        ),
        ("摄影：<person> ", "（<person>/摄）"),
        (
            "（摄影：<person>）",
            " 图源：<brand>",
            "。<person> 摄",
            "（图片来源：<brand>官网）",
            " 供图：<person>",
            " 图/<person>",
            "（本报记者 <person> 摄）",
        ),
    ),
    "enlarge_remark": (
        ("Click to enlarge: ", "[Enlarge] ", "Zoom in: "),
        (
            " (click to enlarge)",
            " - click for full size",
            " [+] Enlarge",
            " (tap to zoom)",
            " – opens in new window",
            " View larger image",
        ),
        ("点击查看大图：", "【点击放大】"),
        ("（点击查看大图）", "（点击图片放大）", " 查看原图", "【大图】", "（长按保存）"),
    ),
    "counter": (
        ("<d1>/<two> ", "<d1> of <two>: ", "#<d1> "),
        (" (<d1>/<two>)", " - <d1> of <two>", " [<d1> photos]", " #<d1>", " - image <d1>", " photo <d1>"),
        ("<d1>/<two> ", "【<d1>】", "第<d1>张："),
        ("（<d1>/<two>）", "（<d1>）", " 第<d1>张，共<two>张", "-图<d1>", " 第<d1>页"),
    ),
    "file_size": (
        (),
        (
            " 1920x1080",
            " (1280 × 853, <two> KB)",
            " [JPG, 2.<d> MB]",
            " HD 4K 3840x2160",
            " - 1024x768 px",
            ".jpg",
            " 600x400.png",
        ),
        (),
        (" 1920x1080", "（1280×853，<two>KB）", ".jpg", " 4K高清 3840x2160", "_800x600.png", " 2.<d>MB"),
    ),
    "pin_head": (
        ("Pin it! ", "Save for later: ", "Repin: ", "Shop the look: ", "NEW POST: ", "Featured image: "),
        (" - pin for later!", " (via Pinterest)", ". Save this pin!", " >> read more on the blog", " ← link in bio"),
        ("收藏备用：", "【转】", "首发｜", "推荐阅读｜", "题图："),
        ("，建议收藏", "（戳链接看全文）", "，点赞收藏不迷路", " >>详情"),
    ),
    "alt_label": (
        ("Image description: ", "Alt text: ", "[ID: ", "alt=", "Image: ", "Photo: ", "Caption: ", "ALT - "),
        (),
        ("图片描述：", "配图：", "图注：", "说明：", "图片：", "【图】", "插图说明："),
        (),
    ),
    "breadcrumb": (
        (
            "Home › Gallery › ",
            "Shop / All products / ",
            "Forum » Photos » ",
            "Blog > <month> > ",
            "Archive → <year> → ",
            "Travel ¦ ",
        ),
        (),
        ("首页 > 图库 > ", "首页»资讯»", "论坛›贴图›", "博客/<year>/", "您的位置：首页-图片-"),
        (),
    ),
    "date_stamp": (
        ("<month> <d1>, <year> - ", "[<year>-0<d1>-1<d>] ", "Posted <d1> <month> <year>: ", "<d1>/<d1>/<year> "),
        (
            " - Updated <month> <year>",
            " ¦ <month> <d1>, <year>",
            " (posted on <month> <d1>, <year>)",
            " <d1> days ago",
            " · <d1>h",
        ),
        ("<year>-0<d1>-1<d> ", "发布于<year>年<d1>月1<d>日：", "[<year>.<d1>] "),
        ("（更新于<year>年<d1>月）", " <year>-0<d1>-1<d>", " <d1>天前", " 发布时间：<year>-1<d1>"),
    ),
    "copyright": (
        ("© <brand>: ", "Copyright <year> <person> - "),
        (
            " © <year> <person>",
            " (c) <brand>. All rights reserved.",
            ". © <brand> <year>",
            " Copyright <person>",
            " – do not use without permission",
            " ™ & © <brand>",
        ),
        ("©<brand> ",),
        (
            " ©<brand>",
            "，版权所有，侵权必究",
            "（未经许可不得转载）",
            " Copyright © <year> <brand>",
            " 原创，转载请注明出处",
            "（图片来源网络，侵删）",
        ),
    ),
    "hashtags": (
        (),
        (
            " #photooftheday #<year>",
            " #nature #travel",
            " #picoftheday",
            " #shoplocal #handmade",
            " #throwback #<year> #nofilter",
            " #art #instaart #daily",
        ),
        (),
        (" #随手拍 #生活", " #摄影# #<year>#", " #每日一图", "#旅行日记#", " #好物分享 #种草", " #我的<year>"),
    ),
    "price_tail": (
        ("SALE! ", "-30% ", "Only $<two>.99: "),
        (
            " - $<two>.99",
            " $<two>.00 Add to cart",
            " only £<d1>.50!",
            " from €<two>",
            " - free shipping",
            " SOLD OUT",
            ", buy online",
        ),
        ("特价！", "【包邮】", "¥<two>.9 "),
        (" ¥<two>.00", "，券后<two>元", " 包邮", " 立即购买", "（已售罄）", " 价格：<two>元", " 加入购物车"),
    ),
    "web_address": (
        ("www.pinegrove-mag.example: ",),
        (
            " www.pinegrove-mag.example",
            " - https://blog.fenwick.example/p/<d1><d><d><d>",
            " (slowkitchen.example)",
            " @greywater_studio",
            " visit nordby.example",
        ),
        ("www.shiguang.example ",),
        (
            " www.shiguang.example",
            " 微信公众号：拾光",
            "（来自 qinghe.example）",
            " @北岸杂志",
            " 详见https://m.shanye.example/<d1><d><d>",
            " QQ群：<d1><d><d><d><two>",
        ),
    ),
    "media_label": (
        ("VIDEO: ", "GALLERY - ", "WATCH: ", "In pictures: ", "PHOTOS | "),
        (" [VIDEO]", " (with video)", " – in pictures", " [Infographic]", " (photo gallery)", " | Podcast"),
        ("组图：", "视频｜", "【高清组图】", "图集："),
        ("（视频）", "（组图）", "【图集】", "（附视频）", "-高清图集"),
    ),
}

# ---------------------------------------------------------------------------------------------------------------------
# Captions that nobody should learn from, English and Chinese.

TEXT_FAULTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "camera_file_name": (
        (
            "DSC_<d><d><d><d>",
            "IMG_<year>0<d1>1<d>_1<d><d><d>0<d>",
            "P10<d><d><d><d><d>.JPG",
            "DSCF<d><d><d><d>",
            "_MG_<d><d><d><d>",
            "GOPR<d><d><d><d>",
            "Screenshot <year>-0<d1>-1<d> at 1<d>.2<d>.0<d>",
            "100_<d><d><d><d>",
            "SAM_<d><d><d><d> (2)",
            "PXL_<year>0<d1>2<d>_<d><d><d><d><d>",
        ),
        (
            "微信图片_<year>0<d1>1<d>2<d>3<d>",
            "QQ截图<year>0<d1>1<d>",
            "mmexport16<d><d><d><d><d><d><d><d><d><d>",
            "屏幕快照 <year>-0<d1>-1<d>",
            "未标题-<d1>",
            "新建图像<d1>",
            "照片 0<d><d>",
            "扫描<d><d><d><d>.jpg",
        ),
    ),
    "hash_name": (
        (
            "<h><h><h><h><h><h><h><h><h><h><h><h><h><h><h><h>",
            "v2-<h><h><h><h><h><h><h><h><h><h><h><h>_b",
            "<h><h><h><h><h><h><h><h>-4<h><h><h>-9<h><h><h>-<h><h><h><h><h><h><h><h><h><h><h><h>",
            "640?wx_fmt=jpeg",
            "<d><d><d><d><d><d><d><d><d>_n",
            "u=<d1><d><d><d><d><d><d>,<d1><d><d><d>&fm=26",
            "<h><h><h><h><h><h><h><h><h><h><h><h><h>.jpeg",
        ),
        (),
    ),
    "upload_path": (
        (
            "wp-content/uploads/<year>/0<d1>/img-<d>-300x200",
            "/images/stories/<d1>/pic<d>.gif",
            "../assets/img/<L><L><d1>@2x.png",
            "cache/<d>/thumb_<two>x<two>",
            "C:\\Users\\Admin\\Desktop\\pic<d>.bmp",
            "sites/default/files/styles/large/public/<d><d><d>",
            "media:image/<d><d><d>/full",
        ),
        (
            "/uploads/allimg/1<d>0<d1>1<d>/1-<d><d><d><d><d>.jpg",
            "D:\\网站图片\\新<d>.jpg",
            "/UploadFiles/<year>-<d1>/<d><d><d>.jpg",
            "C:\\Documents and Settings\\Administrator\\桌面\\<d>.bmp",
        ),
    ),
    "editor_default": (
        (
            "Enter image description here",
            "enter image title here",
            "Insert alt text here",
            "Image alt text",
            "alt text",
            "Add a caption",
            "Type caption for image (optional)",
            "image-placeholder-title",
            "Your image description",
            "Alternative text",
        ),
        (
            "在这里插入图片描述",
            "请输入图片描述",
            "图片描述",
            "点击添加图片说明",
            "输入图片说明（最多50字）",
            "请在此处输入标题",
            "插入图片",
            "图片alt属性",
        ),
    ),
    "bare_word": (
        (
            "image",
            "photo",
            "Picture",
            "img",
            "thumbnail",
            "Featured image",
            "banner",
            "untitled",
            "undefined",
            "null",
            "none",
            "logo2",
            "pic",
            "Image result",
            "No photo description available.",
        ),
        ("图片", "图", "配图", "插图", "封面", "缩略图", "题图", "未命名", "无标题", "照片", "素材图", "示意图"),
    ),
    "navigation": (
        (
            "Back to top",
            "« Previous Next »",
            "Skip to main content",
            "Read more",
            "Continue reading →",
            "Home About Contact Blog Shop",
            "View all posts by admin",
            "Next article",
            "Return to gallery",
            "Older Entries",
            "Menu Toggle navigation",
            "See all <two> photos",
        ),
        (
            "返回首页",
            "上一篇 下一篇",
            "查看更多",
            "阅读全文",
            "返回顶部",
            "首页 关于我们 产品中心 新闻动态 联系我们",
            "上一页 1 2 3 4 下一页",
            "相关阅读",
            "更多精彩内容",
            "点击进入专题",
        ),
    ),
    "headline_unrelated": (
        (
            "How to Refinance Your Mortgage in <year>",
            "<d1> Things You Should Never Say to Your Boss",
            "Is Your Website GDPR Compliant?",
            "Why Remote Teams Fail (and How to Fix It)",
            "Council approves budget for <year>",
            "What Your Sleep Position Says About You",
            "Terms of the new lease agreement explained",
            "<two> Passive Income Ideas That Actually Work",
            "The Ultimate Guide to Email Marketing in <year>",
            "Quarterly results beat expectations",
        ),
        (
            "<year>年个人所得税汇算清缴怎么操作？",
            "震惊！这<d1>个习惯正在毁掉你的健康",
            "关于做好<year>年度考核工作的通知",
            "月薪三千和月薪三万的差距在哪里",
            "央行宣布下调存款准备金率",
            "男人过了四十岁，一定要明白的<d1>句话",
            "如何评价最近的房价走势？",
            "公司召开<year>年度总结大会的通知",
            "孩子不爱学习怎么办？专家给出<d1>条建议",
        ),
    ),
    "keyword_list": (
        (
            "<n>, buy <n>, cheap <n>, <n> online, best <n> <year>",
            "<n> ¦ <n> price ¦ <n> near me ¦ <n> for sale",
            "<n>;background;design;beautiful;color;isolated;object;nobody;copy space",
            "nature,green,blue,outdoor,<n>,season,summer,beauty,day",
            "<n> <n> pictures <n> images free <n> wallpaper hd <n> png",
            "tags: <n>, tips, <year>, ideas, diy, best, top <two>, review",
        ),
        (
            "<s>,<s>图片,<s>价格,<s>批发,<s>厂家直销",
            "<s>批发 <s>厂家 <s>哪家好 <s>多少钱 <s>加盟",
            "<s>|<s>高清|<s>大全|<s>壁纸|<s>下载",
            "背景,设计,唯美,清新,<s>,素材,海报,广告,高清",
            "关键词：<s>、风景、摄影、<year>、推荐、攻略、排行榜",
        ),
    ),
    "cookie_notice": (
        (
            "We use cookies to improve your experience on our website.",
            "By continuing to browse you agree to our use of cookies. Accept Decline",
            "Please enable JavaScript to view this content.",
            "This content is not available in your region.",
            "You need to log in to view this image.",
            "Your browser does not support the video tag.",
        ),
        (
            "本站使用Cookie以改善您的浏览体验",
            "登录后查看更多精彩图片",
            "请先登录或注册后再查看附件",
            "您的浏览器版本过低，请升级",
            "您需要登录才可以下载或查看附件。没有帐号？注册",
            "该内容仅对会员开放",
        ),
    ),
    "rights_only": (
        (
            "© <year> <brand>. All rights reserved.",
            "Getty Images/iStockphoto",
            "Photo by <person> on Unsplash",
            "Photo: <person>",
            "Image courtesy of <brand>",
            "This file is licensed under the Creative Commons Attribution-Share Alike 4.0 International license.",
            "Reproduced with permission",
            "Credit: <person> / <brand> Picture Agency",
        ),
        (
            "图片来源于网络，侵删",
            "版权归原作者所有",
            "图/视觉中国",
            "供图：<person>",
            "©<brand> 版权所有 未经许可 不得转载",
            "摄影/<person> 编辑/<person>",
            "来源：<brand>网",
            "本文图片均来自网络",
        ),
    ),
    "question_marks": (
        (
            "?????? ??? ????",
            "??? ?? ????????? - ?????",
            "\ufffd\ufffd\ufffd\ufffd\ufffd <two>\ufffd",
            "????,<d1>??",
            "______",
            "????????(<d1>)",
        ),
        (),
    ),
    "html_code": (
        (
            '‹img class="aligncenter size-full wp-image-<d1><d><d>" src="/i/<two>.jpg" /›',
            "‹a href='/p/<two>' rel='lightbox'›‹/a›",
            "&lt;div class=&quot;thumb&quot;&gt;&lt;br /&gt;",
            'style="width:<two>%;margin:0 auto"',
            '[caption id="attachment_<d1><d><d>" align="alignnone" width="300"]',
            "‹!-- /wp:image --›",
            '[gallery ids="<d1><d>,<two>"]',
            "![](<two>.png)",
            "‹span lang=EN-US›‹o:p›&nbsp;‹/o:p›‹/span›",
        ),
        (),
    ),
    "template_variable": (
        (
            "⦃⦃ post.title ⦄⦄",
            "$⦃image.alt⦄",
            "%TITLE%",
            "[object Object]",
            "‹?php the_title(); ?›",
            "⦃#if caption⦄⦃caption⦄⦃/if⦄",
            "@Model.AltText",
            "__ALT__",
            "⦃$item.name¦default:''⦄",
            "#ALT_TEXT_<d1>#",
            "null null",
            "⦃⦃item.picture_alt⦄⦄ <d1>",
        ),
        ("⦃⦃ 文章标题 ⦄⦄", "[field:title/]", "⦃dede:field.title/⦄", "$标题$", "⦃⦃商品名称⦄⦄", "⦃图片说明⦄"),
    ),
    "social_button": (
        (
            "Share on Facebook",
            "Follow us on Instagram",
            "Tweet this",
            "Pin It",
            "Subscribe to our newsletter and get 20% off",
            "Like 0 Share 0 Tweet",
            "Email this to a friend",
            "Add to favourites",
            "Join <two>,000 readers",
            "Print Friendly, PDF & Email",
            "Download our free app",
        ),
        (
            "分享到微信朋友圈",
            "扫码关注公众号，回复“资料”免费领取",
            "点赞 收藏 转发",
            "关注我们",
            "长按识别二维码",
            "加客服微信进群",
            "分享到：新浪微博 QQ空间",
            "扫一扫，手机浏览",
            "下载APP，阅读更多",
            "赞赏支持",
        ),
    ),
    "avatar_label": (
        (
            "Avatar of user_<d1><d><d><d>",
            "<person>'s profile picture",
            "Author photo",
            "Gravatar for anonymous",
            "Member since <year>, <two> posts",
            "Posted by guest<d1><d>",
            "admin",
            "View <person>'s profile",
        ),
        (
            "<person>的头像",
            "用户头像",
            "作者：<person>",
            "楼主 发表于<year>-<d1>-1<d>",
            "匿名用户",
            "LV<d1> 中级会员",
            "关注 <person> 粉丝<two>",
        ),
    ),
    "lorem_ipsum": (
        (
            "Lorem ipsum dolor sit amet, consectetur adipiscing elit",
            "Sed ut perspiciatis unde omnis iste natus error",
            "Sample caption text goes here",
            "Duis aute irure dolor in reprehenderit in voluptate <d1>",
            "Dummy text <two>",
            "Test test test",
            "asdf asdf",
            "Title <d1> Subtitle Lorem Ipsum",
        ),
        (
            "此处为示例文字",
            "测试测试<d1>",
            "标题文字标题文字标题文字",
            "文字描述文字描述",
            "这里是一段占位文字，请替换",
            "啊啊啊啊啊啊测试",
        ),
    ),
    "said_thrice": (
        ("<n> <n> <n> <n> <n>", "<s> <s> <s>", "<n>-<n>-<n>-<n>", "<Title> <Title> <Title> <Title>"),
        ("<s><s><s><s>", "<s> <s> <s> <s>", "<s>,<s>,<s>,<s>"),
    ),
    "exif_only": (
        (
            "f/2.8 1/<two>0 s ISO 400 50 mm",
            "Canon EOS <d1>D, 24-70mm, f/<d1>.<d>",
            "ISO <d1>00, 1/<two>0, f<d1>.<d>",
            "NIKON D<d1>00 • 18-55mm • 1/<two>",
            "<year>:0<d1>:1<d> 1<d>:<two>:0<d>",
            "4<d>°<two>'N <d1>°<two>'E",
            "Exposure 1/<two>0 Aperture <d1>.<d>",
        ),
        (
            "光圈f/<d1>.<d> 快门1/<two>0 感光度400",
            "佳能EOS <d1>D 焦距50mm",
            "拍摄参数：f<d1>.<d>，1/<two>0秒，ISO <d1>00",
        ),
    ),
    "number_or_date": (
        (
            "<d1>",
            "<two> of <d1><d><d>",
            "<d1>/<d1><d>/<year>",
            "<month> <year>",
            "No. <d1><d><d>",
            "#<d1><d><d><d>",
            "(<d1>)",
            "0<d1>",
            "<d1><d>%",
            "page <two>",
            "<L><d1>",
            "<weekday>, <month> <d1>",
        ),
        (
            "<year>年<d1>月",
            "<d1>、",
            "第<two>期",
            "编号<d1><d><d><d>",
            "（<d1>）",
            "<year>-0<d1>-1<d>",
            "<d1><d>元",
            "第<d1>页",
        ),
    ),
    "pointing": (
        (
            "see above",
            "as shown below",
            "(left)",
            "before / after",
            "Click here",
            "See text for details",
            "example",
            "Result:",
            "like this",
            "the same as above",
            "Above: (from left to right)",
            "this one",
        ),
        (
            "如下图所示",
            "见上图",
            "如图",
            "效果图如下：",
            "前后对比",
            "上图为改造前，下图为改造后",
            "左图",
            "同上",
            "看图",
            "结果如下：",
        ),
    ),
    "chatter": (
        (
            "LOL so true!!! 😂😂😂",
            "omg I can't even",
            "thx for sharing!!!1",
            "first!",
            "+1",
            "bump",
            "Love this!! Where did you get it?",
            "This is why I follow you ❤❤",
            "who else is watching in <year>?",
            "Great post, very informative, please visit my blog",
            "WOW!!!!!",
            "^^^ this",
        ),
        (
            "沙发！",
            "顶楼主，好人一生平安",
            "哈哈哈哈哈哈哈哈",
            "前排围观",
            "太真实了😂😂😂",
            "路过，帮顶",
            "求链接！",
            "6666666",
            "楼主辛苦了，感谢分享",
            "转发微博",
            "已收藏，谢谢",
            "有没有一起的姐妹",
        ),
    ),
    "address_block": (
        (
            "Tel. 0<d1><d> <d1><d><d> <d><d><d><d> Fax 0<d1><d> <d1><d><d> <d><d><d>",
            "<two> Mill Lane, <town> ¦ Mon-Fri 9-5 ¦ info@nordby.example",
            "Opening hours: Tue–Sun 10–17",
            "Contact us today for a free quote!",
            "Call now 0800 <d1><d><d> <d><d><d>",
            "ISO 9001:20<two> certified company, est. <old_year>",
        ),
        (
            "电话：0<d1><d>-<d1><d><d><d><d><d><d><d>",
            "地址：<town>市工业路<two>号 邮编<d1><d><d>000",
            "咨询热线：400-<d1><d><d>-<d><d><d><d>",
            "QQ：<d1><d><d><d><d><d><d>",
            "营业时间9:00-21:00",
            "京ICP备<d1><d><d><d><d><d><d>号-1",
        ),
    ),
}

# Captions of pictures without content that sites give them, English and Chinese; others have those of photographs.
CAPTIONS_OF_NO_CONTENT: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "default_avatar": (
        ("<person>, editor", "<person> from <town>", "Our guest author <person>", "<person> joined in <month> <year>"),
        ("<person>，本站编辑", "专栏作者<person>", "来自<town>的<person>"),
    ),
    "qr_code": (
        ("Scan to open the <brand> shop on your phone", "Code for the audio guide, <town> museum"),
        ("<brand>公众号二维码", "扫描进入<town>导览页面", "<person>的微信名片"),
    ),
    "star_rating": (
        ("Reader rating of the <brand> <model>", "Average rating by <two> guests in <town>"),
        ("<brand> <model>用户评分", "<two>位读者的平均评分"),
    ),
    "text_page": (
        (
            "Page <two> of the <brand> annual report <year>",
            "Letter from <person>, <month> <year>",
            "Scan of the rental agreement, page <d1>",
            "Programme of the conference in <town>",
        ),
        ("<brand><year>年度报告第<two>页", "<person>来信，<year>年<month>", "<town>会议议程", "合同扫描件第<d1>页"),
    ),
    "spreadsheet": (
        (
            "Monthly totals in the <brand> spreadsheet",
            "Table <d1> with results of <month> <year>",
            "Screenshot of the price list, <year>",
        ),
        ("<year>年<month>统计表截图", "<brand>报价单", "表<d1>：各组结果"),
    ),
    "code_screenshot": (
        (
            "Terminal output on the <brand> <model>",
            "Error after updating in <month> <year>",
            "Listing <d1> of the tutorial by <person>",
        ),
        ("运行结果截图（<year>年）", "<person>教程的代码清单<d1>", "升级后出现的错误"),
    ),
    "banner": (
        ("<Brand> <season> sale", "Summer offers by <brand>", "Advertisement of <brand>, <town>"),
        ("<brand><season>促销", "<brand>广告横幅", "<town><brand>旗舰店活动"),
    ),
    "button": (
        ("Order button of the <brand> shop", "Button to the forum of <town>", "<brand> member login"),
        ("<brand>登录按钮", "进入<town>论坛", "在线报名入口"),
    ),
    "captcha": (
        ("Security code of the <town> forum", "Type the letters to post in <month>"),
        ("<town>论坛验证码", "看不清？换一张"),
    ),
    "title_card": (
        ("Weekly update by <person>, <month> <year>", "<brand> newsletter for <season>", "Talk by <person> in <town>"),
        ("<person>周报，<year>年<month>", "<brand><season>通讯", "<person>在<town>的讲座"),
    ),
}

DISTRICTS = (
    "Aldern",
    "Brann",
    "Corvale",
    "Dunmere",
    "Estrow",
    "Falk Valley",
    "Gorsey",
    "Hallin",
    "Istrad",
    "Jorva",
    "Kelland",
    "Lower Tamm",
    "Morvik",
    "Nessa",
    "Ostrava Hills",
    "Pellworth",
    "Quenby",
    "Rosalta",
    "Sorne",
    "Tarrow",
    "Upper Vale",
    "Wexmoor",
    "Yarrow",
    "Zellin",
)
DISTRICTS_ZH = (
    "安阳镇",
    "白沙县",
    "柏林沟",
    "长岭区",
    "大河乡",
    "东川",
    "丰泽",
    "古浪",
    "海丰",
    "华林",
    "金溪",
    "兰亭",
    "临江",
    "龙泉",
    "明水",
    "南湾",
    "青石",
    "曲江",
    "三都",
    "松溪",
    "桐城",
    "万福",
    "西塘",
    "雨山",
)
MASTHEADS = ("TERRA", "FERNWEH", "Outlook", "GARDEN", "NORDLICHT", "Meridian", "THE KETTLE", "Horizons", "FIELD & LAKE")
ICON_SETS = ("Grove", "Paper", "Candy", "Mono", "Harbor", "Pebble", "Origami")
FLAG_COLOURS = {
    "red": ("红", (200, 30, 45)),
    "white": ("白", (250, 250, 250)),
    "blue": ("蓝", (25, 60, 140)),
    "green": ("绿", (20, 125, 60)),
    "yellow": ("黄", (250, 205, 40)),
    "black": ("黑", (20, 20, 20)),
}
CHART_UNITS = (
    ("harvest", "产量"),
    ("sales", "销量"),
    ("visitors", "参观人数"),
    ("exports", "出口量"),
    ("births", "出生人数"),
)
CURVES = (
    ("Water level", "水位"),
    ("Temperature", "气温"),
    ("Share price", "股价"),
    ("Air pressure", "气压"),
    ("Bird count", "鸟类数量"),
)
PIES = (
    ("ways to work", "通勤方式", ("Bus", "Train", "Car", "Bicycle")),
    ("sources of energy", "能源来源", ("Oil", "Gas", "Wind", "Solar", "Coal")),
    ("blood groups", "血型", ("A", "B", "AB", "0")),
    ("land use", "土地利用", ("Forest", "Fields", "Roads", "Houses")),
)
