"""Goods, rooms and vehicles of a second-hand market as small three-dimensional models, photographed by a camera.

A model is a set of flat faces and round wires in metres, with x to the right, y up and z away from the camera of a
picture taken straight ahead. The same model photographed from another side gives another picture of the same thing,
as sellers take them. Pixels are drawn with a depth buffer at one and a half times the size.
"""

import functools
import itertools
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from making import make_smooth_noise
from PIL import Image

Colour = tuple[int, int, int]
Size = tuple[int, int]
OVERSAMPLING = 1.5  # 1 leaves jagged edges, 2 takes twice the time and looks the same after JPEG
NEAREST = 0.08  # faces are cut off this far in front of the camera, in metres
MAP_SIDE = 200  # pixels of a material's pattern
SHADOW_SIDE = 300  # pixels of the shadows on a floor
# Metres that a pattern covers before it is repeated; on furniture it covers a face.
PATTERN_EXTENTS = {
    "planks": 1.6, "tiles": 2.6, "carpet": 0.8, "concrete": 2.5, "grass": 1.0, "asphalt": 1.6, "wood": 1.2,
    "fabric": 0.5, "marble": 1.5, "sheet": 1.2, "brick": 1.3, "stripes": 1.8, "plaster": 3.0,
}  # fmt: skip
PATTERN_LEVEL = 150  # level of a pattern where it leaves a colour as it is; mortar is 1.6 times as light
GLASS = (58, 70, 82)
RUBBER = (34, 34, 36)
STEEL = (168, 172, 176)


# ---------------------------------------------------------------------------------------------------------------------
# Shapes


@dataclass(frozen=True, eq=False)
class Face:
    """A flat polygon.

    Args:
        corners: (n, 3); a pattern or picture is laid between the first corner, the second (to the right) and the last
            (downwards).
        normal: points outwards; None shows both sides.
        picture: RGB or RGBA image on the face.
        repeats: of the pattern to the right and downwards.
        shadows: levels by which the pattern is dimmed, 255 leaves it.
    """

    corners: np.ndarray
    colour: Colour
    material: str = ""
    normal: tuple[float, float, float] | None = None
    picture: Image.Image | None = None
    repeats: tuple[float, float] = (1, 1)
    shadows: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Wire:
    """A round tube along points of shape (n, 3), as of a bicycle."""

    points: np.ndarray
    thickness: float
    colour: Colour


@dataclass
class Model:
    """A thing with its shape and the ground that it stands on."""

    faces: list[Face] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    footprints: list[tuple[float, float, float, float]] = field(default_factory=list)  # x0, x1, z0, z1

    def add_box(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        z: tuple[float, float],
        colour: Colour,
        material: str = "",
        front: Image.Image | None = None,
    ) -> None:
        """Add a box between these bounds; `front` is a picture on the side that faces the camera."""
        (x0, x1), (y0, y1), (z0, z1) = x, y, z
        sides = (
            ((x0, y1, z0), (x1, y1, z0), (x1, y0, z0), (x0, y0, z0), (0, 0, -1)),
            ((x1, y1, z1), (x0, y1, z1), (x0, y0, z1), (x1, y0, z1), (0, 0, 1)),
            ((x0, y1, z1), (x0, y1, z0), (x0, y0, z0), (x0, y0, z1), (-1, 0, 0)),
            ((x1, y1, z0), (x1, y1, z1), (x1, y0, z1), (x1, y0, z0), (1, 0, 0)),
            ((x0, y1, z1), (x1, y1, z1), (x1, y1, z0), (x0, y1, z0), (0, 1, 0)),
            ((x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1), (0, -1, 0)),
        )
        for index, (*corners, normal) in enumerate(sides):
            picture = front if index == 0 else None
            self.faces.append(Face(np.array(corners, np.float64), colour, material, normal, picture))
        if y0 < 0.12:
            self.footprints.append((x0, x1, z0, z1))

    def add_prism(
        self,
        profile: list[tuple[float, float]],
        z: tuple[float, float],
        colours: Colour | list[Colour],
        side_colour: Colour | None = None,
    ) -> None:
        """Add a counterclockwise outline in x and y, drawn out along z.

        Args:
            colours: of the strips between two points of the outline, or of all.
        """
        strip_colours = colours if isinstance(colours, list) else [colours] * len(profile)
        ends = side_colour or strip_colours[0]
        for depth, normal in ((z[0], (0, 0, -1)), (z[1], (0, 0, 1))):
            self.faces.append(Face(np.array([(x, y, depth) for x, y in profile]), ends, "", normal))
        for index, (x0, y0) in enumerate(profile):
            x1, y1 = profile[(index + 1) % len(profile)]
            corners = np.array([(x0, y0, z[0]), (x1, y1, z[0]), (x1, y1, z[1]), (x0, y0, z[1])])
            self.faces.append(Face(corners, strip_colours[index], "", (y1 - y0, x0 - x1, 0)))

    def add_disc(self, center: tuple[float, float], radius: float, z: tuple[float, float], colour: Colour) -> None:
        """Add a cylinder whose axis points away from the camera."""
        angles = np.linspace(0, 2 * math.pi, 22, endpoint=False)
        profile = [(center[0] + radius * math.cos(a), center[1] + radius * math.sin(a)) for a in angles]
        self.add_prism(profile, z, colour)

    def add_post(self, center: tuple[float, float], radius: float, y: tuple[float, float], colour: Colour) -> None:
        """Add an upright cylinder at x and z."""
        angles = np.linspace(0, 2 * math.pi, 18, endpoint=False)
        ring = [(center[0] + radius * math.cos(a), center[1] + radius * math.sin(a)) for a in angles]
        for index, (x0, z0) in enumerate(ring):
            x1, z1 = ring[(index + 1) % len(ring)]
            corners = np.array([(x0, y[1], z0), (x1, y[1], z1), (x1, y[0], z1), (x0, y[0], z0)])
            normal = ((x0 + x1) / 2 - center[0], 0, (z0 + z1) / 2 - center[1])
            self.faces.append(Face(corners, colour, "", normal))
        self.faces.append(Face(np.array([(x, y[1], z) for x, z in ring]), colour, "", (0, 1, 0)))
        if y[0] < 0.12:
            self.footprints.append((center[0] - radius, center[0] + radius, center[1] - radius, center[1] + radius))

    def add_card(self, image: Image.Image, x: float, width: float, z: float = 0, lean: float = 0) -> None:
        """Stand a picture upright, or lay it down: a lean of 1 is flat on the ground."""
        height = width * image.height / image.width
        rise, depth = height * math.cos(lean * math.pi / 2), height * math.sin(lean * math.pi / 2)
        x0, x1, low = x - width / 2, x + width / 2, 0.004
        top = (low + rise, z + depth / 2)
        bottom = (low, z - depth / 2)
        corners = [(x0, *top), (x1, *top), (x1, *bottom), (x0, *bottom)]
        self.faces.append(Face(np.array(corners), (255, 255, 255), "", None, image))
        self.footprints.append((x0 + width * 0.1, x1 - width * 0.1, z - depth * 0.4 - 0.02, z + depth * 0.4 + 0.04))

    def add_model(self, other: "Model", x: float = 0, z: float = 0, yaw: float = 0, y: float = 0) -> None:
        """Add another model, turned by degrees around its own upright axis and moved."""
        cosine, sine = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
        rotation = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
        offset = np.array([x, y, z])
        for face in other.faces:
            normal = tuple((rotation @ np.array(face.normal)).tolist()) if face.normal else None
            self.faces.append(replace(face, corners=face.corners @ rotation.T + offset, normal=normal))
        for wire in other.wires:
            self.wires.append(replace(wire, points=wire.points @ rotation.T + offset))
        for x0, x1, z0, z1 in other.footprints:
            points = np.array([(a, 0, b) for a in (x0, x1) for b in (z0, z1)]) @ rotation.T + offset
            low, high = points.min(0), points.max(0)
            self.footprints.append((low[0], high[0], low[2], high[2]))


# ---------------------------------------------------------------------------------------------------------------------
# Materials


@functools.lru_cache(maxsize=256)
def make_pattern(material: str, variant: int) -> np.ndarray:
    """Make the pattern of a material: levels of shape (side, side), PATTERN_LEVEL where it has its own colour."""
    return np.clip(draw_pattern(material, variant) * PATTERN_LEVEL, 0, 255).astype(np.uint8)


def draw_pattern(material: str, variant: int) -> np.ndarray:
    noise = np.random.default_rng((sum(material.encode()), variant))
    side = MAP_SIDE
    if material == "wood":
        grain = make_smooth_noise(noise, side, side, (40, 2), 0.7)
        return 1 + grain * 0.04
    if material == "planks":
        pattern = 1 + make_smooth_noise(noise, side, side, (3, 50), 0.7) * 0.04
        step = side // int(noise.integers(9, 15))
        for x in range(0, side, step):
            pattern[:, x : x + step] *= float(noise.uniform(0.9, 1.08))
            pattern[:, x : x + 1] *= 0.6
            y = int(noise.integers(0, side))
            pattern[y : y + 1, x : x + step] *= 0.65
        return pattern
    if material == "tiles":
        pattern = 1 + make_smooth_noise(noise, side, side, (5, 5), 0.6) * 0.012
        step = side // int(noise.integers(6, 14))
        pattern[::step] *= 0.78
        pattern[:, ::step] *= 0.78
        return pattern
    if material == "brick":
        pattern = 1 + make_smooth_noise(noise, side, side, (40, 40), 0.8) * 0.05
        high, wide = 12, 34
        for row, y in enumerate(range(0, side, high)):
            for x in range(-(row % 2) * wide // 2, side, wide):
                pattern[y : y + high, max(0, x) : max(0, x + wide)] *= float(noise.uniform(0.78, 1.1))
                pattern[y : y + high, max(0, x) : max(0, x + 2)] = 1.25
            pattern[y : y + 2] = 1.25
        return pattern
    if material == "stripes":
        pattern = 1 + make_smooth_noise(noise, side, side, (6, 6)) * 0.01
        step = int(noise.integers(14, 34))
        for x in range(0, side, step):
            pattern[:, x : x + step // 2] *= 0.86
        return pattern
    cells, strength = {
        "fabric": (70, 0.035),
        "carpet": (90, 0.075),
        "plaster": (4, 0.014),
        "concrete": (7, 0.06),
        "grass": (60, 0.17),
        "asphalt": (100, 0.08),
        "marble": (3, 0.05),
        "leather": (30, 0.03),
        "sheet": (5, 0.05),
    }.get(material, (6, 0.01))
    return 1 + make_smooth_noise(noise, side, side, (cells, cells), 0.75) * strength


# ---------------------------------------------------------------------------------------------------------------------
# The camera


@dataclass(frozen=True)
class Camera:
    """Where a picture is taken from.

    Args:
        yaw: degrees to the side from which the camera looks.
        pitch: degrees above the horizon.
        distance: to the target, in metres.
        target: the point in the middle of the picture.
        focal: length of the lens as a share of the longer side.
        roll: degrees by which it is held askew.
    """

    yaw: float
    pitch: float
    distance: float
    target: tuple[float, float, float]
    size: Size
    focal: float = 1.1
    roll: float = 0

    def matrix(self) -> np.ndarray:
        """Return the 3 x 4 matrix from the world to pixels."""
        yaw, pitch, roll = (math.radians(angle) for angle in (self.yaw, self.pitch, self.roll))
        backwards = np.array([math.sin(yaw) * math.cos(pitch), math.sin(pitch), -math.cos(yaw) * math.cos(pitch)])
        position = np.array(self.target) + backwards * self.distance
        forwards = -backwards
        right = np.cross((0, 1, 0), forwards)
        right /= np.linalg.norm(right)
        down = -np.cross(forwards, right)
        right, down = math.cos(roll) * right + math.sin(roll) * down, math.cos(roll) * down - math.sin(roll) * right
        rotation = np.stack([right, down, forwards])
        scale = self.focal * max(self.size) * OVERSAMPLING
        width, height = (OVERSAMPLING * length for length in self.size)
        lens = np.array([[scale, 0, width / 2], [0, scale, height / 2], [0, 0, 1]])
        return lens @ np.column_stack([rotation, -rotation @ position])

    def position(self) -> np.ndarray:
        yaw, pitch = math.radians(self.yaw), math.radians(self.pitch)
        away = np.array([math.sin(yaw) * math.cos(pitch), math.sin(pitch), -math.cos(yaw) * math.cos(pitch)])
        return np.array(self.target) + away * self.distance


def cross_product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the cross product of two vectors; NumPy's takes ten times as long."""
    (a, b, c), (d, e, f) = left.tolist(), right.tolist()
    return np.array((b * f - c * e, c * d - a * f, a * e - b * d))


class Renderer:
    """Draws faces and wires as a camera sees them.

    Args:
        light: direction towards the light.
        variant: of the patterns of materials.
    """

    def __init__(self, camera: Camera, light: tuple[float, float, float], variant: int) -> None:
        self.camera, self.variant = camera, variant
        self.light = np.array(light) / np.linalg.norm(light)
        self.matrix = camera.matrix()
        self.width, self.height = (round(OVERSAMPLING * length) for length in camera.size)
        self.pixels = np.full((self.height, self.width, 3), 205, np.uint8)
        self.nearness = np.zeros((self.height, self.width), np.float32)

    def draw(self, model: Model) -> None:
        position = self.camera.position()
        for face in model.faces:
            if face.normal and np.dot(position - face.corners[0], face.normal) <= 0:
                continue
            self.draw_face(face)
        for wire in model.wires:
            self.draw_wire(wire)

    def finish(self) -> Image.Image:
        return Image.fromarray(cv2.resize(self.pixels, self.camera.size, interpolation=cv2.INTER_AREA))

    def draw_face(self, face: Face) -> None:
        outline = self._cut_off(np.column_stack([face.corners, np.ones(len(face.corners))]) @ self.matrix.T)
        if len(outline) < 3:
            return
        points = outline[:, :2] / outline[:, 2:]
        x0, y0 = np.maximum(np.floor(points.min(0)).astype(int), 0)
        x1, y1 = np.minimum(np.ceil(points.max(0)).astype(int) + 1, (self.width, self.height))
        if x0 >= x1 or y0 >= y1:
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillPoly(mask, [np.round((points - (x0, y0)) * 16).astype(np.int32)], 255, shift=4)

        # From the plane of the face to pixels; the last row of the inverse gives the nearness of every pixel.
        origin = face.corners[0]
        across, downwards = face.corners[1] - origin, face.corners[-1] - origin
        plane = self.matrix @ np.array([*np.stack([across, downwards, origin]).T, [0, 0, 1]])
        plane = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1]]) @ plane
        inverse_row = cross_product(plane[:, 0], plane[:, 1])
        determinant = float(np.dot(inverse_row, plane[:, 2]))
        if abs(determinant) < 1e-9:
            return
        row = (inverse_row / determinant).astype(np.float32)
        columns, rows = np.arange(x1 - x0, dtype=np.float32), np.arange(y1 - y0, dtype=np.float32)
        nearness = (columns * row[0] + row[2])[None] + (rows * row[1])[:, None]
        visible = (mask > 0) & (nearness > self.nearness[y0:y1, x0:x1] * 1.0005)

        paint, opacity = self._paint(face, plane, (x1 - x0, y1 - y0))
        if opacity is not None:
            visible &= opacity > 110
        target = self.pixels[y0:y1, x0:x1]
        if paint.ndim == 3:
            cv2.copyTo(paint, visible.view(np.uint8), target)
        else:
            target[visible] = paint
        np.copyto(self.nearness[y0:y1, x0:x1], nearness, where=visible)

    def _paint(self, face: Face, plane: np.ndarray, size: Size) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the colours of a face in its bounding box, or its only one, and the opacity of its picture."""
        shade = self._shade(face)
        if face.picture is not None:
            picture = np.asarray(face.picture)
            to_picture = plane @ np.diag((1 / picture.shape[1], 1 / picture.shape[0], 1))
            warped = cv2.warpPerspective(picture, to_picture, size, flags=cv2.INTER_LINEAR)
            opacity = warped[..., 3] if warped.shape[2] == 4 else None
            shaded = cv2.convertScaleAbs(np.ascontiguousarray(warped[..., :3]), alpha=shade)
            return shaded, opacity
        colour = np.array(face.colour, np.float32) * shade
        if not face.material:
            return np.clip(colour, 0, 255).astype(np.uint8), None
        pattern = make_pattern(face.material, self.variant)
        across, down = face.repeats
        to_pattern = plane @ np.diag((1 / MAP_SIDE / across, 1 / MAP_SIDE / down, 1))
        levels = cv2.warpPerspective(pattern, to_pattern, size, borderMode=cv2.BORDER_WRAP)
        if face.shadows is not None:
            to_shadows = plane @ np.diag((1 / SHADOW_SIDE, 1 / SHADOW_SIDE, 1))
            levels = cv2.multiply(levels, cv2.warpPerspective(face.shadows, to_shadows, size), scale=1 / 255)
        steps = np.arange(256, dtype=np.float32) / PATTERN_LEVEL
        tables = [np.clip(steps * level, 0, 255).astype(np.uint8) for level in colour]
        return cv2.merge([cv2.LUT(levels, table) for table in tables]), None

    def _shade(self, face: Face) -> float:
        if face.normal is None:
            return 0.98
        normal = np.array(face.normal)
        return 0.66 + 0.36 * max(0.0, float(np.dot(normal / np.linalg.norm(normal), self.light)))

    def draw_wire(self, wire: Wire) -> None:
        points = np.column_stack([wire.points, np.ones(len(wire.points))]) @ self.matrix.T
        if points[:, 2].min() < NEAREST:
            return
        scale = self.camera.focal * max(self.camera.size) * OVERSAMPLING
        thickness = max(1, round(wire.thickness * scale / float(points[:, 2].mean())))
        pixels = np.round(points[:, :2] / points[:, 2:] * 8).astype(np.int32)
        cv2.polylines(self.pixels, [pixels], False, wire.colour, thickness, cv2.LINE_AA, 3)
        if thickness > 3:  # light on the upper side of a tube
            lit = tuple(min(255, level + 45) for level in wire.colour)
            cv2.polylines(self.pixels, [pixels - (0, thickness * 2)], False, lit, thickness // 4, cv2.LINE_AA, 3)

    def _cut_off(self, corners: np.ndarray) -> np.ndarray:
        """Cut what lies behind the camera off a polygon in homogeneous pixels."""
        if corners[:, 2].min() >= NEAREST:
            return corners
        outline = []
        for index, corner in enumerate(corners):
            before = corners[index - 1]
            if (corner[2] >= NEAREST) != (before[2] >= NEAREST):
                share = (NEAREST - before[2]) / (corner[2] - before[2])
                outline.append(before + share * (corner - before))
            if corner[2] >= NEAREST:
                outline.append(corner)
        return np.array(outline)


# ---------------------------------------------------------------------------------------------------------------------
# Where things stand


@dataclass(frozen=True)
class Stage:
    """Floor and walls around a thing.

    Args:
        floor: material and colour of the floor.
        wall: material and colour of the walls; None is open air in front of `backdrop`.
        back: distance of the wall behind, in metres.
        reach: half of the width of the floor.
        left, right: where side walls are; None has none.
        backdrop: what is seen in the distance.
        light: direction towards the light.
    """

    floor: tuple[str, Colour]
    wall: tuple[str, Colour] | None
    back: float
    reach: float
    left: float | None = None
    right: float | None = None
    height: float = 2.7
    backdrop: Image.Image | None = None
    light: tuple[float, float, float] = (-0.4, 0.8, -0.5)
    variant: int = 0

    def build(self, footprints: Iterable[tuple[float, float, float, float]]) -> Model:
        """Return floor and walls, with the shadows of what stands on the floor."""
        model, reach, back = Model(), self.reach, self.back
        front = -1.6 * reach
        corners = np.array([(-reach, 0, back), (reach, 0, back), (reach, 0, front), (-reach, 0, front)], np.float64)
        material, colour = self.floor
        extent = PATTERN_EXTENTS.get(material, 1.0)
        repeats = (2 * reach / extent, (back - front) / extent)
        shadows = self._draw_shadows(footprints, front)
        model.faces.append(Face(corners, colour, material, (0, 1, 0), None, repeats, shadows))
        if self.wall is None:
            if self.backdrop is not None:
                # Mirrored on both sides, so that it fills the picture from every side.
                wide, high = reach * 1.2, reach * 2.4 * self.backdrop.height / self.backdrop.width
                for index in (-1, 0, 1):
                    left, right = ((index * 2 - sign) * wide for sign in (1, -1))
                    if index:
                        left, right = right, left
                    corners = [(left, high, back), (right, high, back), (right, -0.02, back), (left, -0.02, back)]
                    model.faces.append(Face(np.array(corners), (255, 255, 255), "", None, self.backdrop))
            return model
        material, colour = self.wall
        top = self.height
        walls = [((-reach, back), (reach, back), (0, 0, -1))]
        if self.left is not None:
            walls.append(((self.left, front), (self.left, back), (1, 0, 0)))
        if self.right is not None:
            walls.append(((self.right, back), (self.right, front), (-1, 0, 0)))
        for (x0, z0), (x1, z1), normal in walls:
            corners = np.array([(x0, top, z0), (x1, top, z1), (x1, 0, z1), (x0, 0, z0)], np.float64)
            extent = PATTERN_EXTENTS.get(material, 1.0)
            repeats = (math.hypot(x1 - x0, z1 - z0) / extent, top / extent)
            model.faces.append(Face(corners, colour, material, normal, None, repeats))
        if self.left is not None or self.right is not None:
            model.add_box((-reach, reach), (0.0, 0.07), (back - 0.015, back), (232, 230, 226))
        return model

    def _draw_shadows(self, footprints: Iterable[tuple[float, float, float, float]], front: float) -> np.ndarray:
        shadows = np.full((SHADOW_SIDE, SHADOW_SIDE), 255, np.uint8)
        scale_x, scale_z = SHADOW_SIDE / (2 * self.reach), SHADOW_SIDE / (self.back - front)
        shift = -self.light[0] * 0.04 * self.reach  # shadows fall away from the light
        for x0, x1, z0, z1 in footprints:
            left, right = (x0 + shift + self.reach) * scale_x, (x1 + shift + self.reach) * scale_x
            upper, lower = (self.back - z1) * scale_z, (self.back - z0) * scale_z
            box = [round(value) for value in (left - 0.7, upper - 0.7, right + 0.7, lower + 0.7)]
            cv2.rectangle(shadows, (box[0], box[1]), (box[2], box[3]), 130, -1)
        return cv2.GaussianBlur(shadows, (0, 0), 1.8)


def take_picture(model: Model, stage: Stage, camera: Camera) -> Image.Image:
    """Photograph a model on a stage."""
    renderer = Renderer(camera, stage.light, stage.variant)
    renderer.draw(stage.build(model.footprints))
    renderer.draw(model)
    return renderer.finish()


# ---------------------------------------------------------------------------------------------------------------------
# Furniture and appliances


def darken(colour: Colour, factor: float) -> Colour:
    return tuple(min(255, int(level * factor)) for level in colour)  # type: ignore[return-value]


def add_legs(model: Model, x: float, z: float, height: float, width: float, colour: Colour, material: str) -> None:
    """Add four legs at plus and minus x and z."""
    for side_x in (-x, x - width):
        for side_z in (-z, z - width):
            model.add_box((side_x, side_x + width), (0, height), (side_z, side_z + width), colour, material)


def build_bookshelf(colour: Colour, count: int, rng: random.Random) -> Model:
    model, wide, high, deep = Model(), rng.uniform(0.7, 1.1), 0.36 * count + 0.05, 0.3
    model.add_box((-wide / 2, -wide / 2 + 0.03), (0, high), (0, deep), colour, "wood")
    model.add_box((wide / 2 - 0.03, wide / 2), (0, high), (0, deep), colour, "wood")
    model.add_box((-wide / 2, wide / 2), (0, high), (deep - 0.015, deep), darken(colour, 0.85), "wood")
    filling = rng.choice((0.0, 0.5, 0.9))
    for shelf in range(count + 1):
        y = shelf * (high - 0.03) / count
        model.add_box((-wide / 2, wide / 2), (y, y + 0.03), (0.0, deep), colour, "wood")
        x = -wide / 2 + 0.05
        while shelf < count and rng.random() < filling and x < wide / 2 - 0.1:
            thick, tall = rng.uniform(0.02, 0.055), rng.uniform(0.18, 0.28)
            spine = rng.choice(((150, 50, 45), (50, 80, 120), (210, 200, 180), (60, 100, 70), (70, 60, 60)))
            model.add_box((x, x + thick), (y + 0.03, y + 0.03 + tall), (0.05, 0.24), spine)
            x += thick + (0.003 if rng.random() < 0.85 else 0.08)
    return model


def build_drawers(colour: Colour, count: int, rng: random.Random) -> Model:
    model, wide, high, deep = Model(), rng.uniform(0.5, 1.0), 0.2 * count + 0.1, 0.42
    model.add_box((-wide / 2, wide / 2), (0.06, high), (0, deep), colour, "wood")
    add_legs_at = deep / 2
    legs = Model()
    add_legs(legs, wide / 2 - 0.02, add_legs_at - 0.02, 0.06, 0.05, darken(colour, 0.6), "wood")
    model.add_model(legs, z=add_legs_at)
    knob, is_bar = rng.choice(((70, 60, 50), STEEL, (30, 30, 30))), rng.random() < 0.5
    for drawer in range(count):
        y0, y1 = 0.08 + drawer * (high - 0.1) / count, 0.08 + (drawer + 1) * (high - 0.1) / count - 0.012
        model.add_box((-wide / 2 + 0.015, wide / 2 - 0.015), (y0, y1), (-0.02, 0), darken(colour, 1.04), "wood")
        middle = (y0 + y1) / 2
        if is_bar:
            model.add_box((-0.09, 0.09), (middle - 0.008, middle + 0.008), (-0.045, -0.02), knob)
        else:
            for x in (-wide / 4, wide / 4):
                model.add_disc((x, middle), 0.018, (-0.045, -0.02), knob)
    return model


def build_wardrobe(colour: Colour, count: int, rng: random.Random, is_open: bool = False) -> Model:
    model, wide, high, deep = Model(), 0.46 * count, rng.uniform(1.75, 2.05), 0.55
    if is_open:
        inner = darken(colour, 0.72)
        model.add_box((-wide / 2, wide / 2), (0.05, high), (deep - 0.02, deep), inner, "wood")
        for x in (-wide / 2, wide / 2 - 0.02):
            model.add_box((x, x + 0.02), (0.05, high), (0, deep), colour, "wood")
        for y in (0.05, high * 0.3, high * 0.82, high - 0.02):
            model.add_box((-wide / 2, wide / 2), (y, y + 0.02), (0, deep), inner, "wood")
        for _ in range(rng.randint(2, 5)):
            x = rng.uniform(-wide / 2 + 0.1, wide / 2 - 0.15)
            cloth = (rng.randint(40, 210), rng.randint(40, 190), rng.randint(50, 200))
            model.add_box((x, x + 0.05), (high * 0.4, high * 0.78), (0.15, 0.5), cloth, "fabric")
    else:
        model.add_box((-wide / 2, wide / 2), (0.05, high), (0, deep), colour, "wood")
    for door in range(count):
        x0, x1 = -wide / 2 + door * wide / count + 0.006, -wide / 2 + (door + 1) * wide / count - 0.006
        leaf = Model()
        leaf.add_box((0, x1 - x0), (0.07, high - 0.02), (-0.02, 0), darken(colour, 1.04), "wood")
        handle_x = 0.05 if door % 2 else x1 - x0 - 0.05
        leaf.add_box((handle_x - 0.01, handle_x + 0.01), (high * 0.45, high * 0.55), (-0.045, -0.02), STEEL)
        if is_open and door in (0, count - 1):
            # The outer doors swing around their outer edges.
            if door == 0:
                model.add_model(leaf, x=x0, yaw=-105)
            else:
                turned = Model()
                turned.add_model(leaf, x=-(x1 - x0))
                model.add_model(turned, x=x1, yaw=105)
        else:
            model.add_model(leaf, x=x0)
    return model


def build_table(colour: Colour, count: int, rng: random.Random) -> Model:
    """Build a table; `count` chairs stand around it."""
    model, wide, deep, high = Model(), rng.uniform(1.0, 1.6), rng.uniform(0.7, 0.85), 0.74
    model.add_box((-wide / 2, wide / 2), (high - 0.035, high), (-deep / 2, deep / 2), colour, "wood")
    add_legs(model, wide / 2 - 0.04, deep / 2 - 0.04, high - 0.035, 0.06, darken(colour, 0.85), "wood")
    seats = [(-0.25, deep / 2 + 0.2, 0), (0.25, deep / 2 + 0.2, 0), (-0.25, -deep / 2 - 0.2, 180)]
    seats += [(wide / 2 + 0.22, 0, 90), (-wide / 2 - 0.22, 0, -90), (0.25, -deep / 2 - 0.2, 180)]
    for x, z, yaw in seats[:count]:
        model.add_model(build_chair(darken(colour, 0.9), 1, rng), x=x, z=z, yaw=yaw)
    return model


def build_chair(colour: Colour, count: int, rng: random.Random) -> Model:
    """Build `count` chairs in a row."""
    model, bars = Model(), rng.randint(2, 4)
    for index in range(count):
        chair = Model()
        chair.add_box((-0.21, 0.21), (0.43, 0.47), (-0.21, 0.21), colour, "wood")
        add_legs(chair, 0.2, 0.2, 0.43, 0.04, darken(colour, 0.9), "wood")
        for x in (-0.2, 0.16):
            chair.add_box((x, x + 0.04), (0.47, 0.92), (0.17, 0.21), darken(colour, 0.9), "wood")
        for bar in range(bars):
            y = 0.55 + bar * 0.34 / bars
            chair.add_box((-0.17, 0.17), (y, y + 0.06), (0.18, 0.2), colour, "wood")
        model.add_model(chair, x=(index - (count - 1) / 2) * 0.55)
    return model


def build_sofa(colour: Colour, count: int, rng: random.Random) -> Model:
    """Build a sofa of `count` seats; one seat is an armchair."""
    model, seat = Model(), 0.62
    wide, arm = seat * count, rng.uniform(0.1, 0.2)
    material = rng.choice(("fabric", "leather"))
    model.add_box((-wide / 2, wide / 2), (0.1, 0.3), (0, 0.82), darken(colour, 0.9), material)
    model.add_box((-wide / 2, wide / 2), (0.1, rng.uniform(0.75, 0.9)), (0.66, 0.86), colour, material)
    for x in (-wide / 2 - arm, wide / 2):
        model.add_box((x, x + arm), (0.08, 0.58), (0, 0.86), darken(colour, 0.96), material)
    for index in range(count):
        x = -wide / 2 + index * seat
        model.add_box((x + 0.01, x + seat - 0.01), (0.3, 0.44), (-0.02, 0.66), darken(colour, 1.06), material)
        model.add_box((x + 0.02, x + seat - 0.02), (0.44, 0.76), (0.54, 0.68), darken(colour, 1.02), material)
    legs = Model()
    add_legs(legs, wide / 2 + arm - 0.03, 0.4, 0.1, 0.05, (60, 45, 35), "wood")
    model.add_model(legs, z=0.42)
    for _ in range(rng.randint(0, min(2, count))):
        cushion = rng.choice(((200, 170, 70), (190, 90, 70), (230, 225, 215), (70, 100, 120)))
        x = rng.uniform(-wide / 2 + 0.2, wide / 2 - 0.2)
        model.add_box((x - 0.18, x + 0.18), (0.45, 0.78), (0.42, 0.53), cushion, "fabric")
    return model


def build_bed(colour: Colour, count: int, rng: random.Random) -> Model:
    """Build a bed with `count` pillows."""
    model, wide, long = Model(), 0.8 + 0.6 * (count - 1), 2.0
    bedding = rng.choice(((235, 232, 226), (170, 185, 205), (205, 180, 175), (150, 165, 150), (225, 210, 180)))
    model.add_box((-wide / 2, wide / 2), (0.1, 0.32), (0, long), colour, "wood")
    model.add_box((-wide / 2 - 0.03, wide / 2 + 0.03), (0.1, 1.0), (long, long + 0.05), colour, "wood")
    add_legs(model, wide / 2, 0.05, 0.1, 0.06, darken(colour, 0.7), "wood")
    model.add_box((-wide / 2 + 0.02, wide / 2 - 0.02), (0.32, 0.5), (0.02, long), (238, 236, 230), "sheet")
    model.add_box((-wide / 2 - 0.01, wide / 2 + 0.01), (0.4, 0.56), (-0.01, long * 0.68), bedding, "sheet")
    for index in range(count):
        x = (index - (count - 1) / 2) * 0.62
        model.add_box((x - 0.27, x + 0.27), (0.5, 0.62), (long - 0.45, long - 0.06), (244, 242, 238), "sheet")
    return model


def build_desk(colour: Colour, count: int, rng: random.Random) -> Model:
    """Build a desk with `count` drawers at one side."""
    model, wide = Model(), rng.uniform(1.1, 1.5)
    model.add_box((-wide / 2, wide / 2), (0.72, 0.75), (0, 0.62), colour, "wood")
    model.add_box((-wide / 2, -wide / 2 + 0.03), (0, 0.72), (0.02, 0.6), colour, "wood")
    x0, x1 = wide / 2 - 0.4, wide / 2
    model.add_box((x0, x1), (0.04, 0.72), (0.02, 0.6), darken(colour, 0.97), "wood")
    for drawer in range(count):
        y0 = 0.06 + drawer * 0.65 / count
        model.add_box((x0 + 0.01, x1 - 0.01), (y0, y0 + 0.62 / count), (0.0, 0.02), darken(colour, 1.05), "wood")
        y = y0 + 0.31 / count
        model.add_box(((x0 + x1) / 2 - 0.05, (x0 + x1) / 2 + 0.05), (y, y + 0.015), (-0.025, 0), STEEL)
    return model


def build_fridge(colour: Colour, count: int, rng: random.Random) -> Model:
    """Build a refrigerator with `count` doors above each other."""
    model, high, bottom = Model(), rng.uniform(1.4, 1.85), 0.04
    model.add_box((-0.29, 0.29), (0.02, high), (0, 0.6), colour)
    heights = {1: (1.0,), 2: (0.62, 0.38), 3: (0.35, 0.25, 0.4)}[count]
    for share in heights:
        top = bottom + share * (high - 0.05)
        model.add_box((-0.29, 0.29), (bottom + 0.006, top - 0.006), (-0.04, 0), darken(colour, 1.03))
        model.add_box((0.22, 0.245), (bottom + 0.06, top - 0.06), (-0.07, -0.04), darken(STEEL, 0.9))
        bottom = top
    return model


def build_washer(colour: Colour, count: int, rng: random.Random) -> Model:
    """Build `count` washing machines side by side: the second is a dryer."""
    model = Model()
    for index in range(count):
        machine, dial = Model(), rng.uniform(-0.05, 0.22)
        machine.add_box((-0.3, 0.3), (0.02, 0.85), (0, 0.55), colour)
        machine.add_box((-0.3, 0.3), (0.72, 0.83), (-0.015, 0), darken(colour, 0.92))
        machine.add_disc((0, 0.4), 0.21, (-0.03, 0), darken(STEEL, 1.1))
        machine.add_disc((0, 0.4), 0.165, (-0.045, -0.03), (66, 74, 84))
        machine.add_disc((0, 0.4), 0.1, (-0.05, -0.045), (96, 106, 116))
        machine.add_disc((dial, 0.775), 0.035, (-0.04, -0.015), darken(STEEL, 0.8))
        machine.add_box((-0.26, -0.12), (0.745, 0.805), (-0.02, -0.015), darken(colour, 1.05))
        model.add_model(machine, x=(index - (count - 1) / 2) * 0.63)
    return model


def build_suitcase(colour: Colour, count: int, rng: random.Random) -> Model:
    """Build a set of `count` suitcases, each smaller than the one before."""
    model, x = Model(), 0.0
    for index in range(count):
        wide, high = 0.46 - 0.07 * index, 0.68 - 0.1 * index
        model.add_box((x, x + wide), (0.05, high), (0, 0.26), colour)
        for rib in range(1, 6):
            at = x + rib * wide / 6
            model.add_box((at - 0.008, at + 0.008), (0.08, high - 0.03), (-0.008, 0), darken(colour, 0.8))
        for bar in (x + wide * 0.3, x + wide * 0.7):
            model.add_box((bar - 0.008, bar + 0.008), (high, high + 0.28), (0.2, 0.22), STEEL)
        model.add_box((x + wide * 0.28, x + wide * 0.72), (high + 0.26, high + 0.3), (0.19, 0.23), RUBBER)
        for wheel in (x + 0.05, x + wide - 0.05):
            model.add_disc((wheel, 0.03), 0.03, (0.02, 0.06), RUBBER)
        x += wide + 0.06
    centred = Model()
    centred.add_model(model, x=-x / 2)
    return centred


def build_lamp(colour: Colour, count: int, rng: random.Random) -> Model:
    """Build `count` floor lamps."""
    model, high = Model(), rng.uniform(1.3, 1.6)
    for index in range(count):
        x = (index - (count - 1) / 2) * 0.6
        model.add_post((x, 0), 0.15, (0, 0.03), (60, 58, 56))
        model.add_post((x, 0), 0.015, (0.03, high), (80, 76, 72))
        model.add_post((x, 0), 0.2, (high - 0.1, high + 0.2), colour)
    return model


def build_bicycle(colour: Colour, has_basket: bool, is_child: bool, rng: random.Random) -> Model:
    """Build a bicycle that points to the right."""
    scale = 0.68 if is_child else 1.0
    model, radius = Model(), 0.34 * scale
    rear, front, crank = (-0.52 * scale, radius), (0.52 * scale, radius), (-0.08 * scale, radius - 0.03)
    seat, head = (-0.22 * scale, 0.8 * scale), (0.36 * scale, 0.86 * scale)
    low_step = rng.random() < 0.45
    angles = np.linspace(0, 2 * math.pi, 40)
    tyre = rng.choice((RUBBER, RUBBER, (120, 90, 60), (225, 220, 210)))

    def tube(points: list[tuple[float, float]], thickness: float, paint: Colour, z: float = 0.0) -> None:
        model.wires.append(Wire(np.array([(x, y, z) for x, y in points]), thickness, paint))

    for center in (rear, front):
        spokes = rng.randint(8, 12)
        for spoke in range(spokes):
            angle = math.pi * spoke / spokes
            reach_x, reach_y = radius * math.cos(angle), radius * math.sin(angle)
            ends = [(center[0] - reach_x, center[1] - reach_y), (center[0] + reach_x, center[1] + reach_y)]
            tube(ends, 0.004, (190, 190, 192))
        tube([(center[0] + radius * math.cos(a), center[1] + radius * math.sin(a)) for a in angles], 0.035, tyre)
        rim = radius - 0.03
        tube([(center[0] + rim * math.cos(a), center[1] + rim * math.sin(a)) for a in angles], 0.014, STEEL)
        model.footprints.append((center[0] - 0.16, center[0] + 0.16, -0.02, 0.02))
    tube([rear, crank, seat, rear], 0.024, colour)
    lower_head = (head[0] + 0.03 * scale, head[1] - 0.12 * scale)
    if low_step:
        tube([crank, (0.1 * scale, 0.5 * scale), lower_head], 0.034, colour)
    else:
        tube([crank, lower_head], 0.034, colour)
        tube([(seat[0] + 0.02, seat[1] - 0.08), (head[0], head[1] - 0.04)], 0.032, colour)
    tube([(head[0] - 0.02, head[1] + 0.06), front], 0.03, darken(colour, 0.85))
    tube([seat, (seat[0] - 0.02, seat[1] + 0.13)], 0.026, STEEL)
    tube([(seat[0] - 0.14, seat[1] + 0.15), (seat[0] + 0.12, seat[1] + 0.13)], 0.06, (50, 42, 38))
    bar = (head[0] - 0.02, head[1] + 0.1)
    for z in (-0.26 * scale, 0.26 * scale):
        points = np.array([(*bar, 0), (bar[0] + 0.05, bar[1] + 0.03, z * 0.5), (bar[0] - 0.06, bar[1] + 0.05, z)])
        model.wires.append(Wire(points, 0.026, STEEL))
    ring = [(crank[0] + 0.09 * math.cos(a), crank[1] + 0.09 * math.sin(a)) for a in angles]
    tube(ring, 0.014, (80, 80, 82), -0.05)
    tube([crank, (crank[0] + 0.1, crank[1] - 0.13)], 0.022, (90, 90, 92), -0.07)
    tube([(crank[0] + 0.05, crank[1] - 0.14), (crank[0] + 0.16, crank[1] - 0.14)], 0.03, RUBBER, -0.1)
    tube([(rear[0] - radius * 0.9, rear[1] + radius * 0.5), (rear[0] - 0.05, rear[1] + radius + 0.04)], 0.03, RUBBER)
    if has_basket:
        x, y = head[0] + 0.1, head[1] - 0.05
        for step in range(5):
            tube([(x + step * 0.07, y), (x + step * 0.08, y + 0.24)], 0.01, (70, 66, 60), -0.14)
        for step in range(4):
            tube([(x, y + step * 0.08), (x + 0.3, y + step * 0.08)], 0.01, (70, 66, 60), -0.14)
    return model


CAR_BODIES = {
    "hatchback": (
        [(-1.95, 0.28), (1.95, 0.28), (2.0, 0.62), (1.85, 0.82), (0.95, 0.95), (-1.9, 0.98), (-2.0, 0.6)],
        [(-1.85, 0.96), (1.0, 0.94), (0.25, 1.45), (-1.35, 1.47)],
    ),
    "saloon": (
        [(-2.2, 0.28), (2.2, 0.28), (2.25, 0.6), (2.1, 0.78), (1.05, 0.92), (-1.4, 0.94), (-2.15, 0.9), (-2.25, 0.55)],
        [(-1.55, 0.93), (1.1, 0.92), (0.4, 1.4), (-0.9, 1.42)],
    ),
    "estate": (
        [(-2.25, 0.28), (2.2, 0.28), (2.25, 0.6), (2.1, 0.8), (1.05, 0.94), (-2.2, 0.96), (-2.3, 0.55)],
        [(-2.2, 0.95), (1.1, 0.93), (0.4, 1.44), (-2.0, 1.47)],
    ),
    "off-roader": (
        [(-2.1, 0.42), (2.1, 0.42), (2.15, 0.8), (2.0, 1.02), (1.0, 1.1), (-2.1, 1.12), (-2.15, 0.7)],
        [(-2.08, 1.1), (1.0, 1.09), (0.5, 1.72), (-2.0, 1.74)],
    ),
    "van": (
        [(-2.4, 0.32), (2.4, 0.32), (2.45, 0.8), (2.2, 1.15), (1.75, 1.2), (-2.4, 1.2), (-2.45, 0.6)],
        [(-2.4, 1.18), (1.8, 1.18), (1.2, 1.95), (-2.35, 1.98)],
    ),
    "pickup": (
        [(-2.5, 0.42), (2.4, 0.42), (2.45, 0.8), (2.3, 1.02), (1.2, 1.1), (-2.5, 1.08), (-2.55, 0.6)],
        [(-0.6, 1.07), (1.2, 1.09), (0.6, 1.7), (-0.5, 1.72)],
    ),
}


def build_car(colour: Colour, body: str, plate: Image.Image, rng: random.Random) -> Model:
    """Build a car that points to the right, seen from its right or left side."""
    model, half = Model(), 0.86
    lower, cabin = CAR_BODIES[body]
    model.add_prism(lower, (-half, half), darken(colour, 1.05), colour)
    glass_strips = [colour, GLASS, darken(colour, 1.08), GLASS]
    model.add_prism(cabin, (-half + 0.08, half - 0.08), glass_strips, colour)
    # Windows lie a little outside of the cabin's sides, with posts between them.
    (x0, low), (x1, _), (x2, high), (x3, _) = cabin
    posts = [0.0, 0.34, 0.68, 1.0] if body in ("estate", "off-roader") else [0.0, 0.52, 1.0]
    if body == "van":
        posts = [0.68, 1.0]
    for depth, normal in ((-half + 0.075, (0, 0, -1)), (half - 0.075, (0, 0, 1))):
        for start, end in itertools.pairwise(posts):
            start, end = start + 0.03, end - 0.03
            bottom, top = low + 0.05, high - 0.08
            outline = [
                (x0 + (x1 - x0) * start, bottom),
                (x0 + (x1 - x0) * end, bottom),
                (x3 + (x2 - x3) * end, top),
                (x3 + (x2 - x3) * start, top),
            ]
            model.faces.append(Face(np.array([(x, y, depth) for x, y in outline]), GLASS, "", normal))
    radius = 0.32 if body in ("hatchback", "saloon", "estate") else 0.38
    front, rear = max(x for x, _ in lower), min(x for x, _ in lower)
    rims = rng.choice((darken(STEEL, 1.05), (60, 60, 62), darken(STEEL, 0.8)))
    for x in (rear + 0.8, front - 0.85):
        for inner, outer in ((-half + 0.1, -half - 0.02), (half + 0.02, half - 0.1)):
            near, far = min(inner, outer), max(inner, outer)
            model.add_disc((x, radius), radius, (near, far), RUBBER)
            model.add_disc((x, radius), radius * 0.62, (near - 0.008, far + 0.008), rims)
            model.add_disc((x, radius), radius * 0.2, (near - 0.012, far + 0.012), (70, 70, 72))
    for z in (-half + 0.03, half - 0.33):
        model.add_box((front - 0.14, front + 0.0), (0.62, 0.74), (z, z + 0.3), (240, 240, 225))
        model.add_box((rear - 0.02, rear + 0.1), (0.66, 0.84), (z, z + 0.22), (170, 30, 28))
    for x, turn in ((front + 0.02, 1), (rear - 0.03, -1)):
        z = 0.26 * turn
        corners = np.array([(x, 0.55, -z), (x, 0.55, z), (x, 0.42, z), (x, 0.42, -z)])
        model.faces.append(Face(corners, (255, 255, 255), "", (turn, 0, 0), plate))
    model.footprints.append((rear, front, -half, half))
    return model


BUILDERS: dict[str, Any] = {
    "bookshelf": build_bookshelf,
    "drawers": build_drawers,
    "wardrobe": build_wardrobe,
    "table": build_table,
    "chair": build_chair,
    "sofa": build_sofa,
    "bed": build_bed,
    "desk": build_desk,
    "fridge": build_fridge,
    "washer": build_washer,
    "suitcase": build_suitcase,
    "lamp": build_lamp,
}
# Counts that a kind can have: shelves, drawers, doors, chairs, seats, pillows.
COUNTS = {
    "bookshelf": (3, 4, 5),
    "drawers": (2, 3, 4, 5),
    "wardrobe": (2, 3, 4),
    "table": (0, 2, 4),
    "chair": (1, 2, 3),
    "sofa": (1, 2, 3),
    "bed": (1, 2),
    "desk": (2, 3),
    "fridge": (1, 2, 3),
    "washer": (1, 2),
    "suitcase": (1, 2, 3),
    "lamp": (1, 2),
}
HEIGHTS = {
    "bookshelf": 1.5,
    "drawers": 0.8,
    "wardrobe": 1.9,
    "table": 0.8,
    "chair": 0.9,
    "sofa": 0.8,
    "bed": 0.9,
    "desk": 0.75,
    "fridge": 1.6,
    "washer": 0.85,
    "suitcase": 0.8,
    "lamp": 1.7,
}
