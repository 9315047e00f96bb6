# user-data in cloud-config form (with or without its first line) into files under `out`:
# hostname, password, authorized_keys, runcmd. It knows the shapes that tests write, not YAML.
function indent_of(text) { match(text, /^ */); return RLENGTH }

function scalar(text) {
    gsub(/^[ \t]+|[ \t\r]+$/, "", text)
    if (text ~ /^("([^"\\]|\\.)*"|'[^']*')[ \t]+#/) sub(/[ \t]+#[^"']*$/, "", text)
    if (text ~ /^".*"$/) {
        text = substr(text, 2, length(text) - 2)
        gsub(/\\"/, "\"", text)
        gsub(/\\\\/, "\\", text)
    } else if (text ~ /^'.*'$/) {
        text = substr(text, 2, length(text) - 2)
        gsub(/''/, "'", text)
    } else {
        sub(/[ \t]+#.*$/, "", text)
    }
    return text
}

function shell_word(text) { gsub(/'/, "'\\''", text); return "'" text "'" }

# The elements of "[a, 'b c', d]" into items[]; returns their number.
function flow_list(text, items,    i, c, quote, word, count) {
    sub(/^[ \t]*\[/, "", text)
    sub(/\][ \t\r]*$/, "", text)
    for (i = 1; i <= length(text); i++) {
        c = substr(text, i, 1)
        if (quote == "" && c == ",") { items[++count] = scalar(word); word = ""; continue }
        if (quote == "" && (c == "\"" || c == "'")) quote = c
        else if (c == quote) quote = ""
        word = word c
    }
    if (word ~ /[^ \t]/) items[++count] = scalar(word)
    return count + 0
}

function add_key(text) { text = scalar(text); if (text != "") print text >>(out "/authorized_keys") }

function flush_command() {
    if (command != "") print command >>(out "/runcmd")
    command = ""
    nested = -1
}

function run_item(text,    items, count, i) {
    flush_command()
    if (text ~ /^[|>]/) { block = item_indent; block_indent = -1; return }
    if (text ~ /^\[/) {
        count = flow_list(text, items)
        for (i = 1; i <= count; i++) command = command (i > 1 ? " " : "") shell_word(items[i])
    } else if (text ~ /^- /) {
        nested = item_indent + 2
        command = shell_word(scalar(substr(text, 3)))
    } else {
        command = scalar(text)
    }
}

BEGIN { nested = -1; block = -1; print "#!/bin/sh" >(out "/runcmd") }

{ sub(/\r$/, "") }

block >= 0 {
    if ($0 ~ /^[ \t]*$/) { print "" >>(out "/runcmd"); next }
    if (indent_of($0) > block) {
        if (block_indent < 0) block_indent = indent_of($0)
        print substr($0, block_indent + 1) >>(out "/runcmd")
        next
    }
    block = -1
}

/^[ \t]*(#.*)?$/ { next }

{
    here = indent_of($0)
    text = substr($0, here + 1)
    if (text ~ /^(- +)?ssh[-_]authorized[-_]keys:/) {
        flush_command()
        section = "keys"
        section_indent = here
        sub(/^(- +)?ssh[-_]authorized[-_]keys:[ \t]*/, "", text)
        if (text ~ /^\[/) {
            count = flow_list(text, keys)
            for (i = 1; i <= count; i++) add_key(keys[i])
        } else if (text != "") add_key(text)
        next
    }
    if (section == "keys" && text ~ /^- / && here >= section_indent) { add_key(substr(text, 3)); next }
    if (section == "runcmd" && nested >= 0 && here == nested && text ~ /^- /) {
        command = command " " shell_word(scalar(substr(text, 3)))
        next
    }
    if (section == "runcmd" && text ~ /^- /) {
        item_indent = here
        sub(/^- +/, "", text)
        run_item(text)
        next
    }
    flush_command()
    section = ""
    if (here > 0) next
    colon = index(text, ":")
    key = substr(text, 1, colon - 1)
    value = scalar(substr(text, colon + 1))
    if (key == "runcmd") section = "runcmd"
    else if (key == "hostname" && value != "") print value >(out "/hostname")
    else if (key == "fqdn" && value != "") { sub(/\..*/, "", value); print value >(out "/hostname") }
    else if (key == "password") print value >(out "/password")
}

END { flush_command() }
