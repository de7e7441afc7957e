"""The rule of Metropolis et al. (1953) and Hastings (1970), by which exact kernels accept or reject their proposals."""

import jax
import jax.numpy as jnp


def accept(keys: jax.Array, log_ratio: jax.Array, new: tuple, old: tuple) -> tuple[tuple, jax.Array]:
    """Accept each proposal with probability min(1, exp(log_ratio)), or else keep the old state.

    For a proposal y of a chain at x, the ratio that leaves p invariant is p(y) q(x | y) / (p(x) q(y | x)), where q is
    the density of the proposal. For a deterministic, reversible map that preserves volume, q cancels.

    Args:
      keys: [B] keys, one per chain.
      log_ratio: [B] logarithms of the ratio. NaN means that the proposal is rejected.
      new: arrays [B, ...] of the proposals.
      old: arrays [B, ...] of the present states, like `new`.

    Returns:
      For each chain the new or the old arrays, and the acceptance probabilities [B].
    """
    probability = jnp.exp(jnp.minimum(jnp.nan_to_num(log_ratio, nan=-jnp.inf), 0))
    uniform = jax.vmap(lambda key: jax.random.uniform(key, dtype=log_ratio.dtype))(keys)
    accepted = uniform < probability
    choose = lambda new, old: jnp.where(accepted.reshape(-1, *(1,) * (new.ndim - 1)), new, old)
    return jax.tree.map(choose, new, old), probability
