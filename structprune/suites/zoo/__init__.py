"""timm's models: the smallest of each family swept from trace to gate, all of them planned, barriers counted."""
