"""Changes one place of the package at a time, and sees whether a test fails: see ci/mutants."""
