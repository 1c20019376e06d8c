"""Zero ablation beside mean ablation."""
