"""DisagFusion's encoder service."""
