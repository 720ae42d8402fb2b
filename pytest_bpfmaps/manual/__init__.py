"""The manual, as a program finds it: the address of each error, the pages, and the messages in the code."""
