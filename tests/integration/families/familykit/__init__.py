"""Tiny models of every family, and the processes in which they run whole and in three parts."""
