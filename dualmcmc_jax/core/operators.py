"""Linear operators A of observations y = A x + noise: hidden pixels, noise alone, lower resolution, or one's own.

An `Operator` is a linear function of a batch, and what is known about its Gram matrix A A^T. The adjoint A^T comes from
`jax.linear_transpose`. With the eigenvectors U and eigenvalues w of A A^T, every function of A A^T that restoration
needs is U f(w) U^T. For the operators that are defined here, U is the identity, so no matrix is formed.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

MAX_OUTPUTS = 2048
"""Largest number of values of y for which the Gram matrix of one's own operator is formed."""
_RANK_TOLERANCE = 1e-5
"""Eigenvalues of A A^T below this share of the largest one count as 0."""
_LINEAR_TOLERANCE = 1e-3
"""Largest relative deviation of A (2 x - 3 y) from 2 A x - 3 A y that rounding may cause."""


class Operator(NamedTuple):
    """A linear operator A, a pytree that may be an argument of compiled functions.

    `inpainting`, `denoising`, `average_pooling` and `linear_operator` create instances.

    Attributes:
      function: x [B, ...] -> A x [B, ...], a `jax.tree_util.Partial`, whose arguments are arrays.
      eigenvalues: eigenvalues of A A^T: without a basis a number for all of them, or an array that broadcasts to the
        shape of A x for one example; with a basis [M], for the M values of A x.
      basis: [M, M], the eigenvectors of A A^T as columns. None: the identity.
    """

    function: Callable[[jax.Array], jax.Array]
    eigenvalues: jax.Array
    basis: jax.Array | None = None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return A x [B, ...] of examples x [B, ...]."""
        return self.function(x)

    def adjoint(self, y: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Return A^T y [B, *shape] of observations y [B, ...], where shape is that of one example x."""
        like = jax.ShapeDtypeStruct((len(y), *shape), y.dtype)
        (x,) = jax.linear_transpose(self.function, like)(y)
        return x

    def gram(self, y: jax.Array, scale: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """Return U f(w) U^T y for a function f = scale of the positive eigenvalues. It is 0 where A A^T is 0.

        Args:
          y: [B, ...] observations.
          scale: the function f, from positive eigenvalues to numbers.
        """
        is_positive = self.eigenvalues > 0
        factors = jnp.where(is_positive, scale(jnp.where(is_positive, self.eigenvalues, 1)), 0).astype(y.dtype)
        if self.basis is None:
            return jnp.where(is_positive, y, 0) * factors  # y may hold NaN where it is ignored
        basis = self.basis.astype(y.dtype)
        # GPUs and TPUs multiply matrices of float32 in a lower precision unless they are asked not to.
        product = lambda a, b: jnp.matmul(a, b, precision="highest")
        return product(product(y.reshape(len(y), -1), basis) * factors, basis.T).reshape(y.shape)

    def row_space(self, x: jax.Array, scale: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """Return V f(w) V^T x, where the columns of V are the right singular vectors of A that span its row space.

        Args:
          x: [B, ...] examples.
          scale: the function f, from positive eigenvalues of A A^T to numbers.
        """
        return self.adjoint(self.gram(self(x), lambda w: scale(w) / w), x.shape[1:])

    def first_guess(self, y: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Return the pseudoinverse A^+ y [B, *shape], the smallest x for which A x is as near to y as possible."""
        return self.adjoint(self.gram(y, lambda w: 1 / w), shape)


def inpainting(mask: jax.Array) -> Operator:
    """Return the operator that sets hidden values to 0: A x = m x.

    Values of an observation at hidden places are ignored, so they may have any value.

    Args:
      mask: True or 1 where x is observed, False or 0 where it is hidden. Its shape is that of one example, or [H, W]
        for images [H, W, C].

    Raises:
      ValueError: the mask has other values than 0 and 1, or nothing is observed.
    """
    mask = jnp.asarray(mask)
    if not bool(jnp.all((mask == 0) | (mask == 1))):
        raise ValueError(f"mask: found values from {mask.min()} to {mask.max()}, expected only 0 and 1")
    if not bool(jnp.any(mask == 1)):
        raise ValueError("mask: found only hidden values, expected 1 or more that are observed")
    mask = (mask == 1).astype(jnp.zeros(()).dtype)
    mask = mask[..., None] if mask.ndim == 2 else mask
    return Operator(Partial(_masked, mask), mask)


def denoising() -> Operator:
    """Return the identity, A x = x: an observation is x with noise."""
    return Operator(Partial(_identity), jnp.ones(()))


def average_pooling(factor: int) -> Operator:
    """Return the operator that averages squares of pixels: [B, H, W, C] -> [B, H / factor, W / factor, C].

    Args:
      factor: side of the squares, such as 2 or 4. It must divide H and W.

    Raises:
      ValueError: factor is not a positive integer.
    """
    if isinstance(factor, bool) or int(factor) != factor or factor < 1:
        raise ValueError(f"factor: found {factor}, expected a positive integer, such as 2")
    side = int(factor)
    # A static attribute of the pytree must not be an array, so the factor is the shape of an array without values.
    return Operator(Partial(_pooled, jnp.zeros((side, 0))), jnp.asarray(1 / side**2))


def linear_operator(function: Callable[[jax.Array], jax.Array], shape: tuple[int, ...]) -> Operator:
    """Return the operator of a linear function of one's own.

    The function is checked at random points. Unless the rows of A are orthogonal and equally long, A A^T is decomposed,
    which takes time and memory for many observed values.

    Args:
      function: x [B, ...] -> A x [B, ...]. It is compiled by JAX, and must treat the examples of a batch independently.
      shape: shape of one example x.

    Returns:
      The operator. Create it once and use it again: a compiled function is reused only for the same operator.

    Raises:
      ValueError: the function fails, is not linear, mixes examples, or has more than `MAX_OUTPUTS` outputs whose rows
        are not orthogonal. The message begins with "operator".
    """
    expected = f"a linear function of x [B, {', '.join(map(str, shape))}]"
    draws = jax.random.normal(jax.random.key(0), (4, *shape))
    try:
        observed = function(draws)
        if getattr(observed, "shape", ())[:1] != (4,) or not jnp.issubdtype(observed.dtype, jnp.floating):
            found = f"a result of {getattr(observed, 'dtype', type(observed).__name__)}"
            found += f" of shape {getattr(observed, 'shape', ())} for a batch of 4"
            raise ValueError(f"operator: found {found}, expected floats [4, ...]")
        others = draws[::-1]
        pairs = (
            ("with a constant term", function(0 * draws), 0 * observed),
            ("that is not linear", function(2 * draws - 3 * others), 2 * observed - 3 * function(others)),
            ("that is not linear", function(100 * draws), 100 * observed),
            ("that mixes the examples of a batch", function(draws[1:]), observed[1:]),
        )
        size = float(jnp.abs(observed).max())
        for problem, found, linear in pairs:
            scale = max(float(jnp.abs(linear).max()), size)
            if found.shape != linear.shape or not float(jnp.abs(found - linear).max()) <= _LINEAR_TOLERANCE * scale:
                raise ValueError(f"operator: found a function {problem}, expected {expected}")
        if not size:
            raise ValueError(f"operator: found a function that is 0, expected {expected}")
        return _decomposed(Partial(function), observed.shape[1:], draws)
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith("operator: "):
            raise
        line = (str(error).splitlines() or [""])[0]
        raise ValueError(f"operator: found {type(error).__name__} ({line}), expected {expected}") from error


def _decomposed(function: Partial, shape: tuple[int, ...], draws: jax.Array) -> Operator:
    """Return the operator of a function with outputs of a shape [...], with the eigenvalues of A A^T."""
    size = 1
    for length in shape:
        size *= length
    operator = Operator(function, jnp.ones(()))
    probe = jax.random.normal(jax.random.key(1), (len(draws), *shape))
    product = function(operator.adjoint(probe, draws.shape[1:]))
    mean = jnp.vdot(probe, product) / jnp.vdot(probe, probe)
    if float(jnp.abs(product - mean * probe).max()) <= _RANK_TOLERANCE * float(jnp.abs(product).max()):
        return Operator(function, mean)
    if size > MAX_OUTPUTS:
        expected = f"at most {MAX_OUTPUTS:,}, or orthogonal rows of equal length"
        raise ValueError(f"operator: found {size:,} outputs, expected {expected}")
    rows = operator.adjoint(jnp.eye(size).reshape(size, *shape), draws.shape[1:]).reshape(size, -1)
    eigenvalues, basis = jnp.linalg.eigh(jnp.matmul(rows, rows.T, precision="highest"))
    eigenvalues = jnp.where(eigenvalues > _RANK_TOLERANCE * eigenvalues[-1], eigenvalues, 0)
    return Operator(function, eigenvalues, basis)


def _masked(mask, x):
    if mask.shape not in (x.shape[1:], (*x.shape[1:-1], 1)):
        raise ValueError(f"mask: found the shape {mask.shape}, expected {x.shape[1:]}, that of one example")
    return x * mask.astype(x.dtype)


def _identity(x):
    return x


def _pooled(squares, x):
    side = squares.shape[0]
    if x.ndim != 4 or x.shape[1] % side or x.shape[2] % side:
        expected = f"a divisor of height and width, for images; one example has the shape {x.shape[1:]}"
        raise ValueError(f"factor: found {side}, expected {expected}")
    num, height, width, channels = x.shape
    return x.reshape(num, height // side, side, width // side, side, channels).mean((2, 4))
