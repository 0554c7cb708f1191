"""What the slim network's training starts from, how long it lasts, and how a cut is spread over rounds.

Enters the recipe's specs and plain data of plans; leaves specs for the trainer, and networks to train. It knows nothing
of stages, and imports torch only where networks are made.
"""
