"""Presets for ``nnunet-skd compact``, as JSON data."""
