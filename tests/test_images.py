"""The one door: what passes keeps its values exactly, and what is refused gets a sentence whose fix
works.
"""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from blendlab import images

RNG = np.random.default_rng(0)
PHOTO = Image.fromarray(RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8))  # 32 wide, 24 high
MASK = Image.fromarray(
    np.pad(np.full((8, 8), 255, np.uint8), ((4, 12), (16, 8)))
)  # of the same size
LIKE = torch.zeros(1, 3, 24, 32)


def png16(kind, channels, shape=(3, 5)):
    """A 16-bit PNG, which Pillow reads but does not write in colour."""

    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    height, width = shape
    rows = RNG.integers(0, 65536, (height, width * channels)).astype(">u2")
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def saved(picture, **options):
    file = io.BytesIO()
    picture.save(file, **options)
    return file.getvalue()


def with_alpha(alpha):
    picture = PHOTO.convert("RGBA")
    picture.putalpha(alpha)
    return picture


# What passes


@pytest.mark.parametrize("as_what", ["picture", "text", "path", "tensor"])
def test_pictures_come_in_as_they_are(tmp_path, as_what):
    PHOTO.save(tmp_path / "photo.png")
    truth = torch.from_numpy(np.asarray(PHOTO).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    path = tmp_path / "photo.png"
    x = images.image({"picture": PHOTO, "text": str(path), "path": path, "tensor": truth}[as_what])
    assert x.shape == (1, 3, 24, 32) and x.dtype == torch.float32
    assert torch.equal(x, truth)


def test_out_and_in_again_keeps_all_256_values():
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    (rgb,) = images.to_pil(images.image(ramp))
    assert rgb.mode == "RGB" and np.array_equal(np.asarray(rgb)[..., 1], np.asarray(ramp))
    (grey,) = images.to_pil(images.mask(ramp, soft=True))
    assert grey.mode == "L" and np.array_equal(np.asarray(grey), np.asarray(ramp))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_modes_that_rgb_holds_exactly_pass(mode):
    picture = PHOTO.quantize(16) if mode == "P" else PHOTO.convert(mode)
    assert torch.equal(images.image(picture), images.image(picture.convert("RGB")))


def test_a_photo_taken_sideways_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to look at it
    PHOTO.save(tmp_path / "sideways.png", exif=exif)
    upright = images.image(PHOTO.transpose(Image.Transpose.ROTATE_270))
    assert torch.equal(images.image(tmp_path / "sideways.png"), upright)
    assert torch.equal(images.image(Image.open(tmp_path / "sideways.png")), upright)


def test_tensors_keep_their_gradient_and_half_precision_becomes_float32():
    x = torch.zeros(2, 3, 4, 4, dtype=torch.float16, requires_grad=True)
    out = images.image(x)
    out.sum().backward()
    assert out.dtype == torch.float32 and x.grad.sum() == x.numel()


def test_an_animation_passes_by_the_frame_that_is_chosen(tmp_path):
    frames = [Image.new("P", (8, 8), i) for i in range(3)]
    for frame in frames:
        frame.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(
        ValueError, match="has 3 frames: image = Image.open.path., choose one with image.seek"
    ):
        images.image(tmp_path / "moving.gif")
    with Image.open(tmp_path / "moving.gif") as picture:
        picture.seek(2)
        assert images.to_pil(images.image(picture))[0].getpixel((0, 0)) == (0, 255, 0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P"])
def test_masks_pass_in_every_mode_that_is_black_and_white(mode):
    m = images.mask(MASK.convert(mode), like=LIKE)
    assert m.shape == (1, 1, 24, 32) and m.dtype == torch.float32
    assert m.sum() == 64 and m[0, 0, 4:12, 16:24].min() == 1  # white = edit, in its place


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64, torch.bool])
def test_mask_tensors_pass_as_floats_and_bools(dtype):
    m = images.mask(images.mask(MASK).to(dtype), like=LIKE)
    assert m.dtype == torch.float32 and torch.equal(m, images.mask(MASK))


def test_soft_masks_keep_their_greys_where_they_are_allowed():
    greys = Image.fromarray(np.array([[0, 51], [102, 255]], np.uint8))
    assert torch.allclose(images.mask(greys, soft=True).flatten(), torch.tensor([0, 0.2, 0.4, 1]))
    assert images.mask(torch.full((1, 1, 2, 2), 0.5), soft=True).unique() == 0.5


def test_full_masks_pass_where_they_are_allowed():
    assert images.mask(Image.new("L", (4, 4), 255), allow_full=True).all()


# What is refused: pictures. Each row is what a user passes and a piece of the sentence that
# answers.

NOT_A_PICTURE = [
    ("nowhere.png", FileNotFoundError, r"there is no image at .*nowhere.png: check the name"),
    ("a red mushroom on grass " * 20, FileNotFoundError, r"there is no image at .*a red mushroom"),
    ("folder", IsADirectoryError, r"image is the folder .*folder: pass one picture in it"),
    ("empty.png", ValueError, r"empty.png is empty \(0 bytes\): get the file again"),
    ("text.png", ValueError, r"text.png cannot be read \(cannot identify.*save it as PNG or JPEG"),
    ("short.png", ValueError, r"image is damaged \(.*truncated.*get the file again"),
    ("short.jpg", ValueError, r"image is damaged \(.*truncated.*get the file again"),
    ("broken.png", ValueError, r"image is damaged \(.*get the file again"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "folder").mkdir()
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("not a picture")
    png, jpg = saved(PHOTO, format="PNG"), saved(PHOTO.resize((200, 200)), format="JPEG")
    (folder / "short.png").write_bytes(png[: len(png) // 2])
    (folder / "short.jpg").write_bytes(jpg[: len(jpg) // 2])
    (folder / "broken.png").write_bytes(png[:200] + b"broken" + png[206:])
    return folder


@pytest.mark.parametrize("file, error, sentence", NOT_A_PICTURE)
@pytest.mark.parametrize("door", [images.image, images.mask, images.fit])
def test_files_that_cannot_be_read_are_refused(folder, door, file, error, sentence):
    arguments = [8] if door is images.fit else []
    sentence = sentence.replace("image", "mask") if door is images.mask else sentence
    with pytest.raises(error, match=sentence):
        door(folder / file, *arguments)


def test_a_picture_that_is_opened_but_cut_short_is_refused(folder):
    with (
        Image.open(folder / "short.png") as picture,
        pytest.raises(ValueError, match="image is damaged"),
    ):
        images.image(picture)


@pytest.mark.parametrize("x", [None, 3, np.zeros((4, 4, 3)), [PHOTO]])
def test_other_types_are_refused(x):
    with pytest.raises(
        TypeError, match=f"image is a {type(x).__name__}: pass PIL, a path or a tensor"
    ):
        images.image(x)


BAD_PICTURES = [
    (with_alpha(128), r"see-through in places \(alpha below 255\): flatten it, on white with"),
    (with_alpha(MASK), "see-through in places"),
    (
        PHOTO.convert("CMYK"),
        r"is in CMYK, which no one formula turns into RGB: .*image.convert\('RGB'\)",
    ),
    (PHOTO.convert("YCbCr"), "is in YCbCr"),
    (PHOTO.convert("HSV"), "is in HSV"),
    (
        Image.new("I;16", (4, 4)),
        r"more than 8 bits \(mode I;16\): scale it to 0..255, from 16 bits with",
    ),
    (Image.new("I", (4, 4)), r"more than 8 bits \(mode I\)"),
    (Image.new("F", (4, 4)), r"more than 8 bits \(mode F\)"),
]


@pytest.mark.parametrize("picture, sentence", BAD_PICTURES, ids=lambda x: getattr(x, "mode", ""))
def test_pictures_that_rgb_does_not_hold_are_refused(picture, sentence):
    with pytest.raises(ValueError, match="^image .*" + sentence):
        images.image(picture)
    with pytest.raises(ValueError, match="^photo "):
        images.image(picture, name="photo")


def test_see_through_palettes_and_greys_are_refused():
    palette = PHOTO.quantize(4)
    palette.info["transparency"] = 0
    grey = Image.new("L", (2, 2), 7)
    grey.info["transparency"] = 7
    for picture in (palette, grey, Image.new("LA", (2, 2))):
        with pytest.raises(ValueError, match="see-through"):
            images.image(picture)


@pytest.mark.parametrize("kind, channels, mode", [(2, 3, "RGB"), (4, 2, "RGBA"), (6, 4, "RGBA")])
def test_16_bit_colour_is_refused_although_pillow_would_halve_it_in_silence(
    tmp_path, kind, channels, mode
):
    (tmp_path / "deep.png").write_bytes(png16(kind, channels))
    fix = rf"16 bits a channel, not 8: Image.open\(path\).convert\('{mode}'\) keeps the upper 8"
    with Image.open(tmp_path / "deep.png") as opened:
        for x in (tmp_path / "deep.png", opened):
            with pytest.raises(ValueError, match=fix):
                images.image(x)
        assert images.image(opened.convert(mode).convert("RGB")).shape == (
            1,
            3,
            3,
            5,
        )  # the fix passes


def test_the_fixes_for_pictures_work(tmp_path):
    image = with_alpha(MASK)
    flat = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    assert images.to_pil(images.image(flat))[0].getpixel((0, 0)) == (255, 255, 255)
    (tmp_path / "deep.png").write_bytes(png16(0, 1))
    image = Image.open(tmp_path / "deep.png")
    grey = Image.fromarray((np.asarray(image) // 256).astype("uint8"))
    assert np.array_equal(
        np.asarray(images.to_pil(images.image(grey))[0])[..., 0], np.asarray(image) >> 8
    )


BAD_TENSORS = [
    (torch.zeros(3, 4, 5), r"image is \(3,4,5\), not \(B,3,H,W\): pass image\[None\]"),
    (torch.zeros(4, 5, 3), r"image.permute\(2, 0, 1\)\[None\]"),
    (torch.zeros(2, 4, 5, 3), r"image.permute\(0, 3, 1, 2\)"),
    (torch.zeros(2, 1, 4, 5), r"image.expand\(-1, 3, -1, -1\)"),
    (torch.zeros(1, 4, 8, 8), r"\(1,4,8,8\), not \(B,3,H,W\): a picture has three channels"),
    (torch.zeros(0, 3, 8, 8), r"\(0,3,8,8\), which holds no pixel: pass at least one"),
    (
        torch.zeros(1, 3, 4, 4, dtype=torch.uint8),
        r"holds torch.uint8: pass floats in \[-1, 1\], image / 127.5 - 1",
    ),
    (
        torch.full((1, 3, 4, 4), 255.0),
        r"values from 255 to 255, not in \[-1, 1\]: pass image / 127.5 - 1",
    ),
    (
        torch.full((1, 3, 4, 4), -1.01),
        r"values from -1.01 to -1.01, not in \[-1, 1\]: pass image.clamp\(-1, 1\)",
    ),
    (torch.full((1, 3, 4, 4), torch.nan), r"NaN or infinite values: .* torch.float32"),
    (torch.full((1, 3, 4, 4), -torch.inf), r"NaN or infinite values: .* torch.float32"),
]


@pytest.mark.parametrize("x, sentence", BAD_TENSORS)
def test_picture_tensors_of_the_wrong_kind_are_refused(x, sentence):
    with pytest.raises(ValueError, match=sentence):
        images.image(x)


@pytest.mark.parametrize(
    "size, nearest", [((50, 33), (48, 32)), ((3, 70), (8, 72)), ((32, 31), (32, 32))]
)
def test_sizes_that_the_factor_does_not_divide_are_refused_and_the_nearest_named(size, nearest):
    picture, (w, h) = PHOTO.resize(size), nearest
    fix = rf"the nearest is {w}x{h}, bl.images.fit\(image, \({w}, {h}\)\)"
    with pytest.raises(
        ValueError, match=rf"image is {size[0]}x{size[1]} .* not multiples of 8: {fix}"
    ):
        images.image(picture, size_multiple=8)
    assert images.image(images.fit(picture, nearest), size_multiple=8).shape == (1, 3, h, w)


# What is refused: masks


def stroke(*values):
    return Image.fromarray(np.array([values], np.uint8))


GREYS = r"make it black and white with mask.convert\('L'\).point\(lambda v: 255 \* \(v > 127\)\)"
BAD_MASKS = [
    (
        Image.new("L", (4, 4), 0),
        "black everywhere, so nothing is edited: paint the area to edit white",
    ),
    (
        Image.new("L", (4, 4), 255),
        "white everywhere, so nothing is kept: paint black what should stay",
    ),
    (stroke(0, 1, 1), r"holds 0 and 1, and white is 255: .* mask.point\(lambda v: 255 \* v\)"),
    (stroke(0, 3, 251, 255), r"2 grey pixels \(noise, as JPEG leaves it; PNG does not\): " + GREYS),
    (stroke(0, 3, 90, 255), r"2 grey pixels \(3 for one\): " + GREYS),
    (PHOTO, r"mask has colours \(its channels differ\): " + GREYS),
    (
        with_alpha(MASK),
        r"see-through .* pass the channel you mean, mask.convert\('RGBA'\).getchannel\('A'\)",
    ),
    (Image.new("I;16", (4, 4)), "more than 8 bits"),
    (torch.zeros(4, 4), r"mask is \(4,4\), not \(B,1,H,W\): pass mask\[None, None\]"),
    (torch.zeros(2, 4, 4), r"mask\[:, None\]"),
    (torch.zeros(1, 3, 4, 4), r"mask\[:, :1\] if the three are equal"),
    (torch.zeros(1, 4, 4, 1, 1), "a mask has one channel, 1 = edit"),
    (
        torch.full((1, 1, 4, 4), 255, dtype=torch.uint8),
        r"holds torch.uint8: .* \(mask > 127\).float\(\)",
    ),
    (torch.ones(1, 1, 4, 4, dtype=torch.long), r"holds torch.int64: .* \(mask > 0\).float\(\)"),
    (
        torch.linspace(0, 1, 16).view(1, 1, 4, 4),
        r"0 to 1, not all 0 or 1: pass \(mask > 0.5\).float\(\)",
    ),
    (
        torch.linspace(-1, 1, 16).view(1, 1, 4, 4),
        r"-1 to 1, not all 0 or 1: pass \(mask > 0\).float\(\)",
    ),
    (torch.full((1, 1, 4, 4), 255.0), r"255 to 255, not all 0 or 1: pass \(mask > 127\).float\(\)"),
    (torch.full((1, 1, 4, 4), torch.nan), "NaN or infinite"),
    (torch.zeros(1, 1, 4, 4), "black everywhere"),
    (torch.stack([torch.zeros(1, 4, 4), torch.eye(4)[None]]), "black everywhere"),
    (torch.ones(1, 1, 4, 4), "white everywhere"),
]


@pytest.mark.parametrize("x, sentence", BAD_MASKS)
def test_masks_of_the_wrong_kind_are_refused(x, sentence):
    with pytest.raises(ValueError, match=sentence):
        images.mask(x)


def test_soft_masks_stay_between_0_and_1():
    with pytest.raises(ValueError, match=r"not all between 0 and 1: pass \(mask > 0\).float\(\)"):
        images.mask(torch.linspace(-1, 1, 16).view(1, 1, 4, 4), soft=True)
    with pytest.raises(ValueError, match="black everywhere"):
        images.mask(torch.zeros(1, 1, 4, 4), soft=True)


def test_a_mask_of_another_size_is_refused_and_both_sizes_named():
    fix = r"paint it on this image, or resize it with bl.images.fit_mask\(mask, \(32, 24\)\)"
    with pytest.raises(
        ValueError, match=r"mask is 20x10 and the image 32x24 \(width x height\): " + fix
    ):
        images.mask(MASK.resize((20, 10), Image.Resampling.NEAREST), like=LIKE)


def test_masks_are_one_or_as_many_as_the_pictures():
    m = images.mask(MASK)
    assert images.mask(m.expand(3, -1, -1, -1), like=LIKE.expand(3, -1, -1, -1)).shape[0] == 3
    with pytest.raises(
        ValueError, match="2 masks for 3 images: pass one mask, or one for each image"
    ):
        images.mask(m.expand(2, -1, -1, -1), like=LIKE.expand(3, -1, -1, -1))


def test_the_fixes_for_masks_work(tmp_path):
    MASK.save(tmp_path / "mask.jpg", quality=80)
    mask = Image.open(tmp_path / "mask.jpg")
    with pytest.raises(ValueError, match="noise, as JPEG leaves it"):
        images.mask(mask)
    fixed = mask.convert("L").point(lambda v: 255 * (v > 127))
    assert torch.equal(images.mask(fixed), images.mask(MASK))

    labels = MASK.point(lambda v: v // 255)
    assert torch.equal(images.mask(labels.point(lambda v: 255 * v)), images.mask(MASK))

    mask = with_alpha(MASK)
    assert torch.equal(images.mask(mask.convert("RGBA").getchannel("A")), images.mask(MASK))


# Ways out, and the explicit resize


def test_to_pil_clamps_what_a_decoder_overshoots():
    (picture,) = images.to_pil(torch.tensor([-1.2, 0.0, 1.2]).view(1, 1, 1, 3).expand(1, 3, 1, 3))
    assert [picture.getpixel((i, 0))[0] for i in range(3)] == [0, 128, 255]


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (3, 8, 8)])
def test_to_pil_refuses_latents(shape):
    with pytest.raises(ValueError, match="to_pil takes .B,3,H,W. pictures .*: decode first"):
        images.to_pil(torch.zeros(shape))


def test_to_pil_refuses_nan():
    with pytest.raises(ValueError, match="the picture has NaN .* torch.float32"):
        images.to_pil(torch.full((1, 3, 2, 2), torch.nan))


def test_fit_cuts_the_middle_and_mask_and_picture_stay_together(tmp_path):
    pixels = np.asarray(MASK.resize((320, 240), Image.Resampling.NEAREST))
    picture = Image.fromarray(np.stack([pixels] * 3, -1))  # a picture that is its own mask
    picture.save(tmp_path / "picture.png")
    image, mask = images.fit(tmp_path / "picture.png", 120), images.fit_mask(picture, (120, 120))
    assert image.size == mask.size == (120, 120) and set(np.unique(mask)) == {0, 255}
    difference = np.asarray(image.convert("L")).astype(int) - np.asarray(mask)
    assert np.abs(difference).mean() < 2  # only the antialiased border of the square differs
    assert images.mask(mask, like=images.image(image)).shape == (1, 1, 120, 120)


def test_fit_takes_tensors_of_one_picture():
    assert images.fit(LIKE, 8).size == (8, 8)
    assert images.fit_mask(images.mask(MASK), (16, 8)).mode == "L"
    with pytest.raises(
        ValueError, match=r"image is \(2,3,24,32\) and fit takes one picture: pass image\[:1\]"
    ):
        images.fit(LIKE.expand(2, -1, -1, -1), 8)


def test_fit_mask_refuses_colours():
    with pytest.raises(ValueError, match="mask has colours"):
        images.fit_mask(PHOTO, 8)
