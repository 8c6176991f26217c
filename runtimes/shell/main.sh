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
case ${interpreter##*/} in
  sh | bash | dash | ksh | zsh | 'env sh' | 'env bash' | 'env dash' | 'env ksh' | 'env zsh')
    # Unquoted on purpose: the interpreter line may carry one argument.
    if [ -n "$check" ]; then exec $interpreter -n "$entry"; fi
    ;;
  *)
    if [ -n "$check" ]; then
      command -v "${interpreter##* }" >/dev/null 2>&1 && exit 0
      echo "$entry: 1: the interpreter ${interpreter##* } does not exist" >&2
      exit 1
    fi
    ;;
esac
exec $interpreter "$entry" "$@"
