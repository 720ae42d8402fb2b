"""What runs inside a guest before and beside pytest."""
