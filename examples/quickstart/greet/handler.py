"""Event style: greets whoever the query or the body names. What it returns becomes JSON."""
import os


def handle(event, context):
    name = event.query.get("name") or event.text or "world"
    return {"greeting": f"{os.environ['GREETING']}, {name}!"}
