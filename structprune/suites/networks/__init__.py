"""Networks that stand for a user's own, with what they are made of: plain PyTorch that knows nothing of structprune.

Import them by `as_users.users`: the package treats its own classes otherwise than a user's (the store admits none of
them, for example), so these are imported under a name outside of it.
"""
