"""Files that are kept between runs, and the locks around them."""
