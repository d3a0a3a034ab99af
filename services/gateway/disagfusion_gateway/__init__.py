"""DisagFusion's gateway service."""
