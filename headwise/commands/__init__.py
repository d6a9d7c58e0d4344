"""What ``headwise`` can be told to do, a file each: ``add(commands)`` declares the arguments, and only their running
imports torch, so that ``headwise --help`` answers at once."""
