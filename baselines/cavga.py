"""CAVGA: a variational autoencoder whose attention is trained to cover all that is normal.

Reproduces: "Attention Guided Anomaly Localization in Images" (Venkataramanan et al., ECCV 2020). No
code of it is public and the paper was read second-hand, so this is rebuilt from the formulas and
tables that others quote. A convolutional encoder gives a latent z that keeps its grid, a decoder
the image; a discriminator tells images from reconstructions. Four variants:

- `R_u`, `D_u` learn from normal images: reconstruction and KL, weight 1; the adversarial loss,
  weight 1; L_ae = mean(1 - A), weight 0.01, with A the attention (Grad-CAM of z at the encoder's
  last map, through a sigmoid), which shall cover the image;
- `R_w`, `D_w` also learn from k labelled anomalies, by image labels alone: a linear classifier on
  the flattened z, cross-entropy, weight 0.001; L_cga = mean(1 - A_normal + A_anomalous), weight
  0.01, over normal images that are predicted normal, with the attention of either class.

`R` encodes by an ImageNet ResNet, fine-tuned; `D` by the discriminator of DC-GAN. Image score:
mean absolute difference of image and reconstruction (`score = "classifier"`: log-odds of z, of `w`
alone). Map of `u`: 1 - A; of `w`: A_anomalous.

Departures: the generator and discriminator that the paper takes from a DC-GAN trained on Celeb-A
start at random, since no such weights are public.

Chosen here, where no source that could be read says it: Adam 1e-4 with betas 0.5 and 0.999; 200
epochs, batch 16; z of 128 channels behind a 3x3 convolution, normalisation and ReLU, so that the
weights of the attention depend on the image; a decoder of residual up-blocks whose widths halve
from 256 to 16; a discriminator of five strided convolutions; one step of it for one of the
generator; the non-saturating form of the generator's loss (`adversarial = "published"` is the
printed one); mean squared error and mean KL; reconstruction, KL and the adversarial loss over
normal images alone; of `w` plain shuffled batches of normal images and labelled anomalies; no
augmentation; the score without sampling, in the image's own scale. The paper prints accuracies at a
fixed threshold and not how it was found: here it is the 95 % quantile of the scores of the normal
training images.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.blocks.backbone import MEAN, STD, Backbone, by_channel, normalise
from baselines.blocks.batches import Stream, generator
from baselines.blocks.loop import learning_rate, run_steps
from baselines.blocks.plan import Plan
from baselines.blocks.weak import Seen, WeakMethod, WeakNetwork
from bench.detector import Context, MethodError, TrainingSet, parameter

VARIANTS = {"R_u": "unsupervised", "D_u": "unsupervised", "R_w": "weak", "D_w": "weak"}
"""Variants of the paper, by what they learn from."""
WIDTH = 256
"""Channels of the encoder's last map."""
NARROWEST = 16
"""Channels of the decoder's last block."""
CALLED_NORMAL = 0.95
"""Share of the normal training images below the threshold that accuracy is measured at."""
COARSE = 64
"""Largest side of the map of residuals."""


class Latent(NamedTuple):
    """What the encoder makes of B images."""

    features: Tensor
    """(B, 256, h, w), the encoder's last map."""
    mean: Tensor
    """(B, 128, h, w)."""
    log_variance: Tensor


class UpBlock(nn.Module):
    """Double the grid: (B, C, h, w) -> (B, D, 2h, 2w), with a 1x1 skip."""

    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(wide, narrow, 3, padding=1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            nn.Conv2d(narrow, narrow, 3, padding=1),
        )
        self.skip = nn.Conv2d(wide, narrow, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return the enlarged features."""
        large = F.interpolate(features, scale_factor=2, mode="nearest")
        return F.relu(self.body(large) + self.skip(large))


def strided(wide: int, narrow: int) -> nn.Sequential:
    """Return a 4x4 convolution of stride 2 with normalisation and leaky ReLU."""
    return nn.Sequential(
        nn.Conv2d(wide, narrow, 4, 2, 1, bias=False), nn.BatchNorm2d(narrow), nn.LeakyReLU(0.2)
    )


def dcgan_encoder(channels: int) -> nn.Sequential:
    """Return DC-GAN's discriminator to its last map, stride 16."""
    widths = [3, channels // 4, channels // 2, channels, channels]
    return nn.Sequential(*(strided(a, b) for a, b in itertools.pairwise(widths)))


class Discriminator(nn.Module):
    """Tell images (B, 3, H, W) from reconstructions: (B,) logits."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 32, 64, 128, 256, 512]
        self.layers = nn.Sequential(*(strided(a, b) for a, b in itertools.pairwise(widths)))
        self.real = nn.Linear(widths[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, higher = an image."""
        logits: Tensor = self.real(self.layers(images).mean((2, 3)))
        return logits.squeeze(1)


class Network(WeakNetwork):
    """Encoder, latent, decoder, discriminator, and of `w` the classifier."""

    def __init__(
        self, encoder: nn.Module, stride: int, latent: int, grid: int, weak: bool, score: str
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.hidden = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU()
        )
        self.mean = nn.Conv2d(WIDTH, latent, 1)
        self.log_variance = nn.Conv2d(WIDTH, latent, 1)
        widths = [max(NARROWEST, WIDTH >> i) for i in range(stride.bit_length())]
        self.decoder = nn.Sequential(
            nn.Conv2d(latent, WIDTH, 1), *(UpBlock(a, b) for a, b in itertools.pairwise(widths))
        )
        self.colour = nn.Conv2d(widths[-1], 3, 3, padding=1)
        self.discriminator = Discriminator()
        self.classifier = nn.Linear(latent * grid * grid, 2) if weak else None
        self.score = score

    def generator_parameters(self) -> list[nn.Parameter]:
        """Return all parameters but the discriminator's."""
        other = {id(p) for p in self.discriminator.parameters()}
        return [p for p in self.parameters() if id(p) not in other]

    def encode(self, images: Tensor) -> Latent:
        """Encode normalised images (B, 3, H, W)."""
        return self.latent(self.encoder(images))

    def latent(self, features: Tensor) -> Latent:
        """Return the latent of the encoder's last map."""
        hidden = self.hidden(features)
        return Latent(features, self.mean(hidden), self.log_variance(hidden))

    def decode(self, z: Tensor, size: int) -> Tensor:
        """Return images (B, 3, size, size) in [0, 1]."""
        features = self.decoder(z)
        if features.shape[-1] != size:  # a side that the strides do not divide
            features = F.interpolate(features, (size, size), mode="nearest")
        return self.colour(features).sigmoid()

    def logits(self, z: Tensor) -> Tensor:
        """Return the classifier's logits of a latent, (B, 2): normal, anomalous."""
        assert self.classifier is not None
        logits: Tensor = self.classifier(z.flatten(1))
        return logits

    def attentions(self, latent: Latent, *, train: bool) -> tuple[Tensor, Tensor | None]:
        """Return the attention of what is normal and, of `w`, of what is anomalous.

        (B, h, w) each, in (0, 1). With `train` a loss on them reaches all parameters.
        """
        if self.classifier is None:
            return attention(latent.features, latent.mean.sum(), train), None
        normal, anomalous = self.logits(latent.mean).sum(0)
        return (
            attention(latent.features, normal, train),
            attention(latent.features, anomalous, train),
        )

    def residuals(self, images: Tensor, latent: Latent) -> Tensor:
        """Return |image - reconstruction|, the mean over colours, (B, H, W) in [0, 1]."""
        again = self.decode(latent.mean, images.shape[-1])
        return (pixels(images) - again).abs().mean(1)

    def scores(self, images: Tensor) -> Tensor:
        """Return (B,) scores: the mean residual, or the classifier's log-odds."""
        latent = self.encode(images)
        if self.score == "classifier":
            normal, anomalous = self.logits(latent.mean).unbind(1)
            return anomalous - normal
        return self.residuals(images, latent).mean((1, 2))

    def embed(self, images: Tensor) -> Tensor:
        """Return the latent's mean over the grid, (B, latent)."""
        return self.encode(images).mean.mean((2, 3))

    def explain(self, images: Tensor) -> Seen:
        """Return the attention's map and the residuals, and both image scores."""
        with torch.no_grad():
            features = self.encoder(images)
        with torch.enable_grad():
            features.requires_grad_()
            latent = self.latent(features)
            normal, anomalous = self.attentions(latent, train=False)
        residual = self.residuals(images, latent)
        side = min(COARSE, residual.shape[-1])
        coarse = F.adaptive_avg_pool2d(residual.unsqueeze(1), side).squeeze(1)
        parts = {"residual": residual.mean((1, 2))}
        if self.classifier is not None:
            logits = self.logits(latent.mean)
            parts["classifier"] = logits[:, 1] - logits[:, 0]
        shown = 1 - normal if anomalous is None else anomalous
        return Seen(
            {"attention": shown.detach(), "residual": coarse.detach()},
            {name: part.detach() for name, part in parts.items()},
        )


def attention(features: Tensor, target: Tensor, train: bool) -> Tensor:
    """Return the sigmoid of a target's Grad-CAM, (B, h, w), at features (B, C, h, w).

    The target is summed over the batch, so each image has its own gradient where no batch
    statistics join them. With `train` the gradient is part of the graph, for a loss on the map.
    """
    (gradient,) = torch.autograd.grad(target, features, create_graph=train, retain_graph=True)
    return (gradient.mean((2, 3), keepdim=True) * features).sum(1).sigmoid()


def pixels(images: Tensor) -> Tensor:
    """Return normalised images (B, 3, H, W) in [0, 1]."""
    return images * by_channel(images, STD) + by_channel(images, MEAN)


def draw_noise(shape: torch.Size, rng: torch.Generator) -> tuple[Tensor, ...]:
    """Draw normal noise of a shape, on the CPU."""
    return (torch.randn(shape, generator=rng),)


class Encoder(nn.Module):
    """An ImageNet backbone and a 1x1 convolution to 256 channels."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.narrow = nn.Conv2d(backbone.channels, WIDTH, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the last map, (B, 256, h, w)."""
        features: Tensor = self.narrow(self.backbone(images))
        return features


class Losses(NamedTuple):
    """The generator's loss and its terms, scalars."""

    total: Tensor
    attention: Tensor


class CAVGA(WeakMethod):
    """Autoencoder with attention that covers what is normal, without or with labelled anomalies."""

    name = "cavga"
    version = 1
    planned = True
    supervision: ClassVar[Any] = {"variant": VARIANTS}
    settings = frozenset({"batch_size", "backbone"})

    @dataclass(frozen=True, kw_only=True)
    class Parameters:
        """The defaults are the reading above."""

        variant: str = parameter("R_u", choices=tuple(VARIANTS))
        lr: float = parameter(1e-4, above=0)
        epochs: int = parameter(200, least=1)
        steps_per_epoch: int = parameter(0, least=0)
        """0: once over the training images."""
        latent: int = parameter(128, least=1)
        reconstruction_weight: float = parameter(1.0, least=0)
        adversarial_weight: float = parameter(1.0, least=0)
        attention_weight: float = parameter(0.01, least=0)
        """Of L_ae, and of L_cga in `w`."""
        classifier_weight: float = parameter(0.001, least=0)
        adversarial: str = parameter("nonsaturating", choices=("nonsaturating", "published"))
        score: str = parameter("residual", choices=("residual", "classifier"))

        @property
        def weak(self) -> bool:
            """Whether labelled anomalies train."""
            return VARIANTS[self.variant] == "weak"

    side: int
    """Of the images, which the classifier is made for."""

    def untrained(self, context: Context) -> Network:
        """Return the network as it is before training, on the CPU, and keep the context."""
        self.context, self.plan = context, Plan(context.device)
        p = self.parameters
        if p.score == "classifier" and not p.weak:
            raise MethodError(f"score = classifier needs variant R_w or D_w, not {p.variant}")
        if context.backbone is None:
            raise MethodError("this method needs a backbone")
        encoder: nn.Module = dcgan_encoder(WIDTH)
        stride = 16
        if p.variant.startswith("R"):
            encoder = Encoder(Backbone(context.backbone, "float32"))
            stride = 2 ** (context.backbone.stage + 1)
        grid = self._grid(encoder)
        return Network(encoder, stride, p.latent, grid, p.weak, p.score)

    def _grid(self, encoder: nn.Module) -> int:
        """Return the side of the encoder's last map."""
        with torch.no_grad():
            training = encoder.training
            blank = torch.zeros(1, 3, self.side, self.side)
            side = int(encoder.eval()(blank).shape[-1])
            encoder.train(training)
        return side

    def fit(self, train_set: TrainingSet, context: Context) -> None:
        """Train generator and discriminator in turns to the last epoch."""
        normal, anomalous = train_set.normal.images, train_set.anomalous.images
        self.side = normal.shape[-1]
        self.begin(context)
        p = self.parameters
        images = torch.from_numpy(normal)
        if p.weak:
            if not len(anomalous):
                raise MethodError(f"variant {p.variant} needs at least one labelled anomaly")
            images = torch.cat([images, torch.from_numpy(anomalous)])
        labels = torch.arange(len(images)) >= len(normal)
        self.train(images.to(context.device), labels.to(context.device))
        self.network.eval()
        threshold = np.quantile(self.score(train_set.normal), CALLED_NORMAL)
        context.record("normal_threshold", float(threshold))

    def train(self, images: Tensor, labels: Tensor) -> None:
        """Train the network in place on images (N, 3, S, S) uint8 and labels (N,) bool."""
        p, context = self.parameters, self.context
        stream = Stream(len(images), generator(context, "batches"))
        self.noise = generator(context, "augment")
        steps = p.steps_per_epoch or -(-len(images) // context.batch_size)
        of_generator, of_discriminator = self.optimisers()
        attended = torch.zeros((), device=context.device)

        def draw() -> tuple[Tensor, ...]:
            return (stream.take(context.batch_size),)

        def step() -> Tensor:
            (taken,) = self.plan.take(draw)
            batch = normalise(images[taken].float() / 255)
            batch = batch.contiguous(memory_format=torch.channels_last)
            losses = self.step(batch, labels[taken], of_generator, of_discriminator)
            attended.copy_(losses.attention)
            return losses.total

        self.network.train()
        plan = self.plan if vars(type(self)).get("planned") else None
        run_steps(step, p.epochs, steps, context, self.after_epoch, plan)
        context.record("attention_loss", float(attended))

    def optimisers(self) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        """Return Adam over the generator and over the discriminator."""
        groups = (
            self.network.generator_parameters(),
            list(self.network.discriminator.parameters()),
        )
        device = groups[0][0].device
        one, two = (
            torch.optim.Adam(
                group,
                learning_rate(self.parameters.lr, device),
                betas=(0.5, 0.999),
                fused=True,
                capturable=device.type == "cuda",
            )
            for group in groups
        )
        return one, two

    def step(
        self,
        batch: Tensor,
        labels: Tensor,
        of_generator: torch.optim.Optimizer,
        of_discriminator: torch.optim.Optimizer,
    ) -> Losses:
        """Make one step of the discriminator and one of the generator on a normalised batch."""
        latent = self.network.encode(batch)
        (noise,) = self.plan.take(draw_noise, latent.mean.shape, self.noise)
        z = latent.mean + noise * (latent.log_variance / 2).exp()
        again = self.network.decode(z, batch.shape[-1])
        of_discriminator.zero_grad()
        self.discriminator_loss(pixels(batch), again.detach(), labels).backward()
        of_discriminator.step()
        losses = self.generator_loss(batch, labels, latent, again)
        of_generator.zero_grad()
        losses.total.backward()
        of_generator.step()
        return Losses(losses.total.detach(), losses.attention.detach())

    def discriminator_loss(self, real: Tensor, made: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of images against reconstructions, over normal images."""
        discriminator = self.network.discriminator
        losses = F.softplus(-discriminator(real)) + F.softplus(discriminator(made))
        return mean_of(losses, ~labels)

    def generator_loss(
        self, batch: Tensor, labels: Tensor, latent: Latent, again: Tensor
    ) -> Losses:
        """Weighted sum of reconstruction, KL, adversarial, attention and classifier losses."""
        p, normal = self.parameters, ~labels
        error = ((again - pixels(batch)) ** 2).mean((1, 2, 3))
        mean, log_variance = latent.mean, latent.log_variance
        kl = (mean**2 + log_variance.exp() - 1 - log_variance).mean((1, 2, 3)) / 2
        made = self.network.discriminator(again)
        fooled = F.softplus(-made) if p.adversarial == "nonsaturating" else -F.softplus(made)
        total = p.reconstruction_weight * mean_of(error + kl, normal)
        total = total + p.adversarial_weight * mean_of(fooled, normal)
        on_normal, on_anomalous = self.network.attentions(latent, train=True)
        if on_anomalous is None:
            attended = (1 - on_normal).mean()
        else:
            logits = self.network.logits(mean)
            total = total + p.classifier_weight * F.cross_entropy(logits, labels.long())
            chosen = normal & (logits[:, 0] > logits[:, 1])
            attended = mean_of((1 - on_normal + on_anomalous).mean((1, 2)), chosen)
        return Losses(total + p.attention_weight * attended, attended)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all parameters and buffers, and the side of the images."""
        return {**super().state(), "side": torch.tensor(self.side).numpy()}

    def load_state(self, arrays: Mapping[str, NDArray[Any]], context: Context) -> None:
        """Build the network and fill it with what `state` returned."""
        self.side = int(arrays["side"])
        super().load_state({k: v for k, v in arrays.items() if k != "side"}, context)

    def rehearse(self, size: int, context: Context) -> None:
        """Make one training step on images of zeros."""
        assert context.backbone is not None
        self.side = size
        source = dataclasses.replace(context.backbone, file=None)
        self.network = self.untrained(dataclasses.replace(context, backbone=source)).train()
        self.noise = torch.Generator()
        labels = torch.arange(context.batch_size) % 2 == 1
        self.step(torch.zeros(context.batch_size, 3, size, size), labels, *self.optimisers())


def mean_of(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean of the chosen values (B,), 0 where none is."""
    return (values * chosen).sum() / chosen.sum().clamp(min=1)
