"""The training methods of the package, one file each. All of them are imported when one is first asked for."""
