"""PyTorch's files of four ages, over the pickle machine in `pickles`."""
