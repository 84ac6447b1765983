"""Train an action classifier on a release with plain PyTorch.

    python examples/train.py data/release/demo.zarr.zip --epochs 60 --out classifier.pt

The base install is enough: pip install lvdd-assets
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from lvdd_assets import load_release


def augment(clip: torch.Tensor) -> torch.Tensor:
    """A clip, uint8 [T, 3, H, W], shifted by up to 4 pixels; torchvision.transforms.v2 would do as well."""
    down, right = (int(shift) for shift in torch.randint(-4, 5, (2,)))
    return clip.roll((down, right), dims=(-2, -1))


class ConvNet3d(nn.Module):
    """A small 3D network: uint8 [N, T, 3, H, W] to logits [N, K]."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, wider in ((3, 32), (32, 64), (64, 128)):
            layers += [nn.Conv3d(channels, wider, 3, padding=1, bias=False), nn.BatchNorm3d(wider), nn.ReLU()]
            layers.append(nn.MaxPool3d(2, ceil_mode=True))
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(128, num_classes))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Pixels become numbers in [-1, 1] here, so that batches travel as bytes."""
        return self.layers(clips.transpose(1, 2).float() / 127.5 - 1)


def main() -> None:
    """Trains and says how it goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", help="file or URL")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=0, help="processes that load; they share --cache")
    parser.add_argument("--cache", type=Path, help="folder for decoded clips; by default they are kept in memory")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file for the trained weights")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    release = load_release(options.release)
    print(f"{release.name}: {release.num_clips} clips, {release.num_classes} classes, {release.stored_bytes} B")
    dataset = release.dataset(transform=augment, cache=options.cache or "memory")
    loader = DataLoader(dataset, options.batch_size, shuffle=True, num_workers=options.workers)
    network = ConvNet3d(release.num_classes).to(options.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, epochs=options.epochs, steps_per_epoch=len(loader))
    for epoch in range(options.epochs):
        total, right = 0.0, 0
        for clips, labels in loader:
            clips, labels = clips.to(options.device), labels.to(options.device)
            logits = network(clips)
            loss = nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(labels)
            right += int((logits.argmax(1) == labels).sum())
        share = right / release.num_clips
        print(f"epoch {epoch + 1}/{options.epochs}: loss {total / release.num_clips:.3f}, accuracy {share:.1%}")
    if options.out:
        torch.save({"classes": release.class_names, "weights": network.state_dict()}, options.out)
        print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
