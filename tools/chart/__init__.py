"""What is generated of the Helm chart and of its reference pages."""
