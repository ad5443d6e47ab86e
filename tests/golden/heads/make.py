"""Write what PyTorch makes of the decoders: small ones of each kind, in evaluation and in training, with all gradients.

    python3 -m pip install torch safetensors
    python3 make.py heads.safetensors

The modules are plain PyTorch, written after the papers and after how the released MTLoRA wires its decoders, and share nothing with the crate:
    segformer     SegFormer's all-MLP head (arXiv 2105.15203): a linear layer a stage, resized, concatenated, 1x1 conv, BatchNorm, ReLU, 1x1 conv
    aspp          DeepLabV3's head (arXiv 1706.05587) on all stages, each projected, resized to the finest and concatenated
    linear        a 1x1 convolution of all stages, resized to the finest and concatenated
    hrnet-shared  HRNet's head for two tasks, whose first 1x1 convolution has one weight and a bias for each task

The file holds, in float32 but computed in float64 from values that were rounded to float32 before:
    map.I                    the stages, [B, C, h, w]; of hrnet-shared both tasks read the same
    KIND.weight.NAME         every parameter and buffer under its name in an adapter file, after heads.TASK.
    KIND.output              evaluation mode
    KIND.train.output        training mode, dropout off
    KIND.train.NAME          running statistics after that step
    KIND.grad.NAME           of mean(output^2), training mode, for each parameter and for map.I
For hrnet-shared NAME starts with a.hidden.bias and the like for task a, b. for task b, and shared.hidden.weight; outputs are output.a, output.b.
"""
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

WIDTHS, SIZES, BATCH = [4, 6, 8, 8], [(9, 7), (5, 4), (3, 2), (3, 2)], 2


def resize(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def concat(maps):
    return torch.cat([resize(m, maps[0].shape[2:]) for m in maps], 1)


class SegFormer(nn.Module):
    def __init__(self, embed=5, outputs=3):
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(width, embed) for width in WIDTHS)
        self.hidden = nn.Conv2d(len(WIDTHS) * embed, embed, 1, bias=False)
        self.norm = nn.BatchNorm2d(embed)
        self.output = nn.Conv2d(embed, outputs, 1)

    def forward(self, maps):
        embedded = [p(m.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, m.shape[2:]) for p, m in zip(self.projections, maps)]
        return self.output(F.relu(self.norm(self.hidden(concat(embedded)))))


def block(n_in, n_out, kernel=1, rate=1):
    conv = nn.Conv2d(n_in, n_out, kernel, padding=rate * (kernel // 2), dilation=rate, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(n_out), nn.ReLU())


class Aspp(nn.Module):
    """Rates 1 and 3 reach within these maps, 12 beyond all of them."""

    def __init__(self, channels=(2, 3, 2, 2), width=4, rates=(1, 3, 12), outputs=3):
        super().__init__()
        self.projections = nn.ModuleList(nn.Conv2d(w, c, 1, bias=False) for w, c in zip(WIDTHS, channels))
        self.point = block(sum(channels), width)
        self.dilated = nn.ModuleList(block(sum(channels), width, 3, rate) for rate in rates)
        self.pool = block(sum(channels), width)
        self.project = block((len(rates) + 2) * width, width)
        self.refine = block(width, width, 3)
        self.output = nn.Conv2d(width, outputs, 1)

    def forward(self, maps):
        x = concat([p(m) for p, m in zip(self.projections, maps)])
        pooled = self.pool(F.adaptive_avg_pool2d(x, 1)).expand(-1, -1, *x.shape[2:])
        branches = torch.cat([self.point(x), *(branch(x) for branch in self.dilated), pooled], 1)
        return self.output(self.refine(self.project(branches)))


class Linear(nn.Module):
    def __init__(self, outputs=3):
        super().__init__()
        self.output = nn.Conv2d(sum(WIDTHS), outputs, 1)

    def forward(self, maps):
        return self.output(concat(maps))


class HrNet(nn.Module):
    def __init__(self, hidden, channels, outputs):
        super().__init__()
        self.projections = nn.ModuleList(nn.Conv2d(w, c, 1, bias=False) for w, c in zip(WIDTHS, channels))
        self.shared = [hidden]  # in a list: a parameter of the pair, not of this head
        self.bias = nn.Parameter(torch.zeros(4 * sum(channels)))
        self.norm = nn.BatchNorm2d(4 * sum(channels))
        self.output = nn.Conv2d(4 * sum(channels), outputs, 1)

    def forward(self, maps):
        x = concat([p(m) for p, m in zip(self.projections, maps)])
        return self.output(F.relu(self.norm(F.conv2d(x, self.shared[0], self.bias))))


class HrNetShared(nn.Module):
    def __init__(self, channels=(1, 2, 2, 1)):
        super().__init__()
        self.hidden = nn.Parameter(torch.zeros(4 * sum(channels), sum(channels), 1, 1))
        self.a, self.b = HrNet(self.hidden, channels, 3), HrNet(self.hidden, channels, 1)

    def forward(self, maps):
        return {"a": self.a(maps), "b": self.b(maps)}


def name(kind, torch_name):
    """A parameter's name in an adapter file, from its name in the modules above."""
    if kind == "hrnet-shared":
        return {"hidden": "shared.hidden.weight", "a.bias": "a.hidden.bias", "b.bias": "b.hidden.bias"}.get(torch_name, torch_name)
    part, _, leaf = torch_name.rpartition(".")
    if kind == "aspp" and not part.startswith(("projections", "output")):
        block, _, layer = part.rpartition(".")
        return f"{block}.{leaf}" if layer == "0" else f"{block}.norm.{leaf}"
    return torch_name


def values(kind, torch_name, tensor):
    """As an adapter file holds it: 1x1 convolutions as matrices, the linear head's columns stage by stage."""
    if tensor.dim() == 4 and tensor.shape[2:] == (1, 1):
        tensor = tensor.flatten(1)
    if kind == "linear" and torch_name == "output.weight":
        parts = tensor.split(WIDTHS, 1)
        return {f"projections.{i}.weight": part for i, part in enumerate(parts)}
    return {name(kind, torch_name): tensor}


def randomise(module, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=g)
                if key.endswith("running_var"):
                    tensor.copy_(0.5 + noise.abs())
                elif tensor.dim() > 1:
                    tensor.copy_(noise / tensor[0].numel() ** 0.5)
                else:
                    tensor.copy_(1 + 0.2 * noise if key.endswith("weight") else 0.3 * noise)


def record(kind, module, maps):
    found = {}

    def add(place, key, tensor):
        found.update({f"{kind}.{place}.{k}": v.detach() for k, v in values(kind, key, tensor).items()})

    def outputs(place, y):
        y = {f"{place}.{task}": of for task, of in y.items()} if isinstance(y, dict) else {place: y}
        found.update({f"{kind}.{k}": v.detach() for k, v in y.items()})

    for key, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            add("weight", key, tensor.clone())
    with torch.no_grad():
        outputs("output", module.eval()(maps))
    maps = [m.clone().requires_grad_() for m in maps]
    y = module.train()(maps)
    outputs("train.output", y)
    sum((of ** 2).mean() for of in (y.values() if isinstance(y, dict) else [y])).backward()
    for key, parameter in module.named_parameters():
        add("grad", key, parameter.grad)
    for key, tensor in module.named_buffers():
        if tensor.is_floating_point():
            add("train", key, tensor)
    found.update({f"{kind}.grad.map.{i}": m.grad for i, m in enumerate(maps)})
    return found


def main(path):
    g = torch.Generator().manual_seed(0)
    maps = [torch.randn(BATCH, width, *size, generator=g) for width, size in zip(WIDTHS, SIZES)]
    tensors = {f"map.{i}": m for i, m in enumerate(maps)}
    kinds = {"segformer": SegFormer(), "aspp": Aspp(), "linear": Linear(), "hrnet-shared": HrNetShared()}
    for seed, (kind, module) in enumerate(kinds.items()):
        randomise(module, seed)
        tensors.update(record(kind, module.double(), [m.double() for m in maps]))
    save_file({k: v.float().contiguous() for k, v in tensors.items()}, path)


main(sys.argv[1])
