"""A sample function: greets whoever the request names.

    curl http://127.0.0.1:8080/function/hello?name=Ada
"""


def handle(event, context):
    name = event.query.get("name") or event.text or "world"
    return {"message": f"Hello, {name}!", "function": context.function}
