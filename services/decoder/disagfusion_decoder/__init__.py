"""DisagFusion's decoder service."""
