"""What the tests of the dispatcher share."""
