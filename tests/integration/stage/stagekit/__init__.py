"""Stage services in processes of their own, and a gateway's part played by hand."""
