"""DisagFusion's dit service."""
