// Does nothing but end: what it costs to run a VM at all.
#include "guest.inc"
main:
  ret
