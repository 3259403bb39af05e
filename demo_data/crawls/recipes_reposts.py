"""What happens to a picture of food when it is posted again: filters, marks, titles, frames, screens."""

import random
from collections.abc import Callable

import cv2
import numpy as np
import recipes_texts as texts
from making import (
    WHITE,
    Drawing,
    Signs,
    add_noise,
    blur,
    change_brightness,
    change_contrast,
    change_saturation,
    crop_margins,
    desaturate,
    mirror,
    paste_drawing,
    resize_by,
    tint,
    turn,
)
from PIL import Image, ImageDraw, ImageOps

Change = Callable[[Image.Image], Image.Image]

# Nothing is lost and nothing is added: an editor has no reason to prefer either picture.
EQUALLY_GOOD = ("filter_warm", "filter_faded", "vivid_1.5", "brighter_1.3", "darker_0.7", "mirrored")
ACCENTS = ((220, 80, 50), (60, 130, 90), (240, 170, 40), (210, 70, 110), (50, 60, 70))


class Repost:
    """Changes of pictures, by the name of their kind.

    Args:
        signs: writes marks and titles.
        rng: draws what varies.
        stickers: drawings that people put on their pictures.
    """

    def __init__(self, signs: Signs, rng: random.Random, stickers: list[Drawing]) -> None:
        self.signs, self.rng, self.stickers = signs, rng, stickers
        self.changes: dict[str, Change] = {
            "filter_warm": self.filter_warm,
            "filter_faded": self.filter_faded,
            "vivid_1.5": lambda image: change_contrast(change_saturation(image, 1.5), 1.08),
            "brighter_1.3": lambda image: change_brightness(image, 1.3),
            "darker_0.7": lambda image: change_brightness(image, 0.7),
            "grey": desaturate,
            "crop_20": lambda image: crop_margins(image, 0.2, rng),
            "square_crop": self.crop_square,
            "corner_mark": self.mark_corner,
            "tiled_mark": lambda image: signs.tile(image, rng.choice(texts.SITES["en"]), 0.28, 18),
            "title_over_photo": self.add_title,
            "step_badge": self.add_badge,
            "stickers": self.add_stickers,
            "white_frame": self.add_white_frame,
            "blurred_fill": self.fill_story,
            "app_screenshot": self.take_screenshot,
            "video_still": self.make_video_still,
            "thumbnail_0.4": lambda image: resize_by(image, 0.4),
            "mirrored": mirror,
            "tilted_4": lambda image: turn(image, rng.choice((-4, 4))),
            "photo_of_screen": self.photograph_screen,
        }

    def filter_warm(self, image: Image.Image) -> Image.Image:
        """The food filter of telephones: warmer, more saturated, brighter."""
        pixels = np.asarray(change_saturation(image, 1.25), np.float32) * np.float32((1.1, 1.02, 0.86)) + 4
        return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))

    def filter_faded(self, image: Image.Image) -> Image.Image:
        """A film filter: lifted blacks, less colour, a tint."""
        tone = self.rng.choice(((206, 190, 160), (170, 190, 200)))
        return tint(change_saturation(change_contrast(image, 0.82), 0.75), tone, 0.14)

    def crop_square(self, image: Image.Image) -> Image.Image:
        """The square of a grid of covers; a square picture loses margins instead."""
        side = min(image.size)
        if side > max(image.size) * 0.9:
            return crop_margins(image, 0.12, self.rng)
        return ImageOps.fit(image, (side, side))

    def mark_corner(self, image: Image.Image) -> Image.Image:
        text = (
            f"{self.rng.choice(texts.SITES['en'])} @{self.rng.choice([user for user in texts.USERS if user.isascii()])}"
        )
        return self.signs.mark_corner(image, text, self.rng.choice(("lower right", "lower left", "upper left")))

    def add_title(self, image: Image.Image) -> Image.Image:
        """The cover of a recipe: large words over the picture."""
        cover, rng = image.copy(), self.rng
        words = rng.choice(
            (
                ("零失败", "NO-FAIL RECIPE"),
                ("超级下饭", "SO GOOD WITH RICE"),
                ("三步搞定", "READY IN 3 STEPS"),
                ("好吃到哭", "BEST EVER!"),
                ("不用烤箱", "NO OVEN NEEDED"),
            )
        )
        text = self.signs.choose(*words)
        size = int(cover.width * 0.82 / len(text) / (1.0 if self.signs.path else 0.6))
        y = cover.height * rng.choice((0.16, 0.5, 0.84))
        draw, accent = ImageDraw.Draw(cover), rng.choice(ACCENTS)
        if rng.random() < 0.5:
            draw.rectangle((0, y - size * 0.8, cover.width, y + size * 0.8), accent)
            self.signs.write(cover, text, (cover.width / 2, y), size, WHITE)
            return cover
        font = self.signs.font(size)
        draw.text((cover.width / 2, y), text, font=font, fill=WHITE, anchor="mm", stroke_width=3, stroke_fill=accent)
        return cover

    def add_badge(self, image: Image.Image) -> Image.Image:
        """The number of the step in a corner."""
        marked = image.copy()
        radius, number = int(marked.height * 0.07), str(self.rng.randint(1, 12))
        x = self.rng.choice((radius + 10, marked.width - radius - 10))
        y = self.rng.choice((radius + 10, marked.height - radius - 10))
        ImageDraw.Draw(marked).ellipse((x - radius, y - radius, x + radius, y + radius), self.rng.choice(ACCENTS))
        self.signs.write(marked, number, (x, y), int(radius * 1.1), WHITE)
        return marked

    def add_stickers(self, image: Image.Image) -> Image.Image:
        """Two or three stickers, and half of the time an arrow with a word."""
        marked, rng = image.copy(), self.rng
        for _ in range(rng.randint(2, 3)):
            side = int(min(marked.size) * rng.uniform(0.13, 0.2))
            at = (rng.randint(side // 2, marked.width - side // 2), rng.randint(side // 2, marked.height - side // 2))
            paste_drawing(marked, rng.choice(self.stickers).image, side, at, 0, rng.uniform(-20, 20))
        if rng.random() < 0.5:
            draw, colour = ImageDraw.Draw(marked), rng.choice(ACCENTS)
            x, y = int(marked.width * rng.uniform(0.35, 0.65)), int(marked.height * rng.uniform(0.35, 0.65))
            draw.ellipse((x - 44, y - 32, x + 44, y + 32), outline=colour, width=4)
            self.signs.write(marked, self.signs.choose("看这里", "look!"), (x, y - 48), 20, colour)
        return marked

    def add_white_frame(self, image: Image.Image) -> Image.Image:
        """An instant photograph, or an even white margin."""
        margin = int(min(image.size) * 0.06)
        lower = margin * self.rng.choice((1, 4))
        framed = Image.new("RGB", (image.width + 2 * margin, image.height + margin + lower), (250, 249, 245))
        framed.paste(image, (margin, margin))
        return framed

    def fill_story(self, image: Image.Image) -> Image.Image:
        """An upright story: the picture on a blurred enlargement of itself."""
        width = 320
        picture = resize_by(image, width / image.width)
        height = max(int(width * 16 / 9), picture.height + 120)
        story = change_brightness(blur(ImageOps.fit(image, (width, height)), 14), 0.8)
        story.paste(picture, (0, (height - picture.height) // 2))
        return story

    def take_screenshot(self, image: Image.Image) -> Image.Image:
        """The page of a recipe in the app, photographed by the telephone itself."""
        rng, width = self.rng, 330
        picture = resize_by(image, width / image.width)
        page = Image.new("RGB", (width, picture.height + 200), WHITE)
        draw = ImageDraw.Draw(page)
        self.signs.write(page, f"{rng.randint(6, 23)}:{rng.randint(10, 59)}", (34, 12), 13, (40, 40, 40))
        draw.rectangle((296, 7, 318, 17), outline=(60, 60, 60), width=2)
        self.signs.write(page, "<", (16, 40), 20, (60, 60, 60))
        draw.rounded_rectangle((width - 80, 28, width - 14, 52), 12, rng.choice(ACCENTS))
        self.signs.write(page, self.signs.choose("关注", "Follow"), (width - 47, 40), 13, WHITE)
        page.paste(picture, (0, 62))
        y = 62 + picture.height + 26
        title = self.signs.choose("超详细的家常做法", "My favourite home recipe")
        self.signs.write(page, title, (14, y), 19, (40, 36, 34), "lm")
        for line in range(2):
            draw.rectangle((14, y + 22 + line * 18, width - rng.randint(20, 140), y + 30 + line * 18), (226, 226, 226))
        for index in range(3):
            x = 24 + index * 84
            draw.ellipse((x - 8, y + 72, x + 8, y + 88), outline=(110, 110, 110), width=2)
            self.signs.write(page, str(rng.randint(3, 9999)), (x + 14, y + 80), 13, (110, 110, 110), "lm")
        return page

    def make_video_still(self, image: Image.Image) -> Image.Image:
        """A still of a video with its button, bar and time."""
        still = image.copy()
        draw = ImageDraw.Draw(still, "RGBA")
        x, y, radius = still.width / 2, still.height / 2, still.height * 0.1
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), (0, 0, 0, 130), (255, 255, 255, 230), 3)
        draw.polygon(
            ((x - radius * 0.3, y - radius * 0.5), (x - radius * 0.3, y + radius * 0.5), (x + radius * 0.6, y)),
            (255, 255, 255, 240),
        )
        bar = still.height - 20
        draw.rectangle((0, bar - 16, still.width, still.height), (0, 0, 0, 90))
        draw.line((12, bar, still.width - 60, bar), (255, 255, 255, 120), 4)
        draw.line((12, bar, 12 + (still.width - 72) * self.rng.uniform(0.05, 0.9), bar), (240, 80, 60, 255), 4)
        time = f"0{self.rng.randint(0, 9)}:{self.rng.randint(10, 59)}"
        self.signs.write(still, time, (still.width - 30, bar), 13, WHITE)
        return still

    def photograph_screen(self, image: Image.Image) -> Image.Image:
        """A photograph of a screen that shows the picture: perspective, moiré, a glare and grain."""
        rng, width, height = self.rng, image.width, image.height
        canvas = np.full((height + 60, width + 60, 3), 24, np.float32)
        canvas[30 : 30 + height, 30 : 30 + width] = np.asarray(image, np.float32)
        rows, columns = np.mgrid[0 : height + 60, 0 : width + 60].astype(np.float32)
        canvas *= (1 + 0.07 * np.sin(columns * 1.9 + rows * 0.12) * np.sin(rows * 1.7))[..., None]
        glare = np.exp(-((columns - rng.uniform(0, width)) ** 2 + (rows - rng.uniform(0, height)) ** 2) / 9000)
        canvas += (glare * 60)[..., None]
        frame = np.float32([[0, 0], [width + 60, 0], [width + 60, height + 60], [0, height + 60]])
        corners = frame + np.float32([[rng.uniform(-16, 16), rng.uniform(-16, 16)] for _ in range(4)])
        canvas = cv2.warpPerspective(canvas, cv2.getPerspectiveTransform(frame, corners), (width + 60, height + 60))
        canvas = canvas * np.float32((0.95, 1.0, 1.05))
        return add_noise(Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8)), 4, rng)
