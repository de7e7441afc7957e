"""What the report calls things, and what it says of them."""

RISING = (
    "inception_score",
    "precision",
    "recall",
    "density",
    "coverage",
    "svc_score",
    "class_entropy",
    "psnr",
    "ssim",
    "log_likelihood",
)
FALLING = ("fid", "kid", "frechet", "kernel_distance", "mse", "kl_", "missed_modes", "bits_per_dim")
SECTIONS = {
    "samples": "Samples",
    "reconstruction": "Reconstruction of held-out data",
    "energy": "Energy",
    "long_run": "Long x-chains",
    "likelihood": "Likelihood of held-out data",
    "density": "The known density",
    "chain": "Chains",
    "linear": "The solution in closed form",
}
NOTES = {
    "samples": (
        "↓ lower is better, ↑ higher is better. Frechet and kernel distances are to the training data, depend "
        "on the number of samples, and the kernel distance may fall below 0. Precision and density: how many "
        "samples lie among data; recall and coverage: how much of the data lies among samples. Costs are per "
        "1,000 samples; an energy's gradient counts as one network evaluation. nearest train: root mean "
        "square difference per pixel, in [-1, 1], to the nearest training example. svc score: 7.7 of real "
        "digits, 3.0 of a Gaussian; class entropy: at most 2.303 nats."
    ),
    "reconstruction": "mse: squared units of pixels in [-1, 1]; psnr: decibels; each a mean over images.",
    "energy": (
        "Lower is more likely; samples are measured as images, that is clipped and rounded. AUROC: the "
        "probability that a held-out example has a lower energy than one of the set."
    ),
    "long_run": (
        "Before clipping to images. rms change: per pixel, since the trained length. An energy trained by "
        "short chains need not hold for long ones: then it falls far below that of data, and pixels leave "
        "[-1, 1]."
    ),
    "likelihood": (
        "In nats an example, on the box [-1, 1]^D of images or the square of a known density, by annealed importance "
        "sampling there and back: on average the true log Z lies between the two. Without exact draws the way back "
        "begins where the way there ended, so that what no chain has found is in neither. Few chains that count, or "
        "sides far apart: take more evaluation.ais_temperatures. bits per dim: of 256 levels, dequantised."
    ),
    "density": (
        "In nats. KL divergences by quadrature on a square; log-likelihoods are means over held-out data, the "
        "generator's by quadrature over two latents, and by importance sampling from the inference model, 1,000 draws "
        "an example, with their effective number. smallest mode: the share of the mode, arc or square that is met "
        "least, 1 if all are equal; below 0.1 it counts as missed."
    ),
    "chain": (
        "acceptance: the share of steps that a Metropolis correction would accept. variance bias: how much wider the "
        "modes get by ten times the trained number of steps, from exact draws of the EBM."
    ),
    "linear": (
        "Parameters along the eigenvectors of the training data's covariance, and KL divergences in nats from maximum "
        "likelihood, which is known. fixed point: where the config's losses and its finite, unadjusted chains lead "
        "with endless training; what was learned should be near it, and it near maximum likelihood where the losses "
        "are without model pairs, and the chains long and their steps small."
    ),
}
COLUMNS = {
    "encoder": "inference model",
    "encoder_chain": "z-revision from it",
    "noise_chain": "z-revision from noise",
    "held_out": "held-out data",
    "ebm": "EBM",
    "x": "x-chain",
    "z": "z-chain",
}
FIGURES = {
    "samples": ("x_revision", "neighbours", "interpolation"),
    "reconstruction": ("z_revision", "reconstruction"),
    "energy": ("energies",),
    "long_run": ("long_run",),
    "likelihood": (),
    "density": (),
    "chain": (),
    "linear": (),
}
CAPTIONS = {
    "samples": "Samples of the generator, and the same after the x-revision.",
    "x_revision": "The x-revision: every third state of some chains, and their mean energy.",
    "z_revision": "The z-revision: latents decoded on their way to held-out images, and the error.",
    "interpolation": "Along the arc from one latent to another.",
    "reconstruction": "Dots: light evaluations while training; star: this evaluation, of all held-out data.",
    "energies": "Energies of data, samples, and sets that are no data; the outermost 0.5% of each side are cut.",
    "neighbours": "Nearest training examples: is anything memorised?",
    "long_run": "Chains far longer than those of training: do they drift or saturate?",
    "training": "Metrics of training, from metrics.jsonl; energies and losses in their own units, mse per pixel.",
}
