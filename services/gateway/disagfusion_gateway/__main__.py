"""`python -m disagfusion_gateway`."""

from disagfusion import termination

if __name__ == "__main__":
    termination.end_on_sigterm()
    # Only now, since it takes a while.
    from disagfusion_gateway.app import main

    main()
