"""Training methods with the face of `torch.optim.Optimizer`: DDPNOpt, and Pontryagin's."""

from ocpkit import moved

__getattr__ = moved.members(__name__, "ddpnopt", "options")
