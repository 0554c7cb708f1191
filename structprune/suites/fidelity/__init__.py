"""How much of a network is left without training: criteria × allocations × recovery × MACs cuts."""
