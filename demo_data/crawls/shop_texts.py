"""The words of a made shop: its goods, how titles, reviews and alt texts are put, and what else stands in their place."""

# ruff: noqa: E501  (lists of words, which read better in long lines)

from typing import NamedTuple


class Category(NamedTuple):
    """Goods that are described alike: English names of drawings with the Chinese name a shop gives, and attributes."""

    goods: dict[str, str]
    features_zh: tuple[str, ...]
    features_en: tuple[str, ...]
    uses_zh: tuple[str, ...]
    uses_en: tuple[str, ...]
    specs: tuple[str, ...]
    path_zh: str
    path_en: str


CATEGORIES = {
    "clothing": Category(
        {"t-shirt": "圆领短袖T恤", "dress": "连衣裙", "jeans": "直筒牛仔裤", "coat": "中长款外套", "kimono": "日式和服浴衣",
         "shorts": "运动短裤", "socks": "中筒袜", "scarf": "围巾", "running shirt": "运动背心", "necktie": "领带", "bikini": "比基尼泳衣",
         "one-piece swimsuit": "连体泳衣", "billed cap": "鸭舌帽", "top hat": "礼帽", "lab coat": "白大褂", "safety vest": "反光背心", "sari": "纱丽"},
        ("纯棉", "亚麻", "加绒加厚", "透气速干", "宽松", "修身显瘦", "冰丝", "羊毛混纺"),
        ("cotton", "linen", "fleece-lined", "quick-dry", "loose-fit", "slim-fit", "wool-blend", "lightweight"),
        ("通勤", "户外", "居家", "学生", "情侣款", "约会"), ("women", "men", "kids", "teens", "office wear", "summer holidays"),
        ("M", "L", "XL", "2XL", "S-3XL", "165/88A"), "服饰", "Clothing"),
    "shoes": Category(
        {"running shoe": "跑步鞋", "hiking boot": "登山鞋", "flat shoe": "平底单鞋", "thong sandal": "人字拖", "roller skate": "四轮溜冰鞋",
         "ballet shoes": "芭蕾舞鞋", "ice skate": "冰刀鞋"},
        ("防滑耐磨", "轻便", "软底", "防水", "透气网面"), ("non-slip", "lightweight", "soft-sole", "waterproof", "breathable mesh"),
        ("跑步健身", "徒步", "日常上学", "练功"), ("running", "hiking", "everyday wear", "practice"), ("36码", "38码", "42码", "EU 40", "UK 7"), "鞋靴", "Shoes"),
    "bags": Category(
        {"handbag": "手提包", "backpack": "双肩书包", "briefcase": "公文包", "clutch bag": "手拿包", "purse": "零钱包", "luggage": "拉杆行李箱",
         "shopping bags": "购物袋", "basket": "收纳筐"},
        ("头层牛皮", "大容量", "防泼水", "帆布", "复古", "轻便"), ("genuine leather", "large-capacity", "water-resistant", "canvas", "vintage", "foldable"),
        ("上班", "旅行", "上学", "短途出差"), ("work", "travel", "school", "weekend trips"), ("20寸", "15.6英寸", "28L", "30x22x12cm"), "箱包", "Bags"),
    "accessories": Category(
        {"glasses": "近视眼镜", "sunglasses": "墨镜", "ring": "戒指", "gem stone": "宝石摆件", "crown": "皇冠发饰", "ribbon": "蝴蝶结发饰",
         "prayer beads": "佛珠手串", "lipstick": "口红", "lotion bottle": "润肤乳", "hair pick": "发插梳", "umbrella": "晴雨伞", "closed umbrella": "长柄雨伞",
         "goggles": "护目镜", "nazar amulet": "蓝眼睛护身符"},
        ("轻奢", "复古", "手工", "防紫外线", "简约", "925银饰风"), ("elegant", "retro", "handmade", "UV-protection", "minimalist", "gift-boxed"),
        ("送女友", "日常佩戴", "拍照", "婚礼"), ("everyday wear", "gifts", "weddings", "photo shoots"), ("均码", "16号", "50ml", "8骨", "one size"), "饰品", "Accessories"),
    "kitchen": Category(
        {"teapot": "茶壶", "kitchen knife": "菜刀", "chopsticks": "筷子", "cup with straw": "吸管杯", "wine glass": "红酒杯", "beer mug": "啤酒杯",
         "jar": "密封罐", "spoon": "勺子", "fork and knife": "刀叉套装", "fork and knife with plate": "西餐餐具", "bowl with spoon": "碗勺套装",
         "baby bottle": "婴儿奶瓶", "tumbler glass": "平底玻璃杯", "bento box": "便当盒", "pot of food": "炖锅", "takeout box": "外卖盒", "honey pot": "蜂蜜罐"},
        ("304不锈钢", "陶瓷", "高硼硅玻璃", "食品级", "竹木", "加厚"), ("stainless steel", "ceramic", "borosilicate glass", "food-grade", "bamboo", "dishwasher-safe"),
        ("家用", "办公室", "餐厅", "宿舍"), ("home", "the office", "restaurants", "camping"), ("500ml", "1.2L", "2只装", "6件套", "24cm"), "厨具", "Kitchen"),
    "food": Category(
        {"red apple": "红富士苹果", "green apple": "青苹果", "banana": "香蕉", "strawberry": "草莓", "watermelon": "西瓜", "lemon": "黄柠檬",
         "grapes": "葡萄", "pineapple": "菠萝", "mango": "芒果", "peach": "水蜜桃", "cherries": "车厘子", "kiwi fruit": "猕猴桃", "avocado": "牛油果",
         "coconut": "椰子", "tomato": "番茄", "carrot": "胡萝卜", "potato": "土豆", "onion": "洋葱", "garlic": "大蒜", "broccoli": "西兰花",
         "cheese wedge": "奶酪", "bread": "吐司面包", "croissant": "牛角包", "pretzel": "椒盐卷饼", "doughnut": "甜甜圈", "cookie": "曲奇饼干",
         "chocolate bar": "巧克力", "candy": "水果糖", "lollipop": "棒棒糖", "birthday cake": "生日蛋糕", "cupcake": "纸杯蛋糕", "sushi": "寿司",
         "bubble tea": "珍珠奶茶", "peanuts": "花生", "chestnut": "板栗", "shrimp": "鲜虾", "lobster": "龙虾", "pear": "雪梨", "tangerine": "砂糖橘"},
        ("当季新鲜", "现做", "产地直发", "无添加", "低糖", "精选"), ("fresh", "freshly made", "farm-direct", "additive-free", "low-sugar", "hand-picked"),
        ("下午茶", "早餐", "送礼", "休闲"), ("breakfast", "gifts", "snacks", "parties"), ("5斤", "500g", "2.5kg", "12枚", "1 lb", "pack of 6"), "生鲜零食", "Grocery"),
    "home": Category(
        {"chair": "椅子", "bed": "实木床", "couch and lamp": "沙发落地灯组合", "bathtub": "浴缸", "mirror": "化妆镜", "door": "室内木门", "window": "窗户",
         "candle": "香薰蜡烛", "light bulb": "LED灯泡", "bucket": "水桶", "broom": "扫帚", "sponge": "洗碗海绵", "soap": "手工皂", "toothbrush": "牙刷",
         "wastebasket": "垃圾桶", "red paper lantern": "红灯笼", "potted plant": "绿植盆栽", "framed picture": "装饰画", "hourglass done": "沙漏",
         "alarm clock": "闹钟", "bell": "铃铛", "roll of paper": "卷纸", "wind chime": "风铃"},
        ("北欧风", "新中式", "实木", "免打孔", "静音", "加厚"), ("Nordic-style", "solid wood", "no-drill", "silent", "thickened", "modern"),
        ("客厅", "卧室", "浴室", "阳台"), ("living room", "bedroom", "bathroom", "balcony"), ("60cm", "1.8m", "9W", "3只装", "120x60cm"), "家居", "Home"),
    "electronics": Category(
        {"mobile phone": "智能手机", "laptop": "笔记本电脑", "desktop computer": "台式电脑", "keyboard": "机械键盘", "computer mouse": "无线鼠标",
         "headphone": "头戴式耳机", "camera": "数码相机", "video camera": "摄像机", "television": "液晶电视", "radio": "收音机", "printer": "打印机",
         "joystick": "游戏摇杆", "video game": "游戏手柄", "flashlight": "强光手电筒", "battery": "电池", "electric plug": "电源插头", "telephone": "座机电话",
         "trackball": "轨迹球鼠标", "floppy disk": "软盘", "telescope": "天文望远镜", "microscope": "显微镜", "satellite antenna": "卫星天线"},
        ("无线", "高清", "便携", "低延迟", "长续航", "静音"), ("wireless", "HD", "portable", "low-latency", "long-life", "silent"),
        ("办公", "游戏", "学习", "家用"), ("office", "gaming", "study", "travel"), ("M330", "X200", "K8-Pro", "2.4G", "16GB", "DP-118"), "数码", "Electronics"),
    "tools": Category(
        {"hammer": "羊角锤", "wrench": "活动扳手", "screwdriver": "螺丝刀", "carpentry saw": "木工锯", "axe": "斧头", "toolbox": "工具箱", "ladder": "人字梯",
         "nut and bolt": "螺栓螺母", "magnet": "强力磁铁", "clamp": "夹钳", "key": "钥匙", "locked": "挂锁", "chains": "链条", "fire extinguisher": "灭火器",
         "straight ruler": "直尺", "scissors": "剪刀", "pick": "铁镐", "hook": "挂钩", "thermometer": "温度计"},
        ("铬钒钢", "加厚", "多功能", "防锈", "工业级"), ("chrome vanadium", "heavy-duty", "multi-purpose", "rust-proof", "professional"),
        ("家用", "木工", "汽修", "装修"), ("home repair", "woodworking", "car repair", "construction"), ("8寸", "250mm", "12件套", "M8", "1.5m"), "五金", "Tools"),
    "stationery": Category(
        {"pencil": "铅笔", "pen": "中性笔", "fountain pen": "钢笔", "crayon": "蜡笔", "paintbrush": "画笔", "artist palette": "调色盘", "notebook": "笔记本",
         "notebook with decorative cover": "精装手账本", "spiral notepad": "线圈本", "paperclip": "回形针", "pushpin": "图钉", "triangular ruler": "三角尺",
         "clipboard": "板夹", "abacus": "算盘", "green book": "绿皮书", "blue book": "蓝皮书", "calendar": "日历", "file folder": "文件夹", "graduation cap": "学士帽"},
        ("加厚", "学生专用", "简约", "烫金", "可爱"), ("thick-paper", "student", "minimalist", "gold-stamped", "cute"),
        ("办公", "绘画", "考试", "做手账"), ("office", "drawing", "school", "journaling"), ("A5", "12支", "0.5mm", "24色", "100页"), "文具", "Stationery"),
    "toys": Category(
        {"teddy bear": "泰迪熊毛绒玩具", "kite": "风筝", "balloon": "气球", "yo-yo": "悠悠球", "puzzle piece": "拼图", "game die": "骰子", "nesting dolls": "俄罗斯套娃",
         "water pistol": "水枪", "boomerang": "回旋镖", "magic wand": "魔法棒", "slot machine": "玩具老虎机", "rocket": "火箭模型", "racing car": "赛车模型",
         "locomotive": "蒸汽火车模型", "helicopter": "直升机模型", "fire engine": "消防车玩具", "tractor": "拖拉机玩具", "sailboat": "帆船模型", "T-Rex": "霸王龙玩具",
         "sauropod": "腕龙玩具", "bus": "公交车玩具", "taxi": "出租车玩具", "airplane": "飞机模型"},
        ("益智", "大号", "合金", "安全无毒", "回力"), ("educational", "large", "die-cast", "non-toxic", "pull-back"),
        ("3岁以上", "亲子互动", "生日礼物", "幼儿园"), ("ages 3+", "birthday gifts", "kindergarten", "outdoor play"), ("1:32", "30cm", "48片", "1:64"), "玩具", "Toys"),
    "plush": Category(
        {"penguin": "企鹅公仔", "elephant": "大象公仔", "tiger": "老虎公仔", "rabbit": "兔子公仔", "dolphin": "海豚公仔", "owl": "猫头鹰公仔", "frog": "青蛙公仔",
         "hedgehog": "刺猬公仔", "koala": "考拉公仔", "giraffe": "长颈鹿公仔", "zebra": "斑马公仔", "whale": "鲸鱼公仔", "octopus": "章鱼公仔", "duck": "鸭子公仔",
         "sloth": "树懒公仔", "otter": "水獭公仔", "flamingo": "火烈鸟公仔", "turtle": "海龟公仔", "kangaroo": "袋鼠公仔", "shark": "鲨鱼公仔", "polar bear": "北极熊公仔",
         "monkey": "猴子公仔", "chicken": "小鸡公仔", "raccoon": "浣熊公仔", "snail": "蜗牛公仔", "butterfly": "蝴蝶挂件", "honeybee": "蜜蜂挂件"},
        ("毛绒", "软萌", "可机洗", "迷你", "超大号"), ("plush", "soft", "machine-washable", "mini", "giant"),
        ("抱枕", "儿童节礼物", "抓娃娃机", "送女生"), ("nursery", "kids", "gifts", "claw machines"), ("25cm", "40cm", "60cm", "10 inch"), "毛绒玩具", "Plush"),
    "sports": Category(
        {"soccer ball": "足球", "basketball": "篮球", "tennis": "网球", "volleyball": "排球", "badminton": "羽毛球拍", "ping pong": "乒乓球拍",
         "boxing glove": "拳击手套", "bowling": "保龄球", "skateboard": "滑板", "skis": "滑雪板", "bicycle": "自行车", "kick scooter": "滑板车",
         "fishing pole": "钓鱼竿", "tent": "露营帐篷", "diving mask": "潜水面罩", "canoe": "独木舟", "curling stone": "冰壶", "martial arts uniform": "空手道服",
         "trophy": "奖杯", "sports medal": "奖牌", "flying disc": "飞盘", "compass": "指南针", "ring buoy": "救生圈"},
        ("专业", "比赛级", "耐磨", "初学者", "碳素"), ("professional", "match-grade", "durable", "beginner", "carbon"),
        ("训练", "比赛", "户外", "体育课"), ("training", "matches", "outdoors", "PE class"), ("5号", "7号", "700C", "3.6m", "2-3人", "size 5"), "运动户外", "Sports"),
    "garden": Category(
        {"rose": "玫瑰花", "tulip": "郁金香", "sunflower": "向日葵", "bouquet": "鲜花花束", "cactus": "仙人掌", "hibiscus": "扶桑花", "lotus": "莲花", "hyacinth": "风信子",
         "seedling": "蔬菜幼苗", "four leaf clover": "四叶草", "cherry blossom": "樱花", "evergreen tree": "松树盆景", "palm tree": "棕榈树", "mushroom": "蘑菇摆件",
         "Christmas tree": "圣诞树"},
        ("仿真", "带盆", "四季开花", "云南直发", "耐寒"), ("artificial", "potted", "ever-blooming", "hand-tied", "hardy"),
        ("阳台", "婚礼布置", "送妈妈", "庭院"), ("balcony", "wedding decor", "Mother's Day", "garden"), ("3株", "20支", "40cm高", "set of 3"), "花卉园艺", "Garden"),
}  # fmt: skip

# Prints of photographs: name in Chinese and English, what it is for, sizes.
PRINTS = (
    ("装饰画", "canvas print", "客厅沙发背景墙", "the living room", ("30x40cm", "40x60cm", "60x90cm", "12x16in")),
    ("挂画海报", "poster", "卧室床头", "bedroom walls", ("A3", "A2", "50x70cm", "24x36in")),
    ("木质拼图", "wooden jigsaw puzzle", "成人减压", "adults", ("500PCS", "1000PCS", "2000PCS")),
    ("浴帘", "shower curtain", "浴室", "the bathroom", ("180x180cm", "180x200cm", "72x72in")),
    ("摄影背景布", "photography backdrop", "直播拍照", "studio shoots", ("150x200cm", "5x7ft", "2x3m")),
    ("挂毯", "wall tapestry", "宿舍墙面", "dorm rooms", ("150x130cm", "95x73cm", "60x80in")),
    ("超大鼠标垫", "desk mat", "办公桌", "office desks", ("80x30cm", "900x400mm", "XL")),
    ("明信片", "postcard", "收藏寄语", "collectors", ("10x15cm", "A6", "4x6in")),
    ("玄关壁纸", "wall mural", "玄关走廊", "hallways", ("300x210cm", "2.8m", "400x280cm")),
    ("手机壳", "phone case", "全包防摔", "everyday use", ("6.1in", "6.7in", "Mate60", "15 Pro")),
    ("抱枕套", "cushion cover", "沙发飘窗", "sofas", ("45x45cm", "50x50cm", "18x18in")),
    ("窗帘", "curtain panel", "书房遮光", "study windows", ("140x240cm", "2x2.7m", "52x84in")),
)

# Words of the photographs' names in Chinese; the first one that a name has decides, so special words come first.
SCENES = (
    ("fern", "蕨类"), ("forget-me-not", "勿忘我花"), ("dandelion", "蒲公英"), ("dahlia", "大丽花"), ("bee", "蜜蜂采花"), ("butterfly", "蝴蝶"), ("ladybird", "瓢虫与花"),
    ("osprey", "鱼鹰"), ("otters", "水獭"), ("bird", "小鸟"), ("cat", "猫咪"), ("baboon", "狒狒"), ("dog", "狗狗"), ("jellyfish", "深海水母"), ("dragonfly", "蜻蜓"),
    ("coffee", "咖啡"), ("wine", "红酒"), ("citrus", "柑橘"), ("oranges", "水果"), ("fig", "无花果"), ("tea gardens", "绿色茶园"), ("cups", "彩色杯子"), ("brushes", "画笔"),
    ("motorcycle", "红色摩托车"), ("rocket", "火箭"), ("astronaut", "宇航员"), ("satellite", "卫星"), ("nebula", "星云"), ("moon", "月球表面"), ("earth", "地球夜景"), ("star", "星轨"),
    ("telescope", "射电望远镜"), ("circuit", "电路板"), ("kite", "天空与风筝"), ("lantern", "灯笼"), ("colosseum", "罗马斗兽场"), ("castle", "城堡"), ("pavilion", "湖边古亭"),
    ("bridge", "大桥"), ("boats", "湖边小船"), ("pier", "木栈桥"), ("courtyard", "螺旋天井"), ("skyline", "城市夜景"), ("street", "街道"), ("houses", "老街"), ("tower", "高楼"),
    ("building", "建筑"), ("facade", "白色建筑"), ("roof", "白色屋顶"), ("maple", "枫叶"), ("seed", "植物种子"), ("moss", "苔藓小花"), ("petals", "花瓣"), ("flower", "花朵"),
    ("leaves", "绿叶"), ("leaf", "棕榈叶"), ("aloe", "芦荟"), ("grass", "草地"), ("drop", "水滴"), ("wood", "木纹"), ("tree", "树干"), ("forest", "森林"), ("lights", "夜晚灯光"), ("linen", "亚麻布"), ("concrete", "水泥墙"), ("lawn", "草坪"), ("marble", "白色大理石"), ("blue water", "水面"), ("sand dunes", "沙丘"), ("canyon", "峡谷"),
    ("dune", "沙漠"), ("desert", "沙漠"), ("snowy", "雪山"), ("snow", "雪山"), ("lake", "湖泊"), ("waves", "海浪"), ("sea", "大海"), ("sunset", "日落"), ("storm", "暴风云"),
    ("meadow", "秋日山野"), ("path", "山间小路"), ("green hills", "绿色山丘"), ("brown hills", "棕色山丘"), ("blue mountains", "蓝色远山"), ("mountain", "群山"), ("hills", "山丘"), ("sand", "沙地"),
)  # fmt: skip

COLOURS = {
    "红色": "red",
    "橙色": "orange",
    "黄色": "yellow",
    "绿色": "green",
    "青色": "teal",
    "蓝色": "blue",
    "紫色": "purple",
    "粉色": "pink",
}

BRANDS_ZH = (
    "禾木",
    "青橙",
    "南屿",
    "小鹿家",
    "木言",
    "初见",
    "云栖",
    "朴物集",
    "森与",
    "拾光",
    "麦田里",
    "一山",
    "乐可儿",
    "素然堂",
    "几木",
)
BRANDS_EN = (
    "NORDVIK",
    "Lumera",
    "Oakfield",
    "TinyPeak",
    "Bravado",
    "Kestrel & Co.",
    "Homely",
    "PureLeaf",
    "Zentrax",
    "Mapleton",
    "Vivo Casa",
    "Sunhaus",
)
SHOPS_ZH = (
    "禾木旗舰店",
    "小鹿家母婴专营店",
    "青橙数码官方店",
    "义乌乐可儿百货",
    "木言家居企业店",
    "拾光手作",
    "南屿户外专卖店",
    "素然堂文具店",
)
SHOPS_EN = (
    "Lumera Official Store",
    "Kestrel & Co.",
    "TinyPeak Outlet",
    "shop1102938472",
    "Homely Direct UK",
    "Oakfield Trading",
)

# Titles, descriptions, reviews and alt texts. {where_*} says what is behind the goods in the picture.
GOOD_ZH = (
    "{brand}{feature}{noun} {use}{feature2} {spec}", "{year}新款{feature}{noun}{use}用{spec}", "{feature}{noun}，{where}，适合{use}",
    "一件{feature}的{noun}，{where}。", "{brand}{noun} {spec} {feature} {feature2} {use}", "{noun}（{feature}，{spec}）", "{where}的{noun}",
    "{noun}", "孩子很喜欢这个{noun}，{where}，{feature}的手感不错👍", "{where}的{feature}{noun}，{color}，规格{spec}，照片没有修过，看中的朋友可以放心",
    "{noun}是{color}的，{feature}{feature2}，平时{use}用", "收到啦～{noun}比图片上还好看😍 {feature}，{use}刚刚好", "给家里买的{noun}，{feature}，规格是{spec}，用了一周很满意",
    "{brand} {noun} 型号{model} {feature} {use}", "这款{noun}采用{feature}工艺，{where}拍摄，规格{spec}，{use}都合适。",
    "【{brand}】{feature}{noun} {use} {spec}", "{noun}实拍：{where}，{feature2}款", "{color}{noun} {feature} {use}{spec}",
)  # fmt: skip
GOOD_EN = (
    "{Brand} {Feature} {Noun} for {use}, {spec}", "{A} {noun} {where}", "{Noun} - {feature}, {feature2}, {spec}", "{Feature} {noun} for {use}",
    "{Brand} {model} {Noun}, {Feature}", "A {feature} {noun} photographed {where}.", "{NOUN} {FEATURE} {SPEC}", "{noun}", "{slug}", "Got this {color} {noun} last week, {feature} and exactly {spec} as listed",
    "The {noun} in {color}, seen {where}. {Feature} and {feature2}; we use it for {use} and it has held up well so far.",
    "{Color} {Noun} | {Brand} | {Spec}",
    "My new {noun} from {Brand} 😊 {feature} and just right for {use}", "{Noun} by {Brand}: {feature}, ideal for {use}. Size: {spec}.",
    "Close view of a {noun} {where}, {feature} version", "{Color} {noun}, {feature}, {spec}", "Shop the {Brand} {Noun} in {color} ({spec})",
)  # fmt: skip
PRINT_ZH = (
    "{scene}{noun} {use} {size}", "{brand} {scene}风景{noun}，{use}，尺寸{size}", "{scene}主题{noun}，整体偏{color}，{use}适用", "高清{scene}{noun}{use}{size}可定制",
    "{noun}：{scene}", "{scene}图案{noun} {size} {brand}", "{scene}{noun}，{color}调，很有氛围感✨", "老公挑的{scene}{noun}，{size}，颜色以{color}为主，贴近看细节也清楚", "摄影作品《{scene}》{noun} 编号{model}",
)  # fmt: skip
PRINT_EN = (
    "{Noun} of {scene}, {size}, for {use}", "{scene} {noun}", "{Brand} {Noun} - {Scene} - {size}", "A {noun} with a photo of {scene}, mostly {color}",
    "{Scene} | {Noun} | {Size}", "{slug}", "This {noun} shows {scene}. Made to order in {size}.", "HD photo {noun}: {scene} ({model})",
)  # fmt: skip
GOOD_JA = (
    "{noun} {spec} おしゃれ プレゼント",
    "かわいい{noun}の写真です",
    "{noun} {spec} 写真の通りです",
    "新品 {noun} 日本製 {spec}",
)
NOUNS_JA = {
    "teapot": "急須", "kimono": "着物", "umbrella": "傘", "bento box": "弁当箱", "chopsticks": "お箸", "handbag": "ハンドバッグ", "socks": "靴下", "camera": "カメラ",
    "teddy bear": "テディベア", "sushi": "寿司", "scissors": "はさみ", "pencil": "鉛筆", "backpack": "リュックサック", "glasses": "メガネ", "wind chime": "風鈴", "penguin": "ペンギンのぬいぐるみ",
}  # fmt: skip

# Names of drawings that say less than a shop would.
NOUNS_EN = {
    "badminton": "badminton racket", "tennis": "tennis ball", "bowling": "bowling ball and pins", "ping pong": "table tennis bat", "video game": "game controller",
    "hourglass done": "hourglass", "locked": "padlock", "headphone": "headphones", "magnet": "horseshoe magnet", "billed cap": "baseball cap", "purse": "coin purse",
    "thong sandal": "flip-flop", "running shirt": "running vest", "fork and knife with plate": "plate with fork and knife", "couch and lamp": "sofa and floor lamp",
    "cup with straw": "tumbler with straw", "kitchen knife": "chef's knife", "red apple": "red apple", "satellite antenna": "satellite dish", "game die": "dice",
    "T-Rex": "T-Rex figure", "sauropod": "sauropod figure", "bus": "toy bus", "taxi": "toy taxi", "tractor": "toy tractor", "fire engine": "toy fire engine", "rocket": "model rocket",
    "airplane": "model airplane", "helicopter": "model helicopter", "locomotive": "model steam train", "sailboat": "model sailboat", "racing car": "model racing car",
}  # fmt: skip

# Heads and tails that an editor cuts off a good caption: kind, head, tail.
ADDITIONS = (
    ("good_with_shop_tail", "", ("-{shop_zh}", "_{shop_zh}-淘好物", " - {shop_en}", " | {shop_en}")),
    ("good_with_address_tail", "", (" https://item.{host}/{number}.html", " www.{host}", " 购买链接：https://s.{host}/{code}", " Buy at http://www.{host}/p/{number}")),
    ("good_with_contact_tail", "", (" 加微信：{wechat}", "，批发联系 13{digits9}", " QQ:{number}", " WhatsApp +86 13{digits9}")),
    ("good_with_shipping_tail", "", (" 全国包邮 七天无理由退换", " 48小时内发货", " Free Shipping Worldwide!!", " - ships in 24 hours, 30-day returns")),
    ("good_with_hashtags_tail", "", (" #好物分享 #今日穿搭 #种草", " #开箱 #平价好物", " #shopping #sale #instagood", " #ootd #giftideas #fyp")),
    ("good_with_file_tail", "", (".jpg", "_800x800.jpg", " IMG_{number}.JPG", "-01.png")),
    ("good_with_sale_head", ("【限时秒杀】", "【买一送一】", "🔥爆款🔥", "SALE 50% OFF! ", "[HOT] ", "包邮！"), ""),
)  # fmt: skip

SALE_PHRASES = (
    "全场满{n}减{m}，手慢无！", "🔥🔥限时秒杀，最后{h}小时，抢完恢复原价", "双11狂欢价，前{n}名半价，错过等一年", "拍下立减{m}元，收藏加购送运费险", "清仓大甩卖 亏本处理 仅此一天",
    "UP TO {m}% OFF EVERYTHING! ENDS IN {h} HOURS", "Buy 2 get 1 free - limited time offer!!!", "Free shipping on all orders over ${n}. Shop now!", "直播间专享价 点击领取{m}元优惠券",
    "Hurry! Only {h} left in stock", "领券再减{m}，今晚{h}点开抢", "第二件半价！叠加满{n}减{m}",
)  # fmt: skip
CONTACTS = (
    "加微信 {wechat} 看更多款式", "厂家直销 电话：13{digits9} 微信同号", "一手货源招代理，V信{wechat}", "QQ群：{number} 进群领券", "WhatsApp: +86 13{digits9} for wholesale price",
    "Contact us: sales@{host} Tel 0579-8{digits7}", "批发请联系旺旺：{wechat} 或致电 0755-8{digits7}", "扫码加客服，备注“{number}”", "DM @{wechat} to order",
)  # fmt: skip
PLACEHOLDERS = (
    "商品标题", "请输入商品名称", "测试商品请勿拍", "新建商品({n})", "无标题", "默认标题", "暂无描述", "Untitled", "Product name here", "test product {n}", "Default Title", "No description available",
    "Lorem ipsum dolor sit amet", "补差价专用链接", "邮费补拍 {m}元", "image {n}", "主图{h}", "null", "undefined", "N/A",
)  # fmt: skip
BOILERPLATES = (
    "图片仅供参考，请以实物为准", "由于光线和显示器不同，可能存在色差，请以收到的实物为准", "本店所有商品均为实物拍摄，盗图必究", "支持七天无理由退换货，退换前请联系客服", "点击图片查看大图",
    "温馨提示：手工测量，误差1-3cm属正常现象", "Click to enlarge", "Roll over image to zoom in", "Please allow 1-3 cm deviation due to manual measurement.",
    "All rights reserved. Images are for illustration purposes only.", "Customers who viewed this item also viewed", "Actual colors may vary due to your monitor settings",
    "感谢您的光临，祝您购物愉快！", "售后问题请先联系在线客服，勿直接给差评", "Sign in to see your price", "版权所有 未经授权不得转载", "Skip to main content", "加入购物车 立即购买",
)  # fmt: skip
PRAISES = (
    "很好，下次还会来", "物流很快，卖家态度也好，五星好评！", "还没用，先给个好评", "此用户没有填写评价。", "默认好评", "质量不错，值得购买👍👍👍", "Great seller, fast delivery, A+++", "As described. Thanks!",
    "宝贝收到了，非常满意", "物超所值，已推荐给同事", "Love it!! Will buy again", "5 stars", "不错不错", "good", "快递三天就到了，包装完好", "客服小姐姐很耐心，赞", "Item arrived on time.",
)  # fmt: skip
RUSSIAN_FEATURES = ("Новый", "Женский", "Мужской", "Детский", "Портативный", "Модный", "Большой")
RUSSIAN_NOUNS = (
    "рюкзак",
    "чайник из нержавеющей стали",
    "зонт",
    "кроссовки для бега",
    "набор инструментов",
    "плюшевая игрушка",
    "настольная лампа",
    "кошелёк",
    "шарф",
)
RUSSIAN_TAILS = (
    "для дома и офиса",
    "для путешествий",
    "высокое качество",
    "2024",
    "с бесплатной доставкой",
    "подарок на день рождения",
)

STUFFING_ZH = (
    "女", "男", "2024新款", "网红", "ins风", "爆款", "学生", "韩版", "百搭", "高级感", "可爱", "小众", "少女心", "大容量", "便宜", "正品", "送礼", "生日礼物", "儿童", "实用", "创意", "家用", "抖音同款",
    "夏季", "冬季", "礼物", "批发", "厂家直销", "定制", "加厚", "复古", "潮流", "情侣", "宿舍神器", "好看", "日系",
)  # fmt: skip
STUFFING_EN = (
    "women", "men", "gift", "cheap", "2024", "new", "hot", "best", "kids", "girls", "boys", "wholesale", "fashion", "luxury", "sale", "high quality", "home", "decor", "cute", "vintage", "outdoor",
    "travel", "birthday", "christmas", "accessories", "dropshipping", "free shipping", "discount", "trending", "amazing", "top", "offer",
)  # fmt: skip

# Pages of text that stand among the pictures of a detail page, line by line.
NOTICES = (
    ("购买须知", "1. 本店默认发中通快递", "2. 尺码请参考尺码表", "3. 签收前请当面验货", "4. 偏远地区需补运费", "5. 7天无理由退换"),
    ("关于色差", "因拍摄光线不同", "图片与实物可能存在色差", "介意者慎拍", "最终解释权归本店所有", ""),
    ("洗涤说明", "水温不超过30℃", "不可漂白", "反面晾晒", "中温熨烫", "深浅色分开洗"),
)  # fmt: skip
NOTICES_EN = (
    ("BEFORE YOU BUY", "1. We ship within 48 hours", "2. Please check the size chart", "3. Manual measurement, 1-3 cm off", "4. Contact us before feedback", ""),
    ("RETURN POLICY", "30 days money back", "Item must be unused", "Buyer pays return postage", "Refund in 5-7 days", "Thank you!"),
    ("CARE GUIDE", "Wash at 30 degrees", "Do not bleach", "Line dry in shade", "Iron on low heat", ""),
)  # fmt: skip
