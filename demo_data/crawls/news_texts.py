"""The words of a made news site: what its pictures show, how captions are put, and what else stands in their place."""

# ruff: noqa: E501  (lists of words, which read better in long lines)

import calendar
from typing import NamedTuple


class Beat(NamedTuple):
    """A desk of the newsroom: the drawings it illustrates its articles with, and what those articles say."""

    section_zh: str
    section_en: str
    nouns: tuple[str, ...]
    contexts_zh: tuple[str, ...]
    contexts_en: tuple[str, ...]


# Nouns are the English names of drawings; their Chinese names come with the drawings.
BEATS = {
    "wildlife": Beat(
        "生态", "Environment",
        ("elephant", "giraffe", "polar bear", "penguin", "owl", "eagle", "dolphin", "whale", "shark", "turtle", "tiger", "leopard", "zebra", "kangaroo", "otter", "seal", "flamingo", "peacock",
         "parrot", "hedgehog", "deer", "rhinoceros", "gorilla", "orangutan", "sloth", "crocodile", "bison", "octopus", "jellyfish", "butterfly", "honeybee", "mosquito", "swan", "dove", "two-hump camel", "hippopotamus"),
        ("科研人员连续三年监测其种群数量", "当地已将每年三月定为野生动物保护月", "专家提醒公众不要投喂", "这一物种被列入保护名录"),
        ("conservationists say numbers have recovered since 2015", "a new survey counts the population every spring", "visitors are asked to keep their distance", "the species is listed as vulnerable")),
    "transport": Beat(
        "交通", "Transport",
        ("bullet train", "high-speed train", "bus", "taxi", "bicycle", "tram", "metro", "airplane", "helicopter", "ambulance", "fire engine", "police car", "ferry", "passenger ship", "delivery truck",
         "articulated lorry", "motor scooter", "kick scooter", "racing car", "locomotive", "monorail", "trolleybus", "fuel pump", "vertical traffic light", "sailboat", "tractor", "small airplane", "speedboat"),
        ("新线路计划于年底前投入运营", "早晚高峰班次将加密", "相关部门公布了新的票价方案", "春运期间预计客流同比增长12%"),
        ("services will run every 10 minutes from June", "ticket prices rise by 3.5% next month", "the operator apologised for delays", "new rules take effect on 1 January")),
    "science": Beat(
        "科技", "Science & Tech",
        ("rocket", "satellite", "telescope", "microscope", "test tube", "petri dish", "laptop", "mobile phone", "battery", "light bulb", "magnet", "desktop computer", "printer", "keyboard", "floppy disk", "optical disk",
         "satellite antenna", "comet", "ringed planet", "mechanical arm", "dna", "joystick", "T-Rex", "mammoth", "radio", "television"),
        ("研究成果发表在最新一期学术期刊上", "该项目历时五年，耗资2.3亿元", "工程师正在进行最后测试", "团队计划明年开展第二阶段试验"),
        ("the findings were published on Tuesday", "engineers ran a final test last week", "the project took five years", "the team hopes for a first trial in 2026")),
    "health": Beat(
        "健康", "Health",
        ("syringe", "pill", "thermometer", "tooth", "toothbrush", "brain", "lungs", "adhesive bandage", "x-ray", "crutch", "hospital", "soap", "running shoe", "bed", "eye", "ear with hearing aid", "glasses", "cigarette", "manual wheelchair"),
        ("医生建议每年体检一次", "流感季节门诊量上升", "新规下月起施行", "报销比例提高到70%"),
        ("doctors advise an annual check-up", "clinics report a busy flu season", "a trial with 1,200 patients is under way", "the guidance was last updated in 2019")),
    "food": Beat(
        "美食", "Food",
        ("dumpling", "steaming bowl", "watermelon", "strawberry", "mango", "pineapple", "grapes", "bread", "cheese wedge", "egg", "tomato", "potato", "garlic", "hot pepper", "mushroom", "shrimp", "lobster", "oyster",
         "pizza", "hamburger", "sushi", "chocolate bar", "ice cream", "birthday cake", "bubble tea", "hot beverage", "teapot", "wine glass", "ear of corn", "peanuts", "chestnut", "tangerine", "roasted sweet potato", "pretzel"),
        ("今年价格比去年同期下降一成", "当地美食节吸引游客3万人次", "市场监管部门抽检合格率98.6%", "中秋前后迎来销售旺季"),
        ("prices fell 8% after a good harvest", "the festival drew 30,000 visitors", "inspectors took samples in 40 shops", "exports are expected to double")),
    "sport": Beat(
        "体育", "Sport",
        ("soccer ball", "basketball", "volleyball", "tennis", "badminton", "ping pong", "baseball", "rugby football", "ice hockey", "skis", "ice skate", "curling stone", "boxing glove", "trophy", "sports medal", "1st place medal",
         "2nd place medal", "goal net", "stadium", "horse racing", "canoe", "bowling", "skateboard", "field hockey", "cricket game", "chess pawn", "bullseye", "flying disc"),
        ("主队以3比1取胜", "决赛将于周日19时35分开始", "球迷通宵排队购票", "她在第58分钟打入制胜一球"),
        ("the hosts won 3-1", "the final kicks off at 7:35 p.m. on Sunday", "fans queued overnight for tickets", "it was her third title in four years")),
    "economy": Beat(
        "财经", "Business",
        ("money bag", "coin", "credit card", "bank", "factory", "package", "shopping cart", "department store", "convenience store", "oil drum", "gem stone", "receipt", "abacus", "calendar", "briefcase", "office building",
         "building construction", "dollar banknote", "euro banknote", "yen banknote", "newspaper", "key", "houses"),
        ("上半年同比增长5.2%", "企业订单已排到明年三月", "油价将迎来年内第六次调整", "商户表示节前客流明显回升"),
        ("orders are up 5.2% on last year", "the central bank meets on Thursday", "analysts expect another quiet quarter", "shops hope for a strong December")),
    "culture": Beat(
        "文化", "Culture",
        ("artist palette", "movie camera", "clapper board", "framed picture", "books", "open book", "red paper lantern", "firecracker", "fireworks", "kite", "long drum", "performing arts", "circus tent", "ferris wheel", "carousel horse",
         "castle", "classical building", "church", "mosque", "scroll", "camera", "video game", "red envelope", "cherry blossom", "lotus", "sunflower", "tulip", "nesting dolls", "teddy bear"),
        ("展览持续到5月底，免费开放", "首演当晚座无虚席", "这项技艺已传承五代", "主办方预计接待观众20万人次"),
        ("the show runs until the end of May", "admission is free on weekdays", "the craft goes back five generations", "organisers expect 200,000 visitors")),
    "weather": Beat(
        "天气", "Weather",
        ("umbrella with rain drops", "snowflake", "tornado", "cyclone", "cloud with lightning", "cloud with rain", "cloud with snow", "sun", "sun behind large cloud", "rainbow", "fog", "volcano", "water wave", "fire", "beach with umbrella",
         "maple leaf", "desert", "evergreen tree", "cactus", "snow-capped mountain", "sunrise over mountains"),
        ("气象台发布黄色预警", "预计周末气温下降8摄氏度", "部分航班取消", "降水将持续到周三"),
        ("forecasters issued a yellow warning", "temperatures may drop by 8C at the weekend", "some flights were cancelled", "the rain should last until Wednesday")),
    "society": Beat(
        "社会", "Society",
        ("school", "backpack", "graduation cap", "ballot box with ballot", "postbox", "police car light", "fire extinguisher", "toolbox", "hammer", "ladder", "safety vest", "bell", "wastebasket", "telephone", "envelope", "locked", "hourglass done",
         "scissors", "wrench", "dog", "cat", "baby bottle", "ring", "wrapped gift", "playground slide", "bus stop"),
        ("社区志愿者参与了活动", "居民热线已接到200多个来电", "活动将持续一周", "学校表示会尽快整改"),
        ("residents have called the hotline 200 times", "volunteers joined in from nearby streets", "the council will vote on Monday", "schools reopen on 2 September")),
}  # fmt: skip

# People that portraits show, by the English names of their drawings.
PEOPLE = {
    "teacher": ("教师", "teacher"), "farmer": ("农民", "farmer"), "firefighter": ("消防员", "firefighter"), "scientist": ("科学家", "scientist"), "cook": ("厨师", "cook"), "pilot": ("飞行员", "pilot"),
    "judge": ("法官", "judge"), "singer": ("歌手", "singer"), "artist": ("画家", "painter"), "mechanic": ("技工", "mechanic"), "police officer": ("警察", "police officer"), "health worker": ("医护人员", "health worker"),
    "student": ("学生", "student"), "astronaut": ("航天员", "astronaut"), "factory worker": ("工人", "factory worker"), "office worker": ("公司职员", "office worker"), "technologist": ("程序员", "software engineer"),
}  # fmt: skip

# Chinese names of drawings that a newspaper would not use.
NOUNS_ZH = {
    "bullet train": "子弹头列车", "high-speed train": "高铁列车", "hot beverage": "热咖啡", "steaming bowl": "汤面", "houses": "住宅楼", "fog": "雾天", "framed picture": "油画", "T-Rex": "霸王龙复原图", "mammoth": "猛犸象",
    "sun behind large cloud": "多云天气", "sun": "太阳", "cloud with rain": "降雨", "cloud with snow": "降雪", "cloud with lightning": "雷电", "umbrella with rain drops": "雨中的伞", "beach with umbrella": "海滩遮阳伞", "police car light": "警灯",
    "tram": "有轨电车", "tennis": "网球拍和网球", "ping pong": "乒乓球拍", "ice skate": "冰鞋", "badminton": "羽毛球拍", "performing arts": "戏剧面具", "money bag": "钱袋", "dna": "DNA双螺旋", "whale": "鲸", "seal": "海豹", "eye": "人眼", "locked": "挂锁",
    "bullseye": "飞镖靶", "horse racing": "赛马", "cricket game": "板球球棒", "goal net": "球门", "desktop computer": "台式电脑", "ear of corn": "玉米", "cheese wedge": "奶酪", "hot pepper": "辣椒", "turtle": "海龟", "glasses": "眼镜", "chess pawn": "国际象棋棋子",
    "tooth": "牙齿", "ice hockey": "冰球", "bowling": "保龄球", "cyclone": "台风", "video game": "游戏手柄", "castle": "城堡", "fuel pump": "加油机", "envelope": "信封", "vertical traffic light": "红绿灯", "1st place medal": "金牌", "package": "快递包裹",
}  # fmt: skip
NOUNS_EN = {
    "bullet train": "bullet train", "hot beverage": "cup of coffee", "steaming bowl": "bowl of noodles", "T-Rex": "T. rex", "1st place medal": "gold medal", "2nd place medal": "silver medal", "tennis": "tennis racket", "ping pong": "table tennis bat",
    "ice skate": "pair of ice skates", "badminton": "badminton racket", "performing arts": "pair of theatre masks", "sun behind large cloud": "cloudy sky", "cloud with rain": "rain cloud", "cloud with snow": "snow cloud", "cloud with lightning": "thunder cloud",
    "umbrella with rain drops": "umbrella in the rain", "beach with umbrella": "beach umbrella", "police car light": "police light", "locked": "padlock", "dna": "DNA strand", "ice hockey": "ice hockey stick", "bowling": "bowling ball and pins", "cyclone": "cyclone",
    "cricket game": "cricket bat", "horse racing": "racehorse and jockey", "vertical traffic light": "set of traffic lights", "hourglass done": "hourglass", "ear of corn": "ear of corn", "cheese wedge": "piece of cheese", "books": "stack of books", "tulip": "tulip",
    "houses": "row of houses", "grapes": "bunch of grapes", "fireworks": "firework display", "skis": "pair of skis", "lungs": "pair of lungs", "glasses": "pair of glasses", "scissors": "pair of scissors", "peanuts": "handful of peanuts", "fire": "fire",
    "soap": "bar of soap", "garlic": "bulb of garlic", "two-hump camel": "Bactrian camel", "field hockey": "hockey stick and ball", "nesting dolls": "set of nesting dolls", "two hump camel": "camel", "bread": "loaf of bread", "fog": "bank of fog", "building construction": "construction site", "euro banknote": "wad of euro notes", "water wave": "breaking wave",
}  # fmt: skip

# What a photograph shows in Chinese, and what sort of place it is, by words of its English name; the first that matches.
SCENES = (
    ("astronaut", "身穿橙色航天服的航天员", "city"), ("rocket on", "夜色中发射台上的火箭", "coast"), ("nebula", "橙色星云", "sky"), ("moon surface", "灰色的月球表面", "sky"), ("star trails", "山丘上空的星轨", "sky"), ("satellite", "海岸上空的卫星", "sky"),
    ("lights of the earth", "夜间的地球灯光", "sky"), ("radio telescope", "射电望远镜", "sky"), ("colosseum", "罗马斗兽场", "rome"), ("chinese pavilion", "湖畔的中式亭子", "china"), ("lantern", "夜晚的白色灯笼", "city"),
    ("tea gardens", "薄雾中的绿色茶园", "china"), ("castle", "带塔楼的城堡", "europe"), ("brick houses", "老街上的砖房", "europe"), ("bridge at night", "夜间亮灯的大桥", "city"), ("bridge cables", "蓝天下的大桥拉索", "city"),
    ("city street", "夕阳下的城市街道", "city"), ("skyline", "黄昏时分的城市天际线", "city"), ("glass tower", "粉色天空下的玻璃幕墙大厦", "city"), ("courtyard", "亮着灯的螺旋形庭院", "city"), ("curved facade", "白色弧形建筑立面", "city"),
    ("concrete building", "白色混凝土建筑", "city"), ("roof tiles", "白色屋瓦", "city"), ("tower from", "仰拍的白色高塔", "city"), ("lamp with", "路灯与飞鸟", "city"), ("motorcycle", "车库里的红色摩托车", "city"),
    ("coffee", "木桌上的一杯咖啡", "city"), ("wine glass", "酒窖里的酒杯", "europe"), ("cut fig", "红盘里切开的无花果", "rural"), ("kiwi", "橙子和猕猴桃", "rural"), ("citrus", "柑橘切片", "rural"), ("plastic cups", "彩色塑料杯", "city"),
    ("paint brushes", "五颜六色的画笔", "city"), ("circuit board", "绿色电路板", "city"), ("toy shells", "玩具贝壳和布料", "city"), ("wood grain", "浅色木纹", "city"), ("butterfly wing", "帝王蝶翅膀", "rural"), ("butterfly", "树叶间的蝴蝶", "rural"),
    ("honey bee", "紫花上的蜜蜂", "rural"), ("ladybird", "蓝花上的瓢虫", "rural"), ("dragonfly", "叶片上的蜻蜓", "rural"), ("jellyfish", "蓝色海水中的水母", "coast"), ("otters", "树干上的水獭", "rural"), ("osprey", "树上的鱼鹰", "rural"),
    ("baboon", "狒狒的面部特写", "rural"), ("cat", "橘猫的面部", "city"), ("dog", "木门旁的狗", "rural"), ("bird", "岩石上的小鸟", "rural"), ("maple leaf", "飘落的枫叶", "rural"), ("palm leaf", "绿色棕榈叶", "coast"), ("fern", "绿色蕨类叶片", "rural"),
    ("dahlia", "盛开的大丽花", "rural"), ("dandelions", "晚霞中的蒲公英", "rural"), ("forget me not", "蓝色勿忘我花", "rural"), ("moss", "绿苔中的红花", "rural"), ("aloe", "芦荟", "rural"), ("potted", "墙边的盆栽草", "city"), ("petals", "黄色花瓣", "rural"),
    ("flower", "花园里的花", "rural"), ("seed", "橙色背景前的带翅种子", "rural"), ("rain drops", "绿叶上的雨滴", "rural"), ("water drop", "蓝色水面上的水滴", "rural"), ("waves", "海浪", "coast"), ("purple sea", "黄昏的紫色海面", "coast"),
    ("rowing boats", "晚霞中的划艇", "coast"), ("pier in", "灰雾中的栈桥", "coast"), ("sunset by", "栈桥边的日落", "coast"), ("pier", "水边的木栈桥", "coast"), ("sunset over", "山丘上的日落", "rural"), ("grass on", "沙丘上的野草", "coast"),
    ("dune", "沙漠里的沙丘", "desert"), ("canyon", "峡谷岩壁", "desert"), ("wooden sign", "沙漠里的木牌", "desert"), ("storm clouds", "公路上空的乌云", "rural"), ("kite", "多云天空中的风筝", "coast"), ("meadow", "秋日高山草甸", "mountains"),
    ("mountain lake", "雪峰环绕的高山湖泊", "mountains"), ("snow peak", "暮色中的雪峰", "mountains"), ("otter", "水獭", "rural"), ("lake in", "褐色山间的湖泊", "mountains"), ("lake", "夜幕下的深蓝色湖面", "mountains"), ("stone path", "山间石径", "mountains"),
    ("stream", "布满岩石的林间溪流", "mountains"), ("forest", "幽暗林中的小路", "mountains"), ("snow", "雪地里的树干", "mountains"), ("grass", "绿草", "rural"), ("mountains", "连绵的山峦", "mountains"), ("hills", "起伏的丘陵", "rural"),
)  # fmt: skip
# Made landscapes are named by their ground and sky.
GROUNDS_ZH = {"green hills": ("绿色丘陵", "rural"), "brown hills": ("褐色山丘", "rural"), "blue mountains": ("蓝色山峦", "mountains"), "snowy hills": ("积雪的山丘", "mountains"), "red dunes": ("红色沙丘", "desert")}  # fmt: skip
SKIES_ZH = {
    "blue sky": "蓝天下的",
    "pink evening sky": "粉色晚霞中的",
    "grey sky": "阴天里的",
    "golden sky": "金色天空下的",
    "night sky": "夜空下的",
}
SURFACES_ZH = {"wooden table": "木桌", "dark wood": "深色木板", "linen cloth": "亚麻布", "grey concrete": "灰色水泥墙", "green lawn": "绿色草坪", "white marble": "白色大理石", "blue water": "蓝色水面", "sand": "沙地", "blurred lights at night": "夜晚的灯光"}  # fmt: skip
# Heads of names that take no article.
PLURALS_AND_MASS = ("grass", "water", "fruit", "fabric", "moss", "waves", "sea", "wood", "grain", "sand", "marble", "concrete", "lawn")  # fmt: skip

# Places of the same sort as a photograph, in Chinese and English.
PLACES = {
    "mountains": (("四川甘孜", "Garze, southwest China's Sichuan province"), ("西藏林芝", "Nyingchi, Xizang"), ("青海玉树", "Yushu, northwest China"), ("瑞士采尔马特", "Zermatt, Switzerland"), ("奥地利因斯布鲁克", "Innsbruck, Austria"), ("尼泊尔博克拉", "Pokhara, Nepal")),
    "desert": (("甘肃敦煌", "Dunhuang, Gansu province"), ("内蒙古阿拉善", "Alxa, Inner Mongolia"), ("摩洛哥梅尔祖卡", "Merzouga, Morocco"), ("美国犹他州", "Utah, United States"), ("纳米比亚索苏斯", "Sossusvlei, Namibia")),
    "coast": (("海南三亚", "Sanya, Hainan province"), ("山东青岛", "Qingdao, Shandong province"), ("福建霞浦", "Xiapu, Fujian province"), ("葡萄牙纳扎雷", "Nazare, Portugal"), ("英国布莱顿", "Brighton, England"), ("美国佛罗里达州", "Florida, U.S.")),
    "city": (("上海浦东", "Pudong, Shanghai"), ("北京朝阳区", "Chaoyang district, Beijing"), ("重庆渝中区", "Chongqing"), ("广东深圳", "Shenzhen, Guangdong"), ("英国曼彻斯特", "Manchester"), ("美国芝加哥", "Chicago, Illinois"), ("新加坡", "Singapore"), ("日本大阪", "Osaka, Japan")),
    "europe": (("法国斯特拉斯堡", "Strasbourg, France"), ("捷克布拉格", "Prague, Czech Republic"), ("德国班贝格", "Bamberg, Germany"), ("西班牙塞哥维亚", "Segovia, Spain")),
    "china": (("浙江杭州", "Hangzhou, east China's Zhejiang province"), ("江苏苏州", "Suzhou, Jiangsu province"), ("福建武夷山", "Wuyishan, Fujian"), ("安徽黄山", "Huangshan, Anhui")),
    "rome": (("意大利罗马", "Rome, Italy"),),
    "rural": (("云南大理", "Dali, Yunnan province"), ("河南信阳", "Xinyang, Henan"), ("贵州黔东南", "Qiandongnan, Guizhou"), ("英国约克郡", "Yorkshire, northern England"), ("美国佛蒙特州", "Vermont"), ("新西兰坎特伯雷", "Canterbury, New Zealand"), ("黑龙江伊春", "Yichun, Heilongjiang")),
    "sky": (("贵州平塘", "Pingtang, Guizhou"), ("智利阿塔卡马", "the Atacama, Chile"), ("美国亚利桑那州", "Arizona"), ("青海冷湖", "Lenghu, Qinghai")),
}  # fmt: skip

SITES_ZH = (
    ("江海网", "jianghai.example.com"),
    ("北原晚报", "beiyuan.example.net"),
    ("城事新闻", "chengshi.example.org"),
    ("晨岸视频", "chenan.example.com"),
)
SITES_EN = (
    ("The Harbour Times", "harbourtimes.example.org"),
    ("Northgate News", "northgate.example.com"),
    ("Weald Gazette", "wealdgazette.example.net"),
    ("Channel 12", "channel12.example.com"),
)
AGENCIES_ZH = ("中纬社", "海东社", "北原图片社", "晨岸视觉", "视界图库")
AGENCIES_EN = ("Meridian Press", "Polaris Wire", "Atlas Images", "MPA", "NorthPix")
PHOTOGRAPHERS_ZH = ("王立伟", "陈晓", "刘佳琪", "赵一鸣", "孙浩", "周文静", "吴迪", "郑国强", "冯雨桐", "欧阳明")
PHOTOGRAPHERS_EN = (
    "Sarah Whitfield",
    "Tom Okafor",
    "J. Lindqvist",
    "Maria Reyes",
    "Chen Xiao",
    "Daniel Brook",
    "Aisha Rahman",
    "P. Novak",
)
WITNESSES = ("游客", "市民", "记者", "摄影爱好者", "当地居民")

# Captions of photographs. {date}, {place}, {scene} in the language; a date or a place belongs to a news caption.
PHOTO_ZH = (
    "{date}，在{place}拍摄的{scene}。", "这是{date}在{place}拍摄的{scene}。", "{scene}", "图为{scene}。", "{date}拍摄的{scene}（无人机照片）。", "{place}：{scene}", "{witness}在{place}拍到的{scene}。", "{place}的{scene}，摄于{year}年。",
    "{scene}。{context}。", "{date}，{place}，{scene}吸引了不少{witness}驻足拍照。", "【图片】{scene}，{place}", "{place}{weather}，图为{scene}。", "{scene}成为{place}的一道风景，{context}。", "{date}清晨，{place}的{scene}，色调以{colour}为主。",
    "镜头记录下{scene}", "{place}迎来{season}，{scene}格外醒目。", "{year}年{season}的{place}：{scene}", "一组{place}{season}照片：{scene}", "从{place}传来的图片显示，{scene}。", "{year}年{month}月{day}日{h}时{minute}分，{witness}在{place}用手机记录下{scene}，画面以{colour}为主。{context}。", "{place}{scene}随拍",
    "位于{place}的{scene}，{weather}之后更显清晰，{context}。",
)  # fmt: skip
PHOTO_EN = (
    "{Scene} in {place}, {date}.", "{Scene} seen in {place} on {date}.", "This photo taken on {date} shows {scene} in {place}.", "{Scene}", "{Scene} in {place}", "A view of {scene}, {place}", "{Scene} near {place}. {Context}.", "{SCENE}, {PLACE}",
    "{Place}: {scene} on {weekday} morning", "Pictured: {scene}", "{slug}", "Photo shows {scene}; {context}.", "{Scene}, photographed in {year}", "A reader sent us this picture of {scene} in {place}", "{Scene}, mostly {colour}, in {season}", "{Season} in {place}: {scene}",
    "Image of {scene} taken by a drone on {weekday}", "In pictures: {scene} in {place}", "{SCENE} - {place}, {year}", "{Scene}, seen here at {h}:{minute} on {date}, has drawn hundreds of visitors to {place}; {context}.", "{Place}. {Scene} in {season} light",
    "{Scene}. The image was taken in {place} on {date}, and {context}.",
)  # fmt: skip
DRAWING_ZH = (
    "插图：{noun}", "{noun}插画，{where}。", "图为{noun}的示意图", "{noun}（示意图），{context}。", "漫画：{noun}", "{where}的{noun}", "{section}|{noun}配图，{where}", "{noun}", "手绘{noun}，{context}", "一幅{noun}的插画，{where}，主色为{colour}", "图解{section}：{noun}",
    "制图中的{noun}，{where}。{context}。",
)  # fmt: skip
DRAWING_EN = (
    "Illustration of {a_noun} {where}", "{A_noun}, illustration", "{A_noun} {where}. {Context}.", "Illustration: {noun}", "Drawing of {a_noun}: {context}", "{slug}", "{A_noun} in {colour}", "A graphic shows {a_noun} {where}", "{Section}: {a_noun} {where}", "{NOUN}", "Cartoon: {a_noun}",
    "An editorial illustration with {a_noun} {where}; {context}.",
)  # fmt: skip
MONTAGE_ZH = (
    "合成图：{noun}与{scene}", "{scene}前的{noun}（合成图）", "{noun}，背景为{scene}。{context}。", "创意图片：{noun}和{scene}", "{section}专题配图：{scene}前的{noun}", "图为{scene}与{noun}的合成效果",
)  # fmt: skip
MONTAGE_EN = (
    "Photo illustration: {a_noun} in front of {scene}", "{A_noun} and {scene} (composite image)", "{A_noun} over {scene}. {Context}.", "A composite image of {a_noun} and {scene}", "{Section} special: {a_noun} before {scene}",
)  # fmt: skip
CONTEXTS_PHOTO_ZH = (
    "连日来当地气温回升",
    "今年游客人数较去年增长两成",
    "当地正在申报国家级景区",
    "预计好天气将持续到周末",
    "市民可凭身份证免费参观",
    "相关管理部门提醒游客注意安全",
)
CONTEXTS_PHOTO_EN = (
    "mild weather is expected to last into next week",
    "visitor numbers rose by a fifth this year",
    "the area reopened to the public in April",
    "officials urged visitors to take care",
    "the site is a favourite of photographers",
)
WEATHERS_ZH = ("雨后初晴", "迎来降温", "天气晴好", "出现大风天气")
SEASONS = (("春天", "spring"), ("夏日", "summer"), ("金秋", "autumn"), ("冬季", "winter"))
WHERES = {"white": ("白色背景", "on a white background"), "plain": ("{0}背景", "on a {1} background"), "disc": ("位于{0}圆形中", "in a circle of {1}"), "stripes": ("{0}条纹背景", "on {1} stripes"), "several": ("与多个相同图案并列，{0}背景", "repeated in a row on a {1} background")}  # fmt: skip

# Templates of daily columns: the caption differs in the word that counts.
COLUMNS = (
    ("今日{section}图标：{noun}", "{section} icon of the day: {noun}"),
    ("每日一图｜{noun}", "Picture quiz: {noun}"),
    ("看图识词第{n}期：{noun}", "Learning English, no. {n}: {noun}"),
    ("{section}指数周报 {noun}", "Weekly {section} index - {noun}"),
)

# Heads and tails that an editor cuts off a good caption: kind, heads, tails; {…} as in the words of a story.
ADDITIONS = (
    ("good_with_credit_tail", (), ("（{agency_zh}记者 {photographer_zh} 摄）", " {photographer_zh}/{agency_zh}", "（图源：{agency_zh}）", " 摄影：{photographer_zh}", " 图/{agency_zh}", " (Photo: {photographer_en}/{agency_en})", " {agency_en}/{photographer_en}", " Credit: {agency_en}", " (Photo by {photographer_en} / {agency_en})", " Photograph: {photographer_en}/{agency_en}")),
    ("good_with_credit_head", ("{agency_zh}记者{photographer_zh}摄：", "图/{photographer_zh} ", "[{agency_en}] ", "Photo by {photographer_en}: ", "{agency_en} - "), ()),
    ("good_with_copyright_tail", (), (" ©{agency_zh} 版权所有，未经授权不得转载", "（版权作品，请勿转载）", " © {year} {agency_en}. All rights reserved.", " Copyright {year} {site_en}. No reuse without permission.", " ©{agency_en}")),
    ("good_with_site_tail", (), ("_{site_zh}", " - {section_zh} - {site_zh}", "-{site_zh}官网", " | {site_en}", " - {site_en}", " | {section_en} | {site_en}")),
    ("good_with_file_photo_head", ("资料图：", "资料图片：", "【资料图】", "FILE PHOTO: ", "FILE - ", "File photo: "), ()),
    ("good_with_gallery_head", ("（{n}/{m}）", "高清组图{n}：", "图{n}：", "[{n}/{m}] ", "{n} of {m} - ", "Photo {n}: "), ()),
    ("good_with_address_tail", (), (" https://www.{host}/{year}/{number}.html", " 原文链接：http://{host}/a/{number}", " www.{host}", " Read more: https://{host}/{number}", " http://{host}/n1/{year}/c{number}.html")),
    ("good_with_call_tail", (), ("（点击图片查看高清大图）", " 点击进入专题>>", "，更多内容请下载{site_zh}客户端", " (Click to enlarge)", " [Read more]", " Tap to view the full gallery", " - subscribe for more")),
    ("good_with_dateline_head", ("{agency_zh}{city_zh}{month}月{day}日电 ", "本报{city_zh}讯（记者{photographer_zh}）", "{CITY}, {Month} {day} ({agency_en}) -- ", "({city_en}, {day} {Month} {year}, {agency_en}) "), ()),
    ("good_with_editor_tail", (), ("（责任编辑：{photographer_zh}）", " [编辑:{photographer_zh}]", " 编辑/{photographer_zh} 校对/{photographer2_zh}", " Edited by {photographer_en}", " (Editor: {photographer_en})")),
    ("good_with_markup_tail", (), ("&nbsp;&nbsp;", "<br/>", "</p>", "&#13;", " [/caption]")),
)  # fmt: skip

# Captions that are none. {…} as in the words of a story.
CREDITS = ("{agency_zh}记者 {photographer_zh} 摄", "{photographer_zh}/{agency_zh}", "图源：{agency_zh}", "摄影/{photographer_zh}", "图：{site_zh}", "{agency_en}/{photographer_en}", "Photo: {agency_en}", "By {photographer_en}, {site_en}", "Photograph by {photographer_en}", "{photographer_en} for {site_en}", "{agency_en} via {site_en}", "来源：{site_zh} 作者：{photographer_zh}", "Reporting by {photographer_en}; Editing by {photographer2_en}")  # fmt: skip
DATES = ("{year}年{month}月{day}日", "{year}-{month}-{day} {h}:{minute}", "{city_zh}，{month}月{day}日", "{Month} {day}, {year}", "{city_en}, {Month} {day}", "Published {h}:{minute} GMT, {day} {Month} {year}", "{year}年{month}月{day}日{h}:{minute} {site_zh}", "Updated {Month} {day}, {year} at {h}:{minute}", "发布时间：{year}/{month}/{day}", "{city_zh} {year}.{month}.{day}")  # fmt: skip
COPYRIGHTS = ("版权声明：本网所有图片未经授权不得转载、摘编", "Copyright © {year} {site_en}. All rights reserved.", "凡注明“来源：{site_zh}”的作品，版权均属{site_zh}所有", "本文系转载，如有侵权请联系删除 {number}", "This material may not be published, broadcast, rewritten or redistributed. © {agency_en} {year}", "增值电信业务经营许可证 {number} 京公网安备{number}号", "EDITORIAL USE ONLY. NO SALES. NO ARCHIVES. {agency_en} {year}", "违法和不良信息举报电话：010-{number}", "NO RESALE, NO ARCHIVE, MANDATORY CREDIT {agency_en}/{photographer_en}", "Terms of use | Privacy | © {site_en} {year}", "{site_zh}版权所有 {year} 严禁镜像")  # fmt: skip
BREADCRUMBS = ("首页 > 新闻中心 > {section_zh} > 正文", "{site_zh} >> {section_zh} >> 图片频道 >> 正文", "Home / News / {section_en}", "Home > {section_en} > {city_en} > Gallery", "您的位置：首页 - {section_zh} - 滚动新闻 - 第{n}页", "News | World | {section_en} | Opinion | Sport", "当前位置：{site_zh} > 高清图集 > {section_zh}", "{site_en} » {section_en} » Page {n}", "频道首页 | 要闻 | {section_zh} | 评论 | 视频")  # fmt: skip
URLS = ("https://www.{host}/{year}/{month}/{day}/{number}.html", "http://{host}/photo/{number}_{n}.shtml", "//i{n}.{host}/cms/upload/{number}.jpg", "https://{host}/amp/{section_slug}-{number}?utm_source=feed&utm_medium=rss", "www.{host}", "https://{host}/news/{section_slug}/{code}", "http://pic.{host}/{year}{month}{day}/c_{number}.htm")  # fmt: skip
CALLS = ("点击查看更多精彩图片", "扫描二维码下载{site_zh}客户端", "Subscribe to our newsletter for the top stories every morning", "关注{site_zh}微信公众号，第一时间看新闻", "Click here to read the full story", "Sign in or register to continue reading", "更多精彩内容，请点击专题>>", "Watch: the latest from our {section_en} team", "打开App，阅读体验更佳", "Play video", "Support {site_en} from as little as $1", "点击进入{section_zh}频道", "展开全文", "Swipe to see more photos", "Read more: {n} stories you missed in {section_en}", "转发、点赞、在看，三连支持{site_zh}", "Join the conversation in the {section_en} comments")  # fmt: skip
SERIALS = ("图{n}/{m}", "第{n}张，共{m}张", "Image {n} of {m}", "({n}/{m})", "Photo {n}", "高清图集（{n}）", "Gallery {number}-{n}", "下一张 {n}/{m}", "Slide {n} of {m}", "图片{n}", "Next gallery ({m} photos)", "组图 [{n}]", "pic{n}")  # fmt: skip
FILE_PHOTOS = ("资料图", "资料图片", "图文无关", "File photo", "FILE", "Stock image", "图片仅供参考", "Library picture", "Representational image", "Handout", "资料图，与本文内容无关", "网络配图", "Screengrab", "视频截图", "Courtesy photo", "配图来自图库", "file image", "Photo for representation only", "Archive photo {year}", "资料图（{year}年）", "图片来源：网络", "Generic picture", "示意图")  # fmt: skip
PLACEHOLDERS = ("image", "图片", "null", "undefined", "图片描述", "photo", "Alt text", "无标题", "默认图片", "lead image", "main", "article image {n}", "头图", "封面", "hero-image", "untitled", "Image caption", "缩略图", "thumb", "请输入图片说明", "Insert caption here", "TK TK TK", "caption to come", "img", "图片说明文字", "none", "test{n}", "banner", "no alt", "新建图片{n}", "[object Object]", "N/A")  # fmt: skip
FILE_NAMES = ("IMG_{number4}.JPG", "U{number}P1T1D{number4}F21DT{year}.jpg", "{year}{month}{day}{number}.jpg", "DSC_{number4}_副本.jpg", "{agency_slug}_{number}_web_hires.jpg", "c14-{number}.png", "{code}-1024x683.jpg", "微信图片_{year}{number}.jpg", "W0{year}{number}.jpg", "1200x675_cmsv2_{code}.jpg", "_{number}_hi0{number4}-1.jpg", "2-{number4} 拷贝.jpg", "{section_slug}_{n}_hires_{number}.tif", "截屏{year}-{month}-{day} {h}.{minute}.png", "XxjpbeE{number}_{year}{month}{day}.jpg")  # fmt: skip
WIRE_CODES = ("(XHTP) {number} {section_slug}", "DEW{n:0>2}-{number4}", "BJ-{year}{month}{day}-{number4}-PIC", "Slug: {section_slug}/ Ref {number} /ADDS", "REF: {code}_{year}", "SPO GEN {number4} {agency_en}", "2ND LEAD {section_slug} {number4}", "[Pool] {code}", "IPTC:{number4} CAT:{n} URG:3", "Object ID {number}", "TOPSHOTS {section_slug} {number4} RESEND", "稿件编号：{number}", "XINPIC-{year}-{number}", "EMB {year}{month}{day}", "KILL {number4} - SEE {code}")  # fmt: skip
JSON_LEFTOVERS = ('{{"type":"image","id":"{number}","src":"//img.{host}/{code}.jpg","caption":null}}', '{{"@type":"ImageObject","url":"https://{host}/{code}.jpg","width":1200,"height":675}}', '"imgInfo":[{{"w":640,"h":427,"alt":"","id":{number}}}]', "var picList=[{number},{number4}];", '{{"newsId":{number},"title":"","channel":"{section_slug}","comment":0}}', "window.__INITIAL_STATE__={{\"article\":{{\"id\":{number}}}}}", "data-src=//{host}/{code}.jpg data-w=640", "[{{\"caption\":\"\",\"credit\":\"{agency_en}\"}}]")  # fmt: skip
TEMPLATES = ("{{{{article.title}}}}", "${{news.picTitle}} - ${{site.name}}", "[caption id=\"attachment_{number4}\" align=\"aligncenter\" width=\"640\"]", "<%= image.caption %>", "%%CAPTION%%", "{{{{ img.alt|default:'' }}}}", "#title# - #channel#", "<p style=\"text-indent: 2em;\"><img src=\"{number}.jpg\"/></p>", "{{% if image.credit %}}{{{{ image.credit }}}}{{% endif %}}", "[gallery ids=\"{number4},{number},{n}\"]", "<!--enpcontent-->", "&lt;strong&gt;{site_zh}&lt;/strong&gt;", "<div class=\"pic-{n}\"></div>", "{{$T.photo_{n}.desc}}}}", "&lt;figcaption&gt;&lt;/figcaption&gt;")  # fmt: skip
CLICKBAIT = ("万万没想到！结局竟然是这样", "You won't believe what happened next", "震惊！{n}亿人都看错了", "This is why everyone is talking about it", "看完我沉默了……", "The {n} things nobody tells you", "真相来了！官方最新回应", "刚刚，重磅消息传来！", "He did it again - and fans are furious", "太突然！网友：不敢相信", "What we know so far", "这件事，{city_zh}人一定要知道", "She opened the letter and burst into tears", "原来我们都做错了，第{n}条最可怕", "Here's what it means for you", "紧急提醒！千万别再这样做了", "{m}% of readers get this wrong - can you do better?", "热搜第{n}！到底发生了什么？", "Experts stunned by what {city_en} did next", "出大事了，速看！", "速转！明天起全部改了")  # fmt: skip
HEADLINES = ("央行下调存款准备金率0.{n}个百分点", "Government to review pension rules after {m}-vote defeat", "两部门：加大对小微企业贷款支持力度", "Why the inflation debate is far from over", "评论：让规则意识成为自觉", "Opinion: trust in institutions has to be earned", "{section_zh}领域{n}项新规下月起施行", "Explainer: how the new tax credit works", "国务院常务会议部署{n}项工作", "Ministers agree to disagree over budget rules", "最高法发布{m}起典型案例", "Talks on trade deal to resume in {Month}", "一季度居民消费价格同比上涨0.{n}%", "Court upholds ruling in {year} data privacy case", "社论：以更大力度优化营商环境", "Five takeaways from the annual report of the {section_en} watchdog", "{city_zh}出台人才落户新政 条件放宽", "{city_en} council postpones vote on budget", "关于进一步规范{section_zh}行业标准的通知", "Letters: readers on loneliness and luck")  # fmt: skip
TAG_PARTS_ZH = (
    "新闻",
    "国内",
    "国际",
    "时政",
    "要闻",
    "热点",
    "快讯",
    "视频",
    "直播",
    "评论",
    "头条",
    "滚动",
    "图片",
    "民生",
    "财经",
    "体育",
    "娱乐",
    "科技",
    "教育",
    "房产",
    "汽车",
    "旅游",
    "健康",
    "军事",
    "历史",
)
TAG_PARTS_EN = (
    "news",
    "breaking news",
    "world",
    "politics",
    "business",
    "latest",
    "headlines",
    "live",
    "video",
    "sport",
    "weather",
    "local news",
    "opinion",
    "economy",
    "travel",
    "health",
    "science",
    "culture",
    "today",
    "top stories",
    "uk",
    "us",
    "analysis",
    "photos",
    "trending",
)
WIDGETS = ("分享到：微信 微博 QQ空间 评论({n})", "Share this article: Facebook X Email Print", "{m}人参与 {n}条评论", "点赞({m}) 收藏 举报", "{n} min read · Listen · Save", "上一篇：无 下一篇：返回列表", "字号：大 中 小 打印本页 关闭窗口", "Most read: 1 2 3 4 5", "Comments ({m}) Sort by newest", "热门推荐 换一换", "加载更多", "Advertisement - continue reading below", "Related Topics: {section_en}, {city_en}", "用户名 密码 登录 注册 忘记密码", "返回顶部 意见反馈 {number4}", "Cookies: accept all / manage preferences", "今日要闻 24小时排行 {n}", "+ Follow {section_en} · {m}K followers", "Was this helpful? Yes No ({n})", "扫一扫 分享到朋友圈 阅读 {number4}")  # fmt: skip
OTHER_LANGUAGES = (
    "Жители {city} вышли на улицы после снегопада, сообщает {agency}", "Снимок сделан {day} числа, фото: {agency}", "Una vista de {city}, el {day} de marzo de {year}", "Los vecinos de {city} celebran la fiesta local este domingo", "مشهد عام من {city} يوم {day} مارس {year}", "صورة أرشيفية من {city}، {year}",
    "{city} 시민들이 {day}일 오후 거리를 걷고 있다", "{year}년 {day}일 {city}에서 촬영된 사진", "Des habitants de {city}, le {day} mars {year}. © {agency}", "Die Polizei in {city} sucht weiter nach Zeugen, {day}. März {year}", "{city}で{day}日撮影、関係者が明らかにした", "Warga {city} menghadiri acara pada {day} Maret {year}",
    "Người dân {city} trong ngày {day} tháng 3", "{city}'da {day} Mart günü çekilen fotoğraf", "Vista aérea de {city} em {day} de março de {year}", "Президент {agency} посетил {city} {day} марта {year} года",
)  # fmt: skip

# What stands on cards, in banners, posts and documents.
BANNERS = (
    ("{city_zh}今日{section_zh}：最新消息", "LIVE: {city_en} {section_en} update"),
    ("记者直击 {city_zh}现场", "REPORTING FROM {CITY}"),
    ("突发：{section_zh}新闻", "BREAKING NEWS: {section_en}"),
    ("专家解读{section_zh}热点", "{photographer_en} | {section_en} editor"),
)
PLACARDS = (("安静", "QUIET"), ("让路", "GIVE WAY"), ("出口", "EXIT"), ("欢迎", "WELCOME"), ("停", "STOP"), ("入口", "ENTRANCE"), ("禁止钓鱼", "NO FISHING"), ("售票处", "TICKETS"))  # fmt: skip
CARDS = ("快讯", "重磅", "刚刚发布", "官方通报", "直播预告")
CARDS_EN = ("BREAKING", "DEVELOPING", "LIVE", "EXCLUSIVE", "STATEMENT")
POSTS_ZH = (
    "今天路过{city_zh}，真的太堵了😂",
    "有没有人知道{section_zh}新规什么时候开始",
    "支持！希望早日落实",
    "转发微博",
    "这事儿得查清楚，等一个说法",
    "说得好，顶一下",
)
POSTS_EN = (
    "Stuck in {city_en} again. Great.",
    "Does anyone know when the new {section_en} rules start?",
    "We are aware of reports and will update you shortly.",
    "This needs an answer, now.",
    "So proud of everyone tonight!",
    "Thread: 1/7",
)
DOCUMENT_ZH = (
    "关于做好{section_zh}有关工作的通知",
    "各有关单位：",
    "根据上级部署，现将有关事项通知如下：",
    "一、提高认识，加强组织领导。",
    "二、明确责任，细化工作措施。",
    "三、强化监督，确保取得实效。",
    "特此通知。",
    "{year}年{month}月{day}日",
)
DOCUMENT_EN = (
    "PUBLIC STATEMENT",
    "Re: {section_en} review, {year}",
    "We refer to the reports published this week.",
    "The matter is being considered by the board.",
    "No further comment will be made until then.",
    "A summary of findings will follow.",
    "Signed on behalf of the committee",
    "{city_en}, {day} {Month} {year}",
)
MONTHS = tuple(calendar.month_name)[1:]
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
