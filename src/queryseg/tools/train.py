"""`python -m queryseg.tools.train`: the same as `train_net.py`, without a checkout."""

from queryseg.engine import train_main

if __name__ == "__main__":
    train_main()
