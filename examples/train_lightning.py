"""Train an action classifier on a release with Lightning; on its soft labels where it has some.

pip install lvdd-assets lightning
python examples/train_lightning.py data/release/demo.zarr.zip --epochs 60
"""

import argparse
from pathlib import Path

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader

from lvdd_assets import Release, load_release


class ReleaseModule(lightning.LightningDataModule):
    """The clips of a release, decoded once into a folder that all workers and devices share."""

    def __init__(self, release: Release, cache: Path, batch_size: int = 16, workers: int = 0) -> None:
        super().__init__()
        labels = "soft" if release.has_soft_labels else "hard"
        self.dataset = release.dataset(labels, cache=cache)
        self.batch_size, self.workers = batch_size, workers

    def train_dataloader(self) -> DataLoader:
        """Batches of (uint8 [N, T, 3, H, W], labels)."""
        return DataLoader(
            self.dataset,
            self.batch_size,
            shuffle=True,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
        )


class Classifier(lightning.LightningModule):
    """A small 3D network and how it is trained."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, wider in ((3, 32), (32, 64), (64, 128)):
            layers += [nn.Conv3d(channels, wider, 3, padding=1, bias=False), nn.BatchNorm3d(wider), nn.ReLU()]
            layers.append(nn.MaxPool3d(2, ceil_mode=True))
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(128, num_classes))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """uint8 [N, T, 3, H, W] to logits [N, K]."""
        return self.layers(clips.transpose(1, 2).float() / 127.5 - 1)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _index: int) -> torch.Tensor:
        """Cross entropy takes classes and probabilities alike."""
        clips, labels = batch
        loss = nn.functional.cross_entropy(self(clips), labels)
        self.log("loss", loss, prog_bar=True, on_epoch=True, batch_size=len(clips))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, as in train.py."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0.05)


def main() -> None:
    """Trains and says how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", help="file or URL")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/lvdd-assets/clips").expanduser())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--accelerator", default="auto")
    options = parser.parse_args()

    lightning.seed_everything(options.seed, verbose=False)
    release = load_release(options.release)
    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        accelerator=options.accelerator,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(Classifier(release.num_classes), ReleaseModule(release, options.cache, workers=options.workers))
    print(f"loss {float(trainer.callback_metrics['loss_epoch']):.3f} after {trainer.global_step} steps")


if __name__ == "__main__":
    main()
