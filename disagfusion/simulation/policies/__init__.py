"""Rules to compare the balancer with."""
