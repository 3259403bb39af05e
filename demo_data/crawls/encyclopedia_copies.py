"""What mirrors, question-and-answer sites and schoolbooks make of pictures, and pictures that show nothing."""

import math
import random
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from making import (
    WHITE,
    Signs,
    add_noise,
    blur,
    change_brightness,
    change_contrast,
    crop_margins,
    desaturate,
    make_collage,
    make_gradient,
    make_smooth_noise,
    mirror,
    pixelate,
    recompress,
    resize_by,
    tint,
)
from PIL import Image, ImageDraw, ImageFilter, ImageOps

INK = (30, 30, 34)
SITES = ("baike5.example", "WIKIMIRROR", "kidspedia.example", "answer-hub", "xuexi100.example", "PlantsDB", "FactPool")
# fmt: off
WORDS = (
    "the", "of", "and", "in", "to", "a", "was", "is", "as", "by", "for", "with", "on", "from", "which",
    "were", "its", "during", "century", "early", "later", "first", "region", "known", "used", "also",
    "between", "species", "family", "river", "town", "church", "built", "century", "population", "modern",
    "form", "common", "large", "small", "northern", "southern", "part", "name", "word", "energy", "water",
    "light", "plant", "animal", "leaf", "wing", "wheel", "engine", "crown", "island", "empire", "museum",
    "science", "history", "number", "figure", "table", "method", "result",
)
# fmt: on

# Changes with their strengths; strengths of one change take turns.
CHANGES: dict[str, tuple[Any, ...]] = {
    "thumb": (0.35, 0.55),
    "small_enlarged": (0.3, 0.45),
    "saved_again": (12, 25),
    "few_colours": (16, 48),
    "grey_print": ("",),
    "halftone": (3, 4),
    "photocopy": (1.6, 2.4),
    "book_scan": (0.5, 1.0),
    "page_photo": (0.02, 0.05),
    "worksheet": (0.62, 0.8),
    "slide": (0.55, 0.7),
    "infobox": (3, 6),
    "phone_page": (0.5, 0.6),
    "mirror_corner": (0.05, 0.09),
    "mirror_tiles": (0.14, 0.26),
    "mirror_middle": (0.35, 0.6),
    "site_bar": (0.08, 0.13),
    "numbered": (3, 6),
    "answer_hidden": (0.1, 0.2),
    "crop": (0.1, 0.2, 0.3),
    "square_crop": ("",),
    "round_crop": ("",),
    "mirrored": ("",),
    "on_side": (90, 270),
    "stretched": (0.8, 1.25),
    "padded": ("white", "black"),
    "levels": (0.75, 1.3),
    "sepia": (0.35, 0.7),
    "inverted": ("",),
    "new_ground": ("black", "paper", "blue"),
    "traced": (4, 6),
}
NEEDED_TRAITS = {"inverted": "drawing", "traced": "drawing", "new_ground": "white"}
IMAGE_KINDS = (
    "collage",
    "gallery_page",
    "text_page",
    "article_screenshot",
    "notice_box",
    "no_picture",
    "qr_code",
    "half_loaded",
    "decode_noise",
    "blank_scan",
    "text_slide",
    "preview_blur",
)


def can_change(kind: str, traits: frozenset[str]) -> bool:
    """Return whether a change makes sense for a picture: maps and flags are not mirrored, photographs not inverted."""
    if kind == "mirrored":
        return "sided" not in traits
    return kind not in NEEDED_TRAITS or NEEDED_TRAITS[kind] in traits


class Typesetter:
    """Writes lines of running text as small type.

    Args:
        signs: has the font.
        rng: draws the words.
    """

    def __init__(self, signs: Signs, rng: random.Random) -> None:
        self.signs, self.rng = signs, rng

    def draw_words(self, count: int) -> str:
        return " ".join(self.rng.choice(WORDS) for _ in range(count)).capitalize()

    def fill(self, image: Image.Image, box: tuple[float, float, float, float], size: int, colour: Any = INK) -> None:
        """Fill a box with lines; a paragraph ends here and there."""
        left, top, right, bottom = box
        font, draw = self.signs.font(size), ImageDraw.Draw(image)
        y = top
        while y + size < bottom:
            width = (right - left) * (
                self.rng.uniform(0.2, 0.8) if self.rng.random() < 0.12 else self.rng.uniform(0.94, 1)
            )
            line = self.draw_words(3)
            while draw.textlength(line, font=font) < width - size * 2:
                line += " " + self.rng.choice(WORDS)
            draw.text((left, y), line, font=font, fill=colour)
            y += size * 1.4


class Reuse:
    """Changes a picture as those do who copy it.

    Args:
        typesetter: writes the text around it.
        signs: writes marks.
        rng: draws what a strength leaves open.
    """

    def __init__(self, typesetter: Typesetter, signs: Signs, rng: random.Random) -> None:
        self.typesetter, self.signs, self.rng = typesetter, signs, rng

    def change(self, image: Image.Image, kind: str, strength: Any) -> Image.Image:
        return getattr(self, kind)(image, strength)

    def thumb(self, image: Image.Image, factor: float) -> Image.Image:
        return resize_by(image, factor)

    def small_enlarged(self, image: Image.Image, factor: float) -> Image.Image:
        small = recompress(resize_by(image, factor), 70)
        return small.resize(image.size, Image.Resampling.BICUBIC)

    def saved_again(self, image: Image.Image, quality: int) -> Image.Image:
        return recompress(image, quality)

    def few_colours(self, image: Image.Image, count: int) -> Image.Image:
        """Reduce to a palette, as a GIF has it."""
        dither = self.rng.choice((Image.Dither.FLOYDSTEINBERG, Image.Dither.NONE))
        palette = image.quantize(count, method=Image.Quantize.MEDIANCUT)
        return image.quantize(palette=palette, dither=dither).convert("RGB")

    def grey_print(self, image: Image.Image, _: str) -> Image.Image:
        return desaturate(image)

    def halftone(self, image: Image.Image, cell: int) -> Image.Image:
        """Print in black dots, as cheap schoolbooks do."""
        grey = np.asarray(blur(image, 0.8).convert("L"), np.float32) / 255
        rows, columns = np.mgrid[0 : image.height, 0 : image.width].astype(np.float32)
        pitch = math.pi / cell
        screen = 0.5 + 0.25 * (np.cos((rows + columns) * pitch) + np.cos((rows - columns) * pitch))
        dots = np.clip((grey - screen) * 4 + 0.5, 0, 1)
        return Image.fromarray((dots * 215 + 30).astype(np.uint8)).convert("RGB")

    def photocopy(self, image: Image.Image, factor: float) -> Image.Image:
        copied = change_contrast(desaturate(image), factor)
        return add_noise(blur(copied, 0.7), 9, self.rng)

    def book_scan(self, image: Image.Image, strength: float) -> Image.Image:
        """Scan from a book: yellowed paper, a shadow towards the spine, a slight turn."""
        margin = int(min(image.size) * 0.08)
        page = ImageOps.expand(image, margin, (248, 244, 232))
        page = page.rotate(
            self.rng.choice((-1, 1)) * strength * 1.4, Image.Resampling.BICUBIC, fillcolor=(248, 244, 232)
        )
        shade = 1 - 0.45 * strength * np.exp(-np.arange(page.width, dtype=np.float32) / (page.width * 0.09))
        if self.rng.random() < 0.5:
            shade = shade[::-1]
        paper = np.array((1.0, 0.97, 0.88 - 0.06 * strength), np.float32)
        pixels = np.asarray(page, np.float32) * shade[None, :, None] * paper
        return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))

    def page_photo(self, image: Image.Image, strength: float) -> Image.Image:
        """Photograph the page of a schoolbook that shows the picture."""
        page = self.worksheet(image, 0.86)
        width, height = page.size
        shifts = [
            (self.rng.uniform(0.2, 1) * strength * width, self.rng.uniform(0.2, 1) * strength * height)
            for _ in range(4)
        ]
        signs = ((1, 1), (-1, 1), (-1, -1), (1, -1))
        corners = np.array(((0, 0), (width, 0), (width, height), (0, height)), np.float32)
        target = corners + np.array(
            [(x * sx, y * sy) for (x, y), (sx, sy) in zip(shifts, signs, strict=True)], np.float32
        )
        warped = cv2.warpPerspective(
            np.asarray(page), cv2.getPerspectiveTransform(corners, target), page.size, borderValue=(96, 78, 60)
        )
        light = np.linspace(self.rng.uniform(0.72, 0.9), self.rng.uniform(0.95, 1.08), width)[None, :, None]
        pixels = warped * light * np.array((1, 0.97, 0.91))
        return add_noise(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), 4, self.rng)

    def worksheet(self, image: Image.Image, share: float) -> Image.Image:
        """Set into a page, with questions below and a heading above; the picture has this share of the width."""
        width, height = int(image.width / share), int(image.height / share * self.rng.uniform(1.0, 1.15))
        page = Image.new("RGB", (width, height), (253, 253, 251))
        left, top = (width - image.width) // 2, int(height * 0.07)
        self.signs.write(page, self.typesetter.draw_words(3), (width / 2, top / 2), 14, INK)
        page.paste(image, (left, top))
        self.typesetter.fill(page, (18, top + image.height + 8, width - 18, height - 8), 12)
        return page

    def slide(self, image: Image.Image, share: float) -> Image.Image:
        """Set into a lecturer's slide, with points at its side."""
        width = int(image.width / share)
        height = max(int(width * 0.62), int(image.height * 1.2))
        colour = self.rng.choice(((255, 255, 255), (240, 246, 252), (28, 48, 92), (252, 248, 236)))
        ink = WHITE if sum(colour) < 300 else (30, 40, 70)
        page = Image.new("RGB", (width, height), colour)
        ImageDraw.Draw(page).rectangle(
            (0, 0, width, int(height * 0.1)), fill=self.rng.choice(((40, 90, 160), (150, 40, 50), (60, 120, 80)))
        )
        self.signs.write(page, self.typesetter.draw_words(3), (16, height * 0.05), 18, WHITE, "lm")
        page.paste(image, (width - image.width - 10, int(height * 0.12)))
        free = width - image.width - 24
        for point in range(4):
            self.typesetter.fill(
                page, (14, height * (0.18 + 0.18 * point), 14 + free, height * (0.18 + 0.18 * point) + 30), 12, ink
            )
        return page

    def infobox(self, image: Image.Image, rows: int) -> Image.Image:
        """Take a screenshot of the infobox: a title above, a table below."""
        width, head = image.width + 20, 30
        box = Image.new("RGB", (width, image.height + head + 16 + rows * 22), (248, 249, 250))
        draw = ImageDraw.Draw(box)
        draw.rectangle(
            (0, 0, width, head - 6),
            fill=self.rng.choice(((205, 220, 240), (224, 236, 200), (236, 208, 200), (230, 230, 230))),
        )
        self.signs.write(box, self.typesetter.draw_words(2), (width / 2, 12), 14, INK)
        box.paste(image, (10, head))
        for row in range(rows):
            y = head + image.height + 18 + row * 22
            self.signs.write(box, self.typesetter.draw_words(1), (12, y), 12, INK, "lm")
            self.signs.write(box, self.typesetter.draw_words(2), (width * 0.42, y), 12, (40, 80, 170), "lm")
        draw.rectangle((0, 0, width - 1, box.height - 1), outline=(162, 169, 177))
        return box

    def phone_page(self, image: Image.Image, share: float) -> Image.Image:
        """Take a screenshot of an answer on a phone; the picture has this share of the height."""
        height = int(image.height / share)
        page = Image.new("RGB", (image.width + 24, height), WHITE)
        draw = ImageDraw.Draw(page)
        draw.rectangle((0, 0, page.width, 20), fill=(245, 245, 245))
        self.signs.write(page, f"{self.rng.randint(7, 23)}:{self.rng.randint(10, 59)}", (26, 10), 11, INK)
        top = 24 + int((height - image.height) * 0.35)
        self.signs.write(page, self.typesetter.draw_words(4) + "?", (12, 36), 15, INK, "lm")
        self.typesetter.fill(page, (12, 52, page.width - 12, top - 4), 12, (70, 70, 70))
        page.paste(image, (12, top))
        self.typesetter.fill(page, (12, top + image.height + 8, page.width - 12, height - 34), 12, (70, 70, 70))
        draw.rectangle((0, height - 28, page.width, height), fill=(235, 243, 255))
        self.signs.write(
            page,
            f"Upvote {self.rng.randint(1, 900)}   Comment   Share",
            (page.width / 2, height - 14),
            12,
            (40, 90, 190),
        )
        return page

    def mirror_corner(self, image: Image.Image, share: float) -> Image.Image:
        marked = image.copy()
        size = max(11, int(image.height * share))
        corner = self.rng.choice(((image.width - 8, image.height - 7, "rd"), (8, 7, "la"), (8, image.height - 7, "ld")))
        text = self.rng.choice(SITES)
        for shift, colour in ((1, (70, 70, 70)), (0, (250, 250, 250))):
            self.signs.write(marked, text, (corner[0] + shift, corner[1] + shift), size, colour, corner[2])
        return marked

    def mirror_tiles(self, image: Image.Image, opacity: float) -> Image.Image:
        return self.signs.tile(image, self.rng.choice(SITES), opacity)

    def mirror_middle(self, image: Image.Image, opacity: float) -> Image.Image:
        """Lay the name of the site across the middle, in a translucent band."""
        layer = image.copy()
        half = int(image.height * 0.09)
        middle = image.height // 2
        ImageDraw.Draw(layer).rectangle(
            (0, middle - half, image.width, middle + half),
            fill=self.rng.choice(((255, 255, 255), (40, 40, 40), (200, 60, 40))),
        )
        self.signs.write(layer, self.rng.choice(SITES), (image.width / 2, middle), int(half * 1.2), (128, 128, 128))
        return Image.blend(image, layer, opacity)

    def site_bar(self, image: Image.Image, share: float) -> Image.Image:
        """Add a bar below with the name of the site."""
        height = max(20, int(image.height * share))
        colour = self.rng.choice(((36, 60, 110), (20, 20, 20), (200, 50, 40), (240, 240, 240)))
        extended = ImageOps.expand(image, (0, 0, 0, height), colour)
        tone = INK if sum(colour) > 500 else WHITE
        self.signs.write(
            extended,
            f"{self.rng.choice(SITES)} - {self.typesetter.draw_words(2)}",
            (8, image.height + height / 2),
            int(height * 0.55),
            tone,
            "lm",
        )
        return extended

    def numbered(self, image: Image.Image, count: int) -> Image.Image:
        """Put numbers on parts, as exercises do."""
        marked = image.copy()
        draw = ImageDraw.Draw(marked)
        for number in range(1, count + 1):
            x, y = image.width * self.rng.uniform(0.12, 0.88), image.height * self.rng.uniform(0.12, 0.88)
            draw.ellipse((x - 11, y - 11, x + 11, y + 11), fill=WHITE, outline=(200, 30, 30), width=2)
            self.signs.write(marked, str(number), (x, y), 14, (200, 30, 30))
        return marked

    def answer_hidden(self, image: Image.Image, share: float) -> Image.Image:
        """Cover a part of this share of the area with a question mark."""
        covered = image.copy()
        width, height = int(image.width * math.sqrt(share) * 1.3), int(image.height * math.sqrt(share) / 1.3)
        left, top = self.rng.randint(0, image.width - width), self.rng.randint(0, image.height - height)
        ImageDraw.Draw(covered).rectangle(
            (left, top, left + width, top + height),
            fill=self.rng.choice(((255, 255, 255), (250, 220, 60), (60, 60, 60))),
            outline=INK,
        )
        self.signs.write(covered, "?", (left + width / 2, top + height / 2), int(height * 0.7), (200, 40, 40))
        return covered

    def crop(self, image: Image.Image, share: float) -> Image.Image:
        return crop_margins(image, share, self.rng)

    def square_crop(self, image: Image.Image, _: str) -> Image.Image:
        side = int(min(image.size) * 0.92)
        return ImageOps.fit(image, (side, side))

    def round_crop(self, image: Image.Image, _: str) -> Image.Image:
        """Cut out a circle, as apps show small pictures."""
        side = min(image.size)
        square = ImageOps.fit(image, (side, side))
        mask = Image.new("L", (side * 2, side * 2))
        ImageDraw.Draw(mask).ellipse((0, 0, side * 2 - 1, side * 2 - 1), fill=255)
        ground = Image.new("RGB", (side, side), self.rng.choice((WHITE, (244, 244, 246), (24, 24, 28))))
        ground.paste(square, (0, 0), mask.reduce(2))
        return ground

    def mirrored(self, image: Image.Image, _: str) -> Image.Image:
        return mirror(image)

    def on_side(self, image: Image.Image, degrees: int) -> Image.Image:
        return image.rotate(degrees, expand=True)

    def stretched(self, image: Image.Image, factor: float) -> Image.Image:
        return image.resize((int(image.width * factor), image.height))

    def padded(self, image: Image.Image, colour: str) -> Image.Image:
        """Pad to the format of a slot."""
        aspect = self.rng.choice((16 / 9, 4 / 5, 2.0, 0.7))
        width, height = image.size
        if width / height < aspect:
            width = int(height * aspect)
        else:
            height = int(width / aspect)
        return ImageOps.pad(image, (width, height), color=colour)

    def levels(self, image: Image.Image, factor: float) -> Image.Image:
        changed = change_brightness(image, factor)
        return change_contrast(changed, self.rng.choice((0.8, 1.2)))

    def sepia(self, image: Image.Image, strength: float) -> Image.Image:
        return tint(desaturate(image), (190, 140, 80), strength * 0.6)

    def inverted(self, image: Image.Image, _: str) -> Image.Image:
        """Invert as dark modes do."""
        return ImageOps.invert(image)

    def new_ground(self, image: Image.Image, colour: str) -> Image.Image:
        """Show a transparent drawing on another ground than white."""
        tone = {"black": (0, 0, 0), "paper": (240, 226, 196), "blue": (196, 220, 240)}[colour]
        pixels = np.array(image)
        mask = np.zeros((image.height + 2, image.width + 2), np.uint8)
        flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (255 << 8)
        for corner in ((0, 0), (image.width - 1, 0), (0, image.height - 1), (image.width - 1, image.height - 1)):
            cv2.floodFill(pixels, mask, corner, 0, (14, 14, 14), (14, 14, 14), flags)
        share = (mask[1:-1, 1:-1] > 0)[..., None]
        return Image.fromarray(np.where(share, np.array(tone, np.uint8), pixels))

    def traced(self, image: Image.Image, levels: int) -> Image.Image:
        """Trace to flat areas, as automatic vectorising does."""
        smooth = cv2.medianBlur(np.asarray(image), 7)
        step = 255 / (levels - 1)
        flat = (np.round(smooth / step) * step).astype(np.uint8)
        return Image.fromarray(cv2.medianBlur(flat, 5))


class EmptyPictures:
    """Makes pictures that show nothing a caption could describe.

    Args:
        typesetter: writes their text.
        signs: writes titles.
        rng: draws everything random.
        draw_more: makes further pictures, for collages and galleries.
    """

    def __init__(
        self, typesetter: Typesetter, signs: Signs, rng: random.Random, draw_more: Callable[[], Image.Image]
    ) -> None:
        self.typesetter, self.signs, self.rng, self.draw_more = typesetter, signs, rng, draw_more

    def make(self, kind: str, image: Image.Image) -> Image.Image:
        return getattr(self, kind)(image)

    def collage(self, image: Image.Image) -> Image.Image:
        """Mount pictures as the infobox of a city has them: four alike, or a wide one above smaller ones."""
        pictures = [image, *[self.draw_more() for _ in range(3)]]
        self.rng.shuffle(pictures)
        if self.rng.random() < 0.5:
            return make_collage(pictures, self.rng.randint(170, 230), self.rng.randint(0, 6))
        width, gap = self.rng.randint(380, 460), self.rng.randint(1, 5)
        upper, lower, third = int(width * 0.5), int(width * 0.36), (width - 2 * gap) // 3
        mounted = Image.new("RGB", (width, upper + gap + lower), WHITE)
        mounted.paste(ImageOps.fit(pictures[0], (width, upper)), (0, 0))
        for index, picture in enumerate(pictures[1:]):
            mounted.paste(ImageOps.fit(picture, (third, lower)), (index * (third + gap), upper + gap))
        return mounted

    def gallery_page(self, image: Image.Image) -> Image.Image:
        """Take a screenshot of a category with small pictures and names of files."""
        pictures = [image, *[self.draw_more() for _ in range(self.rng.choice((5, 8)))]]
        self.rng.shuffle(pictures)
        rows = len(pictures) // 3
        page = Image.new("RGB", (420, 44 + rows * 140), (254, 254, 254))
        self.signs.write(page, "Media in category " + self.typesetter.draw_words(2), (12, 20), 14, INK, "lm")
        for index, picture in enumerate(pictures):
            x, y = 12 + index % 3 * 134, 40 + index // 3 * 140
            ImageDraw.Draw(page).rectangle((x, y, x + 126, y + 104), fill=(248, 249, 250), outline=(200, 204, 209))
            small = ImageOps.contain(picture, (112, 92))
            page.paste(small, (x + 63 - small.width // 2, y + 52 - small.height // 2))
            self.signs.write(page, self.typesetter.draw_words(2)[:16] + ".jpg", (x, y + 116), 10, (40, 80, 170), "lm")
        return page

    def text_page(self, _: Image.Image) -> Image.Image:
        """Scan a page of a book."""
        width, height = self.rng.randint(320, 380), self.rng.randint(420, 500)
        page = Image.new("RGB", (width, height), self.rng.choice(((246, 240, 222), (252, 252, 250), (236, 226, 204))))
        self.signs.write(page, str(self.rng.randint(2, 480)), (width / 2, 18), 11, INK)
        if self.rng.random() < 0.4:
            middle = width / 2
            self.typesetter.fill(page, (22, 36, middle - 8, height - 24), 10)
            self.typesetter.fill(page, (middle + 8, 36, width - 22, height - 24), 10)
        else:
            self.typesetter.fill(page, (30, 36, width - 30, height - 24), self.rng.choice((11, 12, 13)))
        return page.rotate(self.rng.uniform(-0.8, 0.8), Image.Resampling.BICUBIC, fillcolor=page.getpixel((3, 3)))

    def article_screenshot(self, _: Image.Image) -> Image.Image:
        width, height = self.rng.randint(420, 520), self.rng.randint(320, 420)
        page = Image.new("RGB", (width, height), WHITE)
        draw = ImageDraw.Draw(page)
        draw.rectangle((0, 0, 84, height), fill=(246, 246, 246))
        for line in range(9):
            self.signs.write(page, self.typesetter.draw_words(1), (8, 40 + line * 18), 10, (40, 80, 170), "lm")
        self.signs.write(page, self.typesetter.draw_words(2), (98, 30), 22, INK, "lm")
        draw.line((98, 46, width - 12, 46), fill=(162, 169, 177))
        self.typesetter.fill(page, (98, 58, width - 14, height - 10), 12)
        return page

    def notice_box(self, _: Image.Image) -> Image.Image:
        """Show the box that asks for help with an article."""
        width, height = self.rng.randint(400, 500), self.rng.randint(300, 340)
        page = Image.new("RGB", (width, height), (251, 251, 251))
        draw = ImageDraw.Draw(page)
        tone = self.rng.choice(((242, 133, 0), (179, 36, 36), (51, 102, 204), (153, 153, 204)))
        draw.rectangle((0, 0, width - 1, height - 1), outline=(162, 169, 177))
        draw.rectangle((0, 0, 9, height), fill=tone)
        x, y = 62, height // 2
        draw.ellipse((x - 32, y - 32, x + 32, y + 32), fill=tone)
        self.signs.write(page, self.rng.choice("!?i"), (x, y), 42, WHITE)
        title = self.rng.choice(
            (
                "This article has multiple issues",
                "Citations are missing",
                "This page may be deleted",
                "Please expand this section",
            )
        )
        self.signs.write(page, title, (116, 40), 17, INK, "lm")
        self.typesetter.fill(page, (116, 66, width - 16, height - 24), 13, (80, 80, 84))
        return page

    def no_picture(self, _: Image.Image) -> Image.Image:
        """Show the stand-in for a missing portrait or photograph."""
        width, height = self.rng.randint(300, 400), self.rng.randint(300, 420)
        ground, tone = self.rng.choice(
            (
                ((238, 238, 238), (196, 196, 196)),
                ((214, 226, 240), (160, 180, 206)),
                ((250, 250, 250), (210, 210, 210)),
                ((226, 220, 240), (176, 164, 206)),
            )
        )
        page = Image.new("RGB", (width, height), ground)
        draw = ImageDraw.Draw(page)
        x, y, size = width / 2, height * 0.42, width * self.rng.uniform(0.14, 0.2)
        if self.rng.random() < 0.6:
            draw.ellipse((x - size, y - size * 1.3, x + size, y + size), fill=tone)
            draw.ellipse((x - size * 2, y + size * 1.15, x + size * 2, y + size * 4.5), fill=tone)
        else:
            draw.rectangle((x - size * 1.5, y - size, x + size * 1.5, y + size), outline=tone, width=6)
            draw.line(
                (x - size * 1.5, y + size, x - size * 0.2, y - size * 0.3, x + size * 1.4, y + size), fill=tone, width=6
            )
        words = self.rng.choice(
            ("No free image", "Image missing", "Do you own one? Click here", "No picture available", "Photo wanted")
        )
        self.signs.write(page, words, (x, height * 0.9), 17, (110, 110, 116))
        return page

    def qr_code(self, _: Image.Image) -> Image.Image:
        address = f"https://{self.rng.choice(SITES).lower()}/q/{self.rng.getrandbits(48):x}"
        code = Image.fromarray(cv2.QRCodeEncoder.create().encode(address))
        cell = self.rng.randint(7, 10)
        enlarged = code.resize((code.width * cell, code.height * cell), Image.Resampling.NEAREST).convert("RGB")
        margin = self.rng.randint(14, 40)
        page = ImageOps.expand(enlarged, (margin, margin, margin, margin + self.rng.choice((0, 40))), WHITE)
        if page.height > page.width:
            self.signs.write(page, "Scan to read more", (page.width / 2, page.height - 34), 16, INK)
        return page

    def half_loaded(self, image: Image.Image) -> Image.Image:
        """Keep the first rows of a file that was cut off; the rest is grey."""
        broken = image.copy()
        top = int(image.height * self.rng.uniform(0.06, 0.2))
        broken.paste((128, 128, 128), (0, top, image.width, image.height))
        return broken

    def decode_noise(self, image: Image.Image) -> Image.Image:
        """Show bytes that were taken for another format."""
        noise = np.random.default_rng(self.rng.getrandbits(32))
        width, height = image.size
        block = self.rng.choice((2, 4, 8))
        levels = noise.integers(0, 256, (height // block + 1, width // block + 1, 3), dtype=np.uint8)
        pixels = np.repeat(np.repeat(levels, block, 0), block, 1)[:height, :width]
        return Image.fromarray(pixels)

    def blank_scan(self, _: Image.Image) -> Image.Image:
        """Scan an empty page of an album."""
        noise = np.random.default_rng(self.rng.getrandbits(32))
        width, height = self.rng.randint(300, 420), self.rng.randint(320, 460)
        tone = self.rng.choice(((244, 238, 222), (232, 222, 198), (250, 250, 248), (206, 208, 204)))
        paper = np.asarray(make_gradient(width, height, tone, tuple(level - 10 for level in tone)), np.float32)
        paper = paper + make_smooth_noise(noise, height, width, (2, 2), 0.4)[..., None] * 2
        return Image.fromarray(np.clip(paper, 0, 255).astype(np.uint8))

    def text_slide(self, _: Image.Image) -> Image.Image:
        """Show a slide that has a title and points only."""
        width, height = 480, self.rng.choice((270, 360))
        ground = self.rng.choice(((255, 255, 255), (30, 52, 100), (250, 244, 228), (24, 80, 70)))
        ink = WHITE if sum(ground) < 320 else (34, 40, 60)
        page = Image.new("RGB", (width, height), ground)
        self.signs.write(page, self.typesetter.draw_words(4), (24, 36), 26, ink, "lm")
        for point in range(self.rng.randint(3, 6)):
            y = 80 + point * 42
            ImageDraw.Draw(page).ellipse((26, y + 4, 34, y + 12), fill=ink)
            self.typesetter.fill(page, (44, y, width - 24, y + 34), 15, ink)
        return page

    def preview_blur(self, image: Image.Image) -> Image.Image:
        """Show the preview that stands until a picture is loaded."""
        return pixelate(image, self.rng.randint(4, 6)).filter(ImageFilter.GaussianBlur(8))
