"""Compare the speed of our Inception network with torch-fidelity's, in images per second.

`python tests/inception_speed.py [batch size]` alternates between the two. It needs torch and torch-fidelity. The
weights are random, which does not change the speed.
"""

import statistics
import sys
import time

import inception_oracle
import jax
import numpy as np

from dualmcmc_jax.features import inception


def main():
    """Time both networks and print the results."""
    batch = int(sys.argv[1]) if sys.argv[1:] else 16
    weights, _ = inception_oracle.reference()
    x = np.random.RandomState(0).randint(0, 256, (batch, 32, 32, 3)).astype(np.uint8)
    params = jax.device_put(inception.convert(weights))
    apply = jax.jit(inception.Inception().apply)
    net = inception_oracle.network(weights)
    programs = {
        "ours": lambda: jax.block_until_ready(apply({"params": params}, x)),
        "torch-fidelity": lambda: inception_oracle.outputs(net, x),
    }
    rates = {name: [] for name in programs}
    for turn in range(8):
        for name, run in programs.items():
            start = time.perf_counter()
            run()
            if turn:
                rates[name].append(batch / (time.perf_counter() - start))
    for name, rate in rates.items():
        print(f"{name}: {statistics.median(rate):.1f} images/s, from {min(rate):.1f} to {max(rate):.1f}")
    ratios = [ours / theirs for ours, theirs in zip(*rates.values(), strict=True)]
    print(f"ratio: {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
