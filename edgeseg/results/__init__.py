"""Results: what measurements give, as frozen dataclasses with a JSON form (records.py). Reports are drawn from them."""
