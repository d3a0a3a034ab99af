"""`python -m disagfusion_gateway`."""

from disagfusion_gateway.app import main

if __name__ == "__main__":
    main()
