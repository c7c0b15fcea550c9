// Says one line and sleeps for ever: a virtual CPU that costs no time.
#include "guest.inc"
main:
  print "idle\n"
  jmp halt
