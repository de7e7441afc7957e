"""MSE, PSNR and SSIM, compared with scikit-image."""

import numpy as np
import pytest
from skimage import metrics

from dualmcmc_jax.metrics import image_similarity


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3), (7, 9, 3)])
def test_similarities_equal_scikit_images(shape, dtype):
    random = np.random.RandomState(0)
    x = random.uniform(-1, 1, (5, *shape))
    y = np.clip(x + random.normal(0, 0.05, x.shape) * np.array([0, 1, 3, 10, 30])[:, None, None, None] + 1e-9, -1, 1)
    x, y = x.astype(dtype), y.astype(dtype)
    values = {name: np.asarray(getattr(image_similarity, name)(x, y)) for name in ("mse", "psnr", "ssim")}
    for i in range(1, 5):
        assert values["mse"][i] == pytest.approx(metrics.mean_squared_error(x[i], y[i]), rel=1e-5)
        assert values["psnr"][i] == pytest.approx(metrics.peak_signal_noise_ratio(x[i], y[i], data_range=2), abs=1e-4)
        expected = metrics.structural_similarity(x[i], y[i], data_range=2, channel_axis=-1)
        assert values["ssim"][i] == pytest.approx(expected, abs=1e-4)
    assert values["ssim"][0] == pytest.approx(1, abs=1e-6)
    assert len(set(np.round(values["ssim"], 2))) == 5
