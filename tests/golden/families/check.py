"""Check that what the example `convert` writes opens in transformers and timm by itself, and computes what its source does.

    python3 -m pip install torch transformers timm safetensors
    cargo build --release --example convert
    python3 check.py ../../../target/release/examples/convert

No library is told any size: each reads the config.json that `convert` wrote. Every weight must have been in the file, and features
and logits must be those of the network that transformers opens from the golden folder. Nothing is downloaded.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import timm
import torch
import transformers

HERE = Path(__file__).parent
FAMILY, FOUR, SEVEN = "SwinForImageClassification", "../swin_w4_128/transformers", "../swin_w7_224/transformers"
# A source, the golden network that it holds, and whether its classifier is in it.
SOURCES = (
    (FAMILY, FAMILY, True), ("SwinModel", FAMILY, False), ("SwinBackbone", FAMILY, False),
    ("own_names.safetensors", FAMILY, True), ("timm.safetensors", FAMILY, True), ("timm_0.6.pth", FAMILY, True),
    ("torchvision.pth", FAMILY, True), (FOUR, FOUR, True), ("../swin_w4_128/timm", FOUR, True),
    ("../swin_w4_128/original.pth", FOUR, True), (SEVEN, SEVEN, True), ("../swin_w7_224/original.pth", SEVEN, True),
)


def main(convert: str) -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for source, golden, classifies in SOURCES:
        reference = transformers.SwinForImageClassification.from_pretrained(HERE / golden).eval()
        side = reference.config.image_size
        image = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            want = reference.swin(image).last_hidden_state, reference(image).logits if classifies else None
            # The last norm of a SwinBackbone's file is another network's.
            want = (None, None) if source == "SwinBackbone" else want
            for library, outputs in (("transformers", of_transformers), ("timm", of_timm)):
                with tempfile.TemporaryDirectory() as folder:
                    subprocess.run([convert, HERE / source, folder, "--to", library], check=True, stdout=subprocess.DEVNULL)
                    # A file that is converted alone tells the smallest image that fills its windows.
                    config = json.loads((Path(folder) / "config.json").read_text())
                    told = config.get("image_size") or config["model_args"]["img_size"]
                    errors = [(got - expected).abs().max().item() for got, expected in zip(outputs(folder, image, told), want)
                              if expected is not None]
            assert all(error < 1e-5 for error in errors), (source, library, errors)
        print(f"{source}: {errors}")


def of_transformers(folder: str, image: torch.Tensor, _: int) -> tuple:
    headless, found = transformers.SwinModel.from_pretrained(folder, output_loading_info=True)
    assert not found["missing_keys"] and not found["mismatched_keys"], found
    unexpected = {name for name in found["unexpected_keys"] if not name.startswith("classifier.")}
    assert not unexpected, unexpected
    logits = None
    if headless.config.architectures == [FAMILY]:
        model, found = transformers.SwinForImageClassification.from_pretrained(folder, output_loading_info=True)
        assert not any(found[kind] for kind in ("missing_keys", "mismatched_keys", "unexpected_keys")), found
        logits = model.eval()(image).logits
    return headless.eval()(image).last_hidden_state, logits


def of_timm(folder: str, image: torch.Tensor, told: int) -> tuple:
    """Both ways of timm: the folder, and the weights alone with the sizes of the folder's config.json. Both are strict."""
    config = json.loads((Path(folder) / "config.json").read_text())
    sizes = {**config["model_args"], "num_classes": config["num_classes"]}
    weights = str(Path(folder) / "model.safetensors")
    outputs = []
    for model in (timm.create_model(f"local-dir:{folder}", pretrained=True),
                  timm.create_model(config["architecture"], checkpoint_path=weights, **sizes)):
        model.eval()
        if told != image.shape[-1]:
            model.set_input_size(img_size=image.shape[-2:], window_size=sizes["window_size"])
        features = model.forward_features(image).flatten(1, 2)
        outputs.append((features, model(image) if config["num_classes"] else None))
    assert all(torch.equal(a, b) for a, b in zip(*outputs) if a is not None)
    return outputs[0]


if __name__ == "__main__":
    main(sys.argv[1])
