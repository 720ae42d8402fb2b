"""What programs cost the verifier: verdicts of objects alone, recorded costs, and their comparison."""
