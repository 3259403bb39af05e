"""Words of a cooking community: what captions say of dishes, tools and places, and what stands there instead of one."""

import random
import re
import string

from making import misread

Facts = dict[str, str]

USERS = (
    "小满厨房", "胖厨", "灶边人", "阿May的烤箱", "老陈家常菜", "葱花儿", "米粒妈妈", "今天吃什么呀", "南瓜车",
    "二两面", "thecopperladle", "bread_and_salt", "MinaCooks", "kitchen.of.joe", "thyme4dinner", "crumbsandtea",
    "wok_this_way",
)  # fmt: skip
SITES = {
    "zh": ("灶台日记", "三餐网", "小灶", "厨房志", "味盏", "菜园子美食"),
    "en": ("The Copper Ladle", "Thyme for Dinner", "Crumbs & Tea", "Weeknight Table", "Salt Cellar Kitchen"),
}  # fmt: skip
CITIES = {
    "zh": ("成都", "广州", "西安", "扬州", "顺德", "长沙", "上海", "青岛", "厦门", "昆明", "泉州", "哈尔滨"),
    "en": ("Chengdu", "Guangzhou", "Lisbon", "Osaka", "Portland", "Leeds", "Lyon", "Bologna", "Penang", "Melbourne"),
}  # fmt: skip
RESTAURANTS = {
    "zh": ("老灶面馆", "阿婆饺子店", "渔歌小馆", "半山茶餐厅", "麦香面包房", "福记粥铺", "小院川菜", "隔壁咖啡"),
    "en": ("Old Stove Noodles", "Granny's Dumplings", "The Fish Song", "Hillside Tea House", "Wheat & Rye Bakery",
        "Lucky Congee", "Courtyard Kitchen", "Next Door Coffee"),
}  # fmt: skip

# Slots that any template may use besides the facts of its picture.
WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "zh": {
        "who": ("妈妈", "外婆", "老公", "我", "爸爸", "婆婆", "室友", "女儿", "隔壁阿姨"),
        "meal": ("早餐", "午饭", "晚饭", "宵夜", "周末的午餐", "下午茶", "年夜饭", "一人食"),
        "when": ("今天", "昨晚", "周日", "中秋那天", "下雨天", "加班回来", "冬至", "立春", "放假第一天"),
        "taste_hot": ("咸鲜下饭", "油亮亮的", "酱汁裹得很匀", "热气腾腾", "颜色很好看", "刚出锅", "香得很"),
        "taste_fresh": ("热气腾腾", "刚出锅", "趁热吃最香", "分量很足"),
        "taste_sweet": ("甜而不腻", "颜色粉嫩", "软软的", "像橱窗里买的", "很适合下午茶"),
        "taste_bake": ("表面金黄", "外脆里软", "烤得刚刚好", "还冒着热气", "边缘微微焦"),
        "taste_soup": ("汤色清亮", "暖胃", "热乎乎的", "汤面上浮着油花", "炖得很浓"),
        "taste_cold": ("清爽开胃", "颜色鲜亮", "脆生生的", "夏天吃正好"),
        "minutes": ("10", "15", "20", "25", "30", "40", "45", "60", "90"),
        "grams": ("150", "200", "250", "300", "400", "500"),
        "degrees": ("160", "170", "175", "180", "190", "200", "220"),
        "city": CITIES["zh"],
        "shot": ("俯拍", "近景", "特写", "侧面", "从上面看"),
    },
    "en": {
        "who": ("Mum", "Grandma", "my husband", "Dad", "my sister", "our neighbour Ana", "my flatmate", "Aunt Li"),
        "meal": ("breakfast", "lunch", "dinner", "a late supper", "Sunday lunch", "afternoon tea",
            "a weeknight meal"),
        "when": ("tonight", "last night", "on Sunday", "for New Year's Eve", "on a rainy day", "after work",
            "this morning"),
        "taste_hot": ("glossy and savoury", "straight from the heat", "coated in sauce", "still steaming",
            "full of colour"),
        "taste_fresh": ("still steaming", "freshly made", "best eaten hot", "enough for everyone"),
        "taste_sweet": ("soft and not too sweet", "pretty enough for a shop window", "in pastel colours"),
        "taste_bake": ("golden on top", "crisp outside, soft inside", "fresh from the oven",
            "slightly dark at the edges"),
        "taste_soup": ("warming", "with beads of oil on top", "rich and slowly simmered", "piping hot"),
        "taste_cold": ("fresh and crunchy", "bright and tangy", "perfect for summer"),
        "minutes": ("10", "15", "20", "25", "30", "40", "45", "60", "90"),
        "grams": ("150", "200", "250", "300", "400", "500"),
        "degrees": ("160", "170", "175", "180", "190", "200", "220"),
        "city": CITIES["en"],
        "shot": ("overhead shot", "close-up", "detail", "top view", "photo"),
    },
}  # fmt: skip

TASTE_OF_SORT = {
    "hot": "taste_hot",
    "grill": "taste_hot",
    "snack": "taste_fresh",
    "noodles": "taste_hot",
    "rice": "taste_fresh",
    "dough": "taste_fresh",
    "soup": "taste_soup",
    "sweet_soup": "taste_soup",
    "cold": "taste_cold",
    "fruit": "taste_cold",
    "drink": "taste_cold",
    "bake": "taste_bake",
    "breakfast": "taste_bake",
    "sweet": "taste_sweet",
}  # fmt: skip

TEMPLATES: dict[str, dict[str, tuple[str, ...]]] = {
    "zh": {
        "dish": ("{dish}", "{dish}", "一{measure}{dish}", "{who}做的{dish}", "{when}的{meal}:{dish}",
            "{vessel}里的{dish},{taste}", "{dish},{taste}", "一{measure}{dish}放在{surface}上",
            "{surface}上的{dish},旁边有{side}", "{dish}撒上{garnish}", "{dish},用{vessel}装着,撒了{garnish}",
            "{shot}:{vessel}里的{dish}", "自己在家做的{dish},里面有{main}", "{main}做成的{dish}",
            "{dish}出锅啦,{taste}", "{when}做了{dish},配{side}", "《家常菜》之{dish}", "{city}风味{dish}",
            "{dish}成品图,{taste}", "{minutes}分钟搞定的{dish}", "摆好盘的{dish},垫着{surface}",
            "学{who}做{dish},这是第{ordinal}次", "{meal}吃{dish},一人一{measure}", "{dish}配{side}",
            "{vessel}盛的{dish}", "{dish}特写,看得见{main}", "零失败的{dish},装在{vessel}里,{surface}很搭",
            "{who}最拿手的{dish},里头放了{main}", "孩子点名要吃的{dish},最后撒点{garnish}",
            "{dish}({grams}克{first}做一{measure})", "一{measure}{taste_word}{dish}", "{dish}|{meal}",
            "复刻{city}小馆子的{dish}", "用{grams}g{first}做的{dish}",
            "{when},{surface}上摆着一{measure}{dish}和{side}", "秋天的味道——{dish}"),
        "step": ("{vessel}里先放{first}", "{first}下锅", "放入{main},翻炒均匀", "往{vessel}里加{main}",
            "做{dish}:先把{first}铺好", "{first}放进{vessel}", "还没有加{next}的{dish}",
            "中火{minutes}分钟后的{main}", "{dish}步骤图:{first}已经在{vessel}里", "只放了{main}的{vessel}",
            "先铺一层{main},等会儿再加{next}"),
        "empty_step": ("洗干净的{vessel},准备做{dish}", "空的{vessel}放在{surface}上",
            "{surface}上的{vessel},还没放东西"),
        "ingredients": ("食材:{list}", "准备好{list}", "{surface}上的{list}", "做{dish}要用的{list}",
            "{list}洗净备用", "{when}买回来的{list}", "冰箱里翻出来的{list}", "主料是{list}",
            "{surface}上摆着{list},俯拍", "所有材料:{list}", "{list},都在这儿了"),
        "market": ("菜市场里的{thing}", "一大堆{thing}", "{city}早市上的{thing}", "{thing}上市了",
            "堆满的{thing},特写", "新鲜的{thing}", "摊位上成堆的{thing}", "{when}在市场看到的{thing}",
            "满满一筐{thing}"),
        "one_thing": ("{thing}", "{surface}上的{thing}", "{count}{thing},放在{surface}上", "{thing}特写",
            "刚摘的{thing}", "{when}买的{thing}"),
        "tool": ("{tool}", "一{unit}{colour}的{tool}", "{surface}上的{tool}", "新买的{tool},{colour}",
            "{who}用了十年的{tool}", "厨房好物:{tool}", "{colour}{tool}开箱", "这{unit}{tool}是{colour}的",
            "{tool}放在{surface}上,{shot}", "终于入手了{tool}", "洗好晾干的{tool}", "烘焙新手必备的{tool}"),
        "table": ("{meal}:{list}", "一桌子菜,有{list}", "{list},摆在{surface}上", "{when}请朋友吃饭,做了{list}",
            "{who}做的一桌菜:{list}", "{surface}上摆了{list}", "今日菜单上桌:{list}"),
        "storefront": ("{name}的门面,{awning}雨棚", "{city}的{name},门口摆着{plants}", "路过{name},{wall}外墙",
            "{name}外景", "{wall}墙面的小店{name}", "{city}探店:{name},{awning}的遮阳篷很显眼", "傍晚亮着灯的{name}"),
        "interior": ("{name}店内,{lamps}盏吊灯下的桌椅", "{wall}墙的小饭馆,{lamps}盏灯", "{city}{name}的内景",
            "{name}靠窗的位子,{wall}墙面", "店里不大,{tables}张桌子,{lamps}盏吊灯", "{name}里头,灯光很暖"),
        "menu": ("{name}的菜单,{first_item}{first_price}元", "手写菜单:{first_item}、{second_item}",
            "{name}墙上的价目表,最贵的是{dear_item}", "{city}{name}菜单,{count}道菜",
            "菜单上有{first_item}、{second_item}和{dear_item}"),
        "chart": ("每100克{first_item}与{second_item}的热量对比图", "柱状图:五种食物的热量,{dear_item}最高",
            "{first_item}等{count}种食材的{quantity}柱状图", "{quantity}图表,{dear_item}的数值最大",
            "{quantity}对比,从{first_item}到{last_item}"),
        "label": ("一碗{thing},前面的卡片写着{word}", "标着{word}的{thing}", "碗里的{thing}和写着“{word}”的卡片",
            "{surface}上的一碗{thing},卡片上是{word}"),
        "variant": ("{variant}{thing}", "自家做的{variant}{thing}", "{thing},{variant}",
            "{variant}{thing},放在{surface}上", "{when}做的{variant}{thing}"),
        "photo": ("{thing}", "{thing}", "去{city}路上拍的{thing}", "周末出游:{thing}", "{thing},{when}随手拍",
            "吃完饭散步看到的{thing}", "民宿附近的{thing}", "{city}觅食途中的{thing}", "{thing}(手机拍的)",
            "农场之行,{thing}"),
        "picture": ("{thing}", "今日壁纸:{thing}", "手机壁纸,{thing}", "很喜欢的一张图:{thing}", "{thing}的照片"),
        "drawing": ("{thing}的插画", "手账里画的{thing}", "{colour_name}底上的{thing}插图", "菜谱插图:{thing}",
            "给菜谱配的小图,{thing}"),
        "aside": ("做法在下面,照着做就行。", "我用的是铸铁锅,火不用太大。", "这次少放了糖,刚刚好。",
            "家里人都说好吃。", "拍照的时候天已经黑了,光线一般。", "配方来自外婆的手写本子。",
            "一共做了两次,第二次更成功。", "剩下的第二天带饭。"),
    },
    "en": {
        "dish": ("{dish}", "{dish}", "A {vessel} of {dish}", "{who}'s {dish}", "{dish} for {meal}",
            "{dish}, {taste}", "{dish} on {surface}", "{dish} in a {vessel}, {taste}",
            "{dish} topped with {garnish}", "{shot} of {dish} in a {vessel}", "Homemade {dish} with {main}",
            "{dish} served with {side}", "{when} I made {dish}", "{dish} garnished with {garnish} on {surface}",
            "{minutes}-minute {dish}", "{dish} with {main}, served in a {vessel}", "{main} turned into {dish}",
            "{dish}, {city} style", "A {vessel} with {dish} and {side} next to it", "easy {dish}",
            "The finished {dish}: {taste}", "My first try at {dish}, {taste}",
            "A {vessel} filled with {dish} sits on {surface}.", "{meal}: {dish} and {side}",
            "{dish} ({minutes} minutes, {grams} g of {first})", "Close-up of {dish} with {main} visible",
            "How we eat {dish} at home: in a {vessel}, with {side}", "{dish} as {who} makes it",
            "Sprinkle {garnish} over the {dish}", "{dish} recipe", "{surface} set with {dish} and {side}",
            "{dish} - {taste}"),
        "step": ("Put the {first} into the {vessel}", "{main} in the {vessel}", "Add {main} and stir",
            "Making {dish}: {first} first", "{dish} before the {next} goes in",
            "{main} after {minutes} minutes over medium heat", "Only {main} in the {vessel} so far",
            "Arrange {first} in the {vessel}", "A {vessel} with {main}, the start of {dish}"),
        "empty_step": ("A clean {vessel}, ready for {dish}", "An empty {vessel} on {surface}",
            "The {vessel} before anything goes in"),
        "ingredients": ("Ingredients: {list}", "{list} on {surface}", "You need {list}", "{list}, washed and ready",
            "{list} for {dish}", "What was left in the fridge: {list}", "Everything laid out: {list}",
            "Top view of {list} on {surface}", "{list} from the farmers' market"),
        "market": ("A pile of {thing}", "{thing} at the market in {city}", "Fresh {thing}", "{thing} in season",
            "Crate full of {thing}", "Close-up of {thing} at a stall", "so many {thing}",
            "Heaps of {thing} at the greengrocer's"),
        "one_thing": ("{thing}", "{count} {thing} on {surface}", "Close-up of {thing}", "{thing} on {surface}",
            "{thing} I bought {when}"),
        "tool": ("{tool}", "A {tool} with {colour} on {surface}", "My new {tool}", "{tool}, {colour}",
            "The {tool} that {who} has used for ten years", "Kitchen basics: a {tool}",
            "Unboxing the {tool} ({colour})", "A {tool} on {surface}", "{tool}, washed and dried",
            "Best {tool} for beginners"),
        "table": ("{meal}: {list}", "A table with {list}", "{list} on {surface}", "Dinner party spread: {list}",
            "{who} cooked {list}", "What we ate {when}: {list}"),
        "storefront": ("{name} with its {awning} awning", "{name} in {city}, plants by the door",
            "Outside {name}, {wall} walls", "The front of {name}",
            "A small restaurant with a {awning} awning and {wall} walls", "{name}, lit up in the evening"),
        "interior": ("Inside {name}: {lamps} lamps over the tables", "{name}, {wall} walls and warm light",
            "The dining room of {name} in {city}", "A small room with {tables} tables and {lamps} pendant lamps",
            "Seats by the {wall} wall at {name}"),
        "menu": ("Menu of {name}: {first_item} for {first_price}",
            "Price list with {first_item}, {second_item} and {dear_item}", "The board at {name}, {count} dishes",
            "What {name} in {city} serves: {first_item}, {second_item}..."),
        "chart": ("Bar chart of {quantity} in {first_item}, {second_item} and others",
            "{quantity} of {count} foods; {dear_item} is highest",
            "Chart comparing {quantity} from {first_item} to {last_item}", "{quantity} per 100 g: {dear_item} leads"),
        "label": ("A bowl of {thing} with a card that says {word}", "{thing} in a bowl, labelled {word}",
            "Bowl of {thing} and a card with {word} on {surface}"),
        "variant": ("{variant} {thing}", "Homemade {variant} {thing}", "{thing}, {variant}",
            "{variant} {thing} on {surface}", "{variant} {thing} I made {when}"),
        "photo": ("{thing}", "{thing}", "{thing} on the way to {city}", "Weekend trip: {thing}",
            "{thing}, taken {when}", "Seen on a walk after lunch: {thing}", "{thing} near our guesthouse",
            "{thing} (phone photo)"),
        "picture": ("{thing}", "Today's wallpaper: {thing}", "A picture I like: {thing}",
            "{thing}, my new wallpaper"),
        "drawing": ("Illustration of {thing}", "{thing} drawn for the recipe",
            "{thing} on a {colour_name} background", "Recipe illustration: {thing}", "Little drawing of {thing}"),
        "aside": ("The recipe is below.", "I used a cast-iron pan and medium heat.",
            "Less sugar than last time, which was just right.", "Everyone asked for seconds.",
            "The light was fading when I took this.", "From Grandma's handwritten notebook.",
            "Second attempt, much better than the first."),
    },
}  # fmt: skip


def expand(template: str, facts: Facts, language: str, rng: random.Random) -> str:
    """Fill the slots of a template from the facts, or by a word that fits any picture."""
    pieces = []
    for literal, name, _, _ in string.Formatter().parse(template):
        pieces.append(literal)
        if name is not None:
            pieces.append(facts[name] if name in facts else rng.choice(WORDS[language][name]))
    return "".join(pieces)


def fits(template: str, facts: Facts, language: str) -> bool:
    names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    return all(facts.get(name) or (name not in facts and name in WORDS[language]) for name in names)


def write_caption(topic: str, language: str, facts: Facts, rng: random.Random) -> str:
    """Write a caption of a topic; a template is taken only if the picture has all that it speaks of."""
    facts = dict(facts)
    if "sort" in facts:
        facts["taste"] = rng.choice(WORDS[language][TASTE_OF_SORT[facts["sort"]]])
    facts.setdefault("ordinal", rng.choice(("二", "三", "四")))
    facts.setdefault("taste_word", rng.choice(("热气腾腾的", "刚做好的", "满满当当的")))
    templates = [template for template in TEMPLATES[language][topic] if fits(template, facts, language)]
    text = expand(rng.choice(templates), facts, language, rng)
    if language == "zh":
        return text.replace("的的", "的")
    # Some names of dishes begin with an article, which is left out after a word that stands in its place.
    text = re.sub(r"\b(a|an|the|easy|homemade|finished|minute|s) an? ", r"\1 ", text, flags=re.IGNORECASE)
    return text[:1].upper() + text[1:]


def join_words(words: list[str], language: str) -> str:
    if len(words) < 2:
        return "".join(words)
    if language == "zh":
        return "、".join(words[:-1]) + "和" + words[-1]
    return ", ".join(words[:-1]) + " and " + words[-1]


# ---------------------------------------------------------------------------------------------------------------------
# Heads and tails of good captions

TAILS: dict[str, dict[str, tuple[str, ...]]] = {
    "site_tail": {
        "zh": (" - {site}", "_{site}", " | {site}菜谱", "-{site}-做法大全"),
        "en": (" - {site}", " | {site}", " – {site} Recipes", " @ {site}"),
    },
    "hashtag_tail": {
        "zh": (" #家常菜 #美食日常", "#今天吃什么##厨房日记#", " #快手菜 #下饭菜 #记录生活", " #烘焙 #美食打卡"),
        "en": (" #foodie #homemade", " #instafood #yum #dinnerideas", " #foodblogger #easyrecipes", " #kitchenlife"),
    },
    "call_tail": {
        "zh": (" 点击查看详细做法", ",做法戳链接>>", " 查看全部步骤 >", "(点图看大图)", " 收藏起来慢慢学"),
        "en": (" - Click through for the full recipe!", " Get the recipe >>", " (tap for recipe)",
            " Pin it for later!", " Read more..."),
    },
    "rating_tail": {
        "zh": (" 综合评分8.{digit} {many}人做过", " ★★★★★({many}人评价)", " {many}人收藏", " 浏览{many} 收藏{few}"),
        "en": (" ★★★★★ 4.{digit} ({many} ratings)", " {many} made it | {few} photos",
            " 4.{digit}/5 from {many} votes", " {few} comments"),
    },
    "credit_tail": {
        "zh": ("(图:{user})", " 摄影/{user}", " 图片来源:{user}", " ©{user}"),
        "en": (" (Photo: {user})", " Photo credit: {user}", " © {user}", " Image by {user}"),
    },
    "url_tail": {
        "zh": (" https://www.zaotai.example/recipe/{number}/", " m.sancan.example/r{number}",
            " 原文:http://zao.example/{number}"),
        "en": (" https://copperladle.example/{number}", " www.crumbs.example/r/{number}",
            " via thyme4.example/p{number}"),
    },
    "step_head": {
        "zh": ("步骤{step}:", "{step}.", "第{step}步:", "Step{step} "),
        "en": ("Step {step}: ", "{step}. ", "STEP {step} - ", "{step}) "),
    },
    "site_head": {
        "zh": ("【{site}】", "{site}丨", "[{site}]"),
        "en": ("[{site}] ", "{site}: ", "{site} | "),
    },
    "user_head": {
        "zh": ("@{user}:", "{user}的作品:", "来自 {user} 的图片:"),
        "en": ("@{user}: ", "{user} shared: ", "Posted by {user}: "),
    },
}  # fmt: skip


def draw_tail(kind: str, language: str, rng: random.Random) -> str:
    facts = {
        "site": rng.choice(SITES[language]),
        "user": rng.choice(USERS),
        "digit": str(rng.randint(1, 9)),
        "many": str(rng.randint(100, 9999)),
        "few": str(rng.randint(2, 99)),
        "number": str(rng.randint(10000, 9999999)),
        "step": str(rng.randint(1, 9)),
    }
    return expand(rng.choice(TAILS[kind][language]), facts, language, rng)


# ---------------------------------------------------------------------------------------------------------------------
# Captions that describe nothing

PHRASES: dict[str, dict[str, tuple[str, ...]]] = {
    "step_number": {
        "zh": ("步骤{step}", "第{step}步", "步骤{step}图", "做法步骤 {step}", "{step}/{total}", "Step {step}",
            "图{step}"),
        "en": ("Step {step}", "step {step} of {total}", "STEP {step}", "Step No. {step}", "{step}/{total}",
            "Photo {step}", "Process shot {step}"),
    },
    "recipe_metadata": {
        "zh": ("难度:{level} 时间:{minutes}分钟 份量:{few}人份", "准备{minutes}分钟|烹饪{more}分钟|{level}",
            "口味:{flavour} 工艺:{craft} 耗时:{minutes}分钟", "烹饪时间 {more}分钟 / 难度 {level}"),
        "en": ("Prep: {minutes} min | Cook: {more} min | Serves {few}",
            "Total Time: {more} mins Yield: {few} servings", "PREP TIME {minutes} MINUTES COOK TIME {more} MINUTES",
            "Difficulty: {level} / Serves: {few} / {more} min"),
    },
    "nutrition_facts": {
        "zh": ("热量 {many}千卡 蛋白质{minutes}克 脂肪{few}克 碳水{more}克", "每份:{many}kcal|脂肪{few}g|钠{more}mg",
            "营养成分表 能量{many}kJ 蛋白质{few}g 脂肪{few}g"),
        "en": ("Calories: {many}kcal | Carbohydrates: {more}g | Protein: {minutes}g | Fat: {few}g",
            "Nutrition: {many} cal, {few} g fat, {more} mg sodium",
            "Per serving {many} kcal; fat {few} g; sugars {minutes} g"),
    },
    "rating_comment": {
        "zh": ("第{few}次交作业啦", "失败了{few}次终于成功", "老公说比外面卖的好吃", "做给婆婆吃,她说可以",
            "步骤写得很清楚,感谢", "我家娃不爱吃,扣一分", "盐放多了,下次注意", "比我想象中简单",
            "太好吃了!全家都爱,五星好评", "试做成功,谢谢楼主分享~", "已经做了{few}次了,每次都光盘",
            "跟着做一次就成功了,赞赞赞", "味道不错,下次少放点盐", "给{few}分,不怕你骄傲", "孩子连吃了{few}碗!",
            "收藏了,改天试试"),
        "en": ("Mine came out dry, not sure why", "Absolutely delicious, {few} thumbs up",
            "We doubled it and there were no leftovers", "Not worth the effort, sorry",
            "My picky eater asked for more!!", "I swapped a few things and it still worked", "Better than takeout",
            "Saved! Thank you so much", "Made this last night and my husband loved it!!",
            "5 stars! Will definitely make again", "So easy and so good, thanks for sharing",
            "I halved the sugar and it was still too sweet", "Turned out great, kids had {few} helpings",
            "Can't wait to try this!", "This is a keeper. {few}/10"),
    },
    "reader_question": {
        "zh": ("可以不放糖吗?", "烤箱要提前预热多久啊", "这个{few}寸的模具可以吗", "求问面粉是高筋还是低筋",
            "能用空气炸锅做吗,温度多少?", "冷冻可以放几天?", "为什么我的面发不起来", "酱油是生抽还是老抽呀",
            "请问可以用玉米油代替黄油吗?", "没有烤箱怎么办?", "需要放冰箱冷藏多久呢", "{grams}克面粉是几勺?",
            "为什么我做的总是塌?求解", "可以提前一天做好吗?", "电饭锅可以做吗"),
        "en": ("Is it okay to skip the sugar?", "Which rack should it go on?", "Would a {few} inch tin work?",
            "Could I make this a day ahead?", "What can I substitute for eggs?", "Does it have to be full-fat?",
            "Did you use salted or unsalted?", "Any tips for high altitude?", "Can I use oil instead of butter?",
            "What if I don't have a stand mixer?", "How long does it keep in the fridge?",
            "Has anyone tried this with almond flour?", "Can you freeze it?", "Why did mine sink in the middle?",
            "Do I need to cover it while it rests?"),
    },
    "button_words": {
        "zh": ("收藏 点赞 分享 评论", "打印菜谱 加入购物清单", "关注作者 | 私信 | 举报", "上一步 下一步",
            "展开全部 收起", "跳过 写评论 查看更多", "下载APP 打开看高清大图"),
        "en": ("Jump to Recipe Print Recipe", "Save Rate Print Share", "Pin It Tweet Share Email",
            "Add to Collection | Go to Collections", "Previous Next", "Rate this recipe Leave a comment",
            "Open in app"),
    },
    "breadcrumb": {
        "zh": ("首页 > 菜谱 > {category} > {category2}", "您的位置:首页>>{category}>>正文",
            "全部分类/{category}/{category2}", "菜谱大全»{category}»{category2}"),
        "en": ("Home > Recipes > {category} > {category2}", "You are here: Home / {category} / {category2}",
            "Recipes » {category} » {category2}", "All categories / {category}"),
    },
    "keyword_list": {
        "zh": ("{dish}的做法,{dish}怎么做好吃,{dish}的家常做法大全,{dish}图解,{dish}做法视频",
            "{dish} {dish}做法 {dish}配方 {dish}窍门 {dish}热量 {dish}步骤 家常菜谱大全",
            "家常菜,{category},{dish},菜谱,美食,做法,食谱大全,{category2},减肥餐,下饭菜"),
        "en": ("{dish} recipe, easy {dish}, best {dish}, how to make {dish}, {dish} near me, {dish} calories",
            "best easy quick {dish} recipe homemade {dish} recipes 2023 {dish} ideas {dish} tips simple {dish}",
            "recipes, {category}, {category2}, dinner ideas, healthy, easy recipes, meal prep, {dish}, food blog"),
    },
    "advert": {
        "zh": ("本文含推广链接,通过链接购买我们可能获得佣金", "广告:{few}折优惠券限时领取,复制口令打开",
            "商务合作请联系邮箱 {word}@zaotai.example", "加微信 {word}{number} 免费领{many}道私房菜电子书",
            "学员招募!烘焙创业班第{few}期,加V咨询{number}", "转发并@{few}位好友,抽{few}人送平底锅一口",
            "评论区抽奖!关注+点赞就有机会", "限时福利:前{many}名免费试用", "双十一满{many}减{minutes},错过等一年"),
        "en": ("This post contains affiliate links. See our full disclosure policy.",
            "As an affiliate we earn from qualifying purchases",
            "Use code {word}{few} for {minutes}% off your first box", "Sponsored content - opinions are our own",
            "Sign up for our newsletter and get {many} free recipes!", "Our cookbook is out now! Order your copy",
            "GIVEAWAY! Tag {few} friends to win", "Comment below to enter, closes Sunday",
            "Free shipping on orders over ${minutes}", "Like and follow for a chance to win a stand mixer"),
    },
    "site_notice": {
        "zh": ("本站使用Cookie以改善您的体验,继续浏览即表示同意", "我们使用cookies,点击接受全部",
            "登录后查看更多内容", "请开启JavaScript后浏览", "版权所有 未经许可不得转载",
            "©{year} {site} All Rights Reserved", "本图文由{site}原创首发,盗图必究", "图片版权归{user}所有",
            "1杯=240毫升,1大勺=15毫升,1小勺=5毫升", "温馨提示:请在家长陪同下使用烤箱", "本菜谱仅供参考,不能替代医嘱",
            "注意用火安全,以上数据仅供参考"),
        "en": ("We use cookies to give you the best experience. Accept all",
            "This site uses cookies. By continuing you agree to our use of cookies.",
            "Your privacy matters: manage cookie preferences", "Please enable JavaScript to view this recipe",
            "© {year} {site}. All rights reserved.", "Copyright {site} {year}",
            "Do not copy or reproduce without permission. {site}", "Image property of {site} ©{year}",
            "1 cup = 240 ml, 1 tbsp = 15 ml, 1 tsp = 5 ml", "Disclaimer: nutrition values are estimates only",
            "Always consult your doctor before changing your diet", "Oven temperatures may vary, adjust accordingly"),
    },
    "default_words": {
        "zh": ("图片加载中...", "暂无描述", "请输入图片说明", "未命名图片", "菜谱封面图", "图片", "成品图",
            "点击放大"),
        "en": ("image", "recipe photo", "Enter a caption", "No description available", "Untitled", "featured image",
            "hero image", "Photo", "Loading image..."),
    },
    "small_talk": {
        "zh": ("这周好累,只想躺着", "突然降温了,大家注意保暖", "又是被闹钟叫醒的一天",
            "谢谢这{few}年来一直陪着我的你们", "下个月要去旅行啦,期待", "明天考试,求好运", "今年的目标是早睡",
            "生活不易,且行且珍惜", "晒晒太阳,发发呆,挺好", "不说了,先睡了,晚安",
            "好久没更新啦,最近忙着搬家,大家都还好吗", "哈喽大家好,我是{user},又和大家见面了", "减肥明天再说吧哈哈哈",
            "人间烟火气,最抚凡人心", "唯有爱与美食不可辜负", "愿你三餐四季,温柔有趣", "今天心情不太好,懒得写了",
            "周一又要上班了,唉"),
        "en": ("Where did the weekend go?", "Counting down the days until our trip",
            "I can hardly believe this blog is {few} years old", "Thank you for all the kind messages",
            "Monday again. Send coffee.", "We are down with a cold, so no post this week",
            "Be kind to yourself today", "Anyone else hiding from the laundry?", "More news soon, promise",
            "Big hugs to all of you", "Hello friends! It's been a while since my last post.",
            "Happy Friday everyone! Hope you all have a lovely weekend", "Life is short, eat dessert first",
            "I'm so excited to share what we've been up to", "Good things come to those who wait",
            "Sorry for being quiet lately, we moved house", "Love you all, see you next week xx"),
    },
    "emoji_only": {
        "zh": ("😋😋😋", "🤤👍👍", "❤️❤️❤️😘", "🔥🔥", "😂😂😂😂", "🎉🎉✨"),
        "en": ("😋😋", "🙌🙌🙌", "❤️😍😍", "🔥🔥🔥", "👏👏", "😂😂😂"),
    },
    "time_and_user": {
        "zh": ("{user} 发表于 {year}-{month}-{day} {hour}:{minute}", "{user} {few}天前 回复",
            "{year}年{month}月{day}日 {hour}:{minute} 来自手机客户端", "{user} LV{few} 关注"),
        "en": ("Posted by {user} on {month}/{day}/{year}", "{user} · {few} days ago · Reply",
            "{year}-{month}-{day} {hour}:{minute}", "By {user} | Updated {month}/{day}/{year}"),
    },
}  # fmt: skip
CATEGORIES = {
    "zh": ("家常菜", "热菜", "凉菜", "汤羹", "烘焙", "主食", "小吃", "川菜", "粤菜", "儿童餐", "早餐", "素食"),
    "en": ("Dinner", "Breakfast", "Baking", "Soups", "Salads", "Desserts", "Main Dishes", "Vegan", "30-Minute Meals"),
}  # fmt: skip
DAMAGE_KINDS = (
    "file_or_address",
    "mojibake_gbk",
    "mojibake_latin1",
    "lost_letters",
    "html_remains",
    "template_remains",
    "repeated_words",
)
TEXT_KINDS = (*PHRASES, "hashtags_only", *DAMAGE_KINDS)
TAGS = {
    "zh": ("美食", "吃货", "今天吃什么", "家常菜", "下饭菜", "快手菜", "零失败", "烘焙日记", "打卡", "周末",
        "我的厨房日常", "美食分享", "生活碎片", "记录"),
    "en": ("foodporn", "yummy", "instagood", "delicious", "foodie", "nomnom", "homecooking", "eatwell", "recipe",
        "dinner", "quick", "baking", "weekend", "love", "tasty", "foodstagram"),
}  # fmt: skip
REMAINS: dict[str, tuple[str, ...]] = {
    "file_or_address": (
        "IMG_$number.JPG",
        "DSC0$number",
        "mmexport16$number${number}21.jpg",
        "$stamp.jpg",
        "recipe_${number}_w640_h480_c1_t0.jpg",
        "$hash.webp",
        "Screenshot_$stamp.png",
        "微信图片_$stamp.jpg",
        "final-$number-1024x683.jpg",
        "_MG_$number copy 2",
        "https://www.zaotai.example/recipe/${number}00$number/",
        "http://img$digit.sancan.example/pic/$number/${number}_640.jpg",
        "copperladle.example/?p=$number",
        "www.thyme4.example/recipes/$number?utm_source=pin&utm_medium=social",
    ),
    "html_remains": (
        '<img src="/upload/$number.jpg" alt="" width="640"><br/>',
        '<p style="text-align:center">&nbsp;&nbsp;</p><span class="step"></span>',
        '[caption id="attachment_$number" align="aligncenter" width="600"][/caption]',
        '<div class="recipe-img lazyload" data-src="/i/$number.webp"></div>',
        "&lt;br&gt;&nbsp;&amp;nbsp;&lt;/p&gt;",
        'style="width:100%;" data-pin-nopin="true" id="img$number"',
    ),
    "template_remains": (
        "{{recipe.title}}",
        "$${step.desc}",
        "{% image caption %}",
        "%RECIPE_NAME%",
        "undefined",
        "null - undefined",
        "[object Object]",
        "{{ item.name | escape }} - {{ site.title }}",
        "<%= dish.name %>",
        "NaN人做过",
        "{0}的做法",
        '{"@type":"HowToStep","position":$digit,"image":"/p/$number.jpg"}',
        '{"id":$number,"w":640,"h":480,"type":"cover"}',
        '"recipeYield":"$digit","totalTime":"PT35M","@context":"https://schema.org"',
        "var imgs=['$number.jpg','$next.jpg'];",
    ),
}


def write_bad_caption(kind: str, language: str, clean: str, dish: str, rng: random.Random) -> str:
    """Write what stands in place of a caption; damage is done to the clean caption of the picture."""
    if kind in DAMAGE_KINDS:
        return damage(kind, language, clean, rng)
    if kind == "hashtags_only":
        return write_hashtags(language, rng)
    facts = {
        "step": str(rng.randint(1, 16)),
        "total": str(rng.randint(16, 20)),
        "level": rng.choice(("初级", "中级", "简单", "较难") if language == "zh" else ("Easy", "Medium", "Hard")),
        "flavour": rng.choice(("咸鲜", "酸甜", "麻辣", "原味")),
        "craft": rng.choice(("炒", "煮", "烤", "蒸", "炖")),
        "more": str(rng.choice((20, 25, 30, 35, 45, 50, 60, 75, 90, 120))),
        "many": str(rng.randint(100, 999)),
        "few": str(rng.randint(2, 9)),
        "category": rng.choice(CATEGORIES[language]),
        "category2": rng.choice(CATEGORIES[language]),
        "dish": dish,
        "word": "".join(rng.choices(string.ascii_lowercase, k=rng.randint(3, 6))),
        "number": str(rng.randint(1000, 999999)),
        "site": rng.choice(SITES[language]),
        "user": rng.choice(USERS),
        "year": str(rng.randint(2012, 2024)),
        "month": f"{rng.randint(1, 12):02d}",
        "day": f"{rng.randint(1, 28):02d}",
        "hour": f"{rng.randint(0, 23):02d}",
        "minute": f"{rng.randint(0, 59):02d}",
    }
    return expand(rng.choice(PHRASES[kind][language]), facts, language, rng)


def write_hashtags(language: str, rng: random.Random) -> str:
    tags = rng.sample(TAGS[language], rng.randint(3, 7))
    if language == "en":
        return " ".join(f"#{tag}" for tag in tags)
    form = rng.choice(("#{}#", "#{} ", "#{}# "))
    return "".join(form.format(tag) for tag in tags).strip()


def damage(kind: str, language: str, clean: str, rng: random.Random) -> str:
    """Return what a broken page makes of a caption, or what a program writes where it has none."""
    number = rng.randint(1000, 9999)
    if kind == "mojibake_gbk":
        return misread(clean, "gbk")
    if kind == "mojibake_latin1":
        return misread(clean, "latin-1")
    if kind == "lost_letters":
        # Punctuation of Chinese texts is lost as their characters are; U+2000 is below both.
        return "".join("?" if letter > "\u2000" else letter for letter in clean)
    if kind == "repeated_words":
        word = rng.choice(("好吃", "yummy ", "哈哈", "so good ", "香", "nom ", "绝了", "加油", "delicious! "))
        return (word * rng.randint(6, 14)).strip()
    facts = {
        "number": str(number),
        "next": str(number + 1),
        "digit": str(number % 9),
        "stamp": f"20{rng.randint(12, 24)}{rng.randint(101, 128):04d}_{rng.randint(0, 235959):06d}",
        "hash": f"{rng.getrandbits(128):032x}",
    }
    return string.Template(rng.choice(REMAINS[kind])).substitute(facts)
