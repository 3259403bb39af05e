"""What a newsroom lays over a picture, and the pictures of a news site that are no photographs: charts, maps, cards."""

import random
from collections.abc import Callable

import cv2
import making
import news_texts as texts
import numpy as np
from making import Signs
from PIL import Image, ImageDraw, ImageFilter, ImageOps

RED, BLUE, DARK, PALE = (200, 22, 30), (20, 70, 150), (35, 36, 40), (244, 244, 242)
BRAND_COLOURS = (RED, BLUE, (0, 105, 92), (245, 166, 35), (90, 30, 120))
CHART_COLOURS = ((31, 119, 180), (214, 39, 40), (44, 160, 44), (255, 127, 14), (120, 120, 130))
# Headlines stand in the list in turns, Chinese and English.
HEADLINE_PAIRS = list(zip(texts.HEADLINES[::2], texts.HEADLINES[1::2], strict=True))


class Graphics:
    """Draws the graphics of a news site.

    Args:
        rng: draws everything.
        signs: writes text into pictures.
        draw_words: returns the words that stand in templates.
    """

    def __init__(self, rng: random.Random, signs: Signs, draw_words: Callable[[], dict[str, str]]) -> None:
        self.rng, self.signs, self.draw_words = rng, signs, draw_words

    def fill(self, chinese: str, english: str) -> str:
        """Fill a template in the language that the font can write."""
        return self.signs.choose(chinese, english).format(**self.draw_words())

    def name_agency(self) -> str:
        return self.fill("{agency_zh}", "{agency_en}")

    def write_fitting(
        self, image: Image.Image, text: str, box: tuple[float, float, float, float], size: int, colour: object
    ) -> None:
        """Write a line from the left of a box, in a size at which it fits."""
        left, top, right, bottom = box
        width = self.signs.font(size).getlength(text)
        fitting = max(9, int(size * min(1, (right - left) / max(1, width))))
        self.signs.write(image, text, (left, (top + bottom) / 2), fitting, colour, "lm")

    # ------------------------------------------------------------------------------------- versions of a photograph

    def mark_agency(self, image: Image.Image) -> Image.Image:
        corner = self.rng.choice(("lower right", "lower right", "lower left", "upper right"))
        return self.signs.mark_corner(image, self.name_agency(), corner)

    def add_channel_logo(self, image: Image.Image) -> Image.Image:
        """Put a channel's logo into an upper corner: a coloured box with its name, and often "LIVE" next to it."""
        marked = image.copy()
        height = max(18, image.height // 13)
        name = self.fill("{site_zh}", "{site_en}")
        width = int(self.signs.font(int(height * 0.6)).getlength(name)) + height
        is_left = self.rng.random() < 0.6
        left, top = (14 if is_left else image.width - width - 14), 12
        draw = ImageDraw.Draw(marked)
        draw.rectangle((left, top, left + width, top + height), fill=self.rng.choice(BRAND_COLOURS))
        middle = top + height / 2
        self.signs.write(marked, name, (left + width / 2, middle), int(height * 0.6), making.WHITE)
        if is_left and self.rng.random() < 0.5:
            badge = left + width + 4
            draw.rectangle((badge, top, badge + 2.2 * height, top + height), fill=(225, 30, 30))
            at = (badge + 1.1 * height, middle)
            self.signs.write(marked, self.signs.choose("直播", "LIVE"), at, int(height * 0.55), making.WHITE)
        return marked

    def add_lower_third(self, image: Image.Image) -> Image.Image:
        """Lay the banner of a broadcast over the lower part: a headline, a line below it, often a ticker."""
        marked = image.copy()
        draw = ImageDraw.Draw(marked)
        unit = image.height // 20
        has_ticker = self.rng.random() < 0.5
        bottom = image.height - (unit if has_ticker else 0) - unit // 2
        left, top = int(image.width * 0.05), bottom - 3 * unit
        colour = self.rng.choice(BRAND_COLOURS)
        draw.rectangle((left, top, image.width - left, bottom - unit), fill=colour)
        draw.rectangle((left, bottom - unit, image.width - left, bottom), fill=PALE)
        box = (left + 8, top, image.width - left - 8, bottom - unit)
        self.write_fitting(marked, self.fill(*self.rng.choice(texts.BANNERS)), box, int(unit * 1.3), making.WHITE)
        second = self.fill("{city_zh} {month}月{day}日", "{city_en}, {Month} {day}")
        self.write_fitting(marked, second, (left + 8, bottom - unit, image.width / 2, bottom), int(unit * 0.8), DARK)
        if has_ticker:
            draw.rectangle((0, image.height - unit, image.width, image.height), fill=DARK)
            ticker = self.fill(*self.rng.choice(HEADLINE_PAIRS))
            at = (6, image.height - unit / 2)
            self.signs.write(marked, ticker, at, int(unit * 0.75), making.WHITE, "lm")
        return marked

    def add_play_button(self, image: Image.Image) -> Image.Image:
        """Draw the button of a video over the middle, and its length into a corner."""
        layer = Image.new("RGBA", image.size)
        draw = ImageDraw.Draw(layer)
        x, y, radius = image.width / 2, image.height / 2, min(image.size) / self.rng.choice((7, 9, 11))
        disc = self.rng.choice(((0, 0, 0, 150), (255, 255, 255, 200), (*self.rng.choice(BRAND_COLOURS), 230)))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=disc)
        ink = DARK if disc[0] == 255 else making.WHITE
        triangle = [(x - radius * 0.3, y - radius * 0.5), (x - radius * 0.3, y + radius * 0.5), (x + radius * 0.55, y)]
        draw.polygon(triangle, fill=ink)
        draw.rectangle((image.width - 58, image.height - 28, image.width - 8, image.height - 8), fill=(0, 0, 0, 170))
        marked = image.copy()
        marked.paste(layer.convert("RGB"), (0, 0), layer.getchannel("A"))
        length = f"{self.rng.randint(0, 12):02d}:{self.rng.randint(0, 59):02d}"
        self.signs.write(marked, length, (image.width - 33, image.height - 18), 14, making.WHITE)
        return marked

    def fill_around(self, image: Image.Image) -> Image.Image:
        """Set an upright picture into a wide frame, a wide one into a square, filled with its blurred enlargement."""
        width, height = image.size
        frame_size = (height * 16 // 9, height) if height > width else (width, max(width, height * 5 // 4))
        frame = ImageOps.fit(image, frame_size).filter(ImageFilter.GaussianBlur(14))
        frame = making.change_brightness(frame, 0.75)
        frame.paste(image, ((frame.width - width) // 2, (frame.height - height) // 2))
        return frame

    def number_in_gallery(self, image: Image.Image) -> Image.Image:
        """Draw the arrows and the number of a gallery over a picture."""
        marked = image.copy()
        draw = ImageDraw.Draw(marked)
        total = self.rng.randint(5, 24)
        draw.rounded_rectangle((image.width - 66, 10, image.width - 10, 34), radius=10, fill=(30, 30, 30))
        number = f"{self.rng.randint(1, total)}/{total}"
        self.signs.write(marked, number, (image.width - 38, 22), 14, making.WHITE)
        middle = image.height // 2
        for x, tip in ((22, 12), (image.width - 22, image.width - 12)):
            draw.line([(x, middle - 16), (tip, middle), (x, middle + 16)], fill=making.WHITE, width=4)
        return marked

    def make_teaser_card(self, image: Image.Image) -> Image.Image:
        """Darken the lower half and write a headline over it, as the cards of a front page."""
        share = np.clip(np.linspace(-0.6, 0.9, image.height), 0, 0.8)[:, None, None]
        card = Image.fromarray((np.asarray(image) * (1 - share)).astype(np.uint8))
        top = image.height * 0.72
        unit = max(12, image.width // 20)
        badge = self.fill("{section_zh}", "{section_en}")
        width = self.signs.font(unit * 3 // 4).getlength(badge)
        draw = ImageDraw.Draw(card)
        draw.rectangle((14, top, 26 + width, top + unit * 1.2), fill=self.rng.choice(BRAND_COLOURS))
        self.signs.write(card, badge, (20, top + unit * 0.6), unit * 3 // 4, making.WHITE, "lm")
        box = (14, top + unit * 1.3, image.width - 14, image.height - 6)
        self.write_fitting(card, self.fill(*self.rng.choice(HEADLINE_PAIRS)), box, unit, making.WHITE)
        return card

    def print_halftone(self, image: Image.Image) -> Image.Image:
        """Make the scan of a printed page: a grey screen of dots on yellowish paper."""
        grey = np.asarray(image.convert("L"), np.float32) / 255
        rows, columns = np.mgrid[: image.height, : image.width]
        screen = np.cos((rows + columns) * 1.1) * np.cos((rows - columns) * 1.1) * 0.22
        dots = cv2.GaussianBlur(np.clip((grey + screen - 0.5) * 2 + 0.5, 0, 1), (0, 0), 0.8)
        paper, ink = np.array((236, 228, 208)), np.array((40, 38, 38))
        return Image.fromarray((dots[..., None] * paper + (1 - dots[..., None]) * ink).astype(np.uint8))

    def tint(self, image: Image.Image) -> Image.Image:
        """Colour a picture in two tones, as features and opinion pieces have it."""
        dark, light = self.rng.choice(
            (((40, 26, 13), (255, 240, 214)), ((8, 20, 60), (225, 238, 255)), ((60, 8, 20), (255, 226, 200)))
        )
        return ImageOps.colorize(image.convert("L"), dark, light)

    # -------------------------------------------------------------------------------------------- local alterations

    def circle_in_red(self, image: Image.Image) -> Image.Image:
        """Draw a red circle around a detail, with an arrow to it."""
        marked = image.copy()
        draw = ImageDraw.Draw(marked)
        radius = min(image.size) // self.rng.choice((9, 11))
        x, y = (
            self.rng.randint(image.width // 3, image.width * 2 // 3),
            self.rng.randint(image.height // 3, image.height * 2 // 3),
        )
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=(235, 20, 20), width=4)
        draw.line((x - 2.4 * radius, y - 2.4 * radius, x - radius, y - radius), fill=(235, 20, 20), width=4)
        return marked

    def mosaic_patch(self, image: Image.Image) -> Image.Image:
        """Make a face or number plate unrecognisable."""
        marked = image.copy()
        side = min(image.size) // 6
        # Near the middle, where the picture shows something.
        left, top = int(image.width * self.rng.uniform(0.35, 0.5)), int(image.height * self.rng.uniform(0.3, 0.5))
        box = (left, top, left + side, top + side)
        marked.paste(making.pixelate(image.crop(box), 4).resize((side, side), Image.Resampling.NEAREST), box)
        return marked

    def write_placard(self, image: Image.Image, text: str) -> Image.Image:
        """Stand a placard with a text in front of the picture."""
        marked = image.copy()
        draw = ImageDraw.Draw(marked)
        width, height = image.width * 0.36, image.height * 0.16
        left, top = image.width * 0.32, image.height * 0.62
        draw.rectangle((left + width / 2 - 4, top + height, left + width / 2 + 4, image.height), fill=(140, 105, 70))
        draw.rectangle((left, top, left + width, top + height), fill=(250, 248, 240), outline=(60, 60, 60), width=2)
        self.signs.write(marked, text, (left + width / 2, top + height / 2), int(height * 0.5), (30, 30, 40))
        return marked

    def write_number(self, image: Image.Image, number: str, colour: object) -> Image.Image:
        """Write a number onto the middle of a picture, on a white plate."""
        marked = image.copy()
        x, y, half = image.width / 2, image.height * 0.55, image.height // 11
        ImageDraw.Draw(marked).rounded_rectangle((x - half, y - half, x + half, y + half), 6, fill=making.WHITE)
        self.signs.write(marked, number, (x, y), image.height // 9, colour)
        return marked

    # ----------------------------------------------------------------------------------- pictures of something else

    def make_bar_chart(self) -> Image.Image:
        """Make bars, upright or lying, with a title, values and a source."""
        chart, draw = self._start_chart()
        colour = self.rng.choice(CHART_COLOURS)
        values = [self.rng.randint(8, 100) for _ in range(self.rng.randint(4, 8))]
        start_year = self.rng.randint(2012, 2018)
        if self.rng.random() < 0.6:
            step = 480 // len(values)
            for index, value in enumerate(values):
                left = 30 + index * step
                draw.rectangle((left, 330 - value * 2.2, left + step * 0.65, 330), fill=colour)
                self.signs.write(chart, str(value), (left + step * 0.32, 320 - value * 2.2), 12, DARK)
                self.signs.write(chart, str(start_year + index), (left + step * 0.32, 344), 12, DARK)
            draw.line((24, 330, 520, 330), fill=DARK, width=2)
            return chart
        for index, value in enumerate(values):
            top = 84 + index * 260 // len(values)
            place = self.rng.choice([place for places in texts.PLACES.values() for place in places])
            self.signs.write(chart, self.signs.choose(*place)[:8], (110, top + 11), 13, DARK, "rm")
            draw.rectangle((120, top, 120 + value * 3.4, top + 22), fill=colour)
            self.signs.write(chart, f"{value}%", (126 + value * 3.4, top + 11), 12, DARK, "lm")
        return chart

    def make_chart(self, image: Image.Image) -> Image.Image:
        return self.make_bar_chart() if self.rng.random() < 0.5 else self.make_line_chart()

    def make_line_chart(self) -> Image.Image:
        """Make one to three curves over a grid."""
        chart, draw = self._start_chart()
        for line in range(5):
            y = 90 + line * 60
            draw.line((50, y, 520, y), fill=(215, 215, 215))
            self.signs.write(chart, str(100 - line * 25), (42, y), 12, (110, 110, 110), "rm")
        for colour in self.rng.sample(CHART_COLOURS, self.rng.randint(1, 3)):
            value, points = self.rng.uniform(120, 280), []
            for x in range(50, 521, 10):
                value = min(325, max(92, value + self.rng.gauss(0, 13)))
                points.append((x, value))
            draw.line(points, fill=colour, width=3)
        start_year = self.rng.randint(1995, 2014)
        for index in range(5):
            self.signs.write(chart, str(start_year + 2 * index), (60 + index * 110, 346), 12, DARK)
        return chart

    def _start_chart(self) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        background = self.rng.choice((making.WHITE, PALE, (253, 241, 228), (232, 240, 246)))
        chart = Image.new("RGB", (540, 390), background)
        draw = ImageDraw.Draw(chart)
        draw.rectangle((20, 14, 50, 19), fill=RED)
        title = self.fill("{section_zh}行业景气指数（{year}年）", "{section_en}: change since {year}")
        self.signs.write(chart, title, (20, 40), 20, DARK, "lm")
        source = self.fill("数据来源：{agency_zh}  制图：{photographer_zh}", "Source: {agency_en}. Graphic: {site_en}")
        self.signs.write(chart, source, (20, 374), 12, (120, 120, 120), "lm")
        return chart, draw

    def make_locator_map(self, image: Image.Image) -> Image.Image:
        """Make a map of land and sea with a border, roads and a pin at a place."""
        noise = np.random.default_rng(self.rng.getrandbits(32))
        width, height = self.rng.choice(((480, 360), (420, 420), (560, 340)))
        relief = making.make_smooth_noise(noise, height, width, (3, 4), 0.5)
        sea, land, border = self.rng.choice(
            (((190, 214, 230), (243, 240, 230), (170, 165, 150)), ((205, 222, 236), (225, 228, 215), (120, 120, 120)))
        )
        pixels = np.where(relief[..., None] > -0.3, np.array(land), np.array(sea)).astype(np.uint8)
        coast = cv2.Canny(((relief > -0.3) * 255).astype(np.uint8), 50, 150) > 0
        inner = cv2.Canny(((relief > 0.5) * 255).astype(np.uint8), 50, 150) > 0
        pixels[coast], pixels[inner] = border, (200, 110, 110)
        graphic = Image.fromarray(pixels)
        draw = ImageDraw.Draw(graphic)
        for _ in range(self.rng.randint(2, 4)):
            x, y = self.rng.randint(40, width - 120), self.rng.randint(40, height - 40)
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=DARK)
            self.signs.write(graphic, self.fill("{city_zh}", "{city_en}"), (x + 8, y), 13, DARK, "lm")
        x, y = width // 2, height // 2
        draw.polygon([(x, y), (x - 10, y - 22), (x + 10, y - 22)], fill=RED)
        draw.ellipse((x - 11, y - 36, x + 11, y - 14), fill=RED)
        draw.line((20, height - 20, 100, height - 20), fill=DARK, width=2)
        self.signs.write(graphic, f"{self.rng.choice((5, 50, 200))} km", (60, height - 30), 12, DARK)
        return graphic

    def make_site_logo(self, image: Image.Image) -> Image.Image:
        """Make the logo that a site shows where an article has no picture."""
        colour = self.rng.choice(BRAND_COLOURS)
        is_dark = self.rng.random() < 0.5
        logo = Image.new(
            "RGB", self.rng.choice(((480, 270), (300, 300), (400, 210))), colour if is_dark else making.WHITE
        )
        words = self.draw_words()
        name = self.signs.choose(words["site_zh"], words["site_en"])
        ink = making.WHITE if is_dark else colour
        size = int(min(logo.height * 0.3, logo.width * 0.8 / max(1, self.signs.font(10).getlength(name) / 10)))
        self.signs.write(logo, name, (logo.width / 2, logo.height * 0.48), size, ink)
        draw = ImageDraw.Draw(logo)
        y = logo.height * 0.72
        draw.rectangle((logo.width * 0.3, y, logo.width * 0.7, y + 4), fill=ink)
        self.signs.write(logo, self.signs.choose(words["host_zh"], words["host_en"]), (logo.width / 2, y + 22), 14, ink)
        return logo

    def make_qr_code(self, image: Image.Image) -> Image.Image:
        """Make the code with which a site sends readers to its app."""
        words = self.draw_words()
        code = cv2.QRCodeEncoder.create().encode(f"https://{words['host']}/app?c={words['code']}{words['number']}")
        card = Image.new("RGB", self.rng.choice(((300, 360), (340, 340))), self.rng.choice((making.WHITE, PALE)))
        side = 240
        bits = Image.fromarray(code).resize((side, side), Image.Resampling.NEAREST).convert("RGB")
        card.paste(bits, ((card.width - side) // 2, 24))
        line = self.fill("扫一扫 手机看{site_zh}", "Scan to get the {site_en} app")
        self.write_fitting(card, line, (20, 280, card.width - 20, card.height - 10), 20, RED)
        return card

    def make_post(self, image: Image.Image) -> Image.Image:
        """Make the screenshot of a post with a portrait, some lines, and numbers of likes."""
        is_dark = self.rng.random() < 0.35
        paper, ink = ((21, 32, 43), (235, 238, 240)) if is_dark else (making.WHITE, DARK)
        post = Image.new("RGB", (520, self.rng.choice((260, 300, 340))), paper)
        face = ImageOps.fit(image, (52, 52))
        mask = Image.new("L", (52, 52))
        ImageDraw.Draw(mask).ellipse((0, 0, 51, 51), fill=255)
        post.paste(face, (20, 20), mask)
        self.signs.write(post, self.fill("{photographer_zh}", "{photographer_en}"), (86, 36), 18, ink, "lm")
        handle = self.fill("{month}-{day} {h}:{minute} 来自手机客户端", "@{code} · {Month} {day}")
        self.signs.write(post, handle, (86, 60), 13, (130, 140, 150), "lm")
        posts = texts.POSTS_ZH if self.signs.path else texts.POSTS_EN
        for index, line in enumerate(self.rng.sample(posts, self.rng.randint(1, 3))):
            self.signs.write(post, line.format(**self.draw_words()), (22, 110 + index * 34), 20, ink, "lm")
        counts = [str(self.rng.randint(1, 9000)) for _ in range(3)]
        labels = self.signs.choose("转发 评论 赞", "Reposts Replies Likes").split()
        footer = "      ".join(f"{label} {count}" for label, count in zip(labels, counts, strict=True))
        self.signs.write(post, footer, (22, post.height - 28), 14, (130, 140, 150), "lm")
        return post

    def make_document(self, image: Image.Image) -> Image.Image:
        """Make the scan of a notice, slightly turned, with a red seal."""
        page = Image.new("RGB", (430, 560), (252, 251, 247))
        lines = texts.DOCUMENT_ZH if self.signs.path else texts.DOCUMENT_EN
        words = self.draw_words()
        for index, line in enumerate(lines):
            text = line.format(**words)
            if index == 0:
                self.signs.write(page, text, (215, 60), 20, RED if self.signs.path else DARK)
            else:
                self.write_fitting(page, text, (44, 90 + index * 48, 390, 110 + index * 48), 17, DARK)
        draw = ImageDraw.Draw(page)
        draw.line((44, 90, 386, 90), fill=RED, width=2)
        x, y = self.rng.randint(270, 330), self.rng.randint(440, 480)
        draw.ellipse((x - 48, y - 48, x + 48, y + 48), outline=(215, 40, 40), width=4)
        self.signs.write(page, "★", (x, y), 34, (215, 40, 40))
        turned = page.rotate(self.rng.uniform(-2.5, 2.5), Image.Resampling.BICUBIC, fillcolor=(120, 116, 110))
        grain = np.random.default_rng(self.rng.getrandbits(32)).normal(0, 4, (560, 430, 1))
        return Image.fromarray(np.clip(np.asarray(turned) + grain, 0, 255).astype(np.uint8))

    def make_breaking_card(self, image: Image.Image) -> Image.Image:
        """Make a card that bears one word in large letters."""
        colour = self.rng.choice(BRAND_COLOURS)
        width, height = self.rng.choice(((480, 270), (400, 400)))
        darker = tuple(level // 3 for level in colour)
        card = making.make_gradient(width, height, colour, darker)
        word = self.rng.choice(texts.CARDS if self.signs.path else texts.CARDS_EN)
        self.signs.write(card, word, (width / 2, height * 0.45), width // (len(word) + 2), making.WHITE)
        line = self.fill("{site_zh} {year}-{month}-{day}", "{site_en} | {Month} {day}, {year}")
        self.signs.write(card, line, (width / 2, height * 0.8), 18, (240, 230, 200))
        return card

    def make_placeholder(self, image: Image.Image) -> Image.Image:
        """Make what stands in place of a video or picture that is gone."""
        level = self.rng.choice((20, 40, 225, 240))
        picture = Image.new("RGB", self.rng.choice(((480, 270), (400, 300))), (level,) * 3)
        ink = (150, 150, 150)
        x, y = picture.width / 2, picture.height * 0.42
        ImageDraw.Draw(picture).polygon([(x - 18, y - 26), (x - 18, y + 26), (x + 28, y)], outline=ink, width=4)
        chinese = self.rng.choice(("视频加载失败，请刷新重试", "该图片已被作者删除", "暂无图片", "当前版本不支持播放"))
        english = self.rng.choice(
            ("This video is no longer available", "Image not found", "This content is not available")
        )
        self.signs.write(picture, self.signs.choose(chinese, english), (x, picture.height * 0.7), 17, ink)
        return picture

    def make_page(self, image: Image.Image) -> Image.Image:
        """Make the screenshot of an article: the head of the site, a headline, a small picture, lines of text."""
        page = Image.new("RGB", (440, 620), making.WHITE)
        draw = ImageDraw.Draw(page)
        draw.rectangle((0, 0, 440, 46), fill=self.rng.choice(BRAND_COLOURS))
        self.signs.write(page, self.fill("{site_zh}", "{site_en}"), (16, 23), 20, making.WHITE, "lm")
        self.write_fitting(page, self.fill(*self.rng.choice(HEADLINE_PAIRS)), (16, 64, 424, 100), 24, DARK)
        meta = self.fill(
            "{year}-{month}-{day} 来源：{agency_zh} 编辑：{photographer_zh}",
            "By {photographer_en}, {day} {Month} {year}",
        )
        self.signs.write(page, meta, (16, 116), 12, (140, 140, 140), "lm")
        page.paste(ImageOps.fit(image, (200, 130)), (16, 140))
        for index, pair in enumerate(self.rng.sample(HEADLINE_PAIRS, self.rng.randint(6, 10))):
            headline = self.fill(*pair)
            left = 230 if index < 4 else 16
            self.write_fitting(page, headline, (left, 142 + index * 34, 424, 168 + index * 34), 15, (70, 70, 70))
        draw.rectangle((0, 560, 440, 620), fill=(235, 235, 238))
        self.signs.write(page, self.signs.choose("评论  分享  收藏", "Comment   Share   Save"), (220, 590), 16, DARK)
        return page
