"""The neural adapter: its parts against autograd, dense linear algebra, torch.optim and curvlinops."""
