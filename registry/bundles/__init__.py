"""Bundles: folders of manifest, signature, tensors and graphs, and what each kind of them must hold."""
