#!/bin/sh
# The request body is on standard input; the query is in $QUERY_STRING.
echo "Hello from $(hostname)"
