"""The one door: what passes keeps its values exactly, and what is refused gets a sentence whose fix
works.
"""

import io
import re
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageDraw, ImageOps

import blendlab as bl
from blendlab import images, world

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
        ValueError, match=r"has 3 frames: image = Image.open\('.*'\), choose one with image.seek"
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
    with pytest.raises(TypeError, match="^image is (None|an? [a-z]+): pass "):
        images.image(x)


BAD_PICTURES = [
    (with_alpha(128), r"see-through in places \(alpha below 255\): flatten it, on white, pass "),
    (with_alpha(MASK), "see-through in places"),
    (
        PHOTO.convert("CMYK"),
        r"is in CMYK, which no one formula turns into RGB: .*image.convert\('RGB'\)",
    ),
    (PHOTO.convert("YCbCr"), "is in YCbCr"),
    (PHOTO.convert("HSV"), "is in HSV"),
    (Image.new("I;16", (4, 4)), r"more than 8 bits \(mode I;16\): scale it to 0..255, pass "),
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
    fix = rf"16 bits a channel, not 8: to keep the upper 8, pass .*.convert\('{mode}'\)"
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
        r"holds torch.uint8, not floats in \[-1, 1\]: for 0..255, pass image / 127.5 - 1",
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
    fix = rf"the nearest is {w}x{h}, pass bl.images.fit\(image, \({w}, {h}\)\)"
    with pytest.raises(
        ValueError, match=rf"image is {size[0]}x{size[1]} .* not multiples of 8: {fix}"
    ):
        images.image(picture, size_multiple=8)
    assert images.image(images.fit(picture, nearest), size_multiple=8).shape == (1, 3, h, w)


# What is refused: masks


def stroke(*values):
    return Image.fromarray(np.array([values], np.uint8))


GREYS = r"make it black and white, pass mask.convert\('L'\).point\(lambda v: 255 \* \(v > 127\)\)"
BAD_MASKS = [
    (
        Image.new("L", (4, 4), 0),
        "black everywhere, so nothing is edited: paint the area to edit white",
    ),
    (
        Image.new("L", (4, 4), 255),
        "white everywhere, so nothing is kept: paint black what should stay",
    ),
    (stroke(0, 1, 1), r"holds 0 and 1, and white is 255: .*point\(lambda v: 255 \* v\)"),
    (stroke(0, 3, 251, 255), r"2 grey pixels \(noise, as JPEG leaves it; PNG does not\): " + GREYS),
    (stroke(0, 3, 90, 255), r"2 grey pixels \(3 for one\): " + GREYS),
    (PHOTO, r"mask has colours \(its channels differ\): " + GREYS),
    (
        with_alpha(MASK),
        r"see-through .* choose the channel .* pass mask.convert\('RGBA'\).getchannel\('A'\)",
    ),
    (Image.new("I;16", (4, 4)), "more than 8 bits"),
    (torch.zeros(4, 4), r"mask is \(4,4\), not \(B,1,H,W\): pass mask\[None, None\]"),
    (torch.zeros(2, 4, 4), r"mask\[:, None\]"),
    (torch.zeros(1, 3, 4, 4), r"mask\[:, :1\] if the three are equal"),
    (torch.zeros(1, 4, 4, 1, 1), "a mask has one channel, 1 = edit"),
    (
        torch.full((1, 1, 4, 4), 255, dtype=torch.uint8),
        r"holds torch.uint8, not .* \(mask > 127\).float\(\)",
    ),
    (torch.ones(1, 1, 4, 4, dtype=torch.long), r"holds torch.int64, not .* \(mask > 0\).float\(\)"),
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
    fix = r"paint it on this image, or pass bl.images.fit_mask\(mask, \(32, 24\)\)"
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


# Files that nobody would want to decode


def declared(width, height):
    """A PNG of a few bytes that says it is so large."""

    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(13000, 13000), (9000, 9000), (60000, 60000), (2**31 - 1, 1)])
@pytest.mark.parametrize("door", [images.image, images.mask, lambda x: images.fit(x, 64)])
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, door, size):
    (tmp_path / "bomb.png").write_bytes(declared(*size))
    tracemalloc.start()
    with warnings.catch_warnings(), pytest.raises(ValueError, match="shrink it"):
        warnings.simplefilter("error")
        door(tmp_path / "bomb.png")
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_an_opened_picture_of_too_many_pixels_is_refused_too(tmp_path):
    (tmp_path / "bomb.png").write_bytes(declared(8500, 8500))
    with (
        Image.open(tmp_path / "bomb.png") as picture,
        pytest.raises(ValueError, match="^image is 8500x8500, more than 64 million pixels"),
    ):
        images.image(picture)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_the_usual_formats_pass(tmp_path, kind):
    PHOTO.save(tmp_path / "photo", format=kind)
    assert images.image(tmp_path / "photo").shape == (1, 3, 24, 32)


@pytest.mark.parametrize("kind", ["EPS", "ICO", "PDF", "TGA", "SGI", "PCX"])
def test_other_formats_are_refused_and_the_usual_ones_named(tmp_path, kind):
    PHOTO.save(tmp_path / "photo", format=kind)
    with pytest.raises(ValueError, match="cannot be read .*: save it as PNG or JPEG, of .*TIFF"):
        images.image(tmp_path / "photo")


def test_a_device_is_no_picture():
    with pytest.raises(ValueError, match="is no regular file"):
        images.image("/dev/zero")


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_xmp_does_not_turn_a_picture(tmp_path, kind):
    from PIL.PngImagePlugin import PngInfo

    options = {"xmp": XMP}
    if kind == "PNG":
        options = {"pnginfo": PngInfo()}
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    PHOTO.save(tmp_path / "photo", format=kind, **options)
    with Image.open(tmp_path / "photo") as picture:
        assert ImageOps.exif_transpose(picture).size == (24, 32)  # Pillow turns it
        assert images.image(picture).shape == (1, 3, 24, 32)
    assert images.image(tmp_path / "photo").shape == (1, 3, 24, 32)


def broken_exif(path):
    PHOTO.save(path, format="JPEG", exif=b"Exif\0\0this is no TIFF header at all")
    return path


def test_broken_exif_gets_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="^image has broken EXIF data, which may turn it"):
        images.image(broken_exif(tmp_path / "photo.jpg"))


# Every fix runs as it is written


def rotated(path, picture):
    picture.save(path)
    return path


def jpeg(path, quality):
    disc = Image.new("L", (200, 150))
    ImageDraw.Draw(disc).ellipse((41, 30, 123, 109), fill=255)  # crosses blocks of 8x8, so it rings
    disc.save(path, quality=quality)
    return path


def profile(exchanged):
    """sRGB's profile under another name; exchanged: red stands for green, and green for red."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = data.replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be"))
    return (
        data.replace(b"rXYZ", b"____").replace(b"gXYZ", b"rXYZ").replace(b"____", b"gXYZ")
        if exchanged
        else data
    )


def profiled(picture, exchanged=True):
    picture = picture.copy()
    picture.info["icc_profile"] = profile(exchanged)
    return picture


class Edited:
    """What an Edit looks like from here."""

    images = [PHOTO]


def file(folder, name, content):
    (folder / name).write_bytes(content)
    return folder / name


UNIT, BOX = np.asarray(PHOTO) / 255, np.asarray(MASK) > 0
FIXES = {  # door, and what a user passes, given a folder
    "path with alpha": ("image", lambda d: rotated(d / "a.png", with_alpha(128))),
    "alpha": ("image", lambda d: with_alpha(128)),
    "path in CMYK": ("image", lambda d: rotated(d / "a.jpg", PHOTO.convert("CMYK"))),
    "HSV": ("image", lambda d: PHOTO.convert("HSV")),
    "path of 16-bit grey": ("image", lambda d: file(d, "a.png", png16(0, 1))),
    "path of 16-bit colour": ("image", lambda d: file(d, "a.png", png16(2, 3))),
    "floats in PIL": ("image", lambda d: Image.fromarray(UNIT[..., 0].astype("float32"))),
    "integers in PIL": ("image", lambda d: PHOTO.convert("I")),
    "broken EXIF": ("image", lambda d: broken_exif(d / "a.jpg")),
    "too many pixels": ("image", lambda d: Image.new("L", (8001, 8000))),
    "path of too many pixels": (
        "image",
        lambda d: rotated(d / "a.png", Image.new("1", (9000,) * 2)),
    ),
    "array": ("image", lambda d: np.asarray(PHOTO)),
    "array of integers": ("image", lambda d: np.asarray(PHOTO).astype(int)),
    "grey array": ("image", lambda d: np.asarray(PHOTO.convert("L"))),
    "array (H,W,1)": ("image", lambda d: np.asarray(PHOTO.convert("L"))[..., None]),
    "grey floats": ("image", lambda d: UNIT[..., 0]),
    "floats with alpha": ("image", lambda d: np.concatenate([UNIT, UNIT[..., :1] * 0 + 1], 2)),
    "mask (H,W,1)": ("mask", lambda d: (np.asarray(MASK) > 0)[..., None]),
    "float mask (H,W,3)": ("mask", lambda d: np.stack([np.asarray(MASK) / 255] * 3, 2)),
    "array of 0..255 floats": ("image", lambda d: np.asarray(PHOTO).astype(float)),
    "array in [0,1]": ("image", lambda d: UNIT),
    "array in [-1,1]": ("image", lambda d: UNIT * 2 - 1),
    "array (B,3,H,W)": ("image", lambda d: (UNIT * 2 - 1).transpose(2, 0, 1)[None]),
    "list of pictures": ("image", lambda d: [PHOTO, PHOTO]),
    "tuple of paths": ("image", lambda d: (rotated(d / "a.png", PHOTO),)),
    "list of tensors": ("image", lambda d: [LIKE - 1]),
    "Edit": ("image", lambda d: Edited()),
    "bytes": ("image", lambda d: saved(PHOTO, format="PNG")),
    "tensor (3,H,W)": ("image", lambda d: LIKE[0]),
    "tensor (H,W,3)": ("image", lambda d: LIKE[0].permute(1, 2, 0)),
    "tensor (B,H,W,3)": ("image", lambda d: LIKE.permute(0, 2, 3, 1)),
    "grey tensor": ("image", lambda d: LIKE[:, :1]),
    "bytes in a tensor": ("image", lambda d: (LIKE + 200).byte()),
    "0..255 in a tensor": ("image", lambda d: LIKE + 200),
    "a little over 1": ("image", lambda d: LIKE + 1.01),
    "[0,1] in a tensor": ("image", lambda d: torch.from_numpy(UNIT).permute(2, 0, 1)[None]),
    "path with a profile": ("image", lambda d: rotated(d / "a.png", profiled(PHOTO))),
    "profile": ("image", lambda d: profiled(PHOTO)),
    "see-through profile": ("image", lambda d: profiled(with_alpha(255))),
    "profile of a picture to fit": ("fit", lambda d: profiled(PHOTO)),
    "size": ("eights", lambda d: PHOTO.resize((50, 33))),
    "path of a size": ("eights", lambda d: rotated(d / "a.png", PHOTO.resize((50, 33)))),
    "path of colours": ("mask", lambda d: rotated(d / "a.png", PHOTO)),
    "colours": ("mask", lambda d: PHOTO),
    "path with strokes": ("mask", lambda d: rotated(d / "a.png", with_alpha(MASK))),
    "strokes": ("mask", lambda d: with_alpha(MASK)),
    "path of ones": ("mask", lambda d: rotated(d / "a.png", MASK.point(lambda v: v // 255))),
    "path of greys": ("mask", lambda d: rotated(d / "a.png", PHOTO.convert("L"))),
    "path of a JPEG": ("mask", lambda d: jpeg(d / "a.jpg", 75)),
    "bool array": ("mask", lambda d: BOX),
    "byte array": ("mask", lambda d: np.asarray(MASK)),
    "array of 0 and 1": ("mask", lambda d: BOX.astype("uint8")),
    "array of floats": ("mask", lambda d: BOX.astype(float)),
    "mask (H,W)": ("mask", lambda d: torch.from_numpy(BOX)),
    "mask (B,H,W)": ("mask", lambda d: torch.from_numpy(BOX)[None]),
    "mask (B,3,H,W)": ("mask", lambda d: torch.from_numpy(BOX).expand(1, 3, -1, -1).float()),
    "mask of integers": ("mask", lambda d: torch.from_numpy(BOX)[None, None].long()),
    "mask in [-1,1]": ("mask", lambda d: torch.from_numpy(BOX * 2.0 - 1)[None, None]),
    "soft tensor": ("mask", lambda d: torch.from_numpy(UNIT[None, None, ..., 0])),
    "mask of another size": ("like", lambda d: MASK.resize((20, 10), Image.Resampling.NEAREST)),
    "path of another size": ("like", lambda d: rotated(d / "a.png", MASK.resize((20, 10), 0))),
    "pictures to fit": ("fit", lambda d: LIKE.expand(2, -1, -1, -1)),
}
DOORS = {
    "image": images.image,
    "eights": lambda x: images.image(x, size_multiple=8),
    "mask": images.mask,
    "like": lambda x: images.mask(x, like=LIKE),
    "fit": lambda x: images.fit(x, 8),
}


def advice(call):
    """The sentence with which a call is refused, or its warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            call()
        except (TypeError, ValueError) as error:
            return str(error)
    (warning,) = caught
    return str(warning.message)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("door, make", FIXES.values(), ids=FIXES)
def test_every_fix_runs_as_it_is_written(tmp_path, door, make):
    x, go = make(tmp_path), DOORS[door]
    sentence = advice(lambda: go(x))
    code = re.search(r".*(?:pass|resize it with|nearest is \S+,) (.+)$", sentence)[1]
    code = re.split(r" if | \(if |, image\[1:2\]", code)[0]
    names = dict(
        Image=Image,
        ImageCms=ImageCms,
        ImageOps=ImageOps,
        np=np,
        torch=torch,
        bl=bl,
        io=io,
        image=x,
        mask=x,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        go(eval(code, names))


def test_a_profile_that_is_srgb_by_any_name_or_broken_gets_no_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for picture in (profiled(PHOTO, exchanged=False), profiled(PHOTO.convert("L"))):
            images.image(picture)
        broken = PHOTO.copy()
        broken.info["icc_profile"] = b"no profile"
        images.image(rotated(tmp_path / "a.png", broken))


@pytest.mark.parametrize("quality", [50, 75, 90])
def test_a_jpeg_of_a_mask_is_recognised(tmp_path, quality):
    with pytest.raises(ValueError, match="noise, as JPEG leaves it; PNG does not"):
        images.mask(jpeg(tmp_path / "mask.jpg", quality))


# Pictures in [0,1]


def heard(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in caught]


def test_no_scene_of_the_course_is_taken_for_a_picture_in_0_to_1():
    pictures = [world.render(world.sample(200, seed)).image for seed in (1, 2)]
    pictures += [images.image(p) for p in sorted(bl.data("scenes").glob("*.png"))]
    assert not [
        w for batch in pictures for x in batch for w in heard(lambda x=x: images.image(x[None]))
    ]


def test_every_scene_in_0_to_1_is_recognised():
    pictures = (world.render(world.sample(200, 1)).image + 1) / 2
    for x in pictures:
        (warning,) = heard(lambda x=x: images.image(x[None], name="photo"))
        assert warning.endswith("if it is in [0, 1], pass photo * 2 - 1")


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_plain_pictures_are_not_warned_of(value):
    assert heard(lambda: images.image(LIKE + value)) == []


@pytest.mark.parametrize("scale, shift", [(0.4, 0.0), (0.4, 0.3), (1.0, 0.0)])
def test_a_dim_picture_in_0_to_1_is_recognised(scale, shift):
    (warning,) = heard(lambda: images.image(torch.rand(1, 3, 8, 8) * scale + shift))
    assert warning.endswith("if it is in [0, 1], pass image * 2 - 1")


# Sizes


def test_fit_stands_at_the_front_door_and_crops_the_centre():
    ramp = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (32, 1)))  # 64 wide, 32 high
    square = bl.fit(ramp.convert("RGB"), 32)
    assert square.size == (32, 32) and bl.fit(ramp, (16, 32)).size == (16, 32)
    assert np.array_equal(np.asarray(square)[..., 0], np.asarray(ramp)[:, 16:48])


@pytest.mark.parametrize("size", [0, -8, (8,), (8, 0), 8.5, "8", None, (8, "8"), 10**6, True])
def test_sizes_that_are_none_are_refused(size):
    for door in (images.fit, images.fit_mask):
        with pytest.raises(ValueError, match=r"size is .*: pass one side or \(width, height\)"):
            door(PHOTO if door is images.fit else MASK, size)


def test_pictures_at_a_side_are_means_of_areas_and_stay_as_they_are_at_that_side():
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert images.at_side(x, 8) is x
    means = x.view(2, 3, 4, 2, 4, 2).mean((3, 5))
    torch.testing.assert_close(images.at_side(x, 4), means)


# The package's own files


@pytest.mark.parametrize("name", ["../README.md", "/etc/passwd", "scenes/../../pyproject.toml"])
def test_data_stays_in_its_folder(name):
    with pytest.raises(ValueError, match="leads out of data/"):
        bl.data(name)


@pytest.mark.parametrize("name", [None, 3, "a\0b"])
def test_data_takes_a_name(name):
    with pytest.raises(ValueError, match="pass a text"):
        bl.data(name)


def test_a_link_out_of_data_is_refused(tmp_path, monkeypatch):
    from blendlab import files

    (tmp_path / "data").mkdir()
    (tmp_path / "secret").touch()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "secret")
    monkeypatch.setattr(files, "PACKAGE", tmp_path)
    with pytest.raises(ValueError, match="leads out of data/"):
        files.data("link")
