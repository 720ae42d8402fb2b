"""The process between pytest-xdist and a guest: passes bytes on, counts time, explains the end."""
