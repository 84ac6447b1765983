"""How fast the project's training loop is beside a plain PyTorch loop and beside bare forward and backward passes.

    OMP_NUM_THREADS=1 python benchmarks/training_speed.py [--networks convnet3d c3d] [--shape 8x64] [--batch 16]
        [--updates 5] [--rounds 2] [--device cpu]

One table, a row for each network. *Plain* is what one writes first: float32 clips made in a Dataset and batched by a
DataLoader, contiguous [N, C, T, H, W], ReLU before the pool as in the literature, the loss read after each update.
*Project* is `training.train` as comparisons use it, augmentation left out. *Bare* is the project's network on one batch
that lies on the device, in the same number format, its kernels free to give other bits each time: nothing but forward,
backward, clipping and step. All make the same updates of batches of the same clips, and take turns.

On a CPU each row shows its best update of all rounds after the first of each, so that what else the machine does falls
out. A GPU works behind the loop that feeds it: there the updates after the first ten of a round are timed together,
from one moment at which the GPU has nothing to do to the next, and a row shows the best round.
"""

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lvdd_assets.distill.architectures import build_network
from lvdd_assets.distill.devices import precision_for
from lvdd_assets.distill.networks import ClipNetwork, ConvNet3D
from lvdd_assets.distill.protocols import NETWORKS, Protocol
from lvdd_assets.distill.training import Run, train

NUM_CLASSES = 50
_WARM_UP = {"cpu": 1, "cuda": 10}  # updates that allocate memory and pick kernels
_BATCH = {"cpu": 16, "cuda": 256}
_UPDATES = {"cpu": 5, "cuda": 50}
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


class FloatClips(Dataset[tuple[torch.Tensor, int]]):
    """Clips as the literature's loaders hand them out: float32, in 0 … 1, normalised one by one."""

    def __init__(self, clips: TensorDataset, network: ClipNetwork) -> None:
        self.clips, self.mean, self.std = clips, network.mean[0].view(1, 3, 1, 1), network.std[0].view(1, 3, 1, 1)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        clip, label = self.clips[index]
        return (clip.float() / 255 - self.mean) / self.std, int(label)


class PlainNetwork(nn.Module):
    """The same layers without the project's memory layout and order."""

    def __init__(self, network: ClipNetwork) -> None:
        super().__init__()
        self.features, self.classifier = network.features, network.classifier
        self.recurrent = getattr(network, "recurrent", None)
        self.over_time = isinstance(network, ConvNet3D)
        if self.over_time:
            layers = list(network.features)
            for index in range(len(layers) - 1):
                if isinstance(layers[index], nn.MaxPool3d):
                    layers[index], layers[index + 1] = layers[index + 1], layers[index]
            self.features = nn.Sequential(*layers)

    def forward(self, clips_NTCHW: torch.Tensor) -> torch.Tensor:
        if self.recurrent is not None:
            features = self.features(clips_NTCHW.flatten(0, 1)).view(*clips_NTCHW.shape[:2], -1)
            return self.classifier(self.recurrent(features)[0].mean(dim=1))
        logits = self.classifier(self.features(clips_NTCHW.transpose(1, 2).contiguous()))
        return logits.flatten(2).amax(dim=2) if self.over_time else logits


class Clock:
    """Times updates: each on a CPU, all together on a GPU."""

    def __init__(self, device: str, num_updates: int) -> None:
        kind = torch.device(device).type
        self.is_gpu, self.warm_up = kind == "cuda", _WARM_UP[kind]
        self.window = num_updates if self.is_gpu else 1
        self.num_updates = self.warm_up + num_updates
        self.done, self.ends = 0, list[float]()

    def tick(self, *_: object) -> None:
        """An update is done, or given to the GPU."""
        self.done += 1
        if self.done < self.warm_up or (self.done - self.warm_up) % self.window:
            return
        if self.is_gpu:
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    def seconds(self) -> float:
        """Of the best update, or of one on average."""
        return min(after - before for before, after in itertools.pairwise(self.ends)) / self.window


def update(optimizer: torch.optim.Optimizer, loss: torch.Tensor, protocol: Protocol) -> None:
    """As the project's loop does it."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if protocol.clip_norm is not None:
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], protocol.clip_norm)
    optimizer.step()


def make_optimizer(network: nn.Module, protocol: Protocol) -> torch.optim.Optimizer:
    rate, momentum = protocol.learning_rate, protocol.momentum
    return torch.optim.SGD(network.parameters(), rate, momentum, weight_decay=protocol.weight_decay)


def plain_loop(clips: TensorDataset, name: str, protocol: Protocol, clock: Clock, device: str) -> None:
    _, frames, _, size, _ = clips.tensors[0].shape
    torch.manual_seed(0)
    network = build_network(name, NUM_CLASSES, frames=frames, size=size)
    loader = DataLoader(FloatClips(clips, network), protocol.batch_size, shuffle=True, drop_last=True)
    plain = PlainNetwork(network).to(device).train()
    optimizer = make_optimizer(plain, protocol)
    while True:
        for pixels, labels in loader:
            loss = nn.functional.cross_entropy(plain(pixels.to(device)), labels.to(device))
            update(optimizer, loss, protocol)
            if not math.isfinite(loss.item()):
                raise ValueError("the plain loop diverged")
            clock.tick()
            if clock.done == clock.num_updates:
                return


def project_loop(clips: TensorDataset, name: str, protocol: Protocol, clock: Clock, device: str) -> None:
    train(clips, NUM_CLASSES, Run(protocol, 0, clock.num_updates, clock.tick, device))


def bare_loop(clips: TensorDataset, name: str, protocol: Protocol, clock: Clock, device: str) -> None:
    _, frames, _, size, _ = clips.tensors[0].shape
    network = build_network(name, NUM_CLASSES, frames=frames, size=size).to(device).train()
    network.to(memory_format=torch.channels_last_3d)
    optimizer = make_optimizer(network, protocol)
    batch, labels = (tensor[: protocol.batch_size].to(device) for tensor in clips.tensors)
    precision, kind = precision_for(device), torch.device(device).type
    for _ in range(clock.num_updates):
        with torch.autocast(kind, precision, enabled=precision != torch.float32):
            logits = network(batch)
        update(optimizer, nn.functional.cross_entropy(logits.float(), labels), protocol)
        clock.tick()


LOOPS: dict[str, Callable[[TensorDataset, str, Protocol, Clock, str], None]] = {
    "plain": plain_loop,
    "project": project_loop,
    "bare": bare_loop,
}


def measure(clips: TensorDataset, name: str, batch: int, *, updates: int, rounds: int, device: str) -> dict[str, float]:
    """Clips a second of each loop."""
    protocol = Protocol(batch_size=batch, network=name)
    best = dict.fromkeys(LOOPS, float("inf"))
    for _ in range(rounds):
        for loop, run in LOOPS.items():
            clock = Clock(device, updates)
            run(clips, name, protocol, clock, device)
            best[loop] = min(best[loop], clock.seconds())
    return {loop: batch / seconds for loop, seconds in best.items()}


def machine(device: str) -> str:
    """The device, cores and threads, and the processor's flags that matter."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        text = ""
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "").split()
    there = ", ".join(f"{flag} {'yes' if flag in flags else 'no'}" for flag in _FLAGS)
    name = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else "CPU"
    cores = text.count("processor\t")
    return f"{name}; {cores} cores, {torch.get_num_threads()} threads; {there}; torch {torch.__version__}"


def print_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    header = list(header)
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--shape", default="8x64", help="frames x size")
    parser.add_argument("--batch", type=int, help="clips of an update: 16, on a GPU 256 if not given")
    parser.add_argument("--updates", type=int, help="that are timed of each loop and round: 5, on a GPU 50")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    frames, size = map(int, arguments.shape.split("x"))
    kind = torch.device(arguments.device).type
    batch, updates = arguments.batch or _BATCH[kind], arguments.updates or _UPDATES[kind]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (4 * batch, frames, 3, size, size), dtype=torch.uint8, generator=generator)
    clips = TensorDataset(pixels, torch.randint(0, NUM_CLASSES, (len(pixels),), generator=generator))

    precision = str(precision_for(arguments.device)).removeprefix("torch.")
    print(f"{machine(arguments.device)}")
    print(
        f"clips {frames}×{size}×{size}, batch {batch}, {NUM_CLASSES} classes; plain in float32, project and bare in "
        f"{precision}; clips/s in the best of {arguments.rounds} × {updates} updates\n"
        if kind == "cpu"
        else f"clips {frames}×{size}×{size}, batch {batch}, {NUM_CLASSES} classes; plain in float32 (convolutions as "
        f"torch has it, in TF32), project and bare in {precision}; clips/s over {updates} updates, the best of "
        f"{arguments.rounds} rounds\n"
    )

    def rows() -> Iterable[list[str]]:
        for name in arguments.networks:
            speed = measure(clips, name, batch, updates=updates, rounds=arguments.rounds, device=arguments.device)
            yield [
                name,
                *(f"{speed[loop]:.1f}" for loop in LOOPS),
                f"{speed['project'] / speed['plain']:.2f}×",
                f"{speed['project'] / speed['bare']:.0%}",
            ]

    print_table(["network", *LOOPS, "project / plain", "project / bare"], rows())


if __name__ == "__main__":
    main()
