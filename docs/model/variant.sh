#!/bin/sh
# Prints the model without one check, by the rule at the top of ccrun.pv:
# variant.sh NAME; without a NAME, all names.
set -eu
model=$(dirname "$0")/ccrun.pv
if [ $# -eq 0 ]; then
	sed -n 's/.*(\* CHECK \([a-z ]*\) \*)$/\1/p; s/^ *(\* INSTEAD \([a-z]*\): .*/\1/p' "$model" | tr ' ' '\n' | sort -u
	exit
fi
sed -e "/(\* CHECK\( [a-z]*\)* $1\( [a-z]*\)* \*)\$/d" -e "s/^\( *\)(\* INSTEAD $1: \(.*\) \*)\$/\1\2/" "$model"
