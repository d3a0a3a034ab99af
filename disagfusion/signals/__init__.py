"""Where a balancer's signals come from, outside of the process that runs it."""
