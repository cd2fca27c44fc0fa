#!/usr/bin/env python
"""Train or evaluate; `python train_net.py --help` shows how."""

from queryseg.engine import train_main

if __name__ == "__main__":
    train_main()
