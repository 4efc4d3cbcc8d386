"""What experiments/study.py is made of: studies, their trainings, and the tables of docs/results.md."""
