"""All config fields with their meanings, units and default values.

The other configs start from this config and change some fields. The command line overrides a field by
`--config.section.field=value`.
"""

from ml_collections import ConfigDict

from dualmcmc_jax.core import samplers
from dualmcmc_jax.training.objectives import OBJECTIVES, OWN


def get_config() -> ConfigDict:
    """Return the recipe of Cui & Han (2023), applied to scikit-learn's digits."""
    config = ConfigDict()

    config.data = data = ConfigDict()
    # Where the examples come from: "digits" (scikit-learn's), "toy2d:NAME" (a 2-D density of configs/toy2d.py),
    # "images:PATH" (a folder or zip file), "npz:PATH" or "tfds:NAME" (a data set of TensorFlow Datasets); or a function
    # of your own, MODULE:FUNCTION or FILE.py:FUNCTION (docs/extend.md).
    data.source = "digits"
    data.shape = (8, 8, 1)  # shape of one example: (height, width, 1 for gray or 3 for color), or (dimensions,)
    data.crop = ()  # (left, top, right, bottom) in pixels, a crop that precedes the square crop of images; (): no crop
    data.flip = False  # mirror each training image horizontally with probability 1/2
    data.noise_std = 0.0  # standard deviation of noise added to the data in each update, in units of x; 0: no noise
    data.noise_steps = 0  # updates during which noise_std falls linearly to 0; 0: it stays constant
    data.skip_bad = False  # leave out images that cannot be read, instead of stopping with an error

    config.energy = energy = ConfigDict()
    # Network: "mlp", "conv" (strided convolutions), "resnet", or "quadratic" (|A x + b|^2 / 2, a Gaussian's energy).
    # Each of the three networks may also be one of your own, MODULE:CLASS or FILE.py:CLASS (docs/extend.md).
    energy.kind = "mlp"
    # Width of each hidden layer (mlp), convolution (conv) or residual block (resnet). () for quadratic.
    energy.widths = (256, 256, 256)
    energy.num_pools = 2  # resnet: the first num_pools blocks halve height and width
    energy.activation = "relu"  # resnet: "relu" (the recipe), or "swish" or "softplus", which make the score continuous
    energy.spectral_norm = True  # divide each weight matrix by its largest singular value
    # Factor of sum_i max(|x_i| - 1, 0)^2, which is added to the energy of an image so that long chains stay near the
    # range of pixels, in units of energy per squared unit of x; 0: not added (recipe).
    energy.confinement = 0.0
    energy.temperature = (1e-3 / 0.5) ** 2  # T in log pi(x) = -energy(x) / T - log Z, in units of energy

    config.generator = generator = ConfigDict()
    generator.kind = "mlp"  # network: "mlp", "conv" or "resnet"
    # Width of each hidden layer (mlp) or of each resolution: from 4 x 4 upwards (resnet), or up to half the size of the
    # images (conv). (): a linear mlp.
    generator.widths = (256, 256, 256)
    generator.latent_dim = 128  # d, the number of latent variables
    generator.norm = "batch"  # resnet: normalize by "batch" statistics (the recipe) or by "group" within an example
    generator.variance = 0.3**2 / 2  # sigma^2 of p(x | z), in squared units of x

    config.encoder = encoder = ConfigDict()
    encoder.kind = "mlp"  # network: "mlp", "conv" or "resnet"
    encoder.widths = (256, 256, 256)  # width of each hidden layer (mlp) or convolution (conv, resnet); (): a linear mlp

    config.x_chain = x_chain = ConfigDict()
    x_chain.num_steps = 30  # K_x, the number of MCMC steps of the x-revision
    x_chain.step_size = 1e-3**2 / 2  # s of Eq. 3, in squared units of x
    # MCMC kernel: "langevin" (recipe), "mala" (Metropolis-adjusted Langevin), "hmc" (Hamiltonian Monte Carlo),
    # "underdamped" (Langevin dynamics with velocities) or "annealed" (Langevin dynamics with falling step sizes).
    x_chain.sampler = "langevin"
    # Largest L2 norm of the score of one example in the x-chain, in nats per unit of x; 0: no clipping. In each step,
    # the score then moves an example by step_size * clip_score at most.
    x_chain.clip_score = 0.0
    # Where x-chains start: "generator" (at g(z)), "noise" (at a draw from N(0, I)) or "persistent" (where earlier
    # chains ended; in each update, 5% of the chains restart from noise).
    x_chain.init = "generator"
    # Standard deviation of noise added to g(z), in units of x. With the value sigma, chains start at draws from p(x|z).
    x_chain.start_std = 0.0
    # Resample the initial states by importance weights (core/resampling.py), which makes the EBM's density true at
    # temperature 1. The number is the least effective sample size as a share of the batch; 0: no resampling (recipe).
    x_chain.resample = 0.0
    x_chain.proposals = 10  # resample: the number of initial states that are proposed per chain
    x_chain.broad_proposals = 1  # resample: how many of these are drawn from N(0, broad_std^2), not from the generator
    x_chain.broad_std = 2.0  # resample: standard deviation of broad proposals, in units of x
    x_chain.num_chains = 10_000  # persistent: the number of stored chains; each update continues train.batch_size

    config.z_chain = z_chain = ConfigDict()
    z_chain.num_steps = 10  # K_z, the number of MCMC steps of the z-revision
    z_chain.step_size = 0.1**2 / 2  # s of Eq. 6, in squared units of z
    # MCMC kernel, as x_chain.sampler: "langevin" (recipe), "mala", "hmc", "underdamped" or "annealed".
    z_chain.sampler = "langevin"
    # Where z-chains start: "encoder" (at a draw from q(z | x)), "noise" (at a draw from N(0, I)) or "persistent" (where
    # the last chain of the same training example ended).
    z_chain.init = "encoder"
    z_chain.num_chains = 0  # persistent: the number of stored chains, which must equal the number of training examples

    # Parameters of single kernels, the same for x_chain and z_chain. Their default values are in core/samplers.py:
    #   num_leapfrog_steps       hmc: leapfrog steps, and so gradients, per step
    #   friction                 underdamped: friction per step, without unit; a velocity lasts about 1 / friction steps
    #   step_annealing           annealed: step size of the first step, as a multiple of step_size
    #   temperature_annealing    annealed: factor that multiplies the temperature in the first step
    for chain in (x_chain, z_chain):
        chain.update(samplers.parameters())

    # Each loss.OBJECTIVE.WEIGHT multiplies a term of a loss. An objective whose weights are all 0 is not computed. The
    # default values are in the table of training/objectives.py:
    #   loss.energy.data_weight, model_weight        Eq. 7: the energies of data and of revised samples
    #   loss.generator.data_weight, model_weight     Eq. 10: the data pairs (x, z~) and the model pairs (x~, z)
    #   loss.encoder.data_weight, model_weight       Eq. 15: the data pairs (x, z~) and the model pairs (x~, z)
    #   loss.elbo.weight                             baselines: the negative ELBO of a VAE, times 2 sigma^2
    #   loss.generated.energy_weight, posterior_weight    baselines: the energy of g(z), and -log q(z | g(z))
    #   loss.energy_penalty.weight      stability: the squared energies of data and of revised samples, divided by T
    #   loss.gradient_penalty.weight    stability: the squared gradients of the energy at the same points, divided by T
    #   loss.own.weight, function, trains   a loss of your own (docs/extend.md): its weight, MODULE:FUNCTION or
    #                                   FILE.py:FUNCTION ("": none), and the networks that it trains
    config.loss = loss = ConfigDict({name: row.weights for name, row in OBJECTIVES.items()} | {"own": OWN})
    loss.fresh_negatives = False  # train the energy on a second x-chain, which starts at the updated generator

    config.optimizer = optimizer = ConfigDict()
    # learning_rate: the initial learning rate of Adam. l2: this factor times the parameters is added to their gradient.
    # weight_decay: in each update, the parameters shrink by the learning rate times this factor (as in AdamW).
    optimizer.energy = ConfigDict({"learning_rate": 1e-4, "l2": 0.0, "weight_decay": 0.0})
    optimizer.generator = ConfigDict({"learning_rate": 3e-4, "l2": 5e-4, "weight_decay": 0.0})
    optimizer.encoder = ConfigDict({"learning_rate": 1e-4, "l2": 5e-4, "weight_decay": 0.0})
    optimizer.b1 = 0.0  # Adam's decay rate of the mean gradient
    optimizer.b2 = 0.9  # Adam's decay rate of the mean squared gradient
    optimizer.warmup_steps = 0  # updates during which the learning rates grow linearly to their values; 0: no warm-up
    optimizer.decay = 0.998  # factor that multiplies the learning rates after every pass through the data
    optimizer.clip_norm = 0.0  # largest L2 norm of the gradient of each network; 0 disables clipping

    config.train = train = ConfigDict()
    train.num_steps = 10_000  # number of updates
    train.batch_size = 100  # examples per update, over all devices
    train.seed = 0  # random seed of initial values, batches, chains and noise
    # Decay rate, per update, of the parameter average used for samples; 0: no average (recipe). After t updates, the
    # rate is min(ema_decay, (1 + t) / (10 + t)), so that early averages do not contain the initial parameters.
    train.ema_decay = 0.0
    train.unroll = 0  # chain steps per iteration of the compiled loop; 0: all steps for a resnet on a CPU, else 1
    train.deterministic = False  # on a GPU, use only operations whose results are reproducible, some of them slower
    # Arithmetic of the networks: "float32", "tensorfloat32" (float32 with TF32 matrix products on NVIDIA GPUs, which is
    # PyTorch's default for convolutions), "bfloat16", or "float64" (for all computations).
    train.compute_dtype = "float32"

    config.health = health = ConfigDict()
    health.max_energy_gap = 1e4  # largest gap of the mean energies of data and samples, in units of energy; 0: no check
    # What to do when training diverges: "stop", or "rollback" (restore the last checkpoint and continue with new random
    # numbers and lower learning rates).
    health.policy = "stop"
    health.max_rollbacks = 3  # number of rollbacks after which training stops at the next divergence
    health.learning_rate_factor = 0.5  # factor that multiplies the learning rates at every rollback

    config.checkpoint = checkpoint = ConfigDict()
    checkpoint.every = 1000  # updates between checkpoints
    checkpoint.keep = 3  # number of newest checkpoints to keep

    config.log = log = ConfigDict()
    log.every = 50  # updates between rows of metrics
    log.images_every = 1000  # updates between figures of samples
    log.num_images = 100  # samples per figure
    log.wandb = False  # also write the metrics and figures to Weights & Biases, by the package wandb

    config.evaluation = evaluation = ConfigDict()
    evaluation.num_samples = 50_000  # number of samples to draw and compare with the training data
    evaluation.num_held_out = 0  # number of held-out examples to reconstruct and compare; 0: all
    # Features of images in which samples are compared with data: "" (principal components of the pixels, or Inception's
    # features with --inception_weights) or "mnist_classifier" (the classifier of features/mnist_classifier.py).
    evaluation.features = ""
    evaluation.num_neighbours = 10_000  # samples and training examples compared pairwise (KID, precision, recall, ...)
    evaluation.group_size = 0  # examples per call of the generator when sampling; 0: train.batch_size
    evaluation.batch_size = 100  # examples per call of the energy and of Inception; it affects only the speed
    evaluation.x_chain = ()  # (num_steps, step_size, temperature) of the x-revision of samples; (): as in training
    # x_chain.sampler for sampling, with the parameters of x_chain: "langevin", "mala", "hmc", "underdamped" or
    # "annealed"; "": as in training.
    evaluation.sampler = ""
    evaluation.resample = -1.0  # x_chain.resample for sampling; 0: no resampling; -1: as in training
    evaluation.ood = ()  # more data sources for out-of-distribution detection, such as ("tfds:svhn_cropped",)
    evaluation.ais_temperatures = 0  # temperatures of annealed importance sampling, for log Z and bits/dim; 0: skip it
    evaluation.every = 0  # updates between light evaluations during training; 0: none
    evaluation.light_samples = 1000  # samples, and at most as many held-out examples, of a light evaluation
    return config
