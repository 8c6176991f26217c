#!/bin/sh
# The main program of the shell runtime: runs the entry by its own interpreter line, or by sh when it has none.
# --check finds syntax errors at deploy, for the shells that can look without running.
if [ "$1" = --check ]; then
  check=1
  shift
fi
entry=$1
shift
IFS= read -r first <"$entry" || [ -n "$first" ]
case $first in
  '#!'*)
    interpreter=${first#'#!'}
    interpreter=${interpreter# }
    ;;
  *) interpreter=/bin/sh ;;
esac
# Unquoted on purpose from here on: the interpreter line may carry arguments.
if [ -n "$check" ]; then
  program=
  for word in $interpreter; do
    case ${word##*/} in
      env) continue ;;
      -* | *=*) [ -n "$program" ] || continue ;;
    esac
    program=$word
    break
  done
  if ! command -v "$program" >/dev/null 2>&1; then
    echo "$entry: 1: the interpreter $program does not exist" >&2
    exit 1
  fi
  case ${program##*/} in
    sh | bash | dash | ksh | zsh) exec "$program" -n "$entry" ;;
  esac
  exit 0
fi
exec $interpreter "$entry" "$@"
