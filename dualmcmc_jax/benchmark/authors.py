"""Time the authors' own PyTorch training loop, unmodified, from a checkout of their repository.

  python -m dualmcmc_jax.benchmark.authors --authors=DIR --recipe=cifar10 --variants=eager,eager_one_chain --json=FILE

The authors' networks, settings and function `fit` run on random images of the data's shape. The first word of a variant
(variant names are words joined by "_") says how the networks run:
  eager       as released: cuDNN deterministic, and convolutions in TF32, which is PyTorch's default
  benchmark   the same, but cuDNN may choose its fastest algorithms
  bfloat16    like "benchmark", with the networks under autocast to bfloat16 and in channels-last layout
  compile     like "benchmark", with the generator and the inference model compiled by torch.compile; the energy is
              not, because its spectral normalization updates tensors in place, which torch.compile does not support
A variant whose name contains "one_chain" turns off the second x-chain of each iteration (the authors' setting
`fine_tune`). The energy is then trained on unrevised samples. An iteration costs about as much as an iteration that
trains the energy by the paper's Eq. 7.

The process prints "ready" once PyTorch is loaded, "prepared" after the first variant's warm-up, and "timed" at the end.
After "ready" and after "prepared", the process waits for a line on standard input before it continues.
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

from dualmcmc_jax.benchmark import numbers_file
from dualmcmc_jax.benchmark.on_cue import say, summary

WARM_UP = 2
"""Number of iterations before the first timed one."""


class Enough(Exception):
    """Exception that ends the authors' training loop early. The loop has no other way to stop early."""


class Feed:
    """Data loader that repeats one batch and records when each iteration begins.

    After the last timed iteration, the loader raises `Enough`.

    Args:
      x: the batch.
      synchronize: function that waits until the device has finished.
      most: maximum number of timed iterations.
      seconds: time limit; no further iteration is timed once the timed iterations have taken this long.
      warmed_up: function that is called after the warm-up.
    """

    def __init__(self, x, *, synchronize, most, seconds, warmed_up):
        self._x, self._synchronize, self._most, self._seconds = x, synchronize, most, seconds
        self._warmed_up = warmed_up
        self.times = []

    def __len__(self):
        return 10_000  # the authors' loop logs every 2,500th iteration, so it logs only once, during the warm-up

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
    """Time every variant, and write the numbers after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--authors", type=Path, required=True, help="checkout of the authors' repository")
    parser.add_argument("--recipe", choices=("cifar10", "celeba64"), required=True, help="config of the authors")
    parser.add_argument("--variants", required=True, help="variants, separated by commas")
    parser.add_argument("--json", required=True, help="file for the numbers")
    parser.add_argument("--repeats", type=int, default=12, help="maximum number of timed iterations (default: 12)")
    parser.add_argument("--seconds", type=float, default=6.0, help="time limit of a variant (default: 6)")
    parser.add_argument("--tiny", action="store_true", help="narrow networks, short chains and small batches")
    flags = parser.parse_args()
    numbers_file.check(flags.json)
    import torch

    sys.path.insert(0, str(flags.authors.absolute()))
    # The authors' module `dataset` imports lmdb. It is not used here, so an empty module takes its place.
    sys.modules["dataset"] = types.SimpleNamespace(get_dataset=None)
    import train

    on_gpu = torch.cuda.is_available()
    numbers = {"device": torch.cuda.get_device_name() if on_gpu else "cpu", "torch": torch.__version__}
    if on_gpu:
        numbers |= {"cudnn": torch.backends.cudnn.version(), "tf32": torch.backends.cudnn.allow_tf32}
    numbers_file.save(flags.json, numbers)
    say("ready", wait=True)
    callbacks = [lambda: say("prepared", wait=True)]  # runs once, after the first warm-up
    warmed_up = lambda: callbacks.pop()() if callbacks else None
    for variant in flags.variants.split(","):
        try:
            numbers[variant] = run(train, torch, variant, flags, warmed_up)
        except Exception as error:  # PyTorch raises many types; the other variants are still timed
            traceback.print_exc()
            numbers[variant] = {"error": f"{type(error).__name__}: {error}"[:2000]}
        warmed_up()  # in case the first variant failed before its warm-up ended
        numbers_file.save(flags.json, numbers)
    if on_gpu and "eager" in flags.variants.split(","):
        numbers |= peaks(torch)
        numbers_file.save(flags.json, numbers)
    say("timed", wait=False)


def run(train, torch, variant: str, flags, warmed_up) -> dict:
    """Run the authors' loop in one variant and return the measured numbers."""
    kind = variant.split("_")[0]
    kinds = ("eager", "benchmark", "bfloat16", "compile")
    if kind not in kinds:
        raise ValueError(f"--variants: found {variant!r}, expected a name that begins with one of {', '.join(kinds)}")
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
    for name, net in nets.items():
        if kind == "compile" and name != "netE":
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
        raise ValueError(f"the authors' loop ended after {len(feed.times)} iterations, before any was timed")
    numbers = {"warm_up_seconds": feed.times[WARM_UP] - start, "updates": seconds, **summary(seconds, args.batch_size)}
    if on_gpu:
        numbers |= {
            "allocated_bytes": torch.cuda.max_memory_allocated(),
            "reserved_bytes": torch.cuda.max_memory_reserved(),
        }
    return numbers


def under_autocast(torch, device: str, forward):
    """Return a forward pass that runs under autocast to bfloat16 and returns float32, as the authors' losses expect."""

    def autocast_forward(x):
        with torch.autocast(device, dtype=torch.bfloat16):
            y = forward(x)
        return tuple(part.float() for part in y) if isinstance(y, tuple) else y.float()

    return autocast_forward


def peaks(torch) -> dict:
    """Return the peak FLOP/s of PyTorch's 8192 x 8192 matrix product in bfloat16 and in TF32."""
    numbers, size, before = {}, 8192, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    for name, dtype in (("bfloat16", torch.bfloat16), ("tensorfloat32", torch.float32)):
        x, seconds = torch.randn(size, size, device="cuda", dtype=dtype), []
        for _ in range(10):
            torch.cuda.synchronize()
            start = time.perf_counter()
            torch.matmul(x, x)
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        numbers[f"peak_flops_{name}"] = 2 * size**3 / min(seconds)
    torch.backends.cuda.matmul.allow_tf32 = before
    return numbers


if __name__ == "__main__":
    main()
