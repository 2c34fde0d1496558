"""A network on squares of pixels, used as one on pixels."""

import checkpoints
import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

import blendlab as bl
from blendlab.networks.patches import Patches, in_patches


def network(patch=2):
    torch.manual_seed(0)
    channels = 3 * patch**2
    return (
        UNet2DModel(
            sample_size=8,
            in_channels=channels,
            out_channels=channels,
            layers_per_block=1,
            block_out_channels=(8, 16),
            down_block_types=["DownBlock2D", "AttnDownBlock2D"],
            up_block_types=["AttnUpBlock2D", "UpBlock2D"],
            attention_head_dim=8,
            norm_num_groups=8,
        )
        .eval()
        .requires_grad_(False)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A DDIMPipeline folder of patches, as diffusers writes it."""
    path = tmp_path_factory.mktemp("patches")
    DDIMPipeline(
        network(), DDIMScheduler(clip_sample=False, prediction_type="sample")
    ).save_pretrained(path)
    return path


class Echo(torch.nn.Module):
    """Says what it is shown."""

    def __init__(self, unet):
        super().__init__()
        self.config, self.dtype, self.device, self.seen = unet.config, unet.dtype, unet.device, []

    def forward(self, sample, timestep, return_dict=True):
        self.seen.append(sample)
        return (sample,)


def test_a_cell_holds_one_square_of_pixels_and_goes_back_to_it():
    echo = Echo(network())
    net, picture = Patches(echo), torch.arange(2 * 3 * 16 * 8).float().view(2, 3, 16, 8)
    assert torch.equal(net(picture, 3).sample, picture)
    (cells,) = echo.seen
    assert cells.shape == (2, 12, 8, 4)
    assert sorted(cells[0, :, 1, 2].tolist()) == sorted(picture[0, :, 2:4, 4:6].flatten().tolist())


def test_it_looks_like_a_network_on_pixels():
    net = Patches(network(4))
    assert net.patch == 4 and net.config.in_channels == net.config.out_channels == 3
    assert net.config.sample_size == 32 and net.dtype == torch.float32 and net.device.type == "cpu"
    assert in_patches(net.unet) and not in_patches(net) and not in_patches(checkpoints.pixel().unet)


def test_a_learned_variance_is_not_taken_for_patches():
    assert not in_patches(checkpoints.pixel(learned_variance=True).unet)


def test_a_folder_of_patches_opens_as_a_model_of_pixels(folder):
    pipe = bl.load(folder, device="cpu")
    assert isinstance(pipe.unet, Patches) and not any(
        p.requires_grad for p in pipe.unet.parameters()
    )
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    cells = torch.nn.functional.pixel_unshuffle(x, 2)
    plain = DDIMPipeline.from_pretrained(folder, local_files_only=True).unet(cells, 5).sample
    torch.testing.assert_close(pipe.unet(x, 5).sample, torch.nn.functional.pixel_shuffle(plain, 2))
    pictures = pipe(batch_size=2, num_inference_steps=2, output_type="np").images
    assert pictures.shape == (2, 16, 16, 3)  # diffusers' own loop runs it, too


def test_pictures_that_do_not_fall_into_cells_are_refused(folder, clip):
    pipe, image = bl.load(folder, device="cpu"), torch.zeros(1, 3, 18, 16)
    with pytest.raises(ValueError, match="multiple"):
        bl.blended(pipe, clip, image, torch.ones(1, 1, 18, 16), "a cat", scale=1.0, steps=2)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    from blendlab.networks.clip import load_clip

    path = tmp_path_factory.mktemp("clip")
    checkpoints.open_clip_folder(path)
    return load_clip(path)
