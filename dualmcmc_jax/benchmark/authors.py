"""Times the authors' own PyTorch training loop, unchanged, from a checkout of their repository.

  python -m dualmcmc_jax.benchmark.authors --authors=DIR --recipe=cifar10 --variants=eager,eager_one_chain --json=FILE

Their networks, their settings and their function `fit` run on noise of the data's shape. A variant is a list of words
joined by "_", of which the first says how the networks are called:
  eager       as released: cuDNN deterministic, and convolutions in TF32, which is PyTorch's default
  benchmark   the same, but cuDNN may choose its fastest algorithms
  bfloat16    like "benchmark", with the networks under autocast to bfloat16 and channels last
  compile     like "benchmark", with the networks compiled by torch.compile
"one_chain" in the name turns off their second x-chain of each iteration (their setting `fine_tune`): the energy then
learns from samples that no chain has revised, at about the cost of the paper's Eq. 7.

The process prints "ready" once PyTorch is loaded, "prepared" after the first variant's warm-up, and "timed" at the end.
It waits for a line on standard input after the first two. --tiny: narrow networks, short chains, small batches.
"""

import argparse
import contextlib
import itertools
import logging
import sys
import tempfile
import time
import traceback
import types
from pathlib import Path

from dualmcmc_jax.benchmark.on_cue import save, say, summary

WARM_UP = 2
"""Iterations before those that are timed."""


class Enough(Exception):
    """Leaves the authors' loop, which has no other way out."""


class Feed:
    """The same batch again and again; it notes when each iteration begins and raises `Enough` in the end.

    Args:
      x: the batch.
      synchronize: waits until the device has finished.
      most: iterations timed at most.
      seconds: after which no further iteration is timed.
      warmed_up: called after the warm-up.
    """

    def __init__(self, x, *, synchronize, most, seconds, warmed_up):
        self._x, self._synchronize, self._most, self._seconds = x, synchronize, most, seconds
        self._warmed_up = warmed_up
        self.times = []

    def __len__(self):
        return 10_000  # their loop logs every 2,500th iteration, so only the first, of the warm-up

    def __iter__(self):
        for i in range(WARM_UP + self._most + 1):
            self._synchronize()
            if i == WARM_UP:
                self._warmed_up()
            self.times.append(time.perf_counter())
            timed = len(self.times) - 1 - WARM_UP
            if timed >= 3 and self.times[-1] - self.times[WARM_UP] > self._seconds:
                break
            if timed < self._most:
                yield self._x
        raise Enough

    def seconds(self) -> list[float]:
        """Return the seconds of each iteration after the warm-up."""
        return [end - start for start, end in itertools.pairwise(self.times[WARM_UP:])]


def main() -> None:
    """Run every variant, and write the numbers after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--authors", type=Path, required=True)
    parser.add_argument("--recipe", choices=("cifar10", "celeba64"), required=True)
    parser.add_argument("--variants", required=True)
    parser.add_argument("--json", required=True)
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--tiny", action="store_true")
    flags = parser.parse_args()
    import torch

    sys.path.insert(0, str(flags.authors.absolute()))
    sys.modules["dataset"] = types.SimpleNamespace(get_dataset=None)  # theirs needs lmdb, and is not used here
    import train

    on_gpu = torch.cuda.is_available()
    numbers = {"device": torch.cuda.get_device_name() if on_gpu else "cpu", "torch": torch.__version__}
    if on_gpu:
        numbers |= {"cudnn": torch.backends.cudnn.version(), "tf32": torch.backends.cudnn.allow_tf32}
    save(flags.json, numbers)
    say("ready", wait=True)
    cue = [lambda: say("prepared", wait=True)]
    warmed_up = lambda: cue.pop()() if cue else None
    for variant in flags.variants.split(","):
        try:
            numbers[variant] = run(train, torch, variant, flags, warmed_up)
        except Exception as error:  # of one variant, and PyTorch has every kind
            traceback.print_exc()
            numbers[variant] = {"error": f"{type(error).__name__}: {error}"[:2000]}
        warmed_up()  # if that variant failed before
        save(flags.json, numbers)
    if on_gpu and "eager" in flags.variants.split(","):
        numbers |= peaks(torch)
        save(flags.json, numbers)
    say("timed", wait=False)


def run(train, torch, variant: str, flags, warmed_up) -> dict:
    """Run the authors' loop in one variant and return its numbers."""
    kind = variant.split("_")[0]
    if kind not in ("eager", "benchmark", "bfloat16", "compile"):
        raise ValueError(f"--variants: found {variant!r}")
    import config

    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    args = train.overwrite_opt(types.SimpleNamespace(), getattr(config, f"{flags.recipe}_config"))
    args.device, args.vis_iter, args.epochs, args.dir = device, 1, 1, tempfile.gettempdir() + "/"
    args.fine_tune = "one_chain" not in variant
    if flags.tiny:
        args.ngf, args.ndf, args.nif, args.batch_size, args.e_l_steps, args.l_steps = 16, 16, 8, 4, 2, 2
    train.set_seeds(1234, cuda_deterministic=kind == "eager")
    nets = {name: getattr(train, f"build_{name}")(args) for name in ("netG", "netE", "netI")}
    for net in nets.values():
        if kind == "compile":
            net.compile()
        if kind == "bfloat16":
            net.to(memory_format=torch.channels_last)
            net.forward = under_autocast(torch, device, net.forward)
    x = torch.rand(args.batch_size, 3, args.img_size, args.img_size, device=device) * 2 - 1
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    feed = Feed(
        x,
        synchronize=torch.cuda.synchronize if on_gpu else lambda: None,
        most=flags.repeats,
        seconds=flags.seconds,
        warmed_up=warmed_up,
    )
    start = time.perf_counter()
    with contextlib.suppress(Enough):
        train.fit(**nets, dl_train=feed, test_batch=x, args=args, logger=logging.getLogger("authors"))
    seconds = feed.seconds()
    if not seconds:
        raise ValueError(f"their loop ended after {len(feed.times)} iterations")
    found = {"warm_up_seconds": feed.times[WARM_UP] - start, "updates": seconds, **summary(seconds, args.batch_size)}
    if on_gpu:
        found |= {
            "allocated_bytes": torch.cuda.max_memory_allocated(),
            "reserved_bytes": torch.cuda.max_memory_reserved(),
        }
    return found


def under_autocast(torch, device: str, forward):
    """Return a network's forward pass under autocast to bfloat16, with outputs in float32 as their losses expect."""

    def called(x):
        with torch.autocast(device, dtype=torch.bfloat16):
            y = forward(x)
        return tuple(part.float() for part in y) if isinstance(y, tuple) else y.float()

    return called


def peaks(torch) -> dict:
    """Return the FLOP/s of the best matrix product of 8192 x 8192 in bfloat16 and in TF32, through PyTorch."""
    found, size, before = {}, 8192, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    for name, dtype in (("bfloat16", torch.bfloat16), ("tensorfloat32", torch.float32)):
        x, seconds = torch.randn(size, size, device="cuda", dtype=dtype), []
        for _ in range(10):
            torch.cuda.synchronize()
            start = time.perf_counter()
            torch.matmul(x, x)
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        found[f"peak_flops_{name}"] = 2 * size**3 / min(seconds)
    torch.backends.cuda.matmul.allow_tf32 = before
    return found


if __name__ == "__main__":
    main()
