"""Trains the weights of the entry tis-ode: the same bytes for the same seed, one thread, on one kind of machine.

    python leaderboard/entries/tis-ode/train.py --seed 0

writes digits-t1-seed0.safetensors beside this file and prints the accuracy on the validation images. The test images
are never looked at. About a minute.
"""

import argparse
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

import odebench
from odebench.dataset import load_dataset

sys.dont_write_bytecode = True  # an entry holds no __pycache__
from model import Net  # noqa: E402

HERE = Path(__file__).parent
SOLVER = odebench.fixed_step("euler", step=0.1)
HORIZON, CHANNELS = 1.0, 16
EPOCHS, BATCH, RATE, DECAY, WARMUP = 15, 32, 0.01, 5.0e-4, 0.2
STEADY = 0.1
"""The weight of the steady-state term."""
NOISES = (50 / 255, 75 / 255, 100 / 255)
"""Standard deviations of the noise, one of which half of the images get, drawn anew for each batch."""


def make(data, seed):
    """The untrained model, initialised by `seed`."""
    torch.manual_seed(seed)
    shape, classes = data.image_shape, len(data.classes)
    return Net(image_shape=shape, n_classes=classes, channels=CHANNELS, horizon=HORIZON, solver=SOLVER)


def answer(net, images):
    """The state at the horizon, and the logits."""
    state = odebench.integrate(net.field, net.stem(images), horizon=HORIZON, solver=SOLVER).state
    return state, net.head(state)


def unrest(net, state):
    """How far the state still moves: the integral of |f| from T to 2T, averaged over all its numbers (Yan et al.,
    section 4). The field knows no time, so this is integrated beside the state from its end."""
    channels = state.shape[1]

    def both(t, pair):
        rate = net.field(t, pair[:, :channels])
        return torch.cat([rate, rate.abs()], 1)

    start = torch.cat([state, torch.zeros_like(state)], 1)
    return odebench.integrate(both, start, horizon=HORIZON, solver=SOLVER).state[:, channels:].mean()


def noisy(images, noises, generator):
    """The images, half of them with Gaussian noise of a standard deviation drawn from `noises`."""
    n = len(images)
    chosen = torch.tensor(noises)[torch.randint(len(noises), (n,), generator=generator)]
    chosen = chosen * (torch.rand(n, generator=generator) < 0.5)
    return images + chosen[:, None, None, None] * torch.randn(images.shape, generator=generator)


def train(data, seed, *, epochs=EPOCHS, steady=STEADY, noises=NOISES):
    """A trained model: AdamW with a linear warm-up and a cosine decay, as odebench trains its own models."""
    net = make(data, seed)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.0, weight_decay=DECAY)
    steps, done = epochs * math.ceil(len(data.train) / BATCH), 0
    for _ in range(epochs):
        for rows in torch.randperm(len(data.train), generator=generator).split(BATCH):
            share = done / steps
            late = (share - WARMUP) / (1 - WARMUP)
            rise = share / WARMUP if share < WARMUP else 0.5 * (1 + math.cos(math.pi * late))
            optimizer.param_groups[0]["lr"] = RATE * rise
            state, logits = answer(net, noisy(data.train.images[rows], noises, generator))
            loss = cross_entropy(logits, data.train.labels[rows]) + steady * unrest(net, state)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
    return net.eval()


def main():
    """Trains one seed, writes its weights and says how good it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="train seed")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--output", type=Path, help="where to write; default: beside this file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = load_dataset("digits")
    net = train(data, given.seed, epochs=given.epochs)
    path = given.output or HERE / f"digits-t1-seed{given.seed}.safetensors"
    save_file(net.state_dict(), path)
    with torch.no_grad():
        _, logits = answer(net, data.validation.images)
    right = (logits.argmax(1) == data.validation.labels).float().mean()
    print(f"{path}: {right:.1%} of the validation images right")


if __name__ == "__main__":
    main()
