# meta-data, as YAML or as JSON, into files under `out`: hostname, instance-id, authorized_keys.
{
    line = $0
    while (match(line, /(ssh-|ecdsa-)[a-z0-9@.-]+ AAAA[^"',\r]*/)) {
        print substr(line, RSTART, RLENGTH) >>(out "/authorized_keys")
        line = substr(line, RSTART + RLENGTH)
    }
    gsub(/[{}"'\r]/, "")
    count = split($0, pairs, ",")
    for (i = 1; i <= count; i++) {
        colon = index(pairs[i], ":")
        if (!colon) continue
        key = substr(pairs[i], 1, colon - 1)
        value = substr(pairs[i], colon + 1)
        gsub(/[ \t]/, "", key)
        gsub(/^[ \t]+|[ \t]+$/, "", value)
        if (value != "") found[key] = value
    }
}
END {
    name = ("local-hostname" in found) ? found["local-hostname"] : found["hostname"]
    sub(/\..*/, "", name)
    if (name != "") print name >(out "/hostname")
    if ("instance-id" in found) print found["instance-id"] >(out "/instance-id")
}
