"""Changes of pictures by sites that take them over from others: plain ones by strength, and layouts around them."""

import random

import cv2
import magazine_pictures as pictures
import numpy as np
from making import (
    WHITE,
    Alteration,
    Signs,
    add_bars,
    add_frame,
    add_noise,
    blur,
    change_brightness,
    change_contrast,
    change_gamma,
    change_saturation,
    crop_margins,
    desaturate,
    mirror,
    pad_to_square,
    recompress,
    resize_by,
    tint,
    turn,
)
from PIL import Image, ImageDraw, ImageFilter, ImageOps


def crop_centre_square(image: Image.Image, side: int) -> Image.Image:
    return ImageOps.fit(image, (side, side))


def fit_social_card(image: Image.Image) -> Image.Image:
    """Cut out the wide middle, as cards of social networks have it."""
    width = 600
    return ImageOps.fit(image, (width, round(width / 1.91)))


def add_blurred_sides(image: Image.Image) -> Image.Image:
    """Put the whole picture before its own enlarged blur, as a wide card."""
    card = blur(ImageOps.fit(image, (640, 336)), 14)
    inner = ImageOps.contain(image, (640, 336))
    card.paste(inner, ((640 - inner.width) // 2, (336 - inner.height) // 2))
    return card


def add_caption_below(image: Image.Image, signs: Signs, rng: random.Random) -> Image.Image:
    """Make a tall card to pin: the picture above, a title on a colour below."""
    share = rng.uniform(0.25, 0.45)
    card = ImageOps.expand(image, (0, 0, 0, int(image.height * share)), rng.choice(pictures.make_palette(rng)))
    text = rng.choice(("Save this idea", "10 easy ideas", "Read the full story", "Weekend reads", "Step by step"))
    signs.write(card, text, (card.width / 2, image.height * (1 + share / 2)), max(14, card.width // 14), WHITE)
    return card


def add_stock_band(image: Image.Image, signs: Signs, rng: random.Random) -> Image.Image:
    """Add the black band below with the number of the picture that stock agencies add."""
    band = max(18, image.height // 14)
    marked = ImageOps.expand(image, (0, 0, 0, band), (0, 0, 0))
    y = image.height + band / 2
    signs.write(marked, "stockhaus", (8, y), band // 2, WHITE, "lm")
    signs.write(
        marked,
        f"Image ID: {rng.choice('ABCDEFR')}{rng.randrange(10**5):05d}",
        (marked.width - 8, y),
        band // 2,
        WHITE,
        "rm",
    )
    return marked


def add_centre_mark(image: Image.Image, signs: Signs, opacity: float) -> Image.Image:
    """Write the name of an agency across the middle."""
    layer = Image.new("L", image.size)
    size = max(18, image.width // 7)
    ImageDraw.Draw(layer).text(
        (image.width / 2, image.height / 2), "stockhaus", int(255 * opacity), signs.font(size), "mm"
    )
    marked = image.copy()
    marked.paste(WHITE, (0, 0), layer)
    return marked


def round_corners(image: Image.Image, share: float) -> Image.Image:
    """Round the corners on white; a share of 0.5 gives an ellipse."""
    mask = Image.new("L", image.size)
    radius = int(min(image.size) * share)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, image.width - 1, image.height - 1), radius, fill=255)
    return Image.composite(image, Image.new("RGB", image.size, WHITE), mask)


def cut_round_portrait(image: Image.Image) -> Image.Image:
    return round_corners(crop_centre_square(image, min(image.size)), 0.5)


def frame_as_instant_photo(image: Image.Image) -> Image.Image:
    """Lay the picture in the white frame of instant film, a little askew, on a grey ground."""
    margin = image.width // 16
    framed = ImageOps.expand(image, (margin, margin, margin, margin * 4), (250, 250, 247))
    return framed.rotate(2.5, Image.Resampling.BICUBIC, expand=True, fillcolor=(205, 203, 200))


def add_drop_shadow(image: Image.Image) -> Image.Image:
    """Put the picture on white with a soft shadow, as themes of blogs do."""
    canvas = Image.new("RGB", (image.width + 40, image.height + 40), WHITE)
    canvas.paste((120, 120, 125), (24, 26, 24 + image.width, 26 + image.height))
    canvas = blur(canvas, 7)
    canvas.paste(image, (18, 16))
    return canvas


def write_headline_over(image: Image.Image, signs: Signs, rng: random.Random) -> Image.Image:
    """Darken the picture and write a headline into the middle, as heads of articles have it."""
    dark = change_brightness(image, rng.uniform(0.5, 0.7))
    first, second = rng.choice(
        (("A WEEKEND", "OUTSIDE"), ("THE LONG", "READ"), ("TRAVEL", "NOTES"), ("WHAT WE", "LEARNED"))
    )
    size = max(18, image.width // 10)
    signs.write(dark, first, (image.width / 2, image.height / 2 - size * 0.6), size, WHITE)
    signs.write(dark, second, (image.width / 2, image.height / 2 + size * 0.6), size, WHITE)
    return dark


def add_lower_shade(image: Image.Image, signs: Signs, rng: random.Random) -> Image.Image:
    """Darken the lower third towards the edge and write a line into it, as slides of a front page have it."""
    ramp = np.clip((np.arange(image.height) / image.height - 0.6) / 0.4, 0, 1)[:, None, None] * 0.8
    shaded = Image.fromarray((np.asarray(image, np.float32) * (1 - ramp)).astype(np.uint8))
    text = rng.choice(("In pictures: our best of the week", "Letters from the road", "Opinion | The view from here"))
    signs.write(shaded, text, (12, image.height - 16), max(13, image.width // 24), WHITE, "lm")
    return shaded


def add_play_button(image: Image.Image) -> Image.Image:
    """Draw the button of a video over the middle."""
    marked = image.copy()
    draw = ImageDraw.Draw(marked, "RGBA")
    x, y, radius = image.width // 2, image.height // 2, min(image.size) // 8
    draw.ellipse(
        (x - radius, y - radius, x + radius, y + radius), fill=(0, 0, 0, 150), outline=(255, 255, 255, 230), width=3
    )
    half = radius // 2
    draw.polygon([(x - half // 2, y - half), (x - half // 2, y + half), (x + half, y)], fill=(255, 255, 255, 240))
    return marked


def add_slider_arrows(image: Image.Image) -> Image.Image:
    """Draw the arrows and dots of a slide show."""
    marked = image.copy()
    draw = ImageDraw.Draw(marked, "RGBA")
    y, reach = image.height // 2, max(8, image.height // 22)
    for x, side in ((22, -1), (image.width - 22, 1)):
        draw.ellipse((x - 16, y - 16, x + 16, y + 16), fill=(0, 0, 0, 110))
        draw.line(
            (x - side * reach // 2, y - reach, x + side * reach // 2, y, x - side * reach // 2, y + reach),
            fill=WHITE,
            width=3,
        )
    for dot in range(5):
        x = image.width // 2 + (dot - 2) * 15
        draw.ellipse(
            (x - 4, image.height - 18, x + 4, image.height - 10), fill=(255, 255, 255, 240 if dot == 1 else 120)
        )
    return marked


def fade_as_old_print(image: Image.Image, rng: random.Random) -> Image.Image:
    """Lift the blacks, warm the colours and darken the corners, as filters of telephones do."""
    faded = tint(change_contrast(change_saturation(image, 0.7), 0.85), (240, 190, 120), 0.14)
    rows, columns = np.mgrid[-1 : 1 : faded.height * 1j, -1 : 1 : faded.width * 1j]
    shade = 1 - rng.uniform(0.25, 0.45) * np.clip(rows**2 + columns**2 - 0.3, 0, 1.5)
    return Image.fromarray(np.clip(np.asarray(faded) * shade[..., None], 0, 255).astype(np.uint8))


def tone_sepia(image: Image.Image) -> Image.Image:
    return ImageOps.colorize(image.convert("L"), (30, 18, 8), (250, 236, 208), (150, 115, 80))


def shift_white_balance(image: Image.Image, red: float, blue: float) -> Image.Image:
    scaled = np.asarray(image, np.float32) * (red, 1, blue)
    return Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8))


def equalise_locally(image: Image.Image) -> Image.Image:
    """Bring out detail in shadows and lights, as programs for "HDR" do."""
    lab = cv2.cvtColor(np.array(image), cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(3.0, (6, 6)).apply(lab[..., 0])
    return Image.fromarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))


def reduce_palette(image: Image.Image, colours: int) -> Image.Image:
    """Reduce to so many colours, as old GIFs have."""
    return image.quantize(colours, dither=Image.Dither.FLOYDSTEINBERG).convert("RGB")


def scan_page(image: Image.Image, rng: random.Random) -> Image.Image:
    """Return the picture as scanned from a print: turned by a degree, paler, with grain and the paper's edge."""
    paper = ImageOps.expand(image, image.width // 25, (246, 243, 235))
    turned = paper.rotate(rng.choice((-1.2, 1.2)), Image.Resampling.BICUBIC, fillcolor=(246, 243, 235))
    return add_noise(change_saturation(change_contrast(turned, 0.9), 0.8), 5, rng)


def shoot_from_screen(image: Image.Image, rng: random.Random) -> Image.Image:
    """Return the picture as photographed from a screen: seen from the side, with a faint pattern of lines."""
    width, height = image.size
    shift = rng.uniform(0.04, 0.08)
    source = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    target = source + np.array(
        [(shift, shift), (-shift / 3, 0), (-shift / 3, -shift / 3), (shift, -shift)], np.float32
    ) * (width, height)
    matrix = cv2.getPerspectiveTransform(source, target.astype(np.float32))
    seen = cv2.warpPerspective(np.array(image), matrix, (width, height), borderValue=(25, 25, 28)).astype(np.float32)
    seen *= 1 + 0.05 * np.sin(np.arange(height) * 1.9)[:, None, None]
    return blur(Image.fromarray(np.clip(seen, 0, 255).astype(np.uint8)), 0.7)


def stretch(image: Image.Image, factor: float) -> Image.Image:
    """Make wider above 1, and narrower below, at the same height."""
    return image.resize((round(image.width * factor), image.height))


def turn_quarter(image: Image.Image, rng: random.Random) -> Image.Image:
    return image.transpose(rng.choice((Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270)))


def list_copies(signs: Signs, rng: random.Random) -> dict[str, tuple[Alteration, bool]]:
    """Return changes of pictures by kind, and whether an editor would rather keep the original."""
    copies: dict[str, tuple[Alteration, bool]] = {}
    for factor in (0.5, 0.65, 0.8, 1.2, 1.4, 1.6):
        copies[f"brightness_{factor}"] = (lambda image, factor=factor: change_brightness(image, factor), True)
    for factor in (0.6, 0.8, 1.3, 1.6):
        copies[f"contrast_{factor}"] = (lambda image, factor=factor: change_contrast(image, factor), True)
    for gamma in (0.5, 0.7, 1.5, 2.0):
        copies[f"gamma_{gamma}"] = (lambda image, gamma=gamma: change_gamma(image, gamma), True)
    for factor in (0.4, 1.7):
        copies[f"saturation_{factor}"] = (lambda image, factor=factor: change_saturation(image, factor), True)
    for quality in (8, 15, 30):
        copies[f"jpeg_{quality}"] = (lambda image, quality=quality: recompress(image, quality), True)
    for radius in (1, 2, 3):
        copies[f"blur_{radius}"] = (lambda image, radius=radius: blur(image, radius), True)
    for deviation in (8, 16, 25):
        copies[f"noise_{deviation}"] = (lambda image, deviation=deviation: add_noise(image, deviation, rng), True)
    for percent in (90, 80, 70, 60):
        copies[f"crop_{percent}"] = (lambda image, share=1 - percent / 100: crop_margins(image, share, rng), True)
    for factor in (0.75, 1.15, 1.3, 1.5):
        copies[f"stretch_{factor}"] = (lambda image, factor=factor: stretch(image, factor), True)
    for percent in (10, 20):
        copies[f"bars_{percent}"] = (lambda image, share=percent / 100: add_bars(image, share), True)
        copies[f"side_bars_{percent}"] = (
            lambda image, share=percent / 100: add_bars(image, share, WHITE, upright=True),
            True,
        )
    for percent in (3, 8):
        width = percent / 100
        copies[f"white_border_{percent}"] = (
            lambda image, width=width: ImageOps.expand(image, int(image.width * width), WHITE),
            True,
        )
        copies[f"dark_frame_{percent}"] = (
            lambda image, width=width: add_frame(image, int(image.width * width), (40, 30, 25)),
            True,
        )
    for percent in (20, 40):
        copies[f"tiled_mark_{percent}"] = (
            lambda image, opacity=percent / 100: signs.tile(image, "stockhaus", opacity),
            True,
        )
        copies[f"centre_mark_{percent}"] = (
            lambda image, opacity=percent / 100: add_centre_mark(image, signs, opacity + 0.2),
            True,
        )
    copies.update(
        {
            "corner_mark": (lambda image: signs.mark_corner(image, "@greywater_studio"), True),
            "stock_band": (lambda image: add_stock_band(image, signs, rng), True),
            "mirror": (mirror, False),
            "quarter_turn": (lambda image: turn_quarter(image, rng), True),
            "turn_3": (lambda image: turn(image, rng.choice((-3, 3))), True),
            "grey": (desaturate, True),
            "sepia": (tone_sepia, True),
            "warmer": (lambda image: shift_white_balance(image, 1.15, 0.82), False),
            "cooler": (lambda image: shift_white_balance(image, 0.84, 1.15), False),
            "old_print_filter": (lambda image: fade_as_old_print(image, rng), True),
            "local_contrast": (equalise_locally, True),
            "sharpened": (lambda image: image.filter(ImageFilter.UnsharpMask(3, 180, 2)), True),
            "gif_colours_32": (lambda image: reduce_palette(image, 32), True),
            "thumbnail_square_150": (lambda image: crop_centre_square(image, 150), True),
            "thumbnail_120": (lambda image: ImageOps.contain(image, (120, 120)), True),
            "smaller_50": (lambda image: resize_by(image, 0.5), True),
            "larger_160": (lambda image: resize_by(image, 1.6), True),
            "padded_square": (pad_to_square, True),
            "social_card_crop": (fit_social_card, True),
            "blurred_sides": (add_blurred_sides, True),
            "pin_card": (lambda image: add_caption_below(image, signs, rng), True),
            "round_corners": (lambda image: round_corners(image, 0.09), True),
            "round_portrait": (cut_round_portrait, True),
            "instant_photo": (frame_as_instant_photo, True),
            "drop_shadow": (add_drop_shadow, True),
            "headline_over": (lambda image: write_headline_over(image, signs, rng), True),
            "lower_shade": (lambda image: add_lower_shade(image, signs, rng), True),
            "play_button": (add_play_button, True),
            "slider_arrows": (add_slider_arrows, True),
            "scanned": (lambda image: scan_page(image, rng), True),
            "shot_from_screen": (lambda image: shoot_from_screen(image, rng), True),
            "other_format": (lambda image: image, False),
            # Several changes at once, as pictures have that went through several hands.
            "smaller_and_jpeg_15": (lambda image: recompress(resize_by(image, 0.6), 15), True),
            "crop_80_and_brighter": (lambda image: change_brightness(crop_margins(image, 0.2, rng), 1.25), True),
            "mirror_and_social_card": (lambda image: fit_social_card(mirror(image)), True),
            "marked_and_bordered": (
                lambda image: ImageOps.expand(signs.mark_corner(image, "birdboard.example"), 12, WHITE),
                True,
            ),
        }
    )
    return copies
