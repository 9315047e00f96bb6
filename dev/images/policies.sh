#!/bin/bash
# Enforces NetworkPolicies on its node for as long as this runs, and leaves nothing of them behind.
#
#   policies.sh NODE SERVICE_RANGE...
#
# kube-router reads the whole filter table and some moments later writes it back: what kube-proxy changed in between would be undone.
# So its rules are in a table of their own, that of iptables-legacy, which nobody else uses on a node of the development cluster; the
# kernel asks both.
set -euo pipefail

# Between pods of one node, and with the node itself, neighbour discovery passes the filter as all else does, and kube-router makes no
# exception of it: a pod that may send to few could not say to the others where it is, and not even the node would reach it by IPv6.
# What stands in kube-router's chains before it comes stays before its own.
let_neighbours_be_found() {
  local chain type rule
  for chain in KUBE-ROUTER-{INPUT,FORWARD,OUTPUT}; do
    ip6tables --wait --new-chain $chain 2>/dev/null || true      # it is there after a restart
    for type in neighbour-{solicitation,advertisement}; do
      rule=($chain -p icmpv6 --icmpv6-type $type -j ACCEPT)
      ip6tables --wait --check "${rule[@]}" 2>/dev/null || ip6tables --wait --insert "${rule[@]}"
    done
  done
}

take_away() {
  local program
  for program in iptables ip6tables; do
    $program --wait --flush && $program --wait --delete-chain || true
  done
  ipset destroy
}

! ip6tables --wait --list-rules >/dev/null || let_neighbours_be_found
policies "$@" & enforcing=$!
trap 'kill $enforcing; wait $enforcing || true; take_away; exit 0' TERM INT
wait $enforcing
