"""Programs whose sources say what the verifier should do, by the rules of the kernel's selftests."""
