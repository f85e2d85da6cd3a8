"""The neural adapter: layers are stages, weights are controls."""
