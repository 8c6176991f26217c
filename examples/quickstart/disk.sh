#!/bin/sh
# Shell: how full is the disk? The request body may name another mount than /.
read -r mount
df -h -- "${mount:-/}"
