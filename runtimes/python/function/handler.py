"""A sample function: greets whoever the request names.

    fnway invoke NAME --path '/?name=Ada'
"""


def handle(event, context):
    name = event.query.get("name") or event.text or "world"
    return {"message": f"Hello, {name}!", "function": context.function}
