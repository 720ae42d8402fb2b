"""The process between pytest-xdist and a guest: the wire, the limits, the end."""
