"""What people do to a picture before they post it again on a microblog or in a short video."""

import random
from typing import Any

import cv2
import numpy as np
import social_texts as texts
from making import (
    WHITE,
    Signs,
    add_noise,
    change_contrast,
    change_saturation,
    make_gradient,
    make_smooth_noise,
    mirror,
    paste_drawing,
    recompress,
    resize_by,
    turn,
)
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from social_pictures import INK, Shelf, draw_avatar, draw_qr, to_image, write_block

# Kinds of changes with their strengths, which are taken in turn.
REPOSTS: dict[str, tuple[Any, ...]] = {
    "same_bytes": ("",),
    "saved_smaller": (0.72, 0.48),
    "story_canvas": (0.94, 0.8),
    "video_title": ("one_line", "two_lines"),
    "platform_mark": ("corner", "two_places"),
    "subtitle": ("one", "bilingual"),
    "meme_bar": ("above", "both"),
    "repost_chain": (3, 6),
    "stickers": (2, 4),
    "fancy_frame": ("dots", "film", "hearts"),
    "app_filter": ("peach", "forest", "neon", "ash"),
    "overlay": ("glow", "leak", "dust"),
    "post_screenshot": ("light", "dark"),
    "cover_crop": ("1x1", "3x4", "9x16"),
    "mirror_zoom": (1.07, 1.16),
    "blurred_fill": ("upright", "wide"),
    "reaction_inset": ("circle", "square"),
    "phone_screenshot": ("chat", "gallery"),
    "code_strip": ("",),
    "name_over": ("tiled", "centre"),
    "pop": (1.25, 1.55),
    "low_bitrate": (260, 180),
    "tilt": (5, 9),
    "doodles": ("",),
    "reposted_twice": ("",),
}
# What the first and the second of two people do to a picture that is reposted twice.
FIRST_CHANGES = ("app_filter", "cover_crop", "platform_mark", "saved_smaller", "subtitle", "overlay")
SECOND_CHANGES = ("post_screenshot", "stickers", "low_bitrate", "meme_bar", "name_over", "tilt", "fancy_frame")
# Of these nobody can say which is better.
EQUALLY_GOOD = ("same_bytes", "app_filter", "pop")
CROP_RATIOS = {"1x1": 1.0, "3x4": 0.75, "9x16": 0.5625}


class Reposter:
    """Changes pictures.

    Args:
        shelf: drawings for stickers and reactions.
        signs: writes titles and names.
        rng: draws places, colours and words.
    """

    def __init__(self, shelf: Shelf, signs: Signs, rng: random.Random) -> None:
        self.shelf, self.signs, self.rng = shelf, signs, rng

    def change(self, image: Image.Image, kind: str, strength: Any) -> Image.Image:
        """Apply a change of REPOSTS."""
        return getattr(self, kind)(image.copy(), strength)

    def reposted_twice(self, image: Image.Image, strength: str) -> Image.Image:
        for kinds in (FIRST_CHANGES, SECOND_CHANGES):
            kind = self.rng.choice(kinds)
            image = self.change(image, kind, self.rng.choice(REPOSTS[kind]))
        return image

    def sign(self, pairs: Any) -> str:
        return self.signs.choose(*self.rng.choice(pairs))

    def saved_smaller(self, image: Image.Image, strength: float) -> Image.Image:
        return recompress(resize_by(image, strength), self.rng.choice((60, 70, 78)))

    def story_canvas(self, image: Image.Image, strength: float) -> Image.Image:
        """Lay the picture on the canvas of a story, with words above it."""
        width = 360
        inner = image.resize((int(width * strength), int(width * strength * image.height / image.width)))
        height = max(640, inner.height + 130)
        colours = self.rng.sample(list(texts.COLOURS), 2)
        canvas = make_gradient(width, height, *colours)
        top = (height - inner.height) // 2
        canvas.paste(inner, ((width - inner.width) // 2, top))
        write_block(
            self.signs,
            canvas,
            self.sign(texts.LINES + texts.QUOTES),
            (width / 2, top - 32),
            24,
            WHITE,
            width * 0.9,
            INK,
        )
        return canvas

    def video_title(self, image: Image.Image, strength: str) -> Image.Image:
        size = int(image.width * (0.1 if strength == "one_line" else 0.135))
        title = self.sign(texts.TITLES)
        if strength == "two_lines":
            title += " " + self.sign(texts.STICKER_LINES)
        colour = self.rng.choice(((255, 232, 40), WHITE, (255, 80, 100), (90, 255, 200)))
        low = self.rng.random() < 0.5
        write_block(
            self.signs,
            image,
            title,
            (image.width / 2, image.height * (0.78 if low else 0.2)),
            size,
            colour,
            image.width * 0.92,
            (10, 10, 16),
        )
        return image

    def platform_mark(self, image: Image.Image, strength: str) -> Image.Image:
        """Put the sign of an app with the number of an account where apps put it when they save a video."""
        size = max(13, image.height // 22)
        places = ["low right"] if strength == "corner" else ["high left", "low right"]
        name = self.signs.choose("抖抖", "TokTik")
        account = f"{self.signs.choose('号', 'ID')}: {self.rng.choice(texts.HANDLES)[1]}{self.rng.randint(1, 99)}"
        draw = ImageDraw.Draw(image)
        for place in places:
            right = place == "low right"
            x, y = (image.width - 10, image.height - 2 * size - 8) if right else (10, 12)
            anchor = "rt" if right else "lt"
            for row, (text, letters) in enumerate(
                ((f"▶ {name}" if self.signs.path else name, size), (account, int(size * 0.72)))
            ):
                draw.text(
                    (x, y + row * size * 1.1),
                    text,
                    font=self.signs.font(letters),
                    fill=(250, 250, 250),
                    anchor=anchor,
                    stroke_width=1,
                    stroke_fill=(90, 90, 90),
                )
        return image

    def subtitle(self, image: Image.Image, strength: str) -> Image.Image:
        line = self.rng.choice(texts.LINES)
        size = max(16, image.width // 19)
        y = image.height * (0.92 if strength == "one" else 0.86)
        write_block(
            self.signs,
            image,
            self.signs.choose(*line),
            (image.width / 2, y),
            size,
            WHITE,
            image.width * 0.94,
            (12, 12, 12),
        )
        if strength == "bilingual":
            below = line[1] if self.signs.path else line[1].upper()
            write_block(
                self.signs,
                image,
                below,
                (image.width / 2, y + size * 1.2),
                int(size * 0.7),
                (255, 240, 150),
                image.width * 0.94,
                (12, 12, 12),
            )
        return image

    def meme_bar(self, image: Image.Image, strength: str) -> Image.Image:
        bar = int(image.height * 0.17)
        both = strength == "both"
        barred = ImageOps.expand(image, (0, bar, 0, bar if both else 0), self.rng.choice((WHITE, (0, 0, 0))))
        ink = INK if barred.getpixel((2, 2))[0] > 99 else WHITE
        size = int(bar * 0.4)
        write_block(
            self.signs,
            barred,
            self.sign(texts.STICKER_LINES + texts.LINES),
            (image.width / 2, bar / 2),
            size,
            ink,
            image.width * 0.94,
        )
        if both:
            write_block(
                self.signs,
                barred,
                self.sign(texts.STICKER_LINES),
                (image.width / 2, barred.height - bar / 2),
                size,
                ink,
                image.width * 0.94,
            )
        return barred

    def repost_chain(self, image: Image.Image, strength: int) -> Image.Image:
        """Save, mark and shrink a picture as it wanders from account to account."""
        for step in range(strength):
            image = recompress(resize_by(image, self.rng.uniform(0.86, 0.97)), self.rng.randint(38, 62))
            if step % 2 == 0:
                size = max(10, image.height // 32)
                at = (image.width - 6, image.height - 5 - (step // 2) * (size + 4))
                self.signs.write(image, "@" + self.sign(texts.HANDLES), at, size, (235, 235, 235), "rd")
        return image

    def stickers(self, image: Image.Image, strength: int) -> Image.Image:
        corners = self.rng.sample(
            ((0.16, 0.16), (0.84, 0.18), (0.16, 0.82), (0.84, 0.84), (0.5, 0.12), (0.5, 0.9)), strength
        )
        for x, y in corners:
            side = int(min(image.size) * self.rng.uniform(0.17, 0.26))
            sticker = self.shelf.take("sticker", self.rng).image
            paste_drawing(
                image, sticker, side, (int(image.width * x), int(image.height * y)), 0.2, self.rng.uniform(-25, 25)
            )
        return image

    def fancy_frame(self, image: Image.Image, strength: str) -> Image.Image:
        edge = int(min(image.size) * 0.09)
        colour = self.rng.choice(((255, 205, 214), (205, 228, 255), (255, 240, 190), (214, 240, 214)))
        if strength == "film":
            framed = ImageOps.expand(image, (8, edge + 6), (12, 12, 12))
            draw = ImageDraw.Draw(framed)
            for x in range(10, framed.width - 10, 30):
                for y in (edge // 4, framed.height - edge // 4 - edge // 2):
                    draw.rounded_rectangle((x, y, x + 16, y + edge // 2), 3, fill=(225, 225, 220))
            return framed
        framed = ImageOps.expand(image, edge, colour)
        draw = ImageDraw.Draw(framed)
        for x in range(edge // 2, framed.width, edge):
            for y in range(edge // 2, framed.height, edge):
                if edge < x < framed.width - edge and edge < y < framed.height - edge:
                    continue
                reach = edge // 5
                if strength == "dots":
                    draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=WHITE)
                else:
                    draw.ellipse((x - reach, y - reach, x, y), fill=(240, 90, 120))
                    draw.ellipse((x, y - reach, x + reach, y), fill=(240, 90, 120))
                    draw.polygon(
                        ((x - reach, y - reach // 3), (x + reach, y - reach // 3), (x, y + reach)), fill=(240, 90, 120)
                    )
        return framed

    def app_filter(self, image: Image.Image, strength: str) -> Image.Image:
        pixels = np.asarray(image, np.float32) / 255
        light = pixels @ np.array((0.3, 0.59, 0.11), np.float32)
        if strength == "peach":
            pixels = pixels**0.85 * np.array((1.05, 0.95, 0.92), np.float32) + np.array((0.03, 0.02, 0.03), np.float32)
        elif strength == "forest":
            pixels = pixels * 0.82 + light[..., None] * 0.18 * np.array((0.7, 1.1, 0.9), np.float32)
            pixels = pixels * 0.92 + np.array((0.0, 0.05, 0.035), np.float32)
        elif strength == "neon":
            pixels = pixels + (1 - light[..., None]) * np.array((0.1, -0.04, 0.16), np.float32)
            pixels = (pixels - 0.5) * 1.12 + 0.5
        else:
            pixels = pixels * 0.45 + light[..., None] * 0.55
            pixels = (pixels - 0.5) * 0.86 + 0.5
        return to_image(pixels * 255)

    def overlay(self, image: Image.Image, strength: str) -> Image.Image:
        """Lay a glow, a stain of light or dust and scratches over a picture."""
        pixels = np.asarray(image, np.float32)
        if strength == "glow":
            soft = cv2.GaussianBlur(pixels, (0, 0), min(image.size) / 40)
            return to_image(255 - (255 - pixels * 0.9) * (255 - soft * 0.38) / 255)
        if strength == "leak":
            x, y = self.rng.choice((0, image.width)), self.rng.uniform(0, image.height)
            rows, columns = np.mgrid[0 : image.height, 0 : image.width].astype(np.float32)
            fade = np.exp(-(((columns - x) / (image.width * 0.34)) ** 2) - ((rows - y) / (image.height * 0.6)) ** 2)
            return to_image(255 - (255 - pixels) * (1 - fade[..., None] * np.array((0.85, 0.42, 0.12), np.float32)))
        noise = np.random.default_rng(self.rng.getrandbits(32))
        dusty = to_image(
            pixels * 0.93 + 12 + make_smooth_noise(noise, image.height, image.width, (120, 120))[..., None] * 5
        )
        draw = ImageDraw.Draw(dusty)
        for _ in range(self.rng.randint(20, 50)):
            x, y = self.rng.randint(0, image.width), self.rng.randint(0, image.height)
            draw.ellipse((x, y, x + self.rng.randint(1, 3), y + self.rng.randint(1, 3)), fill=(236, 232, 224))
        for _ in range(self.rng.randint(1, 4)):
            x = self.rng.randint(0, image.width)
            draw.line((x, 0, x + self.rng.randint(-8, 8), image.height), fill=(222, 218, 208))
        return dusty

    def post_screenshot(self, image: Image.Image, strength: str) -> Image.Image:
        """Show the picture in a post of someone else: name, words, the picture with round corners, counts."""
        paper, ink = ((WHITE, INK), ((22, 24, 29), (232, 232, 235)))[strength == "dark"]
        width, margin = 440, 20
        inner = image.resize((width - 2 * margin, int((width - 2 * margin) * image.height / image.width)))
        screen = Image.new("RGB", (width, inner.height + 176), paper)
        draw_avatar(screen, (44, 40), 22, self.shelf.take("animal", self.rng), self.rng.choice(list(texts.COLOURS)))
        self.signs.write(screen, self.sign(texts.HANDLES), (78, 32), 18, ink, "lm")
        self.signs.write(
            screen, f"{self.rng.randint(2, 23)}:{self.rng.randint(10, 59)}", (78, 53), 12, (135, 138, 142), "lm"
        )
        self.signs.write(screen, self.sign(texts.LINES + texts.STICKER_LINES), (margin, 92), 19, ink, "lm")
        corners = Image.new("L", inner.size)
        ImageDraw.Draw(corners).rounded_rectangle((0, 0, inner.width - 1, inner.height - 1), 16, fill=255)
        screen.paste(inner, (margin, 120), corners)
        draw = ImageDraw.Draw(screen)
        for index in range(3):
            x, y = margin + 8 + index * 140, inner.height + 148
            draw.ellipse((x - 8, y - 8, x + 8, y + 8), outline=(135, 138, 142), width=2)
            self.signs.write(screen, str(self.rng.randint(3, 9900)), (x + 16, y), 14, (135, 138, 142), "lm")
        return screen

    def cover_crop(self, image: Image.Image, strength: str) -> Image.Image:
        """Cut the middle out in the shape of a cover."""
        ratio = CROP_RATIOS[strength]
        width, height = image.size
        if abs(width / height - ratio) < 0.04:  # it has the shape already: closer
            return image.crop((width // 10, height // 10, width - width // 10, height - height // 10))
        size = (round(height * ratio), height) if width / height > ratio else (width, round(width / ratio))
        left, top = (width - size[0]) // 2, (height - size[1]) // 2
        return image.crop((left, top, left + size[0], top + size[1]))

    def mirror_zoom(self, image: Image.Image, strength: float) -> Image.Image:
        """Mirror and zoom in, which is thought to escape the search for copies."""
        x, y = (int(side * (1 - 1 / strength) / 2) for side in image.size)
        return mirror(image.crop((x, y, image.width - x, image.height - y)).resize(image.size))

    def blurred_fill(self, image: Image.Image, strength: str) -> Image.Image:
        """Fill the rest of a screen with the picture itself, enlarged and blurred."""
        size = (340, 604) if strength == "upright" else (560, 315)
        # The other shape, where nothing would be left to fill.
        if abs(image.width / image.height - size[0] / size[1]) < 0.25:
            size = (560, 315) if strength == "upright" else (340, 604)
        behind = (
            ImageOps.fit(image, size).filter(ImageFilter.GaussianBlur(18)).point([int(v * 0.8) for v in range(256)] * 3)
        )
        inner = ImageOps.contain(image, size)
        behind.paste(inner, ((size[0] - inner.width) // 2, (size[1] - inner.height) // 2))
        return behind

    def reaction_inset(self, image: Image.Image, strength: str) -> Image.Image:
        """Put someone who reacts into a lower corner."""
        side = int(min(image.size) * 0.34)
        colour = self.rng.choice(list(texts.COLOURS))
        inset = Image.new("RGB", (side, side), colour)
        paste_drawing(inset, self.shelf.take("face", self.rng).image, int(side * 0.78), (side // 2, side // 2), 0.2)
        mask = Image.new("L", inset.size, 255)
        if strength == "circle":
            mask = Image.new("L", inset.size)
            ImageDraw.Draw(mask).ellipse((0, 0, side - 1, side - 1), fill=255)
        left = self.rng.choice((10, image.width - side - 10))
        image.paste(inset, (left, image.height - side - 10), mask)
        return image

    def phone_screenshot(self, image: Image.Image, strength: str) -> Image.Image:
        """Show the picture as a message of a chat, or in the gallery of a phone."""
        rng = self.rng
        if strength == "gallery":
            inner = image.resize((360, int(360 * image.height / image.width)))
            screen = Image.new("RGB", (360, max(640, inner.height + 150)), rng.choice(((0, 0, 0), WHITE)))
            screen.paste(inner, (0, (screen.height - inner.height) // 2))
            ink = (120, 120, 126)
            date = (
                f"{rng.randint(1, 12)}{self.signs.choose('月', '/')}{rng.randint(1, 28)}{self.signs.choose('日', '')}"
            )
            self.signs.write(screen, date, (180, 36), 17, ink)
            draw = ImageDraw.Draw(screen)
            for index in range(4):
                x, y = 50 + index * 86, screen.height - 36
                draw.rounded_rectangle((x - 10, y - 10, x + 10, y + 10), 4, outline=ink, width=2)
            return screen
        inner = image.resize((230, int(230 * image.height / image.width)))
        screen = Image.new("RGB", (360, inner.height + 210), rng.choice(((236, 236, 236), (225, 232, 240))))
        draw = ImageDraw.Draw(screen)
        self.signs.write(screen, self.sign(texts.HANDLES), (180, 26), 17, INK)
        draw_avatar(screen, (30, 84), 18, None, rng.choice(list(texts.COLOURS)))
        screen.paste(inner, (60, 66))
        y = inner.height + 88
        reply = self.sign(texts.STICKER_LINES + texts.BUBBLES)
        left = 306 - self.signs.font(18).getlength(reply) - 26
        draw.rounded_rectangle((left, y, 306, y + 42), 9, fill=(150, 235, 110))
        self.signs.write(screen, reply, (left + 13, y + 21), 18, INK, "lm")
        draw_avatar(screen, (332, y + 20), 18, None, rng.choice(list(texts.COLOURS)))
        draw.rounded_rectangle((14, screen.height - 48, 300, screen.height - 12), 6, fill=WHITE)
        return screen

    def code_strip(self, image: Image.Image, strength: str) -> Image.Image:
        """Add a strip with a code to follow an account below the picture."""
        strip = max(70, image.height // 5)
        carried = ImageOps.expand(image, (0, 0, 0, strip), WHITE)
        code = draw_qr(strip - 22, self.rng, 25).resize((strip - 10, strip - 10))
        carried.paste(code, (carried.width - strip, image.height + 5))
        lines = (self.sign(texts.HANDLES), self.signs.choose("长按识别二维码看更多", "Scan for more"))
        for row, line in enumerate(lines):
            self.signs.write(
                carried, line, (14, image.height + strip * (0.34 + 0.34 * row)), strip // 5, (90, 90, 96), "lm"
            )
        return carried

    def name_over(self, image: Image.Image, strength: str) -> Image.Image:
        handle = "@" + self.sign(texts.HANDLES)
        if strength == "tiled":
            return self.signs.tile(image, handle, self.rng.choice((0.14, 0.24)), self.rng.choice((15, 19, 26)))
        layer = image.copy()
        write_block(
            self.signs,
            layer,
            handle,
            (image.width / 2, image.height * self.rng.uniform(0.4, 0.6)),
            image.width // 11,
            WHITE,
            image.width,
            (70, 70, 70),
        )
        return Image.blend(image, layer, self.rng.choice((0.45, 0.65)))

    def pop(self, image: Image.Image, strength: float) -> Image.Image:
        return change_saturation(change_contrast(image, 1 + (strength - 1) * 0.6), strength)

    def low_bitrate(self, image: Image.Image, strength: int) -> Image.Image:
        """Show a frame of a video of so few lines."""
        small = resize_by(image, strength / max(image.size))
        return recompress(small, 32).resize(image.size, Image.Resampling.BILINEAR)

    def tilt(self, image: Image.Image, strength: float) -> Image.Image:
        return turn(image, self.rng.choice((-1, 1)) * strength)

    def doodles(self, image: Image.Image, strength: str) -> Image.Image:
        """Scribble circles, arrows and rays on a picture."""
        rng = self.rng
        draw = ImageDraw.Draw(image)
        colour = rng.choice(((255, 60, 70), WHITE, (255, 225, 40), (60, 220, 255)))
        pen = max(3, min(image.size) // 80)
        x, y, reach = (
            image.width * rng.uniform(0.35, 0.65),
            image.height * rng.uniform(0.35, 0.65),
            min(image.size) * 0.2,
        )
        wobble = [
            (
                x + np.cos(step / 4) * reach * rng.uniform(0.92, 1.08),
                y + np.sin(step / 4) * reach * rng.uniform(0.92, 1.08),
            )
            for step in range(28)
        ]
        draw.line(wobble, fill=colour, width=pen, joint="curve")
        tip, tail = (x + reach * 1.1, y - reach * 0.9), (image.width * 0.92, image.height * 0.1)
        draw.line((*tail, *tip), fill=colour, width=pen)
        draw.line((tip[0], tip[1], tip[0] + reach * 0.35, tip[1] - reach * 0.05), fill=colour, width=pen)
        draw.line((tip[0], tip[1], tip[0] + reach * 0.05, tip[1] - reach * 0.35), fill=colour, width=pen)
        self.signs.write(
            image, self.sign(texts.BUBBLES), (tail[0] - 20, tail[1]), max(16, image.width // 16), colour, "rm"
        )
        return add_noise(image, 1, rng)
