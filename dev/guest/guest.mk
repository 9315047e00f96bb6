# The test guest and the images made of it; included by the root Makefile.
# `make guest` is a no-op when nothing changed; `make guest-check` boots what was built.

.PHONY: guest guest-check

guest:
	@dev/guest/build

guest-check: guest
	@if [ -x .venv/bin/python ]; then .venv/bin/python dev/guest/selftest; else dev/guest/selftest; fi
