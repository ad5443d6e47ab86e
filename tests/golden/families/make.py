"""Write one small random Swin as the libraries themselves write it, and two SwinV2s to refuse.

    python3 -m pip install torch transformers timm safetensors
    python3 make.py current             # transformers 5.23, timm 1.0.31
    python3 -m pip install timm==0.6.13
    python3 make.py old                 # timm before it moved merging; needs what the first run wrote
    python3 -m pip install torchvision
    python3 make.py torchvision         # torchvision 0.29; needs what the first run wrote

Each file holds the same backbone; norm and classifier are in those whose architecture has them.
"""
import json
import sys

import torch
from safetensors.torch import load_file, save_file

SIZES = dict(patch_size=4, embed_dim=4, depths=[1, 2], num_heads=[1, 2], window_size=2)
CLASSES = 5


def contiguous(state: dict) -> dict:
    return {name: value.contiguous() for name, value in state.items()}


def randomise(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(0.5 * torch.randn(value.shape, generator=generator))


def current() -> None:
    import timm
    import transformers

    config = transformers.SwinConfig(image_size=32, num_labels=CLASSES, encoder_stride=8, out_features=["stage1", "stage2"], **SIZES)
    first = transformers.SwinForImageClassification(config).eval()
    randomise(first, 1)
    for name in ("SwinForImageClassification", "SwinModel", "SwinForMaskedImageModeling", "SwinBackbone"):
        model = getattr(transformers, name)(config)
        randomise(model, 2)
        backbone = first.swin if name == "SwinModel" else None
        (model if backbone is not None else model.swin).load_state_dict(first.swin.state_dict(), strict=False)
        if name == "SwinForImageClassification":
            model.load_state_dict(first.state_dict())
        model.save_pretrained(name)
    save_file(contiguous(first.state_dict()), "own_names.safetensors")      # before save_pretrained renames them

    net = timm.models.swin_transformer.SwinTransformer(img_size=32, num_classes=CLASSES, **SIZES).eval()
    net.load_state_dict(timm_names(load_file("SwinForImageClassification/model.safetensors"), 1))
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert torch.allclose(first(image).logits, net(image), atol=1e-4)
    save_file(contiguous(net.state_dict()), "timm.safetensors")

    v2 = transformers.Swinv2ForImageClassification(transformers.Swinv2Config(image_size=32, num_labels=CLASSES, **SIZES))
    v2.save_pretrained("Swinv2ForImageClassification")
    net = timm.models.swin_transformer_v2.SwinTransformerV2(img_size=32, num_classes=CLASSES, **SIZES)
    save_file(contiguous(net.state_dict()), "timm_v2.safetensors")


def old() -> None:
    import timm

    net = timm.models.swin_transformer.SwinTransformer(img_size=32, num_classes=CLASSES, **SIZES).eval()
    state = timm_names(load_file("SwinForImageClassification/model.safetensors"), 0)
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert not unexpected and all("index" in name or "mask" in name for name in missing), (missing, unexpected)
    torch.save(net.state_dict(), "timm_0.6.pth")


def torchvision() -> None:
    from torchvision.models.swin_transformer import SwinTransformer

    sizes = {name: [size, size] if name in ("patch_size", "window_size") else size for name, size in SIZES.items()}
    net = SwinTransformer(num_classes=CLASSES, **sizes).eval()
    state = timm_names(load_file("SwinForImageClassification/model.safetensors"), 1)
    missing, unexpected = net.load_state_dict({torchvision_name(name): value for name, value in state.items()}, strict=False)
    assert not unexpected and all("index" in name for name in missing), (missing, unexpected)
    torch.save(net.state_dict(), "torchvision.pth")
    # Sides that patches divide, as torchvision wants them, and that windows do not.
    image = torch.randn(2, 3, 36, 44, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        first = net.features[:2](image)
        second = net.features[2:](first)
    save_file(contiguous({"image": image, "stage0": first, "stage1": second}), "torchvision_features.safetensors")


def torchvision_name(name: str) -> str:
    """timm's name as torchvision's."""
    for ours, theirs in (("patch_embed.proj", "features.0.0"), ("patch_embed.norm", "features.0.2"), ("head.fc", "head"),
                         ("mlp.fc1", "mlp.0"), ("mlp.fc2", "mlp.3")):
        name = name.replace(ours, theirs)
    if name.startswith("layers."):
        _, stage, kind, rest = name.split(".", 3)
        name = f"features.{2 * int(stage) + (kind == 'blocks')}.{rest}"
    return name


def timm_names(state: dict, merging: int) -> dict:
    """Hub names to timm's; stage I's merging lies at stage I + `merging`."""
    out = {}
    for name, value in state.items():
        if ".self.key." in name or ".self.value." in name:
            continue
        if ".self.query." in name:
            value = torch.cat([state[name.replace("query", part)] for part in ("query", "key", "value")])
        for theirs, ours in (
            ("swin.", ""), ("embeddings.patch_embeddings.projection", "patch_embed.proj"), ("embeddings.norm", "patch_embed.norm"),
            ("encoder.layers.", "layers."), ("attention.self.query", "attn.qkv"), ("attention.self.rel", "attn.rel"),
            ("attention.output.dense", "attn.proj"), ("layernorm_before", "norm1"), ("layernorm_after", "norm2"),
            ("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2"), ("layernorm.", "norm."),
            ("classifier.", "head.fc." if merging else "head."),
        ):
            name = name.replace(theirs, ours)
        if ".downsample." in name:
            stage = int(name.split(".")[1])
            name = name.replace(f"layers.{stage}.", f"layers.{stage + merging}.")
        out[name] = value
    return out


if __name__ == "__main__":
    {"current": current, "old": old, "torchvision": torchvision}[sys.argv[1]]()
