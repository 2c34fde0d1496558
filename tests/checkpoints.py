"""Small random checkpoints with the real layouts of Stable Diffusion 1.x, 2.x and SDXL.

The configs copy what the published ones differ in (text encoders, prediction type, scheduler, the
autoencoder's scaling factor, attention heads, added conditions); widths and depths are the smallest
that run. Pictures are 64x64, latents 4x8x8. `pipe = sd1()` builds one, `sd1(folder)` also saves it,
as safetensors; nothing is downloaded.
"""

import gzip
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import torch

BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def sd1(folder=None, seed=0):
    """Stable Diffusion 1.x: predicts epsilon, one CLIP text encoder, PNDM that ends at abar[0]."""
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    torch.manual_seed(seed)
    pipe = StableDiffusionPipeline(
        vae=autoencoder(0.18215),
        text_encoder=text_encoder(),
        tokenizer=tokenizer(),
        unet=unet(attention_head_dim=8),
        scheduler=PNDMScheduler(
            **BETAS, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return save(pipe, folder)


def sd2(folder=None, seed=0, prediction="v_prediction"):
    """Stable Diffusion 2.x: predicts v (2.1-base: epsilon), a text encoder in OpenCLIP's style,
    DDIM.
    """
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    torch.manual_seed(seed)
    pipe = StableDiffusionPipeline(
        vae=autoencoder(0.18215),
        text_encoder=text_encoder(hidden_act="gelu"),
        tokenizer=tokenizer(pad="!"),
        unet=unet(attention_head_dim=[2, 4], use_linear_projection=True),
        scheduler=DDIMScheduler(
            **BETAS,
            prediction_type=prediction,
            set_alpha_to_one=False,
            steps_offset=1,
            clip_sample=False,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return save(pipe, folder)


def sdxl(folder=None, seed=0):
    """SDXL: two text encoders, the second pooled, sizes as a condition, an autoencoder for
    float32.
    """
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    torch.manual_seed(seed)
    pipe = StableDiffusionXLPipeline(
        vae=autoencoder(0.13025, force_upcast=True),
        text_encoder=text_encoder(),
        text_encoder_2=text_encoder(hidden_act="gelu", pooled=True),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(pad="!"),
        unet=unet(
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=[1, 2],
            attention_head_dim=[2, 4],
            use_linear_projection=True,
            cross_attention_dim=64,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 32,
        ),
        scheduler=EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1),
        force_zeros_for_empty_prompt=True,
    )
    return save(pipe, folder)


def inpainting(folder=None, seed=0):
    """The 9-channel UNet of the inpainting checkpoints, saved under the name of their pipeline."""
    from diffusers import StableDiffusionInpaintPipeline

    parts = dict(sd1(seed=seed).components) | {"unet": unet(attention_head_dim=8, in_channels=9)}
    return save(StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False), folder)


def save(pipe, folder):
    """Switch the pipeline to inference and, where a folder is given, write it there."""
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    if folder is not None:
        pipe.save_pretrained(folder, safe_serialization=True)
    return pipe


def unet(**config):
    """A UNet of two levels; the layout's own settings come as arguments."""
    from diffusers import UNet2DConditionModel

    layout = dict(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
    )
    return UNet2DConditionModel(
        **(layout | config),
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
    )


def autoencoder(scaling_factor, force_upcast=False):
    """An autoencoder with f=8, as the real ones have: 3x64x64 to 4x8x8."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        norm_num_groups=4,
        layers_per_block=1,
        sample_size=64,
        latent_channels=4,
        scaling_factor=scaling_factor,
        force_upcast=force_upcast,
    )


def text_encoder(hidden_act="quick_gelu", pooled=False):
    """A CLIP text transformer; pooled: with the projection head that SDXL's second one has."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        hidden_size=32,
        intermediate_size=64,
        projection_dim=32,
        num_attention_heads=4,
        num_hidden_layers=2,
        hidden_act=hidden_act,
        vocab_size=49408,
        bos_token_id=49406,
        eos_token_id=49407,
    )
    return (CLIPTextModelWithProjection if pooled else CLIPTextModel)(config)


@cache
def tokenizer(pad="<|endoftext|>"):
    """CLIP's tokenizer with its real vocabulary, from the file that open_clip ships."""
    from transformers import CLIPTokenizer

    with TemporaryDirectory() as folder:
        vocabulary, merges = bpe()
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        Path(folder, "merges.txt").write_text(
            "\n".join(["#version: 0.2", *merges]), encoding="utf-8"
        )
        return CLIPTokenizer.from_pretrained(folder, pad_token=pad, model_max_length=77)


def bpe():
    """CLIP's vocabulary {token: id}: bytes, bytes that end a word, merges, two special; and its
    merges.
    """
    import open_clip
    from open_clip.tokenizer import bytes_to_unicode

    text = (
        gzip.open(Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz")
        .read()
        .decode("utf-8")
    )
    merges = text.split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = list(bytes_to_unicode().values())
    tokens = (
        letters
        + [letter + "</w>" for letter in letters]
        + [merge.replace(" ", "") for merge in merges]
    )
    return {
        token: i for i, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])
    }, merges


def pixel(folder=None, seed=0, learned_variance=False):
    """A model of pixels without words, 16x16, as BD uses; with twice the channels it learns its
    variance.
    """
    from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

    torch.manual_seed(seed)
    net = UNet2DModel(
        sample_size=16,
        in_channels=3,
        out_channels=6 if learned_variance else 3,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=["DownBlock2D", "AttnDownBlock2D"],
        up_block_types=["AttnUpBlock2D", "UpBlock2D"],
        attention_head_dim=8,
        norm_num_groups=8,
    )
    scheduler = DDIMScheduler(clip_sample=False)  # predicts epsilon, linear betas
    pipe = DDIMPipeline(net.eval().requires_grad_(False), scheduler)
    pipe.set_progress_bar_config(disable=True)
    if folder:
        pipe.save_pretrained(folder, safe_serialization=True)
    return pipe


class Gaussian(torch.nn.Module):
    """The exact noise estimate for pictures whose pixels are independent normal numbers of standard
    deviation 0.5.
    """

    def __init__(self, abar):
        super().__init__()
        self.abar, self.config = abar, SimpleNamespace(in_channels=3, block_out_channels=(1,))
        self.dtype, self.device = torch.float32, torch.device("cpu")

    def forward(self, x, t):
        abar = self.abar[t].view(-1, 1, 1, 1)
        return SimpleNamespace(sample=(1 - abar).sqrt() * x / (abar * 0.25 + 1 - abar))


def gaussian():
    """A model of pixels that is right about a world of noise, so that guidance has something smooth
    to push.
    """
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(clip_sample=False)
    return SimpleNamespace(
        unet=Gaussian(scheduler.alphas_cumprod), scheduler=scheduler, device=torch.device("cpu")
    )


def open_clip_folder(folder, seed=0):
    """A small open_clip model saved as a `local-dir:` folder; the tokenizer is the stock one."""
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 32,
            "layers": 2,
            "width": 32,
            "head_width": 16,
            "patch_size": 8,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 32,
            "heads": 2,
            "layers": 2,
        },
    }
    model = open_clip.CLIP(**config)
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model.eval()
