"""Adds features at other sizes to a folder that make_golden.py made: PyTorch, transformers, timm and safetensors are needed.

    python3 tests/golden/sizes.py tests/golden/swin_w4_128 --sizes 97x128,150x101,4x4,12x20,5x90,37x61 --window 6 --image 96

Into expected.safetensors go the features of transformers' encoder, a fresh model for each size, since it keeps state between sizes.
Where a map is smaller than the window, transformers shrinks the window and no longer fits its own bias table; what this crate does
there, and what the classes do once told so, is to keep the window, not to shift it, and to pad the map up to it.

Into window.safetensors go the features of timm at another window and image size, its bias tables resized by its own function.
Computed in float64 from values rounded to float32.
"""

import argparse
import pathlib

import timm
import torch
import transformers
from safetensors.torch import load_file, save_file
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table_simple
from transformers.models.swin.modeling_swin import SwinLayer


def keep_the_window(self, size):
    if min(size) <= self.window_size:
        self.shift_size = 0


def image(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randn(1, 3, height, width, generator=generator)


def at_sizes(folder: pathlib.Path, sizes: list) -> dict:
    shrink, tensors = SwinLayer.set_shift_and_window_size, {}
    for height, width in sizes:
        model = transformers.SwinModel.from_pretrained(folder / "transformers", add_pooling_layer=False).eval().double()
        window, last = model.config.window_size, len(model.config.depths) - 1
        smallest = -(-min(height, width) // (model.config.patch_size << last))
        SwinLayer.set_shift_and_window_size = shrink if smallest >= window else keep_the_window
        x = image(height, width)
        with torch.no_grad():
            states = model(x.double(), output_hidden_states=True).hidden_states
        run = f"{height}x{width}."
        tensors |= {f"{run}input": x} | {f"{run}stage.{i}.merged": s for i, s in enumerate(states[1:])}
    SwinLayer.set_shift_and_window_size = shrink
    return tensors


def at_window(folder: pathlib.Path, window: int, side: int) -> dict:
    hub = transformers.SwinConfig.from_pretrained(folder / "transformers")
    net = timm.models.swin_transformer.SwinTransformer(
        img_size=side, patch_size=hub.patch_size, embed_dim=hub.embed_dim, depths=tuple(hub.depths), num_heads=tuple(hub.num_heads),
        window_size=window, num_classes=10, drop_path_rate=0.0).eval().double()
    state, own = load_file(folder / "timm" / "model.safetensors"), net.state_dict()
    for name, table in state.items():
        if name.endswith("relative_position_bias_table"):
            of = net.get_submodule(name.removesuffix(".relative_position_bias_table")).window_size
            state[name] = resize_rel_pos_bias_table_simple(table.double(), of, own[name].shape)
    derived = {name for name in own if "relative_position_index" in name or "attn_mask" in name}
    missing, unexpected = net.load_state_dict({k: v for k, v in state.items() if k not in derived}, strict=False)
    assert not set(missing) - derived and not unexpected, (missing, unexpected)
    x = image(side, side)
    with torch.no_grad():
        stages = net.forward_intermediates(x.double(), intermediates_only=True, output_fmt="NCHW")
    return {"input": x} | {f"stage.{i}.features": s for i, s in enumerate(stages)}


def save(tensors: dict, path: pathlib.Path, metadata: dict | None = None) -> None:
    save_file({k: v.float().contiguous() for k, v in tensors.items()}, path, metadata=metadata)


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("folder", type=pathlib.Path)
    ap.add_argument("--sizes", required=True, help="HEIGHTxWIDTH,...")
    ap.add_argument("--window", type=int, required=True)
    ap.add_argument("--image", type=int, required=True)
    a = ap.parse_args()
    sizes = [tuple(map(int, size.split("x"))) for size in a.sizes.split(",")]
    save(load_file(a.folder / "expected.safetensors") | at_sizes(a.folder, sizes), a.folder / "expected.safetensors")
    save(at_window(a.folder, a.window, a.image), a.folder / "window.safetensors",
         {"window": str(a.window), "image_size": str(a.image)})
