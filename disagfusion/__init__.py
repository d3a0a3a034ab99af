"""DisagFusion: diffusion pipelines served in stages."""

from disagfusion.version import __version__

__all__ = ["__version__"]
