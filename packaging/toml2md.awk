#!/usr/bin/awk -f
# The commented configuration as text for its manual page: comments are
# paragraphs, settings are code. Its first line is a title.
BEGIN { print "# attest-server.toml\n\n# DESCRIPTION\n" }
/^#?\[/ || /^#?[a-z_]+ = / || /^#  / { if (text) print ""; print "    " $0; code = 1; text = 0; next }
/^# /  { if (code) print ""; print substr($0, 3); text = 1; code = 0; next }
       { print "" ; text = code = 0 }
