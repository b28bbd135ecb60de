#!/bin/sh
# Power mode and clocks of a Jetson: power.sh list | show | max | set NUMBER | clocks
# Figures are only comparable in one mode: edgeseg's fingerprint holds it, and engines are cached for one mode each.
set -eu
config=${EDGESEG_ROOT:-}/etc/nvpmodel.conf

case ${1:-} in
    list) # "< POWER_MODEL ID=0 NAME=MAXN >"
        sed -n 's/^< POWER_MODEL ID=\([0-9]*\) NAME=\([^ >]*\).*/\1  \2/p' "$config"
        ;;
    show)
        nvpmodel -q
        ;;
    max)
        nvpmodel -m 0
        jetson_clocks
        ;;
    set)
        case ${2:-} in
            '' | *[!0-9]*)
                echo "power.sh set needs a number; see: power.sh list" >&2
                exit 2
                ;;
        esac
        nvpmodel -m "$2"
        ;;
    clocks) # the highest clocks of the present mode, until the next boot
        jetson_clocks
        ;;
    *)
        echo "usage: power.sh list | show | max | set NUMBER | clocks" >&2
        exit 2
        ;;
esac
