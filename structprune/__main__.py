"""`python -m structprune`, also under `accelerate launch -m structprune`."""

from .cli import main

if __name__ == "__main__":
    main()
