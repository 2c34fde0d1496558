"""The one door for pictures and masks: they are checked here, and bad ones get a sentence.

Nothing is resized, inverted, clipped or rounded on the way in: what needs that is refused, and
`fit` and `fit_mask` resize when you ask. Pictures are float32 (B,3,H,W) in [-1, 1]; masks are
float32 (B or 1,1,H,W) in {0, 1}, 1 (white) = edit. Next: masks.py takes a mask to latent size.
"""

import io
import os
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from .errors import Refused, WrongType

# Files of other formats are refused: some of them start other programs (EPS calls Ghostscript).
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
# The most pixels of a picture. It is checked before decoding, as a file of 20 kB can hold billions.
MOST = 64_000_000


def image(x, size_multiple: int | None = None, name: str = "image", known: bool = False) -> Tensor:
    """Bring a picture in as a float32 tensor (B,3,H,W) in [-1, 1].

    x: a PIL picture, a path, or a float tensor (B,3,H,W) in [-1, 1] (it keeps its device and its
       gradient).
    EXIF rotation is applied; palettes and greys become RGB exactly; alpha must be opaque
    everywhere. A tensor without a value below 0 gets a warning, as it may be in [0, 1]; so does a
    picture with a colour profile that is not sRGB.
    At most 64 million pixels, as PNG, JPEG, WebP, GIF, BMP, TIFF or PPM.
    size_multiple: the model's factor, which must divide width and height. name: what an error calls
                   x. known: it was made here, so do not warn that it may be in [0, 1].
    Raises ValueError, TypeError, FileNotFoundError or IsADirectoryError, with the fix.
    """
    called = _called(x, name)
    if isinstance(x, Tensor):
        _check_image_tensor(x, name, known)
        x = x.float()
    else:
        picture, how = _open(x, name)
        pixels = torch.from_numpy(_colours(picture, name, how))  # (H,W,3)
        x = pixels.permute(2, 0, 1)[None].float().contiguous().div_(127.5).sub_(1)  # (1,3,H,W)
    if size_multiple:
        _check_multiple(x, size_multiple, name, called)
    return x


def mask(x, like: Tensor | None = None, soft=False, allow_full=False, name: str = "mask") -> Tensor:
    """Bring a mask in as a float32 tensor (B or 1,1,H,W) in {0, 1}; 1 (white) = edit.

    x: a PIL picture or a path (black and white; one channel or three equal ones), or a float or
       bool tensor.
    A see-through picture is refused, as its alpha or its colour may be the mask: pass the channel
    you mean.
    like: the picture (B,3,H,W) that the mask must fit, whose device it goes to.
    soft: let greys pass, in [0, 1]. allow_full: let a mask pass that is white everywhere; black
          never does.
    Raises ValueError, TypeError, FileNotFoundError or IsADirectoryError, with the fix.
    """
    called = _called(x, name)
    if isinstance(x, Tensor):
        _check_mask_tensor(x, soft, name)
        x = x.float()
    else:
        picture, how = _open(x, name, is_mask=True)
        x = _one_channel(_rgb(picture, name, how, _strokes(how)), soft, name, how)  # (1,1,H,W)
    _check_filled(x, allow_full, name)
    return x if like is None else _matched(x, like, name, called)


def to_pil(x: Tensor) -> list[Image.Image]:
    """Turn pictures (B,3,H,W) in [-1, 1] or masks (B,1,H,W) in [0, 1] into PIL, of 8 bits.

    The way out, for looking and saving: values past the range are clamped, as a decoder overshoots
    a little. Undoes `image` and `mask` exactly. Raises ValueError for NaN and for latents.
    """
    if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] not in (1, 3):
        given = _shape(x) if isinstance(x, Tensor) else _kind(x)
        raise Refused(
            f"to_pil takes (B,3,H,W) pictures or (B,1,H,W) masks, not {given}: decode first"
        )
    if not x.is_floating_point() and x.dtype != torch.bool:
        raise Refused(f"to_pil takes floats, not {x.dtype}: for 0..255, pass x / 127.5 - 1")
    _check_finite(x, "the picture")
    x = x.detach().float()
    x = (x + 1) * 127.5 if x.shape[1] == 3 else x * 255
    pixels = x.round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()  # (B,H,W,C)
    return [Image.fromarray(p.squeeze(-1) if p.shape[-1] == 1 else p) for p in pixels]


def fit(picture, size: int | tuple[int, int], name: str = "image") -> Image.Image:
    """Cut the largest centred piece of that shape and resize it to `size`, as a PIL picture.

    picture: PIL, a path, or a tensor with one picture. size: one side, or (width, height) as in
             PIL.
    """
    picture, how = _one_picture(picture, name)
    pixels = Image.fromarray(_colours(picture, name, how))
    return ImageOps.fit(pixels, _pair(size), Image.Resampling.LANCZOS)


def fit_mask(picture, size: int | tuple[int, int], name: str = "mask") -> Image.Image:
    """The same cut for the mask of that picture, with nearest pixels: black and white stay so."""
    picture, how = _one_picture(picture, name, is_mask=True)
    pixels = _rgb(picture, name, how, _strokes(how))
    (grey,) = to_pil(_one_channel(pixels, True, name, how))
    return ImageOps.fit(grey, _pair(size), Image.Resampling.NEAREST)


def at_side(pictures: Tensor, side: int) -> Tensor:
    """Pictures (B,3,H,W) as (B,3,side,side): each pixel is the mean of its area.

    How tinyworld's judge and CLIP see pictures that are larger than they are.
    """
    same = pictures.shape[-2:] == (side, side)
    return pictures if same else F.interpolate(pictures, (side, side), mode="area")


def resized(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures (B,3,H,W) in [-1,1] at a size (height, width): bicubic and antialiased, clamped."""
    if tuple(pictures.shape[-2:]) == size:
        return pictures
    return F.interpolate(pictures, size, mode="bicubic", antialias=True).clamp(-1, 1)


def _pair(size):
    pair = (size, size) if isinstance(size, int) else size
    whole = isinstance(pair, list | tuple) and all(type(side) is int for side in pair)
    if not whole or len(pair) != 2 or min(pair) < 1 or pair[0] * pair[1] > MOST:
        raise Refused(
            f"size is {size!r}: pass one side or (width, height), whole numbers from 1 on, of at "
            f"most {MOST} pixels"
        )
    return tuple(pair)


def _one_picture(x, name, is_mask=False):
    if isinstance(x, Tensor):
        if x.ndim != 4:
            raise Refused(f"{name} is {_shape(x)} and fit takes (1,C,H,W): pass {name}[None]")
        if x.shape[0] != 1:
            raise Refused(f"{name} is {_shape(x)} and fit takes one picture: pass {name}[:1]")
        _check_mask_tensor(x, True, name) if is_mask else _check_image_tensor(x, name)
        return to_pil(x)[0], f"bl.images.to_pil({name})[0]"
    return _open(x, name, is_mask)


# Files and PIL pictures


def _open(x, name, is_mask=False):
    """A loaded, upright copy of a picture given as a path or as PIL, and how Python gets it."""
    if isinstance(x, (str, os.PathLike)):
        how = f"Image.open({os.fspath(x)!r})"
        return _read(Path(x).expanduser(), name, how), how
    if isinstance(x, Image.Image):
        return _upright(x, name, name), name
    raise WrongType(f"{name} is {_kind(x)}: {_instead(x, name, is_mask)}")


def _called(x, name):
    """What Python calls it: a path as it is, or its name."""
    return repr(os.fspath(x)) if isinstance(x, (str, os.PathLike)) else name


def _kind(x):
    kind = type(x).__name__
    return "None" if x is None else f"an {kind}" if kind[0] in "AEIaei" else f"a {kind}"


def _instead(x, name, is_mask):
    """What to pass instead of an object that is neither a picture, nor a path, nor a tensor."""
    if isinstance(x, np.ndarray):
        return f"pass {_from_array(x, name, is_mask)}"
    if isinstance(getattr(x, "images", None), list):  # an Edit
        return f"it holds {len(x.images)} pictures: pass {name}.images[0]"
    if isinstance(x, list | tuple) and x:
        picture = isinstance(x[0], (Tensor, Image.Image, str, os.PathLike))
        return f"pass {name}[0]" if picture else f"pass np.array({name}) and see what it lacks"
    if isinstance(x, bytes | bytearray):
        return f"pass Image.open(io.BytesIO({name}))"
    return "pass PIL, a path or a tensor"


def _from_array(x, name, is_mask):
    """How an array becomes what `image` or `mask` takes."""
    if x.dtype.kind not in "uifb" or x.size == 0:
        return "PIL, a path or a tensor"
    if x.ndim == 3 and (x.shape[2] == 1 or is_mask and x.shape[2] in (3, 4)):
        return _from_array(x[..., 0], f"{name}[..., 0]", is_mask)
    low, high = float(x.min()), float(x.max())
    if is_mask and x.ndim == 2:
        half = 127 if high > 1 else 0.5 if x.dtype.kind == "f" else 0
        return f"torch.from_numpy({name} > {half})[None, None]"
    if x.ndim == 2 or (x.ndim == 3 and x.shape[2] in (3, 4)):
        if x.dtype.kind != "f" or high > 2:
            return f"Image.fromarray({name}.astype('uint8'))"
        if x.shape[2:] != (3,) and low >= 0 and high <= 1:
            return f"Image.fromarray(({name} * 255).astype('uint8'))"
        if x.shape[2:] == (3,):
            scale = f" * 2 - 1 (if it is in [0, 1], else {name} as it is)" if low >= 0 else ""
            return f"torch.from_numpy({name}).permute(2, 0, 1)[None]{scale}"
    return f"torch.from_numpy({name})"


def _read(path, name, how):
    if not os.path.exists(path):  # path.exists() raises for a prompt given as a path
        raise FileNotFoundError(
            f"there is no {name} at {path.absolute()}: check the name and the folder"
        )
    if path.is_dir():
        raise IsADirectoryError(f"{name} is the folder {path}: pass one picture in it")
    if not path.is_file():  # a pipe or a device may never end
        raise Refused(f"{name} {path} is no regular file: pass a picture that is saved as one")
    if path.stat().st_size == 0:
        raise Refused(f"{name} {path} is empty (0 bytes): get the file again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # see MOST
            picture = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise Refused(f"{name} {path} is too large ({error}): shrink it first") from error
    except Exception as error:  # decoders raise almost anything
        raise Refused(
            f"{name} {path} cannot be read ({error}): save it as PNG or JPEG, of the formats "
            f"{', '.join(FORMATS)}"
        ) from error
    with picture:
        _check_pixels(picture, name, how)
        try:
            frames = getattr(picture, "n_frames", 1)
        except Exception as error:
            raise _damaged(name, error) from error
        if frames > 1 and picture.format != "MPO":
            # a phone's photo may carry a depth map, which nobody means
            fix = f"{name} = {how}, choose one with {name}.seek(0), and pass {name}"
            raise Refused(f"{name} {path} has {frames} frames: {fix}")
        return _upright(picture, name, how)


def _damaged(name, error):
    return Refused(f"{name} is damaged ({error}): get the file again, or save it anew")


def _check_pixels(picture, name, how):
    width, height = picture.size
    if width * height > MOST:
        raise Refused(
            f"{name} is {width}x{height}, more than {MOST // 10**6} million pixels: shrink it, "
            f"pass ImageOps.contain({how}, (4096, 4096))"
        )
    if width * height == 0:
        raise Refused(f"{name} is {width}x{height}, which holds no pixel: get the file again")


def _upright(picture, name, how):
    """A loaded copy, turned as its EXIF says. XMP may say it too, and viewers ignore that."""
    _check_pixels(picture, name, how)
    # Pillow halves 16-bit colours when it loads them; only tiles not yet loaded tell.
    deep = re.search(";16[BLN]", str(getattr(picture, "tile", "")))
    if deep and not picture.mode.startswith("I"):
        keeps = f"{how}.convert('{picture.mode}')"
        raise Refused(f"{name} has 16 bits a channel, not 8: to keep the upper 8, pass {keeps}")
    try:
        picture.load()
        picture = picture.copy()
    except Exception as error:
        raise _damaged(name, error) from error
    for key in ("xmp", "XML:com.adobe.xmp"):
        picture.info.pop(key, None)
    try:
        return ImageOps.exif_transpose(picture)
    except Exception as error:
        fix = f"Image.fromarray(np.asarray({how}.convert('RGB')))"
        raise Refused(
            f"{name} has broken EXIF data, which may turn it ({error}): look at it, and pass {fix}"
        ) from error


def _colours(picture, name, how):
    """The pixels (H,W,3) in uint8 of a picture that is no mask."""
    _check_profile(picture, name, how)
    return _rgb(picture, name, how, _flatten(how))


def _check_profile(picture, name, how):
    """Warn of a colour profile that is not sRGB: it is not applied, as it would change pixels."""
    data = picture.info.get("icc_profile")
    if not data or picture.mode not in ("RGB", "RGBA", "P"):
        return
    from PIL import ImageCms

    steps = np.mgrid[0:256:51, 0:256:51, 0:256:51].T.reshape(1, -1, 3).astype(np.uint8)  # 6**3
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        srgb = ImageCms.createProfile("sRGB")
        same = ImageCms.profileToProfile(Image.fromarray(steps), profile, srgb)
        called = ImageCms.getProfileDescription(profile).strip()
    except (ImageCms.PyCMSError, OSError):  # viewers ignore a broken one, too
        return
    off = np.abs(np.asarray(same).astype(int) - steps).max()  # names differ, sRGB has many
    if off > 4:
        own = f"io.BytesIO({how}.info['icc_profile'])"
        warn(
            f"{name} has the colour profile {called!r} and is read as sRGB, so colours are off by "
            f"up to {off} of 255: save it as sRGB, or pass ImageCms.profileToProfile({how}.convert("
            f"'RGB'), {own}, ImageCms.createProfile('sRGB'))"
        )


def _rgb(picture, name, how, alpha_fix):
    """The pixels (H,W,3) in uint8 of a picture that 8-bit RGB holds exactly."""
    if picture.mode.startswith("I") or picture.mode == "F":
        high = picture.getextrema()[1]
        part = " // 256" if high > 255 else " * 255" if picture.mode == "F" and high <= 1 else ""
        fix = f"Image.fromarray((np.asarray({how}){part}).astype('uint8'))"
        raise Refused(
            f"{name} holds more than 8 bits (mode {picture.mode}): scale it to 0..255, pass {fix}"
        )
    if picture.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        fix = f"look at the colours that {how}.convert('RGB') gives, and pass {how}.convert('RGB')"
        raise Refused(f"{name} is in {picture.mode}, which no one formula turns into RGB: {fix}")
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return np.array(picture)
    pixels = np.array(picture.convert("RGBA"))
    if pixels[..., 3].min() < 255:
        raise Refused(f"{name} is see-through in places (alpha below 255): {alpha_fix}")
    return pixels[..., :3]


def _flatten(how):
    white = f"Image.new('RGBA', {how}.size, 'white')"
    return f"flatten it, on white, pass Image.alpha_composite({white}, {how}.convert('RGBA'))"


def _strokes(how):
    alpha = f"{how}.convert('RGBA').getchannel('A')"
    return f"choose the channel that you mean; if the strokes are to be edited, pass {alpha}"


def _black_and_white(how):
    return f"make it black and white, pass {how}.convert('L').point(lambda v: 255 * (v > 127))"


def _one_channel(pixels, soft, name, how):
    grey = pixels[..., 0]  # (H,W)
    if (pixels != grey[..., None]).any():
        raise Refused(f"{name} has colours (its channels differ): {_black_and_white(how)}")
    if not soft and grey.max() == 1:
        fix = f"make the ones white, pass {how}.convert('L').point(lambda v: 255 * v)"
        raise Refused(f"{name} holds 0 and 1, and white is 255: {fix}")
    between = grey[(grey > 0) & (grey < 255)]
    if not soft and between.size:
        # JPEG rings beside the border, more at a low quality; most of it stays near black or white.
        noise = ((between < 32) | (between > 223)).mean() > 0.85
        why = "noise, as JPEG leaves it; PNG does not" if noise else f"{between[0]} for one"
        raise Refused(f"{name} has {between.size} grey pixels ({why}): {_black_and_white(how)}")
    return torch.from_numpy(grey.copy())[None, None].float() / 255


# Tensors


def _check_image_tensor(x, name, known=False):
    match tuple(x.shape):
        case (_, 3, _, _):
            fix = None
        case (3, _, _):
            fix = f"pass {name}[None]"
        case (_, _, 3):
            fix = f"pass {name}.permute(2, 0, 1)[None]"
        case (_, _, _, 3):
            fix = f"pass {name}.permute(0, 3, 1, 2)"
        case (_, 1, _, _):
            fix = f"pass {name}.expand(-1, 3, -1, -1)"
        case _:
            fix = "a picture has three channels, red, green and blue"
    _check_shape(x, fix, "(B,3,H,W)", name)
    if not x.is_floating_point():
        raise Refused(
            f"{name} holds {x.dtype}, not floats in [-1, 1]: for 0..255, pass {name} / 127.5 - 1"
        )
    _check_finite(x, name)
    low, high = x.min().item(), x.max().item()
    if low < -1 or high > 1:
        fix = f"{name}.clamp(-1, 1) if nothing is lost by it"
        if low >= 0 and 2 < high <= 255:  # eight bits
            fix = f"{name} / 127.5 - 1"
        raise Refused(f"{name} has values from {low:.4g} to {high:.4g}, not in [-1, 1]: pass {fix}")
    if not known:
        warn_of_range(name, low, high)


def warn_of_range(name, low, high):
    """Say so where the lowest and highest value of a picture look like those of [0,1]."""
    if 0 <= low < high:
        warn(
            f"{name} has values from {low:.4g} to {high:.4g}, and black is -1: if it is in [0, 1], "
            f"pass {name} * 2 - 1"
        )


def warn(text):
    """Warn at the caller's line outside this package, so that Python shows it once a line."""
    depth, frame = 1, sys._getframe()
    inner = ("blendlab", "torch")  # torch.no_grad() wraps our functions
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in inner:
        depth, frame = depth + 1, frame.f_back
    warnings.warn(text, UserWarning, stacklevel=depth)


def _check_mask_tensor(x, soft, name):
    match tuple(x.shape):
        case (_, 1, _, _):
            fix = None
        case (_, _):
            fix = f"pass {name}[None, None]"
        case (_, _, _):
            fix = f"pass {name}[:, None]"
        case (_, 3, _, _):
            fix = f"pass {name}[:, :1] if the three are equal"
        case _:
            fix = "a mask has one channel, 1 = edit"
    _check_shape(x, fix, "(B,1,H,W)", name)
    if not x.is_floating_point() and x.dtype != torch.bool:
        fix = f"pass ({name} > {x.max().item() // 2}).float()"
        raise Refused(f"{name} holds {x.dtype}, not floats or bools: {fix}")
    _check_finite(x, name)
    low, high = x.min().item(), x.max().item()
    if low < 0 or high > 1 or not (soft or ((x == 0) | (x == 1)).all()):
        half = 0 if low < 0 else 0.5 if high <= 1 else 127
        want = "between 0 and 1" if soft else "0 or 1"
        raise Refused(
            f"{name} holds {low:.4g} to {high:.4g}, not all {want}: pass ({name} > {half}).float()"
        )


def _check_shape(x, fix, want, name):
    if x.layout != torch.strided:
        raise Refused(f"{name} is a sparse tensor: pass {name}.to_dense()")
    if x.is_meta:
        raise Refused(f"{name} is a tensor without numbers (on the device meta): load them first")
    if x.is_complex():
        raise Refused(f"{name} holds complex numbers: pass {name}.real")
    if fix:
        raise Refused(f"{name} is {_shape(x)}, not {want}: {fix}")
    if x.numel() == 0:
        raise Refused(f"{name} is {_shape(x)}, which holds no pixel: pass at least one picture")


def _check_finite(x, name):
    if not torch.isfinite(x).all():
        raise Refused(f"{name} has NaN or infinite values: make it in torch.float32")


# Sizes and areas


def _check_multiple(x, multiple, name, called):
    height, width = x.shape[-2:]
    if height % multiple or width % multiple:
        w, h = (max(multiple, round(side / multiple) * multiple) for side in (width, height))
        fix = f"the nearest is {w}x{h}, pass bl.images.fit({called}, ({w}, {h}))"
        raise Refused(
            f"{name} is {width}x{height} (width x height), not multiples of {multiple}: {fix}"
        )


def _check_filled(x, allow_full, name):
    area = x.flatten(1)  # (B,HW)
    if (area.amax(1) == 0).any():
        raise Refused(
            f"{name} is black everywhere, so nothing is edited: paint the area to edit white"
        )
    if not allow_full and (area.amin(1) == 1).any():
        raise Refused(
            f"{name} is white everywhere, so nothing is kept: paint black what should stay"
        )


def _matched(x, like, name, called):
    (height, width), (h, w) = like.shape[-2:], x.shape[-2:]
    if (height, width) != (h, w):
        resized = f"bl.images.fit_mask({called}, ({width}, {height}))"
        fix = f"paint it on this image, or pass {resized}"
        raise Refused(f"{name} is {w}x{h} and the image {width}x{height} (width x height): {fix}")
    if 1 not in (len(x), len(like)) and len(x) != len(like):
        raise Refused(
            f"{x.shape[0]} masks for {like.shape[0]} images: pass one {name}, or one for each image"
        )
    return x.to(like.device)


def _shape(x):
    return "(" + ",".join(map(str, x.shape)) + ")"
