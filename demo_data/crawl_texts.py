"""Captions of the synthetic crawl (crawl.py): good ones made of names and tags, and the junk in alt text."""

from collections.abc import Sequence
from typing import Any

import numpy as np

TEMPLATES = {
    "en": (
        "{names}, a drawing of {tags}",
        "Illustration: {names} ({tags})",
        "{names} | {tags}, free clip art",
        "A colourful picture of {names}, {tags}",
    ),
    "zh": (
        "{names}，{tags}的插图",
        "{tags}：{names}的彩色图画",
        "{names}卡通素材，{tags}",
        "一幅画着{names}的图片，{tags}",
    ),
}
AND = {"en": " and ", "zh": "和"}
COMMA = {"en": ", ", "zh": "、"}
DEFAULT_TAG = {"en": "icon", "zh": "图标"}  # of drawings without tags other than their names

# Kind -> patterns: `#` is a digit, `@` a hexadecimal digit, `{d}` a date.
JUNK = {
    "filename": (
        "IMG_####.JPG",
        "DSC_####.jpg",
        "DSC0####.JPG",
        "微信图片_{d}######.jpg",
        "mmexport16###########.jpg",
        "Screenshot_{d}-######.png",
        "{d}_######.jpg",
        "QQ截图{d}######.png",
        "P10####0.JPG",
        "image (##).png",
        "IMG_{d}_######_##.jpg",
        "@@@@@@@@-@@@@-@@@@.webp",
        "u=##########,########&fm=26&gp=0.jpg",
        "屏幕截图 {d} ######.png",
    ),
    "url": (
        "https://www.example.com/products/######?ref=@@@@",
        "http://img.example.cn/upload/{d}/@@@@@@@@@@",
        "www.example.org/gallery/####",
        "更多精彩请访问 http://www.example.cn/a/######.html",
        "see the full size at https://example.com/p/@@@@@@@@",
        "图片来源：www.example.com.cn/news/####",
        "Buy it here: shop.example.com/item/#######",
    ),
    "markup": (
        '<img src="/i/####.gif" alt="">',
        "&nbsp;&nbsp;&nbsp;#### &raquo; &nbsp;",
        "[img]@@@@@@[/img] [url=####]",
        '<span class="t####">图片标题</span>',
        '<a href="/p/####">click to enlarge</a>',
        "{{ product.title_#### }}",
        "<b>新品上市</b><br/>第##期",
        '<p style="color:red" id="p####">sale now on</p>',
        "&lt;div id=&quot;p####&quot;&gt;",
    ),
    "phone": (
        "咨询热线：138-####-####",
        "全国统一客服电话 400-###-####",
        "订购请加微信 139########",
        "电话：021-5### ####，欢迎来电",
        "Call us now at 1-800-###-####",
        "For orders phone +44 20 7### ####",
        "Tel. (555) ###-####, ask for Jane",
        "联系人王经理 手机 186########",
    ),
    "placeholder": (
        "暂无图片",
        "图片加载中",
        "点击查看大图",
        "缩略图",
        "图片",
        "无标题",
        "默认图片",
        "no image available",
        "Image not found",
        "placeholder",
        "untitled",
        "loading...",
        "image",
        "click to enlarge",
        "thumbnail",
        "photo",
    ),
    "length": ("#", "—", "@", "。", "图", "ok", "##", "..."),
}
REPEATED = (
    "欢迎来到我们的官方旗舰店选购商品",
    "新款包邮 厂家直销 品质保证",
    "Welcome to our online store for gifts and more",
    "2021年最新高清壁纸精选大全",
    "The best free pictures of the whole internet",
    "本店所有商品均为实物拍摄，请放心购买",
    "Our newsletter brings you the latest offers",
    "Subscribe to our channel for more videos",
)
# Language -> a sentence with three slots, and the words for each slot.
OTHER_LANGUAGES = {
    "ja": (
        "{}{}の{}です",
        "かわいい|大きな|きれいな|新しい|古い|白い",
        "ねこ|おもちゃ|りんご|くるま|さくら|ケーキ",
        "イラスト|しゃしん|おすすめの素材|かべがみ|おみやげ|絵はがき",
    ),
    "ko": (
        "{} {}의 {}",
        "귀여운|커다란|예쁜|새로운|오래된|하얀",
        "고양이|장난감|사과|자동차|벚꽃|케이크",
        "그림입니다|사진 모음|무료 이미지|배경 화면|기념품|엽서",
    ),
    "ru": (
        "{} {} {}",
        "красивая|большая|новая|старая|белая|весёлая",
        "кошка|машина|игрушка|собака|птица|чашка",
        "на картинке|на фотографии|в нашем магазине|для детей|на столе|у дома",
    ),
    "ar": (
        "{} {} {}",
        "صورة|رسم|خلفية|لوحة|بطاقة|ملصق",
        "قطة|سيارة|تفاحة|زهرة|لعبة|طائر",
        "جميلة جدا|كبيرة الحجم|للأطفال|مجانية|بألوان زاهية|في البيت",
    ),
    "th": (
        "{}{}{}",
        "ภาพวาด|รูปถ่าย|ภาพพื้นหลัง|การ์ด|สติกเกอร์|โปสเตอร์",
        "แมว|รถยนต์|แอปเปิล|ดอกไม้|ของเล่น|นก",
        "น่ารักมาก|ขนาดใหญ่|สำหรับเด็ก|ฟรี|สีสันสดใส|ในบ้าน",
    ),
    "fr": (
        "{} avec {} et {}",
        "une belle image|un grand dessin|la nouvelle photo|notre affiche|le vieux tableau|cette carte",
        "un chat|une voiture|des fleurs|le petit oiseau|une pomme rouge|les jouets",
        "le ciel bleu|beaucoup de couleurs|des enfants qui jouent|la maison|une tasse de café|le chien du voisin",
    ),
    "de": (
        "{} mit {} und {}",
        "ein schönes Bild|eine große Zeichnung|das neue Foto|unser Plakat|das alte Gemälde|diese Karte",
        "einer Katze|einem Auto|vielen Blumen|dem kleinen Vogel|einem roten Apfel|den Spielsachen",
        "dem blauen Himmel|vielen Farben|spielenden Kindern|dem Haus|einer Tasse Kaffee|dem Hund des Nachbarn",
    ),
    "es": (
        "{} con {} y {}",
        "una bonita imagen|un gran dibujo|la nueva foto|nuestro cartel|el viejo cuadro|esta tarjeta",
        "un gato|un coche|muchas flores|el pajarito|una manzana roja|los juguetes",
        "el cielo azul|muchos colores|los niños que juegan|la casa|una taza de café|el perro del vecino",
    ),
}


class Texts:
    """Makes captions with a generator of random numbers."""

    def __init__(self, rng: np.random.Generator):
        self._rng = rng

    def make_caption(self, drawings: Sequence[Any], different_from: str = "") -> str:
        """Return a caption in Chinese or English of drawings that are in one image.

        Args:
            drawings: have `names` and `tags` by language, see `crawl.Drawing`.
            different_from: a caption that must not come again.
        """
        while True:
            language = self._choose(["zh", "en"])
            names = [drawing.names[language] for drawing in drawings]
            tags: list[str] = []
            for drawing in drawings:
                tags += [tag for tag in drawing.tags[language] if tag != drawing.names[language]]
            if not tags:
                tags = [DEFAULT_TAG[language]]
            tags = self._rng.permutation(tags)[:3].tolist()
            template = self._choose(TEMPLATES[language])
            caption = template.format(names=AND[language].join(names), tags=COMMA[language].join(tags))
            if caption != different_from:
                return caption

    def make_junk(self, kind: str) -> tuple[str, str]:
        """Return a caption that describes nothing, and what it is made of.

        Args:
            kind: a key of `JUNK`, or "language" for a language that is neither Chinese nor English.
        """
        if kind == "language":
            language = self._choose(list(OTHER_LANGUAGES))
            sentence, *slots = OTHER_LANGUAGES[language]
            words = [self._choose(slot.split("|")) for slot in slots]
            return sentence.format(*words), language
        # Half of the captions of a bad length are stuffed with key words, the others are too short.
        if kind == "length" and self._rng.random() < 0.5:
            words = self._rng.choice(["cheap", "buy", "sale", "best", "free", "shop", "price", "new"], 400).tolist()
            return " ".join(words), "long"

        pattern = self._choose(JUNK[kind])
        # Drawn for patterns without a date as well.
        year, month, day = self._rng.integers(10, 25), self._rng.integers(1, 13), self._rng.integers(1, 29)
        text = pattern.replace("{d}", f"20{year}{month:02}{day:02}")
        for mark, base in (("#", 10), ("@", 16)):
            while mark in text:
                text = text.replace(mark, f"{self._rng.integers(base):x}", 1)
        return text, pattern

    def _choose(self, values: Sequence[str]) -> str:
        return values[int(self._rng.integers(len(values)))]
