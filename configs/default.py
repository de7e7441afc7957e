"""Every field, with its meaning and unit. The other configs are changes to this one.

Fields are set from the command line as `--config.section.field=value`.
"""

from ml_collections import ConfigDict

from dualmcmc_jax.training.objectives import OBJECTIVES


def get_config() -> ConfigDict:
    """The recipe of Cui & Han (2023), on scikit-learn's digits."""
    config = ConfigDict()

    config.data = data = ConfigDict()
    data.source = "digits"  # "digits", "toy2d:NAME", "images:PATH" (folder or zip), "npz:PATH" or "tfds:NAME"
    data.shape = (8, 8, 1)  # of one example: (height, width, 1 for gray or 3 for colour), or (dimensions,)
    data.crop = ()  # images: (left, top, right, bottom) in pixels, before the centre crop and resize to shape
    data.flip = False  # images: mirror each, left and right, with probability 1/2
    data.skip_bad = False  # images: leave out those that cannot be read, instead of refusing

    config.energy = energy = ConfigDict()
    energy.kind = "mlp"  # "mlp", "resnet", or "quadratic": |A x + b|^2 / 2, whose density is a Gaussian
    energy.widths = (256, 256, 256)  # per hidden layer, or per residual block; (): quadratic
    energy.num_pools = 2  # resnet: how many blocks, from the first, halve the image
    energy.spectral_norm = True  # divide each weight by its largest singular value
    energy.temperature = (1e-3 / 0.5) ** 2  # T in log pi(x) = -energy(x) / T - log Z, in units of energy

    config.generator = generator = ConfigDict()
    generator.kind = "mlp"  # "mlp" or "resnet"
    generator.widths = (256, 256, 256)  # per hidden layer, or per resolution from 4 x 4 upwards; (): linear
    generator.latent_dim = 128  # d: number of latent variables
    generator.norm = "batch"  # resnet: "batch" statistics (the recipe), or "group": each example by itself
    generator.variance = 0.3**2 / 2  # sigma^2 of p(x | z) in the z-chain, in squared units of x

    config.encoder = encoder = ConfigDict()
    encoder.kind = "mlp"  # "mlp" or "resnet"
    encoder.widths = (256, 256, 256)  # per hidden layer, or per convolution; (): linear

    config.x_chain = x_chain = ConfigDict()
    x_chain.num_steps = 30  # K_x: Langevin steps of the x-revision
    x_chain.step_size = 1e-3**2 / 2  # s of Eq. 3, in squared units of x
    x_chain.sampler = "langevin"  # the kernel of the chain, a row of core/samplers.py
    x_chain.init = "generator"  # start at g(z), at "noise" from N(0, I), or "persistent": where they ended before
    x_chain.start_std = 0.0  # of noise added to g(z), in units of x: 0 (the recipe), or sigma for a draw of p(x | z)
    x_chain.num_chains = 10_000  # persistent: number of chains kept; an update continues the next train.batch_size

    config.z_chain = z_chain = ConfigDict()
    z_chain.num_steps = 10  # K_z: Langevin steps of the z-revision
    z_chain.step_size = 0.1**2 / 2  # s of Eq. 6, in squared units of z
    z_chain.sampler = "langevin"  # likewise
    z_chain.init = "encoder"  # start at a draw of q(z | x), at "noise" from N(0, I), or "persistent": likewise
    z_chain.num_chains = 0  # persistent: one of each training example

    # loss.OBJECTIVE.WEIGHT: factors of the terms of each objective; training/objectives.py describes them.
    # Eq. 7: energy. Eq. 10: generator. Eq. 15: encoder. Other methods: elbo, generated. A weight of 0 costs nothing.
    config.loss = loss = ConfigDict({name: row.weights for name, row in OBJECTIVES.items()})
    loss.fresh_negatives = False  # the energy learns from a second x-chain, from the generator just updated

    config.optimizer = optimizer = ConfigDict()
    optimizer.energy = ConfigDict({"learning_rate": 1e-4, "l2": 0.0})  # l2: times the parameter, added to its gradient
    optimizer.generator = ConfigDict({"learning_rate": 3e-4, "l2": 5e-4})
    optimizer.encoder = ConfigDict({"learning_rate": 1e-4, "l2": 5e-4})
    optimizer.b1 = 0.0  # Adam's decay of the mean gradient
    optimizer.b2 = 0.9  # Adam's decay of the squared gradient
    optimizer.decay = 0.998  # factor on the learning rates after every epoch
    optimizer.clip_norm = 0.0  # largest norm of each network's gradient; 0: unlimited

    config.train = train = ConfigDict()
    train.num_steps = 10_000  # updates
    train.batch_size = 100  # examples per update, over all devices
    train.seed = 0  # seed of initial values, batches, chains and noise
    train.ema_decay = 0.0  # averages the parameters that samples and evaluation use; 0: the last ones (the recipe)
    train.unroll = 0  # Langevin steps per turn of the compiled loop, for speed; 0: all if a resnet on a CPU, else 1
    train.deterministic = False  # on a GPU: only operations that give the same bits every time, some of them slower
    # Arithmetic inside the networks: "float32", "tensorfloat32" (float32, but products in TF32 on NVIDIA GPUs, which is
    # PyTorch's default for convolutions), "bfloat16", or "float64" (all arithmetic).
    train.compute_dtype = "float32"

    config.health = health = ConfigDict()
    health.max_energy_gap = 1e4  # largest gap between mean energies of data and samples; 0 disables the check
    health.policy = "stop"  # or "rollback": go back to the last checkpoint, with other noise and lower learning rates
    health.max_rollbacks = 3  # before it stops all the same
    health.learning_rate_factor = 0.5  # on the learning rates, with every rollback

    config.checkpoint = checkpoint = ConfigDict()
    checkpoint.every = 1000  # updates between checkpoints
    checkpoint.keep = 3  # newest checkpoints kept

    config.log = log = ConfigDict()
    log.every = 50  # updates between rows of metrics
    log.images_every = 1000  # updates between pictures of samples
    log.num_images = 100  # samples per picture

    config.evaluation = evaluation = ConfigDict()
    evaluation.num_samples = 50_000  # samples drawn
    evaluation.num_held_out = 0  # held-out examples reconstructed and measured; 0: all
    evaluation.num_neighbours = 10_000  # samples and training examples compared pair by pair: KID, precision, ...
    evaluation.group_size = 0  # examples per call of the generator when sampling; 0: train.batch_size
    evaluation.batch_size = 100  # examples per call of the energy and of Inception; changes speed only
    evaluation.x_chain = ()  # (num_steps, step_size, temperature) of the x-revision when sampling; (): as trained
    evaluation.ood = ()  # more data sources that the energy should tell from the data, such as ("tfds:svhn_cropped",)
    evaluation.ais_temperatures = 0  # of annealed importance sampling, for log Z and bits per dimension; 0: none
    evaluation.every = 0  # updates between light evaluations while training; 0: none
    evaluation.light_samples = 1000  # samples, and at most as many held-out examples, of a light evaluation
    return config
