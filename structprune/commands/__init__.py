"""The commands, as plain functions; `cli` registers them. Nothing here imports torch before a command needs it."""
