// Says one line and never ends.
#include "guest.inc"
main:
  print "looping\n"
1:
  pause
  jmp 1b
