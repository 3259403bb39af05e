"""Words of the photo community: what photographs show, how captions are written, and what stands in place of them."""

# ruff: noqa: E501  (lists of words, which read better in long lines)

from dataclasses import dataclass


@dataclass(frozen=True)
class Genre:
    """Words that fit photographs of one genre; places and details are pairs of Chinese and English."""

    name_zh: str
    tags_zh: tuple[str, ...]
    tags_en: tuple[str, ...]
    places: tuple[tuple[str, str], ...]
    details: tuple[tuple[str, str], ...]


GENRES = {
    "mountain": Genre(
        "风光", ("风光摄影", "雪山", "徒步", "户外"), ("mountains", "landscape", "hiking", "getoutside"),
        (("四姑娘山", "Mount Siguniang"), ("川西", "western Sichuan"), ("阿尔卑斯", "the Alps"), ("喀纳斯", "Kanas"),
         ("多洛米蒂", "the Dolomites"), ("班夫", "Banff"), ("梅里", "Meili")),
        (("徒步第三天拍的", "taken on the third day of our trek"), ("在垭口等了两个小时", "after two hours of waiting at the pass"),
         ("自驾路上停车拍的", "a roadside stop on our drive"),
         ("风大得站不稳", "shot in a wind that nearly took the tripod")),
    ),
    "water": Genre(
        "风光", ("海边", "湖", "长曝光", "风光摄影"), ("seascape", "lake", "longexposure", "water"),
        (("青海湖", "Qinghai Lake"), ("大连", "Dalian"), ("涠洲岛", "Weizhou Island"), ("北海道", "Hokkaido"),
         ("爱尔兰西岸", "the west coast of Ireland"), ("霞浦", "Xiapu"), ("挪威", "Norway")),
        (("加了减光镜", "with an ND filter"), ("岸边一个人也没有", "not a soul on the shore"),
         ("鞋都打湿了", "my boots got soaked for this"), ("民宿门口就能看到", "right in front of our guesthouse")),
    ),
    "sky": Genre(
        "风光", ("天空", "火烧云", "晚霞", "云"), ("sky", "clouds", "sunset", "skyporn"),
        (("武功山", "Wugong Mountain"), ("呼伦贝尔", "Hulunbuir"), ("托斯卡纳", "Tuscany"), ("堪萨斯", "Kansas"), ("高雄", "Kaohsiung")),
        (("下班路上拍的", "seen on the way home from work"), ("没有调色", "no editing at all"),
         ("前后只有五分钟", "it lasted only five minutes"), ("手机随手拍", "just my phone")),
    ),
    "night": Genre(
        "夜景", ("夜景", "夜拍", "城市之光"), ("nightphotography", "citylights", "longexposure"),
        (("重庆", "Chongqing"), ("香港", "Hong Kong"), ("上海外滩", "the Bund, Shanghai"), ("首尔", "Seoul"), ("布拉格", "Prague")),
        (("三脚架加慢门", "tripod and a slow shutter"), ("曝光三十秒", "a thirty second exposure"),
         ("夜跑的时候拍的", "taken on a night run"), ("冷得手都僵了", "my fingers froze for it")),
    ),
    "city": Genre(
        "人文", ("街拍", "扫街", "人文摄影", "旅行"), ("street", "travel", "oldtown", "architecture"),
        (("北京", "Beijing"), ("苏州", "Suzhou"), ("里斯本", "Lisbon"), ("京都", "Kyoto"), ("罗马", "Rome"), ("台南", "Tainan")),
        (("周末扫街", "from a weekend walk"), ("旅行第一天", "first day of the trip"),
         ("路过就拍了", "could not walk past it"), ("游客不多", "hardly any tourists around")),
    ),
    "rome": Genre(
        "旅行", ("罗马", "古迹", "旅行摄影", "意大利"), ("rome", "italy", "travel", "history"), (("罗马", "Rome"),),
        (("排队一小时", "after an hour in the queue"), ("旅行第一天", "first day of the trip"), ("傍晚光线正好", "in lovely light"),
         ("走到腿断", "my feet hurt but worth it")),
    ),
    "china": Genre(
        "旅行", ("江南", "古风", "旅行摄影", "中国风"), ("china", "travel", "asia", "heritage"),
        (("杭州", "Hangzhou"), ("苏州", "Suzhou"), ("武夷山", "Wuyishan"), ("扬州", "Yangzhou")),
        (("雨停了一会儿", "during a break in the rain"), ("清明前去的", "before the spring holidays"),
         ("坐船看到的", "seen from a boat"), ("没什么游客", "hardly any tourists around")),
    ),
    "architecture": Genre(
        "建筑", ("建筑摄影", "极简", "线条"), ("architecture", "minimal", "lines", "facade"),
        (("深圳", "Shenzhen"), ("广州", "Guangzhou"), ("瓦伦西亚", "Valencia"), ("汉堡", "Hamburg"), ("东京", "Tokyo")),
        (("仰拍", "looking up"), ("喜欢这些线条", "love the lines here"),
         ("站在马路对面拍的", "from the other side of the road"), ("等云走开", "waited for the clouds to move")),
    ),
    "flower": Genre(
        "花卉", ("花卉", "微距", "植物园"), ("flowers", "macro", "garden", "botanical"),
        (("昆明植物园", "Kunming Botanical Garden"), ("奶奶家的院子", "grandma's garden"), ("奥森公园", "Olympic Forest Park"),
         ("邱园", "Kew Gardens")),
        (("刚下过雨", "just after the rain"), ("用老镜头拍的", "with an old manual lens"),
         ("蹲了半天", "after crouching for half an hour"), ("今年第一朵", "the first one this year")),
    ),
    "plant": Genre(
        "植物", ("植物", "绿色", "清新"), ("green", "plants", "leaves", "nature"),
        (("西双版纳", "Xishuangbanna"), ("杭州", "Hangzhou"), ("我家阳台", "my balcony"), ("新西兰", "New Zealand")),
        (("喜欢这个绿", "love this green"), ("逆光拍的", "shot against the light"),
         ("散步时看到的", "seen on a walk"), ("构图很随意", "a casual composition")),
    ),
    "forest": Genre(
        "风光", ("森林", "自然", "徒步"), ("forest", "woods", "nature", "trail"),
        (("神农架", "Shennongjia"), ("长白山", "Changbai Mountain"), ("黑森林", "the Black Forest"), ("俄勒冈", "Oregon")),
        (("路很难走", "the trail was rough"), ("空气特别好", "the air was wonderful"),
         ("听得见流水声", "you could hear water everywhere"), ("一个人走了一下午", "walked here alone all afternoon")),
    ),
    "desert": Genre(
        "风光", ("沙漠", "荒野", "大漠"), ("desert", "dunes", "canyon", "wilderness"),
        (("敦煌", "Dunhuang"), ("阿拉善", "Alxa"), ("撒哈拉", "the Sahara"), ("犹他州", "Utah"), ("纳米布", "the Namib")),
        (("沙子进了镜头", "sand got into my lens"), ("热得相机都烫手", "so hot the camera burned"),
         ("骑骆驼进去的", "we rode in on camels"), ("像另一个星球", "like another planet")),
    ),
    "macro": Genre(
        "微距", ("微距", "昆虫", "生态"), ("macro", "insects", "closeup", "bugs"),
        (("小区花坛", "the flower bed downstairs"), ("南昆山", "Nankun Mountain"), ("乡下", "the countryside"), ("香山", "Fragrant Hills")),
        (("百微拍的", "with a 100mm macro"), ("合成了八张", "a stack of eight frames"),
         ("它一直没飞走", "it stayed still the whole time"), ("第一次拍微距", "my first macro")),
    ),
    "animal": Genre(
        "动物", ("动物", "野生动物", "萌宠"), ("wildlife", "animals", "cute", "naturelovers"),
        (("上海动物园", "Shanghai Zoo"), ("红山动物园", "Hongshan Zoo"), ("圣迭戈", "San Diego"), ("青岛", "Qingdao")),
        (("和我对视了一眼", "looking straight at me"), ("隔着玻璃拍的", "through the glass"),
         ("长焦抓拍", "caught with a long lens"), ("跟了它一路", "followed it all morning")),
    ),
    "food": Genre(
        "美食", ("美食", "静物", "生活"), ("food", "foodporn", "stilllife", "kitchen"),
        (("成都", "Chengdu"), ("菜市场", "the market"), ("墨尔本", "Melbourne"), ("家里厨房", "my kitchen")),
        (("窗边自然光", "window light only"), ("拍完才吃", "eaten right after the shot"),
         ("早餐", "breakfast"), ("朋友店里拍的", "at a friend's place")),
    ),
    "object": Genre(
        "静物", ("静物", "生活记录", "色彩"), ("stilllife", "colors", "everyday", "details"),
        (("工作室", "the studio"), ("跳蚤市场", "a flea market"), ("旧书店", "a second-hand bookshop"), ("家里", "home")),
        (("颜色很好看", "for the colours"), ("练习布光", "practising with one light"),
         ("在家无聊拍的", "bored at home"), ("细节控", "it is all in the details")),
    ),
    "painting": Genre(
        "绘画", ("绘画", "插画", "手绘", "原创"), ("art", "illustration", "doodle", "sketchbook"),
        (("画室", "the studio"), ("成都", "Chengdu"), ("家里", "home"), ("柏林", "Berlin")),
        (("画了一下午", "it took all afternoon"), ("第一次用新纸", "first time on this paper"), ("边听播客边画", "drawn over a podcast")),
    ),
    "portrait": Genre(
        "人像", ("人像", "肖像"), ("portrait", "people"),
        (("航天中心", "the space center"), ("影棚", "the studio")),
        (("官方肖像的翻拍", "from the official portraits"), ("影棚灯光", "studio light")),
    ),
    "space": Genre(
        "星空", ("星空", "天文", "深空"), ("astrophotography", "space", "stars"),
        (("阿里暗夜公园", "Ngari dark sky park"), ("天文台", "the observatory"), ("阿塔卡马", "Atacama")),
        (("叠加了四十张", "forty frames stacked"), ("赤道仪跟踪", "tracked on an equatorial mount"),
         ("月亮下山以后", "after the moon had set"), ("后期提了一点亮度", "lifted a little in post")),
    ),
}  # fmt: skip

# A word of a photograph's name, what it shows in Chinese and English (alternatives), and its genre. First match counts.
SUBJECTS = (
    ("aloe", "一盆芦荟|芦荟的叶子", "an aloe plant|aloe leaves", "plant"),
    ("astronaut", "穿橙色航天服的宇航员|宇航员肖像", "an astronaut in an orange suit|portrait of an astronaut", "portrait"),
    ("mountain meadow", "秋天的高山草甸|山间草甸入秋", "a mountain meadow in autumn|autumn colours on an alpine meadow", "mountain"),
    ("baboon", "山魈的脸|山魈特写", "the face of a mandrill|a mandrill up close", "animal"),
    ("forget me not", "蓝色的勿忘我|勿忘我开花了", "blue forget-me-nots|forget-me-nots in bloom", "flower"),
    ("blue lit bridge", "亮着蓝灯的桥|蓝色灯光里的大桥", "a bridge lit in blue|blue lights on the bridge", "night"),
    ("brick houses", "老街的砖房|一排旧砖房", "brick houses in an old street|old brick houses", "city"),
    ("bridge at night", "夜里的桥|夜色中的大桥", "a bridge at night|the bridge after dark", "night"),
    ("bridge cables", "蓝天下的斜拉桥|大桥的钢索", "bridge cables under a blue sky|cables of the bridge", "architecture"),
    ("butterfly in", "叶丛里的蝴蝶|停在叶子上的蝴蝶", "a butterfly in the leaves|a butterfly resting on a leaf", "macro"),
    ("castle", "带塔楼的城堡|古堡", "a castle with towers|the old castle", "city"),
    ("pavilion", "湖边的亭子|水边的古亭", "a Chinese pavilion by the lake|the pavilion at the water", "china"),
    ("citrus", "切开的柑橘|一片片柑橘", "slices of citrus fruit|citrus fruit, sliced", "food"),
    ("city street", "夕阳下的街道|日落时的城市街头", "a city street at sunset|low sun over the street", "city"),
    ("paint brushes", "彩色的画笔|一把画笔", "colorful paint brushes|a bunch of paint brushes", "object"),
    ("plastic cups", "彩色塑料杯|五颜六色的杯子", "colorful plastic cups|plastic cups in many colors", "object"),
    ("coffee", "木桌上的一杯咖啡|一杯咖啡", "a cup of coffee on a wooden table|coffee on wood", "food"),
    ("cut fig", "红盘子里切开的无花果|无花果", "a cut fig on a red plate|fresh fig on red", "food"),
    ("dandelions", "傍晚的蒲公英|夕光里的蒲公英", "dandelions in evening light|backlit dandelions", "flower"),
    ("dark blue lake", "夜里深蓝色的湖|深蓝的湖面", "a dark blue lake at night|the lake in the blue hour", "water"),
    ("desert dunes", "蓝天下的沙丘|沙漠里的沙丘", "desert dunes under a blue sky|sand dunes", "desert"),
    ("dog at", "木门前的狗|守在木门口的狗", "a dog at a wooden door|the dog waiting at the door", "animal"),
    ("dragonfly", "叶子上的蜻蜓|蜻蜓", "a dragonfly on leaves|a dragonfly on a leaf", "macro"),
    ("maple leaf", "落在地上的枫叶|一片枫叶", "a fallen maple leaf|maple leaf on the ground", "plant"),
    ("forest stream", "林间溪流和石头|森林里的小溪", "a forest stream with rocks|the stream in the woods", "forest"),
    ("ginger cat", "橘猫的脸|一只橘猫", "the face of a ginger cat|a ginger cat", "animal"),
    ("glass tower", "粉色天空下的玻璃大楼|晚霞里的玻璃幕墙", "a glass tower under a pink sky|glass facade at sunset", "architecture"),
    ("grass on sand", "沙丘上的草|沙丘和野草", "grass on sand dunes|dune grass", "desert"),
    ("circuit board", "绿色电路板|电路板特写", "a green circuit board|circuit board close-up", "object"),
    ("fern", "绿色的蕨叶|蕨类植物的叶子", "green fern leaves|fern fronds", "plant"),
    ("green grass", "绿色的草|草地特写", "green grass|blades of grass", "plant"),
    ("palm leaf", "绿色的棕榈叶|棕榈叶的纹路", "a green palm leaf|lines of a palm leaf", "plant"),
    ("tea gardens", "薄雾里的茶园|雾中茶山", "green tea gardens in mist|misty tea terraces", "china"),
    ("moon surface", "灰色的月球表面|月面环形山", "the grey surface of the moon|moon craters", "space"),
    ("honey bee", "紫花上的蜜蜂|采蜜的蜜蜂", "a honey bee on a purple flower|honey bee at work", "macro"),
    ("jellyfish", "蓝色海水里的水母|水母", "jellyfish in a blue sea|jellyfish drifting", "animal"),
    ("kite", "多云天空里的风筝|放风筝", "a kite in a cloudy sky|kite flying", "sky"),
    ("ladybird", "蓝花上的瓢虫|瓢虫和蓝色小花", "a ladybird on blue flowers|ladybird among blue petals", "macro"),
    ("lake in brown", "褐色山间的湖|群山里的湖", "a lake in brown mountains|mountain lake among bare slopes", "mountain"),
    ("flying bird", "路灯和飞鸟|飞过路灯的鸟", "a lamp with a flying bird|a bird passing the lamp", "city"),
    ("butterfly wing", "帝王蝶的翅膀|蝶翅特写", "the wing of a monarch butterfly|monarch wing close-up", "macro"),
    ("mountain lake", "雪山下的湖|高山湖泊和雪峰", "a mountain lake with snow peaks|snow peaks above the lake", "mountain"),
    ("lights of the earth", "地球夜晚的灯光|太空看地球夜景", "night lights of the earth|the earth at night from orbit", "space"),
    ("ocean waves", "海浪|大海的浪花", "ocean waves|waves rolling in", "water"),
    ("orange dahlia", "橙色大丽花|一朵橙色的大丽花", "an orange dahlia flower|orange dahlia", "flower"),
    ("orange flower", "橙色花朵微距|橙色的花瓣", "an orange flower up close|orange flower macro", "flower"),
    ("nebula", "橙色星云|星云", "an orange nebula|nebula in orange", "space"),
    ("oranges", "橙子和猕猴桃|水果拼盘", "oranges and kiwi fruit|a plate of oranges and kiwi", "food"),
    ("osprey", "树上的鱼鹰|停在枝头的鱼鹰", "an osprey in a tree|osprey on a branch", "animal"),
    ("otters", "树干上的水獭|两只水獭", "otters on a tree trunk|a pair of otters", "animal"),
    ("wood grain", "浅色木纹|木头的纹理", "pale wood grain|texture of pale wood", "object"),
    ("path in a dark", "幽暗森林里的小路|林中小径", "a path in a dark forest|forest path", "forest"),
    ("pier in", "灰雾里的栈桥|雾中的码头", "a pier in grey fog|foggy pier", "water"),
    ("pink dahlia", "粉色大丽花|粉色的大丽花花瓣", "a pink dahlia flower|pink dahlia petals", "flower"),
    ("potted grass", "墙边的盆栽草|墙角一盆草", "potted grass by a wall|a pot of grass", "plant"),
    ("purple canyon", "紫色的峡谷|暮色中的峡谷", "a purple canyon|canyon in purple light", "desert"),
    ("purple sea", "黄昏的紫色大海|紫色的海", "a purple sea at dusk|the sea turning purple", "water"),
    ("radio telescope", "射电望远镜|巨大的射电天线", "a radio telescope|the dish of a radio telescope", "space"),
    ("rain drops", "绿叶上的雨滴|叶子上的水珠", "rain drops on green leaves|drops on a leaf", "plant"),
    ("garden flower", "红黄相间的花|院子里的红黄色花", "a red and yellow garden flower|red and yellow petals", "flower"),
    ("red canyon", "红色峡谷的岩壁|红岩峡谷", "red canyon walls|walls of a red canyon", "desert"),
    ("hikers", "走在红色沙丘上的人|红沙丘", "a red desert dune with hikers|red dune", "desert"),
    ("green moss", "绿苔里的红花|苔藓中的一朵红花", "a red flower in green moss|red among the moss", "flower"),
    ("motorcycle", "车库里的红色摩托车|红色摩托", "a red motorcycle in a garage|the red motorbike", "object"),
    ("rocket", "夜里发射台上的火箭|待发射的火箭", "a rocket on the launch pad at night|rocket before launch", "night"),
    ("colosseum", "罗马斗兽场|古罗马斗兽场的拱门", "the Roman Colosseum|arches of the Colosseum", "rome"),
    ("rowing boats", "晚霞里的小木船|暮光中的划艇", "rowing boats in evening glow|boats in the last light", "water"),
    ("satellite", "海岸线上空的卫星|卫星俯瞰海岸", "a satellite over the coast|satellite above the coastline", "space"),
    ("seed with", "橙色背景上的翅果|一粒带翅的种子", "a winged seed on orange|seed with wings", "macro"),
    ("skyline of", "黄昏的城市天际线|傍晚的高楼", "the skyline of a city at dusk|city skyline at dusk", "night"),
    ("small bird", "石头上的小鸟|一只小鸟", "a small bird on a rock|little bird", "animal"),
    ("snow peak", "暮色里的雪峰|黄昏的雪山", "a snow peak at dusk|snowy summit in the last light", "mountain"),
    ("spiral courtyard", "亮着灯的螺旋天井|螺旋形的庭院", "a spiral courtyard with lamps|spiral courtyard", "architecture"),
    ("star trails", "山丘上的星轨|星轨", "star trails over hills|star trails", "space"),
    ("stone path", "山里的石阶路|山间石板路", "a stone path in the mountains|stone trail", "mountain"),
    ("storm clouds", "公路上方的乌云|暴风雨前的公路", "storm clouds over a road|road under a storm", "sky"),
    ("sunset by", "码头边的落日|栈桥日落", "a sunset by the pier|pier at sunset", "water"),
    ("sunset over hills", "山丘上的落日|山头的晚霞", "a sunset over hills|hills at sunset", "sky"),
    ("toy shells", "玩具贝壳和布料|彩色布和贝壳玩具", "toy shells and fabric|shells and cloth", "object"),
    ("tree trunk", "雪地里的树干|雪中的枯树", "a tree trunk in the snow|trunk and snow", "forest"),
    ("water drop", "蓝色水面上的水滴|一滴水落下的瞬间", "a water drop on blue water|splash of a drop", "macro"),
    ("concrete building", "白色混凝土建筑|白色的水泥楼", "a white concrete building|white concrete", "architecture"),
    ("curved facade", "白色弧形外墙|曲线建筑", "a white curved facade|curves in white", "architecture"),
    ("lantern", "夜里的白灯笼|一盏白灯笼", "a white lantern at night|white lantern glowing", "night"),
    ("roof tiles", "白色的屋瓦|屋顶瓦片", "white roof tiles|rows of roof tiles", "architecture"),
    ("tower from below", "仰望白塔|从下往上看的白色塔楼", "a white tower from below|looking up at a white tower", "architecture"),
    ("wine glass", "酒窖里的红酒杯|酒窖里的一杯酒", "a wine glass in a cellar|glass of wine", "food"),
    ("wooden pier", "水边的木栈道|木码头", "a wooden pier by the water|wooden jetty", "water"),
    ("wooden sign", "荒漠里的木牌|沙漠里的路牌", "a wooden sign in the desert|sign in the desert", "desert"),
    ("yellow flower", "黄色的花瓣|黄花特写", "yellow flower petals|petals of a yellow flower", "flower"),
    ("city lights", "城市夜景，楼里亮着灯|夜晚的高楼灯火", "lit windows of a city at night|city lights after dark", "night"),
    ("starry sky", "树影上方的星空|满天繁星", "a starry sky above trees|stars over the treetops", "space"),
    ("sun over the sea", "海上落日|大海和夕阳", "the sun over the sea|sun setting into the sea", "water"),
    ("misty forest", "雾气中的树林|起雾的森林", "a misty forest|tree trunks in fog", "forest"),
    ("blurred lights", "夜里的光斑|街灯虚焦", "blurred lights at night|bokeh of street lights", "night"),
)  # fmt: skip
SKIES_ZH = {
    "blue sky": "蓝天", "pink evening sky": "粉色晚霞", "grey sky": "阴天", "golden sky": "金色天空",
    "night sky": "夜空",
}  # fmt: skip
GROUNDS_ZH = {
    "green hills": "青山", "brown hills": "褐色山丘", "blue mountains": "蓝色远山", "snowy hills": "雪山",
    "red dunes": "红色沙丘", "autumn hills": "秋天的山",
}  # fmt: skip

# Captions of photographs. What a place or a detail adds never contradicts what is seen.
PHOTO_CAPTIONS_ZH = (
    "{zh}", "{zh}", "{zh}，{place_zh}", "{place_zh}，{zh}", "{zh}，{detail_zh}", "{zh}，{detail_zh}。",
    "{detail_zh}：{zh}",
    "{place_zh}随拍：{zh}", "今天拍到的{zh}", "镜头里的{zh}", "【{genre_zh}】{zh}", "《{title_zh}》——{zh}",
    "{zh} {place_zh} {year}年{month}月",
    "翻出{year}年拍的一张：{zh}，{detail_zh}", "{place_zh}之行：{zh}，{detail_zh}", "在{place_zh}拍的，{zh}",
    "又见{zh}！", "{zh} ✨",
    "{zh}~ {detail_zh}", "我拍的{zh}，大家觉得怎么样？{detail_zh}", "{genre_zh}练习：{zh}", "{zh}（摄于{place_zh}）",
    "{zh}。{detail_zh}，构图改了好几次，最后还是选了这一张。", "一直想拍{zh}，这次在{place_zh}终于如愿", "{zh}📷",
    "喜欢{zh}的样子，{detail_zh}",
)  # fmt: skip
PHOTO_CAPTIONS_EN = (
    "{En}", "{En}", "{en}", "{En}, {place_en}", "{En}. {Detail_en}.", "{en}, {detail_en}", "{place_en}: {en}",
    "{title_en}: {en}",
    "{En} ({place_en}, {month_en} {year})", "From the archive, {year}: {en}", "{En} - {detail_en}", "{EN}", "{slug}",
    "Just {en}",
    "My shot of {en}, {detail_en}", "{En}! {Detail_en}!", "This is {en}, {detail_en}.",
    "{place_en} trip, day {day}: {en}",
    '"{title_en}" - {en}', "{En} 📷", "Nothing special, just {en}", "I finally got {en}. {Detail_en}.",
    "{En} | {place_en}",
    "Found {en} near {place_en}; {detail_en}", "{En}, as seen in {month_en} {year}",
)  # fmt: skip
TITLES = (
    ("静谧", "Stillness"), ("路过", "Passing by"), ("光与影", "Light and shadow"), ("远方", "Elsewhere"),
    ("慢时光", "Slow days"),
    ("等", "Waiting"), ("一隅", "A quiet corner"), ("不期而遇", "Unplanned"), ("回声", "Echo"),
    ("留白", "Negative space"),
)  # fmt: skip
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip

# What people of the community draw: names of drawings, and whether Chinese counts them with 只 (animals), 个 or 棵.
PAINTED = {
    "只": (
        "squid", "penguin", "rabbit", "rooster", "hedgehog", "polar bear", "gorilla", "elephant", "bison", "swan",
        "cow", "peacock",
        "baby chick", "zebra", "chipmunk", "sloth", "water buffalo", "otter", "blowfish", "hippopotamus", "raccoon",
        "beaver",
        "dolphin", "seal", "dodo", "flamingo", "turkey", "tropical fish", "rhinoceros", "dog", "mammoth", "pig",
        "cat", "owl",
        "monkey", "badger", "lady beetle", "orangutan", "llama", "tiger", "mouse", "skunk", "ant", "octopus",
        "snail", "spider",
        "honeybee", "lizard", "bat", "butterfly", "cricket", "kangaroo", "leopard", "poodle", "boar", "giraffe",
        "camel", "T-Rex",
        "horse", "donkey", "moose", "shark", "whale", "crocodile", "bird", "chicken", "duck", "dove", "goose",
        "parrot", "eagle",
        "deer", "black cat", "dragon", "lobster", "turtle", "unicorn", "fox", "frog", "crab", "bear", "lion", "wolf",
        "koala", "phoenix",
    ),
    "个": (
        "sandwich", "ice cream", "potato", "burrito", "taco", "peach", "pear", "lemon", "coconut", "tangerine",
        "hamburger", "hot dog",
        "pie", "melon", "doughnut", "birthday cake", "kiwi fruit", "red apple", "green apple", "cupcake",
        "croissant", "mango",
        "pineapple", "eggplant", "strawberry", "mushroom", "watermelon", "tomato", "avocado", "pretzel", "shortcake",
        "teapot",
        "sushi", "pizza", "candle", "balloon", "camera", "lollipop", "carrot", "broccoli", "corn", "robot",
        "snowman", "red paper lantern",
        "telescope", "crystal ball", "teddy bear", "nesting dolls", "hot beverage", "bubble tea", "guitar", "violin",
        "umbrella",
    ),
    "棵": ("cactus", "evergreen tree", "deciduous tree", "palm tree", "potted plant", "seedling", "Christmas tree", "sunflower", "tulip", "rose"),
    "辆": ("bus", "taxi", "motor scooter", "tram", "fire engine", "racing car", "bicycle", "tractor", "automobile", "delivery truck"),
}  # fmt: skip
COMPANIONS = {
    "sun": ("太阳", "a sun"), "full moon": ("满月", "a full moon"), "cloud": ("云", "a cloud"),
    "rainbow": ("彩虹", "a rainbow"),
    "star": ("星星", "a star"), "mushroom": ("蘑菇", "a mushroom"), "tulip": ("郁金香", "a tulip"),
    "evergreen tree": ("松树", "a fir"),
    "cherry blossom": ("樱花", "cherry blossom"), "sailboat": ("帆船", "a sailing boat"),
    "balloon": ("气球", "a balloon"),
    "butterfly": ("蝴蝶", "a butterfly"), "candle": ("蜡烛", "a candle"), "wrapped gift": ("礼物", "a present"),
}  # fmt: skip
STYLES = {
    "watercolour": ("水彩", "watercolour"), "pencil": ("铅笔速写", "pencil sketch"), "oil": ("油画", "oil painting"),
    "digital": ("板绘", "digital painting"), "sketchbook": ("手账", "sketchbook page"),
    "flat": ("插画", "illustration"),
}  # fmt: skip
PAINTING_CAPTIONS_ZH = (
    "{style_zh}：{zh}", "{zh}，{style_zh}", "{style_zh}练习，画了{zh}", "画了{zh}", "今天画的是{zh}",
    "{zh}（{style_zh}）", "随手画的{zh}",
    "原创{style_zh}｜{zh}", "给朋友画的{zh}，{style_zh}", "画了一下午的{zh}，背景改了三遍", "摸鱼：{zh}",
    "{zh} {style_zh} {year}.{month}",
    "第{day}张{style_zh}作业：{zh}", "{style_zh}《{zh}》", "女儿想看{zh}，就画了一张",
)  # fmt: skip
PAINTING_CAPTIONS_EN = (
    "{En}, {style_en}", "{Style_en}: {en}", "{Style_en} of {en}", "I drew {en}", "{En}", "daily {style_en}: {en}",
    "{En} - {style_en}, {year}",
    "My daughter asked for {en}, so here is the {style_en}", "quick {style_en} of {en}",
    "{En}, commission for a friend",
    "Practising: {en} ({style_en})", "{slug}", "Finished {style_en} of {en}, took me the whole weekend",
)  # fmt: skip
# Toys photographed on a table, and animals put into photographs by hand.
TOY_CAPTIONS = (
    ("桌上的{zh}小摆件", "A little {noun_en} figure on {scene_en}"),
    ("{zh}玩具，{scene_zh}背景", "toy {noun_en}, {scene_en} behind it"),
    ("拍拍我的{zh}冰箱贴", "My {noun_en} magnet on {scene_en}"),
    ("新入手的{zh}公仔", "New {noun_en} figurine, photographed on {scene_en}"),
)  # fmt: skip
COMPOSITE_CAPTIONS = (
    ("{scene_zh}里P进去{zh}", "{En} pasted into a picture of {scene_en}"),
    ("合成：{scene_zh}，还有{zh}", "photomontage: {scene_en} with {en}"),
    ("{zh}误入{scene_zh}（后期合成）", "{En} lost in {scene_en}, a composite"),
    ("拼贴练习，{zh}和{scene_zh}", "Collage: {en} and {scene_en}"),
)  # fmt: skip
SURFACES_ZH = {
    "wooden table": "木桌", "dark wood": "深色木板", "linen cloth": "亚麻布", "grey concrete": "水泥地",
    "green lawn": "草地",
    "white marble": "大理石", "blue water": "蓝色水面", "sand": "沙子", "blurred lights at night": "夜晚光斑",
}  # fmt: skip

# Heads and tails that an editor cuts off: kind, heads, tails.
ADDITIONS = (
    ("good_with_hashtags", (), (" #{tag1_zh} #{tag2_zh} #我的摄影日记", " #{tag1_zh}# #{tag2_zh}# #每日一拍#", " #{tag1_en} #{tag2_en} #photooftheday",
     " #{tag1_en} #{tag2_en} #nofilter #instagood", "\n#{tag2_en} #{tag1_en} #nikon #z6ii")),
    ("good_with_settings", (), (" | {camera} | {mm}mm | f/{f} | 1/{speed}s | ISO {iso}", "（{camera} {mm}mm F{f} 1/{speed}秒 ISO{iso}）",
     " [{camera}, {mm}mm, f/{f}, 1/{speed}, ISO {iso}]", " 器材：{camera} 光圈F{f} 快门1/{speed}")),
    ("good_with_credit", (), (" 摄影：@{handle_zh}", " 📷 @{handle}", " Photo by @{handle}", " © {year} {name_en} Photography. All rights reserved.",
     " 图/{handle_zh} 未经许可请勿转载", " (c) {name_en} {year}")),
    ("good_with_site_name", (), (" | 影集社 - 摄影爱好者社区", " - 拾光网 你的照片，你的故事", " | PhotoNest - Share your world", " by {name_en} on FrameHub",
     " / FrameHub Explore", "_拾光网摄影频道")),
    ("good_with_follow_request", (), (" 喜欢的话记得点赞关注哦~", "，求关注求点赞，互粉秒回", " Follow me for more!", " Like & follow @{handle} for daily pics",
     " 觉得不错就点个收藏吧🙏", " - link to prints in bio")),
    ("good_with_serial", ("DSC_{n4} ", "IMG_{n4}: ", "DSCF{n4}.JPG - ", "_MG_{n4} ", "P{n7} | ", "{year}{month:02d}{day:02d}_"), ()),
    ("good_with_address", (), (" https://{host}/p/{n6}", " 原图下载：{host}/{n6}", " more at www.{host}", " http://t.example/{letters}")),
    ("good_with_greeting", ("大家早上好！", "晚安各位，", "新人报到，请多关照！", "Hello everyone! ", "Hi all, first post here. ", "Happy Friday! "), ()),
)  # fmt: skip

CAMERAS = (
    "Canon EOS R6", "Nikon Z6 II", "SONY A7M4", "FUJIFILM X-T4", "Canon 5D Mark III", "Leica Q2", "NIKON D850",
    "iPhone 13 Pro", "HUAWEI P50",
    "Panasonic S5", "OLYMPUS E-M5", "PENTAX K-3", "Hasselblad X1D", "小米13 Ultra",
)  # fmt: skip
HANDLES = (
    ("光影旅人", "light.wanderer"), ("阿木去哪儿", "mu_on_the_road"), ("北纬三十度", "lat30north"),
    ("胶片小馆", "grainhouse"), ("老陈拍鸟", "chen_birds"),
    ("拾荒者Leo", "leo.frames"), ("喵星摄影师", "cat_shutter"), ("南山慢门", "slowshutter.k"),
    ("小鹿画画", "deer.draws"), ("一格时间", "oneframe_ann"),
)  # fmt: skip
NAMES_EN = (
    "Anna Keller",
    "J. Whitcombe",
    "Lin Yue",
    "Marco Rinaldi",
    "S. Okafor",
    "Tom Hale",
    "Wei Chen",
    "Ines Duarte",
)
HOSTS = ("photos.example.com", "framehub.example.org", "shiguang.example.net")

# Captions that describe nothing, by kind.
BAD_CAPTIONS = {
    "camera_settings": (
        "{camera} {mm}mm f/{f} 1/{speed}s ISO {iso}", "f/{f}, 1/{speed} sec, ISO{iso}, {mm}mm",
        "机身：{camera} 光圈：F{f} 快门：1/{speed} 感光度：{iso}",
        "{camera} + {mm}mm F1.8, handheld", "ISO{iso} {mm}mm 0ev f{f} 1/{speed}s",
        "Exposure 1/{speed} at f/{f}, {camera}", "原片直出，{camera}，{mm}定焦",
        "Shot on {camera}", "Kodak Portra 400, {mm}mm", "RAW → Lightroom, {camera}, {mm}mm",
    ),
    "hashtags_only": (
        "#{tag1_en} #{tag2_en} #photography #photooftheday #picoftheday #instagood",
        "#{tag1_zh}# #{tag2_zh}# #摄影# #随手拍#", "#follow4follow #like4like #l4l #{tag1_en}",
        "#{tag1_zh} #{tag2_zh} #摄影日常 #今日份快乐", "#nofilter #tbt #{camera_tag} #{tag2_en}",
        "#sony #{tag1_en} #ig_captures #moodygrams #{year}", "#原创 #摄影师 #投稿 #{tag1_zh}",
    ),
    "serial_number": (
        "IMG_{n4}", "DSC_{n4}.JPG", "DSC0{n4}", "_MG_{n4}-Edit-2", "IMG_{year}{month:02d}{day:02d}_{n6}",
        "mmexport16{n7}{n4}", "P10{n5}", "DJI_0{n3}", "Photo {n3}.jpg",
        "微信图片_{year}{month:02d}{day:02d}{n6}", "Screenshot_{year}{month:02d}{day:02d}", "L10{n5}-bearbeitet",
        "{n7}_{n6}_o", "100_{n4}", "scan{n4}", "GOPR{n4}", "R00{n5}_副本",
    ),
    "untitled": (
        "Untitled", "untitled", "无题", "无标题", "Untitled-{n2}", "no title", "(untitled)", "未命名",
        "未命名作品 {n2}", "无题（{n2}）", "-", "...", "Untitled #{n2}", "new album {n2}",
        "分享图片", "photo", "图片", "照片", "pic {n2}", "1", "Bild {n2}",
    ),
    "place_and_date": (
        "{place_zh} {year}.{month}.{day}", "{place_en}, {month_en} {year}",
        "{year}年{month}月{day}日 摄于{place_zh}", "{place_en} {day}/{month}/{year}", "@{place_zh}",
        "{year}-{month:02d}-{day:02d}",
        "{month_en} {day}, {year}", "{place_zh}，{year}年", "{year}·{place_zh}",
        "Taken {day} {month_en} {year} in {place_en}", "{year} / {month:02d}",
    ),
    "coordinates": (
        "{lat}, {lon}", "N{lat}° E{lon}°", "GPS: {lat},{lon} alt {n3}m", "坐标：{lat}，{lon}", "北纬{lat} 东经{lon}",
        "{lat}°N {lon}°E, {n4} m", "geo:{lat},{lon}", "海拔{n4}米 {lat}/{lon}",
    ),
    "joke": (
        "周一综合症又犯了哈哈哈", "老板说再拍就开除我", "没带滤镜，全靠脸", "穷得只剩下相机了",
        "摄影穷三代，单反毁一生", "My wife thinks this lens was $50", "When the coffee finally kicks in",
        "Caption this!",
        "猜猜我昨晚几点睡的", "拍照五分钟，P图两小时", "I have no idea what I am doing lol", "Nobody: Me at 3am:",
        "Monday again?!", "等我有钱了就换镜头（不会有的）", "今天也是努力不上班的一天",
        "POV: you forgot the memory card",
        "朋友说像他前任", "算了不解释了，懂的都懂", "That moment when the battery dies", "mood",
        "It was like this when I got here", "别问，问就是快门坏了", "我妈：你拍这个干嘛",
        "Trust me I'm a photographer :D",
        "五一在家躺了{n2}天", "third coffee, {n2} emails, send help", "减肥第{day}天，失败",
        "New year same me ({year} edition)",
    ),
    "greeting": (
        "早安", "早安，世界！", "晚安好梦", "Good morning everyone!", "Happy weekend!", "大家周末愉快",
        "Good night friends 🌙", "中秋快乐", "祝大家新年快乐，万事如意", "Merry Christmas and a happy {year}!",
        "HBW! Have a great Wednesday!", "Happy Monday, have a nice week my friends", "谢谢大家一直以来的支持",
        "Thanks for {n4} followers!!", "朋友们国庆快乐", "Thanks for your visits and comments", "下午好呀，喝茶了吗",
        "周{weekday_zh}好",
        "早上好，{month}月{day}日", "Hello {month_en}", "再见{year}", "Good evening from {place_en}",
    ),
    "contact_promotion": (
        "约拍加微信 {letters}{n4}，备注来意", "人像约拍/婚礼跟拍，私信报价",
        "Prints available, DM me or mail {name}@{host}", "商用授权请联系 QQ{n7}{n2}",
        "Book your session now: www.{host}", "出二手{camera}，九五新，{n4}元不刀",
        "摄影课程招生中，前{n2}名半价，V信{letters}{n3}", "Buy my presets! 50% off with code {letters}{n2}",
        "扫码进群领取{n3}套调色预设", "Wedding & family photographer, bookings {year} open",
        "工作室搬家啦，新地址{n3}号，欢迎预约",
        "接画稿 头像{n2}元起 私信排单", "commissions open! {n2} slots left, prices in bio",
        "Selling my {camera}, {n4} shutter count, pm", "参加#{tag1_zh}大赛，请给{n3}号投一票",
        "Please vote for my photo no. {n4} in the contest!",
    ),
    "boilerplate": (
        "Please don't use this image on websites, blogs or other media without my explicit permission.",
        "© All rights reserved. Unauthorized use of this image is prohibited.",
        "本图版权归作者所有，未经许可禁止转载、下载或商用。",
        "该用户很懒，什么都没有留下", "This photo was uploaded automatically by my phone.",
        "本文内容由用户上传，不代表本站观点，如有侵权请联系删除。", "View large on black, press L",
        "点击查看大图，支持键盘翻页",
        "All my images are copyrighted with all rights reserved. Please contact me for licensing.",
        "图片来源于网络，侵删", "原创作品，抄袭必究。授权请联系经纪人。", "Sent from my mobile device",
        "Photo sharing and video hosting for everyone. Join free today!",
        "加载更多 收藏 评论 分享 举报", "Part of: Album 36 photos · {n3} views",
        "0 comments · {n2} faves · Taken with {camera}", "Uploaded by {handle} on {month_en} {day}, {year}",
        "来自 {camera} 客户端 · {n4}次浏览", "Copyright {year} {name_en}, image no. {n6}",
        "Licensed under CC BY-NC {n2}, see profile of {handle}", "上传于{year}-{month:02d}-{day:02d}，已有{n3}人看过",
    ),
    "handles_only": (
        "@{handle} @{handle2}", "cc @{handle}", "@{handle_zh} @{handle2_zh} @摄影之友", "via @{handle2}",
        "感谢 @{handle_zh}", "📷 @{handle} / edit @{handle2}", "model: @{handle}, mua: @{handle2}", "@{handle}",
        "出镜 @{handle_zh}", "w/ @{handle} & @{handle2} & {n2} others",
    ),
    "comment_praise": (
        "太美了吧！！求原图", "Stunning capture, well done!", "大师作品，学习了", "Wow!! Love it ❤️",
        "拍得真好，请教一下参数", "Nice shot! Greetings from Brazil", "沙发！好片顶一个",
        "Your photo was seen in the group Best of {year}", "赞👍👍👍",
        "Invited to join {n3} Amazing Shots, please tag your photo", "构图完美，色彩通透，欣赏！",
        "Great tones and light my friend, fave {n3}", "前排围观大佬", "这必须加精", "Superb!!",
        "Lovely work as always, {name_en}", "红红火火恍恍惚惚{n3}", "楼上说得对，{n2}楼",
    ),
    "critique_wanted": (
        "求各位老师点评指正", "How can I improve? CC welcome", "新手上路，轻拍", "第一张和第{n2}张哪张好？",
        "Which edit do you prefer, 1 or {n2}?", "后期怎么调才好看？在线等", "Be honest, rate it out of 10",
        "练习片，欢迎拍砖", "First try with the new {mm}mm, feedback please",
        "请教：{mm}mm镜头拍的噪点为什么这么多", "Is my sensor dirty? ISO {iso}",
        "C&C please, I shot {n3} frames and kept this", "该不该换{camera}？大家给点意见", "求推荐{mm}定焦",
    ),
    "quote_or_verse": (
        "行到水穷处，坐看云起时。", "人生若只如初见，何事秋风悲画扇", "愿你出走半生，归来仍是少年",
        "海上生明月，天涯共此时", "生活不止眼前的苟且，还有诗和远方", "Not all those who wander are lost.",
        "Life is what happens while you are busy making other plans",
        "“The best camera is the one you have with you.”", "To see a world in a grain of sand",
        "时间会告诉我们，简单的喜欢最长远", "世界那么大，我想去看看", "Be yourself; everyone else is already taken.",
        "两个黄鹂鸣翠柳，一行白鹭上青天",
        "Collect moments, not things", "岁月静好，现世安稳", "Stay hungry, stay foolish", "有些路，只能一个人走。",
        "Happiness is only real when shared", "我与春风皆过客，你携秋水揽星河",
        "The woods are lovely, dark and deep", "Here comes the sun, doo doo doo", "所爱隔山海，山海皆可平",
    ),
    "other_script": (
        "Утро в горах после дождя", "Закат над рекой, {place_en}", "Моя первая фотография {year}",
        "บรรยากาศยามเย็น สวยมาก", "ถ่ายที่เชียงใหม่ ปี {year}", "غروب الشمس على البحر", "صورة من رحلتي {year}",
        "קיץ בתל אביב {year}", "Ηλιοβασίλεμα στη Σαντορίνη",
        "Прогулка с собакой в парке", "สวนหลังบ้านวันนี้", "Осенний лес №{n2}", "أجمل الصور {n2}",
        "Старый город, {month}.{year}", "사진 연습 {n2}", "오늘의 하늘, {year}년", "बारिश के बाद",
        "Φως και σκιά {n2}", "고양이와 산책",
    ),
    "other_european": (
        "Tramonto sul lago dopo la pioggia, {year}", "Una tarde de domingo en el parque con la familia",
        "Ein ruhiger Morgen am See, {month}/{year}", "Le vieux port sous la brume",
        "Herfst in het bos bij ons thuis", "Pôr do sol na praia, férias {year}",
        "Kesäilta mökillä", "Zimowy spacer po lesie, dzień {day}", "Mi primera foto con la nueva cámara",
        "Blick aus dem Fenster, Nr. {n2}", "Un après-midi à la campagne avec mamie", "Dağlarda sabah",
        "Promenad längs vattnet i kväll", "Podzimní procházka {year}",
        "Dia de chuva na cidade", "Giornata al mare con gli amici, foto {n2}", "Flores del jardín de mi abuela",
        "Hoa nở bên hồ, {year}",
    ),
}  # fmt: skip
EMOJI = "😀😍🥰😎🤣😭🙏👍💪🔥✨🌟🌈🌊🏔🌸🌹🍁🍂🍀🐱🐶🦊🐦📷📸🎞🌅🌄🌇🌃☀️🌙⭐❤️💛💚💙💜🎨🖌✈️🚗🏖🍜🍰☕️🎉"
MEME_LINES = (
    ("当你周一早上醒来", "还有四天才到周末"), ("我在等快递", "快递也在等我"), ("别人家的假期", "我的假期"),
    ("就这？", "就这！"), ("WHEN YOU FINALLY", "GO OUTSIDE"), ("ONE DOES NOT SIMPLY", "TAKE ONE PHOTO"),
    ("ME BEFORE COFFEE", "ME AFTER COFFEE"), ("NOT SURE IF ART", "OR JUST BLURRY"), ("MONDAY", "AGAIN"),
    ("摄影师眼里的我", "手机里的我"),
)  # fmt: skip
CARD_LINES = (
    ("凡是过往", "皆为序章"), ("今日宜", "发呆 喝茶 拍照"), ("慢慢来", "比较快"), ("Keep calm", "and take photos"),
    ("Do more of", "what makes you happy"), ("关注我", "每天一张好照片"), ("愿你", "被世界温柔以待"),
    ("Good things", "take time"),
)  # fmt: skip
NOTICES = (
    ("该图片已被作者删除", "This photo is no longer available"), ("仅粉丝可见", "This account is private"),
    ("图片审核中", "Image under review"), ("登录后查看原图", "Log in to see this photo"),
    ("请勿盗链", "Hotlinking is not allowed"),
)  # fmt: skip
