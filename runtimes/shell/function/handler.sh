#!/bin/sh
# The request body is on standard input; the query is in $QUERY_STRING.
name=$(cat)
echo "Hello ${name:-world} from $(hostname)"
