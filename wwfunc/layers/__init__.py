"""Which tensors are layers: names, rules, findings, selection and coverage."""
