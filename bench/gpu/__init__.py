"""What needs a GPU to be measured; each file runs by itself there."""
