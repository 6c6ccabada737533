"""What the Makefile calls: images, installation, a cluster for the length of a command.

Standard library only, so that it runs with the plain `python3` of a fresh machine.
"""
